"""Fragments: every point of a scene, exactly once a motion where nothing is cut."""

import numpy as np
import pytest

from haskd_jax.data import Scene
from haskd_jax.data.fragments import crops, fragments, motions, padded, rung
from haskd_jax.data.scene import Frames
from haskd_jax.data.transforms_crop import count_levels

SIZE = 0.1


def make_scene(seed=0, count=600, frames=0):
    rng = np.random.default_rng(seed)
    points = (rng.uniform(-1, 1, (count, 3)) * [1.5, 1.0, 0.3] + [5, -3, 1]).astype(np.float32)
    normals = rng.normal(size=(count, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    poses = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    poses[:, :3, 3] = [5, -3, -2]
    intrinsics = np.array([[6, 0, 3.5], [0, 6, 2.5], [0, 0, 1]], np.float32)
    posed = Frames(
        names=tuple(str(i) for i in range(frames)),
        colour=rng.integers(0, 256, (frames, 6, 8, 3)).astype(np.uint8),
        depth=np.full((frames, 6, 8), 3000, np.uint16),
        intrinsics=np.tile(intrinsics, (frames, 1, 1)),
        camera_to_world=poses,
    )
    return Scene(
        name="room",
        points=points,
        colour=rng.integers(0, 256, (count, 3)).astype(np.uint8),
        normals=normals,
        label=rng.integers(-1, 4, count).astype(np.int32),
        frames=posed,
    )


def centred(points):
    points = points.astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    return points - [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]


def test_every_point_takes_the_row_of_its_voxel():
    scene = make_scene()
    [fragment] = fragments(scene, voxel_size=SIZE, levels=2)
    batch, row = fragment.batch, fragment.row
    # An oracle in float64; points within rounding of a border may fall on either side of it.
    exact = centred(scene.points) / SIZE
    clear = (np.abs(exact - np.rint(exact)) > 1e-4).all(axis=1)
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(batch.coords[row][clear, 1:], np.floor(exact[clear]))
    # Valid rows are distinct, ordered, used, and all there is.
    coords = batch.coords[batch.mask]
    np.testing.assert_array_equal(coords, np.unique(coords, axis=0))
    np.testing.assert_array_equal(np.unique(row), np.arange(len(coords)))
    assert fragment.capacity[0] == len(batch.coords)
    assert (count_levels(coords[:, 1:], 2) <= fragment.capacity).all()


def test_the_nearest_to_the_centre_speaks_for_a_voxel():
    scene = make_scene()
    [fragment] = fragments(scene, voxel_size=SIZE, levels=0)
    points = centred(scene.points)
    middle = (np.floor(points / SIZE) + 0.5) * SIZE
    distance = np.linalg.norm(points - middle, axis=1)
    for voxel in range(0, int(fragment.batch.mask.sum()), 17):
        members = np.flatnonzero(fragment.row == voxel)
        best = members[np.argmin(distance[members])]
        np.testing.assert_allclose(fragment.batch.points[voxel], points[best], atol=1e-5)
        np.testing.assert_array_equal(fragment.batch.features[voxel, 3:], scene.normals[best])
        assert fragment.batch.label[voxel] == scene.label[best]


def test_the_order_of_points_does_not_matter():
    scene = make_scene()
    order = np.random.default_rng(1).permutation(len(scene.points))
    turned = Scene(
        "room", scene.points[order], scene.colour[order], scene.normals[order], scene.label[order]
    )
    [one] = fragments(scene, voxel_size=SIZE, levels=1)
    [other] = fragments(turned, voxel_size=SIZE, levels=1)
    for before, after in zip(one.batch, other.batch, strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(one.row[order], other.row)


def test_crops_cover_every_voxel_and_are_of_one_size():
    scene = make_scene(count=3000)
    [whole] = fragments(scene, voxel_size=SIZE, levels=1)
    count = int(whole.batch.mask.sum())
    most = count // 3
    cut = list(fragments(scene, voxel_size=SIZE, levels=1, most=most))
    assert {int(part.batch.mask.sum()) for part in cut} == {most}
    assert len(cut) == -(-count // (most // 2))
    assert len({part.capacity for part in cut}) == 1
    times = sum((part.row >= 0).astype(int) for part in cut)
    assert times.min() >= 1 and times.max() > 1  # they overlap
    for part in cut:
        held = part.row >= 0
        # In whichever crop, a point's row is its own voxel with the very same features.
        for name in ("coords", "features", "points"):
            np.testing.assert_array_equal(
                getattr(part.batch, name)[part.row[held]],
                getattr(whole.batch, name)[whole.row[held]],
            )


@pytest.mark.parametrize("count", [7, 8, 100])
def test_crops_hold_their_core_and_its_nearest(count):
    voxels = np.unique(np.random.default_rng(count).integers(-9, 9, (count, 3)), axis=0)
    found = list(crops(voxels, 6))
    assert {index for crop in found for index in crop.tolist()} == set(range(len(voxels)))
    assert all(len(crop) == 6 and (np.diff(crop) > 0).all() for crop in found)


def test_crops_of_voxels_that_lie_in_one_plane():
    flat = np.stack(np.meshgrid([3], np.arange(5), np.arange(5), indexing="ij"), -1).reshape(-1, 3)
    found = list(crops(flat, 10))
    assert set(np.concatenate(found).tolist()) == set(range(25))


@pytest.mark.parametrize("tta", [10, 13])
def test_motions_move_points_normals_and_cameras_together(tta):
    scene = make_scene(frames=2)
    seen = list(
        fragments(
            scene, voxel_size=SIZE, levels=0, tta=tta, views=2,
            chosen_frames=[1], image_size=(6, 8),
        )
    )  # fmt: skip
    assert len(seen) == tta
    first = next(fragments(scene, voxel_size=SIZE, levels=0))
    for fragment, linear in zip(seen, motions(tta), strict=True):
        size = abs(np.linalg.det(linear)) ** (1 / 3)
        batch = fragment.batch
        assert (fragment.row >= 0).all()
        assert batch.frame_part.tolist() == [0, -1]
        # The camera keeps its distance to the scene, and looks along the moved axis.
        camera = batch.camera_to_world[0]
        np.testing.assert_allclose(camera[:3, :3].T @ camera[:3, :3], np.eye(3), atol=1e-5)
        np.testing.assert_allclose(camera[:3, 2], linear @ [0, 0, 1] / size, atol=1e-5)
        # A voxel's normal is turned as its point is.
        point = batch.points[fragment.row[0]] / size
        normal = batch.features[fragment.row[0], 3:]
        near = np.argmin(np.linalg.norm(centred(scene.points) @ (linear / size).T - point, axis=1))
        np.testing.assert_allclose(normal, linear @ scene.normals[near] / size, atol=1e-5)
    plain = [m for m, linear in enumerate(motions(tta)) if (linear == np.eye(3)).all()]
    assert len(plain) == 1
    np.testing.assert_array_equal(seen[plain[0]].batch.coords, first.batch.coords)


def test_no_motion_is_there_twice():
    for tta in (1, 10, 13):
        found = {tuple(np.round(linear, 6).ravel()) for linear in motions(tta)}
        assert len(found) == tta


def test_the_ladder_has_few_rungs():
    # One program serves all rooms from half to the whole of a size, where programs cost the most.
    small = {rung(n) for n in range(1, 16385)}
    assert small == {256, 512, 1024, 2048, 4096, 8192, 16384}
    rungs = {rung(n) for n in range(1, 300_000, 97)}
    assert len(rungs) < 30
    assert all(size % 256 == 0 for size in rungs)
    for count in (1, 256, 257, 5000, 250_000):
        ratio = 2 if count < 16384 else 1.32
        assert count <= rung(count) <= max(256, ratio * count + 256)
    rows = np.array([1000, 990, 900])  # sparse points: as many voxels when they are larger
    assert (rows <= padded(rows)).all()
    # The finest grid decides all: surfaces of as many voxels share a program.
    assert len({padded(np.array([n, n // 4, n // 16])) for n in range(4097, 8193, 64)}) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [({"tta": 3}, "tta: 3"), ({"most": 1}, "most: 1"), ({"voxel_size": 0.0}, "voxel_size")],
)
def test_bad_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        list(fragments(make_scene(), **{"voxel_size": SIZE, "levels": 1} | given))


def test_an_unknown_frame_is_named():
    with pytest.raises(ValueError, match=r"frames: room has 1 frames, none of number 4"):
        list(
            fragments(
                make_scene(frames=1), voxel_size=SIZE, levels=1, views=1,
                chosen_frames=[4], image_size=(6, 8),
            )
        )  # fmt: skip
