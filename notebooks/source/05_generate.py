# %% [markdown]
# # What does generate() do, step by step?
#
# **By the end a loop of about twenty lines will give `model.generate`'s ids exactly, on a left-padded batch whose rows
# end at different steps, greedy and sampled, in three models; and it will run inside the real `generate()` too.**
#
# You will be able to
#
# - say which value wins when the call, a config that you pass, the model's config and the defaults disagree,
# - write the loop: prefill, decode, choose, fill the rows that have ended, stop,
# - write a logits processor, a stopping criterion and a streamer, and say when each is called,
# - find the usual bugs of such loops by what they write,
# - open the installed source at the lines that matter, and translate the names of older articles.
#
# *70 minutes, and 50 more for the exercises. You need: lessons 02 to 04.*

# %% [markdown]
# ## 1. Three lines that generate
#
# Ask for the next token, append the most likely one, repeat:

# %%
import torch

from course_utils import load, needs_transformers
from course_utils.lessons import lesson05 as lesson
from course_utils.widgets import Predict, Quiz, Stepper

needs_transformers("5.24")  # the first release that calls the cache `cache`
model, tokenizer = load()
inputs = tokenizer("It will rain in the", return_tensors="pt").to(model.device)
ids = inputs.input_ids  # (batch, length)
with torch.no_grad():
    for _ in range(14):
        chosen = model(ids).logits[:, -1:].argmax(-1)  # (batch, 1)
        ids = torch.cat([ids, chosen], dim=1)
print(tokenizer.decode(ids[0]))

# %%
generated = model.generate(**inputs, max_new_tokens=14)
print(tokenizer.decode(generated[0]))
assert torch.equal(ids[:, : generated.shape[1]], generated)

# %% [markdown]
# The same ids, as far as `generate()` goes. It stops at `<|im_end|>`, and three lines do not know that a text can end.
# They also start from the first token again at each step, write one row only, cannot draw, obey no
# argument, and show nothing until they are done. This lesson adds what is missing, one thing at a time.

# %% [markdown]
# ## 2. Where does each argument go?
#
# `generate()` has few parameters of its own:

# %%
import inspect

print(", ".join(inspect.signature(model.generate).parameters))

# %% [markdown]
# `temperature` is not among them, nor is `max_new_tokens`. They are settings of a `GenerationConfig`, and come in
# through `kwargs`. So what does `generate()` make of a call? It can be asked: `custom_generate=` takes a function that is
# put **in the place of its loop**, and is handed all that was prepared. Ours hands it back.

# %%
def handed_over(model, input_ids, **prepared):
    return {"input_ids": input_ids, **prepared}


def prepare(**arguments):
    return model.generate(**inputs, **arguments, custom_generate=handed_over)


for name, value in prepare(max_new_tokens=4).items():
    print(f"{name:18} {type(value).__name__}")

# %% [markdown]
# No token was generated. These nine things are what the loop gets to work with, and we go through all of them. First
# `generation_config`: what is left when every source of settings has been asked. One setting is `do_sample`: with True
# each token is drawn at random, by its probability.

# %%
Predict(lesson.predict_top_k)

# %% tags=["answer"]
print("with do_sample=True and nothing else:")
settled = prepare(max_new_tokens=4, do_sample=True)["generation_config"]
print("top_k", settled.top_k, "  top_p", settled.top_p, "  temperature", settled.temperature)

# %% [markdown]
# Only the 50 largest logits stay in the draw. Nobody asked for that: a new `GenerationConfig` says nothing, and neither does
# this model's own about `top_k`. (Lesson 06 is about what these settings do, this one about where they go.)

# %%
from transformers import GenerationConfig

print("a new one:", GenerationConfig().top_k, "  the model's:", model.generation_config.top_k)

# %% [markdown]
# So a setting can come from four places: the call, a config that you pass, the model's config, and the library's
# defaults. We let them disagree, for seven settings, and look at what is left.

# %%
from transformers.utils import logging as library_log

library_log.set_verbosity_error()  # what the library says about this comes below


def who_wins(name, own, passed, called):
    def left(**arguments):
        return getattr(prepare(max_new_tokens=4, **arguments)["generation_config"], name)

    as_it_comes = getattr(model.generation_config, name)
    cells = [left()]
    setattr(model.generation_config, name, own)
    cells.append(left())
    cells.append(left(generation_config=GenerationConfig(**{name: passed})))
    cells.append(left(generation_config=GenerationConfig(**{name: passed}), **{name: called}))
    cells.append(left(generation_config=GenerationConfig(**{name: None})))
    cells.append(left(**{name: None}))
    setattr(model.generation_config, name, as_it_comes)
    return cells

