"""The lesson on the KL term: which models have it, and that its films and figures are the engine's."""

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pair
import pytest
import torch

from diffusion.autoencoder import Autoencoder, VAEConfig
from diffusion.export import to_image, to_pictures
from diffusion.noise import Noise
from diffusion.ui import variational
from diffusion.ui.studio import Studio
from diffusion.ui.tabs import vae


@pytest.fixture(scope="module")
def own() -> Studio:
    return pair.own()


@pytest.fixture(scope="module")
def pictures(own: Studio) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


@pytest.fixture
def beside(own: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Autoencoder:
    """The counterpart that the app then finds."""
    other = pair.write(tmp_path, "other")
    pair.measured(tmp_path, "other")
    monkeypatch.setattr(variational, "counterpart", partial(variational.counterpart, under=tmp_path))
    return other


def test_a_counterpart_is_one_that_says_so_fits_and_was_measured(own: Studio, tmp_path: Path) -> None:
    def found() -> variational.Counterpart | None:
        return variational.counterpart.__wrapped__(own, tmp_path)

    assert found() is None
    pair.write(tmp_path, "a", beside="another")
    pair.write(tmp_path, "b", codec=VAEConfig(image_size=32, sample_size=32, channels=3, latent_channels=2))
    for name in ("a", "b"):
        pair.measured(tmp_path, name)
    assert found() is None
    other = pair.write(tmp_path, "c", seed=5)
    assert found() is None
    pair.measured(tmp_path, "c")
    assert found().survey == pair.SURVEY
    for name, tensor in other.codec.state_dict().items():
        assert torch.equal(found().codec.state_dict()[name], tensor), name
    (tmp_path / "c" / "metrics.json").write_text(json.dumps({"latents": {"count": 3}}))
    with pytest.raises(ValueError, match=r"metrics.json: 'seed' is missing"):
        found()


def frames(film: dict, pane: int) -> np.ndarray:
    shown = film["panes"][pane]
    return np.frombuffer(base64.b64decode(shown["all"]), np.uint8).reshape(film["total"], shown["h"], shown["w"], -1)


def drawn(film: dict, latents: Callable, *codecs) -> None:
    """That every frame of each pane is what its codec makes of these latents."""
    t = torch.linspace(0, 1, variational.POINTS).view(-1, 1, 1, 1)
    for pane, codec in enumerate(codecs):
        with torch.no_grad():
            wanted = to_pictures(codec.decode(latents(codec, t)))
        assert np.abs(frames(film, pane).astype(int) - wanted).max() <= 1
    assert [pane["label"] for pane in film["panes"]] == ["KL weight 0.001", "KL weight 2 × 10⁻⁸"]


def test_films_are_what_both_decoders_draw(own: Studio, beside: Autoencoder, pictures: np.ndarray) -> None:
    images = torch.stack([to_image(picture) for picture in pictures])
    line, rising = variational.films(own, *pictures)

    def straight(codec, t: torch.Tensor) -> torch.Tensor:
        z = codec.encode(images)
        return (1 - t) * z[0] + t * z[1]

    def noisy(codec, t: torch.Tensor) -> torch.Tensor:
        z = codec.encode(images[:1])
        return z + t * Noise([variational.SEED])(z)

    drawn(line, straight, own.pipeline.codec, beside.codec)
    drawn(rising, noisy, own.pipeline.codec, beside.codec)
    assert not np.array_equal(frames(line, 0), frames(line, 1))
    assert line["captions"][0].startswith("Read on the left as ")


def test_the_words_and_the_table_give_the_figures(own: Studio, beside: Autoencoder, pictures: np.ndarray) -> None:
    shown = variational.shown(own, *pictures)
    assert shown["why.card"] == {"visible": True}
    texts = {name: shown[f"why.{name}"]["value"] for name in ("lead", "finding", "table", "note")}
    assert "0.001 on the KL term" in texts["lead"] and "2 × 10⁻⁸" in texts["lead"]
    assert "16% of the pairs" in texts["finding"]
    assert "86% of the pictures" in texts["finding"] and "30% without" in texts["finding"]
    for cells in (
        "<td>34.2 dB</td><td>34.2 dB</td>",
        "<td>833 nats</td><td>3,581 nats</td>",
        "<td>−0.1 0.1 0.0 2.0</td>",
        "0.3</th><td>96%</td><td>62%</td>",
        "<td>5.4%</td>",
    ):
        assert cells in texts["table"]
    assert "400 test pictures" in texts["note"] and "98% of the test pictures" in texts["note"]


def test_a_model_without_counterpart_has_no_such_card(studio: Studio) -> None:
    hidden = variational.shown(studio, *studio.nth(0)[:2])
    assert hidden.pop("why.card") == {"visible": False}
    assert all(properties == {"value": None} for properties in hidden.values())
    assert variational.films(studio, *studio.nth(0)[:2]) == (None, None)


def test_nothing_is_drawn_before_there_are_two_pictures(own: Studio, beside: Autoencoder, pictures: np.ndarray) -> None:
    assert variational.films(own, None, pictures[0]) == variational.films(own, pictures[0], None) == (None, None)


def test_the_tab_takes_pictures_of_any_size_and_colour_apart(own: Studio) -> None:
    """What it shows of a model in colour has the same parts as of one in grey, and is in colour."""
    shown = vae.shown(own)
    assert shown["absent"] == {"visible": False}
    assert shown["first"]["value"].shape == (32, 32, 3)
    assert "3072 colour values into 256 numbers" in shown["lead"]["value"]
    assert "3072 → 256" in shown["facts"]["value"] and "3072 → 1024" in shown["facts"]["value"]
    assert frames(shown["walk"]["value"], 1).shape[1:] == (32, 32, 3)
    assert np.array_equal(frames(shown["walk"]["value"], 1)[0], shown["first"]["value"])
    assert np.array_equal(frames(shown["walk"]["value"], 1)[-1], shown["second"]["value"])
