"""Lesson 09: predictions, exercise checks and quiz. The helpers whose names begin with `_` compute the answers."""

import functools

import torch

from ...checks.exercise import Mistake, exercise, expect_close
from ...checks.quiz import NumberPrediction, Option, Prediction, Question
from ...gradients import (
    ESTIMATORS,
    Problem,
    group_mean,
    group_relative,
    leave_one_out,
    measure,
    random_rewards,
    toy_model,
)
from ...masks import position_ids
from ...models import load
from .broken_loop import check_train

__all__ = [
    "check_leave_one_out",
    "check_log_probs_of",
    "check_train",
    "quiz",
    "situations",
]


# ---- predictions -------------------------------------------------------------------------------------

predict_end = Prediction(
    "09/predict-end",
    "With labels by id, no label names the end-of-text. What do the other labels do to its logit?",
    options=(
        Option("Each of them pushes it down", "By the end's probability at that step, which is above 0.", right=True, value="down"),
        Option("They leave it alone", "No label names it, but it is part of every softmax, so every label has a gradient for it.", value="alone"),
        Option("They push it up when the text is nearly over", "Only a label that names a token pushes its logit up. The last label here is the full stop.", value="up"),
    ),
    proof=lambda: _pull_on_others(),
)  # fmt: skip

predict_no_reward = Prediction(
    "09/predict-no-reward",
    "A model draws texts and is trained on them by teacher forcing, with R = 1. Where does the gradient point, on average over all draws?",
    options=(
        Option("Nowhere: it is zero", "It is the gradient of the sum of all probabilities, which is 1 for any weights.", right=True, value="zero"),
        Option("Towards texts that are already likely", "Those are drawn more often, but each push on them is smaller, and everything cancels exactly.", value="likely"),
        Option("Towards texts that are rare", "A rare text gets a larger push, but is drawn correspondingly rarely. Everything cancels exactly.", value="rare"),
    ),
    proof=lambda: _without_reward(),
)  # fmt: skip

predict_shift = Prediction(
    "09/predict-shift",
    "Every reward grows by 5. What happens to REINFORCE's bias and to its noise?",
    options=(
        Option("The bias stays 0, the noise grows", "5 · ∇log p has mean 0, and it is added to every estimate.", right=True, value=(False, True)),
        Option("The bias grows, the noise stays", "The mean of 5 · ∇log p is 0, so the mean of the estimates stays the same. Single estimates do not.", value=(True, False)),
        Option("Both stay", "The mean stays. But each estimate now contains 5 times a random ∇log p.", value=(False, False)),
        Option("Both grow", "What is added has mean 0, so it adds no bias.", value=(True, True)),
    ),
    proof=lambda: _after_shift(),
)  # fmt: skip

predict_group = Prediction(
    "09/predict-group",
    "For groups of two, what is the expected estimate if the baseline is the *group mean*, which includes the text's own reward?",
    options=(
        Option("Half the exact gradient", "The baseline subtracts 1/2 of the text's own reward: (samples − 1) / samples is left.", right=True, value="half"),
        Option("The exact gradient", "That needs a baseline that does not depend on the text. This one contains its reward.", value="exact"),
        Option("Something that points elsewhere", "The result is leave-one-out times (samples − 1) / samples: the direction is right.", value="elsewhere"),
    ),
    proof=lambda: _group_of_two(),
)  # fmt: skip

predict_stale = NumberPrediction(
    "09/predict-stale",
    "We make ten updates with AdamW, each with steps of about 0.001. How large is the largest change of a weight?",
    key=0.0,
    tolerance=0.0004,
    why="No weight changes. AdamW skips weights whose `grad` is None, and no gradient arrives.",
    wrong=(
        (0.01, "Ten steps of 0.001 would give that, if each weight had a gradient. Does one arrive?"),
        (0.001, "That would be one step. But the first update is cut off just like the later ones."),
    ),
    otherwise="`recorded` is a leaf now. Follow the gradient: where does it stop?",
    proof=lambda: _stale_change(),
)

