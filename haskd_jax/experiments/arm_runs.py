"""The arms of an experiment, trained and evaluated: stages select, teacher, student, evaluate."""

from rich.console import Console

from haskd_jax.experiments.arm_evaluation import evaluate_arm
from haskd_jax.experiments.arm_identity import refuse_others
from haskd_jax.experiments.arm_setup import ArmSetup
from haskd_jax.experiments.arm_training import train_arm
from haskd_jax.experiments.arms import ARMS, in_order
from haskd_jax.experiments.config import Experiment
from haskd_jax.experiments.stages import Scenes, Selection, run_select
from haskd_jax.train.mesh import make_mesh
from haskd_jax.train.selection import Method


def check_arms(experiment: Experiment, scenes: Scenes) -> None:
    """Refuses a folder that holds arms of another configuration.

    Args:
        experiment: The experiment.
        scenes: Its scenes.

    Raises:
        ValueError: Names the first such training, and what differs.
    """
    setup = ArmSetup(experiment, scenes, {}, Console(quiet=True), None, make_mesh())
    refuse_others(setup, in_order(experiment.arms, offline=experiment.snapshots == "offline"))


def run_arms(experiment: Experiment, scenes: Scenes, console: Console, commit: str | None) -> None:
    """Selects frames, trains and evaluates, as far as the stages say.

    Args:
        experiment: The experiment.
        scenes: Its scenes.
        console: Shows what goes on.
        commit: Of the code, for the record.
    """
    names = in_order(experiment.arms, offline=experiment.snapshots == "offline")
    methods: list[Method] = []
    for name in names:
        method = ARMS[name].views
        if method is not None and method not in methods and scenes.framed:
            methods.append(method)
    selections: dict[Method, Selection] = {}
    if set(experiment.stages) & {"select", "teacher", "student", "evaluate"}:
        selections = {method: run_select(experiment, scenes, method, console) for method in methods}
    setup = ArmSetup(experiment, scenes, selections, console, commit, make_mesh())
    for name in names:
        stage = "teacher" if ARMS[name].role == "teacher" else "student"
        if stage in experiment.stages:
            train_arm(setup, name)
        if "evaluate" in experiment.stages:
            evaluate_arm(setup, name)