# %%
disagree = {  # what the model's config, the passed one and the call say
    "do_sample": (True, False, True),
    "temperature": (0.7, 0.8, 0.9),
    "top_k": (10, 20, 30),
    "top_p": (0.7, 0.8, 0.9),
    "repetition_penalty": (1.1, 1.2, 1.3),
    "min_new_tokens": (1, 2, 3),
    "eos_token_id": (30, 198, 216),
}
print(f"{'':20}{'as it comes':>12}{'model says':>12}{'+ passed':>10}{'+ call':>8}{'passed None':>13}{'call None':>11}")
for name, values in disagree.items():
    left = [str(value) for value in who_wins(name, *values)]
    print(f"{name:20}{left[0]:>12}{left[1]:>12}{left[2]:>10}{left[3]:>8}{left[4]:>13}{left[5]:>11}")
    assert left[1:] == [str(v) for v in (*values, values[0], None)]

# %% [markdown]
# **The call, then the config you pass, then the model's, then the defaults.** In a config None means "not said", and the
# next one is asked. In the call None is an answer, and stays. What becomes of `top_k=None`?

# %%
for top_k in (30, None):
    made = prepare(max_new_tokens=4, do_sample=True, top_k=top_k)["logits_processor"]
    print(f"top_k={top_k}:", [type(processor).__name__ for processor in made])

# %% [markdown]
# No filter is made, so that every token can be drawn.

# %% [markdown]
# The library says something about these calls. Its messages go to a log, and some to Python's warnings. We send both to the
# page:

# %%
import logging
import textwrap
import warnings


def on_the_page(text):
    print(textwrap.fill(f"transformers says: {text}", 110))


class OnThePage(logging.Handler):
    def emit(self, record):
        on_the_page(record.getMessage())


library_log.disable_default_handler()
library_log.add_handler(OnThePage())
library_log.set_verbosity_warning()
warnings.simplefilter("always", UserWarning)
warnings.showwarning = lambda message, *place: on_the_page(message)

# %%
library_log.warning_once.cache_clear()  # some messages come once in a kernel
_ = prepare(generation_config=GenerationConfig(max_new_tokens=4), num_beams=1)
_ = prepare(max_new_tokens=4, temperature=0.7)

# %% [markdown]
# A config *and* settings beside it will not work forever. And a temperature without `do_sample=True` has no effect. Other
# calls are refused, before anything is computed. A misspelt setting is taken for an argument of the model's `forward`,
# which does not know it:

# %%
before = model.generation_config.to_dict()
for wrong in (
    {"max_new_token": 5},
    {"max_new_tokens": 0},
    {"max_length": 5},
    {"max_new_tokens": 5, "do_sample": True, "temperature": 0.0},
    {"max_new_tokens": 5, "num_return_sequences": 2},
):
    try:
        model.generate(**inputs, **wrong)
    except ValueError as error:
        print(textwrap.shorten(f"{wrong}: {error}", 110, placeholder=" …"))
assert model.generation_config.to_dict() == before

# %% [markdown]
# ## 3. How long?
#
# `max_length` counts the prompt, `max_new_tokens` does not. And if neither is given? A tiny model, GPT-2 with random
# weights, is enough to find out.

# %%
Predict(lesson.predict_length)

# %%
small, gpt2 = load("tiny-gpt2")
short = gpt2("It will rain in the", return_tensors="pt").to(small.device)


def count(**arguments):
    ids = small.generate(**short, **arguments, pad_token_id=gpt2.eos_token_id)
    print(f"{arguments}: {short.input_ids.shape[1]} + {ids.shape[1] - short.input_ids.shape[1]} ids")

# %% tags=["answer"]
print("no length given:")
count()

# %%
count(max_length=20)
count(max_new_tokens=20)
count(max_length=8, max_new_tokens=2)

# %% [markdown]
# The default `max_length` is 20. Unlike one that somebody sets, it is counted from the end of the prompt; the warning
# prints the sum. Older versions counted the prompt here as well. Say `max_new_tokens`, and none of this matters.

# %% [markdown]
# ## 4. What is prepared
#
# From now on the batch of lesson 02, padded on the left:

# %%
sentences = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]
tokenizer.padding_side = "left"
batch = tokenizer(sentences, padding=True, return_tensors="pt").to(model.device)
length = batch.input_ids.shape[1]
prepared = model.generate(**batch, max_new_tokens=4, custom_generate=handed_over)
print(prepared["attention_mask"].cpu())
print(prepared["position_ids"].cpu())
{name: prepared[name] for name in ("logits_to_keep", "use_cache")}

# %% [markdown]
# The mask is ours, the positions are those of lesson 02. `logits_to_keep=1` spares the head all places but the
# last. The cache is an empty `DynamicCache`. With one prompt there is no padding, and a mask of ones is dropped:

# %%
print("cached so far:", prepared["cache"].get_seq_length())
print("the mask of one prompt:", prepare(max_new_tokens=4)["attention_mask"])
twice = model.generate(**batch, max_new_tokens=4, do_sample=True, num_return_sequences=2, custom_generate=handed_over)
print("two sequences for each prompt:", tuple(twice["input_ids"].shape))

# %% [markdown]
# ## 5. Prefill and decode
#
# We watch what the model is given at each step, from outside, with a hook:

