"""Real scans where they lie: in HASKD_DATA, else in `shared/data` beside the checkout."""

import os
from pathlib import Path

import numpy as np
import pytest

from haskd_jax.data import load_scene
from haskd_jax.data.alignment import check_alignment
from haskd_jax.data.own import OwnScans
from haskd_jax.data.prepare import prepare
from haskd_jax.data.scannet_labels import NYU40, split_scenes

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("HASKD_DATA", ROOT.parent / "shared" / "data"))


def real(name):
    """A folder of the real data, or a skip that says where it was looked for."""
    if not (DATA / name).exists():
        pytest.skip(f"no {DATA / name}; set HASKD_DATA to the folder that holds {name}")
    return DATA / name


def test_a_posed_rgbd_sequence_is_fused(tmp_path):
    source = OwnScans(real("hololens-office"), frame_size=(270, 180))
    (result,) = prepare(source, tmp_path).results
    assert result.status == "done", result.reason
    scene = load_scene(tmp_path / "hololens-office")
    assert len(scene.frames) == 63
    assert 60_000 < len(scene.points) < 300_000
    found = check_alignment(scene)
    assert found.verdict == "good"
    assert found.depth_agreement > 0.9
    # World y is vertical: most of what is level is the floor and the desks, seen from above.
    level = np.abs(scene.normals[:, 1]) > 0.95
    assert level.mean() > 0.2
    assert (scene.normals[level, 1] > 0).mean() > 0.9


def test_inverted_poses_of_a_real_sequence_are_noticed(tmp_path):
    (tmp_path / "room").mkdir()
    folder = real("hololens-office")
    for name in ("images", "depth", "K.txt", "subset.txt"):
        (tmp_path / "room" / name).symlink_to(folder / name)
    poses = np.loadtxt(folder / "poses.txt").reshape(-1, 4, 4)
    np.savetxt(tmp_path / "room" / "poses.txt", np.linalg.inv(poses).reshape(-1, 16))
    source = OwnScans(tmp_path / "room", frame_size=(135, 90), frame_stride=3)
    (result,) = prepare(source, tmp_path / "out").results
    if result.status == "done":
        assert check_alignment(load_scene(tmp_path / "out" / "room")).verdict != "good"
    else:
        assert "no pixel's depth was confirmed" in result.reason


def test_a_fragment_in_pcd(tmp_path):
    path = real("open3d-fragment") / "fragment.pcd"
    assert not prepare(OwnScans(path), tmp_path).failed
    scene = load_scene(tmp_path / "fragment")
    assert scene.points.shape == (113_662, 3)
    assert scene.manifest["estimated"] == []
    np.testing.assert_allclose(np.linalg.norm(scene.normals, axis=1), 1, atol=1e-3)
    assert scene.colour.std(axis=0).min() > 10


def test_shipped_lists_are_the_official_ones():
    folder = real("scannet-meta")
    splits = split_scenes(Path("nowhere"))
    for split in ("train", "val", "test"):
        official = (folder / f"scannetv2_{split}.txt").read_text().split()
        assert [name for name, part in splits.items() if part == split] == official
    lines = (folder / "classes_SemVoxLabel-nyu40id.txt").read_text().splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    official = {name.strip(): int(number) for number, name in pairs}
    official["refrigerator"] = official.pop("refridgerator")
    assert official == NYU40
