"""What holds of every loss: its value, its masks, its gradients, its dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from haskd_jax import losses

from . import common
from .common import LOSSES, scene, subset, to_jax, value_and_grad, with_garbage

every_loss = pytest.mark.parametrize("name", LOSSES)


def assert_same(actual, desired):
    """To the bit, over value and gradients."""
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(leaf).all()


@every_loss
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_oracle_in_f64(name, seed):
    given = scene(seed)
    with jax.enable_x64(True):
        value, _ = value_and_grad(name)(to_jax(given, np.float64))
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, common.expected(name, given), rtol=1e-12, atol=1e-12)


@every_loss
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_oracle_in_f32(name, seed):
    given = scene(seed)
    value, _ = value_and_grad(name)(to_jax(given))
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, common.expected(name, given), rtol=1e-6, atol=1e-6)


@every_loss
def test_masked_equals_subset(name):
    given = scene(3)
    value, grads = value_and_grad(name)(to_jax(given))
    alone, grads_alone = value_and_grad(name)(to_jax(subset(given)))
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    for key, grad in grads.items():
        kept = np.compress(given.where, grad, axis=-2)
        np.testing.assert_allclose(kept, grads_alone[key], rtol=1e-5, atol=1e-7)


@every_loss
def test_garbage_in_masked_rows_changes_nothing(name):
    given = scene(4)
    assert not given.where.all()
    clean = value_and_grad(name)(to_jax(given))
    assert_same(value_and_grad(name)(to_jax(with_garbage(given))), clean)
    for grad in clean[1].values():
        assert not np.compress(~given.where, grad, axis=-2).any()


@every_loss
def test_everything_masked_is_zero(name):
    given = scene(5)._replace(where=np.zeros(12, bool))
    value, grads = value_and_grad(name)(to_jax(with_garbage(given)))
    assert value == 0
    assert_same(grads, jax.tree.map(np.zeros_like, grads))


@every_loss
def test_no_labels(name):
    given = scene(6)._replace(labels=np.full(12, -1, np.int32))
    value, grads = value_and_grad(name)(to_jax(given))
    np.testing.assert_allclose(value, common.expected(name, given), rtol=1e-6)
    assert_finite(grads)


@every_loss
def test_labels_out_of_range_are_left_out_under_jit(name):
    given = scene(7)
    outside = np.flatnonzero(given.where)[:2]
    spoiled = given.labels.copy()
    spoiled[outside] = [5, -2]
    mask = given.where.copy()
    if name not in ("kl_divergence", "feature_cosine", "relational", "ihd_loss"):  # need no label
        mask[outside] = False
    assert_same(
        value_and_grad(name)(to_jax(given._replace(labels=spoiled))),
        value_and_grad(name)(to_jax(given._replace(where=mask))),
    )


@every_loss
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_extreme_inputs_stay_finite(name, dtype):
    given = scene(8)
    rows = {key: np.sign(array) * 1e4 for key, array in given.rows.items()}
    rows["student"][0], rows["teacher"][0], rows["student_features"][1] = 0, 0, 0
    value, grads = value_and_grad(name)(to_jax(given._replace(rows=rows), dtype))
    assert_finite((value, grads))


@every_loss
def test_equal_rows_stay_finite(name):
    """As from a network whose last layer starts at zero: every sort is a tie, every norm is 0."""
    given = scene(9)
    given = given._replace(rows={key: np.zeros_like(array) for key, array in given.rows.items()})
    value, grads = value_and_grad(name)(to_jax(given))
    np.testing.assert_allclose(value, common.expected(name, given), rtol=1e-6, atol=1e-7)
    assert_finite(grads)


@every_loss
def test_one_class(name):
    given = scene(10, classes=1)
    value, grads = value_and_grad(name)(to_jax(given))
    np.testing.assert_allclose(value, common.expected(name, given), rtol=1e-6, atol=1e-6)
    assert_finite(grads)


@every_loss
def test_one_voxel(name):
    given = scene(11, voxels=1, edges=4)._replace(where=np.ones(1, bool))  # no edge is real
    value, _ = value_and_grad(name)(to_jax(given))
    np.testing.assert_allclose(value, common.expected(name, given), rtol=1e-6, atol=1e-6)


@every_loss
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_computes_in_f32(name, dtype):
    half = to_jax(scene(12), dtype)
    value, grads = value_and_grad(name)(half)
    full = half._replace(
        **{
            key: jax.tree.map(lambda x: x.astype(jnp.float32), getattr(half, key))
            for key in ("rows", "projection", "class_weights", "omega")
        }
    )
    desired, grads_desired = value_and_grad(name)(full)
    assert value.dtype == jnp.float32
    np.testing.assert_array_equal(value, desired)
    for key, grad in grads.items():
        assert grad.dtype == dtype  # the gradient of an input has the input's dtype
        np.testing.assert_array_equal(grad, grads_desired[key].astype(dtype))


@every_loss
def test_x64_changes_nothing(name):
    given = to_jax(scene(13))
    narrow = value_and_grad(name)(given)
    with jax.enable_x64(True):
        wide = value_and_grad(name)(given)
    assert wide[0].dtype == jnp.float32
    assert_same(wide, narrow)


@every_loss
def test_batches_are_a_vmap(name):
    scenes = [to_jax(scene(seed)) for seed in (14, 15)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *scenes)
    singly = [value_and_grad(name)(single)[0] for single in scenes]
    np.testing.assert_allclose(jax.jit(jax.vmap(LOSSES[name]))(batch), singly, rtol=1e-6)


@every_loss
def test_gradients(name):
    with jax.enable_x64(True):
        given = to_jax(scene(16), np.float64)
        learner = {key: rows for key, rows in given.rows.items() if key.startswith("student")}

        def loss(rows):
            return LOSSES[name](given._replace(rows=given.rows | rows))

        modes = ("rev",) if name in ("relational", "ihd_loss") else ("fwd", "rev")
        check_grads(jax.jit(loss), (learner,), order=1, modes=modes, eps=1e-6)


@every_loss
def test_only_the_student_learns(name):
    _, grads = value_and_grad(name)(to_jax(scene(17)))
    for key in ("teacher", "teacher_features", "experts"):
        assert not grads[key].any()
    assert any(grads[key].any() for key in ("student", "student_features"))


def test_a_class_ruled_out_costs_nothing():
    """Logits of -inf mask classes; 0 * inf is not their loss."""
    logits = jnp.array([[0.0, 1.0, -jnp.inf]])
    value, grad = jax.value_and_grad(
        lambda x: losses.cross_entropy(x, jnp.array([1]), label_smoothing=0.0).sum()
    )(logits)
    assert value == pytest.approx(np.log1p(np.exp(-1))) and np.isfinite(grad).all()
    value, grad = jax.value_and_grad(lambda x: losses.kl_divergence(x, logits).sum())(logits)
    assert value == 0 and np.isfinite(grad).all()
    weights = losses.information_weights(logits, mode="confidence")
    p = np.exp([0.0, 1.0]) / np.exp([0.0, 1.0]).sum()
    np.testing.assert_allclose(weights, [1 + (p * np.log(p)).sum() / np.log(3)], rtol=1e-5)


def test_the_decoupled_loss_of_a_class_ruled_out():
    """By the teacher, by both, and where all classes but the target are."""
    label, out = jnp.array([0]), -jnp.inf
    for teacher, student in (
        ([2.0, 1.0, out], [1.0, 0.0, 0.5]),
        ([2.0, 1.0, out], [1.0, 0.0, out]),
    ):
        given = jnp.array([student]), jnp.array([teacher])
        value, grad = jax.value_and_grad(
            lambda x, t=given[1]: losses.decoupled_kl_divergence(x, t, label).sum()
        )(given[0])
        (p, *_), (q, *_) = (np.exp(x) / np.exp(x).sum() for x in (teacher, student))
        binary = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        # Among the others the teacher is sure of the second.
        among = -np.log(np.exp(student[1]) / np.exp(student[1:]).sum())
        assert value == pytest.approx(binary + among, rel=1e-5, abs=1e-6)
        assert np.isfinite(grad).all()
    sure = jnp.array([[2.0, out, out]])
    alone = losses.decoupled_kl_divergence(jnp.array([[1.0, 0.0, 0.5]]), sure, label)
    expected = -np.log(np.exp(1) / np.exp([1.0, 0.0, 0.5]).sum())
    np.testing.assert_allclose(alone, [expected], rtol=1e-5)
