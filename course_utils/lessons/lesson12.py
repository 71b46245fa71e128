"""Lesson 12: predictions, exercise checks and quiz. The helpers whose names begin with `_` compute the answers."""

import copy
import functools
import math

import torch

from ..checks.exercise import Mistake, exercise
from ..checks.quiz import NumberPrediction, Option, Prediction, Question
from ..models import load
from ..rounding import SMALL_BUGS, distance, eager, small_bug
from .fixtures import usable, warnings_on_the_page  # noqa: F401 (the notebook's)
from .lesson07 import FERRY

# ---- predictions -------------------------------------------------------------------------------------

predict_row = Prediction(
    "12/predict-row",
    "One row times a matrix: 1,536 numbers. The same row among 32 rows, times the same matrix, in float32. How many of its 1,536 numbers are equal, bit for bit?",
    options=(
        Option("All: the other rows do not take part", "In mathematics they do not. On the machine another shape is another order of addition.", value="all"),
        Option("All but a few", "A few would be luck. The order of addition changes for all of them.", value="most"),
        Option("Fewer than half", "Another shape, another way through the sum. Most last digits change.", right=True, value="few"),
    ),
    proof=lambda: _equal_numbers(),
)  # fmt: skip

predict_deterministic = Prediction(
    "12/predict-deterministic",
    "Now with `torch.use_deterministic_algorithms(True)`. How many are equal?",
    options=(
        Option("All", "It promises the same result for the same *input*. A batch is another input.", value="all"),
        Option("As many as before", "The same line gave the same result all along. That is what it promises, and no more.", right=True, value="as before"),
    ),
    proof=lambda: _with_deterministic_algorithms(),
)  # fmt: skip

predict_distinct = NumberPrediction(
    "12/predict-distinct",
    "The model in bfloat16 writes 49,152 logits. How many different numbers are among them?",
    key=2400,
    tolerance=900,
    unit="numbers",
    why="Between 16 and 32 bfloat16 has steps of 0.125, so tens of thousands of logits share a few thousand numbers.",
    wrong=(((40_000, 49_152), "So many differ in float32. bfloat16 has 8 bits for the digits."), ((128, 256), "So many numbers lie between two powers of 2. The logits span several.")),
    otherwise="Count the steps: 128 between one power of 2 and the next, for each sign.",
    proof=lambda: _distinct_logits(),
)  # fmt: skip

predict_column = Prediction(
    "12/predict-column",
    "Seven changes to the model, six of them a bug, one only rounding. In bfloat16 five of their differences lie between 0.2 and 0.5, and two are 3 and 8. Which is the rounding?",
    options=(
        Option("One of the two large ones", "Rounding of bfloat16 is 0.4 for this model. What is much larger is a bug.", value="large"),
        Option("One cannot tell", "Whatever changes a sum changes the rounding of everything after it, and that is 0.2 to 0.5, whether the cause is a bug or not.", right=True, value="cannot tell"),
        Option("The smallest", "A bug can be smaller than any rounding.", value="smallest"),
    ),
    proof=lambda: _in_bfloat16(),
)  # fmt: skip

predict_double = Prediction(
    "12/predict-double",
    "The whole model in float64, eager attention against SDPA. float64 keeps 16 digits. How large is the difference of the logits?",
    options=(
        Option("About 1e-14", "So it would be if every step were float64.", value="1e-14"),
        Option("About 1e-6, as float32 has it", "`model.double()` converts the weights. Three places in the code compute in float32 whatever they are given.", right=True, value="1e-6"),
        Option("0", "Two orders of addition differ in any type.", value="0"),
    ),
    proof=lambda: _in_float64(),
)  # fmt: skip

predict_greedy_nan = Prediction(
    "12/predict-greedy-nan",
    "All logits are NaN. Sampling raises an error. What does greedy decoding do?",
    options=(
        Option("It raises the same error", "`argmax` takes NaN for the largest number and asks nothing.", value="error"),
        Option("It writes id 0, step after step", "`argmax` of a row of NaN is its first place.", right=True, value="id 0"),
        Option("It stops", "Nothing looks at the numbers.", value="stops"),
    ),
    proof=lambda: "id 0" if torch.full((5,), math.nan).argmax() == 0 else "other",
)  # fmt: skip

