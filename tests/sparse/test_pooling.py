"""Pooling, interpolation and segment sums against the oracle, forward and gradient."""

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from haskd_jax import sparse

from . import common, oracle
from .clouds import CAPACITY, POINTS, VOXEL_SIZE, small_clouds

CLOUDS = small_clouds()
CHANNELS = 5
TOLERANCE = 1e-5
REDUCTIONS = ["max", "mean", "sum"]
STRIDE_2_MAPS = [2, 3]  # kernel sizes


@functools.cache
def _grids(name):
    cloud = CLOUDS[name]
    fine, row = common.voxelize(cloud.points, cloud.batch, cloud.mask, implementation="xla")
    coarse = common.downsample(fine, implementation="xla")
    return fine, row, coarse


@functools.cache
def _maps(name, kernel_size):
    """The stride-2 map of a cloud: the engine's, and the oracle's neighbours."""
    fine, _, coarse = _grids(name)
    kmap = common.kernel_map(fine, coarse, kernel_size=kernel_size, implementation="xla")
    nbr = oracle.neighbours(
        common.as_oracle(fine), common.as_oracle(coarse), kernel_size=kernel_size
    )
    return kmap, nbr


def _features(valid, channels=CHANNELS):
    """f32 features that bfloat16 holds exactly, with garbage where not valid."""
    features = np.random.default_rng(0).normal(size=(len(valid), channels))
    features = features.astype(jnp.bfloat16).astype(np.float32)
    return jnp.asarray(common.with_garbage(features, valid))


def _assert_op(op, features, valid, reference, *, wide_tolerance=1e-10):
    """op(features) is the reference in every dtype; its gradient is zero where not valid.

    Sums are f32 or wider, so narrow dtypes add the rounding of the result. Every op here is
    piecewise linear, so central differences with a small step are exact up to rounding.
    """
    for dtype in (jnp.float32, jnp.bfloat16):
        result = op(features.astype(dtype))
        assert result.dtype == dtype
        rounding = 0 if dtype == jnp.float32 else float(jnp.finfo(dtype).eps) / 2
        assert common.max_relative_error(result, reference) <= TOLERANCE + rounding
        np.testing.assert_array_equal(np.asarray(result)[~reference.any(1)], 0)
    clean = np.where(np.asarray(valid)[:, None], features, 0).astype(np.float64)
    with jax.enable_x64(True):
        wide = op(jnp.asarray(clean))
        assert wide.dtype == np.float64
        assert common.max_relative_error(wide, reference) <= wide_tolerance
        jax.test_util.check_grads(
            op, (jnp.asarray(clean),), order=1, modes=["rev"], eps=1e-4, atol=1e-8, rtol=1e-8
        )
    gradient = jax.grad(lambda f: (op(f) * np.float32(2)).sum())(features)
    assert np.isfinite(np.asarray(gradient)).all()
    np.testing.assert_array_equal(np.asarray(gradient)[~np.asarray(valid)], 0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kernel_size", STRIDE_2_MAPS)
def test_pool(kernel_size, reduction):
    kmap, nbr = _maps("walls", kernel_size)
    valid = _grids("walls")[0].mask
    op = jax.jit(lambda f: sparse.pool(f, kmap, reduction=reduction))
    features = _features(valid)
    _assert_op(op, features, valid, oracle.pool(features, nbr, reduction=reduction))


_pool = jax.jit(sparse.pool, static_argnames="reduction")
_unpool = jax.jit(sparse.unpool, static_argnames="implementation")
_global_pool = jax.jit(
    sparse.global_pool, static_argnames=("num_scenes", "reduction", "implementation")
)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CLOUDS)
def test_pool_of_every_cloud(name, reduction):
    kmap, nbr = _maps(name, 2)
    features = _features(_grids(name)[0].mask)
    pooled = _pool(features, kmap, reduction=reduction)
    reference = oracle.pool(features, nbr, reduction=reduction)
    assert common.max_relative_error(pooled, reference) <= TOLERANCE


