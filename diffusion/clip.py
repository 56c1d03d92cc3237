"""Prompts read by a frozen CLIP text model (Radford et al. 2021, section 2.4), as Stable Diffusion reads them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from diffusion import original_layout
from diffusion.checkpoints import CONFIG, SAFETENSORS, WEIGHTS, find, listing, load_into, read_config
from diffusion.conditioning import Understood
from diffusion.config import STRICT
from diffusion.unet import check_positive
from diffusion.weights import read_shapes, read_tensors

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TRANSFORMERS = "transformers>=5.6,<6"
"""What pip is asked for where it is not installed; only CLIP text models need it."""

HALF = "model.fp16.safetensors"
"""The weights where there is no model.safetensors."""

VOCABULARY = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""The files that a tokenizer's vocabulary is in: either of these."""

TOKENIZER = "openai/clip-vit-large-patch14"
"""The Hub's repository of the tokenizer that all versions of Stable Diffusion share, but for the padding."""

SPECIAL = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class CLIPConfig:
    """A text model that others have trained, and its tokenizer.

    reference: a folder, or a Hub id owner/name[@revision]; encoder, tokenizer: their subfolders there, "" for none. Or
    a file of Stable Diffusion, *.safetensors, whose tokenizer is the folder of that name beside it, else TOKENIZER.
    dim: the text model's hidden_size D, the network's cross_attention_dim; length: tokens of every prompt L, two of
    them the start's and the end's.
    """

    kind: Literal["clip"] = "clip"
    reference: str = "openai/clip-vit-large-patch14"
    encoder: str = ""
    tokenizer: str = ""
    dim: int = 768
    length: int = 77

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        check_positive(self)
        if self.length < 3:
            raise ValueError(f"length must be 3 or more, to hold a start, a token and an end, but it is {self.length}")
        for name in (self.encoder, self.tokenizer):
            if not re.fullmatch(r"([\w-][\w.-]*)?", name):
                raise ValueError(f"encoder and tokenizer are names of subfolders such as text_encoder, not '{name}'")


class Frozen:
    """A tokenizer and a text model in which `nn.Module` finds no parameters and which `copy.deepcopy` shares."""

    def __init__(self, tokenizer: "CLIPTokenizer", model: "CLIPTextModel") -> None:
        self.tokenizer, self.model = tokenizer, model.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, object]) -> "Frozen":
        return self


def check_installed() -> None:
    """
    Raises:
        ValueError: transformers is not installed; says how to get it.
    """
    try:
        import transformers  # noqa: F401  only in functions: it takes seconds to import
    except ImportError:
        raise ValueError(f"CLIP text models need transformers: pip install '{TRANSFORMERS}'.") from None


def load(config: CLIPConfig) -> Frozen:
    """What a config refers to; from the Hub come first the small files, so that what is wrong is said at once.

    Raises:
        ValueError: transformers is not installed, or the reference is no CLIP text model of this size.
    """
    check_installed()
    from transformers import CLIPTextModel

    path = Path(config.reference).expanduser()
    in_one_file = path.suffix == SAFETENSORS and path.is_file()
    settings, tokenizer, tensors = _from_file(path, config) if in_one_file else _from_folder(config)
    with torch.random.fork_rng(devices=[]):
        model = CLIPTextModel(settings)
    load_into(model, tensors, config.reference)
    return Frozen(tokenizer, model)


def _from_folder(config: CLIPConfig) -> "tuple[CLIPTextConfig, CLIPTokenizer, dict[str, Tensor]]":
    encoder, tokenizer = PurePosixPath(config.encoder), PurePosixPath(config.tokenizer)
    files = listing(config.reference, None)
    full, half = (str(encoder / name) for name in (WEIGHTS, HALF))
    weights = half if half in files and full not in files else full
    required = str(encoder / CONFIG), weights
    seek = partial(find, config.reference, required=required, what="CLIP text model", names_under=None)
    words = [str(tokenizer / name) for name in (*sum(VOCABULARY, ()), *SPECIAL)]
    folder = seek([str(encoder / CONFIG), *words])
    settings = _settings(folder / encoder, config)
    reader = _tokenizer(folder / tokenizer, config, settings.vocab_size)
    path = seek([weights]) / weights
    names = read_shapes(path)
    names = [name for name in names if name.startswith("text_model.")] or names  # with a prefix beside a vision model
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in read_tensors(path, names).items()}
    tensors.pop("embeddings.position_ids", None)  # 0, 1, 2, ..., which some files hold
    return settings, reader, tensors


def _from_file(path: Path, config: CLIPConfig) -> "tuple[CLIPTextConfig, CLIPTokenizer, dict[str, Tensor]]":
    """The text model of a file in the layout of Stable Diffusion's authors."""
    from transformers import CLIPTextConfig

    shapes = read_shapes(path)
    layout = original_layout.layout(shapes, str(path))
    try:
        settings = CLIPTextConfig(**original_layout.text_settings(layout, shapes))
    except Exception as error:  # of a tensor that is not there, or whatever the settings' checks raise
        raise ValueError(f"{path} holds no CLIP text model ({' '.join(str(error).split())}).") from None
    _check_size(settings, config)
    words = [*sum(VOCABULARY, ()), *SPECIAL]
    beside = path.parent / "tokenizer"
    folder = beside if beside.is_dir() else find(TOKENIZER, words, (), "tokenizer", names_under=None)
    reader = _tokenizer(folder, config, settings.vocab_size)
    if original_layout.open_clip(layout):
        reader.pad_token = "!"  # which is OpenCLIP's padding, and the first of its words
    return settings, reader, original_layout.fetch(path, layout.text)


