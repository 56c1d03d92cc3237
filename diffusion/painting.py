"""Pictures to caption, painted on the fly: handwritten digits as lines, drawn anew with a round brush in two colours.

A digit is thinned to the centre lines of its strokes, which every picture leans, sizes, places and strokes in its own
way. The classes that values are drawn from have gaps between them, so that each caption is plainly true.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from diffusion.captions import CHOICES, COLOURS, Description

SIDE = 32
MARGIN = 1  # pixels that stay paper on every side
WIDTHS = {"thin": (0.070, 0.090), "normal": (0.120, 0.145), "thick": (0.180, 0.205)}  # width by the digit's height
TANGENTS = {"left": (-0.45, -0.30), "upright": (-0.08, 0.08), "right": (0.30, 0.45)}  # the top's way right by height
UPRIGHT = (0.0, 0.0, -0.15, -0.15, -0.18, 0.07, -0.21, -0.23, 0.0, -0.24)
"""The lean by moments, -cov(x, y) / var(y) with y down, at which each digit looks upright: the mean of its class in
MNIST, less what writers lean, which 0, 1 and 8 show: upright, their shapes have none."""
HEIGHTS = {"small": (13.0, 15.0), "medium": (19.0, 21.0), "large": (25.0, 27.0)}  # in pixels
OFFSETS = {"small": (6.2, 7.2), "medium": (4.0, 4.5)}  # from the picture's middle in pixels; what is large stays there
STRAY = 1.0  # pixels that a digit in the middle may lie off it, either way
JITTER = 8.0  # levels of 255 by which a channel may miss its colour, either way
ALIKE = ({"red", "orange"}, {"orange", "yellow"}, {"blue", "purple"})
"""Never ink and paper together: they are nearer than 50 in CIELAB, all others farther."""
SPECK = 1.8  # the weight of all points about one of them, 1 by itself and 2.4 at a line's end, up to which it is dust
BLOT = 1.1  # what is wider than this many strokes is a loop filled in, and stays wider by as much
FINER = 2  # by how much the grid on which lines are found is finer than the pixels
CHUNK = 250  # pictures that are traced at a time
BATCH = 8  # pictures that are painted at a time: their distances fit into a processor's cache


class Lines(NamedTuple):
    """Centre lines of N pictures as M points, a picture's own one after the other.

    picture (M,): the row of each point's picture; x, y (M,): pixels; radius (M,): half the stroke's width there.
    """

    picture: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor


def thin(mask: Tensor) -> Tensor:
    """Strokes to lines one pixel wide and as connected as they were: bool (N, H, W) (Guo and Hall 1989, Alg. A1)."""
    lines, (height, width) = mask.clone(), mask.shape[-2:]
    while True:
        before = lines.clone()
        for half in range(2):
            framed = F.pad(lines, (1, 1, 1, 1))
            around = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))  # clockwise from the north
            p2, p3, p4, p5, p6, p7, p8, p9 = (framed[:, y : y + height, x : x + width] for y, x in around)
            parts = (~p2 & (p3 | p4)).byte() + (~p4 & (p5 | p6)) + (~p6 & (p7 | p8)) + (~p8 & (p9 | p2))
            one = (p9 | p2).byte() + (p3 | p4) + (p5 | p6) + (p7 | p8)
            other = (p2 | p3).byte() + (p4 | p5) + (p6 | p7) + (p8 | p9)
            joined = torch.minimum(one, other)
            kept = (p6 | p7 | ~p9) & p8 if half == 0 else (p2 | p3 | ~p5) & p4
            lines = lines & ~((parts == 1) & (joined >= 2) & (joined <= 3) & ~kept)
        if torch.equal(lines, before):
            return lines


def depth(mask: Tensor) -> Tensor:
    """How far each pixel of masks (N, H, W) is from the nearest one outside, in pixels, middle to middle."""
    distances = np.array([distance_transform_edt(inside) for inside in mask.cpu().numpy()], np.float32)
    return torch.from_numpy(distances.reshape(mask.shape)).to(mask.device)


def trace(coverage: Tensor) -> Lines:
    """The centre lines of pictures (N, H, W), from 0, paper, to 1, ink; specks have none.

    A stroke's half-width is the distance of its centre line from what is not ink. All are means over a point and its
    neighbours, weighted by a normal distribution, which takes the steps of the grid out of the lines.
    """
    fine = F.interpolate(coverage[:, None], scale_factor=FINER, mode="bicubic", align_corners=False)[:, 0]
    mask = F.pad(fine > 0.5, (1, 1, 1, 1))
    picture, y, x = thin(mask).nonzero().unbind(1)
    lines = torch.zeros(mask.shape, device=mask.device)
    lines[picture, y, x] = 1.0
    rows, columns = (torch.arange(n, device=mask.device) for n in mask.shape[1:])
    kernel = torch.exp(-(torch.arange(-4.0, 5.0, device=mask.device) ** 2) / (2 * 1.5**2))
    inside = depth(mask)
    weights = torch.stack([lines, lines * columns, lines * rows[:, None], lines * inside], 1)
    sums = F.conv2d(weights, (kernel[:, None] * kernel).expand(4, 1, 9, 9), padding=4, groups=4)
    density, *means = sums[picture, :, y, x].unbind(1)
    line = density > SPECK
    picture, (x, y, radius) = picture[line], (mean[line] / density[line] / FINER for mean in means)
    half = 0.5 / FINER  # from a fine pixel's middle to its edge
    return Lines(picture, x - half - 0.5, y - half - 0.5, radius - half)


def straighten(lines: Lines, count: int) -> tuple[Tensor, Tensor]:
    """Traced digits upright and one high: points (M, 3) and how many of them belong to each of `count` digits.

    A point is x, y from the middle down, and the surplus of its stroke's half-width over BLOT times the median. Upright
    means sheared until the covariance of the points' x and y is 0.
    """
    row, x, y, radius = lines

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(count).index_add(0, row, values)

    def extreme(values: Tensor, which: str) -> Tensor:
        return values.new_zeros(count).scatter_reduce(0, row, values, which, include_self=False)

    counts = row.bincount(minlength=count)
    x, y = (axis - (total(axis) / counts)[row] for axis in (x, y))
    x = x - (total(x * y) / total(y * y).clamp_min(1e-6))[row] * y
    surplus = (radius - BLOT * _medians(radius, row, count)[row]).clamp_min(0)
    top, bottom = extreme(y - surplus, "amin"), extreme(y + surplus, "amax")
    y = y - ((top + bottom) / 2)[row]
    height = (bottom - top).clamp_min(1.0)  # a dash has none
    return torch.stack([x, y, surplus], 1) / height[row, None], counts


def _medians(values: Tensor, row: Tensor, count: int) -> Tensor:
    """The median (count,) of the values (M,) of each row (M,), whose numbers rise; 0 where there are none."""
    counts = row.bincount(minlength=count)
    ordered = values[torch.argsort(row + values / (values.amax() + 1) if len(values) else values)]
    middle = counts.cumsum(0) - counts + (counts - 1).clamp_min(0) // 2
    return torch.where(counts > 0, F.pad(ordered, (0, 1))[middle], 0)


def moments(coverage: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The centre of mass x, y (B,) of coverage (B, H, W) in pixels, and the slant -cov(x, y) / var(y) (B,), y down."""
    down, across = (torch.arange(n, device=coverage.device) for n in coverage.shape[1:])
    mass = coverage.sum((1, 2)).clamp_min(1e-6)
    x, y = (coverage.sum(1) * across).sum(1) / mass, (coverage.sum(2) * down).sum(1) / mass
    across, down = across - x[:, None], down - y[:, None]
    mixed = torch.einsum("bij,bi,bj->b", coverage, down, across)
    return x, y, -mixed / (coverage.sum(2) * down**2).sum(1).clamp_min(1e-6)


