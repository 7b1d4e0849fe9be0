"""What may be said of a few seeds, and of a classifier that never looks."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from scipy import stats

from haskd_jax.data.errors import DataError

Array = np.ndarray
KEYS = ("setting", "arm", "seed")
SCORES = ("miou", "accuracy")
COSTS = ("parameters", "seconds_per_scene", "training_seconds")


@dataclass(frozen=True)
class Result:
    """One row of a sweep's table.

    Attributes:
        setting: Which labels, which world.
        arm: What was trained.
        seed: Pairs the arms.
        values: Numbers by column, `miou`, `accuracy`, what the arm costs, and the classes; those
            that are empty are left out.
    """

    setting: str
    arm: str
    seed: int
    values: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """An arm over its seeds.

    Attributes:
        setting: Which labels, which world.
        arm: What was trained.
        seeds: How many.
        mean: Over the seeds.
        sd: Sample standard deviation over the seeds; None for one seed.
    """

    setting: str
    arm: str
    seeds: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class PairedDifference:
    """An arm minus the reference, seed by seed.

    Attributes:
        setting: Which labels, which world.
        arm: What was trained.
        seeds: How many seeds both have.
        mean: Of the differences.
        sd: Their sample standard deviation; None for one seed.
        low: Lower end of the interval for the mean; None for one seed.
        high: Upper end.
    """

    setting: str
    arm: str
    seeds: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval is on one side of zero."""
        return self.low is not None and self.high is not None and self.low * self.high > 0

    @property
    def verdict(self) -> str:
        """What it says, in a word or two.

        Example:
            >>> PairedDifference("full", "haskd", 8, 0.02, 0.01, 0.012, 0.028).verdict
            'better'
        """
        if self.low is None:
            return "one pair only"
        if not self.excludes_zero:
            return "not told apart"
        return "better" if self.mean > 0 else "worse"


def read_results(path: str | Path) -> tuple[Result, ...]:
    """Reads a sweep's table.

    Args:
        path: A CSV with the columns setting, arm, seed, miou and any others, all numbers; an
            empty cell is a class that did not occur.

    Returns:
        Its rows.

    Raises:
        DataError: A column is missing, a cell is no number, or an arm has a seed twice.
    """
    path = Path(path)
    results: list[Result] = []
    seen: set[tuple[str, str, int]] = set()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [key for key in (*KEYS, "miou") if key not in (reader.fieldnames or ())]
            if missing:
                raise DataError(path, f"lacks the columns {missing}: run the sweep again")
            for row in reader:
                result = _result(row)
                key = (result.setting, result.arm, result.seed)
                if key in seen:
                    raise ValueError(f"{key} twice")
                seen.add(key)
                results.append(result)
    except DataError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        where = f"row {len(results) + 2}: " if not isinstance(error, OSError) else ""
        raise DataError(path, f"{where}{error}: mend it or run the sweep again") from error
    return tuple(results)


def _result(row: dict[str, str]) -> Result:
    if None in row or None in row.values():
        raise ValueError("not as many cells as columns")
    values = {}
    for name, cell in row.items():
        if name in KEYS or not cell.strip():
            continue
        values[name] = float(cell)
        if not np.isfinite(values[name]):
            raise ValueError(f"{name}: {cell}")
    return Result(row["setting"], row["arm"], int(row["seed"]), values)


def class_columns(results: Sequence[Result]) -> tuple[str, ...]:
    """The classes that the rows have a column for, in the order of the table.

    Args:
        results: Rows of a sweep, as `read_results` returns them.

    Returns:
        Names of classes.

    Example:
        >>> row = Result("full", "plain", 0, {"miou": 0.5, "parameters": 9.0, "sofa": 0.5})
        >>> class_columns([row])
        ('sofa',)
    """
    names = dict.fromkeys(name for result in results for name in result.values)
    return tuple(name for name in names if name not in (*SCORES, *COSTS))


def summaries(results: Sequence[Result], metric: str = "miou") -> tuple[Summary, ...]:
    """Mean and spread of every arm, in the order of the table.

    Args:
        results: Rows of a sweep.
        metric: A column.

    Returns:
        One summary an arm and setting that has the metric.

    Example:
        >>> rows = [Result("full", "plain", s, {"miou": m}) for s, m in enumerate([0.4, 0.5])]
        >>> summaries(rows)[0].mean
        0.45
    """
    return tuple(
        Summary(setting, arm, len(values), float(np.mean(values)), _sd(values))
        for setting, arm in dict.fromkeys((r.setting, r.arm) for r in results)
        if (values := list(_by_seed(results, setting, arm, metric).values()))
    )


def paired_differences(
    results: Sequence[Result],
    *,
    reference: str = "plain",
    metric: str = "miou",
    confidence: float = 0.95,
) -> tuple[PairedDifference, ...]:
    """Every arm minus the reference, paired by seed, with Student's t interval of the mean.

    Seeds that one of the two lacks are left out of that pair; `seeds` says how many were used.

    Args:
        results: Rows of a sweep.
        reference: The arm that is subtracted.
        metric: A column.
        confidence: Of the interval, between 0 and 1.

    Returns:
        One difference an arm and setting that has a seed in common with the reference.

    Raises:
        ValueError: `confidence` is not between 0 and 1.

    Example:
        >>> scores = {"plain": (0.50, 0.52), "haskd": (0.52, 0.56)}
        >>> rows = [Result("full", arm, seed, {"miou": score})
        ...         for arm in scores for seed, score in enumerate(scores[arm])]
        >>> (difference,) = paired_differences(rows)
        >>> round(difference.mean, 6), round(difference.low, 3), difference.excludes_zero
        (0.03, -0.097, False)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence}, must be between 0 and 1")
    differences = []
    for setting, arm in dict.fromkeys((r.setting, r.arm) for r in results):
        if arm == reference:
            continue
        base = _by_seed(results, setting, reference, metric)
        own = _by_seed(results, setting, arm, metric)
        values = [own[seed] - base[seed] for seed in own if seed in base]
        if not values:
            continue
        mean, sd = float(np.mean(values)), _sd(values)
        low = high = None
        if sd is not None:
            count = len(values)
            half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * sd / count**0.5
            low, high = mean - half, mean + half
        differences.append(PairedDifference(setting, arm, len(values), mean, sd, low, high))
    return tuple(differences)


def _by_seed(results: Sequence[Result], setting: str, arm: str, metric: str) -> dict[int, float]:
    return {
        r.seed: r.values[metric]
        for r in results
        if (r.setting, r.arm) == (setting, arm) and metric in r.values
    }


def _sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class Majority:
    """What always answering the most frequent class scores.

    Attributes:
        index: The class.
        accuracy: Its share of the points.
        miou: Mean IoU over the classes that occur: the share over their number.
    """

    index: int
    accuracy: float
    miou: float


def majority(confusion: Int[Array, "C C"]) -> Majority | None:
    """Scores a classifier that always answers the most frequent class.

    Args:
        confusion: [C, C] integers, truth by row.

    Returns:
        Its scores, or None where there are no points.

    Example:
        >>> majority(np.array([[50, 10], [40, 0]]))
        Majority(index=0, accuracy=0.6, miou=0.3)
    """
    points = confusion.sum(axis=1)
    total = int(points.sum())
    if not total:
        return None
    index = int(points.argmax())
    share = float(points[index] / total)
    return Majority(index, share, share / int((points > 0).sum()))
