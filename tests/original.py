"""Diffusers' and transformers' models into the layout of Stable Diffusion's authors, for tests of the way back."""

import re

import torch
from torch import Tensor

State = dict[str, Tensor]

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
CELLS = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet(state: State, layers: int) -> State:
    """A U-Net with this many layers in each of its levels."""
    return {f"model.diffusion_model.{_unet_name(name, layers, state)}": tensor for name, tensor in state.items()}


def _unet_name(name: str, layers: int, state: State) -> str:
    for ours, theirs in ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    side, level, kind, j, rest = re.fullmatch(r"(down|mid|up)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.*)", name).groups()
    for ours, theirs in RESNET.items() if kind == "resnets" else ():
        rest = re.sub(rf"^{ours}\.", f"{theirs}.", rest)
    if side == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(j)}.{rest}"
    first = int(level) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        attended = f"up_blocks.{level}.attentions.0.norm.weight" in state
        return f"output_blocks.{first + layers}.{1 + attended}.{rest}"
    number = first + int(j) + (side == "down")
    return f"{'input' if side == 'down' else 'output'}_blocks.{number}.{int(kind == 'attentions')}.{rest}"


def vae(state: State, levels: int) -> State:
    """An autoencoder, whose attention is of 1 x 1 convolutions there."""
    return {
        f"first_stage_model.{_vae_name(name, levels)}": tensor[..., None, None] if _projects(name, tensor) else tensor
        for name, tensor in state.items()
    }


def _projects(name: str, tensor: Tensor) -> bool:
    return "attentions" in name and tensor.ndim == 2


def _vae_name(name: str, levels: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda n: f"mid.block_{int(n[1]) + 1}", name)
    for ours, theirs in CELLS.items():
        name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda n: f"up.{levels - 1 - int(n[1])}.block", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda n: f"up.{levels - 1 - int(n[1])}.upsample", name)


def clip(state: State) -> State:
    """Version 1's text model, and what was saved with it."""
    text = {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in state.items()}
    return text | {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77).unsqueeze(0)}


def open_clip(state: State, layers: int) -> State:
    """Version 2's, with the last layer, which is not read, and what pictures are compared with."""
    layer = {name: tensor for name, tensor in state.items() if name.startswith("encoder.layers.0.")}
    state = state | {name.replace("layers.0", f"layers.{layers}"): 0 * tensor for name, tensor in layer.items()}
    names = {
        "embeddings.position_embedding.weight": "positional_embedding", "embeddings.token_embedding": "token_embedding",
        "final_layer_norm": "ln_final", "encoder.layers": "transformer.resblocks", "self_attn": "attn",
        "layer_norm": "ln_", "fc1": "c_fc", "fc2": "c_proj",
    }  # fmt: skip
    found: State = {}
    for name, tensor in state.items():
        if joint := re.fullmatch(r"(.*)q_proj\.(\w+)", name):
            tensor = torch.cat([state[f"{joint[1]}{row}_proj.{joint[2]}"] for row in "qkv"])
            name = f"{joint[1]}in_proj_{joint[2]}"
        elif re.search(r"[kv]_proj", name):
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        found[f"cond_stage_model.model.{name}"] = tensor
    width = len(state["final_layer_norm.bias"])
    return found | {
        "cond_stage_model.model.logit_scale": torch.ones(()),
        "cond_stage_model.model.text_projection": torch.ones(width, width),
    }


def averaged(state: State) -> State:
    """The same network once more, as its average over the training is saved."""
    return {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": tensor
        for name, tensor in state.items()
        if name.startswith("model.")
    }


TABLES = {
    name: torch.linspace(0, 1, 1000)
    for name in (
        "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
        "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
    )
}  # fmt: skip
"""What those files hold besides."""
