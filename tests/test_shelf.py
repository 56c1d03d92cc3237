"""The menu's shelf: models open when they are asked for, once, and handlers get the one chosen."""

from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from diffusion import checkpoints
from diffusion.ui.becoming import look
from diffusion.ui.lab import following, updates
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Limits, Studio
from diffusion.ui.widgets import DigitPicker, SketchPad


class Opened(list):
    """Opens stand-ins for studios and keeps their names."""

    def __call__(self, name: str) -> Any:
        self.append(name)
        if name == "damaged":
            raise ValueError("damaged: its weights are cut short.")
        return SimpleNamespace(name="what its config says", limits=Limits())


@pytest.fixture
def opened() -> Opened:
    return Opened()


@pytest.fixture
def three(opened: Opened) -> Shelf:
    return Shelf(SimpleNamespace(name="first", limits=Limits()), ["first", "second", "damaged"], opened)


def test_a_model_is_opened_once_when_it_is_asked_for(three: Shelf, opened: Opened) -> None:
    assert three.names == ("first", "second", "damaged") and opened == []
    assert three["first"] is three.default
    assert three["second"] is three["second"] and three["second"].name == "second"
    assert opened == ["second"]


@pytest.mark.parametrize("name", ["third", "", None, 7, ["second"], "../second", "x" * 9999])
def test_other_names_are_refused(three: Shelf, name: object) -> None:
    with pytest.raises(ValueError, match=r"^No checkpoint .{1,60} here; the choices are first, second, damaged.$"):
        three[name]


def test_handlers_get_the_chosen_studio_and_stay_polite(three: Shelf) -> None:
    assert three.on(lambda studio, x: (studio.name, x))("second", 3) == ("second", 3)
    with pytest.raises(gr.Error, match="the choices are"):
        three.on(lambda studio: studio)("third")

    def count(studio: Any, n: int) -> Any:
        yield from range(n)
        raise ValueError("no more.")

    steps = three.on(count)("first", 2)
    assert [next(steps), next(steps)] == [0, 1]
    with pytest.raises(gr.Error, match="no more"):
        next(steps)
    with pytest.raises(gr.Error, match="cut short"):
        next(three.on(count)("damaged", 2))


def test_the_shelf_holds_every_model_that_ships(shelf: Shelf) -> None:
    kinds = checkpoints.names()
    assert sorted(shelf.names) == sorted(name for name, kind in kinds.items() if kind == "model")
    assert shelf.names[0] == "mnist-latent"


def test_an_update_of_a_widget_brings_all_its_properties() -> None:
    """Gradio's page takes the properties in an update for all of them where a widget's tab was never opened."""
    with gr.Blocks():
        own = SimpleNamespace(
            picker=DigitPicker(["a"], any="Any", each="Each"), pad=SketchPad(), note=gr.HTML("x"), state=gr.State()
        )
    shown = {
        "picker": DigitPicker.showing(["b", "c"], "c"),
        "pad": {"value": None},
        "note": {"value": "y", "visible": False},
        "state": {"value": 5},
    }
    own.shown = lambda studio: shown
    assert following(own, None) == [own.note, own.pad, own.picker, own.state]  # by name, whatever the order above
    note, pad, picker, state = updates(own, None)
    assert picker.keys() >= own.picker.props.keys() and picker["choices"] == ["b", "c"] and picker["each"] == "Each"
    assert pad["value"] is None and pad.keys() >= own.pad.props.keys() and state == 5
    assert note["value"] == "y" and note["visible"] is False


def test_what_still_comes_from_the_model_before_is_passed_over(shelf: Shelf) -> None:
    """While a page turns to a model, its controls tell of their changes one by one, some still with what was before."""
    studio, others = shelf["fashion-ddpm"], shelf.default
    before = np.zeros((28, 28), np.uint8), None, True, others.classes[8], 0.6, *studio.defaults.values(), 1
    assert look(studio, *before) == (gr.skip(),) * 4
    views, _, promise, _ = look(studio, *before[:3], "bag", *before[4:])
    assert views.count("<img") == 2 and promise.startswith("Turn it into a bag")
    with pytest.raises(ValueError, match=r"There is no class '8' here; the choices are t-shirt, "):
        studio.example("8", 0)


@pytest.mark.parametrize("name", [name for name, kind in checkpoints.names().items() if kind == "model"])
def test_each_model_that_ships_tells_every_tab_the_same_things(name: str, shelf: Shelf) -> None:
    """The outputs of an event are fixed when the page is built, for whichever model comes."""
    from diffusion.ui.tabs import compare, denoise, generate, image, noise, vae

    studio: Studio = shelf[name]
    for tab in (generate, denoise, image, vae, noise, compare):
        assert list(tab.shown(studio)) and set(tab.shown(studio)) == set(tab.shown(shelf.default))
