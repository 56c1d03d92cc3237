"""A large model of others behind the Stable Diffusion tab, here a small one with random weights."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import gradio as gr
import numpy as np
import pytest
import torch
from hub_server import HubServer, Repo
from PIL import Image

from diffusion import export
from diffusion.pipeline import Pipeline
from diffusion.request import Request
from diffusion.ui import rendering
from diffusion.ui.easel import Easel
from diffusion.ui.studio import Limits
from diffusion.ui.tabs.stable import again, arrive, opened, settle
from diffusion.ui.widgets import Masked

SETTINGS = ("ddim", 3, 4.0, 7)  # sampler, steps, guidance, seed
PROMPT = ("a thick red 7", "blue paper", 16, 16)  # and the negative one, height, width


@pytest.fixture(scope="module")
def easel(foreign: Path) -> Easel:
    easel = Easel(str(foreign), "cpu", Limits(steps=50))
    assert all(said.endswith(" s.") for said in easel.open())
    return easel


def picture(side: int = 40) -> Image.Image:
    """A picture in which no two places are alike."""
    levels = np.linspace(0, 255, side * side * 3).reshape(side, side, 3)
    return Image.fromarray(levels.astype(np.uint8))


def test_opens_once_whoever_asks(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two visitors at once follow one opening; who comes later has nothing to wait for."""
    load, loads, gate = Pipeline.load, [], Event()

    def slowly(*given: object, **more: object) -> Pipeline:
        loads.append(given)
        gate.wait()
        return load(*given, **more)

    monkeypatch.setattr(Pipeline, "load", slowly)
    easel = Easel(str(foreign), "cpu", Limits())
    with pytest.raises(ValueError, match=r"^The model is not open yet: press Open first\.$"):
        next(easel.run(Request()))
    others: list[list[str]] = []
    visitors = [Thread(target=lambda: others.append(list(easel.open()))) for _ in range(3)]
    for visitor in visitors:
        visitor.start()
    first = easel.open()
    assert next(first).startswith("Reading the model, ")
    gate.set()
    assert all(said for said in first)
    for visitor in visitors:
        visitor.join()
    assert len(loads) == 1 and len(others) == 3 and list(easel.open()) == []
    assert easel.opened.weights == export.fingerprint(easel.pipeline)


def test_what_cannot_be_opened_is_said_and_can_be_tried_again(foreign: Path, tmp_path: Path) -> None:
    easel = Easel(str(tmp_path / "model"), "cpu", Limits())
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^No checkpoint '.*model': give a name"):
            list(easel.open())
    *said, refused = _until_refused(easel)
    assert refused[1]["interactive"] is True and "No checkpoint" in refused[2] and len(refused) == 4
    assert all(update[1]["interactive"] is False for update in said)
    shutil.copytree(foreign, tmp_path / "model")
    assert list(easel.open()) and easel.opened


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that is the server's log
def test_what_nobody_foresaw_is_a_sentence_too(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    easel = Easel(str(foreign), "cpu", Limits())
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "load", lambda *given, **more: 1 / 0)
        with pytest.raises(ValueError, match=r"small-diffusion could not be opened; the server's log says why\.$"):
            list(easel.open())
    assert list(easel.open()) and easel.opened


def _until_refused(easel: Easel) -> Iterator[list]:
    updates = opened(easel)
    with pytest.raises(ValueError):
        while True:
            yield next(updates)


