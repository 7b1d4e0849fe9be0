"""IOF that asks a student alone where images have most to add."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from haskd_jax.experiments import sweep
from haskd_jax.experiments.arm_identity import others_training
from haskd_jax.experiments.arm_runs import run_arms
from haskd_jax.experiments.arms import ARMS
from haskd_jax.experiments.config import ViewsConfig
from haskd_jax.experiments.stages import find_scenes
from haskd_jax.train.checkpoints import weights_digest
from haskd_jax.train.networks import make_network
from haskd_jax.train.prediction import predict_scene
from haskd_jax.train.selection import read_selection, select
from tests.experiments.small_experiment import leave, setup_of, small_experiment
from tests.train.trained import weights

WEIGHT = 30.0


@pytest.fixture
def experiment(tmp_path):
    """Five frames a scene, of which a teacher sees two."""
    return replace(
        small_experiment(tmp_path, frames=5),
        arms=("teacher", "teacher_uniform"),
        stages=("select",),
        views=ViewsConfig(num_views=2, information=WEIGHT),
    )


def select_frames(experiment):
    run_arms(experiment, find_scenes(experiment), Console(quiet=True), None)
    return read_selection(experiment.out / "selection.json")


def test_what_the_student_does_not_know_is_wanted(experiment):
    setup = setup_of(experiment)
    student = leave(setup, "plain")
    network = make_network(setup.card(ARMS["plain"]))

    def wanted(scene):
        p = predict_scene(network, *weights(network), scene).astype(np.float64)
        entropy = -(p * np.log(p)).sum(axis=1) / np.log(p.shape[1])
        return 1 + WEIGHT * entropy

    found = select_frames(experiment)
    options = {"num_views": 2, "tolerance": experiment.teacher.tolerance}
    names = list(found["scenes"])
    oracle = select(experiment.root, names, information=wanted, **options)
    alike = select(experiment.root, names, **options)
    for name in names:
        one, other = found["scenes"][name], oracle["scenes"][name]
        assert one["indices"] == other["indices"]
        np.testing.assert_allclose(one["gains"], other["gains"], rtol=1e-5)
        assert np.min(np.divide(one["gains"], alike["scenes"][name]["gains"])) > 2
    digest = weights_digest(student.folder)
    assert found["options"]["information"] == {"weight": WEIGHT, "student": digest}


def test_another_student_chooses_anew(experiment):
    setup = setup_of(experiment)
    leave(setup, "plain")
    path = experiment.out / "selection.json"
    select_frames(experiment)
    (teacher,) = [leave(setup, "teacher")]
    written = path.stat().st_mtime_ns
    select_frames(experiment)
    assert path.stat().st_mtime_ns == written and others_training(setup, teacher) is None
    leave(setup, "plain", seed=1)
    select_frames(experiment)
    assert path.stat().st_mtime_ns != written
    assert others_training(setup, teacher) == "a training with another informant.weights"
    # Without it all voxels are wanted alike, whoever was trained.
    select_frames(replace(experiment, views=ViewsConfig(num_views=2)))
    assert read_selection(path)["options"]["information"] is False


def test_it_is_trained_first(experiment):
    assert experiment.all_arms == ("plain", "teacher", "teacher_uniform")
    with pytest.raises(ValueError, match=r"plain: not trained to its end, and IOF asks it"):
        select_frames(experiment)
    assert not (experiment.out / "selection.json").exists()


def test_seeds_share_what_no_student_decides(experiment):
    (shared,), seeds = sweep._jobs(replace(experiment, seeds=2))
    assert shared.experiment.arms == ("teacher_uniform",)
    assert all(seed.experiment.arms[0] == "plain" for seed in seeds)
