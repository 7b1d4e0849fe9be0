"""The native CPU kernels: found, loaded and registered with XLA once, where they exist."""

import ctypes
import functools
import importlib.util
import logging
import os

import jax
import jax.numpy as jnp

_log = logging.getLogger("haskd_jax")
_TARGETS = (
    *(f"haskd_{op}_{dtype}" for dtype in ("f32", "f64") for op in (
        "conv", "conv_weight_grad", "segment_sum", "gather_rows", "weighted_rows", "spread_rows",
        "moments", "normalize", "norm_gradient_sums", "norm_gradient")),
    "haskd_voxelize",
    "haskd_build_table",
    "haskd_lookup",
    "haskd_neighbours",
    "haskd_jaccard_weights",
)  # fmt: skip
_INSTRUCTION_SETS = ("generic", "avx2", "avx512")


@functools.cache
def native_available() -> bool:
    """Whether the native CPU kernels are loaded; the first call loads them.

    The environment variable `HASKD_JAX_NATIVE` set to `0` leaves them out, set to a path names the
    library to load. Where they are missing or do not load, one log line says so, and the portable
    implementation gives the same results, more slowly.

    Returns:
      True where `implementation="native"` can be asked for.

    Raises:
      ValueError: where the environment variable `HASKD_JAX_ISA` names no instruction set.

    Example:
      >>> native_available() in (True, False)
      True
    """
    path = os.environ.get("HASKD_JAX_NATIVE")
    instruction_set = os.environ.get("HASKD_JAX_ISA")  # read by the library itself
    if instruction_set not in (None, *_INSTRUCTION_SETS):
        raise ValueError(
            f"HASKD_JAX_ISA={instruction_set!r}: must be one of {', '.join(_INSTRUCTION_SETS)}, or "
            f"unset for the best that this machine has"
        )
    try:
        if path == "0":
            raise OSError("HASKD_JAX_NATIVE=0")
        library = ctypes.CDLL(path or _installed_library())
        for name in _TARGETS:
            handler = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
    except (OSError, AttributeError, RuntimeError) as error:
        _log.warning("native CPU kernels not loaded (%s): portable implementation in use", error)
        return False
    return True


def _installed_library() -> str:
    spec = importlib.util.find_spec("haskd_jax._native")
    if spec is None or spec.origin is None:
        raise OSError("not built: no C++ compiler was found when haskd_jax was installed")
    return spec.origin


def call(
    name: str, result: jax.ShapeDtypeStruct | tuple[jax.ShapeDtypeStruct, ...], *args, **attributes
):
    """Calls a native kernel. Under `vmap` it runs once for each element, in turn."""
    # Under shard_map the results vary over the mesh axes that the arguments, all alike, vary over.
    first = jax.typeof(args[0])
    if first.manual_axis_type.varying:
        sharding = jax.NamedSharding(first.sharding.mesh, jax.P())
        result = jax.tree.map(
            lambda r: jax.ShapeDtypeStruct(
                r.shape, r.dtype, sharding=sharding, manual_axis_type=first.manual_axis_type
            ),
            result,
        )
    return jax.ffi.ffi_call(name, result, vmap_method="sequential")(*args, **attributes)


def call_float(name: str, shape: tuple[int, ...], floats: tuple[jax.Array, ...], *others):
    """Calls a kernel that exists for float32 and float64; narrower floats are widened around it.

    Args:
      name: of the kernel, without the dtype.
      shape: of the one result, whose dtype is that of `floats`.
      floats: first arguments, all of one dtype.
      others: further arguments.
    """
    (result,) = call_wide(name, (shape,), *floats, *others)
    return result.astype(floats[0].dtype)


def call_wide(name: str, shapes: tuple[tuple[int, ...], ...], *arrays, **attributes):
    """Calls a kernel of several results that exists for float32 and float64.

    Args:
      name: of the kernel, without the dtype.
      shapes: of the results, which are float32 or float64.
      arrays: arguments, the first one of floats; narrower floats are widened.
      attributes: of the kernel.
    """
    wide = sum_dtype(arrays[0].dtype)
    widened = (a.astype(wide) if jnp.issubdtype(a.dtype, jnp.floating) else a for a in arrays)
    results = tuple(jax.ShapeDtypeStruct(shape, wide) for shape in shapes)
    return tuple(call(f"{name}_{suffix(wide)}", results, *widened, **attributes))


def suffix(dtype: jnp.dtype) -> str:
    """What the names of kernels for `dtype` end in."""
    return {"float32": "f32", "float64": "f64"}[dtype.name]


def sum_dtype(dtype) -> jnp.dtype:
    """What sums of `dtype` are formed in: float64 for float64, float32 for narrower floats."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
