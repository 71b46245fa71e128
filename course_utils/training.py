"""Teach a language model a small habit by policy gradient: draw texts, reward them, score them, take a step.

    prompt -> `sample`, without gradient -> texts -> a reward for each -> `leave_one_out`: a weight for each
    the drawn ids -> a second forward pass, with gradient -> log probabilities -> loss -> AdamW, one step

Only the last block and the final norm are trained (`trained_parts`); everything below is frozen. Autograd
then keeps nothing of the frozen blocks, and gradients and AdamW's two averages exist for the trained weights
only.
The method is REINFORCE (Williams 1992) with the leave-one-out baseline of `gradients.leave_one_out`.
"""

import dataclasses
import math

import numpy
import torch

from .arguments import position_limit
from .errors import CourseError, check_characters
from .gradients import leave_one_out

MOST_KL = 6.0  # nats a token from the model that the run began with; further away is no habit


@dataclasses.dataclass(frozen=True)
class Samples:
    """Texts that a model has drawn after a prompt.

    sequences:     LongTensor [samples, prompt + new], the prompt's ids and the drawn ones
    prompt_length: int
    drawn:         BoolTensor [samples, new], True up to and with a row's end of text; padding follows
    texts:         list of str, without the prompt
    """

    sequences: torch.Tensor
    prompt_length: int
    drawn: torch.Tensor
    texts: list


@dataclasses.dataclass(frozen=True)
class TrainingStep:
    """What one step saw and did.

    step, steps: int, its number from 1 and how many there will be
    reward:      float, mean over the texts, drawn before the step's update
    spread:      float, standard deviation of the rewards; at 0 there is nothing to learn from
    loss:        float, -mean(advantage * log p); its value says nothing, only its gradient does
    kl:          float, after the update: KL divergence from the model as it was before the run, in nats a
                 token, averaged over the places of the drawn texts
    texts:       list of str
    """

    step: int
    steps: int
    reward: float
    spread: float
    loss: float
    kl: float
    texts: list


class Training:
    """A finished run. `steps` is a list of `TrainingStep`; `undo()` puts the old weights back."""

    def __init__(self, parameters, before, steps):
        self.steps = steps
        self._parameters, self._before = parameters, before

    def undo(self):
        """Give the model the weights back that it had before the run."""
        _restore(self._parameters, self._before)

    def __repr__(self):
        first, last = self.steps[0], self.steps[-1]
        return f"{len(self.steps)} steps, mean reward from {first.reward:.2f} to {last.reward:.2f}"


def trained_parts(model):
    """The last block and the final norm of a GPT-2 or Llama model: a list of two modules.

    They stand last before the head, so a gradient reaches them without passing through any other block.
    """
    base = model.base_model
    for blocks, norm in (("layers", "norm"), ("h", "ln_f")):
        if hasattr(base, blocks) and hasattr(base, norm):
            return [getattr(base, blocks)[-1], getattr(base, norm)]
    raise CourseError(
        f"A {type(model).__name__} keeps its blocks under names that are not known here. Give a model built "
        'like Llama or GPT-2, such as load("tiny-gpt2")[0].'
    )


def sample(model, tokenizer, prompt, samples=24, new_tokens=5, temperature=0.7, seed=None):
    """Draw texts after one prompt, without gradient: `Samples`.

    tokenizer:   its end of text ends a row; where it has none, every row has `new_tokens` tokens
    prompt:      str, not empty
    samples:     int, how many; new_tokens: int, how many tokens at most in each
    temperature: float above 0; no other processor, so the distribution is softmax(logits / temperature)
    seed:        int, leaves torch's global random state alone; None draws from that
    Raises CourseError for a prompt that is no text or has no tokens, and where the model has fewer positions.
    """
    if not isinstance(prompt, str):
        raise CourseError(f'The prompt is of type {type(prompt).__name__}. Type one text, such as "I like".')
    check_characters(prompt, "the prompt")
    inputs = tokenizer([prompt] * samples, return_tensors="pt", verbose=False).to(model.device)
    length, end = inputs.input_ids.shape[1], tokenizer.eos_token_id
    if length == 0:
        raise CourseError('The prompt is empty. Type a beginning of a text, such as "I like".')
    limit, needed = position_limit(model), length + new_tokens  # the second pass reads the last one too
    if limit is not None and needed > limit:
        raise CourseError(
            f"The prompt has {length:,} tokens, and {new_tokens:,} new ones make {needed:,}. The model has "
            f"{limit:,} positions: take {needed - limit:,} tokens or more away."
        )
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        sequences = model.generate(
            **inputs, do_sample=True, temperature=float(temperature), top_k=0, max_new_tokens=new_tokens,
            eos_token_id=end, pad_token_id=end, top_p=1.0, repetition_penalty=1.0,  # whatever the model's own
        )  # fmt: skip
    answers = sequences[:, length:]
    is_end = (answers == (-1 if end is None else end)).long()  # no id is -1
    drawn = is_end.cumsum(1) - is_end == 0  # no end before this place
    texts = [
        tokenizer.decode(row[keep], skip_special_tokens=True)
        for row, keep in zip(answers, drawn, strict=True)
    ]
    return Samples(sequences, length, drawn, texts)


