"""Kernel maps: which input voxel each output voxel meets at each offset of a kernel."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from haskd_jax import native_kernels
from haskd_jax.implementation import run
from haskd_jax.sparse import _hash_table
from haskd_jax.sparse import _validate as validate
from haskd_jax.sparse._hash_table import PADDING
from haskd_jax.sparse._pytree import pytree, static
from haskd_jax.sparse.grid import VoxelGrid, downsample

KERNEL_SIZES = (1, 2, 3, 5)
_MAX_REACH = 2**28  # coordinates are within 2**30: sums with offsets stay in int32


@pytree
class KernelMap:
    """Neighbours of every output voxel. Made by `kernel_map`, shared by all on its grids.

    Attributes:
      neighbours: `[K, V_out]` int32, row of the input voxel at each kernel offset; -1 where there
        is none, and for padding rows. Offsets are in the order of `kernel_offsets`.
      reverse: `[K, V_in]` int32, the same pairs seen from the input: row of the output voxel. None
        for a kernel of odd size within one grid, where it is `neighbours[::-1]`.
      kernel_size: edge of the kernel.
      dilation: distance between offsets, in input voxels.
      strides: of the grids of input and output.
    """

    neighbours: Int32[Array, "K V_out"]
    reverse: Int32[Array, "K V_in"] | None
    kernel_size: int = dataclasses.field(metadata=static)
    dilation: int = dataclasses.field(metadata=static)
    strides: tuple[int, int] = dataclasses.field(metadata=static)

    @property
    def T(self) -> "KernelMap":
        """The map turned round: of the transposed (inverse) convolution."""
        shape = self.kernel_size, self.dilation, self.strides[::-1]
        if self.reverse is None:
            return KernelMap(self.neighbours[::-1], None, *shape)
        return KernelMap(self.reverse, self.neighbours, *shape)

    @property
    def num_inputs(self) -> int:
        """Rows of the input grid, padding included."""
        return (self.neighbours if self.reverse is None else self.reverse).shape[1]

    @property
    def parents(self) -> Int32[Array, " V_in"]:
        """`[V_in]`, row of the output voxel that each input voxel lies in, -1 where it has none.

        Of the map from a grid to its downsample (`kernel_size=2`), as in `Pyramid.down`.

        Raises:
          ValueError: for another map, in which an input voxel lies in several or none.
        """
        fine, coarse = self.strides
        if (self.kernel_size, self.dilation, coarse) != (2, 1, 2 * fine):
            raise ValueError(
                f"kmap has kernel_size {self.kernel_size}, dilation {self.dilation} and strides "
                f"{self.strides}: only in the kernel_size=2 map from a grid to its downsample does "
                "each voxel lie in one other"
            )
        return jnp.max(self.T.neighbours, axis=0)  # in each column at most one is not -1


def kernel_offsets(kernel_size: int, dilation: int = 1) -> np.ndarray:
    """Offsets of a cubic kernel.

    Args:
      kernel_size: 1, 2, 3 or 5.
      dilation: distance between neighbouring offsets.

    Returns:
      `[K, 3]` int32, K = kernel_size**3, in lexicographic order, z fastest. An odd kernel is
      centred on the voxel, an even one begins at it.

    Raises:
      ValueError: for other sizes, or a dilation below 1.

    Example:
      >>> kernel_offsets(2)[:3].tolist()
      [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    """
    if kernel_size not in KERNEL_SIZES:
        raise ValueError(f"kernel_size={kernel_size}: must be one of {KERNEL_SIZES}")
    validate.size("dilation", dilation)
    if dilation * kernel_size > _MAX_REACH:
        raise ValueError(f"dilation={dilation}: offsets are beyond 2**28")
    start = -(kernel_size // 2) if kernel_size % 2 else 0
    steps = np.arange(start, start + kernel_size, dtype=np.int32) * dilation
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)


def kernel_map(
    grid_in: VoxelGrid,
    grid_out: VoxelGrid | None = None,
    *,
    kernel_size: int,
    dilation: int = 1,
    implementation: str | None = None,
) -> KernelMap:
    """Finds, for each output voxel and kernel offset, the input voxel at that place.

    Args:
      grid_in: the grid that features come from.
      grid_out: the grid that features go to: `grid_in` itself (submanifold convolution) if left
        out, or a coarser one (strided convolution).
      kernel_size: 1, 2, 3 or 5.
      dilation: distance between offsets, in voxels of `grid_in`.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      The map. For the way back from a coarse grid to a fine one (inverse or transposed convolution)
      build the map from fine to coarse and take its `.T`.

    Raises:
      ValueError: for an unknown kernel size, a dilation below 1, or a `grid_out` finer than
        `grid_in`.

    Example:
      >>> from haskd_jax import sparse
      >>> grid, _ = sparse.grid_from_coords(np.array([[0, 0, 0, 0], [0, 0, 0, 1]]), capacity=3)
      >>> kernel_map(grid, kernel_size=3).neighbours[12:15].tolist()
      [[-1, 0, -1], [0, 1, -1], [1, -1, -1]]
    """
    offsets = kernel_offsets(kernel_size, dilation)
    if dilation * kernel_size * grid_in.stride > _MAX_REACH:
        raise ValueError(
            f"dilation={dilation}: offsets are beyond 2**28 at grid_in's stride {grid_in.stride}"
        )
    offsets = offsets * np.int32(grid_in.stride)
    grid_out = grid_in if grid_out is None else grid_out
    if grid_out.stride % grid_in.stride:
        raise ValueError(
            f"grid_out has stride {grid_out.stride}, no multiple of grid_in's {grid_in.stride}: "
            f"build kernel_map(grid_out, grid_in, ...) and take its .T for a transposed convolution"
        )
    strides = (grid_in.stride, grid_out.stride)
    forward = _neighbours(grid_in, grid_out, offsets, implementation)
    if grid_out is grid_in and kernel_size % 2:
        return KernelMap(forward, None, kernel_size, dilation, strides)
    # Offsets the other way, in ascending order again, and the result turned back.
    reverse = _neighbours(grid_out, grid_in, -offsets[::-1], implementation)[::-1]
    return KernelMap(forward, reverse, kernel_size, dilation, strides)


def _neighbours(grid_in, grid_out, offsets, implementation):
    """Rows of `grid_in` at each row of `grid_out` plus each offset, [K, V_out]."""

    def native(in_coords, in_mask, in_table, out_coords, out_mask):
        del in_table  # rows are in order: merging them needs no table
        result = jax.ShapeDtypeStruct((len(offsets), out_coords.shape[0]), jnp.int32)
        return native_kernels.call(
            "haskd_neighbours", result, in_coords, in_mask, out_coords, out_mask,
            offsets=offsets.reshape(-1),
        )  # fmt: skip

    def xla(in_coords, in_mask, in_table, out_coords, out_mask):
        del in_mask  # what is found is a valid row
        return _searched(in_coords, in_table, out_coords, out_mask, jnp.asarray(offsets))

    inputs = (grid_in.coords, grid_in.mask, grid_in.table)
    args = (*inputs, grid_out.coords, grid_out.mask)
    return run(implementation, native=native, xla=xla, args=args)


@jax.jit  # or every call outside of one would compile its loop anew
def _searched(in_coords, in_table, out_coords, out_mask, offsets):
    """Rows found in the hash table, an offset after the other or several at once."""

    def by(find, offsets_at_once):
        def at(offset):
            queries = out_coords + jnp.pad(offset, (1, 0))[None]
            # Padding asks for a coordinate that no voxel has.
            queries = jnp.where(out_mask[:, None], queries, PADDING)
            return find(in_coords, in_table, queries)

        return lambda offsets: jax.lax.map(at, offsets, batch_size=offsets_at_once)

    # Accelerators like few, large kernels; not so many offsets that memory would run out.
    return jax.lax.platform_dependent(
        offsets, cpu=by(_hash_table.probe, None), default=by(_hash_table.bisect, 27)
    )


@pytree
class Pyramid:
    """Every grid and kernel map of a U-Net, built once for a batch. Made by `pyramid`.

    Attributes:
      grids: finest first, each of twice the stride of the one before.
      submanifold: for each grid, its map within itself.
      down: from each grid to the next, of kernel size 2 and stride 2; `.T` is the way back up.
    """

    grids: tuple[VoxelGrid, ...]
    submanifold: tuple[KernelMap, ...]
    down: tuple[KernelMap, ...]

    @property
    def overflow(self) -> Int32[Array, ""]:
        """Voxels that did not fit, over all grids."""
        return sum((grid.overflow for grid in self.grids[1:]), self.grids[0].overflow)


def pyramid(
    grid: VoxelGrid,
    *,
    capacities: tuple[int, ...],
    kernel_size: int = 3,
    implementation: str | None = None,
) -> Pyramid:
    """Builds the grids and kernel maps of a U-Net.

    Args:
      grid: the finest grid.
      capacities: rows of each coarser grid, finest first; as many levels as there are numbers.
      kernel_size: of the maps within each grid.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      The pyramid; check its `overflow` where capacities are guesses.

    Example:
      >>> from haskd_jax import sparse
      >>> grid, _ = sparse.grid_from_coords(np.array([[0, 0, 0, 0], [0, 0, 0, 3]]), capacity=2)
      >>> [level.stride for level in pyramid(grid, capacities=(2, 2)).grids]
      [1, 2, 4]
    """
    grids = [grid]
    for capacity in capacities:
        grids.append(downsample(grids[-1], capacity=capacity, implementation=implementation))
    submanifold = tuple(
        kernel_map(level, kernel_size=kernel_size, implementation=implementation) for level in grids
    )
    down = tuple(
        kernel_map(fine, coarse, kernel_size=2, implementation=implementation)
        for fine, coarse in itertools.pairwise(grids)
    )
    return Pyramid(tuple(grids), submanifold, down)
