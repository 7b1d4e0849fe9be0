"""SynthRooms: its parts against plain oracles, and the round trip through ScanNet's reader."""

import json
import re
import shutil

import numpy as np
import pytest

from haskd_jax.data import DataError, list_scenes, load_scene
from haskd_jax.data.cameras import look_up, project
from haskd_jax.data.doctor import examine
from haskd_jax.data.prepare import prepare
from haskd_jax.data.prepare_cli import main as prepare_main
from haskd_jax.data.scannet import ScanNet
from haskd_jax.data.scannet_labels import NYU40, class_table
from haskd_jax.data.synthrooms import (
    STYLES,
    Options,
    SynthRooms,
    generate_scene,
    write_scannet_layout,
)
from haskd_jax.data.synthrooms.cli import main
from haskd_jax.data.synthrooms.fusion import fuse_views
from haskd_jax.data.synthrooms.kit import LABEL, Kit
from haskd_jax.data.synthrooms.layout import furnish
from haskd_jax.data.synthrooms.quads import Piece
from haskd_jax.data.synthrooms.raster import rasterise
from haskd_jax.data.synthrooms.render import View
from haskd_jax.data.synthrooms.scannet_layout import scene_names
from haskd_jax.data.synthrooms.sensor import depth_noise, sense_colour, sense_depth
from haskd_jax.data.synthrooms.textures import KINDS, Materials
from haskd_jax.data.synthrooms.trajectory import look, walk
from haskd_jax.data.synthrooms.walls import Patch, Wall, curtain, door, picture, window

NAME = {number: name for name, number in LABEL.items()}
SMALL = Options(frames=6, width=64, height=48, voxel_size=0.05)


@pytest.fixture(scope="module")
def scene():
    return generate_scene(8)


