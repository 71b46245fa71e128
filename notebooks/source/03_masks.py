# %% [markdown]
# # What does a mask do inside attention?
#
# **By the end you will have computed every attention weight of three models from their own weight matrices, on a
# left-padded batch, and they will equal the library's to five decimals.**
#
# You will be able to
#
# - follow one head from attention scores through mask and softmax to its weights,
# - turn a mask of 0 and 1 into one that is added, and say what each line of the library's recipe does,
# - choose the number that forbids a key, and predict where it gives NaN,
# - join the causal and the padding mask into one tensor, (batch, 1, query, key),
# - read a padded batch's hidden states without reading those of the padding.
#
# *45 minutes, and another 25 for the exercises. You need: lesson 02, and broadcasting in PyTorch.*

# %% [markdown]
# ## 1. Attention scores, softmax, weights
#
# An attention head gives each token three vectors: a **query**, which says what it looks for, a **key**, by which it
# is found, and a **value**, which it passes on. An **attention score** is the dot product of one query and one key.
# Row *i* holds token *i*'s attention scores for all keys. These are made up; section 6 has real ones.

# %%
import torch

from course_utils import load
from course_utils.lessons import lesson03 as lesson
from course_utils.widgets import MaskView, Predict, Quiz

torch.set_printoptions(precision=2, sci_mode=False)
scores = torch.tensor([[2.0, 1, 0, 3], [1, 3, 2, 0], [0, 2, 4, 1], [3, 1, 2, 2]])  # (query, key)
weights = scores.softmax(-1)
weights

# %%
from course_utils.plots import grid, heatmap

names = [f"token {index}" for index in range(4)]
heatmap(weights.tolist(), names, names, "Weights without a mask", "key", "query", limits=(0, 1))

# %% [markdown]
# Softmax turns each row into a distribution: the **weights** with which a token mixes the values. Token 0 takes most
# from token 3, although token 3 comes later. A model that writes from left to right must not do that.

# %% [markdown]
# So each query may attend to its own token and to those before it. The naive way: set the forbidden weights to zero,
# and scale each row back to a sum of 1.

# %%
allowed = torch.ones(4, 4).tril().bool()  # True: may attend
after = weights * allowed
after = after / after.sum(-1, keepdim=True)
after

# %%
heatmap(after.tolist(), names, names, "Weights with the causal mask", "key", "query", limits=(0, 1))

# %% [markdown]
# Libraries do it the other way round: they change the *attention scores*, before the softmax. Here the forbidden ones
# become −∞.

# %%
Predict(lesson.predict_before)

# %% tags=["answer"]
before = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
print("the same weights?")
print(torch.allclose(before, after))

# %% [markdown]
# The same numbers. Softmax takes `exp` of each attention score and divides by the row's sum, and `exp(-inf)` is
# exactly 0. The forbidden keys add nothing to the sum, so no scaling back is needed.

# %% [markdown]
# On paper, the two are the same. Now let one forbidden attention score be much larger than the others:

# %%
row, keep = torch.tensor([0.0, 1.0, 200.0]), torch.tensor([True, True, False])
late = row.softmax(-1) * keep
print("mask after the softmax: ", late / late.sum())
print("mask before the softmax:", row.masked_fill(~keep, float("-inf")).softmax(-1))

# %% [markdown]
# The largest has taken all the weight. The other weights have been rounded to 0, and 0 / 0 is NaN, "not a number".
# **The mask belongs before the softmax.**

# %% [markdown]
# ## 2. From 0 and 1 to something that is added
#
# Lesson 02's mask says 1 for a token and 0 for padding. Attention needs 0 to be added where a query may attend, and
# something very negative elsewhere. For years transformers did this in two lines, of which many copies exist:

# %%
mask = torch.tensor([0, 0, 1, 1, 1])  # two padding tokens, three tokens of text
inverted = 1.0 - mask
inverted

# %%
added = inverted.masked_fill(inverted.bool(), torch.finfo(torch.float32).min)
added.tolist()

# %% [markdown]
# Line 1 inverts the meaning, so that 1 is "forbidden", and makes the numbers floats. Line 2 puts the most negative
# float32 there, about −3.4 · 10³⁸. Adding 0 changes nothing; adding *that* rules a key out.

