"""What transformers logs as deprecated is a warning in a test, and so an error (pyproject.toml)."""

import logging
import warnings

import pytest


class _Warn(logging.Handler):
    def emit(self, record):
        if "deprecated" in (message := record.getMessage()).lower():
            warnings.warn_explicit(message, DeprecationWarning, record.pathname, record.lineno)


@pytest.fixture(autouse=True)
def nothing_deprecated_is_logged():
    handler = _Warn()
    logging.getLogger("transformers").addHandler(handler)
    yield
    logging.getLogger("transformers").removeHandler(handler)


@pytest.fixture(scope="session")
def gpt2():
    """GPT-2's tokenizer, which no test may change."""
    from course_utils import load_tokenizer

    return load_tokenizer("gpt2")
