"""Kitchens, bathrooms, and what lies about."""

from haskd_jax.data.synthrooms.furniture import fronts
from haskd_jax.data.synthrooms.kit import LABEL, Item, Kit
from haskd_jax.data.synthrooms.quads import Piece
from haskd_jax.data.synthrooms.style import Number


def counter(kit: Kit) -> Item:
    """A worktop that overhangs cabinets, with a sink in it more often than not."""
    p = Piece()
    w, d, h = kit.size(1.4, 2.8), kit.between(0.66, 0.74), kit.between(0.86, 0.95)
    body, door = kit.materials.any_of("wood", "paint"), kit.materials.add("cabinet")
    base = h - 0.06
    fronts(p, w, d - 0.1, base, LABEL["cabinet"], body, door, columns=round(w / 0.6))
    stone = kit.materials.any_of("stone", "stone", "wood")
    label = LABEL["counter"]
    if not kit.chance(0.7):
        p.box((0, 0, base), (w, d, h), label, stone)
        _splashback(p, w, h, label, stone)
        return Item(p, w, d, h, top=h)
    bw, bd = kit.between(0.45, 0.6), 0.42
    x, y = kit.between(0.15, w - bw - 0.15), 0.12
    for low, high in (
        ((0, 0, base), (x, d, h)),
        ((x + bw, 0, base), (w, d, h)),
        ((x, 0, base), (x + bw, y, h)),
        ((x, y + bd, base), (x + bw, d, h)),
    ):
        p.box(low, high, label, stone)
    _splashback(p, w, h, label, stone)
    basin(p, (x, y), (x + bw, y + bd), h, 0.16, LABEL["sink"], kit.materials.add("ceramic"))
    tap = kit.materials.add("fridge")
    p.box((x + bw / 2 - 0.04, 0.03, h), (x + bw / 2 + 0.04, 0.11, h + 0.25), LABEL["sink"], tap)
    p.box((x + bw / 2 - 0.03, 0.1, h + 0.2), (x + bw / 2 + 0.03, 0.3, h + 0.25), LABEL["sink"], tap)
    return Item(p, w, d, h)


def _splashback(p: Piece, w: Number, h: Number, label: int, stone: int) -> None:
    p.box((0, 0, h), (w, 0.03, h + 0.12), label, stone, skip=("back", "bottom"))


def basin(
    p: Piece,
    low: tuple[Number, Number],
    high: tuple[Number, Number],
    rim: Number,
    depth: Number,
    label: int,
    material: int,
) -> None:
    """Adds the inside of an open box: four walls that face inwards, and a floor."""
    (x0, y0), (x1, y1), z = low, high, rim - depth
    w, d = x1 - x0, y1 - y0
    p.rect((x0, y0, z), (w, 0, 0), (0, d, 0), label, material)
    p.rect((x1, y0, z), (-w, 0, 0), (0, 0, depth), label, material)
    p.rect((x0, y1, z), (w, 0, 0), (0, 0, depth), label, material)
    p.rect((x0, y0, z), (0, d, 0), (0, 0, depth), label, material)
    p.rect((x1, y1, z), (0, -d, 0), (0, 0, depth), label, material)


def _tub(
    p: Piece,
    w: Number,
    d: Number,
    base: Number,
    h: Number,
    rim: Number,
    deep: Number,
    label: int,
    skin: int,
) -> None:
    """A box with a basin in it."""
    p.box((0, 0, base), (w, d, h), label, skin, skip=("top",))
    for x0, x1, y0, y1 in (
        (0, w, 0, rim),
        (0, w, d - rim, d),
        (0, rim, rim, d - rim),
        (w - rim, w, rim, d - rim),
    ):
        p.rect((x0, y0, h), (x1 - x0, 0, 0), (0, y1 - y0, 0), label, skin)
    basin(p, (rim, rim), (w - rim, d - rim), h, deep, label, skin)


