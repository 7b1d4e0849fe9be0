"""experiments/synthrooms/views.py: means by number of views, and what IOF's teacher has more."""

import pytest


@pytest.fixture
def script_views(script):
    return script("views")


def test_means_and_the_paired_difference(script_views):
    scores = {"teacher": (0.60, 0.64), "teacher_uniform": (0.55, 0.61)}
    rows = [
        script_views.Row(seed, name, 3, miou)
        for name, values in scores.items()
        for seed, miou in enumerate(values)
    ]
    first, second, third = script_views.summary(rows)
    assert first == "teacher, 3 views: 62.0" and second == "teacher_uniform, 3 views: 58.0"
    # 5 and 3: mean 4, standard error 1, Student's 97.5 % quantile of one degree 12.706.
    assert third == "  teacher - teacher_uniform: +4.0, 95 % interval -8.7 to +16.7"


def test_seeds_that_one_teacher_lacks_and_other_numbers_are_not_paired(script_views):
    row = script_views.Row
    rows = [
        row(0, "teacher", 3, 0.6),
        row(1, "teacher", 3, 0.5),
        row(0, "teacher_uniform", 3, 0.5),
        row(1, "teacher_uniform", 6, 0.5),
    ]
    assert not any("interval" in line for line in script_views.summary(rows))
