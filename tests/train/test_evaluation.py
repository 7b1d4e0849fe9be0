"""Evaluation of whole scenes, against networks run by hand."""

import json
import subprocess
import sys
import timeit
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax.data import DataError, Scene, load_scene
from haskd_jax.data.fragments import motions
from haskd_jax.data.loader_batch import collate
from haskd_jax.data.prepared import scans_digest
from haskd_jax.data.transforms import move, sample_of
from haskd_jax.train import evaluation, metrics, prediction
from haskd_jax.train.evaluation import class_iou, evaluate
from haskd_jax.train.inputs import make_inputs
from haskd_jax.train.prediction import predict_scene
from haskd_jax.train.records import write_predictions, write_submission
from tests.train.trained import (
    CLASSES,
    VOXEL_SIZE,
    cloud,
    make_student,
    make_teacher,
    weights,
    write_root,
    write_scene,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("evaluation") / "prepared")


@pytest.fixture(scope="module")
def student():
    network = make_student()
    return network, *weights(network)


@pytest.fixture(scope="module")
def teacher():
    network = make_teacher()
    return network, *weights(network)


def lattice(seed=0):
    """A scene of one point at the centre of each of some voxels, in random order."""
    rng = np.random.default_rng(seed)
    voxels = np.unique(rng.integers([-8, -6, 0], [8, 6, 3], (400, 3)), axis=0)
    voxels = np.concatenate([voxels, [[-8, -6, 0], [7, 5, 2]]])
    voxels = rng.permutation(np.unique(voxels, axis=0))
    normals = rng.normal(size=(len(voxels), 3)).astype(np.float32)
    colour = rng.integers(0, 256, (len(voxels), 3)).astype(np.uint8)
    # The lowest point is a quarter voxel above the floor that centring gives it.
    points = ((voxels + np.array([0.5, 0.5, 0.0])) * VOXEL_SIZE).astype(np.float32)
    return Scene("lattice", points, colour, normals), voxels.astype(np.int32)


def test_points_get_the_probabilities_of_their_voxel(student):
    network, params, state = student
    scene, voxels = lattice()
    # The same network by hand, in another padding.
    order = np.lexsort(voxels.T[::-1])
    sample = sample_of(scene)
    ordered = replace(
        sample, points=sample.points[order], surface=sample.points[order],
        colour=sample.colour[order], normals=sample.normals[order], part=sample.part[order],
        voxels=voxels[order], voxel_size=VOXEL_SIZE,
    )  # fmt: skip
    batch = collate([ordered], 640, scene=[0], views=0, image_size=(0, 0))

    @jax.jit
    def run(batch):
        inputs = make_inputs(batch, (640, 600, 500))
        return network.forward(params, state, inputs, train=False)[0]

    output = run(batch)
    logits = np.asarray(output.logits, np.float64)[: len(voxels)]
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    found = predict_scene(network, params, state, scene)
    assert found.dtype == np.float32 and found.shape == (len(voxels), len(CLASSES))
    np.testing.assert_allclose(found[order], expected, atol=1e-5)
    assert expected.max(axis=1).std() > 0.01  # a network that says something


