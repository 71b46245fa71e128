"""What differs between the releases of transformers that the course supports.

The only module that asks which release is installed. A function stands here for each difference, and says in
which release it came; the rest of the library calls the function and knows nothing of releases.
"""

import functools
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from packaging.version import Version

from .errors import CourseError

OLDEST = "5.20"  # the first release that course_utils works on
NEWEST = "5.24.0"  # the newest that it was tried on, and the one that the notebooks were run with

_CACHE_NAMES = ("cache", "past_key_values")


def installed() -> str | None:
    """The installed release of transformers: str, "5.24.0"; None where it is not installed."""
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return None


def is_before(release: str) -> bool:
    """Whether the installed transformers is older than a release, such as "5.24": also where there is none.

    A release's own candidates and development versions do not count as older.
    """
    return Version(Version(installed() or "0").base_version) < Version(release)


def range_problem() -> tuple[str, bool]:
    """What a learner should know about the installed release: (str, bool whether the course works on it).

    ("", True) for the release that the lessons were run with. Nothing is refused for a newer one.
    """
    release = installed()
    if release is None:
        return "transformers is missing", False
    if is_before(OLDEST):
        return f"transformers is {release}, and the course needs {OLDEST} or newer", False
    if is_before(NEWEST):
        return (
            (
                f"transformers is {release}, older than the {NEWEST} that the lessons were run with: "
                "course_utils works, but lessons 04 to 06 have lines that need 5.24"
            ),
            True,
        )
    if Version(release) > Version(NEWEST):
        return (
            (
                f"transformers is {release}, newer than the {NEWEST} that the course was tried with: "
                "numbers and texts may differ"
            ),
            True,
        )
    return "", True


def needs_transformers(release: str) -> None:
    """Refuse to run a lesson on a transformers that reads its lines in another way.

    release: str, the first release on which the lesson's lines are right: "5.24"
    Raises CourseError, with the line to type, where the installed one is older.
    """
    if installed() is None or is_before(release):
        raise CourseError(
            f"This lesson's lines are right from transformers {release} on, and {installed() or 'none'} is "
            f'installed. Type in a cell: %pip install "transformers=={NEWEST}", and restart the kernel.'
        )


@functools.cache
def cache_name() -> str:
    """What the KV cache is called, as an argument of a model and as a field of its output: str.

    "cache" from 5.24.0 on, "past_key_values" before. The new name is dangerous on older releases: a forward
    pass swallows it without a word, and computes without a cache.
    """
    from transformers import GenerationMixin

    # As with generate(), type checkers cannot bind it: `inputs.limits.unwrapped`.
    prepare = GenerationMixin.prepare_inputs_for_generation  # pyright: ignore[reportAttributeAccessIssue]
    parameters = inspect.signature(prepare).parameters
    return next(name for name in _CACHE_NAMES if name in parameters)


def as_argument(cache: Any) -> dict[str, Any]:
    """A cache as keyword argument of a model, generate() or create_causal_mask(): `**as_argument(cache)`."""
    return {cache_name(): cache}


def cache_of(output: Any) -> Any:
    """The cache that a forward pass or generate() returned; None without one.

    From 5.24.0 on the old field still answers, but the library logs that it is deprecated.
    """
    return getattr(output, cache_name(), None)


def cache_given(arguments: Mapping[str, Any]) -> Any:
    """The cache among keyword arguments that somebody else wrote, in either spelling; None without one."""
    return next((arguments[name] for name in _CACHE_NAMES if arguments.get(name) is not None), None)


def takes_cache(model: Any) -> bool:
    """Whether a model's forward pass has an argument for a KV cache: bool."""
    return cache_name() in inspect.signature(model.forward).parameters


def bare_generate(model: Any) -> Callable:
    """The function inside a model's generate(), without any decorator: gradients stay on.

    From 5.24.0 on three decorators lie over it (one before), so that `generate.__wrapped__`, which takes off
    the outermost alone, still runs under `torch.no_grad()`.
    """
    return inspect.unwrap(type(model).generate)
