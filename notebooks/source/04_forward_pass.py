# %% [markdown]
# # What does one forward pass return?
#
# **By the end you will have written GPT-2's forward pass from its weights, and its logits will equal the library's to
# five decimals: in one pass or one token at a time, with or without a cache.**
#
# You will be able to
#
# - count a model's parameters from its configuration, term by term,
# - write attention, and join embeddings, blocks, final norm and head to a forward pass,
# - name each field of the output and its shape, and say which token each row of logits is about,
# - decode with a cache, keep it for a second turn, crop it, and say what it holds and what it costs,
# - give a model vectors instead of ids.
#
# *75 minutes, and another 55 for the exercises. You need: lesson 03.*

# %% [markdown]
# ## 1. From a configuration to a number
#
# A model consists of a **configuration**, which says how large everything is, and the weights that this requires.
# `GPT2Config()`, without arguments, is GPT-2's own configuration:

# %%
import copy

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from course_utils import load, needs_transformers
from course_utils.lessons import lesson04 as lesson
from course_utils.plots import arrows, grid, grouped_bars, lines
from course_utils.widgets import CacheGrowth, Predict, Quiz

needs_transformers("5.24")  # the first release that calls the cache `cache`
torch.set_grad_enabled(False)  # nothing is trained in this lesson
gpt2 = GPT2Config()
{name: getattr(gpt2, name) for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")}

# %% [markdown]
# `n_embd` is the **width**: every vector that passes through GPT-2 has 768 numbers. The vectors of a text, one a
# token, go through 12 **blocks**, also called layers. This is one block:
#
# ![One block: the stream of vectors runs through; copies of it go through attention and the MLP, and their results are added](images/block.svg)

# %% [markdown]
# Each box of the picture has weights. We build the model on PyTorch's **meta device**, which keeps shapes but no
# numbers, and list those of the first block:

# %%
with torch.device("meta"):
    empty = GPT2LMHeadModel(gpt2)
for name, weight in empty.transformer.h[0].named_parameters():
    print(f"{name:20} {tuple(weight.shape)}")

# %% [markdown]
# `ln_1` and `ln_2` are the layer norms. `c_attn` computes query, key and value, side by side; `attn.c_proj` combines
# the heads' results. The **MLP** (multi-layer perceptron) widens each vector to four times 768 numbers, which is what
# `n_inner=None` means, and narrows it again.
#
# Before the blocks come two tables: a vector for each token, `wte`, and one for each position, `wpe`. After them come
# a final norm, `ln_f`, and the **head**, a matrix of 50257 × 768 that turns a vector into logits. (It has nothing to
# do with the attention heads.)

# %%
Predict(lesson.predict_head)

# %% tags=["answer"]
print("parameters of the model, less those of everything before the head:")
print(empty.num_parameters() - empty.transformer.num_parameters())
print("one matrix:", empty.lm_head.weight is empty.transformer.wte.weight)

# %% [markdown]
# It adds none. The head *is* the token table: the two are **tied**, and `num_parameters` counts a shared matrix once. So the logit of a token is the dot product of the last
# hidden state and that token's own vector.
#
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
assert sum(terms.values()) == empty.num_parameters() == 124_439_808
bars = {name: {"parameters": round(count / 1e6, 2)} for name, count in terms.items()}
grouped_bars(bars, f"GPT-2's {sum(terms.values()):,} parameters", "millions")

# %% [markdown]
# That is the "124M" in GPT-2's name. Nearly a third of it is the token table. In the blocks, two of every three
# weights belong to the MLP, and the norms can hardly be seen.

# %% [markdown]
# ### Exercise 1: Count the parameters of a Llama · difficulty 2 of 3 · 8 minutes
#
# SmolLM2 is built like Llama. Compute the sum for any `LlamaConfig` without biases. A norm has only a scale;
# `rotary_emb` has no weights. A printed model shows its parts and their sizes, and these are the names in the
# configuration:

# %%
smollm2, smollm2_tokenizer = load("smollm2-135m")
print(smollm2)
llama_names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
llama_names += ["num_key_value_heads", "head_dim", "tie_word_embeddings"]
assert smollm2.num_parameters() == 134_515_008
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
# Four things differ from GPT-2. There is no position table, since queries and keys are rotated instead (lesson 03).
# Keys and values have fewer heads than queries, 3 instead of 9, so their matrices are a third as large. The MLP has
# three matrices instead of two. And there are no biases or shifts.

# %% tags=["check"]
lesson.check_llama_parameters(llama_parameters)

# %% [markdown] tags=["hints"]
# - Go through the printed model from top to bottom. `(0-29): 30 x` says that there are 30 such layers.
# - `q_proj` and `o_proj` connect `hidden_size` and `num_attention_heads * head_dim`. `k_proj` and `v_proj` have
#   `num_key_value_heads` instead.
# - Each layer has two norms, and one more comes after the last layer. Is the head a separate matrix?

# %% [markdown]
# ## 2. From ids to logits
#
# Now you write the pass. Our GPT-2 is `tiny-gpt2`: the real architecture with 4 layers of width 64, the real
# vocabulary, random weights. GPT-2's own weights are available only from the Hub; the computation is the same.
#
# There is one catch. In a new model each scale is 1, and each shift and bias is 0. A pass that left out all of them
# would pass every test. **A test covers a term only if that term affects the result**, so we give them other values:

# %%
model, tokenizer = load("tiny-gpt2")
vectors = [weight for weight in model.parameters() if weight.ndim == 1]  # scales, shifts, biases
print("scales, shifts and biases of a new model:", torch.cat(vectors).unique().tolist())
torch.manual_seed(0)
for vector in vectors:
    vector += 0.1 * torch.randn_like(vector)
weights = {name.removeprefix("transformer."): weight for name, weight in model.state_dict().items()}
list(weights)[:6]

# %% [markdown]
# **Embeddings.** For each id a row of the token table, plus a row of the position table for its position. Position
# ids and masks are those of lessons 02 and 03. (`-input_ids.shape[1]` takes the last positions. So far these are all
# of them; section 4 needs fewer.)

# %%
from course_utils.masks import additive_mask, joined_mask, pad_sentences, position_ids


def embed(weights, input_ids, attention_mask):
    positions = position_ids(attention_mask)[:, -input_ids.shape[1] :]
    return weights["wte.weight"][input_ids] + weights["wpe.weight"][positions]


text = "The capital of France is Paris."
ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)  # (batch, length)
x = embed(weights, ids, torch.ones_like(ids))  # a mask of ones: no padding
x.shape  # (batch, length, width)

