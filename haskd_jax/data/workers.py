"""Processes that share a folder: one run at a time, and no worker that outlives its run."""

import fcntl
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from haskd_jax.data.errors import DataError


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """One run at a time in a folder; the lock goes with the process, however it ends.

    Args:
        root: The folder, which exists.

    Raises:
        DataError: Another process holds it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
        ...     (Path(folder) / ".lock").exists()
        True
    """
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(root, "another process is preparing here") from error
        yield


@contextmanager
def pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that end with this one, even if it is killed.

    Args:
        workers: How many.

    Yields:
        The pool; what is left in it when the block raises is not started any more.
    """
    # "spawn": a forked child would inherit the lock, and whatever threads the caller has.
    processes = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    try:
        yield processes
    except BaseException:
        processes.shutdown(wait=False, cancel_futures=True)  # an interrupt waits for no scene
        raise
    processes.shutdown()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work, or write beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
