"""Trains the arms of an experiment: stages teacher and student."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from haskd_jax.data.few_labels import FewLabels
from haskd_jax.data.loader import Loader
from haskd_jax.data.prepared import read_json
from haskd_jax.experiments.arm_evaluation import EVALUATION, calibrate, quick_evaluation
from haskd_jax.experiments.arm_identity import (
    CONFIG,
    identity,
    others_training,
    refusal,
)
from haskd_jax.experiments.arm_setup import ArmSetup, Training, all_here
from haskd_jax.experiments.arms import ARMS, Arm, ArmName
from haskd_jax.experiments.progress import bar
from haskd_jax.experiments.recipes import recipe_of
from haskd_jax.files import PARTIAL, write_json
from haskd_jax.train.card import write_card
from haskd_jax.train.checkpoints import has_weights, weights_digest
from haskd_jax.train.experts import with_experts
from haskd_jax.train.image_encoders import with_encoder
from haskd_jax.train.loop import fit
from haskd_jax.train.mesh import DATA
from haskd_jax.train.networks import Network, make_network
from haskd_jax.train.objectives import Guides
from haskd_jax.train.prediction import Weights
from haskd_jax.train.snapshots import Snapshot
from haskd_jax.train.soft_labels import predict_soft_labels
from haskd_jax.train.step import Task


def check_batches(setup: ArmSetup) -> None:
    """Refuses batches that cannot be made, before the first arm is trained.

    Args:
        setup: The experiment.

    Raises:
        ValueError: An odd number of scenes where they are mixed two and two, or several shapes
            on several devices.
    """
    mixed = recipe_of(setup.experiment.scenes).mix > 0
    for name in setup.experiment.all_arms:
        arm = ARMS[name]
        config, places = setup.config(arm), setup.places(arm)
        option = "train_teacher" if arm.role == "teacher" else "train"
        if mixed and sum(places) % 2:
            raise ValueError(
                f"{option}.batch_size: {config.batch_size}, but scenes are mixed two and two, and "
                f"a batch of {name} has {sum(places)}: give an even number, or --scenes.mix 0"
            )
        if setup.mesh.size > 1 and (config.buckets or 1) > 1:
            raise ValueError(
                f"{option}.buckets: {config.buckets} on {setup.mesh.size} devices, expected 1: all "
                "take the same shapes in a step"
            )


def train_arm(setup: ArmSetup, name: ArmName) -> None:
    """Trains an arm, unless it is trained already; what it needs is there.

    Args:
        setup: The experiment.
        name: The arm.

    Raises:
        ValueError: It is there with another configuration, or who teaches it is not trained.
    """
    if name != "snapshots":  # those are there once the arm that left them is
        for training in setup.trainings(name):
            _train(setup, training)


def _train(setup: ArmSetup, training: Training) -> None:
    name, folder, seed = training
    arm, experiment = ARMS[name], setup.experiment
    source = setup.snapshots(arm)
    for teaches in (arm.teacher, None if source == "online" else source):
        if teaches is not None and not has_weights(experiment.out / teaches):
            raise ValueError(
                f"{experiment.out / teaches}: not trained to its end, and {name} is taught by it: "
                "train it first (--stages teacher student)"
            )
    held = others_training(setup, training)
    if held is not None and not experiment.overwrite:
        raise ValueError(refusal(training, held))
    done = held is None and has_weights(folder)
    all_here(f"{folder} was looked at")  # before the first process writes to it
    if done:
        return
    if held is not None:
        setup.console.print(f"{folder}: it held {held}; trained anew")
        if jax.process_index() == 0:
            _remove(setup, folder)
        all_here(f"{folder} is free")
    _warn_of_nothing_unlabelled(setup, name)
    network = make_network(setup.card(arm), axis_name=DATA)
    if experiment.encoder is not None and arm.views is not None:
        network = with_encoder(network, experiment.encoder)
    # Who teaches offline is asked here, once; else they run beside the student.
    offline = experiment.ihd.teaching == "offline"
    teacher, guides = None, Guides()
    if arm.teacher is not None and not offline:
        teacher, (weights,) = setup.load(arm.teacher)
        guides = Guides(teacher=weights)
    taught = experiment.ihd.weight if arm.teacher is not None else 0.0
    task = Task(
        network,
        setup.config(arm),
        seed=seed,
        teacher=teacher,
        ihd=replace(experiment.ihd, weight=taught),
        asd=replace(experiment.asd, weight=experiment.asd.weight if arm.asd else 0.0),
        alike=arm.asd == "mean",
    )
    experts: list[Snapshot] = []
    if source not in (None, "online"):
        experts = setup.load_snapshots(source, network)
        guides = with_experts(guides, experts, len(experts), task)
    # Before the capacities, which are measured for this configuration.
    config = {**identity(setup, training), "commit": setup.commit}
    if jax.process_index() == 0:
        write_json(folder / CONFIG, config)
        write_card(folder, setup.card(arm))
    soft = []
    if arm.teacher is not None and offline:
        soft.append(_said_by_teacher(setup, arm.teacher))
    if guides.bank is not None and experiment.asd.teaching == "offline":
        soft += [_said_by_expert(setup, arm, network, expert) for expert in experts]
    loader = _loader(setup, arm, network, tuple(soft), folder, seed)
    shown = folder.relative_to(experiment.out).as_posix()
    with bar(setup.console, shown, task.config.steps) as show:
        fit(
            task,
            loader,
            folder,
            mesh=setup.mesh,
            guides=guides,
            online=source == "online",
            calibrate=partial(calibrate, setup, network, arm),
            evaluate=partial(quick_evaluation, setup, network, arm),
            show=show,
            wandb=experiment.wandb,
        )
    all_here(f"{folder} is trained")  # its weights are there before any process asks for them


def _remove(setup: ArmSetup, folder: Path) -> None:
    """Removes a training and what ensembles scored with it, so that no kill leaves a part."""
    for ensemble in (name for name, arm in ARMS.items() if arm.role == "ensemble"):
        (setup.experiment.out / ensemble / EVALUATION).unlink(missing_ok=True)
    doomed = folder.with_name(f"{PARTIAL}{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _warn_of_nothing_unlabelled(setup: ArmSetup, name: ArmName) -> None:
    """Says where voxels without labels are to be taught, and every scene is labelled."""
    if setup.scenes.unlabelled or setup.experiment.scenes.labelled_points is not None:
        return
    for part, teaches in (("ihd", ARMS[name].teacher), ("asd", ARMS[name].asd)):
        if teaches and getattr(setup.experiment, part).voxels == "unlabelled":
            setup.console.print(
                f"[yellow]warning[/yellow] {name}: {part}.voxels is unlabelled and every scene is "
                "labelled: it teaches, at its full weight, only the points that nobody annotated"
            )


def _loader(
    setup: ArmSetup,
    arm: Arm,
    network: Network,
    soft: tuple[Path, ...],
    folder: Path,
    seed: int,
) -> Loader:
    scenes, config = setup.scenes, setup.config(arm)
    names = labelled = scenes.labelled
    places, more = setup.places(arm)
    groups: tuple[tuple[int, int], ...] = ((len(labelled), places),)
    if unlabelled := setup.unlabelled(arm):
        names = (*labelled, *unlabelled)
        groups = (*groups, (len(unlabelled), more))
    framed = bool(scenes.framed & set(names))
    if setup.sees(arm) and not framed:
        setup.console.print(
            "[yellow]warning[/yellow] no scene has frames: the teacher is one of points alone, "
            "and what images tell is lost"
        )
    asks = arm.views is not None or setup.experiment.ihd.teaching == "online"
    sees = setup.sees(arm) and framed and asks
    views = arm.views or (ARMS[arm.teacher].views if arm.teacher else None)
    loader = Loader(
        scenes.root,
        names,
        recipe=recipe_of(setup.experiment.scenes),
        batch_size=places + more,
        groups=groups,
        seed=seed,
        levels=network.levels,
        few_labels=FewLabels(frozenset(labelled), setup.experiment.scenes.labelled_points),
        views=setup.experiment.views.num_views if sees else 0,
        selection=setup.selections[views] if sees and views is not None else None,
        soft=soft,
        processes=setup.mesh.size,
    )
    # Kept, so that a resumed run compiles the same shapes and measures nothing.
    path = folder / "capacities.json"
    if path.exists():
        found = tuple(tuple(size) for size in read_json(path))
        return replace(loader, capacities=found)
    # On the order of one seed: runs of other seeds then compile the same shapes.
    measured = replace(loader, seed=0).measured(batches=16, buckets=config.buckets)
    loader = replace(loader, capacities=measured.capacities)
    if jax.process_index() == 0:
        write_json(path, loader.capacities)
    return loader


def _said_by_teacher(setup: ArmSetup, name: ArmName) -> Path:
    network, (weights,) = setup.load(name)
    views = setup.views(ARMS[name])
    return _soft_labels(setup, name, network, weights, setup.experiment.ihd.tta, views=views)


def _said_by_expert(setup: ArmSetup, arm: Arm, network: Network, expert: Snapshot) -> Path:
    assert arm.snapshots is not None
    weights = expert.params, expert.state
    tta = setup.experiment.asd.tta
    return _soft_labels(setup, arm.snapshots, network, weights, tta, cycle=expert.cycle)


def _soft_labels(
    setup: ArmSetup,
    name: ArmName,
    network: Network,
    weights: Weights,
    tta: int,
    *,
    cycle: int | None = None,
    views: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """The folder of what one who teaches says of every training scene; made where it is missing.

    The weights are an arm's, or those of its snapshot at the end of a cycle.
    """
    home = setup.experiment.out / name
    which = "" if cycle is None else f"cycle{cycle}_"
    # The arm's weights tell its snapshots from another training's, too.
    folder = home / f"soft_{which}tta{tta}_{weights_digest(home)}"
    names = (*setup.scenes.labelled, *setup.scenes.unlabelled)
    who = name if cycle is None else f"{name}, cycle {cycle + 1},"
    with bar(setup.console, f"{who} predicts", len(names)) as show:
        predict_soft_labels(
            folder, network, *weights, setup.scenes.root, names,
            tta=tta, on_scene=lambda done: show(done, {}), **views,
        )  # fmt: skip
    return folder