# %% [markdown]
# **Norm.** Each vector is shifted to mean 0 and divided by its standard deviation. Then come the scale and the shift.
# The 10⁻⁵ prevents a division by 0 for a vector of equal numbers. (GPT-2 stores its matrices as (in, out), so `linear`
# needs no transpose. `nn.Linear`, and so Llama and every head, stores them as (out, in).)

# %%
def norm(x, weights, name):
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

# %% [markdown]
# **Query, key and value** of all heads come out of one matrix, `c_attn`. Each token gets 3 × 64 numbers, and our 4
# heads have 16 of each 64:

# %%
size = model.config.n_embd // model.config.n_head
starts = range(0, 3 * model.config.n_embd, size)
kinds = [kind for kind in ("query", "key", "value") for _ in range(model.config.n_head)]
cells = [(f"{start}-{start + size - 1}", kind) for start, kind in zip(starts, kinds)]
heads = [f"head {head}" for head in range(model.config.n_head)]
rows = [cells[at : at + 4] for at in (0, 4, 8)]
grid(rows, "One token's 192 numbers after c_attn", ["query", "key", "value"], columns=heads)

# %% [markdown]
# In code: `chunk(3)` cuts the rows of this picture apart, `unflatten` the columns. `transpose` moves the heads to the
# front, so that each head is a matrix product of its own. (`cache` is None until section 4.)

# %%
def split_heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)  # (batch, head, length, size)


def project(x, weights, name, heads, cache=None):
    parts = linear(x, weights, f"{name}.c_attn").chunk(3, dim=-1)  # each (batch, length, width)
    query, key, value = (split_heads(part, heads) for part in parts)
    if cache is not None:
        key, value = cache.update(name, key, value)
    return query, key, value  # each (batch, head, length, size)


[tuple(part.shape) for part in project(x, weights, "h.0.attn", 4)]

# %% [markdown]
# ### Exercise 2: Write attention over all heads · difficulty 2 of 3 · 10 minutes
#
# From here on it is lesson 03's attention, for all heads at once: attention scores, divided by the square root of one
# head's size; plus `mask`; softmax; times the values. Then the heads are put side by side again, and one more matrix,
# `c_proj`, mixes them. Call `project`, and hand on `cache` to it. (To try it out,
# `additive_mask(joined_mask(torch.ones_like(ids)))` is a mask for our seven ids.)

