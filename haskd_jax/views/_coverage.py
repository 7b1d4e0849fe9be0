"""Probabilistic coverage: what a set of frames tells about the voxels it sees.

    Phi(S) = sum_v u_v (1 - prod_{f in S sees v} (1 - rho q_f))

u_v >= 0 is the information wanted at voxel v, q_f in [0, 1] the quality of frame f, and rho in
(0, 1] the share of a voxel's information that one perfect frame gives. Our instantiation: the paper
filters images by information, but its formula is not public.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, ScalarLike

from haskd_jax.views._arguments import check_range, check_shape, known, to_mask

# Frames multiplied at a time: so many rows of bits become floats at once.
_BLOCK = 16


def information(
    logits: Float[ArrayLike, "*V C"],
    *,
    weight: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*V"] | None = None,
) -> Float[Array, "*V"]:
    """How much information is wanted at each voxel: 1 + weight * H(softmax(logits)) / log C.

    Where a model that sees points alone is unsure, images have most to add.

    Args:
        logits: [*V, C] of a model that sees points alone; log-probabilities are logits too.
        weight: lambda_H >= 0; at 0 all voxels count the same.
        where: [*V] False for padding.

    Returns:
        [*V] f32 in [1, 1 + weight]; 0 where masked.

    Raises:
        ValueError: for a mask of another shape or a negative weight.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> print(views.information(jnp.array([[9.0, -9.0], [0.0, 0.0]])).round(3))
        [1. 2.]
    """
    check_range("weight", weight, 0.0, math.inf)
    logits = jnp.asarray(logits, jnp.float32)
    *voxels, classes = logits.shape
    where = to_mask("where", where, tuple(voxels))
    log_p = jax.nn.log_softmax(jnp.where(where[..., None], logits, 0.0))
    p = jnp.exp(log_p)
    entropy = -jnp.sum(jnp.where(p > 0, p * log_p, 0.0), axis=-1) / math.log(max(classes, 2))
    wanted = 1.0 + jnp.asarray(weight, jnp.float32) * jnp.clip(entropy, 0.0, 1.0)
    return jnp.where(where, wanted, 0.0)


def coverage(
    visible: Bool[ArrayLike, "F V"],
    indices: Int[ArrayLike, " K"],
    *,
    where: Bool[ArrayLike, " V"] | None = None,
) -> Float[Array, ""]:
    """The share of voxels that at least one of the selected frames sees.

    Args:
        visible: [F, V], see `visibility`.
        indices: [K] selected frames; -1: none.
        where: [V] the voxels that count; by default those that any of the F frames sees.

    Returns:
        [] f32 in [0, 1]; 0 if no voxel counts.

    Raises:
        ValueError: for shapes that disagree and indices outside of [-1, F).

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> visible = jnp.array([[True, True, False, False], [False, True, True, False]])
        >>> print(views.coverage(visible, jnp.array([0, -1])))
        0.6666667
    """
    visible = to_visible(visible)
    check_shape("indices", indices, (None,))
    check_range("indices", indices, -1, len(visible) - 1)
    where = visible.any(0) if where is None else to_mask("where", where, (visible.shape[1],))
    indices = jnp.asarray(indices, jnp.int32)
    seen = jax.vmap(row_of, (None, 0))(visible, indices).any(0)
    covered, count = ((x.sum(dtype=jnp.int32)).astype(jnp.float32) for x in (seen & where, where))
    return covered / jnp.maximum(count, 1.0)


def marginal_gains(
    visible: Bool[ArrayLike, "F V"],
    indices: Int[ArrayLike, " K"],
    *,
    quality: Float[ArrayLike, " F"] | None = None,
    information: Float[ArrayLike, " V"] | None = None,
    rho: ScalarLike = 1.0,
) -> Float[Array, " K"]:
    """What each of the frames added to the probabilistic coverage Phi, in the order given.

    Their sum is Phi of the set, whatever the order; so selections of any origin can be compared.

    Args:
        visible: [F, V], see `visibility`.
        indices: [K] frames; -1: none. No frame occurs twice.
        quality: [F] in [0, 1]; default 1.
        information: [V] >= 0; default 1.
        rho: in (0, 1], the share of a voxel's information that one frame of quality 1 gives.

    Returns:
        [K] f32; 0 for -1.

    Raises:
        ValueError: for shapes that disagree and values outside of their range.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> visible = jnp.array([[True, True, False], [False, True, True]])
        >>> print(views.marginal_gains(visible, jnp.array([0, 1, -1])))
        [2. 1. 0.]
    """
    visible = to_visible(visible)
    check_shape("indices", indices, (None,))
    check_range("indices", indices, -1, len(visible) - 1)
    share, wanted = to_shares(visible, quality, information, rho)
    return gains_in_turn(visible, jnp.asarray(indices, jnp.int32), share, wanted)


@jax.jit
def gains_in_turn(
    visible: Bool[Array, "F V"],
    indices: Int[Array, " K"],
    share: Float[Array, " F"],
    wanted: Float[Array, " V"],
) -> Float[Array, " K"]:
    """`marginal_gains` of checked arguments, see `to_shares`."""

    def add(wanted, index):
        row, taken = row_of(visible, index), share[jnp.clip(index, 0, len(share) - 1)]
        gain = taken * jnp.where(row, wanted, 0.0).sum()
        return wanted * (1.0 - taken * row.astype(jnp.float32)), gain

    return lax.scan(add, wanted, indices)[1]


def row_of(visible: Bool[Array, "F V"], index: Int[Array, ""]) -> Bool[Array, " V"]:
    """What one frame sees: nothing if the index is -1, or beyond the frames."""
    last = len(visible) - 1
    return visible[jnp.clip(index, 0, last)] & (index >= 0) & (index <= last)


def to_visible(visible: ArrayLike) -> Bool[Array, "F V"]:
    visible = jnp.asarray(visible)
    check_shape("visible", visible, (None, None))
    if visible.dtype != bool:
        raise ValueError(f"visible has dtype {visible.dtype}, expected bool as of `visibility`")
    return visible


def to_shares(
    visible: Bool[Array, "F V"],
    quality: ArrayLike | None,
    information: ArrayLike | None,
    rho: ScalarLike,
    where: Bool[Array, " F"] | None = None,
) -> tuple[Float[Array, " F"], Float[Array, " V"]]:
    """rho q of each frame and u of each voxel, f32; what is out of range or NaN becomes 0.

    `where` is False for frames that are padding, whose quality may be anything.
    """
    frames, voxels = visible.shape
    check_shape("rho", rho, ())
    if known(rho) and not 0 < float(np.asarray(rho)) <= 1:
        raise ValueError(f"rho is {rho}, expected a number in (0, 1]")
    share, wanted = jnp.ones(frames, jnp.float32), jnp.ones(voxels, jnp.float32)
    if quality is not None:
        check_shape("quality", quality, (frames,))
        check_range("quality", quality, 0.0, 1.0, where)
        quality = jnp.asarray(quality, jnp.float32)
        share = jnp.where((quality >= 0) & (quality <= 1), quality, 0.0)
    if information is not None:
        check_shape("information", information, (voxels,))
        check_range("information", information, 0.0, float(np.finfo(np.float32).max))
        information = jnp.asarray(information, jnp.float32)
        wanted = jnp.where((information >= 0) & (information < jnp.inf), information, 0.0)
    rho = jnp.asarray(rho, jnp.float32)
    return share * jnp.where((rho > 0) & (rho <= 1), rho, 0.0), wanted


def sum_visible(visible: Bool[Array, "F V"], weights: Float[Array, " V"]) -> Float[Array, " F"]:
    """visible @ weights, without turning all of `visible` into floats."""
    frames = len(visible)
    rows = min(_BLOCK, frames)
    # The last block is moved up rather than cut short: every block is full, so rows that are alike
    # get the same bits wherever they stand, and ties stay ties.
    starts = np.minimum(np.arange(0, frames, rows), frames - rows).astype(np.int32)

    def one_block(start):
        block = lax.dynamic_slice_in_dim(visible, start, rows).astype(jnp.float32)
        return jnp.dot(block, weights, precision=lax.Precision.HIGHEST)

    frame = np.arange(frames)
    sums = lax.map(one_block, jnp.asarray(starts))
    return sums[frame // rows, frame - starts[frame // rows]]
