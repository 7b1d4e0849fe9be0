"""Files that are whole or not there: written beside, then renamed. Arrays, read by threads."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

PARTIAL = ".partial-"  # begins the name of what is being written
# CPython 3.11 counts the depth of its parser, which reads headers of .npy files, for all threads
# together: once in a long training two that read at the same time end in a SystemError
# (github.com/python/cpython/issues/106905).
_one_header_at_a_time = threading.Lock()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a file beside `path` and renames it: nobody sees half of it.

    Args:
        path: The file; its folder is made if need be.
        write: Called with the path to write to, of the same suffix.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "a.txt", lambda path: path.write_text("whole"))
        ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
        [('a.txt', 'whole')]
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8, whole or not at all.

    Args:
        path: The file; its folder is made if need be.
        text: All of it.
    """
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8", newline="\n"))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all: the same value gives the same bytes.

    Args:
        path: The file; its folder is made if need be.
        value: Plain JSON values; NaN is refused, write None.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"b": 1, "a": 2})
        ...     (Path(folder) / "a.json").read_text()
        '{\\n "a": 2,\\n "b": 1\\n}\\n'
    """
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_array(path: Path, array: Shaped[np.ndarray, "..."]) -> None:
    """Writes an array as `.npy`, whole or not at all.

    Args:
        path: The file; its folder is made if need be.
        array: Of any shape and any dtype but objects.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_array(Path(folder) / "a.npy", np.arange(3))
        ...     np.load(Path(folder) / "a.npy").tolist()
        [0, 1, 2]
    """

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    write_whole(path, write)


def map_array(path: Path) -> Shaped[np.ndarray, "..."]:
    """Memory-maps the array of a `.npy` file, from any number of threads.

    Args:
        path: The file.

    Returns:
        The array, not writable.

    Raises:
        OSError: The file is not there, or cannot be read.
        ValueError: It is no such file, or holds objects.
        EOFError: It is empty.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_array(Path(folder) / "a.npy", np.arange(3))
        ...     map_array(Path(folder) / "a.npy")[1:].tolist()
        [1, 2]
    """
    with _one_header_at_a_time:
        return np.load(path, mmap_mode="r", allow_pickle=False)
