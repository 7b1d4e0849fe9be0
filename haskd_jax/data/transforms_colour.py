"""Augmentations of the points' colours. Frames keep theirs: a camera has an exposure of its own."""

from dataclasses import replace

import numpy as np

from haskd_jax.data.scene import Array
from haskd_jax.data.transforms_geometry import check_probability
from haskd_jax.data.transforms_sample import Sample


def _stored(colour: Array) -> Array:
    return np.rint(colour).clip(0, 255).astype(np.uint8)


def auto_contrast(
    sample: Sample,
    rng: np.random.Generator,
    *,
    probability: float = 0.2,
    blend: float | None = None,
) -> Sample:
    """Stretches each channel toward the full range of 0 to 255.

    Args:
        sample: The sample.
        rng: Draws.
        probability: Of stretching at all.
        blend: Share of the stretched colour in the result; None draws it.

    Returns:
        The sample with other colours. A channel of one value alone stays.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> colour = np.array([[10, 0, 7], [20, 255, 7]], np.uint8)
        >>> points = np.zeros((2, 3), np.float32)
        >>> sample = sample_of(Scene("room", points, colour, points))
        >>> rng = np.random.default_rng(0)
        >>> auto_contrast(sample, rng, probability=1.0, blend=1.0).colour.tolist()
        [[0, 0, 7], [255, 255, 7]]
    """
    check_probability("probability", probability)
    if blend is not None:
        check_probability("blend", blend)
    if rng.random() >= probability:
        return sample
    share = np.float32(rng.random() if blend is None else blend)
    # By channel: along rows of three NumPy's loops are short.
    colour = sample.colour.T.astype(np.float32, order="C")
    low, high = colour.min(axis=1, keepdims=True), colour.max(axis=1, keepdims=True)
    width = np.where(high > low, high - low, 255)
    stretched = np.where(high > low, (colour - low) * (255 / width), colour)
    blended = _stored(colour + share * (stretched - colour))
    return replace(sample, colour=np.ascontiguousarray(blended.T))


def colour_translation(
    sample: Sample, rng: np.random.Generator, *, probability: float = 0.95, ratio: float = 0.05
) -> Sample:
    """Adds one random colour to all points.

    Args:
        sample: The sample.
        rng: Draws.
        probability: Of doing so at all.
        ratio: The largest addition to a channel, either way, as a share of 255.

    Returns:
        The sample with other colours.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> points = np.zeros((9, 3), np.float32)
        >>> sample = sample_of(Scene("room", points, np.full((9, 3), 99, np.uint8), points))
        >>> moved = colour_translation(sample, np.random.default_rng(0), probability=1.0)
        >>> len(np.unique(moved.colour, axis=0))
        1
    """
    check_probability("probability", probability)
    check_probability("ratio", ratio)
    if rng.random() >= probability:
        return sample
    shift = rng.uniform(-255 * ratio, 255 * ratio, 3).astype(np.float32)
    return replace(sample, colour=_stored(sample.colour + shift))


def colour_jitter(
    sample: Sample, rng: np.random.Generator, *, probability: float = 0.95, std: float = 0.05
) -> Sample:
    """Adds noise to the colour of every point.

    Args:
        sample: The sample.
        rng: Draws.
        probability: Of doing so at all.
        std: Standard deviation, as a share of 255.

    Returns:
        The sample with other colours.

    Example:
        >>> from haskd_jax.data import Scene
        >>> from haskd_jax.data.transforms import sample_of
        >>> points = np.zeros((9, 3), np.float32)
        >>> sample = sample_of(Scene("room", points, np.full((9, 3), 99, np.uint8), points))
        >>> moved = colour_jitter(sample, np.random.default_rng(0), probability=1.0)
        >>> len(np.unique(moved.colour, axis=0))
        9
    """
    check_probability("probability", probability)
    if std < 0:
        raise ValueError(f"std: {std}, expected 0 or more")
    if rng.random() >= probability:
        return sample
    noise = rng.standard_normal(sample.colour.shape, np.float32) * np.float32(255 * std)
    return replace(sample, colour=_stored(sample.colour + noise))
