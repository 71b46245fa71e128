# %% [markdown]
# # Is it a bug, or rounding?
#
# **By the end you will tell a bug of 0.0002 from rounding of 0.4, and say why neither the size of a difference nor the
# number of changed words does.**
#
# You will be able to
#
# - say why the same row has other numbers in a batch, and what makes them equal,
# - say how far apart the numbers of a type are, and when that turns a word,
# - tell a bug from rounding with one comparison,
# - find what computes in float32 although the model is float64,
# - trace the message "probability tensor contains either `inf`, `nan` or element < 0" to its cause.
#
# *50 minutes, and another 34 for the exercises. You need: lessons 04, 06 and 11.*

# %% [markdown]
# ## 1. The same row
#
# Somebody runs a text alone and in a batch and gets other numbers. Is something broken? We begin without a model: one
# row times a matrix, and the same row among 32.

# %%
import copy
import math

import torch

from course_utils import load, needs_transformers
from course_utils.lessons import lesson12 as lesson
from course_utils.plots import grouped_bars, histogram, lines, slopes
from course_utils.widgets import Predict, Quiz, TwoRuns

needs_transformers("5.24")  # the first release that calls the cache `cache`
page = lesson.warnings_on_the_page()
torch.set_grad_enabled(False)  # nothing is trained here
torch.manual_seed(0)
rows, matrix = torch.randn(32, 576), torch.randn(576, 1536)
alone, among = (rows[:1] @ matrix)[0], (rows @ matrix)[0]  # (1536,) each

# %%
Predict(lesson.predict_row)

# %% tags=["answer", "nbval-ignore-output"]
print(f"equal: {(alone == among).sum()} of {len(alone)}; largest difference {(alone - among).abs().max():.0e}")
differences = (alone - among)[alone != among]
histogram((1e5 * differences).tolist(), "The differences, alone minus in a batch", "in units of 1e-5", bins=40)

# %%
assert (alone == among).float().mean() < 0.5 and (alone - among).abs().max() < 2e-4

# %% [markdown]
# Most of them differ, in their last digits: the numbers have a size of about 20, and the differences are below 0.0002.
# Which of the two is wrong? We ask float64:

# %%
exact = (rows[:1].double() @ matrix.double())[0]
off = {name: (one.double() - exact).abs().max().item() for name, one in (("alone", alone), ("in the batch", among))}
print({name: size < 2e-4 for name, size in off.items()}, "and exactly right:", any(size == 0 for size in off.values()))

# %% [markdown]
# Neither is right, and both are about equally far off. A processor adds 576 products in an order that suits the shape,
# and sums of floats depend on the order. There is a switch that sounds like the cure:

# %%
Predict(lesson.predict_deterministic)

# %% tags=["answer"]
torch.use_deterministic_algorithms(True)
print("the same line again, equal to before:", torch.equal((rows @ matrix)[0], among))
print("alone and in the batch equal in most:", ((rows[:1] @ matrix)[0] == among).float().mean().item() > 0.5)
torch.use_deterministic_algorithms(False)

# %% [markdown]
# The same input gave the same result all along. A batch is another input. What does help is to keep the shape: with
# other rows beside it, but as many, the row has the same numbers, bit for bit.

# %%
others = torch.cat([rows[:1], torch.randn(31, 576)])
print("other neighbours, same shape, equal:", torch.equal((others @ matrix)[0], among))

# %% [markdown]
# ## 2. Sums and steps
#
# In mathematics (a + b) + c is a + (b + c). Here it is not:

# %%
big = torch.tensor(1e8)  # float32
print((big - big) + 1, big + (-big + 1))

# %% [markdown]
# Near 1e8 the floats are 8 apart, so −1e8 + 1 is rounded back to −1e8. A thousand numbers in 200 orders, each time added
# one by one:

# %%
numbers = torch.randn(1000)
orders = torch.stack([numbers[torch.randperm(1000)] for _ in range(200)])  # (order, number)
sums = torch.zeros(200)
for column in orders.T:
    sums = sums + column
print(len(sums.unique()), "different sums")
assert 10 < len(sums.unique()) < 200 and sums.max() - sums.min() < 1e-3
histogram((1e6 * (sums.double() - sums.double().mean())).tolist(), "One sum, 200 orders", "distance from the mean, in units of 1e-6")

# %% [markdown]
# How far is it from one float to the next? A type has so many digits, and the point floats. These are the numbers that
# three types have near 20, where a good logit of our model lies:

