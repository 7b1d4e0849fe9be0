"""What may differ between the rooms one trains on and those one is measured on."""

from dataclasses import dataclass
from typing import Literal

StyleName = Literal["a", "b"]
Number = float | int
Range = tuple[Number, Number]


@dataclass(frozen=True)
class Style:
    """Furniture, palettes and trajectories.

    Attributes:
        saturation: Of colours, HSV.
        value: Of colours, HSV.
        scale: Of furniture.
        leg: Thickness of legs, metres.
        round_tables: Share of tables that are round.
        panel_desks: Share of desks on side panels instead of on a pedestal of drawers.
        eye: Height of the camera, metres.
        pitch: How far down the camera looks while it sweeps, degrees.
        shake: Of the hand, degrees.
        orbit: Share of the sweeps that look across the room from its walls, instead of outwards
            from its middle.
    """

    saturation: Range
    value: Range
    scale: Range
    leg: Range
    round_tables: float
    panel_desks: float
    eye: Range
    pitch: Range
    shake: float
    orbit: float


STYLES: dict[StyleName, Style] = {
    "a": Style(
        saturation=(0.05, 0.55),
        value=(0.35, 0.95),
        scale=(0.92, 1.08),
        leg=(0.05, 0.08),
        round_tables=0.25,
        panel_desks=0.3,
        eye=(1.35, 1.65),
        pitch=(12.0, 38.0),
        shake=0.8,
        orbit=0.3,
    ),
    "b": Style(
        saturation=(0.25, 0.85),
        value=(0.2, 0.8),
        scale=(0.85, 1.2),
        leg=(0.08, 0.12),
        round_tables=0.6,
        panel_desks=0.7,
        eye=(1.1, 1.8),
        pitch=(15.0, 42.0),
        shake=1.6,
        orbit=0.7,
    ),
}
