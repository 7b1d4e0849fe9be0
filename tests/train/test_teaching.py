"""A teacher that spoke before training teaches what it would say now of the same voxels."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from haskd_jax import losses, models
from haskd_jax.train.config import ASDConfig, IHDConfig
from haskd_jax.train.inputs import make_inputs
from haskd_jax.train.mesh import make_mesh, put_batches
from haskd_jax.train.networks import Output
from haskd_jax.train.objectives import Guides, Labels, adept
from haskd_jax.train.optimizer import make_optimizer
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


@pytest.fixture
def stand_ins():
    """Lets a test pass what only behaves like a network."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("stand_ins")
def test_a_drawn_expert_teaches_unlabelled_voxels_of_its_classes_once():
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
            ASDConfig(temperature=2.0), key[0], "data",
        )[0]  # fmt: skip

    draws = [float(value(key[None, None])[0]) for key in jax.random.split(jax.random.key(0), 400)]
    taught = np.where(labels < 0, tables.argmax(axis=2), labels)  # [M, V]
    share = np.asarray(omega)[np.arange(2)[:, None], taught]
    each = [losses.kl_divergence(student, table, temperature=2.0) for table in tables]
    expected = float(np.sum(share * np.asarray(each)) / voxels)
    assert np.std(draws) > 0.01  # both are drawn
    assert np.mean(draws) == pytest.approx(expected, abs=4 * np.std(draws) / 20)


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
    said = batch._replace(soft=np.asarray(jax.nn.log_softmax(logits), np.float16))
    ihd = IHDConfig(information="confidence")
    online = replace(task, ihd=ihd)
    offline = replace(task, ihd=replace(ihd, teaching="offline"), teacher=None)

    metrics = first_step(online, batch, guides, capacity)
    others = first_step(offline, said, Guides(), capacity)
    assert metrics["ihd/logits"] > 0.01
    assert set(metrics) == set(others)
    for name, value in metrics.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-2, err_msg=name)


@pytest.mark.parametrize(
    "given", [{"features": 0.5}, {"relations": 0.5}, {"information": "seen"}], ids=str
)
def test_what_needs_the_teacher_in_every_step_is_refused(given):
    with pytest.raises(ValueError, match="teaching: offline leaves logits alone"):
        IHDConfig(teaching="offline", **given)
