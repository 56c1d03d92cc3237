"""SketchPad and MaskPad: 28 x 28 drawing, shown exactly as the model will see it."""

from typing import Any, Literal, NamedTuple

import gradio as gr
import numpy as np

from diffusion.ui.widgets.pixels import asset, decode, encode

SHAPE = (28, 28)

TEMPLATE = """
<p class="title" aria-hidden="true"></p>
<div class="stage">
  <canvas class="picture" width="28" height="28" aria-hidden="true"></canvas>
  <canvas class="ink" width="28" height="28" tabindex="0" role="application"></canvas>
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
<p class="keys">Keyboard: arrows move, Shift draws, Space dabs.</p>
"""


class Masked(NamedTuple):
    """A picture, uint8 (28, 28), and a mask, bool (28, 28): True is to be painted anew."""

    picture: np.ndarray
    mask: np.ndarray


class SketchPad(gr.HTML):
    """A pad for white ink on black paper; its value is uint8 (28, 28) in both directions, or None while empty."""

    def __init__(self, value: np.ndarray | None = None, *, label: str = "Sketch", **layout: Any):
        super().__init__(value=value, label=label, **_parts("ink"), **layout)

    def preprocess(self, payload: Any) -> np.ndarray | None:
        """The sketch, uint8 (28, 28), or None where there is no ink."""
        sketch = decode(payload, SHAPE, "A sketch") if payload else None
        return sketch if sketch is not None and sketch.any() else None

    def postprocess(self, value: np.ndarray | None) -> str | None:
        """The sketch in base64; ValueError where it is not uint8 (28, 28)."""
        return None if value is None else encode(_square(value, "A sketch"))

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type."""
        return {"type": "string", "description": "784 bytes in base64: 28 rows of 28 grey levels, white ink on black"}

    def example_payload(self) -> str:
        """A black sketch in base64."""
        return encode(self.example_value())

    def example_value(self) -> np.ndarray:
        """A black sketch."""
        return np.zeros(SHAPE, np.uint8)


class MaskPad(gr.HTML):
    """A pad that paints a mask over a picture; set it to a picture or to Masked, and it gives Masked, or None."""

    def __init__(self, value: Masked | np.ndarray | None = None, *, label: str = "Paint what to change", **layout: Any):
        super().__init__(value=value, label=label, **_parts("mask"), **layout)

    def preprocess(self, payload: Any) -> Masked | None:
        """The picture with its mask, or None where there is no picture."""
        if not payload:
            return None
        picture, mask = (payload.get(name) if isinstance(payload, dict) else None for name in ("picture", "mask"))
        return Masked(decode(picture, SHAPE, "The picture"), decode(mask, SHAPE, "The mask") > 127)

    def postprocess(self, value: Masked | np.ndarray | None) -> dict[str, str] | None:
        """Picture and mask in base64, the mask empty where only a picture is given; ValueError for other shapes."""
        if value is None:
            return None
        picture, mask = value if isinstance(value, tuple) else (value, np.zeros(SHAPE, bool))
        mask = np.where(mask, 255, 0).astype(np.uint8)
        return {"picture": encode(_square(picture, "The picture")), "mask": encode(_square(mask, "The mask"))}

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type."""
        return {"type": "object", "description": "{picture, mask}: 784 bytes each in base64; mask 255 is painted anew"}

    def example_payload(self) -> dict[str, str] | None:
        """A black picture with an empty mask, in base64."""
        return self.postprocess(self.example_value())

    def example_value(self) -> Masked:
        """A black picture with an empty mask."""
        return Masked(np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, bool))


def _parts(mode: Literal["ink", "mask"]) -> dict[str, Any]:
    """What the two pads share."""
    return {
        "html_template": TEMPLATE,
        "css_template": asset("controls.css", "pad.css"),
        "js_on_load": asset("pixels.js", "pad.js"),
        "apply_default_css": False,
        "mode": mode,
    }


def _square(pixels: np.ndarray, what: str) -> np.ndarray:
    """The pixels, where they are 28 x 28; ValueError otherwise."""
    pixels = np.asarray(pixels)
    if pixels.shape != SHAPE:
        raise ValueError(f"{what} must have shape {SHAPE}; got {pixels.shape}.")
    return pixels
