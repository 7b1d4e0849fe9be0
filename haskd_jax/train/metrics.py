"""What is reported of predictions: confusion matrices, and the numbers that come of their sums.

Sum the matrices of all scenes, and divide then: the mean of scenes' IoUs is another number.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int

HostArray = np.ndarray


def confusion_matrix(
    labels: Int[Array, " V"],
    predictions: Int[Array, " V"],
    num_classes: int,
    *,
    where: Bool[Array, " V"] | None = None,
) -> Int[Array, "C D"]:
    """Counts which class was taken for which. Jittable.

    Args:
        labels: [V] class, -1 is not counted.
        predictions: [V] class; any other number is a prediction of no class, which misses the truth
            (as in ScanNet's scorer).
        num_classes: C.
        where: [V] what is counted; None for all.

    Returns:
        [C, C + 1] int32, truth by row; the last column counts predictions of no class.

    Example:
        >>> labels, predictions = jnp.array([0, 0, 1, -1, 1]), jnp.array([0, 1, 1, 1, 7])
        >>> confusion_matrix(labels, predictions, 2).tolist()
        [[1, 1, 0], [0, 1, 1]]
    """
    cells = _cells(jnp, labels, predictions, num_classes, where)
    size = num_classes * (num_classes + 1)
    counts = jnp.zeros(size + 1, jnp.int32).at[cells].add(1)
    return counts[:size].reshape(num_classes, -1)


def count_on_host(
    labels: Int[HostArray, " N"], predictions: Int[HostArray, " N"], num_classes: int
) -> Int[HostArray, "C D"]:
    """`confusion_matrix` in NumPy: for scenes of any number of points, without compilation.

    Args:
        labels: [N], below C; -1 is not counted.
        predictions: [N].
        num_classes: C.

    Returns:
        [C, C + 1] int64.

    Raises:
        ValueError: A label that is no class.

    Example:
        >>> count_on_host(np.array([0, 1]), np.array([0, 0]), 2).tolist()
        [[1, 0, 0], [1, 0, 0]]
    """
    if labels.size and labels.max() >= num_classes:
        raise ValueError(f"labels: {labels.max()}, there are {num_classes} classes")
    cells = _cells(np, labels, predictions, num_classes, None)
    size = num_classes * (num_classes + 1)
    counts = np.bincount(cells, minlength=size + 1)
    return counts[:size].astype(np.int64).reshape(num_classes, -1)


def _cells(xp, labels, predictions, num_classes: int, where):
    """The number of each row's cell, one beyond the last for what is not counted."""
    counted = (labels >= 0) & (labels < num_classes)
    if where is not None:
        counted = counted & where
    known = (predictions >= 0) & (predictions < num_classes)
    column = xp.where(known, predictions, num_classes).astype(xp.int32)
    cells = labels.astype(xp.int32) * (num_classes + 1) + column
    return xp.where(counted, cells, num_classes * (num_classes + 1))


def iou(confusion: Int[HostArray, "C D"]) -> Float64[HostArray, " C"]:
    """Intersection over union of every class.

    Args:
        confusion: [C, C] or [C, C + 1], truth by row, summed over all scenes.

    Returns:
        [C] float64; NaN for a class that neither truth nor prediction has.

    Example:
        >>> iou(np.array([[3, 1, 0], [1, 2, 1], [0, 0, 0]])).tolist()
        [0.6, 0.4, 0.0]
    """
    hits, truth, predicted = _sums(confusion)
    return _ratio(hits, truth + predicted - hits)


def mean_iou(confusion: Int[HostArray, "C D"]) -> float:
    """The mean IoU of the classes that occur in the truth.

    Args:
        confusion: As for `iou`.

    Returns:
        A number in [0, 1], NaN where nothing is labelled.

    Example:
        >>> mean_iou(np.array([[3, 1, 0], [1, 2, 1], [0, 0, 0]]))
        0.5
    """
    return _mean(iou(confusion), confusion)


def accuracy(confusion: Int[HostArray, "C D"]) -> float:
    """The share of labelled points that were predicted right.

    Args:
        confusion: As for `iou`.

    Returns:
        A number in [0, 1], NaN where nothing is labelled.

    Example:
        >>> accuracy(np.array([[3, 1], [0, 4]]))
        0.875
    """
    hits, truth, _ = _sums(confusion)
    return float(_ratio(hits.sum(keepdims=True), truth.sum(keepdims=True))[0])


def mean_accuracy(confusion: Int[HostArray, "C D"]) -> float:
    """The mean over the classes that occur of the share that was predicted right.

    Args:
        confusion: As for `iou`.

    Returns:
        A number in [0, 1], NaN where nothing is labelled.

    Example:
        >>> mean_accuracy(np.array([[3, 1], [0, 2]]))
        0.875
    """
    hits, truth, _ = _sums(confusion)
    return _mean(_ratio(hits, truth), confusion)


def _sums(confusion):
    """Hits, truths and predictions of every class, [C] each."""
    counts = np.asarray(confusion, np.int64)
    classes = len(counts)
    if counts.ndim != 2 or counts.shape[1] not in (classes, classes + 1):
        raise ValueError(f"confusion: shape {counts.shape}, expected [C, C] or [C, C + 1]")
    return np.diagonal(counts), counts.sum(axis=1), counts[:, :classes].sum(axis=0)


def _ratio(part, whole):
    nothing = np.full(len(whole), np.nan)
    return np.divide(part, whole, out=nothing, where=whole > 0)


def _mean(values, confusion) -> float:
    occurs = np.asarray(confusion).sum(axis=1) > 0
    return float(values[occurs].mean()) if occurs.any() else float("nan")
