"""Rows summed by segment and rows gathered by index: each is the other's gradient."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from haskd_jax import native_kernels
from haskd_jax.implementation import run, varying
from haskd_jax.sparse import _validate as validate
from haskd_jax.sparse._gather import gather
from haskd_jax.sparse._validate import AnyArray


def segment_sum(
    features: Float[AnyArray, "N C"],
    ids: Integer[AnyArray, " N"],
    num_segments: int,
    *,
    implementation: str | None = None,
) -> Float[Array, "S C"]:
    """Sums rows by segment, in float32 (float64 for float64) and in the order of rows.

    On GPUs the portable implementation adds in no fixed order, unless
    `XLA_FLAGS=--xla_gpu_deterministic_ops=true`.

    Args:
      features: `[N, C]` float.
      ids: `[N]` int32, segment of each row; rows whose id is negative or past the end are left out.
      num_segments: static.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      `[num_segments, C]`, dtype of `features`.

    Raises:
      ValueError: for shapes or dtypes that disagree, or `num_segments` < 1.

    Example:
      >>> segment_sum(jnp.array([[1.0], [2.0], [4.0]]), jnp.array([1, -1, 1]), 2).tolist()
      [[0.0], [5.0]]
    """
    features = validate.array("features", features, shape=(None, None), kinds="f")
    ids = validate.array("ids", ids, shape=(features.shape[0],), kinds="iu")
    validate.size("num_segments", num_segments)
    features, ids = varying((features, ids))
    return _segment_sum_compiled(features, ids, num_segments, implementation)


def gather_rows(
    features: Float[AnyArray, "V C"],
    rows: Integer[AnyArray, " N"],
    *,
    implementation: str | None = None,
) -> Float[Array, "N C"]:
    """Gathers rows: `features[rows]`, zero where `rows` is negative or past the end.

    Args:
      features: `[V, C]` float.
      rows: `[N]` int32.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      `[N, C]`, dtype of `features`.

    Raises:
      ValueError: for wrong shapes or dtypes.

    Example:
      >>> gather_rows(jnp.array([[1.0], [2.0]]), jnp.array([1, -1])).tolist()
      [[2.0], [0.0]]
    """
    features = validate.array("features", features, shape=(None, None), kinds="f")
    rows = validate.array("rows", rows, shape=(None,), kinds="iu")
    features, rows = varying((features, rows))
    return _gather_rows_compiled(features, rows, implementation)


def voxel_mean(
    features: Float[AnyArray, "N C"],
    point_to_voxel: Integer[AnyArray, " N"],
    capacity: int,
    *,
    implementation: str | None = None,
) -> Float[Array, "V C"]:
    """Means of point features over each voxel's points.

    Args:
      features: `[N, C]` float, of points.
      point_to_voxel: `[N]` int32, from `voxelize`; -1 is left out.
      capacity: rows of the grid.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      `[capacity, C]`, zero where a voxel has no point.

    Raises:
      ValueError: as `segment_sum`.

    Example:
      >>> voxel_mean(jnp.array([[1.0], [3.0], [7.0]]), jnp.array([0, 0, -1]), 2).tolist()
      [[2.0], [0.0]]
    """
    features = validate.array("features", features, shape=(None, None), kinds="f")
    ids = validate.array("point_to_voxel", point_to_voxel, shape=(features.shape[0],), kinds="iu")
    validate.size("capacity", capacity)
    wide = features.astype(native_kernels.sum_dtype(features.dtype))
    total = segment_sum(wide, ids, capacity, implementation=implementation)
    ones = jnp.ones((wide.shape[0], 1), wide.dtype)
    count = segment_sum(ones, ids, capacity, implementation=implementation)
    return (total / jnp.maximum(count, 1)).astype(features.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _segment_sum(features, ids, num_segments, implementation):
    def xla(features, ids):
        wide = features.astype(native_kernels.sum_dtype(features.dtype))
        ids = jnp.where(ids < 0, num_segments, ids)  # past the end: dropped
        return jax.ops.segment_sum(wide, ids, num_segments).astype(features.dtype)

    def native(features, ids):
        shape = (num_segments, features.shape[1])
        return native_kernels.call_float("haskd_segment_sum", shape, (features,), ids)

    return run(implementation, native=native, xla=xla, args=(features, ids))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _gather_rows(features, rows, implementation):
    def xla(features, rows):
        if features.shape[0] == 0:  # XLA cannot gather from none
            return jnp.zeros((rows.shape[0], features.shape[1]), features.dtype)
        return gather(features, rows)

    def native(features, rows):
        shape = (rows.shape[0], features.shape[1])
        return native_kernels.call_float("haskd_gather_rows", shape, (features,), rows)

    return run(implementation, native=native, xla=xla, args=(features, rows))


def _segment_sum_forward(features, ids, num_segments, implementation):
    return _segment_sum(features, ids, num_segments, implementation), ids


def _segment_sum_backward(num_segments, implementation, ids, cotangent):
    return _gather_rows(cotangent, ids, implementation), None


def _gather_rows_forward(features, rows, implementation):
    return _gather_rows(features, rows, implementation), (rows, features.shape[0])


def _gather_rows_backward(implementation, residuals, cotangent):
    rows, count = residuals
    return _segment_sum(cotangent, rows, count, implementation), None


_segment_sum.defvjp(_segment_sum_forward, _segment_sum_backward)
_gather_rows.defvjp(_gather_rows_forward, _gather_rows_backward)
_segment_sum_compiled = jax.jit(_segment_sum, static_argnums=(2, 3))
_gather_rows_compiled = jax.jit(_gather_rows, static_argnums=2)
