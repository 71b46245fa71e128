"""Quiz and Predict: questions that are answered in the page, with or without a kernel.

What is asked is data in `course_utils.checks`. The page shows it and judges the answer, so that a saved
notebook works too; with a kernel the answers also reach the learner's progress.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import traitlets

from ...checks import progress
from ...checks.compare import as_html
from ...checks.quiz import NumberPrediction, Prediction, Question
from ...errors import CourseError
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_RUN = "Run this cell to answer."


class _Questions(CourseWidget):
    """What both widgets share.

    content: bytes, JSON of the questions with their explanations
    given: dict, the learner's answers by id: {"chosen": [int, ...] or "number": float, "tries": int}
    note: str, one sentence if an answer could not be kept
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    content = traitlets.Bytes().tag(sync=True)
    given = traitlets.Dict().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)

    def __init__(self, questions: Iterable[Question | NumberPrediction]) -> None:
        self._questions: dict[str, Any] = {question.id: question for question in questions}
        predict = isinstance(self, Predict)
        content = {"predict": predict, "questions": [_as_json(question) for question in questions]}
        # Bytes travel as base64: whoever scrolls through the saved notebook does not read the answers.
        super().__init__(content=json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())
        self.observe(self._keep, "given")

    def _record(self, question, answer) -> str:
        """Keep one answer: "", or one sentence if that failed."""
        raise NotImplementedError

    def _keep(self, change):
        for name, answer in change.new.items():
            if answer != change.old.get(name):
                self.note = self._record(self._questions[name], answer)

    def summary(self) -> str:
        lines = []
        for number, question in self._numbered():
            lines.append(f"{number}{question.text}")
            lines += [f"   {_box(question)} {option.text}" for option in _options(question)]
            if not _options(question):
                lines.append(f"   ____ {question.unit}".rstrip())
        return "\n".join([*lines, _RUN])

    def still(self) -> str:
        parts = []
        for number, question in self._numbered():
            parts.append(f"<p><strong>{number}{as_html(question.text)}</strong></p>")
            options = "".join(f"<li>{as_html(option.text)}</li>" for option in _options(question))
            parts.append(f"<ul>{options}</ul>" if options else f"<p>____ {as_html(question.unit)}</p>")
        return "".join([*parts, f"<p><em>{_RUN}</em></p>"])

    def _numbered(self):
        questions = self._questions.values()
        return [(f"{n}. " if len(questions) > 1 else "", question) for n, question in enumerate(questions, 1)]


class Quiz(_Questions):
    """Questions that may be answered again until they are right; each option is explained after a check.

    Quiz(lesson01.quiz)

    questions: an iterable of `course_utils.checks.quiz.Question`
    Raises CourseError for anything else.
    """

    def __init__(self, questions: Question | Sequence[Question]) -> None:
        asked: list[Any] = list(questions) if isinstance(questions, list | tuple) else [questions]
        if not asked or not all(type(question) is Question for question in asked):
            raise CourseError("Quiz shows a lesson's questions: write Quiz(lesson01.quiz).")
        super().__init__(asked)

    def _record(self, question, answer):
        return progress.record(question.id, done=question.is_right(answer["chosen"]))


class Predict(_Questions):
    """A guess that is committed before the cell that settles it, and compared afterwards.

    Predict(lesson01.predict_space)

    prediction: `course_utils.checks.quiz.Prediction` or `NumberPrediction`
    Raises CourseError for anything else.
    """

    def __init__(self, prediction: Prediction | NumberPrediction) -> None:
        if not isinstance(prediction, Prediction | NumberPrediction):
            raise CourseError("Predict shows one prediction: write Predict(lesson01.predict_space).")
        super().__init__([prediction])

    def _record(self, prediction, answer):
        guess = answer["number"] if "number" in answer else answer["chosen"]
        return progress.record(prediction.id, done=True, right=prediction.is_right(guess), guess=guess)


def _options(question):
    return getattr(question, "options", ())


def _box(question):
    return "☐" if question.several else "○"


def _as_json(question):
    common = {"id": question.id, "text": question.text}
    if isinstance(question, NumberPrediction):
        names = ("key", "tolerance", "unit", "why", "wrong", "otherwise")
        return common | {name: getattr(question, name) for name in names}
    options = [[option.text, option.why, option.right] for option in question.options]
    return common | {"several": question.several, "options": options}
