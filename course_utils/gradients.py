"""Gradients of an expected reward through generation: the exact one, and the estimators that stand in for it.

    logits -> a link (`soft`, `straight_through`, `gumbel`) -> what the next step reads instead of a token
    rewards of a group -> an advantage (`leave_one_out`, `group_relative`, ...) -> a weight for each sample
    a small model + a table of rewards -> `Problem` -> the exact gradient, by summing over every sequence
                                       -> `ESTIMATORS` -> estimates -> `measure`: bias and noise

The objective is J = E[R(y)]: the mean reward of the sequences y that the model draws. Its gradient is
E[R(y) grad log p(y)], the score function (Williams 1992, "REINFORCE"). Lesson 09 builds each estimator in its
cells; the widgets and the training run use them from here.
"""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch.nn.functional import gumbel_softmax, one_hot

from .errors import CourseError

MOST_SEQUENCES = 20_000

# ---- advantages: rewards [..., samples] -> weights of grad log p, same shape ----------------------------


def no_baseline(rewards):
    """R itself: REINFORCE (Williams 1992, doi:10.1007/BF00992696).

    Unbiased. Its noise grows with the distance of the rewards from 0. Needs only the values of R.
    """
    return rewards


def leave_one_out(rewards):
    """R_i less the mean of the *other* samples' rewards: RLOO (Kool, van Hoof & Welling 2019, "Buy 4
    REINFORCE samples, get a baseline for free!"; Ahmadian et al. 2024, arXiv:2402.14740).

    Unbiased, since the baseline does not depend on sample i; adding a number to all rewards changes nothing.
    Needs only the values of R, of two samples or more. float [..., samples]
    """
    samples = _group(rewards)
    return (rewards - rewards.mean(-1, keepdim=True)) * (samples / (samples - 1))


def group_mean(rewards):
    """R_i less the mean of the group, sample i included ("Dr. GRPO", Liu et al. 2025, arXiv:2503.20783).

    (samples - 1) / samples times `leave_one_out`: the direction is unbiased, the length too short by that
    factor. Needs only the values of R, of two samples or more. float [..., samples]
    """
    _group(rewards)
    return rewards - rewards.mean(-1, keepdim=True)


def group_relative(rewards, eps=1e-4):
    """(R_i - mean) / (standard deviation + eps), over the group: GRPO (Shao et al. 2024, arXiv:2402.03300).

    Biased: a group with little spread counts as much as one with a large one, so rare large rewards are
    played down. Needs only the values of R, of two samples or more; a group of equal rewards gives 0.
    float [..., samples]
    """
    _group(rewards)
    deviation = rewards.std(-1, keepdim=True)
    return (rewards - rewards.mean(-1, keepdim=True)) / (deviation + eps)


def _group(rewards):
    samples = rewards.shape[-1]
    if samples < 2:
        raise CourseError(
            f"The group has {samples} sample, and its baseline is the mean of others. Draw two or more."
        )
    return samples


# ---- links: logits [..., vocab] -> what takes a token's place, same shape --------------------------------


def soft(logits):
    """softmax: the next step reads the mean of all embeddings ("soft embeddings").

    Without noise, and the exact gradient of another function: the reward of a mixture, which no sequence ever
    is. Needs a reward that is defined between tokens, and differentiable.
    """
    return logits.softmax(-1)


def straight_through(logits, generator=None, sample=False):
    """One-hot forwards, softmax backwards (Bengio, Léonard & Courville 2013, arXiv:1308.3432).

    sample: False takes the argmax, True draws with `generator`
    The value is that of a real token, the gradient that of the softmax, so it is biased; with argmax it may
    point anywhere. Needs a reward that is differentiable.
    """
    probs = logits.softmax(-1)
    if sample:
        flat = probs.detach().reshape(-1, probs.shape[-1])
        chosen = torch.multinomial(flat, 1, generator=generator).view(probs.shape[:-1])
    else:
        chosen = probs.argmax(-1)
    hard = one_hot(chosen, probs.shape[-1]).to(probs.dtype)
    return hard + probs - probs.detach()


def gumbel(logits, temperature=1.0, hard=False, generator=None):
    """softmax((logits + Gumbel noise) / temperature) (Jang et al. 2016, arXiv:1611.01144; Maddison et al.
    2016, arXiv:1611.00712).

    hard: True gives one-hot forwards, which is an exact draw from softmax(logits), and this softmax backwards
    Biased towards the mixture that it is at this temperature; a lower one has less bias and more noise. Needs
    a reward that is differentiable. torch's `gumbel_softmax` draws from the global random state; with a
    `generator` the noise comes from there.
    """
    if not temperature > 0:
        raise CourseError(f"The temperature is {temperature!r}. Give a number above 0, such as 1.0.")
    if generator is None:
        return gumbel_softmax(logits, tau=temperature, hard=hard)
    uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype, device=logits.device)
    noise = -(-uniform.clamp(min=1e-20).log()).log()
    probs = ((logits + noise) / temperature).softmax(-1)
    if not hard:
        return probs
    return one_hot(probs.argmax(-1), probs.shape[-1]).to(probs.dtype) + probs - probs.detach()


