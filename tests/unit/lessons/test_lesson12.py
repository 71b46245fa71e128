"""Lesson 12: right and wrong answers, and the facts behind its predictions."""

import math

import torch

from course_utils.lessons import lesson12
from course_utils.lessons.lesson12 import first_flip, safe_probs, step, verdict
from prove import prove_exercise, prove_questions

INF = math.inf


def test_questions():
    assert len(prove_questions(lesson12)) == 7


# ---- exercise 1 --------------------------------------------------------------------------------------


def by_power(x, dtype):
    return torch.finfo(dtype).eps * 2.0 ** math.floor(math.log2(x))


def eps(x, dtype):
    return torch.finfo(dtype).eps


def in_proportion(x, dtype):
    return torch.finfo(dtype).eps * x


def rounded_power(x, dtype):
    return torch.finfo(dtype).eps * 2.0 ** round(math.log2(x))


def power_above(x, dtype):
    return torch.finfo(dtype).eps * 2.0 ** math.ceil(math.log2(x))


def downwards(x, dtype):
    here = torch.tensor(x, dtype=dtype)
    below = torch.nextafter(here, torch.tensor(-INF, dtype=dtype))
    return (below.double() - here.double()).item()


def rounded_away(x, dtype):
    return (torch.tensor(x, dtype=dtype) + 1e-30 - torch.tensor(x, dtype=dtype)).item()


def test_step():
    prove_exercise(
        lesson12.check_step,
        right=[step, by_power],
        wrong=[
            (eps, "is the step at 1"),
            (in_proportion, "does not grow with x all the time"),
            (rounded_power, "round the logarithm down"),
            (downwards, "This is the step down"),
            (rounded_away, "was rounded away"),
            (lambda x, dtype: 0.3, "largest power of 2 that is not above x"),
            (lambda x, dtype: "a", "Return one number"),
        ],
    )
    assert lesson12.check_step(power_above).outcome == "wrong"


# ---- exercise 2 --------------------------------------------------------------------------------------


def by_topk(a, b, logits):
    different = [place for place in range(len(a)) if a[place] != b[place]]
    if not different:
        return None
    row = logits[different[0]].sort().values
    return [different[0], row[-1] - row[-2]]


def last_difference(a, b, logits):
    different = [place for place in range(len(a)) if a[place] != b[place]]
    return (different[-1], gap(logits[different[-1]])) if different else None


def gap(row):
    best = row.topk(2).values
    return (best[0] - best[1]).item()


def with_(place=0, flip=lambda value: value, of=lambda row: row):
    def answer(a, b, logits):
        found = first_flip(a, b, logits)
        if found is None:
            return None
        step = min(max(found[0] + place, 0), len(a) - 1)
        return found[0], flip(gap(of(logits[step])))

    return answer


def test_first_flip():
    prove_exercise(
        lesson12.check_first_flip,
        right=[first_flip, by_topk],
        wrong=[
            (last_difference, "This is the last difference"),
            (with_(of=lambda row: row.softmax(-1)), "is taken of probabilities"),
            (with_(flip=lambda value: -value), "not below 0"),
            (with_(place=-1), "of a neighbouring step"),
            (lambda a, b, logits: first_flip(a, b, logits) or (0, 0.0), "These two texts are equal"),
            (lambda a, b, logits: 3, "Return a step and a gap"),
            (lambda a, b, logits: (1, 0.5), "counted from 0"),
            (with_(flip=lambda value: value / 3), "the largest of `logits[step]` minus the second"),
        ],
    )


# ---- exercise 3 --------------------------------------------------------------------------------------


def by_ratio(difference):
    small, large = difference(torch.float64), difference(torch.float32)
    return "rounding" if large == 0 or small / large < 0.6 else "bug"


def by_size(difference):
    return "bug" if difference(torch.float32) > 1e-3 else "rounding"


def by_bfloat16(difference):
    return "bug" if difference(torch.float32) > difference(torch.bfloat16) / 2 else "rounding"


def to_the_last_digit(difference):
    return "rounding" if difference(torch.float64) < 1e-7 * difference(torch.float32) else "bug"


def left_over(difference):
    return "bug" if difference(torch.float64) > 1e-8 else "rounding"


def nothing_left(difference):
    return "rounding" if difference(torch.float64) else "bug"


def test_verdict():
    prove_exercise(
        lesson12.check_verdict,
        right=[verdict, by_ratio],
        wrong=[
            (by_size, "judge by how it shrinks"),
            (by_bfloat16, "bfloat16's own rounding hides it"),
            (to_the_last_digit, "parts of the model stay in float32"),
            (nothing_left, "Take care not to divide by 0"),
            (lambda difference: "rounding", "A bug keeps its size, however many digits"),
            (lambda difference: True, 'Return "bug" or "rounding"'),
            (lambda difference: difference("float64"), "was asked for in"),
        ],
    )
    assert lesson12.check_verdict(left_over).outcome == "wrong"


# ---- exercise 4 --------------------------------------------------------------------------------------


def by_mask(logits, temperature, banned):
    keep = torch.ones(len(logits), dtype=torch.bool)
    keep[banned] = False
    log_probs = (logits.double() / temperature).masked_fill(~keep, -INF).log_softmax(-1)
    return log_probs.exp().float()


def late(logits, temperature, banned):
    scores = (logits / temperature).float()
    scores[banned] = -INF
    return scores.softmax(-1)


def no_nan(logits, temperature, banned):
    scores = (logits / temperature).float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    scores[banned] = -INF
    return scores.softmax(-1)


def large_number(logits, temperature, banned):
    scores = logits.float() / temperature
    scores[banned] = -1e4
    return scores.softmax(-1)


def ban_afterwards(logits, temperature, banned):
    probs = (logits.float() / temperature).softmax(-1)
    probs[banned] = 0
    return probs


def half_again(logits, temperature, banned):
    return safe_probs(logits, temperature, banned).half()


def no_temperature(logits, temperature, banned):
    return safe_probs(logits, 1.0, banned)


def in_place(logits, temperature, banned):
    scores = logits.float() / temperature
    logits[banned] = -INF
    scores[banned] = -INF
    return scores.softmax(-1)


def test_safe_probs():
    prove_exercise(
        lesson12.check_safe_probs,
        right=[safe_probs, by_mask],
        wrong=[
            (late, "ran over float16's largest number"),
            (no_nan, "replaced by a number hides the error"),
            (large_number, "other scores may lie below that"),
            (ban_afterwards, "Ban before the softmax"),
            (half_again, "The result is float16 again"),
            (no_temperature, "The temperature has no effect"),
            (in_place, "Your function changes its input"),
            (lambda *given: 0.5, "Return one tensor of probabilities"),
        ],
    )
