"""What ends a training early: SIGTERM, before which it saves, and a batch that spoils it."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Shaped

from haskd_jax.files import write_whole


class Stopped(Exception):
    """SIGTERM came, and the training was saved; the same command goes on with it."""


@contextmanager
def sigterm() -> Iterator[list[int]]:
    """Receives SIGTERM.

    Yields:
        A list that is no longer empty once it came.
    """
    received: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    except ValueError:  # not in the main thread: a notebook's or a test's worker
        yield received
        return
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def save_batch(folder: Path, step: int, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> Path:
    """Keeps the batch that a training stopped at.

    Args:
        folder: Of the training.
        step: Its number.
        arrays: Of the batch, by name.

    Returns:
        The file, to be read by `numpy.load`.
    """
    path = folder / f"stopped_at_step_{step}.process_{jax.process_index()}.npz"

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    write_whole(path, write)
    return path