# %%
row = torch.tensor([3.0, 1, 2, 0, 1])
(row + added).softmax(-1)

# %% [markdown]
# Why two steps? One multiplication would be shorter: `inverted * float("-inf")`.

# %%
Predict(lesson.predict_times)

# %% tags=["answer"]
print("inverted, times −∞:")
print(inverted * float("-inf"))

# %% [markdown]
# 0 · ∞ is undefined, so the *allowed* entries become NaN. `masked_fill` and `torch.where` choose a value instead of
# calculating one. And what if the mask is added as it is, with its 0 and 1?

# %%
(row + mask).softmax(-1)

# %% [markdown]
# No error and no NaN. Each token's attention score rises by 1, the padding keeps a good part of the weight, and the
# model writes plausible nonsense. Of all wrong masks, those that cause neither an error nor NaN are the worst.

# %% [markdown]
# Does the mask cut the gradient? It is a constant, so the gradient passes through the sum. A forbidden attention score
# gets a gradient of 0 only because its *weight* is 0:

# %%
learned = torch.tensor([3.0, 1, 2], requires_grad=True)
(learned + torch.tensor([0, 0, torch.finfo(torch.float32).min])).softmax(-1)[0].backward()
learned.grad

# %% [markdown]
# ## 3. Which number?
#
# −∞, the most negative float, −10,000: you will see all three in code. Does it matter which? That depends on the row.
# In a left-padded text, how many keys may each query attend to?

# %%
joined = torch.ones(5, 5).tril().bool() & mask.bool()  # causal and padding
print(joined.int())
print(joined.sum(-1))  # (query,)

# %%
kinds = ("allowed", "future", "padding", "both")
future, hidden = ~torch.ones(5, 5).tril().bool(), ~mask.bool().expand(5, 5)
kind = future.int() + 2 * hidden.int()  # (query, key)
cells = [[("1" if k == 0 else "0", kinds[k]) for k in row] for row in kind.tolist()]
places = ["pad", "pad", "a", "b", "c"]
grid(cells, "Why a key is hidden from a query", kinds, places, places, "key", "query")

# %% [markdown]
# The first two queries are padding. They and any padding before them are hidden as padding, the tokens after them as
# future: **nothing** is left. Every left-padded batch has such rows, so we must know what softmax does with them.

# %% [markdown]
# Models run in three number types. bfloat16 has the range of float32 but fewer digits. float16 has more digits than
# bfloat16 but a small range:

# %%
dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
for name, dtype in dtypes.items():
    print(f"{name:8}  most negative number: {torch.finfo(dtype).min:.3g}")

# %% [markdown]
# There are four candidates for each type. One is added to a row of attention scores wherever a key is forbidden:

# %%
row = torch.tensor([3.0, -20.0, 5.0, -40.0])
fills = ["-inf", "finfo.min", "-1e4", "-1e9"]


def filled(forbidden, dtype, fill):
    value = torch.finfo(dtype).min if fill == "finfo.min" else float(fill)
    value = torch.tensor(value).to(dtype)
    return torch.where(forbidden, value, torch.zeros((), dtype=dtype))

# %% [markdown]
# We start with a row that has two forbidden keys. We compare all twelve combinations with the weights of the two
# allowed keys alone:

# %%
some = torch.tensor([False, True, False, True])
for dtype in dtypes.values():
    alone = row[~some].to(dtype).softmax(-1)
    for fill in fills:
        got = (row.to(dtype) + filled(some, dtype, fill)).softmax(-1)
        assert torch.allclose(got[~some], alone) and not got[some].any()

# %% [markdown]
# All twelve agree. One allowed key is enough, as long as no attention score comes near the fill value. Here −10,000
# is added to a forbidden one of 10,010:

# %%
(torch.tensor([0.0, 10_010]) + torch.tensor([0, -1e4])).softmax(-1)

# %% [markdown]
# 10,010 − 10,000 is 10, which is more than 0: the forbidden key wins. That cannot happen with float32's `finfo.min`.
# Now the row in which *every* key is forbidden.

