"""Image features for voxels: a 2D U-Net, and the pooling of the views that see a voxel."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32

from haskd_jax import sparse
from haskd_jax.models.batch_norm import BatchNorm
from haskd_jax.models.layers import Head, product
from haskd_jax.native_kernels import sum_dtype
from haskd_jax.sparse import Pyramid

IMAGE_STRIDE = 4


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Shape of the image encoder.

    Attributes:
      channels: widths at strides 4, 8, 16 and so on; one or more.
      blocks: residual blocks at each of these strides, on the way down.
      features: F, width of the result.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    blocks: int = 2
    features: int = 64

    def __post_init__(self):
        """Checks that the numbers are positive."""
        if not self.channels or min(*self.channels, self.blocks, self.features) < 1:
            raise ValueError(f"{self}: give one width or more; all numbers are 1 or more")


class ImageConv(nnx.Module):
    """2D convolution without bias, norm."""

    def __init__(self, in_features, out_features, size, stride=1, *, axis_name, rngs):
        """Takes edge and stride of the kernel."""
        self.stride = stride
        scale = jnp.sqrt(2 / (size * size * in_features)).astype(jnp.float32)
        shape = (size, size, in_features, out_features)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) * scale)
        self.norm = BatchNorm(out_features, axis_name=axis_name)

    def __call__(
        self, x: Float[Array, "K H W C"], frames: Bool[Array, " K"]
    ) -> Float[Array, "K h w D"]:
        """Of the frames that count; the others become zero."""
        x = jax.lax.conv_general_dilated(
            x, self.kernel[...].astype(x.dtype), (self.stride, self.stride), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        pixels = jnp.repeat(frames, x.shape[1] * x.shape[2])
        return self.norm(x.reshape(-1, x.shape[-1]), pixels).reshape(x.shape)


class ImageBlock(nnx.Module):
    """The basic residual block, in 2D."""

    def __init__(self, features, *, axis_name, rngs):
        """Keeps the width."""
        self.first = ImageConv(features, features, 3, axis_name=axis_name, rngs=rngs)
        self.second = ImageConv(features, features, 3, axis_name=axis_name, rngs=rngs)

    def __call__(
        self, x: Float[Array, "K H W C"], frames: Bool[Array, " K"]
    ) -> Float[Array, "K H W C"]:
        """Of the frames that count."""
        return jax.nn.relu(x + self.second(jax.nn.relu(self.first(x, frames)), frames))


class ImageEncoder(nnx.Module):
    """A small residual U-Net from images to features at a quarter of their size.

    Example:
      >>> encoder = ImageEncoder(ImageEncoderConfig((8, 8), 1, 16), num_classes=5, rngs=nnx.Rngs(0))
      >>> features, logits = encoder(jnp.zeros((2, 30, 40, 3)), jnp.array([True, False]))
      >>> features.shape, logits.shape
      ((2, 8, 10, 16), (2, 8, 10, 5))
    """

    def __init__(
        self,
        config: ImageEncoderConfig,
        *,
        num_classes: int | None = None,
        dtype: DTypeLike = jnp.float32,
        axis_name: str | tuple[str, ...] | None = None,
        rngs: nnx.Rngs,
    ):
        """Draws the parameters.

        Args:
          config: the shape.
          num_classes: of the 2D logits; none are computed if left out.
          dtype: what is computed in.
          axis_name: as for `BatchNorm`.
          rngs: gives `params`.
        """
        self.dtype = jnp.dtype(dtype)
        options = {"axis_name": axis_name, "rngs": rngs}
        widths = config.channels
        self.stem = ImageConv(3, widths[0], 5, 2, **options)
        before = (widths[0], *widths[:-1])
        self.down = nnx.List(
            ImageConv(a, b, 3, 2, **options) for a, b in zip(before, widths, strict=True)
        )
        self.blocks = nnx.List(
            nnx.List(ImageBlock(width, **options) for _ in range(config.blocks)) for width in widths
        )
        finer = [(b, a) for a, b in itertools.pairwise(widths)]
        self.up = nnx.List(ImageConv(a, b, 1, **options) for a, b in finer)
        self.merge = nnx.List(ImageBlock(b, **options) for _, b in finer)
        self.out = ImageConv(widths[0], config.features, 1, **options)
        self.head = None if num_classes is None else Head(config.features, num_classes, rngs=rngs)

    def __call__(
        self, images: Float[Array, "K H W 3"], frames: Bool[Array, " K"]
    ) -> tuple[Float[Array, "K h w F"], Float[Array, "K h w classes"] | None]:
        """Encodes images.

        Args:
          images: `[K, H, W, 3]`, values in [0, 1].
          frames: `[K]`, False for padding, which may hold anything.

        Returns:
          Features `[K, ceil(H / 4), ceil(W / 4), F]`, zero for padding, and 2D logits in float32 or
          None.
        """
        images = jnp.where(frames[:, None, None, None], images, 0.5).astype(self.dtype)
        x = jax.nn.relu(self.stem(2 * images - 1, frames))
        skips = []
        for down, blocks in zip(self.down, self.blocks, strict=True):
            x = jax.nn.relu(down(x, frames))
            for block in blocks:
                x = block(x, frames)
            skips.append(x)
        for skip, up, merge in reversed(list(zip(skips[:-1], self.up, self.merge, strict=True))):
            x = _twice(up(x, frames))[:, : skip.shape[1], : skip.shape[2]]
            x = merge(jax.nn.relu(x + skip), frames)
        features = jax.nn.relu(self.out(x, frames))
        if self.head is None:
            return features, None
        pixels = jnp.repeat(frames, features.shape[1] * features.shape[2])
        logits = self.head(features.reshape(-1, features.shape[-1]), pixels)
        return features, logits.reshape(*features.shape[:-1], -1)


def _twice(x):
    """Every pixel two by two."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class ViewPooling(nnx.Module):
    """Pools image features over the views that see a voxel.

    "mean" weighs all views alike. "learnt" weighs them by a softmax over the views of a small
    network of depth, viewing angle and frame quality; it begins as the mean.
    """

    def __init__(self, mode: Literal["mean", "learnt"] = "learnt", *, rngs: nnx.Rngs):
        """Draws the small network, where there is one."""
        if mode not in ("mean", "learnt"):
            raise ValueError(f'pooling={mode!r}: must be "mean" or "learnt"')
        self.mode = mode
        if mode == "learnt":
            self.hidden = nnx.Param(jax.random.normal(rngs.params(), (4, 16), jnp.float32))
            self.score = nnx.Param(jnp.zeros((16, 1), jnp.float32))

    def __call__(
        self,
        features: Float[Array, "K h w F"],
        voxel_to_pixel: Int32[Array, "K V"],
        cues: Float[Array, "K V 3"] | None = None,
    ) -> tuple[Float[Array, "V F"], Bool[Array, " V"]]:
        """Pools.

        Args:
          features: `[K, h, w, F]` of the images.
          voxel_to_pixel: `[K, V]`, row * w + column of the voxel's pixel, -1 where not seen.
          cues: `[K, V, 3]`, depth in metres, cosine of the viewing angle, frame quality; what it
            holds where a view sees nothing is ignored. "mean" needs none.

        Returns:
          `[V, F]`, zero where no view sees the voxel, and `[V]`, whether one does.
        """
        seen = voxel_to_pixel >= 0
        weights = self._weights(seen, cues)
        pixels = features.reshape(features.shape[0], -1, features.shape[-1])

        total = jnp.zeros((seen.shape[1], pixels.shape[2]), sum_dtype(features.dtype))
        for k in range(seen.shape[0]):  # one view after the other: [K, V, F] would be large
            rows = sparse.gather_rows(pixels[k], voxel_to_pixel[k])
            total = total + weights[k].astype(total.dtype)[:, None] * rows.astype(total.dtype)
        return total.astype(features.dtype), jnp.any(seen, axis=0)

    def _weights(self, seen, cues):
        if self.mode == "mean":
            scores = jnp.zeros(seen.shape, jnp.float32)
        else:
            if cues is None:
                raise ValueError('cues is None: pooling="learnt" weighs the views by them')
            depth, cosine, quality = jnp.moveaxis(jnp.where(seen[..., None], cues, 0), -1, 0)
            nearness = 1 / (1 + depth)  # in (0, 1] like the others
            inputs = jnp.stack([nearness, cosine, quality, jnp.ones_like(depth)], axis=-1)
            # Products whose gradients, sums over all voxels, have the same bits everywhere.
            hidden = jax.nn.relu(product(inputs.reshape(-1, 4), self.hidden[...]))
            scores = product(hidden, self.score[...]).reshape(seen.shape)
        scores = jnp.where(seen, scores, -jnp.inf)
        highest = jnp.max(jnp.where(seen, scores, 0), axis=0, keepdims=True)
        shares = jnp.where(seen, jnp.exp(jnp.where(seen, scores, 0) - highest), 0)
        total = jnp.sum(shares, axis=0, keepdims=True)
        return shares / jnp.where(total > 0, total, 1)


