"""The select stage: which frames of each scene the teacher sees, decided once and written down."""

import functools
import logging
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from haskd_jax import views
from haskd_jax.data import DataError, Scene, load_scene
from haskd_jax.data.prepared import read_json, scans_digest
from haskd_jax.files import write_json

Method = Literal["iof", "uniform", "random", "coverage", "entropy", "stochastic"]
VERSION = 1

_logger = logging.getLogger(__name__)


def select(
    root: str | Path,
    scenes: Sequence[str],
    *,
    method: Method = "iof",
    num_views: int,
    voxel_size: float = 0.05,
    tolerance: float = 0.05,
    rho: float = 0.7,
    seed: int = 0,
    information: Callable[[Scene], np.ndarray] | None = None,
    on_scene: Callable[[str, dict[str, Any]], None] = lambda name, entry: None,
) -> dict[str, Any]:
    """Chooses frames of prepared scenes.

    What is chosen of a scene depends on the scene and the options alone, not on its company or
    order. Frames whose pose or intrinsics are unusable are never chosen. A scene with fewer frames
    than asked for gives all it has, and a warning is logged; one without frames has an empty entry.

    Args:
        root: The prepared root.
        scenes: Their names, see `data.list_scenes`.
        method: "iof", information-oriented filtering (`views.select_views`), or one of the
            baselines of `views`; "uniform" takes the middle of each of `num_views` equal parts.
        num_views: K, how many frames to choose of each scene.
        voxel_size: Of the voxels that are to be seen, metres. The mean of a voxel's points stands
            for it.
        tolerance: How far a voxel may lie from the depth map and still be seen, metres.
        rho: The share of a voxel's information that one perfect frame gives, in (0, 1].
        seed: Of "random" and "stochastic".
        information: Gives how much is wanted at each point of a scene, [N] at least 0; a voxel
            wants the mean of its points. `views.information` makes it of the logits of a model that
            sees points alone. None: every voxel the same.
        on_scene: Called with each scene's name and entry, once it is chosen.

    Returns:
        JSON values, for `write_selection`. "scenes" holds of each scene: "frames", how many there
        are; "indices" and "gains" of the chosen ones, in the order chosen, see `views.Selection`;
        "coverage", the share of the voxels that a chosen frame sees; "uniform", indices and
        coverage of as many frames uniform in time; "reach", the share of the voxels that any frame
        sees, which no choice exceeds; "quality" of every frame, see `views.frame_quality`; "scan",
        what the scene was, see `data.prepared.scans_digest`.

    Raises:
        ValueError: An argument out of its range, or no scene.
        DataError: A scene is missing or damaged.

    Example:
        >>> select("prepared", ["room"], num_views=0)
        Traceback (most recent call last):
        ...
        ValueError: num_views: 0, expected 1 or more
    """
    _check(scenes, method, num_views, rho, voxel_size=voxel_size, tolerance=tolerance)
    entries = {}
    for name in scenes:
        scene = load_scene(Path(root) / name)
        if 0 < len(scene.frames) < num_views:
            _logger.warning("%s has %d frames, not %d", name, len(scene.frames), num_views)
        entries[name] = _entry(
            scene,
            information,
            voxel_size,
            functools.partial(
                _choose,
                tolerance=tolerance,
                rho=rho,
                key=jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode())),
                method=method,
                num_views=num_views,
            ),
        )
        entries[name]["scan"] = scans_digest(root, [name])
        on_scene(name, entries[name])
    return {
        "format": "haskd-selection",
        "version": VERSION,
        "method": method,
        "num_views": num_views,
        "options": {
            "voxel_size": voxel_size,
            "tolerance": tolerance,
            "rho": rho,
            "seed": seed,
            "information": information is not None,
        },
        "scenes": entries,
    }


