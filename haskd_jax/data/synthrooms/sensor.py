"""What a hand-held sensor makes of a perfect picture."""

import numpy as np

from haskd_jax.data.synthrooms.render import View

Array = np.ndarray
Rng = np.random.Generator

_RANGE = (0.35, 4.5)  # metres, of the depth sensor


def depth_noise(depth: Array) -> Array:
    """Standard deviation of a depth sensor along its line of sight, metres.

    The axial noise that Nguyen, Izadi and Lovell measured on a Kinect ("Modeling Kinect Sensor
    Noise for Improved 3D Reconstruction and Tracking", 3DIMPVT 2012), for surfaces seen frontally.

    Args:
        depth: [...] metres.

    Returns:
        [...] metres.

    Example:
        >>> depth_noise(np.array([0.4, 3.4])).round(4).tolist()
        [0.0012, 0.0183]
    """
    return 0.0012 + 0.0019 * (depth - 0.4) ** 2


def _coarse(rng: Rng, shape: tuple[int, int], cell: int) -> Array:
    """[H, W] uniform noise that is the same in cells of pixels: what fails, fails in patches."""
    height, width = shape
    cells = rng.random((-(-height // cell), -(-width // cell)), dtype=np.float32)
    return np.repeat(np.repeat(cells, cell, 0), cell, 1)[:height, :width]


def _neighbours(depth: Array) -> tuple[Array, Array]:
    """The smallest and the largest depth among a pixel and the four around it."""
    padded = np.pad(depth, 1, mode="edge")
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    low = high = depth
    for other in around:
        low, high = np.minimum(low, other), np.maximum(high, other)
    return low, high


def sense_depth(rng: Rng, view: View) -> Array:
    """Depth with noise that grows with range, holes, and pixels that fly between surfaces.

    Args:
        rng: All randomness.
        view: The perfect picture.

    Returns:
        [H, W] uint16 millimetres, 0 where unknown.
    """
    depth = view.depth
    shape = depth.shape
    sigma = depth_noise(depth)
    fine = rng.standard_normal(shape, np.float32)
    broad = _coarse(rng, shape, 6) - 0.5
    noisy = depth + sigma * (0.7 * fine + 2.4 * broad)
    low, high = _neighbours(depth)
    edge = high - low > 0.04 + 0.04 * depth
    fate = rng.random(shape, dtype=np.float32)
    mixed = low + (high - low) * rng.random(shape, dtype=np.float32)
    noisy = np.where(edge & (fate < 0.15), mixed, noisy)
    lost = edge & (fate > 0.6)
    lost |= _coarse(rng, shape, 8) < view.dropout
    lost |= (view.slant < 0.12) & (fate > 0.3)
    lost |= _coarse(rng, shape, 5) < 0.12 * np.maximum(depth - 2.5, 0)
    lost |= (noisy < _RANGE[0]) | (noisy > _RANGE[1]) | (depth == 0)
    return np.where(lost, 0, np.rint(noisy * 1000)).astype(np.uint16)


def sense_colour(rng: Rng, colour: Array, streak: Array) -> Array:
    """Colour with exposure, white balance, motion blur and noise.

    Args:
        rng: All randomness.
        colour: [H, W, 3] float32, linear.
        streak: [2] pixels that the picture moves during the exposure, to the right and down.

    Returns:
        [H, W, 3] uint8.
    """
    steps = int(np.clip(np.ceil(np.hypot(*streak)), 1, 9))
    blurred = np.zeros_like(colour)
    for t in (np.arange(steps) + 0.5) / steps - 0.5:
        # Not rint: it rounds halves to even, and would leave gaps in the streak.
        blurred += shifted(colour, np.floor(streak * t + 0.5).astype(int))
    exposure = np.exp(rng.normal() * 0.18) * np.exp(rng.normal(size=3) * 0.04)
    # Automatic exposure holds the mean brightness, so a window in view darkens the room.
    exposure *= 0.42 / max(0.15, float(blurred.mean()) / steps) * 0.5 + 0.5
    image = np.sqrt(blurred * (exposure / steps).astype(np.float32)) * 255
    image += 3 * rng.standard_normal(colour.shape, np.float32)
    return image.clip(0, 255).astype(np.uint8)


def shifted(image: Array, by: Array) -> Array:
    """An image moved by whole pixels to the right and down; its border is repeated.

    Example:
        >>> shifted(np.array([[1, 2, 3]]), np.array([1, 0])).tolist()
        [[1, 1, 2]]
    """
    result = image
    for axis, offset in ((0, int(by[1])), (1, int(by[0]))):
        if offset:
            size = image.shape[axis]
            result = np.take(result, (np.arange(size) - offset).clip(0, size - 1), axis)
    return result


def smear(image: Array, radius: int) -> Array:
    """[H, W, 3] float32: the mean over a square of `2 * radius + 1` pixels."""
    result, width = image.astype(np.float32), 2 * radius + 1
    for axis in range(2):
        margin = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        lines = np.moveaxis(np.pad(result, margin, mode="edge"), axis, 0)
        total = np.zeros(result.shape, np.float32).swapaxes(0, axis)
        for i in range(width):
            total = total + lines[i : i + image.shape[axis]]
        result = np.moveaxis(total / np.float32(width), 0, axis)
    return result
