"""Which implementation of an operation runs: one rule for every operation that has several."""

from collections.abc import Callable

import jax

from haskd_jax.native_kernels import native_available


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


def varying(arrays):
    """The pytree, every array marked as varying over each mesh axis that any of them varies over.

    Within `shard_map`, features differ from device to device while weights do not; a kernel takes
    both, and wants their types alike. The marking's transpose sums gradients over the devices, so
    it stands outside of custom gradients. Elsewhere it does nothing.
    """
    leaves = jax.tree.leaves(arrays)
    axes = frozenset().union(*(jax.typeof(leaf).manual_axis_type.varying for leaf in leaves))

    def mark(array):
        missing = axes - jax.typeof(array).manual_axis_type.varying
        return jax.lax.pcast(array, tuple(sorted(missing)), to="varying") if missing else array

    return jax.tree.map(mark, arrays) if axes else arrays
