"""Stable Diffusion in this engine: the parts and the whole against diffusers and transformers, with random weights."""

import copy
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import diffusers
import original
import pytest
import torch
import transformers
from diffusers.loaders import single_file_utils
from hub_server import HubServer, Repo
from safetensors.torch import load_file, save_file
from test_clip import END, PROMPTS, TEXT, TOKENS, write_tokenizer
from theirs import (
    BETAS,
    CELLS,
    CLIP_H,
    CLIP_L,
    SD15,
    SD21,
    SD_VAE,
    SIDE,
    TRAINED,
    full_size,
    model,
    text_encoder,
)
from torch import Tensor

from diffusion import diffusers_layout, original_layout, stable_diffusion, weights
from diffusion.autoencoder import VAE, VAEConfig
from diffusion.checkpoints import load_into
from diffusion.clip import TOKENIZER
from diffusion.diffusers_layout import placed
from diffusion.pipeline import Pipeline
from diffusion.request import Request
from diffusion.schedules import EDM, TABLE_GRIDS, Discrete
from diffusion.stable_diffusion import INDEX, WEIGHTS
from diffusion.unet import UNet, UNetConfig


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> diffusers.StableDiffusionPipeline:
    write_tokenizer(folder := tmp_path_factory.mktemp("tokenizer"))
    pipeline = model(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory) -> Path:
    theirs.save_pretrained(folder := tmp_path_factory.mktemp("models") / "small-diffusion")
    return folder


@pytest.fixture(scope="module")
def ours(folder) -> Pipeline:
    return Pipeline.load(folder)


def assert_equal(ours: Tensor, theirs: Tensor, rtol: float = 1e-5) -> None:
    """rtol is of the largest number."""
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=rtol * theirs.abs().max().item())


def latents(count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, CELLS, CELLS, generator=torch.Generator().manual_seed(seed))


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3)) * 2 - 1


@torch.no_grad()
def assert_same_parts(
    ours: Pipeline, theirs: diffusers.StableDiffusionPipeline, prompts: Sequence[str] = PROMPTS
) -> None:
    """U-Net, both ways of the autoencoder, tokenizer and text model."""
    z, x, t = latents(), images(), torch.tensor([3.0, 871.0])
    read = theirs.tokenizer([*prompts], padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    assert [ours.conditioner._tokens(prompt) for prompt in prompts] == read.input_ids.tolist()
    context = theirs.text_encoder(read.input_ids).last_hidden_state
    assert_equal(ours.conditioner(prompts), context)
    assert_equal(ours.denoiser.network(z, t, context[:2]), theirs.unet(z, t, context[:2]).sample)
    scale = theirs.vae.config.scaling_factor
    assert_equal(ours.codec.encode(x), theirs.vae.encode(x).latent_dist.mode() * scale)
    assert_equal(ours.codec.decode(z), theirs.vae.decode(z / scale).sample)


# ---------------------------------------------------------------- folders in the layout of diffusers


def test_the_parts_of_a_folder_are_the_same(ours, theirs):
    assert_same_parts(ours, theirs)


def test_what_its_settings_become(ours, folder):
    config = ours.config
    assert config.name == "small-diffusion"
    assert config.schedule == Discrete("scaled_linear", 1000, 0.00085, 0.012)
    assert (config.prediction, config.grid, config.defaults.sampler) == ("eps", "leading", "ddim")
    assert config.codec.scaling_factor == 0.18215 and config.codec.image_size == SIDE
    assert config.network.attention_heads == 8
    assert config.conditioner.reference == str(folder) and config.conditioner.encoder == "text_encoder"
    assert not ours.training and all(p.requires_grad and p.dtype == torch.float32 for p in ours.parameters())


@pytest.mark.parametrize(
    ("scheduler", "options", "expected"),
    [
        ("PNDMScheduler", {"beta_schedule": "linear"}, ("linear", "leading", "plms")),
        ("DDPMScheduler", {"beta_schedule": "squaredcos_cap_v2"}, ("cosine", "leading", "ddpm")),
        ("EulerDiscreteScheduler", {}, ("scaled_linear", "uniform_time", "euler")),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, ("scaled_linear", "trailing", "euler")),
        ("LMSDiscreteScheduler", {"use_karras_sigmas": True}, ("scaled_linear", "karras", "lms")),
        ("HeunDiscreteScheduler", {}, ("scaled_linear", "uniform_time", "heun")),
        ("DPMSolverMultistepScheduler", {}, ("scaled_linear", "uniform_time", "dpmpp_2m")),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"},
         ("scaled_linear", "uniform_time", "dpmpp_2m_sde")),
    ],
)  # fmt: skip
def test_what_schedulers_become(scheduler, options, expected):
    settings = dict(getattr(diffusers, scheduler)(**{**BETAS, **options}).config) | {"_class_name": scheduler}
    schedule, prediction, grid, sampler = diffusers_layout.schedule(settings, "it")
    assert ((schedule.kind, grid, sampler), prediction) == (expected, "eps")
    assert (schedule.steps, schedule.beta_start, schedule.beta_end) == (1000, 0.00085, 0.012)


# ---------------------------------------------------------------- whole pipelines


STEPS = {"leading": 9, "linspace": 9, "trailing": 10}
"""For each spacing, so many that all steps are of equally many whole timesteps; diffusers' DDIM and PNDM need that."""

RUN = 6  # of these steps from an image on
PROMPTED = {"prompt": ("a thick red 7", "on blue paper"), "negative": "thick paper", "count": 2, "seed": 11}

ON_SIGMA = {"EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler"}
"""Diffusers' schedulers whose states are x0 + sigma * eps, as ours; the others' are these over sqrt(1 + sigma^2)."""

ONE_MORE = {"DPMSolverMultistepScheduler", "UniPCMultistepScheduler"}
"""Those that space leading and linspace timesteps for one step more, and leave the last of these out."""

CASES = [
    (scheduler, spacing)
    for scheduler in (
        "DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
        "LMSDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler",
    )
    for spacing in ("leading", "linspace", "trailing")
    # Diffusers' DDIM and PNDM step by a fixed number of timesteps, with linspace past those that they ask for next.
    if not (spacing == "linspace" and scheduler in ("DDIMScheduler", "PNDMScheduler"))
]  # fmt: skip


