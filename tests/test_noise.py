"""Noise that belongs to an image."""

import pytest
import torch

from diffusion.noise import Noise

SHAPE = (4, 8, 8)


def draws(seeds, times=3):
    noise = Noise(seeds)
    return torch.stack([noise(torch.empty(len(seeds), *SHAPE)) for _ in range(times)])


@pytest.mark.parametrize("count", [1, 4, 8])
def test_an_image_has_the_same_noise_in_any_batch(count):
    alone = torch.cat([draws([7 + i]) for i in range(count)], dim=1)
    assert torch.equal(draws(range(7, 7 + count)), alone)


def test_place_in_the_batch_does_not_matter():
    assert torch.equal(draws([3, 1, 2])[:, 0], draws([2, 3])[:, 1])


def test_the_global_random_state_is_neither_used_nor_changed():
    torch.manual_seed(0)
    first = draws([5])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(draws([5]), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds_and_calls_differ():
    noise = draws(range(4)).flatten(0, 1).flatten(1)
    correlation = torch.corrcoef(noise) - torch.eye(12)
    assert correlation.abs().max() < 5 / noise.shape[1] ** 0.5


def test_it_is_standard_normal():
    noise = draws(range(64), times=1)  # 16384 numbers: mean within 5 / 128, variance within 5 * sqrt(2) / 128
    assert abs(noise.mean()) < 0.04 and abs(noise.var() - 1) < 0.06


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_is_like_the_state(dtype):
    noise = Noise([1])(torch.empty(1, *SHAPE, dtype=dtype))
    assert noise.shape == (1, *SHAPE) and noise.dtype == dtype
    torch.testing.assert_close(noise, draws([1])[0].to(dtype))


def test_the_largest_seed_is_a_seed():
    assert Noise([2**63 - 1])(torch.empty(1, 2)).isfinite().all()
