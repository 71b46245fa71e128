"""What PPO and GRPO make of drawn texts and their advantages: ratio, clip, KL and an average, by name.

    log probabilities now and at the draw -> `log_ratios` -> `clipped` -> `averaged` -> a loss
    log probabilities now and of a reference -> `kl_estimates` -> the same average, times a weight

All tensors are float [texts, tokens], with a mask of that shape: 1 for a token of the answer, 0 for padding.
The advantages are [texts], see `advantages`. The loss is to be made small; with a ratio of 1 its gradient is
that of REINFORCE with the same advantages. Sources: PPO (Schulman et al. 2017, arXiv:1707.06347), GRPO (Shao
et al. 2024, arXiv:2402.03300), DAPO (Yu et al. 2025, arXiv:2503.14476), Dr. GRPO (Liu et al. 2025,
arXiv:2503.20783), GSPO (Zheng et al. 2025, arXiv:2507.18071), "Approximating KL divergence" (Schulman 2020).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from .advantages import leave_one_out
from .errors import CourseError
from .inputs.numbers import at_least_float32, real

RATIOS = ("none", "token", "text", "gspo")
AVERAGES = ("tokens", "texts", "length")
KL = ("k1", "k2", "k3")
PLACES = ("reward", "loss")


def log_ratios(
    log_probs: torch.Tensor, old: torch.Tensor, mask: torch.Tensor, ratio: str = "token"
) -> torch.Tensor:
    """log p_now - log p_draw: [texts, tokens] for each token, or [texts, 1] for each text.

    ratio: "token" (PPO, GRPO), "text" (the sum over the tokens: exact importance sampling) or "gspo" (the
           mean over the tokens). "none" gives zeros with the gradient of log p, so that the ratio is 1 and
           stays 1: plain REINFORCE on whatever texts there are.
    """
    _one_of(ratio, RATIOS, "a ratio")
    difference = log_probs - (log_probs if ratio == "none" else old).detach()
    difference = difference.masked_fill(mask == 0, 0.0)  # no product: padding may be at minus infinity
    if ratio == "text":
        return difference.sum(1, keepdim=True)
    if ratio == "gspo":
        return difference.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    return difference


def clipped(
    log_ratio: torch.Tensor, advantages: torch.Tensor, clip: tuple[float, float] | None = (0.2, 0.2)
) -> torch.Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A), to be made large: the shape of `log_ratio`.

    advantages: [texts]; clip: (low, high), both above 0, or None for r A
    What has moved the right way far enough has no gradient any more; what has moved the wrong way keeps it.
    """
    ratio, weight = log_ratio.exp(), advantages[:, None]
    if clip is None:
        return ratio * weight
    low, high = _checked_clip(clip)
    return torch.minimum(ratio * weight, ratio.clamp(1 - low, 1 + high) * weight)


def kl_estimates(log_probs: torch.Tensor, reference: torch.Tensor, kind: str = "k3") -> torch.Tensor:
    """An estimate of KL(p || q) at each token: [texts, tokens], with d = log p - log q.

    kind: "k1" d, "k2" d² / 2, or "k3" exp(-d) - 1 + d
    As numbers k1 and k3 are unbiased for texts drawn from p. As losses k1 has no gradient on average, k2 has
    that of KL(p || q), and k3 that of KL(q || p); lesson 10 proves it.
    """
    _one_of(kind, KL, "a KL estimate")
    difference = log_probs - reference.detach()
    if kind == "k1":
        return difference
    return difference.square() / 2 if kind == "k2" else (-difference).exp() - 1 + difference


def averaged(
    values: torch.Tensor, mask: torch.Tensor, over: str = "tokens", longest: int | None = None
) -> torch.Tensor:
    """The mean of values [texts, tokens] where the mask is 1, a scalar.

    over: "tokens": all tokens of the batch weigh alike (DAPO; the default of TRL and verl);
          "texts": the mean of each text's mean, so that a token of a short text weighs more (GRPO's paper);
          "length": the sum divided by texts times `longest`, a constant (Dr. GRPO)
    longest: int, for "length"; the width of the mask if None
    """
    _one_of(over, AVERAGES, "an average")
    values = values.masked_fill(mask == 0, 0.0)
    if over == "tokens":
        return values.sum() / mask.sum()
    if over == "texts":
        return (values.sum(1) / mask.sum(1)).mean()
    return values.sum() / (len(values) * (mask.shape[1] if longest is None else longest))


