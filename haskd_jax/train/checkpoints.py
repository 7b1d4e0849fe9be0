"""What outlives a training process: its state by step, and final weights."""

import json
import re
import shutil
import warnings
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from haskd_jax.train import _checkpoint
from haskd_jax.train._checkpoint import Corrupt, Stored


@dataclass(frozen=True)
class Restored:
    """What `Checkpoints.restore` found.

    Attributes:
        step: That it was saved at.
        state: Of the structure, dtypes and shardings that were asked for.
        loader_state: The data iterator's.
    """

    step: int
    state: PyTree
    loader_state: dict[str, Any]


class Checkpoints:
    """A training's state, by step: written in the background, visible once whole.

    On several processes all call the same methods; the first one writes and reads.

    Args:
        folder: Made where it lacks; what a killed process left half-written in it is deleted, so
            one training at a time.
        keep: The newest checkpoints that stay.

    Raises:
        ValueError: `keep` < 1.
        OSError: The folder cannot be written to.

    Example:
        >>> import tempfile, jax, jax.numpy as jnp
        >>> state = {"weights": jnp.arange(3.0), "key": jax.random.key(0)}
        >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        ...     checkpoints.save(10, state, {"step": 10})
        ...     checkpoints.wait()
        ...     restored = checkpoints.restore(state)
        >>> restored.step, restored.loader_state, restored.state["weights"].tolist()
        (10, {'step': 10}, [0.0, 1.0, 2.0])
    """

    def __init__(self, folder: Path | str, *, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep={keep}: must be 1 or more")
        self._folder, self._keep = Path(folder), keep
        self._pending: Future[None] | None = None
        if _is_first():
            _checkpoint.prepare_folder(self._folder)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")

    def save(self, step: int, state: PyTree, loader_state: Mapping[str, Any]) -> None:
        """Copies the state to the host, and writes it while training goes on.

        The state's buffers may be donated as soon as this returns. Waits for the save before; a
        step that is stored already stays as it is.

        Args:
            step: Steps done.
            state: Any pytree of arrays and numbers.
            loader_state: Plain JSON values.

        Raises:
            OSError: The save before this one failed: the folder is full or not writable.
            ValueError: `loader_state` is not plain JSON.
        """
        info = _plain({"step": step, "loader_state": dict(loader_state)})
        leaves = _checkpoint.to_leaves(state)
        self.wait()
        if _is_first() and step not in _numbers(self._folder):
            self._pending = self._writer.submit(self._write, step, Stored(leaves, info))

    def restore(self, like: PyTree) -> Restored | None:
        """The newest intact checkpoint.

        A corrupt one is warned of and renamed to `<step>.corrupt`; the one before is used.

        Args:
            like: A pytree of arrays or `jax.ShapeDtypeStruct` with shardings, of what was saved.

        Returns:
            What was saved; None where nothing was.

        Raises:
            ValueError: It was saved by another network or optimizer: names what differs. Or no
                checkpoint is intact.
        """
        self.wait()
        found = _checkpoint.on_first_process(lambda: _newest(self._folder, set_aside=True))
        if not found:
            return None
        leaves, info = found[0]
        state = _checkpoint.from_leaves(leaves, like, where=self._folder / str(info["step"]))
        return Restored(info["step"], state, info["loader_state"])

    def wait(self) -> None:
        """Returns when the last save is on disk.

        Raises:
            OSError: It failed: the folder is full or not writable.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits, and ends the writer. Does nothing the second time."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def __enter__(self) -> "Checkpoints":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes it."""
        self.close()

    def _write(self, step: int, stored: Stored) -> None:
        _checkpoint.write(self._folder / str(step), stored)
        for old in _numbers(self._folder)[: -self._keep]:
            _checkpoint.remove(self._folder / str(old))


def save_weights(folder: Path | str, params: PyTree, state: PyTree) -> None:
    """Stores what inference needs as `<folder>/weights`, in place of what was there.

    Args:
        folder: Of the training.
        params: Of the network.
        state: Its running statistics.

    Raises:
        OSError: The folder is full or not writable.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(folder, {"w": jnp.ones(2)}, {})
        ...     params, state = load_weights(folder, {"w": jnp.zeros(2)}, {})
        >>> params["w"].tolist(), state
        ([1.0, 1.0], {})
    """
    leaves = _checkpoint.to_leaves({"params": params, "state": state})
    if _is_first():
        path = Path(folder) / "weights"
        _checkpoint.prepare_folder(path)
        editions = _numbers(path)
        _checkpoint.write(path / str(max(editions, default=-1) + 1), Stored(leaves, {}))
        for edition in editions:
            _checkpoint.remove(path / str(edition))


def load_weights(
    folder: Path | str, like_params: PyTree, like_state: PyTree
) -> tuple[PyTree, PyTree]:
    """The weights that `save_weights` stored; of a training that has not ended, the newest ones.

    Args:
        folder: Of the training.
        like_params: Arrays or `jax.ShapeDtypeStruct` of the network; what has no sharding stays on
            the host.
        like_state: Likewise, of its running statistics.

    Returns:
        Parameters and running statistics.

    Raises:
        ValueError: There are none, they are corrupt, or of another network.
    """
    path = Path(folder) / "weights"
    found = _checkpoint.on_first_process(lambda: _read_weights(path))
    like = {"params": like_params, "state": like_state}
    network = _checkpoint.from_leaves(found[0].leaves, like, where=path)
    return network["params"], network["state"]


def has_weights(folder: Path | str) -> bool:
    """Whether a training went to its end and left its weights.

    Args:
        folder: Of the training.

    Example:
        >>> has_weights("no/training")
        False
    """
    return bool(_numbers(Path(folder) / "weights"))


def newest_step(folder: Path | str) -> int | None:
    """How far a training has come, by the checkpoint that `load_weights` takes where it goes on.

    Args:
        folder: Of the training.

    Returns:
        Steps; None where there is no intact checkpoint.

    Example:
        >>> newest_step("no/training") is None
        True
    """
    found = _newest(Path(folder) / "checkpoints", set_aside=False)
    return found[0].info["step"] if found else None


def weights_digest(folder: Path | str) -> str | None:
    """What tells a training's final weights from all others.

    Args:
        folder: Of the training.

    Returns:
        8 hexadecimal digits, the same for the same numbers; None where it has not ended.

    Raises:
        ValueError: They are corrupt.

    Example:
        >>> weights_digest("no/training") is None
        True
    """
    path = Path(folder) / "weights"
    found = _checkpoint.on_first_process(lambda: _read_weights(path) if has_weights(folder) else [])
    if not found:
        return None
    crc = 0
    for name, leaf in sorted(found[0].leaves.items()):
        crc = zlib.crc32(f"{name} {leaf.dtype} {leaf.shape}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(leaf.array).tobytes(), crc)
    return f"{crc:08x}"


def _read_weights(path: Path) -> list[Stored]:
    if editions := _numbers(path):
        newest = path / str(max(editions))
        try:
            return [_checkpoint.read(newest)]
        except Corrupt as error:
            raise ValueError(
                f"{newest}: corrupt: {error}. Delete it to use the newest checkpoint beside it; "
                "the training's command then writes it anew"
            ) from error
    newest_state = _newest(path.parent / "checkpoints", set_aside=False)
    if not newest_state:
        raise ValueError(
            f"{path.parent}: holds neither weights nor checkpoints; give the folder of one "
            "training, such as <run>/haskd"
        )
    # As haskd_jax.train.state.deployed chooses.
    leaves, info = newest_state[0]
    averaged = any(name.startswith("ema/") for name in leaves)
    prefix = "ema/" if averaged else "params/network/"
    params = {
        "params/" + name.removeprefix(prefix): leaf
        for name, leaf in leaves.items()
        if name.startswith(prefix)
    }
    state = {name: leaf for name, leaf in leaves.items() if name.startswith("state/")}
    return [Stored(params | state, info)]


def _newest(folder: Path, *, set_aside: bool) -> list[Stored]:
    """The newest intact checkpoint, or none where none was saved."""
    steps = _numbers(folder)
    for step in reversed(steps):
        path = folder / str(step)
        try:
            return [_checkpoint.read(path)]
        except Corrupt as error:
            kept = ""
            if set_aside:
                aside = path.with_name(f"{step}.corrupt")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                kept = f" (kept as {aside.name})"
            warnings.warn(
                f"{path}: a corrupt checkpoint{kept}: {error}; using the one before", stacklevel=2
            )
    if steps:
        raise ValueError(
            f"{folder}: none of the checkpoints of steps {', '.join(map(str, steps))} is intact. "
            "Put a copy back; or delete the folder to train from the start"
        )
    return []


def _numbers(folder: Path) -> list[int]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if re.fullmatch(r"\d+", name))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The values as JSON gives them back."""
    try:
        return json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"loader_state: not plain JSON values: {error}") from error


def _is_first() -> bool:
    return jax.process_index() == 0