def same(a, b):
    assert vars(a).keys() == vars(b).keys()
    return all(
        np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# The rasteriser


def plain_render(quads, pose, k, size):
    """Every ray against every surface, in float64, one system of equations at a time."""
    depth = np.zeros(size[::-1])
    winner = np.full(size[::-1], -1)
    for row in range(size[1]):
        for column in range(size[0]):
            ray = pose[:3, :3] @ np.linalg.solve(k, [column, row, 1.0])
            for q in range(len(quads.label)):
                u, v = quads.edge_u[q], quads.edge_v[q]
                if np.dot(np.cross(u, v), ray) >= 0 and not quads.both[q]:
                    continue
                start = quads.origin[q] - pose[:3, 3]
                t, a, b = np.linalg.solve(np.stack([ray, -u, -v], axis=1), start)
                hit = 0 <= a <= 1 and 0 <= b <= 1
                if quads.disc[q]:
                    hit = (a - 0.5) ** 2 + (b - 0.5) ** 2 <= 0.25
                if hit and t > 0 and (winner[row, column] < 0 or t < depth[row, column]):
                    depth[row, column], winner[row, column] = t, q
    return winner, depth


def test_rasteriser_agrees_with_ray_casting():
    rng = np.random.default_rng(0)
    piece = Piece()
    piece.box((-2, -2, -1), (2, 2, 1.5), 1, 0)  # seen from inside: no face of it shows
    piece.rect((-3, -3, -1), (6, 0, 0), (0, 6, 0), 2, 0)  # passes under and behind the camera
    piece.rect((1.5, 1.5, -1), (0, -3, 0), (0, 0, 2), 1, 0, both=True)
    for i in range(12):
        place = rng.uniform(-1.2, 1.2, (3, 3))
        place[0, 0] += 1
        piece.rect(*(tuple(p.tolist()) for p in place), 3, 0, disc=i % 3 == 0, both=i % 2 == 0)
    quads = piece.quads()
    k = np.array([[20.0, 0, 13.2], [0, 22, 9.7], [0, 0, 1]])
    for yaw in (0.0, 1.2, 3.0):
        angles = np.array([[yaw], [-0.3], [0.2]])
        pose = look(np.array([[0.05, 0.1, 0.2]]), *angles)[0]
        winner, depth = plain_render(quads, pose, k, (28, 20))
        hits = rasterise(quads, pose, k, (28, 20))
        agree = hits.quad == winner
        # A pixel centre on an edge may fall to either side in float32.
        assert agree.mean() > 0.995
        assert (winner >= 0).mean() > 0.3
        np.testing.assert_allclose(hits.depth[agree], depth[agree], rtol=1e-4)


def test_places_on_a_surface():
    piece = Piece()
    piece.rect((3, 1, -1), (0, -2, 0), (0, 0, 2), 1, 0)
    k = np.array([[10.0, 0, 9.5], [0, 10, 9.5], [0, 0, 1]])
    pose = look(np.zeros((1, 3)), *np.zeros((3, 1)))[0]
    hits = rasterise(piece.quads(), pose, k, (20, 20))
    row, column = np.nonzero(hits.quad == 0)
    # Looking along x, the right of the image is -y and its top is z.
    np.testing.assert_allclose(hits.a[row, column], (1 + 3 * (column - 9.5) / 10) / 2, atol=1e-5)
    np.testing.assert_allclose(hits.b[row, column], (1 - 3 * (row - 9.5) / 10) / 2, atol=1e-5)


def test_a_box_is_closed_and_faces_outwards():
    piece = Piece()
    piece.box((0, 0, 0), (1, 2, 3), 1, 0)
    quads = piece.quads()
    normal = np.cross(quads.edge_u, quads.edge_v)
    middle = quads.origin + (quads.edge_u + quads.edge_v) / 2
    assert (np.einsum("qc,qc->q", normal, middle - [0.5, 1, 1.5]) > 0).all()
    assert np.linalg.norm(normal, axis=1).sum() == 2 * (2 + 3 + 6)


# The sensor and the fusion


def flat_view(depth, **fields):
    ones = np.ones((60, 80), np.float32)
    view = {"depth": depth * ones, "slant": ones, "dropout": 0 * ones, **fields}
    return View(
        colour=np.ones((60, 80, 3), np.float32),
        label=np.ones((60, 80), np.uint8),
        instance=np.zeros((60, 80), np.int32),
        **view,
    )


def test_depth_noise_grows_with_range_and_holes_with_glass():
    rng = np.random.default_rng(0)
    spread = []
    for depth in (1.0, 2.4):
        sensed = sense_depth(rng, flat_view(depth)) / 1000
        assert (sensed > 0).all()
        assert abs(sensed.mean() - depth) < 0.002
        spread.append(sensed.std() / depth_noise(np.array([depth]))[0])
    assert min(spread) > 0.7 and max(spread) < 1.4
    glass = np.full((60, 80), 0.6, np.float32)
    assert 0.4 < (sense_depth(rng, flat_view(1.0, dropout=glass)) == 0).mean() < 0.8
    assert (sense_depth(rng, flat_view(6.0)) == 0).all()
    assert (sense_depth(rng, flat_view(0.0)) == 0).all()


def test_pixels_fly_at_depth_edges_only():
    step = np.where(np.arange(80) < 40, 1.0, 2.0).astype(np.float32)
    view = flat_view(step)
    sensed = sense_depth(np.random.default_rng(0), view).astype(int)
    between = (sensed > 1100) & (sensed < 1900)
    assert between[:, 39:41].any()
    assert not between[:, :39].any() and not between[:, 41:].any()


def test_motion_blurs_along_its_direction():
    image = np.zeros((20, 20, 3), np.float32)
    image[:, 10] = 1
    sharp = sense_colour(np.random.default_rng(0), image, np.array([0.0, 0.0]))
    across = sense_colour(np.random.default_rng(0), image, np.array([6.0, 0.0]))
    along = sense_colour(np.random.default_rng(0), image, np.array([0.0, 6.0]))
    bright = [(a.mean(axis=(0, 2)) > 30).sum() for a in (sharp, across, along)]
    assert bright == [1, 6, 1]


def test_fusion_agrees_with_a_dictionary():
    rng = np.random.default_rng(1)
    points = [rng.uniform(-0.3, 0.3, (300, 3)).astype(np.float32) for _ in range(3)]
    colours = [rng.uniform(0, 255, (300, 3)).astype(np.float32) for _ in range(3)]
    labels = [rng.integers(0, 41, 300).astype(np.int32) for _ in range(3)]
    weights = [rng.uniform(0.1, 2, 300).astype(np.float32) for _ in range(3)]
    voxels = {}
    for p, c, y, w in zip(*map(np.concatenate, (points, colours, labels, weights)), strict=True):
        voxels.setdefault(tuple(np.floor(p / 0.1).astype(int)), []).append((p, c, y, w))
    expected = [v for _, v in sorted(voxels.items()) if len(v) > 1]
    place, colour, label = fuse_views(points, colours, labels, weights, 0.1)
    assert len(place) == len(expected) < len(voxels)
    for i, seen in enumerate(expected):
        p, c, y, w = (np.array(part, np.float64) for part in zip(*seen, strict=True))
        np.testing.assert_allclose(place[i], (p * w[:, None]).sum(0) / w.sum(), atol=1e-5)
        assert np.abs(colour[i] - (c * w[:, None]).sum(0) / w.sum()).max() < 0.51
        assert (y == label[i]).sum() == np.bincount(y.astype(int)).max()


# Rooms


def wall_and_kit():
    rng = np.random.default_rng(0)
    kit = Kit(rng, STYLES["a"], Materials(rng, STYLES["a"]))
    return Wall(4.0, 2.5, (0, 0, 0), 0.0), kit


def extent(piece, label):
    """How far surfaces of a label reach into and out of the wall."""
    quads = piece.quads()
    corners = [quads.origin, quads.origin + quads.edge_u, quads.origin + quads.edge_v]
    y = np.stack(corners)[:, quads.label == LABEL[label], 1]
    return y.min(), y.max()


def test_flat_things_on_walls_differ_in_the_points():
    """By 8 cm or more, 1.5 voxels of 5 cm: less is not there for a student."""
    for _ in range(5):
        wall, kit = wall_and_kit()
        door(kit, wall, Patch(1, 1.9, 0, 2))
        low, high = extent(wall.piece, "door")
        assert low <= -0.08 and high < 0.05
        wall, kit = wall_and_kit()
        window(kit, wall, Patch(1, 2, 0.9, 2))
        low, high = extent(wall.piece, "window")
        assert low <= -0.08 and high >= 0.08
        wall, kit = wall_and_kit()
        picture(kit, wall, Patch(1, 2, 1, 1.6))
        low, high = extent(wall.piece, "picture")
        assert low >= 0 and high >= 0.08
        low, high = extent(curtain(kit, 1.0, 2.0, "curtain"), "curtain")
        assert high - low >= 0.08


def test_a_wall_is_whole_around_its_holes():
    wall, kit = wall_and_kit()
    door(kit, wall, Patch(2.5, 3.4, 0, 2))
    window(kit, wall, Patch(0.5, 1.5, 0.9, 2))
    quads = wall.surfaces(0).quads()
    area = np.linalg.norm(np.cross(quads.edge_u, quads.edge_v), axis=1)
    assert area[quads.label == LABEL["wall"]].sum() == pytest.approx(4 * 2.5 - 0.9 * 2 - 1.1)
    assert not wall.free(Patch(3, 3.8, 1, 1.5))
    assert wall.free(Patch(1.7, 2.3, 1, 1.5))


@pytest.mark.parametrize("style", sorted(STYLES))
def test_rooms_hold_every_class_and_stay_inside(style):
    seen, kinds = set(), set()
    for seed in range(40):
        room = furnish(np.random.default_rng(seed), STYLES[style])
        quads = room.quads
        corners = np.concatenate([quads.origin, quads.origin + quads.edge_u + quads.edge_v])
        # Windows lie at most 24 cm back, doors on the floor have a lintel, nothing else leaves.
        assert (corners >= -0.25).all() and (corners <= np.array(room.size) + 0.25).all()
        assert quads.material.max() < len(room.atlas) == len(room.dropout) == len(room.glow)
        area = np.linalg.norm(np.cross(quads.edge_u, quads.edge_v), axis=1)
        assert area.min() > 0
        seen |= set(quads.label.tolist())
        kinds.add(room.kind)
    assert seen >= set(NYU40.values())
    assert len(kinds) == 5


def test_every_texture_is_a_picture():
    rng = np.random.default_rng(0)
    materials = Materials(rng, STYLES["b"])
    for kind in KINDS:
        materials.add(kind)
    atlas = materials.atlas()
    assert atlas.shape == (len(KINDS), 64, 64, 3)
    assert atlas.dtype == np.float32
    assert np.isfinite(atlas).all() and atlas.min() > 0 and atlas.max() <= 1


def test_the_walk_stays_in_the_room():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        room = furnish(rng, STYLES["b"])
        way = walk(rng, room, STYLES["b"], 30)
        eye = way.camera_to_world[:, :3, 3]
        assert (eye > 0.2).all() and (eye < np.array(room.size) - 0.2).all()
        rotation = way.camera_to_world[:, :3, :3]
        np.testing.assert_allclose(
            rotation @ np.swapaxes(rotation, 1, 2), np.tile(np.eye(3), (30, 1, 1)), atol=1e-12
        )
        np.testing.assert_allclose(np.linalg.det(rotation), 1)


# Scenes


def test_a_seed_decides_everything(scene):
    assert same(scene, generate_scene(8))
    small = generate_scene(8, options=SMALL)
    assert small.kind == scene.kind
    assert not same(small, generate_scene(9, options=SMALL))
    other = generate_scene(8, style="b", options=SMALL)
    assert other.frame_colour.shape == small.frame_colour.shape
    assert not np.array_equal(other.frame_colour, small.frame_colour)


def test_what_a_scene_holds(scene):
    count, (frames, height, width) = len(scene.points), scene.frame_depth.shape
    assert (frames, height, width) == (48, 120, 160)
    assert scene.points.dtype == np.float32 and scene.points.shape == (count, 3)
    assert scene.colour.dtype == np.uint8 and scene.colour.shape == (count, 3)
    assert scene.label.dtype == np.uint8 and scene.label.shape == (count,)
    assert 20_000 < count < 300_000
    assert np.isfinite(scene.points).all()
    allowed = {0, *LABEL.values()}
    assert set(np.unique(scene.label)) <= allowed
    assert set(np.unique(scene.frame_label)) <= allowed
    holes = (scene.frame_depth == 0).mean()
    assert 0.01 < holes < 0.3


def test_cloud_and_frames_agree(scene):
    visible = agree = 0
    for f in range(0, 48, 5):
        pose = scene.camera_to_world[f]
        column, row, z = project(scene.points, scene.intrinsics, pose)
        depth, inside = look_up(scene.frame_depth[f] / 1000, column, row)
        label, _ = look_up(scene.frame_label[f], column, row)
        seen = inside & (depth > 0) & (np.abs(depth - z) < 0.05)
        visible += seen.sum()
        agree += (label[seen] == scene.label[seen]).sum()
    assert visible > 5000
    assert agree / visible > 0.93


def test_instances_are_things(scene):
    count = scene.instance.max() + 1
    assert scene.instance.dtype == np.int32 and np.array_equal(
        np.unique(scene.instance), np.arange(count)
    )
    labels = [np.unique(scene.label[scene.instance == i]) for i in range(count)]
    assert {len(names) for names in labels} == {1}
    things = [NAME[int(names[0])] for names in labels]
    assert things.count("floor") == 1
    assert things.count("wall") == 4  # what niches and pilasters add to them is of them
    room = furnish(np.random.default_rng(8), STYLES["a"])
    quads = room.quads
    corners = np.stack([quads.origin, quads.origin + quads.edge_u, quads.origin + quads.edge_v])
    chairs = np.unique(quads.instance[quads.label == LABEL["chair"]])
    assert len(chairs) > 1
    for i in chairs:  # one chair, not two
        assert np.ptp(corners[:, quads.instance == i].reshape(-1, 3), axis=0).max() < 1.3


def test_things_are_told_apart():
    room, chair = Piece(), Piece()
    chair.box((0, 0, 0), (1, 1, 1), 5, 0)
    chair.disc((0, 0, 1), 1, 18, 0)  # a pillow on it
    room.rect((0, 0, 0), (9, 0, 0), (0, 9, 0), 2, 0)
    room.add(chair, (0, 0, 0))
    room.add(chair, (3, 0, 0))
    room.rect((0, 0, 0), (1, 0, 0), (0, 1, 0), 2, 0)  # a rug is floor
    assert room.quads().instance.tolist() == [0] + 6 * [1] + [2] + 6 * [3] + [4] + [0]


def test_what_nobody_saw_is_missing(scene):
    """The floor under a room's furniture is not there, though it is in the room."""
    floor = scene.points[scene.label == NYU40["floor"]]
    cells = np.unique(np.floor(floor[:, :2] / 0.1).astype(int), axis=0)
    hull = np.ptp(floor[:, :2], axis=0)
    assert len(cells) * 0.01 < 0.9 * hull.prod()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: Options(frames=3), "frames: 3"),
        (lambda: Options(width=8), "width, height: 8 x 120"),
        (lambda: Options(voxel_size=0.5), "voxel_size: 0.5"),
        (lambda: generate_scene(-1), "seed: -1"),
        (lambda: scene_names("dev", 1), "split: 'dev'"),
        (lambda: scene_names("val", 100_001), "val: 100001 scenes"),
        (lambda: write_scannet_layout("nowhere", workers=0), "workers: 0"),
        (lambda: SynthRooms(train=-1), "train: -1 scenes"),
        (lambda: SynthRooms(test=-1, first_test=4), "test, first_test: -1, 4"),
    ],
)
def test_bad_arguments(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()


# On disk


def write(root, **changes):
    done = {}
    how = {"train": 2, "val": 1, "test": 1, "options": SMALL, "workers": 1, **changes}

    def on_scene(name, status, total):
        done[name] = status

    write_scannet_layout(root, on_scene=on_scene, **how)
    return done


def test_round_trip_through_the_scannet_reader(tmp_path):
    write(tmp_path / "raw")
    source = ScanNet(tmp_path / "raw", frame_stride=1, frame_size=(64, 48))
    summary = prepare(source, tmp_path / "out")
    assert not summary.failed
    assert not summary.drops()
    assert source.scenes() == {
        "scene0000_00": "train",
        "scene0000_01": "train",
        "scene8000_00": "val",
        "scene9000_00": "test",
    }
    for name in source.scenes():
        scene = generate_scene(int(name[5:9] + name[10:]), options=SMALL)
        found = load_scene(tmp_path / "out" / name)
        np.testing.assert_array_equal(found.points, scene.points)
        np.testing.assert_array_equal(found.colour, scene.colour)
        np.testing.assert_array_equal(found.label, class_table()[scene.label])
        np.testing.assert_array_equal(found.instance, scene.instance)
        assert found.frames.names == tuple(map(str, range(6)))
        np.testing.assert_array_equal(found.frames.depth, scene.frame_depth)
        np.testing.assert_array_equal(found.frames.label, class_table()[scene.frame_label])
        np.testing.assert_allclose(found.frames.camera_to_world, scene.camera_to_world, atol=1e-6)
        np.testing.assert_allclose(found.frames.intrinsics[0], scene.intrinsics, rtol=1e-6)
        assert np.abs(found.frames.colour.astype(int) - scene.frame_colour).mean() < 6


def test_prepared_at_once_is_what_the_scannet_reader_makes_of_the_files(tmp_path):
    write(tmp_path / "raw", test_style="b")
    read = ScanNet(tmp_path / "raw", frame_stride=1, frame_size=(64, 48))
    at_once = SynthRooms(train=2, val=1, test=1, test_style="b", options=SMALL)
    assert at_once.scenes() == read.scenes()
    assert not prepare(read, tmp_path / "read").failed
    assert not prepare(at_once, tmp_path / "at once").failed
    for name in read.scenes():
        left, right = (tmp_path / root / name for root in ("read", "at once"))
        files = sorted(path.name for path in left.glob("*.npy"))
        assert files == sorted(path.name for path in right.glob("*.npy"))
        assert all((left / n).read_bytes() == (right / n).read_bytes() for n in files)
        manifests = [json.loads((f / "manifest.json").read_text()) for f in (left, right)]
        told = [{k: v for k, v in m.items() if k not in ("dataset", "options")} for m in manifests]
        assert told[0] == told[1]
    assert (load_scene(tmp_path / "at once" / "scene9000_00").label >= 0).any()


def test_prepared_rooms_resume_and_only_what_changed_is_redone(tmp_path):
    how = {"train": 2, "val": 1, "test": 1, "options": SMALL}
    assert {r.status for r in prepare(SynthRooms(**how), tmp_path / "a").results} == {"done"}
    first = content(tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "scene0000_01")
    (tmp_path / "a" / ".partial-left" / "scene0000_01").mkdir(parents=True)
    again = prepare(SynthRooms(**how), tmp_path / "a", workers=2)
    assert [r.scene for r in again.results if r.status == "done"] == ["scene0000_01"]
    assert content(tmp_path / "a") == first
    other = prepare(SynthRooms(**how | {"train": 3, "test_style": "b"}), tmp_path / "a")
    done = [r.scene for r in other.results if r.status == "done"]
    assert done == ["scene0000_02", "scene9000_00"]


def test_prepare_synthrooms_command(tmp_path, capsys):
    counts = ["--train", "1", "--val", "0", "--test", "1", "--test-style", "b"]
    sizes = ["--frames", "4", "--width", "32", "--height", "24"]
    out = ["--out", str(tmp_path / "out"), "--workers", "1"]
    assert prepare_main(["synthrooms", *counts, *sizes, *out]) == 0
    assert "2 scenes ready (0 of them were there already), 0 failed" in capsys.readouterr().out
    assert list_scenes(tmp_path / "out", "test") == ("scene9000_00",)


def test_the_doctor_finds_nothing_wrong(tmp_path):
    write(tmp_path, options=Options(frames=12))
    findings = list(examine(tmp_path))
    assert any("aligned" in finding.what for finding in findings)
    assert not [finding for finding in findings if finding.level == "problem"]


def test_a_run_that_was_stopped_ends_with_the_same_bytes(tmp_path):
    assert set(write(tmp_path / "a").values()) == {"done"}
    first = content(tmp_path / "a")
    assert not any(part.startswith(".partial") for path in first for part in path.parts)
    scans = tmp_path / "a" / "scans"
    shutil.rmtree(scans / "scene0000_01")
    (scans / ".partial-scene0000_01" / "color").mkdir(parents=True)
    (scans / "scene8000_00" / "synthrooms.json").write_text('{"vers')
    assert write(tmp_path / "a") == {
        "scene0000_00": "kept",
        "scene0000_01": "done",
        "scene8000_00": "done",
        "scene9000_00": "kept",
    }
    assert content(tmp_path / "a") == first
    assert set(write(tmp_path / "b", workers=2).values()) == {"done"}
    assert content(tmp_path / "b") == first


def test_a_split_that_grows_keeps_its_scenes_and_a_style_does_not(tmp_path):
    write(tmp_path)
    done = write(tmp_path, train=3, test_style="b")
    assert done.pop("scene0000_02") == "done"
    assert done.pop("scene9000_00") == "done"
    assert set(done.values()) == {"kept"}
    recipe = json.loads((tmp_path / "scans/scene9000_00/synthrooms.json").read_text())
    assert recipe["style"] == "b"
    assert (tmp_path / "scannetv2_train.txt").read_text().split() == [
        f"scene0000_0{i}" for i in range(3)
    ]


def test_a_root_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "file")


def test_command_line(tmp_path, capsys):
    counts = ["--train", "1", "--val", "0", "--test", "0"]
    sizes = ["--frames", "4", "--width", "32", "--height", "24"]
    args = ["--root", str(tmp_path / "rooms"), *counts, *sizes, "--workers", "1"]
    assert main(args) == 0
    assert "1 rooms written, 0 were there already" in capsys.readouterr().out
    assert main(args) == 0
    assert "0 rooms written, 1 were there already" in capsys.readouterr().out
    assert main([*args, "--train", "-1"]) == 2
    assert "train: -1 scenes" in capsys.readouterr().out


def test_the_page_is_true(root, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = root / "docs" / "synthrooms.md"
    prepared, one = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    exec(prepared, {"__name__": "example"})
    assert len(list_scenes(tmp_path / "prepared")) == 4
    exec(one, {"__name__": "example"})
    assert capsys.readouterr().out.endswith("(8, 120, 160, 3)\n")
    names = re.findall(r"\]\((images/[^)]+)\)", page.read_text(encoding="utf-8"))
    assert len(names) == 4
    assert all(0 < (page.parent / name).stat().st_size < 250_000 for name in names)
