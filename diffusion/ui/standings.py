"""How the Compare tab shows a contest: as a table, as a plot, one of its cells, and in a sentence."""

import html
from typing import Any

from diffusion.samplers import SAMPLERS
from diffusion.ui.comparison import CALLS, Cell, Contest, Score, wilson
from diffusion.ui.studio import Studio
from diffusion.ui.verdict import judged
from diffusion.ui.widgets import scores, tradeoff
from diffusion.ui.widgets.scores import PICTURES, Fact, Filled, Row
from diffusion.ui.widgets.tradeoff import Line, Point
from diffusion.ui.wording import seeds


def table(contest: Contest, *, running: bool = False, selected: int | None = None) -> dict[str, Any]:
    """The table; while it is running the next cell is marked, and which is best is left open."""
    best = {} if running else contest.best()
    cells: dict[tuple[str, int | None], Filled | str] = {}
    for index, cell in enumerate(contest.cells):
        if index < len(contest.scores):
            score = contest.scores[index]
            facts = _facts(score, {name for name, i in best.items() if i == index})
            cells[cell.sampler, cell.column] = Filled(score.result.pictures, facts)
        else:
            cells[cell.sampler, cell.column] = "running" if running and index == len(contest.scores) else "waiting"
    rows = [
        Row(
            SAMPLERS[name].title,
            {0: "as many calls as it needs", 1: "1 call a step", 2: "2 calls a step"}[SAMPLERS[name].calls_per_step],
            [cells[name, None]] if (name, None) in cells else [cells[name, k] for k in range(len(contest.columns))],
        )
        for name in contest.samplers
    ]
    count = contest.cells[0].request.count
    unit = "calls" if contest.by == CALLS else "steps"
    place = None if selected is None else _place(contest, contest.cells[selected])
    return scores(
        contest.run,
        f"{count} pictures in every cell, all cells from the same noise",
        "Sampler",
        [f"{number} {unit[:-1] if number == 1 else unit}" for number in contest.columns],
        rows,
        key=_key(contest),
        selected=place,
    )


def _place(contest: Contest, cell: Cell) -> tuple[int, int]:
    return contest.samplers.index(cell.sampler), cell.column or 0


def _key(contest: Contest) -> str:
    first = contest.cells[0].request
    held = (
        f"{first.count} pictures in every cell, {seeds(first)}; {min(first.count, PICTURES)} are shown, all are scored."
    )
    measures = ["calls", "seconds"]
    if contest.ruler is not None:
        measures.insert(0, "distance d from real pictures (0 is as real, lower is better)")
    if contest.read:
        measures.insert(0, "mean confidence of the classifier" if "" in first.prompts else "read as prompted")
    return f"{held} Under them: {', '.join(measures)}. A dot marks the best."


def _facts(score: Score, best: set[str]) -> list[Fact]:
    facts = []
    if score.right is not None:
        facts.append(Fact(f"{score.right} of {score.count}", "read as prompted", "right" in best))
    elif score.confidence is not None:
        facts.append(Fact(f"{percent(score.confidence)}", "mean confidence", "confidence" in best))
    if score.distance is not None:
        facts.append(Fact(f"d {thousandths(score.distance)}", "from real pictures", "distance" in best))
    calls = score.result.calls
    facts.append(Fact(f"{calls} call{'s' if calls > 1 else ''}"))
    facts.append(Fact(f"{score.result.seconds:.2f} s", "", "seconds" in best))
    return facts


def thousandths(distance: float) -> str:
    """A kernel distance as it is written: in thousandths, and no finer than it means something."""
    value = 1000 * distance
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.1f}".replace("-", "−")


def percent(share: float) -> str:
    """A share of few pictures, in whole per cent."""
    return f"{100 * share:.0f} %"


def plot(contest: Contest) -> dict[str, Any]:
    """What each sampler reaches for how many calls."""
    prompted = "" not in contest.cells[0].request.prompts
    lines = []
    for row, name in enumerate(contest.samplers):
        points = []
        for cell, score in zip(contest.cells, contest.scores, strict=False):
            share = score.right / score.count if score.right is not None else score.confidence
            if cell.sampler == name and share is not None:
                said = (
                    f"{score.right} of {score.count} read as prompted" if prompted else f"confidence {percent(share)}"
                )
                points.append(Point(score.result.calls, share, f"{_title(cell)}, {score.result.calls} calls: {said}"))
        lines.append(Line(SAMPLERS[name].title, row, sorted(points)))
    return tradeoff(
        "Read as prompted" if prompted else "Mean confidence of the classifier",
        lines,
        ends=(min(contest.columns), max(contest.columns)),
    )


def _title(cell: Cell) -> str:
    steps = cell.request.steps
    pace = "its own steps" if cell.column is None else f"{steps} step{'s' if steps > 1 else ''}"
    return f"{SAMPLERS[cell.sampler].title}, {pace}"


def detail(contest: Contest, index: int) -> tuple[str, dict[str, Any], str]:
    """Heading, pictures and figures of a finished cell."""
    cell, score = contest.cells[index], contest.scores[index]
    facts = {"Network calls": f"{score.result.calls}", "Seconds": f"{score.result.seconds:.2f}"}
    if score.right is not None:
        low, high = wilson(score.right, score.count)
        facts["Read as prompted"] = f"{score.right} of {score.count}"
        facts["95 % interval"] = f"{percent(low)} to {percent(high)}"
    if score.confidence is not None:
        facts["Mean confidence"] = percent(score.confidence)
    if score.distance is not None:
        spread = thousandths(contest.ruler.spread)
        facts["Distance d ± one deviation"] = f"{thousandths(score.distance)} ± {spread}"
    listed = "".join(f"<div><dt>{name}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts.items())
    return f"<h2>{html.escape(_title(cell))}</h2>", judged(score.result), f"<dl>{listed}</dl>"


def progress(studio: Studio, contest: Contest, step: str = "") -> str:
    """The status of a table under way; screen readers hear its beginning and not every step."""
    at = len(contest.scores)
    now = "" if at == len(contest.cells) else f"Cell {at + 1}: {_title(contest.cells[at])}{step and f', {step}'}."
    return (
        f'<p><strong role="status">Filling {len(contest.cells)} cells.</strong></p>'
        f'<p aria-hidden="true">{html.escape(now)} {html.escape(studio.about)}.</p>'
    )


def account(studio: Studio, contest: Contest, opening: str = "") -> str:
    """The status of a full table: what comes out of it in a sentence and, in a second line, what it cost."""
    best, first = contest.best(), contest.cells[0].request
    index = best.get("right", best.get("confidence"))
    verdict = "All cells are filled."
    if index is not None:
        score, title = contest.scores[index], _title(contest.cells[index])
        if score.right is None:
            verdict = f"Read with the most confidence, {percent(score.confidence)}: {title}."
        else:
            verdict = f"Most read as prompted for the fewest calls, {score.right} of {score.count}: {title}."
    calls, took = sum(s.result.calls for s in contest.scores), sum(s.result.seconds for s in contest.scores)
    cost = (
        f"{opening}{len(contest.cells)} cells of {first.count} pictures, {calls} network calls, {took:.1f} s, "
        f"{seeds(first)}, {studio.about}."
    )
    return f'<p role="status"><strong>{html.escape(verdict)}</strong></p><p>{html.escape(cost)}</p>'
