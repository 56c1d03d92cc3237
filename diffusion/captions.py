"""A small language of pictures: what can be said of a painted digit, how it is worded, and what words ask for."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from pydantic import ConfigDict

from diffusion import config
from diffusion.words import split

Phrases = Mapping[str, tuple[str, ...]]

COLOURS = {
    "black": (22, 22, 26),
    "white": (246, 246, 244),
    "red": (218, 40, 46),
    "orange": (240, 122, 18),
    "yellow": (250, 206, 36),
    "green": (34, 150, 72),
    "blue": (26, 78, 206),
    "purple": (126, 42, 158),
    "pink": (250, 142, 190),
}
"""Name -> RGB from 0 to 255."""
_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS: Phrases = {str(figure): (word, str(figure)) for figure, word in enumerate(_COUNTED)}
SIZES: Phrases = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium sized"),
    "large": ("large", "big", "huge"),
}
STROKES: Phrases = {
    "thin": ("thin", "fine"),
    "normal": ("normal", "regular"),
    "thick": ("thick", "bold", "fat"),
}
"""What a digit or its strokes are called."""
_TO_A_SIDE = ("leaning {}", "leaning to the {}", "slanted to the {}", "tilting {}", "tilted to the {}")
LEANS: Phrases = {
    "left": tuple(phrase.format("left") for phrase in _TO_A_SIDE),
    "upright": ("standing upright", "standing straight"),
    "right": tuple(phrase.format("right") for phrase in _TO_A_SIDE),
}
_UPRIGHT = ("upright", "straight")
"""The one lean that is an adjective too."""
PLACES: Phrases = {
    "middle": ("in the middle", "in the centre", "in the center"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "left": ("on the left",),
    "right": ("on the right",),
} | {
    f"{row} {column}": (f"in the {row} {column} corner", f"at the {row} {column}", f"in the {other} {column} corner")
    for row, other in (("top", "upper"), ("bottom", "lower"))
    for column in ("left", "right")
}
"""Nine cells, three by three."""

CHOICES = {
    "digit": tuple(DIGITS),
    "ink": tuple(COLOURS),
    "paper": tuple(COLOURS),
    "stroke": tuple(STROKES),
    "lean": tuple(LEANS),
    "size": tuple(SIZES),
    "place": tuple(PLACES),
}
"""Attribute -> its values."""
_NOUNS = ("a {} {}", "{} {}", "the {} digit {}")  # adjectives, then the digit
_INK = "in {}"
_PAPERS = ("on a {} background", "on {} paper", "on {}")
_WEIGHT = "with {} strokes"
_AN = ("orange", "upright", "eight", "8")  # what "an" stands before
_KEPT = (0.10, 0.20, 0.22, 0.18, 0.13, 0.09, 0.08)  # how often none to all six attributes besides the digit are kept
_MENTIONED = {"ink": 2.5, "paper": 2.0, "stroke": 2.0, "lean": 2.0, "size": 1.5, "place": 1.0}  # odds of being kept
_NAMELESS = 0.2  # how often other things are said but not the digit, as in most negative prompts


@dataclass(frozen=True)
class Description:
    """What is said of a picture: of each attribute one of its CHOICES, or None where nothing is said.

    Raises ValueError for other values.
    """

    digit: str | None = None
    ink: str | None = None
    paper: str | None = None
    stroke: str | None = None
    lean: str | None = None
    size: str | None = None
    place: str | None = None

    __pydantic_config__ = config.STRICT | ConfigDict(coerce_numbers_to_str=True)  # YAML reads 7 as a number

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) is not None and value not in choices:
                raise ValueError(f"unknown {name} {value!r}; the choices are {', '.join(choices)}.")

    def said(self) -> dict[str, str]:
        """The attributes of which something is said."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def matches(description: Description, part: Description) -> bool:
    """Whether all that `part` says is true of the description."""
    return part.said().items() <= description.said().items()


def forget(description: Description, source: torch.Generator) -> Description:
    """Leave attributes out at random, most of them more often than not, so that short captions are common.

    One in ten keeps the digit alone, one in twelve keeps all, nearly one in five loses the digit; none says nothing.
    """
    kept = int(torch.multinomial(torch.tensor(_KEPT), 1, generator=source))
    odds = torch.tensor(list(_MENTIONED.values()))
    chosen = torch.multinomial(odds, kept, generator=source).tolist() if kept else []
    names = {list(_MENTIONED)[i] for i in chosen}
    if torch.rand((), generator=source) >= _NAMELESS or not names:
        names.add("digit")
    return Description(**{name: value for name, value in description.said().items() if name in names})


