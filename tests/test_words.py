"""What counts as a word."""

import pytest

from diffusion.captions import parse
from diffusion.words import split


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A small, RED-ish 7!", ["a", "small", "red", "ish", "7"]),
        ("snake_case <b>7</b> x+y", ["snake", "case", "b", "7", "b", "x", "y"]),
        ("🔴 7 on👍🏽white", ["🔴", "7", "on", "👍", "white"]),
        ("हिन्दी", ["हिन्दी"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("cafe\u0301", ["café"]),
        ("七7 5º", ["七7", "5º"]),
        ("\u0301\x00\u202e\u200d …", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_digits_and_their_marks_and_symbols(text, words):
    assert split(text) == words


def test_pictures_are_judged_by_the_words_that_the_model_reads():
    assert parse("5º").said() == parse("七7").said() == {}
    assert parse("A thick, red-coloured 7!").said() == {"digit": "7", "ink": "red", "stroke": "thick"}
