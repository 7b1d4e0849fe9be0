"""`haskd predict`: from a scan file to a coloured one."""

import io
import json

import numpy as np
import plyfile
import pytest
from rich.console import Console

from haskd_jax.data import Scene
from haskd_jax.data.own import OwnScans
from haskd_jax.data.palettes import palette
from haskd_jax.experiments.predict_cli import _table, main, read_scan
from haskd_jax.report.view_source import open_source
from haskd_jax.train.prediction import predict_scene
from tests.data import raw
from tests.train.trained import (
    CLASSES,
    cloud,
    make_student,
    make_teacher,
    weights,
    write_training,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_training(tmp_path_factory.mktemp("run") / "arm", make_student()))


def write_scan(path, *, count=600, normals=True):
    scan = cloud(8, count=count, labels=False)
    more = {"normals": scan.normals} if normals else {}
    np.savez(path, points=scan.points, colour=scan.colour, **more)
    return scan


def test_points_keep_their_order_and_get_label_confidence_and_colour(checkpoint, tmp_path, capsys):
    scan = write_scan(tmp_path / "scan.npz")
    out = tmp_path / "out.ply"
    assert main([str(tmp_path / "scan.npz"), "--checkpoint", checkpoint, "-o", str(out)]) == 0
    network = make_student()
    scene = Scene("scan", scan.points, scan.colour, scan.normals)
    expected = predict_scene(network, *weights(network), scene)
    ply = plyfile.PlyData.read(out)
    vertex = ply["vertex"]
    np.testing.assert_array_equal(np.stack([vertex[c] for c in "xyz"], 1), scan.points)
    np.testing.assert_array_equal(vertex["label"], expected.argmax(axis=1))
    np.testing.assert_allclose(vertex["confidence"], expected.max(axis=1), rtol=1e-6)
    colour = np.stack([vertex[c] for c in ("red", "green", "blue")], 1)
    np.testing.assert_array_equal(colour, palette(CLASSES)[vertex["label"]])
    assert [f"class {i} {name}" for i, name in enumerate(CLASSES)] == list(ply.comments)
    said = capsys.readouterr().out
    most = CLASSES[np.bincount(vertex["label"]).argmax()]
    assert most in said and "600 points" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ply", "scan.npz"]


def test_any_name_of_a_class_is_written_shown_and_read_back(tmp_path, capsys):
    """Headers of PLY files are ASCII; what stands in brackets is no markup."""
    classes = ("Tür", "50 %\nor more", "[red]chair", "shower curtain (a-b, c/d)")
    checkpoint = write_training(tmp_path / "arm", make_student(classes))
    write_scan(tmp_path / "scan.npz")
    out = tmp_path / "out.ply"
    assert main([str(tmp_path / "scan.npz"), "--checkpoint", str(checkpoint), "-o", str(out)]) == 0
    assert open_source(out).classes == classes
    comments = plyfile.PlyData.read(out).comments
    assert comments[0] == "class 0 T%C3%BCr"
    assert comments[2:] == ["class 2 [red]chair", "class 3 shower curtain (a-b, c/d)"]
    labels = plyfile.PlyData.read(out)["vertex"]["label"]
    assert ("[red]chair" in capsys.readouterr().out) == (2 in labels)
    table = Console(file=io.StringIO())
    table.print(_table(np.array([2]), np.array([0.5]), classes))
    assert "[red]chair" in table.file.getvalue()


def test_units_and_points_that_are_not_finite(checkpoint, tmp_path, capsys):
    scan = write_scan(tmp_path / "metres.npz", normals=False)
    points = scan.points * 1000
    points[5] = np.nan
    np.savez(tmp_path / "scan.npz", points=points, colour=scan.colour)
    given = [str(tmp_path / "scan.npz"), "--checkpoint", checkpoint]
    out = tmp_path / "out.ply"
    assert main([*given, "-o", str(out), "--metres-per-unit", "0.001"]) == 0
    assert "left out: 1 x point: not finite" in capsys.readouterr().out
    vertex = plyfile.PlyData.read(out)["vertex"]
    found = np.stack([vertex[c] for c in "xyz"], 1)
    np.testing.assert_allclose(found, np.delete(points, 5, axis=0), atol=1e-3)


def test_a_folder_of_posed_frames_is_fused(tmp_path):
    raw.write_frames(tmp_path / "walk", raw.walk(6))
    scene = read_scan(OwnScans(tmp_path / "walk"), tmp_path)
    assert scene.name == "walk" and len(scene.frames) == 6
    assert len(scene.points) > 500
    np.testing.assert_allclose(np.linalg.norm(scene.normals, axis=1), 1, atol=1e-3)


def test_a_teacher_predicts_a_folder_of_posed_frames(tmp_path, capsys):
    """Its images are the folder's: without views it says something else."""
    teacher = str(write_training(tmp_path / "teacher", make_teacher()))
    raw.write_frames(tmp_path / "walk", raw.walk(6))
    found = {}
    for views in (0, 2):
        out = tmp_path / f"{views}.ply"
        given = [str(tmp_path / "walk"), "--checkpoint", teacher, "-o", str(out)]
        assert main([*given, "--views", str(views)]) == 0
        found[views] = plyfile.PlyData.read(out)["vertex"]
    assert "points" in capsys.readouterr().out
    assert len(found[0]) == len(found[2]) > 500
    assert np.abs(found[0]["confidence"] - found[2]["confidence"]).max() > 1e-3
    assert np.ptp(found[2]["x"]) < 20  # metres, as the poses


def no_folder(path):
    return {"checkpoint": path / "nowhere"}, "card.json: missing"


def other_classes(path):
    write_training(path / "other", make_student(), seed=1)
    card = json.loads((path / "other" / "card.json").read_text())
    card["card"]["classes"] = ["pump", "pipe"]
    (path / "other" / "card.json").write_text(json.dumps(card))
    return {"checkpoint": path / "other"}, "head"


def other_architecture(path):
    write_training(path / "other", make_student(), seed=1)
    card = json.loads((path / "other" / "card.json").read_text())
    card["card"]["model"]["channels"] = [8, 24, 24, 8]
    (path / "other" / "card.json").write_text(json.dumps(card))
    return {"checkpoint": path / "other"}, "wanted float32[24]"


def no_scan(path):
    return {"scan": path / "nothing.ply"}, "nothing.ply: does not exist"


def damaged_scan(path):
    (path / "bad.ply").write_bytes(b"ply\nformat ascii 1.0\nend_header\n")
    return {"scan": path / "bad.ply"}, "bad.ply: has no vertices"


def several_scans(path):
    for name in ("a", "b"):
        write_scan(path / f"{name}.npz")
    return {"scan": path}, "give one"


def no_place(path):
    return {"out": path / "no" / "out.ply"}, "there is no folder"


def no_ply(path):
    return {"out": path / "out.obj"}, "does not end in .ply"


def frames_in_other_units(path):
    raw.write_frames(path / "walk", raw.walk(6))
    return {"scan": path / "walk", "metres-per-unit": 0.001}, "metres_per_unit: 0.001, but"


@pytest.mark.parametrize(
    "spoil",
    [no_folder, other_classes, other_architecture, no_scan, damaged_scan, several_scans,
     no_place, no_ply, frames_in_other_units],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_a_line(checkpoint, tmp_path, capsys, spoil):
    given, message = spoil(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    given = {
        "scan": tmp_path / "scan.npz",
        "checkpoint": checkpoint,
        "out": tmp_path / "out.ply",
    } | given
    command = [str(given.pop("scan"))]
    for name, value in given.items():
        command += [f"--{name}", str(value)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("haskd predict: ")
    assert "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before