def test_pool_of_negative_features_is_not_zero():
    """Missing neighbours are left out, not taken as zeros."""
    kmap, nbr = _maps("walls", 2)
    features = -1 - np.abs(_features(_grids("walls")[0].mask))
    for reduction in REDUCTIONS:
        pooled = np.asarray(_pool(features, kmap, reduction=reduction))
        assert (pooled[(nbr >= 0).any(0)] <= -1).all()


def _points_around(grid, rng):
    """POINTS points in and around the voxels of the grid, off their borders and centre planes."""
    valid = np.asarray(grid.coords)[np.asarray(grid.mask)]
    cells = valid[rng.integers(0, len(valid), POINTS)]
    cells[:, 1:] += rng.integers(-2, 3, (POINTS, 3)) * grid.stride
    quarters = rng.integers(0, 2, (POINTS, 3)) / 2 + rng.uniform(0.05, 0.45, (POINTS, 3))
    points = (cells[:, 1:] + quarters * grid.stride) * VOXEL_SIZE
    return points.astype(np.float32), cells[:, 0]


class PoolingSuite:
    """What every implementation must hold to."""

    implementation: str

    @pytest.mark.parametrize("name", CLOUDS)
    def test_unpool_of_every_cloud(self, name):
        kmap, nbr = _maps(name, 2)
        fine, _, coarse = _grids(name)
        features = _features(coarse.mask)
        expected = oracle.unpool(features, nbr, len(fine.mask)).astype(np.float32)
        got = _unpool(features, kmap, implementation=self.implementation)
        np.testing.assert_array_equal(got, expected)

    def test_unpool(self):
        kmap, nbr = _maps("walls", 2)
        fine, _, coarse = _grids("walls")

        def op(features):
            return sparse.unpool(features, kmap, implementation=self.implementation)

        features = _features(coarse.mask)
        reference = oracle.unpool(features, nbr, len(fine.mask))
        _assert_op(jax.jit(op), features, coarse.mask, reference)

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    @pytest.mark.parametrize("name", CLOUDS)
    def test_global_pool_of_every_cloud(self, name, reduction):
        fine, _, _ = _grids(name)
        features = _features(fine.mask)
        options = {"num_scenes": 3, "reduction": reduction}
        pooled = _global_pool(features, fine, implementation=self.implementation, **options)
        reference = oracle.global_pool(features, common.as_oracle(fine), **options)
        assert common.max_relative_error(pooled, reference) <= TOLERANCE

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_global_pool(self, reduction):
        fine, _, _ = _grids("walls")
        options = {"num_scenes": 4, "reduction": reduction}

        def op(features):
            return sparse.global_pool(features, fine, implementation=self.implementation, **options)

        features = _features(fine.mask)
        reference = oracle.global_pool(features, common.as_oracle(fine), **options)
        assert not reference[3].any() and reference[:3].any(1).all()
        _assert_op(jax.jit(op), features, fine.mask, reference)

    @pytest.mark.parametrize("name", ["walls", "no voxel", "overflow"])
    def test_voxel_mean(self, name):
        _, row, _ = _grids(name)

        def op(features):
            return sparse.voxel_mean(features, row, CAPACITY, implementation=self.implementation)

        placed = np.asarray(row) >= 0
        features = _features(placed)
        reference = oracle.voxel_mean(features, row, CAPACITY)
        _assert_op(jax.jit(op), features, placed, reference)

    @pytest.mark.parametrize("mode", ["nearest", "trilinear"])
    def test_devoxelize(self, mode):
        """From a grid of stride 2, around whose voxels some points lie and some do not."""
        _, _, grid = _grids("walls")
        points, batch = _points_around(grid, np.random.default_rng(3))

        def op(features):
            return sparse.devoxelize(
                features, grid, points, batch, mode=mode, implementation=self.implementation
            )

        features = _features(grid.mask)
        reference = oracle.devoxelize(features, common.as_oracle(grid), points, batch, mode=mode)
        assert 0.1 < (~reference.any(1)).mean() < 0.9
        # The points stay float32.
        _assert_op(jax.jit(op), features, grid.mask, reference, wide_tolerance=TOLERANCE)

    def test_trilinear_can_be_differentiated_twice_in_features_and_points(self):
        """Within cells, at whose borders the slope in a point jumps; some corners are missing."""
        coords = np.array([[0, x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1, 3)][:-2])
        grid, _ = sparse.grid_from_coords(coords, capacity=12)
        with jax.enable_x64(True):
            rng = np.random.default_rng(4)
            features = jnp.asarray(rng.normal(size=(12, 3)))
            points = jnp.asarray(rng.uniform(0.6, 1.4, (7, 3)))
            jax.test_util.check_grads(
                lambda features, points: sparse.devoxelize(
                    features, grid, points, mode="trilinear", implementation=self.implementation
                ),
                (features, points),
                order=2,
                modes=["rev"],
            )

    def test_nearest_gives_every_point_its_voxel(self):
        fine, row, _ = _grids("walls")
        cloud = CLOUDS["walls"]
        features = _features(fine.mask)
        sampled = sparse.devoxelize(
            features,
            fine,
            cloud.points[cloud.mask],
            cloud.batch[cloud.mask],
            implementation=self.implementation,
        )
        np.testing.assert_array_equal(sampled, features[np.asarray(row)[cloud.mask]])

    def test_trilinear_is_the_feature_itself_at_voxel_centres(self):
        """Centres at binary fractions, which f32 holds exactly: all other weights are zero."""
        coords = np.array([[0, x, y, -3] for x in range(-2, 3) for y in (0, 1)], np.int32)
        grid, _ = sparse.grid_from_coords(coords, capacity=12, voxel_size=0.25)
        features = _features(grid.mask)
        sampled = sparse.devoxelize(
            features,
            grid,
            (np.asarray(grid.coords)[:10, 1:].astype(np.float32) + 0.5) * 0.25,
            mode="trilinear",
            implementation=self.implementation,
        )
        np.testing.assert_array_equal(sampled, features[:10])

    @pytest.mark.parametrize("mode", ["nearest", "trilinear"])
    def test_points_that_lie_nowhere_are_zero_inside_jit(self, mode):
        """NaN casts to some integer; the voxel there, here the origin's, must not answer."""
        coords = np.array([[0, 0, 0, 0], [0, -1, -1, -1]], np.int32)
        grid, _ = sparse.grid_from_coords(coords, capacity=3)
        bad = np.array([[np.nan] * 3, [np.inf] * 3, [-np.inf, 0, 0], [3e38, 0, 0], [0.5] * 3])
        sampled = jax.jit(
            lambda points: sparse.devoxelize(
                jnp.ones((3, 2), jnp.float32),
                grid,
                points,
                mode=mode,
                implementation=self.implementation,
            )
        )(bad.astype(np.float32))
        np.testing.assert_array_equal(sampled, [[0, 0]] * 4 + [[1, 1]])

    @pytest.mark.parametrize("channels", [1, CHANNELS, 64])
    def test_segment_sum_and_gather_rows(self, channels):
        """Each the adjoint of the other; ids of -1 take and give nothing."""
        ids = np.random.default_rng(channels).integers(-1, 60, POINTS).astype(np.int32)

        def sums(features):
            return sparse.segment_sum(features, ids, 70, implementation=self.implementation)

        features = _features(ids >= 0, channels)
        reference = oracle.segment_sum(features, ids, 70)
        _assert_op(jax.jit(sums), features, ids >= 0, reference)

        def rows(features):
            return sparse.gather_rows(
                features, jnp.asarray(ids), implementation=self.implementation
            )

        read = np.isin(np.arange(70), ids)
        features = _features(read, channels)
        reference = np.where((ids >= 0)[:, None], np.asarray(features)[ids], 0.0)
        _assert_op(jax.jit(rows), features, read, reference)

    def test_segment_sum_of_one_long_segment(self):
        ids = np.zeros(5000, np.int32)
        features = np.random.default_rng(1).uniform(size=(5000, 3)).astype(np.float32)
        total = sparse.segment_sum(features, ids, 1, implementation=self.implementation)
        reference = oracle.segment_sum(features, ids, 1)
        assert common.max_relative_error(total, reference) <= TOLERANCE


class TestXla(PoolingSuite):
    implementation = "xla"


@common.needs_native
class TestNative(PoolingSuite):
    implementation = "native"
