"""What the doctor finds in raw ScanNet: which files are there, which frames can be used."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from haskd_jax.data.doctor_scenes import Finding, poses, sequence_poses, spread, trial
from haskd_jax.data.errors import DataError
from haskd_jax.data.frame_folder import is_frame_folder
from haskd_jax.data.scannet import ScanNet
from haskd_jax.data.scannet_labels import find_label_map, split_scenes
from haskd_jax.data.scene import pose_fault
from haskd_jax.data.sens import read_header, records

_SCAN = re.compile(r"scene\d{4}_\d{2}")


def is_scannet(path: Path) -> bool:
    """Whether it is a scan of ScanNet by its name, or a folder that holds some."""
    return _is_scan(path) or bool(_scans(path))


def examine_scannet(path: Path, samples: int) -> Iterator[Finding]:
    """Examines a root of ScanNet or scannet_frames_25k, or one scan.

    Args:
        path: One that `is_scannet`.
        samples: How many scans are read whole.

    Yields:
        Findings.
    """
    if _is_scan(path):
        yield from _clouds(path.parent, samples, only=path.name)
    elif _is_25k(path):
        yield from _frames_25k(path)
    else:
        yield from _clouds(path, samples)


def examine_sens(path: Path) -> Iterator[Finding]:
    """Reads the poses of a `.sens` file, all of it.

    Args:
        path: The file.

    Yields:
        Findings.
    """
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
    yield from poses(path.name, header.num_frames, faults)


def _is_scan(path: Path) -> bool:
    return bool(_SCAN.fullmatch(path.name)) and path.is_dir()


def _scans(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    folders = (root, root / "scans", root / "scans_test")
    found = [child for folder in folders if folder.is_dir() for child in folder.iterdir()]
    return sorted(filter(_is_scan, found))


def _clouds(root: Path, samples: int, only: str | None = None) -> Iterator[Finding]:
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
    yield from trial(source, spread(with_frames, samples))
    yield from trial(
        replace(source, frames=False), spread(no_frames, max(samples - len(with_frames), 0))
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
        yield from sequence_poses(folder)
    elif (folder / f"{name}.sens").exists():
        found = list(examine_sens(folder / f"{name}.sens"))
        yield from (f for f in found if f.level != "good")


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
        yield from (f for f in sequence_poses(folder) if f.level != "good")
