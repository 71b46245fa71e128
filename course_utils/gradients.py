"""Gradients of an expected reward through generation: the exact one, and the estimators that stand in for it.

    logits -> a link (`soft`, `straight_through`, `gumbel`) -> what the next step reads instead of a token
    rewards of a group -> an advantage (`leave_one_out`, `group_relative`, ...) -> a weight for each sample
    a small model + a table of rewards -> `Problem` -> the exact gradient, by summing over every sequence
                                       -> `ESTIMATORS` -> estimates -> `measure`: bias and noise
    the model that drew the texts, and one that has moved -> `Problem(old=...)` -> `TERMS`: ratio and clip

The objective is J = E[R(y)]: the mean reward of the sequences y that the model draws. Its gradient is
E[R(y) grad log p(y)], the score function (Williams 1992, "REINFORCE"). Lesson 09 builds each estimator in its
cells; the widgets and the training run use them from here.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch

from .advantages import float_rewards, group_mean, group_relative, leave_one_out, no_baseline
from .errors import CourseError
from .inputs.causal import check_causal
from .inputs.numbers import at_least_float32
from .objectives import Objective
from .relaxations import gumbel, soft, straight_through

MOST_SEQUENCES = 20_000

# ---- a problem whose exact gradient can be summed --------------------------------------------------------


def toy_model(vocabulary: int = 6, seed: int = 0) -> Any:
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


def random_rewards(vocabulary: int = 6, horizon: int = 3, seed: int = 0) -> torch.Tensor:
    """A reward for every sequence, drawn from a standard normal: float64 [vocabulary] * horizon."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((vocabulary,) * horizon, generator=generator, dtype=torch.float64)


def sequence_log_probs(model: Any, sequences: torch.Tensor, start: int = 0) -> torch.Tensor:
    """log p of each sequence after the start token, with gradient: [batch], in float32 or better.

    sequences: LongTensor [batch, horizon]; start: int, the id of the prompt's one token
    One forward pass over prompt and answer scores all tokens at once (teacher forcing).
    """
    return token_log_probs(model, sequences, start).sum(-1)


def token_log_probs(model: Any, sequences: torch.Tensor, start: int = 0) -> torch.Tensor:
    """log p of each token of sequences after the start token, with gradient: [batch, horizon]."""
    prompt = torch.full_like(sequences[:, :1], start)
    logits = model(torch.cat([prompt, sequences[:, :-1]], dim=1)).logits  # (batch, horizon, vocabulary)
    log_probs = at_least_float32(logits).log_softmax(-1)
    return log_probs.gather(-1, sequences[..., None]).squeeze(-1)


