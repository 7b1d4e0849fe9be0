"""Rooms on disk in ScanNet's layout, so that ScanNet's reader reads them unchanged."""

import fcntl
import io
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from haskd_jax.data.errors import DataError
from haskd_jax.data.synthrooms.generate import Options, SynthScene, generate_scene
from haskd_jax.data.synthrooms.style import STYLES, StyleName

Array = np.ndarray
Status = Literal["done", "kept"]

# Raised whenever the same seed gives other bytes, so that old scenes are not kept beside new ones.
VERSION = 1
# The seeds of the splits are disjoint, and a split that grows keeps its scenes. ScanNet's names
# have six digits, so there are a million scenes.
SPLIT_SEEDS = {
    "train": range(800_000),
    "val": range(800_000, 900_000),
    "test": range(900_000, 1_000_000),
}
_PARTIAL = ".partial-"
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
    splits = {
        split: scene_names(split, count)
        for split, count in {"train": train, "val": val, "test": test}.items()
    }
    jobs: dict[str, tuple[int, StyleName]] = {}
    for split, names in splits.items():
        own = (test_style or style) if split == "test" else style
        if own not in STYLES:
            raise ValueError(f"style: {own!r}, must be one of {sorted(STYLES)}")
        jobs |= {name: (seed, own) for name, seed in names.items()}
    root = Path(root)
    scans = root / "scans"
    try:
        scans.mkdir(parents=True, exist_ok=True)
        with _locked(root):
            for leftover in scans.glob(f"{_PARTIAL}*"):
                shutil.rmtree(leftover)
            for split, names in splits.items():
                _write(root / f"scannetv2_{split}.txt", "".join(f"{n}\n" for n in names).encode())
            for name, status in _run(scans, jobs, options, workers):
                on_scene(name, status, len(jobs))
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(error.filename or root, f"cannot be written ({reason})") from error


def write_scene(
    scans: Path, name: str, seed: int, style: StyleName, options: Options
) -> tuple[str, Status]:
    """Writes one scene, unless it is there already.

    Args:
        scans: The folder of the scenes.
        name: The scene's name.
        seed: Its seed.
        style: Its style.
        options: Its sizes.

    Returns:
        Its name, and whether it was written or kept.
    """
    folder, partial = scans / name, scans / f"{_PARTIAL}{name}"
    recipe = {"version": VERSION, "seed": seed, "style": style, "options": asdict(options)}
    if _recipe_of(folder) == recipe:
        return name, "kept"
    scene = generate_scene(seed, style=style, options=options)
    partial.mkdir()
    _write_cloud(partial, name, scene)
    _write_frames(partial, scene)
    (partial / _MANIFEST).write_text(json.dumps(recipe) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)
    return name, "done"


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


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f"{_PARTIAL}{path.name}")
    beside.write_bytes(content)
    os.replace(beside, path)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One writer at a time in a root; the lock goes with the process, however it ends."""
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(root, "another process is writing here") from error
        yield


def _run(
    scans: Path, jobs: Mapping[str, tuple[int, StyleName]], options: Options, workers: int
) -> Iterator[tuple[str, Status]]:
    if workers == 1 or len(jobs) < 2:
        for name, job in jobs.items():
            yield write_scene(scans, name, *job, options)
        return
    # "spawn": a forked child would inherit the lock, and whatever threads the caller has.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_end_with_parent)
    try:
        tasks = [pool.submit(write_scene, scans, name, *job, options) for name, job in jobs.items()]
        for task in as_completed(tasks):
            yield task.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on writing beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
