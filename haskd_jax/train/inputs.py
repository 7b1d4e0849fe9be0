"""From a padded batch of arrays to what networks take: grid, kernel maps, features, views."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from haskd_jax import sparse, views
from haskd_jax.data.loader_batch import Batch
from haskd_jax.models import IMAGE_STRIDE


class Views(NamedTuple):
    """The frames of a batch, and where they see its voxels.

    Attributes:
        images: [K, H, W, 3] float32 in [0, 1].
        voxel_to_pixel: [K, V] pixel of the feature map, -1 unseen.
        cues: [K, V, 3] depth in metres, cosine of the viewing angle, quality of the frame.
        label: [K, H, W] 2D labels, -1 where there are none.
    """

    images: Float[Array, "K H W 3"]
    voxel_to_pixel: Int32[Array, "K V"]
    cues: Float[Array, "K V 3"]
    label: Int32[Array, "K H W"]


class Inputs(NamedTuple):
    """What a network takes. Row i is row i of the batch.

    Attributes:
        grid: The finest grid.
        maps: Its pyramid.
        features: [V, C].
        views: None for networks of points alone.
    """

    grid: sparse.VoxelGrid
    maps: sparse.Pyramid
    features: Float[Array, "V C"]
    views: Views | None

    @property
    def seen(self) -> Bool[Array, " V"]:
        """[V] whether an image sees the voxel."""
        if self.views is None:
            return jnp.zeros(self.grid.capacity, bool)
        return jnp.any(self.views.voxel_to_pixel >= 0, axis=0)


def make_inputs(
    batch: Batch, capacity: tuple[int, ...], *, tolerance: float | None = None
) -> Inputs:
    """Builds the grids and kernel maps of a batch, once for all networks that see it. Jittable.

    Args:
        batch: As the loader makes it.
        capacity: Rows of each grid, finest first; the first is the batch's.
        tolerance: How far a voxel may lie from the depth map and still be seen, metres; None leaves
            the images out. Static, as is `capacity`.

    Returns:
        The inputs; `maps.overflow` counts voxels that did not fit.
    """
    grid, _ = sparse.grid_from_coords(batch.coords, capacity=capacity[0], mask=batch.mask)
    maps = sparse.pyramid(grid, capacities=capacity[1:])
    seen = None
    if tolerance is not None and len(batch.images):
        seen = _views(batch, tolerance)
    return Inputs(grid, maps, jnp.asarray(batch.features), seen)


def _views(batch: Batch, tolerance: float) -> Views:
    images = jnp.asarray(batch.images).astype(jnp.float32) / 255
    found = views.voxel_to_pixel(
        batch.surface,
        batch.depth,
        batch.intrinsics,
        batch.camera_to_world,
        jnp.arange(len(batch.images), dtype=jnp.int32),
        tolerance=tolerance,
        stride=IMAGE_STRIDE,
        normals=batch.features[:, 3:6],
        mask=batch.mask,
    )
    own = (batch.part[None] == batch.frame_part[:, None]) & (batch.frame_part[:, None] >= 0)
    pixel = jnp.where(own, found.pixel, -1)
    quality = jnp.broadcast_to(_quality(images, batch)[:, None], pixel.shape)
    cues = jnp.stack([found.depth, found.cosine, quality], axis=-1)
    return Views(images, pixel, cues, jnp.asarray(batch.frame_label))


def _quality(images: Float[Array, "K H W 3"], batch: Batch) -> Float[Array, " K"]:
    """Of each frame among those of its own scene: whatever other scenes the batch holds."""
    parts = jnp.arange(len(batch.scene), dtype=jnp.int32)
    of_scene = jax.lax.map(
        lambda part: views.frame_quality(images, where=batch.frame_part == part), parts
    )
    return jnp.sum(of_scene, axis=0)
