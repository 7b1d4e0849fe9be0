"""A small experiment, and what its trainings leave, without training."""

from rich.console import Console

from haskd_jax.experiments.arm_identity import CONFIG, identity
from haskd_jax.experiments.arm_setup import ArmSetup
from haskd_jax.experiments.arms import ARMS
from haskd_jax.experiments.config import ScenesConfig
from haskd_jax.experiments.stages import find_scenes
from haskd_jax.experiments.synthrooms import SynthRoomsExperiment
from haskd_jax.files import write_json
from haskd_jax.train.card import write_card
from haskd_jax.train.checkpoints import save_weights
from haskd_jax.train.mesh import make_mesh
from haskd_jax.train.networks import make_network
from tests.train.trained import SMALL, VOXEL_SIZE, cloud, weights, write_root, write_scene

SCENES = ScenesConfig(voxel_size=VOXEL_SIZE, calibration=1)


def small_experiment(folder, *, frames=0):
    """Two scenes to train on, of which one is held back, and one to test on."""
    root = write_root(folder / "prepared")
    for number, name in enumerate(("three", "four")):
        write_scene(root, name, cloud(number + 4), split="train", frames=frames)
    write_scene(root, "five", cloud(6), split="test", frames=frames)
    return SynthRoomsExperiment(
        prepared=root, out=folder / "run", scenes=SCENES, model=SMALL, pictures=0
    )


def setup_of(experiment):
    scenes = find_scenes(experiment)
    return ArmSetup(experiment, scenes, {}, Console(quiet=True), None, make_mesh())


def leave(setup, name, seed=0):
    """What a training leaves in its folder."""
    (training,) = setup.trainings(name)
    card = setup.card(ARMS[name])
    write_json(training.folder / CONFIG, {**identity(setup, training), "commit": "abc"})
    write_card(training.folder, card)
    save_weights(training.folder, *weights(make_network(card), seed))
    return training
