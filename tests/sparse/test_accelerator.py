"""What runs on GPU and TPU in place of the CPU's portable forms, compiled here for the CPU."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import sparse
from haskd_jax.sparse import _hash_table

from .test_conv import ConvSuite


@pytest.fixture(scope="module", autouse=True)
def as_on_an_accelerator():
    """Takes the other branch wherever the platform decides; in parts of a few hundred rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.lax, "platform_dependent", lambda *args, default, cpu: default(*args))
        patch.setattr(sys.modules["haskd_jax.sparse.conv"], "_GATHERED_BYTES", 2**20)
        jax.clear_caches()
        yield
    jax.clear_caches()


class TestOneProduct(ConvSuite):
    """One matrix product for all offsets."""

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
