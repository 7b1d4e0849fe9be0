"""A kernel map as a graph, for what is written on graphs."""

import jax.numpy as jnp
import jraph
from jaxtyping import Float

from haskd_jax.sparse import _validate as validate
from haskd_jax.sparse._validate import AnyArray
from haskd_jax.sparse.kernel_map import KernelMap


def voxel_graph(
    kmap: KernelMap, features: Float[AnyArray, "V C"] | None = None
) -> jraph.GraphsTuple:
    """The adjacency of voxels under a kernel map within one grid, as jraph pads graphs.

    Args:
      kmap: of odd kernel size, within one grid (`kernel_map(grid, kernel_size=3)`).
      features: `[V, C]`, node features.

    Returns:
      A graph of two: the voxels, and padding. V + 1 nodes: node i is voxel row i, node V is
      padding; `nodes` holds the features and a zero row, or None. (K - 1) * V edges, from neighbour
      (`senders`) to voxel (`receivers`), both int32: real ones first, `n_edge[0]` of them, without
      self-loops; the others join node V with itself.

    Raises:
      ValueError: for a map between two grids.

    Example:
      >>> import numpy as np
      >>> from haskd_jax import sparse
      >>> grid, _ = sparse.grid_from_coords(np.array([[0, 0, 0, 0], [0, 0, 0, 1]]), capacity=3)
      >>> graph = voxel_graph(sparse.kernel_map(grid, kernel_size=3))
      >>> graph.n_edge.tolist(), graph.senders[:3].tolist(), graph.receivers[:3].tolist()
      ([2, 76], [0, 1, 3], [1, 0, 3])
    """
    if kmap.reverse is not None:
        raise ValueError(
            "kmap joins two grids or has an even kernel: a voxel graph needs a map of odd kernel "
            "size within one grid"
        )
    offsets, voxels = kmap.neighbours.shape
    if features is not None:
        features = validate.array("features", features, shape=(voxels, None), kinds="f")
    centre = offsets // 2
    neighbours = jnp.concatenate([kmap.neighbours[:centre], kmap.neighbours[centre + 1 :]]).reshape(
        -1
    )
    (edges,) = jnp.nonzero(neighbours >= 0, size=neighbours.size, fill_value=neighbours.size)
    real = jnp.sum(neighbours >= 0, dtype=jnp.int32)
    senders = neighbours.at[edges].get(mode="fill", fill_value=voxels)
    receivers = jnp.where(edges < neighbours.size, edges % voxels, voxels).astype(jnp.int32)
    nodes = None if features is None else jnp.pad(features, ((0, 1), (0, 0)))
    return jraph.GraphsTuple(
        nodes=nodes,
        edges=None,
        senders=senders,
        receivers=receivers,
        globals=None,
        n_node=jnp.array([voxels, 1], jnp.int32),
        n_edge=jnp.stack([real, neighbours.size - real]),
    )
