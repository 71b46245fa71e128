"""Lesson 09, exercise 3: the policy-gradient loop, and loops with one thing wrong."""

import functools

import torch

from ...checks.exercise import Mistake, exercise, expect_close
from ...gradients import all_sequences, leave_one_out, random_rewards, sequence_log_probs, toy_model

_UPDATES, _RATE, _SAMPLES = 4, 0.3, 16


@exercise("09/train", title="Repair a policy-gradient loop", minutes=9, difficulty=3)
def check_train(answer):
    """The weights after a few updates, compared with a loop that draws and makes a second pass in each."""
    want, means, _, _ = _trained(_repaired)
    got, result, calls, has_gradient = _trained(answer)
    if torch.equal(got, _trained(lambda *given: [])[0]):
        raise Mistake(
            "The weights have a gradient, but they do not move: `optimizer.step()` is missing."
            if has_gradient
            else "No weight has changed: no gradient reaches the model. Compute the log probabilities of the drawn "
            "texts in a second pass, and do not use the recorded numbers."
        )
    if not torch.allclose(got, want, atol=1e-9):
        for loop, message in _STALE:
            if torch.allclose(got, _trained(loop)[0], atol=1e-9):
                raise Mistake(message)
        if calls != _UPDATES:
            raise Mistake(f"`draw` was called {calls} times in {_UPDATES} updates. Draw once for each, and use the log probabilities of exactly those texts.")  # fmt: skip
        raise Mistake("The weights do not follow the policy gradient. Multiply the log probabilities of the drawn texts by the leave-one-out advantages, take the mean, and change the sign.")  # fmt: skip
    if not isinstance(result, list) or len(result) != _UPDATES:
        raise Mistake(f"The weights are right. Also return a list with one mean reward for each of the {_UPDATES} updates.")  # fmt: skip
    expect_close(
        [float(mean) for mean in result],
        means,
        f"{_UPDATES} updates",
        "The weights are right, the list is not: it should hold the mean reward of each update's texts.",
        tolerance=1e-6,
    )
    return "Every update uses texts and log probabilities from the current model."


def _trained(loop):
    """Run a loop on a small problem: the weights, what it returned, how often it drew, whether there was a gradient."""
    model, table, sequences = toy_model(4, seed=9), random_rewards(4, seed=9) + 2, all_sequences(4, 3)
    generator, calls = torch.Generator().manual_seed(9), []

    def draw(model):
        with torch.no_grad():
            probs = sequence_log_probs(model, sequences).exp()
        numbers = torch.multinomial(probs, _SAMPLES, replacement=True, generator=generator)
        calls.append(numbers)
        return sequences[numbers], probs[numbers].log()

    optimizer = torch.optim.SGD(model.parameters(), lr=_RATE)
    with torch.enable_grad():
        result = loop(model, optimizer, draw, lambda drawn: table[tuple(drawn.T)], _UPDATES)
    weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    has_gradient = any(weight.grad is not None and weight.grad.any() for weight in model.parameters())
    return weights, result, len(calls), has_gradient


def _repaired(model, optimizer, draw, reward, updates, advantage=None, fresh=True, zero=True, scale=1.0):
    """The correct loop, or one with a single mistake."""
    means, drawn = [], None
    for _ in range(updates):
        if fresh or drawn is None:
            drawn, _ = draw(model)
        found = reward(drawn)
        loss = -scale * ((advantage or leave_one_out)(found) * sequence_log_probs(model, drawn)).mean()
        if zero:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means.append(found.mean().item())
    return means


def _drawn_once(*given):
    return _repaired(*given, fresh=False)


def _accumulated(*given):
    return _repaired(*given, zero=False)


def _group_mean(rewards):
    return rewards - rewards.mean()


_STALE = (
    (_drawn_once, "The texts are drawn once. After the first update they come from a model that no longer exists: draw inside the loop."),
    (_accumulated, "The gradients of all updates add up. `optimizer.zero_grad()` belongs before each `backward()`."),
    (functools.partial(_repaired, advantage=lambda rewards: rewards), "The log probabilities are multiplied by the rewards themselves. Use `gradients.leave_one_out` of the rewards."),
    (functools.partial(_repaired, advantage=_group_mean), "The mean of the whole group is subtracted, including the text's own reward. Use `gradients.leave_one_out`."),
    (functools.partial(_repaired, scale=-1.0), "The sign is wrong: an optimizer makes the loss smaller, and J should grow."),
    (functools.partial(_repaired, scale=_SAMPLES), "The loss is a sum. J is a mean over texts, so take the mean."),
)  # fmt: skip
