# %% [markdown]
# # What does generate() do, step by step?
#
# **By the end, a loop of about twenty lines will return exactly the ids of `model.generate`, on a left-padded batch
# whose rows end at different steps, greedy and sampled, for three models; and it will run inside the real
# `generate()` too.**
#
# You will be able to
#
# - say which value wins when the call, a config that you pass, the model's config and the defaults disagree,
# - write the loop: prefill, decode, choose, fill the rows that have ended, stop,
# - write a logits processor, a stopping criterion and a streamer, and say when each is called,
# - recognise the usual bugs of such loops by the text that they write,
# - open the installed source at the lines that matter, and translate the names in older articles.
#
# *85 minutes, and 50 more for the exercises. You need: lessons 02 to 04.*

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
# The same ids, as far as `generate()` goes. It stops at `<|im_end|>`; our three lines do not know that a text can
# end. They also start again from the first token at each step, take only rows of one length, cannot sample, take no
# settings, and show nothing until they are done. This lesson adds what is missing, one piece at a time:
#
# ![One step of generate(): logits, processors, the choice of a token, rows that have ended, stopping criteria, and back](images/generate_step.svg)

# %% [markdown]
# ## 2. Where does each argument go?
#
# `generate()` has few parameters of its own. (`warnings_on_the_page` makes transformers' messages appear here.)

# %%
import inspect

page = lesson.warnings_on_the_page()

print(", ".join(inspect.signature(model.generate).parameters))

# %% [markdown]
# `temperature` is not among them, nor is `max_new_tokens`. They are settings of a `GenerationConfig`, and come in
# through `kwargs`. So what does `generate()` make of a call? We can ask it: `custom_generate=` takes a function that
# **replaces its loop** and receives everything that was prepared. Ours returns all of it.

# %%
def handed_over(model, input_ids, **prepared):
    return {"input_ids": input_ids, **prepared}


def prepare(**arguments):
    return model.generate(**inputs, **arguments, custom_generate=handed_over)


for name, value in prepare(max_new_tokens=4).items():
    print(f"{name:18} {type(value).__name__}")

# %% [markdown]
# No token was generated. These nine things are what the loop has to work with, and we will go through all of them.
# First `generation_config`: the result once every source of settings has been consulted. One setting is `do_sample`:
# if it is True, each token is drawn at random, according to its probability.

# %%
Predict(lesson.predict_top_k)

# %% tags=["answer"]
print("with do_sample=True and nothing else:")
settled = prepare(max_new_tokens=4, do_sample=True)["generation_config"]
print("top_k", settled.top_k, "  top_p", settled.top_p, "  temperature", settled.temperature)

# %% [markdown]
# Only the tokens with the 50 largest logits can be drawn. Nobody asked for that: neither a new `GenerationConfig` nor
# this model's own says anything about `top_k`. It is the library's default, used where no one else has an opinion.
# (Section 12 says who wins when they disagree; lesson 06, what these settings do.)

# %%
from transformers import GenerationConfig

print("a new one:", GenerationConfig().top_k, "  the model's:", model.generation_config.top_k)
for top_k in (30, None):
    made = prepare(max_new_tokens=4, do_sample=True, top_k=top_k)["logits_processor"]
    print(f"top_k={top_k} in the call:", [type(processor).__name__ for processor in made])

# %% [markdown]
# ## 3. What is prepared
#
# From now on we use the batch of lesson 02, padded on the left:

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
# The mask is ours, and the position ids are those of lesson 02. With `logits_to_keep=1` the head computes logits for
# the last token only. The cache is an empty `DynamicCache`; `use_cache=False` would do without. A mask without padding
# is all ones and hides nothing, so it is dropped, as here for one prompt. With `num_return_sequences`, each prompt is
# repeated:

# %%
print("cached so far:", prepared["cache"].get_seq_length())
print("the mask of one prompt:", prepare(max_new_tokens=4)["attention_mask"])
twice = model.generate(**batch, max_new_tokens=4, do_sample=True, num_return_sequences=2, custom_generate=handed_over)
print("two sequences for each prompt:", tuple(twice["input_ids"].shape))

# %% [markdown]
# ## 4. Prefill and decode
#
# With a hook we can watch, from outside, what the model is given at each step:

