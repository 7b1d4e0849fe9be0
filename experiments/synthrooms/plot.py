"""Draws a sweep: each arm's mIoU, seed by seed.

python experiments/synthrooms/plot.py experiments/synthrooms/results/few_labels
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from haskd_jax.experiments.arms import ARMS
from haskd_jax.report import read_results


def plot(folder: Path) -> Path:
    """Draws `results.csv` of a folder into `results.png` beside it.

    Args:
        folder: Of the tables of a sweep.

    Returns:
        The picture.
    """
    rows = read_results(folder / "results.csv")
    found = {row.arm for row in rows}
    arms = sorted(
        (arm for arm in ARMS if arm in found), key=lambda arm: ARMS[arm].role == "teacher"
    )
    score = {(row.arm, row.seed): 100 * row.values["miou"] for row in rows}
    figure, axes = plt.subplots(figsize=(1.2 + 1.3 * len(arms), 3.6), layout="constrained")
    for seed in sorted({row.seed for row in rows}):
        places = [i for i, arm in enumerate(arms) if (arm, seed) in score]
        values = [score[arms[i], seed] for i in places]
        axes.plot(places, values, "o-", color="0.65", markersize=4, linewidth=0.8)
    for i, arm in enumerate(arms):
        values = [value for (name, _), value in score.items() if name == arm]
        mean = sum(values) / len(values)
        axes.plot([i - 0.2, i + 0.2], [mean, mean], color="tab:red", linewidth=2)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.annotate(f"{mean:.1f}", (i + 0.25, mean), va="center", color="tab:red", bbox=box)
    axes.set_xticks(range(len(arms)), arms)
    axes.set_xlim(-0.5, len(arms) - 0.2)
    axes.set_ylabel("mIoU, %")
    axes.set_title("a line a seed, means in red", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    path = folder / "results.png"
    figure.savefig(path, dpi=120)
    return path


def main(arguments: Sequence[str]) -> None:
    """Draws the sweeps whose folders are named."""
    for folder in arguments:
        print(plot(Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
