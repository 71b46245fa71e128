"""Lesson 07: its checks against right and wrong answers, its questions against their proofs, and its own
functions against course_utils.scores and transformers."""

import math

import pytest
import torch

from course_utils import load
from course_utils.lessons import lesson07
from course_utils.scores import perplexity, sequence_scores, token_log_probs, transition_scores
from lesson_code import definitions
from prove import private_progress, prove_exercise, prove_questions, stub


def test_questions():
    assert len(prove_questions(lesson07)) == 8


# ---- the lesson's own functions ----------------------------------------------------------------------


def recorded(model, ids, **options):
    mask = (ids != 0).long()
    return model.generate(
        ids.to(model.device), attention_mask=mask.to(model.device), max_new_tokens=6, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True, **options,
    )  # fmt: skip


PROMPTS = torch.tensor([[0, 0, 464, 3290], [3666, 3290, 318, 257]])


def test_gathered_of_the_lesson():
    (gathered,) = definitions("07", "gathered", torch=torch)
    output = recorded(load("tiny-gpt2")[0], PROMPTS, do_sample=False, eos_token_id=None)
    ours = gathered(output.scores, output.sequences[:, -6:])
    torch.testing.assert_close(ours, transition_scores(output, ()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_beam_sums_of_the_lesson(penalty):
    (beam_sums,) = definitions("07", "beam_sums", torch=torch)
    model, _ = load("tiny-llama")
    free = recorded(model, PROMPTS, do_sample=False, eos_token_id=None)
    ends = free.sequences[0, -4].item()  # an id that ends some sequences early
    beams = {"num_beams": 3, "num_return_sequences": 3, "do_sample": False, "eos_token_id": ends}
    output = recorded(model, PROMPTS, length_penalty=penalty, **beams)
    lengths = (output.beam_indices >= 0).sum(1)
    rebuilt = beam_sums(output) / lengths**penalty
    torch.testing.assert_close(rebuilt, output.sequences_scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(rebuilt, sequence_scores(output, penalty), atol=1e-5, rtol=0)


# ---- exercise 1 --------------------------------------------------------------------------------------


def is_end(tokens, end_ids):
    return torch.isin(tokens, torch.tensor(end_ids, device=tokens.device))


def sums_by_loop(numbers, tokens, end_ids):
    sums = []
    for row, ids in zip(numbers.tolist(), tokens.tolist(), strict=True):
        total = 0.0
        for number, token in zip(row, ids, strict=True):
            total += number
            if token in end_ids:
                break
        sums.append(total)
    return torch.tensor(sums)


def sums_by_shift(numbers, tokens, end_ids):
    ended = is_end(tokens, end_ids).cummax(1).values
    before = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], 1)
    return numbers.masked_fill(before, 0).sum(-1)


def sums_as_a_list(numbers, tokens, end_ids):
    return sums_by_loop(numbers, tokens, end_ids).tolist()


def everything(numbers, tokens, end_ids):
    return numbers.sum(1)


def without_the_end(numbers, tokens, end_ids):
    return (numbers * (is_end(tokens, end_ids).cumsum(1) == 0)).sum(1)


def only_the_first_end_id(numbers, tokens, end_ids):
    return sums_by_shift(numbers, tokens, end_ids[:1])


def only_the_last_end_id(numbers, tokens, end_ids):
    return sums_by_shift(numbers, tokens, end_ids[-1:])


def means(numbers, tokens, end_ids):
    ends = is_end(tokens, end_ids)
    lengths = (ends.cumsum(1) - ends.long() == 0).sum(1)
    return sums_by_shift(numbers, tokens, end_ids) / lengths


def multiplied(numbers, tokens, end_ids):
    ends = is_end(tokens, end_ids).long()
    return (numbers * (ends.cumsum(1) - ends == 0)).sum(1)


def up_to_argmax(numbers, tokens, end_ids):
    last = is_end(tokens, end_ids).long().argmax(1, keepdim=True)
    return torch.where(torch.arange(tokens.shape[1]) <= last, numbers, 0.0).sum(1)


def only_ended_rows(numbers, tokens, end_ids):
    return sums_by_shift(numbers, tokens, end_ids) * is_end(tokens, end_ids).any(1)


def test_row_sums():
    prove_exercise(
        lesson07.check_row_sums,
        right=[*definitions("07", "row_sums", torch=torch), sums_by_loop, sums_by_shift, sums_as_a_list],
        wrong=[
            (everything, "the padding is included too"),
            (without_the_end, "the end token itself was chosen"),
            (only_the_first_end_id, "only the first of `end_ids`"),
            (only_the_last_end_id, "only the last of `end_ids`"),
            (means, "these are means"),
            (multiplied, "−∞ · 0 is nan"),
            (up_to_argmax, "cut after its first token"),
            (only_ended_rows, "its sum is 0 here"),
            (lambda numbers, tokens, end_ids: numbers, "a number for each token"),
            (lambda numbers, tokens, end_ids: numbers.sum(), "one number for the whole batch"),
            (lambda *given: -sums_by_loop(*given), "add up each row's numbers"),
        ],
    )  # fmt: skip


# ---- exercise 2 --------------------------------------------------------------------------------------


def log_probs_of(model, ids):
    with torch.no_grad():
        return model(ids).logits.log_softmax(-1)


def shifted(model, ids):
    return log_probs_of(model, ids)[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)


def by_the_loss(model, ids):
    with torch.no_grad():
        return -model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)