class Painter:
    """Paints the digits of MNIST, or of what looks like it, each time in another way.

    images: uint8 (N, 1, H, W), light on dark; labels: int64 (N,), from 0 to 9. held_out: combinations that `draw`
    leaves out. Pictures come on the images' device. 60,000 digits take a minute of one core, and 50 MB.

    Raises:
        ValueError: a picture has no line in it, a label is no digit, or nothing is left to paint of one.
    """

    def __init__(self, images: Tensor, labels: Tensor, held_out: Sequence[Description] = ()) -> None:
        if len(images) == 0 or images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 1:
            raise ValueError(
                f"digits are pictures uint8 (N, 1, H, W), not {images.dtype} {tuple(images.shape)}: give some."
            )
        if len(labels) != len(images) or labels.min() < 0 or labels.max() > 9:
            raise ValueError(f"{len(images)} digits take as many labels from 0 to 9.")
        parts = [straighten(trace(part[:, 0] / 255), len(part)) for part in images.split(CHUNK)]
        points, counts = (torch.cat(part) for part in zip(*parts, strict=True))
        if (counts == 0).any():
            raise ValueError(f"digit {int((counts == 0).nonzero()[0])} is a picture without a line: leave it out.")
        self.labels, self._points, self._counts = labels.cpu(), points, counts
        self._starts = counts.cumsum(0) - counts
        self._plumb()
        self._odds = odds(held_out)
        for label in self.labels.unique().tolist():
            if self._odds[label].sum() == 0:
                raise ValueError(f"what is held out leaves nothing of the digit {label} to paint: hold less out.")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor, source: torch.Generator) -> tuple[Tensor, list[Description]]:
        """Pictures (B, 3, 32, 32) in [-1, 1] of the digits index (B,), and all that there is to say of each."""
        descriptions = self.draw(index, source)
        return self.paint(index, descriptions, source), descriptions

    def draw(self, index: Tensor, source: torch.Generator) -> list[Description]:
        """One description for each digit of index (B,), all that are not held out alike; source is on the CPU."""
        return choose(self.labels[index.cpu()], self._odds, source)

    def paint(self, index: Tensor, descriptions: Sequence[Description], source: torch.Generator) -> Tensor:
        """Pictures (B, 3, 32, 32) in [-1, 1] of the digits index (B,) as they are described, held out or not.

        Raises:
            ValueError: a description leaves something open, names another digit, or is of no picture.
        """
        if len(descriptions) != len(index):
            raise ValueError(f"{len(index)} digits take as many descriptions, not {len(descriptions)}.")
        for label, description in zip(self.labels[index.cpu()].tolist(), descriptions, strict=True):
            _check(description, str(label))
        device = self._points.device
        uniform = torch.rand(11, len(descriptions), generator=source)

        def between(ranges: Sequence[tuple[float, float]], which: int) -> Tensor:
            low, high = torch.tensor(ranges).unbind(1)
            return (low + (high - low) * uniform[which]).to(device)

        height = between([HEIGHTS[d.size] for d in descriptions], 0)
        width = between([WIDTHS[d.stroke] for d in descriptions], 1) * height
        lean = between([TANGENTS[d.lean] for d in descriptions], 2)
        lean = lean + torch.tensor([UPRIGHT[int(d.digit)] for d in descriptions], device=device)
        across = between([_offset(d, "left", "right") for d in descriptions], 3)
        down = between([_offset(d, "top", "bottom") for d in descriptions], 4)
        ink, paper = (torch.tensor([COLOURS[getattr(d, name)] for d in descriptions]) for name in ("ink", "paper"))
        colours = torch.stack([ink, paper]) + JITTER * (2 * uniform[5:].view(2, 3, -1).mT - 1)
        ink, paper = (colours.to(device).clamp(0, 255) / 127.5 - 1)[..., None, None]
        coverage = self._brush(index.to(device), height, width, lean, across, down)
        return paper + coverage[:, None] * (ink - paper)

    def _plumb(self) -> None:
        """Shear all digits until their strokes, and not only the points that these go through, have no slant."""
        for index in torch.arange(len(self), device=self._points.device).split(CHUNK):
            height, none = (torch.full(index.shape, value, device=index.device) for value in (26.0, 0.0))
            *_, slant = moments(self._brush(index, height, 0.13 * height, none, none, none))
            own = slice(int(self._starts[index[0]]), int(self._starts[index[-1]] + self._counts[index[-1]]))
            self._points[own, 0] += slant.repeat_interleave(self._counts[index]) * self._points[own, 1]

    def _brush(
        self, index: Tensor, height: Tensor, width: Tensor, lean: Tensor, across: Tensor, down: Tensor
    ) -> Tensor:
        """How much of each pixel is ink, (B, 32, 32), all lengths in pixels.

        A digit too wide for its place is narrowed: its width is convex in the factor, so the chord keeps it inside.
        """
        counts = self._counts[index]
        nth = torch.minimum(torch.arange(int(counts.max()), device=index.device), counts[:, None] - 1)
        scale = (height - width)[:, None]
        x, y, surplus = (self._points[self._starts[index, None] + nth] * scale[..., None]).unbind(2)
        sheared = -lean[:, None] * y

        def box(x: Tensor) -> tuple[Tensor, Tensor]:
            return (x - surplus).amin(1), (x + surplus).amax(1)

        (left, right), (left_0, right_0) = box(x + sheared), box(sheared)
        room = SIDE - 2 * MARGIN - 2 * across.abs() - width
        wide, narrow = right - left, right_0 - left_0
        x = ((room - narrow) / (wide - narrow).clamp_min(1e-6)).clamp(0, 1)[:, None] * x + sheared
        left, right = box(x)
        x = x + (across - (left + right) / 2)[:, None]
        y = y + down[:, None]
        # |p - c|^2 = |p|^2 - 2 p c + |c|^2 as one product; where strokes are wider, their edge counts as the brush's.
        half = width[:, None] / 2
        brush = torch.stack([-2 * x, -2 * y, x**2 + y**2 + half**2 - (half + surplus) ** 2, torch.ones_like(x)], 1)
        axis = torch.arange(SIDE, device=index.device) - (SIDE - 1) / 2
        row, column = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
        pixels = torch.stack([column, row, torch.ones_like(row), row**2 + column**2], 1)
        distance = torch.cat([(pixels @ part).amin(2) for part in brush.split(BATCH)]).clamp_min(0).sqrt()
        return (0.5 + half - distance).clamp(0, 1).view(-1, SIDE, SIDE)


