"""Lesson 10: its checks against right and wrong answers, its questions against their proofs, and its own
functions against course_utils.objectives."""

import torch

from course_utils.advantages import group_relative
from course_utils.lessons import lesson10
from course_utils.objectives import averaged, kl_estimates, policy_loss
from course_utils.objectives import clipped as library_clipped
from lesson_code import definitions
from prove import private_progress, prove_exercise, prove_questions


def test_questions():
    assert len(prove_questions(lesson10)) == 6


# ---- exercise 1 --------------------------------------------------------------------------------------


def bounded(change, advantages, low, high):
    ratio = change.exp()
    return torch.minimum(ratio * advantages[:, None], ratio.clamp(1 - low, 1 + high) * advantages[:, None])


def by_cases(log_probs, old, advantages, low=0.2, high=0.2):
    """The gradient stays, except for what moved the right way, far enough."""
    ratio, weight = (log_probs - old).exp(), advantages[:, None].expand_as(log_probs)
    bound = torch.where(weight > 0, 1 + high, 1 - low)
    outside = torch.where(weight > 0, ratio > bound, ratio < bound)
    return torch.where(outside, bound * weight, ratio * weight)


def by_relu(log_probs, old, advantages, low=0.2, high=0.2):
    ratio, weight = torch.exp(log_probs) / torch.exp(old), advantages.unsqueeze(1)
    above = torch.relu((ratio - 1 - high) * weight) * (weight > 0)
    below = torch.relu((ratio - 1 + low) * weight) * (weight < 0)
    return ratio * weight - above - below


def only_clipped(log_probs, old, advantages, low=0.2, high=0.2):
    return (log_probs - old).exp().clamp(1 - low, 1 + high) * advantages[:, None]


def maximum(log_probs, old, advantages, low=0.2, high=0.2):
    ratio, weight = (log_probs - old).exp(), advantages[:, None]
    return torch.maximum(ratio * weight, ratio.clamp(1 - low, 1 + high) * weight)


def unclipped(log_probs, old, advantages, low=0.2, high=0.2):
    return (log_probs - old).exp() * advantages[:, None]


def as_a_loss(log_probs, old, advantages, low=0.2, high=0.2):
    return -bounded(log_probs - old, advantages, low, high)


def reversed_ratio(log_probs, old, advantages, low=0.2, high=0.2):
    return bounded(old - log_probs, advantages, low, high)


def no_exp(log_probs, old, advantages, low=0.2, high=0.2):
    ratio, weight = log_probs - old, advantages[:, None]
    return torch.minimum(ratio * weight, ratio.clamp(1 - low, 1 + high) * weight)


def smaller_ratio(log_probs, old, advantages, low=0.2, high=0.2):
    ratio = (log_probs - old).exp()
    return torch.minimum(ratio, ratio.clamp(1 - low, 1 + high)) * advantages[:, None]


def exchanged(log_probs, old, advantages, low=0.2, high=0.2):
    return bounded(log_probs - old, advantages, high, low)


def one_a_text(log_probs, old, advantages, low=0.2, high=0.2):
    return bounded(log_probs - old, advantages, low, high).sum(1)


def one_number(log_probs, old, advantages, low=0.2, high=0.2):
    return bounded(log_probs - old, advantages, low, high).mean()


def without_gradient(log_probs, old, advantages, low=0.2, high=0.2):
    return bounded((log_probs - old).detach(), advantages, low, high)


def half_detached(log_probs, old, advantages, low=0.2, high=0.2):
    change = log_probs - old
    return bounded(change.detach() + 0.5 * (change - change.detach()), advantages, low, high)


