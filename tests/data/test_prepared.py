"""The prepared form: round trips, checks on reading, and nothing half written."""

import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from haskd_jax.data import Cloud, DataError, Frame, list_scenes, load_scene
from haskd_jax.data import writer as writing
from haskd_jax.data.prepared import ARRAYS, verify_scene
from haskd_jax.data.scene import pose_fault
from haskd_jax.data.writer import SceneWriter
from haskd_jax.files import PARTIAL, map_array, write_array, write_json
from tests.data import raw


def a_cloud(count=200):
    points, side = raw.room_cloud(count)
    return Cloud(
        points=points,
        colour=raw.paint(points.astype(np.float64)),
        label=side.astype(np.int32) - 1,
        instance=side.astype(np.int32),
    )


def a_frame(i, size=(16, 12), label=True):
    colour, depth = raw.render(raw.walk(4)[i], raw.intrinsics(size), size)
    return Frame(
        name=f"{i}",
        colour=colour,
        depth=np.rint(depth * 1000).astype(np.uint16),
        intrinsics=raw.intrinsics(size),
        camera_to_world=raw.walk(4)[i],
        label=np.full(size[::-1], i - 1, np.int16) if label else None,
    )


def as_type(name, dtype, more=0):
    """A frame of which an array is of another type, with another number added.

    Where types are checked, as they are here, none can be made.
    """
    frame = a_frame(1)
    object.__setattr__(frame, name, getattr(frame, name).astype(dtype) + dtype(more))
    return frame


def write(root, name="room", frames=3, **commit):
    with SceneWriter(root, name) as writer:
        for i in range(frames):
            writer.add_frame(a_frame(i))
        writer.add_cloud(a_cloud())
        return writer.commit(**({"dataset": "own", "split": "train", "options": {}} | commit))


def test_round_trip(tmp_path):
    write(tmp_path)
    scene = verify_scene(tmp_path / "room")
    cloud = a_cloud()
    for name in ("points", "colour", "label", "instance"):
        np.testing.assert_array_equal(getattr(scene, name), getattr(cloud, name))
    np.testing.assert_allclose(np.linalg.norm(scene.normals, axis=1), 1, atol=1e-6)
    frames = [a_frame(i) for i in range(3)]
    assert scene.frames.names == ("0", "1", "2")
    for name in ("colour", "depth", "intrinsics", "camera_to_world", "label"):
        expected = np.stack([getattr(frame, name) for frame in frames])
        stored = getattr(scene.frames, name)
        np.testing.assert_array_equal(stored, expected.astype(stored.dtype))
    for array in (scene.points, scene.frames.colour):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
    for name, dtype in ARRAYS.items():
        assert np.load(tmp_path / "room" / f"{name}.npy", allow_pickle=False).dtype == dtype


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for root in ("a", "b"):
        write(tmp_path / root)
    assert raw.tree(tmp_path / "a") == raw.tree(tmp_path / "b")
    assert len(raw.tree(tmp_path / "a")) == len(ARRAYS) + 1


def test_a_scene_without_frames_or_labels(tmp_path):
    with SceneWriter(tmp_path, "room") as writer:
        writer.add_cloud(Cloud(points=raw.room_cloud(50)[0]))
        writer.commit(dataset="own", split="train", options={})
    scene = load_scene(tmp_path / "room")
    assert scene.label is None and scene.instance is None
    assert len(scene.frames) == 0
    assert scene.frames.colour.shape == (0, 0, 0, 3)
    assert (scene.colour == writing.UNSEEN_GREY).all()


def test_normals_are_kept_where_given_and_estimated_elsewhere(tmp_path):
    points, side = raw.room_cloud(3000)
    given = np.zeros((3000, 3), np.float32)
    given[:1000] = [0, 0, 2]
    with SceneWriter(tmp_path, "room") as writer:
        writer.add_cloud(Cloud(points=points, normals=given))
        manifest = writer.commit(dataset="own", split="train", options={})
    normals = load_scene(tmp_path / "room").normals
    np.testing.assert_array_equal(normals[:1000], np.tile(np.float32([0, 0, 1]), (1000, 1)))
    assert manifest["counts"]["estimated_normals"] == 2000
    inner = (np.sort(np.minimum(points, raw.ROOM - points), axis=1)[:, 1] > 0.7)[1000:]
    assert inner.sum() > 300
    axis, sign = side[1000:] // 2, 1.0 - 2 * (side[1000:] % 2)
    expected = np.zeros((2000, 3))
    expected[np.arange(2000), axis] = sign
    np.testing.assert_allclose(normals[1000:][inner], expected[inner], atol=1e-3)


