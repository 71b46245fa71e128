"""PPO's and GRPO's loss against the exact gradient of a model whose every text can be summed over."""

import math

import pytest
import torch

from course_utils import CourseError
from course_utils.advantages import group_mean, group_relative, leave_one_out
from course_utils.gradients import all_sequences, random_rewards, toy_model
from course_utils.objectives import (
    AVERAGES,
    KL,
    RATIOS,
    Objective,
    averaged,
    clipped,
    kl_estimates,
    policy_loss,
)

SEQUENCES = all_sequences(6, 3)
REWARDS = random_rewards().flatten()
ONES = torch.ones(len(SEQUENCES), 3, dtype=torch.float64)


class Toy:
    """The toy, the log probabilities of its draw, and gradients as one row."""

    def __init__(self):
        self.model = toy_model()
        self.weights = list(self.model.parameters())
        self.old = self.log_probs().detach()
        self.p_old = self.old.sum(1).exp()
        self.mean = (self.p_old * REWARDS).sum()

    def log_probs(self):
        inputs = torch.cat([torch.zeros_like(SEQUENCES[:, :1]), SEQUENCES[:, :-1]], 1)
        log_probs = self.model(inputs).logits.log_softmax(-1)
        return log_probs.gather(-1, SEQUENCES[..., None]).squeeze(-1)

    def gradient(self, scalar):
        return torch.cat(
            [part.flatten() for part in torch.autograd.grad(scalar, self.weights, retain_graph=True)]
        )

    def exact(self):
        return self.gradient((self.log_probs().sum(1).exp() * REWARDS).sum())

    def move(self, steps, size=0.01):
        for _ in range(steps):
            direction = self.exact()
            with torch.no_grad():
                parts = direction.split([weight.numel() for weight in self.weights])
                for weight, part in zip(self.weights, parts, strict=True):
                    weight += size * part.view_as(weight)

    def expected(self, **terms):
        """The expected gradient of the objective over texts of the draw, judged by their advantage R - J."""
        objective = [
            -policy_loss(now[None], old[None], advantage[None], ONES[:1], over="length", longest=1, **terms)
            for now, old, advantage in zip(self.log_probs(), self.old, REWARDS - self.mean, strict=True)
        ]
        return self.gradient((self.p_old * torch.stack(objective)).sum())


@pytest.fixture
def toy():
    return Toy()


def test_on_a_fresh_draw_the_loss_is_0_and_the_gradient_is_reinforces(toy):
    drawn = torch.multinomial(toy.p_old, 8, replacement=True, generator=torch.Generator().manual_seed(0))
    for advantage in (leave_one_out, group_mean, group_relative):
        weights = advantage(REWARDS[drawn])
        reinforce = toy.gradient(-(weights * toy.log_probs()[drawn].sum(1)).mean())
        assert reinforce.norm() > 1
        for ratio in ("token", "text", "gspo"):
            for clip in (None, (0.2, 0.2)):
                given = toy.log_probs()[drawn], toy.old[drawn], weights, ONES[:8]
                loss = policy_loss(*given, ratio=ratio, clip=clip, over="length", longest=1)
                assert abs(loss.item()) < 1e-14
                assert (toy.gradient(loss) - reinforce).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("steps", "bias"),
    [
        (1, {"none": 0.34, "token": 0.28, "gspo": 0.21, "text": 0.0, "token clip": 0.43, "text clip": 1.09}),
        (3, {"none": 0.95, "token": 0.69, "gspo": 0.50, "text": 0.0, "token clip": 1.55, "text clip": 1.33}),
    ],
)
def test_bias_of_each_ratio_once_the_policy_has_left_its_draw(toy, steps, bias):
    toy.move(steps)
    exact = toy.exact()
    for name, wanted in bias.items():
        ratio, _, clip = name.partition(" ")
        found = toy.expected(ratio=ratio, clip=(0.2, 0.2) if clip else None)
        assert (found - exact).norm() / exact.norm() == pytest.approx(
            wanted, abs=8e-3 if wanted else 1e-10
        ), name


