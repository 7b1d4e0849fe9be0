"""How good a frame is, from its pixels alone."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Num

from haskd_jax.views._arguments import check_shape, known, to_mask


def frame_quality(
    images: Num[ArrayLike, "F H W 3"], *, where: Bool[ArrayLike, " F"] | None = None
) -> Float[Array, " F"]:
    """How much a frame has to tell: `frame_entropy` times `frame_sharpness`.

    A blank wall has little entropy, a motion-blurred frame little sharpness; either costs quality.
    The paper names neither measure: our instantiation.

    Args:
        images: [F, H, W, 3] RGB of one sequence, u8 or floating point in [0, 1].
        where: [F] False for padding.

    Returns:
        [F] f32 in [0, 1]; 0 where masked.

    Raises:
        ValueError: for shapes that disagree, images below 3 x 3 pixels or outside of the range.

    Example:
        >>> import jax
        >>> from haskd_jax import views
        >>> sharp = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
        >>> blurred = jax.image.resize(sharp[:1, ::4, ::4], (1, 32, 32, 3), "linear")
        >>> quality = views.frame_quality(jax.numpy.concatenate([sharp, blurred]))
        >>> print(quality.round(2))
        [0.93 0.93 0.  ]
    """
    entropy, sharpness = _entropy_and_sharpness(images, where)
    return entropy * sharpness


def frame_entropy(
    images: Num[ArrayLike, "F H W 3"], *, where: Bool[ArrayLike, " F"] | None = None
) -> Float[Array, " F"]:
    """Shannon entropy of the grey levels' histogram, in bytes: 8 bits, all 256 levels alike, is 1.

    Grey is the luma of ITU-R BT.601 in 256 steps.

    Args:
        images: [F, H, W, 3] RGB, u8 or floating point in [0, 1].
        where: [F] False for padding.

    Returns:
        [F] f32 in [0, 1]; 0 where masked.

    Raises:
        ValueError: as `frame_quality`.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import views
        >>> half_white = jnp.zeros((1, 4, 4, 3)).at[:, :2].set(1.0)
        >>> print(views.frame_entropy(half_white))  # one bit of eight
        [0.125]
    """
    return _entropy_and_sharpness(images, where)[0]


def frame_sharpness(
    images: Num[ArrayLike, "F H W 3"], *, where: Bool[ArrayLike, " F"] | None = None
) -> Float[Array, " F"]:
    """Variance of the Laplacian over its median in the sequence, at most 1.

    How large the variance is depends on the scene and the camera; what blur does is to lower it
    against the sequence's other frames. The median takes no notice of a few extreme frames, and
    above it nothing is gained: a richer texture is not a sharper image.

    Texture and blur are not told apart within one frame: a sharp blank wall scores low, too, and a
    blurred frame full of edges may pass for a sharp one.

    Args:
        images: [F, H, W, 3] RGB of one sequence, u8 or floating point in [0, 1].
        where: [F] False for padding, which does not count for the median either.

    Returns:
        [F] f32 in [0, 1]; 0 where masked.

    Raises:
        ValueError: as `frame_quality`.

    Example:
        >>> import jax
        >>> from haskd_jax import views
        >>> noise = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
        >>> faint = 0.5 + 0.1 * noise[:1]
        >>> print(views.frame_sharpness(jax.numpy.concatenate([noise, faint])).round(2))
        [1.   1.   0.01]
    """
    return _entropy_and_sharpness(images, where)[1]


def _entropy_and_sharpness(images, where):
    images = images if hasattr(images, "dtype") else np.asarray(images)
    check_shape("images", images, (None, None, None, 3))
    where = to_mask("where", where, (len(images),))
    if not len(images):
        raise ValueError(f"images has shape {images.shape}: there is no frame")
    if min(images.shape[1:3]) < 3:
        raise ValueError(f"images has shape {images.shape}, expected 3 x 3 pixels or more")
    if images.dtype != jnp.uint8:
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images has dtype {images.dtype}, expected u8 or floating point")
        if known(images, where) and (counted := np.asarray(images)[np.asarray(where)]).size:
            low, high = counted.min(), counted.max()
            if not 0 <= low <= high <= 1:
                raise ValueError(
                    f"images holds values from {low} to {high}, expected [0, 1]: divide by the "
                    "largest value of the format"
                )
    return _statistics(jnp.asarray(images), where)


@jax.jit
def _statistics(images, where):
    def one_frame(frame):
        image, exists = frame
        # The condition skips padding. It also keeps XLA:CPU from computing the grey level anew for
        # each of its six uses.
        grey = lax.cond(
            exists, lambda: _grey(image), lambda: jnp.zeros_like(image[..., 0], dtype=jnp.int32)
        )
        return _entropy(grey), _laplacian_variance(grey)

    entropy, variance = lax.map(one_frame, (images, where))
    median = _median(variance, where)
    relative = variance / jnp.maximum(median, jnp.finfo(jnp.float32).tiny)
    sharpness = jnp.where(where & (variance > 0), jnp.minimum(relative, 1.0), 0.0)
    return jnp.where(where, entropy, 0.0), sharpness


def _grey(image):
    """Luma as i32 in [0, 255]; all integers, so that every backend counts the same histogram."""
    if image.dtype != jnp.uint8:
        image = jnp.floor(jnp.clip(image.astype(jnp.float32), 0.0, 1.0) * 255.0 + 0.5)
        image = jnp.where(jnp.isnan(image), 0.0, image)
    red, green, blue = (image[..., i].astype(jnp.int32) for i in range(3))
    return (77 * red + 150 * green + 29 * blue + 128) >> 8


def _entropy(grey):
    histogram = jnp.zeros(256, jnp.int32).at[grey.reshape(-1)].add(1, mode="promise_in_bounds")
    share = histogram.astype(jnp.float32) / grey.size
    bits = -jnp.sum(share * jnp.log2(jnp.where(share > 0, share, 1.0)))
    return jnp.clip(bits / 8.0, 0.0, 1.0)


def _laplacian_variance(grey):
    centre = grey[1:-1, 1:-1]
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    laplacian = (4 * centre - neighbours).astype(jnp.float32)
    # Rows before columns: XLA:CPU sums along the last axis without vector instructions.
    mean = laplacian.sum(0).sum() / laplacian.size
    return jnp.square(laplacian - mean).sum(0).sum() / laplacian.size


def _median(values, where):
    """Of the values that count; 0 if there are none."""
    ordered = jnp.sort(jnp.where(where, values, jnp.inf))
    count = where.sum(dtype=jnp.int32)
    low, high = ordered[jnp.maximum(count - 1, 0) // 2], ordered[count // 2]
    return jnp.where(count > 0, (low + high) / 2.0, 0.0)
