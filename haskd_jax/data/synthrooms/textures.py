"""Textures, drawn anew for every room: 64 x 64 texels, row 0 at the bottom of a surface."""

import colorsys
from collections.abc import Callable

import numpy as np

from haskd_jax.data.synthrooms.style import Number, Range, Style

Array = np.ndarray
Rng = np.random.Generator

SIZE = 64
_COLUMN, _ROW = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
_FREQUENCY = np.fft.fftfreq(SIZE) * SIZE
# How likely a depth sensor sees nothing: glass, screens, polished metal.
_DROPOUT = {"outside": 0.6, "screen": 0.5, "fridge": 0.12, "mirror": 0.6, "ceramic": 0.08}
_GLOW = {"outside": 0.75, "screen": 0.3}


class Materials:
    """The textures of one room.

    Attributes:
        dropout: How likely depth is missing, one a texture.
        glow: The share of its brightness that needs no light, one a texture.
    """

    def __init__(self, rng: Rng, style: Style):
        self._rng, self._style = rng, style
        self._textures: list[Array] = []
        self.dropout: list[float] = []
        self.glow: list[float] = []

    def colour(self, light: Number = 0.0) -> Array:
        """Draws a colour of the style: [3] in 0 ... 1, brighter the larger `light` is."""
        value = self._rng.uniform(*self._style.value)
        hue = self._rng.random()
        rgb = colorsys.hsv_to_rgb(
            hue, self._rng.uniform(*self._style.saturation) * (1 - light), value
        )
        return np.array(rgb) * (1 - light) + light * np.array([0.95, 0.94, 0.9])

    def add(self, kind: str, *, light: Number = 0.0) -> int:
        """Draws a texture and returns its index.

        Args:
            kind: One of `KINDS`.
            light: 0 for any colour of the style, towards 1 for a pale one.
        """
        texture = KINDS[kind](self._rng, self.colour(light), self)
        self._textures.append(texture.clip(0.02, 1).astype(np.float32))
        self.dropout.append(_DROPOUT.get(kind, 0.0))
        self.glow.append(_GLOW.get(kind, 0.0))
        return len(self._textures) - 1

    def any_of(self, *kinds: str, light: Number = 0.0) -> int:
        """Draws a texture of one of these kinds."""
        return self.add(kinds[self._rng.integers(len(kinds))], light=light)

    def atlas(self) -> Array:
        """[M, 64, 64, 3] float32, 0 ... 1."""
        return np.stack(self._textures)


def _noise(rng: Rng, power: Number = 1.5, stretch: Number = 1.0) -> Array:
    """[64, 64] periodic noise of unit variance, its grain along x if `stretch` is above 1."""
    fx, fy = np.meshgrid(_FREQUENCY * stretch, _FREQUENCY)
    gain = (1 + fx**2 + fy**2) ** (-power / 2)
    gain[0, 0] = 0
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIZE, SIZE))) * gain).real
    return field / field.std()


def _flat(colour: Array, factor: Array) -> Array:
    return colour * np.broadcast_to(factor, (SIZE, SIZE))[..., None]


def _fill(image: Array, x: Range, y: Range, colour: Array) -> None:
    (x0, x1), (y0, y1) = x, y
    image[int(y0 * SIZE) : int(y1 * SIZE), int(x0 * SIZE) : int(x1 * SIZE)] = colour


def _bevel(image: Array, x: Range, y: Range, depth: Number) -> None:
    """Draws a panel: bright above and left, dark below and right."""
    x0, x1, y0, y1 = (int(t * SIZE) for t in (*x, *y))
    image[y0:y1, x0 : x0 + 2] *= 1 + depth
    image[y1 - 2 : y1, x0:x1] *= 1 + depth
    image[y0:y1, x1 - 2 : x1] *= 1 - depth
    image[y0 : y0 + 2, x0:x1] *= 1 - depth


def _paint(rng: Rng, colour: Array, _: Materials) -> Array:
    return _flat(colour, 1 + 0.03 * _noise(rng))


