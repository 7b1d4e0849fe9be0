"""Processes that share a folder: one run at a time, and no worker that outlives its run."""

import errno
import fcntl
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from io import TextIOBase
from pathlib import Path

from haskd_jax.data.errors import DataError

_logger = logging.getLogger(__name__)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # a mounted bucket, some network shares


@contextmanager
def locked(root: Path, *, patience: float = 0.0) -> Iterator[None]:
    """One run at a time in a folder; the lock goes with the process, however it ends.

    Where the filesystem knows no locks there is none.

    Args:
        root: The folder, which exists.
        patience: How long to wait for another process that may be about to end, seconds.

    Raises:
        DataError: Another process holds it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
        ...     (Path(folder) / ".lock").exists()
        True
    """
    until = time.monotonic() + patience
    with (root / ".lock").open("w") as file:
        if patience and not _lock(file):
            _logger.warning("%s: waiting for another process that is at work here", root)
        while not _lock(file):
            if time.monotonic() >= until:
                raise DataError(
                    root, "another process is at work here: wait for its end, or end it"
                )
            time.sleep(0.1)
        yield


def _lock(file: TextIOBase) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


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
