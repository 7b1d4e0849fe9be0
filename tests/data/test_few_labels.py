"""Limited Reconstructions and Limited Annotations."""

import itertools

import numpy as np
import pytest

from haskd_jax.data import DataError, Frames, Scene
from haskd_jax.data.few_labels import (
    FewLabels,
    limited_annotations,
    limited_reconstructions,
    read_point_lists,
    read_scene_list,
)

NAMES = [f"scene{i:04d}_00" for i in range(1201)]


def a_scene(name="room", label=True, manifest=None):
    points = np.random.default_rng(0).uniform(0, 1, (100, 3)).astype(np.float32)
    return Scene(
        name=name,
        points=points,
        colour=np.zeros((100, 3), np.uint8),
        normals=points,
        label=np.arange(100, dtype=np.int32) % 5 - 1 if label else None,
        instance=np.zeros(100, np.int32),
        frames=Frames(
            names=("0",),
            colour=np.zeros((1, 2, 2, 3), np.uint8),
            depth=np.zeros((1, 2, 2), np.uint16),
            intrinsics=np.eye(3, dtype=np.float32)[None],
            camera_to_world=np.eye(4, dtype=np.float32)[None],
            label=np.zeros((1, 2, 2), np.int16),
        ),
        manifest=manifest or {},
    )


def test_shares_are_nested_and_do_not_depend_on_the_order():
    drawn = [limited_reconstructions(NAMES, share, seed=3) for share in (0.01, 0.05, 0.1, 0.2, 1.0)]
    assert [len(few) for few in drawn] == [12, 60, 120, 240, 1201]
    assert all(a < b for a, b in itertools.pairwise(drawn))
    assert limited_reconstructions(NAMES[::-1], 0.05, seed=3) == drawn[1]
    assert limited_reconstructions(NAMES, 0.05, seed=4) != drawn[1]
    assert len(limited_reconstructions(NAMES[:3], 0.01)) == 1


def test_counts_are_nested_and_scenes_independent():
    label = np.random.default_rng(0).integers(-1, 20, 5000).astype(np.int32)
    few = [limited_annotations(label, n, seed=1, name="a") for n in (20, 50, 200)]
    for one, n in zip(few, (20, 50, 200), strict=True):
        kept = one >= 0
        assert kept.sum() == n and (one[kept] == label[kept]).all() and (one[~kept] == -1).all()
    assert ((few[0] >= 0) <= (few[1] >= 0)).all() and ((few[1] >= 0) <= (few[2] >= 0)).all()
    for other in ({"seed": 2, "name": "a"}, {"seed": 1, "name": "b"}):
        assert (limited_annotations(label, 20, **other) != few[0]).any()
    assert (limited_annotations(label, 10_000) == label).all()


def test_a_scene_outside_the_share_keeps_everything_but_its_labels():
    scene = a_scene()
    bare = FewLabels(scenes=frozenset({"other"})).of(scene)
    assert bare.label is None and bare.instance is None and bare.frames.label is None
    assert bare.points is scene.points and len(bare.frames) == 1
    assert FewLabels(scenes=frozenset({"room"})).of(scene) is scene
    assert FewLabels().of(scene) is scene
    unlabelled = a_scene(label=False)
    assert FewLabels(points=3).of(unlabelled) is unlabelled


def test_labelled_points_drawn_or_listed():
    scene = a_scene()
    drawn = FewLabels(points=7, seed=5).of(scene)
    assert (drawn.label >= 0).sum() == 7 and drawn.frames.label is None and drawn.instance is None
    np.testing.assert_array_equal(
        drawn.label, limited_annotations(scene.label, 7, seed=5, name="room")
    )
    listed = FewLabels(points={"room": np.array([3, 99])}).of(scene)
    assert np.flatnonzero(listed.label >= 0).tolist() == [3, 99]
    assert listed.label[[3, 99]].tolist() == [2, 3]
    both = FewLabels(scenes=frozenset({"other"}), points=7).of(scene)
    assert both.label is None


def test_lists_that_do_not_fit_the_scene():
    with pytest.raises(ValueError, match="no list for the scene room"):
        FewLabels(points={"other": np.array([1])}).of(a_scene())
    with pytest.raises(ValueError, match="the list has point 100, room has 100 points"):
        FewLabels(points={"room": np.array([100])}).of(a_scene())
    dropped = a_scene(manifest={"drops": {"point: not finite": 2}})
    with pytest.raises(ValueError, match="room lost points"):
        FewLabels(points={"room": np.array([1])}).of(dropped)


def test_scene_lists(tmp_path):
    path = tmp_path / "scannetv2_train_1.txt"
    path.write_text("scene0003_00\n\nscene0007_00.txt\n")
    assert read_scene_list(path, NAMES) == {"scene0003_00", "scene0007_00"}
    path.write_text("scene0003_00\nscene9999_00\n")
    with pytest.raises(DataError, match=r"train_1.txt: line 2: no scene 'scene9999_00' among"):
        read_scene_list(path, NAMES)
    path.write_text("\n")
    with pytest.raises(DataError, match="names no scene"):
        read_scene_list(path, NAMES)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not readable as text"):
        read_scene_list(path, NAMES)
    with pytest.raises(DataError, match="not readable as text"):
        read_scene_list(tmp_path, NAMES)


def test_point_lists(tmp_path):
    np.savez(tmp_path / "points.npz", scene_a=np.array([5, 1]), scene_b=np.zeros(0, np.int32))
    lists = read_point_lists(tmp_path / "points.npz")
    assert {name: numbers.tolist() for name, numbers in lists.items()} == {
        "scene_a": [5, 1],
        "scene_b": [],
    }
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "scene_a.txt").write_text("5\n1\n")
    lists = read_point_lists(tmp_path / "lists")
    assert lists["scene_a"].tolist() == [5, 1] and lists["scene_a"].dtype == np.int64


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.array([0.5])}, "a: float64 of shape"),
        ({"a": np.array([[1]])}, r"a: int64 of shape \(1, 1\)"),
        ({"a": np.array([-1])}, "a: -1 is no point's number"),
        ({"a": np.array([{}], object)}, "not an .npz of integer arrays"),
        ({}, "holds no list"),
    ],
)
def test_damaged_point_lists(tmp_path, arrays, message):
    np.savez(tmp_path / "points.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_point_lists(tmp_path / "points.npz")


def test_point_lists_that_are_no_lists(tmp_path):
    (tmp_path / "points20").write_bytes(b"\x80\x02}q\x00.")  # a pickle is not opened
    with pytest.raises(DataError, match=r"points20: not an .npz"):
        read_point_lists(tmp_path / "points20")
    np.savez(tmp_path / "cut.npz", a=np.arange(3))
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut.npz: not an .npz"):
        read_point_lists(tmp_path / "cut.npz")
    np.save(tmp_path / "one.npy", np.arange(3))
    with pytest.raises(DataError, match=r"one.npy: not an .npz"):
        read_point_lists(tmp_path / "one.npy")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "scene_a.txt").write_text("5\nfive\n")
    with pytest.raises(DataError, match=r"scene_a.txt: not one whole number a line"):
        read_point_lists(tmp_path / "lists")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: limited_reconstructions(NAMES, 0.0), "share: 0.0"),
        (lambda: limited_reconstructions(NAMES, 1.5), "share: 1.5"),
        (lambda: limited_reconstructions([], 0.5), "names: no scene"),
        (lambda: limited_annotations(np.zeros(3, int), 0), "count: 0"),
        (lambda: FewLabels(points=0), "points: 0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
