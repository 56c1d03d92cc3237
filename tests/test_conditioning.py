"""Prompts into vectors."""

import pytest
import torch

from diffusion.conditioning import Unconditional, Words, WordsConfig


@pytest.fixture
def words():
    return Words(WordsConfig(vocabulary=("cat", "red fox"), dim=5))


def test_a_prompt_is_one_token(words):
    context = words(["cat", "red fox", "cat"])
    assert context.shape == (3, 1, 5)
    assert torch.equal(context[0], context[2]) and not torch.equal(context[0], context[1])


def test_the_empty_prompt_is_the_unconditional_row(words):
    """Row 0, before the vocabulary: adding words to a model keeps its unconditional prompt where it is."""
    assert torch.equal(words([""])[0, 0], words.embedding.weight[0])
    assert words.embedding.num_embeddings == 3


def test_every_prompt_learns(words):
    words(["", "cat", "red fox"]).square().sum().backward()
    assert (words.embedding.weight.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("prompt", ["dog", "Cat", " cat", "cat red fox"])
def test_an_unknown_prompt_is_an_error_that_lists_the_known(words, prompt):
    with pytest.raises(ValueError) as error:
        words(["cat", prompt])
    assert str(error.value) == f'The model does not know the prompt "{prompt}"; it knows cat, red fox and "".'


def test_a_long_prompt_is_shortened_in_the_error(words):
    with pytest.raises(ValueError) as error:
        words(["x" * 10_000])
    assert len(str(error.value)) < 120


@pytest.mark.parametrize("vocabulary", [("a", ""), ("a", "a")])
def test_a_vocabulary_names_each_prompt_once_and_not_the_empty_one(vocabulary):
    with pytest.raises(ValueError, match="the vocabulary holds each prompt once"):
        WordsConfig(vocabulary=vocabulary)


def test_the_default_vocabulary_is_the_digits():
    assert WordsConfig().vocabulary == tuple(str(digit) for digit in range(10))


def test_a_model_without_prompts_attends_to_nothing_and_refuses_one():
    unconditional = Unconditional()
    assert unconditional(["", ""]).shape == (2, 0, 0)
    with pytest.raises(ValueError, match='unconditional: it takes no prompt, so leave out "cat"'):
        unconditional(["", "cat"])
