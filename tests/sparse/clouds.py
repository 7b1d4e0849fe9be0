"""Point clouds that the tests share: few static shapes, so that everything compiles once."""

from dataclasses import dataclass

import numpy as np

POINTS = 384
CAPACITY = 256
VOXEL_SIZE = 0.05


@dataclass(frozen=True)
class Cloud:
    """N points of several scenes; rows with mask=False are padding and hold garbage."""

    points: np.ndarray  # [N, 3] f32, metres
    batch: np.ndarray  # [N] i32
    mask: np.ndarray  # [N] bool


def cloud_of_cells(cells, *, rng, num_points, voxel_size=VOXEL_SIZE):
    """Points anywhere inside the given (batch, x, y, z) cells; the rest is garbage padding."""
    cells = np.asarray(cells, np.int64).reshape(-1, 4)
    inside = cells[:, 1:] + rng.uniform(0.02, 0.98, (len(cells), 3))
    points = np.full((num_points, 3), np.nan, np.float32)
    points[: len(cells)] = inside * voxel_size
    points[len(cells) + 1 :: 3] = np.float32(3e38)
    batch = np.full(num_points, -(2**31), np.int32)
    batch[: len(cells)] = cells[:, 0]
    return Cloud(points, batch, np.arange(num_points) < len(cells))


def wall_cells(rng, *, size, scenes=1):
    """Distinct cells of rooms: floor, two walls and a slanted panel around the origin."""
    across, up = (axis.ravel() for axis in np.meshgrid(np.arange(size), np.arange(size // 2)))
    rooms = []
    for scene in range(scenes):
        floor = np.stack([across, 2 * up, 0 * up], 1)
        wall_x = np.stack([across, 0 * up, up], 1)
        wall_y = np.stack([0 * up, across, up], 1)
        panel = np.stack([across, (across + up) // 2, up], 1)
        room = np.concatenate([floor, floor + np.array([0, 1, 0]), wall_x, wall_y, panel])
        room = room[rng.uniform(size=len(room)) < 0.95] - size // 2 + scene
        rooms.append(np.insert(room, 0, scene, axis=1))
    return np.unique(np.concatenate(rooms), axis=0)


def block_cells(count, *, side, scene=0):
    """`count` cells of a solid block around the origin, in raster order."""
    cell = np.arange(count)
    xyz = np.stack([cell // side**2, cell // side % side, cell % side], 1) - side // 2
    return np.insert(xyz, 0, scene, axis=1)


def small_clouds():
    """The edge cases, all with POINTS points for a grid of CAPACITY voxels."""
    rng = np.random.default_rng(0)

    def cloud(cells, repeats=0):
        cells = np.concatenate([cells, rng.choice(cells, repeats)]) if repeats else cells
        return cloud_of_cells(rng.permutation(cells), rng=rng, num_points=POINTS)

    walls = wall_cells(rng, size=8, scenes=3)
    spread = np.stack([rng.integers(0, 4, 200), *rng.integers(-9, 9, (3, 200))], 1)
    return {
        "walls": cloud(rng.choice(walls, 220, replace=False), repeats=120),
        "spread": cloud(spread, repeats=50),
        "one voxel": cloud(np.array([[2, -3, 0, -1]]), repeats=99),
        "no voxel": cloud(np.empty((0, 4), np.int64)),
        "full": cloud(block_cells(CAPACITY, side=7), repeats=POINTS - CAPACITY),
        "overflow": cloud(block_cells(CAPACITY + 90, side=8, scene=1), repeats=20),
    }
