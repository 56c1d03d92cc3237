import json
import math
from pathlib import Path

import pytest
import tiny
from steps import finish

from diffusion.classifier import Classifier
from diffusion.data import load
from diffusion.evaluation import evaluate
from diffusion.samplers import SAMPLERS
from diffusion.sweep import CALLS, HEADER, SWEPT, Cell, Sweep, plan, sweep

DATA = Path(__file__).parent / "data"
DIGITS = tiny.DIGITS


@pytest.fixture(scope="module")
def judge():
    return tiny.judge()


def splits():
    return (load("mnist", split, DATA, download=False) for split in ("train", "test"))


def measure(pipeline, judge, samplers, calls, **settings):
    settings = {"count": 12, "guidance": 1.0, "seed": 7, "batch": 5} | settings
    return finish(sweep(pipeline, judge, *splits(), samplers=samplers, calls=calls, **settings))


def test_a_budget_is_spent_in_steps():
    cells = plan(["ddim", "heun", "ode", "predictor_corrector", "ddim"], [10, 25, 10])
    assert cells == [
        ("ddim", 10),
        ("ddim", 25),
        ("heun", 5),
        ("heun", 12),
        ("ode", None),
        ("predictor_corrector", 5),
        ("predictor_corrector", 12),
    ]


def test_the_usual_sweep_has_every_sampler_that_differs_once():
    twins = [(s.run.func, s.run.keywords) if hasattr(s.run, "func") else s.run for s in map(SAMPLERS.get, SWEPT)]
    assert all(twins.count(twin) == 1 for twin in twins)
    assert len(plan(SWEPT, CALLS)) == 4 * (len(SWEPT) - 1) + 1


@pytest.mark.parametrize(
    ("samplers", "calls", "sentence"),
    [
        (["magic"], [10], "Unknown sampler 'magic'; the choices are dpmpp_2m"),
        (["ddim"], [1], "calls must be a whole number from 2 to 1000, not 1"),
        (["ode"], [1001], "calls must be a whole number from 2 to 1000, not 1001"),
        (["ddim"], [2.5], "calls must be a whole number"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(samplers, calls, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan(samplers, calls)


def test_every_cell_says_what_an_evaluation_of_its_own_says(judge):
    """A sampler of one call a step, one of two and the adaptive one; the floor is that of as many images."""
    cells = [("ddim", 4), ("heun", 2), ("ode", None)]
    events, result = measure(tiny.model(DIGITS), judge, ["ddim", "heun", "ode"], [4], count=6)
    rows = [event for event in events if isinstance(event, Cell)]
    assert tuple(rows) == result.cells
    assert [(row.sampler, row.steps, row.count) for row in rows] == [(*cell, 6) for cell in cells]
    assert [row.calls for row in rows[:2]] == [4, 3]  # Heun ends with a step of Euler
    assert rows[2].calls > 4
    settings = {"count": 6, "guidance": 1.0, "seed": 7, "batch": 5}
    for row in rows:
        _, report = finish(
            evaluate(tiny.model(DIGITS), judge, *splits(), sampler=row.sampler, steps=row.steps or 20, **settings)
        )
        for name in ("accuracy", "confidence", "frechet", "frechet_ratio", "calls"):
            assert getattr(row, name) == pytest.approx(getattr(report, name), rel=1e-6), (row.sampler, name)
        for name in ("test_accuracy", "test_confidence", "frechet_floor"):
            assert getattr(result, name) == getattr(report, name)


def test_the_training_images_are_read_once(judge, monkeypatch):
    read, seen = Classifier.read, []
    monkeypatch.setattr(Classifier, "read", lambda self, images: seen.append(len(images)) or read(self, images))
    measure(tiny.model(DIGITS), judge, ["ddim", "ddpm"], [2, 3])
    assert sorted(seen) == [12, 12, 12, 12, 12, 600]


def test_progress_counts_network_calls(judge):
    events, _ = measure(tiny.model(DIGITS), judge, ["ddim", "heun"], [2, 4])
    done, totals = zip(*(event for event in events if isinstance(event, tuple)), strict=True)
    assert set(totals) == {600 + 12 + 12 * (2 + 4) * 2}
    assert list(done) == sorted(done) and (done[0], done[-1]) == (0, totals[0])


def test_without_prompts_there_is_no_accuracy(judge):
    _, result = measure(tiny.model(), judge, ["ddim"], [2], count=6)
    assert result.cells[0].accuracy is None
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["cells"][0]["accuracy"] is None and plain["cells"][0]["frechet"] == result.cells[0].frechet
    assert "%" not in result.cells[0].row().split()[4]


def test_rows_line_up_under_the_header():
    cells = (
        Cell("predictor_corrector", 125, 250.0, 10_000, 0.99612, 0.9412, 0.0123456, 1.2345, 0.5),
        Cell("ode", None, 68.25, 1000, None, 0.9412, 1234.5, math.inf, 12.5),
    )
    result = Sweep("tiny", ("predictor_corrector", "ode"), (250,), 1000, 1.0, 0, 0.99, 0.95, 0.01, cells)
    assert {len(cell.row()) for cell in cells} == {len(HEADER)} and len(HEADER) <= 120
    assert " ".join(cells[0].row().split()) == "predictor_corrector 125 250 10000 99.61% 94.12% 0.01235 1.23 0.5000"
    assert " ".join(cells[1].row().split()) == "ode own 68.25 1000 - 94.12% 1234 inf 12.5000"
    assert " ".join(result.real_row().split()) == "real images 1000 99.00% 95.00% 0.01 1.00"
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["cells"][1]["frechet_ratio"] is None


def test_what_does_not_fit_is_refused_before_anything_is_generated(judge):
    settings = {"samplers": ["ddim"], "calls": [2], "guidance": 1.0, "seed": 0, "batch": 5}
    with pytest.raises(ValueError, match="there are 300 test images to compare as many with, got count 301"):
        next(sweep(tiny.model(DIGITS), judge, *splits(), count=301, **settings))
    with pytest.raises(ValueError, match="Unknown sampler"):
        next(sweep(tiny.model(DIGITS), judge, *splits(), count=6, **settings | {"samplers": ["magic"]}))
    with pytest.raises(ValueError, match="6 images or more"):
        next(sweep(tiny.model(DIGITS), judge, *splits(), count=5, **settings))
    with pytest.raises(ValueError, match="the model tiny has the classes cat, but"):
        next(sweep(tiny.model(("cat",)), judge, *splits(), count=6, **settings))
