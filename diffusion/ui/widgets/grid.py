"""DigitGrid: up to 64 small pictures, drawn while they are made and then chosen from with pointer or keyboard."""

from collections.abc import Sequence
from typing import Any, Literal

import gradio as gr
import numpy as np

from diffusion.ui.widgets.pixels import asset, encode, planes

Mark = Literal["agree", "doubt", "differ"]
LIMIT = 64

TEMPLATE = """
<div class="cells" role="listbox"></div>
<p class="detail" aria-hidden="true"></p>
"""


def grid(
    images: np.ndarray,
    *,
    captions: Sequence[str] = (),
    marks: Sequence[Mark | None] = (),
    done: bool = True,
) -> dict[str, Any]:
    """Pictures for a DigitGrid: uint8 (N, H, W) or (N, H, W, 3), N from 1 to 64.

    captions, marks: none or N; a mark says whether a judge agrees with what was asked for, as shape, colour and word.
    done=False draws a run under way, done=True makes the pictures selectable. ValueError where the numbers do not fit.
    """
    images = planes(images, "A grid's pictures")
    count = len(images)
    if count > LIMIT:
        raise ValueError(f"A grid shows 1 to {LIMIT} pictures; got {count}.")
    for name, entries in (("captions", captions), ("marks", marks)):
        if len(entries) not in (0, count):
            raise ValueError(f"A grid of {count} pictures needs {count} {name}; got {len(entries)}.")
    return {
        "count": count,
        "w": images.shape[2],
        "h": images.shape[1],
        "px": encode(images),
        "captions": list(captions),
        "marks": list(marks),
        "done": done,
        "selected": None,
    }


class DigitGrid(gr.HTML):
    """A picture grid whose value is a grid(...); as an input it gives the index of the selected picture, or None."""

    def __init__(
        self,
        value: dict[str, Any] | None = None,
        *,
        label: str = "Pictures",
        columns: int | None = None,
        narrowest: int = 96,
        **layout: Any,
    ):
        """columns: pictures in a row, where each gets `narrowest` pixels or more, as its caption needs.

        By default, and where there is less room, the grid is nearly square.
        """
        super().__init__(
            value=value,
            label=label,
            html_template=TEMPLATE,
            css_template=asset("controls.css", "grid.css"),
            js_on_load=asset("pixels.js", "grid.js"),
            apply_default_css=False,
            columns=columns,
            narrowest=narrowest,
            **layout,
        )

    def preprocess(self, payload: Any) -> int | None:
        """The index of the selected picture, or None where none is selected."""
        selected = payload.get("selected") if isinstance(payload, dict) else None
        if selected is None:
            return None
        if not isinstance(selected, int) or isinstance(selected, bool) or not 0 <= selected < LIMIT:
            raise gr.Error(f"The selected picture must be a number from 0 to {LIMIT - 1}.", print_exception=False)
        return selected

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """The payload as grid() built it."""
        return value

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type."""
        return {"type": "object", "description": "{count, w, h, px, captions, marks, done, selected}; px is base64"}

    def example_payload(self) -> dict[str, Any]:
        """One selected black picture."""
        return {**self.example_value(), "selected": 0}

    def example_value(self) -> dict[str, Any]:
        """One black picture, as a handler returns it."""
        return grid(np.zeros((1, 28, 28), np.uint8))
