"""Byte-level BPE with its intermediate results: what lesson 01 builds, kept once for the widgets.

text -> special tokens cut out -> pieces (pre-tokenizer) -> bytes as symbols -> merges by rank -> ids.

The algorithm is GPT-2's (Radford et al. 2019, `encoder.py` of openai/gpt-2; the merges are Sennrich et al.
2016). What differs from model to model is asked of the library: how special tokens are found, the normalizer
and the pattern of the pre-tokenizer.
"""

from __future__ import annotations

import heapq
import json
import re
from bisect import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any

from tokenizers import Tokenizer

from .errors import CourseError
from .inputs.text import check_characters


@dataclass(frozen=True)
class Merge:
    """One merge: `left` + `right`, the merge of rank `rank` (0 was learned first), give `result`.

    start: int, where `result` begins in its piece: an index into the bytes that have an entry
    """

    left: str
    right: str
    rank: int
    result: str
    start: int


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
    def text(self) -> str:
        """The bytes read as UTF-8; bytes that are not a whole character become U+FFFD."""
        return self.bytes.decode("utf-8", errors="replace")


@dataclass(frozen=True)
class Piece:
    """One piece of the text, which BPE never looks beyond.

    text:    str, the slice of the input, before the tokenizer's normalizer
    symbols: tuple of str, one printable symbol a byte, before any merge
    merges:  tuple of Merge, in the order in which they were made
    tokens:  tuple of Token, what is left when no merge applies (nothing for a byte that has no entry)
    """

    text: str
    symbols: tuple[str, ...]
    merges: tuple[Merge, ...]
    tokens: tuple[Token, ...]


def merges_of_tokens(piece: Piece) -> list[list[Merge]]:
    """The merges that made each token of a `Piece`: a list of Merge, in their order, for each token."""
    ends = list(accumulate(len(token.symbol) for token in piece.tokens))
    made = [[] for _ in piece.tokens]
    for merge in piece.merges:
        made[bisect(ends, merge.start)].append(merge)
    return made


def byte_symbols() -> dict[int, str]:
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


def symbols_to_bytes(symbols: str) -> bytes:
    """The bytes that a str of printable symbols stands for. Raises KeyError for any other character."""
    return bytes(_BYTE_OF[symbol] for symbol in symbols)


class BytePairEncoder:
    """A byte-level BPE tokenizer that shows its work.

    vocabulary:    dict from symbol str to id int
    merges:        list of (left, right) in the order in which they were learned
    special_ids:   dict from special token str to id int
    pre_tokenize:  function from str to a list of (symbols str, (start, end)); None where `cut` is given
    ignore_merges: bool, take a piece that is itself in the vocabulary without merging (Llama 3)
    cut:           function from str to a list of (symbols str, (start, end), special bool); by default the
                   special tokens, the longest first, and `pre_tokenize` of the text between them
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        merges: Iterable[tuple[str, str]],
        special_ids: dict[str, int],
        pre_tokenize: Callable | None,
        ignore_merges: bool = False,
        cut: Callable | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.special_ids = special_ids
        self._ignore_merges = ignore_merges
        self._cut = cut or _cutter(special_ids, pre_tokenize)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> BytePairEncoder:
        """The encoder that a transformers tokenizer holds.

        Raises CourseError if the tokenizer is not a byte-level BPE (T5 and BERT, for example, are not), and
        for a byte-level BPE with a part that this encoder does not have; the sentence names the part.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise CourseError(
                f"{type(tokenizer).__name__} has no Rust tokenizer to look into. "
                'Give one that has, for example load_tokenizer("gpt2").'
            )
        spec = json.loads(backend.to_str())
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if refusal := _refusal(spec):
            raise CourseError(
                f'The tokenizer of {name!r} {refusal}. Try load_tokenizer("gpt2") or load_tokenizer().'
            )
        pairs = (m.split(" ") if isinstance(m, str) else m for m in spec["model"]["merges"])
        return cls(
            vocabulary=spec["model"]["vocab"],
            merges=[(left, right) for left, right in pairs],
            special_ids={token["content"]: token["id"] for token in spec["added_tokens"]},
            pre_tokenize=None,
            ignore_merges=spec["model"].get("ignore_merges", False),
            cut=_library_cutter(spec),
        )

    def encode(self, text: str) -> list[int]:
        """The ids of `text`: list of int, no special token added. Raises CourseError as below."""
        return [token.id for piece in self.encode_and_show_work(text) for token in piece.tokens]

    def encode_and_show_work(self, text: str) -> list[Piece]:
        """`text` as a list of Piece, in order, each with its bytes, its merges and its tokens.

        Raises CourseError if the text holds half a surrogate pair, which has no UTF-8 bytes.
        """
        check_characters(text)
        return [
            (self._special if special else self._ordinary)(text[start:end], symbols)
            for symbols, (start, end), special in self._cut(text)
        ]

    def _special(self, text, content):
        token = Token(self.special_ids[content], content, content.encode(), special=True)
        return Piece(text, (content,), (), (token,))

    def _ordinary(self, text, symbols):
        merged, merges = self._merge(symbols)
        tokens = tuple(Token(self.vocabulary[s], s, symbols_to_bytes(s)) for s in merged)
        return Piece(text, tuple(symbols), tuple(merges), tokens)

    def _merge(self, word):
        """Merge the symbols of one piece until no pair has a rank. Returns (symbols, merges made)."""
        # A vocabulary may lack bytes that its training text never held: SmolLM2's has 235 of the 256. The
        # library leaves such a byte out before it merges, without a word, and so does this.
        symbols = [symbol for symbol in word if symbol in self.vocabulary]
        if self._ignore_merges and word in self.vocabulary:
            return [word], []
        end, made, queue = len(symbols), [], []
        before, after = list(range(-1, end - 1)), list(range(1, end + 1))  # the neighbours that are left

        def offer(left):
            if left >= 0 and after[left] < end:
                rank = self.ranks.get((symbols[left], symbols[after[left]]))
                if rank is not None:
                    heapq.heappush(queue, (rank, left))

        for left in range(end):
            offer(left)
        # The lowest rank first, and of equal ones the leftmost. A queue keeps long pieces fast; a pair stays
        # in it when another merge takes one of its two, and is then passed over.
        while queue:
            rank, left = heapq.heappop(queue)
            right = after[left]
            if right >= end or self.ranks.get((symbols[left], symbols[right])) != rank:
                continue
            result = symbols[left] + symbols[right]
            made.append(Merge(symbols[left], symbols[right], rank, result, left))
            symbols[left], symbols[right] = result, None
            after[left] = after[right]
            if after[left] < end:
                before[after[left]] = left
            offer(before[left])
            offer(left)
        return [symbol for symbol in symbols if symbol is not None], made