def token_by_token(model, ids):
    total = 0.0
    for place in range(1, ids.shape[1]):
        total += log_probs_of(model, ids[:, :place])[0, -1, ids[0, place]]
    return total


def unshifted(model, ids):
    return log_probs_of(model, ids).gather(-1, ids[..., None]).sum().item()


def unshifted_without_the_first(model, ids):
    return log_probs_of(model, ids)[:, 1:].gather(-1, ids[:, 1:, None]).sum().item()


def shifted_backwards(model, ids):
    return log_probs_of(model, ids)[:, 1:].gather(-1, ids[:, :-1, None]).sum().item()


def raw_logits(model, ids):
    with torch.no_grad():
        return model(ids).logits[:, :-1].gather(-1, ids[:, 1:, None]).sum().item()


def mean_loss(model, ids, labels):
    with torch.no_grad():
        return model(ids, labels=labels).loss.item()


def shifted_twice(model, ids):
    return -mean_loss(model, ids[:, :-1], ids[:, 1:]) * (ids.shape[1] - 1)


def shifted_twice_with_its_own_length(model, ids):
    return -mean_loss(model, ids[:, :-1], ids[:, 1:]) * (ids.shape[1] - 2)


def without_the_last(model, ids):
    return -mean_loss(model, ids[:, :-1], ids[:, :-1]) * (ids.shape[1] - 1)


def times_the_length(model, ids):
    return -mean_loss(model, ids, ids) * ids.shape[1]


def most_likely(model, ids):
    return log_probs_of(model, ids)[:, :-1].amax(-1).sum().item()


def test_text_log_prob():
    prove_exercise(
        lesson07.check_text_log_prob,
        right=[*definitions("07", "text_log_prob", torch=torch), by_the_loss, token_by_token],
        wrong=[
            (*definitions("07", "wrong_log_prob", torch=torch), "both slips are still there"),
            (shifted_twice, "the factor is right"),
            (times_the_length, "the shift is right"),
            (shifted_twice_with_its_own_length, "two tokens fewer"),
            (lambda model, ids: shifted(model, ids)[:, :-1].sum().item(), "the last token is left out"),
            (without_the_last, "not given the last token"),
            (unshifted, "nothing is shifted"),
            (unshifted_without_the_first, "the first token is left out, but"),
            (shifted_backwards, "shifted the wrong way"),
            (raw_logits, "these are logits"),
            (most_likely, "the likeliest tokens"),
            (lambda model, ids: shifted(model, ids).exp().sum().item(), "are multiplied, not added"),
            (lambda model, ids: shifted(model, ids).sum().exp().item(), "the probability itself"),
            (lambda model, ids: shifted(model, ids).mean().item(), "this is the mean. return"),
            (lambda model, ids: -shifted(model, ids).mean().item(), "this is the loss"),
            (lambda model, ids: -shifted(model, ids).sum().item(), "at most 0"),
            (lambda model, ids: shifted(model, ids).sum().item() / math.log(2), "in bits"),
            (lambda model, ids: shifted(model, ids).sum().item() - 1, "gather and sum"),
        ],
    )  # fmt: skip


def test_one_pass_a_text_is_told_apart_from_one_a_token():
    with private_progress():
        assert "forward passes" not in lesson07.check_text_log_prob(by_the_loss).message
        assert "11 forward passes for 3 texts" in lesson07.check_text_log_prob(token_by_token).message


# ---- exercise 3 --------------------------------------------------------------------------------------


def chosen(logits, ids):
    return logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)


def counted(mask):
    return (mask[:, 1:] == 1) & (mask[:, :-1] == 1)


def by_cross_entropy(logits, ids, mask):
    targets = ids[:, 1:].masked_fill(~counted(mask), -100)
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten()).exp()


def by_rows(logits, ids, mask):
    total, count = 0.0, 0
    for row, row_ids, row_mask in zip(logits, ids, mask.bool(), strict=True):
        alone = chosen(row[row_mask][None], row_ids[row_mask][None])
        total, count = total + alone.sum().item(), count + alone.numel()
    return math.exp(-total / count)


def mean_of_rows(logits, ids, mask):
    keep = counted(mask)
    return (chosen(logits, ids) * keep).sum(1) / keep.sum(1)


