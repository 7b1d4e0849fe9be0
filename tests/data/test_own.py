"""Own scans: clouds, and frames fused into clouds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from haskd_jax.data import DataError, load_scene
from haskd_jax.data.alignment import check_alignment
from haskd_jax.data.fuse import FuseOptions, fuse
from haskd_jax.data.own import OwnScans
from haskd_jax.data.prepare import prepare
from haskd_jax.data.scene import Frames
from tests.data import raw

SIZE = (96, 72)


def room_frames(poses, noise=0.0, seed=0):
    """Frames of the room, as stacked arrays."""
    k = raw.intrinsics(SIZE)
    seen = [raw.render(pose, k, SIZE) for pose in poses]
    depth = np.stack([depth for _, depth in seen])
    depth += noise * np.random.default_rng(seed).normal(size=depth.shape)
    return Frames(
        names=tuple(str(i) for i in range(len(poses))),
        colour=np.stack([colour for colour, _ in seen]),
        depth=np.rint(depth * 1000).astype(np.uint16),
        intrinsics=np.tile(k, (len(poses), 1, 1)).astype(np.float32),
        camera_to_world=poses.astype(np.float32),
    )


def distance_to_room(points):
    """How far points are from the nearest side of the room."""
    return np.minimum(np.abs(points), np.abs(points - raw.ROOM)).min(axis=1)


def test_fused_points_lie_on_the_surface_in_its_colour_with_normals_inwards():
    cloud = fuse(room_frames(raw.walk(8)), FuseOptions(voxel_size=0.05))
    assert len(cloud.points) > 2000
    # Depth is kept to a millimetre; where two walls meet, a voxel averages both.
    assert np.quantile(distance_to_room(cloud.points), 0.95) < 0.001
    assert distance_to_room(cloud.points).max() < 0.025
    error = np.abs(raw.paint(cloud.points.astype(np.float64)).astype(int) - cloud.colour)
    assert np.quantile(error, 0.95) < 12
    inwards = np.einsum("ni,ni->n", cloud.normals, raw.ROOM / 2 - cloud.points)
    assert (inwards > 0).mean() > 0.99
    cells = np.floor(cloud.points / 0.05)
    assert len(np.unique(cells, axis=0)) > 0.98 * len(cells)


def test_fusing_averages_noise():
    rough = room_frames(raw.walk(12), noise=0.02)
    cloud = fuse(rough, FuseOptions(voxel_size=0.15, tolerance=0.05))
    # On the wall x = 4, which runs through the middle of its voxels, away from the other walls.
    off = cloud.points[:, 0] - 4
    wall = (np.abs(off) < 0.06) & (np.abs(cloud.points[:, 1:] - [1.5, 1.25]) < 0.8).all(axis=1)
    assert wall.sum() > 50
    assert np.median(np.abs(off[wall])) < 0.005  # of single pixels: 0.0135


def test_a_thing_in_one_frame_only_is_left_out():
    frames = room_frames(raw.walk(8))
    frames.depth[4, 20:40, 30:60] = 700  # somebody walks through
    drops = {}
    cloud = fuse(frames, FuseOptions(voxel_size=0.05), on_drop=drops.__setitem__)
    assert distance_to_room(cloud.points).max() < 0.025
    assert drops["pixel: not confirmed by the frames around"] >= 500


def test_a_thing_that_more_frames_look_through_than_see_is_left_out():
    frames = room_frames(np.repeat(raw.walk(1), 7, axis=0))
    frames.depth[3:5, 20:40, 30:60] = 700  # in two frames of seven
    cloud = fuse(frames, FuseOptions(voxel_size=0.05))
    assert distance_to_room(cloud.points).max() < 0.025


def test_near_frames_count_more_than_far_ones():
    wall = [raw.camera((x, 1.5, 1.2), (4, 1.5, 1.2)) for x in (3.0, 1.0)]
    frames = room_frames(np.stack(wall))
    frames.depth[1] += 30  # the far one is off by three centimetres
    cloud = fuse(frames, FuseOptions(voxel_size=0.15, tolerance=0.05))
    seen = np.abs(cloud.points[:, 0] - 4) < 0.1
    assert seen.sum() > 20
    assert np.median(cloud.points[seen, 0] - 4) < 0.001  # unweighted: 0.003


def test_pixels_at_depth_edges_and_out_of_range_are_left_out():
    frames = room_frames(raw.walk(1))
    row, column = 60, 48
    assert 1000 < frames.depth[0, row, column] < 2600
    frames.depth[0, row, column] -= 500  # a flying pixel, with its four neighbours
    frames.depth[0, 50, 20:30] = 0  # a hole, whose edge is none
    drops = {}
    cloud = fuse(frames, FuseOptions(max_depth=2.65), on_drop=drops.__setitem__)
    assert distance_to_room(cloud.points).max() < 0.01
    depth = frames.depth[0] / 1000
    assert drops == {
        "pixel: depth out of range": (depth > 2.65).sum(),
        "pixel: at a depth edge": 5,
    }


def test_wrong_poses_confirm_little():
    good = room_frames(raw.walk(8))
    count = len(fuse(good, FuseOptions()).points)
    inverse = np.linalg.inv(raw.walk(8)).astype(np.float32)
    bad = Frames(good.names, good.colour, good.depth, good.intrinsics, inverse)
    assert len(fuse(bad, FuseOptions()).points) < 0.3 * count


def test_a_voxel_too_small_for_its_key():
    with pytest.raises(ValueError, match="voxel_size: 1e-06 m is too small"):
        fuse(room_frames(raw.walk(8)), FuseOptions(voxel_size=1e-6))


def test_a_folder_of_frames(tmp_path):
    raw.write_frames(tmp_path / "room", raw.walk(8), size=SIZE)
    (result,) = prepare(OwnScans(tmp_path / "room"), tmp_path / "out").results
    assert result.status == "done", result.reason
    scene = load_scene(tmp_path / "out" / "room")
    assert len(scene.frames) == 8
    assert distance_to_room(scene.points).max() < 0.01
    assert scene.label is None
    found = check_alignment(scene)
    assert found.verdict == "good"


def test_a_cloud_beside_the_frames_is_taken_as_it_is(tmp_path):
    points, side = raw.room_cloud()
    raw.write_frames(tmp_path / "room", raw.walk(3), size=SIZE)
    raw.write_ply(
        tmp_path / "room" / "cloud.ply", raw.vertices(points, label=side.astype(np.int32))
    )
    source = OwnScans(tmp_path / "room", classes=tuple("abcdef"))
    assert not prepare(source, tmp_path / "out").failed
    scene = load_scene(tmp_path / "out" / "room")
    np.testing.assert_array_equal(scene.points, points)
    np.testing.assert_array_equal(scene.label, side)
    assert len(scene.frames) == 3
    few = OwnScans(tmp_path / "room", classes=tuple("abc"))
    assert "unknown label id 5" in prepare(few, tmp_path / "out2").failed[0].reason
    raw.write_ply(tmp_path / "room" / "more.ply", raw.vertices(points))
    assert "holds 2 clouds" in prepare(source, tmp_path / "out3").failed[0].reason


def test_a_folder_of_scans(tmp_path):
    points, _ = raw.room_cloud(300)
    raw.write_ply(tmp_path / "raw.ply", raw.vertices(points))
    (tmp_path / "scans").mkdir()
    raw.write_ply(tmp_path / "scans" / "a.ply", raw.vertices(points))
    bad = points.copy()
    bad[7] = np.nan
    np.savez(tmp_path / "scans" / "b.npz", points=bad)
    (tmp_path / "scans" / "notes.txt").write_text("not a scan")
    raw.write_frames(tmp_path / "scans" / "c", raw.walk(4))
    summary = prepare(OwnScans(tmp_path / "scans", split="test"), tmp_path / "out")
    assert [result.scene for result in summary.results] == ["a", "b", "c"]
    assert not summary.failed
    assert summary.drops()["point: not finite"] == 1
    b = load_scene(tmp_path / "out" / "b")
    assert len(b.points) == 299
    assert b.manifest["estimated"] == ["colour", "normals"]
    assert b.manifest["split"] == "test"
    np.savez(tmp_path / "scans" / "a.npz", points=points)
    with pytest.raises(DataError, match="has the same name as"):
        OwnScans(tmp_path / "scans").scenes()


def test_folders_named_as_splits(tmp_path):
    points, _ = raw.room_cloud(300)
    scans = tmp_path / "scans"
    for name in ("train/a.ply", "Val/b.ply", "c.ply", "._c.ply", "train/more/d.ply"):
        (scans / name).parent.mkdir(parents=True, exist_ok=True)
        raw.write_ply(scans / name, raw.vertices(points))
    (scans / "Val" / "e.las").write_bytes(b"")
    raw.write_frames(scans / "test", raw.walk(4))  # a sequence, and no folder of scans
    source = OwnScans(scans)
    splits = {"a": "train", "b": "val", "c": "train", "test": "train"}
    assert source.scenes() == splits
    assert OwnScans(scans, split="test").scenes() == splits | {"c": "test", "test": "test"}
    assert Path(source.others()) == Path("Val/e.las, train/more")
    assert not prepare(source, tmp_path / "out").failed
    for name, split in splits.items():
        assert load_scene(tmp_path / "out" / name).manifest["split"] == split


def test_a_scan_that_is_in_another_split_stays_there(tmp_path):
    """A scan to validate on that has the name of one to train on must not take its place."""
    points, _ = raw.room_cloud(300)
    for name, count in (("train", 300), ("val", 200)):
        (tmp_path / name).mkdir()
        raw.write_ply(tmp_path / name / "a.ply", raw.vertices(points[:count]))
    with pytest.raises(DataError, match=r"val.a\.ply: has the same name as .*train.a\.ply"):
        OwnScans(tmp_path).scenes()
    out = tmp_path / "out"
    assert not prepare(OwnScans(tmp_path / "train"), out).failed
    (failed,) = prepare(OwnScans(tmp_path / "val", split="val"), out).failed
    assert "is of split train: if the scan was moved to val, remove this folder" in failed.reason
    assert len(load_scene(out / "a").points) == 300


def test_the_folder_of_frames_that_one_is_in(tmp_path, monkeypatch):
    raw.write_frames(tmp_path / "room", raw.walk(4))
    monkeypatch.chdir(tmp_path / "room")
    assert list(OwnScans(Path()).sources()) == ["room"]


def test_labels_without_names_are_refused(tmp_path):
    points, side = raw.room_cloud(300)
    raw.write_ply(tmp_path / "a.ply", raw.vertices(points, label=side.astype(np.int32)))
    (failed,) = prepare(OwnScans(tmp_path), tmp_path / "out").failed
    assert "a: has labels, and no classes are named: name them (--classes)" in failed.reason
    without = OwnScans(tmp_path, labels=False)
    assert not prepare(without, tmp_path / "out3").failed
    assert load_scene(tmp_path / "out3" / "a").label is None
    (result,) = prepare(replace(without, classes=("a",)), tmp_path / "out4").results
    assert result.status == "done" and not result.notes
    named = OwnScans(tmp_path, classes=tuple("abcdef"))
    with pytest.raises(DataError, match="holds own with the classes none, not a, b, c, d, e, f"):
        prepare(named, tmp_path / "out")
    raw.write_ply(tmp_path / "b.ply", raw.vertices(points))
    summary = prepare(named, tmp_path / "out2")
    assert not summary.failed
    assert summary.results[1].notes == ("b.ply: classes are named, and it has no labels",)


def test_label_images(tmp_path):
    """255 is no label; what lies outside of the image is none either."""
    room = tmp_path / "room"
    raw.write_frames(room, raw.walk(4), size=(64, 48))
    (room / "label").mkdir()
    label = np.zeros((48, 64), np.uint8)
    label[:, 20:] = 1
    label[40:] = 255
    for i in range(4):
        Image.fromarray(label).save(room / "label" / f"{i}.png")
    assert not prepare(OwnScans(room, classes=("a", "b")), tmp_path / "out").failed
    expected = label.astype(int)
    expected[40:] = -1
    for found in load_scene(tmp_path / "out" / "room").frames.label:
        np.testing.assert_array_equal(found, expected)
    (failed,) = prepare(OwnScans(room, classes=("a",)), tmp_path / "out2").failed
    assert "label/0.png: unknown label id 1: expected 0 to 0" in failed.reason.replace("\\", "/")
    (result,) = prepare(OwnScans(room), tmp_path / "out3").results
    assert result.notes == ("room: label images are not read, as no classes are named",)
    assert load_scene(tmp_path / "out3" / "room").frames.label is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"metres_per_unit": 0.0}, "metres_per_unit: 0.0, expected a positive number"),
        ({"metres_per_unit": float("inf")}, "metres_per_unit: inf, expected a positive"),
        ({"depth_units_per_metre": -1000.0}, "depth_units_per_metre: -1000.0, expected"),
        ({"frame_stride": 0}, "frame_stride: 0, expected 1 or more"),
        ({"frame_size": (64, 0)}, "frame_size: 0, expected 1 or more"),
        ({"classes": ("floor", "box", "floor")}, "classes: floor twice"),
        ({"classes": tuple(map(str, range(256)))}, "classes: 256, at most 255"),
    ],
)
def test_numbers_out_of_range(options, reason):
    with pytest.raises(ValueError, match=reason):
        OwnScans(Path("scans"), **options)


@pytest.mark.parametrize("name", ["voxel_size", "max_depth", "tolerance"])
def test_fusing_by_numbers_out_of_range(name):
    with pytest.raises(ValueError, match=f"{name}: -1.0, expected"):
        FuseOptions(**{name: -1.0})


@pytest.mark.parametrize(
    ("poses", "reason"),
    [
        (np.full((3, 4, 4), np.inf), "no frame is left: every pose is lost"),
        (
            np.stack([raw.camera((x, 1.5, 1.2), (9, 1.5, 1.2)) for x in (-70, 0.5, 90)]),
            "no pixel's depth was confirmed",
        ),
    ],
)
def test_frames_that_give_no_cloud(tmp_path, poses, reason):
    raw.write_frames(tmp_path / "room", poses)
    assert reason in prepare(OwnScans(tmp_path / "room"), tmp_path / "out").failed[0].reason


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        OwnScans(tmp_path / "no").scenes()
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"holds no \.ply, \.pcd, \.npz and no folder of frames"):
        OwnScans(tmp_path).scenes()
