"""IHD: a teacher that sees points and images teaches a student that sees points alone."""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, ScalarLike

from haskd_jax.losses._arguments import check_shape, known, to_float, to_mask, zero_rows
from haskd_jax.losses._distillation import feature_cosine, kl_divergence
from haskd_jax.losses._reduction import masked_mean
from haskd_jax.losses._relational import edge_mask, relational


def information_weights(
    teacher_logits: Float[ArrayLike, "*V C"],
    *,
    mode: Literal["none", "confidence", "seen"] = "none",
    seen: Bool[ArrayLike, "*V"] | None = None,
    unseen_weight: ScalarLike = 0.5,
    where: Bool[ArrayLike, "*V"] | None = None,
) -> Float[Array, "*V"]:
    """How much the teacher is to be heard at each voxel: the weights w of `ihd_loss`.

    Our instantiation of "information-oriented". "none": 1 everywhere. "confidence": how far the
    teacher's entropy H is from its largest, 1 - H/log C; 1 where it is sure, 0 where it knows
    nothing. "seen": 1 where a selected image saw the voxel, so that the teacher may know what
    points do not tell, and `unseen_weight` elsewhere.

    Args:
        teacher_logits: [*V, C]; gets no gradient.
        mode: which of the three.
        seen: [*V] True where an image saw the voxel; needed by "seen" and used by no other mode.
        unseen_weight: in [0, 1].
        where: [*V] True for voxels that count; default all.

    Returns:
        [*V] in [0, 1], in f32 (f64 if the logits are f64); 0 where masked.

    Raises:
        ValueError: for an unknown mode, shapes that disagree, "seen" without `seen` or with a
            weight outside of [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> logits = jnp.array([[0.0, 0.0], [2.0, 0.0], [99.0, 0.0]])
        >>> print(losses.information_weights(logits, mode="confidence").round(2))
        [0.   0.47 1.  ]
        >>> seen = jnp.array([True, False, False])
        >>> print(losses.information_weights(logits, mode="seen", seen=seen))
        [1.  0.5 0.5]
    """
    (logits,) = to_float(teacher_logits)
    voxels, num_classes = logits.shape[:-1], logits.shape[-1]
    where = to_mask(where, voxels)
    weights = jnp.ones(voxels, logits.dtype)
    if mode == "confidence":
        if num_classes > 1:  # of one class the teacher is sure
            p = jax.nn.softmax(jax.lax.stop_gradient(zero_rows(logits, where)))
            entropy = jnp.sum(jax.scipy.special.entr(p), axis=-1)
            weights = jnp.clip(1 - entropy / math.log(num_classes), 0, 1)
    elif mode == "seen":
        if seen is None:
            raise ValueError('seen is None, but mode="seen" needs it: True where an image saw it')
        if known(unseen_weight) and not 0 <= np.asarray(unseen_weight) <= 1:
            raise ValueError(f"unseen_weight is {unseen_weight}, expected a number in [0, 1]")
        seen = jnp.asarray(seen)
        check_shape("seen", seen, voxels, "one value per voxel")
        if seen.dtype != bool:
            raise ValueError(f"seen has dtype {seen.dtype}, expected bool")
        weights = jnp.where(seen, weights, jnp.asarray(unseen_weight, weights.dtype))
    elif mode != "none":
        raise ValueError(f'mode is {mode!r}, expected "none", "confidence" or "seen"')
    return jnp.where(where, weights, jnp.zeros_like(weights))


