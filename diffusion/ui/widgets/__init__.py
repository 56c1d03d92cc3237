"""The app's own components: a film player, a picture grid, drawing pads, a class picker, and noise made visible."""

from diffusion.ui.widgets.bench import NoiseBench, Path, mixture
from diffusion.ui.widgets.curves import NoiseCurves
from diffusion.ui.widgets.grid import DigitGrid, Mark, grid
from diffusion.ui.widgets.pad import Masked, MaskPad, SketchPad
from diffusion.ui.widgets.photo import Photo
from diffusion.ui.widgets.picker import EACH, DigitPicker
from diffusion.ui.widgets.player import FramePlayer, film, frame, tile
from diffusion.ui.widgets.scores import ScoreTable, scores
from diffusion.ui.widgets.tradeoff import TradeoffPlot, tradeoff
from diffusion.ui.widgets.walks import Walk, WalkPlot, walks

__all__ = [
    "EACH",
    "DigitGrid",
    "DigitPicker",
    "FramePlayer",
    "Mark",
    "MaskPad",
    "Masked",
    "NoiseBench",
    "NoiseCurves",
    "Path",
    "Photo",
    "ScoreTable",
    "SketchPad",
    "TradeoffPlot",
    "Walk",
    "WalkPlot",
    "film",
    "frame",
    "grid",
    "mixture",
    "scores",
    "tile",
    "tradeoff",
    "walks",
]
