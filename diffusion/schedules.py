"""Noise schedules in one coordinate, x = x0 + sigma * eps, and the grids of noise levels that samplers walk down.

A Gaussian path x_t = a_t x0 + s_t eps, divided by a_t, is x0 + sigma eps with sigma = s_t / a_t. A schedule is what
remains: which sigmas occur, how the network wants its input scaled (alpha), and how it is told the noise level (t).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Protocol

import torch
from torch import Tensor

from diffusion.config import BY_KIND, STRICT


class Schedule(Protocol):
    """Which noise levels occur and how the network is told of them; tensors of any shape, returned in their dtype."""

    sigma_min: float
    sigma_max: float

    def sigma(self, t: Tensor) -> Tensor:
        """The noise level that the network is told as `t`."""

    def t(self, sigma: Tensor) -> Tensor:
        """The inverse of `sigma`: what the network is told about this noise level."""

    def alpha(self, sigma: Tensor) -> Tensor:
        """The network sees alpha * x."""

    def sample(self, u: Tensor) -> Tensor:
        """Noise levels for training: the quantile function at u in (0, 1); stratified u give stratified levels."""


class UnitTime:
    """What VE and VP share: time runs from t_min to 1, and training draws it evenly."""

    t_min: float

    @cached_property
    def sigma_min(self) -> float:
        return self.sigma(torch.tensor(self.t_min, dtype=torch.float64)).item()

    @cached_property
    def sigma_max(self) -> float:
        return self.sigma(torch.tensor(1.0, dtype=torch.float64)).item()

    def sample(self, u: Tensor) -> Tensor:
        return self.sigma(self.t_min + (1 - self.t_min) * u)


@dataclass(frozen=True)
class VE(UnitTime):
    """Variance exploding, dx = s^t dw for t in (0, 1] (Song et al. 2021, score SDE; the s^t form of its tutorial)."""

    kind: Literal["ve"] = "ve"
    s: float = 25.0
    t_min: float = 1e-3

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not (self.s > 1 and 0 < self.t_min < 1):
            raise ValueError(f"s > 1 and 0 < t_min < 1 must hold, got {self.s} and {self.t_min}")

    def sigma(self, t: Tensor) -> Tensor:
        log_s = math.log(self.s)
        return (torch.expm1(2 * log_s * t) / (2 * log_s)).sqrt()

    def t(self, sigma: Tensor) -> Tensor:
        log_s = math.log(self.s)
        return torch.log1p(2 * log_s * sigma**2) / (2 * log_s)

    def alpha(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)


@dataclass(frozen=True)
class VP(UnitTime):
    """Variance preserving in continuous time, beta(t) from beta_min to beta_max (Song et al. 2021, Eq. 11)."""

    kind: Literal["vp"] = "vp"
    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not (0 < self.beta_min <= self.beta_max and 0 < self.t_min < 1):
            given = f"{self.beta_min}, {self.beta_max}, {self.t_min}"
            raise ValueError(f"0 < beta_min <= beta_max and 0 < t_min < 1 must hold, got {given}")

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1((self.beta_max - self.beta_min) * t**2 / 2 + self.beta_min * t).sqrt()

    def t(self, sigma: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        log = torch.log1p(sigma**2)
        return 2 * log / ((self.beta_min**2 + 2 * slope * log).sqrt() + self.beta_min)  # the root without cancellation

    def alpha(self, sigma: Tensor) -> Tensor:
        return (1 + sigma**2).rsqrt()


@dataclass(frozen=True)
class Discrete:
    """`steps` betas: linear (Ho et al. 2020), scaled_linear (Stable Diffusion) or cosine (Nichol & Dhariwal 2021).

    Between the table's entries sigma is interpolated in its logarithm. The betas' ends do not apply to cosine.
    """

    kind: Literal["linear", "scaled_linear", "cosine"] = "linear"
    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"a discrete schedule needs at least 2 steps, got {self.steps}")
        if not 0 < self.beta_start < self.beta_end < 1:
            raise ValueError(f"betas must rise within (0, 1), got {self.beta_start} to {self.beta_end}")

    @cached_property
    def betas(self) -> Tensor:
        """float64 (steps,)"""
        if self.kind == "cosine":  # Nichol & Dhariwal 2021, Eq. 17, with their offset 0.008 and cap 0.999
            s = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
            alpha_bar = torch.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2
            return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
        power = {"linear": 1.0, "scaled_linear": 0.5}[self.kind]
        ends = self.beta_start**power, self.beta_end**power
        return torch.linspace(*ends, self.steps, dtype=torch.float64) ** (1 / power)

    @cached_property
    def alpha_bar(self) -> Tensor:
        """The cumulative product of 1 - beta, float64 (steps,)."""
        return torch.cumprod(1 - self.betas, 0)

    @cached_property
    def log_sigmas(self) -> Tensor:
        return (torch.log1p(-self.alpha_bar) - self.alpha_bar.log()) / 2

    @cached_property
    def sigma_min(self) -> float:
        return self.log_sigmas[0].exp().item()

    @cached_property
    def sigma_max(self) -> float:
        return self.log_sigmas[-1].exp().item()

    def sigma(self, t: Tensor) -> Tensor:
        table = self.log_sigmas.to(t.device)
        low = t.long().clamp(0, self.steps - 2)
        return torch.lerp(table[low], table[low + 1], t.double() - low).exp().to(t.dtype)

    def t(self, sigma: Tensor) -> Tensor:
        table = self.log_sigmas.to(sigma.device)
        log = sigma.double().log()
        high = torch.searchsorted(table, log).clamp(1, self.steps - 1)
        low = high - 1
        t = low + (log - table[low]) / (table[high] - table[low])
        return t.clamp(0, self.steps - 1).to(sigma.dtype)

    def alpha(self, sigma: Tensor) -> Tensor:
        return (1 + sigma**2).rsqrt()

    def sample(self, u: Tensor) -> Tensor:
        return self.sigma((u * self.steps).floor().clamp(max=self.steps - 1))


@dataclass(frozen=True)
class EDM:
    """Noise levels as they are, told as ln(sigma) / 4, drawn log-normally in training (Karras et al. 2022, Table 1)."""

    kind: Literal["edm"] = "edm"
    sigma_data: float = 0.5
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    p_mean: float = -1.2
    p_std: float = 1.2

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"0 < sigma_min < sigma_max must hold, got {self.sigma_min} and {self.sigma_max}")
        if not (self.sigma_data > 0 and self.p_std > 0):
            raise ValueError(f"sigma_data and p_std must be positive, got {self.sigma_data} and {self.p_std}")

    def sigma(self, t: Tensor) -> Tensor:
        return (4 * t).exp()

    def t(self, sigma: Tensor) -> Tensor:
        return sigma.log() / 4

    def alpha(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.sigma_data**2).rsqrt()

    def sample(self, u: Tensor) -> Tensor:
        normal = math.sqrt(2) * torch.erfinv(2 * u - 1)
        return (self.p_mean + self.p_std * normal).exp().clamp(self.sigma_min, self.sigma_max)


@dataclass(frozen=True)
class Flow:
    """Rectified flow, x_t = (1 - t) x0 + t eps, capped at t_max where sigma would be infinite (Liu et al. 2023)."""

    kind: Literal["flow"] = "flow"
    t_min: float = 1e-3
    t_max: float = 0.999

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not 0 < self.t_min < self.t_max < 1:
            raise ValueError(f"0 < t_min < t_max < 1 must hold, got {self.t_min} and {self.t_max}")

    @property
    def sigma_min(self) -> float:
        return self.t_min / (1 - self.t_min)

    @property
    def sigma_max(self) -> float:
        return self.t_max / (1 - self.t_max)

    def sigma(self, t: Tensor) -> Tensor:
        return t / (1 - t)

    def t(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma)

    def alpha(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def sample(self, u: Tensor) -> Tensor:
        return self.sigma(self.t_min + (self.t_max - self.t_min) * u)


AnySchedule = Annotated[VE | VP | Discrete | EDM | Flow, BY_KIND]


def karras(schedule: Schedule, n: int, rho: float = 7.0) -> Tensor:
    """n noise levels from sigma_max to sigma_min, evenly spaced in sigma^(1/rho), then 0 (Karras et al. 2022, Eq. 5).

    Returns float64 (n + 1,); a single level is sigma_max.
    """
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    high, low = schedule.sigma_max ** (1 / rho), schedule.sigma_min ** (1 / rho)
    return _then_zero((high + ramp * (low - high)) ** rho)


def uniform_time(schedule: Schedule, n: int) -> Tensor:
    """n noise levels evenly spaced in what the network is told, t, then 0: float64 (n + 1,)."""
    ends = torch.tensor([schedule.sigma_max, schedule.sigma_min], dtype=torch.float64)
    first, last = schedule.t(ends).tolist()
    return _then_zero(schedule.sigma(torch.linspace(first, last, n, dtype=torch.float64)))


def leading(schedule: Discrete, n: int) -> Tensor:
    """The n whole timesteps i * (steps // n) + 1, then 0: float64 (n + 1,); Stable Diffusion's own.

    Its first level is below sigma_max (Lin et al. 2024, section 3.3), by far for a few steps. All the schedule's levels
    are without the 1. ValueError for more levels than the schedule has.
    """
    _check_room(schedule, n)
    t = torch.arange(n - 1, -1, -1, dtype=torch.float64) * (schedule.steps // n) + (n < schedule.steps)
    return _then_zero(schedule.sigma(t))


def trailing(schedule: Discrete, n: int) -> Tensor:
    """The n whole timesteps nearest to (i + 1) * steps / n - 1, then 0: float64 (n + 1,) (Lin et al. 2024, Table 2).

    ValueError for more levels than the schedule has.
    """
    _check_room(schedule, n)
    t = (torch.arange(n, 0, -1, dtype=torch.float64) * schedule.steps / n).round() - 1
    return _then_zero(schedule.sigma(t))


def _check_room(schedule: Discrete, n: int) -> None:
    if n > schedule.steps:
        raise ValueError(f"This schedule has {schedule.steps} levels, too few for {n} steps.")


def _then_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])


GRIDS = {"karras": karras, "uniform_time": uniform_time}

TABLE_GRIDS = {"leading": leading, "trailing": trailing}
"""Of whole timesteps, so for Discrete schedules alone."""