# %%
places = [19.8 + 0.005 * n for n in range(120)]
types = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
stairs = {name: torch.tensor(places).to(dtype).tolist() for name, dtype in types.items()}
lines(places, stairs, "What a type makes of a number near 20", "the number", "as it is kept")

# %% [markdown]
# float32 looks like a line, float16 has a step each 0.016, and bfloat16 knows nothing between 20 and 20.125.
#
# ### Exercise 1: Write the distance to the next number · difficulty 2 of 3 · 8 minutes
#
# For `x` above 0, a number of the type, return the distance to the next larger one. (`torch.finfo(dtype).eps` is the
# distance at 1.)

# %% tags=["exercise"]
def step(x: float, dtype: torch.dtype) -> float:
    """Return the distance from x to the next larger number of the type."""
    raise NotImplementedError

# %% tags=["solution"]
def step(x: float, dtype: torch.dtype) -> float:
    """Return the distance from x to the next larger number of the type."""
    return torch.finfo(dtype).eps * 2.0 ** math.floor(math.log2(x))

# %% [markdown] tags=["solution"]
# All numbers between two powers of 2 are equally far apart, and at each power the distance doubles. `torch.nextafter`
# gives the neighbour itself; subtract in float64.

# %% tags=["check"]
lesson.check_step(step)

# %% [markdown] tags=["hints"]
# - At 1 the step is `eps`, at 2 it is twice that, at 3 the same as at 2.
# - Which power of 2 is the last one that is not above x? `math.floor(math.log2(x))` is its exponent.
# - The other way: `torch.nextafter(here, infinity)`, both tensors of the type.

# %%
for name, dtype in {"float64": torch.float64, **types}.items():
    info = torch.finfo(dtype)
    print(f"{name:9} eps {info.eps:.1e}  at 20 {lesson.step(20.0, dtype):.1e}  largest {info.max:.1e}")

# %% [markdown]
# ## 3. The model, five ways
#
# Now a whole model, always on the CPU here, so that you see the numbers that we see. (A GPU has other kernels and other
# last digits, and the same story.) We take the logits at the last places of one text, and five ways that should not
# matter: once more, with a cache, in a padded batch, with attention written out ("eager"), and with all positions one
# further. Beside them two real bugs: a filler whose mask was forgotten, and one position given to two tokens.
#
# `distance` compares each with a plain pass: at every place the largest difference of a logit, and of those the median.

# %% tags=["nbval-ignore-output"]
from course_utils.rounding import BUGS, SAME, SMALL_BUGS, distance, small_bug

model, tokenizer = load(device="cpu")
copies = {torch.bfloat16: copy.deepcopy(model).bfloat16(), torch.float32: model, torch.float64: copy.deepcopy(model).double()}
ids = lesson.text_ids(33)  # (1, 33), the beginning of lesson 07's story


def sizes(way):
    return [distance(one, ids, way, last=6)[0] for one in copies.values()]


print(f"{'':20} bfloat16  float32  float64")
found = {name: sizes(way) for name, way in {**SAME, **BUGS}.items()}
for name, row in found.items():
    print(f"{name:20}", *(f"{size:8.0e}" for size in row))

# %% [markdown]
# In float32 the bugs stand out: 1 and 2, where rounding is 0.00003. In bfloat16 rounding is 0.3, one position twice
# is 1, and one would have to know the model to say which is which. A logit of 20 has steps of 0.125 there.

# %%
assert all(row[1] < 1e-3 for name, row in found.items() if name in SAME)
assert all(row[1] > 0.5 for name, row in found.items() if name in BUGS)

# %% [markdown]
# ## 4. When does a word turn?
#
# Greedy decoding looks at one thing: which logit is the largest. It turns when rounding moves the two best across each
# other. So look at the **gap**, the largest logit minus the second. First, how many numbers does bfloat16 have for the
# logits?

# %%
Predict(lesson.predict_distinct)

# %% tags=["answer", "nbval-ignore-output"]
print("different numbers among 49,152 logits:")
distinct = {str(t).removeprefix("torch."): len(one(ids).logits[0, -1].unique()) for t, one in copies.items()}
grouped_bars({name: {"numbers": count} for name, count in distinct.items()}, "Different logits", "of 49,152")

# %% [markdown]
# Equal logits are common, and then `argmax` takes one of them by its place in memory. At which gaps does bfloat16's
# choice differ from float64's? The whole story, 231 places:

