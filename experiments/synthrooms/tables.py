"""Prints a sweep as the tables of RESULTS.md.

python experiments/synthrooms/tables.py experiments/synthrooms/results/few_labels_7 asd-plain

Three tables: each arm's mIoU, seed by seed; the paired differences of all classes and of the rare
ones; IoU class by class, with the differences that are named, every arm against another.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from haskd_jax.experiments.arms import ARMS
from haskd_jax.report import paired_differences, read_results
from haskd_jax.report.comparisons import RARE
from haskd_jax.report.statistics import Result, class_columns, summaries


def seed_table(rows: Sequence[Result]) -> Iterator[str]:
    """Each arm's mIoU, seed by seed, percent."""
    seeds = sorted({row.seed for row in rows})
    score = {(row.arm, row.seed): f"{100 * row.values['miou']:.1f}" for row in rows}
    yield _line("seed", *map(str, seeds), "mean", "sd")
    yield _line(*["---"] * (len(seeds) + 3))
    for arm in _arms(rows):
        (over,) = summaries([row for row in rows if row.arm == arm])
        cells = [score.get((arm, seed), "") for seed in seeds]
        sd = "" if over.sd is None else f"{100 * over.sd:.1f}"
        yield _line(arm, *cells, f"**{100 * over.mean:.1f}**", sd)


def difference_table(path: Path) -> Iterator[str]:
    """What a `differences.csv` says of all classes and of the rare ones, in points."""
    yield _line("paired difference", "seeds", "mean", "95 % interval", "excludes zero")
    yield _line(*["---"] * 5)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["metric"] in ("miou", RARE):
                rare = f", {RARE}" if row["metric"] == RARE else ""
                name = f"{row['arm']} - {row['reference']}{rare}"
                mean, low, high = (
                    float(row[key]) if row[key] else None for key in ("mean", "low", "high")
                )
                numbers = (_points(mean), _interval(low, high))
                yield _line(name, row["seeds"], *numbers, row["excludes_zero"])


def class_table(rows: Sequence[Result], pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """IoU of each class, means over seeds, percent, and the differences of `pairs` in points."""
    arms = _arms(rows)
    heads = [head for arm, reference in pairs for head in (f"{arm} - {reference}", "interval")]
    yield _line("IoU, means over seeds", *arms, *heads)
    yield _line(*["---"] * (1 + len(arms) + len(heads)))
    for name in class_columns(rows):
        mean = {over.arm: over.mean for over in summaries(rows, name)}
        cells = [f"{100 * mean[arm]:.0f}" if arm in mean else "" for arm in arms]
        for arm, reference in pairs:
            both = [row for row in rows if row.arm in (arm, reference)]
            found = paired_differences(both, reference=reference, metric=name)
            cells += (
                [_points(found[0].mean), _interval(found[0].low, found[0].high)]
                if found
                else ["", ""]
            )
        yield _line(name, *cells)


def _arms(rows: Sequence[Result]) -> list[str]:
    """Students first, as they are what is compared."""
    found = {row.arm for row in rows}
    return sorted(
        (arm for arm in ARMS if arm in found), key=lambda arm: ARMS[arm].role == "teacher"
    )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None else f"{_points(low)} to {_points(high)}"


def main(arguments: Sequence[str]) -> None:
    """Prints the tables of the folder that is named, with the differences that are named."""
    folder = Path(arguments[0])
    rows = read_results(folder / "results.csv")
    pairs = [(arm, reference) for arm, _, reference in (s.partition("-") for s in arguments[1:])]
    there = {row.arm for row in rows}
    if missing := {name for pair in pairs for name in pair} - there:
        raise SystemExit(f"no arm {', '.join(sorted(missing))}; there are {', '.join(there)}")
    for table in (
        seed_table(rows),
        difference_table(folder / "differences.csv"),
        class_table(rows, pairs),
    ):
        print("\n".join(table), end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
