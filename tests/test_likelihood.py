import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mixture import SCHEDULES, TWO
from steps import finish

from diffusion.autoencoder import Pixels, PixelsConfig, VAEConfig
from diffusion.conditioning import WordsConfig
from diffusion.data import ImageData, load, to_unit
from diffusion.likelihood import Likelihood, bits_per_dim, dequantise, likelihood, log_density
from diffusion.pipeline import ModelConfig, Pipeline
from diffusion.schedules import VE
from diffusion.unet import UNetConfig

DATA = Path(__file__).parent / "data"
DIGITS = tuple("0123456789")
FLAT = 1e4  # a sigma_max at which nothing of the data is left


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def signs(*shape, seed=0):
    return torch.randint(2, shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1


class Normal:
    """N(mean, covariance) as data, and everything about it in closed form."""

    def __init__(self, dim, seed=0):
        root = normal(dim, dim, seed=seed)
        self.mean, self.covariance = normal(dim, seed=seed + 1), root @ root.T / dim + 0.1 * torch.eye(dim).double()

    def denoise(self, x, sigma):
        noisy = self.covariance + sigma**2 * torch.eye(len(self.mean)).double()
        return self.mean + (x - self.mean) @ torch.linalg.solve(noisy, self.covariance)

    def log_density(self, x, sigma):
        noisy = self.covariance + sigma**2 * torch.eye(len(self.mean)).double()
        return torch.distributions.MultivariateNormal(self.mean, noisy).log_prob(x)

    def model_log_density(self, x, low, high):
        """That of the ODE's flow from N(0, high^2): each principal axis is stretched by a known factor."""
        values, axes = torch.linalg.eigh(self.covariance)
        stretch = ((values + high**2) / (values + low**2)).sqrt()
        end = self.mean + ((x - self.mean) @ axes * stretch) @ axes.T
        return torch.distributions.Normal(0.0, high).log_prob(end).sum(1) + stretch.log().sum()


# ---------------------------------------------------------------- the ODE against closed forms


@pytest.mark.parametrize("low", [VE(t_min=1e-5).sigma_min, 0.1])
def test_a_mixtures_density_comes_out_exactly(low):
    """Independent coordinates make J diagonal, so that v.Jv is the trace itself; the prior's error is mean / FLAT."""
    x = TWO.sample((40, 3), torch.Generator().manual_seed(1)) + low * normal(40, 3, seed=2)
    _, (log_p, calls) = finish(log_density(TWO.denoise, x, signs(40, 3).double(), low, FLAT))
    torch.testing.assert_close(log_p, TWO.log_density(x, 1.0, low).sum(1), rtol=0, atol=1e-3)
    assert calls > 20


@pytest.mark.parametrize("high", [VE().sigma_max, 157.0])
def test_a_gaussians_flow_is_integrated_to_the_solvers_tolerance(high):
    """All 2^4 probes of signs: their mean is the trace, so Hutchinson's estimate has no bias."""
    data, low = Normal(4), 0.01
    x = data.mean + normal(1, 4, seed=5)
    probes = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4))).double()
    _, (log_p, _) = finish(log_density(data.denoise, x.expand(16, 4), probes, low, high))
    assert log_p.mean() == pytest.approx(data.model_log_density(x, low, high).item(), abs=1e-3)
    assert log_p.std() > 0.05  # one probe alone is not the trace


def test_with_a_high_sigma_max_the_flow_is_the_data():
    data, low = Normal(3, seed=3), 0.01
    x = data.mean + normal(20, 3, seed=5)
    each = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3))).double()
    _, (log_p, _) = finish(log_density(data.denoise, x.repeat_interleave(8, 0), each.repeat(20, 1), low, FLAT))
    torch.testing.assert_close(log_p.view(20, 8).mean(1), data.log_density(x, low), rtol=0, atol=5e-3)


def test_random_probes_scatter_around_the_trace():
    data, low, high, n = Normal(4), 0.01, 157.0, 400
    x = data.mean + normal(1, 4, seed=5)
    _, (log_p, _) = finish(log_density(data.denoise, x.expand(n, 4), signs(n, 4).double(), low, high))
    error = log_p.std().item() / math.sqrt(n)
    assert 0 < error < 0.1
    assert abs(log_p.mean().item() - data.model_log_density(x, low, high).item()) < 4 * error


def test_the_density_integrates_to_one():
    grid = torch.linspace(-6, 6, 801, dtype=torch.float64).view(-1, 1)
    _, (log_p, _) = finish(log_density(TWO.denoise, grid, torch.ones(801, 1).double(), 0.05, VE().sigma_max))
    assert torch.trapezoid(log_p.exp(), grid[:, 0]) == pytest.approx(1, abs=1e-4)


