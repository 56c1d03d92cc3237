"""What a picture of a digit shows, read from its pixels alone: the reverse of `painting`, to hold models to prompts."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.captions import CHOICES, COLOURS, Description
from diffusion.classifier import Classifier
from diffusion.painting import MARGIN, SIDE, UPRIGHT, depth, moments

CHUNK = 64  # pictures at a time
FAINT = 40.0  # levels of 255: where nothing is as far from the paper as this, nothing is drawn
HAZE = 0.1  # coverage below which a pixel is paper: far from the digit, a hundredth of ink would sway its moments
DARKEST = 6  # pixels, those farthest from the paper, whose median is the ink
SCALE = 4  # how much finer the grid is on which strokes are measured
BOX = 20.0  # pixels of a digit's longer side in MNIST, whose pictures have 28 x 28
TILT = 0.12  # the mean slant of MNIST's digits
STEPS = {"stroke": (0.099, 0.151), "lean": (-0.19, 0.19), "size": (17.0, 23.0), "place": (-2.5, 2.5)}
"""Where the next class begins: in the middle of the gaps between painted ones, for strokes a hundredth below, by which
what is measured of them falls short."""


class Measures(NamedTuple):
    """What can be measured in B pictures, without knowing the digit.

    paper, ink (B, 3): RGB from 0 to 255; coverage (B, 32, 32): how much of each pixel is ink, from 0 to 1; drawn (B,):
    whether there is anything but paper; height (B,): of the digit in pixels; stroke (B,): its width by the height;
    slant (B,): -cov(x, y) / var(y), y down; offset (B, 2): right and down from the picture's middle, in pixels.
    """

    paper: Tensor
    ink: Tensor
    coverage: Tensor
    drawn: Tensor
    height: Tensor
    stroke: Tensor
    slant: Tensor
    offset: Tensor


@torch.no_grad()
def read(pictures: Tensor, classifier: Classifier) -> list[Description]:
    """Describe pictures (B, 3, 32, 32) in [-1, 1]; classifier: of MNIST's digits, where the pictures are.

    Where nothing is drawn, only the paper is said; any other picture gets a whole description, be it noise.
    Raises ValueError for pictures of another shape.
    """
    return [said for part in pictures.split(CHUNK) for said in _describe(measure(part), classifier)]


def agreement(seen: Sequence[Description], asked: Sequence[Description]) -> dict[str, Tensor]:
    """Attribute -> for each picture of which it was asked, in order, whether it was seen, bool.

    "all" -> for each picture of which anything was asked, whether all of it was seen.
    Raises ValueError for unequal numbers.
    """
    if len(seen) != len(asked):
        raise ValueError(f"{len(seen)} pictures were read, but {len(asked)} descriptions asked for: give as many.")
    pairs = [(a.said(), b.said()) for a, b in zip(seen, asked, strict=True)]
    each = {name: [a.get(name) == b[name] for a, b in pairs if name in b] for name in CHOICES}
    each["all"] = [b.items() <= a.items() for a, b in pairs if b]
    return {name: torch.tensor(answers, dtype=torch.bool) for name, answers in each.items()}


def measure(pictures: Tensor) -> Measures:
    """Measure pictures (B, 3, 32, 32) in [-1, 1].

    Paper is the border's median. Coverage is a pixel's part of the way from the paper to the ink, along the axis of all
    that is not paper, in which far pixels count most; below HAZE it is none. Edges lie where it crosses one half.
    Raises ValueError for pictures of another shape.
    """
    if pictures.shape[1:] != (3, SIDE, SIDE):
        raise ValueError(f"pictures to read are (B, 3, {SIDE}, {SIDE}), not {tuple(pictures.shape)}.")
    pixels = (pictures.float().nan_to_num().clamp(-1, 1) + 1).flatten(2) * 127.5
    border = torch.ones(SIDE, SIDE, dtype=torch.bool, device=pictures.device)
    border[MARGIN:-MARGIN, MARGIN:-MARGIN] = False
    paper = pixels[..., border.flatten()].median(2).values
    away = pixels - paper[..., None]
    axis = F.normalize((away * away.norm(dim=1, keepdim=True) ** 2).sum(2), dim=1)
    along = (away * axis[..., None]).sum(1)
    reach, which = along.topk(DARKEST, dim=1)
    ink = pixels.gather(2, which[:, None].expand(-1, 3, -1)).median(2).values
    contrast = reach.median(1).values
    coverage = F.threshold(along / contrast.clamp_min(1e-6)[:, None], HAZE, 0).clamp_max(1).view(-1, SIDE, SIDE)
    top, bottom = _edges(coverage.amax(2))
    left, right = _edges(coverage.amax(1))
    offset = torch.stack([left + right, top + bottom], 1) / 2 - (SIDE - 1) / 2
    height = bottom - top
    *_, slant = moments(coverage)
    return Measures(paper, ink, coverage, contrast > FAINT, height, _width(coverage) / height, slant, offset)


def _edges(profile: Tensor) -> tuple[Tensor, Tensor]:
    """Where profiles (B, 32) cross one half first and last, between pixels; a pixel apart at the least."""

    def first(values: Tensor) -> Tensor:
        padded = F.pad(values, (1, 0))
        after = (padded >= 0.5).int().argmax(1, keepdim=True).clamp_min(1)
        high, low = padded.gather(1, after), padded.gather(1, after - 1)
        return (after - 1 - ((high - 0.5) / (high - low).clamp_min(1e-6)).clamp(0, 1)).squeeze(1)

    start, end = first(profile), SIDE - 1 - first(profile.flip(1))
    return start, torch.maximum(end, start + 1)


def _width(coverage: Tensor) -> Tensor:
    """The width (B,) of strokes in pixels: twice the median height of the ridges of the distance to what is no ink."""
    fine = F.interpolate(coverage[:, None], scale_factor=SCALE, mode="bicubic", align_corners=False)[:, 0]
    ink = F.pad(fine > 0.5, (1, 1, 1, 1))
    inside = depth(ink)
    ridge = ink & (inside >= F.max_pool2d(inside[:, None], 3, stride=1, padding=1)[:, 0])
    middle = torch.where(ridge, inside, torch.nan).flatten(1).nanmedian(1).values.nan_to_num(0.5)
    return (2 * middle - 1) / SCALE  # to the edge of the first pixel outside, not its middle


def lay_out(coverage: Tensor) -> Tensor:
    """Digits (B, 1, 28, 28) in [-1, 1] as MNIST has them, all slanted like its mean, from coverage (B, 32, 32).

    The longer side of a digit's box is 20 pixels, and its centre of mass in the middle (LeCun et al. 1998, Sec. III.A).
    """
    x, y, slant = moments(coverage)

    def view(size: int, scale: Tensor) -> Tensor:
        """Size x size pixels about the centre of mass, `scale` of the coverage's apart."""
        axis = torch.arange(size, device=coverage.device) - (size - 1) / 2
        down, across = torch.meshgrid(axis, axis, indexing="ij")
        down, across = (scale[:, None, None] * part for part in (down, across))
        across = across - (slant - TILT)[:, None, None] * down
        grid = torch.stack([across + x[:, None, None], down + y[:, None, None]], -1)
        return F.grid_sample(coverage[:, None], (2 * grid + 1) / SIDE - 1, align_corners=False)

    straight = view(SIDE, torch.ones_like(x))[:, 0]
    sides = [end - start for start, end in (_edges(straight.amax(1)), _edges(straight.amax(2)))]
    return 2 * view(28, torch.maximum(*sides) / BOX) - 1


