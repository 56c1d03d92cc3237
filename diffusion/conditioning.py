"""Prompts into what the network attends to: list[str] -> context (B, L, D). The unconditional prompt is ""."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diffusion.config import STRICT


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
class UnconditionalConfig:
    """No prompts: a model of the data as a whole."""

    kind: Literal["none"] = "none"

    __pydantic_config__ = STRICT


class Unconditional(nn.Module):
    """Knows no prompt but "", of which there is nothing to attend to: no tokens, (B, 0, 0)."""

    dim = None

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
