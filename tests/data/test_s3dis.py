"""S3DIS from text and 2D-3D-S images to the prepared form."""

import json

import numpy as np
import pytest
from PIL import Image

from haskd_jax.data import DataError, list_scenes, load_scene
from haskd_jax.data.alignment import check_alignment
from haskd_jax.data.prepare import prepare
from haskd_jax.data.s3dis import AREAS, CLASSES, S3DIS, fold
from haskd_jax.data.s3dis_text import read_points
from tests.data import raw


def test_round_trip(tmp_path):
    objects = {
        "chair_2": raw.object_lines(40, 0),
        "chair_10": raw.object_lines(30, 1),
        "stairs_1": raw.object_lines(20, 2),
    }
    raw.write_room(tmp_path / "raw", "Area_4", "office_3", objects)
    (tmp_path / "raw/Area_4/office_3/Annotations/.DS_Store").write_bytes(b"\0")
    assert not prepare(S3DIS(tmp_path / "raw"), tmp_path / "out").failed
    assert list_scenes(tmp_path / "out", "Area_4") == ("Area_4_office_3",)
    scene = load_scene(tmp_path / "out" / "Area_4_office_3")
    order = ("chair_10", "chair_2", "stairs_1")
    lines = [line.split() for name in order for line in objects[name]]
    table = np.array(lines).astype(np.float64)
    np.testing.assert_array_equal(scene.points, table[:, :3].astype(np.float32))
    np.testing.assert_array_equal(scene.colour, table[:, 3:])
    label = [CLASSES.index("chair")] * 70 + [CLASSES.index("clutter")] * 20
    np.testing.assert_array_equal(scene.label, label)
    np.testing.assert_array_equal(scene.instance, [0] * 30 + [1] * 40 + [2] * 20)
    assert scene.manifest["notes"] == []
    assert len(scene.frames) == 0


def test_folds():
    for area in range(1, 7):
        train, test = fold(area)
        assert test == (f"Area_{area}",)
        assert sorted(train + test) == list(AREAS)
    with pytest.raises(ValueError, match="test_area: 7"):
        fold(7)


# The released text's own faults, at their values (in a small object).
FAULTS = [
    ("Area_5", "office_19", "ceiling_1", b"1.000 0.500 0.2\x100000 103 99 80", (1, 0.5, 0.2), 103),
    (
        "Area_5",
        "office_19",
        "ceiling_1",
        b"1.000 0.500 0.200 103.0\x100000 99 80",
        (1, 0.5, 0.2),
        103,
    ),
    ("Area_3", "hallway_2", "wall_1", b"1.000 -9.1\x160 0.200 60 61 62", (1, -9.16, 0.2), 60),
    ("Area_5", "hallway_6", "ceiling_1", b"1.000 0.500 0.200 185\x00187 188", (1, 0.5, 0.2), 185),
]


@pytest.mark.parametrize(("area", "room", "name", "line", "point", "red"), FAULTS)
def test_known_faults_are_repaired_and_reported(tmp_path, area, room, name, line, point, red):
    low, high = ((0, -9.5, 0), (2, -8.5, 1)) if room == "hallway_2" else ((0, 0, 0), (2, 1, 1))
    lines = raw.object_lines(60, 0, low, high)
    lines[41] = line
    raw.write_room(tmp_path / "raw", area, room, {name: lines}, aligned=True)
    (result,) = prepare(S3DIS(tmp_path / "raw"), tmp_path / "out").results
    assert result.status == "done"
    (note,) = result.notes
    assert note.startswith(f"{room}/{name}.txt line 42: byte 0x")
    scene = load_scene(tmp_path / "out" / f"{area}_{room}")
    assert len(scene.points) == 60
    np.testing.assert_allclose(scene.points[41], point, rtol=1e-6)
    assert scene.colour[41, 0] == red


def test_a_block_of_zeros_is_no_known_fault(tmp_path):
    lines = [*raw.object_lines(60, 0), bytes(512)]
    folder = raw.write_room(tmp_path, "Area_1", "office_1", {"wall_1": lines})
    with pytest.raises(DataError, match=r"line 61: 512 damaged bytes in one file"):
        read_points(folder / "wall_1.txt")


