# %% [markdown]
# # What does one forward pass return?
#
# **By the end you will have rebuilt GPT-2's forward pass from its weights, in about 30 lines, and its logits will
# equal the library's to five decimals: in one pass or one token at a time, with or without a cache.**
#
# You will be able to
#
# - count a model's parameters from its configuration, term by term,
# - follow ids through embeddings, blocks, final norm and head to the logits,
# - name each field of the output and its shape, and say when a field stays empty,
# - decode with a cache, crop it, and say what it holds, why it is exact and what it costs,
# - give a model vectors instead of ids.
#
# *50 minutes, and another 30 for the exercises. You need: lesson 03.*

# %% [markdown]
# ## 1. From a configuration to a number
#
# A model consists of a **configuration**, which says how large everything is, and the weights that this requires.
# `GPT2Config()`, without arguments, is GPT-2's own configuration:

# %%
import warnings

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from course_utils import load, needs_transformers
from course_utils.lessons import lesson04 as lesson
from course_utils.widgets import CacheGrowth, Predict, Quiz

needs_transformers("5.24")  # the first release that calls the cache `cache`
torch.set_grad_enabled(False)  # nothing is trained in this lesson
gpt2 = GPT2Config()
{name: getattr(gpt2, name) for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")}

# %% [markdown]
# `n_embd` is the **width**: every vector that passes through GPT-2 has 768 numbers. We build the model on PyTorch's
# **meta device**, which keeps shapes but no numbers. This is one of its 12 **blocks**, also called layers:

# %%
with torch.device("meta"):
    empty = GPT2LMHeadModel(gpt2)
for name, weight in empty.transformer.h[0].named_parameters():
    print(f"{name:20} {tuple(weight.shape)}")

# %% [markdown]
# `ln_1` and `ln_2` normalise. `c_attn` computes query, key and value, side by side; `attn.c_proj` combines the heads'
# results. The **MLP** (multi-layer perceptron) widens each vector to four times 768 numbers, which is what
# `n_inner=None` means, and narrows it again.

# %% [markdown]
# Before the blocks come two tables: a vector for each token, `wte`, and one for each position, `wpe`. After them come
# a final norm, `ln_f`, and the **head**, a matrix of 50257 × 768 that turns a vector into logits. (It has nothing to
# do with the attention heads.)

# %%
Predict(lesson.predict_head)

# %% tags=["answer"]
print("parameters of the model, less those of everything before the head:")
print(empty.num_parameters() - empty.transformer.num_parameters())

# %% [markdown]
# None. The head *is* the token table: the two are **tied**. So the logit of a token is the dot product of the last
# hidden state and that token's own vector.

# %%
empty.lm_head.weight is empty.transformer.wte.weight

# %% [markdown]
# Now we compute every term from the configuration alone. A matrix from `a` to `b` numbers has `a * b` weights and `b`
# biases, together `(a + 1) * b`. A norm has a scale and a shift for each number.

# %%
def gpt2_terms(config):
    width, inner = config.n_embd, config.n_inner or 4 * config.n_embd
    block = {
        "norm before attention": 2 * width,
        "query, key, value": (width + 1) * 3 * width,
        "out of attention": (width + 1) * width,
        "norm before the MLP": 2 * width,
        "into the MLP": (width + 1) * inner,
        "out of the MLP": (inner + 1) * width,
    }
    terms = {"token table": config.vocab_size * width, "position table": config.n_positions * width}
    terms |= {f"{config.n_layer} x {name}": config.n_layer * count for name, count in block.items()}
    return terms | {"final norm": 2 * width, "head, tied": 0}

# %%
terms = gpt2_terms(gpt2)
for name, count in terms.items():
    print(f"{name:26} {count:>12,}")
print(f"{'':26} {sum(terms.values()):>12,}")
assert sum(terms.values()) == empty.num_parameters() == 124_439_808

# %% [markdown]
# 124,439,808 is the "124M" in GPT-2's name. Nearly a third of it is the token table. In the blocks, two of every
# three weights belong to the MLP.

# %% [markdown]
# ### Exercise 1: Count the parameters of a Llama · difficulty 2 of 3 · 8 minutes
#
# SmolLM2 is built like Llama. When you print a model, it shows its parts and their sizes:

# %%
smollm2, smollm2_tokenizer = load("smollm2-135m")
print(smollm2)

# %% [markdown]
# Compute the sum for any `LlamaConfig` without biases. A norm has only a scale; `rotary_emb` has no weights. These
# are the names in the configuration:

# %%
llama_names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
llama_names += ["num_key_value_heads", "head_dim", "tie_word_embeddings"]
{name: getattr(smollm2.config, name) for name in llama_names}

# %% tags=["exercise"]
def llama_parameters(config) -> int:
    """Return how many parameters a LlamaForCausalLM of this configuration has."""
    raise NotImplementedError

# %% tags=["solution"]
def llama_parameters(config) -> int:
    """Return how many parameters a LlamaForCausalLM of this configuration has."""
    width, size = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * size, config.num_key_value_heads * size
    attention = width * queries + 2 * width * keys + queries * width
    mlp = 3 * width * config.intermediate_size
    tables = config.vocab_size * width * (1 if config.tie_word_embeddings else 2)
    return tables + config.num_hidden_layers * (attention + mlp + 2 * width) + width

# %% [markdown] tags=["solution"]
# There are two main differences from GPT-2. There is no position table, since queries and keys are rotated instead.
# And keys and values have fewer heads than queries, 3 instead of 9, so their matrices are a third as large.

# %% tags=["check"]
lesson.check_llama_parameters(llama_parameters)

# %% [markdown] tags=["hints"]
# - Go through the printed model from top to bottom. `(0-29): 30 x` says that there are 30 such layers.
# - `q_proj` and `o_proj` connect `hidden_size` and `num_attention_heads * head_dim`. `k_proj` and `v_proj` have
#   `num_key_value_heads` instead.
# - Each layer has two norms, and one more comes after the last layer. Is the head a separate matrix?

# %%
print(f"{smollm2.num_parameters():,}")
assert smollm2.num_parameters() == 134_515_008

# %% [markdown]
# ## 2. From ids to logits
#
# We rebuild the forward pass from the weights. Our GPT-2 is `tiny-gpt2`: the real architecture with 4 layers of width
# 64, the real vocabulary, random weights. GPT-2's own weights are available only from the Hub; the computation is the
# same.

# %%
model, tokenizer = load("tiny-gpt2")
vectors = [weight for weight in model.parameters() if weight.ndim == 1]  # scales, shifts, biases
torch.cat(vectors).unique().cpu()

# %% [markdown]
# There is one catch. In a new model each scale is 1, and each shift and bias is 0. A rebuilt model that left out all
# of them would pass every test. **A test covers a term only if that term affects the result**, so we give them other
# values:

# %%
torch.manual_seed(0)
for vector in vectors:
    vector += 0.1 * torch.randn_like(vector)
weights = {name.removeprefix("transformer."): weight for name, weight in model.state_dict().items()}
list(weights)[:6]

# %% [markdown]
# **Embeddings.** For each id a row of the token table, plus a row of the position table for its position:

# %%
text = "The capital of France is Paris."
ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)  # (batch, length)
x = weights["wte.weight"][ids] + weights["wpe.weight"][range(ids.shape[1])]
x.shape  # (batch, length, width)

