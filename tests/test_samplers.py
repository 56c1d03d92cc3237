"""Samplers against exact solutions, their papers' equations and scipy, and step by step against diffusers."""

import math
from collections import deque
from itertools import islice, pairwise

import diffusers
import numpy as np
import pytest
import torch
from mixture import SCHEDULES, TWO, Mixture
from scipy.integrate import solve_ivp
from torch import Tensor

from diffusion.samplers import SAMPLERS, ddim, dpmpp_2m_sde, euler, euler_maruyama, ode, predictor_corrector
from diffusion.schedules import EDM, GRIDS, TABLE_GRIDS, VP, Discrete, Flow, karras

EACH = pytest.mark.parametrize("name", SAMPLERS)


class Draws:
    """Unit noise from one generator, which also counts."""

    def __init__(self, seed: int = 0) -> None:
        self.generator, self.count = torch.Generator().manual_seed(seed), 0

    def __call__(self, x: Tensor) -> Tensor:
        self.count += 1
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


def last(steps):
    """The last of a run's steps."""
    return deque(steps, maxlen=1).pop()


def start(sigma: float, shape=(6, 5), seed: int = 0) -> Tensor:
    """States of the mixture at this noise level, exactly distributed."""
    generator = torch.Generator().manual_seed(seed)
    return TWO.sample(shape, generator) + sigma * torch.randn(shape, generator=generator, dtype=torch.float64)


# Distributions


SHAPE = (64, 64)  # 64 images of 64 independent cells: 4096 samples of the one-dimensional mixture
SPLIT = -0.5  # between the modes
REFERENCE = TWO.sample((1_000_000,), torch.Generator().manual_seed(99))


def statistics(x: Tensor) -> tuple[float, float, float]:
    """The right mode's weight, and the spread on both sides."""
    right = x > SPLIT
    return right.double().mean().item(), x[~right].std().item(), x[right].std().item()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@EACH
def test_every_sampler_recovers_the_weights_and_the_spread_of_a_mixture(name, schedule, grid):
    """Thresholds: four standard errors of 4096 samples, and 0.01 or 4 % for steps that are not infinitely small."""
    steps = {"euler_maruyama": 250, "predictor_corrector": 150}.get(name, 120)
    if schedule == SCHEDULES["cosine"] and grid == "uniform_time" and steps != 120:
        steps = 500  # the first of 120 steps goes from 20291 to 77, and the SDE's keep the noise that they start from
    sigmas = GRIDS[grid](schedule, steps)
    x = start(sigmas[0].item(), SHAPE, seed=1)
    x = last(SAMPLERS[name].run(TWO.denoise, x, sigmas, noise=Draws(2))).x.flatten()
    weight, left, right = statistics(x)
    true_weight, true_left, true_right = statistics(REFERENCE)
    assert abs(weight - true_weight) < 4 * math.sqrt(true_weight * (1 - true_weight) / len(x)) + 0.01
    for spread, true_spread, share in ((left, true_left, 1 - true_weight), (right, true_right, true_weight)):
        assert abs(spread / true_spread - 1) < 4 / math.sqrt(2 * share * len(x)) + 0.04


# Orders of convergence


ONE = Mixture(weights=(1.0,), means=(0.4,), stds=(0.5,))
HIGH, LOW = 10.0, 0.05


def exact(x: Tensor, sigma: float) -> Tensor:
    """One Gaussian's probability-flow ODE from HIGH to sigma: distances to the mean shrink like standard deviations."""
    mean, std = ONE.means[0], ONE.stds[0]
    return mean + (x - mean) * math.sqrt((std**2 + sigma**2) / (std**2 + HIGH**2))


def smooth_grid(n: int) -> Tensor:
    """From HIGH to LOW and no further: every step is a full one, none the special last step to 0."""
    return karras(EDM(sigma_min=LOW, sigma_max=HIGH), n + 1)[:-1]


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("euler", (0.9, 1.1)),
        ("ddim", (0.9, 1.1)),
        ("heun", (1.9, 2.2)),
        ("dpmpp_2m", (1.85, 2.3)),
        ("unipc", (1.9, 3.2)),
        ("plms", (1.9, 2.2)),  # its weights are those of even steps
        ("lms", (2.5, 4.5)),
    ],
)
def test_the_error_falls_with_the_order_of_the_method(name, order):
    """The slope of log error from 40 to 160 steps; UniPC's corrector may lift 2 to 3 (Zhao et al. 2023, Thm. 3.1)."""
    x = torch.tensor([[-8.0, -1.0, 3.0, 12.0]], dtype=torch.float64)
    errors = []
    for n in (20, 40, 80, 160):
        end = last(SAMPLERS[name].run(ONE.denoise, x, smooth_grid(n), noise=Draws()))
        errors.append((end.x - exact(x, LOW)).abs().max().item())
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert order[0] < np.mean(slopes[1:]) < order[1], (errors, slopes)


