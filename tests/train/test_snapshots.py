"""Snapshots of cycles, and the weights that a training leaves."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from haskd_jax.train.checkpoints import Checkpoints, load_weights, save_weights
from haskd_jax.train.snapshots import Snapshot, Snapshots
from tests.train.states import assert_same, description, flip, truncate


def expert(cycle: int, step: int, value: float = 1.0) -> Snapshot:
    return Snapshot(
        cycle=cycle,
        step=step,
        params={0: {"w": jnp.full(3, value, jnp.float32)}},
        state={"mean": jnp.full(2, -value, jnp.float32)},
        iou=np.array([0.1 + 0.2, np.nan]),
        counts=np.array([2**40, 0]),
    )


LIKE = (
    {0: {"w": jax.ShapeDtypeStruct((3,), jnp.float32)}},
    {"mean": jax.ShapeDtypeStruct((2,), jnp.float32)},
)


def test_snapshots_come_back_in_order(tmp_path):
    snapshots = Snapshots(tmp_path / "snapshots")
    assert snapshots.load(*LIKE) == []
    for cycle in (1, 0, 10, 2):
        snapshots.save(expert(cycle, 100 * cycle, cycle))
    loaded = snapshots.load(*LIKE)
    assert [(e.cycle, e.step) for e in loaded] == [(0, 0), (1, 100), (2, 200), (10, 1000)]
    for e in loaded:
        wanted = expert(e.cycle, e.step, e.cycle)
        assert_same((e.params, e.state), (wanted.params, wanted.state))
        np.testing.assert_array_equal(e.iou, wanted.iou, strict=True)
        np.testing.assert_array_equal(e.counts, wanted.counts, strict=True)
    assert [e.cycle for e in snapshots.load(*LIKE, up_to_step=200)] == [0, 1, 2]


def test_a_cycle_trained_again_replaces_its_snapshot(tmp_path):
    snapshots = Snapshots(tmp_path)
    for value in (1.0, 2.0, 3.0):
        snapshots.save(expert(4, 400, value))
    (loaded,) = snapshots.load(*LIKE)
    assert loaded.params[0]["w"].tolist() == [3.0, 3.0, 3.0]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_replacement_cut_short_leaves_one_snapshot(tmp_path):
    """Killed between writing the new one and deleting the old one; or while writing it."""
    snapshots = Snapshots(tmp_path)
    snapshots.save(expert(0, 100, 1.0))
    (tmp_path / "0.0").rename(tmp_path / "kept")
    snapshots.save(expert(0, 100, 2.0))
    (tmp_path / "0.0").rename(tmp_path / "0.1")
    (tmp_path / "kept").rename(tmp_path / "0.0")
    (tmp_path / "0.2.partial").mkdir()
    (loaded,) = snapshots.load(*LIKE)
    assert loaded.params[0]["w"].tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_a_corrupt_snapshot_is_an_error_that_helps(tmp_path, damage):
    snapshots = Snapshots(tmp_path)
    snapshots.save(expert(0, 100))
    snapshots.save(expert(1, 200))
    damage(tmp_path / "1.0" / "arrays" / "manifest.ocdbt")
    with pytest.raises(ValueError, match=r"1\.0: the expert of cycle 1 is corrupt.*Put a copy"):
        snapshots.load(*LIKE)
    assert len(snapshots.load(*LIKE, up_to_step=150)) == 1


def test_snapshots_of_another_network(tmp_path):
    snapshots = Snapshots(tmp_path)
    snapshots.save(expert(0, 100))
    with pytest.raises(ValueError, match=r"params/0/w: saved float32\[3\], wanted float32\[4\]"):
        snapshots.load({0: {"w": jnp.zeros(4)}}, LIKE[1])


def test_weights_of_a_finished_training(tmp_path):
    for value in (1.0, 2.0):
        save_weights(tmp_path, {0: {"w": jnp.full(3, value)}}, {"mean": jnp.ones(2)})
    params, state = load_weights(tmp_path, *LIKE)
    assert_same((params, state), ({0: {"w": np.full(3, 2, "f4")}}, {"mean": np.ones(2, "f4")}))
    flip(description(next((tmp_path / "weights").iterdir())))
    with pytest.raises(ValueError, match=r"weights.*corrupt.*command then writes it anew"):
        load_weights(tmp_path, *LIKE)


@pytest.mark.parametrize("averaged", [False, True])
def test_weights_of_a_training_that_has_not_ended(tmp_path, averaged):
    from haskd_jax.train.state import deployed, init_state

    params = {"network": {0: {"w": jnp.full(3, 7.0)}}, "head": jnp.ones(4)}
    state = init_state(params, {"mean": jnp.full(2, 3.0)}, optax.sgd(0.1), seed=0, ema=averaged)
    if averaged:
        state = state.replace(ema={0: {"w": jnp.full(3, 9.0)}})
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, state, {})
    assert_same(load_weights(tmp_path, *LIKE), deployed(state))


def test_no_weights_at_all(tmp_path):
    with pytest.raises(ValueError, match="neither weights nor checkpoints"):
        load_weights(tmp_path, *LIKE)
