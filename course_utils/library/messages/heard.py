"""Hear what a piece of code is told: its error, transformers' log, Python's warnings, what it prints."""

import contextlib
import io
import logging
import textwrap
import warnings
from collections.abc import Iterator

WIDTH = 108


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Print what the block is told, and go on after an error.

    An error is printed as Python ends a traceback, "ValueError: …". What transformers logs and what comes as
    a Python warning is printed as it is. The log says everything again that it says once in a kernel.
    """
    with _collected() as texts:
        try:
            yield
        except Exception as error:
            texts.append(as_text(error))
    for text in dict.fromkeys(texts):
        print(textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def told(code: str, names: dict) -> tuple[list[str], str]:
    """Run code quietly: what it is told and prints, list of str; its error as text, "" if it has none.

    names: dict, the names that the code may use; it may add to them
    """
    printed, error = io.StringIO(), ""
    with (
        _collected() as texts,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        try:
            exec(code, names)
        except Exception as raised:
            error = as_text(raised)
    return [text for text in (error, *texts, printed.getvalue().strip()) if text], error


def as_text(error: Exception) -> str:
    """An error as Python's tracebacks end: "ValueError: …": str"""
    return f"{type(error).__name__}: {error}".strip()


@contextlib.contextmanager
def _collected():
    """What transformers logs and what comes as a warning, list of str, is filled while the block runs."""
    from transformers.utils import logging as library_log

    texts = []
    logger, handler = library_log.get_logger("transformers"), _Handler(texts)
    before, propagate, handlers = logger.level, logger.propagate, logger.handlers[:]
    library_log.warning_once.cache_clear()  # or what was said before is not said again
    logger.handlers[:], logger.propagate = [handler], False
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *place, **more: texts.append(str(message))
            yield texts
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(before)


class _Handler(logging.Handler):
    def __init__(self, texts):
        super().__init__()
        self.texts = texts

    def emit(self, record):
        self.texts.append(record.getMessage())
