"""The loader: every scene, once an epoch, the same batches again, and nothing lost unsaid."""

import itertools
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.spatial import cKDTree

from haskd_jax.data import DataError, load_scene
from haskd_jax.data import transforms as t
from haskd_jax.data.few_labels import FewLabels
from haskd_jax.data.loader import Loader
from haskd_jax.data.loader_batch import PADDING, Batch, collate, fit, rows_of
from haskd_jax.data.loader_capacity import choose_capacities, smallest_fitting
from tests.data.rooms import write_root, write_scene

NAMES = tuple(f"room{i}" for i in range(7))
RECIPE = replace(t.SPUNET_SCANNET, voxel_size=0.1, after=(partial(t.sphere_crop, most=1200),))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    write_root(folder)
    for i, name in enumerate(NAMES):
        write_scene(folder, name, i, 600 + 300 * i, frames=2 if i else 0)
    return folder


@pytest.fixture(scope="module")
def training(root):
    return Loader(root, NAMES, RECIPE, batch_size=2, seed=5, views=2).measured(12)


def assert_equal(one, other):
    for name, a, b in zip(Batch._fields, one, other, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_every_scene_comes_once_an_epoch_in_another_order(training):
    steps = [training.samples_at(step)[1] for step in range(7)]
    seen = [number for scene in steps for number in scene]
    assert sorted(seen[:7]) == sorted(seen[7:]) == list(range(7))
    assert seen[:7] != seen[7:] and seen[:7] != list(range(7))


def test_groups_fill_places_of_their_own(root):
    recipe = replace(RECIPE, mix=0.0)
    loader = Loader(root, NAMES, recipe, batch_size=3, groups=((2, 2), (5, 1)), seed=5)
    steps = np.array([loader.samples_at(step)[1] for step in range(10)])
    assert len(loader) == 5
    assert np.isin(steps[:, :2], (0, 1)).all()
    assert all(sorted(pair) == [0, 1] for pair in steps[:, :2].tolist())
    assert sorted(steps[:5, 2]) == sorted(steps[5:, 2]) == [2, 3, 4, 5, 6]
    assert steps[:5, 2].tolist() != steps[5:, 2].tolist()
    # Over two processes each group comes in the same order.
    halves = [replace(loader, process=i, processes=2).samples_at(0)[1] for i in range(2)]
    assert [scene for pair in zip(*halves, strict=True) for scene in pair] == [
        *steps[:2, :2].ravel().tolist(), *steps[:2, 2].tolist()
    ]  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [{"groups": ((2, 2), (4, 1))}, {"groups": ((2, 1), (5, 1))}, {"groups": ((7, 3), (0, 0))},
     {"groups": ((2, 2), (5, 1)), "train": False}],
    ids=str,
)  # fmt: skip
def test_groups_that_do_not_fit(given):
    with pytest.raises(ValueError, match=r"groups: .* expected 7 in 3"):
        Loader("prepared", NAMES, batch_size=3, **given)


def test_a_scene_is_augmented_anew_every_epoch(root):
    loader = Loader(root, NAMES[:1], replace(RECIPE, mix=0.0))
    one, other = (loader.samples_at(step)[0][0] for step in range(2))
    assert one.name == other.name == "room0"
    assert one.points.shape != other.points.shape or (one.points != other.points).any()


def test_threads_give_the_batches_in_order(training):
    with training.batches(threads=3, buffer=4) as threaded, training.batches(threads=0) as plain:
        for step, (one, other) in enumerate(zip(threaded, plain, strict=False)):
            assert_equal(one, other)
            assert_equal(one, training.batch_at(step))
            if step == 5:
                break


@pytest.mark.slow
def test_workers_give_the_same_batches(training):
    with training.batches(workers=2, threads=1, buffer=1) as iterator:
        for step, batch in enumerate(itertools.islice(iterator, 4)):
            assert_equal(batch, training.batch_at(step))


