"""Guidance, inpainting and clipping as maps from denoiser to denoiser."""

import math
from collections import deque

import pytest
import torch
from mixture import Mixture
from torch import Tensor, nn

from diffusion.denoiser import PREDICTIONS, Denoiser
from diffusion.guidance import clip, guide, inpaint
from diffusion.noise import Noise
from diffusion.samplers import SAMPLERS
from diffusion.schedules import EDM, VE, VP, Discrete, Flow, karras

SCHEDULES = {"ve": VE(), "vp": VP(), "linear": Discrete(), "edm": EDM(), "flow": Flow()}
CONTEXT, NEGATIVE = torch.full((3, 1, 2), 0.5), torch.full((3, 1, 2), -1.5)
SIGMA = torch.tensor(0.8, dtype=torch.float64)


class Network(nn.Module):
    """Some nonlinear function of everything it is told, which counts its calls and the images in them."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        self.batches.append(len(x))
        return (x + context.sum((1, 2)).view(-1, 1, 1, 1)).sin() + t.view(-1, 1, 1, 1).cos()


class Guided(nn.Module):
    """A network guided in its own output, as eps-, v- or score-models are elsewhere."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        without, with_prompt = self.network(x, t, NEGATIVE), self.network(x, t, context)
        return (1 - self.scale) * without + self.scale * with_prompt


@pytest.fixture
def x():
    return torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 7.5])
def test_guidance_of_x0_is_guidance_of_whatever_the_network_predicts(x, schedule, prediction, scale):
    ours = guide(Denoiser(Network(), schedule, prediction), CONTEXT, NEGATIVE, scale)
    theirs = Denoiser(Guided(Network(), scale), schedule, prediction)
    for sigma in (torch.tensor(5.0, dtype=torch.float64), torch.tensor([0.1, 1.0, 9.0], dtype=torch.float64)):
        torch.testing.assert_close(ours(x, sigma), theirs(x, sigma, CONTEXT), rtol=1e-10, atol=1e-10)


def test_guidance_moves_the_score_away_from_the_negative(x):
    """Ho & Salimans 2022, Eq. 6 with 1 + w = scale: (1 + w) score(c) - w score(); the score is (x0 - x) / sigma^2."""
    denoiser, w = Denoiser(Network(), VE(), "score"), 2.0
    score, score_c = ((denoiser(x, SIGMA, c) - x) / SIGMA**2 for c in (NEGATIVE, CONTEXT))
    guided = (guide(denoiser, CONTEXT, NEGATIVE, 1 + w)(x, SIGMA) - x) / SIGMA**2
    torch.testing.assert_close(guided, (1 + w) * score_c - w * score)


def test_a_scale_of_one_is_the_prompt_alone_for_one_call(x):
    denoiser = Denoiser(Network(), EDM(), "edm")
    guided = guide(denoiser, CONTEXT, NEGATIVE, 1.0)(x, SIGMA)
    assert denoiser.network.batches == [3]
    assert torch.equal(guided, denoiser(x, SIGMA, CONTEXT))


def test_any_other_scale_is_one_call_of_twice_the_images(x):
    denoiser = Denoiser(Network(), EDM(), "edm")
    guide(denoiser, CONTEXT, NEGATIVE, 2.0)(x, SIGMA)
    assert denoiser.network.batches == [6]


def test_a_scale_of_zero_is_the_negative_prompt(x):
    denoiser = Denoiser(Network(), EDM(), "edm")
    assert torch.equal(guide(denoiser, CONTEXT, NEGATIVE, 0.0)(x, SIGMA), denoiser(x, SIGMA, NEGATIVE))


@pytest.mark.parametrize(("sigma", "acts"), [(0.49, False), (0.5, True), (1.0, True), (2.0, True), (2.01, False)])
def test_guidance_acts_in_its_interval_and_costs_nothing_outside(x, sigma, acts):
    denoiser, sigma = Denoiser(Network(), EDM(), "edm"), torch.tensor(sigma, dtype=torch.float64)
    limited = guide(denoiser, CONTEXT, NEGATIVE, 4.0, (0.5, 2.0))(x, sigma)
    assert denoiser.network.batches == [6 if acts else 3]
    always = guide(denoiser, CONTEXT, NEGATIVE, 4.0)(x, sigma)
    torch.testing.assert_close(limited, always if acts else denoiser(x, sigma, CONTEXT))