# %% [markdown]
# The position table ends at `n_positions`. What does the library do with one more token?

# %%
too_long = torch.zeros(1, 1025, dtype=torch.long)  # on the CPU: on a GPU, nothing would run after this error
try:
    load("tiny-gpt2", device="cpu")[0](too_long)
except IndexError as error:
    print("IndexError:", error)

# %% [markdown]
# There is no row 1024. Llama has no such table, so nothing stops it. `max_position_embeddings` only says how long a
# text the model was built for; positions past it still produce output:

# %%
llama, _ = load("tiny-llama", device="cpu")
print("built for", llama.config.max_position_embeddings, "positions")
llama.model(too_long).last_hidden_state.shape  # (batch, length, width)

# %% [markdown]
# **Norm.** Each vector is shifted to mean 0 and divided by its standard deviation. Then come the scale and the shift.
# The 10⁻⁵ prevents a division by 0 for a vector of equal numbers.

# %%
def norm(x, weights, name):
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

# %% [markdown]
# **Attention.** Lesson 03 ended with a head's weights. Now they mix the values. The heads' results are concatenated,
# and one more matrix, `c_proj`, mixes the heads.

# %%
def split_heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)  # (batch, head, length, size)


def attention(x, weights, name, heads, mask):
    parts = linear(x, weights, f"{name}.c_attn").chunk(3, dim=-1)  # each (batch, length, width)
    query, key, value = (split_heads(part, heads) for part in parts)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask  # (batch, head, query, key)
    mixed = scores.softmax(-1) @ value  # (batch, head, query, size)
    return linear(mixed.transpose(1, 2).flatten(2), weights, f"{name}.c_proj")

# %% [markdown]
# Older documentation says that attention scores are divided by the square root of `hidden_size`. It is the square
# root of *one head's* size, here 64 / 4:

# %%
model.transformer.h[0].attn.scaling, (64 / 4) ** -0.5, 64**-0.5

# %% [markdown]
# **MLP.** Each token's vector goes up to four times the width, through a nonlinear function, and down again. The
# function is `gelu_new`, GELU approximated with tanh. Without it, the two matrices could be replaced by one.

# %%
from torch.nn.functional import gelu


