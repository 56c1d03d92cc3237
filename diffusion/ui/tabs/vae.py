"""The VAE tab: a picture on its way into the latent space and back, the walk between two, and what noise decodes to."""

import html
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import gradio as gr
import numpy as np

from diffusion.export import read_picture
from diffusion.ui import variational
from diffusion.ui.controls import ENGINE, MAX_UI_SEED, Shown, explain
from diffusion.ui.lab import Lab
from diffusion.ui.latents import CSS, denoised, reason, through, walk
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Studio
from diffusion.ui.widgets import DigitPicker, FramePlayer

FIRST, SECOND = (5, 0), (6, 1)  # the opening pictures: class and number; a picker shows one number of each class
OPENING_SEED = 8  # of the noise
OPENING = "Made when the model was opened. "


@cache
def shown(studio: Studio) -> Shown:
    """What the tab shows of a model's autoencoder, or that it has none."""
    kinds = studio.kinds
    one, other = FIRST[0] % len(kinds), SECOND[0] % len(kinds)
    pickers = {
        "picker": DigitPicker.showing(kinds, kinds[one], thumbnails=studio.nth(FIRST[1])),
        "goal": DigitPicker.showing(kinds, kinds[other], thumbnails=studio.nth(SECOND[1])),
        "nth": {"value": FIRST[1]},
        "goal_nth": {"value": SECOND[1]},
    }
    if not studio.latent:
        texts = ("lead", "panes", "facts", "status", "walk", "noise_lead", "noise", "noise_status", "reason", "note")
        why = f"{studio.name} has no autoencoder to take apart: it diffuses the pixels themselves."
        return {
            "absent": {"value": f"<p>{html.escape(why)} Choose another model in the menu above.</p>", "visible": True},
            "room": {"visible": False},
            **{name: {"value": None} for name in texts},
            **{name: {"value": None} for name in ("first", "second")},
            **pickers,
            **variational.shown(studio, None, None),
        }
    codec = studio.pipeline.codec
    pixels, numbers = math.prod(codec.image_shape), math.prod(codec.latent_shape)
    what = "pixels" if codec.image_shape[0] == 1 else "colour values"
    pictures = studio.nth(FIRST[1])[one], studio.nth(SECOND[1])[other]
    panes, facts, status = through(studio, pictures[0], OPENING)
    *_, (sampled, cost) = denoised(studio, OPENING_SEED, OPENING)
    table, note = reason(studio)
    return {
        "absent": {"visible": False},
        "room": {"visible": True},
        "lead": {
            "value": f"The denoiser works on latents: an encoder turns {pixels} {what} into {numbers} numbers, and a "
            f"decoder draws a picture from those alone. Pick a {studio.noun} and see what survives."
        },
        "first": {"value": pictures[0]},
        "second": {"value": pictures[1]},
        "panes": {"value": panes},
        "facts": {"value": facts},
        "status": {"value": status},
        "walk": {"value": walk(studio, *pictures)},
        "noise_lead": {
            "value": f"## Noise, decoded\n\nThe decoder draws something from any {numbers} numbers: on the left from "
            "four draws of noise, on the right from the same four once the denoiser has worked on them."
        },
        "noise": {"value": sampled},
        "noise_status": {"value": cost},
        "reason": {"value": table},
        "note": {"value": note},
        **pickers,
        **variational.shown(studio, *pictures),
    }


@dataclass(frozen=True)
class Handles:
    """The tab's components; whoever sets `first` or `second` to a picture of the model's size, uint8 (H, W) or
    (H, W, 3), shows it.

    The event that sets them must be queued: Gradio announces a state's change to no other.
    """

    tab: gr.Tab
    absent: gr.HTML
    room: gr.Column
    lead: gr.Markdown
    first: gr.State
    second: gr.State
    picker: DigitPicker
    another: gr.Button
    upload: gr.UploadButton
    nth: gr.State  # which of the class's examples `first` is
    panes: gr.HTML
    facts: gr.HTML
    status: gr.HTML
    goal: DigitPicker
    another_goal: gr.Button
    goal_nth: gr.State
    walk: FramePlayer
    again: gr.Button
    noise_lead: gr.Markdown
    noise: FramePlayer
    noise_status: gr.HTML
    reason: gr.HTML
    note: gr.HTML
    why: variational.Lesson

    shown = staticmethod(shown)


