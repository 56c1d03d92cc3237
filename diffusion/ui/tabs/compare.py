"""The tab Compare: samplers in rows, budgets in columns, every cell computed from the same noise and measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import gradio as gr

from diffusion.request import Request
from diffusion.samplers import SAMPLERS
from diffusion.ui.comparison import CALLS, EXAMPLE, MOST_PICTURES, STEPS, Contest, fill, plan, seconds
from diffusion.ui.controls import ENGINE, MAX_UI_SEED, Shown, explain
from diffusion.ui.errors import polite
from diffusion.ui.lab import Lab
from diffusion.ui.shelf import Shelf
from diffusion.ui.standings import account, detail, plot, progress, table
from diffusion.ui.studio import Studio, paced
from diffusion.ui.widgets import EACH, DigitGrid, DigitPicker, ScoreTable, TradeoffPlot
from diffusion.ui.wording import counted, duration

LEAD = "<p>Which sampler, and how many steps? Here all of them start from the same noise.</p>"
ROWS, COUNT, SEED = ["dpmpp_2m", "euler_maruyama", "heun"], 20, 0  # what the controls open with
OPENING, OPENING_COUNT = "4, 8, 12", 10  # the table that is there before: less of the same
CHOOSE = "<h2>Choose a cell</h2>"
GONE = "This table is no longer kept here: fill it again."
FOLLOW = """() => {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    document.querySelector("#compare-detail")?.scrollIntoView({block: "nearest", behavior: still ? "auto" : "smooth"});
}"""
QUIET = {"api_visibility": "private", "show_progress": "hidden"}


@cache
def shown(studio: Studio) -> Shown:
    """What the tab opens with for a model: a small table, computed when the model is first asked for."""
    digit, guidance = EACH if studio.suggestions else "", studio.defaults["guidance"]
    asked = plan(
        studio, ROWS, OPENING, CALLS, digit, guidance, OPENING_COUNT, SEED,
        run=f"opening-{studio.name}-{studio.weights}",
    )  # fmt: skip
    *_, (contest, _) = fill(studio, asked)
    best = next(iter(contest.best().values()))
    heading, pictures, facts = detail(contest, best)
    return {
        "picker": DigitPicker.showing(
            studio.suggestions, digit, thumbnails=studio.thumbnails, free=studio.sentences,
            label=studio.asking, visible=bool(studio.suggestions),
        ),
        "guidance": {"value": guidance, "visible": bool(studio.suggestions)},
        "go": {"value": label(studio, ROWS, EXAMPLE, CALLS, digit, guidance, COUNT, SEED)},
        "status": {"value": account(studio, contest, "Made when the model was opened: ")},
        "table": {"value": table(contest, selected=best)},
        "room": {"visible": studio.classifier is not None},  # the plot is of what is read
        "plot": {"value": plot(contest)},
        "heading": {"value": heading},
        "grid": {"value": pictures},
        "facts": {"value": facts},
        "contest": {"value": contest},
        "chosen": {"value": contest.cells[best].request},
    }  # fmt: skip


@dataclass(frozen=True)
class Handles:
    """The tab's components; `chosen` is the Request of the cell on show, whose settings `take` offers to other tabs."""

    tab: gr.Tab
    samplers: gr.Dropdown
    columns: gr.Textbox
    by: DigitPicker
    picker: DigitPicker
    guidance: gr.Slider
    count: gr.Slider
    seed: gr.Number
    go: gr.Button
    stop: gr.Button
    status: gr.HTML
    table: ScoreTable
    room: gr.Column
    plot: TradeoffPlot
    heading: gr.HTML
    grid: DigitGrid
    facts: gr.HTML
    take: gr.Button
    contest: gr.State
    chosen: gr.State

    shown = staticmethod(shown)

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What `plan` takes, in its order."""
        return [self.samplers, self.columns, self.by, self.picker, self.guidance, self.count, self.seed]

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `run` yields, in its order; the last four are of one cell."""
        return [self.table, self.plot, self.status, self.contest, *self.cell]

    @property
    def cell(self) -> list[gr.components.Component]:
        """What `select` gives, in its order."""
        return [self.heading, self.grid, self.facts, self.chosen]


