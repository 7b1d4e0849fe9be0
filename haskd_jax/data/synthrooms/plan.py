"""Where furniture fits: along walls, on the floor, on walls."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from haskd_jax.data.synthrooms import fixtures
from haskd_jax.data.synthrooms.kit import LABEL, Item, Kit
from haskd_jax.data.synthrooms.quads import Piece, Vector
from haskd_jax.data.synthrooms.style import Number
from haskd_jax.data.synthrooms.walls import Patch, Wall

Box = tuple[Number, Number, Number, Number]  # x0, x1, y0, y1

_TRIES = 24


@dataclass
class Plan:
    """A room while it is being furnished.

    Attributes:
        kit: What furniture is drawn from.
        width: Of the room, metres.
        depth: Of the room, metres.
        walls: Its four walls.
        piece: What stands in it.
        taken: Floor that is covered.
        tall: Floor on which a person can neither stand nor look over.
        sights: Places worth a look.
    """

    kit: Kit
    width: Number
    depth: Number
    walls: list[Wall]
    piece: Piece = field(default_factory=Piece)
    taken: list[Box] = field(default_factory=list)
    tall: list[Box] = field(default_factory=list)
    sights: list[Vector] = field(default_factory=list)

    def fits(self, box: Box, margin: Number = 0.04) -> bool:
        """Whether a piece of floor is in the room and free."""
        x0, x1, y0, y1 = box
        inside = x0 > -1e-6 and y0 > -1e-6 and x1 < self.width + 1e-6 and y1 < self.depth + 1e-6
        return inside and not any(
            x0 < b[1] + margin and b[0] < x1 + margin and y0 < b[3] + margin and b[2] < y1 + margin
            for b in self.taken
        )

    def take(self, item: Item, at: Vector, yaw: Number, box: Box) -> None:
        """Puts an item down, and things on it if it has a top."""
        self.piece.add(item.piece, at, yaw)
        self.taken.append(box)
        if item.height > 0.95:
            self.tall.append(box)
        self.sights.append(((box[0] + box[1]) / 2, (box[2] + box[3]) / 2, 0.6 * item.height))
        if item.top is not None:
            for _ in range(self.kit.rng.integers(0, 4)):
                thing = fixtures.clutter(self.kit, small=True)
                if thing.width < item.width - 0.1 and thing.depth < item.depth - 0.1:
                    x = self.kit.between(0.05, item.width - thing.width)
                    y = self.kit.between(0.05, item.depth - thing.depth)
                    cx, cy = _turned(x, y, yaw)
                    self.piece.add(thing.piece, (at[0] + cx, at[1] + cy, item.top), yaw)

    def against_wall(self, item: Item, gap: Number = 0.02) -> tuple[Wall, float] | None:
        """Puts an item with its back to some wall; says where, or that there is no room."""
        for _ in range(_TRIES):
            wall = self.walls[self.kit.rng.integers(len(self.walls))]
            room = wall.length - item.width
            if room <= 0.02:
                continue
            x = self.kit.between(0.02, room)
            if self.kit.chance(0.4):
                x = 0.02 if self.kit.chance(0.5) else room
            box = footprint(wall, x, gap, item.width, item.depth)
            patch = Patch(x, x + item.width, 0, item.height)
            if self.fits(box) and not any(patch.meets(other) for other in wall.taken):
                at = place(wall, x, gap)
                self.take(item, at, wall.yaw, box)
                wall.taken.append(patch)
                return wall, x
        return None

    def free_standing(self, item: Item, near: Box | None = None, reach: Number = 0.0) -> Box | None:
        """Puts an item somewhere on the floor, turned by quarter turns."""
        for _ in range(_TRIES):
            turn = self.kit.rng.integers(4)
            w, d = (item.depth, item.width) if turn % 2 else (item.width, item.depth)
            low, high = (0.25, 0.25), (self.width - w - 0.25, self.depth - d - 0.25)
            if near is not None:
                low = (near[0] - reach - w, near[2] - reach - d)
                high = (near[1] + reach, near[3] + reach)
            if high[0] <= low[0] or high[1] <= low[1]:
                continue
            x, y = self.kit.between(low[0], high[0]), self.kit.between(low[1], high[1])
            box = (x, x + w, y, y + d)
            if self.fits(box, 0.08):
                yaw = turn * np.pi / 2
                cx, cy = ((0, 0), (w, 0), (w, d), (0, d))[turn]
                self.take(item, (x + cx, y + cy, 0.0), yaw, box)
                return box
        return None

    def on_wall(
        self,
        build: Callable[[Wall, Patch], object],
        size: tuple[Number, Number],
        low: Number,
        margin: Number = 0.12,
    ) -> tuple[Wall, Patch] | None:
        """Puts a thing of this width and height on or into some wall, `low` above the floor."""
        for _ in range(_TRIES):
            wall = self.walls[self.kit.rng.integers(len(self.walls))]
            if wall.length < size[0] + 0.3:
                continue
            x = self.kit.between(0.12, wall.length - size[0] - 0.12)
            patch = Patch(x, x + size[0], low, low + size[1])
            if wall.free(patch, margin):
                before = len(wall.piece)
                build(wall, patch)
                wall.piece.one_thing(before, but=LABEL["wall"])
                self.sights.append(place(wall, x + size[0] / 2, 0.0, low + size[1] / 2))
                return wall, patch
        return None


def _turned(x: Number, y: Number, yaw: Number) -> tuple[float, float]:
    c, s = np.cos(yaw), np.sin(yaw)
    return float(c * x - s * y), float(s * x + c * y)


def place(wall: Wall, x: Number, y: Number, z: Number = 0.0) -> Vector:
    """A point of a wall's own frame, in the room."""
    dx, dy = _turned(x, y, wall.yaw)
    return wall.origin[0] + dx, wall.origin[1] + dy, z


def footprint(wall: Wall, x: Number, y: Number, width: Number, depth: Number) -> Box:
    """The floor that a rectangle of a wall's own frame covers."""
    a, b = place(wall, x, y), place(wall, x + width, y + depth)
    return min(a[0], b[0]), max(a[0], b[0]), min(a[1], b[1]), max(a[1], b[1])
