"""What the Noise tab is sent: the engine's own numbers, and no others from outside."""

import base64
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffusion.export import to_image
from diffusion.noise import Noise
from diffusion.schedules import VE, VP, Discrete, Flow
from diffusion.toy import TARGETS
from diffusion.ui import noising
from diffusion.ui.noising import LIMITS, POINTS, SCHEDULES, lesson, noised, tables
from diffusion.ui.tabs import noise
from diffusion.ui.widgets import NoiseBench, mixture
from diffusion.ui.widgets.walks import BINS, REACH

EACH = pytest.mark.parametrize("name", SCHEDULES)
PATHS = {path.name: path for path in tables()}


def floats(text: str, kind: str = "<f4") -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def drawn(payload: dict, way: str) -> np.ndarray:
    """The positions of a way's paths as the plot gets them, (T, N)."""
    steps = floats(payload[way]["px"], "<i2").reshape(len(payload["times"]), payload["count"])
    return steps / 32767 * 2 * REACH


# Schedules


@EACH
def test_the_tables_are_the_schedules(name):
    """At times told as the schedule wants them: tables count their entries."""
    schedule, path = SCHEDULES[name][0], PATHS[name]
    for k in range(0, 501, 25):
        t = torch.tensor(min(k / 500, getattr(schedule, "t_max", 1.0)), dtype=torch.float64)
        sigma = schedule.sigma(t * (schedule.steps - 1) if isinstance(schedule, Discrete) else t)
        alpha = schedule.alpha(sigma)
        found = [float(values[k]) for values in (path.t, path.sigma, path.a, path.s)]
        assert found == pytest.approx([float(t), float(sigma), float(alpha), float(alpha * sigma)], rel=1e-9)


@EACH
def test_a_and_s_are_the_papers(name):
    path = PATHS[name]
    expected = {
        "VE": (np.ones(501), np.sqrt((25.0 ** (2 * path.t) - 1) / (2 * math.log(25)))),
        "VP": (np.exp(-(19.9 * path.t**2 / 4) - 0.1 * path.t / 2),) * 2,  # Song et al. 2021, Eq. 33
        "Flow": (1 - path.t, path.t),
    }
    if name in ("VE", "Flow"):
        np.testing.assert_allclose((path.a, path.s), expected[name], rtol=1e-9, atol=1e-12)
    else:
        np.testing.assert_allclose(path.a**2 + path.s**2, 1, rtol=1e-12)
    if name == "VP":
        np.testing.assert_allclose(path.a, expected[name][0], rtol=1e-9)
    np.testing.assert_allclose(path.sigma, path.s / path.a, rtol=1e-9)
    assert (np.diff(path.sigma) > 0).all()


@EACH
def test_beta_is_the_rate_at_which_the_picture_fades(name):
    """-d log(a^2) / dt by differences, where the schedule has a beta."""
    path, schedule = PATHS[name], SCHEDULES[name][0]
    if isinstance(schedule, VE | Flow):
        assert path.beta is None
        return
    rate = -np.diff(2 * np.log(path.a)) / np.diff(path.t)
    middle = (path.beta[1:] + path.beta[:-1]) / 2
    part = slice(25, 400)  # at their ends tables change too fast to be taken for smooth
    np.testing.assert_allclose(middle[part], rate[part], rtol=1e-3 if isinstance(schedule, VP) else 0.02)


def test_linear_and_vp_are_one_schedule_in_the_limit():
    """The sentence on the tab: 1000 steps of Linear against VP's continuous time."""
    np.testing.assert_allclose(PATHS["Linear"].a[50:450], PATHS["VP"].a[50:450], atol=2e-3)


# A picture and its noise


