"""The images of 2D-3D-S that belong to an S3DIS room."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haskd_jax.data.errors import DataError
from haskd_jax.data.frame_folder import depth_camera, millimetres
from haskd_jax.data.images import Size, read_colour, read_grey, sample_nearest, scale_intrinsics
from haskd_jax.data.prepared import read_json
from haskd_jax.data.scene import Frame

Array = np.ndarray

_UNITS_PER_METRE = 512.0
_NATIVE = (1080, 1080)
_POSE = re.compile(r"(camera_[0-9a-f]+)_+(\w+?_\d+)_frame_(\w+)_domain_+pose\.json")
_FOLDERS = {"Area_5": ("area_5a", "area_5b")}
# Cameras of area 5b are in coordinates of their own (DeepViewAgg, multimodal/s3dis.py): a quarter
# turn and a shift bring them to those of the clouds.
AREA_5B_TO_CLOUD = np.array([[0.0, 1, 0, -4.10], [-1, 0, 0, 6.25], [0, 0, 1, 0], [0, 0, 0, 1]])


@dataclass(frozen=True)
class RoomImage:
    """One image of a room.

    Attributes:
        name: Camera and frame.
        colour: The colour image.
        depth: The depth image.
        pose: The file of the camera.
        quarter_turn: Whether it is of area 5b.
    """

    name: str
    colour: Path
    depth: Path
    pose: Path
    quarter_turn: bool

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """All its files."""
        return self.colour, self.depth, self.pose


def room_images(root: Path, area: str, room: str) -> list[RoomImage]:
    """Finds a room's images.

    Args:
        root: The root of 2D-3D-S.
        area: `Area_1` to `Area_6`.
        room: `office_1` and so on.

    Returns:
        The images in the order of camera and frame.

    Raises:
        DataError: The area's folder, or the colour or depth of a pose, is missing.
    """
    images = []
    for folder in _FOLDERS.get(area, (area.lower(),)):
        data = root / folder / "data"
        if not (data / "pose").is_dir():
            raise DataError(data / "pose", "missing: download this area of 2D-3D-S")
        # Areas 5a and 5b share the rooms between them; so a room may have none in one.
        for pose in sorted((data / "pose").glob(f"camera_*_{room}_frame_*_domain*pose.json")):
            match = _POSE.fullmatch(pose.name)
            if match is None or match[2] != room:
                continue
            stem = pose.name.removesuffix("pose.json")
            image = RoomImage(
                name=f"{match[1]}_{match[3]}",
                colour=data / "rgb" / f"{stem}rgb.png",
                depth=data / "depth" / f"{stem}depth.png",
                pose=pose,
                quarter_turn=folder == "area_5b",
            )
            for file in image.files:
                if not file.is_file():
                    raise DataError(file, f"missing, but {pose.name} is there")
            images.append(image)
    return images


def read_camera(image: RoomImage) -> tuple[Array, Array]:
    """Reads a camera.

    Args:
        image: The image.

    Returns:
        [3, 3] intrinsics and [4, 4] camera-to-world in the coordinates of the clouds.

    Raises:
        DataError: Damaged.
    """
    value: Any = read_json(image.pose)
    try:
        k = np.array(value["camera_k_matrix"], np.float64)
        # Stored is world-to-camera, 3x4.
        world_to_camera = np.eye(4)
        world_to_camera[:3] = np.array(value["camera_rt_matrix"], np.float64)[:3]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(image.pose, f"no camera of 2D-3D-S ({error!r})") from error
    if k.shape != (3, 3) or not np.isfinite(k).all() or not np.isfinite(world_to_camera).all():
        raise DataError(image.pose, "a camera that is not finite, or no 3x3 matrix")
    rotation, shift = world_to_camera[:3, :3], world_to_camera[:3, 3]
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ shift
    return k, AREA_5B_TO_CLOUD @ pose if image.quarter_turn else pose


def read_room_frames(images: Sequence[RoomImage], size: Size) -> Iterator[Frame]:
    """Reads a room's images one by one.

    Args:
        images: From `room_images`.
        size: Width and height of the frames.

    Yields:
        Frames; depth is in millimetres, 0 where 2D-3D-S says missing.

    Raises:
        DataError: Damaged, or of another size than 1080x1080.
    """
    for image in images:
        native_k, pose = read_camera(image)
        colour, native = read_colour(image.colour, size)
        if native != _NATIVE:
            raise DataError(image.colour, f"size {native}, expected {_NATIVE}")
        depth = read_grey(image.depth)
        k = scale_intrinsics(native_k, native, size)
        depth_k = depth_camera(None, native_k, native, depth.shape[::-1], image.depth)
        yield Frame(
            name=image.name,
            colour=colour,
            depth=millimetres(sample_nearest(depth, depth_k, k, size), _UNITS_PER_METRE),
            intrinsics=k,
            camera_to_world=pose,
        )
