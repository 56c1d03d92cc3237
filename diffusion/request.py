"""What to make: every number from outside is checked here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffusion.samplers import SAMPLERS

MAX_COUNT, MAX_STEPS, MAX_GUIDANCE, MAX_SEED = 4096, 1000, 100.0, 2**63 - 2**32
MAX_PROMPT = 1000  # characters
MAX_SIDE = 2048  # pixels


@dataclass(frozen=True)
class Turn:
    """From a step on, other prompts: one for each image. step: 1 to 1000 steps are made before."""

    step: int
    prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        check_number("the turn's step", self.step, 1, MAX_STEPS, whole=True)
        check_prompts(self.prompts)


@dataclass(frozen=True)
class Travel:
    """The way to another prompt and seed: contexts are mixed in a line, noise on a sphere.

    shares: how far along each image is, 0 to 1.
    """

    prompt: str
    seed: int
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        check_prompts((self.prompt,))
        check_number("the travel's seed", self.seed, 0, MAX_SEED, whole=True)
        for share in self.shares:
            check_number("a share of the way", share, 0, 1)


@dataclass(frozen=True)
class Request:
    """What to make. Everything is checked here, wherever it came from: app, API, command line or a link.

    prompt: one for all images, or one per image, each of 1000 characters at most; "" is the unconditional prompt.
    negative: what to steer away from, one for all or one per image; acts when guidance is not 1.
    count: images, 1 to 4096. seed: image i uses seed + i, whatever the batch; or one seed per image.
    sampler: a key of SAMPLERS. steps: 1 to 1000 intervals of the noise grid.
    guidance: 0 to 100; 1 means none. interval: the noise levels at which guidance acts, default all.
    image: a start (C, H, W) or (count, C, H, W) in [-1, 1], or None.
    strength: 0 to 1, one for all or one per image: the share of the grid's last steps that is run on `image`;
        0 is its plain reconstruction, 1 starts from sigma_max.
    mask: (1, H, W), True or 1 where the picture is to be made anew, or None for everywhere.
    turn: other prompts from one of the steps on. travel: how far each image is on the way to another prompt and seed.
    size: the pictures' height and width, 1 to 2048 pixels each, as far as the model can; None is the model's own.
    """

    prompt: str | tuple[str, ...] = ""
    negative: str | tuple[str, ...] = ""
    count: int = 1
    seed: int | tuple[int, ...] = 0
    sampler: str = "dpmpp_2m"
    steps: int = 20
    guidance: float = 1.0
    interval: tuple[float, float] = (0.0, math.inf)
    image: Tensor | None = None
    strength: float | tuple[float, ...] = 1.0
    mask: Tensor | None = None
    turn: Turn | None = None
    travel: Travel | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_number("count", self.count, 1, MAX_COUNT, whole=True)
        for seed in self.seed if isinstance(self.seed, tuple) else (self.seed,):
            check_number("seed", seed, 0, MAX_SEED, whole=True)
        if self.size is not None:
            if not isinstance(self.size, tuple) or len(self.size) != 2:
                raise ValueError("The size must be two numbers of pixels, height and width.")
            for name, side in zip(("height", "width"), self.size, strict=True):
                check_number(name, side, 1, MAX_SIDE, whole=True)
        check_number("steps", self.steps, 1, MAX_STEPS, whole=True)
        check_number("guidance", self.guidance, 0, MAX_GUIDANCE)
        for strength in self.strengths:
            check_number("strength", strength, 0, 1)
        if not isinstance(self.sampler, str) or self.sampler not in SAMPLERS:
            raise ValueError(f"Unknown sampler {str(self.sampler)[:40]!r}; the choices are {', '.join(SAMPLERS)}.")
        check_prompts((self.prompt,) if isinstance(self.prompt, str) else self.prompt)
        check_prompts((self.negative,) if isinstance(self.negative, str) else self.negative)
        if {*map(len, (self.prompts, self.negatives, self.strengths, self.seeds))} != {self.count}:
            raise ValueError(
                f"One prompt, negative prompt, seed and strength for all, or one for each of the {self.count} images,"
                " please."
            )
        if not isinstance(self.interval, tuple) or len(self.interval) != 2:
            raise ValueError("The guidance interval must be two noise levels, low and high.")
        check_number("the interval's low end", self.interval[0], 0, math.inf)
        check_number("the interval's high end", self.interval[1], self.interval[0], math.inf)
        if self.turn is not None and len(self.turn.prompts) != self.count:
            raise ValueError(f"A turn takes one prompt for each of the {self.count} images.")
        if self.travel is not None and len(self.travel.shares) != self.count:
            raise ValueError(f"A travel takes one share of the way for each of the {self.count} images.")
        if self.mask is not None and self.image is None:
            raise ValueError("A mask needs an image: it says which part of the image is made anew.")
        for tensor, name in ((self.image, "image"), (self.mask, "mask")):
            if tensor is not None and not (isinstance(tensor, Tensor) and tensor.isfinite().all()):
                raise ValueError(f"The {name} must be a tensor of finite numbers.")

    @property
    def prompts(self) -> tuple[str, ...]:
        return (self.prompt,) * self.count if isinstance(self.prompt, str) else self.prompt

    @property
    def negatives(self) -> tuple[str, ...]:
        return (self.negative,) * self.count if isinstance(self.negative, str) else self.negative

    @property
    def texts(self) -> tuple[str, ...]:
        """All that it asks a model to read."""
        later = () if self.turn is None else self.turn.prompts
        goal = () if self.travel is None else (self.travel.prompt,)
        return (*self.prompts, *self.negatives, *later, *goal)

    @property
    def strengths(self) -> tuple[float, ...]:
        return self.strength if isinstance(self.strength, tuple) else (self.strength,) * self.count

    @property
    def seeds(self) -> Sequence[int]:
        return self.seed if isinstance(self.seed, tuple) else range(self.seed, self.seed + self.count)

    def steps_run(self, strength: float) -> int:
        """How many of the grid's steps an image of this strength goes through."""
        return math.ceil(round(strength * self.steps, 9))  # 0.55 * 20 is a little more than 11


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """
    Raises:
        ValueError: `value` is not a finite number (a whole one, where asked for) from low to high.
    """
    kind = "a whole number" if whole else "a number"
    allowed = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        raise ValueError(f"{name} must be {kind} from {low:g} to {high:g}, not {str(value)[:40]}.")


def check_prompts(prompts: object) -> None:
    """
    Raises:
        ValueError: `prompts` is not a tuple of text, or one of them is too long.
    """
    if not isinstance(prompts, tuple) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError("Prompts must be text: one for all images, or a tuple of one for each.")
    if any("\ud800" <= letter <= "\udfff" for prompt in prompts for letter in prompt):
        raise ValueError("A prompt must be Unicode text; this one holds half a character.")
    if longest := max((len(prompt) for prompt in prompts if len(prompt) > MAX_PROMPT), default=0):
        raise ValueError(f"A prompt may have at most {MAX_PROMPT} characters; this one has {longest:,}.")