def train_habit(
    model, tokenizer, reward, prompt, steps=10, samples=24, new_tokens=5, learning_rate=3e-4,
    temperature=0.7, seed=0, on_step=None,
):  # fmt: skip
    """Raise the mean reward of the texts that a model writes after a prompt: `Training`. Changes the model.

    model:         a decoder-only model built like Llama or GPT-2, with its tokenizer
    reward:        a function of a text, without the prompt, that returns a finite number; more is better
    prompt:        str, not empty
    steps:         int, updates of the weights; each draws `samples` texts of at most `new_tokens` tokens
    learning_rate: float above 0, of AdamW without weight decay
    temperature:   float above 0, of the draw and of the distribution that is trained
    seed:          int; the same seed draws the same texts on the same machine
    on_step:       a function of a `TrainingStep`, called after each step, such as `ProgressBar()`; or None

    Dropout is off throughout: the texts are drawn and scored by the same network.
    Raises CourseError for numbers out of range, for rewards that are no finite numbers or in the first step
    all the same, for a run that diverges (loss or weights that are not finite, or more than `MOST_KL` nats a
    token away from where it began), and when it is interrupted. Whatever is raised, the model's weights are
    then as they were before the run.
    """
    _check_numbers(steps, samples, new_tokens, learning_rate, temperature)
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
        optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for step in range(1, steps + 1):
                drawn = sample(model, tokenizer, prompt, samples, new_tokens, temperature)
                rewards = _rewards(reward, drawn.texts, first=step == 1).to(model.device)
                loss, kl = _update(model, parts, before, optimizer, drawn, rewards, temperature)
                _check_progress(step, steps, loss, kl, learning_rate)
                spread = rewards.std().item()
                records.append(
                    TrainingStep(step, steps, rewards.mean().item(), spread, loss, kl, drawn.texts)
                )
                if on_step is not None:
                    on_step(records[-1])
    except KeyboardInterrupt:
        _restore(parameters, before)
        raise CourseError(
            f"Stopped after {len(records)} of {steps} steps. The model's weights are as they were before the "
            "run. Run the cell again to train."
        ) from None
    except BaseException:
        _restore(parameters, before)
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

    def __init__(self):
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


def _update(model, parts, before, optimizer, drawn, rewards, temperature):
    """One step of AdamW: (loss, kl), both float. Equal rewards have no advantage, and change nothing."""
    answers = drawn.sequences[:, drawn.prompt_length :]
    caught = {}
    hook = parts[0].register_forward_pre_hook(
        lambda block, args, kwargs: caught.update(args=args, kwargs=kwargs), with_kwargs=True
    )
    try:
        # One prompt, so no row is padded on the left; a row's padding follows its end and is left out below.
        logits = model(drawn.sequences, use_cache=False, logits_to_keep=answers.shape[1] + 1).logits[:, :-1]
    finally:
        hook.remove()
    log_probs = (logits / temperature).log_softmax(-1).gather(-1, answers[..., None]).squeeze(-1)
    sums = (log_probs * drawn.drawn).sum(1)  # (samples,)
    loss = -(leave_one_out(rewards) * sums).mean()
    if rewards.std() > 0:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item(), _moved(model, parts, before, drawn, caught["args"], caught["kwargs"], temperature)


@torch.no_grad()
def _moved(model, parts, before, drawn, args, kwargs, temperature):
    """KL divergence of the model from the one with the weights `before`, in nats a token.

    A mean over the drawn places. Both read what the frozen blocks said, `args` and `kwargs`, so that only the
    trained parts and the head run.
    """
    places = slice(drawn.prompt_length - 1, -1)
    now, start = ({}, {}), ({}, {})
    weights = iter(before)
    for part, new, old in zip(parts, now, start, strict=True):
        for name, parameter in part.named_parameters():
            new[name], old[name] = parameter, next(weights)
    log_probs = []
    for block, norm in (now, start):
        hidden = torch.func.functional_call(parts[0], block, args, kwargs)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        hidden = torch.func.functional_call(parts[1], norm, (hidden[:, places],))
        log_probs.append((model.get_output_embeddings()(hidden) / temperature).log_softmax(-1))
    apart = (log_probs[0].exp() * (log_probs[0] - log_probs[1])).sum(-1)  # (samples, new)
    return apart[drawn.drawn].mean().item()


def _rewards(reward, texts, first):
    """The reward of each text: float32 [samples]."""
    numbers = []
    for text in texts:
        found = reward(text)
        if isinstance(found, torch.Tensor | numpy.ndarray | numpy.generic) and math.prod(found.shape) == 1:
            found = found.item()
        if not isinstance(found, int | float):
            kind = type(found).__name__
            if isinstance(found, torch.Tensor):
                kind = f"tensor of the shape {tuple(found.shape)}"
            raise CourseError(
                f"The reward of {text!r} is a {kind}, and it needs to be one number. "
                "Return a single number for a text, such as float('e' not in text)."
            )
        if not math.isfinite(found):
            raise CourseError(
                f"The reward of {text!r} is {found}. Make it a finite number for every text, an empty one "
                "too."
            )
        numbers.append(float(found))
    if first and len(set(numbers)) == 1:
        raise CourseError(
            f"All {len(texts)} texts of the first step have the reward {numbers[0]:g}, so there is nothing "
            "to learn from. Reward something that some of the texts have and others have not."
        )
    return torch.tensor(numbers)


def _check_numbers(steps, samples, new_tokens, learning_rate, temperature):
    for name, number, least in (("steps", steps, 1), ("samples", samples, 2), ("new_tokens", new_tokens, 1)):
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise CourseError(f"{name} is {number!r}. Give a whole number of at least {least}.")
    for name, number in (("learning_rate", learning_rate), ("temperature", temperature)):
        if not isinstance(number, int | float) or not 0 < number < math.inf:
            raise CourseError(f"{name} is {number!r}. Give a number above 0.")


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


def _restore(parameters, before):
    with torch.no_grad():
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)