def scheduled(scheduler: str, spacing: str, prediction: str = "epsilon") -> diffusers.SchedulerMixin:
    """One whose last step ends at sigma = 0, as all of ours do.

    That of LMS takes the steps before the first, from an image on, for steps that it has made; here it is told better.
    """
    options = {"DDIMScheduler": {"clip_sample": False, "set_alpha_to_one": True}}
    options |= {"PNDMScheduler": {"skip_prk_steps": True, "set_alpha_to_one": True}}
    kwargs = TRAINED | {"timestep_spacing": spacing, "prediction_type": prediction} | options.get(scheduler, {})
    made = getattr(diffusers, scheduler)(**kwargs)
    if scheduler == "LMSDiscreteScheduler":
        step = made.step
        made.step = lambda *given, **more: step(*given, **more, order=min(len(made.derivatives) + 1, 4))
    return made


def loaded(folder: Path, scheduler: diffusers.SchedulerMixin, tmp_path: Path, monkeypatch) -> Pipeline:
    """Ours, of the folder with this scheduler in it."""
    shutil.copytree(folder, changed := tmp_path / "model")
    scheduler.save_pretrained(changed / "scheduler")
    pipeline = Pipeline.load(changed)
    if type(scheduler).__name__ in ONE_MORE and scheduler.config.timestep_spacing != "trailing":
        grid = pipeline.grid
        monkeypatch.setattr(pipeline, "grid", lambda n: torch.cat([grid(n + 1)[:-2], torch.zeros(1)]))
    return pipeline


def generators(count: int = 2) -> list[torch.Generator]:
    """Each image's own, as ours have them."""
    return [torch.Generator().manual_seed(PROMPTED["seed"] + i) for i in range(count)]


ASKED = {
    "prompt": list(PROMPTED["prompt"]), "negative_prompt": [PROMPTED["negative"]] * 2, "guidance_scale": 5.0,
    "output_type": "pt",
}  # fmt: skip
"""The same in their words."""


def assert_same_picture(pipeline: Pipeline, request: Request, theirs: Tensor) -> None:
    """To 1e-3 of the whole range, of which the pictures are not the ends."""
    *_, end = pipeline.generate(request)
    picture = (pipeline.images(end, replace(request, image=None, mask=None)) + 1) / 2  # without what is pasted over it
    assert ((theirs > 0.02) & (theirs < 0.98)).float().mean() > 0.5
    torch.testing.assert_close(picture, theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("scheduler", "spacing"), CASES)
def test_text_to_image_is_the_same(theirs, folder, tmp_path, monkeypatch, scheduler, spacing):
    theirs.scheduler, steps = scheduled(scheduler, spacing), STEPS[spacing]
    ours = loaded(folder, theirs.scheduler, tmp_path, monkeypatch)
    request = Request(**PROMPTED, sampler=ours.config.defaults.sampler, steps=steps, guidance=5.0)
    draws = generators()
    eps = torch.stack([torch.randn(4, CELLS, CELLS, generator=draw) for draw in draws])
    # The same start: theirs, at the highest level, is as wide as noise and data together.
    sigma = ours.grid(steps)[0]
    theirs.scheduler.set_timesteps(steps)
    scale = 1 if scheduler in ON_SIGMA else (1 + sigma**2).rsqrt()
    start = (scale * sigma / theirs.scheduler.init_noise_sigma * eps.double()).float()
    picture = theirs(**ASKED, num_inference_steps=steps, latents=start, generator=draws).images
    assert_same_picture(ours, request, picture)


@torch.no_grad()
def known(theirs: diffusers.StableDiffusionPipeline) -> Tensor:
    """The pictures as latents; theirs would draw them from the posterior, ours are its means."""
    return theirs.vae.encode(images()).latent_dist.mode() * theirs.vae.config.scaling_factor


def like(theirs: diffusers.StableDiffusionPipeline, kind: type) -> diffusers.DiffusionPipeline:
    """Another of diffusers' pipelines with the same parts.

    PNDM asks twice at its second timestep. Diffusers cuts the list that is made for a start from noise, so that from an
    image on no timestep is there twice and all are a step off; here the list is made anew.
    """
    other = kind(**theirs.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    if isinstance(theirs.scheduler, diffusers.PNDMScheduler):

        def timesteps(num_inference_steps: int, strength: float, device: str) -> tuple[Tensor, int]:
            left = theirs.scheduler.timesteps.unique().flip(0)[-round(num_inference_steps * strength) :]
            return torch.cat([left[:2], left[1:]]), num_inference_steps

        other.get_timesteps = timesteps
    return other


@pytest.mark.parametrize(("scheduler", "spacing"), CASES)
def test_image_to_image_is_the_same(theirs, folder, tmp_path, monkeypatch, scheduler, spacing):
    theirs.scheduler, steps = scheduled(scheduler, spacing), STEPS[spacing]
    ours = loaded(folder, theirs.scheduler, tmp_path, monkeypatch)
    sampler, strength = ours.config.defaults.sampler, RUN / steps
    picture = like(theirs, diffusers.StableDiffusionImg2ImgPipeline)(
        **ASKED, num_inference_steps=steps, image=known(theirs), strength=strength, generator=generators()
    ).images
    request = Request(**PROMPTED, sampler=sampler, steps=steps, guidance=5.0, image=images(), strength=strength)
    assert_same_picture(ours, request, picture)


@pytest.mark.parametrize(("scheduler", "spacing"), CASES)
def test_inpainting_is_the_same(theirs, folder, tmp_path, monkeypatch, scheduler, spacing):
    """With a mask along the cells' sides: theirs takes each cell's corner pixel for it, ours any of its pixels."""
    theirs.scheduler, steps = scheduled(scheduler, spacing), STEPS[spacing]
    ours = loaded(folder, theirs.scheduler, tmp_path, monkeypatch)
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, 4:14, 2:10] = 1
    z, strength = known(theirs), RUN / steps
    picture = like(theirs, diffusers.StableDiffusionInpaintPipeline)(
        **ASKED, num_inference_steps=steps, image=z, masked_image_latents=z, mask_image=mask.unsqueeze(0),
        strength=strength, generator=generators(),
    ).images  # fmt: skip
    request = Request(
        **PROMPTED, sampler=ours.config.defaults.sampler, steps=steps, guidance=5.0,
        image=images(), strength=strength, mask=mask,
    )  # fmt: skip
    assert_same_picture(ours, request, picture)
    *_, end = ours.generate(request)
    assert_equal(end.x0[:, :, 7], z[:, :, 7])