def test_the_clip_points_backwards(toy):
    toy.move(3)
    exact = toy.exact()
    for ratio, wanted in (("token", -0.71), ("text", -0.54)):
        cosine = torch.cosine_similarity(toy.expected(ratio=ratio), exact, dim=0).item()
        assert cosine == pytest.approx(wanted, abs=8e-3)


def test_the_text_surrogate_is_what_is_gained_and_the_token_one_promises_more(toy):
    toy.move(3)
    log_probs = toy.log_probs()
    gained = (log_probs.sum(1).exp() * REWARDS).sum() - toy.mean
    values = {}
    for ratio in ("text", "token"):
        logs = (log_probs - toy.old).sum(1, keepdim=True) if ratio == "text" else log_probs - toy.old
        values[ratio] = (toy.p_old * clipped(logs, REWARDS - toy.mean, None).sum(1)).sum()
    assert abs(gained - values["text"]) < 1e-12
    assert values["token"].item() == pytest.approx(0.3931, abs=1e-3)
    assert gained.item() == pytest.approx(0.3100, abs=1e-3)


def test_which_of_the_four_cases_keep_a_gradient():
    ratios = [0.5, 0.9, 1.1, 1.5, 4.0]
    for sign, wanted in ((1.0, [0.5, 0.9, 1.1, 0, 0]), (-1.0, [0, -0.9, -1.1, -1.5, -4])):
        logs = torch.tensor(ratios, dtype=torch.float64).log()[:, None].requires_grad_()
        clipped(logs, torch.full((5,), sign, dtype=torch.float64)).sum().backward()
        torch.testing.assert_close(logs.grad.flatten(), torch.tensor(wanted, dtype=torch.float64))


def test_an_estimate_of_the_kl_is_one_thing_and_its_gradient_another(toy):
    toy.move(3)
    now, reference = toy.log_probs(), toy.old
    p = now.sum(1).detach().exp()

    def text(values):
        return values.sum(1, keepdim=True)

    divergence = (now.sum(1).exp() * (now - reference).sum(1)).sum()
    reverse = -(toy.p_old * now.sum(1)).sum()
    wanted = {
        "k1": torch.zeros(1),
        "k2": toy.gradient(divergence),
        "k3": toy.gradient(reverse),
    }
    for kind in KL:
        now = toy.log_probs()
        estimate = kl_estimates(text(now), text(reference), kind).squeeze(1)
        mean = (p * estimate).sum()
        assert mean.item() == pytest.approx(0.1347 if kind == "k2" else 0.1378, abs=1e-4)
        assert (toy.gradient(mean) - wanted[kind]).abs().max() < 1e-12


def test_averages_of_texts_of_different_length():
    mask = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]])
    values = torch.tensor([[6.0, 9, 9, 9], [1, 1, 1, 1], [3, 1, 9, 9]])
    assert averaged(values, mask, "tokens") == 14 / 7
    assert averaged(values, mask, "texts") == (6 + 1 + 2) / 3
    assert averaged(values, mask, "length") == 14 / 12
    assert averaged(values, mask, "length", longest=5) == 14 / 15


def test_padding_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    now, old, reference = (-torch.rand(4, 5, generator=generator) for _ in range(3))
    advantages, mask = torch.tensor([1.0, -1, 2, -2]), torch.ones(4, 5)
    mask[1, 3:] = mask[2, 1:] = 0
    wide = [torch.cat([part, torch.full((4, 6), -3.0)], 1) for part in (now, old, reference)]
    wide_mask = torch.cat([mask, torch.zeros(4, 6)], 1)
    for ratio in RATIOS:
        for over in AVERAGES:
            terms = {"ratio": ratio, "over": over, "longest": 5, "kl_weight": 0.1}
            one = policy_loss(now, old, advantages, mask, reference=reference, **terms)
            other = policy_loss(wide[0], wide[1], advantages, wide_mask, reference=wide[2], **terms)
            torch.testing.assert_close(one, other)
            assert math.isfinite(one)


