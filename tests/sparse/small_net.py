"""A U-Net of two levels from points to points, which uses every differentiable op once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from haskd_jax import sparse

from .clouds import CAPACITY, VOXEL_SIZE, small_clouds

COARSE_CAPACITY = 160
CHANNELS, HIDDEN, NUM_SCENES = 8, 12, 3


def weights():
    """A dictionary of kernels."""
    rng = np.random.default_rng(1)
    shapes = {
        "stem": (27, CHANNELS, HIDDEN),
        "down": (8, HIDDEN, HIDDEN),
        "up": (8, HIDDEN, HIDDEN),
    }
    return {
        name: jnp.asarray(rng.normal(size=shape) / 10, jnp.float32)
        for name, shape in shapes.items()
    }


def two_clouds():
    """Stacked: points [2, N, 3], batch, mask, and features [2, N, C] of the points."""
    names = ("walls", "overflow")
    points, batch, mask = (
        np.stack([getattr(small_clouds()[name], part) for name in names])
        for part in ("points", "batch", "mask")
    )
    features = np.random.default_rng(0).normal(size=(*mask.shape, CHANNELS))
    features[~mask] = np.nan
    return tuple(map(jnp.asarray, (points, batch, mask, features.astype(np.float32))))


def forward(weights, points, batch, mask, features, *, implementation):
    """Returns (the rows of points, grids and maps), features at points, features of scenes."""
    grid, row = sparse.voxelize(
        points,
        voxel_size=VOXEL_SIZE,
        capacity=CAPACITY,
        batch=batch,
        mask=mask,
        implementation=implementation,
    )
    pyramid = sparse.pyramid(grid, capacities=(COARSE_CAPACITY,), implementation=implementation)
    conv = functools.partial(sparse.conv, implementation=implementation)
    fine, down = pyramid.submanifold[0], pyramid.down[0]
    x = jnp.tanh(
        conv(
            sparse.voxel_mean(features, row, CAPACITY, implementation=implementation),
            weights["stem"],
            fine,
        )
    )
    y = jnp.tanh(conv(x, weights["down"], down)) + sparse.pool(x, down)
    x = x + conv(y, weights["up"], down.T) + sparse.unpool(y, down, implementation=implementation)
    at_points, between = (
        sparse.devoxelize(x, grid, points, batch, mode=mode, implementation=implementation)
        for mode in ("nearest", "trilinear")
    )
    at_points = at_points + between
    scenes = sparse.global_pool(x, grid, num_scenes=NUM_SCENES, implementation=implementation)
    return (row, pyramid), at_points, scenes


def loss(weights, *cloud, implementation):
    """A scalar that depends on all of it, and the rows, grids and maps."""
    built, at_points, scenes = forward(weights, *cloud, implementation=implementation)
    return jnp.sin(at_points).sum() + (scenes**2).sum(), built


@functools.cache
def loss_and_gradients(implementation):
    """Jitted: (loss, (rows, grids and maps)), gradients of the weights and of point features."""
    of_features = functools.partial(loss, implementation=implementation)
    return jax.jit(jax.value_and_grad(of_features, argnums=(0, 4), has_aux=True))
