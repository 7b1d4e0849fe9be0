"""vmap, shard_map, export: the engine composes with what JAX does to functions."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from haskd_jax import sparse

from . import common, small_net
from .clouds import CAPACITY, VOXEL_SIZE

TOLERANCE = 1e-5
CLOUDS = small_net.two_clouds()
WEIGHTS = small_net.weights()

every_implementation = pytest.mark.parametrize("implementation", common.IMPLEMENTATIONS)


def _one_by_one(implementation):
    """((loss, grids and maps), gradients) of each cloud on its own."""
    step = small_net.loss_and_gradients(implementation)
    return [step(WEIGHTS, *(part[i] for part in CLOUDS)) for i in range(2)]


def _assert_close(tree, reference):
    assert jax.tree.structure(tree) == jax.tree.structure(reference)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(reference), strict=True):
        assert common.max_relative_error(a, np.asarray(b, np.float64)) <= TOLERANCE


@pytest.mark.parametrize(
    "implementation",
    [
        pytest.param("xla", marks=pytest.mark.slow),  # compiles for 20 s
        pytest.param("native", marks=common.needs_native),
    ],
)
def test_vmap_over_clouds(implementation):
    """The same grids and maps to the bit, the same loss and gradients."""
    step = small_net.loss_and_gradients(implementation)
    stacked = jax.jit(jax.vmap(step, in_axes=(None, 0, 0, 0, 0)))(WEIGHTS, *CLOUDS)
    for i, ((alone, built), gradients) in enumerate(_one_by_one(implementation)):
        (value, built_here), gradients_here = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        common.assert_same_bits(built_here, built)
        _assert_close((value, gradients_here), (alone, gradients))


@every_implementation
def test_vmap_over_weights_alone(implementation):
    """Experts that share one cloud: only the weights carry the mapped axis."""
    points, batch, mask, features = (part[0] for part in CLOUDS)
    grid, row = common.voxelize(points, batch, mask, implementation=implementation)
    kmap = common.kernel_map(grid, kernel_size=3, implementation=implementation)
    x = sparse.voxel_mean(features, row, CAPACITY)
    experts = jnp.stack([WEIGHTS["stem"], 2 * WEIGHTS["stem"], -WEIGHTS["stem"]])

    def gradient(weights):
        return jax.grad(
            lambda w: (sparse.conv(x, w, kmap, implementation=implementation) ** 2).sum()
        )(weights)

    stacked = jax.jit(jax.vmap(gradient))(experts)
    alone = jax.jit(gradient)(experts[0])
    _assert_close(stacked, jnp.stack([alone, 2 * alone, -alone]))


@every_implementation
def test_unplaceable_points_are_counted_under_vmap(implementation):
    points = CLOUDS[0][:, :9].at[1, 3].set(jnp.nan)
    grid, row = jax.vmap(
        lambda points: sparse.voxelize(
            points, voxel_size=VOXEL_SIZE, capacity=16, implementation=implementation
        )
    )(points)
    assert grid.invalid.tolist() == [0, 1]
    assert (np.asarray(row) < 0).sum() == 1


@every_implementation
@pytest.mark.parametrize("gradient", ["outside", "inside"])
def test_shard_map_gathers_no_features(implementation, gradient):
    """Every device takes a cloud; all that they exchange is the sum of loss and gradient."""
    assert len(jax.devices()) >= 2
    mesh = Mesh(np.array(jax.devices()[:2]), ("clouds",))
    here, everywhere = PartitionSpec("clouds"), PartitionSpec()

    def loss(weights, *cloud):
        return small_net.loss(weights, *cloud, implementation=implementation)[0]

    def sharded(function):
        """`function` of the weights and one cloud, summed over the clouds."""

        @functools.partial(
            jax.shard_map, mesh=mesh, in_specs=(everywhere, *[here] * 4), out_specs=everywhere
        )
        def summed(weights, *clouds):
            return function(weights, *(part[0] for part in clouds))

        return summed

    if gradient == "outside":
        step = jax.value_and_grad(
            sharded(lambda weights, *cloud: jax.lax.psum(loss(weights, *cloud), "clouds"))
        )
    else:  # the gradient of weights that all devices share is summed over them by shard_map
        step = sharded(
            lambda weights, *cloud: jax.value_and_grad(
                lambda weights: jax.lax.psum(loss(weights, *cloud), "clouds")
            )(weights)
        )
    compiled = jax.jit(step).lower(WEIGHTS, *CLOUDS).compile()
    text = compiled.as_text()
    assert "all-reduce" in text and "all-gather" not in text
    expected = jax.tree.map(
        jnp.add,
        *[(value, weights) for (value, _), (weights, _) in _one_by_one(implementation)],
    )
    _assert_close(compiled(WEIGHTS, *CLOUDS), expected)


def _grid_and_map(implementation, points, batch, mask):
    grid, row = common.voxelize(points, batch, mask, implementation=implementation)
    kmap = common.kernel_map(grid, kernel_size=3, implementation=implementation)
    return jax.tree.leaves((grid, row, kmap))


@pytest.mark.parametrize("implementation", ["xla", None])
@pytest.mark.parametrize("what", ["grid and map", "forward", "gradient"])
def test_export_to_machines_that_are_not_here(what, implementation):
    """The portable implementation lowers anywhere; None chooses it when it lowers."""
    cloud = [part[0] for part in CLOUDS]
    name = {"implementation": implementation}
    function, args = {
        "grid and map": (functools.partial(_grid_and_map, implementation), cloud[:3]),
        "forward": (lambda *args: small_net.forward(*args, **name)[1:], [WEIGHTS, *cloud]),
        "gradient": (small_net.loss_and_gradients(implementation), [WEIGHTS, *cloud]),
    }[what]
    for platform in ("cuda", "tpu"):
        exported = jax.export.export(jax.jit(function), platforms=[platform])(*args)
        assert exported.platforms == (platform,)
        text = exported.mlir_module()
        assert "@haskd_" not in text
        # Left to themselves GPUs and TPUs multiply float32 with fewer digits.
        products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        assert bool(products) == (what != "grid and map")
        assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_an_exported_program_means_the_same_where_it_can_run():
    points, batch, mask, features = (part[0] for part in CLOUDS)

    @jax.jit
    def function(weights, points, batch, mask, features):
        grid, row = common.voxelize(points, batch, mask, implementation="xla")
        kmap = common.kernel_map(grid, kernel_size=3, implementation="xla")
        x = sparse.voxel_mean(features, row, CAPACITY, implementation="xla")
        return sparse.conv(x, weights, kmap, implementation="xla")

    args = (WEIGHTS["stem"], points, batch, mask, features)
    exported = jax.export.export(function, platforms=["cpu", "cuda", "tpu"])(*args)
    _assert_close(exported.call(*args), function(*args))
