# %% [markdown]
# # What does a mask do inside attention?
#
# **By the end, your own attention will have computed every weight of three models from their own weight matrices, on a left-padded batch, equal to the library's to five decimals.**
#
# You will be able to
#
# - follow one head from queries and keys through attention scores, mask and softmax to its output,
# - turn a mask of 0 and 1 into one that is added, and say what each line of the library's recipe does,
# - join the causal and the padding mask into one tensor, (batch, 1, query, key),
# - say which rows have no key left, and why −∞ spoils the whole text there,
# - read a padded batch's hidden states without reading those of the padding.
#
# *60 minutes, and another 35 for the exercises. You need: lesson 02, and broadcasting in PyTorch.*

# %% [markdown]
# ## 1. One head, slowly
#
# Inside a model, each token of a text is one vector. A layer of attention lets these vectors read each other, and
# does so several times side by side, in **heads**. We follow one head of the course's model through "My dog is".

# %%
import torch

from course_utils import load
from course_utils.lessons import lesson03 as lesson
from course_utils.plots import circles, grid, grouped_bars, heatmap
from course_utils.widgets import MaskView, Predict, Quiz

torch.set_printoptions(precision=2, sci_mode=False)
trained, trained_tokenizer = load()
head = lesson.one_head(trained, trained_tokenizer, "My dog is", layer=0, head=2)
head.tokens, tuple(head.query.shape)  # (length, size)

# %% [markdown]
# The head makes three vectors for each token: a **query**, which says what the token looks for; a **key**, by which
# it is found; and a **value**, which it passes on. In this model each has 64 numbers. (We took them from a running
# model. Section 7 computes them from the weight matrices.)
#
# The last token, "is", asks. How well does its query fit the key of "dog"? Multiply number by number, and add up: the
# **dot product**. It is large where two vectors point the same way.

# %%
query, key = head.query[2], head.key[1]  # of "is", of "dog"; each (size,)
print((query * key).sum(), query @ key)

# %% [markdown]
# Such sums grow with the number of entries. For random vectors of 64 entries, their standard deviation is √64 = 8:

# %%
torch.manual_seed(0)
left, right = torch.randn(2, 10_000, 64)  # each (pairs, size)
print("64 products, summed: standard deviation", (left * right).sum(-1).std().round().item())

# %% [markdown]
# So attention divides by the square root of a head's size, which for such vectors gives a deviation of 1. The result is an
# **attention score**. Here is one query against all keys:

# %%
asked = head.query[2] @ head.key.T / 64**0.5  # (key,)
bars = {token: {"attention score": round(number, 2)} for token, number in zip(head.tokens, asked.tolist())}
grouped_bars(bars, 'The query of "is" against all keys', "attention score")

# %% [markdown]
# **Softmax** turns attention scores into **weights**, positive and with a sum of 1: `exp` of each, divided by the
# sum. PyTorch first subtracts the row's largest score. This changes no weight, since it cancels in the division,
# but `exp` can no longer overflow.

# %%
powers = (asked - asked.max()).exp()
by_hand = powers / powers.sum()
print(by_hand, torch.allclose(by_hand, asked.softmax(-1)), torch.allclose(by_hand, asked.exp() / asked.exp().sum()))

# %% [markdown]
# Now the values. The head multiplies each token's value by its weight, and adds them up. The picture has the first
# six of the 64 numbers; the last row is the sum of the three above it. That is all that this head does for "is",
# and the library's own head returns the same vector.

# %%
parts = by_hand[:, None] * head.value  # (key, size)
mixed = parts.sum(0)  # the same as by_hand @ head.value
torch.testing.assert_close(mixed, head.output[2], atol=1e-5, rtol=0)  # what the library's head returns
names = [f"{weight:.2f} × {token}" for token, weight in zip(head.tokens, by_hand.tolist())]
rows = torch.cat([parts, mixed[None]])[:, :6].tolist()
heatmap(rows, [*names, "output"], [str(n) for n in range(6)], 'Values, weighted and added up, for "is"', digits=3)

# %% [markdown]
# ## 2. Which keys may a query see?
#
# A matrix product does this for all queries at once. Row *i* of `scores` holds token *i*'s attention scores for all
# keys. First the scores, then the weights:

