"""Requests and what becomes of them, on small networks with random weights."""

import copy
import json
import math
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.autoencoder import PixelsConfig, VAEConfig
from diffusion.conditioning import UnconditionalConfig, WordsConfig
from diffusion.config import dump, parse
from diffusion.denoiser import PREDICTIONS
from diffusion.pipeline import Defaults, ModelConfig, Pipeline
from diffusion.request import Request, Travel, Turn
from diffusion.samplers import SAMPLERS, Step
from diffusion.schedules import EDM, GRIDS, VE, VP, Discrete, Flow
from diffusion.unet import UNetConfig

NETWORK = UNetConfig(
    sample_size=8,
    in_channels=1,
    out_channels=1,
    block_out_channels=(8, 16),
    attention=(False, True),
    attention_head_dim=8,
    cross_attention_dim=6,
    norm_num_groups=4,
)
WORDS = WordsConfig(vocabulary=("cat", "dog"), dim=6)
CONFIGS = {
    "pixels": ModelConfig("pixels", PixelsConfig(image_size=7, sample_size=8), WORDS, NETWORK),
    "latents": ModelConfig(
        "latents",
        VAEConfig(image_size=13, sample_size=16, latent_channels=2, block_out_channels=(4, 8), norm_num_groups=2),
        WORDS,
        replace(NETWORK, in_channels=2, out_channels=2),
        VP(),
        "v",
    ),
}
BOTH = pytest.mark.parametrize("kind", CONFIGS)
EACH = pytest.mark.parametrize("sampler", SAMPLERS)


def build(config: ModelConfig) -> Pipeline:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Pipeline(config).eval()


@pytest.fixture(scope="module")
def pipelines():
    return {kind: build(config) for kind, config in CONFIGS.items()}


def pictures(pipeline: Pipeline, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *pipeline.codec.image_shape, generator=generator) * 2 - 1


def last(steps) -> Step:
    return deque(steps, maxlen=1).pop()


def hole_in_the_middle(pipeline: Pipeline) -> Tensor:
    mask = torch.zeros(1, *pipeline.codec.image_shape[1:])
    mask[:, 3:5, 2:5] = 1
    return mask


# From noise


@BOTH
@EACH
def test_pictures_come_out(pipelines, kind, sampler):
    pipeline = pipelines[kind]
    request = Request(
        prompt=("cat", "dog", ""), count=3, seed=5, sampler=sampler, steps=4, guidance=2.0, negative="dog"
    )
    steps = list(pipeline.generate(request))
    assert [step.index for step in steps] == list(range(len(steps)))
    for step in steps:
        assert step.x.shape == step.x0.shape == (3, *pipeline.codec.latent_shape)
        assert step.x.dtype == torch.float32 and step.x.isfinite().all()
    images = pipeline.images(steps[-1], request)
    assert images.shape == (3, *pipeline.codec.image_shape) and images.abs().max() <= 1
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("schedule", [VE(), VP(), Discrete(), Discrete("cosine"), EDM(), Flow()], ids=repr)
def test_every_schedule_prediction_and_grid_makes_a_model(schedule, prediction, grid):
    pipeline = build(replace(CONFIGS["pixels"], schedule=schedule, prediction=prediction, grid=grid))
    step = last(pipeline.generate(Request(prompt="cat", steps=3, guidance=2.0)))
    assert step.x.isfinite().all() and step.x0.abs().max() <= 1
    loss = pipeline.denoiser.loss(step.x0, schedule.sample(torch.tensor([0.5])), step.x, pipeline.conditioner(["cat"]))
    assert loss.shape == (1,) and loss.isfinite().all()


@BOTH
def test_the_first_step_is_the_noise_itself(pipelines, kind):
    pipeline = pipelines[kind]
    step = next(pipeline.generate(Request(count=2, seed=11, steps=5)))
    noise = torch.stack(
        [torch.randn(pipeline.codec.latent_shape, generator=torch.Generator().manual_seed(11 + i)) for i in range(2)]
    )
    assert step.index == step.calls == 0
    assert step.sigma.item() == pytest.approx(pipeline.config.schedule.sigma_max, rel=1e-12)
    torch.testing.assert_close(step.x, pipeline.config.schedule.sigma_max * noise)


