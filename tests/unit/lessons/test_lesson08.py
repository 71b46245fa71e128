"""Lesson 08: its checks against right and wrong answers, its questions against their proofs, and its snippets
against autograd."""

import pytest
import torch
from torch.nn.functional import gumbel_softmax, one_hot

from course_utils import load
from course_utils.gradients import straight_through
from course_utils.lessons import lesson08
from lesson_code import definitions
from prove import prove_exercise, prove_questions


def test_questions():
    assert len(prove_questions(lesson08)) == 7


# ---- exercise 1 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", lesson08.SNIPPETS)
def test_snippets_are_cut_where_the_check_says(name):
    model, tokenizer = load("tiny-gpt2", device="cpu")
    scope = {
        "torch": torch,
        "model": model,
        "prompt": tokenizer("My dog is", return_tensors="pt"),
        "costs": torch.rand(len(tokenizer)),
        "embeddings": model.get_input_embeddings().weight,
    }
    for number, line in enumerate(lesson08.SNIPPETS[name].splitlines(), 1):
        exec(line, scope)
        made = scope[line.split(" = ")[0]]
        reaches = made.requires_grad and (
            made is scope["logits"]
            or torch.autograd.grad(made.sum(), scope["logits"], retain_graph=True, allow_unused=True)[0]
            is not None
        )
        assert reaches == (number < lesson08.CUTS[name]), (name, number)
    assert name not in "DE" or scope["loss"].requires_grad  # the two that look alive


def test_every_wrong_line_has_its_sentence():
    wrong = {
        (name, line)
        for name, snippet in lesson08.SNIPPETS.items()
        for line in range(1, 1 + len(snippet.splitlines()))
        if line != lesson08.CUTS[name]
    }
    assert set(lesson08._LINES) == wrong


def test_cuts():
    cuts = lesson08.CUTS
    prove_exercise(
        lesson08.check_cuts,
        right=[dict(cuts), dict(reversed(cuts.items()))],
        wrong=[
            (list(cuts.values()), "give a dictionary"),
            (cuts | {"F": 1}, "there is no snippet 'F'"),
            ({"A": 2}, "snippet B has no line yet"),
            (cuts | {"A": 9}, "the number of one of its lines"),
            (cuts | {"A": 1}, "snippet A, line 1"),
            (cuts | {"A": 3}, "snippet A, line 3"),
            (cuts | {"B": 2}, "softmax computes floats from floats"),
            (cuts | {"B": 4}, "snippet B, line 4"),
            (cuts | {"C": 3}, "snippet C, line 3"),
            (cuts | {"D": 2}, "snippet D, line 2"),
            (cuts | {"D": 3}, "a mean with the opposite sign"),
            (cuts | {"E": 2}, "section 4 printed"),
            (cuts | {"E": 4}, "snippet E, line 4"),
            (cuts | {"E": 5}, "through line 4"),
        ],
    )


# ---- exercise 2 --------------------------------------------------------------------------------------


def hard(logits):
    return one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)


class ByHand(torch.autograd.Function):
    @staticmethod
    def forward(context, logits):
        context.save_for_backward(logits.softmax(-1))
        return hard(logits)

    @staticmethod
    def backward(context, gradient):
        (probs,) = context.saved_tensors
        return probs * (gradient - (probs * gradient).sum(-1, keepdim=True))


def detached_difference(logits):
    probs = logits.softmax(-1)
    return probs + (hard(logits) - probs).detach()


def scattered(logits):
    probs = logits.softmax(-1)
    rows = torch.zeros_like(probs).scatter_(-1, probs.argmax(-1, keepdim=True), 1.0)
    return rows - probs.detach() + probs


def nothing_detached(logits):
    probs = logits.softmax(-1)
    return hard(logits) + probs - probs


def wrong_part_detached(logits):
    probs = logits.softmax(-1)
    return hard(logits) + probs.detach() - probs


def gradient_of_logits(logits):
    return hard(logits) + logits - logits.detach()


def twice(logits):
    probs = logits.softmax(-1)
    return hard(logits) + 2 * (probs - probs.detach())


def gradient_of_sigmoid(logits):
    return hard(logits) + logits.sigmoid() - logits.sigmoid().detach()


def not_taken_off(logits):
    return hard(logits) + logits.softmax(-1)


def least_likely(logits):
    probs = logits.softmax(-1)
    return hard(-logits) + probs - probs.detach()


def test_straight_through():
    prove_exercise(
        lesson08.check_straight_through,
        right=[
            *definitions("08", "straight_through", torch=torch),
            detached_difference,
            scattered,
            ByHand.apply,
            straight_through,
        ],
        wrong=[
            (hard, "carries no gradient. add something"),
            (lambda logits: logits.softmax(-1), "the value should be one-hot"),
            (lambda logits: hard(logits) * logits.softmax(-1), "instead of multiplying"),
            (not_taken_off, "not subtracted again"),
            (nothing_detached, "the gradient is 0"),
            (wrong_part_detached, "has the wrong sign"),
            (gradient_of_logits, "the logits themselves"),
            (twice, "twice the softmax's"),
            (least_likely, "not at the most likely"),
            (lambda logits: straight_through(logits.float()), "your rows are float32"),
            (lambda logits: hard(logits).requires_grad_(), "does not reach the logits"),
            (lambda logits: logits.argmax(-1), "these are ids"),
            (lambda logits: one_hot(logits.argmax(-1), logits.shape[-1]), "your rows are integers"),
            (lambda logits: logits.tolist(), "got list"),
            (gradient_of_sigmoid, "not that of the softmax. for the gradient your result"),
            (lambda logits: logits * 0 + 0.5, "the value should be the one-hot row"),
        ],
    )  # fmt: skip


