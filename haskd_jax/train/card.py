"""The card of a model: all that its weights need besides themselves, as `card.json`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from haskd_jax.files import write_json

CARD = "card.json"
_FORMAT, _VERSION = "haskd-model", 1


@dataclass(frozen=True)
class ModelConfig:
    """A student.

    Attributes:
        family: "minkunet", "spvcnn", or a factory of your own as "package.module:name", called like
            `models.MinkUNet` without its config, and without `dtype` where it takes none; see
            docs/backbones.md.
        shape: Widths and depths, by a name of `models.MINKUNET`. Your own factory does not get it.
        channels: Widths of the stages down, then up, in place of the shape's.
        blocks: Residual blocks of each stage, in place of the shape's.
        stem: Width of the first convolution, in place of the shape's.
        stem_kernel: Its edge, in place of the shape's.
        dtype: What is computed in; parameters, statistics and logits are float32 always.
    """

    family: str = "minkunet"
    shape: str = "spunet"
    channels: tuple[int, ...] | None = None
    blocks: tuple[int, ...] | None = None
    stem: int | None = None
    stem_kernel: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class TeacherConfig:
    """What makes a teacher of a student.

    Attributes:
        image_channels: Widths of the image encoder at strides 4, 8, 16 and so on.
        image_blocks: Its residual blocks at each stride.
        image_features: Width of what it hands to the voxels.
        pooling: How the views of a voxel are pooled.
        modality_dropout: Probability that a view is hidden in training, and that all are.
        tolerance: How far a voxel may lie from the depth map and still be seen, metres.
    """

    image_channels: tuple[int, ...] = (32, 64, 128)
    image_blocks: int = 2
    image_features: int = 64
    pooling: Literal["mean", "learnt"] = "learnt"
    modality_dropout: float = 0.1
    tolerance: float = 0.05


@dataclass(frozen=True)
class ModelCard:
    """What a network is and what it was trained for.

    Attributes:
        kind: Whether it sees images too.
        model: The student, or the teacher's student.
        dataset: The name of what it was trained on.
        classes: The names of the logits.
        voxel_size: Edge of a voxel, metres.
        teacher: What makes it a teacher; None for a student.
        in_channels: Of the voxels' features: colour and normal.
        frozen_images: Whether the image encoder stays as it came, see
            `image_encoders.with_encoder`.
    """

    kind: Literal["student", "teacher"]
    model: ModelConfig
    dataset: str
    classes: tuple[str, ...]
    voxel_size: float
    teacher: TeacherConfig | None = None
    in_channels: int = 6
    frozen_images: bool = False

    def __post_init__(self) -> None:
        """Checks what the types do not say."""
        if (self.kind == "teacher") != (self.teacher is not None):
            raise ValueError(f"teacher: {self.teacher} for a {self.kind}")
        if self.frozen_images and self.teacher is None:
            raise ValueError("frozen_images: a student sees no images")
        if not self.classes:
            raise ValueError("classes: none")
        if not self.voxel_size > 0:
            raise ValueError(f"voxel_size: {self.voxel_size}, expected a length in metres")


def write_card(folder: str | Path, card: ModelCard) -> None:
    """Writes a card into a folder, which it makes if need be.

    Args:
        folder: The folder of a training.
        card: The card.

    Example:
        >>> import tempfile
        >>> card = ModelCard("student", ModelConfig(), "rooms", ("wall", "floor"), 0.05)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_card(folder, card)
        ...     read_card(folder) == card
        True
    """
    value = {"format": _FORMAT, "version": _VERSION, "card": msgspec.to_builtins(card)}
    write_json(Path(folder) / CARD, value)


def read_card(folder: str | Path) -> ModelCard:
    """Reads the card of a folder.

    Args:
        folder: The folder of a training.

    Returns:
        The card.

    Raises:
        ValueError: There is none, or it is damaged or of another version; names the file.
    """
    path = Path(folder) / CARD
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path}: missing: is {folder} the folder of a training, such as runs/rooms/haskd?"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise ValueError(f"{path}: not the card of a model")
    if value.get("version") != _VERSION:
        raise ValueError(f"{path}: version {value.get('version')}, this package reads {_VERSION}")
    try:
        return msgspec.convert(value["card"], ModelCard)
    except (msgspec.ValidationError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