@pytest.mark.parametrize("tiling", [False, True])
def test_pictures_of_other_sizes_are_the_same(theirs, folder, tmp_path, monkeypatch, tiling):
    """Higher than wide; the autoencoder's tiles, of the model's own size, are theirs too."""
    theirs.scheduler, (height, width), steps = scheduled("DDIMScheduler", "leading"), (40, 24), STEPS["leading"]
    ours = loaded(folder, theirs.scheduler, tmp_path, monkeypatch)
    eps = torch.stack([torch.randn(4, height // 2, width // 2, generator=draw) for draw in generators()])
    sigma = ours.grid(steps)[0]
    start = ((1 + sigma**2).rsqrt() * sigma * eps.double()).float()
    monkeypatch.setattr(theirs.vae, "use_tiling", tiling)
    if tiling:
        monkeypatch.setattr("diffusion.autoencoder.LARGEST", 0)
    size = {"height": height, "width": width}
    picture = theirs(**ASKED, **size, num_inference_steps=steps, latents=start).images
    assert picture.shape[2:] == (height, width)
    request = Request(**PROMPTED, size=(height, width), sampler="ddim", steps=steps, guidance=5.0)
    assert_same_picture(ours, request, picture)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "PNDMScheduler"])
def test_where_theirs_ends_at_the_tables_first_level_ours_does_if_told_to(theirs, ours, monkeypatch, scheduler):
    """As Stable Diffusion's own settings say (set_alpha_to_one: false), which leaves that much noise in the latents."""
    theirs.scheduler = scheduled(scheduler, "leading")
    theirs.scheduler = type(theirs.scheduler).from_config(theirs.scheduler.config, set_alpha_to_one=False)
    steps = STEPS["leading"]
    levels = ours.grid(steps)
    levels[-1] = ours.config.schedule.sigma_min
    monkeypatch.setattr(ours, "grid", lambda steps: levels)
    eps = torch.stack([torch.randn(4, CELLS, CELLS, generator=draw) for draw in generators()])
    start = (levels[0] * (1 + levels[0] ** 2).rsqrt() * eps.double()).float()
    expected = theirs(**{**ASKED, "output_type": "latent"}, num_inference_steps=steps, latents=start).images
    sampler = {"DDIMScheduler": "ddim", "PNDMScheduler": "plms"}[scheduler]
    *_, end = ours.generate(Request(**PROMPTED, sampler=sampler, steps=steps, guidance=5.0))
    assert_equal(end.x * (1 + levels[-1] ** 2).rsqrt().float(), expected, 1e-4)


# ---------------------------------------------------------------- the kinds of folders there are


def test_version_2(tmp_path_factory, tmp_path, monkeypatch):
    """Its transformers have linear projections, its heads are equally wide, it predicts v, and pads with "!"."""
    write_tokenizer(words := tmp_path_factory.mktemp("tokenizer"), "!")
    theirs = model(words, 2)
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(tmp_path / "saved")
    theirs.scheduler = scheduled("DDIMScheduler", "trailing", "v_prediction")
    ours = loaded(tmp_path / "saved", theirs.scheduler, tmp_path, monkeypatch)
    assert (ours.config.prediction, ours.config.network.attention_head_dim) == ("v", 64)
    assert_same_parts(ours, theirs)
    steps = STEPS["trailing"]
    sigma = ours.grid(steps)[0]
    eps = torch.stack([torch.randn(4, CELLS, CELLS, generator=draw) for draw in generators()])
    start = (sigma * (1 + sigma**2).rsqrt() * eps.double()).float()
    picture = theirs(**ASKED, num_inference_steps=steps, latents=start).images
    assert_same_picture(ours, Request(**PROMPTED, sampler="ddim", steps=steps, guidance=5.0), picture)


def test_half_precision_on_disk(theirs, folder, tmp_path):
    """As variant fp16, under names of its own, where there is nothing else."""
    theirs.save_pretrained(tmp_path / "half", variant="fp16")
    for file in (tmp_path / "half").rglob("*.fp16.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    assert not list((tmp_path / "half").rglob("*model.safetensors"))
    reference = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "half", variant="fp16")
    assert_same_parts(ours := Pipeline.load(tmp_path / "half"), reference)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    # Where both are there, the full one is read.
    shutil.copytree(folder, tmp_path / "half", dirs_exist_ok=True)
    assert_same_parts(Pipeline.load(tmp_path / "half"), theirs)


@pytest.mark.parametrize("convolutions", [False, True])
def test_the_autoencoders_attention_as_it_was_named_once(theirs, folder, tmp_path, convolutions):
    shutil.copytree(folder, changed := tmp_path / "old")
    file = changed / "vae" / WEIGHTS[0]
    new = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = {}
    for name, tensor in load_file(file).items():
        for ours, old in new.items():
            if ours in name and convolutions and name.endswith("weight"):
                tensor = tensor[..., None, None]
            name = name.replace(ours, old)
        tensors[name] = tensor
    assert sum(".proj_attn." in name for name in tensors) == 4
    save_file(tensors, file)
    assert_same_parts(Pipeline.load(changed), theirs)


# ---------------------------------------------------------------- single files in the original layout


def original_state(theirs: diffusers.StableDiffusionPipeline, version: int = 1) -> original.State:
    text = theirs.text_encoder.state_dict()
    return {
        **original.unet(theirs.unet.state_dict(), theirs.unet.config.layers_per_block),
        **original.vae(theirs.vae.state_dict(), len(theirs.vae.config.block_out_channels)),
        **(original.clip(text) if version == 1 else original.open_clip(text, TEXT["num_hidden_layers"])),
    }


def write_file(folder: Path, state: original.State, pad: str = END, **said: str) -> Path:
    """With a tokenizer beside it, and the size of its pictures in it."""
    write_tokenizer(folder / "tokenizer", pad)
    metadata = {"modelspec.resolution": f"{SIDE}x{SIDE}", **said}
    state = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    save_file(state, file := folder / "small-diffusion.safetensors", metadata)
    return file


@pytest.fixture(scope="module")
def state(theirs) -> original.State:
    return original_state(theirs)


def test_the_original_layout_is_what_diffusers_takes_it_for(theirs, state):
    """So that the tests below, which go there and back, have it right."""
    prefix = "cond_stage_model.transformer."
    for converted, module in (
        (single_file_utils.convert_ldm_unet_checkpoint(dict(state), dict(theirs.unet.config)), theirs.unet),
        (single_file_utils.convert_ldm_vae_checkpoint(dict(state), dict(theirs.vae.config)), theirs.vae),
        (single_file_utils.convert_ldm_clip_checkpoint(dict(state), prefix), theirs.text_encoder),
    ):
        wanted = module.state_dict()
        converted = {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}
        assert converted.keys() - {"embeddings.position_ids"} == wanted.keys()
        assert all(torch.equal(converted[name].view_as(wanted[name]), wanted[name]) for name in wanted)


def test_version_2s_text_model_is_what_diffusers_takes_it_for():
    theirs = text_encoder(2)
    state = original.open_clip(theirs.state_dict(), TEXT["num_hidden_layers"])
    last = [name for name in state if f"resblocks.{TEXT['num_hidden_layers']}." in name]
    converted = single_file_utils.convert_open_clip_checkpoint(theirs, {n: state[n] for n in state if n not in last})
    wanted = theirs.state_dict()
    converted = {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}
    assert len(last) == 12 and wanted.keys() <= converted.keys()
    assert all(torch.equal(converted[name], wanted[name]) for name in wanted)


def test_a_single_file(theirs, state, tmp_path):
    file = write_file(tmp_path, {**state, **original.TABLES})
    ours = Pipeline.load(file)
    assert_same_parts(ours, theirs)
    config = ours.config
    assert (config.name, config.prediction, config.grid) == ("small-diffusion", "eps", "leading")
    assert config.schedule == Discrete("scaled_linear", 1000, 0.00085, 0.012)
    ours.save(tmp_path / "saved")
    again = Pipeline.load(tmp_path / "saved")
    assert again.config == config and torch.equal(again.conditioner(["red"]), ours.conditioner(["red"]))


def test_a_single_file_of_version_2(tmp_path):
    """Where the file has no tokenizer of its own, that of version 1 does, with OpenCLIP's padding.

    To transformers padding is no word, so that it takes a "!" in a prompt for that; OpenCLIP's tokenizer does not.
    """
    write_tokenizer(words := tmp_path / "words", "!")
    theirs = model(words, 2)
    ours = Pipeline.load(write_file(tmp_path, original_state(theirs, 2)))
    assert_same_parts(ours, theirs, [prompt.replace("!", "") for prompt in PROMPTS])
    assert ours.conditioner._tokens("red!")[2] == TOKENS.index("!</w>")
    assert (ours.config.prediction, ours.config.network.attention_head_dim) == ("v", 64)


@pytest.mark.parametrize(
    ("version", "said", "beside", "expected"),
    [
        (1, {}, None, ("eps", 512)),
        (1, {"modelspec.prediction_type": "v", "modelspec.resolution": "640x640"}, None, ("v", 640)),
        (2, {}, None, ("v", 768)),
        (2, {"modelspec.prediction_type": "epsilon"}, None, ("eps", 512)),
        (2, {"modelspec.prediction_type": "v_prediction"}, None, ("v", 768)),
        (2, {}, "model: {params: {image_size: 64}}", ("eps", 512)),
        (2, {}, "model: {params: {parameterization: v, image_size: 96}}", ("v", 768)),
        (2, {"modelspec.prediction_type": "v"}, "model: {params: {image_size: 16}}", ("v", 128)),
    ],
)
def test_what_a_file_says_of_its_prediction_and_size(theirs, tmp_path, version, said, beside, expected):
    file = tmp_path / "model.safetensors"
    write_tokenizer(tmp_path / "words")
    state = original_state(model(tmp_path / "words", 2), 2) if version == 2 else original_state(theirs)
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, file, said or None)
    if beside:
        file.with_suffix(".yaml").write_text(beside)
    config = stable_diffusion.read(file).config
    assert (config["prediction"], config["codec"]["image_size"]) == expected


