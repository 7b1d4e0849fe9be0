"""The slopes of the Lovasz extension, of every implementation."""

import functools

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from jax.sharding import PartitionSpec

from haskd_jax import losses
from haskd_jax.losses._jaccard import jaccard_weights
from tests.sparse.common import needs_native

from . import oracle

every_implementation = pytest.mark.parametrize(
    "implementation", ["xla", pytest.param("native", marks=needs_native)]
)
SCENES = 3
SHAPES = [(1, 1), (1, 6), (4, 9)]
ERRORS = st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.25, 1.0])  # of the latter, many alike


@st.composite
def cases(draw):
    """Errors, labels and scenes; often a class, a scene or every voxel is left out."""
    classes, voxels = draw(st.sampled_from(SHAPES))
    return (
        draw(hnp.arrays(np.float32, (classes, voxels), elements=ERRORS)),
        draw(hnp.arrays(np.int32, voxels, elements=st.integers(-1, classes - 1))),
        draw(hnp.arrays(np.int32, voxels, elements=st.integers(0, SCENES - 1))),
    )


def many(seed, classes=5, voxels=3000, scenes=SCENES):
    """More voxels than are sorted by comparisons, with errors that are equal, 0 and 1."""
    rng = np.random.default_rng(seed)
    errors = rng.random((classes, voxels), np.float32)
    errors[::2] = errors[::2].round(2)
    labels = rng.integers(-1, classes, voxels).astype(np.int32)
    scene = rng.integers(0, scenes, voxels).astype(np.int32)
    labels[(labels == 1) & (scene == scenes - 1)] = -1
    return errors, labels, scene


def expected(errors, labels, scene, num_scenes=SCENES):
    weights = np.zeros(errors.shape)
    for c, number in np.ndindex(len(errors), num_scenes):
        rows = np.flatnonzero((scene == number) & (labels >= 0))
        weights[c, rows] = oracle.jaccard_slopes(labels[rows] == c, errors[c, rows])
        if not (labels[rows] == c).any():
            weights[c, rows] = 0  # the loss is that of the classes present
    return weights


def check(case, implementation):
    actual = jaccard_weights(*case, num_scenes=SCENES, implementation=implementation)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected(*case), rtol=1e-6, atol=1e-15)


@every_implementation
@given(case=cases())
def test_is_what_the_oracle_says(case, implementation):
    check(case, implementation)


@every_implementation
def test_of_many_voxels_is_what_the_oracle_says(implementation):
    check(many(0), implementation)


@needs_native
@pytest.mark.parametrize("num_scenes", [1, SCENES])
@pytest.mark.parametrize("voxels", [0, 1, 511, 512, 40_000])
def test_implementations_agree_to_the_bit(voxels, num_scenes):
    case = many(voxels, 3, voxels, num_scenes)
    native, xla = (
        np.asarray(jaccard_weights(*case, num_scenes=num_scenes, implementation=name))
        for name in ("native", "xla")
    )
    np.testing.assert_array_equal(native.view(np.int32), xla.view(np.int32))


@needs_native
def test_voxels_of_no_scene_do_not_count():
    errors, labels, scene = many(1, voxels=800)
    stray = np.arange(800) % 7 == 0
    scenes = np.where(stray, np.resize([-1, SCENES, 2**31 - 1, -(2**31)], 800), scene)
    actual = jaccard_weights(
        errors, labels, scenes.astype(np.int32), num_scenes=SCENES, implementation="native"
    )
    desired = jaccard_weights(
        errors, np.where(stray, -1, labels), scene, num_scenes=SCENES, implementation="native"
    )
    np.testing.assert_array_equal(actual, desired)


@every_implementation
def test_nothing_counts(implementation):
    errors, labels, scene = many(2)
    weights = jaccard_weights(
        errors, np.full_like(labels, -1), scene, num_scenes=SCENES, implementation=implementation
    )
    assert not weights.any()


@every_implementation
def test_under_vmap(implementation):
    batch = [np.stack(arrays) for arrays in zip(many(3), many(4), strict=True)]
    weights = functools.partial(jaccard_weights, num_scenes=SCENES, implementation=implementation)
    for actual, *case in zip(jax.vmap(weights)(*batch), *batch, strict=True):
        np.testing.assert_array_equal(actual, weights(*case))


class TestOfTheLoss:
    """What is asked of the loss, with the best implementation there is."""

    def given(self, seed):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(600, 4)).astype(np.float32)
        return logits, *many(seed, 4, 600)[1:]

    def loss(self, logits, labels, scene):
        values = losses.lovasz_softmax(logits, labels, scene=scene, num_scenes=SCENES)
        return jnp.sum(values)

    def test_gradients_over_devices_are_those_on_one(self):
        batch = [np.stack(arrays) for arrays in zip(self.given(5), self.given(6), strict=True)]
        value_and_grad = jax.value_and_grad(self.loss)

        def of_device(*arrays):
            result = value_and_grad(*(array[0] for array in arrays))
            return jax.tree.map(lambda leaf: leaf[None], result)

        mapped = jax.shard_map(
            of_device,
            mesh=jax.make_mesh((2,), ("device",), axis_types=(jax.sharding.AxisType.Auto,)),
            in_specs=PartitionSpec("device"),
            out_specs=PartitionSpec("device"),
        )
        value, grad = jax.jit(mapped)(*batch)
        for i, given_ in enumerate(zip(*batch, strict=True)):
            value_alone, grad_alone = jax.jit(value_and_grad)(*given_)
            np.testing.assert_allclose(value[i], value_alone, rtol=1e-6)
            np.testing.assert_allclose(grad[i], grad_alone, rtol=1e-5, atol=1e-9)

    def test_gradients_where_labels_are_the_same_on_all_devices(self):
        """The errors vary over the devices, labels and scenes do not."""
        logits, labels, scene = self.given(7)
        mapped = jax.shard_map(
            jax.grad(self.loss),
            mesh=jax.make_mesh((2,), ("device",), axis_types=(jax.sharding.AxisType.Auto,)),
            in_specs=(PartitionSpec("device"), PartitionSpec(), PartitionSpec()),
            out_specs=PartitionSpec("device"),
        )
        actual = jax.jit(mapped)(np.concatenate([logits, logits[::-1]]), labels, scene)
        for part, rows in zip(np.split(actual, 2), (logits, logits[::-1]), strict=True):
            desired = jax.jit(jax.grad(self.loss))(rows, labels, scene)
            np.testing.assert_allclose(part, desired, rtol=1e-5, atol=1e-9)

    def test_exports_for_other_platforms(self):
        exported = jax.export.export(jax.jit(jax.grad(self.loss)), platforms=("cuda", "tpu"))
        assert "haskd_jaccard_weights" not in exported(*self.given(8)).mlir_module()

    def test_f64(self):
        """The kernel is of f32 alone."""
        logits, labels, scene = self.given(9)
        with jax.enable_x64(True):
            wide = jax.jit(self.loss)(jnp.asarray(logits, jnp.float64), labels, scene)
        assert wide.dtype == jnp.float64
        np.testing.assert_allclose(jax.jit(self.loss)(logits, labels, scene), wide, rtol=1e-6)
