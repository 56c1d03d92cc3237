"""What is read back from pictures, and whether that is what was asked for."""

import itertools
from pathlib import Path

import pytest
import tiny
import torch

from diffusion.captions import CHOICES, Description, parse, plainly
from diffusion.classifier import Classifier
from diffusion.data import Painted, load
from diffusion.ui.readings import Reading, Seen, classify, measure, verdict
from diffusion.ui.studio import Limits

DATA = Path(__file__).parent / "data"
WHOLE = Description("7", "red", "white", "thick", "left", "small", "top right")


def test_what_is_worded_plainly_is_understood_again():
    """Each value of each attribute, alone and in a whole description."""
    for name, values in CHOICES.items():
        for value in values:
            assert parse(plainly(Description(**{name: value}))) == Description(**{name: value})
            changed = Description(**WHOLE.said() | {name: value})
            assert parse(plainly(changed)) == changed
    assert plainly(WHOLE) == "small thick red 7 on white, leaning left, in the top right corner"
    assert plainly(Description(paper="blue")) == "digit on blue"


def test_a_class_answers_its_own_name_alone():
    reading = Reading("ankle boot", 0.75)
    assert (reading.answers("ankle boot"), reading.answers("sneaker"), reading.answers("")) == (True, False, None)
    assert not reading.sure and Reading("3", 0.8).sure
    assert reading.beside("sneaker") == "ankle boot" and reading.said == "ankle boot, 75 %"


def test_a_painted_picture_answers_every_part_of_what_it_shows_and_no_other():
    seen, whole = Seen(WHOLE), WHOLE.said()
    for size in (1, 2, 7):
        for names in itertools.combinations(whole, size):
            part = Description(**{name: whole[name] for name in names})
            assert seen.answers(plainly(part)) is True
    for name, values in CHOICES.items():
        for other in set(values) - {whole[name]}:
            assert seen.answers(plainly(Description(**whole | {name: other}))) is False
    assert seen.answers("") is None and seen.answers("something nice") is None
    assert seen.beside("a fat 7") == "thick 7" and seen.beside("") == "red 7 on white"
    assert seen.beside("a digit on a blue background") == "digit on white"
    blank = Seen(Description(paper="blue"))
    assert blank.beside("seven") == blank.beside("a digit on blue") == blank.label == "only blue paper"


def test_real_painted_pictures_are_read_as_their_captions_say():
    digits = load("mnist", "test", DATA, download=False)
    pictures, prompts = Painted(digits).batch(torch.arange(64), torch.Generator().manual_seed(3))
    found = measure(pictures, Classifier.of("mnist"))

    def agreeing(prompts: list[str]) -> int:
        return sum(seen.answers(prompt) is not False for seen, prompt in zip(found, prompts, strict=True))

    assert agreeing(prompts) >= 60
    assert agreeing(prompts[1:] + prompts[:1]) < 16


def test_the_verdict_counts_what_was_asked_for():
    three, eight = Reading("3", 0.9), Reading("8", 0.9)
    assert verdict(["3", "3"], [three, eight], "digit") == "The classifier reads 1 of 2 as a 3."
    assert verdict(["", ""], [three, eight], "digit") == "The classifier sees 1 × 3, 1 × 8."
    assert verdict(["3", "8"], [three, eight], "digit") == "The classifier reads 2 of 2 as the digits asked for."
    assert verdict(["", ""], [None, None], "picture") == "2 pictures, which no classifier here can read."
    seen, blank = Seen(WHOLE), Seen(Description(paper="white"))
    said = verdict(["a red 7", "a thin blue 7", "nice"], [seen, seen, seen], "picture")
    assert said == "Measured in the pixels, 1 of 2 show all that was asked for; amiss: ink in 1, stroke in 1."
    assert verdict(["", ""], [seen, blank], "picture") == (
        "Nothing was asked for; what came reads as 1 × 7, 1 × blank."
    )


def test_a_classifier_reads_the_likeliest_class():
    classifier, pictures = tiny.judge(), torch.rand(5, 1, 28, 28) * 2 - 1
    chances = classifier(pictures).softmax(1)
    for reading, row in zip(classify(pictures, classifier), chances, strict=True):
        assert reading.label == classifier.config.classes[int(row.argmax())]
        assert reading.confidence == pytest.approx(row.max().item())


def test_a_studio_reads_painted_pictures_by_measuring_them():
    studio = tiny.studio("sentences", Limits())
    result = studio.opening
    assert all(isinstance(reading, Seen) for reading in result.readings)
    assert studio.yardstick is None and studio.classifier is not None
    assert tiny.studio("plain", Limits()).yardstick is not None
