"""The controls that several tabs have: sampler, steps, guidance, seed, and the folded explanations."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from diffusion.request import Request, check_number
from diffusion.samplers import SAMPLERS
from diffusion.ui.errors import polite
from diffusion.ui.studio import Limits, Studio

ENGINE = {"concurrency_id": "engine", "concurrency_limit": 1}
"""Set on every event that computes: one run at a time, whichever tab it comes from."""

MAX_UI_SEED = 2**31 - 1

Shown = dict[str, dict[str, Any]]
"""What a tab looks like for a model: the name of each component that depends on it -> the properties that do."""


@dataclass(frozen=True)
class Sampling:
    """Sampler, steps, guidance and seed; `inputs` in the order in which `request` takes them."""

    sampler: gr.Dropdown
    steps: gr.Slider
    guidance: gr.Slider
    seed: gr.Number

    @property
    def inputs(self) -> list[gr.components.Component]:
        return [self.sampler, self.steps, self.guidance, self.seed]


def sampling(shown: Shown, limits: Limits, tab: str, seed: int) -> Sampling:
    """Builds the sampling controls of a tab; elem_ids are `{tab}-steps` and so on."""
    sampler = gr.Dropdown(
        [(info.title, name) for name, info in SAMPLERS.items()],
        label="Sampler", filterable=False, elem_id=f"{tab}-sampler", **shown["sampling.sampler"],
    )  # fmt: skip
    with gr.Row():
        steps = gr.Slider(
            1, min(250, limits.steps), step=1,
            label="Steps", info="Noise levels.",
            elem_id=f"{tab}-steps", min_width=180, **shown["sampling.steps"],
        )  # fmt: skip
        guidance = gr.Slider(
            0, 10, step=0.1,
            label="Guidance", info="1 means none.",
            elem_id=f"{tab}-guidance", min_width=180, **shown["sampling.guidance"],
        )  # fmt: skip
    with gr.Row(elem_classes="seed-row"):
        number = gr.Number(
            seed, label="Seed", info="Image i of a run uses seed + i.", precision=0, minimum=0, maximum=MAX_UI_SEED,
            elem_id=f"{tab}-seed", min_width=140,
        )  # fmt: skip
        dice = gr.Button("New seed", elem_id=f"{tab}-dice", min_width=110, scale=0)
    sampler.change(
        polite(lambda name: gr.Dropdown(info=sampler_note(name))), sampler, sampler,
        api_visibility="private", api_name=f"_{tab}_sampler_note", queue=False, show_progress="hidden",
    )  # fmt: skip
    dice.click(
        lambda: secrets.randbelow(MAX_UI_SEED), None, number,
        api_visibility="private", api_name=f"_{tab}_dice", queue=False, show_progress="hidden",
    )  # fmt: skip
    return Sampling(sampler, steps, guidance, number)


def sampling_shown(studio: Studio) -> Shown:
    """A model's own sampler, steps and guidance; without prompts there is nothing to guide to."""
    sampler, steps, guidance = studio.defaults.values()
    return {
        "sampling.sampler": {"value": sampler, "info": sampler_note(sampler)},
        "sampling.steps": {"value": steps},
        "sampling.guidance": {"value": guidance, "visible": bool(studio.suggestions)},
    }


def negative_shown(studio: Studio) -> dict[str, Any]:
    """The choice of what to steer away from."""
    return {
        "choices": [("None", ""), *((name, name) for name in studio.classes)],
        "value": "",
        "label": f"Negative {studio.asking.lower()}",
        "allow_custom_value": studio.sentences,
        "filterable": studio.sentences,
        "visible": bool(studio.suggestions),
    }


def sampler_note(name: str) -> str:
    """One line on a sampler and what a step costs."""
    info = SAMPLERS[Request(sampler=name).sampler]  # which checks the name
    calls = {0: "Calls as it needs", 1: "1 call per step", 2: "2 calls per step"}[info.calls_per_step]
    return f"{info.note} {calls}."


def request(
    prompt: object, count: object, sampler: object, steps: object, guidance: object, seed: object, **more: object
) -> Request:
    """A request from what the browser or the API sent, where every number may arrive as a float or as nonsense."""
    return Request(
        prompt=prompt,
        count=whole("count", count),
        sampler=sampler,
        steps=whole("steps", steps),
        guidance=guidance,
        seed=whole("seed", seed),
        **more,
    )


def whole(name: str, value: object) -> object:
    """A float without fraction as an int; anything else as it is, for Request to judge."""
    check_number(name, value, 0, 2**53)
    return int(value) if value == int(value) else value


def explain(title: str, folder: str) -> None:
    """A folded explanation in two depths: explanations/{folder}-plain.md and explanations/{folder}-equation.md."""
    texts = Path(__file__).parent / "explanations"
    with gr.Accordion(title, open=False, elem_classes="explain"), gr.Row(equal_height=False):
        for heading, depth in (("In plain words", "plain"), ("The equation", "equation")):
            with gr.Column(min_width=280):
                text = (texts / f"{folder}-{depth}.md").read_text(encoding="utf-8")
                gr.Markdown(
                    f"## {heading}\n\n{text}",
                    latex_delimiters=[
                        {"left": "$$", "right": "$$", "display": True},
                        {"left": "$", "right": "$", "display": False},
                    ],
                )
