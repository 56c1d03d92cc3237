"""How the app words things: numbers with their nouns, estimates, seeds, and the line that screen readers announce."""

import html

from diffusion.request import Request


def announced(text: str) -> str:
    """A line of plain text as HTML; screen readers hear it when it changes."""
    return f'<p role="status">{html.escape(text)}</p>'


def article(name: str) -> str:
    """A class with its article: a 3, an 8, an ankle boot."""
    return f"{'an' if name[0].lower() in '8aeiou' else 'a'} {name}"


def counted(count: int, noun: str) -> str:
    """So many of something: "1 digit", "16 digits"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """An estimate as one says it."""
    if seconds < 0.1:
        return "under 0.1 s"
    return f"about {seconds:.1f} s" if seconds < 9.95 else f"about {seconds:.0f} s"


def seeds(request: Request) -> str:
    """The seeds that a request's pictures use."""
    first, last = request.seeds[0], request.seeds[-1] if request.travel is None else request.travel.seed
    return f"seed {first}" if first == last else f"seeds {first} to {last}"