def ihd_loss(
    student_logits: Float[ArrayLike, "V C"],
    teacher_logits: Float[ArrayLike, "V C"],
    *,
    student_features: Float[ArrayLike, "V D"] | None = None,
    teacher_features: Float[ArrayLike, "V E"] | None = None,
    projection: Float[ArrayLike, "D E"] | None = None,
    graph: jraph.GraphsTuple | None = None,
    weights: Float[ArrayLike, " V"] | None = None,
    where: Bool[ArrayLike, " V"] | None = None,
    temperature: ScalarLike = 1.0,
    divergence: Callable[..., Array] = kl_divergence,
    logit_weight: ScalarLike = 1.0,
    feature_weight: ScalarLike = 1.0,
    relation_weight: ScalarLike = 1.0,
    axis_name: str | tuple[str, ...] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Information-oriented heterogeneous distillation: logits, features and relations.

    The sum of three means, each times its weight: over voxels of w * `divergence`; over voxels of
    `feature_cosine`; over edges of `relational`. The term of features is there if features are
    given, that of relations if a graph is given as well. No label is needed.

    HAS-KD names this part and its purpose (points and images teach points); the formula is our
    instantiation.

    Args:
        student_logits: [V, C].
        teacher_logits: [V, C]; gets no gradient.
        student_features: [V, D] penultimate features, given with the teacher's or not at all.
        teacher_features: [V, E]; gets no gradient.
        projection: [D, E] see `feature_cosine`. Relations do not use it.
        graph: voxel adjacency, see `relational`.
        weights: [V] from `information_weights`; default 1.
        where: [V] True for voxels that count; default all.
        temperature: tau > 0 of the divergence.
        divergence: distance of logits: `kl_divergence`, `decoupled_kl_divergence` with its labels
            bound, or any function of the same arguments.
        logit_weight: of the divergence in the total.
        feature_weight: of the features in the total.
        relation_weight: of the relations in the total.
        axis_name: of the axes over which the voxels are spread, see `masked_mean`: each mean is
            then over all devices. Edges join voxels of one device.

    Returns:
        The total, and the terms before their weights under "logits", "features" and "relations":
        what `jax.value_and_grad(..., has_aux=True)` expects.

    Raises:
        ValueError: for shapes that disagree, features of one side only, or a projection or graph
            without features.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> teacher = jnp.array([[3.0, 0.0], [0.0, 1.0]])
        >>> total, terms = losses.ihd_loss(
        ...     jnp.array([[1.0, 0.0], [0.0, 0.0]]),
        ...     teacher,
        ...     weights=losses.information_weights(teacher, mode="confidence"),
        ...     student_features=jnp.array([[1.0, 0.0], [0.0, 1.0]]),
        ...     teacher_features=jnp.array([[1.0, 0.0], [1.0, 0.0]]),
        ...     feature_weight=0.1,
        ... )
        >>> print(f"{total:.3f}", {name: f"{term:.3f}" for name, term in terms.items()})
        0.209 {'logits': '0.159', 'features': '0.500'}

    References:
        Wu, Hou et al., Heterogeneous and Adept Snapshot Distillation for 3D Semantic Segmentation
        (https://arxiv.org/abs/2606.25278).
    """
    if (student_features is None) != (teacher_features is None):
        raise ValueError("give student_features and teacher_features, or neither")
    if student_features is None and not (projection is None and graph is None):
        raise ValueError("projection and graph need student_features and teacher_features")

    per_voxel = divergence(student_logits, teacher_logits, temperature=temperature, where=where)
    mean = functools.partial(masked_mean, axis_name=axis_name)
    terms = {"logits": mean(per_voxel, where=where, weights=weights)}
    if student_features is not None and teacher_features is not None:
        # Once for both terms, so that their gradients add up in f32.
        student, teacher = to_float(student_features, teacher_features)
        per_voxel = feature_cosine(student, teacher, projection=projection, where=where)
        terms["features"] = mean(per_voxel, where=where)
        if graph is not None:
            per_edge = relational(student, teacher, graph, where=where)
            counts = edge_mask(graph, student.shape[0], where=where)
            terms["relations"] = mean(per_edge, where=counts)
    scales = {
        "logits": logit_weight,
        "features": feature_weight,
        "relations": relation_weight,
    }
    total = jnp.zeros((), jnp.float32)
    for name, term in terms.items():
        total, term = to_float(total, term)
        total = total + jnp.asarray(scales[name], term.dtype) * term
    return total, terms
