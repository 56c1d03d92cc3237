"""What the Noise tab shows: pictures with their noise, schedules as tables, and diffusion on a line."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.noise import Noise
from diffusion.request import check_number
from diffusion.schedules import VE, VP, Discrete, Flow, Schedule, uniform_time
from diffusion.toy import TARGETS, Mixture, forward, reverse, wasserstein
from diffusion.ui.controls import MAX_UI_SEED, whole
from diffusion.ui.widgets import Path, Walk, mixture, walks
from diffusion.ui.widgets.walks import BINS, REACH

TIMES = 501  # of a schedule's table: the slider moves by 0.002
SCHEDULES: dict[str, tuple[Schedule, str]] = {
    "Linear": (
        Discrete("linear"),
        "β rises evenly from 0.0001 to 0.02 in 1000 steps (DDPM, Ho et al. 2020). "
        "At half its time, little is left of the picture.",
    ),
    "Scaled linear": (
        Discrete("scaled_linear", beta_start=0.00085, beta_end=0.012),
        "√β rises evenly, β from 0.00085 to 0.012 (Stable Diffusion). "
        "It ends at σ = 14.6: a trace of the picture is never drowned.",
    ),
    "Cosine": (
        Discrete("cosine"),
        "ᾱ falls like a squared cosine (Nichol & Dhariwal 2021). "
        "The noise comes evenly, and no time is spent where all is lost.",
    ),
    "VE": (
        VE(),
        "Variance exploding, dx = 25ᵗ dw (score SDE, Song et al. 2021). "
        "The picture keeps its strength and the noise outgrows it.",
    ),
    "VP": (
        VP(),
        "Variance preserving, β(t) from 0.1 to 20 (score SDE, Song et al. 2021). "
        "It is Linear with infinitely many steps.",
    ),
    "Flow": (
        Flow(),
        "A straight line, xₜ = (1 − t) x₀ + t ε (rectified flow, Liu et al. 2023). "
        "It is shown to t = 0.999, where σ is 999; at 1 it would be infinite.",
    ),
}

LINE = VP()  # the schedule of the lesson on a line; the others differ only in how fast
POINTS = 2000  # simulated, whatever number of paths is drawn: so that the distance measured is not that of a few
LIMITS = {"steps": (4, 250), "paths": (1, 100), "strength": (0.0, 2.0), "seed": (0, MAX_UI_SEED)}
FIELD = 96, 160  # rows and columns of the score's picture


# ---------------------------------------------------------------- a picture


def tables(schedules: Mapping[str, tuple[Schedule, str]] = SCHEDULES) -> list[Path]:
    """Every schedule as it is drawn: x_t = a x0 + s eps with a = alpha(sigma), s = a sigma, at TIMES even times.

    beta is -d log(a^2) / dt where the path preserves variance; a table's betas count as often as it has steps.
    """
    paths = []
    for name, (schedule, text) in schedules.items():
        t = torch.linspace(0, 1, TIMES, dtype=torch.float64).clamp(max=getattr(schedule, "t_max", 1.0))
        beta = None
        if isinstance(schedule, Discrete):
            told = t * (schedule.steps - 1)
            sigma, beta = schedule.sigma(told), schedule.steps * schedule.betas[told.round().long()]
        else:
            sigma = schedule.sigma(t)
            if isinstance(schedule, VP):
                beta = schedule.beta_min + t * (schedule.beta_max - schedule.beta_min)
        a = schedule.alpha(sigma)
        arrays = [values if values is None else values.numpy() for values in (t, a, a * sigma, sigma, beta)]
        paths.append(Path(name, text, *arrays))
    return paths


def noised(picture: np.ndarray, seed: int) -> dict[str, Any]:
    """A picture, uint8 (H, W) or (H, W, 3), and this seed's unit noise, for the bench to mix at any level."""
    return mixture(picture, Noise([seed])(torch.empty(1, *picture.shape))[0].numpy())


# ---------------------------------------------------------------- a line


def lesson(target: str, steps: object, paths: object, strength: object, seed: object) -> tuple[dict[str, Any], str]:
    """Forward and backward paths of one target for the plot, and how far the way back has missed it.

    Raises:
        ValueError: an unknown target, or a number out of its range.
    """
    steps, paths, seed = (whole(n, v) for n, v in (("steps", steps), ("paths", paths), ("seed", seed)))
    for name, value in (("steps", steps), ("paths", paths), ("strength", strength), ("seed", seed)):
        check_number(name, value, *LIMITS[name], whole=name != "strength")
    if target not in TARGETS:
        raise ValueError(f"the data must be one of {', '.join(TARGETS)}, not '{str(target)[:40]}'.")
    data, generator = TARGETS[target], torch.Generator().manual_seed(seed)
    sigmas = uniform_time(LINE, steps)  # from noise to data
    scale = LINE.alpha(sigmas)[:, None]  # drawn as the schedule has it: x_t = a x

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    there = torch.stack(list(forward(data.draw(POINTS, generator), sigmas.flip(0), noise=noise)))
    x = sigmas[0] * noise(there[0])
    back = [x, *(step.x for step in reverse(data.denoise, x, sigmas, noise=noise, strength=strength))]
    end = back[-1]
    there, back = scale.flip(0) * there, (scale * torch.stack(back)).flip(0)
    plotted = walks(
        LINE.t(sigmas).flip(0).numpy(),
        sigmas.flip(0).numpy(),
        score_field(data),
        *(Walk(way[:, :paths].numpy(), shares(way[0]), shares(way[-1])) for way in (there, back)),
        Walk(np.empty(0), *(exact_shares(data, sigmas[k]) for k in (-1, 0))),
    )
    draws = torch.Generator().manual_seed(seed)
    floor = np.mean([wasserstein(data.draw(POINTS, draws), data) for _ in range(8)])
    return plotted, _facts(wasserstein(end, data), float(floor), steps, strength)


def score_field(data: Mixture) -> np.ndarray:
    """The score times the noise's spread, which is minus the noise to expect: (rows, columns) of the plot."""
    rows, columns = FIELD
    t = torch.linspace(LINE.t_min, 1, columns, dtype=torch.float64)
    sigma = LINE.sigma(t)
    x = torch.linspace(REACH, -REACH, rows, dtype=torch.float64)[:, None] / LINE.alpha(sigma)
    return (sigma * data.score(x, sigma)).numpy()


def shares(positions: Tensor) -> np.ndarray:
    """The share of positions (N,) in each of the plot's bins, from the highest down."""
    counts, _ = np.histogram(positions.numpy(), BINS, (-REACH, REACH))
    return counts[::-1] / len(positions)


def exact_shares(data: Mixture, sigma: Tensor) -> np.ndarray:
    """What `shares` comes to with infinitely many points at a noise level."""
    edges = torch.linspace(-REACH, REACH, BINS + 1, dtype=torch.float64) / LINE.alpha(sigma)
    return data.cdf(edges, float(sigma)).diff().flip(0).numpy()


def _facts(distance: float, floor: float, steps: int, strength: float) -> str:
    facts = {
        "Distance from the data": f"{distance:.3f}",
        f"{POINTS} true draws, on average": f"{floor:.3f}",
        "Way back": f"{steps} steps, λ = {strength:g}",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f'<div role="status"><dl>{rows}</dl></div>'
