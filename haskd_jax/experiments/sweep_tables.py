"""The tables of a sweep: results.csv, summary.csv, differences.csv. See docs/sweeps.md."""

import csv
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from haskd_jax.experiments.config import Experiment
from haskd_jax.files import write_whole
from haskd_jax.report.comparisons import (
    RARE,
    class_names,
    compare,
    rare_classes,
    with_rare_classes,
)
from haskd_jax.report.run_folder import Arm, read_run, training_seconds
from haskd_jax.report.statistics import COSTS, KEYS, SCORES, PairedDifference, Result, summaries
from haskd_jax.train.image_encoders import encoder_in_words, read_encoder
from haskd_jax.train.log import read_log


class SeedResults(NamedTuple):
    """What one run of a sweep reached.

    Attributes:
        results: A row an arm that was evaluated.
        classes: C names, as columns have them, see `class_names`.
        points: [C] how many points of each class were evaluated, summed over the arms.
    """

    results: tuple[Result, ...]
    classes: tuple[str, ...]
    points: Int64[np.ndarray, " C"]


_FAMILIES = {"minkunet": "MinkUNet", "spvcnn": "SPVCNN"}
_OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon", "sgd": "SGD"}


def setting_in_words(experiment: Experiment) -> str:
    """Which network trains, and how long; which labels it and its image encoder see, which voxels
    are taught.

    Args:
        experiment: The experiment.

    Returns:
        The words.

    Example:
        >>> from haskd_jax.experiments.config import ScenesConfig
        >>> from haskd_jax.experiments.synthrooms import SynthRoomsExperiment
        >>> setting_in_words(SynthRoomsExperiment(encoder=None))
        'MinkUNet, 1000 steps with AdamW, all labels'
        >>> few = ScenesConfig(labelled=0.2)
        >>> setting_in_words(SynthRoomsExperiment(encoder=None, scenes=few))
        'MinkUNet, 1000 steps with AdamW, 20 % of the scenes labelled'
    """
    scenes = experiment.scenes
    parts = []
    if scenes.labelled_list is not None:
        parts.append(f"scenes of {scenes.labelled_list.name} labelled")
    elif scenes.labelled != 1.0:
        parts.append(f"{100 * scenes.labelled:g} % of the scenes labelled")
    if scenes.labelled_points is not None:
        parts.append(f"{scenes.labelled_points} points a scene labelled")
    family = experiment.model.family  # one of a user's own is a module's name
    optimizer = _OPTIMIZERS[experiment.train.optimizer.name]
    length = f"{experiment.train.steps} steps with {optimizer}"
    parts = [_FAMILIES.get(family, family), length, *(parts or ["all labels"])]
    for name, taught in (("IHD", experiment.ihd.voxels), ("ASD", experiment.asd.voxels)):
        if taught == "unlabelled":
            parts.append(f"{name} on voxels without labels")
    if experiment.encoder is not None:
        parts.append(encoder_in_words(read_encoder(experiment.encoder)))
    return ", ".join(parts)


def read_seed(
    run: str | Path, *, setting: str, seed: int, arms: Collection[str] | None = None
) -> SeedResults:
    """Reads what a run reached.

    Args:
        run: Its folder.
        setting: In words, as the table is to name it.
        seed: Its seed.
        arms: Those that have a row if they were evaluated; all by default.

    Returns:
        The rows of its arms.

    Raises:
        DataError: A file is damaged; names it.
    """
    found = read_run(run)
    rows = []
    classes = class_names(found.classes)
    points = np.zeros(len(classes), np.int64)
    for arm in found.evaluated:
        if arms is not None and arm.name not in arms:
            continue
        scored = arm.evaluation
        assert scored is not None
        points += scored.confusion.sum(axis=1)
        values = {"miou": scored.miou, "accuracy": scored.accuracy}
        costs = (scored.parameters, scored.seconds_per_scene, _own_training(found.folder, arm))
        for name, cost in zip(COSTS, costs, strict=True):
            if cost is not None:
                values[name] = float(cost)
        values |= {
            name: iou for name, iou in zip(classes, scored.iou, strict=True) if iou is not None
        }
        rows.append(Result(setting, arm.name, seed, values))
    return SeedResults(tuple(rows), classes, points)


