"""The VAE tab: a picture on its way into the latent space and back, the walk between two, and what noise decodes to."""

import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
import numpy as np

from diffusion.export import read_picture, to_digit
from diffusion.ui.controls import ENGINE, MAX_UI_SEED, explain
from diffusion.ui.errors import polite
from diffusion.ui.lab import Lab
from diffusion.ui.latents import CSS, denoised, reason, through, walk
from diffusion.ui.studio import Studio
from diffusion.ui.widgets import DigitPicker, FramePlayer

FIRST, SECOND = (5, 0), (6, 1)  # the opening pictures: class and number; a picker shows one number of each class
OPENING_SEED = 8  # of the noise
OPENING = "Made when the app started. "


@dataclass(frozen=True)
class Handles:
    """The tab's components; whoever sets `first` or `second` to a picture, uint8 (28, 28), shows it.

    The event that sets them must be queued: Gradio announces a state's change to no other.
    """

    tab: gr.Tab
    first: gr.State
    second: gr.State
    picker: DigitPicker
    another: gr.Button
    upload: gr.UploadButton
    shown: gr.State  # which of the class's examples `first` is
    panes: gr.HTML
    facts: gr.HTML
    status: gr.HTML
    goal: DigitPicker
    another_goal: gr.Button
    goal_shown: gr.State
    walk: FramePlayer
    again: gr.Button
    noise: FramePlayer
    noise_status: gr.HTML


def build(studio: Studio) -> Handles:
    codec, classes, examples = studio.pipeline.codec, studio.classes, studio.examples
    pixels, numbers = math.prod(codec.image_shape), math.prod(codec.latent_shape)
    pictures = examples[FIRST], examples[SECOND]
    passage = through(studio, pictures[0], OPENING)
    *_, (sampled, cost) = denoised(studio, OPENING_SEED, OPENING)
    measured = reason(studio)
    with gr.Tab("VAE", id="vae") as tab:
        first, second = (gr.State(picture, time_to_live=1800) for picture in pictures)
        shown, goal_shown = (gr.State(index, time_to_live=1800) for index in (FIRST[1], SECOND[1]))
        gr.Markdown(
            f"The denoiser works on latents: an encoder turns {pixels} pixels into {numbers} numbers, and a decoder "
            "draws a picture from those alone. Pick a digit and see what survives.",
            elem_classes="lab-lead",
        )
        with gr.Column(elem_classes="lab-card"):
            with gr.Row(equal_height=False):
                with gr.Column(min_width=280, scale=4):
                    picker = DigitPicker(
                        classes,
                        classes[FIRST[0]],
                        label="Test image",
                        thumbnails=examples[:, FIRST[1]],
                        elem_id="vae-picker",
                    )
                with gr.Column(min_width=200, scale=1):
                    another = gr.Button("Another like it", variant="primary", elem_id="vae-another")
                    upload = gr.UploadButton(
                        "Your own picture", file_types=[".png", ".jpg", ".jpeg", ".webp"], elem_id="vae-upload"
                    )
            with gr.Row(equal_height=False):
                with gr.Column(min_width=280, scale=4):
                    panes = gr.HTML(passage[0], css_template=CSS, apply_default_css=False, elem_id="vae-panes")
                with gr.Column(min_width=200, scale=1):
                    facts = gr.HTML(passage[1], elem_classes="lab-facts", elem_id="vae-facts")
                    status = gr.HTML(passage[2], elem_classes="lab-status", elem_id="vae-status")

        gr.Markdown(
            "## Walk between two pictures\n\n"
            "From the picture above to a second one: on the left through the latents in between, each decoded, on the "
            "right by mixing the pixels. Move the slider.",
            elem_classes="lab-lead",
        )
        with gr.Row(elem_classes="lab-card", equal_height=False):
            with gr.Column(min_width=280, scale=2):
                goal = DigitPicker(
                    classes,
                    classes[SECOND[0]],
                    label="Second picture",
                    thumbnails=examples[:, SECOND[1]],
                    elem_id="vae-goal",
                )
                another_goal = gr.Button("Another to walk to", elem_id="vae-another-goal")
                gr.Markdown(
                    "The way is an arc, not a straight line. Two pictures' latents stand nearly at right angles, and a "
                    "line would cut the corner: its middle is about a quarter shorter than either, and strokes fade. "
                    "The left ends are the two reconstructions, the right ends the two originals.",
                    elem_classes="lab-note",
                )
            with gr.Column(min_width=280, scale=3):
                player = FramePlayer(
                    walk(studio, *pictures), label="Walk between two pictures", step="Point", elem_id="vae-walk"
                )

        gr.Markdown(
            "## Noise, decoded\n\n"
            f"The decoder draws something from any {numbers} numbers: on the left from four draws of noise, on the "
            "right from the same four once the denoiser has worked on them.",
            elem_classes="lab-lead",
        )
        with gr.Row(elem_classes="lab-card", equal_height=False):
            with gr.Column(min_width=280, scale=3):
                noise = FramePlayer(sampled, label="Decoded noise", origin=0, elem_id="vae-noise")
                noise_status = gr.HTML(cost, elem_classes="lab-status", elem_id="vae-noise-status")
                again = gr.Button("Other noise", elem_id="vae-again")
            with gr.Column(min_width=280, scale=2):
                gr.Markdown(
                    "### Why they differ\n\n"
                    "The decoder has learnt to draw from what the encoder makes, and that fills only part of the "
                    "space: some cells hardly ever move, neighbours go together. Noise keeps to none of it, and scraps "
                    "come out. Finding the way to the part where pictures are is the denoiser's whole job."
                )
                gr.HTML(measured[0], elem_classes="lab-table", apply_default_css=False, elem_id="vae-reason")
                gr.HTML(measured[1], elem_classes="lab-note")
        explain("How the autoencoder works", "vae")
    return Handles(
        tab, first, second, picker, another, upload, shown, panes, facts, status,
        goal, another_goal, goal_shown, player, again, noise, noise_status,
    )  # fmt: skip


