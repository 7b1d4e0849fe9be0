"""Trainings that end before their time go on as if nothing had been."""

import math
import random
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from haskd_jax.train import _checkpoint
from haskd_jax.train.config import ASDConfig, OptimizerConfig, TrainConfig
from haskd_jax.train.log import read_log
from haskd_jax.train.loop import fit
from haskd_jax.train.mesh import DATA, make_mesh
from haskd_jax.train.networks import make_network
from haskd_jax.train.step import Task
from tests.train import small_run

CLOCK = {"seconds", "step_seconds"}  # of the log: what no two runs have alike


class Trainer:
    """Starts trainings in forked processes, so that each one costs no imports."""

    def __init__(self, rooms: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.train.small_run", "fork", str(rooms)],
            cwd=small_run.ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, folder: Path, *, after: int = 0, delay: float = 0.0, send: int = 0):
        """Trains; sends a signal `delay` seconds after a step.

        Returns:
            The exit code, and how many steps were seen.
        """
        self.process.stdin.write(f"{folder} {int(send)} {after} {delay}\n")
        self.process.stdin.flush()
        code, seen = self.process.stdout.readline().split()
        return int(code), int(seen)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    small_run.write_rooms(folder)
    return folder


@pytest.fixture(scope="module")
def trainer(rooms):
    trainer = Trainer(rooms)
    yield trainer
    trainer.process.stdin.close()
    trainer.process.wait()
    trainer.process.stdout.close()


@pytest.fixture(scope="module")
def undisturbed(trainer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    trainer.run(folder / "compiles")
    assert trainer.run(folder / "run") == (0, small_run.STEPS)
    return folder / "run"


def contents(folder: Path) -> dict:
    """What a training leaves: the last state, experts and weights by their bits, and its log."""
    found = {}
    paths = [folder / "checkpoints" / str(small_run.STEPS)]  # the one before differs by SIGTERM
    for path in (*paths, *(folder / "snapshots").iterdir(), *(folder / "weights").iterdir()):
        leaves, info = _checkpoint.read(path)
        # What was written again has another edition.
        kind, name = path.parent.name, path.name.split(".")[0]
        found[kind, name if kind != "weights" else ""] = (
            info,
            {n: leaf.array.tobytes() for n, leaf in leaves.items()},
        )
    found["log"] = [
        {name: value for name, value in line.items() if name not in CLOCK}
        for line in read_log(folder)
        if "compilations" not in line
    ]
    return found


def assert_same(folder: Path, expected: Path) -> None:
    one, other = contents(folder), contents(expected)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name] == other[name], name


def test_the_undisturbed_run_is_worth_comparing_with(undisturbed):
    found = contents(undisturbed)
    assert {("snapshots", "0"), ("snapshots", "2"), ("checkpoints", "12")} < found.keys()
    steps = [line for line in found["log"] if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, small_run.STEPS + 1))
    assert any("asd" in name for name in steps[-1]["terms"])
    assert len({line["loss"] for line in steps}) == len(steps)


def kill_and_resume(trainer, undisturbed, folder, seed):
    rng = random.Random(seed)
    after = rng.randint(0, small_run.STEPS)
    code, _ = trainer.run(folder, after=after, delay=rng.random() * 0.4, send=signal.SIGKILL)
    assert code in (0, -signal.SIGKILL)
    assert trainer.run(folder)[0] == 0
    assert_same(folder, undisturbed)
    return code


def test_killed_at_random_moments(trainer, undisturbed, tmp_path):
    codes = [kill_and_resume(trainer, undisturbed, tmp_path / str(seed), seed) for seed in range(3)]
    assert -signal.SIGKILL in codes


@pytest.mark.slow
def test_killed_at_twenty_random_moments(trainer, undisturbed, tmp_path):
    codes = [
        kill_and_resume(trainer, undisturbed, tmp_path / str(seed), seed) for seed in range(10, 30)
    ]
    assert codes.count(-signal.SIGKILL) >= 10


def test_sigterm_saves_before_leaving(trainer, undisturbed, tmp_path):
    code, seen = trainer.run(tmp_path, after=3, send=signal.SIGTERM)
    assert code == 3  # Stopped
    assert 3 <= seen < small_run.STEPS
    assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == seen
    code, rest = trainer.run(tmp_path)
    assert (code, seen + rest) == (0, small_run.STEPS)
    assert_same(tmp_path, undisturbed)


def test_sigterm_in_the_last_step_is_not_lost(trainer, undisturbed, tmp_path):
    """What follows a training, its evaluation or the next one, is not begun."""
    code, seen = trainer.run(tmp_path, after=small_run.STEPS, send=signal.SIGTERM)
    assert (code, seen) == (3, small_run.STEPS)  # Stopped, with all of it saved
    assert_same(tmp_path, undisturbed)
    assert trainer.run(tmp_path) == (0, 0)


def test_a_finished_training_is_left_as_it_is(trainer, undisturbed):
    before = contents(undisturbed)
    assert trainer.run(undisturbed) == (0, 0)
    assert contents(undisturbed) == before


def test_nan_stops_with_its_batch_saved_and_named(rooms, tmp_path):
    config = TrainConfig(
        steps=9,
        batch_size=2,
        optimizer=OptimizerConfig(name="sgd", schedule="poly", learning_rate=1e30, clip=0.0),
        save_every=1,
        threads=0,
    )
    task = Task(make_network(small_run.CARD, axis_name=DATA), config, asd=ASDConfig(weight=0.0))
    loader = small_run.make_loader(rooms, batch_size=2, rows=512)
    with pytest.raises(FloatingPointError) as caught:
        fit(task, loader, tmp_path, mesh=make_mesh(jax.devices()[:1]))
    message = str(caught.value)
    (path,) = tmp_path.glob("*.npz")
    step = int(path.name.split(".")[0].rsplit("_", 1)[1])
    batch = loader.batch_at(step - 1)
    assert f"step {step}" in message and str(path) in message
    assert all(loader.scenes[i] in message for i in batch.scene)
    with np.load(path, allow_pickle=False) as saved:
        for name, array in batch._asdict().items():
            np.testing.assert_array_equal(saved[f"device0/{name}"], array)
    # Nothing that is not finite was checkpointed.
    for folder in (tmp_path / "checkpoints").iterdir():
        assert int(folder.name) < step
        for leaf in _checkpoint.read(folder).leaves.values():
            assert math.isfinite(np.asarray(leaf.array, np.float64).sum())
