"""Single files in the layout of Stable Diffusion's authors: whose tensors these are, and our name for each.

A pure map over names and shapes, and `fetch`, which follows it. Names on our side are diffusers' and transformers'.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion.weights import Shapes, read_tensors

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."

FAMILIES = {
    "Stable Diffusion XL": r"conditioner\.embedders\.|add_embedding\.",
    "Stable Diffusion 3": r"(model\.diffusion_model\.)?joint_blocks\.",
    "Flux": r"(model\.diffusion_model\.)?(double|single)_(blocks|stream_modulation\w*)\.",
    "Stable Cascade": r"clip_txt_mapper\.|down_blocks\.\d+\.\d+\.channelwise\.",
    "a video model": r".*(time_stack|motion_modules|patchify_proj)\.",
    "a ControlNet": r"control_model\.|controlnet_",
    "a LoRA": r"lora_|.*[._]lora[._]|.*\.(lora_[AB]|hada_w\d_[ab]|lokr_w\d)",
    "a textual inversion": r"(emb_params|string_to_param|<.*>)$",
    "one of Diffusion Lab's own checkpoints without its config.json": r"(denoiser|codec)\.",
    "an autoencoder alone": r"(encoder|decoder)\.(conv_in|mid|up|down)",
    "one part of a model in the layout of diffusers": r"(down_blocks|encoder\.layers|text_model)\.",
}
"""What a file is instead -> how the name of one of its tensors begins; the first that is found."""

TABLES = r"betas|logvar|lvlb_weights|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?|posterior_\w+"
IGNORED = {
    rf"(model_ema\.)?({TABLES})$": "the noise schedule's table, which is computed",
    r"model_ema\.(decay|num_updates)$": "how the average was taken",
    r"first_stage_model\.loss\.": "what the autoencoder was trained with",
    r"cond_stage_model\..*position_ids$": "0, 1, 2, ...",
    r"cond_stage_model\.(model\.)?(text_projection|logit_scale|attn_mask)": "for comparing texts with images",
    r"v_pred$": "a mark, which says that the network predicts v",
}
"""How a tensor's name begins -> why no picture needs it."""

UNET_RENAMES = (
    (r"^time_embed\.0", "time_embedding.linear_1"), (r"^time_embed\.2", "time_embedding.linear_2"),
    (r"^input_blocks\.0\.0", "conv_in"), (r"^out\.0", "conv_norm_out"), (r"^out\.2", "conv_out"),
    (r"^middle_block\.0", "mid_block.resnets.0"), (r"^middle_block\.1", "mid_block.attentions.0"),
    (r"^middle_block\.2", "mid_block.resnets.1"),
    (r"\.in_layers\.0", ".norm1"), (r"\.in_layers\.2", ".conv1"), (r"\.emb_layers\.1", ".time_emb_proj"),
    (r"\.out_layers\.0", ".norm2"), (r"\.out_layers\.3", ".conv2"), (r"\.skip_connection", ".conv_shortcut"),
    (r"\.op\.", ".conv."),
)  # fmt: skip

VAE_RENAMES = (
    (r"\.mid\.block_1", ".mid_block.resnets.0"), (r"\.mid\.block_2", ".mid_block.resnets.1"),
    (r"\.mid\.attn_1\.norm", ".mid_block.attentions.0.group_norm"),
    (r"\.mid\.attn_1\.proj_out", ".mid_block.attentions.0.to_out.0"),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.down\.(\d+)\.block", r".down_blocks.\1.resnets"), (r"\.up\.(\d+)\.block", r".up_blocks.\1.resnets"),
    (r"\.down\.(\d+)\.downsample", r".down_blocks.\1.downsamplers.0"),
    (r"\.up\.(\d+)\.upsample", r".up_blocks.\1.upsamplers.0"),
    (r"\.norm_out", ".conv_norm_out"), (r"\.nin_shortcut", ".conv_shortcut"),
)  # fmt: skip

OPEN_CLIP_RENAMES = (
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^token_embedding", "embeddings.token_embedding"), (r"^ln_final", "final_layer_norm"),
    (r"^transformer\.resblocks", "encoder.layers"), (r"\.ln_1", ".layer_norm1"), (r"\.ln_2", ".layer_norm2"),
    (r"\.mlp\.c_fc", ".mlp.fc1"), (r"\.mlp\.c_proj", ".mlp.fc2"), (r"\.attn\.", ".self_attn."),
)  # fmt: skip


class Place(NamedTuple):
    """Where a tensor is in the file: its name there, and which third of its rows (0, 1, 2), where it is not all."""

    name: str
    third: int | None = None


