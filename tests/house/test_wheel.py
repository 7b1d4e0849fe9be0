"""The built wheel, installed away from the checkout, with and without a compiler."""

import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Prints where the package came from, whether it brought the native library, and the deviation of
# a small convolution from its definition; `implementation` is formatted in.
USE = textwrap.dedent(
    """
    import importlib.util
    import haskd_jax
    import jax.numpy as jnp
    import numpy as np
    from haskd_jax import sparse

    rng = np.random.default_rng(0)
    points = rng.uniform(-0.1, 0.1, (60, 3)).astype(np.float32)
    grid, point_to_voxel = sparse.voxelize(jnp.asarray(points), voxel_size=0.02, capacity=64)
    kmap = sparse.kernel_map(grid, kernel_size=3)
    features = rng.normal(size=(64, 4)).astype(np.float32)
    weights = rng.normal(size=(27, 4, 5)).astype(np.float32)
    out = sparse.conv(
        jnp.asarray(features), jnp.asarray(weights), kmap, implementation={implementation!r}
    )
    expected = np.zeros((64, 5))
    neighbours = np.asarray(kmap.neighbours)
    for k, i in np.argwhere(neighbours >= 0):
        expected[i] += features[neighbours[k, i]].astype(float) @ weights[k]
    assert neighbours[13].max() >= 40, "the convolution saw hardly any voxel"
    print(haskd_jax.__file__)
    print(importlib.util.find_spec("haskd_jax._native") is not None)
    print(np.abs(np.asarray(out) - expected).max())
    """
)


def run(command: list[str], **kwargs) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def build_and_unpack(folder: Path, env: dict[str, str]) -> tuple[str, Path]:
    """Builds the wheel without network; returns its file name and where it was installed."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--quiet", "--no-deps", "--no-index"]
    wheels = str(folder / "wheels")
    run([*pip, "wheel", *options, "--no-build-isolation", "-w", wheels, str(ROOT)], env=env)
    (wheel,) = (folder / "wheels").iterdir()
    site = folder / "site"
    run([*pip, "install", *options, "--target", str(site), str(wheel)])
    return wheel.name, site


def use(site: Path, folder: Path, implementation: str | None) -> tuple[Path, bool, float]:
    """Runs USE in another directory, on the installed wheel and on nothing of the checkout."""
    # -S: the checkout's editable install hooks itself in through a .pth file, which only `site`
    # reads. The dependencies stay reachable through the path.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    env = {name: value for name, value in os.environ.items() if name != "HASKD_JAX_NATIVE"}
    env |= {"PYTHONPATH": os.pathsep.join([str(site), *sorted(dependencies)])}
    code = USE.format(implementation=implementation)
    module, native, deviation = run(
        [sys.executable, "-S", "-c", code], cwd=folder, env=env
    ).splitlines()[-3:]
    return Path(module), native == "True", float(deviation)


@pytest.mark.skipif(
    not any(shutil.which(name) for name in ("c++", "g++", "clang++")),
    reason="no C++ compiler on this machine",
)
@pytest.mark.slow
def test_wheel_with_compiler(tmp_path):
    wheel, site = build_and_unpack(tmp_path, dict(os.environ))
    assert wheel.startswith("haskd_jax-")
    assert "-py3-none-" in wheel and not wheel.endswith("-any.whl"), wheel
    assert (site / "haskd_jax" / "_native.so").exists()
    assert (site / "haskd_jax" / "py.typed").exists()
    module, native, deviation = use(site, tmp_path, "native")
    assert module.is_relative_to(site)
    assert native
    assert deviation < 1e-4


def test_wheel_without_compiler(tmp_path):
    env = {**os.environ, "CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"}
    wheel, site = build_and_unpack(tmp_path, env)
    assert wheel.endswith("-py3-none-any.whl"), wheel
    encoder = site / "haskd_jax" / "experiments" / "synthrooms_encoder"
    assert (encoder / "encoder.json").exists() and any((encoder / "weights").rglob("*.ocdbt"))
    module, native, deviation = use(site, tmp_path, None)
    assert module.is_relative_to(site)
    assert not native
    assert deviation < 1e-4
