"""Samplers: pure generators that walk a state x = x0 + sigma * eps down a grid of noise levels.

Every sampler is called `sampler(denoise, x, sigmas, *, noise)` plus knobs of its own: denoise(x, sigma) -> x0, sigmas
float64 (n + 1,) decreasing to 0, noise(x) -> unit noise like x. It knows no schedule, no network and no random state,
yields a Step after each step, which leads from the level s to s_next, and is cancelled by closing the generator.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor], Tensor]


class Step(NamedTuple):
    """The state after a step.

    index: steps done so far, from 1; 0 is the start, before any network call.
    sigma: the noise level of x, scalar; (B,) from the adaptive `ode`, where each image takes steps of its own size.
    x: the state (B, ...); x0: the clean state that the step predicted (B, ...); calls: network calls so far.
    """

    index: int
    sigma: Tensor
    x: Tensor
    x0: Tensor
    calls: int


@torch.no_grad()
def ddim(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, eta: float = 0.0) -> Iterator[Step]:
    """DDIM for eta = 0 (Song et al. 2021, Eq. 12), DDPM's ancestral step for eta = 1 (Ho et al. 2020, Alg. 2)."""
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        x0 = denoise(x, s)
        up = eta * s_next * (1 - (s_next / s) ** 2).sqrt()
        down = (s_next**2 - up**2).sqrt()
        x = x0 + down / s * (x - x0)
        if up > 0:
            x = x + up * noise(x)
        yield Step(i, s_next, x, x0, i)


@torch.no_grad()
def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise) -> Iterator[Step]:
    """Euler's method on the probability-flow ODE dx/dsigma = (x - x0) / sigma (Karras et al. 2022, Eq. 1)."""
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        x0 = denoise(x, s)
        x = x + (s_next - s) * (x - x0) / s
        yield Step(i, s_next, x, x0, i)


@torch.no_grad()
def euler_maruyama(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise) -> Iterator[Step]:
    """Euler-Maruyama on the reverse-time SDE (Song et al. 2021, Eq. 6), without noise on the last step."""
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        x0 = denoise(x, s)
        x = _reverse_sde_step(x, (x0 - x) / s**2, s, s_next, noise)
        yield Step(i, s_next, x, x0, i)


@torch.no_grad()
def predictor_corrector(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, snr: float = 0.16
) -> Iterator[Step]:
    """A Langevin corrector, then an Euler-Maruyama predictor, at each level (Song et al. 2021, Alg. 2, 4 and 5).

    The norms that set the corrector's step are each image's own, not the batch's mean, so that no image depends on its
    neighbours.
    """
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        score, z = (denoise(x, s) - x) / s**2, noise(x)
        h = 2 * (snr * _norm(z) / _norm(score)) ** 2
        x = x + h * score + (2 * h).sqrt() * z
        x0 = denoise(x, s)
        x = _reverse_sde_step(x, (x0 - x) / s**2, s, s_next, noise)
        yield Step(i, s_next, x, x0, 2 * i)


@torch.no_grad()
def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise) -> Iterator[Step]:
    """Heun's second-order method on the probability-flow ODE (Karras et al. 2022, Alg. 1); Euler on the last step."""
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        x0 = denoise(x, s)
        d = (x - x0) / s
        x_euler = x + (s_next - s) * d
        if s_next == 0:
            yield Step(i, s_next, x_euler, x0, 2 * i - 1)
            return
        d_next = (x_euler - denoise(x_euler, s_next)) / s_next
        x = x + (s_next - s) * (d + d_next) / 2
        yield Step(i, s_next, x, x0, 2 * i)


@torch.no_grad()
def ode(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, rtol: float = 1e-3, atol: float = 1e-3
) -> Iterator[Step]:
    """The probability-flow ODE by an adaptive Bogacki-Shampine 3(2) pair in u = log sigma, where dx/du = x - x0.

    Each image has a step size of its own, so that no image depends on its neighbours; `sigmas` gives only the ends.
    """
    if len(sigmas) < 2:
        return
    u, end = sigmas[0].log().expand(len(x)), sigmas[-2].log()
    h, k1, calls, i = (end - u) / 8, x - denoise(x, u.exp()), 1, 0
    while (u > end).any():
        left = end - u
        h = torch.maximum(h, left)
        step = h.to(x).view(-1, *[1] * (x.ndim - 1))
        x2 = x + step / 2 * k1
        k2 = x2 - denoise(x2, (u + h / 2).exp())
        x3 = x + step * 3 / 4 * k2
        k3 = x3 - denoise(x3, (u + h * 3 / 4).exp())
        x_next = x + step * (2 * k1 + 3 * k2 + 4 * k3) / 9
        x0 = denoise(x_next, (u + h).exp())
        k4, calls = x_next - x0, calls + 3
        error = step * (-5 * k1 + 6 * k2 + 8 * k3 - 9 * k4) / 72
        ratio = _norm(error / (atol + rtol * torch.maximum(x.abs(), x_next.abs()))) / error[0].numel() ** 0.5
        good = ratio <= 1
        x, k1 = torch.where(good, x_next, x), torch.where(good, k4, k1)
        good, ratio = good.flatten().to(u.device), ratio.flatten().to(u)
        u = torch.where(good, torch.where(h == left, end, u + h), u)  # u + (end - u) may miss the end by its last bit
        h = h * (0.9 * ratio.clamp_min(1e-8) ** (-1 / 3)).clamp(0.2, 5)
        if good.any():
            i += 1
            yield Step(i, u.exp(), x, x - k1, calls)
    yield Step(i + 1, sigmas[-1], x - k1, x - k1, calls)


