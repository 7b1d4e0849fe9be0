"""The select stage, on small SynthRooms."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from haskd_jax import views
from haskd_jax.data import DataError, load_scene
from haskd_jax.data.prepare import prepare
from haskd_jax.data.prepared import scans_digest
from haskd_jax.data.scene import Cloud
from haskd_jax.data.synthrooms import Options, SynthRooms
from haskd_jax.data.writer import SceneWriter
from haskd_jax.train.selection import read_selection, select, write_selection

ROOMS = ("scene0000_00", "scene8000_00")
METHODS = ("iof", "uniform", "random", "coverage", "entropy", "stochastic")
NUM_VIEWS = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two rooms of a dozen frames, and a cloud without frames."""
    root = tmp_path_factory.mktemp("prepared")
    options = Options(frames=12, width=64, height=48, voxel_size=0.05)
    summary = prepare(SynthRooms(train=1, val=1, test=0, options=options), root)
    assert not summary.failed
    with SceneWriter(root, "blind") as writer:
        writer.add_cloud(Cloud(np.random.default_rng(0).random((50, 3), np.float32)))
        writer.commit(dataset="synthrooms", split="train", options={})
    return root


@pytest.fixture(scope="module")
def chosen(root) -> dict[str, dict]:
    return {method: select(root, ROOMS, method=method, num_views=NUM_VIEWS) for method in METHODS}


def seen(root, name) -> tuple[np.ndarray, np.ndarray]:
    """[F, V] visible, by another way to the voxels, a dictionary; and [N] each point's voxel."""
    scene = load_scene(root / name)
    points = np.asarray(scene.points)
    number: dict[tuple, int] = {}
    cells = np.floor(points / np.float32(0.05)).tolist()
    voxel = np.array([number.setdefault(tuple(cell), len(number)) for cell in cells])
    means = np.array([points[voxel == v].mean(0, dtype=np.float64) for v in range(len(number))])
    frames = scene.frames
    visible = views.visibility(
        means,
        np.asarray(frames.depth, np.float32) / 1000,
        frames.intrinsics,
        frames.camera_to_world,
        tolerance=0.05,
    )
    return np.asarray(visible), voxel


@pytest.mark.parametrize("method", METHODS)
def test_every_entry_says_what_it_covers(root, chosen, method):
    selection = chosen[method]
    assert selection["method"] == method
    assert list(selection["scenes"]) == list(ROOMS)
    for name, entry in selection["scenes"].items():
        visible, _ = seen(root, name)
        indices = entry["indices"]
        assert entry["frames"] == len(entry["quality"]) == len(visible) == 12
        assert len(set(indices)) == len(entry["gains"]) == NUM_VIEWS
        assert entry["uniform"]["indices"] == [1, 4, 7, 10]
        for frames, share in (
            (indices, entry["coverage"]),
            (entry["uniform"]["indices"], entry["uniform"]["coverage"]),
            (range(12), entry["reach"]),
        ):
            # A depth that is off by almost exactly the tolerance may fall to either side.
            assert share == pytest.approx(visible[list(frames)].any(0).mean(), abs=2e-3)
        assert entry["coverage"] <= entry["reach"] < 1


def test_filtering_tells_more_than_the_baselines(chosen):
    for name, entry in chosen["iof"]["scenes"].items():
        assert all(np.diff(entry["gains"]) <= 0)
        for method in METHODS[1:]:
            assert sum(entry["gains"]) > sum(chosen[method]["scenes"][name]["gains"])


def test_the_baselines_are_what_they_are_called(root, chosen):
    for name in ROOMS:
        frames = load_scene(root / name).frames
        of = {method: chosen[method]["scenes"][name]["indices"] for method in METHODS}
        assert of["uniform"] == [1, 4, 7, 10]
        entropy = np.asarray(views.frame_entropy(np.asarray(frames.colour)))
        assert of["entropy"] == np.argsort(-entropy, kind="stable")[:NUM_VIEWS].tolist()
        visible, _ = seen(root, name)
        assert of["coverage"][0] == visible.sum(1).argmax()
    assert len({tuple(of[method]) for method in METHODS}) > 4
    rooms = chosen["random"]["scenes"]
    assert rooms[ROOMS[0]]["indices"] != rooms[ROOMS[1]]["indices"]


def test_a_scene_is_chosen_from_whatever_its_company(root, chosen):
    for method in ("iof", "random"):
        told = []
        again = select(
            root, [ROOMS[1], "blind"], method=method, num_views=NUM_VIEWS,
            on_scene=lambda name, entry, told=told: told.append((name, entry["indices"])),
        )  # fmt: skip
        assert again["scenes"][ROOMS[1]] == chosen[method]["scenes"][ROOMS[1]]
        assert told == [(ROOMS[1], again["scenes"][ROOMS[1]]["indices"]), ("blind", [])]
        other = select(root, ROOMS[:1], method=method, num_views=NUM_VIEWS, seed=1)
        same = other["scenes"][ROOMS[0]]["indices"] == chosen[method]["scenes"][ROOMS[0]]["indices"]
        assert same is (method == "iof")