# %%
scores = head.query @ head.key.T / 64**0.5  # (query, key)
heatmap(scores.tolist(), head.tokens, head.tokens, "Attention scores", "key", "query")

# %%
weights = scores.softmax(-1)  # (query, key)
heatmap(weights.tolist(), head.tokens, head.tokens, "Weights without a mask", "key", "query", limits=(0, 1))

# %% [markdown]
# Look at the row of "My": most of its weight is on tokens that come *later*. A model that writes from left to right
# must not do that. Each query may attend to its own token and to those before it. The naive way: set the forbidden
# weights to zero, and scale each row back to a sum of 1.

# %%
causal = torch.ones(3, 3).tril().bool()  # True: may attend
after = weights * causal
after = after / after.sum(-1, keepdim=True)
heatmap(after.tolist(), head.tokens, head.tokens, "Weights with the causal mask", "key", "query", limits=(0, 1))

# %% [markdown]
# Libraries work the other way round: they change the *attention scores*, before the softmax. Say that the forbidden
# ones become −∞.

# %%
Predict(lesson.predict_before)

# %% tags=["answer"]
before = scores.masked_fill(~causal, float("-inf")).softmax(-1)
print("the same weights?")
print(torch.allclose(before, after))

# %% [markdown]
# The same numbers, since `exp(-inf)` is exactly 0: the forbidden keys add nothing to the sum, so no scaling back is
# needed. And now all three outputs equal the library's:

# %%
torch.testing.assert_close(before @ head.value, head.output, atol=1e-5, rtol=0)

# %% [markdown]
# On paper, masking before and after are the same. Now let one forbidden attention score be much larger than the
# others:

# %%
steep, keep = torch.tensor([0.0, 1.0, 200.0]), torch.tensor([True, True, False])
late = steep.softmax(-1) * keep
print("mask after the softmax: ", late / late.sum())
print("mask before the softmax:", steep.masked_fill(~keep, float("-inf")).softmax(-1))

# %% [markdown]
# The largest has taken all the weight. The other weights have been rounded to 0, and 0 / 0 is NaN, "not a number".
# **The mask belongs before the softmax.**

# %% [markdown]
# ## 3. From 0 and 1 to something that is added
#
# Lesson 02's mask says 1 for a token and 0 for padding. Attention needs 0 to be added where a query may attend, and
# something very negative elsewhere. For years transformers did this in two lines, of which many copies exist:

# %%
mask = torch.tensor([0, 0, 1, 1, 1])  # two padding tokens, three tokens of text
inverted = 1.0 - mask
added = inverted.masked_fill(inverted.bool(), torch.finfo(torch.float32).min)
print(inverted, added.tolist(), sep="\n")

# %% [markdown]
# The first line inverts the meaning, so that 1 is "forbidden", and makes the numbers floats. The second puts the most
# negative finite float32 there (`finfo` holds the limits of a number type), about −3.4 · 10³⁸. Adding 0 changes nothing; adding *that* rules a key out.

# %%
five = torch.tensor([3.0, 1, 2, 0, 1])  # attention scores
(five + added).softmax(-1)

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
(five + mask).softmax(-1)

# %% [markdown]
# No error and no NaN. Each token's attention score rises by 1, the padding keeps a good part of the weight, and the
# model writes plausible nonsense. Of all wrong masks, the silent ones are the worst.
#
# And training? Adding a constant does not block a gradient. A forbidden attention score gets a gradient of 0 only
# because its *weight* is 0:

# %%
learned = torch.tensor([3.0, 1, 2], requires_grad=True)
(learned + torch.tensor([0, 0, torch.finfo(torch.float32).min])).softmax(-1)[0].backward()
learned.grad

# %% [markdown]
# ### Exercise 1: Write attention · difficulty 2 of 3 · 10 minutes
#
# Write what sections 1 to 3 did, for any number of heads at once: attention scores, divided by the square root of the
# size of a head; plus the mask; softmax; times the values. Return weights and mixed values. Section 7 runs on your
# function.

