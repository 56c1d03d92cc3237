"""Diffusion on a line, where all of it is exact: data whose denoiser is a formula, and paths there and back.

Coordinates are the engine's, x = x0 + sigma * eps: forward is a random walk, and `reverse` is a sampler like any other.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.samplers import Denoise, Noise, Step


@dataclass(frozen=True)
class Mixture:
    """Normal distributions on a line with weights that sum to 1; one whose std is 0 is a point."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.weights) == len(self.means) == len(self.stds) > 0:
            raise ValueError("a mixture needs one mean and one std for each weight, and at least one of them.")
        if not all(map(math.isfinite, (*self.weights, *self.means, *self.stds))):
            raise ValueError("the weights, means and stds of a mixture must be finite numbers.")
        if min(self.weights) <= 0 or not math.isclose(sum(self.weights), 1):
            raise ValueError(f"the weights of a mixture must be positive and sum to 1, not {self.weights}.")
        if min(self.stds) < 0:
            raise ValueError(f"the stds of a mixture must be 0 or more, not {self.stds}.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws, float64 (count,)."""
        component = torch.multinomial(self._row(0), count, True, generator=generator)
        eps = torch.randn(count, generator=generator, dtype=torch.float64)
        return self._row(1)[component] + self._row(2)[component] * eps

    def cdf(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """The probability that x0 + sigma * eps is at most x; like x."""
        means, stds = self._row(1, x), (self._row(2, x) ** 2 + sigma**2).sqrt()
        below = torch.where(stds > 0, torch.special.ndtr((x - means) / stds.clamp_min(1e-300)), (x >= means).to(x))
        return (self._row(0, x) * below).sum(0)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] for x = x0 + sigma * eps, sigma > 0, scalar; each coordinate on its own, like x.

        Given its component, x0 and x are jointly normal; components count by their posterior weights (Bishop 2006,
        Eq. 2.113 to 2.117).
        """
        weights, means, stds = (self._row(k, x) for k in range(3))
        variance = stds**2 + sigma**2
        posterior = (weights.log() - variance.log() / 2 - (x - means) ** 2 / (2 * variance)).softmax(0)
        return (posterior * (means + stds**2 / variance * (x - means))).sum(0)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The slope of log p_sigma at x, from the denoiser by Tweedie's formula (Efron 2011, Eq. 2.8)."""
        return (self.denoise(x, sigma) - x) / sigma**2

    def _row(self, which: int, like: Tensor | None = None) -> Tensor:
        """Weights, means or stds, float64 (K,), with an axis for each of like's after it."""
        values = torch.tensor((self.weights, self.means, self.stds)[which], dtype=torch.float64)
        return values if like is None else values.to(like).view(-1, *[1] * like.ndim)


TARGETS = {
    "One point": Mixture((1.0,), (0.8,), (0.0,)),
    "Two points": Mixture((0.5, 0.5), (-1.0, 1.0), (0.0, 0.0)),
    "Hills": Mixture((0.3, 0.45, 0.25), (-1.4, 0.1, 1.3), (0.15, 0.3, 0.1)),
}


def forward(x0: Tensor, sigmas: Tensor, *, noise: Noise) -> Iterator[Tensor]:
    """The states at rising levels, sigmas[0] first: dx = dw in the time sigma^2, exact at any number of levels."""
    x, level = x0, sigmas.new_zeros(())
    for s in sigmas:
        x, level = x + (s**2 - level**2).sqrt() * noise(x), s
        yield x


@torch.no_grad()
def reverse(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, strength: float = 1.0) -> Iterator[Step]:
    """Euler-Maruyama on the reverse SDE with its noise times `strength`; no noise on the last step.

    dx = (1 + strength^2) / 2 * score * d(sigma^2) + strength * dw leaves every marginal as it is (Song et al. 2021,
    App. D.1; Karras et al. 2022, Eq. 6). A step takes the ODE's part at sigma, as `samplers.euler` does, and the rest
    so that 1 is `samplers.euler_maruyama`: 0 and 1 are those two exactly. Up to 2, no drift overshoots and grows.

    Raises:
        ValueError: strength is not a number from 0 to 2.
    """
    if not 0 <= strength <= 2:
        raise ValueError(f"the noise strength must be a number from 0 to 2, not {strength}.")
    for i, (s, s_next) in enumerate(pairwise(sigmas), 1):
        x0 = denoise(x, s)
        x = x + (s - s_next) * (s + strength**2 * s_next) * (x0 - x) / s**2
        if strength > 0 and s_next > 0:
            x = x + strength * (s**2 - s_next**2).sqrt() * noise(x)
        yield Step(i, s_next, x, x0, i)


def wasserstein(points: Tensor, target: Mixture) -> float:
    """The Wasserstein-1 distance of points (N,) from a mixture: the area between the two distribution functions.

    Exact where the mixture is flat, elsewhere by the midpoint rule on cells of a few thousandths.
    """
    points = points.double().sort().values
    reach = max(abs(mean) + 8 * std for mean, std in zip(target.means, target.stds, strict=True))
    fine = torch.linspace(-reach, reach, 4001, dtype=torch.float64)
    edges = torch.cat([points, fine, torch.tensor(target.means, dtype=torch.float64)]).sort().values
    middles = (edges[1:] + edges[:-1]) / 2
    share = torch.searchsorted(points, middles).double() / len(points)
    return ((share - target.cdf(middles)).abs() * edges.diff()).sum().item()
