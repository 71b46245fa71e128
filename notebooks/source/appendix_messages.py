# %% [markdown]
# # What does this message mean?
#
# **By the end you will have found a message, seen it raised, and run its cure. Each message below was brought about
# when this page ran.**
#
# You will be able to
#
# - find a message, or what you see instead of one, with a search box or `library.explain`,
# - tell which messages matter, and which are harmless,
# - look up what the course's words mean, here and elsewhere,
# - say where to read on.
#
# *10 minutes to look around, no exercises. You need: lesson 02. Sections 3 to 13 are for looking things up, not for
# reading from start to end.*

# %% [markdown]
# ## 1. Find it
#
# Type a few letters, a word, or paste a message. The box works in a saved page, too.

# %%
from course_utils.widgets import FindMessage

FindMessage()

# %% [markdown]
# In a notebook of your own, `library.explain` does the same. It takes a whole traceback, a message that is cut off, or
# one of another version: numbers and names do not count, rare words count most.

# %%
from course_utils import library

library.explain("""Traceback (most recent call last):
  File "train.py", line 12, in <module>
    output = model(**batch)
IndexError: index out of range in self""")

# %% [markdown]
# Two mistakes give the same message, so there are two answers. For a message that is not in the list, it says so and
# offers the nearest entries:

# %%
library.explain("Repo id must be in the form 'repo_name' or 'namespace/repo_name'")

# %% [markdown]
# How good is it? We pasted ten messages and descriptions from public threads, none of which was used in writing the
# entries, and looked whether the right entry comes first:

# %%
from course_utils.library.messages.trial import TRIAL

first = {thread: library.explain(text).entries[0].key for thread, text, about in TRIAL}
print("found first:", sum(first[thread] == about for thread, text, about in TRIAL), "of", len(TRIAL))
for thread, text, about in TRIAL:
    if first[thread] != about:
        print(f"{thread}: {text!r} is about {about!r}, found {first[thread]!r}")

# %% [markdown]
# Much of what goes wrong gives no message at all. The bars count the entries of each group:

# %%
from collections import Counter

from course_utils.library.messages.catalog import MESSAGES
from course_utils.library.messages.entry import GROUPS
from course_utils.plots import grouped_bars

counts = Counter((entry.group, entry.kind) for entry in MESSAGES)
kinds = ("error", "warning", "symptom")
bars = {title: {kind: counts[group, kind] for kind in kinds} for group, title in GROUPS.items()}
print(len(MESSAGES), "entries, of which without any message:", sum(e.kind == "symptom" for e in MESSAGES))
grouped_bars(bars, "Entries by group", "entries")

# %% [markdown]
# ## 2. The names in the cells
#
# Every section has two cells: one that goes wrong, and one that does not. They use these names. Everything stays on the
# CPU: on a GPU, some of these errors would end the kernel.

# %%
import copy

import torch
from transformers import DynamicCache, TextStreamer

from course_utils import load, load_tokenizer

model, tokenizer = load("smollm2-135m", device="cpu")
small, gpt2 = load("tiny-gpt2", device="cpu")  # random weights; GPT-2's tokenizer
ids = gpt2("My dog is", return_tensors="pt").input_ids  # (1, 3)
small.loss_type = "ForCausalLM"  # why, says "The loss has no type"
question = [{"role": "user", "content": "What is the capital of France?"}]

# %% [markdown]
# `with heard():` prints the errors and warnings of its block, and goes on.

# %%
from course_utils import needs_transformers
from course_utils.library import heard

needs_transformers("5.24")  # the messages are those of this release

# %% [markdown]
# ## 3. Tokenizer and padding
#
# ### The tokenizer has no padding token
#
# A batch is a rectangle, so shorter rows are filled up. GPT-2's tokenizer names no token for that.
#
# **Cure:** Pad with end-of-text: `tokenizer.pad_token = tokenizer.eos_token`. Hand the mask on, so that nobody reads
# the padding. ([lesson 02, section 2](02_padding.ipynb))

# %%
with heard():
    gpt2(["My dog is", "It will rain in the"], padding=True)

# %%
padded = load_tokenizer("gpt2", pad_token="<|endoftext|>")
batch = padded(["My dog is", "It will rain in the"], padding=True, return_tensors="pt")
print(batch.input_ids.tolist(), batch.attention_mask.tolist())

# %% [markdown]
# ### The rows have different lengths
#
# A tensor has rows of one length, and these texts have 3 and 5 tokens.
#
# **Cure:** Pass `padding=True`; and `padding_side="left"`, if `generate()` is to continue the rows.
# ([lesson 02, section 1](02_padding.ipynb))

# %%
with heard():
    tokenizer(["My dog is", "It will rain in the"], return_tensors="pt")

# %%
texts = ["My dog is", "It will rain in the"]
batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
print(tuple(batch.input_ids.shape))

# %% [markdown]
# ### The text is longer than the tokenizer expects
#
# The tokenizer only counts and warns, once; it cuts nothing. The error comes later, from the model.
#
# **Cure:** Cut the text with `truncation=True`; `truncation_side` says which end is lost. What a model continues stands
# at the end. ([lesson 02, “Too long; and a new pad token”](02_padding.ipynb))

