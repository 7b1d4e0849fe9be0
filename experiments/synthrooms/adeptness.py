"""Is a snapshot's class-wise adeptness more than noise? Judged by two halves of the rooms.

python experiments/synthrooms/adeptness.py runs/few_labels_3 .

The snapshots of the cyclic student of every seed are scored on two halves of its calibration rooms.
What a snapshot is better at than its own mean and the class's would have it is adeptness if both
halves say the same, and noise if they do not. Writes adeptness.csv, a row a seed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import stats

from haskd_jax.data.prepared import read_json
from haskd_jax.experiments.sweep_tables import write_csv
from haskd_jax.train.card import read_card
from haskd_jax.train.evaluation import class_iou
from haskd_jax.train.networks import make_network
from haskd_jax.train.snapshots import Snapshots

HEADS = ("seed", "classes", "correlation", "same_winner", "gain_of_choice")


def halves(run: Path) -> Float[np.ndarray, "2 M C"]:
    """IoU by half of the calibration rooms, snapshot and class; NaN for what a half lacks."""
    info = read_json(run / "run.json")
    network = make_network(read_card(run / "cyclic"))
    snapshots = Snapshots(run / "cyclic" / "snapshots").load(*network.shapes)
    rooms = info["scenes"]["calibration"]
    found = []
    for half in (rooms[::2], rooms[1::2]):
        for snapshot in snapshots:
            weights = snapshot.params, snapshot.state
            iou, points = class_iou(network, *weights, info["prepared"], half)
            found.append(np.where(points > 0, iou, np.nan))
    return np.reshape(found, (2, len(snapshots), -1))


def agreement(iou: Float[np.ndarray, "2 M C"]) -> tuple[int, float, float, float]:
    """How far two halves agree on which snapshot is good at what.

    Args:
        iou: As `halves` gives it.

    Returns:
        Classes that both halves have; the correlation between halves of what is left of the IoU
        without the means of snapshots and classes; the share of classes in which both call the same
        snapshot the best, by what is left; and what choosing for each class the snapshot that the
        other half calls best gains over the one that it calls best on the whole, in mIoU.
    """
    iou = iou[:, :, ~np.isnan(iou).any(axis=(0, 1))]
    left = iou - iou.mean(axis=1, keepdims=True)
    left -= left.mean(axis=2, keepdims=True)
    correlation = np.corrcoef(left.reshape(2, -1))[0, 1]
    same = np.mean(np.equal(*left.argmax(axis=1)))
    gains = []
    for judge, score in (iou, iou[::-1]):
        chosen = np.take_along_axis(score, judge.argmax(axis=0)[None], axis=0)
        gains.append(chosen.mean() - score[judge.mean(axis=1).argmax()].mean())
    return iou.shape[2], float(correlation), float(same), float(np.mean(gains))


def main(arguments: Sequence[str]) -> None:
    """Writes and prints what the seeds of a sweep say."""
    sweep, folder = map(Path, arguments)
    rows = []
    for run in sorted(sweep.glob("seed_*")):
        rows.append((int(run.name.removeprefix("seed_")), *agreement(halves(run))))
        print(*(f"{name} {value:.3g}" for name, value in zip(HEADS, rows[-1], strict=True)))
    write_csv(folder / "adeptness.csv", HEADS, rows)
    for name, values in zip(HEADS[2:], np.array(rows).T[2:], strict=True):
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        print(f"{name}: {values.mean():.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
