"""Which frame sees which voxel, and at which pixel."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32, ScalarLike

from haskd_jax.views._arguments import (
    check_cameras,
    check_positive,
    check_range,
    check_shape,
    to_f32,
    to_mask,
)
from haskd_jax.views._camera import project_rows, valid_cameras


class VoxelPixels(NamedTuple):
    """Where K frames see V voxels.

    Attributes:
        pixel: [K, V] i32, row * width + column in a feature map; -1: unseen, nothing to read.
        depth: [K, V] f32, along the camera's axis; 0 where unseen.
        cosine: [K, V] f32 in [0, 1], 1 where seen straight on; 0 where unseen.
    """

    pixel: Int32[Array, "K V"]
    depth: Float[Array, "K V"]
    cosine: Float[Array, "K V"]


def visibility(
    points: Float[ArrayLike, "V 3"],
    depth: Float[ArrayLike, "F H W"],
    intrinsics: Float[ArrayLike, "F 3 3"],
    camera_to_world: Float[ArrayLike, "F 4 4"],
    *,
    tolerance: ScalarLike,
    mask: Bool[ArrayLike, " V"] | None = None,
) -> Bool[Array, "F V"]:
    """Which frame sees which point: in the image, in front of the camera, and not hidden.

    A point counts as hidden unless its depth agrees with the depth map at the nearest pixel. Works
    on one frame at a time: beyond the result, one byte a pair, memory does not grow with F.

    Args:
        points: [V, 3] in the world, such as the centres of voxels.
        depth: [F, H, W] along the camera's axis, in the unit of `points`; 0 or NaN: unknown.
        intrinsics: [F, 3, 3] for images of H x W; see `scale_intrinsics`.
        camera_to_world: [F, 4, 4] rigid poses. A frame whose pose has inf or NaN (tracking lost, or
            padding) sees nothing.
        tolerance: by how much the two depths may differ; about one voxel.
        mask: [V] False for padding, which nothing sees.

    Returns:
        [F, V] bool.

    Raises:
        ValueError: for shapes that disagree, singular intrinsics, finite poses that are not rigid,
            a tolerance that is not positive. Under `jax.jit`, such frames see nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> intrinsics = jnp.array([[[4.0, 0.0, 1.5], [0.0, 4.0, 1.5], [0.0, 0.0, 1.0]]])
        >>> depth = jnp.full((1, 4, 4), 2.0)  # a wall
        >>> on, behind, at_our_back = [0.0, 0.0, 2.0], [0.0, 0.0, 3.0], [0.0, 0.0, -2.0]
        >>> points = jnp.array([on, behind, at_our_back])
        >>> print(views.visibility(points, depth, intrinsics, jnp.eye(4)[None], tolerance=0.05))
        [[ True False False]]
    """
    mask = _check(points, depth, intrinsics, camera_to_world, tolerance, mask)
    return _visibility(*to_f32(points, depth, intrinsics, camera_to_world, tolerance), mask)


@jax.jit
def _visibility(points, depth, intrinsics, camera_to_world, tolerance, mask):
    rows = points.T

    def one_frame(frame):
        depth, intrinsics, camera_to_world, valid = frame
        pixel, z = _nearest_pixels(rows, intrinsics, camera_to_world, valid, depth.shape)
        # The condition skips frames that see nothing. It also keeps XLA:CPU from fusing projection,
        # gather and the write into one scalar loop on one thread: 4 times slower on two cores.
        return lax.cond(
            valid,
            lambda: mask & _agrees(depth, pixel, z, tolerance),
            lambda: jnp.zeros_like(mask),
        )

    valid = valid_cameras(intrinsics, camera_to_world)
    return lax.map(one_frame, (depth, intrinsics, camera_to_world, valid))


def voxel_to_pixel(
    points: Float[ArrayLike, "V 3"],
    depth: Float[ArrayLike, "F H W"],
    intrinsics: Float[ArrayLike, "F 3 3"],
    camera_to_world: Float[ArrayLike, "F 4 4"],
    indices: Int[ArrayLike, " K"],
    *,
    tolerance: ScalarLike,
    stride: int = 1,
    normals: Float[ArrayLike, "V 3"] | None = None,
    mask: Bool[ArrayLike, " V"] | None = None,
) -> VoxelPixels:
    """Where the selected frames see the voxels: the map by which a teacher fetches image features.

    Args:
        points: [V, 3] in the world, such as the centres of voxels.
        depth: [F, H, W] of all frames, as for `visibility`.
        intrinsics: [F, 3, 3] of all frames, for images of H x W.
        camera_to_world: [F, 4, 4] of all frames.
        indices: [K] the frames to look into, as `select_views` returns them; -1: none.
        tolerance: as for `visibility`. A voxel has a pixel exactly where `visibility` is True.
        stride: of the feature map to index, which has ceil(H / stride) x ceil(W / stride) pixels.
        normals: [V, 3] unit normals, of either sign. With them, `cosine` is of the angle between
            ray and normal; without, between ray and the camera's axis.
        mask: [V] False for padding.

    Returns:
        `VoxelPixels`: pixel, depth and cosine, [K, V] each.

    Raises:
        ValueError: as `visibility`; for a stride below 1 and indices outside of [-1, F). Under
            `jax.jit`, such an index is no frame.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> intrinsics = jnp.array([[[4.0, 0.0, 1.5], [0.0, 4.0, 1.5], [0.0, 0.0, 1.0]]])
        >>> points = jnp.array([[0.1, 0.1, 2.0], [0.0, 0.0, 3.0]])
        >>> scene = points, jnp.full((1, 4, 4), 2.0), intrinsics, jnp.eye(4)[None]
        >>> seen = views.voxel_to_pixel(*scene, jnp.array([0, -1]), tolerance=0.05, stride=2)
        >>> print(seen.pixel)  # one voxel is behind the wall, and there is no second frame
        [[ 3 -1]
         [-1 -1]]
    """
    mask = _check(points, depth, intrinsics, camera_to_world, tolerance, mask)
    check_shape("indices", indices, (None,))
    check_range("indices", indices, -1, np.shape(depth)[0] - 1)
    if stride < 1:
        raise ValueError(f"stride is {stride}, expected at least 1")
    if normals is not None:
        check_shape("normals", normals, (np.shape(points)[0], 3))
        (normals,) = to_f32(normals)
    points, depth, intrinsics, camera_to_world, tolerance = to_f32(
        points, depth, intrinsics, camera_to_world, tolerance
    )
    indices = jnp.asarray(indices, jnp.int32)
    frames = jnp.clip(indices, 0, len(depth) - 1)
    cameras = depth[frames], intrinsics[frames], camera_to_world[frames]
    return _voxel_to_pixel(
        points, *cameras, indices == frames, tolerance, normals, mask, stride=stride
    )


@partial(jax.jit, static_argnames="stride")
def _voxel_to_pixel(
    points, depth, intrinsics, camera_to_world, exists, tolerance, normals, mask, *, stride
):
    def one_frame(frame):
        depth, intrinsics, camera_to_world, valid = frame
        pixel, z = _nearest_pixels(points.T, intrinsics, camera_to_world, valid, depth.shape)
        seen = valid & mask & _agrees(depth, pixel, z, tolerance)
        row, column = jnp.divmod(pixel, depth.shape[1])
        width = -(-depth.shape[1] // stride)
        pixel = row // stride * width + column // stride
        rays = points - camera_to_world[None, :3, 3]
        length = jnp.sqrt(jnp.where(seen, (rays * rays).sum(-1), 1.0))
        along = z if normals is None else jnp.abs((rays * normals).sum(-1))
        cosine = jnp.minimum(along / length, 1.0)
        return VoxelPixels(
            jnp.where(seen, pixel, -1), jnp.where(seen, z, 0.0), jnp.where(seen, cosine, 0.0)
        )

    valid = exists & valid_cameras(intrinsics, camera_to_world)
    return lax.map(one_frame, (depth, intrinsics, camera_to_world, valid))


def _nearest_pixels(rows, intrinsics, camera_to_world, valid, size):
    """The pixel nearest to each point, -1 if it is not in the image; and the point's depth."""
    height, width = size
    # A pose that is lost must not put NaN into the arithmetic.
    camera_to_world = jnp.where(valid, camera_to_world, jnp.eye(4, dtype=jnp.float32))
    intrinsics = jnp.where(valid, intrinsics, jnp.eye(3, dtype=jnp.float32))
    column, row, z = project_rows(rows, intrinsics, camera_to_world)
    column, row = jnp.floor(column + 0.5), jnp.floor(row + 0.5)
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    # What lies outside need not fit into an integer: masked before it becomes one.
    column, row = (jnp.where(inside, x, 0.0).astype(jnp.int32) for x in (column, row))
    return jnp.where(inside, row * width + column, -1), z


def _agrees(depth, pixel, z, tolerance):
    """Whether the depth map confirms depth z at the pixel; not at pixel -1, nor without depth."""
    measured = depth.reshape(-1).at[jnp.maximum(pixel, 0)].get(mode="promise_in_bounds")
    return (pixel >= 0) & (measured > 0) & (jnp.abs(measured - z) <= tolerance)


def _check(points, depth, intrinsics, camera_to_world, tolerance, mask):
    """Refuses what does not fit; returns the mask of points that count."""
    check_shape("points", points, (None, 3))
    check_shape("depth", depth, (None, None, None))
    check_shape("intrinsics", intrinsics, (len(depth), 3, 3))
    check_shape("camera_to_world", camera_to_world, (len(depth), 4, 4))
    check_shape("tolerance", tolerance, ())
    check_cameras(intrinsics, camera_to_world)
    check_positive("tolerance", tolerance)
    return to_mask("mask", mask, (len(points),))
