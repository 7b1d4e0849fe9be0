"""Image features at voxels, and what a teacher makes of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from haskd_jax import losses, models
from haskd_jax import views as views_api

from .scenes import (
    CAPACITIES,
    IMAGES,
    NUM_CLASSES,
    accuracy,
    assert_same_bits,
    scene,
    train,
    unchecked_annotations,
)
from .test_students import FAMILIES, make


class Plain(nnx.Module):
    """A student that takes no extras."""

    def __init__(self, rngs):
        self.num_features = 6
        self.layer = models.ConvNormRelu(3, 6, 3, axis_name=None, rngs=rngs)
        self.head = models.Head(6, NUM_CLASSES, rngs=rngs)

    def __call__(self, grid, maps, features):
        x = self.layer(features, maps.submanifold[0], grid.mask)
        return x, self.head(x, grid.mask)


def student(family):
    return Plain(nnx.Rngs(0)) if family is Plain else make(family)


def teacher(family=models.MinkUNet, **options):
    options = {"modality_dropout": 0.0, **options}
    return models.Teacher(
        student(family), IMAGES, num_classes=NUM_CLASSES, rngs=nnx.Rngs(1), **options
    )


families = pytest.mark.parametrize("family", [*FAMILIES, Plain])


def views(num_views=3, height=18, width=22, seed=0):
    """Images, and voxel_to_pixel that shows each voxel in about half of them."""
    rng = np.random.default_rng(seed)
    voxels = CAPACITIES[0]
    pixels = -(-height // 4) * -(-width // 4)
    images = rng.uniform(size=(num_views, height, width, 3)).astype(np.float32)
    seen = rng.random((num_views, voxels)) < 0.5
    seen[:, ::7] = False
    rows = np.where(seen, rng.integers(0, pixels, seen.shape), -1).astype(np.int32)
    cues = rng.uniform(size=(*seen.shape, 3)).astype(np.float32)
    cues[~seen] = np.nan
    return jnp.asarray(images), {
        "voxel_to_pixel": jnp.asarray(rows),
        "cues": jnp.asarray(cues),
    }


@functools.cache
def forward(family, train=False):
    """Jitted: images, keywords -> output; on the one scene."""
    apply, params, state = models.functional(teacher(family))
    data = scene()
    call = jax.jit(functools.partial(apply, train=train))

    def run(images=None, **keywords):
        return call(params, state, data.grid, data.maps, data.features, images, **keywords)

    return run


# Cameras opposite the floor and the wall, in units of voxels: the axes of x right, y down, z ahead.
POSES = np.array(
    [
        [[1, 0, 0, 5], [0, -1, 0, 5], [0, 0, -1, 10.5], [0, 0, 0, 1]],
        [[0, 0, -1, 10.5], [1, 0, 0, 5], [0, -1, 0, 6], [0, 0, 0, 1]],
    ],
    np.float32,
)
SIZE = 72  # pixels of an image; a voxel covers seven
INTRINSICS = np.array([[70, 0, 35.5], [0, 70, 35.5], [0, 0, 1]], np.float32)


def textured_room(seed):
    """The room, its blocks of 3 x 3 x 3 voxels plain or striped by class, as two cameras see it.

    Only floor and wall are there for the cameras: they do not see the box, nor what the images'
    borders cut off.
    """
    data = scene()
    block_class = np.random.default_rng(seed).permuted(np.arange(64) % 2)

    def class_of(xyz):
        return block_class[np.floor(xyz / 3).astype(int) @ [16, 4, 1]]

    images, depths = [], []
    v, u = np.indices((SIZE, SIZE))
    for pose in POSES:
        rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(INTRINSICS).T @ pose[:3, :3].T
        image, depth = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
        for axis in (0, 2):  # wall and floor, through the middle of their voxels
            with np.errstate(divide="ignore"):
                z = (0.5 - pose[axis, 3]) / rays[..., axis]
            hit = pose[:3, 3] + np.where(np.isfinite(z), z, 0)[..., None] * rays
            nearest = (z > 0) & (hit >= 0).all(-1) & (hit < 10).all(-1)
            nearest &= (depth == 0) | (z < depth)
            stripes = np.floor(hit.sum(-1) / 0.6) % 2
            shade = np.where(class_of(np.clip(hit, 0, 9)) == 1, stripes, 0.5)
            image, depth = np.where(nearest, (shade, z), (image, depth))
        images.append(image)
        depths.append(depth)

    mask = data.grid.mask
    centres = np.asarray(data.grid.coords)[:, 1:].astype(np.float32) + 0.5
    found = views_api.voxel_to_pixel(
        centres, np.array(depths), np.tile(INTRINSICS, (2, 1, 1)), POSES, np.arange(2),
        tolerance=0.25, stride=models.IMAGE_STRIDE, mask=mask,
    )  # fmt: skip
    cues = jnp.stack([found.depth, found.cosine, jnp.ones_like(found.depth)], axis=-1)
    labels = class_of(np.where(np.asarray(mask)[:, None], centres, 0))
    return (
        data._replace(labels=jnp.asarray(labels, jnp.int32)),
        jnp.asarray(np.array(images)[..., None] * np.ones(3), jnp.float32),
        {"voxel_to_pixel": found.pixel, "cues": cues},
    )


class TestPooling:
    def test_mean_is_the_oracle(self):
        rng = np.random.default_rng(0)
        features = rng.normal(size=(3, 2, 4, 5)).astype(np.float32)
        _, given = views(3)
        rows = np.asarray(given["voxel_to_pixel"]) % 8
        rows[np.asarray(given["voxel_to_pixel"]) < 0] = -1
        pooled, seen = models.ViewPooling("mean", rngs=nnx.Rngs(0))(
            jnp.asarray(features), jnp.asarray(rows)
        )
        flat = features.reshape(3, 8, 5).astype(np.float64)
        for v in range(rows.shape[1]):
            found = [flat[k, rows[k, v]] for k in range(3) if rows[k, v] >= 0]
            expected = np.mean(found, axis=0) if found else np.zeros(5)
            np.testing.assert_allclose(pooled[v], expected, atol=1e-6)
            assert bool(seen[v]) == bool(found)

    def test_learnt_begins_as_the_mean_and_prefers_what_it_scores(self):
        features = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 6, 4)), jnp.float32)
        _, given = views(3)
        learnt, mean = (models.ViewPooling(mode, rngs=nnx.Rngs(0)) for mode in ("learnt", "mean"))
        np.testing.assert_allclose(
            learnt(features, **given)[0], mean(features, **given)[0], atol=1e-6
        )
        # Scores that rise with quality alone, steeply: the sharpest view decides.
        learnt.hidden[...] = jnp.zeros((4, 16)).at[2, 0].set(1.0)
        learnt.score[...] = jnp.zeros((16, 1)).at[0].set(1e5)
        rows = np.asarray(given["voxel_to_pixel"])
        quality = np.where(rows >= 0, np.asarray(given["cues"])[..., 2], -1)
        best = quality.argmax(0)
        flat = np.asarray(features).reshape(3, -1, 4)
        picked = np.array([flat[k, rows[k, v]] for v, k in enumerate(best)])
        picked[rows.max(0) < 0] = 0
        np.testing.assert_allclose(learnt(features, **given)[0], picked, atol=1e-5)

    def test_nothing_leaks_from_what_is_not_seen(self):
        """NaN cues and unseen pixels reach neither the value nor a gradient."""
        _, given = views(3)
        apply, params, _ = models.functional(models.ViewPooling("learnt", rngs=nnx.Rngs(0)))
        params = {**params, "score": jnp.ones((16, 1))}
        features = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 6, 4)), jnp.float32)

        def run(params, features, cues):
            pooled, _ = apply(params, {}, features, given["voxel_to_pixel"], cues, train=True)[0]
            return jnp.sum(jnp.sin(pooled))

        slopes = jax.grad(run, (0, 1, 2))(params, features, given["cues"])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
        unseen = np.asarray(given["voxel_to_pixel"]) < 0
        assert not np.asarray(slopes[2])[unseen].any()
        assert np.asarray(slopes[2])[~unseen].any()

    def test_levels_are_means_over_seen_voxels(self):
        data = scene()
        rng = np.random.default_rng(0)
        features = rng.normal(size=(CAPACITIES[0], 2)).astype(np.float32)
        seen = (rng.random(CAPACITIES[0]) < 0.3) & np.asarray(data.grid.mask)
        spoilt = jnp.asarray(np.where(seen[:, None], features, np.nan))
        pooled = models.pool_levels(spoilt, jnp.asarray(seen), data.maps, (0, 2))
        assert sorted(pooled) == [0, 2]
        coarse = data.maps.grids[2]
        cell = np.asarray(data.grid.coords)[:, 1:] // 4 * 4
        for v in range(coarse.capacity):
            inside = seen & (cell == np.asarray(coarse.coords)[v, 1:]).all(1)
            inside &= bool(coarse.mask[v])
            expected = features[inside].mean(0) if inside.any() else np.zeros(2)
            np.testing.assert_allclose(pooled[2][0][v], expected, atol=1e-6)
            assert bool(pooled[2][1][v]) == inside.any()


class TestEncoder:
    def test_shapes_and_padding_frames(self):
        apply, params, state = models.functional(
            models.ImageEncoder(IMAGES, num_classes=5, rngs=nnx.Rngs(0))
        )
        images, _ = views(3)
        frames = jnp.array([True, False, True])
        run = jax.jit(functools.partial(apply, train=True))
        clean = run(params, state, images.at[1].set(0.0), frames)
        assert_same_bits(run(params, state, images.at[1].set(jnp.nan), frames), clean)
        (features, logits), _ = clean
        assert features.shape == (3, 5, 6, 8)  # ceil of 18 x 22 by 4
        assert (logits.shape, logits.dtype) == ((3, 5, 6, 5), jnp.float32)
        assert not features[1].any()
        assert features[0].any()
        # Padding is subset.
        (subset, _), _ = run(params, state, images[::2], jnp.ones(2, bool))
        np.testing.assert_allclose(np.asarray(features)[::2], subset, atol=1e-5)

    def test_bfloat16(self):
        encoder = models.ImageEncoder(IMAGES, num_classes=5, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        features, logits = encoder(views(2)[0], jnp.ones(2, bool))
        assert (features.dtype, logits.dtype) == (jnp.bfloat16, jnp.float32)
        assert np.isfinite(logits).all()


class TestTeacher:
    @families
    def test_without_images_it_is_the_student(self, family):
        data = scene()
        output, _ = forward(family)()
        apply, params, state = models.functional(student(family))
        alone, _ = jax.jit(functools.partial(apply, train=False))(
            params, state, data.grid, data.maps, data.features
        )
        assert_same_bits(tuple(output[:2]), alone)
        assert output.image_logits is None

    @families
    def test_images_that_see_nothing_change_nothing(self, family):
        images, given = views()
        given["voxel_to_pixel"] = jnp.full_like(given["voxel_to_pixel"], -1)
        modes = (False, True) if family is models.MinkUNet else (False,)
        for train_mode in modes:
            run = forward(family, train_mode)
            blind, plain = run(jnp.full_like(images, jnp.nan), **given)[0], run()[0]
            for a, b in zip(blind[:2], plain[:2], strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6)

    @families
    def test_images_count_where_they_see(self, family):
        images, given = views()
        run = forward(family)
        output, _ = run(images, **given)
        other, _ = run(1 - images, **given)
        assert np.abs(np.asarray(output.logits - other.logits)).max() > 1e-4
        assert np.isfinite(output.logits).all()
        assert output.image_logits.shape == (3, 5, 6, NUM_CLASSES)

    @families
    def test_a_scene_that_no_image_saw_takes_nothing(self, family):
        """Two scenes in one batch, images of the first only; their voxels never meet."""
        data = scene(seeds=(0, 1), capacities=tuple(2 * c for c in CAPACITIES))
        images, _ = views()
        second = np.asarray(data.grid.coords)[:, 0] == 1
        rows = np.random.default_rng(0).integers(0, 30, (3, len(second))).astype(np.int32)
        rows = jnp.asarray(np.where(second[None], -1, rows))
        cues = jnp.ones((*rows.shape, 3))
        apply, params, state = models.functional(teacher(family))
        call = jax.jit(functools.partial(apply, train=False))

        def logits(images):
            args = params, state, data.grid, data.maps, data.features, images
            return np.asarray(call(*args, voxel_to_pixel=rows, cues=cues)[0].logits)

        one, other = logits(images), logits(1 - images)
        assert np.array_equal(one[second], other[second])
        first = ~second & np.asarray(data.grid.mask)
        assert not np.array_equal(one[first], other[first])

    def test_what_is_added_is_zero_where_nothing_was_seen(self):
        module = teacher()
        adapter = module.adapters[0]
        rng = np.random.default_rng(0)
        seen = jnp.asarray(rng.random(CAPACITIES[0]) < 0.5)
        x = jnp.asarray(rng.normal(size=(CAPACITIES[0], IMAGES.features)), jnp.float32)
        for _ in range(2):
            extra = np.asarray(adapter(jnp.where(seen[:, None], x, 0), seen))
            assert not extra[~np.asarray(seen)].any()
            assert extra[np.asarray(seen)].any(axis=1).mean() > 0.9
            adapter.eval()

    @families
    def test_every_parameter_is_trained(self, family):
        images, given = views()
        data = scene()
        apply, params, state = models.functional(teacher(family))
        params["pooling"]["score"] = jnp.ones((16, 1))

        def loss(params):
            args = params, state, data.grid, data.maps, data.features, images
            output, _ = apply(*args, train=True, **given)
            valid = data.grid.mask
            values = losses.cross_entropy(output.logits, data.labels, where=valid)
            flat = output.image_logits.reshape(-1, NUM_CLASSES)
            auxiliary = losses.cross_entropy(flat, jnp.zeros(len(flat), jnp.int32))
            hint = jnp.sum(output.features[valid.argmax()])
            return losses.masked_mean(values, where=valid) + 0.1 * auxiliary.mean() + 0.01 * hint

        gradients = jax.jit(jax.grad(loss))(params)
        leaves = jax.tree_util.tree_leaves_with_path(gradients)
        assert all(np.isfinite(leaf).all() for _, leaf in leaves)
        assert [jax.tree_util.keystr(path) for path, leaf in leaves if not np.any(leaf)] == []

    @pytest.mark.slow
    def test_images_tell_classes_apart_that_differ_by_texture_only(self):
        """Taught in one room and asked in another: same points, other textures."""
        taught, images, given = textured_room(0)
        asked, other_images, other_given = textured_room(1)
        seen = np.asarray(given["voxel_to_pixel"] >= 0).any(0)
        assert seen[np.asarray(taught.grid.mask)].mean() > 0.8
        seeing = train(teacher(), taught, images, steps=60, rate=0.01, **given)
        blind = train(make(models.MinkUNet), taught, steps=60, rate=0.01)
        assert accuracy(*seeing, taught, images, where=seen, **given) > 0.95
        assert accuracy(*blind, taught) > 0.9  # it learns the room by heart
        assert accuracy(*seeing, asked, other_images, where=seen, **other_given) > 0.9
        assert accuracy(*blind, asked, where=seen) < 0.7

    @unchecked_annotations()
    def test_bad_input(self):
        data = scene()
        images, given = views()
        module = teacher()
        args = data.grid, data.maps, data.features, images
        with pytest.raises(ValueError, match="voxel_to_pixel is None"):
            module(*args)
        with pytest.raises(ValueError, match=r"voxel_to_pixel has shape \(2, 256\)"):
            module(*args, voxel_to_pixel=given["voxel_to_pixel"][:2])
        with pytest.raises(ValueError, match="cues is None"):
            module(*args, voxel_to_pixel=given["voxel_to_pixel"])
        with pytest.raises(ValueError, match="cues has shape"):
            module(*args, voxel_to_pixel=given["voxel_to_pixel"], cues=given["cues"][:2])
        beyond = given["voxel_to_pixel"].at[0, 0].set(30)
        with pytest.raises(ValueError, match="voxel_to_pixel holds 30: the feature map has 5 x 6"):
            module(*args, voxel_to_pixel=beyond, cues=given["cues"])
        with pytest.raises(ValueError, match="images has dtype uint8: must be floating point"):
            module(*args[:3], jnp.zeros(images.shape, jnp.uint8), **given)
        with pytest.raises(ValueError, match="rate=7"):
            models.drop_views(jax.random.key(0), given["voxel_to_pixel"], rate=7.0)
        with pytest.raises(ValueError, match="modality_dropout=1"):
            teacher(modality_dropout=1.0)
        with pytest.raises(ValueError, match="pooling='max'"):
            teacher(pooling="max")


def test_drop_views_frequencies():
    shown = jnp.zeros((4, 2), jnp.int32)
    keys = jax.random.split(jax.random.key(0), 4000)
    dropped = jax.vmap(lambda key: models.drop_views(key, shown, rate=0.2))(keys) < 0
    assert np.array_equal(dropped[..., 0], dropped[..., 1])  # whole views
    # One view: 1 - 0.8 * 0.8; all of four: 0.2 + 0.8 * 0.2**4. Four standard deviations.
    assert dropped.mean() == pytest.approx(0.36, abs=0.03)
    assert dropped.all(axis=(1, 2)).mean() == pytest.approx(0.2013, abs=0.026)
