"""Checks of arguments, with errors that name the argument and its value."""

from types import EllipsisType

import jax
import jax.numpy as jnp
import numpy as np

AnyArray = jax.Array | np.ndarray  # what array arguments may be
_MOST = 2**30  # rows, strides: their sums stay within int32
_KINDS = {"f": "floating point", "iu": "integer", "b": "boolean"}


def array(
    name: str, value, *, shape: tuple[int | EllipsisType | None, ...], kinds: str
) -> jax.Array:
    """The value as a JAX array, where its shape (None: any size) and kind of dtype are right."""
    value = value if hasattr(value, "dtype") else np.asarray(value)
    given = np.shape(value)
    wanted = shape[1:] if shape[0] is ... else shape
    sizes = given[len(given) - len(wanted) :] if shape[0] is ... else given
    fits = len(sizes) == len(wanted) and all(
        w is None or w == s for w, s in zip(wanted, sizes, strict=True)
    )
    if not fits:
        text = ", ".join("..." if s is ... else "N" if s is None else str(s) for s in shape)
        raise ValueError(f"{name} has shape {list(given)}: must be [{text}]")
    dtype = jnp.result_type(value)
    kind = {"f": jnp.floating, "iu": jnp.integer, "b": jnp.bool_}[kinds]
    if not jnp.issubdtype(dtype, kind):
        raise ValueError(f"{name} has dtype {dtype}: must be {_KINDS[kinds]}")
    if isinstance(value, np.ndarray) and dtype.itemsize < value.dtype.itemsize and kinds == "iu":
        # JAX narrows int64 silently unless x64 is on.
        limit = jnp.iinfo(dtype)
        if value.size and (value.min() < limit.min or value.max() > limit.max):
            raise ValueError(
                f"{name} holds values from {value.min()} to {value.max()}: beyond {dtype}"
            )
    array = jnp.asarray(value)
    return _to_int32(array) if kinds == "iu" else array


def _to_int32(array: jax.Array) -> jax.Array:
    """Any integers as int32; what it cannot hold becomes its smallest, which names nothing."""
    limit = jnp.iinfo(jnp.int32)
    if jnp.iinfo(array.dtype).max <= limit.max:
        return array.astype(jnp.int32)
    fits = array <= jnp.asarray(limit.max, array.dtype)
    if jnp.issubdtype(array.dtype, jnp.signedinteger):
        fits = fits & (array >= jnp.asarray(limit.min, array.dtype))
    return jnp.where(fits, array.astype(jnp.int32), limit.min)


def size(name: str, value: int) -> None:
    """Refuses what is no positive whole number, or beyond what rows are counted to."""
    if not isinstance(value, (int, np.integer)) or not 1 <= value <= _MOST:
        raise ValueError(f"{name}={value!r}: must be a whole number from 1 to {_MOST}")


def length(name: str, value) -> jax.Array:
    """A length as a scalar, in float64 where that is on, else float32; checked where it is known.

    Rounded to float32, 0.05 would put float64 points on borders into other voxels.
    """
    if np.shape(value) != ():
        raise ValueError(f"{name} has shape {list(np.shape(value))}: must be one number")
    if is_concrete(value):
        number = np.asarray(value)
        with np.errstate(over="ignore"):
            fits = number.dtype.kind in "fiu" and 0 < np.float32(number) < np.inf
        if not fits:
            raise ValueError(f"{name}={value!r}: must be a positive, finite length")
    return jnp.asarray(value, float)


def mask(name: str, value, count: int) -> jax.Array:
    """The mask as a JAX array; all True where there is none."""
    if value is None:
        return jnp.ones(count, bool)
    return array(name, value, shape=(count,), kinds="b")


def is_concrete(value) -> bool:
    """Whether the value is known now, outside of `jit` and other transforms."""
    return not isinstance(value, jax.core.Tracer)
