"""The sparse engine: voxel grids, kernel maps, convolution, pooling, interpolation.

Arrays in, arrays out: everything is a pure function of arrays and of small frozen pytrees, padded
to static shapes, and works under `jit`, `vmap`, `grad` and `shard_map`. Functions with
`implementation` have a portable ("xla") and a native CPU ("native") implementation with the same
results.
"""

from haskd_jax.native_kernels import native_available
from haskd_jax.sparse.conv import conv
from haskd_jax.sparse.graph import voxel_graph
from haskd_jax.sparse.grid import VoxelGrid, downsample, grid_from_coords, lookup, voxelize
from haskd_jax.sparse.interpolation import devoxelize
from haskd_jax.sparse.kernel_map import KernelMap, Pyramid, kernel_map, kernel_offsets, pyramid
from haskd_jax.sparse.memory import keep_freed_memory
from haskd_jax.sparse.neighbours import knn
from haskd_jax.sparse.norm import Moments, batch_norm, normalize
from haskd_jax.sparse.pooling import global_pool, pool, unpool
from haskd_jax.sparse.segment import gather_rows, segment_sum, voxel_mean

__all__ = [
    "KernelMap",
    "Moments",
    "Pyramid",
    "VoxelGrid",
    "batch_norm",
    "conv",
    "devoxelize",
    "downsample",
    "gather_rows",
    "global_pool",
    "grid_from_coords",
    "keep_freed_memory",
    "kernel_map",
    "kernel_offsets",
    "knn",
    "lookup",
    "native_available",
    "normalize",
    "pool",
    "pyramid",
    "segment_sum",
    "unpool",
    "voxel_graph",
    "voxel_mean",
    "voxelize",
]
