"""What information-oriented filtering is compared with, behind the same interface.

All return the gains that `marginal_gains` gives for the `quality`, `information` and `rho` passed
in, so that curves of several selections can be drawn into one figure.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Key, ScalarLike

from haskd_jax.views._arguments import check_range, check_shape, to_mask
from haskd_jax.views._coverage import gains_in_turn, to_shares, to_visible
from haskd_jax.views._selection import Selection, select_views, to_sequence


def select_uniform(
    visible: Bool[ArrayLike, "F V"],
    *,
    num_views: int,
    placement: Literal["ends", "centres"] = "ends",
    quality: Float[ArrayLike, " F"] | None = None,
    information: Float[ArrayLike, " V"] | None = None,
    rho: ScalarLike = 0.7,
    where: Bool[ArrayLike, " F"] | None = None,
) -> Selection:
    """Frames at equal distances in time, whatever they show.

    Args:
        visible: [F, V], as for `select_views`; the frames in the order of time.
        num_views: K >= 1.
        placement: "ends" starts with the first and ends with the last frame, "centres" takes the
            middle frame of each of K equal parts.
        quality: [F], as for `select_views`; changes the gains only.
        information: [V], as for `select_views`; changes the gains only.
        rho: as for `select_views`; changes the gains only.
        where: [F] False for padding, which takes no time.

    Returns:
        `Selection`, in the order of time; -1 and 0 where there are fewer than K frames.

    Raises:
        ValueError: as `select_views`; for another placement.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> visible = jnp.ones((9, 4), bool)
        >>> print(views.select_uniform(visible, num_views=3).indices)
        [0 4 8]
        >>> print(views.select_uniform(visible, num_views=3, placement="centres").indices)
        [1 4 7]
    """
    visible, where = to_sequence(visible, num_views, where)
    step, count = jnp.arange(num_views, dtype=jnp.int32), where.sum(dtype=jnp.int32)
    if placement == "ends":
        parts = max(num_views - 1, 1)
        rank = (2 * step * (count - 1) + parts) // (2 * parts)
    elif placement == "centres":
        rank = (2 * step + 1) * count // (2 * num_views)
    else:
        raise ValueError(f'placement is {placement!r}, expected "ends" or "centres"')
    rank = jnp.where(count < num_views, step, rank)
    in_time = jnp.argsort(~where, stable=True).astype(jnp.int32)
    indices = jnp.where(rank < count, in_time[jnp.clip(rank, 0, len(where) - 1)], -1)
    return _with_gains(visible, indices, quality, information, rho, where)


def select_random(
    visible: Bool[ArrayLike, "F V"],
    *,
    key: Key[Array, ""],
    num_views: int,
    quality: Float[ArrayLike, " F"] | None = None,
    information: Float[ArrayLike, " V"] | None = None,
    rho: ScalarLike = 0.7,
    where: Bool[ArrayLike, " F"] | None = None,
) -> Selection:
    """Frames drawn at random, none twice.

    Args:
        visible: [F, V], as for `select_views`.
        key: the same key draws the same frames.
        num_views: K >= 1.
        quality: [F], as for `select_views`; changes the gains only.
        information: [V], as for `select_views`; changes the gains only.
        rho: as for `select_views`; changes the gains only.
        where: [F] False for padding, which is never drawn.

    Returns:
        `Selection`, in the order drawn; -1 and 0 where there are fewer than K frames.

    Raises:
        ValueError: as `select_views`.

    Example:
        >>> import jax
        >>> from haskd_jax import views
        >>> visible = jax.numpy.ones((9, 4), bool)
        >>> chosen = views.select_random(visible, key=jax.random.key(0), num_views=9)
        >>> print(chosen.indices.sort())
        [0 1 2 3 4 5 6 7 8]
    """
    visible, where = to_sequence(visible, num_views, where)
    indices = _first(_random_order(key, where), where, num_views)
    return _with_gains(visible, indices, quality, information, rho, where)


def select_coverage(
    visible: Bool[ArrayLike, "F V"],
    *,
    num_views: int,
    quality: Float[ArrayLike, " F"] | None = None,
    information: Float[ArrayLike, " V"] | None = None,
    rho: ScalarLike = 0.7,
    where: Bool[ArrayLike, " F"] | None = None,
) -> Selection:
    """Coverage only: greedily the most voxels seen at least once, all voxels and frames alike.

    Args:
        visible: [F, V], as for `select_views`.
        num_views: K >= 1.
        quality: [F], as for `select_views`; changes the gains only.
        information: [V], as for `select_views`; changes the gains only.
        rho: as for `select_views`; changes the gains only.
        where: [F] False for padding, which is never chosen.

    Returns:
        `Selection`, in the order chosen; -1 and 0 where there are fewer than K frames.

    Raises:
        ValueError: as `select_views`.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> visible = jnp.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
        >>> print(views.select_coverage(visible, num_views=2).indices)
        [0 2]
    """
    visible = to_visible(visible)
    where = to_mask("where", where, (len(visible),))
    indices, _ = select_views(visible, num_views=num_views, rho=1.0, where=where)
    return _with_gains(visible, indices, quality, information, rho, where)


def select_entropy(
    visible: Bool[ArrayLike, "F V"],
    *,
    entropy: Float[ArrayLike, " F"],
    num_views: int,
    quality: Float[ArrayLike, " F"] | None = None,
    information: Float[ArrayLike, " V"] | None = None,
    rho: ScalarLike = 0.7,
    where: Bool[ArrayLike, " F"] | None = None,
) -> Selection:
    """Entropy only: the frames whose own histograms hold most, however alike the frames are.

    Args:
        visible: [F, V], as for `select_views`.
        entropy: [F] in [0, 1], see `frame_entropy`.
        num_views: K >= 1.
        quality: [F], as for `select_views`; changes the gains only.
        information: [V], as for `select_views`; changes the gains only.
        rho: as for `select_views`; changes the gains only.
        where: [F] False for padding, which is never chosen.

    Returns:
        `Selection`, by falling entropy, the lowest index first among equals; -1 and 0 where there
        are fewer than K frames.

    Raises:
        ValueError: as `select_views`.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> visible, entropy = jnp.ones((4, 2), bool), jnp.array([0.5, 0.9, 0.2, 0.9])
        >>> print(views.select_entropy(visible, entropy=entropy, num_views=3).indices)
        [1 3 0]
    """
    visible, where = to_sequence(visible, num_views, where)
    check_shape("entropy", entropy, (len(visible),))
    check_range("entropy", entropy, 0.0, 1.0, where)
    entropy = jnp.asarray(entropy, jnp.float32)
    order = jnp.argsort(jnp.where(where, -entropy, jnp.inf), stable=True)
    return _with_gains(visible, _first(order, where, num_views), quality, information, rho, where)


def select_stochastic_coverage(
    visible: Bool[ArrayLike, "F V"],
    *,
    key: Key[Array, ""],
    num_views: int,
    min_new: ScalarLike = 0.1,
    quality: Float[ArrayLike, " F"] | None = None,
    information: Float[ArrayLike, " V"] | None = None,
    rho: ScalarLike = 0.7,
    where: Bool[ArrayLike, " F"] | None = None,
) -> Selection:
    """Stochastic coverage after DeepViewAgg: frames at random, save those that add little.

    Goes through the frames in random order and takes those of whose voxels more than a share
    `min_new` was not covered yet, until there are K. If the sequence ends earlier, passed-over
    frames fill up, in the same order: selections are compared at equal numbers of images.

    Args:
        visible: [F, V], as for `select_views`.
        key: the same key draws the same frames.
        num_views: K >= 1.
        min_new: in [0, 1].
        quality: [F], as for `select_views`; changes the gains only.
        information: [V], as for `select_views`; changes the gains only.
        rho: as for `select_views`; changes the gains only.
        where: [F] False for padding, which is never chosen.

    Returns:
        `Selection`, in the order taken; -1 and 0 where there are fewer than K frames.

    Raises:
        ValueError: as `select_views`.

    Example:
        >>> import jax
        >>> from haskd_jax import views
        >>> visible = jax.numpy.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]], bool)
        >>> chosen = views.select_stochastic_coverage(visible, key=jax.random.key(0), num_views=2)
        >>> print(views.coverage(visible, chosen.indices))
        1.0

    References:
        Robert, Vallet and Landrieu, Learning Multi-View Aggregation in the Wild for Large-Scale 3D
        Semantic Segmentation, CVPR 2022 (https://arxiv.org/abs/2204.07548), which fills a budget of
        pixels; here it is one of images.
    """
    visible, where = to_sequence(visible, num_views, where)
    check_shape("min_new", min_new, ())
    check_range("min_new", min_new, 0.0, 1.0)
    order = _random_order(key, where)
    passed_over = _passed_over(visible & where[:, None], order, jnp.asarray(min_new, jnp.float32))
    order = order[jnp.argsort(passed_over, stable=True)]
    return _with_gains(visible, _first(order, where, num_views), quality, information, rho, where)


@jax.jit
def _passed_over(visible, order, min_new):
    """For each frame in turn, whether too little of what it sees is new."""

    def look(covered, frame):
        row = visible[frame]
        new, all_seen = (
            (x.sum(dtype=jnp.int32).astype(jnp.float32)) for x in (row & ~covered, row)
        )
        take = new > min_new * all_seen
        return covered | (row & take), ~take

    return lax.scan(look, jnp.zeros(visible.shape[1], bool), order)[1]


@jax.jit
def _random_order(key, where):
    """All frames in random order, padding last."""
    order = jax.random.permutation(key, len(where)).astype(jnp.int32)
    return order[jnp.argsort(~where[order], stable=True)]


def _first(order, where, num_views):
    """The first K frames in an order; -1 beyond the frames there are."""
    place = jnp.arange(num_views, dtype=jnp.int32)
    indices = order.astype(jnp.int32)[jnp.minimum(place, len(where) - 1)]
    return jnp.where(place < where.sum(dtype=jnp.int32), indices, -1)


def _with_gains(visible, indices, quality, information, rho, where):
    share, wanted = to_shares(visible, quality, information, rho, where)
    return Selection(indices, gains_in_turn(visible, indices, share, wanted))
