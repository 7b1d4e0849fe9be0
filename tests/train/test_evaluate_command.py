"""`haskd evaluate` on a run's folder."""

import io
import json
import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

from haskd_jax.experiments.evaluate_cli import _show, main
from haskd_jax.train.checkpoints import Checkpoints, weights_digest
from haskd_jax.train.config import OptimizerConfig
from haskd_jax.train.evaluation import Evaluation
from haskd_jax.train.optimizer import make_optimizer
from haskd_jax.train.state import init_state
from tests.train.trained import (
    CLASSES,
    cloud,
    make_student,
    make_teacher,
    weights,
    write_root,
    write_scene,
    write_training,
)


@pytest.fixture
def run(tmp_path):
    """A run of a student and a teacher, which a killed session left without a third."""
    write_root(tmp_path / "prepared")
    write_training(tmp_path / "plain", make_student())
    write_training(tmp_path / "teacher", make_teacher())
    (tmp_path / "plain" / "config.json").write_text(json.dumps({"commit": "abc"}))
    about = {
        "format": "haskd-run",
        "version": 1,
        "arms": ["plain", "teacher", "x"],
        "test_splits": ["val"],
    }
    (tmp_path / "run.json").write_text(json.dumps(about))
    write_scene(tmp_path / "prepared", "three", cloud(4), split="train", frames=3)
    scenes = {name: {"frames": 3, "indices": [2, 0]} for name in ("one", "two", "unlabelled")}
    scenes["unlabelled"] = {"frames": 0, "indices": []}
    selection = {"format": "haskd-selection", "version": 1, "num_views": 2, "scenes": scenes}
    (tmp_path / "selection.json").write_text(json.dumps(selection))
    return tmp_path


def record(path):
    return json.loads(path.read_text())


