"""How a network is trained: frozen dataclasses, which the command line and notebooks share."""

from dataclasses import dataclass, field
from typing import Literal

from haskd_jax.ranges import at_least, positive, share


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning rate.

    Attributes:
        name: AdamW; SGD with Nesterov momentum; or Muon, whose steps have all singular values alike
            (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon), with AdamW for norms
            and biases, at the same learning rate.
        learning_rate: Its peak.
        schedule: "onecycle" rises for 5 % of the steps and falls to nothing; "poly" falls with the
            power 0.9; "cyclic" falls by a cosine in each cycle and starts again, leaving a snapshot
            at the end of each (Huang et al., Snapshot Ensembles, ICLR 2017).
        cycles: Of the cyclic schedule.
        first_cycle: Its share of the steps; the other cycles are alike. None makes all alike.
        restart: Peak of the later cycles, as a share of the first one's.
        weight_decay: Decoupled for AdamW and Muon, added to the gradient for SGD; not of norms and
            biases.
        momentum: Of SGD and Muon; the first beta of AdamW.
        clip: Largest norm of the gradient; 0 does not clip.
        accumulate: Batches whose gradients are averaged before the parameters change.
        ema: Decay of the moving average of parameters that is evaluated and deployed; 0: none.
    """

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    learning_rate: float = 0.006
    schedule: Literal["onecycle", "poly", "cyclic"] = "onecycle"
    cycles: int = 5
    first_cycle: float | None = None
    restart: float = 1.0
    weight_decay: float = 0.05
    momentum: float = 0.9
    clip: float = 10.0
    accumulate: int = 1
    ema: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("learning_rate", "restart"):
            positive(name, getattr(self, name))
        for name in ("cycles", "accumulate"):
            at_least(name, getattr(self, name), 1)
        for name in ("weight_decay", "clip"):
            at_least(name, getattr(self, name), 0)
        for name in ("momentum", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, expected a number in [0, 1)")
        if self.first_cycle is not None and not 0 < self.first_cycle < 1:
            raise ValueError(f"first_cycle: {self.first_cycle}, expected a share in (0, 1)")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses against labels.

    Attributes:
        cross_entropy: Of cross entropy.
        lovasz: Of Lovász-softmax, scene by scene.
        image: Of the teacher's 2D cross entropy, where frames have labels.
        label_smoothing: Of cross entropy.
    """

    cross_entropy: float = 1.0
    lovasz: float = 1.0
    image: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("cross_entropy", "lovasz", "image"):
            at_least(name, getattr(self, name), 0)
        share("label_smoothing", self.label_smoothing)


@dataclass(frozen=True)
class IHDConfig:
    """Information-oriented heterogeneous distillation, see `losses.ihd_loss`. Our instantiation.

    Attributes:
        weight: Of all of it; 0 leaves it out.
        logits: Of the divergence of logits.
        features: Of the cosine of features; 0 leaves the term and its projection out.
        relations: Of the relations of neighbouring voxels; 0 leaves the term out.
        temperature: Of the divergence.
        information: Which voxels weigh more, see `losses.information_weights`.
        teaching: "online", the teacher sees the student's augmented voxels in every step, at the
            cost of a forward pass; "offline", it predicts every training scene once, as it lies,
            and what it said of a point goes with the point through augmentation: logits alone.
        tta: Offline, the test-time augmentation that its predictions are the mean of.
        voxels: Taught: all, or those without labels alone, where a teacher that errs contradicts
            nothing. Means are over the voxels taught: fewer of them weigh more each. Relations are
            those between two of them.
    """

    weight: float = 1.0
    logits: float = 1.0
    features: float = 0.0
    relations: float = 0.0
    temperature: float = 2.0
    information: Literal["none", "confidence", "seen"] = "none"
    teaching: Literal["online", "offline"] = "online"
    tta: Literal[1, 4, 10, 13] = 4
    voxels: Literal["all", "unlabelled"] = "all"

    def __post_init__(self) -> None:
        """Checks the ranges, and that what teaches is there."""
        for name in ("weight", "logits", "features", "relations"):
            at_least(name, getattr(self, name), 0)
        positive("temperature", self.temperature)
        more = self.features or self.relations or self.information == "seen"
        if self.teaching == "offline" and more:
            raise ValueError(
                "teaching: offline leaves logits alone; features, relations and "
                'information="seen" need it online'
            )


