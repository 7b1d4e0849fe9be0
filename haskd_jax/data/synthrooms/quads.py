"""Rooms as textured parallelograms and ellipses, built in a piece's own coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from haskd_jax.data.synthrooms.style import Number

Array = np.ndarray
Vector = tuple[Number, Number, Number]

FACES = ("front", "back", "left", "right", "top", "bottom")


@dataclass(frozen=True)
class Quads:
    """Q flat surfaces `origin + a * edge_u + b * edge_v`, 0 <= a, b <= 1.

    Attributes:
        origin: [Q, 3] float64, metres.
        edge_u: [Q, 3] float64, metres.
        edge_v: [Q, 3] float64, metres; `edge_u x edge_v` points to where it is seen from.
        label: [Q] uint8 nyu40 id, 0 unlabelled.
        instance: [Q] int32, 0 up to the number of things: surfaces that were put down together
            and have one label.
        material: [Q] int32, index of the texture.
        stretch: [Q] bool: the texture covers the surface once, instead of repeating every metre.
        disc: [Q] bool: only the ellipse inside the parallelogram is there.
        both: [Q] bool: seen from behind as well.
    """

    origin: Array
    edge_u: Array
    edge_v: Array
    label: Array
    instance: Array
    material: Array
    stretch: Array
    disc: Array
    both: Array


class Piece:
    """Collects surfaces. x runs along the wall behind a piece, y out of that wall, z up.

    Example:
        >>> piece = Piece()
        >>> piece.box((0, 0, 0), (1, 0.5, 0.75), 14, 0, skip=("bottom",))
        >>> len(piece.quads().label)
        5
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._thing: list[object | None] = []  # what each surface belongs to; None is not known

    def __len__(self) -> int:
        """The number of surfaces."""
        return len(self._rows)

    def rect(
        self,
        origin: Vector,
        u: Vector,
        v: Vector,
        label: int,
        material: int,
        *,
        stretch: bool = False,
        disc: bool = False,
        both: bool = False,
    ) -> None:
        """Adds one surface; see `Quads` for the meaning of the arguments."""
        self._rows.append((origin, u, v, label, material, stretch, disc, both))
        self._thing.append(None)

    def box(
        self,
        low: Vector,
        high: Vector,
        label: int,
        material: int,
        *,
        faces: Mapping[str, int] | None = None,
        skip: tuple[str, ...] = (),
    ) -> None:
        """Adds a box between two corners.

        Args:
            low: Its smallest coordinates.
            high: Its largest coordinates.
            label: nyu40 id.
            material: Texture of the faces that `faces` does not name.
            faces: Textures that cover a face once, by its name in `FACES`.
            skip: Faces nobody can see.
        """
        (x0, y0, z0), (x1, y1, z1) = low, high
        w, d, h = x1 - x0, y1 - y0, z1 - z0
        corners = {
            "front": ((x1, y1, z0), (-w, 0, 0), (0, 0, h)),
            "back": ((x0, y0, z0), (w, 0, 0), (0, 0, h)),
            "left": ((x0, y1, z0), (0, -d, 0), (0, 0, h)),
            "right": ((x1, y0, z0), (0, d, 0), (0, 0, h)),
            "top": ((x0, y0, z1), (w, 0, 0), (0, d, 0)),
            "bottom": ((x0, y0, z0), (0, d, 0), (w, 0, 0)),
        }
        special = faces or {}
        for name, (origin, u, v) in corners.items():
            if name not in skip:
                own = special.get(name)
                self.rect(
                    origin,
                    u,
                    v,
                    label,
                    material if own is None else own,
                    stretch=own is not None,
                )

    def cylinder(
        self,
        centre: Vector,
        radius: Number,
        height: Number,
        label: int,
        material: int,
        *,
        sides: int = 8,
    ) -> None:
        """Adds an upright prism with a round lid; `centre` is that of its foot."""
        x, y, z = centre
        angles = np.arange(sides + 1) * (2 * np.pi / sides)
        ring = [(x + radius * np.cos(t), y + radius * np.sin(t)) for t in angles]
        for (ax, ay), (bx, by) in pairwise(ring):
            self.rect((ax, ay, z), (bx - ax, by - ay, 0), (0, 0, height), label, material)
        self.disc((x, y, z + height), radius, label, material)

    def disc(
        self, centre: Vector, radius: Number, label: int, material: int, *, stretch: bool = False
    ) -> None:
        """Adds a horizontal disc, seen from above and below."""
        x, y, z = centre
        self.rect(
            (x - radius, y - radius, z),
            (2 * radius, 0, 0),
            (0, 2 * radius, 0),
            label,
            material,
            stretch=stretch,
            disc=True,
            both=True,
        )

    def add(self, other: "Piece", at: Vector, yaw: Number = 0.0) -> None:
        """Adds another piece, turned about z by `yaw` (radians) and then moved to `at`.

        What it is made of is one thing, but for the things that were put on it.
        """
        c, s = np.cos(yaw), np.sin(yaw)

        def turn(p: Vector) -> Vector:
            return (c * p[0] - s * p[1], s * p[0] + c * p[1], p[2])

        for origin, u, v, *rest in other._rows:
            x, y, z = turn(origin)
            moved = (x + at[0], y + at[1], z + at[2])
            self._rows.append((moved, turn(u), turn(v), *rest))
        self._thing += other._thing
        self.one_thing(len(self) - len(other))

    def extend(self, other: "Piece") -> None:
        """Adds another piece as it is: what of it belongs to no thing yet still does not."""
        self._rows += other._rows
        self._thing += other._thing

    def one_thing(self, since: int, *, but: int = -1) -> None:
        """Makes the surfaces from number `since` on one thing, but for those of label `but`."""
        thing = object()
        for i in range(since, len(self)):
            if self._thing[i] is None and self._rows[i][3] != but:
                self._thing[i] = thing

    def quads(self) -> Quads:
        """All surfaces as arrays."""
        origin, u, v, label, material, stretch, disc, both = zip(*self._rows, strict=True)
        number: dict[tuple[object, int], int] = {}
        pairs = zip(self._thing, label, strict=True)
        instance = [number.setdefault(pair, len(number)) for pair in pairs]
        return Quads(
            origin=np.array(origin, np.float64),
            edge_u=np.array(u, np.float64),
            edge_v=np.array(v, np.float64),
            label=np.array(label, np.uint8),
            instance=np.array(instance, np.int32),
            material=np.array(material, np.int32),
            stretch=np.array(stretch, bool),
            disc=np.array(disc, bool),
            both=np.array(both, bool),
        )


def turned(vectors: Array, rotation: Array) -> Array:
    """Turns vectors: `vectors @ rotation.T`, whose bits depend on no number of BLAS threads.

    Args:
        vectors: [..., 3].
        rotation: [3, 3].

    Returns:
        [..., 3] in the type of `vectors`.

    Example:
        >>> turned(np.array([1.0, 0, 0]), np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])).tolist()
        [0.0, 1.0, 0.0]
    """
    x, y, z = (vectors[..., i, None] for i in range(3))
    columns = rotation.astype(vectors.dtype).T
    return x * columns[0] + y * columns[1] + z * columns[2]