def test_a_resumed_iteration_goes_on_with_the_same_batch(training):
    with training.batches(threads=2) as first:
        for _ in range(3):
            next(first)
        state = json.loads(json.dumps(first.get_state()))
        expected = [next(first) for _ in range(2)]
        first.set_state(state)  # back again, with batches lying ready
        assert_equal(next(first), expected[0])
    with training.batches(threads=0) as resumed:
        resumed.set_state(state)
        for batch in expected:
            assert_equal(next(resumed), batch)
        assert resumed.get_state()["step"] == 5


def test_a_state_of_another_loader_is_refused(training):
    state = training.batches().get_state()
    other = replace(training, seed=6, recipe=replace(RECIPE, mix=0.1))
    with pytest.raises(ValueError, match="saved by a loader with another recipe, seed:"):
        other.batches().set_state(state)
    with pytest.raises(ValueError, match="is not what get_state returned"):
        training.batches().set_state({"step": 3})
    moved = replace(training, root="elsewhere")
    moved.batches().set_state(state)


def test_what_decides_the_batches_is_in_the_fingerprint(training):
    changes = {
        "scenes": NAMES[:6],
        "capacities": tuple(tuple(2 * n for n in size) for size in training.capacities),
        "few_labels": FewLabels(points={name: np.array([1]) for name in NAMES}),
        "selection": {name: [0] for name in NAMES},
    }
    before = training.fingerprint()
    for name, value in changes.items():
        changed = replace(training, **{name: value}).fingerprint()
        assert {key for key, digest in changed.items() if digest != before[key]} == {name}
    # The frames of scenes that are in no batch decide nothing.
    chosen = replace(training, selection=changes["selection"])
    more = replace(training, selection=changes["selection"] | {"a room to test on": [1]})
    assert more.fingerprint() == chosen.fingerprint()


def test_processes_share_the_same_stream(root):
    one = Loader(root, NAMES, replace(RECIPE, mix=0.0), batch_size=4, seed=1)
    two = [replace(one, batch_size=2, process=process, processes=2) for process in range(2)]
    for step in range(4):
        whole, numbers = one.samples_at(step)
        parts = [loader.samples_at(step) for loader in two]
        assert numbers == [n for pair in zip(*(p[1] for p in parts), strict=True) for n in pair]
        shared = [s for pair in zip(*(p[0] for p in parts), strict=True) for s in pair]
        for a, b in zip(whole, shared, strict=True):
            np.testing.assert_array_equal(a.points, b.points)
            np.testing.assert_array_equal(a.colour, b.colour)


def test_processes_arrive_at_the_same_capacities(root):
    for train in (True, False):
        loaders = [
            Loader(root, NAMES, t.plain(0.1), 2, train=train, process=p, processes=2).measured(4)
            for p in range(2)
        ]
        assert loaders[0].capacities == loaders[1].capacities
        assert len(loaders[0].capacities) == 1  # all must take the same shape in a step


def test_evaluation_shows_every_scene_once_in_order(root):
    found = []
    for process in range(2):
        loader = Loader(root, NAMES, t.plain(0.1), 2, train=False, process=process, processes=2)
        with loader.measured().batches() as iterator:
            batches = list(iterator)
        assert len(batches) == len(loader) == 2
        found += [int(number) for batch in batches for number in batch.scene]
        for batch in batches:
            assert batch.left_out == 0
            assert batch.mask.sum() == (batch.coords[:, 0] < PADDING).sum()
    assert sorted(found) == [-1, 0, 1, 2, 3, 4, 5, 6]


def test_an_evaluation_resumed_at_its_end_has_ended(root):
    loader = Loader(root, NAMES[:2], t.plain(0.1), 2, train=False).measured()
    with loader.batches(threads=1, buffer=0) as iterator:
        assert len(list(iterator)) == 1
        state = iterator.get_state()
    with loader.batches() as iterator:
        iterator.set_state(state)
        assert list(iterator) == []


def test_an_empty_batch_is_all_padding(root):
    loaders = [
        Loader(root, NAMES[:2], t.plain(0.1), 1, train=False, process=process, processes=3)
        for process in range(3)
    ]
    batch = loaders[2].measured().batch_at(0)
    assert not batch.mask.any() and batch.scene.tolist() == [-1]


