"""S3DIS's text files: `x y z r g b` lines, some of them with damaged bytes.

The released text holds a few bytes below 32 that are neither tab nor line end: `103.0\\x100000`,
`-9.1\\x160`, `185\\x00187`. Each is the byte that belongs there with bit 5 lost: `0`, `6` and a
space. These three are repaired and reported; whatever else is no line of six numbers is refused.
"""

import io
import re
from pathlib import Path

import numpy as np

from haskd_jax.data.errors import DataError

Array = np.ndarray

_KNOWN = {0x00: b" ", 0x10: b"0", 0x16: b"6"}
_DAMAGED = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_FEW = 4  # known faults are single
_SLACK = 0.5  # metres by which a repaired point may lie outside the rest of its object


def read_points(path: Path) -> tuple[Array, Array, list[str]]:
    """Reads the points of one annotated object.

    Args:
        path: `Annotations/<class>_<n>.txt`.

    Returns:
        [N, 3] float64 metres, [N, 3] uint8 RGB, and the repairs in words, with file and line.

    Raises:
        DataError: A line is not six numbers and not a known fault; names file and line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    data, repaired = _repair(data, path)
    table = _parse(data, path)
    points, colour = table[:, :3], table[:, 3:]
    with np.errstate(invalid="ignore"):
        good = np.isfinite(points).all(axis=1) & ((colour >= 0) & (colour <= 255)).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            path, f"line {_lines(data)[row]}: {table[row].tolist()} is no point; mend it by hand"
        )
    if repaired:
        _check_repairs(points, _lines(data), repaired, path)
    notes = [f"{path.parent.parent.name}/{path.name} line {n}: {text}" for n, text in repaired]
    return points, np.rint(colour).astype(np.uint8), notes


def _repair(data: bytes, path: Path) -> tuple[bytes, list[tuple[int, str]]]:
    damaged = [match.start() for match in _DAMAGED.finditer(data)]
    if not damaged:
        return data, []
    if len(damaged) > _FEW:  # a file with a hole, not one with a flipped bit
        line = data.count(b"\n", 0, damaged[0]) + 1
        raise DataError(
            path, f"line {line}: {len(damaged)} damaged bytes in one file: download it again"
        )
    whole = bytearray(data)
    repaired = []
    for position in damaged:
        line = data.count(b"\n", 0, position) + 1
        byte = data[position]
        if byte not in _KNOWN:
            raise DataError(path, f"line {line}: damaged byte 0x{byte:02x}; mend it by hand")
        whole[position] = _KNOWN[byte][0]
        repaired.append((line, f"byte 0x{byte:02x} read as {_KNOWN[byte].decode()!r}"))
    return bytes(whole), repaired


def _parse(data: bytes, path: Path) -> Array:
    if not data.strip():
        raise DataError(path, "holds no points")
    try:
        table = np.loadtxt(io.BytesIO(data), ndmin=2, comments=None)
        if table.shape[1] == 6:
            return table
    except ValueError:
        pass  # which line it is, is found below
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip() and not _is_point(line.split()):
            raise DataError(
                path, f"line {number}: expected x y z r g b, found {line[:80]!r}; mend it by hand"
            )
    raise DataError(path, "holds numbers that are no plain decimals; mend it by hand")


def _is_point(words: list[bytes]) -> bool:
    try:
        return len([float(word) for word in words]) == 6
    except ValueError:
        return False


def _lines(data: bytes) -> list[int]:
    """The line of each point."""
    return [number for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]


def _check_repairs(
    points: Array, lines: list[int], repaired: list[tuple[int, str]], path: Path
) -> None:
    """A repaired point must lie where the rest of its object lies."""
    rows = [lines.index(line) for line, _ in repaired]
    others = np.delete(points, rows, axis=0)
    if not len(others):
        return
    low, high = others.min(axis=0) - _SLACK, others.max(axis=0) + _SLACK
    for row, (line, text) in zip(rows, repaired, strict=True):
        if (points[row] < low).any() or (points[row] > high).any():
            raise DataError(
                path,
                f"line {line}: with {text} the point {points[row].tolist()} lies outside its "
                "object; mend it by hand",
            )