# %%
def watch(**arguments):
    seen = []

    def note(module, args, given):
        seen.append({**given, "cached": given["cache"].get_seq_length()})

    with model.register_forward_pre_hook(note, with_kwargs=True):  # removed when the block ends
        ids = model.generate(**batch, **arguments)
    return ids, seen

# %%
_, seen = watch(max_new_tokens=4)
for step, given in enumerate(seen):
    shapes = tuple(given["input_ids"].shape), tuple(given["attention_mask"].shape)
    print(f"step {step}: ids {shapes[0]}, mask {shapes[1]}, cached {given['cached']:2}", end=", ")
    print("positions", given["position_ids"][:, -1].tolist(), "at the last place")

# %% [markdown]
# The first pass takes the whole prompt: **prefill**. From then on each pass takes one token a row: **decode**. The
# mask grows by a 1, each row's position by 1, and the cache holds the rest. Choosing what the model still
# needs at a step is the work of the method `prepare_inputs_for_generation`. Our loop does it in one line, with a helper:

# %%
from transformers import DynamicCache

from course_utils.masks import position_ids


def extended(inputs):
    mask, positions = inputs["attention_mask"], inputs["position_ids"]
    if mask is not None:
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)  # (batch, length + 1)
    return {**inputs, "attention_mask": mask, "position_ids": positions[:, -1:] + 1}


@torch.no_grad()
def greedy(model, input_ids, new_tokens, **inputs):
    given = input_ids  # prefill: the whole prompt
    for _ in range(new_tokens):
        chosen = model(given, **inputs).logits[:, -1].argmax(-1)  # (batch,)
        input_ids = torch.cat([input_ids, chosen[:, None]], dim=1)
        given, inputs = chosen[:, None], extended(inputs)  # decode: one token a row
    return input_ids

# %%
def start(model, attention_mask):
    return {
        "attention_mask": attention_mask,
        "position_ids": position_ids(attention_mask),
        "cache": DynamicCache(config=model.config),
    }


ours = greedy(model, batch.input_ids, 13, **start(model, batch.attention_mask))
theirs = model.generate(**batch, max_new_tokens=13, eos_token_id=None)
assert torch.equal(ours, theirs)
for row in ours[:, length:]:
    print(repr(tokenizer.decode(row)))

# %% [markdown]
# `eos_token_id=None` in the call: without end-of-text the two agree, and row 0 writes past its `<|im_end|>` in both.

# %% [markdown]
# ## 6. Rows that have ended
#
# What ends a text is the `eos_token_id` of the generation config; the tokenizer is not asked. It may be several ids. To
# see rows end early in a short run, we add the id of the full stop. To tell the padding from an end, we fill with the
# id 0. GPT-2's name for its end stands there, `<|endoftext|>`, but it is not in our list, so here it ends nothing.

# %%
print(model.generation_config.eos_token_id, tokenizer.convert_ids_to_tokens([2, 30, 0]))
ends = {"eos_token_id": [2, 30], "pad_token_id": 0}

# %%
Predict(lesson.predict_finished)

# %% tags=["answer"]
print("rows in each forward pass:")
ended, seen = watch(max_new_tokens=24, **ends)
print([len(given["input_ids"]) for given in seen])

# %%
for row in ended[:, length:].tolist():
    print(row)

# %% [markdown]
# Rows 0 and 1 end with their full stop, 30, at the second step. Row 2 writes 18 more tokens, and while it does, the model
# computes all three. What it says for the ended rows is replaced by the padding. Their mask grows by 1s, too: nobody
# reads an ended row's logits, and rows do not see each other.

# %% [markdown]
# ### Exercise 1: the finished rows · difficulty 2 of 3 · 8 minutes
#
# One step has chosen a token for every row. Replace those of rows that had ended before by the padding, and
# bring the flags up to date. Any of `end_ids` ends a row, and it keeps that token. Leave what you are given unchanged.