# %% [markdown]
# ### Exercise 1: Say where a fully masked row is NaN · difficulty 2 of 3 · 8 minutes
#
# All four keys of `row` are forbidden, and the fill value is added. For which types and fill values are the weights
# NaN? (PyTorch's softmax first subtracts the row's largest entry, which changes no weight.) Decide before you run
# anything, and write down the pairs.

# %% tags=["exercise"]
nan_cases = ...  # a set of pairs such as {("float32", "-1e4"), ("float16", "finfo.min")}

# %% tags=["solution"]
nan_cases = {("float32", "-inf"), ("bfloat16", "-inf"), ("float16", "-inf"), ("float16", "-1e9")}

# %% [markdown] tags=["solution"]
# NaN needs a row with only −∞ in it: then each `exp` is 0, and 0 is divided by 0. −∞ gives that in every type. In
# float16, whose range ends at −65504, −10⁹ *is* −∞. There `finfo.min` plus −20 overflows too, but two of the four
# sums do not.

# %% tags=["check"]
lesson.check_nan_cases(nan_cases)

# %% [markdown] tags=["hints"]
# - Softmax subtracts the row's largest entry, takes `exp`, and divides by the sum. When is the result not a number?
# - A cell above prints where each type's range ends. What happens to a number beyond it?
# - In float16, −65504 − 20 overflows. But −65504 + 3 does not, and one finite entry is enough.

# %% [markdown]
# In the other eight cases the weights are numbers. Which ones? Guess for float32 and −10,000 added to each of the
# four keys.

# %%
Predict(lesson.predict_full_row)

# %% tags=["answer"]
print("weights of a row in which every key is forbidden")
every = torch.ones(4).bool()
for name, dtype in dtypes.items():
    for fill in fills:
        got = (row.to(dtype) + filled(every, dtype, fill)).softmax(-1)
        print(f"{name:8}  {fill:9}  {[f'{weight:.2f}' for weight in got.tolist()]}")

# %% [markdown]
# **`finfo.min`, float32:** four equal weights. Near 3.4 · 10³⁸ the gap between two neighbouring floats is far larger
# than 3 or 40, so all four sums are the same number:

# %%
lowest = torch.tensor(torch.finfo(torch.float32).min)
lowest + 3 == lowest, lowest - 40 == lowest

# %% [markdown]
# **`finfo.min`, float16:** there −65504 − 20 is out of range and becomes −∞. Two of the four keys drop out. Where
# `finfo.min` is added, uniform weights are not guaranteed; they are an effect of rounding.

# %%
row.half() + filled(every, torch.float16, "finfo.min")

# %% [markdown]
# **−10,000, float32:** 0.12, 0, 0.88, 0. Those are the weights without any mask:

# %%
(row - 10_000).softmax(-1), row.softmax(-1)

# %% [markdown]
# A number that is added to a whole row cancels in the division. So a row in which *every* key is forbidden attends as
# if *none* were, to padding and to the future.

# %% [markdown]
# The rest is rounding. Far from 0 a type's numbers come in steps: of 64 for float32 near 10⁹, of 64 for bfloat16 and
# of 8 for float16 near 10,000. The sums are rounded to these steps:

# %%
for name, fill in (("float32", "-1e9"), ("bfloat16", "-1e4"), ("float16", "-1e4")):
    print(f"{name:8}  {fill}  {(row.to(dtypes[name]) + filled(every, dtypes[name], fill)).tolist()}")

# %% [markdown]
# One more trap. The causal and the padding mask are each turned into numbers, with `finfo.min`, and both are added.
# These are the rows of the two padding tokens:

# %%
causal, padding = torch.ones(5, 5).tril().bool(), mask.bool().expand(5, 5)
both = filled(~causal, torch.float32, "finfo.min") + filled(~padding, torch.float32, "finfo.min")
for fillers_row in both[:2]:
    print([f"{number:.1e}" for number in fillers_row.tolist()], fillers_row.softmax(-1))

# %% [markdown]
# Where both forbid a key, the sum is −∞, and that key drops out. No row is NaN, since the causal mask never forbids a
# query's own key. But if the same mask is added twice, a fully masked row is NaN. **Join masks while they are True
# and False. Turn them into numbers once.**

# %%
twice = 2 * filled(every, torch.float32, "finfo.min")
print(twice, (row + twice).softmax(-1))

