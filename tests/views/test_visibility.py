import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import views

from . import oracle

INTRINSICS = jnp.array([[[4.0, 0.0, 1.5], [0.0, 4.0, 1.5], [0.0, 0.0, 1.0]]])
POSE = jnp.eye(4)[None]


@pytest.mark.parametrize("seed", range(4))
def test_visibility_agrees_with_the_oracle(seed):
    *scene, tolerance = oracle.made_up_scene(np.random.default_rng(seed))
    visible = np.asarray(views.visibility(*scene, tolerance=tolerance))
    expected, certain = oracle.visibility(*scene, tolerance)
    assert certain.mean() > 0.98 and 0.05 < expected.mean() < 0.5
    np.testing.assert_array_equal(visible[certain], expected[certain])


def see(points, depth, tolerance=0.1):
    depth = jnp.broadcast_to(jnp.asarray(depth, jnp.float32), (1, 4, 4))
    points = jnp.asarray(points, jnp.float32)
    return views.visibility(points, depth, INTRINSICS, POSE, tolerance=tolerance)[0].tolist()


def test_what_is_hidden_or_behind_or_outside_is_not_seen():
    on, before, behind = [0.1, 0.1, 2.0], [0.1, 0.1, 1.8], [0.1, 0.1, 2.2]
    assert see([on, before, behind], 2.0) == [True, False, False]
    assert see([[0.1, 0.1, 1.95], [0.1, 0.1, 2.05]], 2.0) == [True, True]
    assert see([[0.0, 0.0, -2.0], [0.0, 0.0, 0.0]], 2.0) == [False, False]
    # Pixels reach from -0.5 to 3.5: x = (u - 1.5) / 4 * 2.
    left, right = (-0.5 - 1.5) / 2, (3.5 - 1.5) / 2
    edge = [[left + 0.01, 0, 2], [left - 0.01, 0, 2], [right - 0.01, 0, 2], [right + 0.01, 0, 2]]
    assert see(edge, 2.0) == [True, False, True, False]
    assert see([[x[1], x[0], 2] for x in edge], 2.0) == [True, False, True, False]


@pytest.mark.parametrize("unknown", [0.0, np.nan, -1.0])
def test_unknown_depth_confirms_nothing(unknown):
    # Depth 0 agrees with a point nearer than the tolerance, were it taken at its word.
    assert see([[0.0, 0.0, 0.05], [0.0, 0.0, 2.0]], unknown) == [False, False]


def test_points_at_infinity_or_nan_are_not_seen():
    points = [[np.inf, 0, 2], [np.nan, 0, 2], [0, 0, np.inf], [1e30, 0, 1e-30], [0, 0, 2]]
    assert see(points, 2.0) == [False, False, False, False, True]
    assert see(points[:3], np.inf) == [False, False, False]


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_lost_poses_and_masked_points_see_nothing_and_change_nothing(bad):
    *scene, tolerance = oracle.made_up_scene(np.random.default_rng(0))
    points, depth, intrinsics, poses = scene
    expected = np.array(views.visibility(*scene, tolerance=tolerance))
    poses, points, intrinsics = poses.copy(), points.copy(), intrinsics.copy()
    one = np.flatnonzero(expected.sum(0) > expected[2])[0]  # seen by another frame than 2
    poses[2], intrinsics[2], points[one] = bad, 0, bad
    mask = np.arange(len(points)) != one
    visible = views.visibility(points, depth, intrinsics, poses, tolerance=tolerance, mask=mask)
    assert expected[2].any()
    expected[2], expected[:, one] = False, False
    np.testing.assert_array_equal(visible, expected)


