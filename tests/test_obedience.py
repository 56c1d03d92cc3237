"""Whether words are obeyed, measured on painters that obey by construction, or do not."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from steps import finish

from diffusion import data
from diffusion.captions import CHOICES, Description, matches, parse
from diffusion.classifier import Classifier
from diffusion.obedience import (
    HELD_OUT,
    OPEN,
    STEERED,
    TRAINED,
    Avoided,
    Combination,
    Score,
    avoiding,
    obedience,
    prompts,
)
from diffusion.painting import Painter, choose, odds
from diffusion.request import Request
from diffusion.samplers import Step

HELD = (Description(digit="7", ink="red"), Description(stroke="thick", lean="left", size="small"))


class Obeying:
    """Stands where a model would, and paints what its prompts say; with a negative prompt, anything else of it."""

    def __init__(self, digits: data.ImageData, deaf: bool = False) -> None:
        self.painter, self.deaf = Painter(digits.images, digits.labels), deaf
        self.config, self.requests = SimpleNamespace(name="obeying"), []

    def generate(self, request: Request) -> Iterator[Step]:
        self.requests.append(request)
        yield Step(0, torch.zeros(()), torch.zeros(()), torch.zeros(()), 0)

    def images(self, step: Step, request: Request) -> torch.Tensor:
        source, painted = torch.Generator().manual_seed(request.seed), []
        for prompt, negative in zip(request.prompts, request.negatives, strict=True):
            said = Description() if self.deaf else parse(prompt)
            away = parse(negative)
            avoided = () if self.deaf or not away.said() else (away,)
            label = torch.randint(10, (1,), generator=source) if said.digit is None else torch.tensor([int(said.digit)])
            if away.digit == str(label.item()):
                label = (label + 1) % 10
            (whole,) = choose(label, odds(avoided, said), source)
            index = (self.painter.labels == label).nonzero()[:1, 0]
            painted.append(self.painter.paint(index, [whole], source))
        return torch.cat(painted)


@pytest.fixture(scope="module")
def digits() -> data.ImageData:
    return data.load("mnist", "train", "tests/data", download=False).few()


@pytest.fixture(scope="module")
def reader() -> Classifier:
    return Classifier.load("mnist-classifier")


def measured(model: Obeying, reader: Classifier, guidances: tuple[float, ...], count: int = 63):
    settings = {"sampler": "ddim", "steps": 7, "seed": 3, "batch": 20}
    return finish(obedience(model, reader, held_out=HELD, count=count, guidances=guidances, **settings))


def test_prompts_say_what_they_ask_for():
    for kind, asked in prompts(HELD, 200, seed=1).items():
        assert len(asked) == 200
        for one in asked:
            assert parse(one.prompt) == one.description
            assert any(matches(one.description, part) for part in HELD) == (kind == HELD_OUT)
            assert one.description.said()


def test_prompts_are_the_same_for_the_same_seed():
    assert prompts(HELD, 20, seed=1) == prompts(HELD, 20, seed=1) != prompts(HELD, 20, seed=2)
    assert list(prompts((), 20, seed=1)) == [TRAINED]


def test_what_is_avoided_was_left_open_and_every_value_has_its_turn():
    drawn = avoiding(7 * 45, seed=0)
    for one in drawn:
        assert parse(one.asked.prompt).said().get(one.name) is None
        assert parse(one.asked.negative).said() == {one.name: one.value}
    assert {(one.name, one.value) for one in drawn} == {(name, value) for name in CHOICES for value in CHOICES[name]}


def test_a_painter_that_obeys_is_seen_to_obey(digits, reader):
    model = Obeying(digits)
    events, found = measured(model, reader, (1.0, 3.0))
    # Where guidance is 1 a negative prompt does nothing.
    assert [score.kind for score in found.scores] == [TRAINED, HELD_OUT, TRAINED, HELD_OUT, OPEN, STEERED]
    for score in found.scores:
        assert isinstance(score, Score) and score.count == 63
        assert score.shares["all"] >= 0.95 and min(score.shares[name] for name in ("ink", "paper")) >= 0.98
        assert score.counts["digit"] <= 63 and (score.kind in (OPEN, STEERED) or score.counts["all"] == 63)
    assert [(part.said, part.guidance) for part in found.combinations] == [
        (said, guidance) for guidance in (1, 3) for said in ("red 7", "small thick digit, leaning left")
    ]
    for part in found.combinations:
        assert isinstance(part, Combination) and part.count >= 31 and part.share >= 0.9 and part.trained >= 0.9
    (avoided,) = found.avoided
    assert isinstance(avoided, Avoided) and avoided.guidance == 3 and avoided.reduction > 0.9
    assert avoided.counts == dict.fromkeys(CHOICES, 9) and avoided.without.keys() == avoided.given.keys() == {*CHOICES}
    progress = [event for event in events if isinstance(event, tuple)]
    assert progress[-1] == (6 * 63, 6 * 63)
    assert {request.seed for request in model.requests} == {3, 23, 43, 63}
    assert found.to_dict()["avoided"][0]["reduction"] == avoided.reduction


def test_a_painter_that_hears_nothing_is_seen_to(digits, reader):
    _, found = measured(Obeying(digits, deaf=True), reader, (3.0,))
    trained = found.scores[0]
    assert trained.shares["all"] < 0.3 and trained.shares["ink"] < 0.45
    assert all(part.share < 0.3 and part.trained < 0.3 for part in found.combinations)
    assert abs(found.avoided[0].reduction) < 0.6
