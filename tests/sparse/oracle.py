"""What every op of haskd_jax.sparse means, in plain NumPy.

Nothing here imports the engine. Voxels live in Python dictionaries, sums run in f64, and clarity
beats speed everywhere: an implementation is right if it agrees with this file.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

LIMIT = 2**30  # the largest coordinate, in voxels, that a grid may hold
PADDING = np.iinfo(np.int32).max  # what the coordinates of a padding row hold


class Grid(NamedTuple):
    """The voxels of a batch of scenes, padded to a capacity."""

    coords: np.ndarray  # [V, 4] (batch, x, y, z)
    mask: np.ndarray  # [V] bool
    overflow: int
    invalid: int
    stride: int = 1
    voxel_size: float = 1.0


# --- grids ----------------------------------------------------------------------------------


def voxelize(points, *, voxel_size, capacity, batch=None, mask=None):
    """A point lies in voxel floor(point / voxel_size), computed in the points' own dtype."""
    points = np.asarray(points)
    with np.errstate(all="ignore"):
        cells = np.floor(points / points.dtype.type(voxel_size))
    batch = np.zeros(len(points), np.int32) if batch is None else np.asarray(batch)
    keys = [
        (int(b), *map(int, cell)) if np.isfinite(cell).all() else None
        for b, cell in zip(batch, cells.tolist(), strict=True)
    ]
    return _grid(keys, mask, capacity, 1, voxel_size)


def grid_from_coords(coords, *, capacity, mask=None, stride=1, voxel_size=1.0):
    """The same from integer coordinates; equal ones are one voxel."""
    keys = [tuple(map(int, row)) for row in np.asarray(coords)]
    return _grid(keys, mask, capacity, stride, voxel_size)


def _grid(keys, mask, capacity, stride, voxel_size):
    """First come, first kept; what is kept is sorted. Returns the grid and every key's row."""
    mask = np.ones(len(keys), bool) if mask is None else np.asarray(mask)
    keys = [
        key if m and key is not None and in_range(key) else None
        for key, m in zip(keys, mask, strict=True)
    ]
    distinct = [key for key in dict.fromkeys(keys) if key is not None]
    kept = sorted(distinct[:capacity])
    row_of = {key: row for row, key in enumerate(kept)}
    coords = np.full((capacity, 4), PADDING, np.int64)
    coords[: len(kept)] = np.array(kept, np.int64).reshape(-1, 4)
    grid = Grid(
        coords=coords,
        mask=np.arange(capacity) < len(kept),
        overflow=len(distinct) - len(kept),
        invalid=int(mask.sum()) - sum(key is not None for key in keys),
        stride=stride,
        voxel_size=voxel_size,
    )
    return grid, np.array([row_of.get(key, -1) for key in keys])


def in_range(key):
    """Whether a grid can hold this (batch, x, y, z)."""
    batch, *cell = key
    return 0 <= batch <= LIMIT and all(abs(c) <= LIMIT for c in cell)


def rows(grid):
    """The dictionary that a grid is: coordinate -> row."""
    return {tuple(c): i for i, c in enumerate(np.asarray(grid.coords).tolist()) if grid.mask[i]}


def lookup(grid, coords):
    """The row of each coordinate, -1 where the grid has no such voxel."""
    row_of = rows(grid)
    coords = np.asarray(coords)
    found = [row_of.get(tuple(c), -1) for c in coords.reshape(-1, 4).tolist()]
    return np.array(found, np.int64).reshape(coords.shape[:-1])


def downsample(grid, *, stride=2, capacity):
    """Coordinates floored (toward -inf) to multiples of the new stride, in finest-voxel units."""
    step = grid.stride * stride
    coords = [[b, *(math.floor(c / step) * step for c in xyz)] for b, *xyz in rows(grid)]
    coords = np.array(coords, np.int64).reshape(-1, 4)
    coarse, _ = grid_from_coords(coords, capacity=capacity, stride=step, voxel_size=grid.voxel_size)
    return coarse


# --- kernel maps ----------------------------------------------------------------------------


