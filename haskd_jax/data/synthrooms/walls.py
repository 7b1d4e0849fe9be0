"""Walls and what is in and on them.

Everything here is a flat thing on a wall and differs in the points by a cue of 8 cm or more: a
door lies back in the wall, reaches the floor and has a handle; a window lies back and has a sill;
a picture stands out, with a lip around it; a curtain has folds. Niches and pilasters, which are
wall, have the same depths without the frame, the sill, the handle or the lip.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from haskd_jax.data.synthrooms.kit import LABEL, Kit
from haskd_jax.data.synthrooms.quads import Piece, Vector
from haskd_jax.data.synthrooms.style import Number


@dataclass(frozen=True)
class Patch:
    """A rectangle of a wall: x along it, z up, metres."""

    x0: Number
    x1: Number
    z0: Number
    z1: Number

    def meets(self, other: "Patch", margin: Number = 0.0) -> bool:
        """Whether two rectangles come nearer than `margin`."""
        across = self.x0 < other.x1 + margin and other.x0 < self.x1 + margin
        return across and self.z0 < other.z1 + margin and other.z0 < self.z1 + margin


@dataclass
class Wall:
    """One wall while a room is being furnished.

    Attributes:
        length: Metres.
        height: Metres.
        origin: Where its own x, y, z start in the room: x along it, y into the room, z up.
        yaw: How its x is turned about z, radians.
        holes: Where it is open, disjoint in x.
        taken: What nothing else may cover.
        piece: What hangs on it or lies in it.
    """

    length: Number
    height: Number
    origin: Vector
    yaw: Number
    holes: list[Patch] = field(default_factory=list)
    taken: list[Patch] = field(default_factory=list)
    piece: Piece = field(default_factory=Piece)

    def free(self, patch: Patch, margin: Number = 0.06) -> bool:
        """Whether a rectangle lies on the wall and on nothing else."""
        inside = patch.x0 >= 0.05 and patch.x1 <= self.length - 0.05 and patch.z1 <= self.height
        return inside and not any(patch.meets(other, margin) for other in self.taken)

    def cut(self, patch: Patch) -> None:
        """Opens a hole; holes above each other are not made."""
        self.holes.append(patch)
        self.taken.append(patch)

    def surfaces(self, material: int) -> Piece:
        """The wall around its holes, and what is in and on it."""
        result = Piece()
        label = LABEL["wall"]

        def add(x0: Number, x1: Number, z0: Number, z1: Number) -> None:
            if x1 - x0 > 1e-6 and z1 - z0 > 1e-6:
                u, v = (x0 - x1, 0, 0), (0, 0, z1 - z0)
                result.rect((x1, 0, z0), u, v, label, material)

        at = 0.0
        for hole in sorted(self.holes, key=lambda hole: hole.x0):
            add(at, hole.x0, 0, self.height)
            add(hole.x0, hole.x1, 0, hole.z0)
            add(hole.x0, hole.x1, hole.z1, self.height)
            at = hole.x1
        add(at, self.length, 0, self.height)
        result.extend(self.piece)
        return result


def _recess(p: Piece, patch: Patch, depth: Number, material: int, label: int) -> None:
    """The four sides of a hole, seen from inside the room."""
    w, h = patch.x1 - patch.x0, patch.z1 - patch.z0
    inward = (0, depth, 0)
    p.rect((patch.x0, -depth, patch.z0), inward, (0, 0, h), label, material)
    p.rect((patch.x1, 0, patch.z0), (0, -depth, 0), (0, 0, h), label, material)
    p.rect((patch.x0, -depth, patch.z1), inward, (w, 0, 0), label, material)
    p.rect((patch.x0, -depth, patch.z0), (w, 0, 0), inward, label, material)


def _back(p: Piece, patch: Patch, y: Number, label: int, material: int) -> None:
    u, v = (patch.x0 - patch.x1, 0, 0), (0, 0, patch.z1 - patch.z0)
    p.rect((patch.x1, y, patch.z0), u, v, label, material, stretch=True)


def door(kit: Kit, wall: Wall, patch: Patch) -> None:
    """A leaf 9-14 cm back in the wall, in a casing, with a handle."""
    label = LABEL["door"]
    p, depth = wall.piece, kit.between(0.09, 0.14)
    wall.cut(patch)
    casing = kit.materials.any_of("paint", "wood")
    leaf = kit.materials.add("door")
    _recess(p, patch, depth, casing, label)
    _back(p, patch, -depth, label, leaf)
    x = patch.x0 + 0.06 if kit.chance(0.5) else patch.x1 - 0.18
    p.box((x, -depth, 0.95), (x + 0.12, -depth + 0.09, 1.05), label, casing, skip=("back",))
    for x0, x1 in ((patch.x0 - 0.08, patch.x0), (patch.x1, patch.x1 + 0.08)):
        p.box((x0, 0, 0), (x1, 0.03, patch.z1 + 0.08), label, casing, skip=("back",))
    p.box((patch.x0, 0, patch.z1), (patch.x1, 0.03, patch.z1 + 0.08), label, casing, skip=("back",))


def window(kit: Kit, wall: Wall, patch: Patch) -> None:
    """A pane 12-24 cm back in the wall, with bars and a sill that stands out."""
    label = LABEL["window"]
    p, depth = wall.piece, kit.between(0.12, 0.24)
    wall.cut(patch)
    frame = kit.materials.add("paint", light=kit.between(0.2, 0.8))
    _recess(p, patch, depth, frame, label)
    _back(p, patch, -depth, label, kit.materials.add("outside"))
    width = 0.06
    for x in np.linspace(patch.x0, patch.x1 - width, 2 if patch.x1 - patch.x0 < 0.9 else 3):
        p.box((x, -depth, patch.z0), (x + width, -depth + 0.05, patch.z1), label, frame)
    sill = (patch.x0 - 0.05, 0, patch.z0 - 0.05), (patch.x1 + 0.05, 0.1, patch.z0)
    p.box(*sill, label, frame, skip=("back",))


def picture(kit: Kit, wall: Wall, patch: Patch) -> None:
    """A canvas with a lip: the frame stands 9-12 cm out of the wall, the canvas half of it."""
    label = LABEL["picture"]
    p, out, lip = wall.piece, kit.between(0.09, 0.12), 0.06
    wall.taken.append(patch)
    frame = kit.materials.any_of("wood", "paint")
    inner = Patch(patch.x0 + lip, patch.x1 - lip, patch.z0 + lip, patch.z1 - lip)
    _back(p, inner, out / 2, label, kit.materials.add("painting"))
    for x0, x1, z0, z1 in (
        (patch.x0, inner.x0, patch.z0, patch.z1),
        (inner.x1, patch.x1, patch.z0, patch.z1),
        (inner.x0, inner.x1, patch.z0, inner.z0),
        (inner.x0, inner.x1, inner.z1, patch.z1),
    ):
        p.box((x0, 0, z0), (x1, out, z1), label, frame, skip=("back",))


def curtain(
    kit: Kit, length: Number, height: Number, kind: Literal["curtain", "shower curtain"]
) -> Piece:
    """Cloth in folds 9-13 cm deep; x along it, z = 0 its lower hem."""
    p, label = Piece(), LABEL[kind]
    cloth = kit.materials.add("drape")
    period, fold = kit.between(0.26, 0.42), kit.between(0.09, 0.13)
    count = max(2, round(2 * length / period))
    x = np.linspace(0, length, count + 1)
    y = np.where(np.arange(count + 1) % 2, fold, 0) + kit.rng.uniform(-0.015, 0.015, count + 1)
    for i in range(count):
        u = (x[i + 1] - x[i], y[i + 1] - y[i], 0)
        p.rect((x[i], y[i], 0), u, (0, 0, height), label, cloth, both=True)
    return p


def niche(kit: Kit, wall: Wall, patch: Patch, material: int) -> None:
    """A recess that is only wall."""
    wall.cut(patch)
    depth = kit.between(0.09, 0.2)
    _recess(wall.piece, patch, depth, material, LABEL["wall"])
    _back(wall.piece, patch, -depth, LABEL["wall"], material)


def pilaster(kit: Kit, wall: Wall, patch: Patch, material: int) -> None:
    """A part of the wall that stands out."""
    wall.taken.append(patch)
    high = (patch.x1, kit.between(0.08, 0.14), patch.z1)
    wall.piece.box((patch.x0, 0, patch.z0), high, LABEL["wall"], material, skip=("back",))


def board(kit: Kit, wall: Wall, patch: Patch) -> None:
    """A whiteboard, mirror or television, which the benchmark does not score."""
    wall.taken.append(patch)
    name = str(kit.rng.choice(["whiteboard", "mirror", "television"]))
    kinds = {"whiteboard": "paint", "mirror": "mirror", "television": "screen"}
    skin = kit.materials.add(kinds[name], light=0.8 if name == "whiteboard" else 0.0)
    high = (patch.x1, kit.between(0.04, 0.1), patch.z1)
    low = (patch.x0, 0, patch.z0)
    wall.piece.box(low, high, LABEL[name], skin, faces={"front": skin}, skip=("back",))