predict_seed = Prediction(
    "12/predict-seed",
    "The same prompt twice in one batch, sampled after one `torch.manual_seed(0)`. Are the two texts equal?",
    options=(
        Option("Yes: one seed, one text", "The seed starts one stream of random numbers, and the rows take turns.", value="equal"),
        Option("No", "Each row takes the next random numbers of the stream, so the two draw different ones.", right=True, value="different"),
    ),
    proof=lambda: _two_rows(),
)  # fmt: skip


def product():
    """A row's product with a matrix, alone and among 32 rows: two float32 tensors [1536]."""
    generator = torch.Generator().manual_seed(0)
    rows, matrix = torch.randn(32, 576, generator=generator), torch.randn(576, 1536, generator=generator)
    return (rows[:1] @ matrix)[0], (rows @ matrix)[0]


def _equal_numbers():
    alone, among = product()
    share = (alone == among).float().mean()
    return "all" if share == 1 else "few" if share < 0.5 else "most"


def _with_deterministic_algorithms():
    before = [one.clone() for one in product()]
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        after = product()
    finally:
        torch.use_deterministic_algorithms(was)
    same = all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    return "as before" if same and _equal_numbers() == "few" else "all"


@functools.cache
def _in(dtype):
    model = load("smollm2-135m", "cpu")[0]
    return model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)


def text_ids(length=33):
    """The beginning of lesson 07's story, or with None all of it: LongTensor [1, length]."""
    tokenizer = load("smollm2-135m", "cpu")[1]
    return tokenizer(FERRY, return_tensors="pt").input_ids[:, :length]  # None takes all


@torch.no_grad()
def _distinct_logits():
    return len(_in(torch.bfloat16)(text_ids()).logits[0, -1].unique())


def _in_bfloat16():
    ways = [eager, *(small_bug(name) for name in list(SMALL_BUGS)[:4])]
    sizes = [distance(_in(torch.bfloat16), text_ids(), way, 6)[0] for way in ways]
    return "cannot tell" if max(sizes) < 4 * min(sizes) else "large"


def _in_float64():
    size = distance(_in(torch.float64), text_ids(), eager, 6)[0]
    return "1e-6" if 1e-7 < size < 1e-4 else "1e-14"


@torch.no_grad()
def _two_rows():
    model, tokenizer = load("smollm2-135m", "cpu")
    prompt = tokenizer(["The weather today is"] * 2, return_tensors="pt")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = model.generate(**prompt, do_sample=True, top_k=0, max_new_tokens=6)
    return "equal" if torch.equal(*rows) else "different"


# ---- exercise 1 --------------------------------------------------------------------------------------


def step(x, dtype):
    """The distance from x, above 0 and a number of `dtype`, to the next larger one: float."""
    here = torch.tensor(x, dtype=dtype)
    above = torch.nextafter(here, torch.tensor(math.inf, dtype=dtype))
    return (above.double() - here.double()).item()


