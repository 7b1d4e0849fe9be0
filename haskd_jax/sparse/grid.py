"""Voxel grids: a point cloud's distinct voxels, padded to a static capacity, with a hash table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer

from haskd_jax import native_kernels
from haskd_jax.implementation import run
from haskd_jax.sparse import _hash_table
from haskd_jax.sparse import _validate as validate
from haskd_jax.sparse._hash_table import PADDING
from haskd_jax.sparse._pytree import pytree, static
from haskd_jax.sparse._validate import AnyArray

MAX_COORDINATE = 2**30  # leaves room for kernel offsets in int32


@pytree
class VoxelGrid:
    """Distinct voxels of one or several scenes, in one canonical order. Made by `voxelize`.

    Attributes:
      coords: `[V, 4]` int32, (batch, x, y, z) in units of the finest voxels, multiples of `stride`.
        Valid rows come first, in lexicographic order; padding rows hold the largest int32.
      mask: `[V]` bool, True for valid rows.
      overflow: `[]` int32, distinct voxels that did not fit into the capacity.
      invalid: `[]` int32, inputs that have no voxel: not finite, or beyond +-2**30.
      table: `[T]` int32, hash table of row indices, -1 where empty.
      voxel_size: `[]` float32, or float64 where the points were; edge of the finest voxels, in the
        points' unit.
      stride: edge of this grid's voxels in finest voxels.
    """

    coords: Int32[Array, "V 4"]
    mask: Bool[Array, " V"]
    overflow: Int32[Array, ""]
    invalid: Int32[Array, ""]
    table: Int32[Array, " T"]
    voxel_size: Float[Array, ""]
    stride: int = dataclasses.field(metadata=static)

    @property
    def capacity(self) -> int:
        """Rows, padding included."""
        return self.coords.shape[-2]


def voxelize(
    points: Float[AnyArray, "N 3"],
    *,
    voxel_size: float | Float[Array, ""],
    capacity: int,
    batch: Integer[AnyArray, " N"] | None = None,
    mask: Bool[AnyArray, " N"] | None = None,
    implementation: str | None = None,
) -> tuple[VoxelGrid, Int32[Array, " N"]]:
    """Puts points into voxels: `floor(point / voxel_size)`.

    Where more voxels are occupied than `capacity`, those whose first point comes earliest are kept,
    and `overflow` counts the others.

    Args:
      points: `[N, 3]` float, x, y, z in any unit (metres, mostly). Far from the origin float32 is
        coarse: subtract an origin before.
      voxel_size: edge of a voxel, in the points' unit.
      capacity: rows of the grid, static.
      batch: `[N]` int32, scene of each point, 0 and up; one scene if left out.
      mask: `[N]` bool, False for padding points, whose values are ignored.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      The grid, and each point's row in it, `[N]` int32: -1 where masked, invalid or not fitting.

    Raises:
      ValueError: for wrong shapes, dtypes or sizes; and, outside `jit`, for points that are not
        finite or beyond 2**30 voxels, for float64 points that lose an eighth of a voxel as float32,
        and negative batch indices. Inside `jit` points without voxel are left
        out and counted in `VoxelGrid.invalid`.

    Example:
      >>> points = np.array([[1, 3, -1], [1.2, 3.1, -1.1], [50, 50, 50]], np.float32)
      >>> grid, point_to_voxel = voxelize(points, voxel_size=2.0, capacity=4)
      >>> grid.coords[:2].tolist(), point_to_voxel.tolist()
      ([[0, 0, 1, -1], [0, 25, 25, 25]], [0, 0, 1])
    """
    given, points = points, coordinates("points", points)
    size = validate.length("voxel_size", voxel_size).astype(points.dtype)
    count = points.shape[0]
    if batch is None:
        batch = np.zeros(count, np.int32)
    batch = validate.array("batch", batch, shape=(count,), kinds="iu")
    coords, inside = _to_coords(points, size, batch)
    mask = validate.mask("mask", mask, count)
    if isinstance(given, np.ndarray) and all(map(validate.is_concrete, (mask, voxel_size))):
        check_digits(given[np.asarray(mask)], points.dtype, float(voxel_size))
    grid, row = _distinct(coords, mask, inside, size, capacity, 1, implementation)
    if validate.is_concrete(grid.invalid) and grid.invalid > 0:
        first = int(np.argmax(np.asarray(mask & ~inside)))
        point = np.asarray(points[first]).tolist()
        raise ValueError(
            f"points[{first}]={point} of batch {int(batch[first])} has no voxel at "
            f"voxel_size={voxel_size} ({int(grid.invalid)} such points): coordinates must be "
            f"finite and within 2**30 voxels, batch indices 0 or more. Remove or mask these, or "
            f"centre the cloud"
        )
    return grid, row


def coordinates(name: str, points: Float[AnyArray, "N 3"]) -> Float[Array, "N 3"]:
    """Points as a JAX array; refuses dtypes that cannot tell neighbouring voxels apart."""
    points = validate.array(name, points, shape=(None, 3), kinds="f")
    if points.dtype.itemsize < 4:
        raise ValueError(
            f"{name} has dtype {points.dtype}: too coarse for coordinates, use float32"
        )
    return points


def check_digits(points: np.ndarray, dtype, voxel_size: float) -> None:
    """Refuses float64 points that lie far out, where `dtype` cannot tell their voxels apart."""
    points = points[np.isfinite(points)]
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        lost = np.abs(points - points.astype(dtype))
    if points.size and voxel_size / 8 < np.max(lost) < np.inf:
        raise ValueError(
            f"points: {points[np.argmax(lost)]!r} loses {np.max(lost):g} as {dtype}, too much for "
            f"voxel_size={voxel_size}: subtract an origin near the points first"
        )


def grid_from_coords(
    coords: Integer[AnyArray, "N 4"],
    *,
    capacity: int,
    mask: Bool[AnyArray, " N"] | None = None,
    stride: int = 1,
    voxel_size: float | Float[Array, ""] = 1.0,
    implementation: str | None = None,
) -> tuple[VoxelGrid, Int32[Array, " N"]]:
    """As `voxelize`, from integer voxel coordinates; duplicates become one voxel.

    Args:
      coords: `[N, 4]` int32, (batch, x, y, z), multiples of `stride`.
      capacity: rows of the grid, static.
      mask: `[N]` bool, False for padding.
      stride: edge of the grid's voxels in finest voxels.
      voxel_size: edge of the finest voxels.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      The grid, and each coordinate's row in it, `[N]` int32: -1 where masked or not fitting.

    Raises:
      ValueError: as `voxelize`; and, outside `jit`, for coordinates that are no multiples of
        `stride`.

    Example:
      >>> grid, row = grid_from_coords(np.array([[0, 5, 5, 5], [0, 1, 2, 3]]), capacity=2)
      >>> row.tolist()
      [1, 0]
    """
    coords = validate.array("coords", coords, shape=(None, 4), kinds="iu")
    validate.size("stride", stride)
    size = validate.length("voxel_size", voxel_size)
    mask = validate.mask("mask", mask, coords.shape[0])
    inside = _within_range(coords) & jnp.all(coords[:, 1:] % stride == 0, axis=1)
    given = coords
    coords = jnp.where(inside[:, None], coords, 0).astype(jnp.int32)
    grid, row = _distinct(coords, mask, inside, size, capacity, stride, implementation)
    if validate.is_concrete(grid.invalid) and grid.invalid > 0:
        first = int(np.argmax(np.asarray(mask & ~inside)))
        raise ValueError(
            f"coords[{first}]={given[first].tolist()} cannot be placed ({int(grid.invalid)} such "
            f"rows): (x, y, z) must be multiples of stride={stride} within 2**30, batch indices 0 "
            f"or more"
        )
    return grid, row


def lookup(
    grid: VoxelGrid,
    coords: Integer[AnyArray, "*dims 4"],
    *,
    implementation: str | None = None,
) -> Int32[Array, "*dims"]:
    """Finds voxels by coordinates.

    Args:
      grid: the grid to look in.
      coords: `[..., 4]` int32, (batch, x, y, z), any values.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      `[...]` int32, the voxel's row; -1 where the grid has none.

    Example:
      >>> grid, _ = grid_from_coords(np.array([[0, 5, 5, 5], [0, 1, 2, 3]]), capacity=2)
      >>> lookup(grid, np.array([[0, 5, 5, 5], [1, 5, 5, 5]])).tolist()
      [1, -1]
    """
    coords = validate.array("coords", coords, shape=(..., 4), kinds="iu")
    return _lookup(grid, coords, implementation)


@jax.jit(static_argnums=2)
def _lookup(grid, coords, implementation):
    flat = coords.reshape(-1, 4)
    row = _hash_table.find(grid.coords, grid.table, flat, implementation)
    return row.reshape(coords.shape[:-1])


def downsample(
    grid: VoxelGrid, *, stride: int = 2, capacity: int, implementation: str | None = None
) -> VoxelGrid:
    """The grid of voxels `stride` times as large that hold any of the grid's voxels.

    Args:
      grid: the finer grid.
      stride: how many times larger, 2 or more.
      capacity: rows of the coarser grid, static; `overflow` counts voxels that did not fit.
      implementation: None for the best there is, "xla" or "native".

    Returns:
      The coarser grid. Its coordinates stay in units of the finest voxels.

    Raises:
      ValueError: where `stride` < 2 or `capacity` < 1.

    Example:
      >>> grid, _ = grid_from_coords(np.array([[0, -1, 5, 5], [0, -2, 4, 4]]), capacity=2)
      >>> downsample(grid, capacity=2).coords[0].tolist()
      [0, -2, 4, 4]
    """
    validate.size("stride", stride)
    if stride < 2:
        raise ValueError(f"stride={stride}: must be 2 or more")
    edge = grid.stride * stride
    validate.size("stride times that of the grid", edge)
    # Valid coordinates are at most 2**30 from zero; padding is masked, whatever it becomes here.
    low = (grid.coords[:, 1:] // edge) * edge
    coords = jnp.concatenate([grid.coords[:, :1], low], axis=1)
    inside = jnp.ones_like(grid.mask)
    coarse, _ = _distinct(
        coords, grid.mask, inside, grid.voxel_size, capacity, edge, implementation
    )
    return coarse


@jax.jit
def _to_coords(points, voxel_size, batch):
    voxel = jnp.floor(in_voxels(points, voxel_size))
    inside = jnp.all(jnp.abs(voxel) <= MAX_COORDINATE, axis=1)  # False for NaN
    inside = inside & (voxel_size > 0) & (batch >= 0) & (batch <= MAX_COORDINATE)
    xyz = jnp.where(inside[:, None], voxel, 0).astype(jnp.int32)
    first = jnp.where(inside, batch, 0).astype(jnp.int32)
    return jnp.concatenate([first[:, None], xyz], axis=1), inside


def in_voxels(points: Float[Array, "N 3"], voxel_size: Float[Array, ""]) -> Float[Array, "N 3"]:
    """`points / voxel_size`, correctly rounded: points on borders fall where NumPy puts them.

    XLA would turn the division by a scalar into a product with its rounded reciprocal.
    """
    divisor = jnp.broadcast_to(voxel_size.astype(points.dtype), points.shape)
    return points / jax.lax.optimization_barrier(divisor)


def _within_range(coords):
    xyz = jnp.all((coords[:, 1:] >= -MAX_COORDINATE) & (coords[:, 1:] <= MAX_COORDINATE), axis=1)
    return xyz & (coords[:, 0] >= 0) & (coords[:, 0] <= MAX_COORDINATE)


def _distinct(coords, mask, inside, voxel_size, capacity, stride, implementation):
    validate.size("capacity", capacity)
    return _build(coords, mask, inside, voxel_size, capacity, stride, implementation)


@jax.jit(static_argnums=(4, 5, 6))
def _build(coords, mask, inside, voxel_size, capacity, stride, implementation):
    """The grid of coordinates [N, 4] with `mask & inside`, and each coordinate's row in it."""
    if coords.shape[0] == 0:  # one row that counts for nothing: XLA cannot gather from none
        nothing = jnp.zeros(1, bool)
        coords = jnp.zeros((1, 4), jnp.int32)
        grid, row = _build(coords, nothing, nothing, voxel_size, capacity, stride, implementation)
        return grid, row[:0]
    usable = mask & inside

    def native(coords, usable):
        shapes = (
            jax.ShapeDtypeStruct((capacity, 4), jnp.int32),
            jax.ShapeDtypeStruct((), jnp.int32),
            jax.ShapeDtypeStruct((), jnp.int32),
            jax.ShapeDtypeStruct(usable.shape, jnp.int32),
        )
        return tuple(native_kernels.call("haskd_voxelize", shapes, coords, usable))

    def xla(coords, usable):
        return _distinct_xla(coords, usable, capacity)

    voxels, kept, overflow, row = run(implementation, native=native, xla=xla, args=(coords, usable))
    valid = jnp.arange(capacity, dtype=jnp.int32) < kept
    table = _hash_table.build(voxels, valid, implementation)
    invalid = jnp.sum(mask & ~inside, dtype=jnp.int32)
    return VoxelGrid(voxels, valid, overflow, invalid, table, voxel_size, stride), row


