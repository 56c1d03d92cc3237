"""The Compare tab's logic: cells that are plain runs, exact costs, measures recomputed, limits, and a free engine."""

import itertools
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
import numpy as np
import pytest
import tiny
import torch
from scipy.stats import binomtest

from diffusion.data import load
from diffusion.export import to_pictures
from diffusion.samplers import SAMPLERS
from diffusion.ui import comparison
from diffusion.ui.comparison import CALLS, STEPS, Contest, fill, plan, ruler, wilson
from diffusion.ui.shelf import Shelf
from diffusion.ui.standings import account, detail, plot, table
from diffusion.ui.studio import Limits, Studio
from diffusion.ui.tabs import compare
from diffusion.ui.widgets import EACH, scores
from diffusion.ui.widgets.scores import Filled, Row

DATA = Path(__file__).parent / "data"
SMALL: dict[str, Any] = {
    "samplers": ["heun", "dpmpp_2m", "predictor_corrector", "ode"], "columns": "6, 2", "by": CALLS, "digit": EACH,
    "guidance": 1.7, "count": 6, "seed": 3,
}  # fmt: skip


def controls(**changes: Any) -> list[Any]:
    """What the tab's controls give, in the order in which `plan` takes it."""
    return list({**SMALL, **changes}.values())


def filled(studio: Studio, **changes: Any) -> Contest:
    *_, (contest, _) = fill(studio, plan(studio, *controls(**changes)))
    return contest


def finished(studio: Studio, *given: Any) -> list[Any]:
    """The last thing that the tab shows of a run."""
    *_, last = compare.run(studio, *given)
    return list(last)


@pytest.fixture(scope="module")
def contest(studio: Studio) -> Contest:
    return filled(studio)


@pytest.fixture(scope="module")
def untrained() -> Studio:
    """A pixel model without prompts."""
    return Studio(tiny.model(), tiny.judge(), Limits(), Lock())


def test_every_cell_is_a_plain_run_from_the_same_noise(studio: Studio, contest: Contest) -> None:
    starts = []
    for cell, score in zip(contest.cells, contest.scores, strict=True):
        first, *_, last = studio.pipeline.generate(cell.request)
        starts.append(first.x)
        pictures = to_pictures(studio.pipeline.images(last, cell.request))
        assert np.array_equal(score.result.pictures, pictures), cell.sampler
        assert len(pictures) == 6
    assert all(torch.equal(start, starts[0]) for start in starts)
    assert {cell.request.prompts for cell in contest.cells} == {tuple("012345")}
    assert {cell.request.seeds for cell in contest.cells} == {range(3, 9)}


def test_calls_are_those_that_the_network_gets(studio: Studio) -> None:
    batches: list[int] = []
    hook = studio.pipeline.denoiser.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    try:
        asked = plan(studio, *controls())
        counted = []
        for done, step in fill(studio, asked):
            if step is None:
                counted.append((done.scores[-1].result.calls, len(batches)))
                batches.clear()
    finally:
        hook.remove()
    assert all(said == made for said, made in counted)
    fixed = {(cell.sampler, cell.column): calls for cell, (calls, _) in zip(asked.cells, counted, strict=True)}
    assert (fixed["dpmpp_2m", 0], fixed["dpmpp_2m", 1]) == (2, 6)
    assert (fixed["heun", 0], fixed["heun", 1]) == (1, 5)  # the last step is Euler's
    assert (fixed["predictor_corrector", 0], fixed["predictor_corrector", 1]) == (2, 6)


def test_columns_of_equal_calls_and_of_equal_steps(studio: Studio) -> None:
    def steps(by: str) -> dict[str, list[int]]:
        cells = plan(studio, *controls(by=by, columns="5 10;20")).cells
        return {name: [cell.request.steps for cell in cells if cell.sampler == name] for name in SMALL["samplers"]}

    own = [studio.defaults["steps"]]
    assert steps(CALLS) == {"dpmpp_2m": [5, 10, 20], "heun": [2, 5, 10], "predictor_corrector": [2, 5, 10], "ode": own}
    assert steps(STEPS) == {name: [5, 10, 20] for name in SMALL["samplers"][:3]} | {"ode": own}


def test_the_cheap_come_first_and_nothing_comes_twice(studio: Studio) -> None:
    asked = plan(studio, *controls(samplers=["ode", "heun", "ddim", "heun"], columns="9, 3, 9, 3"))
    assert asked.samplers == ("ddim", "heun", "ode") and asked.columns == (3, 9)
    places = [(cell.sampler, cell.column) for cell in asked.cells]
    assert places == [("ddim", 0), ("heun", 0), ("ddim", 1), ("heun", 1), ("ode", None)]