@EACH
def test_an_image_does_not_depend_on_its_batch(pipelines, sampler):
    """Noise is equal bit for bit; convolutions of other batch sizes round differently, and steps carry that along."""
    request = Request(prompt="cat", seed=3, sampler=sampler, steps=6, guidance=2.0)
    batches = {
        count: list(pipelines["pixels"].generate(replace(request, count=count, seed=3 + 8 - count)))
        for count in (1, 4, 8)
    }
    # All three end with the image of seed 10, at the batch's last place.
    assert torch.equal(batches[1][0].x[-1], batches[8][0].x[-1]) and torch.equal(batches[4][0].x, batches[8][0].x[4:])
    for count in (1, 4):
        torch.testing.assert_close(batches[count][-1].x0, batches[8][-1].x0[8 - count :], rtol=0, atol=2e-3)


@EACH
def test_streaming_changes_nothing(pipelines, sampler):
    """What happens between the steps, other runs and other random numbers, leaves a run as it is."""
    pipeline = pipelines["pixels"]
    request = Request(prompt="dog", count=2, seed=1, sampler=sampler, steps=5)
    at_once = list(pipeline.generate(request))
    for one, step in zip(at_once, pipeline.generate(request), strict=True):
        torch.rand(3)
        next(pipeline.generate(replace(request, seed=9)))
        pipeline.preview(step)
        assert torch.equal(one.x, step.x) and torch.equal(one.x0, step.x0)


def test_a_request_knows_all_that_it_asks_a_model_to_read():
    assert Request("cat", count=2, negative=("dog", "")).texts == ("cat", "cat", "dog", "")
    assert Request("cat", turn=Turn(3, ("fox",))).texts == ("cat", "", "fox")
    assert Request("cat", travel=Travel("owl", 1, (0.5,))).texts == ("cat", "", "owl")


def test_seeds_of_ones_own_choice(pipelines):
    pipeline = pipelines["pixels"]
    chosen = last(pipeline.generate(Request(count=2, seed=(7, 4), steps=3)))
    alone = [last(pipeline.generate(Request(seed=seed, steps=3))).x0 for seed in (7, 4)]
    torch.testing.assert_close(chosen.x0, torch.cat(alone), rtol=0, atol=1e-3)


@EACH
def test_the_calls_in_a_step_are_the_networks(pipelines, sampler):
    pipeline, batches = pipelines["pixels"], []
    hook = pipeline.denoiser.network.register_forward_hook(lambda module, inputs, output: batches.append(len(output)))
    try:
        for guidance, images in ((1.0, 3), (2.5, 6)):
            batches.clear()
            for step in pipeline.generate(Request(count=3, sampler=sampler, steps=4, guidance=guidance)):
                assert step.calls == len(batches)
            assert set(batches) == {images}
    finally:
        hook.remove()


@EACH
def test_closing_a_run_stops_the_network(pipelines, sampler):
    pipeline, batches = pipelines["pixels"], []
    hook = pipeline.denoiser.network.register_forward_hook(lambda module, inputs, output: batches.append(len(output)))
    try:
        run = pipeline.generate(Request(sampler=sampler, steps=8))
        assert not batches
        next(run)
        assert not batches  # the start is shown before the first call
        step = next(run)
        run.close()
        assert len(batches) == step.calls
    finally:
        hook.remove()


def test_guidance_goes_from_the_negative_prompt_over_the_prompt_and_on(pipelines):
    pipeline, request = pipelines["pixels"], Request(prompt="cat", negative="dog", steps=1, sampler="euler")

    def x0(**changes) -> Tensor:
        return last(pipeline.generate(replace(request, **changes))).x0

    torch.testing.assert_close(x0(guidance=0.0), x0(prompt="dog"), rtol=0, atol=1e-5)
    torch.testing.assert_close(x0(guidance=1.0), x0(negative=""))
    torch.testing.assert_close(x0(guidance=3.0, interval=(0.0, 1.0)), x0(guidance=1.0))
    assert (x0(guidance=3.0) - x0(guidance=1.0)).abs().max() > 1e-4


