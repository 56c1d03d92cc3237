"""TradeoffPlot: what each row of a ScoreTable reaches for how many network calls, on a logarithmic axis."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from diffusion.ui.widgets.pixels import asset

TEMPLATE = """
<figure class="tradeoff">
  <p class="title"></p>
  <svg class="plot" role="img"></svg>
  <p class="axis"></p>
  <ul class="legend"></ul>
  <figcaption class="hint" aria-hidden="true"></figcaption>
</figure>
"""


class Point(NamedTuple):
    """calls: 1 or more; share: 0 to 1; text: what the point says when it is pointed at."""

    calls: int
    share: float
    text: str


class Line(NamedTuple):
    """A row's name and its points, in the order of their calls; row: its number in the table, for colour and shape."""

    name: str
    row: int
    points: Sequence[Point]


def tradeoff(title: str, lines: Sequence[Line], *, ends: tuple[int, int]) -> dict[str, Any]:
    """A plot for a TradeoffPlot; ends: the calls that its axis reaches to at least, before there are any points."""
    return {
        "title": title,
        "ends": list(ends),
        "lines": [
            {"name": line.name, "row": line.row, "points": [point._asdict() for point in line.points]} for line in lines
        ],
    }


class TradeoffPlot(gr.HTML):
    """A plot whose value is a tradeoff(...)."""

    def __init__(self, value: dict[str, Any] | None = None, *, label: str = "Trade-off", **layout: Any):
        super().__init__(
            value=value,
            label=label,
            html_template=TEMPLATE,
            css_template=asset("controls.css", "lines.css", "marks.css", "tradeoff.css"),
            js_on_load=asset("pixels.js", "plot.js", "marks.js", "tradeoff.js"),
            apply_default_css=False,
            **layout,
        )

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """The payload as tradeoff() built it."""
        return value

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type."""
        return {"type": "object", "description": "{title, ends, lines: [{name, row, points: [{calls, share, text}]}]}"}

    def example_payload(self) -> dict[str, Any]:
        """A line of one point."""
        return tradeoff("Example", [Line("Line", 0, [Point(10, 0.5, "half")])], ends=(1, 100))

    def example_value(self) -> dict[str, Any]:
        """The same, as a handler returns it."""
        return self.example_payload()
