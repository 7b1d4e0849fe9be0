"""HAS-KD on S3DIS, with the images of 2D-3D-S.

    haskd prepare s3dis --raw /data/s3dis --images /data/2d3ds --out /data/prepared
    python -m haskd_jax.experiments.s3dis full --prepared /data/prepared --out runs/s3dis

Presets: `debug` is for tests; `small` a narrow network for one GPU of any size; `full` is the
recipe of Pointcept's SpUNet (5 cm, Poly) and, beside it, HAS-KD. No preset has been run on S3DIS by
us, as its licence does not let us ship the scans: there are no scores to state here yet. Published
with the same kind of student alone: MinkUNet34C 66.3 mIoU on Area 5. For the 6-fold score run each
`--test-area` from 1 to 6 and sum the confusion matrices of their evaluation.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from haskd_jax.data.s3dis import S3DIS, fold
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
class S3DISExperiment(Experiment):
    """HAS-KD on S3DIS.

    Attributes:
        out: Folder of the results. The same command goes on where it was ended.
        raw: The raw rooms, to be prepared into `out`; or give `prepared`.
        images: The root of 2D-3D-S, which has the images.
        frame_stride: Every how many-th image of a room is prepared.
        test_area: The area to evaluate on, 1 to 6.
    """

    name: ClassVar[str] = "s3dis"

    out: Path = Path("runs/s3dis")
    raw: Path | None = None
    images: Path | None = None
    frame_stride: int = 1
    test_area: int = 5

    def source(self) -> S3DIS | None:
        """The raw rooms; None where `raw` is not given."""
        if self.raw is None:
            return None
        return S3DIS(self.raw, images=self.images, frame_stride=self.frame_stride)

    @property
    def train_splits(self) -> tuple[str, ...]:
        """All areas but the one to evaluate on."""
        return fold(self.test_area)[0]

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The area to evaluate on."""
        return fold(self.test_area)[1]


# 204 rooms of five areas, 3000 epochs (100 times 30), 12 rooms a batch.
_STEPS = 204 * 3000 // 12
_SPUNET = TrainConfig(
    steps=_STEPS,
    batch_size=12,
    save_every=2000,
    log_every=100,
    evaluate_every=_STEPS // 20,
    threads=16,
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.1, schedule="poly", weight_decay=1e-4),
    loss=LossConfig(lovasz=0.0),
)
FULL = S3DISExperiment(
    scenes=ScenesConfig(voxel_size=0.05, augmentation="spunet_s3dis"),
    train=_SPUNET,
    train_teacher=_SPUNET,
    # Beside labels in every room what teaches weighs little: docs/training.md says why.
    ihd=IHDConfig(weight=0.3),
    asd=ASDConfig(weight=0.3),
)
_SMALL_TRAINING = replace(_SPUNET, steps=15_000, batch_size=4, evaluate_every=1500, threads=4)
SMALL = replace(
    FULL,
    model=ModelConfig(channels=(32, 48, 64, 96, 96, 64, 48, 48), blocks=(1,) * 8, stem_kernel=3),
    train=_SMALL_TRAINING,
    train_teacher=_SMALL_TRAINING,
)
DEBUG = S3DISExperiment(
    scenes=ScenesConfig(voxel_size=0.2, augmentation="spunet_s3dis", calibration=1, mix=0.0),
    views=ViewsConfig(num_views=2, voxel_size=0.1),
    model=TINY_MODEL,
    teacher=TINY_TEACHER,
    train=TINY_TRAINING,
    train_teacher=TINY_TRAINING,
    snapshots="online",  # one student fewer to train
    pictures=1,
)
PRESETS = {
    "debug": ("A few rooms, four steps: does it run?", DEBUG),
    "small": ("A narrow network.", SMALL),
    "full": ("SpUNet's recipe: 5 cm, Poly.", FULL),
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
