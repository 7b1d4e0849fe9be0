"""What a teacher says of every point of the training scenes, once, before a student is trained."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, PyTree

from haskd_jax.data import load_scene
from haskd_jax.files import write_array
from haskd_jax.train.networks import Network
from haskd_jax.train.prediction import predict_scene

Array = np.ndarray
_LEAST = -16.0  # float16 has digits to spare there, and e^-16 is nothing to learn


def predict_soft_labels(
    folder: str | Path,
    network: Network,
    params: PyTree,
    state: PyTree,
    root: str | Path,
    scenes: Sequence[str],
    *,
    tta: int,
    views: int = 0,
    selection: Mapping[str, Sequence[int]] | None = None,
    on_scene: Callable[[int], None] | None = None,
) -> None:
    """Writes `<folder>/<scene>.npy` for every scene that has none yet, see `Loader.soft`.

    Several processes share the scenes out; all return when all scenes are there.

    Args:
        folder: Made if need be.
        network: The teacher; `params`, `state`, `tta` and `views` as for `predict_scene`.
        params: Its parameters.
        state: Its running statistics.
        root: The prepared root.
        scenes: Their names.
        tta: Test-time augmentation that the predictions are the mean of.
        views: Frames of each scene.
        selection: Scene -> frames in order of preference; None spreads them.
        on_scene: Told how many of this process's scenes are there.

    Raises:
        ValueError: The weights give numbers that are not finite.
        DataError: A scene cannot be read.
    """
    # Shared out before looking what is there: others write meanwhile.
    own = scenes[jax.process_index() :: jax.process_count()]
    for done, name in enumerate(own, 1):
        path = Path(folder) / f"{name}.npy"
        if not path.exists():
            found = predict_scene(
                network,
                params,
                state,
                load_scene(Path(root) / name),
                tta=tta,
                views=views,
                chosen_frames=None if selection is None else selection.get(name, ()),
            )
            write_array(path, to_log(found))
        if on_scene is not None:
            on_scene(done)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"soft labels in {Path(folder).name}")


def to_log(probabilities: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """Logarithms of probabilities, as soft labels are kept.

    Args:
        probabilities: [N, C].

    Returns:
        [N, C] float16, not below -16.

    Example:
        >>> to_log(np.array([[1.0, 0.0]])).tolist()
        [[0.0, -16.0]]
    """
    return np.log(np.maximum(probabilities, np.exp(_LEAST))).astype(np.float16)
