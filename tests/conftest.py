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
