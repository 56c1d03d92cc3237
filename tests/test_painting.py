from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from diffusion import painting
from diffusion.captions import CHOICES, COLOURS, Description, matches
from diffusion.data import load
from diffusion.painting import (
    ALIKE,
    HEIGHTS,
    SIDE,
    STRAY,
    TANGENTS,
    UPRIGHT,
    WIDTHS,
    Painter,
    moments,
    odds,
    thin,
    trace,
)

DATA = Path(__file__).parent / "data"


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits():
    return load("mnist", "test", DATA, download=False)


@pytest.fixture(scope="module")
def painter(digits):
    return Painter(digits.images, digits.labels)


def black_on_white(digits, **said: str) -> list[Description]:
    """Described so that one minus a colour channel is the coverage, but for the jitter."""
    usual = {"ink": "black", "paper": "white", "stroke": "normal", "lean": "upright", "size": "large"}
    return [Description(**{**usual, "place": "middle", "digit": str(int(label)), **said}) for label in digits]


def covered(pictures: torch.Tensor) -> torch.Tensor:
    """How much of each pixel is ink, from the corner's colour to the farthest."""
    away = (pictures - pictures[:, :, :1, :1]).abs().mean(1)
    return away / away.amax((1, 2), keepdim=True)


def box(coverage: np.ndarray) -> tuple[float, float, float, float]:
    """Left, right, top, bottom of one picture, in pixels from its left and top edge, on a grid ten times as fine."""
    fine = ndimage.zoom(coverage, 10, order=1, grid_mode=True, mode="nearest") >= 0.5
    columns, rows = (np.flatnonzero(fine.any(axis)) / 10 for axis in (0, 1))
    return columns[0], columns[-1] + 0.1, rows[0], rows[-1] + 0.1


# ---------------------------------------------------------------- lines


def test_thinning_keeps_all_parts_and_all_holes(digits):
    masks = digits.images[:100, 0] > 127
    lines = thin(masks)
    assert not (lines & ~masks).any()
    assert lines.sum() < 0.4 * masks.sum()
    eight = np.ones((3, 3))
    for mask, line in zip(masks.numpy(), lines.numpy(), strict=True):
        assert ndimage.label(line, eight)[1] == ndimage.label(mask, eight)[1]
        assert ndimage.label(~line)[1] == ndimage.label(~mask)[1]
    assert torch.equal(thin(lines), lines)


@pytest.mark.parametrize("width", [2, 3, 4, 6])
def test_a_bars_line_and_width_are_the_bars(width):
    bar = torch.zeros(1, 28, 28)
    bar[0, 4:24, 10 : 10 + width] = 1
    lines = trace(bar)
    inner = (lines.y - 13.5).abs() < 5
    torch.testing.assert_close(lines.x[inner], torch.full_like(lines.x[inner], 9.5 + width / 2), atol=0.3, rtol=0)
    assert lines.radius[inner].median() == pytest.approx(width / 2, abs=0.3)
    assert 4 + width / 2 - 2 < lines.y.min() + 0.5 < lines.y.max() + 0.5 < 24 - width / 2 + 2


def test_specks_are_no_lines():
    picture = torch.zeros(1, 28, 28)
    picture[0, 4:24, 10:13] = 1
    clean = trace(picture)
    picture[0, 20, 22] = 1
    torch.testing.assert_close(trace(picture).x, clean.x)


def test_moments_of_a_sheared_bar():
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    bar = (2.0 - (x - 15 + 0.3 * (y - 16)).abs()).clamp(0, 1) * ((y - 16).abs() < 10)
    across, down, slant = moments(bar[None])
    assert (across.item(), down.item(), slant.item()) == pytest.approx((15, 16, 0.3), abs=1e-3)


# ---------------------------------------------------------------- pictures


def test_batches_are_pictures_with_whole_descriptions_of_their_digits(painter, digits):
    index = torch.arange(0, 300, 3)
    pictures, descriptions = painter.batch(index, source())
    assert len(painter) == 300
    assert (pictures.shape, pictures.dtype) == ((100, 3, SIDE, SIDE), torch.float32)
    assert -1 <= pictures.min() < -0.5 < 0.5 < pictures.max() <= 1
    assert [description.digit for description in descriptions] == [str(int(label)) for label in digits.labels[index]]
    assert all(description.said().keys() == CHOICES.keys() for description in descriptions)


