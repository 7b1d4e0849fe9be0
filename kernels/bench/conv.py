"""Sparse convolution and map building against spconv, on CPU, in one run.

    pip install -e '.[bench]'
    python kernels/bench/conv.py            (six minutes on two cores)

Columns: voxels; pairs a voxel; useful GFLOP (2 pairs C^2) of one product; milliseconds of the
forward pass and of forward and both gradients; for each the peer's milliseconds, at its best thread
count, and their ratio to ours; for each the fraction of the arithmetic bound: the time of a dense,
square matrix product of the same useful work (three times that with both gradients), measured in
this run, over ours. Without spconv the peer's columns stay empty. Freed memory is kept, for both
(`sparse.keep_freed_memory`), as in trainings.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from measure import (
    PEER,
    THREADS,
    VOXEL_SIZE,
    capacity_for,
    dense_seconds,
    machine,
    memory_in_own_process,
    peak_memory,
    room_points,
    seconds,
)

from haskd_jax import sparse


def build(points, batch, capacity, *, kernel_size=3):
    """What a training step does first: points to voxels to neighbours."""
    grid, _ = sparse.voxelize(points, voxel_size=VOXEL_SIZE, capacity=capacity, batch=batch)
    return grid, sparse.kernel_map(grid, kernel_size=kernel_size)


def forward_and_gradients(features, weights, cotangent, kmap):
    """The result and both gradients."""
    result, pull_back = jax.vjp(lambda x, w: sparse.conv(x, w, kmap), features, weights)
    return result, *pull_back(cotangent)


class Peer:
    """spconv's submanifold convolution on the same voxels."""

    def __init__(self, coords, kernel_size=3):
        import torch

        self.coords = torch.from_numpy(coords).int().contiguous()
        self.shape = (coords[:, 1:].max(axis=0) + 1).tolist()
        self.scenes = int(coords[:, 0].max()) + 1
        self.kernel_size = kernel_size

    def layer(self, features, channels):
        """A layer and the input with its map, built once."""
        import spconv.pytorch as spconv
        import torch

        layer = spconv.SubMConv3d(channels, channels, self.kernel_size, bias=False, indice_key="x")
        x = torch.from_numpy(features).requires_grad_()
        with torch.no_grad():
            tensor = spconv.SparseConvTensor(x, self.coords, self.shape, self.scenes)
            mapped = layer(tensor).replace_feature(x)
        return layer, mapped, x

    def runs(self, features, channels):
        """Functions that run the forward pass, and forward and both gradients."""
        import torch

        layer, mapped, x = self.layer(features, channels)
        cotangent = torch.from_numpy(features)

        def forward():
            with torch.no_grad():
                return layer(mapped).features

        def both():
            result = layer(mapped.replace_feature(x)).features
            torch.autograd.grad(result, (x, layer.weight), cotangent)

        return forward, both

    def map_seconds(self):
        """Seconds of its map alone, from voxels in the order of their first points."""
        from spconv.core import ConvAlgo
        from spconv.pytorch import ops

        k = self.kernel_size

        def run():
            ops.get_indice_pairs(
                self.coords, self.scenes, self.shape, ConvAlgo.Native,
                [k] * 3, [1] * 3, [k // 2] * 3, [1] * 3, [0] * 3, subm=True,
            )  # fmt: skip

        return best_seconds(run)


def best_seconds(run):
    """Seconds with torch at its best thread count."""
    import torch

    times = []
    for count in THREADS:
        torch.set_num_threads(count)
        times.append(seconds(run, repeat=7))
    return min(times)


def first_seen_order(points, batch):
    """Distinct voxels [V, 4], moved to begin at zero, in the order in which points meet them."""
    voxels = np.floor(points / np.float32(VOXEL_SIZE)).astype(np.int32)
    coords = np.concatenate([batch[:, None], voxels - voxels.min(axis=0)], axis=1)
    _, first = np.unique(coords, axis=0, return_index=True)
    return coords[np.sort(first)]


class Case:
    """One convolution: our compiled programs, their inputs and the peer's."""

    def __init__(self, points, batch, channels, kernel_size=3):
        self.coords = first_seen_order(points, batch)
        self.voxels, self.channels, self.kernel_size = len(self.coords), channels, kernel_size
        capacity = capacity_for(self.voxels)
        grid, kmap = jax.jit(partial(build, capacity=capacity, kernel_size=kernel_size))(
            points, batch
        )
        assert int(grid.overflow) == 0
        self.pairs = int((kmap.neighbours >= 0).sum())
        rng = np.random.default_rng(1)
        self.features = rng.standard_normal((capacity, channels)).astype(np.float32)
        x = jnp.asarray(self.features)
        w = jnp.asarray(rng.standard_normal((kernel_size**3, channels, channels)), jnp.float32)
        # Compiled here, so that the first run's memory is the program's, not the compiler's.
        forward = jax.jit(sparse.conv).lower(x, w, kmap).compile()
        both = jax.jit(forward_and_gradients).lower(x, w, x, kmap).compile()
        self.forward, self.both = lambda: forward(x, w, kmap), lambda: both(x, w, x, kmap)

    def peer_runs(self):
        """The peer's forward pass, and forward and both gradients."""
        return Peer(self.coords, self.kernel_size).runs(self.features[: self.voxels], self.channels)


def report(name, *args, **kwargs):
    """Measures one convolution and prints its line."""
    case = Case(*args, **kwargs)
    gflop = 2 * case.pairs * case.channels**2 / 1e9
    ours = seconds(case.forward), seconds(case.both)
    dense = dense_seconds(gflop)
    peer = [""] * 4
    if PEER:
        theirs = [best_seconds(run) for run in case.peer_runs()]
        for i in range(2):
            peer[2 * i : 2 * i + 2] = f"{theirs[i] * 1e3:.1f}", f"{theirs[i] / ours[i]:.2f}x"
    print(
        f"{name:15}{case.channels:4}{case.voxels:9,}{case.pairs / case.voxels:6.1f}{gflop:7.2f} |"
        f"{ours[0] * 1e3:8.2f}{peer[0]:>8}{peer[1]:>7}{dense / ours[0]:6.0%} |"
        f"{ours[1] * 1e3:8.2f}{peer[2]:>8}{peer[3]:>7}{3 * dense / ours[1]:6.0%}",
        flush=True,
    )


def memory(channels):
    """Prints the MiB of forward and both gradients, each side in a process of its own."""
    ours, *theirs = (
        memory_in_own_process(__file__, side, str(channels))
        for side in (("ours", "peer") if PEER else ("ours",))
    )
    line = f"C = {channels}: {ours:.0f} MiB"
    print(line + (f", spconv {theirs[0]:.0f} MiB" if theirs else ""), flush=True)


def print_memory(side, channels):
    """What a process of `memory` does."""
    case = Case(*room_points(105_000), int(channels))
    print(peak_memory(case.both if side == "ours" else case.peer_runs()[1]))


def maps(points, batch):
    """Map building: from points to neighbours."""
    coords = first_seen_order(points, batch)
    build_jit = jax.jit(partial(build, capacity=capacity_for(len(coords))))
    # As in a training step, what nobody asks for (the hash table) is not made.
    neighbours = jax.jit(lambda points, batch: build_jit(points, batch)[1].neighbours)
    points, batch = jnp.asarray(points), jnp.asarray(batch)
    ours = seconds(lambda: neighbours(points, batch), repeat=15)
    line = f"\nmap of 3^3 from {len(points):,} unsorted points: {ours * 1e3:.2f} ms"
    if PEER:
        theirs = Peer(coords).map_seconds()
        line += f"; spconv's map from voxels: {theirs * 1e3:.1f} ms, {theirs / ours:.1f}x"
    print(line, flush=True)


def growth(channels=32):
    """Nanoseconds a voxel from 10k to 1M voxels."""
    print(
        f"\ngrowth, C = {channels}: voxels, ns a voxel of map building, forward, forward+gradients"
    )
    for voxels in (10_000, 30_000, 100_000, 300_000, 1_000_000):
        points, batch = room_points(voxels)
        count = len(first_seen_order(points, batch))
        build_jit = jax.jit(partial(build, capacity=capacity_for(count)))
        _, kmap = build_jit(points, batch)
        x = jnp.ones((capacity_for(count), channels), jnp.float32)
        w = jnp.ones((27, channels, channels), jnp.float32)
        forward, both = jax.jit(sparse.conv), jax.jit(forward_and_gradients)
        runs = (
            lambda b=build_jit, p=points, s=batch: b(p, s)[1].neighbours,
            lambda f=forward, x=x, w=w, k=kmap: f(x, w, k),
            lambda f=both, x=x, w=w, k=kmap: f(x, w, x, k),
        )
        times = [seconds(run, repeat=25) / count * 1e9 for run in runs]
        print(f"{count:10,}" + "".join(f"{t:9.0f}" for t in times), flush=True)


def main():
    """Prints every table."""
    sparse.keep_freed_memory()
    print(machine(), "| native kernels" if sparse.native_available() else "| portable only")
    print(f"{'':41} | forward" + " " * 21 + "| forward and both gradients")
    side = f"{'ms':>8}{'spconv':>8}{'ratio':>7}{'bound':>6}"
    print(f"{'cloud':15}{'C':>4}{'voxels':>9}{'pairs':>6}{'GFLOP':>7} |{side} |{side}")
    room = room_points(105_000)
    for channels in (32, 64, 96, 20, 48, 100):
        report("room", *room, channels)
    report("room, 5^3", *room, 32, kernel_size=5)
    report("batch of 4", *room_points(20_000, rooms=4), 64)
    for voxels in (500, 5_000):
        report("part of a room", *room_points(voxels), 64)
    maps(*room)
    print("\nmemory of forward and both gradients beyond inputs, room:")
    for channels in (32, 64, 96):
        memory(channels)
    growth()


if __name__ == "__main__":
    print_memory(*sys.argv[1:]) if sys.argv[1:] else main()
