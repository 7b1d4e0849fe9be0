"""ASD: snapshots of training teach, each in the classes where it is adept."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Integer, Real, ScalarLike

from haskd_jax.losses._arguments import (
    check_not_negative,
    check_positive,
    check_shape,
    known,
    to_float,
    to_labels,
    to_mask,
)
from haskd_jax.losses._distillation import kl_divergence
from haskd_jax.losses._reduction import masked_mean


def adeptness(
    iou: Float[ArrayLike, "M C"],
    *,
    mode: Literal["hard", "soft"] = "hard",
    temperature: ScalarLike = 0.05,
    student_iou: Float[ArrayLike, " C"] | None = None,
    margin: ScalarLike = 0.0,
    counts: Real[ArrayLike, " C"] | None = None,
    shrinkage: ScalarLike = 1000.0,
) -> Float[Array, "M C"]:
    """Which expert teaches which class, and how much, from IoU on a calibration split.

    "hard" gives a class to its best expert (the first of several equal ones); "soft" shares it by
    softmax(IoU / temperature) over the experts. An expert that does not beat the student by more
    than `margin` in a class teaches nothing there. A class that the split does not hold (an IoU is
    NaN, or its count is 0) goes to all experts equally.

    With few voxels the best of several IoU is a lottery. So with `counts` n an IoU is taken for
    n/(n + shrinkage) of its value, and for the rest for what the expert's mean over classes and the
    class's mean over experts let expect (their sum less the mean of all): in a class without
    evidence of its own the expert that is better on the whole comes first. The student is shrunk
    alike. In the expert's mean a class weighs n/(n + shrinkage).

    HAS-KD names adept experts per class; these rules are our instantiation. Choose experts on
    scenes held out of the training scenes, never on the scenes that are reported.

    Args:
        iou: [M, C] of M experts in [0, 1]; NaN for classes that the split does not hold.
        mode: "hard" or "soft".
        temperature: of "soft", in units of IoU, > 0.
        student_iou: [C] on the same split; default: every expert may teach.
        margin: at least 0, in units of IoU; needs `student_iou`.
        counts: [C] voxels of each class in the split; default: no shrinkage.
        shrinkage: voxels at which a class's own evidence and what is expected weigh the same, > 0.

    Returns:
        [M, C] in f32 (f64 if an input is f64), at least 0; each class sums to 1 over the experts,
        or to 0 where no expert may teach it. No gradient flows through it.

    Raises:
        ValueError: for an unknown mode, shapes that disagree, IoU outside [0, 1], a temperature or
            shrinkage that is not positive, negative counts, a negative margin or one without
            student.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> iou = jnp.array([[0.8, 0.3, jnp.nan, 0.4], [0.6, 0.4, jnp.nan, 0.5]])
        >>> print(losses.adeptness(iou, student_iou=jnp.array([0.7, 0.2, jnp.nan, 0.6])))
        [[1.  0.  0.5 0. ]
         [0.  1.  0.5 0. ]]
        >>> with jnp.printoptions(precision=2):
        ...     print(losses.adeptness(iou, mode="soft", temperature=0.1))
        [[0.88 0.27 0.5  0.27]
         [0.12 0.73 0.5  0.73]]
    """
    table, *student = to_float(*([iou] if student_iou is None else [iou, student_iou]))
    if table.ndim != 2:
        raise ValueError(f"iou has shape {table.shape}, expected [experts, classes]")
    num_experts, num_classes = table.shape
    if num_experts == 0:
        raise ValueError(f"iou has shape {table.shape}: there is no expert to choose")
    _check_iou("iou", table)
    check_positive("temperature", temperature)
    check_positive("shrinkage", shrinkage)
    check_not_negative("margin", margin)
    if student:
        check_shape("student_iou", student[0], (num_classes,), "one IoU per class")
        _check_iou("student_iou", student[0])
    elif known(margin) and margin != 0:
        raise ValueError(f"margin is {margin}, but there is no student_iou to compare with")
    if counts is not None:
        counts = jnp.asarray(counts)
        check_shape("counts", counts, (num_classes,), "one count per class")
        check_not_negative("counts", counts)
    if mode not in ("hard", "soft"):
        raise ValueError(f'mode is {mode!r}, expected "hard" or "soft"')
    return _shares(table, student, counts, temperature, margin, shrinkage, mode=mode)


@functools.partial(jax.jit, static_argnames="mode")  # called between steps: one program, not thirty
def _shares(table, student, counts, temperature, margin, shrinkage, *, mode):
    """`adeptness` of checked arguments; `student` is a list of one or none."""
    num_experts = len(table)
    table = lax.stop_gradient(jnp.concatenate([table, *(iou[None] for iou in student)]))
    calibrated = jnp.all(jnp.isfinite(table), axis=0)
    if counts is not None:
        calibrated = calibrated & (counts > 0)
    table = jnp.where(calibrated[None], table, jnp.zeros_like(table))
    if counts is not None:
        counts = jnp.where(calibrated, counts.astype(table.dtype), jnp.zeros_like(table[0]))
        table = _shrink(table, counts / (counts + jnp.asarray(shrinkage, table.dtype)))
    experts = table[:num_experts]
    eligible = jnp.ones(experts.shape, bool)
    if student:
        eligible = experts > table[num_experts:] + jnp.asarray(margin, table.dtype)

    if mode == "hard":
        best = jnp.argmax(experts, axis=0)
        shares = jax.nn.one_hot(best, num_experts, dtype=table.dtype, axis=0)
    else:
        scores = experts / jnp.asarray(temperature, table.dtype)
        scores = jnp.where(eligible, scores, jnp.full_like(scores, -jnp.inf))
        highest = jnp.max(scores, axis=0, keepdims=True)
        shares = jnp.exp(scores - jnp.where(jnp.isfinite(highest), highest, 0))
        total = jnp.sum(shares, axis=0)
        shares = shares / jnp.where(total > 0, total, jnp.ones_like(total))[None]
    shares = jnp.where(eligible, shares, jnp.zeros_like(shares))
    return jnp.where(calibrated[None], shares, jnp.full_like(shares, 1 / num_experts))


def adept_divergence(
    student_logits: Float[ArrayLike, "V C"],
    expert_logits: Float[ArrayLike, "M V C"],
    adeptness: Float[ArrayLike, "M C"],
    labels: Integer[ArrayLike, " V"],
    *,
    temperature: ScalarLike = 1.0,
    unlabelled: Literal["consensus", "ignore"] = "consensus",
    where: Bool[ArrayLike, " V"] | None = None,
) -> Float[Array, " V"]:
    """Divergence from the experts of each voxel's class: sum_m omega[m, y] KL(expert m || student).

    `asd_loss` is its mean. Call it directly to give experts other shares than those that sum to
    one, such as one expert of several on its own classes.

    Args:
        student_logits: [V, C].
        expert_logits: [M, V, C]; gets no gradient.
        adeptness: [M, C] omega, at least 0; gets no gradient. Where it is 0 for a voxel's class, it
            does not matter what the expert says there.
        labels: [V] integers in [-1, C).
        temperature: tau > 0, by which all logits are divided.
        unlabelled: what a voxel of label -1 is, see `asd_loss`.
        where: [V] True for voxels that count; default all.

    Returns:
        [V] in f32 (f64 if an input is f64); 0 where masked, ignored or taught by no expert.

    Raises:
        ValueError: for shapes that disagree, labels outside [-1, C), a negative or non-finite
            adeptness, a temperature that is not positive, or an unknown `unlabelled`.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> experts = jnp.array([[[2.0, 0.0], [2.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
        >>> omega = jnp.array([[1.0, 0.0], [0.0, 1.0]])  # each expert teaches one class
        >>> values = losses.adept_divergence(jnp.zeros((2, 2)), experts, omega, jnp.array([0, 1]))
        >>> print(values.round(4))
        [0.3278 0.    ]
    """
    student, experts, omega = to_float(student_logits, expert_logits, adeptness)
    voxels, num_classes = student.shape
    num_experts = experts.shape[0]
    check_shape("expert_logits", experts, (num_experts, voxels, num_classes), "[M, V, C]")
    check_shape("adeptness", omega, (num_experts, num_classes), "[M, C]")
    check_not_negative("adeptness", omega)
    if unlabelled not in ("consensus", "ignore"):
        raise ValueError(f'unlabelled is {unlabelled!r}, expected "consensus" or "ignore"')
    labels, in_range = to_labels(labels, (voxels,), num_classes)
    where = to_mask(where, (voxels,)) & in_range
    experts, omega = lax.stop_gradient((experts, omega))
    if unlabelled == "consensus":
        labels = jnp.where(labels < 0, _consensus(experts, omega), labels)
    shares = jnp.where(where & (labels >= 0), omega[:, jnp.clip(labels, 0)], 0)  # [M, V]

    def share(expert: Float[Array, "V C"], share: Float[Array, " V"]) -> Float[Array, " V"]:
        return share * kl_divergence(student, expert, temperature=temperature, where=share > 0)

    return jnp.sum(jax.vmap(share)(experts, shares), axis=0)


def asd_loss(
    student_logits: Float[ArrayLike, "V C"],
    expert_logits: Float[ArrayLike, "M V C"],
    adeptness: Float[ArrayLike, "M C"],
    labels: Integer[ArrayLike, " V"],
    *,
    temperature: ScalarLike = 1.0,
    unlabelled: Literal["consensus", "ignore"] = "consensus",
    where: Bool[ArrayLike, " V"] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[Array, ""]:
    """Adept snapshot distillation: each voxel is taught by the experts that are adept at its class.

    The mean over voxels of sum_m omega[m, y] tau^2 KL(expert m || student; tau). A voxel of a class
    that no expert may teach counts with 0: fewer adept experts teach less, not the same on fewer
    voxels. HAS-KD names the part and its purpose; the formula is our instantiation.

    Args:
        student_logits: [V, C].
        expert_logits: [M, V, C] of M snapshots; gets no gradient.
        adeptness: [M, C] omega, from `adeptness`; gets no gradient.
        labels: [V] integers in [-1, C).
        temperature: tau > 0, by which all logits are divided.
        unlabelled: what a voxel of label -1 is. "consensus": of the class that the experts agree
            on, the largest of sum_m omega[m, c] softmax(expert m)_c; "ignore": left out.
        where: [V] True for voxels that count; default all.
        axis_name: of the axes over which the voxels are spread, see `masked_mean`: the mean is then
            over all devices.

    Returns:
        A scalar in f32 (f64 if an input is f64); 0 where no voxel counts.

    Raises:
        ValueError: for shapes that disagree, labels outside [-1, C), a class whose adeptness sums
            neither to 1 nor to 0, a temperature that is not positive, or an unknown `unlabelled`.

    Example:
        >>> import jax.numpy as jnp
        >>> from haskd_jax import losses
        >>> experts = jnp.array([[[2.0, 0.0], [2.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]])
        >>> omega = losses.adeptness(jnp.array([[0.9, 0.4], [0.7, 0.6]]))
        >>> student, labels = jnp.zeros((2, 2)), jnp.array([0, -1])  # the experts agree on class 1
        >>> print(f"{losses.asd_loss(student, experts, omega, labels):.3f}")
        0.415
        >>> labelled = losses.asd_loss(student, experts, omega, labels, unlabelled="ignore")
        >>> print(f"{labelled:.3f}")
        0.328

    References:
        Wu, Hou et al., Heterogeneous and Adept Snapshot Distillation for 3D Semantic Segmentation
        (https://arxiv.org/abs/2606.25278).
    """
    if known(adeptness):
        sums = np.asarray(adeptness, np.float64).sum(axis=0)
        wrong = np.flatnonzero(~(np.isclose(sums, 1, atol=1e-2) | (sums == 0)))
        if wrong.size:
            raise ValueError(
                f"adeptness of class {wrong[0]} sums to {sums[wrong[0]]} over the experts "
                f"({wrong.size} such classes), expected 1, or 0 where no expert may teach"
            )
    values = adept_divergence(
        student_logits,
        expert_logits,
        adeptness,
        labels,
        temperature=temperature,
        unlabelled=unlabelled,
        where=where,
    )
    voxels, num_classes = jnp.shape(student_logits)
    labels, in_range = to_labels(labels, (voxels,), num_classes)
    counted = in_range & (labels >= 0) if unlabelled == "ignore" else in_range
    where = to_mask(where, (voxels,)) & counted
    return masked_mean(values, where=where, axis_name=axis_name)


def _shrink(table: Float[Array, "rows C"], evidence: Float[Array, " C"]) -> Float[Array, "rows C"]:
    """IoU drawn to what the row's and the class's means let expect, the less evidence the more."""
    total = jnp.sum(evidence)
    by_class = jnp.mean(table, axis=0, keepdims=True)
    ahead = jnp.sum((table - by_class) * evidence[None], axis=1, keepdims=True)
    ahead = ahead / jnp.where(total > 0, total, jnp.ones_like(total))  # of the rows' mean, overall
    return evidence[None] * table + (1 - evidence[None]) * (by_class + ahead)


def _consensus(experts: Float[Array, "M V C"], omega: Float[Array, "M C"]) -> Int[Array, " V"]:
    """The class of the experts' mean, weighted by their adeptness in each class."""
    shares = jnp.broadcast_to(omega[:, None, :], experts.shape)
    mean = jnp.sum(jnp.where(shares > 0, jax.nn.softmax(experts) * shares, 0), axis=0)
    return jnp.argmax(mean, axis=-1).astype(jnp.int32)


def _check_iou(name: str, iou: Array) -> None:
    if known(iou):
        values = np.asarray(iou)
        wrong = values[~np.isnan(values) & ~((values >= 0) & (values <= 1))]
        if wrong.size:
            raise ValueError(f"{name} holds {wrong[0]}, expected fractions in [0, 1], or NaN")