def test_a_batch_is_decided_by_its_digits_and_its_source(painter):
    index, before = torch.tensor([5, 5, 80]), torch.get_rng_state()
    pictures, descriptions = painter.batch(index, source(3))
    again, same = painter.batch(index, source(3))
    assert torch.equal(pictures, again)
    assert descriptions == same
    assert not torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures, painter.batch(index, source(4))[0])
    assert torch.equal(before, torch.get_rng_state())


def test_how_many_are_painted_at_a_time_changes_nothing(painter, monkeypatch):
    pictures, _ = painter.batch(torch.arange(20), source(1))
    monkeypatch.setattr(painting, "BATCH", 7)
    torch.testing.assert_close(painter.batch(torch.arange(20), source(1))[0], pictures)


def test_colours_are_those_described_a_little_off(painter):
    pictures, descriptions = painter.batch(torch.arange(300), source(2))
    levels = (pictures + 1) * 127.5
    for picture, description in zip(levels, descriptions, strict=True):
        paper = torch.tensor(COLOURS[description.paper])
        assert (picture[:, 0, 0] - paper).abs().max() <= painting.JITTER + 1e-3
        ink = torch.tensor(COLOURS[description.ink])
        nearest = (picture.flatten(1) - ink[:, None]).abs().amax(0).min()
        assert nearest <= painting.JITTER + 0.1 * (ink - paper).abs().max()


