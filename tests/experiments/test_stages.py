"""Stages of an experiment on scenes that changed since."""

import shutil

from rich.console import Console

from haskd_jax.experiments.config import ScenesConfig, ViewsConfig
from haskd_jax.experiments.stages import find_scenes, run_select
from haskd_jax.experiments.synthrooms import SynthRoomsExperiment
from tests.train.trained import cloud, write_root, write_scene


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
