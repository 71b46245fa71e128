'''Exercises that check themselves and never break a notebook.

In a lesson's module, `course_utils/lessons/lesson01.py`:

    from .exercise import Mistake, exercise, expect_equal


    @exercise("01/merge", title="Merge one pair everywhere", minutes=8, difficulty=2)
    def merge(answer):
        """What the check wants, for the next author."""
        for parts, pair, want, wrong in [
            (["h", "e", "l", "l", "o"], ("l", "l"), ["h", "e", "ll", "o"], ["h", "e", "ll", "l", "o"]),
            (["a", "a", "a"], ("a", "a"), ["aa", "a"], ["aa", "aa"]),
        ]:
            got = answer(parts, pair)                     # copies go in; time, errors and changes are watched
            expect_equal(got, want, (parts, pair), "Go through the parts from left to right.", mistakes=[
                (wrong, "After a merge, move on by two parts."),
                (lambda got: got == parts, "Nothing was merged: compare both parts with the pair."),
            ])
        if answer(["a"], ("a", "b")) != ["a"]:
            raise Mistake("A list of one part has no pair: return it as it is.")
        return "Every pair is merged, from left to right, as the library does it."     # what this proves

In the notebook:

    def merge(parts, pair):
        raise NotImplementedError                         # the stub: the check says "not yet"

    lesson01.merge(merge)                                 # a Result, shown as "✔ …", "✘ …" or "… not yet"

An answer that is not a function (a number, a list, a tensor) is handed to the check as a copy. A check never
raises, except with COURSE_STRICT=1, where anything but "✔" is an AssertionError with the same text. Options:
`seconds=10` limits the time in the learner's code. Values that `copied` does not copy (models, tokenizers)
are handed on as they are. Heavy imports (torch, transformers) belong inside the check.
'''

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

from . import progress
from .compare import Mistake, as_html, code, copied, described, expect_close, expect_equal, show
from .sandbox import Answer, NotYet, learner_frame, run

__all__ = ["Exercise", "Mistake", "Result", "exercise", "expect_close", "expect_equal", "show"]

# The symbol tells the outcome without the colour. Okabe and Ito's colours, at 3:1 on white and on black.
SYMBOLS = {"right": "✔", "wrong": "✘", "not yet": "…"}
COLOURS = {"right": "#009e73", "wrong": "#d55e00", "not yet": "#808080"}


@dataclass(frozen=True)
class Result:
    """What a check found: `outcome` is "right", "wrong" or "not yet", `message` explains it.

    True in a condition only when right. `note` reports trouble with the progress file.
    """

    exercise: str
    outcome: str
    message: str
    note: str = ""

    def __bool__(self):
        return self.outcome == "right"

    def __repr__(self):
        return f"{SYMBOLS[self.outcome]} {self.message}" + (f"\n({self.note})" if self.note else "")

    def _repr_html_(self):
        note = f"<br><small>{as_html(self.note)}</small>" if self.note else ""
        return (
            f'<div style="border-left:4px solid {COLOURS[self.outcome]};padding:2px 12px;max-width:48em">'
            f"<b>{SYMBOLS[self.outcome]}</b> {as_html(self.message)}{note}</div>"
        )


class Exercise:
    """A check with its id, title, minutes and difficulty (1 to 3). Call it with the learner's answer."""

    kind = "exercise"

    def __init__(
        self, check: Callable, id: str, title: str, minutes: int, difficulty: int, seconds: float
    ) -> None:
        functools.update_wrapper(self, check)
        self.check = check
        self.id = progress.valid_id(id)
        if difficulty not in (1, 2, 3):
            raise ValueError(f"{id} has the difficulty {difficulty!r}: it should be 1, 2 or 3")
        self.title = title
        self.minutes = minutes
        self.difficulty = difficulty
        self.seconds = seconds

    def __repr__(self):
        return f"Exercise {self.id}: {self.title} ({self.minutes} min, difficulty {self.difficulty} of 3)"

    def __call__(self, answer):
        """Check `answer` and return a Result; AssertionError unless it is right where COURSE_STRICT=1."""
        outcome, message = self._judge(answer)
        note = "" if outcome == "not yet" else progress.record(self.id, done=outcome == "right")
        result = Result(self.id, outcome, message, note)
        if not result and os.environ.get("COURSE_STRICT") == "1":
            raise AssertionError(repr(result))
        return result

    def _judge(self, answer) -> tuple[str, str]:
        if answer is None or answer is Ellipsis:
            return "not yet", self._invitation()
        given = Answer(answer) if callable(answer) else copied(answer)
        success, error = run(self.check, given, self.seconds)
        if error is None:
            return "right", success
        if isinstance(error, Mistake):
            return "wrong", str(error)
        frame = learner_frame(error, answer, self.check) if isinstance(given, Answer) else None
        # torch raises NotImplementedError too: only the learner's own `raise` says "not started".
        own_raise = isinstance(error, NotImplementedError) and frame is not None and frame.innermost
        if isinstance(error, NotYet) or own_raise:
            return "not yet", self._invitation()
        inputs = _lower(described(given.inputs)) if isinstance(given, Answer) else f"({code(show(answer))})"
        if frame:
            return "wrong", f"Your function raised {_sentence(error)} on {_place(frame, answer)} {inputs}."
        return "wrong", f"The check cannot use your answer {inputs}: it stopped with {_sentence(error)}."

    def _invitation(self):
        return (
            f"not yet: {self.title}. Write your answer in the cell above, run it, then run this cell again."
        )


def _sentence(error):
    """ "TypeError: can only add numbers": the first line of what Python would print last."""
    lines = str(error).strip().splitlines()
    text = f": {lines[0][:200].rstrip('.')}" if lines else ""
    return f"{type(error).__name__}{text}"


def _place(frame, answer):
    where = f"line {frame.line}" + (f" ({code(frame.source)})" if frame.source else "")
    return where if frame.function == getattr(answer, "__name__", "") else f"{where} in `{frame.function}`"


def _lower(text):
    return text[0].lower() + text[1:]


def exercise(
    id: str, *, title: str, minutes: int, difficulty: int, seconds: float = 10
) -> Callable[[Callable], Exercise]:
    """Turn a check into an Exercise.

    The check takes the learner's answer, raises Mistake with the sentence that names the mistake, and
    returns the sentence that says what a right answer proves. `minutes` is what a learner needs,
    `difficulty` 1 to 3, `seconds` the time limit of the learner's code. ValueError for a wrong id or
    difficulty.
    """
    return lambda check: Exercise(check, id, title, minutes, difficulty, seconds)
