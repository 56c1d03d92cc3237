"""The app's own components: a film player, a picture grid, two drawing pads and a class picker."""

from diffusion.ui.widgets.grid import DigitGrid, grid
from diffusion.ui.widgets.pad import Masked, MaskPad, SketchPad
from diffusion.ui.widgets.picker import EACH, DigitPicker
from diffusion.ui.widgets.player import FramePlayer, film, frame, tile

__all__ = [
    "EACH",
    "DigitGrid",
    "DigitPicker",
    "FramePlayer",
    "MaskPad",
    "Masked",
    "SketchPad",
    "film",
    "frame",
    "grid",
    "tile",
]
