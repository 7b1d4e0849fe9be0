"""The same training on one device, on two, and on two processes of two each."""

import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from haskd_jax.train.config import OptimizerConfig, TrainConfig
from haskd_jax.train.log import read_log
from haskd_jax.train.loop import fit
from haskd_jax.train.mesh import DATA, make_mesh, put_batches
from haskd_jax.train.networks import make_network
from haskd_jax.train.optimizer import make_optimizer
from haskd_jax.train.step import Task, make_step
from tests.train import small_run


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    small_run.write_rooms(folder)
    return folder


def curves(folder) -> dict[str, np.ndarray]:
    lines = [line for line in read_log(folder) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 9))
    names = ["loss", *sorted(lines[-1]["terms"])]  # the expert teaches from the second cycle on
    return {
        name: np.array([{"asd": 0.0, **line, **line["terms"]}[name] for line in lines])
        for name in names
    }


def test_two_processes_of_two_devices_are_one(rooms, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "tests.train.small_run", "join", str(rooms)]
    start = partial(
        subprocess.Popen,
        cwd=small_run.ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    folder = tmp_path / "four"
    both = [start([*command, str(folder), address, str(number)]) for number in range(2)]
    try:
        small_run.train_spread(rooms, tmp_path / "one", jax.devices()[:1])
        for process in both:
            said, _ = process.communicate(timeout=300)
            assert process.returncode == 0, said
    finally:
        for process in both:
            process.kill()
            process.communicate()
    one, four = curves(tmp_path / "one"), curves(folder)
    assert one.keys() == four.keys() and any("ihd" in name for name in one)
    assert (one["asd"][:4] == 0).all() and (one["asd"][4:] > 0).all()
    assert one["loss"][-1] < one["loss"][0]
    np.testing.assert_allclose(four["loss"], one["loss"], rtol=0, atol=1e-4)
    for name in one.keys() - {"gradient_norm"}:
        np.testing.assert_allclose(four[name], one[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_collectives_are_reductions_only(rooms):
    mesh = make_mesh(jax.devices()[:2])
    task, guides = small_run.taught(batch_size=2)
    optimizer = make_optimizer(task.config.optimizer, task.config.steps)
    loader = small_run.make_loader(rooms, batch_size=2, rows=512)
    batch = put_batches(mesh, [loader.batch_at(0), loader.batch_at(1)])
    state = task.init(optimizer, mesh)
    step = make_step(task, optimizer, mesh)
    capacity = loader.capacities[0]
    text = step.lower(state, batch, guides, capacity=capacity).compile().as_text()
    found = re.findall(
        r"= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-\w+|send|recv)"
        r"(?:-start)?\(",
        text,
    )
    assert {kind for _, kind in found} == {"all-reduce"}
    # None is as large as the voxels: gradients, statistics of channels, and single numbers.
    largest = max(leaf.size for leaf in jax.tree.leaves(state.params))
    for shape, _ in found:
        for size in re.findall(r"\[([\d,]*)\]", shape):
            assert np.prod([int(n) for n in size.split(",") if n]) <= largest, shape
            assert str(capacity[0]) not in size.split(","), shape


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_parameters_may_be_spread_over_the_devices(rooms, tmp_path, name):
    card = replace(small_run.CARD, model=replace(small_run.MODEL, channels=(32, 32)))

    def train(folder, *, spread):
        config = TrainConfig(
            steps=4, batch_size=2, save_every=2, log_every=1, threads=0, shard_parameters=spread,
            optimizer=OptimizerConfig(name=name),
        )  # fmt: skip
        task = Task(make_network(card, axis_name=DATA), config, seed=1)
        loader = small_run.make_loader(rooms, batch_size=2, rows=1024)
        state = fit(task, loader, folder, mesh=make_mesh(jax.devices()[:2]))
        return state, [line["loss"] for line in read_log(folder) if "loss" in line]

    whole, expected = train(tmp_path / "whole", spread=False)
    parts, losses = train(tmp_path / "parts", spread=True)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    spread = [not leaf.is_fully_replicated for leaf in jax.tree.leaves(parts.params)]
    assert any(spread) and not all(spread)
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(whole.params))

    # From the checkpoint before the last one, to the same bits.
    shutil.rmtree(tmp_path / "parts" / "weights")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "4")
    again, _ = train(tmp_path / "parts", spread=True)
    jax.tree.map(np.testing.assert_array_equal, parts.params, again.params)
