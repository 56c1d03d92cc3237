"""Whether pictures obey the words: prompts drawn by chance, pictures made from them, and what is read back in those."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion.captions import CHOICES, Description, caption, forget, matches, plainly
from diffusion.classifier import Classifier
from diffusion.painting import choose, odds
from diffusion.pipeline import Pipeline
from diffusion.reading import agreement, read
from diffusion.request import Request

GUIDANCES = (1.0, 2.0, 3.0, 5.0, 7.5)
TRAINED, HELD_OUT = "trained", "held out"
OPEN, STEERED = "open", "steered"
"""Kinds of prompts: of combinations that are painted in training, of those that are not; and of prompts that leave an
attribute open, without and with a negative prompt that steers away from one value of it."""


class Asked(NamedTuple):
    """A prompt, what it asks for, and what it steers away from."""

    prompt: str
    description: Description
    negative: str = ""


class Open(NamedTuple):
    """An attribute that a prompt leaves open, and the value of it that is to be avoided."""

    name: str
    value: str
    asked: Asked


@dataclass(frozen=True)
class Score:
    """How often what was asked for was read back, for one kind of prompts at one guidance.

    shares: attribute, or "all" of them -> the share of the prompts asking for it that got it. counts: how many ask.
    count: of all prompts, some of which may ask for nothing.
    """

    kind: str
    guidance: float
    count: int
    shares: dict[str, float]
    counts: dict[str, int]

    def row(self) -> str:
        """The score as a line."""
        shares = "  ".join(f"{name} {share:.2%}" for name, share in self.shares.items())
        return f"{self.kind:<9} guidance {self.guidance:<4g} {self.count} prompts:  {shares}"


@dataclass(frozen=True)
class Avoided:
    """What negative prompts do at one guidance.

    without, given: attribute -> how often the value to steer away from shows, without and with the negative prompt;
    counts: attribute -> of how many pictures.
    """

    guidance: float
    without: dict[str, float]
    given: dict[str, float]
    counts: dict[str, int]

    @property
    def reduction(self) -> float:
        """By how much the shares of all attributes together fall, relative to no negative prompt."""
        before = sum(self.without.values())
        return 1 - sum(self.given.values()) / before if before else 0.0

    def row(self) -> str:
        """The figures as a line."""
        shares = "  ".join(f"{name} {self.without[name]:.1%} to {self.given[name]:.1%}" for name in self.without)
        return f"negative  guidance {self.guidance:<4g} less by {self.reduction:.1%}:  {shares}"


@dataclass(frozen=True)
class Combination:
    """How often one held-out combination shows where prompts ask for it, at one guidance.

    said: the combination in plain words. trained: the same share over trained prompts, of the combinations of the same
    attributes that they ask for; None where none asks for all of these.
    """

    said: str
    guidance: float
    count: int
    share: float
    trained: float | None

    def row(self) -> str:
        """The figures as a line."""
        alike = "" if self.trained is None else f"; trained ones like it {self.trained:.2%}"
        return f"held out  guidance {self.guidance:<4g} {self.said}: {self.share:.2%} of {self.count}{alike}"


@dataclass(frozen=True)
class Obedience:
    """All that was measured, with how it was."""

    model: str
    sampler: str
    steps: int
    seed: int
    seconds: float
    scores: tuple[Score, ...]
    combinations: tuple[Combination, ...]
    avoided: tuple[Avoided, ...]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON can hold them."""
        return asdict(self) | {"avoided": [asdict(part) | {"reduction": part.reduction} for part in self.avoided]}


def prompts(held_out: Sequence[Description], count: int, seed: int) -> dict[str, list[Asked]]:
    """`count` prompts of each kind, worded as captions are: of what is painted in training, and of what is held out.

    A held-out prompt asks for a whole held-out combination, among other things.
    """
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=source)
    drawn = {TRAINED: [forget(whole, source) for whole in choose(labels, odds(held_out), source)]}
    if held_out:
        drawn[HELD_OUT] = []
        for i, label in enumerate(labels.tolist()):
            part = held_out[i % len(held_out)]
            digit = torch.tensor([label if part.digit is None else int(part.digit)])
            (whole,) = choose(digit, odds(part=part), source)
            drawn[HELD_OUT].append(Description(**forget(whole, source).said() | part.said()))
    return {kind: [Asked(caption(said, source), said) for said in parts] for kind, parts in drawn.items()}


