"""SynthRooms: furnished rooms, scanned, without a download. NumPy only."""

from haskd_jax.data.synthrooms.generate import Options, SynthScene, generate_scene
from haskd_jax.data.synthrooms.scannet_layout import write_scannet_layout
from haskd_jax.data.synthrooms.source import SynthRooms
from haskd_jax.data.synthrooms.style import STYLES, Style, StyleName

__all__ = [
    "STYLES",
    "Options",
    "Style",
    "StyleName",
    "SynthRooms",
    "SynthScene",
    "generate_scene",
    "write_scannet_layout",
]
