"""Voxel features back at points."""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from haskd_jax.native_kernels import sum_dtype
from haskd_jax.sparse import _validate as validate
from haskd_jax.sparse._validate import AnyArray
from haskd_jax.sparse.grid import MAX_COORDINATE, VoxelGrid, in_voxels, lookup
from haskd_jax.sparse.segment import gather_rows


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
      ValueError: for an unknown mode or wrong shapes.

    Example:
      >>> from haskd_jax import sparse
      >>> points = np.array([[0.5, 0.5, 0.5], [1.5, 0.5, 0.5], [1.0, 0.5, 0.5]], np.float32)
      >>> grid, _ = sparse.voxelize(points[:2], voxel_size=1.0, capacity=2)
      >>> devoxelize(jnp.array([[2.0], [4.0]]), grid, points, mode="trilinear")[:, 0].tolist()
      [2.0, 4.0, 3.0]
    """
    features = validate.array("features", features, shape=(grid.capacity, None), kinds="f")
    points = validate.array("points", points, shape=(None, 3), kinds="f")
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
    total = jnp.zeros((points.shape[0], features.shape[1]), sum_dtype(features.dtype))
    weights = jnp.zeros((points.shape[0], 1), total.dtype)
    for corner in itertools.product((0, 1), repeat=3):
        step = np.array((0, *corner), np.int32) * grid.stride
        rows = lookup(grid, cells + step[None], implementation=implementation)
        weight = jnp.prod(jnp.where(np.array(corner, bool), fraction, 1 - fraction), axis=1)
        weight = jnp.where(rows >= 0, weight, 0).astype(total.dtype)[:, None]
        total += weight * gather_rows(features, rows, implementation=implementation).astype(
            total.dtype
        )
        weights += weight
    mean = total / jnp.where(weights > 0, weights, 1)
    return mean.astype(features.dtype)
