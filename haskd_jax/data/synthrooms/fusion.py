"""Noisy frames to the cloud a scanner leaves, with the label of what was seen."""

import numpy as np

Array = np.ndarray
_LABEL_BITS = 6  # nyu40 ids are below 64


def fuse_views(
    points: list[Array],
    colours: list[Array],
    labels: list[Array],
    weights: list[Array],
    voxel_size: float,
) -> tuple[Array, Array, Array]:
    """Averages what the frames saw per voxel.

    A voxel needs two pixels. It has the weighted means of their places and colours, and the label
    that most of them have.

    Args:
        points: [P, 3] float32 a frame, metres.
        colours: [P, 3] float32 a frame.
        labels: [P] uint8 a frame, nyu40 ids.
        weights: [P] float32 a frame.
        voxel_size: Edge, metres.

    Returns:
        [N, 3] float32 points, [N, 3] uint8 colours and [N] uint8 labels, voxels in raster order.

    Example:
        >>> p, c = np.full((3, 3), 0.5, np.float32), np.full((3, 3), 9, np.float32)
        >>> _, colour, label = fuse_views([p], [c], [np.array([1, 2, 2], np.uint8)],
        ...                               [np.ones(3, np.float32)], 0.1)
        >>> colour.tolist(), label.tolist()
        ([[9, 9, 9]], [2])
    """
    place, label = np.concatenate(points), np.concatenate(labels)
    weight = np.concatenate(weights)[:, None]
    cell = np.floor(place * np.float32(1 / voxel_size)).astype(np.int64)
    cell -= cell.min(axis=0)
    extent = cell.max(axis=0) + 1
    key = (cell[:, 0] * extent[1] + cell[:, 1]) * extent[2] + cell[:, 2]
    order = np.argsort((key << _LABEL_BITS) | label, kind="stable")
    key, label = key[order], label[order]

    new_voxel = np.diff(key, prepend=-1) != 0
    new_run = new_voxel | (np.diff(label.astype(np.int16), prepend=-1) != 0)
    run, voxel = np.flatnonzero(new_run), np.flatnonzero(new_voxel)
    length = np.diff(run, append=len(key))
    votes = (length << _LABEL_BITS) | label[run]
    winner = np.maximum.reduceat(votes, np.searchsorted(run, voxel)) & ((1 << _LABEL_BITS) - 1)

    values = np.hstack([place * weight, np.concatenate(colours) * weight, weight])[order]
    sums = np.add.reduceat(values, voxel, axis=0)
    mean = sums[:, :6] / sums[:, 6:]
    keep = np.diff(voxel, append=len(key)) >= 2
    colour = np.rint(mean[keep, 3:]).clip(0, 255).astype(np.uint8)
    return mean[keep, :3].astype(np.float32), colour, winner[keep].astype(np.uint8)
