"""ScanNet from raw files to the prepared form."""

import json
import shutil

import numpy as np
import pytest

from haskd_jax.data import DataError, load_scene
from haskd_jax.data.prepare import prepare
from haskd_jax.data.scannet import ScanNet
from haskd_jax.data.scannet_labels import CLASSES, classes_of, split_scenes
from tests.data import raw

NAME = "scene0000_00"  # a training scan of the official lists


def only(root, out, **options):
    """Prepares the one scan of a root and returns the scene."""
    summary = prepare(ScanNet(root, frame_stride=2, frame_size=(32, 24), **options), out)
    assert not summary.failed, summary.failed
    return load_scene(out / NAME)


def failure(root, out, **options):
    """Why the one scan of a root could not be prepared."""
    (result,) = prepare(ScanNet(root, frame_stride=2, **options), out).results
    assert result.status == "failed"
    assert not (out / NAME).exists()
    assert result.reason.startswith(f"{NAME}: ")
    return result.reason


def test_official_lists():
    splits = list(split_scenes(raw.Path("nowhere")).values())
    assert [splits.count(name) for name in ("train", "val", "test")] == [1201, 312, 100]
    assert len(CLASSES) == 20


def test_round_trip_from_sens(tmp_path):
    points, side = raw.write_scan(tmp_path / "raw" / "scans", NAME, colour_kind=1)
    scene = only(tmp_path / "raw", tmp_path / "out")
    np.testing.assert_array_equal(scene.points, points)
    np.testing.assert_array_equal(scene.colour, raw.paint(points.astype(np.float64)))
    np.testing.assert_array_equal(scene.label, raw.CLASS_OF_SIDE[side])
    assert scene.instance is None
    assert scene.frames.names == ("000000", "000002", "000004")
    np.testing.assert_allclose(scene.frames.camera_to_world, raw.walk(6)[::2], atol=1e-6)
    colour, _ = raw.render(raw.walk(6)[2], raw.intrinsics((32, 24)), (32, 24))
    assert np.abs(scene.frames.colour[1].astype(int) - colour).mean() < 3
    manifest = scene.manifest
    assert manifest["split"] == "train"
    assert manifest["counts"]["points"] == len(points)
    assert manifest["counts"]["labelled_points"] == (raw.CLASS_OF_SIDE[side] >= 0).sum()
    assert set(manifest["source"]) == {
        f"scans/{NAME}/{NAME}{suffix}"
        for suffix in (".sens", "_vh_clean_2.ply", "_vh_clean_2.labels.ply")
    }


def test_normals_come_from_the_mesh_where_it_has_faces(tmp_path):
    points, _ = raw.room_cloud(4000)
    a, b, c = points[:3].astype(np.float64)
    raw.write_scan(tmp_path / "raw", NAME, faces=[(0, 1, 2)], sens=False)
    scene = only(tmp_path / "raw", tmp_path / "out", frames=False)
    expected = np.cross(b - a, c - a)
    np.testing.assert_allclose(scene.normals[1], expected / np.linalg.norm(expected), atol=1e-5)
    # The others lie on no face, and are estimated: on a wall, the wall's own normal, inwards.
    inner = np.abs(points[:, 0]) < 1e-6
    inner &= (np.abs(points[:, 1:] - raw.ROOM[1:] / 2) < 0.8).all(axis=1)
    np.testing.assert_allclose(
        scene.normals[inner], np.tile([1.0, 0, 0], (inner.sum(), 1)), atol=1e-4
    )
    assert scene.manifest["estimated"] == ["normals"]


def test_labels_from_segments(tmp_path):
    _, side = raw.write_scan(tmp_path / "raw", NAME, labels="segs", sens=False)
    scene = only(tmp_path / "raw", tmp_path / "out", frames=False)
    np.testing.assert_array_equal(scene.label, raw.CLASS_OF_SIDE[side])
    np.testing.assert_array_equal(scene.instance, np.where(side < 5, side, -1))


def test_segments_of_another_count(tmp_path):
    raw.write_scan(tmp_path / "raw", NAME, labels="segs", sens=False)
    path = tmp_path / "raw" / NAME / f"{NAME}_vh_clean_2.0.010000.segs.json"
    path.write_text(json.dumps({"segIndices": [1, 2, 3]}))
    assert "segs.json: 3 vertices, the mesh has 4000" in failure(
        tmp_path / "raw", tmp_path / "out", frames=False
    )
    path.write_text('{"segIndices": ')
    assert "not readable as JSON" in failure(tmp_path / "raw", tmp_path / "out", frames=False)


