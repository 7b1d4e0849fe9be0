"""`haskd predict`: the classes of a scan without labels, from the command line."""

from collections.abc import Sequence
from pathlib import Path
from string import punctuation
from typing import Annotated, Literal
from urllib.parse import quote

import numpy as np
import tyro

from haskd_jax.data import DataError, Scene, load_scene
from haskd_jax.data.own import OwnScans
from haskd_jax.data.palettes import palette
from haskd_jax.data.writer import SceneWriter
from haskd_jax.experiments.trained import Trained, check_writable, load_trained
from haskd_jax.guarded import guarded

Array = np.ndarray
# Headers of PLY files are lines of ASCII: the rest is percent-encoded, and so the sign itself.
_AS_IT_IS = " " + punctuation.replace("%", "")


def predict(
    scan: tyro.conf.Positional[Path],
    checkpoint: Path,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    tta: Literal[1, 4, 10, 13] = 1,
    views: int = 8,
    metres_per_unit: float = 1.0,
    depth_units_per_metre: float = 1000.0,
    frame_stride: int = 1,
) -> int:
    """Predicts the class of every point of a scan; writes a PLY coloured by class.

    The points keep their order; `label` is the number of the class, `confidence` its probability.
    Points that are not finite are left out, and counted. Scans of any size: large ones are cut
    into overlapping crops.

    Args:
        scan: A cloud (.ply, .pcd, .npz), or a folder of posed RGB-D frames, which are fused.
        checkpoint: Folder of the training: it holds card.json and weights.
        out: The .ply to write.
        tta: Test-time augmentation: 1 for none, 4 for quarter turns, 13 as on ScanNet, 10 as on
            S3DIS.
        views: Frames that a teacher sees; a student sees none.
        metres_per_unit: What the cloud's coordinates are multiplied by (0.001: millimetres).
        depth_units_per_metre: What depth images count in (1000: millimetres).
        frame_stride: Every how many-th frame of a folder is used.
    """
    import tempfile

    from rich.console import Console
    from rich.markup import escape

    check_writable(out, ".ply")
    trained = load_trained(checkpoint)
    source = OwnScans(
        scan,
        labels=False,
        metres_per_unit=metres_per_unit,
        depth_units_per_metre=depth_units_per_metre,
        frame_stride=frame_stride,
    )
    console = Console()
    with tempfile.TemporaryDirectory(prefix="haskd-predict-") as folder, console.status("reading"):
        scene = read_scan(source, Path(folder))
        if len(scene.frames) and metres_per_unit != 1:
            raise ValueError(
                f"metres_per_unit: {metres_per_unit}, but {scan} holds RGB-D frames, whose poses "
                "are in metres: depth_units_per_metre says what depth counts in"
            )
        for reason, count in sorted(scene.manifest["drops"].items()):
            console.print(f"left out: {count:,} x {escape(reason)}")
        missing = scene.manifest["estimated"]
        if "colour" in missing:
            console.print("[yellow]the scan has no colour: expect less of the prediction[/yellow]")
        said = f"{scene.name}: {len(scene.points):,} points"
        console.print(said, highlight=False, markup=False)
        labels, confidence = _predict(trained, scene, tta=tta, views=views)
        points = scene.points / scene.points.dtype.type(metres_per_unit)
        classes = trained.network.card.classes
        write_prediction(out, points, labels, confidence, classes)
    console.print(_table(labels, confidence, classes))
    console.print(f"written to {escape(str(out))}", soft_wrap=True)
    return 0


def read_scan(source: OwnScans, folder: Path) -> Scene:
    """Reads the one scan of a source as `haskd prepare` does.

    Args:
        source: Of one scan.
        folder: Where its arrays go: the scene holds on to them.

    Returns:
        The scene.

    Raises:
        ValueError: There are several scans.
        DataError: The scan is not readable.
    """
    names = list(source.sources())
    if len(names) > 1:
        raise ValueError(f"scan: {source.raw} holds {len(names)}: {', '.join(names)}; give one")
    with SceneWriter(folder, names[0]) as writer:
        try:
            source.read(names[0], writer)
            writer.commit(dataset="own", split="none", options={})
        except DataError:
            raise
        except ValueError as error:
            raise DataError(source.raw, str(error)) from error
    return load_scene(folder / names[0])


def _predict(trained: Trained, scene: Scene, *, tta: int, views: int) -> tuple[Array, Array]:
    """[N] class and [N] probability."""
    from haskd_jax.train.prediction import predict_scene

    found = predict_scene(*trained, scene, tta=tta, views=views)
    labels = np.argmax(found, axis=1)
    return labels.astype(np.int16), np.max(found, axis=1)


def write_prediction(
    path: Path,
    points: Array,
    labels: Array,
    confidence: Array,
    classes: Sequence[str],
) -> None:
    """Writes a cloud coloured by class as a binary PLY, whole or not at all.

    Args:
        path: The file.
        points: [N, 3] float32.
        labels: [N] number of the class.
        confidence: [N] float32 in [0, 1].
        classes: Their names, which go into the header as comments, percent-encoded where a line
            of printable ASCII does not hold them.
    """
    import plyfile

    from haskd_jax.files import write_whole

    names = ("x", "y", "z", "red", "green", "blue", "label", "confidence")
    types = ("<f4",) * 3 + ("u1",) * 3 + ("<i2", "<f4")
    vertex = np.empty(len(points), list(zip(names, types, strict=True)))
    columns = (*points.T, *palette(classes)[labels].T, labels, confidence)
    for name, column in zip(names, columns, strict=True):
        vertex[name] = column
    comments = [f"class {i} {quote(name, safe=_AS_IT_IS)}" for i, name in enumerate(classes)]
    element = plyfile.PlyElement.describe(vertex, "vertex")
    data = plyfile.PlyData([element], byte_order="<", comments=comments)

    def write(beside: Path) -> None:
        with beside.open("wb") as stream:
            data.write(stream)

    write_whole(path, write)


def _table(labels: Array, confidence: Array, classes: Sequence[str]):
    from rich.markup import escape
    from rich.table import Table

    table = Table("class", "points", "share", "confidence")
    counts = np.bincount(labels, minlength=len(classes))
    sums = np.bincount(labels, weights=confidence, minlength=len(classes))
    colours = palette(classes)
    for number in np.argsort(-counts, kind="stable"):
        if counts[number]:
            red, green, blue = colours[number]
            table.add_row(
                f"[rgb({red},{green},{blue})]██[/] {escape(classes[number])}",
                f"{counts[number]:,}",
                f"{100 * counts[number] / len(labels):.1f} %",
                f"{sums[number] / counts[number]:.2f}",
            )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `haskd predict`.

    Args:
        arguments: After `predict`; those of the command line by default.

    Returns:
        The exit code.
    """
    return guarded("predict", lambda: tyro.cli(predict, prog="haskd predict", args=arguments))


if __name__ == "__main__":
    raise SystemExit(main())
