"""Lesson 03: predictions, exercise checks, quiz, and one head's vectors. The helpers whose names begin with `_`
compute the answers."""

from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode

from ..checks.exercise import Mistake, exercise, expect_close, expect_equal, show
from ..checks.quiz import Option, Prediction, Question
from ..masks import joined_mask, pad_sentences, position_ids
from ..models import load
from .fixtures import usable

DTYPES = ("float32", "bfloat16", "float16")
FILL_VALUES = ("-inf", "finfo.min", "-1e4", "-1e9")
SCORES = (3.0, -20.0, 5.0, -40.0)


def one_head(model, tokenizer, text, layer, head):
    """What one head of a model computes with while the model reads a text.

    layer, head: int, counted from 0
    Returns a namespace: tokens, a list of str; query, key, value and output, (length, size) each, on the CPU. Where
    a model rotates queries and keys by their positions, they are the rotated ones. Leaves the model on SDPA.
    """
    calls, fused = [], torch.nn.functional.scaled_dot_product_attention

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func is fused:
                calls.append((*args[:3], result))  # each (batch, head, length, size)
            return result

    inputs = tokenizer(text, return_tensors="pt").to(model.device)
    model.set_attn_implementation("sdpa")
    with torch.no_grad(), Watching():
        model(**inputs)
    heads = calls[layer][0].shape[1]
    parts = (
        part[0, head * part.shape[1] // heads].float().cpu() for part in calls[layer]
    )  # heads may share keys
    query, key, value, output = parts
    tokens = [tokenizer.decode(id).strip() for id in inputs.input_ids[0].tolist()]
    return SimpleNamespace(tokens=tokens, query=query, key=key, value=value, output=output)


# ---- predictions -------------------------------------------------------------------------------------

predict_before = Prediction(
    "03/predict-before",
    "The forbidden attention scores become −∞ before the softmax. How do the weights compare with those that are masked and scaled afterwards?",
    options=(
        Option("They are the same", "Both divide `exp` of each allowed attention score by the sum over the allowed ones.", right=True, value=True),
        Option("The rows no longer sum to 1", "Softmax makes every row sum to 1, whatever its input is.", value=False),
        Option("They are NaN", "`exp` of −∞ is exactly 0. The result is NaN only where a row holds nothing else.", value=False),
        Option("The allowed weights are smaller", "They would be smaller if the forbidden ones still had a share. Their share is 0.", value=False),
    ),
    proof=lambda: _before_is_after(),
)  # fmt: skip

predict_times = Prediction(
    "03/predict-times",
    'The mask is `[0, 0, 1, 1, 1]`, so `inverted` is `[1, 1, 0, 0, 0]`. What is `inverted * float("-inf")`?',
    options=(
        Option("`[-inf, -inf, 0, 0, 0]`", "1 · −∞ is −∞, as we want. The other product is the problem.", value="[-inf, -inf, 0.0, 0.0, 0.0]"),
        Option("`[-inf, -inf, nan, nan, nan]`", "0 · ∞ is undefined, and floating-point arithmetic returns NaN.", right=True, value="[-inf, -inf, nan, nan, nan]"),
        Option("`[nan, nan, nan, nan, nan]`", "1 · −∞ is not NaN: it is −∞.", value="[nan, nan, nan, nan, nan]"),
        Option("`[0, 0, -inf, -inf, -inf]`", "That would forbid the tokens. `inverted` is 1 at the padding.", value="[0.0, 0.0, -inf, -inf, -inf]"),
    ),
    proof=lambda: _zero_times_infinity(),
)  # fmt: skip

predict_full_row = Prediction(
    "03/predict-full-row",
    "In float32, −10,000 is added to the attention scores of all four keys. What does the row attend to?",
    options=(
        Option("To nothing", "A row of softmax sums to 1 or is NaN. It cannot attend to nothing.", value="nothing"),
        Option("To all four equally", "That is what `finfo.min` gives, since next to it the attention scores are lost in rounding. With −10,000 they are not.", value="all alike"),
        Option("To the same keys as without any mask", "A number that is added to every attention score cancels in the division.", right=True, value="as unmasked"),
        Option("To NaN", "Every `exp` would be 0 in float32, but softmax first subtracts the row's largest entry.", value="nan"),
    ),
    proof=lambda: _shifted_row(),
)  # fmt: skip

predict_gradient = Prediction(
    "03/predict-gradient",
    "−∞ is filled in for forbidden keys, the first two rows are NaN, and the loss does not read them. Which matrices get NaN gradients?",
    options=(
        Option("None", "The unread rows send back a gradient of 0. On its way it is multiplied by NaN weights.", value=[]),
        Option("The value matrix only", "Values get their gradient through the weights, and 0 · NaN is NaN. Attention scores that were overwritten get 0.", right=True, value=["value"]),
        Option("The query and key matrices only", "The fill value overwrote the forbidden attention scores, so no gradient flows back through those.", value=["query", "key"]),
        Option("All three", "That is what adding −∞ does. Filling it in cuts the path back to the forbidden attention scores.", value=["query", "key", "value"]),
    ),
    proof=lambda: _nan_gradients(),
)  # fmt: skip

predict_fillers = Prediction(
    "03/predict-fillers",
    "The same left-padded batch runs through eager and through SDPA. Where do the last hidden states differ by more than 0.0001?",
    options=(
        Option("Nowhere", "They agree wherever the result is defined. For a row without any allowed key, it is not.", value="nowhere"),
        Option("At the padding only", "There, eager mixes all values and SDPA mixes none. No token ever reads the result.", right=True, value="fillers"),
        Option("Everywhere in the rows that have padding", "The difference would spread to the tokens if they attended to the padding. The mask forbids it.", value="padded rows"),
        Option("Everywhere", "The row without padding has no token where the two would disagree.", value="everywhere"),
    ),
    proof=lambda: _where_kernels_differ(),
)  # fmt: skip


def _before_is_after():
    scores = torch.tensor([[2.0, 1, 0, 3], [1, 3, 2, 0], [0, 2, 4, 1], [3, 1, 2, 2]])
    allowed = torch.ones(4, 4).tril().bool()
    after = scores.softmax(-1) * allowed
    before = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    return torch.allclose(before, after / after.sum(-1, keepdim=True))


def _zero_times_infinity():
    return str(((1.0 - torch.tensor([0, 0, 1, 1, 1])) * float("-inf")).tolist())


def _weights(dtype, fill, forbidden=(True,) * 4):
    """The weights of the row SCORES with `fill` added at the forbidden keys, all in `dtype`."""
    dtype = getattr(torch, dtype)
    value = torch.tensor(torch.finfo(dtype).min if fill == "finfo.min" else float(fill)).to(dtype)
    added = torch.where(torch.tensor(forbidden), value, torch.zeros((), dtype=dtype))
    return (torch.tensor(SCORES, dtype=dtype) + added).softmax(-1)


def _shifted_row():
    weights = _weights("float32", "-1e4")
    if weights.isnan().any():
        return "nan"
    if torch.allclose(weights, torch.tensor(SCORES).softmax(-1), atol=1e-3):
        return "as unmasked"
    return "all alike" if weights.max() - weights.min() < 1e-3 else "nothing"


def _nan_gradients():
    """The matrices with NaN gradients when −∞ is filled in and two rows, which no loss reads, may look nowhere."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 4, generator=generator)
    matrices = {
        name: torch.randn(4, 4, generator=generator).requires_grad_() for name in ("query", "key", "value")
    }
    allowed = torch.ones(5, 5).tril().bool() & torch.tensor([0, 0, 1, 1, 1]).bool()
    with torch.enable_grad():
        query, key, value = (hidden @ matrix for matrix in matrices.values())
        weights = (query @ key.T / 2).masked_fill(~allowed, float("-inf")).softmax(-1)
        (weights @ value)[2:].sum().backward()
    return [name for name, matrix in matrices.items() if matrix.grad.isnan().any()]


def _where_kernels_differ():
    model, tokenizer = load("tiny-gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    batch = pad_sentences(tokenizer, ["It will rain in the", "I want to eat a big bowl of"])
    batch["position_ids"] = position_ids(batch["attention_mask"])
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    results = []
    for kind in ("eager", "sdpa"):
        model.set_attn_implementation(kind)
        with torch.no_grad():
            results.append(model(**batch, output_hidden_states=True).hidden_states[-1])
    differ = (results[0] - results[1]).abs().amax(-1) > 1e-4
    filler = batch["attention_mask"] == 0
    if not differ.any():
        return "nowhere"
    if torch.equal(differ, filler):
        return "fillers"
    return "padded rows" if not differ[1].any() else "everywhere"


# ---- exercises ---------------------------------------------------------------------------------------


@exercise("03/nan-cases", title="Say where a fully masked row is NaN", minutes=8, difficulty=2)
def check_nan_cases(answer):
    """A set of (dtype, fill) pairs, compared with what torch computes."""
    try:
        got = {(str(dtype).removeprefix("torch."), _fill_name(fill)) for dtype, fill in answer}
    except (TypeError, ValueError):
        raise Mistake('Write a set of pairs of type and fill value, such as {("float32", "-1e4")}.') from None
    for dtype, fill in sorted(got):
        if dtype not in DTYPES:
            raise Mistake(
                f"`{dtype}` is not one of the three types: {', '.join(f'`{name}`' for name in DTYPES)}."
            )
        if fill not in FILL_VALUES:
            raise Mistake(
                f"`{fill}` is not one of the four fill values: {', '.join(f'`{name}`' for name in FILL_VALUES)}."
            )
    want = {(dtype, fill) for dtype in DTYPES for fill in FILL_VALUES if _weights(dtype, fill).isnan().any()}
    if got == want:
        return "All twelve are right: a row is NaN where every entry has become −∞, and float16 gets there first."
    if not got:
        raise Mistake("None at all? With −∞ on every key, softmax subtracts −∞ from −∞, and that is NaN.")
    if len(got) == len(DTYPES) * len(FILL_VALUES):
        raise Mistake(
            "Not all twelve. If every `exp` were 0, softmax would divide 0 by 0. But it subtracts the row's largest entry first: where that is finite, it becomes 0, and `exp(0)` is 1."
        )
    if want - {("float16", "-1e9")} == got:
        raise Mistake(
            "One pair is missing. Look for a fill value that is out of range in one of the types, and becomes −∞ there."
        )
    if ("float16", "finfo.min") in got:
        raise Mistake(
            "`finfo.min` in float16 overflows only for the attention scores −20 and −40. With 3 and 5 it stays finite, and two finite entries are enough for weights."
        )
    if any(fill == "finfo.min" for _, fill in got):
        raise Mistake(
            "`finfo.min` is so far from 0 in float32 and bfloat16 that adding an attention score changes nothing: the four sums are equal and finite, so their softmax is not NaN."
        )
    if any(fill == "-1e4" for _, fill in got):
        raise Mistake(
            "−10,000 is in the range of every type, so no sum becomes −∞. Softmax first subtracts the row's largest entry, and is a number wherever one entry is finite."
        )
    if any(fill == "-1e9" for _, fill in got - want):
        raise Mistake(
            "−10⁹ is in the range of float32 and bfloat16, which is the same. Only in float16 does it become −∞."
        )
    raise Mistake("Some pairs are missing: −∞ on every key gives NaN in every type.")  # fmt: skip


def _fill_name(fill):
    """The name of a fill value in FILL_VALUES, also for one that was given as a number."""
    numbers = {float(name): name for name in FILL_VALUES if name != "finfo.min"}
    return numbers.get(fill, str(fill)) if isinstance(fill, int | float) else str(fill)


def _attention_weights(query, key, value, mask):
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask).softmax(-1)
    return weights, weights @ value


@exercise("03/attention-weights", title="Write attention", minutes=10, difficulty=2)
def check_attention_weights(answer):
    """Weights and mixed values for one head, a batch with padding, and a step with one query."""
    generator = torch.Generator().manual_seed(4)
    causal, padding = torch.ones(5, 5).tril().bool(), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    for said, shape, queries, allowed in [
        ("one head without a mask", (4, 9), 4, torch.ones(4, 4).bool()),
        ("one head with a causal mask", (5, 4), 5, causal),
        ("two texts and three heads", (2, 3, 5, 4), 5, causal[None, None] & padding[1:, None, None]),
        ("one query and six keys", (1, 2, 6, 4), 1, torch.tensor([0, 1, 1, 1, 1, 1]).bool().view(1, 1, 1, 6)),
        ("a left-padded batch, in which some queries have no key left", (2, 3, 5, 4), 5, causal & padding[:, None, None]),
    ]:  # fmt: skip
        query, key, value = (torch.randn(shape, generator=generator) for _ in range(3))
        query = query[..., -queries:, :]
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        weights, mixed = _attention_weights(query, key, value, mask)
        got = answer(query, key, value, mask)
        inputs = f"{said}, where the values have the shape {shape} and the mask {tuple(mask.shape)},"
        if isinstance(got, torch.Tensor):
            raise Mistake("Return two tensors, the weights and the mixed values: `return weights, mixed`.")
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Mistake(f"Return two tensors, the weights and the mixed values; got {show(got)}.")
        if isinstance(got[0], torch.Tensor) and got[0].isnan().any():
            raise Mistake(f"For {inputs} some weights are NaN. Add the mask as it is, with its finite numbers, to the attention scores.")  # fmt: skip
        expect_close(
            got[0],
            weights,
            inputs,
            "The weights differ. The steps are: attention scores, divided by the square root of the size of a head; plus the mask; softmax over the keys.",
            mistakes=_wrong_weights(query, key, mask, weights, mixed),
        )
        expect_close(
            got[1],
            mixed,
            inputs,
            "The weights are right, the mixed values are not: they are `weights @ value`.",
            mistakes=[
                (_unless_same(_scores(query, key) @ value, mixed), "The attention scores were multiplied by the values. Multiply the weights, which come after the softmax."),
                (_unless_same((_scores(query, key) + mask) @ value, mixed), "The attention scores were multiplied by the values. Multiply the weights, which come after the softmax."),
                (weights @ key, "The keys were mixed. The keys are there to be found; what a token passes on is its value."),
                (_unless_same(weights.transpose(-1, -2) @ value, mixed) if queries == shape[-2] else None, "The weights were transposed before they met the values. Row *i* has query *i*'s weights: `weights @ value`."),
                (value, "The values came back as they were. Mix them: `weights @ value`."),
            ],
        )  # fmt: skip
    query, key, value = torch.randn(3, 4, 9, generator=generator)
    slope = -torch.arange(4.0).expand(4, 4)  # some models add small numbers, which grow with the distance
    if not torch.allclose(
        answer(query, key, value, slope)[0], _attention_weights(query, key, value, slope)[0], atol=1e-5
    ):
        raise Mistake("With a mask of small numbers, such as −1 and −2, the weights differ. Divide the attention scores first; the mask is added after that, as it is.")  # fmt: skip
    return (
        "Attention, for any number of heads: the weights and the values that they mix. Section 7 runs on it."
    )


def _scores(query, key):
    return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


def _wrong_weights(query, key, mask, weights, mixed):
    """The known mistakes in attention's weights: pairs of a wrong answer or a test of it, and a sentence."""
    scores, size, bare = _scores(query, key), query.shape[-1], query @ key.transpose(-1, -2)
    heads = query.shape[1] if query.ndim == 4 else 1
    allowed = mask == 0
    late = scores.softmax(-1).masked_fill(~allowed, 0)
    wrong = [
        ((bare + mask).softmax(-1), "The attention scores are not scaled: divide them by the square root of the size of a head."),
        ((bare / size + mask).softmax(-1), "The attention scores are divided by the size of a head. Divide by its square root."),
        ((bare / (heads * size) ** 0.5 + mask).softmax(-1), "The attention scores are divided by the root of the whole width, all heads together. Divide by the root of one head's size, `query.shape[-1] ** 0.5`."),
        ((bare / key.shape[-2] ** 0.5 + mask).softmax(-1), "The attention scores are divided by the root of the number of keys. Divide by the root of the size of a head, `query.shape[-1] ** 0.5`."),
        ((bare / 8 + mask).softmax(-1), "The attention scores are divided by 8, the root of 64. Here a head has another size: `query.shape[-1] ** 0.5`."),
        (scores.softmax(-1), "The mask has no effect on the weights."),
        (late, "Forbidden weights are 0, but the others no longer sum to 1: the forbidden keys took a share. Add the mask to the attention scores, before the softmax."),
        (scores.softmax(-1) + mask, "The mask was added to the weights, after the softmax. Add it to the attention scores, before it."),
        ((scores - mask).softmax(-1), "The mask was subtracted, which allows what it forbids. Add it."),
        (scores.masked_fill(allowed, torch.finfo(mask.dtype).min).softmax(-1), "The mask is used the wrong way round: 0 means that a query may attend."),
        ((scores + mask).softmax(-2), "The softmax runs over the queries. Each query's weights over the keys should sum to 1: `dim=-1`."),
        (scores + mask, "These are attention scores, not weights: the softmax is missing."),
    ]  # fmt: skip
    return [(_unless_same(known, weights), sentence) for known, sentence in wrong] + [
        (lambda got: mixed.shape != weights.shape and got.shape == mixed.shape, "The two are the wrong way round: return the weights first, then the mixed values."),
        (lambda got: got.shape != weights.shape, f"The weights need the shape (..., query, key), which is {tuple(weights.shape)} here: {tuple(query.shape)} times the keys with their last two dimensions swapped, `key.transpose(-1, -2)`."),
    ]  # fmt: skip


def usable_attention_weights(yours):
    """The learner's `attention_weights` if it passes its check, else the course's own. Prints which; never raises."""
    return usable(check_attention_weights, yours, _attention_weights, "attention_weights")


@exercise("03/attend", title="Write attention without NaN", minutes=12, difficulty=3)
def check_attend(answer):
    """Compared with scaled_dot_product_attention with a boolean mask, including rows without a key and very large
    attention scores; then its gradients. The fused operation itself is refused."""
    generator = torch.Generator().manual_seed(3)
    causal, mask = torch.ones(5, 5).tril().bool(), torch.tensor([0, 0, 1, 1, 1]).bool()
    for shape, allowed in [
        ((1, 1, 4, 9), torch.ones(4, 4).bool()),
        ((2, 3, 5, 4), causal[None, None]),
        ((1, 2, 5, 4), (causal & mask)[None, None]),
    ]:
        query, key, value = (torch.randn(shape, generator=generator) for _ in range(3))
        want = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        scores, size = query @ key.transpose(-1, -2), shape[-1]
        off = torch.finfo(torch.float32).min
        said = f"queries, keys and values of the shape {shape}, and a mask with {_empty_rows(allowed)} empty rows,"
        with _no_fused_attention():
            got = answer(query, key, value, allowed)
        if isinstance(got, torch.Tensor) and got.isnan().any():
            raise Mistake(f"For {said} the result has NaN. Fill in a finite number before the softmax.")
        masked = (scores / size**0.5).masked_fill(~allowed, off)
        expect_close(
            got,
            want,
            said,
            "The result differs from SDPA's. The steps are: attention scores, divided by the square root of the size; mask; softmax; times the values.",
            mistakes=[
                (_unless_same(masked.softmax(-1) @ value, want), "A query that may attend to no key should get 0, and here it mixes all values. Set its weights to 0 after the softmax."),
                (scores.masked_fill(~allowed, off).softmax(-1).masked_fill(~allowed, 0) @ value, "The attention scores are not scaled: divide them by the square root of the size."),
                ((scores / size).masked_fill(~allowed, off).softmax(-1).masked_fill(~allowed, 0) @ value, "The attention scores are divided by the size. Divide by its square root."),
                (_unless_same((scores / size**0.5).softmax(-1) @ value, want), "The mask has no effect on the result."),
                (_unless_same((scores / size**0.5).softmax(-1).masked_fill(~allowed, 0) @ value, want), "Forbidden weights are 0, but the others no longer sum to 1: the forbidden keys took a share. Mask the attention scores, before the softmax."),
                (_unless_same((scores / size**0.5).masked_fill(allowed, off).softmax(-1) @ value, want), "The mask is used the wrong way round: here and in SDPA, True means that a query may attend. In some other places, such as `torch.nn.MultiheadAttention`, it means the opposite."),
                (masked.softmax(-2).masked_fill(~allowed, 0) @ value, "The softmax runs over the queries. Each query's weights over the keys should sum to 1: `dim=-1`."),
                (lambda got: got.shape != want.shape, f"The result needs the shape of the values, {shape}."),
            ],
            tolerance=1e-5,
        )  # fmt: skip
    _require_extreme_scores(answer)
    _require_gradients(answer, query, key, value, allowed)
    return "The same as SDPA, with 0 where a query may attend to no key, and no NaN in the gradients either."


def _unless_same(wrong, want):
    """A mistake's result, or None on inputs where the mistake does not show."""
    return None if torch.allclose(wrong, want, atol=1e-5) else wrong


def _empty_rows(allowed):
    return (~allowed.any(-1)).sum().item()


def _no_fused_attention():
    """A context in which calling scaled_dot_product_attention is a Mistake."""

    class Refusing(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.nn.functional.scaled_dot_product_attention:
                raise Mistake(
                    "This calls `scaled_dot_product_attention`. Write its steps: attention scores, mask, softmax, values."
                )
            return func(*args, **(kwargs or {}))

    return Refusing()


def _require_extreme_scores(answer):
    """Mistake if attention scores far from 0 upset the result: a query of 1 and keys that are the scores themselves."""
    value = torch.arange(1.0, 4).view(1, 1, 3, 1)
    for scores, allowed, message in [
        ([300.0, 302.0, 0.0], [True, True, False], "`exp` of a large attention score overflows. `softmax` first subtracts the largest allowed one of the row."),
        ([0.0, 1.0, 200.0], [True, True, False], "The forbidden attention score is far larger than the others, and it still counts. Mask first, so that forbidden keys are left out of whatever you compute from a row."),
        ([-30000.0, -30002.0, 0.0], [True, True, False], "The allowed attention scores are far below 0. Fill in something lower than any of them could be: `torch.finfo(scores.dtype).min`."),
    ]:  # fmt: skip
        query, key = torch.ones(1, 1, 1, 1), torch.tensor(scores).view(1, 1, 3, 1)
        mask = torch.tensor(allowed).view(1, 1, 1, 3)
        want = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        with _no_fused_attention():
            got = answer(query, key, value, mask)
        expect_close(
            got, want, f"the attention scores {scores} and the mask {allowed}", message, tolerance=1e-4
        )


def _require_gradients(answer, query, key, value, allowed):
    """Mistake unless query, key and value get SDPA's gradients from a loss that reads no empty row."""

    def gradients(attention):
        inputs = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        with torch.enable_grad():
            read = attention(*inputs, allowed)[..., allowed[0, 0].any(-1), :]
            if not read.requires_grad:
                return [None] * 3
            return torch.autograd.grad(read.square().sum(), inputs, allow_unused=True)

    fused = torch.nn.functional.scaled_dot_product_attention
    wanted = gradients(lambda *inputs: fused(*inputs[:3], attn_mask=allowed))
    with _no_fused_attention():
        got = gradients(answer.original)  # the learner's own: a copy's gradient is out of reach
    for name, mine, want in zip(("query", "key", "value"), got, wanted, strict=True):
        if mine is None:
            raise Mistake(f"The values are right, but no gradient reaches the {name}. Leave out `detach` and `no_grad`: a model has to learn through this function.")  # fmt: skip
        if not mine.isfinite().all():
            raise Mistake(f"The values are right, but the gradient of the {name} is NaN: in the backward pass, NaN weights were multiplied by 0. Fill in a number, finite before the softmax; −∞ that is *added* makes NaN on the way back, too.")  # fmt: skip
        if not torch.allclose(mine, want, atol=1e-4):
            raise Mistake(f"The values are right, but the gradient of the {name} is not SDPA's. Is part of the calculation detached?")  # fmt: skip


@exercise("03/join", title="Join causal and padding mask", minutes=5, difficulty=2)
def check_join(answer):
    """A boolean mask (batch, 1, length, length), for padding on either side and for none."""
    for rows in [
        [[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]],
        [[1, 1, 0, 0], [1, 1, 1, 1]],
        [[1, 1, 1]],
    ]:
        mask = torch.tensor(rows)
        batch, length = mask.shape
        want = joined_mask(mask)
        if joined_mask.__name__ in getattr(getattr(answer.original, "__code__", None), "co_names", ()):
            raise Mistake(
                "This calls the course's own `joined_mask`. Write it yourself: make the causal mask, and join the two with `&`."
            )
        got = answer(mask)
        causal, padding = torch.ones(length, length).tril().bool(), mask.bool()
        if not isinstance(got, torch.Tensor):
            raise Mistake(f"Return a tensor of True and False; got {type(got).__name__}.")
        if got.dtype != torch.bool:
            raise Mistake(f"Return True and False, a tensor of type torch.bool; got {got.dtype}.")
        if tuple(got.shape) == (batch, length, length):
            raise Mistake(
                "The dimension for the heads is missing: (batch, 1, query, key), not (batch, query, key)."
            )
        expect_equal(
            got,
            want,
            (mask,),
            "A query may attend to a key where both the causal mask and the padding mask allow it.",
            mistakes=[
                (_unless_equal(~want, want), "True and False are swapped: True means that a query may attend."),
                (_unless_equal(causal.T & padding[:, None, None, :], want), "Tokens attend to those after them. The causal mask is the lower triangle, `tril`."),
                (_unless_equal((causal & padding[:, None, :, None]).expand(want.shape), want), "The padding mask is on the query axis: it keeps padding from attending. Nothing may attend to padding: `[:, None, None, :]`."),
                (_unless_equal(causal | padding[:, None, None, :], want), "`|` allows what one of the masks allows. Both must allow it: `&`."),
                (_unless_equal(padding[:, None, None, :].expand(want.shape), want), "The causal mask is missing: tokens attend to the future."),
                (_unless_equal(causal.expand(want.shape), want), "The padding mask is missing: tokens attend to padding."),
                (_unless_equal(causal.tril(-1) & padding[:, None, None, :], want), "The diagonal is missing: a token may attend to itself."),
                (_unless_equal(want & padding[:, None, :, None] | torch.eye(length).bool() & ~padding[:, None, :, None], want), "The padding tokens attend to themselves here. Fully masked rows need no special case: the padding mask holds for every query."),
                (lambda got: got.shape != want.shape, f"The shape should be (batch, 1, query, key), which is {tuple(want.shape)} here."),
            ],
        )  # fmt: skip
    return "The causal and the padding mask in one tensor, the same one that the library gives its attention layers."


def _unless_equal(wrong, want):
    return None if torch.equal(wrong, want) else wrong


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "03/quiz-before",
        "Why is the mask applied before the softmax, not after it?",
        options=(
            Option("After the softmax, one large forbidden attention score may have rounded all other weights to 0", "Then no weight is left that could be scaled back to a sum of 1.", right=True),
            Option("The two give different weights for any scores", "On paper they are equal. The difference comes from rounding."),
            Option("Softmax cannot be differentiated after a mask", "Both orders have a gradient, as long as no row is NaN."),
        ),
        proof=lambda: _why_before(),
    ),
    Question(
        "03/quiz-half",
        "Old code puts −10⁹ into a mask where a key is forbidden, casts the mask to the model's type and adds it. The model now runs in float16. What happens to a fully masked row?",
        options=(
            Option("It is NaN", "−10⁹ is out of range and becomes −∞, for every key of the row.", right=True),
            Option("Four equal weights", "That is what happens in bfloat16, which has the range of float32.", value="equal"),
            Option("The weights without a mask", "That would be −10,000 in float32.", value="unmasked"),
        ),
        proof=lambda: _half_row(),
    ),
    Question(
        "03/quiz-twice",
        "A text has three padding tokens on the left. A causal and a padding mask, each with float32's `finfo.min`, are both added. Compared with one joined mask, which weights change?",
        options=(
            Option("Those of some padding tokens, and of no other token", "Where both forbid a key, the sum is −∞, and a padding token's row loses that key. Other tokens give such keys 0 either way.", right=True, value="fillers"),
            Option("None", "That is true of the text's tokens. A padding token's row has only forbidden keys, and now they no longer get the same number.", value="nobody"),
            Option("Those of the padding tokens become NaN", "That takes −∞ on every key. The causal mask allows a query its own key, so one finite entry is left.", value="nan"),
            Option("Those of the text's tokens, too", "Such a token has an allowed key: its own. Compared with that, `finfo.min` and −∞ both give 0.", value="tokens"),
        ),
        proof=lambda: _added_twice(),
    ),
    Question(
        "03/quiz-step",
        "`generate()` has kept the keys of 12 tokens for each of 3 rows, and passes one new id per row. What is the shape of the joined mask?",
        options=(
            Option("(3, 1, 1, 13)", "One query per row, and 13 keys: the 12 before it and its own.", right=True, value=(3, 1, 1, 13)),
            Option("(3, 1, 13, 13)", "Only the new id has a query. The queries of the others were used in earlier steps.", value=(3, 1, 13, 13)),
            Option("(3, 1, 1, 1)", "The one query also attends to the 12 keys that were kept.", value=(3, 1, 1, 1)),
            Option("(1, 1, 1, 13)", "Each row has its own padding, so each needs its own mask.", value=(1, 1, 1, 13)),
        ),
        proof=lambda: _step_shape(),
    ),
    Question(
        "03/quiz-mean",
        "You average hidden states over whole rows of a left-padded batch. A colleague with another attention implementation gets different averages. Why?",
        options=(
            Option("Your averages include the padding", "Its hidden states are undefined, and implementations fill them differently.", right=True),
            Option("One of the implementations has a bug", "Both are right at every token that is not padding."),
            Option("float32 cannot be more exact", "At all other tokens the two agree to about five decimals."),
        ),
    ),
)  # fmt: skip


