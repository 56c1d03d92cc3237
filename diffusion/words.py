"""How text falls into words, alike for what reads prompts and for what judges pictures by them."""

import unicodedata


def split(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and digits of any script, and of symbols such as emoji.

    Marks, such as vowel signs, belong to what they stand on. Punctuation and mathematical signs only part words.
    """
    words, kind = [], None
    for character in unicodedata.normalize("NFC", text.lower()):
        category = unicodedata.category(character)
        before = kind
        if category[0] != "M":
            kind = "letters" if category[0] in "LN" else "symbols" if category == "So" else None
        if kind and kind == before:
            words[-1] += character
        elif kind:
            words.append(character)
    return words