def test_each_image_may_steer_away_from_something_of_its_own(pipelines):
    request = Request("cat", ("", "dog"), count=2, seed=(1, 1), sampler="ddim", steps=4, guidance=3.0)
    both = last(pipelines["latents"].generate(request)).x
    for i, negative in enumerate(("", "dog")):
        alone = last(pipelines["latents"].generate(replace(request, negative=negative, count=1, seed=1))).x
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_pixels_are_kept_in_range_and_latents_are_not(pipelines):
    assert pipelines["pixels"].codec.bounds == (-1, 1) and pipelines["latents"].codec.bounds == (-math.inf, math.inf)
    request = Request(count=4, steps=3, guidance=100.0, prompt="cat")
    assert all(step.x0.abs().max() <= 1 for step in pipelines["pixels"].generate(request))
    assert last(pipelines["latents"].generate(request)).x0.abs().max() > 1


def test_the_range_of_pixels_is_a_change_of_units(pipelines):
    """With half the range, noise of half the size is the same noise: the state looks the same."""
    wide, x, sigma = pipelines["pixels"], torch.randn(2, 1, 8, 8), torch.tensor([0.3, 5.0])
    narrow = build(replace(CONFIGS["pixels"], codec=PixelsConfig(image_size=7, sample_size=8, range=(0, 1))))
    step = Step(0, sigma, x, x, 0)
    half = Step(0, sigma / 2, (x + 1) / 2, (x + 1) / 2, 0)
    torch.testing.assert_close(narrow.spread(half), wide.spread(step))
    for ours, theirs in zip(narrow.preview(half), wide.preview(step), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_model_without_prompts():
    network = replace(NETWORK, cross_attention_dim=None)
    pipeline = build(replace(CONFIGS["pixels"], conditioner=UnconditionalConfig(), network=network))
    request = Request(count=2, steps=3)
    made = last(pipeline.generate(request)).x
    torch.testing.assert_close(last(pipeline.generate(replace(request, guidance=3.0))).x, made)
    assert parse(ModelConfig, dump(pipeline.config), "here") == pipeline.config
    with pytest.raises(ValueError, match='takes no prompt, so leave out "cat"'):
        next(pipeline.generate(Request("cat")))


# Another prompt on the way


@EACH
def test_a_turn_leaves_what_was_before_it_bit_for_bit(pipelines, sampler):
    request = Request(prompt="cat", count=2, seed=(4, 4), sampler=sampler, steps=6, guidance=2.0)
    plain = list(pipelines["latents"].generate(request))
    forked = list(pipelines["latents"].generate(replace(request, turn=Turn(3, ("cat", "dog")))))
    for ours, theirs in zip(forked[:4], plain[:4], strict=True):
        assert torch.equal(ours.x, theirs.x) and torch.equal(ours.x0, theirs.x0)
    if sampler != "ode":  # whose steps are its own
        assert torch.allclose(last(forked).x[0], last(plain).x[0], atol=1e-5)
    assert not torch.allclose(last(forked).x[1], last(plain).x[1], atol=1e-3)


def test_after_a_turn_the_other_prompt_is_all_that_is_asked_for(pipelines):
    """A turn before the last of Euler's steps, which is the network's answer at that state."""
    request = Request(prompt="cat", sampler="euler", steps=4, guidance=1.0, turn=Turn(3, ("dog",)))
    *_, before, after = pipelines["latents"].generate(request)
    with torch.no_grad():
        denoiser, conditioner = pipelines["latents"].denoiser, pipelines["latents"].conditioner
        torch.testing.assert_close(after.x, denoiser(before.x, before.sigma, conditioner(["dog"])))


@EACH
def test_a_travel_leads_from_one_run_to_the_other(pipelines, sampler):
    settings = {"sampler": sampler, "steps": 5, "guidance": 2.0}
    travel = Travel("dog", 9, (0.0, 0.5, 1.0))
    way = last(pipelines["latents"].generate(Request("cat", count=3, seed=(2, 2, 2), travel=travel, **settings))).x
    ends = [
        last(pipelines["latents"].generate(Request(*asked, **settings))).x[0]
        for asked in (("cat", "", 1, 2), ("dog", "", 1, 9))
    ]
    torch.testing.assert_close(way[0], ends[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(way[2], ends[1], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(way[1], way[0], atol=1e-2) and not torch.allclose(way[1], way[2], atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turn": Turn(2, ("cat",))}, "one prompt for each of the 2 images"),
        ({"travel": Travel("cat", 0, (0.5,))}, "one share of the way for each of the 2 images"),
    ],
)
def test_turns_and_travels_are_as_long_as_there_are_images(change, message):
    with pytest.raises(ValueError, match=message):
        Request(count=2, **change)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Turn(0, ("cat",)),
        lambda: Turn(1001, ("cat",)),
        lambda: Turn(1.5, ("cat",)),
        lambda: Turn(1, "cat"),
        lambda: Turn(1, (1,)),
        lambda: Travel(None, 0, (0.5,)),
        lambda: Travel("cat", -1, (0.5,)),
        lambda: Travel("cat", 0, (1.1,)),
        lambda: Travel("cat", 0, (math.nan,)),
    ],
)
def test_turns_and_travels_are_checked(make):
    with pytest.raises(ValueError, match="must be"):
        make()


# From an image


@BOTH
@EACH
def test_strength_zero_is_the_reconstruction(pipelines, kind, sampler):
    pipeline = pipelines[kind]
    image = pictures(pipeline, 1)[0]
    request = Request(prompt="cat", image=image, strength=0.0, sampler=sampler, guidance=3.0)
    (step,) = pipeline.generate(request)
    assert step.calls == 0 and step.sigma == 0
    assert torch.equal(pipeline.images(step, request), pipeline.reconstruct(image.unsqueeze(0)))


@BOTH
def test_strength_one_starts_at_the_highest_level(pipelines, kind):
    pipeline = pipelines[kind]
    request = Request(prompt="cat", image=pictures(pipeline, 1)[0], strength=1.0, steps=6)
    steps = list(pipeline.generate(request))
    assert steps[0].sigma.item() == pytest.approx(pipeline.config.schedule.sigma_max, rel=1e-12)
    assert len(steps) == 1 + 6


@pytest.mark.parametrize(
    ("strength", "steps", "run"),
    [
        (0.0, 20, 0),
        (1.0, 20, 20),
        (0.5, 20, 10),
        (0.01, 20, 1),
        (0.51, 20, 11),
        (0.55, 20, 11),
        (0.3, 1, 1),
        (0.07, 100, 7),
    ],
)
def test_strength_is_the_share_of_the_grids_last_steps_rounded_up(pipelines, strength, steps, run):
    pipeline = pipelines["pixels"]
    request = Request(image=pictures(pipeline, 1)[0], strength=strength, steps=steps, sampler="euler")
    assert request.steps_run(strength) == run
    taken = list(pipeline.generate(request))
    assert [step.sigma for step in taken] == pipeline.grid(steps)[steps - run :].tolist()


@BOTH
def test_the_start_is_the_image_noised_as_in_training(pipelines, kind):
    pipeline = pipelines[kind]
    images = pictures(pipeline, 3)
    step = next(pipeline.generate(Request(image=images, strength=0.4, count=3, seed=2)))
    noise = next(pipeline.generate(Request(count=3, seed=2)))
    eps = noise.x / pipeline.config.schedule.sigma_max
    torch.testing.assert_close(step.x, pipeline.codec.encode(images) + step.sigma.float() * eps)


@BOTH
@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun"])
def test_strengths_in_one_batch_are_what_they_are_alone(pipelines, kind, sampler):
    """For samplers without memory and noise; the others remember how they came down to an image's start."""
    pipeline = pipelines[kind]
    images, strengths = pictures(pipeline, 5), (0.0, 0.2, 0.55, 0.9, 1.0)
    request = Request(prompt="dog", seed=4, sampler=sampler, steps=10, guidance=2.0)
    together = last(pipeline.generate(replace(request, count=5, image=images, strength=strengths)))
    for i, strength in enumerate(strengths):
        alone = last(pipeline.generate(replace(request, image=images[i], strength=strength, seed=4 + i)))
        torch.testing.assert_close(together.x0[i], alone.x0[0], rtol=0, atol=2e-3)


@EACH
def test_strengths_from_none_to_all_go_through_every_sampler(pipelines, sampler):
    pipeline = pipelines["pixels"]
    images, strengths = pictures(pipeline, 3), (0.0, 0.5, 1.0)
    request = Request(count=3, image=images, strength=strengths, sampler=sampler, steps=6)
    made = pipeline.images(last(pipeline.generate(request)), request)
    assert made.isfinite().all()
    torch.testing.assert_close(made[0], images[0], rtol=0, atol=1e-4)
    assert (made[2] - images[2]).abs().max() > 0.1


def test_one_image_starts_them_all(pipelines):
    pipeline = pipelines["pixels"]
    image = pictures(pipeline, 1)
    one, many = ({"image": image[0]}, {"image": image.expand(3, -1, -1, -1)})
    runs = [last(pipeline.generate(Request(count=3, strength=0.5, steps=4, **start))).x0 for start in (one, many)]
    assert torch.equal(*runs)


# Inpainting


@BOTH
@EACH
def test_pixels_outside_the_mask_come_back_bit_for_bit(pipelines, kind, sampler):
    pipeline = pipelines[kind]
    images, mask = pictures(pipeline, 2), hole_in_the_middle(pipeline)
    for strength in (0.0, 0.6, 1.0):
        request = Request("cat", image=images, mask=mask, count=2, sampler=sampler, steps=5, strength=strength)
        for step in pipeline.generate(request):
            made = pipeline.images(step, request)
            assert torch.equal(made.masked_fill(mask.bool(), 0), images.masked_fill(mask.bool(), 0))
        if strength == 1:
            assert (made - images).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.uint8])
