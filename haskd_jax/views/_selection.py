"""Information-oriented filtering: which frames of a sequence to take."""

import logging
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int32, ScalarLike

from haskd_jax.views._arguments import known, to_mask
from haskd_jax.views._coverage import row_of, sum_visible, to_shares, to_visible

_logger = logging.getLogger(__name__)


class Selection(NamedTuple):
    """K frames, in the order in which they were chosen.

    Attributes:
        indices: [K] i32; -1 where there was no frame left to choose.
        gains: [K] f32, what each added to the probabilistic coverage, see `marginal_gains`.
    """

    indices: Int32[Array, " K"]
    gains: Float[Array, " K"]


def select_views(
    visible: Bool[ArrayLike, "F V"],
    *,
    num_views: int,
    quality: Float[ArrayLike, " F"] | None = None,
    information: Float[ArrayLike, " V"] | None = None,
    rho: ScalarLike = 0.7,
    where: Bool[ArrayLike, " F"] | None = None,
) -> Selection:
    """Information-oriented filtering: the frames that together tell most about the voxels.

    Chooses one frame after the other, each time the one that adds most to the probabilistic
    coverage Phi of `marginal_gains`. As Phi is monotone and submodular, what is chosen has at least
    1 - 1/e of what the best set of that size has. With rho * quality below 1, a voxel seen once is
    still worth seeing again, and better. The criterion is our instantiation; the paper's is not
    public.

    Args:
        visible: [F, V] which frame sees which voxel, see `visibility`.
        num_views: K >= 1, how many to choose.
        quality: [F] in [0, 1], see `frame_quality`; default 1.
        information: [V] >= 0, how much is wanted at each voxel, see `information`; default 1.
        rho: in (0, 1], the share of a voxel's information that one frame of quality 1 gives. Less
            trades new voxels for second views of known ones.
        where: [F] False for padding, which is never chosen.

    Returns:
        `Selection`: indices and gains, [K] each. Gains do not increase. Among equal gains the
        lowest index goes first; frames that add nothing are taken too, if no others are left. With
        fewer than K frames, all are taken, the rest is -1, and a warning is logged.

    Raises:
        ValueError: for shapes that disagree, no frames, num_views below 1, and values outside of
            their range. Under `jax.jit`, values outside of their range count as 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> visible = jnp.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1]], bool)
        >>> indices, gains = views.select_views(visible, num_views=2, rho=1.0)
        >>> print(indices, gains)
        [0 2] [3. 2.]

    References:
        Nemhauser, Wolsey and Fisher, An analysis of approximations for maximizing submodular set
        functions, Mathematical Programming 14, 1978.
    """
    visible, where = to_sequence(visible, num_views, where)
    share, wanted = to_shares(visible, quality, information, rho, where)
    return _greedy(visible, share, wanted, where, num_views=num_views)


@partial(jax.jit, static_argnames="num_views")
def _greedy(visible, share, wanted, where, *, num_views):
    def choose(state, _):
        wanted, free = state
        gains = jnp.where(free, share * sum_visible(visible, wanted), -1.0)
        best = jnp.argmax(gains).astype(jnp.int32)
        found = free[best]
        row = row_of(visible, best) & found
        wanted = wanted * (1.0 - share[best] * row.astype(jnp.float32))
        chosen = jnp.where(found, best, -1), jnp.where(found, gains[best], 0.0)
        return (wanted, free.at[best].set(False)), chosen

    return Selection(*lax.scan(choose, (wanted, where), length=num_views)[1])


def to_sequence(
    visible: ArrayLike, num_views: int, where: ArrayLike | None
) -> tuple[Bool[Array, "F V"], Bool[Array, " F"]]:
    """What every selection checks: the matrix, and the frames there are to choose from.

    Says so if they are fewer than asked for.
    """
    visible = to_visible(visible)
    if not len(visible):
        raise ValueError(f"visible has shape {visible.shape}: there is no frame to choose from")
    if num_views < 1:
        raise ValueError(f"num_views is {num_views}, expected at least 1")
    frames = len(visible) if where is None else np.asarray(where).sum() if known(where) else None
    where = to_mask("where", where, (len(visible),))
    if frames is not None and frames < num_views:
        _logger.warning("%d views are asked for, but there are only %d frames", num_views, frames)
    return visible, where
