"""The mean over the voxels that count."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from haskd_jax.losses._arguments import check_not_negative, check_shape, to_float, to_mask


def masked_mean(
    values: Float[ArrayLike, "*V"],
    *,
    where: Bool[ArrayLike, "*V"] | None = None,
    weights: Float[ArrayLike, "*V"] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[Array, ""]:
    """Weighted mean, sum(weights * values) / sum(weights), over the values that count.

    Divides by the weights that count, never by the padded length. Where nothing counts the mean is
    0 and so is its gradient.

    Args:
        values: [*V] one value per voxel (or edge).
        where: [*V] True for values that count; default all.
        weights: [*V] at least 0; default 1. A value of weight 0 does not count, whatever it holds.
        axis_name: of the `shard_map` or `vmap` axes over which the voxels are spread: the mean is
            then over the voxels of all devices together, the same on each. (A mean of the devices'
            means would weigh a voxel more on a device that holds few.) Take its gradient within
            `shard_map` with its `check_vma` on, as it is by default, or outside the `vmap`.

    Returns:
        The mean, a scalar in f32 (f64 if an input is f64).

    Raises:
        ValueError: for shapes that disagree, or negative or non-finite weights of values that
            count.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> values = jnp.array([1.0, 2.0, jnp.nan])
        >>> real = jnp.array([True, True, False])
        >>> print(losses.masked_mean(values, where=real))
        1.5
        >>> print(losses.masked_mean(values, where=real, weights=jnp.array([3.0, 1.0, 1.0])))
        1.25
        >>> print(losses.masked_mean(values, where=jnp.zeros(3, bool)))
        0.0
        >>> def mean(values, where):
        ...     return losses.masked_mean(values, where=where, axis_name="device")
        >>> values = jnp.array([[1.0, 2.0], [6.0, jnp.nan]])
        >>> print(jax.vmap(mean, axis_name="device")(values, values > 0))
        [3. 3.]
    """
    if weights is None:
        (values,) = to_float(values)
        weights = jnp.ones_like(values)
    else:
        values, weights = to_float(values, weights)
    check_shape("weights", weights, values.shape, "one weight per value")
    where = to_mask(where, values.shape)
    weights = jnp.where(where, weights, jnp.zeros_like(weights))
    check_not_negative("weights", weights)
    values = jnp.where(weights > 0, values, jnp.zeros_like(values))
    weighted, total = jnp.sum(weights * values), jnp.sum(weights)
    if axis_name is not None:
        weighted, total = jax.lax.psum((weighted, total), axis_name)
    return weighted / jnp.where(total > 0, total, jnp.ones_like(total))
