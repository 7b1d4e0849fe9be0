"""Convolutions of every implementation, and both their gradients, against the oracle.

Every input carries NaN and infinity in its padding rows. Errors are max |error| / max |reference|.
"""

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from haskd_jax import sparse

from . import common, oracle
from .clouds import small_clouds, wall_cells

CLOUDS = small_clouds()
FORWARD, WEIGHT_GRADIENT = 1e-5, 5e-4  # f32
CAPACITY, COARSE_CAPACITY = 2777, 803  # multiples of no tile

# kind, kernel size, dilation. "turned" is the transposed convolution between the same two grids.
MAPS = [
    ("submanifold", 1, 1),
    ("submanifold", 2, 1),
    ("submanifold", 2, 3),
    ("submanifold", 3, 1),
    ("submanifold", 3, 2),
    ("submanifold", 3, 3),
    ("submanifold", 5, 1),
    ("turned submanifold", 3, 1),
    ("turned submanifold", 2, 1),
    ("strided", 1, 1),
    ("strided", 2, 1),
    ("strided", 3, 1),
    ("strided", 3, 2),
    ("strided", 5, 1),
    ("turned strided", 1, 1),
    ("turned strided", 2, 1),
    ("turned strided", 3, 1),
]
CHANNELS = [
    (1, 1), (1, 20), (3, 33), (20, 20), (20, 1), (32, 32), (33, 48), (48, 100), (64, 96),
    (96, 64), (100, 3), (100, 100),
]  # fmt: skip


@functools.cache
def _grids(implementation):
    """Two scenes of walls, and the grid below."""
    cells = wall_cells(np.random.default_rng(5), size=24, scenes=2)
    assert 0.8 * CAPACITY < len(cells) < CAPACITY
    coords = np.zeros((CAPACITY, 4), np.int32)
    coords[: len(cells)] = np.random.default_rng(6).permutation(cells)
    grid, _ = common.grid_from_coords(
        coords,
        np.arange(CAPACITY) < len(cells),
        capacity=CAPACITY,
        implementation=implementation,
    )
    coarse = common.downsample(grid, capacity=COARSE_CAPACITY, implementation=implementation)
    assert int(grid.overflow) == int(coarse.overflow) == 0
    return grid, coarse


@functools.cache
def _neighbours(kind, kernel_size, dilation):
    """The oracle's map and how many rows it reads from; the same for every implementation."""
    grid, coarse = (common.as_oracle(g) for g in _grids("xla"))
    out = coarse if "strided" in kind else grid
    nbr = oracle.neighbours(grid, out, kernel_size=kernel_size, dilation=dilation)
    if "turned" in kind:
        return oracle.turned(nbr, len(grid.mask)), out.mask, grid.mask
    return nbr, grid.mask, out.mask


@functools.cache
def _kernel_map(kind, kernel_size, dilation, implementation):
    grid, coarse = _grids(implementation)
    kmap = common.kernel_map(
        grid,
        coarse if "strided" in kind else None,
        kernel_size=kernel_size,
        dilation=dilation,
        implementation=implementation,
    )
    return kmap.T if "turned" in kind else kmap


def _inputs(rng, mask_in, mask_out, num_offsets, channels, dtype=np.float32):
    """Features, weights and cotangent, with garbage in the padding."""
    features = rng.normal(size=(len(mask_in), channels[0]))
    weights = rng.normal(size=(num_offsets, *channels)) / np.sqrt(channels[0])
    cotangent = rng.normal(size=(len(mask_out), channels[1]))
    return (
        common.with_garbage(features, mask_in).astype(dtype),
        weights.astype(dtype),
        common.with_garbage(cotangent, mask_out).astype(dtype),
    )


def _reference(features, weights, cotangent, nbr):
    return (
        oracle.conv(features, weights, nbr),
        oracle.conv_input_gradient(cotangent, weights, nbr, len(features)),
        oracle.conv_weight_gradient(features, cotangent, nbr),
    )


