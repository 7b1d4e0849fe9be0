"""Looks at raw or prepared data and says in plain words what is wrong and what to do."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from haskd_jax.data.alignment import check_alignment
from haskd_jax.data.errors import DataError
from haskd_jax.data.frame_folder import find_frames, is_frame_folder
from haskd_jax.data.own import OwnScans
from haskd_jax.data.prepare import Source, prepare_scene
from haskd_jax.data.prepared import (
    list_scenes,
    load_scene,
    read_dataset,
    read_json,
    verify_scene,
)
from haskd_jax.data.s3dis import AREAS, S3DIS
from haskd_jax.data.scannet import ScanNet
from haskd_jax.data.scannet_labels import find_label_map, split_scenes
from haskd_jax.data.scene import Scene, pose_fault
from haskd_jax.data.sens import read_header, records
from haskd_jax.files import PARTIAL

_SCAN = re.compile(r"scene\d{4}_\d{2}")
_FRAMES = 60  # read of a sequence on trial


@dataclass(frozen=True)
class Finding:
    """One thing the doctor says.

    Attributes:
        level: "good"; "note", worth knowing; or "problem", something that must be mended.
        where: The file, folder or scene.
        what: What was found.
        advice: What to do; empty if there is nothing to do.
    """

    level: Literal["good", "note", "problem"]
    where: str
    what: str
    advice: str = ""


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
        yield from _sens(path)
    elif (path / "dataset.json").exists():
        yield from _prepared_root(path)
    elif (path / "manifest.json").exists():
        yield from _prepared_scene(path)
    elif any((path / area).is_dir() for area in AREAS):
        yield from _s3dis(path, samples)
    elif _SCAN.fullmatch(path.name) and path.is_dir():
        yield from _scannet(path.parent, samples, only=path.name)
    elif _scans(path):
        if _is_25k(path):
            yield from _frames_25k(path)
        else:
            yield from _scannet(path, samples)
    else:
        yield from _own(path, samples)


def _scans(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    folders = (root, root / "scans", root / "scans_test")
    found = [child for folder in folders if folder.is_dir() for child in folder.iterdir()]
    return sorted(p for p in found if _SCAN.fullmatch(p.name) and p.is_dir())


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
    yield _described(scene)
    if classes is not None and scene.label is not None and scene.label.max() >= classes:
        yield Finding(
            "problem",
            scene.name,
            f"label {scene.label.max()}, and {classes} classes are named in dataset.json",
            "prepare into another folder, with all classes named",
        )
    yield from _aligned(scene)


def _described(scene: Scene) -> Finding:
    counts = scene.manifest["counts"]
    words = [f"{counts['points']:,} points", f"{counts['frames']} frames"]
    if scene.label is None:
        words.append("no labels")
    else:
        classes = len(np.unique(scene.label[scene.label >= 0]))
        share = counts["labelled_points"] / counts["points"]
        words.append(f"{share:.0%} of the points labelled, with {classes} classes")
    if scene.manifest["estimated"]:
        words.append(f"{' and '.join(scene.manifest['estimated'])} not in the source")
    for reason, count in scene.manifest["drops"].items():
        words.append(f"left out: {reason} ({count:,})")
    words += scene.manifest["notes"]
    extent = float(np.ptp(scene.points, axis=0).max())
    if not 0.5 < extent < 200:
        return Finding(
            "problem",
            scene.name,
            f"is {extent:.4g} m across: these are hardly metres",
            "prepare again with --metres-per-unit",
        )
    if scene.label is not None and not counts["labelled_points"]:
        return Finding(
            "note",
            scene.name,
            "; ".join(words),
            "all its labels are -1: it counts as a scene without labels",
        )
    return Finding("good", scene.name, "; ".join(words))


def _aligned(scene: Scene) -> Iterator[Finding]:
    if not len(scene.frames):
        return
    found = check_alignment(scene)
    numbers = (
        f"{found.depth_agreement:.0%} of the vertices in view lie on the depth images' surface, "
        f"and their brightness correlates with the images' by {found.colour_correlation:.2f}"
    )
    if found.verdict == "good":
        yield Finding("good", scene.name, f"frames and cloud are aligned: {numbers}")
    elif found.verdict == "unknown":
        yield Finding(
            "note",
            scene.name,
            "too few vertices are in view of the frames to tell whether they are aligned",
            "if the frames should show this room, their poses are wrong",
        )
    else:
        yield Finding(
            "problem" if found.verdict == "wrong" else "note",
            scene.name,
            f"the poses are {found.verdict}: {numbers}",
            found.remedy
            or "poses must be camera-to-world in metres, in the cloud's own coordinates (of "
            "ScanNet: the unaligned ones), in the order of the images; intrinsics must be those "
            "of the images",
        )


def _trial(source: Source, names: list[str]) -> Iterator[Finding]:
    """Reads scenes whole, into a folder that goes away, and examines them."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            result = prepare_scene(source, Path(folder), name, "trial", check_labels=False)
            if result.status == "failed":
                yield Finding("problem", name, result.reason)
                continue
            scene = load_scene(Path(folder) / name)
            yield _described(scene)
            yield from _aligned(scene)


