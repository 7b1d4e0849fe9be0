"""Writes scenes in the prepared form: beside first, and renamed when they are whole."""

import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from haskd_jax.data import normals as nrm
from haskd_jax.data.errors import DataError
from haskd_jax.data.prepared import CLOUD_ARRAYS, FRAME_ARRAYS, VERSION, open_frames
from haskd_jax.data.scene import (
    Array,
    Cloud,
    Frame,
    Frames,
    check_cloud,
    check_integers,
    finite_cloud,
    pose_fault,
)
from haskd_jax.files import PARTIAL, write_json

UNSEEN_GREY = 128  # the colour of points whose source has none
_HEADER = 128


class _Appender:
    """Writes a .npy file row by row; the number of rows is filled in at the end."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.path, self.dtype = path, dtype
        self.shape: tuple[int, ...] | None = None
        self.rows, self.crc = 0, 0
        self._file: BinaryIO = path.open("w+b")
        self._file.write(b"\0" * _HEADER)

    def append(self, row: Array) -> None:
        if self.shape is None:
            self.shape = row.shape
        if row.shape != self.shape:
            raise ValueError(f"{self.path.stem}: shape {row.shape} after {self.shape}")
        data = np.ascontiguousarray(row, self.dtype)
        self._file.write(data.data)
        self.crc = zlib.crc32(data.data, self.crc)
        self.rows += 1

    def close(self) -> None:
        if self._file.closed or self.shape is None:
            return self._file.close()
        shape = (self.rows, *self.shape)
        text = f"{{'descr': {self.dtype.str!r}, 'fortran_order': False, 'shape': {shape}, }}"
        body = text.encode().ljust(_HEADER - 11) + b"\n"
        self._file.seek(0)
        self._file.write(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body)
        self._file.close()

    def entry(self) -> dict[str, Any]:
        return {
            "shape": [self.rows, *(self.shape or ())],
            "dtype": self.dtype.str,
            "crc32": self.crc,
        }


class SceneWriter:
    """Writes one scene; nothing is seen under its name before `commit`.

    Use it as a context manager: leaving without `commit` removes what was written.

    Args:
        root: The prepared root, which exists.
        name: The scene's name, a plain file name.

    Raises:
        ValueError: `name` is not a plain file name.

    Example:
        >>> import tempfile
        >>> from haskd_jax.data import load_scene
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with SceneWriter(root, "room") as writer:
        ...         writer.add_cloud(Cloud(points=np.eye(3, dtype=np.float32)))
        ...         manifest = writer.commit(dataset="own", split="train", options={})
        ...     load_scene(Path(root) / "room").points.shape
        (3, 3)
    """

    def __init__(self, root: str | Path, name: str):
        if not name or name.startswith(".") or Path(name).name != name or "\\" in name:
            raise ValueError(f"name: {name!r} is not a plain file name")
        self.root, self.name = Path(root), name
        self.drops: Counter[str] = Counter()
        self.notes: list[str] = []
        self.source: dict[str, int] = {}
        self._folder = self.root / f"{PARTIAL}{name}-{os.getpid()}"
        self._arrays: dict[str, _Appender] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._frame_names: list[str] = []
        self._counts: dict[str, int] = {}
        self._estimated: list[str] = []
        self.largest_label = -1

    def __enter__(self) -> "SceneWriter":
        """Makes the folder in which the scene is written."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the folder, if the scene was not committed."""
        for appender in self._arrays.values():
            try:
                appender.close()
            except OSError:  # the disk is full: the error that ended the block says so
                continue
        shutil.rmtree(self._folder, ignore_errors=True)

    def read_from(self, file: Path, base: Path) -> Path:
        """Records a source file, by its path under `base` and its size.

        Returns:
            The file.
        """
        try:
            name = file.relative_to(base).as_posix()
        except ValueError:
            name = file.name
        self.source[name] = file.stat().st_size
        return file

    def add_frame(self, frame: Frame) -> None:
        """Appends a frame; one whose pose is no rigid motion is dropped and counted.

        Raises:
            DataError: Its size differs from the frames' before, or an array is not of the type that
                `Frame` says.
        """
        fault = pose_fault(frame.camera_to_world)
        if fault:
            self.drops[f"frame: {fault}"] += 1
            return
        size = frame.colour.shape[:2]
        for name in ("colour", "depth", "label"):
            array = getattr(frame, name)
            if array is None:
                continue
            if array.shape[:2] != size or (name != "colour" and array.ndim != 2):
                raise DataError(f"frame {frame.name}", f"{name} {array.shape}, colour {size}")
            try:
                check_integers(name, array, FRAME_ARRAYS[name])
            except ValueError as error:
                raise DataError(f"frame {frame.name}", str(error)) from error
        if frame.label is not None:
            self.largest_label = max(self.largest_label, int(frame.label.max(initial=-1)))
        for name, dtype in FRAME_ARRAYS.items():
            array = getattr(frame, name)
            key = f"frame_{name}"
            if array is None:
                if key in self._arrays:
                    raise DataError(f"frame {frame.name}", f"no {name}, but earlier frames have it")
                continue
            if key not in self._arrays:
                if self._frame_names:
                    raise DataError(f"frame {frame.name}", f"{name}, but earlier frames have none")
                self._arrays[key] = _Appender(self._folder / f"{key}.npy", dtype)
            try:
                self._arrays[key].append(np.asarray(array))
            except ValueError as error:
                raise DataError(f"frame {frame.name}", str(error)) from error
        self._frame_names.append(frame.name)

    def frames(self) -> Frames:
        """The frames written so far, memory-mapped; no frame can be added after."""
        self._close_arrays()
        return open_frames(self._folder, self._entries, tuple(self._frame_names))

    def add_cloud(self, cloud: Cloud) -> None:
        """Writes the cloud, with normals estimated where they are missing.

        Normals are turned to the nearest camera, or to the middle of the room without frames.

        Raises:
            ValueError: The arrays do not fit together or are not of the types that `Cloud` says,
                or no point is finite.
        """
        cloud, dropped = finite_cloud(cloud)
        if dropped:
            self.drops["point: not finite"] += dropped
        check_cloud(cloud)
        points = np.ascontiguousarray(cloud.points, np.float32)
        colour = cloud.colour
        if colour is None:
            colour = np.full(points.shape, UNSEEN_GREY, np.uint8)
            self._estimated.append("colour")
        arrays = {
            "points": points,
            "colour": colour,
            "normals": self._complete_normals(points, cloud.normals),
            "label": cloud.label,
            "instance": cloud.instance,
        }
        for name, array in arrays.items():
            if array is not None:
                self._write(name, np.asarray(array, CLOUD_ARRAYS[name]))
        self._counts["points"] = len(points)
        if cloud.label is not None:
            self._counts["labelled_points"] = int((cloud.label >= 0).sum())
            self.largest_label = max(self.largest_label, int(cloud.label.max()))

    def _complete_normals(self, points: Array, given: Array | None) -> Array:
        normals = np.zeros_like(points) if given is None else nrm.unit(given)
        unknown = np.flatnonzero(~normals.any(axis=1))
        if len(unknown):
            frames = self.frames()
            if len(frames):
                toward = nrm.toward_cameras(points, frames.camera_to_world[:, :3, 3])
            else:
                toward = nrm.toward_centre(points)
            normals[unknown] = nrm.estimate_normals(points, toward, at=unknown)
            self._estimated.append("normals")
            self._counts["estimated_normals"] = len(unknown)
        return normals

    def _write(self, name: str, array: Array) -> None:
        array = np.ascontiguousarray(array)
        with (self._folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
        self._entries[name] = {
            "shape": list(array.shape),
            "dtype": array.dtype.str,
            "crc32": zlib.crc32(array.data),
        }

    def _close_arrays(self) -> None:
        for key, appender in self._arrays.items():
            appender.close()
            self._entries[key] = appender.entry()

    def commit(self, *, dataset: str, split: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the manifest and gives the scene its name, in place of one that was there.

        Args:
            dataset: Which reader wrote it.
            split: The part of the dataset it belongs to.
            options: All that, besides the source, decides the bytes; plain JSON values.

        Returns:
            The manifest.
        """
        self._close_arrays()
        if "points" not in self._entries:
            raise ValueError("commit: add_cloud first")
        manifest = {
            "format": "haskd-scene",
            "version": VERSION,
            "name": self.name,
            "dataset": dataset,
            "split": split,
            "options": json.loads(json.dumps(options)),
            "source": self.source,
            "arrays": self._entries,
            "frames": self._frame_names,
            "counts": self._counts | {"frames": len(self._frame_names)},
            "drops": dict(self.drops),
            "estimated": self._estimated,
            "notes": self.notes,
        }
        write_json(self._folder / "manifest.json", manifest)
        target = self.root / self.name
        if target.exists():
            old = self.root / f"{PARTIAL}{self.name}-old-{os.getpid()}"
            os.replace(target, old)
            os.replace(self._folder, target)
            shutil.rmtree(old)
        else:
            os.replace(self._folder, target)
        return manifest
