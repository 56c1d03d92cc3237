"""Prompts into vectors."""

import pytest
import torch

from diffusion.conditioning import NAMED, Text, TextConfig, Unconditional, Words, WordsConfig, unread


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


@pytest.fixture
def text():
    torch.manual_seed(0)
    return Text(TextConfig(vocabulary=("a", "7", "red", "on", "white"), dim=8, layers=2, heads=2, length=6)).eval()


def test_a_prompt_is_a_start_a_token_a_word_and_one_vector_for_all_padding(text):
    torch.nn.init.normal_(text.padding)
    context = text(["a red 7", "", "on white"])
    assert context.shape == (3, 6, 8)
    for prompt, words in zip(context, (3, 0, 2), strict=True):
        assert (prompt[1 + words :] == text.padding).all()
        assert not (prompt[: 1 + words] == text.padding).all(1).any()


def test_padding_changes_nothing_for_the_words(text):
    """The same weights with room for fewer tokens, and so with less padding."""
    short = Text(TextConfig(vocabulary=tuple(text.rows), dim=8, layers=2, heads=2, length=4)).eval()
    short.load_state_dict(text.state_dict() | {"position": text.position[:4]})
    assert torch.allclose(short(["a red 7", "red"]), text(["a red 7", "red"])[:, :4], atol=1e-6)


def test_a_prompt_does_not_depend_on_its_batch(text):
    alone, among = text(["a red 7"]), text(["a red 7", "", "a red 7 on white"])
    assert torch.allclose(alone[0], among[0], atol=1e-6)


def test_words_are_read_in_their_order_whatever_their_case_and_what_stands_between(text):
    assert not torch.allclose(text(["red on white"]), text(["white on red"]))
    assert torch.equal(text(["A  Red-7!\n"]), text(["a red 7"]))


def test_what_is_not_known_or_too_much_is_told_and_left_out(text):
    heard = text.understand("A crimson 7, crimson on RED <b>7</b> 😀 on white a")
    assert heard.words == ("a", "7", "on", "red", "7")
    assert heard.unknown == ("crimson", "b", "😀")
    assert heard.dropped == ("on", "white", "a")
    assert torch.equal(text(["a crimson 7"]), text(["a 7"]))
    assert text.nearest("rad") == ["red"] and text.nearest("xyz") == []


def test_what_is_not_read_is_told_in_a_few_sentences(text):
    assert unread(text, ["a red 7", "a red 7", ""]) == []
    assert unread(text, ["a rad 7", "qwerty"]) == [
        "It does not know “rad”; did you mean red?",
        "It does not know “qwerty”.",
    ]
    strange = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen " + "x" * 40
    first, *named, rest = unread(text, [f"{strange} {'a red 7 ' * 12}"])
    assert first == "It reads 5 words; past them were 7, a, red."
    assert len(named) == NAMED and all("It does not know" in sentence for sentence in named)
    assert rest == "Nor does it know six, seven, eight, nine, ten, eleven, twelve, thirteen and 2 more."
    assert unread(text, ["x" * 40]) == [f"It does not know “{'x' * 24}…”."]
    assert unread(Words(WordsConfig()), ["qwerty"]) == []


@pytest.mark.parametrize("prompt", ["x" * 100_000, "a " * 100_000, "שלום עולם", "\x00\x1b[31m", "_" * 50, "7" * 5000])
def test_no_prompt_is_too_strange(text, prompt):
    assert text([prompt]).isfinite().all()


def test_all_of_the_encoder_learns(text):
    context = text(["a red 7", ""])
    (context * torch.randn_like(context)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in text.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 10, "heads": 4}, "dim must be a multiple of heads = 4, but it is 10"),
        ({"vocabulary": ("a", "a")}, "each word once"),
        ({"vocabulary": ("Red",)}, "in lower case"),
        ({"vocabulary": ("a b",)}, "of letters and digits alone"),
        ({"length": 0}, "length must be positive"),
    ],
)
def test_what_cannot_be_a_text_encoder(settings, message):
    with pytest.raises(ValueError, match=message):
        TextConfig(**settings)
