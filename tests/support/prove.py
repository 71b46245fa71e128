"""Prove a lesson's checks and questions, so that no learner meets a check that is wrong.

from prove import prove_exercise, prove_questions

prove_exercise(
    lesson01.merge,
    right=[merge, merge_with_iterator],
    wrong=[(merge_twice, "go on two places"), (merge_nothing, "nothing was merged")],
)
prove_questions(lesson01)
"""

import os
import re
import tempfile
from contextlib import contextmanager
from unittest import mock

from course_utils.checks.progress import items_of


@contextmanager
def private_progress(strict=False):
    """Inside, progress has a file of its own, and `strict` is what counts, not the environment."""
    with tempfile.TemporaryDirectory() as folder:
        changes = {"COURSE_PROGRESS": os.path.join(folder, "progress.json"), "COURSE_STRICT": "01"[strict]}
        with mock.patch.dict(os.environ, changes):
            yield


def stub(*args, **kwargs):
    """An exercise as the learner finds it."""
    raise NotImplementedError


def prove_exercise(exercise, right, wrong):
    """Assert what a check says to right answers, to wrong ones and to none.

    `right` are answers that must pass. `wrong` are pairs of an answer and of words from the message that
    names its mistake (upper and lower case are the same); no other wrong answer's message may hold them.
    """
    untouched = [None, ..., *([stub] if callable(right[0]) else [])]
    with private_progress():
        for answer in untouched:
            assert exercise(answer).outcome == "not yet", (
                f"{exercise.id} does not see that {answer} is untouched"
            )
        for answer in right:
            result = exercise(answer)
            assert result.outcome == "right", f"{exercise.id} rejects {_name(answer)}: {result}"
            assert isinstance(result.message, str), f"{exercise.id} returns no sentence on success"
            assert re.search(r"\w.*[.!]$", result.message), f"{exercise.id}: no sentence: {result.message!r}"
        messages = []
        for answer, words in wrong:
            result = exercise(answer)
            assert result.outcome == "wrong", (
                f"{exercise.id} takes {_name(answer)} for {result.outcome}: {result}"
            )
            assert words.lower() in result.message.lower(), f"{exercise.id} says to {_name(answer)}: {result}"
            messages.append(result.message.lower())
        for _, words in wrong:
            found = sum(words.lower() in message for message in messages)
            assert found == 1, (
                f"{exercise.id}: {found} messages hold {words!r}, which should name one mistake"
            )
    with private_progress(strict=True):
        assert exercise(right[0]), f"{exercise.id} is not strict in the same way"
        for answer in [*untouched, *(answer for answer, _ in wrong)]:
            try:
                exercise(answer)
            except AssertionError:
                continue
            raise AssertionError(f"{exercise.id} does not raise for {_name(answer)} with COURSE_STRICT=1")


def prove_questions(module):
    """Assert that a lesson's questions and predictions are sound: proofs give the keys, ids are its own.

    Returns the ids of those that have a proof.
    """
    lesson = re.search(r"\d\d$", module.__name__)[0]
    items = items_of(module)
    ids = [item.id for item in items]
    assert len(set(ids)) == len(ids), f"ids that stand twice: {sorted({i for i in ids if ids.count(i) > 1})}"
    assert all(i.startswith(f"{lesson}/") for i in ids), f"ids of another lesson: {ids}"
    questions = [item for item in items if item.kind != "exercise"]
    for question in questions:
        question.prove()
    keys = [question.key for question in questions if question.kind == "quiz" and not question.several]
    assert len(keys) < 3 or len(set(keys)) > 1, (
        f"the right option always stands at {keys[0]}: rename a question"
    )
    return [question.id for question in questions if question.proof is not None]


def _name(answer):
    return getattr(answer, "__name__", repr(answer))
