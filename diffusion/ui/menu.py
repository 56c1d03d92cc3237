"""The menu of checkpoints: when another is chosen, the tabs follow."""

from functools import partial
from typing import Any

import gradio as gr

from diffusion.ui import links
from diffusion.ui.controls import ENGINE
from diffusion.ui.lab import Lab, about, following, updates
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Studio


def build(shelf: Shelf) -> tuple[gr.Dropdown, gr.HTML, gr.State, gr.State]:
    """Draws the menu and a line on what was chosen."""
    first = shelf.default
    with gr.Row(elem_classes="lab-menu", equal_height=True):
        model = gr.Dropdown(
            list(shelf.names),
            value=first.name,
            label="Model",
            filterable=False,
            min_width=220,
            scale=0,
            elem_id="model",
        )
        line = gr.HTML(about(first), elem_id="model-about", elem_classes="lab-note")
    return model, line, gr.State(first.name), gr.State(None)


def wire(shelf: Shelf, lab: Lab) -> None:
    """Connects the menu and all that follows it, one event a tab: each takes its time, and the first is seen first."""
    page = lab.generate
    lab.model.input(
        # The dropdown tells of one choice twice, at once; one after the other, the second finds nothing to do.
        lambda name, shown: (gr.skip(), gr.skip()) if name == shown else (name, None),
        [lab.model, lab.shown], [lab.shown, lab.pending],
        concurrency_limit=1, api_name="_menu_chosen", api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    outputs = list(dict.fromkeys([lab.model, lab.about, *following(page, shelf.default), *page.settings, page.arrived]))

    def turn(studio: Studio, pending: tuple[dict[str, Any], bool] | None) -> list[Any]:
        settings, make = pending or ({}, False)
        shown = dict(zip(following(page, studio), updates(page, studio), strict=True))
        shown |= {lab.model: studio.name, lab.about: about(studio), page.arrived: make}
        shown |= links.chosen(page, shown, settings)
        return [shown.get(component, gr.skip()) for component in outputs]

    turned = {"api_visibility": "private", "trigger_mode": "always_last", **ENGINE}
    lab.shown.change(
        shelf.on(turn), [lab.shown, lab.pending], outputs,
        api_name="_generate_turn", show_progress="minimal", show_progress_on=lab.about, **turned,
    )  # fmt: skip
    for name in ("denoise", "prompt", "image", "vae", "noise", "compare"):
        own = getattr(lab, name)
        lab.shown.change(
            shelf.on(partial(updates, own)), lab.shown, following(own, shelf.default),
            api_name=f"_{name}_turn", show_progress="hidden", **turned,
        )  # fmt: skip
