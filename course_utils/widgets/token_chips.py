"""Text as the tokens of one or several tokenizers, while it is typed."""

import html
from pathlib import Path

import traitlets

from ..errors import CourseError
from ..tokens import BytePairEncoder, merges_of_tokens
from .base import CourseWidget, html_table, visible

_HERE = Path(__file__).parent
_MOST_CHARACTERS = 2000  # more would be thousands of chips, and seconds for a text without spaces


class TokenChips(CourseWidget):
    """`text` as coloured chips, a chip a token, each with its id, its bytes and the merges that made it.

    text:       str
    tokenizers: dict from a name str to a transformers tokenizer that is a byte-level BPE; shown side by side

    `text` can be assigned and follows what the learner types; `ids` holds the ids under each name.

    Raises CourseError for half a surrogate pair, for more than 2,000 characters and for a tokenizer that is
    no byte-level BPE.
    """

    _esm = _HERE / "token_chips.js"
    _css = _HERE / "token_chips.css"

    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, text, tokenizers):
        self._encoders = {name: BytePairEncoder.from_tokenizer(t) for name, t in tokenizers.items()}
        super().__init__()
        self.text = text

    @property
    def text(self):
        """str, the text that is shown."""
        return self.shown["text"]

    @text.setter
    def text(self, text):
        if len(text) > _MOST_CHARACTERS:
            raise CourseError(
                f"The text has {len(text):,} characters, and this view shows at most {_MOST_CHARACTERS:,}. "
                "Shorten it, or count its tokens in a cell: len(tokenizer(text).input_ids)."
            )
        shown = {name: _tokens(encoder, text) for name, encoder in self._encoders.items()}
        self.set_trait(
            "shown",
            {
                "text": text,
                "characters": len(text),
                "bytes": len(text.encode()),
                "tokenizers": [{"name": name, "tokens": tokens} for name, tokens in shown.items()],
            },
        )

    @property
    def ids(self):
        """The ids of the text: dict from the tokenizer's name to a list of int."""
        return {one["name"]: [token["id"] for token in one["tokens"]] for one in self.shown["tokenizers"]}

    def answer(self, request):
        """Show the text of {"text": str}."""
        self.text = request["text"]

    def summary(self):
        lines = [f"{self.text!r}: {_count(self.shown['characters'], 'character')}"]
        for one in self.shown["tokenizers"]:
            chips = " | ".join(f"{token['text']} {token['id']}" for token in one["tokens"])
            lines.append(f"{one['name']}, {_count(len(one['tokens']), 'token')}: {chips}")
        return "\n".join(lines)

    def still(self):
        parts = [f"<p>The tokens of {html.escape(repr(self.text))}</p>"]
        for one in self.shown["tokenizers"]:
            count = _count(len(one["tokens"]), "token")
            parts.append(f"<p>{html.escape(one['name'])}: {count}</p>")
            parts.append(
                html_table(
                    ["Token", "Id", "Bytes"],
                    [(token["text"], token["id"], token["bytes"]) for token in one["tokens"]],
                )
            )
        parts.append("<p>Run the cell to type another text and see the merges behind each token.</p>")
        return "".join(parts)


def _tokens(encoder, text):
    """The tokens of `text` as the page shows them: list of dict.

    id: int; text: str, what cannot be seen made visible, bytes that are no whole character as r"\\xE2\\x80";
    symbol: str, as the vocabulary spells it; bytes: str, hexadecimal; special: bool;
    piece: int, which piece of the text it lies in; merges: list of [left, right, result, rank] in the order
    in which they were made.
    """
    return [
        {
            "id": token.id,
            "text": visible(token.bytes.decode("utf-8", errors="backslashreplace")),
            "symbol": token.symbol,
            "bytes": token.bytes.hex(" ").upper(),
            "special": token.special,
            "piece": number,
            "merges": [[merge.left, merge.right, merge.result, merge.rank] for merge in merges],
        }
        for number, piece in enumerate(encoder.encode_and_show_work(text))
        for token, merges in zip(piece.tokens, merges_of_tokens(piece), strict=True)
    ]


def _count(number, noun):
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
