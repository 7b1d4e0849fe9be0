import numpy as np
import pytest
from scipy import stats

from haskd_jax.data import DataError
from haskd_jax.report.statistics import (
    Result,
    majority,
    paired_differences,
    read_results,
    summaries,
)
from tests.report import fake


def rows(scores, setting="full"):
    return [
        Result(setting, arm, seed, {"miou": float(value)})
        for arm, values in scores.items()
        for seed, value in enumerate(values)
    ]


def test_against_scipy():
    rng = np.random.default_rng(0)
    plain = rng.normal(0.45, 0.02, 8)
    haskd = plain + rng.normal(0.01, 0.01, 8)
    (d,) = paired_differences(rows({"plain": plain, "haskd": haskd}))
    test = stats.ttest_rel(haskd, plain)
    interval = test.confidence_interval(0.95)
    np.testing.assert_allclose((d.low, d.high), (interval.low, interval.high), rtol=1e-10)
    np.testing.assert_allclose(d.mean, (haskd - plain).mean(), rtol=1e-12)
    np.testing.assert_allclose(d.sd, (haskd - plain).std(ddof=1), rtol=1e-12)
    assert d.excludes_zero == (test.pvalue < 0.05)
    assert (d.setting, d.arm, d.seeds) == ("full", "haskd", 8)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.99])
def test_other_confidence(confidence):
    a, b = np.random.default_rng(1).normal(size=(2, 5))
    table = rows({"plain": a, "x": b})
    (d,) = paired_differences(table, confidence=confidence)
    expected = stats.ttest_rel(b, a).confidence_interval(confidence)
    np.testing.assert_allclose((d.low, d.high), (expected.low, expected.high), rtol=1e-10)


def test_pairs_by_seed_not_by_row():
    table = rows({"plain": [0.1, 0.2, 0.3], "haskd": [0.2, 0.3, 0.5]})
    expected = paired_differences(table)
    assert paired_differences(table[::-1]) == expected
    assert expected[0].mean == pytest.approx(0.4 / 3)


def test_seeds_that_one_lacks_are_left_out():
    table = rows({"plain": [0.1, 0.2], "haskd": [0.2, 0.3, 0.9]})
    (d,) = paired_differences(table)
    assert d.seeds == 2 and d.mean == pytest.approx(0.1)


def test_one_pair_has_no_interval():
    (d,) = paired_differences(rows({"plain": [0.1], "haskd": [0.2]}))
    assert (d.sd, d.low, d.high, d.excludes_zero) == (None, None, None, False)


def test_settings_are_kept_apart():
    table = rows({"plain": [0.1, 0.1], "haskd": [0.3, 0.2]})
    table += rows({"plain": [0.5, 0.5], "haskd": [0.4, 0.3]}, setting="few")
    means = {d.setting: round(d.mean, 12) for d in paired_differences(table)}
    assert means == {"full": 0.15, "few": -0.15}


def test_without_the_reference_there_is_nothing():
    assert paired_differences(rows({"haskd": [0.2, 0.3]})) == ()


def test_confidence_must_be_a_share():
    with pytest.raises(ValueError, match=r"confidence: 95\.0"):
        paired_differences([], confidence=95.0)


def test_summaries():
    full, one = summaries(rows({"plain": [0.1, 0.3], "haskd": [0.2]}))
    assert full.mean == pytest.approx(0.2) and full.sd == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert (one.arm, one.seeds, one.sd) == ("haskd", 1, None)


def test_table_round_trip(tmp_path):
    fake.write_results(tmp_path, {"plain": 0.4, "haskd": 0.5}, seeds=3)
    results = read_results(tmp_path / "results.csv")
    assert len(results) == 2 * 2 * 3
    assert set(results[0].values) == {"miou", "accuracy", *fake.CLASSES}
    by_class = paired_differences(results, metric="shower curtain")
    assert [d.seeds for d in by_class] == [3, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arm,seed,miou\n", "lacks the columns"),
        ("setting,arm,seed,miou\na,b,0,x\n", "row 2"),
        ("setting,arm,seed,miou\na,b,0,nan\n", "miou: nan"),
        ("setting,arm,seed,miou\na,b,0,0.5\na,b,0,0.6\n", "row 3.*twice"),
        ("setting,arm,seed,miou\na,b,0\n", "not as many cells"),
        ("setting,arm,seed,miou\na,b,0,1,2\n", "not as many cells"),
    ],
)
def test_bad_tables(tmp_path, text, said):
    path = tmp_path / "results.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        read_results(path)
    assert caught.value.file == str(path)


def test_an_empty_cell_is_a_class_that_did_not_occur(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("setting,arm,seed,miou,sink\na,b,0,0.5,\n", encoding="utf-8")
    assert read_results(path)[0].values == {"miou": 0.5}


def test_majority_is_what_a_constant_answer_scores():
    confusion = np.random.default_rng(3).integers(0, 50, (6, 6))
    confusion[4] = 0
    constant = np.zeros_like(confusion)
    base = majority(confusion)
    constant[:, base.index] = confusion.sum(axis=1)
    expected = fake.scores(constant)
    assert base.miou == pytest.approx(expected["miou"])
    assert base.accuracy == pytest.approx(expected["accuracy"])
    others = np.delete(np.arange(6), base.index)
    assert all(confusion[base.index].sum() >= confusion[o].sum() for o in others)


def test_majority_of_nothing():
    assert majority(np.zeros((3, 3), np.int64)) is None
