"""The voxel graph and exact nearest neighbours against the oracle."""

import jax
import jraph
import numpy as np
import pytest

from haskd_jax import sparse

from . import common, oracle
from .clouds import CAPACITY, small_clouds

CLOUDS = small_clouds()


def _grid(name):
    cloud = CLOUDS[name]
    return common.voxelize(cloud.points, cloud.batch, cloud.mask, implementation="xla")[0]


@pytest.mark.parametrize("name", CLOUDS)
def test_voxel_graph(name):
    grid = _grid(name)
    kmap = common.kernel_map(grid, kernel_size=3, implementation="xla")
    features = common.with_garbage(np.ones((CAPACITY, 4), np.float32), grid.mask)
    graph = jax.jit(sparse.voxel_graph)(kmap, features)
    reference = common.as_oracle(grid)
    expected = oracle.voxel_edges(oracle.neighbours(reference, reference, kernel_size=3))

    assert isinstance(graph, jraph.GraphsTuple)
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    assert senders.dtype == receivers.dtype == np.int32
    assert graph.n_node.tolist() == [CAPACITY, 1]
    assert graph.n_edge.tolist() == [len(expected), len(senders) - len(expected)]
    real = list(zip(senders.tolist(), receivers.tolist(), strict=True))[: len(expected)]
    assert len(set(real)) == len(real) and set(real) == expected
    assert (senders[len(expected) :] == CAPACITY).all()
    assert (receivers[len(expected) :] == CAPACITY).all()
    assert graph.nodes.shape == (CAPACITY + 1, 4)
    assert not np.asarray(graph.nodes)[CAPACITY].any()
    np.testing.assert_array_equal(graph.nodes[:CAPACITY][grid.mask], features[grid.mask])


def test_voxel_graph_without_features():
    kmap = common.kernel_map(_grid("walls"), kernel_size=3, implementation="xla")
    assert sparse.voxel_graph(kmap).nodes is None


def test_voxel_graph_needs_features_of_its_voxels():
    kmap = common.kernel_map(_grid("walls"), kernel_size=3, implementation="xla")
    with pytest.raises(ValueError, match=r"features has shape \[7, 2\]"):
        sparse.voxel_graph(kmap, np.ones((7, 2), np.float32))


def test_voxel_graph_needs_a_map_within_one_grid():
    grid = _grid("walls")
    coarse = common.downsample(grid, implementation="xla")
    kmap = common.kernel_map(grid, coarse, kernel_size=2, implementation="xla")
    with pytest.raises(ValueError, match="kmap"):
        sparse.voxel_graph(kmap)


BACKENDS = [
    None,
    "tree",
    pytest.param("keops", marks=pytest.mark.slow),  # compiles its formula first
]


@pytest.mark.parametrize("backend", BACKENDS)
class TestKnn:
    def test_random_points(self, backend):
        rng = np.random.default_rng(0)
        points = rng.normal(size=(500, 3)).astype(np.float32)
        queries = rng.normal(size=(70, 3)).astype(np.float32)
        indices, distances = sparse.knn(queries, points, 9, backend=backend)
        assert (indices.dtype, distances.dtype) == (np.int32, np.float32)
        expected, expected_distances = oracle.knn(queries, points, 9)
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_allclose(distances, expected_distances, rtol=1e-5)

    def test_ties_go_to_the_lowest_index(self, backend):
        """On a lattice nearly every distance ties, and every squared distance is exact."""
        rng = np.random.default_rng(1)
        lattice = np.concatenate([oracle.kernel_offsets(5)] * 4)
        points = rng.permutation(lattice).astype(np.float32)
        for k in (1, 7, len(points)):
            indices, distances = sparse.knn(points[:30], points, k, backend=backend)
            expected, expected_distances = oracle.knn(points[:30], points, k)
            np.testing.assert_array_equal(indices, expected)
            np.testing.assert_allclose(distances, expected_distances, rtol=1e-6, atol=1e-6)

    def test_far_from_the_origin(self, backend):
        """Expanding |q - p|^2 would lose the differences that f32 holds."""
        rng = np.random.default_rng(2)
        points = (rng.uniform(size=(200, 3)) + 3000).astype(np.float32)
        indices, distances = sparse.knn(points, points, 3, backend=backend)
        expected, expected_distances = oracle.knn(points, points, 3)
        np.testing.assert_allclose(distances, expected_distances, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(indices[:, 0], expected[:, 0])

    def test_no_queries(self, backend):
        points = np.zeros((4, 3), np.float32)
        indices, distances = sparse.knn(np.zeros((0, 3), np.float32), points, 2, backend=backend)
        assert indices.shape == distances.shape == (0, 2)


def test_duplicates_are_settled_a_few_queries_at_a_time(monkeypatch):
    """Among many equals the lowest rows win, however few candidates fit into memory."""
    points = np.repeat(np.random.default_rng(0).normal(size=(3, 3)), 40, axis=0)
    points = np.random.default_rng(1).permutation(points)
    monkeypatch.setattr("haskd_jax.sparse.neighbours._MAX_CANDIDATES", 50)
    indices, distances = sparse.knn(points, points, 5, backend="tree")
    expected, expected_distances = oracle.knn(points, points, 5)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, expected_distances, atol=1e-6)
