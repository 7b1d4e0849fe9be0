"""A made-up furnished room: geometry to try and time the sparse engine on, without any file."""

import numpy as np

# Boxes in metres: minimum corner and size. A 3.4 m x 2.8 m room with what stands in a living room.
_FURNITURE = (
    ((0.3, 0.1, 0.0), (1.7, 0.8, 0.42)),  # sofa seat
    ((0.3, 0.1, 0.42), (1.7, 0.2, 0.4)),  # sofa back
    ((0.6, 1.3, 0.38), (0.9, 0.5, 0.04)),  # coffee table
    ((2.1, 1.5, 0.72), (1.1, 0.7, 0.04)),  # dining table
    ((2.2, 1.0, 0.44), (0.4, 0.4, 0.06)),  # chair
    ((2.2, 1.0, 0.5), (0.4, 0.06, 0.44)),  # its back
    ((0.0, 1.9, 0.0), (0.3, 0.8, 1.5)),  # shelf
    ((2.9, 0.1, 0.0), (0.4, 0.8, 0.8)),  # cabinet
)
_TABLE_LEGS = tuple(((x, y, 0.0), (0.06, 0.06, 0.72)) for x in (2.12, 3.1) for y in (1.54, 2.1))
_ROOM = (3.4, 2.8, 2.0)


def toy_room(
    rng: np.random.Generator, *, spacing: float = 0.02, points_per_cell: float = 2.0
) -> np.ndarray:
    """Samples the surfaces of a made-up furnished room, in random order, as a scanner would.

    Args:
      rng: where the samples and their noise come from.
      spacing: cell size in metres that the density is stated in.
      points_per_cell: samples for every `spacing` x `spacing` of surface.

    Returns:
      Points `[N, 3]`, float32, metres, z up, with 2 mm of noise, shuffled.

    Example:
      >>> toy_room(np.random.default_rng(0), spacing=0.1).shape[1]
      3
    """
    density = points_per_cell / spacing**2
    walls = _box_faces((0.0, 0.0, 0.0), _ROOM, skip_top=True)
    boxes = [face for box in _FURNITURE + _TABLE_LEGS for face in _box_faces(*box)]
    points = np.concatenate([_sample(rng, face, density) for face in [*walls, *boxes]])
    # Half a cell off the origin: walls stand inside voxels, not on the border between two.
    points += spacing / 2 + rng.normal(scale=0.002, size=points.shape)
    return rng.permutation(points).astype(np.float32)


def _box_faces(corner, size, *, skip_top=False):
    """The six faces (five without the top) of a box as (origin, edge, edge)."""
    corner, edges = np.asarray(corner), np.diag(size)
    faces = []
    for axis in range(3):
        u, v = edges[(axis + 1) % 3], edges[(axis + 2) % 3]
        faces.append((corner, u, v))
        if not (skip_top and axis == 2):
            faces.append((corner + edges[axis], u, v))
    return faces


def _sample(rng, face, density):
    origin, u, v = face
    count = max(1, round(density * np.linalg.norm(u) * np.linalg.norm(v)))
    weights = rng.random((count, 2))
    return origin + weights[:, :1] * u + weights[:, 1:] * v