def _wallpaper(rng: Rng, colour: Array, _: Materials) -> Array:
    strength = rng.uniform(0.04, 0.18)
    period = rng.choice([4, 8, 16])
    pattern = (_COLUMN // period) % 2.0
    if rng.random() < 0.5:
        pattern = ((_COLUMN % period - period / 2) ** 2 + (_ROW % period - period / 2) ** 2) < (
            period / 4
        ) ** 2
    return _flat(colour, 1 + 0.02 * _noise(rng) - strength * pattern)


def _wood(rng: Rng, colour: Array, _: Materials) -> Array:
    brown = 0.5 * colour + 0.5 * np.array([0.55, 0.38, 0.22]) * rng.uniform(0.6, 1.4)
    return _flat(brown, 1 + 0.14 * _noise(rng, 1.6, 0.12))


def _planks(rng: Rng, colour: Array, materials: Materials) -> Array:
    image = _wood(rng, colour, materials)
    width = rng.choice([8, 16])
    for start in range(0, SIZE, width):
        image[start : start + width] *= rng.uniform(0.85, 1.12)
        image[start] *= 0.6
    return image


def _tiles(rng: Rng, colour: Array, materials: Materials) -> Array:
    size = rng.choice([8, 16, 32])
    other = materials.colour(0.3) if rng.random() < 0.35 else colour
    check = ((_COLUMN // size + _ROW // size) % 2)[..., None]
    image = np.where(check > 0, other, colour) * (1 + 0.03 * _noise(rng))[..., None]
    image[(_COLUMN % size == 0) | (_ROW % size == 0)] *= rng.choice([0.6, 1.3])
    return image


def _carpet(rng: Rng, colour: Array, _: Materials) -> Array:
    return _flat(colour, 1 + 0.1 * _noise(rng, 0.3) + 0.05 * _noise(rng, 2.5))


def _fabric(rng: Rng, colour: Array, materials: Materials) -> Array:
    image = _flat(colour, 1 + 0.06 * _noise(rng, 0.4))
    if rng.random() < 0.5:
        other, period = materials.colour(), rng.choice([8, 16])
        mask = 0.5 * ((_COLUMN // period) % 2) + 0.5 * ((_ROW // period) % 2) * rng.integers(0, 2)
        image = image + mask[..., None] * (other - colour) * 0.6
    return image


def _drape(rng: Rng, colour: Array, materials: Materials) -> Array:
    """Curtain cloth: stripes that run down, or blossoms."""
    other = materials.colour()
    if rng.random() < 0.6:
        period = rng.choice([8, 16, 32])
        mask = ((_COLUMN % period) < period * rng.uniform(0.25, 0.6)).astype(float)
    else:
        mask = (_noise(rng, 2.2) > 0.9).astype(float)
    image = colour + mask[..., None] * (other - colour) * rng.uniform(0.5, 1)
    return image * (1 + 0.08 * np.sin(_COLUMN * 2 * np.pi / 16))[..., None]


def _stone(rng: Rng, colour: Array, _: Materials) -> Array:
    speckle = rng.random((SIZE, SIZE))
    factor = 1 + 0.35 * (speckle > 0.88) - 0.4 * (speckle < 0.14) + 0.08 * _noise(rng, 2.0)
    return _flat(colour * 0.8 + 0.1, factor)


def _fridge(rng: Rng, colour: Array, materials: Materials) -> Array:
    """A smooth door with a sheen, a badge and magnets."""
    sheen = 1 + 0.18 * np.cos((_COLUMN / SIZE - rng.random()) * 2 * np.pi)
    image = _flat(colour, sheen + 0.03 * _noise(rng, 0.5, 0.1))
    _fill(image, (0.4, 0.6), (0.86, 0.91), colour * 0.35)
    for _ in range(rng.integers(2, 7)):
        x, y = rng.uniform(0.1, 0.8, 2)
        _fill(image, (x, x + rng.uniform(0.05, 0.16)), (y, y + 0.07), materials.colour())
    return image


def _painting(rng: Rng, colour: Array, materials: Materials) -> Array:
    image = _flat(colour, 1 + 0.1 * _noise(rng, 2.5))
    for _ in range(rng.integers(4, 10)):
        (x, y), (rx, ry) = rng.uniform(0, SIZE, 2), rng.uniform(4, 22, 2)
        image[((_COLUMN - x) / rx) ** 2 + ((_ROW - y) / ry) ** 2 < 1] = materials.colour()
    if rng.random() < 0.5:
        mat = rng.integers(4, 11)
        inner = (np.minimum(_COLUMN, _ROW) >= mat) & (np.maximum(_COLUMN, _ROW) < SIZE - mat)
        image[~inner] = 0.92
    return image


def _outside(rng: Rng, colour: Array, materials: Materials) -> Array:
    """A sky over roofs or trees, behind the bars of a window."""
    height = (_ROW / SIZE)[..., None]
    sky = np.array([0.62, 0.8, 1.0]) * rng.uniform(0.75, 1) * (1.15 - 0.3 * height)
    ground = colour * 0.6 * (1 + 0.3 * _noise(rng, 1.2))[..., None]
    skyline = rng.uniform(0.2, 0.55) + 0.1 * np.repeat(rng.normal(size=8), 8)
    image = np.where(height < skyline[None, :, None], ground, sky)
    bar = materials.colour(0.5)
    for at in np.linspace(0, 1, rng.integers(2, 4))[1:-1]:
        _fill(image, (at - 0.03, at + 0.03), (0, 1), bar)
    return image


def _door(rng: Rng, colour: Array, _: Materials) -> Array:
    image = _flat(colour, 1 + 0.05 * _noise(rng, 1.6, 8))
    rows = rng.integers(1, 4)
    columns = rng.integers(1, 3)
    for x in range(columns):
        for y in range(rows):
            left, low = 0.12 + 0.8 * x / columns, 0.06 + 0.9 * y / rows
            _bevel(image, (left, left + 0.7 / columns), (low, low + 0.8 / rows), 0.35)
    _fill(image, (0.03, 0.09), (0.44, 0.54), colour * 0.2)
    return image


def _cabinet(rng: Rng, colour: Array, materials: Materials) -> Array:
    image = _wood(rng, colour, materials) if rng.random() < 0.6 else _paint(rng, colour, materials)
    _bevel(image, (0.1, 0.9), (0.08, 0.92), rng.uniform(0.2, 0.4))
    side = rng.choice([0.2, 0.75])
    _fill(image, (side, side + 0.08), (0.45, 0.58), np.array([0.8, 0.75, 0.6]) * rng.random())
    return image


def _books(rng: Rng, _: Array, materials: Materials) -> Array:
    image = np.zeros((SIZE, SIZE, 3))
    left = 0
    while left < SIZE:
        width = int(rng.integers(2, 6))
        image[:, left : left + width] = materials.colour()
        image[rng.integers(8, 50) :][:4, left : left + width] *= 1.4
        image[:, left] *= 0.5
        left += width
    return image


def _desk(rng: Rng, colour: Array, materials: Materials) -> Array:
    """A plain top with paper on it."""
    image = _paint(rng, colour, materials)
    for _ in range(rng.integers(2, 6)):
        x, y = rng.uniform(0.02, 0.75, 2)
        _fill(image, (x, x + 0.12), (y, y + 0.3), np.full(3, rng.uniform(0.8, 1)))
    _fill(image, (0.35, 0.65), (0.55, 0.8), colour * 0.25)
    return image


def _table(rng: Rng, colour: Array, materials: Materials) -> Array:
    """Boards with a runner or with mats."""
    image = _planks(rng, colour, materials)
    cloth = materials.colour()
    if rng.random() < 0.5:
        _fill(image, (0, 1), (0.36, 0.64), cloth)
    else:
        for x, y in ((0.12, 0.1), (0.62, 0.1), (0.12, 0.65), (0.62, 0.65)):
            _fill(image, (x, x + 0.26), (y, y + 0.25), cloth)
    return image


def _bedding(rng: Rng, colour: Array, materials: Materials) -> Array:
    other, period = materials.colour(), rng.choice([8, 16])
    quilt = ((_COLUMN + _ROW) // period + (_COLUMN - _ROW) // period) % 2
    image = colour + 0.4 * quilt[..., None] * (other - colour)
    return image * (1 + 0.1 * _noise(rng, 2))[..., None]


def _screen(rng: Rng, colour: Array, _: Materials) -> Array:
    image = np.full((SIZE, SIZE, 3), 0.06)
    if rng.random() < 0.4:
        _fill(image, (0.06, 0.94), (0.08, 0.92), colour)
    return image


def _mirror(rng: Rng, colour: Array, _: Materials) -> Array:
    return _flat(0.4 * colour + 0.5, 1 + 0.12 * _noise(rng, 3))


def _ceramic(rng: Rng, colour: Array, _: Materials) -> Array:
    return _flat(colour, 1 + 0.08 * _noise(rng, 3))


KINDS: dict[str, Callable[[Rng, Array, Materials], Array]] = {
    "paint": _paint,
    "wallpaper": _wallpaper,
    "wood": _wood,
    "planks": _planks,
    "tiles": _tiles,
    "carpet": _carpet,
    "fabric": _fabric,
    "drape": _drape,
    "stone": _stone,
    "fridge": _fridge,
    "painting": _painting,
    "outside": _outside,
    "door": _door,
    "cabinet": _cabinet,
    "books": _books,
    "desk": _desk,
    "table": _table,
    "bedding": _bedding,
    "screen": _screen,
    "mirror": _mirror,
    "ceramic": _ceramic,
}
