"""Links that reproduce a result: the Generate tab's settings as a query, checked on arrival."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import gradio as gr
from gradio.components import Component

from diffusion.request import MAX_PROMPT, Request
from diffusion.samplers import SAMPLERS
from diffusion.ui.lab import Lab
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Studio
from diffusion.ui.widgets import EACH

if TYPE_CHECKING:
    from diffusion.ui.tabs import generate

KEYS = ("digit", "negative", "count", "sampler", "steps", "guidance", "seed")
EMPTY = {"digit": "any", "negative": "none"}  # how a link spells "", which in an address looks like a mistake
FOREIGN = re.compile(r"__.*|utm_.*|view|deep_link|logs|embed")  # what Gradio and hosts put into addresses themselves
ELSEWHERE = "`python -m diffusion generate --like` can make it again"

Rules = Mapping[str, Callable[[str], Any]]


def rules(classes: Sequence[str], ranges: Mapping[str, tuple[float, float]], sentences: bool = False) -> Rules:
    """For each key how its text becomes a value, or a ValueError that says what would be right.

    ranges: lowest and highest `count`, `steps`, `guidance` and `seed`, all whole but guidance. sentences: whether any
    prompt will do.
    """
    prompts = {name: name for name in classes}
    if sentences:
        known, negatives = _sentence({EMPTY["digit"]: ""}), _sentence({EMPTY["negative"]: ""})
    else:
        known = _choice("digit", {EMPTY["digit"]: "", EACH: EACH} | prompts)
        negatives = _choice("negative", {EMPTY["negative"]: ""} | prompts)
    return {
        "digit": known,
        "negative": negatives,
        "sampler": _choice("sampler", {name: name for name in SAMPLERS}),
        **{key: _number(key, *ends, kind=float if key == "guidance" else int) for key, ends in ranges.items()},
    }


def prompts(digit: str, count: int, classes: Sequence[str]) -> str | tuple[str, ...]:
    """What a picker's digit asks for: EACH is the classes in turn, as many as there are pictures."""
    return tuple(classes[i % len(classes)] for i in range(count)) if digit == EACH else digit


def settings_of(request: Request, classes: Sequence[str]) -> dict[str, Any]:
    """The settings that make a request again.

    Raises:
        ValueError: the request asks for what these settings have no words for.
    """
    plain = Request(
        request.prompt, request.negative, request.count, request.seed, request.sampler, request.steps, request.guidance
    )
    if plain != request:
        raise ValueError(f"It was made with more than this tab has controls for; {ELSEWHERE}.")
    if request.prompts == prompts(EACH, request.count, classes) and not isinstance(request.prompt, str):
        digit = EACH
    elif len(set(request.prompts)) == 1:
        digit = request.prompts[0]
    else:
        raise ValueError(f"It was made from a list of digits of its own; {ELSEWHERE}.")
    values = (digit, request.negative, request.count, request.sampler, request.steps, request.guidance, request.seed)
    return dict(zip(KEYS, values, strict=True))


def to_query(settings: Mapping[str, Any], checkpoint: str, weights: str) -> str:
    """All settings as a query, with the model and the fingerprint of the weights that they were used with."""
    spelt = {key: settings[key] if settings[key] != "" else EMPTY[key] for key in KEYS}
    return urlencode({"checkpoint": checkpoint} | spelt | {"weights": weights})


def from_query(query: Mapping[str, str], allowed: Rules, weights: str) -> tuple[dict[str, Any], list[str]]:
    """Those of a model's settings in a query that can be used, and a sentence on each thing that cannot."""
    settings, amiss = {}, []
    for key, text in query.items():
        if key in allowed:
            try:
                settings[key] = allowed[key](text)
            except ValueError as error:
                amiss.append(str(error))
        elif key == "weights":
            if text != weights:
                amiss.append(f"It was made with other weights than these ({weights}): its pictures will differ.")
        elif key != "checkpoint" and not FOREIGN.fullmatch(key):
            amiss.append(f"There is no setting {_quoted(key)}.")
    return settings, amiss


def wire(shelf: Shelf, lab: Lab) -> None:
    """On arrival a link's model and settings go into the controls, a notice says which do not, and it is made."""
    page = lab.generate

    def arrive(request: gr.Request) -> list[Any]:
        query, wrong = dict(request.query_params), []
        try:
            studio = shelf[query.get("checkpoint", shelf.default.name)]
        except ValueError as error:
            studio, wrong = shelf.default, [str(error)]
        settings, amiss = from_query(query, rules(studio.classes, page.ranges, studio.sentences), studio.weights)
        shown = handed(studio, shelf.default.name, settings, make=True)
        return [*shown, notice(wrong + amiss), shelf.default.opening, bool(settings) and studio is shelf.default]

    gr.on(
        None, arrive, None, [lab.shown, lab.pending, *page.settings, page.notice, page.result, page.arrived],
        api_visibility="private", api_name="_arrive", show_progress="hidden",
    )  # fmt: skip


def handed(studio: Studio, shown: str, settings: Mapping[str, Any], make: bool) -> list[Any]:
    """The outputs [shown, pending, *settings] of a handler that brings a model's settings to a page that shows `shown`.

    Settings of another model have to wait until the tabs have turned to it.
    """
    if studio.name != shown:
        return [studio.name, (dict(settings), make), *[gr.skip()] * len(KEYS)]
    return [shown, None, *(settings.get(key, gr.skip()) for key in KEYS)]


def chosen(page: generate.Handles, shown: Mapping[Component, Any], settings: Mapping[str, Any]) -> dict[Component, Any]:
    """What sets the Generate tab's controls to these settings, on top of what `shown` sets for their model."""
    controls = dict(zip(KEYS, page.settings, strict=True))
    values = {controls[key]: value for key, value in settings.items()}
    return {
        control: {**before, "value": value} if isinstance(before := shown.get(control), dict) else value
        for control, value in values.items()
    }


def notice(amiss: Sequence[str]) -> Any:
    """The update of a notice that shows these sentences; without any it stays hidden."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in amiss[:8])
    return gr.HTML(f"<p>Not everything in this link can be used here:</p><ul>{items}</ul>", visible=bool(amiss))


def _choice(key: str, choices: Mapping[str, str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{key} must be one of {', '.join(choices)}, not {_quoted(text)}.")
        return choices[text]

    return read


def _sentence(empty: Mapping[str, str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if len(text) > MAX_PROMPT:
            raise ValueError(f"A prompt may have at most {MAX_PROMPT} characters; this one has {len(text):,}.")
        return empty.get(text, text)

    return read


def _number(key: str, low: float, high: float, kind: type[int] | type[float]) -> Callable[[str], float]:
    form = re.compile(r"\d{1,16}" if kind is int else r"\d{1,16}(\.\d{1,340})?(e-?\d{1,3})?", re.ASCII)
    name = "a whole number" if kind is int else "a number"

    def read(text: str) -> float:
        value = kind(text) if form.fullmatch(text) else math.nan
        if not low <= value <= high:
            raise ValueError(f"{key} must be {name} from {low:,} to {high:,}, not {_quoted(text)}.")
        return value

    return read


def _quoted(text: str) -> str:
    """What somebody else wrote, short enough to show."""
    return f"“{text[:24]}…”" if len(text) > 24 else f"“{text}”"
