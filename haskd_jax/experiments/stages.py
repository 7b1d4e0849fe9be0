"""The stages of an experiment. Each writes its result, and does nothing where it is there already.

prepare   scenes in the prepared form                      <out>/prepared
select    frames for the teachers                          <out>/selection.json
teacher   the teachers of the arms                         <out>/<arm>/weights
student   the students                                     <out>/<arm>/weights
evaluate  every arm on the evaluation scenes               <out>/<arm>/evaluation.json
report    all of it on one page                            <out>/report.html
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from haskd_jax.data import list_scenes, read_dataset
from haskd_jax.data.few_labels import limited_reconstructions, read_scene_list
from haskd_jax.data.prepare import Result, prepare
from haskd_jax.data.prepared import frame_size, read_manifest, scans_digest
from haskd_jax.experiments.config import Experiment
from haskd_jax.experiments.informant import Informant
from haskd_jax.experiments.progress import bar
from haskd_jax.train.image_encoders import learnt_scenes
from haskd_jax.train.selection import Method, read_selection, select, write_selection

Selection = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Scenes:
    """The scenes of an experiment by what they are for.

    Attributes:
        root: The prepared root.
        dataset: Its name.
        classes: The names of the labels.
        labelled: To train on, with labels.
        unlabelled: To train on, without.
        calibration: Labelled, held back with all other scans of their rooms.
        test: To evaluate on.
        split: What the test scenes are.
        frames: How many frames each has.
        digest: Of the arrays of those to train on and to calibrate by: others are another
            training.
    """

    root: Path
    dataset: str
    classes: tuple[str, ...]
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    calibration: tuple[str, ...]
    test: tuple[str, ...]
    split: str
    frames: Mapping[str, int]
    digest: str

    @property
    def framed(self) -> frozenset[str]:
        """Those that have frames."""
        return frozenset(name for name, count in self.frames.items() if count)


def run_prepare(experiment: Experiment, console: Console) -> None:
    """Prepares the scenes into the experiment's root, unless prepared ones are given.

    Args:
        experiment: The experiment.
        console: Shows what goes on.

    Raises:
        ValueError: Scenes failed, or the root holds others; names them.
    """
    root = experiment.root
    if experiment.prepared is not None:
        read_dataset(root)
        return
    source = experiment.source()
    if source is None:
        return
    done = 0
    with bar(console, "prepare", len(source.scenes())) as show:

        def on_result(result: Result, total: int) -> None:
            nonlocal done
            done += 1
            show(done, {})

        summary = prepare(source, root, workers=experiment.workers, on_result=on_result)
    if summary.failed:
        reasons = "; ".join(result.reason for result in summary.failed[:3])
        raise ValueError(f"{len(summary.failed)} scenes could not be prepared: {reasons}")
    # Of an earlier command that asked for more: they would be trained on or scored unasked.
    if others := sorted(set(list_scenes(root)) - set(source.scenes())):
        raise ValueError(
            f"{root}: holds {len(others)} scenes that this command does not ask for, such as "
            f"{others[0]}: give another --out, or remove them"
        )


def find_scenes(experiment: Experiment) -> Scenes:
    """Divides the prepared scenes.

    Args:
        experiment: Says where they are, which keep labels, and how many are held back.

    Returns:
        The scenes.

    Raises:
        ValueError: No scene to train on, too few labelled ones, none to evaluate by, or one that
            is trained on too.
        DataError: Its root is no prepared root, or lacks a split.
    """
    config, root = experiment.scenes, experiment.root
    train, test = experiment.train_splits, experiment.test_splits
    described = read_dataset(root)
    there = {read_manifest(root / name)["split"] for name in list_scenes(root)}
    if not there & set(train):
        raise ValueError(f"{root}: no scene of {', '.join(train)}; there are {sorted(there)}")
    names = tuple(name for split in train if split in there for name in list_scenes(root, split))
    tested = tuple(name for split in test for name in list_scenes(root, split))
    if both := sorted(set(names) & set(tested)):
        raise ValueError(
            f"{root}: {len(both)} scenes, such as {both[0]}, would be trained on and tested on "
            f"({' and '.join(train)}; {' and '.join(test)}): name another split to test on"
        )
    manifests = {name: read_manifest(root / name) for name in (*names, *tested)}
    with_labels = [name for name in names if _has_labels(manifests[name])]
    if not with_labels:
        raise ValueError(
            f"{root}: none of the {len(names)} scenes of {', '.join(train)} has labels"
        )
    if config.labelled_list is not None:
        labelled = read_scene_list(config.labelled_list, names)
        if without := sorted(labelled - set(with_labels)):
            raise ValueError(
                f"scenes.labelled_list: {config.labelled_list} names {', '.join(without[:3])}, "
                f"without labels in {root} ({len(without)} scenes)"
            )
    else:
        labelled = limited_reconstructions(with_labels, config.labelled)
    rooms = {name: _room(described["dataset"], name) for name in names}
    held = _held_back([rooms[name] for name in sorted(labelled)], config.calibration)
    calibration = frozenset(name for name in labelled if rooms[name] in held)
    if len(calibration) == len(labelled):
        raise ValueError(
            f"scenes.calibration: {config.calibration} of {len(labelled)} labelled scenes leaves "
            "none to train on"
        )
    without = [name for name in tested if not _has_labels(manifests[name])]
    if without and "evaluate" in experiment.stages:
        raise ValueError(
            f"{root}: {len(without)} of the {len(tested)} scenes of {' and '.join(test)} have no "
            f"labels to evaluate by, such as {without[0]}: name another split, or leave out the "
            "stage evaluate"
        )
    return Scenes(
        root=root,
        dataset=described["dataset"],
        classes=tuple(described["classes"]),
        labelled=tuple(name for name in names if name in labelled - calibration),
        unlabelled=tuple(
            name for name in names if name not in labelled and rooms[name] not in held
        ),
        calibration=tuple(name for name in names if name in calibration),
        test=tested,
        split=" and ".join(test),
        frames={name: len(manifest["frames"]) for name, manifest in manifests.items()},
        digest=scans_digest(root, names),
    )


def _room(dataset: str, name: str) -> str:
    """What a scene is a scan of: of ScanNet's rooms most were scanned more than once."""
    return name.partition("_")[0] if dataset == "scannet" else name


