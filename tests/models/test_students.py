"""What holds of every student family, and what is each family's own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from haskd_jax import losses, models, sparse

from .scenes import (
    CAPACITIES,
    NUM_CLASSES,
    SHAPE,
    accuracy,
    assert_same_bits,
    loss_and_gradients,
    scene,
    train,
)

P = PartitionSpec
FAMILIES = [models.MinkUNet, models.SPVCNN]
families = pytest.mark.parametrize("family", FAMILIES)
# The second family shares all but its point branch with the first.
families_first_quick = pytest.mark.parametrize(
    "family", [FAMILIES[0], pytest.param(FAMILIES[1], marks=pytest.mark.slow)]
)


def make(family, shape=SHAPE, **options):
    return family(shape, 3, NUM_CLASSES, rngs=nnx.Rngs(0), **options)


@functools.cache
def trained_once(family, garbage=np.nan, capacities=CAPACITIES):
    """Loss, gradients and new state of one step."""
    apply, params, state = models.functional(make(family))
    step = jax.jit(functools.partial(loss_and_gradients, apply))
    return step(params, state, scene(capacities=capacities, garbage=garbage))


@families_first_quick
def test_garbage_in_padding_changes_nothing(family):
    clean = trained_once(family, 0.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    for garbage in (np.nan, np.inf):
        assert_same_bits(trained_once(family, garbage), clean)


@families
def test_more_padding_changes_nothing(family):
    loss, gradients, state = trained_once(family, 0.0)
    more = trained_once(family, np.nan, tuple(c + 256 for c in CAPACITIES))
    assert more[0] == pytest.approx(float(loss), rel=1e-6)
    for a, b in zip(jax.tree.leaves(more[1:]), jax.tree.leaves((gradients, state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@families
def test_every_parameter_is_trained(family):
    _, gradients, _ = trained_once(family)
    dead = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
        if not np.any(leaf)
    ]
    assert dead == []


@families_first_quick
def test_overfits_one_scene(family):
    apply, params, state = train(make(family), scene(), steps=60)
    assert accuracy(apply, params, state, scene()) >= 0.98


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *((models.MinkUNet, name) for name in models.MINKUNET),
        (models.SPVCNN, "minkunet14a"),
        (models.SPVCNN, "spunet"),
    ],
)
def test_shapes_of_presets(family, name):
    coords = jax.ShapeDtypeStruct((1000, 4), jnp.int32)

    def run(coords):
        student = family(models.MINKUNET[name], 6, 20, rngs=nnx.Rngs(0))
        grid, _ = sparse.grid_from_coords(coords, capacity=900)
        maps = sparse.pyramid(grid, capacities=(500, 200, 100, 50))
        assert isinstance(student, models.FusingStudent)
        assert student.extra_features[0] == student.num_features
        extras = {
            level: jnp.ones((maps.grids[level].capacity, width), jnp.float32)
            for level, width in student.extra_features.items()
        }
        assert student.num_features == models.MINKUNET[name].channels[-1]
        return student(grid, maps, jnp.ones((900, 6)), extras)

    features, logits = jax.eval_shape(run, coords)
    assert features.shape == (900, models.MINKUNET[name].channels[-1])
    assert (logits.shape, logits.dtype) == ((900, 20), jnp.float32)


@pytest.mark.parametrize(("name", "millions"), [("minkunet34c", 37.9), ("spunet", 39.2)])
def test_published_sizes(name, millions):
    student = nnx.eval_shape(
        lambda: models.MinkUNet(models.MINKUNET[name], 6, 20, rngs=nnx.Rngs(0))
    )
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(student, nnx.Param)))
    assert round(size / 1e6, 1) == millions


@families_first_quick
def test_bfloat16(family):
    data = scene()

    def forward(dtype):
        apply, params, state = models.functional(make(family, dtype=dtype))
        call = jax.jit(functools.partial(apply, train=False))
        outputs, _ = call(params, state, data.grid, data.maps, data.features)
        return apply, params, state, outputs

    apply, params, state, (features, logits) = forward(jnp.bfloat16)
    *_, (_, wanted) = forward(jnp.float32)
    loss, gradients, new = jax.jit(functools.partial(loss_and_gradients, apply))(
        params, state, data
    )
    assert (features.dtype, logits.dtype) == (jnp.bfloat16, jnp.float32)
    floats = [leaf for leaf in jax.tree.leaves((params, gradients, new)) if leaf.ndim]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(leaf).all() for leaf in floats)
    error = np.abs(np.asarray(logits - wanted)).max() / np.abs(np.asarray(wanted)).max()
    assert 0 < error < 0.1
    assert float(loss) == pytest.approx(float(trained_once(family)[0]), rel=0.02)


@families
def test_parameters_are_plain_pytrees(family):
    module = make(family)
    apply, params, state = models.functional(module)
    assert all(type(leaf) is type(jnp.ones(1)) for leaf in jax.tree.leaves((params, state)))
    data = scene()
    outputs, new = jax.jit(functools.partial(apply, train=True))(
        params, state, data.grid, data.maps, data.features
    )
    again, same = jax.jit(functools.partial(apply, train=False))(
        params, new, data.grid, data.maps, data.features
    )
    assert_same_bits(same, new)  # inference changes no state
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert not np.array_equal(outputs[1], again[1])
    # Put back into the module, they compute the same.
    graph, _ = nnx.split(module)
    merged = nnx.merge(graph, params, new)
    merged.eval()
    direct = jax.jit(lambda *args: nnx.merge(graph, *args[:2])(*args[2:]))
    graph, params, new = nnx.split(merged, nnx.Param, ...)
    values = nnx.to_pure_dict(params), nnx.to_pure_dict(new)
    assert_same_bits(direct(*values, data.grid, data.maps, data.features), again)


@families
def test_distilled_student_costs_nothing_more(family):
    """Distillation, with features through a projector, leaves the student's graph as it was."""
    data = scene()
    student, projector = make(family), models.Linear(SHAPE.channels[-1], 4, rngs=nnx.Rngs(1))
    apply, params, state = models.functional(student)
    project, projection, _ = models.functional(projector)
    rng = np.random.default_rng(0)
    teacher = jnp.asarray(rng.normal(size=(CAPACITIES[0], NUM_CLASSES)), jnp.float32)
    hints = jnp.asarray(rng.normal(size=(CAPACITIES[0], 4)), jnp.float32)
    args = data.grid, data.maps, data.features

    def loss(trained):
        (features, logits), new = apply(trained[0], state, *args, train=True)
        valid = data.grid.mask
        hint = losses.feature_cosine(project(trained[1], {}, features, train=True)[0], hints)
        soft = losses.kl_divergence(logits, teacher, where=valid)
        return losses.masked_mean(soft + hint, where=valid), new

    gradients, distilled_state = jax.jit(jax.grad(loss, has_aux=True))((params, projection))
    distilled = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients[0])
    inference = functools.partial(apply, train=False)
    plain = jax.make_jaxpr(inference)(params, state, *args)
    assert str(jax.make_jaxpr(inference)(distilled, distilled_state, *args)) == str(plain)


