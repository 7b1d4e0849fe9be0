"""The prepared form: one folder a scene, one .npy file an array, one manifest.

    <root>/dataset.json                 dataset, classes, version
    <root>/<scene>/manifest.json        source, options, counts, drops, shapes, checksums
    <root>/<scene>/points.npy ...       see ARRAYS

A scene appears under its name only when it is whole: it is written into a folder beside and
renamed. The same source and options give the same bytes.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from haskd_jax.data.errors import DataError
from haskd_jax.data.scene import (
    Array,
    Frames,
    Scene,
    no_frames,
)
from haskd_jax.digest import digest
from haskd_jax.files import map_array

VERSION = 1

CLOUD_ARRAYS: dict[str, np.dtype] = {
    "points": np.dtype("<f4"),
    "colour": np.dtype("u1"),
    "normals": np.dtype("<f4"),
    "label": np.dtype("<i4"),
    "instance": np.dtype("<i4"),
}
FRAME_ARRAYS: dict[str, np.dtype] = {
    "colour": np.dtype("u1"),
    "depth": np.dtype("<u2"),
    "intrinsics": np.dtype("<f4"),
    "camera_to_world": np.dtype("<f4"),
    "label": np.dtype("<i2"),
}
ARRAYS = CLOUD_ARRAYS | {f"frame_{name}": dtype for name, dtype in FRAME_ARRAYS.items()}
_KEYS = ("name", "dataset", "split", "options", "arrays", "frames", "counts", "drops", "notes")
_OPTIONAL = ("label", "instance", "frame_label")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.

    Returns:
        Its value.

    Raises:
        DataError: Missing, a folder, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(path, "missing") from error
    except (OSError, ValueError) as error:
        raise DataError(path, f"not readable as JSON ({error})") from error


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Reads and checks a scene's manifest.

    Args:
        folder: The scene's folder.

    Returns:
        The manifest.

    Raises:
        DataError: Missing, damaged, or of another version.
    """
    path = Path(folder) / "manifest.json"
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != "haskd-scene":
        raise DataError(path, "not the manifest of a prepared scene")
    if manifest.get("version") != VERSION:
        raise DataError(
            path, f"version {manifest.get('version')}, this package reads {VERSION}: prepare again"
        )
    missing = [key for key in _KEYS if key not in manifest]
    if missing:
        raise DataError(path, f"lacks {', '.join(missing)}: prepare again")
    return manifest


def scans_digest(root: str | Path, scenes: Iterable[str]) -> str:
    """One number for the content of scenes: another after they were prepared in another way.

    Args:
        root: A prepared root.
        scenes: Their names.

    Returns:
        16 hexadecimal digits, of the names and of what the manifests say of each array.

    Raises:
        DataError: A manifest is missing or damaged.

    Example:
        >>> scans_digest("no/root", [])
        '4f53cda18c2baa0c'
    """
    return digest([[name, read_manifest(Path(root) / name)["arrays"]] for name in scenes])


def frame_size(root: str | Path, scenes: Iterable[str]) -> tuple[int, int]:
    """Height and width of the frames of all scenes, which must be of one size to make a batch.

    Args:
        root: The prepared root.
        scenes: Names; those without frames do not count.

    Returns:
        Height and width.

    Raises:
        ValueError: They differ, or no scene has frames.
        DataError: A manifest is damaged.
    """
    found: dict[tuple[int, int], str] = {}  # the first scene of each size
    for name in scenes:
        manifest = read_manifest(Path(root) / name)
        if manifest["frames"]:
            _, height, width, _ = manifest["arrays"]["frame_colour"]["shape"]
            found.setdefault((height, width), name)
    if len(found) != 1:
        sizes = ", ".join(f"{w} x {h} in {name}" for (h, w), name in found.items()) or "none"
        raise ValueError(
            f"{root}: frames must be of one size in all scenes, there are {sizes}: prepare again "
            "with one (--frame-size)"
        )
    return next(iter(found))


def _open_array(folder: Path, name: str, entry: Mapping[str, Any]) -> Array:
    path = folder / f"{name}.npy"
    try:
        array = map_array(path)
    except (OSError, ValueError, EOFError) as error:
        reason = "missing" if not path.exists() else f"damaged ({error})"
        raise DataError(path, f"{reason}: remove the scene's folder and prepare again") from error
    if list(array.shape) != entry["shape"] or array.dtype != ARRAYS[name]:
        raise DataError(
            path,
            f"{array.dtype} {array.shape}, the manifest says {entry['dtype']} "
            f"{tuple(entry['shape'])}: remove the scene's folder and prepare again",
        )
    return array