def avoiding(count: int, seed: int) -> list[Open]:
    """`count` prompts that leave an attribute open, each with a value of it to steer away from, all values in turn."""
    source, drawn = torch.Generator().manual_seed(seed), []
    for i, whole in enumerate(choose(torch.randint(10, (count,), generator=source), odds(), source)):
        turn, which = divmod(i, len(CHOICES))
        name = list(CHOICES)[which]
        value = CHOICES[name][turn % len(CHOICES[name])]
        said = Description(**{key: word for key, word in forget(whole, source).said().items() if key != name})
        negative = caption(Description(**{name: value}), source)
        drawn.append(Open(name, value, Asked(caption(said, source), said, negative)))
    return drawn


def obedience(
    pipeline: Pipeline,
    classifier: Classifier,
    *,
    held_out: Sequence[Description],
    count: int,
    guidances: Sequence[float],
    sampler: str,
    steps: int,
    seed: int,
    batch: int,
) -> Generator[tuple[int, int] | Score | Combination | Avoided, None, Obedience]:
    """Measure `count` prompts of each kind at each guidance, those for negative prompts wherever guidance acts.

    Yields (pictures made, pictures to make), and each Score, Combination and Avoided as soon as it is known.
    classifier: of MNIST's digits. The same prompts and seeds are used at every guidance.
    """
    began, kinds, avoid = time.monotonic(), prompts(held_out, count, seed), avoiding(count, seed + 1)
    steered = sum(guidance != 1 for guidance in guidances)
    todo, done = count * (len(kinds) * len(guidances) + 2 * steered), 0
    kinds |= {OPEN: [one.asked._replace(negative="") for one in avoid], STEERED: [one.asked for one in avoid]}
    scores, combinations, avoided = [], [], []

    def seen(asked: Sequence[Asked], guidance: float) -> Generator[tuple[int, int], None, list[Description]]:
        nonlocal done
        descriptions: list[Description] = []
        for start in range(0, len(asked), batch):
            prompts, _, negatives = zip(*asked[start : start + batch], strict=True)
            request = Request(
                prompts, negatives, len(prompts), seed + start, sampler=sampler, steps=steps, guidance=guidance
            )
            *_, last = pipeline.generate(request)
            descriptions += read(pipeline.images(last, request), classifier)
            done += len(prompts)
            yield done, todo
        return descriptions

    for guidance in guidances:
        shown = {}
        for kind, asked in kinds.items():
            if guidance == 1 and kind in (OPEN, STEERED):
                continue
            shown[kind] = yield from seen(asked, guidance)
            agreed = agreement(shown[kind], [one.description for one in asked])
            scores.append(_score(kind, guidance, count, agreed))
            yield scores[-1]
        for part in held_out[:count]:
            combinations.append(_combination(part, guidance, kinds, shown))
            yield combinations[-1]
        if guidance != 1:
            avoided.append(_avoided(guidance, avoid, shown))
            yield avoided[-1]
    measured = tuple(scores), tuple(combinations), tuple(avoided)
    return Obedience(pipeline.config.name, sampler, steps, seed, time.monotonic() - began, *measured)


def _score(kind: str, guidance: float, count: int, agreed: Mapping[str, Tensor]) -> Score:
    asked = {name: answers for name, answers in agreed.items() if len(answers)}
    shares = {name: answers.double().mean().item() for name, answers in asked.items()}
    return Score(kind, guidance, count, shares, {name: len(answers) for name, answers in asked.items()})


def _combination(
    part: Description,
    guidance: float,
    kinds: Mapping[str, Sequence[Asked]],
    shown: Mapping[str, Sequence[Description]],
) -> Combination:
    names = part.said().keys()

    def answers(kind: str, counts: Callable[[Description], bool]) -> list[bool]:
        """Of each prompt that counts, whether what it says of these attributes is seen."""
        pairs = [
            (one.description.said(), seen.said())
            for one, seen in zip(kinds[kind], shown[kind], strict=True)
            if counts(one.description)
        ]
        return [all(seen.get(name) == asked[name] for name in names) for asked, seen in pairs]

    own = answers(HELD_OUT, lambda description: matches(description, part))
    alike = answers(TRAINED, lambda description: names <= description.said().keys())
    trained = sum(alike) / len(alike) if alike else None
    return Combination(plainly(part), guidance, len(own), sum(own) / len(own), trained)


def _avoided(guidance: float, avoid: Sequence[Open], shown: Mapping[str, Sequence[Description]]) -> Avoided:
    def shares(kind: str) -> dict[str, float]:
        """Attribute -> how often the value to steer away from is what pictures show."""
        pairs = [(one, seen.said()) for one, seen in zip(avoid, shown[kind], strict=True)]
        return {
            name: sum(seen.get(name) == one.value for one, seen in pairs if one.name == name) / counts[name]
            for name in counts
        }

    counts = dict(Counter(one.name for one in avoid))
    return Avoided(guidance, shares(OPEN), shares(STEERED), counts)
