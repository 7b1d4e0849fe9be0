"""The arms of an experiment: what is trained, who teaches it, what it is compared with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

ArmName = Literal[
    "plain", "cyclic", "ihd_uniform", "ihd", "ihd_cyclic", "asd", "haskd", "snapshots", "ensemble",
    "ihd_points", "mean_snapshots", "smoothing",
    "teacher", "teacher_uniform", "teacher_random",
]  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        text: What it is, for people.
        role: Teachers are trained before students; ensembles are evaluated, and train what they
            lack.
        views: How a teacher's images are chosen; None for networks of points alone.
        teacher: The arm that teaches it. A teacher of points alone is a student alone.
        cyclic: Whether its schedule has cycles, which leave snapshots. So it has where an arm's own
            snapshots teach it.
        asd: Whether snapshots teach it: each the classes it is adept at, or all alike.
        snapshots: The arm, of the same labels and teacher, whose snapshots teach it where those
            of finished students do, or are evaluated together.
        smoothing: Whether its labels are smoothed.
    """

    text: str
    role: Literal["teacher", "student", "ensemble"] = "student"
    views: Literal["iof", "uniform", "random"] | None = None
    teacher: ArmName | None = None
    cyclic: bool = False
    asd: Literal["adept", "mean"] | None = None
    snapshots: ArmName | None = None
    smoothing: bool = False


ARMS: Mapping[ArmName, Arm] = MappingProxyType(
    {
        "teacher": Arm("teacher, images chosen by IOF", "teacher", views="iof"),
        "teacher_uniform": Arm("teacher, images uniform in time", "teacher", views="uniform"),
        "teacher_random": Arm("teacher, random images", "teacher", views="random"),
        "plain": Arm("student alone"),
        "cyclic": Arm("student alone, cyclic schedule", cyclic=True),
        "ihd_uniform": Arm("IHD, images uniform in time", teacher="teacher_uniform"),
        "ihd": Arm("IHD, images chosen by IOF", teacher="teacher"),
        "ihd_cyclic": Arm("IHD, cyclic schedule", teacher="teacher", cyclic=True),
        "asd": Arm("ASD", asd="adept", snapshots="cyclic"),
        "haskd": Arm(
            "HAS-KD: IHD with IOF, and ASD",
            teacher="teacher",
            asd="adept",
            snapshots="ihd_cyclic",
        ),
        "snapshots": Arm(
            "ensemble of the cyclic student's snapshots", "ensemble", snapshots="cyclic"
        ),
        "ensemble": Arm("ensemble of students trained apart", "ensemble"),
        "ihd_points": Arm("control: taught by a student alone", teacher="plain"),
        "mean_snapshots": Arm(
            "control: taught by all snapshots alike", asd="mean", snapshots="cyclic"
        ),
        "smoothing": Arm("control: label smoothing", smoothing=True),
    }
)


def in_order(
    names: Iterable[ArmName], *, offline: bool = False, informed: bool = False
) -> tuple[ArmName, ...]:
    """The arms asked for and those they need, each after what it needs.

    Args:
        names: Arms.
        offline: Whether ASD takes its snapshots from a finished student.
        informed: Whether IOF asks a student alone where images have most to add.

    Returns:
        Arms, without repetition.

    Example:
        >>> in_order(["haskd", "plain"])
        ('teacher', 'haskd', 'plain')
    """
    ordered: list[ArmName] = []

    def add(name: ArmName) -> None:
        arm = ARMS[name]
        if informed and arm.views == "iof":
            add("plain")
        if arm.teacher is not None:
            add(arm.teacher)
        if arm.snapshots is not None and (offline or arm.role == "ensemble"):
            add(arm.snapshots)
        if name not in ordered:
            ordered.append(name)

    for name in names:
        add(name)
    return tuple(ordered)
