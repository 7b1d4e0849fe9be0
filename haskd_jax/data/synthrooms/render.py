"""What a camera sees: colour, depth, labels, before the sensor spoils them."""

from dataclasses import dataclass

import numpy as np

from haskd_jax.data.synthrooms.layout import Room
from haskd_jax.data.synthrooms.quads import turned
from haskd_jax.data.synthrooms.raster import rasterise

Array = np.ndarray


@dataclass(frozen=True)
class View:
    """A perfect picture.

    Attributes:
        colour: [H, W, 3] float32, linear, about 0 ... 1.
        depth: [H, W] float32 z-depth, metres, 0 where nothing is.
        label: [H, W] uint8 nyu40 id.
        slant: [H, W] float32 cosine between the line of sight and the surface's normal.
        dropout: [H, W] float32, how likely the surface gives no depth.
    """

    colour: Array
    depth: Array
    label: Array
    slant: Array
    dropout: Array


class Renderer:
    """Renders one room from any number of places.

    Args:
        room: The room.
        lights: [L, 3] places of its lamps.
        k: [3, 3] intrinsics.
        size: Width and height.
    """

    def __init__(self, room: Room, lights: Array, k: Array, size: tuple[int, int]):
        quads = room.quads
        self._room, self._k, self._size = room, k, size
        normal = np.cross(quads.edge_u, quads.edge_v)
        self._normal = (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32)
        self._lights = lights.astype(np.float32)
        # A texture covers a metre, unless it is stretched over the surface.
        lengths = np.stack(
            [np.linalg.norm(quads.edge_u, axis=1), np.linalg.norm(quads.edge_v, axis=1)], axis=1
        )
        texels = room.atlas.shape[1]
        self._scale = np.where(quads.stretch[:, None], texels, lengths * texels).astype(np.float32)
        # Repeating textures start anywhere, so that two walls do not look the same.
        self._shift = (np.arange(len(lengths)) * 17 % texels * ~quads.stretch).astype(np.int32)
        self._atlas = room.atlas.reshape(-1, 3)
        x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        rays = np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones_like(x)], 2)
        self._rays = rays.astype(np.float32)

    def view(self, camera_to_world: Array) -> View:
        """Renders one picture.

        Args:
            camera_to_world: [4, 4].

        Returns:
            The picture.
        """
        room, quads = self._room, self._room.quads
        hits = rasterise(quads, camera_to_world, self._k, self._size)
        seen = hits.quad >= 0
        q = np.where(seen, hits.quad, 0)
        texels = room.atlas.shape[1]
        scale, shift, material = self._scale[q], self._shift[q], quads.material[q]
        column = (np.maximum(hits.a, 0) * scale[..., 0]).astype(np.int32)
        row = (np.maximum(hits.b, 0) * scale[..., 1]).astype(np.int32)
        stretched = quads.stretch[q]
        column = np.where(stretched, column.clip(max=texels - 1), (column + shift) % texels)
        row = np.where(stretched, row.clip(max=texels - 1), row % texels)
        albedo = self._atlas[(material * texels + row) * texels + column]

        pose = camera_to_world.astype(np.float32)
        sight = turned(self._rays, pose[:3, :3])
        points = sight * hits.depth[..., None] + pose[:3, 3]
        normal = self._normal[q]
        facing = np.einsum("hwc,hwc->hw", normal, sight)
        normal = np.where(facing[..., None] > 0, -normal, normal)
        light = np.full(hits.depth.shape, 0.38, np.float32)
        for lamp in self._lights:
            toward = lamp - points
            square = np.einsum("hwc,hwc->hw", toward, toward) + 0.3
            cosine = np.einsum("hwc,hwc->hw", toward, normal) / np.sqrt(square)
            light += np.maximum(cosine, 0) * (1.6 / len(self._lights)) / (1 + 0.25 * square)
        glow = room.glow[material]
        shade = np.where(seen, glow + (1 - glow) * light, 0)
        length = np.sqrt(np.einsum("hwc,hwc->hw", sight, sight))
        return View(
            colour=albedo * shade[..., None],
            depth=hits.depth,
            label=np.where(seen, quads.label[q], 0).astype(np.uint8),
            slant=np.abs(facing) / length,
            dropout=room.dropout[material],
        )