# %% tags=["exercise"]
def attention_weights(query, key, value, mask) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights (..., query, key) and the mixed values (..., query, size).

    query, key and value are (..., length, size); there may be fewer queries than keys.
    mask is added to the attention scores: 0 where a query may attend, else very negative.
    """
    raise NotImplementedError

# %% tags=["solution"]
def attention_weights(query, key, value, mask) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights (..., query, key) and the mixed values (..., query, size).

    query, key and value are (..., length, size); there may be fewer queries than keys.
    mask is added to the attention scores: 0 where a query may attend, else very negative.
    """
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # (..., query, key)
    weights = (scores + mask).softmax(-1)
    return weights, weights @ value

# %% [markdown] tags=["solution"]
# The three dots stand for any dimensions in front, here (batch, head): `@` multiplies the last two and repeats that
# for the others. `transpose(-1, -2)` swaps only the last two, where `.T` would reverse all four. Each step acts on
# all heads at once, and mixes none of them.

# %% tags=["check"]
lesson.check_attention_weights(attention_weights)

# %% [markdown] tags=["hints"]
# - Section 2 has it for one head: `head.query @ head.key.T / 64**0.5`. With more dimensions, write
#   `key.transpose(-1, -2)`.
# - The size of a head is `query.shape[-1]`. Add the mask after dividing, before the softmax.
# - Each query's weights sum to 1 over the keys, the last dimension. The mixed values are `weights @ value`.

# %% [markdown]
# ## 4. Two masks in one tensor
#
# Back to lesson 02's batch. The padding mask is (batch, key): the same for each query. The causal mask is (query,
# key): the same for each text. Attention scores are (batch, head, query, key).

# %%
from course_utils.masks import pad_sentences

sentences = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]
model, tokenizer = load("tiny-gpt2")
tokenizer.pad_token = tokenizer.eos_token
batch = pad_sentences(tokenizer, sentences, side="left")
batch["attention_mask"].shape  # (batch, key)

# %% [markdown]
# For a short text with two padding tokens, the picture lays one mask over the other. A key is hidden because it lies
# in the future, because it is padding, or for both reasons.

# %%
places = ["pad", "pad", "My", "dog", "is"]
kinds = ("allowed", "future", "padding", "both")
future, hidden = ~torch.ones(5, 5).tril().bool(), ~mask.bool().expand(5, 5)
why = future.int() + 2 * hidden.int()  # (query, key)
cells = [[("1" if k == 0 else "0", kinds[k]) for k in line] for line in why.tolist()]
grid(cells, "Why a key is hidden from a query", kinds, places, places, "key", "query")

# %% [markdown]
# ### Exercise 2: Join causal and padding mask · difficulty 2 of 3 · 5 minutes
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
from course_utils.masks import additive_mask, joined_mask, position_ids

allowed = joined_mask(batch["attention_mask"])  # the course's own version of the exercise
print(tuple(allowed.shape))
print(allowed[0, 0].int())  # "It will rain in the", three padding tokens first

# %% [markdown]
# Read it by columns: the first three are all 0, so no query attends to padding. Read it by rows: the first three are
# all 0 too. Those queries are padding themselves, and **no key is left** for them. Section 6 is about such rows.
#
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
# Attention scores, mask, softmax, values, one line each: transformers calls this **eager**. By default it runs one
# fused operation instead, PyTorch's `scaled_dot_product_attention`, **SDPA**. On a GPU, SDPA may use FlashAttention,
# which works through the keys block by block and never stores the whole table of weights.
#
# A hook on the first attention layer records the mask that it receives, for both ways.

# %%
@torch.no_grad()
def mask_received(model, **inputs):
    seen = []
    watch = lambda module, args, given: seen.append(given["attention_mask"])
    with model.transformer.h[0].attn.register_forward_pre_hook(watch, with_kwargs=True):
        model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
    return seen[0]

# %% [markdown]
# SDPA gets True and False; eager gets numbers, `finfo.min` and not −∞. Both equal ours, entry for entry:

# %%
model.set_attn_implementation("sdpa")
given_to_sdpa = mask_received(model, **batch)
model.set_attn_implementation("eager")
given_to_eager = mask_received(model, **batch)
for received in (given_to_sdpa, given_to_eager):
    print(received.dtype, tuple(received.shape))
