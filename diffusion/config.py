"""Plain mappings (YAML, JSON) into frozen dataclasses and back, with errors that say what would be right."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Set as `__pydantic_config__` on every config dataclass: unknown keys, infinities and NaN are errors."""

BY_KIND = Field(discriminator="kind")
"""Annotates a union of config dataclasses: `kind` says which one is meant, so that errors are about that one."""


def parse(cls: type[T], mapping: Any, where: str) -> T:
    """Builds the dataclass `cls` from a nested mapping.

    Args:
        cls: a frozen dataclass whose fields are typed; nested dataclasses and unions told apart by `kind` are followed.
        mapping: what YAML or JSON gave.
        where: the file or place it came from, named in errors.

    Raises:
        ValueError: one sentence that names the key, what was wrong and the choices.
    """
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{where}: expected a mapping of settings, got {type(mapping).__name__}.")
    try:
        return TypeAdapter(cls).validate_python(dict(mapping))
    except ValidationError as error:
        raise ValueError(f"{where}: {_sentence(cls, error.errors()[0])}") from None


def dump(config: Any) -> dict[str, Any]:
    """The plain mapping that `parse` reads back; tuples become lists, so that it survives JSON and YAML."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _sentence(cls: type, error: Mapping[str, Any]) -> str:
    key, siblings = _locate(cls, [str(part) for part in error["loc"]])
    kind, context = error["type"], error.get("ctx", {})
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        names = dict.fromkeys(f.name for member in siblings for f in fields(member))
        return f"unknown key '{key}'; the keys here are {', '.join(names)}."
    if kind == "missing":
        return f"'{key}' is missing."
    if kind == "union_tag_not_found":
        return f"'{key}.kind' is missing."
    if kind == "union_tag_invalid":
        return f"'{key}.kind': unknown kind '{context['tag']}'; the choices are {context['expected_tags']}."
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    given = "" if isinstance(error["input"], (Mapping, list, tuple)) else f" (got {error['input']!r})"
    return f"'{key or 'the settings'}': {message[:1].lower()}{message[1:]}{given}."


def _locate(cls: type, path: list[str]) -> tuple[str, list[type]]:
    """The dotted key as it was written, without the union tags in pydantic's path, and the dataclasses that lack it."""
    keys: list[str] = []
    holders: list[type] = []
    members = _dataclasses(cls)
    for part in path:
        tagged = [m for m in members if part in _kinds(m)]
        if len(members) > 1 and tagged:
            members = tagged
            continue
        keys.append(part)
        if part.isdigit():  # of a list, all of whose entries are alike
            continue
        holders = members
        members = [inner for m in members for f in fields(m) if f.name == part for inner in _dataclasses(f.type)]
    return ".".join(keys), holders


def _dataclasses(annotation: Any) -> list[type]:
    """The dataclasses that a type annotation allows: itself, or the members of a union."""
    if is_dataclass(annotation):
        return [annotation]
    return [member for part in get_args(annotation) for member in _dataclasses(part)]


def _kinds(cls: type) -> tuple[str, ...]:
    return next((get_args(f.type) for f in fields(cls) if f.name == "kind"), ())
