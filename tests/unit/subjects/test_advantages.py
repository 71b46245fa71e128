"""Advantages of rewards as learners have them: integers, truth values, lists, arrays, few digits."""

import numpy
import pytest
import torch

from course_utils import CourseError
from course_utils.advantages import float_rewards, group_mean, group_relative, leave_one_out, no_baseline
from course_utils.gradients import Problem, random_rewards, toy_model

ADVANTAGES = (no_baseline, leave_one_out, group_mean, group_relative)
HITS = [1, 0, 1, 1]
KINDS = {
    "integers": torch.tensor(HITS),
    "small integers": torch.tensor(HITS, dtype=torch.uint8),
    "truth values": torch.tensor(HITS).bool(),
    "bfloat16": torch.tensor(HITS, dtype=torch.bfloat16),
    "float16": torch.tensor(HITS, dtype=torch.float16),
    "list": HITS,
    "tuple of truth values": tuple(map(bool, HITS)),
    "list of floats": [float(hit) for hit in HITS],
    "list of tensors": [torch.tensor(hit) for hit in HITS],
    "list of mixed numbers": [torch.tensor(1.0), 0, numpy.float32(1), True],
    "array of integers": numpy.array(HITS),
    "array of truth values": numpy.array(HITS, dtype=bool),
    "array, backwards in memory": numpy.array(HITS[::-1], dtype=numpy.float32)[::-1],
}


def test_advantages_of_integers_by_hand():
    assert leave_one_out(torch.tensor(HITS)).tolist() == pytest.approx([1 / 3, -1, 1 / 3, 1 / 3])
    assert group_mean(HITS).tolist() == [0.25, -0.75, 0.25, 0.25]
    assert group_relative(HITS).tolist() == pytest.approx([0.5, -1.5, 0.5, 0.5], abs=1e-3)
    assert no_baseline(HITS).tolist() == HITS


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_of_any_kind_have_the_same_advantages(kind):
    for advantage in ADVANTAGES:
        expected = advantage(torch.tensor(HITS, dtype=torch.float32))
        found = advantage(KINDS[kind])
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)


def test_groups_of_rewards_may_be_lists_of_rows_too():
    rows = [[1, 2, 4], [0, 0, 3]]
    expected = leave_one_out(torch.tensor(rows, dtype=torch.float32))
    for kind in (rows, numpy.array(rows), [numpy.array(row) for row in rows], list(torch.tensor(rows))):
        torch.testing.assert_close(leave_one_out(kind), expected)


def test_digits_are_kept_and_none_are_made_up():
    exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for rewards in (exact, exact.numpy()):
        assert all(advantage(rewards).dtype == torch.float64 for advantage in ADVANTAGES)
    few = torch.tensor([100.0, 100.0, 100.0, 101.0], dtype=torch.bfloat16)  # a mean of 100.25 has no bfloat16
    assert leave_one_out(few).sum().abs() < 1e-4
    large = torch.tensor([60_000.0, -60_000.0], dtype=torch.float16)
    assert leave_one_out(large).tolist() == [120_000, -120_000]
    assert float_rewards([0.1, 0.2], torch.float64).tolist() == [0.1, 0.2]


def test_gradients_pass_through_rewards():
    weight = torch.tensor(2.0, requires_grad=True)
    for rewards in (torch.tensor([1.0, 3.0]) * weight, [1.0 * weight, 3.0 * weight]):
        weight.grad = None
        leave_one_out(rewards)[1].backward()
        assert weight.grad == 2


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        (torch.ones(3, 1), "has 1 sample, and its baseline .* Draw two or more"),
        ([], "has 0 samples"),
        (1.0, "has 1 sample,"),
        (torch.tensor(1), "has 1 sample,"),
        (None, "of type NoneType, and make no table of numbers"),
        ("1, 0", "of type str"),
        (["1", "0"], "of type list"),
        ([[1.0], [1.0, 2.0]], "of type list"),
        ([torch.ones(2), torch.ones(3)], "of type list"),
        ({"a": 1.0}, "of type dict"),
        (torch.ones(2, dtype=torch.complex64), "complex64. Give real numbers"),
    ],
)
def test_rewards_that_make_no_group(rewards, words):
    for advantage in ADVANTAGES[1:]:
        with pytest.raises(CourseError, match=words):
            advantage(rewards)


def test_a_problems_rewards_may_be_of_any_kind_too():
    whole = (random_rewards(3, 2) * 4).round()
    expected = Problem(toy_model(3), whole)
    for kind in (whole.long(), whole.tolist(), whole.numpy(), whole.long().numpy(), whole > 0):
        known = Problem(toy_model(3), kind)
        assert known.rewards.dtype == torch.float64
        if getattr(kind, "dtype", None) != torch.bool:
            torch.testing.assert_close(known.gradient, expected.gradient)
