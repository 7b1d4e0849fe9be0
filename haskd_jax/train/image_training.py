"""Trains a teacher's image encoder by itself: 2D segmentation of single frames.

An encoder needs more frames than a teacher's training shows it, and frames with 2D labels need no
points. Teachers then use it as it is, see `image_encoders.with_encoder`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
from jaxtyping import ArrayLike, Int64, Integer, PyTree

from haskd_jax import models
from haskd_jax.data import DataError, load_scene, read_dataset
from haskd_jax.data.prepared import read_json, scans_digest
from haskd_jax.digest import differing
from haskd_jax.files import map_array, write_json
from haskd_jax.train.checkpoints import Checkpoints, save_weights
from haskd_jax.train.config import ImageTrainingConfig, OptimizerConfig
from haskd_jax.train.image_augmentation import augment_images
from haskd_jax.train.image_encoders import (
    CONFIG,
    ENCODER,
    FORMAT,
    VERSION,
    make_encoder,
    read_encoder,
)
from haskd_jax.train.inputs import Views
from haskd_jax.train.log import Log
from haskd_jax.train.metrics import count_on_host, iou, mean_iou
from haskd_jax.train.objectives import image_loss, labels_of_feature_map
from haskd_jax.train.optimizer import make_optimizer
from haskd_jax.train.state import TrainState, init_state
from haskd_jax.train.stopping import Stopped, save_batch, sigterm

Array = np.ndarray
Show = Callable[[int, Mapping[str, float]], None]
_Numbers = tuple[jax.Array, jax.Array]  # a step's loss and the norm of its gradient


def train_encoder(
    config: ImageTrainingConfig,
    root: Path,
    scenes: Sequence[str],
    folder: Path,
    *,
    held_back: Sequence[str] = (),
    show: Show | None = None,
) -> dict[str, Any]:
    """Trains on one device, going on where an earlier run of the same training was ended.

    Args:
        config: How.
        root: The prepared root.
        scenes: Whose frames are learnt from; those without 2D labels are left out.
        folder: Gets checkpoints, log, weights and encoder.json.
        held_back: Scenes on whose frames the encoder is scored at the end.
        show: Told of every step that is logged.

    Returns:
        What encoder.json says: shape, classes, and the IoU over the pixels of the held-back frames.

    Raises:
        DataError: No scene, or none of those held back, has labelled frames, or frames differ in
            size.
        ValueError: The folder holds a training with another configuration.
        FloatingPointError: Loss or gradient is not finite; names the step and the file that holds
            its batch.
        Stopped: SIGTERM came; all is saved.
    """
    classes = tuple(read_dataset(root)["classes"])
    frames = _labelled_frames(root, scenes)
    scored = _labelled_frames(root, held_back) if held_back else []
    muon = OptimizerConfig(
        name="muon",
        momentum=0.95,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    # After the data were looked at: a command that they refuse leaves the folder to the next.
    claim = {"images": config, "scenes": scenes, "held_back": held_back, "classes": classes}
    claim |= {"optimizer": muon.name, "scans": scans_digest(root, [*scenes, *held_back])}
    _claim(folder, claim)
    if (folder / ENCODER).exists():
        return read_encoder(folder)
    shape = models.ImageEncoderConfig(config.channels, config.blocks, config.features)
    apply, init = make_encoder(shape, len(classes))
    optimizer = make_optimizer(muon, config.steps)
    step = _make_step(apply, optimizer)
    params, running = jax.jit(init)(config.seed)
    with jax.numpy_dtype_promotion("standard"):
        state = init_state({"network": params}, running, optimizer, seed=config.seed, ema=False)

    with ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(folder / "checkpoints"))
        restored = checkpoints.restore(state)
        done = 0
        if restored is not None:
            done, state = restored.step, restored.state
        log = stack.enter_context(Log(folder, step=done))
        terminated = stack.enter_context(sigterm())
        pending: tuple[int, Array, Array, _Numbers] | None = None

        def check(pending: tuple[int, Array, Array, _Numbers]) -> float:
            """The loss of a step, which is waited for while the next one runs."""
            number, colour, label, numbers = pending
            loss, norm = (float(value) for value in numbers)
            if not np.isfinite([loss, norm]).all():
                path = save_batch(folder, number, {"colour": colour, "label": label})
                raise FloatingPointError(
                    f"step {number}: the loss is {loss}, the gradient's norm {norm}; frames "
                    f"{_names(frames, config, number)}; the batch is in {path}: lower "
                    f"learning_rate ({config.learning_rate}), or look at the scenes with haskd "
                    "doctor; checkpoints of earlier steps stay"
                )
            return loss

        for colour, label in _batches(root, frames, config, done):
            state, numbers = step(state, colour, label)
            if pending is not None:
                check(pending)
            done += 1
            pending = done, colour, label, numbers
            logs = done % config.log_every == 0 or done == config.steps
            leaves = bool(terminated)
            saves = leaves or done % config.save_every == 0
            if logs or saves:
                loss = check(pending)
            if logs:
                log.write(done, loss=loss)
                if show is not None:
                    show(done, {"loss": loss})
            if saves:
                checkpoints.save(done, state, {})
            if leaves:
                checkpoints.wait()
                raise Stopped(f"{folder}: stopped by SIGTERM and saved after step {done}")

    weights = jax.tree.map(np.asarray, (state.params["network"], state.state))
    save_weights(folder, *weights)
    found = {
        "format": FORMAT,
        "version": VERSION,
        "channels": list(config.channels),
        "blocks": config.blocks,
        "features": config.features,
        "classes": list(classes),
        "frames": len(frames),
        "steps": config.steps,
    }
    if scored:
        confusion = _confusion(apply, weights, root, scored, config.batch_size, len(classes))
        values = [None if np.isnan(value) else float(value) for value in iou(confusion)]
        found |= {"held_back": list(held_back), "miou": mean_iou(confusion), "iou": values}
    write_json(folder / ENCODER, found)
    return found


def _make_step(
    apply: Callable[..., Any], optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, _Numbers]]:
    """From a state and a batch of frames and 2D labels to the next state and its numbers."""

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, colour, label):
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        views = augment_images(key, _views(colour, label))
        seen = jnp.ones(len(colour), bool)

        def loss(params):
            (_, logits), new = apply(params["network"], state.state, views.images, seen, train=True)
            return image_loss(logits, views.label), new

        (value, running), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes Python floats and float32
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            norm = optax.tree.norm(gradients)
        new = replace(state, step=state.step + 1, params=params, state=running, opt_state=opt_state)
        return new, (value, norm)

    return step


def _claim(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuses the folder of another training."""
    wanted = msgspec.json.decode(msgspec.json.encode(wanted))  # tuples become lists, as in the file
    path = folder / CONFIG
    if path.exists():
        names = [name.removeprefix("images.") for name in differing(read_json(path), wanted)]
        if names:
            raise ValueError(
                f"{folder} holds another training, which differs in {', '.join(names)}: give "
                "another --out, or remove it"
            )
    write_json(path, wanted)