# %% tags=["exercise"]
def finish(
    next_tokens: torch.Tensor, unfinished: torch.Tensor, end_ids: list[int], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return next_tokens and unfinished after this step; both (batch,), unfinished of True and False."""
    raise NotImplementedError

# %% tags=["solution"]
def finish(
    next_tokens: torch.Tensor, unfinished: torch.Tensor, end_ids: list[int], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return next_tokens and unfinished after this step; both (batch,), unfinished of True and False."""
    next_tokens = torch.where(unfinished, next_tokens, pad_id)
    ended = torch.isin(next_tokens, torch.tensor(end_ids, device=next_tokens.device))
    return next_tokens, unfinished & ~ended

# %% [markdown] tags=["solution"]
# The order matters: first fill by the *old* flags, then renew them. The other way round a row would lose its own
# end-of-text. And `unfinished &` keeps a row finished, whatever comes later: the padding is no end in itself.

# %% tags=["check"]
lesson.check_finish(finish)

# %% [markdown] tags=["hints"]
# - Which flags say whose token is replaced: those from before this step, or those after it?
# - `torch.where(unfinished, next_tokens, pad_id)` replaces. `torch.isin(next_tokens, torch.tensor(end_ids))` finds any of several.
# - A row is unfinished after this step if it was before, *and* if its token is no end.

# %% [markdown]
# ## 7. Logits processors
#
# Between the logits and the choice stands a list of functions. Each takes the ids so far, (batch, length), and
# **scores**, (batch, vocab), and returns scores: the logits, as the list has changed them so far. (The scores of
# lesson 03, inside attention, are other numbers.) `generate()` builds the list from the settings:

# %%
asked = {"renormalize_logits": True, "top_p": 0.9, "temperature": 0.7, "min_new_tokens": 2, "min_p": 0.05, "top_k": 40}
asked |= {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "suppress_tokens": [30]}
for processor in prepare(max_new_tokens=4, do_sample=True, **asked)["logits_processor"]:
    print(type(processor).__name__)

# %% [markdown]
# The order is the library's, not the call's, and `min_new_tokens` makes two. Those that are called **Warper** belong to
# sampling. In older versions they were a list of their own, `logits_warper`, made by `_get_logits_warper`. The second list
# is gone; the names of the classes have stayed.

# %% [markdown]
# You can add your own. This one forbids every token with a certain letter, but for the special ones, and notes how many scores were finite
# when it was called:

# %%
from transformers import LogitsProcessor, LogitsProcessorList


class Without(LogitsProcessor):
    def __init__(self, letter):
        vocabulary = [[id] for id in range(model.config.vocab_size)]
        texts = tokenizer.batch_decode(vocabulary, skip_special_tokens=True)
        self.banned = torch.tensor([letter in text.lower() for text in texts], device=model.device)  # (vocab,)

    def __call__(self, input_ids, scores):
        self.finite = scores.isfinite().sum(-1).tolist()
        return scores.masked_fill(self.banned, float("-inf"))


no_e = Without("e")
written = model.generate(**inputs, max_new_tokens=12, logits_processor=LogitsProcessorList([no_e]))
print(tokenizer.decode(written[0, inputs.input_ids.shape[1] :]))

# %%
Predict(lesson.predict_custom)

# %% tags=["answer"]
print("finite scores when our processor is called:")
_ = model.generate(**inputs, max_new_tokens=1, do_sample=True, top_k=5, logits_processor=LogitsProcessorList([no_e]))
print(no_e.finite[0], "of", model.config.vocab_size)

# %%
added = {"top_k": 5, "repetition_penalty": 1.2, "logits_processor": LogitsProcessorList([no_e])}
for do_sample in (True, False):
    listed = prepare(max_new_tokens=4, do_sample=do_sample, **added)["logits_processor"]
    print(f"do_sample={do_sample}:", [type(processor).__name__ for processor in listed])

# %% [markdown]
# **Yours come after the penalties and bans, and before what belongs to sampling**, which is left out with
# `do_sample=False`. So scores that you change are still divided by the temperature, and cut by top-k. Temperature and top-p show that the order can matter:

# %%
asked = {"do_sample": True, "temperature": 0.4, "top_p": 0.5, "top_k": None}
heat, cut = prepare(max_new_tokens=4, **asked)["logits_processor"]
with torch.no_grad():
    scores = model(**inputs).logits[:, -1]  # (batch, vocab)
first_heat = cut(None, heat(None, scores)).isfinite().sum().item()
first_cut = heat(None, cut(None, scores)).isfinite().sum().item()
print(f"{type(heat).__name__} first: {first_heat} tokens kept; {type(cut).__name__} first: {first_cut}")

# %% [markdown]
# ### Exercise 2: temperature and top-k · difficulty 2 of 3 · 10 minutes
#
# Write both as processors. The temperature divides. Top-k keeps the `top_k` largest scores of each row, and those that
# tie with the last of them; all others become −∞. `top_k` may exceed the vocabulary. Leave what you are given unchanged.

# %% tags=["exercise"]
def sampling_processors(temperature: float, top_k: int) -> list:
    """Return two functions (input_ids, scores) -> scores: the temperature, then top-k."""
    raise NotImplementedError

# %% tags=["solution"]
def sampling_processors(temperature: float, top_k: int) -> list:
    """Return two functions (input_ids, scores) -> scores: the temperature, then top-k."""

    def heat(input_ids, scores):
        return scores / temperature

    def cut(input_ids, scores):
        k = min(top_k, scores.shape[-1])
        smallest_kept = scores.topk(k).values[:, -1:]  # (batch, 1)
        return scores.masked_fill(scores < smallest_kept, float("-inf"))

    return [heat, cut]

# %% [markdown] tags=["solution"]
# `topk(k).indices` would be one way to say what stays, and it breaks ties by chance. Comparing with the k-th score keeps
# them, as the library does. A new tensor each time: with `output_logits=True`, `generate()` keeps the raw
# logits, and a processor that works in place would spoil them.

# %% tags=["check"]
lesson.check_processors(sampling_processors)

# %% [markdown] tags=["hints"]
# - A function inside your function can use `temperature` and `top_k`; return a list of two such functions.
# - `scores.topk(k).values[:, -1:]` is the smallest score that stays, one for each row.
# - `masked_fill` returns a new tensor. `scores /= temperature` and `scores[...] = …` change the one you were given.

# %% [markdown]
# ## 8. Stopping criteria
#
# A criterion takes the ids, and says for each row whether it is done. (The scores it is given are `None`, unless
# `generate()` is asked to collect them.) There is one for the length and one for end-of-text, `max_time` in seconds adds a
# third, and yours join them:

# %%
from transformers import StoppingCriteria, StoppingCriteriaList


class AtNewline(StoppingCriteria):
    newline = tokenizer.encode("\n")[0]

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] == self.newline  # (batch,)