def test_an_evaluation_batch_is_what_the_scenes_say(root):
    loader = Loader(root, NAMES, t.plain(0.1), 2, train=False, views=1).measured()
    batch = loader.batch_at(1)
    assert batch.scene.tolist() == [2, 3]
    rows = np.flatnonzero(batch.mask)
    assert rows.tolist() == list(range(len(rows)))
    coords = [tuple(c) for c in batch.coords[rows].tolist()]
    assert coords == sorted(set(coords))
    for grid, name in enumerate(NAMES[2:4]):
        scene = load_scene(root / name)
        mine = rows[batch.coords[rows, 0] == grid]
        middle = (scene.points.min(axis=0) + scene.points.max(axis=0)) / 2
        shift = np.array([middle[0], middle[1], scene.points[:, 2].min()])
        distance, numbers = cKDTree(scene.points - shift).query(batch.points[mine])
        assert distance.max() < 1e-5
        colour = np.rint((batch.features[mine, :3] + 1) * 127.5)
        np.testing.assert_array_equal(colour, scene.colour[numbers])
        np.testing.assert_array_equal(batch.label[mine], scene.label[numbers])
        np.testing.assert_array_equal(batch.features[mine, 3:], scene.normals[numbers])
        np.testing.assert_array_equal(
            batch.coords[mine, 1:], np.floor(batch.points[mine] / np.float32(0.1))
        )
        voxels = np.floor((scene.points - shift).astype(np.float32) / np.float32(0.1))
        assert abs(len(np.unique(voxels, axis=0)) - len(mine)) <= 2  # rounding at borders
        np.testing.assert_array_equal(batch.images[grid], scene.frames.colour[1])
        np.testing.assert_allclose(batch.depth[grid], scene.frames.depth[1] / 1000, rtol=1e-6)
        assert (batch.frame_label[grid] == 1).all()
    assert batch.frame_part.tolist() == [0, 1]
    for name, filler in (("coords", PADDING), ("points", 0), ("label", -1), ("part", -1)):
        assert (getattr(batch, name)[~batch.mask] == filler).all()


def test_mixed_batches_hold_two_scenes_in_one_grid(root):
    loader = Loader(root, NAMES, replace(RECIPE, mix=1.0), batch_size=4, seed=2, views=2)
    batch = loader.measured(2).batch_at(0)
    assert set(batch.coords[batch.mask, 0]) == {0, 1}
    assert set(batch.part[batch.mask]) == {0, 1, 2, 3}
    for grid in (0, 1):
        assert set(batch.part[batch.mask & (batch.coords[:, 0] == grid)]) == {
            2 * grid,
            2 * grid + 1,
        }
    coords = [tuple(c) for c in batch.coords[batch.mask].tolist()]
    assert coords == sorted(set(coords))
    with_frames = [i for i, number in enumerate(batch.scene.tolist()) if number != 0]
    frames = [i for i in with_frames for _ in range(2)]
    assert batch.frame_part.tolist() == frames + [-1] * (8 - len(frames))
    padding = batch.frame_part < 0
    assert not batch.images[padding].any() and not batch.depth[padding].any()


def test_frames_are_those_that_were_selected(root):
    selection = {name: [1, 0] for name in NAMES}
    loader = Loader(root, NAMES[1:], t.plain(0.1), 1, train=False, views=1, selection=selection)
    assert (loader.measured().batch_at(0).frame_label == 1).all()
    with pytest.raises(ValueError, match="selection: nothing for the scene room1"):
        replace(loader.measured(), selection={}).batch_at(0)


def test_few_labels_reach_the_batch(root):
    few = FewLabels(scenes=frozenset({"room1", "room2"}), points=5)
    loader = Loader(root, NAMES, t.plain(0.1), 1, few_labels=few, train=False).measured()
    labelled = [int((loader.batch_at(step).label >= 0).sum()) for step in range(7)]
    # Two of five points may share a voxel, but a labelled point never gives way to others.
    assert labelled[0] == 0 and labelled[3:] == [0] * 4 and all(4 <= n <= 5 for n in labelled[1:3])


