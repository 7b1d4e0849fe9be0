"""How long it takes to score frames, find what they see, and choose ten of them.

    python kernels/bench/views.py        (under a minute on two cores)

The sequence is made up: a camera walks through a furnished room. Frames and depths are in memory
before the clock starts. The first line of the table is what the project promises: 10 of 1,000
frames of 320 x 240 against 100,000 voxels within 2 s on two CPU cores. The others vary the numbers
of frames and of voxels; nanoseconds per pair (visibility and selection) stay level where time
grows linearly.
"""

import os
import platform
import resource
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from haskd_jax import views

HEIGHT, WIDTH = 240, 320
INTRINSICS = np.array([[280, 0, 159.5], [0, 280, 119.5], [0, 0, 1]], np.float32)
NUM_VIEWS = 10
CORES = 2
WALK = 250  # frames rendered; longer sequences go the same way again
TARGET_SECONDS = 2.0
# (frames, voxels); the promise first.
CASES = [(1000, 100_000), (250, 100_000), (500, 100_000), (1000, 25_000), (1000, 50_000)]
CASES += [(1000, 200_000), (2000, 100_000)]


def boxes(rng: np.random.Generator) -> np.ndarray:
    """[B, 2, 3] low and high corners: the room first, which is seen from inside, then furniture."""
    room = np.array([[0, 0, 0], [8, 6, 2.7]])
    low = np.concatenate([rng.uniform([0.3, 0.3], [6.7, 4.7], (12, 2)), np.zeros((12, 1))], axis=1)
    high = low + rng.uniform(0.4, 1.2, (12, 3))
    return np.concatenate([room[None], np.stack([low, high], axis=1)]).astype(np.float32)


def surface_points(scene: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, 3] on the faces of the boxes, in raster order as a voxel grid has them."""
    extent = scene[:, 1] - scene[:, 0]
    area = np.stack([extent[:, (axis + 1) % 3] * extent[:, (axis + 2) % 3] for axis in range(3)], 1)
    face = rng.choice(area.size, count, p=area.ravel() / area.sum())
    box, axis = np.divmod(face, 3)
    place = rng.random((count, 3))
    place[np.arange(count), axis] = rng.integers(0, 2, count)
    points = scene[box, 0] + place * extent[box]
    return points[np.lexsort(np.floor(points / 0.05).T[::-1])].astype(np.float32)


def walk(count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, 4, 4] camera-to-world: three turns on an ellipse, looking around."""
    time = np.linspace(0, 1, count)
    turn = 6 * np.pi * time
    position = np.stack([4 + 2.5 * np.cos(turn), 3 + 1.8 * np.sin(turn), 1.5 + 0 * time], axis=1)
    heading, pitch = turn * 1.7 + rng.normal(0, 0.02, count), 0.3 * np.sin(9 * turn)
    ahead = [np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), -np.sin(pitch)]
    ahead = np.stack(ahead, axis=1)
    right = np.stack([np.sin(heading), -np.cos(heading), 0 * time], axis=1)
    pose = np.tile(np.eye(4), (count, 1, 1))
    pose[:, :3, :] = np.stack([right, np.cross(ahead, right), ahead, position], axis=2)
    return pose.astype(np.float32)


@jax.jit
def render(scene, poses, grain):
    """Images [F, H, W, 3] of grain, every third of them blurred, and depth [F, H, W] in metres."""
    row, column = jnp.mgrid[:HEIGHT, :WIDTH]
    rays = jnp.stack([(column - 159.5) / 280, (row - 119.5) / 280, jnp.ones_like(row, float)])

    def one_frame(frame):
        number, pose = frame
        direction = jnp.einsum("ij,jhw->ihw", pose[:3, :3], rays)
        inverse = 1 / jnp.where(jnp.abs(direction) < 1e-6, 1e-6, direction)
        depth = jnp.full((HEIGHT, WIDTH), jnp.inf)
        for i, box in enumerate(scene):
            low, high = (box - pose[:3, 3])[:, :, None, None] * inverse
            near, far = jnp.minimum(low, high).max(0), jnp.maximum(low, high).min(0)
            hit = far if i == 0 else jnp.where((near < far) & (near > 0), near, jnp.inf)
            depth = jnp.minimum(depth, hit)
        blurred = (grain + jnp.roll(grain, 1, 1) + jnp.roll(grain, 2, 1)) / 3
        image = jnp.where(number % 3 == 0, blurred, grain) / (1 + 0.3 * depth[..., None])
        return depth, (255 * image).astype(jnp.uint8)

    depth, images = jax.lax.map(one_frame, (jnp.arange(len(poses)), poses))
    return images, depth


def seconds(function, *args) -> tuple[float, jax.Array]:
    """The median of three calls after one that compiles, and the result."""
    result = jax.block_until_ready(function(*args))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return sorted(times)[1], result


def megabytes(function, *args) -> float:
    """What XLA sets aside for the result and on the way to it, arguments not counted."""
    memory = jax.jit(function).lower(*args).compile().memory_analysis()
    return (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 1e6


def peak_gigabytes() -> float:
    """What this process has held at most."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(points, images, depth, poses) -> None:
    """Prints one line of the table."""
    frames, voxels = len(depth), len(points)
    intrinsics = jnp.broadcast_to(jnp.asarray(INTRINSICS), (frames, 3, 3))
    find = partial(views.visibility, tolerance=0.05)
    scoring, quality = seconds(views.frame_quality, images)
    finding, visible = seconds(find, points, depth, intrinsics, poses)

    def choose(visible, quality):
        return views.select_views(visible, num_views=NUM_VIEWS, quality=quality)

    choosing, _ = seconds(choose, visible, quality)
    total = scoring + finding + choosing
    memory = megabytes(find, points, depth, intrinsics, poses), megabytes(choose, visible, quality)
    print(
        f"{frames:7d} {voxels:7d} {visible.mean():6.1%} {scoring:9.3f} {finding:11.3f}"
        f" {choosing:10.3f} {total:6.3f} {1e9 * (finding + choosing) / frames / voxels:8.1f}"
        f" {memory[0]:10.0f} {memory[1]:10.0f}",
        flush=True,
    )
    if (frames, voxels) == CASES[0]:
        verdict = "kept" if total <= TARGET_SECONDS else "BROKEN"
        print(f"        the promise of {TARGET_SECONDS:g} s is {verdict}; the process has held")
        print(f"        {peak_gigabytes():.1f} GB at most, its frames and their rendering included")


def main() -> None:
    if hasattr(os, "sched_setaffinity"):  # JAX counts the cores when it starts its backend
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    rng = np.random.default_rng(0)
    scene = boxes(rng)
    print(f"{platform.machine()}, {CORES} cores, jax {jax.__version__}")
    print("                        seconds                                   ns per  MB held by")
    print(
        " frames  voxels  seen    quality  visibility  selection  total       pair visib.  select."
    )
    poses = jnp.asarray(walk(WALK, rng))
    grain = jnp.asarray(rng.random((HEIGHT, WIDTH, 3), np.float32))
    sequence = *render(scene, poses, grain), poses
    for frames, voxels in CASES:
        points = jnp.asarray(surface_points(scene, voxels, np.random.default_rng(1)))
        rounds = -(-frames // WALK)
        images, depth, poses = (jnp.concatenate([x] * rounds)[:frames] for x in sequence)
        measure(points, images, depth, poses)


if __name__ == "__main__":
    main()
