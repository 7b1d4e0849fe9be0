"""Pooling over a kernel map's neighbours, its way back, and pooling over whole scenes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from haskd_jax.implementation import varying
from haskd_jax.native_kernels import sum_dtype
from haskd_jax.sparse import _validate as validate
from haskd_jax.sparse._gather import gather
from haskd_jax.sparse._validate import AnyArray
from haskd_jax.sparse.grid import VoxelGrid
from haskd_jax.sparse.kernel_map import KernelMap
from haskd_jax.sparse.segment import gather_rows, segment_sum

_REDUCTIONS = ("max", "mean", "sum")


def pool(
    features: Float[AnyArray, "V_in C"], kmap: KernelMap, *, reduction: str = "max"
) -> Float[Array, "V_out C"]:
    """Reduces over the neighbours that each output voxel has.

    Args:
      features: `[V_in, C]` float.
      kmap: from the grid of `features` to that of the result.
      reduction: "max", "mean" or "sum". The gradient of "max" is shared by ties.

    Returns:
      `[V_out, C]`, dtype of `features`; zero for rows without a neighbour.

    Raises:
      ValueError: for an unknown reduction or wrong shapes.

    Example:
      >>> import numpy as np
      >>> from haskd_jax import sparse
      >>> fine, _ = sparse.grid_from_coords(np.array([[0, 0, 0, 0], [0, 0, 0, 1]]), capacity=2)
      >>> coarse = sparse.downsample(fine, capacity=2)
      >>> kmap = sparse.kernel_map(fine, coarse, kernel_size=2)
      >>> pool(jnp.array([[1.0], [3.0]]), kmap, reduction="mean")[:, 0].tolist()
      [2.0, 0.0]
    """
    _check_reduction(reduction)
    features = validate.array("features", features, shape=(kmap.num_inputs, None), kinds="f")
    features, kmap = varying((features, kmap))
    if reduction == "max":
        return _pool_max_compiled(features, kmap)
    total = _pool_sum_compiled(features.astype(sum_dtype(features.dtype)), kmap)
    if reduction == "mean":
        count = jnp.sum(kmap.neighbours >= 0, axis=0, dtype=total.dtype)
        total = total / jnp.maximum(count, 1)[:, None]
    return total.astype(features.dtype)


def unpool(
    features: Float[AnyArray, "V_out C"], kmap: KernelMap, *, implementation: str | None = None
) -> Float[Array, "V_in C"]:
    """Gives each fine voxel the feature of the coarse voxel it lies in.

    Args:
      features: `[V_out, C]` float, of the coarse grid.
      kmap: from the fine grid to the coarse one, of kernel size 2 and stride 2.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      `[V_in, C]`, zero where the coarse voxel did not fit into its grid.

    Raises:
      ValueError: for another kernel size or wrong shapes.

    Example:
      >>> import numpy as np
      >>> from haskd_jax import sparse
      >>> fine, _ = sparse.grid_from_coords(np.array([[0, 0, 0, 0], [0, 0, 0, 1]]), capacity=2)
      >>> coarse = sparse.downsample(fine, capacity=2)
      >>> kmap = sparse.kernel_map(fine, coarse, kernel_size=2)
      >>> unpool(jnp.array([[5.0], [0.0]]), kmap)[:, 0].tolist()
      [5.0, 5.0]
    """
    parents = kmap.parents
    outputs = kmap.neighbours.shape[1]
    features = validate.array("features", features, shape=(outputs, None), kinds="f")
    return gather_rows(features, parents, implementation=implementation)


def global_pool(
    features: Float[AnyArray, "V C"],
    grid: VoxelGrid,
    *,
    num_scenes: int,
    reduction: str = "mean",
    implementation: str | None = None,
) -> Float[Array, "B C"]:
    """Reduces over all voxels of each scene.

    Args:
      features: `[V, C]` float, of the grid's voxels.
      grid: whose batch indices tell scenes apart; those of `num_scenes` and up are left out.
      num_scenes: static.
      reduction: "max", "mean" or "sum".
      implementation: None for the best there is, "xla" or "native".

    Returns:
      `[num_scenes, C]`, dtype of `features`; zero for scenes without voxels.

    Raises:
      ValueError: for an unknown reduction or wrong shapes.

    Example:
      >>> import numpy as np
      >>> from haskd_jax import sparse
      >>> grid, _ = sparse.grid_from_coords(np.array([[0, 0, 0, 0], [1, 0, 0, 1]]), capacity=2)
      >>> global_pool(jnp.array([[1.0], [3.0]]), grid, num_scenes=3)[:, 0].tolist()
      [1.0, 3.0, 0.0]
    """
    _check_reduction(reduction)
    validate.size("num_scenes", num_scenes)
    features = validate.array("features", features, shape=(grid.capacity, None), kinds="f")
    scene = jnp.where(grid.mask, grid.coords[:, 0], -1)
    ones = jnp.ones((grid.capacity, 1), sum_dtype(features.dtype))
    count = segment_sum(ones, scene, num_scenes, implementation=implementation)
    if reduction == "max":
        scene = jnp.where(scene < 0, num_scenes, scene)
        return jnp.where(count > 0, jax.ops.segment_max(features, scene, num_scenes), 0)
    wide = features.astype(sum_dtype(features.dtype))
    total = segment_sum(wide, scene, num_scenes, implementation=implementation)
    if reduction == "mean":
        total = total / jnp.maximum(count, 1)
    return total.astype(features.dtype)


def _check_reduction(reduction):
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}: must be one of {_REDUCTIONS}")


def _reduce(neighbours, first, combine):
    """Folds `combine(total, rows)` over offsets, from `first(rows)` of the first offset."""

    def step(total, rows):
        return combine(total, rows), None

    return jax.lax.scan(step, first(neighbours[0]), neighbours[1:])[0]


@jax.custom_vjp
def _pool_sum(features, kmap):
    return _reduce(
        kmap.neighbours,
        lambda rows: gather(features, rows, 0),
        lambda total, rows: total + gather(features, rows, 0),
    )


# The gradient gathers through the map turned round: no scatter, one order of sums.
_pool_sum.defvjp(
    lambda features, kmap: (_pool_sum(features, kmap), kmap),
    lambda kmap, cotangent: (_pool_sum(cotangent, kmap.T), None),
)


@jax.custom_vjp
def _pool_max(features, kmap):
    largest = _reduce(
        kmap.neighbours,
        lambda rows: gather(features, rows, -jnp.inf),
        lambda total, rows: jnp.maximum(total, gather(features, rows, -jnp.inf)),
    )
    return jnp.where(jnp.any(kmap.neighbours >= 0, axis=0)[:, None], largest, 0)


def _pool_max_forward(features, kmap):
    result = _pool_max(features, kmap)
    return result, (features, result, kmap)


def _pool_max_backward(residuals, cotangent):
    features, result, kmap = residuals
    dtype = cotangent.dtype
    cotangent = cotangent.astype(sum_dtype(dtype))

    def ties_at(rows):
        return (gather(features, rows, jnp.nan) == result).astype(cotangent.dtype)

    ties = _reduce(kmap.neighbours, ties_at, lambda total, rows: total + ties_at(rows))
    share = cotangent / jnp.maximum(ties, 1)

    def share_at(rows):
        wins = features == gather(result, rows, jnp.nan)
        return jnp.where(wins, gather(share, rows, 0), 0)

    reverse = kmap.T.neighbours
    total = _reduce(reverse, share_at, lambda total, rows: total + share_at(rows))
    return total.astype(dtype), None


_pool_max.defvjp(_pool_max_forward, _pool_max_backward)

# Called one by one, their scans would be compiled anew at every call.
_pool_sum_compiled, _pool_max_compiled = jax.jit(_pool_sum), jax.jit(_pool_max)