# %% [markdown]
# ### Does NaN matter in a row that nobody reads?
#
# We follow one −∞ row from layer to layer. The simplest layer will do: each vector is query, key and value. In real
# models, attention scores are divided by the square root of the vectors' size, for this reason:

# %%
torch.manual_seed(0)
query, key = torch.randn(2, 10_000, 64)  # each (pairs, size)
print("64 products, summed: typical size", (query * key).sum(-1).std().round().item())

# %% [markdown]
# A sum of 64 random products has a typical size of √64 = 8. Divided by 8 it stays near 1, so that softmax does not
# give all the weight to one key. Now two layers, with the mask filled in as in section 1:

# %%
def two_layers(fill):
    torch.manual_seed(0)
    hidden = torch.randn(5, 4)  # (length, size)
    for layer in (1, 2):
        scores = hidden @ hidden.T / 4**0.5  # (query, key)
        hidden = torch.where(joined, scores, filled(~joined, torch.float32, fill)).softmax(-1) @ hidden
        print(f"{fill:9}  layer {layer}: NaN in row", hidden.isnan().any(-1).nonzero().flatten().tolist())
        yield hidden.isnan().any(-1).tolist()

# %%
spread = {}
for fill in ("-inf", "finfo.min"):
    spread = {**spread, fill: list(two_layers(fill))}

# %%
kinds = ("number", "NaN")
cells = [[(kinds[layer[i]], kinds[layer[i]]) for layer in spread["-inf"]] for i in range(5)]
grid(cells, "Rows that are NaN, with −∞ filled in", kinds, places, ["layer 1", "layer 2"], down="row")

# %% [markdown]
# First rows 0 and 1, then **every** row. A token gives the padding a weight of 0, and 0 · NaN is NaN. After the
# second layer, even the forward pass is useless. With `finfo.min` there is no NaN at all.

# %% [markdown]
# In training one layer is enough. Here is a head with its own matrices for query, key and value. The loss reads only
# the rows of the text's tokens, and none of those is NaN:

# %%
def nan_gradients(fill, way):
    torch.manual_seed(0)
    hidden, matrices = torch.randn(5, 4), torch.randn(3, 4, 4, requires_grad=True)
    query, key, value = hidden @ matrices  # each (length, size)
    scores, fills = query @ key.T / 4**0.5, filled(~joined, torch.float32, fill)
    scores = scores + fills if way == "added" else torch.where(joined, scores, fills)
    mixed = scores.softmax(-1) @ value
    mixed[2:].sum().backward()
    return matrices.grad.isnan().sum((1, 2)).tolist()  # for each matrix

# %%
Predict(lesson.predict_gradient)

# %% tags=["answer"]
print("NaN among the 16 gradients of the matrix for   query, key, value")
for fill in ("-inf", "finfo.min"):
    for way in ("filled in", "added"):
        print(f"{fill:9}  {way:9}  {nan_gradients(fill, way)}")

# %% [markdown]
# The rows that the loss does not read send back a gradient of 0. It reaches the values through NaN weights, and 0 ·
# NaN is NaN. Where −∞ is *filled in*, forbidden attention scores get a gradient of 0; where it is *added*, query and
# key become NaN too. One optimizer step with such a gradient makes the matrix itself NaN.

# %% [markdown]
# ### Fused attention
#
# Attention scores, mask, softmax, values, one line each: transformers calls this **eager**. By default it runs one
# fused operation instead, PyTorch's `scaled_dot_product_attention`, **SDPA**. SDPA takes a mask to add, or one of
# True and False. Here is our fully masked row again, with the values 1, 2, 3, 4:

# %%
def fully_masked(kind, dtype, fill):
    query = torch.ones(1, 1, 2, 1, dtype=dtype, requires_grad=True)  # (batch, head, query, size)
    key, value = row.to(dtype).view(1, 1, 4, 1), torch.arange(1.0, 5).to(dtype).view(1, 1, 4, 1)
    forbidden = torch.tensor([[True] * 4, [False] * 4])  # query 0 may attend to no key
    mask = ~forbidden if fill == "True/False" else filled(forbidden, dtype, fill)
    if kind == "SDPA":
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1)
    else:
        mixed = (query @ key.transpose(-1, -2) + mask).softmax(-1) @ value
    mixed[..., 1, :].sum().backward()  # the loss reads query 1 only
    return f"{mixed[0, 0, 0].item():6.1f} {'finite' if query.grad.isfinite().all() else 'NaN':>9}"