# %% tags=["exercise"]
def attention(x, weights, name: str, heads: int, mask, cache=None) -> torch.Tensor:
    """Return what attention adds to the stream, (batch, length, width).

    x:    the normed stream, (batch, length, width)
    name: "h.0.attn" for block 0
    mask: is added to the attention scores, (batch, 1, query, key)
    """
    raise NotImplementedError

# %% tags=["solution"]
def attention(x, weights, name: str, heads: int, mask, cache=None) -> torch.Tensor:
    """Return what attention adds to the stream, (batch, length, width).

    x:    the normed stream, (batch, length, width)
    name: "h.0.attn" for block 0
    mask: is added to the attention scores, (batch, 1, query, key)
    """
    query, key, value = project(x, weights, name, heads, cache)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask  # (batch, head, query, key)
    mixed = scores.softmax(-1) @ value  # (batch, head, query, size)
    return linear(mixed.transpose(1, 2).flatten(2), weights, f"{name}.c_proj")

# %% [markdown] tags=["solution"]
# `transpose(1, 2).flatten(2)` undoes `split_heads`: first the heads move back next to the size, then the two become
# one. Without `transpose`, `reshape` to the same shape would run too, and mix numbers of different tokens.

# %% tags=["check"]
lesson.check_attention(attention)

# %% [markdown] tags=["hints"]
# - `query @ key.transpose(-1, -2)` is (batch, head, query, key). The size of a head is `query.shape[-1]`.
# - `mask` has 1 where the heads are, so it can be added as it is.
# - Undo `split_heads` in reverse order: `.transpose(1, 2)`, then `.flatten(2)`. Then `linear` with `c_proj`.

# %% [markdown]
# **MLP.** Each token's vector goes up to four times the width, through a nonlinear function, and down again. The
# function is `gelu_new`, GELU approximated with tanh. Without it, the two matrices could be replaced by one.
#
# (From here on, attention is yours if it passes its check, and the course's own until then. Run the cell again when
# yours passes.)

# %%
from torch.nn.functional import gelu

attention = lesson.usable_attention(attention)


def mlp(x, weights, name):
    wide = gelu(linear(x, weights, f"{name}.c_fc"), approximate="tanh")  # (batch, length, 4 * width)
    return linear(wide, weights, f"{name}.c_proj")

# %% [markdown]
# ### Exercise 3: Join the parts to a forward pass · difficulty 2 of 3 · 10 minutes
#
# Look at the picture of a block again. A block never replaces its input: it *adds* the result of attention, and then
# that of the MLP. This sum, which passes through all blocks, is the **residual stream**. Each part reads a normed copy
# of it. After the last block come the final norm `ln_f` and the head, the token table turned over.
#
# The mask is given, (batch, 1, query, key): its rows are the tokens in `input_ids`, its columns the whole text. The
# weights of the first block begin with `h.0`, those of the last with `h.3`.

# %% tags=["exercise"]
def forward(weights, config, input_ids, attention_mask, cache=None) -> torch.Tensor:
    """Return the logits, (batch, length, vocab). Hand on `cache` to attention."""
    mask = additive_mask(joined_mask(attention_mask, queries=input_ids.shape[1]))
    raise NotImplementedError

# %% tags=["solution"]
def forward(weights, config, input_ids, attention_mask, cache=None) -> torch.Tensor:
    """Return the logits, (batch, length, vocab). Hand on `cache` to attention."""
    mask = additive_mask(joined_mask(attention_mask, queries=input_ids.shape[1]))
    x = embed(weights, input_ids, attention_mask)
    for layer in range(config.n_layer):
        name = f"h.{layer}"
        normed = norm(x, weights, f"{name}.ln_1")
        x = x + attention(normed, weights, f"{name}.attn", config.n_head, mask, cache)
        x = x + mlp(norm(x, weights, f"{name}.ln_2"), weights, f"{name}.mlp")
    return norm(x, weights, "ln_f") @ weights["wte.weight"].T  # (batch, length, vocab)

# %% [markdown] tags=["solution"]
# The normed copy is used once and thrown away; what runs on is `x`. That is why the stream can carry a token's own
# vector through all blocks, and why a gradient has a short way back.

# %% tags=["check"]
lesson.check_forward(forward)

# %% [markdown] tags=["hints"]
# - The stream begins with `embed(weights, input_ids, attention_mask)`. Then a loop over `range(config.n_layer)`.
# - In block `layer` the names are `f"h.{layer}.ln_1"`, `f"h.{layer}.attn"`, `f"h.{layer}.ln_2"`, `f"h.{layer}.mlp"`.
# - `x = x + attention(norm(x, …), …)`, then `x = x + mlp(norm(x, …), …)`. The head is `weights["wte.weight"].T`.

