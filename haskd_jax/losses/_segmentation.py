"""Losses against labels."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int32, Integer, ScalarLike

from haskd_jax.losses._arguments import (
    check_not_negative,
    check_shape,
    known,
    to_float,
    to_labels,
    to_mask,
    zero_rows,
)
from haskd_jax.losses._jaccard import by_scene, jaccard_weights


def cross_entropy(
    logits: Float[ArrayLike, "*V C"],
    labels: Integer[ArrayLike, "*V"],
    *,
    class_weights: Float[ArrayLike, " C"] | None = None,
    label_smoothing: ScalarLike = 0.0,
    where: Bool[ArrayLike, "*V"] | None = None,
) -> Float[Array, "*V"]:
    """Softmax cross entropy with integer labels, one value per voxel.

    With smoothing e, class weights w and p = softmax(logits), the value of a voxel with label y is
    -(1 - e) w_y log p_y - e/C sum_c w_c log p_c.

    Args:
        logits: [*V, C].
        labels: [*V] integers in [-1, C); -1 is ignored and its value is 0.
        class_weights: [C] at least 0; default 1.
        label_smoothing: in [0, 1), how much of the target is spread evenly over the classes.
        where: [*V] True for voxels that count; default all.

    Returns:
        [*V] in f32 (f64 if an input is f64); 0 where ignored. Its mean is
        `masked_mean(values, where=where & (labels >= 0))`.

    Raises:
        ValueError: for shapes that disagree, labels outside [-1, C), negative class weights, or a
            label_smoothing outside [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 0.0], [5.0, 1.0]])
        >>> labels = jnp.array([0, 1, -1])
        >>> values = losses.cross_entropy(logits, labels)
        >>> print(values.round(4))
        [0.1269 0.6931 0.    ]
        >>> print(losses.masked_mean(values, where=labels >= 0).round(4))
        0.41

    References:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016
        (https://arxiv.org/abs/1512.00567), for label smoothing.
    """
    if class_weights is None:
        (logits,) = to_float(logits)
        class_weights = jnp.ones(logits.shape[-1:], logits.dtype)
    else:
        logits, class_weights = to_float(logits, class_weights)
    num_classes = logits.shape[-1]
    check_shape("class_weights", class_weights, (num_classes,), "one weight per class")
    check_not_negative("class_weights", class_weights)
    if known(label_smoothing) and not 0 <= np.asarray(label_smoothing) < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}, expected a number in [0, 1)")
    counted = _counted(labels, logits.shape, where)
    valid, target = counted >= 0, jax.nn.one_hot(counted, num_classes, dtype=bool)

    log_p = jax.nn.log_softmax(zero_rows(logits, valid))
    weighted = -jnp.broadcast_to(class_weights, log_p.shape) * log_p
    hard = jnp.sum(jnp.where(target, weighted, jnp.zeros_like(weighted)), axis=-1)
    smoothing = jnp.asarray(label_smoothing, log_p.dtype)
    # Without smoothing a class ruled out by a logit of -inf costs nothing, rather than 0 * inf.
    spread = jnp.where(smoothing > 0, weighted, jnp.zeros_like(weighted))
    values = (1 - smoothing) * hard + smoothing * jnp.mean(spread, axis=-1)
    return jnp.where(valid, values, jnp.zeros_like(values))


def lovasz_softmax(
    logits: Float[ArrayLike, "V C"],
    labels: Integer[ArrayLike, " V"],
    *,
    where: Bool[ArrayLike, " V"] | None = None,
    scene: Integer[ArrayLike, " V"] | None = None,
    num_scenes: int | None = None,
) -> Float[Array, "..."]:
    """Lovasz-softmax: a surrogate of 1 - mIoU over the classes that the labels hold.

    A loss of the set of voxels and not of each, so it is a scalar, or one value per scene of a
    batch. Where predictions are certain it equals 1 - IoU averaged over the classes present.

    Args:
        logits: [V, C], before the softmax.
        labels: [V] integers in [-1, C); -1 is ignored.
        where: [V] True for voxels that count; default all.
        scene: [V] integers in [0, num_scenes), which scene of a batch a voxel is of; default: all
            are of one.
        num_scenes: how many scenes there are, given with `scene`.

    Returns:
        A scalar in [0, 1], or [num_scenes] of them with `scene`, in f32 (f64 if the logits are
        f64); 0 where no voxel counts.

    Raises:
        ValueError: for shapes that disagree, labels outside [-1, C), scenes outside
            [0, num_scenes), or one of `scene` and `num_scenes` without the other.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> logits = jnp.array([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, 9.0]])
        >>> labels = jnp.array([0, 0, 0, 1])  # IoU 2/3 and 1/2
        >>> print(f"{losses.lovasz_softmax(logits, labels):.3f}")
        0.417
        >>> scene = jnp.array([0, 0, 0, 1])  # IoU 2/3 in the one, 1 in the other
        >>> values = losses.lovasz_softmax(logits, labels, scene=scene, num_scenes=2)
        >>> [f"{value:.2f}" for value in values]
        ['0.33', '0.00']

    References:
        Berman, Rannen Triki and Blaschko, The Lovasz-Softmax Loss, CVPR 2018
        (https://arxiv.org/abs/1705.08790).
    """
    (logits,) = to_float(logits)
    scene, count = _to_scenes(scene, num_scenes, logits.shape[:1])
    counted = _counted(labels, logits.shape, where)
    probabilities = jax.nn.softmax(zero_rows(logits, counted >= 0)).T  # [C, V] from here on
    target = jax.nn.one_hot(counted, logits.shape[1], axis=0, dtype=bool)

    errors = jnp.where(target, 1 - probabilities, probabilities)
    weights = jaccard_weights(jax.lax.stop_gradient(errors), counted, scene, num_scenes=count)
    per_class = by_scene(errors * weights, scene, count)
    present = by_scene(target.astype(jnp.int32), scene, count) > 0
    classes = jnp.maximum(jnp.sum(present, axis=0, dtype=errors.dtype), 1)
    values = jnp.sum(jnp.where(present, per_class, jnp.zeros_like(per_class)), axis=0) / classes
    return values[0] if num_scenes is None else values


def _to_scenes(
    scene: ArrayLike | None, num_scenes: int | None, shape: tuple[int, ...]
) -> tuple[Int32[Array, " V"], int]:
    if (scene is None) != (num_scenes is None):
        raise ValueError("scene and num_scenes belong together: give both, or neither")
    if scene is None or num_scenes is None:
        return jnp.zeros(shape, jnp.int32), 1
    if num_scenes < 1:
        raise ValueError(f"num_scenes is {num_scenes}, expected at least 1")
    check_shape("scene", jnp.asarray(scene), shape, "one scene per voxel")
    if known(scene):
        values = np.asarray(scene)
        wrong = values[(values < 0) | (values >= num_scenes)]
        if wrong.size:
            raise ValueError(f"scene holds {wrong[0]}, expected integers in [0, {num_scenes})")
    return jnp.clip(jnp.asarray(scene).astype(jnp.int32), 0, num_scenes - 1), num_scenes


def _counted(
    labels: ArrayLike, shape: tuple[int, ...], where: ArrayLike | None
) -> Int32[Array, "*V"]:
    """Labels of the voxels that count, -1 elsewhere."""
    labels, in_range = to_labels(labels, shape[:-1], shape[-1])
    return jnp.where(to_mask(where, labels.shape) & in_range, labels, -1)