@pytest.mark.parametrize("height", [-2.0, 2.0])
def test_estimated_normals_point_to_the_cameras(tmp_path, height):
    row, column = np.mgrid[:12, :12] * 0.1
    points = np.stack([row, column, 0 * row], axis=-1).reshape(-1, 3).astype(np.float32)
    pose = raw.camera((0.5, 0.5, height), (0.5, 0.6, 0))
    with SceneWriter(tmp_path, "room") as writer:
        writer.add_frame(replace(a_frame(0), camera_to_world=pose))
        writer.add_cloud(Cloud(points=points))
        writer.commit(dataset="own", split="train", options={})
    normals = load_scene(tmp_path / "room").normals
    np.testing.assert_allclose(normals, np.tile([0, 0, np.sign(height)], (144, 1)), atol=1e-6)


def test_lost_poses_and_points_are_dropped_and_counted(tmp_path):
    lost = a_frame(1)
    lost.camera_to_world[:] = -np.inf
    points = raw.room_cloud(50)[0]
    points[3] = np.inf
    with SceneWriter(tmp_path, "room") as writer:
        for frame in (a_frame(0), lost, a_frame(2)):
            writer.add_frame(frame)
        writer.add_cloud(Cloud(points=points))
        manifest = writer.commit(dataset="own", split="train", options={})
    assert manifest["drops"] == {"frame: pose is not finite": 1, "point: not finite": 1}
    assert load_scene(tmp_path / "room").frames.names == ("0", "2")


def test_pose_faults():
    mirror = np.diag([1.0, 1, -1, 1])
    assert pose_fault(mirror) == pose_fault(2 * np.eye(4)) == "pose is not a rotation and a shift"
    assert pose_fault(np.full((4, 4), np.nan)) == "pose is not finite"
    assert all(pose_fault(pose) is None for pose in raw.walk(4))


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([a_frame(0), a_frame(1, size=(8, 6))], r"frame 1: .*shape"),
        ([a_frame(0), a_frame(1, label=False)], "frame 1: no label, but earlier frames have it"),
        ([a_frame(0, label=False), a_frame(1)], "frame 1: label, but earlier frames have none"),
        ([as_type("colour", np.float32)], "frame 1: colour: float32, expected uint8"),
        ([as_type("depth", np.float64)], "frame 1: depth: float64, expected uint16"),
        ([as_type("depth", np.int64, 70000)], "frame 1: depth: values from .*, expected uint16"),
        ([as_type("label", np.float32)], "frame 1: label: float32, expected int16"),
    ],
)
def test_frames_that_do_not_fit_together(tmp_path, frames, reason):
    with SceneWriter(tmp_path, "room") as writer, pytest.raises(DataError, match=reason):
        for frame in frames:
            writer.add_frame(frame)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a\\b"])
def test_names_that_are_no_file_names(tmp_path, name):
    with pytest.raises(ValueError, match="name:"):
        SceneWriter(tmp_path, name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: {"colour": c.colour / 255}, "colour: float64, expected uint8"),
        (
            lambda c: {"colour": c.colour.astype(int) + 200},
            "colour: values from .*, expected uint8",
        ),
        (lambda c: {"label": c.label + 0.5}, "label: float64, expected int32"),
        (
            lambda c: {"instance": c.instance.astype(np.int64) + 2**40},
            "instance: values from .*, expected int32",
        ),
    ],
)
def test_clouds_of_other_types_are_refused(tmp_path, change, reason):
    cloud = a_cloud()
    with SceneWriter(tmp_path, "room") as writer:
        with pytest.raises(ValueError, match=reason):
            writer.add_cloud(replace(cloud, **change(cloud)))
        writer.add_cloud(replace(cloud, label=cloud.label.astype(np.int64)))


