"""Scenes are opened once, and anew where they were prepared anew."""

import os
import shutil

import numpy as np
import pytest

from haskd_jax.data import DataError
from haskd_jax.data.loader_scenes import open_scene, open_soft
from tests.data.rooms import write_root, write_scene


@pytest.fixture
def root(tmp_path):
    write_root(tmp_path)
    write_scene(tmp_path, "room", 0, 300, frames=1)
    np.save(tmp_path / "room.npy", np.zeros((300, 2), np.float16))
    return tmp_path


def later(path):
    """As if written a second after what was there: clocks of file systems are coarse."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def test_a_scene_is_opened_once(root):
    scene = open_scene(root, "room")
    assert open_scene(str(root), "room") is scene
    assert open_soft(root, scene) is open_soft(str(root), scene)


def test_a_scene_that_was_prepared_anew_is_read_anew(root):
    old = open_scene(root, "room")
    shutil.rmtree(root / "room")
    write_scene(root, "room", 1, 300, frames=1)
    later(root / "room" / "manifest.json")
    new = open_scene(root, "room")
    assert not np.array_equal(new.points, old.points)
    path = root / "room.npy"
    assert not open_soft(root, new).any()
    path.unlink()
    np.save(path, np.ones((300, 2), np.float16))
    later(path)
    assert open_soft(root, new).all()


def test_a_scene_that_went_away_is_missed(root):
    scene = open_scene(root, "room")
    open_soft(root, scene)
    shutil.rmtree(root / "room")
    (root / "room.npy").unlink()
    with pytest.raises(DataError, match=r"room/manifest\.json: missing"):
        open_scene(root, "room")
    with pytest.raises(DataError, match=r"room\.npy: .*predict the scenes anew"):
        open_soft(root, scene)
