"""What a training step changes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import ArrayLike, Int, PyTree


@struct.dataclass
class TrainState:
    """All that changes from step to step, and all that a checkpoint holds. A pytree.

    Attributes:
        step: Steps done, [] int32.
        seed: Of what steps draw, [] int32; an array, so that runs of all seeds share one program.
        params: Of the network, under "network"; of what is dropped after training, beside it.
        state: Running statistics of the network.
        opt_state: Of the optimizer.
        ema: Moving average of the network's parameters; None without.
    """

    # Not Int32[Array, ""]: jax.eval_shape and shardings put other things in its place.
    step: Any
    seed: Any
    params: dict[str, PyTree]
    state: PyTree
    opt_state: Any
    ema: PyTree | None


def init_state(
    params: dict[str, PyTree],
    state: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    seed: int | Int[ArrayLike, ""],
    ema: bool,
) -> TrainState:
    """The state before the first step.

    Args:
        params: As `TrainState.params`.
        state: As `TrainState.state`.
        optimizer: The optimizer.
        seed: As `TrainState.seed`.
        ema: Whether a moving average is kept.

    Returns:
        The state; its arrays are copies, so that they may be donated.
    """
    params, state = jax.tree.map(jnp.array, (params, state))
    average = jax.tree.map(jnp.array, params["network"]) if ema else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.int32),
        params=params,
        state=state,
        opt_state=optimizer.init(params),
        ema=average,
    )


def deployed(state: TrainState) -> tuple[PyTree, PyTree]:
    """What is evaluated and kept: parameters, or their moving average; and running statistics.

    Args:
        state: The state.

    Returns:
        Parameters and running statistics of the network.
    """
    return (state.params["network"] if state.ema is None else state.ema), state.state
