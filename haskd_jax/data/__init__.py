"""Scenes on disk and in memory: readers, the prepared form, and its inspection. NumPy only."""

from haskd_jax.data.errors import DataError
from haskd_jax.data.prepared import list_scenes, load_scene, read_dataset
from haskd_jax.data.scene import Cloud, Frame, Frames, Scene

__all__ = [
    "Cloud",
    "DataError",
    "Frame",
    "Frames",
    "Scene",
    "list_scenes",
    "load_scene",
    "read_dataset",
]
