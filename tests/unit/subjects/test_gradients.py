"""Gradients through generation: the exact gradient, which estimators are unbiased, links, and refusals."""

import dataclasses
import functools
import math

import pytest
import torch

from course_utils import gradients, relaxations
from course_utils.errors import CourseError
from course_utils.gradients import (
    ESTIMATORS,
    Problem,
    measure,
    random_rewards,
    sequence_log_probs,
    toy_model,
)
from course_utils.widgets import EstimatorRace


@functools.cache
def problem(seed=0):
    return Problem(toy_model(4, seed), random_rewards(4, 3, seed))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- the exact gradient ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_probabilities_and_scores_of_all_sequences(seed):
    known = problem(seed)
    assert known.sequences.shape == (64, 3) and len(known.sequences.unique(dim=0)) == 64
    assert abs(known.probs.sum().item() - 1) < 1e-10
    assert (known.probs @ known.scores).abs().max() < 1e-10


@pytest.mark.parametrize("seed", [0, 1])
def test_exact_gradient_is_autograds(seed):
    known = problem(seed)
    probs = sequence_log_probs(known.model, known.sequences).exp()
    expected = (probs * known.rewards.flatten()).sum()
    expected.backward()
    by_autograd = torch.cat([parameter.grad.flatten() for parameter in known.parameters])
    known.model.zero_grad()
    assert abs(expected.item() - known.expected) < 1e-10
    assert (by_autograd - known.gradient).abs().max() < 1e-10


def test_a_small_step_along_the_gradient_gains_what_it_says():
    model = toy_model(4, seed=3)
    known = Problem(model, random_rewards(4, 3))
    before, size = known.expected, 1e-6
    step = size * known.gradient / known.gradient.norm()
    with torch.no_grad():
        for parameter in known.parameters:
            parameter += step[: parameter.numel()].view_as(parameter)
            step = step[parameter.numel() :]
    gained = Problem(model, known.rewards).expected - before
    assert gained / size == pytest.approx(known.gradient.norm().item(), rel=1e-3)


def test_log_probs_are_those_of_one_token_at_a_time():
    known = problem()
    row = known.sequences[37:38]
    total, ids = 0.0, torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad():
        for token in row[0]:
            total += known.model(ids).logits[0, -1].log_softmax(-1)[token].item()
            ids = torch.cat([ids, token.view(1, 1)], dim=1)
    assert sequence_log_probs(known.model, row).item() == pytest.approx(total, abs=1e-12)


# ---- the estimators ----------------------------------------------------------------------------------


def expectation(known, advantage):
    """The exact mean of a score-function estimator over all pairs of samples."""
    rewards = known.rewards.flatten()
    pairs = torch.cartesian_prod(torch.arange(len(rewards)), torch.arange(len(rewards)))
    weights = advantage(rewards[pairs]) * (known.probs[pairs[:, 0]] * known.probs[pairs[:, 1]])[:, None] / 2
    return sum(
        torch.zeros_like(known.probs).scatter_add_(0, pairs[:, place], weights[:, place]) for place in (0, 1)
    ) @ known.scores  # fmt: skip


def test_which_score_function_estimators_are_unbiased():
    known = problem()
    for estimator in ESTIMATORS:
        if estimator.advantage is None:
            continue
        mean = expectation(known, estimator.advantage)
        off = ((mean - known.gradient).norm() / known.gradient.norm()).item()
        assert (off < 1e-10) == estimator.unbiased, (estimator.name, off)
    halved = expectation(known, gradients.group_mean)
    torch.testing.assert_close(halved, known.gradient / 2)  # (samples - 1) / samples, for two samples


def test_a_weight_of_one_has_no_gradient_in_the_mean():
    assert expectation(problem(), torch.ones_like).abs().max() < 1e-10


def test_leave_one_out_is_the_mean_of_the_others():
    rewards = torch.randn(5, 4, generator=seeded(), dtype=torch.float64)
    for sample in range(4):
        others = rewards[:, [place for place in range(4) if place != sample]].mean(-1)
        torch.testing.assert_close(gradients.leave_one_out(rewards)[:, sample], rewards[:, sample] - others)
    torch.testing.assert_close(gradients.leave_one_out(rewards + 100), gradients.leave_one_out(rewards))