def pool_levels(
    features: Float[Array, "V F"], seen: Bool[Array, " V"], maps: Pyramid, levels: Sequence[int]
) -> dict[int, tuple[Float[Array, "V_l F"], Bool[Array, " V_l"]]]:
    """Means of features over the seen finest voxels in each coarser voxel.

    Args:
      features: `[V, F]`, of the finest grid.
      seen: `[V]`, which of them count.
      maps: the pyramid.
      levels: of it, 0 the finest.

    Returns:
      For each level the features, zero where no voxel inside is seen, and whether one is.

    Example:
      >>> import numpy as np
      >>> grid, _ = sparse.grid_from_coords(np.array([[0, 0, 0, 0], [0, 0, 0, 1]]), capacity=2)
      >>> maps = sparse.pyramid(grid, capacities=(2,))
      >>> pooled = pool_levels(jnp.array([[4.0], [8.0]]), jnp.array([True, False]), maps, [1])
      >>> [array.tolist() for array in pooled[1]]
      [[[4.0], [0.0]], [True, False]]
    """
    wide = sum_dtype(features.dtype)
    total = jnp.where(seen[:, None], features, 0).astype(wide)
    count = seen.astype(wide)[:, None]
    pooled = {}
    for level in range(max(levels) + 1):
        if level:
            total, count = (
                sparse.pool(x, maps.down[level - 1], reduction="sum") for x in (total, count)
            )
        if level in levels:
            mean = (total / jnp.maximum(count, 1)).astype(features.dtype)
            pooled[level] = mean, count[:, 0] > 0
    return pooled
