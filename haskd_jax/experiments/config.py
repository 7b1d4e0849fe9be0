"""What an experiment is: one frozen dataclass, which is also its command line."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from haskd_jax.experiments.arms import ARMS, ArmName, in_order
from haskd_jax.ranges import at_least, positive, share
from haskd_jax.train.card import ModelConfig, TeacherConfig
from haskd_jax.train.config import ASDConfig, IHDConfig, OptimizerConfig, TrainConfig

if TYPE_CHECKING:  # --help is answered before anything heavy is imported
    from haskd_jax.data.prepare import Source

Stage = Literal["prepare", "select", "teacher", "student", "evaluate", "report"]
STAGES: tuple[Stage, ...] = ("prepare", "select", "teacher", "student", "evaluate", "report")


@dataclass(frozen=True)
class ScenesConfig:
    """Which scenes, which of their labels, and how they become batches.

    Attributes:
        voxel_size: Edge of a voxel, metres.
        augmentation: A recipe by its name, see docs/augmentation.md.
        mix: Probability that the scenes of a batch are mixed two and two (Mix3D); None: the
            recipe's.
        crop: Most voxels of a training scene, which is cropped around a random point; None: the
            recipe's.
        calibration: Labelled training scenes that are held back: experts are judged by them, and
            no arm is trained on them, nor on other scans of their rooms; the last room drawn may
            bring a few more.
        labelled: Share of the training scenes with labels that keep them (ScanNet's Limited
            Reconstructions). The others, and those that have none, teach through a teacher and
            snapshots alone.
        labelled_list: The labelled scenes by name, one a line, in place of a share.
        labelled_points: Points of a scene that keep their labels (Limited Annotations).
    """

    voxel_size: float = 0.02
    augmentation: Literal["none", "spunet", "spunet_s3dis", "ptv3", "ptv3_s3dis"] = "spunet"
    mix: float | None = None
    crop: int | None = None
    calibration: int = 12
    labelled: float = 1.0
    labelled_list: Path | None = None
    labelled_points: int | None = None

    def __post_init__(self) -> None:
        """Checks the ranges."""
        positive("voxel_size", self.voxel_size)
        positive("labelled", self.labelled)
        share("labelled", self.labelled)
        if self.mix is not None:
            share("mix", self.mix)
        at_least("calibration", self.calibration, 0)
        for name in ("crop", "labelled_points"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        if self.labelled_list is not None and self.labelled != 1.0:
            raise ValueError("labelled and labelled_list: give one of them")


@dataclass(frozen=True)
class ViewsConfig:
    """What the teacher sees of each scene.

    Attributes:
        num_views: Frames of a scene.
        rho: Share of a voxel's information that one perfect frame gives, see `views.select_views`.
        voxel_size: Of the voxels that are to be seen, metres.
        information: How much more IOF wants to see of a voxel about which the student alone, the
            arm `plain`, knows nothing, than of one of which it is sure: lambda_H of
            `views.information`. Above 0 that arm is trained first; 0 wants all voxels alike.
    """

    num_views: int = 3
    rho: float = 0.7
    voxel_size: float = 0.05
    information: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        at_least("num_views", self.num_views, 1)
        positive("rho", self.rho)
        share("rho", self.rho)
        if self.information != 0:
            positive("information", self.information)
        positive("voxel_size", self.voxel_size)


@dataclass(frozen=True)
class ClusterConfig:
    """Several processes, each with its devices.

    Attributes:
        processes: How many; None finds out from a TPU slice's or Slurm's environment, where
            `enabled`.
        process: The number of this one.
        coordinator: host:port of the first one.
        enabled: Whether there are several at all.
    """

    enabled: bool = False
    processes: int | None = None
    process: int | None = None
    coordinator: str | None = None

    def __post_init__(self) -> None:
        """Checks that nothing is said of a cluster that is not there."""
        for name in ("processes", "process", "coordinator"):
            value = getattr(self, name)
            if value is not None and not self.enabled:
                raise ValueError(f"{name}: {value}, but the cluster is not enabled: give enabled")


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """What all experiments share.

    Attributes:
        out: Folder of the results. The same command goes on where it was ended.
        arms: What is trained and compared; what an arm needs is added.
        stages: Which stages run; what is done and unchanged is skipped.
        prepared: Prepared scenes; None prepares them into `out`.
        scenes: Scenes, labels, augmentation.
        views: What teachers see.
        model: The student.
        teacher: What makes a teacher of it.
        encoder: The image encoder of teachers, a folder of `haskd pretrain`, which stays as it is;
            None draws one at random and trains it with the teacher.
        train_teacher: How teachers are trained.
        train: How students are trained; arms that leave snapshots take the cyclic schedule
            instead.
        ihd: How a teacher teaches.
        asd: How snapshots teach.
        snapshots: Of the same run, or of a finished student of the same labels and teacher.
        ensemble: Members of the ensemble of students trained apart.
        seed: Of parameters, order and augmentation of every arm.
        seeds: Runs of every arm, with the seeds `seed`, `seed + 1` and so on; more than one is a
            sweep: each run goes to <out>/seed_<n>, and tables over them are written.
        processes: Runs of a sweep side by side, each on its share of the cores.
        tta: Test-time augmentation in evaluation, see docs/evaluation.md.
        pictures: Test scenes that the report shows.
        overwrite: Redo what was done with another configuration, rather than refuse; arms of
            another that are not asked for leave the run.
        workers: Processes that prepare scenes.
        wandb: A project of wandb that gets the numbers too.
        cluster: Several processes.
    """

    name: ClassVar[str]

    out: Path
    arms: tuple[ArmName, ...] = ("plain", "teacher", "haskd")
    stages: tuple[Stage, ...] = STAGES
    prepared: Path | None = None
    scenes: ScenesConfig = field(default_factory=ScenesConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    encoder: Path | None = None
    train_teacher: TrainConfig = field(default_factory=TrainConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    ihd: IHDConfig = field(default_factory=IHDConfig)
    asd: ASDConfig = field(default_factory=ASDConfig)
    snapshots: Literal["online", "offline"] = "offline"
    ensemble: int = 3
    seed: int = 0
    seeds: int = 1
    processes: int = 1
    tta: Literal[1, 4, 10, 13] = 1
    pictures: int = 3
    overwrite: bool = False
    workers: int = 2
    wandb: str | None = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    @abstractmethod
    def source(self) -> "Source | None":
        """The raw scans; None where there are only prepared ones."""

    @property
    def train_splits(self) -> tuple[str, ...]:
        """The splits to train on."""
        return ("train",)

    @property
    @abstractmethod
    def test_splits(self) -> tuple[str, ...]:
        """The splits to evaluate on."""

    @property
    def root(self) -> Path:
        """Where the prepared scenes are, or will be."""
        return self.prepared or self.out / "prepared"

    @property
    def all_arms(self) -> tuple[ArmName, ...]:
        """The arms asked for and those they need, each after what it needs."""
        return in_order(
            self.arms,
            offline=self.snapshots == "offline",
            informed=self.views.information > 0,
        )

    def __post_init__(self) -> None:
        """Checks what the types do not say."""
        for name in ("arms", "stages"):
            if not getattr(self, name):
                raise ValueError(f"{name}: none, expected one or more")
        arms = [ARMS[name] for name in self.all_arms]
        given = (self.train.optimizer.schedule, self.train_teacher.optimizer.schedule)
        cyclic = "cyclic" in given or any(arm.cyclic or arm.asd for arm in arms)
        updates = self.train.steps // self.train.optimizer.accumulate
        if cyclic and updates < 2 * self.train.optimizer.cycles:
            raise ValueError(
                f"train.optimizer.cycles: {self.train.optimizer.cycles}, but the parameters change "
                f"{updates} times in all, expected twice or more a cycle"
            )
        cycles = self.train.optimizer.cycles
        if self.snapshots == "online" and cycles < 2 and any(arm.asd for arm in arms):
            raise ValueError(
                f"train.optimizer.cycles: {cycles}, but online a snapshot teaches from the next "
                "cycle on: give 2 or more, or --snapshots offline"
            )
        if self.snapshots == "offline" and self.asd.margin is not None:
            raise ValueError("asd.margin: needs online snapshots, which know their student's IoU")
        if self.snapshots == "online" and self.asd.teaching == "offline":
            raise ValueError(
                "asd.teaching: offline needs finished snapshots: give --snapshots offline, or "
                "--asd.teaching online"
            )
        evaluates = self.train.evaluate_every or self.train_teacher.evaluate_every
        if not self.scenes.calibration and (cyclic or evaluates):
            raise ValueError(
                "scenes.calibration: 0, but experts and train.evaluate_every are judged by "
                "calibration scenes: hold some back"
            )
        for name in ("ensemble", "seeds", "processes", "workers"):
            at_least(name, getattr(self, name), 1)
        at_least("pictures", self.pictures, 0)
        if self.processes > 1 and self.seeds == 1:
            raise ValueError(
                f"processes: {self.processes} side by side, but there is one run: give seeds too, "
                "or leave processes out"
            )
        if self.seeds > 1 and self.cluster.enabled:
            raise ValueError(
                f"cluster.enabled: a sweep over {self.seeds} seeds runs on one machine: leave it "
                "out, or start one seed at a time with seeds left out"
            )


# A network small enough for tests.
TINY_MODEL = ModelConfig(channels=(8, 8), blocks=(1, 1), stem=8, stem_kernel=3)
TINY_TEACHER = TeacherConfig(image_channels=(8, 16), image_blocks=1, image_features=8)
TINY_TRAINING = TrainConfig(
    steps=4,
    batch_size=2,
    save_every=2,
    log_every=1,
    threads=1,
    buckets=1,
    optimizer=OptimizerConfig(learning_rate=0.003, cycles=2),
)
