"""What the loader reads, opened once: a scene is a dozen memory maps, each with a header."""

from functools import lru_cache
from pathlib import Path

from jaxtyping import Float16

from haskd_jax.data.errors import DataError
from haskd_jax.data.prepared import load_scene
from haskd_jax.data.scene import Array, Scene
from haskd_jax.files import map_array

# Scenes of the training set of ScanNet, nearly; Linux allows a process 65,530 maps.
_KEPT = 1024


def open_scene(root: str | Path, name: str) -> Scene:
    """Opens a scene of a prepared root, or gives the one that is open, unless it changed since.

    Args:
        root: The prepared root.
        name: Of the scene.

    Returns:
        The scene, memory-mapped.

    Raises:
        DataError: As `load_scene`; or the folder holds a scene of another name.
    """
    folder = Path(root) / name
    scene = _scene(folder, _written(folder / "manifest.json"))
    if scene.name != name:
        raise DataError(folder, f"its manifest names it {scene.name!r}")
    return scene


def open_soft(folder: str | Path, scene: Scene) -> Float16[Array, "N C"]:
    """Opens what a teacher said of a scene's points, see `Loader.soft`.

    Args:
        folder: Of such files.
        scene: The scene.

    Returns:
        [N, C] float16, memory-mapped.

    Raises:
        DataError: Missing, damaged, or of another number of points.
    """
    path = Path(folder) / f"{scene.name}.npy"
    try:
        said = _array(path, _written(path))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(path, f"{error}: let the teacher predict the scenes anew") from None
    if len(said) != len(scene.points):
        what = f"shape {said.shape} for a scene of {len(scene.points)} points"
        raise DataError(path, what)
    return said


def _written(path: Path) -> int | None:
    """When a file was written; None where there is none, which opening it will say."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


@lru_cache(maxsize=_KEPT)
def _scene(folder: Path, written: int | None) -> Scene:
    return load_scene(folder)


@lru_cache(maxsize=4 * _KEPT)  # a teacher and some experts may have spoken of a scene
def _array(path: Path, written: int | None) -> Array:
    return map_array(path)
