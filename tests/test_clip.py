"""Frozen CLIP text models: they give what transformers gives, they stay as they are, and they stay where they are."""

import copy
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from hub_server import HubServer, Repo
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel

from diffusion import checkpoints, data, training
from diffusion.autoencoder import PixelsConfig
from diffusion.clip import SPECIAL, TRANSFORMERS, VOCABULARY, CLIPConfig, CLIPText
from diffusion.conditioning import Text, TextConfig, Unconditional, Words
from diffusion.pipeline import Defaults, ModelConfig, Pipeline
from diffusion.recipe import model_config, read_recipe
from diffusion.request import Request
from diffusion.unet import UNetConfig

ROOT = Path(__file__).parent.parent
ID = "owner/clip"
START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = ["r e", "re d</w>", "o n</w>", "t h", "th i", "c k</w>", "thi ck</w>", "p a", "p e", "pe r</w>", "pa per</w>"]
LETTERS = sorted(ByteLevel.alphabet())
TOKENS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *(merge.replace(" ", "") for merge in MERGES), START, END]
TEXT = {
    "vocab_size": len(TOKENS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": TOKENS.index(START),
    "eos_token_id": TOKENS.index(END),
    "pad_token_id": TOKENS.index(END),
}
VISION = {**TEXT, "image_size": 8, "patch_size": 4}
PROMPTS = [
    "a thick red 7 on blue paper",
    "",
    "red",
    " Red,RED  rEd!\n\tdon't \x00 (a:1.2) [b]",
    "naïve cafe\u0301 Ünïcode 日本語 שלום 😀👩‍👩‍👧 ﬁ İ",
    f"a {START} and {END} in between",
    " ".join(["red"] * 75),
    " ".join(["red"] * 76),
    " ".join(f"thick{number}" for number in range(100)),
    "x" * 5000,
    "😀" * 30,
    "red",
]


def write_tokenizer(folder: Path, pad: str = END) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: row for row, token in enumerate(TOKENS)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**special, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"})
    )


