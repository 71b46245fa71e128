"""Prove an entry: its code brings the message about, in these words, and the cure runs without it."""

import functools
import re

from ...errors import CourseError
from .entry import HOLE, SETUP, Message
from .heard import told


def problem(entry: Message) -> str:
    """What is wrong with an entry for the installed versions: str, "" if nothing.

    Runs its code on small models and on SmolLM2, on the CPU. The global random state stays as it is.
    """
    import torch

    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            names = dict(_bench())
            said, _ = told(entry.raises, names)
            if not any(has_words(text, entry.says) for text in said):
                return f"it says {_shortened(said)}" if said else "nothing is said"
            said, error = told(entry.cured, names)
    except CourseError:
        raise
    except Exception as error:  # whatever another version does, the table says so and goes on
        return f"checking it raised {type(error).__name__}"
    if error:
        return f"the cure raises {_shortened([error])}"
    if any(has_words(text, entry.says) for text in said):
        return "the message comes after the cure as well"
    return ""


def message(entry: Message) -> str:
    """The entry's message as the installed version words it, found by bringing it about: str."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        said, _ = told(entry.raises, dict(_bench()))
    return next((text for text in said if has_words(text, entry.says)), "")


def has_words(text: str, pattern: str) -> bool:
    """Whether a text is the message that an entry's `says` describes; white space counts as one space."""
    parts = [re.escape(" ".join(part.split())) for part in pattern.split(HOLE)]
    return re.fullmatch(r"\s?.*?\s?".join(parts), " ".join(text.split()), re.DOTALL) is not None


@functools.cache
def _bench():
    names: dict = {}
    exec(SETUP, names)
    return names


def _shortened(texts):
    text = " ".join(texts[0].split())
    return repr(text if len(text) <= 160 else text[:159] + "…")
