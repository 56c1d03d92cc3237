"""Why variational: a model's autoencoder beside one that was trained with another weight on the KL term."""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from diffusion import checkpoints
from diffusion.autoencoder import VAE, Autoencoder
from diffusion.config import parse
from diffusion.export import to_image, to_pictures
from diffusion.latent_space import Space, Survey
from diffusion.noise import Noise
from diffusion.ui.controls import Shown
from diffusion.ui.latents import seen
from diffusion.ui.studio import Studio
from diffusion.ui.widgets import FramePlayer, film

POINTS = 17  # of a film
SEED = 8  # of the noise
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
HALF = "0.5"  # the share, in a survey, that is spoken of


@dataclass(frozen=True)
class Counterpart:
    """An autoencoder to be compared with a model's own, and what was measured of both, the model's first."""

    codec: VAE
    survey: Survey


@cache
def counterpart(studio: Studio, under: Path = checkpoints.CHECKPOINTS) -> Counterpart | None:
    """The autoencoder in a folder of checkpoints that is to be compared with a model's, None before it was measured.

    Raises ValueError where it is damaged.
    """
    own = studio.pipeline
    for name in [name for name, kind in checkpoints.names(under).items() if kind == "autoencoder"]:
        other, metrics = Autoencoder.load(under / name).to(own.device), under / name / "metrics.json"
        fits = (other.codec.image_shape, other.codec.latent_shape) == (own.codec.image_shape, own.codec.latent_shape)
        found = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
        if other.config.beside == own.config.name and fits and "latents" in found:
            return Counterpart(other.codec, parse(Survey, found["latents"], str(metrics)))
    return None


# ---------------------------------------------------------------- in words and figures


def titles(survey: Survey) -> tuple[str, ...]:
    """What tells the two apart."""
    return tuple(f"KL weight {_weight(space)}" for space in survey.spaces)


def _weight(space: Space) -> str:
    mantissa, _, exponent = f"{space.kl_weight:g}".partition("e")
    if not exponent:
        return mantissa
    return ("" if mantissa == "1" else f"{mantissa} × ") + "10" + str(int(exponent)).translate(RAISED)


def lead(survey: Survey) -> str:
    """What is compared, as Markdown."""
    here, there = survey.spaces
    return (
        "## Why variational?\n\n"
        "The same autoencoder, trained twice from one start on the same pictures: once as it is here, with a weight of "
        f"{_weight(here)} on the KL term, and once with {_weight(there)}, next to none. Both give a picture back. They "
        "differ in what surrounds its latent."
    )


def finding(survey: Survey) -> str:
    """What was found, as Markdown."""
    here, there = survey.spaces
    return (
        "### What the term is for\n\n"
        "Not for digits halfway between two: there the decoder draws a plain one for "
        f"{here.between[HALF]:.0%} of the pairs, and for {there.between[HALF]:.0%} without the term. What it buys is "
        "forgiveness. In training the decoder sees draws around each latent, and the term keeps them wide. So under "
        f"noise of half a deviation {here.kept[HALF]:.0%} of the pictures keep their digit and colours, and "
        f"{there.kept[HALF]:.0%} without the term. A denoiser never lands on a latent exactly: it needs a decoder that "
        "forgives."
    )


def table(survey: Survey) -> str:
    """The figures of both, as HTML."""
    rows = {
        "PSNR of copies": lambda space: f"{space.psnr:.1f} dB",
        "KL to plain noise": lambda space: f"{space.kl:,.0f} nats",
        "Mean of each channel": lambda space: " ".join(f"{mean:.1f}".replace("-", "−") for mean in space.means),
        "Deviation of each channel": lambda space: " ".join(f"{deviation:.1f}" for deviation in space.deviations),
        "Width of training draws": lambda space: f"{space.width:.1%}",
        **{f"Kept under noise of {at}": lambda space, at=at: f"{space.kept[at]:.0%}" for at in survey.spaces[0].kept},
        "Plain, halfway": lambda space: f"{space.between[HALF]:.0%}",
        "Plain, from noise": lambda space: f"{space.drawn:.0%}",
    }
    body = "".join(
        f"<tr><th scope='row'>{name}</th>{''.join(f'<td>{form(space)}</td>' for space in survey.spaces)}</tr>"
        for name, form in rows.items()
    )
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles(survey))
    return f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"


def note(survey: Survey) -> str:
    """How the figures were measured, as HTML."""
    return (
        f"<p>Measured once, on {survey.count:,} test pictures. Width and noise are in deviations of the latents. Kept: "
        "digit, ink and paper are read as they were painted. Plain: one digit that the classifier is sure of, in one "
        f"ink on one paper, as {survey.real:.0%} of the test pictures are; from noise with each channel's own mean "
        "and deviation.</p>"
    )


