"""What a network is worth: how well it predicts the points of whole scenes, and the record of it.

See docs/evaluation.md for what the numbers mean.
"""

import functools
import math
import timeit
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float32, Float64, Int16, Int64, PyTree

import haskd_jax
from haskd_jax.data import DataError, Scene, load_scene
from haskd_jax.data.few_labels import FewLabels
from haskd_jax.data.prepared import read_json, scans_digest
from haskd_jax.digest import digest
from haskd_jax.files import write_json
from haskd_jax.train import metrics
from haskd_jax.train.networks import Network
from haskd_jax.train.prediction import MOST_VOXELS, Weights, on_device, predict_on, whole

HostArray = np.ndarray


class ScenePrediction(NamedTuple):
    """What became of one scene.

    Attributes:
        scene: The scene.
        predictions: [N] class of every point.
        probabilities: [N, C].
        confusion: [C, C + 1], see `metrics.confusion_matrix`; None for a scene without labels.
    """

    scene: Scene
    predictions: Int16[HostArray, " N"]
    probabilities: Float32[HostArray, "N C"]
    confusion: Int64[HostArray, "C D"] | None


@dataclass(frozen=True)
class Evaluation:
    """A result and the protocol it was reached by.

    Attributes:
        protocol: Plain values that say what was done; see `evaluate`.
        scenes: The names of the scenes.
        classes: C names.
        confusion: [C, C] int64, truth by row, points summed over all scenes.
        parameters: Of the network; of one member, where an ensemble was evaluated.
        seconds_per_scene: Of the last scene, the fastest of five more predictions of it: what else
            runs on a machine only ever slows them. None where that was not asked for.
    """

    protocol: Mapping[str, Any]
    scenes: tuple[str, ...]
    classes: tuple[str, ...]
    confusion: Int64[HostArray, "C C"]
    parameters: int
    seconds_per_scene: float | None

    @property
    def iou(self) -> Float64[HostArray, " C"]:
        """IoU of every class, NaN for those that neither truth nor prediction has."""
        return metrics.iou(self.confusion)

    @property
    def miou(self) -> float:
        """The mean over the classes that occur."""
        return metrics.mean_iou(self.confusion)

    def to_json(self) -> dict[str, Any]:
        """The content of evaluation.json; NaN becomes None."""
        return {
            "format": "haskd-evaluation",
            "version": 1,
            "protocol": dict(self.protocol),
            "scenes": list(self.scenes),
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
            "iou": [_number(value) for value in self.iou],
            "miou": _number(self.miou),
            "accuracy": _number(metrics.accuracy(self.confusion)),
            "mean_accuracy": _number(metrics.mean_accuracy(self.confusion)),
            "parameters": self.parameters,
            "seconds_per_scene": self.seconds_per_scene,
        }

    def write(self, path: str | Path) -> None:
        """Writes the record, whole or not at all."""
        write_json(Path(path), self.to_json())