def _distinct_xla(coords, usable, capacity):
    """Distinct voxels by hashing, then sorting `capacity` of them: XLA's sort is slow on CPU."""
    count = coords.shape[0]
    first = _hash_table.first_rows(coords, usable)
    rows = jnp.arange(count, dtype=jnp.int32)
    is_first = usable & (first == rows)
    rank = jnp.cumsum(is_first, dtype=jnp.int32) - 1  # in order of first appearance
    distinct = jnp.sum(is_first, dtype=jnp.int32)

    target = jnp.where(is_first, rank, capacity)  # at or past the capacity: dropped
    voxels = jnp.full((capacity, 4), PADDING, jnp.int32).at[target].set(coords, mode="drop")
    ranks = jnp.arange(capacity, dtype=jnp.int32)
    *columns, order = jax.lax.sort((*voxels.T, ranks), num_keys=4)
    place = jnp.zeros_like(order).at[order].set(ranks)  # rank -> sorted row

    rank_of_point = rank.at[first].get(mode="clip")
    fits = usable & (rank_of_point < capacity)
    row = jnp.where(fits, place.at[rank_of_point].get(mode="clip"), -1)
    kept = jnp.minimum(distinct, capacity)
    return jnp.stack(columns, axis=1), kept, distinct - kept, row
