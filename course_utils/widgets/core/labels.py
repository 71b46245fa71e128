"""Text as a view writes it: characters that have no shape, and text that runs from right to left."""

import unicodedata

from tokenizers.decoders import ByteLevel

from ...tokens import symbols_to_bytes

_VISIBLE = {" ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥"}
# What `str.isprintable` lets pass although it draws nothing: the marks and letters among Unicode's
# Default_Ignorable_Code_Point (DerivedCoreProperties.txt), and after them signs that are blank by design.
_WITHOUT_SHAPE = {
    *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5),
    *(*range(0x180B, 0x1810), 0x3164, *range(0xFE00, 0xFE10), 0xFFA0, *range(0xE0100, 0xE01F0)),
    *(0x2800, 0x16FE4, 0x1D159),  # Braille blank, Khitan filler, null note head
}
_RIGHT_TO_LEFT = {"R", "AL", "AN"}
_ISOLATE, _END = "\u2068", "\u2069"


def visible(text):
    """`text` with invisible characters made visible: str, a space as "·", a line feed as "⏎", other
    characters without a shape (controls, zero width, direction marks, variation selectors, fillers) as their
    number, "U+200B"."""
    return "".join(_VISIBLE.get(c) or (c if _has_shape(c) else f"U+{ord(c):04X}") for c in text)


def _has_shape(character):
    return character.isprintable() and ord(character) not in _WITHOUT_SHAPE


def token_label(tokenizer, token_id):
    """The text of one token with invisible characters made visible: str. Bytes that are no whole character
    are written as Python writes them, r"\\xE2\\x80"; a row of the vocabulary without a token as "#50300"."""
    symbol = tokenizer.convert_ids_to_tokens(token_id)
    if symbol is None:
        return f"#{token_id}"
    if token_id in tokenizer.added_tokens_decoder:
        return visible(symbol)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.decoder, ByteLevel):
        return visible(symbol.replace("▁", " "))  # SentencePiece writes a space so
    try:
        return visible(symbols_to_bytes(symbol).decode("utf-8", errors="backslashreplace"))
    except KeyError:  # an entry that stands for itself, as the library decodes it too
        return visible(symbol)


def isolated(text):
    """`text` (str) for a line that goes on after it.

    A line in which numbers follow Arabic or Hebrew is drawn with the numbers on the wrong side, and several
    tokens in a row from right to left. FIRST STRONG ISOLATE and its end, which take no column, keep a text by
    itself (UAX #9). Text without such a letter stays as it is.
    """
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text):
        return f"{_ISOLATE}{text}{_END}"
    return text


def quoted(text):
    """`text` as Python writes it, for a line that goes on after it: str."""
    return isolated(repr(text))


def columns(text):
    """The characters of a text, isolated or not, that take a column: int."""
    return len(text) - text.count(_ISOLATE) - text.count(_END)


def ljust(text, width):
    """str.ljust, with the columns of a text that may be isolated."""
    return text + " " * (width - columns(text))


def rjust(text, width):
    """str.rjust, with the columns of a text that may be isolated."""
    return " " * (width - columns(text)) + text
