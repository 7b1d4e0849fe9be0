"""Errors that name the argument, its value and the way out.

Shapes are static and always checked. Values can be read outside of `jax.jit` only: while tracing,
these checks pass, and the functions mask what would have been refused.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

# Poses in text files carry six digits; a pose that is scaled or mirrored is off by far more.
RIGID_TOLERANCE = 0.02  # as `data` has it: poses of text files, averaged or interpolated


def known(*arrays: ArrayLike) -> bool:
    """Whether the values can be looked at: not while tracing, nor if they lie on other hosts."""
    return not any(
        isinstance(array, jax.core.Tracer) or not getattr(array, "is_fully_addressable", True)
        for array in arrays
    )


def check_shape(name: str, array: ArrayLike, expected: tuple[int | None, ...]) -> None:
    """None stands for any size."""
    shape = np.shape(array)
    fits = len(shape) == len(expected) and all(
        want is None or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(
            f"{name} has shape {shape}, expected ({wanted}) to fit the other arguments"
        )


def to_f32(*arrays: ArrayLike) -> list[Float[Array, "..."]]:
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def to_mask(name: str, mask: ArrayLike | None, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    if mask is None:
        return jnp.ones(shape, bool)
    mask = jnp.asarray(mask)
    check_shape(name, mask, shape)
    if mask.dtype != bool:
        raise ValueError(f"{name} has dtype {mask.dtype}, expected bool: True for what counts")
    return mask


def check_range(
    name: str,
    values: ArrayLike,
    low: int | float,
    high: int | float,
    where: ArrayLike | None = None,
) -> None:
    """Refuses values outside of [low, high], and NaN; what `where` masks may hold anything."""
    if known(values) and (where is None or known(where)):
        values = np.asarray(values)
        values = values if where is None else values[np.asarray(where)]
        wrong = values[~((values >= low) & (values <= high))]
        if wrong.size:
            raise ValueError(
                f"{name} holds {wrong[0]} ({wrong.size} of {values.size} values are outside of "
                f"[{low:g}, {high:g}])"
            )


def check_positive(name: str, value: ArrayLike) -> None:
    if known(value) and not 0 < float(np.asarray(value)) < float("inf"):
        raise ValueError(f"{name} is {value}, expected a positive finite number")


def check_cameras(intrinsics: ArrayLike, camera_to_world: ArrayLike) -> None:
    """Refuses singular intrinsics and poses that are not rigid.

    A pose with inf or NaN says that the frame is lost, or padding: all of it passes.
    """
    if not known(intrinsics, camera_to_world):
        return
    intrinsics = np.asarray(intrinsics, np.float64).reshape(-1, 3, 3)
    poses = np.asarray(camera_to_world, np.float64).reshape(-1, 4, 4)
    for frame in np.flatnonzero(np.isfinite(poses).all((1, 2))):
        matrix, pose = intrinsics[frame], poses[frame]
        focal = matrix[[0, 1], [0, 1]]
        if not np.isfinite(matrix).all() or (focal <= 0).any():
            raise ValueError(
                f"intrinsics of frame {frame} are {matrix.tolist()}, expected positive finite "
                "focal lengths (a frame that is padding has a pose of inf)"
            )
        if matrix[1, 0] != 0 or matrix[2].tolist() != [0, 0, 1]:
            raise ValueError(
                f"intrinsics of frame {frame} are {matrix.tolist()}, expected "
                "[[fx, s, cx], [0, fy, cy], [0, 0, 1]]"
            )
        rotation = pose[:3, :3]
        off = abs(rotation.T @ rotation - np.eye(3)).max(), abs(pose[3] - [0, 0, 0, 1]).max()
        if max(off) > RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
            raise ValueError(
                f"camera_to_world of frame {frame} is {pose.tolist()}, expected a rigid pose: a "
                "rotation and a translation above [0, 0, 0, 1], or inf where the pose is lost"
            )
