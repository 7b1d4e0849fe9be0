"""A training is what its configuration, its data and who taught it make of it."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from haskd_jax.data.workers import locked
from haskd_jax.experiments import synthrooms
from haskd_jax.experiments.arm_evaluation import evaluate_arm
from haskd_jax.experiments.arm_identity import identity, others_training
from haskd_jax.experiments.arm_training import check_batches, train_arm
from haskd_jax.experiments.arms import ARMS
from haskd_jax.experiments.run import run
from haskd_jax.files import write_json
from haskd_jax.train.checkpoints import save_weights
from haskd_jax.train.networks import make_network
from tests.experiments.small_experiment import SCENES, leave, setup_of, small_experiment
from tests.train.trained import weights


@pytest.fixture
def experiment(tmp_path):
    return small_experiment(tmp_path)


def test_what_was_trained_in_another_way_is_not_scored(experiment):
    leave(setup_of(experiment), "plain")
    other = replace(experiment, scenes=replace(SCENES, voxel_size=0.5), seed=3)
    with pytest.raises(ValueError, match=r"plain holds .*another card.voxel_size, .*seed: give"):
        evaluate_arm(setup_of(other), "plain")
    assert not (experiment.out / "plain" / "evaluation.json").exists()


def test_arms_that_a_command_does_not_name_are_of_its_configuration_too(experiment, capsys):
    """One run compares all that it lists."""
    experiment = replace(experiment, encoder=None, arms=("plain",), stages=("report",))
    setup = setup_of(experiment)
    for name in ("plain", "cyclic"):
        leave(setup, name)
    path = experiment.out / "run.json"

    def listed(code, **changes):
        assert run(replace(experiment, **changes)) == code
        return json.loads(path.read_text())["arms"]

    # More arms, fewer, other stages: it goes on. What is listed and was never trained is no other.
    assert listed(0, arms=("plain", "cyclic", "asd")) == ["plain", "cyclic", "asd"]
    assert listed(0) == ["plain", "cyclic", "asd"]
    assert listed(0, arms=("smoothing",)) == ["plain", "cyclic", "asd", "smoothing"]
    # A name of another version is nobody's training any more.
    write_json(path, json.loads(path.read_text()) | {"arms": ["plain", "cyclic", "gone"]})
    assert listed(0) == ["plain", "cyclic", "gone"]
    before = path.read_bytes()
    other = {"arms": ("smoothing",), "seed": 1}
    listed(2, **other)
    assert "plain holds a training with another seed: give another --out" in capsys.readouterr().err
    assert path.read_bytes() == before
    # Written over, it is compared no more with what it does not redo.
    assert listed(0, **other, overwrite=True) == ["gone", "smoothing"]
    assert listed(0, **other) == ["gone", "smoothing"]


def test_pictures_that_lack_are_made_and_the_record_stays(experiment):
    setup = setup_of(experiment)
    leave(setup, "plain")
    evaluate_arm(setup, "plain")
    record, stored = (
        experiment.out / "plain" / name for name in ("evaluation.json", "predictions")
    )
    before = record.read_bytes(), record.stat().st_mtime_ns
    assert not stored.exists()
    more = setup_of(replace(experiment, pictures=3))
    evaluate_arm(more, "plain")
    (found,) = stored.iterdir()
    assert found.name == "five.npy"
    assert (record.read_bytes(), record.stat().st_mtime_ns) == before
    written = found.stat().st_mtime_ns
    evaluate_arm(more, "plain")
    assert found.stat().st_mtime_ns == written


def test_predictions_of_another_evaluation_are_not_shown_beside_it(experiment):
    setup = setup_of(replace(experiment, pictures=3))
    leave(setup, "plain")
    evaluate_arm(setup, "plain")
    stored = experiment.out / "plain" / "predictions" / "five.npy"
    assert stored.exists()
    evaluate_arm(setup_of(replace(experiment, tta=4)), "plain")
    assert not stored.exists()


def test_batches_that_cannot_be_made(experiment, unchecked_annotations):
    experiment = replace(experiment, arms=("ihd",))

    def check(devices=1, mix=0.0, **changes):
        scenes = replace(experiment.scenes, mix=mix)
        setup = setup_of(replace(experiment, scenes=scenes, **changes))
        check_batches(replace(setup, mesh=SimpleNamespace(size=devices)))

    odd = replace(experiment.train, batch_size=3)
    check(train=odd)
    check(mix=0.8)
    with pytest.raises(ValueError, match=r"train.batch_size: 3, but .* a batch of ihd has 3: give"):
        check(mix=0.8, train=odd)
    with pytest.raises(ValueError, match=r"train_teacher.batch_size: 3, but .* of teacher has 3"):
        check(mix=0.8, train_teacher=odd)
    several = replace(experiment.train, buckets=2)
    check(train=several)
    with pytest.raises(ValueError, match=r"train.buckets: 2 on 3 devices, expected 1"):
        check(devices=3, train=several)


def test_two_runs_in_one_folder(experiment, monkeypatch, capsys):
    monkeypatch.setattr("haskd_jax.experiments.run._PATIENCE", 0.0)
    experiment = replace(experiment, encoder=None, arms=("plain",), stages=("report",))
    experiment.out.mkdir()
    with locked(experiment.out):
        for seeds in (1, 2):
            assert run(replace(experiment, seeds=seeds)) == 2
            assert "another process is at work here" in capsys.readouterr().err
        assert [path.name for path in experiment.out.iterdir()] == [".lock"]


def test_other_weights_are_scored_anew(experiment):
    """Whether it is a training of its own or one that an ensemble is of."""
    setup = setup_of(replace(experiment, ensemble=1))
    leave(setup, "plain")
    path = experiment.out / "ensemble" / "evaluation.json"

    def score():
        evaluate_arm(setup, "ensemble")
        return json.loads(path.read_text())

    first = score()
    path.touch()
    written = path.stat().st_mtime_ns
    assert score() == first and path.stat().st_mtime_ns == written
    leave(setup, "plain", seed=1)
    other = score()
    assert other["protocol"]["weights"] != first["protocol"]["weights"]
    assert other["confusion"] != first["confusion"]


def test_who_is_not_trained_to_its_end_teaches_nobody(experiment):
    setup = setup_of(experiment)
    training = leave(setup, "plain")
    shutil.rmtree(training.folder / "weights")
    (training.folder / "weights").mkdir()  # as a kill may leave it
    with pytest.raises(ValueError, match="plain: not trained to its end, and ihd_points is taught"):
        train_arm(setup, "ihd_points")
    with pytest.raises(ValueError, match="cyclic: not trained to its end, and asd is taught by it"):
        train_arm(setup, "asd")
    assert not (experiment.out / "ihd_points").exists()


def test_a_student_of_other_weights_is_another_student(experiment):
    setup = setup_of(experiment)
    for name in ("plain", "cyclic", "ihd_points", "asd"):
        leave(setup, name)
    students = [setup.trainings(name)[0] for name in ("ihd_points", "asd")]
    assert [others_training(setup, student) for student in students] == [None, None]
    leave(setup, "plain", seed=1)
    leave(setup, "cyclic", seed=1)
    assert [others_training(setup, student) for student in students] == [
        "a training with another teacher.weights",
        "a training with another experts.weights",
    ]
    # Before who teaches is trained again, nothing is known of it.
    shutil.rmtree(experiment.out / "plain")
    assert others_training(setup, students[0]) is None


def test_an_encoder_is_known_by_its_weights(experiment, tmp_path):
    """Two that were trained alike but for what their description does not tell, as their seed."""
    found = []
    for seed in range(2):
        encoder = tmp_path / f"encoder{seed}"
        shutil.copytree(synthrooms.ENCODER, encoder)
        save_weights(encoder, {"w": weights(make_network(setup_of(experiment).card(ARMS["plain"])),
                                            seed)[0]}, {})  # fmt: skip
        setup = setup_of(replace(experiment, encoder=encoder))
        found.append(identity(setup, setup.trainings("teacher")[0])["encoder"])
    assert found[0].pop("weights") != found[1].pop("weights") and found[0] == found[1]


def test_devices_each_take_a_batch(experiment):
    setup = setup_of(experiment)
    assert identity(setup, setup.trainings("plain")[0])["devices"] == setup.mesh.size