@torch.no_grad()
def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise) -> Iterator[Step]:
    """DPM-Solver++(2M), first order at both ends (Lu et al. 2022b, Alg. 2); lambda = -log sigma, h its step."""
    x0_prev = h_prev = None
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        x0, h = denoise(x, s), (s / s_next).log()
        d = x0 if x0_prev is None or s_next == 0 else x0 + h / (2 * h_prev) * (x0 - x0_prev)
        x = s_next / s * x - torch.expm1(-h) * d
        x0_prev, h_prev = x0, h
        yield Step(i, s_next, x, x0, i)


@torch.no_grad()
def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, eta: float = 1.0) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M): the same step on the reverse-time SDE (Lu et al. 2022b, Eq. 18, midpoint form)."""
    x0_prev = h_prev = None
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        x0, h = denoise(x, s), (s / s_next).log()
        d = x0 if x0_prev is None or s_next == 0 else x0 + h / (2 * h_prev) * (x0 - x0_prev)
        r = s_next / s  # exp(-h)
        x = r ** (1 + eta) * x + (1 - r ** (1 + eta)) * d
        if s_next > 0:
            x = x + s_next * (1 - r ** (2 * eta)).sqrt() * noise(x)
        x0_prev, h_prev = x0, h
        yield Step(i, s_next, x, x0, i)


@torch.no_grad()
def unipc(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise) -> Iterator[Step]:
    """UniPC of second order, B2(h) = e^h - 1, data prediction (Zhao et al. 2023, Alg. 1 and 2).

    Each call serves twice: the corrector mends the step that led to it, then the predictor takes the next one.
    """
    before: list[tuple[Tensor, Tensor]] = []  # (sigma, x0) of the calls so far, newest last
    start = x  # the corrected state from which the latest predictor step was taken
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        x0 = denoise(x, s)
        if before:
            x = _unipc_corrector(start, before, s, x0)
        start, before = x, [*before[-1:], (s, x0)]
        x = _unipc_predictor(start, before, s_next)
        yield Step(i, s_next, x, x0, i)


def _unipc_predictor(x: Tensor, before: list[tuple[Tensor, Tensor]], s_next: Tensor) -> Tensor:
    s, m0 = before[-1]
    h = (s / s_next).log()
    slope = 0.0 if s_next == 0 else _slope(before, h)
    return s_next / s * x - torch.expm1(-h) * (m0 + slope / 2)


def _unipc_corrector(x: Tensor, before: list[tuple[Tensor, Tensor]], s_next: Tensor, x0_next: Tensor) -> Tensor:
    s, m0 = before[-1]
    h = (s / s_next).log()
    phi1 = torch.expm1(-h)
    if len(before) == 1:
        return s_next / s * x - phi1 * (m0 + (x0_next - m0) / 2)
    r = -(before[-2][0] / s).log() / h  # where the older call lies, in units of this step
    phi2 = phi1 / -h - 1
    phi3 = phi2 / -h - 1 / 2
    b1, b2 = phi2 / phi1, 2 * phi3 / phi1
    rho = (b1 - b2) / (1 - r)  # solves rho + rho_next = b1, r rho + rho_next = b2
    return s_next / s * x - phi1 * (m0 + rho * _slope(before, h) + (b1 - rho) * (x0_next - m0))


def _slope(before: list[tuple[Tensor, Tensor]], h: Tensor) -> Tensor | float:
    """The change of x0 over a step h in lambda, from the last two calls; 0 where there is only one."""
    if len(before) == 1:
        return 0.0
    (s_old, m1), (s, m0) = before
    return (m0 - m1) * (h / (s_old / s).log())


ADAMS = {1: (1,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}
"""How many slopes there are -> their weights in the next of even steps, newest first (Adams-Bashforth)."""


@torch.no_grad()
def plms(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise) -> Iterator[Step]:
    """PLMS, as in Stable Diffusion: Adams-Bashforth on eps, its steps taken for even ones in time (Liu et al. 2022).

    The first step is Heun's, which costs one call more.
    """
    slopes: list[Tensor] = []  # of the steps so far, newest first
    more = 0
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        x0 = denoise(x, s)
        slopes = [(x - x0) / s, *slopes[:3]]
        d = sum(weight * slope for weight, slope in zip(ADAMS[len(slopes)], slopes, strict=True))
        if i == 1 and s_next > 0:
            ahead, more = x + (s_next - s) * d, 1
            d = (d + (ahead - denoise(ahead, s_next)) / s_next) / 2
        x = x + (s_next - s) * d
        yield Step(i, s_next, x, x0, i + more)


@torch.no_grad()
def lms(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, order: int = 4) -> Iterator[Step]:
    """Adams-Bashforth on the probability-flow ODE in the grid's uneven steps (Liu et al. 2022; k-diffusion's LMS)."""
    levels, slopes = sigmas.double().cpu().numpy(), []
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        x0 = denoise(x, s)
        slopes = [(x - x0) / s, *slopes[: order - 1]]
        known = levels[i - len(slopes) : i][::-1]
        x = x + sum(c * d for c, d in zip(adams_weights(known, levels[i]), slopes, strict=True))
        yield Step(i, s_next, x, x0, i)


def adams_weights(known: np.ndarray, end: float) -> list[float]:
    """Integrals from known[0] to `end` of the Lagrange polynomials on the levels `known`."""
    nodes, weights = np.polynomial.legendre.leggauss(len(known))  # exact for the polynomials' degree
    half = (end - known[0]) / 2
    points = known[0] + half * (nodes + 1)
    basis = [
        np.prod([(points - o) / (k - o) for o in np.delete(known, j)], axis=0) * np.ones_like(points)
        for j, k in enumerate(known)
    ]
    return [float(half * (weights * values).sum()) for values in basis]


def _reverse_sde_step(x: Tensor, score: Tensor, s: Tensor, s_next: Tensor, noise: Noise) -> Tensor:
    variance = s**2 - s_next**2
    x = x + variance * score
    return x + variance.sqrt() * noise(x) if s_next > 0 else x


def _norm(x: Tensor) -> Tensor:
    """Each image's Euclidean norm, (B, 1, ..., 1)."""
    return x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


