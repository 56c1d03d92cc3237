"""What the VAE tab shows: a picture there and back, the walk between two, and what noise decodes to."""

import base64
import html
import math
import secrets
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion.evaluation import psnr, ssim
from diffusion.export import to_image, to_pictures
from diffusion.noise import Noise
from diffusion.pipeline import Pipeline
from diffusion.request import Request
from diffusion.ui.readings import Reading, Seen
from diffusion.ui.studio import Studio, paced
from diffusion.ui.widgets import film, frame, tile
from diffusion.ui.wording import announced

POINTS = 33  # of a walk
DRAWS = 4  # of noise
SAMPLE = 10  # pictures per class by which the space is measured
SCALE = 3  # latents are drawn on a scale from -3 to 3; over all training pictures their deviation is 1
GAIN = 3  # by which the difference is brightened
BELOW, ABOVE = (96, 146, 255), (255, 150, 60)  # of zero: a blue and an orange that every eye tells apart

CSS = """
.panes { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 16px; }
figure { min-width: 0; margin: 0; }
figcaption, p { color: var(--body-text-color-subdued); font-size: var(--text-sm); line-height: 1.4; }
figcaption { margin-bottom: var(--spacing-md); }
figcaption b { display: block; color: var(--body-text-color); font-size: var(--text-md); font-weight: 600; }
p { margin: var(--spacing-md) 0 0; font-variant-numeric: tabular-nums; }
img {
  display: block; width: 100%; height: auto; aspect-ratio: 1; image-rendering: pixelated;
  background: var(--lab-paper); border-radius: var(--radius-md); box-shadow: 0 0 0 1px var(--lab-line);
}
.maps { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: var(--spacing-md); }
.maps p { margin: 2px 0 0; font-size: var(--text-xs); }
.scale { display: flex; align-items: center; gap: var(--spacing-md); }
.scale i { flex: 1; height: 8px; border-radius: 4px; box-shadow: 0 0 0 1px var(--lab-line); }
@media (max-width: 720px) {
  .panes { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 24px var(--spacing-lg); }
}
"""


# ---------------------------------------------------------------- one picture, there and back


@torch.no_grad()
def through(studio: Studio, picture: np.ndarray, when: str = "") -> tuple[str, str, str]:
    """A picture, its latent, its reconstruction and their difference as HTML; the measures; the status line."""
    pipeline, began = studio.pipeline, time.perf_counter()
    image = to_image(picture)[None].to(pipeline.device)
    z = pipeline.codec.encode(image)
    rebuilt = pipeline.decode(z)
    milliseconds = 1000 * (time.perf_counter() - began)
    before, after = studio.read(torch.cat([image, rebuilt]))
    restored = to_pictures(rebuilt)[0]
    difference = np.abs(picture.astype(int) - restored)
    shape = " × ".join(map(str, z.shape[1:]))
    original, copy, gap = (
        _img(pixels, alt)
        for pixels, alt in (
            (picture, "The original"),
            (restored, "The reconstruction"),
            ((GAIN * difference).clip(0, 255).astype(np.uint8), "The absolute difference"),
        )
    )
    worst = f"Mean {difference.mean():.1f}, largest {difference.max()} of 255"
    panes = (
        _figure("Original", f"{picture.size} numbers", original, f"Read as {html.escape(seen(before))}"),
        _figure("Latent", f"{shape} = {z[0].numel()}", _maps(z[0].cpu().numpy())),
        _figure("Reconstruction", "from the latent alone", copy, f"Read as {html.escape(seen(after))}"),
        _figure("Difference", f"absolute, {GAIN} × as bright", gap, worst),
    )
    facts = {
        "Numbers": f"{picture.size} → {z[0].numel()}",
        f"Bytes ({str(z.dtype).removeprefix('torch.')})": f"{picture.nbytes} → {z[0].nbytes}",
        "PSNR": _decibels(psnr(rebuilt, image)),
        "SSIM": f"{ssim(rebuilt, image):.4f}",
        "Read as": " → ".join(html.escape(each.beside("")) if each else "–" for each in (before, after)),
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return (
        f'<div class="panes">{"".join(panes)}</div>',
        f"<dl>{rows}</dl>",
        announced(f"{when}{studio.about}; encoded and decoded in {milliseconds:.0f} ms."),
    )


def _figure(title: str, note: str, body: str, below: str = "") -> str:
    below = f"<p>{below}</p>" if below else ""
    return f"<figure><figcaption><b>{title}</b>{note}</figcaption>{body}{below}</figure>"


def _maps(z: np.ndarray) -> str:
    """The channels of a latent (C, h, w) on one scale of colours, each with its own range."""
    pictures = zip(coloured(z), z, strict=True)
    maps = "".join(
        f"<div>{_img(pixels, f'Latent channel {k}')}<p>{_signed(values.min())} to {_signed(values.max())}</p></div>"
        for k, (pixels, values) in enumerate(pictures, 1)
    )
    ramp = f"linear-gradient(to right, rgb{BELOW}, black, rgb{ABOVE})"
    legend = f'<p class="scale">{_signed(-SCALE, 0)}<i style="background: {ramp}"></i>{_signed(SCALE, 0)}</p>'
    return f'<div class="maps">{maps}</div>{legend}'


def coloured(z: np.ndarray) -> np.ndarray:
    """Signed numbers of any shape as colours, uint8 (..., 3): black is 0, full blue -SCALE and below, orange SCALE."""
    strength = np.clip(np.abs(z) / SCALE, 0, 1)[..., None]
    return (strength * np.where(z[..., None] < 0, BELOW, ABOVE)).round().astype(np.uint8)


def _img(pixels: np.ndarray, alt: str) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    source = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/png;base64,{source}" width="{pixels.shape[1]}" height="{pixels.shape[0]}" alt="{alt}">'
    )