@pytest.mark.parametrize("text", ["model: [", "model: {params: {}}", "7", "model: {params: {image_size: wide}}"])
def test_a_yaml_that_says_nothing(state, tmp_path, text):
    file = write_file(tmp_path, state)
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, file)  # without a word in it
    file.with_suffix(".yaml").write_text(text)
    with pytest.raises(ValueError, match=r"small-diffusion\.yaml does not say model\.params\.image_size: mend it"):
        stable_diffusion.read(file)


def test_what_a_file_says_must_be_known(state, tmp_path):
    with pytest.raises(ValueError, match=r"predicts sample; epsilon, eps, v, v_prediction are known here\.$"):
        stable_diffusion.read(write_file(tmp_path, state, **{"modelspec.prediction_type": "sample"}))
    with pytest.raises(ValueError, match=r"is no Stable Diffusion 1 or 2: sample_size = \d+ cannot be halved 1 times"):
        stable_diffusion.read(write_file(tmp_path, state, **{"modelspec.resolution": "501x501"}))


def test_a_mark_says_that_v_is_predicted(state, tmp_path):
    checkpoint = stable_diffusion.read(write_file(tmp_path, {**state, "v_pred": torch.zeros(0)}))
    assert checkpoint.config["prediction"] == "v"
    assert checkpoint.ignored["v_pred"] == "a mark, which says that the network predicts v"


