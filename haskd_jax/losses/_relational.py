"""Relations between neighbouring voxels."""

import jax
import jax.numpy as jnp
import jraph
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Shaped

from haskd_jax.losses._arguments import check_feature_rows, to_float, to_mask, zero_rows
from haskd_jax.losses._distillation import unit


def relational(
    student_features: Float[ArrayLike, "V D"],
    teacher_features: Float[ArrayLike, "V E"],
    graph: jraph.GraphsTuple,
    *,
    where: Bool[ArrayLike, " V"] | None = None,
) -> Float[Array, " edges"]:
    """How the likeness of neighbours differs between student and teacher, one value per edge.

    For an edge (i, j) it is (cos(s_i, s_j) - cos(t_i, t_j))^2. The widths of student and teacher
    may differ, since each is compared with itself only. Our instantiation of relational
    distillation on the voxels' neighbourhood graph. It has gradients in reverse mode only.

    Args:
        student_features: [V, D].
        teacher_features: [V, E]; gets no gradient.
        graph: voxel adjacency, as from `haskd_jax.sparse.voxel_graph`, its last graph padding. See
            `edge_mask` for the edges that count.
        where: [V] True for voxels that count; default all.

    Returns:
        [edges] in [0, 4], in f32 (f64 if an input is f64); 0 for edges that do not count. Its mean
        is `masked_mean(values, where=edge_mask(graph, V, where=where))`.

    Raises:
        ValueError: for shapes that disagree, or a graph without edges or padding graph.

    Example:
        >>> import jax.numpy as jnp
        >>> import jraph
        >>> from haskd_jax import losses
        >>> pair = jraph.GraphsTuple(
        ...     nodes=None,
        ...     edges=None,
        ...     globals=None,
        ...     senders=jnp.array([0, 2]),  # voxels 0 and 1 are neighbours; node 2 is padding
        ...     receivers=jnp.array([1, 2]),
        ...     n_node=jnp.array([2, 1]),
        ...     n_edge=jnp.array([1, 1]),
        ... )
        >>> student, teacher = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0], [2.0]])
        >>> values = losses.relational(student, teacher, pair)
        >>> print(values)
        [1. 0.]
        >>> print(losses.masked_mean(values, where=losses.edge_mask(pair, 2)))
        1.0

    References:
        Park et al., Relational Knowledge Distillation, CVPR 2019
        (https://arxiv.org/abs/1904.05068), which compares distances and angles of examples of a
        batch.
    """
    student, teacher = to_float(student_features, teacher_features)
    check_feature_rows(student, teacher)
    where = to_mask(where, student.shape[:1])
    counts = edge_mask(graph, student.shape[0], where=where)
    senders, receivers = (jnp.where(counts, ends, jnp.zeros_like(ends)) for ends in _ends(graph))

    def likeness(features: Float[Array, "V width"]) -> Float[Array, " edges"]:
        return _products_compiled(unit(zero_rows(features, where)), senders, receivers)

    difference = likeness(student) - likeness(lax.stop_gradient(teacher))
    return jnp.where(counts, difference * difference, jnp.zeros_like(difference))


def edge_mask(
    graph: jraph.GraphsTuple, num_voxels: int, *, where: Bool[ArrayLike, " V"] | None = None
) -> Bool[Array, " edges"]:
    """The edges that relate two voxels that count.

    These are the first `graph.n_edge[:-1].sum()` edges (the last graph is jraph's padding), without
    those that touch a masked voxel or a node beyond the voxels, and without self-loops: a voxel
    says nothing about itself, and jraph's padding edges are self-loops.

    Args:
        graph: with V voxels as its first nodes; nodes beyond them are padding.
        num_voxels: V, the number of feature rows.
        where: [V] True for voxels that count; default all.

    Returns:
        [edges] bool.

    Raises:
        ValueError: for a graph without edges or padding graph, or a mask of another length.

    Example:
        >>> import jax.numpy as jnp
        >>> import jraph
        >>> from haskd_jax import losses
        >>> graph = jraph.GraphsTuple(
        ...     nodes=None,
        ...     edges=None,
        ...     globals=None,
        ...     senders=jnp.array([0, 1, 2]),
        ...     receivers=jnp.array([1, 1, 2]),
        ...     n_node=jnp.array([2, 1]),
        ...     n_edge=jnp.array([2, 1]),
        ... )
        >>> print(losses.edge_mask(graph, 2))
        [ True False False]
    """
    senders, receivers = _ends(graph)
    n_edge = jnp.asarray(graph.n_edge)
    if n_edge.shape[0] < 2:
        raise ValueError(
            f"graph holds {n_edge.shape[0]} graphs, and by jraph's convention the last is padding, "
            "so no edge would count: pad it with jraph.pad_with_graphs"
        )
    where = to_mask(where, (num_voxels,))
    real = jnp.arange(senders.shape[0], dtype=jnp.int32) < jnp.sum(n_edge[:-1]).astype(jnp.int32)

    def counts(nodes: Array) -> Bool[Array, " edges"]:
        inside = (nodes >= 0) & (nodes < num_voxels)
        return inside & where[jnp.clip(nodes, 0, num_voxels - 1)]

    return real & (senders != receivers) & counts(senders) & counts(receivers)


_CHUNK = 8192  # edges


@jax.custom_vjp
def _products(
    rows: Float[Array, "V D"], senders: Int[Array, " edges"], receivers: Int[Array, " edges"]
) -> Float[Array, " edges"]:
    """rows[senders] . rows[receivers], one chunk of edges after the other.

    Gathered all at once, the rows of 750k edges between 88k voxels of width 96 would take 1.2 GiB,
    and four times as long on CPU.
    """

    def of_chunk(ends: tuple[Array, Array]) -> Array:
        return jnp.sum(rows[ends[0]] * rows[ends[1]], axis=-1)

    products = lax.map(of_chunk, (_chunks(senders), _chunks(receivers)))
    return products.reshape(-1)[: senders.shape[0]]


def _products_forward(rows: Array, senders: Array, receivers: Array) -> tuple[Array, tuple]:
    return _products(rows, senders, receivers), (rows, senders, receivers)


def _products_backward(saved: tuple, cotangent: Array) -> tuple[Array, None, None]:
    rows, senders, receivers = saved

    def add(total: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, None]:
        i, j, slope = chunk
        slope = slope[:, None]
        return total.at[i].add(slope * rows[j]).at[j].add(slope * rows[i]), None

    chunks = _chunks(senders), _chunks(receivers), _chunks(cotangent)
    total, _ = lax.scan(add, jnp.zeros_like(rows), chunks)
    return total, None, None


_products.defvjp(_products_forward, _products_backward)
_products_compiled = jax.jit(_products)  # called one by one its loop would be compiled every time


def _chunks(per_edge: Shaped[Array, " edges"]) -> Shaped[Array, "chunks chunk"]:
    """Padded with 0: the first voxel, and no slope."""
    size = min(_CHUNK, max(per_edge.shape[0], 1))
    return jnp.pad(per_edge, (0, -per_edge.shape[0] % size)).reshape(-1, size)


def _ends(graph: jraph.GraphsTuple) -> tuple[Int[Array, " edges"], Int[Array, " edges"]]:
    if graph.senders is None or graph.receivers is None:
        raise ValueError("graph has no edges: senders and receivers are None")
    return jnp.asarray(graph.senders), jnp.asarray(graph.receivers)
