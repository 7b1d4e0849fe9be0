"""Mix3D: two scenes in one place."""

from dataclasses import replace

import numpy as np

from haskd_jax.data.scene import Array, Frames
from haskd_jax.data.transforms_crop import one_per_voxel
from haskd_jax.data.transforms_geometry import move
from haskd_jax.data.transforms_sample import Sample, bounds


def mix3d(one: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """Puts two scenes over each other (Nekrasov et al., 3DV 2021).

    Context stops being a shortcut: a bath tub beside a sofa is still one. Both are centred first,
    by whole voxels. Where both fill a voxel, one point is kept, a labelled one before one without
    label. The cameras of each go along with it, and `part` and `frame_part` say which frames show
    which points, as long as the two samples have different parts.

    Args:
        one: A sample of one point a voxel.
        other: Another, with voxels of the same size.
        rng: Draws which point is kept.

    Returns:
        The mixed sample.

    Raises:
        ValueError: They do not fit together.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import grid_sample, sample_of
        >>> rng = np.random.default_rng(0)
        >>> points = np.array([[0, 0, 0], [1, 1, 1]], np.float32)
        >>> scene = Scene("room", points, np.zeros((2, 3), np.uint8), points)
        >>> one, other = (grid_sample(sample_of(scene, part=i), rng) for i in range(2))
        >>> len(mix3d(one, other, rng).points)
        2
    """
    if one.voxels is None or one.voxel_size is None or one.voxel_size != other.voxel_size:
        raise ValueError(
            f"other: {one.name} has voxels of {one.voxel_size} m, {other.name} of "
            f"{other.voxel_size} m; both must have gone through the same grid_sample"
        )
    one, other = centre_by_voxels(one), centre_by_voxels(other)

    def rows(name: str) -> Array:
        return np.concatenate([getattr(one, name), getattr(other, name)])

    both = Sample(
        name=f"{one.name}+{other.name}",
        points=rows("points"),
        colour=rows("colour"),
        normals=rows("normals"),
        label=_optional(one.label, other.label, len(one.points), len(other.points)),
        instance=_instances(one, other),
        frames=_join_frames(one, other),
        surface=rows("surface"),
        part=rows("part"),
        row=rows("row"),
        frame_part=rows("frame_part"),
        voxels=rows("voxels"),
        voxel_size=one.voxel_size,
    )
    return one_per_voxel(both, rng)


def centre_by_voxels(sample: Sample) -> Sample:
    """Shifts a sample by whole voxels along x and y, so that its bounding box lies in the middle.

    Args:
        sample: A sample of one point a voxel.

    Returns:
        The shifted sample: points, surface, cameras and voxels.

    Raises:
        ValueError: The sample has no voxels.
    """
    voxels, size = sample.voxels, sample.voxel_size
    if voxels is None or size is None:
        raise ValueError(f"sample: {sample.name} has no voxels: grid_sample first")
    low, high = bounds(voxels)
    steps = (low + high + 1) // 2
    steps[2] = 0
    free = replace(sample, voxels=None, voxel_size=None)
    shifted = move(free, np.eye(3), -steps * size)
    return replace(shifted, voxels=voxels - steps.astype(np.int32), voxel_size=size)


def _optional(one: Array | None, other: Array | None, rows: int, others: int) -> Array | None:
    """Both arrays, -1 for the one that is missing; None where both are."""
    if one is None and other is None:
        return None
    given = one if one is not None else other
    assert given is not None
    parts = [
        np.full((count, *given.shape[1:]), -1, given.dtype) if array is None else array
        for array, count in ((one, rows), (other, others))
    ]
    return np.concatenate(parts)


def _instances(one: Sample, other: Sample) -> Array | None:
    second = other.instance
    if one.instance is not None and second is not None:
        second = np.where(second < 0, -1, second + one.instance.max() + 1).astype(np.int32)
    return _optional(one.instance, second, len(one.points), len(other.points))


def _join_frames(one: Sample, other: Sample) -> Frames:
    a, b = one.frames, other.frames
    if not len(a) or not len(b):
        return a if len(a) else b
    if a.colour.shape != (len(a), *b.colour.shape[1:]):
        raise ValueError(
            f"frames: {one.name} has {a.colour.shape[1:3]} pixels, {other.name} "
            f"{b.colour.shape[1:3]}: prepare both with one image size"
        )
    return Frames(
        names=a.names + b.names,
        colour=np.concatenate([a.colour, b.colour]),
        depth=np.concatenate([a.depth, b.depth]),
        intrinsics=np.concatenate([a.intrinsics, b.intrinsics]),
        camera_to_world=np.concatenate([a.camera_to_world, b.camera_to_world]),
        label=_optional(a.label, b.label, len(a), len(b)),
    )