def mlp(x, weights, name):
    wide = gelu(linear(x, weights, f"{name}.c_fc"), approximate="tanh")  # (batch, length, 4 * width)
    return linear(wide, weights, f"{name}.c_proj")

# %% [markdown]
# **The whole pass.** A block never replaces its input: it *adds* the result of attention, and then that of the MLP.
# This sum, which passes through all blocks, is the **residual stream**. Here is one block of the 124M GPT-2, with its
# shapes:
#
# ![One block: the stream of vectors runs through; copies of it go through attention and the MLP, and their results are added](images/block.svg)
#
# The first lines of `forward` make the stream, one turn of its loop is one block. Position ids and mask are those of
# lessons 02 and 03.

# %%
from course_utils.masks import additive_mask, joined_mask, pad_sentences, position_ids


def forward(weights, config, input_ids, attention_mask):
    x = weights["wte.weight"][input_ids] + weights["wpe.weight"][position_ids(attention_mask)]
    mask = additive_mask(joined_mask(attention_mask), x.dtype)  # (batch, 1, query, key)
    for layer in range(config.n_layer):
        name = f"h.{layer}"
        x = x + attention(norm(x, weights, f"{name}.ln_1"), weights, f"{name}.attn", config.n_head, mask)
        x = x + mlp(norm(x, weights, f"{name}.ln_2"), weights, f"{name}.mlp")
    return norm(x, weights, "ln_f") @ weights["wte.weight"].T  # (batch, length, vocab)

# %% [markdown]
# We compare one text, and lesson 02's left-padded batch, with the library. The logits of padding are undefined, so we
# compare only those of the other tokens:

# %%
sentences = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]
tokenizer.pad_token = tokenizer.eos_token
for batch in (pad_sentences(tokenizer, [text]), pad_sentences(tokenizer, sentences)):
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    token = batch["attention_mask"].bool()  # (batch, length)
    theirs = model(**batch, position_ids=position_ids(batch["attention_mask"])).logits
    ours = forward(weights, model.config, **batch)
    torch.testing.assert_close(ours[token], theirs[token], atol=1e-5, rtol=0)
    print(f"{tuple(ours.shape)}: equal to 1e-5 at all {token.sum()} tokens")

# %% [markdown]
# ## 3. What comes back
#
# The library returns more than logits. Some fields are returned only on request:

# %%
def shapes(output):
    for name, value in output.items():
        if isinstance(value, tuple):
            value = f"tuple of {len(value)}" + (f", each {tuple(value[0].shape)}" if value else "")
        print(f"{name:18}", tuple(value.shape) if isinstance(value, torch.Tensor) else value)

# %%
inputs = tokenizer(text, return_tensors="pt").to(model.device)
out = model(**inputs)
print(list(out))
out = model(**inputs, output_hidden_states=True, output_attentions=True)
shapes({name: value for name, value in out.items() if name != "cache"})

# %% [markdown]
# **`logits`**, (batch, length, vocabulary): an answer at *every* index, in one pass. The logits at index t predict
# the token at t + 1. To write the next token you need only the last ones, and can save the rest of that large
# product:

# %%
model(**inputs, logits_to_keep=1).logits.shape

# %% [markdown]
# **`loss`** is returned if you pass labels. The labels are the ids themselves: the loss shifts them by one index.

# %%
smollm2_ids = smollm2_tokenizer(text, return_tensors="pt").input_ids.to(smollm2.device)
labelled = smollm2(smollm2_ids, labels=smollm2_ids)
by_hand = torch.nn.functional.cross_entropy(labelled.logits[0, :-1], smollm2_ids[0, 1:])
torch.testing.assert_close(labelled.loss, by_hand)
list(labelled)

# %% [markdown]
# **`hidden_states`**: one more entry than there are layers, each (batch, length, width). The first is the sum of the
# two embeddings, the input of the first block. And the last?

# %%
Predict(lesson.predict_last_hidden)

# %% tags=["answer"]
print("the last hidden states times the head's matrix, compared with the logits:")
by_hand = out.hidden_states[-1] @ weights["wte.weight"].T
print("equal" if torch.allclose(by_hand, out.logits, atol=1e-5) else "different")

# %% [markdown]
# The last entry is taken *after* the final norm. None of the five entries is the output of the last block; a hook
# shows it:

# %%
returned = []
with model.transformer.h[-1].register_forward_hook(lambda module, args, result: returned.append(result)):
    model(**inputs)
torch.testing.assert_close(norm(returned[0], weights, "ln_f"), out.hidden_states[-1], atol=1e-5, rtol=0)
assert torch.equal(out.hidden_states[0], x)

# %% [markdown]
# ![Where each hidden state is taken: the first before block 1, one between each two blocks, the last after the final norm](images/hidden_states.svg)

# %% [markdown]
# A common mistake is to apply the norm again. `last_hidden_state`, which a model without a head returns, is the same
# as this last entry:

