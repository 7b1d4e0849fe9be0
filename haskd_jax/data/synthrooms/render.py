"""What a camera sees: colour, depth, labels, before the sensor spoils them."""

from dataclasses import dataclass

import numpy as np

from haskd_jax.data.synthrooms.layout import Room
from haskd_jax.data.synthrooms.raster import rasterise

Array = np.ndarray


@dataclass(frozen=True)
class View:
    """A perfect picture.

    Attributes:
        colour: [H, W, 3] float32, linear, about 0 ... 1.
        depth: [H, W] float32 z-depth, metres, 0 where nothing is.
        label: [H, W] uint8 nyu40 id.
        instance: [H, W] int32, which thing; of no meaning where nothing is.
        slant: [H, W] float32 cosine between the line of sight and the surface's normal.
        dropout: [H, W] float32, how likely the surface gives no depth.
    """

    colour: Array
    depth: Array
    label: Array
    instance: Array
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
        self._normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
        self._lights = lights
        # A texture covers a metre, unless it is stretched over the surface.
        lengths = np.stack(
            [np.linalg.norm(quads.edge_u, axis=1), np.linalg.norm(quads.edge_v, axis=1)], axis=1
        )
        texels = room.atlas.shape[1]
        self._scale = np.where(quads.stretch[:, None], texels, lengths * texels).astype(np.float32)
        # Repeating textures start anywhere, so that two walls do not look the same.
        self._shift = (np.arange(len(lengths)) * 17 % texels * ~quads.stretch).astype(np.int32)
        self._atlas = room.atlas.reshape(-1, 3)
        self._column = ((np.arange(size[0]) - k[0, 2]) / k[0, 0]).astype(np.float32)
        self._row = ((np.arange(size[1]) - k[1, 2]) / k[1, 1]).astype(np.float32)[:, None]
        self._ray_square = self._column**2 + self._row**2 + 1
        self._ray_length = np.sqrt(self._ray_square)

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
        material = quads.material[q]
        column = (np.maximum(hits.a, 0) * self._scale[:, 0][q]).astype(np.int32)
        row = (np.maximum(hits.b, 0) * self._scale[:, 1][q]).astype(np.int32)
        stretched = quads.stretch[q]
        last = texels - 1  # texels is a power of two
        column = np.where(stretched, np.minimum(column, last), (column + self._shift[q]) & last)
        row = np.where(stretched, np.minimum(row, last), row & last)
        albedo = np.take(self._atlas, (material * texels + row) * texels + column, axis=0)

        # How far camera and lamps are in front of a surface's plane is one number a surface.
        rotation, eye = camera_to_world[:3, :3], camera_to_world[:3, 3]
        height = np.einsum("qc,qc->q", self._normal, eye - quads.origin)
        side = np.where(height < 0, -1, 1)
        square = hits.depth**2 * self._ray_square
        light = np.full(hits.depth.shape, 0.38, np.float32)
        for lamp in self._lights:
            above = np.einsum("qc,qc->q", self._normal, lamp - quads.origin) * side
            right, down, ahead = map(np.float32, rotation.T @ (lamp - eye))
            along = self._column * right + (self._row * down + ahead)
            distance = square - 2 * hits.depth * along + np.float32((lamp - eye) @ (lamp - eye))
            distance = np.maximum(distance, 0) + np.float32(0.3)
            strength = (np.maximum(above, 0) * 1.6 / len(self._lights)).astype(np.float32)
            light += strength[q] / (np.sqrt(distance) * (1 + np.float32(0.25) * distance))
        glow = room.glow[material]
        shade = np.where(seen, glow + (1 - glow) * light, 0)
        away = np.abs(height).astype(np.float32)[q]
        return View(
            colour=albedo * shade[..., None],
            depth=hits.depth,
            label=np.where(seen, quads.label[q], 0).astype(np.uint8),
            instance=quads.instance[q],
            slant=away / np.maximum(hits.depth * self._ray_length, np.float32(1e-6)),
            dropout=room.dropout[material],
        )