def test_a_scene_without_frames_has_an_empty_entry(root):
    (entry,) = select(root, ["blind"], num_views=2)["scenes"].values()
    assert entry == {
        "frames": 0,
        "indices": [],
        "gains": [],
        "coverage": 0.0,
        "uniform": {"indices": [], "coverage": 0.0},
        "reach": 0.0,
        "quality": [],
        "scan": scans_digest(root, ["blind"]),
    }


def test_information_leads_the_choice(root, chosen):
    """What is wanted of the points near the first camera is wanted of their voxels."""
    eye = load_scene(root / ROOMS[0]).frames.camera_to_world[0, :3, 3]

    def information(scene):
        return np.exp(-np.linalg.norm(np.asarray(scene.points) - eye, axis=1))

    visible, voxel = seen(root, ROOMS[0])
    per_point = information(load_scene(root / ROOMS[0]))
    wanted = np.bincount(voxel, per_point) / np.bincount(voxel)
    plain = chosen["iof"]["scenes"][ROOMS[0]]
    indices, gains = views.select_views(
        visible, num_views=NUM_VIEWS, quality=np.array(plain["quality"]), information=wanted
    )
    told = select(root, ROOMS[:1], num_views=NUM_VIEWS, information=information)
    assert told["options"]["information"] is True
    entry = told["scenes"][ROOMS[0]]
    assert entry["indices"] == indices.tolist() != plain["indices"]
    np.testing.assert_allclose(entry["gains"], gains, rtol=2e-3)


def test_fewer_frames_than_asked_for(root, caplog):
    (entry,) = select(root, ROOMS[:1], num_views=16)["scenes"].values()
    assert sorted(entry["indices"]) == list(range(12))
    assert len(entry["gains"]) == 12
    assert entry["coverage"] == entry["uniform"]["coverage"] == entry["reach"]
    assert f"{ROOMS[0]} has 12 frames, not 16" in caplog.text


def test_lost_cameras_are_never_chosen(root, tmp_path, caplog):
    """As of data that something else prepared: this package's writer leaves such frames out."""
    shutil.copytree(root / ROOMS[0], tmp_path / ROOMS[0])
    path = tmp_path / ROOMS[0] / "frame_camera_to_world.npy"
    poses = np.load(path, allow_pickle=False)
    poses[::2] = -np.inf
    poses[1, :3, :3] *= 1.1
    np.save(path, poses, allow_pickle=False)
    for method in ("iof", "uniform"):
        (entry,) = select(tmp_path, ROOMS[:1], method=method, num_views=4)["scenes"].values()
        assert set(entry["indices"]) <= {3, 5, 7, 9, 11}
    assert "7 of 12 frames have no usable camera" in caplog.text


def test_written_and_read_again(chosen, tmp_path):
    path = tmp_path / "selection.json"
    write_selection(path, chosen["iof"])
    assert read_selection(path) == chosen["iof"]
    first = path.read_bytes()
    write_selection(path, read_selection(path))
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["selection.json"]


def test_files_that_are_no_selection(chosen, tmp_path):
    path = tmp_path / "selection.json"
    with pytest.raises(DataError, match=r"selection\.json: missing"):
        read_selection(path)
    room = chosen["iof"]["scenes"][ROOMS[0]]
    for value, message in (
        ([], "not a selection"),
        ({"format": "haskd-selection", "version": 2}, "version 2, this package reads 1"),
        ({**chosen["iof"], "scenes": None}, "lists no scenes"),
        ({**chosen["iof"], "scenes": {"room": {"frames": 3}}}, "the entry of room is damaged"),
        ({**chosen["iof"], "scenes": {"room": room | {"indices": [12]}}}, "room: .12. are no"),
        ({**chosen["iof"], "scenes": {"room": room | {"indices": [1, 1]}}}, "room: .1, 1. are no"),
    ):
        path.write_text(json.dumps(value), encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_selection(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_views": 0}, "num_views: 0, expected 1 or more"),
        ({"voxel_size": 0.0}, "voxel_size: 0.0, expected a positive"),
        ({"tolerance": float("nan")}, "tolerance: nan, expected a positive"),
        ({"rho": 1.5}, "rho: 1.5, expected a number in"),
        ({"scenes": []}, "scenes: .., expected the names"),
        ({"scenes": "scene0000_00"}, "expected the names"),
        ({"information": lambda scene: np.ones(3)}, r"information: shape \(3,\) for"),
        ({"information": lambda scene: -np.ones(len(scene.points))}, "information: -1.0 in scene"),
        ({"scenes": ["nowhere"]}, "nowhere.manifest.json: missing"),
    ],
)
def test_bad_arguments(root, options, message):
    with pytest.raises(ValueError, match=message):
        select(root, **({"scenes": ROOMS, "num_views": 2} | options))


@pytest.mark.usefixtures("unchecked_annotations")
def test_an_unknown_method(root):
    with pytest.raises(ValueError, match="method: 'best', expected one of iof, uniform"):
        select(root, ROOMS, method="best", num_views=2)
