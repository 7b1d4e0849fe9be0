"""People's own scans: cloud files, and folders of posed RGB-D frames."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from haskd_jax.data.clouds import SUFFIXES, read_cloud
from haskd_jax.data.errors import DataError
from haskd_jax.data.frame_folder import find_frames, is_frame_folder, read_frames
from haskd_jax.data.fuse import FuseOptions, fuse
from haskd_jax.data.prepared import read_manifest
from haskd_jax.data.scene import Cloud
from haskd_jax.data.writer import SceneWriter
from haskd_jax.ranges import at_least, positive

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_NO_LABEL = 255  # in label images, which cannot hold -1


@dataclass(frozen=True)
class OwnScans:
    """Own scans: clouds (.ply, .pcd, .npz) or folders of posed RGB-D frames.

    Attributes:
        raw: One cloud file, one folder of frames, or a folder of such; or one that holds folders
            of such, named train, val and test.
        split: What part of your data the scans are that lie in no such folder.
        classes: Names of the labels 0, 1, ..., where the scans have labels; -1 is no label (in
            label images: 255).
        labels: Whether labels are read at all.
        metres_per_unit: What the clouds' coordinates are multiplied by (0.001: millimetres).
        depth_units_per_metre: What depth images count in (1000: millimetres).
        frame_stride: Every how many-th frame is kept and fused.
        frame_size: Width and height of the frames kept; the colour images' own by default.
        fuse: How frames without a cloud beside them become one.
    """

    raw: Path
    split: Split = "train"
    classes: tuple[str, ...] = ()
    labels: bool = True
    metres_per_unit: float = 1.0
    depth_units_per_metre: float = 1000.0
    frame_stride: int = 1
    frame_size: tuple[int, int] | None = None
    fuse: FuseOptions = field(default_factory=FuseOptions)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        positive("metres_per_unit", self.metres_per_unit)
        positive("depth_units_per_metre", self.depth_units_per_metre)
        at_least("frame_stride", self.frame_stride, 1)
        for length in self.frame_size or ():
            at_least("frame_size", length, 1)
        if len(self.classes) > _NO_LABEL:
            raise ValueError(f"classes: {len(self.classes)}, at most {_NO_LABEL} can be told apart")
        twice = {name for name in self.classes if self.classes.count(name) > 1}
        if twice:
            raise ValueError(f"classes: {', '.join(sorted(twice))} twice; each needs its own name")

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return "own"

    def _lying(self) -> Iterator[tuple[Path, Split]]:
        """What lies where scans are looked for, scans or not, with the split it would be of."""
        raw = Path(os.path.abspath(self.raw))  # of "." too the name is needed
        if not raw.exists():
            raise DataError(self.raw, "does not exist")
        if raw.is_file() or is_frame_folder(raw):
            yield raw, self.split
            return
        for path in sorted(raw.iterdir()):
            split = next((name for name in SPLITS if name == path.name.lower()), None)
            if split is None or not path.is_dir() or is_frame_folder(path):
                yield path, self.split
            else:
                yield from ((inner, split) for inner in sorted(path.iterdir()))

    def _scans(self) -> dict[str, tuple[Path, Split]]:
        """Where each scan lies and its split, by name."""
        scans: dict[str, tuple[Path, Split]] = {}
        for path, split in self._lying():
            if not _is_scan(path):
                continue
            name = path.name if path.is_dir() else path.stem
            if name in scans:
                raise DataError(path, f"has the same name as {scans[name][0]}")
            scans[name] = path, split
        if not scans:
            raise DataError(
                self.raw,
                f"holds no {', '.join(SUFFIXES)} and no folder of frames (colour and depth)",
            )
        return scans

    def sources(self) -> dict[str, Path]:
        """Where each scan lies, by name."""
        return {name: path for name, (path, _) in self._scans().items()}

    def scenes(self) -> dict[str, str]:
        """The scenes that are there, by name, with their split."""
        return {name: split for name, (_, split) in self._scans().items()}

    def others(self) -> str:
        """What lies beside the scans and is none, in words; hidden files are passed over."""
        root = Path(os.path.abspath(self.raw))
        found = [
            str(path.relative_to(root))
            for path, _ in self._lying()
            if not path.name.startswith(".") and not _is_scan(path)
        ]
        return first_few(found)

    def recipe(self, name: str) -> dict[str, Any]:
        """All options that decide a scene's prepared bytes: the same for every scene."""
        return {key: value for key, value in asdict(self).items() if key not in ("raw", "split")}

    def _cloud(self, path: Path, writer: SceneWriter) -> Cloud:
        cloud = read_cloud(path, metres_per_unit=self.metres_per_unit, labels=self.labels)
        if self.labels and self.classes and cloud.label is None:
            writer.notes.append(f"{path.name}: classes are named, and it has no labels")
        return cloud

    def read(self, name: str, writer: SceneWriter) -> None:
        """Reads one scan into the prepared form.

        Args:
            name: One of `scenes()`.
            writer: Where it goes.

        Raises:
            DataError: The scan is not readable, or is prepared as one of another split.
        """
        path, split = self._scans()[name]
        _check_split(writer.root / name, split)
        if not is_frame_folder(path):
            writer.read_from(path, path.parent)
            writer.add_cloud(self._cloud(path, writer))
            return
        sequence = find_frames(path)
        class_of = np.arange(len(self.classes), dtype=np.int16)
        if sequence.label and self.labels and not self.classes:
            writer.notes.append(f"{name}: label images are not read, as no classes are named")
        for frame in read_frames(
            sequence,
            stride=self.frame_stride,
            size=self.frame_size,
            units_per_metre=self.depth_units_per_metre,
            class_of=class_of if self.labels and self.classes else None,
            no_label=_NO_LABEL,
            on_drop=lambda reason: writer.drops.update([reason]),
            on_note=writer.notes.append,
        ):
            writer.add_frame(frame)
        for file in sequence.files(self.frame_stride):
            writer.read_from(file, path)
        clouds = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES]
        if len(clouds) > 1:
            raise DataError(path, f"holds {len(clouds)} clouds; which one is it?")
        if clouds:
            writer.read_from(clouds[0], path)
            writer.add_cloud(self._cloud(clouds[0], writer))
            return
        frames = writer.frames()
        if not len(frames):
            raise DataError(path, "no frame is left: every pose is lost")
        cloud = fuse(
            frames,
            self.fuse,
            on_drop=lambda reason, count: writer.drops.update({reason: count}),
        )
        if not len(cloud.points):
            raise DataError(
                path,
                "no pixel's depth was confirmed by another frame: poses that are not "
                "camera-to-world, another unit of depth, or frames that do not overlap",
            )
        writer.add_cloud(cloud)


def first_few(names: Sequence[str]) -> str:
    """Names in a line, however many they are.

    Example:
        >>> first_few("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _check_split(prepared: Path, split: str) -> None:
    """A scan is known by the name of its file, which one to validate on may bear as well."""
    try:
        found = read_manifest(prepared)["split"]
    except DataError:  # not there, or damaged
        return
    if found != split:
        raise DataError(
            prepared,
            f"is of split {found}: if the scan was moved to {split}, remove this folder; if it is "
            "another one, give it another name",
        )


def _is_scan(path: Path) -> bool:
    """Hidden files are none: some systems put one beside each file that they copy."""
    if path.name.startswith("."):
        return False
    return is_frame_folder(path) or (path.is_file() and path.suffix.lower() in SUFFIXES)
