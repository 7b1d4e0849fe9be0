"""Agreement with spconv, an independent engine, on the CPU: forward and both gradients.

Needs the extra `bench`. spconv's scatter races with more than one thread, so it gets one.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from . import common, oracle
from .clouds import wall_cells

torch = pytest.importorskip("torch", reason="needs spconv (the extra `bench`)")
spconv = pytest.importorskip("spconv.pytorch", reason="needs spconv (the extra `bench`)")

FORWARD, WEIGHT_GRADIENT = 1e-5, 5e-4
SHIFT = 64  # spconv knows no negative coordinates; even, so that parents stay the same
CASES = {
    "submanifold 3": ("submanifold", 3),
    "submanifold 5": ("submanifold", 5),
    "stride 2, kernel 2": ("strided", 2),
    "stride 2, kernel 3": ("strided", 3),
    "inverse, kernel 2": ("inverse", 2),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stream = spconv.ops.get_current_stream
    spconv.ops.get_current_stream = lambda: 0  # its backward asks for a CUDA stream
    yield
    spconv.ops.get_current_stream = stream
    torch.set_num_threads(threads)


def _peer(kind, kernel_size, coords_in, coords_out, features, weights, cotangent):
    """spconv's output, input gradient and weight gradient in our order of rows."""
    channels = weights.shape[1:]
    options = {"bias": False, "algo": spconv.ConvAlgo.Native, "indice_key": "map"}
    padding = kernel_size // 2 if kernel_size % 2 else 0
    down = {"kernel_size": kernel_size, "stride": 2, "padding": padding}
    if kind == "submanifold":
        conv = spconv.SubMConv3d(*channels, kernel_size, **options)
    elif kind == "strided":
        conv = spconv.SparseConv3d(*channels, **down, **options)
    else:
        conv = spconv.SparseInverseConv3d(*channels, kernel_size, **options)
    krsc = weights.reshape(*[kernel_size] * 3, *channels).transpose(4, 0, 1, 2, 3)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(np.ascontiguousarray(krsc)))

    leaf = torch.from_numpy(features).requires_grad_()
    scene_shape, num_scenes = [2 * SHIFT] * 3, 2
    if kind == "inverse":
        # Build spconv's stride-2 map from the fine voxels, then enter at the coarse end.
        ones = torch.ones((len(coords_out), 1))
        fine = spconv.SparseConvTensor(ones, _indices(coords_out, 1), scene_shape, num_scenes)
        coarse = spconv.SparseConv3d(1, 1, **down, **options)(fine)
        to_peer = _order(_indices(coords_in, 2), coarse.indices)
        inputs = coarse.replace_feature(leaf[to_peer])
    else:
        inputs = spconv.SparseConvTensor(leaf, _indices(coords_in, 1), scene_shape, num_scenes)
    outputs = conv(inputs)
    stride = 2 if kind == "strided" else 1
    ours = _order(outputs.indices, _indices(coords_out, stride))
    result = outputs.features[ours]  # spconv also keeps rows beyond ours at an odd kernel
    result.backward(torch.from_numpy(cotangent))
    weight_gradient = conv.weight.grad.numpy().transpose(1, 2, 3, 4, 0).reshape(weights.shape)
    return result.detach().numpy(), leaf.grad.numpy(), weight_gradient


def _indices(coords, stride):
    shifted = np.array(coords, np.int32)
    shifted[:, 1:] = (shifted[:, 1:] + SHIFT) // stride
    return torch.from_numpy(shifted)


def _order(rows, wanted):
    """Where each of the wanted indices lies among the rows."""
    place = {tuple(row): i for i, row in enumerate(rows.tolist())}
    return torch.tensor([place[tuple(row)] for row in wanted.tolist()])


@pytest.mark.parametrize("implementation", common.IMPLEMENTATIONS)
@pytest.mark.parametrize("case", CASES)
def test_spconv_agrees(case, implementation):
    kind, kernel_size = CASES[case]
    cells = wall_cells(np.random.default_rng(0), size=40, scenes=2).astype(np.int32)
    grid, _ = common.grid_from_coords(cells, capacity=len(cells), implementation=implementation)
    coarse = oracle.downsample(common.as_oracle(grid), capacity=len(cells))
    capacity = int(coarse.mask.sum())
    out_grid = grid
    if kind != "submanifold":
        out_grid = common.downsample(grid, capacity=capacity, implementation=implementation)
    kmap = common.kernel_map(grid, out_grid, kernel_size=kernel_size, implementation=implementation)
    coords_in, coords_out = np.asarray(grid.coords), np.asarray(out_grid.coords)
    if kind == "inverse":
        kmap, coords_in, coords_out = kmap.T, coords_out, coords_in

    rng = np.random.default_rng(1)
    features = rng.normal(size=(len(coords_in), 32)).astype(np.float32)
    weights = rng.normal(size=(kernel_size**3, 32, 48)).astype(np.float32)
    cotangent = rng.normal(size=(len(coords_out), 48)).astype(np.float32)
    peers = _peer(kind, kernel_size, coords_in, coords_out, features, weights, cotangent)
    results = common.conv_and_gradients(
        jnp.asarray(features), weights, kmap, cotangent, implementation=implementation
    )
    for result, peer, tolerance in zip(
        results, peers, (FORWARD, FORWARD, WEIGHT_GRADIENT), strict=True
    ):
        assert common.max_relative_error(result, peer.astype(np.float64)) <= tolerance
