"""Augmentation of a teacher's images, on the device: palette, contrast, side.

The cloud's own colours are augmented by the loader. Images are the teacher's advantage, and what it
makes of new palettes decides how good it is on new rooms.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from haskd_jax.models import IMAGE_STRIDE
from haskd_jax.train.inputs import Views


def augment_images(key: Key[Array, ""], views: Views) -> Views:
    """Changes palette, contrast and side of every image, each by its own draw.

    Colours go through a matrix near the identity, a gain and a gamma; half of the images are
    mirrored, with the pixels that voxels look up and the 2D labels.

    Args:
        key: Explicit randomness.
        views: Of a batch.

    Returns:
        The views; images stay in [0, 1].
    """
    keys = jax.random.split(key, 4)
    count = len(views.images)
    mirrored = jax.random.bernoulli(keys[0], 0.5, (count,))
    return Views(
        images=_mirror(_recolour(keys[1:], views.images), mirrored, axis=2),
        voxel_to_pixel=_mirror_pixels(views.voxel_to_pixel, mirrored, views.images.shape[2]),
        cues=views.cues,
        label=_mirror(views.label, mirrored, axis=2),
    )


def _recolour(keys: Key[Array, "3"], images: Float[Array, "K H W 3"]) -> Float[Array, "K H W 3"]:
    count = len(images)
    noise = 0.25 * jax.random.normal(keys[0], (count, 3, 3), jnp.float32)
    # Rows of a sum of 1: grey stays grey. Rows divided by their sum would be, too, but now and then
    # that is near 0 or below, and the image becomes its negative.
    noise = noise - jnp.mean(noise, axis=2, keepdims=True)
    mixing = noise + jnp.eye(3, dtype=jnp.float32)[None]
    gain = jnp.exp(0.2 * jax.random.normal(keys[1], (count, 1, 1, 3), jnp.float32))
    gamma = jnp.exp(0.2 * jax.random.normal(keys[2], (count, 1, 1, 1), jnp.float32))
    mixed = jnp.einsum("khwc,kdc->khwd", images, mixing) * gain
    return jnp.power(jnp.clip(mixed, 1e-3, 1.0), gamma)


def _mirror(images: Array, mirrored: Array, *, axis: int) -> Array:
    where = mirrored.reshape(-1, *[1] * (images.ndim - 1))
    return jnp.where(where, jnp.flip(images, axis), images)


def _mirror_pixels(pixel: Int32[Array, "K V"], mirrored: Array, width: int) -> Int32[Array, "K V"]:
    columns = -(-width // IMAGE_STRIDE)
    row, column = jnp.divmod(pixel, columns)
    # Where the width is no multiple of the stride, the mirrored map is off by part of a pixel.
    other = row * columns + (columns - 1 - column)
    return jnp.where(mirrored[:, None] & (pixel >= 0), other, pixel)