def test_group_relative_has_mean_0_and_deviation_1_and_survives_equal_rewards():
    advantages = gradients.group_relative(torch.randn(5, 8, generator=seeded(), dtype=torch.float64))
    torch.testing.assert_close(advantages.mean(-1), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(advantages.std(-1), torch.ones(5, dtype=torch.float64), atol=1e-3, rtol=0)
    assert not gradients.group_relative(torch.ones(2, 4)).any()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.name)
def test_every_estimator_gives_estimates_and_repeats_them_with_its_seed(estimator):
    known = problem()
    first, again = (estimator.estimates(known, 8, 3, seeded(5)) for _ in range(2))
    assert first.shape == (3, len(known.gradient)) and first.dtype == torch.float64
    assert torch.isfinite(first).all() and torch.equal(first, again)
    assert estimator.needs in ("its values", "its derivative")


def test_what_is_measured_of_estimates_that_are_known():
    known = problem()
    exact, away = known.gradient, torch.zeros_like(known.gradient)
    away[0] = known.gradient.norm()
    found = gradients.measure(known, torch.stack([exact + away, exact - away]))
    assert found.bias == pytest.approx(0, abs=1e-12) and found.cosine == pytest.approx(1)
    assert found.noise == pytest.approx(2**0.5) and found.bias_error == pytest.approx(1)
    assert gradients.measure(known, torch.stack([3 * exact] * 2)).bias == pytest.approx(2)


def test_score_function_estimates_have_the_right_mean():
    known = problem()
    estimates = known.score_function(gradients.leave_one_out, 8, 3000, seeded())
    found = gradients.measure(known, estimates)
    assert found.bias < 3 * found.bias_error


# ---- links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        gradients.straight_through,
        lambda logits: gradients.straight_through(logits, seeded(), sample=True),
        lambda logits: gradients.gumbel(logits, 0.7, True, seeded()),
        lambda logits: gradients.gumbel(logits, 0.7, True),
    ],
)
def test_hard_links_are_one_hot_forwards_and_carry_a_gradient(link):
    logits = torch.randn(50, 5, generator=seeded(), dtype=torch.float64, requires_grad=True)
    token = link(logits)
    torch.testing.assert_close(token.detach().sort(-1).values[:, -1], torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(token.detach().sum(-1), torch.ones(50, dtype=torch.float64))
    (token * torch.arange(5)).sum().backward()
    assert (logits.grad != 0).all()
    for shape in ((5,), (2, 3, 5)):  # one token's logits, and several places of a batch
        token = link(logits.detach()[:6].flatten()[: math.prod(shape)].view(shape))
        torch.testing.assert_close(token, token.round())
        assert token.shape == shape


def test_draws_of_the_hard_links_follow_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64).expand(20_000, -1)
    for token in (
        gradients.straight_through(logits, seeded(1), sample=True),
        gradients.gumbel(logits, 0.5, True, seeded(2)),
    ):
        torch.testing.assert_close(token.mean(0), logits[0].softmax(-1), atol=0.015, rtol=0)


FEW_DIGITS = (torch.bfloat16, torch.float16)
DRAWS = {
    "gumbel, from a generator": lambda logits: gradients.gumbel(logits, 1.0, True, seeded(3)),
    "gumbel, without one": lambda logits: gradients.gumbel(logits, 1.0, True),
    "straight-through": lambda logits: gradients.straight_through(logits, seeded(4), sample=True),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_in_few_digits_are_exact_in_a_large_vocabulary(name):
    """exp(6) against 49,999 tokens of 1: 0.8 % of the draws, in each type. 500 rows have 4 ± 2 of them."""
    logits = torch.zeros(500, 50_000)
    logits[:, 0] = 6.0
    for dtype in (*FEW_DIGITS, torch.float32):
        torch.manual_seed(0)
        token = DRAWS[name](logits.to(dtype))
        assert token.dtype == dtype
        assert token[:, 0].float().sum() <= 12  # 12 or more of 500: once in 2,000 times
        assert (token.argmax(-1) < 25_000).float().mean().item() == pytest.approx(0.5, abs=0.1)  # ties go low


@pytest.mark.parametrize("name", DRAWS)
def test_draws_in_few_digits_follow_the_softmax(name):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -3.0]).expand(20_000, -1)
    for dtype in FEW_DIGITS:
        torch.manual_seed(1)
        mean = DRAWS[name](logits.to(dtype)).float().mean(0)
        torch.testing.assert_close(mean, logits[0].softmax(-1), atol=0.015, rtol=0)


