"""The experts that a training leaves behind: its network at the end of each cycle."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from haskd_jax.train import _checkpoint
from haskd_jax.train._checkpoint import Corrupt, Stored


@dataclass(frozen=True)
class Snapshot:
    """The network at the end of a cycle: an expert.

    Attributes:
        cycle: Its number, from 0.
        step: Steps done.
        params: Of the network.
        state: Its running statistics.
        iou: `[C]`, of every class on the calibration scenes; NaN for classes that they lack.
        counts: `[C]`, points of every class there.
    """

    cycle: int
    step: int
    params: PyTree
    state: PyTree
    iou: Float[np.ndarray, " C"]
    counts: Int[np.ndarray, " C"]


class Snapshots:
    """The experts of a training, by cycle. They stay.

    Args:
        folder: Made at the first `save`.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> expert = Snapshot(
        ...     cycle=0, step=100, params={"w": jnp.ones(2)}, state={},
        ...     iou=np.array([0.5, np.nan]), counts=np.array([80, 0]),
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     snapshots = Snapshots(folder)
        ...     snapshots.save(expert)
        ...     loaded = snapshots.load({"w": jnp.zeros(2)}, {}, up_to_step=100)
        >>> loaded[0].step, loaded[0].iou.tolist(), loaded[0].params["w"].tolist()
        (100, [0.5, nan], [1.0, 1.0])
    """

    def __init__(self, folder: Path | str):
        self._folder = Path(folder)

    def save(self, snapshot: Snapshot) -> None:
        """Stores a snapshot, in place of one of the same cycle. Returns when it is on disk.

        Args:
            snapshot: The snapshot.

        Raises:
            OSError: The folder is full or not writable.
        """
        leaves = _checkpoint.to_leaves({"params": snapshot.params, "state": snapshot.state})
        if jax.process_index() != 0:
            return
        _checkpoint.prepare_folder(self._folder)
        info = {
            "cycle": snapshot.cycle,
            "step": snapshot.step,
            "iou": [None if math.isnan(value) else float(value) for value in snapshot.iou],
            "counts": [int(count) for count in snapshot.counts],
        }
        # Folders cannot be exchanged in one go: a later edition outranks those before it.
        editions = _editions(self._folder).get(snapshot.cycle, [])
        name = f"{snapshot.cycle}.{max(editions, default=-1) + 1}"
        _checkpoint.write(self._folder / name, Stored(leaves, info))
        for edition in editions:
            _checkpoint.remove(self._folder / f"{snapshot.cycle}.{edition}")

    def load(
        self, like_params: PyTree, like_state: PyTree, *, up_to_step: int | None = None
    ) -> list[Snapshot]:
        """The snapshots, in order of their cycles.

        Args:
            like_params: Arrays or `jax.ShapeDtypeStruct` of the network; what has no sharding
                stays on the host.
            like_state: Likewise, of its running statistics.
            up_to_step: Leaves out later ones, of steps that are trained again.

        Returns:
            The snapshots; none where the folder lacks.

        Raises:
            ValueError: One is corrupt, or of another network.
        """
        found = _checkpoint.on_first_process(lambda: self._read(up_to_step))
        like = {"params": like_params, "state": like_state}
        snapshots = []
        for leaves, info in found:
            where = self._folder / str(info["cycle"])
            network = _checkpoint.from_leaves(leaves, like, where=where)
            iou = [math.nan if value is None else value for value in info["iou"]]
            snapshots.append(
                Snapshot(
                    cycle=info["cycle"],
                    step=info["step"],
                    params=network["params"],
                    state=network["state"],
                    iou=np.array(iou, np.float64),
                    counts=np.array(info["counts"], np.int64),
                )
            )
        return snapshots

    def _read(self, up_to_step: int | None) -> list[Stored]:
        found = []
        for cycle, editions in sorted(_editions(self._folder).items()):
            path = self._folder / f"{cycle}.{max(editions)}"
            try:
                step = _checkpoint.read_info(path)["step"]
                if up_to_step is None or step <= up_to_step:
                    found.append(_checkpoint.read(path))
            except Corrupt as error:
                raise ValueError(
                    f"{path}: the expert of cycle {cycle} is corrupt: {error}. Put a copy of the "
                    "folder back; or delete it together with the checkpoints of later steps and "
                    "the folder weights, if it is there, and the cycle is trained again"
                ) from error
        return found


def _editions(folder: Path) -> dict[int, list[int]]:
    """Of every cycle's snapshot the numbers of its editions."""
    found: dict[int, list[int]] = {}
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    for name in names:
        if match := re.fullmatch(r"(\d+)\.(\d+)", name):
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return found
