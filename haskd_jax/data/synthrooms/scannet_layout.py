"""Rooms on disk in ScanNet's layout, so that ScanNet's reader reads them unchanged."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from haskd_jax.data.errors import DataError
from haskd_jax.data.synthrooms.generate import Options, SynthScene, generate_scene
from haskd_jax.data.synthrooms.kit import LABEL
from haskd_jax.data.synthrooms.style import STYLES, StyleName
from haskd_jax.data.workers import locked, pool
from haskd_jax.files import PARTIAL, write_text

Array = np.ndarray
Status = Literal["done", "kept"]

# Raised whenever the same seed gives other bytes, so that old scenes are not kept beside new ones.
VERSION = 2
# The seeds of the splits are disjoint, and a split that grows keeps its scenes. ScanNet's names
# have six digits, so there are a million scenes.
SPLIT_SEEDS = {
    "train": range(800_000),
    "val": range(800_000, 900_000),
    "test": range(900_000, 1_000_000),
}
_MANIFEST = "synthrooms.json"


def scene_names(split: str, count: int) -> dict[str, int]:
    """The scenes of a split and their seeds.

    Args:
        split: "train", "val" or "test".
        count: How many.

    Returns:
        The seed of each scene by its name.

    Raises:
        ValueError: An unknown split, or more scenes than a split may have.

    Example:
        >>> scene_names("val", 2)
        {'scene8000_00': 800000, 'scene8000_01': 800001}
    """
    if split not in SPLIT_SEEDS:
        raise ValueError(f"split: {split!r}, must be one of {list(SPLIT_SEEDS)}")
    seeds = SPLIT_SEEDS[split]
    if not 0 <= count <= len(seeds):
        raise ValueError(f"{split}: {count} scenes, must be 0 to {len(seeds)}")
    return {f"scene{seed // 100:04d}_{seed % 100:02d}": seed for seed in seeds[:count]}


@dataclass(frozen=True)
class Job:
    """A scene to be made.

    Attributes:
        split: "train", "val" or "test".
        seed: Decides everything, together with style and options.
        style: Furniture, palettes and trajectories.
    """

    split: str
    seed: int
    style: StyleName

    def recipe(self, options: Options) -> dict[str, Any]:
        """All that decides the scene's bytes, as JSON values."""
        return {
            "version": VERSION,
            "seed": self.seed,
            "style": self.style,
            "options": asdict(options),
        }


def plan_scenes(
    counts: Mapping[str, int], style: StyleName, test_style: StyleName | None
) -> dict[str, Job]:
    """The scenes of all splits.

    Args:
        counts: How many scenes of "train", "val" and "test".
        style: Of the furniture, palettes and trajectories.
        test_style: The same for the test scenes; None is `style`.

    Returns:
        What to make, by the scene's name.

    Raises:
        ValueError: A number or a style that cannot be.

    Example:
        >>> plan_scenes({"train": 0, "val": 0, "test": 1}, "a", "b")
        {'scene9000_00': Job(split='test', seed=900000, style='b')}
    """
    jobs: dict[str, Job] = {}
    for split, count in counts.items():
        own = (test_style or style) if split == "test" else style
        if own not in STYLES:
            raise ValueError(f"style: {own!r}, must be one of {sorted(STYLES)}")
        jobs |= {name: Job(split, seed, own) for name, seed in scene_names(split, count).items()}
    return jobs


def write_scannet_layout(
    root: str | Path,
    *,
    train: int = 100,
    val: int = 20,
    test: int = 20,
    style: StyleName = "a",
    test_style: StyleName | None = None,
    options: Options | None = None,
    workers: int = 2,
    on_scene: Callable[[str, Status, int], None] = lambda name, status, total: None,
) -> None:
    """Writes rooms and the lists of their splits.

    Every scene appears whole or not at all: a killed run, started again, does the rest. Scenes of
    another style or other options are written anew; scenes that are not asked for stay, unlisted.
    The test scenes have labels too.

    Args:
        root: The folder; made if missing. Scenes go to `<root>/scans/`.
        train: How many scenes to train on.
        val: How many to validate on.
        test: How many to test on.
        style: Of the furniture, palettes and trajectories.
        test_style: The same for the test scenes; None is `style`.
        options: Sizes.
        workers: How many processes; each holds one scene at a time. With 1, this process does.
        on_scene: Called after each scene with its name, whether it was there already, and the
            number of scenes.

    Raises:
        ValueError: A number or a style that cannot be.
        DataError: The folder cannot be written to, or another process writes there.
    """
    if workers < 1:
        raise ValueError(f"workers: {workers}, must be 1 or more")
    options = options or Options()
    jobs = plan_scenes({"train": train, "val": val, "test": test}, style, test_style)
    root = Path(root)
    scans = root / "scans"
    try:
        scans.mkdir(parents=True, exist_ok=True)
        with locked(root):
            for leftover in scans.glob(f"{PARTIAL}*"):
                shutil.rmtree(leftover)
            for split in SPLIT_SEEDS:
                names = [f"{name}\n" for name, job in jobs.items() if job.split == split]
                write_text(root / f"scannetv2_{split}.txt", "".join(names))
            for name, status in _run(scans, jobs, options, workers):
                on_scene(name, status, len(jobs))
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(error.filename or root, f"cannot be written ({reason})") from error