def test_a_draw_is_not_taken_for_argmax():
    torch.manual_seed(0)
    result = lesson08.check_straight_through(lambda logits: gumbel_softmax(logits, hard=True))
    assert result.outcome == "wrong" and "not at the most likely" in result.message


def test_the_solution_is_the_librarys_link():
    (ours,) = definitions("08", "straight_through", torch=torch)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 6, dtype=torch.float64)
    one, other = (
        torch.autograd.grad((link(logits) * weights).sum(), logits)[0] for link in (ours, straight_through)
    )
    assert torch.equal(one, other)


# ---- exercise 3 --------------------------------------------------------------------------------------


def log_probs(model, sequences):
    return model(sequences).logits[:, :-1].log_softmax(-1).gather(-1, sequences[:, 1:, None]).squeeze(-1)


def by_cross_entropy(model, sequences, prompt_length):
    logits = model(sequences).logits[:, prompt_length - 1 : -1]
    targets = sequences[:, prompt_length:]
    return -torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def by_rows(model, sequences, prompt_length):
    return sum(log_probs(model, row[None])[0, prompt_length - 1 :].sum() for row in sequences)


def unshifted(model, sequences, prompt_length):
    chosen = model(sequences).logits.log_softmax(-1).gather(-1, sequences[..., None])
    return chosen[:, prompt_length:].sum()


def raw(model, sequences, prompt_length):
    logits = model(sequences[:, :-1]).logits[:, prompt_length - 1 :]
    return logits.gather(-1, sequences[:, prompt_length:, None]).sum()


def over_places(model, sequences, prompt_length):
    logits = model(sequences).logits.log_softmax(1)[:, prompt_length - 1 : -1]
    return logits.gather(-1, sequences[:, prompt_length:, None]).sum()


def without_the_prompt(kept):
    def score(model, sequences, prompt_length):
        return log_probs(model, sequences[:, prompt_length - kept :]).sum()

    return score


def of_the_likeliest(model, sequences, prompt_length):
    return model(sequences).logits[:, prompt_length - 1 : -1].log_softmax(-1).max(-1).values.sum()


def last_token_only_with_gradient(model, sequences, prompt_length):
    scored = log_probs(model, sequences)[:, prompt_length - 1 :]
    return scored[:, :-1].detach().sum() + scored[:, -1].sum()


def without_gradient(model, sequences, prompt_length):
    with torch.no_grad():
        return log_probs(model, sequences)[:, prompt_length - 1 :].sum()


def test_score():
    def answer(change):
        return lambda model, sequences, prompt_length: change(log_probs(model, sequences), prompt_length)

    prove_exercise(
        lesson08.check_score,
        right=[*definitions("08", "score", torch=torch), by_cross_entropy, by_rows],
        wrong=[
            (answer(lambda scored, start: scored.sum()), "the prompt's own tokens"),
            (unshifted, "nothing is shifted"),
            (answer(lambda scored, start: scored[:, start:].sum()), "first token is missing"),
            (raw, "these are logits"),
            (answer(lambda scored, start: scored[:, start - 1 :].mean()), "mean over tokens"),
            (answer(lambda scored, start: scored[:, start - 1 :].sum(1).mean()), "mean over rows"),
            (
                answer(lambda scored, start: scored[:, start - 1 :].mean(1).sum()),
                "each row's mean over its tokens",
            ),
            (answer(lambda scored, start: scored[0, start - 1 :].sum()), "only the first row"),
            (over_places, "over the tokens of the row"),
            (without_the_prompt(1), "does not read the whole prompt"),
            (of_the_likeliest, "the likeliest tokens, whichever were chosen"),
            (answer(lambda scored, start: -scored[:, start - 1 :].sum()), "this is a loss"),
            (answer(lambda scored, start: scored[:, start - 1 :].exp().sum()), "probabilities are added"),
            (
                answer(lambda scored, start: scored[:, start - 1 :].sum().item()),
                "your result is a python number",
            ),
            (answer(lambda scored, start: scored[:, start - 1 :].sum(1)), "one number for the whole batch"),
            (without_gradient, "carries no gradient"),
            (last_token_only_with_gradient, "a part of the sum was detached"),
            (answer(lambda scored, start: scored[:, start - 1 :].sum() - 1), "sum the log probabilities"),
        ],
    )


def test_score_of_an_answer_without_any_of_its_prompt():
    result = lesson08.check_score(without_the_prompt(0))
    assert result.outcome == "wrong" and "does not read the whole prompt" in result.message
