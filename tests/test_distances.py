from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.kid import poly_mmd

from diffusion.data import load
from diffusion.distances import density_coverage, frechet, kernel_distance, nearest, precision_recall

DATA = Path(__file__).parent / "data"


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_moments(mean, covariance, n=400):
    """Samples whose own mean and covariance are exactly these."""
    dim = len(mean)
    white = noise(n, dim).double()
    white = white - white.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(white.T.cov()), white.T, upper=False).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_of_two_diagonal_gaussians_is_the_textbook_formula():
    mean_a, mean_b = torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([1.0, 1.0, 0.0]).double()
    std_a, std_b = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 2.0, 0.5]).double()
    a, b = with_moments(mean_a, std_a.square().diag()), with_moments(mean_b, std_b.square().diag())
    expected = (mean_a - mean_b).square().sum() + (std_a - std_b).square().sum()
    assert frechet(a, b) == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_agrees_with_the_matrix_square_root():
    a = noise(300, 12) @ noise(12, 12, seed=1) + 0.3
    b = noise(500, 12, seed=2) @ noise(12, 12, seed=3)
    first, second = np.cov(a.double().numpy().T), np.cov(b.double().numpy().T)
    root = scipy.linalg.sqrtm(first @ second).real
    shift = a.double().mean(0) - b.double().mean(0)
    expected = shift.square().sum().item() + np.trace(first + second - 2 * root)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-8)


def test_frechet_of_a_set_with_itself_is_zero_even_when_features_are_dead_or_samples_few():
    a = noise(300, 16)
    a[:, 5:9] = 0
    assert frechet(a, a.clone()) == pytest.approx(0, abs=1e-6)
    assert frechet(a[:5], a[:5]) == pytest.approx(0, abs=1e-6)


def test_frechet_of_a_shift_is_its_square():
    a = noise(300, 8)
    assert frechet(a, a + 2) == pytest.approx(32, rel=1e-5)


def test_frechet_needs_two_samples():
    with pytest.raises(ValueError, match="two samples on either side, got 1 and 9"):
        frechet(torch.zeros(1, 3), torch.zeros(9, 3))


@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_agree_with_their_definition(k, monkeypatch):
    monkeypatch.setattr("diffusion.distances.CHUNK", 13)
    real, fake = noise(60, 4).double(), 0.7 * noise(45, 4, seed=1).double()
    inside, covered = 0, 0
    for i, center in enumerate(real):
        others = torch.cat([real[:i], real[i + 1 :]])
        radius = (others - center).norm(dim=1).sort().values[k - 1]
        hits = ((fake - center).norm(dim=1) < radius).sum().item()
        inside, covered = inside + hits, covered + (hits > 0)
    assert density_coverage(real, fake, k) == pytest.approx((inside / (k * 45), covered / 60))


def test_a_set_covers_itself_and_its_own_distribution():
    real = noise(500, 6)
    assert density_coverage(real, real.clone())[1] == 1
    density, coverage = density_coverage(real, noise(500, 6, seed=1))
    assert 0.9 < density < 1.1
    assert coverage > 0.93  # 1 - 2^-5 is expected of equal distributions


def test_a_collapsed_set_is_dense_but_covers_little():
    real = noise(500, 6)
    density, coverage = density_coverage(real, 0.01 * noise(500, 6, seed=1))
    assert density > 0.5
    assert coverage < 0.05
    assert density_coverage(real, real + 100) == (0, 0)


def test_density_and_coverage_need_more_than_k_samples():
    with pytest.raises(ValueError, match="k = 5 need more than 5 real samples, got 5"):
        density_coverage(noise(5, 2), noise(9, 2))


@pytest.mark.parametrize("chunk", [13, 1000])
def test_the_kernel_distance_agrees_with_torchmetrics(chunk, monkeypatch):
    monkeypatch.setattr("diffusion.distances.CHUNK", chunk)
    a, b = noise(70, 12).double(), 0.4 + 1.3 * noise(70, 12, seed=1).double()
    expected = poly_mmd(a, b, degree=3, gamma=None, coef=1.0).item()
    assert expected > 0.1
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(b.float(), a.float()) == pytest.approx(expected, rel=1e-5)


