"""Properties of grids and maps over drawn clouds: few shapes, so that nothing recompiles."""

import functools
import types

import hypothesis
import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import strategies as st

from . import common, oracle
from .clouds import VOXEL_SIZE

NUM = 48  # points
ROOMY, TIGHT = 64, 12  # capacities: none overflows, and most overflow

settings = hypothesis.settings(max_examples=60, deadline=None)


@st.composite
def clouds(draw):
    """Coordinates that collide, touch, lie far apart or at the limits, in up to three scenes."""
    near = st.integers(-3, 3)
    limit = oracle.LIMIT
    far = st.sampled_from([-limit, -limit + 1, limit - 1, limit, -(2**20), 2**20 + 1])
    reach = draw(st.sampled_from([near, st.one_of(near, far), st.integers(-limit, limit)]))
    cells = draw(npst.arrays(np.int32, (NUM, 3), elements=reach))
    batch = draw(npst.arrays(np.int32, (NUM, 1), elements=st.integers(0, 2)))
    mask = draw(npst.arrays(np.bool_, NUM, elements=st.booleans()))
    return np.concatenate([batch, cells], axis=1), mask


@pytest.fixture(params=common.IMPLEMENTATIONS)
def engine(request):
    """The engine with the implementation filled in."""
    ops = ("voxelize", "grid_from_coords", "lookup", "downsample", "kernel_map")
    return types.SimpleNamespace(
        **{op: functools.partial(getattr(common, op), implementation=request.param) for op in ops}
    )


# The fixture holds no state, so drawing again and again from one of it is sound.
reuse = hypothesis.settings(
    settings, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("capacity", [ROOMY, TIGHT])
@reuse
@hypothesis.given(cloud=clouds())
def test_grids_and_maps_are_the_oracles(engine, cloud, capacity):
    coords, mask = cloud
    grid, row = engine.grid_from_coords(coords, mask, capacity=capacity)
    expected, expected_row = oracle.grid_from_coords(coords, mask=mask, capacity=capacity)
    common.assert_is_grid(grid, expected)
    np.testing.assert_array_equal(row, expected_row)
    np.testing.assert_array_equal(engine.lookup(grid, coords), oracle.lookup(expected, coords))

    coarse = engine.downsample(grid, capacity=TIGHT)
    expected_coarse = oracle.downsample(expected, capacity=TIGHT)
    common.assert_is_grid(coarse, expected_coarse)
    for out, reference, kernel_size in [(None, expected, 3), (coarse, expected_coarse, 2)]:
        nbr = oracle.neighbours(expected, reference, kernel_size=kernel_size)
        kmap = engine.kernel_map(grid, out, kernel_size=kernel_size)
        np.testing.assert_array_equal(kmap.neighbours, nbr)
        np.testing.assert_array_equal(kmap.T.neighbours, oracle.turned(nbr, capacity))


@reuse
@hypothesis.given(cloud=clouds(), data=st.data())
def test_the_order_of_points_changes_no_bit_of_the_grid(engine, cloud, data):
    """As long as nothing overflows: the table too is a function of the set of voxels."""
    coords, mask = cloud
    order = np.array(data.draw(st.permutations(range(NUM))))
    grid, row = engine.grid_from_coords(coords, mask, capacity=ROOMY)
    shuffled, shuffled_row = engine.grid_from_coords(coords[order], mask[order], capacity=ROOMY)
    common.assert_same_bits(grid, shuffled)
    np.testing.assert_array_equal(np.asarray(row)[order], shuffled_row)


@reuse
@hypothesis.given(cloud=clouds(), garbage=npst.arrays(np.int32, (NUM, 4)))
def test_masked_rows_change_no_bit(engine, cloud, garbage):
    coords, mask = cloud
    dirty = np.where(mask[:, None], coords, garbage)
    for capacity in (ROOMY, TIGHT):
        common.assert_same_bits(
            engine.grid_from_coords(coords, mask, capacity=capacity),
            engine.grid_from_coords(dirty, mask, capacity=capacity),
        )


@st.composite
def point_arrays(draw, subnormal):
    """Near the origin, on voxel borders, anywhere at all, not a number."""
    border = st.integers(-30, 30).map(lambda i: float(np.float32(i) * np.float32(VOXEL_SIZE)))
    anything = st.floats(width=32, allow_subnormal=subnormal)
    near = st.floats(-0.25, 0.25, width=32, allow_subnormal=subnormal)
    return draw(npst.arrays(np.float32, (NUM, 3), elements=st.one_of(near, border, anything)))


BATCH = np.arange(NUM, dtype=np.int32) % 2


# Subnormal numbers count as zero or not, as the processor is set.
@reuse
@hypothesis.given(
    points=point_arrays(subnormal=False),
    mask=npst.arrays(np.bool_, NUM, elements=st.booleans()),
)
def test_voxelize_of_any_floats(engine, points, mask):
    grid, row = engine.voxelize(points, BATCH, mask, capacity=ROOMY)
    expected, expected_row = oracle.voxelize(
        points, voxel_size=VOXEL_SIZE, capacity=ROOMY, batch=BATCH, mask=mask
    )
    common.assert_is_grid(grid, expected)
    np.testing.assert_array_equal(row, expected_row)


@common.needs_native
@settings
@hypothesis.given(points=point_arrays(subnormal=True))
def test_implementations_agree_on_any_floats(points):
    xla, native = (
        common.voxelize(points, BATCH, np.ones(NUM, bool), capacity=ROOMY, implementation=name)
        for name in ("xla", "native")
    )
    common.assert_same_bits(xla, native)
