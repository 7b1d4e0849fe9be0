"""Augmentation: pure functions of a sample and an `np.random.Generator`, and the usual recipes.

See docs/augmentation.md. Names to import from here:

    sample_of, Sample, spread_views                     a scene in memory, and which frames of it
    centre_shift, rotate, scale, flip, jitter, elastic  geometry
    auto_contrast, colour_translation, colour_jitter    colour
    dropout, grid_sample, sphere_crop, mix3d            which points
    Recipe, augment, plain, SPUNET_SCANNET, SPUNET_S3DIS, PTV3_SCANNET, PTV3_S3DIS
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from haskd_jax.data.errors import DataError
from haskd_jax.data.transforms_bend import elastic, jitter
from haskd_jax.data.transforms_colour import auto_contrast, colour_jitter, colour_translation
from haskd_jax.data.transforms_crop import dropout, grid_sample, sphere_crop
from haskd_jax.data.transforms_geometry import (
    centre_shift,
    check_probability,
    flip,
    move,
    rotate,
    scale,
)
from haskd_jax.data.transforms_mixing import mix3d
from haskd_jax.data.transforms_sample import Sample, sample_of, spread_views, take

__all__ = [
    "PTV3_S3DIS",
    "PTV3_SCANNET",
    "SPUNET_S3DIS",
    "SPUNET_SCANNET",
    "Recipe",
    "Sample",
    "augment",
    "auto_contrast",
    "centre_shift",
    "colour_jitter",
    "colour_translation",
    "dropout",
    "elastic",
    "flip",
    "grid_sample",
    "jitter",
    "mix3d",
    "move",
    "plain",
    "rotate",
    "sample_of",
    "scale",
    "sphere_crop",
    "spread_views",
    "take",
]

Transform = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True)
class Recipe:
    """What happens to a scene on its way into a batch.

    Attributes:
        before: Transforms of all points, in this order: functions of a module, or a
            `functools.partial` of one with keywords, so that worker processes can be sent them.
        voxel_size: Edge of a voxel, metres; then one point of each is kept.
        after: Transforms of these, crops.
        mix: Probability that the scenes of a batch are mixed two and two.

    Raises:
        ValueError: `mix` is no probability.

    Example:
        >>> Recipe(before=(centre_shift, partial(rotate, axis="z")), voxel_size=0.05).mix
        0.0
    """

    before: tuple[Transform, ...] = (centre_shift,)
    voxel_size: float = 0.02
    after: tuple[Transform, ...] = ()
    mix: float = 0.0

    def __post_init__(self) -> None:
        """Checks the probability and the size."""
        check_probability("mix", self.mix)
        if not 0 < self.voxel_size < np.inf:
            raise ValueError(f"voxel_size: {self.voxel_size}, expected a positive length in metres")

    def describe(self) -> list[str]:
        """What the recipe does, a line a step: the same for equal recipes, in every process."""
        steps = [_words(step) for step in self.before]
        steps.append(f"grid_sample(voxel_size={self.voxel_size!r})")
        steps += [_words(step) for step in self.after]
        return [*steps, f"mix3d(probability={self.mix!r})"]


def _words(step: Transform) -> str:
    if isinstance(step, partial):
        given = [repr(value) for value in step.args]
        given += [f"{name}={value!r}" for name, value in sorted(step.keywords.items())]
        return f"{step.func.__name__}({', '.join(given)})"
    return getattr(step, "__qualname__", repr(step))


def augment(sample: Sample, recipe: Recipe, rng: np.random.Generator) -> Sample:
    """Sends a sample through a recipe, all but the mixing, which takes two.

    Args:
        sample: The sample.
        recipe: The recipe.
        rng: Draws; the same generator state gives the same sample.

    Returns:
        The sample of one point a voxel.

    Raises:
        ValueError: Names the scene and what is wrong.

    Example:
        >>> from haskd_jax.data import Scene
        >>> points = np.random.default_rng(0).uniform(0, 1, (500, 3)).astype(np.float32)
        >>> scene = Scene("room", points, np.zeros((500, 3), np.uint8), points)
        >>> done = augment(sample_of(scene), SPUNET_SCANNET, np.random.default_rng(1))
        >>> done.voxel_size
        0.02
    """
    try:
        for step in recipe.before:
            sample = step(sample, rng)
        sample = grid_sample(sample, rng, voxel_size=recipe.voxel_size)
        for step in recipe.after:
            sample = step(sample, rng)
    except DataError:
        raise
    except ValueError as error:
        raise ValueError(f"scene {sample.name}: {error}") from error
    return sample


def plain(voxel_size: float = 0.02) -> Recipe:
    """No augmentation: for evaluation and for measuring.

    Args:
        voxel_size: Edge of a voxel, metres.

    Returns:
        A recipe that centres the scene and keeps one point a voxel.

    Example:
        >>> plain(0.05).describe()
        ['centre_shift', 'grid_sample(voxel_size=0.05)', 'mix3d(probability=0.0)']
    """
    return Recipe(voxel_size=voxel_size)


_RIGID: tuple[Transform, ...] = (
    centre_shift,
    dropout,
    rotate,
    partial(rotate, axis="x", largest=np.pi / 64),
    partial(rotate, axis="y", largest=np.pi / 64),
    scale,
    flip,
    jitter,
)
_COLOUR: tuple[Transform, ...] = (auto_contrast, colour_translation, colour_jitter)

# The field's recipes, as Pointcept's configurations have them (configs/scannet and configs/s3dis:
# semseg-spunet-v1m1-0-base.py, semseg-pt-v3m1-0-base.py).
SPUNET_SCANNET = Recipe((*_RIGID, elastic, *_COLOUR), 0.02, (sphere_crop,), 0.8)
SPUNET_S3DIS = Recipe((*_RIGID, elastic, *_COLOUR), 0.05, (sphere_crop,), 0.8)
PTV3_SCANNET = Recipe(
    (*_RIGID, elastic, *_COLOUR), 0.02, (partial(sphere_crop, most=102_400),), 0.8
)
PTV3_S3DIS = Recipe(
    (*_RIGID, *_COLOUR),
    0.02,
    (partial(sphere_crop, most=None, share=0.6), partial(sphere_crop, most=204_800)),
    0.8,
)
