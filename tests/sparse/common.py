"""What the tests of the engine share: the jitted engine, and how to compare it with the oracle."""

import functools

import jax
import numpy as np
import pytest

from haskd_jax import sparse

from . import oracle
from .clouds import CAPACITY, VOXEL_SIZE

needs_native = pytest.mark.skipif(
    jax.default_backend() != "cpu" or not sparse.native_available(),
    reason="the native library was not built on this machine, or tests run elsewhere than on CPU",
)
IMPLEMENTATIONS = [pytest.param("xla"), pytest.param("native", marks=needs_native)]


def _jit(*static):
    return functools.partial(jax.jit, static_argnames=("implementation", *static))


@_jit("capacity")
def voxelize(points, batch, mask, *, capacity=CAPACITY, implementation):
    return sparse.voxelize(
        points,
        voxel_size=VOXEL_SIZE,
        capacity=capacity,
        batch=batch,
        mask=mask,
        implementation=implementation,
    )


@_jit("capacity", "stride")
def grid_from_coords(coords, mask=None, *, capacity=CAPACITY, stride=1, implementation):
    return sparse.grid_from_coords(
        coords, capacity=capacity, mask=mask, stride=stride, implementation=implementation
    )


@_jit("capacity", "stride")
def downsample(grid, *, stride=2, capacity=CAPACITY, implementation):
    return sparse.downsample(grid, stride=stride, capacity=capacity, implementation=implementation)


@_jit("kernel_size", "dilation")
def kernel_map(grid_in, grid_out=None, *, kernel_size, dilation=1, implementation):
    return sparse.kernel_map(
        grid_in,
        grid_out,
        kernel_size=kernel_size,
        dilation=dilation,
        implementation=implementation,
    )


@_jit()
def lookup(grid, coords, *, implementation):
    return sparse.lookup(grid, coords, implementation=implementation)


@_jit()
def conv_and_gradients(features, weights, kmap, cotangent, *, implementation):
    """The output, the input gradient and the weight gradient."""
    out, pullback = jax.vjp(
        lambda f, w: sparse.conv(f, w, kmap, implementation=implementation), features, weights
    )
    return out, *pullback(cotangent)


@_jit("relu")
def batch_norm_and_gradients(
    x, mask, scale, bias, residual, cotangent, *, relu=True, implementation
):
    """The output, the statistics, and gradients of x, scale, bias and residual (None: of three)."""

    def normalise(x, scale, bias, residual):
        return sparse.batch_norm(
            x, mask, scale, bias, residual=residual, relu=relu, implementation=implementation
        )

    y, pullback, moments = jax.vjp(normalise, x, scale, bias, residual, has_aux=True)
    return y, moments, pullback(cotangent)


def as_oracle(grid):
    """The engine's grid as the oracle's."""
    return oracle.Grid(
        np.asarray(grid.coords, np.int64),
        np.asarray(grid.mask),
        int(grid.overflow),
        int(grid.invalid),
        grid.stride,
        float(grid.voxel_size),
    )


def assert_is_grid(grid, expected):
    """The engine's grid is the oracle's, and its hash table holds every voxel once."""
    assert [grid.coords.dtype, grid.table.dtype, grid.overflow.dtype, grid.invalid.dtype] == [
        np.int32
    ] * 4
    np.testing.assert_array_equal(grid.coords, expected.coords)
    np.testing.assert_array_equal(grid.mask, expected.mask)
    assert (int(grid.overflow), int(grid.invalid)) == (expected.overflow, expected.invalid)
    assert (grid.stride, float(grid.voxel_size)) == (
        expected.stride,
        np.float32(expected.voxel_size),
    )
    table = np.asarray(grid.table)
    np.testing.assert_array_equal(np.sort(table[table != -1]), np.flatnonzero(expected.mask))


def assert_same_bits(one, other):
    """Two trees of arrays agree in structure, dtype and every bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def max_relative_error(result, reference):
    """max |result - reference| over max |reference|; NaN if anything is NaN."""
    result = np.asarray(result).astype(np.float64)
    assert result.shape == reference.shape
    if not reference.size:
        return 0.0
    error, scale = np.abs(result - reference).max(), np.abs(reference).max()
    return error / scale if scale > 0 else error


def with_garbage(array, valid):
    """The array with NaN and infinity in every row that is not valid."""
    array = np.array(array)
    array[~np.asarray(valid)] = np.nan
    array[np.flatnonzero(~np.asarray(valid))[::2]] = np.inf
    return array
