"""What is read back from pictures, by a classifier or by measuring what is painted, and held to what was asked for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion import reading
from diffusion.captions import Description, parse, plainly
from diffusion.classifier import Classifier
from diffusion.ui.wording import article, counted

SURE = 0.8  # the confidence below which a reading counts as unsure


@dataclass(frozen=True)
class Reading:
    """What the classifier sees in one picture: the likeliest class and its probability."""

    label: str
    confidence: float

    @property
    def said(self) -> str:
        """The reading in a few words."""
        return f"{self.label}, {100 * self.confidence:.0f} %"

    @property
    def sure(self) -> bool:
        return self.confidence >= SURE

    def answers(self, prompt: str) -> bool | None:
        """Whether this is what was asked for; None where nothing was."""
        return self.label == prompt if prompt else None

    def beside(self, prompt: str) -> str:
        """The same beside the picture, where this was asked for."""
        return self.label


@dataclass(frozen=True)
class Seen:
    """What a painted picture shows, measured in its pixels; only its digit is a classifier's guess."""

    description: Description
    confidence: None = None
    sure: bool = True

    @property
    def label(self) -> str:
        """All that is seen."""
        return plainly(self.description) if self.description.digit else f"only {self.description.paper} paper"

    @property
    def said(self) -> str:
        """The same, in a sentence."""
        return self.label

    def answers(self, prompt: str) -> bool | None:
        """Whether all that was asked for is seen; None where nothing was that a picture can show."""
        asked = parse(prompt).said()
        return asked.items() <= self.description.said().items() if asked else None

    def beside(self, prompt: str) -> str:
        """Of what is seen that which was asked for, or else digit and colours; all of it where nothing is drawn."""
        if not self.description.digit:
            return self.label
        asked = parse(prompt).said() or ("digit", "ink", "paper")
        return plainly(Description(**{name: word for name, word in self.description.said().items() if name in asked}))


@torch.no_grad()
def classify(pictures: Tensor, classifier: Classifier) -> tuple[Reading, ...]:
    """Readings of pictures (N, C, H, W) in [-1, 1] by a classifier of such."""
    confidence, label = classifier(pictures).softmax(1).max(1)
    names = classifier.config.classes
    return tuple(Reading(names[k], c) for k, c in zip(label.tolist(), confidence.tolist(), strict=True))


def measure(pictures: Tensor, classifier: Classifier) -> tuple[Seen, ...]:
    """The same of painted pictures (N, 3, 32, 32), by a classifier of digits."""
    return tuple(map(Seen, reading.read(pictures, classifier)))


def verdict(prompts: Sequence[str], readings: Sequence[Reading | Seen | None], noun: str) -> str:
    """What is read back from pictures of a kind, and how much of it was asked for, in a sentence."""
    count = len(readings)
    if None in readings:
        return f"{counted(count, noun)}, which no classifier here can read."
    pairs = list(zip(prompts, readings, strict=True))
    answers = [reading.answers(prompt) for prompt, reading in pairs]
    if isinstance(readings[0], Seen):
        return _measured(pairs, answers)
    if None in answers:
        seen = Counter(reading.label for reading in readings)
        return f"The classifier sees {', '.join(f'{seen[name]} × {name}' for name in sorted(seen))}."
    wanted = article(prompts[0]) if len(set(prompts)) == 1 else f"the {noun}s asked for"
    return f"The classifier reads {sum(answers)} of {count} as {wanted}."


def _measured(pairs: Sequence[tuple[str, Seen]], answers: Sequence[bool | None]) -> str:
    held = [answer for answer in answers if answer is not None]
    if not held:
        digits = Counter(seen.description.digit or "blank" for _, seen in pairs)
        return f"Nothing was asked for; what came reads as {', '.join(f'{digits[k]} × {k}' for k in sorted(digits))}."
    missed = Counter(
        name
        for prompt, seen in pairs
        for name, value in parse(prompt).said().items()
        if seen.description.said().get(name) != value
    )
    wrong = f"; amiss: {', '.join(f'{name} in {n}' for name, n in missed.most_common())}" if missed else ""
    return f"Measured in the pixels, {sum(held)} of {len(held)} show all that was asked for{wrong}."
