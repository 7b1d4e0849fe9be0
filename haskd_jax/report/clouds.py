"""Pictures of point clouds with NumPy alone: from above and from a corner of the room.

Clouds stand upright (z up). What hides the room from the eye is left out: the ceiling, and walls
seen from behind. Edges in depth are darkened, so that furniture of one colour keeps its shape
(Boucheny, Visualisation scientifique de grands volumes de donnees, 2009: eye-dome lighting).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from scipy.spatial import cKDTree

Array = np.ndarray

_SHARPER = 2  # pictures are drawn this much larger and averaged
_TILT = np.radians(40.0)  # of the view from a corner, below the horizon
_FIELD = np.radians(36.0)
_STEP = 0.15  # metres: beyond, all steps in depth look alike, or only walls would show
_SHADE = 1.2  # strength of the darkened edges
_DARKEST = 0.45
_LARGEST = 24.0  # radius of a point, pixels of the large picture
_SPACING_SAMPLES = 4096


@dataclass(frozen=True)
class View:
    """Where every point of a cloud falls in a picture; made once, drawn in many colours.

    Attributes:
        winner: [H, W] int64, the point seen in each pixel of the large picture, -1 for none.
        shade: [H, W] float32 brightness of each pixel, 0 where no point is.
    """

    winner: Shaped[Array, "H W"]
    shade: Float[Array, "H W"]

    def draw(self, colours: UInt8[Array, "N 3"]) -> UInt8[Array, "h w 4"]:
        """Draws the cloud.

        Args:
            colours: [N, 3] uint8, of the points that the view was made of.

        Returns:
            [h, w, 4] uint8 RGBA; nothing is opaque where no point is.
        """
        large = np.asarray(colours, np.float32)[np.maximum(self.winner, 0)]
        large *= self.shade[..., None]  # nothing where no point is
        alpha = _averaged((self.winner >= 0).astype(np.float32)[..., None])
        rgb = _averaged(large) / np.maximum(alpha, 1e-6)
        return np.concatenate([rgb, 255 * alpha], axis=2).round().astype(np.uint8)


def on_white(image: UInt8[Array, "h w 4"]) -> UInt8[Array, "h w 3"]:
    """Lays a transparent picture on white.

    Args:
        image: [h, w, 4] uint8 RGBA.

    Returns:
        [h, w, 3] uint8.

    Example:
        >>> on_white(np.zeros((1, 1, 4), np.uint8)).tolist()
        [[[255, 255, 255]]]
    """
    alpha = image[..., 3:].astype(np.float32) / 255
    return (image[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def from_above(
    points: Float[Array, "N 3"], normals: Float[Array, "N 3"], *, width: int = 480
) -> View:
    """The floor plan: straight down, without the ceiling, the room's walls along the edges.

    Args:
        points: [N, 3] metres, z up.
        normals: [N, 3] pointing into the room; zero where unknown.
        width: Of the picture, pixels.

    Returns:
        The view.

    Raises:
        ValueError: No points.

    Example:
        >>> floor = np.mgrid[0:2:0.05, 0:1:0.05, 0:0.01].reshape(3, -1).T
        >>> up = np.tile([0.0, 0.0, 1.0], (len(floor), 1))
        >>> from_above(floor, up, width=80).draw(np.zeros((len(floor), 3), np.uint8)).shape
        (42, 80, 4)
    """
    local, _ = _upright(points, normals)
    keep = ~hanging(local, normals)
    low, high = local[keep].min(axis=0), local[keep].max(axis=0)
    margin = 0.03 * (high - low)[:2].max() + 1e-3
    scale = width * _SHARPER / (high[0] - low[0] + 2 * margin)
    height = max(int(np.ceil((high[1] - low[1] + 2 * margin) * scale / _SHARPER)), 1)
    kept = np.flatnonzero(keep)
    u = (local[kept, 0] - low[0] + margin) * scale
    v = (high[1] + margin - local[kept, 1]) * scale
    radius = np.full(len(kept), _spacing(local) * scale)
    depth = high[2] - local[kept, 2]
    size = (height * _SHARPER, width * _SHARPER)
    return _splat(kept, u, v, depth, radius, size)


def from_corner(
    points: Float[Array, "N 3"],
    normals: Float[Array, "N 3"],
    *,
    width: int = 480,
    height: int = 380,
) -> View:
    """The room from outside one of its corners, above, through the walls that face away.

    Args:
        points: [N, 3] metres, z up.
        normals: [N, 3] pointing into the room; zero where unknown.
        width: Of the picture, pixels.
        height: Of the picture, pixels.

    Returns:
        The view, from the corner that shows most.

    Raises:
        ValueError: No points.
    """
    local, turned_normals = _upright(points, normals)
    keep = ~hanging(local, normals)
    low, high = local[keep].min(axis=0), local[keep].max(axis=0)
    centre = (low + high) / 2
    reach = max(float(np.linalg.norm(high - low)), 1e-3)  # of a single point: none
    eyes = [
        centre
        + 2
        * reach
        * np.array([np.cos(a) * np.cos(_TILT), np.sin(a) * np.cos(_TILT), np.sin(_TILT)])
        for a in np.radians([-55.0, 55.0, 125.0, -125.0])
    ]
    seen = [keep & _faces(local, turned_normals, eye) for eye in eyes]
    best = int(np.argmax([mask.sum() for mask in seen]))
    shown = seen[best] if seen[best].any() else keep  # all is seen from behind, from every corner
    kept, eye = np.flatnonzero(shown), eyes[best]

    forward = (centre - eye) / np.linalg.norm(centre - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    camera = (local[kept] - eye) @ np.stack([right, np.cross(right, forward), forward], axis=1)
    x, y, z = camera[:, 0] / camera[:, 2], camera[:, 1] / camera[:, 2], camera[:, 2]
    # The picture is filled whatever the shape of the room.
    span = np.array([np.ptp(x), np.ptp(y)]) + 1e-6
    size = np.array([width, height]) * _SHARPER
    scale = 0.95 * (size / span).min()
    u = (x - (x.min() + x.max()) / 2) * scale + size[0] / 2
    v = size[1] / 2 - (y - (y.min() + y.max()) / 2) * scale
    radius = _spacing(local) * scale / z
    return _splat(kept, u, v, z, radius, (int(size[1]), int(size[0])))


def _splat(
    ids: Array, u: Array, v: Array, depth: Array, radius: Array, size: tuple[int, int]
) -> View:
    """Every point a disc, the nearest in front."""
    height, width = size
    order = np.argsort(-depth, kind="stable")  # far to near: the largest place is in front
    column, row = u[order].astype(np.int64), v[order].astype(np.int64)
    reach = np.clip(radius[order], 1.0, _LARGEST)
    front = np.full(height * width, -1, np.int64)
    limit = int(reach.max())
    for dy in range(-limit, limit + 1):
        for dx in range(-limit, limit + 1):
            away = np.hypot(dx, dy)
            if away > limit + 1:
                continue
            x, y = column + dx, row + dy
            inside = np.flatnonzero(
                (away <= reach) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            )
            np.maximum.at(front, y[inside] * width + x[inside], inside)
    hit = front >= 0
    winner = np.where(hit, ids[order[front]], -1).reshape(size)
    distance = np.where(hit, depth[order[front]], np.inf).reshape(size)
    return View(winner, _edges(distance))


def _edges(distance: Array) -> Array:
    """Brightness by how much nearer the neighbouring pixels are."""
    known = np.isfinite(distance)
    filled = np.where(known, distance, distance[known].max(initial=0.0)).astype(np.float32)
    total = np.zeros_like(filled)
    for dy, dx in ((0, 2), (0, -2), (2, 0), (-2, 0), (3, 3), (3, -3), (-3, 3), (-3, -3)):
        moved = np.roll(filled, (dy, dx), axis=(0, 1))
        total += np.clip(filled - moved, 0.0, _STEP)
    return np.maximum(np.exp(-_SHADE * total / (8 * _STEP)), _DARKEST) * known


def _averaged(large: Array) -> Array:
    """Every block of a large picture's pixels as one."""
    blocks = [large[i::_SHARPER, j::_SHARPER] for i in range(_SHARPER) for j in range(_SHARPER)]
    return sum(blocks[1:], start=blocks[0]) / np.float32(_SHARPER**2)


