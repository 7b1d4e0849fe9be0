"""Whether a scene's frames belong where their poses say: vertices against pixels."""

from dataclasses import dataclass

import numpy as np

from haskd_jax.data.cameras import look_up, project
from haskd_jax.data.scene import Array, Scene

_FRAMES = 16
_POINTS = 50_000
_TOLERANCE = 0.05  # metres
_LUMA = np.array([0.299, 0.587, 0.114])
_FEW = 200  # points in view, below which nothing can be said

# What people's poses are, when they are not what they should be.
_VARIANTS = {
    "inverted": "they are world-to-camera: invert them",
    "flipped": "they look along -z, as OpenGL's cameras do: negate their second and third column",
    "unchanged": "",
}


@dataclass(frozen=True)
class Alignment:
    """How well vertices fit the frames they project into.

    Attributes:
        in_view: Vertices, summed over frames, that project onto a pixel with depth and are not
            behind the surface seen there.
        depth_agreement: The share of these that lie within 5 cm of that surface. With wrong
            poses vertices float in front of it.
        colour_correlation: Pearson's correlation of the vertices' brightness with the pixels',
            over the vertices that lie on the surface; NaN without contrast.
        remedy: What would make the poses fit much better, in words, if something simple does.
    """

    in_view: int
    depth_agreement: float
    colour_correlation: float
    remedy: str = ""

    @property
    def verdict(self) -> str:
        """ "good", "doubtful", "wrong", or "unknown" where too little is in view."""
        if self.in_view < _FEW and not self.remedy:
            return "unknown"
        colour = self.colour_correlation
        if self.remedy or self.depth_agreement < 0.35 or colour < 0.25:
            return "wrong"
        return "doubtful" if self.depth_agreement < 0.6 or colour < 0.5 else "good"


def check_alignment(scene: Scene) -> Alignment:
    """Projects vertices into frames and compares depth and colour.

    Args:
        scene: A prepared scene with frames.

    Returns:
        How well they fit, over at most 16 frames and 50,000 vertices, evenly taken.

    Raises:
        ValueError: The scene has no frames.
    """
    frames = scene.frames
    if not len(frames):
        raise ValueError(f"scene: {scene.name} has no frames to align")
    chosen = np.unique(np.linspace(0, len(frames) - 1, _FRAMES).astype(int))
    points = np.asarray(scene.points[:: -(-len(scene.points) // _POINTS)], np.float64)
    luma = scene.colour[:: -(-len(scene.points) // _POINTS)] @ _LUMA

    def measure(variant: str) -> Alignment:
        near = front = 0
        pairs: list[Array] = []
        for f in chosen:
            pose = _varied(np.asarray(frames.camera_to_world[f], np.float64), variant)
            column, row, z = project(points, frames.intrinsics[f], pose)
            depth, _ = look_up(frames.depth[f], column, row)
            surface = depth / 1000
            seen = (depth > 0) & (z < surface + _TOLERANCE)
            on = seen & (z > surface - _TOLERANCE)
            front, near = front + int(seen.sum()), near + int(on.sum())
            pixel, _ = look_up(frames.colour[f], column[on], row[on])
            pairs.append(np.stack([luma[on], pixel @ _LUMA]))
        return Alignment(front, near / max(front, 1), _correlation(np.hstack(pairs)))

    found = measure("unchanged")
    if found.verdict == "good":
        return found
    for variant, remedy in _VARIANTS.items():
        other = measure(variant) if remedy else found
        if other.verdict == "good" and other.in_view >= found.in_view / 4:
            return Alignment(found.in_view, found.depth_agreement, found.colour_correlation, remedy)
    return found


def _varied(pose: Array, variant: str) -> Array:
    if variant == "inverted":
        return np.linalg.inv(pose)
    return pose @ np.diag([1.0, -1, -1, 1]) if variant == "flipped" else pose


def _correlation(pairs: Array) -> float:
    if pairs.shape[1] < 2 or pairs.std(axis=1).min() < 4:
        return float("nan")
    return float(np.corrcoef(pairs)[0, 1])
