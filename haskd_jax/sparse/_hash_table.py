"""Rows by coordinates: open-addressing hash tables, built and read in parallel.

Accelerators do not read them: rows are in order, and are bisected there.

Slots hold row indices, -1 where empty; coordinates themselves are compared, never only hashes.
Probes are triangular (steps 1, 2, 3, ... round a power of two), which visits every slot.

Insertion runs in rounds: every row claims a slot, the lowest row keeps it, the others move on. A
row that loses its slot later, to a lower row that arrives there, moves on too. As every slot
prefers lower rows, the outcome is the table that inserting rows one by one in order gives: it
depends on nothing but the coordinates.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt32

from haskd_jax import native_kernels
from haskd_jax.implementation import run

PADDING = np.iinfo(np.int32).max  # coordinates of padding rows: sorts last, and is no voxel's


def table_size(entries: int) -> int:
    """Slots for `entries` rows: a power of two, at most half full."""
    return 1 << max(1, (2 * entries - 1).bit_length())


def build(
    coords: Int32[Array, "V 4"], mask: Bool[Array, "V"], implementation: str | None
) -> Int32[Array, "T"]:
    """The table of distinct coordinates whose valid rows come first."""

    def xla(coords, mask):
        rows = jnp.arange(coords.shape[0], dtype=jnp.int32)
        table, _ = _insert(coords, mask, lambda owner: owner == rows)
        return jnp.where(table == coords.shape[0], -1, table)

    def native(coords, mask):
        result = jax.ShapeDtypeStruct((table_size(coords.shape[0]),), jnp.int32)
        return native_kernels.call("haskd_build_table", result, coords, mask)

    return run(implementation, native=native, xla=xla, args=(coords, mask))


def first_rows(coords: Int32[Array, "N 4"], mask: Bool[Array, "N"]) -> Int32[Array, "N"]:
    """For each row with `mask` the first such row with the same coordinates; else anything."""

    def is_mine(owner):
        return jnp.all(coords.at[owner].get(mode="clip") == coords, axis=1)

    table, slot = _insert(coords, mask, is_mine)
    return table[slot]


def find(
    coords: Int32[Array, "V 4"],
    table: Int32[Array, "T"],
    queries: Int32[Array, "M 4"],
    implementation: str | None,
) -> Int32[Array, "M"]:
    """Row of each query, -1 where there is none.

    Rows are in lexicographic order, padding (all `PADDING`) last; `table` is what `build` made.
    """

    def xla(coords, table, queries):
        return jax.lax.platform_dependent(coords, table, queries, cpu=probe, default=bisect)

    def native(coords, table, queries):
        result = jax.ShapeDtypeStruct(queries.shape[:1], jnp.int32)
        return native_kernels.call("haskd_lookup", result, coords, table, queries)

    return run(implementation, native=native, xla=xla, args=(coords, table, queries))


def probe(coords, table, queries):
    """As `find`: until every query has met its row or an empty slot."""

    def missed(row):
        return (row >= 0) & jnp.any(coords[row] != queries, axis=1)

    def move_on(state):
        step, slot, row = state
        slot = (slot + step) & _last(table)
        return step + 1, slot, jnp.where(missed(row), table[slot], row)

    slot = _hash(queries) & _last(table)
    state = (jnp.uint32(1), slot, table[slot])
    return jax.lax.while_loop(lambda state: jnp.any(missed(state[2])), move_on, state)[2]


def bisect(coords, table, queries):
    """As `find`: rows are in order, padding last, so that no table is needed.

    The number of turns is known beforehand. Where it is not, an accelerator waits in each turn for
    the host to say whether there is another.
    """
    del table
    last = coords.shape[0] - 1

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        below = _before(coords[middle], queries)
        return jnp.where(below, middle + 1, low), jnp.where(below, high, middle)

    first = jnp.zeros_like(queries[:, 0])
    low, _ = jax.lax.fori_loop(0, last.bit_length(), halve, (first, first + last))
    row = jnp.minimum(low, last)
    found = jnp.all(coords[row] == queries, axis=1) & (queries[:, 0] != PADDING)
    return jnp.where(found, row, -1)


def _before(a: Int32[Array, "M 4"], b: Int32[Array, "M 4"]) -> Bool[Array, "M"]:
    """Whether a comes before b in lexicographic order."""
    result = a[:, 3] < b[:, 3]
    for i in (2, 1, 0):
        result = (a[:, i] < b[:, i]) | ((a[:, i] == b[:, i]) & result)
    return result


def _insert(coords, mask, is_mine):
    """Slots of all rows with `mask`; `is_mine(owner)` says which rows their slots' owners suit.

    Returns:
      The table, with V where a slot is empty, and the slot of each row.
    """
    count = coords.shape[0]
    # Rows without mask claim with V, which takes nothing from anyone.
    claim = jnp.where(mask, jnp.arange(count, dtype=jnp.int32), count)
    size = table_size(count)
    slot = _hash(coords) & jnp.uint32(size - 1)
    table = jnp.full(size, count, jnp.int32).at[slot].min(claim)

    def lost(state):
        table, slot, _ = state
        return mask & ~is_mine(table[slot])

    def move_on(state):
        table, slot, step = state
        moving = lost(state)
        slot = jnp.where(moving, (slot + step) & jnp.uint32(size - 1), slot)
        step = step + moving.astype(jnp.uint32)
        return table.at[slot].min(claim), slot, step

    state = (table, slot, jnp.ones_like(slot))
    table, slot, _ = jax.lax.while_loop(lambda state: jnp.any(lost(state)), move_on, state)
    return table, slot


def _last(table) -> UInt32[Array, ""]:
    return jnp.uint32(table.shape[0] - 1)


def _hash(coords: Int32[Array, "N 4"]) -> UInt32[Array, "N"]:
    # As `hash` in kernels/hash_table.cc: both build and read the same tables.
    h = jnp.zeros(coords.shape[0], jnp.uint32)
    for value in coords.astype(jnp.uint32).T:
        h = (h ^ value) * jnp.uint32(0x9E3779B1)
        h = h ^ (h >> jnp.uint32(15))
    h = h * jnp.uint32(0x85EBCA77)
    return h ^ (h >> jnp.uint32(13))