def washbasin(kit: Kit) -> Item:
    """A sink on a column."""
    p, label = Piece(), LABEL["sink"]
    skin = kit.materials.add("ceramic", light=kit.between(0.2, 0.9))
    w, d, h = kit.size(0.5, 0.65), kit.size(0.42, 0.5), kit.between(0.78, 0.88)
    _tub(p, w, d, h - 0.2, h, 0.08, 0.14, label, skin)
    p.box((w / 2 - 0.09, 0.05, 0), (w / 2 + 0.09, 0.25, h - 0.2), label, skin)
    p.box(
        (w / 2 - 0.03, 0.02, h), (w / 2 + 0.03, 0.16, h + 0.12), label, kit.materials.add("fridge")
    )
    return Item(p, w, d, h)


def bathtub(kit: Kit) -> Item:
    """A bathtub along a wall."""
    p = Piece()
    w, d, h = kit.size(1.5, 1.75), kit.between(0.7, 0.8), kit.between(0.48, 0.6)
    skin = kit.materials.add("ceramic", light=kit.between(0.2, 0.9))
    _tub(p, w, d, 0, h, 0.09, h - 0.12, LABEL["bathtub"], skin)
    return Item(p, w, d, h)


def toilet(kit: Kit) -> Item:
    """A cistern, a bowl and a lid."""
    p, label = Piece(), LABEL["toilet"]
    skin = kit.materials.add("ceramic", light=kit.between(0.2, 0.9))
    w, h = kit.between(0.38, 0.46), kit.between(0.39, 0.45)
    p.box((0, 0, h - 0.05), (w, 0.18, h + 0.38), label, skin)
    p.cylinder((w / 2, 0.42, 0.2), w / 2 - 0.01, h - 0.2, label, skin, sides=10)
    p.cylinder((w / 2, 0.4, 0), w / 3.4, 0.2, label, skin, sides=8)
    p.box((w / 4, 0.1, 0), (w * 3 / 4, 0.4, h), label, skin)
    if kit.chance(0.4):
        p.box((0.03, 0.2, h), (w - 0.03, 0.24, h + 0.4), label, skin)
    return Item(p, w, 0.62, h + 0.38)


def wall_cabinet(kit: Kit, width: Number) -> Piece:
    """Cabinets to hang on a wall, `width` metres long; z = 0 is their lower edge."""
    p = Piece()
    body, door = kit.materials.any_of("wood", "paint"), kit.materials.add("cabinet")
    height, depth = kit.between(0.55, 0.7), kit.between(0.32, 0.38)
    columns = max(1, round(width / 0.55))
    fronts(p, width, depth, height, LABEL["cabinet"], body, door, columns=columns, plinth=0.0)
    return p


def clutter(kit: Kit, *, small: bool) -> Item:
    """Boxes, bags, lamps and other things; small ones to lie on furniture."""
    p = Piece()
    size = kit.between(0.1, 0.25) if small else kit.between(0.25, 0.55)
    name = str(kit.rng.choice(["box", "bag", "books", "otherprop", "lamp"]))
    label, skin = LABEL[name], kit.materials.any_of("paint", "fabric", "wood", "books")
    w, d, h = size, size * kit.between(0.5, 1), size * kit.between(0.4, 1.3)
    if name == "lamp":
        h = 0.45 if small else kit.between(1.3, 1.6)
        r = 0.1 if small else 0.17
        p.cylinder((r, r, 0), r * 0.8, 0.03, label, skin, sides=6)
        p.cylinder((r, r, 0), 0.02, h, label, skin, sides=4)
        p.cylinder((r, r, h - 1.2 * r), r, 1.2 * r, label, kit.materials.add("paint", light=0.7))
        return Item(p, 2 * r, 2 * r, h)
    if name == "otherprop":
        p.cylinder((w / 2, w / 2, 0), w / 2, h, label, skin, sides=7)
        return Item(p, w, w, h)
    p.box((0, 0, 0), (w, d, h), label, skin, skip=("bottom",))
    return Item(p, w, d, h)