def test_the_kernel_distance_agrees_with_its_definition_for_unequal_sizes():
    a, b = noise(7, 3).double(), noise(5, 3, seed=1).double() + 1

    def mean(x, y):
        pairs = [(x[i] @ y[j] / 3 + 1) ** 3 for i in range(len(x)) for j in range(len(y)) if x is not y or i != j]
        return torch.stack(pairs).mean()

    assert kernel_distance(a, b) == pytest.approx((mean(a, a) + mean(b, b) - 2 * mean(a, b)).item())


def test_the_kernel_distance_is_unbiased():
    """Its mean over many draws is 0 for equal distributions, and the same for few samples as for many."""
    sets = noise(600, 2, 10, 6).double()
    same = torch.tensor([kernel_distance(a, b) for a, b in sets])
    assert same.mean().abs() < 3 * same.std() / 600**0.5
    few = torch.tensor([kernel_distance(a, b + 1) for a, b in sets])
    many = kernel_distance(sets[:300, 0].reshape(-1, 6), sets[300:, 1].reshape(-1, 6) + 1)
    assert abs(few.mean() - many) < 3 * few.std() / 600**0.5 + 0.05 * many


def test_the_kernel_distance_needs_two_samples():
    with pytest.raises(ValueError, match="the kernel distance needs two samples on either side, got 9 and 1"):
        kernel_distance(torch.zeros(9, 3), torch.zeros(1, 3))


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_agree_with_their_definition(k, monkeypatch):
    monkeypatch.setattr("diffusion.distances.CHUNK", 13)
    real, fake = noise(60, 4).double(), 0.6 * noise(45, 4, seed=1).double()

    def on_manifold(point, centres):
        for i, centre in enumerate(centres):
            others = torch.cat([centres[:i], centres[i + 1 :]])
            if (point - centre).norm() <= (others - centre).norm(dim=1).sort().values[k - 1]:
                return True
        return False

    expected = [sum(on_manifold(p, c) for p in points) / len(points) for points, c in ((fake, real), (real, fake))]
    assert precision_recall(real, fake, k) == pytest.approx(expected)
    assert 0 < expected[1] < expected[0] <= 1


def test_precision_is_lost_off_the_data_and_recall_on_a_part_of_it():
    real = noise(500, 6)
    assert precision_recall(real, real.clone()) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    precision, recall = precision_recall(real, 0.2 * noise(500, 6, seed=1))  # the middle alone
    assert precision > 0.98 and recall < 0.05
    precision, recall = precision_recall(real, 3 * noise(500, 6, seed=1))  # all of it and much more
    assert precision < 0.3 and recall > 0.9


def test_precision_and_recall_need_more_than_k_samples():
    for sizes in ((3, 9), (9, 3)):
        with pytest.raises(ValueError, match=f"k = 3 need more than 3 .*, got {sizes[0]} real and {sizes[1]} fake"):
            precision_recall(*(noise(size, 2) for size in sizes))


def test_nearest_finds_copies_at_distance_zero_and_agrees_with_cdist(monkeypatch):
    monkeypatch.setattr("diffusion.distances.CHUNK", 7)
    among = load("mnist", "train", DATA, download=False).images[:200]
    indices, distances = nearest(among[[3, 150]], among)
    assert indices.tolist() == [3, 150]
    assert distances.tolist() == [0, 0]
    images = load("mnist", "test", DATA, download=False).images[:20]
    indices, distances = nearest(images, among)
    expected = torch.cdist(images.flatten(1).double() / 255, among.flatten(1).double() / 255).min(1)
    assert torch.equal(indices, expected.indices)
    torch.testing.assert_close(distances.double(), expected.values, rtol=1e-5, atol=1e-5)