def test_a_model_is_fetched_in_view(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much of how much, and how much room there is, before the first byte; then it is read."""
    files = {path.relative_to(foreign).as_posix(): path.read_bytes() for path in foreign.rglob("*") if path.is_file()}
    with HubServer({"owner/small-diffusion": Repo(files)}) as hub:
        hub.use(monkeypatch, tmp_path / "home")
        easel, told = Easel("owner/small-diffusion", "cpu", Limits()), []
        follow = easel._follow
        monkeypatch.setattr(easel, "_follow", lambda now: (follow(now), told.append((now, easel._said))))
        assert list(easel.open()) and easel.pipeline.config.name == "small-diffusion"
    for now, said in told:
        if now.done < now.total:
            assert re.fullmatch(
                r"Fetching owner/small-diffusion: [\d.]+ MB of [\d.]+ MB, [\d,.]+ [GM]B are free at .*hub", said
            )
        else:
            assert said == "Reading the model"
    assert told[0][0].done == 0 and max(now.total for now, _ in told) > 1e6


def test_a_model_of_another_kind_is_refused() -> None:
    for name in ("mnist-latent", "mnist-score"):
        with pytest.raises(
            ValueError, match=f"^{name} does not read sentences into latents: open it with --checkpoint"
        ):
            list(Easel(name, "cpu", Limits()).open())


def test_the_controls_follow_the_model(easel: Easel) -> None:
    lead, button, said, room = arrive(easel)
    assert "small-diffusion: U-Net " in lead and "float32 on CPU" in lead and "made for 16 pixels" in lead
    assert (button["visible"], said["visible"], room["visible"]) == (False, False, True)
    height, width, sampler, steps, guidance = settle(easel)
    assert height == width and height is not width
    assert (height["minimum"], height["maximum"], height["step"], height["value"]) == (8, 32, 4, 16)
    assert (sampler["value"], steps, guidance) == ("ddim", 25, 7.5)


def test_a_page_that_comes_before_has_nothing_to_show(foreign: Path) -> None:
    easel = Easel(str(foreign), "cpu", Limits())
    assert arrive(easel) == [gr.skip()] * 4 and settle(easel) == [gr.skip()] * 5


def test_makes_a_picture_in_view(easel: Easel) -> None:
    """What is on the way is named and small; the end is the engine's own, in a file that says how."""
    shown = []
    for made, film, said, running, reel in rendering.paint(easel, None, 0.7, None, *PROMPT, *SETTINGS):
        if isinstance(made, str):
            settings = export.read_settings(Path(made))
            (pixels,) = export.read_images(Path(made))
        shown.append((made, film, said, running, reel))
    assert "Reading the prompt" in shown[0][2]
    live = [film for _, film, *_ in shown if isinstance(film, dict) and "i" in film]
    assert [film["i"] for film in live] == sorted({film["i"] for film in live}) and live[0]["total"] == 4
    assert {(pane["label"], pane["w"], pane["h"]) for film in live for pane in film["panes"]} == {
        ("Noisy state", 8, 8), ("Predicted picture", 8, 8),
    }  # fmt: skip
    whole = [film for _, film, *_ in shown if isinstance(film, dict) and "captions" in film]
    assert len(whole) == 1 and whole[0]["total"] == 4 and len(whole[0]["captions"]) == len(whole[0]["formulas"]) == 4
    assert all(made.size == (16, 16) for made, *_ in shown if isinstance(made, Image.Image))
    request = Request(
        prompt=PROMPT[0], negative=PROMPT[1], size=(16, 16), sampler="ddim", steps=3, guidance=4.0, seed=7
    )
    assert export.request_from(settings) == request and settings["weights"] == easel.opened.weights
    *_, last = easel.pipeline.generate(request)
    np.testing.assert_array_equal(pixels, export.to_pictures(easel.pipeline.images(last, request))[0])
    said = shown[-1][2]
    assert shown[0][3] is True and shown[-1][3] is False and all(more == gr.skip() for *_, more, _ in shown[1:-1])
    kept = [reel for *_, reel in shown if reel != gr.skip()]
    assert kept[0] is None and [pane.shape for pane in kept[1].panes.values()] == [(4, 8, 8, 3)] * 2
    assert kept[1].name == "small-diffusion-seed-7" and len(kept) == 2
    assert "16 × 16 pixels, DDIM, 3 network calls in " in said and "seed 7, float32 on CPU" in said


def test_says_how_long_it_will_take_once_it_knows(easel: Easel, foreign: Path) -> None:
    fresh = Easel(str(foreign), "cpu", Limits())
    list(fresh.open())
    request = Request(size=(16, 16), steps=4)
    assert fresh.seconds(request, 4) is None
    list(fresh.run(request))
    assert fresh.seconds(request, 4) == pytest.approx(4 * fresh.seconds(request, 1))
    assert fresh.seconds(Request(size=(32, 32)), 1) == pytest.approx(4 * fresh.seconds(request, 1))
    first = next(rendering.paint(fresh, None, 0.7, None, *PROMPT, *SETTINGS))[2]
    assert "the run will take " in first


def test_begins_with_a_picture_and_keeps_what_is_not_painted(easel: Easel) -> None:
    seen = rendering.thumbnail(easel, picture(), 16, 16)
    assert seen.shape == (8, 8, 3)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    whole = rendering.asked(easel, picture(), 0.7, None, *PROMPT, *SETTINGS)
    assert whole.mask is None and whole.image.shape == (3, 16, 16) and whole.strength == 0.7
    part = rendering.asked(easel, picture(), 0.7, Masked(seen, mask), *PROMPT, *SETTINGS)
    assert part.mask.sum() == 4 * mask.sum() and part.mask[0, 4:10, 6:12].all()
    stale = rendering.asked(easel, picture(), 0.7, Masked(255 - seen, mask), *PROMPT, *SETTINGS)
    assert stale.mask is None
    *_, (_, _, said, *_) = rendering.paint(easel, picture(), 0.7, Masked(seen, mask), *PROMPT, *SETTINGS)
    assert f"{256 - part.mask.sum()} pixels are yours, unchanged." in said
    *_, last = easel.pipeline.generate(part)
    pixels = export.to_pictures(easel.images(last, part))[0]
    kept = ~part.mask[0].numpy()
    np.testing.assert_array_equal(pixels[kept], export.fit(picture(), (3, 16, 16))[kept])
    assert (pixels[~kept] != export.fit(picture(), (3, 16, 16))[~kept]).any()


def test_the_mask_is_painted_on_the_picture_as_it_will_be_cut(easel: Easel) -> None:
    assert rendering.under(easel, None, 16, 16, None) is None
    wide = rendering.under(easel, picture(), 16, 32, None)
    assert wide.shape == (8, 16, 3)
    masked = Masked(wide, np.ones((8, 16), bool))
    assert rendering.under(easel, picture(), 16, 32, masked) == gr.skip()
    assert rendering.under(easel, picture(), 16, 16, masked).shape == (8, 8, 3)


def test_step_counts_side_by_side(easel: Easel) -> None:
    *shown, (_, end, more) = rendering.compare(easel, [10, 5], None, 0.7, None, *PROMPT, *SETTINGS)
    galleries = [gallery for gallery, *_ in shown if isinstance(gallery, list)]
    assert [len(gallery) for gallery in galleries] == [0, 1, 2]
    for (made, caption), steps in zip(galleries[-1], (5, 10), strict=True):
        request = Request(PROMPT[0], PROMPT[1], size=(16, 16), sampler="ddim", steps=steps, guidance=4.0, seed=7)
        *_, last = easel.pipeline.generate(request)
        np.testing.assert_array_equal(made, export.to_pictures(easel.pipeline.images(last, request))[0])
        assert caption.startswith(f"{steps} steps, {steps} calls, ")
    assert "only the step count differs" in end and more is False and shown[0][2] is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 18}, "This model's pictures cannot be 18 pixels high or wide: take 16 or 20."),
        ({"width": 64}, "Height and width must be from 8 to 32 pixels here."),
        ({"width": float("nan")}, "width must be a number from 0 to"),
        ({"height": 16.5}, "height must be a whole number from 1 to 2048, not 16.5."),
        ({"steps": 51}, "At most 50 steps here, not 51."),
        ({"steps": None}, "steps must be a number"),
        ({"guidance": float("inf")}, "guidance must be a number from 0 to 100"),
        ({"sampler": "<b>"}, "Unknown sampler '<b>'"),
        ({"prompt": "x" * 1001}, "A prompt may have at most 1000 characters"),
        ({"prompt": None}, "Prompts must be text"),
        ({"seed": -1}, "seed must be a number from 0 to"),
    ],
)
def test_bad_settings_are_one_sentence(easel: Easel, changes: dict, message: str) -> None:
    names = ("prompt", "negative", "height", "width", "sampler", "steps", "guidance", "seed")
    settings = dict(zip(names, (*PROMPT, *SETTINGS), strict=True)) | changes
    for run in (rendering.paint(easel, None, 0.7, None, *settings.values()),
                rendering.compare(easel, [5], None, 0.7, None, *settings.values())):  # fmt: skip
        if "steps" in changes and changes["steps"] == 51 and run.__name__ == "compare":
            continue  # which takes its own step counts
        with pytest.raises(ValueError) as error:
            next(run)
        assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("counts", [[], [7], [5, 1000], ["5"]])