stop = {"stopping_criteria": StoppingCriteriaList([AtNewline()])}
print([type(criterion).__name__ for criterion in prepare(max_new_tokens=4, max_time=60.0, **stop)["stopping_criteria"]])

# %% [markdown]
# A row is done as soon as **one** of them says so, and the loop ends when all rows are done. Row 0 writes a line break,
# 198, at its third step. The third line is the same prompt alone, without an end-of-text:

# %%
rows = model.generate(**batch, max_new_tokens=6, pad_token_id=0, **stop)[:, length:]
no_end = model.generate(**batch, max_new_tokens=6, pad_token_id=0, eos_token_id=None, **stop)[:, length:]
print("with end-of-text:   ", rows[0].tolist())
print("without end-of-text:", no_end[0].tolist())
row_0 = {name: tensor[:1] for name, tensor in batch.items()}
alone = model.generate(**row_0, max_new_tokens=6, pad_token_id=0, eos_token_id=None, **stop)[:, length:]
print("alone:              ", alone[0].tolist())

# %% [markdown]
# The second line is a trap. The row counts as done in all three, as the third shows, which stops there. But `generate()`
# fills ended rows of a batch **only if there is an end-of-text to look for**. Without one, the text behind your stop is the model's, and you have to cut it off.

# %% [markdown]
# ### Exercise 3: stop after some sentences · difficulty 2 of 3 · 10 minutes
#
# End each row when its new text has as many sentences as asked for. A token closes a sentence if its text ends with `.`,
# `!` or `?`; so `...` is one end, and so is `?!`. Sentences in the prompt do not count.

# %% tags=["exercise"]
def stop_after(tokenizer, prompt_length: int, sentences: int):
    """Return a criterion: a function (input_ids, scores, **kwargs) -> True or False for each row, (batch,)."""
    raise NotImplementedError

# %% tags=["solution"]
def stop_after(tokenizer, prompt_length: int, sentences: int):
    """Return a criterion: a function (input_ids, scores, **kwargs) -> True or False for each row, (batch,)."""

    def criterion(input_ids, scores, **kwargs):
        new = input_ids[:, prompt_length:].tolist()
        closed = [sum(tokenizer.decode([id]).endswith((".", "!", "?")) for id in row) for row in new]
        return torch.tensor(closed, device=input_ids.device) >= sentences

    return criterion


rows = model.generate(**batch, max_new_tokens=24, stopping_criteria=[stop_after(tokenizer, length, 2)])
print([tokenizer.decode(row, skip_special_tokens=True) for row in rows[:, length:]])

# %% [markdown] tags=["solution"]
# The batch is left-padded, so every row's new text begins at the same place. The answer is a tensor with a flag for each
# row, on the ids' device: `generate()` joins the criteria with `|`. Decoding all new tokens at each step is wasteful;
# a table of the closing ids, made once, would do the same.

# %% tags=["check"]
lesson.check_sentences(stop_after)

# %% [markdown] tags=["hints"]
# - The new part is `input_ids[:, prompt_length:]`. Decode its tokens one by one.
# - `text.endswith((".", "!", "?"))` asks for any of the three.
# - Count for each row, and compare: `torch.tensor(counts, device=input_ids.device) >= sentences`.

# %% [markdown]
# ## 9. The whole loop
#
# Prefill and decode, processors, a choice, the ended rows, stopping criteria. The signature is that of
# `generate()`'s own loop, less what we do not need:

# %%
@torch.no_grad()
def loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **inputs):
    unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)  # (batch,)
    given = input_ids  # prefill
    while unfinished.any():
        logits = model(given, **inputs).logits[:, -1].float()  # (batch, vocab)
        scores = logits_processor(input_ids, logits)
        if generation_config.do_sample:
            chosen = torch.multinomial(scores.softmax(-1), num_samples=1)[:, 0]
        else:
            chosen = scores.argmax(-1)  # (batch,)
        chosen = torch.where(unfinished, chosen, generation_config.pad_token_id)
        input_ids = torch.cat([input_ids, chosen[:, None]], dim=1)
        unfinished = unfinished & ~stopping_criteria(input_ids, None)
        given, inputs = chosen[:, None], extended(inputs)  # decode
    return input_ids

# %% [markdown]
# One rule: leave mask, positions and cache in `**inputs`. With `attention_mask` as a parameter of its own, the loop would
# be given it twice, and Python says "got multiple values for keyword argument".

