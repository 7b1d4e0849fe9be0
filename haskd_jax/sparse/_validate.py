"""Checks of arguments, with errors that name the argument and its value."""

from types import EllipsisType

import jax
import jax.numpy as jnp
import numpy as np

AnyArray = jax.Array | np.ndarray  # what array arguments may be
_KINDS = {"f": "floating point", "iu": "integer", "b": "boolean"}


def array(
    name: str, value, *, shape: tuple[int | EllipsisType | None, ...], kinds: str
) -> jax.Array:
    """The value as a JAX array, where its shape (None: any size) and kind of dtype are right."""
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
    return jnp.asarray(value)


def mask(name: str, value, count: int) -> jax.Array:
    """The mask as a JAX array; all True where there is none."""
    if value is None:
        return jnp.ones(count, bool)
    return array(name, value, shape=(count,), kinds="b")


def is_concrete(value) -> bool:
    """Whether the value is known now, outside of `jit` and other transforms."""
    return not isinstance(value, jax.core.Tracer)
