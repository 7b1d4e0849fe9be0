"""Exact k nearest neighbours on the host, by a k-d tree or by KeOps."""

import numpy as np
from jaxtyping import Float, Float32, Int32

_MAX_CANDIDATES = 2**22  # in memory at a time: some 300 MiB


def knn(
    queries: Float[np.ndarray, "M 3"],
    points: Float[np.ndarray, "N 3"],
    k: int,
    *,
    backend: str | None = None,
) -> tuple[Int32[np.ndarray, "M k"], Float32[np.ndarray, "M k"]]:
    """Exact k nearest neighbours.

    Args:
      queries: `[M, 3]` float.
      points: `[N, 3]` float.
      k: neighbours of each query, at most N.
      backend: "tree", SciPy's k-d tree; "keops", brute force by pykeops' LazyTensor, which compiles
        its formula at the first call and wins on hosts with a GPU. None: KeOps where it finds a
        GPU, the tree elsewhere.

    Returns:
      Rows of `points`, `[M, k]` int32, and Euclidean distances, `[M, k]` float32, nearest first;
      among equally near ones the lower row first.

    Raises:
      ValueError: for wrong shapes, values that are not finite, k outside 1..N, an unknown backend.

    Example:
      >>> points = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]])
      >>> rows, distances = knn(np.array([[0.9, 0, 0]]), points, 2)
      >>> rows.tolist(), distances.round(3).tolist()
      ([[1, 0]], [[0.10000000149011612, 0.8999999761581421]])
    """
    queries, points = np.asarray(queries), np.asarray(points)
    for name, array in (("queries", queries), ("points", points)):
        if array.ndim != 2 or array.shape[1] != 3:
            raise ValueError(f"{name} has shape {list(array.shape)}: must be [N, 3]")
        if not np.isfinite(array).all():
            row = int(np.argmin(np.isfinite(array).all(axis=1)))
            raise ValueError(f"{name}[{row}]={array[row].tolist()}: must be finite")
    if not isinstance(k, (int, np.integer)) or not 1 <= k <= len(points):
        raise ValueError(f"k={k}: must be between 1 and the number of points, {len(points)}")
    if backend not in (None, "tree", "keops"):
        raise ValueError(f'backend={backend!r}: must be "tree", "keops" or None')
    if backend is None:
        backend = "keops" if _keops_has_gpu() else "tree"
    if len(queries) == 0:
        return np.empty((0, k), np.int32), np.empty((0, k), np.float32)
    queries, points = queries.astype(np.float64), points.astype(np.float64)
    candidates = (_tree if backend == "tree" else _keops)(points)
    rows = np.empty((len(queries), k), np.int32)
    distances = np.empty((len(queries), k), np.float32)
    # Backends break ties as they like: more candidates than asked for, until the last one is
    # farther than the k-th, so that the lowest rows can be picked among equals. Of many duplicates
    # all may be needed: a part of the queries at a time bounds the memory.
    unsettled, count = np.arange(len(queries)), min(k + 8, len(points))
    while len(unsettled):
        at_once = max(1, _MAX_CANDIDATES // count)
        tied = []
        for start in range(0, len(unsettled), at_once):
            part = unsettled[start : start + at_once]
            found = candidates(queries[part], count)
            distance = np.linalg.norm(points[found] - queries[part, None], axis=2)
            order = np.lexsort((found, distance), axis=1)
            found, distance = (np.take_along_axis(a, order, axis=1) for a in (found, distance))
            rows[part], distances[part] = found[:, :k], distance[:, :k]
            tied.append(part[distance[:, k - 1] == distance[:, -1]])
        if count == len(points):
            break
        unsettled = np.concatenate(tied)
        count = min(2 * count, len(points))
    return rows, distances


def _tree(points):
    from scipy.spatial import cKDTree

    tree = cKDTree(points)
    return lambda queries, count: tree.query(queries, k=count)[1].reshape(len(queries), count)


def _keops(points):
    from pykeops.numpy import LazyTensor

    def candidates(queries, count):
        query, point = LazyTensor(queries[:, None, :]), LazyTensor(points[None, :, :])
        return ((query - point) ** 2).sum(-1).argKmin(count, dim=1)

    return candidates


def _keops_has_gpu() -> bool:
    import jax

    if all(device.platform != "gpu" for device in jax.devices()):
        return False  # without importing pykeops, which takes seconds
    import pykeops.config

    return bool(pykeops.config.gpu_available)
