"""`haskd evaluate`: trained networks on the scenes of a split, from the command line."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from haskd_jax.data import list_scenes, read_dataset
from haskd_jax.data.prepared import read_json, read_manifest
from haskd_jax.experiments.trained import load_trained
from haskd_jax.guarded import guarded
from haskd_jax.ranges import at_least

_RECORD = "evaluation.json"


def evaluate(
    folder: tyro.conf.Positional[Path],
    data: Path | None = None,
    split: str | None = None,
    tta: Literal[1, 4, 10, 13] = 1,
    snapshots: bool = False,
    selection: Path | None = None,
    views: int | None = None,
    submission: Path | None = None,
    predictions: int = 0,
) -> int:
    """Evaluates a training, or all trainings of a run, point by point; writes evaluation.json.

    Where that holds the result of another protocol or of other scenes, the new one lies beside
    under a name that says which it is.

    Args:
        folder: Of a training (it holds card.json) or of a run (it holds run.json).
        data: The prepared root; the run's own by default.
        split: Which of its scenes; those that the run tests on by default.
        tta: Test-time augmentation: 1 for none, 4 for quarter turns, 13 as on ScanNet, 10 as on
            S3DIS.
        snapshots: Evaluate the mean of the training's snapshots instead of its last weights.
        selection: Which frames a teacher sees; by default those that it was trained with.
        views: How many of them; as many as were selected by default. Without a selection they are
            spread evenly.
        submission: Folder for ScanNet submission files, one a scene, for a single training.
        predictions: Of how many scenes the predictions are kept: in predictions/ beside
            evaluation.json, for reports and viewers, or in a folder named like another record.
    """
    from rich.console import Console

    at_least("predictions", predictions, 0)
    run = _read_run(folder)
    arms = _arms(folder, run)
    if submission is not None and len(arms) > 1:
        raise ValueError(f"submission: {folder} holds {len(arms)} trainings; name one of them")
    if data is None:
        data = _own_data(folder, run)
    found = {}
    for arm in arms:
        chosen, selected = _selection(arm, selection)
        found[arm.name] = _evaluate_arm(
            arm,
            run,
            data,
            splits=_splits(folder, run, split),
            tta=tta,
            snapshots=snapshots,
            selection=chosen,
            others_frames=selection is not None,
            views=views,
            selected=selected,
            submission=submission,
            predictions=predictions,
        )
    _show(Console(), found)
    return 0


def _read_run(folder: Path) -> dict[str, Any]:
    for path in (folder / "run.json", folder.parent / "run.json"):
        if path.exists():
            value = read_json(path)
            if not isinstance(value, dict) or value.get("format") != "haskd-run":
                raise ValueError(f"{path}: not the description of a run")
            return value
    return {}


def _arms(folder: Path, run: dict[str, Any]) -> list[Path]:
    if (folder / "card.json").exists() or not (folder / "run.json").exists():
        return [folder]  # where there is no card either, reading it says so
    arms = [folder / name for name in run.get("arms", ()) if (folder / name / "card.json").exists()]
    if not arms:
        raise ValueError(f"{folder}: none of the run's trainings has begun: there is no card.json")
    return arms


def _own_data(folder: Path, run: dict[str, Any]) -> Path:
    near = [Path(run["prepared"])] if run.get("prepared") else []
    near += [folder / "prepared", folder.parent / "prepared"]
    for path in near:
        if (path / "dataset.json").exists():
            return path
    raise ValueError(f"data: {folder} does not say where its prepared scenes are: give --data")


def _splits(folder: Path, run: dict[str, Any], given: str | None) -> list[str]:
    if given is not None:
        return [given]
    if "test_splits" not in run:
        raise ValueError(f"split: {folder} does not say which scenes it tests on: give --split")
    return list(run["test_splits"])


def _selection(arm: Path, given: Path | None) -> tuple[dict[str, list[int]] | None, int]:
    """Frames by scene, and how many of each."""
    from haskd_jax.experiments.arms import ARMS
    from haskd_jax.experiments.stages import selection_path
    from haskd_jax.train.selection import Method, read_selection

    known: dict[str, Method | None] = {name: of.views for name, of in ARMS.items()}
    path = given or selection_path(arm.absolute().parent, known.get(arm.name) or "iof")
    if given is None and not path.exists():
        return None, 0
    value = read_selection(path)
    scenes = {name: entry["indices"] for name, entry in value["scenes"].items()}
    return scenes, int(value["num_views"])


def _evaluate_arm(
    arm: Path,
    run: dict[str, Any],
    data: Path,
    *,
    splits: list[str],
    tta: int,
    snapshots: bool,
    selection: dict[str, list[int]] | None,
    others_frames: bool,
    views: int | None,
    selected: int,
    submission: Path | None,
    predictions: int,
) -> Any:
    """Its `Evaluation`, which is written too."""
    from rich.progress import track

    from haskd_jax.train import evaluation, records
    from haskd_jax.train.checkpoints import has_weights, newest_step, weights_digest
    from haskd_jax.train.snapshots import Snapshots

    network, params, state = load_trained(arm)
    classes = read_dataset(data)["classes"]
    if list(network.card.classes) != list(classes):
        raise ValueError(
            f"{arm}: trained for {', '.join(network.card.classes)}; {data} has "
            f"{', '.join(classes) or 'no classes'}"
        )
    if submission is not None:
        records.submission_ids(classes)
    others = []
    config = read_json(arm / "config.json") if (arm / "config.json").exists() else {}
    checkpoint, step = "last", config.get("train", {}).get("steps")
    if not has_weights(arm):
        checkpoint, step = "newest of a training that goes on", newest_step(arm)
    if snapshots:
        experts = Snapshots(arm / "snapshots").load(params, state)
        if not experts:
            raise ValueError(f"{arm}: has no snapshots: it was not trained in cycles")
        (params, state), *others = [(one.params, one.state) for one in experts]
        checkpoint = "mean of snapshots"
    scenes = [name for split in splits for name in list_scenes(data, split)]
    missing = set(scenes) - set(scenes if selection is None else selection)
    teacher = network.card.kind == "teacher"
    if teacher and selection is not None and views is not None and views > selected:
        raise ValueError(
            f"views: {views}, but the selection of {arm} holds {selected} frames of a scene: give "
            "as many or fewer, or a --selection of more"
        )
    views = selected if views is None else views
    if teacher and not views and any(read_manifest(data / name)["frames"] for name in scenes):
        raise ValueError(
            f"selection: {arm} is a teacher, and nothing says which frames it sees: give "
            "--selection, or --views for so many spread evenly"
        )
    if teacher and views and missing:
        raise ValueError(
            f"selection: {len(missing)} of {len(scenes)} scenes have no frames selected, such as "
            f"{min(missing)}: select them with haskd_jax.train.selection and give --selection, or "
            "evaluate the scenes that the run tests on"
        )
    kept: dict[str, Any] = dict.fromkeys(scenes[:predictions])
    bar = iter(track(scenes, description=arm.name, transient=True))

    def on_scene(found: evaluation.ScenePrediction) -> None:
        next(bar, None)
        if found.scene.name in kept:
            kept[found.scene.name] = found.predictions
        if submission is not None:
            records.write_submission(submission, found.scene.name, found.predictions, classes)

    record = arm / _RECORD
    before = evaluation.read_protocol(record) if record.exists() else {}
    digest = weights_digest(arm)
    result = evaluation.evaluate(
        network,
        params,
        state,
        data,
        scenes,
        split=" and ".join(splits),
        labels=_labels(run),
        encoder=_encoder(config),
        weights=None if digest is None else [digest],
        step=step,
        checkpoint=checkpoint,
        commit=config.get("commit"),
        ensemble=others,
        tta=tta,
        views=views,
        selection=selection,
        on_scene=on_scene,
    )
    next(bar, None)  # closes it
    same = ("dataset", "split", "scans", "tta", "views", "frames", "ensemble", "crop_voxels")
    differs = before and any(before.get(name) != result.protocol[name] for name in same)
    if differs or checkpoint != "last":
        words = [*splits, *([f"tta{tta}"] if tta > 1 else [])]
        if (scans := result.protocol["scans"]) != before.get("scans", scans):
            words.append(scans[:8])
        seen, frames = result.protocol["views"], result.protocol["frames"]
        fewer = seen != before.get("views", seen)  # or more: of the same selection other frames
        if fewer:
            words.append(f"views{seen}")
        if frames != before.get("frames", frames) and (others_frames or not fewer):
            words.append(f"frames-{str(frames)[:8]}")
        if checkpoint != "last":
            words.append("snapshots" if snapshots else "unfinished")
        record = arm / f"evaluation-{'-'.join(words)}.json"
    # By the name of the record: those in predictions/ are what evaluation.json scores.
    folder = arm / record.stem.replace("evaluation", "predictions", 1)
    for scene, found in kept.items():
        records.write_predictions(folder, scene, found)
    result.write(record)
    return result


def _labels(run: dict[str, Any]) -> str:
    """Which labels the trainings of a run saw."""
    from haskd_jax.experiments.arm_evaluation import labels_in_words

    if "scenes" not in run:  # of a training that was taken out of its run
        return "see config.json"
    scenes = run["scenes"]
    return labels_in_words(
        *(len(scenes[name]) for name in ("labelled", "unlabelled", "calibration")),
        points=run["config"]["scenes"]["labelled_points"],
    )


def _encoder(config: dict[str, Any]) -> str | None:
    """What taught a training, or its teacher, to see images before."""
    from haskd_jax.train.image_encoders import encoder_in_words

    encoder = config.get("encoder") or (config.get("teacher") or {}).get("encoder")
    return encoder_in_words(encoder) if encoder else None


def _show(console: Any, found: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", *map(escape, found), title="IoU, %", title_justify="left")
    first = next(iter(found.values()))

    def row(name: str, values) -> None:
        cells = ("-" if value is None else f"{100 * value:.1f}" for value in values)
        table.add_row(escape(name), *cells)

    for number, name in enumerate(first.classes):
        row(name, [_iou(result, number) for result in found.values()])
    table.add_section()
    said = [result.to_json() for result in found.values()]
    for name in ("miou", "accuracy", "mean_accuracy"):
        row(name, [result[name] for result in said])
    console.print(table)
    for line in _protocols({arm: result.protocol for arm, result in found.items()}):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _iou(result: Any, number: int) -> float | None:
    """Of a class that the truth has, as the mean is over those; None for the others."""
    return float(result.iou[number]) if result.confusion[number].any() else None


def _protocols(protocols: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines that say what all share, and what each has of its own."""
    first, *others = protocols.values()
    shared = {name for name, value in first.items() if all(o[name] == value for o in others)}

    def words(protocol: Mapping[str, Any], names: Iterable[str]) -> str:
        return ", ".join(f"{n} {protocol[n]}" for n in names if protocol[n] is not None)

    lines = ["protocol: " + words(first, [name for name in first if name in shared])]
    for arm, protocol in protocols.items():
        if own := words(protocol, [name for name in protocol if name not in shared]):
            lines.append(f"{arm}: {own}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `haskd evaluate`.

    Args:
        arguments: After `evaluate`; those of the command line by default.

    Returns:
        The exit code.
    """
    return guarded("evaluate", lambda: tyro.cli(evaluate, prog="haskd evaluate", args=arguments))


if __name__ == "__main__":
    raise SystemExit(main())
