"""What the engine's benchmarks share: clocks, memory, the machine, the clouds and the peer."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from haskd_jax.data.toy_room import toy_room

VOXEL_SIZE = 0.02  # metres


def machine() -> str:
    """One line on the machine and the versions."""
    with open("/proc/cpuinfo") as file:
        models = {line.split(":")[1].strip() for line in file if line.startswith("model name")}
        file.seek(0)
        flags = file.read()
    isa = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    return (
        f"{', '.join(models)} ({isa}), {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"jax {jax.__version__}"
    )


def seconds(run: Callable[[], object], *, repeat: int = 9) -> float:
    """The shortest of a few runs, after one that is not counted."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def memory_in_own_process(script: str, *arguments: str) -> float:
    """MiB that `script` prints, in a process of its own, where no memory is used again."""
    command = [sys.executable, script, *arguments]
    return float(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    )


def peak_memory(run: Callable[[], object]) -> float:
    """MiB that the first run needs beyond what is there before it (Linux)."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    before = _status("VmRSS")
    jax.block_until_ready(run())
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def room_points(voxels: int, *, rooms: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 3] of furnished rooms, each of about `voxels` voxels, and batch [N].

    A room of its natural size has 105,000 voxels of 2 cm. Smaller clouds are the part of it around
    a point, larger ones several rooms in a row, so that the surfaces stay what they are.
    """
    single, batch = [], []
    for room in range(rooms):
        points = toy_room(np.random.default_rng(room), spacing=VOXEL_SIZE)
        copies = -(-voxels // 105_000)
        row = [points + np.float32([4 * copy, 0, 0]) for copy in range(copies)]
        points = np.concatenate(row)
        if voxels < 105_000:
            centre = np.float32([1.2, 1.2, 0.4])
            near = np.argsort(np.abs(points - centre).max(axis=1), kind="stable")
            # So many points fall on a voxel of this room.
            points = points[near[: int(2.47 * voxels)]]
        single.append(np.random.default_rng(room).permutation(points))
        batch.append(np.full(len(points), room, np.int32))
    return np.concatenate(single), np.concatenate(batch)


def capacity_for(voxels: int) -> int:
    """The next multiple of 256: what a measured bucket would be."""
    return -(-voxels // 256) * 256


def dense_seconds(gflop: float) -> float:
    """Seconds of a dense, square float32 product of so much work, by XLA or torch, the faster."""
    size = max(1, round((gflop * 1e9 / 2) ** (1 / 3)))
    a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size)), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    best = seconds(lambda: product(a))
    if PEER:
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
        b = torch.from_numpy(np.array(a))
        best = min(best, seconds(lambda: b @ b))
    return best


def _load_peer() -> bool:
    try:
        import spconv.pytorch.ops as ops
    except ImportError:
        return False
    ops.get_current_stream = lambda: 0  # its CPU backward asks for a CUDA stream
    return True


PEER = _load_peer()  # whether spconv is installed (extra `bench`)
_CORES = os.cpu_count() or 1
# The peer is timed at each, and its best counts.
THREADS = sorted({_CORES, *(2**i for i in range(_CORES.bit_length()) if 2**i <= _CORES)})