def test_a_repair_that_leaves_the_object_is_refused(tmp_path):
    lines = raw.object_lines(60, 0)
    lines[41] = b"1.000 9\x160.500 0.200 1 2 3"
    folder = raw.write_room(tmp_path, "Area_1", "office_1", {"wall_1": lines})
    with pytest.raises(
        DataError, match=r"line 42: with byte 0x16 read as '6' .* outside its object"
    ):
        read_points(folder / "wall_1.txt")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1.0 2.0 3.0 4 5\x036 6", "damaged byte 0x03"),
        (b"1.0 2.0 3.0 4 5", "expected x y z r g b, found"),
        (b"1.0 2.0 3.0 4 5 6 7", "expected x y z r g b, found"),
        (b"1.0 2.0 3.0 4 five 6", "expected x y z r g b, found"),
        (b"1.0 2.0 3.0 4 256 6", "is no point"),
        (b"nan 2.0 3.0 4 25 6", "is no point"),
        (b"1.0 2.0 3.0 4 -1 6", "is no point"),
        (b"1.0 2.0 3.0 4 5 6\n1.0 2.0 3.0 4 5 \n 6", "expected x y z r g b, found"),
    ],
)
def test_unknown_faults_are_refused_with_file_and_line(tmp_path, line, reason):
    lines = [*raw.object_lines(8, 0), b"", line, *raw.object_lines(3, 1)]
    folder = raw.write_room(tmp_path, "Area_1", "office_1", {"wall_1": lines})
    with pytest.raises(DataError, match=rf"wall_1\.txt: line 1[01]: .*{reason}"):
        read_points(folder / "wall_1.txt")


def test_bad_rooms_fail_and_others_go_on(tmp_path):
    good = {"wall_1": raw.object_lines(30, 0)}
    for room, objects in {
        "office_1": good,
        "office_2": {"wall_1": []},
        "office_3": {"teapot_1": raw.object_lines(5, 0)},
        "office_4": {},
    }.items():
        raw.write_room(tmp_path / "raw", "Area_1", room, objects)
    (tmp_path / "raw/Area_1/office_5").mkdir()
    folder = raw.write_room(tmp_path / "raw", "Area_1", "office_6", good)
    (folder / "wall_1.txt").rename(folder / "wall_1 (copy).txt")
    (folder / "floor_1.txt").mkdir()
    summary = prepare(S3DIS(tmp_path / "raw"), tmp_path / "out")
    reasons = {result.scene[-1]: result.reason for result in summary.failed}
    assert "wall_1.txt: holds no points" in reasons["2"]
    assert "unknown class 'teapot'" in reasons["3"]
    assert "the scene is empty" in reasons["4"]
    assert "Annotations: missing" in reasons["5"]
    assert "the scene is empty" in reasons["6"]
    assert [r.scene for r in summary.results if r.status == "done"] == ["Area_1_office_1"]


def write_images(root, folder, room, poses, transform=None, size=1080):
    """Writes 2D-3D-S images of the room of `raw`, seen from `poses`."""
    data = root / folder / "data"
    for part in ("rgb", "depth", "pose"):
        (data / part).mkdir(parents=True, exist_ok=True)
    k = raw.intrinsics((size, size), focal=0.6)
    for i, pose in enumerate(poses):
        colour, depth = raw.render(pose, k, (size, size))
        depth = np.rint(depth * 512).astype(np.uint16)
        depth[:40] = 65535
        stem = f"camera_0123456789abcdef_{room}_frame_{i}_domain"
        Image.fromarray(colour).save(data / "rgb" / f"{stem}_rgb.png", compress_level=1)
        Image.fromarray(depth).save(data / "depth" / f"{stem}_depth.png", compress_level=1)
        world = pose if transform is None else np.linalg.inv(transform) @ pose
        camera = {
            "camera_k_matrix": k.tolist(),
            "camera_rt_matrix": np.linalg.inv(world)[:3].tolist(),
        }
        (data / "pose" / f"{stem}_pose.json").write_text(json.dumps(camera))