def write_text_model(folder: Path, kind: type = transformers.CLIPTextModel, **settings: int) -> None:
    """A random one, spread so far that no two tokens are alike."""
    config = transformers.CLIPTextConfig(**{**TEXT, **settings})
    if kind is transformers.CLIPModel:
        config = transformers.CLIPConfig(text_config=config.to_dict(), vision_config=VISION, projection_dim=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A text model and its tokenizer in one folder."""
    folder = tmp_path_factory.mktemp("clip")
    write_text_model(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def config(folder) -> CLIPConfig:
    return CLIPConfig(reference=str(folder), dim=32)


@pytest.fixture(scope="module")
def clip(config) -> CLIPText:
    return CLIPText(config)


def reference(model: Path, tokenizer: Path, prompts: list[str], length: int = 77) -> torch.Tensor:
    """What transformers alone makes of prompts, as Stable Diffusion asks it."""
    read = transformers.CLIPTokenizer.from_pretrained(tokenizer)
    tokens = read(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return transformers.CLIPTextModel.from_pretrained(model)(tokens).last_hidden_state


# ---------------------------------------------------------------- what it computes


def test_it_computes_what_transformers_computes(clip, folder):
    context = clip(PROMPTS)
    assert context.shape == (len(PROMPTS), 77, 32) and context.dtype == torch.float32
    torch.testing.assert_close(context, reference(folder, folder, PROMPTS), rtol=0, atol=1e-6)
    assert not torch.allclose(context[0], context[1], atol=0.1)
    assert torch.equal(context[2], context[-1])  # read once, and each has its own row


def test_a_prompt_does_not_depend_on_its_batch(clip):
    together = clip(PROMPTS)
    for prompt, among in zip(PROMPTS, together, strict=True):
        torch.testing.assert_close(clip([prompt])[0], among, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pad", [END, "!"])
def test_the_folder_of_a_stable_diffusion_model(tmp_path, pad):
    """Version 2 pads with "!" and has a text model that is a layer short; both are said by its own files."""
    write_text_model(tmp_path / "text_encoder", num_hidden_layers=3)
    write_tokenizer(tmp_path / "tokenizer", pad)
    clip = CLIPText(CLIPConfig(reference=str(tmp_path), encoder="text_encoder", tokenizer="tokenizer", dim=32))
    wanted = reference(tmp_path / "text_encoder", tmp_path / "tokenizer", PROMPTS)
    torch.testing.assert_close(clip(PROMPTS), wanted, rtol=0, atol=1e-6)


def test_padding_is_the_tokenizers(tmp_path, folder, clip):
    """The two tokenizers of the last test do differ."""
    shutil.copytree(folder, tmp_path / "other")
    write_tokenizer(tmp_path / "other", "!")
    other = CLIPText(CLIPConfig(reference=str(tmp_path / "other"), dim=32))
    ours, theirs = clip(["red"])[0], other(["red"])[0]
    torch.testing.assert_close(ours[:3], theirs[:3], rtol=0, atol=1e-6)
    assert not torch.isclose(ours[3:], theirs[3:], atol=1e-2).all(1).any()


@pytest.mark.parametrize("length", [3, 20])
def test_a_shorter_length(folder, config, length):
    clip = CLIPText(replace(config, length=length))
    torch.testing.assert_close(clip(PROMPTS), reference(folder, folder, PROMPTS, length), rtol=0, atol=1e-6)


def test_a_text_model_beside_a_vision_model(tmp_path):
    write_text_model(tmp_path, transformers.CLIPModel)
    write_tokenizer(tmp_path)
    assert any(name.startswith("vision_model.") for name in load_file(tmp_path / checkpoints.WEIGHTS))
    clip = CLIPText(CLIPConfig(reference=str(tmp_path), dim=32))
    torch.testing.assert_close(clip(PROMPTS), reference(tmp_path, tmp_path, PROMPTS), rtol=0, atol=1e-6)


def test_a_text_model_in_half_precision_with_names_as_they_were(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "old")
    tensors = load_file(folder / checkpoints.WEIGHTS)
    old = {f"text_model.{name}": tensor.half() for name, tensor in tensors.items()}
    old["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    save_file(old, tmp_path / "old" / checkpoints.WEIGHTS)
    save_file({name: tensor.half().float() for name, tensor in tensors.items()}, tmp_path / "rounded.safetensors")
    context = CLIPText(CLIPConfig(reference=str(tmp_path / "old"), dim=32))(PROMPTS)
    shutil.move(tmp_path / "rounded.safetensors", tmp_path / "old" / checkpoints.WEIGHTS)
    assert context.dtype == torch.float32
    torch.testing.assert_close(context, reference(tmp_path / "old", folder, PROMPTS), rtol=0, atol=1e-6)


def test_a_tokenizer_in_one_file(tmp_path, folder, clip):
    """As transformers writes it today, here with settings for truncation and padding in it."""
    shutil.copytree(folder, tmp_path / "new", ignore=shutil.ignore_patterns(*VOCABULARY[1], *SPECIAL))
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    tokenizer(["red"], padding="max_length", max_length=4, truncation=True)
    tokenizer.save_pretrained(tmp_path / "new")
    assert (tmp_path / "new" / "tokenizer.json").exists() and not (tmp_path / "new" / "vocab.json").exists()
    other = CLIPText(CLIPConfig(reference=str(tmp_path / "new"), dim=32))
    assert torch.equal(other(PROMPTS), clip(PROMPTS))


# ---------------------------------------------------------------- what it understands


def test_a_short_prompt_is_read_whole(clip):
    assert clip.understand("a Thick, red\n7") == (("a", "Thick,", "red", "7"), (), ())
    assert clip.understand("") == ((), (), ())
    assert clip.understand("red " * 75 + "  ").dropped == ()


def test_what_falls_past_the_length_is_said_in_the_words_that_were_typed(clip):
    """75 tokens are read: "red" is one of them, "Blue" four."""
    heard = clip.understand("red " * 74 + "Blue, naïve 😀")
    assert heard == (("red",) * 74, (), ("Blue,", "naïve", "😀"))
    assert clip.understand("red " * 71 + "Blue red").dropped == ("red",)
    assert clip.understand("red " * 75 + "cafe\u0301").dropped == ("cafe\u0301",)
    # A picture of a face is four tokens of one character, so the last of these is read in part.
    assert len(clip.understand("😀 " * 20).dropped) == 2
    assert clip.room == "75 tokens"


def test_each_token_is_of_a_word(clip):
    assert clip.tokens("") == ("", "")
    assert clip.tokens("a Red, 7 on  blue\n") == ("", "a", "Red,", "Red,", "7", "on", *["blue"] * 4, "")
    assert clip.tokens("naïve 😀") == ("", *["naïve"] * 6, *["😀"] * 4, "")
    assert len(clip.tokens("thick " * 99)) == 77
    changed = (clip(["red on blue"]) != clip(["red in blue"])).any(-1)[0]
    # No token attends to later ones, so that the first that differs is the first that is said to be of another word.
    assert changed.int().argmax() == clip.tokens("red on blue").index("on") == 2


@pytest.mark.parametrize("prompt", [prompt for prompt in PROMPTS if prompt != "x" * 5000])
def test_what_is_read_gives_the_same_tokens_and_one_word_more_does_not_fit(clip, prompt):
    words, _, dropped = clip.understand(prompt)
    assert [*words, *dropped] == prompt.split()
    if dropped:
        assert clip.understand(" ".join(words)).dropped == ()
        assert clip.understand(" ".join([*words, dropped[0]])).dropped == (dropped[0],)
        among = len(clip._encode(" ".join(words)).ids) + 1
        torch.testing.assert_close(clip([" ".join(words)])[0, :among], clip([prompt])[0, :among], rtol=0, atol=1e-6)
    else:
        torch.testing.assert_close(clip([" ".join(words)]), clip([prompt]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("prompt", ["\ud83d", "red \udc00 7", "x" * 100_000, "a " * 100_000, "\x00\x1b[31m", "\u202e"])
def test_no_prompt_is_too_strange(clip, prompt):
    assert clip([prompt]).isfinite().all()
    heard = clip.understand(prompt)
    assert [*heard.words, *heard.dropped] == prompt.split()


def test_which_conditioners_take_sentences(clip):
    text = Text(TextConfig(vocabulary=("red",), dim=8, heads=2, length=6))
    assert CLIPText.sentences and Text.sentences and not Words.sentences and not Unconditional.sentences
    assert text.room == "5 words" and text.understand("red " * 6).dropped == ("red",)
    assert clip.nearest("rad") == []


# ---------------------------------------------------------------- frozen


def test_it_is_neither_trained_nor_saved_nor_copied(clip):
    before = clip(PROMPTS)
    assert not list(clip.parameters()) and not list(clip.modules())[1:] and not clip.state_dict()
    other = copy.deepcopy(clip).train().requires_grad_(True)
    assert other._frozen is clip._frozen
    context = other(PROMPTS)
    assert not context.requires_grad and torch.equal(context, before)
    assert not clip._frozen.model.training
    assert not any(parameter.requires_grad for parameter in clip._frozen.model.parameters())


def test_it_moves_with_the_model(config):
    clip = torch.nn.ModuleDict({"conditioner": CLIPText(config)}).to(torch.float64)["conditioner"]
    assert clip(["red"]).dtype == torch.float64
    clip.to("meta")
    assert clip._frozen.model.device.type == "meta"


def test_no_one_elses_random_numbers_are_used(config):
    state = torch.get_rng_state()
    CLIPText(config)
    assert torch.equal(torch.get_rng_state(), state)


def test_loading_says_nothing(config, capfd):
    CLIPText(config)(PROMPTS)
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- as a part of a model


def model(conditioner: CLIPConfig, width: int = 32) -> ModelConfig:
    network = UNetConfig(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), attention=(True,), mid_attention=False,
        cross_attention_dim=width, norm_num_groups=4, attention_head_dim=4,
    )  # fmt: skip
    pixels = PixelsConfig(image_size=8, sample_size=8)
    return ModelConfig("tiny", pixels, conditioner, network, defaults=Defaults("ddim", 3, 2.0))


def test_a_saved_model_holds_the_name_alone_and_loads_again(tmp_path, config, folder):
    torch.manual_seed(0)
    pipeline = Pipeline(model(config)).eval()
    for parameter in pipeline.parameters():
        parameter.data = parameter.data.half().float()
    pipeline.save(tmp_path / "saved")
    stored = load_file(tmp_path / "saved" / checkpoints.WEIGHTS)
    assert stored and all(name.startswith("denoiser.") for name in stored)
    assert json.loads((tmp_path / "saved" / checkpoints.CONFIG).read_text())["conditioner"] == {
        "kind": "clip", "reference": str(folder), "encoder": "", "tokenizer": "", "dim": 32, "length": 77,
    }  # fmt: skip
    again = Pipeline.load(tmp_path / "saved")
    request = Request(prompt="a thick red 7", negative="on paper", count=2, steps=3, guidance=3.0, sampler="ddim")
    one, two, other = (
        [*pipeline.generate(request)][-1].x0,
        [*again.generate(request)][-1].x0,
        [*again.generate(replace(request, prompt="blue"))][-1].x0,
    )
    assert torch.equal(one, two) and not torch.allclose(one, other, atol=1e-4)


def test_a_network_of_another_width(config):
    with pytest.raises(ValueError) as error:
        Pipeline(model(config, 16))
    assert str(error.value) == (
        "The conditioner's vectors have 32 numbers, but the network's cross_attention_dim is 16: make it 32."
    )


RECIPE = {
    "name": "clip-painted",
    "data": "painted-mnist",
    "model": {
        "codec": {"kind": "pixels", "image_size": 32, "sample_size": 32, "channels": 3},
        "network": {
            "sample_size": 32,
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": [8, 8],
            "attention": [False, True],
            "attention_head_dim": 8,
            "cross_attention_dim": 32,
            "norm_num_groups": 4,
        },
    },
    "denoiser": {"steps": 6, "batch": 4, "warmup": 1},
}


@pytest.fixture(scope="module")
def painted():
    return data.Painted(data.load("mnist", "train", ROOT / "tests" / "data", download=False))


def new_run(folder: Path, painted: data.Painted, conditioner: dict[str, object]) -> training.Run:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    recipe, _ = read_recipe(folder / "recipe.yaml", {"model.conditioner": conditioner})
    return training.Run(recipe, painted, torch.device("cpu"))


def test_training_leaves_it_as_it_is_and_resumes(tmp_path, painted, folder):
    conditioner = {"kind": "clip", "reference": str(folder), "dim": 32}
    run = new_run(tmp_path, painted, conditioner)
    before = run.model.conditioner(PROMPTS)
    for progress in run.train():
        if progress.step == 3:
            run.save(tmp_path / "state.safetensors")
    assert run.finished and run.prompted and run.model.config.classes == ()
    assert torch.equal(run.model.conditioner(PROMPTS), before) and torch.equal(run.live["conditioner"](PROMPTS), before)
    assert not [name for name in load_file(tmp_path / "state.safetensors") if "conditioner" in name]
    assert run.parameters()["conditioner"] == 0

    resumed = new_run(tmp_path, painted, conditioner)
    resumed.restore(tmp_path / "state.safetensors")
    list(resumed.train())
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name

    run.export(tmp_path / "trained")
    pipeline = Pipeline.load(tmp_path / "trained")
    request = Request(prompt="a thick red 7", count=2, steps=2, guidance=2.0)
    *_, last = pipeline.generate(request)
    assert pipeline.images(last, request).shape == (2, 3, 32, 32)


def test_the_prompt_is_learnt_from(tmp_path, painted, folder):
    """What attends to the prompts gets gradients, and the state of another text model is refused."""
    run = new_run(tmp_path, painted, {"kind": "clip", "reference": str(folder), "dim": 32})
    keys = {name: p.detach().clone() for name, p in run.live.named_parameters() if "attn2.to_k" in name}
    list(run.train())
    assert keys and all(not torch.equal(dict(run.live.named_parameters())[name], key) for name, key in keys.items())
    run.save(tmp_path / "state.safetensors")
    shutil.copytree(folder, tmp_path / "other")
    other = new_run(tmp_path, painted, {"kind": "clip", "reference": str(tmp_path / "other"), "dim": 32})
    with pytest.raises(ValueError, match=r"another recipe \(model\.conditioner\.reference is "):
        other.restore(tmp_path / "state.safetensors")


def test_names_of_classes_are_read_as_they_are(tmp_path):
    recipe = RECIPE | {"data": "folder", "model": RECIPE["model"] | {"conditioner": {"kind": "clip", "dim": 32}}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    config = model_config(read_recipe(tmp_path / "recipe.yaml", {})[0], ("big dog", "cat"))
    assert config.classes == ("big dog", "cat") and config.conditioner == CLIPConfig(dim=32)


def test_a_recipe_whose_network_has_another_width_gets_the_setting(tmp_path, painted):
    with pytest.raises(ValueError, match=r"--set model\.network\.cross_attention_dim=768\.$"):
        new_run(tmp_path, painted, {"kind": "clip"})


# ---------------------------------------------------------------- from the Hub


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with HubServer() as server:
        server.repos[ID] = Repo({**files, "README.md": b"# CLIP", "pytorch_model.bin": b"pickle"})
        server.use(monkeypatch, tmp_path / "home")
        yield server


def test_it_comes_from_the_hub_once_and_works_offline(hub, clip, monkeypatch):
    first = CLIPText(CLIPConfig(reference=ID, dim=32))
    assert torch.equal(first(PROMPTS), clip(PROMPTS))
    assert not [request for request in hub.requests if "README" in request or ".bin" in request]

    hub.requests.clear()
    CLIPText(CLIPConfig(reference=ID, dim=32))
    assert set(hub.requests) == {f"GET /api/models/{ID}"}

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert torch.equal(CLIPText(CLIPConfig(reference=ID, dim=32))(PROMPTS), clip(PROMPTS))
    assert not hub.requests
    with pytest.raises(ValueError, match=r"^'owner/other' is not in the cache and HF_HUB_OFFLINE is set"):
        CLIPText(CLIPConfig(reference="owner/other", dim=32))


def test_subfolders_and_revisions_on_the_hub(hub, clip):
    files = hub.repos[ID].files
    model = {f"text_encoder/{name}": files[name] for name in (checkpoints.CONFIG, checkpoints.WEIGHTS)}
    words = {f"tokenizer/{name}": files[name] for name in (*VOCABULARY[1], *SPECIAL[:2])}
    hub.repos[ID].commit({**model, **words, "model_index.json": b"{}", "unet/config.json": b"{}"}, "sd")
    config = CLIPConfig(reference=f"{ID}@sd", encoder="text_encoder", tokenizer="tokenizer", dim=32)
    assert torch.equal(CLIPText(config)(PROMPTS), clip(PROMPTS))
    assert not [request for request in hub.requests if "unet" in request or "index" in request]
    hub.stop()
    assert torch.equal(CLIPText(config)(PROMPTS), clip(PROMPTS))
    with pytest.raises(ValueError, match=rf"connection to {hub.url}/{ID} failed"):
        CLIPText(CLIPConfig(reference=ID, dim=32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab.json": None}, rf"^'{ID}' lacks a tokenizer: there is no tokenizer\.json or vocab\.json and merges"),
        ({"config.json": b'{"model_type": "bert"}'}, rf"^'{ID}' is no CLIP text model: its model_type is 'bert', not"),
        ({"config.json": None}, rf"^'{ID}' on the Hub has no config\.json; a CLIP text model is a folder with config"),
        ({"model.safetensors": None}, rf"^'{ID}' on the Hub has only a pickle \(pytorch_model\.bin\), which can run"),
    ],
    ids=str,
)
def test_what_is_wrong_shows_before_the_weights_are_fetched(hub, change, message):
    hub.repos[ID].commit({name: data for name, data in (hub.repos[ID].files | change).items() if data is not None})
    with pytest.raises(ValueError, match=message):
        CLIPText(CLIPConfig(reference=ID, dim=32))
    assert not [request for request in hub.requests if "model.safetensors" in request or "objects" in request]


def test_weights_that_are_not_what_the_hub_announced(hub):
    hub.corrupt = True
    with pytest.raises(ValueError, match=r"'owner/clip': model\.safetensors is not what the Hub announced"):
        CLIPText(CLIPConfig(reference=ID, dim=32))
    hub.corrupt = False
    assert CLIPText(CLIPConfig(reference=ID, dim=32))(["red"]).isfinite().all()


# ---------------------------------------------------------------- what is said when something is wrong


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        (None, b"", {"dim": 768}, r"gives vectors of 32 numbers, not 768: make the conditioner's dim and the"),
        (None, b"", {"length": 78}, r"reads 77 tokens, not 78: make the conditioner's length 77 or less\.$"),
        (None, b"", {"tokenizer": "tokenizer"}, r"lacks a tokenizer: there is no .* in its subfolder tokenizer\.$"),
        (None, b"", {"encoder": "text_encoder"}, r"has no text_encoder/config\.json; a CLIP text model is a folder"),
        ("config.json", b"{", {}, r"config\.json is not JSON"),
        ("config.json", json.dumps({**TEXT, "model_type": "clip_text_model", "hidden_size": "wide"}).encode(), {},
         r"config\.json is no CLIP text model's \("),
        ("config.json", json.dumps({**TEXT, "model_type": "clip_text_model", "num_hidden_layers": 3}).encode(), {},
         r"do not fit the config, likely its hidden_size, num_hidden_layers or vocab_size: 'encoder\.layers\.2\."),
        ("config.json", json.dumps({**TEXT, "model_type": "clip_text_model", "vocab_size": 99}).encode(), {},
         rf"tokens up to {len(TOKENS) - 1}, but its text model's end at 98\.$"),
        ("vocab.json", b"{]", {}, r"^The tokenizer in .* is damaged \(.*\): copy or download it again\.$"),
        ("merges.txt", b"#version: 0.2\nnot here\n", {}, r"^The tokenizer in .* is damaged \("),
        ("model.safetensors", b"version https://git-lfs", {}, r"is a Git LFS pointer: run `git lfs pull`"),
        ("model.safetensors", b"\x00" * 40, {}, r"is cut short or damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_be_read(tmp_path, folder, name, content, settings, message):
    shutil.copytree(folder, tmp_path / "bad")
    if name:
        (tmp_path / "bad" / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        CLIPText(CLIPConfig(**{"reference": str(tmp_path / "bad"), "dim": 32, **settings}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere", r"^No CLIP text model 'nowhere': give a folder or a Hub id owner/name\[@revision\]\.$"),
        ("mnist-latent", r"^No CLIP text model 'mnist-latent'"),
        (str(ROOT / "pyproject.toml"), r"is a file; name the folder that holds config\.json and model\.safetensors\.$"),
    ],
)
def test_what_is_not_there(reference, message):
    with pytest.raises(ValueError, match=message):
        CLIPText(CLIPConfig(reference=reference, dim=32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim must be positive"),
        ({"length": 2}, "length must be 3 or more, to hold a start, a token and an end, but it is 2"),
        ({"encoder": "../secret"}, r"names of subfolders such as text_encoder, not '\.\./secret'"),
        ({"tokenizer": "/etc"}, "not '/etc'"),
        ({"tokenizer": ".."}, r"not '\.\.'"),
    ],
)
def test_what_cannot_be_a_clip_text_model(settings, message):
    with pytest.raises(ValueError, match=message):
        CLIPConfig(**settings)


def test_without_transformers_the_sentence_says_how_to_get_it(monkeypatch, config):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"^CLIP text models need transformers: pip install 'transformers>=5\.6,<6'"):
        CLIPText(config)


def test_it_is_imported_when_a_text_model_is_loaded_and_not_before(config):
    program = (
        "import sys; from diffusion.clip import *; before = 'transformers' in sys.modules;"
        f" CLIPText(CLIPConfig(reference={config.reference!r}, dim=32)); print(before, 'transformers' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout == "False True\n"


def test_all_places_that_name_the_package_agree():
    for file in ("pyproject.toml", "tests/requirements.txt", "README.md"):
        assert set(re.findall(r"transformers[<>=][\w.,<>=]*", (ROOT / file).read_text())) == {TRANSFORMERS}, file