@exercise("12/step", title="Write the distance to the next number", minutes=8, difficulty=2)
def check_step(answer):
    """Four types, at powers of two and between them, above 1 and below."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        eps = torch.finfo(dtype).eps
        for x in (1.0, 1.5, 3.0, 20.0, 31.875, 0.125, 0.375, 1000.0, 4.0):
            got = answer(x, dtype)
            if isinstance(got, torch.Tensor) and got.numel() == 1:
                got = got.item()
            if isinstance(got, bool) or not isinstance(got, int | float):
                raise Mistake(f"Return one number; got {type(got).__name__}.")
            want, power = step(x, dtype), math.log2(x)
            if got == want:
                continue
            where = f"At {x:g} in {str(dtype).removeprefix('torch.')}, got {got:.4g}, expected {want:.4g}. "
            if got == 0:
                raise Mistake(where + "The difference was rounded away: subtract in float64, or the next number is this one again.")  # fmt: skip
            if got == eps:
                raise Mistake(where + "`finfo.eps` is the step at 1. It doubles at each power of 2.")
            if math.isclose(got, eps * x):
                raise Mistake(where + "The step does not grow with x all the time: between two powers of 2 it stays the same.")  # fmt: skip
            if got == eps * 2.0 ** round(power) or got == eps * 2.0 ** math.ceil(power):
                raise Mistake(where + "The power of 2 is the one *below* x: round the logarithm down.")
            if got == -want or math.isclose(got, -want / 2):
                raise Mistake(where + "This is the step down. The next *larger* number was asked for.")
            raise Mistake(where + "The step is `eps` times the largest power of 2 that is not above x.")
    return "Between two powers of 2 all steps are equal, and at each power they double."


# ---- exercise 2 --------------------------------------------------------------------------------------


def verdict(difference):
    """ "bug" or "rounding", by what is left of the difference in float64."""
    return "bug" if difference(torch.float64) > difference(torch.float32) / 2 else "rounding"


# Measured differences: bfloat16, float32, float64. The first two are rounding through float32 islands.
_MEASURED = {
    "eager attention": ((0.38, 2.5e-5, 4.4e-6), "rounding"),
    "positions + 1": ((0.34, 2.9e-5, 5.3e-6), "rounding"),
    "with a cache": ((0.28, 3.2e-5, 4.6e-14), "rounding"),
    "in a padded batch": ((0.23, 2.2e-5, 0.0), "rounding"),
    "the same line again": ((0.0, 0.0, 0.0), "rounding"),
    "a large but honest sum": ((40.0, 0.02, 3e-11), "rounding"),
    "mask forgotten": ((2.1, 2.1, 2.1), "bug"),
    "norm's epsilon": ((0.41, 0.0080, 0.0080), "bug"),
    "one layer's scale": ((0.38, 0.000183, 0.000174), "bug"),
    "one weight": ((0.44, 0.0022, 0.0022), "bug"),
    "a tiny bug": ((0.30, 2.9e-5, 2.1e-5), "bug"),
}


@exercise("12/verdict", title="Tell a bug from rounding", minutes=10, difficulty=3)
def check_verdict(answer):
    """Measured differences of bugs and of rounding, among them bugs smaller than any rounding of bfloat16."""
    for name, (sizes, want) in _MEASURED.items():
        table = dict(zip((torch.bfloat16, torch.float32, torch.float64), sizes, strict=True))

        def difference(dtype, table=table):
            if dtype not in table:
                raise Mistake(f"The difference was asked for in {dtype!r}. Give torch.bfloat16, torch.float32 or torch.float64.")  # fmt: skip
            return table[dtype]

        got = answer(difference)
        if got not in ("bug", "rounding"):
            raise Mistake(f'Return "bug" or "rounding"; got {got!r}.')
        if got == want:
            continue
        b, f, d = sizes
        said = f"{name}: bfloat16 {b:g}, float32 {f:g}, float64 {d:g}. "
        if want == "rounding" and d == 0:
            raise Mistake(
                said + "Nothing is left in float64, so it was rounding. (Take care not to divide by 0.)"
            )
        if want == "rounding" and d > 1e-7:
            raise Mistake(said + "It shrank to a fifth, which no bug does. It need not shrink as far as the type allows: parts of the model stay in float32.")  # fmt: skip
        if want == "rounding":
            raise Mistake(
                said + "That is large, and in float64 it is gone. Judge by how it shrinks, not by its size."
            )
        if b > 20 * f:
            raise Mistake(said + "From bfloat16 to float32 it shrinks a hundredfold, since bfloat16's own rounding hides it. Only the step from float32 to float64 tells.")  # fmt: skip
        raise Mistake(
            said + "It is small, and it stays. A bug keeps its size, however many digits there are."
        )
    return "A bug keeps its size from float32 to float64. Rounding does not."


def usable_verdict(yours):
    """The learner's `verdict` if it passes its check, else the course's."""
    return usable(check_verdict, yours, verdict, "verdict")


# ---- exercise 3 --------------------------------------------------------------------------------------


def first_flip(a, b, logits):
    """(step, gap) where two texts first differ, None if they do not; the gap of the two best logits there."""
    for place, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            best = logits[place].topk(2).values
            return place, (best[0] - best[1]).item()
    return None


@exercise("12/first-flip", title="Find the first token that differs", minutes=8, difficulty=2)
def check_first_flip(answer):
    """Texts that differ early, late, at their first token, everywhere after the first, and not at all."""
    generator = torch.Generator().manual_seed(12)
    logits = torch.randn(6, 20, generator=generator) * 3
    a = logits.argmax(-1).tolist()
    for places in ((2,), (2, 4, 5), (0, 1, 2, 3, 4, 5), (5,), ()):
        b = [(id + 1) % 20 if place in places else id for place, id in enumerate(a)]
        want = first_flip(a, b, logits)
        got = answer(list(a), list(b), logits.clone())
        if want is None:
            if got is not None:
                raise Mistake(f"These two texts are equal, and you return {got!r}. Return None.")
            continue
        if got is None:
            raise Mistake(f"These texts differ at step {want[0]}, and you return None.")
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Mistake(f"Return a step and a gap, two numbers; got {got!r}.")
        place, gap = int(got[0]), float(got[1])
        if place == max(places) and place != want[0]:
            raise Mistake(f"This is the last difference, at step {place}. After the first one ({want[0]}) the texts have different prefixes, so the later ones say nothing.")  # fmt: skip
        if place != want[0]:
            raise Mistake(f"Got step {place}, expected {want[0]}, counted from 0.")
        if math.isclose(gap, want[1], rel_tol=1e-4):
            continue
        best = logits.softmax(-1)[place].topk(2).values
        if math.isclose(gap, (best[0] - best[1]).item(), rel_tol=1e-3):
            raise Mistake("The gap is taken of probabilities. Take it of the logits: rounding happens there.")
        if math.isclose(gap, -want[1], rel_tol=1e-4):
            raise Mistake(f"The gap is {gap:.2f}: it is the largest logit minus the second, not below 0.")
        for late in (place - 1, place + 1):
            if 0 <= late < 6:
                best = logits[late].topk(2).values
                if math.isclose(gap, (best[0] - best[1]).item(), rel_tol=1e-4):
                    raise Mistake("The gap is that of a neighbouring step. `logits[step]` chose the token of this step.")  # fmt: skip
        raise Mistake(f"At step {place} got the gap {gap:.3f}, expected {want[1]:.3f}: the largest of `logits[step]` minus the second.")  # fmt: skip
    return "Only the first difference says something: after it, the two runs read different texts."


def usable_first_flip(yours):
    """The learner's `first_flip` if it passes its check, else the course's."""
    return usable(check_first_flip, yours, first_flip, "first_flip")


# ---- exercise 4 --------------------------------------------------------------------------------------


def safe_probs(logits, temperature, banned):
    """Probabilities [vocab], float32, of float16 logits at a temperature; banned ids have exactly 0."""
    scores = logits.float() / temperature
    scores[banned] = -math.inf
    return scores.softmax(-1)


@exercise("12/safe-probs", title="Mend a sampling step", minutes=8, difficulty=3)
def check_safe_probs(answer):
    """Logits near float16's largest number, all below zero, and a ban that leaves one token."""
    generator = torch.Generator().manual_seed(3)
    usual = (torch.randn(8, generator=generator) * 4).half()
    large = torch.tensor([50_000, 49_990, 10, 0, -50_000, 5, 1, 2], dtype=torch.float16)
    low = torch.tensor(
        [-20_000, -19_984, -30_000, -30_000, -60_000, -50_000, -40_000, -19_984], dtype=torch.float16
    )
    cases = [
        ("usual logits", usual, 1.0, [2]),
        ("a temperature of 0.5 and logits of 50,000", large, 0.5, [1]),
        ("logits far below zero", low, 1.0, [0, 7]),
        ("a ban that leaves one token", usual, 0.7, [0, 1, 2, 3, 4, 5, 7]),
        ("nothing banned", usual, 2.0, []),
    ]  # fmt: skip
    for name, logits, temperature, banned in cases:
        given = logits.clone()
        got = answer(given, temperature, list(banned))
        if not isinstance(got, torch.Tensor) or got.shape != logits.shape:
            raise Mistake("Return one tensor of probabilities, (vocab,).")
        want = safe_probs(logits, temperature, banned)
        if got.isnan().any():
            if not (logits.float() / temperature).half().isfinite().all():
                raise Mistake(f"NaN for {name}: the division ran over float16's largest number. Convert to float32 *before* it.")  # fmt: skip
            raise Mistake(f"NaN for {name}. Something is subtracted from infinity, or all of it is banned.")
        if banned and got[banned].abs().max() > 0:
            raise Mistake(f"For {name}, a banned token has a probability of {got[banned].max():.2g}. Its score is to be −∞, not a large number: other scores may lie below that.")  # fmt: skip
        if (got.float().sum() - 1).abs() > 1e-3:
            raise Mistake(f"For {name}, the probabilities add up to {got.float().sum():.3f}. Ban before the softmax, which then shares out the rest.")  # fmt: skip
        if got.dtype == torch.float16:
            raise Mistake(
                "The result is float16 again, where probabilities below 6e-8 are 0. Return float32."
            )
        if not torch.allclose(got.float(), want, atol=1e-4):
            if torch.allclose(got.float(), safe_probs(logits, 1.0, banned), atol=1e-4):
                raise Mistake("The temperature has no effect. Divide the logits by it.")
            raise Mistake(f"For {name}, the probabilities are others. NaN or infinity replaced by a number hides the error and draws other tokens.")  # fmt: skip
    return "float32 first, then the division, then −∞ for what is banned, then one softmax."


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "12/quiz-batch",
        "In a batch a text gets other logits than alone, by 3e-5 in float32. What do you do first?",
        options=(
            Option("Run both in float64 and see whether it stays", "A forgotten mask stays; rounding nearly goes.", right=True),
            Option("Nothing: 3e-5 is small", "A bug can be of that size, too."),
            Option("Set `use_deterministic_algorithms(True)`", "It makes the same input give the same result. A batch is another input."),
        ),
    ),
    Question(
        "12/quiz-words",
        "In bfloat16 ten of twelve greedy texts differ from float32's. Is something broken?",
        options=(
            Option("Yes: most words are others", "One near tie is enough; from there on the texts part."),
            Option("One cannot say from that", "Rounding flips near ties, and so do small bugs. Judge logits on the same prefix, in float32 and float64.", right=True),
            Option("No: bfloat16 always does that", "It may be. But the number of changed words cannot tell."),
        ),
    ),
    Question(
        "12/quiz-nan",
        '"probability tensor contains either `inf`, `nan` or element < 0". Where do you look?',
        options=(
            Option("For the first NaN: in the logits, then in the hidden states, layer by layer", "A processor that bans everything, or a number above 65,504 in float16.", right=True),
            Option("At `torch.multinomial`", "It only reports what it was given."),
            Option("Nowhere: `remove_invalid_values=True` mends it", "It replaces NaN by 0 and draws unrelated tokens without a word."),
        ),
    ),
    Question(
        "12/quiz-seed",
        "Row 0 of a batch, sampled with a seed, writes another text than alone with the same seed. Rounding?",
        options=(
            Option("Yes, a batch rounds differently", "Not by that much. In float32 greedy texts are the same."),
            Option("No: the rows share one stream of random numbers", "From the second step on, row 0 is given other random numbers than alone.", right=True),
            Option("No: the seed is reset for each row", "It is not. One stream serves all rows."),
        ),
    ),
)  # fmt: skip