def test_a_test_scan_has_no_labels_and_others_must(tmp_path):
    raw.write_scan(tmp_path / "raw", NAME, labels="none", sens=False)
    assert "no labels" in failure(tmp_path / "raw", tmp_path / "out", frames=False)
    raw.write_split(tmp_path / "raw", "test", [NAME])
    scene = only(tmp_path / "raw", tmp_path / "out", frames=False)
    assert scene.label is None
    assert scene.manifest["split"] == "test"


def test_own_split_lists(tmp_path):
    for name in ("room_a", "room_b"):
        raw.write_scan(tmp_path, name, count=100, sens=False)
    raw.write_split(tmp_path, "train", ["room_a", "room_of_somebody_else"])
    raw.write_split(tmp_path, "val", ["room_b"])
    assert ScanNet(tmp_path).scenes() == {"room_a": "train", "room_b": "val"}
    assert ScanNet(tmp_path, split="val").scenes() == {"room_b": "val"}
    raw.write_split(tmp_path, "val", ["room_a"])
    with pytest.raises(DataError, match="room_a is in train as well"):
        ScanNet(tmp_path).scenes()


def test_extracted_frames_and_frames_25k(tmp_path):
    raw.write_scan(tmp_path / "raw", NAME, sens=False)
    poses = raw.walk(5)
    poses[2] = -np.inf
    raw.write_frames(tmp_path / "25k" / NAME, poses)
    scene = only(tmp_path / "raw", tmp_path / "a", frames_25k=tmp_path / "25k")
    assert scene.frames.names == ("0", "1", "3", "4")
    assert scene.manifest["drops"] == {"frame: pose is not finite": 1}
    shutil.copytree(tmp_path / "25k" / NAME, tmp_path / "raw" / NAME, dirs_exist_ok=True)
    scene = only(tmp_path / "raw", tmp_path / "b")
    assert scene.frames.names == ("0", "4")


def test_unknown_and_known_stray_ids():
    table = np.array([1, 50, 39, 0])
    label, stray = classes_of(table, "scene0270_00", raw.Path("a.ply"))
    assert label.tolist() == [0, -1, 19, -1]
    assert stray == 1
    with pytest.raises(DataError, match=r"a\.ply: unknown label ids \[50\]"):
        classes_of(table, "scene0270_01", raw.Path("a.ply"))


def relabel(folder, columns):
    raw.write_ply(folder / f"{NAME}_vh_clean_2.labels.ply", columns)


def into_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda f: relabel(f, {"label": np.zeros(3999, np.uint16)}),
            "_vh_clean_2.labels.ply: 3999 labels, the mesh has 4000 vertices",
        ),
        (lambda f: relabel(f, {"label": np.full(4000, 77, np.uint16)}), "unknown label ids [77]"),
        (lambda f: relabel(f, {"id": np.zeros(4000, np.uint16)}), "have no label"),
        (
            lambda f: raw.write_ply(
                f / f"{NAME}_vh_clean_2.ply", raw.vertices(np.zeros((0, 3), np.float32))
            ),
            "_vh_clean_2.ply: the scene is empty",
        ),
        (
            lambda f: raw.write_ply(
                f / f"{NAME}_vh_clean_2.ply", {"x": np.zeros(4000, np.float32)}
            ),
            "needs vertices with x, y, z",
        ),
        (lambda f: (f / f"{NAME}_vh_clean_2.ply").unlink(), "_vh_clean_2.ply: missing"),
        (
            lambda f: (
                (f / f"{NAME}_vh_clean_2.ply").unlink(),
                (f / f"{NAME}_vh_clean_2.ply").mkdir(),
            ),
            "_vh_clean_2.ply: is a folder",
        ),
        (
            lambda f: (f / f"{NAME}_vh_clean_2.labels.ply").write_bytes(b"ply\n"),
            "_vh_clean_2.labels.ply: not a whole PLY file",
        ),
        (lambda f: (f / f"{NAME}.sens").unlink(), ".sens: no frames"),
        (
            lambda f: (f / f"{NAME}.sens").write_bytes((f / f"{NAME}.sens").read_bytes()[:-500]),
            ".sens: ends inside frame 5 of 6",
        ),
        (
            lambda f: into_folder(f / f"{NAME}.sens"),
            ".sens: Is a directory",
        ),
    ],
)
def test_bad_input(tmp_path, spoil, reason):
    raw.write_scan(tmp_path / "raw", NAME)
    spoil(tmp_path / "raw" / NAME)
    assert reason in failure(tmp_path / "raw", tmp_path / "out")


def test_a_root_without_scans(tmp_path):
    with pytest.raises(DataError, match="holds none of the listed scans"):
        prepare(ScanNet(tmp_path), tmp_path / "out")
    with pytest.raises(DataError, match="is no folder"):
        prepare(ScanNet(tmp_path / "nowhere"), tmp_path / "out")