# %%
def watch(**arguments):
    seen = []

    def note(module, args, given):
        seen.append({**given, "cached": given["cache"].get_seq_length()})

    with model.register_forward_pre_hook(note, with_kwargs=True):  # removed when the block ends
        ids = model.generate(**batch, **arguments)
    return ids, seen


_, seen = watch(max_new_tokens=4)
for step, given in enumerate(seen):
    shapes = tuple(given["input_ids"].shape), tuple(given["attention_mask"].shape)
    print(f"step {step}: ids {shapes[0]}, mask {shapes[1]}, cached {given['cached']:2}", end=", ")
    print("position ids", given["position_ids"][:, -1].tolist(), "of the last token")

# %% [markdown]
# The same for row 2, as a picture. Each pass reads the new columns, and finds the others in the cache. The numbers are
# position ids; those of padding are 0, too.

# %%
from course_utils.plots import grid, grouped_bars

kinds = ("read in this pass", "from the cache", "not there yet")
passes = []
for given in seen:
    new = given["position_ids"][2].tolist()  # row 2, "My dog is", has five padding tokens
    cached = passes[-1][: given["cached"]] if passes else []
    row = [(text, kinds[1]) for text, _ in cached] + [(str(number), kinds[0]) for number in new]
    passes.append(row + [("", kinds[2])] * (length + 3 - len(row)))
grid(passes, "Row 2: prefill, then three times decode", kinds, rows=[f"pass {step}" for step in range(4)])

# %% [markdown]
# The first pass takes the whole prompt: **prefill**. From then on, each pass takes one token per row: **decode**. At
# each step the mask gets another 1, each row's position id grows by 1, and the cache holds the rest. The method
# `prepare_inputs_for_generation` selects what the model still needs. Our loop does it in one line, with a helper:

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
        given, inputs = chosen[:, None], extended(inputs)  # decode: one token per row
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
# The call has `eos_token_id=None`: without an end-of-text the two agree, and both continue row 0 after its
# `<|im_end|>`.

# %% [markdown]
# ## 5. Rows that have ended
#
# A text ends at the `eos_token_id` of the generation config; the tokenizer is not asked. It can be a list of ids. To
# see rows end early in a short run, we add the id of the full stop. To tell padding from an end, we pad with id 0.
# Its name is that of GPT-2's end, `<|endoftext|>`, but it is not in our list, so here it ends nothing.

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
kinds = ("written", "the row's end", "computed in vain")
drawn = []
for row in ended[:, length:].tolist():
    print(row)
    last = next((at for at, id in enumerate(row) if id in ends["eos_token_id"]), len(row))
    drawn.append([(str(id), kinds[(at >= last) + (at > last)]) for at, id in enumerate(row[:7])])
grid(drawn, "The first seven steps of three rows", kinds, rows=["row 0", "row 1", "row 2"])

# %% [markdown]
# Rows 0 and 1 end with their full stop, 30, at the second step. Row 2 writes 18 more tokens, and all the while the
# model computes all three rows. The tokens chosen for the ended rows are replaced by padding. Their masks get further
# 1s, which does no harm: an ended row's logits are thrown away, and rows do not see each other.
#
# So the loop keeps a flag for each row, `unfinished`: True until the row has ended. Two functions help with flags:
# `torch.where` picks from two tensors, and `torch.isin` asks for each element whether it is one of several.

# %%
tokens, flags = torch.tensor([5, 30, 7]), torch.tensor([True, True, False])
torch.where(flags, tokens, 0), torch.isin(tokens, torch.tensor([2, 30]))

# %% [markdown]
# ### Exercise 1: Update the finished rows · difficulty 2 of 3 · 8 minutes
#
# One step has chosen a token for every row. In rows that had ended before this step, replace it by the padding token,
# and update the flags. Any of `end_ids` ends a row, and the row keeps that token. Leave the tensors that you are
# given unchanged.