class Layout(NamedTuple):
    """A file's parts, each our names -> their places, and the names that no picture needs -> the reason."""

    unet: dict[str, Place]
    vae: dict[str, Place]
    text: dict[str, Place]
    ignored: dict[str, str]


def layout(shapes: Shapes, where: str, raw: bool = False) -> Layout:
    """Sorts a file's tensors; of a network that is there twice, averaged over its training and raw, the former is used.

    Raises:
        ValueError: the file is of another family, lacks a part, or has a tensor that belongs nowhere.
    """
    check_family(shapes, where)
    averaged = {name: name.removeprefix("model.").replace(".", "") for name in shapes if name.startswith(UNET)}
    averaged = {name: ema for name, short in averaged.items() if (ema := f"model_ema.{short}") in shapes}
    twice = dict.fromkeys(averaged if averaged and not raw else averaged.values())
    reason = "the averaged network; the raw one was asked for" if raw else "the raw network; its average is used"
    ignored, parts = {}, {UNET: {}, VAE: {}, TEXT: {}}
    for name in shapes:
        part = next((part for part in parts if name.startswith(part)), None)
        if name in twice:
            ignored[name] = reason
        elif why := next((why for pattern, why in IGNORED.items() if re.match(pattern, name)), None):
            ignored[name] = why
        elif part:
            parts[part][name.removeprefix(part)] = name
        elif name not in averaged.values():
            raise ValueError(
                f"{where} is no file of Stable Diffusion 1 or 2 alone: nothing is known of its tensor '{name}'."
            )
    if averaged and not raw:
        parts[UNET] = {name.removeprefix(UNET): averaged.get(name, name) for name in shapes if name.startswith(UNET)}
    text, above = _text(parts[TEXT])
    ignored |= dict.fromkeys(above, "the last layer, which Stable Diffusion 2 does not read")
    return Layout(_unet(parts[UNET]), _vae(parts[VAE]), text, ignored)


def check_family(shapes: Iterable[str], where: str) -> None:
    """
    Raises:
        ValueError: the tensors' names are not those of a whole Stable Diffusion 1 or 2; says what they are, if known.
    """
    names = list(shapes)
    wanted = "Stable Diffusion 1 or 2 as one file, or the folder of a whole model, is what can be opened"
    for family, pattern in FAMILIES.items():
        if found := next((name for name in names if re.match(pattern, name)), None):
            raise ValueError(f"{where} is {family} (it has '{found[:80]}'); {wanted}.")
    parts = {f"{UNET}input_blocks.": "network", VAE: "autoencoder", TEXT: "text model"}
    lacking = {part: what for part, what in parts.items() if not any(name.startswith(part) for name in names)}
    if len(lacking) == len(parts):
        first = ", ".join(f"'{name[:40]}'" for name in names[:3]) or "no tensor at all"
        raise ValueError(f"{where} is of a kind that is not known here (it has {first}); {wanted}.")
    if lacking:
        prefix, what = next(iter(lacking.items()))
        raise ValueError(f"{where} lacks its {what}: there is no tensor {prefix}*; get the whole model's file.")


def _renamed(name: str, renames: Iterable[tuple[str, str]]) -> str:
    for pattern, new in renames:
        name = re.sub(pattern, new, name)
    return name


def _unet(names: Mapping[str, str]) -> dict[str, Place]:
    """Blocks are numbered through; ours are numbered within levels, each of which ends with a change of size."""
    kinds = {"in_layers": "resnets", "transformer_blocks": "attentions", "op": "downsamplers", "conv": "upsamplers"}
    found = {}
    for name in names:
        if block := re.match(rf"(input|output)_blocks\.(\d+)\.(\d+)\.({'|'.join(kinds)})\.", name):
            found[block[1], int(block[2]), int(block[3])] = kinds[block[4]]
    blocks = {}
    for side, ours in (("input", "down_blocks"), ("output", "up_blocks")):
        level, layer = 0, -1
        for (_, n, m), kind in sorted(item for item in found.items() if item[0][0] == side):
            layer += kind == "resnets"
            resize = kind in ("downsamplers", "upsamplers")
            blocks[f"{side}_blocks.{n}.{m}"] = f"{ours}.{level}.{kind}.{0 if resize else layer}"
            if resize:
                level, layer = level + 1, -1

    def ours_of(name: str) -> str:
        block, rest = ".".join(name.split(".")[:3]), name.split(".")[3:]
        return _renamed(".".join([blocks.get(block, block), *rest]), UNET_RENAMES)

    return {ours_of(name): Place(theirs) for name, theirs in names.items()}


