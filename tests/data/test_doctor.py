"""The doctor: finds what is wrong, says what to do, and is quiet about what is right."""

from dataclasses import replace

import numpy as np
import pytest

from haskd_jax.data import load_scene
from haskd_jax.data.alignment import check_alignment
from haskd_jax.data.doctor import examine
from haskd_jax.data.doctor_cli import main
from haskd_jax.data.own import OwnScans
from haskd_jax.data.prepare import prepare
from haskd_jax.data.s3dis import S3DIS
from haskd_jax.data.scannet import ScanNet
from haskd_jax.data.scene import Cloud
from haskd_jax.data.writer import SceneWriter
from tests.data import raw

SIZE = (96, 72)


def aligned_scene(root, poses=None):
    """A prepared room with frames that fit it, unless other poses are given."""
    true = raw.walk(6)
    points, _ = raw.room_cloud(6000)
    raw.write_frames(root / "raw" / "room", true, size=SIZE)
    raw.write_ply(root / "raw" / "room" / "cloud.ply", raw.vertices(points))
    for i, pose in enumerate(true if poses is None else poses):
        np.savetxt(root / "raw" / "room" / "pose" / f"{i}.txt", pose)
    assert not prepare(OwnScans(root / "raw"), root / "out").failed
    return load_scene(root / "out" / "room")


def findings(path, level=None, **options):
    """What the doctor says, as text."""
    found = list(examine(path, **options))
    return [f"{f.where}: {f.what} -> {f.advice}" for f in found if level in (None, f.level)]


def test_true_poses_are_good(tmp_path):
    found = check_alignment(aligned_scene(tmp_path))
    assert found.verdict == "good"
    assert found.depth_agreement > 0.99
    assert found.colour_correlation > 0.98
    assert found.remedy == ""


def test_points_behind_walls_say_nothing(tmp_path):
    scene = aligned_scene(tmp_path)
    next_door = scene.points + np.array([6, 0, 0], np.float32)
    both = {
        "points": np.concatenate([scene.points, next_door]),
        "colour": np.concatenate([scene.colour, 255 - scene.colour]),
        "normals": np.concatenate([scene.normals, scene.normals]),
    }
    found = check_alignment(replace(scene, **both))
    assert found.depth_agreement > 0.99
    assert found.colour_correlation > 0.98


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (np.linalg.inv, "world-to-camera: invert"),
        (lambda pose: pose @ np.diag([1.0, -1, -1, 1]), "OpenGL"),
        (lambda pose: raw.camera((2, 2, 2), (1, 0, 0.5)) @ pose, ""),
    ],
)
def test_wrong_poses_are_found_and_named(tmp_path, change, remedy):
    scene = aligned_scene(tmp_path, [change(pose) for pose in raw.walk(6)])
    found = check_alignment(scene)
    assert found.verdict in ("wrong", "unknown") if not remedy else found.verdict == "wrong"
    assert remedy in found.remedy
    assert bool(remedy) == bool(found.remedy)


def test_frames_in_another_order_are_wrong(tmp_path):
    scene = aligned_scene(tmp_path)
    turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    eye = np.array([2.0, 1.5, 1.2])
    ahead = eye + np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    poses = np.stack([raw.camera(eye, target) for target in ahead])
    frames = replace(scene.frames, camera_to_world=poses.astype(np.float32))
    found = check_alignment(replace(scene, frames=frames))
    assert found.verdict == "wrong"


