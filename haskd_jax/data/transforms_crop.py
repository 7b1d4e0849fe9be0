"""Transforms that leave points out: dropout, one point a voxel, the points around a point."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64

from haskd_jax.data.scene import Array
from haskd_jax.data.transforms_geometry import check_probability
from haskd_jax.data.transforms_sample import Sample, bounds, take


def dropout(
    sample: Sample, rng: np.random.Generator, *, share: float = 0.2, probability: float = 0.2
) -> Sample:
    """Leaves out a share of the points, evenly drawn.

    Args:
        sample: The sample.
        rng: Draws.
        share: Of the points, below 1.
        probability: Of leaving any out.

    Returns:
        The smaller sample, its points in their order; it keeps one point at least.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> points = np.zeros((10, 3), np.float32)
        >>> sample = sample_of(Scene("room", points, np.zeros((10, 3), np.uint8), points))
        >>> len(dropout(sample, np.random.default_rng(0), probability=1.0).points)
        8
    """
    check_probability("probability", probability)
    if not 0 <= share < 1:
        raise ValueError(f"share: {share}, expected 0 or more and below 1")
    if rng.random() >= probability:
        return sample
    count = len(sample.points)
    kept = rng.permutation(count)[: max(1, round(count * (1 - share)))]
    return take(sample, np.sort(kept))


def grid_sample(sample: Sample, rng: np.random.Generator, *, voxel_size: float = 0.02) -> Sample:
    """Keeps one point of every voxel: a labelled one where there is one, else any.

    Which of them is random. The preference matters where few points are labelled.

    Args:
        sample: The sample.
        rng: Draws.
        voxel_size: Edge of a voxel, metres.

    Returns:
        The sample of one point a voxel, with `voxels`, in their lexicographic order.

    Raises:
        ValueError: For a size that is not positive, or so small that voxels cannot be numbered.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> points = np.array([[0.05, 0, 0], [0.01, 0, 0], [0.011, 0, 0]], np.float32)
        >>> sample = sample_of(Scene("room", points, np.zeros((3, 3), np.uint8), points))
        >>> grid_sample(sample, np.random.default_rng(0)).voxels.tolist()
        [[0, 0, 0], [2, 0, 0]]
    """
    voxels = voxels_of(sample.points, voxel_size)
    return one_per_voxel(replace(sample, voxels=voxels, voxel_size=float(voxel_size)), rng)


def voxels_of(points: Float[Array, "N 3"], voxel_size: float) -> Int32[Array, "N 3"]:
    """The voxel of every point, floor(point / voxel_size).

    Args:
        points: [N, 3], metres.
        voxel_size: Edge of a voxel, metres.

    Returns:
        [N, 3] int32.

    Raises:
        ValueError: The size is not positive, or the voxels are beyond 2**30.

    Example:
        >>> voxels_of(np.array([[0.05, -0.01, 0.0]]), 0.02).tolist()
        [[2, -1, 0]]
    """
    if not 0 < voxel_size < np.inf:
        raise ValueError(f"voxel_size: {voxel_size}, expected a positive length in metres")
    voxels = np.floor(points / points.dtype.type(voxel_size))
    if not (np.abs(voxels) < 2**30).all():
        raise ValueError(
            f"voxel_size: {voxel_size} m is too small for points up to {np.abs(points).max():.6g} m"
        )
    return voxels.astype(np.int32)


def one_per_voxel(sample: Sample, rng: np.random.Generator) -> Sample:
    """Keeps one point of every voxel of a sample that has voxels.

    Args:
        sample: With `voxels`, in any order, several points in one allowed.
        rng: Draws which.

    Returns:
        The sample, no two voxels alike, in lexicographic order; labelled points go first.

    Raises:
        ValueError: The sample has no voxels.
    """
    if sample.voxels is None:
        raise ValueError(f"sample: {sample.name} has no voxels: grid_sample first")
    keys = voxel_keys(sample.voxels)
    count = len(keys)
    # A point's place in a random order, unlabelled points behind all labelled ones. Sorting
    # numbers is several times faster than sorting indices by them.
    place = rng.permutation(count)
    point_at = np.empty(count, np.int64)
    point_at[place] = np.arange(count)
    if sample.label is not None:
        place = place + count * (sample.label < 0)
    if int(keys.max()) >= 2**62 // (2 * count):
        keys = np.unique(keys, return_inverse=True)[1]
    order = np.sort(keys * (2 * count) + place)
    key, place = np.divmod(order, 2 * count)
    return take(sample, point_at[place[_first(key)] % count])


def voxel_keys(voxels: Int[Array, "N 3"]) -> Int64[Array, " N"]:
    """A number for every voxel, in lexicographic order; equal for equal voxels alone.

    Args:
        voxels: [N, 3].

    Returns:
        [N] int64, 0 and up.

    Raises:
        ValueError: The voxels span more than int64 can number.

    Example:
        >>> voxel_keys(np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]])).tolist()
        [1, 0, 2]
    """
    low, high = (bound.astype(np.int64) for bound in bounds(voxels))
    _, ny, nz = span = (high - low + 1).tolist()
    if span[0] * ny * nz >= 2**62:
        raise ValueError(
            f"voxels: they span {span}, more than can be numbered: take larger voxels, or remove "
            "stray points"
        )
    x, y, z = (voxels[:, i] - low[i] for i in range(3))
    return (x * ny + y) * nz + z


def _first(ordered: Array) -> Bool[Array, " N"]:
    """Where a value differs from the one before."""
    first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first


def count_levels(voxels: Int[Array, "N 3"], levels: int) -> Int64[Array, " L"]:
    """How many voxels there are, and how many when their edge is doubled again and again.

    Args:
        voxels: [N, 3], no two alike.
        levels: How often the edge is doubled.

    Returns:
        [levels + 1] int64.

    Example:
        >>> count_levels(np.array([[0, 0, 0], [0, 0, 1], [0, 0, 2]]), 2).tolist()
        [3, 2, 1]
    """
    counts = [len(voxels)]
    for _ in range(levels):
        voxels = voxels >> 1
        low, high = bounds(voxels)
        _, ny, nz = (high - low + 1).tolist()
        key = np.sort(voxel_keys(voxels))
        key, z = np.divmod(key[_first(key)], nz)
        x, y = np.divmod(key, ny)
        voxels = np.stack([x, y, z], axis=1) + low
        counts.append(len(voxels))
    return np.array(counts)


def sphere_crop(
    sample: Sample,
    rng: np.random.Generator,
    *,
    most: int | None = 100_000,
    share: float = 1.0,
) -> Sample:
    """Keeps the points nearest to one of them, drawn at random.

    Args:
        sample: The sample.
        rng: Draws the point in the middle.
        most: How many points are kept at most; None for no limit. The recipes have 100,000 (SpUNet,
            ScanNet), 102,400 (PTv3, ScanNet) and 204,800 (PTv3, S3DIS), voxels being points there.
        share: Of the points, above 0; the smaller of the two limits counts.

    Returns:
        The sample where it has no more; else the cropped one, its points in their order.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> points = np.arange(30, dtype=np.float32).reshape(10, 3)
        >>> sample = sample_of(Scene("room", points, np.zeros((10, 3), np.uint8), points))
        >>> len(sphere_crop(sample, np.random.default_rng(0), most=4).points)
        4
    """
    if most is not None and most < 1:
        raise ValueError(f"most: {most}, expected 1 or more")
    if not 0 < share <= 1:
        raise ValueError(f"share: {share}, expected more than 0 and at most 1")
    count = len(sample.points)
    limit = max(1, int(count * share))
    limit = limit if most is None else min(limit, most)
    if count <= limit:
        return sample
    offset = sample.points - sample.points[rng.integers(count)]
    distance = np.einsum("ni,ni->n", offset, offset)
    return take(sample, np.sort(np.argpartition(distance, limit - 1)[:limit]))
