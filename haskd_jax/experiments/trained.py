"""Trained networks as commands take them: a folder with a card and weights."""

import os
from pathlib import Path
from typing import Any, NamedTuple


class Trained(NamedTuple):
    """A network and its weights.

    Attributes:
        network: A `train.networks.Network`, as its card says; imported when it is loaded, so that
            commands answer --help at once.
        params: Its parameters.
        state: Its running statistics.
    """

    network: Any
    params: Any
    state: Any


def load_trained(folder: Path) -> Trained:
    """Loads the network of a training's folder.

    Args:
        folder: It holds card.json and weights, or checkpoints where training goes on.

    Returns:
        The network.

    Raises:
        ValueError: Not such a folder, or weights of another network; names the file.
    """
    from haskd_jax.train.card import read_card
    from haskd_jax.train.checkpoints import load_weights
    from haskd_jax.train.networks import make_network

    network = make_network(read_card(folder))
    return Trained(network, *load_weights(folder, *network.shapes))


def check_writable(path: Path, suffix: str) -> None:
    """Refuses an output that could not be written, before the work is done.

    Args:
        path: The file to be.
        suffix: That it must have.

    Raises:
        ValueError: Another suffix, a folder, or within none that can be written to.
    """
    if path.is_dir():
        raise ValueError(f"out: {path} is a folder, expected a {suffix} file")
    if path.suffix != suffix:
        raise ValueError(f"out: {path} does not end in {suffix}")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"out: there is no folder {path.absolute().parent}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"out: {path.absolute().parent} cannot be written to")


def check_folder(path: Path) -> None:
    """Refuses a folder of results that could not be made, before the work is done.

    Args:
        path: The folder to be; those above it are made too.

    Raises:
        ValueError: It or one above it is a file, or cannot be written to.
    """
    near = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not near.is_dir():
        raise ValueError(f"out: {near} is a file, expected a folder")
    if not os.access(near, os.W_OK):
        raise ValueError(f"out: {near} cannot be written to")
