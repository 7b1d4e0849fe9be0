"""Can a student learn one scene by heart? If not, nothing else is worth measuring."""

import jax
import numpy as np
import pytest

from haskd_jax.data import read_dataset
from haskd_jax.data.loader import Loader
from haskd_jax.data.prepare import prepare
from haskd_jax.data.synthrooms import Options, SynthRooms
from haskd_jax.data.transforms import plain
from haskd_jax.train.card import ModelCard, ModelConfig
from haskd_jax.train.config import OptimizerConfig, TrainConfig
from haskd_jax.train.inputs import make_inputs
from haskd_jax.train.mesh import DATA, make_mesh, put_batches
from haskd_jax.train.networks import make_network
from haskd_jax.train.objectives import Guides
from haskd_jax.train.optimizer import make_optimizer
from haskd_jax.train.state import deployed
from haskd_jax.train.step import Task, make_step

SMALL = ModelConfig(channels=(16, 32, 32, 16), blocks=(1, 1, 1, 1), stem=16, stem_kernel=3)
STEPS = 150


@pytest.mark.slow
def test_a_room_of_synthrooms(tmp_path):
    prepare(SynthRooms(train=1, val=1, test=1, options=Options(voxel_size=0.05)), tmp_path)
    classes = tuple(read_dataset(tmp_path)["classes"])
    card = ModelCard("student", SMALL, "synthrooms", classes, 0.1)
    network = make_network(card, axis_name=DATA)
    loader = Loader(tmp_path, ("scene0000_00",), recipe=plain(0.1), levels=network.levels).measured(
        1, buckets=1, headroom=1.0
    )
    config = TrainConfig(
        steps=STEPS, optimizer=OptimizerConfig(learning_rate=0.02, weight_decay=0.0)
    )
    optimizer, mesh = make_optimizer(config.optimizer, STEPS), make_mesh(jax.devices()[:1])
    task = Task(network, config)
    step, state = make_step(task, optimizer, mesh), task.init(optimizer, mesh)
    capacity, one = loader.capacities[0], loader.batch_at(0)
    batch = put_batches(mesh, [one])
    for _ in range(STEPS):
        state, metrics = step(state, batch, Guides(), capacity=capacity)
    assert metrics["overflow"] == 0

    # As it is deployed: with running statistics.
    @jax.jit
    def predict(params, running, batch):
        inputs = make_inputs(batch, capacity)
        return network.forward(params, running, inputs, train=False)[0].logits

    predicted = np.argmax(predict(*deployed(state), one), axis=1)
    labelled = one.label >= 0
    assert len(np.unique(one.label[labelled])) >= 5
    accuracy = (predicted == one.label)[labelled].mean()
    assert accuracy >= 0.98, accuracy
