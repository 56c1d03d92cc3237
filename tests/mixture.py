"""What the tests of the mathematics share: every schedule, and data with a denoiser in closed form.

The data is a mixture of Gaussians, the same and independent in every coordinate.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.schedules import EDM, VE, VP, Discrete, Flow

SCHEDULES = {
    "ve": VE(),
    "vp": VP(),
    "linear": Discrete("linear"),
    "scaled_linear": Discrete("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "cosine": Discrete("cosine"),
    "edm": EDM(),
    "flow": Flow(),
}


class Mixture(NamedTuple):
    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        component = torch.multinomial(torch.tensor(self.weights), torch.Size(shape).numel(), True, generator=generator)
        means, stds = (torch.tensor(v, dtype=torch.float64)[component].view(shape) for v in (self.means, self.stds))
        return means + stds * torch.randn(shape, generator=generator, dtype=torch.float64)

    def log_density(self, x: Tensor, scale: float, std: float) -> Tensor:
        """log p of scale * x0 + std * eps at x, for each coordinate."""
        logs = []
        for weight, mean, own in zip(*self, strict=True):
            variance = (scale * own) ** 2 + std**2
            logs.append(
                math.log(weight) - math.log(2 * math.pi * variance) / 2 - (x - scale * mean) ** 2 / (2 * variance)
            )
        return torch.stack(logs).logsumexp(0)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] for x = x0 + sigma * eps; sigma scalar or (B,)."""
        weights, means, stds = (torch.tensor(v, dtype=x.dtype).view(-1, *[1] * x.ndim) for v in self)
        variance = stds**2 + sigma.to(x).view(-1, *[1] * (x.ndim - 1)) ** 2
        logits = weights.log() - variance.log() / 2 - (x - means) ** 2 / (2 * variance)
        return (logits.softmax(0) * (means + stds**2 / variance * (x - means))).sum(0)


TWO = Mixture(weights=(0.3, 0.7), means=(-1.5, 1.0), stds=(0.3, 0.5))
"""Two unequal modes: what is tested on them cannot pass by symmetry."""
