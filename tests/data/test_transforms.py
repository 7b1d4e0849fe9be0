"""Augmentation: what it promises of points, colours and frames, against plain computations."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from haskd_jax.data import DataError, Frames, Scene, scene
from haskd_jax.data import transforms as t
from haskd_jax.data.alignment import check_alignment
from haskd_jax.data.cameras import look_up, project
from haskd_jax.data.transforms_crop import count_levels, voxel_keys, voxels_of
from haskd_jax.data.transforms_geometry import rotation
from haskd_jax.data.transforms_mixing import centre_by_voxels
from tests.data import raw

SIZE = (80, 60)


def a_scene(count=3000, frames=3, seed=0, name="room"):
    """A room whose points have the colour of the pixels that see them."""
    points, side = raw.room_cloud(count, seed)
    normals = np.zeros((count, 3), np.float32)
    normals[np.arange(count), side // 2] = np.where(side % 2, -1, 1)
    poses = raw.walk(frames)
    k = raw.intrinsics(SIZE)
    k[0, 2] = 31.3  # off the middle: a mirrored image must notice
    images, depths = zip(*(raw.render(pose, k, SIZE) for pose in poses), strict=True)
    return Scene(
        name=name,
        points=points,
        colour=raw.paint(points.astype(np.float64)),
        normals=normals,
        label=side.astype(np.int32) - 1,
        instance=side.astype(np.int32) - 1,
        frames=Frames(
            names=tuple(map(str, range(frames))),
            colour=np.stack(images),
            depth=np.rint(np.stack(depths) * 1000).astype(np.uint16),
            intrinsics=np.tile(k.astype(np.float32), (frames, 1, 1)),
            camera_to_world=poses.astype(np.float32),
            label=np.tile(np.arange(SIZE[0] * SIZE[1], dtype=np.int16) % 23, (frames, 1)).reshape(
                frames, *SIZE[::-1]
            ),
        ),
    )


def a_sample(**options):
    return t.sample_of(a_scene(**options))


def all_of(sample):
    arrays = (sample.points, sample.colour, sample.normals, sample.label, sample.surface)
    frames = sample.frames
    return (*arrays, frames.colour, frames.depth, frames.intrinsics, frames.camera_to_world)


def seen(sample):
    """Of every frame and point: whether the frame sees it, the colour and the label found there."""
    found = []
    frames = sample.frames
    for f in range(len(frames)):
        column, row, z = project(
            sample.surface.astype(np.float64), frames.intrinsics[f], frames.camera_to_world[f]
        )
        depth, inside = look_up(frames.depth[f], column, row)
        # Not where two pixels are equally near: rounding would decide.
        clear = (np.abs(column % 1 - 0.5) > 0.01) & (np.abs(row % 1 - 0.5) > 0.01)
        near = inside & clear & (np.abs(z - depth / 1000) < 0.1)
        colour, _ = look_up(frames.colour[f], column, row)
        label, _ = look_up(frames.label[f], column, row)
        found.append((near, colour, label))
    return found


MOTIONS = {
    "centre": t.centre_shift,
    "z": partial(t.rotate, probability=1.0),
    "x": partial(t.rotate, axis="x", largest=np.pi / 64, probability=1.0),
    "scale": t.scale,
    "flip": partial(t.flip, probability=1.0),
    "one flip": lambda sample, rng: t.move(sample, np.diag([1.0, -1, 1]), np.array([0.3, -2, 1])),
    "jitter": t.jitter,
    "elastic": partial(t.elastic, probability=1.0),
}


@pytest.mark.parametrize("name", MOTIONS)
def test_frames_see_after_a_motion_what_they_saw_before(name):
    before = a_sample()
    after = MOTIONS[name](before, np.random.default_rng(3))
    assert np.abs(after.points - before.points).max() > 1e-3
    for pose in after.frames.camera_to_world:
        assert scene.pose_fault(pose) is None
    for (near, colour, label), (near2, colour2, label2) in zip(
        seen(before), seen(after), strict=True
    ):
        both = near & near2
        assert both.sum() > 0.97 * near.sum() > 150
        np.testing.assert_array_equal(colour[both], colour2[both])
        np.testing.assert_array_equal(label[both], label2[both])


def test_the_whole_recipe_keeps_frames_aligned():
    cloud = a_scene(20_000)
    for seed in range(4):
        done = t.augment(t.sample_of(cloud), t.SPUNET_SCANNET, np.random.default_rng(seed))
        on_surface = replace(done, points=done.surface)
        found = check_alignment(on_surface)
        assert found.depth_agreement > 0.95 and found.colour_correlation > 0.9
        assert np.abs(done.points - done.surface).max() > 0.005


def test_cameras_follow_the_surface_of_a_bent_cloud():
    before = a_sample()
    bent = t.elastic(before, np.random.default_rng(0), probability=1.0)
    matrix = 1.2 * np.diag([1.0, -1, 1]) @ rotation("z", 0.7)
    after = t.move(bent, matrix, np.array([1.0, 2, 3]))
    for name in ("points", "surface"):
        expected = getattr(bent, name).astype(np.float64) @ matrix.T + [1, 2, 3]
        np.testing.assert_allclose(getattr(after, name), expected, atol=1e-5)
    for (near, colour, _), (near2, colour2, _) in zip(seen(before), seen(after), strict=True):
        both = near & near2
        assert both.sum() > 0.97 * near.sum() > 150
        np.testing.assert_array_equal(colour[both], colour2[both])


def test_a_reflected_camera_by_hand():
    """Column 10 of 80 in a mirrored world is column 69 of the mirrored image."""
    sample = a_sample(frames=1)
    k, pose = sample.frames.intrinsics[0], sample.frames.camera_to_world[0]
    after = t.move(sample, np.diag([-1.0, 1, 1]), np.zeros(3))
    point = pose[:3, :3] @ [-0.4, 0.1, 1.0] + pose[:3, 3]
    column, row, z = project(point[None], k, pose)
    mirrored = point * [-1, 1, 1]
    column2, row2, z2 = project(
        mirrored[None], after.frames.intrinsics[0], after.frames.camera_to_world[0]
    )
    np.testing.assert_allclose(column2, SIZE[0] - 1 - column, atol=1e-3)
    np.testing.assert_allclose([row2, z2], [row, z], atol=1e-3)
    np.testing.assert_array_equal(after.frames.colour[0], sample.frames.colour[0][:, ::-1])


def test_skew_is_mirrored_with_the_image():
    sample = a_sample(frames=1)
    k = sample.frames.intrinsics.copy()
    k[:, 0, 1] = 7
    sample = replace(sample, frames=replace(sample.frames, intrinsics=k))
    after = t.move(sample, np.diag([1.0, 1, -1]), np.zeros(3))
    k2 = after.frames.intrinsics[0]
    x, y = 0.2, -0.3  # of a viewing ray; mirrored it has -x
    column = k[0, 0, 0] * x + k[0, 0, 1] * y + k[0, 0, 2]
    np.testing.assert_allclose(k2[0, 0] * -x + k2[0, 1] * y + k2[0, 2], SIZE[0] - 1 - column)


def test_normals_stay_normal_to_the_walls():
    rng = np.random.default_rng(5)
    sample = t.flip(t.rotate(t.scale(a_sample(), rng), rng, probability=1.0), rng, probability=1.0)
    np.testing.assert_allclose(np.linalg.norm(sample.normals, axis=1), 1, atol=1e-5)
    for side in range(6):
        on = sample.label == side - 1
        heights = np.einsum("ni,ni->n", sample.points[on], sample.normals[on])
        assert np.ptp(heights) < 1e-4


def test_scaling_scales_depth_to_the_millimetre_and_forgets_what_does_not_fit():
    sample = a_sample()
    depth = sample.frames.depth.copy()
    depth[0, 0, :2] = 0, 60_000
    sample = replace(sample, frames=replace(sample.frames, depth=depth))
    scaled = t.scale(sample, np.random.default_rng(0), low=1.1, high=1.1).frames.depth
    assert scaled[0, 0, :2].tolist() == [0, 0]
    np.testing.assert_allclose(scaled[1], depth[1] * 1.1, atol=0.51)


def test_a_shear_is_refused():
    with pytest.raises(ValueError, match=r"linear: .*cameras cannot follow"):
        t.move(a_sample(), np.array([[1, 0.1, 0], [0, 1, 0], [0, 0, 1]]), np.zeros(3))
    with pytest.raises(ValueError, match="linear"):
        t.move(a_sample(), np.zeros((3, 3)), np.zeros(3))


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_rotation_is_right_handed(axis):
    u = np.eye(3)["xyz".index(axis)]
    v = np.roll(u, 1)
    np.testing.assert_allclose(rotation(axis, np.pi / 2) @ v, np.cross(u, v), atol=1e-12)
    np.testing.assert_allclose(rotation(axis, 0.3) @ u, u, atol=1e-12)


def test_jitter_has_the_spread_and_the_bound_it_says():
    sample = a_sample(count=50_000, frames=1)
    moved = t.jitter(sample, np.random.default_rng(0)).points.astype(float) - sample.points
    assert abs(moved.std() / 0.005 - 1) < 0.02
    assert np.abs(moved).max() <= 0.0201
    wide = t.jitter(sample, np.random.default_rng(0), sigma=1.0, clip=0.02).points - sample.points
    assert 0.0195 < np.abs(wide).max() <= 0.0201


def test_elastic_against_plain_interpolation_of_smoothed_noise():
    sample = a_sample(count=300, frames=1)
    rng = np.random.default_rng(7)
    bent = t.elastic(sample, rng, waves=((0.4, 0.8),), probability=1.0)
    rng = np.random.default_rng(7)
    rng.random()
    low = sample.points.min(axis=0)
    at = ((sample.points - low) / np.float32(0.4) + 1).astype(np.float64)
    noise = rng.standard_normal((*(int(n) + 3 for n in at.max(axis=0)), 3), np.float32)
    noise = noise.astype(np.float64)
    for axis in (0, 1, 2) * 2:
        pad = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        padded = np.pad(noise, pad)
        n = noise.shape[axis]
        noise = sum(padded.take(np.arange(n) + i, axis=axis) for i in range(3)) / 3
    expected = np.zeros_like(at)
    for i, (x, y, z) in enumerate(at):
        for dx in (0, 1):
            for dy in (0, 1):
                for dz in (0, 1):
                    corner = int(x) + dx, int(y) + dy, int(z) + dz
                    weight = np.prod(1 - np.abs(np.array([x, y, z]) - corner))
                    expected[i] += weight * noise[corner]
    np.testing.assert_allclose(bent.points, sample.points + 0.8 * expected, atol=2e-6)
    np.testing.assert_array_equal(bent.surface, sample.points)


def test_elastic_is_smooth_and_refuses_what_would_fill_the_memory():
    sample = a_sample(frames=1)
    shifted = replace(sample, points=sample.points + np.float32(1e-3))
    one, other = (
        t.elastic(s, np.random.default_rng(0), probability=1.0) for s in (sample, shifted)
    )
    assert np.abs(one.points - sample.points).max() > 0.05
    np.testing.assert_allclose(other.points - one.points, 1e-3, atol=1e-5)
    stray = sample.points.copy()
    stray[0] = 4000
    with pytest.raises(ValueError, match=r"room measures \[4000.* too large for elastic noise"):
        t.elastic(replace(sample, points=stray), np.random.default_rng(0), probability=1.0)


def test_colours():
    rng = np.random.default_rng(0)
    sample = a_sample(count=20_000, frames=1)
    grey = replace(sample, colour=np.full_like(sample.colour, 128))
    noise = t.colour_jitter(grey, rng, probability=1.0).colour.astype(float) - 128
    assert abs(noise.std() / (255 * 0.05) - 1) < 0.02
    shifts = np.array(
        [t.colour_translation(grey, rng, probability=1.0).colour[0] for _ in range(99)]
    )
    assert 10 < np.abs(shifts - 128.0).max() <= 13  # 5 % of 255
    assert len(np.unique(shifts, axis=0)) > 90
    white = t.colour_translation(replace(grey, colour=grey.colour * 0 + 255), rng, probability=1.0)
    assert white.colour.min() > 240  # clipped, not wrapped round
    dull = replace(sample, colour=(100 + sample.colour // 5).astype(np.uint8))
    sharp = t.auto_contrast(dull, rng, probability=1.0, blend=0.5).colour.astype(float)
    low, high = dull.colour.min(axis=0).astype(float), dull.colour.max(axis=0).astype(float)
    np.testing.assert_allclose(
        sharp, (dull.colour + (dull.colour - low) * 255 / (high - low)) / 2, atol=0.51
    )


def test_dropout_keeps_rows_together():
    sample = a_sample()
    less = t.dropout(sample, np.random.default_rng(0), share=0.3, probability=1.0)
    assert len(less.points) == 2100
    where = {tuple(point): i for i, point in enumerate(sample.points.tolist())}
    rows = [where[tuple(point)] for point in less.points.tolist()]
    assert rows == sorted(rows)
    for name in ("colour", "normals", "label", "instance", "surface", "part"):
        np.testing.assert_array_equal(getattr(less, name), getattr(sample, name)[rows])


def test_grid_sample_keeps_one_point_of_every_voxel_and_prefers_labelled_ones():
    sample = a_sample(frames=1)
    label = np.where(np.random.default_rng(1).random(3000) < 0.1, sample.label, -1).astype(np.int32)
    sample = replace(sample, label=label)
    kept = t.grid_sample(sample, np.random.default_rng(0), voxel_size=0.3)
    expected = {}
    for voxel, one in zip(np.floor(sample.points / np.float32(0.3)).tolist(), label, strict=True):
        expected[tuple(voxel)] = max(expected.get(tuple(voxel), -1), one >= 0)
    assert [tuple(v) for v in kept.voxels.tolist()] == sorted(expected)
    assert 0 < sum(expected.values()) < len(expected) < 2000
    for voxel, point, one in zip(kept.voxels.tolist(), kept.points, kept.label, strict=True):
        assert np.floor(point / np.float32(0.3)).tolist() == voxel
        assert (one >= 0) == expected[tuple(voxel)]


def test_grid_sample_chooses_evenly():
    points = np.full((4, 3), 0.01, np.float32)
    colour = np.arange(4, dtype=np.uint8).repeat(3).reshape(4, 3)
    sample = t.sample_of(Scene("dot", points, colour, points))
    rng = np.random.default_rng(0)
    drawn = [t.grid_sample(sample, rng).colour[0, 0] for _ in range(800)]
    assert np.abs(np.bincount(drawn) - 200).max() < 62  # five standard deviations


def test_far_apart_voxels_are_still_told_apart():
    points = np.array([[0, 0, 0], [8000, 8000, 8000], [0, 0, 0.02], [0, 0, 0]], np.float32)
    sample = t.sample_of(Scene("far", points, np.zeros((4, 3), np.uint8), points))
    kept = t.grid_sample(sample, np.random.default_rng(0), voxel_size=0.01)
    assert len(kept.points) == 3
    with pytest.raises(ValueError, match="too small for points up to 8000"):
        t.grid_sample(sample, np.random.default_rng(0), voxel_size=1e-6)
    with pytest.raises(ValueError, match="span"):
        voxel_keys(np.array([[0, 0, 0], [2**22, 2**22, 2**22]]))


def test_count_levels_against_sets():
    voxels = np.unique(np.random.default_rng(0).integers(-40, 40, (3000, 3)), axis=0)
    expected = [len({tuple(v) for v in (voxels // 2**i).tolist()}) for i in range(5)]
    assert count_levels(voxels, 4).tolist() == expected


def test_sphere_crop_keeps_the_nearest():
    sample = a_sample(frames=1)
    rng = np.random.default_rng(4)
    cropped = t.sphere_crop(sample, rng, most=500)
    centre = sample.points[np.random.default_rng(4).integers(3000)]
    far = np.linalg.norm(sample.points - centre, axis=1)
    kept = np.linalg.norm(cropped.points - centre, axis=1)
    assert len(kept) == 500 and abs(kept.max() - np.sort(far)[499]) < 1e-6
    assert t.sphere_crop(sample, rng, most=3000) is sample
    assert len(t.sphere_crop(sample, rng, most=2000, share=0.6).points) == 1800


def on_grid(part, seed=0, **options):
    sample = t.sample_of(a_scene(seed=seed, name=f"room{part}", **options), part=part)
    return t.augment(sample, t.plain(0.1), np.random.default_rng(seed))


def test_mixing_puts_both_scenes_in_one_place_and_keeps_their_frames_apart():
    one, other = on_grid(0), on_grid(1, seed=1)
    other = t.sphere_crop(other, np.random.default_rng(0), most=1500)
    both = t.mix3d(one, other, np.random.default_rng(2))
    assert both.name == "room0+room1"
    a, b = centre_by_voxels(one), centre_by_voxels(other)
    middle = b.voxels.min(axis=0) + b.voxels.max(axis=0) + 1
    assert (np.abs(middle[:2]) <= 1).all() and b.voxels[:, 2].min() == other.voxels[:, 2].min()
    union = {tuple(v) for v in [*a.voxels.tolist(), *b.voxels.tolist()]}
    assert [tuple(v) for v in both.voxels.tolist()] == sorted(union)
    assert both.frame_part.tolist() == [0, 0, 0, 1, 1, 1]
    assert 200 < (both.part == 1).sum() < len(union) - 200
    ours = set(both.instance[both.part == 0]) - {-1}
    theirs = set(both.instance[both.part == 1]) - {-1}
    assert not ours & theirs
    for f, (near, colour, _) in enumerate(seen(both)):
        mine = near & (both.part == both.frame_part[f])
        assert mine.sum() > 20
        error = np.abs(both.colour[mine].astype(int) - colour[mine])
        assert error.mean() < 8  # a pixel is 2 cm wide and more


def test_mixing_a_scene_without_labels_or_frames():
    one, other = on_grid(0), on_grid(1, seed=1)
    bare = replace(
        other, label=None, instance=None, frames=scene.no_frames(), frame_part=np.zeros(0, np.int32)
    )
    both = t.mix3d(one, bare, np.random.default_rng(2))
    assert (both.label[both.part == 1] == -1).all() and (both.instance[both.part == 1] == -1).all()
    assert (both.label[both.part == 0] >= 0).any() and len(both.frames) == 3
    assert t.mix3d(bare, bare, np.random.default_rng(0)).label is None
    small = replace(
        one.frames,
        colour=one.frames.colour[:, ::2],
        depth=one.frames.depth[:, ::2],
        label=one.frames.label[:, ::2],
    )
    with pytest.raises(ValueError, match=r"room0 has \(60, 80\) pixels, room1 \(30, 80\)"):
        t.mix3d(one, replace(other, frames=small), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"room0 has voxels of 0.1 m, room1 of 0.2 m"):
        t.mix3d(one, replace(other, voxel_size=0.2), np.random.default_rng(0))


@pytest.mark.parametrize("recipe", [t.SPUNET_SCANNET, t.SPUNET_S3DIS, t.PTV3_SCANNET, t.PTV3_S3DIS])
def test_recipes_are_pure(recipe):
    sample = a_sample()
    before = [array.copy() for array in all_of(sample)]
    one, same, other = (
        t.augment(sample, recipe, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    for a, b in zip(all_of(one), all_of(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.points.shape != other.points.shape or (one.points != other.points).any()
    for a, b in zip(all_of(sample), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_recipes_have_the_published_parameters():
    assert t.SPUNET_SCANNET.describe() == [
        "centre_shift", "dropout", "rotate",
        f"rotate(axis='x', largest={np.pi / 64!r})", f"rotate(axis='y', largest={np.pi / 64!r})",
        "scale", "flip", "jitter", "elastic", "auto_contrast", "colour_translation",
        "colour_jitter", "grid_sample(voxel_size=0.02)", "sphere_crop", "mix3d(probability=0.8)",
    ]  # fmt: skip
    defaults = {
        t.dropout: {"share": 0.2, "probability": 0.2},
        t.rotate: {"axis": "z", "largest": np.pi, "probability": 0.5},
        t.scale: {"low": 0.9, "high": 1.1},
        t.flip: {"probability": 0.5},
        t.jitter: {"sigma": 0.005, "clip": 0.02},
        t.elastic: {"waves": ((0.2, 0.4), (0.8, 1.6)), "probability": 0.95},
        t.auto_contrast: {"probability": 0.2, "blend": None},
        t.colour_translation: {"probability": 0.95, "ratio": 0.05},
        t.colour_jitter: {"probability": 0.95, "std": 0.05},
        t.sphere_crop: {"most": 100_000, "share": 1.0},
    }
    for function, expected in defaults.items():
        function = getattr(function, "__wrapped__", function)
        assert function.__kwdefaults__ == expected
    assert "sphere_crop(most=102400)" in t.PTV3_SCANNET.describe()
    assert "elastic" not in t.PTV3_S3DIS.describe()
    assert "sphere_crop(most=None, share=0.6)" in t.PTV3_S3DIS.describe()


def test_spread_views_takes_one_of_every_stretch():
    rng = np.random.default_rng(0)
    for _ in range(50):
        chosen = t.spread_views(30, 3, rng)
        assert (chosen // 10).tolist() == [0, 1, 2]
    assert t.spread_views(5, 0).tolist() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, r: t.rotate(s, r, axis="w", probability=1.0), "axis: 'w'"),
        (lambda s, r: t.rotate(s, r, probability=1.5), "probability: 1.5"),
        (lambda s, r: t.scale(s, r, low=0.0), "low: 0.0"),
        (lambda s, r: t.jitter(s, r, clip=0.0), "clip 0.0"),
        (
            lambda s, r: t.elastic(s, r, waves=((0.0, 1.0),), probability=1.0),
            "waves: a cell of 0.0",
        ),
        (lambda s, r: t.dropout(s, r, share=1.0), "share: 1.0"),
        (lambda s, r: t.grid_sample(s, r, voxel_size=0.0), "voxel_size: 0.0"),
        (lambda s, r: t.sphere_crop(s, r, most=0), "most: 0"),
        (lambda s, r: t.sphere_crop(s, r, share=0.0), "share: 0.0"),
        (lambda s, r: t.auto_contrast(s, r, blend=2.0), "blend: 2.0"),
        (lambda s, r: t.colour_jitter(s, r, std=-1.0), "std: -1.0"),
        (lambda s, r: t.jitter(t.grid_sample(s, r), r), "room is on its voxel grid already"),
        (lambda s, r: t.sample_of(s, frames=[7]), "room has 3 frames, none of number 7"),
        (lambda s, r: centre_by_voxels(s), "room has no voxels"),
        (lambda s, r: t.Recipe(mix=2.0), "mix: 2.0"),
        (lambda s, r: t.spread_views(3, -1), "num_views: -1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(a_sample(count=200), np.random.default_rng(0))


def test_errors_in_a_recipe_name_the_scene():
    def broken(sample, rng):
        raise DataError("points.npy", "gone")

    with pytest.raises(ValueError, match="scene room: most: 0"):
        t.augment(
            a_sample(), t.Recipe(after=(partial(t.sphere_crop, most=0),)), np.random.default_rng(0)
        )
    with pytest.raises(DataError, match=r"^points.npy: gone"):
        t.augment(a_sample(), t.Recipe(before=(broken,)), np.random.default_rng(0))
    with pytest.raises(ValueError, match="empty has no points"):
        none = np.zeros((0, 3), np.float32)
        t.sample_of(Scene("empty", none, np.zeros((0, 3), np.uint8), none))


def test_voxels_of_negative_points():
    assert voxels_of(np.array([[-0.001, 0.0, 0.0399]]), 0.02).tolist() == [[-1, 0, 1]]