def choose(labels: Tensor, odds: Tensor, source: torch.Generator) -> list[Description]:
    """One description for each digit of labels (B,), as likely as `odds` says; both and the source are on the CPU."""
    upto = odds.flatten().cumsum(0)
    ends = upto.view(len(odds), -1)[:, -1]
    starts = F.pad(ends, (1, -1))
    chance = torch.rand(len(labels), generator=source, dtype=torch.float64)
    drawn = torch.searchsorted(upto, starts[labels] + chance * (ends - starts)[labels], right=True)
    codes = torch.stack(torch.unravel_index(drawn, odds.shape), 1).tolist()
    return [
        Description(**{name: values[code] for (name, values), code in zip(CHOICES.items(), row, strict=True)})
        for row in codes
    ]


def odds(held_out: Sequence[Description] = (), part: Description | None = None) -> Tensor:
    """How likely each combination of values is, float64, one axis for each of CHOICES; 0 for what is never painted.

    Values are equally likely, as far as what is left out allows: too little contrast, large digits off the middle, what
    is held out, and all of which `part` is not true.
    """
    values = {name: {value: i for i, value in enumerate(choices)} for name, choices in CHOICES.items()}

    def where(description: Description) -> tuple[int | slice, ...]:
        said = description.said()
        return tuple(values[name][said[name]] if name in said else slice(None) for name in CHOICES)

    allowed = torch.ones([len(choices) for choices in CHOICES.values()], dtype=torch.float64)
    for ink, row in values["ink"].items():
        for paper, column in values["paper"].items():
            if ink == paper or {ink, paper} in ALIKE:
                allowed[:, row, column] = 0
    allowed[..., values["size"]["large"], :] *= torch.tensor([place == "middle" for place in CHOICES["place"]])
    for combination in held_out:
        allowed[where(combination)] = 0
    if part is not None:
        true = torch.zeros_like(allowed)
        true[where(part)] = 1
        allowed *= true
    return allowed / allowed.sum(-1, keepdim=True).clamp_min(1)


def _offset(description: Description, before: str, after: str) -> tuple[float, float]:
    """From where to where the digit's middle may lie on one axis."""
    words = description.place.split()
    if before not in words and after not in words:
        return -STRAY, STRAY
    near, far = OFFSETS[description.size]
    return (near, far) if after in words else (-far, -near)


def _check(description: Description, label: str) -> None:
    said = description.said()
    if missing := [name for name in CHOICES if name not in said]:
        raise ValueError(f"a picture needs a whole description; this one says nothing of {', '.join(missing)}.")
    if description.digit != label:
        raise ValueError(f"the picture chosen is a {label}, not the {description.digit} that is described.")
    if description.ink == description.paper or {description.ink, description.paper} in ALIKE:
        raise ValueError(f"{description.ink} on {description.paper} cannot be told apart: choose other colours.")
    if description.size == "large" and description.place != "middle":
        raise ValueError("a large digit fills the picture: its place is the middle.")
