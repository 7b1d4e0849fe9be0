"""Folders of posed RGB-D frames, one image a file, as ScanNet's exporter and others leave them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Integer, UInt16

from haskd_jax.data.errors import DataError
from haskd_jax.data.images import Size, read_colour, read_grey, sample_nearest, scale_intrinsics
from haskd_jax.data.scene import Frame, pose_fault

Array = np.ndarray

_COLOUR_FOLDERS = ("color", "colour", "rgb", "images")
_COLOUR_SUFFIXES = (".jpg", ".jpeg", ".png")
_COLOUR_K = (
    "intrinsic/intrinsic_color.txt",
    "intrinsics_color.txt",
    "intrinsic_color.txt",
    "intrinsics.txt",
    "intrinsic.txt",
    "K.txt",
)
_DEPTH_K = ("intrinsic/intrinsic_depth.txt", "intrinsics_depth.txt", "intrinsic_depth.txt")
# Exporters resize images and leave the intrinsics as they were; these are the sensors' own sizes.
_SENSOR_SIZES = (
    (1296, 968), (640, 480), (1440, 1080), (1920, 1440), (1920, 1080), (1280, 720), (960, 540),
)  # fmt: skip
# How far from the middle a principal point may lie, as a share of half the image: depth cameras'
# lie up to 7 % off.
_OFF_CENTRE = 0.1


@dataclass(frozen=True)
class FrameFolder:
    """A sequence of posed RGB-D frames on disk.

    Attributes:
        folder: Where it lies.
        colour: The F colour images, in the order of the sequence.
        depth: The F depth images.
        label: The F label images, or empty.
        poses: [F, 4, 4] float64 camera-to-world, possibly not finite.
        colour_k: [3, 3], the intrinsics of the colour images as the files say.
        depth_k: [3, 3], or None: the depth images share the colour images' camera.
    """

    folder: Path
    colour: tuple[Path, ...]
    depth: tuple[Path, ...]
    label: tuple[Path, ...]
    poses: Float64[Array, "F 4 4"]
    colour_k: Float64[Array, "3 3"]
    depth_k: Float64[Array, "3 3"] | None

    def __len__(self) -> int:
        """The number of frames F."""
        return len(self.colour)

    def files(self, stride: int) -> list[Path]:
        """The images of every `stride`-th frame."""
        kinds = (self.colour, self.depth, self.label)
        return [file for kind in kinds for file in kind[::stride]]


def read_matrix(path: Path, shape: tuple[int, int]) -> Array:
    """Reads one matrix of a text file; a 4x4 camera matrix may stand for a 3x3.

    Args:
        path: The file.
        shape: Rows and columns wanted.

    Returns:
        [rows, columns] float64, possibly not finite.

    Raises:
        DataError: Missing, no numbers, or of another shape.
    """
    try:
        matrix = np.array(
            [line.split() for line in path.read_text().splitlines() if line.strip()], np.float64
        )
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise DataError(path, f"not a matrix of numbers ({error})") from error
    if matrix.shape == (4, 4) and shape == (3, 3):
        matrix = matrix[:3, :3]
    if matrix.shape != shape:
        raise DataError(path, f"a matrix {matrix.shape}, expected {shape}")
    return matrix


def _camera_matrix(path: Path) -> Array:
    k = read_matrix(path, (3, 3))
    if not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
        raise DataError(path, "no camera matrix: focal lengths must be above 0")
    return k


def is_frame_folder(folder: Path) -> bool:
    """Whether a folder looks like a sequence of posed RGB-D frames.

    Args:
        folder: Any path.

    Returns:
        True if it has a colour and a depth folder.
    """
    return (folder / "depth").is_dir() and any((folder / n).is_dir() for n in _COLOUR_FOLDERS)


def find_frames(folder: Path) -> FrameFolder:
    """Finds the frames of a folder and reads their poses.

    Layout: `color|colour|rgb|images/*.{jpg,png}`, `depth/*.png` (uint16), `label/*.png` if known;
    poses as `pose/<name>.txt` (4x4) or one `poses.txt` (12 or 16 numbers a line, with
    `subset.txt` saying "line, file" where not every line has an image); intrinsics as one of
    `intrinsic/intrinsic_color.txt`, `intrinsics.txt`, `K.txt`.

    Args:
        folder: The folder.

    Returns:
        The sequence.

    Raises:
        DataError: A part is missing, or numbers of files disagree.
    """
    if not is_frame_folder(folder):
        raise DataError(
            folder, f"no sequence: needs depth/ and one of {', '.join(_COLOUR_FOLDERS)}"
        )
    colour_folder = next(folder / n for n in _COLOUR_FOLDERS if (folder / n).is_dir())
    colour = sorted(
        (p for p in colour_folder.iterdir() if p.suffix.lower() in _COLOUR_SUFFIXES),
        key=_frame_order,
    )
    if not colour:
        raise DataError(colour_folder, "holds no images")
    depth = [_partner(folder / "depth", image) for image in colour]
    label = []
    if (folder / "label").is_dir():
        label = [_partner(folder / "label", image) for image in colour]
    colour_k = next((folder / n for n in _COLOUR_K if (folder / n).is_file()), None)
    if colour_k is None:
        raise DataError(folder, f"no intrinsics: needs one of {', '.join(_COLOUR_K)}")
    depth_k = next((folder / n for n in _DEPTH_K if (folder / n).is_file()), None)
    return FrameFolder(
        folder=folder,
        colour=tuple(colour),
        depth=tuple(depth),
        label=tuple(label),
        poses=_poses(folder, colour),
        colour_k=_camera_matrix(colour_k),
        depth_k=None if depth_k is None else _camera_matrix(depth_k),
    )


def _frame_order(path: Path) -> tuple[list[str | int], str]:
    # ScanNet's exporter writes 0.jpg, 1.jpg, ..., 10.jpg, others frame9.png, frame10.png: numbers
    # are not padded.
    parts = re.split("([0-9]+)", path.stem)  # text at even places, numbers at odd ones
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.stem


def _partner(folder: Path, image: Path) -> Path:
    path = folder / f"{image.stem}.png"
    if not path.is_file():
        raise DataError(path, f"missing: {image.parent.name}/{image.name} has no partner")
    return path


def _poses(folder: Path, colour: list[Path]) -> Array:
    if (folder / "pose").is_dir():
        return np.stack([read_matrix(folder / "pose" / f"{p.stem}.txt", (4, 4)) for p in colour])
    path = folder / "poses.txt"
    try:
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        table = np.array(rows, np.float64)
    except OSError as error:
        raise DataError(folder, "no poses: needs pose/<name>.txt or poses.txt") from error
    except ValueError as error:
        raise DataError(path, f"not a table of numbers ({error})") from error
    if table.ndim != 2 or table.shape[1] not in (12, 16):
        raise DataError(path, f"a table {table.shape}, expected 12 or 16 numbers a line")
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, : table.shape[1] // 4] = table.reshape(len(table), -1, 4)
    subset = folder / "subset.txt"
    if subset.is_file():
        return poses[_subset_lines(subset, colour, len(poses))]
    if len(poses) != len(colour):
        raise DataError(path, f"{len(poses)} poses for {len(colour)} images; add subset.txt")
    return poses


def _subset_lines(path: Path, colour: list[Path], count: int) -> list[int]:
    try:
        pairs = [line.split() for line in path.read_text().splitlines() if line.strip()]
        line_of = {name: int(line) for line, name in pairs}
        lines = [line_of[image.name] for image in colour]
    except KeyError as error:
        raise DataError(path, f"does not name image {error}") from error
    except (OSError, ValueError) as error:
        raise DataError(path, f'not lines of "pose line, file name" ({error})') from error
    if min(lines) < 0 or max(lines) >= count:
        raise DataError(path, f"names pose line {max(lines)}, there are {count}")
    return lines


def _native_size(folder: FrameFolder, size: Size) -> Size:
    """The size of the images that the intrinsics were measured on: the one they fit best."""
    alike = [
        native
        for native in (size, *_SENSOR_SIZES)
        if abs(native[0] * size[1] / (native[1] * size[0]) - 1) < 0.02
    ]
    best = min(alike, key=lambda native: _off_centre(folder.colour_k, native))
    if _off_centre(folder.colour_k, best) <= _OFF_CENTRE:
        return best
    centre = folder.colour_k[:2, 2]
    raise DataError(
        folder.folder,
        f"the intrinsics' centre {centre.round(1).tolist()} fits no image of {size[0]}x{size[1]}: "
        "were the images resized or cropped? Give the intrinsics of the images that are there",
    )


def _off_centre(k: Array, size: Size) -> float:
    """How far the principal point lies from an image's middle, as a share of half its side."""
    return float(np.max(np.abs((2 * k[:2, 2] + 1) / size - 1)))


