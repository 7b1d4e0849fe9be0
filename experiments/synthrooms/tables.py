"""Prints sweeps as the tables of RESULTS.md.

python experiments/synthrooms/tables.py experiments/synthrooms/results/few_labels_7 asd-plain
python experiments/synthrooms/tables.py experiments/synthrooms/results/few_labels_{6,7} ihd-plain

Of one folder three tables: each arm's mIoU, seed by seed; the paired differences of all classes and
of the rare ones; IoU class by class, with the differences that are named, every arm against
another. Of several folders one: the named differences of mIoU over the seeds of all of them, each
seed paired on the test rooms of its own folder.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
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


def pooled_table(
    sweeps: Sequence[Sequence[Result]], pairs: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """Paired differences of mIoU over the seeds of several sweeps, in points."""
    yield _line("paired difference", "seeds", "mean", "95 % interval", "excludes zero")
    yield _line(*["---"] * 5)
    for arm, reference in pairs:
        number, pooled = count(), []
        for rows in sweeps:
            # A seed of one sweep is not that of another, where their rooms differ.
            other = {seed: next(number) for seed in sorted({row.seed for row in rows})}
            pooled += [
                replace(row, setting="all", seed=other[row.seed])
                for row in rows
                if row.arm in (arm, reference)
            ]
        for found in paired_differences(pooled, reference=reference):
            numbers = _points(found.mean), _interval(found.low, found.high)
            shown = "yes" if found.excludes_zero else "no"
            yield _line(f"{arm} - {reference}", str(found.seeds), *numbers, shown)


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
    """Prints the tables of the folders that are named, with the differences that are named."""
    folders = [Path(name) for name in arguments if Path(name).is_dir()]
    if not folders:
        raise SystemExit("name a folder of results first; there is none among the arguments")
    named = arguments[len(folders) :]
    pairs = [(arm, reference) for arm, _, reference in (s.partition("-") for s in named)]
    sweeps = [read_results(folder / "results.csv") for folder in folders]
    for folder, rows in zip(folders, sweeps, strict=True):
        there = sorted({row.arm for row in rows})
        if missing := sorted({name for pair in pairs for name in pair} - set(there)):
            raise SystemExit(f"{folder}: no arm {', '.join(missing)}; there are {', '.join(there)}")
    tables = (
        (pooled_table(sweeps, pairs),)
        if len(folders) > 1
        else (
            seed_table(sweeps[0]),
            difference_table(folders[0] / "differences.csv"),
            class_table(sweeps[0], pairs),
        )
    )
    for table in tables:
        print("\n".join(table), end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
