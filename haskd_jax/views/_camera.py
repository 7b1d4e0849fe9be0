"""Pinhole cameras."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from haskd_jax.views._arguments import RIGID_TOLERANCE, check_cameras, check_shape, to_f32


def project(
    points: Float[ArrayLike, "V 3"],
    intrinsics: Float[ArrayLike, "3 3"],
    camera_to_world: Float[ArrayLike, "4 4"],
) -> tuple[Float[Array, "V 2"], Float[Array, " V"]]:
    """Where one camera sees points, whatever stands between; `jax.vmap` makes it several cameras.

    Args:
        points: [V, 3] in the world.
        intrinsics: [3, 3] in pixels of the image that the result is looked up in.
        camera_to_world: [4, 4] rigid pose.

    Returns:
        [V, 2] column and row in pixels, and [V] depth along the camera's axis, both f32. Points not
        in front of the camera, and all points of a camera that is not valid, have depth 0 and the
        pixel (-1, -1), which lies outside of every image.

    Raises:
        ValueError: for shapes that disagree, singular intrinsics, a finite pose that is not rigid.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> intrinsics = jnp.array([[100.0, 0.0, 31.5], [0.0, 100.0, 23.5], [0.0, 0.0, 1.0]])
        >>> uv, depth = views.project(jnp.array([[0.1, 0.0, 2.0]]), intrinsics, jnp.eye(4))
        >>> print(uv, depth)
        [[36.5 23.5]] [2.]
    """
    check_shape("points", points, (None, 3))
    check_shape("intrinsics", intrinsics, (3, 3))
    check_shape("camera_to_world", camera_to_world, (4, 4))
    check_cameras(intrinsics, camera_to_world)
    return _project(*to_f32(points, intrinsics, camera_to_world))


@jax.jit
def _project(points, intrinsics, camera_to_world):
    valid = valid_cameras(intrinsics[None], camera_to_world[None])[0]
    camera_to_world = jnp.where(valid, camera_to_world, jnp.eye(4, dtype=jnp.float32))
    column, row, depth = project_rows(points.T, intrinsics, camera_to_world)
    in_front = valid & (depth > 0)
    uv = jnp.where(in_front[:, None], jnp.stack([column, row], axis=-1), -1.0)
    return uv, jnp.where(in_front, depth, 0.0)


def project_rows(
    points: Float[Array, "3 V"],
    intrinsics: Float[Array, "3 3"],
    camera_to_world: Float[Array, "4 4"],
) -> tuple[Float[Array, " V"], Float[Array, " V"], Float[Array, " V"]]:
    """Column, row and depth of points; column and row mean nothing where depth is not positive."""
    # Spelled out, because matrix products are rounded to bfloat16 on TPU and to TF32 on GPU unless
    # told otherwise, which is several pixels.
    rotation = camera_to_world[:3, :3]
    x, y, z = (points[i] - camera_to_world[i, 3] for i in range(3))
    x, y, z = (rotation[0, i] * x + rotation[1, i] * y + rotation[2, i] * z for i in range(3))
    inverse = 1.0 / jnp.where(z > 0, z, 1.0)
    column = (intrinsics[0, 0] * x + intrinsics[0, 1] * y) * inverse + intrinsics[0, 2]
    row = intrinsics[1, 1] * y * inverse + intrinsics[1, 2]
    return column, row, z


def valid_cameras(
    intrinsics: Float[ArrayLike, "F 3 3"], camera_to_world: Float[ArrayLike, "F 4 4"]
) -> Bool[Array, " F"]:
    """Which cameras see at all: all numbers finite, focal lengths positive, the pose rigid.

    Every other function lets a camera that is not valid see nothing. ScanNet writes poses of inf or
    NaN where tracking was lost; `(~valid_cameras(...)).sum()` counts such frames.

    Args:
        intrinsics: [F, 3, 3].
        camera_to_world: [F, 4, 4].

    Returns:
        [F] bool.

    Raises:
        ValueError: for shapes that disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> poses = jnp.stack([jnp.eye(4), jnp.full((4, 4), jnp.inf)])
        >>> print(views.valid_cameras(jnp.stack([jnp.eye(3), jnp.eye(3)]), poses))
        [ True False]
    """
    check_shape("intrinsics", intrinsics, (None, 3, 3))
    check_shape("camera_to_world", camera_to_world, (np.shape(intrinsics)[0], 4, 4))
    return _valid_cameras(*to_f32(intrinsics, camera_to_world))


@jax.jit
def _valid_cameras(intrinsics, pose):
    finite = jnp.isfinite(intrinsics).all((1, 2)) & jnp.isfinite(pose).all((1, 2))
    pose = jnp.where(finite[:, None, None], pose, 0.0)

    def near(values, wanted):
        return (jnp.abs(values - jnp.asarray(wanted, jnp.float32)) <= RIGID_TOLERANCE).all(-1)

    x, y, z = (pose[:, :3, i] for i in range(3))
    lengths = jnp.stack([(axis * axis).sum(-1) for axis in (x, y, z)], axis=-1)
    angles = jnp.stack([(x * y).sum(-1), (y * z).sum(-1), (z * x).sum(-1)], axis=-1)
    rigid = (
        near(lengths, [[1, 1, 1]]) & near(angles, [[0, 0, 0]]) & near(pose[:, 3], [[0, 0, 0, 1]])
    )
    right_handed = (jnp.cross(x, y) * z).sum(-1) > 0
    focal = (intrinsics[:, 0, 0] > 0) & (intrinsics[:, 1, 1] > 0) & (intrinsics[:, 1, 0] == 0)
    pinhole = (intrinsics[:, 2] == jnp.array([[0, 0, 1]], jnp.float32)).all(-1)
    return finite & rigid & right_handed & focal & pinhole


def scale_intrinsics(
    intrinsics: Float[ArrayLike, "*F 3 3"], from_size: tuple[int, int], to_size: tuple[int, int]
) -> Float[Array, "*F 3 3"]:
    """Intrinsics for a resized image, in the convention that is usual with ScanNet.

    The focal length scales by new / old, and the centre, since the centres of pixels lie at
    integers, by (new - 1) / (old - 1).

    Args:
        intrinsics: [..., 3, 3] for images of `from_size`.
        from_size: (height, width) of the images that `intrinsics` are for.
        to_size: (height, width) of the images to look into.

    Returns:
        [..., 3, 3] f32 for images of `to_size`.

    Raises:
        ValueError: for a size below 2 pixels.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> intrinsics = jnp.array([[1000.0, 0.0, 639.5], [0.0, 1000.0, 479.5], [0.0, 0.0, 1.0]])
        >>> print(views.scale_intrinsics(intrinsics, (960, 1280), (240, 320)))
        [[250.    0.  159.5]
         [  0.  250.  119.5]
         [  0.    0.    1. ]]

    References:
        Hu et al., Bidirectional Projection Network for Cross Dimension Scene Understanding, CVPR
        2021 (https://arxiv.org/abs/2103.14326), whose code scales so.
    """
    intrinsics = jnp.asarray(intrinsics, jnp.float32)
    check_shape("intrinsics", intrinsics, (*intrinsics.shape[:-2], 3, 3))
    for name, size in (("from_size", from_size), ("to_size", to_size)):
        if len(size) != 2 or min(size) < 2:
            raise ValueError(
                f"{name} is {size}, expected (height, width) of at least 2 pixels each"
            )
    (old_height, old_width), (height, width) = from_size, to_size
    focal_x, focal_y = width / old_width, height / old_height
    centre_x, centre_y = (width - 1) / (old_width - 1), (height - 1) / (old_height - 1)
    factors = [[focal_x, focal_x, centre_x], [1, focal_y, centre_y], [1, 1, 1]]
    return intrinsics * jnp.broadcast_to(jnp.array(factors, jnp.float32), intrinsics.shape)