class Sampler(NamedTuple):
    """A sampler as the menu shows it; calls_per_step 0 means that the sampler itself decides."""

    run: Callable[..., Iterator[Step]]
    title: str
    calls_per_step: int
    stochastic: bool
    note: str


SAMPLERS = {
    "dpmpp_2m": Sampler(
        dpmpp_2m, "DPM-Solver++ (2M)", 1, False, "Second order from one call a step: few steps are enough."
    ),
    "unipc": Sampler(unipc, "UniPC", 1, False, "Predicts, then corrects with the same call: sharp in 8 to 12 steps."),
    "ddim": Sampler(ddim, "DDIM", 1, False, "The deterministic classic: the same noise always gives the same picture."),
    "ddpm": Sampler(
        partial(ddim, eta=1.0), "DDPM", 1, True, "The original: adds fresh noise at each step, so it wants many."
    ),
    "euler": Sampler(euler, "Euler", 1, False, "The simplest ODE step; in this coordinate it is DDIM exactly."),
    "euler_ancestral": Sampler(
        partial(ddim, eta=1.0),
        "Euler ancestral",
        1,
        True,
        "Euler down, then noise up; in this coordinate it is DDPM exactly.",
    ),
    "euler_maruyama": Sampler(
        euler_maruyama, "Euler-Maruyama", 1, True, "The reverse SDE in small steps: wants a hundred or more."
    ),
    "predictor_corrector": Sampler(
        predictor_corrector, "Predictor-corrector", 2, True, "A Langevin step cleans up after each step of the SDE."
    ),
    "heun": Sampler(heun, "Heun", 2, False, "Second order: looks ahead, then averages the two slopes."),
    "ode": Sampler(
        ode, "Adaptive ODE", 0, False, "Chooses its own steps to meet an error tolerance; ignores the step count."
    ),
    "dpmpp_2m_sde": Sampler(
        dpmpp_2m_sde, "DPM-Solver++ (2M) SDE", 1, True, "The second-order step with fresh noise each time."
    ),
    "plms": Sampler(plms, "PLMS", 1, False, "Stable Diffusion's first: four slopes as if steps were even in time."),
    "lms": Sampler(lms, "LMS", 1, False, "Adams-Bashforth: extrapolates from the last four slopes."),
}
