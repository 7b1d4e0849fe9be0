"""What evaluation leaves on disk for others: predictions of scenes, and ScanNet's submission."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from haskd_jax.data.scannet_labels import NYU40
from haskd_jax.files import write_array, write_whole

Array = np.ndarray


def write_predictions(folder: str | Path, scene: str, predictions: Int[Array, " N"]) -> Path:
    """Writes the predicted class of every point as `<folder>/<scene>.npy`, int16.

    Args:
        folder: Made if need be.
        scene: The scene's name.
        predictions: [N].

    Returns:
        The file.
    """
    path = Path(folder) / f"{scene}.npy"
    write_array(path, predictions.astype(np.int16))
    return path


def write_submission(
    folder: str | Path, scene: str, predictions: Int[Array, " N"], classes: Sequence[str]
) -> Path:
    """Writes `<folder>/<scene>.txt` as ScanNet's benchmark takes it: one nyu40 id a line.

    Args:
        folder: Made if need be.
        scene: The scan's name.
        predictions: [N] class of every vertex.
        classes: Names of the classes, all of them ScanNet's.

    Returns:
        The file.

    Raises:
        ValueError: A class that the benchmark does not have, or a prediction of no class.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = np.array([1, 0, 1])
        ...     write_submission(folder, "scene0707_00", found, ["floor", "desk"]).read_text()
        '14\\n2\\n14\\n'
    """
    ids = submission_ids(classes)
    if predictions.size and not 0 <= predictions.min() <= predictions.max() < len(ids):
        raise ValueError(f"predictions: {predictions.min()} to {predictions.max()} of {len(ids)}")
    path = Path(folder) / f"{scene}.txt"
    write_whole(path, lambda beside: np.savetxt(beside, ids[predictions], fmt="%d"))
    return path


def submission_ids(classes: Sequence[str]) -> Int[Array, " C"]:
    """The nyu40 id of every class.

    Args:
        classes: C names.

    Returns:
        [C].

    Raises:
        ValueError: A class without id.
    """
    strange = [name for name in classes if name not in NYU40]
    if strange:
        raise ValueError(
            f"classes: {', '.join(strange)} are no classes of ScanNet's benchmark: a submission "
            "needs a model trained on ScanNet's 20"
        )
    return np.array([NYU40[name] for name in classes])
