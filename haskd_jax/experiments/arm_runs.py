"""The arms of an experiment, trained and evaluated: stages select, teacher, student, evaluate."""

from collections.abc import Iterable

from rich.console import Console

from haskd_jax.experiments.arm_evaluation import evaluate_arm
from haskd_jax.experiments.arm_identity import others_training, refuse_others
from haskd_jax.experiments.arm_setup import ArmSetup
from haskd_jax.experiments.arm_training import check_batches, train_arm
from haskd_jax.experiments.arms import ARMS, ArmName
from haskd_jax.experiments.config import Experiment
from haskd_jax.experiments.informant import Informant
from haskd_jax.experiments.stages import (
    Scenes,
    Selection,
    check_encoder,
    check_frames,
    run_select,
)
from haskd_jax.train.checkpoints import weights_digest
from haskd_jax.train.mesh import make_mesh
from haskd_jax.train.selection import Method


def check_arms(experiment: Experiment, scenes: Scenes, earlier: Iterable[str]) -> None:
    """Refuses a folder that holds arms of another configuration: one run compares all it lists.

    Args:
        experiment: The experiment.
        scenes: Its scenes.
        earlier: Arms that the run lists already, whether this command names them or not.

    Raises:
        ValueError: Names the first such training, and what differs.
    """
    refuse_others(_unrun(experiment, scenes), (*experiment.all_arms, *_known(earlier)))


def others_arms(experiment: Experiment, scenes: Scenes, names: Iterable[str]) -> set[str]:
    """Which arms of a folder are of another configuration.

    Args:
        experiment: The experiment.
        scenes: Its scenes.
        names: The arms.

    Returns:
        Those that hold another training than this experiment's.
    """
    setup = _unrun(experiment, scenes)
    return {
        name
        for name in _known(names)
        if any(others_training(setup, training) for training in setup.trainings(name))
    }


def _unrun(experiment: Experiment, scenes: Scenes) -> ArmSetup:
    """What is known of the arms before anything is selected or trained."""
    return ArmSetup(experiment, scenes, {}, Console(quiet=True), None, make_mesh())


def _known(names: Iterable[str]) -> list[ArmName]:
    """Those of this version: another's are not trained any more."""
    given = set(names)
    return [name for name in ARMS if name in given]


def run_arms(experiment: Experiment, scenes: Scenes, console: Console, commit: str | None) -> None:
    """Selects frames, trains and evaluates, as far as the stages say.

    Args:
        experiment: The experiment.
        scenes: Its scenes.
        console: Shows what goes on.
        commit: Of the code, for the record.
    """
    methods: list[Method] = []
    if set(experiment.stages) & {"select", "teacher", "student", "evaluate"} and scenes.framed:
        found = dict.fromkeys(ARMS[name].views for name in experiment.all_arms)
        methods = [method for method in found if method is not None]
    if methods:
        # Before anything is trained.
        check_frames(experiment, scenes)
        check_encoder(experiment, scenes)
    later: Method | None = "iof" if experiment.views.information else None
    selections: dict[Method, Selection] = {
        method: run_select(experiment, scenes, method, console)
        for method in methods
        if method != later
    }
    setup = ArmSetup(experiment, scenes, selections, console, commit, make_mesh())
    if set(experiment.stages) & {"teacher", "student"}:
        check_batches(setup)
    for name in experiment.all_arms:
        if later in methods and later == ARMS[name].views:
            selections[later] = run_select(experiment, scenes, later, console, _informant(setup))
        stage = "teacher" if ARMS[name].role == "teacher" else "student"
        if stage in experiment.stages:
            train_arm(setup, name)
        if "evaluate" in experiment.stages:
            evaluate_arm(setup, name)


def _informant(setup: ArmSetup) -> Informant:
    """The student alone, which says where images have most to add."""
    folder = setup.experiment.out / "plain"
    digest = weights_digest(folder)
    if digest is None:
        raise ValueError(
            f"{folder}: not trained to its end, and IOF asks it where images have most to add: "
            "train it first (--stages student), or give --views.information 0"
        )
    network, (weights,) = setup.load("plain")
    return Informant(network, weights, digest, setup.experiment.views.information)
