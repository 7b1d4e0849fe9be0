"""Furniture for sitting, lying, working and storing.

Pieces that shape hardly tells apart keep one cue of 8 cm or more in the points: a desk its drawers
or side panels, a cabinet its plinth and the gap between doors that stand side by side, a
refrigerator doors above each other and bars for handles, a wardrobe legs and a cornice.
"""

from haskd_jax.data.synthrooms.kit import LABEL, Item, Kit, legs
from haskd_jax.data.synthrooms.quads import Piece
from haskd_jax.data.synthrooms.style import Number

_SLAB = 0.05  # thickness of table tops, metres


def chair(kit: Kit) -> Item:
    """A chair on four legs, on a column, or an armchair."""
    label, p = LABEL["chair"], Piece()
    w, d, seat = kit.size(0.42, 0.52), kit.size(0.42, 0.52), kit.size(0.42, 0.48)
    cloth = kit.materials.any_of("fabric", "wood", "carpet")
    frame = kit.materials.any_of("wood", "paint")
    back = seat + kit.size(0.38, 0.55)
    if kit.chance(0.15):
        w, d = 1.5 * w, 1.55 * d
        _upholstered(p, w, d, seat, back, 0.14, label, cloth)
        return Item(p, w, d, back)
    if kit.chance(0.35):
        mid = (w / 2, d / 2)
        p.cylinder((*mid, 0.1), 0.04, seat - 0.15, label, frame, sides=5)
        p.box((0.02, mid[1] - 0.04, 0.02), (w - 0.02, mid[1] + 0.04, 0.1), label, frame)
        p.box((mid[0] - 0.04, 0.02, 0.02), (mid[0] + 0.04, d - 0.02, 0.1), label, frame)
        p.box((w * 0.4, 0, seat), (w * 0.6, 0.04, seat + 0.2), label, frame)
        p.box((0, 0, seat + 0.15), (w, 0.06, back), label, cloth)
    else:
        leg = kit.leg() * 0.7
        legs(p, w, d, seat - _SLAB, leg, label, frame)
        p.box((0, 0, seat), (leg, leg, back), label, frame)
        p.box((w - leg, 0, seat), (w, leg, back), label, frame)
        low = seat + kit.between(0.02, 0.25)
        p.box((leg, 0, low), (w - leg, 0.04, back), label, cloth)
    p.box((0, 0, seat - _SLAB), (w, d, seat), label, cloth)
    return Item(p, w, d, back)


def sofa(kit: Kit) -> Item:
    """A sofa for two or three."""
    p = Piece()
    w, d, seat = kit.size(1.4, 2.2), kit.size(0.8, 0.95), kit.size(0.38, 0.46)
    back = seat + kit.size(0.32, 0.45)
    _upholstered(p, w, d, seat, back, kit.size(0.15, 0.25), LABEL["sofa"], _cloth(kit))
    if kit.chance(0.6):
        side = kit.between(0.35, 0.42)
        x = kit.between(0.25, w - 0.3 - side)
        cushion = kit.materials.add("fabric")
        p.box((x, 0.25, seat), (x + side, 0.4, seat + side * 0.8), LABEL["pillow"], cushion)
    return Item(p, w, d, back)


def _cloth(kit: Kit) -> int:
    return kit.materials.any_of("fabric", "carpet", "paint")


def _upholstered(
    p: Piece, w: Number, d: Number, seat: Number, back: Number, arm: Number, label: int, cloth: int
) -> None:
    p.box((arm, 0.2, 0.05), (w - arm, d, seat), label, cloth, skip=("back", "left", "right"))
    p.box((0, 0, 0.05), (w, 0.22, back), label, cloth)
    for x in (0.0, w - arm):
        p.box((x, 0.2, 0.05), (x + arm, d, seat + 0.18), label, cloth, skip=("back",))


def bed(kit: Kit) -> Item:
    """A bed with its head at the wall, and pillows."""
    label, p = LABEL["bed"], Piece()
    w, d, h = kit.size(0.95, 1.8), kit.size(1.95, 2.1), kit.size(0.42, 0.58)
    wood = kit.materials.any_of("wood", "paint", "fabric")
    quilt = kit.materials.any_of("bedding", "fabric")
    linen = kit.materials.add("paint", light=0.7)
    p.box((0, 0, 0), (w, 0.08, h + kit.between(0.25, 0.6)), label, wood)
    p.box((0, 0.08, 0.1), (w, d, h - 0.18), label, wood, skip=("back",))
    p.box((0.02, 0.08, h - 0.18), (w - 0.02, 0.7, h), label, linen, skip=("back", "bottom"))
    p.box((0, 0.65, h - 0.2), (w, d, h + 0.02), label, quilt, skip=("bottom",))
    count = 1 if w < 1.3 else 2
    for i in range(count):
        x = (i + 0.5) * w / count - 0.28
        p.box((x, 0.14, h), (x + 0.56, 0.5, h + 0.12), LABEL["pillow"], linen, skip=("bottom",))
    return Item(p, w, d, h + 0.3)


