"""The oracle itself, held to dense convolution, to SciPy and to cases small enough to read."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.spatial

from . import oracle

SIDE = 7  # of the dense box that stands for all of space


def _sparse_box(rng, *, density=0.4, channels=3):
    """A random dense box [SIDE, SIDE, SIDE, C], zero where empty, and its grid and features."""
    occupied = rng.uniform(size=(SIDE,) * 3) < density
    grid, _ = oracle.grid_from_coords(
        np.insert(rng.permutation(np.argwhere(occupied)), 0, 0, axis=1), capacity=SIDE**3 + 5
    )
    dense = rng.normal(size=(*occupied.shape, channels)) * occupied[..., None]
    features = np.full((len(grid.mask), channels), np.nan)
    features[grid.mask] = dense[tuple(grid.coords[grid.mask, 1:].T)]
    return dense, grid, features


def _dense_conv(dense, weights, kernel_size, dilation):
    """Dense cross-correlation with zero borders, one channel pair at a time."""
    offsets = oracle.kernel_offsets(kernel_size, dilation)
    reach = int(np.abs(offsets).max())
    out = np.zeros((*dense.shape[:3], weights.shape[2]))
    for c in range(weights.shape[1]):
        for d in range(weights.shape[2]):
            kernel = np.zeros((2 * reach + 1,) * 3)
            kernel[tuple((offsets + reach).T)] = weights[:, c, d]
            out[..., d] += scipy.ndimage.correlate(dense[..., c], kernel, mode="constant")
    return out


@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (2, 1), (3, 1), (3, 2), (5, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_is_dense_correlation_at_the_output_voxels(kernel_size, dilation, stride):
    rng = np.random.default_rng(kernel_size * 10 + stride)
    dense, grid, features = _sparse_box(rng)
    out_grid = grid if stride == 1 else oracle.downsample(grid, stride=2, capacity=100)
    weights = rng.normal(size=(kernel_size**3, 3, 2))
    nbr = oracle.neighbours(grid, out_grid, kernel_size=kernel_size, dilation=dilation)
    out = oracle.conv(features, weights, nbr)
    expected = _dense_conv(dense, weights, kernel_size, dilation)
    where = tuple(out_grid.coords[out_grid.mask, 1:].T)
    np.testing.assert_allclose(out[out_grid.mask], expected[where], atol=1e-12)
    assert not out[~out_grid.mask].any()


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_gradients_are_the_adjoints(stride):
    """conv is linear in either argument, so <g, conv(f, w)> names both gradients exactly."""
    rng = np.random.default_rng(3)
    _, grid, features = _sparse_box(rng)
    out_grid = grid if stride == 1 else oracle.downsample(grid, stride=2, capacity=100)
    nbr = oracle.neighbours(grid, out_grid, kernel_size=3)
    weights = rng.normal(size=(27, 3, 2))
    cotangent = rng.normal(size=(len(out_grid.mask), 2))
    cotangent[~out_grid.mask] = np.nan
    out = oracle.conv(features, weights, nbr)
    value = (cotangent * out)[out_grid.mask].sum()
    to_input = oracle.conv_input_gradient(cotangent, weights, nbr, len(grid.mask))
    to_weight = oracle.conv_weight_gradient(features, cotangent, nbr)
    assert (to_input * features)[grid.mask].sum() == pytest.approx(value, rel=1e-12)
    assert (to_weight * weights).sum() == pytest.approx(value, rel=1e-12)
    turned = oracle.turned(nbr, len(grid.mask))
    transposed = oracle.conv(cotangent, weights.transpose(0, 2, 1), turned)
    np.testing.assert_allclose(transposed, to_input, atol=1e-12)


def test_voxelize_by_hand():
    points = np.array(
        [[0.1, 0.0, 0.9], [-0.1, 0, 0], [5, 5, 5], [0.4, 0.2, 0.1], [np.nan, 0, 0], [9, 9, 9]],
        np.float32,
    )
    mask = np.array([True, True, True, True, True, False])
    grid, row = oracle.voxelize(points, voxel_size=0.5, capacity=3, mask=mask)
    # Distinct, first come first: (0,0,1) (-1,0,0) (10,10,10) (0,0,0): the last does not fit.
    assert grid.coords.tolist() == [[0, -1, 0, 0], [0, 0, 0, 1], [0, 10, 10, 10]]
    assert row.tolist() == [1, 0, 2, -1, -1, -1]
    assert (grid.overflow, grid.invalid) == (1, 1)


def test_limits_of_the_coordinates():
    edge = [[0, 2**30, -(2**30), 0], [2**30, 0, 0, 0], [0, 2**30 + 1, 0, 0], [-1, 0, 0, 0]]
    grid, row = oracle.grid_from_coords(np.array(edge), capacity=8)
    assert row.tolist() == [0, 1, -1, -1]
    assert (grid.mask.sum(), grid.invalid) == (2, 2)


def test_downsample_floors_toward_minus_infinity_and_keeps_scenes_apart():
    coords = np.array([[0, -1, 0, 3], [0, -2, 1, 2], [1, -1, 0, 3], [0, -3, 0, 0]])
    grid, _ = oracle.grid_from_coords(coords, capacity=4)
    half = oracle.downsample(grid, capacity=4)
    assert half.coords[half.mask].tolist() == [[0, -4, 0, 0], [0, -2, 0, 2], [1, -2, 0, 2]]
    quarter = oracle.downsample(half, capacity=4)
    assert quarter.coords[quarter.mask].tolist() == [[0, -4, 0, 0], [1, -4, 0, 0]]
    assert (half.stride, quarter.stride) == (2, 4)


def test_kernel_offsets_order():
    assert oracle.kernel_offsets(2).tolist() == [
        [0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1],
    ]  # fmt: skip
    three = oracle.kernel_offsets(3, dilation=2)
    assert three[[0, 1, 3, 9, 13, 26]].tolist() == [
        [-2, -2, -2], [-2, -2, 0], [-2, 0, -2], [0, -2, -2], [0, 0, 0], [2, 2, 2],
    ]  # fmt: skip


def test_unpool_and_pool_are_parents_and_children():
    coords = np.array([[0, -1, 0, 0], [0, -2, 0, 0], [0, 0, 0, 0]])
    fine, _ = oracle.grid_from_coords(coords, capacity=4)
    coarse = oracle.downsample(fine, capacity=3)
    nbr = oracle.neighbours(fine, coarse, kernel_size=2)
    features = np.array([[1.0], [3.0], [5.0], [np.nan]])
    assert oracle.pool(features, nbr, reduction="max").ravel().tolist() == [3, 5, 0]
    assert oracle.pool(features, nbr, reduction="mean").ravel().tolist() == [2, 5, 0]
    assert oracle.unpool(np.array([[7.0], [8], [np.nan]]), nbr, 4).ravel().tolist() == [7, 7, 8, 0]


def test_trilinear_reproduces_a_linear_field_and_renormalises_at_the_rim():
    block = np.array([[0, x, y, z] for x in range(-4, 4, 2) for y in (0, 2) for z in (0, 2)])
    grid, _ = oracle.grid_from_coords(block, capacity=20, stride=2, voxel_size=0.1)
    centres = (grid.coords[:, 1:] + 1) * 0.1
    slope = np.array([1.0, -2.0, 3.0])
    features = np.where(grid.mask, centres @ slope, np.nan)[:, None]
    points = np.array([[0.05, 0.2, 0.25], [-0.29, 0.11, 0.3]])
    inside = oracle.devoxelize(features, grid, points, mode="trilinear")
    np.testing.assert_allclose(inside[:, 0], points @ slope, atol=1e-12)
    # Beyond the last centre along x only the near plane is left.
    rim = oracle.devoxelize(features, grid, np.array([[0.35, 0.2, 0.25]]), mode="trilinear")
    np.testing.assert_allclose(rim[:, 0], np.array([[0.3, 0.2, 0.25]]) @ slope, atol=1e-12)
    assert oracle.devoxelize(features, grid, np.full((1, 3), 9.0), mode="trilinear") == 0
    assert oracle.devoxelize(features, grid, np.full((1, 3), math.inf), mode="trilinear") == 0


def test_sums_and_means_by_hand():
    features = np.array([[1.0], [2.0], [np.nan], [5.0]])
    ids = np.array([1, 1, -1, 0])
    assert oracle.segment_sum(features, ids, 3).ravel().tolist() == [5, 3, 0]
    assert oracle.voxel_mean(features, ids, 3).ravel().tolist() == [5, 1.5, 0]
    grid, _ = oracle.grid_from_coords(np.array([[0, 0, 0, 0], [2, 0, 0, 0]]), capacity=3)
    pooled = oracle.global_pool(np.array([[4.0], [6], [np.nan]]), grid, num_scenes=3)
    assert pooled.ravel().tolist() == [4, 0, 6]


def test_edges_leave_out_the_voxel_itself():
    grid, _ = oracle.grid_from_coords(np.array([[0, 0, 0, 0], [0, 0, 0, 1]]), capacity=3)
    assert oracle.voxel_edges(oracle.neighbours(grid, grid, kernel_size=3)) == {(0, 1), (1, 0)}


def test_knn_agrees_with_scipy_and_orders_ties():
    rng = np.random.default_rng(1)
    points, queries = rng.normal(size=(50, 3)), rng.normal(size=(9, 3))
    indices, distances = oracle.knn(queries, points, 4)
    expected, order = scipy.spatial.cKDTree(points).query(queries, 4)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)
    corners = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert oracle.knn(np.zeros((1, 3)), corners, 3)[0].tolist() == [[3, 0, 1]]
