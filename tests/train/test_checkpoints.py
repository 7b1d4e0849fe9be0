"""Checkpoints, snapshots and weights: exact, atomic, checked."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from haskd_jax.train.checkpoints import (
    Checkpoints,
    Snapshot,
    Snapshots,
    load_weights,
    save_weights,
)

ROOT = Path(__file__).resolve().parents[2]


class Pair(NamedTuple):
    first: object
    second: object


def make_state(seed: int = 0) -> dict:
    """Every kind of leaf and of branch that a training state has."""
    rng = np.random.default_rng(seed)
    params = {
        "network": {
            "blocks": {0: {"kernel": jnp.asarray(rng.normal(size=(27, 4, 8)), jnp.float32)}}
        },
        "head": {10: jnp.asarray(rng.normal(size=(8, 3)), jnp.bfloat16), 2: jnp.float32(seed)},
    }
    return {
        "step": jnp.int32(seed),
        "params": params,
        "opt_state": optax.adamw(1e-3).init(params["network"]),
        "key": jax.random.key(seed),
        "keys": jax.random.split(jax.random.key(seed + 1, impl="rbg"), 3),
        "special": jnp.array([np.nan, -0.0, np.inf, 1e-45], jnp.float32),
        "flags": jnp.array([True, False]),
        "nothing": None,
        "empty": {},
        "no_rows": jnp.zeros((0, 3), jnp.float32),
        "host": np.arange(5, dtype=np.int64) + seed,
        "pair": Pair(jnp.uint8(seed), [seed, 0.5, True]),
    }


def bits(leaf) -> tuple:
    if isinstance(leaf, bool | int | float):
        return type(leaf), leaf
    kind = str(leaf.dtype)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return kind, leaf.shape, np.asarray(leaf).tobytes()


def assert_same(tree, expected) -> None:
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    assert list(map(bits, jax.tree.leaves(tree))) == list(map(bits, jax.tree.leaves(expected)))


def small(step: int) -> dict:
    """A state that tells the step, too random to compress."""
    noise = np.random.default_rng(step).normal(size=(64, 64)).astype(np.float32)
    return {"w": noise, "b": np.full(9, step, np.int32)}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


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


def test_what_a_killed_process_left_is_deleted(tmp_path):
    (tmp_path / "30.partial" / "arrays").mkdir(parents=True)
    (tmp_path / "30.partial" / "arrays" / "x").write_text("x")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(small(0)) is None
    assert not list(tmp_path.iterdir())


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def weights_file(folder: Path) -> Path:
    """The largest file: the arrays' values."""
    return max(files(folder / "arrays"), key=lambda path: path.stat().st_size)


def description(folder: Path) -> Path:
    return folder / "checkpoint.json"


@pytest.mark.parametrize("which", [weights_file, description])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink, lambda p: p.write_bytes(b"")])
def test_a_corrupt_latest_is_named_and_the_one_before_used(tmp_path, which, damage):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small(1), {"step": 1})
        checkpoints.save(2, small(2), {"step": 2})
    damage(which(tmp_path / "2"))
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(UserWarning) as caught:
            restored = checkpoints.restore(small(0))
        assert len(caught) == 1
        assert str(tmp_path / "2") in str(caught[0].message)
        assert restored.step == 1 and restored.loader_state == {"step": 1}
        assert_same(restored.state, small(1))
        checkpoints.save(2, small(2), {"step": 2})  # trained again
        assert checkpoints.restore(small(0)).step == 2
    assert (tmp_path / "2.corrupt").is_dir()


def test_every_flipped_byte_is_noticed(tmp_path):
    rng = np.random.default_rng(0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small(1), {"step": 1})
        checkpoints.wait()
        for path in files(tmp_path / "1"):
            whole = path.read_bytes()
            for at in {0, len(whole) - 1, *rng.integers(len(whole), size=3).tolist()}:
                damaged = bytearray(whole)
                damaged[at] ^= 1 << int(rng.integers(8))
                path.write_bytes(damaged)
                with (
                    pytest.warns(UserWarning, match="corrupt"),
                    pytest.raises(ValueError, match="none of the checkpoints"),
                ):
                    checkpoints.restore(small(0))
                (tmp_path / "1.corrupt").rename(tmp_path / "1")
            path.write_bytes(whole)
        assert_same(checkpoints.restore(small(0)).state, small(1))