# ---- a problem whose exact gradient can be summed --------------------------------------------------------


def toy_model(vocabulary=6, seed=0):
    """A GPT-2 of two layers and width 16 with random weights, in float64: small enough to try every sequence.

    vocabulary: int, how many tokens it has; seed: int
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary, n_positions=16, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config).double().eval()


def random_rewards(vocabulary=6, horizon=3, seed=0):
    """A reward for every sequence, drawn from a standard normal: float64 [vocabulary] * horizon."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((vocabulary,) * horizon, generator=generator, dtype=torch.float64)


def sequence_log_probs(model, sequences, start=0):
    """log p of each sequence after the start token, with gradient: [batch].

    sequences: LongTensor [batch, horizon]; start: int, the id of the prompt's one token
    One forward pass over prompt and answer scores all tokens at once (teacher forcing).
    """
    prompt = torch.full_like(sequences[:, :1], start)
    logits = model(torch.cat([prompt, sequences[:, :-1]], dim=1)).logits  # (batch, horizon, vocabulary)
    return logits.log_softmax(-1).gather(-1, sequences[..., None]).squeeze(-1).sum(-1)


class Problem:
    """A model, a reward for every sequence, and the exact gradient of the expected reward.

    model:   a causal language model of transformers; float64 for figures to 1e-10
    rewards: float [vocab] * horizon; rewards[a, b, c] is R of the sequence (a, b, c)
    start:   int, the id of the prompt's one token

    sequences:  LongTensor [vocab ** horizon, horizon], all of them
    probs:      [vocab ** horizon], how likely the model finds each; they sum to 1
    scores:     [vocab ** horizon, parameters], grad log p of each sequence, all weights in one row
    expected:   float, J = the sum of p R
    gradient:   [parameters], the gradient of J: the sum of p R grad log p

    Raises CourseError for rewards of another shape, that are not finite or all the same, where there are too
    many sequences to sum over, and for a model in training mode.
    """

    def __init__(self, model, rewards, start=0):
        vocabulary = model.config.vocab_size
        _check_rewards(rewards, vocabulary)
        if model.training:
            raise CourseError(
                "The model is in training mode, where dropout makes each forward pass another model, and no "
                "gradient is exact. Type model.eval()."
            )
        self.model, self.start = model, start
        self.horizon = rewards.ndim
        parameter = next(model.parameters())
        self.rewards = rewards.to(parameter)
        self.sequences = all_sequences(vocabulary, self.horizon).to(parameter.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        log_probs = sequence_log_probs(model, self.sequences, start)
        self.scores = torch.stack([self._flat(log_prob, retain=True) for log_prob in log_probs])
        self.probs = log_probs.detach().exp()
        flat_rewards = self.rewards.flatten()
        self.expected = (self.probs * flat_rewards).sum().item()
        self.gradient = (self.probs * flat_rewards) @ self.scores

    def draw(self, shape, generator):
        """Indices of sequences drawn from the model: LongTensor of `shape`."""
        count = torch.Size(shape).numel()
        drawn = torch.multinomial(self.probs, count, replacement=True, generator=generator)
        return drawn.view(shape)

    def score_function(self, advantage, samples, estimates, generator):
        """Estimates sum_i A_i grad log p(y_i) / samples: [estimates, parameters].

        advantage: a function of the rewards [estimates, samples], such as `leave_one_out`
        """
        drawn = self.draw((estimates, samples), generator)
        weights = advantage(self.rewards.flatten()[drawn]) / samples
        table = torch.zeros(estimates, len(self.probs), dtype=weights.dtype, device=weights.device)
        return table.scatter_add_(1, drawn, weights) @ self.scores

    def relaxed(self, link, samples):
        """The gradient of the mean reward of `samples` sequences that `link` has made: [parameters].

        link: a function of logits [samples, vocab], such as `soft`; what it returns is read by the next step
              as a mixture of embeddings, and by the reward as a mixture of tokens
        """
        return self._flat(self.relaxed_reward(link, samples))

    def relaxed_reward(self, link, samples):
        """The mean reward of sequences made by `link`, with the graph that leads to the weights."""
        embeddings = self.model.get_input_embeddings().weight  # (vocabulary, width)
        start = torch.full((samples,), self.start, device=embeddings.device)
        inputs = [embeddings[start]]
        rewards = self.rewards.flatten().expand(samples, -1)
        for _ in range(self.horizon):
            logits = self.model(inputs_embeds=torch.stack(inputs, dim=1)).logits[:, -1]
            token = link(logits)  # (samples, vocabulary)
            inputs.append(token @ embeddings)
            # The table's first dimension that is left gives way to its mean under `token`.
            rewards = torch.einsum("nv,nvr->nr", token, rewards.view(*token.shape, -1))
        return rewards.mean()

    def _flat(self, scalar, retain=False):
        gradients = torch.autograd.grad(scalar, self.parameters, retain_graph=retain, allow_unused=True)
        pairs = zip(gradients, self.parameters, strict=True)
        return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in pairs])


