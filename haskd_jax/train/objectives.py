"""What a step minimises: sums of named terms.

Means are over the voxels of all devices: a batch spread over more devices is the same batch.
"""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from haskd_jax import losses, models
from haskd_jax.models import ExpertBank
from haskd_jax.train.config import ASDConfig, IHDConfig, LossConfig
from haskd_jax.train.inputs import Inputs
from haskd_jax.train.networks import Network, Output

Terms = dict[str, Float[Array, ""]]


class Labels(NamedTuple):
    """The labels of a batch.

    Attributes:
        voxels: [V], -1 ignored, unlabelled or padding.
        scene: [V] which grid of the batch a voxel is of.
        scenes: How many grids there are at most. Static.
    """

    voxels: Int32[Array, " V"]
    scene: Int32[Array, " V"]
    scenes: int


@struct.dataclass
class Guides:
    """The frozen networks that teach a student. A pytree; what is None does not teach.

    Attributes:
        teacher: Parameters and running statistics of the teacher.
        bank: The experts; without their parameters where they have spoken before (offline).
        adeptness: [M, C] which of them teaches which class.
    """

    teacher: tuple[PyTree, PyTree] | None = None
    bank: ExpertBank | None = None
    adeptness: Float[Array, "M C"] | None = None


def supervised(
    output: Output, inputs: Inputs, labels: Labels, config: LossConfig, axis_name: str
) -> tuple[Float[Array, ""], Terms]:
    """The losses against labels.

    Args:
        output: Of the network.
        inputs: What it was given.
        labels: The truth.
        config: The weights.
        axis_name: The mesh axis.

    Returns:
        The weighted sum, and the terms before their weights.
    """
    total = jnp.zeros((), jnp.float32)
    terms = {}
    if config.cross_entropy:
        values = losses.cross_entropy(
            output.logits, labels.voxels, label_smoothing=config.label_smoothing
        )
        terms["cross_entropy"] = losses.masked_mean(
            values, where=labels.voxels >= 0, axis_name=axis_name
        )
        total = total + config.cross_entropy * terms["cross_entropy"]
    if config.lovasz:
        values = losses.lovasz_softmax(
            output.logits, labels.voxels, scene=labels.scene, num_scenes=labels.scenes
        )
        labelled = jnp.zeros(labels.scenes, bool).at[labels.scene].max(labels.voxels >= 0)
        terms["lovasz"] = losses.masked_mean(values, where=labelled, axis_name=axis_name)
        total = total + config.lovasz * terms["lovasz"]
    if config.image and output.image_logits is not None and inputs.views is not None:
        # Frames that see nothing are padding.
        seen = jnp.any(inputs.views.voxel_to_pixel >= 0, axis=1)
        label = jnp.where(seen[:, None, None], inputs.views.label, -1)
        terms["image"] = image_loss(output.image_logits, label, axis_name)
        total = total + config.image * terms["image"]
    return total, terms


def image_loss(
    logits: Float[Array, "K h w C"], label: Int32[Array, "K H W"], axis_name: str | None = None
) -> Float[Array, ""]:
    """2D cross entropy at the pixels of the feature map.

    Args:
        logits: Of the image encoder.
        label: Of the images, -1 ignored.
        axis_name: The mesh axis.

    Returns:
        The mean over all labelled pixels; 0 where there are none.
    """
    label = labels_of_feature_map(label)
    height, width = label.shape[1:]
    values = losses.cross_entropy(logits[:, :height, :width], label)
    return losses.masked_mean(values, where=label >= 0, axis_name=axis_name)


