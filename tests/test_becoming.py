"""What the Image tab makes of pictures, masks and prompts, in grey and in colour, before and after a run."""

import re

import gradio as gr
import numpy as np
import pytest
import tiny

from diffusion.ui.becoming import EMPTY, asked, look, turn, under
from diffusion.ui.studio import Limits, Studio
from diffusion.ui.tabs import image
from diffusion.ui.widgets import Masked

SETTINGS = "ddim", 4, 1.5, 6


@pytest.fixture(scope="module")
def colour() -> Studio:
    return tiny.studio("colour", Limits())


def test_each_model_opens_with_a_picture_of_its_own_shape(words: Studio, colour: Studio, garments: Studio) -> None:
    for studio, target, promise in (
        (words, "a blue 3 on yellow paper", "Make it: a blue 3 on yellow paper · "),
        (colour, "red fox", "Turn it into a red fox · "),
        (garments, "bag", "Turn it into a bag · "),
    ):
        shown = image.shown(studio)
        source = shown["source"]
        assert source["shape"] == [*studio.shape] and source["value"].shape == studio.shape
        assert np.array_equal(shown["mask"]["value"], source["value"])
        assert shown["target"]["value"] == target and target in shown["target"]["choices"]
        assert shown["go"]["value"].startswith(promise)
        assert shown["result"]["value"].pictures.shape == (1, *studio.shape)
        assert f"{studio.shape[1]} × {studio.shape[0]} pixels" in shown["upload_note"]["value"]
    assert image.shown(words)["target"]["label"] != image.shown(garments)["target"]["label"]


@pytest.mark.parametrize(
    ("prompt", "promise"),
    [
        ("a blue 7", "Make it: a blue 7 · "),
        ("", "Make it another picture · "),
        ("  ", "Make it another picture · "),
        ("red " * 40, "Make it: red red red red red red red red red … · "),
        ("<b>", "Make it: <b> · "),
    ],
)
def test_the_button_says_in_short_what_is_asked_for(words: Studio, prompt: str, promise: str) -> None:
    _, _, go, strip = look(words, words.example("3", 0), None, True, prompt, 0.5, *SETTINGS)
    assert go.startswith(promise) and strip.startswith("Try eight strengths · ")


def test_what_is_of_another_model_is_passed_over_until_it_is_run(words: Studio, garments: Studio) -> None:
    """While a page turns to a model, its controls tell of their changes one by one, some still with what was before."""
    for studio, sketch, prompt, sentence in (
        (
            words,
            garments.example("bag", 0),
            "a 3",
            "The picture has 28 × 28 numbers, those of sentences have 32 × 32 × 3",
        ),
        (garments, words.example("3", 0), "bag", "The picture has 32 × 32 × 3 numbers, those of garments have 28 × 28"),
    ):
        masked = Masked(sketch, np.ones(sketch.shape[:2], bool))
        assert look(studio, sketch, masked, True, prompt, 0.5, *SETTINGS) == (gr.skip(),) * 4
        assert under(studio, sketch, True, None) == gr.skip()
        with pytest.raises(ValueError, match=f"^{sentence}: take another.$"):
            next(turn(studio, sketch, masked, True, prompt, 0.5, *SETTINGS))


def test_a_mask_of_another_picture_does_not_count(words: Studio, garments: Studio) -> None:
    sketch, mask = words.example("3", 0), np.zeros((32, 32), bool)
    mask[4:9, 4:20] = True
    for other in (words.example("3", 1), garments.example("bag", 0)):
        masked = Masked(other, mask[: len(other), : len(other)])
        assert asked(words, sketch, masked, True, "a 3", 0.5, *SETTINGS).mask is None
    assert asked(words, sketch, Masked(sketch, mask & False), True, "a 3", 0.5, *SETTINGS).mask is None
    request = asked(words, sketch, Masked(sketch, mask), True, "a 3", 0.5, *SETTINGS)
    assert np.array_equal(request.mask[0].numpy(), mask)


def test_the_mask_is_painted_on_what_the_model_gets_and_stays_while_that_does(words: Studio) -> None:
    sketch = words.example("3", 0)
    assert np.array_equal(under(words, sketch, True, None), sketch)
    assert under(words, sketch, True, Masked(sketch, np.ones((32, 32), bool))) == gr.skip()
    assert np.array_equal(under(words, sketch, True, Masked(words.example("3", 1), np.ones((32, 32), bool))), sketch)
    assert under(words, None, True, Masked(sketch, np.ones((32, 32), bool))) is None


def test_only_what_is_masked_changes_and_strange_words_are_named(words: Studio) -> None:
    sketch, mask = words.example("3", 0), np.zeros((32, 32), bool)
    mask[:, 16:] = True
    *_, (_, status, result) = turn(words, sketch, Masked(sketch, mask), True, "a crimson thik 3", 1.0, *SETTINGS)
    picture = result.pictures[0]
    assert np.array_equal(picture[~mask], sketch[~mask]) and (picture[mask] != sketch[mask]).any()
    assert "512 pixels are yours, unchanged." in status and "4 network calls" in status
    assert "It does not know “crimson”." in status
    assert "It does not know “thik”; did you mean thick or thin?" in status
    assert re.search(r"Read as (.* on )?\w+", status)


def test_a_painted_picture_is_told_by_what_is_seen_in_it(words: Studio) -> None:
    views, plan, *_ = look(words, words.example("3", image.COLUMN), None, True, "a 3", 0.5, *SETTINGS)
    assert "reads large thick red 3 on white" in views and views.count("<img") == 2
    assert plan["info"].startswith("Runs 2 of 4 steps")


def test_no_picture_gets_its_sentence(words: Studio) -> None:
    views, *rest = look(words, None, None, True, "a 3", 0.5, *SETTINGS)
    assert EMPTY in views and rest == [gr.skip()] * 3
    with pytest.raises(ValueError, match="There is no picture yet"):
        next(turn(words, None, None, True, "a 3", 0.5, *SETTINGS))
