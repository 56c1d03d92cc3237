"""Wrappers that turn a denoiser into another: guidance, inpainting, clipping; no sampler knows of them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x, sigma) -> x0


def guide(
    denoiser: Callable[[Tensor, Tensor, Tensor], Tensor],
    context: Tensor,
    negative: Tensor,
    scale: float,
    interval: tuple[float, float] = (0.0, math.inf),
) -> Denoise:
    """Classifier-free guidance: x0 = x0(negative) + scale * (x0(context) - x0(negative)) (Ho & Salimans 2022, Eq. 6).

    A scale of 1 means none. Guidance in x0 is guidance in eps, v, score or velocity too: each is an affine map of x0.

    Args:
        denoiser: (x, sigma, context) -> x0.
        context, negative: (B, L, D); the negative prompt's context, or that of "".
        interval: the noise levels, both ends included, at which guidance acts (Kynkäänniemi et al. 2024).
    """
    low, high = interval

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        inside = (low <= sigma) & (sigma <= high)
        if scale == 1 or not inside.any():
            return denoiser(x, sigma, context)
        # Both halves as one batch: on a CPU that costs about 1.4 calls, not 2.
        both = denoiser(torch.cat([x, x]), sigma.expand(len(x)).repeat(2), torch.cat([negative, context]))
        without, with_prompt = both.chunk(2)
        weight = torch.where(inside, scale, 1.0).to(x).expand(len(x)).view(-1, *[1] * (x.ndim - 1))
        return without + weight * (with_prompt - without)

    return guided


def inpaint(denoise: Denoise, known: Tensor, eps: Tensor, hole: Tensor, start: Tensor, begun: Tensor) -> Denoise:
    """Holds what is known: outside the hole, and everywhere above an image's start level, the answer is `known`.

    The network sees known + sigma * eps there, so the two parts of the picture stay at one noise level.

    Args:
        known: clean states (B, ...); eps: their fixed unit noise.
        hole: bool, broadcastable to `known`: True where the picture is to be made.
        start: noise levels (B,): image i is held until its state is down to start[i], so strengths differ in one batch.
        begun: bool (B,): which states are; its owner updates it between steps, as a step may look ahead to start[i].
    """
    shape = (-1, *[1] * (known.ndim - 1))

    def held(x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.to(x).expand(len(x))
        free = hole & (begun | (sigma < start.to(x))).view(shape)
        x = torch.where(free, x, known + sigma.view(shape) * eps)
        return torch.where(free, denoise(x, sigma), known)

    return held


def clip(denoise: Denoise, low: float, high: float) -> Denoise:
    """Keeps x0 within the range of pixels (Ho et al. 2020, Sec. 3.3); latents have none: infinities."""
    return lambda x, sigma: denoise(x, sigma).clamp(low, high)
