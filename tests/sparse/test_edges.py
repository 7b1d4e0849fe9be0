"""Inputs at the edge of what is allowed, which once went wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import losses, sparse
from haskd_jax.train.compilations import count_compilations

from . import common

COORDS = np.array([[0, 3, 1, 2], [1, 3, 1, 2]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64])
def test_coordinates_of_any_integer_type(dtype):
    grid, row = sparse.grid_from_coords(COORDS.astype(dtype), capacity=4)
    np.testing.assert_array_equal(row, [0, 1])
    np.testing.assert_array_equal(sparse.lookup(grid, COORDS.astype(dtype)), [0, 1])


@pytest.mark.parametrize("implementation", common.IMPLEMENTATIONS)
def test_a_voxel_of_many_points(implementation):
    """It spans many of the ranges that the native kernel works on at a time."""
    points = np.full((40_000, 3), 0.5, np.float32)
    points[-1] = 1.5
    grid, row = sparse.voxelize(points, voxel_size=1.0, capacity=2, implementation=implementation)
    assert int(grid.mask.sum()) == 2
    np.testing.assert_array_equal(row, [0] * 39_999 + [1])


@pytest.mark.parametrize("implementation", common.IMPLEMENTATIONS)
def test_a_weight_that_no_pair_uses_may_be_infinite(implementation):
    grid, _ = sparse.grid_from_coords(COORDS, capacity=4)
    kmap = sparse.kernel_map(grid, kernel_size=3)
    weights = jnp.full((27, 1, 1), jnp.inf).at[13].set(2.0)
    out = sparse.conv(jnp.ones((4, 1)), weights, kmap, implementation=implementation)
    np.testing.assert_array_equal(out[:, 0], [2, 2, 0, 0])


@pytest.mark.parametrize("channels", [(0, 2), (2, 0)], ids=str)
@pytest.mark.parametrize("implementation", common.IMPLEMENTATIONS)
def test_channels_may_be_none(implementation, channels):
    grid, _ = sparse.grid_from_coords(COORDS, capacity=4)
    kmap = sparse.kernel_map(grid, kernel_size=3)
    features, weights = jnp.ones((4, channels[0])), jnp.ones((27, *channels))
    out = sparse.conv(features, weights, kmap, implementation=implementation)
    np.testing.assert_array_equal(out, np.zeros((4, channels[1])))


@pytest.mark.parametrize("rows", [(0, 0), (0, 4), (4, 0)], ids=str)
@pytest.mark.parametrize("implementation", [None, *common.IMPLEMENTATIONS])
def test_rows_may_be_none(implementation, rows):
    """Of the input, the result, or both, as of a teacher that was given no image."""
    inputs, outputs = rows
    neighbours = jnp.full((1, outputs), -1, jnp.int32)
    kmap = sparse.KernelMap(
        neighbours, jnp.full((1, inputs), -1, jnp.int32), kernel_size=1, dilation=1, strides=(1, 1)
    )

    def total(features, weights):
        return jnp.sum(sparse.conv(features, weights, kmap, implementation=implementation))

    features, weights = jnp.ones((inputs, 2)), jnp.ones((1, 2, 3))
    out = sparse.conv(features, weights, kmap, implementation=implementation)
    np.testing.assert_array_equal(out, np.zeros((outputs, 3)))
    d_features, d_weights = jax.grad(total, argnums=(0, 1))(features, weights)
    assert d_features.shape == (inputs, 2) and not np.any(d_weights)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_points_that_are_too_coarse_are_refused_on_the_way_back_too(dtype):
    points = np.array([[60.03125, 0, 0]], np.float32)  # float16 holds it, its voxel's number not
    grid, _ = sparse.voxelize(points, voxel_size=0.02, capacity=1)
    assert sparse.devoxelize(jnp.array([[7.0]]), grid, points).tolist() == [[7.0]]
    with pytest.raises(ValueError, match="too coarse for coordinates"):
        sparse.devoxelize(jnp.array([[7.0]]), grid, points.astype(dtype))
    with pytest.raises(ValueError, match="subtract an origin"):
        sparse.devoxelize(jnp.array([[7.0]]), grid, points.astype(float) + 1e6 + 0.01)


def test_calls_outside_of_jit_compile_once():
    """A loop's body that is made anew at every call would be compiled anew, too."""
    grid, _ = sparse.grid_from_coords(COORDS, capacity=4)
    kmap = sparse.kernel_map(grid, kernel_size=3)
    features, graph = jnp.ones((4, 2)), sparse.voxel_graph(kmap)

    def calls():
        sparse.kernel_map(grid, kernel_size=3, implementation="xla")
        for reduction in ("max", "mean", "sum"):
            sparse.pool(features, kmap, reduction=reduction)
        losses.relational(features, features, graph)
        losses.feature_cosine(features, features, projection=jnp.eye(2))

    calls()
    compilations = count_compilations()
    calls()
    assert compilations() == 0


def test_unpool_refuses_maps_that_lead_to_no_parent():
    grid, _ = sparse.grid_from_coords(COORDS, capacity=4)
    coarse = sparse.downsample(grid, capacity=4)
    down = sparse.kernel_map(grid, coarse, kernel_size=2)
    for kmap in (sparse.kernel_map(grid, kernel_size=2), down.T):
        with pytest.raises(ValueError, match="only in the kernel_size=2 map"):
            sparse.unpool(jnp.ones((4, 1)), kmap)
    assert sparse.unpool(jnp.ones((4, 1)), down).shape == (4, 1)


@pytest.mark.parametrize("dilation", [2**32, 0])
def test_dilations_that_leave_the_grid_are_refused(dilation):
    with pytest.raises(ValueError, match="dilation"):
        sparse.kernel_offsets(3, dilation)