def build(shelf: Shelf) -> Handles:
    """Draws the tab, with the default model's opening table."""
    now, limits = shown(shelf.default), shelf.limits
    with gr.Tab("Compare", id="compare", elem_id="compare-tab") as tab:
        gr.HTML(LEAD, elem_classes="lab-lead")
        with gr.Row(equal_height=False, elem_classes="lab-split"):
            with gr.Column(scale=4, min_width=290):
                with gr.Column(elem_classes="lab-card"):
                    samplers = gr.Dropdown(
                        [(info.title, name) for name, info in SAMPLERS.items()], value=ROWS, multiselect=True,
                        label="Samplers", info="A row each.", elem_id="compare-samplers",
                    )  # fmt: skip
                    by = DigitPicker([CALLS, STEPS], CALLS, label="A column is equal in", elem_id="compare-by")
                    columns = gr.Textbox(EXAMPLE, label="Columns", max_lines=1, elem_id="compare-columns")
                    with gr.Row(elem_classes="lab-actions"):
                        go = gr.Button(**now["go"], variant="primary", size="lg", min_width=180, elem_id="compare-go")
                        stop = gr.Button("Stop", size="lg", scale=0, min_width=70, elem_id="compare-stop")
                with gr.Column(elem_classes=["lab-card", "lab-later"]):
                    picker = DigitPicker(**now["picker"], any="Any", each="One of each", elem_id="compare-picker")
                    count = gr.Slider(
                        2, min(MOST_PICTURES, limits.count), min(COUNT, limits.count), step=1,
                        label="Pictures in a cell", info="All are scored; ten are shown.", elem_id="compare-count",
                    )  # fmt: skip
                    guidance = gr.Slider(
                        0, 10, step=0.1, label="Guidance", info="1 means none.", elem_id="compare-guidance",
                        **now["guidance"],
                    )  # fmt: skip
                    seed = gr.Number(
                        SEED, label="Seed", info="Picture i of every cell uses seed + i.", precision=0, minimum=0,
                        maximum=MAX_UI_SEED, elem_id="compare-seed",
                    )  # fmt: skip
            with gr.Column(scale=9, min_width=290):
                with gr.Column(elem_classes="lab-card"):
                    status = gr.HTML(**now["status"], elem_id="compare-status", elem_classes="lab-status")
                    board = ScoreTable(**now["table"], label="Samplers and budgets", elem_id="compare-table")
                with gr.Column(**now["room"], elem_classes="lab-card") as room:
                    curve = TradeoffPlot(**now["plot"], label="What calls buy", elem_id="compare-plot")
        with gr.Row(equal_height=False, elem_classes="lab-card", elem_id="compare-detail"):
            with gr.Column(scale=4, min_width=280):
                heading = gr.HTML(**now["heading"], elem_id="compare-heading", elem_classes="lab-lead")
                facts = gr.HTML(**now["facts"], elem_id="compare-facts", elem_classes="lab-facts")
                take = gr.Button("Use these settings in Generate", elem_id="compare-take")
            with gr.Column(scale=7, min_width=280):
                cells = DigitGrid(**now["grid"], label="Pictures of the chosen cell", elem_id="compare-grid")
        explain("What is compared, and how far to trust it", "compare")
        contest = gr.State(now["contest"]["value"])
        chosen = gr.State(now["chosen"]["value"])
    return Handles(
        tab, samplers, columns, by, picker, guidance, count, seed, go, stop, status, board, room, curve, heading, cells,
        facts, take, contest, chosen,
    )  # fmt: skip


