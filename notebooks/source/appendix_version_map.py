# %% [markdown]
# # Where did that name go?
#
# **By the end you will have fixed an old snippet, with errors that raise an exception and one that does not, and you
# will have a map of older lines, each checked when this page ran.**
#
# You will be able to
#
# - look up a name, and read what happened to it,
# - run older code until it breaks, and fix it line by line,
# - tell which older lines still run but no longer do what they did,
# - say what GPT-2's less known settings, arguments and heads do.
#
# *20 minutes, no exercises. You need: lesson 05. The map and section 5 are for looking things up, not for reading
# from start to end.*

# %% [markdown]
# ## 1. One name
#
# Articles on `generate()` stay online for years. The code that they explain moves on: names change, methods
# disappear, and some arguments are still accepted but no longer do anything. `library.where` looks up one name:

# %%
from course_utils import library

library.where("greedy_search")

# %% [markdown]
# The tick says that this was just verified. The old line was run, on a small GPT-2, and raised the error shown below
# it; the new line ran. *Gone by 4.41* names the first release without it, among those we tested. *S0* is where we met
# the name:

# %%
for label, article in library.SEEN.items():
    print(f"{label:6} {article}")

# %% [markdown]
# How often does that happen? Each bar counts the entries of the map whose line changed by that release. (Only the
# releases in the picture and a few between them were tested; a change may have come a little earlier.)

# %%
from collections import Counter

from course_utils.plots import grouped_bars

counts = Counter(entry.by for entry in library.version_map().entries if entry.by)
order = sorted(counts, key=lambda release: [int(part) for part in release.split(".")])
bars = {release: {"lines": counts[release]} for release in order}
grouped_bars(bars, "Older lines that no longer do what they did, by release", "lines of the map")

# %% [markdown]
# Version 5.0 changed by far the most. You can spell the name as in the article. For a name that is not in the map, you get an error that lists the most
# similar names:

# %% tags=["raises-exception"]
library.where("model.greedy_serch()")

# %% [markdown]
# ## 2. Fixing a snippet
#
# S4 translates the library's pages of version 4.37. One example there uses beam search, which follows several texts
# at once, and then rebuilds each text's sequence score from the log probabilities of its tokens. It uses TensorFlow:

# %%
try:
    from transformers import GPT2Tokenizer, TFAutoModelForCausalLM
except ImportError as error:
    print(str(error).partition(" (")[0])  # the file's path on this machine follows

# %% [markdown]
# The last line of the error names what is missing. We look that name up:

# %%
library.where("TFAutoModelForCausalLM")

# %% [markdown]
# So we use PyTorch's class, and `"pt"` tensors instead of `"tf"`. `load()` returns a model of that class, so the rest
# of the example stays the same:

# %%
import numpy as np

from course_utils import load

model, tokenizer = load()
inputs = tokenizer(["Today is"], return_tensors="pt").to(model.device)

# %%
beams = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 5}
outputs = model.generate(**inputs, **beams, return_dict_in_generate=True, output_scores=True)
scores = model.compute_transition_scores(
    outputs.sequences, outputs.scores, outputs.beam_indices, normalize_logits=False
).cpu()
scores.shape  # (text, new token)

# %% [markdown]
# A text's sequence score is the sum of its tokens' log probabilities, divided by a power of its length. The last
# lines of the example rebuild it, and compare. The page shows `True` below them:

# %% tags=["raises-exception"]
input_length = inputs.input_ids.shape[1]
output_length = input_length + np.sum(scores.numpy() < 0, axis=1)
length_penalty = model.generation_config.length_penalty
rebuilt = np.sum(scores.numpy(), axis=1) / (output_length**length_penalty)

# %% [markdown]
# Something in the power is None. There are two names in it, and the map has both. First the one that can be None:

# %%
library.where("length_penalty")

# %% [markdown]
# Unset fields of a config used to hold defaults; now they are None until `generate()` fills them in. We use the map's
# line:

# %%
length_penalty = 1.0 if (p := model.generation_config.length_penalty) is None else p
rebuilt = np.sum(scores.numpy(), axis=1) / (output_length**length_penalty)
np.allclose(outputs.sequences_scores.cpu(), rebuilt)

