"""ScanNet's `.sens` recordings (version 4), read frame by frame.

Little-endian: a header with the cameras, then for every frame a pose, two timestamps, two sizes
and two payloads, then records of the inertial sensor, which are not read.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from haskd_jax.data.errors import DataError
from haskd_jax.data.frame_folder import depth_camera, millimetres
from haskd_jax.data.images import Size, read_colour, sample_nearest, scale_intrinsics
from haskd_jax.data.scene import Frame, pose_fault

Array = np.ndarray

VERSION = 4
_RAW_COLOUR, _PNG, _JPEG = 0, 1, 2
_RAW_DEPTH, _ZLIB = 0, 1
_FRAME = struct.Struct("<16fQQQQ")


@dataclass(frozen=True)
class SensHeader:
    """What a `.sens` file says before its frames.

    Attributes:
        sensor: The sensor's name.
        colour_k: [3, 3] float64.
        depth_k: [3, 3] float64.
        registered: Whether both extrinsics are the identity, as in every ScanNet release.
        colour_compression: 0 raw, 1 png, 2 jpeg.
        depth_compression: 0 raw uint16, 1 zlib.
        colour_size: Width and height.
        depth_size: Width and height.
        units_per_metre: What depth counts in.
        num_frames: How many frames follow.
        first_frame: Offset of the first in bytes.
    """

    sensor: str
    colour_k: Array
    depth_k: Array
    registered: bool
    colour_compression: int
    depth_compression: int
    colour_size: Size
    depth_size: Size
    units_per_metre: float
    num_frames: int
    first_frame: int


@dataclass(frozen=True)
class SensRecord:
    """One frame's place in a `.sens` file.

    Attributes:
        index: Its number.
        camera_to_world: [4, 4] float64, possibly not finite.
        colour: Offset and size of the colour payload in bytes.
        depth: Offset and size of the depth payload in bytes.
    """

    index: int
    camera_to_world: Array
    colour: tuple[int, int]
    depth: tuple[int, int]


def read_header(stream: BinaryIO, file: Path | str) -> SensHeader:
    """Reads the header of a `.sens` file.

    Args:
        stream: The file, at its beginning.
        file: What an error names.

    Returns:
        The header.

    Raises:
        DataError: Cut short, of another version, or of a compression this reader does not know.
    """

    def take(layout: str) -> tuple:
        size = struct.calcsize("<" + layout)
        data = stream.read(size)
        if len(data) != size:
            raise DataError(file, "ends inside the header: download it again")
        return struct.unpack("<" + layout, data)

    (version,) = take("I")
    if version != VERSION:
        raise DataError(file, f".sens version {version}, expected {VERSION}; is it a .sens file?")
    (length,) = take("Q")
    if length > 4096:
        raise DataError(file, f"a sensor name of {length} bytes: not a .sens file, or damaged")
    sensor = take(f"{length}s")[0].decode("utf-8", "replace")
    matrices = np.array(take("64f"), np.float64).reshape(4, 4, 4)
    colour_compression, depth_compression = take("ii")
    colour_w, colour_h, depth_w, depth_h = take("4I")
    (units,) = take("f")
    (num_frames,) = take("Q")
    if colour_compression not in (_RAW_COLOUR, _PNG, _JPEG):
        raise DataError(file, f"colour compression {colour_compression}, known are 0, 1 and 2")
    if depth_compression not in (_RAW_DEPTH, _ZLIB):
        raise DataError(file, f"depth compression {depth_compression}, known are 0 and 1")
    if not (np.isfinite(units) and units > 0) or 0 in (colour_w, colour_h, depth_w, depth_h):
        raise DataError(file, "damaged header: image sizes and depth unit must be above 0")
    if max(colour_w, colour_h, depth_w, depth_h) > 16384:
        raise DataError(file, "damaged header: images beyond 16384 pixels")
    return SensHeader(
        sensor=sensor,
        colour_k=matrices[0, :3, :3],
        depth_k=matrices[2, :3, :3],
        registered=bool(np.abs(matrices[[1, 3]] - np.eye(4)).max() < 1e-3),
        colour_compression=colour_compression,
        depth_compression=depth_compression,
        colour_size=(colour_w, colour_h),
        depth_size=(depth_w, depth_h),
        units_per_metre=float(units),
        num_frames=num_frames,
        first_frame=stream.tell(),
    )


def records(stream: BinaryIO, header: SensHeader, file: Path | str) -> Iterator[SensRecord]:
    """Walks over the frames, seeking past their payloads.

    Args:
        stream: The file.
        header: Its header.
        file: What an error names.

    Yields:
        Where each frame lies.

    Raises:
        DataError: The file ends before the last frame does.
    """
    total = os.fstat(stream.fileno()).st_size
    offset = header.first_frame
    for index in range(header.num_frames):
        stream.seek(offset)
        data = stream.read(_FRAME.size)
        # A frame cut inside its fixed part counts as one without payloads, which ends too late.
        fixed = data.ljust(_FRAME.size, b"\0")
        *pose, _, _, colour_size, depth_size = _FRAME.unpack(fixed)
        begin = offset + _FRAME.size
        end = begin + colour_size + depth_size
        if end > total:
            raise DataError(
                file,
                f"ends inside frame {index} of {header.num_frames} ({total} bytes): "
                "download it again",
            )
        yield SensRecord(
            index=index,
            camera_to_world=np.array(pose, np.float64).reshape(4, 4),
            colour=(begin, colour_size),
            depth=(begin + colour_size, depth_size),
        )
        offset = end


def read_sens(
    path: Path,
    *,
    stride: int = 1,
    size: Size | None = None,
    on_drop: Callable[[str], None] = lambda reason: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Iterator[Frame]:
    """Reads frames of a `.sens` file one by one; only one is ever in memory.

    The whole file is walked even where frames are skipped, so that a truncated one is noticed.

    Args:
        path: The file.
        stride: Every how many-th frame is decoded.
        size: Width and height of the frames; None keeps the colour images' size.
        on_drop: Called with the reason for every frame left out.
        on_note: Called with what is unusual about the file.

    Yields:
        Frames with depth resampled into the colour image's pixels, named by six digits.

    Raises:
        DataError: Truncated or damaged.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    with stream:
        header = read_header(stream, path)
        if not header.registered:
            on_note(f"{path.name}: extrinsics are not the identity, and not applied")
        target = size or header.colour_size
        k = scale_intrinsics(header.colour_k, header.colour_size, target)
        depth_k = depth_camera(
            header.depth_k, header.colour_k, header.colour_size, header.depth_size, path
        )
        for record in records(stream, header, path):
            if record.index % stride:
                continue
            fault = pose_fault(record.camera_to_world)
            if fault is None and not record.colour[1]:
                fault = "no colour image"
            if fault is None and not record.depth[1]:
                fault = "no depth image"
            if fault:
                on_drop(f"frame: {fault}")
                continue
            where = f"{path} frame {record.index}"
            depth = _depth(_payload(stream, record.depth), header, where)
            yield Frame(
                name=f"{record.index:06d}",
                colour=_colour(_payload(stream, record.colour), header, target, where),
                depth=millimetres(
                    sample_nearest(depth, depth_k, k, target), header.units_per_metre
                ),
                intrinsics=k,
                camera_to_world=record.camera_to_world,
            )


