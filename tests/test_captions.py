import re

import pytest
import torch

from diffusion.captions import (
    CHOICES,
    COLOURS,
    VOCABULARY,
    Description,
    caption,
    forget,
    matches,
    parse,
)

SEVEN = Description("7", "red", "white", "thick", "left", "small", "top left")


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def described(count: int, seed: int = 0) -> list[Description]:
    """Of every value of every attribute, some."""
    draws = torch.rand(count, len(CHOICES), generator=source(seed)).tolist()
    pairs = [zip(CHOICES.items(), row, strict=True) for row in draws]
    return [Description(**{name: values[int(u * len(values))] for (name, values), u in pair}) for pair in pairs]


@pytest.fixture(scope="module")
def told() -> list[tuple[Description, str]]:
    generator = source()
    forgotten = [forget(description, generator) for description in described(6000)]
    return [(description, caption(description, generator)) for description in forgotten]


def test_what_a_caption_says_is_read_from_it_again(told):
    for description, text in told:
        assert parse(text) == description, text


def test_the_vocabulary_is_the_words_of_captions_and_no_others(told):
    used = {word for _, text in told for word in re.findall(r"[^ ,]+", text)}
    assert used == set(VOCABULARY)
    assert list(VOCABULARY) == sorted(used)
    assert all(re.fullmatch("[a-z0-9]+", word) for word in VOCABULARY)


def test_captions_are_well_formed(told):
    for _, text in told:
        assert re.fullmatch(r"[a-z0-9]+(,? [a-z0-9]+)*", text)
        assert not re.search(r"\ba [aeiou](?!ne\b)|\ba 8|\ban [^aeiou8]|\ban one\b", text), text


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("seven", Description("7")),
        ("a thick red 7", Description("7", "red", stroke="thick")),
        (
            "a small green three leaning left on a white background",
            Description("3", "green", "white", lean="left", size="small"),
        ),
        ("an orange 8 in the middle", Description("8", "orange", place="middle")),
        ("a digit", Description()),
    ],
)
def test_captions_include(text, description):
    generator = source()
    assert text in {caption(description, generator) for _ in range(5000)}


def test_wording_varies_and_is_the_generators_alone():
    generator = source(1)
    assert len({caption(SEVEN, generator) for _ in range(100)}) > 90
    before = torch.get_rng_state()
    assert caption(SEVEN, source(5)) == caption(SEVEN, source(5))
    assert forget(SEVEN, source(5)) == forget(SEVEN, source(5))
    assert torch.equal(before, torch.get_rng_state())


def test_forgetting_leaves_short_captions_and_sometimes_no_digit():
    generator, count = source(2), 4000
    kept = [forget(SEVEN, generator).said() for _ in range(count)]
    assert all(SEVEN.said().items() >= said.items() for said in kept)
    assert sum("digit" not in said for said in kept) / count == pytest.approx(0.18, abs=0.02)
    assert sum(said.keys() <= {"digit"} for said in kept) / count == pytest.approx(0.10, abs=0.02)
    assert sum(len(said.keys() - {"digit"}) == 6 for said in kept) / count == pytest.approx(0.08, abs=0.02)
    shares = {name: sum(name in said for said in kept) / count for name in CHOICES}
    assert min(shares.values()) > 0.25
    assert shares["ink"] > shares["paper"] > shares["place"]


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("A BIG Purple 4!", Description("4", "purple", size="large")),
        ("please paint one red seven", Description("1", "red")),
        ("seven, blue background, on the left", Description("7", paper="blue", place="left")),
        ("left leaning", Description(place="left")),
        ("a 17 or a 70", Description()),
        ("black on pink, tilted to the right, top", Description(None, "black", "pink", lean="right", place="top")),
        ("red or green", Description(ink="red")),
        ("", Description()),
        ("привет \0 🎨", Description()),
    ],
)
def test_prompts_are_read_as_far_as_the_words_go(text, description):
    assert parse(text) == description


def test_a_combination_matches_what_says_all_of_it():
    red_seven = Description("7", ink="red")
    assert matches(SEVEN, red_seven)
    assert matches(SEVEN, SEVEN)
    assert matches(SEVEN, Description())
    assert not matches(SEVEN, Description("7", ink="blue"))
    assert not matches(Description("7"), red_seven)


@pytest.mark.parametrize("name", CHOICES)
def test_a_description_takes_the_choices_alone(name):
    for value in CHOICES[name]:
        assert Description(**{name: value}).said() == {name: value}
    for value in ("plaid", "", 7, ["red"]):
        with pytest.raises(ValueError, match=rf"^unknown {name} .*; the choices are .*\.$"):
            Description(**{name: value})


def test_colours_are_far_from_each_other():
    """So far that those nearest to each other cannot be mistaken, even where both are a few levels off."""
    colours = torch.tensor(list(COLOURS.values()), dtype=torch.float64)
    distances = torch.cdist(colours, colours) + torch.eye(len(colours)) * 1e9
    assert distances.min() > 80