def test_a_sound_root_has_no_problem(tmp_path, capsys):
    aligned_scene(tmp_path)
    for folder in (tmp_path / "out", tmp_path / "out" / "room", tmp_path / "raw"):
        assert main([str(folder)]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "frames and cloud are aligned" in told
        assert "no problem found" in told


def test_damage_in_a_prepared_root(tmp_path, capsys):
    aligned_scene(tmp_path)
    path = tmp_path / "out" / "room" / "frame_depth.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    (tmp_path / "out" / ".partial-next-1").mkdir()
    assert main([str(tmp_path / "out")]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "frame_depth.npy: its bytes are not those that were written" in told
    assert "1 scenes were being written" in told
    assert "1 problems" in told
    (tmp_path / "out" / "prepare.json").unlink()
    assert any("did not finish" in line for line in findings(tmp_path / "out", "note"))


def test_scenes_that_could_not_be_prepared_are_told_again(tmp_path):
    raw.write_scan(tmp_path / "raw", "scene0000_00", count=300, sens=False)
    prepare(ScanNet(tmp_path / "raw"), tmp_path / "out")
    problems = findings(tmp_path / "out", "problem")
    assert any("could not be prepared" in line and ".sens" in line for line in problems)


def test_scannet(tmp_path):
    names = [f"scene{i:04}_00" for i in range(6)]
    for name in names:
        raw.write_scan(
            tmp_path, name, colour_size=(96, 72), depth_size=(48, 36), frames=3, colour_kind=1
        )
    assert findings(tmp_path, "problem") == []
    folder = {name: tmp_path / name for name in names}
    (folder[names[0]] / f"{names[0]}_vh_clean_2.ply").unlink()
    (folder[names[1]] / f"{names[1]}_vh_clean_2.labels.ply").unlink()
    sens = folder[names[2]] / f"{names[2]}.sens"
    sens.write_bytes(sens.read_bytes()[:-3000])
    (folder[names[3]] / f"{names[3]}.sens").unlink()
    poses = np.tile(np.full((4, 4), -np.inf), (3, 1, 1))
    raw.write_sens(folder[names[4]] / f"{names[4]}.sens", poses)
    raw.write_scan(tmp_path, "scene9999_00", count=300)
    problems = findings(tmp_path, "problem")
    assert [line.split(":")[0].removeprefix(str(tmp_path)) for line in problems] == [
        names[0], names[1], f"/{names[2]}/{names[2]}.sens", f"{names[4]}.sens",
    ]  # fmt: skip
    assert "none of its 3 frames has a usable pose" in problems[-1]
    notes = findings(tmp_path, "note")
    assert any("1 scans are in no split list" in line for line in notes)
    assert any("1 scans have no frames" in line and "--no-frames" in line for line in notes)
    good = findings(tmp_path, "good")
    assert any(line.startswith(f"{names[5]}: frames and cloud are aligned") for line in good)
    assert findings(folder[names[5]], "problem") == []


def test_scannet_with_segments_but_no_table(tmp_path):
    raw.write_scan(tmp_path, "scene0000_00", labels="segs", count=300, sens=False)
    (tmp_path / "scannetv2-labels.combined.tsv").unlink()
    (problem,) = findings(tmp_path, "problem")
    assert "scannetv2-labels.combined.tsv" in problem


def test_scannet_frames_25k_and_a_recording(tmp_path):
    raw.write_frames(tmp_path / "25k" / "scene0000_00", raw.walk(3))
    raw.write_frames(tmp_path / "25k" / "scene0001_00", raw.walk(3))
    assert any("--frames-25k" in line for line in findings(tmp_path / "25k", "good"))
    (tmp_path / "25k" / "scene0001_00" / "depth" / "2.png").unlink()
    (problem,) = findings(tmp_path / "25k", "problem")
    assert "2.png: missing" in problem
    raw.write_sens(tmp_path / "a.sens", raw.walk(3))
    (good,) = findings(tmp_path / "a.sens")
    assert "3 frames with poses" in good


def test_s3dis(tmp_path):
    raw.write_room(tmp_path, "Area_1", "office_1", {"wall_1": raw.object_lines(60, 0)})
    raw.write_room(tmp_path, "Area_2", "office_1", {"wall_1": [b"1 2 3"]}, aligned=True)
    found = findings(tmp_path)
    assert any("2 rooms" in line for line in found)
    assert any(line.startswith("Area_2: is of the aligned release") for line in found)
    assert any(line.startswith("Area_3: has no rooms") for line in found)
    (problem,) = findings(tmp_path, "problem")
    assert "wall_1.txt: line 1: expected x y z r g b" in problem
    assert not prepare(S3DIS(tmp_path), tmp_path / "out").results[0].reason


def test_millimetres_instead_of_metres(tmp_path):
    points, _ = raw.room_cloud(300)
    raw.write_ply(tmp_path / "a.ply", raw.vertices(points * 1000))
    (problem,) = findings(tmp_path / "a.ply", "problem")
    assert "4000 m across" in problem and "--metres-per-unit" in problem


def test_what_is_not_there(tmp_path):
    (problem,) = findings(tmp_path / "nowhere", "problem")
    assert "does not exist" in problem
    (problem,) = findings(tmp_path, "problem")
    assert "holds no .ply" in problem


def test_own_scans_and_what_lies_beside_them(tmp_path):
    points, side = raw.room_cloud(3000)
    raw.write_ply(tmp_path / "a.ply", raw.vertices(points, label=side.astype(np.int32)))
    (tmp_path / "b.las").write_bytes(b"")
    assert not findings(tmp_path, "problem")  # which classes its labels are, nobody has said yet
    (note,) = findings(tmp_path, "note")
    assert "passed over, as no scans: b.las" in note


def test_labels_that_say_nothing(tmp_path):
    points, _ = raw.room_cloud(3000)
    label = np.full(len(points), -1, np.int32)
    raw.write_ply(tmp_path / "a.ply", raw.vertices(points, label=label))
    (note,) = findings(tmp_path, "note")
    assert "0% of the points labelled" in note and "all its labels are -1" in note


def test_labels_that_no_class_names(tmp_path):
    aligned_scene(tmp_path)
    assert not findings(tmp_path / "out", "problem")
    folder = tmp_path / "out" / "room"
    points, _ = raw.room_cloud(6000)
    with SceneWriter(tmp_path / "out", "room") as writer:
        writer.add_cloud(Cloud(points=points, label=np.full(len(points), 3, np.int32)))
        writer.commit(dataset="own", split="train", options={})
    (problem,) = findings(tmp_path / "out", "problem")
    assert f"{folder.name}: label 3, and 0 classes are named in dataset.json" in problem


def test_a_number_of_samples_below_zero(tmp_path, capsys):
    assert main([str(tmp_path), "--samples", "-1"]) == 2
    assert "samples: -1, expected 0 or more" in capsys.readouterr().err
