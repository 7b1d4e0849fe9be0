"""PLY files, ASCII and binary: vertices, their attributes, and triangles."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plyfile

from haskd_jax.data.errors import DataError

Array = np.ndarray

_HEADER = 1 << 16  # comments may come before the line that names the format


@dataclass(frozen=True)
class Ply:
    """A PLY file.

    Attributes:
        vertex: [N] structured array, the vertex properties under the file's names.
        faces: [T, 3] int32 vertex indices; empty where the file has no triangles.
    """

    vertex: Array
    faces: Array

    def column(self, *names: str) -> Array | None:
        """The first property of these names that the file has: [N], or None."""
        present = self.vertex.dtype.names or ()
        return next((self.vertex[name] for name in names if name in present), None)

    def columns(self, names: tuple[str, ...]) -> Array | None:
        """The properties of these names side by side: [N, C], or None if one is missing."""
        if not set(names) <= set(self.vertex.dtype.names or ()):
            return None
        return np.stack([self.vertex[name] for name in names], axis=1)


def read_ply(path: Path) -> Ply:
    """Reads a PLY file.

    Args:
        path: The file.

    Returns:
        Its vertices and triangles.

    Raises:
        DataError: No PLY, fewer or more elements than its header says, or faces that name
            vertices which are not there.
    """
    try:
        data, more = _parse(path)
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    except (plyfile.PlyParseError, ValueError, MemoryError) as error:
        raise DataError(path, f"not a whole PLY file ({error})") from error
    if more:
        raise DataError(path, "goes on after the number of elements its header says")
    if "vertex" not in data:
        raise DataError(path, "has no vertices")
    vertex = np.array(data["vertex"].data)  # off the file
    faces = _triangles(data, path)
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertex)):
        raise DataError(path, f"a face names a vertex beyond the {len(vertex)} there are")
    return Ply(vertex=vertex, faces=faces)


def _parse(path: Path) -> tuple[plyfile.PlyData, bool]:
    """The file's elements, and whether there is more in it than its header says."""
    with path.open("rb") as stream:
        header = stream.read(_HEADER).partition(b"end_header")[0]
        if re.search(rb"[\r\n]format ascii", header):
            stream.seek(0)
            return _parse_text(stream.read())
        try:
            # With the lengths known, the parser maps the file and runs no Python per element.
            stream.seek(0)
            triangles = {"face": {"vertex_indices": 3}}
            data = plyfile.PlyData.read(stream, known_list_len=triangles)
        except (plyfile.PlyElementParseError, KeyError, ValueError):
            # Other polygons than triangles, or faces of another name.
            stream.seek(0)
            data = plyfile.PlyData.read(stream)
        return data, bool(stream.read(4096).strip())


def _parse_text(content: bytes) -> tuple[plyfile.PlyData, bool]:
    data = plyfile.PlyData.read(io.BytesIO(content))
    # The parser reads ahead, so where it stopped says nothing: count the lines.
    lines = content.split(b"end_header", 1)[1].split(b"\n")[1:]
    filled = sum(bool(line.strip()) for line in lines)
    return data, filled > sum(len(element.data) for element in data)


def _triangles(data: plyfile.PlyData, path: Path) -> Array:
    none = np.zeros((0, 3), np.int32)
    if "face" not in data or not len(data["face"].data):
        return none
    names = data["face"].data.dtype.names or ()
    name = next((n for n in ("vertex_indices", "vertex_index") if n in names), None)
    if name is None:
        return none
    lists = data["face"].data[name]
    if lists.dtype != object:
        return lists.astype(np.int32).reshape(-1, 3)
    # A polygon of n corners is a fan of n - 2 triangles around its first.
    fans = [[(c[0], c[i], c[i + 1]) for i in range(1, len(c) - 1)] for c in lists]
    flat = [triangle for fan in fans for triangle in fan]
    return np.array(flat, np.int32).reshape(-1, 3)