@pytest.mark.slow  # as tests/train/test_distributed.py does with whole trainings
def test_two_devices_train_as_one():
    """Two scenes in one batch, and one scene on each of two devices: the same step."""
    both = scene(seeds=(0, 1), capacities=tuple(2 * c for c in CAPACITIES))
    apply, params, state = models.functional(make(models.MinkUNet))
    expected = jax.jit(functools.partial(loss_and_gradients, apply))(params, state, both)

    halves = jax.tree.map(lambda *leaves: jnp.stack(leaves), scene((0,)), scene((1,)))
    voxels = halves.grid.mask.sum(1).astype(jnp.float32)
    spread, _, _ = models.functional(make(models.MinkUNet, axis_name="data"))
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))

    def step(params, half):
        half, count = jax.tree.map(lambda leaf: leaf[0], half)
        share = count / voxels.sum()  # of the mean over all voxels

        def loss(params):
            (_, logits), new = spread(
                params, state, half.grid, half.maps, half.features, train=True
            )
            values = losses.cross_entropy(logits, half.labels, where=half.grid.mask)
            mean = losses.masked_mean(values, where=half.grid.mask)
            return jax.lax.psum(share * mean, "data"), new

        (value, new), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return value, gradients, new

    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=(P(), P(), P()))
    result = jax.jit(mapped)(params, (halves, voxels))
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_stem_of_five_reaches_further():
    """With kernel 5 a voxel hears one at distance 2 that kernel 3 does not let it hear."""
    coords = np.array([[0, 0, 0, 0], [0, 0, 0, 2], [0, 40, 40, 40]])
    grid, _ = sparse.grid_from_coords(coords, capacity=4)
    maps = sparse.pyramid(grid, capacities=(4,))
    for size, hears in ((5, True), (3, False)):
        shape = models.MinkUNetConfig((8, 8), (1, 1), stem=8, stem_kernel=size)
        unet = make(models.MinkUNet, shape).unet

        def stem(x, unet=unet):
            return unet.down(maps, x)[1][0][0]

        unet.eval()
        slope = jax.jacobian(stem)(jnp.ones((4, 3)))
        assert bool(jnp.any(slope[:, 1] != 0)) is hears


