"""Run a learner's function so that nothing it does can break a check.

Each call gets copies of its inputs. The check runs in a thread of its own, and the time spent in the
learner's code is limited: a Python loop is stopped at its next step. A call into C that never returns
cannot be stopped from outside; the check still answers, and the thread ends with the kernel. Signals
would stop it, but they do not exist in this form on Windows.

Time on a busy machine is not the learner's fault, so what counts is the time in which this process computed.
Where several threads compute at once that can be more than has passed, and then what has passed counts.
"""

import ast
import contextlib
import contextvars
import ctypes
import functools
import inspect
import linecache
import sys
import textwrap
import threading
import time
import types
from typing import Any, NamedTuple

from .compare import Mistake, code, copied, described, difference, show

_GRACE = 1.0  # seconds in which a thread that is told to stop should end
_PATIENCE = 6  # code that only waits is stopped as well: its time counts a sixth


class NotYet(Exception):
    """The exercise has not been started."""


class _Stopped(SystemExit):
    """Raised in the learner's thread when its time is up. No `except Exception` catches it, and a thread
    that ends with a SystemExit prints nothing."""


class Answer:
    """A learner's function as a check sees it: call it like the original.

    The inputs of a call are copies. Raises NotYet for a result of None or Ellipsis from a stub, and
    Mistake if a `return` is missing or if the function has changed its inputs. `inputs` are those of the
    latest call; `original` is the learner's object.
    """

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.original = function
        self.inputs = ()
        # Seconds passed and computed in calls that have ended, and the clocks when the running one began: one
        # attribute, since another thread may read it at any moment.
        self._time = (0.0, 0.0, None)

    def __call__(self, *args, **kwargs):
        self.inputs = (*args, *kwargs.values())
        self._reject_signature(args, kwargs)
        given_args, given_kwargs = copied(args), copied(kwargs)
        with self._timed():
            result = self.original(*given_args, **given_kwargs)
        self._reject_changed((*given_args, *given_kwargs.values()))
        if result is Ellipsis or result is None:
            self._reject_empty(result)
        return self._stepped(result) if isinstance(result, types.GeneratorType) else result

    def spent(self):
        """Seconds spent in the learner's code so far, a running call included."""
        passed, computed = self._clocks()
        return max(min(passed, computed), passed / _PATIENCE)

    def _clocks(self):
        passed, computed, entered = self._time
        if entered is None:
            return passed, computed
        return passed + time.monotonic() - entered[0], computed + time.process_time() - entered[1]

    @contextlib.contextmanager
    def _timed(self):
        self._time = (*self._clocks(), (time.monotonic(), time.process_time()))
        try:
            yield
        finally:
            self._time = (*self._clocks(), None)

    def _stepped(self, generator):
        """The learner's generator, each of whose steps counts as time in the learner's code."""
        while True:
            with self._timed():
                try:
                    item = next(generator)
                except StopIteration as stop:
                    return stop.value
            yield item

    def _reject_signature(self, args, kwargs):
        try:
            signature = inspect.signature(self.original)
        except (ValueError, TypeError):
            return
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise Mistake(
                f"Your function cannot be called with the inputs it is meant for: {error}. "
                "Keep the `def` line that the exercise gave you."
            ) from None

    def _reject_changed(self, after):
        for before, now in zip(self.inputs, after, strict=True):
            if difference(now, before) is not None:
                raise Mistake(
                    f"Your function changes its input: {_change(before, now)}. "
                    "The caller still needs the old value: build a new one and return that."
                )

    def _reject_empty(self, result):
        body = _body(self.original)
        if result is Ellipsis or body is None or all(_is_stub(statement) for statement in body):
            raise NotYet
        if not any(_returns_value(statement) for statement in body):
            raise Mistake(f"{described(self.inputs)} your function returns None: its `return` is missing.")