# %% [markdown]
# We compare one text, and lesson 02's left-padded batch, with the library. The logits of padding are undefined, so we
# compare only those of the other tokens:

# %%
forward = lesson.usable_forward(forward, attention)
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


inputs = tokenizer(text, return_tensors="pt").to(model.device)
print(list(model(**inputs)))
out = model(**inputs, output_hidden_states=True, output_attentions=True)
shapes({name: value for name, value in out.items() if name != "cache"})

# %% [markdown]
# ### Which token is a row of logits about?
#
# **`logits`** is (batch, length, vocabulary): a row of logits for *every* token of the text, in one pass. The row at
# index t is not about the token at t, which has just been read. It is about the one that comes after it:

# %%
smollm2_ids = smollm2_tokenizer(text, return_tensors="pt").input_ids.to(smollm2.device)
tokens = [repr(smollm2_tokenizer.decode(id)) for id in smollm2_ids[0]]
pairs = [(t, t + 1) for t in range(len(tokens) - 1)]
told = {"token read": tokens, "predicted": tokens}
arrows(told, pairs, "The logits at index t are about the token at t + 1")

# %% [markdown]
# Two rows need a remark. No row is about the first token, since nothing was read before it. And the last row is about a
# token that is not there yet: from this row `generate()` takes the next one.
#
# So logits and ids are paired with a **shift** of one index: `logits[:, :-1]` with `ids[:, 1:]`. Beside the right
# pairs we print the wrong ones, each row at its own token. Nothing fails there; the numbers are only meaningless. (After
# `The` alone hardly anything can be known, so the first right number is small, too.)

# %%
probs = smollm2(smollm2_ids).logits[0].softmax(-1)  # (length, vocab)
print("read       next        P(next)   P(read) at the same index")
for t, after in pairs:
    right, wrong = probs[t, smollm2_ids[0, after]], probs[t, smollm2_ids[0, t]]
    print(f"{tokens[t]:10} {tokens[after]:10} {right:8.4f}  {wrong:8.4f}")

# %% [markdown]
# **`loss`** is returned if you pass labels. The labels are the ids themselves, not shifted: the model shifts them. If
# you do it too, you train on the token after the next.

# %%
labelled = smollm2(smollm2_ids, labels=smollm2_ids)
by_hand = torch.nn.functional.cross_entropy(labelled.logits[0, :-1], smollm2_ids[0, 1:])
torch.testing.assert_close(labelled.loss, by_hand)
last_row = smollm2(smollm2_ids, logits_to_keep=1).logits  # enough to write the next token
print(list(labelled), "logits_to_keep=1:", tuple(last_row.shape))

# %% [markdown]
# ### Hidden states
#
# **`hidden_states`** are copies of the stream, taken between the blocks: one more entry than there are layers, each (batch,
# length, width). The first is the sum of the two embeddings, the input of the first block. And the last?

# %%
Predict(lesson.predict_last_hidden)

# %% tags=["answer"]
print("the last hidden states times the head's matrix, compared with the logits:")
by_hand = out.hidden_states[-1] @ weights["wte.weight"].T
print("equal" if torch.allclose(by_hand, out.logits, atol=1e-5) else "different")

# %% [markdown]
# The last entry is taken *after* the final norm. None of the entries is the output of the last block:
#
# ![Where each hidden state is taken: the first before block 1, one between each two blocks, the last after the final norm](images/hidden_states.svg)
#
# A hook, a function that PyTorch calls with a module's result, shows what the last block returns. A common mistake is to norm the last entry once more. `last_hidden_state`,
# which a model without a head returns, is the same entry.

# %%
returned = []
with model.transformer.h[-1].register_forward_hook(lambda module, args, result: returned.append(result)):
    model(**inputs)
torch.testing.assert_close(norm(returned[0], weights, "ln_f"), out.hidden_states[-1], atol=1e-5, rtol=0)
assert torch.equal(out.hidden_states[0], embed(weights, ids, torch.ones_like(ids)))
assert torch.equal(model.transformer(**inputs).last_hidden_state, out.hidden_states[-1])
twice = norm(out.hidden_states[-1], weights, "ln_f") @ weights["wte.weight"].T
print("normed twice, the same logits:", torch.allclose(twice, out.logits, atol=1e-5))

# %% [markdown]
# Since every entry has the width that the head expects, we can ask after each block: what would the model predict if
# it ended here? This is the **logit lens**: final norm and head on each hidden state.