def room_lines(turned=False):
    """The room of `raw` as S3DIS text, turned by 180 degrees about its middle if asked."""
    points, _ = raw.room_cloud(3000)
    colour = raw.paint(points.astype(np.float64))
    if turned:
        points[:, :2] = raw.ROOM[:2].astype(np.float32) - points[:, :2]
    return [b"%.3f %.3f %.3f %d %d %d" % (*p, *c) for p, c in zip(points, colour, strict=True)]


def quarter_turn():
    """Area 5b to the clouds' coordinates: (x, y) -> (y - 4.10, -x + 6.25)."""
    return np.array([[0, 1, 0, -4.10], [-1, 0, 0, 6.25], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("area", "folders", "room", "turned"),
    [
        ("Area_1", ["area_1"], "office_1", False),
        ("Area_5", ["area_5b", "area_5a"], "office_7", False),
        ("Area_5", ["area_5a", "area_5b"], "hallway_6", True),
        ("Area_2", ["area_2"], "hallway_11", True),
    ],
)
def test_images_fit_the_cloud(tmp_path, area, folders, room, turned):
    raw.write_room(tmp_path / "raw", area, room, {"wall_1": room_lines(turned)})
    transform = quarter_turn() if folders[0] == "area_5b" else None
    write_images(tmp_path / "images", folders[0], room, raw.walk(2), transform)
    for folder in folders[1:]:
        write_images(tmp_path / "images", folder, "lobby_1", [])
    write_images(tmp_path / "images", folders[0], f"{room}1", raw.walk(1))  # a longer name
    source = S3DIS(tmp_path / "raw", images=tmp_path / "images", frame_stride=1)
    (result,) = prepare(source, tmp_path / "out").results
    assert result.status == "done", result.reason
    scene = load_scene(tmp_path / "out" / f"{area}_{room}")
    assert len(scene.frames) == 2
    assert scene.frames.depth.shape == (2, 270, 270)
    assert (scene.frames.depth[:, :9] == 0).all()
    _, depth = raw.render(raw.walk(2)[1], scene.frames.intrinsics[1], (270, 270))
    known = scene.frames.depth[1] > 0
    assert np.quantile(np.abs(scene.frames.depth[1] / 1000 - depth)[known], 0.99) < 0.02
    found = check_alignment(scene)
    assert found.depth_agreement > 0.97
    assert found.colour_correlation > 0.95


def test_images_need_the_unaligned_release_and_whole_folders(tmp_path):
    raw.write_room(tmp_path / "raw", "Area_1", "office_1", {"wall_1": room_lines()}, aligned=True)
    write_images(tmp_path / "images", "area_1", "office_1", raw.walk(1), size=540)
    source = S3DIS(tmp_path / "raw", images=tmp_path / "images")
    assert "aligned release" in prepare(source, tmp_path / "out").failed[0].reason
    (tmp_path / "raw/Area_1/Area_1_alignmentAngle.txt").write_text("office_1 90\n")
    assert "expected (1080, 1080)" in prepare(source, tmp_path / "out").failed[0].reason
    (pose,) = (tmp_path / "images/area_1/data/pose").iterdir()
    pose.write_text("{}")
    assert "no camera of 2D-3D-S" in prepare(source, tmp_path / "out").failed[0].reason
    next((tmp_path / "images/area_1/data/depth").iterdir()).unlink()
    assert "_depth.png: missing" in prepare(source, tmp_path / "out").failed[0].reason
    (tmp_path / "images" / "area_1").rename(tmp_path / "images" / "area_9")
    assert "download this area" in prepare(source, tmp_path / "out").failed[0].reason


def test_rooms_with_wrong_colours_are_told(tmp_path):
    raw.write_room(tmp_path / "raw", "Area_1", "WC_1", {"wall_1": raw.object_lines(30, 0)})
    (result,) = prepare(S3DIS(tmp_path / "raw"), tmp_path / "out").results
    assert result.notes == ("Area_1/WC_1: the release has wrong colours for this room",)