def wire(studio: Studio, lab: Lab) -> None:
    own, classes, examples = lab.vae, studio.classes, studio.examples

    def example(index: int, digit: str) -> tuple[np.ndarray, int]:
        return examples[classes.index(digit), index], index

    def following(index: int, digit: str) -> tuple[np.ndarray, int]:
        return example((index + 1) % examples.shape[1], digit)

    @polite
    def uploaded(path: str | None) -> np.ndarray:
        if path is None:
            raise ValueError("Choose a picture file first.")
        return to_digit(read_picture(path))

    @polite
    def sent(picture: np.ndarray) -> tuple[str, str, str]:
        return through(studio, picture)

    @polite
    def walked(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
        return walk(studio, first, second)

    @polite
    def drawn() -> Iterator[tuple[Any, Any]]:
        yield from denoised(studio, secrets.randbelow(MAX_UI_SEED))

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    for name, pictured, picker, another, picture, index in (
        ("first", FIRST[1], own.picker, own.another, own.first, own.shown),
        ("second", SECOND[1], own.goal, own.another_goal, own.second, own.goal_shown),
    ):
        picker.input(
            partial(example, pictured), picker, [picture, index],
            trigger_mode="always_last", api_name=f"_vae_pick_{name}", **quiet,
        )  # fmt: skip
        another.click(following, [index, picker], [picture, index], api_name=f"_vae_another_{name}", **quiet)
    own.upload.upload(uploaded, own.upload, own.first, api_name="_vae_upload", **quiet)
    # Whoever sets a picture, this tab or another one, what follows is the same.
    own.first.change(
        sent, own.first, [own.panes, own.facts, own.status],
        trigger_mode="always_last", api_name="_vae_through", **quiet, **ENGINE,
    )  # fmt: skip
    gr.on(
        [own.first.change, own.second.change], walked, [own.first, own.second], own.walk,
        trigger_mode="always_last", api_name="_vae_walk", **quiet, **ENGINE,
    )  # fmt: skip
    own.again.click(drawn, None, [own.noise, own.noise_status], api_name="_vae_noise", **quiet, **ENGINE)
