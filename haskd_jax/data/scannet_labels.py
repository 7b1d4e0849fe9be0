"""ScanNet's label ids, split lists and annotation files."""

import csv
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

from haskd_jax.data.errors import DataError
from haskd_jax.data.prepared import read_json

Array = np.ndarray

# The benchmark's 20 classes and their nyu40 ids.
NYU40 = {
    "wall": 1,
    "floor": 2,
    "cabinet": 3,
    "bed": 4,
    "chair": 5,
    "sofa": 6,
    "table": 7,
    "door": 8,
    "window": 9,
    "bookshelf": 10,
    "picture": 11,
    "counter": 12,
    "desk": 14,
    "curtain": 16,
    "refrigerator": 24,
    "shower curtain": 28,
    "toilet": 33,
    "sink": 34,
    "bathtub": 36,
    "otherfurniture": 39,
}
CLASSES = tuple(NYU40)
SPLITS = ("train", "val", "test")
# Ids outside nyu40 that the release itself holds; these points are ignored and counted.
_KNOWN_STRAY = {"scene0270_00": 50, "scene0270_02": 50, "scene0384_00": 149}


def class_table() -> Array:
    """The class of every nyu40 id.

    Returns:
        [41] int16, -1 for ids the benchmark does not score.

    Example:
        >>> class_table()[[0, 1, 13, 39]].tolist()
        [-1, 0, -1, 19]
    """
    table = np.full(41, -1, np.int16)
    table[list(NYU40.values())] = np.arange(len(NYU40))
    return table


def classes_of(nyu40: Array, scene: str, file: Path) -> tuple[Array, int]:
    """Maps nyu40 ids to the benchmark's classes.

    Args:
        nyu40: [N] int.
        scene: The scan's name; a few of the release hold ids of no meaning.
        file: What an error names.

    Returns:
        [N] int32, -1 ignored; and how many points had such a known stray id.

    Raises:
        DataError: An id outside 0-40 that is not known to be in the release.
    """
    stray = (nyu40 < 0) | (nyu40 > 40)
    unknown = np.unique(nyu40[stray & (nyu40 != _KNOWN_STRAY.get(scene, -1))])
    if len(unknown):
        raise DataError(
            file,
            f"unknown label ids {unknown[:5].tolist()}: expected nyu40, 0 to 40; "
            "were raw ScanNet ids written instead?",
        )
    return class_table()[np.where(stray, 0, nyu40)].astype(np.int32), int(stray.sum())


def split_scenes(root: Path) -> dict[str, str]:
    """The scans of each split.

    Args:
        root: Where `scannetv2_{train,val,test}.txt` may lie, as in ScanNet's layout; the official
            lists, shipped here, are used if none does.

    Returns:
        The split of each scan, in the order of the lists.

    Raises:
        DataError: A scan is in two splits.
    """
    names = {split: f"scannetv2_{split}.txt" for split in SPLITS}
    own = {split: root / name for split, name in names.items() if (root / name).is_file()}
    shipped = resources.files("haskd_jax.data") / "scannet_meta"
    files: Mapping[str, Traversable] = own or {
        split: shipped / name for split, name in names.items()
    }
    result: dict[str, str] = {}
    for split, file in files.items():
        for scene in file.read_text(encoding="utf-8").split():
            if result.setdefault(scene, split) != split:
                raise DataError(str(file), f"{scene} is in {result[scene]} as well")
    return result


def find_label_map(root: Path) -> Path | None:
    """ScanNet's table of raw categories, if the user has it.

    Args:
        root: The ScanNet root.

    Returns:
        `scannetv2-labels.combined.tsv`, in the root or beside it.
    """
    name = "scannetv2-labels.combined.tsv"
    return next((p / name for p in (root, root.parent) if (p / name).is_file()), None)


def read_label_map(path: Path) -> dict[str, int]:
    """Reads ScanNet's table of raw categories.

    Args:
        path: `scannetv2-labels.combined.tsv`.

    Returns:
        The nyu40 id of each raw category.

    Raises:
        DataError: Missing columns.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return {row["raw_category"]: int(row["nyu40id"] or 0) for row in rows}
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(path, f"not ScanNet's label table ({error!r})") from error


def read_segments(segs: Path, aggregation: Path, count: int) -> tuple[Array, list[str]]:
    """Reads a scan's annotated instances.

    Args:
        segs: `*_vh_clean_2.0.010000.segs.json`, the segment of each vertex.
        aggregation: `*.aggregation.json`, the segments of each instance and its category.
        count: The number of vertices N.

    Returns:
        [N] int32 instance of each vertex, -1 none; and each instance's raw category.

    Raises:
        DataError: Damaged, or of another number of vertices.
    """
    try:
        segment = np.array(read_json(segs)["segIndices"], np.int64)
        groups = [(g["segments"], str(g["label"])) for g in read_json(aggregation)["segGroups"]]
        members = [np.array(segments, np.int64) for segments, _ in groups]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        file = aggregation if "segment" in locals() else segs
        raise DataError(file, f"not ScanNet's annotation ({error!r})") from error
    if segment.shape != (count,):
        raise DataError(segs, f"{segment.size} vertices, the mesh has {count}")
    instance = np.full(count, -1, np.int32)
    for index, member in enumerate(members):
        instance[np.isin(segment, member)] = index
    return instance, [category for _, category in groups]