# %%
assert torch.equal(model.transformer(**inputs).last_hidden_state, out.hidden_states[-1])
twice = norm(out.hidden_states[-1], weights, "ln_f") @ weights["wte.weight"].T
torch.allclose(twice, out.logits, atol=1e-5)

# %% [markdown]
# **`attentions`**: empty, without a warning. SDPA never stores the weights, as lesson 03 showed. Eager does:

# %%
model.set_attn_implementation("eager")
shapes({"attentions": model(**inputs, output_attentions=True).attentions})  # (batch, head, query, key)
model.set_attn_implementation("sdpa")

# %% [markdown]
# **`cross_attentions`**: for a decoder that also reads a second text, which an *encoder* has turned into vectors, as
# in translation. GPT-2 has none. A GPT-2 built with cross-attention shows how its 7 tokens attend to the other text's
# 3 vectors:

# %%
config = GPT2Config(n_embd=64, n_layer=2, n_head=4, add_cross_attention=True)
reader = GPT2LMHeadModel(config).to(model.device).eval()
reader.set_attn_implementation("eager")
other_text = torch.randn(1, 3, 64, device=model.device)  # (batch, its length, width)
read = reader(ids, encoder_hidden_states=other_text, output_attentions=True)
shapes({name: read[name] for name in ("attentions", "cross_attentions")})

# %% [markdown]
# The last field, `cache`, is the subject of the next section. Up to transformers 5.23 it was called
# `past_key_values`, in the output and as an argument, and nearly every tutorial uses that name. It still works, with
# a warning:

# %%
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    model(ids, past_key_values=None)
print(*dict.fromkeys(str(warning.message) for warning in warned), sep="\n")

# %% [markdown]
# Some arguments no longer exist. In old code you will find `head_mask`, which used to switch off individual heads.

# %%
Predict(lesson.predict_head_mask)

# %% tags=["answer"]
print("model(ids, head_mask=all zeros):")
masked = model(ids, head_mask=torch.zeros(4, 4, device=model.device))
print("the same logits:", torch.equal(masked.logits, out.logits))

# %% [markdown]
# Nothing happened, and there was no message. A forward pass hands on unknown arguments from function to function, and
# in the end nobody uses them. A typo is just as silent. Here is the same mask, which hides one token, under a
# misspelled name and under its own:

# %%
hiding = torch.ones_like(ids)
hiding[0, 1] = 0
for name in ("atention_mask", "attention_mask"):
    print(f"{name}, the same logits:", torch.equal(model(ids, **{name: hiding}).logits, out.logits))

# %% [markdown]
# ## 4. The cache
#
# To write 100 tokens, the model runs 100 times, each time on a text that is one token longer. How much of the
# previous pass could be kept? We compare the keys and values of a text with those of its beginning.

# %%
Predict(lesson.predict_unchanged)

# %% tags=["answer"]
print("first five tokens of seven: largest change of a key or value, in any layer")
short, long = model(ids[:, :5]).cache, model(ids[:, :7]).cache
changes = []
for before, after in zip(short.layers, long.layers):
    changes += [after.keys[:, :, :5] - before.keys, after.values[:, :, :5] - before.values]
print(f"{max(change.abs().max().item() for change in changes):.4f}")

# %% [markdown]
# None changes, in any layer. A token in a decoder sees itself and the tokens before it. Later tokens cannot affect
# it, so its keys and values are final once they are computed. This is why a cache is **exact**, up to rounding.

# %% [markdown]
# The field `cache` holds them, and you pass it on as the argument of the same name. For each layer it has two
# tensors:

# %%
cache = out.cache
print(type(cache).__name__, "with", len(cache.layers), "layers, length", cache.get_seq_length())
cache.layers[0].keys.shape, cache.layers[0].values.shape  # each (batch, head, length, size)

# %% [markdown]
# In version 4 it could be read as a tuple of tuples. Code from that time stops here:

# %%
try:
    key, value = cache[0]
except TypeError as error:
    print("TypeError:", error)

# %% [markdown]
# Queries are not kept: a token needs its query only once, in the pass in which it is new. Our own attention needs
# four more lines for a cache, a dictionary with an entry for each layer:

# %%
def attention(x, weights, name, heads, mask, cache=None):
    parts = linear(x, weights, f"{name}.c_attn").chunk(3, dim=-1)
    query, key, value = (split_heads(part, heads) for part in parts)
    if cache is not None:  # New: the cached keys and values come first, and all are kept
        if name in cache:
            key, value = (torch.cat(pair, dim=2) for pair in zip(cache[name], (key, value)))
        cache[name] = key, value
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask  # (batch, head, query, key)
    mixed = scores.softmax(-1) @ value
    return linear(mixed.transpose(1, 2).flatten(2), weights, f"{name}.c_proj")

