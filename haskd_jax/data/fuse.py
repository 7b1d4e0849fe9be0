"""Posed RGB-D frames to one cloud: pixels that other frames confirm, averaged in voxels."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from haskd_jax.data.cameras import look_up, project, unproject
from haskd_jax.data.normals import estimate_normals, unit
from haskd_jax.data.scene import Array, Cloud, Frames
from haskd_jax.ranges import at_least, positive

_MIN_DEPTH = 0.1  # metres
_NEAR = 2  # frames before and after, by which a frame is checked
_BITS = 21  # of each coordinate in a voxel's key
_PENDING = 4_000_000  # rows that wait to be merged: bounds the memory


@dataclass(frozen=True)
class FuseOptions:
    """How frames become a cloud.

    Attributes:
        voxel_size: Edge of the voxels in which pixels are averaged, metres.
        max_depth: Depth beyond which a pixel is too noisy to be used, metres.
        tolerance: How far the depths of two frames may differ at one place, as a share of the
            depth; never less than 2 cm.
    """

    voxel_size: float = 0.02
    max_depth: float = 5.0
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        """Checks the ranges."""
        positive("voxel_size", self.voxel_size)
        positive("max_depth", self.max_depth)
        at_least("tolerance", self.tolerance, 0)


def fuse(
    frames: Frames,
    options: FuseOptions,
    on_drop: Callable[[str, int], None] = lambda reason, count: None,
) -> Cloud:
    """Fuses posed RGB-D frames into a cloud.

    A pixel is used where its depth is known and smooth, where at least one of the two frames
    before and after sees a surface at the same place, and where no more of them look through
    that place than confirm it. Pixels are averaged per voxel, weighted by 1 / depth^2 as a depth
    sensor's error grows, and a voxel needs pixels of two frames. A single frame is taken as it
    is. Memory grows with the number of voxels, not of frames.

    Args:
        frames: The frames; memory-mapped ones are read one by one.
        options: Sizes and tolerances.
        on_drop: Called with a reason and how many pixels or voxels were left out.

    Returns:
        The cloud, with colours, and normals that point to where it was seen from. Empty if no
        pixel was confirmed.
    """
    grid = _Voxels()
    drops: Counter[str] = Counter()
    for f in range(len(frames)):
        depth = _depth(frames, f)
        known = depth > 0
        use = known & (depth >= _MIN_DEPTH) & (depth <= options.max_depth)
        drops["pixel: depth out of range"] += int((known & ~use).sum())
        smooth = use & _smooth(depth, options)
        drops["pixel: at a depth edge"] += int((use & ~smooth).sum())
        row, column = np.nonzero(smooth)
        z = depth[row, column]
        eye = np.asarray(frames.camera_to_world[f], np.float64)
        points = unproject(column, row, z, frames.intrinsics[f], eye)
        confirmed = _confirmed(frames, f, points, options)
        drops["pixel: not confirmed by the frames around"] += int((~confirmed).sum())
        points = points[confirmed]
        colour = frames.colour[f][row[confirmed], column[confirmed]]
        toward = unit(eye[:3, 3] - points)
        weight = 1 / z[confirmed] ** 2
        grid.add(points, np.hstack([points, colour, toward]), weight, options.voxel_size)
    sums, weights, seen = grid.result()
    keep = seen >= min(2, len(frames))
    drops["voxel: seen in one frame only"] += int((~keep).sum())
    for reason, count in drops.items():
        if count:
            on_drop(reason, count)
    mean = sums[keep] / weights[keep, None]
    points = mean[:, :3].astype(np.float32)
    return Cloud(
        points=points,
        colour=np.rint(mean[:, 3:6]).astype(np.uint8),
        normals=estimate_normals(points, mean[:, 6:]) if len(points) else points,
    )


def _depth(frames: Frames, f: int) -> Array:
    return frames.depth[f].astype(np.float64) / 1000


def _tolerance(depth: Array, options: FuseOptions) -> Array:
    return np.maximum(0.02, options.tolerance * depth)


def _smooth(depth: Array, options: FuseOptions) -> Array:
    """Whether the neighbours with depth continue the surface: sensors invent depth at edges."""
    around = np.pad(depth, 1, mode="edge")
    steps = [
        np.where(near > 0, np.abs(near - depth), 0)
        for near in (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    ]
    return np.max(steps, axis=0) < 2 * _tolerance(depth, options)


def _confirmed(frames: Frames, f: int, points: Array, options: FuseOptions) -> Array:
    if len(frames) == 1:
        return np.ones(len(points), bool)
    support = np.zeros(len(points), np.int64)
    conflict = np.zeros(len(points), np.int64)
    for other in range(max(0, f - _NEAR), min(len(frames), f + _NEAR + 1)):
        if other == f:
            continue
        column, row, z = project(points, frames.intrinsics[other], frames.camera_to_world[other])
        depth, _ = look_up(_depth(frames, other), column, row)
        tolerance = _tolerance(z, options)
        support += (depth > 0) & (np.abs(depth - z) <= tolerance)
        conflict += depth > z + tolerance
    return (support > 0) & (conflict <= support)


class _Voxels:
    """Sums per voxel, keyed by its coordinates; added to frame by frame, in order of the keys."""

    def __init__(self) -> None:
        self._parts: list[tuple[Array, Array]] = []
        self._pending = 0

    def add(self, points: Array, values: Array, weight: Array, voxel_size: float) -> None:
        cell = np.floor(points / voxel_size).astype(np.int64) + (1 << (_BITS - 1))
        if len(cell) and (cell.min() < 0 or cell.max() >= 1 << _BITS):
            raise ValueError(
                f"voxel_size: {voxel_size} m is too small for a scene of "
                f"{np.ptp(points, axis=0).max():.0f} m"
            )
        keys = (cell[:, 0] << 2 * _BITS) | (cell[:, 1] << _BITS) | cell[:, 2]
        rows = np.hstack([values * weight[:, None], weight[:, None]])
        keys, sums = _sum_by_key(keys, rows)
        self._parts.append((keys, np.hstack([sums, np.ones((len(keys), 1))])))
        self._pending += len(keys)
        if self._pending > _PENDING:
            self._merge()

    def _merge(self) -> None:
        keys, sums = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        self._parts = [_sum_by_key(keys, sums)]
        self._pending = 0

    def result(self) -> tuple[Array, Array, Array]:
        if not self._parts:
            return np.zeros((0, 9)), np.zeros(0), np.zeros(0)
        self._merge()
        table = self._parts[0][1]
        return table[:, :-2], table[:, -2], table[:, -1]


def _sum_by_key(keys: Array, rows: Array) -> tuple[Array, Array]:
    unique, inverse = np.unique(keys, return_inverse=True)
    columns = [np.bincount(inverse, column, minlength=len(unique)) for column in rows.T]
    return unique, np.stack(columns, axis=1)
