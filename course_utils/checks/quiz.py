"""Quizzes and predictions as data. The widgets `Quiz` and `Predict` show them.

    from .quiz import NumberPrediction, Option, Prediction, Question


    def space_ids():
        from course_utils import load_tokenizer          # heavy imports stay inside

        return load_tokenizer("gpt2")(" Hello").input_ids


    predict_space = Prediction(                           # answered before the cell that settles it
        "01/predict-space",
        'What does GPT-2 make of `" Hello"`?',
        options=(
            Option("`[18435]`", "The space is a part of the token `ĠHello`.", right=True),
            Option("`[220, 15496]`", "A lone space is 220, but here a longer merge wins."),
        ),
        proof=space_ids,                                  # run in the tests: must give the right option
    )

    predict_cost = NumberPrediction(
        "01/predict-cost", "How many tokens does GPT-2 need for `नमस्ते`?",
        key=9, tolerance=1, unit="tokens",
        why="Most of its bytes have no merge, so nearly each byte is a token.",
        wrong=((1, "That would take a merge for a whole word of Hindi."),
               ((2, 6), "Characters are not the unit: each takes three bytes.")),
        otherwise="Count bytes: 18 of them, few of which merge.",
    )

    quiz = (Question("01/quiz-bytes", "…", options=(…)), Question("01/quiz-several", "…", (…), several=True))

In the notebook: `Predict(lesson01.predict_space)` and `Quiz(lesson01.quiz)`. Text may hold `code` between
backticks. A proof returns the value of the right option: `Option(..., value=[18435])`, or the option's
text without backticks where no value is given; for `several=True` it returns a list of such values.
"""

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from .progress import valid_id


@dataclass(frozen=True)
class Option:
    """One answer: its `text`, `why` it is right or wrong, and the `value` that a proof would return."""

    text: str
    why: str
    right: bool = False
    value: Any = None

    def __post_init__(self):
        _filled(self.text, "an option needs a text")
        _filled(self.why, f"the option {self.text!r} needs a why")

    def stands_for(self, value: Any) -> bool:
        """Whether this option is the answer `value`, which a proof returned."""
        if self.value is not None:
            return bool(self.value == value)
        return self.text.replace("`", "") == str(value)


@dataclass(frozen=True)
class Question:
    """A question with options, exactly one of them right unless `several`.

    `options` are kept in an order that is drawn from the id: the same on every machine, and without
    a habit of putting the right one first. `proof()` computes the right answer; the tests run it.
    ValueError if the question is not well formed.
    """

    id: str
    text: str
    options: tuple[Option, ...]
    several: bool = False
    proof: Callable[[], Any] | None = None

    kind: ClassVar[str] = "quiz"

    def __post_init__(self):
        valid_id(self.id)
        _filled(self.text, f"{self.id} needs a text")
        options = list(self.options)
        if len(options) < 2:
            raise ValueError(f"{self.id} has {len(options)} options: it needs at least two")
        if len({option.text for option in options}) < len(options):
            raise ValueError(f"{self.id} has two options with the same text")
        right = sum(option.right for option in options)
        if right == 0 or (right > 1 and not self.several):
            raise ValueError(
                f"{self.id} has {right} right options: mark {'some' if self.several else 'exactly one'} "
                "with right=True"
            )
        random.Random(self.id).shuffle(options)
        object.__setattr__(self, "options", tuple(options))

    @property
    def key(self) -> tuple[int, ...]:
        """The indices of the right options, a tuple of int."""
        return tuple(index for index, option in enumerate(self.options) if option.right)

    def is_right(self, chosen: Iterable[int]) -> bool:
        """Whether the indices in `chosen` are exactly the right ones."""
        return set(chosen) == set(self.key)

    def prove(self) -> None:
        """Run the proof, if there is one. AssertionError if it gives options that are not marked right."""
        if self.proof is None:
            return
        value = self.proof()
        values = value if self.several else [value]
        proven = tuple(
            index
            for index, option in enumerate(self.options)
            if any(option.stands_for(value) for value in values)
        )
        assert proven == self.key, (
            f"{self.id}: the proof gives {value!r}, but the options marked as right are "
            f"{[self.options[index].text for index in self.key]}"
        )


@dataclass(frozen=True)
class Prediction(Question):
    """A question that is answered once, before the cell that settles it."""

    kind: ClassVar[str] = "prediction"


@dataclass(frozen=True)
class NumberPrediction:
    """A number that is guessed before the cell that settles it.

    `key` and `tolerance` (absolute) are in `unit`. `why` explains the right number; `wrong` holds pairs
    of a typical wrong number, or of a range (low, high) with both ends, and its explanation (the first
    match counts); `otherwise` answers every other number. `proof()` returns the number.
    ValueError if the prediction is not well formed.
    """

    id: str
    text: str
    key: float
    why: str
    otherwise: str
    wrong: tuple = ()
    tolerance: float = 0
    unit: str = ""
    proof: Callable[[], float] | None = None

    kind: ClassVar[str] = "prediction"

    def __post_init__(self):
        valid_id(self.id)
        for value, name in ((self.text, "text"), (self.why, "why"), (self.otherwise, "otherwise")):
            _filled(value, f"{self.id} needs `{name}`")
        if not math.isfinite(self.key) or self.tolerance < 0:
            raise ValueError(f"{self.id} needs a finite key and a tolerance of at least 0")
        ranges = []
        for number, why in self.wrong:
            _filled(why, f"{self.id} needs a why for {number}")
            low, high = number if isinstance(number, tuple | list) else (number, number)
            if low > high:
                raise ValueError(f"{self.id}: the range {number} is empty, write (low, high)")
            if low == high and self.is_right(low):
                raise ValueError(f"{self.id}: the wrong number {number} is within the tolerance of the key")
            ranges.append((low, high, why))
        object.__setattr__(self, "wrong", tuple(ranges))

    def is_right(self, guess: float) -> bool:
        """Whether `guess` lies within the tolerance of the key."""
        # The slack lets 0.3 be within 0.1 of 0.2; the page has the same line.
        return abs(guess - self.key) <= self.tolerance + 1e-9 * max(1, abs(self.key))

    def explain(self, guess: float) -> str:
        """The explanation that belongs to `guess`."""
        if self.is_right(guess):
            return self.why
        return next((why for low, high, why in self.wrong if low <= guess <= high), self.otherwise)

    def prove(self) -> None:
        """Run the proof, if there is one. AssertionError if its number is not the key."""
        if self.proof is not None:
            value = self.proof()
            assert self.is_right(value), f"{self.id}: the proof gives {value}, but the key is {self.key}"


def _filled(text, message):
    if not isinstance(text, str) or not text.strip():
        raise ValueError(message)
