"""Augmentation recipes by name, and what an experiment changes of them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from haskd_jax.data import transforms
from haskd_jax.data.transforms import Recipe
from haskd_jax.experiments.config import ScenesConfig

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "none": transforms.plain(),
        "spunet": transforms.SPUNET_SCANNET,
        "spunet_s3dis": transforms.SPUNET_S3DIS,
        "ptv3": transforms.PTV3_SCANNET,
        "ptv3_s3dis": transforms.PTV3_S3DIS,
    }
)


def recipe_of(config: ScenesConfig) -> Recipe:
    """The recipe of a configuration.

    Args:
        config: Names the recipe, and what differs from it.

    Returns:
        The recipe.

    Example:
        >>> recipe_of(ScenesConfig(voxel_size=0.05, augmentation="none", crop=9000)).describe()[1:3]
        ['grid_sample(voxel_size=0.05)', 'sphere_crop(most=9000)']
    """
    recipe = replace(RECIPES[config.augmentation], voxel_size=config.voxel_size)
    if config.crop is not None:
        recipe = replace(recipe, after=(partial(transforms.sphere_crop, most=config.crop),))
    return recipe if config.mix is None else replace(recipe, mix=config.mix)