def test_spvcnn_with_true_points():
    """One point at each voxel's centre is what the default computes; elsewhere it differs."""
    data = scene()
    apply, params, state = models.functional(make(models.SPVCNN))
    forward = jax.jit(functools.partial(apply, train=True))
    args = params, state, data.grid, data.maps, data.features
    rows = jnp.where(data.grid.mask, jnp.arange(CAPACITIES[0], dtype=jnp.int32), -1)
    centres = data.grid.coords[:, 1:].astype(jnp.float32) + 0.5
    centres = jnp.where(data.grid.mask[:, None], centres, jnp.nan)
    (features, logits), _ = forward(*args)
    same, _ = forward(*args, points=centres, point_to_voxel=rows)
    np.testing.assert_allclose(same[0], features, atol=1e-4)
    np.testing.assert_allclose(same[1], logits, atol=1e-4)
    moved, _ = forward(*args, points=centres + 0.4, point_to_voxel=rows)
    assert np.abs(np.asarray(moved[1] - logits)).max() > 0.01
    with pytest.raises(ValueError, match="belong together"):
        apply(*args, train=True, points=centres)


def test_bad_input():
    data = scene()
    student = make(models.MinkUNet)
    flat = sparse.pyramid(data.grid, capacities=(128,))
    with pytest.raises(ValueError, match="maps has 2 grids, this network works on 3"):
        student(data.grid, flat, data.features)
    wide = sparse.pyramid(data.grid, capacities=(128, 64), kernel_size=5)
    with pytest.raises(ValueError, match="kernel_size 5"):
        student(data.grid, wide, data.features)
    with pytest.raises(ValueError, match="extras has level 2: levels here are 0 to 1"):
        student(data.grid, data.maps, data.features, {2: jnp.ones((64, 8))})
    with pytest.raises(ValueError, match="frozen: 'encodr' is no submodule of MinkUNet"):
        models.functional(student, frozen=("encodr",))
    for change, message in (
        ({"channels": (8, 8, 8)}, r"channels=\(8, 8, 8\)"),
        ({"blocks": (1, 1, 0, 1)}, r"blocks=\(1, 1, 0, 1\)"),
        ({"stem": 0}, "stem=0"),
        ({"stem_kernel": 4}, "stem_kernel=4"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(SHAPE, **change)
