"""Diffusion on a line against integrals, distribution functions and the samplers that it must agree with."""

import math
from collections import deque

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest, norm, wasserstein_distance
from torch import Tensor

from diffusion.samplers import euler, euler_maruyama
from diffusion.schedules import VP, uniform_time
from diffusion.toy import TARGETS, Mixture, forward, reverse, wasserstein

MIXED = Mixture((0.25, 0.75), (1.5, -0.5), (0.0, 0.4))  # a point and a hill
ALL = {**TARGETS, "mixed": MIXED}
EACH = pytest.mark.parametrize("data", ALL.values(), ids=ALL)


class Draws:
    """Unit noise from one generator."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


def run(data: Mixture, steps: int, count: int = 2000, seed: int = 1, **options) -> list:
    """All steps of a way back from pure noise."""
    sigmas, noise = uniform_time(VP(), steps), Draws(seed)
    x = sigmas[0] * noise(torch.empty(count, dtype=torch.float64))
    return list(reverse(data.denoise, x, sigmas, noise=noise, **options))


# The denoiser and the distributions


@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0, 7.0])
@EACH
def test_the_denoiser_is_the_posterior_mean(data, sigma):
    """Bayes' rule, integrated over each hill and summed over the points."""
    for x in (-2.0, -0.9, 0.1, 0.6, 1.7):

        def mass(power: int, x: float = x) -> float:
            total = 0.0
            for weight, mean, std in zip(data.weights, data.means, data.stds, strict=True):
                if std == 0:
                    total += weight * mean**power * norm.pdf(x, mean, sigma)
                else:
                    ends, peaks = (
                        (mean - 12 * std, mean + 12 * std),
                        [mean, min(max(x, mean - 11 * std), mean + 11 * std)],
                    )
                    f = lambda x0: x0**power * norm.pdf(x0, mean, std) * norm.pdf(x, x0, sigma)  # noqa: B023, E731
                    total += weight * quad(f, *ends, points=peaks, limit=200, epsabs=1e-300, epsrel=1e-10)[0]
            return total

        if mass(0) > 1e-200:  # far from a point there is nothing left to divide by
            found = data.denoise(torch.tensor(x, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))
            assert found.item() == pytest.approx(mass(1) / mass(0), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
@EACH
def test_the_score_is_the_slope_of_the_log_density(data, sigma):
    """The density is the distribution function's slope; both are taken by differences."""
    x, h = torch.linspace(-1.8, 1.8, 25, dtype=torch.float64), 1e-3
    logs = [((data.cdf(y + h, sigma) - data.cdf(y - h, sigma)) / (2 * h)).log() for y in (x - h, x + h)]
    slope, seen = (logs[1] - logs[0]) / (2 * h), logs[0] > -9  # further out, differences of doubles say nothing
    assert seen.sum() > 8
    score = data.score(x, torch.tensor(sigma, dtype=torch.float64))
    torch.testing.assert_close(score[seen], slope[seen], rtol=2e-3, atol=2e-3)


@EACH
def test_draws_have_the_distribution(data):
    draws = data.draw(5000, torch.Generator().manual_seed(0))
    for x in (-1.2, -1.0, 0.0, 0.8, 1.0, 1.5):
        share, true = (draws <= x).double().mean().item(), data.cdf(torch.tensor(x, dtype=torch.float64)).item()
        assert share == pytest.approx(true, abs=4 * math.sqrt(true * (1 - true) / 5000) + 1e-9)


@EACH
def test_denoising_works_in_any_shape(data):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = torch.tensor(0.7, dtype=torch.float64)
    together, alone = data.denoise(x, sigma), [[data.denoise(value, sigma) for value in row] for row in x]
    torch.testing.assert_close(together, torch.tensor(alone, dtype=torch.float64))


# Forward


@pytest.mark.parametrize("levels", [2, 9])
@EACH
def test_forward_states_have_the_marginal_of_their_level(data, levels):
    sigmas = torch.linspace(0, 3, levels + 1, dtype=torch.float64)
    states = list(forward(data.draw(4000, torch.Generator().manual_seed(2)), sigmas, noise=Draws(3)))
    assert len(states) == levels + 1
    for x, sigma in zip(states[1:], sigmas[1:].tolist(), strict=True):
        assert kstest(x.numpy(), lambda y, s=sigma: data.cdf(torch.from_numpy(y), s).numpy()).pvalue > 1e-3


def test_forward_is_a_random_walk_in_sigma_squared():
    """Increments over disjoint times are independent, with the variance that has been added."""
    sigmas = torch.tensor([0.0, 0.5, 1.0, 2.5], dtype=torch.float64)
    states = torch.stack(list(forward(torch.zeros(20_000, dtype=torch.float64), sigmas, noise=Draws())))
    covariance = torch.cov(states.diff(dim=0))
    torch.testing.assert_close(covariance, (sigmas**2).diff().diag(), rtol=0.04, atol=0.06)


# Backward


@pytest.mark.parametrize("steps", [4, 30])
@pytest.mark.parametrize(("strength", "sampler"), [(0.0, euler), (1.0, euler_maruyama)], ids=["euler", "sde"])
@EACH
def test_the_two_ends_are_the_samplers(data, strength, sampler, steps):
    sigmas, draws = uniform_time(VP(), steps), Draws(1)
    x = sigmas[0] * draws(torch.empty(50, dtype=torch.float64))
    theirs = list(sampler(data.denoise, x, sigmas, noise=draws))
    for step, other in zip(run(data, steps, 50, strength=strength), theirs, strict=True):
        torch.testing.assert_close(step.x, other.x, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(step.x0, other.x0, rtol=1e-10, atol=1e-10)
        assert step[:2] == other[:2] and step.calls == other.calls


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_every_strength_passes_through_the_same_marginals(strength):
    """Kolmogorov's distance on the way and at the end: 1.95 / sqrt(n) is chance's share, 0.01 that of 400 steps."""
    data, count = TARGETS["Hills"], 3000
    steps = run(data, 400, count, strength=strength)
    for step in (steps[199], steps[319], steps[379], steps[-1]):
        distance = kstest(step.x.numpy(), lambda y, s=float(step.sigma): data.cdf(torch.from_numpy(y), s).numpy())
        assert distance.statistic < 1.95 / math.sqrt(count) + 0.01, float(step.sigma)


def test_without_noise_the_way_back_is_the_probability_flow():
    """On a line the flow keeps the order of points, so it is the map between equal quantiles of the two ends."""
    data, levels = TARGETS["Hills"], torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    sigmas = uniform_time(VP(), 2000)
    *_, last = reverse(data.denoise, sigmas[0] * torch.special.ndtri(levels), sigmas, noise=Draws(), strength=0)
    torch.testing.assert_close(data.cdf(last.x), levels, rtol=0, atol=5e-3)


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_fewer_steps_miss_the_data_by_more(strength):
    found = [wasserstein(run(TARGETS["Hills"], n, strength=strength)[-1].x, TARGETS["Hills"]) for n in (5, 12, 40, 200)]
    assert found[0] > 2 * found[1] > 2 * found[2] and found[2] > found[3], found


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("name", ["One point", "Two points"])
def test_points_are_met_at_any_number_of_steps(name, strength):
    """But for the few that are still between two of them when the noise ends."""
    data = TARGETS[name]
    ends = run(data, 4, 200, strength=strength)[-1].x
    off = (ends[:, None] - torch.tensor(data.means, dtype=torch.float64)).abs().min(1).values
    assert off.quantile(0.98) < 1e-6


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_no_step_overshoots_and_grows(strength):
    """The noise left out, each step from 1 to any lower level brings a point nearer to where all data is."""
    data = TARGETS["One point"]
    for ratio in (0.01, 0.2, 0.375, 0.6, 0.99):
        sigmas = torch.tensor([1.0, ratio], dtype=torch.float64)
        x = torch.tensor([3.0], dtype=torch.float64)
        (step,) = reverse(data.denoise, x, sigmas, noise=torch.zeros_like, strength=strength)
        assert (step.x - 0.8).abs() < (x - 0.8).abs()


@pytest.mark.parametrize("strength", [-0.1, 2.1, math.nan, math.inf])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="noise strength must be a number from 0 to 2"):
        run(MIXED, 4, 2, strength=strength)


# The distance


@pytest.mark.parametrize("data", [TARGETS["One point"], TARGETS["Two points"], Mixture((0.2, 0.8), (0.0, 3.0), (0, 0))])
def test_the_distance_from_points_is_scipys(data):
    x = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    theirs = wasserstein_distance(x.numpy(), data.means, v_weights=data.weights)
    assert wasserstein(x, data) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("data", [TARGETS["Hills"], MIXED], ids=["hills", "mixed"])
def test_the_distance_from_hills_is_scipys_with_many_draws(data):
    many = data.draw(1_000_000, torch.Generator().manual_seed(1)).numpy()
    x = 1.3 * data.draw(500, torch.Generator().manual_seed(0)) - 0.2
    assert wasserstein(x, data) == pytest.approx(wasserstein_distance(x.numpy(), many), abs=4e-3)


def test_a_shift_moves_all_points_by_as_much():
    data = Mixture((1.0,), (0.5,), (2.0,))
    quantiles = 0.5 + 2 * norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    assert wasserstein(torch.from_numpy(quantiles), data) < 1e-3
    assert wasserstein(torch.from_numpy(quantiles + 0.7), data) == pytest.approx(0.7, abs=1e-3)
    assert wasserstein(torch.full((5,), 100.0), data) == pytest.approx(99.5, abs=1e-3)


# What a mixture may be


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (((), (), ()), "at least one"),
        (((1.0,), (0.0, 1.0), (0.0,)), "one mean and one std for each weight"),
        (((0.5, 0.6), (0.0, 1.0), (0.0, 0.0)), "sum to 1"),
        (((1.5, -0.5), (0.0, 1.0), (0.0, 0.0)), "must be positive"),
        (((1.0,), (0.0,), (-0.1,)), "must be 0 or more"),
        (((1.0,), (math.nan,), (0.0,)), "finite"),
        (((1.0,), (0.0,), (math.inf,)), "finite"),
    ],
)
def test_what_is_no_mixture_is_refused(parts, words):
    with pytest.raises(ValueError, match=words):
        Mixture(*parts)


def test_steps_are_yielded_one_by_one():
    steps = reverse(MIXED.denoise, torch.ones(3), uniform_time(VP(), 6).float(), noise=Draws())
    assert next(steps).index == 1
    assert deque(steps, maxlen=1).pop().index == 6
