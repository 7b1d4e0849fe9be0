"""Augmentation of images leaves every voxel at the pixel that shows it."""

import jax
import jax.numpy as jnp
import numpy as np

from haskd_jax.models import IMAGE_STRIDE
from haskd_jax.train.image_augmentation import _mirror, _mirror_pixels, augment_images
from haskd_jax.train.inputs import Views


def views(count=6, height=16, width=24, voxels=40, seed=0):
    rng = np.random.default_rng(seed)
    pixels = (height // IMAGE_STRIDE) * (width // IMAGE_STRIDE)
    pixel = np.where(
        rng.random((count, voxels)) < 0.7, rng.integers(0, pixels, (count, voxels)), -1
    )
    return Views(
        images=jnp.asarray(rng.random((count, height, width, 3)), jnp.float32),
        voxel_to_pixel=jnp.asarray(pixel, jnp.int32),
        cues=jnp.ones((count, voxels, 3)),
        label=jnp.asarray(rng.integers(-1, 5, (count, height, width)), jnp.int32),
    )


def test_mirrored_pixels_show_the_same():
    given = views()
    mirrored = jnp.array([True, False] * 3)
    rows, columns = (size // IMAGE_STRIDE for size in given.images.shape[1:3])
    cells = np.asarray(given.images).reshape(6, rows, IMAGE_STRIDE, columns, IMAGE_STRIDE, 3)
    flipped = np.asarray(_mirror(given.images, mirrored, axis=2)).reshape(cells.shape)
    before, after = (array.mean(axis=(2, 4)).reshape(6, -1, 3) for array in (cells, flipped))
    moved = np.asarray(_mirror_pixels(given.voxel_to_pixel, mirrored, given.images.shape[2]))
    pixel = np.asarray(given.voxel_to_pixel)
    np.testing.assert_array_equal(moved < 0, pixel < 0)
    for k in range(6):
        seen = pixel[k] >= 0
        np.testing.assert_allclose(after[k, moved[k, seen]], before[k, pixel[k, seen]], rtol=1e-5)


def test_no_palette_is_turned_into_its_negative():
    """A channel grows with itself in all but a few images: rows below hold more of it."""
    given = views(count=600, height=4, width=4)
    for channel in range(3):
        images = np.full((600, 4, 4, 3), 0.4, np.float32)
        images[:, 2:, :, channel] = 0.6
        changed = augment_images(jax.random.key(0), given._replace(images=jnp.asarray(images)))
        rows = np.asarray(changed.images)[:, :, 0, channel]
        assert np.mean(rows[:, 3] > rows[:, 0]) > 0.995


def test_images_stay_images_and_grey_stays_grey():
    given = views()
    grey = given._replace(images=jnp.full_like(given.images, 0.5))
    changed = jax.jit(augment_images)(jax.random.key(0), given)
    assert changed.images.shape == given.images.shape
    assert float(changed.images.min()) >= 0 and float(changed.images.max()) <= 1
    assert not np.allclose(changed.images, given.images)
    spread = np.ptp(np.asarray(augment_images(jax.random.key(1), grey).images), axis=(1, 2))
    np.testing.assert_allclose(spread, 0, atol=1e-6)
    np.testing.assert_array_equal(
        np.sort(np.asarray(changed.label), axis=2), np.sort(np.asarray(given.label), axis=2)
    )
