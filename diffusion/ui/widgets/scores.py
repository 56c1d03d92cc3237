"""ScoreTable: a table whose cells are small contact sheets with their scores, filled while it is computed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from diffusion.ui.widgets.pixels import asset, encode
from diffusion.ui.widgets.player import tile

PICTURES, ACROSS = 10, 5  # of a cell's pictures that its sheet shows, and of these in a row

TEMPLATE = """
<div class="frame"><table><caption class="unseen"></caption><thead></thead><tbody></tbody></table></div>
<p class="about"></p>
"""


class Fact(NamedTuple):
    """A number in a cell; meaning: what only listeners need to be told; best: no other cell's is better."""

    text: str
    meaning: str = ""
    best: bool = False


class Filled(NamedTuple):
    """A finished cell: pictures uint8 (N, H, W), of which the first are shown, and facts in lines of two."""

    pictures: np.ndarray
    facts: Sequence[Fact]


class Row(NamedTuple):
    """A row's head, and its cells: Filled, "running" or "waiting"; a single cell is as wide as all columns."""

    name: str
    note: str
    cells: Sequence[Filled | str]


def scores(
    run: str, caption: str, corner: str, columns: Sequence[str], rows: Sequence[Row], *,
    key: str = "", selected: tuple[int, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A table for a ScoreTable.

    run: a text that is new for each table; caption: what screen readers say it is; corner: the head of the rows' heads;
    key: what the cells hold; selected: row and column of the cell that is marked unless the visitor has chosen one.
    ValueError where a row has neither one cell nor one for each column.
    """
    for row in rows:
        if len(row.cells) not in (1, len(columns)):
            raise ValueError(f"A row has one cell or {len(columns)}, one for each column; got {len(row.cells)}.")
    return {
        "run": run,
        "caption": caption,
        "corner": corner,
        "key": key,
        "columns": list(columns),
        "rows": [{"name": row.name, "note": row.note, "cells": [_sent(cell) for cell in row.cells]} for row in rows],
        "selected": list(selected) if selected else None,
    }


def _sent(cell: Filled | str) -> dict[str, Any]:
    if isinstance(cell, str):
        return {"state": cell}
    sheet = tile(cell.pictures[:PICTURES], ACROSS)
    return {
        "state": "done",
        "w": sheet.shape[1],
        "h": sheet.shape[0],
        "px": encode(sheet),
        "facts": [fact._asdict() for fact in cell.facts],
    }


class ScoreTable(gr.HTML):
    """A table whose value is a scores(...).

    Choosing a finished cell is its select event, whose index is [row, column] and whose value is the table's run.
    """

    def __init__(self, value: dict[str, Any] | None = None, *, label: str = "Scores", **layout: Any):
        super().__init__(
            value=value,
            label=label,
            html_template=TEMPLATE,
            css_template=asset("controls.css", "lines.css", "marks.css", "scores.css"),
            js_on_load=asset("pixels.js", "plot.js", "marks.js", "scores.js"),
            apply_default_css=False,
            **layout,
        )

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """The payload as scores() built it."""
        return value

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type."""
        return {"type": "object", "description": "{run, caption, corner, key, columns, rows, selected}"}

    def example_payload(self) -> dict[str, Any]:
        """A table of one cell that waits."""
        return scores("example", "Example", "Row", ["Column"], [Row("Row", "", ["waiting"])])

    def example_value(self) -> dict[str, Any]:
        """The same, as a handler returns it."""
        return self.example_payload()