def hanging(points: Float[Array, "N 3"], normals: Float[Array, "N 3"]) -> Bool[Array, " N"]:
    """The ceiling: what looks down on the room, or is above head height where no normal says.

    Args:
        points: [N, 3] metres, z up.
        normals: [N, 3] pointing into the room; zero where unknown.

    Returns:
        [N] bool; nothing where all of it would be.

    Example:
        >>> room = np.array([[0, 0, 0], [0, 0, 1.0], [0, 0, 2.5]])
        >>> hanging(room, np.array([[0, 0, 1.0], [1.0, 0, 0], [0, 0, -1.0]])).tolist()
        [False, False, True]
    """
    low, high = np.percentile(points[:, 2], [1, 99])
    height = (points[:, 2] - low) / max(high - low, 1e-6)
    unknown = ~normals.any(axis=1)
    above = (height > 0.6) & (normals[:, 2] < -0.5)
    if high - low > 1.5:  # a room, not a thing
        above |= (height > 0.96) | (unknown & (height > 0.8))
    return above if not above.all() else np.zeros(len(points), bool)


def _faces(local: Array, normals: Array, eye: Array) -> Bool[Array, " N"]:
    """Points whose surface is not seen from behind."""
    away = np.einsum("nc,nc->n", normals, local - eye)
    distance = np.linalg.norm(local - eye, axis=1)
    return away <= 0.12 * distance


def _upright(points: Array, normals: Array) -> tuple[Array, Array]:
    """Points and normals turned so that walls run along the axes, from a corner at the origin."""
    if not len(points):
        raise ValueError("points: none; a picture needs one at least")
    points = np.asarray(points, np.float64) - points[0]
    yaw = _yaw(points)
    local = _turned(points, yaw)
    return local - local.min(axis=0), _turned(normals, yaw)


def _turned(vectors: Array, yaw: float) -> Array:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.asarray(vectors, np.float64) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]).T


def _yaw(points: Array) -> float:
    """The turn about z after which the smallest box around the room is axis-aligned and wide."""
    sample = points[:: max(len(points) // 5000, 1), :2]
    best, smallest, wide = 0.0, np.inf, True
    for angle in np.radians(np.arange(0.0, 90.0)):
        c, s = np.cos(angle), np.sin(angle)
        x, y = c * sample[:, 0] - s * sample[:, 1], s * sample[:, 0] + c * sample[:, 1]
        a, b = (np.ptp(np.percentile(values, [0.5, 99.5])) for values in (x, y))
        if a * b < smallest * 0.999:
            best, smallest, wide = float(angle), a * b, a >= b
    return best if wide else best + np.pi / 2


def _spacing(points: Array) -> float:
    """The usual distance between neighbouring points, metres: the radius that closes holes."""
    if len(points) < 2:
        return 0.05
    sample = points[:: max(len(points) // _SPACING_SAMPLES, 1)]
    distance, _ = cKDTree(points).query(sample, k=min(4, len(points)))
    return float(np.median(distance[:, -1]))
