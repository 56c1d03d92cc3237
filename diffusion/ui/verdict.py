"""What the classifier makes of a result: in the grid picture by picture, and in a sentence."""

import html
from collections import Counter
from collections.abc import Sequence
from typing import Any

from diffusion.ui.studio import Reading, Result, Studio
from diffusion.ui.widgets import grid
from diffusion.ui.wording import article, counted, seeds

SURE = 0.8  # the confidence below which a reading counts as unsure


def judged(result: Result) -> dict[str, Any]:
    """The grid of a result, each picture with what the classifier reads and whether that is what was asked for."""
    if None in result.readings:
        return grid(result.pictures)
    captions = [f"{reading.label} · {100 * reading.confidence:.0f} %" for reading in result.readings]
    return grid(result.pictures, captions=captions, marks=[_mark(*pair) for pair in _readings(result)])


def _mark(prompt: str, reading: Reading) -> str | None:
    if prompt not in ("", reading.label):
        return "differ"
    if reading.confidence < SURE:
        return "doubt"
    return "agree" if prompt else None


def account(studio: Studio, result: Result, opening: str = "") -> str:
    """The status of a result: how it reads and, in a second line, what it cost and what made it."""
    cost = f"{opening}{result.calls} network calls, {result.seconds:.1f} s, {seeds(result.request)}, {studio.about}."
    said = html.escape(" ".join([verdict(studio, result), *unread(studio, result.request.prompts)]))
    return f'<p role="status"><strong>{said}</strong></p><p>{html.escape(cost)}</p>'


def verdict(studio: Studio, result: Result) -> str:
    """What the classifier makes of a result, in a sentence."""
    pairs, count = _readings(result), result.request.count
    if None in result.readings:
        return f"{counted(count, studio.noun)}, which no classifier here can read."
    if "" in result.request.prompts:
        seen = Counter(reading.label for _, reading in pairs)
        return f"The classifier sees {', '.join(f'{seen[name]} × {name}' for name in sorted(seen))}."
    right = sum(prompt == reading.label for prompt, reading in pairs)
    asked = set(result.request.prompts)
    wanted = article(*asked) if len(asked) == 1 else f"the {studio.noun}s asked for"
    return f"The classifier reads {right} of {count} as {wanted}."


def unread(studio: Studio, prompts: Sequence[str]) -> list[str]:
    """A sentence on each word that a model passed over, with known ones spelt alike, and on what was too long."""
    if not studio.sentences:
        return []
    reader = studio.pipeline.conditioner
    found = [reader.understand(prompt) for prompt in dict.fromkeys(prompts)]
    sentences = []
    for word in dict.fromkeys(word[:24] for heard in found for word in heard.unknown):
        close = reader.nearest(word)
        sentences.append(f"It does not know “{word}”" + (f"; did you mean {' or '.join(close)}?" if close else "."))
    dropped = dict.fromkeys(word for heard in found for word in heard.dropped)
    if dropped:
        sentences.append(f"It reads {reader.length - 1} words; past them were {', '.join([*dropped][:8])}.")
    return sentences[:6]


def _readings(result: Result) -> list[tuple[str, Reading]]:
    return list(zip(result.request.prompts, result.readings, strict=True))
