"""Arrays to pictures inside the page."""

import base64
import io
from html import escape

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from haskd_jax.data.palettes import palette

Array = np.ndarray

UNLABELLED = (226, 229, 233)  # light: what is not scored should not draw the eye
RIGHT, WRONG = (176, 187, 200), (214, 40, 57)


def data_uri(image: UInt8[Array, "H W C"]) -> str:
    """A picture as an address that holds it.

    Args:
        image: [H, W, 3] RGB or [H, W, 4] RGBA, uint8.

    Returns:
        `data:image/webp;base64,...`

    Example:
        >>> data_uri(np.zeros((2, 2, 3), np.uint8))[:23]
        'data:image/webp;base64,'
    """
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "webp", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def picture(image: UInt8[Array, "H W C"], alternative: str) -> str:
    """An `<img>` that holds its picture.

    Args:
        image: [H, W, 3] RGB or [H, W, 4] RGBA, uint8.
        alternative: What it shows, in words.

    Returns:
        The element.
    """
    height, width = image.shape[:2]
    return (
        f'<img src="{data_uri(image)}" width="{width}" height="{height}" loading="lazy" '
        f'alt="{escape(alternative)}">'
    )


def class_colours(label: Int[Array, " N"], classes: tuple[str, ...]) -> UInt8[Array, "N 3"]:
    """The colour of every point by its class; -1 is grey.

    Args:
        label: [N] integers from -1 to C - 1.
        classes: C names.

    Returns:
        [N, 3] uint8.

    Example:
        >>> class_colours(np.array([0, -1]), ("floor",)).tolist()
        [[152, 223, 138], [226, 229, 233]]
    """
    table = np.concatenate([palette(classes), np.array([UNLABELLED], np.uint8)])
    return table[label]


def error_colours(label: Int[Array, " N"], predicted: Int[Array, " N"]) -> UInt8[Array, "N 3"]:
    """Red where the prediction is wrong; points without a label are palest.

    Args:
        label: [N] true classes, -1 unlabelled.
        predicted: [N] predicted classes.

    Returns:
        [N, 3] uint8.

    Example:
        >>> error_colours(np.array([1, 1]), np.array([1, 2])).tolist()
        [[176, 187, 200], [214, 40, 57]]
    """
    colours = np.full((len(label), 3), RIGHT, np.uint8)
    colours[label < 0] = UNLABELLED
    colours[(label >= 0) & (label != predicted)] = WRONG
    return colours
