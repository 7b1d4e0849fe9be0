"""A whole SpUNet on 80,000 voxels against the same network in spconv, on CPU, in one run.

    pip install -e '.[bench]'
    python kernels/bench/unet.py            (three minutes on two cores)

Both build their maps anew in every run: ours from points, voxelization included; spconv's from
voxels. Inference is one forward pass with running statistics; a training step is a forward pass
with the batch's statistics, cross entropy on 20 classes, gradients and an SGD update. The peer is
timed at each thread count, and its best counts. Freed memory is kept, for both
(`sparse.keep_freed_memory`).
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from conv import best_seconds, first_seen_order
from flax import nnx
from measure import (
    PEER,
    VOXEL_SIZE,
    capacity_for,
    machine,
    memory_in_own_process,
    peak_memory,
    room_points,
    seconds,
)

from haskd_jax import losses, sparse
from haskd_jax.models import MINKUNET, MinkUNet

CONFIG = MINKUNET["spunet"]
IN_CHANNELS, NUM_CLASSES = 6, 20
VOXELS = 82_000  # asked for: 80,000 and a few come out


class Ours:
    """Compiled inference and training step, and their inputs."""

    def __init__(self):
        points, batch = room_points(VOXELS)
        self.coords = first_seen_order(points, batch)
        capacity = capacity_for(len(self.coords))
        capacities = tuple(capacity_for(len(level)) for level in coarser(self.coords))
        rng = np.random.default_rng(0)
        features = jnp.asarray(rng.standard_normal((capacity, IN_CHANNELS)), jnp.float32)
        labels = jnp.asarray(rng.integers(0, NUM_CLASSES, capacity), jnp.int32)
        model = MinkUNet(CONFIG, IN_CHANNELS, NUM_CLASSES, rngs=nnx.Rngs(0))
        graph, params, stats = nnx.split(model, nnx.Param, ...)
        params, stats = nnx.as_pure((params, stats))
        optimizer = optax.sgd(0.01)

        def maps(points):
            grid, _ = sparse.voxelize(points, voxel_size=VOXEL_SIZE, capacity=capacity)
            return grid, sparse.pyramid(grid, capacities=capacities)

        def infer(params, stats, points, features):
            model = nnx.merge(graph, params, stats)
            model.eval()
            return model(*maps(points), features)[1]

        def loss(params, stats, points, features, labels):
            model = nnx.merge(graph, params, stats)
            grid, pyramid = maps(points)
            _, logits = model(grid, pyramid, features)
            nll = losses.cross_entropy(logits, labels, where=grid.mask)
            state = nnx.as_pure(nnx.state(model, nnx.BatchStat))
            return losses.masked_mean(nll, where=grid.mask), (state, pyramid.overflow)

        def train(params, stats, state, points, features, labels):
            (value, aux), gradients = jax.value_and_grad(loss, has_aux=True)(
                params, stats, points, features, labels
            )
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, value, aux

        points = jnp.asarray(points)
        build = jax.jit(maps).lower(points).compile()
        inputs = (params, stats, points, features)
        run = jax.jit(infer).lower(*inputs).compile()
        step_inputs = (params, stats, optimizer.init(params), points, features, labels)
        step = jax.jit(train).lower(*step_inputs).compile()
        self.maps = lambda: build(points)[1].submanifold
        self.infer = lambda: run(*inputs)
        self.train = lambda: step(*step_inputs)
        assert int(self.train()[3][1]) == 0, "voxels that did not fit"
        self.levels = [int(grid.mask.sum()) for grid in build(points)[1].grids]


def coarser(coords):
    """Distinct voxels of each coarser level."""
    levels = []
    for _ in range(CONFIG.num_stages):
        coords = np.unique(np.concatenate([coords[:, :1], coords[:, 1:] // 2], axis=1), axis=0)
        levels.append(coords)
    return levels


def peer_runs(coords):
    """Inference and training step of the same network in spconv."""
    import spconv.pytorch as spconv
    import torch
    from torch import nn

    def norm_relu(conv, width):
        return spconv.SparseSequential(conv, nn.BatchNorm1d(width), nn.ReLU())

    class Block(spconv.SparseModule):
        def __init__(self, before, after, key):
            super().__init__()
            self.proj = None
            if before != after:
                self.proj = nn.Sequential(
                    nn.Linear(before, after, bias=False), nn.BatchNorm1d(after)
                )
            conv = spconv.SubMConv3d
            self.first = norm_relu(conv(before, after, 3, bias=False, indice_key=key), after)
            self.second = spconv.SparseSequential(
                conv(after, after, 3, bias=False, indice_key=key), nn.BatchNorm1d(after)
            )

        def forward(self, x):
            skip = x.features if self.proj is None else self.proj(x.features)
            y = self.second(self.first(x))
            return y.replace_feature(torch.relu(y.features + skip))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            stages, widths = CONFIG.num_stages, CONFIG.channels
            skips = (CONFIG.stem, *widths[:stages])
            self.stem = norm_relu(
                spconv.SubMConv3d(IN_CHANNELS, CONFIG.stem, 5, bias=False, indice_key="stem"),
                CONFIG.stem,
            )
            self.down, self.encode, self.up, self.decode = (nn.ModuleList() for _ in range(4))
            for level in range(stages):
                width = widths[level]
                conv = spconv.SparseConv3d(
                    skips[level], width, 2, stride=2, bias=False, indice_key=f"down{level}"
                )
                self.down.append(norm_relu(conv, width))
                blocks = (
                    Block(width, width, f"level{level + 1}") for _ in range(CONFIG.blocks[level])
                )
                self.encode.append(spconv.SparseSequential(*blocks))
            before = widths[stages - 1]
            for i, width in enumerate(widths[stages:]):
                level = stages - 1 - i
                conv = spconv.SparseInverseConv3d(
                    before, width, 2, bias=False, indice_key=f"down{level}"
                )
                self.up.append(norm_relu(conv, width))
                inputs = [width + skips[level]] + [width] * (CONFIG.blocks[stages + i] - 1)
                blocks = (Block(n, width, f"level{level}") for n in inputs)
                self.decode.append(spconv.SparseSequential(*blocks))
                before = width
            self.head = nn.Linear(before, NUM_CLASSES)

        def forward(self, x):
            x = self.stem(x)
            skips = []
            for down, encode in zip(self.down, self.encode, strict=True):
                skips.append(x)
                x = encode(down(x))
            for up, decode in zip(self.up, self.decode, strict=True):
                x = up(x)
                x = decode(x.replace_feature(torch.cat([x.features, skips.pop().features], 1)))
            return self.head(x.features)

    network = Network()
    indices = torch.from_numpy(coords).int().contiguous()
    # Whole coarsest voxels: without padding the peer would drop those at the far border.
    edge = 2**CONFIG.num_stages
    shape = (-(-(coords[:, 1:].max(axis=0) + 1) // edge) * edge).tolist()
    features = torch.randn(len(coords), IN_CHANNELS)
    labels = torch.randint(0, NUM_CLASSES, (len(coords),))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def infer():
        network.eval()
        with torch.no_grad():
            return network(spconv.SparseConvTensor(features, indices, shape, 1))

    def train():
        network.train()
        optimizer.zero_grad()
        logits = network(spconv.SparseConvTensor(features, indices, shape, 1))
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()

    parameters = sum(p.numel() for p in network.parameters())
    return infer, train, parameters


def main():
    """Prints the table."""
    sparse.keep_freed_memory()
    ours = Ours()
    print(machine(), "| native kernels" if sparse.native_available() else "| portable only")
    print(f"SpUNet, voxels by level: {ours.levels}")
    rows = [("maps alone", ours.maps), ("inference", ours.infer), ("training step", ours.train)]
    peer = {}
    if PEER:
        infer, train, parameters = peer_runs(ours.coords)
        print(f"parameters of the peer's network: {parameters:,}")
        peer = {"inference": infer, "training step": train}
    for name, run in rows:
        time = seconds(run, repeat=5)
        line = f"{name:15}{time * 1e3:9.1f} ms"
        if name in peer:
            theirs = best_seconds(peer[name])
            line += f"   spconv{theirs * 1e3:9.1f} ms   {theirs / time:.2f}x"
        print(line, flush=True)
    for side in ("ours", "peer") if PEER else ("ours",):
        memory = memory_in_own_process(__file__, side)
        print(f"memory of a training step beyond inputs, {side}: {memory:.0f} MiB", flush=True)


def print_memory(side):
    """What a process of its own measures."""
    if side == "ours":
        print(peak_memory(Ours().train))
    else:
        print(peak_memory(peer_runs(first_seen_order(*room_points(VOXELS)))[1]))


if __name__ == "__main__":
    print_memory(*sys.argv[1:]) if sys.argv[1:] else main()
