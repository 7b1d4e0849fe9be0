"""Real frames: a walk through an office with a HoloLens, see PROVENANCE.md beside the data."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from haskd_jax import views

VOXEL_SIZE = 0.05
IN_CODE = np.array([1 << 42, 1 << 21, 1])  # one integer a voxel, for np.unique


@pytest.fixture(scope="module")
def sequence():
    """Voxels [V, 3] in metres, images, and depth, intrinsics and poses."""
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("HASKD_DATA", root.parent / "shared" / "data"), "hololens-office")
    if not folder.is_dir():
        pytest.skip(f"the sequence is not in {folder}; set HASKD_DATA to the folder that holds it")
    lines = [line.split() for line in (folder / "subset.txt").read_text().splitlines()]
    names = [name for _, name in lines]
    poses = np.loadtxt(folder / "poses.txt").reshape(-1, 4, 4)[[int(line) for line, _ in lines]]
    matrix = np.loadtxt(folder / "K.txt")
    images = np.stack([np.asarray(Image.open(folder / "images" / name)) for name in names])
    depth = [np.asarray(Image.open(folder / "depth" / name)) / 1000 for name in names]

    row, column = np.indices(depth[0].shape)
    rays = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(matrix).T
    voxels = []
    for z, pose in zip(depth, poses, strict=True):
        points = (rays * z[..., None])[z > 0] @ pose[:3, :3].T + pose[:3, 3]
        cells = np.floor(points / VOXEL_SIZE).astype(np.int64) + (1 << 20)
        voxels.append(np.unique(cells @ IN_CODE))
    code = np.unique(np.concatenate(voxels))
    cells = np.stack([code >> 42, code >> 21 & (1 << 21) - 1, code & (1 << 21) - 1], axis=1)
    points = ((cells - (1 << 20) + 0.5) * VOXEL_SIZE).astype(np.float32)
    intrinsics = np.tile(matrix, (len(poses), 1, 1))
    cameras = np.stack(depth), intrinsics, poses
    return points, images, tuple(array.astype(np.float32) for array in cameras)


@pytest.fixture(scope="module")
def visible(sequence):
    points, _, cameras = sequence
    return np.asarray(views.visibility(points, *cameras, tolerance=VOXEL_SIZE))


def covered(visible, selection):
    return int(visible[np.asarray(selection.indices)].any(0).sum())


def test_the_scene_is_what_it_should_be(sequence, visible):
    points, images, _ = sequence
    assert images.shape == (63, 360, 540, 3)
    assert 50_000 < len(points) < 120_000
    # Voxels of edges and stray depths are confirmed by no pixel at their centre.
    assert visible.any(0).mean() > 0.65 and visible.any(1).all()


@pytest.mark.parametrize("num_views", [3, 5, 10])
def test_selected_views_cover_more_than_uniform_ones(sequence, visible, num_views):
    _, images, _ = sequence
    uniform = max(
        covered(visible, views.select_uniform(visible, num_views=num_views, placement=placement))
        for placement in ("ends", "centres")
    )
    plain = covered(visible, views.select_views(visible, num_views=num_views))
    quality = views.frame_quality(images)
    filtered = covered(visible, views.select_views(visible, num_views=num_views, quality=quality))
    assert plain >= 1.4 * uniform
    assert filtered >= 1.4 * uniform


def test_quality_shuns_motion_blur(sequence):
    _, images, _ = sequence
    quality = np.asarray(views.frame_quality(images))
    # Looked at: the camera swings past doors and sofa; it stands still before sideboard and table.
    blurred, sharp = [29, 31, 39, 58], [1, 12]
    assert quality[blurred].max() < 0.5 < 0.8 < quality[sharp].min()