assert torch.equal(given_to_sdpa.cpu(), allowed)
assert torch.equal(given_to_eager.cpu(), additive_mask(allowed, torch.float32, "finfo.min"))

# %% [markdown]
# With SDPA, a batch without padding needs no mask tensor. SDPA has a flag for "causal", so the mask is `None`, also where
# the batch brings a mask of ones:

# %%
model.set_attn_implementation("sdpa")
row_1 = {name: tensor[1:2] for name, tensor in batch.items()}  # has no padding
print(mask_received(model, **row_1))

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
# As it is, in eager too. And eager *adds* what it gets: True as 1, False as 0, the silent mistake of section 3. Give SDPA
# True and False, and eager numbers:

# %%
answers = {}
for kind, given in (("sdpa", window), ("eager", window), ("eager, numbers", additive_mask(window, torch.float32))):
    model.set_attn_implementation(kind.split(",")[0])
    inputs = {"input_ids": batch["input_ids"], "attention_mask": given, "position_ids": position_ids(batch["attention_mask"])}
    with torch.no_grad():
        answers[kind] = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits[:, -1]
for kind in ("eager", "eager, numbers"):
    print(f"{kind:15} as SDPA: {torch.allclose(answers[kind], answers['sdpa'], atol=1e-3)}")
model.set_attn_implementation("sdpa")

# %% [markdown]
# All these masks are built in one file, `masking_utils.py`. These are the last lines for eager:

# %%
import inspect

from transformers import masking_utils

print("\n".join(inspect.getsource(masking_utils.eager_mask).splitlines()[-6:]))

# %% [markdown]
# The comment says −inf, the code says `finfo.min`; the next section says why. The recipe of section 3 gives the same
# numbers, but is deprecated: this `torch.where` makes the masks of GPT-2 and Llama.

# %% [markdown]
# ## 6. A row with no key left
#
# Every left-padded batch has queries for which every key is forbidden. What do such rows get?

# %%
full = torch.tensor([3.0, -20.0, 5.0, -40.0])  # attention scores, all keys forbidden
lowest = torch.finfo(torch.float32).min
print("−∞:       ", (full + float("-inf")).softmax(-1))
print("finfo.min:", (full + lowest).softmax(-1))
print(full + lowest == lowest)

# %% [markdown]
# With −∞, softmax subtracts −∞ from −∞, and that is NaN. With `finfo.min` the weights are equal: next to 3.4 · 10³⁸,
# numbers such as 3 and −40 are lost in rounding, so all four sums are the same.
#
# Does NaN matter in a row that nobody reads? We follow it through two layers. The simplest will do: each vector is
# query, key and value at once.

# %%
joined = torch.ones(5, 5).tril().bool() & mask.bool()  # causal and padding, (query, key)


def two_layers(fill):
    torch.manual_seed(0)
    hidden = torch.randn(5, 4)  # (length, size)
    for _ in range(2):
        attention_scores = hidden @ hidden.T / 4**0.5
        hidden = attention_scores.masked_fill(~joined, fill).softmax(-1) @ hidden
        yield hidden


first, second = two_layers(float("-inf"))
print("NaN with finfo.min:", any(hidden.isnan().any().item() for hidden in two_layers(lowest)))

# %%
heatmap(first.tolist(), places, list("0123"), "Vectors after layer 1, −∞ filled in", "number", "token")

# %%
heatmap(second.tolist(), places, list("0123"), "Vectors after layer 2, −∞ filled in", "number", "token")

# %% [markdown]
# First the padding, then **every** token. A token gives the padding a weight of 0, and 0 · NaN is NaN. With
# `finfo.min` there is no NaN at all. That is why transformers fills in `finfo.min` for eager.

# %% [markdown]
# SDPA with a mask of True and False needs no number. A query that may attend to no key gets zeros as its *output*:

# %%
vectors, nothing = (head.query[None], head.key[None], head.value[None]), torch.zeros(3, 3, dtype=torch.bool)
print(torch.nn.functional.scaled_dot_product_attention(*vectors, attn_mask=nothing).abs().sum(-1), "summed over 64 entries")

# %% [markdown]
# Two traps. float16 ends at −65504, so −10⁹, which much old code fills in, *becomes* −∞ there. And `finfo.min` added
# twice is −∞ too. **Join masks while they are True and False. Turn them into numbers once.**

