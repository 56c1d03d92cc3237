"""What the classifier makes of a result: in the grid picture by picture, and in a sentence."""

import html
from collections import Counter
from typing import Any

from diffusion.ui.studio import Reading, Result, Studio
from diffusion.ui.widgets import grid

SURE = 0.8  # the confidence below which a reading counts as unsure


def judged(result: Result) -> dict[str, Any]:
    """The grid of a result, each picture with what the classifier reads and whether that is what was asked for."""
    captions = [f"{reading.label} · {100 * reading.confidence:.0f} %" for reading in result.readings]
    return grid(result.pictures, captions=captions, marks=[_mark(*pair) for pair in _readings(result)])


def _mark(prompt: str, reading: Reading) -> str | None:
    if prompt not in ("", reading.label):
        return "differ"
    if reading.confidence < SURE:
        return "doubt"
    return "agree" if prompt else None


def account(studio: Studio, result: Result, opening: str = "") -> str:
    """The status line of a result: how it reads, what it cost, and what made it."""
    wanted = result.request
    seeds = f"seed {wanted.seed}" if wanted.count == 1 else f"seeds {wanted.seed} to {wanted.seeds[-1]}"
    cost = f"{result.calls} network calls, {result.seconds:.1f} s, {seeds}, {studio.about}."
    return f'<p role="status">{opening} <strong>{html.escape(verdict(result))}</strong> {html.escape(cost)}</p>'


def verdict(result: Result) -> str:
    """What the classifier makes of a result, in a sentence."""
    pairs, count = _readings(result), result.request.count
    if "" in result.request.prompts:
        seen = Counter(reading.label for _, reading in pairs)
        return f"The classifier sees {', '.join(f'{seen[name]} × {name}' for name in sorted(seen))}."
    right = sum(prompt == reading.label for prompt, reading in pairs)
    asked = set(result.request.prompts)
    return f"The classifier reads {right} of {count} as {_a(*asked) if len(asked) == 1 else 'the digits asked for'}."


def _readings(result: Result) -> list[tuple[str, Reading]]:
    return list(zip(result.request.prompts, result.readings, strict=True))


def _a(name: str) -> str:
    return f"{'an' if name[0] in '8aeiou' else 'a'} {name}"
