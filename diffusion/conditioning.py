"""Prompts into what the network attends to: list[str] -> context (B, L, D). The unconditional prompt is "".

A conditioner has `dim`, its D, or None without tokens, and `sentences`: whether it takes any words. One that does has
`room`, how much it reads, and says by `understand` what becomes of a prompt, by `tokens` what each token stands for and
by `nearest` which known words are spelt alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from diffusion.config import STRICT
from diffusion.unet import Attention, check_positive
from diffusion.words import split

NAMED, LISTED, SHORT = 5, 8, 24  # of what is not read: words with a sentence each, words in a list, letters of a word


@dataclass(frozen=True)
class WordsConfig:
    """One learned vector for each prompt of a closed vocabulary.

    vocabulary: the prompts, "" not among them; dim: the vectors' size D, the network's cross_attention_dim.
    """

    kind: Literal["words"] = "words"
    vocabulary: tuple[str, ...] = tuple("0123456789")
    dim: int = 64

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if "" in self.vocabulary or len(set(self.vocabulary)) < len(self.vocabulary):
            raise ValueError('the vocabulary holds each prompt once, and not "", which is the unconditional prompt')


class Words(nn.Module):
    """Looks each prompt up whole: one token a prompt, (B, 1, D)."""

    sentences = False

    def __init__(self, config: WordsConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.rows = {word: row for row, word in enumerate(("", *config.vocabulary))}
        self.embedding = nn.Embedding(len(self.rows), config.dim)

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """
        Raises:
            ValueError: a prompt is not in the vocabulary; the message lists it.
        """
        for prompt in prompts:
            if prompt not in self.rows:
                known = ", ".join(word for word in self.rows if word)
                raise ValueError(f'The model does not know the prompt "{prompt:.40}"; it knows {known} and "".')
        rows = torch.tensor([self.rows[prompt] for prompt in prompts], device=self.embedding.weight.device)
        return self.embedding(rows).unsqueeze(1)


@dataclass(frozen=True)
class TextConfig:
    """A transformer that reads prompts of several words.

    vocabulary: the words that it knows, in lower case; dim: the vectors' size D; layers, heads: the transformer's.
    length: tokens of every prompt L, one of them the start's.
    """

    kind: Literal["text"] = "text"
    vocabulary: tuple[str, ...] = ()
    dim: int = 64
    layers: int = 2
    heads: int = 4
    length: int = 24

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        check_positive(self)
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads = {self.heads}, but it is {self.dim}")
        if len(set(self.vocabulary)) < len(self.vocabulary) or any(split(word) != [word] for word in self.vocabulary):
            raise ValueError("the vocabulary holds each word once, in lower case, of letters and digits alone")


class Understood(NamedTuple):
    """What becomes of a prompt: the words that are read, those that are not known, and known ones past the length."""

    words: tuple[str, ...]
    unknown: tuple[str, ...]
    dropped: tuple[str, ...]


class TextBlock(nn.Module):
    """Self-attention over the words and a feed-forward, each around a residual (Vaswani et al. 2017, section 3.1)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.mlp(self.norm2(x))


class Text(nn.Module):
    """Reads words in their order: a start token, a token a word, and padding to L, (B, L, D).

    No word attends to padding. After the transformer all padding is one learned vector, so that every prompt is a point
    of one space: two of them can be mixed, and a network needs no mask to read them.
    """

    sentences = True

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dim, self.length = config.dim, config.length
        self.rows = {word: row for row, word in enumerate(config.vocabulary, start=1)}  # row 0 is the start
        self.embedding = nn.Embedding(1 + len(self.rows), config.dim)
        self.position = nn.Parameter(0.1 * torch.randn(config.length, config.dim))
        self.padding = nn.Parameter(torch.zeros(config.dim))
        self.blocks = nn.ModuleList(TextBlock(config.dim, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    @property
    def room(self) -> str:
        """How much of a prompt is read at most."""
        return f"{self.length - 1} words"

    def understand(self, prompt: str) -> Understood:
        """Which words of a prompt are read, and which are not."""
        words = split(prompt)
        known = [word for word in words if word in self.rows]
        unknown = tuple(dict.fromkeys(word for word in words if word not in self.rows))
        most = self.length - 1
        return Understood(tuple(known[:most]), unknown, tuple(known[most:]))

    def tokens(self, prompt: str) -> tuple[str, ...]:
        """What each token of a prompt stands for, "" for the start; all tokens past these are padding."""
        return ("", *self.understand(prompt).words)

    def nearest(self, word: str) -> list[str]:
        """Up to three known words that are spelt much like this one."""
        return get_close_matches(word, self.rows, n=3)

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """Reads what `understand` says is read; "" is the start alone."""
        lines = [self.understand(prompt).words for prompt in prompts]
        rows = torch.zeros(len(lines), self.length, dtype=torch.long)
        for row, line in zip(rows, lines, strict=True):
            row[1 : 1 + len(line)] = torch.tensor([self.rows[word] for word in line])
        lengths = torch.tensor([[1 + len(line)] for line in lines])
        device = self.padding.device
        read = (torch.arange(self.length) < lengths).to(device)  # (B, L)
        x = self.embedding(rows.to(device)) + self.position
        for block in self.blocks:
            x = block(x, read)
        return torch.where(read.unsqueeze(-1), self.norm(x), self.padding)


@dataclass(frozen=True)
class UnconditionalConfig:
    """No prompts: a model of the data as a whole."""

    kind: Literal["none"] = "none"

    __pydantic_config__ = STRICT


class Unconditional(nn.Module):
    """Knows no prompt but "", of which there is nothing to attend to: no tokens, (B, 0, 0)."""

    dim = None
    sentences = False

    def __init__(self, config: UnconditionalConfig = UnconditionalConfig()) -> None:
        super().__init__()

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """
        Raises:
            ValueError: there is a prompt.
        """
        if prompt := next(filter(None, prompts), None):
            raise ValueError(f'The model is unconditional: it takes no prompt, so leave out "{prompt:.40}".')
        return torch.zeros(len(prompts), 0, 0)


def unread(conditioner: nn.Module, prompts: Sequence[str]) -> list[str]:
    """A sentence on what is too long, and one on each word that is passed over, with known ones spelt alike."""
    if not conditioner.sentences:
        return []
    found = [conditioner.understand(prompt) for prompt in dict.fromkeys(prompts)]
    dropped, unknown = (
        list(dict.fromkeys(_short(word) for heard in found for word in getattr(heard, kind)))
        for kind in ("dropped", "unknown")
    )
    sentences = [f"It reads {conditioner.room}; past them were {_listed(dropped)}."] if dropped else []
    for word in unknown[:NAMED]:
        close = conditioner.nearest(word)
        sentences.append(f"It does not know “{word}”" + (f"; did you mean {' or '.join(close)}?" if close else "."))
    if rest := unknown[NAMED:]:
        sentences.append(f"Nor does it know {_listed(rest)}.")
    return sentences


def _short(word: str) -> str:
    return word if len(word) <= SHORT else f"{word[:SHORT]}…"


def _listed(words: Sequence[str]) -> str:
    """The first of several words, and how many more there are."""
    more = f" and {len(words) - LISTED} more" if len(words) > LISTED else ""
    return ", ".join(words[:LISTED]) + more
