"""What the Compare tab computes: samplers against budgets, all from one noise, each timed, read and measured."""

import math
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from diffusion.distances import kernel_distance
from diffusion.request import Request, check_number
from diffusion.samplers import SAMPLERS, Step
from diffusion.ui.controls import request, whole
from diffusion.ui.links import prompts
from diffusion.ui.studio import Result, Studio
from diffusion.ui.widgets import EACH

CALLS, STEPS = "Network calls", "Steps"
"""What all cells of a column have in common."""

MOST_COLUMNS, MOST_PICTURES = 8, 60
DRAWS = 40  # of real pictures in the place of generated ones
EXAMPLE = "5, 10, 20, 50"


@dataclass(frozen=True)
class Cell:
    """One sampler in one column; None for a sampler that decides on its steps itself."""

    sampler: str
    column: int | None
    request: Request


@dataclass(frozen=True)
class Score:
    """How a cell came out. Measures are None where nothing can be measured, `right` also where nothing was asked."""

    result: Result
    right: int | None  # pictures that are read as prompted
    confidence: float | None  # the classifier's, in the mean; of what is measured there is none
    distance: float | None  # to real pictures, see Ruler

    @property
    def count(self) -> int:
        return self.result.request.count


@dataclass(frozen=True)
class Ruler:
    """Features of real pictures (N, F), and the kernel distance to them of as many other real ones: mean, deviation."""

    real: Tensor
    floor: float
    spread: float

    def distance(self, features: Tensor) -> float:
        """How much further away pictures (B, F) are than as many real ones: 0 in the mean for what is as good as real.

        The floor takes away what the kernel distance owes to the classes: pictures of prescribed classes, one of each
        perhaps, differ more among themselves than the independent ones that it is unbiased for.
        """
        return kernel_distance(features, self.real) - self.floor


@dataclass(frozen=True)
class Contest:
    """A table, filled as far as it has scores: those of the first cells, which stand in the order they are run in."""

    model: str
    read: bool  # whether pictures are read back
    run: str
    by: str
    samplers: tuple[str, ...]
    columns: tuple[int, ...]
    cells: tuple[Cell, ...]
    scores: tuple[Score, ...] = ()
    ruler: Ruler | None = None

    @property
    def done(self) -> bool:
        return len(self.scores) == len(self.cells)

    def find(self, row: object, column: object) -> int:
        """The index of a finished cell by its place in the table; a cell that fills its row is in every column.

        Raises:
            ValueError: nothing is there, or not yet.
        """
        for index, cell in enumerate(self.cells[: len(self.scores)]):
            if (self.samplers.index(cell.sampler), cell.column or 0) == (row, column):
                return index
        raise ValueError("There is no finished cell there: choose one that shows its pictures.")

    def best(self) -> dict[str, int]:
        """For each measure the index of the best cell, among equals that with the fewest calls; none of a lone cell."""
        if len(self.scores) < 2:
            return {}
        goodness = {
            "right": lambda score: score.right,
            "confidence": lambda score: score.confidence,
            "distance": lambda score: None if score.distance is None else -score.distance,
            "seconds": lambda score: -score.result.seconds,
        }
        return {
            name: max(range(len(self.scores)), key=lambda i: (good(self.scores[i]), -self.scores[i].result.calls))
            for name, good in goodness.items()
            if good(self.scores[0]) is not None
        }


def plan(
    studio: Studio, samplers: object, columns: object, by: object, digit: str, guidance: object, count: object,
    seed: object, run: str = "",
) -> Contest:  # fmt: skip
    """The empty table that the controls ask for, cheapest columns first.

    Raises:
        ValueError: one sentence on what cannot be, or is more than one visitor may ask for here.
    """
    if by not in (CALLS, STEPS):
        raise ValueError(f"Columns can be equal in {CALLS.lower()} or in {STEPS.lower()}, not in {str(by)[:40]!r}.")
    names, budgets = _names(samplers), _budgets(columns, 2 if by == CALLS else 1, studio.limits.steps)
    most = min(MOST_PICTURES, studio.limits.count)
    check_number("The number of pictures", count := whole("The number of pictures", count), 2, most, whole=True)
    if studio.classes and digit != EACH and not studio.accepts(digit):
        raise ValueError(f"The prompt must be one of {', '.join(studio.classes)}, not {str(digit)[:40]!r}.")
    prompt = prompts(digit, count, studio.suggestions) if studio.suggestions else ""

    def asked(sampler: str, steps: int) -> Request:
        return request(prompt, count, sampler, steps, guidance if studio.suggestions else 1, seed)

    def steps(sampler: str, budget: int) -> int:
        return budget // SAMPLERS[sampler].calls_per_step if by == CALLS else budget

    paced = [name for name in names if SAMPLERS[name].calls_per_step]
    own = [name for name in names if name not in paced]
    cells = [Cell(name, k, asked(name, steps(name, budget))) for k, budget in enumerate(budgets) for name in paced]
    cells += [Cell(name, None, asked(name, studio.defaults["steps"])) for name in own]
    contest = Contest(
        studio.name, studio.classifier is not None, run or uuid.uuid4().hex, by, names, budgets, tuple(cells)
    )
    _check(studio, contest)
    return contest


def _names(samplers: object) -> tuple[str, ...]:
    """The samplers in the order of SAMPLERS, each once."""
    if not isinstance(samplers, (list, tuple)) or not samplers:
        raise ValueError("Choose at least one sampler: each is a row of the table.")
    wanted = {Request(sampler=sampler).sampler for sampler in samplers}  # which checks the name
    return tuple(name for name in SAMPLERS if name in wanted)