def test_overflow_crops_around_a_point_and_counts(root):
    loader = Loader(root, NAMES, t.plain(0.1), batch_size=2, seed=3)
    rows = loader.measure_rows(6)
    small = replace(loader, capacities=((int(rows[:, 0].max() // 2), 2000, 900, 400, 400),))
    left_out = 0
    for step in range(6):
        samples, _ = loader.samples_at(step)
        batch = small.batch_at(step)
        kept = int(batch.mask.sum())
        assert kept + batch.left_out == rows[step, 0] == sum(len(s.points) for s in samples)
        assert kept <= len(batch.mask) == small.capacities[0][0]
        assert not batch.left_out or kept > 0.8 * len(batch.mask)
        left_out += int(batch.left_out)
    assert left_out > 0


def test_a_crop_is_a_ball(root):
    sample = t.augment(
        t.sample_of(load_scene(root / "room6")), t.plain(0.1), np.random.default_rng(0)
    )
    (cropped,), capacity, left_out = fit(
        [sample], ((500, 500),), np.random.default_rng(1), crop=True
    )
    assert capacity == (500, 500) and left_out == len(sample.points) - len(cropped.points) > 0
    assert len(cropped.points) == 500
    kept = {tuple(p) for p in cropped.points.tolist()}
    inside = np.array([tuple(p) in kept for p in sample.points.tolist()])
    radii = [
        (np.linalg.norm(sample.points[inside] - c, axis=1).max(),
         np.linalg.norm(sample.points[~inside] - c, axis=1).min())
        for c in cropped.points
    ]  # fmt: skip
    assert any(near <= far + 1e-6 for near, far in radii)


def test_a_coarse_grid_that_is_short_crops_too(root):
    sample = t.augment(
        t.sample_of(load_scene(root / "room6")), t.plain(0.1), np.random.default_rng(0)
    )
    (cropped,), _, left_out = fit([sample], ((5000, 100),), np.random.default_rng(1), crop=True)
    assert left_out > 0
    assert rows_of([cropped], 1)[1] <= 100 < rows_of([sample], 1)[1]


def test_evaluation_never_crops(root):
    loader = Loader(root, NAMES, t.plain(0.1), 1, train=False, capacities=((64, 64, 64, 64, 64),))
    with pytest.raises(ValueError, match=r"scenes room0: \[\d+, .*measure all batches"):
        loader.batch_at(0)


def test_capacities_hold_what_was_measured_and_pad_least():
    rng = np.random.default_rng(0)
    fine = rng.integers(100, 1000, 40)
    rows = np.stack([fine, fine // 4 + rng.integers(0, 50, 40)], axis=1)
    chosen = choose_capacities(rows, buckets=3, headroom=1.0, multiple=1)
    assert all(smallest_fitting(row, chosen) is not None for row in rows)

    def padding(cuts):
        ordered = np.sort(fine)
        ends = [*cuts, 39]
        return sum(min(ordered[e] for e in ends if ordered[e] >= n) for n in ordered)

    best = min(padding(cuts) for cuts in itertools.combinations(range(39), 2))
    assert sum(min(c[0] for c in chosen if c[0] >= n) for n in fine) == best
    roomy = choose_capacities(rows, buckets=2, headroom=1.5, multiple=64)
    assert all(n % 64 == 0 for size in roomy for n in size) and roomy[-1][0] >= 1.5 * fine.max()
    assert choose_capacities(np.full((5, 2), 10), buckets=3, multiple=16) == ((16, 16),)


def test_memory_is_bounded_by_what_is_made_ahead(training, monkeypatch):
    made = []
    original = Loader.batch_at

    def counting(self, step):
        made.append(step)
        return original(self, step)

    monkeypatch.setattr(Loader, "batch_at", counting)
    with training.batches(threads=2, buffer=3) as iterator:
        for _ in range(4):
            next(iterator)
    assert len(made) <= 4 + 3 + 1


def test_errors_arrive_with_the_scene(root, tmp_path, training):
    write_scene(tmp_path, "room0", 0, 300)
    (tmp_path / "room0" / "label.npy").write_bytes(b"half")
    broken = Loader(tmp_path, ("room0",), t.plain(0.1), capacities=((500,) * 5,))
    with broken.batches(threads=1) as iterator, pytest.raises(DataError, match=r"room0/label.npy"):
        next(iterator)
    with pytest.raises(DataError, match=r"room9/manifest.json: missing"):
        Loader(root, ("room9",), capacities=((500,) * 5,)).batch_at(0)
    write_scene(tmp_path, "room0", 0, 300)
    (tmp_path / "room0").rename(tmp_path / "room1")
    with pytest.raises(DataError, match="room1: its manifest names it 'room0'"):
        Loader(tmp_path, ("room1",)).measure_rows(1)


def test_frames_of_two_sizes_are_refused(root, tmp_path):
    write_scene(tmp_path, "a", 0, 300)
    write_scene(tmp_path, "b", 1, 300, size=(20, 12))
    loader = Loader(tmp_path, ("a", "b"), t.plain(0.1), views=1, train=False)
    with pytest.raises(ValueError, match=r"one size .* 16 x 12 in a, 20 x 12 in b: prepare"):
        loader.measured().batch_at(0)
    with pytest.raises(ValueError, match="there are none"):
        Loader(root, NAMES[:1], views=1).measured(1).batch_at(0)


def test_the_iterator_after_closing(training):
    iterator = training.batches(threads=1)
    next(iterator)
    iterator.close()
    iterator.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)
    with pytest.raises(ValueError, match="closed"):
        iterator.set_state(iterator.get_state())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0"),
        ({"batch_size": 3, "recipe": RECIPE}, "batch_size: 3 with mixing"),
        ({"seed": -1}, "seed: -1"),
        ({"views": -1}, "views: -1"),
        ({"processes": 0}, "processes: 0"),
        ({"process": 2, "processes": 2}, "process: 2 of 2"),
        ({"scenes": ()}, "scenes: none"),
        ({"scenes": ("a", "b", "a")}, "scenes: a is there twice"),
        ({"capacities": ((10, 10),)}, r"expected sizes of 5 numbers"),
        ({"capacities": ((20,) * 5, (10,) * 5)}, "whose first ones ascend"),
        ({"capacities": ((20, 20, 20, 20, 1),), "batch_size": 2}, "less than a voxel"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Loader(**({"root": "prepared", "scenes": ("a",)} | arguments))


def test_bad_calls_are_named(root, training):
    unmeasured = Loader(root, NAMES)
    for call in (unmeasured.batches, lambda: unmeasured.batch_at(0)):
        with pytest.raises(ValueError, match="capacities: not chosen yet"):
            call()
    with pytest.raises(ValueError, match="threads: -1"):
        training.batches(threads=-1)
    with pytest.raises(ValueError, match="step: -1"):
        training.batch_at(-1)
    with pytest.raises(ValueError, match="step: 7, expected 0 to 6"):
        replace(unmeasured, train=False).samples_at(7)
    with pytest.raises(ValueError, match="batches: 0"):
        unmeasured.measure_rows(0)
    with pytest.raises(ValueError, match="rows: shape"):
        choose_capacities(np.zeros((0, 5), int))
    with pytest.raises(ValueError, match="buckets, headroom, multiple: 0"):
        choose_capacities(np.ones((2, 2), int), buckets=0)
    with pytest.raises(ValueError, match="room0 has no voxels"):
        rows_of([t.sample_of(load_scene(root / "room0"))], 2)
    sample = unmeasured.samples_at(0)[0][0]
    with pytest.raises(ValueError, match="capacity: 3 for"):
        collate([sample], 3, scene=[0], views=0, image_size=(0, 0))
    with pytest.raises(ValueError, match="less than one voxel a scene"):
        fit([sample, sample], ((1, 1),), np.random.default_rng(0), crop=True)
