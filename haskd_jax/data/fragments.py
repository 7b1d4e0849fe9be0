"""From a scene to the batches that cover it in evaluation, and the way back to its points.

Training may drop points; here every original point gets a prediction. Nothing is drawn at random:
the same scene gives the same fragments. See docs/evaluation.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Int64

from haskd_jax.data.loader_batch import Batch, collate
from haskd_jax.data.scene import Array, Scene
from haskd_jax.data.transforms_crop import count_levels, voxel_keys, voxels_of
from haskd_jax.data.transforms_geometry import centre_shift, move, rotation
from haskd_jax.data.transforms_sample import Sample, bounds, sample_of, take

# Of capacities: each rung is about _RATIO times the one below. An eighth of the rows is padding on
# average, and there are some ten shapes between the smallest room of a dataset and the largest.
# Grids below _SMALL double: there a compilation costs more than all the padding of a dataset.
_MULTIPLE, _RATIO, _SMALL = 256, 1.32, 16384
# Voxels of a grid per voxel of the next finer one, at most: surfaces have 0.25 to 0.3, sparse
# points more. All coarser capacities come from the finest one's by one of these: few shapes.
_COARSER = (0.33, 0.5, 1.0)
# Of a crop's voxels, those it is made for; the others around them give context.
_CORE = 0.5


@dataclass(frozen=True)
class Fragment:
    """One batch that covers some or all points of a scene.

    Attributes:
        batch: Of one sample.
        capacity: Rows of every grid, finest first; `batch` has the first number.
        row: [N] int32, for every original point the row whose prediction it takes, -1 for none.
    """

    batch: Batch
    capacity: tuple[int, ...]
    row: Int32[Array, " N"]


def fragments(
    scene: Scene,
    *,
    voxel_size: float,
    levels: int,
    most: int | None = None,
    tta: int = 1,
    views: int = 0,
    chosen_frames: Sequence[int] = (),
    image_size: tuple[int, int] = (0, 0),
) -> Iterator[Fragment]:
    """Covers a scene: sum the probabilities that a point gets from all fragments it is in.

    The points are centred as in training; of every voxel the point nearest to its centre speaks for
    all. So the order of the points does not matter.

    Args:
        scene: The scene.
        voxel_size: Edge of a voxel, metres.
        levels: The network's downsamplings.
        most: Voxels of a fragment; a scene with more is cut into overlapping crops of so many,
            each around a box of half as many. None: never cut.
        tta: How many times the whole scene is covered, moved otherwise each time; see `motions`.
        views: Frames K of the batches.
        chosen_frames: Frames of the scene, of which the first K are taken.
        image_size: Height and width of the frames.

    Yields:
        The fragments; together they hold every point `tta` times or more.

    Raises:
        ValueError: Names the argument, or the scene that has no such frame.

    Example:
        >>> points = np.array([[0, 0, 0], [0.01, 0, 0], [0.5, 0, 0]], np.float32)
        >>> scene = Scene("room", points, np.zeros((3, 3), np.uint8), np.eye(3, dtype=np.float32))
        >>> [fragment] = fragments(scene, voxel_size=0.1, levels=1)
        >>> fragment.row.tolist(), fragment.capacity
        ([0, 0, 1], (256, 256))
    """
    if most is not None and most < 2:
        raise ValueError(f"most: {most}, expected 2 voxels or more")
    frames = list(chosen_frames)[:views]
    for linear in motions(tta):
        sample = centre_shift(sample_of(scene, frames=frames))
        sample, row = _voxelised(move(sample, linear, np.zeros(3)), voxel_size)
        voxels, count = sample.voxels, len(sample.points)
        assert voxels is not None  # _voxelised saw to it
        pieces = list([np.arange(count)] if most is None or count <= most else crops(voxels, most))
        # One capacity for all crops of a scene.
        counts = [count_levels(voxels[members], levels) for members in pieces]
        capacity = padded(np.max(counts, axis=0))
        for members in pieces:
            piece = sample if len(members) == count else take(sample, members)
            batch = collate([piece], capacity[0], scene=[0], views=views, image_size=image_size)
            number = np.full(count, -1, np.int32)
            number[members] = np.arange(len(members), dtype=np.int32)
            yield Fragment(batch, capacity, number[row])


def motions(tta: int) -> list[Float64[Array, "3 3"]]:
    """How the scene is moved for test-time augmentation.

    4 is the four quarter turns about z. 13 is what is usual on ScanNet: those at each of the
    scales 1, 0.95 and 1.05, and a mirror image; 10 what is usual on S3DIS: the scales 0.9,
    0.95, 1, 1.05 and 1.1, each as it is and mirrored (Pointcept: configs/scannet and
    configs/s3dis, `aug_transform`). There, mirroring turns over x and y at once, which is a
    half turn; here it turns over x.

    Args:
        tta: 1 (as it is), 4, 10 or 13.

    Returns:
        So many matrices [3, 3].

    Raises:
        ValueError: Another number.

    Example:
        >>> len(motions(13)), motions(1)[0].tolist()
        (13, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """
    mirror = np.diag([-1.0, 1.0, 1.0])
    if tta == 1:
        return [np.eye(3)]
    if tta == 10:
        scales = (0.9, 0.95, 1.0, 1.05, 1.1)
        return [size * side for side in (np.eye(3), mirror) for size in scales]
    turns = [np.rint(rotation("z", quarter * np.pi / 2)) for quarter in range(4)]
    if tta == 4:
        return turns
    if tta == 13:
        return [size * turn for size in (1.0, 0.95, 1.05) for turn in turns] + [mirror]
    raise ValueError(
        f"tta: {tta}, expected 1 (none), 4 (quarter turns), 10 (as on S3DIS) or 13 (as on ScanNet)"
    )


def _voxelised(sample: Sample, voxel_size: float) -> tuple[Sample, Int32[Array, " N"]]:
    """One point a voxel, in the voxels' order, and the voxel of every point."""
    voxels = voxels_of(sample.points, voxel_size)
    middle = (voxels.astype(np.float32) + np.float32(0.5)) * np.float32(voxel_size)
    offset = sample.points - middle
    distance = np.einsum("ni,ni->n", offset, offset)
    keys = voxel_keys(voxels)
    order = np.lexsort((distance, keys))
    key = keys[order]
    first = np.ones(len(key), bool)
    np.not_equal(key[1:], key[:-1], out=first[1:])
    row = np.empty(len(key), np.int32)
    row[order] = np.cumsum(first, dtype=np.int32) - 1
    kept = order[first]
    sample = replace(take(sample, kept), voxels=voxels[kept], voxel_size=float(voxel_size))
    return sample, row


def crops(voxels: Int[Array, "V 3"], most: int) -> Iterator[Int64[Array, " M"]]:
    """Overlapping crops of a scene that together hold every voxel.

    Boxes of equal counts are cut across their longest side; each takes along the voxels nearest to
    it. A half's nearest lie among those of the whole, so that this costs V log V.

    Args:
        voxels: [V, 3], no two alike.
        most: Voxels of each crop, where there are so many.

    Yields:
        [M] ascending indices of voxels.

    Example:
        >>> line = np.stack([np.arange(8), np.zeros(8, int), np.zeros(8, int)], axis=1)
        >>> [crop.tolist() for crop in crops(line, 4)]
        [[0, 1, 2, 3], [1, 2, 3, 4], [3, 4, 5, 6], [4, 5, 6, 7]]
    """
    count = len(voxels)
    parts = -(-count // max(1, int(_CORE * most)))
    yield from _divide(voxels, np.arange(count), np.ones(count, bool), parts, most)


def _divide(
    voxels: Array, members: Int64[Array, " M"], core: Bool[Array, " M"], parts: int, most: int
) -> Iterator[Int64[Array, " M"]]:
    if parts == 1:
        yield members
        return
    where = voxels[members]
    inside = np.flatnonzero(core)
    low, high = bounds(where[inside])
    along = where[inside, np.argmax(high - low)]
    inside = inside[np.argsort(along, kind="stable")]
    left = parts // 2
    cut = len(inside) * left // parts
    for half, share in ((inside[:cut], left), (inside[cut:], parts - left)):
        own = np.zeros(len(members), bool)
        own[half] = True
        kept = _nearest(where, own, share * most)
        yield from _divide(voxels, members[kept], own[kept], share, most)


def _nearest(where: Array, own: Bool[Array, " M"], count: int) -> Int64[Array, " K"]:
    """The `count` rows nearest to the box around `own`, these first of all; ties by their order."""
    if count >= len(where):
        return np.arange(len(where))
    low, high = bounds(where[own])
    beyond = np.maximum(np.maximum(low - where, where - high), 0).astype(np.float64)
    distance = np.einsum("ni,ni->n", beyond, beyond)
    distance[own] = -1
    limit = np.partition(distance, count - 1)[count - 1]
    kept = distance < limit
    at_limit = np.flatnonzero(distance == limit)
    kept[at_limit[: count - int(kept.sum())]] = True
    return np.flatnonzero(kept)


def padded(rows: Int[Array, " L"]) -> tuple[int, ...]:
    """The capacity for voxels counted on every grid: one of few, so that few shapes are compiled.

    Args:
        rows: [levels + 1], finest first.

    Returns:
        So many numbers, multiples of 256, the first of them on a geometric ladder.

    Example:
        >>> padded(np.array([100_000, 27_000, 7_000]))
        (116992, 38656, 12800)
    """
    finest = rung(int(rows[0]))
    for share in _COARSER:  # the last one holds any grid
        capacity = [_rounded_up(finest * share**level) for level in range(len(rows))]
        if (np.asarray(rows) <= capacity).all():
            break
    return tuple(capacity)


def rung(count: int) -> int:
    """The smallest number on the ladder that is not below `count`.

    Example:
        >>> rung(1), rung(257), rung(100_000)
        (256, 512, 116992)
    """
    size = _MULTIPLE
    while size < count:
        size = _rounded_up(size * (2.0 if size < _SMALL else _RATIO))
    return size


def _rounded_up(size: float) -> int:
    return -(-int(size) // _MULTIPLE) * _MULTIPLE
