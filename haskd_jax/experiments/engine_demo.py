"""A made-up room through the engine: voxels, kernel maps, one U-Net forward pass.

    python -m haskd_jax.experiments.engine_demo

Takes half a minute on two cores, most of it compilation. The network is untrained: what comes out
says how fast it is, not what is in the room.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from haskd_jax import models, sparse
from haskd_jax.data.toy_room import toy_room

VOXEL_SIZE = 0.02  # metres
CLASSES = 20
# Measured on this room: rows of each grid, finest first.
CAPACITIES = (106_496, 30_720, 7_680, 1_792, 512)


def main() -> None:
    """Prints what each step gives and takes."""
    points = toy_room(np.random.default_rng(0), spacing=VOXEL_SIZE)
    kernels = "native kernels" if sparse.native_available() else "portable implementation"
    print(f"a furnished room of {len(points):,} points, on {jax.default_backend()} ({kernels})")

    @jax.jit
    def build(points):
        grid, row = sparse.voxelize(points, voxel_size=VOXEL_SIZE, capacity=CAPACITIES[0])
        maps = sparse.pyramid(grid, capacities=CAPACITIES[1:])
        return grid, maps, sparse.voxel_mean(points, row, CAPACITIES[0])

    (grid, maps, features), seconds = timed(build, jnp.asarray(points))
    if maps.overflow > 0:
        raise SystemExit(f"{int(maps.overflow)} voxels did not fit into {CAPACITIES}")
    sizes = ", ".join(f"{int(level.mask.sum()):,}" for level in maps.grids)
    voxels = int(grid.mask.sum())
    print(f"voxels of 2 cm and up, by level: {sizes}")
    print(f"grids and kernel maps of all levels: {seconds * 1e3:.0f} ms")

    network = models.MinkUNet(models.MINKUNET["spunet"], 3, CLASSES, rngs=nnx.Rngs(0))
    apply, params, state = models.functional(network)
    forward = jax.jit(lambda *inputs: apply(params, state, *inputs, train=False)[0][1])
    logits, seconds = timed(forward, grid, maps, features)
    assert bool(jnp.isfinite(logits).all())
    print(
        f"SpUNet, forward: {seconds * 1e3:.0f} ms, {voxels / seconds:,.0f} voxels/s, "
        f"{CLASSES} logits for each of {voxels:,} voxels"
    )


def timed(run, *inputs):
    """The result, and the seconds of a second run: the first one compiles."""
    jax.block_until_ready(run(*inputs))
    start = time.perf_counter()
    result = jax.block_until_ready(run(*inputs))
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
