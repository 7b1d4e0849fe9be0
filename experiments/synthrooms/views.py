"""How much does a teacher know from one view, from three, from ten? Chosen by IOF and otherwise.

python experiments/synthrooms/views.py runs/few_labels_11 . 1 3 6 10 16

The teachers of every seed of a sweep score its test rooms from each number of views that is named,
chosen in the way in which those of their training were. Writes views.csv, a row a seed, teacher and
number of views, and prints means and, of two teachers, the paired difference.
"""

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from haskd_jax.data.prepared import read_json
from haskd_jax.experiments.arms import ARMS
from haskd_jax.experiments.sweep_tables import write_csv
from haskd_jax.experiments.trained import load_trained
from haskd_jax.report import paired_differences
from haskd_jax.report.statistics import KEYS, Result, summaries
from haskd_jax.train.evaluation import evaluate
from haskd_jax.train.selection import Method, select


def score(sweep: Path, numbers: Sequence[int]) -> Iterator[Result]:
    """The teachers of all seeds from all numbers of views.

    Args:
        sweep: Its folder.
        numbers: Of views.

    Yields:
        The mIoU over the points of all test rooms, each once it is there; the number of views is
        its setting.
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
                seed = int(run.name.removeprefix("seed_"))
                yield Result(f"{views} views", name, seed, {"miou": found.miou})


def summary(rows: Sequence[Result]) -> Iterator[str]:
    """Means over seeds by number of views, percent, and what IOF's teacher has more, paired."""
    for over in summaries(rows):
        yield f"{over.setting}, {over.arm}: {100 * over.mean:.1f}"
    for reference in ("teacher_uniform", "teacher_random"):
        pair = [row for row in rows if row.arm in ("teacher", reference)]
        for found in paired_differences(pair, reference=reference):
            text = f"{found.setting}, teacher - {reference}: {100 * found.mean:+.1f}"
            if found.low is not None and found.high is not None:
                text += f", 95 % interval {100 * found.low:+.1f} to {100 * found.high:+.1f}"
            yield text


def main(arguments: Sequence[str]) -> None:
    """Writes and prints what the teachers of a sweep say."""
    sweep, folder = map(Path, arguments[:2])
    rows = []
    for row in score(sweep, [int(number) for number in arguments[2:]]):
        rows.append(row)
        print(row.setting, row.arm, row.seed, row.values["miou"], flush=True)
    table = ([row.setting, row.arm, row.seed, row.values["miou"]] for row in rows)
    write_csv(folder / "views.csv", [*KEYS, "miou"], table)
    print(*summary(rows), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
