import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusion.captions import CHOICES, COLOURS, Description
from diffusion.classifier import Classifier
from diffusion.data import load
from diffusion.painting import SIDE, Painter
from diffusion.reading import agreement, lay_out, measure, read

DATA = Path(__file__).parent / "data"
ROW, COLUMN = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")


def bar(left: float, right: float, top: float, bottom: float, lean: float = 0.0) -> torch.Tensor:
    """How much of each pixel (32, 32) a bar covers, exactly for an upright one; lengths in pixels from the corner."""
    shift = lean * ((top + bottom) / 2 - ROW)
    across, down = (
        ((0.5 + COLUMN - shift - left).clamp(0, 1) * (0.5 + right - COLUMN + shift).clamp(0, 1)),
        ((0.5 + ROW - top).clamp(0, 1) * (0.5 + bottom - ROW).clamp(0, 1)),
    )
    return across * down


def picture(coverage: torch.Tensor, ink: str = "red", paper: str = "white") -> torch.Tensor:
    """One picture (1, 3, 32, 32)."""
    ink, paper = (torch.tensor(COLOURS[name])[:, None, None] / 127.5 - 1 for name in (ink, paper))
    return (paper + coverage * (ink - paper))[None]


@pytest.fixture(scope="module")
def judge():
    return Classifier.of("mnist")