def write_selection(path: str | Path, selection: Mapping[str, Any]) -> None:
    """Writes a selection as JSON, all of it or nothing.

    Args:
        path: The file, `selection.json` of a run.
        selection: As `select` returns it.
    """
    write_json(Path(path), selection)


def read_selection(path: str | Path) -> dict[str, Any]:
    """Reads a selection and checks that loaders can use it.

    Args:
        path: The file.

    Returns:
        As `select` returned it. `{name: entry["indices"] for name, entry in
        selection["scenes"].items()}` is what `data.loader.Loader` takes.

    Raises:
        DataError: Missing, damaged, of another version, or with frames that a scene does not have.

    Example:
        >>> import tempfile
        >>> room = {"frames": 9, "indices": [4, 0], "gains": [3.0, 1.5], "coverage": 0.5}
        >>> room |= {"uniform": {"indices": [2, 6], "coverage": 0.4}, "quality": [1.0] * 9}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "selection.json"
        ...     write_selection(path, {"format": "haskd-selection", "version": 1, "method": "iof",
        ...                            "num_views": 2, "options": {}, "scenes": {"room": room}})
        ...     read_selection(path)["scenes"]["room"]["indices"]
        [4, 0]
    """
    path = Path(path)
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != "haskd-selection":
        raise DataError(path, "not a selection of frames")
    if value.get("version") != VERSION:
        raise DataError(
            path, f"version {value.get('version')}, this package reads {VERSION}: select again"
        )
    if not isinstance(value.get("scenes"), dict):
        raise DataError(path, "lists no scenes: select again")
    for name, entry in value["scenes"].items():
        try:
            frames, indices = entry["frames"], entry["indices"]
            fits = all(0 <= i < frames for i in indices) and len(set(indices)) == len(indices)
        except (KeyError, TypeError) as error:
            raise DataError(
                path, f"the entry of {name} is damaged ({error!r}): select again"
            ) from error
        if not fits:
            raise DataError(path, f"{name}: {indices} are no choice of {frames} frames")
    return value


class _Chosen(NamedTuple):
    selection: views.Selection
    coverage: jax.Array
    uniform: jax.Array
    uniform_coverage: jax.Array
    reach: jax.Array
    quality: jax.Array


@functools.partial(jax.jit, static_argnames=("method", "num_views"))
def _choose(
    points, wanted, mask, images, depth, intrinsics, poses, where, tolerance, rho, key, *,
    method, num_views,
):  # fmt: skip
    """Everything about one scene, in one compilation for all scenes padded to the same sizes."""
    depth = depth.astype(jnp.float32) / 1000
    visible = views.visibility(points, depth, intrinsics, poses, tolerance=tolerance, mask=mask)
    quality = views.frame_quality(images, where=where)
    given = {
        "num_views": num_views,
        "quality": quality,
        "information": wanted,
        "rho": rho,
        "where": where,
    }
    uniform = views.select_uniform(visible, placement="centres", **given)
    if method == "iof":
        selection = views.select_views(visible, **given)
    elif method == "uniform":
        selection = uniform
    elif method == "random":
        selection = views.select_random(visible, key=key, **given)
    elif method == "coverage":
        selection = views.select_coverage(visible, **given)
    elif method == "entropy":
        entropy = views.frame_entropy(images, where=where)
        selection = views.select_entropy(visible, entropy=entropy, **given)
    else:
        selection = views.select_stochastic_coverage(visible, key=key, **given)
    every = jnp.arange(len(visible), dtype=jnp.int32)
    return _Chosen(
        selection,
        views.coverage(visible, selection.indices, where=mask),
        uniform.indices,
        views.coverage(visible, uniform.indices, where=mask),
        views.coverage(visible, every, where=mask),
        quality,
    )


