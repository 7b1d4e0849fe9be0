"""The debug preset of each experiment, end to end on files in its dataset's raw format."""

import json
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from haskd_jax.data import prepare_cli
from haskd_jax.data.s3dis import CLASSES as S3DIS_CLASSES
from haskd_jax.experiments import own, s3dis, scannet, synthrooms
from haskd_jax.experiments.arms import ARMS
from haskd_jax.files import write_json
from tests.data import raw

SCANS = ("scene0000_00", "scene0001_00", "scene0002_00", "scene0003_00")


@pytest.fixture(scope="module")
def scannet_raw(tmp_path_factory):
    """Four scans as ScanNet releases them, the last one to validate on."""
    root = tmp_path_factory.mktemp("scannet")
    for name in SCANS:
        raw.write_scan(root / "scans", name, frames=3)
    raw.write_split(root, "train", SCANS[:-1])
    raw.write_split(root, "val", SCANS[-1:])
    raw.write_split(root, "test", [])
    return root


@pytest.fixture(scope="module")
def s3dis_raw(tmp_path_factory):
    """Rooms of three areas."""
    root = tmp_path_factory.mktemp("s3dis")
    for seed, (area, room) in enumerate(
        [
            ("Area_1", "office_1"),
            ("Area_1", "office_2"),
            ("Area_2", "hall_1"),
            ("Area_5", "office_3"),
        ]
    ):
        objects = {
            "floor_1": raw.object_lines(900, seed, high=(3.0, 3, 0.05)),
            "wall_1": raw.object_lines(900, seed + 10, high=(3.0, 0.05, 2)),
            "table_1": raw.object_lines(400, seed + 20, low=(1.0, 1, 0.7), high=(2.0, 2, 0.8)),
        }
        raw.write_room(root, area, room, objects)
    return root


def results(out, arm):
    return json.loads((out / arm / "evaluation.json").read_text())


def weights(out, arm):
    """The bytes of an arm's final parameters."""
    import jax

    from haskd_jax.experiments.trained import load_trained

    return jax.tree.leaves(load_trained(out / arm)[1:])


def does_nothing_again(main, command, out):
    """The same command leaves every file of a finished run as it is, but for what tells of it."""
    before = times(out)
    assert main(command) == 0
    assert times(out) == before


def times(out):
    told = {"report.html", "run.json", "prepare.json", "dataset.json"}
    files = (
        path
        for path in out.rglob("*")
        if path.is_file() and path.name not in told and path.name[0] != "."
    )
    return {path: path.stat().st_mtime_ns for path in files}


def goes_on_to_the_same_bits(main, command, out, arm):
    """What is gone is done again, from the last checkpoint that is there."""
    first = weights(out, arm)
    shutil.rmtree(out / arm / "weights")
    checkpoints = (out / arm / "checkpoints").iterdir()
    shutil.rmtree(max(checkpoints, key=lambda path: int(path.name.split(".")[0])))
    assert main(command) == 0
    for one, other in zip(first, weights(out, arm), strict=True):
        np.testing.assert_array_equal(one, other)


def test_scannet(scannet_raw, tmp_path):
    out = tmp_path / "run"
    command = ["debug", "--raw", str(scannet_raw), "--out", str(out)]
    assert scannet.main(command) == 0
    for arm in ("plain", "teacher", "haskd"):
        found = results(out, arm)
        assert found["protocol"]["split"] == "val" and found["protocol"]["scenes"] == 1
        assert found["protocol"]["views"] == (2 if arm == "teacher" else 0)
        assert np.sum(found["confusion"]) > 1000
    assert (out / "report.html").read_text().count("<table") >= 1
    log = [json.loads(line) for line in (out / "haskd" / "metrics.jsonl").read_text().splitlines()]
    terms = {name for line in log for name in line.get("terms", {})}
    assert {"cross_entropy", "ihd/logits", "asd"} <= terms
    assert sum("cycle" in line for line in log) == 2
    # Of one capacity, with and without experts, and a handful beside.
    assert log[-1]["compilations"] <= 2 + 6
    does_nothing_again(scannet.main, command, out)
    goes_on_to_the_same_bits(scannet.main, command, out, "plain")


