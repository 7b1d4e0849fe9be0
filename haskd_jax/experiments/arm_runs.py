"""The arms of an experiment, trained and evaluated: stages teacher, student and evaluate."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from haskd_jax.data.few_labels import FewLabels
from haskd_jax.data.loader import Loader
from haskd_jax.data.prepared import read_json, scans_digest
from haskd_jax.experiments.arms import ARMS, Arm, ArmName, in_order
from haskd_jax.experiments.config import Experiment
from haskd_jax.experiments.progress import bar
from haskd_jax.experiments.recipes import recipe_of
from haskd_jax.experiments.stages import Scenes, Selection, run_select
from haskd_jax.files import PARTIAL, write_json
from haskd_jax.train.card import ModelCard, write_card
from haskd_jax.train.checkpoints import Snapshot, Snapshots, load_weights
from haskd_jax.train.config import TrainConfig
from haskd_jax.train.evaluation import class_iou, evaluate
from haskd_jax.train.experts import with_experts
from haskd_jax.train.image_encoders import encoder_in_words, read_encoder, with_encoder
from haskd_jax.train.loop import fit
from haskd_jax.train.mesh import DATA, make_mesh
from haskd_jax.train.networks import Network, make_network
from haskd_jax.train.objectives import Guides
from haskd_jax.train.records import write_predictions
from haskd_jax.train.selection import Method
from haskd_jax.train.soft_labels import predict_soft_labels
from haskd_jax.train.step import Task

_CONFIG = "config.json"
_EVALUATION = "evaluation.json"


class Arms:
    """Trains and evaluates the arms of an experiment.

    Args:
        experiment: The experiment.
        scenes: Its scenes.
        selections: Of every way of choosing frames that an arm needs.
        console: Shows what goes on.
        commit: Of the code, for the record.
    """

    def __init__(
        self,
        experiment: Experiment,
        scenes: Scenes,
        selections: Mapping[Method, Selection],
        console: Console,
        commit: str | None,
    ):
        self.experiment, self.scenes, self.console = experiment, scenes, console
        self.selections, self.commit = selections, commit
        self.mesh = make_mesh()

    def train(self, name: ArmName) -> None:
        """Trains an arm, unless it is trained already.

        Args:
            name: The arm; what it needs is trained.

        Raises:
            ValueError: It is there with another configuration.
        """
        if ARMS[name].role != "ensemble":
            self._train(name, self.experiment.out / name, self.experiment.seed)
        elif name == "ensemble":
            for folder, seed in self._members():
                self._train("plain", folder, seed)

    def _members(self) -> list[tuple[Path, int]]:
        """Folders and seeds of students trained apart: the first of them is the arm "plain"."""
        out, seed = self.experiment.out, self.experiment.seed
        others = range(1, self.experiment.ensemble)
        return [(out / "plain", seed)] + [
            (out / "ensemble" / str(i), seed + 1000 * i) for i in others
        ]

    def _train(self, name: ArmName, folder: Path, seed: int) -> None:
        arm = ARMS[name]
        card = self._card(arm)
        config = self._config(arm)
        encoder = self.experiment.encoder if arm.views is not None else None
        resolved = {
            "arm": name,
            "seed": seed,
            "card": msgspec.to_builtins(card),
            "train": msgspec.to_builtins(config),
            "scenes": msgspec.to_builtins(self.experiment.scenes, enc_hook=str),
            "scans": self.scenes.digest,
            "labelled": self.scenes.labelled,
            "unlabelled": self._unlabelled(arm) or None,
            "calibration": self.scenes.calibration,
            "views": msgspec.to_builtins(self.experiment.views) if self._sees(arm) else None,
            "encoder": None if encoder is None else read_encoder(encoder),
            "ihd": msgspec.to_builtins(self.experiment.ihd) if arm.teacher else None,
            "asd": msgspec.to_builtins(self.experiment.asd) if arm.asd else None,
            "snapshots": self._snapshots(arm),
            # A student of a teacher that was trained anew is another student.
            "teacher": read_json(self.experiment.out / arm.teacher / _CONFIG)
            if arm.teacher
            else None,
        }
        resolved = json.loads(json.dumps(resolved))  # tuples become lists, as in the file
        done = self._is_done(folder, resolved)
        _all_here(f"{folder} was looked at")  # before the first process writes to it
        if done:
            return
        network = make_network(card, axis_name=DATA)
        if encoder is not None:
            network = with_encoder(network, encoder)
        offline = self.experiment.ihd.teaching == "offline"
        teacher, guides = (None, Guides()) if offline else self._teacher(arm)
        taught = self.experiment.ihd.weight if arm.teacher is not None else 0.0
        task = Task(
            network,
            config,
            seed=seed,
            teacher=teacher,
            ihd=replace(self.experiment.ihd, weight=taught),
            asd=replace(self.experiment.asd, weight=self.experiment.asd.weight if arm.asd else 0.0),
            alike=arm.asd == "mean",
        )
        source = self._snapshots(arm)
        if source not in (None, "online"):
            found = self._load_snapshots(source, network)
            guides = with_experts(guides, found, len(found), task)
        # Before the capacities, which are measured for this configuration.
        if jax.process_index() == 0:
            write_json(folder / _CONFIG, {**resolved, "commit": self.commit})
            write_card(folder, card)
        soft = self._soft(arm.teacher) if arm.teacher is not None and offline else None
        loader = self._loader(arm, network, soft, config, folder, seed)
        with bar(
            self.console, folder.relative_to(self.experiment.out).as_posix(), config.steps
        ) as show:
            fit(
                task,
                loader,
                folder,
                mesh=self.mesh,
                guides=guides,
                online=source == "online",
                calibrate=partial(self._calibrate, network, arm),
                evaluate=partial(self._quick_evaluation, network, arm),
                show=show,
                wandb=self.experiment.wandb,
            )
        _all_here(f"{folder} is trained")  # its weights are there before any process asks for them

    def _sees(self, arm: Arm) -> bool:
        """Whether images take part in its training."""
        return arm.views is not None or (
            arm.teacher is not None and ARMS[arm.teacher].views is not None
        )

    def _unlabelled(self, arm: Arm) -> tuple[str, ...]:
        """The scenes without labels that it trains on: where a teacher or snapshots teach."""
        taught = arm.teacher is not None or arm.asd is not None
        return self.scenes.unlabelled if taught else ()

    def _snapshots(self, arm: Arm) -> str | None:
        """Whose snapshots teach it: "online" its own, else those of another arm."""
        if arm.asd is None:
            return None
        return "online" if self.experiment.snapshots == "online" else arm.snapshots

    def _card(self, arm: Arm) -> ModelCard:
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

    def _config(self, arm: Arm) -> TrainConfig:
        config = self.experiment.train_teacher if arm.role == "teacher" else self.experiment.train
        if arm.cyclic or self._snapshots(arm) == "online":
            config = replace(config, optimizer=replace(config.optimizer, schedule="cyclic"))
        if arm.smoothing:
            config = replace(config, loss=replace(config.loss, label_smoothing=0.1))
        return config

    def _is_done(self, folder: Path, resolved: Mapping[str, Any]) -> bool:
        path = folder / _CONFIG
        if path.exists():
            found = read_json(path)
            found.pop("commit", None)  # other code may train the same
            if found == resolved:
                return (folder / "weights").exists()
            held = f"a training with another {', '.join(_differing(found, resolved))}"
        elif (folder / "checkpoints").exists():
            held = "checkpoints, but no config.json that says of which training"
        else:
            return False
        if not self.experiment.overwrite:
            raise ValueError(
                f"{folder} holds {held}: give another --out, or --overwrite to redo it"
            )
        self.console.print(f"{folder}: it held {held}; trained anew")
        _all_here(f"{folder} is another's")
        if jax.process_index() == 0:
            self._remove(folder)
        return False

    def _remove(self, folder: Path) -> None:
        """Removes a training and what ensembles scored with it, so that no kill leaves a part."""
        for ensemble in (name for name, arm in ARMS.items() if arm.role == "ensemble"):
            (self.experiment.out / ensemble / _EVALUATION).unlink(missing_ok=True)
        doomed = folder.with_name(f"{PARTIAL}{folder.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)

    def _teacher(self, arm: Arm) -> tuple[Network | None, Guides]:
        if arm.teacher is None:
            return None, Guides()
        network = make_network(self._card(ARMS[arm.teacher]))
        weights = load_weights(self.experiment.out / arm.teacher, *network.shapes)
        return network, Guides(teacher=weights)

    def _loader(
        self,
        arm: Arm,
        network: Network,
        soft: Path | None,
        config: TrainConfig,
        folder: Path,
        seed: int,
    ) -> Loader:
        scenes, labelled = self.scenes, self.scenes.labelled
        names = labelled
        groups: tuple[tuple[int, int], ...] = ((len(labelled), config.batch_size),)
        unlabelled = self._unlabelled(arm)
        if unlabelled:
            # As many labelled scenes a batch as without the others, which come on top.
            names = (*labelled, *unlabelled)
            groups = (*groups, (len(unlabelled), config.unlabelled or config.batch_size))
        sees = self._sees(arm) and bool(scenes.framed & set(names)) and soft is None
        if self._sees(arm) and not scenes.framed & set(names):
            self.console.print(
                "[yellow]warning[/yellow] no scene has frames: the teacher is one of points alone, "
                "and what images tell is lost"
            )
        views = arm.views or (ARMS[arm.teacher].views if arm.teacher else None)
        loader = Loader(
            scenes.root,
            names,
            recipe=recipe_of(self.experiment.scenes),
            batch_size=sum(places for _, places in groups),
            groups=groups,
            seed=seed,
            levels=network.levels,
            few_labels=FewLabels(frozenset(labelled), self.experiment.scenes.labelled_points),
            views=self.experiment.views.num_views if sees else 0,
            selection=self.selections[views] if sees and views is not None else None,
            soft=soft,
            processes=self.mesh.size,
        )
        # Kept, so that a resumed run compiles the same shapes and measures nothing.
        path = folder / "capacities.json"
        if path.exists():
            found = tuple(tuple(size) for size in read_json(path))
            return replace(loader, capacities=found)
        # On the order of one seed: runs of other seeds then compile the same shapes.
        measured = replace(loader, seed=0).measured(batches=16, buckets=config.buckets)
        loader = replace(loader, capacities=measured.capacities)
        if jax.process_index() == 0:
            write_json(path, loader.capacities)
        return loader

    def _soft(self, name: ArmName) -> Path:
        """The folder of what a teacher says of every training scene; made where it is missing."""
        arm, tta = ARMS[name], self.experiment.ihd.tta
        folder = self.experiment.out / name / f"soft_tta{tta}"
        names = (*self.scenes.labelled, *self.scenes.unlabelled)
        network = make_network(self._card(arm))
        weights = load_weights(self.experiment.out / name, *network.shapes)
        with bar(self.console, f"{name} predicts", len(names)) as show:
            predict_soft_labels(
                folder, network, *weights, self.scenes.root, names,
                tta=tta, on_scene=lambda done: show(done, {}), **self._views(arm),
            )  # fmt: skip
        return folder

    def _views(self, arm: Arm) -> dict[str, Any]:
        """What evaluation is to know of the frames."""
        if arm.views is None or not self.scenes.framed:
            return {}
        return {"views": self.experiment.views.num_views, "selection": self.selections[arm.views]}

    def _calibrate(self, network: Network, arm: Arm, params, state):
        return class_iou(
            network,
            params,
            state,
            self.scenes.root,
            self.scenes.calibration,
            few_labels=FewLabels(points=self.experiment.scenes.labelled_points),
            **self._views(arm),
        )

    def _quick_evaluation(self, network: Network, arm: Arm, params, state) -> dict[str, Any]:
        """On the calibration scenes: test scenes are looked at once, at the end."""
        iou, counts = self._calibrate(network, arm, params, state)
        return {"split": "calibration", "miou": float(np.mean(iou[counts > 0])), "iou": iou}

    def evaluate(self, name: ArmName) -> None:
        """Evaluates an arm on the test scenes, unless it is evaluated already.

        Args:
            name: The arm; if it is not trained to its end, that is said, and no more.
        """
        arm, out = ARMS[name], self.experiment.out
        folder, path = out / name, out / name / _EVALUATION
        members = self._trainings(name)
        missing = [member for member in members if not (member / "weights").exists()]
        if missing:
            self.console.print(
                f"[yellow]warning[/yellow] {missing[0]}: not trained to its end, so {name} is not "
                "evaluated"
            )
            return
        wanted = {
            "split": self.scenes.split,
            "scans": scans_digest(self.scenes.root, self.scenes.test),
            "checkpoint": "last",
            "step": self._config(arm).steps,
            "ensemble": self.experiment.train.optimizer.cycles
            if name == "snapshots"
            else len(members),
            "tta": self.experiment.tta,
            "views": self._views(arm).get("views", 0),
        }
        if path.exists():
            before = read_json(path)
            if before["protocol"].items() >= wanted.items():
                return
        trained = self._weights(name)
        pictured = self.scenes.test[: self.experiment.pictures]
        network = make_network(self._card(arm))
        done = 0
        with bar(self.console, f"evaluate {name}", len(self.scenes.test)) as show:

            def on_scene(found) -> None:
                nonlocal done
                done += 1
                show(done, {})
                if found.scene.name in pictured:
                    write_predictions(folder / "predictions", found.scene.name, found.predictions)

            first, *others = trained
            found = evaluate(
                network,
                *first,
                self.scenes.root,
                self.scenes.test,
                split=self.scenes.split,
                labels=self._labels(),
                encoder=self._encoder(arm),
                step=wanted["step"],
                commit=read_json(members[0] / _CONFIG).get("commit"),
                ensemble=others,
                tta=self.experiment.tta,
                on_scene=on_scene,
                **self._views(arm),
            )
        if jax.process_index() == 0:
            found.write(path)
        self.console.print(f"{name}: {arm.text}: mIoU {100 * found.miou:.1f}")

    def _trainings(self, name: ArmName) -> list[Path]:
        """The folders of the trainings that an arm's networks come from."""
        if name == "ensemble":
            return [folder for folder, _ in self._members()]
        source = ARMS[name].snapshots if ARMS[name].role == "ensemble" else None
        return [self.experiment.out / (source or name)]

    def _weights(self, name: ArmName) -> list[tuple[Any, Any]]:
        network = make_network(self._card(ARMS[name]))
        folders = self._trainings(name)
        if name == "snapshots":
            found = self._load_snapshots(folders[0].name, network)
            return [(snapshot.params, snapshot.state) for snapshot in found]
        return [load_weights(folder, *network.shapes) for folder in folders]

    def _load_snapshots(self, name: str, network: Network) -> list[Snapshot]:
        """All that an arm left behind."""
        folder = self.experiment.out / name / "snapshots"
        found = Snapshots(folder).load(*network.shapes)
        if len(found) != self.experiment.train.optimizer.cycles:
            raise ValueError(
                f"{folder}: {len(found)} snapshots of {self.experiment.train.optimizer.cycles} "
                f"cycles: remove {folder.parent} to train it anew"
            )
        return found

    def _labels(self) -> str:
        """Which labels the training saw, in words."""
        scenes, config = self.scenes, self.experiment.scenes
        text = f"{len(scenes.labelled)} of {len(scenes.labelled) + len(scenes.unlabelled)} scenes"
        if config.labelled_points is not None:
            text += f", {config.labelled_points} points each"
        return f"{text}, {len(scenes.calibration)} more for calibration"

    def _encoder(self, arm: Arm) -> str | None:
        """What the image encoder that took part was trained on, in words."""
        if self.experiment.encoder is None or not self._sees(arm):
            return None
        return encoder_in_words(self.experiment.encoder)