# %% [markdown]
# `input_ids` now has only the **new** ids. `attention_mask` still covers the whole text, including the cached tokens.
# The new tokens are the last ones, and so are their positions and their rows of the mask:

# %%
def forward(weights, config, input_ids, attention_mask, cache=None):
    new = input_ids.shape[1]  # New: how many tokens have a query
    x = weights["wte.weight"][input_ids] + weights["wpe.weight"][position_ids(attention_mask)[:, -new:]]
    mask = additive_mask(joined_mask(attention_mask, queries=new), x.dtype)  # (batch, 1, new, all)
    for layer in range(config.n_layer):
        name = f"h.{layer}"
        normed = norm(x, weights, f"{name}.ln_1")
        x = x + attention(normed, weights, f"{name}.attn", config.n_head, mask, cache)
        x = x + mlp(norm(x, weights, f"{name}.ln_2"), weights, f"{name}.mlp")
    return norm(x, weights, "ln_f") @ weights["wte.weight"].T  # (batch, new, vocab)

# %% [markdown]
# We run the text in four ways: all tokens in one pass or one by one, with or without a cache. One by one without a
# cache, each pass reads the whole text so far. One function runs our pass and the library's:

# %%
def our_pass(ids, mask, cache):
    return forward(weights, model.config, ids, mask, cache)


def library_pass(ids, mask, cache):
    kept = {"cache": cache, "use_cache": cache is not None}
    return model(ids, attention_mask=mask, **kept).logits


def run(one_pass, at_once, cache):
    if at_once:
        return one_pass(ids, torch.ones_like(ids), cache)
    rows = []
    for end in range(1, ids.shape[1] + 1):
        given = ids[:, :end] if cache is None else ids[:, end - 1 : end]
        rows.append(one_pass(given, torch.ones_like(ids[:, :end]), cache)[:, -1:])
    return torch.cat(rows, dim=1)  # (batch, length, vocab)

# %% [markdown]
# **The result of this lesson:**

# %%
from itertools import product

from transformers import DynamicCache

for at_once, cached in product((True, False), repeat=2):
    ours = run(our_pass, at_once, {} if cached else None)
    theirs = run(library_pass, at_once, DynamicCache(config=model.config) if cached else None)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, out.logits, atol=1e-5, rtol=0)  # and all four ways with each other
    ways = f"{'at once' if at_once else 'one by one'}, {'with' if cached else 'without'} a cache:"
    print(f"{ways:28} {ours.numel():,} logits equal to 1e-5")

# %% [markdown]
# The remaining difference is rounding: numbers are added in a different order. In float64 the two agree to nine
# decimals. With `COURSE_MODEL=gpt2`, GPT-2's own weights go through the same test.

# %%
import copy
import os

candidates = [copy.deepcopy(model).cpu()]
if os.environ.get("COURSE_MODEL", "").endswith("gpt2"):
    candidates.append(load(device="cpu")[0])
for candidate in candidates:
    exact = candidate.double().state_dict()
    exact = {name.removeprefix("transformer."): weight for name, weight in exact.items()}
    ours = forward(exact, candidate.config, ids.cpu(), torch.ones_like(ids.cpu()))
    torch.testing.assert_close(ours, candidate(ids.cpu()).logits, atol=1e-9, rtol=0)
    print(f"{candidate.name_or_path}: equal to 1e-9")

# %% [markdown]
# ### Exercise 2: Decode with a cache · difficulty 2 of 3 · 6 minutes
#
# Continue one prompt greedily: always take the most likely token. The first pass reads the prompt, each later pass
# one id. Do not call `generate()`.

