"""Capacities: the few sizes that batches are padded to, chosen from what was measured."""

import numpy as np
from jaxtyping import Int

from haskd_jax.data.scene import Array

Capacities = tuple[tuple[int, ...], ...]


def choose_capacities(
    rows: Int[Array, "T L"], *, buckets: int = 3, headroom: float = 1.1, multiple: int = 256
) -> Capacities:
    """Chooses sizes that waste least on padding.

    Every size costs one compilation of the training step; more sizes pad less.

    Args:
        rows: [T, L], voxels of T batches on each of L grids, finest first; see `measure_rows`.
        buckets: How many sizes at most.
        headroom: The largest size is the largest measured times this, as batches to come may be
            larger; what is larger still is cropped and counted (training) or refused (evaluation).
        multiple: Sizes are multiples of this.

    Returns:
        Of each size the capacity of every grid, finest first; sizes ascending.

    Raises:
        ValueError: No measurement, or an argument out of range.

    Example:
        >>> rows = np.array([[100, 30], [110, 35], [900, 200], [1000, 240]])
        >>> choose_capacities(rows, buckets=2, headroom=1.0, multiple=10)
        ((110, 40), (1000, 240))
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or not rows.size or rows.min() < 0:
        raise ValueError(f"rows: shape {rows.shape}, expected at least one row of counts")
    if buckets < 1 or headroom < 1 or multiple < 1:
        raise ValueError(
            f"buckets, headroom, multiple: {buckets}, {headroom}, {multiple}, expected 1 or more"
        )
    # Each grid's own largest, so that a size holds every batch below it on all grids at once.
    ordered = np.maximum.accumulate(rows[np.argsort(rows[:, 0], kind="stable")], axis=0)
    sizes = ordered[_boundaries(ordered[:, 0], buckets)].astype(np.float64)
    sizes[-1] *= headroom
    padded = np.maximum(np.ceil(sizes / multiple - 1e-9), 1).astype(np.int64) * multiple
    by_finest = {int(size[0]): tuple(int(n) for n in size) for size in padded}
    return tuple(by_finest[finest] for finest in sorted(by_finest))


def _boundaries(ordered: Array, buckets: int) -> list[int]:
    """Where to cut ascending counts so that the padding summed over all of them is least."""
    count = len(ordered)
    # cost[j]: the least total of sizes for the first j counts, with the buckets so far.
    cost = np.full(count + 1, np.inf)
    cost[0] = 0
    cuts = []
    for _ in range(min(buckets, count)):
        # [i, j]: the counts i..j-1 share the size of the last of them.
        width = np.arange(count + 1)[None, :] - np.arange(count + 1)[:, None]
        size = np.concatenate([[0], ordered])
        total = cost[:, None] + np.where(width >= 0, width * size[None, :], np.inf)
        cuts.append(total.argmin(axis=0))
        cost = total.min(axis=0)
    chosen, end = [], count
    for cut in reversed(cuts):
        if end == 0:
            break
        if cut[end] != end:
            chosen.append(end - 1)
        end = int(cut[end])
    return sorted(set(chosen))


def smallest_fitting(rows: Int[Array, " L"], capacities: Capacities) -> int | None:
    """Which size a batch goes into.

    Args:
        rows: [L], its voxels on each grid.
        capacities: The sizes, ascending.

    Returns:
        The number of the smallest size that holds it on all grids, or None.

    Example:
        >>> smallest_fitting(np.array([50, 20]), ((64, 16), (128, 32)))
        1
    """
    for number, capacity in enumerate(capacities):
        if (np.asarray(rows) <= np.asarray(capacity)).all():
            return number
    return None
