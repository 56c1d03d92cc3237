"""The tab Prompt: what words do to a picture: where each is looked at, the way to others, and a change of mind."""

import html
from dataclasses import dataclass
from functools import cache
from typing import Any

import gradio as gr

from diffusion.ui import controls, prompting
from diffusion.ui.controls import ENGINE, Sampling, Shown
from diffusion.ui.lab import Lab
from diffusion.ui.prompting import FEWEST, MOST, PICTURES
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Studio
from diffusion.ui.widgets import DigitGrid, DigitPicker, FramePlayer
from diffusion.ui.wording import announced, counted, duration

COUNT, SEED = 4, 3  # what the controls open with
OTHER_SEED, ON_THE_WAY = 8, 9
TURN = 4  # after which step the fork parts
VERBS = {"go": "Make", "travel": "Travel", "part": "Part ways"}  # what the three buttons do
MADE = (
    "grid", "film", "status", "watched", "way", "strip", "way_status", "travelled", "fork", "fork_status", "forked",
)  # fmt: skip
"""What the three make, in the order in which they yield it."""
QUIET = {"api_visibility": "private", "show_progress": "hidden"}


@cache
def shown(studio: Studio) -> Shown:
    """What the tab opens with for a model, made when it was opened; without prompts there is nothing to show."""
    choices = studio.suggestions
    first, other = (choices[k % len(choices)] for k in (1, 4)) if choices else ("", "")
    free = {"free": studio.sentences, "thumbnails": studio.thumbnails}
    settled = {
        "picker": DigitPicker.showing(choices, first, **free, label=studio.asking),
        "negative": controls.negative_shown(studio),
        **controls.sampling_shown(studio),
        "goal": DigitPicker.showing(choices, other, **free),
        "changed": DigitPicker.showing(choices, other, **free),
    }
    if not choices:
        why = f"{studio.name} was trained without prompts: there is nothing to say to it."
        return {
            "lead": {"value": f"<p>{html.escape(why)} Choose another model in the menu above.</p>"},
            "room": {"visible": False},
            **{name: {"value": None} for name in MADE},
            **{name: {"value": text} for name, text in VERBS.items()},
            "single": {"visible": False},
            "words": {"visible": False},
            "ways": {"selected": "travel"},
            "after": {"maximum": 2, "value": 1},
            **settled,
        }
    settings = tuple(studio.defaults.values())
    single = f"{studio.name} reads a prompt as one token: there is nothing else for the network to look at."
    painted = [None] * 4
    if studio.sentences:
        *_, painted = prompting.paint(studio, first, "", *settings, SEED, COUNT)
    *_, way = prompting.travel(studio, first, "", *settings, SEED, other, OTHER_SEED, ON_THE_WAY)
    after = min(TURN, studio.defaults["steps"] - 1)
    *_, fork = prompting.fork(studio, first, "", *settings, SEED, other, after)
    prices = labels(studio, first, "", *settings, SEED, COUNT, ON_THE_WAY)
    return {
        "lead": {
            "value": "<p>Say what you want, and see what words do: where each one is looked at, what lies between two "
            "prompts, and until when a prompt can still be changed.</p>"
        },
        "room": {"visible": True},
        "single": {"value": f"<p>{html.escape(single)}</p>", "visible": not studio.sentences},
        "words": {"visible": studio.sentences},
        "ways": {"selected": "words" if studio.sentences else "travel"},
        **{name: {"value": part} for name, part in zip(MADE, (*painted, *way, *fork), strict=True)},
        **{name: {"value": text} for name, text in zip(VERBS, prices, strict=True)},
        "after": {"maximum": max(2, studio.defaults["steps"] - 1), "value": after},
        **settled,
    }


@dataclass(frozen=True)
class Handles:
    """The tab's components."""

    tab: gr.Tab
    lead: gr.HTML
    room: gr.Column
    picker: DigitPicker
    negative: gr.Dropdown
    sampling: Sampling
    ways: gr.Tabs
    single: gr.HTML
    words: gr.Column
    count: gr.Slider
    go: gr.Button
    grid: DigitGrid
    status: gr.HTML
    film: FramePlayer
    watched: gr.State  # of prompting.Watched
    goal: DigitPicker
    seed: gr.Number
    number: gr.Slider
    travel: gr.Button
    way: FramePlayer
    strip: DigitGrid
    way_status: gr.HTML
    travelled: gr.State  # of Result, None while there is none
    changed: DigitPicker
    after: gr.Slider
    part: gr.Button
    fork: FramePlayer
    fork_status: gr.HTML
    forked: gr.State  # of Result, None while there is none
    stops: tuple[gr.Button, ...]

    shown = staticmethod(shown)

    @property
    def asked(self) -> list[gr.components.Component]:
        """What all three start from."""
        return [self.picker, self.negative, *self.sampling.inputs]


