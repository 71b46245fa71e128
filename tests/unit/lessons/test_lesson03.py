"""Lesson 03: its checks against right and wrong answers, its questions against their proofs, and its own
functions against course_utils.masks and transformers."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from course_utils.lessons import lesson03
from course_utils.masks import additive_mask, joined_mask, pad
from lesson_code import definitions
from prove import prove_exercise, prove_questions

SMALLEST = torch.finfo(torch.float32).min


def test_questions():
    assert len(prove_questions(lesson03)) == 9


# ---- the lesson's own functions ----------------------------------------------------------------------

LENGTHS = [(5, 8, 3), (1, 4), (6,)]
MASKS = [pad([[1] * n for n in lengths], 0, side)[1] for side in ("left", "right") for lengths in LENGTHS]


@pytest.mark.parametrize("mask", MASKS)
def test_join_of_the_lesson(mask):
    (join,) = definitions("03", "join", torch=torch)
    assert torch.equal(join(mask), joined_mask(mask))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fill", ["-inf", "finfo.min", "-1e4"])
def test_filled_of_the_lesson(dtype, fill):
    (filled,) = definitions("03", "filled", torch=torch)
    allowed = joined_mask(MASKS[0])
    assert torch.equal(filled(~allowed, dtype, fill), additive_mask(allowed, dtype, fill))


@pytest.mark.parametrize("base", [10_000.0, 100_000.0])
def test_rotate_of_the_lesson_is_the_librarys(base):
    (rotate,) = definitions("03", "rotate", torch=torch)
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    query, key = torch.randn(2, 3, 4, 9, 16, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(9).repeat(3, 1) + torch.tensor([[0], [5], [700]])
    cos, sin = LlamaRotaryEmbedding(config)(query, positions)
    for ours, theirs in zip((query, key), apply_rotary_pos_emb(query, key, cos, sin), strict=True):
        torch.testing.assert_close(rotate(ours, positions, base), theirs, atol=1e-4, rtol=0)


# ---- exercise 1 --------------------------------------------------------------------------------------

NAN = {("float32", "-inf"), ("bfloat16", "-inf"), ("float16", "-inf"), ("float16", "-1e9")}


def test_nan_cases():
    prove_exercise(
        lesson03.check_nan_cases,
        right=[
            NAN,
            sorted(NAN),
            {(getattr(torch, dtype), fill) for dtype, fill in NAN},
            {(dtype, float(fill)) for dtype, fill in NAN},
        ],
        wrong=[
            (set(), "none at all"),
            (NAN - {("float16", "-1e9")}, "out of range in one of the types"),
            (NAN | {("float16", "finfo.min")}, "overflows only for the attention scores"),
            (NAN | {("float32", "finfo.min")}, "adding an attention score changes nothing"),
            (NAN | {("bfloat16", "-1e4")}, "in the range of every type"),
            (NAN | {("bfloat16", "-1e9")}, "only in float16 does it become"),
            ({("float32", "-inf")}, "gives NaN in every type"),
            ({("float64", "-inf")}, "not one of the three types"),
            ({("float32", "inf")}, "not one of the four fill values"),
            ({"float32"}, "write a set of pairs"),
        ],
    )


@pytest.mark.parametrize(
    "answer",
    [
        {("float16", "finfo.min"), ("float16", "-1e4")},
        {(dtype, fill) for dtype in lesson03.DTYPES for fill in lesson03.FILL_VALUES} - NAN,
    ],
)
def test_no_message_calls_the_sums_of_float16_equal(answer):
    message = lesson03.check_nan_cases(answer).message
    assert "overflows only for the attention scores −20 and −40" in message and "equal" not in message


# ---- exercise 2 --------------------------------------------------------------------------------------


def scaled(query, key):
    return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


def finite_fill(query, key, value, allowed):
    scores = scaled(query, key).masked_fill(~allowed, SMALLEST)
    return scores.softmax(-1).masked_fill(~allowed, 0) @ value


def by_rows(query, key, value, allowed):
    some = allowed.any(-1, keepdim=True)
    scores = scaled(query, key).masked_fill(~allowed & some, float("-inf"))
    return (scores.softmax(-1) * some) @ value


def by_exponents(query, key, value, allowed):
    scores = scaled(query, key)
    largest = scores.masked_fill(~allowed, SMALLEST).amax(-1, keepdim=True)
    exponents = (scores - largest).masked_fill(~allowed, SMALLEST).exp() * allowed
    return exponents / exponents.sum(-1, keepdim=True).clamp(min=1e-30) @ value


def infinite_fill_weights_to_zero(query, key, value, allowed):
    weights = scaled(query, key).masked_fill(~allowed, float("-inf")).softmax(-1)
    return weights.masked_fill(~allowed, 0) @ value


def infinite_fill_weights_without_nan(query, key, value, allowed):
    return scaled(query, key).masked_fill(~allowed, float("-inf")).softmax(-1).nan_to_num(0) @ value


def exponents_less_any_largest(query, key, value, allowed):
    exponents = (scaled(query, key) - scaled(query, key).amax(-1, keepdim=True)).exp() * allowed
    return exponents / exponents.sum(-1, keepdim=True).clamp(min=1e-30) @ value


def masked_after_and_scaled_back(query, key, value, allowed):
    weights = scaled(query, key).softmax(-1) * allowed
    return weights / (weights.sum(-1, keepdim=True) + 1e-9) @ value


def exponents_of_bare_scores(query, key, value, allowed):
    exponents = scaled(query, key).exp() * allowed
    return exponents / exponents.sum(-1, keepdim=True).clamp(min=1e-30) @ value


def small_fill(query, key, value, allowed):
    return scaled(query, key).masked_fill(~allowed, -100).softmax(-1).masked_fill(~allowed, 0) @ value


def empty_rows_to_zero(query, key, value, allowed):
    return infinite_fill(query, key, value, allowed).masked_fill(~allowed.any(-1, keepdim=True), 0)


def detached_query(query, key, value, allowed):
    return finite_fill(query.detach(), key, value, allowed)


def detached_weights_of_one_half(query, key, value, allowed):
    mixed = finite_fill(query, key, value, allowed)
    return (mixed + mixed.detach()) / 2


def without_gradient(query, key, value, allowed):
    with torch.no_grad():
        return finite_fill(query, key, value, allowed)


def infinite_fill(query, key, value, allowed):
    return scaled(query, key).masked_fill(~allowed, float("-inf")).softmax(-1) @ value


def filled_and_nan_to_zero(query, key, value, allowed):
    return infinite_fill(query, key, value, allowed).nan_to_num(0)  # masked_fill saves query and key only


def added_and_nan_to_zero(query, key, value, allowed):
    added = torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))
    return ((scaled(query, key) + added).softmax(-1) @ value).nan_to_num(0)


def uniform_rows(query, key, value, allowed):
    return scaled(query, key).masked_fill(~allowed, SMALLEST).softmax(-1) @ value


def unscaled(query, key, value, allowed):
    scores = (query @ key.transpose(-1, -2)).masked_fill(~allowed, SMALLEST)
    return scores.softmax(-1).masked_fill(~allowed, 0) @ value


def divided_by_size(query, key, value, allowed):
    scores = (query @ key.transpose(-1, -2) / query.shape[-1]).masked_fill(~allowed, SMALLEST)
    return scores.softmax(-1).masked_fill(~allowed, 0) @ value


def unmasked(query, key, value, allowed):
    return scaled(query, key).softmax(-1) @ value


def masked_after(query, key, value, allowed):
    return scaled(query, key).softmax(-1).masked_fill(~allowed, 0) @ value


def wrong_way_round(query, key, value, allowed):
    return scaled(query, key).masked_fill(allowed, SMALLEST).softmax(-1) @ value


def over_the_queries(query, key, value, allowed):
    scores = scaled(query, key).masked_fill(~allowed, SMALLEST)
    return scores.softmax(-2).masked_fill(~allowed, 0) @ value


def only_weights(query, key, value, allowed):
    return scaled(query, key).masked_fill(~allowed, SMALLEST).softmax(-1).masked_fill(~allowed, 0)


def values_of_keys(query, key, value, allowed):
    return finite_fill(query, key, key, allowed)


def by_sdpa(query, key, value, allowed):
    return scaled_dot_product_attention(query, key, value, attn_mask=allowed)


def test_attend():
    prove_exercise(
        lesson03.check_attend,
        right=[
            finite_fill,
            by_rows,
            by_exponents,
            infinite_fill_weights_to_zero,
            infinite_fill_weights_without_nan,
        ],
        wrong=[
            (infinite_fill, "the result has NaN"),
            (added_and_nan_to_zero, "the gradient of the query is NaN"),
            (empty_rows_to_zero, "the gradient of the value is NaN"),
            (detached_query, "no gradient reaches the query"),
            (detached_weights_of_one_half, "is not SDPA's"),
            (masked_after_and_scaled_back, "the forbidden attention score is far larger"),
            (exponents_of_bare_scores, "of a large attention score overflows"),
            (small_fill, "the allowed attention scores are far below 0"),
            (by_sdpa, "this calls"),
            (uniform_rows, "here it mixes all values"),
            (unscaled, "are not scaled"),
            (divided_by_size, "divide by its square root"),
            (unmasked, "no effect on the result"),
            (masked_after, "no longer sum to 1"),
            (wrong_way_round, "the wrong way round"),
            (over_the_queries, "runs over the queries"),
            (only_weights, "the shape of the values"),
            (values_of_keys, "differs from SDPA's"),
        ],
    )


def filled_with_ten_thousand(query, key, value, allowed):
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores.masked_fill(~allowed, -1e4).softmax(-1).masked_fill(~allowed, 0) @ value


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (filled_with_ten_thousand, "lower than any of them could be"),
        (filled_and_nan_to_zero, "gradient of the value is NaN"),
        (exponents_less_any_largest, "The forbidden attention score is far larger"),
        (without_gradient, "no gradient reaches the query"),
    ],
)
def test_attend_rejects_other_forms_of_the_same_mistakes(answer, words):
    assert words in lesson03.check_attend(answer).message


# ---- exercise 3 --------------------------------------------------------------------------------------


def causal(mask):
    return torch.ones(mask.shape[1], mask.shape[1]).tril().bool()


def by_broadcasting(mask):
    return causal(mask) & mask.bool()[:, None, None, :]


def by_einsum(mask):
    return torch.einsum("qk,bk->bqk", causal(mask).float(), mask.float())[:, None] > 0


def by_positions(mask):
    places = torch.arange(mask.shape[1])
    return ((places[None, :] <= places[:, None]) & (mask > 0)[:, None, :]).unsqueeze(1)


def swapped(mask):
    return ~by_broadcasting(mask)


def upper(mask):
    return causal(mask).T & mask.bool()[:, None, None, :]


def on_the_query_axis(mask):
    return causal(mask) & mask.bool()[:, None, :, None]


def either(mask):
    return causal(mask) | mask.bool()[:, None, None, :]


def padding_alone(mask):
    return mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1)


def causal_alone(mask):
    return causal(mask).expand(len(mask), 1, -1, -1)


def without_diagonal(mask):
    return by_broadcasting(mask) & ~torch.eye(mask.shape[1]).bool()


def fillers_see_themselves(mask):
    padded = mask.bool()
    alone = torch.eye(mask.shape[1]).bool() & ~padded[:, None, :, None]
    return by_broadcasting(mask) & padded[:, None, :, None] | alone


def without_heads(mask):
    return by_broadcasting(mask)[:, 0]


def heads_first(mask):
    return by_broadcasting(mask).transpose(0, 1)


def numbers(mask):
    return by_broadcasting(mask).long()


def as_list(mask):
    return by_broadcasting(mask).tolist()


def test_join():
    prove_exercise(
        lesson03.check_join,
        right=[by_broadcasting, by_einsum, by_positions],
        wrong=[
            (swapped, "are swapped"),
            (upper, "tokens attend to those after them"),
            (on_the_query_axis, "on the query axis"),
            (either, "allows what one of the masks allows"),
            (padding_alone, "tokens attend to the future"),
            (causal_alone, "tokens attend to padding"),
            (without_diagonal, "the diagonal is missing"),
            (fillers_see_themselves, "the padding tokens attend to themselves"),
            (without_heads, "the dimension for the heads"),
            (heads_first, "the shape should be"),
            (numbers, "a tensor of type torch.bool"),
            (as_list, "got list"),
        ],
    )