class Problem:
    """A model, a reward for every sequence, and the exact gradient of the expected reward.

    model:   a causal language model of transformers; float64 for figures to 1e-10
    rewards: float [vocab] * horizon, or what `float_rewards` takes; rewards[a, b, c] is R of the sequence
             (a, b, c)
    start:   int, the id of the prompt's one token
    old:     the model that draws the sequences, of the same vocabulary, or None for `model` itself. The exact
             gradient is `model`'s in any case

    rewards:    as a tensor. It and what follows has the model's type, or float32 where that has fewer digits
    sequences:  LongTensor [vocab ** horizon, horizon], all of them
    probs:      [vocab ** horizon], how likely the model finds each; they sum to 1
    scores:     [vocab ** horizon, parameters], grad log p of each sequence, all weights in one row
    log_probs:  [vocab ** horizon, horizon], of each token; old_log_probs: the same under `old`
    expected:   float, J = the sum of p R
    gradient:   [parameters], the gradient of J: the sum of p R grad log p

    Raises CourseError for rewards of another shape, that are not finite or all the same, where there are too
    many sequences to sum over, for a model that is not a decoder, and for one in training mode.
    """

    def __init__(self, model: Any, rewards: Any, start: int = 0, old: Any = None) -> None:
        for one in (model, model if old is None else old):
            check_causal(one, "each token's log probability here is given the tokens before it")
            if one.config.get_text_config(decoder=True).vocab_size != model.config.vocab_size:
                raise CourseError("The model that draws has another vocabulary. Give a copy of the model.")
        vocabulary = model.config.get_text_config(decoder=True).vocab_size
        rewards = float_rewards(rewards, default=torch.float64)
        _check_rewards(rewards, vocabulary)
        if model.training:
            raise CourseError(
                "The model is in training mode, where dropout makes each forward pass another model, and no "
                "gradient is exact. Type model.eval()."
            )
        self.model, self.start = model, start
        self.horizon = rewards.ndim
        parameter = next(model.parameters())
        self.rewards = rewards.to(at_least_float32(parameter.detach()))
        self.sequences = all_sequences(vocabulary, self.horizon).to(parameter.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        log_probs = sequence_log_probs(model, self.sequences, start)
        self.scores = torch.stack([self._flat(log_prob, retain=True) for log_prob in log_probs])
        self.probs = log_probs.detach().exp()
        self.log_probs = token_log_probs(model, self.sequences, start).detach()
        self.old_log_probs = self.log_probs
        if old is not None:
            with torch.no_grad():
                self.old_log_probs = token_log_probs(old, self.sequences, start).to(self.log_probs)
        self._draw_probs = self.old_log_probs.sum(1).exp()
        flat_rewards = self.rewards.flatten()
        self.expected = (self.probs * flat_rewards).sum().item()
        self.gradient = (self.probs * flat_rewards) @ self.scores

    def draw(self, shape: tuple[int, ...], generator: torch.Generator | None) -> torch.Tensor:
        """Indices of sequences drawn from the model, or from `old`: LongTensor of `shape`."""
        count = torch.Size(shape).numel()
        drawn = torch.multinomial(self._draw_probs, count, replacement=True, generator=generator)
        return drawn.view(shape)

    def score_function(
        self, advantage: Callable, samples: int, estimates: int, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Estimates sum_i A_i grad log p(y_i) / samples: [estimates, parameters].

        advantage: a function of the rewards [estimates, samples], such as `leave_one_out`
        """
        drawn = self.draw((estimates, samples), generator)
        weights = advantage(self.rewards.flatten()[drawn]) / samples
        table = torch.zeros(estimates, len(self.probs), dtype=weights.dtype, device=weights.device)
        return table.scatter_add_(1, drawn, weights) @ self.scores

    def by_objective(
        self, objective: Objective, samples: int, estimates: int, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Estimates by an `Objective` without KL, each from `samples` sequences: [estimates, parameters]."""
        drawn = self.draw((estimates, samples), generator)
        advantages = objective.advantage(self.rewards.flatten()[drawn]).flatten()
        now = self.log_probs[drawn.flatten()].requires_grad_()
        loss = objective.loss(now, self.old_log_probs[drawn.flatten()], advantages, torch.ones_like(now))
        (slopes,) = torch.autograd.grad(loss, now)  # of the mean over all estimates
        weights = (-estimates * slopes).view(estimates, samples, self.horizon)
        table = weights.new_zeros(estimates, *self.log_probs.shape)
        table.scatter_add_(1, drawn[..., None].expand_as(weights), weights)
        return table.flatten(1) @ self._token_scores.flatten(0, 1)

    @functools.cached_property
    def _token_scores(self):
        """grad log p of each token, [vocab ** horizon, horizon, parameters]. Beginnings are shared."""
        log_probs, known, rows = token_log_probs(self.model, self.sequences, self.start), {}, []
        for sequence, tokens in zip(self.sequences.tolist(), log_probs, strict=True):
            for place, log_prob in enumerate(tokens):
                prefix = tuple(sequence[: place + 1])
                if prefix not in known:
                    known[prefix] = self._flat(log_prob, retain=True)
                rows.append(known[prefix])
        return torch.stack(rows).view(*log_probs.shape, -1)

    def relaxed(self, link: Callable, samples: int) -> torch.Tensor:
        """The gradient of the mean reward of `samples` sequences that `link` has made: [parameters].

        link: a function of logits [samples, vocab], such as `soft`; what it returns is read by the next step
              as a mixture of embeddings, and by the reward as a mixture of tokens
        """
        return self._flat(self.relaxed_reward(link, samples))

    def relaxed_reward(self, link: Callable, samples: int) -> torch.Tensor:
        """The mean reward of sequences made by `link`, with the graph that leads to the weights."""
        # What the model makes of each id, not the layer's weight: some layers scale it (Gemma 3).
        embed = self.model.get_input_embeddings()
        embeddings = embed(torch.arange(len(embed.weight), device=embed.weight.device))  # (vocabulary, width)
        start = torch.full((samples,), self.start, device=embeddings.device)
        inputs = [embeddings[start]]
        rewards = self.rewards.flatten().expand(samples, -1)
        for _ in range(self.horizon):
            logits = self.model(inputs_embeds=torch.stack(inputs, dim=1)).logits[:, -1]
            token = link(logits)  # (samples, vocabulary)
            inputs.append(token @ embeddings)
            # The table's first dimension that is left gives way to its mean under `token`.
            rewards = torch.einsum("nv,nvr->nr", token.to(rewards), rewards.view(*token.shape, -1))
        return rewards.mean()

    def _flat(self, scalar, retain=False):
        gradients = torch.autograd.grad(scalar, self.parameters, retain_graph=retain, allow_unused=True)
        pairs = zip(gradients, self.parameters, strict=True)
        flat = torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in pairs])
        return flat.to(self.rewards)


def all_sequences(vocabulary: int, horizon: int) -> torch.Tensor:
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
    if set(rewards.shape) != {vocabulary}:
        raise CourseError(
            f"The rewards have the shape {tuple(rewards.shape)}, and the model has {vocabulary} tokens: "
            f"each dimension needs that length. "
            f"Type random_rewards({vocabulary}, horizon={rewards.ndim or 1})."
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
    objective: `Objective` without KL, for those that correct for the model that drew; else None
    """

    name: str
    unbiased: bool
    needs: str
    advantage: Callable | None = None
    link: Callable | None = None
    objective: Objective | None = None

    def estimates(
        self, problem: Problem, samples: int, estimates: int, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Several estimates, each from `samples` sequences: [estimates, parameters]."""
        if self.advantage is not None:
            return problem.score_function(self.advantage, samples, estimates, generator)
        if self.objective is not None:
            return problem.by_objective(self.objective, samples, estimates, generator)
        assert self.link is not None, self.name  # each estimator has one of the three
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


def by_terms(name: str, unbiased: bool = False, **terms: Any) -> Estimator:
    """An estimator of the mean, over texts, of an objective summed over their tokens.

    name: str; unbiased: bool, whether that is proven; terms: of `Objective`, without a KL
    """
    objective = Objective(**{"over": "length", "longest": 1, "clip": None, **terms})
    return Estimator(name, unbiased, _VALUES, objective=objective)


TERMS = (
    by_terms("no ratio", ratio="none"),
    by_terms("token ratio", ratio="token"),
    by_terms("GSPO ratio", ratio="gspo"),
    by_terms("text ratio", unbiased=True, ratio="text"),
    by_terms("token ratio, clip", ratio="token", clip=(0.2, 0.2)),
    by_terms("text ratio, clip", ratio="text", clip=(0.2, 0.2)),
    by_terms("token ratio, clip, std", ratio="token", clip=(0.2, 0.2), advantage=group_relative),
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


def measure(problem: Problem, estimates: torch.Tensor) -> Measured:
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