@pytest.fixture(scope="module")
def painted():
    data = load("mnist", "test", DATA, download=False)
    painter = Painter(data.images, data.labels)
    return painter.batch(torch.arange(300), torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def seen(painted, judge):
    return read(painted[0], judge)


def test_painted_pictures_are_read_as_they_were_described(painted, seen):
    found = agreement(seen, painted[1])
    assert found.keys() == {*CHOICES, "all"}
    assert all(len(answers) == 300 for answers in found.values())
    shares = {name: answers.float().mean().item() for name, answers in found.items()}
    bounds = {"digit": 0.98, "ink": 0.99, "paper": 1, "stroke": 0.98, "lean": 0.98, "size": 0.99, "place": 0.99}
    for name, bound in bounds.items():
        assert shares[name] >= bound, (name, shares[name])
    assert shares["all"] >= 0.96


def test_other_descriptions_are_not_read(painted, seen):
    """What agrees by chance, of pictures with their neighbours' descriptions."""
    found = agreement(seen, painted[1][1:] + painted[1][:1])
    chance = {"ink": 1 / 9, "paper": 1 / 9, "stroke": 1 / 3, "lean": 1 / 3, "size": 1 / 3, "place": 0.25}
    for name, share in chance.items():
        assert found[name].float().mean().item() == pytest.approx(share, abs=0.13), name
    assert not found["all"].any()


def test_agreement_is_about_what_was_asked():
    red, blue = Description("7", "red", "white", size="small"), Description("7", "blue", "white")
    found = agreement([red, blue, blue], [Description("7"), Description("7", "red"), Description(None, "blue")])
    assert {name: answers.tolist() for name, answers in found.items() if len(answers)} == {
        "digit": [True, True],
        "ink": [False, True],
        "all": [True, False, True],
    }
    assert agreement([Description()], [red])["all"].tolist() == [False]
    assert agreement([red], [Description()])["all"].tolist() == []
    with pytest.raises(ValueError, match="1 pictures were read, but 2 descriptions asked for"):
        agreement([red], [red, blue])


@pytest.mark.parametrize("width", [1.0, 1.5, 2.2, 3.0, 4.0])
def test_a_bar_is_measured_as_it_is(width):
    coverage = bar(13.3, 13.3 + width, 5.2, 24.6)
    found = measure(picture(coverage))
    assert found.drawn.all()
    assert found.height.item() == pytest.approx(19.4, abs=0.2)
    assert (found.stroke * found.height).item() == pytest.approx(width, abs=0.35)
    middle = (13.3 + width / 2 - 16, (5.2 + 24.6) / 2 - 16)
    assert found.offset[0].tolist() == pytest.approx(middle, abs=0.15)
    # What no pixel is covered by wholly is measured by the one that is covered most.
    torch.testing.assert_close(found.coverage[0], coverage / coverage.max(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("lean", [-0.4, -0.1, 0.0, 0.25, 0.5])
def test_a_leaning_bar_has_its_slant(lean):
    assert measure(picture(bar(14, 17, 4, 28, lean))).slant.item() == pytest.approx(lean, abs=0.01)


def test_faint_noise_on_the_paper_does_not_sway_what_is_measured(painted):
    """Decoders leave some. Were it counted as ink, slants would be off by 0.07 in the mean."""
    noise = 0.03 * torch.randn(painted[0].shape, generator=torch.Generator().manual_seed(0))
    clean, noisy = measure(painted[0]), measure(painted[0] + noise)
    off = (noisy.slant - clean.slant).abs()
    assert off.mean() < 0.005 and off.quantile(0.99) < 0.03, (off.mean(), off.quantile(0.99))
    assert (noisy.stroke - clean.stroke).abs().mean() < 0.004


@pytest.mark.parametrize(("ink", "paper"), [("white", "black"), ("yellow", "purple"), ("pink", "white")])
def test_colours_are_measured_even_of_thin_strokes(ink, paper):
    found = measure(picture(bar(13.1, 14.1, 6, 26, 0.1), ink, paper))
    assert found.paper[0].tolist() == pytest.approx(COLOURS[paper], abs=1)
    distance = math.dist(found.ink[0].tolist(), COLOURS[ink])
    assert distance < 0.2 * math.dist(COLOURS[ink], COLOURS[paper])


def test_digits_are_laid_out_as_mnist_has_them():
    laid = lay_out(bar(3, 6, 2, 15, 0.3)[None])
    assert laid.shape == (1, 1, 28, 28)
    ink = (laid[0, 0] + 1) / 2
    axis = torch.arange(28) - 13.5
    assert (ink.sum(0) * axis).sum() / ink.sum() == pytest.approx(0, abs=0.1)
    assert (ink.sum(1) * axis).sum() / ink.sum() == pytest.approx(0, abs=0.1)
    assert ((ink.amax(1) > 0.5).sum()).item() == pytest.approx(20, abs=1)


def test_mnists_own_digits_are_still_read(judge):
    data = load("mnist", "test", DATA, download=False)
    coverage = torch.nn.functional.pad(data.images[:, 0] / 255, (2, 2, 2, 2))
    with torch.no_grad():
        answers = judge(lay_out(coverage)).argmax(1)
    assert (answers == data.labels).float().mean() > 0.985


def test_reading_does_not_depend_on_the_batch(painted, seen, judge):
    assert read(painted[0][40:43], judge) == seen[40:43]
    assert read(painted[0][:0], judge) == []


def test_empty_paper_shows_only_its_colour(judge):
    for name in COLOURS:
        assert read(picture(torch.zeros(SIDE, SIDE), paper=name), judge) == [Description(paper=name)]
    assert read(torch.full((1, 3, SIDE, SIDE), -1.0), judge) == [Description(paper="black")]


@pytest.mark.parametrize(
    "hostile",
    [
        torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),
        torch.full((2, 3, SIDE, SIDE), math.nan),
        torch.full((2, 3, SIDE, SIDE), math.inf),
        1e30 * torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)),
        picture((ROW.int() + COLUMN.int()) % 2 * 1.0),
        picture((COLUMN < 16) * 1.0),
        picture(((ROW == 3.5) & (COLUMN == 3.5)) * 1.0),
        torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)).half(),
    ],
    ids=["noise", "nan", "infinite", "huge", "chequered", "halves", "dot", "half precision"],
)
def test_hostile_pictures_are_read_as_something(hostile, judge):
    for description in read(hostile, judge):
        assert replace(description) == description
        assert description.paper in COLOURS
        assert description.said().keys() in (CHOICES.keys(), {"paper"})


def test_pictures_of_other_shapes_are_refused(judge):
    with pytest.raises(ValueError, match=r"pictures to read are \(B, 3, 32, 32\), not \(2, 1, 28, 28\)"):
        read(torch.zeros(2, 1, 28, 28), judge)