def _settings(folder: Path, config: CLIPConfig) -> "CLIPTextConfig":
    """The text model's own config."""
    import transformers

    settings, where = read_config(folder), f"'{config.reference}'"
    kind = settings.get("model_type")
    if kind not in ("clip", "clip_text_model"):
        raise ValueError(f"{where} is no CLIP text model: its model_type is {kind!r}, not clip or clip_text_model.")
    try:
        if kind == "clip":
            text = transformers.CLIPConfig.from_dict(settings).text_config
        else:
            text = transformers.CLIPTextConfig.from_dict(settings)
    except Exception as error:  # whatever its checks raise
        raise ValueError(f"{folder / CONFIG} is no CLIP text model's ({' '.join(str(error).split())}).") from None
    _check_size(text, config)
    return text


def _check_size(text: "CLIPTextConfig", config: CLIPConfig) -> None:
    where = f"'{config.reference}'"
    if text.hidden_size != config.dim:
        raise ValueError(
            f"{where} gives vectors of {text.hidden_size} numbers, not {config.dim}: make the conditioner's dim and the"
            f" network's cross_attention_dim {text.hidden_size}."
        )
    if text.max_position_embeddings < config.length:
        raise ValueError(
            f"{where} reads {text.max_position_embeddings} tokens, not {config.length}: make the conditioner's length"
            f" {text.max_position_embeddings} or less."
        )


def _tokenizer(folder: Path, config: CLIPConfig, size: int) -> "CLIPTokenizer":
    """The tokenizer, of which no token is past the text model's vocabulary."""
    from transformers import CLIPTokenizer

    if not any(all((folder / name).is_file() for name in names) for names in VOCABULARY):
        lacking = " or ".join(" and ".join(names) for names in VOCABULARY)
        place = f"subfolder {config.tokenizer}" if config.tokenizer else "folder"
        raise ValueError(f"'{config.reference}' lacks a tokenizer: there is no {lacking} in its {place}.")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of JSON, Unicode, or the library's native half
        said = " ".join(str(error).split())
        raise ValueError(f"The tokenizer in {folder} is damaged ({said}): copy or download it again.") from None
    if (last := max(tokenizer.get_vocab().values())) >= size:
        raise ValueError(f"The tokenizer in {folder} has tokens up to {last}, but its text model's end at {size - 1}.")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


class CLIPText(nn.Module):
    """Reads any words: start, tokens, end and padding to L through the text model and its last norm, (B, L, D).

    The text model is not among the parameters: it is neither trained nor saved, and copies share it. It moves along.
    """

    sentences = True

    def __init__(self, config: CLIPConfig = CLIPConfig()) -> None:
        super().__init__()
        self.dim, self.length = config.dim, config.length
        with torch.device("cpu"):  # also where the model around it is built without memory
            self._frozen = load(config)

    @property
    def text_model(self) -> nn.Module:
        """The frozen text model, which is not among the parameters."""
        return self._frozen.model

    @property
    def room(self) -> str:
        """How much of a prompt is read at most."""
        return f"{self.length - 2} tokens"

    def understand(self, prompt: str) -> Understood:
        """Which words of a prompt, as they were typed, are read whole, and which are past the length; all are known."""
        past = self._encode(prompt).offsets[self.length - 2 :]
        end = past[0][0] if past else len(prompt)
        words = list(re.finditer(r"\S+", prompt))
        read = sum(word.end() <= end for word in words)
        return Understood(tuple(word[0] for word in words[:read]), (), tuple(word[0] for word in words[read:]))

    def tokens(self, prompt: str) -> tuple[str, ...]:
        """The word, as it was typed, that each token is of, "" for start and end; all tokens past these are padding."""
        words = {place: word[0] for word in re.finditer(r"\S+", prompt) for place in range(*word.span())}
        read = self._encode(prompt).offsets[: self.length - 2]
        return ("", *(words.get(start, "") for start, _ in read), "")

    def nearest(self, word: str) -> list[str]:
        """Known words that are spelt much like this one: there is no need of them."""
        return []

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """Equal prompts are read once. Padding is no different from words, as in Stable Diffusion."""
        rows = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        model = self._frozen.model
        tokens = torch.tensor([self._tokens(prompt) for prompt in rows], device=model.device)
        return model(tokens).last_hidden_state[[rows[prompt] for prompt in prompts]]

    def _tokens(self, prompt: str) -> list[int]:
        special = self._frozen.tokenizer
        tokens = [special.bos_token_id, *self._encode(prompt).ids[: self.length - 2], special.eos_token_id]
        return tokens + [special.pad_token_id] * (self.length - len(tokens))

    def _encode(self, prompt: str) -> "Encoding":
        # The tokenizer's own truncation is a setting that threads would share. Half a surrogate pair is no text.
        text = prompt.encode("utf-8", "replace").decode()
        return self._frozen.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CLIPText":
        self._frozen.model._apply(fn, recurse)
        return super()._apply(fn, recurse)