predict_more_samples = Prediction(
    "09/predict-more-samples",
    "We go from 8 texts per estimate to 128. What happens to the bias of *straight-through on a sample*?",
    options=(
        Option("It stays", "Its mean is the gradient of something else. More draws only estimate that mean more exactly.", right=True, value="stays"),
        Option("It falls to about a quarter", "That is what the noise does: it falls with the square root of the number of texts. The bias remains.", value="falls"),
        Option("It grows", "The expected estimate does not depend on the number of texts at all.", value="grows"),
    ),
    proof=lambda: _bias_of_many(),
)  # fmt: skip


@functools.cache
def _problem(seed=0):
    return Problem(toy_model(seed=seed), random_rewards(seed=seed))


def _pull_on_others():
    """The gradient of cross-entropy at a logit that no label names: its sign, over many labels."""
    logits = torch.randn(100, 6, generator=torch.Generator().manual_seed(9)).requires_grad_()
    labels = torch.arange(100) % 5  # never token 5
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), logits)
    if not gradient[:, 5].any():
        return "alone"
    return "down" if (gradient[:, 5] > 0).all() else "up"


def _without_reward():
    problem = _problem()
    return "zero" if (problem.probs @ problem.scores).abs().max() < 1e-10 else "somewhere"


def _after_shift():
    """Whether the exact mean moves, and whether the exact noise grows."""
    problem = _problem()
    rewards = problem.rewards.flatten()
    means = [(problem.probs * (rewards + shift)) @ problem.scores for shift in (0, 5)]
    squares = problem.scores.square().sum(1)
    noise = [
        (problem.probs * (rewards + shift).square() * squares).sum() - mean.square().sum()
        for shift, mean in zip((0, 5), means, strict=True)
    ]
    return bool((means[1] - means[0]).abs().max() > 1e-10), bool(noise[1] > 1.5 * noise[0])


def _group_of_two():
    problem = _problem()
    rewards = problem.rewards.flatten()
    pairs = torch.stack(torch.broadcast_tensors(rewards[:, None], rewards), dim=-1)
    weighed = (problem.probs[:, None] * problem.probs)[..., None] * group_mean(pairs) / 2
    mean = (weighed[..., 0].sum(1) + weighed[..., 1].sum(0)) @ problem.scores
    for share, name in ((0.5, "half"), (1.0, "exact")):
        if torch.allclose(mean, share * problem.gradient, atol=1e-10):
            return name
    return "elsewhere"


def _stale_change():
    model = toy_model(4)
    before = [weight.detach().clone() for weight in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters())
    recorded = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    for _ in range(10):
        optimizer.zero_grad()
        (recorded * torch.arange(8)).mean().backward()
        optimizer.step()
    pairs = zip(model.parameters(), before, strict=True)
    return max((now - then).abs().max().item() for now, then in pairs)


def _bias_of_many():
    estimator = next(one for one in ESTIMATORS if one.name == "straight-through, sample")
    problem, generator = _problem(4), torch.Generator().manual_seed(5)
    few, many = (
        measure(problem, estimator.estimates(problem, samples, 40, generator)).bias for samples in (8, 128)
    )
    if many > few + 0.2:
        return "grows"
    return "falls" if many < few / 3 else "stays"


# ---- exercise 1 --------------------------------------------------------------------------------------


@exercise("09/log-probs-of", title="Compute the log probabilities of a draw", minutes=10, difficulty=3)
def check_log_probs_of(answer):
    """On tiny models, one batch padded on the left: values compared with the draw's own, and a gradient that arrives."""
    for name in ("tiny-gpt2", "tiny-llama"):
        model, sequences, mask, temperature, recorded = _drawn(name)
        got = answer(model, sequences, mask, temperature)
        _check_shape(got, recorded, sequences)
        if not torch.allclose(got.detach().float(), recorded, atol=1e-3):
            expect_close(
                got.detach().float(),
                recorded,
                f"a batch of {len(mask)} drawn from {name} at temperature {temperature}",
                "Compute the log probability of each new token in one forward pass, with the mask, the position ids and the temperature of the draw.",
                _slips(model, sequences, mask, temperature),
                tolerance=1e-3,
            )
        if not got.requires_grad:
            raise Mistake(
                "The numbers are right, but they carry no gradient, just like `recorded`. Run the second pass "
                "without `no_grad`, and do not detach."
            )
        weight = next(model.parameters())
        if torch.autograd.grad(got.sum(), weight, allow_unused=True)[0] is None:
            raise Mistake(
                "The numbers are right, but their gradient does not reach the model's weights. "
                "`requires_grad_()` makes a new leaf: keep the graph of the second pass, and do not detach."
            )
    return "The same log probabilities as in the draw, in one forward pass, and with a gradient."


