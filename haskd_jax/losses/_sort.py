"""Sorting errors, the costly part of the Lovasz extension."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

_BITS = 30  # of an f32 in [0, 2): sign and highest exponent bit are 0, so bits order like values


def argsort_descending(values: Float[Array, "C V"]) -> Int32[Array, "C V"]:
    """Stable argsort of each row, largest first, of values in [0, 1].

    On CPU, XLA sorts (value, index) pairs about five times slower than plain unsigned integers. So
    this is a radix sort of f32 in which the sort does one large digit at a time, and a digit shares
    its integer with the position it comes from: two passes up to 2**17 voxels, twice as fast as
    `jnp.argsort`.
    """
    if values.dtype != jnp.float32:
        return jnp.argsort(values, axis=-1, descending=True, stable=True).astype(jnp.int32)
    position_bits = max(values.shape[-1] - 1, 1).bit_length()
    digit_bits = 32 - position_bits
    position = lax.broadcasted_iota(jnp.uint32, values.shape, values.ndim - 1)
    descending = jnp.uint32(2**_BITS - 1) - lax.bitcast_convert_type(values, jnp.uint32)
    order = position.astype(jnp.int32)
    for first_bit in range(0, _BITS, digit_bits):
        digit = (descending >> jnp.uint32(first_bit)) & jnp.uint32(2**digit_bits - 1)
        packed = (take(digit, order) << jnp.uint32(position_bits)) | position
        packed = lax.sort(packed, is_stable=False)  # no two are equal
        order = take(order, (packed & jnp.uint32(2**position_bits - 1)).astype(jnp.int32))
    return order


def take(rows: Array, order: Int32[Array, "C V"]) -> Array:
    return jnp.take_along_axis(rows, order, axis=-1, mode="promise_in_bounds")
