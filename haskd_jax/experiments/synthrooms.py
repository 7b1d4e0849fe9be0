"""HAS-KD on SynthRooms, made-up scanned rooms: no download.

python -m haskd_jax.experiments.synthrooms small --out runs/rooms

`small` takes 6 minutes on two cores of an AMD EPYC (Zen 5). Seed 0, 12 of 44 rooms labelled, mIoU
over the points of 12 test rooms, no test-time augmentation: plain student 36.8, teacher 46.1,
HAS-KD 44.7. What `few_labels` and `all_labels` scored, with MinkUNet and with SPVCNN,
is in experiments/synthrooms/RESULTS.md. `debug` takes a minute, and scores nothing. `full` has not
been run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from haskd_jax.data.synthrooms.generate import Options
from haskd_jax.data.synthrooms.source import SynthRooms
from haskd_jax.experiments.arms import ARMS
from haskd_jax.experiments.config import (
    TINY_MODEL,
    TINY_TEACHER,
    TINY_TRAINING,
    Experiment,
    ScenesConfig,
    ViewsConfig,
)
from haskd_jax.experiments.run import main_of
from haskd_jax.train.card import ModelConfig, TeacherConfig
from haskd_jax.train.config import ASDConfig, IHDConfig, OptimizerConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class SynthRoomsExperiment(Experiment):
    """HAS-KD on made-up rooms.

    Attributes:
        out: Folder of the results. The same command goes on where it was ended.
        rooms: Which rooms are made.
    """

    name: ClassVar[str] = "synthrooms"

    out: Path = Path("runs/synthrooms")
    rooms: SynthRooms = field(default_factory=SynthRooms)

    def source(self) -> SynthRooms:
        """The rooms."""
        return self.rooms

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The split to evaluate on."""
        return ("test",)


# `haskd pretrain` on frames of 360 rooms that no preset trains or tests on, see
# docs/synthrooms.md.
ENCODER = Path(__file__).parent / "synthrooms_encoder"
DEBUG = SynthRoomsExperiment(
    rooms=SynthRooms(train=5, val=1, test=1, options=Options(frames=6, voxel_size=0.05)),
    scenes=ScenesConfig(
        voxel_size=0.2, augmentation="spunet", calibration=1, labelled=0.6, mix=0.0
    ),
    model=TINY_MODEL,
    teacher=TINY_TEACHER,
    train_teacher=TINY_TRAINING,
    train=TINY_TRAINING,
    pictures=1,
)
_SMALL_TRAINING = TrainConfig(
    steps=450,
    batch_size=2,
    unlabelled=2,
    save_every=100,
    log_every=10,
    buckets=1,
    optimizer=OptimizerConfig(
        name="muon", learning_rate=0.01, momentum=0.95, cycles=2, first_cycle=0.7, restart=0.5
    ),
)
SMALL = SynthRoomsExperiment(
    # Points at half the voxels' edge: more would only be dropped again.
    rooms=SynthRooms(train=48, val=1, test=12, options=Options(voxel_size=0.05)),
    scenes=ScenesConfig(voxel_size=0.1, mix=0.0, calibration=4, labelled=0.33),
    model=ModelConfig(
        family="spvcnn",
        channels=(16, 32, 48, 64, 48, 32, 32, 32),
        blocks=(1,) * 8,
        stem=16,
        stem_kernel=3,
    ),
    # Where images are always there, the teacher's part that sees points learns little of them.
    teacher=TeacherConfig(
        image_channels=(16, 32, 48), image_blocks=1, image_features=32, modality_dropout=0.5
    ),
    encoder=ENCODER,
    views=ViewsConfig(num_views=6),
    train_teacher=replace(_SMALL_TRAINING, steps=350),
    train=_SMALL_TRAINING,
    # What has a label is left to it: there a teacher that errs would contradict it.
    ihd=IHDConfig(teaching="offline", temperature=1.0, voxels="unlabelled"),
    asd=ASDConfig(teaching="offline", voxels="unlabelled"),
)
# What experiments/synthrooms/PREREGISTRATION.md registers.
FEW_LABELS = replace(
    SMALL,
    rooms=SynthRooms(train=120, val=1, test=80, first_test=760, options=Options(voxel_size=0.04)),
    scenes=replace(SMALL.scenes, voxel_size=0.08, calibration=16, labelled=0.3),
    train=replace(SMALL.train, steps=1200),
    train_teacher=replace(SMALL.train_teacher, steps=1200),
    arms=tuple(ARMS),
)
# Where every room is labelled, only the few points that nobody annotated have none: what teaches
# speaks of all, and lightly, as at weight 1 it contradicts labels more than it adds to them. Test
# rooms, steps and optimizer are others, as registered: not to be compared with the above.
_ADAMW = replace(_SMALL_TRAINING.optimizer, name="adamw", momentum=0.9)
ALL_LABELS = replace(
    FEW_LABELS,
    rooms=replace(FEW_LABELS.rooms, first_test=520),
    scenes=replace(FEW_LABELS.scenes, labelled=1.0),
    train=replace(SMALL.train, steps=1500, optimizer=_ADAMW),
    train_teacher=replace(SMALL.train_teacher, steps=1500, optimizer=_ADAMW),
    ihd=replace(SMALL.ihd, voxels="all", weight=0.3),
    asd=replace(SMALL.asd, voxels="all", weight=0.3),
)
_FULL_TRAINING = replace(
    _SMALL_TRAINING,
    steps=6000,
    batch_size=4,
    unlabelled=None,
    save_every=500,
    log_every=50,
    buckets=None,
    optimizer=OptimizerConfig(learning_rate=0.006, cycles=5, first_cycle=0.5),
)
FULL = replace(
    SMALL,
    rooms=SynthRooms(train=120, val=1, test=40),
    scenes=ScenesConfig(voxel_size=0.05, mix=0.0, calibration=20),
    train_teacher=_FULL_TRAINING,
    train=_FULL_TRAINING,
    ihd=ALL_LABELS.ihd,
    asd=ALL_LABELS.asd,
)
PRESETS = {
    "debug": ("Seven rooms, four steps: does it run?", DEBUG),
    "small": ("What `make demo` runs: 61 rooms, a third of them labelled.", SMALL),
    "all_labels": ("All arms on 104 labelled rooms, SPVCNN, for sweeps.", ALL_LABELS),
    "few_labels": ("All arms on 20 labelled of 104 rooms, SPVCNN, for sweeps.", FEW_LABELS),
    "full": ("161 rooms of 5 cm, all labelled: hours on two cores; not measured yet.", FULL),
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
