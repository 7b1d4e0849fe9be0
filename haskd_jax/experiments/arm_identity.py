"""What makes a training this one: a folder that holds another is not gone on with, nor scored."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from haskd_jax.data.prepared import read_json
from haskd_jax.digest import differing
from haskd_jax.experiments.arm_setup import ArmSetup, Training
from haskd_jax.experiments.arms import ARMS, ArmName
from haskd_jax.train.checkpoints import weights_digest
from haskd_jax.train.image_encoders import read_encoder

CONFIG = "config.json"
# Not compared until they are trained: their weights are not known before.
_TEACHERS = ("teacher", "experts", "informant")


def identity(setup: ArmSetup, training: Training) -> dict[str, Any]:
    """All that decides what a training becomes, as config.json keeps it beside the commit.

    Args:
        setup: The experiment.
        training: One of an arm's.

    Returns:
        Plain JSON values. Who teaches is there by configuration and weights; None while it is not
        trained.
    """
    arm, experiment, scenes = ARMS[training.arm], setup.experiment, setup.scenes
    encoder = experiment.encoder if arm.views is not None else None
    source = setup.snapshots(arm)
    informed = experiment.views.information and arm.views == "iof"
    found = {
        "arm": training.arm,
        "seed": training.seed,
        "devices": setup.mesh.size,  # each takes a batch
        "card": msgspec.to_builtins(setup.card(arm)),
        "train": msgspec.to_builtins(setup.config(arm)),
        "scenes": msgspec.to_builtins(experiment.scenes, enc_hook=str),
        "scans": scenes.digest,
        "labelled": scenes.labelled,
        "unlabelled": setup.unlabelled(arm) or None,
        "calibration": scenes.calibration,
        "views": msgspec.to_builtins(experiment.views) if setup.sees(arm) else None,
        "informant": _trained(setup, "plain") if informed else None,
        "encoder": None
        if encoder is None
        else {**read_encoder(encoder), "weights": weights_digest(encoder)},
        "ihd": msgspec.to_builtins(experiment.ihd) if arm.teacher else None,
        "asd": msgspec.to_builtins(experiment.asd) if arm.asd else None,
        "snapshots": source,
        "teacher": _trained(setup, arm.teacher) if arm.teacher else None,
        "experts": None if source in (None, "online") else _trained(setup, source),
    }
    return json.loads(json.dumps(found))  # tuples become lists, as in the file


def _trained(setup: ArmSetup, name: str) -> dict[str, Any] | None:
    """An arm that teaches: trained anew into other weights, its student is another student."""
    folder = setup.experiment.out / name
    weights = weights_digest(folder)
    if weights is None:
        return None
    found = read_json(folder / CONFIG)
    found.pop("commit", None)
    return {**found, "weights": weights}


def others_training(setup: ArmSetup, training: Training) -> str | None:
    """What a training's folder holds instead of it.

    Args:
        setup: The experiment.
        training: One of an arm's.

    Returns:
        In words; None where it holds this training, begun or done, or none.
    """
    path = training.folder / CONFIG
    if path.exists():
        found, wanted = read_json(path), identity(setup, training)
        found.pop("commit", None)  # other code may train the same
        for name in _TEACHERS:
            if wanted[name] is None:
                found[name] = None
        names = differing(found, wanted)
        return f"a training with another {', '.join(names)}" if names else None
    if (training.folder / "checkpoints").exists():
        return f"checkpoints, but no {CONFIG} that says of which training"
    return None


def refusal(training: Training, held: str) -> str:
    """Why a training is refused.

    Args:
        training: One of an arm's.
        held: What its folder holds instead.

    Returns:
        A line that says what to do.
    """
    return f"{training.folder} holds {held}: give another --out, or train it anew with --overwrite"


def refuse_others(setup: ArmSetup, names: Iterable[ArmName]) -> None:
    """Refuses arms whose folders hold trainings of another configuration.

    Args:
        setup: The experiment.
        names: The arms.

    Raises:
        ValueError: Names the first such folder, and what differs.
    """
    for name in names:
        for training in setup.trainings(name):
            if held := others_training(setup, training):
                raise ValueError(refusal(training, held))
