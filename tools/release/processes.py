"""Running programs: progress on anything over two seconds, and nothing left running after an interruption."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

POLL = 0.2  # seconds
QUIET = 2  # seconds before progress is shown
BETWEEN_LINES = 30  # seconds between two lines of progress where there is no terminal


@dataclass(frozen=True)
class Done:
    """How a program ended: its exit status, and what it wrote to stdout and stderr together."""

    status: int
    output: str


class Progress:
    """One line on stderr that is written anew; without a terminal, a line now and then."""

    def __init__(self, what: str, stream=None):
        self.what = what
        self.stream = stream or sys.stderr
        self.start = time.monotonic()
        self.last = None
        self.width = 0

    def show(self, detail: str = "") -> None:
        now = time.monotonic()
        terminal = self.stream.isatty()
        due = self.start + QUIET if self.last is None else self.last + (POLL if terminal else BETWEEN_LINES)
        if now < due:
            return
        self.last = now
        line = f"{self.what}{': ' if detail else ''}{detail}, {duration(now - self.start)}"
        if terminal:
            line = line[:110]
            print("\r" + line.ljust(self.width), end="", file=self.stream, flush=True)
            self.width = len(line)
        else:
            print(line, file=self.stream, flush=True)

    def end(self) -> None:
        if self.width:
            print("\r" + " " * self.width + "\r", end="", file=self.stream, flush=True)


def tracked(items, what: str):
    """The items of a list, with progress shown while they are gone through."""
    progress = Progress(what)
    try:
        for number, item in enumerate(items):
            progress.show(f"{number:,} of {len(items):,}")
            yield item
    finally:
        progress.end()


@contextlib.contextmanager
def undisturbed():
    """Another Ctrl-C does not cut the cleaning up short."""
    signs = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = [signal.signal(sign, signal.SIG_IGN) for sign in signs]
    try:
        yield
    finally:
        for sign, handler in zip(signs, handlers, strict=True):
            signal.signal(sign, handler)


def duration(seconds: float) -> str:
    """ "14 s", "3 min 20 s" """
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def run(command, *, what: str, log: Path, cwd=None, env=None, watch=None, stall=None) -> Done:
    """Run a program to its end.

    what:  for the line of progress. log: the file that takes what it writes. watch: called without arguments,
    returns what the line of progress says besides. stall: seconds without a change of that after which the
    program is stopped; its status is then -1.
    An interruption stops the program and all that it started, and goes on.
    """
    progress = Progress(what)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=os.name == "posix",
        )
        try:
            status = _wait(process, progress, watch, stall)
        finally:
            with undisturbed():
                stop(process)
            progress.end()
    return Done(status, log.read_text(encoding="utf-8", errors="replace"))


def _wait(process, progress, watch, stall):
    seen, changed = "", time.monotonic()
    while process.poll() is None:
        time.sleep(POLL)
        detail = watch() if watch else ""
        progress.show(detail)
        if detail != seen:
            seen, changed = detail, time.monotonic()
        if stall and time.monotonic() - changed > stall:
            return -1
    return process.returncode


def stop(process) -> None:
    """End a program and its children: Ctrl-C first, since pytest then closes its kernels."""
    if process.poll() is not None:
        return
    if os.name != "posix":
        process.kill()
        process.wait()
        return
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, sign)
        try:
            process.wait(timeout=10)
            break
        except subprocess.TimeoutExpired:
            continue