# %%
print("type      fill         eager  gradient    SDPA  gradient (of the query)")
for name, dtype in dtypes.items():
    for fill in fills[:3]:
        print(f"{name:8}  {fill:10}", fully_masked("eager", dtype, fill), fully_masked("SDPA", dtype, fill), sep="  ")
    print(f"{name:8}  True/False{'':20}", fully_masked("SDPA", dtype, "True/False"))

# %% [markdown]
# 0: no value was mixed in. 2.5: the mean of all values. 2.8: as if nothing were forbidden. 2 and 3: only the few keys
# that are left after rounding. But why does SDPA give 2.8 for float16 and `finfo.min`, where eager gives 2?

# %%
in_float32 = row + filled(every, torch.float16, "finfo.min").float()
print(in_float32.tolist(), f"{in_float32.softmax(-1) @ torch.arange(1.0, 5):.1f}")

# %% [markdown]
# Eager rounds each sum to float16. This SDPA, on a CPU, adds in float32, where −65504 acts like −10,000: added to
# every key, it cancels. So the effect of a finite number on such a row also depends on the implementation.

# %% [markdown]
# On this CPU, only SDPA with −∞ or False really lets a query attend to nothing. So transformers passes True and False
# to SDPA, and `finfo.min` to eager, where −∞ would give NaN.

# %% [markdown]
# ### Exercise 2: Write attention without NaN · difficulty 3 of 3 · 12 minutes
#
# Write attention that does what SDPA does with a mask of True and False: a query that may attend to no key gets 0.
# The gradients of query, key and value should equal SDPA's too. Do not call SDPA.

# %% tags=["exercise"]
def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Return the mixed values (..., query, size).

    query, key and value are (..., length, size); allowed broadcasts to (..., query, key), True: may attend.
    """
    raise NotImplementedError

# %% tags=["solution"]
def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Return the mixed values (..., query, size).

    query, key and value are (..., length, size); allowed broadcasts to (..., query, key), True: may attend.
    """
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # (..., query, key)
    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).masked_fill(~allowed, 0)
    return weights @ value

# %% [markdown] tags=["solution"]
# A finite number before the softmax keeps every row finite; the second `masked_fill` removes the weights that a fully
# masked row gets that way. Filling in −∞ and calling `nan_to_num` on the *result* gives the same values, but NaN in
# the gradient of `value`: the backward pass still uses the NaN weights. Calling it on the *weights* works.

# %% tags=["check"]
lesson.check_attend(attend)

# %% [markdown] tags=["hints"]
# - The attention scores are `query @ key.transpose(-1, -2)`, divided by the square root of the size.
# - Fill in a finite number before the softmax, so that no row can become NaN.
# - After the softmax, a fully masked row has weights that it should not have. Set all forbidden weights to 0.

# %% [markdown]
# ## 4. Two masks in one tensor
#
# Back to lesson 02's batch. The padding mask is (batch, key): the same for each query. The causal mask is (query,
# key): the same for each row. Attention scores are (batch, head, query, key).

# %%
from course_utils.masks import additive_mask, joined_mask, pad_sentences, position_ids

sentences = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]
model, tokenizer = load("tiny-gpt2")
tokenizer.pad_token = tokenizer.eos_token
batch = pad_sentences(tokenizer, sentences, side="left")
batch["attention_mask"].shape  # (batch, key)

# %% [markdown]
# ### Exercise 3: Join causal and padding mask · difficulty 2 of 3 · 5 minutes
#
# Return one mask of True and False, (batch, 1, query, key), that is True where a query may attend to a key. Do not
# use a loop. The 1 is the dimension of the heads, which all share the mask.

# %% tags=["exercise"]
def join(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the causal and the padding mask in one, (batch, 1, length, length), True: may attend."""
    raise NotImplementedError

# %% tags=["solution"]
def join(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the causal and the padding mask in one, (batch, 1, length, length), True: may attend."""
    length = attention_mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=attention_mask.device).tril()  # (query, key)
    padding = attention_mask.bool()[:, None, None, :]  # (batch, 1, 1, key)
    return causal & padding