def test_crops_cover_all_points_and_change_nothing_where_not_needed(student, root):
    scene = load_scene(root / "one")
    whole = predict_scene(*student, scene)
    np.testing.assert_array_equal(whole, predict_scene(*student, scene, most=5000))
    cut = predict_scene(*student, scene, most=150)
    np.testing.assert_allclose(cut.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(cut, predict_scene(*student, scene, most=150))
    # Another context at the crops' borders, the same network: much alike, not the same.
    assert (cut.argmax(1) == whole.argmax(1)).mean() > 0.6
    assert np.abs(cut - whole).max() > 1e-4


def test_test_time_augmentation_is_the_mean_over_moved_scenes(student, root):
    scene = load_scene(root / "one")
    expected = np.zeros((len(scene.points), len(CLASSES)))
    for linear in motions(13):
        moved = move(sample_of(scene), linear, np.zeros(3))
        expected += predict_scene(*student, moved) / 13
    np.testing.assert_allclose(predict_scene(*student, scene, tta=13), expected, atol=1e-5)


def test_an_ensemble_is_the_mean_of_its_members(student, root):
    network, params, state = student
    scene = load_scene(root / "one")
    other = weights(network, seed=5)
    expected = predict_scene(network, params, state, scene) + predict_scene(network, *other, scene)
    found = predict_scene(network, params, state, scene, ensemble=[other])
    np.testing.assert_allclose(found, expected / 2, atol=1e-6)


def test_evaluate_sums_over_scenes_and_says_how(student, root):
    network, params, state = student
    expected = np.zeros((len(CLASSES), len(CLASSES)), int)
    for name in ("one", "two"):
        scene = load_scene(root / name)
        said = predict_scene(network, params, state, scene).argmax(axis=1)
        for label, answer in zip(scene.label, said, strict=True):
            if label >= 0:
                expected[label, answer] += 1
    seen = {}
    result = evaluate(
        network, params, state, root, ("one", "two", "unlabelled"), split="val", step=7,
        on_scene=lambda found: seen.update({found.scene.name: found}),
    )  # fmt: skip
    assert result.confusion.tolist() == expected.tolist()
    assert sorted(seen) == ["one", "two", "unlabelled"]
    assert seen["unlabelled"].confusion is None
    assert len(seen["unlabelled"].predictions) == 900
    assert seen["two"].predictions.dtype == np.int16
    record = result.to_json()
    assert record["protocol"] == {
        "dataset": "rooms", "split": "val", "scenes": 3, "labels": "all", "encoder": None,
        "scans": scans_digest(root, ("one", "two", "unlabelled")),
        "unit": "points",
        "voxel_size": VOXEL_SIZE, "tta": 1, "views": 0, "frames": None, "ensemble": 1,
        "crop_voxels": prediction.MOST_VOXELS, "checkpoint": "last", "step": 7, "commit": None,
        "weights": None,
        "package": record["protocol"]["package"],
    }  # fmt: skip
    assert record["miou"] == pytest.approx(metrics.mean_iou(expected))
    assert record["scenes"] == ["one", "two", "unlabelled"]
    assert record["parameters"] == network.num_parameters


def test_the_time_of_a_scene_is_the_least_of_five(student, root, monkeypatch):
    def fake(call, *, number, repeat):
        assert call().shape == (len(load_scene(root / "two").points), len(CLASSES))  # the last one
        assert (number, repeat) == (1, 5)
        return [3.0, 2.0, 5.0, 1.5, 4.0]

    monkeypatch.setattr(timeit, "repeat", fake)
    assert evaluate(*student, root, ("one", "two"), split="val").seconds_per_scene == 1.5
    untimed = evaluate(*student, root, ("one", "two"), split="val", timed=False)
    assert untimed.seconds_per_scene is None


def test_scenes_are_dealt_to_all_devices(student, root, monkeypatch):
    network, params, state = student
    used = {}
    probabilities = prediction._probabilities

    def record(network, capacity, params, state, batch):
        found = probabilities(network, capacity, params, state, batch)
        used.setdefault(len(batch.points), set()).update(found.devices())
        return found

    alone = [predict_scene(*student, load_scene(root / name)) for name in ("one", "unlabelled")]
    monkeypatch.setattr(prediction, "_probabilities", record)
    seen = {}
    evaluate(
        network, params, state, root, ("one", "unlabelled"), split="val",
        on_scene=lambda found: seen.update({found.scene.name: found.probabilities}),
    )  # fmt: skip
    assert set.union(*used.values()) == set(jax.local_devices())
    np.testing.assert_array_equal(seen["one"], alone[0])
    np.testing.assert_array_equal(seen["unlabelled"], alone[1])


def test_class_iou_is_that_of_evaluate(student, root):
    result = evaluate(*student, root, ("one", "two"), split="train")
    iou, counts = class_iou(*student, root, ("one", "two"))
    np.testing.assert_array_equal(iou, result.iou)
    assert counts.tolist() == result.confusion.sum(axis=1).tolist()
    assert counts[3] == 0 < counts[0]


def test_records_are_json_without_nan(tmp_path):
    confusion = np.diag([3, 0, 2])
    result = evaluation.Evaluation({"split": "val"}, ("one",), tuple("abc"), confusion, 10, 0.5)
    result.write(tmp_path / "evaluation.json")
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["iou"] == [1.0, None, 1.0]
    assert record["miou"] == record["accuracy"] == record["mean_accuracy"] == 1.0
    assert record["confusion"] == confusion.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_a_teacher_sees_the_frames_that_were_selected(teacher, root):
    scene = load_scene(root / "one")
    blind = predict_scene(*teacher, scene)
    first = predict_scene(*teacher, scene, views=1, chosen_frames=[0, 2])
    last = predict_scene(*teacher, scene, views=1, chosen_frames=[2, 0])
    spread = predict_scene(*teacher, scene, views=1)
    middle = predict_scene(*teacher, scene, views=1, chosen_frames=[1])
    np.testing.assert_array_equal(spread, middle)
    for other in (blind, last):
        assert np.abs(first - other).max() > 1e-3
    # Both frames in another order: the same sights.
    both = predict_scene(*teacher, scene, views=2, chosen_frames=[0, 2])
    turned = predict_scene(*teacher, scene, views=2, chosen_frames=[2, 0])
    np.testing.assert_allclose(both, turned, atol=1e-5)


def test_a_teacher_without_frames_says_so(teacher, root):
    with pytest.warns(UserWarning, match="unlabelled has no frames"):
        found = predict_scene(*teacher, load_scene(root / "unlabelled"), views=2)
    np.testing.assert_array_equal(found, predict_scene(*teacher, load_scene(root / "unlabelled")))


def test_a_scene_that_was_not_selected_is_named(teacher, root):
    with pytest.raises(ValueError, match="selection: nothing for the scene two"):
        evaluate(*teacher, root, ("two",), split="val", views=1, selection={"one": [0]})


def test_weights_that_diverged_are_refused(student, root):
    network, params, state = student
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    with pytest.raises(ValueError, match=r"scene one .*not finite"):
        predict_scene(network, broken, state, load_scene(root / "one"))


def test_labels_of_another_class_list_are_refused(tmp_path):
    root = write_root(tmp_path / "prepared")
    strange = cloud(4, count=50)
    write_scene(root, "strange", replace(strange, label=np.full(50, 9, np.int32)))
    network = make_student()
    with pytest.raises(ValueError, match="scene strange: labels: 9, there are 4 classes"):
        evaluate(network, *weights(network), root, ("strange",), split="val")


def test_missing_scenes_are_refused(student, root):
    with pytest.raises(ValueError, match="scenes: none"):
        evaluate(*student, root, (), split="val")
    with pytest.raises(DataError, match="nowhere"):
        evaluate(*student, root, ("nowhere",), split="val")


def test_submissions_hold_an_id_a_line(tmp_path):
    path = write_submission(tmp_path / "s", "scene0707_00", np.array([3, 0, 2]), CLASSES)
    assert path.name == "scene0707_00.txt"
    assert path.read_text() == "14\n1\n5\n"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with pytest.raises(ValueError, match="beam"):
        write_submission(tmp_path / "s", "other", np.array([0]), ("beam",))
    with pytest.raises(ValueError, match="predictions: -1 to 0"):
        write_submission(tmp_path / "s", "other", np.array([-1, 0]), CLASSES)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_predictions_are_kept_as_small_integers(tmp_path):
    path = write_predictions(tmp_path / "p", "one", np.array([3, 0]))
    kept = np.load(path, allow_pickle=False)
    assert kept.dtype == np.int16 and kept.tolist() == [3, 0]


_PROCESS = """
import os, sys
import jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from haskd_jax.train.evaluation import evaluate
from tests.train.trained import make_student, weights
network = make_student()
seen = []
found = evaluate(network, *weights(network), sys.argv[3], ("one", "two", "unlabelled"), split="val",
                 on_scene=lambda found: seen.append(found.scene.name))
print(seen, found.confusion.tolist())
"""


@pytest.mark.slow
def test_processes_share_the_scenes_out(student, root):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, address, str(number), str(root)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    alone = evaluate(*student, root, ("one", "two"), split="val").confusion.tolist()
    # Gloo writes lines of its own, before or after.
    lines = [next(text for text in out.splitlines() if text.startswith("['")) for out, _ in said]
    assert lines == [f"['one', 'unlabelled'] {alone}", f"['two'] {alone}"]