def test_under_jit_bad_cameras_and_tolerances_see_nothing():
    *scene, tolerance = oracle.made_up_scene(np.random.default_rng(0))
    points, depth, intrinsics, poses = scene
    expected = np.array(views.visibility(*scene, tolerance=tolerance))
    poses, intrinsics = poses.copy(), intrinsics.copy()
    poses[0, :3, :3] *= 2
    intrinsics[1, 0, 0] = 0
    see = jax.jit(lambda *scene, tolerance: views.visibility(*scene, tolerance=tolerance))
    expected[:2] = False
    np.testing.assert_array_equal(see(points, depth, intrinsics, poses, tolerance=0.05), expected)
    assert not see(points, depth, intrinsics, poses, tolerance=-0.05).any()
    assert not see(points, depth, intrinsics, poses, tolerance=jnp.nan).any()


@pytest.mark.parametrize("stride", [1, 3])
def test_pixels_agree_with_the_oracle_and_with_visibility(stride):
    *scene, tolerance = oracle.made_up_scene(np.random.default_rng(3))
    points, depth, intrinsics, poses = scene
    visible = np.asarray(views.visibility(*scene, tolerance=tolerance))
    indices = np.array([3, 0, -1, 4], np.int32)
    seen = views.voxel_to_pixel(*scene, indices, tolerance=tolerance, stride=stride)
    assert [x.dtype for x in seen] == [jnp.int32, jnp.float32, jnp.float32]
    for k, frame in enumerate(indices):
        expected = visible[frame] if frame >= 0 else np.zeros(len(points), bool)
        # Nothing, not even pixel 0, where nothing is seen.
        np.testing.assert_array_equal(np.asarray(seen.pixel[k] >= 0), expected)
        for values, nothing in zip(seen, (-1, 0, 0), strict=True):
            np.testing.assert_array_equal(values[k][~expected], nothing)
        if frame < 0:
            continue
        assert expected.sum() > 10
        uv, z = oracle.project(points, intrinsics[frame], poses[frame])
        row, column, margin = oracle.nearest_pixels(uv, z, *depth.shape[1:])
        clear = expected & (margin > 1e-3)
        width = int(np.ceil(depth.shape[2] / stride))
        flat = row // stride * width + column // stride
        np.testing.assert_array_equal(seen.pixel[k][clear], flat[clear])
        np.testing.assert_allclose(seen.depth[k][expected], z[expected], atol=1e-5)
        distance = np.linalg.norm(points - poses[frame, :3, 3].astype(np.float64), axis=1)
        np.testing.assert_allclose(seen.cosine[k][expected], (z / distance)[expected], atol=1e-5)


def test_cosine_of_normals():
    points = jnp.array([[0.0, 0.0, 2.0], [0.5, 0.0, 2.0], [0.5, 0.5, 2.0]])
    normals = jnp.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [0.6, 0.0, 0.8]])
    seen = views.voxel_to_pixel(
        *(points, jnp.full((1, 4, 4), 2.0), INTRINSICS, POSE, jnp.array([0])),
        tolerance=0.1,
        normals=normals,
    )
    ray = np.array([0.5, 0.5, 2.0])
    expected = [1.0, 0.0, ray @ [0.6, 0.0, 0.8] / np.linalg.norm(ray)]
    np.testing.assert_allclose(seen.cosine[0], expected, atol=1e-6)


def test_under_jit_an_index_out_of_range_is_no_frame():
    *scene, tolerance = oracle.made_up_scene(np.random.default_rng(3))
    find = jax.jit(lambda i: views.voxel_to_pixel(*scene, i, tolerance=tolerance).pixel)
    pixel = find(jnp.array([5, -2, 4]))
    np.testing.assert_array_equal(pixel[:2], -1)
    assert (pixel[2] >= 0).any()


def test_memory_is_one_byte_a_pair():
    frames, voxels = 64, 20_000
    *scene, _ = oracle.made_up_scene(np.random.default_rng(0), frames=frames, voxels=voxels)
    find = jax.jit(lambda *scene: views.visibility(*scene, tolerance=0.05))
    memory = find.lower(*scene).compile().memory_analysis()
    used = memory.temp_size_in_bytes + memory.output_size_in_bytes
    assert used < 2 * frames * voxels