def test_noise_reaches_as_far_as_a_large_vocabulary_needs():
    """The largest of 2 ** 25 draws is about 17.9, and no two are the same: float32's own end is 16.6."""
    noise = relaxations._gumbel_noise(torch.zeros(2**25), seeded()).double()
    top = noise.topk(1000).values
    assert top[0] > 16.7 and len(top.unique()) > 990


@pytest.mark.parametrize("dtype", [*FEW_DIGITS, torch.float32])
def test_hard_links_in_few_digits_are_one_hot_and_carry_the_softmaxs_gradient(dtype):
    values = torch.randn(40, 7, generator=seeded())
    for name, link in {"argmax": gradients.straight_through, **DRAWS}.items():
        logits = values.to(dtype).requires_grad_()
        token = link(logits)
        hard = torch.nn.functional.one_hot(token.argmax(-1), 7).to(dtype)
        torch.testing.assert_close(token.detach(), hard, atol=1e-6, rtol=0)
        (token.float() * torch.arange(7)).sum().backward()
        assert logits.grad.dtype == dtype and logits.grad.isfinite().all() and logits.grad.any(), name


def test_gumbel_without_a_generator_has_torchs_noise():
    logits = torch.randn(30, 6, generator=seeded(), dtype=torch.float64)
    for hard in (False, True):
        torch.manual_seed(5)
        expected = torch.nn.functional.gumbel_softmax(logits, tau=0.7, hard=hard)
        torch.manual_seed(5)
        torch.testing.assert_close(gradients.gumbel(logits, 0.7, hard), expected)


def test_relaxed_reward_of_hard_tokens_is_the_reward_of_their_sequence():
    known = problem()
    reward = known.relaxed_reward(gradients.straight_through, samples=2)
    ids = torch.zeros(1, 1, dtype=torch.long)
    for _ in range(3):
        with torch.no_grad():
            ids = torch.cat([ids, known.model(ids).logits[:, -1:].argmax(-1)], dim=1)
    assert reward.item() == pytest.approx(known.rewards[tuple(ids[0, 1:])].item(), abs=1e-12)


def test_soft_embeddings_have_the_gradient_of_their_own_function():
    known = problem(1)
    claimed = known.relaxed(gradients.soft, samples=1)
    weight = known.parameters[0]
    place = claimed[: weight.numel()].abs().argmax().item()
    values = []
    with torch.no_grad():
        for move in (1e-5, -2e-5):
            weight.view(-1)[place] += move
            values.append(known.relaxed_reward(gradients.soft, samples=1).item())
        weight.view(-1)[place] += 1e-5
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(claimed[place].item(), rel=1e-4)


# ---- other models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FEW_DIGITS)
def test_a_problem_in_few_digits_is_summed_in_float32(dtype):
    exact = Problem(toy_model(4), random_rewards(4, 3))
    known = Problem(toy_model(4).to(dtype), random_rewards(4, 3))
    assert known.rewards.dtype == known.probs.dtype == known.gradient.dtype == torch.float32
    assert known.probs.sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(known.rewards, exact.rewards.float())
    assert torch.cosine_similarity(known.gradient.double(), exact.gradient, dim=0) > 0.99
    for estimator in ESTIMATORS:
        estimates = estimator.estimates(known, 8, 2, seeded())
        assert estimates.dtype == torch.float32 and estimates.isfinite().all(), estimator.name