# %% [markdown]
# There is no error, but no `True` either. Without the comparison we would not have noticed. Now the other name:

# %%
library.where("output_length")

# %%
output_length = (outputs.beam_indices >= 0).sum(1).cpu().numpy()
rebuilt = np.sum(scores.numpy(), axis=1) / (output_length**length_penalty)
np.allclose(outputs.sequences_scores.cpu(), rebuilt)

# %% [markdown]
# **Run it, read the last line of the error, look the name up, fix one line, run it again. And if an article prints a
# number, compare.** Lesson 07 says which length counts, and since which version; this example still used the older
# one.

# %% [markdown]
# ## 3. The silent ones
#
# These lines run without an error, but no longer do what older code meant:

# %%
import textwrap

for entry in library.version_map("changed").entries:
    if not entry.fails and not entry.source:
        print(entry.old, *textwrap.wrap(entry.note, 95), sep="\n      ")

# %% [markdown]
# Most of them have one of three reasons. A default has changed. An argument is no longer known, and is ignored
# without an error. A name now means something else.

# %% [markdown]
# ## 4. The map
#
# In the tables, `model` is a small GPT-2, `inputs` is a tokenized sentence of 4 tokens, `cache` is the model's cache
# after reading it, `past` is the same cache as the tuples of older code, and `name` is a folder with the model in
# bfloat16. There are five kinds of entries:

# %%
for kind, meaning in library.KINDS.items():
    print(f"{kind:8} {meaning}")

# %% [markdown]
# ### Decoding strategies

# %%
library.version_map(topic="decoding")

# %% [markdown]
# ### Inside the loop
#
# These lines are the library's own. They are not run but searched for in the function named below each: the old line
# must be absent, and the new one present.

# %%
library.version_map(topic="loop")

# %% [markdown]
# To read such a line in context, show the function with the line as an anchor:

# %%
library.show(
    "generation.utils.GenerationMixin._sample",
    {"next_token_scores = logits_processor(": "S1's code also calls `logits_warper` here"},
    context=2,
)

# %% [markdown]
# ### Processors, stopping criteria, scores

# %%
library.version_map(topic="processors")

# %% [markdown]
# ### Settings and loading

# %%
library.version_map(topic="settings")

# %% [markdown]
# ### The cache

# %%
library.version_map(topic="cache")

# %% [markdown]
# ### The model and its masks

# %%
library.version_map(topic="model")

# %% [markdown]
# ### Tokenizers

# %%
library.version_map(topic="tokenizer")

# %% [markdown]
# ### TensorFlow, Flax, ONNX, training

# %%
library.version_map(topic="elsewhere")

# %% [markdown]
# And all of them together:

# %%
library.version_map().summary

# %% [markdown]
# The page up to here also runs with other versions of transformers. There, an entry that does not hold has ✘ in place of ✔, and
# says what was found instead.

# %% [markdown]
# ## 5. What the lessons leave aside
#
# S3 describes more of GPT-2 than a forward pass needs. Here is the rest, on the course's tiny GPT-2: 4 layers, 4 heads,
# width 64, random weights.

# %%
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from course_utils import needs_transformers

needs_transformers("5.24")  # the first release that calls the cache `cache`
torch.set_grad_enabled(False)
small, small_tokenizer = load("tiny-gpt2")
text = "The capital of France is Paris."
ids = small_tokenizer(text, return_tensors="pt").input_ids.to(small.device)  # (batch, length)
plain = small(ids).logits

# %% [markdown]
# ### The configuration
#
# S3 prints `GPT2Config()` of 4.41.2. Every value still holds, and three lines are new. The activations that it lists
# all exist, too:

# %%
import json

from transformers.activations import ACT2FN

printed = """{"activation_function": "gelu_new", "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1,
"eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
"n_embd": 768, "n_head": 12, "n_inner": null, "n_layer": 12, "n_positions": 1024, "reorder_and_upcast_attn": false,
"resid_pdrop": 0.1, "scale_attn_by_inverse_layer_idx": false, "scale_attn_weights": true,
"summary_activation": null, "summary_first_dropout": 0.1, "summary_proj_to_labels": true,
"summary_type": "cls_index", "summary_use_proj": true, "use_cache": true, "vocab_size": 50257}"""
then, today = json.loads(printed), GPT2Config().to_dict()
assert all(today[name] == value for name, value in then.items())
assert all(name in ACT2FN for name in ("relu", "silu", "gelu", "tanh", "gelu_new"))
{name: today[name] for name in ("add_cross_attention", "pad_token_id", "tie_word_embeddings")}

