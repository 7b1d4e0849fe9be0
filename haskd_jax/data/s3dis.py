"""S3DIS rooms from their text files, with the images of 2D-3D-S."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haskd_jax.data.errors import DataError
from haskd_jax.data.s3dis_images import read_room_frames, room_images
from haskd_jax.data.s3dis_text import read_points
from haskd_jax.data.scene import Array, Cloud, Frame
from haskd_jax.data.writer import SceneWriter

CLASSES = (
    "ceiling",
    "floor",
    "wall",
    "beam",
    "column",
    "window",
    "door",
    "table",
    "chair",
    "sofa",
    "bookcase",
    "board",
    "clutter",
)
AREAS = tuple(f"Area_{i}" for i in range(1, 7))
_CLUTTER = CLASSES.index("clutter")
_ANNOTATION = re.compile(r"([A-Za-z]+)_(\d+)\.txt")
# Their clouds lie turned by 180 degrees against their images (DeepViewAgg, multimodal/s3dis.py).
_TURNED = ("Area_2/hallway_11", "Area_5/hallway_6")
_WRONG_COLOUR = ("Area_1/WC_1", "Area_6/hallway_2")


def fold(test_area: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """One of the six folds: five areas to train on and one to test on.

    Area 5 is the usual test area. The 6-fold score sums intersections and unions over the six
    test areas, and then divides.

    Args:
        test_area: 1 to 6.

    Returns:
        The splits to train on, and the split to test on, as `list_scenes` takes them.

    Raises:
        ValueError: No such area.

    Example:
        >>> fold(5)
        (('Area_1', 'Area_2', 'Area_3', 'Area_4', 'Area_6'), ('Area_5',))
    """
    if not 1 <= test_area <= 6:
        raise ValueError(f"test_area: {test_area}, there are 1 to 6")
    test = f"Area_{test_area}"
    return tuple(area for area in AREAS if area != test), (test,)


@dataclass(frozen=True)
class S3DIS:
    """S3DIS, aligned (`..._Aligned_Version`) or not (`Stanford3dDataset_v1.2`).

    Attributes:
        raw: The folder that holds `Area_1` to `Area_6`, or some of them.
        images: The root of 2D-3D-S (`area_1`, ..., `area_5a`, `area_5b`, `area_6`), if rooms are
            to have frames. Needs the unaligned release, in whose coordinates the cameras are.
        frame_stride: Every how many-th image of a room is kept.
        frame_size: Width and height of the frames kept.
    """

    raw: Path
    images: Path | None = None
    frame_stride: int = 4
    frame_size: tuple[int, int] = (270, 270)

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return "s3dis"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels 0, 1, ..."""
        return CLASSES

    def _rooms(self) -> dict[str, Path]:
        if not self.raw.is_dir():
            raise DataError(self.raw, "is no folder")
        rooms = {
            f"{folder.parent.name}_{folder.name}": folder
            for area in AREAS
            for folder in sorted((self.raw / area).glob("*"))
            if folder.is_dir() and not folder.name.startswith(".")
        }
        if not rooms:
            raise DataError(
                self.raw, "holds no rooms: expected Area_1/<room>/Annotations/<class>_<n>.txt"
            )
        return rooms

    def scenes(self) -> dict[str, str]:
        """The rooms that are on disk, by name (`Area_1_office_1`), with their area as split."""
        if self.images and not self.images.is_dir():
            raise DataError(self.images, "is no folder")
        return {name: folder.parent.name for name, folder in self._rooms().items()}

    def recipe(self, name: str) -> dict[str, Any]:
        """All options that decide a scene's prepared bytes: the same for every scene."""
        return {
            "images": self.images is not None,
            "frame_stride": self.frame_stride,
            "frame_size": list(self.frame_size),
        }

    def read(self, name: str, writer: SceneWriter) -> None:
        """Reads one room into the prepared form.

        Args:
            name: One of `scenes()`.
            writer: Where it goes.

        Raises:
            DataError: A file is missing or damaged beyond the known faults.
        """
        folder = self._rooms()[name]
        room = f"{folder.parent.name}/{folder.name}"
        if self.images:
            for frame in self._frames(folder, writer):
                writer.add_frame(frame)
        cloud = self._cloud(folder, writer)
        if room in _WRONG_COLOUR:
            writer.notes.append(f"{room}: the release has wrong colours for this room")
        if self.images and room in _TURNED:
            cloud = _half_turn(cloud)
            writer.notes.append(f"{room}: turned by 180 degrees about z to match its images")
        writer.add_cloud(cloud)

    def _cloud(self, folder: Path, writer: SceneWriter) -> Cloud:
        annotations = folder / "Annotations"
        if not annotations.is_dir():
            raise DataError(annotations, "missing")
        parts: list[tuple[Array, Array]] = []
        labels: list[int] = []
        for file in sorted(annotations.iterdir(), key=lambda file: file.name):
            match = _ANNOTATION.fullmatch(file.name)
            if match is None or not file.is_file():
                if not file.name.startswith("."):
                    writer.notes.append(f"{folder.name}/{file.name}: no annotation, not read")
                continue
            points, colour, notes = read_points(writer.read_from(file, self.raw))
            parts.append((points, colour))
            labels.append(_class_of(match[1], file))
            writer.notes.extend(notes)
        if not parts:
            raise DataError(annotations, "the scene is empty: no <class>_<n>.txt")
        sizes = [len(points) for points, _ in parts]
        return Cloud(
            points=np.concatenate([points for points, _ in parts]).astype(np.float32),
            colour=np.concatenate([colour for _, colour in parts]),
            label=np.repeat(np.array(labels, np.int32), sizes),
            instance=np.repeat(np.arange(len(parts), dtype=np.int32), sizes),
        )

    def _frames(self, folder: Path, writer: SceneWriter) -> Iterator[Frame]:
        assert self.images is not None
        area = folder.parent
        if not (area / f"{area.name}_alignmentAngle.txt").is_file():
            raise DataError(
                area,
                f"no {area.name}_alignmentAngle.txt: this is the aligned release, whose "
                "coordinates are not the cameras'; use Stanford3dDataset_v1.2 with images",
            )
        images = room_images(self.images, area.name, folder.name)
        if not images:
            writer.notes.append(f"{area.name}/{folder.name}: no images")
        for image in images[:: self.frame_stride]:
            for file in image.files:
                writer.read_from(file, self.images)
        yield from read_room_frames(images[:: self.frame_stride], self.frame_size)


def _class_of(word: str, file: Path) -> int:
    if word == "stairs":  # occur in one area only and count as clutter
        return _CLUTTER
    if word not in CLASSES:
        raise DataError(file, f"unknown class {word!r}; known are {', '.join(CLASSES)}, stairs")
    return CLASSES.index(word)


def _half_turn(cloud: Cloud) -> Cloud:
    """Turns a cloud by 180 degrees about the vertical through the middle of its box."""
    points = cloud.points.astype(np.float64)
    middle = (points[:, :2].min(axis=0) + points[:, :2].max(axis=0)) / 2
    points[:, :2] = 2 * middle - points[:, :2]
    return Cloud(points.astype(np.float32), cloud.colour, None, cloud.label, cloud.instance)
