"""Grids and kernel maps of every implementation against the oracle, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import sparse

from . import common, oracle
from .clouds import CAPACITY, VOXEL_SIZE, small_clouds, wall_cells

CLOUDS = small_clouds()
LIMIT = oracle.LIMIT
MAPS = [(1, 1), (2, 1), (2, 3), (3, 1), (3, 2), (3, 3), (5, 1), (5, 2)]  # kernel size, dilation


def _voxelize(name, implementation):
    cloud = CLOUDS[name]
    return common.voxelize(cloud.points, cloud.batch, cloud.mask, implementation=implementation)


class GridSuite:
    """What every implementation must hold to."""

    implementation: str

    @pytest.mark.parametrize("name", CLOUDS)
    def test_voxelize(self, name):
        grid, row = _voxelize(name, self.implementation)
        cloud = CLOUDS[name]
        expected, expected_row = oracle.voxelize(
            cloud.points,
            voxel_size=VOXEL_SIZE,
            capacity=CAPACITY,
            batch=cloud.batch,
            mask=cloud.mask,
        )
        common.assert_is_grid(grid, expected)
        assert row.dtype == np.int32
        np.testing.assert_array_equal(row, expected_row)

    def test_voxelize_outside_jit_with_defaults(self):
        cloud = CLOUDS["walls"]
        points = cloud.points[cloud.mask]
        got = sparse.voxelize(
            points, voxel_size=0.11, capacity=200, implementation=self.implementation
        )
        expected, row = oracle.voxelize(points, voxel_size=0.11, capacity=200)
        common.assert_is_grid(got[0], expected)
        np.testing.assert_array_equal(got[1], row)

    def test_64_bit_types_change_no_bit(self):
        def build():
            grid, row = _voxelize("walls", self.implementation)
            coarse = common.downsample(grid, implementation=self.implementation)
            kmap = common.kernel_map(
                grid, coarse, kernel_size=2, implementation=self.implementation
            )
            return grid, row, coarse, kmap

        with jax.enable_x64(True):
            wide = build()
        common.assert_same_bits(wide, build())

    def test_float64_points_on_voxel_borders(self):
        """The size is not rounded to f32 first, which would put half of them elsewhere."""
        size, multiples = 0.05, np.arange(-40, 41)
        points = np.stack([multiples * size, np.zeros(81), np.zeros(81)], axis=1)
        with jax.enable_x64(True):
            grid, row = sparse.voxelize(
                points, voxel_size=size, capacity=128, implementation=self.implementation
            )
            found = np.asarray(grid.coords)[np.asarray(row), 1]
            back = sparse.devoxelize(
                grid.coords[:, 1:2].astype(float), grid, points, implementation=self.implementation
            )
        np.testing.assert_array_equal(found, np.floor(points[:, 0] / size))
        np.testing.assert_array_equal(back[:, 0], found)

    def test_points_on_voxel_borders(self):
        """floor(point / voxel_size) in f32: no reciprocal, no wider type."""
        multiples = np.arange(-150, 150, dtype=np.float32)[:, None]
        points = np.repeat(multiples * np.float32(VOXEL_SIZE), 3, axis=1)
        points[:, 1] = np.nextafter(points[:, 1], np.float32(np.inf))
        points[:, 2] = np.nextafter(points[:, 2], np.float32(-np.inf))
        points[150] = 0  # whose neighbours are subnormal: zero, on some processors
        batch, mask = np.zeros(300, np.int32), np.ones(300, bool)
        grid, row = common.voxelize(
            points, batch, mask, capacity=300, implementation=self.implementation
        )
        expected, expected_row = oracle.voxelize(points, voxel_size=VOXEL_SIZE, capacity=300)
        common.assert_is_grid(grid, expected)
        np.testing.assert_array_equal(row, expected_row)

    def test_the_last_coordinates(self):
        """Coordinates up to 2**30 either way are voxels, the next float is none."""
        edge = np.float32(LIMIT // 4)
        reach = np.float32(
            [edge, -edge, np.nextafter(edge, 2 * edge), np.nextafter(-edge, -2 * edge)]
        )
        points = np.stack([reach, 0 * reach, 0 * reach], 1)
        grid, row = jax.jit(
            lambda points: sparse.voxelize(
                points, voxel_size=0.25, capacity=4, implementation=self.implementation
            )
        )(points)
        assert row.tolist() == [1, 0, -1, -1] and int(grid.invalid) == 2
        assert grid.coords[:2, 1].tolist() == [-LIMIT, LIMIT]

    def test_unplaceable_points_are_counted_inside_jit(self):
        cloud = CLOUDS["walls"]
        points, batch, mask = cloud.points.copy(), cloud.batch.copy(), cloud.mask.copy()
        edge = np.float32(LIMIT) * np.float32(VOXEL_SIZE)
        points[3] = [np.nan, 0, 0]
        points[5] = [0, -np.inf, 0]
        points[7] = [0, 0, 3e38]
        points[11] = [1.001 * edge, 0, 0]
        points[13] = [0, -1.001 * edge, 0]
        points[17] = [0.999 * edge, -0.999 * edge, 0]  # far, but valid
        batch[19], batch[23], batch[29] = -1, LIMIT + 1, LIMIT
        points[31], mask[31] = np.nan, False
        grid, row = common.voxelize(points, batch, mask, implementation=self.implementation)
        expected, expected_row = oracle.voxelize(
            points, voxel_size=VOXEL_SIZE, capacity=CAPACITY, batch=batch, mask=mask
        )
        assert expected.invalid == 7
        common.assert_is_grid(grid, expected)
        np.testing.assert_array_equal(row, expected_row)

    def test_grid_from_coords(self):
        rng = np.random.default_rng(1)
        coords = rng.integers(-3, 3, (300, 4)) * 2
        coords[:, 0] = rng.integers(0, 3, 300)
        coords[10:16] = [
            [0, LIMIT, -LIMIT, 0],
            [LIMIT, 0, 0, LIMIT],
            [0, LIMIT + 2, 0, 0],
            [0, 0, -LIMIT - 2, 0],
            [-2, 0, 0, 0],
            [0, 0, 0, -(2**31)],
        ]
        mask = rng.uniform(size=300) < 0.9
        mask[10:16] = True
        grid, row = common.grid_from_coords(
            coords.astype(np.int32), mask, stride=2, implementation=self.implementation
        )
        expected, expected_row = oracle.grid_from_coords(
            coords, capacity=CAPACITY, mask=mask, stride=2
        )
        assert expected.invalid == 4
        common.assert_is_grid(grid, expected)
        np.testing.assert_array_equal(row, expected_row)

    @pytest.mark.parametrize("name", CLOUDS)
    def test_lookup(self, name):
        grid, _ = _voxelize(name, self.implementation)
        rng = np.random.default_rng(2)
        queries = np.concatenate(
            [
                np.asarray(grid.coords),  # the padding rows too, which must not find themselves
                np.asarray(grid.coords) + rng.integers(-1, 2, grid.coords.shape, np.int32),
                rng.integers(-(2**31), 2**31, (128, 4)).astype(np.int32),
            ]
        ).reshape(2, -1, 4)
        found = common.lookup(grid, queries, implementation=self.implementation)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, oracle.lookup(common.as_oracle(grid), queries))

    def test_lookup_of_wide_integers(self):
        """A coordinate beyond 32 bits is no voxel, whatever its low bits are."""
        coords = np.array([[0, 1, 2, 3], [0, -1, 0, 5]])
        with jax.enable_x64(True):
            grid, _ = sparse.grid_from_coords(
                coords, capacity=2, implementation=self.implementation
            )
            queries = np.concatenate([coords, coords + 2**32, coords - 2**32])
            found = sparse.lookup(grid, queries, implementation=self.implementation)
        assert found.tolist() == [1, 0, -1, -1, -1, -1]

    @pytest.mark.parametrize("name", CLOUDS)
    @pytest.mark.parametrize("capacity", [CAPACITY, 40])
    def test_downsample(self, name, capacity):
        grid, _ = _voxelize(name, self.implementation)
        for _ in range(2):
            reference = oracle.downsample(common.as_oracle(grid), capacity=capacity)
            grid = common.downsample(grid, capacity=capacity, implementation=self.implementation)
            common.assert_is_grid(grid, reference)

    def test_downsample_by_three(self):
        grid, _ = _voxelize("spread", self.implementation)
        coarse = common.downsample(grid, stride=3, implementation=self.implementation)
        expected = oracle.downsample(common.as_oracle(grid), stride=3, capacity=CAPACITY)
        common.assert_is_grid(coarse, expected)

    @pytest.mark.parametrize(("kernel_size", "dilation"), MAPS)
    @pytest.mark.parametrize("stride", [1, 2])
    def test_kernel_map(self, kernel_size, dilation, stride):
        grid, _ = _voxelize("walls", self.implementation)
        self._check_map(grid, kernel_size, dilation, stride)

    @pytest.mark.parametrize("name", CLOUDS)
    @pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (2, 2)])
    def test_kernel_map_of_every_cloud(self, name, kernel_size, stride):
        grid, _ = _voxelize(name, self.implementation)
        self._check_map(grid, kernel_size, 1, stride)

    def test_kernel_map_of_coarse_grids(self):
        """Offsets count in the input grid's stride."""
        grid, _ = _voxelize("walls", self.implementation)
        coarse = common.downsample(grid, implementation=self.implementation)
        self._check_map(coarse, 3, 1, 1)
        self._check_map(coarse, 3, 1, 2)

    def test_kernel_map_at_the_limits_does_not_wrap_around(self):
        edges = [-LIMIT, -LIMIT + 1, -1, 0, 1, LIMIT - 1, LIMIT]
        cells = np.stack(np.meshgrid([0, LIMIT], edges, edges, [-LIMIT, LIMIT]), -1)
        coords = cells.reshape(-1, 4).astype(np.int32)
        grid, _ = common.grid_from_coords(coords, implementation=self.implementation)
        self._check_map(grid, 3, 1, 1)
        self._check_map(grid, 3, 3, 2)

    def _check_map(self, grid, kernel_size, dilation, stride):
        out_grid = None
        if stride > 1:
            out_grid = common.downsample(grid, implementation=self.implementation)
        kmap = common.kernel_map(
            grid,
            out_grid,
            kernel_size=kernel_size,
            dilation=dilation,
            implementation=self.implementation,
        )
        expected = oracle.neighbours(
            common.as_oracle(grid),
            common.as_oracle(grid if out_grid is None else out_grid),
            kernel_size=kernel_size,
            dilation=dilation,
        )
        assert kmap.neighbours.dtype == np.int32
        np.testing.assert_array_equal(kmap.neighbours, expected)
        turned = oracle.turned(expected, len(grid.mask))
        np.testing.assert_array_equal(kmap.T.neighbours, turned)
        np.testing.assert_array_equal(kmap.T.T.neighbours, expected)

    @pytest.mark.parametrize("spread", [False, True], ids=["one room", "rooms far apart"])
    @pytest.mark.parametrize("capacity", [18_500, 15_000], ids=["fits", "overflows"])
    def test_many_points(self, spread, capacity):
        """More than any tile or thread's share; far apart, the bits of a coordinate exceed 64."""
        rng = np.random.default_rng(3)
        cells = wall_cells(rng, size=88)
        assert 18_000 < len(cells) < 18_500
        if spread:
            room = 5 * np.arange(len(cells)) // len(cells)
            far = np.array([[0, 0, 0, 0], [7, -1, 1, 1], [LIMIT, 1, -1, 1], [0, 1, 1, -1], [3] * 4])
            cells += np.where(np.arange(4) == 0, far, far * (LIMIT // 4 - 77))[room]
        coords = rng.permutation(np.concatenate([cells, cells[::2]])).astype(np.int32)
        grid, row = common.grid_from_coords(
            coords, capacity=capacity, implementation=self.implementation
        )
        expected, expected_row = oracle.grid_from_coords(coords, capacity=capacity)
        common.assert_is_grid(grid, expected)
        np.testing.assert_array_equal(row, expected_row)
        self._check_map(grid, 3, 1, 1)

    def test_no_points_at_all(self):
        """Not even masked ones: arrays of no rows."""
        points, name = np.zeros((0, 3), np.float32), {"implementation": self.implementation}
        grid, row = sparse.voxelize(points, voxel_size=1.0, capacity=4, **name)
        expected, _ = oracle.voxelize(points, voxel_size=1.0, capacity=4)
        common.assert_is_grid(grid, expected)
        assert row.shape == (0,)
        assert sparse.lookup(grid, np.zeros((0, 4), np.int32), **name).shape == (0,)
        for mode in ("nearest", "trilinear"):
            sampled = sparse.devoxelize(jnp.ones((4, 2)), grid, points, mode=mode, **name)
            assert sampled.shape == (0, 2)

    @pytest.mark.parametrize("name", ["walls", "no voxel"])
    def test_pyramid(self, name):
        grid, _ = _voxelize(name, self.implementation)
        pyramid = jax.jit(
            lambda grid: sparse.pyramid(grid, capacities=(120,), implementation=self.implementation)
        )(grid)
        reference = common.as_oracle(grid)
        assert (len(pyramid.grids), len(pyramid.submanifold), len(pyramid.down)) == (2, 2, 1)
        for level, capacity in enumerate((None, 120)):
            if level:
                coarse = oracle.downsample(reference, capacity=capacity)
                np.testing.assert_array_equal(
                    pyramid.down[level - 1].neighbours,
                    oracle.neighbours(reference, coarse, kernel_size=2),
                )
                reference = coarse
            common.assert_is_grid(pyramid.grids[level], reference)
            np.testing.assert_array_equal(
                pyramid.submanifold[level].neighbours,
                oracle.neighbours(reference, reference, kernel_size=3),
            )


class TestXla(GridSuite):
    implementation = "xla"


@common.needs_native
class TestNative(GridSuite):
    implementation = "native"


@common.needs_native
@pytest.mark.parametrize("name", CLOUDS)
def test_implementations_agree_in_every_bit(name):
    """Grids with their tables, and maps."""

    def everything(implementation):
        grid, row = _voxelize(name, implementation)
        coarse = common.downsample(grid, capacity=40, implementation=implementation)
        maps = [
            common.kernel_map(a, b, kernel_size=k, implementation=implementation)
            for a, b, k in [(grid, None, 3), (grid, coarse, 2), (coarse, None, 3)]
        ]
        return grid, row, coarse, maps, [kmap.T for kmap in maps]

    common.assert_same_bits(everything("xla"), everything("native"))


@common.needs_native
def test_a_grid_of_one_implementation_serves_the_other():
    """The table is part of the grid's meaning: any implementation can probe it."""
    for build, probe in [("xla", "native"), ("native", "xla")]:
        grid, _ = _voxelize("spread", build)
        found = common.lookup(grid, grid.coords, implementation=probe)
        np.testing.assert_array_equal(found, oracle.lookup(common.as_oracle(grid), grid.coords))


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 3])
def test_kernel_offsets(kernel_size, dilation):
    offsets = sparse.kernel_offsets(kernel_size, dilation)
    assert isinstance(offsets, np.ndarray) and offsets.dtype == np.int32
    np.testing.assert_array_equal(offsets, oracle.kernel_offsets(kernel_size, dilation))


def test_a_grid_is_a_pytree_that_survives_jit():
    grid, _ = _voxelize("walls", "xla")
    common.assert_same_bits(jax.jit(lambda grid: grid)(grid), grid)
    leaves = jax.tree.leaves(grid)
    assert all(isinstance(leaf, jnp.ndarray) for leaf in leaves) and grid.stride == 1