def test_step_counts_are_of_those_offered(easel: Easel, counts: list) -> None:
    with pytest.raises(ValueError, match=r"^Choose at least one step count of 5, 10, "):
        next(rendering.compare(easel, counts, None, 0.7, None, *PROMPT, *SETTINGS))


def test_strength_is_checked(easel: Easel) -> None:
    with pytest.raises(ValueError, match=r"^strength must be a number from 0 to 1, not nan\.$"):
        next(rendering.paint(easel, picture(), float("nan"), None, *PROMPT, *SETTINGS))


def test_stopping_frees_the_engine(easel: Easel) -> None:
    run = rendering.paint(easel, None, 0.7, None, *PROMPT, *SETTINGS)
    next(run), next(run)
    assert easel.engine.locked()
    run.close()
    assert not easel.engine.locked()


def test_where_memory_runs_out_that_is_said(easel: Easel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(easel.pipeline.denoiser, "forward", full)
        with pytest.raises(ValueError, match=r"^Memory ran out at 32 × 16 pixels: take a smaller picture\.$"):
            list(easel.run(Request(size=(16, 32))))
        assert not easel.engine.locked()
    *_, last = easel.run(Request(steps=1))
    monkeypatch.setattr(easel.pipeline.codec, "decode", full)
    with pytest.raises(ValueError, match=r"^Memory ran out while the picture was decoded: take a smaller one\.$"):
        easel.images(last, Request(steps=1))


def test_words_past_the_end_are_named(easel: Easel) -> None:
    long = " ".join(["red"] * 200)
    *_, (_, _, said, *_) = rendering.paint(easel, None, 0.7, None, long, *PROMPT[1:], *SETTINGS)
    assert "past them were" in said


def test_a_finished_picture_begins_the_next(easel: Easel) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    made, begin = again(pixels)
    assert made is pixels and begin["open"] is True
    with pytest.raises(ValueError, match=r"^There is no picture yet: make one first\.$"):
        again(None)