# %% [markdown] tags=["solution"]
# `[:, None, None, :]` puts the padding mask on the *key* axis: no token may attend **to** padding. Broadcasting does
# the rest. On the query axis, `[:, None, :, None]`, it would keep padding from attending, and leave every token free
# to read the padding.

# %% tags=["check"]
lesson.check_join(join)

# %% [markdown] tags=["hints"]
# - `torch.ones(length, length).tril().bool()` is the causal mask, (query, key).
# - Indexing with `None` adds a dimension of size 1. Which of the four dimensions is the padding mask about?
# - `(batch, 1, 1, key) & (query, key)` broadcasts to (batch, 1, query, key).

# %%
allowed = joined_mask(batch["attention_mask"])  # what the exercise asks for
print(tuple(allowed.shape))
print(allowed[0, 0].int())  # "It will rain in the", three padding tokens first

# %% [markdown]
# Read it by columns: the first three are all 0, so no query attends to padding. Read it by rows: the first three are
# all 0 too. Those are the fully masked rows of section 3.

# %% [markdown]
# When `generate()` writes token after token, it keeps the keys and values of earlier tokens in a **cache** (lesson
# 04). Only the newest token has a query: one query, all keys up to its own, a mask with one row:

# %%
joined_mask(batch["attention_mask"], queries=1).shape  # (batch, 1, query, key)

# %% [markdown]
# Here is one head of this model, on this batch, from attention scores to weights. Click a cell to see its three
# numbers. The first row is fully masked: change the fill value and the number type, and watch what happens to it.

# %%
MaskView(model, tokenizer, sentences)

# %% [markdown]
# ## 5. What the library builds
#
# We look at the mask that reaches the first attention layer. A hook on that layer records it, for both ways of
# computing attention.

# %%
@torch.no_grad()
def mask_received(model, **inputs):
    seen = []
    watch = lambda module, args, given: seen.append(given["attention_mask"])
    with model.transformer.h[0].attn.register_forward_pre_hook(watch, with_kwargs=True):
        model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
    return seen[0]

# %%
model.set_attn_implementation("sdpa")
given_to_sdpa = mask_received(model, **batch)
model.set_attn_implementation("eager")
given_to_eager = mask_received(model, **batch)
for mask in (given_to_sdpa, given_to_eager):
    print(mask.dtype, tuple(mask.shape))

# %% [markdown]
# True and False for SDPA, numbers for eager, as section 3 said. And both equal ours, entry for entry:

# %%
assert torch.equal(given_to_sdpa.cpu(), allowed)
assert torch.equal(given_to_eager.cpu(), additive_mask(allowed, torch.float32, "finfo.min"))

# %% [markdown]
# A batch without padding needs no mask tensor at all. SDPA has a flag for "causal", so the mask is `None`:

# %%
model.set_attn_implementation("sdpa")
print(mask_received(model, input_ids=batch["input_ids"][1:2]))

# %% [markdown]
# A mask of your own, with all four dimensions, is passed on as it is. Here is a **sliding window**: each query may
# attend to its own token and the two before it.

# %%
near = torch.ones(8, 8, dtype=torch.bool).triu(-2)  # (query, key)
window = joined_mask(batch["attention_mask"]) & near
received = mask_received(model, input_ids=batch["input_ids"], attention_mask=window)
assert torch.equal(received.cpu(), window)
print(window[1, 0].int())

# %% [markdown]
# All of it is built in one file, `masking_utils.py`. These are the last lines for eager:

# %%
import inspect

from transformers import masking_utils

print("\n".join(inspect.getsource(masking_utils.eager_mask).splitlines()[-6:]))

# %% [markdown]
# The comment says −inf, the code says `finfo.min`, and section 3 says why. The recipe of section 2 gives the same
# numbers, but is deprecated: this `torch.where` makes the masks of GPT-2 and Llama.

# %% [markdown]
# Eager and SDPA compute the same attention. We run the padded batch through both, and compare the last **hidden
# states**: the vectors, one for each token, from which the logits are computed.

# %%
Predict(lesson.predict_fillers)

