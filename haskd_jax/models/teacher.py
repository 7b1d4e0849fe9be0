"""The multi-modal teacher: any student, and images."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32, Key

from haskd_jax.models.images import (
    IMAGE_STRIDE,
    ImageEncoder,
    ImageEncoderConfig,
    ViewPooling,
    pool_levels,
)
from haskd_jax.models.layers import Linear, LinearNorm
from haskd_jax.models.student import Student
from haskd_jax.sparse import Pyramid, VoxelGrid


class TeacherOutput(NamedTuple):
    """What a teacher returns.

    Attributes:
      features: `[V, F]`, penultimate.
      logits: `[V, classes]`, float32.
      image_logits: `[K, h, w, classes]` for an auxiliary 2D loss, float32; None without images.
    """

    features: Float[Array, "V F"]
    logits: Float[Array, "V classes"]
    image_logits: Float[Array, "K h w classes"] | None


class Teacher(nnx.Module):
    """A student that also sees images. Our instantiation of HAS-KD's heterogeneous teacher.

    Image features are fetched at the pixel of each voxel, pooled over the views that see it,
    brought to the coarser grids and added at every level of the student's decoder that takes
    extras. A student that takes none gets them added to its penultimate features, and what a linear
    map makes of them to its logits. A voxel that no image saw takes nothing from images.

    Called without images it is the student alone, bit for bit, with the same parameters: the
    point-only teacher of the controls is `student` trained by itself.

    Attributes:
      student: the network of points.
      encoder: the network of images.

    Example:
      >>> from haskd_jax import models, sparse
      >>> shape = models.MinkUNetConfig((8, 8), (1, 1), stem=8, stem_kernel=3)
      >>> student = models.MinkUNet(shape, in_channels=3, num_classes=5, rngs=nnx.Rngs(0))
      >>> images = models.ImageEncoderConfig(channels=(8,), blocks=1, features=8)
      >>> teacher = Teacher(student, images, num_classes=5, rngs=nnx.Rngs(1))
      >>> grid, _ = sparse.grid_from_coords(jnp.array([[0, 0, 0, 0], [0, 0, 0, 1]]), capacity=2)
      >>> maps = sparse.pyramid(grid, capacities=(2,))
      >>> output = teacher(
      ...     grid, maps, jnp.ones((2, 3)), jnp.ones((1, 8, 8, 3)),
      ...     voxel_to_pixel=jnp.array([[3, -1]]), cues=jnp.ones((1, 2, 3)))
      >>> output.logits.shape, output.image_logits.shape
      ((2, 5), (1, 2, 2, 5))
    """

    def __init__(
        self,
        student: Student,
        images: ImageEncoderConfig | None = None,
        *,
        num_classes: int,
        pooling: Literal["mean", "learnt"] = "learnt",
        modality_dropout: float = 0.1,
        dtype: DTypeLike = jnp.float32,
        axis_name: str | tuple[str, ...] | None = None,
        rngs: nnx.Rngs,
    ):
        """Draws the parameters beside the student's.

        Args:
          student: any; with `extra_features` (see `FusingStudent`) it is fused within its decoder.
          images: shape of the image encoder.
          num_classes: of the logits, 3D and 2D.
          pooling: how views are weighted; see `ViewPooling`.
          modality_dropout: in [0, 1); see `drop_views`.
          dtype: what the image part is computed in.
          axis_name: as for `BatchNorm`.
          rngs: gives `params`.
        """
        if not 0 <= modality_dropout < 1:
            raise ValueError(f"modality_dropout={modality_dropout}: must be in [0, 1)")
        images = ImageEncoderConfig() if images is None else images
        self.student = student
        self.modality_dropout = modality_dropout
        self.encoder = ImageEncoder(
            images, num_classes=num_classes, dtype=dtype, axis_name=axis_name, rngs=rngs
        )
        self.pooling = ViewPooling(pooling, rngs=rngs)
        inside = dict(getattr(student, "extra_features", {}))
        self.levels = tuple(sorted(inside))
        widths = [inside[level] for level in self.levels] or [student.num_features]
        self.adapters = nnx.List(
            Adapter(images.features, width, axis_name=axis_name, rngs=rngs) for width in widths
        )
        self.late = None if inside else Linear(student.num_features, num_classes, rngs=rngs)

    def __call__(
        self,
        grid: VoxelGrid,
        maps: Pyramid,
        features: Float[Array, "V C"],
        images: Float[Array, "K H W 3"] | None = None,
        *,
        voxel_to_pixel: Int32[Array, "K V"] | None = None,
        cues: Float[Array, "K V 3"] | None = None,
        dropout_key: Key[Array, ""] | None = None,
    ) -> TeacherOutput:
        """Computes features and logits of voxels, from points and images.

        Args:
          grid: the finest grid.
          maps: its pyramid.
          features: `[V, C]`, of the grid's voxels.
          images: `[K, H, W, 3]`, values in [0, 1]; of all scenes of the batch, in any order. Those
            that see no voxel are padding, and may hold anything. None: points alone.
          voxel_to_pixel: `[K, V]`, see `views.voxel_to_pixel` with `stride=IMAGE_STRIDE`.
          cues: `[K, V, 3]`, depth, cosine of the viewing angle and frame quality; not needed with
            `pooling="mean"`.
          dropout_key: drops views at random; none are dropped without.

        Raises:
          ValueError: for images without `voxel_to_pixel`, without the cues that the pooling needs,
            of another number; outside of `jit`, for pixels beyond the feature map.
        """
        if images is None:
            return TeacherOutput(*self.student(grid, maps, features), None)
        _check_images(images, voxel_to_pixel, cues, grid.capacity)
        assert voxel_to_pixel is not None  # the check saw to it
        voxel_to_pixel = jnp.where(grid.mask[None], voxel_to_pixel, -1)
        # Views are dropped from the fusion, not from the encoder: its 2D loss and norms keep them.
        frames = jnp.any(voxel_to_pixel >= 0, axis=1)
        image_features, image_logits = self.encoder(images, frames)
        if dropout_key is not None:
            voxel_to_pixel = drop_views(dropout_key, voxel_to_pixel, rate=self.modality_dropout)
        pooled, seen = self.pooling(image_features, voxel_to_pixel, cues)
        levels = self.levels or (0,)
        by_level = pool_levels(pooled, seen, maps, levels)
        extras = {
            level: adapter(*by_level[level])
            for level, adapter in zip(levels, self.adapters, strict=True)
        }
        if self.late is None:
            fused = self.student(grid, maps, features, extras)  # type: ignore[call-arg]
            return TeacherOutput(*fused, image_logits)
        features, logits = self.student(grid, maps, features)
        more = self.late(extras[0]).astype(logits.dtype)
        return TeacherOutput(
            features + extras[0].astype(features.dtype), logits + more, image_logits
        )


class Adapter(nnx.Module):
    """From image features to what a decoder adds to its own: zero where nothing was seen."""

    def __init__(self, in_features: int, out_features: int, *, axis_name, rngs: nnx.Rngs):
        """A hidden layer of the width of the result."""
        self.hidden = LinearNorm(in_features, out_features, axis_name=axis_name, rngs=rngs)
        self.out = Linear(out_features, out_features, rngs=rngs)

    def __call__(self, x: Float[Array, "V F"], seen: Bool[Array, " V"]) -> Float[Array, "V D"]:
        """No layer has a bias outside of the norm's mask: zero stays zero."""
        return self.out(jax.nn.relu(self.hidden(x, seen)))


