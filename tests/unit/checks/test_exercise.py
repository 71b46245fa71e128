import contextvars
import re
import subprocess
import sys
import threading
import time

import numpy
import pytest
import torch

from course_utils.checks import progress, sandbox
from course_utils.checks.compare import as_html, copied, difference, show
from course_utils.checks.exercise import Mistake, exercise, expect_close, expect_equal
from prove import prove_exercise


@pytest.fixture(autouse=True)
def learner(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("COURSE_STRICT", raising=False)


@exercise("01/merge", title="Merge one pair everywhere", minutes=8, difficulty=2)
def merge(answer):
    """The example of the module's docstring."""
    for parts, pair, want, wrong in [
        (["h", "e", "l", "l", "o"], ("l", "l"), ["h", "e", "ll", "o"], ["h", "e", "ll", "l", "o"]),
        (["a", "a", "a"], ("a", "a"), ["aa", "a"], ["aa", "aa"]),
    ]:
        expect_equal(
            answer(parts, pair),
            want,
            (parts, pair),
            "Go through the parts from left to right.",
            mistakes=[
                (wrong, "After a merge, move on by two parts."),
                (parts, "Nothing was merged: compare both parts with the pair."),
            ],
        )
    return "Every pair is merged, from left to right."


def merged(parts, pair):
    result = []
    for part in parts:
        if result and (result[-1], part) == pair:
            result[-1] += part
        else:
            result.append(part)
    return result


def wrap(check, **options):
    return exercise("01/other", title="Another", minutes=1, difficulty=1, **options)(check)


def gives(want, *inputs, tolerance=None):
    """An exercise whose right answer, called with `inputs`, gives `want`."""

    def check(answer):
        if tolerance is None:
            expect_equal(answer(*inputs), want, inputs)
        else:
            expect_close(answer(*inputs), want, inputs, tolerance=tolerance)
        return "Equal."

    return wrap(check)


# ---- what a learner reads ----------------------------------------------------------------------------


def merged_twice(parts, pair):
    result = []
    for here, after in zip(parts, [*parts[1:], None], strict=True):
        if (here, after) == pair:
            result.append(here + after)
        elif after is not None or not result or result[-1] != "".join(pair):
            result.append(here)
    return result


def test_check_is_proven():
    prove_exercise(
        merge,
        right=[merged, lambda parts, pair: merged(list(parts), pair)],
        wrong=[(merged_twice, "move on by two"), (lambda parts, pair: parts, "Nothing was merged")],
    )


def test_right():
    result = merge(merged)
    assert repr(result) == "✔ Every pair is merged, from left to right."
    assert bool(result) and "✔" in result._repr_html_()
    assert progress.read()["01/merge"]["done"]


def test_known_mistake_is_named_with_the_values():
    result = merge(lambda parts, pair: parts)
    assert repr(result) == (
        "✘ Nothing was merged: compare both parts with the pair. For input `['h', 'e', 'l', 'l', 'o']`, "
        "`('l', 'l')` your result is `['h', 'e', 'l', 'l', 'o']`; expected `['h', 'e', 'll', 'o']`."
    )
    assert not result and progress.read()["01/merge"] | {"done": False} == progress.read()["01/merge"]


def stub(parts, pair):
    """Merge `pair` in `parts`."""
    raise NotImplementedError


def stub_of_dots(parts, pair):
    """Merge `pair` in `parts`."""


def stub_with_name(parts, pair):
    return None


def stub_half_done(parts, pair):
    parts = list(parts)
    raise NotImplementedError("later")


@pytest.mark.parametrize("answer", [None, ..., stub, stub_of_dots, stub_with_name, stub_half_done])
def test_untouched_is_not_yet(answer):
    result = merge(answer)
    assert repr(result).startswith("… not yet: Merge one pair everywhere.")
    assert not result and progress.read() == {}


def test_result_of_dots_is_not_yet():
    assert merge(lambda parts, pair: ...).outcome == "not yet"


def without_return(parts, pair):
    parts = merged(parts, pair)

    def inner():
        return parts


def test_missing_return_is_named():
    assert "your function returns None: its `return` is missing" in merge(without_return).message


def changes(parts, pair):
    parts.append("x")
    return merged(parts[:-1], pair)


def test_changed_input_is_named():
    parts = ["l", "l"]
    result = wrap(lambda answer: str(answer(parts, ("l", "l"))))(changes)
    assert "changes its input: `['l', 'l']` has become `['l', 'l', 'x']`" in result.message
    assert parts == ["l", "l"]


def test_changed_tensor_is_named():
    def zero(mask):
        mask[0] = 0
        return mask

    mask = torch.ones(2)
    assert "`tensor([1.0, 1.0])` has become `tensor([0.0, 1.0])`" in wrap(lambda a: a(mask))(zero).message
    assert mask.tolist() == [1, 1]


def raises(parts, pair):
    return parts + pair


def helper(parts):
    raise KeyError("deep")


def raises_in_helper(parts, pair):
    return helper(parts)


def test_error_in_the_learners_code_is_placed():
    line = raises.__code__.co_firstlineno + 1
    assert repr(merge(raises)) == (
        '✘ Your function raised TypeError: can only concatenate list (not "tuple") to list on line '
        f"{line} (`return parts + pair`) for input `['h', 'e', 'l', 'l', 'o']`, `('l', 'l')`."
    )
    found = merge(raises_in_helper).message
    assert "KeyError: 'deep' on line" in found and "in `helper`" in found


def test_librarys_not_implemented_is_an_error_not_an_untouched_stub():
    def learner(x):
        return x.new_empty(1, device="meta").item()

    def library(x):
        return library_function(x)

    source = "def library_function(x):\n    raise NotImplementedError('no kernel')"
    exec(compile(source, "lib.py", "exec"), namespace := {})
    library_function = namespace["library_function"]
    assert "NotImplementedError: no kernel" in wrap(lambda answer: answer(torch.ones(1)))(library).message
    assert wrap(lambda answer: answer(torch.ones(1)))(learner).outcome == "wrong"


@pytest.mark.parametrize("leave", [SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError])
def test_no_exception_gets_out(leave):
    def learner(parts, pair):
        raise leave

    assert leave.__name__ in merge(learner).message


def test_wrong_def_line():
    assert "Keep the `def` line" in merge(lambda parts: parts).message


def test_check_that_cannot_use_an_answer_says_so():
    result = wrap(lambda answer: answer("x")[0])(lambda x: 5)
    assert result.message == (
        "The check cannot use your answer for input `'x'`: it stopped with TypeError: 'int' object is not "
        "subscriptable."
    )
    assert "(`3`)" in wrap(lambda answer: answer + "a")(3).message


# ---- time, threads, printing -------------------------------------------------------------------------


HANG = 600  # seconds after which something that must happen has failed to; nothing is measured with it


@pytest.fixture
def patient(monkeypatch):
    """However busy the machine is, a thread that can be stopped is waited for."""
    monkeypatch.setattr(sandbox, "_GRACE", HANG)


def threads_end():
    """Wait until no check runs any more: whether that happened."""
    threads = [thread for thread in threading.enumerate() if thread.name == "exercise"]
    for thread in threads:
        thread.join(HANG)
    return not any(thread.is_alive() for thread in threads)


class Clocks:
    """Stands in for `time` where the limit is kept: its clocks move when a test says so."""

    def __init__(self, monkeypatch):
        self.passed = self.computed = 0.0
        self._looks = 0
        spent = sandbox.Answer.spent

        def counted(answer):
            seconds = spent(answer)
            self._looks += 1
            return seconds

        monkeypatch.setattr(sandbox, "time", self)
        monkeypatch.setattr(sandbox.Answer, "spent", counted)

    def monotonic(self):
        return self.passed

    def process_time(self):
        return self.computed

    def looked(self):
        """Wait until the clocks have been looked at, in short naps: between them a thread can be stopped."""
        enough = self._looks + 2  # the first look may have begun before the clocks moved
        while self._looks < enough:
            time.sleep(0.01)


def test_endless_loop_is_stopped(patient):
    def endless(parts, pair):
        while parts:
            pair = pair

    result = exercise("01/merge", title="Merge", minutes=1, difficulty=1, seconds=0.2)(merge.check)(endless)
    assert "`('l', 'l')` your function was still running after 0.2 seconds" in result.message
    assert "restart" not in result.message and threads_end()


def test_endless_generator_is_stopped(patient):
    def endless():
        while True:
            yield 1

    assert "still running" in wrap(lambda answer: sum(answer()) and "", seconds=0.2)(endless).message
    assert threads_end()


def test_what_cannot_be_stopped_is_left_behind(monkeypatch):
    monkeypatch.setattr(sandbox, "_GRACE", 0.01)
    woken = threading.Event()
    result = wrap(lambda answer: answer(), seconds=0.01)(woken.wait)
    assert "restart the kernel" in result.message
    woken.set()
    assert threads_end()


# Seconds that pass and seconds in which the process computes, of 10 allowed; whether that is too long.
TIMES = [(9, 9, False), (11, 11, True), (55, 2, False), (61, 0, True), (9, 40, False), (12, 40, True)]


@pytest.mark.parametrize(("passed", "computed", "stopped"), TIMES)
def test_what_counts_is_the_time_in_which_this_process_computed(
    passed, computed, stopped, monkeypatch, patient
):
    clocks = Clocks(monkeypatch)

    def slow():
        clocks.passed, clocks.computed = passed, computed
        clocks.looked()
        return 3

    result = wrap(lambda answer: f"Gave {answer()}.", seconds=10)(slow)
    assert ("still running after 10 seconds" in result.message) == stopped
    assert (result.message == "Gave 3.") != stopped and threads_end()


def test_time_of_the_check_itself_does_not_count(monkeypatch):
    clocks = Clocks(monkeypatch)

    def slow_check(answer):
        for _ in range(3):
            clocks.passed = clocks.computed = clocks.passed + 100
            clocks.looked()
            given = answer()
        return f"Gave {given}."

    assert wrap(slow_check, seconds=0.2)(lambda: 3).message == "Gave 3."


@pytest.mark.parametrize(("calls", "outcome"), [(2, "right"), (3, "wrong")])
def test_time_of_several_calls_adds_up(calls, outcome, monkeypatch, patient):
    clocks = Clocks(monkeypatch)

    def slow():
        clocks.passed = clocks.computed = clocks.passed + 4
        clocks.looked()
        return 3

    check = wrap(lambda answer: f"Gave {[answer() for _ in range(calls)]}.", seconds=10)
    assert check(slow).outcome == outcome


def test_generators_come_through():
    def count(n):
        yield from range(n)
        return "end"

    assert wrap(lambda answer: f"{list(answer(3))}.")(count).message == "[0, 1, 2]."


def test_printing_and_context_come_through(capsys):
    place = contextvars.ContextVar("place", default="nowhere")
    place.set("this cell")

    def prints(parts, pair):
        print("look", place.get())
        return merged(parts, pair)

    assert merge(prints)
    assert capsys.readouterr().out == "look this cell\n" * 2


def test_gradient_mode_comes_through():
    def mode():
        return torch.is_grad_enabled()

    seen = wrap(lambda answer: f"{answer()}.")
    assert seen(mode).message == "True."
    with torch.no_grad():
        assert seen(mode).message == "False."
        assert not torch.is_grad_enabled()


def test_interrupt_stops_the_learners_code():
    code = (
        "import _thread, signal, threading\n"
        "from course_utils.checks import sandbox\n"
        "from course_utils.checks.exercise import exercise\n"
        # A program that a shell started in the background ignores this signal, and so do those it starts.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sandbox._GRACE = {HANG}\n"
        "def endless():\n"
        "    _thread.interrupt_main()\n"
        "    while True: pass\n"
        "try:\n"
        "    exercise('01/x', title='x', minutes=1, difficulty=1)(lambda answer: answer())(endless)\n"
        "except KeyboardInterrupt:\n"
        "    threads = [t for t in threading.enumerate() if t.name == 'exercise']\n"
        f"    [t.join({HANG}) for t in threads]\n"
        "    print('interrupted', [t for t in threads if t.is_alive()])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG)
    assert done.stdout == "interrupted []\n", done.stderr


@pytest.mark.parametrize("begins", [False, True])
def test_an_interrupt_while_the_thread_is_started_lets_nothing_run_on(begins, monkeypatch, patient):
    class Thread(threading.Thread):
        def start(self):
            if begins:
                super().start()
                begun.wait(HANG)
            threads.append(self)
            raise KeyboardInterrupt

    def endless():
        begun.set()
        while True:
            pass

    begun, threads = threading.Event(), []
    with monkeypatch.context() as patch:
        patch.setattr(sandbox.threading, "Thread", Thread)
        with pytest.raises(KeyboardInterrupt):
            wrap(lambda answer: answer())(endless)
    if not begins:  # it was on its way, and begins only now
        threading.Thread.start(threads[0])
    assert threads_end()
    assert begun.is_set() == begins


# ---- strictness and progress -------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, stub, raises, lambda parts, pair: parts])
def test_strict_raises_the_same_text(answer, monkeypatch):
    text = repr(merge(answer))
    monkeypatch.setenv("COURSE_STRICT", "1")
    with pytest.raises(AssertionError) as error:
        merge(answer)
    assert str(error.value) == text
    assert merge(merged)


def test_trouble_with_progress_is_one_more_sentence(tmp_path, monkeypatch):
    (tmp_path / "progress.json").write_text("{")
    result = merge(merged)
    assert result and re.fullmatch(r"✔ Every.*\.\n\(Your progress file could not be read: .*\)", repr(result))
    assert "could not be read" in result._repr_html_()
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json" / "inside a file"))
    assert merge(merged) and "was not saved" in merge(merged).note


# ---- values ------------------------------------------------------------------------------------------


def test_answers_that_are_no_functions_are_copies():
    answer = [1, 2]

    def check(answer):
        expect_equal(answer, [1, 2], "the list")
        answer.append(3)
        return "A list."

    assert wrap(check)(answer) and answer == [1, 2]
    assert wrap(check)([2]).message == "For the list your result is `[2]`; expected `[1, 2]`."


def test_copies_are_deep_and_models_are_not_copied():
    weight = torch.ones(2, requires_grad=True)
    value = {"a": [(1, {2}), bytearray(b"x")], "t": weight, "n": numpy.ones(2), "m": torch.nn.Linear(1, 1)}
    copy = copied(value)
    assert difference(copy["a"], value["a"]) is None and copy["m"] is value["m"]
    assert copy["t"].requires_grad and copy["t"] is not weight
    copy["a"][0][1].add(5)
    copy["a"][1].append(1)
    copy["n"][0] = 7
    assert value["a"] == [(1, {2}), bytearray(b"x")] and value["n"].tolist() == [1, 1]


SAME = [
    (1, 1), (True, True), ("a", "a"), ([1, (2,)], [1, (2,)]), ({"a": {1}}, {"a": {1}}),
    (float("nan"), float("nan")),
    (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")])), (numpy.ones(2), numpy.ones(2)),
    (torch.nn.Parameter(torch.ones(1)), torch.ones(1)), (1, 1.0), (numpy.int64(3), 3), (None, None),
    (b"a", b"a"),
    (torch.tensor([float("inf")]), torch.tensor([float("inf")])), (torch.tensor(True), torch.tensor(True)),
    (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
]  # fmt: skip


@pytest.mark.parametrize(("got", "want"), SAME)
def test_same(got, want):
    assert difference(got, want) is None


DIFFERENT = [
    (1, 2, "got 1, expected 2"),
    (True, 1, "got True or False, expected a number"),
    ((1, 2), [1, 2], "got a tuple, expected a list"),
    (None, [1], "got None, expected a list"),
    ([1, 3], [1, 2], "at index 1 it has 3, expected 2"),
    ([[1], [3]], [[1], [2]], "at index 1: at index 0 it has 3, expected 2"),
    ([1], [1, 2], "it has 1 item, expected 2"),
    ({"a": 1}, {"b": 1}, "it has no 'b'"),
    ({"a": 1, "b": 1}, {"a": 1}, "it has 'b', which does not belong there"),
    ({"a": 1}, {"a": 2}, "for 'a' it has 1, expected 2"),
    ([1], torch.tensor([1]), "got a list, expected a tensor"),
    (torch.tensor(1), 1, "got a tensor, expected a number"),
    (torch.ones(1), numpy.ones(1), "got a tensor, expected an array"),
    (torch.ones(2, 1), torch.ones(2), "its shape is (2, 1), expected (2,)"),
    (torch.ones(2), torch.ones(2).long(), "its type is float32, expected int64"),
    (
        torch.tensor([[1, 2], [3, 5]]),
        torch.tensor([[1, 2], [3, 4]]),
        "1 of 4 numbers differ, the first at [1, 1]: got 5, expected 4",
    ),
    (torch.tensor(1.5), torch.tensor(2.5), "1 of 1 numbers differ, the first at []: got 1.5, expected 2.5"),
    (
        torch.tensor([True]),
        torch.tensor([False]),
        "1 of 1 numbers differ, the first at [0]: got True, expected False",
    ),
    (0.5, 0.25, "got 0.5, expected 0.25"),
]


@pytest.mark.parametrize(("got", "want", "text"), DIFFERENT)
def test_difference_is_named(got, want, text):
    assert difference(got, want) == text


def test_what_cannot_be_shown_does_not_break_a_check():
    result = wrap(lambda answer: answer + "x")(torch.ones(2, device="meta"))
    assert "a value of type Tensor" in result.message


def test_tolerance():
    assert gives(0.5, tolerance=1e-3)(lambda: numpy.float32(0.5004))
    assert gives(0.5, tolerance=1e-3)(lambda: 0.5004)
    assert not gives(0.5, tolerance=1e-3)(lambda: 0.502)
    assert gives(torch.ones(2), tolerance=1e-3)(lambda: torch.ones(2) + 1e-4)
    assert not gives(torch.ones(2))(lambda: torch.ones(2) + 1e-4)


def test_long_values_are_short_in_messages():
    message = gives(torch.zeros(100, 3), list(range(1000)), "x" * 500)(
        lambda a, b: torch.ones(100, 3)
    ).message
    assert len(message) < 500
    assert "tensor of shape (100, 3) and type float32" in message
    assert "300 of 300 numbers differ, the first at [0, 0]: got 1.0, expected 0.0" in message


def test_short_values_are_exact():
    assert show(torch.tensor([[1, 2], [3, 4]])) == "tensor([[1, 2], [3, 4]])"
    assert show([15496, 995]) == "[15496, 995]" and show("Ġworld\n") == r"'Ġworld\n'"
    assert show(torch.nn.Sequential(torch.nn.Linear(1, 1))) == "Sequential(...)"  # no page of modules
    assert show(0.1 + 0.2) == "0.30000000000000004" and show([]) == "[]"


def test_mistake_raised_by_a_detector_does_not_break_the_check():
    def check(answer):
        expect_equal(answer(), "text", (), mistakes=[(lambda got: got.strip(), "never"), (None, "no such")])

    assert wrap(check)(lambda: 3).message == "Without input your result is `3`; expected `'text'`."


def test_html_escapes_and_shows_code():
    def check(answer):
        raise Mistake("Not `<b>` but `` ` `` <img src=x onerror=alert(1)>, ` x`.")

    shown = wrap(check)(1)._repr_html_()
    assert "<code>&lt;b&gt;</code>" in shown and "<code>&nbsp;x</code>" in shown
    assert "<img" not in shown and "<script" not in shown
    assert as_html("`` `a` ``") == "<code>&nbsp;`a`&nbsp;</code>"


def test_repr_names_the_exercise():
    assert repr(merge) == "Exercise 01/merge: Merge one pair everywhere (8 min, difficulty 2 of 3)"
    with pytest.raises(ValueError, match="not an id"):
        exercise("merge", title="", minutes=1, difficulty=1)(lambda answer: "")


def test_difficulty_is_one_to_three():
    for difficulty in (1, 2, 3):
        made = exercise("01/merge", title="", minutes=1, difficulty=difficulty)(lambda answer: "")
        assert f"difficulty {difficulty} of 3" in repr(made)
    for difficulty in (0, 4, 5, None):
        message = f"01/merge has the difficulty {difficulty}: it should be 1, 2 or 3"
        with pytest.raises(ValueError, match=message):
            exercise("01/merge", title="", minutes=1, difficulty=difficulty)(lambda answer: "")


def test_prove_exercise_can_fail():
    with pytest.raises(AssertionError, match="rejects"):
        prove_exercise(merge, right=[raises], wrong=[])
    with pytest.raises(AssertionError, match="takes merged for right"):
        prove_exercise(merge, right=[merged], wrong=[(merged, "x")])
    with pytest.raises(AssertionError, match="says to"):
        prove_exercise(merge, right=[merged], wrong=[(raises, "no such words")])
    same = [(raises, "Your function raised"), (raises_in_helper, "Your function raised")]
    with pytest.raises(AssertionError, match="2 messages hold"):
        prove_exercise(merge, right=[merged], wrong=same)
    with pytest.raises(AssertionError, match="no sentence"):
        prove_exercise(wrap(lambda answer: answer(1) and None), right=[lambda x: x], wrong=[])