def _payload(stream: BinaryIO, place: tuple[int, int]) -> bytes:
    stream.seek(place[0])
    return stream.read(place[1])


def _colour(data: bytes, header: SensHeader, target: Size, where: str) -> Array:
    width, height = header.colour_size
    if header.colour_compression == _RAW_COLOUR:
        if len(data) != width * height * 3:
            raise DataError(where, f"{len(data)} bytes of raw colour for {width}x{height}")
        # As PPM, raw pixels take the same way to the target size as compressed ones.
        data = f"P6 {width} {height} 255\n".encode() + data
    colour, native = read_colour(data, target, file=where)
    if native != header.colour_size:
        raise DataError(where, f"colour of size {native}, the header says {header.colour_size}")
    return colour


def _depth(data: bytes, header: SensHeader, where: str) -> Array:
    width, height = header.depth_size
    expected = width * height * 2
    if header.depth_compression == _ZLIB:
        try:
            # Never inflates beyond one byte more than it must, whatever the payload claims.
            data = zlib.decompressobj().decompress(data, expected + 1)
        except zlib.error as error:
            raise DataError(where, f"damaged depth ({error})") from error
    if len(data) != expected:
        raise DataError(
            where, f"depth of another size: {len(data)} bytes, {width}x{height} needs {expected}"
        )
    return np.frombuffer(data, "<u2").reshape(height, width)
