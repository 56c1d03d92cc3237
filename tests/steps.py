"""What a measurement that reports its progress has yielded and returned."""

from collections.abc import Generator
from typing import TypeVar

Y = TypeVar("Y")
R = TypeVar("R")


def finish(steps: Generator[Y, None, R]) -> tuple[list[Y], R]:
    """Run it to its end."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value
