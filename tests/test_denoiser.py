"""Every schedule with every prediction, against the exact posterior mean of a Gaussian mixture."""

import math

import mixture
import pytest
import torch
from mixture import TWO
from scipy import integrate
from torch import Tensor, nn

from diffusion.denoiser import PREDICTIONS, Denoiser
from diffusion.schedules import EDM, VP, Discrete

SCHEDULES = mixture.SCHEDULES | {"edm": EDM(sigma_data=0.7)}  # not 1, which would hide where it belongs
EVERY = pytest.mark.parametrize("name", SCHEDULES)
PREDICTED = pytest.mark.parametrize("prediction", PREDICTIONS)


def path(name: str, t: float) -> tuple[float, float]:
    """The a and s of x_t = a x0 + s eps, from each paper's own definition and not from the schedule under test."""
    if name == "ve":
        return 1.0, integrate.quad(lambda u: 25.0 ** (2 * u), 0, t)[0] ** 0.5
    if name == "vp":
        integral = integrate.quad(lambda u: 0.1 + u * 19.9, 0, t)[0]
        return math.exp(-integral / 2), math.sqrt(-math.expm1(-integral))
    if name == "edm":
        return 1.0, math.exp(4 * t)
    if name == "flow":
        return 1 - t, t
    steps = torch.arange(1001, dtype=torch.float64)
    betas = {
        "linear": torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64),
        "scaled_linear": torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2,
        "cosine": 1 - torch.cos((steps[1:] / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
        / torch.cos((steps[:-1] / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2,
    }[name].clamp(max=0.999)  # fmt: skip
    abar = (1 - betas).log().cumsum(0)[round(t)].exp().item()
    return abar**0.5, (1 - abar) ** 0.5


def times(name: str) -> list[float]:
    """Noise levels as the network is told them: whole steps of a table, all through the range elsewhere."""
    if isinstance(SCHEDULES[name], Discrete):
        return [0.0, 1.0, 37.0, 250.0, 500.0, 800.0, 998.0]
    low, high = (SCHEDULES[name].t(torch.tensor(s, dtype=torch.float64)).item() for s in edges(SCHEDULES[name]))
    return [low + (high - low) * share for share in (0, 0.05, 0.2, 0.5, 0.8, 1)]


def edges(schedule) -> tuple[float, float]:
    return schedule.sigma_min, schedule.sigma_max


def output(prediction: str, x0: Tensor, eps: Tensor, a: float, s: float, sigma_data: float) -> Tensor:
    """What a network of this kind is to say, in the words of the papers, for x_t = a x0 + s eps.

    v belongs to the path where a^2 + s^2 = 1 and the flow's velocity to the one where a + s = 1, multiples of any x_t.
    """
    sigma = s / a
    if prediction == "eps":
        return eps
    if prediction == "x0":
        return x0
    if prediction == "score":  # the denoising score -eps / std, times the std (Song et al. 2021, Sec. 3.3)
        return s * (-eps / s)
    if prediction == "v":  # Salimans & Ho 2022, Sec. 4
        return (a * eps - s * x0) / math.hypot(a, s)
    if prediction == "flow":  # d x_t / dt of the straight path, Liu et al. 2023, Eq. 1
        return eps - x0
    # Karras et al. 2022, Eq. 8 and Table 1, solved for F
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / math.sqrt(sigma**2 + sigma_data**2)
    return (x0 - c_skip * (x0 + sigma * eps)) / c_out


class Exact(nn.Module):
    """The network that answers with the posterior mean of what it is to predict, from its own input and t alone."""

    def __init__(self, name: str, prediction: str) -> None:
        super().__init__()
        self.name, self.prediction = name, prediction
        self.sigma_data = 0.7 if name == "edm" else 1.0

    def forward(self, scaled: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
        assert t.shape == (len(scaled),)
        a, s = path(self.name, t[0].item())
        # EDM shows the network c_in * x, the others show it x_t.
        x_t = scaled * math.hypot(s, self.sigma_data) if self.name == "edm" else scaled
        if self.prediction == "score":
            x_t = x_t.detach().requires_grad_()
            with torch.enable_grad():
                (score,) = torch.autograd.grad(TWO.log_density(x_t, a, s).sum(), x_t)
            return s * score
        x0 = TWO.denoise(x_t / a, torch.tensor(s / a, dtype=torch.float64))
        return output(self.prediction, x0, (x_t - a * x0) / s, a, s, self.sigma_data)


@EVERY
@PREDICTED
def test_the_exact_network_gives_the_posterior_mean(name, prediction):
    schedule = SCHEDULES[name]
    denoiser = Denoiser(Exact(name, prediction), schedule, prediction)
    generator = torch.Generator().manual_seed(0)
    for t in times(name):
        a, s = path(name, t)
        sigma = torch.tensor(s / a, dtype=torch.float64)
        x = TWO.sample((32, 4), generator) + sigma * torch.randn(32, 4, generator=generator, dtype=torch.float64)
        expected = TWO.denoise(x, sigma)
        # eps, score and v at sigma = 1e3 subtract numbers of that size; float64 keeps 1e-9 of them.
        torch.testing.assert_close(denoiser(x, sigma), expected, rtol=0, atol=1e-7)
        torch.testing.assert_close(denoiser(x, sigma.expand(32)), expected, rtol=0, atol=1e-7)


@EVERY
@PREDICTED
def test_the_training_target_is_the_textbooks(name, prediction):
    """A network that gives the target has loss 0; one that is off by d has the loss d^2, whatever the noise level."""
    schedule = SCHEDULES[name]
    generator = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, 6, 1, 2, 2, generator=generator, dtype=torch.float64)
    levels = [path(name, t) for t in times(name)][:6]
    rows = zip(x0, eps, levels, strict=False)
    target = torch.stack([output(prediction, c, e, a, s, 0.7 if name == "edm" else 1.0) for c, e, (a, s) in rows])
    sigma = torch.tensor([s / a for a, s in levels], dtype=torch.float64)
    off = torch.linspace(0, 1, 6, dtype=torch.float64)

    class Told(nn.Module):
        def forward(self, scaled, t, context):
            return target + off.view(-1, 1, 1, 1)

    loss = Denoiser(Told(), schedule, prediction).loss(x0, sigma, eps)
    # Where sigma is 1e-3 the target divides by it, where it is 1e3 x0 drowns in it: 1e-9 of float64 is left.
    torch.testing.assert_close(loss, off**2, rtol=1e-6, atol=1e-9)


def test_edm_preconditioning_is_the_papers():
    """Karras et al. 2022, Table 1."""
    sigma = torch.tensor([0.002, 0.5, 3.0, 80.0], dtype=torch.float64)
    skip, out = (f(sigma, 0.5).tolist() for f in PREDICTIONS["edm"])
    assert skip == pytest.approx([0.25 / (s**2 + 0.25) for s in sigma.tolist()], rel=1e-12)
    assert out == pytest.approx([s * 0.5 / math.sqrt(s**2 + 0.25) for s in sigma.tolist()], rel=1e-12)


def test_edm_loss_is_the_papers_weighted_one():
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 times the squared error of x0 (Karras et al. 2022, Eq. 2)."""
    generator = torch.Generator().manual_seed(2)
    x0, eps = torch.randn(2, 4, 1, 3, 3, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.01, 0.3, 2.0, 40.0], dtype=torch.float64)
    denoiser = Denoiser(Recorder(), EDM(), "edm")
    error = (denoiser(x0 + sigma.view(-1, 1, 1, 1) * eps, sigma) - x0).square().mean((1, 2, 3))
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    torch.testing.assert_close(denoiser.loss(x0, sigma, eps), weight * error)


class Recorder(nn.Module):
    """Keeps what it is given."""

    def forward(self, scaled: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
        self.given = scaled, t, context
        return scaled.sin()


@EVERY
def test_the_network_sees_scaled_states_its_time_and_the_context(name):
    schedule, network = SCHEDULES[name], Recorder()
    x, sigma, context = torch.randn(2, 1, 3, 3), torch.tensor([0.2, 5.0]), torch.randn(2, 1, 4)
    Denoiser(network, schedule, "x0")(x, sigma, context)
    scaled, t, given = network.given
    torch.testing.assert_close(scaled, schedule.alpha(sigma).view(2, 1, 1, 1) * x)
    torch.testing.assert_close(t, schedule.t(sigma))
    assert given is context


def test_each_image_has_its_own_level():
    denoiser = Denoiser(Recorder(), VP(), "v")
    x, sigma = torch.randn(3, 1, 2, 2), torch.tensor([0.1, 1.0, 9.0])
    alone = torch.cat([denoiser(x[i : i + 1], sigma[i]) for i in range(3)])
    torch.testing.assert_close(denoiser(x, sigma), alone)


def test_the_state_stays_float32_when_the_network_computes_in_less():
    class Half(nn.Module):
        def forward(self, scaled, t, context):
            return scaled.bfloat16()

    assert (
        Denoiser(Half(), EDM(), "edm")(torch.randn(2, 3), torch.tensor(1.0, dtype=torch.float64)).dtype == torch.float32
    )


def test_an_unknown_prediction_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown prediction 'noise'; the choices are eps, x0, score, v, edm, flow"):
        Denoiser(Recorder(), EDM(), "noise")