def seen(reading: Reading | Seen | None) -> str:
    """A reading in a few words: the class and how sure it is, of painted pictures the digit and its colours."""
    if reading is None:
        return "nothing, without a classifier"
    return reading.beside("") if isinstance(reading, Seen) else reading.said


def _decibels(value: float) -> str:
    return f"{value:.2f} dB" if math.isfinite(value) else "∞"


def _signed(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


# ---------------------------------------------------------------- between two pictures


@torch.no_grad()
def walk(studio: Studio, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """The film of a walk through the latent space from picture to picture, beside the cross-fade of their pixels."""
    pipeline = studio.pipeline
    images = torch.stack([to_image(first), to_image(second)]).to(pipeline.device)
    latents = pipeline.codec.encode(images)
    angle = torch.acos(torch.cosine_similarity(*latents.flatten(1), dim=0).clamp(-1, 1))
    t = torch.linspace(0, 1, POINTS, device=pipeline.device)
    arc = slerp_weights(angle, t)
    decoded = pipeline.decode(torch.einsum("tk,kchw->tchw", arc, latents))
    faded = torch.einsum("tk,kchw->tchw", torch.stack([1 - t, t], 1), images)
    readings = studio.read(torch.cat([decoded, faded]))
    return film(
        secrets.token_hex(4),
        {"Through the latent space": to_pictures(decoded), "Cross-fade of the pixels": to_pictures(faded)},
        captions=[
            f"The latent's picture is read as {seen(way)}, the cross-fade as {seen(fade)}."
            for way, fade in zip(readings[:POINTS], readings[POINTS:], strict=True)
        ],
        formulas=[f"z = {p:.2f}·z₁ + {q:.2f}·z₂,  {angle.rad2deg():.0f}° apart" for p, q in arc.tolist()],
        ends=("first", "second"),
        start=POINTS // 2,
    )


def slerp_weights(angle: Tensor, t: Tensor) -> Tensor:
    """What two vectors at an angle (radians) are weighed with at t (T,) in [0, 1], (T, 2), so that direction and length
    change evenly (Shoemake 1985); where there is no arc between them, the straight line's weights."""
    straight = torch.stack([1 - t, t], 1)
    return (straight * angle).sin() / angle.sin() if angle.sin() > 1e-3 else straight


# ---------------------------------------------------------------- noise


def denoised(studio: Studio, seed: int, when: str = "") -> Iterator[tuple[Any, Any]]:
    """Draws of noise, decoded, and beside them the same draws at each step of the denoiser: film and status line,
    streamed frame by frame."""
    pipeline, began = studio.pipeline, time.monotonic()
    request = Request(count=DRAWS, seed=seed, **{**studio.defaults, "guidance": 1.0})
    noise = Noise(request.seeds)(torch.empty(DRAWS, *pipeline.codec.latent_shape, device=pipeline.device))
    decoded = pipeline.decode(noise)
    before, run = tile(to_pictures(decoded), 2), secrets.token_hex(4)
    noise_read, frames, captions = _readings(studio, decoded), [], []
    steps = studio.run(request)
    try:
        for step, due in paced(steps):
            state = step.x * (1 + step.sigma.to(step.x) ** 2).rsqrt().view(-1, 1, 1, 1)  # brought to the data's spread
            pictures = pipeline.decode(state)
            frames.append(tile(to_pictures(pictures), 2))
            captions.append(
                f"Noise level σ = {step.sigma.max():.3g}. Read as {_readings(studio, pictures)}; "
                f"decoded and encoded again, {round_trip_loss(pipeline, state):.0%} of the latent is lost."
            )
            panes = {"Noise, decoded": before, "The same noise, denoised": frames[-1]}
            total, index = request.steps + 1, len(frames) - 1
            yield (frame(run, index, panes, total=total, caption=captions[-1]) if due else gr.skip()), gr.skip()
    finally:
        steps.close()
    yield (
        film(
            run,
            {"Noise, decoded": np.stack([before] * len(frames)), "The same noise, denoised": np.stack(frames)},
            captions=captions,
            ends=("noise", "pictures"),
        ),
        announced(
            f"{when}The noise is read as {noise_read}. Seeds {seed} to {seed + DRAWS - 1}, no prompt; {studio.about}, "
            f"{step.calls} calls in {time.monotonic() - began:.1f} s."
        ),
    )


def _readings(studio: Studio, pictures: Tensor) -> str:
    return ", ".join(map(seen, studio.read(pictures)))


@torch.no_grad()
def round_trip_loss(pipeline: Pipeline, z: Tensor) -> float:
    """How far latents (B, ...) move when decoded and encoded again, relative to their length; 0 is not at all."""
    again = pipeline.codec.encode(pipeline.decode(z))
    return ((again - z).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1)).mean().item()


def neighbours(z: Tensor) -> float:
    """How closely cells (B, C, h, w) go with the next: the correlation's size, mean over channels and directions."""
    z = z - z.mean((0, 2, 3), keepdim=True)
    pairs = (z[..., 1:], z[..., :-1]), (z[..., 1:, :], z[..., :-1, :])
    each = [torch.cosine_similarity(*(cells.transpose(0, 1).flatten(1) for cells in pair)) for pair in pairs]
    return torch.cat(each).abs().mean().item()


@torch.no_grad()
def reason(studio: Studio) -> tuple[str, str]:
    """What tells the encoder's latents from noise, measured on the app's examples: an HTML table and a note."""
    pictures = studio.examples[:, :SAMPLE].reshape(-1, *studio.examples.shape[2:])
    real = studio.pipeline.codec.encode(torch.stack([to_image(p) for p in pictures]).to(studio.pipeline.device))
    noise = Noise(range(len(real)))(real)
    measures = {
        "Std of each channel": lambda z: " ".join(f"{std:.2f}" for std in z.std((0, 2, 3)).tolist()),
        "Std of single cells": lambda z: f"{z.std(0).min():.2f} to {z.std(0).max():.2f}",
        "Correlation of neighbours": lambda z: f"{neighbours(z):.2f}",
        "Lost on a round trip": lambda z: f"{round_trip_loss(studio.pipeline, z):.0%}",
    }
    rows = (
        f"<tr><th scope='row'>{name}</th><td>{f(real)}</td><td>{f(noise)}</td></tr>" for name, f in measures.items()
    )
    return (
        "<table><thead><tr><td></td><th scope='col'>Real latents</th><th scope='col'>Noise</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>",
        f"<p>Measured when the model was opened, on {len(real)} examples and {len(real)} draws of noise. A round "
        "trip decodes a latent and encodes the picture again.</p>",
    )