def run_arms(
    experiment: Experiment,
    scenes: Scenes,
    console: Console,
    commit: str | None,
) -> None:
    """Selects frames, trains and evaluates, as far as the stages say.

    Args:
        experiment: The experiment.
        scenes: Its scenes.
        console: Shows what goes on.
        commit: Of the code, for the record.
    """
    names = in_order(experiment.arms, offline=experiment.snapshots == "offline")
    methods: list[Method] = []
    for name in names:
        method = ARMS[name].views
        if method is not None and method not in methods and scenes.framed:
            methods.append(method)
    selections: dict[Method, Selection] = {}
    if set(experiment.stages) & {"select", "teacher", "student", "evaluate"}:
        selections = {method: run_select(experiment, scenes, method, console) for method in methods}
    arms = Arms(experiment, scenes, selections, console, commit)
    for name in names:
        stage = "teacher" if ARMS[name].role == "teacher" else "student"
        if stage in experiment.stages:
            arms.train(name)
        if "evaluate" in experiment.stages:
            arms.evaluate(name)


def _all_here(point: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(point)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names of the values that differ, with their path."""
    names = []
    for name in sorted(one.keys() | other.keys()):
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names += _differing(a, b, f"{prefix}{name}.")
        elif a != b:
            names.append(f"{prefix}{name}")
    return names
