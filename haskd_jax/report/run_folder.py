"""A run folder as the report reads it: plain numbers, checked, every error with its file."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, Int64

from haskd_jax.data.errors import DataError
from haskd_jax.data.prepared import read_json

Array = np.ndarray
VERSION = 1


@dataclass(frozen=True)
class Evaluation:
    """How an arm scored.

    Attributes:
        protocol: What the numbers hold for.
        classes: C names.
        confusion: [C, C] int64 points, truth by row.
        iou: C shares, None for a class that does not occur.
        miou: Mean of `iou` over classes that occur, 0 to 1.
        accuracy: Share of the points that are right, 0 to 1.
        mean_accuracy: Mean over classes of the same, 0 to 1.
        parameters: How many the network has, or None.
        seconds_per_scene: Inference, or None.
    """

    protocol: Mapping[str, Any]
    classes: tuple[str, ...]
    confusion: Int64[Array, "C C"]
    iou: tuple[float | None, ...]
    miou: float
    accuracy: float
    mean_accuracy: float
    parameters: int | None
    seconds_per_scene: float | None

    @property
    def needs_images(self) -> bool:
        """Whether it saw images when it was evaluated."""
        return bool(self.protocol.get("views"))


def training_seconds(log: Iterable[Mapping[str, Any]]) -> float | None:
    """How long a training took, over all the sessions it was done in.

    The clock of the log starts anew with each session. What a session did after its last checkpoint
    is done again and does not count.

    Args:
        log: Lines of metrics.jsonl.

    Returns:
        Seconds; None if no line has them.

    Example:
        >>> lines = [{"step": 10, "seconds": 5.0, "step_seconds": 0.5},
        ...          {"step": 20, "seconds": 9.0, "step_seconds": 0.4},
        ...          {"step": 30, "seconds": 20.0, "step_seconds": 2.0}]  # resumed after step 20
        >>> training_seconds(lines)
        29.0
    """
    finished = last = 0.0
    step, found = 0, False
    for line in log:
        if "seconds" not in line:
            continue
        # In the first line of a session all the time since its start went into the steps since the
        # line before: a checkpoint follows a line of its step. Later ones have `last` on top.
        before = line["seconds"] - line["step_seconds"] * (line["step"] - step)
        if before < last / 2:
            finished += last
        last, step, found = line["seconds"], line["step"], True
    return finished + last if found else None


@dataclass(frozen=True)
class Arm:
    """One training of a run.

    Attributes:
        name: Its folder's name.
        folder: Its folder.
        metrics: The objects of `metrics.jsonl`, in order; none if it was not trained.
        evaluation: How it scored, or None if it was not evaluated on labels.
        scenes: Those that it was evaluated on, with labels or without.
    """

    name: str
    folder: Path
    metrics: tuple[Mapping[str, Any], ...]
    evaluation: Evaluation | None
    scenes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What people call it."""
        return TITLES.get(self.name, self.name)

    @property
    def training_seconds(self) -> float | None:
        """How long training took, or None."""
        return training_seconds(self.metrics)

    @property
    def pictured(self) -> tuple[str, ...]:
        """The scenes whose predictions were stored with the evaluation."""
        return tuple(scene for scene in self.scenes if self._stored(scene).exists())

    def _stored(self, scene: str) -> Path:
        return self.folder / "predictions" / f"{scene}.npy"

    def predictions(self, scene: str, points: int, classes: int) -> Int16[Array, " N"] | None:
        """The predicted class of every point of a scene, or None where none was stored.

        Args:
            scene: Its name.
            points: N, how many it has.
            classes: How many there are; -1 is a prediction of none.

        Returns:
            [N] int16.

        Raises:
            DataError: Damaged, of another scene, or of other classes.
        """
        if scene not in self.scenes:
            return None  # of another evaluation than the one whose scores are shown
        path = self._stored(scene)
        try:
            array = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            raise DataError(path, f"damaged ({error}): remove it and evaluate again") from error
        if array.shape != (points,) or array.dtype.kind not in "iu":
            raise DataError(
                path,
                f"{array.dtype} {array.shape} for a scene of {points} points: remove it and "
                "evaluate again",
            )
        if wrong := array[(array < -1) | (array >= classes)].tolist():
            raise DataError(path, f"class {wrong[0]} of {classes}: remove it and evaluate again")
        return array.astype(np.int16)


