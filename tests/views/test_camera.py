import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import views

from . import oracle


def test_project_agrees_with_homogeneous_coordinates():
    points, _, intrinsics, poses, _ = oracle.made_up_scene(np.random.default_rng(0))
    uv, depth = jax.vmap(views.project, (None, 0, 0))(points, intrinsics, poses)
    for frame in range(len(poses)):
        expected_uv, expected_depth = oracle.project(points, intrinsics[frame], poses[frame])
        front = expected_depth > 0.1
        assert front.sum() > 50
        np.testing.assert_allclose(depth[frame][front], expected_depth[front], atol=1e-5)
        # The pixel's error is that of x / z: relative to the pixel, and larger near the camera.
        scale = 1 + np.abs(expected_uv[front]) + 20 / expected_depth[front][:, None]
        assert np.max(np.abs(uv[frame][front] - expected_uv[front]) / scale) < 1e-5
        behind = expected_depth < 0
        assert behind.sum() > 10
        np.testing.assert_array_equal(uv[frame][behind], -1)
        np.testing.assert_array_equal(depth[frame][behind], 0)


def test_points_on_the_camera_plane_and_of_lost_cameras_lie_outside_of_every_image():
    points = jnp.array([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    uv, depth = views.project(points, jnp.eye(3), jnp.eye(4))
    np.testing.assert_array_equal(uv, [[-1, -1], [0, 0]])
    np.testing.assert_array_equal(depth, [0, 1])
    uv, depth = views.project(points, jnp.eye(3), jnp.full((4, 4), jnp.nan))
    np.testing.assert_array_equal(uv, -np.ones((2, 2)))
    np.testing.assert_array_equal(depth, [0, 0])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda k, t: (k, t.at[1, 2].set(jnp.nan)),
        lambda k, t: (k, t.at[0, 3].set(jnp.inf)),
        lambda k, t: (k, t.at[:3, :3].multiply(1.01)),
        lambda k, t: (k, t.at[:3, 0].multiply(-1.0)),
        lambda k, t: (k, t.at[0, 1].add(0.05)),
        lambda k, t: (k, t.at[3, 0].set(0.5)),
        lambda k, t: (k, t.at[3, 3].set(2.0)),
        lambda k, t: (k.at[0, 0].set(0.0), t),
        lambda k, t: (k.at[1, 1].set(-20.0), t),
        lambda k, t: (k.at[0, 2].set(jnp.nan), t),
        lambda k, t: (k.at[2, 2].set(2.0), t),
        lambda k, t: (k.at[1, 0].set(0.1), t),
    ],
)
def test_valid_cameras_finds_the_bad_one(spoil):
    _, _, intrinsics, poses, _ = oracle.made_up_scene(np.random.default_rng(1), frames=3)
    assert views.valid_cameras(intrinsics, poses).tolist() == [True, True, True]
    bad_intrinsics, bad_pose = spoil(jnp.asarray(intrinsics[1]), jnp.asarray(poses[1]))
    intrinsics, poses = intrinsics.copy(), poses.copy()
    intrinsics[1], poses[1] = bad_intrinsics, bad_pose
    assert views.valid_cameras(intrinsics, poses).tolist() == [True, False, True]


def test_poses_with_the_digits_of_text_files_are_rigid():
    _, _, intrinsics, poses, _ = oracle.made_up_scene(np.random.default_rng(2), frames=50)
    assert views.valid_cameras(intrinsics, poses.round(4)).all()


def test_scaled_intrinsics():
    # Of a ScanNet scan: colour of 1296 x 968, looked up in 320 x 240.
    full = np.array([[1169.62, 0.5, 646.295], [0, 1167.11, 489.927], [0, 0, 1]])
    expected = [
        [1169.62 * 320 / 1296, 0.5 * 320 / 1296, 646.295 * 319 / 1295],
        [0, 1167.11 * 240 / 968, 489.927 * 239 / 967],
        [0, 0, 1],
    ]
    scaled = views.scale_intrinsics(full, (968, 1296), (240, 320))
    assert scaled.dtype == jnp.float32
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    stacked = views.scale_intrinsics(np.stack([full, full]), (968, 1296), (240, 320))
    np.testing.assert_array_equal(stacked[1], scaled)
    # The centre of the image stays the centre of the image.
    centre = np.array([[100, 0, (41 - 1) / 2], [0, 100, (31 - 1) / 2], [0, 0, 1]])
    moved = views.scale_intrinsics(centre, (31, 41), (16, 21))
    np.testing.assert_allclose(moved[:2, 2], [(21 - 1) / 2, (16 - 1) / 2])