# %% [markdown]
# **`n_positions`**: the position table ends there, and one token more is an error. Llama has no such table.
# `max_position_embeddings` only says how long a text it was built for; positions past it still produce output:

# %%
too_long = torch.zeros(1, 1025, dtype=torch.long)  # on the CPU: on a GPU, nothing would run after this error
try:
    load("tiny-gpt2", device="cpu")[0](too_long)
except IndexError as error:
    print("GPT-2, built for", small.config.n_positions, "positions: IndexError:", error)
llama, _ = load("tiny-llama", device="cpu")
longer = llama.model(too_long).last_hidden_state  # (batch, length, width)
print("Llama, built for", llama.config.max_position_embeddings, "positions:", tuple(longer.shape))

# %% [markdown]
# **`resid_pdrop`**: "the dropout of all fully connected layers in the embeddings, encoder and pooler". GPT-2 has
# neither encoder nor pooler. It is the dropout after the last matrix of attention and after that of the MLP:

# %%
one_block = GPT2Model(GPT2Config(n_layer=1, n_embd=64, n_head=4, resid_pdrop=0.25))
for name, module in one_block.named_modules():
    if isinstance(module, torch.nn.Dropout):
        print(f"{name:24} p = {module.p}", "  resid_pdrop" if module.p == 0.25 else "")

# %% [markdown]
# **`initializer_range`**: "the standard deviation of the truncated normal initializer". It is not truncated. A
# truncated one would end at two standard deviations:

# %%
from math import exp, pi, sqrt

from course_utils.plots import histogram

torch.manual_seed(0)
fresh = GPT2Model(GPT2Config(n_layer=4, n_embd=64, n_head=4)).h[0].attn
drawn = (fresh.c_attn.weight / GPT2Config().initializer_range).flatten()
print(f"largest of {drawn.numel():,} weights: {drawn.abs().max():.1f} standard deviations")
shape = {"bins": 60, "marks": {"-2": -2.0, "2": 2.0}, "curve": lambda x: exp(-x * x / 2) / sqrt(2 * pi)}
histogram(drawn.tolist(), "New weights of c_attn", "standard deviations", **shape)

# %% [markdown]
# And one kind of matrix has a smaller spread: each `c_proj`, which adds to the residual stream. Its standard deviation
# is divided by √(2 · layers), here √8, since that many results are added up:

# %%
spread = fresh.c_proj.weight.std() / GPT2Config().initializer_range
print(f"{spread:.3f} of the range; 1 / sqrt(8) is {1 / sqrt(8):.3f}")
assert abs(spread - 1 / sqrt(8)) < 0.02

# %% [markdown]
# **`scale_attn_weights`**: "divide attention scores by the square root of `hidden_size`". It is the square root of
# *one head's* size, here 64 / 4. **`scale_attn_by_inverse_layer_idx`** divides again, in layer `i` by `i + 1`:

# %%
print("one head's size:", 16**-0.5, " the width:", 64**-0.5, " used:", small.transformer.h[0].attn.scaling)
options = {"n_layer": 4, "n_embd": 64, "n_head": 4}
scaled = GPT2Model(GPT2Config(**options, scale_attn_by_inverse_layer_idx=True))
print("with the flag, by layer:", [round(block.attn.scaling, 4) for block in scaled.h])
assert [block.attn.scaling * (layer + 1) for layer, block in enumerate(scaled.h)] == [16**-0.5] * 4

# %% [markdown]
# **`reorder_and_upcast_attn`** computes attention in float32 within a model of fewer digits. (Both flags come from
# Stanford's models called Mistral, not from Mistral AI.) The default, SDPA, ignores it without a word:

# %%
from unittest import mock

