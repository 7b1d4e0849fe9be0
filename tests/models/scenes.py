"""Tiny scenes, and a training loop that knows nothing but the student protocol."""

import contextlib
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np

from haskd_jax import losses, models, sparse

CAPACITIES = (256, 128, 64)
NUM_CLASSES = 3
SHAPE = models.MinkUNetConfig((8, 16, 16, 8), (1, 1, 1, 1), stem=8, stem_kernel=3)
IMAGES = models.ImageEncoderConfig((8, 16), 1, 8)


class Scene(NamedTuple):
    grid: sparse.VoxelGrid
    maps: sparse.Pyramid
    features: jax.Array  # [V, 3], the position within the scene; garbage in padding rows
    labels: jax.Array  # [V]: floor, wall, box


def cells(seed=0):
    """(x, y, z) of a floor, a wall and a box on the floor; and their classes."""
    size = 10
    a, b = (axis.ravel() for axis in np.meshgrid(np.arange(size), np.arange(size)))
    x, y = np.random.default_rng(seed).integers(2, size - 3, 2)
    box = np.stack([a % 3 + x, b % 3 + y, (a + b) % 3 + 1], 1)
    parts = [np.stack([a, b, 0 * a], 1), np.stack([0 * a, a, b + 1], 1), box]
    xyz, first = np.unique(np.concatenate(parts), axis=0, return_index=True)
    return xyz, np.repeat(np.arange(3), [len(part) for part in parts])[first]


@functools.cache
def scene(seeds=(0,), capacities=CAPACITIES, garbage=np.nan):
    """One scene for each seed, in one grid."""
    rooms = [cells(seed) for seed in seeds]
    coords = np.concatenate([np.insert(xyz, 0, i, axis=1) for i, (xyz, _) in enumerate(rooms)])
    grid, row = sparse.grid_from_coords(coords, capacity=capacities[0])
    maps = sparse.pyramid(grid, capacities=capacities[1:])
    assert int(maps.overflow) == 0
    features = np.full((capacities[0], 3), garbage, np.float32)
    features[np.asarray(row)] = coords[:, 1:] / 10
    labels = np.zeros(capacities[0], np.int32)
    labels[np.asarray(row)] = np.concatenate([classes for _, classes in rooms])
    return Scene(grid, maps, jnp.asarray(features), jnp.asarray(labels))


def loss_and_gradients(apply, params, state, scene, *extra, **keywords):
    """Cross entropy and its gradient by params; the new state."""

    def loss(params):
        outputs, new = apply(
            params, state, scene.grid, scene.maps, scene.features, *extra, train=True, **keywords
        )
        valid = scene.grid.mask
        values = losses.cross_entropy(outputs[1], scene.labels, where=valid)
        return losses.masked_mean(values, where=valid & (scene.labels >= 0)), new

    (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return value, gradients, state


def train(module, scene, *extra, steps, rate=0.02, **keywords):
    """Sign descent with momentum, the rate falling to zero. Returns apply, params, state."""
    apply, params, state = models.functional(module)

    @jax.jit  # of arguments alone: what is trained on what in another test is compiled already
    def step(now, params, state, momentum, given):
        scene, extra, keywords = given
        _, gradients, state = loss_and_gradients(apply, params, state, scene, *extra, **keywords)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, momentum, gradients)
        params = jax.tree.map(lambda p, m: p - now * jnp.sign(m), params, momentum)
        return params, state, momentum

    momentum = jax.tree.map(jnp.zeros_like, params)
    for i in range(steps):
        now = jnp.float32(rate * (1 - i / steps))
        params, state, momentum = step(now, params, state, momentum, (scene, extra, keywords))
    return apply, params, state


def accuracy(apply, params, state, scene, *extra, where=True, **keywords):
    """Share of voxels labelled rightly, with running statistics."""
    outputs, _ = jax.jit(functools.partial(apply, train=False))(
        params, state, scene.grid, scene.maps, scene.features, *extra, **keywords
    )
    right = np.argmax(np.asarray(outputs[1]), axis=1) == np.asarray(scene.labels)
    return right[np.asarray(scene.grid.mask) & where].mean()


@contextlib.contextmanager
def unchecked_annotations():
    """Lets bad input through to the package's own checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def assert_same_bits(one, other):
    """Two trees agree in structure, dtype and every bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
