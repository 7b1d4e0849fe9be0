"""The expert bank: snapshots of one network side by side, and what each is adept at."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32, Key, PyTree

from haskd_jax import losses


@struct.dataclass
class ExpertBank:
    """Snapshots in a fixed number of slots, so that a growing bank compiles once. A pytree.

    Attributes:
      params: the parameters, each leaf with a leading axis of M slots.
      state: the running statistics, likewise.
      iou: `[M, C]`, of each snapshot on the calibration split; NaN for classes that it lacks.
      filled: `[M]`, which slots hold a snapshot.
    """

    params: PyTree
    state: PyTree
    iou: Float[Array, "M C"]
    filled: Bool[Array, " M"]


def empty_bank(params: PyTree, state: PyTree, *, capacity: int, num_classes: int) -> ExpertBank:
    """A bank without snapshots.

    Args:
      params: of the network, or anything with its shapes and dtypes.
      state: likewise.
      capacity: M, most snapshots that it will hold.
      num_classes: C.

    Raises:
      ValueError: where `capacity` < 1.

    Example:
      >>> bank = empty_bank({"w": jnp.zeros(3)}, {}, capacity=4, num_classes=2)
      >>> bank.params["w"].shape, bank.filled.tolist()
      ((4, 3), [False, False, False, False])
    """
    if capacity < 1:
        raise ValueError(f"capacity={capacity}: must be 1 or more")
    iou = np.full((capacity, num_classes), np.nan, np.float32)
    # Banks are made on the host: XLA would compile a program for every shape.
    params, state = jax.tree.map(
        lambda leaf: np.zeros((capacity, *leaf.shape), leaf.dtype), (params, state)
    )
    return ExpertBank(*jax.device_put((params, state, iou, np.zeros(capacity, bool))))


def add_expert(
    bank: ExpertBank, params: PyTree, state: PyTree, iou: Float[ArrayLike, " C"]
) -> ExpertBank:
    """Puts a snapshot into the first empty slot. Outside of `jit`.

    Args:
      bank: the bank.
      params: of the snapshot.
      state: of the snapshot.
      iou: `[C]`, on the calibration split.

    Raises:
      ValueError: where the bank is full.

    Example:
      >>> bank = empty_bank({"w": jnp.zeros(1)}, {}, capacity=2, num_classes=2)
      >>> bank = add_expert(bank, {"w": jnp.ones(1)}, {}, jnp.array([0.5, 0.7]))
      >>> bank.params["w"][:, 0].tolist(), bank.filled.tolist()
      ([1.0, 0.0], [True, False])
    """
    slot = int(np.asarray(bank.filled).sum())
    if slot == len(bank.filled):
        raise ValueError(f"the bank holds {slot} experts and is full: give it a larger capacity")

    def put(slots, leaf):
        slots = np.array(slots)
        slots[slot] = leaf
        return slots

    slots = bank.params, bank.state, bank.iou, bank.filled
    return ExpertBank(*jax.device_put(jax.tree.map(put, slots, (params, state, iou, True))))


def bank_adeptness(bank: ExpertBank, **options) -> Float[Array, "M C"]:
    """Which expert teaches which class: `losses.adeptness` of the filled slots. Outside of `jit`.

    Args:
      bank: the bank.
      **options: of `losses.adeptness`, such as `student_iou` and `counts`.

    Returns:
      `[M, C]`, zero for empty slots.

    Example:
      >>> bank = empty_bank({}, {}, capacity=3, num_classes=2)
      >>> bank = add_expert(bank, {}, {}, jnp.array([0.5, 0.7]))
      >>> bank = add_expert(bank, {}, {}, jnp.array([0.6, 0.1]))
      >>> bank_adeptness(bank).tolist()
      [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    """
    filled = np.flatnonzero(bank.filled)
    omega = np.zeros(bank.iou.shape, np.float32)
    if filled.size:
        omega[filled] = losses.adeptness(np.asarray(bank.iou)[filled], **options)
    return jax.device_put(omega)


def all_experts(
    bank: ExpertBank, forward: Callable[[PyTree, PyTree], Float[Array, "V C"]]
) -> Float[Array, "M V C"]:
    """Logits of every expert, one after the other. Empty slots cost nothing and are zero.

    Args:
      bank: the bank.
      forward: from params and state to logits, with running statistics.

    Example:
      >>> bank = empty_bank({"w": jnp.zeros(())}, {}, capacity=2, num_classes=1)
      >>> bank = add_expert(bank, {"w": jnp.float32(2)}, {}, jnp.array([0.5]))
      >>> all_experts(bank, lambda params, state: params["w"] * jnp.ones((1, 1))).tolist()
      [[[2.0]], [[0.0]]]
    """
    result = jax.eval_shape(forward, *jax.tree.map(lambda leaf: leaf[0], (bank.params, bank.state)))
    nothing = jnp.zeros(result.shape, result.dtype)
    # Within `shard_map` every device has logits of its own, and both branches must say so.
    if result.manual_axis_type is not None and result.manual_axis_type.varying:
        axes = tuple(sorted(result.manual_axis_type.varying))
        nothing = jax.lax.pcast(nothing, axes, to="varying")

    def one(slot):
        params, state, filled = slot
        return jax.lax.cond(filled, forward, lambda *_: nothing, params, state)

    return jax.lax.map(one, (bank.params, bank.state, bank.filled))


class Draw(NamedTuple):
    """The expert of a step.

    Attributes:
      index: `[]` int32, its slot.
      share: `[1, C]`, its adeptness over the probability with which it was drawn: with it
        `losses.adept_divergence` of this expert alone is, on average over draws, that of all on
        labelled voxels.
    """

    index: Int32[Array, ""]  # type: ignore[assignment]  # hides tuple.index, which has no use here
    share: Float[Array, "1 C"]


def rotate(
    key: Key[Array, ""],
    adeptness: Float[Array, "M C"],
    labels: Int[Array, " V"],
    *,
    where: Bool[Array, " V"] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Draw:
    """Draws one expert, in proportion to the voxels it is adept at.

    A step then costs one extra forward pass, whatever the number of experts. Where no voxel that
    counts is labelled, experts that are adept at anything are drawn alike.

    Args:
      key: explicit randomness.
      adeptness: `[M, C]`, from `bank_adeptness`.
      labels: `[V]`, in [-1, C); those of -1 do not count.
      where: `[V]`, False for voxels that do not count: padding, and those that are not taught.
      axis_name: a mesh axis over which the voxels are counted, so that all devices draw alike.

    Example:
      >>> labels = jnp.array([1, 1, -1])
      >>> draw = rotate(jax.random.key(0), jnp.array([[1.0, 0.0], [0.0, 1.0]]), labels)
      >>> draw.index.tolist(), draw.share.tolist()
      (1, [[0.0, 1.0]])
    """
    num_classes = adeptness.shape[1]
    counted = (labels >= 0) & (labels < num_classes)
    counted = counted if where is None else counted & where
    classes = jnp.where(counted, labels, num_classes)
    voxels = jnp.zeros(num_classes, jnp.float32).at[classes].add(1.0, mode="drop")
    if axis_name is not None:
        voxels = jax.lax.psum(voxels, axis_name)
    votes = jnp.sum(adeptness * voxels[None], axis=1)
    anything = jnp.any(adeptness > 0, axis=1).astype(votes.dtype)
    votes = jnp.where(jnp.sum(votes) > 0, votes, anything)
    votes = jnp.where(jnp.sum(votes) > 0, votes, jnp.ones_like(votes))  # shares are zero anyway
    index = jax.random.categorical(key, jnp.log(votes)).astype(jnp.int32)
    probability = votes[index] / jnp.sum(votes)
    return Draw(index, adeptness[index][None] / probability)


def expert(bank: ExpertBank, index: Int[Array, ""]) -> tuple[PyTree, PyTree]:
    """Params and state of one slot.

    Example:
      >>> bank = empty_bank({"w": jnp.zeros(3)}, {}, capacity=4, num_classes=2)
      >>> params, state = expert(bank, jnp.int32(1))
      >>> params["w"].shape
      (3,)
    """
    return jax.tree.map(lambda leaf: leaf[index], (bank.params, bank.state))
