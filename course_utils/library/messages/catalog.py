"""All entries, and the finder over them."""

import functools

from .entry import GROUPS, Message
from .find import Finder
from .inputs import INPUTS
from .outputs import OUTPUTS
from .training import TRAINING

_ORDER = list(GROUPS)
MESSAGES: tuple[Message, ...] = tuple(
    sorted((*INPUTS, *OUTPUTS, *TRAINING), key=lambda entry: _ORDER.index(entry.group))
)


def phrases(entry: Message) -> tuple[str, ...]:
    """What an entry is found by: its message, if it has one, its title, and how it is put elsewhere."""
    return (*([] if entry.kind == "symptom" else [entry.says]), entry.title, *entry.asked)


@functools.cache
def finder() -> Finder:
    return Finder([phrases(entry) for entry in MESSAGES])