def labels_of_feature_map(label: Int32[Array, "K H W"]) -> Int32[Array, "K h w"]:
    """Labels at the centres of a feature map's pixels; a last part of a pixel is left out.

    Args:
        label: Of the images.

    Returns:
        A view, `models.IMAGE_STRIDE` times smaller.

    Example:
        >>> labels_of_feature_map(jnp.arange(64).reshape(1, 8, 8)).tolist()
        [[[18, 22], [50, 54]]]
    """
    stride = models.IMAGE_STRIDE
    return label[:, stride // 2 :: stride, stride // 2 :: stride]


def heterogeneous(
    student: Output,
    teacher: Output,
    inputs: Inputs,
    labels: Labels,
    projection: Float[Array, "D E"] | None,
    config: IHDConfig,
    axis_name: str,
) -> tuple[Float[Array, ""], Terms]:
    """IHD, on all voxels or on those without labels.

    Args:
        student: Its output.
        teacher: Its output.
        inputs: What they were given.
        labels: The truth.
        projection: From the student's features to the teacher's.
        config: Weights and temperature.
        axis_name: The mesh axis.

    Returns:
        The sum times its weight, and the terms before their weights.
    """
    mask = _taught(inputs, labels, config.voxels)
    weights = losses.information_weights(
        teacher.logits, mode=config.information, seen=inputs.seen, where=mask
    )
    features: dict[str, Any] = {}
    if config.features or config.relations:
        features = {
            "student_features": student.features,
            "teacher_features": teacher.features,
            "projection": projection,
        }
    if config.relations:
        from haskd_jax.sparse import voxel_graph

        features["graph"] = voxel_graph(inputs.maps.submanifold[0])
    total, terms = losses.ihd_loss(
        student.logits,
        teacher.logits,
        weights=weights,
        where=mask,
        temperature=config.temperature,
        logit_weight=config.logits,
        feature_weight=config.features,
        relation_weight=config.relations,
        axis_name=axis_name,
        **features,
    )
    return config.weight * total, {f"ihd/{name}": term for name, term in terms.items()}


def adept(
    student: Output,
    network: Network,
    guides: Guides,
    inputs: Inputs,
    labels: Labels,
    config: ASDConfig,
    key: Key[Array, ""],
    axis_name: str,
    said: Float[Array, "M V C"] | None = None,
) -> tuple[Float[Array, ""], Terms]:
    """ASD: the experts teach the classes that they are adept at.

    Args:
        student: Its output.
        network: That of student and experts.
        guides: With bank and adeptness.
        inputs: What the student was given.
        labels: The truth; unlabelled voxels are of the class that the experts agree on, or that the
            drawn one sees.
        config: Weights and temperature.
        key: Draws the expert of the step, with `rotate`.
        axis_name: The mesh axis.
        said: The logits of all experts, where they have spoken before; else they are asked now.

    Returns:
        The term times its weight, and the term.
    """
    assert guides.bank is not None and guides.adeptness is not None
    omega = guides.adeptness
    taught = _taught(inputs, labels, config.voxels)

    def logits(params: PyTree, state: PyTree) -> Float[Array, "V C"]:
        return network.forward(params, state, inputs, train=False)[0].logits

    if said is not None or config.experts == "all":
        logits_of_all = models.all_experts(guides.bank, logits) if said is None else said
        value = losses.asd_loss(
            student.logits,
            logits_of_all,
            omega,
            labels.voxels,
            temperature=config.temperature,
            where=taught,
            axis_name=axis_name,
        )
    else:
        # By the labelled ones of the voxels that it would teach. With "unlabelled" there are none,
        # and experts are drawn alike: none of them seldom, and at many times its weight.
        draw = models.rotate(key, omega, labels.voxels, where=taught, axis_name=axis_name)
        drawn = logits(*models.expert(guides.bank, draw.index))
        # One expert is no consensus: it teaches the unlabelled voxels that it takes for a class of
        # its own.
        said = jnp.argmax(drawn, axis=-1).astype(jnp.int32)
        values = losses.adept_divergence(
            student.logits,
            drawn[None],
            draw.share,
            jnp.where(labels.voxels < 0, said, labels.voxels),
            temperature=config.temperature,
            where=taught,
        )
        value = losses.masked_mean(values, where=taught, axis_name=axis_name)
    return config.weight * value, {"asd": value}


def _taught(
    inputs: Inputs, labels: Labels, voxels: Literal["all", "unlabelled"]
) -> Bool[Array, " V"]:
    """Which voxels are taught."""
    mask = inputs.grid.mask
    return mask & (labels.voxels < 0) if voxels == "unlabelled" else mask
