"""A student as one file that runs where this package is not installed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Bool, Float, Float32, Int32, PyTree, UInt8

from haskd_jax import sparse
from haskd_jax.data.fragments import padded
from haskd_jax.train.inputs import Inputs
from haskd_jax.train.networks import Network

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class PointLabels(NamedTuple):
    """What the exported function returns.

    Attributes:
        label: [P] class of every point, -1 for padding.
        confidence: [P] its probability, 0 for padding.
        overflow: [] voxels that did not fit; above 0 the labels are worth less.
    """

    label: Int32[Array, " P"]
    confidence: Float32[Array, " P"]
    overflow: Int32[Array, ""]


def label_points(
    network: Network,
    params: PyTree,
    state: PyTree,
    points: Float32[Array, "P 3"],
    colour: UInt8[Array, "P 3"],
    normals: Float32[Array, "P 3"],
    count: Int32[Array, ""],
    *,
    capacity: tuple[int, ...],
) -> PointLabels:
    """From a cloud to its labels, as `prediction.predict_scene` does it uncut. Jittable.

    Args:
        network: A student.
        params: Its parameters.
        state: Its running statistics.
        points: [P, 3] metres, z up; rows from `count` on are padding.
        colour: [P, 3] RGB.
        normals: [P, 3] of unit length.
        count: [] how many points there are.
        capacity: Rows of every grid, finest first. Static.

    Returns:
        The labels.
    """
    mask = jnp.arange(len(points), dtype=jnp.int32) < count
    points = _centred(points, mask)
    size = network.card.voxel_size
    grid, row = sparse.voxelize(points, voxel_size=size, capacity=capacity[0], mask=mask)
    speaker = _nearest_to_centre(points, grid, row, size)
    colour = colour[speaker].astype(jnp.float32) / 127.5 - 1
    features = jnp.concatenate([colour, normals[speaker]], axis=1)
    features = jnp.where(grid.mask[:, None], features, 0)
    maps = sparse.pyramid(grid, capacities=capacity[1:])
    output, _ = network.forward(params, state, Inputs(grid, maps, features, None), train=False)
    probabilities = jax.nn.softmax(output.logits)
    held = row >= 0
    label = jnp.argmax(probabilities, axis=1).astype(jnp.int32)
    return PointLabels(
        jnp.where(held, label[row], -1),
        jnp.where(held, jnp.max(probabilities, axis=1)[row], 0),
        maps.overflow,
    )


def _centred(points: Float[Array, "P 3"], mask: Bool[Array, " P"]) -> Float[Array, "P 3"]:
    """As `data.transforms.centre_shift`."""
    valid = mask[:, None]
    low = jnp.min(jnp.where(valid, points, jnp.inf), axis=0)
    high = jnp.max(jnp.where(valid, points, -jnp.inf), axis=0)
    shift = jnp.where(jnp.array([True, True, False]), (low + high) / 2, low)
    return jnp.where(valid, points - shift[None], 0)


def _nearest_to_centre(
    points: Float[Array, "P 3"], grid: sparse.VoxelGrid, row: Int32[Array, " P"], size: float
) -> Int32[Array, " V"]:
    """Of every voxel the point that speaks for it, the first of the nearest to its centre."""
    capacity, number = grid.capacity, jnp.arange(len(points), dtype=jnp.int32)
    voxel = grid.coords[row, 1:].astype(jnp.float32)
    offset = points - (voxel + 0.5) * jnp.float32(size)
    distance = jnp.sum(offset * offset, axis=1)
    segment = jnp.where(row >= 0, row, capacity)  # past the end: dropped
    nearest = jax.ops.segment_min(distance, segment, capacity)
    candidate = jnp.where(distance == nearest[row], number, len(points) - 1)
    first = jax.ops.segment_min(candidate, segment, capacity)
    return jnp.clip(first, 0, len(points) - 1)


def export_student(
    network: Network,
    params: PyTree,
    state: PyTree,
    *,
    points: int,
    platforms: Sequence[str],
) -> tuple[bytes, dict[str, Any]]:
    """Exports `label_points` with its weights inside.

    Run it in a process that was started with HASKD_JAX_NATIVE=0, as `haskd export` does: the native
    CPU kernels belong to this package, and the file must run without it.

    Args:
        network: A student.
        params: Its parameters.
        state: Its running statistics.
        points: P, how many points fit.
        platforms: Of "cpu", "cuda", "rocm", "tpu"; none of them need be here.

    Returns:
        The bytes for `jax.export.deserialize`; and what to know of them, plain JSON values.

    Raises:
        ValueError: A teacher, an unknown platform, or native kernels that are loaded.
    """
    card = network.card
    if card.kind != "student":
        raise ValueError("network: a teacher needs images; export the student that it taught")
    if points < 1:
        raise ValueError(f"points: {points}, expected 1 or more")
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"platforms: {', '.join(unknown) or 'none'}; there are {PLATFORMS}")
    if sparse.native_available():
        raise ValueError(
            "HASKD_JAX_NATIVE: the native kernels are loaded, and the file would not run without "
            "this package: set it to 0 before the process starts, or use haskd export"
        )
    capacity = padded(np.array([points] + [1] * network.levels))

    @jax.jit
    def exported(points, colour, normals, count):
        return tuple(
            label_points(network, params, state, points, colour, normals, count, capacity=capacity)
        )

    shapes = {
        "points": jax.ShapeDtypeStruct((points, 3), jnp.float32),
        "colour": jax.ShapeDtypeStruct((points, 3), jnp.uint8),
        "normals": jax.ShapeDtypeStruct((points, 3), jnp.float32),
        "count": jax.ShapeDtypeStruct((), jnp.int32),
    }
    made = export.export(exported, platforms=tuple(platforms))(*shapes.values())
    about = {
        "format": "haskd-export",
        "version": 1,
        "dataset": card.dataset,
        "classes": list(card.classes),
        "voxel_size": card.voxel_size,
        "capacity": list(capacity),
        "platforms": list(platforms),
        "inputs": {
            name: {"shape": list(shape.shape), "dtype": str(shape.dtype)}
            for name, shape in shapes.items()
        },
        "outputs": list(PointLabels._fields),
        "jax": jax.__version__,
    }
    return bytes(made.serialize()), about
