"""Prepared scenes of the measured room, with frames, which tests of the loader share."""

from pathlib import Path

import numpy as np

from haskd_jax.data import Cloud, Frame
from haskd_jax.data.writer import SceneWriter
from haskd_jax.files import write_json
from tests.data import raw

SIZE = (16, 12)


def write_root(root: Path) -> None:
    """The description of a prepared root; scenes come with `write_scene`."""
    description = {"format": "haskd-dataset", "version": 1, "dataset": "own", "classes": ["a"] * 6}
    write_json(root / "dataset.json", description)


def write_scene(root: Path, name: str, seed: int, count: int, frames: int = 2, size=SIZE) -> None:
    """A scene of `count` points; the 2D labels of frame i are all i."""
    points, side = raw.room_cloud(count, seed)
    k = raw.intrinsics(size)
    with SceneWriter(root, name) as writer:
        for i, pose in enumerate(raw.walk(frames) if frames else ()):
            colour, depth = raw.render(pose, k, size)
            millimetres = np.rint(depth * 1000).astype(np.uint16)
            writer.add_frame(
                Frame(f"{i}", colour, millimetres, k, pose, np.full(depth.shape, i, np.int16))
            )
        normals = np.zeros((count, 3), np.float32)
        normals[:, 2] = 1
        colour = raw.paint(points.astype(np.float64))
        writer.add_cloud(Cloud(points, colour, normals, side.astype(np.int32)))
        writer.commit(dataset="own", split="train", options={})
