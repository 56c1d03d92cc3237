"""NoiseBench: a picture under the noise of any level of any schedule, mixed in the browser while the slider moves."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from diffusion.ui.widgets.pixels import asset, encode, pack

TEMPLATE = """
<div class="bench">
<div class="mix">
  <div class="parts">
    <figure><canvas class="clean" role="img"></canvas><figcaption><b class="a"></b> × picture</figcaption></figure>
    <span class="sign" aria-hidden="true">+</span>
    <figure><canvas class="noise" role="img"></canvas><figcaption><b class="s"></b> × noise</figcaption></figure>
    <span class="sign" aria-hidden="true">=</span>
  </div>
  <figure class="state"><canvas class="noised" role="img"></canvas>
    <figcaption><b>xₜ</b> as this schedule has it</figcaption></figure>
  <figure class="state"><canvas class="shared" role="img"></canvas>
    <figcaption><b>x₀ + σε</b> on one scale for all</figcaption></figure>
</div>
<div class="level">
  <input class="slide" type="range" min="0" max="1" value="0" step="1" aria-label="Time t">
  <div class="ends" aria-hidden="true"><span>t = 0, picture</span><span>t = 1, noise</span></div>
</div>
<dl class="numbers"></dl>
<fieldset class="schedules"><legend class="title">Schedule</legend><div class="chips"></div></fieldset>
<p class="path"></p>
<fieldset class="keep"><legend class="title">Another schedule keeps</legend><div class="chips">
  <label><input type="radio" value="sigma" checked><span>the noise level σ</span></label>
  <label><input type="radio" value="time"><span>the time t</span></label></div>
</fieldset>
<p class="title">From picture to noise</p>
<div class="ladder"></div>
</div>
"""


class Path(NamedTuple):
    """A schedule on display: x_t = a x0 + s eps at evenly spaced times t, and beta where the schedule has one.

    name: on its button; text: one line about it; t, a, s, sigma, beta: (T,), the times from 0 to 1.
    """

    name: str
    text: str
    t: np.ndarray
    a: np.ndarray
    s: np.ndarray
    sigma: np.ndarray
    beta: np.ndarray | None


class NoiseBench(gr.HTML):
    """Mixes picture and noise at the level of a slider; its value is a mixture(...).

    What it shows, it announces on the page as the event "noise-level", which NoiseCurves draws.
    """

    def __init__(
        self,
        value: dict[str, Any] | None = None,
        *,
        label: str = "Noise",
        paths: Sequence[Path | dict[str, Any]] = (),
        opening: tuple[int, float] = (0, 0.5),
        **layout: Any,
    ):
        """paths: the schedules, all at the same number of times; opening: the number of the first one shown, and t."""
        super().__init__(
            value=value,
            label=label,
            html_template=TEMPLATE,
            css_template=asset("controls.css", "slide.css", "lines.css", "bench.css"),
            js_on_load=asset("pixels.js", "plot.js", "bench.js"),
            apply_default_css=False,
            # Gradio builds a component again to update it, from what it was sent as.
            paths=[path if isinstance(path, dict) else _sent(path) for path in paths],
            opening=list(opening),
            **layout,
        )

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """The payload as mixture() built it."""
        return value

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type."""
        return {"type": "object", "description": "{w, h, px, eps}: a picture's bytes and its noise's floats in base64"}

    def example_payload(self) -> dict[str, Any]:
        """A black picture without noise."""
        return mixture(np.zeros((28, 28), np.uint8), np.zeros((28, 28), np.float32))

    def example_value(self) -> dict[str, Any]:
        """The same."""
        return self.example_payload()


def mixture(picture: np.ndarray, eps: np.ndarray) -> dict[str, Any]:
    """What a NoiseBench mixes: a picture, uint8 (H, W) or (H, W, 3), and unit noise of the same shape."""
    if picture.shape != eps.shape:
        raise ValueError(f"Picture and noise must have one shape; got {picture.shape} and {eps.shape}.")
    return pack(picture) | {"eps": floats(eps)}


def floats(values: np.ndarray) -> str:
    """Numbers as base64 of little-endian float32; infinity stays infinity."""
    return encode(np.ascontiguousarray(values, "<f4").ravel().view(np.uint8))


def _sent(path: Path) -> dict[str, Any]:
    arrays = {name: floats(getattr(path, name)) for name in ("t", "a", "s", "sigma")}
    return {"name": path.name, "text": path.text, **arrays, "beta": None if path.beta is None else floats(path.beta)}
