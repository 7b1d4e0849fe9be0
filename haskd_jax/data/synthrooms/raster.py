"""A z-buffer for flat surfaces, in NumPy.

A ray r hits the plane `o + a u + b v` where `t r = o + a u + b v`. With (alpha, beta, gamma) =
[u v o]^-1 r this is t = 1 / gamma, a = alpha / gamma, b = beta / gamma, and all three are affine
in the pixel: the buffer is kept in gamma = 1 / depth, and nothing is divided before the end.
"""

from dataclasses import dataclass

import numpy as np

from haskd_jax.data.synthrooms.quads import Quads, turned

Array = np.ndarray
_NEAR = 0.05  # metres


@dataclass(frozen=True)
class Hits:
    """What each pixel sees.

    Attributes:
        quad: [H, W] int32 index of the surface, -1 none.
        depth: [H, W] float32 z-depth, metres, 0 none.
        a: [H, W] float32 place on the surface along `edge_u`, 0 to 1.
        b: [H, W] float32 place along `edge_v`.
    """

    quad: Array
    depth: Array
    a: Array
    b: Array


def rasterise(quads: Quads, camera_to_world: Array, k: Array, size: tuple[int, int]) -> Hits:
    """Finds the nearest surface of every pixel.

    Args:
        quads: The surfaces.
        camera_to_world: [4, 4]; the camera looks along +z, x right, y down.
        k: [3, 3] intrinsics; the centre of the first pixel is (0, 0).
        size: Width and height.

    Returns:
        What each pixel sees.

    Example:
        >>> from haskd_jax.data.synthrooms.quads import Piece
        >>> piece = Piece()
        >>> piece.rect((-1, -1, 2), (0, 2, 0), (2, 0, 0), 1, 0)
        >>> k = np.array([[2.0, 0, 1.5], [0, 2, 1], [0, 0, 1]])
        >>> rasterise(piece.quads(), np.eye(4), k, (4, 3)).depth[1].tolist()
        [0.0, 2.0, 2.0, 0.0]
    """
    width, height = size
    to_camera = camera_to_world[:3, :3].T
    origin = turned(quads.origin - camera_to_world[:3, 3], to_camera)
    u, v = turned(quads.edge_u, to_camera), turned(quads.edge_v, to_camera)
    basis = np.stack([u, v, origin], axis=2)
    volume = np.linalg.det(basis)  # negative: the camera is where `u x v` points
    nearest, box = _bounds(origin, u, v, k, size)
    visible = (volume < -1e-9) | (quads.both & (volume > 1e-9))
    visible &= (box[:, 0] < box[:, 1]) & (box[:, 2] < box[:, 3])
    index = np.flatnonzero(visible)
    index = index[np.argsort(-nearest[index], kind="stable")]
    affine = (np.linalg.inv(basis[index]) @ np.linalg.inv(k)).astype(np.float32)

    buffer = np.zeros((height, width), np.float32)
    winner = np.full((height, width), -1, np.int32)
    column = np.arange(width, dtype=np.float32)
    row = np.arange(height, dtype=np.float32)[:, None]
    for rank, (q, (x0, x1, y0, y1)) in enumerate(zip(index, box[index].tolist(), strict=True)):
        depth_buffer = buffer[y0:y1, x0:x1]
        if nearest[q] <= depth_buffer.min():
            continue  # hidden behind what is drawn already
        across = affine[rank, :, 0, None] * column[x0:x1] + affine[rank, :, 2, None]
        down = row[y0:y1] * affine[rank, :, 1]
        alpha, beta, gamma = (across[i] + down[:, i : i + 1] for i in range(3))
        inside = gamma > depth_buffer
        if quads.disc[q]:
            inside &= (2 * alpha - gamma) ** 2 + (2 * beta - gamma) ** 2 <= gamma**2
        else:
            inside &= (np.minimum(alpha, beta) >= 0) & (np.maximum(alpha, beta) <= gamma)
        np.copyto(depth_buffer, gamma, where=inside)
        np.copyto(winner[y0:y1, x0:x1], rank, where=inside)

    if not len(index):
        nothing = np.zeros_like(buffer)
        return Hits(winner, nothing, nothing, nothing)
    seen = winner >= 0
    depth = np.where(seen, 1 / np.where(seen, buffer, 1), 0).astype(np.float32)

    def place(parts: Array) -> Array:
        x, y, one = (np.take(part, winner) for part in parts)
        return (x * column + y * row + one) * depth

    a, b = (place(affine[:, i].T.copy()) for i in range(2))
    return Hits(np.where(seen, index[winner], -1).astype(np.int32), depth, a, b)


def _bounds(
    origin: Array, u: Array, v: Array, k: Array, size: tuple[int, int]
) -> tuple[Array, Array]:
    """The largest 1 / depth of each surface, and its box of pixels x0, x1, y0, y1."""
    corners = np.stack([origin, origin + u, origin + u + v, origin + v], axis=1)
    following = np.roll(corners, -1, axis=1)
    z, next_z = corners[..., 2], following[..., 2]
    crosses = (z > _NEAR) != (next_z > _NEAR)
    # Where an edge passes the near plane, the crossing stands for what lies behind it.
    share = np.where(crosses, (_NEAR - z) / np.where(crosses, next_z - z, 1), 0)
    points = np.concatenate([corners, corners + share[..., None] * (following - corners)], axis=1)
    valid = np.concatenate([z > _NEAR, crosses], axis=1)
    ahead = np.where(valid, points[..., 2], 1)
    box = np.empty((len(origin), 4), np.int64)
    for axis in range(2):
        pixel = k[axis, 0] * points[..., 0] + k[axis, 1] * points[..., 1]
        pixel = pixel / ahead + k[axis, 2]
        low = np.where(valid, pixel, np.inf).min(axis=1)
        high = np.where(valid, pixel, -np.inf).max(axis=1)
        box[:, 2 * axis] = np.ceil(low.clip(0, size[axis]))
        box[:, 2 * axis + 1] = np.floor(high.clip(-1, size[axis] - 1)) + 1
    nearest = np.where(valid, 1 / ahead, 0).max(axis=1)
    return nearest * (1 + 1e-5), box