# %%
def lens(ids):
    states = smollm2(ids, output_hidden_states=True).hidden_states
    tapped = torch.cat([state[:, -1] for state in states])  # (layers + 1, width)
    tapped[:-1] = smollm2.model.norm(tapped[:-1])  # the last entry is normed already
    return smollm2.lm_head(tapped).log_softmax(-1)  # (layers + 1, vocab)


france, germany = (
    smollm2_tokenizer(f"The capital of {name} is", return_tensors="pt").input_ids.to(smollm2.device)
    for name in ("France", "Germany")
)
paris, berlin = (smollm2_tokenizer(name).input_ids[0] for name in (" Paris", " Berlin"))
for passed in (4, 8, 12, 16, 20, 24, 27, 28, 29, 30):
    at = lens(france)[passed]
    likely = smollm2_tokenizer.decode(at.argmax())
    print(f"{passed} blocks  P(Paris) {at[paris].exp():.4f}  most likely {likely!r}")

# %% [markdown]
# For most of the way the head's first choice is a full stop or a space. But it also ranks the two cities. We draw log
# P(Paris) − log P(Berlin), which is above 0 where Paris is ahead, and the same for Germany:

# %%
curves = {}
for name, ids_of_name in (("The capital of France is", france), ("The capital of Germany is", germany)):
    after = lens(ids_of_name)
    curves[name] = (after[:, paris] - after[:, berlin]).tolist()
parted = next(passed for passed, (one, other) in enumerate(zip(*curves.values())) if abs(one - other) > 1)
print("The curves part in block", parted)
lines(range(31), curves, "Paris against Berlin", "blocks passed", "log P(Paris) − log P(Berlin)")

# %% [markdown]
# Before that the curves are nearly one: Paris is ahead for Germany, too. Within a single block the country reaches the
# last token, and the curves part by more than 1. (Berlin takes the lead for good a few blocks later.) So Paris being ahead proves nothing by itself; the comparison shows what the prompt
# did.
#
# And what the lens shows is how the stream looks *to the head*, which was trained on the last entry only. Earlier
# blocks may know the answer in a form that the head cannot read.

# %% [markdown]
# ### Attentions, and two traps
#
# **`attentions`** was empty above, without a warning. SDPA never stores the weights, as lesson 03 showed. Eager does:

# %%
model.set_attn_implementation("eager")
shapes({"attentions": model(**inputs, output_attentions=True).attentions})  # (batch, head, query, key)
model.set_attn_implementation("sdpa")

# %% [markdown]
# The second trap is a misspelled argument. A bare forward pass hands on unknown arguments from function to function,
# and in the end nobody uses them: no error, no message, no mask. `generate()` is stricter. (Arguments that older
# versions had are ignored in the same way. [Appendix A](appendix_version_map.ipynb) has them.)

# %%
hiding = torch.ones_like(ids)
hiding[0, 1] = 0
for name in ("atention_mask", "attention_mask"):
    print(f"{name}, the same logits as without:", torch.equal(model(ids, **{name: hiding}).logits, out.logits))
try:
    model.generate(ids, atention_mask=hiding)
except ValueError as error:
    print("generate(): ValueError:", error)

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
# None of them changes, in any layer. A token in a decoder sees itself and the tokens before it. Later tokens cannot affect
# it, so its keys and values are final once they are computed: a **cache** may keep them. Queries are not kept. A
# token needs its query only once, in the pass in which it is new.

# %% [markdown]
# The output's field `cache` holds them, and you pass it on as the argument of the same name. For each layer it has
# two tensors. (Up to transformers 5.23 field and argument were called `past_key_values`, and nearly every tutorial
# uses that name. It still works, with a warning.)

# %%
cache = out.cache
print(type(cache).__name__, "with", len(cache.layers), "layers, length", cache.get_seq_length())
cache.layers[0].keys.shape, cache.layers[0].values.shape  # each (batch, head, length, size)

# %% [markdown]
# Our own pass needs only the thing that `project` calls: `update` appends the new keys and values to those of its
# layer, and returns all of them. The library's cache has a method of the same name.

# %%
class Cache:
    def __init__(self):
        self.kept = {}

    def update(self, name, key, value):
        if name in self.kept:
            key, value = (torch.cat(pair, dim=2) for pair in zip(self.kept[name], (key, value)))
        self.kept[name] = key, value
        return key, value  # each (batch, head, length so far, size)