ENDS = torch.tensor([80.0, 0.002, 0.0], dtype=torch.float64)
"""The adaptive solver goes from the first level to the second, where it denoises."""


def by_scipy(x: Tensor, **options) -> tuple[Tensor, int]:
    """One image's probability-flow ODE in u = log sigma, and the calls that it took."""

    def slope(u: float, y: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(y)
        return (x - TWO.denoise(x, torch.tensor(u, dtype=torch.float64).exp())).numpy()

    solution = solve_ivp(slope, ENDS[:2].log().tolist(), x.numpy(), **options)
    return torch.from_numpy(solution.y[:, -1]), solution.nfev


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4, 1e-5])
def test_the_adaptive_solver_is_as_good_and_as_quick_as_scipys(tolerance):
    """SciPy's RK23 is the same pair of formulas; both keep local errors below the tolerance, and the flow, which pulls
    the two modes apart, multiplies them alike."""
    for x in start(80.0):
        exact, _ = by_scipy(x, method="DOP853", rtol=1e-10, atol=1e-10)
        theirs, calls = by_scipy(x, method="RK23", rtol=tolerance, atol=tolerance)
        run = ode(TWO.denoise, x.unsqueeze(0), ENDS, noise=Draws(), rtol=tolerance, atol=tolerance)
        state, end = list(run)[-2:]
        error, their_error = ((y - exact).square().mean().sqrt() for y in (state.x[0], theirs))
        assert error < 2 * their_error + tolerance
        assert state.calls < 1.2 * calls + 3
        torch.testing.assert_close(end.x, TWO.denoise(state.x, ENDS[1]))
        torch.testing.assert_close(state.sigma, ENDS[1:2], rtol=1e-12, atol=0)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4, 1e-6])
def test_the_adaptive_solver_meets_its_tolerance(tolerance):
    """One Gaussian's flow contracts: the whole error is of the size of the local ones, at states as large as 12."""
    x = torch.tensor([[-8.0, -1.0, 3.0, 12.0]], dtype=torch.float64)
    sigmas = torch.tensor([HIGH, LOW, 0.0], dtype=torch.float64)
    state = list(ode(ONE.denoise, x, sigmas, noise=Draws(), rtol=tolerance, atol=tolerance))[-2]
    assert (state.x - exact(x, LOW)).abs().max() < 12 * tolerance


def test_the_adaptive_solver_works_more_for_less_error():
    calls = [last(ode(TWO.denoise, start(80.0), ENDS, noise=Draws(), rtol=t, atol=t)).calls for t in (1e-2, 1e-3, 1e-4)]
    # Order 3: ten times the accuracy for 10^(1/3) = 2.2 times the steps.
    assert all(1.3 < more / less < 3 for less, more in pairwise(calls)), calls


# The papers' own equations


TABLE = Discrete("linear")
STEP = TABLE.sigma(torch.tensor([400.0, 380.0], dtype=torch.float64))


def to_vp(x: Tensor, sigma: Tensor) -> Tensor:
    return x / (1 + sigma**2).sqrt()


