"""Losses over voxels that are spread over devices: as over all of them on one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from haskd_jax import losses

from .common import IHD_WEIGHTS, TEMPERATURE, Scene, scene, to_jax


def spread() -> Scene:
    """Two scenes, one a device, of which one counts two voxels and the other most of them."""
    few, most = scene(18), scene(19)
    few = few._replace(where=np.arange(12) < 2)
    assert few.where.sum() < most.where.sum()
    most = most._replace(projection=few.projection, omega=few.omega)
    return to_jax(jax.tree.map(lambda *leaves: np.stack(leaves), few, most))


def together(devices: Scene) -> Scene:
    """The same as one scene, each device's edges moved to its voxels."""
    voxels = devices.labels.shape[1]

    def join(ends):
        offset = jnp.arange(2, dtype=jnp.int32)[:, None] * voxels
        moved = jnp.where(ends == voxels, 2 * voxels, ends + offset)
        real = jnp.arange(ends.shape[1])[None] < devices.n_edge[:, :1]
        order = jnp.argsort(~real.reshape(-1), stable=True)  # padding edges come last
        return moved.reshape(-1)[order]

    return Scene(
        rows={name: jnp.concatenate(list(array), axis=-2) for name, array in devices.rows.items()},
        labels=devices.labels.reshape(-1),
        where=devices.where.reshape(-1),
        senders=join(devices.senders),
        receivers=join(devices.receivers),
        n_edge=devices.n_edge.sum(0, dtype=jnp.int32),
        projection=devices.projection[0],
        class_weights=devices.class_weights[0],
        omega=devices.omega[0],
    )


def _mean(s: Scene, axis_name):
    values, weights = s.rows["student"][:, 0], jnp.exp(s.rows["teacher"][:, 0])
    return losses.masked_mean(values, where=s.where, weights=weights, axis_name=axis_name)


def _plain_mean(s: Scene, axis_name):
    return losses.masked_mean(s.rows["student"][:, 0], axis_name=axis_name)


def _ihd(s: Scene, axis_name):
    total, _ = losses.ihd_loss(
        s.rows["student"],
        s.rows["teacher"],
        student_features=s.rows["student_features"],
        teacher_features=s.rows["teacher_features"],
        projection=s.projection,
        graph=s.graph(),
        weights=losses.information_weights(s.rows["teacher"], mode="confidence", where=s.where),
        where=s.where,
        temperature=TEMPERATURE,
        axis_name=axis_name,
        **IHD_WEIGHTS,
    )
    return total


def _asd(s: Scene, axis_name, unlabelled):
    return losses.asd_loss(
        s.rows["student"],
        s.rows["experts"],
        s.omega,
        s.labels,
        unlabelled=unlabelled,
        where=s.where,
        axis_name=axis_name,
    )


LOSSES = {
    "masked_mean": _mean,
    "masked_mean of all": _plain_mean,
    "ihd_loss": _ihd,
    "asd_loss": functools.partial(_asd, unlabelled="consensus"),
    "asd_loss of labelled voxels": functools.partial(_asd, unlabelled="ignore"),
}


def on_one_device(name: str) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of all voxels, and its gradients laid out by device."""
    devices = spread()
    whole = together(devices)
    value, grads = jax.jit(
        jax.value_and_grad(lambda rows: LOSSES[name](whole._replace(rows=rows), None))
    )(whole.rows)
    return value, {key: jnp.stack(jnp.split(grad, 2, axis=-2)) for key, grad in grads.items()}


def assert_close(actual, desired):
    for leaf, expected in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_over_a_vmap_axis_as_on_one_device(name):
    devices = spread()

    def loss(rows):
        one = functools.partial(LOSSES[name], axis_name="device")
        values = jax.vmap(one, axis_name="device")(devices._replace(rows=rows))
        return values[0], values

    (_, values), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(devices.rows)
    expected, grads_expected = on_one_device(name)
    assert expected != 0
    assert_close(list(values), [expected, expected])
    assert_close(grads, grads_expected)


@pytest.mark.parametrize("name", LOSSES)
def test_over_devices_as_on_one(name):
    """`shard_map` with the gradient inside, as training takes it."""
    devices = spread()

    def of_device(given):
        given = jax.tree.map(lambda leaf: leaf[0], given)
        value, grads = jax.value_and_grad(
            lambda rows: LOSSES[name](given._replace(rows=rows), "device")
        )(given.rows)
        return value, jax.tree.map(lambda grad: grad[None], grads)

    mapped = jax.shard_map(
        of_device,
        mesh=jax.make_mesh((2,), ("device",), axis_types=(jax.sharding.AxisType.Auto,)),
        in_specs=PartitionSpec("device"),
        out_specs=(PartitionSpec(), PartitionSpec("device")),
    )
    value, grads = jax.jit(mapped)(devices)
    expected, grads_expected = on_one_device(name)
    assert_close(value, expected)
    assert_close(grads, grads_expected)


def test_nothing_counts_on_any_device():
    values = jnp.full((2, 3), jnp.nan)
    mean = functools.partial(losses.masked_mean, where=jnp.zeros(3, bool), axis_name="device")
    np.testing.assert_array_equal(jax.vmap(mean, axis_name="device")(values), [0, 0])
