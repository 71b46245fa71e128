"""Lesson 03: predictions, exercise checks and quiz. The helpers whose names begin with `_` compute the answers."""

from .exercise import Mistake, exercise, expect_close, expect_equal
from .quiz import Option, Prediction, Question

TITLE = "What does a mask do inside attention?"
DTYPES = ("float32", "bfloat16", "float16")
FILL_VALUES = ("-inf", "finfo.min", "-1e4", "-1e9")
SCORES = (3.0, -20.0, 5.0, -40.0)

# ---- predictions -------------------------------------------------------------------------------------

predict_before = Prediction(
    "03/predict-before",
    "A forbidden score becomes −∞ before the softmax. How do the weights compare with those masked and scaled afterwards?",
    options=(
        Option("They are the same", "Both divide each allowed e to the score by the sum over the allowed ones.", right=True, value=True),
        Option("The rows no longer sum to 1", "Softmax makes every row sum to 1, whatever went into it.", value=False),
        Option("They are NaN", "e to the −∞ is exactly 0. NaN comes only where nothing else is in the row.", value=False),
        Option("The allowed weights are smaller", "They would be, if the forbidden ones still took a share. Their share is 0.", value=False),
    ),
    proof=lambda: _before_is_after(),
)  # fmt: skip

predict_times = Prediction(
    "03/predict-times",
    'The mask is `[0, 0, 1, 1, 1]`, so `inverted` is `[1, 1, 0, 0, 0]`. What is `inverted * float("-inf")`?',
    options=(
        Option("`[-inf, -inf, 0, 0, 0]`", "1 · −∞ is −∞, as wanted. The other product is the trouble.", value="[-inf, -inf, 0.0, 0.0, 0.0]"),
        Option("`[-inf, -inf, nan, nan, nan]`", "0 · ∞ has no value, and floating point says so with NaN.", right=True, value="[-inf, -inf, nan, nan, nan]"),
        Option("`[nan, nan, nan, nan, nan]`", "1 · −∞ is fine: it is −∞.", value="[nan, nan, nan, nan, nan]"),
        Option("`[0, 0, -inf, -inf, -inf]`", "That would forbid the tokens. `inverted` is 1 at the fillers.", value="[0.0, 0.0, -inf, -inf, -inf]"),
    ),
    proof=lambda: _zero_times_infinity(),
)  # fmt: skip

predict_full_row = Prediction(
    "03/predict-full-row",
    "float32, −10,000 added to the scores of all four keys. What does the row attend to?",
    options=(
        Option("To nothing", "A softmax row sums to 1 or is NaN. It cannot attend to nothing.", value="nothing"),
        Option("To all four alike", "That is what `finfo.min` gives, since it drowns the scores. −10,000 does not.", value="all alike"),
        Option("To the same keys as without any mask", "The same number on every score cancels in the division.", right=True, value="as unmasked"),
        Option("To NaN", "Every e to the score is 0 in float32, but softmax subtracts the row's largest score first.", value="nan"),
    ),
    proof=lambda: _shifted_row(),
)  # fmt: skip

predict_gradient = Prediction(
    "03/predict-gradient",
    "−∞ is filled in at forbidden places, the first two rows are NaN, and the loss does not read them. Which matrices get NaN gradients?",
    options=(
        Option("None", "They send a gradient of 0 back. On its way it is multiplied by NaN weights.", value=[]),
        Option("The value matrix only", "Values get the gradient through the weights, and 0 · NaN is NaN. Scores that were filled over get 0.", right=True, value=["value"]),
        Option("The query and key matrices only", "Their scores were overwritten by the fill, so nothing goes back through them at forbidden places.", value=["query", "key"]),
        Option("All three", "That is what adding −∞ does. Filling in cuts the way back to the forbidden scores.", value=["query", "key", "value"]),
    ),
    proof=lambda: _nan_gradients(),
)  # fmt: skip

