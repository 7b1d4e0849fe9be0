"""Metrics against loops over points, in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax.train import metrics

C = 4


def draw(seed, count=300):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, C - 1, count).astype(np.int32)  # the last class does not occur
    predictions = rng.integers(-1, C + 1, count).astype(np.int32)  # -1 and C are none
    return labels, predictions


def count_in_a_loop(labels, predictions, where):
    table = [[0] * (C + 1) for _ in range(C)]
    for label, prediction, counted in zip(labels, predictions, where, strict=True):
        if label >= 0 and counted:
            table[label][prediction if 0 <= prediction < C else C] += 1
    return table


@pytest.mark.parametrize("seed", range(3))
def test_confusion_matrices_count_points(seed):
    labels, predictions = draw(seed)
    where = np.random.default_rng(seed).random(len(labels)) < 0.7
    compiled = jax.jit(metrics.confusion_matrix, static_argnums=2)
    found = compiled(jnp.asarray(labels), jnp.asarray(predictions), C, where=jnp.asarray(where))
    assert found.dtype == jnp.int32
    assert found.tolist() == count_in_a_loop(labels, predictions, where)
    whole = metrics.count_on_host(labels, predictions, C)
    assert whole.dtype == np.int64
    assert whole.tolist() == count_in_a_loop(labels, predictions, np.ones(len(labels), bool))


def test_garbage_in_padding_changes_nothing():
    labels, predictions = draw(0)
    padding = jnp.full(50, 2, jnp.int32)
    padded = metrics.confusion_matrix(
        jnp.concatenate([jnp.asarray(labels), padding]),
        jnp.concatenate([jnp.asarray(predictions), padding]),
        C,
        where=jnp.arange(len(labels) + 50) < len(labels),
    )
    assert padded.tolist() == metrics.count_on_host(labels, predictions, C).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_scores_follow_their_definitions(seed):
    labels, predictions = draw(seed)
    confusion = metrics.count_on_host(labels, predictions, C)
    expected_iou, expected_accuracy, hits, total = [], [], 0, 0
    for c in range(C):
        truth = {i for i, label in enumerate(labels) if label == c}
        # What has no truth is not scored: a prediction there is not even wrong.
        said = {i for i, p in enumerate(predictions) if p == c and labels[i] >= 0}
        expected_iou.append(len(truth & said) / len(truth | said))
        hits, total = hits + len(truth & said), total + len(truth)
        if truth:
            expected_accuracy.append(len(truth & said) / len(truth))
    np.testing.assert_allclose(metrics.iou(confusion), expected_iou, rtol=1e-12)
    # The last class is predicted and never there: it has an IoU of 0 and no part in the mean.
    assert expected_iou[-1] == 0
    assert metrics.mean_iou(confusion) == pytest.approx(np.mean(expected_iou[:-1]))
    assert metrics.accuracy(confusion) == pytest.approx(hits / total)
    assert metrics.mean_accuracy(confusion) == pytest.approx(np.mean(expected_accuracy))


def test_a_prediction_of_no_class_misses_the_truth_and_accuses_no_class():
    labels = np.array([0, 0, 1], np.int32)
    confusion = metrics.count_on_host(labels, np.array([0, 9, 1], np.int32), 2)
    assert metrics.iou(confusion).tolist() == [0.5, 1.0]
    assert metrics.accuracy(confusion) == pytest.approx(2 / 3)


def test_scenes_are_summed_before_dividing():
    one = metrics.count_on_host(np.array([0] * 9 + [1]), np.array([0] * 10), 2)
    two = metrics.count_on_host(np.array([1] * 10), np.array([1] * 10), 2)
    assert metrics.iou(one + two)[1] == pytest.approx(10 / 11)
    assert np.mean([metrics.iou(one)[1], metrics.iou(two)[1]]) == pytest.approx(0.5)


def test_large_counts_stay_exact():
    most = 2**53 + 1  # beyond what float64 counts
    confusion = np.array([[most, 0], [0, 1]], np.int64)
    assert metrics.iou(confusion).tolist() == [1.0, 1.0]


def test_nothing_labelled_is_nan():
    nothing = metrics.count_on_host(np.full(5, -1), np.zeros(5, int), 2)
    assert nothing.sum() == 0
    assert np.isnan(metrics.iou(nothing)).all()
    for score in (metrics.mean_iou, metrics.accuracy, metrics.mean_accuracy):
        assert np.isnan(score(nothing))


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match="labels: 7, there are 4 classes"):
        metrics.count_on_host(np.array([0, 7]), np.array([0, 0]), C)


def test_a_matrix_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"confusion: shape \(2, 4\)"):
        metrics.iou(np.zeros((2, 4), int))
