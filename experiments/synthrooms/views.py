"""How much does a teacher know from one view, from three, from ten? Chosen by IOF and otherwise.

python experiments/synthrooms/views.py runs/few_labels_11 . 1 3 6 10 16

The teachers of every seed of a sweep score its test rooms from each number of views that is named,
chosen in the way in which those of their training were. Writes views.csv, a row a seed, teacher and
number of views, and prints means and, of two teachers, the paired difference.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from haskd_jax.data.prepared import read_json
from haskd_jax.experiments.arms import ARMS, ArmName
from haskd_jax.experiments.sweep_tables import write_csv
from haskd_jax.experiments.trained import load_trained
from haskd_jax.train.evaluation import evaluate
from haskd_jax.train.selection import Method, select


class Row(NamedTuple):
    """One evaluation: mIoU over the points of all test rooms."""

    seed: int
    teacher: ArmName
    views: int
    miou: float


def score(sweep: Path, numbers: Sequence[int]) -> Iterator[Row]:
    """The teachers of all seeds from all numbers of views.

    Args:
        sweep: Its folder.
        numbers: Of views.

    Yields:
        Each result, once it is there.
    """
    runs = sorted(sweep.glob("seed_*"), key=lambda run: int(run.name.removeprefix("seed_")))
    info = read_json(runs[0] / "run.json")
    root, rooms, config = info["prepared"], info["scenes"]["test"], info["config"]
    given = {
        "voxel_size": config["views"]["voxel_size"],
        "rho": config["views"]["rho"],
        "tolerance": config["teacher"]["tolerance"],
    }

    @cache  # all seeds see the same frames
    def frames(method: Method, views: int) -> dict[str, list[int]]:
        found = select(root, rooms, method=method, num_views=views, **given)["scenes"]
        return {name: entry["indices"] for name, entry in found.items()}

    for run in runs:
        for name, arm in ARMS.items():
            if arm.views is None or not (run / name / "weights").exists():
                continue
            network, *weights = load_trained(run / name)
            for views in numbers:
                found = evaluate(
                    network,
                    *weights,
                    root,
                    rooms,
                    split="test",
                    views=views,
                    selection=frames(arm.views, views),
                    timed=False,
                )
                yield Row(int(run.name.removeprefix("seed_")), name, views, found.miou)


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Means over seeds by number of views, percent, and what IOF's teacher has more, paired."""
    found: dict[tuple[ArmName, int], dict[int, float]] = defaultdict(dict)
    for row in rows:
        found[row.teacher, row.views][row.seed] = 100 * row.miou
    for (name, views), by_seed in found.items():
        yield f"{name}, {views} views: {np.mean(list(by_seed.values())):.1f}"
        best = found.get(("teacher", views), {})
        seeds = sorted(best.keys() & by_seed.keys())
        if name != "teacher" and len(seeds) > 1:
            more = np.array([best[seed] - by_seed[seed] for seed in seeds])
            low, high = stats.ttest_1samp(more, 0).confidence_interval(0.95)
            yield f"  teacher - {name}: {more.mean():+.1f}, 95 % interval {low:+.1f} to {high:+.1f}"


def main(arguments: Sequence[str]) -> None:
    """Writes and prints what the teachers of a sweep say."""
    sweep, folder = map(Path, arguments[:2])
    rows = []
    for row in score(sweep, [int(number) for number in arguments[2:]]):
        rows.append(row)
        print(*row, flush=True)
    write_csv(folder / "views.csv", Row._fields, rows)
    print(*summary(rows), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
