"""Files that are whole or not there: written beside, then renamed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

PARTIAL = ".partial-"  # begins the name of what is being written


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