def test_the_margin_is_paper(painter):
    pictures, _ = painter.batch(torch.arange(300), source(7))
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    rim = pictures[:, :, ~inside]
    torch.testing.assert_close(rim, rim[..., :1].expand_as(rim), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", HEIGHTS)
def test_heights_are_as_described(painter, digits, size):
    index = torch.arange(0, 300, 7)
    pictures = painter.paint(index, black_on_white(digits.labels[index], size=size), source())
    low, high = HEIGHTS[size]
    for coverage in covered(pictures).numpy():
        *_, top, bottom = box(coverage)
        assert low - 0.6 < bottom - top < high + 0.4


@pytest.mark.parametrize(("size", "place"), product(("small", "medium"), CHOICES["place"]))
def test_places_are_as_described(painter, digits, size, place):
    index = torch.arange(0, 300, 23)
    pictures = painter.paint(index, black_on_white(digits.labels[index], size=size, place=place), source())
    for coverage in covered(pictures).numpy():
        left, right, top, bottom = box(coverage)
        for middle, before, after in ((left + right, "left", "right"), (top + bottom, "top", "bottom")):
            off = middle / 2 - SIDE / 2
            if {before, after} & set(place.split()):
                assert (off < -3.5) if before in place.split() else (off > 3.5)
            else:
                assert abs(off) < STRAY + 0.3


@pytest.mark.parametrize("lean", TANGENTS)
def test_digits_lean_as_described(painter, digits, lean):
    index = torch.arange(0, 300, 4)
    pictures = painter.paint(index, black_on_white(digits.labels[index], lean=lean, stroke="thin"), source())
    leans = moments(covered(pictures))[2] - torch.tensor(UPRIGHT)[digits.labels[index]]
    low, high = TANGENTS[lean]
    assert leans.min() > low - 0.08
    assert leans.max() < high + 0.08
    assert leans.median() == pytest.approx((low + high) / 2, abs=0.04)


@pytest.mark.parametrize("stroke", WIDTHS)
def test_strokes_are_as_wide_as_described(digits, stroke):
    """A single bar, whose area over its length is its width."""
    bar = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    bar[..., 4:24, 12:16] = 255
    painter = Painter(bar, torch.tensor([1]))
    coverage = covered(painter.paint(torch.zeros(1).long(), black_on_white([1], stroke=stroke), source(1)))[0]
    _, _, top, bottom = box(coverage.numpy())
    width = coverage[12:20].sum().item() / 8
    low, high = WIDTHS[stroke]
    assert low - 0.01 < width / (bottom - top) < high + 0.01


def test_filled_loops_stay_filled():
    """A stroke with a disc at its end: what is wider than the stroke is painted wider too."""
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    shape = ((x - 13.5).abs() < 1.5) & ((y - 13.5).abs() < 10) | ((x - 13.5) ** 2 + (y - 18) ** 2 < 25)
    painter = Painter((shape * 255).byte()[None, None], torch.tensor([6]))
    lean = {"lean": "left"}  # a six has its disc on one side, which this one has not
    coverage = covered(painter.paint(torch.zeros(1).long(), black_on_white([6], stroke="thin", **lean), source()))[0]
    widths = coverage.sum(1)
    assert widths[20:28].max() > 2.5 * widths[6:10].max()


# ---------------------------------------------------------------- what is drawn


def test_values_are_equally_likely(painter):
    drawn = painter.draw(torch.arange(300).repeat(40), source())
    for name in ("stroke", "lean", "size"):
        shares = [sum(getattr(d, name) == value for d in drawn) / len(drawn) for value in CHOICES[name]]
        assert shares == pytest.approx([1 / 3] * 3, abs=0.02)
    small = [d.place for d in drawn if d.size == "small"]
    assert [small.count(place) / len(small) for place in CHOICES["place"]] == pytest.approx([1 / 9] * 9, abs=0.02)
    assert {d.place for d in drawn if d.size == "large"} == {"middle"}
    for name in ("ink", "paper"):
        assert {getattr(d, name) for d in drawn} == set(COLOURS)


def lab(colour: tuple[int, int, int]) -> np.ndarray:
    """CIELAB under D65 of sRGB (IEC 61966-2-1; CIE 15)."""
    value = np.array(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = matrix @ linear / matrix.sum(1)
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_ink_and_paper_can_be_told_apart(painter):
    alike = {
        frozenset(pair)
        for pair in combinations(COLOURS, 2)
        if np.linalg.norm(np.subtract(*map(lab, map(COLOURS.get, pair)))) < 50
    }
    assert alike == {frozenset(pair) for pair in ALIKE}
    pairs = {(d.ink, d.paper) for d in painter.draw(torch.arange(300).repeat(20), source(1))}
    assert pairs == {(a, b) for a, b in product(COLOURS, repeat=2) if a != b and frozenset((a, b)) not in alike}


def test_what_is_held_out_is_never_drawn_and_all_else_as_before(digits):
    held_out = (Description("7", ink="red"), Description("3", paper="blue", place="middle"))
    painter = Painter(digits.images[::10], digits.labels[::10], held_out)
    drawn = painter.draw(torch.arange(30).repeat(300), source())
    assert not [d for d in drawn if any(matches(d, part) for part in held_out)]
    assert {d.ink for d in drawn if d.digit == "7"} == set(COLOURS) - {"red"}
    assert [d for d in drawn if d.digit == "3" and d.paper == "blue"]
    assert [d for d in drawn if d.digit == "4" and d.ink == "red"]
    assert torch.equal(odds(held_out)[4], odds()[4])
    red_seven = black_on_white([7], ink="red")
    at = torch.tensor([painter.labels.tolist().index(7)])
    assert painter.paint(at, red_seven, source()).shape == (1, 3, SIDE, SIDE)  # asked for by name, it is painted


# ---------------------------------------------------------------- errors


def test_pictures_that_cannot_be_are_refused(painter, digits):
    at = torch.tensor([digits.labels.tolist().index(5)])
    for said, words in (
        ({"digit": "6"}, "is a 5, not the 6"),
        ({"lean": None, "place": None}, "says nothing of lean, place"),
        ({"ink": "white"}, "white on white cannot be told apart"),
        ({"ink": "orange", "paper": "yellow"}, "orange on yellow cannot be told apart"),
        ({"place": "top"}, "a large digit fills the picture"),
    ):
        with pytest.raises(ValueError, match=rf"{words}.*\.$"):
            painter.paint(at, black_on_white([5], **said), source())
    with pytest.raises(ValueError, match="1 digits take as many descriptions, not 2"):
        painter.paint(at, black_on_white([5, 5]), source())


def test_digits_that_cannot_be_painted_are_refused(digits):
    images, labels = digits.images[:3].clone(), digits.labels[:3]
    for wrong in (images.float(), images[:, 0], images[:0], images.expand(-1, 3, -1, -1)):
        with pytest.raises(ValueError, match=r"^digits are pictures uint8 \(N, 1, H, W\), not"):
            Painter(wrong, labels)
    for wrong in (labels[:2], labels - 20, labels + 10):
        with pytest.raises(ValueError, match="3 digits take as many labels from 0 to 9"):
            Painter(images, wrong)
    images[1] = 0
    with pytest.raises(ValueError, match="digit 1 is a picture without a line: leave it out"):
        Painter(images, labels)
    nothing = [Description(str(int(labels[0])), ink=ink) for ink in COLOURS]
    with pytest.raises(ValueError, match=f"nothing of the digit {int(labels[0])} to paint"):
        Painter(digits.images[:1], labels[:1], nothing)
