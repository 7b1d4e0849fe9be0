"""What the viewer shows: a run folder, a prepared root, or a PLY with predictions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float32, UInt8

from haskd_jax.data.errors import DataError
from haskd_jax.data.palettes import palette
from haskd_jax.data.ply import read_ply
from haskd_jax.data.prepared import list_scenes, load_scene, read_dataset
from haskd_jax.data.scene import Frames, no_frames
from haskd_jax.report.pictures import class_colours, error_colours
from haskd_jax.report.run_folder import Run, read_run

Array = np.ndarray
_COLOURS, _TRUTH = "Colours", "Truth"


@dataclass(frozen=True)
class ViewScene:
    """A scene to walk around in.

    Attributes:
        points: [N, 3] float32, metres, z up.
        normals: [N, 3] float32, zero where unknown.
        layers: [N, 3] uint8 colours by what they show.
        frames: The posed frames, possibly none.
        chosen: Which of them the teacher was shown.
    """

    points: Float32[Array, "N 3"]
    normals: Float32[Array, "N 3"]
    layers: Mapping[str, UInt8[Array, "N 3"]]
    frames: Frames = field(default_factory=no_frames)
    chosen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Source:
    """Scenes by name.

    Attributes:
        title: Of the window.
        names: Of the scenes; there is one at least.
        classes: Names for the legend.
        load: A scene by its name.
    """

    title: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    load: Callable[[str], ViewScene]


def open_source(path: str | Path) -> Source:
    """Recognises what `path` is.

    Args:
        path: A run folder, a prepared root, or a PLY that `haskd predict` wrote.

    Returns:
        Its scenes; each is read when it is asked for.

    Raises:
        DataError: None of these, damaged, or without a scene.

    Example:
        >>> open_source("no/such/place")
        Traceback (most recent call last):
        ...
        haskd_jax.data.errors.DataError: no/such/place: missing
    """
    path = Path(path)
    if not path.exists():
        raise DataError(path, "missing")
    if path.is_file():
        return _ply_source(path)
    if (path / "run.json").exists():
        return _run_source(read_run(path))
    if (path / "dataset.json").exists():
        return _prepared_source(path)
    raise DataError(
        path, "neither a run folder (run.json) nor a prepared root (dataset.json) nor a PLY file"
    )


def _prepared_source(root: Path) -> Source:
    classes = tuple(read_dataset(root)["classes"])

    def load(name: str) -> ViewScene:
        return _view(root, name, classes, {}, ())

    names = list_scenes(root)
    if not names:
        raise DataError(root, "holds no scene: prepare some first")
    return Source(str(root), names, classes, load)


def _run_source(run: Run) -> Source:
    root = run.prepared
    if root is None:
        raise DataError(
            run.folder / "run.json",
            f"its prepared scenes are not at {run.info.get('prepared')!r}: put them there, or "
            "give the prepared root itself",
        )
    classes, present = run.classes, list_scenes(root)
    # Scenes with predictions come first: the others show no more than the prepared root.
    pictured = [name for name in run.pictured_scenes() if name in present]
    names = tuple(pictured) + tuple(name for name in present if name not in pictured)
    if not names:
        raise DataError(root, "holds no scene: prepare some first")

    def load(name: str) -> ViewScene:
        count = len(load_scene(root / name).points)
        predictions = {
            arm.title: predicted
            for arm in run.arms
            if (predicted := arm.predictions(name, count, len(classes))) is not None
        }
        selected = (run.selection or {}).get("scenes", {}).get(name, {})
        return _view(root, name, classes, predictions, tuple(selected.get("indices", ())))

    return Source(str(run.folder), names, classes, load)


def _view(
    root: Path,
    name: str,
    classes: tuple[str, ...],
    predictions: Mapping[str, Array],
    chosen: tuple[int, ...],
) -> ViewScene:
    scene = load_scene(root / name)
    layers = {_COLOURS: np.array(scene.colour)}
    if scene.label is not None:
        layers[_TRUTH] = class_colours(scene.label, classes)
    for arm, predicted in predictions.items():
        layers[f"Prediction: {arm}"] = class_colours(predicted, classes)
        if scene.label is not None:
            layers[f"Error: {arm}"] = error_colours(scene.label, predicted)
    points, normals = np.array(scene.points), np.array(scene.normals)
    return ViewScene(points, normals, layers, scene.frames, chosen)


def _ply_source(path: Path) -> Source:
    ply = read_ply(path)
    points = ply.columns(("x", "y", "z"))
    if points is None or not len(points):
        raise DataError(path, "has no points (vertex properties x, y, z)")
    layers: dict[str, Array] = {}
    label = ply.column("label")
    classes: tuple[str, ...] = ()
    if label is not None:
        label = label.astype(np.int64)
        classes = _named_classes(path, max(int(label.max()) + 1, 1))
        layers["Prediction"] = class_colours(np.maximum(label, -1), classes)
    colours = ply.columns(("red", "green", "blue"))
    if colours is not None and label is None:  # a prediction's colours are those of its classes
        layers[_COLOURS] = colours.astype(np.uint8)
    confidence = ply.column("confidence")
    if confidence is not None:
        layers["Confidence"] = _ramp(np.nan_to_num(confidence.astype(np.float64)))
    if not layers:
        layers[_COLOURS] = np.full((len(points), 3), 128, np.uint8)
    normals = ply.columns(("nx", "ny", "nz"))
    if normals is None:
        normals = np.zeros_like(points)
    scene = ViewScene(points.astype(np.float32), normals.astype(np.float32), layers)
    return Source(str(path), (path.stem,), classes, lambda _: scene)


def _named_classes(path: Path, count: int) -> tuple[str, ...]:
    """The names in the header's comments, `class NUMBER NAME`; numbers where there are none.

    `haskd predict` percent-encodes what a header has no room for.
    """
    named = {}
    with path.open("rb") as file:
        for line in iter(file.readline, b""):
            if line.strip() == b"end_header":
                break
            words = line.decode("utf-8", "replace").split(maxsplit=3)
            if words[:2] == ["comment", "class"] and len(words) == 4 and words[2].isdecimal():
                named[int(words[2])] = unquote(words[3].strip())
    count = max(count, len(named))
    return tuple(named.get(i, f"class {i}") for i in range(count))


def _ramp(share: Array) -> Array:
    """From orange (0) over white to blue (1), which people of every colour vision tell apart."""
    stops = np.array([[217, 95, 14], [247, 247, 247], [33, 102, 172]], np.float64)
    at = np.array([0.0, 0.5, 1.0])
    share = np.clip(share, 0, 1)
    return np.stack([np.interp(share, at, stops[:, c]) for c in range(3)], 1).astype(np.uint8)


def legend(classes: tuple[str, ...]) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    """Names and colours of the classes.

    Args:
        classes: C names.

    Returns:
        C pairs.

    Example:
        >>> legend(("floor",))
        (('floor', (152, 223, 138)),)
    """
    colours = palette(classes).tolist()
    return tuple((name, (c[0], c[1], c[2])) for name, c in zip(classes, colours, strict=True))
