import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from haskd_jax import views

from . import oracle


def sequence(rng, frames=5, height=9, width=13):
    """Frames of differing contrast and blur."""
    images = rng.integers(0, 256, (frames, height, width, 3)).astype(np.float64)
    for i in range(frames):
        images[i] = uniform_filter(images[i], (i % 3 + 1, i % 2 + 1, 1)) * (1 - 0.15 * i)
    return images.astype(np.uint8)


@pytest.mark.parametrize("frames", [4, 5])
def test_agrees_with_the_oracle(frames):
    images = sequence(np.random.default_rng(0), frames)
    entropy = np.array([oracle.entropy(image) for image in images])
    variance = np.array([oracle.laplacian_variance(image) for image in images])
    sharpness = np.minimum(variance / np.median(variance), 1)
    assert len(np.unique(entropy.round(3))) == len(np.unique(variance.round(3))) == frames
    np.testing.assert_allclose(views.frame_entropy(images), entropy, rtol=1e-5)
    np.testing.assert_allclose(views.frame_sharpness(images), sharpness, rtol=1e-5)
    quality = views.frame_quality(images)
    np.testing.assert_allclose(quality, entropy * sharpness, rtol=1e-5)
    assert quality.dtype == jnp.float32


def test_grey_is_the_luma_of_bt601():
    colours = np.random.default_rng(0).integers(0, 256, (1000, 3))
    luma = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(oracle.grey(colours) - luma).max() < 1


def test_floats_mean_what_bytes_mean():
    images = sequence(np.random.default_rng(1))
    as_floats = (images / 255).astype(np.float32)
    np.testing.assert_array_equal(views.frame_quality(as_floats), views.frame_quality(images))
    half = views.frame_quality(jnp.asarray(as_floats, jnp.bfloat16))
    np.testing.assert_allclose(half, views.frame_quality(images), atol=0.1)


def test_blur_and_blankness_cost_quality():
    rng = np.random.default_rng(2)
    sharp = rng.integers(0, 256, (3, 24, 24, 3)).astype(np.uint8)
    blurred = uniform_filter(sharp[:1].astype(np.float64), (0, 1, 7, 0)).astype(np.uint8)
    blank = np.full((1, 24, 24, 3), 90, np.uint8)
    quality = np.asarray(views.frame_quality(np.concatenate([sharp, blurred, blank])))
    assert quality[:3].min() > 5 * quality[3] > 0
    assert quality[4] == 0
    assert views.frame_entropy(blank)[0] == 0


def test_all_levels_alike_are_eight_bits():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_allclose(views.frame_entropy(np.tile(levels, 3)), [1.0], rtol=1e-6)


def test_blank_sequences_and_no_frames_at_all_give_zero():
    blank = np.full((3, 5, 5, 3), 17, np.uint8)
    np.testing.assert_array_equal(views.frame_quality(blank), np.zeros(3))
    images = sequence(np.random.default_rng(0))
    nothing = views.frame_quality(images, where=np.zeros(5, bool))
    np.testing.assert_array_equal(nothing, np.zeros(5))


def test_padding_changes_nothing():
    images = sequence(np.random.default_rng(3))
    garbage = np.random.default_rng(4).integers(0, 256, (4, *images.shape[1:])).astype(np.uint8)
    where = np.arange(9) < 5
    padded = views.frame_quality(np.concatenate([images, garbage]), where=where)
    np.testing.assert_array_equal(padded[:5], views.frame_quality(images))
    np.testing.assert_array_equal(padded[5:], 0)


def test_under_jit_floats_out_of_range_are_clipped_and_nan_is_black():
    images = (sequence(np.random.default_rng(1)) / 255).astype(np.float32)
    bad, expected = images.copy(), images.copy()
    bad[0, :2], bad[0, 2:4], bad[0, 4:] = np.nan, -7, 1e9
    expected[0, :4], expected[0, 4:] = 0, 1
    quality = jax.jit(views.frame_quality)
    np.testing.assert_array_equal(quality(bad), quality(expected))
