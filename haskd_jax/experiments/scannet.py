"""HAS-KD on ScanNetV2.

    haskd prepare scannet --raw /data/scannet --frames-25k /data/scannet_frames_25k \\
        --out /data/prepared
    haskd pretrain /data/prepared --held-back 100 --out runs/encoder
    python -m haskd_jax.experiments.scannet full --prepared /data/prepared \\
        --encoder runs/encoder --out runs/scannet

Presets: `debug` is for tests; `small` is SpUNet's recipe at 5 cm with a narrow network, for one GPU
of any size; `full` is the recipe of Pointcept's SpUNet (2 cm, 800 epochs of 12 scenes) and, beside
it, HAS-KD. No preset has been run on ScanNet by us, as its licence does not let us ship the scans:
there are no scores to state here yet. Published with the same student alone: MinkUNet34C 72.2 mIoU
on the validation scenes (5 cm voxels: 68.0).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from haskd_jax.data.scannet import ScanNet
from haskd_jax.experiments.config import (
    TINY_MODEL,
    TINY_TEACHER,
    TINY_TRAINING,
    Experiment,
    ScenesConfig,
    ViewsConfig,
)
from haskd_jax.experiments.run import main_of
from haskd_jax.train.card import ModelConfig
from haskd_jax.train.config import (
    ASDConfig,
    IHDConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
)


@dataclass(frozen=True, kw_only=True)
class ScanNetExperiment(Experiment):
    """HAS-KD on ScanNetV2, or on anything in its layout.

    Attributes:
        out: Folder of the results. The same command goes on where it was ended.
        raw: The raw scans, to be prepared into `out`; or give `prepared`.
        frame_stride: Every how many-th frame is prepared.
        test: The split to evaluate on; that of the benchmark has no labels.
    """

    name: ClassVar[str] = "scannet"

    out: Path = Path("runs/scannet")
    raw: Path | None = None
    frame_stride: int = 20
    test: str = "val"

    def source(self) -> ScanNet | None:
        """The raw scans; None where `raw` is not given."""
        return None if self.raw is None else ScanNet(self.raw, frame_stride=self.frame_stride)

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The split to evaluate on."""
        return (self.test,)


# 1201 scenes, 800 epochs, 12 scenes a batch.
_STEPS = 1201 * 800 // 12
_SPUNET = TrainConfig(
    steps=_STEPS,
    batch_size=12,
    save_every=2000,
    log_every=100,
    evaluate_every=_STEPS // 20,
    threads=16,
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.05, weight_decay=1e-4, cycles=5),
    loss=LossConfig(lovasz=0.0),
)
# Beside labels in every scene what teaches weighs little: docs/training.md says what that rests on.
_IHD, _ASD = IHDConfig(weight=0.3), ASDConfig(weight=0.3)
FULL = ScanNetExperiment(train=_SPUNET, train_teacher=_SPUNET, ihd=_IHD, asd=_ASD)
_SMALL_TRAINING = replace(_SPUNET, steps=20_000, batch_size=4, evaluate_every=2000, threads=4)
SMALL = ScanNetExperiment(
    scenes=ScenesConfig(voxel_size=0.05),
    model=ModelConfig(channels=(32, 48, 64, 96, 96, 64, 48, 48), blocks=(1,) * 8, stem_kernel=3),
    train=_SMALL_TRAINING,
    train_teacher=_SMALL_TRAINING,
    ihd=_IHD,
    asd=_ASD,
)
DEBUG = ScanNetExperiment(
    scenes=ScenesConfig(voxel_size=0.2, calibration=1, mix=0.0),
    views=ViewsConfig(num_views=2, voxel_size=0.1),
    frame_stride=1,
    model=TINY_MODEL,
    teacher=TINY_TEACHER,
    train=TINY_TRAINING,
    train_teacher=TINY_TRAINING,
    snapshots="online",  # one student fewer to train
    pictures=1,
)
PRESETS = {
    "debug": ("A few scenes, four steps: does it run?", DEBUG),
    "small": ("5 cm, a narrow network.", SMALL),
    "full": ("SpUNet's recipe: 2 cm, 800 epochs.", FULL),
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