def open_frames(folder: Path, entries: Mapping[str, Any], names: tuple[str, ...]) -> Frames:
    """Memory-maps the frames of a scene.

    Args:
        folder: The scene's folder.
        entries: Shape and type of each array, as in the manifest.
        names: The frames' names.

    Returns:
        The frames.

    Raises:
        DataError: A file is missing or does not fit its entry.
    """
    if not names:
        return no_frames()
    arrays = {
        name: _open_array(folder, f"frame_{name}", entries[f"frame_{name}"])
        for name in FRAME_ARRAYS
        if f"frame_{name}" in entries
    }
    return Frames(names=names, **arrays)


def load_scene(folder: str | Path) -> Scene:
    """Opens a prepared scene; arrays are memory-mapped and read only.

    Args:
        folder: The scene's folder.

    Returns:
        The scene.

    Raises:
        DataError: A file is missing, damaged or does not fit the manifest.

    Example:
        >>> load_scene("no/such/room")
        Traceback (most recent call last):
        ...
        haskd_jax.data.errors.DataError: no/such/room/manifest.json: missing
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    entries = manifest["arrays"]
    needed = set(CLOUD_ARRAYS) | (set(ARRAYS) if manifest["frames"] else set())
    for name in sorted(needed - set(_OPTIONAL) - set(entries)):
        raise DataError(folder / "manifest.json", f"lists no {name}: prepare again")
    cloud = {
        name: _open_array(folder, name, entries[name]) for name in CLOUD_ARRAYS if name in entries
    }
    frames = open_frames(folder, entries, tuple(manifest["frames"]))
    for name, entry in entries.items():
        if name.startswith("frame_") and entry["shape"][0] != len(frames):
            raise DataError(
                folder / "manifest.json",
                f"{len(frames)} names for frame arrays of {entry['shape'][0]}: prepare again",
            )
    lengths = {len(array) for array in cloud.values()}
    if lengths != {manifest["counts"]["points"]}:
        raise DataError(folder / "manifest.json", f"arrays of {sorted(lengths)} points")
    return Scene(name=manifest["name"], frames=frames, manifest=manifest, **cloud)


def verify_scene(folder: str | Path) -> Scene:
    """Opens a prepared scene and reads every byte against the manifest's checksums.

    Args:
        folder: The scene's folder.

    Returns:
        The scene.

    Raises:
        DataError: As `load_scene`, or a file's bytes have changed.
    """
    scene = load_scene(folder)
    for name, entry in scene.manifest["arrays"].items():
        array = _open_array(Path(folder), name, entry)
        crc = 0
        for row in array if array.ndim > 2 else (array,):
            crc = zlib.crc32(np.ascontiguousarray(row).data, crc)
        if crc != entry["crc32"]:
            raise DataError(
                Path(folder) / f"{name}.npy",
                "its bytes are not those that were written: remove the scene's folder and "
                "prepare again",
            )
    return scene


def list_scenes(root: str | Path, split: str | None = None) -> tuple[str, ...]:
    """The prepared scenes of a root, sorted by name.

    Args:
        root: The prepared root.
        split: Only the scenes of this part (of S3DIS: `Area_5` and so on); None for all.

    Returns:
        Their names.

    Raises:
        DataError: `root` is no prepared root, or no scene is of that split.
    """
    root = Path(root)
    read_dataset(root)
    names = [path.parent.name for path in root.glob("*/manifest.json")]
    names = sorted(name for name in names if not name.startswith("."))
    if split is None:
        return tuple(names)
    splits = {name: read_manifest(root / name)["split"] for name in names}
    chosen = tuple(name for name in names if splits[name] == split)
    if not chosen:
        found = sorted(set(splits.values()))
        raise DataError(root, f"no scene of split {split!r}; there are {found}")
    return chosen


def read_dataset(root: str | Path) -> dict[str, Any]:
    """What a prepared root holds.

    Args:
        root: The prepared root.

    Returns:
        `dataset`, its name; `classes`, the names of the labels 0, 1, ...

    Raises:
        DataError: `root` is no prepared root.
    """
    path = Path(root) / "dataset.json"
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != "haskd-dataset":
        raise DataError(path, "not the description of a prepared dataset")
    if value.get("version") != VERSION:
        raise DataError(
            path, f"version {value.get('version')}, this package reads {VERSION}: prepare again"
        )
    return value
