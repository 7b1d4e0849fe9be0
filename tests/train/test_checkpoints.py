"""Checkpoints: exact, in the shardings asked for, the newest kept."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from haskd_jax.train.checkpoints import (
    Checkpoints,
    save_weights,
)
from tests.train.states import assert_same, description, make_state, small


def test_everything_comes_back_bit_for_bit(tmp_path):
    state = make_state(3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state, {"step": 7, "names": ["a"], "nested": {"x": None}})
        restored = checkpoints.restore(make_state(0))
    assert restored.step == 7
    assert restored.loader_state == {"step": 7, "names": ["a"], "nested": {"x": None}}
    assert_same(restored.state, state)
    for leaf, given in zip(
        jax.tree.leaves(restored.state), jax.tree.leaves(make_state(0)), strict=True
    ):
        assert isinstance(given, jax.Array) == isinstance(leaf, jax.Array)


def test_nothing_saved_is_none(tmp_path):
    with Checkpoints(tmp_path / "new" / "folder") as checkpoints:
        assert checkpoints.restore(small(0)) is None


def test_an_empty_state(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": None, "b": {}}, {})
        assert checkpoints.restore({"a": None, "b": {}}).state == {"a": None, "b": {}}


@pytest.mark.parametrize("abstract", [False, True])
def test_restores_into_the_shardings_asked_for(tmp_path, abstract):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows, alike = (NamedSharding(mesh, PartitionSpec(*s)) for s in (("data",), ()))
    state = {
        "x": jax.device_put(jnp.arange(12.0).reshape(4, 3), alike),
        "keys": jax.device_put(jax.random.split(jax.random.key(0), 4), rows),
        "loose": jnp.ones(2),
    }
    like = {
        "x": jax.device_put(jnp.zeros((4, 3)), rows),
        **{n: state[n] for n in ("keys", "loose")},
    }
    if abstract:
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        restored = checkpoints.restore(like).state
    assert_same(restored, state)
    assert restored["x"].sharding == rows and restored["keys"].sharding == rows
    assert abstract or not restored["loose"].committed


def test_a_donated_state_was_copied_before(tmp_path):
    """On CPU the host's view of an array is the array: the save must not see what follows."""
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = {f"x{i}": jnp.full((256, 256), 5.0) + i for i in range(8)}
    expected = jax.tree.map(lambda x: np.array(x, copy=True), state)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    host = np.full(3, 5)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {**state, "host": host}, {})
        for _ in range(5):
            state = advance(state)
        host[:] = -1
        restored = checkpoints.restore({**like, "host": host}).state
    assert restored.pop("host").tolist() == [5, 5, 5]
    assert_same(restored, expected)


def test_a_restored_state_may_be_donated(tmp_path):
    """Two devices may be given one buffer of the host's to read, but not to write into."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    alike = NamedSharding(mesh, PartitionSpec())
    state = jax.device_put({f"x{i}": jnp.full((256, 256), 5.0) + i for i in range(8)}, alike)
    advance = jax.jit(lambda s: jax.tree.map(lambda x: 2 * x + 1, s), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        restored = checkpoints.restore(state).state
    for _ in range(3):
        state, restored = advance(state), advance(restored)
    for name, array in restored.items():
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, state[name])


def test_training_goes_on_as_if_never_stopped(tmp_path):
    optimizer = optax.sgd(0.1, momentum=0.9)

    @jax.jit
    def advance(state):
        params, opt_state, key = state
        key, use = jax.random.split(key)
        target = jax.random.normal(use, (5,))
        gradient = jax.grad(lambda p: jnp.sum((p["w"] - target) ** 2))(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, key

    params = {"w": jnp.zeros(5)}
    fresh = (params, optimizer.init(params), jax.random.key(4))
    state = fresh
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 11):
            state = advance(state)
            if step % 3 == 0:
                checkpoints.save(step, state, {"step": step})
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(fresh)
    again = restored.state
    for _ in range(restored.step, 10):
        again = advance(again)
    assert restored.step == 9
    assert_same(again, state)


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_stay(tmp_path, keep):
    with Checkpoints(tmp_path, keep=keep) as checkpoints:
        for step in (1, 2, 9, 10, 100):
            checkpoints.save(step, small(step), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        map(str, (1, 2, 9, 10, 100)[-keep:])
    )


def test_a_step_that_is_stored_stays(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small(1), {})
        checkpoints.save(1, small(2), {})
        assert_same(checkpoints.restore(small(0)).state, small(1))


def test_another_network_is_named(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"net": {"a": jnp.ones((2, 3)), "b": jnp.ones(2)}}, {})
        wanted = {"net": {"a": jnp.ones((2, 4)), "c": jnp.ones(2, jnp.bfloat16)}}
        with pytest.raises(ValueError) as caught:
            checkpoints.restore(wanted)
        assert (tmp_path / "1").is_dir()
    message = str(caught.value)
    assert str(tmp_path / "1") in message
    assert "net/a: saved float32[2, 3], wanted float32[2, 4]" in message
    assert "net/b: saved float32[2], wanted nothing" in message
    assert "net/c: saved nothing, wanted bfloat16[2]" in message


def test_a_later_version_is_not_called_corrupt(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small(1), {})
        checkpoints.wait()
        path = description(tmp_path / "1")
        path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
        with pytest.raises(ValueError, match=r"version 2.*update"):
            checkpoints.restore(small(0))


@pytest.mark.parametrize("state", [{"x": object()}, {"x": float("nan")}, {"x": np.int64(3)}])
def test_a_loader_state_that_is_not_json(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="loader_state"):
        checkpoints.save(1, small(1), state)


def test_keep_is_checked(tmp_path):
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path, keep=0)


def test_two_leaves_of_one_name(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="'a/1'"):
        checkpoints.save(1, {"a": {1: np.ones(1)}, "a/1": np.ones(1)}, {})


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/checkpoints: checkpoints cannot be written"):
        Checkpoints(tmp_path / "file" / "checkpoints")
    with pytest.raises(OSError, match=r"file/weights: checkpoints cannot be written"):
        save_weights(tmp_path / "file", small(1), {})