def _assert_close(results, references, nbr, dtype, *, forward, weight_gradient):
    """Within tolerance, in the right dtype, and exactly zero where there is nothing to sum."""
    tolerances = (forward, forward, weight_gradient)
    for result, reference, tolerance in zip(results, references, tolerances, strict=True):
        assert result.dtype == dtype
        assert common.max_relative_error(result, reference) <= tolerance
    out, input_gradient, _ = (np.asarray(r).astype(np.float64) for r in results)
    assert not out[(nbr < 0).all(0)].any()
    read = np.zeros(len(input_gradient), bool)
    read[nbr[nbr >= 0]] = True
    assert not input_gradient[~read].any()


class ConvSuite:
    """What every implementation must hold to."""

    implementation: str

    def _check(self, case, channels, dtype=np.float32, *, forward=FORWARD, weight_gradient=None):
        nbr, mask_in, mask_out = _neighbours(*case)
        kmap = _kernel_map(*case, self.implementation)
        rng = np.random.default_rng(list(channels))
        features, weights, cotangent = _inputs(rng, mask_in, mask_out, len(nbr), channels, dtype)
        results = common.conv_and_gradients(
            features, weights, kmap, cotangent, implementation=self.implementation
        )
        _assert_close(
            results,
            _reference(features, weights, cotangent, nbr),
            nbr,
            dtype,
            forward=forward,
            weight_gradient=weight_gradient or WEIGHT_GRADIENT,
        )

    @pytest.mark.parametrize("case", MAPS, ids=str)
    def test_maps(self, case):
        self._check(case, (20, 33))

    @pytest.mark.parametrize("channels", CHANNELS, ids=str)
    def test_channels(self, channels):
        self._check(("submanifold", 3, 1), channels)

    @pytest.mark.parametrize("channels", [(3, 33), (48, 100), (64, 96)], ids=str)
    def test_channels_of_a_strided_map(self, channels):
        self._check(("strided", 2, 1), channels)

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bf16", "f16"])
    @pytest.mark.parametrize("case", [("submanifold", 3, 1), ("strided", 2, 1)], ids=str)
    def test_half_storage_accumulates_in_f32(self, dtype, case):
        """Beyond the f32 tolerance only the rounding of the result: half an eps, relative."""
        rounding = float(jnp.finfo(dtype).eps) / 2
        self._check(
            case,
            (33, 48),
            dtype,
            forward=rounding + FORWARD,
            weight_gradient=rounding + WEIGHT_GRADIENT,
        )

    @pytest.mark.parametrize(
        "case", [("submanifold", 3, 1), ("strided", 3, 1), ("turned strided", 2, 1)], ids=str
    )
    def test_f64(self, case):
        with jax.enable_x64(True):
            self._check(case, (20, 33), np.float64, forward=1e-10, weight_gradient=1e-10)

    @pytest.mark.parametrize("stride", [1, 2])
    def test_check_grads(self, stride):
        """First and second derivatives.

        conv is bilinear in its two arguments and its gradients in any two of their three, so
        central differences are exact and the step may be large.
        """
        cloud = CLOUDS["walls"]
        grid, _ = common.voxelize(
            cloud.points, cloud.batch, cloud.mask, implementation=self.implementation
        )
        coarse = None
        if stride > 1:
            coarse = common.downsample(grid, implementation=self.implementation)
        kmap = common.kernel_map(grid, coarse, kernel_size=3, implementation=self.implementation)
        rng = np.random.default_rng(4)
        features = rng.normal(size=(len(grid.mask), 5))
        weights = rng.normal(size=(27, 5, 7))

        cotangent = rng.normal(size=(len(kmap.neighbours[0]), 7))

        def conv(features, weights):
            return sparse.conv(features, weights, kmap, implementation=self.implementation)

        def gradients(features, weights, cotangent):
            return jax.vjp(conv, features, weights)[1](cotangent)

        exact = {"order": 1, "modes": ["rev"], "eps": 1.0, "atol": 1e-10, "rtol": 1e-10}
        with jax.enable_x64(True):
            inputs = tuple(map(jnp.asarray, (features, weights, cotangent)))
            jax.test_util.check_grads(jax.jit(conv), inputs[:2], **exact)
            jax.test_util.check_grads(jax.jit(gradients), inputs, **exact)

    @pytest.mark.parametrize("name", CLOUDS)
    @pytest.mark.parametrize("strided", [False, True], ids=["same", "strided"])
    def test_every_cloud(self, name, strided):
        cloud = CLOUDS[name]
        grid, _ = common.voxelize(
            cloud.points, cloud.batch, cloud.mask, implementation=self.implementation
        )
        coarse = None
        if strided:
            coarse = common.downsample(grid, implementation=self.implementation)
        kmap = common.kernel_map(grid, coarse, kernel_size=3, implementation=self.implementation)
        out = grid if coarse is None else coarse
        nbr = oracle.neighbours(common.as_oracle(grid), common.as_oracle(out), kernel_size=3)
        rng = np.random.default_rng(7)
        inputs = _inputs(rng, np.asarray(grid.mask), np.asarray(out.mask), 27, (20, 33))
        features, weights, cotangent = inputs
        results = common.conv_and_gradients(
            features, weights, kmap, cotangent, implementation=self.implementation
        )
        _assert_close(
            results,
            _reference(features, weights, cotangent, nbr),
            nbr,
            np.float32,
            forward=FORWARD,
            weight_gradient=WEIGHT_GRADIENT,
        )

    def test_many_voxels(self):
        """More than any tile or chunk, so that every thread has work."""
        cells = wall_cells(np.random.default_rng(8), size=88)
        capacity = len(cells) + 77
        assert capacity > 15_000
        coords = np.resize(cells, (capacity, 4)).astype(np.int32)
        grid, _ = common.grid_from_coords(
            coords, capacity=capacity, implementation=self.implementation
        )
        kmap = common.kernel_map(grid, kernel_size=3, implementation=self.implementation)
        nbr = oracle.neighbours(*[common.as_oracle(grid)] * 2, kernel_size=3)
        mask = np.asarray(grid.mask)
        inputs = _inputs(np.random.default_rng(9), mask, mask, 27, (32, 48))
        features, weights, cotangent = inputs
        results = common.conv_and_gradients(
            features, weights, kmap, cotangent, implementation=self.implementation
        )
        _assert_close(
            results,
            _reference(features, weights, cotangent, nbr),
            nbr,
            np.float32,
            forward=FORWARD,
            weight_gradient=WEIGHT_GRADIENT,
        )

    def test_garbage_in_the_padding_changes_no_bit(self):
        nbr, mask_in, mask_out = _neighbours("submanifold", 3, 1)
        kmap = _kernel_map("submanifold", 3, 1, self.implementation)
        rng = np.random.default_rng(10)
        features, weights, cotangent = _inputs(rng, mask_in, mask_out, len(nbr), (20, 33))
        dirty = common.conv_and_gradients(
            features, weights, kmap, cotangent, implementation=self.implementation
        )
        features[~mask_in], cotangent[~mask_out] = 0, 0
        clean = common.conv_and_gradients(
            features, weights, kmap, cotangent, implementation=self.implementation
        )
        common.assert_same_bits(dirty, clean)


class TestXla(ConvSuite):
    implementation = "xla"


@common.needs_native
class TestNative(ConvSuite):
    implementation = "native"


def test_the_default_is_the_best_available():
    nbr, mask_in, mask_out = _neighbours("submanifold", 3, 1)
    native = sparse.native_available() and jax.default_backend() == "cpu"
    best = "native" if native else "xla"
    inputs = _inputs(np.random.default_rng(11), mask_in, mask_out, len(nbr), (20, 33))
    features, weights, cotangent = inputs
    kmap = _kernel_map("submanifold", 3, 1, best)
    default, named = (
        common.conv_and_gradients(features, weights, kmap, cotangent, implementation=name)
        for name in (None, best)
    )
    common.assert_same_bits(default, named)