# %% tags=["nbval-ignore-output"]
story = lesson.text_ids(None)
sure = copies[torch.float64](story).logits[0]  # (place, vocab)
rough = copies[torch.bfloat16](story).logits[0]
best = sure.topk(2).values
gap = best[:, 0] - best[:, 1]  # (place,)
turned = sure.argmax(-1) != rough.argmax(-1)
edges = [0, 0.0625, 0.125, 0.25, 0.5, 100]
bars = {}
for low, high in zip(edges, edges[1:]):
    inside = (gap >= low) & (gap < high)
    name = f"{low} to {high}" if high < 100 else f"{low} and more"
    bars[name] = {"places": inside.sum().item(), "turned": (inside & turned).sum().item()}
grouped_bars(bars, "Gaps in float64, and choices that bfloat16 turns", "places")

# %%
assert turned.any() and gap[turned].max() < 0.5

# %% [markdown]
# Only near ties turn. In float32 the error of a gap is about 0.00001, so hardly any does. But one turned token is enough:
# from there on the two runs read different texts, and all that follows may differ.
#
# ### Exercise 2: Find the first token that differs · difficulty 2 of 3 · 8 minutes
#
# Given the new ids of two runs and the logits of the first run, (step, vocab), return the first step at which the texts
# differ and the gap of the two best logits there; `None` if they are equal.

# %% tags=["exercise"]
def first_flip(a: list[int], b: list[int], logits: torch.Tensor) -> tuple[int, float] | None:
    """Return the first step at which a and b differ, and the gap of the two best of logits[step]."""
    raise NotImplementedError

# %% tags=["solution"]
def first_flip(a: list[int], b: list[int], logits: torch.Tensor) -> tuple[int, float] | None:
    """Return the first step at which a and b differ, and the gap of the two best of logits[step]."""
    for place, (one, other) in enumerate(zip(a, b)):
        if one != other:
            first, second = logits[place].topk(2).values
            return place, (first - second).item()
    return None

# %% [markdown] tags=["solution"]
# Later differences say nothing: after the first, the two runs have different prefixes, and their logits should differ.

# %% tags=["check"]
lesson.check_first_flip(first_flip)

# %% [markdown] tags=["hints"]
# - Walk through both lists at once and stop at the first difference.
# - `logits[step]` chose token `step`; `topk(2).values` has its two best.
# - Return `None` after the loop, not inside it.