# %% [markdown]
# With a cache, `input_ids` has only the **new** ids. `attention_mask` still covers the whole text, including the
# cached tokens. The new tokens are the last ones, and so are their positions and their rows of the mask. We read a
# prompt of four tokens, and then three more. In each pass only the cells with a q are computed:

# %%
growing, rows = Cache(), []
for start, end in ((0, 4), (4, 5), (5, 6), (6, 7)):
    forward(weights, model.config, ids[:, start:end], torch.ones_like(ids[:, :end]), growing)
    held = growing.kept["h.0.attn"][0].shape[2]
    old, new, later = [("k v", "from the cache")], [("q k v", "new")], [("", "")]
    rows.append(start * old + (held - start) * new + (7 - held) * later)
names = [repr(tokenizer.decode(id)) for id in ids[0]]
kinds, passes = ["", "new", "from the cache"], [f"pass {number}" for number in range(1, 5)]
grid(rows, "What each pass computes, and what it finds in the cache", kinds, passes, names)

# %% [markdown]
# We run the text in four ways: all tokens in one pass or one by one, with or without a cache. One by one without a
# cache, each pass reads the whole text so far. One function runs our pass and the library's:

# %%
def our_pass(ids, mask, cache):
    return forward(weights, model.config, ids, mask, cache)


def library_pass(ids, mask, cache):
    return model(ids, attention_mask=mask, cache=cache, use_cache=cache is not None).logits


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
    ours = run(our_pass, at_once, Cache() if cached else None)
    theirs = run(library_pass, at_once, DynamicCache(config=model.config) if cached else None)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, out.logits, atol=1e-5, rtol=0)  # and all four ways with each other
    ways = f"{'at once' if at_once else 'one by one'}, {'with' if cached else 'without'} a cache:"
    print(f"{ways:28} {ours.numel():,} logits equal to 1e-5")

# %% [markdown]
# The remaining difference is rounding: numbers are added in a different order. In float64 the two agree to nine
# decimals. With `COURSE_MODEL=gpt2`, GPT-2's own weights go through the same test.

# %%
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
# ### Exercise 4: Decode with a cache · difficulty 2 of 3 · 6 minutes
#
# Continue one prompt greedily with the library's model: always take the most likely token. The first pass reads the
# prompt, and its last row of logits already gives the first new token. Each later pass reads one id. Do not call
# `generate()`.

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
# ### The same, but not equal
#
# `generate()` keeps a cache unless you tell it not to. Here, in float32, it writes the same text either way. bfloat16
# keeps two or three digits. There a cached pass and a fresh one differ visibly, and where two tokens are nearly equally
# likely, the text may turn another way. We print the largest difference beside the largest logit:

# %% tags=["nbval-ignore-output"]
coarse = copy.deepcopy(smollm2).to(torch.bfloat16)
dog = smollm2_tokenizer("My dog is", return_tensors="pt").to(smollm2.device)
for name, one in (("float32", smollm2), ("bfloat16", coarse)):
    greedy = {"max_new_tokens": 18, "do_sample": False}
    texts = [one.generate(**dog, **greedy, use_cache=kept)[0] for kept in (True, False)]
    kept = DynamicCache(config=one.config)
    stepwise = torch.cat([one(id[None, None], cache=kept).logits[0] for id in texts[0]])  # (length, vocab)
    fresh = one(texts[0][None]).logits[0]
    gap = (stepwise - fresh).abs().max().item()
    assert name == "bfloat16" or torch.equal(*texts) and gap < 1e-3
    print(f"{name:8} logits up to {fresh.abs().max():.0f} differ by {gap:.5f}")
    print(*map(repr, smollm2_tokenizer.batch_decode(texts)), sep="\n")

# %% [markdown]
# If the two differ on your machine, neither is wrong: both passes compute the same function, and both round. To tell such a difference from a bug,
# run both in float64: rounding all but vanishes there, and a bug stays.

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
# `copy.deepcopy(cache)` (under `no_grad`: PyTorch copies no tensors that carry a gradient), or a way to undo the pass. `crop(-n)` cuts off the last
# `n` tokens; the keys and values that stay were final anyway:

# %%
cache.crop(-1)
again = model(ids[:, :1], cache=cache).logits
torch.testing.assert_close(again, second, atol=1e-5, rtol=0)
cache.get_seq_length() - ids.shape[1]

# %% [markdown]
# ### A second turn
#
# `generate()` returns its cache on request. It is one token shorter than the text: no pass has read the token that was
# chosen last.

