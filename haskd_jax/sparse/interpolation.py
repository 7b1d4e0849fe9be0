"""Voxel features back at points."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from haskd_jax import native_kernels
from haskd_jax.implementation import run, varying
from haskd_jax.native_kernels import sum_dtype
from haskd_jax.sparse import _validate as validate
from haskd_jax.sparse._gather import gather
from haskd_jax.sparse._validate import AnyArray
from haskd_jax.sparse.grid import (
    MAX_COORDINATE,
    VoxelGrid,
    check_digits,
    coordinates,
    in_voxels,
    lookup,
)
from haskd_jax.sparse.segment import gather_rows, segment_sum

_CORNERS = tuple(itertools.product((0, 1), repeat=3))  # of a cell, z fastest


def devoxelize(
    features: Float[AnyArray, "V C"],
    grid: VoxelGrid,
    points: Float[AnyArray, "N 3"],
    batch: Integer[AnyArray, " N"] | None = None,
    *,
    mode: str = "nearest",
    implementation: str | None = None,
) -> Float[Array, "N C"]:
    """Reads voxel features at points.

    Args:
      features: `[V, C]` float, of the grid's voxels.
      grid: of any stride, made with the voxel size that the points are in.
      points: `[N, 3]` float.
      batch: `[N]` int32, scene of each point; the first if left out.
      mode: "nearest" takes the voxel that holds the point. "trilinear" weighs the eight voxels
        whose centres surround it; where some are missing, the others' weights are scaled up to sum
        to 1.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      `[N, C]`, dtype of `features`; zero where no such voxel exists, and for points that are not
      finite.

    Raises:
      ValueError: for an unknown mode, wrong shapes, and points that `voxelize` refuses for their
        dtype or lost digits.

    Example:
      >>> from haskd_jax import sparse
      >>> points = np.array([[0.5, 0.5, 0.5], [1.5, 0.5, 0.5], [1.0, 0.5, 0.5]], np.float32)
      >>> grid, _ = sparse.voxelize(points[:2], voxel_size=1.0, capacity=2)
      >>> devoxelize(jnp.array([[2.0], [4.0]]), grid, points, mode="trilinear")[:, 0].tolist()
      [2.0, 4.0, 3.0]
    """
    features = validate.array("features", features, shape=(grid.capacity, None), kinds="f")
    given, points = points, coordinates("points", points)
    if isinstance(given, np.ndarray) and validate.is_concrete(grid.voxel_size):
        check_digits(given, points.dtype, float(grid.voxel_size))
    count = points.shape[0]
    batch = np.zeros(count, np.int32) if batch is None else batch
    batch = validate.array("batch", batch, shape=(count,), kinds="iu")
    if mode == "nearest":
        cells, _ = _cells(in_voxels(points, grid.voxel_size), batch, grid.stride)
        return gather_rows(
            features,
            lookup(grid, cells, implementation=implementation),
            implementation=implementation,
        )
    if mode == "trilinear":
        return _trilinear(features, grid, points, batch, implementation)
    raise ValueError(f'mode={mode!r}: must be "nearest" or "trilinear"')


def _cells(position, batch, stride):
    """Coordinates [N, 4] of the cell of edge `stride` that holds each position, and where in it.

    Positions are in finest voxels. Floored first, as `voxelize` does, so that both agree on
    borders.
    """
    low = jnp.floor(position)
    usable = jnp.all(jnp.abs(low) <= MAX_COORDINATE, axis=1)  # False for NaN
    low = jnp.where(usable[:, None], low, 0).astype(jnp.int32)
    low = low // stride * stride
    cells = jnp.concatenate([batch[:, None], low], axis=1)
    # Batch -1 is no scene's: nothing is found there.
    cells = jnp.where(usable[:, None], cells, -1)
    fraction = jnp.where(usable[:, None], position - low.astype(position.dtype), 0) / stride
    return cells, fraction


def _trilinear(features, grid, points, batch, implementation):
    # Shifted by half a voxel: the cell's corners are then the centres of the eight voxels around.
    position = in_voxels(points, grid.voxel_size) - grid.stride / 2
    cells, fraction = _cells(position, batch, grid.stride)
    steps = np.array([(0, *corner) for corner in _CORNERS], np.int32) * grid.stride
    rows = lookup(grid, cells[:, None] + steps[None], implementation=implementation)  # [N, 8]
    dtype, wide = features.dtype, sum_dtype(features.dtype)
    fraction = fraction.astype(wide)
    # Along each axis the weights of the near and the far side.
    x, y, z = (jnp.stack([1 - f, f], axis=1) for f in fraction.T)
    weights = x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]
    weights = jnp.where(rows >= 0, weights.reshape(-1, len(_CORNERS)), 0)
    total = jnp.sum(weights, axis=1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1)
    features, weights, rows = varying((features.astype(wide), weights, rows))
    return _weighted_rows_compiled(features, weights, rows, implementation).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _weighted_rows(features, weights, rows, implementation):
    """out[i] = sum_k weights[i, k] * features[rows[i, k]]; rows of -1 are left out."""

    def xla(features, weights, rows):
        shape = (rows.shape[0], features.shape[1])
        return _over_corners(lambda w, r: w * gather(features, r), weights, rows, shape)

    def native(features, weights, rows):
        shape = (rows.shape[0], features.shape[1])
        return native_kernels.call_float("haskd_weighted_rows", shape, (features, weights), rows)

    return run(implementation, native=native, xla=xla, args=(features, weights, rows))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _spread_rows(values, weights, rows, count, implementation):
    """The transpose: out[j] = sum_(i, k) weights[i, k] * values[i] where rows[i, k] is j."""

    def xla(values, weights, rows):
        return _over_corners(
            lambda w, r: segment_sum(w * values, r, count, implementation="xla"),
            weights,
            rows,
            (count, values.shape[1]),
        )

    def native(values, weights, rows):
        shape = (count, values.shape[1])
        return native_kernels.call_float("haskd_spread_rows", shape, (values, weights), rows)

    return run(implementation, native=native, xla=xla, args=(values, weights, rows))


def _over_corners(term, weights, rows, shape):
    """Sums `term(weights [N, 1], rows [N])` over the corners, in their order."""
    total = jnp.zeros(shape, weights.dtype)
    for k in range(rows.shape[1]):
        total += term(weights[:, k, None], rows[:, k])
    return total


def _products(values, features, rows, implementation):
    """[N, K], values[i] . features[rows[i, k]]: what either gradient says of the weights."""
    columns = (gather_rows(features, r, implementation=implementation) for r in rows.T)
    return jnp.stack([jnp.sum(values * column, axis=1) for column in columns], axis=1)


def _weighted_rows_forward(features, weights, rows, implementation):
    return _weighted_rows(features, weights, rows, implementation), (features, weights, rows)


def _weighted_rows_backward(implementation, residuals, cotangent):
    features, weights, rows = residuals
    d_features = _spread_rows(cotangent, weights, rows, features.shape[0], implementation)
    return d_features, _products(cotangent, features, rows, implementation), None


def _spread_rows_forward(values, weights, rows, count, implementation):
    return _spread_rows(values, weights, rows, count, implementation), (values, weights, rows)


def _spread_rows_backward(count, implementation, residuals, cotangent):
    values, weights, rows = residuals
    d_values = _weighted_rows(cotangent, weights, rows, implementation)
    return d_values, _products(values, cotangent, rows, implementation), None


_weighted_rows.defvjp(_weighted_rows_forward, _weighted_rows_backward)
_spread_rows.defvjp(_spread_rows_forward, _spread_rows_backward)
_weighted_rows_compiled = jax.jit(_weighted_rows, static_argnums=3)
