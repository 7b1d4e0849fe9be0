import re
import shutil

import numpy as np
import pytest
from scipy import stats

from haskd_jax.experiments.arms import ARMS
from haskd_jax.report import write_report
from haskd_jax.report.comparisons import (
    COMPARISONS,
    RARE,
    compare,
    rare_classes,
    with_rare_classes,
)
from haskd_jax.report.run_folder import TITLES, read_run
from haskd_jax.report.seeds import interval_chart
from haskd_jax.report.statistics import PairedDifference, Result, class_columns
from tests.report import fake


def rows(scores, setting="all labels", metric="miou"):
    return [
        Result(setting, arm, seed, {metric: float(value)})
        for arm, values in scores.items()
        for seed, value in enumerate(values)
    ]


def test_only_comparisons_whose_arms_are_there():
    arms = ("plain", "ihd", "ihd_points", "haskd", "another")
    found = [(c.arm, c.reference) for c, _ in compare(rows({arm: [0.4, 0.5] for arm in arms}))]
    expected = [
        ("ihd", "plain"), ("ihd", "ihd_points"), ("ihd_points", "plain"), ("haskd", "plain"),
        ("haskd", "ihd"),
    ]  # fmt: skip
    assert found == expected
    assert len({(c.arm, c.reference) for c in COMPARISONS}) == len(COMPARISONS) == 27


def test_what_the_report_says_of_arms_is_of_arms_that_there_are():
    assert set(TITLES) == set(ARMS)
    assert {name for c in COMPARISONS for name in (c.arm, c.reference)} <= set(ARMS)


def test_a_comparison_is_of_its_own_two_arms():
    rng = np.random.default_rng(0)
    scores = {arm: rng.normal(0.5, 0.02, 6) for arm in ("plain", "cyclic", "asd", "haskd")}
    for comparison, d in compare(rows(scores)):
        test = stats.ttest_rel(scores[comparison.arm], scores[comparison.reference])
        interval = test.confidence_interval(0.95)
        np.testing.assert_allclose((d.low, d.high), (interval.low, interval.high), rtol=1e-9)
        assert d.arm == comparison.arm


def test_settings_are_compared_apart():
    table = rows({"plain": [0.1, 0.2], "cyclic": [0.3, 0.4]})
    table += rows({"plain": [0.5, 0.5], "cyclic": [0.1, 0.1]}, setting="few")
    found = {d.setting: round(d.mean, 9) for _, d in compare(table)}
    assert found == {"all labels": 0.2, "few": -0.4}


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.01, 0.03), "better"),
        ((-0.03, -0.01), "worse"),
        ((-0.01, 0.05), "not told apart"),
        ((0.0, 0.04), "not told apart"),
        ((None, None), "one pair only"),
    ],
)
def test_verdicts(interval, said):
    mean = 0.02 if interval[0] is None else sum(interval) / 2
    assert PairedDifference("", "haskd", 8, mean, 0.01, *interval).verdict == said


def test_rare_is_under_one_percent_and_there():
    points = np.array([0, 1, 99, 100, 9800])
    assert rare_classes(points, "abcde") == ("b", "c")


def test_the_mean_of_rare_classes_is_over_those_that_occur():
    values = {"miou": 0.5, "a": 0.2, "b": 0.4, "c": 0.9}
    both, one, none = with_rare_classes(
        [
            Result("", "plain", 0, values),
            Result("", "plain", 1, {"miou": 0.5, "b": 0.4}),
            Result("", "plain", 2, {"miou": 0.5, "c": 0.9}),
        ],
        ["a", "b"],
    )
    assert both.values[RARE] == pytest.approx(0.3) and one.values[RARE] == 0.4
    assert none.values == {"miou": 0.5, "c": 0.9}


def test_what_an_arm_costs_is_no_class():
    costs = {"parameters": 9.0, "seconds_per_scene": 0.1, "training_seconds": 5.0}
    row = Result("", "plain", 0, {"miou": 0.5, "accuracy": 0.8, "sofa": 0.1} | costs)
    assert class_columns([row]) == ("sofa",)


def test_the_chart_is_to_scale():
    comparison = COMPARISONS[0]
    chart = interval_chart(
        [
            (comparison, PairedDifference("", "teacher", 8, 0.02, 0.01, 0.01, 0.03)),
            (comparison, PairedDifference("", "teacher", 8, -0.02, 0.01, -0.03, -0.01)),
            (comparison, PairedDifference("", "teacher", 1, 0.5, None, None, None)),
        ]
    )
    dots = [float(x) for x in re.findall(r'cx="([\d.]+)"', chart)]
    spans = [
        tuple(map(float, span)) for span in re.findall(r'd="M([\d.]+) \d+H([\d.]+)" stroke', chart)
    ]
    assert len(dots) == len(spans) == 2
    (zero,) = re.findall(r'd="M([\d.]+) 2V\d+" style', chart)
    np.testing.assert_allclose([(low + high) / 2 for low, high in spans], dots, atol=0.11)
    np.testing.assert_allclose(np.mean(dots), float(zero), atol=0.11)
    assert chart.index("var(--up)") < chart.index("var(--down)")


def test_of_a_sweep_s_folder(run, tmp_path):
    """Its table lies beside the folders of its seeds, of which the first is shown."""
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    fake.write_results(sweep, {"plain": 0.40, "cyclic": 0.41, "haskd": 0.50})
    shutil.copytree(run, sweep / "seed_0")
    path = write_report(sweep)
    assert path == sweep / "report.html"
    page = path.read_text(encoding="utf-8")
    assert "the cyclic schedule" in page and ">better<" in page and ">not told apart<" not in page
    assert page.count("Differences in mIoU points with 95 % intervals</figcaption>") == 2
    assert "Over seeds" not in write_report(run).read_text(encoding="utf-8")


def test_a_sweep_is_judged_by_its_own_arms(run, tmp_path):
    """The folder of a seed keeps arms of earlier commands, of which the table says nothing."""
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    fake.write_results(sweep, {"plain": 0.40, "ihd": 0.50})
    shutil.copytree(run, sweep / "seed_0")
    assert any(arm.name == "haskd" for arm in read_run(sweep / "seed_0").arms)
    page = write_report(sweep).read_text(encoding="utf-8")
    verdict = re.search(r'class="verdict">([^<]*)<', page)[1]
    assert "paired seeds" in verdict and "HAS-KD" not in verdict
