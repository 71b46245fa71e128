"""A text that somebody gives and the ids that a tokenizer makes of it: one sentence for each thing wrong."""

from typing import Any

from ..errors import CourseError


def check_text(text: str, name: str = "the text", example: str = "My dog is") -> None:
    """Raise CourseError unless `text` is a str without half a surrogate pair, which has no UTF-8 bytes.

    name:    str, what the sentence calls the text
    example: str, what it tells the reader to type
    """
    if not isinstance(text, str):
        raise CourseError(
            f"{_first(name)} is of type {type(text).__name__}, not text. Write it in quotes: {example!r}."
        )
    check_characters(text, name)


def check_characters(text: str, name: str = "the text") -> None:
    """Raise CourseError if the str `text` holds half a surrogate pair. name as in `check_text`."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CourseError(
            f"Character {error.start + 1} of {name} is U+{ord(text[error.start]):04X}, half of a surrogate "
            "pair: it stands for no character. Delete it, or paste the character again."
        ) from None


def text_ids(tokenizer: Any, text: str, name: str = "the text", purpose: str = "continue") -> list[int]:
    """The ids of `text` as the tokenizer makes them by default: list of int, at least one.

    name as in `check_text`; purpose: str, what was to be done with the text
    Raises CourseError for what `check_text` refuses, and for a text without tokens.
    """
    check_text(text, name)
    ids = list(tokenizer(text, verbose=False).input_ids)
    if not ids:
        raise CourseError(
            f"{_first(name)} is empty, so there is nothing to {purpose}. Type at least one word."
        )
    return ids


def check_length(length: int, most: int | None, name: str, because: str) -> None:
    """Raise CourseError if a text has more tokens than fit.

    length:  int; most: int, or None where there is no limit
    because: str, who sets the limit, with `{most}` in it: "the model has {most} positions"
    """
    if most is not None and length > most:
        raise CourseError(
            f"{_first(name)} has {length:,} tokens, and {because.format(most=f'{most:,}')}. "
            f"Shorten it by {length - most:,} or more."
        )


def _first(name: str) -> str:
    return name[:1].upper() + name[1:]