def test_a_mask_may_be_of_any_kind(pipelines, dtype):
    pipeline = pipelines["pixels"]
    image, mask = pictures(pipeline, 1)[0], hole_in_the_middle(pipeline)
    results = []
    for kind in (torch.float32, dtype):
        request = Request(image=image, mask=mask.to(kind), steps=3)
        results.append(pipeline.images(last(pipeline.generate(request)), request))
    assert torch.equal(*results)


def test_a_mask_of_nothing_is_the_image_and_of_everything_is_none_of_it(pipelines):
    pipeline = pipelines["pixels"]
    image = pictures(pipeline, 1)[0]
    request = Request(image=image, mask=torch.zeros(1, 7, 7), steps=4)
    assert torch.equal(pipeline.images(last(pipeline.generate(request)), request)[0], image)
    request = replace(request, mask=torch.ones(1, 7, 7))
    assert not (pipeline.images(last(pipeline.generate(request)), request)[0] == image).any()


# Looking at steps


@BOTH
@pytest.mark.parametrize("sampler", ["euler", "ode"])
def test_every_step_can_be_looked_at(pipelines, kind, sampler):
    pipeline = pipelines[kind]
    for step in pipeline.generate(Request(count=3, sampler=sampler, steps=4)):
        noisy, clean = pipeline.preview(step)
        assert noisy.shape == clean.shape == (3, *pipeline.codec.image_shape)
        assert noisy.abs().max() <= 1 and clean.abs().max() <= 1
        torch.testing.assert_close(pipeline.noisy(step), noisy, rtol=0, atol=1e-5)
    torch.testing.assert_close(clean, pipeline.decode(step.x0), rtol=0, atol=1e-5)
    torch.testing.assert_close(noisy, clean, rtol=0, atol=1e-2)  # at the end, no noise is left