def table(kit: Kit, *, low: bool = False) -> Item:
    """A table on legs, to stand free; a low one for a sofa."""
    label, p = LABEL["table"], Piece()
    h = kit.size(0.38, 0.48) if low else kit.size(0.7, 0.77)
    frame = kit.materials.any_of("wood", "paint")
    top = kit.materials.add("table")
    if kit.chance(kit.style.round_tables):
        r = kit.size(0.35, 0.45) if low else kit.size(0.45, 0.65)
        p.cylinder((r, r, h - _SLAB), r, _SLAB, label, frame, sides=12)
        p.disc((r, r, h + 1e-3), r, label, top, stretch=True)
        p.disc((r, r, h - _SLAB), r, label, frame)
        p.cylinder((r, r, 0), kit.leg(), h - _SLAB, label, frame, sides=6)
        p.cylinder((r, r, 0), r * 0.5, 0.06, label, frame, sides=8)
        return Item(p, 2 * r, 2 * r, h, top=h)
    w, d = (kit.size(0.8, 1.2), kit.size(0.5, 0.65)) if low else (0.0, kit.size(0.75, 0.95))
    w = w or kit.size(1.0, 1.8)
    legs(p, w, d, h - _SLAB, kit.leg(), label, frame)
    p.box((0, 0, h - _SLAB), (w, d, h), label, frame, faces={"top": top})
    return Item(p, w, d, h, top=h)


def desk(kit: Kit) -> Item:
    """A desk at a wall, on drawers or side panels; often with a screen."""
    label, p = LABEL["desk"], Piece()
    w, d, h = kit.size(1.1, 1.7), kit.size(0.6, 0.8), kit.size(0.7, 0.77)
    frame = kit.materials.any_of("wood", "paint")
    side = kit.materials.add("cabinet")
    p.box((0, 0, h - _SLAB), (w, d, h), label, frame, faces={"top": kit.materials.add("desk")})
    p.box((0.05, 0.1, 0.3), (w - 0.05, 0.14, h - _SLAB), label, frame, skip=("top",))
    if kit.chance(kit.style.panel_desks):
        for x in (0.0, w - 0.08):
            p.box((x, 0.02, 0), (x + 0.08, d - 0.02, h - _SLAB), label, frame, skip=("top",))
    else:
        box = kit.between(0.38, 0.48)
        left = kit.chance(0.5)
        x = 0.0 if left else w - box
        p.box((x, 0.02, 0.0), (x + box, d - 0.03, h - _SLAB), label, frame, faces={"front": side})
        leg = kit.leg()
        x = w - leg if left else 0.0
        for y in (0.02, d - leg):
            p.box((x, y, 0), (x + leg, y + leg, h - _SLAB), label, frame, skip=("top", "bottom"))
    if kit.chance(0.65):
        sw = kit.between(0.4, 0.65)
        x = kit.between(0.1, w - sw - 0.1)
        screen = kit.materials.add("screen")
        tv = LABEL["television"]
        p.box((x + sw / 2 - 0.06, 0.15, h), (x + sw / 2 + 0.06, 0.2, h + 0.1), tv, screen)
        p.box((x, 0.2, h + 0.1), (x + sw, 0.25, h + 0.45), tv, screen, faces={"front": screen})
    return Item(p, w, d, max(h, 0.75), top=h)


def cabinet(kit: Kit, *, tall: bool = False) -> Item:
    """A chest, or a cupboard of a refrigerator's size: plinth, doors side by side."""
    label, p = LABEL["cabinet"], Piece()
    w = kit.size(0.62, 0.85) if tall else kit.size(0.8, 1.6)
    d = kit.size(0.55, 0.68) if tall else kit.size(0.4, 0.55)
    h = kit.size(1.5, 1.95) if tall else kit.size(0.6, 1.1)
    body = kit.materials.any_of("wood", "paint")
    door = kit.materials.add("cabinet")
    fronts(p, w, d, h, label, body, door, columns=2 if w < 1.1 else 3)
    return Item(p, w, d, h, top=None if tall else h)


def fronts(
    p: Piece,
    w: Number,
    d: Number,
    h: Number,
    label: int,
    body: int,
    door: int,
    *,
    columns: int,
    base: Number = 0.0,
    plinth: Number = 0.1,
) -> None:
    """Adds a box with a recessed plinth and doors side by side, 8 cm apart and proud."""
    if plinth:
        p.box((0.02, 0, base), (w - 0.02, d - 0.2, base + plinth), label, body, skip=("top",))
    low = base + plinth
    p.box((0, 0, low), (w, d - 0.09, base + h), label, body)
    gap = 0.08
    width = (w - gap * (columns - 1)) / columns
    for i in range(columns):
        x = i * (width + gap)
        front = (x, d - 0.09, low + 0.02), (x + width, d, base + h - 0.02)
        p.box(*front, label, body, faces={"front": door}, skip=("back",))


