"""Rooms: what kind, how large, what stands where."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from haskd_jax.data.synthrooms import fixtures, furniture, walls
from haskd_jax.data.synthrooms.kit import LABEL, Kit
from haskd_jax.data.synthrooms.plan import Box, Plan, footprint, place
from haskd_jax.data.synthrooms.quads import Quads, Vector
from haskd_jax.data.synthrooms.style import Style
from haskd_jax.data.synthrooms.textures import Materials
from haskd_jax.data.synthrooms.walls import Patch, Wall

Array = np.ndarray
# Rooms as ScanNet has them: mostly where people live and work, few kitchens and bathrooms.
_ROOMS = {"bedroom": 0.25, "living": 0.25, "office": 0.24, "kitchen": 0.16, "bathroom": 0.1}
_SIZES = {  # of the two sides, metres
    "bedroom": (2.9, 4.2),
    "living": (3.5, 5.4),
    "office": (3.1, 5.4),
    "kitchen": (2.7, 4.1),
    "bathroom": (1.9, 2.8),
}


@dataclass(frozen=True)
class Room:
    """A furnished room; its corner is the origin, z up.

    Attributes:
        kind: "bedroom", "living", "office", "kitchen" or "bathroom".
        size: Its three sides, metres.
        quads: Its surfaces.
        atlas: [M, 64, 64, 3] float32, its textures.
        dropout: [M] float32, how likely depth is missing on a texture.
        glow: [M] float32, the share of a texture's brightness that needs no light.
        tall: What a person cannot stand in or look over: x0, x1, y0, y1 each.
        sights: [S, 3] places worth a look.
    """

    kind: str
    size: Vector
    quads: Quads
    atlas: Array
    dropout: Array
    glow: Array
    tall: tuple[Box, ...]
    sights: Array


def furnish(rng: np.random.Generator, style: Style) -> Room:
    """Builds a room.

    Args:
        rng: All randomness.
        style: Furniture and palettes.

    Returns:
        The room.

    Example:
        >>> from haskd_jax.data.synthrooms.style import STYLES
        >>> room = furnish(np.random.default_rng(0), STYLES["a"])
        >>> len(room.quads.label) > 100
        True
    """
    kit = Kit(rng, style, Materials(rng, style))
    kind = str(rng.choice(list(_ROOMS), p=list(_ROOMS.values())))
    low, high = _SIZES[kind]
    width, depth, height = kit.between(low, high), kit.between(low, high), kit.between(2.35, 2.8)
    plan = Plan(
        kit,
        width,
        depth,
        [
            Wall(width, height, (0, 0, 0), 0),
            Wall(depth, height, (width, 0, 0), np.pi / 2),
            Wall(width, height, (width, depth, 0), np.pi),
            Wall(depth, height, (0, depth, 0), -np.pi / 2),
        ],
    )
    plaster = kit.materials.any_of("paint", "wallpaper", light=kit.between(0.3, 0.8))
    if kind in ("kitchen", "bathroom") and kit.chance(0.5):
        plaster = kit.materials.add("tiles", light=0.5)
    accent = kit.materials.any_of("paint", "wallpaper") if kit.chance(0.35) else plaster
    _openings(plan, kind)
    _RECIPES[kind](plan)
    _decorate(plan, kind, plaster)

    wet = kind in ("kitchen", "bathroom")
    ground = kit.materials.any_of(*(("tiles", "stone") if wet else ("planks", "planks", "carpet")))
    room = plan.piece
    for i, wall in enumerate(plan.walls):
        room.add(wall.surfaces(accent if i == 0 else plaster), wall.origin, wall.yaw)
    room.rect((0, 0, 0), (width, 0, 0), (0, depth, 0), LABEL["floor"], ground)
    if not wet and kit.chance(0.4):
        w, d = width * kit.between(0.3, 0.6), depth * kit.between(0.3, 0.6)
        x, y = kit.between(0.2, width - w - 0.2), kit.between(0.2, depth - d - 0.2)
        rug = kit.materials.any_of("carpet", "fabric", "bedding")
        room.rect((x, y, 0.012), (w, 0, 0), (0, d, 0), LABEL["floor"], rug)
    ceiling = kit.materials.add("paint", light=0.85)
    room.rect((0, 0, height), (0, depth, 0), (width, 0, 0), LABEL["ceiling"], ceiling)
    return Room(
        kind=kind,
        size=(width, depth, height),
        quads=room.quads(),
        atlas=kit.materials.atlas(),
        dropout=np.array(kit.materials.dropout, np.float32),
        glow=np.array(kit.materials.glow, np.float32),
        tall=tuple(plan.tall),
        sights=np.array(plan.sights),
    )


def _openings(plan: Plan, kind: str) -> None:
    kit = plan.kit
    for _ in range(2 if kit.chance(0.15) else 1):
        size = (kit.between(0.78, 0.98), kit.between(1.95, 2.1))
        placed = plan.on_wall(lambda w, p: walls.door(kit, w, p), size, 0.0)
        if placed:  # nothing stands before a door
            wall, patch = placed
            plan.taken.append(footprint(wall, patch.x0, 0, patch.x1 - patch.x0, 0.75))
    for _ in range(kit.rng.integers(0, 2) if kind == "bathroom" else kit.rng.integers(1, 3)):
        size = (kit.between(0.7, 1.7), kit.between(0.9, 1.3))
        placed = plan.on_wall(lambda w, p: walls.window(kit, w, p), size, kit.between(0.8, 1.0))
        if placed and kind != "bathroom" and kit.chance(0.7):
            _drape(plan, *placed)
    if kind in ("living", "bedroom") and kit.chance(0.3):  # a curtain before plain wall
        size = (kit.between(0.9, 1.6), plan.walls[0].height - 0.25)

        def hang(wall: Wall, patch: Patch) -> None:
            cloth = walls.curtain(kit, patch.x1 - patch.x0, patch.z1 - 0.08, "curtain")
            wall.piece.add(cloth, (patch.x0, 0.04, 0.08))
            wall.taken.append(patch)

        plan.on_wall(hang, size, 0.0)


def _drape(plan: Plan, wall: Wall, patch: Patch) -> None:
    """Curtains on both sides of a window, partly before it."""
    kit = plan.kit
    top, low = patch.z1 + kit.between(0.08, 0.2), kit.between(0.05, patch.z0 - 0.15)
    for side in (0, 1):
        if kit.chance(0.15):
            continue
        length = kit.between(0.35, 0.6)
        cover = kit.between(0.05, 0.25)
        x0 = patch.x0 - length + cover if side == 0 else patch.x1 - cover
        if x0 < 0.05 or x0 + length > wall.length - 0.05:
            continue
        cloth = walls.curtain(kit, length, top - low, "curtain")
        wall.piece.add(cloth, (x0, 0.11, low))
        wall.taken.append(Patch(x0, x0 + length, low, top))


def _bedroom(plan: Plan) -> None:
    kit = plan.kit
    plan.against_wall(furniture.bed(kit))
    for build, share in (
        (furniture.other, 0.9),
        (lambda k: furniture.cabinet(k, tall=k.chance(0.4)), 0.9),
        (furniture.bookshelf, 0.45),
        (furniture.other, 0.8),
        (furniture.cabinet, 0.4),
    ):
        if kit.chance(share):
            plan.against_wall(build(kit))
    if kit.chance(0.5):
        _desk_with_chair(plan)
    for _ in range(kit.rng.integers(0, 3)):
        plan.free_standing(furniture.chair(kit))


def _living(plan: Plan) -> None:
    kit = plan.kit
    for _ in range(kit.rng.integers(1, 3)):
        sofa = furniture.sofa(kit)
        placed = plan.against_wall(sofa)
        if placed and kit.chance(0.85):
            near = footprint(placed[0], placed[1], 0.3 + sofa.depth, sofa.width, 0.3)
            plan.free_standing(furniture.table(kit, low=True), near, 0.1)
    if kit.chance(0.7):
        _dining(plan)
    for build, share in (
        (furniture.cabinet, 0.8),
        (furniture.bookshelf, 0.6),
        (lambda k: furniture.cabinet(k, tall=True), 0.4),
        (furniture.other, 1.0),
        (furniture.other, 0.7),
        (furniture.bookshelf, 0.3),
        (furniture.refrigerator, 0.15),
    ):
        if kit.chance(share):
            plan.against_wall(build(kit))
    for _ in range(kit.rng.integers(1, 5)):
        plan.free_standing(furniture.chair(kit))


def _office(plan: Plan) -> None:
    kit = plan.kit
    for _ in range(kit.rng.integers(2, 5)):
        _desk_with_chair(plan)
    if kit.chance(0.7):
        _dining(plan)
    for build, share in (
        (furniture.bookshelf, 0.7),
        (furniture.bookshelf, 0.4),
        (lambda k: furniture.cabinet(k, tall=k.chance(0.5)), 0.8),
        (furniture.cabinet, 0.5),
        (furniture.other, 0.9),
        (furniture.sofa, 0.2),
        (furniture.refrigerator, 0.12),
    ):
        if kit.chance(share):
            plan.against_wall(build(kit))
    for _ in range(kit.rng.integers(1, 6)):
        plan.free_standing(furniture.chair(kit))


def _kitchen(plan: Plan) -> None:
    kit = plan.kit
    for _ in range(kit.rng.integers(1, 3)):
        item = fixtures.counter(kit)
        placed = plan.against_wall(item)
        if placed and kit.chance(0.8):
            wall, x = placed
            low = kit.between(1.45, 1.55)
            width = item.width * kit.between(0.4, 0.95)
            patch = Patch(x, x + width, low, low + 0.75)
            if wall.free(patch, 0.02):
                wall.piece.add(fixtures.wall_cabinet(kit, width), (x, 0, low))
                wall.taken.append(patch)
    if kit.chance(0.9):
        plan.against_wall(furniture.refrigerator(kit))
    if kit.chance(0.7):
        plan.against_wall(furniture.cabinet(kit, tall=True))
    if kit.chance(0.7):
        _dining(plan)
    if kit.chance(0.7):
        plan.against_wall(furniture.other(kit))


def _bathroom(plan: Plan) -> None:
    kit = plan.kit
    if kit.chance(0.75):
        tub = fixtures.bathtub(kit)
        placed = plan.against_wall(tub)
        if placed and kit.chance(0.8):
            wall, x = placed
            length = tub.width * kit.between(0.35, 0.8)
            high = kit.between(1.75, 1.95)
            cloth = walls.curtain(kit, length, high - 0.25, "shower curtain")
            start = x + (tub.width - length) * kit.rng.integers(0, 2)
            plan.piece.add(cloth, place(wall, start, tub.depth - 0.05, 0.25), wall.yaw)
    plan.against_wall(fixtures.toilet(kit))
    plan.against_wall(fixtures.washbasin(kit))
    if kit.chance(0.5):
        plan.against_wall(furniture.cabinet(kit, tall=kit.chance(0.4)))
    if kit.chance(0.5):
        plan.against_wall(furniture.other(kit))


def _desk_with_chair(plan: Plan) -> None:
    desk = furniture.desk(plan.kit)
    placed = plan.against_wall(desk)
    if placed and plan.kit.chance(0.85):
        near = footprint(placed[0], placed[1] + 0.2, desk.depth, desk.width - 0.4, 0.2)
        plan.free_standing(furniture.chair(plan.kit), near, 0.15)


def _dining(plan: Plan) -> None:
    box = plan.free_standing(furniture.table(plan.kit))
    if box:
        for _ in range(plan.kit.rng.integers(3, 7)):
            plan.free_standing(furniture.chair(plan.kit), box, 0.12)


_RECIPES: dict[str, Callable[[Plan], None]] = {
    "bedroom": _bedroom,
    "living": _living,
    "office": _office,
    "kitchen": _kitchen,
    "bathroom": _bathroom,
}


def _decorate(plan: Plan, kind: str, plaster: int) -> None:
    """Pictures, what resembles them, and what lies on the floor."""
    kit = plan.kit
    if kit.chance(0.4):
        size, low = (kit.between(0.5, 1.0), kit.between(0.6, 1.2)), kit.between(0.5, 1.0)
        plan.on_wall(lambda w, p: walls.niche(kit, w, p, plaster), size, low)
    if kit.chance(0.4):
        size = (kit.between(0.3, 0.6), plan.walls[0].height)
        plan.on_wall(lambda w, p: walls.pilaster(kit, w, p, plaster), size, 0.0)
    if kit.chance(0.35):
        size, low = (kit.between(0.4, 0.9), kit.between(0.4, 0.7)), kit.between(0.9, 1.4)
        plan.on_wall(lambda w, p: walls.pilaster(kit, w, p, plaster), size, low)
    for _ in range(kit.rng.integers(0, 2) if kind == "bathroom" else kit.rng.integers(1, 5)):
        size, low = (kit.between(0.4, 1.1), kit.between(0.4, 0.85)), kit.between(1.1, 1.5)
        plan.on_wall(lambda w, p: walls.picture(kit, w, p), size, low, 0.08)
    if kit.chance(0.5):
        size = (kit.between(0.6, 1.5), kit.between(0.5, 0.9))
        plan.on_wall(lambda w, p: walls.board(kit, w, p), size, kit.between(0.9, 1.2))
    for _ in range(kit.rng.integers(0, 3) if kind == "bathroom" else kit.rng.integers(2, 8)):
        plan.free_standing(fixtures.clutter(kit, small=False))
