"""Recipes: what is checked before any data is read, what the data decides, and what makes two runs the same."""

from pathlib import Path

import pytest
import torch
import yaml

from diffusion.autoencoder import AutoencoderConfig
from diffusion.captions import VOCABULARY
from diffusion.classifier import ClassifierConfig
from diffusion.conditioning import UnconditionalConfig
from diffusion.data import PAINTED, ImageData, Painted
from diffusion.recipe import differences, identity, image_shape, model_config, read_recipe

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
PIXELS = {
    "name": "mine",
    "data": "folder",
    "model": {
        "codec": {"kind": "pixels", "image_size": 8, "sample_size": 8, "channels": 3},
        "conditioner": {"dim": 8},
        "network": {
            "sample_size": 8,
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": [8],
            "attention": [False],
            "attention_head_dim": 8,
            "cross_attention_dim": 8,
            "norm_num_groups": 4,
        },
    },
    "denoiser": {"steps": 3, "batch": 4, "warmup": 1},
}
UNPROMPTED = {"model.conditioner": {"kind": "none"}, "model.network.cross_attention_dim": None}


def read(tmp_path, recipe=PIXELS, **overrides):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return read_recipe(tmp_path / "recipe.yaml", overrides)[0]


def pictures(classes: tuple[str, ...]) -> ImageData:
    return ImageData(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), classes)


@pytest.mark.parametrize("path", sorted(CHECKPOINTS.glob("*/recipe.yaml")), ids=lambda path: path.parent.name)
def test_shipped_recipes_are_whole(path):
    recipe, _ = read_recipe(path, {})
    assert image_shape(recipe) == (Painted.shape if recipe.data in PAINTED else (1, 28, 28))


def test_classes_come_from_the_data(tmp_path):
    recipe = read(tmp_path)
    assert image_shape(recipe) == (3, 8, 8)
    config = model_config(recipe, ("cat", "big dog"))
    assert (config.name, config.data) == ("mine", "folder")
    assert config.classes == config.conditioner.vocabulary == ("cat", "big dog")


def test_a_model_without_prompts_takes_pictures_with_and_without_classes(tmp_path):
    recipe = read(tmp_path, **UNPROMPTED)
    for classes in (("",), ("cat", "dog")):
        config = model_config(recipe, classes)
        assert config.classes == ()
        assert config.conditioner == UnconditionalConfig()


def test_pictures_without_classes_cannot_be_prompted_for_and_the_sentence_says_what_works(tmp_path):
    with pytest.raises(ValueError, match=r"sort them into one subfolder") as error:
        model_config(read(tmp_path), ("",))
    assert "'model.conditioner={kind: none}' model.network.cross_attention_dim=null" in str(error.value)
    model_config(read(tmp_path, **UNPROMPTED), ("",))


def test_a_classifier_needs_classes(tmp_path):
    recipe = read(tmp_path, {"name": "judge", "data": "folder", "classifier": {"steps": 3, "warmup": 1}})
    config = model_config(recipe, ("cat", "dog"))
    assert isinstance(config, ClassifierConfig)
    assert config.classes == ("cat", "dog")
    assert image_shape(recipe) == (1, 28, 28)
    for classes in (("",), ("cat",)):
        with pytest.raises(ValueError, match="a classifier needs two classes or more"):
            model_config(recipe, classes)


ALONE = {
    "name": "alone",
    "data": "folder",
    "model": {"codec": {"kind": "vae", "image_size": 8, "sample_size": 8, "block_out_channels": [8, 8]}},
    "vae": {"steps": 3, "warmup": 1},
}


def test_an_autoencoder_may_stand_alone(tmp_path):
    recipe = read(tmp_path, ALONE, **{"model.beside": "mine", "model.codec.channels": 3})
    assert image_shape(recipe) == (3, 8, 8)
    for classes in (("",), ("cat", "dog")):
        config = model_config(recipe, classes)
        assert isinstance(config, AutoencoderConfig)
        assert (config.name, config.data, config.beside, config.kind) == ("alone", "folder", "mine", "autoencoder")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model.network": {"sample_size": 8}}, "unknown key 'network'; the keys here are name, kind, codec, data"),
        ({"model.codec.kind": "pixels"}, r"'codec\.kind'"),
        ({"model.name": "other"}, r"leave out 'model\.name', it follows from the rest of the recipe"),
        ({"model.beside": 3}, "'beside': input should be a valid string"),
    ],
)
def test_what_an_autoencoder_alone_cannot_have(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path, ALONE, **change)