def test_none_intact_is_an_error(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, small(5), {})
    truncate(description(tmp_path / "5"))
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.warns(UserWarning, match="corrupt"),
        pytest.raises(ValueError, match=r"steps 5 is intact.*delete the folder"),
    ):
        checkpoints.restore(small(0))


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


def python(script: str, *arguments: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        **options,
    )


def test_a_full_folder(tmp_path):
    """A limit on the sizes of files stands for a full disk."""
    script = """
        import resource, sys
        import numpy as np
        from haskd_jax.train.checkpoints import Checkpoints
        noise = np.random.default_rng(0).normal(size=(300, 300))
        try:
            with Checkpoints(sys.argv[1]) as checkpoints:
                checkpoints.save(1, {"x": np.ones(3)}, {})
                checkpoints.wait()
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
                checkpoints.save(2, {"x": noise}, {})
                checkpoints.wait()
        except OSError as error:
            print(error)
        """
    out, _ = python(script, tmp_path).communicate(timeout=60)
    assert f"{tmp_path}: checkpoints cannot be written here" in out
    assert "Free space" in out
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_orbax_is_quiet(tmp_path):
    script = """
        import logging, sys
        import numpy as np
        logging.basicConfig(level=logging.INFO)
        from haskd_jax.train.checkpoints import Checkpoints
        with Checkpoints(sys.argv[1]) as checkpoints:
            checkpoints.save(1, {"x": np.ones(3)}, {})
            checkpoints.restore({"x": np.ones(3)})
        """
    assert python(script, tmp_path).communicate(timeout=60) == ("", "")


def test_killed_at_any_moment_only_whole_checkpoints_are_seen(tmp_path):
    # The parent imports once, and forks a process to be killed for each line that it is sent.
    script = """
        import os, sys
        import numpy as np
        from haskd_jax.train.checkpoints import Checkpoints

        def small(step):
            noise = np.random.default_rng(step).normal(size=(64, 64)).astype(np.float32)
            return {"w": noise, "b": np.full(9, step, np.int32)}

        for line in sys.stdin:
            if os.fork():
                os.wait()
                print("killed", flush=True)
                continue
            with Checkpoints(sys.argv[1]) as checkpoints:
                restored = checkpoints.restore(small(0))
                step = restored.step if restored else 0
                print(os.getpid(), flush=True)
                while True:
                    step += 1
                    checkpoints.save(step, small(step), {"step": step})
                    print(step, flush=True)
        """
    rng, last = random.Random(0), 0
    with python(script, tmp_path, stdin=subprocess.PIPE) as parent:
        for _ in range(8):
            parent.stdin.write("\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            for _ in range(rng.randint(2, 5)):
                saved = int(parent.stdout.readline())
            with contextlib.suppress(subprocess.TimeoutExpired):
                parent.wait(timeout=rng.random() * 0.2)  # a random moment of the save
            os.kill(child, signal.SIGKILL)
            while (line := parent.stdout.readline()) != "killed\n":
                saved = int(line)
            with Checkpoints(tmp_path) as checkpoints:  # a warning would be an error
                restored = checkpoints.restore(small(0))
            # When `save` returned, all saves before were on disk.
            assert restored.step >= max(last, saved - 1)
            assert_same(restored.state, small(restored.step))
            assert restored.loader_state == {"step": restored.step}
            assert all(path.name.isdigit() for path in tmp_path.iterdir())
            last = restored.step
        parent.stdin.close()


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
    with pytest.raises(ValueError, match=r"weights.*corrupt.*command again"):
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
