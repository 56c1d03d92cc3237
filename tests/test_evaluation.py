import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from diffusion.autoencoder import PixelsConfig
from diffusion.classifier import Classifier, ClassifierConfig
from diffusion.conditioning import WordsConfig
from diffusion.data import ImageData, load, to_unit
from diffusion.evaluation import Report, density_coverage, evaluate, frechet, nearest, psnr, ssim
from diffusion.pipeline import ModelConfig, Pipeline
from diffusion.unet import UNetConfig

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
    monkeypatch.setattr("diffusion.evaluation.CHUNK", 13)
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


def test_nearest_finds_copies_at_distance_zero_and_agrees_with_cdist(monkeypatch):
    monkeypatch.setattr("diffusion.evaluation.CHUNK", 7)
    among = load("mnist", "train", DATA, download=False).images[:200]
    indices, distances = nearest(among[[3, 150]], among)
    assert indices.tolist() == [3, 150]
    assert distances.tolist() == [0, 0]
    images = load("mnist", "test", DATA, download=False).images[:20]
    indices, distances = nearest(images, among)
    expected = torch.cdist(images.flatten(1).double() / 255, among.flatten(1).double() / 255).min(1)
    assert torch.equal(indices, expected.indices)
    torch.testing.assert_close(distances.double(), expected.values, rtol=1e-5, atol=1e-5)


def test_psnr_is_in_decibels_of_a_range_of_two():
    originals = torch.zeros(3, 1, 28, 28)
    images = originals + torch.tensor([0.2, 0.02, 0.002]).view(3, 1, 1, 1)
    assert psnr(images, originals) == pytest.approx((20 + 40 + 60) / 3, abs=1e-3)
    assert psnr(originals, originals) == math.inf


def test_ssim_is_one_for_copies_and_does_not_depend_on_chunks(monkeypatch):
    images = to_unit(load("mnist", "test", DATA, download=False).images[:30])
    worse = (images + 0.3 * noise(*images.shape)).clamp(-1, 1)
    whole = ssim(worse, images)
    monkeypatch.setattr("diffusion.evaluation.CHUNK", 7)
    assert ssim(worse, images) == pytest.approx(whole, abs=1e-5)
    assert ssim(images, images) == pytest.approx(1, abs=1e-6)
    assert whole < 0.9


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return Classifier(ClassifierConfig(width=2)).eval()


def model(vocabulary):
    torch.manual_seed(0)
    network = UNetConfig(
        sample_size=32,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16,),
        attention=(False,),
        mid_attention=False,
        cross_attention_dim=None,
    )
    conditioner = WordsConfig(vocabulary=vocabulary)
    return Pipeline(ModelConfig("tiny", PixelsConfig(), conditioner, network, classes=vocabulary)).eval()


def finish(steps):
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def measure(pipeline, judge, **settings):
    train, test = (load("mnist", split, DATA, download=False) for split in ("train", "test"))
    settings = {"count": 12, "steps": 2, "sampler": "euler", "guidance": 1.0, "seed": 7, "batch": 5} | settings
    return finish(evaluate(pipeline, judge, train, test, **settings))


@pytest.fixture(scope="module")
def outcome(judge):
    return measure(model(tuple("0123456789")), judge)


def test_evaluation_reports_progress_and_then_all_measures(outcome):
    progress, report = outcome
    done, totals = zip(*progress, strict=True)
    assert set(totals) == {12 + 2 * 12 + 600}
    assert list(done) == sorted(set(done))
    assert (done[0], done[-1]) == (0, totals[0])
    assert (report.model, report.count, report.test_count, report.sampler) == ("tiny", 12, 12, "euler")
    for share in (report.accuracy, report.test_accuracy, report.confidence, report.coverage):
        assert 0 <= share <= 1
    assert report.frechet > 0
    assert report.frechet_floor > 0
    assert report.frechet_ratio == pytest.approx(report.frechet / report.frechet_floor)
    assert report.calls == 2
    assert report.seconds > 0


def test_a_lossless_codec_reconstructs_exactly(outcome):
    report = outcome[1]
    assert report.psnr == math.inf
    assert report.ssim == pytest.approx(1, abs=1e-6)
    assert report.reconstruction_accuracy == report.test_accuracy


def test_the_batch_changes_nothing(outcome, judge):
    other = measure(model(tuple("0123456789")), judge, batch=12)[1].to_dict()
    for key, value in outcome[1].to_dict().items():
        if key != "seconds":
            assert other[key] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value), key


def test_models_without_prompts_have_no_accuracy(judge):
    report = measure(model(()), judge, count=6, batch=6)[1]
    assert report.accuracy is None
    assert "no prompts" in report.table()


def test_a_report_survives_json_and_reads_as_a_table(outcome):
    report = outcome[1]
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["psnr"] is None  # infinite
    assert plain["frechet_ratio"] == report.frechet_ratio
    assert set(plain) == {*Report.__dataclass_fields__, "frechet_ratio"}
    table = report.table()
    assert "tiny: 12 generated and 12 real images (euler, 2 steps, guidance 1, seed 7)" in table
    assert f"{report.test_accuracy:.2%}" in table
    assert all(len(line) <= 120 for line in table.splitlines())


def test_misfits_are_found_before_anything_is_generated(judge):
    data = load("mnist", "test", DATA, download=False)
    settings = {"count": 10, "steps": 2, "sampler": "euler", "guidance": 1.0, "seed": 0, "batch": 5}
    digits = model(tuple("0123456789"))
    fashion = load("fashion-mnist", "test", DATA, download=False)
    with pytest.raises(ValueError, match=r"the data set has the classes t-shirt, .* but the classifier knows 0, 1"):
        next(evaluate(digits, judge, fashion, fashion, **settings))
    with pytest.raises(ValueError, match="the model tiny has the classes cat, but"):
        next(evaluate(model(("cat",)), judge, data, data, **settings))
    with pytest.raises(ValueError, match="2 images or more, in batches of 1 or more, got 1 and 5"):
        next(evaluate(digits, judge, data, data, **settings | {"count": 1}))
    small = ImageData(data.images[:, :, :24, :24], data.labels, data.classes)
    with pytest.raises(ValueError, match="the classifier reads images of shape"):
        finish(evaluate(digits, judge, small, small, **settings))