NOW = torch.full((2, 3), -1.0)
MASK = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"advantages": torch.ones(2, 1)}, r"advantages have the shape \(2, 1\), and there are 2 texts"),
        ({"advantages": torch.tensor([1.0, float("nan")])}, "NaN or infinite"),
        ({"mask": torch.tensor([[1, 1, 1], [0, 0, 0]])}, "row 1 has no token"),
        ({"mask": torch.ones(2, 4)}, "shape of the mask"),
        ({"old": NOW[:, :2]}, "shape of the old log probabilities"),
        ({"log_probs": NOW[0]}, r"Give \(texts, tokens\)"),
        ({"clip": 0.2}, "two numbers above 0"),
        ({"clip": (0, 0.2)}, "two numbers above 0"),
        ({"kl_weight": -0.1}, "KL weight is -0.1"),
        ({"kl_weight": 0.1}, "needs `reference`"),
        ({"ratio": "word"}, "is not a ratio"),
        ({"over": "batch"}, "is not an average"),
        ({"kl_weight": 0.1, "reference": NOW, "kl": "k4"}, "is not a KL estimate"),
    ],
)
def test_bad_input_is_one_sentence(changed, sentence):
    given = {"log_probs": NOW, "old": NOW, "advantages": torch.tensor([1.0, -1]), "mask": MASK} | changed
    with pytest.raises(CourseError, match=sentence):
        policy_loss(**given)


# ---- the terms in one object


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"ratio": "word"}, "is not a ratio"),
        ({"over": "rows"}, "is not an average"),
        ({"kl": "k4"}, "is not a KL estimate"),
        ({"kl_in": "text"}, "is not a place for the KL"),
        ({"kl_weight": -0.1}, "The KL weight is -0.1"),
        ({"clip": (0.2, 0)}, "The clip is"),
    ],
)
def test_an_objective_of_unknown_terms_is_refused(terms, message):
    with pytest.raises(CourseError, match=message):
        Objective(**terms)


def test_padding_at_minus_infinity_counts_nothing():
    now = torch.tensor([[-1.0, -2.0], [-0.5, -math.inf]], requires_grad=True)
    mask = torch.tensor([[1, 1], [1, 0]])
    for terms in ({}, {"ratio": "none"}, {"ratio": "text"}, {"over": "texts"}):
        loss = policy_loss(now, now.detach(), torch.tensor([1.0, -1.0]), mask, **terms)
        (gradient,) = torch.autograd.grad(loss, now)
        assert loss.isfinite() and gradient.isfinite().all()


def test_the_kl_is_taken_from_the_reward_before_the_group_is_compared():
    old, reference = torch.tensor([[-1.0, -2.0], [-1.0, -9.0]]), torch.tensor([[-2.0, -2.0], [-1.0, -1.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    rewards = torch.tensor([3.0, 3.0], dtype=torch.float64)
    assert not Objective().advantages(rewards, old, mask, old).any()
    found = Objective(kl_weight=0.5).advantages(rewards, old, mask, reference)  # 1 nat in text 0, none in 1
    assert found.tolist() == leave_one_out(torch.tensor([2.5, 3.0])).tolist()


def test_what_the_clip_drops_is_what_has_no_gradient():
    old = torch.zeros(40, 3)
    now = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.ones(40, 3)
    advantages = torch.randn(40, generator=torch.Generator().manual_seed(1))
    objective = Objective(clip=(0.2, 0.3))
    objective.loss(now, old, advantages, mask).backward()
    assert objective.dropped(now, old, advantages, mask) == pytest.approx(
        (now.grad == 0).float().mean().item()
    )
    assert Objective(clip=None).dropped(now, old, advantages, mask) == 0