predict_fillers = Prediction(
    "03/predict-fillers",
    "The same left-padded batch through eager and through SDPA. Where do the last hidden states differ by more than 0.0001?",
    options=(
        Option("Nowhere", "They agree where something is defined. A row without any allowed key is not.", value="nowhere"),
        Option("At the fillers only", "Eager mixes all values there, SDPA none. No token ever looks at the result.", right=True, value="fillers"),
        Option("Everywhere in the rows that have padding", "It would spread to the tokens if they looked at the fillers. The mask forbids it.", value="padded rows"),
        Option("Everywhere", "The row without padding has no place where the two would disagree.", value="everywhere"),
    ),
    proof=lambda: _where_kernels_differ(),
)  # fmt: skip


def _before_is_after():
    import torch

    scores = torch.tensor([[2.0, 1, 0, 3], [1, 3, 2, 0], [0, 2, 4, 1], [3, 1, 2, 2]])
    allowed = torch.ones(4, 4).tril().bool()
    after = scores.softmax(-1) * allowed
    before = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    return torch.allclose(before, after / after.sum(-1, keepdim=True))


def _zero_times_infinity():
    import torch

    return str(((1.0 - torch.tensor([0, 0, 1, 1, 1])) * float("-inf")).tolist())


def _weights(dtype, fill, forbidden=(True,) * 4):
    """The weights of the row SCORES with `fill` added at the forbidden keys, all in `dtype`."""
    import torch

    dtype = getattr(torch, dtype)
    value = torch.tensor(torch.finfo(dtype).min if fill == "finfo.min" else float(fill)).to(dtype)
    added = torch.where(torch.tensor(forbidden), value, torch.zeros((), dtype=dtype))
    return (torch.tensor(SCORES, dtype=dtype) + added).softmax(-1)


def _shifted_row():
    import torch

    weights = _weights("float32", "-1e4")
    if weights.isnan().any():
        return "nan"
    if torch.allclose(weights, torch.tensor(SCORES).softmax(-1), atol=1e-3):
        return "as unmasked"
    return "all alike" if weights.max() - weights.min() < 1e-3 else "nothing"


def _nan_gradients():
    """The matrices with NaN gradients when −∞ is filled in and two rows, which no loss reads, may look nowhere."""
    import torch

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
    import torch

    from course_utils import load

    from ..masks import pad_sentences, position_ids

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
        raise Mistake('Give a set of pairs of type and fill value, such as {("float32", "-1e4")}.') from None
    for dtype, fill in sorted(got):
        if dtype not in DTYPES:
            raise Mistake(
                f"`{dtype}` is none of the three types: {', '.join(f'`{name}`' for name in DTYPES)}."
            )
        if fill not in FILL_VALUES:
            raise Mistake(
                f"`{fill}` is none of the four fill values: {', '.join(f'`{name}`' for name in FILL_VALUES)}."
            )
    want = {(dtype, fill) for dtype in DTYPES for fill in FILL_VALUES if _weights(dtype, fill).isnan().any()}
    if got == want:
        return (
            "Right in all twelve: a row is NaN where every score has become −∞, and float16 gets there early."
        )
    if not got:
        raise Mistake(
            "None at all? With −∞ on every key each e to the score is 0, and softmax divides 0 by 0."
        )
    if want - {("float16", "-1e9")} == got:
        raise Mistake(
            "One is missing. Look for a fill value that does not fit into one of the types, and becomes −∞ there."
        )
    if ("float16", "finfo.min") in got:
        raise Mistake(
            "`finfo.min` in float16 overflows for the scores −20 and −40 only. With 3 and 5 it stays finite, and two finite scores make weights."
        )
    if any(fill == "finfo.min" for _, fill in got):
        raise Mistake(
            "`finfo.min` is so far from 0 in float32 and bfloat16 that adding a score changes nothing: four equal, finite sums, and their softmax is no NaN."
        )
    if any(fill == "-1e4" for _, fill in got):
        raise Mistake(
            "−10,000 fits into every type, so no sum becomes −∞. Softmax subtracts the row's largest score first, and is a number wherever one score is finite."
        )
    if any(fill == "-1e9" for _, fill in got - want):
        raise Mistake(
            "−10⁹ fits into float32 and bfloat16, which share their range. Only in float16 does it become −∞."
        )
    raise Mistake("Some are missing: −∞ on every key gives NaN whatever the type is.")  # fmt: skip


