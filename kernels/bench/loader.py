"""How many scenes and voxels a second the loader makes, and how many a training step takes.

    python kernels/bench/loader.py                  (two minutes on two cores)
    python kernels/bench/loader.py minkunet14a      (one: the smallest network only)

Made-up furnished rooms are prepared into a temporary folder: as many points as a scan of ScanNet
has, posed frames beside them. They go through the SpUNet recipe at 2 cm, two scenes a batch,
without views and with 3. Capacities are measured first. Then a training step (pyramid, forward,
cross entropy, backward, SGD) of the smallest and of the usual network is timed on the loader's own
batch; the promise is that the loader makes at least twice as many scenes as a step takes. Both have
the machine to themselves while they are timed.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from measure import machine, seconds

from haskd_jax import losses, models, sparse
from haskd_jax.data import Cloud, Frame, load_scene
from haskd_jax.data import transforms as t
from haskd_jax.data.loader import Loader
from haskd_jax.data.toy_room import toy_room
from haskd_jax.data.writer import SceneWriter, write_json

SCENES, POINTS_PER_CELL = 8, 1.2  # 156,000 points a room; ScanNet's scans have 150,000 on average
FRAMES, SIZE = 20, (320, 240)
NUM_CLASSES = 20
SECONDS = 3.0  # of making batches, for each line
PROMISE = 2.0


def prepare(root: Path) -> tuple[str, ...]:
    """Writes the rooms in the prepared form."""
    description = {"format": "haskd-dataset", "version": 1, "dataset": "own", "classes": ["a"] * 20}
    write_json(root / "dataset.json", description)
    names = tuple(f"room{i}" for i in range(SCENES))
    k = np.array([[280.0, 0, 159.5], [0, 280, 119.5], [0, 0, 1]])
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        points = toy_room(rng, points_per_cell=POINTS_PER_CELL)
        normals = rng.standard_normal(points.shape, np.float32)
        with SceneWriter(root, name) as writer:
            for i in range(FRAMES):
                colour = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
                depth = rng.integers(500, 4000, (SIZE[1], SIZE[0]), np.uint16)
                writer.add_frame(Frame(str(i), colour, depth, k, np.eye(4)))
            colour = rng.integers(0, 256, points.shape, np.uint8)
            label = rng.integers(-1, NUM_CLASSES, len(points), np.int32)
            writer.add_cloud(Cloud(points, colour, normals, label))
            writer.commit(dataset="own", split="train", options={})
    return names


def rates(batches: Iterator) -> tuple[float, float]:
    """Scenes and voxels a second, after a first batch that is not counted."""
    next(batches)
    scenes = voxels = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        batch = next(batches)
        scenes += int((batch.scene >= 0).sum())
        voxels += int(batch.mask.sum())
    return scenes / elapsed, voxels / elapsed


def by_transform(loader: Loader) -> None:
    """Prints where the time of one scene goes, on average: some transforms are often left out."""
    rng, rounds = np.random.default_rng(0), 3
    recipe = loader.recipe
    steps = [*recipe.before, t.grid_sample, *recipe.after]
    spent = dict.fromkeys(["read", *recipe.describe()[: len(steps)]], 0.0)
    for _ in range(rounds):
        start = time.perf_counter()
        sample = t.sample_of(load_scene(Path(loader.root) / loader.scenes[0]), frames=())
        spent["read"] += time.perf_counter() - start
        for name, step in zip(recipe.describe(), steps, strict=False):
            start = time.perf_counter()
            sample = step(sample, rng)
            spent[name] += time.perf_counter() - start
    parts = [f"{name} {1e3 * total / rounds:.1f}" for name, total in spent.items()]
    print(f"ms a scene: {', '.join(parts)}")


def step_seconds(network: str, loader: Loader) -> float:
    """Seconds of a training step on the loader's first batch."""
    batch = loader.batch_at(0)
    capacities = next(size for size in loader.capacities if size[0] == len(batch.mask))
    model = models.MinkUNet(models.MINKUNET[network], 6, NUM_CLASSES, rngs=nnx.Rngs(0))
    apply, params, state = models.functional(model)
    # Arguments, not constants, which XLA would compute with while it compiles.
    arrays = jax.device_put((batch.coords, batch.mask, batch.features, batch.label))

    @jax.jit
    def step(params, state, coords, mask, features, label):
        def loss(params):
            grid, _ = sparse.grid_from_coords(coords, capacity=capacities[0], mask=mask)
            maps = sparse.pyramid(grid, capacities=capacities[1:])
            (_, logits), new = apply(params, state, grid, maps, features, train=True)
            valid = mask & (label >= 0)
            values = losses.cross_entropy(logits, label, where=valid)
            return losses.masked_mean(values, where=valid), new

        gradients, new = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - jnp.float32(0.01) * g, params, gradients), new

    return seconds(lambda: step(params, state, *arrays), repeat=3)


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        names = prepare(Path(folder))
        loader = Loader(folder, names, t.SPUNET_SCANNET, batch_size=2, seed=0)
        start = time.perf_counter()
        loader = loader.measured(8)
        print(f"capacities {loader.capacities}, measured in {time.perf_counter() - start:.1f} s")
        by_transform(loader)
        print("views  threads  workers   scenes/s   voxels/s")
        best = 0.0
        for views, threads, workers in [(0, 1, 0), (0, 2, 0), (0, 1, 2), (3, 2, 0)]:
            with replace(loader, views=views).batches(threads=threads, workers=workers) as batches:
                scenes, voxels = rates(batches)
            best = max(best, scenes if not workers else 0)
            print(f"{views:5d} {threads:8d} {workers:8d} {scenes:10.2f} {voxels:10.0f}", flush=True)
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"this process has held {held:.2f} GiB at most")
        for network in sys.argv[1:] or ("minkunet14a", "spunet"):
            eaten = loader.batch_size / step_seconds(network, loader)
            verdict = "kept" if best >= PROMISE * eaten else "BROKEN"
            print(
                f"a training step of {network} takes {eaten:.2f} scenes/s: the loader makes "
                f"{best / eaten:.1f} times as many, the promise of {PROMISE:g} is {verdict}",
                flush=True,
            )


if __name__ == "__main__":
    main()
