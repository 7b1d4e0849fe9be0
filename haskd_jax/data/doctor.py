"""Looks at raw or prepared data and says in plain words what is wrong and what to do."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from haskd_jax.data.doctor_scannet import examine_scannet, examine_sens, is_scannet
from haskd_jax.data.doctor_scenes import (
    Finding,
    aligned,
    described,
    sequence_poses,
    spread,
    trial,
)
from haskd_jax.data.errors import DataError
from haskd_jax.data.frame_folder import find_frames, is_frame_folder
from haskd_jax.data.own import OwnScans
from haskd_jax.data.prepared import list_scenes, read_dataset, read_json, verify_scene
from haskd_jax.data.s3dis import AREAS, S3DIS
from haskd_jax.files import PARTIAL

_FRAMES = 60  # read of a sequence on trial


def examine(path: str | Path, *, samples: int = 3) -> Iterator[Finding]:
    """Examines raw or prepared data.

    Every scene is checked for missing and truncated files; a few raw scenes are read whole, into
    a temporary folder, and their vertices projected into their frames.

    Args:
        path: A prepared root or scene; a root of ScanNet, scannet_frames_25k or S3DIS; one scan
            of ScanNet; a `.sens` file; a cloud; a folder of frames, or of these.
        samples: How many raw scenes are read whole.

    Yields:
        Findings, as they are made.
    """
    path = Path(path)
    if not path.exists():
        yield Finding("problem", str(path), "does not exist", "check the path")
    elif path.is_file() and path.suffix == ".sens":
        yield from examine_sens(path)
    elif (path / "dataset.json").exists():
        yield from _prepared_root(path)
    elif (path / "manifest.json").exists():
        yield from _prepared_scene(path)
    elif any((path / area).is_dir() for area in AREAS):
        yield from _s3dis(path, samples)
    elif is_scannet(path):
        yield from examine_scannet(path, samples)
    else:
        yield from _own(path, samples)


def _prepared_root(root: Path) -> Iterator[Finding]:
    try:
        names = list_scenes(root)
        classes = len(read_dataset(root)["classes"])
    except DataError as error:
        yield Finding("problem", error.file, error.reason)
        return
    partial = sum(1 for _ in root.glob(f"{PARTIAL}*"))
    if partial:
        yield Finding(
            "note",
            str(root),
            f"{partial} scenes were being written when a preparation ended",
            "run the same prepare command again: it does what is left",
        )
    try:
        failed = read_json(root / "prepare.json")["failed"]
    except (DataError, KeyError, TypeError):
        failed = {}
        yield Finding(
            "note", str(root), "the preparation did not finish", "run the same command again"
        )
    for name, reason in failed.items():
        yield Finding("problem", name, f"could not be prepared: {reason}")
    if not names:
        yield Finding("problem", str(root), "holds no scenes", "prepare again")
    for name in names:
        yield from _prepared_scene(root / name, classes)


def _prepared_scene(folder: Path, classes: int | None = None) -> Iterator[Finding]:
    try:
        scene = verify_scene(folder)
    except DataError as error:
        yield Finding("problem", error.file, error.reason)
        return
    yield described(scene)
    if classes is not None and scene.label is not None and scene.label.max() >= classes:
        yield Finding(
            "problem",
            scene.name,
            f"label {scene.label.max()}, and {classes} classes are named in dataset.json",
            "prepare into another folder, with all classes named",
        )
    yield from aligned(scene)


def _s3dis(root: Path, samples: int) -> Iterator[Finding]:
    source = S3DIS(root)
    try:
        rooms = source.scenes()
    except DataError as error:
        yield Finding("problem", error.file, error.reason)
        return
    counts = Counter(rooms.values())
    yield Finding(
        "good",
        str(root),
        f"S3DIS: {len(rooms)} rooms ({', '.join(f'{n} in {a}' for a, n in counts.items())})",
    )
    for area in AREAS:
        if not counts[area]:
            yield Finding("note", area, "has no rooms", "download it, if you need this fold")
        elif not (root / area / f"{area}_alignmentAngle.txt").is_file():
            yield Finding(
                "note",
                area,
                "is of the aligned release",
                "prepare it without images, or use Stanford3dDataset_v1.2 with them",
            )
    yield from trial(source, spread(list(rooms), samples))


def _own(path: Path, samples: int) -> Iterator[Finding]:
    source = OwnScans(path)
    try:
        names = list(source.scenes())
    except DataError as error:
        yield Finding("problem", error.file, error.reason, "docs/data.md shows the layouts")
        return
    if others := source.others():
        yield Finding(
            "note",
            str(path),
            f"passed over, as no scans: {others}",
            "docs/data.md shows the layouts",
        )
    for name, where in source.sources().items():
        if not is_frame_folder(where):
            continue
        found = list(sequence_poses(where))
        yield from found
        if any(finding.level == "problem" for finding in found):
            names.remove(name)
    for name in spread(names, samples):
        where = source.sources()[name]
        stride = -(-len(find_frames(where)) // _FRAMES) if is_frame_folder(where) else 1
        yield from trial(replace(source, frame_stride=stride), [name])