def test_the_average_is_used_unless_the_raw_network_is_asked_for(theirs, state, tmp_path):
    other = {name: tensor + 0.01 for name, tensor in state.items() if name.startswith("model.")}
    extra = {"model_ema.decay": torch.ones(()), "model_ema.num_updates": torch.ones(())}
    file = write_file(tmp_path, {**state, **original.averaged(state), **extra, **other})
    average, raw = stable_diffusion.read(file), stable_diffusion.read(file, raw=True)
    network = {f"denoiser.network.{name}": tensor for name, tensor in theirs.unet.state_dict().items()}
    for name, tensor in network.items():
        assert torch.equal(average.tensors[name], tensor)
        assert torch.equal(raw.tensors[name], tensor + 0.01)
    assert average.ignored["model.diffusion_model.out.2.bias"] == "the raw network; its average is used"
    assert raw.ignored["model_ema.diffusion_modelout2bias"] == "the averaged network; the raw one was asked for"
    for read in (average, raw):
        # Every tensor is in one of the two, or in the text model, which the conditioner reads.
        assert read.ignored["model_ema.decay"] == "how the average was taken"
        assert len(read.ignored) == len(network) + 3  # the positions as well
        assert len(read.tensors) == len(network) + len(theirs.vae.state_dict())
    torch.testing.assert_close(
        Pipeline.load(file, raw=True).denoiser.network.conv_in.bias, raw.tensors["denoiser.network.conv_in.bias"]
    )


@pytest.mark.parametrize("version", [1, 2])
def test_at_full_size_every_tensor_has_its_place(version):
    """Names and shapes of the real models, without their numbers."""
    with torch.device("meta"):
        network = diffusers.UNet2DConditionModel(**{1: SD15, 2: SD21}[version])
        autoencoder = diffusers.AutoencoderKL(**SD_VAE)
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**{1: CLIP_L, 2: CLIP_H}[version]))
        read = original.clip if version == 1 else partial(original.open_clip, layers=23)
        state = original.unet(network.state_dict(), 2) | original.vae(autoencoder.state_dict(), 4)
        state |= read(text.state_dict()) | original.averaged(state) | original.TABLES
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    layout = original_layout.layout(shapes, "it")
    used = {place.name for part in (layout.unet, layout.vae, layout.text) for place in part.values()}
    assert used.isdisjoint(layout.ignored) and used | layout.ignored.keys() == shapes.keys()

    found = {part: original_layout.shapes_of(getattr(layout, part), shapes) for part in ("unet", "vae", "text")}
    config = UNetConfig(network.config.sample_size, **original_layout.unet_settings(found["unet"]))
    codec = VAEConfig(image_size=512, sample_size=512, **original_layout.vae_settings(found["vae"]))
    assert config == diffusers_layout.unet_config(dict(network.config), "it")
    assert codec == diffusers_layout.vae_config(dict(autoencoder.config), 64, "it")
    settings = original_layout.text_settings(layout, shapes)
    assert {key: getattr(text.config, key) for key in settings} == settings
    with torch.device("meta"):
        models = {"unet": UNet(config), "vae": VAE(codec), "text": text}
        for part, module in models.items():
            tensors = dict(placed(name, torch.empty(shape)) for name, shape in found[part].items())
            load_into(module, tensors, part)  # which is strict
    assert sum(p.numel() for p in models["unet"].parameters()) == {1: 859_520_964, 2: 865_910_724}[version]


# ---------------------------------------------------------------- what cannot be opened


KEYS = single_file_utils.CHECKPOINT_KEY_NAMES
"""By which tensors diffusers knows families of files."""


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (KEYS["xl_base"], "Stable Diffusion XL"),
        (KEYS["xl_refiner"], "Stable Diffusion XL"),
        *((name, "Stable Diffusion 3") for name in (*KEYS["sd3"], *KEYS["sd35_large"])),
        *((name, "Flux") for name in (*KEYS["flux"], *KEYS["flux2"])),
        (KEYS["stable_cascade_stage_b"], "Stable Cascade"),
        (KEYS["stable_cascade_stage_c"], "Stable Cascade"),
        *((name, "a ControlNet") for name in KEYS["controlnet"]),
        (KEYS["animatediff"], "a video model"),
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "a LoRA"),
        ("unet.mid_block.attentions.0.processor.to_q_lora.down.weight", "a LoRA"),
        ("emb_params", "a textual inversion"),
        ("denoiser.network.conv_in.weight", "one of Diffusion Lab's own checkpoints without its config.json"),
        ("encoder.conv_in.weight", "an autoencoder alone"),
        ("down_blocks.0.resnets.0.conv1.weight", "one part of a model in the layout of diffusers"),
        ("layer1.weight", "of a kind that is not known here"),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_files_of_other_families_are_named(state, tmp_path, name, family, beside):
    """Alone, and among the tensors of a Stable Diffusion, whose parts other families have as well."""
    if beside and family == "of a kind that is not known here":
        family = "no file of Stable Diffusion 1 or 2 alone: nothing is known of its tensor"
    file = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(1), **({"first_stage_model.quant_conv.bias": torch.zeros(1)} if beside else {})}, file)
    shapes = {**({n: tuple(t.shape) for n, t in state.items()} if beside else {}), name: (1,)}
    with pytest.raises(ValueError) as error:
        original_layout.layout(shapes, str(file))
    assert str(error.value).startswith(f"{file} is {family}") and name[:40] in str(error.value)
    if not beside:
        with pytest.raises(ValueError, match=re.escape(str(error.value))):
            Pipeline.load(file)


def test_a_network_of_another_kind_is_no_network_here(tmp_path):
    save_file({KEYS["lumina2"][0]: torch.zeros(1)}, file := tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"is of a kind that is not known here \(it has 'model\.diffusion"):
        Pipeline.load(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_stage_model.": None}, r"lacks its autoencoder: there is no tensor first_stage_model\.\*; get the who"),
        ({"cond_stage_model.": None}, r"lacks its text model: there is no tensor cond_stage_model\.\*"),
        ({"model.diffusion_model.": None}, r"lacks its network: there is no tensor model\.diffusion_model\.input_bloc"),
        ({"model.diffusion_model.input_blocks.0": None}, r"lacks the tensor that diffusers calls 'conv_in\.weight'; c"),
        ({"model.diffusion_model.input_blocks.1.0.out_layers.3": None}, r"the weights do not fit the config.*conv2.*m"),
        ({"model.diffusion_model.new": torch.zeros(1)}, r"the weights do not fit the config.*'denoiser\.network\.new'"),
        ({"model.diffusion_model.out.2.bias": torch.zeros(9)}, r"out_channels.*conv_out\.bias' \(\(9,\) instead of "),
        ({"first_stage_model.encoder.mid.attn_1.q.bias": None}, r"'codec\.encoder\.mid_block\.attentions\.0\.to_q\.bi"),
        ({"cond_stage_model.transformer.text_model.final_layer_norm.bias": None}, r"'final_layer_norm\.bias' \(missin"),
        ({"cond_stage_model.transformer.text_model.embeddings": None}, r"holds no CLIP text model \('embeddings\.toke"),
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)},
         r"small-diffusion reads 9 channels, not the latent's 4: it is made for inpainting; the plain model does that"),
        ({"optimizer": torch.zeros(1)}, r"is no file of .* alone: nothing is known of its tensor 'optimizer'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_files_that_lack_or_have_something(state, tmp_path, change, message):
    for prefix, tensor in change.items():
        state = {name: old for name, old in state.items() if not name.startswith(prefix)}
        state |= {} if tensor is None else {prefix: tensor}
    with pytest.raises(ValueError, match=message) as error:
        Pipeline.load(write_file(tmp_path, state))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_files_that_are_cut_short(state, tmp_path, keep):
    file = write_file(tmp_path, state)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"small-diffusion\.safetensors \([\d,]+ bytes\) is cut short or damaged"):
        Pipeline.load(file)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin"])
