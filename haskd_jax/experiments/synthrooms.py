"""HAS-KD on SynthRooms, made-up scanned rooms: no download.

python -m haskd_jax.experiments.synthrooms small --out runs/rooms
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from haskd_jax.data.synthrooms.generate import Options
from haskd_jax.data.synthrooms.source import SynthRooms
from haskd_jax.experiments.config import (
    TINY_MODEL,
    TINY_TEACHER,
    TINY_TRAINING,
    Experiment,
    ScenesConfig,
)
from haskd_jax.train.card import ModelConfig, TeacherConfig
from haskd_jax.train.config import OptimizerConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class SynthRoomsExperiment(Experiment):
    """HAS-KD on made-up rooms.

    Attributes:
        out: Folder of the results. The same command goes on where it was ended.
        rooms: Which rooms are made.
    """

    out: Path = Path("runs/synthrooms")
    rooms: SynthRooms = field(default_factory=SynthRooms)


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
    steps=300,
    batch_size=4,
    save_every=100,
    log_every=10,
    buckets=1,
    optimizer=OptimizerConfig(learning_rate=0.006, cycles=3, first_cycle=0.5),
)
SMALL = SynthRoomsExperiment(
    rooms=SynthRooms(train=48, val=1, test=12),
    scenes=ScenesConfig(voxel_size=0.05, mix=0.0, crop=10_000, calibration=4, labelled=0.33),
    model=ModelConfig(
        channels=(16, 32, 48, 64, 48, 32, 32, 32), blocks=(1,) * 8, stem=16, stem_kernel=3
    ),
    teacher=TeacherConfig(image_channels=(16, 32, 48), image_blocks=1, image_features=32),
    train_teacher=_SMALL_TRAINING,
    train=_SMALL_TRAINING,
)
PRESETS = {
    "debug": ("Seven rooms, four steps: does it run?", DEBUG),
    "small": ("What `make demo` runs: 60 rooms, a narrow network, 15 minutes on two cores.", SMALL),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiment of a preset.

    Args:
        arguments: Preset and options; those of the command line by default.

    Returns:
        The exit code.
    """
    import tyro

    from haskd_jax.experiments.run import run

    experiment = tyro.extras.overridable_config_cli(
        PRESETS, args=arguments, prog="python -m haskd_jax.experiments.synthrooms"
    )
    return run(experiment, experiment.rooms, name="synthrooms", train=["train"], test=["test"])


if __name__ == "__main__":
    raise SystemExit(main())