upcast = GPT2Model(GPT2Config(**options, reorder_and_upcast_attn=True)).eval()
for kind in ("sdpa", "eager"):
    upcast.set_attn_implementation(kind)
    attention = type(upcast.h[0].attn)
    way = attention._upcast_and_reordered_attn
    with mock.patch.object(attention, way.__name__, autospec=True, side_effect=way) as calls:
        upcast(ids.cpu())
    print(f"{kind:5}: {way.__name__} ran {calls.call_count} times")

# %% [markdown]
# ### Arguments
#
# **`head_mask`** used to switch off individual heads. It is no longer known, and a bare forward pass ignores what it
# does not know. (`generate()` refuses it.)

# %%
masked = small(ids, head_mask=torch.zeros(4, 4, device=small.device)).logits
print("all heads masked, the same logits:", torch.equal(masked, plain))
try:
    small.generate(ids, head_mask=torch.zeros(4, 4))
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# **`token_type_ids`** are often explained as "0 for sentence A, 1 for sentence B". In GPT-2 they are looked up in the
# *token* table:

# %%
typed = small(ids, token_type_ids=torch.ones_like(ids)).logits
table = small.get_input_embeddings()
added = small(inputs_embeds=table(ids) + table.weight[1]).logits
torch.testing.assert_close(typed, added, atol=1e-4, rtol=0)
small_tokenizer.decode(0), small_tokenizer.decode(1)

# %% [markdown]
# So "sentence B" means: add the vector of a quotation mark to every token. GPT-2 was not trained with anything like
# that. Leave the argument out.
#
# **`past_key_values`**, the old name of `cache`, still works, with a warning:

# %%
import warnings

with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    small(ids, past_key_values=None)
print(*dict.fromkeys(str(warning.message) for warning in warned), sep="\n")

# %% [markdown]
# **`crop`** took the *length to keep*. To keep 3 of 7 tokens, older code says `crop(3)`, and today's `crop(-4)`:

# %%
cache = small(ids).cache
try:
    cache.crop(3)
except ValueError as error:
    print("ValueError:", error)
cache.crop(-4)
cache.get_seq_length()

# %% [markdown]
# In version 4 a cache could be read as a tuple of tuples. Today it has layers:

# %%
try:
    key, value = cache[0]
except TypeError as error:
    print("TypeError:", error)
print("parts of a layer when iterating:", [len(parts) for parts in cache])
cache.layers[0].keys.shape, cache.layers[0].values.shape  # each (batch, head, length, size)

# %% [markdown]
# ### What a model without a head returns
#
# S3 prints `last_hidden_state` of "Hello, my dog is cute", with `grad_fn=<ViewBackward0>`. The numbers were GPT-2's
# own; the rest is the same here:

# %%
cute = small_tokenizer("Hello, my dog is cute", return_tensors="pt").input_ids.to(small.device)
with torch.enable_grad():
    last = small.transformer(cute).last_hidden_state
print(cute[0].tolist())
print(tuple(last.shape), type(last.grad_fn).__name__)

# %% [markdown]
# ### Other parts
#
# **`cross_attentions`** belong to a decoder that also reads a second text, which an *encoder* has turned into vectors,
# as in translation. GPT-2 has none. A GPT-2 built with cross-attention shows how its 7 tokens attend to the other
# text's 3 vectors:

# %%
reader = GPT2LMHeadModel(GPT2Config(**options, add_cross_attention=True)).to(small.device).eval()
reader.set_attn_implementation("eager")
other_text = torch.randn(1, 3, 64, device=small.device)  # (batch, its length, width)
read = reader(ids, encoder_hidden_states=other_text, output_attentions=True)
for name in ("attentions", "cross_attentions"):
    print(f"{name:16} {len(read[name])} layers, each (batch, head, query, key) {tuple(read[name][0].shape)}")

# %% [markdown]
# **A second head.** `GPT2DoubleHeadsModel` has one head for logits, and one that gives each of several texts a number,
# to choose among them:

# %%
from transformers import GPT2DoubleHeadsModel

double = GPT2DoubleHeadsModel(GPT2Config(**options)).to(small.device).eval()
print("more parameters:", double.num_parameters() - GPT2LMHeadModel(GPT2Config(**options)).num_parameters())
small_tokenizer.pad_token = small_tokenizer.eos_token
choices = small_tokenizer(["My dog is very happy", "My dog is Paris"], padding=True, return_tensors="pt")
choices = choices.input_ids.to(small.device)  # (choice, length)
both = double(choices[None])
print("logits", tuple(both.logits.shape), " mc_logits", tuple(both.mc_logits.shape))

