"""States to save, what tells them apart, and damage to their files."""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


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