def all_sequences(vocabulary, horizon):
    """Every sequence of `horizon` tokens: LongTensor [vocabulary ** horizon, horizon]."""
    count = vocabulary**horizon
    if count > MOST_SEQUENCES:
        raise CourseError(
            f"A vocabulary of {vocabulary} and {horizon} tokens make {count:,} sequences, too many to sum "
            f"over. Take a smaller one or fewer tokens: {MOST_SEQUENCES:,} sequences are the limit."
        )
    tokens = torch.arange(vocabulary)
    return torch.cartesian_prod(*[tokens] * horizon).view(count, horizon)


def _check_rewards(rewards, vocabulary):
    if not isinstance(rewards, torch.Tensor) or not rewards.is_floating_point() or rewards.ndim == 0:
        raise CourseError(
            "The rewards are a float tensor with one dimension a token, each as long as the vocabulary. "
            f"Type random_rewards({vocabulary}, horizon=3)."
        )
    if set(rewards.shape) != {vocabulary}:
        raise CourseError(
            f"The rewards have the shape {tuple(rewards.shape)}, and the model has {vocabulary} tokens: "
            f"each dimension needs that length. Type random_rewards({vocabulary}, horizon={rewards.ndim})."
        )
    if not rewards.isfinite().all():
        place = tuple((~rewards.isfinite()).nonzero()[0].tolist())
        raise CourseError(
            f"The reward of the sequence {place} is {rewards[place].item()}. "
            "Make every reward a finite number."
        )
    if (rewards == rewards.flatten()[0]).all():
        raise CourseError(
            f"Every sequence has the reward {rewards.flatten()[0].item()}, so there is "
            "nothing to learn and the gradient is 0. Give rewards that differ."
        )


# ---- the estimators, side by side ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Estimator:
    """One way to estimate the gradient.

    name:      str, as tables and plots have it
    unbiased:  bool, whether its mean is the exact gradient, by proof
    needs:     str, what it needs of the reward
    advantage: function of rewards [..., samples], for estimators that weigh grad log p; else None
    link:      function of (logits, generator), for those that differentiate through tokens; else None
    """

    name: str
    unbiased: bool
    needs: str
    advantage: Callable | None = None
    link: Callable | None = None

    def estimates(self, problem, samples, estimates, generator):
        """Several estimates, each from `samples` sequences: [estimates, parameters]."""
        if self.advantage is not None:
            return problem.score_function(self.advantage, samples, estimates, generator)
        link = functools.partial(self.link, generator=generator)
        return torch.stack([problem.relaxed(link, samples) for _ in range(estimates)])


_VALUES, _DERIVATIVE = "its values", "its derivative"


def _relaxation(name, link):
    return Estimator(name, False, _DERIVATIVE, link=link)


ESTIMATORS = (
    Estimator("REINFORCE", True, _VALUES, no_baseline),
    Estimator("leave-one-out", True, _VALUES, leave_one_out),
    Estimator("group mean", False, _VALUES, group_mean),
    Estimator("group relative", False, _VALUES, group_relative),
    _relaxation("soft embeddings", lambda logits, generator: soft(logits)),
    _relaxation("straight-through, argmax", lambda logits, generator: straight_through(logits)),
    _relaxation(
        "straight-through, sample",
        lambda logits, generator: straight_through(logits, generator, sample=True),
    ),
    _relaxation("Gumbel, soft", lambda logits, generator: gumbel(logits, 1.0, False, generator)),
    _relaxation("Gumbel, hard", lambda logits, generator: gumbel(logits, 1.0, True, generator)),
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What estimates look like beside the exact gradient g, all in units of |g|.

    bias:       |mean of the estimates - g| / |g|; above 0 for an unbiased estimator too, since the mean is
                taken over finitely many
    bias_error: one standard error of that mean: about what an unbiased estimator shows
    noise:      square root of the mean of |estimate - mean|^2, / |g|
    cosine:     of the angle between the mean of the estimates and g
    """

    bias: float
    bias_error: float
    noise: float
    cosine: float


def measure(problem, estimates):
    """`Measured` for estimates [estimates, parameters]. Raises CourseError for fewer than two of them."""
    if len(estimates) < 2:
        raise CourseError(
            f"{len(estimates)} estimate has no noise to measure. Give two or more, [estimates, parameters]."
        )
    exact, size = problem.gradient, problem.gradient.norm()
    mean = estimates.mean(0)
    noise = (estimates - mean).square().sum(1).sum().div(len(estimates) - 1).sqrt() / size
    return Measured(
        bias=((mean - exact).norm() / size).item(),
        bias_error=(noise / len(estimates) ** 0.5).item(),
        noise=noise.item(),
        cosine=torch.cosine_similarity(mean, exact, dim=0).item(),
    )