def kernel_offsets(kernel_size, dilation=1):
    """Lexicographic, z fastest; odd kernels are centred, even ones start at the voxel itself."""
    start = -(kernel_size // 2) if kernel_size % 2 else 0
    reach = range(start, start + kernel_size)
    return np.array([[dilation * o for o in xyz] for xyz in itertools.product(reach, repeat=3)])


def neighbours(grid_in, grid_out, *, kernel_size, dilation=1):
    """[K, V_out] row of grid_in at out + offset * grid_in.stride; -1: none, or a padding row."""
    row_of = rows(grid_in)
    offsets = kernel_offsets(kernel_size, dilation).tolist()
    result = np.full((len(offsets), len(grid_out.mask)), -1, np.int64)
    for (b, x, y, z), i in rows(grid_out).items():
        for k, (dx, dy, dz) in enumerate(offsets):
            s = grid_in.stride
            result[k, i] = row_of.get((b, x + dx * s, y + dy * s, z + dz * s), -1)
    return result


def turned(nbr, num_in):
    """The map of the transposed convolution: [k, j] = i exactly where nbr[k, i] = j."""
    result = np.full((len(nbr), num_in), -1, np.int64)
    for k, i in np.argwhere(nbr >= 0):
        result[k, nbr[k, i]] = i
    return result


def _pairs(nbr):
    """For every offset k: its output rows and the input rows that they read."""
    for k, row in enumerate(nbr):
        (out,) = np.nonzero(row >= 0)
        yield k, out, row[out]


# --- convolution ----------------------------------------------------------------------------


def conv(features, weights, nbr):
    """Cross-correlation: out[i] = sum_k features[nbr[k, i]] @ weights[k] over neighbours."""
    features, weights = _f64(features), _f64(weights)
    out = np.zeros((nbr.shape[1], weights.shape[2]))
    for k, i, j in _pairs(nbr):
        out[i] += features[j] @ weights[k]
    return out


def conv_input_gradient(cotangent, weights, nbr, num_in):
    """d<cotangent, conv> / d features."""
    cotangent, weights = _f64(cotangent), _f64(weights)
    gradient = np.zeros((num_in, weights.shape[1]))
    for k, i, j in _pairs(nbr):
        np.add.at(gradient, j, cotangent[i] @ weights[k].T)
    return gradient


def conv_weight_gradient(features, cotangent, nbr):
    """d<cotangent, conv> / d weights."""
    features, cotangent = _f64(features), _f64(cotangent)
    gradient = np.zeros((len(nbr), features.shape[1], cotangent.shape[1]))
    for k, i, j in _pairs(nbr):
        gradient[k] = features[j].T @ cotangent[i]
    return gradient


# --- pooling and interpolation --------------------------------------------------------------


def pool(features, nbr, *, reduction="max"):
    """Reduces over the neighbours that exist; a row without any is zero."""
    features = _f64(features)
    out = np.zeros((nbr.shape[1], features.shape[1]))
    for i in range(nbr.shape[1]):
        present = nbr[:, i][nbr[:, i] >= 0]
        if len(present):
            out[i] = _REDUCTIONS[reduction](features[present], axis=0)
    return out


_REDUCTIONS = {"max": np.max, "mean": np.mean, "sum": np.sum}


def unpool(features, nbr, num_fine):
    """Every fine voxel takes its parent's feature; nbr is the k=2, stride-2 map fine -> coarse."""
    features = _f64(features)
    out = np.zeros((num_fine, features.shape[1]))
    for _, parent, child in _pairs(nbr):
        out[child] = features[parent]
    return out


def devoxelize(features, grid, points, batch=None, *, mode="nearest"):
    """Features at points: of the voxel around them, or interpolated between voxel centres."""
    features, row_of = _f64(features), rows(grid)
    batch = np.zeros(len(points), np.int64) if batch is None else batch
    out = np.zeros((len(points), features.shape[1]))
    for n, (point, b) in enumerate(zip(points, batch, strict=True)):
        if not np.isfinite(point).all():
            continue
        total = 0.0
        for cell, weight in _CORNERS[mode](point, grid):
            if (row := row_of.get((int(b), *cell), -1)) >= 0:
                out[n] += weight * features[row]
                total += weight
        if total > 0:
            out[n] /= total
    return out


def _nearest(point, grid):
    """The one voxel that holds the point; as in voxelize, in the point's own dtype."""
    cell = np.floor(point / point.dtype.type(grid.voxel_size)).tolist()
    yield tuple(math.floor(c / grid.stride) * grid.stride for c in cell), 1.0


def _trilinear(point, grid):
    """The eight voxels whose centres, (coord + stride/2) * voxel_size, surround the point."""
    place = (_f64(point) / grid.voxel_size - grid.stride / 2) / grid.stride
    low = np.floor(place)
    for corner in itertools.product((0, 1), repeat=3):
        weight = np.prod(np.where(corner, place - low, 1 - (place - low)))
        yield tuple(int(c) for c in (low + corner) * grid.stride), float(weight)


_CORNERS = {"nearest": _nearest, "trilinear": _trilinear}


def segment_sum(features, ids, num_segments):
    """Sums rows by id; id -1 is dropped."""
    features = _f64(features)
    out = np.zeros((num_segments, features.shape[1]))
    for row, segment in zip(features, np.asarray(ids), strict=True):
        if segment >= 0:
            out[segment] += row
    return out


def voxel_mean(features, point_to_voxel, capacity):
    """The mean over each voxel's points; zero where a row has none."""
    features, ids = _f64(features), np.asarray(point_to_voxel)
    count = np.bincount(ids[ids >= 0], minlength=capacity)[:, None]
    return segment_sum(features, ids, capacity) / np.maximum(count, 1)


def global_pool(features, grid, *, num_scenes, reduction="mean"):
    """One row a scene, over its voxels; zero for a scene without any."""
    features = _f64(features)
    out = np.zeros((num_scenes, features.shape[1]))
    for scene in range(num_scenes):
        inside = features[np.asarray(grid.mask) & (np.asarray(grid.coords)[:, 0] == scene)]
        if len(inside):
            out[scene] = _REDUCTIONS[reduction](inside, axis=0)
    return out


# --- normalisation --------------------------------------------------------------------------


def batch_norm(x, mask, scale, bias, *, residual=None, relu=False, epsilon=1e-5):
    """Of the rows that the mask admits alone; the others are zero. Also their mean and variance."""
    x, scale, bias = map(_f64, (x, scale, bias))
    mean, var = x[mask].mean(axis=0), x[mask].var(axis=0)
    rows = (x[mask] - mean) / np.sqrt(var + epsilon) * scale + bias
    if residual is not None:
        rows = rows + _f64(residual)[mask]
    y = np.zeros(x.shape)
    y[mask] = np.maximum(rows, 0) if relu else rows
    return y, mean, var


def batch_norm_gradients(x, mask, scale, cotangent, y, *, relu=False, epsilon=1e-5):
    """Of x, scale, bias and residual; y is the result."""
    x, scale, cotangent = map(_f64, (x, scale, cotangent))
    gradient = cotangent[mask] * (y[mask] > 0) if relu else cotangent[mask]
    std = np.sqrt(x[mask].var(axis=0) + epsilon)
    standard = (x[mask] - x[mask].mean(axis=0)) / std
    by_x = gradient - gradient.mean(axis=0) - standard * (gradient * standard).mean(axis=0)
    d_x, d_residual = np.zeros(x.shape), np.zeros(x.shape)
    d_x[mask], d_residual[mask] = by_x * scale / std, gradient
    return d_x, (gradient * standard).sum(axis=0), gradient.sum(axis=0), d_residual


# --- graphs ---------------------------------------------------------------------------------


def voxel_edges(nbr):
    """The set of (sender, receiver): sender is a neighbour of receiver, and not itself."""
    return {(int(nbr[k, i]), int(i)) for k, i in np.argwhere(nbr >= 0) if nbr[k, i] != i}


def knn(queries, points, k):
    """Brute force, nearest first, the lower index first among equals."""
    offsets = _f64(queries)[:, None] - _f64(points)[None]
    distances = np.sqrt((offsets**2).sum(-1))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


def _f64(array):
    return np.asarray(array).astype(np.float64)
