"""FramePlayer: a film of one or more pictures side by side, streamed as it is made, then scrubbed in the browser."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
import numpy as np

from diffusion.ui.widgets.pixels import asset, encode, planes

TEMPLATE = """
<figure class="player">
  <div class="panes"></div>
  <div class="bar">
    <button type="button" class="play" aria-label="Play" disabled>
      <svg viewBox="0 0 24 24" aria-hidden="true"><path class="to-play" d="M7 4.5v15l12-7.5z"></path>
      <path class="to-pause" d="M8 5v14M16 5v14"></path></svg>
    </button>
    <div class="track">
      <input class="scrub" type="range" min="0" max="0" value="0" step="1" disabled>
      <div class="ends" hidden><span></span><span></span></div>
    </div>
    <output class="position"></output>
    <select class="speed" aria-label="Playing speed" disabled>
      <option value="0.25">¼×</option><option value="0.5">½×</option><option value="1" selected>1×</option>
      <option value="2">2×</option>
    </select>
  </div>
  <figcaption hidden><p class="caption"></p><p class="formula"></p></figcaption>
  <div class="curves" hidden><ul></ul><svg role="img"></svg></div>
</figure>
"""


def frame(
    run: str,
    index: int,
    panes: Mapping[str, np.ndarray],
    *,
    total: int | None = None,
    caption: str = "",
    formula: str = "",
) -> dict[str, Any]:
    """One frame for a FramePlayer, sent while a run is under way.

    run: a text that is new for each run; index: from 0; panes: title -> uint8 (H, W) or (H, W, 3);
    total: the number of frames to come in all, where known. ValueError for any other kind of picture.
    """
    pictures = {title: planes(np.asarray(pixels)[None], f"Pane '{title}'")[0] for title, pixels in panes.items()}
    return {
        "run": run,
        "i": index,
        "total": total,
        "panes": [
            {"label": title, "w": pixels.shape[1], "h": pixels.shape[0], "px": encode(pixels)}
            for title, pixels in pictures.items()
        ],
        "caption": caption,
        "formula": formula,
    }


def film(
    run: str,
    panes: Mapping[str, np.ndarray],
    *,
    curves: Mapping[str, Sequence[float]] | None = None,
    captions: Sequence[str] = (),
    formulas: Sequence[str] = (),
    ends: tuple[str, str] | None = None,
    start: int = -1,
) -> dict[str, Any]:
    """The whole film for a FramePlayer: every later move of the slider happens in the browser.

    panes: title -> uint8 (T, H, W) or (T, H, W, 3); curves: title -> T values >= 0, drawn on one logarithmic axis,
    where 0 and infinity appear as numbers only; captions, formulas: none or T plain texts; ends: what the slider's
    two ends mean; start: the frame shown first. ValueError where lengths differ or a value is negative or not a number.
    """
    pictures = {title: planes(pixels, f"Pane '{title}'") for title, pixels in panes.items()}
    if not pictures:
        raise ValueError("A film needs at least one pane; got none.")
    total = len(next(iter(pictures.values())))
    parts = {f"pane '{title}'": pixels for title, pixels in pictures.items()}
    parts |= {f"curve '{title}'": values for title, values in (curves or {}).items()}
    parts |= {name: texts for name, texts in (("captions", captions), ("formulas", formulas)) if len(texts)}
    for name, part in parts.items():
        if len(part) != total:
            raise ValueError(f"A film of {total} frames needs {total} entries in {name}; got {len(part)}.")
    return {
        "run": run,
        "total": total,
        "panes": [
            {"label": title, "w": pixels.shape[2], "h": pixels.shape[1], "all": encode(pixels)}
            for title, pixels in pictures.items()
        ],
        "curves": [
            {"label": title, "values": [_plain(value, title) for value in values]}
            for title, values in (curves or {}).items()
        ],
        "captions": list(captions),
        "formulas": list(formulas),
        "ends": list(ends) if ends else None,
        "start": start % total,
    }


def _plain(value: float, title: str) -> float | None:
    """A curve's value for JSON, which has no infinity: None stands for it."""
    value = float(value)
    if math.isnan(value) or value < 0:
        raise ValueError(f"Curve '{title}' must hold values from 0 to infinity; got {value}.")
    return None if math.isinf(value) else value


def tile(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Pictures (N, H, W) or (N, H, W, 3) as one contact sheet with black seams of one pixel, near-square by default."""
    images = planes(images, "A contact sheet's pictures")
    count, height, width = images.shape[:3]
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, *images.shape[3:]), images.dtype)
    for index, picture in enumerate(images):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        sheet[top : top + height, left : left + width] = picture
    return sheet


class FramePlayer(gr.HTML):
    """A film player whose value is a frame(...) or film(...); as an input it gives the index of the frame shown."""

    def __init__(
        self,
        value: dict[str, Any] | None = None,
        *,
        label: str = "Animation",
        panes: Sequence[str] = ("Picture",),
        step: str = "Step",
        origin: int = 1,
        fps: float = 12,
        loop: bool = False,
        autoplay: bool = False,
        **layout: Any,
    ):
        """panes: titles shown while empty; step: what one frame is called; origin: the number of the first frame;
        fps: frames per second at speed 1; autoplay: play each finished film once it arrives, except where the
        visitor asks for reduced motion."""
        super().__init__(
            value=value,
            label=label,
            html_template=TEMPLATE,
            css_template=asset("controls.css", "player.css"),
            js_on_load=asset("pixels.js", "plot.js", "player.js"),
            apply_default_css=False,
            panes=list(panes),
            step=step,
            origin=origin,
            fps=fps,
            loop=loop,
            autoplay=autoplay,
            **layout,
        )

    def preprocess(self, payload: Any) -> int | None:
        """The index of the frame shown, or None where there is no film."""
        if not payload:
            return None
        shown = payload.get("shown", payload.get("start", payload.get("i"))) if isinstance(payload, dict) else None
        if not isinstance(shown, int) or isinstance(shown, bool) or not 0 <= shown < 100_000:
            raise gr.Error("The player must name the frame it shows by its number.", print_exception=False)
        return shown

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """The payload as frame() or film() built it."""
        return value

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type."""
        return {"type": "object", "description": "a frame {run, i, panes} or a film {run, total, panes}; base64"}

    def example_payload(self) -> dict[str, Any]:
        """A film of two black frames."""
        return film("example", {"Picture": np.zeros((2, 28, 28), np.uint8)})

    def example_value(self) -> dict[str, Any]:
        """The same film, as a handler returns it."""
        return self.example_payload()
