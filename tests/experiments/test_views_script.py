"""experiments/synthrooms/views.py: means by number of views, and what IOF's teacher has more."""

import pytest

from haskd_jax.report.statistics import Result


@pytest.fixture
def summary(script):
    return script("views").summary


def row(views, arm, seed, miou):
    return Result(f"{views} views", arm, seed, {"miou": miou})


def test_means_and_the_paired_difference(summary):
    scores = {"teacher": (0.60, 0.64), "teacher_uniform": (0.55, 0.61)}
    rows = [row(3, arm, seed, miou) for arm, v in scores.items() for seed, miou in enumerate(v)]
    # 5 and 3: mean 4, standard error 1, Student's 97.5 % quantile of one degree 12.706.
    assert list(summary(rows)) == [
        "3 views, teacher: 62.0",
        "3 views, teacher_uniform: 58.0",
        "3 views, teacher - teacher_uniform: +4.0, 95 % interval -8.7 to +16.7",
    ]


def test_only_equal_numbers_of_views_are_paired(summary):
    rows = [row(3, "teacher", 0, 0.6), row(6, "teacher_uniform", 0, 0.5)]
    rows += [row(6, "teacher_random", 0, 0.4), row(6, "teacher", 0, 0.7)]
    assert [line for line in summary(rows) if " - " in line] == [
        "6 views, teacher - teacher_uniform: +20.0",
        "6 views, teacher - teacher_random: +30.0",
    ]
