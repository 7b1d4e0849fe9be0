"""Every function under jit, vmap, x64, and lowered for backends this machine need not have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import views

from . import oracle

FRAMES, VOXELS, SCENES = 6, 50, 2


def scene(seed):
    rng = np.random.default_rng(seed)
    points, depth, intrinsics, poses, _ = oracle.made_up_scene(rng, frames=FRAMES, voxels=VOXELS)
    poses[seed % FRAMES] = np.inf
    images = rng.integers(0, 256, (FRAMES, 8, 10, 3), dtype=np.uint8)
    # Weights of eighths: whatever the order of summation, sums are exact, and ties are ties.
    return {
        "points": points,
        "cameras": (depth, intrinsics, poses),
        "images": images,
        "visible": rng.random((FRAMES, VOXELS)) < 0.3,
        "quality": rng.integers(0, 9, FRAMES).astype(np.float32) / 8,
        "information": rng.integers(0, 9, VOXELS).astype(np.float32) / 8,
        "where": rng.random(FRAMES) < 0.8,
        "logits": rng.normal(size=(VOXELS, 4)).astype(np.float32),
        "indices": rng.permutation(FRAMES)[:3].astype(np.int32),
        "seed": np.uint32(seed),
    }


def select(function, s, **own):
    weights = {name: s[name] for name in ("quality", "information", "where")}
    return function(s["visible"], num_views=3, rho=0.5, **weights, **own)


def random_key(s):
    return jax.random.key(s["seed"])


CALLS = {
    "project": lambda s: views.project(s["points"], s["cameras"][1][0], s["cameras"][2][0]),
    "scale_intrinsics": lambda s: views.scale_intrinsics(s["cameras"][1], (8, 8), (4, 4)),
    "valid_cameras": lambda s: views.valid_cameras(*s["cameras"][1:]),
    "visibility": lambda s: views.visibility(s["points"], *s["cameras"], tolerance=0.05),
    "voxel_to_pixel": lambda s: views.voxel_to_pixel(
        s["points"], *s["cameras"], s["indices"], tolerance=0.05, stride=4
    ),
    "frame_quality": lambda s: views.frame_quality(s["images"], where=s["where"]),
    "frame_entropy": lambda s: views.frame_entropy(s["images"], where=s["where"]),
    "frame_sharpness": lambda s: views.frame_sharpness(s["images"], where=s["where"]),
    "information": lambda s: views.information(s["logits"]),
    "coverage": lambda s: views.coverage(s["visible"], s["indices"]),
    "marginal_gains": lambda s: views.marginal_gains(
        s["visible"], s["indices"], quality=s["quality"], information=s["information"], rho=0.5
    ),
    "select_views": lambda s: select(views.select_views, s),
    "select_coverage": lambda s: select(views.select_coverage, s),
    "select_entropy": lambda s: select(views.select_entropy, s, entropy=s["quality"]),
    "select_uniform": lambda s: select(views.select_uniform, s),
    "select_random": lambda s: select(views.select_random, s, key=random_key(s)),
    "select_stochastic_coverage": lambda s: select(
        views.select_stochastic_coverage, s, key=random_key(s)
    ),
}


@functools.cache
def eager(name, seed):
    return jax.tree.map(np.asarray, CALLS[name](scene(seed)))


def assert_same(have, wanted):
    """Integers and truths to the bit; floats but for the last bits, which fusion may round anew."""
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)
        else:
            np.testing.assert_array_equal(a, b)


def test_every_function_is_here():
    assert set(CALLS) == {name for name in views.__all__ if name[0].islower()}


@pytest.mark.parametrize("name", CALLS)
def test_jit_is_eager(name):
    assert_same(jax.jit(CALLS[name])(scene(0)), eager(name, 0))


@pytest.mark.parametrize("name", CALLS)
def test_vmap_is_a_loop_over_scenes(name):
    scenes = [scene(seed) for seed in range(SCENES)]
    batched = jax.jit(jax.vmap(CALLS[name]))(jax.tree.map(lambda *x: np.stack(x), *scenes))
    for seed in range(SCENES):
        assert_same(jax.tree.map(lambda x, seed=seed: x[seed], batched), eager(name, seed))


@pytest.mark.parametrize("name", CALLS)
def test_x64_changes_nothing(name):
    expected = eager(name, 1)
    with jax.enable_x64(True):
        assert_same(CALLS[name](scene(1)), expected)


@pytest.mark.parametrize("name", CALLS)
def test_lowers_for_cuda_and_tpu(name):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), scene(0))
    exported = jax.export.export(jax.jit(CALLS[name]), platforms=("cuda", "tpu"))(shapes)
    assert exported.platforms == ("cuda", "tpu")
    assert "f64" not in exported.mlir_module()
