"""ScanNetV2 from raw scans."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from haskd_jax.data.errors import DataError
from haskd_jax.data.frame_folder import find_frames, is_frame_folder, read_frames
from haskd_jax.data.normals import mesh_normals
from haskd_jax.data.ply import Ply, read_ply
from haskd_jax.data.scannet_labels import (
    CLASSES,
    class_table,
    classes_of,
    find_label_map,
    read_label_map,
    read_segments,
    split_scenes,
)
from haskd_jax.data.scene import Array, Cloud, Frame
from haskd_jax.data.sens import read_sens
from haskd_jax.data.writer import SceneWriter

_FOLDERS = ("", "scans", "scans_test")


@dataclass(frozen=True)
class ScanNet:
    """ScanNetV2, or anything in its layout.

    Attributes:
        raw: The folder that holds the scans, or `scans/` and `scans_test/`. Split lists
            `scannetv2_{train,val,test}.txt` are taken from there, else the official ones.
        split: Which scans.
        frames_25k: The folder `scannet_frames_25k`, if frames are to come from there.
        frame_stride: Every how many-th frame is kept (every one of scannet_frames_25k, which has
            every 100th already).
        frame_size: Width and height of the frames kept.
        frames: Whether frames are kept at all.
    """

    raw: Path
    split: Literal["train", "val", "test", "all"] = "all"
    frames_25k: Path | None = None
    frame_stride: int = 20
    frame_size: tuple[int, int] = (320, 240)
    frames: bool = True

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return "scannet"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels 0, 1, ..."""
        return CLASSES

    def scenes(self) -> dict[str, str]:
        """The listed scans that are on disk, by name, with their split."""
        listed = split_scenes(self.raw)
        if not self.raw.is_dir():
            raise DataError(self.raw, "is no folder")
        present = {
            scene: split
            for scene, split in listed.items()
            if self.split in ("all", split) and _scan_folder(self.raw, scene) is not None
        }
        if not present:
            raise DataError(
                self.raw,
                f"holds none of the listed scans of split {self.split!r}: expected "
                "scene????_??/ folders, here or in scans/ and scans_test/",
            )
        return present

    def recipe(self, name: str) -> dict[str, Any]:
        """All options that decide a scene's prepared bytes: the same for every scene."""
        return {
            "frame_stride": 1 if self.frames_25k else self.frame_stride,
            "frame_size": list(self.frame_size),
            "frames": self.frames,
            "frames_25k": self.frames_25k is not None,
        }

    def read(self, name: str, writer: SceneWriter) -> None:
        """Reads one scan into the prepared form.

        Args:
            name: One of `scenes()`.
            writer: Where it goes.

        Raises:
            DataError: A file is missing or damaged.
        """
        folder = _scan_folder(self.raw, name)
        if folder is None:
            raise DataError(self.raw / name, "missing")
        if self.frames:
            for frame in self._frames(name, folder, writer):
                writer.add_frame(frame)
        mesh_file = folder / f"{name}_vh_clean_2.ply"
        mesh = read_ply(writer.read_from(_existing(mesh_file), self.raw))
        points, colour = mesh.columns(("x", "y", "z")), mesh.columns(("red", "green", "blue"))
        if points is None or colour is None:
            raise DataError(mesh_file, "needs vertices with x, y, z, red, green, blue")
        if len(points) == 0:
            raise DataError(mesh_file, "the scene is empty: no vertices")
        label, instance = self._annotation(name, folder, len(points), writer)
        if label is None and split_scenes(self.raw).get(name) != "test":
            raise DataError(
                folder,
                f"no labels: needs {name}_vh_clean_2.labels.ply, or segs.json, "
                "aggregation.json and scannetv2-labels.combined.tsv",
            )
        cloud = Cloud(
            points=points.astype(np.float32),
            colour=colour.astype(np.uint8),
            normals=mesh_normals(points, mesh.faces) if len(mesh.faces) else None,
            label=label,
            instance=instance,
        )
        try:
            writer.add_cloud(cloud)
        except ValueError as error:
            raise DataError(mesh_file, str(error)) from error

    def _frames(self, name: str, folder: Path, writer: SceneWriter) -> Iterator[Frame]:
        def on_drop(reason: str) -> None:
            writer.drops[reason] += 1

        extracted = self.frames_25k / name if self.frames_25k else folder
        if self.frames_25k or is_frame_folder(extracted):
            stride = 1 if self.frames_25k else self.frame_stride
            sequence = find_frames(extracted)
            for file in sequence.files(stride):
                writer.read_from(file, extracted)
            yield from read_frames(
                sequence,
                stride=stride,
                size=self.frame_size,
                class_of=class_table(),
                on_drop=on_drop,
                on_note=writer.notes.append,
            )
            return
        sens = folder / f"{name}.sens"
        if not sens.exists():
            raise DataError(
                sens,
                "no frames: needs this file, or color/ depth/ pose/ intrinsic/ beside it, or "
                "scannet_frames_25k; or prepare without frames",
            )
        writer.read_from(sens, self.raw)
        yield from read_sens(
            sens,
            stride=self.frame_stride,
            size=self.frame_size,
            on_drop=on_drop,
            on_note=writer.notes.append,
        )

    def _annotation(
        self, name: str, folder: Path, count: int, writer: SceneWriter
    ) -> tuple[Array | None, Array | None]:
        label: Array | None = None
        instance: Array | None = None
        label_file = folder / f"{name}_vh_clean_2.labels.ply"
        segs = folder / f"{name}_vh_clean_2.0.010000.segs.json"
        aggregation = _aggregation(folder, name)
        categories: list[str] = []
        if segs.is_file() and aggregation is not None:
            writer.read_from(segs, self.raw)
            writer.read_from(aggregation, self.raw)
            instance, categories = read_segments(segs, aggregation, count)
        if label_file.exists():
            nyu40 = _vertex_labels(
                read_ply(writer.read_from(label_file, self.raw)), count, label_file
            )
        else:
            table = find_label_map(self.raw)
            if instance is None or table is None:
                return None, instance
            label_file = table
            nyu40 = _nyu40_of_instances(instance, categories, read_label_map(table), table)
        label, stray = classes_of(nyu40, name, label_file)
        if stray:
            writer.drops["label: id without meaning"] += stray
        return label, instance


def _scan_folder(root: Path, name: str) -> Path | None:
    return next((root / f / name for f in _FOLDERS if (root / f / name).is_dir()), None)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(path, "is a folder" if path.is_dir() else "missing")
    return path


def _aggregation(folder: Path, name: str) -> Path | None:
    names = (f"{name}_vh_clean.aggregation.json", f"{name}.aggregation.json")
    return next((folder / n for n in names if (folder / n).is_file()), None)


def _vertex_labels(ply: Ply, count: int, file: Path) -> Array:
    label = ply.column("label")
    if label is None:
        raise DataError(file, "its vertices have no label")
    if len(label) != count:
        raise DataError(file, f"{len(label)} labels, the mesh has {count} vertices")
    return label.astype(np.int64)


def _nyu40_of_instances(
    instance: Array, categories: list[str], table: dict[str, int], file: Path
) -> Array:
    unknown = sorted(set(categories) - set(table))
    if unknown:
        raise DataError(file, f"does not know the categories {unknown[:5]}")
    # The last entry serves instance -1: vertices that nobody annotated.
    ids = np.array([table[category] for category in categories] + [0], np.int64)
    return ids[instance]