def test_accuracy_and_confidence_by_another_way(studio: Studio, contest: Contest) -> None:
    wrong = 0
    for score in contest.scores:
        x = torch.tensor(score.result.pictures).unsqueeze(1) / 127.5 - 1
        with torch.no_grad():
            share = torch.softmax(studio.classifier(x), 1).numpy()
        assert score.right == sum(share.argmax(1) == np.arange(6))
        assert score.confidence == pytest.approx(share.max(1).mean(), abs=0.01)  # pictures are rounded to bytes
        wrong += 6 - score.right
    assert wrong > 0  # or the count could be anything


def discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """Gretton et al. 2012, Lemma 6, pair by pair."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / len(a) + 1) ** 3

    within = [np.mean([k(a, b) for a, b in itertools.permutations(z, 2)]) for z in (x, y)]
    return sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])


def test_distance_by_another_way(studio: Studio, contest: Contest) -> None:
    score, used = contest.scores[0], contest.ruler
    real = torch.tensor(studio.examples[:6, 10:]).reshape(-1, 1, 28, 28)  # of the classes asked for
    y = studio.classifier.read(real).features.double().numpy()
    x = studio.classifier.read(torch.tensor(score.result.pictures)[:, None]).features.double().numpy()
    assert np.allclose(used.real.numpy(), y, atol=1e-5)
    assert score.distance + used.floor == pytest.approx(discrepancy(x, y), abs=1e-6)


@pytest.mark.parametrize(
    "asked",
    [tuple("0123456789") * 2, tuple("0123456789"), ("3",) * 20, ("",) * 20],
    ids=["two", "one", "threes", "any"],
)
def test_real_pictures_are_at_distance_zero_and_noise_is_far(studio: Studio, asked: tuple[str, ...]) -> None:
    """On pictures that the app has never seen."""
    used, data = ruler(studio, asked), load("mnist", "test", DATA, download=False)
    generator, distances = torch.Generator().manual_seed(1), []
    for _ in range(30):
        labels = [int(p) if p else torch.randint(10, (), generator=generator).item() for p in asked]
        order, chosen = torch.randperm(len(data.labels), generator=generator), []
        for label in labels:
            chosen.append(next(i for i in order.tolist() if data.labels[i] == label and i not in chosen))
        distances.append(used.distance(studio.classifier.read(data.images[chosen]).features))
    assert abs(np.mean(distances)) < 1.5 * used.spread
    noise = torch.randint(256, (len(asked), 1, 28, 28), generator=generator, dtype=torch.uint8)
    assert used.distance(studio.classifier.read(noise).features) > 8 * used.spread


@pytest.mark.parametrize(("right", "count"), [(0, 20), (1, 20), (19, 20), (20, 20), (3, 7), (30, 60)])
def test_interval_is_wilsons(right: int, count: int) -> None:
    reference = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right, count) == pytest.approx((reference.low, reference.high), abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samplers": []}, "at least one sampler"),
        ({"samplers": None}, "at least one sampler"),
        ({"samplers": "ddim"}, "at least one sampler"),
        ({"samplers": ["ddim", "warp"]}, "Unknown sampler 'warp'; the choices are dpmpp_2m"),
        ({"samplers": [["ddim"]]}, "Unknown sampler"),
        ({"samplers": [float("nan")]}, "Unknown sampler"),
        ({"columns": ""}, "whole numbers from 2 to 250, like 5, 10, 20, 50; but there are none"),
        ({"columns": None}, "whole numbers from 2"),
        ({"columns": [5, 10]}, "whole numbers from 2"),
        ({"columns": "5, ten"}, "not 'ten'"),
        ({"columns": "5, -3"}, "not '-3'"),
        ({"columns": "5.5"}, "not '5.5'"),
        ({"columns": "nan"}, "not 'nan'"),
        ({"columns": "²"}, "not '²'"),
        ({"columns": "1"}, "whole numbers from 2 to 250"),
        ({"columns": "0", "by": STEPS}, "whole numbers from 1 to 250"),
        ({"columns": str(10**9)}, "not '1000000000'"),
        ({"columns": "9" * 10**5}, "not '99999999999999999999'"),
        ({"columns": ",".join(map(str, range(2, 202)))}, "At most 8 columns, not 200"),
        ({"by": "seconds"}, "equal in network calls or in steps, not in 'seconds'"),
        ({"by": ["Steps"]}, "equal in network calls or in steps"),
        ({"digit": "eleven"}, "must be one of 0, 1, .* not 'eleven'"),
        ({"digit": ["3"]}, "must be one of"),
        ({"guidance": float("nan")}, "guidance must be a number from 0"),
        ({"guidance": [1]}, "guidance must be a number"),
        ({"count": 1}, "number of pictures must be a whole number from 2 to 60"),
        ({"count": 61}, "from 2 to 60, not 61"),
        ({"count": 2.5}, "must be a whole number"),
        ({"count": float("nan")}, "number of pictures must be"),
        ({"count": "20"}, "number of pictures must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": float("inf")}, "seed must be"),
        ({"seed": True}, "seed must be"),
        (
            {"samplers": list(SAMPLERS), "columns": "50, 100, 200", "count": 20},
            "cells of 20 pictures are .* network evaluations; at most 16,000 at once here: take fewer",
        ),
        ({"columns": "250", "count": 60}, "at most 16,000 at once here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_one_sentence(studio: Studio, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        finished(studio, *controls(**changes))
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value) and len(str(refusal.value)) < 300
    assert compare.label(studio, *controls(**changes)) == "Compare"


def test_numbers_from_sliders_are_floats(studio: Studio) -> None:
    assert plan(studio, *controls(count=6.0, seed=3.0)).cells == plan(studio, *controls()).cells


def test_the_button_says_how_much_there_is_to_do(studio: Studio) -> None:
    asked = plan(studio, *controls())
    cost = sum(studio.seconds(cell.request) for cell in asked.cells)
    assert compare.label(studio, *controls()) == f"Fill 7 cells · {compare.duration(cost)}"
    assert compare.label(studio, *controls(samplers=["ode"])).startswith("Fill 1 cell · ")


def states(payload: dict[str, Any]) -> list[str]:
    return [cell["state"] for row in payload["rows"] for cell in row["cells"]]


def test_cells_appear_one_by_one(untrained: Studio) -> None:
    given = controls(samplers=["ddim", "heun"], columns="2, 4")
    shown = [out for out in compare.run(untrained, *given) if isinstance(out, tuple) and "rows" in out[0]]
    counts = [states(out[0]).count("done") for out in shown]
    assert counts == [0, 1, 2, 3, 4, 4]
    assert [states(out[0]).count("running") for out in shown] == [1, 1, 1, 1, 0, 0]
    assert [len(out[3].scores) for out in shown] == counts
    assert [sum(len(line["points"]) for line in out[1]["lines"]) for out in shown] == counts
    best = [sum(fact["best"] for row in out[0]["rows"] for cell in row["cells"] for fact in cell.get("facts", ()))
            for out in shown]  # fmt: skip
    assert best == [0, 0, 0, 0, 0, 3]  # confidence, distance, seconds


def test_closing_frees_the_engine_and_leaves_what_is_done(untrained: Studio) -> None:
    calls: list[int] = []
    hook = untrained.pipeline.denoiser.register_forward_hook(lambda *_: calls.append(1))
    lock = untrained.engine
    try:
        running = compare.run(untrained, *controls(samplers=["ddim"], columns="2, 100"))
        contest = None
        for out in running:
            if isinstance(out, tuple) and isinstance(out[3], Contest):
                contest = out[3]
            if len(calls) == 10:
                break
        assert lock.locked()
        running.close()
        assert not lock.locked()
        assert len(calls) == 10
    finally:
        hook.remove()
    shown, status = compare.stopped(untrained, contest)
    assert states(shown) == ["done", "waiting"] and "1 of 2 cells are filled" in status
    assert compare.select(untrained, contest, event([0, 0], contest.run))[0] == "<h2>DDIM, 2 steps</h2>"
    with pytest.raises(ValueError, match="no finished cell there"):
        compare.select(untrained, contest, event([0, 1], contest.run))


def test_the_whole_table_has_one_deadline(untrained: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_timed", lambda steps: ((step, 30.0) for step in steps))
    with pytest.raises(ValueError, match="The table took more than 300 s; take fewer cells"):
        filled(untrained, samplers=["ddim"], columns="4, 6")  # five and seven steps of 30 s
    assert not untrained.engine.locked()
    assert filled(untrained, samplers=["ddim"], columns="4").done


def event(index: Any, run: Any) -> gr.EventData:
    return gr.EventData(None, {"index": index, "value": run})


def test_a_cell_is_shown_and_taken_over(studio: Studio, contest: Contest) -> None:
    heading, pictures, facts, chosen = compare.select(studio, contest, event([1, 1], contest.run))
    index = next(i for i, cell in enumerate(contest.cells) if (cell.sampler, cell.column) == ("predictor_corrector", 1))
    assert heading == "<h2>Predictor-corrector, 3 steps</h2>"
    assert pictures == detail(contest, index)[1] and pictures["count"] == 6
    assert f"<dd>{contest.scores[index].right} of 6</dd>" in facts
    assert compare.settings(chosen) == ("predictor_corrector", 3)
    whole_row = compare.select(studio, contest, event([3, 0], contest.run))
    assert whole_row[0] == "<h2>Adaptive ODE, its own steps</h2>"


@pytest.mark.parametrize("index", [[9, 9], [-1, 0], ["0", 0], [float("nan"), 0], [[0], {}], [0], [], None, "00", 7])
def test_no_such_cell(studio: Studio, contest: Contest, index: Any) -> None:
    with pytest.raises(ValueError, match="choose one that shows its pictures"):
        compare.select(studio, contest, event(index, contest.run))


def test_what_is_gone_is_said(studio: Studio, untrained: Studio, contest: Contest) -> None:
    for who, kept, run in ((studio, None, "x"), (studio, contest, "another"), (untrained, contest, contest.run)):
        with pytest.raises(ValueError, match="fill it again"):
            compare.select(who, kept, event([0, 0], run))
    with pytest.raises(ValueError, match="Choose a finished cell"):
        compare.settings(None)


def test_best_among_equals_has_the_fewest_calls(studio: Studio, contest: Contest) -> None:
    best, scored = contest.best(), contest.scores
    most = max(score.right for score in scored)
    assert scored[best["right"]].right == most
    assert scored[best["right"]].result.calls == min(s.result.calls for s in scored if s.right == most)
    assert scored[best["distance"]].distance == min(score.distance for score in scored)
    assert scored[best["seconds"]].result.seconds == min(score.result.seconds for score in scored)
    assert filled(studio, samplers=["ddim"], columns="2", count=2).best() == {}


def test_a_visitors_choice_is_not_overruled(studio: Studio, contest: Contest) -> None:
    best = contest.best()["right"]
    board, heading, *_, chosen = compare.crown(studio, contest, None)
    assert chosen == contest.cells[best].request and heading == detail(contest, best)[0]
    row, column = board["selected"]
    assert contest.find(row, column) == best
    kept = compare.crown(studio, contest, contest.cells[0].request)
    assert all(value == gr.skip() for value in kept)


def test_without_prompts_confidence_takes_the_place_of_accuracy(untrained: Studio) -> None:
    contest = filled(untrained, samplers=["ddim"], columns="2, 4", guidance=7.0)
    assert {cell.request.prompts for cell in contest.cells} == {("",) * 6}
    assert {cell.request.guidance for cell in contest.cells} == {1}  # there is nothing to guide to
    assert all(score.right is None and 0 < score.confidence <= 1 for score in contest.scores)
    shares = [point["share"] for point in plot(contest)["lines"][0]["points"]]
    assert shares == [score.confidence for score in contest.scores]
    assert "Mean confidence" in plot(contest)["title"] and "Read with the most confidence" in account(
        untrained, contest
    )


def test_without_a_classifier_there_are_pictures_calls_and_seconds(untrained: Studio, monkeypatch: Any) -> None:
    monkeypatch.setattr(untrained, "classifier", None)
    contest = filled(untrained, samplers=["ddim"], columns="2, 4")
    facts = [fact["text"] for fact in table(contest)["rows"][0]["cells"][0]["facts"]]
    assert len(facts) == 2 and facts[0] == "2 calls" and facts[1].endswith(" s")
    assert plot(contest)["lines"][0]["points"] == []
    assert "All cells are filled" in account(untrained, contest)
    assert detail(contest, 0)[1]["captions"] == []


@pytest.mark.parametrize("which", ["studio", "untrained"])
def test_what_depends_on_the_model_fits_the_components(which: str, request: pytest.FixtureRequest) -> None:
    studio = request.getfixturevalue(which)
    with gr.Blocks():
        own = compare.build(Shelf(studio))
    now = compare.shown(studio)
    assert own.table.value["run"] == now["table"]["value"]["run"]
    assert set(states(own.table.value)) == {"done"}
    for name, properties in now.items():
        component = getattr(own, name)
        kept = {key: value for key, value in properties.items() if key in ("value", "visible")}
        assert isinstance(component, gr.State) or {key: getattr(component, key) for key in kept} == kept
    assert (own.picker.visible, own.guidance.visible) == (bool(studio.classes), bool(studio.classes))
    contest = now["contest"]["value"]
    assert contest.done and all(cell.request.count == 10 for cell in contest.cells)
    assert now["chosen"]["value"] in [cell.request for cell in contest.cells]
    assert compare.shown(studio) is now  # computed once


def test_a_row_fits_its_columns() -> None:
    pictures = np.zeros((12, 28, 28), np.uint8)
    payload = scores("run", "caption", "corner", ["a", "b"], [Row("x", "", [Filled(pictures, ()), "waiting"])])
    cell = payload["rows"][0]["cells"][0]
    assert (cell["w"], cell["h"]) == (5 * 29 - 1, 2 * 29 - 1)  # ten of the twelve
    with pytest.raises(ValueError, match="one cell or 3"):
        scores("run", "caption", "corner", ["a", "b", "c"], [Row("x", "", ["waiting", "waiting"])])
