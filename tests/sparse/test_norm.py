"""Masked batch normalisation of every implementation against the oracle, gradients too.

Every input carries NaN and infinity in its padding rows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from haskd_jax import sparse

from . import common, oracle

every_implementation = pytest.mark.parametrize("implementation", common.IMPLEMENTATIONS)


def case(rows, channels, dtype=np.float32, offset=0.0):
    """x, mask, scale, bias, residual, cotangent."""
    rng = np.random.default_rng(rows + channels)
    mask = rng.random(rows) < 0.7
    x, residual, cotangent = rng.normal(size=(3, rows, channels))
    x = x * rng.uniform(0.5, 2, channels) + offset
    x, residual, cotangent = (
        common.with_garbage(array.astype(dtype), mask) for array in (x, residual, cotangent)
    )
    scale, bias = rng.normal(size=(2, channels)).astype(np.float32)
    return x, mask, scale, bias, residual, cotangent


@every_implementation
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("rows", "channels"), [(700, 20), (1, 3), (256, 33)])
def test_result_and_gradients(rows, channels, relu, joined, implementation):
    x, mask, scale, bias, residual, cotangent = case(rows, channels)
    mask[0] = True  # of one row: its own mean, and no variance
    x[0], residual[0], cotangent[0] = 1.0, 0.5, -1.0
    residual = residual if joined else None
    y, moments, gradients = common.batch_norm_and_gradients(
        x, mask, scale, bias, residual, cotangent, relu=relu, implementation=implementation
    )
    expected, mean, var = oracle.batch_norm(x, mask, scale, bias, residual=residual, relu=relu)
    assert common.max_relative_error(y, expected) <= 1e-5
    assert not np.asarray(y)[~mask].any()
    assert int(moments.rows) == mask.sum()
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments.var, var, rtol=1e-5, atol=1e-6)
    wanted = oracle.batch_norm_gradients(x, mask, scale, cotangent, expected, relu=relu)
    assert gradients[3] is None or joined
    for got, reference in zip(gradients if joined else gradients[:3], wanted, strict=False):
        if rows > 1:
            assert common.max_relative_error(got, reference) <= 1e-5
        else:  # zeros, or next to them
            np.testing.assert_allclose(got, reference, atol=1e-5)


@every_implementation
def test_a_large_mean_costs_no_digits(implementation):
    x, mask, scale, bias, residual, cotangent = case(3000, 4, offset=1000.0)
    _, moments, _ = common.batch_norm_and_gradients(
        x, mask, scale, bias, residual, cotangent, implementation=implementation
    )
    _, mean, var = oracle.batch_norm(x, mask, scale, bias)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(moments.var, var, rtol=1e-5)


@every_implementation
def test_a_mean_a_million_times_the_spread(implementation):
    """The first sum rounds it by more than the spread; a constant channel varies by nothing."""
    rng = np.random.default_rng(0)
    x = (1e6 + rng.normal(size=(20_000, 3))).astype(np.float32)
    x[:, 2] = 1.7e6
    mask = np.ones(len(x), bool)
    one, zero = np.ones(3, np.float32), np.zeros(3, np.float32)
    _, moments = sparse.batch_norm(x, mask, one, zero, implementation=implementation)
    exact = x.astype(float)
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=2e-7)
    np.testing.assert_allclose(moments.var, exact.var(0), rtol=0.01, atol=0.01)


@every_implementation
def test_no_valid_row_gives_zeros(implementation):
    x, mask, *others = case(300, 5)
    x[:], mask[:] = np.nan, False
    y, moments, gradients = common.batch_norm_and_gradients(
        x, mask, *others, implementation=implementation
    )
    for leaf in jax.tree.leaves((y, moments, gradients)):
        assert not np.asarray(leaf).any()


@every_implementation
def test_given_statistics(implementation):
    x, mask, scale, bias, residual, _ = case(300, 7)
    mean = np.linspace(-1, 1, 7, dtype=np.float32)
    arguments = x, mask, mean, scale, bias
    y = sparse.normalize(*arguments, residual=residual, relu=True, implementation=implementation)
    expected = np.zeros(x.shape)
    rows = (x[mask].astype(float) - mean) * scale + bias + residual[mask]
    expected[mask] = np.maximum(rows, 0)
    assert common.max_relative_error(y, expected) <= 1e-6


@every_implementation
def test_gradients_of_gradients(implementation):
    with jax.enable_x64(True):
        x, mask, scale, bias, residual, _ = case(9, 3, np.float64)

        x, residual = (np.where(mask[:, None], a, 0.0) for a in (x, residual))
        arguments = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (x, scale, bias, residual))
        mean = jnp.zeros(3, jnp.float64)

        def f(x, scale, bias, residual):
            y, _ = sparse.batch_norm(
                x, mask, scale, bias, residual=residual, relu=True, implementation=implementation
            )
            y = sparse.normalize(
                y, mask, mean, scale, bias, residual=x, implementation=implementation
            )
            return jnp.sin(y)

        check_grads(f, arguments, order=2, modes=["rev"])


@every_implementation
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_floats_have_wide_statistics(dtype, implementation):
    x, mask, scale, bias, residual, cotangent = case(400, 6)
    narrow = [jnp.asarray(a, dtype) for a in (x, residual, cotangent)]
    y, moments, (d_x, *_) = common.batch_norm_and_gradients(
        narrow[0], mask, scale, bias, *narrow[1:], implementation=implementation
    )
    x, residual, cotangent = (np.asarray(a, np.float64) for a in narrow)
    expected, mean, var = oracle.batch_norm(x, mask, scale, bias, residual=residual, relu=True)
    wanted = oracle.batch_norm_gradients(x, mask, scale, cotangent, expected, relu=True)
    assert (y.dtype, d_x.dtype, moments.mean.dtype) == (dtype, dtype, jnp.float32)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments.var, var, rtol=1e-5)
    # The statistics are exact: what is left is the rounding of each result.
    rounding = float(jnp.finfo(dtype).eps) / 2 + 1e-5
    assert common.max_relative_error(y, expected) <= rounding
    assert common.max_relative_error(d_x, wanted[0]) <= rounding
