"""Teach a language model a small habit by policy gradient: draw texts, reward them, score them, take a step.

    prompt -> `sample`, without gradient -> texts -> a reward for each -> an advantage for each
    the drawn ids -> a second forward pass, with gradient -> log probabilities -> loss -> AdamW, one update

Only the last block and the final norm are trained (`trained_parts`); everything below is frozen. Autograd
then keeps nothing of the frozen blocks, and gradients and AdamW's two averages exist for the trained weights
only.
The method is an `objectives.Objective`: REINFORCE (Williams 1992) with a leave-one-out baseline, or PPO's and
GRPO's terms, by name.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .divergence import Scored, copy_into
from .errors import CourseError
from .inputs.limits import check_no_learned_prompt, unwrapped
from .inputs.numbers import above_zero, at_least, at_least_float32, real
from .objectives import REINFORCE, Objective
from .sampling import checked_seed, sample, seeded

MOST_KL = 6.0  # nats a token from the model that the run began with; further away it is no longer a habit


@dataclasses.dataclass(frozen=True)
class TrainingStep:
    """What one step saw and did.

    step, steps: int, its number from 1 and how many there will be
    reward:      float, mean over the texts, drawn before the step's update
    spread:      float, standard deviation of the rewards; at 0 there is nothing to learn from
    loss:        float, in the last update; its value says nothing, only its gradient does
    kl:          float, after the last update: KL divergence from the model as it was before the run, in nats
                 a token, averaged over the places of the drawn texts
    clipped:     float, the share of the drawn tokens whose gradient the clip dropped in the last update
    texts:       list of str, those of the first prompt first
    """

    step: int
    steps: int
    reward: float
    spread: float
    loss: float
    kl: float
    clipped: float
    texts: list


class Training:
    """A finished run. `steps` is a list of `TrainingStep`; `undo()` puts the old weights back."""

    def __init__(
        self, parameters: list[torch.nn.Parameter], before: list[torch.Tensor], steps: list[TrainingStep]
    ) -> None:
        self.steps = steps
        self._parameters, self._before = parameters, before

    def undo(self) -> None:
        """Give the model the weights back that it had before the run."""
        copy_into(self._parameters, self._before)

    def __repr__(self):
        first, last = self.steps[0], self.steps[-1]
        return f"{len(self.steps)} steps, mean reward from {first.reward:.2f} to {last.reward:.2f}"


def trained_parts(model: Any) -> list[torch.nn.Module]:
    """The last block and the final norm of a GPT-2 or Llama model: a list of two modules.

    They stand last before the head, so a gradient reaches them without passing through any other block.
    """
    model = unwrapped(model)
    check_no_learned_prompt(model, "train_habit")
    base = model.base_model
    for blocks, norm in (("layers", "norm"), ("h", "ln_f")):
        if hasattr(base, blocks) and hasattr(base, norm):
            return [getattr(base, blocks)[-1], getattr(base, norm)]
    raise CourseError(
        f"A {type(model).__name__} keeps its blocks under names that are not known here. Give a model built "
        'like Llama or GPT-2, such as load("tiny-gpt2")[0].'
    )


def train_habit(
    model: Any, tokenizer: Any, reward: Callable[[str], float], prompt: str | Sequence[str], steps: int = 10,
    samples: int = 24, new_tokens: int = 5, learning_rate: float = 3e-4, temperature: float = 0.7,
    seed: int | None = 0, on_step: Callable[[TrainingStep], Any] | None = None,
    objective: Objective = REINFORCE, updates: int = 1,
) -> Training:  # fmt: skip
    """Raise the mean reward of the texts that a model writes after prompts: `Training`. Changes the model.

    model:         a decoder-only model built like Llama or GPT-2, with its tokenizer
    reward:        a function of a text, without the prompt, that returns a finite number; more is better
    prompt:        str, not empty, or several; the texts of one prompt are a group
    steps:         int; each draws `samples` texts of at most `new_tokens` tokens after each prompt
    learning_rate: float above 0, of AdamW without weight decay
    temperature:   float above 0, of the draw and of the distribution that is trained
    seed:          int; the same seed draws the same texts on the same machine. None draws from torch's
                   global random state, which a seed leaves alone
    on_step:       a function of a `TrainingStep`, called after each step, such as `ProgressBar()`; or None
    objective:     `Objective`; its KL is from the model as it was before the run
    updates:       int, updates of the weights by the texts of one step. What the frozen blocks make of these
                   texts is computed once, so that an update is much cheaper than a draw

    Dropout is off throughout: the texts are drawn and scored by the same network.
    Raises CourseError for no prompt, for numbers out of range, for rewards that are not finite numbers or in
    the first step all the same, for a run that diverges (loss or weights that are not finite, or more than
    `MOST_KL` nats a token away from where it began), and when it is interrupted. Whatever is raised, the
    model's weights are then as they were before the run.
    """
    steps, samples = at_least(1, steps=steps), at_least(2, samples=samples)
    new_tokens, seed = at_least(1, new_tokens=new_tokens), checked_seed(seed)
    learning_rate, temperature = above_zero(learning_rate=learning_rate), above_zero(temperature=temperature)
    updates, prompts = at_least(1, updates=updates), _prompts(prompt)
    if not isinstance(objective, Objective):
        raise CourseError(
            f"The objective is of type {type(objective).__name__}. Give objectives.Objective()."
        )
    model = unwrapped(model)
    parts = trained_parts(model)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    records = []
    try:
        model.eval().requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        # In bfloat16 or float16 small updates would be rounded away, so AdamW moves copies in float32; other
        # weights are their own copies.
        masters = [at_least_float32(parameter.detach()) for parameter in parameters]
        optimizer = torch.optim.AdamW(masters, lr=learning_rate, weight_decay=0.0)
        with seeded(seed):
            for step in range(1, steps + 1):
                draws = [sample(model, tokenizer, one, samples, new_tokens, temperature) for one in prompts]
                rewards = [_rewards(reward, drawn.texts) for drawn in draws]
                if step == 1:
                    _check_some_differ(rewards)
                groups = [
                    _Group(Scored(model, parts, drawn, temperature), drawn, of_texts, objective, before)
                    for drawn, of_texts in zip(draws, rewards, strict=True)
                ]
                loss, clipped = _update(groups, parameters, optimizer, objective, updates)
                tokens = [int(drawn.drawn.sum()) for drawn in draws]
                kls = [group.scored.kl(before) * count for group, count in zip(groups, tokens, strict=True)]
                kl, everyone = sum(kls) / sum(tokens), torch.cat(rewards)
                _check_progress(step, steps, loss, kl, learning_rate)
                spread = everyone.std().item() if _differ(everyone) else 0.0
                texts = [text for drawn in draws for text in drawn.texts]
                records.append(
                    TrainingStep(step, steps, everyone.mean().item(), spread, loss, kl, clipped, texts)
                )
                if on_step is not None:
                    on_step(records[-1])
    except KeyboardInterrupt:
        copy_into(parameters, before)
        raise CourseError(
            f"Stopped after {len(records)} of {steps} steps. The model's weights are as they were before the "
            "run. Run the cell again to train."
        ) from None
    except BaseException:
        copy_into(parameters, before)
        raise
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag, gradient in flags:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
    return Training(parameters, before, records)


class ProgressBar:
    """An `on_step` that shows in a notebook how far a run has come, in one output that is drawn anew."""

    def __init__(self) -> None:
        self._handle, self._step, self._steps = None, 0, 1

    def __call__(self, step):
        from IPython.display import display

        self._step, self._steps = step.step, step.steps
        if self._handle is None or step.step == 1:
            self._handle = display(self, display_id=True)
        elif self._handle is not None:
            self._handle.update(self)

    def __repr__(self):
        done = round(20 * self._step / self._steps)
        return f"{'█' * done}{'░' * (20 - done)} step {self._step} of {self._steps}"

    def _repr_html_(self):
        text = f"step {self._step} of {self._steps}"
        return f'<progress value="{self._step}" max="{self._steps}" aria-label="{text}"></progress> {text}'


class _Group:
    """The texts of one prompt, with their advantages. All tensors are [texts, tokens] but for these."""

    def __init__(self, scored, drawn, rewards, objective, before):
        self.scored, self.mask = scored, drawn.drawn
        self._tokens = drawn.sequences[:, drawn.prompt_length :, None]
        self.first = self._picked(scored.log_probs)
        self.old = self.first.detach()
        self.reference = self._picked(scored.of(before)) if objective.kl_weight else self.old
        advantages = objective.advantages(rewards.to(self.old.device), self.old, self.mask, self.reference)
        self.advantages = advantages.to(self.old)

    def now(self):
        return self._picked(self.scored.again())

    def _picked(self, log_probs):
        return log_probs.gather(-1, self._tokens).squeeze(-1).masked_fill(~self.mask, 0.0)


def _update(groups, parameters, optimizer, objective, updates):
    """`updates` steps of AdamW: (loss, clipped), both float. Equal rewards have no advantage, and change
    nothing."""
    old, mask, reference = (_joined(groups, name) for name in ("old", "mask", "reference"))
    advantages = torch.cat([group.advantages for group in groups])
    loss = clipped = 0.0
    for number in range(updates):
        log_probs = _stacked([group.now() if number else group.first for group in groups])
        objected = objective.loss(log_probs, old, advantages, mask, reference)
        loss, clipped = objected.item(), objective.dropped(log_probs, old, advantages, mask)
        if not (advantages.any() or (objective.kl_weight and objective.kl_in == "loss")):
            break
        objected.backward()
        masters = optimizer.param_groups[0]["params"]
        for parameter, master in zip(parameters, masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.to(master)
            parameter.grad = None
        optimizer.step()
        copy_into(parameters, masters)
    return loss, clipped


def _joined(groups, name):
    return _stacked([getattr(group, name) for group in groups])


def _stacked(tensors):
    """Tensors [texts, tokens] below one another, the shorter ones with zeros on the right."""
    width = max(tensor.shape[1] for tensor in tensors)
    return torch.cat([torch.nn.functional.pad(one, (0, width - one.shape[1])) for one in tensors])


def _prompts(prompt) -> list:
    """One prompt or several as a list; what each of them is, `sample` checks."""
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    if not prompts:
        raise CourseError('There is no prompt. Give at least one: "My dog is".')
    return prompts


def _rewards(reward, texts):
    """The reward of each text: float64 [samples]."""
    numbers = []
    for text in texts:
        found = reward(text)
        number = real(found)
        if number is None:
            kind = type(found).__name__
            if isinstance(found, torch.Tensor):
                kind = f"tensor of the shape {tuple(found.shape)}"
            raise CourseError(
                f"The reward of {text!r} is a {kind}, and it needs to be one number. "
                "Return a single number for a text, such as float('e' not in text)."
            )
        if not math.isfinite(number):
            raise CourseError(
                f"The reward of {text!r} is {number}. Make it a finite number for every text, an empty one "
                "too."
            )
        numbers.append(number)
    return torch.tensor(numbers, dtype=torch.float64)


def _check_some_differ(rewards):
    """Raise CourseError where in no group one text is better than another."""
    if any(map(_differ, rewards)):
        return
    texts = rewards[0]
    what = f"All {len(texts)} texts of the first step have the reward {texts[0].item():g}"
    if len({group[0].item() for group in rewards}) > 1:
        what = "In the first step all texts of a prompt have the same reward"
    raise CourseError(
        f"{what}, so there is nothing to learn from. Reward something that some of the texts have and others "
        "have not."
    )


def _differ(rewards):
    return bool(rewards.min() < rewards.max())  # a standard deviation of equal numbers is not always 0


def _check_progress(step, steps, loss, kl, learning_rate):
    if math.isfinite(loss) and kl <= MOST_KL:  # a kl of NaN is not
        return
    what = "its numbers are no longer finite"
    if kl > MOST_KL:
        what = f"the model is more than {MOST_KL:g} nats a token away from where it began"
    raise CourseError(
        f"The run has diverged in step {step} of {steps}: {what}. The model's weights are as they were "
        f"before the run. Try a smaller learning rate, learning_rate={learning_rate / 10:g}."
    )