def test_a_pixel_preview_is_the_state_at_unit_spread(pipelines):
    pipeline = pipelines["pixels"]
    step = next(pipeline.generate(Request(steps=4)))
    expected = pipeline.codec.decode(step.x / math.sqrt(1 + 80**2)).clamp(-1, 1)
    torch.testing.assert_close(pipeline.preview(step)[0], expected)


@BOTH
def test_reconstruction_is_encode_and_decode(pipelines, kind):
    pipeline = pipelines[kind]
    images = pictures(pipeline, 3)
    made = pipeline.reconstruct(images)
    torch.testing.assert_close(made, pipeline.codec.decode(pipeline.codec.encode(images)).clamp(-1, 1))
    if kind == "pixels":
        assert torch.equal(made, images)


def test_gradients_are_off_inside_and_untouched_outside(pipelines):
    for step in pipelines["pixels"].generate(Request(steps=2)):
        assert torch.is_grad_enabled() and not step.x.requires_grad and not step.x0.requires_grad


# Requests


@pytest.mark.parametrize("value", [0, -1, 4097, 10**9, 1.5, 2.0, math.nan, math.inf, True, "3", None, [1]], ids=repr)
def test_count_is_checked(value):
    refused("count must be a whole number from 1 to 4096, not ", count=value)


