"""What is wrong is refused with a ValueError that names the argument and the value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import views

pytestmark = pytest.mark.usefixtures("unchecked_annotations")

POINTS = jnp.array([[0.0, 0.0, 2.0], [0.5, 0.0, 2.0]])
DEPTH = jnp.full((2, 4, 5), 2.0)
INTRINSICS = jnp.tile(jnp.array([[4.0, 0.0, 1.5], [0.0, 4.0, 1.5], [0.0, 0.0, 1.0]]), (2, 1, 1))
POSES = jnp.tile(jnp.eye(4), (2, 1, 1))
VISIBLE = jnp.ones((3, 5), bool)
IMAGES = jnp.zeros((2, 4, 5, 3), jnp.uint8)


def refuses(*named):
    """The message holds all of these."""
    return pytest.raises(ValueError, match="(?s)" + "".join(f"(?=.*{part})" for part in named))


def see(points=POINTS, depth=DEPTH, intrinsics=INTRINSICS, poses=POSES, tolerance=0.1, mask=None):
    return views.visibility(points, depth, intrinsics, poses, tolerance=tolerance, mask=mask)


def look_up(indices=(0, 1), **changed):
    scene = {"tolerance": 0.1} | changed
    return views.voxel_to_pixel(POINTS, DEPTH, INTRINSICS, POSES, np.array(indices), **scene)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"points": POINTS[0]}, ["points", r"\(3,\)"]),
        ({"points": POINTS[:, :2]}, ["points", r"\(2, 2\)"]),
        ({"depth": DEPTH[0]}, ["depth", r"\(4, 5\)"]),
        ({"depth": DEPTH[:1]}, ["intrinsics", r"\(2, 3, 3\)", r"\(1, 3, 3\)"]),
        ({"poses": POSES[:1]}, ["camera_to_world", r"\(1, 4, 4\)", r"\(2, 4, 4\)"]),
        ({"poses": POSES[:, :3]}, ["camera_to_world", r"\(2, 3, 4\)"]),
        ({"mask": jnp.ones(3, bool)}, ["mask", r"\(3,\)", r"\(2\)"]),
        ({"mask": jnp.ones(2)}, ["mask", "float32", "bool"]),
        ({"tolerance": 0.0}, ["tolerance", r"0\.0"]),
        ({"tolerance": -0.1}, ["tolerance", r"-0\.1"]),
        ({"tolerance": np.nan}, ["tolerance", "nan"]),
        ({"tolerance": jnp.ones(2)}, ["tolerance", r"\(2,\)"]),
        ({"intrinsics": INTRINSICS.at[1, 0, 0].set(0.0)}, ["intrinsics", "frame 1", r"\[0\.0, 0"]),
        ({"intrinsics": INTRINSICS.at[0, 1, 2].set(jnp.nan)}, ["intrinsics", "frame 0", "nan"]),
        ({"intrinsics": INTRINSICS.at[0, 2, 2].set(2.0)}, ["intrinsics", "frame 0", r"2\.0"]),
        ({"poses": POSES.at[1, 0, 0].set(2.0)}, ["camera_to_world", "frame 1", r"2\.0", "rigid"]),
        ({"poses": POSES.at[1, 0, 0].set(-1.0)}, ["camera_to_world", "frame 1", "rigid"]),
        ({"poses": POSES.at[0, 3, 0].set(1.0)}, ["camera_to_world", "frame 0", "rigid"]),
    ],
)
def test_cameras(changed, named):
    assert see().shape == (2, 2)
    with refuses(*named):
        see(**changed)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: look_up((0, 2)), ["indices", "2", r"\[-1, 1\]"]),
        (lambda: look_up((-2, 0)), ["indices", "-2"]),
        (lambda: look_up(stride=0), ["stride", "0"]),
        (lambda: look_up(tolerance=0.0), ["tolerance", "0"]),
        (lambda: look_up(normals=POINTS[:1]), ["normals", r"\(1, 3\)"]),
        (lambda: views.project(POINTS, INTRINSICS, POSES[0]), ["intrinsics", r"\(2, 3, 3\)"]),
        (lambda: views.project(POINTS, 0 * INTRINSICS[0], POSES[0]), ["intrinsics", "focal"]),
        (lambda: views.project(POINTS, INTRINSICS[0], 2 * POSES[0]), ["camera_to_world", "rigid"]),
        (lambda: views.valid_cameras(INTRINSICS, POSES[:1]), ["camera_to_world", r"\(1, 4, 4\)"]),
        (lambda: views.scale_intrinsics(INTRINSICS, (1, 9), (4, 4)), ["from_size", r"\(1, 9\)"]),
        (lambda: views.scale_intrinsics(INTRINSICS, (4, 4), (4, 0)), ["to_size", r"\(4, 0\)"]),
        (lambda: views.frame_quality(IMAGES[0]), ["images", r"\(4, 5, 3\)"]),
        (lambda: views.frame_quality(IMAGES[..., :1]), ["images", r"\(2, 4, 5, 1\)"]),
        (lambda: views.frame_quality(IMAGES[:, :2]), ["images", "3 x 3"]),
        (lambda: views.frame_quality(IMAGES.astype(jnp.int32)), ["images", "int32"]),
        (lambda: views.frame_quality(jnp.full((1, 4, 4, 3), 255.0)), ["images", "255", "0, 1"]),
        (lambda: views.frame_quality(jnp.full((1, 4, 4, 3), -1.0)), ["images", "-1"]),
        (lambda: views.frame_quality(jnp.full((1, 4, 4, 3), jnp.nan)), ["images", "nan"]),
        (lambda: views.frame_quality(IMAGES, where=jnp.ones(3, bool)), ["where", r"\(3,\)"]),
        (lambda: views.information(jnp.zeros((4, 3)), weight=-1.0), ["weight", "-1"]),
        (lambda: views.information(jnp.zeros((4, 3)), where=jnp.ones(3, bool)), ["where"]),
        (lambda: views.coverage(VISIBLE, np.array([3])), ["indices", "3", r"\[-1, 2\]"]),
        (lambda: views.coverage(VISIBLE, np.array([0]), where=jnp.ones(4, bool)), ["where"]),
        (lambda: views.marginal_gains(VISIBLE, np.array([-2])), ["indices", "-2"]),
        (
            lambda: views.select_uniform(VISIBLE, num_views=1, placement="middle"),
            ["placement", "middle"],
        ),
        (
            lambda: views.select_entropy(VISIBLE, num_views=1, entropy=jnp.ones(2)),
            ["entropy", r"\(2,\)"],
        ),
        (
            lambda: views.select_entropy(VISIBLE, num_views=1, entropy=jnp.full(3, 7.5)),
            ["entropy", "7.5"],
        ),
        (
            lambda: views.select_stochastic_coverage(
                VISIBLE, num_views=1, key=jax.random.key(0), min_new=1.5
            ),
            ["min_new", "1.5"],
        ),
    ],
)
def test_other_arguments(call, named):
    with refuses(*named):
        call()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"visible": VISIBLE[0]}, ["visible", r"\(5,\)"]),
        ({"visible": VISIBLE[:0]}, ["visible", r"\(0, 5\)", "no frame"]),
        ({"visible": VISIBLE.astype(jnp.float32)}, ["visible", "float32", "bool"]),
        ({"num_views": 0}, ["num_views", "0"]),
        ({"num_views": -3}, ["num_views", "-3"]),
        ({"quality": jnp.ones(5)}, ["quality", r"\(5,\)", r"\(3\)"]),
        ({"quality": jnp.array([0.0, 1.0, 1.5])}, ["quality", "1.5", r"\[0, 1\]"]),
        ({"quality": jnp.array([0.0, -0.5, 1.0])}, ["quality", "-0.5"]),
        ({"quality": jnp.array([0.0, jnp.nan, 1.0])}, ["quality", "nan"]),
        ({"information": jnp.ones(3)}, ["information", r"\(3,\)", r"\(5\)"]),
        ({"information": -jnp.ones(5)}, ["information", "-1"]),
        ({"information": jnp.full(5, jnp.inf)}, ["information", "inf"]),
        ({"rho": 0.0}, ["rho", "0"]),
        ({"rho": 1.1}, ["rho", "1.1"]),
        ({"where": jnp.ones(5, bool)}, ["where", r"\(5,\)"]),
        ({"where": jnp.ones(3)}, ["where", "float32", "bool"]),
    ],
)
@pytest.mark.parametrize("select", [views.select_views, views.select_uniform])
def test_selection(select, changed, named):
    with refuses(*named):
        select(**{"visible": VISIBLE, "num_views": 2} | changed)


def test_padding_may_hold_anything():
    """What a mask leaves out is refused by no check, within `jit` or outside."""
    where, quality = jnp.array([True, True, False]), jnp.array([0.5, 1.0, jnp.nan])
    select = jax.jit(views.select_views, static_argnames="num_views")
    for call in (views.select_views, select):
        found = call(VISIBLE, num_views=2, quality=quality, where=where)
        assert found.indices.tolist() == [1, 0]
    found = views.select_entropy(
        VISIBLE, num_views=2, entropy=quality, quality=quality, where=where
    )
    assert found.indices.tolist() == [1, 0]
    for select in (views.select_uniform, views.select_coverage):
        found = select(VISIBLE, num_views=2, quality=quality, where=where)
        assert sorted(found.indices.tolist()) == [0, 1] and np.isfinite(found.gains).all()
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    images[1] = np.nan
    scored = views.frame_quality(images, where=where[1:])
    assert scored[0] > 0 and scored[1] == 0
    nested = views.frame_quality(images[:1].tolist())  # as documented, what NumPy takes
    assert nested.shape == (1,)


def test_what_is_out_of_range_within_jit_counts_as_nothing():
    for rho in (1.5, 0.0, -1.0, jnp.nan):
        gains = jax.jit(lambda rho: views.select_views(VISIBLE, num_views=2, rho=rho).gains)(rho)
        assert gains.tolist() == [0, 0]
    indices = jnp.array([0, 7, -3])
    assert jax.jit(views.marginal_gains)(VISIBLE, indices).tolist() == [5, 0, 0]
    assert jax.jit(views.coverage)(VISIBLE, jnp.array([7])) == 0
    with refuses("rho is 0", r"\(0, 1\]"):
        views.select_views(VISIBLE, num_views=1, rho=0.0)
