"""Latent spaces, measured: against a codec whose latents are known in closed form, and pictures whose colours are."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion.autoencoder import VAE, Gaussian, VAEConfig
from diffusion.classifier import Classifier
from diffusion.config import parse
from diffusion.data import Painted, load
from diffusion.evaluation import psnr
from diffusion.latent_space import BETWEEN, FEW, NOISE, STRAY, Space, Subject, Survey, plain, stray, survey
from diffusion.reading import read

DATA = Path(__file__).parent / "data"
COUNT, SEED = 40, 3
SHARP = 32 * 32  # pixels


class Affine:
    """A codec that only rescales: z = 2 x + 1, of Gaussians as wide everywhere, with a scale of its own outside."""

    image_shape = latent_shape = (3, 32, 32)
    config = VAEConfig(scaling_factor=0.5)
    width = 0.2

    def posterior(self, images: Tensor) -> Gaussian:
        return Gaussian(2 * images + 1, torch.full_like(images, 2 * math.log(self.width)))

    def decode(self, z: Tensor) -> Tensor:
        return (z / 0.5 - 1) / 2 + 0.01  # not quite, so that there is an error to measure


@pytest.fixture(scope="module")
def painted() -> Painted:
    return Painted(load("mnist", "test", DATA, download=False))


@pytest.fixture(scope="module")
def judge() -> Classifier:
    return Classifier.of("mnist")


@pytest.fixture(scope="module")
def pictures(painted: Painted) -> Tensor:
    """What a survey of this seed paints first."""
    return painted.painter.batch(torch.arange(COUNT), torch.Generator().manual_seed(SEED))[0]


@pytest.fixture(scope="module")
def found(painted: Painted, judge: Classifier) -> tuple[list[tuple[float, float] | Space], Survey]:
    events, steps = [], survey([Subject("affine", 0.5, Affine())], painted, judge, count=COUNT, seed=SEED)
    while True:
        try:
            events.append(next(steps))
        except StopIteration as finished:
            return events, finished.value


def test_figures_are_those_of_the_closed_form(found, pictures):
    (space,) = found[1].spaces
    x = pictures
    assert (space.name, space.kl_weight) == ("affine", 0.5)
    assert space.psnr == pytest.approx(psnr((x + 0.01).clamp(-1, 1), x), abs=1e-4)
    assert space.means == pytest.approx((2 * x.mean((0, 2, 3)) + 1).tolist(), abs=1e-5)
    assert space.deviations == pytest.approx((2 * x.std((0, 2, 3))).tolist(), rel=1e-5)
    assert space.deviation == pytest.approx(2 * x.std().item(), rel=1e-5)
    assert space.width == pytest.approx(Affine.width / (2 * x.std().item()), rel=1e-5)
    own, unit = (torch.distributions.Normal(mean, std) for mean, std in ((2 * x + 1, Affine.width), (0.0, 1.0)))
    kl = torch.distributions.kl_divergence(own, unit).flatten(1).sum(1).mean().item()
    assert space.kl == pytest.approx(kl, rel=1e-5)


def test_pictures_between_and_under_noise_are_what_the_codec_draws_there(found, pictures, painted, judge):
    (space,) = found[1].spaces
    source = torch.Generator().manual_seed(SEED)
    x, descriptions = painted.painter.batch(torch.arange(COUNT), source)
    assert torch.equal(x, pictures)
    added = torch.randn(2, COUNT, 3, 32, 32, generator=source)[0]
    assert found[1].real == plain(x, judge).double().mean()
    assert list(space.between) == [f"{share:g}" for share in BETWEEN]
    for share in BETWEEN:
        faded = (x.lerp(x.roll(1, 0), share) + 0.01).clamp(-1, 1)
        assert space.between[f"{share:g}"] == pytest.approx(plain(faded, judge).double().mean().item(), abs=0.03)
    assert list(space.kept) == [f"{amount:g}" for amount in NOISE]
    for amount in NOISE:
        said = read((x + amount * x.std() * added + 0.01).clamp(-1, 1), judge)
        pairs = list(zip(said, descriptions, strict=True))
        right = sum((a.digit, a.ink, a.paper) == (b.digit, b.ink, b.paper) for a, b in pairs)
        assert space.kept[f"{amount:g}"] == pytest.approx(right / COUNT, abs=0.03)  # rounding may turn one of forty
    assert space.kept["0.1"] > space.kept["0.5"]
    assert space.drawn == 0


def test_progress_ends_at_its_total_and_a_space_is_told_when_it_is_measured(found):
    events, result = found
    *parts, last = events
    assert last is result.spaces[0]
    assert [done for done, _ in parts] == [COUNT * (i + 1) for i in range(len(parts))]
    assert parts[-1][0] == parts[-1][1]
    assert "noise of 0.1" in last.row() and "KL weight 0.5" in last.row()


def test_a_survey_survives_json(found):
    result = found[1]
    assert parse(Survey, json.loads(json.dumps(result.to_dict(), allow_nan=False)), "here") == result


def test_painted_digits_are_plain_and_what_is_between_two_is_not(pictures, judge):
    assert plain(pictures, judge).double().mean() > 0.85
    assert plain(pictures.lerp(pictures.roll(1, 0), 0.5), judge).double().mean() < 0.5
    noise = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert not plain(noise, judge).any()
    assert not plain(torch.zeros(2, 3, 32, 32), judge).any()  # paper alone


def test_colours_off_the_line_are_counted():
    paper, ink = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[200.0, 0.0, 0.0]])
    share = torch.linspace(0, 1, SHARP)
    levels = torch.zeros(1, 3, SHARP)
    levels[0, 0] = 200 * share

    def counted() -> float:
        return stray((levels / 127.5 - 1).view(1, 3, 32, 32), paper, ink).item() * SHARP

    assert counted() == 0
    levels[0, 1, :7], levels[0, 1, 7:20] = STRAY + 0.5, STRAY - 0.5
    assert counted() == pytest.approx(7)
    levels[0, 0, 100:103], levels[0, 0, 103:110] = 200 + STRAY + 0.5, 200 + STRAY - 0.5  # beyond the ink
    assert counted() == pytest.approx(10)
    assert 0 < FEW < 1


def test_what_cannot_be_compared(painted, judge):
    small = VAE(VAEConfig(latent_channels=2, block_out_channels=(8, 8), norm_num_groups=4))
    for subjects, count, message in (
        ([Subject("a", 0, Affine())], 1, r"a survey takes 2 to \d+ pictures here, not 1"),
        ([Subject("a", 0, Affine())], len(painted) + 1, r"a survey takes 2 to"),
        ([Subject("a", 0, Affine()), Subject("b", 0, small)], 4, "latents have one shape"),
        ([Subject("b", 0, small)], 4, "painted pictures are 3 x 32 x 32, but b takes 1 x 28 x 28"),
    ):
        with pytest.raises(ValueError, match=message):
            next(survey(subjects, painted, judge, count=count))