def build(shelf: Shelf) -> Handles:
    """Draws the tab, with the default model's autoencoder."""
    now = shown(shelf.default)
    with gr.Tab("VAE", id="vae") as tab:
        absent = gr.HTML(**now["absent"], elem_classes="lab-lead", elem_id="vae-absent")
        states = (gr.State(now[name]["value"]) for name in ("first", "second", "nth", "goal_nth"))
        first, second, nth, goal_nth = states
        with gr.Column(**now["room"], elem_id="vae-room") as room:
            lead = gr.Markdown(**now["lead"], elem_classes="lab-lead")
            with gr.Column(elem_classes="lab-card"):
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=280, scale=4):
                        picker = DigitPicker(**now["picker"], label="Test image", elem_id="vae-picker")
                    with gr.Column(min_width=200, scale=1):
                        another = gr.Button("Another like it", variant="primary", elem_id="vae-another")
                        upload = gr.UploadButton(
                            "Your own picture", file_types=[".png", ".jpg", ".jpeg", ".webp"], elem_id="vae-upload"
                        )
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=280, scale=4):
                        panes = gr.HTML(**now["panes"], css_template=CSS, apply_default_css=False, elem_id="vae-panes")
                    with gr.Column(min_width=200, scale=1):
                        facts = gr.HTML(**now["facts"], elem_classes="lab-facts", elem_id="vae-facts")
                        status = gr.HTML(**now["status"], elem_classes="lab-status", elem_id="vae-status")

            gr.Markdown(
                "## Walk between two pictures\n\n"
                "From the picture above to a second one: on the left through the latents in between, each decoded, on "
                "the right by mixing the pixels. Move the slider.",
                elem_classes="lab-lead",
            )
            with gr.Row(elem_classes="lab-card", equal_height=False):
                with gr.Column(min_width=280, scale=2):
                    goal = DigitPicker(**now["goal"], label="Second picture", elem_id="vae-goal")
                    another_goal = gr.Button("Another to walk to", elem_id="vae-another-goal")
                    gr.Markdown(
                        "The way is an arc, not a straight line. Two pictures' latents stand nearly at right angles, "
                        "and a line would cut the corner: its middle is a quarter or more shorter than either, and "
                        "strokes fade. The left ends are the two reconstructions, the right ends the two originals.",
                        elem_classes="lab-note",
                    )
                with gr.Column(min_width=280, scale=3):
                    player = FramePlayer(
                        **now["walk"], label="Walk between two pictures", step="Point", elem_id="vae-walk"
                    )

            noise_lead = gr.Markdown(**now["noise_lead"], elem_classes="lab-lead")
            with gr.Row(elem_classes="lab-card", equal_height=False):
                with gr.Column(min_width=280, scale=3):
                    noise = FramePlayer(**now["noise"], label="Decoded noise", origin=0, elem_id="vae-noise")
                    noise_status = gr.HTML(**now["noise_status"], elem_classes="lab-status", elem_id="vae-noise-status")
                    again = gr.Button("Other noise", elem_id="vae-again")
                with gr.Column(min_width=280, scale=2):
                    gr.Markdown(
                        "### Why they differ\n\n"
                        "The decoder has learnt to draw from what the encoder makes, and that fills only part of the "
                        "space: some cells move less than others, neighbours go together. Noise keeps to none of it, "
                        "and scraps come out. Finding the way to where pictures are is the denoiser's whole job."
                    )
                    reason_table = gr.HTML(
                        **now["reason"], elem_classes="lab-table", apply_default_css=False, elem_id="vae-reason"
                    )
                    note = gr.HTML(**now["note"], elem_classes="lab-note")
            why = variational.build(now)
            explain("How the autoencoder works", "vae")
    return Handles(
        tab, absent, room, lead, first, second, picker, another, upload, nth, panes, facts, status, goal, another_goal,
        goal_nth, player, again, noise_lead, noise, noise_status, reason_table, note, why,
    )  # fmt: skip


def wire(shelf: Shelf, lab: Lab) -> None:
    own = lab.vae

    def example(studio: Studio, index: int, kind: str) -> tuple[np.ndarray, int]:
        return studio.example(kind, index), index

    def following(studio: Studio, index: int, kind: str) -> tuple[np.ndarray, int]:
        return example(studio, index + 1, kind)

    def uploaded(studio: Studio, path: str | None) -> np.ndarray:
        if path is None:
            raise ValueError("Choose a picture file first.")
        return studio.taken(read_picture(path))

    def sent(studio: Studio, picture: np.ndarray | None) -> tuple[Any, ...]:
        return (None,) * 3 if picture is None else through(studio, picture)

    def walked(studio: Studio, first: np.ndarray | None, second: np.ndarray | None) -> Any:
        return None if first is None or second is None else walk(studio, first, second)

    def drawn(studio: Studio) -> Iterator[tuple[Any, Any]]:
        yield from denoised(studio, secrets.randbelow(MAX_UI_SEED))

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    for name, pictured, picker, another, picture, index in (
        ("first", FIRST[1], own.picker, own.another, own.first, own.nth),
        ("second", SECOND[1], own.goal, own.another_goal, own.second, own.goal_nth),
    ):
        picker.input(
            shelf.on(lambda studio, kind, index=pictured: example(studio, index, kind)), [lab.model, picker],
            [picture, index], trigger_mode="always_last", api_name=f"_vae_pick_{name}", **quiet,
        )  # fmt: skip
        another.click(
            shelf.on(following), [lab.model, index, picker], [picture, index], api_name=f"_vae_another_{name}", **quiet
        )
    own.upload.upload(shelf.on(uploaded), [lab.model, own.upload], own.first, api_name="_vae_upload", **quiet)
    # Whoever sets a picture, this tab or another one, what follows is the same.
    own.first.change(
        shelf.on(sent), [lab.model, own.first], [own.panes, own.facts, own.status],
        trigger_mode="always_last", api_name="_vae_through", **quiet, **ENGINE,
    )  # fmt: skip
    gr.on(
        [own.first.change, own.second.change], shelf.on(walked), [lab.model, own.first, own.second], own.walk,
        trigger_mode="always_last", api_name="_vae_walk", **quiet, **ENGINE,
    )  # fmt: skip
    gr.on(
        [own.first.change, own.second.change], shelf.on(variational.films), [lab.model, own.first, own.second],
        [own.why.between, own.why.noised], trigger_mode="always_last", api_name="_vae_why", **quiet, **ENGINE,
    )  # fmt: skip
    own.again.click(shelf.on(drawn), lab.model, [own.noise, own.noise_status], api_name="_vae_noise", **quiet, **ENGINE)
