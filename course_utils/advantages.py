"""Advantages: the rewards of a group of samples -> a weight for grad log p of each.

Each function takes what `float_rewards` takes, [..., samples], and returns a float tensor of that shape, in
float32 or better. `gradients` says what the estimates that they make are worth.
"""

from typing import Any

import numpy
import torch

from .errors import CourseError
from .inputs.numbers import at_least_float32


def float_rewards(rewards: Any, default: torch.dtype = torch.float32) -> torch.Tensor:
    """Rewards as a float tensor of their shape, in float32 or better.

    rewards: a tensor or NumPy array of any number type, or a list of numbers, of tensors, or of lists
    default: dtype of what has no floating-point type of its own: integers, truth values, lists
    Raises CourseError for anything else.
    """
    try:
        if isinstance(rewards, list | tuple) and any(isinstance(one, torch.Tensor) for one in rewards):
            rewards = torch.stack([torch.as_tensor(one) for one in rewards])
        elif isinstance(rewards, list | tuple):
            rewards = torch.as_tensor(numpy.asarray(rewards), dtype=default)
        elif not isinstance(rewards, torch.Tensor):
            rewards = torch.as_tensor(numpy.array(rewards, order="C"))  # torch takes no negative strides
    except (TypeError, ValueError, RuntimeError):
        kind = type(rewards).__name__
        raise CourseError(
            f"The rewards are of type {kind}, and make no table of numbers. Give a float tensor, or a list "
            "such as [1.0, 0.0]."
        ) from None
    if rewards.is_complex():
        raise CourseError(f"The rewards are {rewards.dtype}. Give real numbers: rewards.real.")
    return at_least_float32(rewards if rewards.is_floating_point() else rewards.to(default))


def no_baseline(rewards: Any) -> torch.Tensor:
    """R itself: REINFORCE (Williams 1992, doi:10.1007/BF00992696).

    Unbiased. Its noise grows with the distance of the rewards from 0. Needs only the values of R.
    float [..., samples]
    """
    return float_rewards(rewards)


def leave_one_out(rewards: Any) -> torch.Tensor:
    """R_i less the mean of the *other* samples' rewards: RLOO (Kool, van Hoof & Welling 2019, "Buy 4
    REINFORCE samples, get a baseline for free!"; Ahmadian et al. 2024, arXiv:2402.14740).

    Unbiased, since the baseline does not depend on sample i; adding a number to all rewards changes nothing.
    Needs only the values of R, of two samples or more. float [..., samples]
    """
    rewards, samples = _group(rewards)
    return (rewards - rewards.mean(-1, keepdim=True)) * (samples / (samples - 1))


def group_mean(rewards: Any) -> torch.Tensor:
    """R_i less the mean of the group, sample i included ("Dr. GRPO", Liu et al. 2025, arXiv:2503.20783).

    (samples - 1) / samples times `leave_one_out`: the direction is unbiased, the length too short by that
    factor. Needs only the values of R, of two samples or more. float [..., samples]
    """
    rewards, _ = _group(rewards)
    return rewards - rewards.mean(-1, keepdim=True)


def group_relative(rewards: Any, eps: float = 1e-4) -> torch.Tensor:
    """(R_i - mean) / (standard deviation + eps), over the group: GRPO (Shao et al. 2024, arXiv:2402.03300).

    Biased: a group with little spread counts as much as one with a large one, so rare large rewards are
    played down. Needs only the values of R, of two samples or more; a group of equal rewards gives 0.
    float [..., samples]
    """
    rewards, _ = _group(rewards)
    deviation = rewards.std(-1, keepdim=True)
    return (rewards - rewards.mean(-1, keepdim=True)) / (deviation + eps)


def _group(rewards):
    """The rewards as a float tensor, and how many samples a group has. Raises CourseError below two."""
    rewards = float_rewards(rewards)
    samples = rewards.shape[-1] if rewards.ndim else 1
    if samples < 2:
        raise CourseError(
            f"The group has {samples} sample{'' if samples else 's'}, and its baseline is the mean of "
            "others. Draw two or more."
        )
    return rewards, samples
