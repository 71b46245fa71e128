"""Byte-level BPE with its intermediate results: what lesson 01 builds, kept once for the widgets.

text -> special tokens cut out -> pieces (pre-tokenizer) -> bytes as symbols -> merges by rank -> ids.

The algorithm is GPT-2's (Radford et al. 2019, `encoder.py` of openai/gpt-2; the merges are Sennrich et al.
2016). The pre-tokenizer is asked of the library, because its pattern differs from model to model.
"""

import json
import re
from dataclasses import dataclass
from itertools import pairwise

from .errors import CourseError, check_characters


@dataclass(frozen=True)
class Merge:
    """One merge: `left` + `right`, the merge of rank `rank` (0 was learned first), give `result`."""

    left: str
    right: str
    rank: int
    result: str


@dataclass(frozen=True)
class Token:
    """One token of the vocabulary.

    id:      int, the row of the embedding matrix
    symbol:  str, as the vocabulary spells it ("Ġworld")
    bytes:   bytes, what it stands for (b" world"); one token may be a part of a character
    special: bool, matched as a whole before BPE runs
    """

    id: int
    symbol: str
    bytes: bytes
    special: bool = False

    @property
    def text(self):
        """str, the bytes read as UTF-8; bytes that are no whole character become U+FFFD."""
        return self.bytes.decode("utf-8", errors="replace")


@dataclass(frozen=True)
class Piece:
    """One piece of the text, which BPE never looks beyond.

    text:    str, the slice of the input
    symbols: tuple of str, one printable symbol a byte, before any merge
    merges:  tuple of Merge, in the order in which they were made
    tokens:  tuple of Token, what is left when no merge applies (nothing for a byte that has no entry)
    """

    text: str
    symbols: tuple[str, ...]
    merges: tuple[Merge, ...]
    tokens: tuple[Token, ...]


def byte_symbols():
    """GPT-2's printable symbol for each byte: dict from int (0 to 255) to a one-character str.

    Bytes that print keep their own character. The other 68 take the characters from U+0100 on, in order,
    which is why a space (0x20, the 33rd of them) is written "Ġ" (U+0120) in vocabularies and merge lists.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


_SYMBOL_OF = byte_symbols()
_BYTE_OF = {symbol: byte for byte, symbol in _SYMBOL_OF.items()}


def symbols_to_bytes(symbols):
    """The bytes that a str of printable symbols stands for. Raises KeyError for a character that is none."""
    return bytes(_BYTE_OF[symbol] for symbol in symbols)


class BytePairEncoder:
    """A byte-level BPE tokenizer that shows its work.

    vocabulary:    dict from symbol str to id int
    merges:        list of (left, right) in the order in which they were learned
    special_ids:   dict from special token str to id int
    pre_tokenize:  function from str to a list of (symbols str, (start, end))
    ignore_merges: bool, take a piece that is itself in the vocabulary without merging (Llama 3)
    """

    def __init__(self, vocabulary, merges, special_ids, pre_tokenize, ignore_merges=False):
        self.vocabulary = vocabulary
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.special_ids = special_ids
        self._pre_tokenize = pre_tokenize
        self._ignore_merges = ignore_merges
        longest_first = sorted(special_ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first))) if special_ids else None

    @classmethod
    def from_tokenizer(cls, tokenizer):
        """The encoder that a transformers tokenizer holds.

        Raises CourseError if the tokenizer is not a byte-level BPE (T5 and BERT, for example, are not).
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise CourseError(
                f"{type(tokenizer).__name__} has no Rust tokenizer to look into. "
                'Give one that has, for example load_tokenizer("gpt2").'
            )
        spec = json.loads(backend.to_str())
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        plain_added = all(not (t["lstrip"] or t["rstrip"] or t["single_word"]) for t in spec["added_tokens"])
        byte_level = "ByteLevel" in json.dumps(spec["pre_tokenizer"])
        no_unknown = spec["model"].get("unk_token") is None  # a byte without an entry is left out
        bpe = spec["model"]["type"] == "BPE" and byte_level and no_unknown
        if not bpe or spec["normalizer"] or not plain_added:
            raise CourseError(
                f"The tokenizer of {name!r} is not a byte-level BPE: its merges of bytes cannot be shown. "
                'Try load_tokenizer("gpt2") or load_tokenizer().'
            )
        merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in spec["model"]["merges"]]
        return cls(
            vocabulary=spec["model"]["vocab"],
            merges=merges,
            special_ids={token["content"]: token["id"] for token in spec["added_tokens"]},
            pre_tokenize=backend.pre_tokenizer.pre_tokenize_str,
            ignore_merges=spec["model"].get("ignore_merges", False),
        )

    def encode(self, text):
        """The ids of `text`: list of int, no special token added. Raises CourseError as below."""
        return [token.id for piece in self.encode_and_show_work(text) for token in piece.tokens]

    def encode_and_show_work(self, text):
        """`text` as a list of Piece, in order, each with its bytes, its merges and its tokens.

        Raises CourseError if the text holds half a surrogate pair, which has no UTF-8 bytes.
        """
        check_characters(text)
        pieces, start = [], 0
        for found in self._special.finditer(text) if self._special else ():
            pieces += self._pieces(text[start : found.start()])
            content = found.group()
            token = Token(self.special_ids[content], content, content.encode(), special=True)
            pieces.append(Piece(content, (content,), (), (token,)))
            start = found.end()
        return pieces + self._pieces(text[start:])

    def _pieces(self, text):
        """The pieces of a text without special tokens."""
        if not text:
            return []
        pieces = []
        for symbols, (start, end) in self._pre_tokenize(text):
            merged, merges = self._merge(symbols)
            tokens = tuple(Token(self.vocabulary[s], s, symbols_to_bytes(s)) for s in merged)
            pieces.append(Piece(text[start:end], tuple(symbols), tuple(merges), tokens))
        return pieces

    def _merge(self, word):
        """Merge the symbols of one piece until no pair has a rank. Returns (symbols, merges made)."""
        # A vocabulary may lack bytes that its training text never held: SmolLM2's has 235 of the 256. The
        # library leaves such a byte out before it merges, without a word, and so does this.
        symbols, made = [symbol for symbol in word if symbol in self.vocabulary], []
        if self._ignore_merges and word in self.vocabulary:
            return [word], made
        while len(symbols) > 1:
            pairs = list(pairwise(symbols))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            made.append(Merge(*best, self.ranks[best], "".join(best)))
            at = pairs.index(best)
            symbols[at : at + 2] = ["".join(best)]
        return symbols, made
