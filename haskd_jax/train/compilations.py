"""How often XLA compiled."""

from collections.abc import Callable

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
_count = 0


def _listen(event: str, duration_secs: float, **_: str | int) -> None:
    global _count
    _count += event == _EVENT


jax.monitoring.register_event_duration_secs_listener(_listen)


def count_compilations() -> Callable[[], int]:
    """Starts counting.

    Returns:
        A function that says how many programs were compiled since, or fetched from the cache.

    Example:
        >>> import jax.numpy as jnp
        >>> compilations = count_compilations()
        >>> _ = jax.jit(lambda x: x * 3 - 2)(jnp.ones(7))
        >>> compilations() > 0
        True
    """
    start = _count
    return lambda: _count - start
