"""How long the Lovasz-softmax of a training batch takes, by implementation of its weights.

python kernels/bench/lovasz.py                  (some seconds)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from measure import machine, seconds

from haskd_jax import losses, sparse
from haskd_jax.losses._jaccard import jaccard_weights

CLASSES, VOXELS, SCENES = 20, 21_504, 2


def main() -> None:
    print(machine())
    rng = np.random.default_rng(0)
    logits = jnp.asarray(3 * rng.standard_normal((VOXELS, CLASSES), np.float32))
    labels = jnp.asarray(rng.integers(-1, CLASSES, VOXELS, np.int32))
    scene = jnp.asarray(np.sort(rng.integers(0, SCENES, VOXELS, np.int32)))
    target = jax.nn.one_hot(labels, CLASSES, axis=0, dtype=bool)
    probabilities = jax.nn.softmax(logits).T
    errors = jnp.where(target, 1 - probabilities, probabilities)
    for name in ("xla", "native") if sparse.native_available() else ("xla",):
        weights = functools.partial(
            jaccard_weights, errors, labels, scene, num_scenes=SCENES, implementation=name
        )
        print(f"weights, {name:6s}        {1e3 * seconds(weights):6.1f} ms")

    @jax.jit
    def loss(logits):
        values = losses.lovasz_softmax(logits, labels, scene=scene, num_scenes=SCENES)
        return jnp.sum(values)

    step = jax.jit(jax.value_and_grad(loss))
    print(f"the loss and its gradient {1e3 * seconds(lambda: step(logits)):6.1f} ms")


if __name__ == "__main__":
    main()
