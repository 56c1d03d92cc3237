"""Noise schedules and grids against their papers' own formulas, quadrature and diffusers' tables."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from mixture import SCHEDULES
from scipy import integrate, stats

from diffusion.schedules import EDM, GRIDS, VE, VP, Discrete, Flow, karras, uniform_time

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def levels(schedule, n=101, dtype=torch.float64):
    """Noise levels over the schedule's whole range, dense at its small end."""
    ends = math.log(schedule.sigma_min), math.log(schedule.sigma_max)
    return torch.linspace(*ends, n, dtype=torch.float64).exp().clamp(schedule.sigma_min, schedule.sigma_max).to(dtype)


@EVERY
def test_t_and_sigma_are_inverses(schedule):
    sigma = levels(schedule)
    t = schedule.t(sigma)
    assert (t.diff() > 0).all()
    torch.testing.assert_close(schedule.sigma(t), sigma, rtol=1e-9, atol=0)
    torch.testing.assert_close(schedule.t(schedule.sigma(t)), t, rtol=1e-9, atol=1e-9)


@EVERY
def test_float32_is_enough(schedule):
    """Whatever a network is told in float32 means the level it should to 1e-4 of itself."""
    sigma = levels(schedule, dtype=torch.float32)
    # The flow's t nears 1 where sigma is large, and float32 is 6e-8 wide there: sigma = 1 / (1 - t) loses 6e-8 * sigma.
    rtol = 1.2e-7 * schedule.sigma_max if isinstance(schedule, Flow) else 1e-4
    torch.testing.assert_close(schedule.sigma(schedule.t(sigma)), sigma, rtol=rtol, atol=0)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes_are_kept(schedule, dtype):
    for sigma in (torch.tensor(1.0, dtype=dtype), torch.ones(3, dtype=dtype), torch.ones(2, 1, 1, 1, dtype=dtype)):
        for value in (schedule.t(sigma), schedule.alpha(sigma), schedule.sigma(schedule.t(sigma))):
            assert value.shape == sigma.shape and value.dtype == dtype
    assert schedule.sample(torch.full((5,), 0.5, dtype=dtype)).dtype == dtype


def test_ve_sigma_is_the_variance_of_its_equation():
    """dx = s^t dw, so the variance is the integral of s^(2 t)."""
    for t in (0.01, 0.3, 1.0):
        variance = integrate.quad(lambda u: 25.0 ** (2 * u), 0, t)[0]
        assert VE(s=25.0).sigma(torch.tensor(t, dtype=torch.float64)).item() == pytest.approx(variance**0.5, rel=1e-10)
    assert VE().alpha(torch.tensor(3.0)).item() == 1


@pytest.mark.parametrize(("low", "high"), [(0.1, 20.0), (0.5, 7.0)])
def test_vp_scale_and_spread_are_those_of_its_equation(low, high):
    """Song et al. 2021, Eq. 29: x_t = exp(-B / 2) x0 + sqrt(1 - exp(-B)) eps with B the integral of beta."""
    schedule = VP(beta_min=low, beta_max=high)
    for t in (0.001, 0.2, 1.0):
        integral = integrate.quad(lambda u: low + u * (high - low), 0, t)[0]
        sigma = schedule.sigma(torch.tensor(t, dtype=torch.float64))
        assert schedule.alpha(sigma).item() == pytest.approx(math.exp(-integral / 2), rel=1e-10)
        assert (schedule.alpha(sigma) * sigma).item() == pytest.approx(math.sqrt(-math.expm1(-integral)), rel=1e-10)


def test_vp_with_a_constant_beta():
    schedule = VP(beta_min=2.0, beta_max=2.0)
    t = torch.tensor([0.1, 0.7], dtype=torch.float64)
    torch.testing.assert_close(schedule.t(schedule.sigma(t)), t, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("kind", "name", "steps", "ends"),
    [
        ("linear", "linear", 1000, (1e-4, 0.02)),
        ("linear", "linear", 250, (1e-3, 0.05)),
        ("scaled_linear", "scaled_linear", 1000, (0.00085, 0.012)),
        ("cosine", "squaredcos_cap_v2", 1000, (1e-4, 0.02)),
        ("cosine", "squaredcos_cap_v2", 100, (1e-4, 0.02)),
    ],
)
def test_tables_are_those_of_diffusers(kind, name, steps, ends):
    theirs = DDPMScheduler(steps, beta_start=ends[0], beta_end=ends[1], beta_schedule=name)
    ours = Discrete(kind, steps, *ends)
    # Theirs are float32: a beta is off by 6e-8 of itself, or of 1 where it is 1 - a ratio, and 1000 of them add up.
    torch.testing.assert_close(ours.betas.float(), theirs.betas, rtol=1e-6, atol=1.2e-7)
    torch.testing.assert_close(ours.alpha_bar.float(), theirs.alphas_cumprod, rtol=2e-4, atol=0)
    t = torch.arange(steps, dtype=torch.float64)
    torch.testing.assert_close(1 / (1 + ours.sigma(t) ** 2), ours.alpha_bar, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.alpha(ours.sigma(t)) ** 2, ours.alpha_bar, rtol=1e-12, atol=0)