# %% [markdown]
# Does it give the same ids? First with everything made by hand: our own processors, our own stop, a cache and positions as
# in section 5. `generate()` takes no part.

# %%
NEW = 6  # tokens


def by_hand(model, batch, ends, do_sample=False, temperature=1.0, top_k=0):
    end_ids = torch.tensor(ends["eos_token_id"], device=model.device)

    def processors(ids, scores):
        if do_sample:
            scores = scores / temperature
            scores = scores.masked_fill(scores < scores.topk(top_k).values[:, -1:], float("-inf"))
        return scores

    def criteria(ids, scores):
        return torch.isin(ids[:, -1], end_ids) | (ids.shape[1] == batch["input_ids"].shape[1] + NEW)

    config = GenerationConfig(do_sample=do_sample, pad_token_id=ends["pad_token_id"])
    inputs = start(model, batch["attention_mask"])
    return loop(model, batch["input_ids"], processors, criteria, config, **inputs)

# %% [markdown]
# Two models with random weights and the trained one. As ends we take two ids that each is going to write: row 0's second
# token and row 1's first.

# %%
models = {"GPT-2": (small, gpt2), "Llama": load("tiny-llama"), "trained": (model, tokenizer)}
cases = {}
for name, (net, words) in models.items():
    words.pad_token, words.padding_side = words.eos_token, "left"
    rows = words(sentences, padding=True, return_tensors="pt").to(net.device)
    free = net.generate(**rows, max_new_tokens=2, eos_token_id=None, pad_token_id=0)
    cases[name] = (net, rows, {"eos_token_id": [free[0, -1].item(), free[1, -2].item()], "pad_token_id": 0})

# %% [markdown]
# The random numbers are torch's, so the same seed gives the same draws, if both loops draw for the same rows in the same
# order. Each setting is compared over the whole tensor.

# %%
def compare(case, run, seeds=(0,), **settings):
    """Count the seeds for which `run` and generate() return the same tensor, and the rows that ended early."""
    net, rows, ends = case
    equal, early = [], 0
    for seed in seeds:
        torch.manual_seed(seed)
        theirs = net.generate(**rows, **ends, **settings, max_new_tokens=NEW)
        torch.manual_seed(seed)
        equal.append(torch.equal(run(net, rows, ends, **settings), theirs))
        early += (theirs[:, -1] == ends["pad_token_id"]).sum().item()
    return f"{sum(equal)} of {len(equal)}", all(equal), early

# %% [markdown]
# **The result of this lesson**, first half:

# %%
seeds = {"GPT-2": range(2), "Llama": range(2), "trained": range(1)}
drawn = {"do_sample": True, "temperature": 0.7, "top_k": 8}
early_drawn = 0
for name, case in cases.items():
    same, equal, early = compare(case, by_hand)
    same_drawn, equal_drawn, more = compare(case, by_hand, seeds[name], **drawn)
    early_drawn += more
    print(f"{name:8} greedy {same} equal, {early} of 3 rows ended early;  sampled {same_drawn} equal")
    assert equal and equal_drawn and early == 2
assert early_drawn > 0

# %% [markdown]
# Every id of every row, the padding included. Second half: the same loop **inside** `generate()`, which prepares, and
# hands over its own processors, criteria and cache.

# %%
def plugged_in(model, batch, ends, **settings):
    return model.generate(**batch, **ends, **settings, max_new_tokens=NEW, custom_generate=loop)


asked = {
    "greedy": {},
    "greedy, penalties, at least 4": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 4},
    "sampled, temperature, top-p": {"do_sample": True, "temperature": 0.7, "top_p": 0.9},
    "sampled, min-p, twice a prompt": {"do_sample": True, "min_p": 0.1, "num_return_sequences": 2},
}
for label, settings in asked.items():
    results = {name: compare(case, plugged_in, seeds[name], **settings) for name, case in cases.items()}
    print(f"{label:32}", *[f"{name} {same}" for name, (same, _, _) in results.items()], sep="  ")
    assert all(equal for _, equal, _ in results.values())

# %% [markdown]
# That is the loop that `generate()` runs, but for bookkeeping: collecting scores, feeding a streamer, waiting for other
# GPUs. And ours does not know the trap of section 8: it always fills, and so always needs a `pad_token_id`. Now put your
# own processors into `by_hand`, and run the cells again.

# %% [markdown]
# ## 10. Step through it
#
# The course keeps this loop as `decode_steps`, which stops after every turn and shows what it saw:

# %%
from course_utils import decode_steps

settings = {"do_sample": True, "temperature": 0.5, "top_k": 1}  # top_k 1: everybody draws the same
for step in decode_steps(model, batch, max_new_tokens=3, **settings, **ends):
    seen = [("model", step.logits), *step.stages]
    print(f"step {step.index}: {step.cache_length} cached, chosen {step.next_tokens.tolist()}, {step.reasons}")
    print("   row 2:", *[f"{name} {scores[2].softmax(-1)[step.next_tokens[2]]:.2f}" for name, scores in seen])