# %%
@torch.no_grad()
def last_hidden(model, kind):
    model.set_attn_implementation(kind)
    inputs = {**batch, "position_ids": position_ids(batch["attention_mask"])}
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    return model(**inputs, output_hidden_states=True).hidden_states[-1].cpu()  # (batch, length, size)

# %% tags=["answer"]
print("1 where eager and SDPA differ, then the attention mask:")
eager, sdpa = last_hidden(model, "eager"), last_hidden(model, "sdpa")
difference = (eager - sdpa).abs().amax(-1)  # (batch, length)
print((difference > 1e-4).int())
print(batch["attention_mask"])

# %% [markdown]
# Exactly at the padding, and nowhere else. Both are right: nothing reads the hidden states of padding, so nothing
# defines them. But *you* may read them: the mean over a whole row does.

# %%
real = batch["attention_mask"][..., None]  # (batch, length, 1)
naive = [hidden.mean(1) for hidden in (eager, sdpa)]
masked = [(hidden * real).sum(1) / real.sum(1) for hidden in (eager, sdpa)]
for name, (one, other) in {"mean over the row": naive, "mean over tokens": masked}.items():
    print(f"{name:21} eager and SDPA differ: {bool((one - other).abs().max() > 1e-4)}")

# %% [markdown]
# The same holds for anything you take from a padded batch: logits, hidden states, attention weights. **Multiply by
# the mask, or select with it, before you average.**

# %% [markdown]
# ## 6. Every weight by hand
#
# Now real heads. A layer first *normalises* its input: it brings each vector's numbers to a common scale. Its own
# matrices turn that into queries and keys; then come attention scores, mask and softmax, as in this lesson. The input
# comes from the library; lesson 04 rebuilds that too.

# %%
def split_heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)  # (batch, head, length, size)


def weights_of(query, key, mask):
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # (batch, head, query, key)
    return (scores + mask).softmax(-1)

# %% [markdown]
# GPT-2 has one matrix for query, key and value side by side. Its positions are already in the hidden states.

# %%
def gpt2_weights(block, hidden, mask, positions, config):  # positions: for Llama, below
    joint = block.ln_1(hidden) @ block.attn.c_attn.weight + block.attn.c_attn.bias
    query, key, _ = joint.chunk(3, dim=-1)  # each (batch, length, heads * size)
    return weights_of(split_heads(query, config.n_head), split_heads(key, config.n_head), mask)

# %% [markdown]
# Llama rotates each query and key by an angle that grows with its position: rotary position embeddings, RoPE. The
# *i*-th numbers of a vector's two halves form a pair, a point in a plane, and each pair turns at its own speed.

# %%
def rotate(x, positions, base):
    size = x.shape[-1]
    speed = base ** (-torch.arange(0, size, 2, device=x.device) / size)  # (size / 2,)
    angle = (positions[:, None, :, None] * speed).repeat(1, 1, 1, 2)  # (batch, 1, length, size)
    first, second = x.chunk(2, dim=-1)
    return x * angle.cos() + torch.cat([-second, first], dim=-1) * angle.sin()

# %% [markdown]
# This answers a question from lesson 02. If all queries and keys move by three positions, as with left padding, no
# attention score changes, since only the angle *between* a query and a key counts:

# %%
torch.manual_seed(0)
query, key = torch.randn(2, 1, 1, 5, 16)  # each (batch, head, length, size)
places = torch.arange(5)[None]
here = rotate(query, places, 10_000) @ rotate(key, places, 10_000).transpose(-1, -2)
shifted = rotate(query, places + 3, 10_000) @ rotate(key, places + 3, 10_000).transpose(-1, -2)
torch.testing.assert_close(here, shifted, atol=1e-5, rtol=0)

# %%
ones = torch.tensor([1.0, 0]).expand(1, 1, 8, 2)  # one pair, at eight positions
turned = rotate(ones, torch.arange(8)[None], 10_000)[0, 0]  # (position, 2)
heatmap(turned.T.tolist(), ["first", "second"], [str(i) for i in range(8)], "One pair turns", "position")

# %% [markdown]
# A Llama may have fewer key heads than query heads, and this one has: neighbouring query heads share a key head.