def _describe(measures: Measures, classifier: Classifier) -> list[Description]:
    digits = classifier(lay_out(measures.coverage)).argmax(1)
    palette = torch.tensor(list(COLOURS.values())).to(measures.ink)
    lean = measures.slant - torch.tensor(UPRIGHT).to(measures.slant)[digits]

    def level(values: Tensor, name: str) -> list[int]:
        return torch.bucketize(values.contiguous(), torch.tensor(STEPS[name]).to(values)).tolist()

    columns = {
        "digit": digits.tolist(),
        "ink": torch.cdist(measures.ink, palette).argmin(1).tolist(),
        "paper": torch.cdist(measures.paper, palette).argmin(1).tolist(),
        "stroke": level(measures.stroke, "stroke"),
        "lean": level(lean, "lean"),
        "size": level(measures.height, "size"),
    }
    across, down = (level(part, "place") for part in measures.offset.unbind(1))
    names = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    descriptions = []
    for row, i, j, drawn in zip(names, down, across, measures.drawn.tolist(), strict=True):
        said = {name: CHOICES[name][code] for name, code in row.items() if drawn or name == "paper"}
        place = " ".join(filter(None, (("top", "", "bottom")[i], ("left", "", "right")[j]))) or "middle"
        descriptions.append(Description(**said, place=place if drawn else None))
    return descriptions