def test_pickles_are_refused_unopened(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"\x80\x02.")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ValueError) as error:
        Pipeline.load(tmp_path / name)
    assert str(error.value) == (
        f"{tmp_path / name} is a pickle, which can run code when it is opened: get the same model as .safetensors, or"
        " convert it with torch.load(path, weights_only=True), which runs none, and safetensors' save_file."
    )


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "notes.txt").write_text("red")
    with pytest.raises(
        ValueError, match=r"notes\.txt is a file; name a checkpoint's folder, or a \.safetensors file of"
    ):
        Pipeline.load(tmp_path / "notes.txt")


IN_UNET, IN_VAE, IN_SCHEDULER = "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"


def put(file: Path, **changes: object) -> None:
    """Changes settings in a JSON file; None takes one away."""
    settings = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (INDEX, {"_class_name": "StableDiffusionXLPipeline"}, r"is a StableDiffusionXLPipeline; what can be op"),
        (INDEX, {"_class_name": "FluxPipeline"}, r"is a FluxPipeline; what can be opened is StableDiffusionI"),
        (INDEX, {"unet": ["diffusers", "UNet3D"]}, r"its unet is a UNet3D; only UNet2DConditionModel can be"),
        (IN_UNET, {"sample_size": None}, r"unet/config\.json: 'sample_size' is missing\.$"),
        (IN_UNET, {"class_embed_type": "timestep"}, r"class_embed_type is 'timestep', which this engine does not"),
        (IN_UNET, {"resnet_time_scale_shift": "scale_shift"}, r"does not compute; 'default' would do\.$"),
        (IN_UNET, {"down_block_types": ["AttnDownBlock2D"] * 2}, r"the block AttnDownBlock2D is not known here"),
        (IN_UNET, {"up_block_types": ["CrossAttnUpBlock2D"] * 2}, r"attention where down_block_types have it"),
        (IN_UNET, {"attention_head_dim": [8, 4]}, r"equally many or equally wide heads"),
        (IN_UNET, {"transformer_layers_per_block": [1, 2]}, r"one number for all levels, not \[1, 2\]"),
        (IN_UNET, {"norm_num_groups": 5}, r"unet/config\.json: .*multiples of norm_num_groups = 5"),
        (IN_UNET, {"in_channels": 9}, r"reads 9 channels, not the latent's 4: it is made for inpainting"),
        (IN_UNET, {"out_channels": 8}, r"gives 8 channels, not the latent's 4: only networks that predict the"),
        (IN_UNET, {"layers_per_block": 2}, r"do not fit the config, likely its layers_per_block: .* \(missing\)"),
        (IN_UNET, {"cross_attention_dim": 32}, r"gives vectors of 64 numbers, not 32"),
        (IN_VAE, {"use_quant_conv": False}, r"vae/config\.json: use_quant_conv is False, .* True would do"),
        (IN_VAE, {"shift_factor": 0.1}, r"shift_factor is 0\.1, which this engine does not compute; none would"),
        (IN_VAE, {"down_block_types": ["Other"] * 2}, r"has Other; only DownEncoderBlock2D is known here"),
        (IN_VAE, {"latent_channels": 16}, r"the latent's 16"),
        (IN_VAE, {"norm_num_groups": 16, "block_out_channels": [32, 32]}, r"likely its block_out_channels: "),
        (IN_SCHEDULER, {"_class_name": "LCMScheduler"}, r"the scheduler LCMScheduler is not known"),
        (IN_SCHEDULER, {"beta_schedule": "sigmoid"}, r"beta_schedule is sigmoid; linear, scaled_lin"),
        (IN_SCHEDULER, {"prediction_type": "flow"}, r"prediction_type is flow; epsilon, v_predict"),
        (IN_SCHEDULER, {"timestep_spacing": "log"}, r"timestep_spacing is log; leading, linspace"),
        (IN_SCHEDULER, {"rescale_betas_zero_snr": True}, r"rescale_betas_zero_snr and trained_betas"),
        (IN_SCHEDULER, {"beta_start": 0.5}, r"scheduler_config\.json: betas must rise within"),
        ("text_encoder/config.json", {"model_type": "t5"}, r"is no CLIP text model: its model_type is 't5'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_folders_that_cannot_be_opened(folder, tmp_path, file, changes, message):
    shutil.copytree(folder, changed := tmp_path / "model")
    put(changed / file, **changes)
    with pytest.raises(ValueError, match=message) as error:
        Pipeline.load(changed)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "unet/config.json",
            r"has no unet/config\.json; a model in the layout of diffusers is a folder with model_index",
        ),
        ("unet/diffusion_pytorch_model.safetensors", r"has no unet/diffusion_pytorch_model\.safetensors; a model in"),
        (
            "vae/diffusion_pytorch_model.safetensors",
            r"only a pickle \(vae/diffusion_pytorch_model\.bin\), which can run",
        ),
        ("text_encoder/model.safetensors", r"has no text_encoder/model\.safetensors; a CLIP text model is a folder"),
        ("scheduler/scheduler_config.json", r"has no scheduler/scheduler_config\.json"),
        ("model_index.json", r"has no config\.json; a checkpoint is a folder with config\.json and model\.safetensors"),
    ],
)
def test_folders_that_lack_something(folder, tmp_path, file, message):
    shutil.copytree(folder, changed := tmp_path / "model")
    (changed / file).unlink()
    if file.startswith("vae"):
        (changed / "vae" / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=message):
        Pipeline.load(changed)


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_folders_whose_weights_are_damaged(folder, tmp_path, file):
    shutil.copytree(folder, changed := tmp_path / "model")
    content = (changed / file).read_bytes()
    for bad in (content[:5000], b"\xff" * 8 + content[8:], b"version https://git-lfs.github.com/spec/v1\n"):
        (changed / file).write_bytes(bad)
        with pytest.raises(ValueError, match=rf"{re.escape(file)} .*(is cut short or damaged|is a Git LFS pointer)"):
            Pipeline.load(changed)