def test_nothing_is_seen_before_commit_and_nothing_is_left_without(tmp_path):
    with pytest.raises(KeyboardInterrupt), SceneWriter(tmp_path, "room") as writer:
        writer.add_frame(a_frame(0))
        writer.add_cloud(a_cloud())
        assert [path.name.startswith(PARTIAL) for path in tmp_path.iterdir()] == [True]
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_commit_replaces_a_scene(tmp_path):
    write(tmp_path, options={"a": 1})
    write(tmp_path, frames=1, options={"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["room"]
    assert load_scene(tmp_path / "room").manifest["options"] == {"a": 2}
    assert len(load_scene(tmp_path / "room").frames) == 1


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    write(tmp_path, name="old")
    before = raw.tree(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path)
    assert raw.tree(tmp_path) == before
    assert not any(path.name.startswith(PARTIAL) for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_missing_cut_and_swapped_arrays_are_named(tmp_path, name):
    write(tmp_path)
    path = tmp_path / "room" / f"{name}.npy"
    whole = path.read_bytes()
    for damage in (b"", whole[:40], whole[:-1]):
        path.write_bytes(damage)
        with pytest.raises(DataError, match=rf"{name}\.npy: damaged .*prepare again"):
            load_scene(tmp_path / "room")
    np.save(path, np.zeros((2, 2)))
    with pytest.raises(DataError, match=rf"{name}\.npy: float64 .*the manifest says"):
        load_scene(tmp_path / "room")
    header = {"descr": "|O", "fortran_order": False, "shape": (1,)}
    with path.open("wb") as file:  # what a pickled array looks like
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\x80\x03]q\x00}q\x01a.")
    with pytest.raises(DataError, match=rf"{name}\.npy: damaged"):
        load_scene(tmp_path / "room")
    path.unlink()
    with pytest.raises(DataError, match=rf"{name}\.npy: missing"):
        load_scene(tmp_path / "room")


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_a_flipped_bit_is_found(tmp_path, name):
    write(tmp_path)
    path = tmp_path / "room" / f"{name}.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    load_scene(tmp_path / "room")
    with pytest.raises(DataError, match=rf"{name}\.npy: its bytes are not those"):
        verify_scene(tmp_path / "room")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(version=2), "version 2, this package reads 1: prepare again"),
        (lambda m: m.update(format="x"), "not the manifest of a prepared scene"),
        (lambda m: m["arrays"].pop("points"), "lists no points"),
        (lambda m: m["arrays"].pop("frame_depth"), "lists no frame_depth"),
        (lambda m: m["counts"].update(points=7), "arrays of"),
        (lambda m: (m.pop("counts"), m.pop("split")), "lacks split, counts: prepare again"),
        (lambda m: m["frames"].pop(), "2 names for frame arrays of 3"),
    ],
)
def test_damaged_manifests(tmp_path, change, reason):
    write(tmp_path)
    path = tmp_path / "room" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    write_json(path, manifest)
    with pytest.raises(DataError, match=reason):
        load_scene(tmp_path / "room")
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataError, match="not readable as JSON"):
        load_scene(tmp_path / "room")


def test_listing(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json: missing"):
        list_scenes(tmp_path)
    write(tmp_path, name="b", split="train")
    write(tmp_path, name="a", split="val")
    value = {"format": "haskd-dataset", "version": 1, "dataset": "own", "classes": []}
    write_json(tmp_path / "dataset.json", value)
    assert list_scenes(tmp_path) == ("a", "b")
    assert list_scenes(tmp_path, "val") == ("a",)
    with pytest.raises(DataError, match=r"no scene of split 'test'; there are \['train', 'val'\]"):
        list_scenes(tmp_path, "test")
    write_json(tmp_path / "dataset.json", value | {"version": 2})
    with pytest.raises(DataError, match="version 2"):
        list_scenes(tmp_path)


def test_threads_read_headers_one_at_a_time(tmp_path, monkeypatch):
    write_array(tmp_path / "a.npy", np.arange(3))
    load, reading = np.load, []

    def slow(*args, **kwargs):
        reading.append("begun")
        time.sleep(0.01)
        assert len(reading) == 1, "two threads read at once"
        array = load(*args, **kwargs)
        reading.clear()
        return array

    monkeypatch.setattr(np, "load", slow)
    with ThreadPoolExecutor(4) as pool:
        for array in pool.map(map_array, [tmp_path / "a.npy"] * 8):
            np.testing.assert_array_equal(array, np.arange(3))
            assert isinstance(array, np.memmap) and not array.flags.writeable