def _held_back(rooms: Sequence[str], count: int) -> frozenset[str]:
    """Draws rooms until `count` scans are theirs, the same whatever the seed of the training.

    A room that another scan of it is trained on would tell nothing of new rooms.
    """
    scans, found = Counter(rooms), 0
    held: set[str] = set()
    for room in np.random.default_rng(0).permutation(sorted(scans)).tolist():
        if found >= count:
            break
        held.add(room)
        found += scans[room]
    return frozenset(held)


def _has_labels(manifest: Mapping[str, Any]) -> bool:
    return manifest["counts"].get("labelled_points", 0) > 0


def check_frames(experiment: Experiment, scenes: Scenes) -> None:
    """Checks that what teachers see goes into batches.

    Args:
        experiment: Says which scenes do.
        scenes: The scenes.

    Raises:
        ValueError: Frames of several sizes; names two scenes.
    """
    online = experiment.ihd.teaching == "online"
    batched = (*scenes.labelled, *(scenes.unlabelled if online else ()))
    if scenes.framed.intersection(batched):
        frame_size(scenes.root, batched)


def check_encoder(experiment: Experiment, scenes: Scenes) -> None:
    """Checks that what taught the teachers to see has not seen what they are tested on.

    Args:
        experiment: Says which image encoder they have.
        scenes: The scenes.

    Raises:
        ValueError: It learnt from a scene to test on; names one.
        DataError: Its folder does not say from which it learnt.
    """
    if experiment.encoder is None:
        return
    if both := sorted(learnt_scenes(experiment.encoder) & set(scenes.test)):
        raise ValueError(
            f"encoder: {experiment.encoder} learnt from {len(both)} of the scenes to test on, such "
            f"as {both[0]}: give one that has not seen them"
        )


def run_select(
    experiment: Experiment,
    scenes: Scenes,
    method: Method,
    console: Console,
    informant: Informant | None = None,
) -> Selection:
    """Chooses the frames that teachers see, of all scenes.

    Args:
        experiment: Says how many.
        scenes: The scenes.
        method: How.
        console: Shows what goes on.
        informant: Says where images have most to add; None: everywhere alike.

    Returns:
        Scene -> frames in order of preference.
    """
    names = (*scenes.labelled, *scenes.unlabelled, *scenes.calibration, *scenes.test)
    path = selection_path(experiment.out, method)
    given: dict[str, Any] = {
        "voxel_size": experiment.views.voxel_size,
        "rho": experiment.views.rho,
        "tolerance": experiment.teacher.tolerance,
    }
    if method == "random":  # the others depend on no seed: the runs of a sweep share them
        given["seed"] = experiment.seed
    record = {**given, "information": False if informant is None else informant.record}
    if path.exists():
        found = read_selection(path)
        same = all(found["options"].get(name) == value for name, value in record.items())
        if same and found["num_views"] == experiment.views.num_views:
            entries = found["scenes"]
            if all(
                name in entries and entries[name].get("scan") == scans_digest(scenes.root, [name])
                for name in names
            ):
                return {name: entry["indices"] for name, entry in entries.items()}
    done = 0
    with bar(console, f"select ({method})", len(names)) as show:

        def on_scene(name: str, entry: Mapping[str, Any]) -> None:
            nonlocal done
            done += 1
            show(done, {})

        selection = select(
            scenes.root,
            names,
            method=method,
            num_views=experiment.views.num_views,
            information=informant,
            on_scene=on_scene,
            **given,
        )
    selection["options"] |= record
    if jax.process_index() == 0:
        write_selection(path, selection)
    return {name: entry["indices"] for name, entry in selection["scenes"].items()}


def selection_path(out: Path, method: Method) -> Path:
    """Where a selection is kept: that of IOF is the one that the report shows."""
    return out / ("selection.json" if method == "iof" else f"selection_{method}.json")
