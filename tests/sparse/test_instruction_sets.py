"""The kernels of every instruction set that this machine has give the product."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from . import common

pytestmark = common.needs_native

# Widths that make panels of every width, whole and padded, and rows left over.
SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from haskd_jax import sparse
rng = np.random.default_rng(0)
coords = np.pad(rng.integers(-6, 6, (700, 3)), ((0, 0), (1, 0))).astype(np.int32)
grid, _ = sparse.grid_from_coords(coords, capacity=640)
kmap = sparse.kernel_map(grid, kernel_size=3)
neighbours = np.asarray(kmap.neighbours)
worst = 0.0
for c, d in ((1, 1), (3, 20), (33, 48), (32, 64), (7, 100), (64, 96), (16, 112)):
    shapes = (640, c), (27, c, d), (640, d)
    x, w, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    y, pull_back = jax.vjp(lambda x, w: sparse.conv(x, w, kmap, implementation="native"), x, w)
    expected = np.zeros((640, d)), np.zeros((640, c)), np.zeros((27, c, d))
    for k, rows in enumerate(neighbours):
        out = np.flatnonzero(rows >= 0)
        gathered, gradient = x[rows[out]].astype(float), dy[out].astype(float)
        expected[0][out] += gathered @ w[k]
        np.add.at(expected[1], rows[out], gradient @ w[k].T.astype(float))
        expected[2][k] = gathered.T @ gradient
    for got, wanted in zip((y, *pull_back(jnp.asarray(dy))), expected, strict=True):
        worst = max(worst, np.abs(got - wanted).max() / np.abs(wanted).max())
x = rng.standard_normal((640, 37)).astype(np.float32)
mask, ones = rng.random(640) < 0.8, jnp.ones(37, jnp.float32)
y, moments = sparse.batch_norm(x, mask, ones, ones, relu=True, implementation="native")
valid = x[mask].astype(float)
expected = np.maximum((valid - valid.mean(0)) / np.sqrt(valid.var(0) + 1e-5) + 1, 0)
worst = max(worst, np.abs(np.asarray(y)[mask] - expected).max() / expected.max())
points = rng.uniform(-6, 7, (300, 3)).astype(np.float32)
dy = rng.standard_normal((300, 37)).astype(np.float32)
read = lambda x, how: sparse.devoxelize(x, grid, points, mode="trilinear", implementation=how)
for got, wanted in zip(*(jax.tree.leaves(jax.jit(
        lambda x, dy, how=how: (read(x, how), jax.vjp(lambda x: read(x, how), x)[1](dy))
    )(x, dy)) for how in ("native", "xla")), strict=True):
    worst = max(worst, np.abs(got - wanted).max() / np.abs(wanted).max())
print(worst)
"""


def has(instruction_set):
    """Whether this machine does; where it does not say, only "generic" is tried."""
    if instruction_set == "generic":
        return True
    about = Path("/proc/cpuinfo")
    flags = about.read_text().split() if about.exists() else []
    wanted = {"avx2": ["avx2", "fma"], "avx512": ["avx512f", "avx512dq", "avx512bw", "avx512vl"]}
    return platform.machine() == "x86_64" and set(wanted[instruction_set]) <= set(flags)


@pytest.mark.parametrize("instruction_set", ["generic", "avx2", "avx512"])
def test_forward_and_gradients(instruction_set):
    if not has(instruction_set):
        pytest.skip(f"this machine has no {instruction_set}: another one's kernels would run")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"HASKD_JAX_ISA": instruction_set},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) <= 1e-5


def test_what_the_machine_lacks_is_the_best_it_has():
    best, *_ = [name for name in ("avx512", "avx2", "generic") if has(name)]
    said = {
        name: subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"HASKD_JAX_ISA": name},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in (best, "avx512")
    }
    assert said["avx512"] == said[best]


def test_unknown_names_are_refused():
    done = subprocess.run(
        [sys.executable, "-c", "from haskd_jax import sparse; sparse.native_available()"],
        env=os.environ | {"HASKD_JAX_ISA": "AVX-2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "ValueError: HASKD_JAX_ISA='AVX-2': must be one of generic, avx2, avx512" in done.stderr
