"""Class probabilities of every point of whole scenes, by a network or the mean of several.

See docs/evaluation.md for how scenes are cut into fragments and predicted under rotations.
"""

import functools
import warnings
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Float32, PyTree

from haskd_jax.data import Scene
from haskd_jax.data.fragments import fragments
from haskd_jax.data.loader_batch import Batch
from haskd_jax.data.transforms import spread_views
from haskd_jax.train.card import ModelCard
from haskd_jax.train.inputs import make_inputs
from haskd_jax.train.networks import Network, make_network

HostArray = np.ndarray
Weights = tuple[PyTree, PyTree]  # params, state

# Voxels of a fragment: SpUNet on so many stays within 4 GB of memory, see docs/evaluation.md. Just
# below a rung of the ladder of capacities.
MOST_VOXELS = 470_000


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
    members = [on_device(whole(member), device) for member in ((params, state), *ensemble)]
    return predict_on(network, members, device, scene, tta, views, chosen_frames, most)


def predict_on(
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


def whole(weights: Weights) -> Weights:
    """The weights in arrays that this process can read. All processes call it together."""

    def one(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if leaf.is_fully_replicated:
            return leaf.addressable_data(0)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(one, weights)


def on_device(weights: Weights, device: jax.Device) -> Weights:
    """The weights on one device."""
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