@pytest.mark.parametrize("value", [0, -1, 1001, 10**9, 1.5, math.nan, True, "20", None], ids=repr)
def test_steps_are_checked(value):
    refused("steps must be a whole number from 1 to 1000, not ", steps=value)


@pytest.mark.parametrize("value", [-1, 2**63, 1.5, math.nan, True, "7", None, (True,), (-1,)], ids=repr)
def test_seed_is_checked(value):
    refused("seed must be a whole number from 0 to ", seed=value)


@pytest.mark.parametrize("value", [-0.1, 100.5, 1e9, math.nan, math.inf, -math.inf, True, "2", None], ids=repr)
def test_guidance_is_checked(value):
    refused("guidance must be a number from 0 to 100, not ", guidance=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, 1e9, math.nan, True, "1", None, (math.nan,), ("1",)], ids=repr)
def test_strength_is_checked(value):
    refused("strength must be a number from 0 to 1, not ", strength=value)


@pytest.mark.parametrize("value", ["", "DDIM", "dpm", None, 3, ["ddim"]], ids=repr)
def test_sampler_is_checked(value):
    refused(f"Unknown sampler {str(value)!r}; the choices are {', '.join(SAMPLERS)}.", sampler=value)


@pytest.mark.parametrize("value", [None, 3, ["cat"], (3,), b"cat"], ids=repr)
def test_prompts_are_checked(value):
    refused("Prompts must be text", prompt=value)


def test_the_negative_prompt_is_checked():
    refused("Prompts must be text", negative=None)


@pytest.mark.parametrize(
    "per_image", [{"prompt": ("a", "b")}, {"prompt": ()}, {"strength": (0.5, 0.5)}, {"seed": (1, 2)}, {"seed": ()}]
)
def test_lists_are_as_long_as_there_are_images(per_image):
    refused(
        "One prompt, negative prompt, seed and strength for all, or one for each of the 3 images", count=3, **per_image
    )


@pytest.mark.parametrize("value", [None, 3, (1.0,), (1.0, 2.0, 3.0), "ab", [0.0, 1.0]], ids=repr)
def test_the_interval_has_two_ends(value):
    refused("The guidance interval must be two noise levels, low and high.", interval=value)


@pytest.mark.parametrize(
    ("value", "end"),
    [
        ((-1.0, 2.0), "low"),
        ((math.nan, 2.0), "low"),
        (("a", "b"), "low"),
        ((2.0, 1.0), "high"),
        ((0.0, math.nan), "high"),
    ],
)
def test_the_intervals_ends_are_levels_in_order(value, end):
    refused(f"the interval's {end} end must be a number from ", interval=value)


