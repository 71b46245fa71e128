"""Lesson 10: predictions, exercise checks and quiz. The helpers whose names begin with `_` compute the answers."""

import functools

import torch

from ..advantages import group_relative, leave_one_out
from ..checks.exercise import Mistake, exercise, expect_close
from ..checks.quiz import NumberPrediction, Option, Prediction, Question
from ..gradients import all_sequences, random_rewards, toy_model
from ..objectives import clipped as library_clipped
from ..objectives import kl_estimates, policy_loss
from .fixtures import usable

# ---- the toy, on which every answer is computed --------------------------------------------------------


class _Toy:
    """The lesson's toy, its draw, and the exact gradient after some steps along it."""

    def __init__(self, steps=0):
        self.model = toy_model()
        self.weights = list(self.model.parameters())
        self.sequences, self.rewards = all_sequences(6, 3), random_rewards().flatten()
        self.old = self.log_probs().detach()
        self.p_old = self.old.sum(1).exp()
        self.advantages = self.rewards - (self.p_old * self.rewards).sum()
        for _ in range(steps):
            parts = self.exact().split([weight.numel() for weight in self.weights])
            with torch.no_grad():
                for weight, part in zip(self.weights, parts, strict=True):
                    weight += 0.01 * part.view_as(weight)

    def log_probs(self):
        start = torch.zeros_like(self.sequences[:, :1])
        logits = self.model(torch.cat([start, self.sequences[:, :-1]], dim=1)).logits
        return logits.log_softmax(-1).gather(-1, self.sequences[..., None]).squeeze(-1)

    def gradient(self, scalar):
        parts = torch.autograd.grad(scalar, self.weights, retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    def exact(self):
        return self.gradient((self.log_probs().sum(1).exp() * self.rewards).sum())

    def expected(self, objective):
        return self.gradient((self.p_old * objective).sum())


@functools.cache
def _moved():
    return _Toy(steps=3)


def _unbiased():
    """The ratios whose expected gradient is the exact one, three steps after the draw: list of str."""
    toy = _moved()
    change = toy.log_probs() - toy.old
    token = (change.exp() * toy.advantages[:, None]).sum(1)
    text = change.sum(1).exp() * toy.advantages
    found = {"token": toy.expected(token), "text": toy.expected(text)}
    return [name for name, value in found.items() if (value - toy.exact()).norm() < 1e-8]


def _gradient_of_case(advantage, ratio):
    log_probs = torch.tensor([[ratio]]).log().requires_grad_()
    library_clipped(log_probs, torch.tensor([advantage])).sum().backward()
    assert log_probs.grad is not None
    return round(log_probs.grad.item(), 4)


def _what_the_clip_does():
    toy = _moved()
    plain = toy.expected(((toy.log_probs() - toy.old).exp() * toy.advantages[:, None]).sum(1))
    clip = toy.expected(library_clipped(toy.log_probs() - toy.old, toy.advantages).sum(1))
    off = [(found - toy.exact()).norm().item() for found in (plain, clip)]
    if torch.cosine_similarity(clip, toy.exact(), dim=0) < 0:
        return "backwards"
    return "better" if off[1] < off[0] else "worse"


def _loss_of_a_fresh_draw():
    toy = _Toy()
    drawn = torch.multinomial(toy.p_old, 8, replacement=True, generator=torch.Generator().manual_seed(0))
    weights, mask = leave_one_out(toy.rewards[drawn]), torch.ones(8, 3)
    return abs(round(policy_loss(toy.log_probs()[drawn], toy.old[drawn], weights, mask).item(), 10))


def _gradient_of_k1():
    toy = _moved()
    now = toy.log_probs().sum(1)
    found = toy.gradient((now.detach().exp() * (now - toy.old.sum(1))).sum())
    return "none" if found.norm() < 1e-10 else "some"


# ---- predictions -------------------------------------------------------------------------------------

predict_ratio = Prediction(
    "10/predict-ratio",
    "The model has moved three steps away from its draw. Which ratio makes the expected gradient exact again?",
    options=(
        Option("The text's ratio only", "It is importance sampling. The token's ratio leaves out how likely the tokens before it have become.", right=True, value=["text"]),
        Option("The token's ratio only", "A token's part should also count how likely the tokens before it have become, and its own ratio does not know.", value=["token"]),
        Option("Both", "They agree on a fresh draw, where both are 1. After a move only one of them stays exact.", value=["token", "text"]),
        Option("Neither", "One of them is importance sampling, which is exact for any two distributions with the same texts.", value=[]),
    ),
    proof=lambda: _unbiased(),
)  # fmt: skip

predict_case = Prediction(
    "10/predict-case",
    "A = 1, r = 0.5 and ε = 0.2. Which gradient arrives at log p of this token?",
    options=(
        Option("0.5: the clip does nothing here", "min(0.5, 0.8) is the unclipped 0.5. The token has moved the wrong way, and may come back.", right=True, value=0.5),
        Option("0: the ratio is outside 0.8 to 1.2", "The clipped term has no gradient, but the minimum takes the other one.", value=0.0),
        Option("0.8: the ratio is clipped to it", "The minimum of 0.5 and 0.8 is 0.5. A clipped ratio would have no gradient at all.", value=0.8),
    ),
    proof=lambda: _gradient_of_case(1.0, 0.5),
)  # fmt: skip

predict_clip = Prediction(
    "10/predict-clip",
    "Three steps after the draw the token's ratio points about right. What does the clip change?",
    options=(
        Option("The expected gradient points backwards", "The texts that moved the right way are dropped; what is left pulls back.", right=True, value="backwards"),
        Option("It comes closer to the exact gradient", "The clip drops terms, and those it drops are the ones that had moved in the right direction.", value="better"),
        Option("It is further off, but points about the same way", "So many terms are dropped by now that the direction turns round.", value="worse"),
    ),
    proof=lambda: _what_the_clip_does(),
)  # fmt: skip

predict_loss = NumberPrediction(
    "10/predict-loss",
    "Leave-one-out advantages, a fresh draw, no KL. What is the value of the loss?",
    key=0,
    unit="",
    why="Every ratio is 1, so the loss is minus the mean advantage, and the advantages of a group sum to 0.",
    wrong=(
        (1, "Every ratio is 1. But each is multiplied by an advantage, and those sum to 0."),
        (-1, "Every ratio is 1. But each is multiplied by an advantage, and those sum to 0."),
    ),
    otherwise="Put the ratio of a fresh draw into the objective: what is left is the mean of the advantages.",
    proof=lambda: _loss_of_a_fresh_draw(),
)

predict_k1 = Prediction(
    "10/predict-k1",
    "k1 is an unbiased estimate of the KL. What is the expected gradient of k1 as a loss?",
    options=(
        Option("Zero", "k1 = log p − log q, so its gradient is ∇log p, whose mean is 0: lesson 09's case without a reward.", right=True, value="none"),
        Option("The gradient of the KL", "Its value is right on average. The gradient would also have to follow the distribution of the texts.", value="exact"),
        Option("Something close to the gradient of the KL", "Its gradient does not contain q at all, so it cannot know where to go.", value="some"),
    ),
    proof=lambda: _gradient_of_k1(),
)  # fmt: skip

predict_wasted = NumberPrediction(
    "10/predict-wasted",
    "π = 0.9, groups of eight. How many per cent of the groups have eight equal rewards?",
    key=43,
    unit="%",
    tolerance=2,
    why="0.9⁸ + 0.1⁸ = 0.43: nearly half of the draws of an easy prompt are paid for and teach nothing.",
    wrong=((90, "That is the chance that one answer is right. All eight have to be equal."),),
    otherwise="All eight right: 0.9⁸. All eight wrong: 0.1⁸. Add the two.",
    proof=lambda: round(100 * (0.9**8 + 0.1**8)),
)


# ---- exercise 1 ----------------------------------------------------------------------------------------


def _drawn(seed, texts=4, tokens=5):
    """Log probabilities now, at the draw and of a reference, float64 [texts, tokens], far enough apart to clip."""
    generator = torch.Generator().manual_seed(seed)
    old, moves, reference = (
        torch.randn(texts, tokens, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    old = -old.abs() - 0.5
    return (old + 0.4 * moves).clamp(max=-0.01), old, old + 0.3 * reference


@exercise("10/clipped", title="Write the clipped objective", minutes=8, difficulty=2)
def check_clipped(answer):
    """Values and gradients of all four cases, on random numbers, with two different bounds."""
    for seed, low, high in ((0, 0.2, 0.2), (1, 0.1, 0.3)):
        now, old, _ = _drawn(seed)
        advantages = torch.tensor([1.5, -1.0, 0.5, -2.0], dtype=torch.float64)
        ratio, weight = (now - old).exp(), advantages[:, None]
        cut = ratio.clamp(1 - low, 1 + high)
        want = torch.minimum(ratio * weight, cut * weight)
        got = answer(now, old, advantages, low, high)
        expect_close(
            got,
            want,
            (now, old, advantages, low, high),
            "Take the minimum of r A and of the clipped r times A, token by token.",
            mistakes=[
                (cut * weight, "The ratio is only clipped. Take the minimum of r A and clip(r) A: without it, what moved the wrong way loses its gradient, too."),
                (torch.maximum(ratio * weight, cut * weight), "This is the maximum. The objective is to be made large, and the minimum is the cautious bound."),
                (ratio * weight, "Nothing is clipped here."),
                (-want, "The sign is that of a loss. Return the objective, which is to be made large."),
                (_objective(old - now, weight, low, high), "The ratio is the wrong way round: it is p_new / p_old, so `log_probs - old`."),
                (_ratio_not_exp(now, old, weight, low, high), "The difference of log probabilities is the *logarithm* of the ratio. Take `exp` of it."),
                (torch.minimum(ratio, cut) * weight, "The minimum is taken of the ratios, before the advantage. For a negative advantage that picks the other side."),
                (_objective(now - old, weight, high, low) if low != high else None, "The two bounds are exchanged: 1 − low below, 1 + high above."),
                (want.sum(1), "This is one number a text. Return one for each token."),
                (lambda got: getattr(got, "ndim", 0) == 0, "This is a single number. Return the objective of each token, (text, token)."),
            ],
            tolerance=1e-6,
        )  # fmt: skip
    now, old, _ = _drawn(2)
    leaf = now.clone().requires_grad_()
    advantages = torch.tensor([1.5, -1.0, 0.5, -2.0], dtype=torch.float64)
    value = answer.original(leaf, old, advantages, 0.2, 0.2)  # the learner's own: a copy has no graph
    if not value.requires_grad:
        raise Mistake("The values are right, but no gradient reaches the log probabilities. Leave out `detach` and `no_grad`.")  # fmt: skip
    (got,) = torch.autograd.grad(value.sum(), leaf)
    leaf = now.clone().requires_grad_()
    (want,) = torch.autograd.grad(library_clipped(leaf - old, advantages).sum(), leaf)
    if not torch.allclose(got, want, atol=1e-6):
        raise Mistake("The values are right, but the gradient is not that of the minimum. Is the ratio, or a part of it, detached?")  # fmt: skip
    return "Two of the four cases lose their gradient, and the other two keep all of it."


def _objective(change, weight, low, high):
    ratio = change.exp()
    return torch.minimum(ratio * weight, ratio.clamp(1 - low, 1 + high) * weight)


def _ratio_not_exp(now, old, weight, low, high):
    ratio = now - old
    return torch.minimum(ratio * weight, ratio.clamp(1 - low, 1 + high) * weight)


def usable_clipped(yours):
    """The learner's `clipped` if it passes its check, else the course's own. Prints which; never raises."""
    return usable(check_clipped, yours, _clipped, "clipped")


def _clipped(log_probs, old, advantages, low=0.2, high=0.2):
    return library_clipped(log_probs - old, advantages, (low, high))


# ---- exercise 2 ----------------------------------------------------------------------------------------


@exercise("10/grpo-loss", title="Write GRPO's loss", minutes=15, difficulty=3)
def check_grpo_loss(answer):
    """The loss of two prompts with padded answers, near and far from the draw, and its gradient."""
    for seed, clip, kl_weight in ((0, 0.2, 0.04), (1, 0.1, 0.5)):
        now, old, reference = _drawn(seed, texts=6)
        rewards = torch.tensor([[1.0, 0.0, 3.0], [10.0, 12.0, 11.5]], dtype=torch.float64)
        mask = torch.ones_like(now)
        mask[1, 2:] = mask[4, 3:] = mask[5, 4:] = 0
        terms = (now, old, reference, rewards, mask, clip, kl_weight)
        expect_close(
            answer(*terms),
            _grpo(*terms),
            terms,
            "Minus the clipped objective plus the weight times k3, token by token; then one mean over all tokens of the answers.",
            mistakes=[
                (-_grpo(*terms), "The sign is wrong: the loss is to be made small, so it is minus the objective, plus the KL."),
                (_grpo(*terms, advantages="batch"), "The advantages are made over the whole batch. A group is the texts of one prompt: `group_relative(rewards)`, then flatten."),
                (_grpo(*terms, average="texts"), "This is the mean of each text's mean. Here all tokens of all answers weigh alike: one sum over one sum."),
                (_grpo(*terms, average="no mask"), "The padding is counted. Multiply by the mask, and divide by the sum of the mask."),
                (_grpo(*terms, average="half mask"), "The sum leaves the padding out, but is divided by all cells. Divide by the sum of the mask."),
                (_grpo(*terms, kl="none"), "The KL term is missing."),
                (_grpo(*terms, kl="k1"), "The KL term is k1, d itself. Use k3: `(-d).exp() - 1 + d`."),
                (_grpo(*terms, kl="k2"), "The KL term is k2, d² / 2. Use k3: `(-d).exp() - 1 + d`."),
                (_grpo(*terms, kl="reversed"), "In k3, d is log p − log q, with the model first. Here it is the other way round."),
                (_grpo(*terms, kl="subtracted"), "The KL is subtracted from the loss: that pushes the model *away* from the reference."),
                (_grpo(*terms, clipping=False), "Nothing is clipped here."),
                (_grpo(old, now, reference, rewards, mask, clip, kl_weight, policy=now), "The ratio is the wrong way round: it is p_new / p_old."),
                (lambda got: getattr(got, "ndim", 0) != 0, "Return one number: the mean over all tokens."),
            ],
            tolerance=1e-6,
        )  # fmt: skip
    leaf = _drawn(2, texts=6)[0].requires_grad_()
    _, old, reference = _drawn(2, texts=6)
    given = (leaf, old, reference, rewards, torch.ones_like(old), 0.2)
    value = answer.original(*given, 0.5)
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        raise Mistake("The values are right, but no gradient reaches the log probabilities.")

    def slope(loss, weight):
        value = loss(*given, weight)
        return torch.autograd.grad(value, leaf)[0] if value.requires_grad else torch.zeros_like(leaf)

    ratio, both = ([slope(loss, weight) for loss in (answer.original, _grpo)] for weight in (0.0, 0.5))
    for name, found, wanted in (
        ("ratio", *ratio),
        ("KL term", *(one - other for one, other in zip(both, ratio, strict=True))),
    ):
        if not torch.allclose(found, wanted, atol=1e-6):
            raise Mistake(f"The values are right, but not the gradient of the {name}: part of it is detached, so the model does not learn from it.")  # fmt: skip
    return "Per prompt, per token, clipped, near its reference, and without the padding: this is GRPO's loss."


def _grpo(now, old, reference, rewards, mask, clip, kl_weight, *, advantages="prompt", average="tokens", kl="k3", clipping=True, policy=None):  # fmt: skip
    """GRPO's loss with one choice exchanged for a mistake."""
    policy = now if policy is None else policy
    weight = (
        group_relative(rewards) if advantages == "prompt" else group_relative(rewards.flatten())
    ).flatten()
    objective = library_clipped(now - old, weight, (clip, clip) if clipping else None)
    if kl == "none":
        penalty = torch.zeros_like(objective)
    elif kl in ("reversed", "subtracted"):
        penalty = (
            kl_estimates(reference, policy, "k3") if kl == "reversed" else -kl_estimates(policy, reference)
        )
    else:
        penalty = kl_estimates(policy, reference, kl)
    values = kl_weight * penalty - objective
    if average == "no mask":
        return values.mean()
    if average == "half mask":
        return (values * mask).sum() / mask.numel()
    if average == "texts":
        return ((values * mask).sum(1) / mask.sum(1)).mean()
    return (values * mask).sum() / mask.sum()


def usable_grpo_loss(yours):
    """The learner's `grpo_loss` if it passes its check, else the course's own. Prints which; never raises."""
    return usable(check_grpo_loss, yours, _own_grpo_loss, "grpo_loss")


def _own_grpo_loss(log_probs, old, reference, rewards, mask, clip=0.2, kl_weight=0.04):
    return _grpo(log_probs, old, reference, rewards, mask, clip, kl_weight)


# ---- exercise 3 ----------------------------------------------------------------------------------------

BUGS = (
    "right",
    "ratio reversed",
    "ratio detached",
    "mask missing in the mean",
    "old log probabilities recomputed",
    "advantages over the whole batch",
)


def _one(log_ratio, rewards, mask):
    advantages = group_relative(rewards).flatten()
    return -(library_clipped(log_ratio, advantages) * mask).sum() / mask.sum()


def _mask_missing(log_ratio, rewards):
    return -library_clipped(log_ratio, group_relative(rewards).flatten()).mean()


losses = {
    "A": lambda log_probs, old, rewards, mask: _one(old - log_probs, rewards, mask),
    "B": lambda log_probs, old, rewards, mask: _one(log_probs - old, rewards, mask),
    "C": lambda log_probs, old, rewards, mask: _mask_missing(log_probs - old, rewards),
    "D": lambda log_probs, old, rewards, mask: _one((log_probs - old).detach(), rewards, mask),
    "E": lambda log_probs, old, rewards, mask: _one(log_probs - log_probs.detach(), rewards, mask),
    "F": lambda log_probs, old, rewards, mask: _one(log_probs - old, rewards.flatten(), mask),
}
_DIAGNOSIS = dict(zip(losses, (BUGS[1], BUGS[0], BUGS[3], BUGS[2], BUGS[4], BUGS[5]), strict=True))
_SYMPTOMS = {
    "A": "on a fresh draw its gradient has the opposite sign of that of another",
    "B": "it passes every test",
    "C": "after a move, its value changes when a column of padding is added",
    "D": "its value carries no gradient",
    "E": "it gives the same value whatever `old` is",
    "F": "its value changes when 5 is added to all rewards of one prompt",
}


@exercise("10/diagnose", title="Diagnose six losses", minutes=12, difficulty=3)
def check_diagnosis(answer):
    """A letter for each of the six losses; a wrong one is told by its symptom."""
    if not isinstance(answer, dict):
        raise Mistake(f"Give a dictionary with the letters A to F; got {type(answer).__name__}.")
    if set(answer) != set(_DIAGNOSIS):
        missing = [letter for letter in _DIAGNOSIS if letter not in answer]
        unknown = [letter for letter in answer if letter not in _DIAGNOSIS]
        raise Mistake(f"There is no diagnosis for {missing[0]} yet." if missing else f"{unknown[0]!r} is not one of the letters A to F.")  # fmt: skip
    for letter, said in answer.items():
        if said not in BUGS:
            raise Mistake(f"{letter} has {said!r}. Give one of {', '.join(map(repr, BUGS))}.")
    wrong = [letter for letter, said in answer.items() if said != _DIAGNOSIS[letter]]
    if wrong:
        raise Mistake(f"{letter_names(wrong)} not right. Measure {wrong[0]} again: {_SYMPTOMS[wrong[0]]}.")
    return "Each bug has a symptom that one measurement shows, and none of them raises an error by itself."


def letter_names(letters):
    """ "A is", "A and B are": the letters as the subject of a sentence."""
    names = " and ".join(letters) if len(letters) < 3 else f"{', '.join(letters[:-1])} and {letters[-1]}"
    return f"{names} {'is' if len(letters) == 1 else 'are'}"


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "10/quiz-one-update",
        "A trainer takes one update per draw. What do the ratio and the clip change?",
        options=(
            Option("Nothing: all ratios are 1", "The gradient is REINFORCE's with the same advantages, to the last digit.", right=True),
            Option("They make the step more careful", "A clip at 0.8 and 1.2 does not touch a ratio of 1."),
            Option("They correct the bias of the draw", "A fresh draw has none: the texts come from the model itself."),
        ),
    ),
    Question(
        "10/quiz-zero",
        "The loss is 0 in the first update. What do you look at next?",
        options=(
            Option("The length of the gradient", "A fresh draw has the loss 0 and a gradient. If that is 0 too, look for a shape that broadcasts.", right=True),
            Option("The learning rate", "It does not change the loss of the first update."),
            Option("The reward function: it must be constant", "A constant reward also gives a loss of 0, but so does every group with leave-one-out advantages."),
            Option("Nothing: a loss of 0 means that training is over", "The value says nothing. Its gradient is REINFORCE's."),
        ),
    ),
    Question(
        "10/quiz-reward",
        "You subtract β times an estimate of the KL from the reward. Which estimate?",
        options=(
            Option("k1", "Its score-function gradient is exactly that of the KL.", right=True),
            Option("k3, since it is never negative", "In the reward it gives the difference of two gradients that nearly cancel, and points backwards."),
            Option("k2, since it is exact as a loss", "As a loss it is. In the reward its gradient is another."),
        ),
    ),
    Question(
        "10/quiz-length",
        "A wrong answer of 1 token and one of 4 tokens have the same advantage. The loss is the mean of each text's mean. Which is pushed down harder, all its tokens together?",
        options=(
            Option("Both alike, but each token of the long one a quarter as hard", "Each text counts once, and the long one spreads that over four tokens.", right=True),
            Option("The long one, since it has more tokens", "That would be one mean over all tokens."),
            Option("Both alike, token by token", "Each token of the long text has a quarter of the weight."),
        ),
    ),
)  # fmt: skip
