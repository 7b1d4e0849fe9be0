"""A seed to a scanned room."""

from dataclasses import dataclass

import numpy as np

from haskd_jax.data.synthrooms.fusion import fuse_views
from haskd_jax.data.synthrooms.layout import Room, furnish
from haskd_jax.data.synthrooms.quads import turned
from haskd_jax.data.synthrooms.render import Renderer
from haskd_jax.data.synthrooms.sensor import sense_colour, sense_depth, shifted, smear
from haskd_jax.data.synthrooms.style import STYLES, StyleName
from haskd_jax.data.synthrooms.trajectory import Walk, walk

Array = np.ndarray

_FOCAL = 0.9  # of the image's width, as a phone's or ScanNet's camera: 58 degrees across


@dataclass(frozen=True)
class Options:
    """Sizes of a scan.

    Attributes:
        frames: How many frames the camera takes.
        width: Of the frames, pixels.
        height: Of the frames, pixels.
        voxel_size: Of the fusion, metres; about the distance of the cloud's points.
    """

    frames: int = 48
    width: int = 160
    height: int = 120
    voxel_size: float = 0.025

    def __post_init__(self) -> None:
        """Checks the sizes."""
        if self.frames < 4:
            raise ValueError(f"frames: {self.frames}, must be 4 or more")
        if min(self.width, self.height) < 16:
            raise ValueError(f"width, height: {self.width} x {self.height}, must be 16 or more")
        if not 0.005 <= self.voxel_size <= 0.2:
            raise ValueError(f"voxel_size: {self.voxel_size} m, must be 0.005 to 0.2")


@dataclass(frozen=True)
class SynthScene:
    """A scanned room: its cloud and its frames, with nyu40 labels (0 unlabelled).

    Attributes:
        kind: What room it is.
        points: [N, 3] float32, metres.
        colour: [N, 3] uint8.
        label: [N] uint8 nyu40 id.
        instance: [N] int32, the things that were seen numbered from 0; a wall, the floor, the
            ceiling are things too.
        frame_colour: [F, H, W, 3] uint8.
        frame_depth: [F, H, W] uint16 millimetres, 0 unknown; registered to the colour.
        frame_label: [F, H, W] uint8 nyu40 id.
        intrinsics: [3, 3] float64; the centre of the first pixel is (0, 0).
        camera_to_world: [F, 4, 4] float64, where the scanner believes it was.
    """

    kind: str
    points: Array
    colour: Array
    label: Array
    instance: Array
    frame_colour: Array
    frame_depth: Array
    frame_label: Array
    intrinsics: Array
    camera_to_world: Array


def generate_scene(
    seed: int, *, style: StyleName = "a", options: Options | None = None
) -> SynthScene:
    """Builds a room, walks through it with a camera, and fuses what the camera saw.

    Args:
        seed: Decides everything, together with the style and the options.
        style: Furniture, palettes and trajectories: a key of `STYLES`.
        options: Sizes.

    Returns:
        The scan.

    Raises:
        ValueError: An unknown style, or a negative seed.

    Example:
        >>> scene = generate_scene(3, options=Options(frames=6))
        >>> scene.frame_colour.shape
        (6, 120, 160, 3)
    """
    if style not in STYLES:
        raise ValueError(f"style: {style!r}, must be one of {sorted(STYLES)}")
    if seed < 0:
        raise ValueError(f"seed: {seed}, must not be negative")
    options = options or Options()
    # Rooms, ways and sensors draw from streams of their own: another number of frames shows the
    # same room.
    streams = np.random.SeedSequence(seed).spawn(3)
    room_rng, walk_rng, sensor_rng = map(np.random.default_rng, streams)
    room = furnish(room_rng, STYLES[style])
    way = walk(walk_rng, room, STYLES[style], options.frames)
    return _scan(sensor_rng, room, way, options)


def _scan(rng: np.random.Generator, room: Room, way: Walk, options: Options) -> SynthScene:
    width, height = options.width, options.height
    focal = _FOCAL * width
    k = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    lights = np.array(room.size) * rng.uniform([0.25, 0.25, 0.85], [0.75, 0.75, 0.95], (2, 3))
    renderer = Renderer(room, lights, k, (width, height))
    believed = _believed_poses(rng, room, way.camera_to_world)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(x - k[0, 2]) / focal, (y - k[1, 2]) / focal, np.ones_like(x)], axis=2)
    rays = rays.reshape(-1, 3).astype(np.float32)
    size = width / 160

    frames: list[tuple[Array, Array, Array]] = []
    seen: list[tuple[Array, Array, Array, Array]] = []
    for true, pose, turning in zip(way.camera_to_world, believed, way.turning, strict=True):
        view = renderer.view(true)
        colour = sense_colour(rng, view.colour, turning * focal)
        depth = sense_depth(rng, view)
        frames.append((colour, depth, view.label))
        # The scanner's colours are a pixel off and smeared: images hold more than the cloud.
        offset = np.rint(rng.normal(size=2) * 0.8 * size).astype(int)
        painted = smear(shifted(colour, offset), round(2 * size))
        known = np.flatnonzero(depth)
        z = depth.ravel()[known].astype(np.float32) / 1000
        points = turned(rays[known] * z[:, None], pose[:3, :3]) + pose[:3, 3].astype(np.float32)
        seen.append((points, painted.reshape(-1, 3)[known], view.instance.ravel()[known], 1 / z**2))
    points, colour, thing = fuse_views(
        [points for points, _, _, _ in seen],
        [colours for _, colours, _, _ in seen],
        [things for _, _, things, _ in seen],
        [weights for _, _, _, weights in seen],
        options.voxel_size,
    )
    label_of = np.zeros(room.quads.instance.max() + 1, np.uint8)
    label_of[room.quads.instance] = room.quads.label
    return SynthScene(
        kind=room.kind,
        points=points,
        colour=colour,
        label=label_of[thing],
        instance=np.unique(thing, return_inverse=True)[1].astype(np.int32),
        frame_colour=np.stack([colour for colour, _, _ in frames]),
        frame_depth=np.stack([depth for _, depth, _ in frames]),
        frame_label=np.stack([label for _, _, label in frames]),
        intrinsics=k,
        camera_to_world=believed,
    )


def _believed_poses(rng: np.random.Generator, room: Room, poses: Array) -> Array:
    """Where the scanner believes it was: tracking drifts, and knows nothing of the room's axes."""
    count = len(poses)
    drift = np.cumsum(rng.normal(size=(count, 6)), axis=0) / np.sqrt(count)
    drift = (drift - drift.mean(axis=0)) * ([0.006] * 3 + [0.0015] * 3)
    result = poses.copy()
    result[:, :3, 3] += drift[:, :3]
    result[:, :3, :3] = _rotations(drift[:, 3:]) @ poses[:, :3, :3]
    yaw = rng.uniform(0, 2 * np.pi)
    world = np.eye(4)
    world[:3, :3] = _rotations(np.array([[0, 0, yaw]]))[0]
    world[:3, 3] = rng.uniform(-1, 1, 3) * [2, 2, 0.05]
    return world @ result


def _rotations(angles: Array) -> Array:
    """[F, 3, 3] rotations about z, y and x by [F, 3] angles about x, y, z, radians."""
    (a, b, c), (sa, sb, sc) = np.cos(angles).T, np.sin(angles).T
    rows = [
        [b * c, sa * sb * c - a * sc, a * sb * c + sa * sc],
        [b * sc, sa * sb * sc + a * c, a * sb * sc - sa * c],
        [-sb, sa * b, a * b],
    ]
    return np.moveaxis(np.array(rows), 2, 0)