# %%
def llama_weights(block, hidden, mask, positions, config):
    normed, attention = block.input_layernorm(hidden), block.self_attn
    query = split_heads(normed @ attention.q_proj.weight.T, config.num_attention_heads)
    key = split_heads(normed @ attention.k_proj.weight.T, config.num_key_value_heads)
    base = config.rope_parameters["rope_theta"]
    query, key = rotate(query, positions, base), rotate(key, positions, base)
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)  # one key head for each query head
    return weights_of(query, key, mask)

# %% [markdown]
# To get the library's weights, we pass `output_attentions=True`. There is one catch: SDPA never stores them, since it
# fuses all steps into one. With the default implementation, the result is empty:

# %%
model.set_attn_implementation("sdpa")
ids = batch["input_ids"].to(model.device)
print(len(model(ids, output_attentions=True).attentions), "layers")

# %%
@torch.no_grad()
def library_weights(model, inputs):
    model.set_attn_implementation("eager")
    out = model(**inputs, output_attentions=True, output_hidden_states=True)
    return out.hidden_states, out.attentions  # attentions: for each layer (batch, head, query, key)


@torch.no_grad()
def our_weights(model, layer, hidden, inputs):
    gpt2 = model.config.model_type == "gpt2"
    block = model.transformer.h[layer] if gpt2 else model.model.layers[layer]
    mask = additive_mask(joined_mask(inputs["attention_mask"]), hidden.dtype)
    by_hand = gpt2_weights if gpt2 else llama_weights
    return by_hand(block, hidden, mask, inputs["position_ids"], model.config)

# %% [markdown]
# **The result of this lesson.** Three models, every layer, every head, every query and key of the left-padded batch:

# %%
models = {"GPT-2": load("tiny-gpt2"), "Llama": load("tiny-llama"), "trained": load()}
for name, (model, tokenizer) in models.items():
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    inputs = pad_sentences(tokenizer, sentences, side="left")
    inputs["position_ids"] = position_ids(inputs["attention_mask"])
    inputs = {key: tensor.to(model.device) for key, tensor in inputs.items()}
    hidden_states, attentions = library_weights(model, inputs)
    for layer, theirs in enumerate(attentions):
        ours = our_weights(model, layer, hidden_states[layer], inputs)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    count = sum(theirs.numel() for theirs in attentions)
    print(f"{name:8} {len(attentions):3} layers, {theirs.shape[1]} heads: {count:6,} weights equal to 1e-5")

# %% [markdown]
# This includes the fully masked rows. They give each of the eight keys, including the future, a weight of 1/8
# (printed as 0.12), even in the trained model. Section 3 explained why:

# %%
print(attentions[-1][0, 0].cpu())  # last layer, "It will rain in the", head 0

# %% [markdown]
# ## Recap
#
# - **One head:** attention scores, plus mask, softmax, weights. The mask comes before the softmax, never after it.
# - **From 0 and 1 to numbers:** choose with `masked_fill` or `where`. Never multiply by −∞, never add 0 and 1.
# - **The fill value:** any will do where one key is allowed and no attention score comes near it. Where no key is
#   allowed, −∞ gives NaN in eager, which spreads to every token of that text. A finite number gives *some* weights:
#   to all keys, to a few, or as without a mask.
# - **Joining:** use `&` on True and False, with the shapes (query, key) and (batch, 1, 1, key); then turn the result
#   into numbers, once.
# - **Padding:** its hidden states are undefined. Select tokens with the mask before you average.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# The functions of this lesson in the installed library:

# %%
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.led import modeling_led
from transformers.models.llama import modeling_llama

for function in (
    masking_utils.create_causal_mask,
    masking_utils.sdpa_mask,
    modeling_led._prepare_4d_attention_mask_inverted,  # the recipe of section 2
    modeling_gpt2.eager_attention_forward,
    modeling_llama.apply_rotary_pos_emb,
):
    _, line = inspect.getsourcelines(function)
    print(f"{function.__module__}, line {line}: {function.__name__}")

# %% [markdown]
# `course_utils/masks.py` has the masks of this lesson, for the later lessons.
#
# Next, [lesson 04](04_forward_pass.ipynb): the rest of the forward pass around these weights, from embeddings to
# logits.
