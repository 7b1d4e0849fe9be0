"""The teacher on frames of a scanned room: from cameras to voxels by way of `views`."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from haskd_jax import models, sparse, views
from haskd_jax.data.synthrooms import Options, generate_scene
from haskd_jax.models import IMAGE_STRIDE

from .scenes import IMAGES, NUM_CLASSES
from .test_teacher import Plain

VOXEL_SIZE = TOLERANCE = 0.1
CAPACITY = 1 << 13


class Given(NamedTuple):
    """A room in its grid, and three of its frames."""

    grid: sparse.VoxelGrid
    maps: sparse.Pyramid
    features: jax.Array  # [V, 3]
    images: jax.Array  # [K, H, W, 3]
    pixel: jax.Array  # [K, V] of the feature map
    cues: jax.Array  # [K, V, 3]
    points: np.ndarray  # [V, 3] centres of voxels; garbage in padding rows
    depth: np.ndarray  # [K, H, W] metres
    intrinsics: np.ndarray  # [3, 3]
    poses: np.ndarray  # [K, 4, 4]


@pytest.fixture(scope="module")
def given() -> Given:
    scan = generate_scene(8, options=Options(frames=8, width=72, height=54, voxel_size=VOXEL_SIZE))
    cells = np.unique(np.floor(scan.points / VOXEL_SIZE).astype(np.int32), axis=0)
    cells -= cells.min(axis=0)
    grid, row = sparse.grid_from_coords(np.insert(cells, 0, 0, axis=1), capacity=CAPACITY)
    maps = sparse.pyramid(grid, capacities=(CAPACITY // 2,))
    origin = np.floor(scan.points / VOXEL_SIZE).min(axis=0)
    points = np.full((CAPACITY, 3), 1e3, np.float32)
    points[np.asarray(row)] = (cells + origin + 0.5) * VOXEL_SIZE

    frames = len(scan.frame_depth)
    cameras = (
        scan.frame_depth.astype(np.float32) / 1000,
        np.tile(scan.intrinsics, (frames, 1, 1)).astype(np.float32),
        scan.camera_to_world.astype(np.float32),
    )
    options = {"tolerance": TOLERANCE, "mask": grid.mask}
    visible = views.visibility(points, *cameras, **options)
    quality = views.frame_quality(scan.frame_colour)
    chosen = views.select_views(visible, num_views=3, quality=quality).indices
    found = views.voxel_to_pixel(points, *cameras, chosen, stride=IMAGE_STRIDE, **options)
    np.testing.assert_array_equal(found.pixel >= 0, visible[chosen])
    quality = jnp.broadcast_to(quality[chosen][:, None], found.pixel.shape)
    frame = np.asarray(chosen)
    return Given(
        grid=grid,
        maps=maps,
        features=jnp.asarray(np.random.default_rng(0).normal(size=(CAPACITY, 3)), jnp.float32),
        images=jnp.asarray(scan.frame_colour[frame], jnp.float32) / 255,
        pixel=found.pixel,
        cues=jnp.stack([found.depth, found.cosine, quality], axis=-1),
        points=points,
        depth=cameras[0][frame],
        intrinsics=scan.intrinsics,
        poses=scan.camera_to_world[frame],
    )


def looked_up(given: Given, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By plain geometry in f64: row and column in the image, -1 unseen; whether it is certain."""
    world_to_camera = np.linalg.inv(given.poses[view])
    z = np.asarray(given.points, np.float64) @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    place = z @ given.intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        column, row = (place[:, :2] / place[:, 2:]).T
    height, width = given.depth.shape[1:]
    inside = (place[:, 2] > 0) & np.asarray(given.grid.mask)
    inside &= (column > -0.5) & (column < width - 0.5) & (row > -0.5) & (row < height - 0.5)
    nearest = [np.rint(np.where(inside, x, 0)).astype(int) for x in (row, column)]
    measured = given.depth[view][tuple(nearest)]
    off = np.abs(measured - place[:, 2])
    seen = inside & (measured > 0) & (off <= TOLERANCE)
    on_edge = [np.abs(x % 1 - 0.5) < 1e-3 for x in (row, column)]
    certain = ~inside | ~(on_edge[0] | on_edge[1] | (np.abs(off - TOLERANCE) < 1e-4))
    return np.where(seen, nearest[0], -1), np.where(seen, nearest[1], -1), certain


def test_a_voxel_gets_the_feature_of_the_pixel_that_shows_it(given):
    encoder = models.ImageEncoder(IMAGES, rngs=nnx.Rngs(0))
    encoder.eval()
    features, _ = jax.jit(lambda images: encoder(images, jnp.ones(3, bool)))(given.images)
    pooled, seen = models.ViewPooling("mean", rngs=nnx.Rngs(0))(features, given.pixel)

    features = np.asarray(features, np.float64)
    assert features.shape[1:3] == (14, 18)
    total, count = np.zeros((CAPACITY, features.shape[-1])), np.zeros(CAPACITY, int)
    sure = np.ones(CAPACITY, bool)
    for view in range(3):
        row, column, certain = looked_up(given, view)
        shown = row >= 0
        total[shown] += features[view, row[shown] // IMAGE_STRIDE, column[shown] // IMAGE_STRIDE]
        count += shown
        sure &= certain
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(np.asarray(seen)[sure], count[sure] > 0)
    expected = total / np.maximum(count, 1)[:, None]
    np.testing.assert_allclose(np.asarray(pooled)[sure], expected[sure], atol=1e-5)
    # The room is mostly seen, partly by several frames; some of it is not, and padding never.
    real = np.asarray(given.grid.mask)
    assert 0.3 < (count > 0)[real].mean() < 0.95
    assert (count > 1).sum() > 100


def test_a_voxel_that_no_image_saw_takes_nothing(given):
    """Fused late, beside a student whose every voxel hears its neighbours' points."""
    teacher = models.Teacher(Plain(nnx.Rngs(0)), IMAGES, num_classes=NUM_CLASSES, rngs=nnx.Rngs(1))
    apply, params, state = models.functional(teacher)

    @functools.partial(jax.jit, static_argnames="train")
    def logits(images, train):
        output, _ = apply(
            params, state, given.grid, given.maps, given.features, images,
            voxel_to_pixel=given.pixel, cues=given.cues, train=train,
        )  # fmt: skip
        return output.logits

    blind, _ = jax.jit(functools.partial(apply, train=False))(
        params, state, given.grid, given.maps, given.features
    )
    seen = np.asarray((given.pixel >= 0).any(0))
    unseen = np.asarray(given.grid.mask) & ~seen
    told, other = logits(given.images, False), logits(1 - given.images, False)
    np.testing.assert_allclose(told[unseen], blind.logits[unseen], atol=1e-6)
    np.testing.assert_array_equal(told[unseen], other[unseen])
    assert (np.abs(told - other)[seen].max(axis=1) > 1e-5).mean() > 0.99