def drop_views(
    key: Key[Array, ""], voxel_to_pixel: Int32[Array, "K V"], *, rate: float
) -> Int32[Array, "K V"]:
    """Modality dropout: hides each view with probability `rate`, and all of them with the same.

    Args:
      key: explicit randomness.
      voxel_to_pixel: `[K, V]`.
      rate: in [0, 1].

    Returns:
      `[K, V]`, -1 for hidden views.

    Raises:
      ValueError: for another rate.

    Example:
      >>> drop_views(jax.random.key(0), jnp.array([[5], [7]]), rate=1.0).tolist()
      [[-1], [-1]]
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate}: must be in [0, 1]")
    one, every = jax.random.split(key)
    count = voxel_to_pixel.shape[0]
    dropped = jax.random.bernoulli(one, rate, (count,)) | jax.random.bernoulli(every, rate)
    return jnp.where(dropped[:, None], -1, voxel_to_pixel)


def _check_images(images, voxel_to_pixel, cues, capacity):
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images has dtype {images.dtype}: must be floating point in [0, 1]")
    if voxel_to_pixel is None:
        raise ValueError("voxel_to_pixel is None: images need it, see views.voxel_to_pixel")
    wanted = (images.shape[0], capacity)
    if voxel_to_pixel.shape != wanted:
        raise ValueError(f"voxel_to_pixel has shape {voxel_to_pixel.shape}: must be {wanted}")
    if cues is not None and cues.shape != (*wanted, 3):
        raise ValueError(f"cues has shape {cues.shape}: must be {(*wanted, 3)}")
    height, width = (-(-size // IMAGE_STRIDE) for size in images.shape[1:3])
    known = not isinstance(voxel_to_pixel, jax.core.Tracer)
    largest = np.asarray(voxel_to_pixel).max(initial=-1) if known else -1
    if largest >= height * width:
        raise ValueError(
            f"voxel_to_pixel holds {largest}: the feature map has {height} x "
            f"{width} pixels; make it with views.voxel_to_pixel(..., stride={IMAGE_STRIDE})"
        )
