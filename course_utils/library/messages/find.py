"""Find what fits a pasted text among phrases, by the words that are rare among them.

`find_message/search.js` does the same in the page, line for line; a browser test holds the two together.
"""

import math
import re
from collections.abc import Sequence

# Two letters or more; numbers, names in quotes and colours differ from case to case. U+FFFD is a symptom.
WORD = re.compile("[a-z]{2,}|\ufffd")
COLOUR = re.compile(r"\x1b\[[\d;]*m")
FITS = 0.35  # below it nothing fits; found by trying (tests/unit/library/test_messages.py)
_MOST_LINES = 400  # of a pasted text; what matters stands at the end of a traceback


class Finder:
    """Ranks things by how well one of their phrases fits a text.

    phrases: a sequence with one sequence of str for each thing
    """

    def __init__(self, phrases: Sequence[Sequence[str]]) -> None:
        self._phrases = [[(_terms(words), f" {' '.join(words)} ") for words in map(_words, each)] for each in phrases]
        count: dict[str, int] = {}
        for each in self._phrases:
            for term in set().union(*(terms for terms, _ in each)):
                count[term] = count.get(term, 0) + 1
        self._weight = {term: math.log(1 + len(self._phrases) / times) for term, times in count.items()}

    def scores(self, text: str) -> list[float]:
        """For each thing a number from 0, nothing in common, to 1, the same words: list of float"""
        windows = [(self._known(words), f" {' '.join(words)}") for words in _windows(text)]
        return [
            max((self._score(*window, *phrase) for window in windows for phrase in each), default=0.0)
            for each in self._phrases
        ]

    def best(self, text: str, most: int = 3) -> list[tuple[int, float]]:
        """The things that fit best, (index, score), best first: list. Those without a common word are left out."""
        ranked = sorted(enumerate(self.scores(text)), key=lambda pair: -pair[1])
        return [(index, score) for index, score in ranked[:most] if score > 0]

    def _known(self, words):
        return {term for term in _terms(words) if term in self._weight}

    def _score(self, known, typed, terms, phrase):
        """The cosine of the two sets; a part of the phrase, as one types it, fits as well."""
        part = 0.5 if len(typed) > 3 and typed in phrase else 0.0
        shared = self._sum(known & terms)
        return max(part, shared / math.sqrt(self._sum(known) * self._sum(terms))) if shared else part

    def _sum(self, terms):
        return math.fsum(self._weight[term] for term in terms)


def _words(text):
    return WORD.findall(COLOUR.sub("", text).lower())


def _terms(words):
    """The words, and each two in a row: set of str"""
    return {*words, *(" ".join(pair) for pair in zip(words, words[1:], strict=False))}


def _windows(text):
    """The words of the whole text, of each line, and of each two and three lines in a row: list of lists"""
    lines = [words for words in map(_words, text.splitlines()[-_MOST_LINES:]) if words]
    spans = [sum(lines[at : at + size], []) for size in (1, 2, 3) for at in range(len(lines) - size + 1)]
    return [*spans, sum(lines, [])] if len(lines) > 3 else spans
