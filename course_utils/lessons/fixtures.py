"""What several lessons' checks and proofs run on: tiny models, three prompts, generate() without its messages."""

import contextlib
import functools
import logging
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

from ..models import load

# Three lengths in GPT-2's vocabulary: a batch of them needs padding.
SENTENCES = ("It will rain in the", "I want to eat a big bowl of", "My dog is")


@functools.cache
def tiny(name: str = "tiny-gpt2") -> tuple[Any, Any]:
    """A tiny random model and its tokenizer, loaded once for all checks: as `load` returns them."""
    return load(name)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within it transformers logs errors only, and warnings that are about the call (UserWarning) are ignored.

    Deprecations are no UserWarning: they are heard.
    """
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        log.setLevel(level)


def usable(check, yours, ours, name):
    """`yours`, a learner's function, if it passes `check`, else `ours`. Prints which; never raises.

    name: str, of the learner's function. The lesson gives the result another name, so that the cell can be run again.
    """
    whose = (
        f"your {name}()."
        if passes(check, yours)
        else f"the course's own until your {name}() passes its check."
    )
    print(f"The cells below run on {whose}")
    return yours if whose.startswith("your") else ours


def passes(check, yours):
    """Whether a learner's function passes a check: bool; never raises."""
    try:
        return bool(check(yours))
    except AssertionError:  # COURSE_STRICT=1: the check's own cell has reported it
        return False


class _OnThePage(logging.Handler):
    """Prints what transformers logs; of the same message several times in a row only the first."""

    said = None

    def emit(self, record):
        self.say(record.getMessage())

    def say(self, text):
        if text != self.said:
            self.said = text
            print(textwrap.fill(f"transformers says: {text}", 110))

    def forget(self):
        """Let transformers say again what it says once in a kernel."""
        from transformers.utils import logging as library_log

        self.said = None
        library_log.warning_once.cache_clear()


def warnings_on_the_page():
    """Have transformers' log and its warnings printed where its calls stand. Returns the handler."""
    from transformers.utils import logging as library_log

    page = _OnThePage()
    library_log.disable_default_handler()
    library_log.add_handler(page)
    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = lambda message, *place, **more: page.say(str(message))
    return page