@dataclass(frozen=True)
class ASDConfig:
    """Adept snapshot distillation, see `losses.asd_loss`. Our instantiation.

    Attributes:
        weight: Of all of it; 0 leaves it out.
        teaching: "online", experts see the student's augmented voxels in every step; "offline",
            those of a finished student predict every training scene once, as it lies, and what all
            of them said of a point goes with the point through augmentation.
        tta: Offline, the test-time augmentation that their predictions are the mean of.
        experts: Online, all of them in each step, or one drawn in each step, at the cost of one
            forward pass.
        adeptness: The best expert of a class, or all by a softmax of their IoU.
        sharpness: Temperature of the softmax.
        shrinkage: Points of the calibration scenes at which a class's IoU counts half.
        margin: By which an expert must be better than the student, at the last cycle's end, to
            teach a class; None does not ask. Online, the last expert is that student.
        temperature: Of the divergence.
        voxels: Taught: all, or those without labels alone; the mean is over them.
    """

    weight: float = 1.0
    teaching: Literal["online", "offline"] = "online"
    tta: Literal[1, 4, 10, 13] = 4
    experts: Literal["all", "rotate"] = "rotate"
    adeptness: Literal["hard", "soft"] = "hard"
    sharpness: float = 0.05
    shrinkage: float = 500.0
    margin: float | None = None
    temperature: float = 1.0
    voxels: Literal["all", "unlabelled"] = "all"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        at_least("weight", self.weight, 0)
        if self.margin is not None:
            at_least("margin", self.margin, 0)
        for name in ("sharpness", "shrinkage", "temperature"):
            positive(name, getattr(self, name))


@dataclass(frozen=True)
class TrainConfig:
    """One training.

    Attributes:
        steps: Batches in all, a multiple of `optimizer.accumulate`.
        batch_size: Labelled scenes of one device's batch.
        unlabelled: Scenes without labels on top, where a teacher or snapshots teach; None: as many.
        optimizer: The optimizer.
        loss: Weights of the losses against labels.
        image_augmentation: Whether a teacher's images change palette, contrast and side.
        save_every: Steps between checkpoints.
        keep: Checkpoints kept.
        log_every: Steps between lines of the log.
        evaluate_every: Steps between evaluations on the calibration scenes; 0: none.
        shard_parameters: Spread parameters and the optimizer's state over the devices.
        threads: That make batches ahead of time.
        buckets: Sizes that batches are padded to, each of which compiles once. None: three on one
            device, one on several.
    """

    steps: int = 1000
    batch_size: int = 4
    unlabelled: int | None = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    image_augmentation: bool = True
    save_every: int = 500
    keep: int = 2
    log_every: int = 20
    evaluate_every: int = 0
    shard_parameters: bool = False
    threads: int = 2
    buckets: int | None = None

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("steps", "batch_size", "save_every", "keep", "log_every"):
            at_least(name, getattr(self, name), 1)
        for name in ("unlabelled", "buckets"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        for name in ("evaluate_every", "threads"):
            at_least(name, getattr(self, name), 0)
        if self.steps % self.optimizer.accumulate:
            raise ValueError(
                f"steps: {self.steps}, expected a multiple of optimizer.accumulate, "
                f"{self.optimizer.accumulate}: the last batches would change nothing"
            )


@dataclass(frozen=True)
class ImageTrainingConfig:
    """How an image encoder is trained.

    Attributes:
        channels: Widths at strides 4, 8, 16 and so on; as `TeacherConfig.image_channels`.
        blocks: As `TeacherConfig.image_blocks`.
        features: As `TeacherConfig.image_features`.
        steps: Batches in all.
        batch_size: Frames of a batch.
        learning_rate: The peak of one cycle, of Muon.
        weight_decay: Of Muon.
        seed: Of parameters, order and augmentation.
        log_every: Steps between lines of the log.
        save_every: Steps between checkpoints.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    blocks: int = 2
    features: int = 64
    steps: int = 20000
    batch_size: int = 8
    learning_rate: float = 0.008
    weight_decay: float = 0.05
    seed: int = 0
    log_every: int = 100
    save_every: int = 1000

    def __post_init__(self) -> None:
        """Checks what the types do not say."""
        if not self.channels:
            raise ValueError("channels: none, expected one width or more")
        at_least("channels", min(self.channels), 1)
        for name in ("blocks", "features", "steps", "batch_size", "log_every", "save_every"):
            at_least(name, getattr(self, name), 1)
        positive("learning_rate", self.learning_rate)
        at_least("weight_decay", self.weight_decay, 0)
