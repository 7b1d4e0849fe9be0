"""What every loss does with its arguments: dtype, shapes, masks and checks."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, ScalarLike, Shaped


def to_float(*arrays: ArrayLike) -> list[Array]:
    """The arrays in the dtype to compute in: f64 if one of them is f64, else f32."""
    converted = [jnp.asarray(array) for array in arrays]
    wide = any(array.dtype == jnp.float64 for array in converted)
    return [array.astype(jnp.float64 if wide else jnp.float32) for array in converted]


def zero_rows(rows: Shaped[Array, "*V C"], where: Bool[Array, "*V"]) -> Shaped[Array, "*V C"]:
    """The rows, with zeros where `where` is False.

    A loss does this before it computes and masks its result again afterwards: one mask alone would
    turn a NaN in an excluded row into a NaN gradient (0 * NaN).
    """
    return jnp.where(where[..., None], rows, jnp.zeros_like(rows))


def known(array: ArrayLike) -> bool:
    """Whether the values can be looked at: not while tracing, nor if they lie on other hosts."""
    return not isinstance(array, Tracer) and getattr(array, "is_fully_addressable", True)


def check_shape(name: str, array: Array, expected: tuple[int, ...], reason: str) -> None:
    if array.shape != expected:
        raise ValueError(f"{name} has shape {array.shape}, expected {expected}: {reason}")


def to_mask(where: ArrayLike | None, shape: tuple[int, ...]) -> Bool[Array, "*V"]:
    if where is None:
        return jnp.ones(shape, bool)
    where = jnp.asarray(where)
    check_shape("where", where, shape, "one value per voxel")
    if where.dtype != bool:
        raise ValueError(f"where has dtype {where.dtype}, expected bool: True for rows that count")
    return where


def to_labels(
    labels: ArrayLike, shape: tuple[int, ...], num_classes: int
) -> tuple[Array, Bool[Array, "*V"]]:
    """Labels as i32, and whether each is in [-1, num_classes); raises if known not to be."""
    given, labels = labels, jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels has dtype {labels.dtype}, expected integers in [-1, {num_classes})"
        )
    check_shape("labels", labels, shape, "one label per voxel")
    if known(given):
        values = np.asarray(given)
        wrong = values[(values < -1) | (values >= num_classes)]
        if wrong.size:
            raise ValueError(
                f"labels holds {wrong[0]} ({wrong.size} of {values.size} voxels are outside "
                f"[-1, {num_classes})): give voxels to be ignored the label -1"
            )
    labels = labels.astype(jnp.int32)
    return labels, (labels >= -1) & (labels < num_classes)


def check_positive(name: str, value: ScalarLike) -> None:
    if np.shape(value) != ():
        raise ValueError(f"{name} has shape {np.shape(value)}, expected one number")
    if known(value) and not 0 < np.asarray(value) < np.inf:
        raise ValueError(f"{name} is {value}, expected a positive finite number")


def check_not_negative(name: str, value: ArrayLike) -> None:
    if known(value):
        values = np.asarray(value, np.float64)
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{name} is {value}, expected finite numbers >= 0")


def check_feature_rows(student: Array, teacher: Array) -> None:
    """Features of student and teacher may differ in width, not in voxels."""
    if teacher.shape[:-1] != student.shape[:-1]:
        raise ValueError(
            f"teacher_features has shape {teacher.shape} and student_features {student.shape}: "
            "all axes but the last must agree"
        )


def scaled(logits: Float[Array, "*V C"], temperature: ScalarLike) -> Float[Array, "*V C"]:
    return logits / jnp.asarray(temperature, logits.dtype)
