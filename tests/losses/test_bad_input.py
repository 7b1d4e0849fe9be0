"""What is wrong is refused with a ValueError that names the argument and the value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import losses

from .common import scene, to_jax

pytestmark = pytest.mark.usefixtures("unchecked_annotations")

S = to_jax(scene(40))
STUDENT, TEACHER, EXPERTS = S.rows["student"], S.rows["teacher"], S.rows["experts"]
FEATURES = S.rows["student_features"], S.rows["teacher_features"]
V, C = STUDENT.shape
ZEROS = jnp.zeros(V, jnp.int32)
SHORT = jnp.ones(V - 1, bool)
IOU = jnp.full((3, C), 0.5)


def relational(**changes):
    return losses.relational(*FEATURES, S.graph()._replace(**changes))


def ihd(**options):
    return losses.ihd_loss(STUDENT, TEACHER, **options)


def asd(omega=S.omega, labels=ZEROS, experts=EXPERTS, **options):
    return losses.asd_loss(STUDENT, experts, omega, labels, **options)


REFUSED = {
    "short labels": (r"labels .*\(11,\)", lambda: losses.cross_entropy(STUDENT, ZEROS[1:])),
    "label C": (
        "labels holds 5 .*1 of 12",
        lambda: losses.cross_entropy(STUDENT, ZEROS.at[3].set(5)),
    ),
    "label -2": ("labels holds -2", lambda: losses.lovasz_softmax(STUDENT, ZEROS.at[3].set(-2))),
    "label 255": ("holds 255", lambda: asd(labels=np.full(V, 255, np.uint8))),
    "labels float": (
        "labels has dtype float32",
        lambda: losses.cross_entropy(STUDENT, STUDENT[:, 0]),
    ),
    "where short": (r"where .*\(11,\)", lambda: losses.lovasz_softmax(STUDENT, ZEROS, where=SHORT)),
    "where integers": (
        "where has dtype int32",
        lambda: losses.kl_divergence(STUDENT, TEACHER, where=ZEROS),
    ),
    "class weights": (
        r"class_weights .*\(4,\)",
        lambda: losses.cross_entropy(STUDENT, ZEROS, class_weights=jnp.ones(4)),
    ),
    "negative class weights": (
        "class_weights is .*-1",
        lambda: losses.cross_entropy(STUDENT, ZEROS, class_weights=-jnp.ones(C)),
    ),
    "smoothing": (
        "label_smoothing is 1",
        lambda: losses.cross_entropy(STUDENT, ZEROS, label_smoothing=1.0),
    ),
    "teacher's classes": (
        r"teacher_logits .*\(12, 4\)",
        lambda: losses.kl_divergence(STUDENT, TEACHER[:, 1:]),
    ),
    "temperature 0": (
        "temperature is 0",
        lambda: losses.kl_divergence(STUDENT, TEACHER, temperature=0.0),
    ),
    "temperature NaN": ("temperature is nan", lambda: asd(temperature=float("nan"))),
    "decoupled temperature": (
        "temperature is -1",
        lambda: losses.decoupled_kl_divergence(STUDENT, TEACHER, ZEROS, temperature=-1.0),
    ),
    "decoupled weight": (
        "non_target_weight is -1",
        lambda: losses.decoupled_kl_divergence(STUDENT, TEACHER, ZEROS, non_target_weight=-1.0),
    ),
    "widths": ("teacher_features .*projection", lambda: losses.feature_cosine(*FEATURES)),
    "projection": (
        r"projection .*\(4, 6\)",
        lambda: losses.feature_cosine(*FEATURES, projection=S.projection.T),
    ),
    "feature rows": (
        r"teacher_features .*\(11, 4\)",
        lambda: losses.feature_cosine(FEATURES[0], FEATURES[1][1:], projection=S.projection),
    ),
    "relational rows": (
        r"teacher_features .*\(11, 4\)",
        lambda: losses.relational(FEATURES[0], FEATURES[1][1:], S.graph()),
    ),
    "no padding graph": ("pad_with_graphs", lambda: relational(n_edge=jnp.array([30]))),
    "no edges": ("no edges", lambda: relational(senders=None)),
    "mode": ("mode is 'sure'", lambda: losses.information_weights(TEACHER, mode="sure")),
    "not seen": ("seen is None", lambda: losses.information_weights(TEACHER, mode="seen")),
    "seen short": (
        r"seen .*\(11,\)",
        lambda: losses.information_weights(TEACHER, mode="seen", seen=SHORT),
    ),
    "weights": (r"weights .*\(3,\)", lambda: ihd(weights=jnp.ones(3))),
    "negative weights": (
        "weights is",
        lambda: losses.masked_mean(jnp.ones(2), weights=jnp.array([1.0, -1.0])),
    ),
    "one side": ("neither", lambda: ihd(student_features=FEATURES[0])),
    "graph alone": ("need student_features", lambda: ihd(graph=S.graph())),
    "projection alone": ("need student_features", lambda: ihd(projection=S.projection)),
    "seen of numbers": (
        "seen has dtype int32",
        lambda: losses.information_weights(TEACHER, mode="seen", seen=jnp.ones(V, jnp.int32)),
    ),
    "unseen weight": (
        "unseen_weight is -3",
        lambda: losses.information_weights(
            TEACHER, mode="seen", seen=jnp.ones(V, bool), unseen_weight=-3.0
        ),
    ),
    "one row of experts": (
        r"iou has shape \(5,\), expected \[experts",
        lambda: losses.adeptness(IOU[0]),
    ),
    "two temperatures": (
        r"temperature has shape \(2,\), expected one number",
        lambda: losses.kl_divergence(TEACHER, TEACHER, temperature=np.ones(2)),
    ),
    "no expert": (r"iou has shape \(0, 5\)", lambda: losses.adeptness(IOU[:0])),
    "percent": ("iou holds 50", lambda: losses.adeptness(100 * IOU)),
    "student percent": (
        "student_iou holds 50",
        lambda: losses.adeptness(IOU, student_iou=100 * IOU[0]),
    ),
    "student's classes": (
        r"student_iou .*\(3,\)",
        lambda: losses.adeptness(IOU, student_iou=IOU[0, :3]),
    ),
    "counts": (r"counts .*\(2,\)", lambda: losses.adeptness(IOU, counts=jnp.ones(2))),
    "negative counts": ("counts is", lambda: losses.adeptness(IOU, counts=-jnp.ones(C))),
    "cold": ("temperature is 0", lambda: losses.adeptness(IOU, mode="soft", temperature=0.0)),
    "shrinkage": ("shrinkage is 0", lambda: losses.adeptness(IOU, shrinkage=0.0)),
    "margin": ("margin is 0.1.* student_iou", lambda: losses.adeptness(IOU, margin=0.1)),
    "negative margin": (
        "margin is -0.1",
        lambda: losses.adeptness(IOU, student_iou=IOU[0], margin=-0.1),
    ),
    "adeptness mode": ("mode is 'mean'", lambda: losses.adeptness(IOU, mode="mean")),
    "adeptness classes": (r"adeptness .*\(3, 4\)", lambda: asd(omega=S.omega[:, :4])),
    "adeptness rows": ("adeptness of class 0 sums to 3", lambda: asd(omega=jnp.ones((3, C)))),
    "adeptness negative": (
        "adeptness is",
        lambda: asd(omega=jnp.stack([jnp.full(C, 2.0), jnp.full(C, -1.0), jnp.zeros(C)])),
    ),
    "expert voxels": (r"expert_logits .*\(3, 11, 5\)", lambda: asd(experts=EXPERTS[:, 1:])),
    "unlabelled": ("unlabelled is 'guess'", lambda: asd(unlabelled="guess")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(case):
    message, call = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_wrong_in_shape_is_refused_under_jit_too():
    with pytest.raises(ValueError, match="teacher_logits"):
        jax.jit(losses.kl_divergence)(STUDENT, TEACHER[:, 1:])


def test_what_is_right_is_not_refused():
    assert np.isfinite(asd())
    assert np.isfinite(asd(omega=jnp.zeros((3, C))))  # nobody is adept at anything
    assert np.isfinite(asd(omega=S.omega.astype(jnp.bfloat16)))