def _fill_name(fill):
    """The name of a fill value in FILL_VALUES, also for one that was given as a number."""
    numbers = {float(name): name for name in FILL_VALUES if name != "finfo.min"}
    return numbers.get(fill, str(fill)) if isinstance(fill, int | float) else str(fill)


@exercise("03/attend", title="Write attention without NaN", minutes=12, difficulty=3)
def check_attend(answer):
    """Held to scaled_dot_product_attention with a boolean mask, rows without a key and very large scores
    included; then its gradients. The fused operation itself is refused."""
    import torch

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
            raise Mistake(f"For {said} the result has NaN. Fill with a finite number before the softmax.")
        masked = (scores / size**0.5).masked_fill(~allowed, off)
        expect_close(
            got,
            want,
            said,
            "The result differs from SDPA's: scores, divided by the root of the size, mask, softmax, times the values.",
            mistakes=[
                (_unless_same(masked.softmax(-1) @ value, want), "A query that may look nowhere should get 0, and here it mixes all values. Take its weights out after the softmax."),
                (scores.masked_fill(~allowed, off).softmax(-1).masked_fill(~allowed, 0) @ value, "The scores are not scaled: divide them by the square root of the size."),
                ((scores / size).masked_fill(~allowed, off).softmax(-1).masked_fill(~allowed, 0) @ value, "The scores are divided by the size. Divide by its square root."),
                (_unless_same((scores / size**0.5).softmax(-1) @ value, want), "The mask has no effect on the result."),
                (_unless_same((scores / size**0.5).softmax(-1).masked_fill(~allowed, 0) @ value, want), "Forbidden weights are 0, but the others no longer sum to 1: they still shared with them. Mask the scores."),
                (_unless_same((scores / size**0.5).masked_fill(allowed, off).softmax(-1) @ value, want), "The mask is used the wrong way round: True means may look."),
                (masked.softmax(-2).masked_fill(~allowed, 0) @ value, "The softmax runs over the queries. Each query's weights over the keys sum to 1: `dim=-1`."),
                (lambda got: got.shape != want.shape, f"The result needs the shape of the values, {shape}."),
            ],
            tolerance=1e-5,
        )  # fmt: skip
    _require_extreme_scores(answer)
    _require_gradients(answer, query, key, value, allowed)
    return "The same as SDPA, with 0 where a query may look nowhere, and no NaN on the way back either."


def _unless_same(wrong, want):
    """A mistake's result, or None on inputs where the mistake does not show."""
    import torch

    return None if torch.allclose(wrong, want, atol=1e-5) else wrong


def _empty_rows(allowed):
    return (~allowed.any(-1)).sum().item()