def _cutter(special_ids, pre_tokenize):
    """A function that cuts a text, as `BytePairEncoder` takes it."""
    contents = sorted(special_ids, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, contents)) or "(?!)")

    def between(text, begin, end):
        pieces = pre_tokenize(text[begin:end]) if begin < end else []
        return [(symbols, (begin + start, begin + stop), False) for symbols, (start, stop) in pieces]

    def cut(text):
        parts, begin = [], 0
        for found in pattern.finditer(text):
            parts += [*between(text, begin, found.start()), (found.group(), found.span(), True)]
            begin = found.end()
        return parts + between(text, begin, len(text))

    return cut


def _library_cutter(spec):
    """A function that cuts a text as a tokenizer of the library does: with its normalizer (Qwen's NFC), and
    with the white space that goes with an added token (RoBERTa's <mask>).

    spec: dict, the tokenizer as the library writes it
    """
    # The library's own tokenizer, with a model of the 256 bytes and no merges: each piece comes as its bytes.
    special = {token["id"]: token["content"] for token in spec["added_tokens"]}
    free = max(special, default=0) + 1
    vocabulary = {symbol: free + byte for symbol, byte in _BYTE_OF.items()}
    vocabulary |= {content: number for number, content in special.items()}
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    others = dict.fromkeys(["post_processor", "decoder", "truncation", "padding"])
    unmerged = Tokenizer.from_str(json.dumps(spec | others | {"model": model}))

    def cut(text):
        encoding = unmerged.encode(text, add_special_tokens=False)
        columns = zip(encoding.word_ids, encoding.ids, encoding.tokens, encoding.offsets, strict=True)
        pieces = [list(piece) for _, piece in groupby(columns, key=itemgetter(0))]
        # A piece ends where the next begins: an accent that the normalizer joins to its letter has no bytes.
        starts = [0, *(piece[0][3][0] for piece in pieces[1:])]
        parts = []
        for piece, span in zip(pieces, zip(starts, [*starts[1:], len(text)], strict=False), strict=False):
            content = special.get(piece[0][1]) if len(piece) == 1 else None
            symbols = content or "".join(symbol for _, _, symbol, _ in piece)
            parts.append((symbols, span, content is not None))
        return parts

    return cut


def _refusal(spec):
    """What a tokenizer is, or has, that `BytePairEncoder` cannot show: the end of a sentence, or None.

    spec: dict, a tokenizer as the library writes it
    """
    model = spec["model"]
    byte_level = "ByteLevel" in json.dumps([spec["normalizer"], spec["pre_tokenizer"]])
    if model["type"] != "BPE" or not byte_level:
        return "is not a byte-level BPE: its merges of bytes cannot be shown"
    parts = []
    if model.get("dropout"):
        parts.append("leaves merges out at random (dropout)")
    parts += [
        f"adds {model[name]!r} to the parts of a word ({name})"
        for name in ("continuing_subword_prefix", "end_of_word_suffix")
        if model.get(name)
    ]
    if not all(symbol in model["vocab"] for symbol in _BYTE_OF):
        # Without these two, a byte that has no entry is left out.
        parts += [
            f"writes something else for a byte that has no entry ({name})"
            for name in ("unk_token", "byte_fallback")
            if model.get(name)
        ]
    return f"{' and '.join(parts)}, and BytePairEncoder does not" if parts else None
