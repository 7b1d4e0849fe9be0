"""Optimizers and learning-rate schedules, all of optax."""

import itertools

import jax
import numpy as np
import optax
import optax.contrib
from jaxtyping import PyTree

from haskd_jax.train.config import OptimizerConfig


def cycle_ends(config: OptimizerConfig, steps: int) -> tuple[int, ...]:
    """The number of batches done at each cycle's end, where the parameters have just changed.

    Args:
        config: The optimizer.
        steps: Batches in all, a multiple of `config.accumulate`.

    Returns:
        Ascending, the last one is `steps`; empty where the schedule has no cycles.

    Raises:
        ValueError: The parameters do not change twice in the first cycle and once in the others.

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
    updates = steps // config.accumulate
    ends = tuple(round(float(share) * updates) for share in shares)
    if len(set(ends)) < len(ends) or ends[0] < 2:
        raise ValueError(
            f"cycles: {config.cycles} do not fit into {updates} changes of the parameters, of "
            "which the first needs two and the others one: give more steps or fewer cycles"
        )
    return tuple(config.accumulate * end for end in ends)


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate of every change of the parameters.

    Args:
        config: The optimizer.
        steps: Batches in all, a multiple of `config.accumulate`.

    Returns:
        From the number of a change, which is a batch's without accumulation, to its rate.

    Example:
        >>> rate = make_schedule(OptimizerConfig(schedule="poly", learning_rate=1.0), 100)
        >>> round(float(rate(50)), 3)
        0.536
    """
    peak, updates = config.learning_rate, steps // config.accumulate
    if config.schedule == "poly":
        return optax.polynomial_schedule(peak, 0.0, power=0.9, transition_steps=updates)
    if config.schedule == "onecycle":
        return optax.cosine_onecycle_schedule(updates, peak, pct_start=0.05)
    ends = [end // config.accumulate for end in cycle_ends(config, steps)]
    lengths = [end - start for start, end in itertools.pairwise((0, *ends))]
    # A short rise before the first fall, as the parameters are drawn at random.
    first = optax.warmup_cosine_decay_schedule(
        peak / 10, peak, max(1, lengths[0] // 20), lengths[0], peak / 100
    )
    later = config.restart * peak
    rest = [optax.cosine_decay_schedule(later, length, alpha=0.01) for length in lengths[1:]]
    return optax.join_schedules([first, *rest], ends[:-1])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer of a training.

    Args:
        config: The optimizer.
        steps: Batches in all, a multiple of `config.accumulate`: so many change the parameters
            once.

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
    schedule = make_schedule(config, steps)
    parts = []
    if config.clip:
        parts.append(optax.clip_by_global_norm(config.clip))
    if config.name == "adamw":
        parts.append(
            optax.adamw(
                schedule, b1=config.momentum, weight_decay=config.weight_decay, mask=_decayed
            )
        )
    elif config.name == "muon":
        parts.append(
            optax.contrib.muon(
                schedule,
                beta=config.momentum,
                weight_decay=config.weight_decay,
                weight_decay_mask=_decayed,
                # Steps as large as AdamW's (Liu et al., Muon is Scalable for LLM Training, 2025),
                # so that one learning rate serves both.
                consistent_rms=0.2,
                muon_weight_dimension_numbers=_matrices,
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


def _matrices(params: PyTree) -> PyTree:
    """Weights as matrices from all inputs, those of a kernel's offsets among them, to outputs."""

    def one(leaf) -> optax.contrib.MuonDimensionNumbers | None:
        if leaf.ndim < 2:
            return None
        *inputs, output = range(leaf.ndim)
        return optax.contrib.MuonDimensionNumbers(tuple(inputs), output)

    return jax.tree.map(one, params)


def _decayed(params: PyTree) -> PyTree:
    """Norms and biases are vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
