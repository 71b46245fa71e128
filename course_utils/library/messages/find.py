"""Find what fits a pasted text among phrases, by the words that are rare among them.

`find_message/search.js` does the same in the page, line for line; a browser test holds the two together.
"""

import itertools
import math
import re
from collections.abc import Sequence

# Two letters or more; numbers, names in quotes and colours differ from case to case. U+FFFD is a symptom.
_WORD = re.compile("[a-z]{2,}|\ufffd")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
FITS = 0.37  # below it nothing fits; found by trying texts that have no entry here
_LINE_END = re.compile(r"\r\n|[\r\n]")
_UNKNOWN = 0.6  # the weight of a word that no phrase has, as a share of one that a single phrase has
_MOST_LINES = 400  # of a pasted text; what matters stands at the end of a traceback


class Finder:
    """Ranks things by how well one of their phrases fits a text.

    phrases: a sequence with one sequence of str for each thing
    """

    def __init__(self, phrases: Sequence[Sequence[str]]) -> None:
        worded = [
            [(_terms(words), f" {' '.join(words)} ") for words in map(_words, each)] for each in phrases
        ]
        count: dict[str, int] = {}
        for each in worded:
            for term in set().union(*(terms for terms, _ in each)):
                count[term] = count.get(term, 0) + 1
        self._weights = {term: math.log(1 + len(phrases) / times) for term, times in count.items()}
        self._unknown = _UNKNOWN * math.log(1 + len(phrases))
        self._phrases = [[(terms, self._sum(terms), words) for terms, words in each] for each in worded]

    def scores(self, text: str) -> list[float]:
        """For each thing a number from 0, nothing in common, to 1, the same words: list of float"""
        windows = [self._window(words) for words in _windows(text)]
        return [
            max((self._score(*window, *phrase) for window in windows for phrase in each), default=0.0)
            for each in self._phrases
        ]

    def best(self, text: str, most: int = 3) -> list[tuple[int, float]]:
        """The things that fit best, (index, score), best first, but for those without a common word: list."""
        ranked = sorted(enumerate(self.scores(text)), key=lambda pair: -pair[1])
        return [(index, score) for index, score in ranked[:most] if score > 0]

    def _window(self, words):
        """Of some words the terms that a phrase has, the weight of all, and the words as one text."""
        known = {term for term in _terms(words) if term in self._weights}
        unknown = {word for word in words if word not in self._weights}
        return known, self._sum(known) + self._unknown * len(unknown), f" {' '.join(words)}"

    def _score(self, known, weight, typed, terms, phrase_weight, phrase):
        """The cosine of the two sets; a part of the phrase, as one types it, fits as well."""
        part = 0.5 if len(typed) > 3 and typed in phrase else 0.0
        shared = self._sum(known & terms)
        return max(part, shared / math.sqrt(weight * phrase_weight)) if shared else part

    def _sum(self, terms):
        return math.fsum(self._weights[term] for term in terms)


def _words(text):
    return _WORD.findall(_COLOUR.sub("", text).lower())


def _terms(words):
    """The words, and each two in a row: set of str"""
    return {*words, *(" ".join(pair) for pair in itertools.pairwise(words))}


def _windows(text):
    """The words of each line, of each two and three lines in a row, and of the whole text: list of lists"""
    lines = [words for words in map(_words, _LINE_END.split(text)[-_MOST_LINES:]) if words]
    spans = [lines[at : at + size] for size in (1, 2, 3) for at in range(len(lines) - size + 1)]
    if len(lines) > 3:
        spans.append(lines)
    return [list(itertools.chain(*span)) for span in spans]