def _vae(names: Mapping[str, str]) -> dict[str, Place]:
    """Their decoder numbers its levels from the picture's side, ours from the latent's."""
    levels = [int(level[1]) for name in names if (level := re.match(r"decoder\.up\.(\d+)\.", name))]
    top = max(levels, default=0)
    turned = {re.sub(r"(?<=\.up\.)\d+", lambda level: str(top - int(level[0])), name): name for name in names}
    return {_renamed(name, VAE_RENAMES): Place(names[theirs]) for name, theirs in turned.items()}


def _text(names: Mapping[str, str]) -> tuple[dict[str, Place], list[str]]:
    """The text model of version 1 (CLIP's) or 2 (OpenCLIP's), and the names of the latter's last layer."""
    if any(name.startswith("transformer.") and "resblocks" not in name for name in names):
        return {re.sub(r"^transformer\.(text_model\.)?", "", name): Place(names[name]) for name in names}, []
    layers = {int(layer[1]) for name in names if (layer := re.match(r"model\.transformer\.resblocks\.(\d+)\.", name))}
    last = f"model.transformer.resblocks.{max(layers, default=0)}."
    places = {}
    for name, theirs in names.items():
        ours = _renamed(name.removeprefix("model."), OPEN_CLIP_RENAMES)
        if name.startswith(last):
            continue
        if joint := re.fullmatch(r"(.*\.)in_proj_(weight|bias)", ours):
            places |= {f"{joint[1]}{row}_proj.{joint[2]}": Place(theirs, third) for third, row in enumerate("qkv")}
        else:
            places[ours] = Place(theirs)
    return places, [theirs for name, theirs in names.items() if name.startswith(last)]


def shapes_of(part: Mapping[str, Place], shapes: Shapes) -> Shapes:
    """The shapes of a part's tensors under our names."""
    return {name: _cut(shapes[place.name], place.third) for name, place in part.items()}


def _cut(shape: tuple[int, ...], third: int | None) -> tuple[int, ...]:
    return shape if third is None else (shape[0] // 3, *shape[1:])


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers there are in this place of a name."""
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})


def unet_settings(shapes: Shapes) -> dict[str, Any]:
    """UNetConfig's fields but for the sample size; version 1 has 8 heads, version 2, with linear projections, 64 wide.

    Raises:
        KeyError: a tensor that tells a size is not there.
    """
    levels = range(_count(shapes, r"down_blocks\.(\d+)\."))
    context = next((shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), None)
    linear = len(shapes.get("mid_block.attentions.0.proj_in.weight", ())) == 2
    return {
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": tuple(shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in levels),
        "layers_per_block": _count(shapes, r"down_blocks\.0\.resnets\.(\d+)\."),
        "attention": tuple(f"down_blocks.{i}.attentions.0.norm.weight" in shapes for i in levels),
        "mid_attention": "mid_block.attentions.0.norm.weight" in shapes,
        "transformer_layers": _count(shapes, r"mid_block\.attentions\.0\.transformer_blocks\.(\d+)\.") or 1,
        "cross_attention_dim": context,
        "norm_num_groups": 32,
        **({"attention_head_dim": 64} if linear else {"attention_heads": 8}),
    }


def vae_settings(shapes: Shapes) -> dict[str, Any]:
    """VAEConfig's fields but for the picture's size.

    Raises:
        KeyError: a tensor that tells a size is not there.
    """
    levels = range(_count(shapes, r"encoder\.down_blocks\.(\d+)\."))
    return {
        "channels": shapes["encoder.conv_in.weight"][1],
        "latent_channels": shapes["post_quant_conv.weight"][0],
        "block_out_channels": tuple(shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0] for i in levels),
        "layers_per_block": _count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
    }


def text_settings(layout: Layout, shapes: Shapes) -> dict[str, Any]:
    """The settings of transformers' text model; heads are 64 wide, and OpenCLIP's has the exact GELU.

    Raises:
        KeyError: a tensor that tells a size is not there.
    """
    text = shapes_of(layout.text, shapes)
    words, width = text["embeddings.token_embedding.weight"]
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": text["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(text, r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": width // 64,
        "max_position_embeddings": text["embeddings.position_embedding.weight"][0],
        "hidden_act": "gelu" if open_clip(layout) else "quick_gelu",
    }


def open_clip(layout: Layout) -> bool:
    """Whether the text model is version 2's."""
    return any(place.third is not None for place in layout.text.values())


def fetch(
    path: Path, part: Mapping[str, Place], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """A part's tensors under our names, as `read_tensors` reads them; ValueError if the file is damaged."""
    tensors = read_tensors(path, {place.name for place in part.values()}, device, dtype)
    return {name: _third(tensors[place.name], place.third) for name, place in part.items()}


def _third(tensor: Tensor, third: int | None) -> Tensor:
    return tensor if third is None else tensor.chunk(3)[third]
