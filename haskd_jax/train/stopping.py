"""SIGTERM: trainings save before they leave."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


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
