"""Where arrays live: a mesh of one axis, batches spread over it, parameters alike or spread too."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from haskd_jax.data.loader_batch import Batch

DATA = "data"  # the axis over which batches are spread


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices of all processes, or of some.

    Args:
        devices: The devices; all by default.

    Returns:
        The mesh, of one axis `DATA`.
    """
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (DATA,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def spread(mesh: Mesh, tree: PyTree) -> PyTree:
    """Shardings that spread large arrays over the devices.

    Args:
        mesh: The mesh.
        tree: Of arrays or shapes.

    Returns:
        For each leaf its sharding: along its longest axis that the number of devices divides, or
        replicated where there is none or the array is small.
    """

    def of(leaf) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if leaf.size < 4096 or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, DATA))

    return jax.tree.map(of, tree)


def put_whole(mesh: Mesh, tree: PyTree) -> PyTree:
    """Puts arrays that all processes hold alike on every device.

    `jax.device_put` would compare them among the processes, where a NaN equals no other.

    Args:
        mesh: The mesh.
        tree: Of arrays on this process's host or device.

    Returns:
        The arrays, replicated.
    """
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree
    )


def put_batches(mesh: Mesh, batches: Sequence[Batch]) -> Batch:
    """Stacks one batch for each device of this process into one that is spread over the mesh.

    Args:
        mesh: The mesh.
        batches: In the order of this process's devices, all of one capacity.

    Returns:
        The batch, with a leading axis of all devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec(DATA))
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array), stacked
    )