# %% tags=["exercise"]
def finish(
    next_tokens: torch.Tensor, unfinished: torch.Tensor, end_ids: list[int], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return next_tokens and unfinished after this step; both (batch,), unfinished a boolean tensor."""
    raise NotImplementedError

# %% tags=["solution"]
def finish(
    next_tokens: torch.Tensor, unfinished: torch.Tensor, end_ids: list[int], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return next_tokens and unfinished after this step; both (batch,), unfinished a boolean tensor."""
    next_tokens = torch.where(unfinished, next_tokens, pad_id)
    ended = torch.isin(next_tokens, torch.tensor(end_ids, device=next_tokens.device))
    return next_tokens, unfinished & ~ended

# %% [markdown] tags=["solution"]
# The order matters: first pad according to the *old* flags, then update them. The other way round, a row would lose
# its own end-of-text. And `unfinished &` keeps a row finished, whatever comes later: a padding token by itself does
# not end a row.

# %% tags=["check"]
lesson.check_finish(finish)

# %% [markdown] tags=["hints"]
# - Which flags decide whose token is replaced: those from before this step, or those from after it?
# - `torch.where(unfinished, next_tokens, pad_id)` replaces. `torch.isin(next_tokens, torch.tensor(end_ids))` finds
#   any of several ids.
# - A row is unfinished after this step if it was unfinished before *and* its token is not an end.

# %% [markdown]
# ## 6. Logits processors
#
# Between the logits and the choice there is a list of functions. Each takes the ids so far, (batch, length), and
# **processed scores**, (batch, vocab): the logits as the functions before it have changed them. It returns processed
# scores. (The attention scores of lesson 03 are other numbers.) `generate()` builds the list from the settings:

# %%
asked = {"renormalize_logits": True, "top_p": 0.9, "temperature": 0.7, "min_new_tokens": 2, "min_p": 0.05, "top_k": 40}
asked |= {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "suppress_tokens": [30]}
for processor in prepare(max_new_tokens=4, do_sample=True, **asked)["logits_processor"]:
    print(type(processor).__name__)

# %% [markdown]
# The order is the library's, not the call's. (`min_new_tokens` creates the two whose names begin with `Min` and end with
# `LengthLogitsProcessor`.) Those named **Warper** belong to
# sampling. In older versions they formed a second list, `logits_warper`, made by `_get_logits_warper`. That list is
# gone; the class names have stayed.

# %% [markdown]
# You can add your own. This one forbids every token that contains a certain letter, except special tokens, and
# records how many processed scores were finite when it was called:

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
print("finite processed scores when our processor is called:")
_ = model.generate(**inputs, max_new_tokens=1, do_sample=True, top_k=5, logits_processor=LogitsProcessorList([no_e]))
print(no_e.finite[0], "of", model.config.vocab_size)

# %%
added = {"top_k": 5, "repetition_penalty": 1.2, "logits_processor": LogitsProcessorList([no_e])}
for do_sample in (True, False):
    listed = prepare(max_new_tokens=4, do_sample=do_sample, **added)["logits_processor"]
    print(f"do_sample={do_sample}:", [type(processor).__name__ for processor in listed])

# %% [markdown]
# **Your processors come after the penalties and bans, and before those of sampling**, which are left out with
# `do_sample=False`. So what you return is still divided by the temperature and filtered by top-k, even if yours is a
# temperature: then both act, one after the other. (Only `LogitNormalization` follows everything.) Temperature and top-p,
# which keeps the likeliest tokens until they have that much probability, show that the order can matter. (Neither looks
# at the ids, so we give None.)

# %%
asked = {"do_sample": True, "temperature": 0.4, "top_p": 0.5, "top_k": None}
heat, cut = prepare(max_new_tokens=4, **asked)["logits_processor"]
with torch.no_grad():
    scores = model(**inputs).logits[:, -1]  # (batch, vocab)
first_heat = cut(None, heat(None, scores)).isfinite().sum().item()
first_cut = heat(None, cut(None, scores)).isfinite().sum().item()
print(f"{type(heat).__name__} first: {first_heat} tokens kept; {type(cut).__name__} first: {first_cut}")
steps = {"logits": scores, "temperature": heat(None, scores), "then top-p": cut(None, heat(None, scores))}
top = scores[0].topk(5).indices.tolist()
bars = {
    repr(tokenizer.decode(id)): {name: round(100 * s[0].softmax(-1)[id].item(), 1) for name, s in steps.items()} for id in top
}
grouped_bars(bars, "The five likeliest tokens, after each step", "probability in %")

# %% [markdown]
# ### Exercise 2: Write temperature and top-k as processors · difficulty 2 of 3 · 10 minutes
#
# Write both as processors. The temperature divides. Top-k keeps the `top_k` largest values in each row of `scores`,
# and any that tie with the last of these; all others become −∞. `top_k` may exceed the size of the vocabulary. Leave
# the tensors that you are given unchanged.

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
# `topk(k).indices` would be one way to say what stays, but it breaks ties in an order that nobody promises. Comparing
# with the k-th value keeps all ties, as the library does. Return a new tensor each time: with `output_logits=True`,
# `generate()` keeps the raw logits, and a processor that works in place would change them.

# %% tags=["check"]
lesson.check_processors(sampling_processors)

# %% [markdown] tags=["hints"]
# - A function inside your function can use `temperature` and `top_k`; return a list of two such functions.
# - `scores.topk(k).values[:, -1:]` is the smallest value that stays, one for each row.
# - `masked_fill` returns a new tensor. `scores /= temperature` and `scores[...] = …` change the one you were given.

# %% [markdown]
# ## 7. Stopping criteria
#
# A stopping criterion takes the ids, and says for each row whether it is done. (Its argument `scores` is `None`,
# unless `generate()` is asked to collect them.) One checks the length and one looks for end-of-text; `max_time`, in
# seconds, adds a third, and yours follow:

# %%
from transformers import StoppingCriteria, StoppingCriteriaList


class AtNewline(StoppingCriteria):
    newline = tokenizer.encode("\n")[0]

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] == self.newline  # (batch,)


