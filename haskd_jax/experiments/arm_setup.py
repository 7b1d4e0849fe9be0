"""What an arm is in an experiment: its network, its training, its scenes and its folders."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import PyTree
from rich.console import Console

from haskd_jax.experiments.arms import ARMS, Arm, ArmName
from haskd_jax.experiments.config import Experiment
from haskd_jax.experiments.stages import Scenes, Selection
from haskd_jax.train.card import ModelCard
from haskd_jax.train.checkpoints import load_weights
from haskd_jax.train.config import TrainConfig
from haskd_jax.train.networks import Network, make_network
from haskd_jax.train.selection import Method
from haskd_jax.train.snapshots import Snapshot, Snapshots


class Training(NamedTuple):
    """A network in the making.

    Attributes:
        arm: What it is trained as.
        folder: Gets all of it.
        seed: Of parameters, order and augmentation.
    """

    arm: ArmName
    folder: Path
    seed: int


@dataclass(frozen=True)
class ArmSetup:
    """What the arms of an experiment share, and what follows from it for each.

    Attributes:
        experiment: The experiment.
        scenes: Its scenes.
        selections: Of every way of choosing frames that an arm needs.
        console: Shows what goes on.
        commit: Of the code, for the record.
        mesh: The devices.
    """

    experiment: Experiment
    scenes: Scenes
    selections: Mapping[Method, Selection]
    console: Console
    commit: str | None
    mesh: Mesh

    def sees(self, arm: Arm) -> bool:
        """Whether images take part in its training."""
        return arm.views is not None or (
            arm.teacher is not None and ARMS[arm.teacher].views is not None
        )

    def unlabelled(self, arm: Arm) -> tuple[str, ...]:
        """The scenes without labels that it trains on: where a teacher or snapshots teach."""
        taught = arm.teacher is not None or arm.asd is not None
        return self.scenes.unlabelled if taught else ()

    def places(self, arm: Arm) -> tuple[int, int]:
        """Scenes with and without labels of one device's batch."""
        config = self.config(arm)
        # As many labelled ones as without the others, which come on top.
        more = config.unlabelled or config.batch_size
        return config.batch_size, more if self.unlabelled(arm) else 0

    def snapshots(self, arm: Arm) -> str | None:
        """Whose snapshots teach it: "online" its own, else those of another arm."""
        if arm.asd is None:
            return None
        return "online" if self.experiment.snapshots == "online" else arm.snapshots

    def card(self, arm: Arm) -> ModelCard:
        """The network that it trains."""
        sees = arm.views is not None
        return ModelCard(
            kind="teacher" if sees else "student",
            model=self.experiment.model,
            dataset=self.scenes.dataset,
            classes=self.scenes.classes,
            voxel_size=self.experiment.scenes.voxel_size,
            teacher=self.experiment.teacher if sees else None,
            frozen_images=sees and self.experiment.encoder is not None,
        )

    def config(self, arm: Arm) -> TrainConfig:
        """How it is trained."""
        config = self.experiment.train_teacher if arm.role == "teacher" else self.experiment.train
        if arm.cyclic or self.snapshots(arm) == "online":
            config = replace(config, optimizer=replace(config.optimizer, schedule="cyclic"))
        if arm.smoothing:
            config = replace(config, loss=replace(config.loss, label_smoothing=0.1))
        return config

    def views(self, arm: Arm) -> dict[str, Any]:
        """What its predictions need to know of the frames."""
        if arm.views is None or not self.scenes.framed:
            return {}
        return {"views": self.experiment.views.num_views, "selection": self.selections[arm.views]}

    def trainings(self, name: ArmName) -> list[Training]:
        """The trainings that an arm's networks come from.

        An ensemble's are of another arm: the student whose snapshots it is the mean of, or students
        trained apart, the first of which is the arm "plain" itself.
        """
        out, seed = self.experiment.out, self.experiment.seed
        if name == "ensemble":
            return [Training("plain", out / "plain", seed)] + [
                Training("plain", out / "ensemble" / str(i), seed + 1000 * i)
                for i in range(1, self.experiment.ensemble)
            ]
        source = ARMS[name].snapshots if ARMS[name].role == "ensemble" else None
        return [Training(source or name, out / (source or name), seed)]

    def load(self, name: ArmName) -> tuple[Network, list[tuple[PyTree, PyTree]]]:
        """The trained networks of an arm: parameters and running statistics, one unless it is an
        ensemble."""
        network = make_network(self.card(ARMS[name]))
        trainings = self.trainings(name)
        if name == "snapshots":
            found = self.load_snapshots(trainings[0].arm, network)
            return network, [(snapshot.params, snapshot.state) for snapshot in found]
        return network, [load_weights(one.folder, *network.shapes) for one in trainings]

    def load_snapshots(self, name: str, network: Network) -> list[Snapshot]:
        """All snapshots that an arm left behind.

        Raises:
            ValueError: There are not as many as its training has cycles; names the folder.
        """
        folder = self.experiment.out / name / "snapshots"
        found = Snapshots(folder).load(*network.shapes)
        if len(found) != self.experiment.train.optimizer.cycles:
            raise ValueError(
                f"{folder}: {len(found)} snapshots of {self.experiment.train.optimizer.cycles} "
                f"cycles: remove {folder.parent} to train it anew"
            )
        return found


def all_here(point: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(point)