def _labelled_frames(root: Path, scenes: Sequence[str]) -> list[tuple[str, int]]:
    """Scene and number of every frame that has a 2D label."""
    found: list[tuple[str, int]] = []
    sizes: dict[tuple[int, ...], str] = {}
    for name in scenes:
        frames = load_scene(root / name).frames
        if frames.label is None or not len(frames):
            continue
        sizes.setdefault(frames.colour.shape[1:3], name)
        found += [(name, number) for number in range(len(frames))]
    if not found:
        raise DataError(
            root,
            f"none of {len(scenes)} scenes has frames with 2D labels: prepare them with labels, "
            "ScanNet's with --frames-25k",
        )
    if len(sizes) > 1:
        words = ", ".join(f"{w} x {h} in {name}" for (h, w), name in sizes.items())
        raise DataError(root, f"frames of {words}: prepare them again with one frame size")
    return found


def _read(root: Path, frame: tuple[str, int]) -> tuple[Array, Array]:
    """Colour and label of a frame of `_labelled_frames`, which checked the scene.

    Opening a whole scene anew for every frame takes five times as long.
    """
    name, number = frame
    colour, label = (
        map_array(root / name / f"frame_{array}.npy")[number] for array in ("colour", "label")
    )
    return np.array(colour), np.array(label, np.int32)


def _order(frames: Sequence[tuple[str, int]], config: ImageTrainingConfig):
    """The frames as they are learnt from: every one once an epoch."""
    # Imported here, as in `data.loader_iterator`.
    import grain

    return grain.MapDataset.source(frames).seed(config.seed).shuffle().repeat()


def _names(frames: Sequence[tuple[str, int]], config: ImageTrainingConfig, step: int) -> str:
    """The frames of a step's batch, in words."""
    order, size = _order(frames, config), config.batch_size
    batch = (order[place] for place in range((step - 1) * size, step * size))
    return ", ".join(f"{number} of {scene}" for scene, number in batch)


def _batches(
    root: Path, frames: Sequence[tuple[str, int]], config: ImageTrainingConfig, start: int
) -> Iterator[tuple[Array, Array]]:
    """Batch i is the same wherever the iteration starts."""
    import grain

    batches = _order(frames, config).map(partial(_read, root)).batch(config.batch_size)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(batches[start : config.steps].to_iter_dataset(options))


def _views(colour: Integer[ArrayLike, "K H W 3"], label: Integer[ArrayLike, "K H W"]) -> Views:
    """Frames that no voxel looks up."""
    count = jnp.shape(colour)[0]
    return Views(
        images=jnp.asarray(colour).astype(jnp.float32) / 255,
        voxel_to_pixel=jnp.zeros((count, 0), jnp.int32),
        cues=jnp.zeros((count, 0, 3), jnp.float32),
        label=jnp.asarray(label),
    )


def _confusion(
    apply: Callable[..., Any],
    weights: tuple[PyTree, PyTree],
    root: Path,
    frames: Sequence[tuple[str, int]],
    batch_size: int,
    num_classes: int,
) -> Int64[Array, "C D"]:
    """Confusion over the labelled pixels of the feature maps of frames."""

    @jax.jit
    def predict(weights, colour, label, filled):
        views = _views(colour, label)
        (_, logits), _ = apply(*weights, views.images, filled, train=False)
        label = labels_of_feature_map(views.label)
        return jnp.argmax(logits, axis=-1)[:, : label.shape[1], : label.shape[2]], label

    confusion = np.zeros((num_classes, num_classes + 1), np.int64)
    for start in range(0, len(frames), batch_size):
        read = [_read(root, frame) for frame in frames[start : start + batch_size]]
        filled = np.arange(batch_size) < len(read)
        read += read[:1] * (batch_size - len(read))  # padding: one shape, one program
        colour, label = (np.stack(arrays) for arrays in zip(*read, strict=True))
        predicted, truth = predict(weights, colour, label, filled)
        confusion += count_on_host(
            np.asarray(truth)[filled].ravel(), np.asarray(predicted)[filled].ravel(), num_classes
        )
    return confusion
