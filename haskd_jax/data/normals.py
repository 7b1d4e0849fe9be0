"""Normals of a cloud: from its mesh where there is one, from neighbours elsewhere."""

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.spatial import cKDTree

Array = np.ndarray

NEIGHBOURS = 24
_CHUNK = 65536


def estimate_normals(
    points: Float[Array, "N 3"], toward: Float[Array, "N 3"], *, at: Int[Array, " M"] | None = None
) -> Float32[Array, "M 3"]:
    """Normals as the direction of least spread of the nearest neighbours.

    The plane through the `NEIGHBOURS` nearest points, in the least-squares sense (Hoppe et al.,
    "Surface reconstruction from unorganized points", SIGGRAPH 1992), turned to the side that
    `toward` points to.

    Args:
        points: [N, 3] float, metres.
        toward: [N, 3] float, for each point a vector to the side from which it was seen.
        at: [M] int, the points whose normals are wanted; all by default.

    Returns:
        [M, 3] float32, unit length.

    Example:
        >>> floor = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), [0.0]), -1).reshape(-1, 3)
        >>> normals = estimate_normals(floor, np.broadcast_to([0.0, 0, 1], floor.shape))
        >>> np.allclose(normals, [0, 0, 1])
        True
    """
    if at is None:
        at = np.arange(len(points))
    neighbours = min(NEIGHBOURS, len(points))
    # In the order of the tree's leaves, neighbours are near in memory as well: twice as fast.
    order = cKDTree(points).indices
    places = np.asarray(points, np.float64)[order]
    tree = cKDTree(places)
    wanted = np.zeros(len(points), bool)
    wanted[at] = True
    rows = np.flatnonzero(wanted[order])
    found = np.empty((len(points), 3), np.float32)
    for begin in range(0, len(rows), _CHUNK):
        chosen = rows[begin : begin + _CHUNK]
        _, near = tree.query(places[chosen], neighbours)
        cluster = np.take(places, near.reshape(len(chosen), neighbours), axis=0)
        cluster -= places[chosen, None]  # small numbers, whose squares lose nothing
        total = cluster.sum(axis=1)
        spread = np.swapaxes(cluster, 1, 2) @ cluster
        spread -= total[:, :, None] * total[:, None] / neighbours
        normal = np.linalg.eigh(spread)[1][:, :, 0]
        away = np.einsum("ni,ni->n", normal, toward[order[chosen]]) < 0
        found[order[chosen]] = np.where(away[:, None], -normal, normal)
    return found[at]


def mesh_normals(points: Float[Array, "N 3"], faces: Int[Array, "T 3"]) -> Float32[Array, "N 3"]:
    """Vertex normals: the sum of the normals of the faces around, weighted by their area.

    Args:
        points: [N, 3] float, metres.
        faces: [T, 3] int, vertex indices, counter-clockwise seen from outside.

    Returns:
        [N, 3] float32, unit length; zero at vertices of no face.

    Example:
        >>> mesh_normals(np.eye(3), np.array([[0, 1, 2]])).round(3).tolist()[0]
        [0.5770000219345093, 0.5770000219345093, 0.5770000219345093]
    """
    corner = points.astype(np.float64)[faces]
    face = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    summed = np.stack(
        [
            np.bincount(faces.ravel(), np.repeat(face[:, axis], 3), minlength=len(points))
            for axis in range(3)
        ],
        axis=1,
    )
    return unit(summed)


def unit(vectors: Float[Array, "N 3"]) -> Float32[Array, "N 3"]:
    """Vectors of length one; zero where the length is zero or not finite.

    Args:
        vectors: [N, 3] float.

    Returns:
        [N, 3] float32.

    Example:
        >>> unit(np.array([[0.0, 3.0, 4.0], [0.0, 0.0, 0.0]])).round(2).tolist()
        [[0.0, 0.6000000238418579, 0.800000011920929], [0.0, 0.0, 0.0]]
    """
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.isfinite(length) & (length > 0)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=known).astype(np.float32)


def toward_cameras(
    points: Float[Array, "N 3"], cameras: Float[Array, "F 3"]
) -> Float[Array, "N 3"]:
    """For each point the vector to the nearest camera.

    Args:
        points: [N, 3] float, metres.
        cameras: [F, 3] float, the cameras' positions.

    Returns:
        [N, 3] float.

    Example:
        >>> toward_cameras(np.zeros((1, 3)), np.array([[0.0, 0, 2], [9, 9, 9]])).tolist()
        [[0.0, 0.0, 2.0]]
    """
    return cameras[cKDTree(cameras).query(points)[1]] - points


def toward_centre(points: Float[Array, "N 3"]) -> Float[Array, "N 3"]:
    """For each point the vector to the middle of the cloud's box: rooms are seen from within.

    Args:
        points: [N, 3] float, metres.

    Returns:
        [N, 3] float.

    Example:
        >>> toward_centre(np.array([[0.0, 0, 0], [2, 2, 2]])).tolist()
        [[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]
    """
    return (points.min(axis=0) + points.max(axis=0)) / 2 - points