# ---------------------------------------------------------------- ours as theirs


@torch.no_grad()
def test_a_model_of_ours_opens_in_diffusers(tmp_path):
    ours = Pipeline.load("mnist-latent")
    stable_diffusion.write(ours, tmp_path)
    network = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet").eval()
    autoencoder = diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae").eval()
    z = torch.randn(2, *ours.codec.latent_shape, generator=torch.Generator().manual_seed(0))
    t, context = torch.tensor([-0.9, 0.9]), ours.conditioner(["3", "8"])
    assert_equal(ours.denoiser.network(z, t, context), network(z, t, context).sample)
    scale = autoencoder.config.scaling_factor
    assert scale == ours.config.codec.scaling_factor
    x = torch.rand(2, *ours.codec.image_shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), value=-1)
    assert_equal(ours.codec.encode(x), autoencoder.encode(padded).latent_dist.mode() * scale)
    assert_equal(ours.codec.decode(z), autoencoder.decode(z / scale).sample[..., 2:-2, 2:-2])


@torch.no_grad()
def test_stable_diffusion_goes_back_to_diffusers(theirs, ours, tmp_path):
    stable_diffusion.write(ours, tmp_path)
    again = {
        diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet"): theirs.unet,
        diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae"): theirs.vae,
    }
    for module, before in again.items():
        now, then = module.state_dict(), before.state_dict()
        assert now.keys() == then.keys() and all(torch.equal(now[name], then[name]) for name in then)
    network, autoencoder = (module.eval() for module in again)
    z, x, t, context = latents(), images(), torch.tensor([3.0, 871.0]), ours.conditioner(["red", "a"])
    assert_equal(network(z, t, context).sample, theirs.unet(z, t, context).sample)
    assert_equal(autoencoder.encode(x).latent_dist.mode(), theirs.vae.encode(x).latent_dist.mode())


def test_models_that_diffusers_has_not(ours, tmp_path):
    def refused(change: dict[str, object], message: str) -> None:
        config = replace(ours.config, network=replace(UNetConfig(), **change))
        changed = SimpleNamespace(config=config, denoiser=ours.denoiser, codec=ours.codec)
        with pytest.raises(ValueError, match=message):
            stable_diffusion.write(changed, tmp_path)

    refused({"skips": "add"}, "only skips that are concatenated and sinusoidal time")
    refused({"time_embedding": "fourier"}, "only skips that are concatenated and sinusoidal time")
    refused({"cross_attention_dim": None}, "no such U-Net whose attention sees no context")
    with pytest.raises(ValueError, match="need an autoencoder, and this model's codec has none"):
        stable_diffusion.write(Pipeline.load("mnist-score"), tmp_path)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- references, memory and precision


def test_weights_in_several_files(theirs, folder, tmp_path):
    shutil.copytree(folder, changed := tmp_path / "model")
    (changed / "unet" / WEIGHTS[0]).unlink()
    theirs.unet.save_pretrained(changed / "unet", max_shard_size="500KB")
    shards = sorted((changed / "unet").glob("*.safetensors"))
    assert len(shards) > 2
    assert_same_parts(Pipeline.load(changed), theirs)
    shards[1].unlink()
    with pytest.raises(ValueError, match=rf"has no unet/{shards[1].name}; a model in the layout of diffusers is"):
        Pipeline.load(changed)
    index = changed / "unet" / f"{WEIGHTS[0]}.index.json"
    for map in ({}, {"weight_map": 1}, {"weight_map": {"a": "../../../secret.safetensors"}}, {"weight_map": {"a": 1}}):
        index.write_text(json.dumps(map))
        with pytest.raises(
            ValueError, match=r"index\.json names no files in its weight_map: copy or download it again"
        ):
            Pipeline.load(changed)


@pytest.fixture
def hub(folder, tmp_path, monkeypatch) -> Iterator[HubServer]:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files |= {"unet/diffusion_pytorch_model.bin": b"pickle", "v1-5-pruned.ckpt": b"pickle", "README.md": b"words"}
    with HubServer({"owner/small-diffusion": Repo(files)}) as hub:
        hub.use(monkeypatch, tmp_path / "home")
        yield hub


def test_a_model_on_the_hub(hub, theirs, monkeypatch):
    """Of its files those that are read are fetched, and once; without the Hub the copies do."""
    ours = Pipeline.load("owner/small-diffusion")
    assert_same_parts(ours, theirs)
    assert ours.config.name == "small-diffusion" and ours.config.conditioner.reference == "owner/small-diffusion"
    asked = [request for request in hub.requests if "/resolve/" in request]
    assert not [request for request in asked if ".bin" in request or ".ckpt" in request or "README" in request]
    hub.requests.clear()
    assert_same_parts(Pipeline.load("owner/small-diffusion@main"), theirs)
    assert not [request for request in hub.requests if "/resolve/" in request or "/objects/" in request]
    hub.stop()
    assert_same_parts(Pipeline.load("owner/small-diffusion"), theirs)


def test_half_precision_on_the_hub(hub, theirs):
    """Where nothing else is there."""
    repo = hub.repos["owner/small-diffusion"]
    repo.commit(
        {name.replace("model.safetensors", "model.fp16.safetensors"): data for name, data in repo.files.items()}
    )
    assert_same_parts(Pipeline.load("owner/small-diffusion"), theirs)


