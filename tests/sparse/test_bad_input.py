"""What is wrong is refused with a ValueError that names the argument and the value."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import sparse

from .clouds import wall_cells

pytestmark = pytest.mark.usefixtures("unchecked_annotations")

CELLS = jnp.asarray(wall_cells(np.random.default_rng(0), size=6), jnp.int32)
POINTS = (CELLS[:, 1:].astype(jnp.float32) + 0.5) * 0.05
N = len(CELLS)
VOXELIZE = {"voxel_size": 0.05, "capacity": 64}


@pytest.fixture(scope="module")
def grid():
    return sparse.grid_from_coords(CELLS, capacity=N + 3)[0]


@pytest.fixture(scope="module")
def coarse(grid):
    return sparse.downsample(grid, capacity=N)


@pytest.fixture(scope="module")
def kmap(grid):
    return sparse.kernel_map(grid, kernel_size=3)


@pytest.fixture(scope="module")
def down(grid, coarse):
    return sparse.kernel_map(grid, coarse, kernel_size=2)


def refuses(*named):
    """The message names the argument and quotes the value."""
    return pytest.raises(ValueError, match="(?s)" + "".join(f"(?=.*(?:{part}))" for part in named))


# --- points and coordinates -----------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite(value):
    with refuses("points", str(value).lstrip("-")):
        sparse.voxelize(POINTS.at[7, 1].set(value), **VOXELIZE)
    sparse.voxelize(POINTS.at[7, 1].set(value), **VOXELIZE, mask=jnp.arange(N) != 7)


def test_points_beyond_the_integer_range_at_this_voxel_size():
    with refuses("points", "voxel_size"):
        sparse.voxelize(POINTS.at[7, 1].set(1e9), **VOXELIZE)
    sparse.voxelize(POINTS.at[7, 1].set(1e9), voxel_size=100.0, capacity=64)


def test_points_that_lose_their_voxels_as_float32():
    far = np.array([[4500000.01, 0, 0], [4500000.15, 0, 0]])
    with refuses("points", "4500000", "voxel_size=0.05", "subtract an origin"):
        sparse.voxelize(far, voxel_size=0.05, capacity=4)
    sparse.voxelize(far, voxel_size=4.0, capacity=4)
    sparse.voxelize(far, voxel_size=0.05, capacity=4, mask=np.zeros(2, bool))


@pytest.mark.parametrize("value", [-1, 2**30 + 1])
def test_batch_out_of_range(value):
    with refuses("batch", value):
        sparse.voxelize(POINTS, **VOXELIZE, batch=jnp.zeros(N, jnp.int32).at[5].set(value))


@pytest.mark.parametrize("value", [2**30 + 1, -(2**30) - 1])
def test_coordinates_out_of_range(value):
    with refuses("coords", value):
        sparse.grid_from_coords(CELLS.at[5, 2].set(value), capacity=64)


@pytest.mark.parametrize("voxel_size", [0.0, -0.1, np.nan, np.inf, np.float32(-0.5), 1e300, "a"])
def test_voxel_size(voxel_size):
    with refuses("voxel_size", re.escape(str(voxel_size))):
        sparse.voxelize(POINTS, voxel_size=voxel_size, capacity=64)


@pytest.mark.parametrize("capacity", [0, -3, 2**31])
def test_capacity(capacity, grid):
    with refuses("capacity", capacity):
        sparse.voxelize(POINTS, voxel_size=0.05, capacity=capacity)
    with refuses("capacity", capacity):
        sparse.grid_from_coords(CELLS, capacity=capacity)
    with refuses("capacity", capacity):
        sparse.downsample(grid, capacity=capacity)
    with refuses("capacity", capacity):
        sparse.pyramid(grid, capacities=(N, capacity))
    with refuses("capacity", capacity):
        sparse.voxel_mean(POINTS, jnp.zeros(N, jnp.int32), capacity)
    with refuses("num_segments", capacity):
        sparse.segment_sum(POINTS, jnp.zeros(N, jnp.int32), capacity)
    with refuses("num_scenes", capacity):
        sparse.global_pool(jnp.zeros((N + 3, 2)), grid, num_scenes=capacity)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("points", POINTS[:, :2]),
        ("points", POINTS[0]),
        ("points", CELLS[:, 1:]),
        ("batch", jnp.zeros(N - 1, jnp.int32)),
        ("batch", jnp.zeros(N, jnp.float32)),
        ("mask", jnp.ones(N + 1, bool)),
        ("mask", jnp.ones(N, jnp.int32)),
    ],
)
@pytest.mark.parametrize("jitted", [False, True])
def test_shapes_and_dtypes_of_points(argument, value, jitted):
    arguments = {
        "points": POINTS,
        "batch": jnp.zeros(N, jnp.int32),
        "mask": jnp.ones(N, bool),
    } | {argument: value}

    def voxelize(arguments):
        return sparse.voxelize(**arguments, **VOXELIZE)

    quoted = f"{', '.join(map(str, value.shape))}|{value.dtype}"
    with refuses(argument, quoted):
        (jax.jit(voxelize) if jitted else voxelize)(arguments)


@pytest.mark.parametrize("coords", [CELLS[:, :3], CELLS.astype(jnp.float32), CELLS[0, :2]])
def test_shapes_and_dtypes_of_coords(coords, grid):
    with refuses("coords"):
        sparse.grid_from_coords(coords, capacity=64)
    with refuses("coords"):
        sparse.lookup(grid, coords)


# --- grids and maps -------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 0, -2, 2**40])
def test_stride(stride, grid):
    with refuses("stride", stride):
        sparse.downsample(grid, stride=stride, capacity=64)
    if stride != 1:
        with refuses("stride", stride):
            sparse.grid_from_coords(CELLS, capacity=64, stride=stride)


@pytest.mark.parametrize("kernel_size", [0, 4, 7, -3])
def test_kernel_size(kernel_size, grid):
    with refuses("kernel_size", kernel_size):
        sparse.kernel_map(grid, kernel_size=kernel_size)
    with refuses("kernel_size", kernel_size):
        sparse.kernel_offsets(kernel_size)
    with refuses("kernel_size", kernel_size):
        sparse.pyramid(grid, capacities=(N,), kernel_size=kernel_size)


@pytest.mark.parametrize("dilation", [0, -1])
def test_dilation(dilation, grid):
    with refuses("dilation", dilation):
        sparse.kernel_map(grid, kernel_size=3, dilation=dilation)
    with refuses("dilation", dilation):
        sparse.kernel_offsets(3, dilation)


def test_a_finer_output_grid_points_to_the_turned_map(grid, coarse):
    with refuses("grid_out", r"\.T"):
        sparse.kernel_map(coarse, grid, kernel_size=2)


# --- features -------------------------------------------------------------------------------


def test_conv_shapes_and_dtypes(kmap, down, grid, coarse):
    rows, coarse_rows = len(grid.mask), len(coarse.mask)
    weights = jnp.zeros((27, 4, 6))
    for features in (jnp.zeros((rows - 1, 4)), jnp.zeros(rows), jnp.zeros((rows, 4), jnp.int32)):
        with refuses("features"):
            sparse.conv(features, weights, kmap)
    features = jnp.zeros((rows, 4))
    for bad in (jnp.zeros((8, 4, 6)), jnp.zeros((27, 5, 6)), jnp.zeros((27, 4))):
        with refuses("weights", ", ".join(map(str, bad.shape))):
            sparse.conv(features, bad, kmap)
    for dtype in ("int32", "bfloat16"):
        with refuses("weights", dtype):
            sparse.conv(features, weights.astype(dtype), kmap)
    with refuses("features"):  # turned round, the map reads coarse rows
        sparse.conv(jnp.zeros((coarse_rows + 1, 4)), jnp.zeros((8, 4, 6)), down.T)


@pytest.mark.parametrize("name", ["pallas", "cuda", "XLA", ""])
def test_implementations_that_do_not_exist(name, kmap, grid):
    features = jnp.zeros((len(grid.mask), 4))
    quoted = f"[\"']{name}[\"']"
    with refuses("implementation", quoted):
        sparse.conv(features, jnp.zeros((27, 4, 6)), kmap, implementation=name)
    with refuses("implementation", quoted):
        sparse.voxelize(POINTS, **VOXELIZE, implementation=name)
    with refuses("implementation", quoted):
        sparse.grid_from_coords(CELLS, capacity=64, implementation=name)
    with refuses("implementation", quoted):
        sparse.lookup(grid, CELLS, implementation=name)
    with refuses("implementation", quoted):
        sparse.downsample(grid, capacity=64, implementation=name)
    with refuses("implementation", quoted):
        sparse.kernel_map(grid, kernel_size=3, implementation=name)
    with refuses("implementation", quoted):
        sparse.pyramid(grid, capacities=(N,), implementation=name)
    with refuses("implementation", quoted):
        sparse.devoxelize(features, grid, POINTS, implementation=name)
    with refuses("implementation", quoted):
        sparse.segment_sum(POINTS, jnp.zeros(N, jnp.int32), 4, implementation=name)


def test_pooling(kmap, down, grid, coarse):
    rows = len(grid.mask)
    with refuses("reduction", "median"):
        sparse.pool(jnp.zeros((rows, 4)), kmap, reduction="median")
    with refuses("reduction", "median"):
        sparse.global_pool(jnp.zeros((rows, 4)), grid, num_scenes=2, reduction="median")
    with refuses("features", rows - 1):
        sparse.pool(jnp.zeros((rows - 1, 4)), kmap)
    with refuses("features", len(coarse.mask) + 1):
        sparse.unpool(jnp.zeros((len(coarse.mask) + 1, 4)), down)
    with refuses("features", rows - 1):
        sparse.global_pool(jnp.zeros((rows - 1, 4)), grid, num_scenes=2)
    with refuses("ids"):
        sparse.segment_sum(POINTS, jnp.zeros(N - 1, jnp.int32), 4)
    with refuses("point_to_voxel"):
        sparse.voxel_mean(POINTS, jnp.zeros(N - 1, jnp.int32), 4)


def test_devoxelize(grid):
    features = jnp.zeros((len(grid.mask), 4))
    with refuses("mode", "cubic"):
        sparse.devoxelize(features, grid, POINTS, mode="cubic")
    with refuses("features"):
        sparse.devoxelize(features[1:], grid, POINTS)
    with refuses("points"):
        sparse.devoxelize(features, grid, POINTS[:, :2])
    with refuses("batch"):
        sparse.devoxelize(features, grid, POINTS, jnp.zeros(N + 1, jnp.int32))


def test_knn():
    points = np.asarray(POINTS)
    with refuses("k", N + 1):
        sparse.knn(points, points, N + 1)
    with refuses("k", 0):
        sparse.knn(points, points, 0)
    with refuses("backend", "faiss"):
        sparse.knn(points, points, 2, backend="faiss")
    bad = points.copy()
    bad[3, 1] = np.nan
    with refuses("points"):
        sparse.knn(points, bad, 2)
    with refuses("queries"):
        sparse.knn(bad, points, 2)
    with refuses("points"):
        sparse.knn(points, points[:, :2], 2)


def test_batch_norm():
    x, mask, ones = jnp.ones((4, 2)), jnp.ones(4, bool), jnp.ones(2)
    with pytest.raises(ValueError, match=r"mask has shape \[3\]: must be \[4\]"):
        sparse.batch_norm(x, mask[:3], ones, ones)
    with pytest.raises(ValueError, match=r"scale has shape \[1\]: must be \[2\]"):
        sparse.batch_norm(x, mask, ones[:1], ones)
    with pytest.raises(ValueError, match="residual has dtype bfloat16, x float32"):
        sparse.normalize(x, mask, ones, ones, ones, residual=x.astype(jnp.bfloat16))
    with pytest.raises(ValueError, match="implementation='pallas'"):
        sparse.batch_norm(x, mask, ones, ones, implementation="pallas")