def build(shelf: Shelf) -> Handles:
    """Draws the tab, with what the default model made when it was opened."""
    now, limits = shown(shelf.default), shelf.limits
    stops = []

    def actions(label: str, elem_id: str) -> gr.Button:
        with gr.Row(elem_classes="lab-actions"):
            button = gr.Button(label, variant="primary", min_width=200, elem_id=elem_id)
            stops.append(gr.Button("Stop", scale=0, min_width=70, elem_id=f"{elem_id}-stop"))
        return button

    with gr.Tab("Prompt", id="prompt", elem_id="prompt-tab") as tab:
        lead = gr.HTML(**now["lead"], elem_classes="lab-lead", elem_id="prompt-lead")
        with (
            gr.Column(**now["room"], elem_id="prompt-room") as room,
            gr.Row(equal_height=False, elem_classes="lab-split"),
        ):
            with gr.Column(scale=4, min_width=290):
                with gr.Column(elem_classes="lab-card"):
                    picker = DigitPicker(**now["picker"], any="Any", elem_id="prompt-picker")
                    negative = gr.Dropdown(
                        **now["negative"], info="Acts where guidance is not 1.", elem_id="prompt-negative"
                    )
                with gr.Column(elem_classes=["lab-card", "lab-later"]):
                    knobs = controls.sampling(now, limits, "prompt", SEED)
            with (
                gr.Column(scale=7, min_width=300, elem_classes="lab-card"),
                gr.Tabs(**now["ways"], overflow_behavior="wrap", elem_id="prompt-ways") as ways,
            ):
                with gr.Tab("Word by word", id="words"):
                    single = gr.HTML(**now["single"], elem_classes="lab-note", elem_id="prompt-single")
                    with gr.Column(**now["words"]) as words:
                        count = gr.Slider(1, PICTURES, COUNT, step=1, label="How many", elem_id="prompt-count")
                        go = actions(now["go"]["value"], "prompt-go")
                        status = gr.HTML(**now["status"], elem_classes="lab-status", elem_id="prompt-status")
                        cells = DigitGrid(**now["grid"], label="Pictures", columns=4, elem_id="prompt-grid")
                        gr.HTML(
                            "<p>Select a picture to see where its words were looked at. The brighter, the more; all "
                            "words of a step have one scale.</p>",
                            elem_classes="lab-note",
                        )
                        film = FramePlayer(**now["film"], label="Where each word is looked at", elem_id="prompt-film")
                with gr.Tab("Travel", id="travel"):
                    goal = DigitPicker(**now["goal"], label="The other prompt", any="Any", elem_id="prompt-goal")
                    with gr.Row():
                        number = gr.Slider(
                            FEWEST, MOST, ON_THE_WAY, step=1, label="Pictures on the way",
                            elem_id="prompt-number", min_width=180,
                        )  # fmt: skip
                        seed = gr.Number(
                            OTHER_SEED, label="The other seed", info="The same seed: the words alone change.",
                            precision=0, minimum=0, maximum=controls.MAX_UI_SEED,
                            elem_id="prompt-other-seed", min_width=140,
                        )  # fmt: skip
                    travel = actions(now["travel"]["value"], "prompt-travel")
                    way_status = gr.HTML(**now["way_status"], elem_classes="lab-status", elem_id="prompt-way-status")
                    way = FramePlayer(
                        **now["way"], label="On the way", step="Picture", fps=6, autoplay=True, elem_id="prompt-way"
                    )
                    strip = DigitGrid(
                        **now["strip"],
                        label="All on the way",
                        columns=ON_THE_WAY,
                        narrowest=64,
                        elem_id="prompt-strip",
                    )
                with gr.Tab("Change of mind", id="fork"):
                    changed = DigitPicker(**now["changed"], label="Then ask for", any="Any", elem_id="prompt-changed")
                    after = gr.Slider(
                        1, step=1, **now["after"], label="After step",
                        info="Until then both are one and the same state.", elem_id="prompt-after",
                    )  # fmt: skip
                    part = actions(now["part"]["value"], "prompt-part")
                    fork_status = gr.HTML(**now["fork_status"], elem_classes="lab-status", elem_id="prompt-fork-status")
                    fork = FramePlayer(**now["fork"], label="Two branches", origin=0, elem_id="prompt-fork")
        controls.explain("What do words do?", "prompt")
        watched, travelled, forked = (gr.State(time_to_live=1800) for _ in range(3))
        # Not the States' own values, to which they would fall back after their time: other runs than those on show.
        opening = [now[name]["value"] for name in ("watched", "travelled", "forked")]
        gr.on(
            None, lambda: opening, None, [watched, travelled, forked], api_name="_prompt_opening", queue=False, **QUIET
        )
    return Handles(
        tab, lead, room, picker, negative, knobs, ways, single, words, count, go, cells, status, film, watched, goal,
        seed, number, travel, way, strip, way_status, travelled, changed, after, part, fork, fork_status, forked,
        tuple(stops),
    )  # fmt: skip