def read_protocol(path: Path) -> dict[str, Any]:
    """The protocol of a record that `Evaluation.write` left.

    Args:
        path: The file.

    Returns:
        Plain values by name.

    Raises:
        DataError: Missing or damaged.

    Example:
        >>> read_protocol(Path("no/evaluation.json"))
        Traceback (most recent call last):
        ...
        haskd_jax.data.errors.DataError: no/evaluation.json: missing
    """
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("protocol"), dict):
        raise DataError(path, "not the record of an evaluation: remove it and evaluate again")
    return found["protocol"]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def evaluate(
    network: Network,
    params: PyTree,
    state: PyTree,
    root: str | Path,
    scenes: Sequence[str],
    *,
    split: str,
    labels: str = "all",
    encoder: str | None = None,
    weights: Sequence[str] | None = None,
    step: int | None = None,
    checkpoint: str = "last",
    commit: str | None = None,
    ensemble: Sequence[Weights] = (),
    tta: int = 1,
    views: int = 0,
    selection: Mapping[str, Sequence[int]] | None = None,
    most: int | None = MOST_VOXELS,
    few_labels: FewLabels | None = None,
    timed: bool = True,
    on_scene: Callable[[ScenePrediction], None] | None = None,
) -> Evaluation:
    """Evaluates on whole scenes, point by point.

    Processes share the scenes out, and all get the result; a process deals its scenes to its
    devices.

    Args:
        network: As for `prediction.predict_scene`; so are `params`, `state`, `ensemble`, `tta`,
            `views` and `most`.
        params: Its parameters.
        state: Its running statistics.
        root: The prepared root.
        scenes: Their names; those without labels are predicted and not counted.
        split: What these scenes are, for the record.
        labels: Which labels the training saw, for the record.
        encoder: What taught it, or its teacher, to see images before, for the record.
        weights: What tells its weights, and those of further members, from others, for the record.
        step: How long it was, for the record.
        checkpoint: How its weights were chosen, for the record.
        commit: Of the code that trained, for the record.
        ensemble: Weights of further members.
        tta: Test-time augmentation.
        views: Frames for a teacher.
        selection: Scene -> frames in order of preference; None spreads them.
        most: Voxels of a fragment.
        few_labels: Which labels may be seen; None: all.
        timed: Whether the last scene is predicted five times more, for its time.
        on_scene: Called with every scene of this process, to save or show it.

    Returns:
        The result with its protocol.

    Raises:
        ValueError: No scenes; a scene's labels are no classes of the network.
        DataError: A scene cannot be read.
    """
    if not scenes:
        raise ValueError("scenes: none")
    classes = network.card.classes
    views = views if network.tolerance is not None else 0
    devices = jax.local_devices()
    all_members = [whole(member) for member in ((params, state), *ensemble)]
    members = {device: [on_device(one, device) for one in all_members] for device in devices}

    def predict(scene: Scene, device: jax.Device) -> Float32[HostArray, "N C"]:
        chosen = None if selection is None else selection.get(scene.name, ())
        return predict_on(network, members[device], device, scene, tta, views, chosen, most)

    def load(name: str) -> Scene:
        if views and selection is not None and name not in selection:
            raise ValueError(f"selection: nothing for the scene {name}")
        scene = load_scene(Path(root) / name)
        return scene if few_labels is None else few_labels.of(scene)

    confusion = np.zeros((len(classes), len(classes) + 1), np.int64)
    seconds = None
    own = list(scenes)[jax.process_index() :: jax.process_count()]
    with ThreadPoolExecutor(len(devices)) as pool:
        # A scene a device at a time: more would wait in memory.
        for first in range(0, len(own), len(devices)):
            group = [load(name) for name in own[first : first + len(devices)]]
            for scene, found in zip(group, pool.map(predict, group, devices), strict=True):
                predictions = np.argmax(found, axis=1).astype(np.int16)
                counted = _counted(scene, predictions, len(classes))
                if counted is not None:
                    confusion += counted
                if on_scene is not None:
                    on_scene(ScenePrediction(scene, predictions, found, counted))
    if own and timed:
        again = functools.partial(predict, group[-1], devices[len(group) - 1])
        seconds = min(timeit.repeat(again, number=1, repeat=5))
    confusion = _summed(confusion)
    protocol = {
        "dataset": network.card.dataset,
        "split": split,
        "scenes": len(scenes),
        "scans": scans_digest(root, scenes),
        "labels": labels,
        "encoder": encoder,
        "unit": "points",
        "voxel_size": network.card.voxel_size,
        "tta": tta,
        "views": views,
        "frames": None
        if not views or selection is None
        else digest({name: [int(i) for i in selection[name][:views]] for name in scenes}),
        "ensemble": 1 + len(ensemble),
        "crop_voxels": most,
        "checkpoint": checkpoint,
        "weights": None if weights is None else list(weights),
        "step": step,
        "commit": commit,
        "package": haskd_jax.__version__,
    }
    return Evaluation(
        protocol,
        tuple(scenes),
        classes,
        confusion[:, : len(classes)],
        network.num_parameters,
        seconds,
    )


def _counted(
    scene: Scene, predictions: Int16[HostArray, " N"], classes: int
) -> Int64[HostArray, "C D"] | None:
    """The confusion matrix of a scene; None if it has no labels."""
    if scene.label is None:
        return None
    try:
        return metrics.count_on_host(scene.label, predictions, classes)
    except ValueError as error:
        raise ValueError(f"scene {scene.name}: {error}: of another class list?") from error


def _summed(confusion: Int64[HostArray, "C D"]) -> Int64[HostArray, "C D"]:
    """Over all processes."""
    if jax.process_count() == 1:
        return confusion
    # As pairs of int32: JAX would cut int64 down.
    gathered = multihost_utils.process_allgather(np.ascontiguousarray(confusion).view(np.int32))
    return np.ascontiguousarray(gathered).view(np.int64).sum(axis=0)


def class_iou(
    network: Network,
    params: PyTree,
    state: PyTree,
    root: str | Path,
    scenes: Sequence[str],
    *,
    views: int = 0,
    selection: Mapping[str, Sequence[int]] | None = None,
    most: int | None = MOST_VOXELS,
    few_labels: FewLabels | None = None,
) -> tuple[Float64[HostArray, " C"], Int64[HostArray, " C"]]:
    """What experts are judged by during training: IoU by class on calibration scenes.

    Args:
        network: As for `evaluate`; so are all others.
        params: Its parameters.
        state: Its running statistics.
        root: The prepared root.
        scenes: The calibration scenes.
        views: Frames for a teacher.
        selection: Scene -> frames in order of preference.
        most: Voxels of a fragment.
        few_labels: Which labels may be seen; None: all.

    Returns:
        [C] IoU, NaN for a class that neither truth nor prediction has; [C] points of each class.
    """
    found = evaluate(
        network,
        params,
        state,
        root,
        scenes,
        split="calibration",
        views=views,
        selection=selection,
        most=most,
        few_labels=few_labels,
        timed=False,
    )
    return found.iou, found.confusion.sum(axis=1)
