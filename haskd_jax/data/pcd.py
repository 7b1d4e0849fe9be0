"""PCD 0.7 files (Point Cloud Library): ascii, binary and binary_compressed."""

from pathlib import Path

import numpy as np

from haskd_jax.data.errors import DataError

Array = np.ndarray


def read_pcd(path: Path) -> dict[str, Array]:
    """Reads the fields of a PCD file.

    Args:
        path: The file.

    Returns:
        Each field by its name: [N], or [N, count] where its COUNT is not 1. `rgb` is unpacked
        to [N, 3] uint8.

    Raises:
        DataError: No PCD file, or fewer data than its header says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    header, body = _split_header(data, path)
    try:
        names = header["FIELDS"]
        sizes = [int(size) for size in header["SIZE"]]
        kinds = [kind.lower() for kind in header["TYPE"]]
        types = [np.dtype(f"<{kind}{size}") for kind, size in zip(kinds, sizes, strict=True)]
        counts = [int(count) for count in header.get("COUNT", ["1"] * len(names))]
        points = int(header["POINTS"][0])
        layout = header["DATA"][0]
        fields = list(zip(names, types, counts, strict=True))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(path, f"damaged PCD header ({error!r})") from error
    if points < 0 or any(count < 1 for count in counts):
        raise DataError(path, "damaged PCD header (a count below one)")
    if layout == "ascii":
        columns = _ascii(body, fields, points, path)
    elif layout == "binary":
        columns = _binary(body, fields, points, path)
    elif layout == "binary_compressed":
        columns = _compressed(body, fields, points, path)
    else:
        raise DataError(path, f"DATA {layout!r}, expected ascii, binary or binary_compressed")
    columns.pop("_", None)  # padding
    for name in ("rgb", "rgba"):
        if name in columns:
            columns["rgb"] = _unpack(columns.pop(name))
    return columns


def _split_header(data: bytes, path: Path) -> tuple[dict[str, list[str]], bytes]:
    header: dict[str, list[str]] = {}
    begin = 0
    while "DATA" not in header:
        end = data.find(b"\n", begin)
        if end < 0 or end > 65536:
            raise DataError(path, "not a PCD file: no DATA line")
        words = data[begin:end].decode("ascii", "replace").split()
        begin = end + 1
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    return header, data[begin:]


def _unpack(packed: Array) -> Array:
    if packed.dtype.itemsize != 4:
        packed = packed.astype(np.uint32)
    bits = np.ascontiguousarray(packed).view(np.uint32)
    return np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=-1).astype(np.uint8)


Fields = list[tuple[str, np.dtype, int]]


def _ascii(body: bytes, fields: Fields, points: int, path: Path) -> dict[str, Array]:
    width = sum(count for _, _, count in fields)
    words = body.split()
    if len(words) != points * width:
        raise DataError(path, f"{len(words)} values, the header says {points} x {width}")
    table = np.array(words).reshape(points, width)
    columns: dict[str, Array] = {}
    begin = 0
    for name, dtype, count in fields:
        part = table[:, begin : begin + count]
        try:
            column = part.astype(np.float64 if dtype.kind == "f" else np.int64).astype(dtype)
        except ValueError as error:
            raise DataError(path, f"field {name}: {error}") from error
        columns[name] = column[:, 0] if count == 1 else column
        begin += count
    return columns


def _binary(body: bytes, fields: Fields, points: int, path: Path) -> dict[str, Array]:
    # Fields named "_" are padding and may repeat, so a structured type needs names of its own.
    dtype = np.dtype([(str(i), kind, (count,)) for i, (_, kind, count) in enumerate(fields)])
    if len(body) < points * dtype.itemsize:
        raise DataError(path, f"{len(body)} bytes of data, {points * dtype.itemsize} expected")
    table = np.frombuffer(body, dtype, points)
    return {
        name: table[str(i)][:, 0] if count == 1 else table[str(i)]
        for i, (name, _, count) in enumerate(fields)
    }


def _compressed(body: bytes, fields: Fields, points: int, path: Path) -> dict[str, Array]:
    packed, size = (int(v) for v in np.frombuffer(body[:8].ljust(8, b"\0"), "<u4"))
    expected = points * sum(kind.itemsize * count for _, kind, count in fields)
    if size != expected or len(body) < 8 + packed:
        raise DataError(path, f"{size} bytes of compressed data, {expected} expected, or cut short")
    data = _lzf(body[8 : 8 + packed], size, path)
    columns: dict[str, Array] = {}
    begin = 0
    for name, kind, count in fields:  # stored field by field
        column = np.frombuffer(data, kind, points * count, begin).reshape(points, count)
        columns[name] = column[:, 0] if count == 1 else column
        begin += points * count * kind.itemsize
    return columns


def _lzf(data: bytes, size: int, path: Path) -> bytes:
    """LibLZF: a byte below 32 starts a literal run, others copy from what was written."""
    out = bytearray()
    i = 0
    try:
        while i < len(data):
            control = data[i]
            i += 1
            if control < 32:
                out += data[i : i + control + 1]
                i += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[i]
                i += 1
            begin = len(out) - ((control & 31) << 8 | data[i]) - 1
            i += 1
            if begin < 0:
                raise DataError(path, "damaged compressed data")
            length += 2
            chunk = out[begin : begin + length]
            out += (chunk * (length // len(chunk) + 1))[:length]
    except IndexError as error:
        raise DataError(path, "compressed data end too early") from error
    if len(out) != size:
        raise DataError(path, f"compressed data hold {len(out)} bytes, {size} expected")
    return bytes(out)