def test_progress_rises_to_the_end():
    x = TWO.sample((4, 2), torch.Generator().manual_seed(1))
    shares, _ = finish(log_density(TWO.denoise, x, signs(4, 2).double(), 0.01, 80.0))
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] == 1


def test_a_broken_network_is_named_by_its_noise_level():
    def broken(x, sigma):
        return TWO.denoise(x, sigma) * (1 if sigma < 1 else math.nan)

    with pytest.raises(ValueError, match=r"cannot be followed beyond sigma = (1|0\.9\d*)\."):
        finish(log_density(broken, normal(2, 2), torch.ones(2, 2).double(), 0.01, 80.0))


@pytest.mark.parametrize("name", ["vp", "linear", "scaled_linear", "cosine"])
def test_where_x_is_scaled_the_papers_prior_gives_the_same_bits(name):
    """N(0, sigma_max^2) against N(0, 1 + sigma_max^2), of what the noisy picture is there."""
    high = SCHEDULES[name].sigma_max
    x = TWO.sample((50, 784), torch.Generator().manual_seed(1)) + high * normal(50, 784)
    ours, theirs = (torch.distributions.Normal(0.0, std).log_prob(x).mean(1) for std in (high, math.hypot(1, high)))
    assert (ours - theirs).abs().max() / math.log(2) < (2e-3 if high < 20 else 1e-5)


# ---------------------------------------------------------------- grey levels


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-0.5, 3.5)])
@pytest.mark.parametrize("size", [16, 18])
def test_a_grey_level_fills_its_256th_of_the_range(low, high, size):
    codec = Pixels(PixelsConfig(image_size=16, sample_size=size, range=(low, high)))
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(50, 1, 16, 16)
    states = dequantise(codec, images, [torch.Generator().manual_seed(i) for i in range(50)])
    assert states.shape == (50, 1, size, size)
    within = (states - low) / (high - low) * 256  # level k in [k, k + 1)
    edge = (size - 16) // 2
    shares = within[:, :, edge : edge + 16, edge : edge + 16] - images
    assert shares.min() > -1e-3 and shares.max() < 1 + 1e-3
    assert shares.mean() == pytest.approx(1 / 2, abs=0.01) and shares.var() == pytest.approx(1 / 12, abs=0.005)
    if edge:
        assert within[:, :, 0].min() >= 0 and within[:, :, 0].max() < 1  # a black border


@pytest.mark.parametrize(("low", "high", "more"), [(0.0, 1.0, 8), (-1.0, 1.0, 7)])
def test_the_uniform_density_costs_eight_bits_a_pixel(low, high, more):
    """The density (high - low)^-d over the whole range gives each of 256 levels the same probability."""
    codec = Pixels(PixelsConfig(image_size=16, sample_size=16, range=(low, high)))
    log_p = torch.tensor([-256 * math.log(high - low), 0.0]).double()
    assert bits_per_dim(log_p, codec).tolist() == pytest.approx([8, more])


def test_a_padded_border_is_counted_on_top():
    codec = Pixels(PixelsConfig(image_size=16, sample_size=18))
    assert bits_per_dim(torch.zeros(1), codec).item() == pytest.approx(7 * 18**2 / 16**2)


# ---------------------------------------------------------------- a whole model


