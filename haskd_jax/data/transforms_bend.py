"""Augmentations that no camera could follow: each point moves its own way, `surface` stays."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from haskd_jax.data.scene import Array
from haskd_jax.data.transforms_geometry import check_probability, refuse_voxels
from haskd_jax.data.transforms_sample import Sample

_MOST_CELLS = 20_000_000  # of elastic noise: 240 MB; a room of 20 x 20 x 5 m at 20 cm has 300,000


def jitter(
    sample: Sample, rng: np.random.Generator, *, sigma: float = 0.005, clip: float = 0.02
) -> Sample:
    """Moves every point by noise of its own; `surface` stays.

    Args:
        sample: The sample.
        rng: Draws.
        sigma: Standard deviation along each axis, metres.
        clip: Largest move along each axis, metres.

    Returns:
        The jittered sample.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> scene = Scene("room", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8),
        ...               np.eye(3, dtype=np.float32))
        >>> moved = jitter(sample_of(scene), np.random.default_rng(0))
        >>> bool(0 < np.abs(moved.points - moved.surface).max() <= 0.0201)
        True
    """
    refuse_voxels(sample)
    if sigma < 0 or clip <= 0:
        raise ValueError(f"sigma: {sigma} with clip {clip}, expected sigma >= 0 and clip > 0")
    noise = rng.standard_normal(sample.points.shape, np.float32) * np.float32(sigma)
    return replace(sample, points=sample.points + noise.clip(-clip, clip))


def elastic(
    sample: Sample,
    rng: np.random.Generator,
    *,
    waves: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6)),
    probability: float = 0.95,
) -> Sample:
    """Bends space smoothly, once for every wave; `surface` and normals stay.

    Gaussian noise on a grid, smoothed by two passes of a box of three cells along each axis, is
    interpolated linearly at the points (Choy et al., CVPR 2019, after Simard et al., 2003).

    Args:
        sample: The sample.
        rng: Draws.
        waves: Of each wave the cell of the noise grid and the factor on the smoothed noise, metres.
        probability: Of bending at all.

    Returns:
        The bent sample.

    Raises:
        ValueError: The scene is so large that its noise grid would fill the memory.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> scene = Scene("room", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8),
        ...               np.eye(3, dtype=np.float32))
        >>> bent = elastic(sample_of(scene), np.random.default_rng(0), probability=1.0)
        >>> bool(np.abs(bent.points - bent.surface).max() > 0)
        True
    """
    refuse_voxels(sample)
    check_probability("probability", probability)
    if rng.random() >= probability:
        return sample
    points = np.ascontiguousarray(sample.points.T)
    for cell, magnitude in waves:
        if cell <= 0:
            raise ValueError(f"waves: a cell of {cell} m, expected more than 0")
        low = points.min(axis=1, keepdims=True)
        at = (points - low) / np.float32(cell) + 1
        # A cell of margin all round; one more, as points at the far end need a right neighbour.
        shape = tuple(int(n) + 3 for n in at.max(axis=1))
        if np.prod(np.array(shape, np.float64)) > _MOST_CELLS:
            size = np.ptp(points, axis=1).round(1).tolist()
            raise ValueError(
                f"points: {sample.name} measures {size} m, too large for elastic noise of {cell} "
                "m: remove stray points, or leave elastic out"
            )
        noise = rng.standard_normal((*shape, 3), np.float32)
        for axis in (0, 1, 2) * 2:
            noise = ndimage.uniform_filter1d(noise, 3, axis=axis, mode="constant")
        points = points + np.float32(magnitude) * _interpolate(noise, at)
    return replace(sample, points=np.ascontiguousarray(points.T))


def _interpolate(field: Array, at: Array) -> Array:
    """[3, N] of a [X, Y, Z, 3] field, linearly, at [3, N] positions within it, in cells.

    Coordinate by coordinate: several times faster than by points, as NumPy's inner loops are long.
    """
    _, ny, nz, _ = field.shape
    channels = np.ascontiguousarray(np.moveaxis(field, -1, 0)).reshape(3, -1)
    whole = at.astype(np.int64)
    far = at - whole.astype(np.float32)
    weights = (1 - far, far)
    corner = (whole[0] * ny + whole[1]) * nz + whole[2]
    total = np.zeros_like(at)
    for x, y, z in np.ndindex(2, 2, 2):
        weight = weights[x][0] * weights[y][1] * weights[z][2]
        index = corner + ((x * ny + y) * nz + z)
        for channel, sum_ in zip(channels, total, strict=True):
            sum_ += channel.take(index) * weight
    return total
