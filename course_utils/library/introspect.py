"""The installed transformers by name: what a dotted name stands for, its source, where a name exists."""

import functools
import importlib
import inspect
from typing import Any

# Where a name without dots is looked for, below transformers; "" is transformers itself.
_HOMES = (
    "",
    "generation",
    "generation.GenerationMixin",
    "PreTrainedModel",
    "DynamicCache",
    "PreTrainedTokenizerBase",
    "models.gpt2.modeling_gpt2",
    "models.llama.modeling_llama",
)


def version():
    """The installed transformers' version: str."""
    import transformers

    return transformers.__version__


def resolve(name: str) -> Any:
    """The module, class or function with a dotted name below transformers.

    name: str, "generation.utils.GenerationMixin._sample"; "" is transformers itself
    Raises LookupError where the installed version has no such name.
    """
    parts = name.split(".") if name else []
    for split in range(len(parts), -1, -1):
        try:
            module = importlib.import_module(".".join(["transformers", *parts[:split]]))
        except ModuleNotFoundError:
            continue
        try:
            return functools.reduce(getattr, parts[split:], module)
        except AttributeError:
            break
    raise LookupError(name)


def source(name):
    """The installed source of a module, class or function, by its dotted name below transformers: str."""
    return inspect.getsource(inspect.unwrap(resolve(name)))


def homes_of(name):
    """The places, dotted names below transformers, that have a name: list of str, [] where it is gone."""
    return [home for home in _HOMES if _has(home, name)]


def _has(home, name):
    try:
        return hasattr(resolve(home), name)
    except LookupError:
        return False
