"""The same inputs give the same bits: every run, in every process, with any number of threads."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from haskd_jax import losses, models, sparse

from . import common
from .clouds import VOXEL_SIZE, wall_cells


def digest(tree):
    """One hash over all bits of a tree of arrays."""
    state = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        state.update(np.asarray(leaf).tobytes())
    return state.hexdigest()


def run(implementation, size=60):
    """Digests of every op that has an order to choose, on more rows than any tile."""
    rng = np.random.default_rng(0)
    cells = np.repeat(wall_cells(rng, size=size), 2, axis=0)
    points = (cells[:, 1:] + rng.uniform(0.1, 0.9, (len(cells), 3))) * VOXEL_SIZE
    points = points[rng.permutation(len(points))].astype(np.float32)
    batch, mask = np.zeros(len(points), np.int32), np.ones(len(points), bool)
    capacity = len(points) // 2

    grid, row = common.voxelize(
        points, batch, mask, capacity=capacity, implementation=implementation
    )
    coarse = common.downsample(grid, capacity=capacity, implementation=implementation)
    maps = [
        common.kernel_map(grid, out, kernel_size=k, implementation=implementation)
        for out, k in ((None, 3), (coarse, 2))
    ]
    inputs = rng.normal(size=(2, capacity, 32)).astype(np.float32)
    weights = rng.normal(size=(27, 32, 32)).astype(np.float32)
    convolved = [
        common.conv_and_gradients(
            inputs[0], weights[: k**3], kmap, inputs[1], implementation=implementation
        )
        for kmap, k in zip(maps, (3, 2), strict=True)
    ]
    features = jnp.asarray(rng.normal(size=(len(points), 16)), jnp.float32)
    total = sparse.segment_sum(features, row, capacity, implementation=implementation)
    back, spread = jax.vjp(
        lambda total: sparse.devoxelize(
            total, grid, points, mode="trilinear", implementation=implementation
        ),
        total,
    )
    normalised = common.batch_norm_and_gradients(
        inputs[0], grid.mask, *inputs[1, :2], inputs[1], inputs[1], implementation=implementation
    )
    parts = {"grids": (grid, row, coarse), "maps": maps, "conv": convolved}
    parts |= {"sums": (total, back, spread(features)), "norm": normalised}
    return {name: digest(tree) for name, tree in parts.items()}


def head_gradients(rows=20_000):
    """Of the last layer of every network: a product whose gradient sums over all rows."""
    features, cotangent = np.random.default_rng(1).normal(size=(2, rows, 20)).astype(np.float32)
    apply, params, state = models.functional(models.Head(20, 20, rngs=nnx.Rngs(0)))

    @jax.jit
    def loss(params, features):
        logits, _ = apply(params, state, features, np.ones(rows, bool), train=True)
        return jnp.sum(logits * cotangent)

    return jax.grad(loss, argnums=(0, 1))(params, features)


def pooling_gradients(voxels=20_000):
    """Of the small network that weighs views, and of the projection between features."""
    rng = np.random.default_rng(2)
    apply, params, state = models.functional(models.ViewPooling(rngs=nnx.Rngs(0)))
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
    features, cues = (rng.random(shape, np.float32) for shape in ((3, 6, 8, 8), (3, voxels, 3)))
    pixels = rng.integers(-1, 48, (3, voxels)).astype(np.int32)
    student, teacher = rng.normal(size=(2, voxels, 16)).astype(np.float32)

    @jax.jit
    def loss(params, projection):
        (pooled, _), _ = apply(params, state, features, pixels, cues, train=True)
        values = losses.feature_cosine(student, teacher, projection=projection)
        return jnp.sum(pooled**2) + jnp.sum(values)

    return jax.grad(loss, argnums=(0, 1))(params, jnp.eye(16))


def in_a_process(implementation, root, **environment):
    """`run` in a fresh process, and how many threads XLA's pool has there."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sparse.test_bits", implementation],
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=common.IMPLEMENTATIONS)
def first(request):
    """An implementation and its digests in this process."""
    return request.param, run(request.param)


def test_the_same_bits_again(first):
    implementation, digests = first
    assert run(implementation) == digests


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("implementation", common.IMPLEMENTATIONS)
def test_the_same_bits_in_other_processes_with_any_number_of_threads(implementation, root):
    # XLA's CPU client sizes its pool by NPROC, which runs the native kernels too. Compiled as users
    # compile, with all optimizations.
    one, five = (
        in_a_process(implementation, root, NPROC=str(threads), XLA_FLAGS="") for threads in (1, 5)
    )
    assert (one["threads"], five["threads"]) == (1, 5)
    assert one["digests"] == five["digests"]


if __name__ == "__main__":
    result = run(sys.argv[1]) | {"head": digest(head_gradients())}
    result |= {"pooling": digest(pooling_gradients())}
    names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    print(json.dumps({"threads": names.count("tf_XLAEigen"), "digests": result}))
