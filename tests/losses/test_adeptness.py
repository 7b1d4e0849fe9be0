"""Who teaches what: adeptness from calibration IoU, and the loss that uses it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import losses

from . import oracle
from .common import scene, to_jax

M, C = 4, 6
both_modes = pytest.mark.parametrize("mode", ["hard", "soft"])


def calibration(seed):
    """IoU of M experts and a student; class 2 is not in the split, class 4 beats all experts."""
    rng = np.random.default_rng(seed)
    iou, student = rng.uniform(0.2, 0.9, (M, C)), rng.uniform(0.1, 0.6, C)
    iou[0, 2] = np.nan  # NaN for one is enough: the others predicted a class that is not there
    student[4] = 0.95
    counts = rng.integers(1, 5000, C)
    counts[2] = 0
    return iou.astype(np.float32), student.astype(np.float32), counts.astype(np.int32)


@both_modes
@pytest.mark.parametrize("with_student", [False, True])
@pytest.mark.parametrize("with_counts", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_agrees_with_the_oracle(mode, with_student, with_counts, seed):
    iou, student, counts = calibration(seed)
    options = {"mode": mode, "temperature": 0.1}
    if with_student:
        options |= {"student_iou": student, "margin": 0.05}
    if with_counts:
        options |= {"counts": counts, "shrinkage": 300.0}
    with jax.enable_x64(True):
        wide = {
            key: value.astype(np.float64) if key == "student_iou" else value
            for key, value in options.items()
        }
        actual = losses.adeptness(iou.astype(np.float64), **wide)
    desired = oracle.adeptness(iou, **options)
    np.testing.assert_allclose(actual, desired, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(losses.adeptness(iou, **options), desired, rtol=1e-5, atol=1e-6)


@both_modes
def test_each_class_sums_to_one_or_zero(mode):
    iou, student, counts = calibration(3)
    omega = losses.adeptness(iou, mode=mode, student_iou=student, margin=0.1, counts=counts)
    sums = omega.sum(0)
    assert (omega >= 0).all()
    np.testing.assert_allclose(sums[jnp.round(sums) == 1], 1, rtol=1e-6)
    assert set(np.round(np.asarray(sums), 6)) == {0, 1}
    assert sums[4] == 0
    np.testing.assert_array_equal(omega[:, 2], np.full(M, 1 / M))


@both_modes
def test_the_order_of_experts_does_not_matter(mode):
    iou, student, counts = calibration(4)
    order = np.array([2, 0, 3, 1])
    options = {"mode": mode, "student_iou": student, "counts": counts}
    np.testing.assert_allclose(
        losses.adeptness(iou[order], **options),
        losses.adeptness(iou, **options)[order],
        rtol=1e-5,
        atol=1e-7,
    )


def test_soft_becomes_hard_when_cold_and_the_mean_when_hot():
    iou, _, _ = calibration(5)
    cold = losses.adeptness(iou, mode="soft", temperature=1e-4)
    np.testing.assert_allclose(cold, losses.adeptness(iou), atol=1e-6)
    hot = losses.adeptness(iou, mode="soft", temperature=1e4)
    np.testing.assert_allclose(hot, np.full((M, C), 1 / M), atol=1e-4)


def test_equal_experts_give_the_class_to_the_first():
    omega = losses.adeptness(jnp.full((3, 2), 0.5))
    np.testing.assert_array_equal(omega, [[1, 1], [0, 0], [0, 0]])


def test_margin_is_exceeded_not_met():
    iou, student = jnp.array([[0.75, 0.75]]), jnp.array([0.5, 0.25])
    omega = losses.adeptness(iou, student_iou=student, margin=0.25)
    np.testing.assert_array_equal(omega, [[0, 1]])


def test_without_evidence_the_better_expert_on_the_whole_comes_first():
    """Expert 1 is ahead in the rare class by chance, expert 0 everywhere else."""
    iou = jnp.array([[0.8, 0.7, 0.3], [0.6, 0.5, 0.4]])
    np.testing.assert_array_equal(losses.adeptness(iou)[:, 2], [0, 1])
    rare = losses.adeptness(iou, counts=jnp.array([9000, 9000, 20]))
    np.testing.assert_array_equal(rare, [[1, 1, 1], [0, 0, 0]])
    plenty = losses.adeptness(iou, counts=jnp.array([9000, 9000, 9000]))
    np.testing.assert_array_equal(plenty[:, 2], [0, 1])


@both_modes
def test_no_class_in_the_split(mode):
    omega = losses.adeptness(jnp.full((M, C), jnp.nan), mode=mode, counts=jnp.zeros(C, int))
    np.testing.assert_array_equal(omega, np.full((M, C), 1 / M))


@both_modes
def test_one_class_and_one_expert(mode):
    assert losses.adeptness(jnp.array([[0.4]]), mode=mode) == 1


@both_modes
def test_jit(mode):
    iou, student, counts = calibration(6)

    def under(iou, student, margin, counts):
        return losses.adeptness(iou, mode=mode, student_iou=student, margin=margin, counts=counts)

    arguments = iou, student, 0.05, counts
    np.testing.assert_allclose(jax.jit(under)(*arguments), under(*arguments), rtol=1e-5, atol=1e-7)


# --- the loss --------------------------------------------------------------------------------


def test_each_voxel_hears_the_expert_of_its_class():
    given = scene(30)
    s, labels = to_jax(given), np.maximum(given.labels, 0)
    omega = np.eye(3, 5, dtype=np.float32)  # classes 3 and 4 have no expert
    values = losses.adept_divergence(s.rows["student"], s.rows["experts"], omega, labels)
    their_expert = s.rows["experts"][np.minimum(labels, 2), np.arange(len(labels))]
    desired = losses.kl_divergence(s.rows["student"], their_expert, where=jnp.asarray(labels < 3))
    np.testing.assert_allclose(values, desired, rtol=1e-6)


def test_an_expert_that_is_not_adept_is_not_heard():
    given = scene(31)
    s, labels = to_jax(given), np.maximum(given.labels, 0)
    omega = np.eye(3, 5, dtype=np.float32)
    spoiled = s.rows["experts"].at[1].set(jnp.where((labels == 1)[:, None], 0.5, jnp.nan))

    def loss(student):
        return losses.asd_loss(student, spoiled, omega, labels)

    value, grad = jax.value_and_grad(loss)(s.rows["student"])
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_a_broken_expert_has_no_part_in_the_consensus():
    given = scene(32)
    s, unlabelled = to_jax(given), np.full(len(given.labels), -1, np.int32)
    omega = np.zeros((3, 5), np.float32)
    omega[0] = 1
    sound = losses.asd_loss(s.rows["student"], s.rows["experts"], omega, unlabelled)
    spoiled = s.rows["experts"].at[1].set(jnp.nan)
    assert losses.asd_loss(s.rows["student"], spoiled, omega, unlabelled) == sound


def test_consensus_is_the_label_that_the_experts_agree_on():
    experts = jnp.array([[[4.0, 0.0, 3.0]], [[0.0, 3.0, 3.0]]])  # [2, 1, 3]
    omega = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # nobody may say class 2
    student = jnp.array([[0.1, 0.2, 0.3]])

    def loss(label, **options):
        return losses.asd_loss(student, experts, omega, jnp.array([label]), **options)

    # p_0 = .72 of expert 0 against p_1 = .49 of expert 1
    assert loss(-1) == loss(0) and loss(0) != loss(1)
    assert loss(-1, unlabelled="ignore") == 0


def test_a_class_without_expert_counts_in_the_mean():
    student, experts = jnp.zeros((2, 2)), jnp.array([[[2.0, 0.0], [2.0, 0.0]]])
    omega = jnp.array([[1.0, 0.0]])
    taught = losses.asd_loss(student, experts, omega, jnp.array([0, 0]))
    half = losses.asd_loss(student, experts, omega, jnp.array([0, 1]))
    np.testing.assert_allclose(half, taught / 2, rtol=1e-6)
