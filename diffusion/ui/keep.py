"""What a result leaves with, and comes back by: a PNG that holds its settings, and a link."""

import html
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr

from diffusion import export
from diffusion.samplers import SAMPLERS
from diffusion.ui import links
from diffusion.ui.errors import polite
from diffusion.ui.lab import Lab
from diffusion.ui.reels import download
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Result, Studio
from diffusion.ui.widgets import EACH

GONE = "There is no finished result to keep here any more: make it again, the seed is still set."
HINT = "<p>A downloaded PNG carries all its settings: drop it here and they are back in the controls.</p>"
COPY = """(link) => {
    const address = new URL(link, location.href).href;
    navigator.clipboard?.writeText(address).catch(() => {});
    return address;
}"""


QUIET = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass(frozen=True)
class Out:
    """The components by which a result leaves."""

    save: gr.Button
    file: gr.DownloadButton
    copy: gr.Button
    link: gr.Textbox


@dataclass(frozen=True)
class Back:
    """The components by which its settings come back."""

    drop: gr.File
    said: gr.HTML


def out() -> Out:
    """Builds the buttons for a PNG and a link."""
    with gr.Row(elem_classes="lab-actions"):
        save = gr.Button("Download PNG", min_width=120, elem_id="generate-save")
        copy = gr.Button("Copy link", min_width=120, elem_id="generate-copy")
    file = gr.DownloadButton("PNG", visible="hidden", elem_id="generate-file")
    link = gr.Textbox(label="Opens with these pictures", visible=False, max_lines=3, elem_id="generate-link")
    return Out(save, file, copy, link)


def back() -> Back:
    """Builds the place for a PNG that `save` wrote."""
    drop = gr.File(label="A PNG saved here", type="binary", height=150, elem_id="generate-drop")
    return Back(drop, gr.HTML(HINT, elem_id="generate-restored", elem_classes="lab-status"))


def wire_out(shelf: Shelf, own: Out, result: gr.State) -> None:
    """Connects them to the state that holds what they take along."""
    folder = Path(own.file.GRADIO_CACHE)
    own.save.click(partial(save, shelf, folder), result, own.file, api_name="_generate_save", **QUIET).success(
        None, None, None, js=download("generate-file")
    )
    own.copy.click(partial(link, shelf), result, own.link, api_name="_generate_link", **QUIET).success(
        None, own.link, own.link, js=COPY
    )


def wire_back(shelf: Shelf, lab: Lab) -> None:
    """Connects it to the menu and to the controls."""
    own = lab.generate.back
    own.drop.upload(
        partial(restore, shelf, lab), [own.drop, lab.shown],
        [own.drop, own.said, lab.shown, lab.pending, *lab.generate.settings],
        api_name="_generate_restore", **QUIET,
    ).failure(lambda: None, None, own.drop, api_name="_generate_refused", queue=False, **QUIET)  # fmt: skip


@polite
def save(shelf: Shelf, folder: Path, result: Result | None) -> str:
    """The path of a new PNG in the app's own cache, which empties itself."""
    if result is None:
        raise ValueError(GONE)
    request, studio = result.request, shelf[result.model]
    columns = export.default_columns(request.count, 1 if isinstance(request.prompt, str) else len(studio.suggestions))
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=folder)) / f"diffusion-lab-{result.model}-seed-{request.seed}.png"
    export.save_png(path, result.pictures, export.settings(request, studio.pipeline), columns)
    return str(path)


@polite
def link(shelf: Shelf, result: Result | None) -> Any:
    """The update of the link's field; the browser completes the address."""
    if result is None:
        raise ValueError(GONE)
    # On a Space the page is a frame in another: the link must lead to that.
    space = os.environ.get("SPACE_ID")
    page = f"https://huggingface.co/spaces/{space}" if space else ""
    studio = shelf[result.model]
    query = links.to_query(links.settings_of(result.request, studio.suggestions), studio.name, studio.weights)
    return gr.Textbox(f"{page}?{query}", visible=True)


@polite
def restore(shelf: Shelf, lab: Lab, file: bytes | None, shown: str) -> list[Any]:
    """An empty place for the next file, a sentence, and the settings inside this one."""
    found = export.read_settings(file or b"")
    name = found.get("checkpoint")
    if name not in shelf.names:
        raise ValueError(f"It was made by {str(name)[:40]!r}; the models here are {', '.join(shelf.names)}.")
    studio, own = shelf[name], lab.generate
    query = links.to_query(links.settings_of(export.request_from(found), studio.suggestions), name, studio.weights)
    allowed = links.rules(studio.classes, own.ranges, studio.sentences)
    settings, amiss = links.from_query(dict(parse_qsl(query)), allowed, studio.weights)
    if amiss:
        raise ValueError(f"It cannot be made again here: {amiss[0]}")
    said = sentence(studio, settings, found.get("weights"))
    return [None, said, *links.handed(studio, shown, settings, make=False)]


def sentence(studio: Studio, settings: Mapping[str, Any], weights: object) -> str:
    """Which settings came back, and whether they will give the same pictures."""
    digit = {"": f"any {studio.noun}", EACH: "one of each"}.get(settings["digit"], settings["digit"])
    parts = [
        f"{settings['count']} × {digit}",
        *([f"away from {settings['negative']}"] if settings["negative"] else []),
        SAMPLERS[settings["sampler"]].title,
        f"{settings['steps']} steps",
        f"guidance {settings['guidance']:g}",
        f"seed {settings['seed']}",
    ]
    same = isinstance(weights, str) and weights.startswith(studio.weights)
    promise = "Press Make to see the same pictures." if same else "Other weights made it, so the pictures will differ."
    return f'<p role="status">Restored: {html.escape(", ".join(parts))}. {promise}</p>'
