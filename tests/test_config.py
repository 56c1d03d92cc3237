"""Mappings into dataclasses and back, and what the errors say."""

import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from diffusion.config import BY_KIND, STRICT, dump, parse


@dataclass(frozen=True)
class Circle:
    kind: Literal["circle", "disc"] = "circle"
    radius: float = 1.0
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ValueError(f"radius must be positive, but it is {self.radius}.")


@dataclass(frozen=True)
class Square:
    kind: Literal["square"] = "square"
    side: float = 1.0
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Pen:
    width: int = 2
    color: Literal["black", "red"] = "black"
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Drawing:
    title: str
    shape: Annotated[Circle | Square, BY_KIND] = field(default_factory=Circle)
    pen: Pen = field(default_factory=Pen)
    second: Pen | None = None
    sizes: tuple[int, ...] = (1, 2)
    __pydantic_config__ = STRICT


FULL = {
    "title": "a",
    "shape": {"kind": "square", "side": 2.5},
    "pen": {"width": 3, "color": "red"},
    "second": {"width": 1, "color": "black"},
    "sizes": [4, 5, 6],
}


def test_every_part_is_read_and_written_back():
    drawing = parse(Drawing, FULL, "here")
    assert drawing == Drawing("a", Square(side=2.5), Pen(3, "red"), Pen(1), (4, 5, 6))
    assert dump(drawing) == FULL
    assert parse(Drawing, json.loads(json.dumps(dump(drawing))), "here") == drawing


def test_what_is_not_given_has_its_default():
    assert parse(Drawing, {"title": "a"}, "here") == Drawing("a")


@pytest.mark.parametrize("kind", ["circle", "disc", "square"])
def test_a_union_is_told_apart_by_kind(kind):
    shape = parse(Drawing, {"title": "a", "shape": {"kind": kind}}, "here").shape
    assert shape == (Square() if kind == "square" else Circle(kind))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": 1}, "unknown key 'titel'; the keys here are title, shape, pen, second, sizes."),
        ({"pen": {"widht": 1}}, "unknown key 'pen.widht'; the keys here are width, color."),
        ({"second": {"widht": 1}}, "unknown key 'second.widht'; the keys here are width, color."),
        ({"shape": {"kind": "square", "radius": 1}}, "unknown key 'shape.radius'; the keys here are kind, side."),
        ({"shape": {"kind": "disc", "side": 1}}, "unknown key 'shape.side'; the keys here are kind, radius."),
        ({"shape": {"kind": "star"}}, "'shape.kind': unknown kind 'star'; the choices are 'circle', 'disc', 'square'."),
        ({"shape": {"radius": 1}}, "'shape.kind' is missing."),
        ({"title": 3}, "'title': input should be a valid string (got 3)."),
        ({"pen": {"color": "blue"}}, "'pen.color': input should be 'black' or 'red' (got 'blue')."),
        ({"pen": {"width": 1.5}}, "'pen.width': input should be a valid integer"),
        ({"pen": {"width": "wide"}}, "'pen.width': input should be a valid integer"),
        ({"pen": {"width": None}}, "'pen.width': input should be a valid integer (got None)."),
        ({"shape": {"kind": "circle", "radius": "big"}}, "'shape.radius': input should be a valid number"),
        (
            {"shape": {"kind": "circle", "radius": math.nan}},
            "'shape.radius': input should be a finite number (got nan).",
        ),
        (
            {"shape": {"kind": "circle", "radius": math.inf}},
            "'shape.radius': input should be a finite number (got inf).",
        ),
        ({"shape": {"kind": "circle", "radius": -1}}, "'shape': radius must be positive, but it is -1.0."),
        ({"sizes": [1, "x"]}, "'sizes.1': input should be a valid integer"),
        ({"sizes": 3}, "'sizes': input should be a valid tuple (got 3)."),
        ({"pen": 3}, "'pen': input should be a dictionary or an instance of Pen (got 3)."),
    ],
)
def test_an_error_is_one_sentence_with_the_place_the_key_and_the_choices(change, message):
    with pytest.raises(ValueError) as error:
        parse(Drawing, {"title": "a", **change}, "recipe.yaml")
    assert str(error.value).startswith(f"recipe.yaml: {message}")
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match=r"^here: 'title' is missing\.$"):
        parse(Drawing, {}, "here")


@pytest.mark.parametrize("given", [None, 3, "title: a", [("title", "a")]])
def test_settings_must_be_a_mapping(given):
    with pytest.raises(ValueError, match=f"^here: expected a mapping of settings, got {type(given).__name__}\\.$"):
        parse(Drawing, given, "here")
