"""DigitPicker: what is asked for, one class of a true radio group, or a sentence with examples to start from."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from diffusion.request import MAX_PROMPT
from diffusion.ui.widgets.pixels import asset, pack

EACH = "each"
"""What a picker gives where the entry for every class in turn is selected."""

TEMPLATE = """
<fieldset>
  <legend class="title"></legend>
  <textarea class="sentence" rows="2" data-longest="{longest}" spellcheck="false" hidden></textarea>
  <p class="cut" role="status"></p>
  <div class="choices"></div>
</fieldset>
""".replace("{longest}", str(MAX_PROMPT))


class DigitPicker(gr.HTML):
    """A picker whose value is one of its choices, "" for any, or EACH for all in turn; a free one takes any text."""

    def __init__(
        self,
        choices: Sequence[str],
        value: str | None = None,
        *,
        label: str = "Digit",
        thumbnails: Sequence[np.ndarray | dict[str, Any]] = (),
        any: str | None = None,
        each: str | None = None,
        free: bool = False,
        **layout: Any,
    ):
        """choices: prompts in order, where it is free only examples; thumbnails: none, or for each choice a picture,
        uint8 (H, W) or (H, W, 3); any, each: the texts of entries before them, whose values are the unconditional
        prompt "" and EACH; value: the first entry by default."""
        choices = [str(choice) for choice in choices]
        entries = _allowed(choices, any, each)
        if not entries or len(thumbnails) not in (0, len(choices)):
            raise ValueError(
                f"A picker needs choices, and no thumbnails or one for each; got {len(choices)} and {len(thumbnails)}."
            )
        super().__init__(
            value=entries[0] if value is None else value,
            label=label,
            html_template=TEMPLATE,
            css_template=asset("controls.css", "picker.css"),
            js_on_load=asset("pixels.js", "picker.js"),
            apply_default_css=False,
            choices=choices,
            thumbnails=_packed(thumbnails),
            any=any,
            each=each,
            free=free,
            **layout,
        )

    @staticmethod
    def showing(
        choices: Sequence[str],
        value: str | None,
        *,
        thumbnails: Sequence[np.ndarray] = (),
        free: bool = False,
        **more: Any,
    ) -> dict[str, Any]:
        """The properties that show other choices, for a constructor or a gr.update."""
        return {
            "choices": [str(choice) for choice in choices],
            "thumbnails": _packed(thumbnails),
            "value": value,
            "free": free,
            **more,
        }

    def preprocess(self, payload: Any) -> str:
        """What was selected or typed, as text; its handler judges it by the model that it is for, since while a page
        turns to another model, choices and selection may be of different ones for a moment."""
        if not isinstance(payload, str) or len(payload) > MAX_PROMPT:
            raise gr.Error(f"{self.label} must be text of at most {MAX_PROMPT} characters.", print_exception=False)
        return payload

    def postprocess(self, value: str | int | None) -> str | None:
        """The prompt to select."""
        return None if value is None else str(value)

    def get_config(self) -> dict[str, Any]:
        """What the page is told; without the properties, which Gradio would take for events named like them, and copy
        with all that hangs on them, the model too, for every visitor."""
        return {name: value for name, value in super().get_config().items() if name not in self.props}

    def api_info(self) -> dict[str, Any]:
        """The payload's JSON type with its choices."""
        if self.props["free"]:
            return {"type": "string", "maxLength": MAX_PROMPT}
        return {"type": "string", "enum": _allowed(self.props["choices"], self.props["any"], self.props["each"])}

    def example_payload(self) -> str:
        """The first entry."""
        return _allowed(self.props["choices"], self.props["any"], self.props["each"])[0]

    def example_value(self) -> str:
        """The first entry."""
        return _allowed(self.props["choices"], self.props["any"], self.props["each"])[0]


def _allowed(choices: list[str], any: str | None, each: str | None) -> list[str]:
    return [*([] if any is None else [""]), *([] if each is None else [EACH]), *choices]


def _packed(thumbnails: Sequence[np.ndarray | dict[str, Any]]) -> list[dict[str, Any]]:
    """Thumbnails as the page gets them, where they are not yet: Gradio builds a component again to update it."""
    return [thumbnail if isinstance(thumbnail, dict) else pack(thumbnail) for thumbnail in thumbnails]
