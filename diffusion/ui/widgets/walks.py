"""WalkPlot: paths of points on a line through the noise levels, over the score that drives them, played both ways."""

from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from diffusion.ui.widgets.pixels import asset, encode

REACH = 3.25  # the plot shows positions from -REACH to REACH
BINS = 65  # an odd number: round positions lie inside a bin, not between two
FIELD = 3.0  # the strongest score that its colours tell apart

TEMPLATE = """
<figure class="walks">
  <fieldset class="ways"><legend class="unseen">Direction</legend><div class="chips">
    <label><input type="radio" value="backward" checked><span>Backward: noise to data</span></label>
    <label><input type="radio" value="forward"><span>Forward: data to noise</span></label></div></fieldset>
  <canvas class="plane" role="img"></canvas>
  <div class="bar">
    <button type="button" class="play" aria-label="Play">
      <svg viewBox="0 0 24 24" aria-hidden="true"><path class="to-play" d="M7 4.5v15l12-7.5z"></path>
      <path class="to-pause" d="M8 5v14M16 5v14"></path></svg>
    </button>
    <input class="slide" type="range" min="0" max="1" value="0" step="1" aria-label="Step">
    <output class="position"></output>
  </div>
  <figcaption>
    <span><i class="down"></i>the score pushes down</span>
    <span><i class="up"></i>it pushes up</span>
    <span><i class="exact"></i>exact distribution</span>
    <span><i class="found"></i>where the points are</span>
  </figcaption>
</figure>
"""


class Walk(NamedTuple):
    """One way through the levels.

    paths: positions (T, N), each path a column, in the order of the times of the plot; start, end: the share of all
    points in each bin where t = 0 and where t = 1, (BINS,).
    """

    paths: np.ndarray
    start: np.ndarray
    end: np.ndarray


def walks(
    times: np.ndarray, sigmas: np.ndarray, field: np.ndarray, forward: Walk, backward: Walk, exact: Walk
) -> dict[str, Any]:
    """What a WalkPlot draws.

    times: (T,) rising from 0 to 1, with their noise levels sigmas (T,); field: the score in units of the noise, (rows,
    columns), the first row at REACH, the columns over even times; exact: the shares as they should be, without paths.
    """
    shades = (127.5 + 127.5 * np.clip(field / FIELD, -1, 1)).round().astype(np.uint8)

    def sent(walk: Walk) -> dict[str, Any]:
        steps = np.clip(walk.paths / REACH / 2, -1, 1) * 32767  # twice what is shown: a path may leave and come back
        return {
            "px": encode(np.ascontiguousarray(steps.round(), "<i2").ravel().view(np.uint8)),
            "start": [round(float(share), 5) for share in walk.start],
            "end": [round(float(share), 5) for share in walk.end],
        }

    return {
        "times": [round(float(t), 5) for t in times],
        "sigmas": [float(f"{sigma:.4g}") for sigma in sigmas],
        "count": forward.paths.shape[1],
        "field": {"w": field.shape[1], "h": field.shape[0], "px": encode(shades)},
        "forward": sent(forward),
        "backward": sent(backward),
        "exact": sent(exact),
    }


class WalkPlot(gr.HTML):
    """A plot of time against position whose value is a walks(...)."""

    def __init__(self, value: dict[str, Any] | None = None, *, label: str = "Paths", **layout: Any):
        super().__init__(
            value=value,
            label=label,
            html_template=TEMPLATE,
            css_template=asset("controls.css", "slide.css", "walks.css"),
            js_on_load=asset("pixels.js", "plot.js", "walks.js"),
            apply_default_css=False,
            reach=REACH,
            **layout,
        )

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """The payload as walks() built it."""
        return value

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type."""
        return {
            "type": "object",
            "description": "{times, sigmas, count, field, forward, backward, exact}; px is base64",
        }

    def example_payload(self) -> dict[str, Any]:
        """One path that stays where it is."""
        still = Walk(np.zeros((2, 1)), np.zeros(BINS), np.zeros(BINS))
        return walks(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.zeros((2, 2)), still, still, still)

    def example_value(self) -> dict[str, Any]:
        """The same, as a handler returns it."""
        return self.example_payload()