def test_synthrooms_does_only_what_is_not_done(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["debug", "--out", str(out), "--arms", "plain"]
    assert synthrooms.main(command) == 0
    does_nothing_again(synthrooms.main, command, out)
    goes_on_to_the_same_bits(synthrooms.main, command, out, "plain")

    # Another configuration is refused, by name, until it is asked for; what tells of the run stays.
    changed = [*command, "--train.optimizer.learning-rate", "0.001"]
    told = (out / "run.json").read_bytes()
    assert synthrooms.main(changed) == 2
    assert "another train.optimizer.learning_rate" in capsys.readouterr().err
    assert (out / "run.json").read_bytes() == told
    assert synthrooms.main([*command, "--rooms.train", "6"]) == 2
    assert "another labelled" in capsys.readouterr().err
    assert synthrooms.main(command) == 2
    assert "1 scenes that this command does not ask for, such as scene0000_05" in (
        capsys.readouterr().err
    )
    shutil.rmtree(out / "prepared" / "scene0000_05")

    # What an ensemble scored with members that are trained anew is gone, as is what they scored.
    stale = [out / arm / "evaluation.json" for arm in ("plain", "snapshots")]
    write_json(stale[1], {})
    assert synthrooms.main([*changed, "--overwrite", "--stages", "student"]) == 0
    assert not any(path.exists() for path in stale)

    # Other test rooms are another evaluation.
    assert synthrooms.main([*changed, "--stages", "evaluate"]) == 0
    assert results(out, "plain")["scenes"] == ["scene9000_00"]
    shutil.rmtree(out / "prepared" / "scene9000_00")
    assert synthrooms.main([*changed, "--rooms.first-test", "1"]) == 0
    before = results(out, "plain")
    assert before["scenes"] == ["scene9000_01"]
    # So are rooms of the same names that were made in another way.
    other = [*changed, "--rooms.first-test", "1", "--rooms.test-style", "b"]
    assert synthrooms.main(other) == 0
    after = results(out, "plain")
    assert after["scenes"] == before["scenes"] and after["confusion"] != before["confusion"]


def test_own_scans(tmp_path, capsys):
    """From clouds and frames to a report, by the commands that docs/data.md shows."""
    scans = tmp_path / "scans"
    points, side = raw.room_cloud(3000)
    for name in ("train/a", "train/b", "train/without", "val/c"):
        raw.write_frames(scans / name, raw.walk(3))
        label = {} if "without" in name else {"label": side.astype(np.int32)}
        raw.write_ply(scans / name / "cloud.ply", raw.vertices(points, **label))
    prepared, out = tmp_path / "prepared", tmp_path / "run"
    command = ["own", "--raw", str(scans), "--classes", *"abcdef", "--out", str(prepared)]
    assert prepare_cli.main(command) == 0
    command = ["debug", "--prepared", str(prepared), "--out", str(out), "--arms", "haskd"]
    assert own.main(command) == 0
    found = results(out, "haskd")
    assert found["protocol"]["split"] == "val" and np.sum(found["confusion"]) == 3000
    assert found["classes"] == list("abcdef")
    run = json.loads((out / "run.json").read_text())
    assert run["scenes"]["unlabelled"] == ["without"]
    assert "HAS-KD on own scans" in (out / "report.html").read_text()
    scenes, registered = own.SMALL.scenes, synthrooms.FEW_LABELS.scenes
    assert (scenes.mix, scenes.augmentation) == (registered.mix, registered.augmentation)
    # Prepared scans are all that it takes.
    assert own.main(["debug", "--out", str(tmp_path / "other")]) == 2
    assert "dataset.json: missing" in capsys.readouterr().err


def test_s3dis_warns_where_what_teaches_has_nothing_to_say(s3dis_raw, tmp_path, capsys):
    """There are no images, and no scene is without labels."""
    out = tmp_path / "run"
    command = ["debug", "--raw", str(s3dis_raw), "--out", str(out), "--arms", "ihd"]
    command += ["--ihd.voxels", "unlabelled"]
    assert s3dis.main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "what images tell is lost" in said
    assert "ihd: ihd.voxels is unlabelled and every scene is labelled" in said
    assert said.count("every scene is labelled") == 1  # nobody teaches the teacher
    found = results(out, "teacher")
    assert found["classes"] == list(S3DIS_CLASSES)
    assert found["protocol"]["split"] == "Area_5"
    does_nothing_again(s3dis.main, command, out)
    goes_on_to_the_same_bits(s3dis.main, command, out, "teacher")


@pytest.mark.parametrize(
    ("preset", "labelled", "first_test", "voxels", "weight", "steps", "optimizer"),
    [
        ("all_labels", 1.0, 520, "all", 0.3, 1500, ("adamw", 0.01, 0.05, 0.9)),
        ("few_labels", 0.3, 760, "unlabelled", 1.0, 1200, ("muon", 0.01, 0.05, 0.95)),
    ],
)
def test_what_is_registered_does_not_follow_the_demo(
    preset, labelled, first_test, voxels, weight, steps, optimizer
):
    """The numbers of experiments/synthrooms/PREREGISTRATION.md, versions 8, 11 and 12."""
    found = synthrooms.PRESETS[preset][1]
    rooms = found.rooms
    assert (rooms.train, rooms.test, rooms.first_test, rooms.style) == (120, 80, first_test, "a")
    assert (rooms.options.voxel_size, rooms.options.frames) == (0.04, 48)
    scenes = found.scenes
    assert found.teacher.modality_dropout == 0.5
    assert (scenes.voxel_size, scenes.calibration, scenes.labelled) == (0.08, 16, labelled)
    assert (scenes.augmentation, scenes.mix, found.views.num_views) == ("spunet", 0.0, 6)
    for training in (found.train, found.train_teacher):
        assert (training.steps, training.batch_size, training.unlabelled) == (steps, 2, 2)
        own = training.optimizer
        assert (own.name, own.learning_rate, own.weight_decay, own.momentum) == optimizer
        assert (own.cycles, own.first_cycle) == (2, 0.7)
    ihd, asd = found.ihd, found.asd
    assert (ihd.teaching, ihd.tta, ihd.weight, ihd.temperature) == ("offline", 4, weight, 1.0)
    assert (asd.teaching, asd.tta, asd.adeptness) == ("offline", 4, "hard")
    assert (asd.weight, asd.temperature) == (weight, 1.0)
    assert (ihd.voxels, asd.voxels, found.model.family) == (voxels, voxels, "spvcnn")
    assert (found.snapshots, set(found.arms)) == ("offline", set(ARMS))


@pytest.mark.parametrize(("preset", "voxels"), [("small", "unlabelled"), ("full", "all")])
def test_all_voxels_are_taught_where_all_rooms_are_labelled(preset, voxels):
    found = synthrooms.PRESETS[preset][1]
    assert (found.ihd.voxels, found.asd.voxels) == (voxels, voxels)
    assert (found.scenes.labelled == 1) == (voxels == "all")


@pytest.mark.parametrize("preset", ["small", "full"])
def test_the_encoder_that_comes_with_the_package_fits(preset):
    from haskd_jax.data.scannet_labels import CLASSES
    from haskd_jax.train.card import ModelCard
    from haskd_jax.train.image_encoders import with_encoder
    from haskd_jax.train.networks import make_network

    found = synthrooms.PRESETS[preset][1]
    card = ModelCard(
        "teacher", found.model, "synthrooms", CLASSES, 0.08, found.teacher, frozen_images=True
    )
    teacher = make_network(card)
    assert with_encoder(teacher, found.encoder).init is not teacher.init


@pytest.mark.slow
@pytest.mark.parametrize("snapshots", ["online", "offline"])
def test_finished_networks_teach(snapshots, tmp_path, capsys):
    """What the teacher says of every training room is kept and taught; snapshots teach too, in
    every step, or by what they said of every training room."""
    out = tmp_path / "run"
    command = ["debug", "--out", str(out), "--arms", "haskd", "--ihd.teaching", "offline"]
    command += ["--asd.teaching", snapshots]
    command += ["--ihd.voxels", "unlabelled", "--asd.voxels", "unlabelled"]
    assert synthrooms.main(command) == 0
    assert "every scene is labelled" not in capsys.readouterr().out
    (folder,) = (out / "teacher").glob("soft_tta4_*")
    soft = {path.stem for path in folder.iterdir()}
    kept = [
        {path.stem for path in folder.iterdir()}
        for folder in (out / "ihd_cyclic").glob("soft_cycle?_tta4_*")
    ]
    assert kept == [soft] * (2 if snapshots == "offline" else 0)
    config = json.loads((out / "haskd" / "config.json").read_text())
    assert (config["ihd"]["teaching"], config["snapshots"]) == ("offline", "ihd_cyclic")
    prepared = {path.name for path in (out / "prepared").glob("scene0*")}
    assert len(soft) == 4 and soft < prepared  # one of five is held back for calibration
    log = [json.loads(line) for line in (out / "haskd" / "metrics.jsonl").read_text().splitlines()]
    terms = [line["terms"] for line in log if "terms" in line]
    assert all(term["ihd/logits"] > 0 and term["asd"] > 0 for term in terms)
    # The snapshots are those of the student that the same teacher taught.
    left = (out / "ihd_cyclic" / "metrics.jsonl").read_text().splitlines()
    cycles = [line["iou"] for line in map(json.loads, left) if "cycle" in line]
    np.testing.assert_allclose(
        np.array(log[0]["experts"], float), np.array(cycles, float), rtol=1e-6
    )
    does_nothing_again(synthrooms.main, command, out)
    goes_on_to_the_same_bits(synthrooms.main, command, out, "haskd")

    shutil.rmtree(out / "haskd")
    shutil.rmtree(out / "ihd_cyclic" / "snapshots" / "0.0")
    assert synthrooms.main(command) == 2
    assert "ihd_cyclic/snapshots: 1 snapshots of 2 cycles" in capsys.readouterr().err
    assert not (out / "haskd" / "config.json").exists()


@pytest.mark.slow
def test_a_cluster_of_two_processes(root, tmp_path):
    """A teacher and its student, evaluated, with a report; every process leaves with 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    out = tmp_path / "run"
    options = ["--cluster.enabled", "--cluster.processes", "2", "--cluster.coordinator", address]
    command = [sys.executable, "-m", "haskd_jax.experiments.synthrooms", "debug", *options]
    both = [
        subprocess.Popen(
            [*command, "--cluster.process", str(number), "--out", str(out), "--arms", "haskd"],
            cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        for process in both:
            said, _ = process.communicate(timeout=600)
            assert process.returncode == 0, said
    finally:
        for process in both:
            process.kill()
            process.communicate()
    for arm in ("teacher", "haskd"):
        assert results(out, arm)["protocol"]["scenes"] == 1
    log = [json.loads(line) for line in (out / "haskd" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4]
    assert (out / "report.html").exists()


class TestBadInput:
    def test_a_root_of_another_kind(self, tmp_path, capsys):
        command = ["debug", "--prepared", str(tmp_path), "--out", str(tmp_path / "run")]
        assert scannet.main(command) == 2
        assert f"{tmp_path}/dataset.json: missing" in capsys.readouterr().err

    def test_nothing_to_train_on(self, scannet_raw, tmp_path, capsys):
        command = ["debug", "--raw", str(scannet_raw), "--out", str(tmp_path / "run"),
                   "--stages", "prepare", "select", "--scenes.calibration", "3"]  # fmt: skip
        assert scannet.main(command) == 2
        assert "scenes.calibration: 3 of 3 labelled scenes leaves none" in capsys.readouterr().err

    @pytest.mark.parametrize("more", [[], ["--seeds", "2"]])
    @pytest.mark.parametrize("within", ["", "run"])
    def test_a_file_in_place_of_the_folder(self, tmp_path, capsys, within, more):
        path = tmp_path / "file"
        path.write_text("")
        assert scannet.main(["debug", "--out", str(path / within), *more]) == 2
        assert f"out: {path} is a file, expected a folder" in capsys.readouterr().err

    def test_no_encoder_is_said_before_anything_is_done(self, tmp_path, capsys):
        out = tmp_path / "run"
        assert synthrooms.main(["debug", "--out", str(out), "--encoder", "nosuch"]) == 2
        assert "nosuch/encoder.json: missing" in capsys.readouterr().err
        assert not out.exists()

    def test_an_option_out_of_range(self, capsys):
        with pytest.raises(SystemExit) as exit:
            synthrooms.main(["debug", "--scenes.voxel-size", "-0.1"])
        assert exit.value.code == 2
        text = " ".join(capsys.readouterr().err.split())
        assert "experiment.scenes: voxel_size: -0.1, expected a positive" in text
        assert "tyro" not in text

    @pytest.mark.parametrize("option", ["--trian.steps", "--arms"])
    def test_unknown_options(self, option, capsys):
        with pytest.raises(SystemExit) as exit:
            synthrooms.main(["debug", option, "plane"])
        assert exit.value.code == 2
        text = capsys.readouterr().err
        assert "train.steps" in text if option == "--trian.steps" else "plain" in text