def test_clipped():
    prove_exercise(
        lesson10.check_clipped,
        right=[*definitions("10", "clipped", torch=torch), by_cases, by_relu],
        wrong=[
            (only_clipped, "The ratio is only clipped"),
            (maximum, "This is the maximum"),
            (unclipped, "Nothing is clipped here"),
            (as_a_loss, "that of a loss"),
            (reversed_ratio, "the wrong way round"),
            (no_exp, "is the *logarithm*"),
            (smaller_ratio, "of the ratios, before the advantage"),
            (exchanged, "two bounds are exchanged"),
            (one_a_text, "one number a text"),
            (one_number, "a single number"),
            (without_gradient, "no gradient reaches"),
            (half_detached, "not that of the minimum"),
        ],
    )


# ---- exercise 2 --------------------------------------------------------------------------------------


def by_the_library(log_probs, old, reference, rewards, mask, clip=0.2, kl_weight=0.04):
    weight = group_relative(rewards).reshape(-1)
    terms = {"clip": (clip, clip), "reference": reference, "kl_weight": kl_weight}
    return policy_loss(log_probs, old, weight, mask, **terms)


def row_by_row(log_probs, old, reference, rewards, mask, clip=0.2, kl_weight=0.04):
    total, weight = 0, group_relative(rewards).flatten()
    for row in range(len(log_probs)):
        kept = mask[row].bool()
        ratio = (log_probs[row] - old[row])[kept].exp()
        objective = torch.min(ratio * weight[row], ratio.clip(1 - clip, 1 + clip) * weight[row])
        d = (reference[row] - log_probs[row])[kept]
        total = total - objective.sum() + kl_weight * (d.exp() - 1 - d).sum()
    return total / mask.sum()


def loss(log_probs, old, reference, rewards, mask, clip=0.2, kl_weight=0.04, **changes):
    return lesson10._grpo(log_probs, old, reference, rewards, mask, clip, kl_weight, **changes)


def changed(**changes):
    return lambda *given: loss(*given, **changes)


def test_grpo_loss():
    def turned(log_probs, old, *rest):
        return loss(old, log_probs, *rest, policy=log_probs)

    def per_token(log_probs, old, reference, rewards, mask, clip=0.2, kl_weight=0.04):
        weight = group_relative(rewards).flatten()
        return -library_clipped(log_probs - old, weight, (clip, clip)) * mask

    def constant(*given):
        return loss(*given).detach()

    def detached_ratio(log_probs, *rest):
        """Its value is right, and only the KL has a gradient."""
        whole, without = loss(log_probs, *rest), loss(log_probs, *rest[:4], *rest[4:5], 0.0)
        return (whole - without) + without.detach()

    def detached_kl(log_probs, *rest):
        whole, without = loss(log_probs, *rest), loss(log_probs, *rest[:4], *rest[4:5], 0.0)
        return without + (whole - without).detach()

    prove_exercise(
        lesson10.check_grpo_loss,
        right=[
            *definitions("10", "grpo_loss", torch=torch, group_relative=group_relative),
            by_the_library,
            row_by_row,
        ],
        wrong=[
            (lambda *given: -loss(*given), "The sign is wrong"),
            (changed(advantages="batch"), "over the whole batch"),
            (changed(average="texts"), "mean of each text's mean"),
            (changed(average="no mask"), "The padding is counted"),
            (changed(average="half mask"), "divided by all cells"),
            (changed(kl="none"), "The KL term is missing"),
            (changed(kl="k1"), "k1, d itself"),
            (changed(kl="k2"), "The KL term is k2"),
            (changed(kl="reversed"), "with the model first"),
            (changed(kl="subtracted"), "pushes the model *away*"),
            (changed(clipping=False), "Nothing is clipped here"),
            (turned, "The ratio is the wrong way round"),
            (per_token, "Return one number"),
            (constant, "no gradient reaches the log probabilities"),
            (detached_ratio, "not the gradient of the ratio"),
            (detached_kl, "not the gradient of the KL term"),
        ],
    )


