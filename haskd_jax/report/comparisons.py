"""Which arms of a sweep are compared, what each comparison tests, and which classes are rare."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from haskd_jax.report.statistics import (
    COSTS,
    KEYS,
    SCORES,
    PairedDifference,
    Result,
    paired_differences,
)

Array = np.ndarray

RARE = "rare classes"  # the metric that is the mean IoU of them
RARE_SHARE = 0.01
# What the tables of a sweep call their other columns and metrics.
_TAKEN = {*KEYS, *SCORES, *COSTS, RARE, "seeds", "miou_sd", "accuracy_sd"}


@dataclass(frozen=True)
class Comparison:
    """Two arms.

    Attributes:
        arm: What is claimed to be better.
        reference: What it is compared with.
        tests: What the comparison tests, for people.
    """

    arm: str
    reference: str
    tests: str


COMPARISONS = (
    Comparison("teacher", "teacher_uniform", "IOF's choice of views against views uniform in time"),
    Comparison("teacher", "teacher_random", "IOF's choice of views against random views"),
    Comparison("teacher", "plain", "what images bring to the teacher"),
    Comparison("ihd", "plain", "IHD"),
    Comparison("ihd", "ihd_points", "what images bring to the student"),
    Comparison("ihd_points", "plain", "IHD without images"),
    Comparison("ihd", "teacher", "the student against its teacher"),
    Comparison("ihd_cyclic", "ihd", "the cyclic schedule under IHD"),
    Comparison("ihd_cyclic", "plain", "IHD with a cyclic schedule"),
    Comparison("ihd", "ihd_uniform", "what IOF brings to the student"),
    Comparison("ihd_uniform", "plain", "IHD without IOF"),
    Comparison("asd", "plain", "ASD"),
    Comparison("asd", "cyclic", "ASD against the student that left the snapshots"),
    Comparison("asd", "snapshots", "one student against the ensemble that teaches it"),
    Comparison("asd", "mean_snapshots", "adeptness against all snapshots alike"),
    Comparison("mean_snapshots", "cyclic", "self-distillation without adeptness"),
    Comparison("haskd", "plain", "the whole method"),
    Comparison("haskd", "ihd", "what ASD adds to IHD"),
    Comparison("haskd", "ihd_cyclic", "HAS-KD against the student that left the snapshots"),
    Comparison("haskd", "asd", "what IHD adds to ASD"),
    Comparison("haskd", "teacher", "HAS-KD against its teacher"),
    Comparison("haskd", "snapshots", "one student against the ensemble of snapshots"),
    Comparison("haskd", "ensemble", "one student against the ensemble of students"),
    Comparison("smoothing", "plain", "label smoothing"),
    Comparison("cyclic", "plain", "the cyclic schedule"),
    Comparison("snapshots", "cyclic", "the ensemble of snapshots against the last one"),
    Comparison("ensemble", "plain", "the ensemble of students against one"),
)


def compare(
    results: Sequence[Result], metric: str = "miou"
) -> Iterator[tuple[Comparison, PairedDifference]]:
    """The comparisons whose two arms are there, and what came of each.

    Args:
        results: Rows of a sweep.
        metric: A column.

    Yields:
        A comparison and its paired difference, one for every setting.

    Example:
        >>> scores = {"plain": (0.5, 0.5), "cyclic": (0.5, 0.6), "mine": (0.9, 0.9)}
        >>> rows = [Result("all labels", arm, seed, {"miou": score})
        ...         for arm in scores for seed, score in enumerate(scores[arm])]
        >>> [(c.tests, round(d.mean, 3), d.verdict) for c, d in compare(rows)]
        [('the cyclic schedule', 0.05, 'not told apart')]
    """
    for comparison in COMPARISONS:
        pair = (comparison.arm, comparison.reference)
        rows = [result for result in results if result.arm in pair]
        for difference in paired_differences(rows, reference=comparison.reference, metric=metric):
            yield comparison, difference


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """What the tables of a sweep call the classes: those named as another column say what they are.

    Args:
        classes: C names.

    Returns:
        C names.

    Example:
        >>> class_names(["wall", "arm", "seed"])
        ('wall', 'class arm', 'class seed')
    """
    return tuple(f"class {name}" if name in _TAKEN else name for name in classes)


def rare_classes(points: Int[Array, " C"], classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that occur, with under 1 % of the evaluated points.

    Args:
        points: [C] how many points are of each class.
        classes: C names.

    Returns:
        Their names.

    Example:
        >>> rare_classes(np.array([9900, 99, 0, 1]), ["wall", "sofa", "sink", "lamp"])
        ('sofa', 'lamp')
    """
    rare = (points > 0) & (points < RARE_SHARE * points.sum())
    return tuple(name for name, is_rare in zip(classes, rare, strict=True) if is_rare)


def with_rare_classes(results: Sequence[Result], rare: Sequence[str]) -> tuple[Result, ...]:
    """The rows with the mean IoU of the rare classes as a further metric.

    Args:
        results: Rows of a sweep.
        rare: Names of classes.

    Returns:
        The rows; those that have none of the classes stay as they are.

    Example:
        >>> row = Result("all labels", "plain", 0, {"miou": 0.5, "sofa": 0.25, "lamp": 0.75})
        >>> with_rare_classes([row], ["sofa", "lamp", "sink"])[0].values[RARE]
        0.5
    """
    rows = []
    for result in results:
        iou = [result.values[name] for name in rare if name in result.values]
        extra = {RARE: float(np.mean(iou))} if iou else {}
        rows.append(replace(result, values=result.values | extra))
    return tuple(rows)
