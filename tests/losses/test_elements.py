"""Element losses one value at a time, and what they say of each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import losses
from haskd_jax.losses import _relational

from . import oracle
from .common import scene, to_jax

V, C = 12, 5


@pytest.fixture(scope="module")
def given():
    return scene(20)


@pytest.fixture(scope="module")
def student(given):
    return to_jax(given).rows["student"]


@pytest.fixture(scope="module")
def teacher(given):
    return to_jax(given).rows["teacher"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_values(given, student, smoothing):
    values = losses.cross_entropy(student, jnp.asarray(given.labels), label_smoothing=smoothing)
    desired = [
        oracle.cross_entropy(row, y, np.ones(C), smoothing) if y >= 0 else 0.0
        for row, y in zip(given.rows["student"], given.labels, strict=True)
    ]
    np.testing.assert_allclose(values, desired, rtol=1e-6, atol=1e-6)


def test_cross_entropy_of_images(student):
    """Any leading axes will do, as the auxiliary loss of the images needs."""
    labels = jnp.arange(V, dtype=jnp.uint8) % C
    flat = losses.cross_entropy(student, labels)
    images = losses.cross_entropy(student.reshape(2, 3, 2, C), labels.reshape(2, 3, 2))
    np.testing.assert_array_equal(images.reshape(-1), flat)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_divergence_values(given, student, teacher, temperature):
    values = losses.kl_divergence(student, teacher, temperature=temperature)
    desired = [
        oracle.kl_divergence(s, t, temperature)
        for s, t in zip(given.rows["student"], given.rows["teacher"], strict=True)
    ]
    np.testing.assert_allclose(values, desired, rtol=1e-6, atol=1e-6)


def test_kl_divergence_of_a_model_with_itself_is_zero(student):
    value, grad = jax.value_and_grad(lambda s: losses.kl_divergence(s, student).sum())(student)
    assert value == 0
    np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_temperature_keeps_the_size_of_small_gradients(student, teacher):
    def slope(temperature):
        small = jax.grad(
            lambda s: losses.kl_divergence(s, 1e-2 * teacher, temperature=temperature).sum()
        )
        return small(1e-2 * student)

    np.testing.assert_allclose(slope(8.0), slope(1.0), atol=2e-4)
    assert np.abs(slope(1.0)).max() > 5e-3


def test_decoupled_terms_make_up_the_kl(given, student, teacher):
    """KL = TCKD + (1 - p_target) NCKD."""
    labels = jnp.asarray(np.maximum(given.labels, 0))

    def term(alpha, beta):
        return losses.decoupled_kl_divergence(
            student, teacher, labels, target_weight=alpha, non_target_weight=beta
        )

    p = jax.nn.softmax(teacher)[jnp.arange(V), labels]
    np.testing.assert_allclose(
        term(1.0, 0.0) + (1 - p) * term(0.0, 1.0),
        losses.kl_divergence(student, teacher),
        rtol=1e-5,
        atol=1e-6,
    )


def test_decoupled_target_of_an_unlabelled_voxel_is_the_teachers(student, teacher):
    unlabelled = losses.decoupled_kl_divergence(student, teacher, jnp.full(V, -1))
    top = jnp.argmax(teacher, axis=-1)
    np.testing.assert_array_equal(unlabelled, losses.decoupled_kl_divergence(student, teacher, top))


def test_feature_cosine_of_known_directions():
    a = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    b = jnp.array([[5.0, 0.0], [0.0, 2.0], [-0.1, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(losses.feature_cosine(a, b), [0, 1, 2, 1], atol=1e-6)


def test_features_without_direction_have_no_gradient():
    grad = jax.grad(lambda s: losses.feature_cosine(s, jnp.ones((2, 3))).sum())
    assert not grad(jnp.array([[0.0, 0.0, 0.0], [1e-9, 0.0, 0.0]])).any()


def test_projection_learns():
    given = to_jax(scene(21))
    grad = jax.grad(
        lambda p: losses.feature_cosine(
            given.rows["student_features"], given.rows["teacher_features"], projection=p
        ).sum()
    )(given.projection)
    assert grad.shape == given.projection.shape and grad.any()


def test_edge_mask():
    given = scene(22)
    graph = to_jax(given).graph()
    counted = losses.edge_mask(graph, V, where=jnp.asarray(given.where))
    pairs = list(zip(given.senders.tolist(), given.receivers.tolist(), strict=True))
    assert [pair for pair, c in zip(pairs, counted, strict=True) if c] == given.real_edges()
    assert 0 < counted.sum() < losses.edge_mask(graph, V).sum() < given.n_edge[0]


def test_garbage_edges_change_nothing():
    """Whatever padding edges point at: no node at all, or two voxels that count."""
    given = scene(23)
    senders, receivers = given.senders.copy(), given.receivers.copy()
    senders[given.n_edge[0] :] = [-7, 2**31 - 1, 1, V]
    receivers[given.n_edge[0] :] = [3, 5, 2, -(2**31)]
    spoiled = given._replace(senders=senders, receivers=receivers)

    def relations(s):
        return losses.relational(
            s.rows["student_features"], s.rows["teacher_features"], s.graph(), where=s.where
        )

    np.testing.assert_array_equal(relations(to_jax(spoiled)), relations(to_jax(given)))


@pytest.mark.parametrize("edges", [0, 1, 9, 10, 27])
def test_edges_in_chunks(edges, monkeypatch):
    """Values and gradients do not depend on how many edges are looked at together."""
    rng = np.random.default_rng(edges)
    rows = jnp.asarray(rng.normal(size=(V, 3)), jnp.float32)
    i, j = jnp.asarray(rng.integers(0, V, (2, edges)), jnp.int32)
    slope = jnp.asarray(rng.normal(size=edges), jnp.float32)
    monkeypatch.setattr(_relational, "_CHUNK", 9)
    products, pull = jax.vjp(lambda r: _relational._products(r, i, j), rows)
    desired, pull_desired = jax.vjp(lambda r: jnp.sum(r[i] * r[j], axis=-1), rows)
    np.testing.assert_allclose(products, desired, rtol=1e-6)
    np.testing.assert_allclose(pull(slope)[0], pull_desired(slope)[0], rtol=1e-5, atol=1e-6)


def test_information_weights(given, teacher):
    seen = jnp.asarray(given.where)
    assert (losses.information_weights(teacher) == 1).all()
    np.testing.assert_allclose(
        losses.information_weights(teacher, mode="confidence"),
        [oracle.confidence(row) for row in given.rows["teacher"]],
        rtol=1e-6,
        atol=1e-6,
    )
    weights = losses.information_weights(teacher, mode="seen", seen=seen, unseen_weight=0.25)
    np.testing.assert_array_equal(weights, np.where(given.where, 1, 0.25))
    for mode in ("none", "confidence", "seen"):
        masked = losses.information_weights(teacher, mode=mode, seen=seen, where=~seen)
        assert not masked[seen].any() and (masked[~seen] > 0).all()


def test_information_weights_of_one_class_are_one():
    np.testing.assert_array_equal(
        losses.information_weights(jnp.zeros((3, 1)), mode="confidence"), np.ones(3)
    )


def test_masked_mean_divides_by_the_weights_that_count():
    values, weights = jnp.array([1.0, 5.0, 9.0, 7.0]), jnp.array([1.0, 3.0, 0.0, 2.0])
    where = jnp.array([True, True, True, False])
    mean = losses.masked_mean(values, where=where, weights=weights)
    assert mean == (1 * 1 + 3 * 5) / (1 + 3)
    scaled = losses.masked_mean(values, where=where, weights=10 * weights)
    np.testing.assert_allclose(scaled, mean, rtol=1e-6)


def test_masked_mean_ignores_what_has_no_weight():
    values, weights = jnp.array([2.0, jnp.nan, jnp.inf]), jnp.array([1.0, 0.0, jnp.nan])
    where = jnp.array([True, True, False])
    value, grad = jax.value_and_grad(lambda v: losses.masked_mean(v, where=where, weights=weights))(
        values
    )
    assert value == 2
    np.testing.assert_array_equal(grad, [1, 0, 0])


def test_ihd_terms_are_what_the_element_losses_say(given):
    s = to_jax(given)
    features = s.rows["student_features"], s.rows["teacher_features"]
    total, terms = losses.ihd_loss(
        s.rows["student"],
        s.rows["teacher"],
        student_features=features[0],
        teacher_features=features[1],
        projection=s.projection,
        graph=s.graph(),
        where=s.where,
        feature_weight=0.5,
        relation_weight=0.0,
    )
    assert list(terms) == ["logits", "features", "relations"]
    np.testing.assert_allclose(total, terms["logits"] + 0.5 * terms["features"], rtol=1e-6)
    only_logits, alone = losses.ihd_loss(s.rows["student"], s.rows["teacher"], where=s.where)
    assert list(alone) == ["logits"] and only_logits == terms["logits"]


def test_ihd_takes_another_divergence(given, student, teacher):
    def decoupled(*args, **options):
        return losses.decoupled_kl_divergence(
            *args, **options, labels=jnp.asarray(given.labels), non_target_weight=3.0
        )

    total, _ = losses.ihd_loss(student, teacher, divergence=decoupled, temperature=2.0)
    desired = losses.masked_mean(decoupled(student, teacher, temperature=2.0))
    np.testing.assert_allclose(total, desired, rtol=1e-6)