def over(logits, ids, keep):
    return (-chosen(logits, ids)[keep].mean()).exp().item()


def no_shift(logits, ids, mask):
    own = logits.log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)
    return (-own[mask == 1].mean()).exp().item()


def total(logits, ids, mask):
    return -chosen(logits, ids)[counted(mask)].sum()


def mean_surprise(logits, ids, mask):
    return total(logits, ids, mask) / counted(mask).sum()


def test_batch_perplexity():
    prove_exercise(
        lesson07.check_batch_perplexity,
        right=[*definitions("07", "batch_perplexity", torch=torch), by_cross_entropy, by_rows],
        wrong=[
            (lambda x, ids, mask: over(x, ids, mask[:, 1:] >= 0), "padding counts here too"),
            (lambda x, ids, mask: over(x, ids, mask[:, 1:] == 1), "whose logits mean nothing"),
            (lambda x, ids, mask: over(x, ids, counted(ids != 0)), "a token with the id of the padding"),
            (lambda x, ids, mask: over(x, ids, mask[:, :-1] == 1), "whether the *target* is a token"),
            (lambda *given: (-mean_of_rows(*given).mean()).exp(), "each row has the same weight"),
            (lambda *given: (-mean_of_rows(*given)).exp().mean(), "mean of the rows' perplexities"),
            (no_shift, "nothing is shifted"),
            (
                lambda x, ids, mask: (total(x, ids, mask) / mask.sum()).exp(),
                "divided by the number of all tokens",
            ),
            (
                lambda x, ids, mask: (total(x, ids, mask) / counted(mask).numel()).exp(),
                "divided by the size of the shifted tensor",
            ),
            (mean_surprise, "this is the mean surprise"),
            (lambda *given: (-mean_surprise(*given)).exp(), "change the sign first"),
            (lambda *given: 2 ** mean_surprise(*given), "the base is e"),
            (lambda *given: total(*given).exp(), "`exp` of the sum"),
            (lambda *given: by_rows(*given) + 1, "average −log p"),
        ],
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_solution_is_the_librarys_perplexity(side):
    (batch_perplexity,) = definitions("07", "batch_perplexity", torch=torch)
    model, tokenizer = load("tiny-llama")
    tokenizer.pad_token = tokenizer.eos_token
    batch = tokenizer(
        ["My dog is", "It will rain in the"], return_tensors="pt", padding=True, padding_side=side
    )
    batch = batch.to(model.device)
    places = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(**batch, position_ids=places).logits
    ours = batch_perplexity(logits, batch.input_ids, batch.attention_mask)
    assert ours == pytest.approx(perplexity(model, batch.input_ids, batch.attention_mask), rel=1e-4)


# ---- exercise 4 --------------------------------------------------------------------------------------


def gathered_at_once(output):
    width = output.beam_indices.shape[1]
    steps = torch.stack(output.scores[:width], 1)  # (beams, new, vocabulary)
    found = steps[output.beam_indices, torch.arange(width), output.sequences[:, -width:]]
    return found.masked_fill(output.beam_indices < 0, 0).sum(1)


def as_a_list(output):
    width, sums = output.beam_indices.shape[1], []
    for ids, rows in zip(output.sequences[:, -width:].tolist(), output.beam_indices.tolist(), strict=True):
        steps = zip(output.scores, rows, ids, strict=False)
        sums.append(sum(scores[row, token].item() for scores, row, token in steps if row >= 0))
    return sums


def numbers_of(output, rows=None, tokens=None, steps=None):
    width = output.beam_indices.shape[1]
    steps = torch.stack(output.scores[:width]) if steps is None else steps
    rows = output.beam_indices if rows is None else rows
    tokens = output.sequences[:, -width:] if tokens is None else tokens
    return steps[torch.arange(width), rows, tokens].masked_fill(output.beam_indices < 0, 0)


def own_rows(output):
    return numbers_of(output, rows=torch.arange(len(output.sequences))[:, None]).sum(1)


def the_prompts_ids(output):
    return numbers_of(output, tokens=output.sequences[:, : output.beam_indices.shape[1]]).sum(1)


def as_many_as_steps(output):
    width = output.beam_indices.shape[1]
    return numbers_of(output, tokens=output.sequences[:, -len(output.scores) :][:, :width]).sum(1)


def past_the_end(output):
    width = output.beam_indices.shape[1]
    steps = torch.stack(output.scores[:width])
    return steps[torch.arange(width), output.beam_indices, output.sequences[:, -width:]].sum(1)


def multiplied_at_the_end(output):
    width = output.beam_indices.shape[1]
    steps = torch.stack(output.scores[:width])
    found = steps[torch.arange(width), output.beam_indices, output.sequences[:, -width:]]
    return (found * (output.beam_indices >= 0)).sum(1)


def normalised_again(output):
    steps = torch.stack(output.scores[: output.beam_indices.shape[1]]).log_softmax(-1)
    return numbers_of(output, steps=steps).sum(1)


def divided(output):
    return numbers_of(output).sum(1) / (output.beam_indices >= 0).sum(1)


def test_beam_sums():
    prove_exercise(
        lesson07.check_beam_sums,
        right=[*definitions("07", "beam_sums", torch=torch), gathered_at_once, as_a_list],
        wrong=[
            (own_rows, "from row i at each step"),
            (lambda output: numbers_of(output, rows=0).sum(1), "all is read from row 0"),
            (the_prompts_ids, "the prompt's"),
            (as_many_as_steps, "begin too early"),
            (past_the_end, "−1 is read as a row"),
            (multiplied_at_the_end, "−∞ · 0 is nan"),
            (normalised_again, "normalised again"),
            (divided, "the length penalty comes later"),
            (numbers_of, "a number for each token"),
            (lambda output: numbers_of(output).sum(), "one number per sequence is expected"),
            (lambda output: numbers_of(output).sum(1).exp(), "this is the probability"),
            (lambda output: -numbers_of(output).sum(1), "the sign is wrong"),
            (lambda output: numbers_of(output).sum(1) - 1, "while `row` is not −1"),
        ],
    )


# ---- which function the later cells run on -----------------------------------------------------------


@pytest.mark.parametrize("name", ["row_sums", "text_log_prob", "batch_perplexity", "beam_sums"])
def test_a_function_that_passes_is_used_and_the_courses_own_passes_too(name, monkeypatch):
    check, usable = getattr(lesson07, f"check_{name}"), getattr(lesson07, f"usable_{name}")
    (solution,) = definitions("07", name, torch=torch)
    with private_progress():
        assert usable(solution) is solution
        ours = usable(stub)
        assert ours is not stub and check(ours)
        monkeypatch.setenv("COURSE_STRICT", "1")
        assert usable(stub) is ours


# ---- exercise 5 --------------------------------------------------------------------------------------


def swapped(one, other):
    answer = dict(lesson07.CAUSES)
    answer[one], answer[other] = answer[other], answer[one]
    return answer


def test_mistakes():
    causes = lesson07.CAUSES
    prove_exercise(
        lesson07.check_mistakes,
        right=[dict(causes), dict(reversed(causes.items()))],
        wrong=[
            (list(causes.values()), "give a dictionary"),
            (causes | {"Eve": "prompt counted"}, "there is no 'Eve'"),
            (causes | {"Ada": "prompt"}, "is not one of the four mistakes"),
            ({"Ada": causes["Ada"]}, "there is no entry for Ben"),
            (swapped("Ada", "Ben"), "its length is seven"),
            (swapped("Ben", "Cleo"), "no length turns"),
            (swapped("Cleo", "Dan"), "number of columns"),
            (causes | {"Dan": "prompt counted"}, "the undivided sum"),
        ],
    )


def test_each_claim_is_wrong_in_its_own_way():
    model, tokenizer = load()
    claims = lesson07.claims(model, tokenizer)
    right = sequence_scores(claims.output, claims.penalty)[0].item()
    assert claims.library == pytest.approx(right, abs=1e-5)
    numbers = [claims.library, *claims.wrong.values()]
    apart = [abs(one - other) for i, one in enumerate(numbers) for other in numbers[:i]]
    assert min(apart) > 0.03
    length = (claims.output.beam_indices[0] >= 0).sum().item()
    prompt = claims.output.sequences.shape[1] - claims.output.beam_indices.shape[1]
    total = right * length**claims.penalty
    assert (prompt, length, claims.output.beam_indices.shape[1]) == (5, 2, 8)  # what the messages say
    # forgetting beam_indices reads row 0 at each step
    steps = torch.stack([scores[0].cpu() for scores in claims.output.scores[:length]])
    read = steps[torch.arange(length), claims.output.sequences[0, prompt : prompt + length].cpu()]
    assert claims.wrong["Ben"] == pytest.approx(read.sum().item() / length**0.5, abs=1e-5)
    assert claims.wrong["Ada"] == pytest.approx(total / 7**0.5, abs=1e-5)
    assert claims.wrong["Cleo"] == pytest.approx(total / 8**0.5, abs=1e-5)
    assert claims.wrong["Dan"] == pytest.approx(total, abs=1e-5)


def test_scores_of_a_text_are_those_of_the_solution():
    (text_log_prob,) = definitions("07", "text_log_prob", torch=torch)
    model, tokenizer = load()
    ids = tokenizer("The mouse chased the cat.", return_tensors="pt").input_ids.to(model.device)
    assert text_log_prob(model, ids) == pytest.approx(token_log_probs(model, ids)[0].sum().item(), abs=1e-3)
