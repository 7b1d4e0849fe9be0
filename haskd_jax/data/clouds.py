"""Clouds of people's own scans: PLY, PCD and NPZ to one form."""

import zipfile
from pathlib import Path

import numpy as np

from haskd_jax.data.errors import DataError
from haskd_jax.data.normals import mesh_normals
from haskd_jax.data.pcd import read_pcd
from haskd_jax.data.ply import read_ply
from haskd_jax.data.scene import Cloud, check_cloud, finite_cloud

Array = np.ndarray

SUFFIXES = (".ply", ".pcd", ".npz")
_LABEL = ("label", "labels", "class", "semantic", "segment")
_INSTANCE = ("instance", "instances", "instance_id")
_COLOUR = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)


def read_cloud(path: str | Path, *, metres_per_unit: float = 1.0, labels: bool = True) -> Cloud:
    """Reads a cloud of one's own.

    Args:
        path: A .ply, .pcd or .npz file. NPZ keys: `points` (or `xyz`, `coord`) and, where known,
            `colour` (`color`, `rgb`), `normals` (`normal`), and as in the other two `label`
            (`labels`, `class`, `semantic`, `segment`) and `instance` (`instances`,
            `instance_id`), in any case and with or without CloudCompare's `scalar_`.
        metres_per_unit: What the file's coordinates are multiplied by.
        labels: Whether labels and instances are read.

    Returns:
        The cloud, which may hold points that are not finite. Colours given as fractions are
        scaled to 0-255.

    Raises:
        DataError: Not readable, or arrays that do not fit together.
    """
    path = Path(path)
    readers = {".ply": _from_ply, ".pcd": _from_pcd, ".npz": _from_npz}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(path, f"is none of {', '.join(SUFFIXES)}")
    try:
        points, colour, normals, fields = reader(path)
        if points is None:
            raise ValueError("has no coordinates (x, y, z; in .npz: points)")
        label, instance = (
            _first(fields, names) if labels else None for names in (_LABEL, _INSTANCE)
        )
        if np.ndim(points) != 2:
            raise ValueError(f"points: shape {np.shape(points)}, expected [N, 3]")
        cloud = Cloud(
            points=(np.asarray(points, np.float64) * metres_per_unit).astype(np.float32),
            colour=None if colour is None else _bytes(np.asarray(colour)),
            normals=None if normals is None else np.asarray(normals, np.float32),
            label=_integers(label, "label"),
            instance=_integers(instance, "instance"),
        )
        for name, array in vars(cloud).items():
            rows = 0 if array is None else len(np.atleast_1d(array))
            if array is not None and rows != len(cloud.points):
                raise ValueError(f"{rows} rows of {name}, {len(cloud.points)} points")
        check_cloud(finite_cloud(cloud)[0])
    except DataError:
        raise
    except ValueError as error:
        raise DataError(path, str(error)) from error
    return cloud


def _bytes(colour: Array) -> Array:
    if colour.dtype == np.uint8:
        return colour
    if not np.isfinite(colour).all() or colour.min(initial=0) < 0:
        raise ValueError("colour: not finite, or below 0")
    largest = colour.max(initial=0)
    # Filters make some fractions a little larger than 1.
    overshoots = largest < 2 and not np.array_equal(colour, np.rint(colour))
    if colour.dtype.kind == "f" and (largest <= 1 or overshoots):
        return np.rint(np.minimum(colour, 1) * 255).astype(np.uint8)
    if largest > 255:
        if colour.dtype != np.uint16:
            raise ValueError(f"colour: {largest} is above 255")
        return (colour >> 8).astype(np.uint8)
    return np.rint(colour).astype(np.uint8)


def _integers(values: Array | None, name: str) -> Array | None:
    if values is None:
        return None
    values = np.asarray(values)
    if values.dtype.kind in "iuf" and np.isfinite(values).all():
        integers = values.astype(np.int32)
        if np.array_equal(integers, values):
            return integers
    raise ValueError(f"{name}: {values.dtype} that are not integers of 32 bits")


# Points, colour and normals, and all fields by their names.
Parts = tuple[Array | None, Array | None, Array | None, dict[str, Array]]


def _from_ply(path: Path) -> Parts:
    ply = read_ply(path)
    points = ply.columns(("x", "y", "z"))
    colour = next((c for c in map(ply.columns, _COLOUR) if c is not None), None)
    normals = ply.columns(("nx", "ny", "nz"))
    if normals is None and points is not None and len(ply.faces):
        normals = mesh_normals(points, ply.faces)
    return (
        points,
        colour,
        normals,
        {name: ply.vertex[name] for name in ply.vertex.dtype.names or ()},
    )


def _from_pcd(path: Path) -> Parts:
    fields = read_pcd(path)

    def stack(*names: str) -> Array | None:
        if any(name not in fields for name in names):
            return None
        return np.stack([fields[name] for name in names], axis=1)

    return (
        stack("x", "y", "z"),
        fields.get("rgb", stack("r", "g", "b")),
        stack("normal_x", "normal_y", "normal_z"),
        fields,
    )


def _from_npz(path: Path) -> Parts:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(path, f"not readable as .npz without pickle ({error})") from error
    return (
        _first(arrays, ("points", "xyz", "coord")),
        _first(arrays, ("colour", "color", "rgb")),
        _first(arrays, ("normals", "normal")),
        arrays,
    )


def _first(arrays: dict[str, Array], names: tuple[str, ...]) -> Array | None:
    """The first that is there by its very name, else the one that is in another case.

    CloudCompare writes `scalar_` before the names of its fields.
    """
    exact = next((arrays[name] for name in names if name in arrays), None)
    if exact is not None:
        return exact
    near = [field for field in arrays if field.lower().removeprefix("scalar_") in names]
    if len(near) > 1:
        raise ValueError(f"{names[0]}: {', '.join(near)} may be meant: keep one of them")
    return arrays[near[0]] if near else None
