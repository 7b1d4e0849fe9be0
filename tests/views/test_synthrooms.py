"""Rooms as they are scanned: a walk with pauses and detours, blur, and noisy depth."""

import functools

import numpy as np
import pytest

from haskd_jax import views
from haskd_jax.data.synthrooms import Options, generate_scene

VOXEL_SIZE = 0.05
CAPACITY = 1 << 15  # of voxels, one compilation for all rooms
OPTIONS = Options(width=96, height=72, voxel_size=VOXEL_SIZE)
ROOMS = range(4)


@functools.cache
def room(seed):
    """[F, V] visible, [F] quality, and the mask of voxels."""
    scan = generate_scene(seed, options=OPTIONS)
    cells = np.unique(np.floor(scan.points / VOXEL_SIZE), axis=0)
    points = np.zeros((CAPACITY, 3), np.float32)
    points[: len(cells)] = (cells + 0.5) * VOXEL_SIZE
    mask = np.arange(CAPACITY) < len(cells)
    frames = len(scan.frame_depth)
    visible = views.visibility(
        points,
        scan.frame_depth / 1000,
        np.tile(scan.intrinsics, (frames, 1, 1)),
        scan.camera_to_world,
        tolerance=VOXEL_SIZE,
        mask=mask,
    )
    return visible, views.frame_quality(scan.frame_colour), mask


@pytest.mark.parametrize("num_views", [3, 5])
@pytest.mark.parametrize("seed", ROOMS)
def test_selected_views_cover_more_than_uniform_ones(seed, num_views):
    visible, quality, mask = room(seed)

    def covered(selection):
        return float(views.coverage(visible, selection.indices, where=mask))

    uniform = max(
        covered(views.select_uniform(visible, num_views=num_views, placement=placement))
        for placement in ("ends", "centres")
    )
    filtered = covered(views.select_views(visible, num_views=num_views, quality=quality))
    plain = covered(views.select_views(visible, num_views=num_views))
    assert uniform < filtered < 1
    assert uniform < plain < 1


def test_selected_views_are_of_better_quality_than_uniform_ones():
    filtered, uniform = [], []
    for visible, quality, _ in map(room, ROOMS):
        chosen = views.select_views(visible, num_views=5, quality=quality)
        filtered.append(np.mean(quality[chosen.indices]))
        uniform.append(np.mean(quality[views.select_uniform(visible, num_views=5).indices]))
    assert np.mean(filtered) > 1.1 * np.mean(uniform)
