"""experiments/synthrooms/tables.py: what RESULTS.md shows of a sweep."""

import numpy as np
import pytest

from haskd_jax.experiments.sweep_tables import SeedResults, write_tables
from haskd_jax.report.statistics import Result


def test_scores_differences_and_classes(script, tmp_path, capsys):
    """Of three seeds, one of which lacks an arm; there is one class."""
    miou = {"plain": (0.50, 0.52, 0.6), "asd": (0.54, 0.58), "teacher": (0.6, 0.6, 0.6)}
    seeds = [
        SeedResults(
            tuple(
                Result("few", arm, seed, dict.fromkeys(("miou", "accuracy", "sink"), scores[seed]))
                for arm, scores in miou.items()
                if seed < len(scores)
            ),
            ("sink",),
            np.array([1]),
        )
        for seed in range(3)
    ]
    write_tables(tmp_path, seeds)
    script("tables").main([str(tmp_path), "asd-plain"])
    lines = capsys.readouterr().out.splitlines()
    assert "| seed | 0 | 1 | 2 | mean | sd |" in lines
    assert "| plain | 50.0 | 52.0 | 60.0 | **54.0** | 5.3 |" in lines
    assert "| asd | 54.0 | 58.0 |  | **56.0** | 2.8 |" in lines
    # Of the two seeds that both have: 0.05, and 12.7062 * 0.0141421 / sqrt(2) to each side.
    assert "| asd - plain | 2 | +5.0 | -7.7 to +17.7 | no |" in lines
    # The teacher comes last, whatever its place among the arms.
    assert "| IoU, means over seeds | plain | asd | teacher | asd - plain | interval |" in lines
    assert "| sink | 54 | 56 | 60 | +5.0 | -7.7 to +17.7 |" in lines


def test_seeds_of_several_sweeps_are_paired_each_within_its_own(script, tmp_path, capsys):
    """Seed 0 of one sweep is not seed 0 of the other: +4 and +2 and +6, not means of two."""
    for name, scores in {
        "first": {"plain": (0.50, 0.52), "asd": (0.54, 0.54)},
        "other": {"asd": (0.90,), "plain": (0.84,), "ihd": (0.1,)},
    }.items():
        count = len(scores["plain"])
        seeds = [
            SeedResults(
                tuple(
                    Result(name, arm, seed, dict.fromkeys(("miou", "accuracy"), values[seed]))
                    for arm, values in scores.items()
                ),
                (),
                np.zeros(0, np.int64),
            )
            for seed in range(count)
        ]
        write_tables(tmp_path / name, seeds)
    folders = [str(tmp_path / name) for name in ("first", "other")]
    script("tables").main([*folders, "asd-plain"])
    # 4.30265 * 2 / sqrt(3) = 4.968 to each side of 4.
    assert "| asd - plain | 3 | +4.0 | -1.0 to +9.0 | no |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"first: no arm ihd; there are asd, plain"):
        script("tables").main([*folders, "ihd-plain"])
    with pytest.raises(SystemExit, match="name a folder"):
        script("tables").main(["asd-plain"])
