"""The expert bank: slots, all experts at once, one expert at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from haskd_jax import losses, models

from .scenes import NUM_CLASSES, SHAPE, assert_same_bits, scene

IOU = np.array([[0.9, 0.2, 0.5], [0.3, 0.8, 0.4]], np.float32)


@functools.cache
def bank_of_two():
    """A bank of three slots with two snapshots, their apply, and the snapshots."""
    snapshots = []
    for seed in range(2):
        student = models.MinkUNet(SHAPE, 3, NUM_CLASSES, rngs=nnx.Rngs(seed))
        apply, params, state = models.functional(student)
        state = jax.tree.map(lambda leaf, seed=seed: leaf + seed, state)
        snapshots.append((params, state))
    bank = models.empty_bank(*snapshots[0], capacity=3, num_classes=NUM_CLASSES)
    for snapshot, iou in zip(snapshots, IOU, strict=True):
        bank = models.add_expert(bank, *snapshot, jnp.asarray(iou))
    return bank, apply, snapshots


def forward(apply, data, params, state):
    outputs, _ = apply(params, state, data.grid, data.maps, data.features, train=False)
    return outputs[1]


@pytest.mark.slow  # compiles four networks
def test_all_equals_a_loop():
    bank, apply, snapshots = bank_of_two()
    data = scene()
    one = functools.partial(forward, apply, data)
    logits = jax.jit(lambda bank: models.all_experts(bank, one))(bank)
    assert logits.shape == (3, data.grid.capacity, NUM_CLASSES)
    for i, snapshot in enumerate(snapshots):
        np.testing.assert_allclose(logits[i], jax.jit(one)(*snapshot), atol=1e-6)
        assert_same_bits(models.expert(bank, jnp.int32(i)), snapshot)
    assert not np.array_equal(logits[0], logits[1])
    assert not logits[2].any()


def test_all_within_shard_map():
    bank, *_ = bank_of_two()
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    rows = jnp.arange(NUM_CLASSES * 4, dtype=jnp.float32).reshape(4, NUM_CLASSES)

    def sharded(bank, rows):
        return models.all_experts(bank, lambda *_: 2 * rows)

    spec = jax.sharding.PartitionSpec
    mapped = jax.shard_map(
        sharded, mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec(None, "data")
    )
    logits = jax.jit(mapped)(bank, rows)
    np.testing.assert_array_equal(logits, np.stack([2 * rows, 2 * rows, 0 * rows]))


def test_adeptness_of_the_filled_slots():
    bank, *_ = bank_of_two()
    omega = models.bank_adeptness(bank, student_iou=jnp.array([0.5, 0.9, 0.1]))
    assert omega.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    empty = models.empty_bank({}, {}, capacity=2, num_classes=3)
    assert not models.bank_adeptness(empty).any()


def test_rotation_follows_the_voxels_and_is_right_on_average():
    rng = np.random.default_rng(0)
    omega = jnp.array([[1.0, 0.0, 0.25], [0.0, 1.0, 0.75], [0.0, 0.0, 0.0]])
    labels = jnp.asarray(rng.choice([0, 1, 2, -1], 200, p=[0.5, 0.1, 0.3, 0.1]), jnp.int32)
    where = jnp.asarray(rng.random(200) < 0.8)
    student, *experts = (jnp.asarray(rng.normal(size=(200, 3)), jnp.float32) for _ in range(4))
    experts = jnp.stack(experts)

    def loss(logits, shares):
        values = losses.adept_divergence(
            student, logits, shares, labels, unlabelled="ignore", where=where
        )
        return losses.masked_mean(values, where=where & (labels >= 0))

    @jax.jit
    @jax.vmap
    def draw(key):
        index, share = models.rotate(key, omega, labels, where=where)
        return index, loss(experts[index][None], share)

    index, value = draw(jax.random.split(jax.random.key(0), 4000))
    counted = np.asarray(labels)[np.asarray(where) & (np.asarray(labels) >= 0)]
    votes = np.asarray(omega)[:, counted].sum(1)
    # Four standard deviations of a share of 4000 draws, at most.
    frequencies = np.bincount(index, minlength=3) / 4000
    np.testing.assert_allclose(frequencies, votes / votes.sum(), atol=0.032)
    assert frequencies[2] == 0
    spread = 4 * float(value.std()) / 4000**0.5
    assert float(value.mean()) == pytest.approx(float(loss(experts, omega)), abs=spread)


def test_rotation_without_labels_or_adeptness():
    keys = jax.random.split(jax.random.key(1), 1000)
    labels = jnp.full(5, -1, jnp.int32)
    omega = jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.5]])
    index, share = jax.vmap(lambda key: models.rotate(key, omega, labels))(keys)
    counts = np.bincount(index, minlength=3)
    assert counts[1] == 0
    assert counts[0] == pytest.approx(500, abs=64)
    np.testing.assert_allclose(share[:, 0], 2 * np.asarray(omega)[np.asarray(index)], rtol=1e-6)
    nothing = models.rotate(keys[0], jnp.zeros((3, 2)), labels)
    assert not nothing.share.any()


def test_bad_input():
    with pytest.raises(ValueError, match="capacity=0"):
        models.empty_bank({}, {}, capacity=0, num_classes=2)
    bank = models.empty_bank({}, {}, capacity=1, num_classes=2)
    bank = models.add_expert(bank, {}, {}, jnp.ones(2))
    with pytest.raises(ValueError, match="holds 1 experts and is full"):
        models.add_expert(bank, {}, {}, jnp.ones(2))
