"""HAS-KD on your own scans.

    haskd prepare own --raw my_scans --classes floor wall chair --out prepared/mine
    python -m haskd_jax.experiments.own small --prepared prepared/mine --out runs/mine

`my_scans` holds folders `train` and `val`, see docs/data.md. Scans of `train` without labels are
taught by the teacher and by snapshots alone; if there are no images, `--arms plain asd`.

Presets: `debug` is for tests; `small` is the recipe that SynthRooms' preset `few_labels` is
measured with, on voxels of 5 cm and for longer, and without its image encoder, which knows made-up
rooms alone: `--encoder` takes one that `haskd pretrain` made, and without it a teacher learns to
see from your scans only. `small` has not been measured on anybody's scans: compare with `plain`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from haskd_jax.data.own import Split
from haskd_jax.experiments import synthrooms
from haskd_jax.experiments.config import (
    TINY_MODEL,
    TINY_TEACHER,
    TINY_TRAINING,
    Experiment,
    ScenesConfig,
    ViewsConfig,
)
from haskd_jax.experiments.run import main_of


@dataclass(frozen=True, kw_only=True)
class OwnExperiment(Experiment):
    """HAS-KD on your own scans.

    Attributes:
        out: Folder of the results. The same command goes on where it was ended.
        test: The split to evaluate on.
    """

    name: ClassVar[str] = "own"

    out: Path = Path("runs/own")
    test: Split = "val"

    def source(self) -> None:
        """None: `haskd prepare own` knows what a scan's options are."""

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The split to evaluate on."""
        return (self.test,)


_TRAINING = replace(synthrooms.SMALL.train, steps=3000, save_every=500, log_every=50, buckets=None)
SMALL = OwnExperiment(
    scenes=replace(synthrooms.FEW_LABELS.scenes, voxel_size=0.05, calibration=4, labelled=1.0),
    views=synthrooms.SMALL.views,
    model=synthrooms.SMALL.model,
    teacher=synthrooms.SMALL.teacher,
    train=_TRAINING,
    train_teacher=_TRAINING,
    ihd=synthrooms.SMALL.ihd,
    asd=synthrooms.SMALL.asd,
)
DEBUG = OwnExperiment(
    scenes=ScenesConfig(voxel_size=0.2, calibration=1, mix=0.0),
    views=ViewsConfig(num_views=2, voxel_size=0.1),
    model=TINY_MODEL,
    teacher=TINY_TEACHER,
    train=TINY_TRAINING,
    train_teacher=TINY_TRAINING,
    snapshots="online",  # one student fewer to train
    pictures=1,
)
PRESETS = {
    "debug": ("Four steps: does it run?", DEBUG),
    "small": ("5 cm, a narrow network, 3000 steps.", SMALL),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiment of a preset.

    Args:
        arguments: Preset and options; those of the command line by default.

    Returns:
        The exit code.
    """
    return main_of(PRESETS, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
