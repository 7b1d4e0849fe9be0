"""One checkpoint folder: arrays by Orbax and a checked description, visible once it is whole."""

import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

_FORMAT, _VERSION = "haskd-checkpoint", 1
_PARTIAL = ".partial"  # ends the names of folders that are being written or deleted
_DESCRIPTION = "checkpoint.json"

# Orbax tells of every step of every save; its warnings stay.
if not logging.getLogger("absl").level:
    logging.getLogger("absl").setLevel(logging.WARNING)


class Corrupt(ValueError):
    """A checkpoint is not what was written; says why."""


class Leaf(NamedTuple):
    """A leaf of a tree, on the host. Of a PRNG key `array` is its data, `dtype` names its kind."""

    array: np.ndarray
    dtype: str
    shape: tuple[int, ...]


class Stored(NamedTuple):
    """What a checkpoint holds: leaves by the names of their paths, and plain JSON values."""

    leaves: dict[str, Leaf]
    info: dict[str, Any]


def to_leaves(tree: PyTree) -> dict[str, Leaf]:
    """Copies every leaf to the host; what is spread over processes is gathered, on each of them.

    The copies share no memory with the tree, whose buffers may be donated at once.
    """
    named = _named(tree)
    for leaf in named.values():
        if isinstance(leaf, jax.Array) and not _is_key(leaf):
            leaf.copy_to_host_async()
    return {name: _to_leaf(leaf) for name, leaf in named.items()}


def from_leaves(leaves: Mapping[str, Leaf], like: PyTree, *, where: Path) -> PyTree:
    """A tree of the structure, dtypes and shardings of `like`.

    Args:
        leaves: By name.
        like: Of arrays, or of `jax.ShapeDtypeStruct`; where one has no sharding, the leaf stays on
            the host.
        where: For the message.

    Raises:
        ValueError: The leaves are of another tree; names what differs.
    """
    named = _named(like)
    saved = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}
    wanted = {name: "{}{}".format(*_kind(leaf)) for name, leaf in named.items()}
    differing = [name for name in wanted | saved if wanted.get(name) != saved.get(name)]
    if differing:
        lines = [
            f"  {name}: saved {saved.get(name, 'nothing')}, wanted {wanted.get(name, 'nothing')}"
            for name in differing[:5]
        ]
        more = f"\n  and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise ValueError(
            f"{where}: saved by another network or optimizer; {len(differing)} of {len(wanted)} "
            "leaves differ:\n" + "\n".join(lines) + more + "\nGive the configuration that it was "
            "trained with, or another output folder"
        )
    placed = [_place(leaves[name], leaf) for name, leaf in named.items()]
    return jax.tree.unflatten(jax.tree.structure(like), placed)


def write(folder: Path, stored: Stored) -> None:
    """Writes a checkpoint beside `folder`, which must not exist, then renames it.

    Raises:
        OSError: It cannot be written; names the folder.
    """
    partial = folder.with_name(folder.name + _PARTIAL)
    arrays = {name: leaf.array for name, leaf in stored.leaves.items() if leaf.array.size}
    leaves = {name: [leaf.dtype, list(leaf.shape)] for name, leaf in stored.leaves.items()}
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if arrays:
            _checkpointer().save(_arrays_of(partial), args=ocp.args.PyTreeSave(arrays))
            # Says where it was written, for stores that cannot rename: weights are given to others.
            (_arrays_of(partial) / "commit_success.txt").unlink(missing_ok=True)
        body = {"info": stored.info, "leaves": leaves, "files": _file_checksums(partial)}
        text = json.dumps(
            {"format": _FORMAT, "version": _VERSION, "crc32": _checksum(body), **body},
            allow_nan=False,
        )
        (partial / _DESCRIPTION).write_text(text, encoding="utf-8")
        os.replace(partial, folder)
    # TensorStore reports a full disk as ValueError or RuntimeError.
    except (OSError, ValueError, RuntimeError) as error:
        if not isinstance(error, OSError) and "os_error_code" not in str(error):
            raise
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(_unwritable(folder, error)) from error


def read_info(folder: Path) -> dict[str, Any]:
    """The JSON values of a checkpoint, checked.

    Raises:
        Corrupt: They are not what was written.
        ValueError: A later version of this package wrote them.
    """
    return _read_description(folder)["info"]


def read(folder: Path) -> Stored:
    """Reads a checkpoint and compares it with its checksums.

    Raises:
        Corrupt: It is not what was written.
        ValueError: A later version of this package wrote it.
    """
    body = _read_description(folder)
    for name, checksum in body["files"].items():
        try:
            intact = _file_checksum(folder / name) == checksum
        except OSError as error:
            raise Corrupt(f"{name} cannot be read: {_first_line(error)}") from error
        if not intact:
            raise Corrupt(f"{name} has another checksum than when it was saved")
    described = {name: (dtype, tuple(shape)) for name, (dtype, shape) in body["leaves"].items()}
    names = [name for name, (_, shape) in described.items() if 0 not in shape]
    arrays = _restore(folder, names) if names else {}
    leaves = {
        name: Leaf(
            arrays[name] if name in arrays else np.empty(shape, _storage(dtype)), dtype, shape
        )
        for name, (dtype, shape) in described.items()
    }
    return Stored(leaves, body["info"])