# %%
options = {"max_new_tokens": 6, "do_sample": False}
mask = torch.ones_like(france)
written = smollm2.generate(france, attention_mask=mask, return_dict_in_generate=True, **options)
print(repr(smollm2_tokenizer.decode(written.sequences[0])))
print(written.sequences.shape[1], "ids, cached:", written.cache.get_seq_length())

# %% [markdown]
# A cache can outlive its call: give it to the next `generate()`, with the ids of the *whole* text. `generate()` reads
# only what the cache does not hold, and lengthens it, so we hand over a copy. We count the ids that its first pass reads:

# %%
more = smollm2_tokenizer("\nThe capital of Germany is", return_tensors="pt").input_ids.to(smollm2.device)
whole = torch.cat([written.sequences, more], dim=1)
told, read = {"attention_mask": torch.ones_like(whole), **options}, []
watch = lambda module, args, given: read.append(given["input_ids"].shape[1])
for name, kept in (("no cache", None), ("the cache", copy.deepcopy(written.cache))):
    with smollm2.model.register_forward_pre_hook(watch, with_kwargs=True):
        replied = smollm2.generate(whole, cache=kept, **told)
    reply = smollm2_tokenizer.decode(replied[0, -6:])
    print(f"{name:9}: the first pass reads {read[-6]:2} of {whole.shape[1]} ids. The reply: {reply!r}")

# %% [markdown]
# The same reply from 7 ids instead of 17: the 6 of the new question, and the one that no pass had read. But nobody compares the cache with the text. If the text has changed since
# (edited, shortened, tokenized anew), the cache still holds the old one. Here the ids ask for Germany, and all but
# the last are taken from a cache of France:

# %%
stale = smollm2(france).cache
stale.crop(-1)
answer = smollm2.generate(germany, attention_mask=mask, cache=stale, **options)
print(repr(smollm2_tokenizer.decode(answer[0])))

# %% [markdown]
# No error, and the wrong capital. **Keep the ids beside the cache: the new text must begin with exactly those.** Where
# it does not, crop the cache to the common beginning, and leave at least one id to read.

# %% [markdown]
# ### Exercise 5: Compute the log probabilities of several endings · difficulty 2 of 3 · 12 minutes
#
# Which ending does the model find most likely? A token's **log probability** is `log_softmax` of the row of logits
# that is about it, taken at its id. The log probability of an ending is the sum over its tokens. Read the prompt in
# one pass only, and mind the shift: the row about an ending's first token comes from the prompt's pass.

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
        predicting = torch.cat([after_prompt, logits[:, :-1]], dim=1)  # row t is about the ending's token t
        log_probs = predicting.log_softmax(-1).gather(-1, ids[..., None])
        scores.append(log_probs.sum().item())
    return scores

# %% [markdown] tags=["solution"]
# The logits at the prompt's last token are about an ending's first token, and those at an ending's last token are not
# needed. So logits and ids are one index apart, as in every loss of a language model. Without `crop`, each ending
# would be read as a continuation of the one before. (`gather` takes from each row the entry at that row's id.)

# %% tags=["check"]
lesson.check_score_endings(score_endings)

# %% [markdown] tags=["hints"]
# - One pass over the prompt gives two things: the cache, and the logits about each ending's first token.
# - Then one pass for each ending, with that cache. Crop the cache before the next one: `cache.crop(-len(ending))`.
# - The logits at index t of the ending are about its token t + 1. Put the prompt's last logits first, and leave out
#   the ending's last.

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
# ### Exercise 6: Find two bugs in a loop with a cache · difficulty 3 of 3 · 8 minutes
#
# Print what the model is given in the second pass. Compare it with the picture of the growing cache at the start of
# this section: the new tokens are the last of the text, so they get the last positions and the last rows of the mask.
# Then write the loop so that every row is right, with all rows in one pass.

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
# Why did the loop cause no error? We look at the mask that reaches the first attention layer in the second pass. The
# library has filled up the missing column with zeros. The last column is that of the new token: it may not even attend
# to itself.

# %%
seen = []
watch = lambda module, args, given: seen.append(given["attention_mask"])
with model.transformer.h[0].attn.register_forward_pre_hook(watch, with_kwargs=True):
    broken(model, **batch, steps=2)
seen[1][:, 0, 0].int().cpu()  # (batch, key): row by row, what the new token may look at

# %% [markdown]
# ### What it costs
#
# A cache holds keys and values for each token in each layer. GPT-2 has 12 layers of 12 heads. SmolLM2 has 30 layers,
# with 3 heads of keys and values (exercise 1). In both models a head is 64 numbers wide, and a number takes 4 bytes.