# %% [markdown]
# 65 parameters: a dot product with the hidden state of one token, 64 numbers, and a bias. The ids are (batch, choice,
# length). The library's documentation describes this output as "predicting if two sentences are consecutive". It is
# not; and these 65 numbers are random until someone trains them.
#
# Which index is read? Without `mc_token_ids` it is the last one, as if there were no padding. In the second text it
# holds a padding token:

# %%
assert choices[1, -1] == small_tokenizer.pad_token_id
last_hidden = double.transformer(choices).last_hidden_state[:, -1]  # (choice, width)
by_hand = double.multiple_choice_head.summary(last_hidden).T  # (batch, choice)
torch.testing.assert_close(by_hand, both.mc_logits, atol=1e-5, rtol=0)

# %% [markdown]
# ### TensorFlow, Flax, ONNX, AdamW
#
# S4's pages describe classes that are gone, each in its own way:

# %%
for line in (
    "from transformers import TFAutoModelForCausalLM",
    "from transformers import FlaxGenerationMixin",
    "from transformers.onnx import OnnxConfig",
    "from transformers import AdamW",
    "from transformers import GradientAccumulator",
    "from transformers import get_linear_schedule_with_warmup",
):
    try:
        exec(line)
        print(f"{line:58} still there")
    except ImportError as error:
        print(f"{line:58} {type(error).__name__}")

# %% [markdown]
# PyTorch's own AdamW takes the place of the library's. The old one had other defaults: `lr=1e-3, eps=1e-6,
# weight_decay=0.0`. Weight decay pulls every trained weight towards 0 unless you switch it off. `eps` is added to the
# gradient's size in a denominator, so it matters where gradients are small:

# %%
import inspect

defaults = inspect.signature(torch.optim.AdamW).parameters
print({name: defaults[name].default for name in ("lr", "betas", "eps", "weight_decay")})
for gradient in (1e-3, 1e-6, 1e-8):
    moved = []
    for eps in (1e-8, 1e-6):
        weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        weight.grad = torch.full_like(weight, gradient)
        torch.optim.AdamW([weight], lr=1.0, eps=eps, weight_decay=0.0).step()
        moved.append(-weight.item())
    print(f"gradient {gradient:.0e}: today {moved[0]:.2f}, with the old eps {moved[1]:.2f} learning rates")

# %% [markdown]
# A `GradientAccumulator` is not needed: PyTorch adds up gradients until they are set to 0. Four backward passes through
# a quarter of the loss give the gradient of one:

# %%
def loss():
    return torch.nn.functional.cross_entropy(small(ids).logits[0, :-1], ids[0, 1:])


with torch.enable_grad():
    (whole,) = torch.autograd.grad(loss(), table.weight)
    for _ in range(4):
        (loss() / 4).backward()
torch.testing.assert_close(table.weight.grad, whole)

# %% [markdown]
# ### `synced_gpus`
#
# Some set-ups (DeepSpeed ZeRO-3, FSDP) keep a *piece* of each weight on every GPU, and a forward pass needs all the
# pieces. So a GPU whose texts have ended must keep computing, for the others. These lines of `generate()` decide it,
# and do it:

# %%
from transformers import GenerationMixin

for function, words in (("_extract_generation_mode_kwargs", "world_size >"), ("_has_unfinished_sequences", "continue until")):
    source = inspect.getsource(getattr(GenerationMixin, function)).splitlines()
    print(*[line.strip() for line in source if words in line])
lines, first = inspect.getsourcelines(inspect.unwrap(GenerationMixin._sample))
at = next(number for number, line in enumerate(lines) if "if synced_gpus and this_peer_finished:" in line)
print(f"line {first + at}:", " ".join(line.strip() for line in lines[at : at + 2]))

# %% [markdown]
# ## Where to look next
#
# For a name that is not in the map: `MIGRATION_GUIDE_V5.md` in transformers' repository lists what version 5 changed.
# `course_utils/library/entries.py` contains the lines of the map, each with the expression that verifies its note.