def _why_before():
    """The text of the right option of "03/quiz-before", from small and from large forbidden scores."""
    keep = torch.tensor([True, True, False])

    def both(scores):
        late = scores.softmax(-1) * keep
        return late / late.sum(), scores.masked_fill(~keep, float("-inf")).softmax(-1)

    late, early = both(torch.tensor([0.0, 1.0, 2.0]))
    assert torch.allclose(late, early), "they should agree on small scores"
    late, early = both(torch.tensor([0.0, 1.0, 200.0]))
    assert late.isnan().all() and early.isfinite().all()
    return "After the softmax, one large forbidden attention score may have rounded all other weights to 0"


def _half_row():
    weights = _weights("float16", "-1e9")
    if weights.isnan().all():
        return "It is NaN"
    return (
        "unmasked"
        if torch.allclose(weights.float(), torch.tensor(SCORES).softmax(-1), atol=0.01)
        else "equal"
    )


def _added_twice():
    smallest = torch.finfo(torch.float32).min
    causal, padding = torch.ones(5, 5).tril().bool(), torch.tensor([0, 0, 1, 1, 1]).bool()
    scores = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    once = (scores + torch.zeros(5, 5).masked_fill(~(causal & padding), smallest)).softmax(-1)
    added = [torch.zeros(5, 5).masked_fill(~mask, smallest) for mask in (causal, padding)]
    twice = (scores + added[0] + added[1]).softmax(-1)
    if twice.isnan().any():
        return "nan"
    changed = (once - twice).abs().amax(-1) > 1e-3
    if changed[padding].any():
        return "tokens"
    return "fillers" if changed.any() else "nobody"


def _step_shape():
    return tuple(joined_mask(torch.ones(3, 13), queries=1).shape)