def read_frames(
    folder: FrameFolder,
    *,
    stride: int = 1,
    size: Size | None = None,
    units_per_metre: float = 1000.0,
    class_of: Array | None = None,
    no_label: int | None = None,
    on_drop: Callable[[str], None] = lambda reason: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Iterator[Frame]:
    """Reads frames one by one; only one is ever in memory.

    Args:
        folder: The sequence.
        stride: Every how many-th frame is read.
        size: Width and height of the frames; None keeps the colour images' size.
        units_per_metre: What depth counts in (1000: millimetres).
        class_of: [K] int16, the class of each value 0 ... K-1 that label images may hold; None
            ignores label images.
        no_label: A value of label images that stands for none.
        on_drop: Called with the reason for every frame left out.
        on_note: Called once where the intrinsics are those of images of another size.

    Yields:
        Frames with depth and labels resampled into the colour image's pixels.

    Raises:
        DataError: A file is missing or damaged, or its size differs from the first one's.
    """
    first: Size | None = None
    first_depth: tuple[int, ...] = ()
    sensor: Size = (0, 0)
    for i in range(0, len(folder), stride):
        fault = pose_fault(folder.poses[i])
        if fault:
            on_drop(f"frame: {fault}")
            continue
        colour, native = read_colour(folder.colour[i], size)
        depth = read_grey(folder.depth[i])
        if first is None:
            first, first_depth, sensor = native, depth.shape, _native_size(folder, native)
            if sensor != native:
                on_note(
                    f"{folder.folder.name}: the intrinsics are of images of "
                    f"{sensor[0]}x{sensor[1]}, and were scaled to {native[0]}x{native[1]}"
                )
        if native != first:
            raise DataError(folder.colour[i], f"size {native}, the first image has {first}")
        if depth.shape != first_depth:
            raise DataError(
                folder.depth[i],
                f"depth of size {depth.shape[::-1]}, the first has {first_depth[::-1]}",
            )
        target = size or native
        k = scale_intrinsics(folder.colour_k, sensor, target)
        depth_size = depth.shape[::-1]
        depth_k = depth_camera(folder.depth_k, folder.colour_k, sensor, depth_size, folder.depth[i])
        label = None
        if folder.label and class_of is not None:
            raw = read_grey(folder.label[i])
            if raw.shape[::-1] != native:
                raise DataError(folder.label[i], f"size {raw.shape[::-1]}, its image {native}")
            known = raw if no_label is None else raw[raw != no_label]
            if known.max(initial=0) >= len(class_of):
                raise DataError(
                    folder.label[i],
                    f"unknown label id {known.max()}: expected 0 to {len(class_of) - 1}",
                )
            classes = np.where(raw == no_label, -1, class_of[np.minimum(raw, len(class_of) - 1)])
            native_k = scale_intrinsics(k, target, native)
            label = sample_nearest(classes + 1, native_k, k, target) - 1  # none outside the image
        yield Frame(
            name=folder.colour[i].stem,
            colour=colour,
            depth=millimetres(sample_nearest(depth, depth_k, k, target), units_per_metre),
            intrinsics=k,
            camera_to_world=folder.poses[i],
            label=label,
        )


def depth_camera(
    depth_k: Array | None, colour_k: Array, colour_size: Size, depth_size: Size, file: Path | str
) -> Array:
    """The intrinsics of depth images that are registered to colour images.

    Args:
        depth_k: [3, 3] as the source gives them, or None.
        colour_k: [3, 3].
        colour_size: Width and height of the images of `colour_k`.
        depth_size: Width and height of the depth images.
        file: What an error names.

    Returns:
        [3, 3]: `depth_k` if it fits the depth images, else `colour_k` scaled to their size.

    Raises:
        DataError: The depth images have another shape than the colour images, so that scaling
            cannot register them.
    """
    if depth_k is not None and _off_centre(depth_k, depth_size) <= _OFF_CENTRE:
        return depth_k
    shape = depth_size[0] * colour_size[1] / (depth_size[1] * colour_size[0])
    if abs(shape - 1) > 0.02:
        raise DataError(
            file,
            f"depth of size {depth_size} is not registered to colour of size {colour_size}: "
            "give the depth camera's intrinsics, or depth rendered into the colour camera",
        )
    return scale_intrinsics(colour_k, colour_size, depth_size)


def millimetres(depth: Integer[Array, "H W"], units_per_metre: float) -> UInt16[Array, "H W"]:
    """Depth in the unit in which scenes keep it.

    Args:
        depth: [H, W] uint16, 0 where unknown.
        units_per_metre: What it counts in.

    Returns:
        [H, W] uint16 millimetres, 0 where unknown or beyond 65.535 m.

    Example:
        >>> millimetres(np.array([[0, 512, 65535]], np.uint16), 512.0).tolist()
        [[0, 1000, 0]]
    """
    if units_per_metre == 1000.0:
        return depth.astype(np.uint16)
    metric = np.rint(depth * (1000.0 / units_per_metre))
    return np.where(metric > 65535, 0, metric).astype(np.uint16)
