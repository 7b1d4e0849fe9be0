"""Noisy frames to the cloud a scanner leaves, and what was seen there."""

import numpy as np

Array = np.ndarray


def fuse_views(
    points: list[Array],
    colours: list[Array],
    ids: list[Array],
    weights: list[Array],
    voxel_size: float,
) -> tuple[Array, Array, Array]:
    """Averages what the frames saw per voxel.

    A voxel needs two pixels. It has the weighted means of their places and colours, and the
    id that most of them have.

    Args:
        points: [P, 3] float32 a frame, metres.
        colours: [P, 3] float32 a frame.
        ids: [P] int32 a frame, what each pixel shows, 0 or more.
        weights: [P] float32 a frame.
        voxel_size: Edge, metres.

    Returns:
        [N, 3] float32 points, [N, 3] uint8 colours and [N] int32 ids, voxels in raster order.

    Example:
        >>> p, c = np.full((3, 3), 0.5, np.float32), np.full((3, 3), 9, np.float32)
        >>> _, colour, ids = fuse_views([p], [c], [np.array([1, 2, 2], np.int32)],
        ...                             [np.ones(3, np.float32)], 0.1)
        >>> colour.tolist(), ids.tolist()
        ([[9, 9, 9]], [2])
    """
    place, shown = np.concatenate(points), np.concatenate(ids)
    paint, weight = np.concatenate(colours), np.concatenate(weights)
    cell = np.floor(place * np.float32(1 / voxel_size)).astype(np.int64)
    cell -= cell.min(axis=0)
    extent = cell.max(axis=0) + 1
    key = (cell[:, 0] * extent[1] + cell[:, 1]) * extent[2] + cell[:, 2]
    bits = int(shown.max()).bit_length()
    order = _order((key << bits) | shown)
    key, shown = key[order], shown[order]

    new_voxel = np.diff(key, prepend=-1) != 0
    new_run = new_voxel | (np.diff(shown, prepend=-1) != 0)
    run, voxel = np.flatnonzero(new_run), np.flatnonzero(new_voxel)
    votes = (np.diff(run, append=len(key)) << bits) | shown[run]
    winner = np.maximum.reduceat(votes, np.searchsorted(run, voxel)) & ((1 << bits) - 1)

    of_voxel = np.empty(len(key), np.int32)
    of_voxel[order] = np.cumsum(new_voxel) - 1
    keep = np.diff(voxel, append=len(key)) >= 2

    def mean(values: Array) -> Array:
        return np.bincount(of_voxel, values * weight)[keep] / total

    total = np.bincount(of_voxel, weight)[keep]
    where = np.stack([mean(place[:, i]) for i in range(3)], axis=1)
    colour = np.stack([mean(paint[:, i]) for i in range(3)], axis=1)
    colour = np.rint(colour).clip(0, 255).astype(np.uint8)
    return where.astype(np.float32), colour, winner[keep].astype(np.int32)


def _order(key: Array) -> Array:
    """The stable order of non-negative keys."""
    bits = len(key).bit_length()
    if int(key.max()).bit_length() + bits > 63:
        return np.argsort(key, kind="stable")
    # Sorting values is several times faster than sorting indices: both go into one number.
    return np.sort((key << bits) | np.arange(len(key))) & ((1 << bits) - 1)
