"""Numbers as learners have them: of Python, of NumPy, or in a tensor of one element."""

import math
import operator
from typing import Any

import torch

from ..errors import CourseError


def integer(value: Any) -> int | None:
    """`value` as an int if it is a whole number, else None. True and False are none."""
    if isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool:
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def real(value: Any) -> float | None:
    """`value` as a float if it is one number or truth value, else None; inf where no float holds it."""
    if isinstance(value, str | bytes):
        return None
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError, RuntimeError):
        return None


def at_least(least: int, **named) -> int:
    """The one number in `named` as an int. Raises CourseError unless it is a whole number from `least` on."""
    ((name, given),) = named.items()
    number = integer(given)
    if number is None or number < least:
        raise CourseError(f"{name} is {given!r}. Give a whole number of at least {least}.")
    return number


def above_zero(**named) -> float:
    """The one number in `named` as a float. Raises CourseError unless it is finite and above 0."""
    ((name, given),) = named.items()
    number = real(given)
    if number is None or not 0 < number < math.inf:
        raise CourseError(f"{name} is {given!r}. Give a number above 0.")
    return number


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """A float tensor as it is, or in float32 where its type has fewer digits, with its gradient."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