def _no_fused_attention():
    """A context in which calling scaled_dot_product_attention is a Mistake."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Refusing(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.nn.functional.scaled_dot_product_attention:
                raise Mistake(
                    "This calls `scaled_dot_product_attention`. Write its steps: scores, mask, softmax, values."
                )
            return func(*args, **(kwargs or {}))

    return Refusing()


def _require_extreme_scores(answer):
    """Mistake if scores far from 0 upset the result: a query of 1 and keys that are the scores themselves."""
    import torch

    value = torch.arange(1.0, 4).view(1, 1, 3, 1)
    for scores, allowed, message in [
        ([300.0, 302.0, 0.0], [True, True, False], "`exp` of a large score overflows. `softmax` subtracts the row's largest allowed score first."),
        ([0.0, 1.0, 200.0], [True, True, False], "The forbidden score is far larger than the others, and it still counts. Mask the scores first, and leave forbidden ones out of whatever you compute from a row."),
        ([-30000.0, -30002.0, 0.0], [True, True, False], "The allowed scores are far below 0. Fill with something lower than any score could be: `torch.finfo(scores.dtype).min`."),
    ]:  # fmt: skip
        query, key = torch.ones(1, 1, 1, 1), torch.tensor(scores).view(1, 1, 3, 1)
        mask = torch.tensor(allowed).view(1, 1, 1, 3)
        want = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        with _no_fused_attention():
            got = answer(query, key, value, mask)
        expect_close(got, want, f"the scores {scores} and the mask {allowed}", message, tolerance=1e-4)


def _require_gradients(answer, query, key, value, allowed):
    """Mistake unless query, key and value get SDPA's gradients from a loss that reads no empty row."""
    import torch

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
            raise Mistake(f"The values are right, but no gradient reaches the {name}. Leave out `detach` and `no_grad`: a model must learn through this.")  # fmt: skip
        if not mine.isfinite().all():
            raise Mistake(f"The values are right, and the gradient of the {name} is NaN: NaN weights were multiplied by 0 on the way back. Make the weights finite before they meet the values.")  # fmt: skip
        if not torch.allclose(mine, want, atol=1e-4):
            raise Mistake(f"The values are right, but the gradient of the {name} is not SDPA's. Is a part of the calculation detached?")  # fmt: skip


@exercise("03/join", title="Join causal and padding mask", minutes=5, difficulty=2)
def check_join(answer):
    """A boolean mask (batch, 1, length, length), for padding on either side and for none."""
    import torch

    from ..masks import joined_mask

    for rows in [
        [[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]],
        [[1, 1, 0, 0], [1, 1, 1, 1]],
        [[1, 1, 1]],
    ]:
        mask = torch.tensor(rows)
        batch, length = mask.shape
        want = joined_mask(mask)
        got = answer(mask)
        causal, padding = torch.ones(length, length).tril().bool(), mask.bool()
        if not isinstance(got, torch.Tensor):
            raise Mistake(f"Return a tensor of True and False; this is {type(got).__name__}.")
        if got.dtype != torch.bool:
            raise Mistake(f"Return True and False, a tensor of type torch.bool; this is of type {got.dtype}.")
        if tuple(got.shape) == (batch, length, length):
            raise Mistake(
                "The dimension for the heads is missing: (batch, 1, query, key), not (batch, query, key)."
            )
        expect_equal(
            got,
            want,
            (mask,),
            "A query may look where the causal mask and the padding mask both say so.",
            mistakes=[
                (_unless_equal(~want, want), "True and False are swapped: True means may look."),
                (_unless_equal(causal.T & padding[:, None, None, :], want), "It looks to the right. The causal mask is the lower triangle, `tril`."),
                (_unless_equal((causal & padding[:, None, :, None]).expand(want.shape), want), "The padding is on the query axis: it keeps fillers from looking. They must not be looked at: `[:, None, None, :]`."),
                (_unless_equal(causal | padding[:, None, None, :], want), "`|` allows what one of the masks allows. Both have to: `&`."),
                (_unless_equal(padding[:, None, None, :].expand(want.shape), want), "The causal mask is missing: tokens look into the future."),
                (_unless_equal(causal.expand(want.shape), want), "The padding mask is missing: tokens look at the fillers."),
                (_unless_equal(causal.tril(-1) & padding[:, None, None, :], want), "The diagonal is missing: a token may look at itself."),
                (_unless_equal(want & padding[:, None, :, None] | torch.eye(length).bool() & ~padding[:, None, :, None], want), "The fillers look at themselves here. No row needs repair: the padding mask holds for every query."),
                (lambda got: got.shape != want.shape, f"The shape should be (batch, 1, query, key), here {tuple(want.shape)}."),
            ],
        )  # fmt: skip
    return "Causal and padding mask in one tensor, the same that the library gives its attention layers."


