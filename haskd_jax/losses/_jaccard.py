"""Slopes of the Lovasz extension of the Jaccard loss."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Num

from haskd_jax import native_kernels
from haskd_jax.implementation import run
from haskd_jax.losses._sort import argsort_descending, take, then_by


# One compilation rather than twenty where lovasz_softmax runs op by op.
@partial(jax.jit, static_argnames=("num_scenes", "implementation"))
def jaccard_weights(
    errors: Float[Array, "C V"],
    labels: Int32[Array, " V"],
    scene: Int32[Array, " V"],
    *,
    num_scenes: int,
    implementation: str | None = None,
) -> Float[Array, "C V"]:
    """Slope of the Lovasz extension of the Jaccard loss, per voxel; 0 where it does not count.

    Voxels join the set of mistakes in the order of their errors, and the slope is what each adds to
    1 - I/U. That is 1/U for a voxel of the class (I shrinks by one) and I/(U(U-1)) for another (U
    grows by one): closed forms, since differences of neighbouring losses would cancel in f32.

    Args:
        errors: [C, V] in [0, 1], but for rounding.
        labels: [V] in [-1, C); voxels of -1 do not count.
        scene: [V] in [0, num_scenes), each a set of its own.
        num_scenes: static.
        implementation: None for the best there is, "xla" or "native" (f32 only).
    """
    if implementation is None and errors.dtype != jnp.float32:
        implementation = "xla"

    def native(errors: Array, labels: Array, scene: Array) -> Array:
        result = jax.ShapeDtypeStruct(errors.shape, errors.dtype)
        return native_kernels.call(
            "haskd_jaccard_weights", result, errors, labels, scene, num_scenes=np.int32(num_scenes)
        )

    xla = partial(_by_sorting, num_scenes=num_scenes)
    return run(implementation, native=native, xla=xla, args=(errors, labels, scene))


def _by_sorting(errors: Array, labels: Array, scene: Array, *, num_scenes: int) -> Array:
    target = jax.nn.one_hot(labels, errors.shape[0], axis=0, dtype=bool)
    valid = jnp.broadcast_to(labels >= 0, errors.shape)
    order = argsort_descending(jnp.abs(errors))  # abs: a softmax may round to just above 1
    if num_scenes > 1:
        order = then_by(scene, order, num_scenes)
    inside, outside = take(target, order), take(valid & ~target, order)
    at = jnp.sort(scene)  # scene of each place in the order, whatever the class
    inside_of = by_scene(target.astype(jnp.int32), scene, num_scenes)
    outside_of = by_scene((valid & ~target).astype(jnp.int32), scene, num_scenes)

    def joined(counted: Array, of: Array) -> Array:
        """How many of the scene joined so far: all so far, less those of the scenes before."""
        before = jnp.cumsum(of, axis=1, dtype=jnp.int32) - of
        return jnp.cumsum(counted, axis=-1, dtype=jnp.int32) - before[:, at]

    size = inside_of[:, at]
    intersection = (size - joined(inside, inside_of)).astype(errors.dtype)
    union = (size + joined(outside, outside_of)).astype(errors.dtype)
    joins = 1 / jnp.maximum(union, 1)
    slope = jnp.where(inside, joins, intersection * joins / jnp.maximum(union - 1, 1))
    back = jax.vmap(lambda o, s: jnp.zeros_like(s).at[o].set(s, unique_indices=True))
    return jnp.where(valid, back(order, slope), jnp.zeros_like(errors))


def by_scene(values: Num[Array, "C V"], scene: Int32[Array, " V"], count: int) -> Array:
    """[C, count], sums over the voxels of each scene; each scene's in the order of its voxels."""

    def of(number: Array) -> Array:
        return jnp.sum(
            jnp.where((scene == number)[None], values, jnp.zeros_like(values)),
            axis=1,
            dtype=values.dtype,
        )

    return jax.vmap(of, out_axes=1)(jnp.arange(count, dtype=jnp.int32))