stop = {"stopping_criteria": StoppingCriteriaList([AtNewline()])}
print([type(criterion).__name__ for criterion in prepare(max_new_tokens=4, max_time=60.0, **stop)["stopping_criteria"]])

# %% [markdown]
# A row is done as soon as **one** criterion says so, and the loop ends when all rows are done. Row 0 writes a line
# break, 198, at its third step. We run the batch with and without an end-of-text, then row 0 alone, without one:

# %%
rows = model.generate(**batch, max_new_tokens=6, pad_token_id=0, **stop)[:, length:]
no_end = model.generate(**batch, max_new_tokens=6, pad_token_id=0, eos_token_id=None, **stop)[:, length:]
print("with end-of-text:   ", rows[0].tolist())
print("without end-of-text:", no_end[0].tolist())
row_0 = {name: tensor[:1] for name, tensor in batch.items()}
alone = model.generate(**row_0, max_new_tokens=6, pad_token_id=0, eos_token_id=None, **stop)[:, length:]
print("alone:              ", alone[0].tolist())

# %% [markdown]
# The second line is a trap. The row counts as done in all three runs: the third run stops there. But `generate()`
# pads the ended rows of a batch **only if there is an end-of-text to look for**. Without one, the text after your
# stop is whatever the model writes, and you have to cut it off.

# %% [markdown]
# For text instead of ids there is `stop_strings`, which needs the tokenizer. The string is looked for in the text, so it
# may begin or end inside a token, and the text keeps it. A row stops where it stops alone; what follows is padding:

# %%
words = {"stop_strings": ["sky", "pizza."], "tokenizer": tokenizer, "max_new_tokens": 9}
rows = model.generate(**batch, **words)[:, length:]
for row, sentence in zip(rows, sentences):
    one = tokenizer(sentence, return_tensors="pt").to(model.device)
    alone = model.generate(**one, **words)[0, one.input_ids.shape[1] :]
    assert torch.equal(row[: len(alone)], alone) and set(row[len(alone) :].tolist()) <= {tokenizer.pad_token_id}
    print(repr(tokenizer.decode(alone)))

# %% [markdown]
# ### Exercise 3: Stop after some sentences · difficulty 2 of 3 · 10 minutes
#
# End each row once its new text has at least the number of sentences asked for. A token closes a sentence if its text
# ends with `.`, `!` or `?`; so the token `...` is one end, and so is `?!`. Sentences in the prompt do not count.

# %% tags=["exercise"]
def stop_after(tokenizer, prompt_length: int, sentences: int):
    """Return a criterion: a function (input_ids, scores, **kwargs) -> a boolean tensor (batch,)."""
    raise NotImplementedError

# %% tags=["solution"]
def stop_after(tokenizer, prompt_length: int, sentences: int):
    """Return a criterion: a function (input_ids, scores, **kwargs) -> a boolean tensor (batch,)."""

    def criterion(input_ids, scores, **kwargs):
        new = input_ids[:, prompt_length:].tolist()
        closed = [sum(tokenizer.decode([id]).endswith((".", "!", "?")) for id in row) for row in new]
        return torch.tensor(closed, device=input_ids.device) >= sentences

    return criterion