# %%
flip = lesson.usable_first_flip(first_flip)
ways = {}
for text in ("The weather today is", "My favourite book", "In the year 2050", "The best way to learn"):
    inputs = tokenizer(text, return_tensors="pt")
    record = {"max_new_tokens": 24, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    one, other = (copies[dtype].generate(**inputs, **record) for dtype in (torch.float32, torch.bfloat16))
    new = [out.sequences[0, inputs.input_ids.shape[1] :].tolist() for out in (one, other)]
    ways[text] = flip(*new, torch.cat(one.logits))
assert all(way is None or way[1] < 1 for way in ways.values())

# %% tags=["nbval-ignore-output"]
for text, way in ways.items():
    print(f"{text:22}", "the same" if way is None else f"parts at token {way[0] + 1}, where the gap is {way[1]:.2f}")

# %% [markdown]
# Try it with prompts of your own. Which pairs of runs part, and is it always at a small gap?

# %% tags=["nbval-ignore-output"]
TwoRuns(model, tokenizer, "My favourite book", new_tokens=14)

# %% [markdown]
# ## 5. The test
#
# Here are seven changes to the model. Six are bugs of the kind that one really makes, and most are tiny: an epsilon of
# 1e-6 for 1e-5, a scale that is a thousandth too large, one weight of 134 million set to 0. The seventh is eager
# attention: no bug.

# %%
Predict(lesson.predict_column)

# %% tags=["answer", "nbval-ignore-output"]
print(f"{'':32} bfloat16  float32  float64")
changes = {**{name: small_bug(name) for name in SMALL_BUGS}, "eager attention (rounding)": SAME["eager attention"]}
small = {name: sizes(way) for name, way in changes.items()}
for name, row in small.items():
    print(f"{name:32}", *(f"{size:8.0e}" for size in row))

# %% [markdown]
# In bfloat16 whatever changes at all ends at 0.2 to 0.5: it changes the rounding of everything after it. In float32 the
# epsilon's bug can be seen, if one knows how large rounding is. But look at the last two columns.
#
# ### Exercise 3: Tell a bug from rounding · difficulty 3 of 3 · 10 minutes
#
# `difference(dtype)` gives the size of a difference in that type, as in a row of the table. Return `"bug"` or
# `"rounding"`. The size alone does not tell, and bfloat16 does not either.

# %% tags=["exercise"]
def verdict(difference) -> str:
    """Return "bug" or "rounding"; difference(torch.float32) is the size of the difference in float32."""
    raise NotImplementedError

# %% tags=["solution"]
def verdict(difference) -> str:
    """Return "bug" or "rounding"; difference(torch.float32) is the size of the difference in float32."""
    return "bug" if difference(torch.float64) > difference(torch.float32) / 2 else "rounding"

# %% [markdown] tags=["solution"]
# float64 has a billion times finer steps, so rounding shrinks, and a bug does not. A half is a good border: bugs kept
# 0.95 to 1.05 of their size here, rounding a fifth at most.

# %% tags=["check"]
lesson.check_verdict(verdict)

# %% [markdown] tags=["hints"]
# - What happens to rounding when the type gets a billion times finer? What happens to a wrong epsilon?
# - Compare float64 with float32. Between bfloat16 and float32, a small bug shrinks as well.
# - Do not divide: in float64 a difference may be 0. Compare with half of float32's.

# %% [markdown]
# **The result of this lesson**: all these causes in three types, judged by your function if it passed. Bugs run flat to
# the right. Rounding falls.

# %%
judge = lesson.usable_verdict(verdict)
said = {"bug": {}, "rounding": {}}
for name, row in {**found, **small}.items():
    said[judge(dict(zip(copies, row)).__getitem__)][name] = row
print("bugs:", *said["bug"], sep="\n  ")
assert set(said["bug"]) == {*BUGS, *SMALL_BUGS}

# %% tags=["nbval-ignore-output"]
slopes(said, ["bfloat16", "float32", "float64"], "What is left of a difference", "largest difference of a logit")

# %% [markdown]
# ## 6. Islands
#
# Two kinds of rounding fall less far than the others: eager attention and shifted positions keep a fifth.

# %%
Predict(lesson.predict_double)

# %% tags=["answer"]
double = copies[torch.float64]
size = distance(double, ids, SAME["eager attention"], last=6)[0]
print("eager and SDPA in float64: above 1e-7:", size > 1e-7, " below 1e-4:", size < 1e-4)

# %% [markdown]
# That is float32's precision. `model.double()` converts weights, not code, and three places in this model compute in
# float32 whatever they are given: each norm, the softmax of eager attention, and the table of angles. We find them by
# making them exact, one after the other:

# %%
from course_utils.rounding import exact_norms, exact_softmax

with exact_norms(double):
    norms = distance(double, ids, SAME["eager attention"], last=6)[0]
    with exact_softmax():
        both = distance(double, ids, SAME["eager attention"], last=6)[0]
print("norms exact: above 1e-9:", norms > 1e-9, "  softmax as well: below 1e-11:", both < 1e-11)

# %% [markdown]
# Now the difference is what float64 promises. A float64 run that agrees only to 1e-6 is no proof of a bug; look for the
# island first.
#
# ## 7. NaN, and a message
#
# The opposite of a small difference is a number that is none. A logit of NaN can come from one number that was too
# large: float16 ends at 65,504.

# %%
half = copy.deepcopy(model)
half.model.layers[11].mlp.down_proj.weight *= 3  # a fine-tuning that went a little far
half = half.half()
prompt = tokenizer("The capital of France is", return_tensors="pt")
try:
    half.generate(**prompt, do_sample=True, max_new_tokens=5)
except RuntimeError as error:
    print("RuntimeError:", error)

# %% [markdown]
# One layer's output is three times as large, and every logit is NaN. Where does it happen? The **residual stream**, the
# hidden state between the layers, at its largest number:

# %%
states = model(**prompt, output_hidden_states=True).hidden_states
largest = [state.abs().max().item() for state in states]
of_others = [state[:, 1:].abs().max().item() for state in states]
curves = {"first token": largest, "other tokens": of_others, "float16's limit": [65_504] * len(states)}
curves = {name: [math.log10(one) for one in values] for name, values in curves.items()}
print(f"largest {max(largest):,.0f}, at other tokens {max(of_others):,.0f}; float16 ends at {65_504:,}")
lines(range(len(states)), curves, "The largest number between the layers", "layer", "log10")

# %% [markdown]
# At the first token one number is above 22,000, at all others none reaches a thousand. In float16 this model has room
# for a factor of 2.9, and no more. bfloat16 has float32's range, and coarser steps. Greedy decoding, with the same logits?

# %%
Predict(lesson.predict_greedy_nan)

# %% tags=["answer"]
print("greedy, all logits NaN:")
out = half.generate(**prompt, do_sample=False, max_new_tokens=5, eos_token_id=None, pad_token_id=2)
print(repr(tokenizer.decode(out[0, prompt.input_ids.shape[1] :])))

# %% [markdown]
# No error, and a text of id 0. The message is a favour that only sampling does. `remove_invalid_values=True` takes it
# away: it makes numbers of NaN, and draws tokens that have nothing to do with the prompt.
#
# Small probabilities go the other way, to 0. Softmax and then the logarithm, in float16, beside `log_softmax`:

# %%
logits16 = model(**prompt).logits[0, -1].half()
print("−∞ by softmax().log():", (logits16.softmax(-1).log() == -math.inf).sum().item() > 30_000, " by log_softmax():", (logits16.log_softmax(-1) == -math.inf).sum().item())

# %% [markdown]
# More than 30,000 of 49,152 tokens become impossible, and their gradient NaN. `log_softmax` subtracts before it takes
# the exponential, and loses none.
#
# ### Exercise 4: Mend a sampling step · difficulty 3 of 3 · 8 minutes
#
# This step gets float16 logits, divides them by the temperature and bans some ids. It raises the message, or worse,
# draws banned tokens. Return float32 probabilities of all tokens, exactly 0 for the banned ones.

# %%
def broken(logits, temperature, banned):
    scores = logits / temperature
    scores[banned] = -1e4
    return scores.softmax(-1)


large = torch.tensor([50_000.0, 49_990, -20_000]).half()
print(broken(large.clone(), 0.5, [1]), broken(torch.tensor([-2e4, -3e4]).half(), 1.0, [0]))

# %% tags=["exercise"]
def safe_probs(logits: torch.Tensor, temperature: float, banned: list[int]) -> torch.Tensor:
    """Return the probabilities (vocab,) of float16 logits, float32; those of banned ids are 0."""
    raise NotImplementedError

# %% tags=["solution"]
def safe_probs(logits: torch.Tensor, temperature: float, banned: list[int]) -> torch.Tensor:
    """Return the probabilities (vocab,) of float16 logits, float32; those of banned ids are 0."""
    scores = logits.float() / temperature
    scores[banned] = -math.inf
    return scores.softmax(-1)

# %% [markdown] tags=["solution"]
# `float()` comes first, since the division overflows. −∞ is the only score that is below every other. If all ids are
# banned, NaN is the honest answer, and sampling should raise.

# %% tags=["check"]
lesson.check_safe_probs(safe_probs)

# %% [markdown] tags=["hints"]
# - 50,000 / 0.5 is 100,000. Which type can hold that?
# - A banned score of −10,000 is above a score of −20,000. What is below every number?
# - `float()` makes a copy; then a change in place does not reach the caller's logits.

# %% [markdown]
# ## 8. Seeds
#
# Sampling adds a cause that is no rounding at all.

# %%
Predict(lesson.predict_seed)

# %% tags=["answer"]
twice = tokenizer(["The weather today is"] * 2, return_tensors="pt")
torch.manual_seed(0)
pair = model.generate(**twice, do_sample=True, top_k=0, max_new_tokens=6)
torch.manual_seed(0)
single = model.generate(**tokenizer("The weather today is", return_tensors="pt"), do_sample=True, top_k=0, max_new_tokens=6)
print("the two rows are equal:", torch.equal(*pair))
print("row 0 and the text alone: first token equal:", bool(pair[0, 4] == single[0, 4]), " all equal:", torch.equal(pair[0], single[0]))

# %% [markdown]
# A seed starts one stream of random numbers. Each step takes one number a token of the vocabulary for each row, so the
# second row's numbers are others than the first's, and from the second step on row 0's are others than alone. To
# compare sampled texts, keep the batch as it is, or compare the distributions.

# %% [markdown]
# ## Recap
#
# - **A sum depends on its order**, and the order on the shape. The same row has other last digits in a batch.
# - **Steps**: at 20, 0.000002 in float32, 0.125 in bfloat16. Only near ties turn, and one is enough.
# - **The test**: from float32 to float64 a bug stays, rounding falls. Neither size nor changed words nor bfloat16 tells.
# - **Islands**: `model.double()` leaves norms, softmax and angles in float32.
# - **NaN** comes from a number beyond the type's range, or from a ban of everything; only sampling says so.
# - **A seed** is one stream for all rows.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `LlamaRMSNorm.forward` in `transformers/models/llama/modeling_llama.py`, where the hidden state becomes float32 and
# goes back:

# %%
import inspect

print(inspect.getsource(type(model.model.norm).forward))

# %% [markdown]
# Names from older articles are explained in [appendix A](appendix_version_map.ipynb), messages in
# [appendix B](appendix_messages.ipynb).