def test_a_mask_needs_an_image():
    refused("A mask needs an image: it says which part of the image is made anew.", mask=torch.ones(1, 7, 7))


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, "picture", [[0.0]], np.zeros((1, 7, 7))], ids=lambda v: str(v)[:9]
)
def test_images_are_tensors_of_numbers(value):
    image = torch.full((1, 7, 7), value) if isinstance(value, float) else value
    refused("The image must be a tensor of finite numbers.", image=image)
    refused("The mask must be a tensor of finite numbers.", image=torch.zeros(1, 7, 7), mask=image)


def refused(message: str, **settings) -> None:
    """One sentence that begins with `message`, whatever nonsense was given."""
    with pytest.raises(ValueError) as error:
        Request(**settings)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith((".", "please.")) and len(str(error.value)) < 250 and "\n" not in str(error.value)


def test_errors_do_not_repeat_what_is_endless():
    with pytest.raises(ValueError) as error:
        Request(sampler="x" * 10_000)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("shape", [(7, 7), (1, 6, 7), (3, 7, 7), (2, 1, 7, 7), (0, 1, 7, 7), (1, 1, 1, 7, 7)])
def test_images_must_be_the_models(pipelines, shape):
    with pytest.raises(ValueError, match=r"^The model takes images of 1 x 7 x 7, one or 3 of them, not \(.*\)\.$"):
        next(pipelines["pixels"].generate(Request(count=3, image=torch.zeros(shape), strength=0.5)))


@pytest.mark.parametrize("shape", [(7, 7), (1, 7, 6), (2, 7, 7), (1, 1, 7, 7)])
def test_masks_must_be_the_models(pipelines, shape):
    with pytest.raises(ValueError, match=r"^The mask must be 1 x 7 x 7, not \(.*\)\.$"):
        next(pipelines["pixels"].generate(Request(image=torch.zeros(1, 7, 7), mask=torch.ones(shape))))


@pytest.mark.parametrize("words", [{"prompt": "fox"}, {"negative": "fox"}])
def test_unknown_prompts_are_refused_with_the_known(pipelines, words):
    with pytest.raises(ValueError, match='The model does not know the prompt "fox"; it knows cat, dog and ""'):
        next(pipelines["pixels"].generate(Request(**words)))


@pytest.mark.parametrize(("kind", "size"), [("pixels", (15, 11)), ("latents", (21, 9))])
@EACH
def test_pictures_of_other_sizes(pipelines, kind, size, sampler):
    """From noise, from an image and in a mask; what is outside it comes back."""
    pipeline = pipelines[kind]
    image = pictures(pipeline, 1).mean() + torch.linspace(-0.5, 0.5, size[0] * size[1]).view(1, *size)
    mask = torch.zeros(1, *size)
    mask[:, :4] = 1
    for more in ({}, {"image": image, "strength": 0.5}, {"image": image, "mask": mask}):
        request = Request("cat", count=2, size=size, steps=3, sampler=sampler, **more)
        step = last(pipeline.generate(request))
        made = pipeline.images(step, request)
        assert made.shape == (2, 1, *size) and [part.shape for part in pipeline.preview(step)] == [made.shape] * 2
        if "mask" in more:
            assert torch.equal(made[:, :, 4:], image.expand(2, 1, *size)[:, :, 4:])


def test_the_models_own_size_is_no_other(pipelines):
    ours = Request("cat", seed=3, steps=2)
    assert torch.equal(
        last(pipelines["latents"].generate(ours)).x, last(pipelines["latents"].generate(replace(ours, size=(13, 13)))).x
    )


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("pixels", (7, 8), "cannot be 8 pixels high or wide: take 7 or 9"),
        ("pixels", (2, 7), "cannot be 2 pixels high or wide: take 1 or 3"),
        ("latents", (13, 14), "cannot be 14 pixels high or wide: take 13 or 17"),
    ],
)
def test_sizes_that_cannot_be_halved(pipelines, kind, size, message):
    with pytest.raises(ValueError, match=f"^This model's pictures {message}\\.$"):
        next(pipelines[kind].generate(Request(size=size)))