@pytest.mark.parametrize(
    ("recipe", "change", "settings"),
    [
        (
            "mnist-ddpm",
            {"codec.image_size": 64, "codec.sample_size": 64, "codec.channels": 3},
            "model.network.in_channels=3 model.network.out_channels=3 model.network.sample_size=64",
        ),
        (
            "mnist-latent",
            {"codec.image_size": 64, "codec.sample_size": 64, "codec.channels": 3},
            "model.network.sample_size=16",
        ),
        ("mnist-latent", {"codec.latent_channels": 8}, "model.network.in_channels=8 model.network.out_channels=8"),
        ("mnist-latent", {"conditioner": {"kind": "none"}}, "model.network.cross_attention_dim=null"),
        ("fashion-ddpm", {"conditioner.dim": 32}, "model.network.cross_attention_dim=32"),
    ],
)
def test_parts_that_do_not_fit_get_the_settings_that_do(recipe, change, settings):
    path, changes = CHECKPOINTS / recipe / "recipe.yaml", {f"model.{key}": value for key, value in change.items()}
    with pytest.raises(ValueError, match=r"the network does not fit") as error:
        read_recipe(path, changes)
    assert str(error.value).endswith(f": --set {settings}.")
    read_recipe(path, changes | dict(yaml.safe_load(part.replace("=", ": ")).popitem() for part in settings.split()))


def test_a_network_that_does_not_fit_is_found_before_any_data_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"recipe.yaml: unknown data set 'photos'; the choices are .*folder, idx"):
        read(tmp_path, data="photos")
    with pytest.raises(ValueError, match=r"leave out 'model\.classes'"):
        read(tmp_path, **{"model.classes": ["cat"]})


def test_states_from_before_there_was_a_mirror_are_of_the_same_recipe(tmp_path):
    data = pictures(("cat", "dog"))
    before = identity(read(tmp_path), data)
    assert not [key for key in before if key.endswith("mirror")]
    mirrored = identity(read(tmp_path, **{"denoiser.mirror": True}), data)
    assert differences(before, mirrored) == "denoiser.mirror is True but was None"
    assert before["model.data"] == "folder"
    assert differences(before, identity(read(tmp_path, title="Cats", name="cats"), data)) == ""
    assert "model.classes" in differences(before, identity(read(tmp_path), pictures(("cat", "god"))))


PAINTING = PIXELS | {
    "data": "painted-mnist",
    "model": PIXELS["model"] | {"conditioner": {"kind": "text", "dim": 8, "heads": 2}},
}


def test_sentences_are_read_by_the_words_that_captions_are_made_of(tmp_path):
    config = model_config(read(tmp_path, PAINTING), ())
    assert config.conditioner.vocabulary == VOCABULARY and config.classes == ()


def test_class_names_may_be_read_as_sentences(tmp_path):
    config = model_config(read(tmp_path, PAINTING, data="folder"), ("big dog", "big cat"))
    assert config.conditioner.vocabulary == ("big", "cat", "dog") and config.classes == ("big dog", "big cat")


def test_sentences_are_no_classes(tmp_path):
    with pytest.raises(ValueError, match=r"sentences: --set model\.conditioner\.kind=text"):
        read(tmp_path, PAINTING, **{"model.conditioner": {"kind": "words", "dim": 8}})


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ([{"digit": 7}], "would hold out a whole word; name two or more together"),
        ([{"digit": 7, "ink": "mauve"}], "unknown ink 'mauve'; the choices are black, white, red"),
        ([{"digit": 7, "hat": "red"}], "unknown key 'held_out.0.hat'; the keys here are digit, ink, paper"),
        ("red sevens", "held_out"),
    ],
)
def test_what_cannot_be_held_out(tmp_path, held_out, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, PAINTING, held_out=held_out)


def test_only_what_is_painted_can_be_held_out(tmp_path):
    with pytest.raises(ValueError, match="'held_out' is for data that is painted: painted-mnist"):
        read(tmp_path, held_out=[{"digit": 7, "ink": "red"}])
