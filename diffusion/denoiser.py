"""A network, a schedule and a parameterization make one thing: the denoiser E[x0 | x], and its one loss."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion.schedules import Schedule


class Prediction(NamedTuple):
    """What a network's output F means: x0 = skip * x + out * F, with skip and out functions of sigma and of sigma_data.

    They do not depend on the schedule: v is alpha eps - sigma x0 on the path where alpha^2 + sigma^2 = 1 (Salimans & Ho
    2022), flow is eps - x0 on the straight one, and every schedule's state is a multiple of either's.
    """

    skip: Callable[[Tensor, float], Tensor]
    out: Callable[[Tensor, float], Tensor]


PREDICTIONS = {
    "eps": Prediction(lambda s, d: torch.ones_like(s), lambda s, d: -s),
    "x0": Prediction(lambda s, d: torch.zeros_like(s), lambda s, d: torch.ones_like(s)),
    "score": Prediction(lambda s, d: torch.ones_like(s), lambda s, d: s),  # F = std * score
    "v": Prediction(lambda s, d: 1 / (1 + s**2), lambda s, d: -s * (1 + s**2).rsqrt()),
    "edm": Prediction(lambda s, d: d**2 / (s**2 + d**2), lambda s, d: s * d * (s**2 + d**2).rsqrt()),
    "flow": Prediction(lambda s, d: 1 / (1 + s), lambda s, d: -s / (1 + s)),
}


class Denoiser(nn.Module):
    """The posterior mean E[x0 | x] at noise level sigma, for x = x0 + sigma * eps (Karras et al. 2022, Eq. 7)."""

    def __init__(self, network: nn.Module, schedule: Schedule, prediction: str) -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(f"unknown prediction '{prediction}'; the choices are {', '.join(PREDICTIONS)}.")
        self.network, self.schedule, self.prediction = network, schedule, prediction

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor | None = None) -> Tensor:
        """x0 from the state x (B, ...) float32 and sigma, a scalar or (B,); context (B, L, D) or None."""
        skip, out, F = self._parts(x, sigma, context)
        return skip * x + out * F

    def loss(self, x0: Tensor, sigma: Tensor, eps: Tensor, context: Tensor | None = None) -> Tensor:
        """The squared error of F per image, (B,), against the target that skip and out imply: (x0 - skip x) / out.

        For eps and score this is the simple loss of Ho et al. 2020, for edm the weighted loss of Karras et al. 2022.

        Args:
            x0: clean states (B, ...); sigma: noise levels (B,); eps: unit noise like x0.
        """
        x = x0 + sigma.view(-1, *[1] * (x0.ndim - 1)) * eps
        skip, out, F = self._parts(x, sigma, context)
        return (F - (x0 - skip * x) / out).square().flatten(1).mean(1)

    def _parts(self, x: Tensor, sigma: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        sigma = sigma.to(x).expand(len(x))
        s = sigma.view(-1, *[1] * (x.ndim - 1))  # (B, 1, 1, 1)
        skip, out = (f(s, getattr(self.schedule, "sigma_data", 1.0)) for f in PREDICTIONS[self.prediction])
        F = self.network(self.schedule.alpha(s) * x, self.schedule.t(sigma), context)
        return skip, out, F.to(x)  # the state stays float32 whatever the network computes in
