"""What the doctor finds in scenes of any source: what is there, whether frames and cloud agree."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from haskd_jax.data.alignment import check_alignment
from haskd_jax.data.errors import DataError
from haskd_jax.data.frame_folder import find_frames
from haskd_jax.data.prepare import Source, prepare_scene
from haskd_jax.data.prepared import load_scene
from haskd_jax.data.scene import Scene, pose_fault


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


def described(scene: Scene) -> Finding:
    """What a scene holds, and whether it is a room by its size.

    Args:
        scene: Prepared.

    Returns:
        One finding.
    """
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


def aligned(scene: Scene) -> Iterator[Finding]:
    """Whether its frames show its cloud.

    Args:
        scene: Prepared; of one without frames nothing is said.

    Yields:
        At most one finding.
    """
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


def trial(source: Source, names: list[str]) -> Iterator[Finding]:
    """Reads raw scenes whole, into a folder that goes away, and examines them.

    Args:
        source: Of the scenes.
        names: Which.

    Yields:
        Findings.
    """
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            result = prepare_scene(source, Path(folder), name, "trial", check_labels=False)
            if result.status == "failed":
                yield Finding("problem", name, result.reason)
                continue
            scene = load_scene(Path(folder) / name)
            yield described(scene)
            yield from aligned(scene)


def spread(names: list[str], samples: int) -> list[str]:
    """Some of the scenes, evenly from the first to the last.

    Args:
        names: All of them.
        samples: How many at most.

    Returns:
        The names.

    Example:
        >>> spread(["a", "b", "c", "d", "e"], 3)
        ['a', 'c', 'e']
    """
    picks = np.unique(np.linspace(0, len(names) - 1, min(samples, len(names))).astype(int))
    return [names[i] for i in picks]


def sequence_poses(folder: Path) -> Iterator[Finding]:
    """Reads the poses of a folder of frames.

    Args:
        folder: One that `is_frame_folder`.

    Yields:
        One finding.
    """
    try:
        sequence = find_frames(folder)
    except DataError as error:
        yield Finding("problem", error.file, error.reason)
        return
    faults = Counter(fault for fault in map(pose_fault, sequence.poses) if fault)
    yield from poses(folder.name, len(sequence), faults)


def poses(where: str, frames: int, faults: Counter[str]) -> Iterator[Finding]:
    """What the faults of poses mean for a sequence.

    Args:
        where: Its name.
        frames: How many it has.
        faults: Frames by what is wrong with their pose.

    Yields:
        One finding.
    """
    lost = sum(faults.values())
    if lost == frames:
        yield Finding("problem", where, f"none of its {frames} frames has a usable pose")
    elif lost:
        words = ", ".join(f"{reason} ({count})" for reason, count in faults.items())
        yield Finding("note", where, f"{lost} of {frames} frames will be left out: {words}")
    else:
        yield Finding("good", where, f"{frames} frames with poses")
