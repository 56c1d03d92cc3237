"""Noise that belongs to an image."""

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp

from diffusion.noise import Between, Noise, slerp

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


def test_a_way_on_the_sphere_is_scipys():
    a, b = torch.nn.functional.normalize(
        torch.randn(2, 6, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=2
    )
    shares = torch.linspace(0, 1, 6)
    expected = [geometric_slerp(p.numpy(), q.numpy(), [float(s)])[0] for p, q, s in zip(a, b, shares, strict=True)]
    ours = slerp(a.view(6, 3, 2, 2), b.view(6, 3, 2, 2), shares).flatten(1)
    torch.testing.assert_close(ours, torch.tensor(np.stack(expected)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_way_to_where_one_is_leads_nowhere(share):
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(slerp(x, x, torch.tensor([share, share])), x)


def test_noise_on_the_way_is_unit_noise_and_at_its_ends_the_images_own():
    shares = (0.0, 0.5, 1.0)
    between = Between(Noise([1] * 3), Noise([2] * 3), shares)
    state = torch.empty(3, 4, 64, 64)
    start, end = Noise([1]), Noise([2])
    for _ in range(2):
        drawn = between(state)
        torch.testing.assert_close(drawn[0], start(state[:1])[0])
        torch.testing.assert_close(drawn[2], end(state[:1])[0])
        assert drawn[1].std() == pytest.approx(1, abs=0.02)  # a straight line would have 0.71