def write_scene(scans: Path, name: str, job: Job, options: Options) -> Status:
    """Writes one scene, unless it is there already.

    Args:
        scans: The folder of the scenes.
        name: The scene's name.
        job: Its seed and style.
        options: Its sizes.

    Returns:
        Whether it was written or kept.
    """
    folder, partial = scans / name, scans / f"{PARTIAL}{name}"
    recipe = job.recipe(options)
    if _recipe_of(folder) == recipe:
        return "kept"
    scene = generate_scene(job.seed, style=job.style, options=options)
    partial.mkdir()
    _write_cloud(partial, name, scene)
    _write_frames(partial, scene)
    (partial / _MANIFEST).write_text(json.dumps(recipe) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)
    return "done"


def _recipe_of(folder: Path) -> Any:
    try:
        return json.loads((folder / _MANIFEST).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _write_cloud(folder: Path, name: str, scene: SynthScene) -> None:
    columns: dict[str, Array] = {axis: scene.points[:, i] for i, axis in enumerate("xyz")}
    columns |= {c: scene.colour[:, i] for i, c in enumerate(("red", "green", "blue"))}
    (folder / f"{name}_vh_clean_2.ply").write_bytes(_ply(columns))
    labelled = columns | {"label": scene.label.astype(np.uint16)}
    (folder / f"{name}_vh_clean_2.labels.ply").write_bytes(_ply(labelled))
    # One segment an instance; its category is the name of its nyu40 id.
    word = {number: word for word, number in LABEL.items()}
    _, first = np.unique(scene.instance, return_index=True)
    groups = [
        {"id": i, "objectId": i, "segments": [i], "label": word[int(label)]}
        for i, label in enumerate(scene.label[first])
    ]
    segments = {"sceneId": name, "segIndices": scene.instance.tolist()}
    (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments))
    (folder / f"{name}.aggregation.json").write_text(
        json.dumps({"sceneId": name, "segGroups": groups})
    )


def _ply(columns: Mapping[str, Array]) -> bytes:
    kinds = {"f": "float", "u1": "uchar", "u2": "ushort"}
    types = {name: "<f4" if c.dtype.kind == "f" else c.dtype.str for name, c in columns.items()}
    count = len(next(iter(columns.values())))
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    for name, dtype in types.items():
        header.append(f"property {kinds.get(dtype[1:], kinds.get(dtype[1]))} {name}")
    table = np.empty(count, list(types.items()))
    for name, column in columns.items():
        table[name] = column
    return "\n".join([*header, "end_header\n"]).encode() + table.tobytes()


def _write_frames(folder: Path, scene: SynthScene) -> None:
    for name in ("color", "depth", "pose", "label", "intrinsic"):
        (folder / name).mkdir()
    k = np.eye(4)
    k[:3, :3] = scene.intrinsics
    for name in ("color", "depth"):
        (folder / "intrinsic" / f"intrinsic_{name}.txt").write_text(_matrix(k))
    for i, pose in enumerate(scene.camera_to_world):
        (folder / "pose" / f"{i}.txt").write_text(_matrix(pose))
        _image(folder / "color" / f"{i}.jpg", scene.frame_colour[i], quality=88)
        _image(folder / "depth" / f"{i}.png", scene.frame_depth[i], compress_level=1)
        _image(folder / "label" / f"{i}.png", scene.frame_label[i], compress_level=1)


def _image(path: Path, array: Array, **how: int) -> None:
    stream = io.BytesIO()
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    Image.fromarray(array).save(stream, kind, **how)
    path.write_bytes(stream.getvalue())


def _matrix(matrix: Array) -> str:
    return "".join(" ".join(f"{x:.9g}" for x in row) + "\n" for row in matrix)


def _run(
    scans: Path, jobs: Mapping[str, Job], options: Options, workers: int
) -> Iterator[tuple[str, Status]]:
    if workers == 1 or len(jobs) < 2:
        for name, job in jobs.items():
            yield name, write_scene(scans, name, job, options)
        return
    with pool(min(workers, len(jobs))) as processes:
        names = {
            processes.submit(write_scene, scans, name, job, options): name
            for name, job in jobs.items()
        }
        for task in as_completed(names):
            yield names[task], task.result()
