"""What a scene is: a labelled cloud and its posed frames, as plain NumPy arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int16, Int32, UInt8, UInt16
from numpy.typing import DTypeLike

Array = np.ndarray

# float32 resolves 1 mm up to 8 km; nothing indoors is further from its origin.
_LARGEST_COORDINATE = 8192.0
_ROTATION_TOLERANCE = 0.02


@dataclass(frozen=True)
class Cloud:
    """A point cloud as a reader found it.

    Attributes:
        points: [N, 3] float32, metres.
        colour: [N, 3] uint8 RGB, or None where the source has none.
        normals: [N, 3] float32 of unit length; a zero row means unknown. None where the source
            has none.
        label: [N] int32 class, -1 ignored, or None (a scene without labels).
        instance: [N] int32 instance, -1 none, or None.
    """

    points: Array
    colour: Array | None = None
    normals: Array | None = None
    label: Array | None = None
    instance: Array | None = None


@dataclass(frozen=True)
class Frame:
    """One posed RGB-D image; the camera looks along +z, x right, y down.

    Attributes:
        name: What the source calls it; unique within the scene.
        colour: [H, W, 3] uint8 RGB.
        depth: [H, W] uint16, z-depth in millimetres, 0 where unknown; registered to the colour.
        intrinsics: [3, 3]; the centre of the first pixel is (0, 0).
        camera_to_world: [4, 4], metres.
        label: [H, W] int16 class of every pixel, -1 ignored, or None.
    """

    name: str
    colour: UInt8[Array, "H W 3"]
    depth: UInt16[Array, "H W"]
    intrinsics: Float[Array, "3 3"]
    camera_to_world: Float[Array, "4 4"]
    label: Int16[Array, "H W"] | None = None


@dataclass(frozen=True)
class Frames:
    """All frames of a scene, stacked; the fields are those of `Frame`, with F in front.

    Attributes:
        names: F names.
        colour: [F, H, W, 3] uint8.
        depth: [F, H, W] uint16, millimetres.
        intrinsics: [F, 3, 3] float32.
        camera_to_world: [F, 4, 4] float32.
        label: [F, H, W] int16, or None.
    """

    names: tuple[str, ...]
    colour: UInt8[Array, "F H W 3"]
    depth: UInt16[Array, "F H W"]
    intrinsics: Float32[Array, "F 3 3"]
    camera_to_world: Float32[Array, "F 4 4"]
    label: Int16[Array, "F H W"] | None = None

    def __len__(self) -> int:
        """The number of frames F."""
        return len(self.names)


def no_frames() -> Frames:
    """The frames of a scene that has none.

    Example:
        >>> len(no_frames())
        0
    """
    return Frames(
        names=(),
        colour=np.zeros((0, 0, 0, 3), np.uint8),
        depth=np.zeros((0, 0, 0), np.uint16),
        intrinsics=np.zeros((0, 3, 3), np.float32),
        camera_to_world=np.zeros((0, 4, 4), np.float32),
    )


@dataclass(frozen=True)
class Scene:
    """A prepared scene: every array in its final type, memory-mapped when it was read from disk.

    Attributes:
        name: The scene's name.
        points: [N, 3] float32, metres.
        colour: [N, 3] uint8 RGB.
        normals: [N, 3] float32, unit length.
        label: [N] int32, -1 ignored, or None.
        instance: [N] int32, -1 none, or None.
        frames: The posed frames, possibly none.
        manifest: Source, options, counts and drops, as `manifest.json` holds them.
    """

    name: str
    points: Float32[Array, "N 3"]
    colour: UInt8[Array, "N 3"]
    normals: Float32[Array, "N 3"]
    label: Int32[Array, " N"] | None = None
    instance: Int32[Array, " N"] | None = None
    frames: Frames = field(default_factory=no_frames)
    manifest: Mapping[str, Any] = field(default_factory=dict)


def check_cloud(cloud: Cloud) -> None:
    """Refuses a cloud whose arrays do not fit together.

    Args:
        cloud: The cloud, without non-finite points.

    Raises:
        ValueError: Names the array and what is wrong with it.

    Example:
        >>> check_cloud(Cloud(points=np.zeros((0, 3), np.float32)))
        Traceback (most recent call last):
        ...
        ValueError: points: the cloud is empty
    """
    points = cloud.points
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points: shape {points.shape}, expected [N, 3]")
    count = len(points)
    if count == 0:
        raise ValueError("points: the cloud is empty")
    if not np.isfinite(points).all():
        raise ValueError("points: not finite")
    largest = float(np.abs(points).max())
    if largest > _LARGEST_COORDINATE:
        raise ValueError(
            f"points: a coordinate of {largest:.6g} m cannot be kept to a millimetre in float32; "
            "subtract an offset, or give the unit's scale if these are not metres"
        )
    for name, width in (("colour", 3), ("normals", 3), ("label", 0), ("instance", 0)):
        array = getattr(cloud, name)
        expected = (count, width) if width else (count,)
        if array is not None and array.shape != expected:
            raise ValueError(f"{name}: shape {array.shape} for {count} points, expected {expected}")
    if cloud.colour is not None:
        check_integers("colour", cloud.colour, np.uint8)
    for name in ("label", "instance"):
        array = getattr(cloud, name)
        if array is not None:
            check_integers(name, array, np.int32)
            if array.min() < -1:
                raise ValueError(f"{name}: {array.min()} is below -1 (none)")


def check_integers(name: str, array: Array, dtype: DTypeLike) -> None:
    """Refuses what would not be the same numbers in an array of integers.

    Args:
        name: What an error names.
        array: Any array.
        dtype: Of integers.

    Raises:
        ValueError: Floating point, or beyond what `dtype` holds.

    Example:
        >>> check_integers("depth", np.array([0.5, 2.0]), np.uint16)
        Traceback (most recent call last):
        ...
        ValueError: depth: float64, expected uint16
    """
    kept = np.dtype(dtype)
    if array.dtype == kept:
        return
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: {array.dtype}, expected {kept}")
    low, high, info = array.min(initial=0), array.max(initial=0), np.iinfo(kept)
    if low < info.min or high > info.max:
        raise ValueError(f"{name}: values from {low} to {high}, expected {kept}")


def finite_cloud(cloud: Cloud) -> tuple[Cloud, int]:
    """Leaves out points with NaN or infinite coordinates, which scanners write for "no return".

    Args:
        cloud: Any cloud whose arrays have one row a point.

    Returns:
        The cloud of the finite points, and how many were left out.

    Example:
        >>> cloud, dropped = finite_cloud(Cloud(np.array([[0, 0, 0], [0, np.nan, 0]])))
        >>> len(cloud.points), dropped
        (1, 1)
    """
    keep = np.isfinite(cloud.points).all(axis=1)
    if keep.all():
        return cloud, 0

    def rows(array: Array | None) -> Array | None:
        return None if array is None else array[keep]

    kept = Cloud(
        points=cloud.points[keep],
        colour=rows(cloud.colour),
        normals=rows(cloud.normals),
        label=rows(cloud.label),
        instance=rows(cloud.instance),
    )
    return kept, int((~keep).sum())


def pose_fault(camera_to_world: Float[Array, "4 4"]) -> str | None:
    """Says what is wrong with a pose, if anything.

    Args:
        camera_to_world: [4, 4].

    Returns:
        None for a rigid motion, else the reason in words: ScanNet writes -inf for a frame whose
        tracking was lost (github.com/ScanNet/ScanNet/issues/9).

    Example:
        >>> pose_fault(np.eye(4)) is None
        True
        >>> pose_fault(np.full((4, 4), -np.inf))
        'pose is not finite'
    """
    if not np.isfinite(camera_to_world).all():
        return "pose is not finite"
    rotation = np.asarray(camera_to_world, np.float64)[:3, :3]
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if error > _ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        return "pose is not a rotation and a shift"
    return None