def _unless_equal(wrong, want):
    import torch

    return None if torch.equal(wrong, want) else wrong


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "03/quiz-before",
        "Why is the mask applied before the softmax, not after it?",
        options=(
            Option("Afterwards a large forbidden score may have rounded all others to 0", "Then there is nothing left to scale back to a sum of 1.", right=True),
            Option("The two give different weights for any scores", "On paper they are equal. The difference comes from rounding."),
            Option("Softmax cannot be differentiated after a mask", "Both orders have a gradient, as long as no row is NaN."),
        ),
        proof=lambda: _why_before(),
    ),
    Question(
        "03/quiz-half",
        "Old code puts −10⁹ at forbidden places of a mask, casts it to the model's type and adds it. The model now runs in float16. What becomes of a fully masked row?",
        options=(
            Option("It is NaN", "−10⁹ does not fit and becomes −∞, on every key of the row.", right=True),
            Option("Four equal weights", "In bfloat16, which has float32's range, this is what happens.", value="equal"),
            Option("The weights of no mask at all", "That would be −10,000 in float32.", value="unmasked"),
        ),
        proof=lambda: _half_row(),
    ),
    Question(
        "03/quiz-twice",
        "A text with three fillers on the left. A causal and a padding mask, each with float32's `finfo.min`, are both added. Whose weights change against one joined mask?",
        options=(
            Option("Some fillers', and no token's", "Where both forbid, the sum is −∞, and a filler's row loses that key. Tokens give such keys 0 either way.", right=True, value="fillers"),
            Option("Nobody's", "True for tokens. A filler's row has only forbidden keys, and now they are not forbidden alike.", value="nobody"),
            Option("Fillers' rows become NaN", "That takes −∞ on every key. The causal mask leaves a query its own place, so one finite score is left.", value="nan"),
            Option("The tokens', too", "A token has an allowed key: itself. Next to it, `finfo.min` and −∞ both give 0.", value="tokens"),
        ),
        proof=lambda: _added_twice(),
    ),
    Question(
        "03/quiz-step",
        "`generate()` has kept the keys of 12 places for each of 3 rows, and passes one new id a row. Which shape has the joined mask?",
        options=(
            Option("(3, 1, 1, 13)", "One query a row, and 13 keys: the 12 before it and itself.", right=True, value=(3, 1, 1, 13)),
            Option("(3, 1, 13, 13)", "Only the new id asks. The others had their turn in earlier steps.", value=(3, 1, 13, 13)),
            Option("(3, 1, 1, 1)", "The one query also looks at the 12 keys that were kept.", value=(3, 1, 1, 1)),
            Option("(1, 1, 1, 13)", "Each row has its own padding, so each needs its own mask.", value=(1, 1, 1, 13)),
        ),
        proof=lambda: _step_shape(),
    ),
    Question(
        "03/quiz-mean",
        "You average hidden states over all places of a left-padded batch. A colleague with another attention kernel gets other averages. Why?",
        options=(
            Option("Your averages include the fillers", "What stands there is undefined, and kernels fill it differently.", right=True),
            Option("One of the kernels has a bug", "Both are right at every token."),
            Option("float32 cannot be more exact", "At the tokens the two agree to about five decimals."),
        ),
    ),
)  # fmt: skip


def _why_before():
    """The text of the right option of "03/quiz-before", from small and from large forbidden scores."""
    import torch

    keep = torch.tensor([True, True, False])

    def both(scores):
        late = scores.softmax(-1) * keep
        return late / late.sum(), scores.masked_fill(~keep, float("-inf")).softmax(-1)

    late, early = both(torch.tensor([0.0, 1.0, 2.0]))
    assert torch.allclose(late, early), "they should agree on small scores"
    late, early = both(torch.tensor([0.0, 1.0, 200.0]))
    assert late.isnan().all() and early.isfinite().all()
    return "Afterwards a large forbidden score may have rounded all others to 0"


def _half_row():
    import torch

    weights = _weights("float16", "-1e9")
    if weights.isnan().all():
        return "It is NaN"
    return (
        "unmasked"
        if torch.allclose(weights.float(), torch.tensor(SCORES).softmax(-1), atol=0.01)
        else "equal"
    )


def _added_twice():
    import torch

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
    import torch

    from ..masks import joined_mask

    return tuple(joined_mask(torch.ones(3, 13), queries=1).shape)
