"""SketchPad and MaskPad: drawing on a model's own pixels, shown exactly as the model will see it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from diffusion.captions import COLOURS
from diffusion.ui.widgets.pixels import asset, decode, pack, unpack

SHAPE = (28, 28)
BLANK = {2: (0,), 3: COLOURS["white"]}  # an empty pad's paper by the number of its shape's axes: grey or RGB

STAGE = """
<p class="title" aria-hidden="true"></p>
<div class="stage">
  {under}<canvas class="ink" width="28" height="28" tabindex="0" role="application"></canvas>
  <span class="brush" aria-hidden="true"></span>
  <p class="hint" aria-hidden="true"></p>
</div>
<div class="tools">
  <fieldset class="sizes"><legend class="unseen">Brush size</legend>
    <label><input type="radio" value="0"><span style="--dot: 6px"></span><b class="unseen">Fine</b></label>
    <label><input type="radio" value="1" checked><span style="--dot: 10px"></span><b class="unseen">Medium</b></label>
    <label><input type="radio" value="2"><span style="--dot: 15px"></span><b class="unseen">Broad</b></label>
  </fieldset>
  <button type="button" class="erase" aria-label="Erase" title="Erase" aria-pressed="false"><svg viewBox="0 0 24 24"
    aria-hidden="true"><path d="M9 20l-5-5 10.5-10.5 6 6L11 20zM20 20H9M9.5 9.5l6 6"></path></svg></button>
  <button type="button" class="undo" aria-label="Undo" title="Undo" disabled><svg viewBox="0 0 24 24"
    aria-hidden="true"><path d="M8 5L4 9l4 4M4 9h10a5.5 5.5 0 0 1 0 11H9"></path></svg></button>
  <button type="button" class="clear" aria-label="Clear" title="Clear"><svg viewBox="0 0 24 24"
    aria-hidden="true"><path d="M4 7h16M9 7V4h6v3M6.5 7l1 13h9l1-13M10 11v5M14 11v5"></path></svg></button>
</div>
{more}<p class="keys">Keyboard: arrows move, Shift draws, Space dabs.</p>
"""
SWATCH = """
  <label title="{name}"><input type="radio" value="{rgb}"><span style="--swatch: rgb({rgb})"></span><b
    class="unseen">{name}</b></label>"""
PALETTE = f"""
<div class="paints" data-paper="{", ".join(map(str, BLANK[3]))}" hidden>
<fieldset class="palette"><legend class="unseen">Colour</legend>{
    "".join(SWATCH.format(name=name, rgb=", ".join(map(str, rgb))) for name, rgb in COLOURS.items())
}
</fieldset>
<button type="button" class="fill">Paper in this colour</button>
</div>
"""
PARTS = """
<div class="parts">
<button type="button" data-part="paper">All paper</button>
<button type="button" data-part="ink">All ink</button>
</div>
"""


class Masked(NamedTuple):
    """A picture, uint8 (H, W) or (H, W, 3), and a mask, bool (H, W): True is to be painted anew."""

    picture: np.ndarray
    mask: np.ndarray


class SketchPad(gr.HTML):
    """A pad for white ink on black paper, or for colours on paper of any; its value is uint8 (H, W) or (H, W, 3) in
    both directions, or None while it is blank."""

    def __init__(
        self, value: np.ndarray | None = None, *, shape: Sequence[int] = SHAPE, label: str = "Sketch", **layout: Any
    ):
        """shape: of what is drawn on blank paper, (H, W) or (H, W, 3); a picture that it is set to may have another."""
        template = STAGE.format(under="", more=PALETTE)
        super().__init__(value=value, label=label, **_parts(template), shape=list(shape), **layout)

    @staticmethod
    def showing(shape: Sequence[int], value: np.ndarray | None, **more: Any) -> dict[str, Any]:
        """The properties that show a picture on a pad of this shape, for a constructor or a gr.update."""
        return {"shape": list(shape), "value": value, **more}

    def preprocess(self, payload: Any) -> np.ndarray | None:
        """The sketch, or None where the paper is blank; its handler judges whether the model that it is for takes its
        shape, since while a page turns to another model it may be of the one before."""
        sketch = unpack(payload, "A sketch") if payload else None
        return None if sketch is None or (sketch == BLANK[sketch.ndim]).all() else sketch

    def postprocess(self, value: np.ndarray | None) -> dict[str, Any] | None:
        """The sketch as the page gets it; ValueError where it is not uint8 (H, W) or (H, W, 3)."""
        return None if value is None else pack(value, "A sketch")

    def get_config(self) -> dict[str, Any]:
        """What the page is told; without the properties, as in DigitPicker."""
        return {name: value for name, value in super().get_config().items() if name not in self.props}

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type."""
        return {"type": "object", "description": "{w, h, px}: rows of grey levels or RGB triples, bytes in base64"}

    def example_payload(self) -> dict[str, Any]:
        """A blank sketch as the page sends it."""
        return pack(self.example_value())

    def example_value(self) -> np.ndarray:
        """A black sketch."""
        return np.zeros(SHAPE, np.uint8)


class MaskPad(gr.HTML):
    """A pad that paints a mask over a picture; set it to a picture or to Masked, and it gives Masked, or None."""

    def __init__(
        self,
        value: Masked | np.ndarray | None = None,
        *,
        parts: bool = True,
        label: str = "Paint what to change",
        **layout: Any,
    ):
        """parts: whether all paper or all ink can be taken at once, as drawings have them and photographs have not."""
        under = '<canvas class="picture" width="28" height="28" aria-hidden="true"></canvas>\n  '
        template = STAGE.format(under=under, more=PARTS if parts else "")
        super().__init__(value=value, label=label, **_parts(template), **layout)

    def preprocess(self, payload: Any) -> Masked | None:
        """The picture with its mask, or None where there is no picture."""
        if not payload:
            return None
        picture = unpack(payload, "The picture")
        return Masked(picture, decode(payload.get("mask"), picture.shape[:2], "The mask") > 127)

    def postprocess(self, value: Masked | np.ndarray | None) -> dict[str, Any] | None:
        """The picture as the page gets it and its mask, empty where only a picture is given; ValueError where it is not
        uint8 (H, W) or (H, W, 3), or they differ in size."""
        if value is None:
            return None
        picture, mask = value if isinstance(value, tuple) else (value, np.zeros(np.shape(value)[:2], bool))
        packed = pack(picture, "The picture")
        if np.shape(mask) != np.shape(picture)[:2]:
            raise ValueError(f"The mask must have the picture's size {np.shape(picture)[:2]}; got {np.shape(mask)}.")
        return packed | {"mask": pack(np.where(mask, 255, 0).astype(np.uint8))["px"]}

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type."""
        return {"type": "object", "description": "{w, h, px, mask}: in base64; where mask is 255 it is painted anew"}

    def example_payload(self) -> dict[str, Any] | None:
        """A black picture with an empty mask, as the page sends it."""
        return self.postprocess(self.example_value())

    def example_value(self) -> Masked:
        """A black picture with an empty mask."""
        return Masked(np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, bool))


def _parts(template: str) -> dict[str, Any]:
    """What the two pads share; in a mask's template there is a picture under the ink."""
    return {
        "html_template": template,
        "css_template": asset("controls.css", "pad.css"),
        "js_on_load": asset("pixels.js", "pad.js"),
        "apply_default_css": False,
    }
