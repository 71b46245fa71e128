"""Lesson 03: its checks against right and wrong answers, its questions against their proofs, and its own
functions against course_utils.masks and transformers."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from course_utils.lessons import lesson03
from course_utils.masks import additive_mask, joined_mask, pad
from course_utils.models import load
from lesson_code import definitions
from prove import private_progress, prove_exercise, prove_questions, stub

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


def test_one_head_is_the_models_own():
    model, tokenizer = load("tiny-llama")
    text = "My dog is"
    heads = model.config.num_attention_heads
    got = [lesson03.one_head(model, tokenizer, text, 1, head) for head in range(heads)]
    model.set_attn_implementation("eager")
    inputs = tokenizer(text, return_tensors="pt").to(model.device)
    with torch.no_grad():
        (theirs,) = model(**inputs, output_attentions=True).attentions[1].cpu()
    mask = additive_mask(joined_mask(torch.ones(1, len(got[0].tokens))))[0, 0]
    for one, weights in zip(got, theirs, strict=True):
        ours, mixed = lesson03.usable_attention_weights(stub)(one.query, one.key, one.value, mask)
        torch.testing.assert_close(ours, weights, atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed, one.output, atol=1e-5, rtol=0)


def test_torchs_multihead_attention_takes_true_for_forbidden():
    attention, x = torch.nn.MultiheadAttention(4, 1, batch_first=True), torch.randn(1, 3, 4)
    _, weights = attention(x, x, x, attn_mask=torch.ones(3, 3).triu(1).bool())
    assert weights[0, 0].tolist() == [1, 0, 0]


# ---- attention ---------------------------------------------------------------------------------------


def attention(query, key, value, mask):
    weights = (scaled(query, key) + mask).softmax(-1)
    return weights, weights @ value


def attention_by_einsum(query, key, value, mask):
    scores = torch.einsum("...qs,...ks->...qk", query, key) / torch.tensor(query.shape[-1]).sqrt() + mask
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    weights = powers / powers.sum(-1, keepdim=True)
    return [weights, torch.einsum("...qk,...ks->...qs", weights, value)]


def with_weights(weights):
    """A wrong answer, from a function of query, key and mask to the weights."""

    def answer(query, key, value, mask):
        made = weights(query, key, mask)
        return made, made @ value

    return answer


def with_mixed(mixed):
    """A wrong answer with the right weights, from a function of weights, scores, key and value."""

    def answer(query, key, value, mask):
        weights, _ = attention(query, key, value, mask)
        return weights, mixed(weights, scaled(query, key), key, value)

    return answer


def width(query):
    return query.shape[-1] * (query.shape[1] if query.ndim == 4 else 1)


def bare(query, key):
    return query @ key.transpose(-1, -2)


def test_attention_weights():
    prove_exercise(
        lesson03.check_attention_weights,
        right=[attention, attention_by_einsum],
        wrong=[
            (with_weights(lambda q, k, m: (bare(q, k) + m).softmax(-1)), "are not scaled"),
            (
                with_weights(lambda q, k, m: (bare(q, k) / q.shape[-1] + m).softmax(-1)),
                "by the size of a head. Divide by its",
            ),
            (with_weights(lambda q, k, m: (bare(q, k) / width(q) ** 0.5 + m).softmax(-1)), "the whole width"),
            (
                with_weights(lambda q, k, m: (bare(q, k) / k.shape[-2] ** 0.5 + m).softmax(-1)),
                "root of the number of keys",
            ),
            (with_weights(lambda q, k, m: (bare(q, k) / 64**0.5 + m).softmax(-1)), "the root of 64"),
            (
                with_weights(lambda q, k, m: ((bare(q, k) + m) / q.shape[-1] ** 0.5).softmax(-1)),
                "a mask of small numbers",
            ),
            (with_weights(lambda q, k, m: scaled(q, k).softmax(-1)), "the mask has no effect"),
            (
                with_weights(lambda q, k, m: scaled(q, k).softmax(-1).masked_fill(m < 0, 0)),
                "no longer sum to 1",
            ),
            (with_weights(lambda q, k, m: scaled(q, k).softmax(-1) + m), "was added to the weights"),
            (with_weights(lambda q, k, m: (scaled(q, k) - m).softmax(-1)), "was subtracted"),
            (
                with_weights(lambda q, k, m: scaled(q, k).masked_fill(m == 0, SMALLEST).softmax(-1)),
                "the wrong way round: 0 means",
            ),
            (with_weights(lambda q, k, m: (scaled(q, k) + m).softmax(-2)), "runs over the queries"),
            (with_weights(lambda q, k, m: scaled(q, k) + m), "the softmax is missing"),
            (
                with_weights(lambda q, k, m: scaled(q, k).masked_fill(m < 0, float("-inf")).softmax(-1)),
                "some weights are NaN",
            ),
            (
                lambda q, k, v, m: (attention(q, k, v, m)[0] @ v, attention(q, k, v, m)[0]),
                "return the weights first",
            ),
            (
                lambda q, k, v, m: (q.transpose(-1, -2) @ k[..., -q.shape[-2] :, :], v),
                "last two dimensions swapped",
            ),
            (with_mixed(lambda weights, scores, key, value: scores @ value), "were multiplied by the values"),
            (with_mixed(lambda weights, scores, key, value: weights @ key), "the keys were mixed"),
            (
                with_mixed(lambda weights, scores, key, value: weights.transpose(-1, -2) @ value),
                "were transposed before",
            ),
            (with_mixed(lambda weights, scores, key, value: value), "came back as they were"),
            (with_mixed(lambda weights, scores, key, value: 2 * weights @ value), "the mixed values are not"),
            (lambda q, k, v, m: attention(q, k, v, m)[1], "`return weights, mixed`"),
            (lambda q, k, v, m: "weights", "mixed values; got"),
        ],
    )


def test_the_lesson_runs_on_the_learners_attention_if_it_passes():
    with private_progress():
        assert lesson03.usable_attention_weights(attention_by_einsum) is attention_by_einsum
    for strict in (False, True):
        with private_progress(strict):
            ours = lesson03.usable_attention_weights(with_mixed(lambda weights, scores, key, value: value))
            assert ours is lesson03._attention_weights


# ---- exercise 4 --------------------------------------------------------------------------------------

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
            ({(dtype, fill) for dtype in lesson03.DTYPES for fill in lesson03.FILL_VALUES}, "not all twelve"),
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


# ---- exercise 3 --------------------------------------------------------------------------------------


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


# ---- exercise 2 --------------------------------------------------------------------------------------


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


def the_courses_own(mask):
    return joined_mask(mask)


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
            (the_courses_own, "write it yourself"),
        ],
    )
