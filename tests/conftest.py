"""What transformers logs as deprecated fails a test, like a warning that says so (pyproject.toml)."""

import logging

import pytest


class _Refuse(logging.Handler):
    def emit(self, record):
        if "deprecated" in (message := record.getMessage()).lower():
            raise DeprecationWarning(message)


@pytest.fixture(autouse=True)
def nothing_deprecated_is_logged():
    handler = _Refuse()
    logging.getLogger("transformers").addHandler(handler)
    yield
    logging.getLogger("transformers").removeHandler(handler)