@pytest.mark.parametrize("shape", [(28, 28), (32, 24, 3)])
def test_picture_and_noise_arrive_as_they_are(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    payload = noised(picture, 5)
    assert (payload["h"], payload["w"]) == shape[:2]
    assert np.array_equal(floats(payload["px"], np.uint8).reshape(shape), picture)
    eps = Noise([5])(torch.empty(1, *shape))[0].numpy()
    assert np.array_equal(floats(payload["eps"]).reshape(shape), eps)
    assert to_image(picture).min() >= -1  # what the page computes as byte / 127.5 - 1


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        mixture(np.zeros((28, 28), np.uint8), np.zeros((28, 27), np.float32))
    with pytest.raises(ValueError, match="uint8"):
        mixture(np.zeros((2, 2)), np.zeros((2, 2), np.float32))


def test_a_bench_can_be_built_again_from_what_it_was_sent_as():
    bench = NoiseBench(noised(np.zeros((28, 28), np.uint8), 0), paths=tables())
    again = NoiseBench(paths=bench.props["paths"], opening=bench.props["opening"])
    assert again.props == bench.props


@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3)])
def test_another_model_brings_its_own_pictures(shape):
    examples = np.random.default_rng(0).integers(0, 256, (3, 20, *shape), np.uint8)
    kinds = "coat", "bag", "boot"
    shown = noise.shown(SimpleNamespace(kinds=kinds, shape=shape, nth=lambda n: examples[:, n]))
    assert shown["tests"]["choices"] == ["coat", "bag", "boot"]
    assert shown["tests"]["value"] == "boot"
    assert shown["sketch"] == {"shape": list(shape), "value": None}
    assert np.array_equal(shown["picture"]["value"], examples[2, shown["column"]["value"]])
    assert floats(shown["bench"]["value"]["px"], np.uint8).tobytes() == shown["picture"]["value"].tobytes()


# A line


@pytest.mark.parametrize("target", TARGETS)
def test_the_paths_are_those_of_the_process(target):
    """Both ways have the exact distribution at both ends, within chance and the plot's bins."""
    payload, _ = lesson(target, 200, 20, 1.0, 3)
    assert payload["times"] == sorted(payload["times"]) and payload["times"][0] == 0 and payload["times"][-1] == 1
    for way in ("forward", "backward"):
        assert drawn(payload, way).shape == (201, 20)
        for end in ("start", "end"):
            found, exact = np.array(payload[way][end]), np.array(payload["exact"][end])
            assert len(found) == len(exact) == BINS
            assert exact.sum() == pytest.approx(1, abs=2e-3)
            assert abs(np.cumsum(found) - np.cumsum(exact)).max() < 1.95 / math.sqrt(POINTS) + 0.01


def test_the_drawn_end_is_what_is_counted():
    payload, _ = lesson("Hills", 30, 100, 0.5, 3)
    for way in ("forward", "backward"):
        for end, row in (("start", 0), ("end", -1)):
            counts, _ = np.histogram(drawn(payload, way)[row], BINS, (-REACH, REACH))
            assert (np.array(payload[way][end])[counts[::-1] > 0] > 0).all()


def test_how_many_are_drawn_changes_nothing_else():
    many, facts = lesson("Hills", 30, 40, 1.0, 3)
    few, same = lesson("Hills", 30, 5, 1.0, 3)
    assert facts == same and few["exact"] == many["exact"]
    for way in ("forward", "backward"):
        assert np.array_equal(drawn(few, way), drawn(many, way)[:, :5])


def test_the_field_is_minus_the_noise_to_expect():
    """For one point all of x - 0.8 is noise; the field's columns are even times, its rows fall from REACH."""
    field = noising.score_field(TARGETS["One point"])
    rows, columns = field.shape
    for row, column in ((3, 80), (50, 20), (90, 150)):
        t = VP().t_min + (1 - VP().t_min) * column / (columns - 1)
        a = math.exp(-(19.9 * t**2 / 4) - 0.1 * t / 2)
        y = REACH - 2 * REACH * row / (rows - 1)
        assert field[row, column] == pytest.approx(-(y - 0.8 * a) / math.sqrt(1 - a * a), rel=1e-6)


HOSTILE = [math.nan, math.inf, -math.inf, -1, 10**9, "5", "<b>", None, True, [5]]


@pytest.mark.parametrize("value", HOSTILE, ids=str)
@pytest.mark.parametrize("name", LIMITS)
def test_hostile_numbers_are_refused_in_a_sentence(name, value):
    if name == "seed" and value == 10**9:
        value = -(10**9)
    given = {"steps": 50, "paths": 10, "strength": 1.0, "seed": 1, name: value}
    with pytest.raises(ValueError, match=rf"^{name} must be a.*number from .* to .*, not .*\.$"):
        lesson("Hills", **given)


@pytest.mark.parametrize("name", ["steps", "paths", "seed"])
def test_what_is_counted_is_whole(name):
    given = {"steps": 50, "paths": 10, "strength": 1.0, "seed": 1}
    assert lesson("Hills", **given) == lesson("Hills", **{**given, name: float(given[name])})  # as JSON has it
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        lesson("Hills", **{**given, name: 10.5})


def test_unknown_data_are_refused():
    with pytest.raises(ValueError, match="the data must be one of One point, Two points, Hills, not 'Four'"):
        lesson("Four", 50, 10, 1.0, 1)