class Exact(torch.nn.Module):
    """A denoiser in closed form, of the mixture in each pixel, moved by the prompt's first number."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, sigma, context=None):
        self.seen.append(context)
        shift = context[:, 0, 0].view(-1, 1, 1, 1)
        return TWO.denoise(x - shift, sigma) + shift


def pipeline(codec=None, size=16):
    network = UNetConfig(
        sample_size=size,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16,),
        attention=(False,),
        mid_attention=False,
        cross_attention_dim=64,
    )
    codec = codec or PixelsConfig(image_size=size, sample_size=size)
    torch.manual_seed(0)
    words = WordsConfig(vocabulary=DIGITS)
    return Pipeline(ModelConfig("tiny", codec, words, network, VE(), "score", classes=DIGITS)).eval()


def corner(size=16, split="test"):
    data = load("mnist", split, DATA, download=False)
    return ImageData(data.images[:, :, 6 : 6 + size, 6 : 6 + size], data.labels, data.classes)


def test_a_model_of_a_known_density_gives_its_bits():
    """Its bits/dim are those of the mixture at the dequantised pixels, image by image, by true labels."""
    model, data = pipeline(), corner()
    model.denoiser = Exact()
    model.config.schedule.__dict__["sigma_max"] = FLAT
    progress, result = finish(likelihood(model, data, count=6, prompted=True, seed=3, batch=4))
    chosen = torch.randperm(300, generator=torch.Generator().manual_seed(3))[:6]
    prompts = [data.classes[label] for label in data.labels[chosen]]
    shift = model.conditioner(prompts).detach()[:, 0, 0].view(-1, 1, 1, 1)
    states = dequantise(model.codec, data.images[chosen], [torch.Generator().manual_seed(3 + i) for i in range(6)])
    log_p = TWO.log_density(states.double() - shift, 1.0, VE().sigma_min).flatten(1).mean(1)
    bits = 7 - log_p / math.log(2)
    assert result.bits_per_dim == pytest.approx(bits.mean().item(), abs=2e-3)
    assert result.standard_error == pytest.approx(bits.std().item() / math.sqrt(6), rel=1e-2)
    assert (result.images, result.prompted, result.seed) == (6, True, 3)
    done, totals = zip(*progress, strict=True)
    assert list(done) == sorted(done) and (done[0], done[-1], set(totals)) == (0, 6, {6})


@pytest.mark.parametrize("prompted", [True, False])
def test_prompts_are_the_true_labels_or_none(prompted):
    model, data = pipeline(), corner()
    model.denoiser = Exact()
    finish(likelihood(model, data, count=4, prompted=prompted, seed=0, batch=4))
    chosen = torch.randperm(300, generator=torch.Generator().manual_seed(0))[:4]
    prompts = [data.classes[label] if prompted else "" for label in data.labels[chosen]]
    assert torch.equal(model.denoiser.seen[0], model.conditioner(prompts))


def test_a_network_is_measured_as_the_trace_of_its_jacobian_says():
    """The U-Net itself, with v.Jv by finite differences instead of its gradient, at one noise level."""
    model, data = pipeline(), corner()
    generators = [torch.Generator().manual_seed(0)]
    x = dequantise(model.codec, data.images[:1], generators)
    v, context, sigma = signs(*x.shape), model.conditioner(["3"]), torch.tensor(0.5)
    at = x.clone().requires_grad_()
    (vJ,) = torch.autograd.grad(model.denoiser(at, sigma, context), at, v)
    with torch.no_grad():
        ahead, back = (model.denoiser(x + h * v, sigma, context) for h in (1e-2, -1e-2))
    assert (vJ * v).sum().item() == pytest.approx(((ahead - back) / 2e-2 * v).sum().item(), rel=1e-2)


def test_the_batch_changes_a_networks_bits_only_within_the_tolerance():
    model, data = pipeline(size=8), corner(8)
    results = [finish(likelihood(model, data, count=3, prompted=True, seed=1, batch=batch))[1] for batch in (3, 2)]
    assert results[0].bits_per_dim == pytest.approx(results[1].bits_per_dim, abs=1e-3)
    assert all(np.isfinite(result.bits_per_dim) and result.standard_error > 0 for result in results)


def test_nothing_is_left_on_the_networks_parameters():
    model = pipeline(size=8)
    finish(likelihood(model, corner(8), count=2, prompted=True, seed=1, batch=2))
    assert all(p.grad is None for p in model.parameters())


def test_what_does_not_fit_is_refused_in_a_sentence():
    vae = VAEConfig(image_size=16, sample_size=16, latent_channels=1, block_out_channels=(8,))
    with pytest.raises(ValueError, match=r"^tiny diffuses latents: only a model of pixels has a likelihood[^.]*\.$"):
        next(likelihood(pipeline(vae), corner(), count=4, prompted=True, seed=0, batch=4))
    for count, batch in ((1, 4), (301, 4), (4, 0)):
        with pytest.raises(ValueError, match=f"needs 2 to 300 images, .* got {count} and {batch}"):
            next(likelihood(pipeline(), corner(), count=count, prompted=True, seed=0, batch=batch))


def test_a_result_survives_json_and_reads_as_a_line():
    result = Likelihood(3.14159, 0.0213, 100, True, 7, 188.0)
    assert Likelihood(**json.loads(json.dumps(result.to_dict()))) == result
    line = (
        "3.1416 bits/dim, standard error 0.0213, on 100 test images (given their classes, 188 network evaluations each"
    )
    assert result.line().startswith(line)
    assert to_unit(corner().images[:1]).shape == (1, 1, 16, 16)