# %% [markdown]
# Now under your hands: step, step back, and look at the distribution after each processor. Choose another token
# than the model did, and a second branch begins, which goes on by itself. (The top-k of 50 among the processors is that of
# section 2.)

# %% tags=["nbval-ignore-output"]
Stepper(model, tokenizer, sentences[::2], max_new_tokens=4, do_sample=True, temperature=0.7, top_p=0.9, **ends)

# %% [markdown]
# ## 11. Streamers
#
# A streamer receives tokens while they come. It needs two methods, `put` and `end`.

# %%
from transformers.generation.streamers import BaseStreamer, TextStreamer


class Calls(BaseStreamer):
    def put(self, ids):
        print("put", tuple(ids.shape), ids.tolist())

    def end(self):
        print("end")


_ = model.generate(**inputs, max_new_tokens=3, streamer=Calls())

# %% [markdown]
# First the prompt, (batch, length), then each step's tokens, (batch,), then `end()`. The library's own `TextStreamer` prints
# text, and holds it back until a word is whole. It takes one row only.

# %%
_ = model.generate(**inputs, max_new_tokens=14, streamer=TextStreamer(tokenizer, skip_prompt=True))

# %% [markdown]
# ### Exercise 4: stream probabilities · difficulty 3 of 3 · 12 minutes
#
# A streamer gets ids, no scores. A logits processor sees the scores, and one object can be both. Collect in `self.shown`,
# for each new token of one row, the pair of its text and its probability under the scores that the processor is given. The
# prompt is not shown.

# %% tags=["exercise"]
class Probabilities(BaseStreamer):
    """A streamer and a logits processor: shown is a list of (text, probability), one for each new token."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.shown = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The processor: (1, length) and (1, vocab). Keep what you need, and return the scores."""
        raise NotImplementedError

    def put(self, ids: torch.Tensor):
        """The streamer: the prompt first, (1, length), then each new token, (1,)."""
        raise NotImplementedError

    def end(self):
        pass

# %% tags=["solution"]
class Probabilities(BaseStreamer):
    """A streamer and a logits processor: shown is a list of (text, probability), one for each new token."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.shown = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The processor: (1, length) and (1, vocab). Keep what you need, and return the scores."""
        self.probs = scores[0].softmax(-1)  # (vocab,)
        return scores

    def put(self, ids: torch.Tensor):
        """The streamer: the prompt first, (1, length), then each new token, (1,)."""
        if ids.ndim == 1:
            self.shown.append((self.tokenizer.decode(ids), self.probs[ids[0]].item()))

    def end(self):
        pass


both = Probabilities(tokenizer)
_ = model.generate(**inputs, max_new_tokens=5, streamer=both, logits_processor=LogitsProcessorList([both]))
print([f"{text!r} {p:.2f}" for text, p in both.shown])

# %% [markdown] tags=["solution"]
# Each step calls the processor first and `put` after the choice, so the distribution that was kept is the one
# that the token came from. When sampling, it is the one *before* temperature and top-k: user processors come
# earlier. The scores behind all processors come back with `output_scores=True`, as in section 12.

# %% tags=["check"]
lesson.check_streamer(Probabilities)

# %% [markdown] tags=["hints"]
# - In each step `__call__` comes first, and then `put` with the token that was chosen. Keep the distribution in `self`.
# - `put` tells prompt and token apart by the number of dimensions: `ids.ndim`.
# - The softmax of `scores[0]` is a distribution over the vocabulary; `ids[0]` is the place to look at.

# %% [markdown]
# ## 12. What comes back
#
# Ids alone, or an object with all that was collected:

# %%
collect = ("return_dict_in_generate", "output_scores", "output_logits", "output_hidden_states")
collect = dict.fromkeys(collect, True)
out = model.generate(**batch, **ends, max_new_tokens=4, do_sample=True, top_k=5, **collect)
for name, value in out.items():
    shape = tuple(value.shape) if isinstance(value, torch.Tensor) else len(value)
    print(f"{name:16} {type(value).__name__:13} {shape}")

# %% [markdown]
# `scores` and `logits` have an entry for each step, `hidden_states` for each step the embeddings and one for each layer,
# and the cache has 30 layers. `logits` are the model's; `scores` are what the processors left of them. And as in
# lesson 04, the cache lacks the last token, which no pass has read:

# %%
finite = [step[0].isfinite().sum(-1).tolist() for step in (out.logits, out.scores)]
print("finite at the first step: in logits", finite[0], " in scores", finite[1])
print("hidden states in a step:", len(out.hidden_states[0]), end=", ")
print("first and second step:", *[tuple(step[-1].shape) for step in out.hidden_states[:2]])
print("ids in a row:", out.sequences.shape[1], " cached:", out.cache.get_seq_length())

# %% [markdown]
# ## 13. The real loop, and its older names
#
# `_sample` runs greedy decoding too. The notes say where you have met its lines:

# %%
from course_utils import library