def _entry(scene, information, voxel_size, choose) -> dict[str, Any]:
    frames = scene.frames
    if not len(frames):
        nothing = {"indices": [], "coverage": 0.0}
        return nothing | {
            "frames": 0, "gains": [], "uniform": dict(nothing), "reach": 0.0, "quality": [],
        }  # fmt: skip
    per_point = None if information is None else _information(scene, information)
    points, wanted = _voxels(np.asarray(scene.points), per_point, voxel_size)
    rows, count = _rounded_up(len(points)), _rounded_up(len(frames))
    usable = np.asarray(views.valid_cameras(frames.intrinsics, frames.camera_to_world))
    if not usable.all():
        _logger.warning(
            "%s: %d of %d frames have no usable camera", scene.name, (~usable).sum(), len(frames)
        )
    found = jax.device_get(
        choose(
            _pad(points, rows),
            _pad(wanted, rows),
            np.arange(rows) < len(points),
            _pad(frames.colour, count),
            _pad(frames.depth, count),
            _pad(frames.intrinsics, count),
            _pad(frames.camera_to_world, count),
            _pad(usable, count),
        )
    )
    indices, gains = found.selection
    return {
        "frames": len(frames),
        "indices": indices[indices >= 0].tolist(),
        "gains": _numbers(gains[indices >= 0]),
        "coverage": _numbers(found.coverage),
        "uniform": {
            "indices": found.uniform[found.uniform >= 0].tolist(),
            "coverage": _numbers(found.uniform_coverage),
        },
        "reach": _numbers(found.reach),
        "quality": _numbers(found.quality[: len(frames)]),
    }


def _information(scene: Scene, information: Callable[[Scene], np.ndarray]) -> np.ndarray:
    values = np.asarray(information(scene), np.float64)
    if values.shape != (len(scene.points),):
        raise ValueError(
            f"information: shape {values.shape} for {len(scene.points)} points of {scene.name}"
        )
    wrong = values[~((values >= 0) & (values < np.inf))]
    if len(wrong):
        raise ValueError(f"information: {wrong[0]} in {scene.name}, expected finite numbers >= 0")
    return values


def _voxels(
    points: np.ndarray, per_point: np.ndarray | None, voxel_size: float
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each voxel's points, which lies near the surface, and of what they want."""
    cells = np.floor(points / voxel_size).astype(np.int64)
    cells -= cells.min(axis=0)
    shape = tuple((cells.max(axis=0) + 1).tolist())
    code = np.ravel_multi_index(tuple(cells.T), shape)
    _, voxel, count = np.unique(code, return_inverse=True, return_counts=True)

    def mean(values):
        return (np.bincount(voxel, weights=values) / count).astype(np.float32)

    centres = np.stack([mean(points[:, axis]) for axis in range(3)], axis=1)
    return centres, np.ones(len(count), np.float32) if per_point is None else mean(per_point)


def _rounded_up(size: int) -> int:
    """To a power of two or three quarters of one: a dataset compiles a handful of times."""
    power = 1 << max(size - 1, 3).bit_length()
    return 3 * power // 4 if size <= 3 * power // 4 else power


def _pad(array: np.ndarray, size: int) -> np.ndarray:
    padded = np.zeros((size, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def _numbers(values: np.ndarray) -> Any:
    """Plain numbers; six digits keep the file readable."""
    return np.round(np.asarray(values, np.float64), 6).tolist()


def _check(
    scenes: Sequence[str], method: str, num_views: int, rho: float, **lengths: float
) -> None:
    if method not in get_args(Method):
        raise ValueError(f"method: {method!r}, expected one of {', '.join(get_args(Method))}")
    if num_views < 1:
        raise ValueError(f"num_views: {num_views}, expected 1 or more")
    if not 0 < rho <= 1:
        raise ValueError(f"rho: {rho}, expected a number in (0, 1]")
    for name, length in lengths.items():
        if not 0 < length < math.inf:
            raise ValueError(f"{name}: {length}, expected a positive number of metres")
    if isinstance(scenes, str) or not len(scenes):
        raise ValueError(f"scenes: {scenes!r}, expected the names of one scene or more")