# ---------------------------------------------------------------- films


def films(
    studio: Studio, first: np.ndarray | None, second: np.ndarray | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """A model and its counterpart between two pictures, and from the first into noise; nothing where one is lacking."""
    other = counterpart(studio)
    if other is None or first is None or second is None:
        return None, None
    return between(studio, other, first, second), noised(studio, other, first)


def between(studio: Studio, other: Counterpart, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """The film of the straight line between two pictures' latents, as each of the two autoencoders draws it."""

    def line(codec: VAE, t: Tensor) -> Tensor:
        start, end = codec.encode(_images(studio, first, second))
        return start.lerp(end, t.view(-1, 1, 1, 1))

    formulas = [f"z = {1 - t:.2f}·z₁ + {t:.2f}·z₂" for t in torch.linspace(0, 1, POINTS).tolist()]
    return _film(studio, other, line, formulas, ("first", "second"))


def noised(studio: Studio, other: Counterpart, picture: np.ndarray) -> dict[str, Any]:
    """The film of one picture's latent under more and more noise, the same for both autoencoders."""

    def rising(codec: VAE, t: Tensor) -> Tensor:
        z = codec.encode(_images(studio, picture))
        return z + t.view(-1, 1, 1, 1) * Noise([SEED])(z)

    formulas = [f"z + {t:.2f}·ε" for t in torch.linspace(0, 1, POINTS).tolist()]
    return _film(studio, other, rising, formulas, ("clean", "noisy"))


@torch.no_grad()
def _film(
    studio: Studio,
    other: Counterpart,
    path: Callable[[VAE, Tensor], Tensor],
    formulas: Sequence[str],
    ends: tuple[str, str],
) -> dict[str, Any]:
    """path: an autoencoder and points from 0 to 1 (T,) -> its latents there (T, C, h, w)."""
    t = torch.linspace(0, 1, POINTS, device=studio.pipeline.device)
    decoded = [codec.decode(path(codec, t)).clamp(-1, 1) for codec in (studio.pipeline.codec, other.codec)]
    said = [[seen(reading) for reading in studio.read(pictures)] for pictures in decoded]
    return film(
        secrets.token_hex(4),
        {title: to_pictures(pictures) for title, pictures in zip(titles(other.survey), decoded, strict=True)},
        captions=[f"Read on the left as {left}, on the right as {right}." for left, right in zip(*said, strict=True)],
        formulas=formulas,
        ends=ends,
        start=POINTS // 2,
    )


def _images(studio: Studio, *pictures: np.ndarray) -> Tensor:
    return torch.stack([to_image(picture) for picture in pictures]).to(studio.pipeline.device)


# ---------------------------------------------------------------- the card


@dataclass(frozen=True)
class Lesson:
    """The card's components."""

    card: gr.Column
    lead: gr.Markdown
    between: FramePlayer
    noised: FramePlayer
    finding: gr.Markdown
    table: gr.HTML
    note: gr.HTML


def shown(studio: Studio, first: np.ndarray | None, second: np.ndarray | None) -> Shown:
    """What the card shows of a model that has a counterpart and of these two pictures; of another it is hidden."""
    other = counterpart(studio)
    texts = [None] * 4 if other is None else [make(other.survey) for make in (lead, finding, table, note)]
    values = dict(zip(("lead", "finding", "table", "note"), texts, strict=True))
    values |= dict(zip(("between", "noised"), films(studio, first, second), strict=True))
    return {"why.card": {"visible": other is not None}, **{f"why.{key}": {"value": v} for key, v in values.items()}}


def build(now: Shown) -> Lesson:
    """Draws the card."""
    titled = {"between": "Between the two pictures", "noised": "Noise on the first one's latent"}
    with gr.Column(**now["why.card"], elem_id="vae-why") as card:
        lead = gr.Markdown(**now["why.lead"], elem_classes="lab-lead")
        with gr.Column(elem_classes="lab-card"):
            players = {}
            with gr.Row(equal_height=False):
                for name, label in titled.items():
                    with gr.Column(min_width=280):
                        gr.Markdown(f"### {label}")
                        players[name] = FramePlayer(
                            **now[f"why.{name}"], label=label, step="Point", elem_id=f"vae-why-{name}"
                        )
            with gr.Row(equal_height=False):
                with gr.Column(min_width=280):
                    finding = gr.Markdown(**now["why.finding"])
                    note = gr.HTML(**now["why.note"], elem_classes="lab-note")
                with gr.Column(min_width=280):
                    table = gr.HTML(
                        **now["why.table"], elem_classes="lab-table", apply_default_css=False, elem_id="vae-why-table"
                    )
    return Lesson(card, lead, players["between"], players["noised"], finding, table, note)