@pytest.mark.parametrize("size", [7, (7,), (7, 7, 7), [7, 7], "77"])
def test_a_size_has_two_sides(size):
    refused("The size must be two numbers of pixels, height and width.", size=size)


@pytest.mark.parametrize("side", [0, 2049, 8.0, True, math.nan, "8", None])
def test_sides_are_checked(side):
    refused("height must be a whole number from 1 to 2048, not ", size=(side, 8))
    refused("width must be a whole number from 1 to 2048, not ", size=(8, side))


def test_a_picture_that_is_no_number_is_no_picture(pipelines):
    broken = copy.deepcopy(pipelines["latents"])
    next(broken.denoiser.parameters()).data.fill_(math.nan)
    request = Request(steps=2)
    with pytest.raises(ValueError, match=r"^The run ended in values that are no numbers: float32 is too coarse for "):
        broken.images(last(broken.generate(request)), request)


# Configurations


@pytest.mark.parametrize(
    "config",
    [
        *CONFIGS.values(),
        ModelConfig("default"),
        replace(CONFIGS["pixels"], schedule=Discrete("cosine"), classes=("a", "b"), defaults=Defaults("lms", 7, 1.0)),
        replace(CONFIGS["latents"], schedule=Flow(), prediction="flow", grid="uniform_time"),
    ],
    ids=lambda config: f"{config.name} {config.schedule.kind}",
)
def test_a_config_survives_json(config):
    assert parse(ModelConfig, json.loads(json.dumps(dump(config))), "config.json") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'; the keys here are name, codec, conditioner, network, schedule, "),
        (
            {"schedule": {"kind": "vp", "sigma_data": 1}},
            "unknown key 'schedule.sigma_data'; the keys here are kind, beta_min",
        ),
        ({"schedule": {"kind": "cosine", "betas": 1}}, "unknown key 'schedule.betas'; the keys here are kind, steps, "),
        (
            {"codec": {"kind": "pixels", "latent_channels": 4}},
            "unknown key 'codec.latent_channels'; the keys here are kind, ",
        ),
        ({"network": {"depth": 3}}, "unknown key 'network.depth'; the keys here are sample_size, in_channels"),
        ({"defaults": {"seed": 3}}, "unknown key 'defaults.seed'; the keys here are sampler, steps, guidance."),
        (
            {"schedule": {"kind": "ddpm"}},
            "'schedule.kind': unknown kind 'ddpm'; the choices are 've', 'vp', 'linear', ",
        ),
        (
            {"prediction": "noise"},
            "'prediction': input should be 'eps', 'x0', 'score', 'v', 'edm' or 'flow' (got 'noise').",
        ),
        (
            {"grid": "linear"},
            "'grid': input should be 'karras', 'uniform_time', 'leading' or 'trailing' (got 'linear').",
        ),
        ({"schedule": {"kind": "edm", "sigma_max": math.nan}}, "'schedule.sigma_max': input should be a finite number"),
    ],
)
def test_a_wrong_config_is_one_sentence(change, message):
    with pytest.raises(ValueError) as error:
        parse(ModelConfig, {"name": "a", **change}, "config.json")
    assert str(error.value).startswith(f"config.json: {message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"codec": PixelsConfig(image_size=7, sample_size=16)},
            r"states are \(1, 16, 16\), the network's are \(1, 8, 8\)",
        ),
        ({"conditioner": WordsConfig(dim=5)}, "vectors have 5 numbers, but the network's cross_attention_dim is 6"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build(replace(CONFIGS["pixels"], **change))


@BOTH
def test_a_saved_model_is_the_same_model(pipelines, kind, tmp_path):
    """Up to float16, in which the weights are stored."""
    pipeline = pipelines[kind]
    pipeline.save(tmp_path / "model")
    loaded = Pipeline.load(tmp_path / "model")
    assert loaded.config == pipeline.config and not loaded.training
    for name, tensor in pipeline.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name
    image = pictures(pipeline, 1)
    torch.testing.assert_close(loaded.reconstruct(image), pipeline.reconstruct(image), rtol=0, atol=0.02)
