"""Images on disk to arrays, and to the size a scene keeps them at.

Pixel (0, 0) has its centre at (0, 0), so halving an image moves a centre u to (u + 1/2) / 2 - 1/2.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Integer, UInt8
from PIL import Image

from haskd_jax.data.errors import DataError

Array = np.ndarray
Size = tuple[int, int]  # width, height


def _open(source: bytes | Path, file: str | Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
            return Image.open(stream, formats=("JPEG", "PNG", "PPM"))
    except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(file, f"not a readable image ({error})") from error


def read_colour(
    source: bytes | Path, size: Size | None = None, *, file: str | Path = ""
) -> tuple[UInt8[Array, "H W 3"], Size]:
    """Decodes a colour image, at a smaller size if asked.

    Args:
        source: The encoded bytes, or the file.
        size: Width and height wanted; None keeps the image's own.
        file: What an error names, where `source` is bytes.

    Returns:
        [H, W, 3] uint8 RGB, and the width and height the image has on disk.

    Raises:
        DataError: Not an image, or a truncated one.

    Example:
        >>> png = io.BytesIO()
        >>> Image.new("RGB", (8, 6), (10, 20, 30)).save(png, "png")
        >>> array, native = read_colour(png.getvalue(), (4, 3))
        >>> array.shape, native
        ((3, 4, 3), (8, 6))
    """
    file = file or str(source)
    with _open(source, file) as image:
        native = image.size
        target = size or native
        if image.format == "JPEG" and _divides(image, target):
            image.draft("RGB", target)
        try:
            image = image.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(file, f"damaged image ({error})") from error
    if image.size != target:
        image = image.resize(target, Image.Resampling.BILINEAR)
    return np.asarray(image), native


def _divides(image: Image.Image, target: Size) -> bool:
    """Whether the JPEG decoder's own reduction keeps pixel centres where they belong."""
    for scale in (8, 4, 2):
        if image.width // scale >= target[0] and image.height // scale >= target[1]:
            return image.width % scale == 0 and image.height % scale == 0
    return False


def read_grey(source: Path) -> Integer[Array, "H W"]:
    """Decodes a one-channel image of integers: depth or labels.

    Args:
        source: The file, 8 or 16 bits a pixel.

    Returns:
        [H, W] uint8 or uint16.

    Raises:
        DataError: Not an image, truncated, or not one channel of integers.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "depth.png"
        ...     Image.fromarray(np.full((2, 3), 1500, np.uint16)).save(path)
        ...     read_grey(path).tolist()
        [[1500, 1500, 1500], [1500, 1500, 1500]]
    """
    with _open(source, source) as image:
        try:
            array = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(source, f"damaged image ({error})") from error
    if array.ndim != 2 or array.dtype.kind not in "ui":
        raise DataError(source, f"expected one channel of integers, found mode {image.mode}")
    if array.dtype.itemsize > 2:  # Pillow widens some 16-bit files to 32 bits.
        if array.min() < 0 or array.max() > 65535:
            raise DataError(source, "values beyond 16 bits")
        array = array.astype(np.uint16)
    return array


def scale_intrinsics(
    intrinsics: Float[Array, "3 3"], old: Size, new: Size
) -> Float64[Array, "3 3"]:
    """The camera matrix of the resized image.

    Args:
        intrinsics: [3, 3].
        old: Width and height of the image it belongs to.
        new: Width and height after resizing.

    Returns:
        [3, 3] float64.

    Example:
        >>> scale_intrinsics(np.array([[100.0, 0, 49.5], [0, 100, 39.5], [0, 0, 1]]),
        ...                  (100, 80), (50, 40)).tolist()
        [[50.0, 0.0, 24.5], [0.0, 50.0, 19.5], [0.0, 0.0, 1.0]]
    """
    result = np.array(intrinsics, np.float64)
    for axis in range(2):
        ratio = new[axis] / old[axis]
        result[axis] *= ratio
        result[axis, 2] += ratio / 2 - 0.5
    return result


def sample_nearest(
    image: Integer[Array, "h w"], image_k: Float[Array, "3 3"], k: Float[Array, "3 3"], size: Size
) -> Integer[Array, "H W"]:
    """Resamples depth or labels into the pixels of another camera at the same place.

    Args:
        image: [h, w] integers.
        image_k: [3, 3], the intrinsics of `image`.
        k: [3, 3], the intrinsics wanted.
        size: Width and height wanted.

    Returns:
        [H, W] of the type of `image`; 0 outside the image.

    Example:
        >>> k = np.array([[2.0, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
        >>> sample_nearest(np.array([[1, 2], [3, 4]]), k, scale_intrinsics(k, (2, 2), (4, 2)),
        ...                (4, 2)).tolist()
        [[1, 1, 2, 2], [3, 3, 4, 4]]
    """
    u = (np.arange(size[0]) - k[0, 2]) / k[0, 0] * image_k[0, 0] + image_k[0, 2]
    v = (np.arange(size[1]) - k[1, 2]) / k[1, 1] * image_k[1, 1] + image_k[1, 2]
    column = np.floor(u + 0.5).astype(np.int64)
    row = np.floor(v + 0.5).astype(np.int64)
    inside = ((row >= 0) & (row < image.shape[0]))[:, None] & (
        (column >= 0) & (column < image.shape[1])
    )
    picked = image[row.clip(0, image.shape[0] - 1)][:, column.clip(0, image.shape[1] - 1)]
    return np.where(inside, picked, np.zeros((), image.dtype))