# Arms that every run knows; others go by the name of their folder.
TITLES = {
    "plain": "Plain student",
    "cyclic": "Cyclic student",
    "teacher": "Teacher",
    "teacher_uniform": "Teacher, uniform views",
    "teacher_random": "Teacher, random views",
    "ihd": "IHD student",
    "ihd_uniform": "IHD student, uniform views",
    "ihd_cyclic": "Cyclic IHD student",
    "ihd_points": "Taught by a student",
    "asd": "ASD student",
    "mean_snapshots": "All snapshots alike",
    "haskd": "HAS-KD student",
    "smoothing": "Label smoothing",
    "snapshots": "Ensemble of snapshots",
    "ensemble": "Ensemble of students",
}


@dataclass(frozen=True)
class Run:
    """All that a run folder says.

    Attributes:
        folder: Where it is.
        info: `run.json`.
        arms: Its arms, in the order of `run.json`.
        selection: `selection.json`, another teacher's where there is none of IOF, or None.
        prepared: The prepared root, or None if it is not there any more.
    """

    folder: Path
    info: Mapping[str, Any]
    arms: tuple[Arm, ...]
    selection: Mapping[str, Any] | None
    prepared: Path | None

    @property
    def evaluated(self) -> tuple[Arm, ...]:
        """The arms that were evaluated."""
        return tuple(arm for arm in self.arms if arm.evaluation)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; none if nothing was evaluated and nothing is prepared."""
        for arm in self.evaluated:
            assert arm.evaluation
            return arm.evaluation.classes
        if self.prepared:
            return tuple(read_json(self.prepared / "dataset.json")["classes"])
        return ()

    def pictured_scenes(self) -> tuple[str, ...]:
        """Scenes with stored predictions of any arm, sorted."""
        return tuple(sorted({scene for arm in self.arms for scene in arm.pictured}))


def read_run(folder: str | Path) -> Run:
    """Reads a run folder; what a run has not reached yet is None or empty.

    Args:
        folder: The run folder.

    Returns:
        Its contents; clouds, frames and predictions stay on disk.

    Raises:
        DataError: No run folder, or a file in it is damaged: the message names it.

    Example:
        >>> read_run("no/such/run")
        Traceback (most recent call last):
        ...
        haskd_jax.data.errors.DataError: no/such/run/run.json: missing: is this a run folder?
    """
    folder = Path(folder)
    path = folder / "run.json"
    if not path.exists():
        raise DataError(path, "missing: is this a run folder?")
    info = _object(path, "haskd-run", "give the folder that an experiment wrote")
    names = info.get("arms")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(
            path, f"arms: {names!r}, expected a list of names: run the experiment again"
        )
    if any(Path(name).name != name or name.startswith(".") for name in names):
        raise DataError(path, f"arms: {names!r}, expected plain folder names")
    arms = tuple(_read_arm(folder / name) for name in names)
    _same_classes(arms)
    return Run(
        folder=folder,
        info=info,
        arms=arms,
        selection=_read_selection(folder),
        prepared=_prepared(folder, info),
    )


def _prepared(folder: Path, info: Mapping[str, Any]) -> Path | None:
    for root in (Path(info.get("prepared") or folder / "prepared"), folder / "prepared"):
        if (root / "dataset.json").exists():
            return root
    return None


def _object(path: Path, kind: str, advice: str) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != kind:
        raise DataError(path, f"not a file of the kind {kind}: {advice}")
    if value.get("version") != VERSION:
        raise DataError(
            path, f"version {value.get('version')}, this package reads {VERSION}: {advice}"
        )
    return value


def _read_arm(folder: Path) -> Arm:
    path = folder / "evaluation.json"
    evaluation, scenes = _read_evaluation(path) if path.exists() else (None, ())
    return Arm(
        name=folder.name,
        folder=folder,
        metrics=_read_metrics(folder / "metrics.jsonl"),
        evaluation=evaluation,
        scenes=scenes,
    )


def _read_metrics(path: Path) -> tuple[Mapping[str, Any], ...]:
    if not path.exists():
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise DataError(path, f"not readable ({error}): train again") from error
    values = []
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            if not isinstance(value, dict) or not isinstance(value.get("step"), int):
                raise ValueError("no object with a step")
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break  # training was killed while it wrote this line
            raise DataError(path, f"line {number}: {error}: remove the line") from error
        values.append(value)
    return tuple(values)


def _read_evaluation(path: Path) -> tuple[Evaluation | None, tuple[str, ...]]:
    """How an arm scored, and on which scenes."""
    advice = "remove it and evaluate again"
    value = _object(path, "haskd-evaluation", advice)
    scenes = value.get("scenes")
    if not isinstance(scenes, list) or not all(isinstance(name, str) for name in scenes):
        raise DataError(path, f"scenes: {scenes!r}, expected a list of names: {advice}")
    if value.get("miou", 0) is None:
        return None, tuple(scenes)  # no point of the split is labelled
    try:
        classes = tuple(str(name) for name in value["classes"])
        confusion = np.array(value["confusion"], np.int64)
        iou = tuple(None if share is None else float(share) for share in value["iou"])
        shares = {key: float(value[key]) for key in ("miou", "accuracy", "mean_accuracy")}
        parameters, seconds = value.get("parameters"), value.get("seconds_per_scene")
        result = Evaluation(
            protocol=dict(value["protocol"]),
            classes=classes,
            confusion=confusion,
            iou=iou,
            parameters=None if parameters is None else int(parameters),
            seconds_per_scene=None if seconds is None else float(seconds),
            **shares,
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(path, f"{what}: {advice}") from error
    count = len(classes)
    if confusion.shape != (count, count) or (confusion < 0).any() or len(iou) != count:
        raise DataError(
            path,
            f"confusion {confusion.shape} and {len(iou)} IoU for {count} classes: {advice}",
        )
    wrong = {k: v for k, v in shares.items() if not 0 <= v <= 1}
    wrong |= {f"iou of {c}": v for c, v in zip(classes, iou, strict=True) if v and not 0 <= v <= 1}
    if wrong:
        name, share = next(iter(wrong.items()))
        raise DataError(path, f"{name}: {share}, expected a share from 0 to 1: {advice}")
    # A class that only predictions have did not occur: it does not count in the mean either.
    occurs = confusion.sum(axis=1) > 0
    iou = tuple(share if there else None for share, there in zip(iou, occurs, strict=True))
    return replace(result, iou=iou), tuple(scenes)


def _same_classes(arms: tuple[Arm, ...]) -> None:
    evaluated = [arm for arm in arms if arm.evaluation]
    for arm in evaluated[1:]:
        assert arm.evaluation and evaluated[0].evaluation
        if arm.evaluation.classes != evaluated[0].evaluation.classes:
            raise DataError(
                arm.folder / "evaluation.json",
                f"its classes are not those of {evaluated[0].name}: evaluate both again",
            )


def _read_selection(folder: Path) -> dict[str, Any] | None:
    names = ("selection.json", "selection_uniform.json", "selection_random.json")
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        return None
    advice = "remove it and select again"
    value = _object(path, "haskd-selection", advice)
    scenes = value.get("scenes")
    if not isinstance(scenes, dict):
        raise DataError(path, f"lacks scenes: {advice}")
    for name, scene in scenes.items():
        try:
            frames, indices = scene["frames"], scene["indices"]
            if any(not 0 <= index < frames for index in indices):
                raise ValueError(f"indices {indices} of {frames} frames")
        except (KeyError, TypeError, ValueError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(path, f"{name}: {what}: {advice}") from error
    return value
