"""What a learner sees and touches: live views of the real model."""

import importlib

_HOME = {
    "CourseWidget": "base",
    "MaskView": "mask_view",
    "NextToken": "next_token",
    "PaddingGrid": "padding_grid",
    "Predict": "question",
    "Quiz": "question",
    "TokenChips": "token_chips",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})