rows = model.generate(**batch, max_new_tokens=24, stopping_criteria=[stop_after(tokenizer, length, 2)])
print([tokenizer.decode(row, skip_special_tokens=True) for row in rows[:, length:]])

# %% [markdown] tags=["solution"]
# The batch is left-padded, so every row's new text begins at the same index. The criterion returns a tensor with one
# flag for each row, on the ids' device: `generate()` combines the criteria with `|`. Decoding all new tokens at each
# step is wasteful; a table of the closing ids, built once, would do the same.

# %% tags=["check"]
lesson.check_sentences(stop_after)

# %% [markdown] tags=["hints"]
# - The new part is `input_ids[:, prompt_length:]`. Decode its tokens one by one.
# - `text.endswith((".", "!", "?"))` tests for any of the three.
# - Count for each row, and compare: `torch.tensor(counts, device=input_ids.device) >= sentences`.

# %% [markdown]
# ## 8. The whole loop
#
# Prefill and decode, processors, a choice, padding for ended rows, stopping criteria. The signature is that of
# `generate()`'s own loop, without what we do not need:

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
# One rule: leave the mask, the position ids and the cache in `**inputs`. If `attention_mask` were a named parameter,
# the loop would be given it twice, and Python would say "got multiple values for keyword argument".
#
# Does it return the same ids? First with everything made by hand: our own processors, our own stopping criterion, a
# cache and position ids as in section 4. `generate()` is not involved.

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
# We use two models with random weights and the trained one. As ends we take two ids that each model is going to
# write: row 0's second token and row 1's first.

# %%
small, gpt2 = load("tiny-gpt2")
models = {"GPT-2": (small, gpt2), "Llama": load("tiny-llama"), "trained": (model, tokenizer)}
cases = {}
for name, (net, words) in models.items():
    words.pad_token, words.padding_side = words.eos_token, "left"
    rows = words(sentences, padding=True, return_tensors="pt").to(net.device)
    free = net.generate(**rows, max_new_tokens=2, eos_token_id=None, pad_token_id=0)
    cases[name] = (net, rows, {"eos_token_id": [free[0, -1].item(), free[1, -2].item()], "pad_token_id": 0})

# %% [markdown]
# The random numbers come from torch, so the same seed gives the same draws if both loops draw for the same rows in
# the same order. For each setting we compare the whole tensor.

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
# Every id of every row is equal, padding included. Second half: the same loop **inside** `generate()`, which prepares
# the inputs and passes its own processors, criteria and cache.

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
# That is the loop that `generate()` runs, apart from bookkeeping: collecting outputs, feeding a streamer, waiting for
# other GPUs. And ours does not have the trap of section 7: it always pads ended rows, and so always needs a
# `pad_token_id`. Now let `processors` in `by_hand` call your functions of exercise 2, and run `by_hand` and the first
# half again.

# %% [markdown]
# ## 9. Step through it
#
# The course provides this loop as `decode_steps`, which stops after every step and shows what happened:

# %%
from course_utils import decode_steps

settings = {"do_sample": True, "temperature": 0.5, "top_k": 1}  # with top_k 1 every run draws the same token
for step in decode_steps(model, batch, max_new_tokens=3, **settings, **ends):
    seen = [("model", step.logits), *step.stages]
    print(f"step {step.index}: {step.cache_length} cached, chosen {step.next_tokens.tolist()}, {step.reasons}")
    print("   row 2:", *[f"{name} {scores[2].softmax(-1)[step.next_tokens[2]]:.2f}" for name, scores in seen])

# %% [markdown]
# Now try it yourself: step forward, step back, and look at the distribution after each processor. Choose a token other
# than the model's, and a second branch begins, which continues on its own. In the timeline, point at a cell:
# the line of the library's loop that made it is marked. (The top-k of 50 among the processors is the one from
# section 2.)

# %% tags=["nbval-ignore-output"]
Stepper(model, tokenizer, sentences[::2], max_new_tokens=3, do_sample=True, temperature=0.7, top_p=0.9, **ends)

# %% [markdown]
# With `loop=`, the stepper walks through a loop of yours instead. The lines under the timeline are then your own, and
# it says whether your ids are `generate()`'s. Change a line of `loop` in section 8, and see what it says:

# %%
print(Stepper(model, tokenizer, sentences, loop=loop, max_new_tokens=6, **ends).verdict)

# %% [markdown]
# ## 10. Streamers
#
# A streamer receives tokens as they are generated. It needs two methods, `put` and `end`.

# %%
from transformers.generation.streamers import BaseStreamer, TextStreamer


class Calls(BaseStreamer):
    def put(self, ids):
        print("put", tuple(ids.shape), ids.tolist())

    def end(self):
        print("end")


_ = model.generate(**inputs, max_new_tokens=3, streamer=Calls())

# %% [markdown]
# First comes the prompt, (batch, length), then each step's tokens, (batch,), then `end()`. The library's own
# `TextStreamer` prints text. Letters and digits appear at once. Other signs may be parts of a longer one, so it holds
# them back until the next space or line break. It takes only one row.

# %%
_ = model.generate(**inputs, max_new_tokens=14, streamer=TextStreamer(tokenizer, skip_prompt=True))

# %% [markdown]
# For a web page or a chat you want to *ask* for the next piece instead. `TextIteratorStreamer` is an iterator; `generate()`
# runs in a thread of its own. (A piece may be empty: the full stop waits.) With beam search (lesson 06), which writes
# several texts side by side, there is no streaming: each of them may still be dropped.

# %%
from threading import Thread

from transformers import TextIteratorStreamer

pieces = TextIteratorStreamer(tokenizer, skip_prompt=True)
thread = Thread(target=model.generate, kwargs=dict(inputs, max_new_tokens=6, streamer=pieces))
thread.start()
print(list(pieces))
thread.join()
try:
    model.generate(**inputs, max_new_tokens=3, num_beams=2, streamer=TextStreamer(tokenizer))
except ValueError as error:
    print("with beams:", error)

# %% [markdown]
# ### Exercise 4: Stream tokens with their probabilities · difficulty 3 of 3 · 12 minutes
#
# A streamer gets ids and nothing else. A logits processor sees the processed scores, and one object can be both. For
# each new token of one row, collect a pair in `self.shown`: its text, and its probability under the `scores` that the
# processor is given. Leave out the prompt.

# %% tags=["exercise"]
class Probabilities(BaseStreamer):
    """A streamer and a logits processor: shown is a list of (text, probability), one for each new token."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.shown = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The processor: (1, length) and (1, vocab). Store what you need, and return `scores`."""
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
        """The processor: (1, length) and (1, vocab). Store what you need, and return `scores`."""
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
# Each step calls the processor first and `put` after the choice, so the stored distribution is the one that belongs
# to the token. When sampling, it is the distribution *before* temperature and top-k: your processors come earlier.
# The processed scores after all processors are returned with `output_scores=True`, as in section 11.

# %% tags=["check"]
lesson.check_streamer(Probabilities)

# %% [markdown] tags=["hints"]
# - In each step `__call__` comes first, and then `put` with the token that was chosen. Store the distribution in
#   `self`.
# - `put` can tell the prompt from a new token by the number of dimensions: `ids.ndim`.
# - The softmax of `scores[0]` is a distribution over the vocabulary; `ids[0]` is the index to look up.

# %% [markdown]
# ## 11. What comes back
#
# `generate()` returns ids alone, or an object with everything that was collected:

# %%
collect = ("return_dict_in_generate", "output_scores", "output_logits", "output_hidden_states")
collect = dict.fromkeys(collect, True)
out = model.generate(**batch, **ends, max_new_tokens=4, do_sample=True, top_k=5, **collect)
for name, value in out.items():
    shape = tuple(value.shape) if isinstance(value, torch.Tensor) else len(value)
    print(f"{name:16} {type(value).__name__:13} {shape}")

# %% [markdown]
# `scores` and `logits` have one entry per step. For each step `hidden_states` has the embeddings and one entry per
# layer, and the cache has 30 layers. `logits` are the model's; `scores` are the processed scores, after all
# processors. And as in lesson 04, the cache does not hold the last token, which no pass has read:

# %%
finite = [step[0].isfinite().sum(-1).tolist() for step in (out.logits, out.scores)]
print("finite at the first step: in logits", finite[0], " in scores", finite[1])
print("hidden states in a step:", len(out.hidden_states[0]), end=", ")
print("first and second step:", *[tuple(step[-1].shape) for step in out.hidden_states[:2]])
print("ids in a row:", out.sequences.shape[1], " cached:", out.cache.get_seq_length())

