"""A scene on its way into a batch: what augmentation may move, and what frames still see."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Num

from haskd_jax.data.scene import Array, Frames, Scene

AnySample = TypeVar("AnySample", bound="Sample")
_ROWS = ("points", "colour", "normals", "label", "instance", "surface", "part", "row", "voxels")


@dataclass(frozen=True, kw_only=True)
class Sample(Scene):
    """A scene in memory that transforms work on; made by `sample_of`.

    Rotations, reflections, scalings and shifts move the points and the cameras together. Jitter and
    elastic distortion move points alone, and no camera could follow them: `surface` keeps each
    point where the frames see it. Project `surface`, feed `points`.

    Attributes:
        surface: [N, 3] float32, where the frames see the points.
        part: [N] int32, the scene that a point is of: a mixed sample holds two, and a frame shows
            only the points of its own.
        row: [N] int32, the number of each point in its scene.
        frame_part: [F] int32, the scene that a frame is of.
        voxels: [N, 3] int32, the voxel of each point, no two alike, in lexicographic order; None
            before `grid_sample`.
        voxel_size: Edge of a voxel in metres; None before `grid_sample`.
    """

    surface: Float32[Array, "N 3"]
    part: Int32[Array, " N"]
    row: Int32[Array, " N"]
    frame_part: Int32[Array, " F"]
    voxels: Int32[Array, "N 3"] | None = None
    voxel_size: float | None = None


def sample_of(scene: Scene, *, frames: Sequence[int] | None = None, part: int = 0) -> Sample:
    """Reads a scene into memory.

    Args:
        scene: The scene, memory-mapped as `load_scene` gives it, or not.
        frames: Which of its frames; None for all. Only these are read.
        part: The number by which its points and frames know each other.

    Returns:
        The sample.

    Raises:
        ValueError: The scene has no such frame, or no point.

    Example:
        >>> scene = Scene("room", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8),
        ...               np.eye(3, dtype=np.float32))
        >>> sample_of(scene).surface.shape
        (3, 3)
    """
    if not len(scene.points):
        raise ValueError(f"scene: {scene.name} has no points")
    chosen = np.arange(len(scene.frames)) if frames is None else np.asarray(frames, np.int64)
    wrong = chosen[(chosen < 0) | (chosen >= len(scene.frames))]
    if len(wrong):
        raise ValueError(
            f"frames: {scene.name} has {len(scene.frames)} frames, none of number {wrong[0]}"
        )

    def own(array: Array | None) -> Array | None:
        return None if array is None else np.array(array)

    points = np.array(scene.points)
    return Sample(
        name=scene.name,
        points=points,
        colour=np.array(scene.colour),
        normals=np.array(scene.normals),
        label=own(scene.label),
        instance=own(scene.instance),
        frames=take_frames(scene.frames, chosen),
        manifest=scene.manifest,
        surface=points,
        part=np.full(len(points), part, np.int32),
        row=np.arange(len(points), dtype=np.int32),
        frame_part=np.full(len(chosen), part, np.int32),
    )


def take_frames(frames: Frames, chosen: Int[Array, " K"]) -> Frames:
    """Some of the frames.

    Args:
        frames: All of them.
        chosen: [K], their numbers.

    Returns:
        These frames, in memory.

    Example:
        >>> from haskd_jax.data.scene import no_frames
        >>> len(take_frames(no_frames(), np.zeros(0, int)))
        0
    """
    return Frames(
        names=tuple(frames.names[i] for i in chosen),
        colour=np.asarray(frames.colour[chosen]),
        depth=np.asarray(frames.depth[chosen]),
        intrinsics=np.asarray(frames.intrinsics[chosen]),
        camera_to_world=np.asarray(frames.camera_to_world[chosen]),
        label=None if frames.label is None else np.asarray(frames.label[chosen]),
    )


def take(sample: AnySample, rows: Int[Array, " M"] | Bool[Array, " N"]) -> AnySample:
    """Some of the points, with all that belongs to them; the frames stay.

    Args:
        sample: The sample.
        rows: [M] indices, or [N] bool.

    Returns:
        The smaller sample.

    Example:
        >>> scene = Scene("room", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8),
        ...               np.eye(3, dtype=np.float32))
        >>> take(sample_of(scene), np.array([2])).points.tolist()
        [[0.0, 0.0, 1.0]]
    """
    arrays = {name: getattr(sample, name) for name in _ROWS}
    if sample.surface is sample.points:
        del arrays["surface"]
    # `take` copies rows of three about twice as fast as indexing does.
    index = np.flatnonzero(rows) if rows.dtype == bool else rows
    taken = {name: array.take(index, axis=0) for name, array in arrays.items() if array is not None}
    taken.setdefault("surface", taken["points"])
    return replace(sample, **taken)


def spread_views(
    frames: int, num_views: int, rng: np.random.Generator | None = None
) -> Int[Array, " K"]:
    """Frames spread over a sequence: one of each of `num_views` equal stretches.

    The choice of BPNet (Hu et al., CVPR 2021): random in training, fixed at test.

    Args:
        frames: How many there are.
        num_views: How many are wanted.
        rng: Draws within each stretch; None takes the middle.

    Returns:
        [K] increasing; all frames where there are no more than wanted.

    Example:
        >>> spread_views(100, 3).tolist(), spread_views(2, 3).tolist()
        ([16, 50, 83], [0, 1])
    """
    if num_views < 0:
        raise ValueError(f"num_views: {num_views}, expected 0 or more")
    if frames <= num_views:
        return np.arange(frames)
    within = np.full(num_views, 0.5) if rng is None else rng.random(num_views)
    return ((np.arange(num_views) + within) * frames / max(num_views, 1)).astype(np.int64)


def bounds(rows: Num[Array, "N C"]) -> tuple[Num[Array, " C"], Num[Array, " C"]]:
    """The smallest and the largest of each column.

    Args:
        rows: [N, C].

    Returns:
        [C] and [C].

    Example:
        >>> [v.tolist() for v in bounds(np.array([[1, 5], [3, 4]]))]
        [[1, 4], [3, 5]]
    """
    # Along rows of three NumPy's loops are short: it takes 60 times longer without the transpose.
    columns = np.ascontiguousarray(rows.T)
    return columns.min(axis=1), columns.max(axis=1)
