"""Evaluates the arms of an experiment: stage evaluate."""

import shutil
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from haskd_jax.data.few_labels import FewLabels
from haskd_jax.data.prepared import read_json, scans_digest
from haskd_jax.experiments.arm_identity import CONFIG, refuse_others
from haskd_jax.experiments.arm_setup import ArmSetup, all_here
from haskd_jax.experiments.arms import ARMS, Arm, ArmName
from haskd_jax.experiments.progress import bar
from haskd_jax.train.checkpoints import has_weights, weights_digest
from haskd_jax.train.evaluation import class_iou, evaluate, read_protocol
from haskd_jax.train.image_encoders import encoder_in_words, read_encoder
from haskd_jax.train.networks import Network
from haskd_jax.train.records import write_predictions

EVALUATION = "evaluation.json"


def evaluate_arm(setup: ArmSetup, name: ArmName) -> None:
    """Evaluates an arm on the test scenes, unless it is evaluated already.

    Args:
        setup: The experiment.
        name: The arm; if it is not trained to its end, that is said, and no more. Of one that is
            evaluated already the predictions are stored that pictures need and that it lacks.

    Raises:
        ValueError: It was trained with another configuration.
    """
    arm, experiment, scenes = ARMS[name], setup.experiment, setup.scenes
    folder = experiment.out / name
    refuse_others(setup, [name])
    trainings = [training.folder for training in setup.trainings(name)]
    missing = [training for training in trainings if not has_weights(training)]
    if missing:
        setup.console.print(
            f"[yellow]warning[/yellow] {missing[0]}: not trained to its end, so {name} is not "
            "evaluated"
        )
        return
    cycles = experiment.train.optimizer.cycles
    views = setup.views(arm)
    wanted = {
        "split": scenes.split,
        "scans": scans_digest(scenes.root, scenes.test),
        "labels": _labels(setup),
        "encoder": _encoder(setup, arm),
        "weights": [weights_digest(training) for training in trainings],
        "checkpoint": "last",
        "step": setup.config(arm).steps,
        "ensemble": cycles if name == "snapshots" else len(trainings),
        "tta": experiment.tta,
        "views": views.get("views", 0),
    }
    path = folder / EVALUATION
    pictured, predicted = scenes.test[: experiment.pictures], scenes.test
    scored = path.exists() and read_protocol(path).items() >= wanted.items()
    if scored:  # what the report is to show may be more than before
        stored = {file.stem for file in (folder / "predictions").glob("*.npy")}
        predicted = tuple(scene for scene in pictured if scene not in stored)
        all_here(f"{folder} was looked at")  # before the first process writes to it
        if not predicted:
            return
    else:  # what another evaluation stored would be shown as this one's
        if jax.process_index() == 0:
            path.unlink(missing_ok=True)
            shutil.rmtree(folder / "predictions", ignore_errors=True)
        all_here(f"{folder} is free")
    network, (first, *others) = setup.load(name)
    done = 0
    with bar(setup.console, f"evaluate {name}", len(predicted)) as show:

        def on_scene(found) -> None:
            nonlocal done
            done += 1
            show(done, {})
            if found.scene.name in pictured:
                write_predictions(folder / "predictions", found.scene.name, found.predictions)

        found = evaluate(
            network,
            *first,
            scenes.root,
            predicted,
            split=scenes.split,
            labels=wanted["labels"],
            encoder=wanted["encoder"],
            weights=wanted["weights"],
            step=wanted["step"],
            commit=read_json(trainings[0] / CONFIG).get("commit"),
            ensemble=others,
            tta=experiment.tta,
            timed=not scored,
            on_scene=on_scene,
            **views,
        )
    if scored:
        return
    if jax.process_index() == 0:
        found.write(path)
    setup.console.print(f"{name}: {arm.text}: mIoU {100 * found.miou:.1f}")


def calibrate(setup: ArmSetup, network: Network, arm: Arm, params: PyTree, state: PyTree):
    """The IoU of every class on the calibration scenes, and its points, see `class_iou`."""
    return class_iou(
        network,
        params,
        state,
        setup.scenes.root,
        setup.scenes.calibration,
        few_labels=FewLabels(points=setup.experiment.scenes.labelled_points),
        **setup.views(arm),
    )


def quick_evaluation(
    setup: ArmSetup, network: Network, arm: Arm, params: PyTree, state: PyTree
) -> dict[str, Any]:
    """What a training's log keeps, of the calibration scenes: test scenes are looked at once, at
    the end."""
    iou, counts = calibrate(setup, network, arm, params, state)
    return {"split": "calibration", "miou": float(np.mean(iou[counts > 0])), "iou": iou}


def labels_in_words(
    labelled: int, unlabelled: int, calibration: int, *, points: int | None = None
) -> str:
    """Which labels a training saw.

    Args:
        labelled: Scenes to train on that have labels.
        unlabelled: Those that have none.
        calibration: Those with labels that were held back.
        points: Of a scene that kept their labels; None: all.

    Returns:
        The words.

    Example:
        >>> labels_in_words(20, 84, 16)
        '20 of 104 scenes, 16 more for calibration'
    """
    text = f"{labelled} of {labelled + unlabelled} scenes"
    if points is not None:
        text += f", {points} points each"
    return f"{text}, {calibration} more for calibration"


def _labels(setup: ArmSetup) -> str:
    scenes = setup.scenes
    counts = (len(scenes.labelled), len(scenes.unlabelled), len(scenes.calibration))
    return labels_in_words(*counts, points=setup.experiment.scenes.labelled_points)


def _encoder(setup: ArmSetup, arm: Arm) -> str | None:
    """What taught the arm, or its teacher, to see images before."""
    encoder = setup.experiment.encoder
    return encoder_in_words(read_encoder(encoder)) if encoder and setup.sees(arm) else None
