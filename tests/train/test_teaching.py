"""A teacher that spoke before training teaches what it would say now of the same voxels."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax.train.config import IHDConfig
from haskd_jax.train.inputs import make_inputs
from haskd_jax.train.mesh import make_mesh, put_batches
from haskd_jax.train.objectives import Guides
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