# %% [markdown]
# ### A second turn
#
# A chat goes on after the answer. The cache of the first turn can be handed to the next call, `cache=`, with the ids of
# the *whole* text; only what is new is read. The ids are those of a fresh call:

# %%
first = model.generate(**inputs, max_new_tokens=6, return_dict_in_generate=True)
more = tokenizer(" And tomorrow", return_tensors="pt").input_ids.to(model.device)
whole = torch.cat([first.sequences, more], dim=1)  # (1, length)
turn = {"attention_mask": torch.ones_like(whole), "max_new_tokens": 6}
fresh = model.generate(whole, **turn)
print("cached:", first.cache.get_seq_length(), "of", whole.shape[1])
assert torch.equal(model.generate(whole, **turn, cache=first.cache), fresh)
print(repr(tokenizer.decode(fresh[0, whole.shape[1] :])))

# %% [markdown]
# But the cache does not know its text. If something before its end has changed, the old keys and values are used all
# the same, without a message; [lesson 04](04_forward_pass.ipynb) showed it. Keep the ids beside the cache.

# %% [markdown]
# ## 12. Who wins?
#
# A setting can come from four sources: the call, a config that you pass, the model's config, and the library's
# defaults. We let them disagree about seven settings, and look at which value is used.

# %%
from transformers.utils import logging as library_log

library_log.set_verbosity_error()  # its messages about this are shown below


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
disagree = {  # the values in the model's config, the passed config and the call
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
# **The call, then the config you pass, then the model's, then the defaults.** In a config, None means "not set": a hole,
# through which the next source is seen. In the call, None is a value for these settings, and it stays. Here is the row of
# `top_k` as a picture, the highest source on top:

# %%
layers = {"the call": ["", "", "", "30", "", "None"], "a passed config": ["", "", "20", "20", "None", ""],
          "the model's config": ["", "10", "10", "10", "10", "10"], "the defaults": ["50"] * 6}  # fmt: skip
used = ["50", *[str(value) for value in who_wins("top_k", 10, 20, 30)[1:]]]
cells = [[(value, "not used") for value in row] for row in layers.values()]
for column, name in enumerate(("the defaults", "the model's config", "a passed config", "the call", "the model's config", "the call")):
    row = list(layers).index(name)
    assert layers[name][column] == used[column]
    cells[row][column] = (used[column], "used")
grid(cells, "Which top_k is used?", ("used", "not used"), rows=list(layers),
     columns=["as it comes", "model says", "+ passed", "+ call", "passed None", "call None"])  # fmt: skip

# %% [markdown]
# Not every setting takes a None in the call. `max_new_tokens=None` counts as not given; with the others, a None is not
# expected, and the library stops with a TypeError that does not help:

# %%
for name in ("max_new_tokens", "max_length", "num_beams", "num_return_sequences"):
    try:
        print(f"{name}=None: max_length becomes", prepare(**{name: None})["generation_config"].max_length)
    except TypeError as error:
        print(f"{name}=None: TypeError, {error}")
library_log.set_verbosity_warning()

# %% [markdown]
# The library warns where two sources are mixed, and where a setting has no effect:

# %%
page.forget()  # some messages appear only once per kernel
_ = prepare(generation_config=GenerationConfig(max_new_tokens=4), num_beams=1)
_ = prepare(max_new_tokens=4, temperature=0.7)

# %% [markdown]
# Passing a config *and* separate settings will stop working in a later version. And a temperature without
# `do_sample=True` has no effect. Other calls are refused before anything is computed. A misspelt setting is taken for
# an argument of the model's `forward`, which does not know it:

# %%
import textwrap

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
# ### How long?
#
# `max_length` counts the prompt, `max_new_tokens` does not. What if neither is given? The tiny GPT-2 is enough to find
# out.

# %%
Predict(lesson.predict_length)

# %%
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
# The default `max_length` is 20. Unlike a length that you set, it is counted from the end of the prompt; the warning
# prints the sum. Pass `max_new_tokens`, and none of this matters.

# %% [markdown]
# ## 13. The real loop, and its older names
#
# `_sample` runs greedy decoding too. The notes say where you have met each line:

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
        "next_token_scores = logits_processor(": "section 6",
        "torch.multinomial(": "sampled",
        "torch.argmax(": "greedy: the same function, one line",
        "if has_eos_stopping_criteria:": "the trap of section 7",
        "next_tokens = next_tokens * unfinished_sequences": "`torch.where(unfinished, chosen, pad)`",
        "unfinished_sequences = unfinished_sequences & ~stop": "section 7",
        "this_peer_finished = stop_check(": "feeds the streamer; True when all rows are done",
    },
    context=0,
)

