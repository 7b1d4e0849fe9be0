"""Of any shape, mask and labels (shapes from a short list: each is compiled anew)."""

import functools

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given

from haskd_jax import losses

from . import oracle

SHAPES = [(1, 1), (1, 3), (7, 1), (7, 3)]
LOGITS = st.floats(-1e4, 1e4, width=16) | st.floats(-4, 4, width=16)
IOU = st.floats(0, 1, width=16) | st.just(np.nan)


@st.composite
def voxels(draw):
    """Logits of a student and a teacher, labels and a mask."""
    shape = draw(st.sampled_from(SHAPES))
    student, teacher = (draw(hnp.arrays(np.float32, shape, elements=LOGITS)) for _ in range(2))
    labels = draw(hnp.arrays(np.int32, shape[0], elements=st.integers(-1, shape[1] - 1)))
    where = draw(hnp.arrays(bool, shape[0]))
    return student, teacher, labels, where


@jax.jit
def all_values(student, teacher, labels, where):
    def per_voxel(student):
        return {
            "cross_entropy": losses.cross_entropy(student, labels, where=where),
            "kl_divergence": losses.kl_divergence(student, teacher, where=where),
            "decoupled": losses.decoupled_kl_divergence(student, teacher, labels, where=where),
            "cosine": losses.feature_cosine(student, teacher, where=where),
            "lovasz_softmax": losses.lovasz_softmax(student, labels, where=where),
        }

    def total(student):
        return sum(jnp.sum(value) for value in per_voxel(student).values())

    return per_voxel(student), jax.grad(total)(student)


@given(voxels())
def test_losses_are_finite_not_negative_and_zero_where_masked(case):
    student, teacher, labels, where = case
    values, grad = all_values(student, teacher, labels, where)
    rounding = 1e-6 * max(1, np.abs(student).max(), np.abs(teacher).max())
    for name, value in values.items():
        assert np.isfinite(value).all(), name
        assert (value >= -rounding).all(), name
        if name != "lovasz_softmax":
            assert not value[~where].any(), name
    assert 0 <= values["lovasz_softmax"] <= 1 + 1e-6
    assert not values["cross_entropy"][labels < 0].any()
    assert np.isfinite(grad).all()
    assert not grad[~where].any()


@given(voxels())
def test_losses_agree_with_the_oracle(case):
    student, teacher, labels, where = case
    values, _ = all_values(student, teacher, labels, where)
    counted = where & (labels >= 0)
    for i in np.flatnonzero(where):
        scale = max(1, np.abs(student[i]).max(), np.abs(teacher[i]).max())
        wide = student[i].astype(np.float64), teacher[i].astype(np.float64)
        desired = oracle.kl_divergence(*wide, 1.0)
        np.testing.assert_allclose(values["kl_divergence"][i], desired, atol=1e-6 * scale)
        if counted[i]:
            desired = oracle.cross_entropy(wide[0], labels[i], np.ones(len(wide[0])), 0.0)
            np.testing.assert_allclose(values["cross_entropy"][i], desired, atol=1e-6 * scale)
    desired = oracle.lovasz_softmax(student[counted], labels[counted])
    np.testing.assert_allclose(values["lovasz_softmax"], desired, atol=1e-6)


@functools.partial(jax.jit, static_argnums=1)
def adeptness(iou, mode, **options):
    return losses.adeptness(iou, mode=mode, **options)


@given(st.data())
def test_adeptness_shares_each_class_or_gives_it_to_nobody(data):
    shape = data.draw(st.sampled_from([(1, 1), (3, 1), (1, 4), (3, 4)]))
    iou = data.draw(hnp.arrays(np.float32, shape, elements=IOU))
    student = data.draw(hnp.arrays(np.float32, shape[1], elements=IOU))
    counts = data.draw(hnp.arrays(np.int32, shape[1], elements=st.integers(0, 10**6)))
    for mode in ("hard", "soft"):
        omega = np.asarray(adeptness(iou, mode, student_iou=student, counts=counts))
        sums = omega.sum(0)
        assert (omega >= 0).all()
        assert (np.isclose(sums, 1, atol=1e-5) | (sums == 0)).all()
        missing = np.isnan(iou).any(0) | np.isnan(student) | (counts == 0)
        np.testing.assert_array_equal(omega[:, missing], np.float32(1 / shape[0]))
        if mode == "hard":
            assert set(omega[:, ~missing].ravel()) <= {0, 1}


@given(
    hnp.arrays(np.float32, 7, elements=st.floats(-1e3, 1e3, width=32)),
    hnp.arrays(np.float32, 7, elements=st.floats(0, 1e3, width=16)),
    hnp.arrays(bool, 7),
)
def test_masked_mean_is_the_average_of_what_counts(values, weights, where):
    mean = losses.masked_mean(values, where=where, weights=weights)
    counted = weights * where
    desired = np.average(values.astype(np.float64), weights=counted) if counted.any() else 0
    np.testing.assert_allclose(mean, desired, rtol=1e-6, atol=1e-3)
