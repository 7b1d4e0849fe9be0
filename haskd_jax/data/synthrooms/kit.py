"""What every builder of furniture needs: a generator, a style, textures, label ids."""

from dataclasses import dataclass

import numpy as np

from haskd_jax.data.scannet_labels import NYU40
from haskd_jax.data.synthrooms.quads import Piece
from haskd_jax.data.synthrooms.style import Number, Style
from haskd_jax.data.synthrooms.textures import Materials

# nyu40 ids that the benchmark does not score: what lies about in a room.
CLUTTER = {
    "pillow": 18,
    "mirror": 19,
    "ceiling": 22,
    "books": 23,
    "television": 25,
    "box": 29,
    "whiteboard": 30,
    "lamp": 35,
    "bag": 37,
    "otherprop": 40,
}
LABEL = NYU40 | CLUTTER


@dataclass(frozen=True)
class Kit:
    """What a builder draws from.

    Attributes:
        rng: The room's generator.
        style: The room's style.
        materials: The room's textures.
    """

    rng: np.random.Generator
    style: Style
    materials: Materials

    def size(self, low: Number, high: Number) -> float:
        """A length of furniture in the style, metres."""
        return self.rng.uniform(low, high) * self.rng.uniform(*self.style.scale)

    def between(self, low: Number, high: Number) -> float:
        """A uniform draw that the style does not change."""
        return self.rng.uniform(low, high)

    def chance(self, share: Number) -> bool:
        """True in this share of the draws."""
        return bool(self.rng.random() < share)

    def leg(self) -> float:
        """The thickness of a leg, metres."""
        return self.rng.uniform(*self.style.leg)


@dataclass(frozen=True)
class Item:
    """A piece of furniture; its back is at y = 0, its foot at z = 0.

    Attributes:
        piece: Its surfaces, within x 0 ... width and y 0 ... depth.
        width: Along the wall, metres.
        depth: Out of the wall, metres.
        height: Metres.
        top: Height at which things may lie on it, or None.
    """

    piece: Piece
    width: Number
    depth: Number
    height: Number
    top: Number | None = None


def legs(
    piece: Piece,
    width: Number,
    depth: Number,
    height: Number,
    leg: Number,
    label: int,
    material: int,
) -> None:
    """Adds four legs under the corners of a rectangle that starts at (0, 0)."""
    for x in (0.0, width - leg):
        for y in (0.0, depth - leg):
            piece.box(
                (x, y, 0), (x + leg, y + leg, height), label, material, skip=("top", "bottom")
            )
