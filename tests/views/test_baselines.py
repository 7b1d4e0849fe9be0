import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import views

from . import oracle

BASELINES = [
    views.select_coverage,
    views.select_entropy,
    views.select_random,
    views.select_stochastic_coverage,
    views.select_uniform,
]
FRAMES, VOXELS = 11, 60


def arguments(select, rng):
    """What a baseline needs beyond `select_views`."""
    own = {"key": jax.random.key(0), "entropy": rng.random(FRAMES).astype(np.float32)}
    return {name: own[name] for name in own if name in inspect.signature(select).parameters}


@pytest.mark.parametrize("select", BASELINES)
def test_takes_all_that_select_views_takes(select):
    have = inspect.signature(select).parameters
    for name, wanted in inspect.signature(views.select_views).parameters.items():
        assert (have[name].kind, have[name].default) == (wanted.kind, wanted.default)


@pytest.mark.parametrize("select", BASELINES)
def test_gains_are_those_of_probabilistic_coverage_and_padding_is_never_chosen(select):
    rng = np.random.default_rng(0)
    visible = rng.random((FRAMES, VOXELS)) < 0.3
    quality = rng.uniform(0, 1, FRAMES).astype(np.float32)
    information = rng.exponential(size=VOXELS).astype(np.float32)
    where = rng.permutation(np.arange(FRAMES) < 7)
    for num_views in (1, 4, 9):
        indices, gains = (
            np.asarray(x)
            for x in select(
                visible,
                num_views=num_views,
                quality=quality,
                information=information,
                rho=0.4,
                where=where,
                **arguments(select, rng),
            )
        )
        assert indices.dtype == np.int32 and gains.dtype == np.float32
        assert indices.shape == gains.shape == (num_views,)
        chosen = min(num_views, 7)
        assert len(set(indices[:chosen])) == chosen and where[indices[:chosen]].all()
        assert (indices[chosen:] == -1).all() and (gains[chosen:] == 0).all()
        for k in range(chosen):
            after, before = (
                oracle.phi(visible, indices[:n], quality, information, 0.4) for n in (k + 1, k)
            )
            np.testing.assert_allclose(gains[k], after - before, atol=1e-5)


@pytest.mark.parametrize("num_views", [1, 2, 3, 10])
def test_uniform_in_time(num_views):
    visible = jnp.zeros((40, 1), bool)
    for frames in (num_views, num_views + 1, 23, 40):
        where = np.random.default_rng(frames).permutation(np.arange(40) < frames)
        ends, centres = (
            views.select_uniform(visible, num_views=num_views, placement=placement, where=where)
            for placement in ("ends", "centres")
        )
        in_time = np.flatnonzero(where)
        places = np.linspace(0, frames - 1, num_views)
        np.testing.assert_array_equal(ends.indices, in_time[np.floor(places + 0.5).astype(int)])
        parts = np.linspace(0, frames, num_views + 1)
        middles = (parts[1:] + parts[:-1]) / 2
        np.testing.assert_array_equal(
            centres.indices, in_time[np.floor(middles + 1e-9).astype(int)]
        )


def test_random_draws_every_frame_and_the_same_for_the_same_key():
    visible = jnp.zeros((6, 1), bool)
    where = jnp.array([True, True, False, True, True, True])
    keys = jax.random.split(jax.random.key(1), 3000)
    draw = jax.jit(
        jax.vmap(
            lambda key: views.select_random(visible, key=key, num_views=2, where=where).indices
        )
    )
    indices = draw(keys)
    np.testing.assert_array_equal(indices, draw(keys))
    for place in range(2):
        counts = np.bincount(indices[:, place], minlength=6)
        assert counts[2] == 0
        # Each of five frames 600 times; six standard deviations.
        assert np.abs(counts[[0, 1, 3, 4, 5]] - 600).max() < 6 * np.sqrt(3000 * 0.2 * 0.8)


def test_coverage_only_takes_no_notice_of_quality_and_information():
    rng = np.random.default_rng(0)
    visible = rng.random((FRAMES, VOXELS)) < 0.3
    plain = views.select_views(visible, num_views=4, rho=1.0)
    told = views.select_coverage(
        visible,
        num_views=4,
        quality=rng.uniform(0, 1, FRAMES).astype(np.float32),
        information=rng.exponential(size=VOXELS).astype(np.float32),
    )
    np.testing.assert_array_equal(told.indices, plain.indices)
    assert np.abs(told.gains - plain.gains).max() > 0.1


def test_entropy_only_takes_the_highest_and_the_lowest_index_among_equals():
    entropy = np.array([0.3, 0.8, 0.1, 0.8, 0.9, 0.3], np.float32)
    where = np.array([True, True, True, True, False, True])
    chosen = views.select_entropy(
        jnp.zeros((6, 2), bool), entropy=entropy, num_views=6, where=where
    )
    assert chosen.indices.tolist() == [1, 3, 0, 5, 2, -1]


def test_stochastic_coverage_passes_over_what_adds_little_until_nothing_else_is_left():
    # Four places of four voxels, five frames at each, all but one of which miss a voxel: beside one
    # view of a place, at most a third of another is new.
    place = np.repeat(np.arange(4), 5)
    visible = np.zeros((20, 16), bool)
    for frame in range(20):
        visible[frame, 4 * place[frame] : 4 * place[frame] + 4] = True
        visible[frame, 4 * place[frame] + frame % 4] = frame % 5 == 0
    keys = jax.random.split(jax.random.key(0), 50)

    def draw(min_new):
        select = views.select_stochastic_coverage
        return jax.jit(
            jax.vmap(lambda key: select(visible, key=key, num_views=6, min_new=min_new).indices)
        )(keys)

    picky = np.asarray(draw(0.5))
    assert all(sorted(place[chosen[:4]]) == [0, 1, 2, 3] for chosen in picky)
    assert all(len(set(chosen)) == 6 for chosen in picky)
    assert len({tuple(chosen) for chosen in picky}) > 40
    # Where any new voxel will do, a place is viewed twice before all are viewed once.
    assert any(sorted(place[chosen[:4]]) != [0, 1, 2, 3] for chosen in np.asarray(draw(0.0)))


def test_stochastic_coverage_wants_more_than_the_share():
    visible = jnp.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], bool)
    for seed in range(8):
        chosen = views.select_stochastic_coverage(
            visible, key=jax.random.key(seed), num_views=2, min_new=0.5
        )
        # Half of 1 is new beside 0 or 2, which is not more than half; all of 2 is new beside 0.
        first, second = chosen.indices.tolist()
        assert first == 1 or second == 2 - first
