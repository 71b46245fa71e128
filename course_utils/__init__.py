"""Inside generate(): the library that the course's notebooks import.

Importing this package is cheap: names are loaded when they are first used. Only one thing happens at
once, because it has no effect later: the number of spins of an idle OpenMP thread is set.
"""

import os
import sys
from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:  # what an editor and a type checker see of the names below
    from .decoding.steps import Step, decode_steps
    from .doctor import check_machine
    from .errors import CourseError
    from .models import load, load_tokenizer, pick_device
    from .releases import needs_transformers

# Read by check_machine(): too late for the setting below.
TORCH_CAME_FIRST = "torch" in sys.modules and "GOMP_SPINCOUNT" not in os.environ

# torch's idle OpenMP threads spin by default. Where kernels share cores (a classroom server, two test
# workers) they spin each other to a standstill: 2.6 instead of 11 tokens a second in three processes on
# two cores. A thousand spins keep both cores for a learner who is alone. libgomp reads the variable once,
# when torch is imported, so it is set here and only if the user has not set it.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_HOME = {
    "CourseError": "errors",
    "Step": "decoding.steps",
    "check_machine": "doctor",
    "decode_steps": "decoding.steps",
    "load": "models",
    "load_tokenizer": "models",
    "needs_transformers": "releases",
    "pick_device": "models",
}

__all__ = [
    "CourseError",
    "Step",
    "check_machine",
    "decode_steps",
    "load",
    "load_tokenizer",
    "needs_transformers",
    "pick_device",
]
__getattr__, __dir__ = lazy_names(globals(), _HOME)
