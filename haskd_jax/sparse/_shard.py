"""What `shard_map` asks of operations that take several arrays."""

import jax


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