def caption(description: Description, choose: torch.Generator) -> str:
    """Word what is said, one of many ways by chance: "a small green three leaning left on a white background".

    Adjectives stand before the digit, most often as size, stroke, ink, and phrases after it in any order.
    """
    draws = iter(torch.rand(32, generator=choose).tolist())

    def pick(options: tuple[str, ...]) -> str:
        return options[int(next(draws) * len(options))]

    def shuffled(items: list[str]) -> list[str]:
        return [item for _, item in sorted(zip(draws, items, strict=False))]

    def put(word: str, phrase: str) -> None:
        if next(draws) < 0.75:
            adjectives.append(word)
        else:
            phrases.append(phrase.format(word))

    said, adjectives, phrases = description.said(), [], []
    if "size" in said:
        adjectives.append(pick(SIZES[said["size"]]))
    if "stroke" in said:
        put(pick(STROKES[said["stroke"]]), _WEIGHT)
    if "ink" in said:
        put(said["ink"], _INK)
    if said.get("lean") == "upright" and next(draws) < 0.5:
        adjectives.insert(0, pick(_UPRIGHT))
    elif "lean" in said:
        phrases.append(pick(LEANS[said["lean"]]))
    if "place" in said:
        phrases.append(pick(PLACES[said["place"]]))
    if "paper" in said:
        phrases.append(pick(_PAPERS).format(said["paper"]))
    if next(draws) < 0.25:
        adjectives = shuffled(adjectives)
    digit = pick(DIGITS[said["digit"]]) if "digit" in said else "digit"
    noun = pick(_NOUNS if "digit" in said else _NOUNS[:2])
    text = " ".join(noun.format(" ".join(adjectives), digit).split())
    for phrase in shuffled(phrases):
        text += (", " if next(draws) < 0.2 else " ") + phrase
    return re.sub(rf"\ba (?=({'|'.join(_AN)})\b)", "an ", text)


def plainly(description: Description) -> str:
    """Word what is said in one plain way: "small thick red 7 on white, leaning left, at the top"."""
    said = description.said()
    paper = said.get("paper")
    words = [said.get(name) for name in ("size", "stroke", "ink")]
    text = " ".join(filter(None, [*words, said.get("digit", "digit")])) + (f" on {paper}" if paper else "")
    phrases = [table[said[name]][0] for name, table in (("lean", LEANS), ("place", PLACES)) if name in said]
    return ", ".join([text, *phrases])


def _words(*phrases: str) -> set[str]:
    return set(split(" ".join(phrases)))


VOCABULARY = tuple(
    sorted(
        _words(*COLOURS, *_UPRIGHT, *_NOUNS, *_PAPERS, _INK, _WEIGHT, "an")
        | {
            word
            for table in (DIGITS, SIZES, STROKES, LEANS, PLACES)
            for said in table.values()
            for word in _words(*said)
        }
    )
)
"""The words that captions are made of."""

_COLOUR = f"({'|'.join(COLOURS)})"
_LEANING = re.compile(r"\b(?:leaning|slanted|tilting|tilted)(?: to)?(?: the)? (left|right)\b")
_PAPER = re.compile(rf"\b{_COLOUR} (?:background|paper)\b|\bon (?:an? )?{_COLOUR}\b")
_ROWS = {"top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom"}
_COLUMNS = {"left": "left", "right": "right"}
_CENTRE = {"middle": "middle", "centre": "middle", "center": "middle"}
_NAMED = {
    name: {word: value for value, phrases in table.items() for word in phrases}
    for name, table in {"digit": DIGITS, "size": SIZES, "stroke": STROKES}.items()
}


def parse(text: str) -> Description:
    """What a prompt asks for, as far as it is said in the words of captions; the inverse of `caption`.

    Words outside the language are passed over, and of two words for one attribute the first counts.
    """
    rest, said = " ".join(split(text)), {}
    for name, pattern in (("lean", _LEANING), ("paper", _PAPER)):
        if found := pattern.search(rest):
            said[name] = found[found.lastindex]
            rest = pattern.sub(" ", rest)
    words = rest.split()

    def first(table: Mapping[str, str]) -> str | None:
        return next((table[word] for word in words if word in table), None)

    said |= {name: first(table) for name, table in _NAMED.items()} | {"ink": first({name: name for name in COLOURS})}
    said.setdefault("lean", first(dict.fromkeys(_UPRIGHT, "upright")))
    corner = " ".join(filter(None, (first(_ROWS), first(_COLUMNS))))
    return Description(**said, place=corner or first(_CENTRE))