def policy_loss(
    log_probs: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    ratio: str = "token",
    clip: tuple[float, float] | None = (0.2, 0.2),
    over: str = "tokens",
    longest: int | None = None,
    reference: torch.Tensor | None = None,
    kl: str = "k3",
    kl_weight: float = 0.0,
) -> torch.Tensor:
    """The loss of PPO's and GRPO's policy on drawn texts: a scalar, to be made small.

    log_probs:  float [texts, tokens], of the drawn tokens under the policy that is trained, with gradient
    old:        the same under the policy that drew them; no gradient passes here
    advantages: float [texts]; mask: [texts, tokens], 1 for tokens of the answers
    ratio, clip, over, longest, kl: as in `log_ratios`, `clipped`, `averaged` and `kl_estimates`
    reference:  float [texts, tokens], under the model to stay near; for a `kl_weight` above 0

    Raises CourseError for shapes that do not fit together, an answer without tokens, advantages that are not
    finite, a clip that is not above 0, a KL weight below 0 or without a reference, and for unknown names.
    """
    mask = mask.to(at_least_float32(log_probs.detach()))
    _check_shapes(log_probs, old, advantages, mask)
    advantages = advantages.detach()
    if ratio == "none":
        objective = log_probs * advantages[:, None]
    else:
        objective = clipped(log_ratios(log_probs, old, mask, ratio), advantages, clip)
    if ratio in ("text", "gspo"):  # one term a text: each of its tokens carries its share
        objective = objective * mask / (mask.sum(1, keepdim=True) if ratio == "text" else 1)
    loss = -averaged(objective, mask, over, longest)
    weight = _checked_weight(kl_weight)
    if weight == 0:
        return loss
    if reference is None or reference.shape != log_probs.shape:
        raise CourseError(
            "A KL weight needs `reference`, the log probabilities of the same tokens under the model to stay "
            f"near. Give a tensor of the shape {tuple(log_probs.shape)}."
        )
    return loss + weight * averaged(kl_estimates(log_probs, reference, kl), mask, over, longest)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What an update makes large, term by term: the choices of `policy_loss`, and where the KL goes.

    advantage: a function of the rewards [..., group], see `advantages`
    ratio, clip, over, longest: as `policy_loss` takes them
    kl:        "k1", "k2" or "k3", see `kl_estimates`; kl_weight: float, 0 for none
    kl_in:     "reward": the weight times the estimate, summed over a text, is taken from the text's reward;
               "loss": it is added to the loss
    Raises CourseError for unknown names, a clip that is not above 0 and a weight below 0.
    """

    advantage: Callable[[Any], torch.Tensor] = leave_one_out
    ratio: str = "token"
    clip: tuple[float, float] | None = (0.2, 0.2)
    over: str = "tokens"
    longest: int | None = None
    kl: str = "k1"
    kl_in: str = "reward"
    kl_weight: float = 0.0

    def __post_init__(self):
        _one_of(self.ratio, RATIOS, "a ratio")
        _one_of(self.over, AVERAGES, "an average")
        _one_of(self.kl, KL, "a KL estimate")
        _one_of(self.kl_in, PLACES, "a place for the KL")
        _checked_weight(self.kl_weight)
        if self.clip is not None:
            _checked_clip(self.clip)

    def advantages(
        self, rewards: torch.Tensor, old: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor | None
    ) -> torch.Tensor:
        """The advantage of each text of one group: float [texts].

        rewards: float [texts]; old, mask, reference: [texts, tokens], as in `policy_loss`
        Where all rewards of the group are alike, with the KL taken off, they are 0 to the last digit.
        """
        if self.kl_weight and self.kl_in == "reward" and reference is not None:
            estimates = kl_estimates(old.detach(), reference, self.kl).masked_fill(mask == 0, 0.0)
            rewards = rewards - self.kl_weight * estimates.sum(1).to(rewards)
        if bool(rewards.min() < rewards.max()):  # the mean of equal numbers is not always that number
            return self.advantage(rewards)
        return torch.zeros_like(rewards)

    def loss(
        self,
        log_probs: torch.Tensor,
        old: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        reference: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`policy_loss` with these choices: a scalar, to be made small."""
        weight = self.kl_weight if self.kl_in == "loss" else 0.0
        return policy_loss(
            log_probs, old, advantages, mask, ratio=self.ratio, clip=self.clip, over=self.over,
            longest=self.longest, reference=reference, kl=self.kl, kl_weight=weight,
        )  # fmt: skip

    @torch.no_grad()
    def dropped(
        self, log_probs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor
    ) -> float:
        """The share of the tokens whose gradient the clip drops: float, 0 to 1."""
        if self.clip is None or self.ratio == "none":
            return 0.0
        (low, high), mask = self.clip, mask.to(log_probs)
        ratio = log_ratios(log_probs, old, mask, self.ratio).exp()
        weight = advantages[:, None].to(ratio)
        off = ((weight > 0) & (ratio > 1 + high)) | ((weight < 0) & (ratio < 1 - low))
        return ((off * mask).sum() / mask.sum()).item()


def _check_shapes(log_probs, old, advantages, mask):
    shape = tuple(log_probs.shape)
    if log_probs.ndim != 2 or not log_probs.numel():
        raise CourseError(
            f"The log probabilities have the shape {shape}. Give (texts, tokens), one or more each."
        )
    for name, given in (("old log probabilities", old), ("mask", mask)):
        if given.shape != log_probs.shape:
            raise CourseError(
                f"The shape of the {name} is {tuple(given.shape)}, and that of the new ones is {shape}."
            )
    if advantages.shape != log_probs.shape[:1]:
        raise CourseError(
            f"The advantages have the shape {tuple(advantages.shape)}, and there are {shape[0]} texts: "
            f"({shape[0]},) is expected. Other shapes would be multiplied with every text, and cancel."
        )
    if not advantages.isfinite().all():
        raise CourseError("An advantage is NaN or infinite. Look at the rewards that it was made of.")
    empty = (mask.sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise CourseError(f"The answer of row {empty[0]} has no token in the mask. Leave the row out.")


def _checked_weight(weight) -> float:
    number = real(weight)
    if number is None or not 0 <= number < float("inf"):
        raise CourseError(f"The KL weight is {weight!r}. Give a number of 0 or more.")
    return number


def _checked_clip(clip) -> tuple[float, float]:
    numbers = [real(number) for number in clip] if isinstance(clip, list | tuple) else []
    above = [number for number in numbers if number is not None and 0 < number < float("inf")]
    if len(numbers) != 2 or len(above) != 2:
        raise CourseError(f"The clip is {clip!r}. Give two numbers above 0, such as (0.2, 0.2), or None.")
    return above[0], above[1]


def _one_of(name, names, what):
    if name not in names:
        raise CourseError(f"{name!r} is not {what}. Give one of {', '.join(map(repr, names))}.")


REINFORCE = Objective(ratio="none", clip=None, over="length", longest=1)  # lesson 09's: mean of A log p