# %% tags=["exercise"]
def decode(model, input_ids: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the ids of the `steps` new tokens, (1, steps). input_ids is (1, length), without padding."""
    raise NotImplementedError

# %% tags=["solution"]
def decode(model, input_ids: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the ids of the `steps` new tokens, (1, steps). input_ids is (1, length), without padding."""
    cache, given, chosen = None, input_ids, []
    for _ in range(steps):
        out = model(given, cache=cache, use_cache=True)
        cache = out.cache
        given = out.logits[:, -1:].argmax(-1)  # (1, 1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)

# %% [markdown] tags=["solution"]
# Without padding, the model's own defaults are enough: no mask means that no key is hidden as padding, and positions
# continue after the cache. The last chosen token never goes through the model. So the cache is one token shorter than
# the text.

# %% tags=["check"]
lesson.check_decode(decode)

# %% [markdown] tags=["hints"]
# - A pass returns its cache: `out.cache`. Pass it to the next call as `cache=`.
# - With a cache, give the model only the id that was chosen last, with shape (1, 1).
# - `out.logits[:, -1:].argmax(-1)` is that id, and already has this shape.

# %% [markdown]
# `generate()` keeps a cache unless you tell it not to. Here, in float32, it writes the same text either way. No pass
# reads the token that was chosen last, so the cache is one token shorter than the text:

# %%
prompt = smollm2_tokenizer("The capital of France is", return_tensors="pt").to(smollm2.device)
options = {"max_new_tokens": 6, "do_sample": False}
written = smollm2.generate(**prompt, **options, return_dict_in_generate=True)
assert torch.equal(written.sequences, smollm2.generate(**prompt, **options, use_cache=False))
print(repr(smollm2_tokenizer.decode(written.sequences[0])))
print(written.sequences.shape[1], "ids, cached:", written.cache.get_seq_length())

# %% [markdown]
# ### One cache, used twice
#
# We read a prompt, and then give the model one more id together with the cache. Then we do it again with the same id
# and the same cache:

# %%
Predict(lesson.predict_twice)

# %% tags=["answer"]
print("the same id, the same variable, twice:")
cache = model(ids).cache
first, second = (model(ids[:, :1], cache=cache).logits for _ in range(2))
print("the same logits:", torch.allclose(first, second, atol=1e-3))
print("the cache is now", cache.get_seq_length() - ids.shape[1], "tokens longer than the text")

# %% [markdown]
# A pass adds its tokens to the cache that it is given. To try two continuations you need a copy,
# `copy.deepcopy(cache)` (which works only without gradients), or a way to undo the pass:

# %%
cache.crop(-1)
again = model(ids[:, :1], cache=cache).logits
torch.testing.assert_close(again, second, atol=1e-5, rtol=0)

# %% [markdown]
# `crop(-n)` cuts off the last `n` tokens. No computation is needed: the keys and values that stay were final anyway.
# In older code you will find the *length to keep* as a positive number:

# %%
try:
    cache.crop(5)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# ### Exercise 3: Compute the log probabilities of several endings · difficulty 2 of 3 · 8 minutes
#
# Which ending does the model find most likely? A token's **log probability** is `log_softmax` of the logits that
# predict it, taken at its id; the log probability of an ending is the sum over its tokens. Read the prompt in one
# pass only.

# %% tags=["exercise"]
def score_endings(model, prompt_ids: torch.Tensor, endings: list[list[int]]) -> list[float]:
    """Return the log probability of each ending after the prompt. prompt_ids is (1, length)."""
    raise NotImplementedError

# %% tags=["solution"]
def score_endings(model, prompt_ids: torch.Tensor, endings: list[list[int]]) -> list[float]:
    """Return the log probability of each ending after the prompt. prompt_ids is (1, length)."""
    out = model(prompt_ids, use_cache=True)
    cache, after_prompt = out.cache, out.logits[:, -1:]
    scores = []
    for ending in endings:
        ids = torch.tensor([ending], device=model.device)
        logits = model(ids, cache=cache).logits  # (1, length of the ending, vocab)
        cache.crop(-len(ending))
        predicting = torch.cat([after_prompt, logits[:, :-1]], dim=1)  # entry t predicts the ending's token t
        log_probs = predicting.log_softmax(-1).gather(-1, ids[..., None])
        scores.append(log_probs.sum().item())
    return scores

# %% [markdown] tags=["solution"]
# The logits at the prompt's last token predict an ending's first token, and those at an ending's last token are not
# needed. So logits and ids are one index apart, as in every loss of a language model. Without `crop`, each ending
# would be read as a continuation of the one before.

# %% tags=["check"]
lesson.check_score_endings(score_endings)

# %% [markdown] tags=["hints"]
# - One pass over the prompt gives two things: the cache, and the logits that predict each ending's first token.
# - Then one pass for each ending, with that cache. Crop the cache before the next one: `cache.crop(-len(ending))`.
# - The logits at index t of the ending predict its token t + 1. Put the prompt's last logits first, and leave out the
#   ending's last.

# %% [markdown]
# ### A batch in several passes
#
# Here is a loop for a left-padded batch. It runs without an error or a warning, and no row is right:

# %%
def broken(model, input_ids, attention_mask, steps):
    cache, given, chosen = None, input_ids, []
    positions = position_ids(attention_mask)
    for _ in range(steps):
        told = {"attention_mask": attention_mask, "position_ids": positions}
        out = model(given, cache=cache, use_cache=True, **told)
        cache = out.cache
        given = out.logits[:, -1:].argmax(-1)  # (batch, 1)
        positions = positions[:, -1:]
        chosen.append(given)
    return torch.cat(chosen, dim=1)  # (batch, steps)

# %%
batch = {name: tensor.to(model.device) for name, tensor in pad_sentences(tokenizer, sentences).items()}
expected = model.generate(**batch, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
expected = expected[:, batch["input_ids"].shape[1] :]
(broken(model, **batch, steps=6) == expected).all(1).tolist()

# %% [markdown]
# ### Exercise 4: Find two bugs in a loop with a cache · difficulty 3 of 3 · 8 minutes
#
# Two things stay the same that should change as the text grows. Print what the model is given in the second pass.
# Then write the loop so that every row is right.

# %% tags=["exercise"]
def repaired(model, input_ids: torch.Tensor, attention_mask: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the greedy continuations of a left-padded batch, (batch, steps), decoded with a cache."""
    raise NotImplementedError

# %% tags=["solution"]
def repaired(model, input_ids: torch.Tensor, attention_mask: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the greedy continuations of a left-padded batch, (batch, steps), decoded with a cache."""
    cache, given, chosen = None, input_ids, []
    positions = position_ids(attention_mask)
    for _ in range(steps):
        told = {"attention_mask": attention_mask, "position_ids": positions}
        out = model(given, cache=cache, use_cache=True, **told)
        cache = out.cache
        given = out.logits[:, -1:].argmax(-1)  # (batch, 1)
        positions = positions[:, -1:] + 1
        attention_mask = torch.cat([attention_mask, torch.ones_like(given)], dim=1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)  # (batch, steps)

# %% [markdown] tags=["solution"]
# The positions: each new token had the position of the prompt's last token. The mask: it had no column for the new
# token. `generate()` extends both in the same way, in `_update_model_kwargs_for_generation`.

# %% tags=["check"]
lesson.check_repaired(repaired)

# %% [markdown] tags=["hints"]
# - In the second pass, which position does the new token get? Which one does the prompt's last token have?
# - How many keys are there in the second pass? How many columns does the mask have?
# - Positions increase by 1. The mask gets a column of ones for each new token.

# %% [markdown]
# Why did a mask that is too short cause no error? We look at what reaches the first attention layer in the second
# pass:

# %%
seen = []
watch = lambda module, args, given: seen.append(given["attention_mask"])
with model.transformer.h[0].attn.register_forward_pre_hook(watch, with_kwargs=True):
    broken(model, **batch, steps=2)
seen[1][:, 0, 0].int().cpu()  # (batch, key): row by row, what the new token may look at

# %% [markdown]
# The library fills up the missing columns with zeros. The last column is that of the new token: it may not even
# attend to itself.

# %% [markdown]
# ### What it costs
#
# A cache holds keys and values for each token in each layer. GPT-2 has 12 layers of 12 heads. SmolLM2 has 30 layers,
# with the heads that you counted in exercise 1. In both models a head is 64 numbers wide, and a number takes 4 bytes.

# %%
Predict(lesson.predict_cost)

# %% tags=["answer"]
def bytes_a_token(config):
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * 4  # 2: keys and values; 4: float32


print("bytes for each token:")
print(f"GPT-2 {bytes_a_token(gpt2):,}, SmolLM2 {bytes_a_token(smollm2.config):,}")

# %% [markdown]
# SmolLM2's 9 query heads share 3 heads of keys and values. This is **grouped-query attention**, and it makes the
# cache three times smaller. So SmolLM2's 30 layers need less than GPT-2's 12. The tensors themselves confirm it:

# %%
cache = smollm2(smollm2_ids).cache
held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
print("keys", tuple(cache.layers[0].keys.shape), "and", f"{held:,} bytes for {smollm2_ids.shape[1]} tokens")
assert held == smollm2_ids.shape[1] * bytes_a_token(smollm2.config)

# %% [markdown]
# This is small, until texts are long and batches large. At the full length of 8,192 positions, the cache of a single
# text is more than two thirds of the size of the model:

# %%
whole = smollm2.config.max_position_embeddings * bytes_a_token(smollm2.config)
model_bytes = 4 * smollm2.num_parameters()
print(f"cache of one full text: {whole / 1e6:.0f} MB, weights: {model_bytes / 1e6:.0f} MB")

# %% [markdown]
# And without a cache? If a text of 256 tokens is written one by one, the passes together read this many tokens:

# %%
print("without a cache:", sum(range(1, 257)), "  with a cache:", 256)

# %% [markdown]
# So much for counting. We also measure on this machine: the time for one more token, with and without a cache, and
# the memory. Which of the three grow with the text? Choose a longer text and measure again.

# %% tags=["nbval-ignore-output"]
growth = CacheGrowth(smollm2, smollm2_tokenizer)
growth.measure(64)
growth

# %% [markdown]
# ## 5. Vectors instead of ids
#
# Ids serve one purpose: to look up vectors. If you have the vectors, you can pass them as `inputs_embeds` instead:

# %%
table = smollm2.get_input_embeddings()  # a look-up: ids in, vectors out
france, germany = (
    smollm2_tokenizer(f"The capital of {name} is", return_tensors="pt").input_ids.to(smollm2.device)
    for name in ("France", "Germany")
)
torch.equal(smollm2(inputs_embeds=table(france)).logits, smollm2(france).logits)

# %% [markdown]
# A vector does not have to belong to a token. Between France and Germany there is no word, but there is a point:

# %%
def capital(share):
    mixed = (1 - share) * table(france) + share * table(germany)  # (batch, length, width)
    top = smollm2(inputs_embeds=mixed).logits[0, -1].softmax(-1).topk(2)
    return [f"{p:.2f} {smollm2_tokenizer.decode(id)!r}" for p, id in zip(top.values, top.indices.tolist())]


for share in (0, 0.25, 0.5, 0.75, 1):
    print(f"{share:.0%} Germany:", *capital(share))

# %% [markdown]
# The answer changes with the vector. Ids cannot be mixed: the id halfway between the two belongs to a third token,
# which is unrelated to either. Lessons 08 and 09 build on this difference.

# %%
one, other = france[0, 3].item(), germany[0, 3].item()
[(id, smollm2_tokenizer.decode(id)) for id in (one, (one + other) // 2, other)]

# %% [markdown]
# `generate()` also takes vectors. It then does not have any prompt ids to return, and returns only the new ones:

# %%
mask = torch.ones_like(germany)
new = smollm2.generate(inputs_embeds=table(germany), attention_mask=mask, max_new_tokens=3, do_sample=False)
print(germany[0].tolist(), tuple(new.shape), repr(smollm2_tokenizer.decode(new[0])))

# %% [markdown]
# GPT-2 has one more, hidden look-up. `token_type_ids` are often explained as "0 for sentence A, 1 for sentence B". In
# GPT-2 they are looked up in the *token* table:

# %%
typed = model(ids, token_type_ids=torch.ones_like(ids)).logits
added = model(inputs_embeds=model.transformer.wte(ids) + weights["wte.weight"][1]).logits
torch.testing.assert_close(typed, added, atol=1e-4, rtol=0)
tokenizer.decode(0), tokenizer.decode(1)

# %% [markdown]
# So "sentence B" means: add the vector of a quotation mark to every token. GPT-2 was not trained with anything like
# that. Leave the argument out.

# %% [markdown]
# ## 6. A second head
#
# A head is the part that reads the last hidden states. `GPT2DoubleHeadsModel` has two: one for logits, and one that
# gives each of several texts a number, to choose among them.

# %%
from transformers import GPT2DoubleHeadsModel

torch.manual_seed(0)
double = GPT2DoubleHeadsModel(copy.deepcopy(model.config)).to(model.device).eval()
print("more parameters:", double.num_parameters() - model.num_parameters())
choices = tokenizer(["My dog is very happy", "My dog is Paris"], padding=True, return_tensors="pt")
choices = choices.input_ids.to(model.device)  # (choice, length)
shapes({name: value for name, value in double(choices[None]).items() if name != "cache"})

# %% [markdown]
# 65 parameters: a dot product with the hidden state of one token, 64 numbers, and a bias. The ids are (batch, choice,
# length). The library's documentation describes this output as "predicting if two sentences are consecutive". It is
# not; and these 65 numbers are random until someone trains them.

# %% [markdown]
# Which index is read? Without `mc_token_ids` it is the last one, as if there were no padding. In the second text it
# holds a padding token:

# %%
assert choices[1, -1] == tokenizer.pad_token_id
last_hidden = double.transformer(choices).last_hidden_state[:, -1]  # (choice, width)
by_hand = double.multiple_choice_head.summary(last_hidden).T  # (batch, choice)
torch.testing.assert_close(by_hand, double(choices[None]).mc_logits, atol=1e-5, rtol=0)

# %% [markdown]
# ## Recap
#
# - **Parameters:** two tables, blocks, a norm. A tied head adds none.
# - **The pass:** embeddings, then blocks that each add the results of attention and the MLP to the stream, final
#   norm, head.
# - **The output:** logits at every index; hidden states, layers + 1, the last one after the final norm; attentions
#   with eager only. A bare forward pass silently ignores unknown arguments.
# - **The cache:** keys and values of each layer, final once computed. With it, a pass gets the new ids, the mask of
#   the *whole* text and positions that continue. The cache object itself grows, and `crop(-n)` undoes that.
# - **Vectors:** `inputs_embeds` takes any vectors, including those of no token.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# The lines of this lesson in the installed library:

# %%
import inspect

from transformers import cache_utils
from transformers.models.gpt2 import modeling_gpt2

for function in (
    modeling_gpt2.GPT2Model.forward,
    modeling_gpt2.GPT2Block.forward,
    modeling_gpt2.GPT2Attention.forward,
    cache_utils.DynamicLayer.update,
    cache_utils.DynamicLayer.crop,
):
    _, line = inspect.getsourcelines(inspect.unwrap(function))
    print(f"{function.__module__}, line {line}: {function.__qualname__}")

# %% [markdown]
# The last two are a few lines each. In the first three you will find the lines that you have written, among options
# that this lesson left out.
#
# Next, [lesson 05](05_generate.ipynb): the loop around this pass, `generate()`, step by step.