@pytest.mark.parametrize("times", [(400, 399), (400, 380), (1, 0)])
def test_ddpm_is_ho_et_als_posterior(times):
    """Ho et al. 2020, Eq. 7: mean and variance of q(x_{t-1} | x_t, x0), in their coordinates."""
    sigmas = TABLE.sigma(torch.tensor(times, dtype=torch.float64))
    abar, abar_next = 1 / (1 + sigmas**2)
    alpha, beta = abar / abar_next, 1 - abar / abar_next
    x = start(sigmas[0].item())
    x_t, x0 = to_vp(x, sigmas[0]), TWO.denoise(x, sigmas[0])
    mean = abar_next.sqrt() * beta / (1 - abar) * x0 + alpha.sqrt() * (1 - abar_next) / (1 - abar) * x_t
    variance = (1 - abar_next) / (1 - abar) * beta
    for level in (0.0, 1.0, -2.0):
        step = last(SAMPLERS["ddpm"].run(TWO.denoise, x, sigmas, noise=lambda x, z=level: torch.full_like(x, z)))
        torch.testing.assert_close(to_vp(step.x, sigmas[1]), mean + variance.sqrt() * level, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_song_et_als_equation(eta):
    """Song, Meng & Ermon 2021, Eq. 12 and 16."""
    abar, abar_next = 1 / (1 + STEP**2)
    x = start(STEP[0].item())
    x_t, x0 = to_vp(x, STEP[0]), TWO.denoise(x, STEP[0])
    eps = (x_t - abar.sqrt() * x0) / (1 - abar).sqrt()
    spread = eta * ((1 - abar_next) / (1 - abar)).sqrt() * (1 - abar / abar_next).sqrt()
    z = Draws(3)(x)
    expected = abar_next.sqrt() * x0 + (1 - abar_next - spread**2).sqrt() * eps + spread * z
    step = last(ddim(TWO.denoise, x, STEP, noise=lambda x: z, eta=eta))
    torch.testing.assert_close(to_vp(step.x, STEP[1]), expected, rtol=1e-10, atol=1e-10)


def test_euler_is_euler_in_flow_time():
    """x_t = (1 - t) x0 + t eps: the step x + (t' - t) (eps - x0) is the same step."""
    sigmas = GRIDS["uniform_time"](Flow(), 30)
    t = Flow().t(sigmas)
    x_t = (1 - t[0]) * (x := start(sigmas[0].item()))
    for i, step in enumerate(euler(TWO.denoise, x, sigmas, noise=Draws())):
        x0 = TWO.denoise(x_t / (1 - t[i]), sigmas[i])
        x_t = x_t + (t[i + 1] - t[i]) * (x_t - x0) / t[i]
        torch.testing.assert_close((1 - t[i + 1]) * step.x, x_t, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pair", [("ddim", "euler"), ("ddpm", "euler_ancestral")])
def test_the_same_step_under_two_names(pair):
    sigmas = karras(VP(), 20)
    x = start(sigmas[0].item())
    runs = [list(SAMPLERS[name].run(TWO.denoise, x, sigmas, noise=Draws(1))) for name in pair]
    for one, other in zip(*runs, strict=True):
        torch.testing.assert_close(one.x, other.x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(one.x0, other.x0, rtol=1e-9, atol=1e-9)


def test_sde_dpm_solver_without_its_noise_is_dpm_solver():
    sigmas = karras(VP(), 20)
    x = start(sigmas[0].item())
    ours = last(dpmpp_2m_sde(TWO.denoise, x, sigmas, noise=Draws(), eta=0.0)).x
    torch.testing.assert_close(ours, last(SAMPLERS["dpmpp_2m"].run(TWO.denoise, x, sigmas, noise=Draws())).x)


def test_euler_maruyama_is_the_reverse_sde():
    """dx = -d(sigma^2) score + sqrt(d(sigma^2)) dw backwards (Song et al. 2021, Eq. 6), the score by autograd."""
    sigmas = torch.tensor([1.0, 0.8], dtype=torch.float64)
    x = start(1.0).requires_grad_()
    (score,) = torch.autograd.grad(TWO.log_density(x, 1.0, 1.0).sum(), x)
    z = Draws(4)(x)
    step = last(euler_maruyama(TWO.denoise, x.detach(), sigmas, noise=lambda x: z))
    torch.testing.assert_close(step.x, (x + 0.36 * score + 0.6 * z).detach())


def test_the_corrector_is_langevin_with_the_papers_step():
    """Song et al. 2021, Alg. 4: h = 2 (snr |z| / |score|)^2, x + h score + sqrt(2 h) z; then the predictor."""
    sigmas = torch.tensor([1.0, 0.8], dtype=torch.float64)
    x, noise = start(1.0), Draws(5)
    z, z_next = noise(x), noise(x)
    score = TWO.denoise(x, sigmas[0]) - x
    h = 2 * (0.16 * z.norm(dim=1) / score.norm(dim=1)).square().unsqueeze(1)
    corrected = x + h * score + (2 * h).sqrt() * z
    expected = last(euler_maruyama(TWO.denoise, corrected, sigmas, noise=lambda x: z_next)).x
    step = last(predictor_corrector(TWO.denoise, x, sigmas, noise=Draws(5)))
    torch.testing.assert_close(step.x, expected)


# Diffusers


STEPS = 18
GRID = karras(Discrete("scaled_linear", beta_start=0.00085, beta_end=0.012), STEPS)
TRAINED = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def their_states(scheduler, scale, x: Tensor, levels: Tensor, **step_arguments) -> list[Tensor]:
    """Diffusers' states in our coordinate after each call; their own coordinate is scale(sigma) * x."""
    states = []
    state = scale(levels[0]) * x
    for i, t in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(state, t)
        x = state / scale(levels[i])
        eps = (x - TWO.denoise(x, levels[i])) / levels[i]
        state = scheduler.step(eps, t, state, **step_arguments).prev_sample.double()
        states.append(state / scale(levels[i + 1]))
    return states


def preserving(sigma: Tensor) -> Tensor:
    return (1 + sigma**2).rsqrt()


def ours(name: str, x: Tensor, sigmas: Tensor, noise) -> list[Tensor]:
    return [step.x for step in SAMPLERS[name].run(TWO.denoise, x, sigmas, noise=noise)]


def assert_same(ours: list[Tensor], theirs: list[Tensor], rtol: float) -> None:
    """All states of the whole trajectory; rtol is of the largest number in each."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=rtol * other.abs().max().item())


@pytest.mark.parametrize("name", ["ddpm", "ddim", "euler_ancestral"])
@pytest.mark.parametrize("steps", [200, 50, 7])
def test_steps_on_a_table_of_betas_equal_diffusers(name, steps):
    """DDPMScheduler, and DDIMScheduler with eta 0 and 1, in float64 on our table of alpha_bar, as theirs is float32."""
    if name == "ddim":
        theirs, arguments = diffusers.DDIMScheduler(**TRAINED, clip_sample=False), {"eta": 0.0}
    elif name == "ddpm":
        theirs, arguments = diffusers.DDPMScheduler(**TRAINED, clip_sample=False), {}
    else:
        theirs, arguments = diffusers.DDIMScheduler(**TRAINED, clip_sample=False), {"eta": 1.0}
    schedule = Discrete("scaled_linear", beta_start=0.00085, beta_end=0.012)
    theirs.alphas_cumprod = schedule.alpha_bar
    theirs.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    theirs.set_timesteps(steps)
    sigmas = torch.cat([schedule.sigma(theirs.timesteps.double()), torch.zeros(1, dtype=torch.float64)])
    x = start(sigmas[0].item())
    generator = torch.Generator().manual_seed(6)
    states = their_states(theirs, preserving, x, sigmas, generator=generator, **arguments)
    assert_same(ours(name, x, sigmas, Draws(6)), states, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "scheduler", "options", "scale", "rtol"),
    [
        # These three cast every state to float32.
        ("euler", "EulerDiscreteScheduler", {}, torch.ones_like, 1e-5),
        ("dpmpp_2m", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, preserving, 1e-5),
        ("dpmpp_2m_sde", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, preserving, 1e-5),
        # Its solver's coefficients are float32.
        ("unipc", "UniPCMultistepScheduler", {"solver_type": "bh2", "solver_order": 2}, preserving, 1e-6),
        # float64 throughout.
        ("lms", "LMSDiscreteScheduler", {}, torch.ones_like, 1e-9),
    ],
)
def test_steps_on_a_grid_equal_diffusers(name, scheduler, options, scale, rtol):
    theirs = getattr(diffusers, scheduler)(**TRAINED, use_karras_sigmas=True, **options)
    theirs.set_timesteps(STEPS)
    # The same grid, but for their rounding it to float32; the grid itself is not what is compared here.
    torch.testing.assert_close(theirs.sigmas.double(), GRID, rtol=1e-3, atol=0)
    theirs.sigmas = GRID
    theirs.set_begin_index(0)
    x = start(GRID[0].item())
    arguments = {"generator": torch.Generator().manual_seed(6)} if SAMPLERS[name].stochastic else {}
    if name == "dpmpp_2m_sde":
        theirs_noise = Draws(6)
        theirs.step = with_noise(theirs.step, theirs_noise)
        arguments = {}
    assert_same(ours(name, x, GRID, Draws(6)), their_states(theirs, scale, x, GRID, **arguments), rtol)


def with_noise(step, noise):
    """Hands a scheduler float64 noise, where its own generator would draw float32."""
    return lambda eps, t, state: step(eps, t, state, variance_noise=noise(state))


def test_ancestral_steps_on_a_grid_equal_diffusers():
    """EulerAncestralDiscreteScheduler casts every state to float32."""
    theirs = diffusers.EulerAncestralDiscreteScheduler(**TRAINED)
    theirs.set_timesteps(STEPS)
    theirs.sigmas = GRID
    theirs.set_begin_index(0)
    x = start(GRID[0].item())
    states = their_states(theirs, torch.ones_like, x, GRID, generator=torch.Generator().manual_seed(6))
    assert_same(ours("euler_ancestral", x, GRID, Draws(6)), states, rtol=1e-5)


def test_heun_steps_equal_diffusers():
    """Its levels name each inner one twice, to look ahead and to step on, so that every second state is ours."""
    theirs = diffusers.HeunDiscreteScheduler(**TRAINED, use_karras_sigmas=True)
    theirs.set_timesteps(STEPS)
    levels = torch.cat([GRID[:1], GRID[1:-1].repeat_interleave(2), GRID[-1:]])
    torch.testing.assert_close(theirs.sigmas.double(), levels, rtol=1e-3, atol=0)
    theirs.sigmas = levels
    theirs.set_begin_index(0)
    x = start(GRID[0].item())
    states = their_states(theirs, torch.ones_like, x, levels)
    assert_same(ours("heun", x, GRID, Draws()), [*states[1::2], states[-1]], rtol=1e-9)


def test_plms_steps_equal_diffusers():
    """PNDMScheduler, in float64 on our table of alpha_bar; it makes its first step twice, the second time by Heun."""
    schedule = Discrete("scaled_linear", beta_start=0.00085, beta_end=0.012)
    theirs = diffusers.PNDMScheduler(**TRAINED, skip_prk_steps=True, steps_offset=1)
    theirs.alphas_cumprod = schedule.alpha_bar
    theirs.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    theirs.set_timesteps(STEPS)
    sigmas = TABLE_GRIDS["leading"](schedule, STEPS)
    levels = torch.cat([sigmas[:2], sigmas[1:]])
    x = start(sigmas[0].item())
    told = schedule.sigma(theirs.timesteps.double())
    torch.testing.assert_close(told, levels[:-1])
    states, state = [], preserving(levels[0]) * x
    for s, s_next, t in zip(told, [levels[1], *levels[2:]], theirs.timesteps, strict=True):
        x_now = state / preserving(s)
        state = theirs.step((x_now - TWO.denoise(x_now, s)) / s, t, state).prev_sample
        states.append(state / preserving(s_next))
    assert_same(ours("plms", x, sigmas, Draws()), states[1:], rtol=1e-9)


def test_flow_steps_equal_diffusers():
    """FlowMatchEulerDiscreteScheduler, whose sigma is the flow's t; it casts every state to float32."""
    theirs = diffusers.FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=np.linspace(0.99, 0.05, 20))
    t = theirs.sigmas.double()
    sigmas = Flow().sigma(t)
    x = start(sigmas[0].item())
    states, state = [], (1 - t[0]) * x
    for i, told in enumerate(theirs.timesteps):
        x0 = TWO.denoise(state / (1 - t[i]), sigmas[i])
        state = theirs.step((state - x0) / t[i], told, state).prev_sample.double()
        states.append(state / (1 - t[i + 1]))
    assert_same(ours("euler", x, sigmas, Draws()), states, rtol=1e-5)


# The generators


class Counted:
    """A denoiser that counts its calls and remembers their levels."""

    def __init__(self) -> None:
        self.levels: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.levels.append(sigma)
        return TWO.denoise(x, sigma)


@EACH
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_calls_that_a_step_reports_are_those_that_were_made(name, steps):
    counted, sampler = Counted(), SAMPLERS[name]
    sigmas = karras(EDM(), steps)
    for i, step in enumerate(sampler.run(counted, start(80.0), sigmas, noise=Draws()), 1):
        assert step.index == i
        assert step.calls == len(counted.levels)
        if sampler.calls_per_step:
            look_ahead = name == "heun" and i == steps  # the last step has nothing to look ahead to
            first = name == "plms" and steps > 1  # its first step is Heun's
            assert step.calls == i * sampler.calls_per_step - look_ahead + first
            assert step.sigma == sigmas[i]
    assert step.index == steps or name == "ode"
    assert (step.sigma == 0).all()


@EACH
def test_a_run_ends_clean(name):
    """At sigma = 0 the state is the last prediction, within the last level of 0.002: no noise is left or added."""
    step = last(SAMPLERS[name].run(TWO.denoise, start(80.0), karras(EDM(), 10), noise=Draws()))
    torch.testing.assert_close(step.x, step.x0, rtol=0, atol=0.002 if name in ("lms", "plms") else 1e-12)


@EACH
def test_the_network_is_asked_within_the_grid_and_downwards(name):
    counted = Counted()
    last(SAMPLERS[name].run(counted, start(80.0), karras(EDM(), 10), noise=Draws()))
    levels = torch.stack([level.broadcast_to(6) for level in counted.levels])
    assert levels.max() <= 80 * (1 + 1e-12) and levels.min() >= 0.002 * (1 - 1e-12)
    if name != "ode":  # which goes back where an attempt was too bold
        assert (levels.diff(dim=0) <= 0).all()


@EACH
def test_closing_a_run_stops_its_calls(name):
    counted = Counted()
    run = SAMPLERS[name].run(counted, start(80.0), karras(EDM(), 10), noise=Draws())
    assert not counted.levels  # nothing happens before the first step is asked for
    step = last(islice(run, 3))
    run.close()
    assert len(counted.levels) == step.calls
    assert list(run) == []


@EACH
def test_gradients_are_off_inside_and_untouched_outside(name):
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    run = SAMPLERS[name].run(lambda x, s: weight * TWO.denoise(x, s), start(80.0), karras(EDM(), 4), noise=Draws())
    for step in run:
        assert not step.x.requires_grad
        assert torch.is_grad_enabled()


@EACH
def test_a_start_at_zero_is_done(name):
    """Image to image of strength 0: no step is left of the grid."""
    x = start(1.0)
    assert list(SAMPLERS[name].run(TWO.denoise, x, torch.zeros(1, dtype=torch.float64), noise=Draws())) == []


@EACH
def test_only_stochastic_samplers_draw_noise(name):
    noise = Draws()
    last(SAMPLERS[name].run(TWO.denoise, start(80.0), karras(EDM(), 5), noise=noise))
    assert (noise.count > 0) == SAMPLERS[name].stochastic


@EACH
def test_the_callers_state_and_earlier_steps_are_left_alone(name):
    """A consumer may keep steps for its animation: no later step writes into them."""
    x = start(80.0)
    before, kept, copies = x.clone(), [], []
    for step in SAMPLERS[name].run(TWO.denoise, x, karras(EDM(), 6), noise=Draws()):
        kept.append(step)
        copies.append((step.x.clone(), step.x0.clone()))
    assert torch.equal(x, before)
    assert all(torch.equal(s.x, x) and torch.equal(s.x0, x0) for s, (x, x0) in zip(kept, copies, strict=True))


@EACH
def test_no_image_depends_on_its_neighbours(name):
    sigmas, x = karras(EDM(), 12), start(80.0)

    def run(rows: slice) -> Tensor:
        draws = Draws(8)
        return last(SAMPLERS[name].run(TWO.denoise, x[rows], sigmas, noise=lambda _: draws(x)[rows])).x

    torch.testing.assert_close(run(slice(2, 3)), run(slice(0, 6))[2:3], rtol=1e-9, atol=1e-9)


@EACH
def test_float32_states_stay_float32_and_near_float64(name):
    sigmas, x = karras(EDM(), 12), start(80.0)
    wide = last(SAMPLERS[name].run(TWO.denoise, x, sigmas, noise=Draws()))
    draws = Draws()
    narrow = last(SAMPLERS[name].run(TWO.denoise, x.float(), sigmas, noise=lambda _: draws(x).float()))
    assert narrow.x.dtype == narrow.x0.dtype == torch.float32
    torch.testing.assert_close(narrow.x.double(), wide.x, rtol=0, atol=2e-3)


@EACH
def test_the_menu_has_a_title_and_a_sentence(name):
    sampler = SAMPLERS[name]
    assert sampler.title and sampler.note.endswith(".") and len(sampler.note) < 90
