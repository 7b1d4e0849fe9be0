"""Colours by which people tell classes apart: ScanNet's, S3DIS', and made ones for other lists."""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

Array = np.ndarray

# What no class colours: unlabelled points, predictions of none.
UNLABELLED = (60, 60, 60)

# As ScanNet's own benchmark draws them (ScanNet/ScanNet: BenchmarkScripts/util.py).
SCANNET = {
    "wall": (174, 199, 232),
    "floor": (152, 223, 138),
    "cabinet": (31, 119, 180),
    "bed": (255, 187, 120),
    "chair": (188, 189, 34),
    "sofa": (140, 86, 75),
    "table": (255, 152, 150),
    "door": (214, 39, 40),
    "window": (197, 176, 213),
    "bookshelf": (148, 103, 189),
    "picture": (196, 156, 148),
    "counter": (23, 190, 207),
    "desk": (247, 182, 210),
    "curtain": (219, 219, 141),
    "refrigerator": (255, 127, 14),
    "shower curtain": (158, 218, 229),
    "toilet": (44, 160, 44),
    "sink": (112, 128, 144),
    "bathtub": (227, 119, 194),
    "otherfurniture": (82, 84, 163),
}
# As most papers on S3DIS draw them, after PointNet's (charlesq34/pointnet: sem_seg).
S3DIS = {
    "ceiling": (0, 255, 0),
    "floor": (0, 0, 255),
    "wall": (0, 255, 255),
    "beam": (255, 255, 0),
    "column": (255, 0, 255),
    "window": (100, 100, 255),
    "door": (200, 200, 100),
    "table": (170, 120, 200),
    "chair": (255, 0, 0),
    "sofa": (200, 100, 100),
    "bookcase": (10, 200, 100),
    "board": (200, 200, 200),
    "clutter": (50, 50, 50),
}
_GOLDEN = 0.6180339887498949


def palette(classes: Sequence[str]) -> UInt8[Array, "C 3"]:
    """The colour of every class.

    A list whose names all are ScanNet's, or all S3DIS', takes the colours that papers on these
    use. Any other takes hues by number, neighbours far apart, the same in every run.

    Args:
        classes: C names.

    Returns:
        [C, 3] uint8 RGB, no two alike.

    Example:
        >>> palette(["floor", "wall"]).tolist()
        [[152, 223, 138], [174, 199, 232]]
        >>> palette(["floor", "clutter"]).tolist()
        [[0, 0, 255], [50, 50, 50]]
        >>> palette(["pump", "pipe"]).shape
        (2, 3)
    """
    for known in (SCANNET, S3DIS):
        if all(name in known for name in classes):
            colours = [known[name] for name in classes]
            break
    else:
        colours = [_made(i) for i in range(len(classes))]
    return np.array(colours, np.uint8).reshape(-1, 3)


def _made(number: int) -> tuple[int, int, int]:
    # The golden ratio spreads any number of hues evenly; lightness tells near hues apart.
    hue, value = number * _GOLDEN % 1.0, (0.95, 0.75, 0.55)[number % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.7, value)
    return round(255 * red), round(255 * green), round(255 * blue)
