"""Maps and convolutions on a GPU, and the least that their bytes and their arithmetic would take.

    python kernels/bench/gpu.py            (meant for a GPU; runs wherever JAX does)

A furnished room, 3x3x3. Milliseconds are the median of blocked calls, from the host, so launches
count. `bytes` is what reading features and map once and writing the result once takes at the speed
of a copy, `flops` the useful products (2 pairs C^2) at the speed of a dense, square float32
product; both speeds are measured in this run.
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from conv import build, forward_and_gradients
from measure import capacity_for, machine, room_points

from haskd_jax import sparse

VOXELS = 105_000


def milliseconds(run, *, repeat=30):
    """The median of a few runs, after one that is not counted."""
    jax.block_until_ready(run())
    return float(np.median([_once(run) for _ in range(repeat)])) * 1e3


def _once(run):
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def copy_speed(size=2**28):
    """Bytes a millisecond of a large copy, read and written."""
    x = jnp.zeros(size, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / milliseconds(lambda: add(x), repeat=10)


def dense_speed(size=8192):
    """Floating-point operations a millisecond of a dense float32 product."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size)), jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    return 2 * size**3 / milliseconds(lambda: product(a), repeat=5)


def main():
    """Prints the table."""
    print(machine(), "|", jax.devices()[0].device_kind)
    points, batch = map(jnp.asarray, room_points(VOXELS))
    build_jit = jax.jit(partial(build, capacity=capacity_for(VOXELS + 1000)))
    grid, kmap = build_jit(points, batch)
    assert int(grid.overflow) == 0, "voxels that did not fit"
    # As in a training step, what nobody asks for (the hash table) is not made.
    neighbours = jax.jit(lambda points, batch: build_jit(points, batch)[1].neighbours)
    within = jax.jit(lambda grid: sparse.kernel_map(grid, kernel_size=3).neighbours)
    print(f"{len(points):,} points, {int(grid.mask.sum()):,} voxels")
    print(f"points to map {milliseconds(lambda: neighbours(points, batch)):.2f} ms")
    print(f"map alone {milliseconds(lambda: within(grid)):.2f} ms")
    copying, multiplying = copy_speed(), dense_speed()
    print(f"copy {copying / 1e9:.2f} TB/s, dense float32 {multiplying / 1e9:.1f} TFLOP/s")
    pairs = int((kmap.neighbours >= 0).sum())
    rng = np.random.default_rng(0)
    forward, both = jax.jit(sparse.conv), jax.jit(forward_and_gradients)
    for channels in (32, 64, 96):
        for dtype in (jnp.float32, jnp.bfloat16):
            x = jnp.asarray(rng.standard_normal((grid.capacity, channels)), dtype)
            w = jnp.asarray(rng.standard_normal((27, channels, channels)) / channels, dtype)
            run = partial(forward, x, w, kmap), partial(both, x, w, x, kmap)
            print(
                f"C = {channels}, {jnp.dtype(dtype).name}: forward {milliseconds(run[0]):.2f} ms, "
                f"and both gradients {milliseconds(run[1]):.2f} ms; forward at least "
                f"{(2 * x.nbytes + kmap.neighbours.nbytes) / copying:.2f} ms of bytes, "
                f"{2 * pairs * channels**2 / multiplying:.2f} ms of float32 flops",
                flush=True,
            )


if __name__ == "__main__":
    main()
