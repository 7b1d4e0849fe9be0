"""Few labels: ScanNet's data-efficient settings, for every dataset.

Limited Reconstructions: a share of the scenes is labelled, the others stay without labels. Limited
Annotations: a number of points of each scene is labelled. Both after Hou et al., "Exploring
Data-Efficient 3D Scene Understanding with Contrastive Scene Contexts", CVPR 2021.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int, Int32

from haskd_jax.data.errors import DataError
from haskd_jax.data.scene import Array, Scene


@dataclass(frozen=True)
class FewLabels:
    """Which labels training may see.

    Attributes:
        scenes: The scenes that keep labels, as `limited_reconstructions` or `read_scene_list` gives
            them; None for all.
        points: How many points of a scene keep their label; or the points themselves, scene by
            scene, as `read_point_lists` gives them; None for all.
        seed: Draws the points.

    Raises:
        ValueError: `points` is a number below 1.

    Example:
        >>> scene = Scene("room", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8),
        ...               np.eye(3, dtype=np.float32), label=np.array([0, 1, 2], np.int32))
        >>> int((FewLabels(points=1).of(scene).label >= 0).sum())
        1
        >>> FewLabels(scenes=frozenset({"other"})).of(scene).label is None
        True
    """

    scenes: frozenset[str] | None = None
    points: int | Mapping[str, Array] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the number of points."""
        if isinstance(self.points, int) and self.points < 1:
            raise ValueError(f"points: {self.points}, expected 1 or more")

    def of(self, scene: Scene) -> Scene:
        """The scene with the labels that training may see.

        Neither 2D labels of frames nor instances of a scene that loses labels are kept: they would
        tell what the labels no longer do.

        Args:
            scene: The scene with all its labels.

        Returns:
            The same scene with fewer.

        Raises:
            ValueError: The list has no entry for the scene, or points that the scene has not.
        """
        if scene.label is None or (self.scenes is None and self.points is None):
            return scene
        hidden = replace(scene, instance=None, frames=replace(scene.frames, label=None))
        if self.scenes is not None and scene.name not in self.scenes:
            return replace(hidden, label=None)
        if self.points is None:
            return scene
        if isinstance(self.points, int):
            label = limited_annotations(scene.label, self.points, seed=self.seed, name=scene.name)
        else:
            label = self._listed(scene, scene.label, self.points)
        return replace(hidden, label=label)

    @staticmethod
    def _listed(scene: Scene, label: Array, lists: Mapping[str, Array]) -> Array:
        if scene.name not in lists:
            raise ValueError(f"points: no list for the scene {scene.name}")
        if any(reason.startswith("point:") for reason in scene.manifest.get("drops", {})):
            raise ValueError(
                f"points: {scene.name} lost points when it was prepared, so the numbers in the "
                "list no longer hold"
            )
        chosen = lists[scene.name]
        if len(chosen) and chosen.max() >= len(label):
            raise ValueError(
                f"points: the list has point {chosen.max()}, {scene.name} has {len(label)} points"
            )
        few = np.full_like(label, -1)
        few[chosen] = label[chosen]
        return few


