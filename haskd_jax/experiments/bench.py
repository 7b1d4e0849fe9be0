"""`haskd bench`: what a training step takes on this machine, arm by arm.

    haskd bench

Made-up rooms, a network and a batch like the demo's. Prints the steps of the plain student, of the
teacher, and of HAS-KD's student with one expert a step and with all of them, each as a ratio to the
plain one. Takes two minutes on two cores, most of it compilation.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bench:
    """What is measured.

    Attributes:
        rooms: Scenes of a batch.
        steps: Steps timed of each arm; the middle one counts.
        experts: In the bank.
        views: Frames of a scene.
    """

    rooms: int = 2
    steps: int = 7
    experts: int = 4
    views: int = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Args:
        arguments: Options; those of the command line by default.

    Returns:
        The exit code.
    """
    import tyro

    config = tyro.cli(Bench, args=arguments, prog="haskd bench", description=__doc__)
    for line in measure(config):
        print(line, flush=True)
    return 0


def measure(config: Bench):
    """Times the steps.

    Args:
        config: What is measured.

    Yields:
        Lines for people.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from haskd_jax import models
    from haskd_jax.data import list_scenes, read_dataset
    from haskd_jax.data.loader import Loader
    from haskd_jax.data.prepare import prepare
    from haskd_jax.data.synthrooms.source import SynthRooms
    from haskd_jax.data.transforms import plain
    from haskd_jax.experiments.synthrooms import SMALL
    from haskd_jax.sparse import keep_freed_memory, native_available
    from haskd_jax.train.card import ModelCard
    from haskd_jax.train.config import ASDConfig, IHDConfig, TrainConfig
    from haskd_jax.train.mesh import DATA, make_mesh, put_batches
    from haskd_jax.train.networks import make_network
    from haskd_jax.train.objectives import Guides
    from haskd_jax.train.optimizer import make_optimizer
    from haskd_jax.train.step import Task, make_step

    keep_freed_memory()  # as trainings do
    device = jax.devices()[0]
    kernels = "native kernels" if native_available() else "portable implementation"
    yield f"{device.device_kind} ({device.platform}), {kernels}"
    mesh = make_mesh([device])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "rooms"
        prepare(SynthRooms(train=config.rooms, val=1, test=1), root)
        voxel_size = SMALL.scenes.voxel_size
        student = make_network(
            ModelCard("student", SMALL.model, "synthrooms", tuple(read_dataset(root)["classes"]),
                      voxel_size), axis_name=DATA,
        )  # fmt: skip
        teacher = make_network(
            ModelCard("teacher", SMALL.model, "synthrooms", student.card.classes, voxel_size,
                      SMALL.teacher), axis_name=DATA,
        )  # fmt: skip
        loader = Loader(
            root,
            list_scenes(root, "train"),
            recipe=plain(voxel_size),
            batch_size=config.rooms,
            views=config.views,
            levels=student.levels,
        ).measured(batches=1, buckets=1)
        batch = put_batches(mesh, [loader.batch_at(0)])
    assert loader.capacities is not None
    voxels = int(np.asarray(batch.mask).sum())
    yield f"{voxels:,} voxels of {config.rooms} rooms, {config.views} images each"

    weights = jax.jit(student.init)(0)
    bank = models.empty_bank(
        *weights, capacity=config.experts, num_classes=len(student.card.classes)
    )
    for number in range(config.experts):
        iou = jnp.roll(jnp.linspace(0.2, 0.8, len(student.card.classes)), 5 * number)
        bank = models.add_expert(bank, weights[0], weights[1], iou)
    guides = Guides(
        teacher=jax.jit(teacher.init)(0),
        bank=bank,
        adeptness=models.bank_adeptness(bank),
    )
    training, ihd = TrainConfig(), IHDConfig()
    arms = {
        "plain student": (Task(student, training), Guides()),
        "teacher": (Task(teacher, training), Guides()),
        "HAS-KD, one expert a step": (
            Task(student, training, teacher=teacher, ihd=ihd, asd=ASDConfig(experts="rotate")),
            guides,
        ),
        "HAS-KD, all experts": (
            Task(student, training, teacher=teacher, ihd=ihd, asd=ASDConfig(experts="all")),
            guides,
        ),
    }
    reference = None
    for name, (task, given) in arms.items():
        optimizer = make_optimizer(training.optimizer, training.steps)
        step = make_step(task, optimizer, mesh)
        state = task.init(optimizer, mesh)
        times = []
        for _ in range(config.steps + 1):
            start = time.perf_counter()
            state, metrics = step(state, batch, given, capacity=loader.capacities[0])
            jax.block_until_ready((state, metrics))
            times.append(time.perf_counter() - start)
        taken = float(np.median(times[1:]))
        reference = reference or taken
        yield (
            f"{name:28} {1e3 * taken:8.0f} ms a step  {taken / reference:5.2f} x the plain student"
            f"  (the first one, compiled: {times[0]:.0f} s)"
        )


if __name__ == "__main__":
    raise SystemExit(main())
