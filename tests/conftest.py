"""What every test runs under: two CPU devices, strict dtypes and ranks, checked annotations."""

import os
from pathlib import Path

# Both are read when JAX starts its backend, so they precede every import of it. A cold run mostly
# waits for LLVM, which takes about half the time where it does not optimize.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parents[1]

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Most of a test's time is compilation: keep what was compiled from one run to the next.
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

# Checks every jaxtyping annotation at run time; modules imported earlier would go unchecked.
jaxtyping.install_import_hook("haskd_jax", "beartype.beartype")

hypothesis.settings.register_profile(
    "haskd_jax", deadline=None, derandomize=True, max_examples=25, print_blob=True
)
hypothesis.settings.load_profile("haskd_jax")


@pytest.fixture
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture
def unchecked_annotations():
    """Users run without the tests' type checker: what refuses, or is let pass, is the package."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
