"""A teacher that spoke before training teaches what it would say now of the same voxels."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import losses, models
from haskd_jax.train.config import ASDConfig, IHDConfig
from haskd_jax.train.experts import with_experts
from haskd_jax.train.inputs import make_inputs
from haskd_jax.train.mesh import make_mesh, put_batches
from haskd_jax.train.networks import Output
from haskd_jax.train.objectives import Guides, Labels, adept, heterogeneous
from haskd_jax.train.optimizer import make_optimizer
from haskd_jax.train.snapshots import Snapshot
from haskd_jax.train.step import make_step
from tests.train import small_run


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    root = tmp_path_factory.mktemp("rooms")
    small_run.write_rooms(root)
    return root


def first_step(task, batch, guides, capacity):
    mesh = make_mesh(jax.devices()[:1])
    optimizer = make_optimizer(task.config.optimizer, task.config.steps)
    step = make_step(task, optimizer, mesh)
    _, metrics = step(
        task.init(optimizer, mesh), put_batches(mesh, [batch]), guides, capacity=capacity
    )
    return jax.device_get(metrics)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("which", ["all", "unlabelled"])
def test_a_drawn_expert_teaches_unlabelled_voxels_of_its_classes_once(which):
    """On average over draws: each expert the voxels that it takes for a class it is adept at."""
    rng = np.random.default_rng(0)
    voxels, classes = 60, 3
    tables = rng.normal(size=(2, voxels, classes)).astype(np.float32) * 2
    bank = models.empty_bank({"logits": tables[0]}, {}, capacity=2, num_classes=classes)
    for table in tables:
        bank = models.add_expert(bank, {"logits": table}, {}, jnp.ones(classes))
    omega = jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    labels = np.where(np.arange(voxels) < 20, rng.integers(0, classes, voxels), -1)
    student = jnp.asarray(rng.normal(size=(voxels, classes)), jnp.float32)
    network = SimpleNamespace(
        forward=lambda params, *_, **__: (Output(params["logits"], params["logits"]), {})
    )
    inputs = SimpleNamespace(grid=SimpleNamespace(mask=jnp.ones(voxels, bool)))

    @jax.jit
    @partial(jax.vmap, axis_name="data")
    def value(key):
        return adept(
            Output(student, student), network, Guides(bank=bank, adeptness=omega), inputs,
            Labels(jnp.asarray(labels, jnp.int32), jnp.zeros(voxels, jnp.int32), 1),
            ASDConfig(temperature=2.0, voxels=which), key[0], "data",
        )[0]  # fmt: skip

    draws = np.array(
        [float(value(key[None, None])[0]) for key in jax.random.split(jax.random.key(0), 400)]
    )
    of_class = np.where(labels < 0, tables.argmax(axis=2), labels)  # [M, V]
    share = np.asarray(omega)[np.arange(2)[:, None], of_class]
    each = np.stack([losses.kl_divergence(student, table, temperature=2.0) for table in tables])
    taught = labels < 0 if which == "unlabelled" else np.ones(voxels, bool)
    expected = np.sum(share * each, axis=1, where=taught) / taught.sum()
    assert np.std(draws) > 0.01  # both are drawn
    assert np.mean(draws) == pytest.approx(expected.sum(), abs=4 * np.std(draws) / 20)
    if which == "unlabelled":  # no class is known: drawn alike, each at twice its weight
        values = np.sort(2 * expected)
        np.testing.assert_allclose(np.unique(draws.round(5)), values, rtol=1e-4)
        assert 150 < np.sum(draws > values.mean()) < 250


def divergences(student, teacher):
    """[V] KL(teacher, student), in f64."""

    def log_softmax(logits):
        logits = np.asarray(logits, np.float64)
        return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))

    said, learnt = log_softmax(teacher), log_softmax(student)
    return np.sum(np.exp(said) * (said - learnt), axis=-1)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("labelled", [0, 20, 50])
@pytest.mark.parametrize("voxels", ["all", "unlabelled"])
def test_ihd_and_asd_teach_the_voxels_asked_for(voxels, labelled):
    """50 voxels and 10 of padding; where every voxel has a label, those without teach nothing."""
    rng = np.random.default_rng(1)
    student, said = rng.normal(size=(2, 60, 3)).astype(np.float32) * 2
    mask = np.arange(60) < 50
    labels = np.where(np.arange(60) < labelled, rng.integers(0, 3, 60), -1).astype(np.int32)
    inputs = SimpleNamespace(grid=SimpleNamespace(mask=jnp.asarray(mask)), seen=None)
    network = SimpleNamespace(
        forward=lambda params, *_, **__: (Output(params["logits"], params["logits"]), {})
    )
    bank = models.empty_bank({"logits": said}, {}, capacity=1, num_classes=3)
    guides = Guides(
        bank=models.add_expert(bank, {"logits": said}, {}, jnp.ones(3)), adeptness=jnp.ones((1, 3))
    )
    truth = Labels(jnp.asarray(labels), jnp.zeros(60, jnp.int32), 1)

    @jax.jit
    @partial(jax.vmap, axis_name="data")
    def values(logits):
        output = Output(logits, logits)

        def asd(experts):
            config = ASDConfig(experts=experts, voxels=voxels)
            return adept(output, network, guides, inputs, truth, config, key, "data")[0]

        key = jax.random.key(0)
        ihd, _ = heterogeneous(
            output, Output(said, said), inputs, truth, None,
            IHDConfig(temperature=1.0, voxels=voxels), "data",
        )  # fmt: skip
        return {"ihd": ihd, "rotate": asd("rotate"), "all": asd("all")}

    taught = mask & (labels < 0) if voxels == "unlabelled" else mask
    expected = divergences(student, said)[taught].mean() if taught.any() else 0.0
    for name, value in values(student[None]).items():
        assert float(value[0]) == pytest.approx(expected, rel=1e-5), name
    gradient = jax.grad(lambda logits: sum(jax.tree.leaves(values(logits)))[0])(student[None])[0]
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(np.any(gradient != 0, axis=-1), taught)


def test_offline_equals_online_where_the_voxels_are_the_same(rooms):
    task, guides = small_run.taught(batch_size=2)
    loader = small_run.make_loader(rooms, batch_size=2, rows=512)
    batch, capacity = loader.batch_at(0), loader.capacities[0]

    @jax.jit
    def logits_of(batch):
        inputs = make_inputs(jax.tree.map(jnp.asarray, batch), capacity)
        return task.teacher.forward(*guides.teacher, inputs, train=False)[0].logits

    logits = logits_of(batch)
    # As float16 keeps them, so that both learn from the same numbers.
    said = batch._replace(soft=np.asarray(jax.nn.log_softmax(logits), np.float16)[:, None])
    ihd = IHDConfig(information="confidence")
    online = replace(task, ihd=ihd)
    offline = replace(task, ihd=replace(ihd, teaching="offline"), teacher=None)

    metrics = first_step(online, batch, guides, capacity)
    others = first_step(offline, said, Guides(), capacity)
    assert metrics["ihd/logits"] > 0.01
    assert set(metrics) == set(others)
    for name, value in metrics.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-2, err_msg=name)


@pytest.mark.parametrize("teaches", [False, True], ids=["alone", "beside a teacher"])
@pytest.mark.parametrize("alike", [False, True], ids=["adept", "alike"])
def test_experts_that_spoke_before_teach_what_all_would_say_now(rooms, alike, teaches):
    task, guides = small_run.taught(batch_size=2)
    ihd = IHDConfig(weight=1.0 if teaches else 0.0, teaching="offline")
    asd = ASDConfig(weight=0.5, experts="all", temperature=2.0)
    task = replace(task, teacher=None, ihd=ihd, asd=asd, alike=alike)
    loader = small_run.make_loader(rooms, batch_size=2, rows=512)
    batch, capacity = loader.batch_at(0), loader.capacities[0]
    counts = small_run.COUNTS
    snapshots = []
    for cycle in range(2):
        params, state = jax.tree.map(np.asarray, jax.jit(task.network.init)(10 + cycle))
        params = jax.tree.map(partial(np.multiply, np.float32(1 + cycle)), params)  # one is surer
        iou = np.where(counts == 0, np.nan, np.roll([0.2, 0.4, 0.6, 0.5, 0.3, 0.1], 3 * cycle))
        snapshots.append(Snapshot(cycle, cycle, params, state, iou, counts))

    @jax.jit
    def logits_of(weights, batch):
        inputs = make_inputs(jax.tree.map(jnp.asarray, batch), capacity)
        return jax.nn.log_softmax(
            task.network.forward(*weights, inputs, train=False)[0].logits
        ).astype(jnp.float16)

    experts = [np.asarray(logits_of((one.params, one.state), batch)) for one in snapshots]
    teacher = [np.asarray(logits_of(guides.teacher, batch))] if teaches else []
    beside = batch._replace(soft=np.stack(teacher, axis=1)) if teaches else batch
    before = batch._replace(soft=np.stack([*teacher, *experts], axis=1))

    online = with_experts(Guides(), snapshots, 2, task)
    metrics = first_step(task, beside, online, capacity)
    offline = replace(task, asd=replace(asd, teaching="offline", experts="rotate"))
    said = with_experts(Guides(), snapshots, 2, offline)
    assert not jax.tree.leaves((said.bank.params, said.bank.state))
    np.testing.assert_array_equal(said.adeptness, online.adeptness)
    others = first_step(offline, before, said, capacity)
    assert metrics["asd"] > 0.01
    assert ("ihd/logits" in others) == teaches
    assert set(metrics) == set(others)
    for name, value in metrics.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-2, err_msg=name)


@pytest.mark.parametrize(
    "given", [{"features": 0.5}, {"relations": 0.5}, {"information": "seen"}], ids=str
)
def test_what_needs_the_teacher_in_every_step_is_refused(given):
    with pytest.raises(ValueError, match="teaching: offline leaves logits alone"):
        IHDConfig(teaching="offline", **given)