# %%
with heard():
    text = "word " * 1100
    load_tokenizer("gpt2")(text)

# %%
cuts = load_tokenizer("gpt2", truncation_side="left")
kept = cuts("word " * 1100, truncation=True, max_length=1000)
print(len(kept.input_ids), "tokens are left")

# %% [markdown]
# ### More tokens than the model has positions
#
# GPT-2 looks up each position in a table of 1,024 rows, and index 1,024 is not in it. On a GPU the same mistake is a
# device-side assert, after which nothing runs until the kernel is restarted.
#
# **Cure:** Read no more than the table has rows, and leave room for what is to be written.
# ([appendix A, “The configuration”](appendix_version_map.ipynb))

# %%
with heard():
    small(torch.zeros(1, 1025, dtype=torch.long))

# %%
long = torch.zeros(1, 1025, dtype=torch.long)
print(tuple(small(long[:, -1024:]).logits.shape))

# %% [markdown]
# ## 4. Attention mask and positions
#
# ### Right padding was detected
#
# `generate()` reads the next token at the last index of each row, and there is padding. It does not repair the batch;
# it only warns.
#
# **Cure:** Pad on the left: `padding_side="left"`. ([lesson 02, section 5](02_padding.ipynb))

# %%
with heard():
    padded = load_tokenizer("gpt2", pad_token="<|endoftext|>")
    batch = padded(["My dog is", "It will rain in the"], padding=True, return_tensors="pt")
    small.generate(**batch, max_new_tokens=3, pad_token_id=50256)

# %%
padded = load_tokenizer("gpt2", pad_token="<|endoftext|>", padding_side="left")
batch = padded(["My dog is", "It will rain in the"], padding=True, return_tensors="pt")
wrote = small.generate(**batch, max_new_tokens=3, do_sample=False, pad_token_id=50256)
alone = small.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=50256)
assert torch.equal(wrote[0, -3:], alone[0, -3:])  # the row, as if it were alone

# %% [markdown]
# ### Neither mask nor pad token was set
#
# Only ids were handed over, so `generate()` cannot know which of them are padding. It takes them all for text. (Of a
# single row the installed version says nothing.)
#
# **Cure:** Hand over all that the tokenizer returned, `generate(**inputs)`, and name `pad_token_id`.
# ([lesson 02, section 6](02_padding.ipynb))

# %%
with heard():
    two = torch.cat([ids, ids])
    small.generate(two, max_new_tokens=3)

