"""Augmentations that move points and cameras together: rigid motions, mirrors, scales."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64

from haskd_jax.data.scene import Array, Frames
from haskd_jax.data.transforms_sample import Sample, bounds

_AXES = ("x", "y", "z")
_LARGEST_DEPTH = np.iinfo(np.uint16).max


def check_probability(name: str, value: float) -> None:
    """Refuses what is no probability.

    Raises:
        ValueError: Names the argument and the value.

    Example:
        >>> check_probability("probability", 0.5)
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {value}, expected a number from 0 to 1")


def move(sample: Sample, linear: Float[Array, "3 3"], shift: Float[Array, " 3"]) -> Sample:
    """Moves points and cameras: x becomes linear @ x + shift.

    A scale s multiplies the depth images by s (to the millimetre; beyond 65.5 m unknown). A
    reflection cannot be the pose of a camera, which is a rotation and a shift; but the mirrored
    room looks exactly as the room does in mirrored images. So the images are turned left to right,
    the principal point with them, and the pose is followed by x -> -x in the camera. Every pixel
    sees the point that it saw before, and poses stay rigid.

    Args:
        sample: The sample, before `grid_sample`.
        linear: [3, 3], an orthogonal matrix times a positive scale.
        shift: [3], metres.

    Returns:
        The moved sample.

    Raises:
        ValueError: `linear` is something else, or the sample is on its voxel grid already.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> scene = Scene("room", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8),
        ...               np.eye(3, dtype=np.float32))
        >>> move(sample_of(scene), 2 * np.eye(3), np.zeros(3)).points[0].tolist()
        [2.0, 0.0, 0.0]
    """
    refuse_voxels(sample)
    linear = np.asarray(linear, np.float64)
    determinant = np.linalg.det(linear)
    scale = abs(determinant) ** (1 / 3)
    orthogonal = linear / scale if scale > 0 else linear
    if not np.allclose(orthogonal.T @ orthogonal, np.eye(3), atol=1e-6):
        raise ValueError(
            f"linear: {linear.tolist()} is not a rotation or reflection times a scale, which "
            "cameras cannot follow"
        )

    shift = np.asarray(shift, np.float64)
    points = _moved(sample.points, linear, shift)
    same = sample.surface is sample.points
    surface = points if same else _moved(sample.surface, linear, shift)
    frames = _move_frames(sample.frames, orthogonal, scale, shift, bool(determinant < 0))
    normals = sample.normals
    if not (orthogonal == np.eye(3)).all():
        normals = _moved(normals, orthogonal, np.zeros(3))
    return replace(sample, points=points, surface=surface, normals=normals, frames=frames)


def _moved(rows: Array, linear: Array, shift: Array) -> Array:
    """linear @ row + shift of every row, in float32.

    Column by column, as NumPy's loops along rows of three are short; without the products by zero,
    of which there are many. Not by BLAS, whose threads would fight with the loader's, and with
    training, over the cores.
    """
    columns = np.ascontiguousarray(rows.T)
    result = np.empty(rows.shape, np.float32)
    for i in range(3):
        total = np.full(len(rows), shift[i], np.float32)
        for factor, column in zip(linear[i].astype(np.float32), columns, strict=True):
            if factor != 0:
                total += factor * column
        result[:, i] = total
    return result


def _move_frames(frames: Frames, orthogonal, scale, shift, mirrored: bool) -> Frames:
    if not len(frames):
        return frames
    poses = frames.camera_to_world.astype(np.float64)
    rotation = orthogonal @ poses[:, :3, :3]
    poses[:, :3, 3] = scale * poses[:, :3, 3] @ orthogonal.T + shift
    colour, depth, label, k = frames.colour, frames.depth, frames.label, frames.intrinsics
    if mirrored:
        rotation = rotation * np.array([-1.0, 1, 1])
        colour, depth = colour[:, :, ::-1], depth[:, :, ::-1]
        label = None if label is None else label[:, :, ::-1]
        k = k.copy()
        k[:, 0, 1] *= -1
        k[:, 0, 2] = colour.shape[2] - 1 - k[:, 0, 2]
    poses[:, :3, :3] = rotation
    if abs(scale - 1) > 1e-9:
        scaled = np.rint(depth * np.float32(scale))
        depth = np.where(scaled > _LARGEST_DEPTH, 0, scaled).astype(np.uint16)
    return replace(
        frames,
        colour=colour,
        depth=depth,
        label=label,
        intrinsics=k,
        camera_to_world=poses.astype(np.float32),
    )


