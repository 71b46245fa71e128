"""Text as the tokens of one or several tokenizers, while it is typed."""

import html
import json
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import traitlets

from ...errors import CourseError
from ...inputs.text import check_text
from ...tokens import BytePairEncoder, merges_of_tokens
from ..core.labels import isolated, quoted, visible
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_MOST_CHARACTERS = 2000
_MOST_TOKENS = 512  # chips of each tokenizer; English of 2,000 characters has fewer, other scripts thousands
_STILL_ROWS = 20
_STILL_CHARACTERS = 200
_SAVED_BYTES = 46_000  # of one saved output but for its host, within which as many tokens are kept as fit


class TokenChips(CourseWidget):
    """`text` as coloured chips, a chip a token, each with its id, its bytes and the merges that made it.

    text:       str
    tokenizers: dict from a name str to a transformers tokenizer that is a byte-level BPE; shown side by side

    `text` can be assigned and follows what the learner types; `ids` holds the ids under each name. Chips are
    drawn for the first 512 tokens of each tokenizer, and in a saved page for as many as there is room for;
    the page says so.

    Raises CourseError for a text that is not a str, half a surrogate pair, more than 2,000 characters, and a
    tokenizer that is not a byte-level BPE or has a part that `tokens.BytePairEncoder` does not.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, text: str, tokenizers: dict[str, Any]) -> None:
        if not isinstance(tokenizers, dict):
            raise CourseError(
                f"The tokenizers are of type {type(tokenizers).__name__}, and TokenChips takes them by name: "
                'TokenChips("Hello world", {"mine": tokenizer}).'
            )
        self._encoders = {name: BytePairEncoder.from_tokenizer(t) for name, t in tokenizers.items()}
        super().__init__()
        self.text = text

    @property
    def text(self) -> str:
        """The text that is shown."""
        return self.shown["text"]

    @text.setter
    def text(self, text: str) -> None:
        check_text(text)
        if len(text) > _MOST_CHARACTERS:
            raise CourseError(
                f"The text has {len(text):,} characters, and this view shows at most {_MOST_CHARACTERS:,}. "
                "Shorten it, or count its tokens in a cell: len(tokenizer(text).input_ids)."
            )
        works = {name: encoder.encode_and_show_work(text) for name, encoder in self._encoders.items()}
        self._ids = {
            name: [token.id for piece in pieces for token in piece.tokens] for name, pieces in works.items()
        }
        self.set_trait(
            "shown",
            {
                "text": text,
                "characters": len(text),
                "bytes": len(text.encode()),
                "tokenizers": [
                    {"name": name, "count": len(self._ids[name]), "tokens": _tokens(pieces)}
                    for name, pieces in works.items()
                ],
            },
        )

    @property
    def ids(self) -> dict[str, list[int]]:
        """The ids of the text: dict from the tokenizer's name to a list of int."""
        return {name: list(ids) for name, ids in self._ids.items()}

    def page_state(self) -> dict[str, Any]:
        """The own traits, with the first tokens of each tokenizer, as many as fit; one in any case."""
        tokenizers = self.shown["tokenizers"]
        nothing = self.shown | {"tokenizers": [one | {"tokens": []} for one in tokenizers]}
        room = _SAVED_BYTES - sum(len(str(text).encode()) for text in (self._esm, self._css, self.still()))
        room -= _saved_bytes(nothing)
        most = 0
        for row in zip_longest(*(one["tokens"] for one in tokenizers)):
            room -= sum(map(_saved_bytes, row))
            if room < 0 and most:
                break
            most += 1
        kept = [one | {"tokens": one["tokens"][:most]} for one in tokenizers]
        return super().page_state() | {"shown": self.shown | {"tokenizers": kept}}

    def answer(self, request: dict) -> dict | None:
        """Show the text of {"text": str}."""
        self.text = request["text"]

    def _title(self):
        """The beginning of the text in quotes: str."""
        more = "…" if len(self.text) > _STILL_CHARACTERS else ""
        return quoted(self.text[:_STILL_CHARACTERS]) + more

    def summary(self) -> str:
        lines = [f"{self._title()}: {_count(self.shown['characters'], 'character')}"]
        for one in self.shown["tokenizers"]:
            first = one["tokens"][:_STILL_ROWS]
            chips = [f"{isolated(token['text'])} {token['id']}" for token in first]
            if left := one["count"] - len(first):
                chips.append(f"{left:,} more")
            lines.append(f"{one['name']}, {_count(one['count'], 'token')}: {' | '.join(chips)}")
        return "\n".join(lines)

    def still(self) -> str:
        parts = [f"<p>The tokens of {html.escape(self._title())}</p>"]
        for one in self.shown["tokenizers"]:
            first = one["tokens"][:_STILL_ROWS]
            rows = [(isolated(token["text"]), token["id"], token["bytes"]) for token in first]
            if left := one["count"] - len(first):
                rows.append((f"{left:,} more", "", ""))
            parts.append(f"<p>{html.escape(one['name'])}: {_count(one['count'], 'token')}</p>")
            parts.append(html_table(["Token", "Id", "Bytes"], rows))
        parts.append("<p>Run the cell to type another text and see the merges behind each token.</p>")
        return "".join(parts)


def _tokens(pieces):
    """The first tokens of a text (list of `tokens.Piece`) as the page shows them: list of dict.

    id: int; text: str, invisible characters made visible, bytes that are not a whole character as
    r"\\xE2\\x80"; symbol: str, as the vocabulary spells it; bytes: str, hexadecimal; special: bool;
    piece: int, which piece of the text it lies in; merges: list of [left, right, result, rank] in the order
    in which they were made.
    """
    all_tokens = (
        {
            "id": token.id,
            "text": visible(token.bytes.decode("utf-8", errors="backslashreplace")),
            "symbol": visible(token.symbol),
            "bytes": token.bytes.hex(" ").upper(),
            "special": token.special,
            "piece": number,
            "merges": [[merge.left, merge.right, merge.result, merge.rank] for merge in merges],
        }
        for number, piece in enumerate(pieces)
        for token, merges in zip(piece.tokens, merges_of_tokens(piece), strict=True)
    )
    return list(islice(all_tokens, _MOST_TOKENS))


def _saved_bytes(value):
    """The bytes that `value` takes in a saved page, hardly fewer: int."""
    text = json.dumps(value)
    return len(text) + 5 * text.count("<")  # which a script has to spell \\u003c


def _count(number, noun):
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