# %%
Predict(lesson.predict_cost)

# %% tags=["answer"]
def bytes_a_token(config):
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * 4  # 2: keys and values; 4: float32


print("bytes for each token:")
print(f"GPT-2 {bytes_a_token(gpt2):,}, SmolLM2 {bytes_a_token(smollm2.config):,}")

# %% [markdown]
# SmolLM2's 9 query heads share 3 heads of keys and values. This is **grouped-query attention**, and it makes the
# cache three times smaller. So SmolLM2's 30 layers need less than GPT-2's 12. The tensors confirm it. At the full
# length of 8,192 positions, the cache of a single text is more than two thirds of the size of the model:

# %%
cache = smollm2(smollm2_ids).cache
held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
assert held == smollm2_ids.shape[1] * bytes_a_token(smollm2.config)
print("keys", tuple(cache.layers[0].keys.shape), "and", f"{held:,} bytes for {smollm2_ids.shape[1]} tokens")
full, model_bytes = 8192 * bytes_a_token(smollm2.config), 4 * smollm2.num_parameters()
print(f"cache of one full text: {full / 1e6:.0f} MB, weights: {model_bytes / 1e6:.0f} MB")
print("ids read to write 256 tokens: without a cache", sum(range(1, 257)), "  with a cache", 256)

# %% [markdown]
# So much for counting. We also measure on this machine: the time for one more token, with and without a cache, and
# the memory. Which of these three grow with the text, and which hardly do? Choose a longer text and measure again.

# %% tags=["nbval-ignore-output"]
growth = CacheGrowth(smollm2, smollm2_tokenizer)
growth.measure(64)
growth

# %% [markdown]
# With a cache a token takes about the same time wherever it stands in so short a text. Without one, the time grows with
# the text, as everything is read again. The price is the memory, which grows by the bytes that we counted.

# %% [markdown]
# ## 5. Vectors instead of ids
#
# Ids serve one purpose: to look up vectors. If you have the vectors, you can pass them as `inputs_embeds` instead. A
# vector does not have to belong to a token. Between France and Germany there is no word, but there is a point:

# %%
table = smollm2.get_input_embeddings()  # a look-up: ids in, vectors out
assert torch.equal(smollm2(inputs_embeds=table(france)).logits, smollm2(france).logits)
for share in (0, 0.25, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 1):
    mixed = (1 - share) * table(france) + share * table(germany)  # (batch, length, width)
    probs = smollm2(inputs_embeds=mixed).logits[0, -1].softmax(-1)
    print(f"{share:4.0%} Germany: P(Paris) {probs[paris]:.2f}  P(Berlin) {probs[berlin]:.2f}")

# %% [markdown]
# The answer changes with the vector, fast but without a jump. Ids cannot be mixed: the id halfway between the two belongs to a
# third token, which is unrelated to either. Lessons 08 and 09 build on this difference.
#
# `generate()` also takes vectors. It then does not have any prompt ids to return, and returns only the new ones:

# %%
one, other = france[0, 3].item(), germany[0, 3].item()
print([(id, smollm2_tokenizer.decode(id)) for id in (one, (one + other) // 2, other)])
mask = torch.ones_like(germany)
new = smollm2.generate(inputs_embeds=table(germany), attention_mask=mask, max_new_tokens=3, do_sample=False)
print(germany[0].tolist(), tuple(new.shape), repr(smollm2_tokenizer.decode(new[0])))

# %% [markdown]
# ## Recap
#
# - **Parameters:** two tables, blocks, a norm. A tied head adds none.
# - **The pass:** embeddings, then blocks that each add the results of attention and the MLP to the stream, final
#   norm, head.
# - **The output:** a row of logits for every token, about the token after it; hidden states, layers + 1, the last one
#   after the final norm; attentions with eager only. A bare forward pass silently ignores unknown arguments.
# - **The cache:** keys and values of each layer, final once computed. With it, a pass gets the new ids, the mask of
#   the *whole* text and positions that continue. The cache object itself grows, and `crop(-n)` undoes that. For a
#   second turn the new text must begin with the cached ids.
# - **Vectors:** `inputs_embeds` takes any vectors, including those of no token.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# The lines of this lesson in the installed library. In the first three functions you will find the lines that you
# have written, among options that this lesson left out; the last two are a few lines each. What the lesson leaves
# aside (a second head, cross-attention, `token_type_ids`, `head_mask`) is in [appendix A](appendix_version_map.ipynb).
#
# Next, [lesson 05](05_generate.ipynb): the loop around this pass, `generate()`, step by step.

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