library.show(
    "generation.utils.GenerationMixin._sample",
    {
        "unfinished_sequences = torch.ones(": "`unfinished`, as numbers",
        "outputs = self._prefill(": "prefill",
        "while self._has_unfinished_sequences(": "`while unfinished.any()`, over all GPUs",
        "model_inputs = self.prepare_inputs_for_generation(": "decode: the newest token only",
        "model_kwargs = self._update_model_kwargs_for_generation(": "`extended(inputs)`",
        "next_token_logits = outputs.logits[:, -1]": "in float32, whatever the model's type",
        "next_token_scores = logits_processor(": "section 7",
        "torch.multinomial(": "sampled",
        "torch.argmax(": "greedy: the same function, one line",
        "if has_eos_stopping_criteria:": "the trap of section 8",
        "next_tokens = next_tokens * unfinished_sequences": "`torch.where(unfinished, chosen, pad)`",
        "unfinished_sequences = unfinished_sequences & ~stop": "section 8",
        "this_peer_finished = stop_check(": "feeds the streamer; True when all rows are done",
    },
    context=0,
)

# %% [markdown]
# Older articles know other names. Up to about version 4.40 each way of decoding was a method of its own, and greedy
# and sampling were two loops. Each entry is tried out as the cell runs; `S0` and `S1` are two such articles:

# %%
for name in ("greedy_search", "sample", "_get_logits_warper"):
    print(library.where(name))

# %% [markdown]
# The [appendix](appendix_version_map.ipynb) has the whole map, from the older names to those of the installed version.

# %% [markdown]
# ## 14. Find the bug
#
# Three loops that run without an error. Each has **one** wrong line. They keep no cache, which is slower, and gives the
# same ids. First what they write, for the batch and the ends of section 6:

# %%
from course_utils.lessons.lesson05 import broken_loops as loops

given = (model, batch.input_ids, batch.attention_mask, ends["eos_token_id"], ends["pad_token_id"], 5)
theirs = loops.generated(*given)[:, length:]
for letter in loops.LETTERS:
    written = loops.run(loops.source(letter), *given)[:, length:]
    print(f"loop {letter}:", *[repr(tokenizer.decode(row)) for row in written], sep="\n    ")
print("generate():", *[repr(tokenizer.decode(row)) for row in theirs], sep="\n    ")

# %%
for letter in loops.LETTERS:
    print(f"loop {letter}\n{loops.numbered(letter)}\n")

# %% [markdown]
# ### Exercise 5: mend them · difficulty 3 of 3 · 12 minutes
#
# For each loop give the number of the wrong line and the line that belongs there. (`end_ids` is a tensor in these.) The
# check runs the mended loops on two other batches, and compares.

# %% tags=["exercise"]
mended = ...  # such as {"A": (3, "for _ in range(new_tokens):"), "B": (…), "C": (…)}

# %% tags=["solution"]
mended = {
    "A": (10, "if done.all():"),
    "B": (10, "unfinished = unfinished & ~torch.isin(chosen, end_ids)"),
    "C": (6, "last = -1"),
}

# %% [markdown] tags=["solution"]
# **A** stops all rows with the first that ends. **B** forgets that a row had ended: the padding is no end, so two steps
# later the row writes again. **C** reads each row's logits at the number of its tokens, less one. That is the last token
# where padding is on the right; on the left it is some earlier place, in short rows a filler.

# %% tags=["check"]
lesson.check_loops(mended)

# %% [markdown] tags=["hints"]
# - Look at the texts first. Which is too short? Which goes on behind its end? Which is right in the row without padding?
# - A and B are wrong about rows that have ended. Go through two steps by hand, with one row that ends and one that does not.
# - C: at which place of the row does it read the logits? Put in the mask of "My dog is", five fillers and three tokens.

# %% [markdown]
# ## Recap
#
# - **Who wins:** the call, the config you pass, the model's config, the defaults. None in the call switches off, None in
#   a config says nothing. Sampling has a `top_k=50` that nobody asked for.
# - **The loop:** prefill, then per step: logits of the last place, processors, a choice, padding for ended rows, append,
#   criteria, mask and position one further.
# - **Your parts:** processors come before those of sampling; criteria answer for each row; a streamer gets the prompt first.
# - **Bugs:** one row's end is not the batch's, an ended row stays ended, logits are read at the last place.
# - **The source:** `generate()` prepares, `_sample` loops. Warpers are processors now.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# Short and worth reading, in the installed library:

# %%
from transformers import GenerationMixin, TopKLogitsWarper

for function in (
    GenerationMixin._prepare_generation_config,
    GenerationMixin._get_logits_processor,
    TopKLogitsWarper.__call__,
    StoppingCriteriaList.__call__,
):
    _, line = inspect.getsourcelines(function)
    print(f"{function.__module__}, line {line}: {function.__qualname__}")

# %% [markdown]
# `course_utils/decoding/steps.py` holds this lesson's loop once more, turned inside out so that it can be stepped through.
#
# Next, [lesson 06](06_decoding.ipynb): the choice itself. What temperature, top-k, top-p and their kin do to a distribution, and what beam
# search does instead.
