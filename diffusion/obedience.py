"""Whether pictures obey the words: prompts drawn by chance, pictures made from them, and what is read back in those."""

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion.captions import CHOICES, Description, caption, forget
from diffusion.classifier import Classifier
from diffusion.painting import choose, odds
from diffusion.pipeline import Pipeline
from diffusion.reading import agreement, read
from diffusion.request import Request

GUIDANCES = (1.0, 2.0, 3.0, 5.0, 7.5)
TRAINED, HELD_OUT = "trained", "held out"


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
    """What negative prompts do at one guidance: attribute -> how often the value shows, without them and given them."""

    guidance: float
    count: int
    without: dict[str, float]
    given: dict[str, float]

    @property
    def reduction(self) -> float:
        """By how much all shares together fall, relative to no negative prompt."""
        before = sum(self.without.values())
        return 1 - sum(self.given.values()) / before if before else 0.0

    def row(self) -> str:
        """The figures as a line."""
        shares = "  ".join(f"{name} {self.without[name]:.1%} to {self.given[name]:.1%}" for name in self.without)
        return f"negative  guidance {self.guidance:<4g} less by {self.reduction:.1%}:  {shares}"


@dataclass(frozen=True)
class Obedience:
    """All that was measured, with how it was."""

    model: str
    sampler: str
    steps: int
    seed: int
    seconds: float
    scores: tuple[Score, ...]
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
) -> Generator[tuple[int, int] | Score | Avoided, None, Obedience]:
    """Measure `count` prompts of each kind at each guidance, and as many negative prompts wherever guidance acts.

    Yields (pictures made, pictures to make), and each Score and Avoided as soon as it is known. classifier: of MNIST's
    digits. The same prompts and seeds are used at every guidance.
    """
    began, kinds, avoid = time.monotonic(), prompts(held_out, count, seed), avoiding(count, seed + 1)
    steered = [guidance for guidance in guidances if guidance != 1]
    todo, done = count * (len(kinds) * len(guidances) + 2 * len(steered)), 0
    scores, avoided = [], []

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
        for kind, asked in kinds.items():
            descriptions = yield from seen(asked, guidance)
            scores.append(_score(kind, guidance, agreement(descriptions, [one.description for one in asked])))
            yield scores[-1]
    for guidance in steered:
        given = yield from seen([one.asked for one in avoid], guidance)
        without = yield from seen([one.asked._replace(negative="") for one in avoid], guidance)
        avoided.append(Avoided(guidance, count, _shares(avoid, without), _shares(avoid, given)))
        yield avoided[-1]
    return Obedience(
        pipeline.config.name, sampler, steps, seed, time.monotonic() - began, tuple(scores), tuple(avoided)
    )


def _score(kind: str, guidance: float, agreed: Mapping[str, Tensor]) -> Score:
    asked = {name: answers for name, answers in agreed.items() if len(answers)}
    shares = {name: answers.double().mean().item() for name, answers in asked.items()}
    return Score(kind, guidance, len(agreed["all"]), shares, {name: len(answers) for name, answers in asked.items()})


def _shares(open_: Sequence[Open], seen: Sequence[Description]) -> dict[str, float]:
    """Attribute -> how often the value to steer away from is what pictures show."""
    shown = {
        name: [s.said().get(name) == o.value for o, s in zip(open_, seen, strict=True) if o.name == name]
        for name in CHOICES
    }
    return {name: sum(answers) / len(answers) for name, answers in shown.items() if answers}