def centre_shift(sample: Sample, rng: np.random.Generator | None = None) -> Sample:
    """Puts the middle of the bounding box at x = y = 0 and its lowest point at z = 0.

    Args:
        sample: The sample.
        rng: Not used; there so that every transform is called alike.

    Returns:
        The shifted sample.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> points = np.array([[1, 1, 1], [3, 5, 9]], np.float32)
        >>> scene = Scene("room", points, np.zeros((2, 3), np.uint8), np.zeros_like(points))
        >>> centre_shift(sample_of(scene)).points.tolist()
        [[-1.0, -2.0, 0.0], [1.0, 2.0, 8.0]]
    """
    low, high = bounds(sample.points)
    centre = (low.astype(np.float64) + high) / 2
    return move(sample, np.eye(3), -np.array([centre[0], centre[1], low[2]]))


def rotate(
    sample: Sample,
    rng: np.random.Generator,
    *,
    axis: str = "z",
    largest: float = np.pi,
    probability: float = 0.5,
) -> Sample:
    """Turns the scene about an axis through the origin by an angle drawn evenly.

    Args:
        sample: The sample, centred (see `centre_shift`).
        rng: Draws.
        axis: "x", "y" or "z".
        largest: The angle lies within plus and minus this, radians. The recipes have pi about z,
            pi / 64 about x and y.
        probability: Of turning at all.

    Returns:
        The turned sample.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> scene = Scene("room", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8),
        ...               np.eye(3, dtype=np.float32))
        >>> turned = rotate(sample_of(scene), np.random.default_rng(0), probability=1.0)
        >>> turned.points[2].tolist()
        [0.0, 0.0, 1.0]
    """
    check_probability("probability", probability)
    if rng.random() >= probability:
        return sample
    return move(sample, rotation(axis, rng.uniform(-largest, largest)), np.zeros(3))


def rotation(axis: str, angle: float) -> Float64[Array, "3 3"]:
    """The matrix that turns about an axis.

    Args:
        axis: "x", "y" or "z".
        angle: Radians, by the right-hand rule.

    Returns:
        [3, 3] float64.

    Example:
        >>> (rotation("z", np.pi / 2) @ [1, 0, 0]).round().tolist()
        [0.0, 1.0, 0.0]
    """
    if axis not in _AXES:
        raise ValueError(f"axis: {axis!r}, expected one of {_AXES}")
    i = _AXES.index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = np.eye(3)
    matrix[j, j] = matrix[k, k] = np.cos(angle)
    matrix[k, j] = np.sin(angle)
    matrix[j, k] = -matrix[k, j]
    return matrix


def scale(
    sample: Sample, rng: np.random.Generator, *, low: float = 0.9, high: float = 1.1
) -> Sample:
    """Makes the scene larger or smaller by a factor drawn evenly.

    Args:
        sample: The sample.
        rng: Draws.
        low: Smallest factor, above 0.
        high: Largest factor.

    Returns:
        The scaled sample.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> scene = Scene("room", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8),
        ...               np.eye(3, dtype=np.float32))
        >>> scale(sample_of(scene), np.random.default_rng(0), low=3.0, high=3.0).points[0].tolist()
        [3.0, 0.0, 0.0]
    """
    if not 0 < low <= high:
        raise ValueError(f"low: {low} with high {high}, expected 0 < low <= high")
    return move(sample, rng.uniform(low, high) * np.eye(3), np.zeros(3))


def flip(sample: Sample, rng: np.random.Generator, *, probability: float = 0.5) -> Sample:
    """Mirrors x and, independently, y.

    Args:
        sample: The sample.
        rng: Draws.
        probability: Of each of the two.

    Returns:
        The mirrored sample; see `move` for what becomes of the frames.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> scene = Scene("room", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8),
        ...               np.eye(3, dtype=np.float32))
        >>> flipped = flip(sample_of(scene), np.random.default_rng(0), probability=1.0)
        >>> flipped.points.diagonal().tolist()
        [-1.0, -1.0, 1.0]
    """
    check_probability("probability", probability)
    signs = np.where(rng.random(2) < probability, -1.0, 1.0)
    if (signs > 0).all():
        return sample
    return move(sample, np.diag([*signs, 1.0]), np.zeros(3))


def refuse_voxels(sample: Sample) -> None:
    """Refuses to move points whose voxels have been fixed.

    Raises:
        ValueError: Names the scene.
    """
    if sample.voxels is not None:
        raise ValueError(
            f"sample: {sample.name} is on its voxel grid already: move points before grid_sample"
        )