def _own_training(run: Path, arm: Arm) -> float | None:
    """Of the arm, or of the trainings that an ensemble is made of."""
    folders = [arm.folder]
    if arm.name == "snapshots":
        folders = [run / "cyclic"]
    elif arm.name == "ensemble":
        assert arm.evaluation is not None
        members = arm.evaluation.protocol["ensemble"]  # the folder may hold more than were asked
        folders = [run / "plain", *(arm.folder / str(i) for i in range(1, members))]
    logs = [read_log(folder) for folder in folders if (folder / "metrics.jsonl").exists()]
    seconds = [training_seconds(log) for log in logs]
    known = [value for value in seconds if value is not None]
    return sum(known) if known and len(known) == len(folders) else None


def write_tables(out: str | Path, seeds: Sequence[SeedResults]) -> None:
    """Writes results.csv, summary.csv and differences.csv, each whole or not at all.

    Args:
        out: Where to.
        seeds: What the runs of a sweep reached.

    Raises:
        ValueError: Nothing was evaluated, or runs have other classes than the first.
    """
    if not any(seed.results for seed in seeds):
        raise ValueError("seeds: no arm of any seed was evaluated")
    classes = seeds[0].classes
    if any(seed.classes != classes for seed in seeds):
        raise ValueError("seeds: their classes differ: evaluate all of them on the same scenes")
    rare = rare_classes(np.sum([seed.points for seed in seeds], axis=0), classes)
    results = with_rare_classes([row for seed in seeds for row in seed.results], rare)
    # Arms together, in their order within a run.
    order = {name: i for i, name in enumerate(dict.fromkeys(row.arm for row in results))}
    results = tuple(sorted(results, key=lambda row: (order[row.arm], row.seed)))
    out = Path(out)
    write_csv(
        out / "results.csv",
        [*KEYS, *SCORES, *COSTS, *classes],
        (
            [r.setting, r.arm, r.seed, *(r.values.get(n) for n in (*SCORES, *COSTS, *classes))]
            for r in results
        ),
    )
    heads, rows = _summary(results, classes)
    write_csv(out / "summary.csv", heads, rows)
    heads, rows = _differences(results, classes)
    write_csv(out / "differences.csv", heads, rows)


def _summary(results: Sequence[Result], classes: Sequence[str]) -> tuple[list[str], list[Any]]:
    over = {
        name: {(s.setting, s.arm): s for s in summaries(results, name)}
        for name in (*SCORES, RARE, *COSTS, *classes)
    }
    rows = []
    for key, miou in over["miou"].items():
        accuracy = over["accuracy"][key]
        means = [over[name].get(key) for name in (RARE, *COSTS, *classes)]
        rows.append(
            [*key, miou.seeds, miou.mean, miou.sd, accuracy.mean, accuracy.sd]
            + [None if s is None else s.mean for s in means]
        )
    heads = ["setting", "arm", "seeds", "miou", "miou_sd", "accuracy", "accuracy_sd"]
    return [*heads, RARE, *COSTS, *classes], rows


def _differences(results: Sequence[Result], classes: Sequence[str]) -> tuple[list[str], list[Any]]:
    rows = [
        [d.setting, c.arm, c.reference, c.tests, metric, d.seeds, *_numbers(d)]
        for metric in ("miou", RARE, *classes)
        for c, d in compare(results, metric)
    ]
    heads = ["setting", "arm", "reference", "tests", "metric", "seeds"]
    return [*heads, "mean", "sd", "low", "high", "excludes_zero"], rows


def _numbers(d: PairedDifference) -> tuple[Any, ...]:
    excludes = None if d.low is None else "yes" if d.excludes_zero else "no"
    return d.mean, d.sd, d.low, d.high, excludes


def write_csv(path: Path, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table, whole or not at all.

    Args:
        path: The file.
        heads: Names of the columns.
        rows: Their values; None becomes an empty cell.
    """

    def write(beside: Path) -> None:
        with beside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(heads)
            writer.writerows(rows)

    write_whole(path, write)
