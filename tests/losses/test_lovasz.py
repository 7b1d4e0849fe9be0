"""Lovasz-softmax against two other definitions of the Lovasz extension, and its sort."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import losses
from haskd_jax.losses._sort import argsort_descending, then_by

from . import oracle


def extension_by_brute_force(target, errors):
    """Of a submodular loss it is the largest, over all orders, of the sum of error * increase."""
    best = -np.inf
    for order in itertools.permutations(range(len(errors))):
        mistakes, value, before = np.zeros(len(errors), bool), 0.0, 0.0
        for i in order:
            mistakes[i] = True
            after = oracle.jaccard_loss(target, mistakes)
            value += errors[i] * (after - before)
            before = after
        best = max(best, value)
    return best


@pytest.mark.parametrize("seed", range(4))
def test_is_the_largest_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(5, 3))
    labels = rng.integers(0, 3, 5).astype(np.int32)
    p = np.exp([oracle.log_softmax(row) for row in logits])
    values = []
    for c in set(labels):
        target = labels == c
        values.append(extension_by_brute_force(target, np.where(target, 1 - p[:, c], p[:, c])))
    actual = jax.jit(losses.lovasz_softmax)(jnp.float32(logits), labels)
    np.testing.assert_allclose(actual, np.mean(values), rtol=1e-6)
    np.testing.assert_allclose(oracle.lovasz_softmax(logits, labels), np.mean(values), rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_is_one_minus_iou_where_predictions_are_certain(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 4, 40).astype(np.int32)
    predictions = rng.integers(0, 4, 40)
    where = rng.random(40) < 0.8
    logits = np.where(np.arange(4) == predictions[:, None], 1e4, -1e4).astype(np.float32)
    counted = where & (labels >= 0)
    lost = [
        1
        - np.sum((predictions == c) & (labels == c) & counted)
        / np.sum(((predictions == c) | (labels == c)) & counted)
        for c in set(labels[counted])
    ]
    value = jax.jit(losses.lovasz_softmax)(jnp.asarray(logits), labels, where=where)
    np.testing.assert_allclose(value, np.mean(lost), rtol=1e-6)


def test_classes_without_voxels_do_not_count():
    logits = jnp.array([[3.0, 0.0, 9.0], [0.0, 2.0, 0.0]])
    labels = jnp.array([0, 1])
    value = losses.lovasz_softmax(logits, labels)
    p = np.exp([oracle.log_softmax(row) for row in np.asarray(logits)])
    per_class = [
        oracle.lovasz_extension(
            np.array([True, False]), np.array([1 - p[0, 0], p[1, 0]])
        ),  # the third class, wrong with .99 at voxel 0, is not among them
        oracle.lovasz_extension(np.array([False, True]), np.array([p[0, 1], 1 - p[1, 1]])),
    ]
    np.testing.assert_allclose(value, np.mean(per_class), rtol=1e-6)


def test_many_voxels_keep_f32_precision():
    """Slopes as differences of neighbouring losses would be noise here."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 20_000).astype(np.int32)
    value, grad = jax.jit(jax.value_and_grad(losses.lovasz_softmax))(jnp.asarray(logits), labels)
    with jax.enable_x64(True):
        wide, wide_grad = jax.jit(jax.value_and_grad(losses.lovasz_softmax))(
            jnp.asarray(logits, jnp.float64), labels
        )
    np.testing.assert_allclose(value, wide, rtol=1e-6)
    np.testing.assert_allclose(grad, wide_grad, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 2**17 + 1])  # the last takes a third digit
def test_argsort_is_stable_and_descending(size):
    rng = np.random.default_rng(size)
    values = rng.random((2, size)).astype(np.float32)
    values[1] = np.round(values[1], 2)  # many ties
    values[:, 0] = 1
    values[:, size // 2] = 0
    order = jax.jit(argsort_descending)(jnp.asarray(values))
    np.testing.assert_array_equal(order, np.argsort(-values, axis=-1, kind="stable"))


class TestScenes:
    """A batch of scenes, one value each."""

    def batch(self, seed=0):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(300, 4)).astype(np.float32)
        labels = rng.integers(-1, 4, 300).astype(np.int32)
        where = rng.random(300) < 0.8
        scene = rng.integers(0, 3, 300).astype(np.int32)
        scene[scene == 1] = 3  # the second of four has no voxel
        return logits, labels, where, scene

    def test_each_is_the_loss_of_its_voxels_alone(self):
        logits, labels, where, scene = self.batch()
        batched = jax.jit(losses.lovasz_softmax, static_argnames="num_scenes")
        values = batched(logits, labels, where=where, scene=scene, num_scenes=4)
        for number, value in enumerate(values):
            alone = losses.lovasz_softmax(logits, labels, where=where & (scene == number))
            np.testing.assert_allclose(value, alone, rtol=1e-6)
        assert values[1] == 0 and np.all(np.asarray(values)[[0, 2, 3]] > 0)

    def test_gradients_are_those_of_each_alone(self):
        logits, labels, where, scene = self.batch(1)

        def together(logits):
            return losses.lovasz_softmax(
                logits, labels, where=where, scene=scene, num_scenes=4
            ).sum()

        def alone(logits):
            return sum(
                losses.lovasz_softmax(logits, labels, where=where & (scene == number))
                for number in range(4)
            )

        np.testing.assert_allclose(
            jax.grad(together)(logits), jax.grad(alone)(logits), rtol=1e-5, atol=1e-8
        )

    def test_many_scenes_of_few_voxels(self):
        """More scenes than a digit beside a position holds."""
        order = jnp.broadcast_to(jnp.arange(70_000, dtype=jnp.int32)[::-1], (1, 70_000))
        keys = jnp.asarray(np.random.default_rng(0).integers(0, 40_000, 70_000), jnp.int32)
        expected = 69_999 - np.argsort(np.asarray(keys)[::-1], kind="stable")
        np.testing.assert_array_equal(then_by(keys, order, 40_000)[0], expected)

    def test_arguments(self):
        logits, labels, _, scene = self.batch()
        with pytest.raises(ValueError, match="belong together"):
            losses.lovasz_softmax(logits, labels, scene=scene)
        with pytest.raises(ValueError, match=r"scene holds 3, expected integers in \[0, 3\)"):
            losses.lovasz_softmax(logits, labels, scene=scene, num_scenes=3)
