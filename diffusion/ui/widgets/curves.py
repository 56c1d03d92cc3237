"""NoiseCurves: beta, alpha-bar, sigma and signal-to-noise ratio of every schedule, at the level that is on show."""

from typing import Any

import gradio as gr

from diffusion.ui.widgets.pixels import asset

TEMPLATE = """
<div class="board"><div class="sheet">
  <div class="side">
    <p class="title">At the level on show</p>
    <div class="wide"><table><thead><tr><th scope="col">Schedule</th><th scope="col">t</th><th scope="col">aₜ</th>
      <th scope="col">sₜ</th><th scope="col">σ</th></tr></thead><tbody></tbody></table></div>
    <p class="note"></p>
  </div>
  <div class="charts"></div>
</div></div>
"""


class NoiseCurves(gr.HTML):
    """Draws what a NoiseBench on the same page announces; a click or drag in a chart moves that bench's slider."""

    def __init__(self, *, label: str = "Schedules", **layout: Any):
        super().__init__(
            value=None,
            label=label,
            html_template=TEMPLATE,
            css_template=asset("controls.css", "lines.css", "curves.css"),
            js_on_load=asset("pixels.js", "plot.js", "curves.js"),
            apply_default_css=False,
            **layout,
        )