def test_wrong_bytes_from_the_hub(hub):
    hub.corrupt = True
    with pytest.raises(ValueError, match=r"unet/diffusion_pytorch_model\.safetensors is not what the Hub announced"):
        Pipeline.load("owner/small-diffusion")


def test_a_files_words_come_from_the_hub_where_there_are_none_beside_it(hub, state, theirs, tmp_path):
    file = write_file(tmp_path, state)
    shutil.rmtree(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match=f"'{TOKENIZER}'|{TOKENIZER}"):
        Pipeline.load(file)
    words = {name.removeprefix("tokenizer/"): data for name, data in hub.repos["owner/small-diffusion"].files.items()}
    hub.repos[TOKENIZER] = Repo({name: data for name, data in words.items() if "/" not in name})
    assert_same_parts(Pipeline.load(file), theirs)


def test_the_file_may_be_replaced_while_the_model_is_in_use(folder, theirs, tmp_path):
    shutil.copytree(folder, changed := tmp_path / "model")
    ours = Pipeline.load(changed)
    for file in changed.rglob("*.safetensors"):
        with file.open("r+b") as content:
            content.write(b"\x00" * file.stat().st_size)
    assert_same_parts(ours, theirs)


@torch.no_grad()
def test_the_networks_precision_is_not_the_states(ours):
    """State and pictures stay float32; what a network in bfloat16 makes is near."""
    request = Request(prompt="red", steps=4, sampler="ddim", guidance=3.0, image=images(1)[0], strength=0.75)
    half = copy.deepcopy(ours)
    half.denoiser.network.bfloat16()
    half.codec.bfloat16()
    for step, full in zip(half.generate(request), ours.generate(request), strict=True):
        assert step.x.dtype == step.x0.dtype == half.decode(step.x0).dtype == torch.float32
        assert 0 < (step.x - full.x).abs().max() < 0.1 * full.x.abs().max()


def test_weights_go_where_they_are_wanted_as_they_are_read(folder, state, theirs, tmp_path, monkeypatch):
    """In the precision asked for; the text model, which is frozen, stays in main memory as it is."""
    read, places = weights.read_tensors, []

    def watched(path, names=None, device="cpu", dtype=torch.float32):
        places.append((Path(path).parent.name, str(device), dtype))
        return read(path, names, device, dtype)

    for module in (stable_diffusion, original_layout):
        monkeypatch.setattr(module, "read_tensors", watched)
    for reference in (folder, write_file(tmp_path, state)):
        places.clear()
        ours = Pipeline.load(reference, device="meta", dtype=torch.bfloat16)
        assert len(places) >= 2 and {place[1:] for place in places if place[0] != "text_encoder"} >= {
            ("meta", torch.bfloat16)
        }
        assert {(p.device.type, p.dtype) for p in ours.parameters()} == {("meta", torch.bfloat16)}
        context = ours.conditioner(["red"])
        assert context.device.type == "cpu" and context.dtype == torch.float32
    assert Pipeline.load("mnist-score", device="meta").device.type == "meta"


def test_half_precision_makes_nearly_the_same_picture(folder, ours):
    half = Pipeline.load(folder, dtype=torch.bfloat16)
    request = Request(prompt="red", steps=4, sampler="ddim", guidance=3.0)
    made, full = (model.images([*model.generate(request)][-1], request) for model in (half, ours))
    assert made.dtype == torch.float32 and 0 < (made - full).abs().mean() < 0.05


@pytest.mark.parametrize("n", [1, 2, 7, 20, 50, 333, 999, 1000])
def test_grids_of_whole_timesteps_are_diffusers(n):
    schedule = Discrete("scaled_linear", 1000, 0.00085, 0.012)
    for spacing, grid in TABLE_GRIDS.items():
        # With it, the first of a thousand would be past their table.
        offset = {"steps_offset": int(n < 1000)}
        theirs = diffusers.DDIMScheduler(timestep_spacing=spacing, **(TRAINED | offset))
        theirs.set_timesteps(n)
        sigmas = grid(schedule, n)
        torch.testing.assert_close(sigmas[:-1], schedule.sigma(theirs.timesteps.double()))
        assert sigmas[-1] == 0 and (sigmas.diff() < 0).all()


def test_grids_of_whole_timesteps_have_their_limits(ours):
    for grid in TABLE_GRIDS.values():
        with pytest.raises(ValueError, match=r"^This schedule has 10 levels, too few for 11 steps\.$"):
            grid(Discrete(steps=10), 11)
    with pytest.raises(ValueError, match=r"^The grid leading needs whole timesteps: a linear, scaled_linear or cosine"):
        Pipeline(replace(ours.config, schedule=EDM()))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["folder", "file"])
@torch.no_grad()
def test_at_full_size_the_parts_are_the_same(tmp_path, layout):
    """Random numbers in all of Stable Diffusion 1.5's billion places: 13 GB of memory, 5 GB on disk, some minutes."""
    write_tokenizer(tmp_path / "words")
    theirs = full_size(tmp_path / "words", scheduled("PNDMScheduler", "leading"))
    if layout == "file":
        ours = Pipeline.load(write_file(tmp_path, original_state(theirs), **{"modelspec.resolution": "512x512"}))
    else:
        theirs.save_pretrained(tmp_path / "model")
        ours = Pipeline.load(tmp_path / "model")
    assert ours.codec.image_shape == (3, 512, 512) and ours.codec.latent_shape == (4, 64, 64)
    read = theirs.tokenizer(PROMPTS[:2], padding="max_length", max_length=77, return_tensors="pt").input_ids
    context = theirs.text_encoder(read).last_hidden_state
    assert_equal(ours.conditioner(PROMPTS[:2]), context)
    z, x, t = latents(), torch.nn.functional.interpolate(images(), (64, 64)), torch.tensor([3.0, 871.0])
    assert_equal(ours.denoiser.network(z, t, context), theirs.unet(z, t, context).sample)
    assert_equal(ours.codec.quant_conv(ours.codec.encoder(x)), theirs.vae.encode(x).latent_dist.parameters)
    assert_equal(ours.codec.decoder(ours.codec.post_quant_conv(z)), theirs.vae.decode(z).sample)
