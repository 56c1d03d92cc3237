"""The Prompt tab's computations: where words are looked at, what lies between two prompts, and a change of mind."""

from typing import Any

import gradio as gr
import numpy as np
import pytest
import tiny
import torch

from diffusion.attention import watch
from diffusion.export import to_pictures
from diffusion.request import Request
from diffusion.samplers import SAMPLERS
from diffusion.ui import prompting
from diffusion.ui.prompting import DIM, GLOW, attended, fork, lit, paint, parting, travel, watched, way
from diffusion.ui.studio import Limits, Studio
from diffusion.ui.tabs import prompt as tab
from diffusion.ui.widgets.pixels import decode

PROMPT, OTHER = "a red 7 on a white background", "a huge blue eight"
SAMPLING = ("ddim", 4, 1.5, 3)


def last(steps: Any) -> Any:
    *_, end = steps
    return end


def frames(film: dict[str, Any], pane: int) -> np.ndarray:
    """The pictures of a film's pane, uint8 (T, H, W, 3)."""
    shown = film["panes"][pane]
    return decode(shown["all"], (film["total"], shown["h"], shown["w"], 3), "A pane")


def made(studio: Studio, **asked: Any) -> np.ndarray:
    """The pictures of a plain request."""
    sampler, steps, guidance, _ = SAMPLING
    return studio.finish(Request(sampler=sampler, steps=steps, guidance=guidance, **asked)).pictures


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for how other batches are rounded."""
    return bool((abs(one.astype(int) - other) <= 1).all())


def test_light_hides_the_picture_where_all_is_looked_at_and_nowhere_else() -> None:
    pictures = np.full((2, 8, 8, 3), 200, np.uint8)
    dark, bright = lit(pictures, torch.tensor([0.0, 1.0])[:, None, None].expand(2, 4, 4))
    assert (abs(dark - DIM * 200) <= 1).all()
    assert (bright == GLOW).all()
    grey = lit(np.full((1, 8, 8), 200, np.uint8), torch.full((1, 4, 4), 0.5))
    assert (abs(grey - (DIM * 100 + np.array(GLOW) / 2)) <= 1).all()


def test_a_run_is_watched_from_its_first_call_to_its_last(words: Studio) -> None:
    request = Request(PROMPT, count=2, sampler="ddim", steps=4, guidance=1.5, seed=3)
    steps = list(watched(words, request))
    assert [step.index for step, _ in steps] == [0, 1, 2, 3, 4] and steps[0][1] is None
    plain = words.pipeline.generate(request)
    next(plain)
    with watch(words.pipeline.denoiser.network, 2) as maps:
        for (step, seen), expected in zip(steps[1:], plain, strict=True):
            torch.testing.assert_close(step.x, expected.x)
            torch.testing.assert_close(seen, maps())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_of_the_menu_can_be_watched(words: Studio, sampler: str) -> None:
    """One takes its last step without a call, and keeps what was looked at."""
    _, film, status, seen = last(paint(words, PROMPT, "", sampler, *SAMPLING[1:], 2))
    assert film["total"] == len(seen.steps) == len(seen.maps) and "Measured in the pixels" in status
    torch.testing.assert_close(seen.maps.float().sum(2), torch.ones(seen.maps[:, :, 0].shape), atol=5e-3, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_with_steps_of_ours_can_change_its_mind(words: Studio, sampler: str) -> None:
    def change() -> tuple[Any, ...]:
        return last(fork(words, PROMPT, "", sampler, *SAMPLING[1:], OTHER, 2))

    if SAMPLERS[sampler].calls_per_step:
        film, _, result = change()
        assert film["total"] == 5 and (result.pictures[0] != result.pictures[1]).any()
    else:
        with pytest.raises(ValueError, match="takes steps of its own"):
            change()


def test_words_of_a_negative_prompt_are_named_too(words: Studio) -> None:
    settings = (PROMPT, "a bleu 8", *SAMPLING)
    ends = (
        last(paint(words, *settings, 1)),
        last(travel(words, *settings, OTHER, 3, 3)),
        last(fork(words, *settings, OTHER, 2)),
    )
    for end in ends:
        assert any("does not know “bleu”; did you mean blue" in part for part in end if isinstance(part, str))


def test_a_run_under_way_names_the_seeds_it_uses(words: Studio) -> None:
    def heard(steps: Any) -> str:
        return " ".join(part for step in steps for part in step if isinstance(part, str))

    assert "seeds 3 to 8," in heard(travel(words, PROMPT, "", *SAMPLING, OTHER, 8, 3))
    assert "seed 3," in heard(travel(words, PROMPT, "", *SAMPLING, OTHER, 3, 3))
    assert "seed 3," in heard(fork(words, PROMPT, "", *SAMPLING, OTHER, 2))
    assert "seeds 3 to 5," in heard(paint(words, PROMPT, "", *SAMPLING, 3))


def test_a_run_that_is_left_leaves_neither_hooks_nor_the_engine_behind(words: Studio) -> None:
    def hooks() -> int:
        return sum(len(module._forward_pre_hooks) for module in words.pipeline.modules())

    running = watched(words, Request(PROMPT, steps=4))
    next(running), next(running)
    assert hooks() and words.engine.locked()
    running.close()
    assert not hooks() and not words.engine.locked()


def test_each_word_has_a_pane_and_all_of_a_step_is_shared_out(words: Studio) -> None:
    cells, film, status, seen = last(paint(words, PROMPT, "", *SAMPLING, 3))
    assert cells["count"] == 3 and "Measured in the pixels" in status
    assert seen.maps.shape[:3] == (4, 3, 24) and seen.steps == (1, 2, 3, 4)
    torch.testing.assert_close(seen.maps.float().sum(2), torch.ones(4, 3, 32, 32), atol=5e-3, rtol=0)
    assert [pane["label"] for pane in film["panes"]] == [
        "Predicted picture", "“a”", "“red”", "“7”", "“on”", "“white”", "“background”",
    ]  # fmt: skip
    assert (frames(film, 0) == seen.pictures[:, 0]).all()
    for caption in film["captions"]:
        shares = [int(part.rsplit(" ", 2)[-2]) for part in caption.split(": ", 1)[1].rstrip(".").split(", ")]
        assert abs(sum(shares) - 100) <= len(shares)
    # Of the words of a step one cell is the brightest, and its light is full.
    brightest = np.stack([frames(film, k) for k in range(1, 7)]).astype(int)
    for t in range(4):
        assert abs(brightest[:, t] - np.array(GLOW)).sum(-1).min() <= 3
    assert attended(words, seen, 2)["panes"][0] != film["panes"][0]


def test_long_prompts_keep_the_words_that_are_looked_at_most(words: Studio) -> None:
    prompt = "a small thick green three leaning left in the top right corner on a white background"
    *_, seen = last(paint(words, prompt, "", *SAMPLING, 1))
    film = attended(words, seen, 0)
    shown = [pane["label"].strip("“”") for pane in film["panes"][1:]]
    tokens = words.pipeline.conditioner.tokens(prompt)
    share = {
        word: sum(seen.maps[:, 0, k].float().mean() for k, other in enumerate(tokens) if other == word)
        for word in tokens[1:]
    }
    assert {*shown} == {*sorted(share, key=lambda word: -share[word])[: prompting.PANES]}
    assert shown == [word for word in dict.fromkeys(tokens) if word in shown]
    assert "other words" in film["captions"][0]


def test_without_words_there_is_only_the_picture(words: Studio) -> None:
    _, film, status, _ = last(paint(words, "", "", *SAMPLING, 1))
    assert [pane["label"] for pane in film["panes"]] == ["Predicted picture"]
    assert film["captions"][0].endswith("no word 100 %.") and "Nothing was asked for" in status


def test_a_long_run_keeps_forty_of_its_steps(words: Studio) -> None:
    _, film, _, seen = last(paint(words, "7", "", "ddim", 90, 1.5, 3, 1))
    assert film["total"] == 40 and seen.steps[0] == 1 and seen.steps[-1] == 90


@pytest.mark.parametrize("name", ["words", "garments"])
def test_the_way_begins_and_ends_with_the_prompts_themselves(name: str, request: pytest.FixtureRequest) -> None:
    studio = request.getfixturevalue(name)
    one, other = (PROMPT, OTHER) if studio.sentences else ("coat", "bag")
    film, strip, status, result = last(travel(studio, one, "", *SAMPLING, other, 11, 5))
    assert film["total"] == strip["count"] == 5 and film["captions"][2].startswith("50 % of the way")
    assert close(result.pictures[:1], made(studio, prompt=one, seed=3))
    assert close(result.pictures[-1:], made(studio, prompt=other, seed=11))
    between = (result.pictures[:-1] != result.pictures[1:]).reshape(4, -1).any(1)
    assert between.all() and "network calls for all 5 pictures" in status


def test_words_that_are_not_known_are_named_on_the_way_too(words: Studio) -> None:
    *_, status, _ = last(travel(words, "a bleu 7", "", *SAMPLING, "seven &<b>", 3, 3))
    assert "does not know “bleu”; did you mean blue" in status and "<b>" not in status


def test_both_branches_are_one_until_the_change(words: Studio) -> None:
    wanted = parting(PROMPT, "", *SAMPLING, OTHER, 2)
    assert wanted.turn.prompts == (PROMPT, OTHER) and wanted.seeds == (3, 3)
    steps = list(words.run(wanted))
    same = [bool((step.x[0] == step.x[1]).all()) for step in steps]
    assert same == [True, True, True, False, False]
    film, status, result = last(fork(words, PROMPT, "", *SAMPLING, OTHER, 2))
    kept, changed = frames(film, 1), frames(film, 3)
    assert (kept[:3] == changed[:3]).all() and (kept[3] != changed[3]).any()
    assert film["curves"][0]["values"][:3] == [0, 0, 0] and min(film["curves"][0]["values"][3:]) > 0
    assert close(result.pictures[:1], made(words, prompt=PROMPT, seed=3))
    assert "one and the same state" in film["captions"][2] and "followed its own" in film["captions"][3]
    assert "for both" in status
    assert (to_pictures(words.pipeline.decode(steps[-1].x0)) == np.stack([kept[-1], changed[-1]])).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: prompting.asked("7", "", *SAMPLING, 9), "number of pictures must be a whole number from 1 to 8"),
        (lambda: prompting.asked("7", "", *SAMPLING, float("nan")), "number of pictures must be a number"),
        (lambda: prompting.asked("7" * 1001, "", *SAMPLING, 1), "at most 1000 characters"),
        (lambda: prompting.asked("7\ud800", "", *SAMPLING, 1), "half a character"),
        (lambda: way("7", "", *SAMPLING, "8", 3, 2), "on the way must be a whole number from 3 to 24"),
        (lambda: way("7", "", *SAMPLING, "8", -1, 3), "seed must be"),
        (lambda: way("7", "", *SAMPLING, 8, 1, 3), "Prompts must be text"),
        (lambda: parting("7", "", *SAMPLING, "8", 4), "step of the change must be a whole number from 1 to 3, not 4"),
        (lambda: parting("7", "", "ddim", 1, 1.5, 3, "8", 1), "takes 2 steps or more"),
        (lambda: parting("7", "", *SAMPLING, "8", "x"), "step of the change must be a number"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_buttons_promise_what_they_do(words: Studio) -> None:
    asked = (PROMPT, "", *SAMPLING)
    go, on, part = tab.labels(words, *asked, 4, 9)
    assert go.startswith("Make 4 pictures · ") and on.startswith("Travel · ") and part.startswith("Part ways · ")
    assert tab.labels(words, *asked, 400, 9)[0] == "Make"
    assert tab.labels(words, "7", "", "ddim", 4, 1.5, None, 4, 9) == list(tab.VERBS.values())


def test_a_picture_is_selected_from_the_run_on_show(words: Studio, garments: Studio) -> None:
    *_, seen = last(paint(words, PROMPT, "", *SAMPLING, 2))
    assert tab.select(words, 1, seen)["panes"][0] == attended(words, seen, 1)["panes"][0]
    skipped = gr.skip()
    assert tab.select(words, None, seen) == tab.select(words, 2, seen) == tab.select(garments, 0, seen) == skipped
    with pytest.raises(ValueError, match="make some first"):
        tab.select(words, 0, None)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_every_model_shows_the_same_components(name: str) -> None:
    studio = tiny.studio(name, Limits())
    shown = tab.shown(studio)
    assert shown.keys() == tab.shown(tiny.studio("sentences", Limits())).keys()
    assert shown["room"]["visible"] is bool(studio.suggestions)
    if studio.suggestions:
        assert shown["words"]["visible"] is studio.sentences
        assert shown["picker"]["value"] != shown["goal"]["value"]
    else:
        assert "trained without prompts" in shown["lead"]["value"]
