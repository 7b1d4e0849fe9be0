"""From samples to one padded batch of arrays."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int32, UInt8

from haskd_jax.data.loader_capacity import Capacities, smallest_fitting
from haskd_jax.data.scene import Array
from haskd_jax.data.transforms_crop import count_levels, sphere_crop
from haskd_jax.data.transforms_sample import Sample

PADDING = np.iinfo(np.int32).max  # coordinates of padding rows, as in sparse.VoxelGrid


class Batch(NamedTuple):
    """Some scenes in one grid, padded; a pytree of NumPy arrays.

    Row i is voxel i: valid rows come first, by (grid, x, y, z), which is the order of the grid that
    `sparse.grid_from_coords(batch.coords, capacity=len(batch.coords), mask=batch.mask)` makes.

    A frame shows only points of its own scene: whatever `views` finds visible from
    `batch.surface` counts where `batch.part == batch.frame_part[k]`.

    Attributes:
        coords: [V, 4] int32, (grid, x, y, z); the largest int32 in padding rows.
        points: [V, 3] float32 metres, the augmented position of the voxel's point.
        surface: [V, 3] float32 metres, where the frames see it; see `transforms.Sample`.
        features: [V, 6] float32, colour from -1 to 1, then the normal.
        label: [V] int32, -1 ignored, unlabelled or padding.
        soft: [V, G, C] float16, what each of the networks that teach said of each voxel's point,
            see `Loader.soft`; G and C are 0 where none did.
        part: [V] int32, which scene of the batch the point is of, -1 padding.
        mask: [V] bool, False for padding.
        scene: [B] int32, of each scene of the batch its number in `Loader.scenes`, -1 for none.
        images: [K, H, W, 3] uint8; black in padding frames.
        depth: [K, H, W] float32 metres, 0 unknown.
        intrinsics: [K, 3, 3] float32.
        camera_to_world: [K, 4, 4] float32.
        frame_part: [K] int32, as `part`, -1 for padding frames: these see nothing.
        frame_label: [K, H, W] int32 2D labels, -1 where there are none.
        left_out: [] int32, voxels that were cropped away because no capacity held them.
    """

    coords: Int32[Array, "V 4"]
    points: Float32[Array, "V 3"]
    surface: Float32[Array, "V 3"]
    features: Float32[Array, "V 6"]
    label: Int32[Array, " V"]
    soft: Float16[Array, "V G C"]
    part: Int32[Array, " V"]
    mask: Bool[Array, " V"]
    scene: Int32[Array, " B"]
    images: UInt8[Array, "K H W 3"]
    depth: Float32[Array, "K H W"]
    intrinsics: Float32[Array, "K 3 3"]
    camera_to_world: Float32[Array, "K 4 4"]
    frame_part: Int32[Array, " K"]
    frame_label: Int32[Array, "K H W"]
    left_out: Int32[Array, ""]


def rows_of(samples: Sequence[Sample], levels: int) -> Array:
    """Voxels of a batch, summed over its samples.

    Args:
        samples: Each with voxels, in grids of their own.
        levels: How many coarser grids.

    Returns:
        [levels + 1] int64, finest first.

    Raises:
        ValueError: A sample has no voxels.
    """
    total = np.zeros(levels + 1, np.int64)
    for sample in samples:
        if sample.voxels is None:
            raise ValueError(f"samples: {sample.name} has no voxels: grid_sample first")
        total += count_levels(sample.voxels, levels)
    return total


def fit(
    samples: Sequence[Sample], capacities: Capacities, rng: np.random.Generator, *, crop: bool
) -> tuple[list[Sample], tuple[int, ...], int]:
    """Finds the capacity for a batch; crops its largest scene around a point where none holds it.

    Args:
        samples: The batch.
        capacities: The sizes, ascending.
        rng: Draws the points in the middle of crops.
        crop: Whether cropping is allowed.

    Returns:
        The samples, cropped or not; the capacity; how many voxels were left out.

    Raises:
        ValueError: No size holds the batch, and cropping is not allowed or cannot help.
    """
    samples, levels = list(samples), len(capacities[-1]) - 1
    counts = [rows_of([sample], levels) for sample in samples]
    before = sum(len(sample.points) for sample in samples)
    largest = np.asarray(capacities[-1])
    while True:
        rows = np.sum(counts, axis=0) if counts else np.zeros(levels + 1, np.int64)
        found = smallest_fitting(rows, capacities)
        if found is not None:
            left_out = before - sum(len(sample.points) for sample in samples)
            return samples, capacities[found], left_out
        names = ", ".join(sample.name for sample in samples)
        where = f"scenes {names}: {rows.tolist()} voxels (by level), the largest capacity is "
        if not crop:
            raise ValueError(
                f"{where}{largest.tolist()}: measure all batches for evaluation, where no voxel "
                "may be left out"
            )
        i = int(np.argmax([len(sample.points) for sample in samples]))
        size = len(samples[i].points)
        if size == 1:
            raise ValueError(f"{where}{largest.tolist()}: less than one voxel a scene")
        # The share that the grid short of most leaves: a step or two settle it.
        short = ((rows - largest) / counts[i]).max()
        keep = max(1, min(size - 1, int(size * (1 - short))))
        samples[i] = sphere_crop(samples[i], rng, most=keep)
        counts[i] = rows_of([samples[i]], levels)


def collate(
    samples: Sequence[Sample],
    capacity: int,
    *,
    scene: Sequence[int],
    views: int,
    image_size: tuple[int, int],
    soft: Mapping[int, Sequence[Float16[Array, "N C"]]] = MappingProxyType({}),
    left_out: int = 0,
) -> Batch:
    """Puts samples into the rows of one batch.

    Args:
        samples: Each with voxels; none for an empty batch.
        capacity: Rows V.
        scene: The numbers of the scenes, [B].
        views: Frames K.
        image_size: Height and width of the frames.
        soft: What each network that teaches said of each point of the scenes, by part.
        left_out: What `Batch.left_out` says.

    Returns:
        The batch.

    Raises:
        ValueError: Something does not fit; names the scene.
    """
    rows = sum(len(sample.points) for sample in samples)
    if rows > capacity:
        raise ValueError(f"capacity: {capacity} for {rows} voxels")
    batch = Batch(
        coords=np.full((capacity, 4), PADDING, np.int32),
        points=np.zeros((capacity, 3), np.float32),
        surface=np.zeros((capacity, 3), np.float32),
        features=np.zeros((capacity, 6), np.float32),
        label=np.full(capacity, -1, np.int32),
        soft=np.zeros((capacity, *_guides_and_classes(soft)), np.float16),
        part=np.full(capacity, -1, np.int32),
        mask=np.arange(capacity) < rows,
        scene=np.asarray(scene, np.int32),
        images=np.zeros((views, *image_size, 3), np.uint8),
        depth=np.zeros((views, *image_size), np.float32),
        intrinsics=np.tile(np.eye(3, dtype=np.float32), (views, 1, 1)),
        camera_to_world=np.tile(np.eye(4, dtype=np.float32), (views, 1, 1)),
        frame_part=np.full(views, -1, np.int32),
        frame_label=np.full((views, *image_size), -1, np.int32),
        left_out=np.asarray(left_out, np.int32),
    )
    row = frame = 0
    for grid, sample in enumerate(samples):
        end = _add_points(batch, sample, grid, row)
        for part, said in soft.items():
            own = np.flatnonzero(sample.part == part)
            for guide, one in enumerate(said):
                batch.soft[row + own, guide] = one[sample.row[own]]
        row = end
        frame = _add_frames(batch, sample, frame)
    return batch


def _guides_and_classes(soft: Mapping[int, Sequence[Array]]) -> tuple[int, int]:
    return next(((len(said), said[0].shape[1]) for said in soft.values()), (0, 0))


def _add_points(batch: Batch, sample: Sample, grid: int, row: int) -> int:
    at = slice(row, row + len(sample.points))
    batch.coords[at, 0] = grid
    batch.coords[at, 1:] = sample.voxels
    batch.points[at] = sample.points
    batch.surface[at] = sample.surface
    batch.features[at, :3] = sample.colour / np.float32(127.5) - 1
    batch.features[at, 3:] = sample.normals
    if sample.label is not None:
        batch.label[at] = sample.label
    batch.part[at] = sample.part
    return at.stop


def _add_frames(batch: Batch, sample: Sample, frame: int) -> int:
    frames, (views, *size, _) = sample.frames, batch.images.shape
    if not len(frames):
        return frame
    at = slice(frame, frame + len(frames))
    if at.stop > views:
        raise ValueError(f"views: {sample.name} brings frame {at.stop}, the batch has {views}")
    if list(frames.colour.shape[1:3]) != size:
        raise ValueError(
            f"frames: {sample.name} has {frames.colour.shape[1:3]} pixels, the batch {tuple(size)}"
        )
    batch.images[at] = frames.colour
    batch.depth[at] = frames.depth / np.float32(1000)
    batch.intrinsics[at] = frames.intrinsics
    batch.camera_to_world[at] = frames.camera_to_world
    batch.frame_part[at] = sample.frame_part
    if frames.label is not None:
        batch.frame_label[at] = frames.label
    return at.stop
