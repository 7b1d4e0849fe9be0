"""Stages of an experiment on scenes that changed since."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from haskd_jax.data import DataError
from haskd_jax.data.writer import SceneWriter
from haskd_jax.experiments.arm_runs import run_arms
from haskd_jax.experiments.config import ScenesConfig, ViewsConfig
from haskd_jax.experiments.own import OwnExperiment
from haskd_jax.experiments.stages import find_scenes, run_select
from haskd_jax.experiments.synthrooms import SynthRoomsExperiment
from haskd_jax.files import write_json
from tests.train.trained import cloud, frame, write_root, write_scene


def test_frames_are_chosen_anew_where_a_scene_is_another(tmp_path):
    root = write_root(tmp_path / "prepared")
    write_scene(root, "three", cloud(4), split="train", frames=3)
    write_scene(root, "four", cloud(5), split="test", frames=3)
    experiment = SynthRoomsExperiment(
        arms=("teacher",), prepared=root, out=tmp_path, views=ViewsConfig(num_views=2),
        scenes=ScenesConfig(calibration=0),
    )  # fmt: skip

    def select():
        said = Console(record=True, width=200)
        run_select(experiment, find_scenes(experiment), "iof", said)
        return "select" in said.export_text()

    assert select() and not select()
    shutil.rmtree(root / "four")
    write_scene(root, "four", cloud(6), split="test", frames=3)
    assert select() and not select()


def rooms(root, **options):
    """Of two scenes to train on one has labels; one of two to test on."""
    write_root(root)
    for name, split in (("three", "train"), ("four", "train"), ("five", "test"), ("six", "test")):
        labels = name in ("three", "five")
        write_scene(root, name, cloud(4, labels=labels), split=split, frames=3)
    write_scene(root, "seven", replace(cloud(5), label=np.full(900, -1, np.int32)), split="train")
    return SynthRoomsExperiment(prepared=root, out=root, **options)


def test_scenes_without_labels_are_taught_alone(tmp_path):
    """Whether they have no label file or no label in it."""
    experiment = rooms(
        tmp_path / "a", scenes=ScenesConfig(calibration=0), arms=("plain",), stages=("student",)
    )
    scenes = find_scenes(experiment)
    assert (scenes.labelled, scenes.unlabelled) == (("three",), ("four", "seven"))
    listed = tmp_path / "labelled.txt"
    listed.write_text("three\nfour\n")
    config = ScenesConfig(calibration=0, labelled_list=listed)
    with pytest.raises(ValueError, match=r"labelled_list: .*labelled.txt names four, without"):
        find_scenes(replace(experiment, scenes=config))
    with pytest.raises(ValueError, match="calibration: 1 of 1 labelled scenes leaves none"):
        find_scenes(replace(experiment, scenes=ScenesConfig(calibration=1)))
    shutil.rmtree(tmp_path / "a" / "three")
    with pytest.raises(ValueError, match="none of the 2 scenes of train has labels"):
        find_scenes(experiment)


def test_nothing_is_evaluated_by_scenes_without_labels(tmp_path):
    experiment = rooms(tmp_path / "a", scenes=ScenesConfig(calibration=0), arms=("plain",))
    with pytest.raises(ValueError, match=r"1 of the 2 scenes of test have no labels .* as six"):
        find_scenes(experiment)
    shutil.rmtree(tmp_path / "a" / "six")
    assert find_scenes(experiment).test == ("five",)


def test_no_scene_is_both_trained_on_and_tested_on(tmp_path):
    experiment = OwnExperiment(
        prepared=rooms(tmp_path / "a").root, out=tmp_path, test="train",
        arms=("plain",), scenes=ScenesConfig(calibration=0),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"3 scenes, such as four, would be trained on and tested"):
        find_scenes(experiment)


def test_an_encoder_that_has_seen_a_scene_to_test_on_is_refused(tmp_path):
    experiment = rooms(
        tmp_path / "a", scenes=ScenesConfig(calibration=0), arms=("teacher",), stages=("select",),
        encoder=tmp_path / "encoder",
    )  # fmt: skip
    write_json(tmp_path / "encoder" / "config.json", {"scenes": ["one", "five"]})
    with pytest.raises(ValueError, match=r"encoder: .* learnt from 1 of the scenes .* as five"):
        run_arms(experiment, find_scenes(experiment), Console(quiet=True), None)
    write_json(tmp_path / "encoder" / "config.json", {"seed": 0})
    with pytest.raises(DataError, match=r"config.json: does not say from which scenes"):
        run_arms(experiment, find_scenes(experiment), Console(quiet=True), None)
    write_json(tmp_path / "encoder" / "config.json", {"scenes": ["one", "three"]})
    run_arms(experiment, find_scenes(experiment), Console(quiet=True), None)


@pytest.mark.parametrize("information", [0.0, 1.0])
def test_frames_of_two_sizes_are_refused_before_anything_is_trained(tmp_path, information):
    experiment = rooms(
        tmp_path / "a", scenes=ScenesConfig(calibration=0), arms=("teacher",), stages=("select",),
        views=ViewsConfig(information=information),
    )  # fmt: skip
    with SceneWriter(tmp_path / "a", "four") as writer:
        writer.add_frame(frame(0, (16, 12)))
        writer.add_cloud(cloud(4))
        writer.commit(dataset="rooms", split="train", options={})
    with pytest.raises(ValueError, match=r"16 x 12 in four, 32 x 24 in three.*--frame-size"):
        run_arms(experiment, find_scenes(experiment), Console(), None)


def test_rooms_are_held_back_and_not_scans(tmp_path):
    """Other scans of a room that is held back are not trained on, labelled or not."""
    root = write_root(tmp_path / "a")
    (root / "dataset.json").write_text(
        (root / "dataset.json").read_text().replace('"rooms"', '"scannet"')
    )
    scans = [f"scene{room:04d}_{scan:02d}" for room in range(5) for scan in range(3)]
    for name in scans:
        write_scene(root, name, cloud(4, count=300, labels=name[-1] != "2"), split="train")
    write_scene(root, "five", cloud(6), split="test")
    experiment = SynthRoomsExperiment(
        prepared=root, out=tmp_path, arms=("plain",), scenes=ScenesConfig(calibration=3)
    )
    scenes = find_scenes(experiment)
    held = {name[:9] for name in scenes.calibration}
    assert len(scenes.calibration) == 4 and len(held) == 2
    assert not any(name[:9] in held for name in (*scenes.labelled, *scenes.unlabelled))
    assert len(scenes.labelled) == 6 and len(scenes.unlabelled) == 3