def limited_reconstructions(names: Iterable[str], share: float, *, seed: int = 0) -> frozenset[str]:
    """Draws the scenes that keep their labels.

    Args:
        names: All scenes of the training split, in any order.
        share: Of them, above 0 and at most 1. ScanNet has 0.01, 0.05, 0.1 and 0.2.
        seed: Draws. With one seed the scenes of a smaller share are among those of a larger.

    Returns:
        The scenes, one at least.

    Raises:
        ValueError: No scene, or a share out of range.

    Example:
        >>> few = limited_reconstructions([f"room{i}" for i in range(50)], 0.1)
        >>> len(few), few < limited_reconstructions([f"room{i}" for i in range(50)], 0.2)
        (5, True)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: {share}, expected more than 0 and at most 1")
    ordered = sorted(set(names))
    if not ordered:
        raise ValueError("names: no scene to draw from")
    drawn = np.random.default_rng(seed).permutation(len(ordered))
    return frozenset(ordered[i] for i in drawn[: max(1, round(share * len(ordered)))])


def limited_annotations(
    label: Int[Array, " N"], count: int, *, seed: int = 0, name: str = ""
) -> Int32[Array, " N"]:
    """Keeps the labels of a few points.

    Args:
        label: [N], -1 ignored.
        count: How many labelled points keep their label. ScanNet has 20, 50, 100 and 200.
        seed: Draws. With one seed the points of a smaller count are among those of a larger.
        name: The scene's: every scene has a draw of its own, whichever others there are.

    Returns:
        [N] int32, -1 but for these points; all labels where there are no more.

    Raises:
        ValueError: `count` is below 1.

    Example:
        >>> limited_annotations(np.array([4, -1, 4, 4]), 3).tolist()
        [4, -1, 4, 4]
    """
    if count < 1:
        raise ValueError(f"count: {count}, expected 1 or more")
    labelled = np.flatnonzero(label >= 0)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    kept = labelled[rng.permutation(len(labelled))[:count]]
    few = np.full(len(label), -1, np.int32)
    few[kept] = label[kept]
    return few


def read_scene_list(path: str | Path, names: Iterable[str]) -> frozenset[str]:
    """Reads a list of scenes, one name a line, as ScanNet's Limited Reconstructions have them.

    Args:
        path: The text file.
        names: All scenes that there are.

    Returns:
        The scenes of the list.

    Raises:
        DataError: The file is missing, empty, or names a scene that is not there.

    Example:
        >>> read_scene_list("no/list.txt", ["room"])
        Traceback (most recent call last):
        ...
        haskd_jax.data.errors.DataError: no/list.txt: missing
    """
    known = frozenset(names)
    found = set()
    for number, line in enumerate(_lines(Path(path)), 1):
        # Lists come with file names as well as with bare names.
        name = line.strip().removesuffix(".txt").removesuffix(".pth")
        if name and name not in known:
            raise DataError(path, f"line {number}: no scene {name!r} among the {len(known)} given")
        if name:
            found.add(name)
    if not found:
        raise DataError(path, "names no scene")
    return frozenset(found)


def read_point_lists(path: str | Path) -> dict[str, Array]:
    """Reads which points are labelled, scene by scene.

    Lists that were published as pickles, which this package never opens, must be converted once,
    where they can be read: with a dictionary `lists` from scene to numbers that is
    `np.savez("points20.npz", **lists)`.

    Args:
        path: An `.npz` of one integer array a scene; or a folder of `<scene>.txt`, a number a line.

    Returns:
        Scene -> its points' numbers, [P] int64, counted from 0 as in the scan.

    Raises:
        DataError: The file is missing or damaged, or holds something else than such numbers.

    Example:
        >>> read_point_lists("no/points20.npz")
        Traceback (most recent call last):
        ...
        haskd_jax.data.errors.DataError: no/points20.npz: missing
    """
    path = Path(path)
    if not path.exists():
        raise DataError(path, "missing")
    if path.is_dir():
        lists = {file.stem: _numbers(file) for file in sorted(path.glob("*.txt"))}
    else:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                lists = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, TypeError, BadZipFile) as error:
            raise DataError(path, f"not an .npz of integer arrays ({error})") from error
    if not lists:
        raise DataError(path, "holds no list")
    for name, numbers in lists.items():
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise DataError(
                path, f"{name}: {numbers.dtype} of shape {numbers.shape}, expected whole numbers"
            )
        if len(numbers) and numbers.min() < 0:
            raise DataError(path, f"{name}: {numbers.min()} is no point's number")
    return {name: numbers.astype(np.int64) for name, numbers in lists.items()}


def _numbers(file: Path) -> Array:
    lines = [line for line in _lines(file) if line.strip()]
    try:
        return np.array([int(line) for line in lines], np.int64)
    except ValueError as error:
        raise DataError(file, f"not one whole number a line ({error})") from error


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(file, "missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(file, f"not readable as text ({error})") from error