def test_cosine_is_the_papers_formula():
    """Nichol & Dhariwal 2021, Eq. 17, at every step but the last, where beta is capped."""
    f = torch.cos((torch.linspace(0, 1, 1001, dtype=torch.float64) + 0.008) / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(Discrete("cosine").alpha_bar[:-1], (f / f[0])[1:-1], rtol=1e-10, atol=0)
    assert Discrete("cosine").betas[-1].item() == 0.999


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
def test_whole_timesteps_survive_the_round_trip_in_float32(kind):
    schedule, t = Discrete(kind), torch.arange(1000.0)
    torch.testing.assert_close(schedule.t(schedule.sigma(t)), t, rtol=0, atol=2e-3)


def test_levels_between_timesteps_are_interpolated_in_their_logarithm():
    schedule = Discrete()
    low, high = schedule.sigma(torch.tensor([400.0, 401.0], dtype=torch.float64))
    assert schedule.sigma(torch.tensor(400.5, dtype=torch.float64)).item() == pytest.approx((low * high).sqrt().item())
    assert schedule.t((low * high).sqrt()).item() == pytest.approx(400.5)


def test_levels_outside_the_table_are_told_as_its_ends():
    t = Discrete().t(torch.tensor([0.0, 1e-5, 1e6]))
    assert t.tolist() == [0, 0, 999]


def test_edm_scales():
    """Karras et al. 2022, Table 1: c_in = 1 / sqrt(sigma^2 + sigma_data^2), c_noise = ln(sigma) / 4."""
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    expected = [1 / math.sqrt(s**2 + 0.3**2) for s in sigma.tolist()]
    assert EDM(sigma_data=0.3).alpha(sigma).tolist() == pytest.approx(expected, rel=1e-12)
    assert EDM().t(sigma).tolist() == pytest.approx([math.log(s) / 4 for s in sigma.tolist()], rel=1e-12)


def test_flow_is_the_straight_path():
    """x_t = (1 - t) x0 + t eps."""
    t = torch.linspace(0.001, 0.999, 50, dtype=torch.float64)
    sigma = Flow().sigma(t)
    torch.testing.assert_close(Flow().alpha(sigma), 1 - t, rtol=1e-10, atol=0)
    torch.testing.assert_close(Flow().alpha(sigma) * sigma, t, rtol=1e-10, atol=0)


U = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000


@pytest.mark.parametrize("name", ["ve", "vp", "flow"])
def test_training_draws_t_evenly(name):
    schedule = SCHEDULES[name]
    end = getattr(schedule, "t_max", 1.0)
    expected = stats.uniform(schedule.t_min, end - schedule.t_min).ppf(U.numpy())
    np.testing.assert_allclose(schedule.t(schedule.sample(U)).numpy(), expected, rtol=1e-9)


def test_edm_draws_levels_log_normally():
    """Karras et al. 2022, Table 1: ln(sigma) ~ N(-1.2, 1.2^2), cut at the ends of the range."""
    expected = stats.lognorm(s=1.2, scale=math.exp(-1.2)).ppf(U.numpy())
    np.testing.assert_allclose(EDM().sample(U).numpy(), expected.clip(0.002, 80), rtol=1e-6)
    assert EDM().sample(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([0.002, 80.0])


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
def test_every_timestep_is_drawn_equally_often(kind):
    schedule = Discrete(kind)
    t = schedule.t(schedule.sample(U)).round().long()
    assert t.bincount(minlength=1000).tolist() == [2] * 1000
    assert schedule.sample(torch.ones(1, dtype=torch.float64)).item() == pytest.approx(schedule.sigma_max)


@EVERY
def test_training_levels_lie_in_the_range(schedule):
    sigma = schedule.sample(torch.rand(4096, generator=torch.Generator().manual_seed(0)))
    assert sigma.isfinite().all()
    assert schedule.sigma_min * (1 - 1e-4) <= sigma.min() and sigma.max() <= schedule.sigma_max * (1 + 1e-4)


@EVERY
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("n", [1, 2, 25, 1000])
def test_a_grid_falls_from_sigma_max_over_sigma_min_to_zero(schedule, grid, n):
    sigmas = GRIDS[grid](schedule, n)
    assert sigmas.shape == (n + 1,) and sigmas.dtype == torch.float64
    assert (sigmas.diff() < 0).all() and sigmas[-1] == 0
    assert sigmas[0].item() == pytest.approx(schedule.sigma_max, rel=1e-9)
    if n > 1:
        assert sigmas[-2].item() == pytest.approx(schedule.sigma_min, rel=1e-9)


def test_karras_is_the_papers_formula():
    """Karras et al. 2022, Eq. 5, with rho = 7."""
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert karras(EDM(), 18)[:-1].tolist() == pytest.approx(expected, rel=1e-12)


@EVERY
def test_uniform_time_is_even_in_what_the_network_is_told(schedule):
    steps = schedule.t(uniform_time(schedule, 20)[:-1]).diff()
    torch.testing.assert_close(steps, steps.mean().expand(19), rtol=1e-8, atol=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Discrete(steps=1), "at least 2 steps, got 1"),
        (lambda: Discrete(beta_start=0.02, beta_end=0.01), r"betas must rise within \(0, 1\), got 0.02 to 0.01"),
        (lambda: Discrete(beta_end=1.0), r"betas must rise within \(0, 1\)"),
        (lambda: EDM(sigma_min=0.0), "0 < sigma_min < sigma_max must hold, got 0.0 and 80.0"),
        (lambda: EDM(sigma_min=90.0), "0 < sigma_min < sigma_max must hold"),
        (lambda: EDM(sigma_data=0.0), "sigma_data and p_std must be positive, got 0.0 and 1.2"),
        (lambda: VE(s=1.0), "s > 1 and 0 < t_min < 1 must hold, got 1.0 and 0.001"),
        (lambda: VP(beta_min=30.0), "0 < beta_min <= beta_max and 0 < t_min < 1 must hold, got 30.0, 20.0, 0.001"),
        (lambda: Flow(t_max=1.0), "0 < t_min < t_max < 1 must hold, got 0.001 and 1.0"),
    ],
)
def test_impossible_schedules_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