def _spread(names: list[str], samples: int) -> list[str]:
    picks = np.unique(np.linspace(0, len(names) - 1, min(samples, len(names))).astype(int))
    return [names[i] for i in picks]


def _scannet(root: Path, samples: int, only: str | None = None) -> Iterator[Finding]:
    listed = split_scenes(root)
    scans = {path.name: path for path in _scans(root) if only in (None, path.name)}
    splits = Counter(listed.get(name, "no list") for name in scans)
    yield Finding(
        "good",
        str(root),
        f"ScanNet: {len(scans)} scans ({', '.join(f'{n} of {s}' for s, n in splits.items())})",
    )
    if splits["no list"]:
        yield Finding(
            "note",
            str(root),
            f"{splits['no list']} scans are in no split list and are not prepared",
            "name them in scannetv2_train.txt, scannetv2_val.txt or scannetv2_test.txt there",
        )
    whole = []
    for name, folder in scans.items():
        problems = list(_scan_files(root, name, folder, listed.get(name)))
        yield from problems
        if name in listed and not any(p.level == "problem" for p in problems):
            whole.append(name)
    no_frames = [name for name in whole if not _has_frames(scans[name], name)]
    if no_frames:
        yield Finding(
            "note",
            str(root),
            f"{len(no_frames)} scans have no frames, as {no_frames[0]}",
            "download their .sens, or scannet_frames_25k; or prepare with --no-frames",
        )
    with_frames = [name for name in whole if name not in no_frames]
    source = ScanNet(root, frame_stride=100)
    yield from _trial(source, _spread(with_frames, samples))
    yield from _trial(
        replace(source, frames=False), _spread(no_frames, max(samples - len(with_frames), 0))
    )


def _has_frames(folder: Path, name: str) -> bool:
    return is_frame_folder(folder) or (folder / f"{name}.sens").exists()


def _scan_files(root: Path, name: str, folder: Path, split: str | None) -> Iterator[Finding]:
    mesh = folder / f"{name}_vh_clean_2.ply"
    if not mesh.is_file():
        yield Finding(
            "problem", name, f"{mesh.name} is missing", "download it: it is the cloud to segment"
        )
    labels = (folder / f"{name}_vh_clean_2.labels.ply").is_file()
    segments = (folder / f"{name}_vh_clean_2.0.010000.segs.json").is_file()
    if split not in ("test", None) and not labels:
        if not segments:
            yield Finding(
                "problem",
                name,
                "has no labels",
                f"download {name}_vh_clean_2.labels.ply, or segs.json and aggregation.json",
            )
        elif find_label_map(root) is None:
            yield Finding(
                "problem",
                name,
                "has segments, but nothing says which nyu40 class their categories are",
                "put scannetv2-labels.combined.tsv into the root, or download labels.ply",
            )
    if is_frame_folder(folder):
        yield from _sequence(folder)
    elif (folder / f"{name}.sens").exists():
        found = list(_sens(folder / f"{name}.sens"))
        yield from (f for f in found if f.level != "good")


def _sens(path: Path) -> Iterator[Finding]:
    faults: Counter[str] = Counter()
    try:
        with path.open("rb") as stream:
            header = read_header(stream, path)
            for record in records(stream, header, path):
                fault = pose_fault(record.camera_to_world)
                if fault:
                    faults[fault] += 1
    except DataError as error:
        yield Finding("problem", error.file, error.reason)
        return
    except OSError as error:
        yield Finding("problem", str(path), error.strerror or str(error))
        return
    yield from _poses(path.name, header.num_frames, faults)


def _sequence(folder: Path) -> Iterator[Finding]:
    try:
        sequence = find_frames(folder)
    except DataError as error:
        yield Finding("problem", error.file, error.reason)
        return
    faults = Counter(fault for fault in map(pose_fault, sequence.poses) if fault)
    yield from _poses(folder.name, len(sequence), faults)


def _poses(where: str, frames: int, faults: Counter[str]) -> Iterator[Finding]:
    lost = sum(faults.values())
    if lost == frames:
        yield Finding("problem", where, f"none of its {frames} frames has a usable pose")
    elif lost:
        words = ", ".join(f"{reason} ({count})" for reason, count in faults.items())
        yield Finding("note", where, f"{lost} of {frames} frames will be left out: {words}")
    else:
        yield Finding("good", where, f"{frames} frames with poses")


def _is_25k(root: Path) -> bool:
    scans = _scans(root)
    return all(is_frame_folder(p) for p in scans) and not any(
        (p / f"{p.name}_vh_clean_2.ply").exists() for p in scans
    )


def _frames_25k(root: Path) -> Iterator[Finding]:
    scans = _scans(root)
    yield Finding(
        "good",
        str(root),
        f"frames of {len(scans)} scans, without clouds",
        "give this folder as --frames-25k",
    )
    for folder in scans:
        yield from (f for f in _sequence(folder) if f.level != "good")


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
    yield from _trial(source, _spread(list(rooms), samples))


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
        found = list(_sequence(where))
        yield from found
        if any(finding.level == "problem" for finding in found):
            names.remove(name)
    for name in _spread(names, samples):
        where = source.sources()[name]
        stride = -(-len(find_frames(where)) // _FRAMES) if is_frame_folder(where) else 1
        yield from _trial(replace(source, frame_stride=stride), [name])
