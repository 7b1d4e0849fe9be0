"""What runs on GPU and TPU in place of the CPU's portable forms, compiled here for the CPU."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import sparse
from haskd_jax.sparse import _hash_table

from . import test_conv, test_edges, test_grid

conv = sys.modules["haskd_jax.sparse.conv"]  # `sparse.conv` is the function


@pytest.fixture(scope="module", autouse=True)
def taken():
    """Takes the other branch wherever the platform decides; in parts of a few hundred rows."""
    branches = []

    def default_of(*args, default, cpu):
        branches.append(default)
        return default(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.lax, "platform_dependent", default_of)
        patch.setattr(conv, "_GATHERED_BYTES", 2**20)
        _forget()
        yield branches
    _forget()


def _forget():
    """What was compiled or built for the other branch."""
    jax.clear_caches()
    for cached in (test_conv._grids, test_conv._neighbours, test_conv._kernel_map):
        cached.cache_clear()


class TestOneProduct(test_conv.ConvSuite):
    """One matrix product for all offsets."""

    implementation = "xla"

    def test_it_is_what_runs(self, taken):
        self._check(("submanifold", 3, 1), (3, 4))
        assert {conv._one_product, conv._one_product_of_rows} <= set(taken)

    def test_a_weight_that_no_pair_uses_may_be_infinite(self):
        test_edges.test_a_weight_that_no_pair_uses_may_be_infinite("xla")

    def test_a_weight_that_is_not_finite_spoils_the_rows_that_meet_it(self):
        """Which a training notices, as it does an infinity."""
        coords = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 5, 5, 5]])
        grid, _ = sparse.grid_from_coords(coords, capacity=4)
        kmap = sparse.kernel_map(grid, kernel_size=3)
        weights = jnp.ones((27, 1, 1)).at[14].set(jnp.inf)  # of the neighbour at z + 1
        out = sparse.conv(jnp.ones((4, 1)), weights, kmap, implementation="xla")
        np.testing.assert_array_equal(out[:, 0], [np.nan, 2, 1, 0])

    def test_what_fills_the_last_part_meets_no_row(self, monkeypatch):
        """NaN in a row that no pair uses, the first, stays out of the weight gradient."""
        monkeypatch.setattr(conv, "_GATHERED_BYTES", 8)  # two rows a part, three parts
        features = jnp.array([[np.nan], [1], [2], [3], [4]])
        neighbours = jnp.array([[1, 2, 3, 4, -1]], jnp.int32)
        gradient = conv._weight_gradient_xla(features, jnp.ones((5, 1)), neighbours)
        np.testing.assert_array_equal(gradient, [[[10]]])


class TestBisection(test_grid.GridSuite):
    """Lookups and maps without hash tables."""

    implementation = "xla"


@pytest.mark.parametrize("capacity", [1, 2, 3, 1000, 4096])
def test_bisection_finds_what_probing_finds(capacity):
    """The table is what probing needs; with capacities that hold all voxels, some, or just one."""
    rng = np.random.default_rng(capacity)
    coords = rng.integers(-6, 6, (3000, 4)).astype(np.int32)
    coords[:, 0] = np.abs(coords[:, 0]) % 2
    grid, _ = sparse.grid_from_coords(coords, capacity=capacity)
    extremes = [np.iinfo(np.int32).max, np.iinfo(np.int32).min, _hash_table.PADDING - 1]
    queries = np.concatenate(
        [rng.integers(-9, 9, (5000, 4)), coords, np.repeat(extremes, 4).reshape(3, 4)]
    ).astype(np.int32)
    row = {tuple(voxel): i for i, voxel in enumerate(np.asarray(grid.coords).tolist())}
    padding = (_hash_table.PADDING,) * 4
    row.pop(padding, None)
    expected = [row.get(tuple(query), -1) for query in queries.tolist()]
    for find in (_hash_table.probe, _hash_table.bisect):
        found = jax.jit(find)(grid.coords, grid.table, jnp.asarray(queries))
        np.testing.assert_array_equal(found, expected, err_msg=find.__name__)