def wire(shelf: Shelf, lab: Lab) -> None:
    """Connects the tab's events."""
    own = lab.prompt
    priced = [*own.asked, own.count, own.number]
    gr.on(
        [control.change for control in priced], shelf.on(labels), [lab.model, *priced], [own.go, own.travel, own.part],
        api_name="_prompt_labels", queue=False, trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    own.sampling.steps.change(
        lambda steps, after: gr.update(maximum=max(2, steps - 1), value=max(1, min(after, steps - 1))),
        [own.sampling.steps, own.after], own.after, api_name="_prompt_after", queue=False,
        trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    runs = {
        prompting.paint: (own.go, [own.count], [own.grid, own.film, own.status, own.watched]),
        prompting.travel: (
            own.travel, [own.goal, own.seed, own.number], [own.way, own.strip, own.way_status, own.travelled],
        ),
        prompting.fork: (own.part, [own.changed, own.after], [own.fork, own.fork_status, own.forked]),
    }  # fmt: skip
    for (handler, (button, more, outputs)), stop in zip(runs.items(), own.stops, strict=True):
        *_, status, finished = outputs
        running = button.click(
            shelf.on(handler), [lab.model, *own.asked, *more], outputs,
            api_name=f"_prompt_{handler.__name__}", **QUIET, **ENGINE,
        )  # fmt: skip
        running.failure(stopped, finished, status, api_name=f"_prompt_{handler.__name__}_stopped", queue=False, **QUIET)
        gr.on([stop.click, lab.model.input], None, None, None, cancels=[running], queue=False)
    own.grid.input(shelf.on(select), [lab.model, own.grid, own.watched], own.film, api_name="_prompt_select", **QUIET)


def select(studio: Studio, index: int | None, watched: prompting.Watched | None) -> Any:
    """The film of the selected picture."""
    if watched is None:
        raise ValueError("There are no finished pictures here: make some first.")
    if index is None or watched.result.model != studio.name or index >= watched.result.request.count:
        return gr.skip()
    return prompting.attended(studio, watched, index)


def stopped(finished: Any) -> Any:
    """The status after a run that did not finish; one that never started changed nothing."""
    return gr.skip() if finished else announced("Stopped. What there is stays unfinished; the engine is free.")


def labels(studio: Studio, *inputs: Any) -> list[str]:
    """What the three buttons promise, and how long each will take on this machine."""
    *asked, count, number = inputs
    prompt, *_ = asked
    runs = {
        "go": lambda: prompting.asked(*asked, count),
        "travel": lambda: prompting.way(*asked, prompt, 0, number),
        "part": lambda: prompting.parting(*asked, prompt, 1),
    }
    said = []
    for name, run in runs.items():
        try:
            studio.check(wanted := run())
            what = f" {counted(wanted.count, studio.noun)}" if name == "go" else ""
            said.append(f"{VERBS[name]}{what} · {duration(studio.seconds(wanted))}")
        except ValueError:  # said in full when the button is pressed
            said.append(VERBS[name])
    return said