def refrigerator(kit: Kit) -> Item:
    """A refrigerator: two doors above each other, handles that are bars."""
    label, p = LABEL["refrigerator"], Piece()
    w, d, h = kit.size(0.62, 0.85), kit.size(0.62, 0.75), kit.size(1.5, 1.9)
    skin = kit.materials.add("paint", light=kit.between(0.0, 0.6))
    split = h * (kit.between(0.3, 0.4) if kit.chance(0.4) else kit.between(0.62, 0.72))
    p.box((0, 0.03, 0.02), (w, d - 0.1, h), label, skin)
    side = kit.chance(0.5)
    for low, high in ((0.04, split - 0.04), (split + 0.04, h)):
        door = kit.materials.add("fridge", light=0.4)
        p.box((0, d - 0.1, low), (w, d, high), label, skin, faces={"front": door}, skip=("back",))
        x = 0.05 if side else w - 0.13
        reach = (high - low) * 0.6
        start = low + 0.05 if low > 0.1 else high - 0.05 - reach
        p.box((x, d, start), (x + 0.08, d + 0.09, start + reach), label, skin, skip=("back",))
    return Item(p, w, d + 0.09, h)


def bookshelf(kit: Kit) -> Item:
    """Open shelves, mostly filled."""
    label, p = LABEL["bookshelf"], Piece()
    w, d, h = kit.size(0.7, 1.3), kit.size(0.28, 0.38), kit.size(1.2, 2.05)
    wood = kit.materials.any_of("wood", "paint")
    p.box((0, 0, 0), (w, 0.03, h), label, wood, skip=("back",))
    for x in (0.0, w - 0.04):
        p.box((x, 0, 0), (x + 0.04, d, h), label, wood)
    rows = int(h / kit.between(0.3, 0.42))
    pitch = (h - 0.04) / rows
    for i in range(rows + 1):
        z = i * pitch
        p.box((0.04, 0.03, z), (w - 0.04, d, z + 0.04), label, wood, skip=("left", "right", "back"))
        if i < rows and kit.chance(0.8):
            end = 0.04 + (w - 0.08) * kit.between(0.4, 1)
            books = kit.materials.add("books")
            p.box(
                (0.04, 0.03, z + 0.04),
                (end, d * kit.between(0.55, 0.85), z + pitch * kit.between(0.6, 0.9)),
                label,
                books,
                faces={"front": books},
                skip=("back", "left", "bottom"),
            )
    return Item(p, w, d, h)


def other(kit: Kit) -> Item:
    """What ScanNet calls otherfurniture: wardrobe, ottoman, bin, stand, coat rack."""
    label, p = LABEL["otherfurniture"], Piece()
    kind = kit.rng.integers(5)
    skin = kit.materials.any_of("wood", "paint", "fabric")
    if kind == 0:  # legs and a cornice, where a cabinet has a plinth
        w, d, h = kit.size(0.9, 1.4), kit.size(0.5, 0.62), kit.size(1.75, 2.05)
        legs(p, w, d, 0.14, kit.leg(), label, skin)
        wood = kit.materials.add("planks")
        p.box((0, 0, 0.14), (w, d - 0.08, h), label, skin, faces={"front": wood})
        p.box((-0.08, 0, h), (w + 0.08, d + 0.02, h + 0.1), label, skin)
        return Item(p, w, d, h + 0.1)
    if kind == 1:
        w, h = kit.size(0.4, 0.75), kit.size(0.35, 0.45)
        p.box((0, 0, 0.04), (w, w, h), label, skin)
        return Item(p, w, w, h)
    if kind == 2:
        r, h = kit.size(0.13, 0.2), kit.size(0.3, 0.6)
        p.cylinder((r, r, 0), r, h, label, skin)
        return Item(p, 2 * r, 2 * r, h)
    if kind == 3:
        w, d, h = kit.size(0.4, 0.55), kit.size(0.35, 0.45), kit.size(0.45, 0.6)
        legs(p, w, d, h, kit.leg() * 0.7, label, skin)
        p.box((0, 0, h - 0.18), (w, d, h), label, skin)
        p.box((0.03, 0.03, 0.12), (w - 0.03, d - 0.03, 0.16), label, skin)
        return Item(p, w, d, h, top=h)
    h = kit.size(1.5, 1.85)
    p.cylinder((0.25, 0.25, 0), 0.2, 0.05, label, skin)
    p.cylinder((0.25, 0.25, 0), 0.04, h, label, skin, sides=5)
    for i in range(3):
        z = h - 0.12 * i - 0.05
        p.box((0.02, 0.22, z), (0.48, 0.28, z + 0.05), label, skin)
        p.box((0.22, 0.02, z - 0.06), (0.28, 0.48, z - 0.01), label, skin)
    return Item(p, 0.5, 0.5, h)
