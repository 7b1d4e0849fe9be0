"""Distances between a student and a teacher, one value per voxel."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, ScalarLike

from haskd_jax.losses._arguments import (
    check_feature_rows,
    check_not_negative,
    check_positive,
    check_shape,
    scaled,
    to_float,
    to_labels,
    to_mask,
    zero_rows,
)


def kl_divergence(
    student_logits: Float[ArrayLike, "*V C"],
    teacher_logits: Float[ArrayLike, "*V C"],
    *,
    temperature: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*V"] | None = None,
) -> Float[Array, "*V"]:
    """Distillation from logits: tau^2 KL(teacher || student) at temperature tau, per voxel.

    The factor tau^2 keeps the size of gradients about the same at all temperatures.

    Args:
        student_logits: [*V, C].
        teacher_logits: [*V, C]; gets no gradient.
        temperature: tau > 0, by which both logits are divided.
        where: [*V] True for voxels that count; default all.

    Returns:
        [*V] in f32 (f64 if an input is f64); 0 where masked.

    Raises:
        ValueError: for shapes that disagree or a temperature that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> student, teacher = jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 0.0]])
        >>> print(losses.kl_divergence(student, teacher, temperature=2.0).round(4))
        [0.361]

    References:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015
        (https://arxiv.org/abs/1503.02531).
    """
    student, teacher, where = _logit_pair(student_logits, teacher_logits, temperature, where)
    log_q = jax.nn.log_softmax(scaled(student, temperature))
    log_p = jax.nn.log_softmax(scaled(teacher, temperature))
    values = _divergence(log_p, log_q) * jnp.asarray(temperature, log_p.dtype) ** 2
    return jnp.where(where, values, jnp.zeros_like(values))


def _divergence(log_p: Float[Array, "*V C"], log_q: Float[Array, "*V C"]) -> Float[Array, "*V"]:
    """KL(p || q): a class that p gives no share adds nothing, not 0 * inf."""
    p = jnp.exp(log_p)
    ruled_out = p == 0
    return jnp.sum(jnp.where(ruled_out, 0, p * jnp.where(ruled_out, 0, log_p - log_q)), axis=-1)


def decoupled_kl_divergence(
    student_logits: Float[ArrayLike, "*V C"],
    teacher_logits: Float[ArrayLike, "*V C"],
    labels: Integer[ArrayLike, "*V"],
    *,
    temperature: ScalarLike = 1.0,
    target_weight: ScalarLike = 1.0,
    non_target_weight: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*V"] | None = None,
) -> Float[Array, "*V"]:
    """Decoupled distillation (DKD): how sure the teacher is, and what else it considers, apart.

    tau^2 (alpha TCKD + beta NCKD): TCKD is the KL of the two probabilities (target, all others),
    NCKD the KL among the other classes alone. The plain KL is TCKD + (1 - p_target) NCKD, so that a
    sure teacher says nothing about the others; here beta does not depend on how sure it is.

    The paper needs a label for every voxel. Where there is none (-1), the target is the teacher's
    most probable class: our instantiation, so that it can replace `kl_divergence` in `ihd_loss`.

    Args:
        student_logits: [*V, C].
        teacher_logits: [*V, C]; gets no gradient.
        labels: [*V] integers in [-1, C).
        temperature: tau > 0, by which both logits are divided.
        target_weight: alpha.
        non_target_weight: beta.
        where: [*V] True for voxels that count; default all.

    Returns:
        [*V] in f32 (f64 if an input is f64); 0 where masked.

    Raises:
        ValueError: for shapes that disagree, labels outside [-1, C), a temperature that is not
            positive or a negative weight.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> student, teacher = jnp.array([[1.0, 0.0, 0.0]]), jnp.array([[4.0, 1.0, 0.0]])
        >>> print(losses.decoupled_kl_divergence(student, teacher, jnp.array([0])).round(4))
        [0.4448]
        >>> from functools import partial  # in place of the KL, on voxels without labels
        >>> decoupled = partial(losses.decoupled_kl_divergence, labels=jnp.array([-1]))
        >>> total, terms = losses.ihd_loss(student, teacher, divergence=decoupled)
        >>> print(f"{total:.4f}")
        0.4448

    References:
        Zhao et al., Decoupled Knowledge Distillation, CVPR 2022 (https://arxiv.org/abs/2203.08679).
    """
    check_not_negative("target_weight", target_weight)
    check_not_negative("non_target_weight", non_target_weight)
    *shape, num_classes = jnp.shape(student_logits)
    labels, in_range = to_labels(labels, tuple(shape), num_classes)
    where = to_mask(where, tuple(shape)) & in_range
    student, teacher, where = _logit_pair(student_logits, teacher_logits, temperature, where)
    if num_classes == 1:  # no other class to compare with
        return jnp.zeros(where.shape, student.dtype)

    labels = jnp.where(labels < 0, jnp.argmax(teacher, axis=-1).astype(jnp.int32), labels)
    target = jax.nn.one_hot(labels, num_classes, dtype=bool)
    binary_q, others_q = _decouple(scaled(student, temperature), target)
    binary_p, others_p = _decouple(scaled(teacher, temperature), target)
    target_term, non_target_term = _divergence(binary_p, binary_q), _divergence(others_p, others_q)
    alpha = jnp.asarray(target_weight, student.dtype)
    beta = jnp.asarray(non_target_weight, student.dtype)
    values = alpha * target_term + beta * non_target_term
    values = values * jnp.asarray(temperature, values.dtype) ** 2
    return jnp.where(where, values, jnp.zeros_like(values))


def feature_cosine(
    student_features: Float[ArrayLike, "*V D"],
    teacher_features: Float[ArrayLike, "*V E"],
    *,
    projection: Float[ArrayLike, "D E"] | None = None,
    where: Bool[ArrayLike, "*V"] | None = None,
) -> Float[Array, "*V"]:
    """1 - cosine of the student's projected features and the teacher's, per voxel.

    Args:
        student_features: [*V, D].
        teacher_features: [*V, E]; gets no gradient.
        projection: [D, E] linear map to the teacher's space, trained with the student and dropped
            after; may be left out where D = E.
        where: [*V] True for voxels that count; default all.

    Returns:
        [*V] in [0, 2], in f32 (f64 if an input is f64); 0 where masked. A feature of length 0 has
        cosine 0 to any other, and no gradient.

    Raises:
        ValueError: for shapes that disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> student, teacher = jnp.array([[1.0, 1.0], [2.0, 0.0]]), jnp.array([[1.0], [-3.0]])
        >>> print(losses.feature_cosine(student, teacher, projection=jnp.ones((2, 1))))
        [0. 2.]
    """
    if projection is None:
        student, teacher = to_float(student_features, teacher_features)
        needed = "a projection [D, E] is needed where widths differ"
        check_shape("teacher_features", teacher, student.shape, needed)
    else:
        student, teacher, projection = to_float(student_features, teacher_features, projection)
        widths = (student.shape[-1], teacher.shape[-1])
        check_shape("projection", projection, widths, "from the student's width to the teacher's")
    check_feature_rows(student, teacher)
    where = to_mask(where, student.shape[:-1])
    student = zero_rows(student, where)
    teacher = lax.stop_gradient(zero_rows(teacher, where))
    if projection is not None:
        rows = student.reshape(-1, widths[0])
        student = _projected(rows, projection).reshape(teacher.shape)
    values = 1 - jnp.sum(unit(student) * unit(teacher), axis=-1)
    return jnp.where(where, values, jnp.zeros_like(values))


_BLOCK = 128  # rows: sums of so few stay on one thread


@jax.jit  # called one by one its loop would be compiled every time
def _projected(rows: Float[Array, "V D"], projection: Float[Array, "D E"]) -> Float[Array, "V E"]:
    """rows @ projection, by blocks of rows.

    Its gradient by the projection is a sum over all rows, which XLA:CPU would share out among as
    many threads as it has. So it goes by blocks, too, and the bits are the same with any number.
    """
    blocks = jnp.pad(rows, ((0, -len(rows) % _BLOCK), (0, 0))).reshape(-1, _BLOCK, rows.shape[1])
    product = lax.map(lambda x: jnp.matmul(x, projection, precision=lax.Precision.HIGHEST), blocks)
    return product.reshape(-1, projection.shape[1])[: len(rows)]


def unit(features: Float[Array, "*V D"]) -> Float[Array, "*V D"]:
    """Rows of length one, or zero, with no gradient, for rows too short (1e-6) to have a direction.

    The slope of a direction is 1/length: next to zero one voxel would drown all others.
    """
    squared = jnp.sum(features * features, axis=-1, keepdims=True)
    long = squared > 1e-12
    scale = lax.rsqrt(jnp.where(long, squared, jnp.ones_like(squared)))
    return features * jnp.where(long, scale, jnp.zeros_like(scale))


def _logit_pair(
    student: ArrayLike, teacher: ArrayLike, temperature: ScalarLike, where: ArrayLike | None
) -> tuple[Float[Array, "*V C"], Float[Array, "*V C"], Bool[Array, "*V"]]:
    student, teacher = to_float(student, teacher)
    check_shape("teacher_logits", teacher, student.shape, "the shape of student_logits")
    check_positive("temperature", temperature)
    where = to_mask(where, student.shape[:-1])
    return zero_rows(student, where), lax.stop_gradient(zero_rows(teacher, where)), where


def _decouple(
    logits: Float[Array, "*V C"], target: Bool[Array, "*V C"]
) -> tuple[Float[Array, "*V 2"], Float[Array, "*V C"]]:
    """Log-probabilities of (target, all others), and of each class among the others."""
    everything = jax.nn.logsumexp(logits, axis=-1)
    others = jax.nn.logsumexp(logits, axis=-1, where=~target)
    hit = jnp.sum(jnp.where(target, logits, jnp.zeros_like(logits)), axis=-1)
    binary = jnp.stack([hit - everything, others - everything], axis=-1)
    # Where all others are ruled out each of them stays so: -inf less -inf would be NaN.
    among = logits - jnp.where(jnp.isfinite(others), others, 0)[..., None]
    # At the target it would be large, and its exponential infinite: 0 adds nothing to the KL.
    return binary, jnp.where(target, jnp.zeros_like(logits), among)