def gemma3(vocabulary=4):
    """A model whose input layer scales its weight by the square root of its width."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=2, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, initializer_range=0.3,
        bos_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return Gemma3ForCausalLM(config).double().eval()


def test_tokens_between_steps_are_embedded_as_the_model_does():
    model = gemma3()
    known = Problem(model, random_rewards(4, 3))
    reward = known.relaxed_reward(gradients.straight_through, samples=1)
    ids = torch.zeros(1, 1, dtype=torch.long)
    for _ in range(3):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    assert reward.item() == pytest.approx(known.rewards[tuple(ids[0, 1:])].item(), abs=1e-12)
    chosen = torch.arange(4)
    by_ids = model(torch.stack([chosen * 0, chosen], dim=1)).logits[:, -1]
    seen = []

    def fixed(logits):  # each row a token of its own, whatever the model says
        seen.append(logits)
        return torch.eye(4, dtype=logits.dtype)

    known.relaxed_reward(fixed, samples=4)
    torch.testing.assert_close(seen[1], by_ids)


# ---- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        (torch.zeros(4, 4), "nothing to learn"),
        (torch.full((4, 4), torch.nan), "Make every reward a finite number"),
        (torch.randn(4, 5), "each dimension needs that length"),
        (torch.ones(4, 4).long(), "nothing to learn"),
        ([[1.0]], "each dimension needs that length"),
        (3.0, "each dimension needs that length"),
        ([[1.0], [1.0, 2.0]], "of type list, and make no table"),
        ("rewards", "of type str"),
        (None, "of type NoneType"),
        (torch.ones(4, 4, dtype=torch.complex64), "Give real numbers"),
        (torch.randn(1).expand((4,) * 9), "262,144 sequences"),
    ],
)
def test_rewards_that_are_refused(rewards, words):
    if isinstance(rewards, torch.Tensor) and rewards.ndim == 9:
        rewards = rewards.clone()
        rewards[(0,) * 9] += 1
    with pytest.raises(CourseError, match=words):
        Problem(toy_model(4), rewards)


def test_other_refusals():
    with pytest.raises(CourseError, match="above 0"):
        gradients.gumbel(torch.zeros(2, 3), temperature=0)
    with pytest.raises(CourseError, match="1 estimate has no noise"):
        gradients.measure(problem(), torch.ones(1, len(problem().gradient)))
    with pytest.raises(CourseError, match=r"training mode.*model.eval\(\)"):
        Problem(toy_model(3).train(), random_rewards(3, 2))
    with pytest.raises(CourseError, match="10,000,000,000 sequences"):
        gradients.all_sequences(10, 10)


# ---- texts of another model, and the terms that correct for it -------------------------------------------


@pytest.fixture(scope="module")
def moved():
    """The toy after three steps along its gradient, with the texts of the toy as it was."""
    model, old = toy_model(), toy_model()
    for _ in range(3):
        direction = Problem(model, random_rewards()).gradient
        with torch.no_grad():
            parts = direction.split([weight.numel() for weight in model.parameters()])
            for weight, part in zip(model.parameters(), parts, strict=True):
                weight += 0.01 * part.view_as(weight)
    return Problem(model, random_rewards(), old=old)


WANTED = {  # the expected gradient with the exact mean as a baseline: bias and cosine
    "no ratio": (0.95, 0.89),
    "token ratio": (0.69, 0.95),
    "GSPO ratio": (0.50, 0.94),
    "text ratio": (0.0, 1.0),
    "token ratio, clip": (1.55, -0.71),
    "text ratio, clip": (1.33, -0.54),
}


@pytest.mark.parametrize("name", WANTED)
def test_each_term_is_off_by_what_was_summed_exactly(moved, name):
    (estimator,) = [one for one in gradients.TERMS if one.name == name]
    baseline = (moved.old_log_probs.sum(1).exp() * moved.rewards.flatten()).sum()
    objective = dataclasses.replace(estimator.objective, advantage=lambda rewards: rewards - baseline)
    estimates = moved.by_objective(objective, 8, 6000, torch.Generator().manual_seed(0))
    found = measure(moved, estimates)
    bias, cosine = WANTED[name]
    assert found.bias == pytest.approx(bias, abs=0.1) and found.cosine == pytest.approx(cosine, abs=0.05)


def test_on_a_fresh_draw_every_term_is_reinforce():
    problem = Problem(toy_model(4), random_rewards(4))
    expected = ESTIMATORS[1].estimates(problem, 8, 5, torch.Generator().manual_seed(1))
    for estimator in gradients.TERMS[:6]:
        found = estimator.estimates(problem, 8, 5, torch.Generator().manual_seed(1))
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_a_race_takes_the_terms(moved):
    race = EstimatorRace(moved, gradients.TERMS)
    race.run(20)
    assert [one.name for one in race.standings] == [one.name for one in gradients.TERMS]
    assert "text ratio" in race.summary()
    with pytest.raises(CourseError, match="others"):
        EstimatorRace(moved, gradients.TERMS, samples=1)


def test_a_model_of_another_vocabulary_cannot_have_drawn():
    with pytest.raises(CourseError, match="another vocabulary"):
        Problem(toy_model(4), random_rewards(4), old=toy_model(5))