def wire(shelf: Shelf, lab: Lab) -> None:
    """Connects the tab's events."""
    own = lab.compare
    inputs = [lab.model, *own.inputs]
    gr.on(
        [control.change for control in own.inputs], shelf.on(label), inputs, own.go,
        api_name="_compare_label", queue=False, trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    running = own.go.click(shelf.on(run), inputs, own.outputs, api_name="_compare_run", **QUIET, **ENGINE)
    running.failure(
        shelf.on(stopped), [lab.model, own.contest], [own.table, own.status],
        api_name="_compare_stopped", queue=False, **QUIET,
    )  # fmt: skip
    running.success(
        shelf.on(crown), [lab.model, own.contest, own.chosen], [own.table, *own.cell],
        api_name="_compare_crown", queue=False, **QUIET,
    )  # fmt: skip
    gr.on([own.stop.click, lab.model.input], None, None, None, cancels=[running], queue=False)
    chosen = own.table.select(
        shelf.on(select), [lab.model, own.contest], own.cell,
        api_name="_compare_select", queue=False, trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    chosen.success(None, None, None, js=FOLLOW)
    theirs = lab.generate.sampling
    own.take.click(
        polite(lambda chosen: (gr.Tabs(selected="generate"), *settings(chosen))),
        own.chosen, [lab.tabs, theirs.sampler, theirs.steps], api_name="_compare_take", **QUIET,
    )  # fmt: skip


def label(studio: Studio, *controls: Any) -> str:
    """The primary button's text: how many cells there are to fill, and how long that will take here."""
    try:
        contest = plan(studio, *controls)
    except ValueError:  # said in full when the button is pressed
        return "Compare"
    return f"Fill {counted(len(contest.cells), 'cell')} · {duration(seconds(studio, contest))}"


def run(studio: Studio, *controls: Any) -> Iterator[Any]:
    """Fills a table cell by cell: what `Handles.outputs` show, the table and plot anew with each finished cell."""
    contest, kept = plan(studio, *controls), gr.skip()
    yield table(contest, running=True), plot(contest), progress(studio, contest), contest, CHOOSE, None, "", None
    cells = fill(studio, contest)
    try:
        for (contest, step), due in paced(cells):
            if step is None:
                yield table(contest, running=True), plot(contest), progress(studio, contest), contest, *[kept] * 4
            elif due:
                yield kept, kept, progress(studio, contest, f"step {step.index}"), *[kept] * 5
            else:
                yield kept
    finally:
        cells.close()
    yield table(contest), plot(contest), account(studio, contest), contest, *[kept] * 4


def crown(studio: Studio, contest: Contest, chosen: Request | None) -> tuple[Any, ...]:
    """The best cell of a full table, chosen for who has not chosen one by then."""
    if chosen is not None or not contest.done:
        return (gr.skip(),) * 5
    best = next(iter(contest.best().values()), 0)
    return table(contest, selected=best), *detail(contest, best), contest.cells[best].request


def stopped(studio: Studio, contest: Contest | None) -> Any:
    """Table and status of a run that did not come to its end; one that never began changed nothing."""
    if contest is None or contest.done or contest.model != studio.name:
        return gr.skip()
    said = f"{len(contest.scores)} of {len(contest.cells)} cells are filled, and can be chosen; the engine is free."
    return table(contest), f'<p role="status"><strong>Stopped.</strong></p><p>{said}</p>'


def select(studio: Studio, contest: Contest | None, event: gr.EventData) -> tuple[Any, ...]:
    """What is to be seen of the chosen cell, and its request; the event says which cell of which run."""
    told = event._data if isinstance(event._data, dict) else {}  # gr.SelectData breaks where there is nothing
    if contest is None or (contest.model, contest.run) != (studio.name, told.get("value")):
        raise ValueError(GONE)
    place = told.get("index")
    row, column = place if isinstance(place, list) and len(place) == 2 else (None, None)
    index = contest.find(row, column)
    return *detail(contest, index), contest.cells[index].request


def settings(chosen: Request | None) -> tuple[str, int]:
    """Sampler and steps of the chosen cell, for the controls of another tab."""
    if chosen is None:
        raise ValueError("Choose a finished cell of the table first.")
    return chosen.sampler, chosen.steps