@functools.cache
def _drawn(name, new=4):
    """A model, what it drew, the prompts' mask, the temperature, and the log probabilities of the draw."""
    model, _ = load(name, device="cpu")
    rows = torch.tensor([[0, 0, 0, 3666, 3290], [40, 765, 0, 4483, 257]])  # one 0 is a token of the prompt
    mask, temperature = torch.tensor([[0, 0, 0, 1, 1], [1] * 5]), 0.7
    if name == "tiny-llama":  # one row without padding, at another temperature
        rows, mask, temperature = rows[1:], mask[1:], 1.3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        output = model.generate(
            rows, attention_mask=mask, do_sample=True, temperature=temperature, top_k=0, max_new_tokens=new,
            eos_token_id=None, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
    sequences = output.sequences
    return model, sequences, mask, temperature, _picked(torch.stack(output.scores, dim=1), sequences)


def _picked(logits, sequences):
    """log p of the last tokens of `sequences`, one for each row of logits: (batch, new)."""
    new = sequences[:, -logits.shape[1] :]
    return logits.log_softmax(-1).gather(-1, new[..., None]).squeeze(-1)


def _check_shape(got, want, sequences):
    if not isinstance(got, torch.Tensor):
        raise Mistake("Return a tensor, (batch, new): a Python number or list has no gradient.")
    if got.shape == (*want.shape, 1):
        raise Mistake("`gather` leaves a last dimension of size 1. `squeeze(-1)` removes it.")
    if got.shape in ((len(want),), ()):
        raise Mistake("This is already a sum. Return one number for each new token: (batch, new).")
    if got.shape[:2] in (tuple(sequences.shape), (len(want), sequences.shape[1] - 1)) and got.ndim == 2:
        raise Mistake("The prompts' tokens are included, too. Keep only the new ones, the last columns.")
    if got.shape != want.shape:
        raise Mistake(f"The result has shape {tuple(got.shape)}, expected (batch, new) = {tuple(want.shape)}.")  # fmt: skip


def _slips(model, sequences, mask, temperature):
    """The known wrong answers, on these inputs, with their messages."""
    new = sequences.shape[1] - mask.shape[1]
    whole = torch.nn.functional.pad(mask, (0, new), value=1)
    masked, placed = {"attention_mask": whole}, {"position_ids": position_ids(whole)}
    by_id, short = (sequences != 0).long(), torch.nn.functional.pad(mask, (0, new))
    without_new = {"attention_mask": short, "position_ids": (short.cumsum(1) - 1).clamp(min=0)}

    def logits(shift=1, /, **given):
        with torch.no_grad():
            found = model(sequences, **given).logits
        return found[:, found.shape[1] - new - shift : found.shape[1] - shift]

    right = logits(**masked, **placed)
    unmasked = logits(**placed)
    slips = [
        (_picked(right, sequences), "The temperature is missing. These are the model's own log probabilities, not those of the draw."),
        (_picked(right * temperature, sequences), "The logits are multiplied by the temperature. `generate()` divides them by it."),
        (_picked(right, sequences) / temperature, "The temperature is applied after the softmax here, so the result is not a distribution. Divide the logits."),
        (_picked(logits(0, **masked, **placed) / temperature, sequences), "Nothing is shifted: the logits at index t predict the token at index t + 1."),
        (_picked(right / temperature, sequences).exp(), "These are probabilities. Return their logarithms."),
        (-_picked(right / temperature, sequences), "The sign is wrong: a log probability is at most 0."),
        ((right / temperature).gather(-1, sequences[:, -new:, None]).squeeze(-1), "These are logits, which are not normalised. `log_softmax(-1)` comes before gathering."),
        (_picked(logits(attention_mask=by_id, position_ids=position_ids(by_id)) / temperature, sequences), "The mask is made from an id. A prompt may contain that token, too: `prompt_mask` says what is padding."),
        (_picked(logits(**without_new) / temperature, sequences), "The new tokens are masked. They are tokens: append a 1 for each to `prompt_mask`."),
        ((right / temperature).log_softmax(-1).amax(-1), "These are the likeliest tokens' log probabilities. Gather those of the drawn tokens."),
    ]  # fmt: skip
    if (mask == 0).any():  # without padding these are right
        slips += [
            (_picked(logits(**masked) / temperature, sequences), "The position ids are missing: `forward` counts padding tokens, too. Count tokens only, and pass `position_ids`."),
            (_picked(logits() / temperature, sequences), "Neither the mask nor position ids are passed, so the padding is read as text."),
            (_picked(unmasked / temperature, sequences), "The mask is missing, so the padding is read as text."),
        ]  # fmt: skip
    return slips


# ---- exercise 2 --------------------------------------------------------------------------------------


@exercise("09/leave-one-out", title="Leave one out", minutes=6, difficulty=2)
def check_leave_one_out(answer):
    """Groups in tensors of one, two and three dimensions, with two texts in a group, too."""
    generator = torch.Generator().manual_seed(9)
    for shape in ((4,), (3, 5), (2, 3, 2)):
        rewards = torch.randint(-9, 10, shape, generator=generator).double() / 2
        want = leave_one_out(rewards)
        got = answer(rewards)
        mean = rewards.mean(-1, keepdim=True)
        over_all = (rewards - rewards.mean()) * rewards.numel() / (rewards.numel() - 1)
        first = leave_one_out(rewards.transpose(0, -1)).transpose(0, -1) if rewards.shape[0] > 1 else None
        expect_close(
            got.to(want.dtype) if isinstance(got, torch.Tensor) else got,
            want,
            (rewards,),
            "Subtract from each reward the mean of the others in its group.",
            [
                (rewards - mean, "The baseline is the mean of the whole group, including the text's own reward. Leave that one out."),
                (rewards - want, "This is the baseline. Return the reward minus the baseline."),
                (-want, "The sign is wrong: a text that is better than the others should get a weight above 0."),
                (group_relative(rewards), "This is divided by the standard deviation, which makes the estimate biased. Subtract only."),
                (rewards - (rewards.sum(-1, keepdim=True) - rewards), "The *sum* of the others is subtracted. Divide it by their number."),
                (rewards - (rewards.sum(-1, keepdim=True) - rewards) / rewards.shape[-1], "The sum of the others is divided by the size of the whole group. There is one fewer."),
                (rewards - rewards.sum(-1, keepdim=True) / (rewards.shape[-1] - 1), "The text's own reward is still in the sum, although the divisor leaves it out."),
                (over_all if len(shape) > 1 else None, "The mean runs over all groups. Each group, the last dimension, has its own."),
                (first if len(shape) > 1 else None, "The groups are the last dimension. Your result uses the first."),
            ],
            tolerance=1e-4,
        )  # fmt: skip
    return "Each text is compared with the others in its group, and what all rewards share cancels."


# ---- four situations, and the quiz -------------------------------------------------------------------

_REINFORCE, _GUMBEL, _FORCING = "Leave-one-out on drawn texts", "Gumbel-softmax", "Teacher forcing"

situations = (
    Question(
        "09/situation-programs",
        "A model writes programs; the reward is 1 if a program passes its tests. You can draw eight programs for each task.",
        options=(
            Option(_REINFORCE, "A test run gives a value but no derivative, and the eight serve as each other's baseline.", right=True),
            Option(_GUMBEL, "A mixture of tokens is not a program: it cannot be run, and passing tests has no derivative."),
            Option("Straight-through on argmax", "In the forward pass that is a real program, but the backward pass needs the derivative of a test run."),
            Option(f"{_FORCING} on all drawn programs", "Without the reward this is a random walk: its expected gradient is 0."),
        ),
    ),
    Question(
        "09/situation-answers",
        "There are 10,000 questions, each with the exact answer that the model should give.",
        options=(
            Option(_FORCING, "The answer is known, and one forward pass covers all of its tokens, without noise and without drawing.", right=True),
            Option(_REINFORCE, "It would have to draw until it hits the answer by chance, although we could show it the answer."),
            Option("Soft embeddings", "They replace the choice of a token. Here no token needs to be chosen."),
            Option("Group relative on drawn texts", "If no drawn text is right, all rewards are equal, and nothing is learned from that question."),
        ),
    ),
    Question(
        "09/situation-switch",
        "Inside a network, one of four blocks is chosen for each input. Everything after it is differentiable, even for a mixture of blocks. Noise is a problem; a small bias is acceptable.",
        options=(
            Option(_GUMBEL, "The derivative exists, so use it: you get less noise for some bias, and the temperature trades one for the other.", right=True),
            Option("REINFORCE without a baseline", "It is unbiased, but the noisiest choice of all. It does not use the derivative."),
            Option("argmax", "Then the loss is flat, with cliffs, along every weight before the choice."),
            Option(_FORCING, "Nobody knows which block is the right one, so there is nothing to force."),
        ),
    ),
    Question(
        "09/situation-dear",
        "Each text costs an hour to judge, so one is drawn at a time. All rewards lie between 90 and 100.",
        options=(
            Option("REINFORCE with the mean of earlier rewards as a baseline", "It subtracts the 90 that all rewards share, and does not depend on the current text.", right=True),
            Option("REINFORCE with the rewards as they are", "It is unbiased, but each estimate contains about 95 times a random ∇log p."),
            Option(_REINFORCE, "It needs other texts in the group, but there is one text at a time."),
            Option("Group relative", "A group of one has no spread to divide by, and its mean is the text's own reward."),
        ),
    ),
)  # fmt: skip

quiz = (
    Question(
        "09/quiz-draw",
        "Texts are drawn at `temperature=0.7, top_p=0.9`. The second pass divides the logits by 0.7 and takes `log_softmax`. What is wrong?",
        options=(
            Option("The tokens that top-p removed have probability again", "In the draw they had 0, so the numbers are those of another distribution. Draw with `top_p=1.0`.", right=True),
            Option("Nothing", "It would be right for the temperature alone. Top-p changed the distribution after that."),
            Option("The temperature belongs to the draw only", "We train the distribution that was drawn from, so the temperature belongs to both."),
            Option("The division has to come after the softmax", "Then the probabilities would not sum to 1. The temperature divides the logits."),
        ),
    ),
    Question(
        "09/quiz-baseline",
        "What may a baseline depend on if the estimate must stay unbiased? Mark all.",
        options=(
            Option("The prompt", "Then all texts of a prompt share the number, and a shared number cancels in the mean.", right=True),
            Option("The rewards of the other texts", "They are drawn independently of this text. That is leave-one-out.", right=True),
            Option("The rewards of earlier steps", "They are known before this text is drawn.", right=True),
            Option("The text's own reward", "Then it subtracts part of what should be learned, as the group mean does."),
        ),
        several=True,
    ),
    Question(
        "09/quiz-loss",
        "In a policy-gradient run the loss goes from −0.2 to 0.1 while the mean reward rises. What does that tell you?",
        options=(
            Option("Nothing: only the loss's gradient has a meaning", "Its value is a mean of advantages times log probabilities, and the advantages are relative to the batch.", right=True),
            Option("The model gets worse", "The mean reward tells how well it does, and that rises."),
            Option("The learning rate is too large", "A run that diverges shows in the KL divergence and in the texts."),
            Option("The sign of the loss is wrong", "With a wrong sign the mean reward would fall."),
        ),
    ),
    Question(
        "09/quiz-unbiased",
        "An estimator is unbiased. What do we know about a single estimate?",
        options=(
            Option("Only that the mean of many of them would be right", "One estimate may point anywhere. The noise tells how far off it typically is.", right=True),
            Option("It is better than any biased one", "A biased estimate with little noise can be closer to the gradient."),
            Option("It points uphill, even if not very precisely", "With large noise it may well point downhill."),
            Option("It becomes exact with a smaller learning rate", "Small steps average over more estimates. Each estimate stays as noisy as before."),
        ),
    ),
)  # fmt: skip
