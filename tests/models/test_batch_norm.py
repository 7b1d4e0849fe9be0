"""Masked batch normalisation against NumPy in f64, with padding, and spread over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from haskd_jax.models import BatchNorm, functional

from .scenes import assert_same_bits

P = PartitionSpec


def oracle(x, mask, scale, bias, epsilon=1e-5):
    """Result, mean and variance in f64."""
    rows = np.asarray(x, np.float64)[mask]
    mean, var = rows.mean(0), rows.var(0)
    y = np.zeros(x.shape)
    y[mask] = (rows - mean) / np.sqrt(var + epsilon) * scale + bias
    return y, mean, var


def batch(rows=300, channels=5, offset=0.0):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(rows, channels)) * [1, 2, 3, 0.1, 1] + offset).astype(np.float32)
    return x, rng.random(rows) < 0.7, rng.normal(size=(rows, channels)).astype(np.float32)


def module(channels=5, **options):
    rng = np.random.default_rng(1)
    norm = BatchNorm(channels, **options)
    norm.scale[...] = jnp.asarray(rng.normal(size=channels), jnp.float32)
    norm.bias[...] = jnp.asarray(rng.normal(size=channels), jnp.float32)
    return norm


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_training_is_the_oracle(offset):
    x, mask, _ = batch(offset=offset)
    norm = module()
    y, mean, var = oracle(x, mask, np.asarray(norm.scale[...]), np.asarray(norm.bias[...]))
    # Channel 3 varies by 0.1 around the offset: f32 input itself has 6e-5 of error there.
    np.testing.assert_allclose(
        norm(jnp.asarray(x), jnp.asarray(mask)), y, atol=1e-5 if offset == 0 else 5e-3
    )
    np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.var[...], var, rtol=1e-4)


def test_running_statistics():
    x, mask, _ = batch()
    norm = module(momentum=0.75)
    means, variances = [], []
    for i in range(6):
        scaled = x * (i + 1)
        norm(jnp.asarray(scaled), jnp.asarray(mask))
        _, mean, var = oracle(scaled, mask, 1, 0)
        share = max(0.25, 1 / (i + 1))
        means.append(mean if i == 0 else means[-1] + share * (mean - means[-1]))
        variances.append(var if i == 0 else variances[-1] + share * (var - variances[-1]))
    np.testing.assert_allclose(norm.mean[...], means[-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.var[...], variances[-1], rtol=1e-5)

    before = nnx.to_pure_dict(nnx.state(norm))
    assert not norm(jnp.full_like(x, np.nan), jnp.zeros(len(x), bool)).any()
    assert_same_bits(nnx.to_pure_dict(nnx.state(norm)), before)  # nothing seen, nothing learnt

    norm.eval()
    y = (x - means[-1]) / np.sqrt(variances[-1] + 1e-5) * np.asarray(norm.scale[...])
    y = y + np.asarray(norm.bias[...])
    np.testing.assert_allclose(
        norm(jnp.asarray(x), jnp.asarray(mask)), np.where(mask[:, None], y, 0), atol=1e-5
    )
    assert_same_bits(nnx.to_pure_dict(nnx.state(norm)), before)


@pytest.mark.parametrize("train", [True, False])
def test_padding_garbage_changes_nothing(train):
    x, mask, cotangent = batch()
    apply, params, state = functional(module())

    def run(garbage):
        def call(params, x):
            return apply(params, state, x, jnp.asarray(mask), train=train)

        spoilt = jnp.where(mask[:, None], x, garbage)
        y, pullback, new = jax.vjp(call, params, spoilt, has_aux=True)
        return y, pullback(jnp.where(mask[:, None], cotangent, garbage)), new

    clean = run(0.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    for garbage in (np.nan, np.inf, 3e38):
        assert_same_bits(run(garbage), clean)
    # Masked is subset.
    rows = jnp.asarray(x[mask])
    subset, _ = apply(params, state, rows, jnp.ones(len(rows), bool), train=train)
    np.testing.assert_allclose(np.asarray(clean[0])[mask], subset, atol=2e-6)


def test_gradients():
    with jax.enable_x64(True):
        x, mask, _ = batch(rows=17)
        apply, params, state = functional(module())
        params = jax.tree.map(lambda p: p.astype(jnp.float64), params)

        def f(params, x):
            params, x = jax.tree.map(jnp.asarray, (params, x))
            return jnp.sin(apply(params, state, x, jnp.asarray(mask), train=True)[0])

        check_grads(f, (params, jnp.asarray(x, jnp.float64)), order=1, modes=["rev"])


def test_bfloat16_keeps_statistics_in_float32():
    x, mask, _ = batch(offset=10.0)
    x = jnp.asarray(x, jnp.bfloat16)
    norm = BatchNorm(5)
    y = norm(jnp.asarray(x), jnp.asarray(mask))
    expected, mean, _ = oracle(np.asarray(x, np.float64), mask, 1, 0)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("how", ["jit", "shard_map", "vmap"])
def test_two_devices_equal_one(how):
    x, mask, cotangent = batch(rows=512)
    mask[:200] = False  # one device sees far less than the other
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    inside = how != "jit"
    plain, params, state = functional(module())
    spread, _, _ = functional(module(axis_name="data" if inside else None))

    def run(apply, params, x, mask, cotangent):
        def weighted(params, x):
            y, new = apply(params, state, x, mask, train=True)
            return jnp.sum(y * cotangent), (y, new)

        (_, (y, new)), gradients = jax.value_and_grad(weighted, (0, 1), has_aux=True)(params, x)
        return y, new, gradients

    args = (params, *map(jnp.asarray, (x, mask, cotangent)))
    y, new, (d_params, d_x) = jax.jit(lambda *args: run(plain, *args))(*args)
    if how == "jit":
        rows = NamedSharding(mesh, P("data"))
        placed = [jax.device_put(array, rows) for array in args[1:]]
        result = jax.jit(lambda *args: run(plain, *args))(params, *placed)
    elif how == "shard_map":
        specs = P(), P("data"), P("data"), P("data")
        outs = P("data"), P(), (P(), P("data"))
        mapped = jax.shard_map(
            lambda *args: run(spread, *args), mesh=mesh, in_specs=specs, out_specs=outs
        )
        result = jax.jit(mapped)(*args)
    else:
        halves = [array.reshape(2, 256, *array.shape[1:]) for array in args[1:]]
        mapped = jax.vmap(lambda *args: run(spread, params, *args), axis_name="data")
        ys, news, (d_halves, d_xs) = jax.jit(mapped)(*halves)
        first = jax.tree.map(lambda leaf: leaf[0], news)
        summed = jax.tree.map(lambda leaf: leaf.sum(0), d_halves)
        result = ys.reshape(512, 5), first, (summed, d_xs.reshape(512, 5))
    expected = y, new, (d_params, d_x)
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