@pytest.mark.filterwarnings("ignore:scene unlabelled has no frames")
def test_a_run_is_evaluated_and_records_of_other_protocols_stay(run, capsys):
    assert main([str(run), "--predictions", "1"]) == 0
    plain, teacher = (record(run / arm / "evaluation.json") for arm in ("plain", "teacher"))
    assert plain["protocol"]["commit"] == "abc" and plain["protocol"]["views"] == 0
    assert teacher["protocol"]["views"] == 2
    kept = np.load(run / "plain" / "predictions" / "one.npy", allow_pickle=False)
    assert kept.shape == (900,)
    said = capsys.readouterr().out
    assert f"{100 * plain['miou']:.1f}" in said and f"{100 * teacher['miou']:.1f}" in said
    assert "tta 1" in said

    given = [str(run / "plain"), "--tta", "10", "--submission", str(run / "upload")]
    assert main([*given, "--predictions", "2"]) == 0
    assert record(run / "plain" / "evaluation.json") == plain
    # What the report shows is what the record scores; the others lie beside, too.
    np.testing.assert_array_equal(np.load(run / "plain" / "predictions" / "one.npy"), kept)
    for folder, count in (("predictions", 1), ("predictions-val-tta10", 2)):
        assert len(list((run / "plain" / folder).iterdir())) == count
    other = record(run / "plain" / "evaluation-val-tta10.json")
    assert other["protocol"]["tta"] == 10
    # Other views are another protocol, too.
    assert main([str(run / "teacher"), "--views", "1"]) == 0
    assert record(run / "teacher" / "evaluation.json") == teacher
    fewer = record(run / "teacher" / "evaluation-val-views1.json")
    assert fewer["protocol"]["views"] == 1
    # So are as few views of another selection.
    selection = record(run / "selection.json")
    for name in ("one", "two"):
        selection["scenes"][name]["indices"] = [2]
    (run / "other.json").write_text(json.dumps(selection))
    command = [str(run / "teacher"), "--views", "1", "--selection", str(run / "other.json")]
    assert main(command) == 0
    assert record(run / "teacher" / "evaluation-val-views1.json") == fewer
    (others,) = (run / "teacher").glob("evaluation-val-views1-frames-*.json")
    assert record(others)["protocol"]["views"] == 1
    files = sorted(path.name for path in (run / "upload").iterdir())
    assert files == ["one.txt", "two.txt", "unlabelled.txt"]
    ids = (run / "upload" / "one.txt").read_text().split()
    assert len(ids) == 900 and set(ids) <= {"1", "2", "5", "14"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "submission: "),
        (["plain", "--split", "test"], "no scene of split 'test'"),
        (["plain", "--data", "nowhere"], "nowhere/dataset.json: missing"),
        (["plain", "--snapshots"], "has no snapshots"),
        (["teacher", "--split", "train"], "1 of 1 scenes have no frames selected, such as three"),
        (["nothing"], "card.json: missing"),
        (["teacher", "--views", "3"], "views: 3, but the selection of"),
        (["teacher", "--views", "3"], "holds 2 frames of a scene"),
        (["plain", "--predictions", "-1"], "predictions: -1, expected 0 or more"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_a_line(run, capsys, given, message):
    folder = run / given[0] if given else run
    more = given[1:] if given else ["--submission", str(run / "upload")]
    before = sorted(run.rglob("*"))
    assert main([str(folder), *more]) == 2
    assert message in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("text", ["{}", "[]", '{"protocol": 1}', "{"])
def test_a_damaged_record_is_named_and_stays(run, capsys, text):
    path = run / "plain" / "evaluation.json"
    path.write_text(text)
    assert main([str(run / "plain")]) == 2
    said = capsys.readouterr().err
    assert f"{path}: not " in said
    assert text == "{" or "remove it and evaluate again" in said
    assert path.read_text() == text


def test_scenes_of_the_same_names_are_other_scenes(run):
    assert main([str(run / "plain")]) == 0
    before = record(run / "plain" / "evaluation.json")
    write_root(run / "other")
    shutil.rmtree(run / "other" / "one")
    write_scene(run / "other", "one", cloud(7), frames=3)
    assert main([str(run / "plain"), "--data", str(run / "other")]) == 0
    assert record(run / "plain" / "evaluation.json") == before
    (other,) = (run / "plain").glob("evaluation-*.json")
    scans = record(other)["protocol"]["scans"]
    assert scans != before["protocol"]["scans"] and other.stem == f"evaluation-val-{scans[:8]}"


@pytest.mark.filterwarnings("ignore:scene unlabelled has no frames")
def test_each_teacher_sees_the_frames_that_it_was_trained_with(run, capsys):
    shutil.copytree(run / "teacher", run / "teacher_uniform")
    teacher = str(run / "teacher_uniform")
    assert main([teacher]) == 2
    assert "nothing says which frames it sees" in capsys.readouterr().err
    selection = record(run / "selection.json")
    for name in ("one", "two"):
        selection["scenes"][name]["indices"] = [1]
    selection["num_views"] = 1
    (run / "selection_uniform.json").write_text(json.dumps(selection))
    assert main([teacher]) == 0 and main([str(run / "teacher")]) == 0
    found = [record(run / arm / "evaluation.json") for arm in ("teacher_uniform", "teacher")]
    assert [one["protocol"]["views"] for one in found] == [1, 2]
    # As many frames, but others, do not go over the record.
    selection["num_views"], selection["scenes"]["one"]["indices"] = 1, [2]
    (run / "other.json").write_text(json.dumps(selection))
    assert main([teacher, "--selection", str(run / "other.json")]) == 0
    assert record(run / "teacher_uniform" / "evaluation.json") == found[0]
    (other,) = (run / "teacher_uniform").glob("evaluation-val-frames-*.json")
    assert record(other)["protocol"]["frames"] != found[0]["protocol"]["frames"]


def test_what_is_said_of_several_is_said_of_each():
    """What all share once; classes of no truth not at all; names as they are."""
    shared = {"dataset": "[red]rooms", "split": "val", "frames": None}
    own = {"plain": {"views": 0, "step": 7}, "teacher": {"views": 2, "step": 7}}
    # The third class is predicted and never true.
    confusion = np.array([[30, 0, 10], [0, 50, 10], [0, 0, 0]])
    found = {
        arm: Evaluation(shared | more, ("one",), ("[b]wall", "floor", "lamp"), confusion, 1, 0.1)
        for arm, more in own.items()
    }
    console = Console(file=io.StringIO(), width=60)
    _show(console, found)
    said = console.file.getvalue()
    assert "protocol: dataset [red]rooms, split val, step 7\n" in said
    assert "plain: views 0\n" in said and "teacher: views 2\n" in said
    rows = {cells[0]: cells[1:] for line in said.splitlines() if (cells := _cells(line))}
    assert rows["lamp"] == ["-", "-"]
    shown = [float(rows[name][0]) for name in ("[b]wall", "floor")]
    assert np.mean(shown) == pytest.approx(float(rows["miou"][0]), abs=0.1)


def _cells(line):
    return [cell.strip() for cell in line.strip("\u2502\n ").split("\u2502")]


def test_a_folder_that_does_not_say_its_split(run, capsys):
    (run / "run.json").unlink()
    assert main([str(run / "plain"), "--data", str(run / "prepared")]) == 2
    assert "give --split" in capsys.readouterr().err


def test_a_training_that_goes_on_does_not_get_the_final_record(run):
    with Checkpoints(run / "plain" / "checkpoints") as checkpoints:
        network = make_student()
        params, state = weights(network)
        with jax.numpy_dtype_promotion("standard"):
            optimizer = make_optimizer(OptimizerConfig(), 4)
            begun = init_state({"network": params}, state, optimizer, seed=0, ema=False)
        checkpoints.save(2, begun, {})
        checkpoints.wait()
    shutil.rmtree(run / "plain" / "weights")
    assert main([str(run / "plain")]) == 0
    assert not (run / "plain" / "evaluation.json").exists()
    found = record(run / "plain" / "evaluation-val-unfinished.json")
    assert found["protocol"]["checkpoint"] == "newest of a training that goes on"
    # Of the weights, whatever was logged after them.
    assert found["protocol"]["step"] == 2 and found["protocol"]["weights"] is None


def test_the_record_says_which_labels_and_which_encoder_taught(run):
    described = record(run / "run.json")
    counts = {"labelled": ["a"], "unlabelled": ["b", "c"], "calibration": ["d"], "test": []}
    config = {"scenes": {"labelled_points": None}}
    (run / "run.json").write_text(json.dumps({**described, "scenes": counts, "config": config}))
    # A student's encoder is its teacher's.
    config = {"train": {"steps": 7}, "teacher": {"encoder": {"frames": 1234}}}
    (run / "plain" / "config.json").write_text(json.dumps(config))
    assert main([str(run / "plain")]) == 0
    protocol = record(run / "plain" / "evaluation.json")["protocol"]
    assert protocol["labels"] == "1 of 3 scenes, 1 more for calibration"
    assert protocol["encoder"] == "image encoder trained before on 1,234 labelled frames"
    assert protocol["step"] == 7 and protocol["checkpoint"] == "last"
    assert protocol["weights"] == [weights_digest(run / "plain")]


def test_data_of_other_classes_are_refused(run, capsys):
    write_root(run / "other", classes=("pump", *CLASSES[1:]))
    assert main([str(run / "plain"), "--data", str(run / "other")]) == 2
    assert "trained for wall, floor" in capsys.readouterr().err