def test_the_interval_holds_for_each_image_where_levels_differ(x):
    denoiser = Denoiser(Network(), EDM(), "edm")
    sigma = torch.tensor([0.1, 1.0, 9.0], dtype=torch.float64)
    limited = guide(denoiser, CONTEXT, NEGATIVE, 4.0, (0.5, 2.0))(x, sigma)
    always = guide(denoiser, CONTEXT, NEGATIVE, 4.0)(x, sigma)
    plain = denoiser(x, sigma, CONTEXT)
    torch.testing.assert_close(limited, torch.stack([plain[0], always[1], plain[2]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_guidance_keeps_the_states_dtype(x, dtype):
    guided = guide(Denoiser(Network(), EDM(), "edm"), CONTEXT, NEGATIVE, 3.0)
    assert guided(x.to(dtype), SIGMA).dtype == dtype


# Inpainting


BEGUN, NOT_YET = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
ALL = torch.full((3,), 80.0, dtype=torch.float64)
DIGITS = Mixture(weights=(0.5, 0.5), means=(-1.0, 1.0), stds=(0.1, 0.1))


def picture(seed: int) -> Tensor:
    return torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def hole():
    hole = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    hole[..., 1:3] = True
    return hole


def test_the_network_sees_the_known_part_at_the_states_own_noise_level(x, hole):
    known, eps, seen = picture(1), picture(2), []
    x = x.float()

    def denoise(x, sigma):
        seen.append(x)
        return DIGITS.denoise(x, sigma)

    inpaint(denoise, known, eps, hole, ALL, BEGUN)(x, SIGMA)
    torch.testing.assert_close(seen[0], torch.where(hole, x, known + 0.8 * eps))


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_known_comes_back_bit_for_bit_from_every_sampler(name, hole):
    known, eps = picture(1), picture(2)
    denoise = inpaint(DIGITS.denoise, known, eps, hole, ALL, BEGUN)
    for step in SAMPLERS[name].run(denoise, known + 80 * eps, karras(EDM(), 40), noise=Noise(range(3))):
        if name != "ode":  # whose x0 is x - (x - x0): the same but for the rounding
            assert torch.equal(step.x0.masked_fill(hole, 0), known.masked_fill(hole, 0))
        torch.testing.assert_close(step.x0.masked_fill(hole, 0), known.masked_fill(hole, 0), rtol=0, atol=1e-5)
    distance = (step.x0.masked_select(hole).abs() - 1).abs()  # the hole was filled, and by the denoiser
    assert distance.mean() < 0.15 and distance.max() < 0.6


def test_the_hole_is_as_if_all_were_free_when_the_mask_is_everywhere(x):
    everywhere = torch.ones(1, dtype=torch.bool)
    held = inpaint(DIGITS.denoise, picture(1), picture(2), everywhere, ALL, BEGUN)
    assert torch.equal(held(x.float(), SIGMA), DIGITS.denoise(x.float(), SIGMA))


def test_an_image_is_held_above_its_own_start(x):
    known, eps, everywhere = picture(1), picture(2), torch.ones(1, dtype=torch.bool)
    start = torch.tensor([80.0, 0.8, 0.5], dtype=torch.float64)
    held = inpaint(DIGITS.denoise, known, eps, everywhere, start, torch.tensor([True, True, False]))(x.float(), SIGMA)
    assert torch.equal(held[:2], DIGITS.denoise(x.float(), SIGMA)[:2])
    assert torch.equal(held[2], known[2])


def test_looking_ahead_to_the_start_does_not_begin(x):
    """Heun evaluates the end of its step: an image that starts there is still on its way down to it."""
    known, everywhere, at = picture(1), torch.ones(1, dtype=torch.bool), SIGMA.expand(3)
    held = inpaint(DIGITS.denoise, known, picture(2), everywhere, at, NOT_YET)
    assert torch.equal(held(x.float(), SIGMA), known)
    assert torch.equal(held(x.float(), SIGMA * 0.99), DIGITS.denoise(x.float(), SIGMA * 0.99))


def test_a_held_image_goes_down_a_straight_line():
    """Every state is known + sigma * eps, so that an image starts where it does when it runs alone."""
    known, eps, none = picture(1), picture(2), torch.zeros(1, dtype=torch.bool)
    held = inpaint(DIGITS.denoise, known, eps, none, ALL, BEGUN)
    for name in ("ddim", "euler", "heun", "dpmpp_2m", "unipc", "lms"):
        for step in SAMPLERS[name].run(held, known + 80 * eps, karras(EDM(), 12), noise=Noise(range(3))):
            sigma = step.sigma.float().view(-1, 1, 1, 1)
            # What float32 leaves of states that began at 80.
            torch.testing.assert_close(step.x, known + sigma * eps, rtol=1e-5, atol=1e-4)


# Clipping


def test_clipping_keeps_x0_in_range(x):
    clipped = clip(lambda x, sigma: 3 * x, -0.5, 1.0)(x, SIGMA)
    assert torch.equal(clipped, (3 * x).clamp(-0.5, 1))


def test_no_bound_clips_nothing(x):
    assert torch.equal(clip(lambda x, sigma: 1e6 * x, -math.inf, math.inf)(x, SIGMA), 1e6 * x)


def test_wrappers_nest_and_work_with_a_sampler(hole):
    denoiser = Denoiser(Network(), EDM(), "edm")
    known, eps = picture(1).clamp(-1, 1), picture(2)
    denoise = clip(guide(denoiser, CONTEXT, NEGATIVE, 3.0), -1.0, 1.0)
    denoise = inpaint(denoise, known, eps, hole, ALL, BEGUN)
    run = SAMPLERS["euler"].run(denoise, 80 * eps, karras(EDM(), 6), noise=Noise(range(3)))
    step = deque(run, maxlen=1).pop()
    assert step.x0.abs().max() <= 1 and torch.equal(step.x0[..., 0], known[..., 0])
