import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from steps import finish

from diffusion.autoencoder import VAEConfig
from diffusion.data import ImageData, load, to_uint8, to_unit
from diffusion.distances import density_coverage, frechet, kernel_distance, nearest, precision_recall
from diffusion.evaluation import Report, evaluate, psnr, ssim
from diffusion.request import Request
from diffusion.yardstick import pick

DATA = Path(__file__).parent / "data"


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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
    return tiny.judge()


def measure(pipeline, judge, **settings):
    train, test = (load("mnist", split, DATA, download=False) for split in ("train", "test"))
    settings = {"count": 12, "steps": 2, "sampler": "euler", "guidance": 1.0, "seed": 7, "batch": 5} | settings
    return finish(evaluate(pipeline, judge, train, test, **settings))


@pytest.fixture(scope="module")
def outcome(judge):
    return measure(tiny.model(tiny.DIGITS), judge)


def test_evaluation_reports_progress_and_then_all_measures(outcome):
    progress, report = outcome
    done, totals = zip(*progress, strict=True)
    assert set(totals) == {600 + 3 * 12 + 2 * 12}
    assert list(done) == sorted(set(done))
    assert (done[0], done[-1]) == (0, totals[0])
    assert (report.model, report.count, report.test_count, report.sampler) == ("tiny", 12, 12, "euler")
    for name in ("accuracy", "test_accuracy", "confidence", "coverage", "real_coverage", "precision", "real_recall"):
        assert 0 <= getattr(report, name) <= 1, name
    assert report.frechet > 0
    assert report.frechet_floor > 0
    assert report.frechet_ratio == pytest.approx(report.frechet / report.frechet_floor)
    assert report.calls == 2
    assert report.seconds > 0


def test_each_figure_is_taken_of_the_images_that_it_names(judge):
    """All of them again, from the images themselves."""
    pipeline = tiny.model(tiny.DIGITS)
    report = measure(pipeline, judge)[1]
    train, test = (load("mnist", split, DATA, download=False) for split in ("train", "test"))
    prompts = tuple(str(i % 10) for i in range(12))
    request = Request(prompts, count=12, seed=7, sampler="euler", steps=2)
    *_, last = pipeline.generate(request)
    made = to_uint8(pipeline.images(last, request))
    real = test.images[pick(test.labels, 12, 7, balanced=True)]
    peers = train.images[pick(train.labels, 12, 7, balanced=True)]
    fake, held, peer, known = (judge.read(images).features for images in (made, real, peers, train.images))
    assert report.frechet == pytest.approx(frechet(fake, known), rel=1e-3)
    assert report.frechet_floor == pytest.approx(frechet(held, known), rel=1e-6)
    assert report.kernel == pytest.approx(kernel_distance(fake, peer), rel=1e-3)
    assert report.kernel_floor == pytest.approx(kernel_distance(held, peer), rel=1e-6)
    assert (report.density, report.coverage) == density_coverage(held, fake)
    assert (report.real_density, report.real_coverage) == density_coverage(held, peer)
    assert (report.precision, report.recall) == precision_recall(held, fake)
    assert (report.real_precision, report.real_recall) == precision_recall(held, peer)
    assert report.nearest == pytest.approx(nearest(made, train.images)[1].median().item(), rel=1e-3)
    assert report.test_nearest == nearest(real, train.images)[1].median().item() > 0


def test_real_images_are_as_evenly_shared_among_the_classes_as_generated_ones():
    labels = load("mnist", "test", DATA, download=False).labels
    chosen = pick(labels, 55, 3, balanced=True)
    assert sorted(labels[chosen].bincount(minlength=10).tolist()) == [5] * 5 + [6] * 5
    evenly = pick(labels, 55, 3, balanced=False)
    assert len(set(labels[evenly].bincount(minlength=10).tolist())) > 2
    for balanced in (True, False):
        assert sorted(pick(labels, 10_000, 3, balanced).tolist()) == list(range(300))
    assert not torch.equal(chosen, pick(labels, 55, 4, balanced=True))


def test_a_codec_that_loses_nothing_has_no_reconstruction(outcome):
    report = outcome[1]
    assert (report.psnr, report.ssim, report.reconstruction_accuracy) == (None, None, None)
    assert "PSNR" not in report.table() and "reconstructed" not in report.table()


def test_an_autoencoder_is_measured_on_the_test_images(judge):
    lossy = tiny.model(tiny.DIGITS, VAEConfig(latent_channels=1, block_out_channels=(8,)))
    report = measure(lossy, judge)[1]
    test = load("mnist", "test", DATA, download=False)
    real = test.images[pick(test.labels, 12, 7, balanced=True)]
    rebuilt = lossy.reconstruct(to_unit(real))
    assert report.psnr == pytest.approx(psnr(rebuilt, to_unit(real)), rel=1e-4) and report.psnr < 30
    assert report.ssim == pytest.approx(ssim(rebuilt, to_unit(real)), rel=1e-3)
    assert f"{report.psnr:.2f} dB" in report.table()


def test_the_batch_changes_nothing(outcome, judge):
    other = measure(tiny.model(tiny.DIGITS), judge, batch=12)[1].to_dict()
    for key, value in outcome[1].to_dict().items():
        if key != "seconds":
            assert other[key] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value), key


def test_models_without_prompts_have_no_accuracy(judge):
    report = measure(tiny.model(), judge, count=6, batch=6)[1]
    assert report.accuracy is None and report.to_dict()["accuracy"] is None
    assert "no prompts" in report.table()


def test_a_report_survives_json_and_reads_as_a_table(outcome):
    report = outcome[1]
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (
        json.loads(json.dumps(replace(report, frechet_floor=0.0).to_dict(), allow_nan=False))["frechet_ratio"] is None
    )
    assert plain["frechet_ratio"] == report.frechet_ratio
    assert set(plain) == {*Report.__dataclass_fields__, "frechet_ratio"}
    table = report.table()
    assert "tiny: 12 generated and 12 real images (euler, 2 steps, guidance 1, seed 7)" in table
    assert f"{report.test_accuracy:.2%}" in table
    assert all(len(line) <= 120 for line in table.splitlines())


def test_misfits_are_found_before_anything_is_generated(judge):
    data = load("mnist", "test", DATA, download=False)
    settings = {"count": 10, "steps": 2, "sampler": "euler", "guidance": 1.0, "seed": 0, "batch": 5}
    digits = tiny.model(tiny.DIGITS)
    fashion = load("fashion-mnist", "test", DATA, download=False)
    with pytest.raises(ValueError, match=r"the data set has the classes t-shirt, .* but the classifier knows 0, 1"):
        next(evaluate(digits, judge, fashion, fashion, **settings))
    with pytest.raises(ValueError, match="the model tiny has the classes cat, but"):
        next(evaluate(tiny.model(("cat",)), judge, data, data, **settings))
    with pytest.raises(ValueError, match="6 images or more, in batches of 1 or more, got 5 and 5"):
        next(evaluate(digits, judge, data, data, **settings | {"count": 5}))
    small = ImageData(data.images[:, :, :24, :24], data.labels, data.classes)
    with pytest.raises(ValueError, match="the classifier reads images of shape"):
        finish(evaluate(digits, judge, small, small, **settings))