# %%
print(torch.tensor(-1e9).half(), torch.tensor(lowest) + lowest)

# %% [markdown]
# ### Exercise 3: Write attention without NaN · difficulty 3 of 3 · 12 minutes
#
# Write attention that does what SDPA does with a mask of True and False: a query that may attend to no key gets 0.
# The gradients of query, key and value should equal SDPA's too. Do not call SDPA. (True means "may attend" here; in
# `torch.nn.MultiheadAttention` it means "forbidden".)

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
# the gradient of `value`: the backward pass still uses the NaN weights. Calling it on the
# *weights* works, as long as −∞ was filled in and not added: added, it is in the way of the gradient as well.

# %% tags=["check"]
lesson.check_attend(attend)

# %% [markdown] tags=["hints"]
# - The attention scores are `query @ key.transpose(-1, -2)`, divided by the square root of the size.
# - Fill in a finite number before the softmax, so that no row can become NaN.
# - After the softmax, a fully masked row has weights that it should not have. Set all forbidden weights to 0.

# %% [markdown]
# So eager and SDPA differ where no key is left. Does that matter to the text? We run the padded batch through both,
# and compare the last **hidden states**: the vectors, one for each token, from which the logits are computed.

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
# The same holds for anything you take from a padded batch: logits, hidden states, attention weights. **Select with the
# mask before you average.** (Multiplying, as here, is enough only where padding cannot be NaN.)

# %% [markdown]
# ## 7. Every weight by hand
#
# Now the queries and keys themselves. A layer first *normalises* its input: it brings each vector's numbers to a
# common scale. Its own matrices turn that into queries, keys and values. The rest is exercise 1: `weights_of` is your
# function if it passed its check, and otherwise the course's.
#
# GPT-2 has one matrix for query, key and value side by side. Its positions are already in the hidden states. Its
# layers are of a class `Conv1D`, which despite the name is a linear layer with the matrix turned over: `x @ weight`,
# where `Linear` computes `x @ weight.T`.

# %%
weights_of = lesson.usable_attention_weights(attention_weights)


def split_heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)  # (batch, head, length, size)


def gpt2_weights(block, hidden, mask, positions, config):  # positions: for Llama, below
    joint = block.ln_1(hidden) @ block.attn.c_attn.weight + block.attn.c_attn.bias
    parts = joint.chunk(3, dim=-1)  # query, key, value, each (batch, length, heads * size)
    return weights_of(*(split_heads(part, config.n_head) for part in parts), mask)

# %% [markdown]
# Llama rotates each query and key by an angle that grows with its position: rotary position embeddings, RoPE. The
# *i*-th numbers of a vector's two halves form a pair, a point (x, y) in a plane. It turns by an angle *a* to
# (x cos *a* − y sin *a*, y cos *a* + x sin *a*), and each pair has its own speed: base^(−2*i* / size) radians a position.

# %%
def rotate(x, positions, base):
    size = x.shape[-1]
    speed = base ** (-torch.arange(0, size, 2, device=x.device) / size)  # (size / 2,)
    angle = (positions[:, None, :, None] * speed).repeat(1, 1, 1, 2)  # (batch, 1, length, size)
    first, second = x.chunk(2, dim=-1)
    return x * angle.cos() + torch.cat([-second, first], dim=-1) * angle.sin()

# %% [markdown]
# So each pair is the hand of a clock. Here are two pairs of a vector of size 16, at the positions 0 to 7. The first
# turns by one radian a position, the third by a tenth of that:

# %%
ones = torch.tensor([1.0] * 8 + [0.0] * 8).expand(1, 1, 8, 16)  # each pair begins at (1, 0)
turned = rotate(ones, torch.arange(8)[None], 10_000)[0, 0]  # (position, size)
hands = {f"pair {n}": turned[:, [n, n + 8]].tolist() for n in (0, 2)}
circles(hands, "Where a pair points at the positions 0 to 7")

# %% [markdown]
# This answers a question from lesson 02. If all queries and keys move by three positions, as with left padding, no
# attention score changes, since only the angle *between* a query and a key counts:

# %%
torch.manual_seed(0)
queries, keys = torch.randn(2, 1, 1, 5, 16)  # each (batch, head, length, size)
at = torch.arange(5)[None]
here = rotate(queries, at, 10_000) @ rotate(keys, at, 10_000).transpose(-1, -2)
shifted = rotate(queries, at + 3, 10_000) @ rotate(keys, at + 3, 10_000).transpose(-1, -2)
torch.testing.assert_close(here, shifted, atol=1e-5, rtol=0)

# %% [markdown]
# A Llama may have fewer key heads than query heads, and both of ours have: neighbouring query heads share a key and a
# value head. (Long-context models also rescale the angles, `rope_scaling` in older configurations; our `rotate`
# leaves that out.)

# %%
def llama_weights(block, hidden, mask, positions, config):
    normed, layer = block.input_layernorm(hidden), block.self_attn
    base = config.rope_parameters["rope_theta"]
    query = split_heads(normed @ layer.q_proj.weight.T, config.num_attention_heads)
    key = split_heads(normed @ layer.k_proj.weight.T, config.num_key_value_heads)
    value = split_heads(normed @ layer.v_proj.weight.T, config.num_key_value_heads)
    query, key = rotate(query, positions, base), rotate(key, positions, base)
    shared = query.shape[1] // key.shape[1]  # query heads for each key head
    return weights_of(query, *(x.repeat_interleave(shared, dim=1) for x in (key, value)), mask)

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
# **The result of this lesson.** Three models, every layer, every head, every query and key of the left-padded batch. Each
# layer gets the library's own input here, and we compare the weights; lesson 04 chains the layers.

# %%
models = {"GPT-2": load("tiny-gpt2"), "Llama": load("tiny-llama"), "trained": load()}
for name, (each, its_tokenizer) in models.items():
    its_tokenizer.pad_token = its_tokenizer.pad_token or its_tokenizer.eos_token
    inputs = pad_sentences(its_tokenizer, sentences, side="left")
    inputs["position_ids"] = position_ids(inputs["attention_mask"])
    inputs = {field: tensor.to(each.device) for field, tensor in inputs.items()}
    hidden_states, attentions = library_weights(each, inputs)
    for layer, theirs in enumerate(attentions):
        ours, _ = our_weights(each, layer, hidden_states[layer], inputs)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    count = sum(theirs.numel() for theirs in attentions)
    print(f"{name:8} {len(attentions):3} layers, {theirs.shape[1]} heads: {count:6,} weights equal to 1e-5")

# %% [markdown]
# This includes the rows with no key left. In eager they give each of the eight keys, including the future, a weight
# of 1/8, even in the trained model (printed as 0.12). Here is the last layer's head 0, for "It will rain in the":

# %%
print(attentions[-1][0, 0].cpu())  # (query, key)

# %% [markdown]
# ## Recap
#
# - **One head:** attention scores (dot products, scaled), plus mask, softmax, weights, mixed values. The mask comes
#   before the softmax, never after it.
# - **From 0 and 1 to numbers:** choose with `masked_fill` or `where`. Never multiply by −∞, never add 0 and 1.
# - **Joining:** use `&` on True and False, with the shapes (query, key) and (batch, 1, 1, key); then turn the result
#   into numbers, once.
# - **No key left:** −∞ gives NaN in eager, which spreads to every token of that text. `finfo.min` gives equal
#   weights in float32; SDPA, given True and False, gives zeros.
# - **Padding:** its hidden states are undefined. Select tokens with the mask before you average.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Optional: the dtype clinic
#
# Which number forbids a key? Four are found in published code: −∞, `finfo.min`, −10,000 and −10⁹. Models run in three
# types. bfloat16 has the range of float32 but fewer digits; float16 has more digits than bfloat16 but a small range. We
# start with a row that has two forbidden keys, and compare all twelve
# combinations with the weights of the two allowed keys alone:

# %%
dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
for name, dtype in dtypes.items():
    print(f"{name:8}  most negative number: {torch.finfo(dtype).min:.3g}")
fills = ["-inf", "finfo.min", "-1e4", "-1e9"]


