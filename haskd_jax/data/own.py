"""People's own scans: cloud files, and folders of posed RGB-D frames."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from haskd_jax.data.clouds import SUFFIXES, read_cloud
from haskd_jax.data.errors import DataError
from haskd_jax.data.frame_folder import find_frames, is_frame_folder, read_frames
from haskd_jax.data.fuse import FuseOptions, fuse
from haskd_jax.data.scene import Cloud
from haskd_jax.data.writer import SceneWriter


@dataclass(frozen=True)
class OwnScans:
    """Own scans: clouds (.ply, .pcd, .npz) or folders of posed RGB-D frames.

    Attributes:
        raw: One cloud file, one folder of frames, or a folder of such.
        split: What part of your data this is (train, val, test).
        classes: Names of the labels 0, 1, ..., where the clouds have labels.
        metres_per_unit: What the clouds' coordinates are multiplied by (0.001: millimetres).
        depth_units_per_metre: What depth images count in (1000: millimetres).
        frame_stride: Every how many-th frame is kept and fused.
        frame_size: Width and height of the frames kept; the colour images' own by default.
        fuse: How frames without a cloud beside them become one.
    """

    raw: Path
    split: str = "train"
    classes: tuple[str, ...] = ()
    metres_per_unit: float = 1.0
    depth_units_per_metre: float = 1000.0
    frame_stride: int = 1
    frame_size: tuple[int, int] | None = None
    fuse: FuseOptions = field(default_factory=FuseOptions)

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return "own"

    def sources(self) -> dict[str, Path]:
        """Where each scan lies, by name."""
        raw = self.raw
        if not raw.exists():
            raise DataError(raw, "does not exist")
        if raw.is_file() or is_frame_folder(raw):
            found = [raw]
        else:
            found = [
                path
                for path in sorted(raw.iterdir())
                if path.suffix.lower() in SUFFIXES or is_frame_folder(path)
            ]
        sources: dict[str, Path] = {}
        for path in found:
            name = path.name if path.is_dir() and is_frame_folder(path) else path.stem
            if name in sources:
                raise DataError(path, f"has the same name as {sources[name].name}")
            sources[name] = path
        if not sources:
            raise DataError(
                raw, f"holds no {', '.join(SUFFIXES)} and no folder of frames (colour and depth)"
            )
        return sources

    def scenes(self) -> dict[str, str]:
        """The scenes that are there, by name, with their split."""
        return dict.fromkeys(self.sources(), self.split)

    def recipe(self, name: str) -> dict[str, Any]:
        """All options that decide a scene's prepared bytes: the same for every scene."""
        return {name: value for name, value in asdict(self).items() if name != "raw"}

    def _cloud(self, path: Path) -> Cloud:
        cloud = read_cloud(path, metres_per_unit=self.metres_per_unit)
        if self.classes and cloud.label is not None and cloud.label.max() >= len(self.classes):
            raise DataError(
                path,
                f"unknown label id {cloud.label.max()}: {len(self.classes)} classes are named",
            )
        return cloud

    def read(self, name: str, writer: SceneWriter) -> None:
        """Reads one scan into the prepared form.

        Args:
            name: One of `scenes()`.
            writer: Where it goes.

        Raises:
            DataError: The scan is not readable.
        """
        path = self.sources()[name]
        if not is_frame_folder(path):
            writer.read_from(path, self.raw.parent)
            writer.add_cloud(self._cloud(path))
            return
        sequence = find_frames(path)
        for frame in read_frames(
            sequence,
            stride=self.frame_stride,
            size=self.frame_size,
            units_per_metre=self.depth_units_per_metre,
            on_drop=lambda reason: writer.drops.update([reason]),
        ):
            writer.add_frame(frame)
        for file in sequence.files(self.frame_stride):
            writer.read_from(file, path)
        clouds = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES]
        if len(clouds) > 1:
            raise DataError(path, f"holds {len(clouds)} clouds; which one is it?")
        if clouds:
            writer.read_from(clouds[0], path)
            writer.add_cloud(self._cloud(clouds[0]))
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
