"""From a card to a network: pure functions and plain trees of parameters."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PyTree

from haskd_jax import models
from haskd_jax.train.card import ModelCard, ModelConfig, TeacherConfig
from haskd_jax.train.inputs import Inputs


class Output(NamedTuple):
    """What a network says of a batch.

    Attributes:
        features: [V, F] penultimate.
        logits: [V, C] float32.
        image_logits: [K, h, w, C] of a teacher that was given images and trains their encoder, else
            None.
    """

    features: Float[Array, "V F"]
    logits: Float[Array, "V C"]
    image_logits: Float[Array, "K h w C"] | None = None


@dataclass(frozen=True, eq=False)  # by identity: a static argument of jit
class Network:
    """A student or teacher as a pure function.

    Attributes:
        card: What it is.
        shapes: Of the parameters and of the running statistics, as `jax.ShapeDtypeStruct`.
        levels: Coarser grids that it needs.
        num_features: F, width of its penultimate features.
        apply: See `models.functional`.
        init: From a seed to parameters and running statistics. Jittable.
    """

    card: ModelCard
    shapes: tuple[PyTree, PyTree]
    levels: int
    num_features: int
    apply: Callable[..., tuple[tuple, PyTree]]
    init: Callable[[int], tuple[PyTree, PyTree]]

    @property
    def tolerance(self) -> float | None:
        """Of visibility, for `make_inputs`; None where the network takes no images."""
        return None if self.card.teacher is None else self.card.teacher.tolerance

    def forward(
        self,
        params: PyTree,
        state: PyTree,
        inputs: Inputs,
        *,
        train: bool,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Output, PyTree]:
        """Features and logits of a batch, and the state after it. Jittable.

        Args:
            params: See `init`.
            state: Likewise.
            inputs: See `make_inputs`; a teacher without views sees points alone.
            train: With the batch's statistics, or the running ones. Static.
            key: Drops views at random; none are dropped without.

        Returns:
            The output; the new state.
        """
        args: tuple[Any, ...] = (inputs.grid, inputs.maps, inputs.features)
        keywords: dict[str, Any] = {}
        if self.card.kind == "teacher" and inputs.views is not None:
            seen = inputs.views
            args = (*args, seen.images)
            keywords = {
                "voxel_to_pixel": seen.voxel_to_pixel,
                "cues": seen.cues,
                "dropout_key": key,
            }
        outputs, state = self.apply(params, state, *args, train=train, **keywords)
        output = Output(*outputs)
        if self.card.frozen_images:
            output = output._replace(image_logits=None)  # there is nothing to train by them
        return output, state

    @property
    def num_parameters(self) -> int:
        """How many numbers the network learnt, those of a frozen encoder among them."""
        if self.card.frozen_images:
            return make_network(replace(self.card, frozen_images=False)).num_parameters
        return sum(leaf.size for leaf in jax.tree.leaves(self.shapes[0]))


def make_network(card: ModelCard, *, axis_name: str | tuple[str, ...] | None = None) -> Network:
    """Builds the network of a card. Draws no parameters, compiles nothing.

    Args:
        card: What it is.
        axis_name: The mesh axis over which batch norms take their statistics.

    Returns:
        The network.

    Raises:
        ValueError: An unknown family or shape, or a factory that cannot be imported.

    Example:
        >>> from haskd_jax.train.card import ModelConfig
        >>> small = ModelConfig(channels=(8, 16, 16, 8), blocks=(1, 1, 1, 1), stem=8, stem_kernel=3)
        >>> network = make_network(ModelCard("student", small, "rooms", ("wall", "floor"), 0.05))
        >>> network.levels, network.num_features, network.num_parameters
        (2, 8, 46530)
    """
    made: dict[str, Any] = {}

    def init(seed: int | Int[Array, ""]) -> tuple[PyTree, PyTree]:
        rngs = nnx.Rngs(params=jax.random.key(seed))
        module, made["levels"] = _student(card, axis_name, rngs)
        made["num_features"] = module.num_features
        if card.teacher is not None:
            module = _teacher(card, card.teacher, module, axis_name, rngs)
        made["apply"], params, state = models.functional(
            module, frozen=("encoder",) if card.frozen_images else ()
        )
        return params, state

    # Traced, not run: drawing the parameters one by one would compile for ten seconds.
    shapes = jax.eval_shape(lambda: init(0))
    return Network(card=card, shapes=shapes, init=init, **made)


def _student(card: ModelCard, axis_name, rngs):
    """The module, and how many coarser grids it needs."""
    config = card.model
    options = {
        "in_channels": card.in_channels,
        "num_classes": len(card.classes),
        "axis_name": axis_name,
        "rngs": rngs,
    }
    dtype = jnp.dtype(config.dtype)
    if ":" in config.family:
        factory = _factory(config.family)
        if _takes_dtype(factory):
            options["dtype"] = dtype
        elif dtype != jnp.float32:
            raise ValueError(
                f"model.dtype: {config.dtype}, but {config.family} has no argument dtype: give it "
                "one, or leave the option out"
            )
        module = factory(**options)
        return module, getattr(module, "levels", OWN_LEVELS)
    families = {"minkunet": models.MinkUNet, "spvcnn": models.SPVCNN}
    if config.family not in families:
        raise ValueError(
            f"model.family: {config.family!r}, expected {', '.join(families)} or "
            "package.module:factory"
        )
    shape = _shape(config)
    return families[config.family](shape, dtype=dtype, **options), shape.num_stages


# Coarser grids for a network of one's own that does not say, by an attribute `levels`.
OWN_LEVELS = 4


def _shape(config: ModelConfig) -> models.MinkUNetConfig:
    if config.shape not in models.MINKUNET:
        raise ValueError(
            f"model.shape: {config.shape!r}, expected one of {', '.join(sorted(models.MINKUNET))}"
        )
    own = {
        name: getattr(config, name)
        for name in ("channels", "blocks", "stem", "stem_kernel")
        if getattr(config, name) is not None
    }
    return replace(models.MINKUNET[config.shape], **own)


def _factory(family: str) -> Callable[..., nnx.Module]:
    module, _, name = family.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"model.family: {family!r} cannot be imported ({error}); expected "
            "package.module:factory, with the package on PYTHONPATH"
        ) from error


def _takes_dtype(factory: Callable[..., nnx.Module]) -> bool:
    # The metaclass of modules would answer for their __init__ that it takes anything.
    asked = factory.__init__ if inspect.isclass(factory) else factory
    found = inspect.signature(asked).parameters
    return "dtype" in found or any(one.kind is one.VAR_KEYWORD for one in found.values())


def _teacher(card: ModelCard, config: TeacherConfig, student, axis_name, rngs) -> models.Teacher:
    images = models.ImageEncoderConfig(
        config.image_channels, config.image_blocks, config.image_features
    )
    return models.Teacher(
        student,
        images,
        num_classes=len(card.classes),
        pooling=config.pooling,
        modality_dropout=config.modality_dropout,
        dtype=jnp.dtype(card.model.dtype),
        axis_name=axis_name,
        rngs=rngs,
    )