# %% [markdown]
# Older articles use other names. Up to about version 4.40 each decoding strategy was a separate public method. Today
# they are private, and greedy decoding and sampling have become one; `_beam_search` and `_assisted_decoding` are still
# methods of their own. Each entry is tested as the cell runs, and ✔ says that what it claims is so, an error too. `S0`
# and `S1` stand for two such articles; the appendix has more:

# %%
for name in ("greedy_search", "sample", "_get_logits_warper"):
    print(library.where(name))

# %% [markdown]
# The [appendix](appendix_version_map.ipynb) has the complete map, from the older names to those of the installed
# version.
#
# ## 14. Find the bug
#
# Here are three loops that run without an error. Each has **one** wrong line. They keep no cache, which is slower but
# gives the same ids. First, what they write for the batch and the ends of section 5:

# %%
from course_utils.lessons.lesson05 import broken_loops as loops

given = (model, batch.input_ids, batch.attention_mask, ends["eos_token_id"], ends["pad_token_id"], 5)
theirs = loops.generated(*given)[:, length:]
for letter in loops.LETTERS:
    written = loops.run(loops.source(letter), *given)[:, length:]
    print(f"loop {letter}:", *[repr(tokenizer.decode(row)) for row in written], sep="\n    ")
print("generate():", *[repr(tokenizer.decode(row)) for row in theirs], sep="\n    ")
for letter in loops.LETTERS:
    print(f"loop {letter}\n{loops.numbered(letter)}\n")

# %% [markdown]
# ### Exercise 5: Find the bug in three loops · difficulty 3 of 3 · 12 minutes
#
# For each loop, give the number of the wrong line and the line that should replace it. (`end_ids` is a tensor here.)
# The check runs the fixed loops on two other batches, and compares them with `generate()`.

# %% tags=["exercise"]
mended = ...  # such as {"A": (3, "for _ in range(new_tokens):"), "B": (…), "C": (…)}

# %% tags=["solution"]
mended = {
    "A": (10, "if done.all():"),
    "B": (10, "unfinished = unfinished & ~torch.isin(chosen, end_ids)"),
    "C": (6, "last = -1"),
}

# %% [markdown] tags=["solution"]
# **A** stops all rows when the first one ends. **B** forgets that a row had ended: a padding token is not an end, so
# two steps later the row writes again. **C** reads each row's logits at the number of its tokens minus one. With
# padding on the right, that is the index of the last token; with padding on the left, it is an earlier index, which
# in short rows holds a padding token.

# %% tags=["check"]
lesson.check_loops(mended)

# %% [markdown] tags=["hints"]
# - Look at the texts first. Which is too short? Which continues after its end? Which is right in the row without
#   padding?
# - A and B go wrong at rows that have ended. Work through two steps by hand, with one row that ends and one that does
#   not.
# - C: at which index of the row does it read the logits? Try the mask of "My dog is": five padding tokens and three
#   tokens.

# %% [markdown]
# ## Recap
#
# - **Who wins:** the call, then the config you pass, the model's config, the defaults. In the call `top_k=None`
#   switches the filter off; in a config None means "not set". Sampling has a `top_k=50` that nobody asked for.
# - **The loop:** prefill, then at each step: the last token's logits, processors, a choice, padding for ended rows,
#   append, criteria, and extending the mask and position ids.
# - **Your parts:** your processors come before those of sampling; criteria return a flag for each row; a streamer
#   gets the prompt first.
# - **Bugs:** one row's end is not the batch's end, an ended row stays ended, logits are read at the last index.
# - **The source:** `generate()` prepares, `_sample` loops. Warpers are now ordinary processors.

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
# `course_utils/decoding/steps.py` contains this lesson's loop again, turned inside out so that you can step through it.
#
# Next, [lesson 06](06_decoding.ipynb): the choice itself. What temperature, top-k, top-p and other filters do to a
# distribution, and what beam search does instead.
