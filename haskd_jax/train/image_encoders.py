"""A teacher's image encoder that was trained by itself, see `image_training`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jaxtyping import PyTree

from haskd_jax import models
from haskd_jax.data import DataError
from haskd_jax.data.prepared import read_json
from haskd_jax.train.checkpoints import load_weights
from haskd_jax.train.networks import Network

CONFIG, ENCODER = "config.json", "encoder.json"
FORMAT, VERSION = "haskd-image-encoder", 1


def make_encoder(
    config: models.ImageEncoderConfig, num_classes: int
) -> tuple[Callable[..., tuple[tuple, PyTree]], Callable[[int], tuple[PyTree, PyTree]]]:
    """An encoder as a pure function. Draws no parameters, compiles nothing.

    Args:
        config: Its shape.
        num_classes: Of the 2D logits.

    Returns:
        `apply` as of `models.functional`; from a seed to parameters and running statistics.

    Example:
        >>> apply, init = make_encoder(models.ImageEncoderConfig((8,), 1, 16), 5)
        >>> params, state = jax.eval_shape(init, 0)
        >>> sorted(params)
        ['blocks', 'down', 'head', 'out', 'stem']
    """
    made: list[Any] = []

    def init(seed):
        rngs = nnx.Rngs(params=jax.random.key(seed))
        encoder = models.ImageEncoder(config, num_classes=num_classes, rngs=rngs)
        apply, params, state = models.functional(encoder)
        made.append(apply)
        return params, state

    jax.eval_shape(init, 0)
    return made[0], init


def read_encoder(folder: str | Path) -> dict[str, Any]:
    """What `image_training.train_encoder` left to say of an encoder.

    Args:
        folder: Of its training.

    Returns:
        What encoder.json says.

    Raises:
        ValueError: The file is of another kind.
        DataError: It is missing: the training has not ended, or it is another folder.

    Example:
        >>> read_encoder("no/encoder")
        Traceback (most recent call last):
        ...
        haskd_jax.data.errors.DataError: no/encoder/encoder.json: missing
    """
    path = Path(folder) / ENCODER
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path}: not the description of an image encoder")
    if found.get("version") != VERSION:
        raise ValueError(f"{path}: version {found.get('version')}, expected {VERSION}")
    return found


def learnt_scenes(folder: str | Path) -> frozenset[str]:
    """The scenes whose frames an encoder was trained on.

    Args:
        folder: Of its training.

    Returns:
        Their names.

    Raises:
        DataError: The folder lacks the training's configuration, or it is damaged.

    Example:
        >>> from haskd_jax.experiments import synthrooms
        >>> len(learnt_scenes(synthrooms.ENCODER))
        360
    """
    path = Path(folder) / CONFIG
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("scenes"), list):
        raise DataError(path, "does not say from which scenes the encoder learnt: train it anew")
    return frozenset(found["scenes"])


def encoder_in_words(encoder: Mapping[str, Any]) -> str:
    """What labels an image encoder saw before, for results that it had a part in.

    Args:
        encoder: What `read_encoder` says of it.

    Returns:
        The words.

    Example:
        >>> from haskd_jax.experiments import synthrooms
        >>> encoder_in_words(read_encoder(synthrooms.ENCODER))
        'image encoder trained before on 17,280 labelled frames'
    """
    return f"image encoder trained before on {encoder['frames']:,} labelled frames"


def with_encoder(network: Network, folder: str | Path) -> Network:
    """A teacher whose image encoder is not drawn at random, nor trained with it.

    The few frames that a teacher's training shows would be learnt by heart: frozen, the encoder
    says of them what it says of frames of new scenes.

    Args:
        network: A teacher whose card says `frozen_images`.
        folder: Of a training by `image_training.train_encoder`.

    Returns:
        The same network with another `init`.

    Raises:
        ValueError: It is no such teacher, or its encoder or classes are others.
        DataError: There is no encoder.
    """
    about, teacher = read_encoder(folder), network.card.teacher
    if teacher is None or not network.card.frozen_images:
        raise ValueError("network: an encoder is for teachers whose card says frozen_images")
    for option, wanted, name in (
        ("teacher.image_channels", list(teacher.image_channels), "channels"),
        ("teacher.image_blocks", teacher.image_blocks, "blocks"),
        ("teacher.image_features", teacher.image_features, "features"),
        ("classes", list(network.card.classes), "classes"),
    ):
        if about[name] != wanted:
            raise ValueError(
                f"{option}: {wanted}, but the encoder in {folder} has {about[name]}: give another "
                "encoder, or none"
            )
    shape = models.ImageEncoderConfig(
        teacher.image_channels, teacher.image_blocks, teacher.image_features
    )
    _, init_encoder = make_encoder(shape, len(network.card.classes))
    params, running = load_weights(folder, *jax.eval_shape(init_encoder, 0))
    encoder = _merged(params, running)

    def init(seed):
        drawn, state = network.init(seed)
        return drawn, {**state, "encoder": encoder}

    return replace(network, init=init)


def _merged(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[Any, Any]:
    """Two nested dictionaries that share no leaf."""
    merged = dict(one)
    for name, value in other.items():
        merged[name] = _merged(one[name], value) if name in one else value
    return merged