# %%
batch = gpt2(["My dog is", "My dog is"], return_tensors="pt")
small.generate(**batch, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### The mask cannot be inferred
#
# With a pad token set, a mask is made by comparing ids. Where padding and end-of-text are one id, that would hide real
# ends, so all ids are taken for text.
#
# **Cure:** Pass `attention_mask=`. Setting `pad_token_id` only silences the other message.
# ([lesson 02, section 6](02_padding.ipynb))

# %%
with heard():
    two = torch.cat([ids, ids])
    small.generate(two, max_new_tokens=3, pad_token_id=50256)

# %%
two = torch.cat([ids, ids])
mask = torch.ones_like(two)  # nothing here is padding
small.generate(two, attention_mask=mask, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### A row gives another result in a batch
#
# A forward pass reads padding like text unless a mask hides it. (Differences below 0.001 in float32 are rounding: see
# the last group.)
#
# **Cure:** Give the mask, and for models with absolute positions the position ids. `generate()` makes those itself.
# ([lesson 02, section 4](02_padding.ipynb))

# %%
texts = ["My dog is", "It will rain in the"]
batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
alone = tokenizer(texts[0], return_tensors="pt").input_ids
last = model(batch.input_ids).logits[0, -1]  # no mask, no position ids
print("as alone:", torch.allclose(last, model(alone).logits[0, -1], atol=0.01))

# %%
texts = ["My dog is", "It will rain in the"]
batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
alone = tokenizer(texts[0], return_tensors="pt").input_ids
positions = (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)
last = model(**batch, position_ids=positions).logits[0, -1]
print("as alone:", torch.allclose(last, model(alone).logits[0, -1], atol=0.01))

# %% [markdown]
# ### A fully masked row is NaN
#
# A query that may see no key, such as a padding token on the left, has −∞ everywhere, and softmax subtracts −∞ from −∞.
# In the next layer NaN reaches every token.
#
# **Cure:** Fill in the lowest finite number, as the library does, or keep one key open.
# ([lesson 03, section 6](03_masks.ipynb))

# %%
scores = torch.tensor([3.0, -20.0, 5.0])
print((scores + float("-inf")).softmax(-1))

# %%
scores = torch.tensor([3.0, -20.0, 5.0])
print((scores + torch.finfo(scores.dtype).min).softmax(-1))

# %% [markdown]
# ## 5. What generate() is given
#
# ### An argument that nobody uses
#
# Each argument is a parameter of `generate()`, a setting or an input of the model. This one is none of them: a typo, or
# a tensor that only other models take, such as `token_type_ids`.
#
# **Cure:** Correct the name; take out what the tokenizer made for another model.
# ([lesson 05, section 2](05_generate.ipynb))

# %%
with heard():
    small.generate(ids, max_new_token=3)

# %%
small.generate(ids, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### The prompt is as long as the limit
#
# `max_length` counts the prompt. With a prompt of 3 tokens nothing is left to write.
#
# **Cure:** Set `max_new_tokens`, which counts only what is written. ([lesson 05, “How long?”](05_generate.ipynb))

# %%
with heard():
    small.generate(ids, max_length=3)

# %%
small.generate(ids, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### Two lengths at once
#
# One of them often comes from the model's own generation config, and so is nowhere in your code.
#
# **Cure:** Set only `max_new_tokens`. If the other one comes with the model, the message is harmless.
# ([lesson 05, “How long?”](05_generate.ipynb))

# %%
with heard():
    small.generate(ids, max_length=20, max_new_tokens=3, pad_token_id=50256)

# %%
small.generate(ids, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### No length was given
#
# Without a length `generate()` writes at most 20 tokens, and texts end in the middle of a sentence.
#
# **Cure:** Set `max_new_tokens`. ([lesson 05, “How long?”](05_generate.ipynb))

# %%
with heard():
    small.generate(ids, pad_token_id=50256)

# %%
small.generate(ids, max_new_tokens=40, pad_token_id=50256).shape

# %% [markdown]
# ### A setting of sampling in greedy decoding
#
# Temperature and the filters shape a distribution, and greedy decoding draws from none.
#
# **Cure:** Ask for sampling, `do_sample=True`, or leave the setting out. ([lesson 05, section 12](05_generate.ipynb))

# %%
with heard():
    small.generate(ids, do_sample=False, temperature=0.7, max_new_tokens=3, pad_token_id=50256)

# %%
small.generate(ids, do_sample=True, temperature=0.7, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### A temperature of 0
#
# Logits are divided by the temperature. Ever smaller ones come ever closer to greedy decoding; 0 itself is a division
# by 0.
#
# **Cure:** Ask for greedy decoding: `do_sample=False`. ([lesson 06, section 1](06_decoding.ipynb))

# %%
with heard():
    small.generate(ids, do_sample=True, temperature=0.0, max_new_tokens=3)

# %%
small.generate(ids, do_sample=False, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### Stop strings without a tokenizer
#
# `generate()` knows ids only. To find a string in them it needs the tokenizer.
#
# **Cure:** Pass `tokenizer=` as well. ([lesson 05, section 7](05_generate.ipynb))

# %%
with heard():
    small.generate(ids, stop_strings=["."], max_new_tokens=3)

# %%
small.generate(ids, stop_strings=["."], tokenizer=gpt2, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### A streamer and a batch
#
# A streamer prints one text as it grows. It would mix up the words of several.
#
# **Cure:** Stream one row, or write a streamer of your own: `put` receives the ids of all rows.
# ([lesson 05, section 10](05_generate.ipynb))

# %%
with heard():
    two = torch.cat([ids, ids])
    options = {"attention_mask": torch.ones_like(two), "max_new_tokens": 3, "pad_token_id": 50256}
    small.generate(two, streamer=TextStreamer(gpt2), **options)

# %%
streamer = TextStreamer(gpt2, skip_prompt=True)
_ = small.generate(ids, streamer=streamer, do_sample=False, max_new_tokens=3, pad_token_id=50256)

# %% [markdown]
# ### An AttributeError without any text
#
# The tokenizer and `apply_chat_template` return a dict-like object of several tensors, and `generate()` asks it for its
# shape.
#
# **Cure:** Unpack it: `model.generate(**inputs)`. ([lesson 11, section 2](11_chat.ipynb))

# %%
with heard():
    inputs = tokenizer("My dog is", return_tensors="pt")
    model.generate(inputs, max_new_tokens=3)

# %%
inputs = tokenizer("My dog is", return_tensors="pt")
model.generate(**inputs, max_new_tokens=3).shape

# %% [markdown]
# ## 6. What generate() writes
#
# ### The prompt is in the output
#
# A decoder-only model continues the row of ids that it was given, and `generate()` returns the whole row.
#
# **Cure:** Cut by the number of ids, `ids[0, inputs.input_ids.shape[1] :]`, not by the text: decoding may change its
# length. ([lesson 07, section 4](07_scores.ipynb))

# %%
inputs = tokenizer("My dog is", return_tensors="pt")
wrote = model.generate(**inputs, max_new_tokens=3, do_sample=False)
print(repr(tokenizer.decode(wrote[0])))

# %%
inputs = tokenizer("My dog is", return_tensors="pt")
wrote = model.generate(**inputs, max_new_tokens=3, do_sample=False)
print(repr(tokenizer.decode(wrote[0, inputs.input_ids.shape[1] :])))

# %% [markdown]
# ### The model never stops
#
# A text ends at an id of `eos_token_id`. This model ends a turn with 2, and only 0 would end it here. It may also never
# have been trained to write an end, if padding hid the ends from its labels.
#
# **Cure:** Name every id that ends a text, `eos_token_id=[0, 2]`, in the call or in the generation config.
# ([lesson 11, section 4](11_chat.ipynb))

# %%
chat = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
wrote = model.generate(**chat, max_new_tokens=24, do_sample=False, eos_token_id=0)
new = wrote[0, chat.input_ids.shape[1] :]
print(len(new), "tokens, ended:", new[-1].item() == 0)

# %%
chat = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
wrote = model.generate(**chat, max_new_tokens=24, do_sample=False, eos_token_id=[0, 2])
new = wrote[0, chat.input_ids.shape[1] :]
print(len(new), "tokens, ended:", new[-1].item() in (0, 2))

# %% [markdown]
# ### Streamed text shows a question mark in a diamond
#
# A token is a piece of bytes, and one character can be several tokens. Decoded one by one, none of them is a character.
#
# **Cure:** Decode them together, or hold a piece back until it is whole, as `TextStreamer` does.
# ([lesson 01, section 2](01_text_to_integers.ipynb))

# %%
pieces = [tokenizer.decode(id) for id in tokenizer("🙂").input_ids]
print(*pieces)

# %%
print(tokenizer.decode(tokenizer("🙂").input_ids))

# %% [markdown]
# ### Only 50 tokens can be drawn
#
# Where nobody sets `top_k`, it is 50, and `top_k=None` counts as not set.
#
# **Cure:** Write `top_k=0` to switch it off. ([lesson 05, section 2](05_generate.ipynb))

# %%
record = {"output_scores": True, "return_dict_in_generate": True}
drawn = small.generate(ids, do_sample=True, max_new_tokens=1, pad_token_id=50256, **record)
print("candidates:", drawn.scores[0].isfinite().sum().item())

# %%
record = {"output_scores": True, "return_dict_in_generate": True}
drawn = small.generate(ids, do_sample=True, top_k=0, max_new_tokens=1, pad_token_id=50256, **record)
print("candidates:", drawn.scores[0].isfinite().sum().item())

# %% [markdown]
# ### The scores are not there
#
# `generate()` returns a bare tensor of ids unless it is asked for an object.
#
# **Cure:** Pass `return_dict_in_generate=True`. The scores are one tensor a step.
# ([lesson 05, section 11](05_generate.ipynb))

# %%
with heard():
    small.generate(ids, output_scores=True, max_new_tokens=2, pad_token_id=50256).scores

# %%
record = {"output_scores": True, "return_dict_in_generate": True}
output = small.generate(ids, max_new_tokens=2, pad_token_id=50256, **record)
print(len(output.scores), tuple(output.scores[0].shape))

# %% [markdown]
# ### No attentions come back
#
# The default attention, SDPA, computes its result without ever holding the weights.
#
# **Cure:** Call `model.set_attn_implementation("eager")` for as long as you need them.
# ([lesson 04, “Attentions, and two traps”](04_forward_pass.ipynb))

# %%
with heard():
    with torch.no_grad():
        print(model(ids, output_attentions=True).attentions)

# %%
model.set_attn_implementation("eager")
with torch.no_grad():
    print(len(model(ids, output_attentions=True).attentions), "layers")
model.set_attn_implementation("sdpa")

# %% [markdown]
# ## 7. Sampling and NaN
#
# ### The probability tensor contains inf or nan
#
# Somewhere before the draw a number is NaN or infinite: a weight, an overflow in float16 (it ends at 65,504), or a
# processor that forbids every token.
#
# **Cure:** Find the first place that is not finite. If there is none in float32, load in float32 or bfloat16.
# ([lesson 12, section 7](12_rounding.ipynb))

# %%
with heard():
    broken = copy.deepcopy(small)
    broken.lm_head.weight.data[5] = float("nan")
    broken.generate(ids, do_sample=True, max_new_tokens=3, pad_token_id=50256)

# %%
broken = copy.deepcopy(small)
broken.lm_head.weight.data[5] = float("nan")
print([name for name, weight in broken.named_parameters() if not weight.isfinite().all()])
small.generate(ids, do_sample=True, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### A distribution that sums to 0
#
# The allowed tokens have a probability of 0, so nothing is left to draw from.
#
# **Cure:** Forbid before the softmax, in the logits: then the rest is renormalised, and at least one stays.
# ([lesson 06, section 7](06_decoding.ipynb))

# %%
with heard():
    probs = torch.tensor([0.7, 0.3, 0.0])
    allowed = torch.tensor([False, False, True])
    torch.multinomial(probs * allowed, 1)

# %%
logits = torch.tensor([2.0, 1.0, -30.0])
allowed = torch.tensor([False, False, True])
torch.multinomial(logits.masked_fill(~allowed, float("-inf")).softmax(-1), 1)

# %% [markdown]
# ### Greedy decoding writes the first token of the vocabulary
#
# All logits are NaN, `argmax` of NaN is index 0, and id 0 of GPT-2 is `!`. Greedy decoding reports nothing.
#
# **Cure:** Look at the logits: `logits.isfinite().all()`. ([lesson 12, section 7](12_rounding.ipynb))

# %%
broken = copy.deepcopy(small)
broken.transformer.ln_f.weight.data[0] = float("nan")
wrote = broken.generate(ids, do_sample=False, max_new_tokens=3, pad_token_id=50256)
print(repr(gpt2.decode(wrote[0, 3:])))

# %%
logits = small(ids).logits
print("finite:", logits.isfinite().all().item())

# %% [markdown]
# ### The same seed gives another text
#
# Each step takes random numbers for all rows from one stream. A second row shifts what the first gets, from the second
# step on.
#
# **Cure:** Compare runs of the same batch. A seed fixes the whole call, not a row.
# ([lesson 12, section 8](12_rounding.ipynb))

# %%
def sampled(rows):
    torch.manual_seed(0)
    batch = ids.repeat(rows, 1)
    mask = torch.ones_like(batch)
    return small.generate(batch, attention_mask=mask, do_sample=True, max_new_tokens=8, pad_token_id=50256)


print("the same text:", torch.equal(sampled(1)[0], sampled(2)[0]))

# %%
def sampled(rows):
    torch.manual_seed(0)
    batch = ids.repeat(rows, 1)
    mask = torch.ones_like(batch)
    return small.generate(batch, attention_mask=mask, do_sample=True, max_new_tokens=8, pad_token_id=50256)


print("the same text:", torch.equal(sampled(2), sampled(2)))

# %% [markdown]
# ## 8. The cache
#
# ### The cache has a new name
#
# From 5.24 on the argument is `cache`. In older releases a forward pass ignores that name without a word, so code that
# must run on both has to ask for the version.
#
# **Cure:** Write `cache=`. ([lesson 04, section 4](04_forward_pass.ipynb))

# %%
with heard():
    cache = DynamicCache(config=small.config)
    small(ids, past_key_values=cache)

# %%
cache = DynamicCache(config=small.config)
small(ids, cache=cache)
print(cache.get_seq_length())

# %% [markdown]
# ### A cache of tuples
#
# Older code keeps keys and values as a tuple of tuples. Today's cache is an object with layers.
#
# **Cure:** Let the library make it: `DynamicCache(config=model.config)`.
# ([appendix A, “Arguments”](appendix_version_map.ipynb))

# %%
with heard():
    pair = (torch.zeros(1, 4, 2, 16), torch.zeros(1, 4, 2, 16))  # keys and values of one layer
    small.generate(ids, cache=(pair,) * 4, max_new_tokens=3, pad_token_id=50256)

# %%
cache = DynamicCache(config=small.config)
small.generate(ids, cache=cache, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### The cache and only the new ids
#
# `generate()` wants the ids of the whole text and skips those that the cache holds. One id, and three in the cache:
# nothing is left to read.
#
# **Cure:** Hand over the old ids and the new ones, with a mask for all of them.
# ([lesson 04, “A second turn”](04_forward_pass.ipynb))

# %%
with heard():
    cache = small(ids).cache  # holds 3 tokens
    small.generate(ids[:, :1], cache=cache, max_new_tokens=3, pad_token_id=50256)

# %%
cache = small(ids).cache
whole = torch.cat([ids, ids[:, :1]], dim=1)
small.generate(whole, cache=cache, max_new_tokens=3, pad_token_id=50256).shape

# %% [markdown]
# ### The old answer to a new question
#
# The cache stands for the ids that were read first. Nobody compares them with the new ones.
#
# **Cure:** A new conversation needs a new cache. A changed one may keep what both texts begin with.
# ([lesson 11, section 6](11_chat.ipynb))

# %%
def ask(country, cache):
    chat = [{"role": "user", "content": f"What is the capital of {country}?"}]
    chat = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    wrote = model.generate(**chat, cache=cache, max_new_tokens=12, do_sample=False)
    return tokenizer.decode(wrote[0, chat.input_ids.shape[1] :])


cache = DynamicCache(config=model.config)
ask("France", cache)
print(ask("Japan", cache))

# %%
print(ask("Japan", DynamicCache(config=model.config)))

# %% [markdown]
# ## 9. Chats
#
# ### There is no chat template
#
# A base model has never seen a chat, so its tokenizer has no template.
#
# **Cure:** Take the instruct version of the model, or give a base model plain text to continue.
# ([lesson 11, section 2](11_chat.ipynb))

# %%
with heard():
    gpt2.apply_chat_template(question)

# %%
chat = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
print(chat.splitlines()[-1])

# %% [markdown]
# ### A message without content
#
# The template looks for the key `content`. The error comes from jinja2, the language of templates.
#
# **Cure:** Give each message a role and a content. ([lesson 11, section 2](11_chat.ipynb))

# %%
with heard():
    tokenizer.apply_chat_template([{"role": "user", "text": "Hi"}])

# %%
chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
print(chat.splitlines()[-1])

# %% [markdown]
# ### The assistant mask is empty
#
# Only a template that marks the assistant's part can say which tokens are the assistant's. As labels this mask is −100
# everywhere, and the loss NaN.
#
# **Cure:** Find the turns by their ids: after the assistant's header, up to and including the end.
# ([lesson 11, section 7](11_chat.ipynb))

# %%
with heard():
    chat = [*question, {"role": "assistant", "content": "Paris."}]
    found = tokenizer.apply_chat_template(chat, return_assistant_tokens_mask=True, return_dict=True)
    print(sum(found["assistant_masks"]), "tokens")

# %%
chat = [*question, {"role": "assistant", "content": "Paris."}]
whole = tokenizer.apply_chat_template(chat, return_dict=False)  # a list of ids
header = [1, *tokenizer("assistant\n").input_ids]
starts = [at for at in range(len(whole)) if whole[at : at + len(header)] == header]
print(repr(tokenizer.decode(whole[starts[-1] + len(header) :])))

# %% [markdown]
# ### The reply is empty
#
# An instruct model takes bare text for an unfinished turn of the user, and ends it.
#
# **Cure:** Put the question into the template: `apply_chat_template(messages, add_generation_prompt=True)`.
# ([lesson 11, section 1](11_chat.ipynb))

# %%
inputs = tokenizer("What is the capital of France?", return_tensors="pt")
wrote = model.generate(**inputs, max_new_tokens=12, do_sample=False)
new = wrote[0, inputs.input_ids.shape[1] :]
print(repr(tokenizer.decode(new, skip_special_tokens=True)))

# %%
inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
wrote = model.generate(**inputs, max_new_tokens=12, do_sample=False)
new = wrote[0, inputs.input_ids.shape[1] :]
print(repr(tokenizer.decode(new, skip_special_tokens=True)))

# %% [markdown]
# ### The reply begins with assistant
#
# Without a generation prompt the model opens its turn itself, and the header is part of what it writes.
#
# **Cure:** Pass `add_generation_prompt=True`. ([lesson 11, section 3](11_chat.ipynb))

# %%
inputs = tokenizer.apply_chat_template(question, return_tensors="pt")
wrote = model.generate(**inputs, max_new_tokens=12, do_sample=False)
new = wrote[0, inputs.input_ids.shape[1] :]
print(repr(tokenizer.decode(new, skip_special_tokens=True)))

# %%
inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
wrote = model.generate(**inputs, max_new_tokens=12, do_sample=False)
new = wrote[0, inputs.input_ids.shape[1] :]
print(repr(tokenizer.decode(new, skip_special_tokens=True)))

# %% [markdown]
# ### The prompt has two begin tokens
#
# The template writes the begin token, and the tokenizer adds its own. Nothing warns, and `skip_special_tokens=True`
# hides it.
#
# **Cure:** A text from a template has its special tokens already: tokenize it with `add_special_tokens=False`.
# ([lesson 11, section 3](11_chat.ipynb))

# %%
from tokenizers.processors import TemplateProcessing

adds = copy.deepcopy(tokenizer)  # puts a begin token in front, as Llama's does
begin = {"single": "<|im_start|> $A", "special_tokens": [("<|im_start|>", 1)]}
adds.backend_tokenizer.post_processor = TemplateProcessing(**begin)
text = adds.apply_chat_template(question, tokenize=False)
print(adds(text).input_ids[:2])

# %%
print(adds(text, add_special_tokens=False).input_ids[:2])

# %% [markdown]
# ## 10. New tokens
#
# ### A new token has no row
#
# The tokenizer has a new id, and the model's embedding has no row for it. On a GPU this is a device-side assert.
#
# **Cure:** Give the model that row: `model.resize_token_embeddings(len(tokenizer))`.
# ([lesson 02, “Too long; and a new pad token”](02_padding.ipynb))

# %%
with heard():
    grown = load_tokenizer("gpt2")
    grown.add_special_tokens({"pad_token": "<pad>"})  # id 50257
    small(**grown(["My dog is", "Hi"], padding=True, return_tensors="pt"))

# %%
grown = load_tokenizer("gpt2")
grown.add_special_tokens({"pad_token": "<pad>"})
larger = copy.deepcopy(small)
larger.resize_token_embeddings(len(grown), mean_resizing=False)  # without it, the log says how the row begins
print(tuple(larger(**grown(["My dog is", "Hi"], padding=True, return_tensors="pt")).logits.shape))

# %% [markdown]
# ### How the new rows begin
#
# A new row begins near the mean of all rows. The model can read the token, but has learned nothing about it.
#
# **Cure:** Harmless. Train the row, or say `mean_resizing=False` for a random one, without the message.
# ([lesson 02, “Too long; and a new pad token”](02_padding.ipynb))

# %%
with heard():
    larger = copy.deepcopy(small)
    larger.resize_token_embeddings(50258)

# %%
larger = copy.deepcopy(small)
print(larger.resize_token_embeddings(50258, mean_resizing=False))

# %% [markdown]
# ### A label has no logit
#
# A label is an id, and the model has logits for 0 to 50,256. What is to be skipped gets −100; no other number will do.
#
# **Cure:** Resize the model for a new token; mark what is to be skipped with −100.
# ([lesson 02, section 7](02_padding.ipynb))

# %%
with heard():
    small(ids, labels=torch.tensor([[3666, 3290, 50257]]))

# %%
print(small(ids, labels=torch.tensor([[3666, 3290, -100]])).loss.isfinite().item())

# %% [markdown]
# ## 11. Gradients
#
# ### There is no gradient through generate
#
# `generate()` runs under `torch.no_grad()`. And without that, the chosen ids would still cut the graph.
#
# **Cure:** Draw first, then score the drawn ids with a forward pass of their own.
# ([lesson 08, section 2](08_argmax.ipynb))

# %%
with heard():
    record = {"output_scores": True, "return_dict_in_generate": True}
    output = small.generate(ids, max_new_tokens=3, pad_token_id=50256, **record)
    output.scores[0].sum().backward()

# %%
drawn = small.generate(ids, do_sample=True, max_new_tokens=3, pad_token_id=50256)
log_probs = small(drawn).logits[0, 2:-1].log_softmax(-1)  # (new, vocab)
log_probs.gather(-1, drawn[0, 3:, None]).sum().backward()
print("a gradient:", small.lm_head.weight.grad.any().item())
small.zero_grad()

# %% [markdown]
# ### An id cannot have a gradient
#
# Ids are whole numbers. A small step of a weight does not move them, until it moves them by a jump.
#
# **Cure:** Take the gradient at the vectors, not at the ids. ([lesson 08, section 3](08_argmax.ipynb))

# %%
with heard():
    small.generate(ids, max_new_tokens=3, pad_token_id=50256).requires_grad_()

# %%
vectors = small.get_input_embeddings()(ids).detach().requires_grad_()
small(inputs_embeds=vectors).logits[0, -1].max().backward()
print(tuple(vectors.grad.shape))
small.zero_grad()

# %% [markdown]
# ### Backward a second time
#
# The first pass frees what it needed. It often hides in a loop: a loss, a cache or a hidden state of an earlier step is
# still part of the graph.
#
# **Cure:** Compute the loss anew for each backward pass, and detach what is carried over.
# ([lesson 08, section 8](08_argmax.ipynb))

# %%
with heard():
    loss = small(ids, labels=ids).loss
    loss.backward()
    loss.backward()

# %%
for _ in range(2):
    small(ids, labels=ids).loss.backward()
small.zero_grad()

# %% [markdown]
# ## 12. Loss and labels
#
# ### Logits and labels do not line up
#
# The logits at one index are about the *next* token, so both sides lose one: the logits their last row, the labels
# their first.
#
# **Cure:** Shift both, or pass `labels=ids` unshifted and let the model do it. Never do both.
# ([lesson 07, section 6](07_scores.ipynb))

# %%
with heard():
    logits = small(ids).logits[0, :-1]  # about the second token and later ones
    torch.nn.functional.cross_entropy(logits, ids[0])

# %%
by_hand = torch.nn.functional.cross_entropy(small(ids).logits[0, :-1], ids[0, 1:])
torch.testing.assert_close(by_hand, small(ids, labels=ids).loss)

# %% [markdown]
# ### Cross entropy counts another axis as classes
#
# For three axes PyTorch takes the second for the classes: (batch, classes, length). Here it is the length.
#
# **Cure:** Flatten batch and length into one axis: `logits.flatten(0, 1)`.
# ([lesson 04, “Which token is a row of logits about?”](04_forward_pass.ipynb))

# %%
with heard():
    torch.nn.functional.cross_entropy(small(ids).logits, ids)

# %%
logits, labels = small(ids).logits[:, :-1], ids[:, 1:]
print(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).isfinite().item())

# %% [markdown]
# ### The loss has no type
#
# Which loss is meant is read off the name of the model's class, and `GPT2LMHeadModel` does not end in `ForCausalLM`.
# The default is the right one.
#
# **Cure:** Harmless. Set `loss_type`, and it is quiet.
# ([lesson 04, “Which token is a row of logits about?”](04_forward_pass.ipynb))

# %%
with heard():
    fresh, _ = load("tiny-gpt2", device="cpu")
    fresh(ids, labels=ids).loss

# %%
fresh, _ = load("tiny-gpt2", device="cpu")
fresh.loss_type = "ForCausalLM"
print(fresh(ids, labels=ids).loss.isfinite().item())

# %% [markdown]
# ### The loss is NaN
#
# If every label is −100, the mean runs over no token at all: 0 / 0. It happens when a prompt fills the whole length and
# the answer was cut off.
#
# **Cure:** Leave out texts without a label, or keep the answer when you truncate.
# ([lesson 11, section 7](11_chat.ipynb))

# %%
labels = torch.full_like(ids, -100)
print(small(ids, labels=labels).loss.item())

# %%
labels = ids.clone()
labels[:, 0] = -100  # the prompt
print("finite:", small(ids, labels=labels).loss.isfinite().item())

# %% [markdown]
# ### The labels have lost the ends
#
# Padding and end-of-text are one id, so hiding the padding by its id hides every end. The trained model then never
# stops. The library's collator for language models does the same.
#
# **Cure:** Take the mask, which knows one from the other: `labels[attention_mask == 0] = -100`.
# ([lesson 02, section 7](02_padding.ipynb))

# %%
padded = load_tokenizer("gpt2", pad_token="<|endoftext|>")
batch = padded(["Hi.<|endoftext|>", "My dog is happy.<|endoftext|>"], padding=True, return_tensors="pt")
labels = batch.input_ids.masked_fill(batch.input_ids == padded.pad_token_id, -100)
print("ends to learn:", (labels == padded.eos_token_id).sum().item())

# %%
padded = load_tokenizer("gpt2", pad_token="<|endoftext|>")
batch = padded(["Hi.<|endoftext|>", "My dog is happy.<|endoftext|>"], padding=True, return_tensors="pt")
labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
print("ends to learn:", (labels == padded.eos_token_id).sum().item())

# %% [markdown]
# ### The loss of GRPO is 0
#
# Before the first update every ratio is 1, and the advantages of a group sum to 0. The *gradient* is not 0.
#
# **Cure:** Watch the rewards and the gradient's length. Only if all rewards of a group are equal is there nothing to
# learn. ([lesson 10, section 4](10_ppo_grpo.ipynb))

# %%
log_probs = torch.tensor([-1.0, -2.0, -3.0, -4.0], requires_grad=True)  # of four texts
rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
advantages = rewards - rewards.mean()
ratio = (log_probs - log_probs.detach()).exp()  # 1, before the first update
loss = -(ratio * advantages).mean()
loss.backward()
print(f"loss 0: {loss.item() == 0}, gradient: {log_probs.grad.tolist()}")

# %%
rewards = torch.tensor([1.0, 1.0, 1.0, 1.0])
print("nothing to learn:", (rewards - rewards.mean()).abs().sum().item() == 0)

# %% [markdown]
# ## 13. Numbers that differ
#
# ### Logits differ in the last digits
#
# A matrix product of another shape adds up its terms in another order, and each order rounds differently. The same goes
# for batches, caches, padding, attention kernels and machines.
#
# **Cure:** Compare with a tolerance. To tell rounding from a bug, repeat in float64: rounding shrinks, a bug stays.
# ([lesson 12, section 3](12_rounding.ipynb))

# %%
torch.manual_seed(0)
rows, weight = torch.randn(32, 576), torch.randn(576, 1536)
alone, together = rows[:1] @ weight, (rows @ weight)[:1]
print(f"equal: {torch.equal(alone, together)}, close: {torch.allclose(alone, together, atol=1e-3)}")

# %%
torch.manual_seed(0)
rows, weight = torch.randn(32, 576, dtype=torch.float64), torch.randn(576, 1536, dtype=torch.float64)
gap = (rows[:1] @ weight - (rows @ weight)[:1]).abs().max()
print("below 1e-10:", (gap < 1e-10).item())

# %% [markdown]
# ### Scores are not the logits of a forward pass
#
# `scores` are what the choice was made from: the logits after temperature, filters and penalties.
#
# **Cure:** Ask for `output_logits=True` to see the model's own. ([lesson 07, section 3](07_scores.ipynb))

# %%
record = {"output_scores": True, "output_logits": True, "return_dict_in_generate": True}
drawn = small.generate(ids, do_sample=True, top_k=5, max_new_tokens=1, pad_token_id=50256, **record)
logits = small(ids).logits[:, -1]
print("the same:", torch.allclose(drawn.scores[0], logits, atol=1e-3))

# %%
record = {"output_scores": True, "output_logits": True, "return_dict_in_generate": True}
drawn = small.generate(ids, do_sample=True, top_k=5, max_new_tokens=1, pad_token_id=50256, **record)
logits = small(ids).logits[:, -1]
print("the same:", torch.allclose(drawn.logits[0], logits, atol=1e-3))

# %% [markdown]
# ## 14. All at once
#
# Each entry is proven here once more: its first code must bring the message about, in these words, and its cure must
# run without it.

# %%
library.all_messages().summary

# %% [markdown]
# The same check runs before the course moves to another release of transformers, and names the messages whose words
# have changed.

# %% [markdown]
# ## 15. Words
#
# What the course means by its words, and what you may know them as:

# %%
library.glossary()

# %% [markdown]
# ## 16. What to read
#
# By lesson, and each with what to read it for:

# %%
library.reading_list()

# %% [markdown]
# ## Recap
#
# - Paste the message into the box or into `library.explain`; the last line of a traceback is enough.
# - A message that the library logs does not stop anything. Some are harmless, and some mean that the result is wrong:
# "right-padding was detected" is of the second kind.
# - No message is no proof. Compare with what you know: one row alone, one token more, ids in place of text.
#
# ## Where to look next
#
# `generate()`'s own messages are in `transformers/generation/utils.py` and `configuration_utils.py`. The environment
# variable `TRANSFORMERS_VERBOSITY` says how much is logged: `error`, `warning`, `info`. Names that are gone are in
# [appendix A](appendix_version_map.ipynb).