def _budgets(text: object, least: int, most: int) -> tuple[int, ...]:
    """The numbers in a text like EXAMPLE, rising, each once."""
    words = text.replace(",", " ").replace(";", " ").split() if isinstance(text, str) else []
    wrong = [word for word in words if not (word.isdecimal() and len(word) < 10 and least <= int(word) <= most)]
    if not words or wrong:
        what = f"not {wrong[0][:20]!r}" if wrong else "but there are none"
        raise ValueError(f"Columns are whole numbers from {least} to {most}, like {EXAMPLE}; {what}.")
    budgets = sorted(set(map(int, words)))
    if len(budgets) > MOST_COLUMNS:
        raise ValueError(f"At most {MOST_COLUMNS} columns, not {len(budgets)}.")
    return tuple(budgets)


def _check(studio: Studio, contest: Contest) -> None:
    """Every cell by itself within the limits, and all together too."""
    for cell in contest.cells:
        studio.check(cell.request)
    work, count = sum(studio.work(cell.request) for cell in contest.cells), contest.cells[0].request.count
    if work > studio.limits.work:
        raise ValueError(
            f"{len(contest.cells)} cells of {count} pictures are {work:,} network evaluations; "
            f"at most {studio.limits.work:,} at once here: take fewer samplers, columns or pictures."
        )


def seconds(studio: Studio, contest: Contest) -> float:
    """How long a whole table will take here."""
    return sum(studio.seconds(cell.request) for cell in contest.cells)


def fill(studio: Studio, contest: Contest) -> Iterator[tuple[Contest, Step | None]]:
    """Runs a table's cells one after the other: every step of the one that is running, and None after each cell.

    Closing the iterator stops the engine. ValueError where the whole takes longer than one visitor's run may.
    """
    spent = 0.0
    if studio.yardstick is not None:
        contest = replace(contest, ruler=ruler(studio, contest.cells[0].request.prompts))
    for cell in contest.cells:
        took, steps = 0.0, studio.run(cell.request)
        try:
            for step, instant in _timed(steps):
                took, spent = took + instant, spent + instant
                yield contest, step
                if spent > studio.limits.seconds:
                    raise ValueError(f"The table took more than {studio.limits.seconds:g} s; take fewer cells.")
        finally:
            steps.close()
        result = studio.result(cell.request, step, took)
        contest = replace(contest, scores=(*contest.scores, score(studio, contest.ruler, result)))
        yield contest, None


def _timed(steps: Iterator[Step]) -> Iterator[tuple[Step, float]]:
    """Each step and the seconds that it took, without those that the consumer spends on it."""
    while True:
        began = time.perf_counter()
        step = next(steps, None)
        if step is None:
            return
        yield step, time.perf_counter() - began


def score(studio: Studio, ruler: Ruler | None, result: Result) -> Score:
    """What is read back from a cell's pictures, from all of them."""
    if None in result.readings:
        return Score(result, None, None, None)
    answers = [reading.answers(prompt) for prompt, reading in zip(result.request.prompts, result.readings, strict=True)]
    sure = [reading.confidence for reading in result.readings]
    return Score(
        result,
        right=None if None in answers else sum(answers),
        confidence=None if None in sure else sum(sure) / len(sure),
        distance=ruler and ruler.distance(_features(studio, torch.tensor(result.pictures))),
    )


def ruler(studio: Studio, asked: tuple[str, ...]) -> Ruler:
    """Half of the test pictures of the classes asked for, and how far from them draws from the other half are.

    Each draw is of the very classes asked for, where none is asked for of any; so both are the same mixture.
    """
    kinds, (others, real) = studio.yardstick.config.classes, _test_features(studio).chunk(2, dim=1)
    known = [kinds.index(prompt) if prompt else None for prompt in asked]
    used = sorted(set(known)) if None not in known else range(len(kinds))
    real = real[list(used)].flatten(0, 1)
    # All pictures of a lone class would be one draw, again and again.
    most = others.shape[1] if len(used) > 1 else others.shape[1] // 2
    generator = torch.Generator().manual_seed(0)
    distances = []
    for _ in range(DRAWS):
        chance = torch.randint(len(kinds), (len(asked),), generator=generator).tolist()
        labels = Counter(other if label is None else label for label, other in zip(known, chance, strict=True))
        order = torch.randperm(others.shape[1], generator=generator)[:most]
        drawn = torch.cat([others[label][order[:times]] for label, times in labels.items()])
        distances.append(kernel_distance(drawn, real))
    found = torch.tensor(distances, dtype=torch.float64)
    return Ruler(real, found.mean().item(), found.std().item())


@cache
def _test_features(studio: Studio) -> Tensor:
    """The classifier's features of the test pictures that come with the app, (classes, pictures, F)."""
    return _features(studio, torch.tensor(studio.examples)).unflatten(0, studio.examples.shape[:2])


def _features(studio: Studio, pictures: Tensor) -> Tensor:
    """The classifier's features of uint8 pictures (..., H, W) in a row."""
    return studio.yardstick.read(pictures.reshape(-1, 1, *pictures.shape[-2:])).features


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The shares that `right` of `count` is compatible with, at 95 % for this z (Wilson 1927)."""
    centre = (right + z**2 / 2) / (count + z**2)
    reach = z * math.sqrt(right * (count - right) / count + z**2 / 4) / (count + z**2)
    return max(0.0, centre - reach), min(1.0, centre + reach)
