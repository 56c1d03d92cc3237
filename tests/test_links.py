"""A link carries settings there and back, and nothing in a link can do harm."""

from collections.abc import Iterator
from random import Random
from urllib.parse import parse_qsl

import pytest

from diffusion.samplers import SAMPLERS
from diffusion.ui.links import KEYS, from_query, notice, rules, to_query
from diffusion.ui.widgets import EACH

CLASSES = tuple("0123456789")
RANGES = {"count": (1, 64), "steps": (1, 100), "guidance": (0, 10), "seed": (0, 2**31 - 1)}
WEIGHTS = "0123abcd"
RULES = rules(CLASSES, RANGES)


def read(query: str) -> tuple[dict, list[str]]:
    """What a page makes of the part of its address after the question mark."""
    return from_query(dict(parse_qsl(query, keep_blank_values=True)), RULES, WEIGHTS)


def drawn(rng: Random) -> dict:
    """Any settings that the controls can have, extremes more often than chance would."""
    return {
        "digit": rng.choice(["", EACH, *CLASSES]),
        "negative": rng.choice(["", *CLASSES]),
        "sampler": rng.choice(list(SAMPLERS)),
        "guidance": rng.choice([0.0, 1.0, 10.0, 2, 5e-324, 1e-7, 0.1 + 0.2, 10 * rng.random(), rng.random() ** 50]),
        **{key: rng.choice([*RANGES[key], rng.randint(*RANGES[key])]) for key in ("count", "steps", "seed")},
    }


def noise(rng: Random) -> str:
    """Text nobody expects: any characters, digits of other scripts, and pieces of what is right."""
    pieces = ["7", "-", ".", "e", "1e9", "nan", "inf", "0x", "\u0663", "\u00b2", "\x00", "\ud800", "<b>", "%", "each"]
    return "".join(rng.choice([*pieces, chr(rng.randrange(0x110000))]) for _ in range(rng.randrange(9)))


def test_there_and_back() -> None:
    rng = Random(0)
    for chosen in (drawn(rng) for _ in range(2000)):
        query = to_query(chosen, "mnist-latent", WEIGHTS)
        assert read(query) == (chosen, [])
        assert query.isascii() and len(query) < 200


def test_whatever_arrives_is_usable_or_said() -> None:
    rng = Random(1)
    for _ in range(5000):
        keys = rng.sample([*KEYS, "weights", noise(rng), noise(rng)], 4)
        query = {key: noise(rng) for key in keys}
        chosen, amiss = from_query(query, RULES, WEIGHTS)
        assert all(0 < len(sentence) < 300 and sentence.endswith(".") for sentence in amiss)
        assert len(chosen) + len(amiss) == len(query)
        for key, value in chosen.items():
            if key in RANGES:
                assert RANGES[key][0] <= value <= RANGES[key][1]
                assert type(value) is (float if key == "guidance" else int)
            else:
                assert value in ("", EACH, *CLASSES, *SAMPLERS)


def amiss() -> Iterator[tuple[str, str]]:
    """Queries with the sentence that each calls for."""
    digits = "any, each, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    yield "digit=10", f"digit must be one of {digits}, not “10”."
    yield "digit=", f"digit must be one of {digits}, not “”."
    yield "negative=each", "negative must be one of none, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, not “each”."
    yield "sampler=magic", f"sampler must be one of {', '.join(SAMPLERS)}, not “magic”."
    for count in ("0", "65", "-1", "1.5", "1e1", "0x10", " 7", "1_0", "٣", "", "9" * 400):
        shown = count if len(count) <= 24 else "9" * 24 + "…"
        yield f"count={count}", f"count must be a whole number from 1 to 64, not “{shown}”."
    for guidance in ("nan", "inf", "-0.1", "10.01", "1e400", "1,5", "2/3"):
        yield f"guidance={guidance}", f"guidance must be a number from 0 to 10, not “{guidance}”."
    yield "seed=2147483648", "seed must be a whole number from 0 to 2,147,483,647, not “2147483648”."
    yield "steps=101", "steps must be a whole number from 1 to 100, not “101”."
    yield "digti=7", "There is no setting “digti”."
    yield (
        f"weights={WEIGHTS[::-1]}",
        f"It was made with other weights than these ({WEIGHTS}): its pictures will differ.",
    )


@pytest.mark.parametrize(("query", "sentence"), amiss())
def test_what_is_amiss_is_said_and_the_rest_applied(query: str, sentence: str) -> None:
    assert read(query) == ({}, [sentence])
    key = query.partition("=")[0]
    rest = {"digit": "7", "seed": 42} if key not in ("digit", "seed") else {"count": 3}
    assert read("&".join(f"{k}={v}" for k, v in rest.items()) + "&" + query) == (rest, [sentence])


def test_what_hosts_add_is_none_of_our_business() -> None:
    assert read("__theme=dark&__sign=abc&view=api&utm_source=mail&logs=container") == ({}, [])


def test_a_notice_never_brings_markup_of_its_own() -> None:
    _, sentences = read("digit=<img src=x onerror=alert(1)>&<script>=1")
    shown = notice(sentences).value
    assert "<img" not in shown and "<script" not in shown and shown.count("<li>") == 2
    assert not notice([]).visible


def test_a_sentence_survives_its_link():
    """Of any words, markup and other scripts too; only its length is limited."""
    allowed, said = rules((), RANGES, sentences=True), 'a <b>crimson</b> 7 & "שלום" 😀 = 100%'
    query = to_query(dict(zip(KEYS, (said, "red", 4, "ddim", 10, 3.0, 5), strict=True)), "words", "abc")
    settings, amiss = from_query(dict(parse_qsl(query)), allowed, "abc")
    assert not amiss and (settings["digit"], settings["negative"]) == (said, "red")
    settings, amiss = from_query({"digit": "x" * 1001, "negative": "none"}, allowed, "abc")
    assert settings == {"negative": ""} and "at most 1000 characters; this one has 1,001" in amiss[0]
