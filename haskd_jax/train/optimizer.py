"""Optimizers and learning-rate schedules, all of optax."""

import itertools

import jax
import numpy as np
import optax
from jaxtyping import PyTree

from haskd_jax.train.config import OptimizerConfig


def cycle_ends(config: OptimizerConfig, steps: int) -> tuple[int, ...]:
    """The number of steps done at each cycle's end.

    Args:
        config: The optimizer.
        steps: In all.

    Returns:
        Ascending, the last one is `steps`; empty where the schedule has no cycles.

    Example:
        >>> cycle_ends(OptimizerConfig(schedule="cyclic", cycles=4), 100)
        (25, 50, 75, 100)
        >>> cycle_ends(OptimizerConfig(schedule="cyclic", cycles=3, first_cycle=0.5), 100)
        (50, 75, 100)
    """
    if config.schedule != "cyclic":
        return ()
    if config.first_cycle is None or config.cycles == 1:
        shares = np.arange(1, config.cycles + 1) / config.cycles
    else:
        shares = np.linspace(config.first_cycle, 1, config.cycles)
    ends = tuple(round(float(share) * steps) for share in shares)
    if len(set(ends)) < len(ends) or ends[0] < 1:
        raise ValueError(f"cycles: {config.cycles} do not fit into {steps} steps")
    return ends


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate of every step.

    Args:
        config: The optimizer.
        steps: In all.

    Returns:
        From the number of a step to its rate.

    Example:
        >>> rate = make_schedule(OptimizerConfig(schedule="poly", learning_rate=1.0), 100)
        >>> round(float(rate(50)), 3)
        0.536
    """
    peak = config.learning_rate
    if config.schedule == "poly":
        return optax.polynomial_schedule(peak, 0.0, power=0.9, transition_steps=steps)
    if config.schedule == "onecycle":
        return optax.cosine_onecycle_schedule(steps, peak, pct_start=0.05)
    ends = cycle_ends(config, steps)
    lengths = [end - start for start, end in itertools.pairwise((0, *ends))]
    # A short rise before the first fall, as the parameters are drawn at random.
    first = optax.warmup_cosine_decay_schedule(
        peak / 10, peak, max(1, lengths[0] // 20), lengths[0], peak / 100
    )
    later = config.restart * peak
    rest = [optax.cosine_decay_schedule(later, length, alpha=0.01) for length in lengths[1:]]
    return optax.join_schedules([first, *rest], list(ends[:-1]))


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer of a training.

    Args:
        config: The optimizer.
        steps: Batches in all; with accumulation the parameters change less often.

    Returns:
        The transformation.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = make_optimizer(OptimizerConfig(name="sgd", learning_rate=0.1), 10)
        >>> params = {"w": jnp.ones((2, 2))}
        >>> with jax.numpy_dtype_promotion("standard"):  # optax mixes Python floats and float32
        ...     updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> updates["w"].shape
        (2, 2)
    """
    updates = max(1, steps // config.accumulate)
    schedule = make_schedule(config, updates)
    parts = []
    if config.clip:
        parts.append(optax.clip_by_global_norm(config.clip))
    if config.name == "adamw":
        parts.append(
            optax.adamw(
                schedule, b1=config.momentum, weight_decay=config.weight_decay, mask=_decayed
            )
        )
    else:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_decayed))
        parts.append(optax.sgd(schedule, momentum=config.momentum, nesterov=True))
    optimizer = optax.chain(*parts)
    if config.accumulate > 1:
        optimizer = optax.MultiSteps(
            optimizer, every_k_schedule=config.accumulate
        ).gradient_transformation()
    return optimizer


def _decayed(params: PyTree) -> PyTree:
    """Norms and biases are vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
