"""Pinhole cameras: points to pixels and back.

A camera looks along +z, x right, y down; the centre of the first pixel is (0, 0).
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Num, Shaped

Array = np.ndarray


def unproject(
    column: Num[Array, " P"],
    row: Num[Array, " P"],
    depth: Float[Array, " P"],
    k: Float[Array, "3 3"],
    camera_to_world: Float[Array, "4 4"],
) -> Float64[Array, "P 3"]:
    """Pixels with depth to points in the world.

    Args:
        column: [P], pixels from the left.
        row: [P], pixels from the top.
        depth: [P] z-depth, metres.
        k: [3, 3] intrinsics.
        camera_to_world: [4, 4].

    Returns:
        [P, 3] float64, metres.

    Example:
        >>> unproject(np.array([1]), np.array([0]), np.array([2.0]), np.eye(3), np.eye(4)).tolist()
        [[2.0, 0.0, 2.0]]
    """
    k = np.asarray(k, np.float64)
    x = (column - k[0, 2]) / k[0, 0] * depth
    y = (row - k[1, 2]) / k[1, 1] * depth
    camera = np.stack([x, y, depth], axis=1)
    pose = np.asarray(camera_to_world, np.float64)
    return camera @ pose[:3, :3].T + pose[:3, 3]


def project(
    points: Float[Array, "N 3"], k: Float[Array, "3 3"], camera_to_world: Float[Array, "4 4"]
) -> tuple[Float64[Array, " N"], Float64[Array, " N"], Float64[Array, " N"]]:
    """Points in the world to pixels.

    Args:
        points: [N, 3], metres.
        k: [3, 3] intrinsics.
        camera_to_world: [4, 4], a rigid motion.

    Returns:
        Column [N], row [N] (float64, NaN behind the camera) and z-depth [N] in metres.

    Example:
        >>> [v.tolist() for v in project(np.array([[2.0, 0, 2]]), np.eye(3), np.eye(4))]
        [[1.0], [0.0], [2.0]]
    """
    k = np.asarray(k, np.float64)
    pose = np.asarray(camera_to_world, np.float64)
    camera = (points - pose[:3, 3]) @ pose[:3, :3]
    z = camera[:, 2]
    ahead = np.where(z > 1e-6, z, np.nan)
    return k[0, 0] * camera[:, 0] / ahead + k[0, 2], k[1, 1] * camera[:, 1] / ahead + k[1, 2], z


def look_up(
    image: Shaped[Array, "H W ..."], column: Float[Array, " N"], row: Float[Array, " N"]
) -> tuple[Shaped[Array, "N ..."], Bool[Array, " N"]]:
    """The pixel nearest to each position.

    Args:
        image: [H, W, ...].
        column: [N] float, NaN for none.
        row: [N] float.

    Returns:
        [N, ...], zero outside the image; and [N] bool, whether it is inside.

    Example:
        >>> [v.tolist() for v in look_up(np.array([[7, 8]]), np.array([0.6, np.nan]), np.zeros(2))]
        [[8, 0], [True, False]]
    """
    height, width = image.shape[:2]
    inside = (column > -0.5) & (column < width - 0.5) & (row > -0.5) & (row < height - 0.5)
    picked = np.zeros((len(column), *image.shape[2:]), image.dtype)
    u = np.rint(column[inside]).astype(np.int64).clip(0, width - 1)
    v = np.rint(row[inside]).astype(np.int64).clip(0, height - 1)
    picked[inside] = image[v, u]
    return picked, inside
