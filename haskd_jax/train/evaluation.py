"""What a network is worth: predictions for every point of whole scenes, and their record.

See docs/evaluation.md for what the numbers mean.
"""

import functools
import math
import timeit
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Float32, Float64, Int16, Int64, PyTree

import haskd_jax
from haskd_jax.data import Scene, load_scene
from haskd_jax.data.few_labels import FewLabels
from haskd_jax.data.fragments import fragments
from haskd_jax.data.loader_batch import Batch
from haskd_jax.data.prepared import scans_digest
from haskd_jax.data.transforms import spread_views
from haskd_jax.digest import digest
from haskd_jax.files import write_json
from haskd_jax.train import metrics
from haskd_jax.train.card import ModelCard
from haskd_jax.train.inputs import make_inputs
from haskd_jax.train.networks import Network, make_network

HostArray = np.ndarray
Weights = tuple[PyTree, PyTree]  # params, state

# Voxels of a fragment: SpUNet on so many stays within 4 GB of memory, see docs/evaluation.md. Just
# below a rung of the ladder of capacities.
MOST_VOXELS = 470_000


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


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def predict_scene(
    network: Network,
    params: PyTree,
    state: PyTree,
    scene: Scene,
    *,
    ensemble: Sequence[Weights] = (),
    tta: int = 1,
    views: int = 0,
    chosen_frames: Sequence[int] | None = None,
    most: int | None = MOST_VOXELS,
) -> Float32[HostArray, "N C"]:
    """Class probabilities of every point, the mean over all fragments and members.

    One compilation for each capacity; capacities are few, see `data.fragments.padded`.

    Args:
        network: A student or a teacher.
        params: Its parameters.
        state: Its running statistics.
        scene: The scene, with any number of points.
        ensemble: Weights of further members, of the same network.
        tta: See `data.fragments.motions`.
        views: Frames that a teacher sees; a student sees none.
        chosen_frames: In order of preference, of which the first `views` are taken; None spreads
            them over the sequence.
        most: Voxels of a fragment; larger scenes are cut into overlapping crops.

    Returns:
        [N, C] float32, rows sum to 1.

    Raises:
        ValueError: An argument out of range, or weights that give numbers that are not finite.
    """
    device = jax.local_devices()[0]
    members = [_on_device(_whole(member), device) for member in ((params, state), *ensemble)]
    return _predict(network, members, device, scene, tta, views, chosen_frames, most)


def _predict(
    network: Network,
    members: Sequence[Weights],
    device: jax.Device,
    scene: Scene,
    tta: int,
    views: int,
    chosen_frames: Sequence[int] | None,
    most: int | None,
) -> Float32[HostArray, "N C"]:
    """`predict_scene` on the device that holds the members."""
    network = _of_card(network.card)
    total = np.zeros((len(scene.points), len(network.card.classes)), np.float32)
    count = np.zeros(len(scene.points), np.int32)
    views, chosen, size = _frames(network, scene, views, chosen_frames)
    for fragment in fragments(
        scene,
        voxel_size=network.card.voxel_size,
        levels=network.levels,
        most=most,
        tta=tta,
        views=views,
        chosen_frames=chosen,
        image_size=size,
    ):
        held = fragment.row >= 0
        row = fragment.row[held]
        batch = jax.device_put(fragment.batch, device)
        for member in members:
            found = np.asarray(_probabilities(network, fragment.capacity, *member, batch))
            if not np.isfinite(found).all():
                raise ValueError(
                    f"params: of scene {scene.name} they make probabilities that are not finite: "
                    "the training diverged; take an earlier checkpoint"
                )
            if held.all():
                total += found[row]
            else:
                total[held] += found[row]
            count += held
    total /= count[:, None].astype(np.float32)
    return total


@functools.cache
def _of_card(card: ModelCard) -> Network:
    """One network for all of a card: arms of a study, experts and students share compilations."""
    return make_network(card)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _probabilities(
    network: Network, capacity: tuple[int, ...], params: PyTree, state: PyTree, batch: Batch
) -> Float[Array, "V C"]:
    inputs = make_inputs(batch, capacity, tolerance=network.tolerance)
    output, _ = network.forward(params, state, inputs, train=False)
    # Padding rows may hold anything; nobody asks for them.
    return jax.numpy.where(inputs.grid.mask[:, None], jax.nn.softmax(output.logits), 0)


def _whole(weights: Weights) -> Weights:
    """The weights in arrays that this process can read. All processes call it together."""

    def one(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if leaf.is_fully_replicated:
            return leaf.addressable_data(0)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(one, weights)


def _on_device(weights: Weights, device: jax.Device) -> Weights:
    return jax.tree.map(lambda leaf: jax.device_put(leaf, device), weights)


def _frames(
    network: Network, scene: Scene, views: int, chosen: Sequence[int] | None
) -> tuple[int, Sequence[int], tuple[int, int]]:
    """How many frames the batches hold, which ones, and their size."""
    if views < 0:
        raise ValueError(f"views: {views}, expected 0 or more")
    if network.tolerance is None or not views:
        return 0, (), (0, 0)
    if not len(scene.frames):
        warnings.warn(
            f"scene {scene.name} has no frames: the teacher sees its points alone", stacklevel=3
        )
        return 0, (), (0, 0)
    if chosen is None:
        chosen = [int(i) for i in spread_views(len(scene.frames), views)]
    height, width = scene.frames.colour.shape[1:3]
    return views, chosen, (height, width)


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
        network: As for `predict_scene`; so are `params`, `state`, `ensemble`, `tta`, `views` and
            `most`.
        params: Its parameters.
        state: Its running statistics.
        root: The prepared root.
        scenes: Their names; those without labels are predicted and not counted.
        split: What these scenes are, for the record.
        labels: Which labels the training saw, for the record.
        encoder: What taught it, or its teacher, to see images before, for the record.
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
    whole = [_whole(member) for member in ((params, state), *ensemble)]
    members = {device: [_on_device(member, device) for member in whole] for device in devices}

    def predict(scene: Scene, device: jax.Device) -> Float32[HostArray, "N C"]:
        chosen = None if selection is None else selection.get(scene.name, ())
        return _predict(network, members[device], device, scene, tta, views, chosen, most)

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