def _change(before, now):
    """What has become of an input, in words; of a dict, what stands under the keys that have changed."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in before if key not in now or difference(now[key], before[key]) is not None]
        keys += [key for key in now if key not in before]
        return f"the dict that it was given has something else under {', '.join(map(code, map(show, keys)))}"
    return f"{code(show(before))} has become {code(show(now))}"


def _body(function):
    """The statements of `function` without its docstring, or None where its source cannot be found."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    if not isinstance(tree, ast.FunctionDef):
        return None
    return tree.body[1:] if ast.get_docstring(tree) is not None else tree.body


def _is_stub(statement):
    """`pass`, `...`, `x = None` and `return x`: what an unanswered cell consists of."""
    value = getattr(statement, "value", None)
    empty = value is None or (isinstance(value, ast.Constant) and value.value in (None, Ellipsis))
    if isinstance(statement, ast.Return):
        return empty or isinstance(value, ast.Name)
    return isinstance(statement, ast.Pass | ast.Raise) or (
        isinstance(statement, ast.Expr | ast.Assign | ast.AnnAssign) and empty
    )


def _returns_value(node):
    """Whether `return <something>` or `yield` stands in `node`, outside functions defined in it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        return False
    if isinstance(node, ast.Return) and node.value is not None:
        return True
    return isinstance(node, ast.Yield | ast.YieldFrom) or any(map(_returns_value, ast.iter_child_nodes(node)))


def run(check, answer, limit) -> tuple[Any, BaseException | None]:
    """Call `check(answer)` in a thread and return its value and its exception, one of them None.

    `limit` is in seconds of the learner's own code; when it is over, the exception is a Mistake. If the
    waiting cell is interrupted, the thread is stopped and the interrupt goes on.
    """
    outcome = {}
    interrupted = threading.Event()
    # Not thread.join: interrupted, it takes a running thread for ended (Python 3.11).
    finished = threading.Event()
    context = contextvars.copy_context()  # ipykernel finds the cell that a print belongs to in here
    grad = _grad_mode()

    def work():
        try:
            if not interrupted.is_set():
                with grad:
                    outcome["value"] = context.run(check, answer)
        except BaseException as error:
            outcome["error"] = error
        finally:
            finished.set()

    thread = threading.Thread(target=work, name="exercise", daemon=True)
    try:
        thread.start()
        while not finished.wait(0.05):
            if isinstance(answer, Answer) and answer.spent() > limit:
                return None, _too_slow(answer, limit, stopped=_stop(thread, finished))
    except KeyboardInterrupt:
        interrupted.set()  # for a thread that has not begun yet
        _stop(thread, finished)
        raise
    return outcome.get("value"), outcome.get("error")


def _grad_mode():
    """The caller's gradient mode: torch keeps it for each thread."""
    torch = sys.modules.get("torch")
    return torch.set_grad_enabled(torch.is_grad_enabled()) if torch else contextlib.nullcontext()


def _stop(thread, finished):
    """Raise _Stopped in the thread if it has begun; whether it ended soon."""
    if thread.ident is None:
        return False
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_Stopped))
    return finished.wait(_GRACE)


def _too_slow(answer, limit, stopped):
    stuck = "" if stopped else " It could not be stopped: restart the kernel."
    return Mistake(
        f"{described(answer.inputs)} your function was still running after {limit:g} seconds. It was "
        f"interrupted. Look for a loop that never ends: what changes in each turn?{stuck}"
    )


class Frame(NamedTuple):
    """A place in the learner's code; `innermost` says whether the error was raised right there."""

    line: int
    source: str
    function: str
    innermost: bool


def learner_frame(error, function, check):
    """The last Frame of the learner's code that `error` came through, or None.

    The learner's code is the file or cell of `function` and every other notebook cell, without `check`.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    own = code.co_filename if code else None
    found = None
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        learners = code.co_filename == own or "ipykernel_" in code.co_filename
        if learners and code is not getattr(check, "__code__", None):
            source = linecache.getline(code.co_filename, trace.tb_lineno).strip()
            found = Frame(trace.tb_lineno, source, code.co_name, trace.tb_next is None)
        trace = trace.tb_next
    return found