def test_later_cells_run_on_an_answer_that_passes(capsys):
    with private_progress():
        assert lesson10.usable_clipped(by_cases) is by_cases
        assert lesson10.usable_grpo_loss(by_the_library) is by_the_library
        assert "your grpo_loss()." in capsys.readouterr().out
        ours = lesson10.usable_clipped(maximum)
        assert "the course's own until your clipped()" in capsys.readouterr().out
    now, old, _ = lesson10._drawn(3)
    advantages = torch.tensor([1.0, -1, 2, -2], dtype=torch.float64)
    torch.testing.assert_close(ours(now, old, advantages), by_cases(now, old, advantages))


# ---- exercise 3 --------------------------------------------------------------------------------------

RIGHT = {
    "A": "ratio reversed",
    "B": "right",
    "C": "mask missing in the mean",
    "D": "ratio detached",
    "E": "old log probabilities recomputed",
    "F": "advantages over the whole batch",
}


def test_diagnosis():
    prove_exercise(
        lesson10.check_diagnosis,
        right=[RIGHT, dict(reversed(RIGHT.items()))],
        wrong=[
            (["right"] * 5, "Give a dictionary"),
            ({"A": "right"}, "no diagnosis for B"),
            (RIGHT | {"G": "right"}, "'G' is not one of the letters"),
            (RIGHT | {"C": "clip missing"}, "C has 'clip missing'"),
            (RIGHT | {"A": "right"}, "A is not right. Measure A again: on a fresh draw its gradient"),
            (RIGHT | {"B": "old log probabilities recomputed"}, "it passes every test"),
            (RIGHT | {"C": "right"}, "changes when a column of padding is added"),
            (RIGHT | {"D": "right"}, "carries no gradient"),
            (RIGHT | {"E": "right"}, "E is not right. Measure E again: it gives the same value"),
            (RIGHT | {"F": "right"}, "when 5 is added to all rewards of one prompt"),
        ],
    )


def test_each_loss_has_the_symptom_that_is_told():
    now, old, _ = lesson10._drawn(0)
    rewards = torch.tensor([[1.0, -1], [2, -0.5]], dtype=torch.float64)
    mask = torch.ones(4, 5, dtype=torch.float64)

    def value(letter, then, wide=False, easier=0.0):
        leaf = now.clone().requires_grad_()
        parts = [leaf, then(leaf), mask]
        if wide:
            parts = [torch.nn.functional.pad(part, (0, 3)) for part in parts]
        parts.insert(2, rewards + torch.tensor([[easier], [0.0]], dtype=torch.float64))
        found = lesson10.losses[letter](*parts)
        gradient = torch.autograd.grad(found, leaf)[0] if found.requires_grad else None
        return found.item(), gradient

    fresh = {letter: value(letter, torch.Tensor.detach) for letter in "ABCDEF"}
    moved = {letter: value(letter, lambda leaf: old)[0] for letter in "ABCDEF"}
    wide = {letter: value(letter, lambda leaf: old, wide=True)[0] for letter in "ABCDEF"}
    easier = {letter: value(letter, lambda leaf: old, easier=5.0)[0] for letter in "ABCDEF"}
    torch.testing.assert_close(fresh["A"][1], -fresh["B"][1])
    torch.testing.assert_close(fresh["E"][1], fresh["B"][1])
    assert fresh["D"][1] is None
    assert [letter for letter in "ABCDEF" if abs(wide[letter] - moved[letter]) > 1e-9] == ["C"]
    assert [letter for letter in "ABCDEF" if abs(moved[letter] - fresh[letter][0]) < 1e-9] == ["E"]
    assert [letter for letter in "ABCDEF" if abs(easier[letter] - moved[letter]) > 1e-3] == ["F"]


def test_the_averages_of_the_loss_are_the_librarys():
    now, old, reference = lesson10._drawn(4, texts=6)
    rewards = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(now)
    mask[0, 1:] = mask[3, 4:] = 0
    weight = group_relative(rewards).flatten()
    values = 0.1 * kl_estimates(now, reference) - library_clipped(now - old, weight)
    for average in ("tokens", "texts"):
        found = loss(now, old, reference, rewards, mask, kl_weight=0.1, average=average)
        torch.testing.assert_close(found, averaged(values, mask, average))
