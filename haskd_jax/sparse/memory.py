"""Memory that freed arrays leave behind."""

import ctypes
import logging
import sys

_log = logging.getLogger("haskd_jax")
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # glibc's malloc.h
_LARGEST, _STEP = 2**31 - 1, 2**28


def keep_freed_memory() -> bool:
    """Has the process keep the memory of freed arrays for the next ones, where glibc runs it.

    XLA on CPU allocates a program's buffers anew at every run. By default glibc gives large ones
    back to the operating system, which then clears every page again at the next run: 10 to 20 % of
    a training step. The price is that the process stays as large as it was at its largest. Call
    it before anything else of JAX and before threads are begun: those that run already have memory
    of their own, which is not kept and which later ones come to share.

    Returns:
      True where it took effect.

    Example:
      >>> keep_freed_memory() in (True, False)  # doctest: +SKIP
      True
    """
    settings = (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _LARGEST),
        (_M_TOP_PAD, _STEP),
        (_M_ARENA_MAX, 1),
    )
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        _log.info("freed memory is not kept: %s has no mallopt", sys.platform)
        return False
    return all(mallopt(*setting) for setting in settings)
