"""A training of seconds, as the tests run, kill and spread it: in processes of its own.

`python -m tests.train.small_run fork ROOMS` reads lines "FOLDER SIGNAL STEP DELAY" from standard
input, and for each one trains in a process forked for it, which gets the signal so many seconds
after the step. `python -m tests.train.small_run join ROOMS FOLDER
ADDRESS NUMBER` is one of two processes that train together.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

from haskd_jax.data import Cloud
from haskd_jax.data import transforms as t
from haskd_jax.data.loader import Loader
from haskd_jax.data.writer import SceneWriter
from haskd_jax.files import write_json
from haskd_jax.train.card import ModelCard, ModelConfig
from haskd_jax.train.config import ASDConfig, IHDConfig, OptimizerConfig, TrainConfig
from haskd_jax.train.loop import fit
from haskd_jax.train.mesh import DATA, make_mesh
from haskd_jax.train.networks import make_network
from haskd_jax.train.objectives import Guides
from haskd_jax.train.step import Task
from haskd_jax.train.stopping import Stopped
from tests.data import raw

ROOT = Path(__file__).resolve().parents[2]
ROOMS = tuple(f"room{i}" for i in range(8))
CLASSES = tuple("abcdef")
MODEL = ModelConfig(channels=(8, 8), blocks=(1, 1), stem=8, stem_kernel=3)
CARD = ModelCard("student", MODEL, "own", CLASSES, 0.2)
RECIPE = t.Recipe(before=(t.centre_shift, partial(t.rotate, axis="z")), voxel_size=0.2)
STEPS = 12
COUNTS = np.array([100, 200, 300, 400, 0, 500])  # of the points of each class, for calibration


def write_rooms(root: Path) -> None:
    """Prepared scenes of differing sizes."""
    description = {"format": "haskd-dataset", "version": 1, "dataset": "own"}
    write_json(root / "dataset.json", {**description, "classes": list(CLASSES)})
    for seed, name in enumerate(ROOMS):
        count = 150 + 10 * seed
        points, side = raw.room_cloud(count, seed)
        # Not all alike: batch norm hides a constant, whose weights Adam moves by rounding errors.
        normals = np.random.default_rng(seed).normal(size=(count, 3))
        normals = np.float32(normals / np.linalg.norm(normals, axis=1, keepdims=True))
        colour = raw.paint(points.astype(np.float64))
        with SceneWriter(root, name) as writer:
            writer.add_cloud(Cloud(points, colour, normals, side.astype(np.int32)))
            writer.commit(dataset="own", split="train", options={})


def make_loader(rooms: Path, *, batch_size: int, rows: int) -> Loader:
    """Of one device."""
    capacity = tuple(max(rows >> level, 64) for level in range(2))
    return Loader(
        rooms, ROOMS, RECIPE, batch_size=batch_size, seed=5, levels=1, capacities=(capacity,)
    )


def calibrate(params, state):
    """Stands for the calibration scenes: differs with the parameters, and is cheap."""
    total = [np.abs(leaf.astype(np.float64)).sum() for leaf in jax.tree.leaves((params, state))]
    iou = np.modf(np.sum(total) * np.arange(1, len(CLASSES) + 1) * 0.37)[0]
    return np.where(COUNTS == 0, np.nan, iou), COUNTS


def train(rooms: Path, folder: Path, show=None):
    """Cycles, experts online, moving average, accumulation, an optimizer of two kinds of state: all
    that must survive a kill."""
    optimizer = OptimizerConfig(name="muon", schedule="cyclic", cycles=3, ema=0.9, accumulate=2)
    config = TrainConfig(
        steps=STEPS, batch_size=2, optimizer=optimizer, save_every=2, log_every=1, threads=1
    )
    network = make_network(CARD, axis_name=DATA)
    return fit(
        Task(network, config, seed=1, asd=ASDConfig(weight=0.5)),
        make_loader(rooms, batch_size=2, rows=512),
        folder,
        mesh=make_mesh(jax.devices()[:1]),
        online=True,
        calibrate=calibrate,
        show=show,
    )


def taught(*, batch_size: int) -> tuple[Task, Guides]:
    """A student taught by another in every way that has a mean over voxels."""
    config = TrainConfig(
        steps=8,
        batch_size=batch_size,
        optimizer=OptimizerConfig(learning_rate=0.003, schedule="cyclic", cycles=2),
        save_every=100,
        log_every=1,
        threads=0,
    )
    teacher = make_network(CARD)
    ihd = IHDConfig(features=0.5, relations=0.5, information="confidence")
    network, asd = make_network(CARD, axis_name=DATA), ASDConfig(weight=0.5)
    task = Task(network, config, seed=1, teacher=teacher, ihd=ihd, asd=asd)
    params, state = jax.jit(lambda: teacher.init(9))()
    return task, Guides(teacher=jax.tree.map(np.asarray, (params, state)))


def train_spread(rooms: Path, folder: Path, devices) -> None:
    """Four scenes a step, over the devices, taught by a teacher and by an expert."""
    size = 4 // len(devices)
    task, guides = taught(batch_size=size)
    loader = make_loader(rooms, batch_size=size, rows=512 * size)
    iou = np.where(COUNTS == 0, np.nan, 0.5)  # the same, however the sums of a step are ordered
    fit(
        task,
        loader,
        folder,
        mesh=make_mesh(devices),
        guides=guides,
        online=True,
        calibrate=lambda params, state: (iou, COUNTS),
    )


def _configure() -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _fork(rooms: Path) -> None:
    """Imports once, and starts no backend: that would not survive a fork.

    Answers each line with the exit code and the number of steps that were seen.
    """
    for line in sys.stdin:
        folder, number, step, delay = line.split()
        steps, shown = os.pipe()
        child = os.fork()
        if not child:
            _train_and_leave(rooms, Path(folder), shown)
        os.close(shown)
        seen = 0
        while seen < int(step) and os.read(steps, 1):
            seen += 1
        if int(number):
            time.sleep(float(delay))  # up to the random moment: nothing is waited for
            os.kill(child, int(number))  # if it left already, it still waits to be waited for
        while os.read(steps, 1):
            seen += 1
        os.close(steps)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen, flush=True)


def _train_and_leave(rooms: Path, folder: Path, shown: int) -> None:
    code = 1
    try:
        train(rooms, folder, lambda *_: os.write(shown, b"."))
        code = 0
    except Stopped as error:
        print(error, file=sys.stderr, flush=True)
        code = 3
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    os._exit(code)


if __name__ == "__main__":
    _configure()
    if sys.argv[1] == "fork":
        _fork(Path(sys.argv[2]))
    else:
        rooms, folder, address, number = sys.argv[2:]
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.config.update("jax_num_cpu_devices", 2)
        jax.distributed.initialize(address, 2, int(number))
        train_spread(Path(rooms), Path(folder), jax.devices())