def remove(folder: Path) -> None:
    """Deletes a checkpoint; one half deleted is never visible."""
    doomed = folder.with_name(f"{folder.name}.old{_PARTIAL}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def prepare_folder(folder: Path) -> None:
    """Makes a folder of checkpoints, and deletes what a killed process left half-written in it.

    Raises:
        OSError: It cannot be written to; names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"*{_PARTIAL}"):
            shutil.rmtree(left)
        probe = folder / f"probe{_PARTIAL}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise OSError(_unwritable(folder / "x", error)) from error


def on_first_process(read_all: Callable[[], Sequence[Stored]]) -> list[Stored]:
    """Reads on the first process, and hands the result, or the error, to every process.

    So no file system needs to be shared, and all processes agree on what was intact.
    """
    if jax.process_count() == 1:
        return list(read_all())
    found: list[Stored] = []
    message: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            found = list(read_all())
        except (ValueError, OSError) as error:
            message = {"error": str(error), "os": isinstance(error, OSError)}
        message["found"] = [
            [info, [[name, x.dtype, x.shape, x.array.shape] for name, x in leaves.items()]]
            for leaves, info in found
        ]
    message = json.loads(bytes(_broadcast(json.dumps(message).encode())))
    if "error" in message:
        raise (OSError if message["os"] else ValueError)(message["error"])
    received = []
    for i, (info, described) in enumerate(message["found"]):
        own = b"".join(x.array.tobytes() for x in found[i].leaves.values()) if found else b""
        data, leaves = _broadcast(own), {}
        for name, dtype, shape, whole_shape in described:
            count = math.prod(whole_shape)
            array = np.frombuffer(data[: count * _storage(dtype).itemsize], _storage(dtype))
            data = data[array.nbytes :]
            leaves[name] = Leaf(array.reshape(whole_shape), dtype, tuple(shape))
        received.append(Stored(leaves, info))
    return received


def _named(tree: PyTree) -> dict[str, Any]:
    named = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named:
            raise ValueError(f"{name!r}: two leaves have this path; name them differently")
        named[name] = leaf
    return named


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _kind(leaf: Any) -> tuple[str, list[int]]:
    """Name of the dtype, and shape."""
    if _is_key(leaf):
        return str(leaf.dtype), list(leaf.shape)
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return np.dtype(leaf.dtype).name, list(leaf.shape)


def _storage(dtype: str) -> np.dtype:
    return np.dtype(np.uint32 if dtype.startswith("key<") else dtype)


def _to_leaf(leaf: Any) -> Leaf:
    dtype, shape = _kind(leaf)
    data = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    if isinstance(data, jax.Array) and not data.is_fully_addressable:
        if data.is_fully_replicated:
            data = data.addressable_data(0)
        else:
            data = multihost_utils.process_allgather(data, tiled=True)
    # A copy in any case: on CPU an array of NumPy may be the buffer itself.
    return Leaf(np.array(data, copy=True, order="C"), dtype, tuple(shape))


def _place(leaf: Leaf, like: Any) -> Any:
    if isinstance(like, bool | int | float | complex):
        return type(like)(leaf.array.item())
    array: Any = leaf.array
    if _is_key(like):
        array = jax.random.wrap_key_data(jnp.asarray(array), impl=_implementation(like))
    sharding = getattr(like, "sharding", None)
    if sharding is None or not getattr(like, "committed", True):
        return jnp.asarray(array) if isinstance(like, jax.Array) else array
    if _is_key(like):
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _implementation(like: Any) -> Any:
    """Of a key array, or of a ShapeDtypeStruct of one, which `key_impl` does not take."""
    if isinstance(like, jax.Array):
        return jax.random.key_impl(like)
    return like.dtype._impl.name


def _checkpointer() -> ocp.Checkpointer:
    """Only the first process writes and reads; it waits for no other."""
    if jax.process_count() == 1:
        return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="haskd"
    )
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone
    )


def _arrays_of(folder: Path) -> Path:
    return folder.resolve() / "arrays"


def _restore(folder: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    restored = _checkpointer().restore(
        _arrays_of(folder),
        args=ocp.args.PyTreeRestore(
            item=dict.fromkeys(names, 0),
            restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
        ),
    )
    return {name: np.asarray(restored[name]) for name in names}


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        read = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        version = read["version"]
        body = {name: read[name] for name in ("info", "leaves", "files")}
        intact = read["format"] == _FORMAT and read["crc32"] == _checksum(body)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{_DESCRIPTION} cannot be read: {_first_line(error)}") from error
    if not intact:
        raise Corrupt(f"{_DESCRIPTION} has another checksum than when it was saved")
    if version != _VERSION:
        raise ValueError(
            f"{folder}: of version {version}; this package reads {_VERSION}: update it"
        )
    return body


def _checksum(body: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True, allow_nan=False).encode())


def _file_checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _file_checksums(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): _file_checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _broadcast(data: bytes) -> memoryview:
    """The first process's bytes; those of the others do not matter."""
    size = multihost_utils.broadcast_one_to_all(np.array([len(data)], np.int64).view(np.uint32))
    own = np.zeros(int(np.asarray(size).view(np.int64)[0]), np.uint8)
    if jax.process_index() == 0:
        own[:] = np.frombuffer(data, np.uint8)
    if own.size:
        own = np.ascontiguousarray(multihost_utils.broadcast_one_to_all(own), np.uint8)
    return memoryview(own.data)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _unwritable(folder: Path, error: BaseException) -> str:
    return (
        f"{folder.parent}: checkpoints cannot be written here ({_first_line(error)}). Free space, "
        "or give an output folder that is writable"
    )
