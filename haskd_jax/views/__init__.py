"""Cameras and the choice of images: what each frame sees, how good it is, which ones to take.

Pure functions on arrays. They work for one scene, under `jax.jit`, on CPU, GPU and TPU alike; batch
them over scenes with `jax.vmap` (not within `jax.shard_map`, whose loops would need every argument
spread). Points, depths, poses and tolerances share one unit of length.
Cameras look along +z, x to the right, y down; the centres of pixels lie at integers. Frames and
voxels that are padding carry False in a mask and change nothing. Bad input raises a ValueError
outside of `jax.jit`; inside, it is masked, and `valid_cameras` tells which frames were.
"""

from haskd_jax.views._baselines import (
    select_coverage,
    select_entropy,
    select_random,
    select_stochastic_coverage,
    select_uniform,
)
from haskd_jax.views._camera import project, scale_intrinsics, valid_cameras
from haskd_jax.views._coverage import coverage, information, marginal_gains
from haskd_jax.views._quality import frame_entropy, frame_quality, frame_sharpness
from haskd_jax.views._selection import Selection, select_views
from haskd_jax.views._visibility import VoxelPixels, visibility, voxel_to_pixel

__all__ = [
    "Selection",
    "VoxelPixels",
    "coverage",
    "frame_entropy",
    "frame_quality",
    "frame_sharpness",
    "information",
    "marginal_gains",
    "project",
    "scale_intrinsics",
    "select_coverage",
    "select_entropy",
    "select_random",
    "select_stochastic_coverage",
    "select_uniform",
    "select_views",
    "valid_cameras",
    "visibility",
    "voxel_to_pixel",
]