def filled(forbidden, dtype, fill):
    number = torch.finfo(dtype).min if fill == "finfo.min" else float(fill)
    return torch.where(forbidden, torch.tensor(number).to(dtype), torch.zeros((), dtype=dtype))


some = torch.tensor([False, True, False, True])
for dtype in dtypes.values():
    alone = full[~some].to(dtype).softmax(-1)
    for fill in fills:
        got = (full.to(dtype) + filled(some, dtype, fill)).softmax(-1)
        assert torch.allclose(got[~some], alone) and not got[some].any()

# %% [markdown]
# All twelve agree. One allowed key is enough for right weights, as long as no attention score comes near the fill value. Here −10,000
# is added to a forbidden one of 10,010:

# %%
(torch.tensor([0.0, 10_010]) + torch.tensor([0, -1e4])).softmax(-1)

# %% [markdown]
# 10,010 − 10,000 is 10, which is more than 0: the forbidden key wins. With float32's `finfo.min` that cannot happen.
# Now the row in which *every* key is forbidden.

# %% [markdown]
# ### Exercise 4: Say where a fully masked row is NaN · difficulty 2 of 3 · 8 minutes
#
# All four keys of `full` are forbidden, and the fill value is added. For which types and fill values are the weights
# NaN? Remember that softmax first subtracts the row's largest entry. Decide before you run anything, and write down
# the pairs.

# %% tags=["exercise"]
nan_cases = ...  # a set of pairs such as {("float32", "-1e4"), ("float16", "finfo.min")}

# %% tags=["solution"]
nan_cases = {("float32", "-inf"), ("bfloat16", "-inf"), ("float16", "-inf"), ("float16", "-1e9")}

# %% [markdown] tags=["solution"]
# NaN needs a row with only −∞ in it: then −∞ is subtracted from −∞. −∞ gives that in every type. In float16, whose
# range ends at −65504, −10⁹ *is* −∞. There `finfo.min` plus −20 overflows too (numbers that large come in steps of 32, and
# −20 is more than half a step), but two of the four sums do not.

# %% tags=["check"]
lesson.check_nan_cases(nan_cases)

# %% [markdown] tags=["hints"]
# - Softmax subtracts the row's largest entry, takes `exp`, and divides by the sum. When is the result not a number?
# - A cell above prints where each type's range ends. What happens to a number beyond it?
# - In float16, numbers near −65504 come in steps of 32, so −65504 − 20 overflows and −65504 − 10 does not. One finite
#   entry is enough for weights that are numbers.

# %% [markdown]
# In the other eight cases the weights are numbers. Which numbers? Guess for float32, with −10,000 added to the attention
# scores of all four keys.

# %%
Predict(lesson.predict_full_row)

# %% tags=["answer"]
print("weights of a row in which every key is forbidden")
every = torch.ones(4).bool()
for name, dtype in dtypes.items():
    for fill in fills:
        got = (full.to(dtype) + filled(every, dtype, fill)).softmax(-1)
        print(f"{name:8}  {fill:9}  {[f'{weight:.2f}' for weight in got.tolist()]}")

# %% [markdown]
# **−10,000, float32:** 0.12, 0, 0.88, 0. Those are the weights without any mask! A number that is added to a whole
# row cancels in the division. So a row in which *every* key is forbidden attends as if *none* were, to padding and
# to the future.
#
# **`finfo.min`, float16:** −65504 − 20 is out of range and becomes −∞, so two of the four keys drop out. The other
# differences are rounding too: far from 0 a type's numbers come in steps, of 64 for float32 near 10⁹, of 64 for
# bfloat16 and of 8 for float16 near 10,000.

# %%
print((full - 10_000).softmax(-1), full.softmax(-1))
for name, fill in (("float16", "finfo.min"), ("float32", "-1e9"), ("bfloat16", "-1e4"), ("float16", "-1e4")):
    print(f"{name:8}  {fill:9}  {(full.to(dtypes[name]) + filled(every, dtypes[name], fill)).tolist()}")

# %% [markdown]
# ### NaN in training
#
# In training, NaN does harm with a single layer already. A head has its own matrices for query, key and value. The loss reads only the rows of the
# text's tokens, and none of those is NaN:

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
    modeling_led._prepare_4d_attention_mask_inverted,  # the recipe of section 3
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
