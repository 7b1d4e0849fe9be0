"""Which implementation of an operation runs: one rule for every operation of the engine."""

from collections.abc import Callable

import jax

from haskd_jax.sparse._native import native_available
from haskd_jax.sparse._shard import varying


def run(implementation: str | None, *, native: Callable, xla: Callable, args: tuple):
    """Runs `native(*args)` or `xla(*args)`.

    `None` picks when the program is lowered: native on CPU where it is loaded, portable elsewhere,
    so that one traced program can be exported for other platforms. A name forces one.

    Raises:
      ValueError: where `implementation` is unknown or not available here.
    """
    args = varying(args)
    if implementation == "xla" or (implementation is None and not native_available()):
        return xla(*args)
    if implementation is None:
        return jax.lax.platform_dependent(*args, cpu=native, default=xla)
    if implementation == "native" and native_available():
        return native(*args)
    known = {"native": "the native CPU kernels are not loaded (see the log)",
             "pallas": "there is no Pallas kernel for this operation yet"}  # fmt: skip
    reason = known.get(implementation, 'the implementations are "xla" and "native"')
    raise ValueError(f"implementation={implementation!r}: {reason}; None picks the best there is")
