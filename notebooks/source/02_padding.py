# %% [markdown]
# # Why pad, and on which side?
#
# **By the end you will have measured, for eight ways to pass a batch and three models, how far each answer is
# from the answer to the prompt alone; and you will know why every zero in that table is a zero.**
#
# You will be able to
#
# - turn sentences of different lengths into one tensor and its attention mask,
# - choose the side: left to generate, right to train, and say why both rules are right,
# - compute position ids, and say which models cannot do without them,
# - read transformers' warnings about padding, and cure each at its cause,
# - make labels from a padded batch without losing the token that teaches a model to stop.
#
# *45 minutes, and 25 more for the exercises. You need: lesson 01, and PyTorch tensors: shapes, indexing,
# comparison.*

# %% [markdown]
# ## 1. A tensor has rows of one length
#
# Prompts travel in a *batch*: one forward pass, several rows. Here are three that want to be continued, as
# ids.

# %%
import torch

from course_utils import load, load_tokenizer
from course_utils.checks import lesson02 as lesson
from course_utils.widgets import PaddingGrid, Predict, Quiz

gpt2 = load_tokenizer("gpt2")
sentences = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]
rows = [gpt2(sentence).input_ids for sentence in sentences]
rows

# %% [markdown]
# Five ids, eight and three: a *ragged* list. A tensor is a box, and a box has no ragged edge:

# %% tags=["raises-exception"]
torch.tensor(rows)

# %% [markdown]
# We fill the short rows with an id that means nothing: **padding**. And since the model cannot know which ids
# we made up, a second tensor tells it: the **attention mask**, 1 at a token and 0 at padding.

# %% [markdown]
# ### Exercise 1: pad on the left · difficulty 1 of 3 · 4 minutes
#
# Fill each row on the left, up to the length of the longest row. Return the ids and the mask.

# %% tags=["exercise"]
def pad_left(rows: list[list[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input_ids and attention_mask, two tensors of whole numbers, (batch, longest row)."""
    raise NotImplementedError

# %% tags=["solution"]
def pad_left(rows: list[list[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input_ids and attention_mask, two tensors of whole numbers, (batch, longest row)."""
    longest = max(len(row) for row in rows)
    missing = [longest - len(row) for row in rows]
    input_ids = [[pad_id] * n + row for n, row in zip(missing, rows)]
    attention_mask = [[0] * n + [1] * len(row) for n, row in zip(missing, rows)]
    return torch.tensor(input_ids), torch.tensor(attention_mask)

# %% [markdown] tags=["solution"]
# The mask comes from the *lengths*. Making it from the ids, `ids != pad_id`, looks the same until a text
# contains the pad id as a token of its own. Section 7 shows what that costs.

# %% tags=["check"]
lesson.check_pad_left(pad_left)

# %% [markdown] tags=["hints"]
# - How many ids does a row lack? `longest - len(row)`.
# - `[pad_id] * n + row` is the padded row; the same with 0 and 1 is its mask.
# - Make the mask from the lengths, not from the ids: a row may contain `pad_id` as a token.

# %% [markdown]
# ## 2. A pad token for a model that has none
#
# The tokenizer pads too, if asked. But GPT-2 was trained on texts strung together, and never needed padding:

# %% tags=["raises-exception"]
gpt2(sentences, padding=True, return_tensors="pt")

# %% [markdown]
# The message offers two ways. A new token would need a new row in the model's table. So we take the one
# special token that GPT-2 has, end-of-text, and tell the tokenizer which side to fill.

# %%
gpt2.pad_token = gpt2.eos_token
gpt2.padding_side = "left"
batch = gpt2(sentences, padding=True, return_tensors="pt")
batch.input_ids  # (batch, length)

# %%
batch.attention_mask  # (batch, length)

# %% [markdown]
# Row 0 got three fillers, row 2 got five. The course's own `pad` does what the exercise asks for, and gives the
# same two tensors:

# %%
from course_utils.masks import pad

for ours, theirs in zip(pad(rows, gpt2.pad_token_id, "left"), batch.values()):
    assert torch.equal(ours, theirs)

# %% [markdown]
# ## 3. Two rules that contradict each other
#
# GPT-2's documentation: "absolute position embeddings so it's usually advised to pad the inputs on the right".
# `generate()`: "decoder-only architecture … please set `padding_side='left'`". A *decoder* reads from left to
# right, as GPT-2 and Llama do. Which rule is it? We measure.

# %% [markdown]
# A model returns **logits**: at each place, a number for each entry of the vocabulary. Softmax makes them a
# distribution over the next token: the model's answer. The yardstick is the answer to each prompt **alone**, without padding.

# %% [markdown]
# **Total variation** is how far two distributions are apart: 0 if they are equal, 1 if they share nothing.

# %%
@torch.no_grad()
def next_token(model, input_ids, at, **given):  # at: the place to read in each row
    logits = model(input_ids.to(model.device), **given).logits  # (batch, length, vocab)
    return logits[range(len(logits)), at].softmax(-1)  # (batch, vocab)


def total_variation(p, q):
    return (p - q).abs().sum(-1) / 2  # (batch,)

# %% [markdown]
# Two small models with random weights isolate the effect: one built like GPT-2, one like Llama, both with
# GPT-2's vocabulary. The third is trained, and is there for texts worth reading.

# %%
models = {"GPT-2": load("tiny-gpt2"), "Llama": load("tiny-llama"), "trained": load()}
for name, (model, tokenizer) in models.items():
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    print(f"{name:8} {model.config.model_type:6} {model.num_parameters():,} parameters")

# %%
def one_by_one(model, tokenizer):
    rows = [tokenizer(sentence, return_tensors="pt").input_ids for sentence in sentences]
    return torch.cat([next_token(model, row, [-1]) for row in rows])  # (batch, vocab)


alone = {name: one_by_one(*models[name]) for name in models}

# %% [markdown]
# Padding on the right first. We read each row's answer at its last *token*, not at its last place, and pass
# no mask at all. Whose answers will be off?

# %%
Predict(lesson.predict_right)

# %% tags=["answer"]
batch = gpt2(sentences, padding=True, padding_side="right", return_tensors="pt")
last = batch.attention_mask.sum(1) - 1  # (batch,): the place of each last token
print("right padding, no mask: total variation of the worst row")
for name in ("GPT-2", "Llama"):
    answers = next_token(models[name][0], batch.input_ids, last)
    print(f"{name}: {total_variation(answers, alone[name]).max():.2f}")

# %% [markdown]
# Not at all. In a decoder a token looks at itself and to its left, never to its right, so it cannot see
# what follows. Right padding lies where no token looks.

# %% [markdown]
# Now on the left, where every token can see the padding. This time we pass the mask, which forbids that.

# %%
Predict(lesson.predict_left)

# %% tags=["answer"]
batch = gpt2(sentences, padding=True, padding_side="left", return_tensors="pt")
print("left padding, with the mask: total variation of each row")
for name in ("GPT-2", "Llama"):
    model, _ = models[name]
    answers = next_token(model, batch.input_ids, [-1] * 3, attention_mask=batch.attention_mask.to(model.device))
    print(name, [f"{distance:.2f}" for distance in total_variation(answers, alone[name])])

# %% [markdown]
# Llama is right and GPT-2 is wrong, without an error or a warning. Row 1, which has no padding, is right in
# both. So the padding still reaches GPT-2, by a way that the mask does not close.

# %% [markdown]
# We watch what GPT-2 looks up in its table of positions, `wpe`. Nobody said where a token stands, so it counts
# from the row's first place, padding included:

# %%
model, _ = models["GPT-2"]
looked_up = []
watch = lambda module, args: looked_up.append(args[0].tolist())
with model.transformer.wpe.register_forward_pre_hook(watch):  # removed when the block ends
    next_token(model, batch.input_ids, [-1] * 3, attention_mask=batch.attention_mask.to(model.device))
looked_up[0]  # one list of positions, for every row

# %% [markdown]
# `It` is the first token of its sentence, and gets the vector of position 3. GPT-2 adds an **absolute** position
# to each token, so every token is changed. In Llama only the *difference* of two positions counts, and shifted
# by three, all differences stay.

# %% [markdown]
# ### Exercise 2: position ids · difficulty 2 of 3 · 4 minutes
#
# Count tokens only. The first token of a row stands at 0, the next at 1. Padding gets 0. It should work for
# both sides.

# %% tags=["exercise"]
def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the position ids for a mask of 0 and 1, both (batch, length)."""
    raise NotImplementedError

# %% tags=["solution"]
def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the position ids for a mask of 0 and 1, both (batch, length)."""
    counted = attention_mask.cumsum(dim=1) - 1
    return counted.masked_fill(attention_mask == 0, 0)

# %% [markdown] tags=["solution"]
# A running sum over the mask counts the tokens so far, and padding does not count. These are the lines of
# `generate()` itself. The 0 at the padding is only there because −1 is no position: no token looks at it.

# %% tags=["check"]
lesson.check_positions(positions)

# %% [markdown] tags=["hints"]
# - What does the running sum of a row of the mask count? Try `batch.attention_mask.cumsum(dim=1)`.
# - The first token should have 0, so the sum is one too large.
# - Padding in front of the first token would now get −1. `masked_fill(attention_mask == 0, 0)` repairs it.

# %% [markdown]
# With position ids, GPT-2's answers are those of the prompts alone:

# %%
from course_utils.masks import position_ids

model, _ = models["GPT-2"]
given = {"attention_mask": batch.attention_mask, "position_ids": position_ids(batch.attention_mask)}
given = {name: tensor.to(model.device) for name, tensor in given.items()}
answers = next_token(model, batch.input_ids, [-1] * 3, **given)
assert total_variation(answers, alone["GPT-2"]).max() < 1e-4

# %% [markdown]
# Does it matter which token fills? Here is the same batch with `!`, ` world` and ` big`. First with mask and
# position ids, then with neither:

# %%
unmasked = []
for filler in (0, 995, 1263):
    ids = batch.input_ids.masked_fill(batch.attention_mask == 0, filler)
    unmasked.append(next_token(model, ids, [-1] * 3))
    answers = (next_token(model, ids, [-1] * 3, **given), unmasked[-1])
    with_both, with_neither = (total_variation(p, alone["GPT-2"]).max() for p in answers)
    print(f"{gpt2.decode(filler):6}  with both {with_both:.2f}   with neither {with_neither:.2f}")

# %%
print("with neither, from filler to filler:")
[f"{total_variation(p, q).max():.2f}" for p, q in zip(unmasked, unmasked[1:])]

# %% [markdown]
# With mask and positions any filler will do. With neither the filler is read like a word, and each filler gives
# another answer.

# %% [markdown]
# ## 4. The whole table
#
# Two sides, mask or none, positions or none, three models. One row before we look at the rest: the positions are
# given, the mask is forgotten.

# %%
Predict(lesson.predict_positions_only)

# %%
def distance(name, side, mask, positions, **more):
    model, tokenizer = models[name]
    batch = tokenizer(sentences, padding=True, padding_side=side, return_tensors="pt").to(model.device)
    last = [-1] * 3 if side == "left" else batch.attention_mask.sum(1) - 1
    given = {"attention_mask": batch.attention_mask} if mask else {}
    given |= {"position_ids": position_ids(batch.attention_mask)} if positions else {}
    answers = next_token(model, batch.input_ids, last, **given, **more)
    return total_variation(answers, alone[name]).max().item()  # the worst of the three rows

# %%
from itertools import product

table = {
    case: {name: distance(name, *case) for name in models}
    for case in product(("left", "right"), (False, True), (False, True))
}

# %% [markdown]
# **The result of this lesson.** Total variation between a padded prompt's next-token distribution and the
# prompt's own, the worst of three rows:

# %% tags=["answer"]
print("side   mask  positions  ", *(f"{name:>8}" for name in models))
for (side, mask, given), distances in table.items():
    cells = [f"{distances[name]:8.2f}" for name in models]
    print(f"{side:6} {'yes' if mask else '-':5} {'yes' if given else '-':10} ", *cells)

# %%
for (side, mask, given), distances in table.items():
    for name, (model, _) in models.items():
        absolute = model.config.model_type == "gpt2"
        right = side == "right" or (mask and (given or not absolute))
        assert distances[name] < 1e-4 if right else distances[name] > 0.05

# %% [markdown]
# Every zero has its reason. **Right:** nothing looks to the right. **Left, mask, positions:** no trace of the
# padding remains. **Left, mask only:** enough for relative positions, not for absolute ones.

# %% [markdown]
# Positions without a mask help nobody: they say where a token stands, not that it is padding. All three models
# still read the fillers. (A footnote: with one more setting the same call comes out right, by accident.)

# %%
{name: round(distance(name, "left", False, True, use_cache=False), 2) for name in ("GPT-2", "Llama")}

# %% [markdown]
# `use_cache=False` keeps nothing for a next token. Then transformers takes positions that start again (0, 0, 0, 0,
# 1, 2 …) for several texts **packed** into one row, and keeps them apart. Do not build on it: pass the mask.

# %% [markdown]
# Here is the whole experiment under your hands. Switch the side, the mask, the positions and the model, and
# watch each row's answer part from the sentence's own. Type sentences that you care about.

# %%
PaddingGrid({"GPT-2": models["GPT-2"], "Llama, trained": models["trained"]}, sentences)

# %% [markdown]
# ## 5. What generate() does for you
#
# `generate()` computes position ids from the mask, with the lines of exercise 2. So the mask alone is enough
# there, for both architectures. First each prompt alone, **greedy**: always the most likely token, six times.

# %%
def continued(model, **inputs):
    ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    return ids[:, inputs["input_ids"].shape[1] :].tolist()


expected = {}
for name, (model, tokenizer) in models.items():
    prompts = [tokenizer(sentence, return_tensors="pt").to(model.device) for sentence in sentences]
    expected[name] = [continued(model, **prompt)[0] for prompt in prompts]

# %%
model, tokenizer = models["trained"]
for sentence, ids in zip(sentences, expected["trained"]):
    print(repr(sentence), "->", repr(tokenizer.decode(ids)))

# %% [markdown]
# transformers writes its warnings to a log. We send that log to the page, to have each warning where it
# belongs:

# %%
import logging
import textwrap

from transformers.utils import logging as library_log


class OnThePage(logging.Handler):
    said = None

    def emit(self, record):
        if record.getMessage() != self.said:  # the same again is not worth a line
            self.said = record.getMessage()
            print(textwrap.fill(f"transformers says: {self.said}", 110))


page = OnThePage()
library_log.disable_default_handler()
library_log.add_handler(page)

# %% [markdown]
# Now all three prompts at once, with their mask, first padded on the left, then on the right. How many rows of
# the right-padded batch will be as they are alone?

# %%
Predict(lesson.predict_generate)

# %%
def together(name, side):
    model, tokenizer = models[name]
    inputs = tokenizer(sentences, padding=True, padding_side=side, return_tensors="pt").to(model.device)
    return continued(model, **inputs)


def as_alone(name, continuations):
    return [got == want for got, want in zip(continuations, expected[name])]

# %%
print("left padding: which rows are as they are alone?")
left = {name: together(name, "left") for name in models}
{name: as_alone(name, left[name]) for name in models}

# %% tags=["answer"]
print("right padding: which rows are as they are alone?")
right = {name: together(name, "right") for name in models}
{name: as_alone(name, right[name]) for name in models}

# %%
assert left == expected
assert all(as_alone(name, right[name]) == [False, True, False] for name in models)

# %% [markdown]
# Left: every id of every row, in all three models. Right: here only the row that has no padding (in another batch
# some padded row may be lucky), and a warning that says what to do. This is what the trained model writes:

# %%
[tokenizer.decode(ids) for ids in right["trained"]]

# %% [markdown]
# Two things go wrong. `generate()` reads the answer at the last *place*, which is a filler. And the new token
# goes behind the fillers, at a wrong position. We watch the positions that the model receives:

# %%
def positions_seen(name, side):
    seen = []
    watch = lambda module, args, given: seen.append(given["position_ids"].tolist())
    with models[name][0].register_forward_pre_hook(watch, with_kwargs=True):
        together(name, side)
    return seen  # one entry for each forward pass

# %%
for side in ("left", "right"):
    prompt, first_new, *_ = positions_seen("GPT-2", side)
    print(f"{side:6} prompt, row 0: {prompt[0]}   first new token of each row: {first_new}")

# %% [markdown]
# On the left, row 0 goes on at 5, behind its five tokens. On the right it goes on at 1, since the last place
# was a filler with position 0. So both rules are right: **in a forward pass *we* read, and can do so at the last
# token. `generate()` reads and writes at the last place.**

# %% [markdown]
# ## 6. "The attention mask and the pad token id were not set"
#
# A pad token is named in two places: the *tokenizer* fills with its own, and `generate()` looks into the model's
# *generation config*. We have set the first. The second is empty, as in GPT-2's files. Now we forget the mask:

# %%
model, _ = models["GPT-2"]
print("in the generation config:", model.generation_config.pad_token_id)
input_ids = gpt2(sentences, padding=True, return_tensors="pt").input_ids.to(model.device)
as_alone("GPT-2", continued(model, input_ids=input_ids))

# %% [markdown]
# Read both messages. There is no mask, and none can be *inferred*: for want of a pad token `generate()` takes
# end-of-text, and that is the same id. It goes on with a mask of ones, and reads the fillers.

# %% [markdown]
# Advice that you will meet: set `pad_token_id`, and the warning goes away. Some messages come once in a
# kernel only, so we clear that memory first:

# %%
page.said = None
library_log.warning_once.cache_clear()  # as in a fresh kernel
as_alone("GPT-2", continued(model, input_ids=input_ids, pad_token_id=gpt2.eos_token_id))

# %% [markdown]
# One message is gone. The other, which names the cause, comes once in a kernel; the next such call is silent.
# And both padded rows are as wrong as before.

# %%
page.said = None  # so that the page would show the message again
as_alone("GPT-2", continued(model, input_ids=input_ids, pad_token_id=gpt2.eos_token_id))

# %% [markdown]
# The cure is the mask. `**inputs` passes everything that the tokenizer returned:

# %%
inputs = gpt2(sentences, padding=True, return_tensors="pt").to(model.device)
cured = continued(model, **inputs, pad_token_id=gpt2.eos_token_id)
assert cured == expected["GPT-2"]

# %% [markdown]
# Where padding is not end-of-text, `generate()` infers the mask by comparing ids. Here `!`, id 0, is the filler.
# Does that give the same as passing the mask?

# %%
for prompt in ("My dog is", "Stop! My dog is", "Wow!!! My dog is"):
    row = gpt2(prompt).input_ids
    padded, mask = (tensor.to(model.device) for tensor in pad([row, rows[1]], 0))
    inferred = continued(model, input_ids=padded, pad_token_id=0)
    print(inferred == continued(model, input_ids=padded, attention_mask=mask, pad_token_id=0), row)

# %% [markdown]
# `Stop!` contains the id 0, and that token is taken for padding. `!!!` does no harm: it has an id of its own, 10185.
# Ids are compared, not characters.

# %% [markdown]
# ### Exercise 3: a broken batch · difficulty 3 of 3 · 6 minutes
#
# Three rows, three different bugs, no error. Find them by eye first. Then write a repair that would work for
# any batch with such bugs. No sentence contains the pad id.

# %%
broken = lesson.broken_batch()
for name, tensor in broken.items():
    print(f"{name}\n{tensor}")

# %% tags=["exercise"]
def repair(batch: dict, pad_id: int) -> dict:
    """Return input_ids, attention_mask and position_ids, padded on the left and all three right."""
    raise NotImplementedError

# %% tags=["solution"]
def repair(batch: dict, pad_id: int) -> dict:
    """Return input_ids, attention_mask and position_ids, padded on the left and all three right."""
    rows = [[id for id in row if id != pad_id] for row in batch["input_ids"].tolist()]
    input_ids, attention_mask = pad(rows, pad_id, "left")
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position_ids": position_ids(attention_mask),
    }

# %% [markdown] tags=["solution"]
# Row 0 is padded on the right: harmless in a forward pass, fatal in `generate()`. Row 1 counts from 1: one
# position off, and GPT-2 answers differently. Row 2's mask shows one filler. The ids are the only source that
# can be trusted here, so everything is made from them again.

# %% tags=["check"]
lesson.check_repair(repair)

# %% [markdown] tags=["hints"]
# - Go row by row. Where is the padding? Where should the first 1 of the mask stand? Where should positions begin?
# - Do not mend the mask: make it anew. The ids are right, except for the side.
# - Take each row's ids without `pad_id`; then `pad(rows, pad_id, "left")` and `position_ids(mask)` do the rest.

# %% [markdown]
# ## 7. Training: pad on the right, and mind the labels
#
# Training is a forward pass: right padding, default positions, no surprise. To learn when to *stop*, each text
# ends with the end-of-text token.

# %%
texts = ["My dog is happy.", "It will rain in the evening, they say.", "I want to eat."]
batch = gpt2([text + gpt2.eos_token for text in texts], padding=True, padding_side="right", return_tensors="pt")
print(batch.input_ids)
print(batch.attention_mask)

# %% [markdown]
# **Labels** are the ids that the loss asks for; −100 means "no question here". (The loss shifts them by one place
# itself.) Padding should get −100. The short way is to find it by its id:

# %%
Predict(lesson.predict_labels)

# %% tags=["answer"]
labels_naive = batch.input_ids.masked_fill(batch.input_ids == gpt2.pad_token_id, -100)
print("labels, and the number of ends in them:")
print(labels_naive, (labels_naive == gpt2.eos_token_id).sum().item())

# %% [markdown]
# None: the filler and the true end are the same id. A model that is trained on these labels is never told to stop.
# The library's own *collator*, which makes batches for training, does the same:

# %%
from transformers import DataCollatorForLanguageModeling

gpt2.padding_side = "right"
collate = DataCollatorForLanguageModeling(gpt2, mlm=False)  # mlm: hide words, and ask for those
collated = collate([gpt2(text + gpt2.eos_token) for text in texts])
torch.equal(collated["labels"], labels_naive)

# %% [markdown]
# The mask knows better: the tokenizer set it to 1 at the true end. Where the mask is at hand, use it.

# %%
labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
labels

# %% [markdown]
# ### Exercise 4: keep the first one · difficulty 2 of 3 · 8 minutes
#
# Often only ids arrive, without the mask. Then the padding is the run of pad ids that closes a row, **except
# its first**: that is the true end. End-of-text inside a row, between two texts, stays as well.

# %% tags=["exercise"]
def repair_labels(input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Return labels for right-padded ids: -100 at the padding, but not at the end-of-text before it."""
    raise NotImplementedError

# %% tags=["solution"]
def repair_labels(input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Return labels for right-padded ids: -100 at the padding, but not at the end-of-text before it."""
    labels = input_ids.clone()
    for row in labels:
        length = len(row)
        while length > 1 and row[length - 1] == pad_id and row[length - 2] == pad_id:
            length -= 1
        row[length:] = -100
    return labels

# %% [markdown] tags=["solution"]
# From the right end we step left while this id *and* the one before it are pad ids, so one of them stays. Do
# not shift the labels: the library's loss does that itself. `course_utils.masks.labels_from_ids` does the
# same without a loop.

# %% tags=["check"]
lesson.check_repair_labels(repair_labels)

# %% [markdown] tags=["hints"]
# - Work on `input_ids.clone()`: the caller still needs the ids.
# - Only the run of pad ids at the *end* of a row is padding. Walk in from the right.
# - Of that run the first stays, and all behind it become −100.

# %% [markdown]
# Does it matter? Two small models train on the three texts, twelve steps each. Only the labels differ.

# %%
def train(labels):
    model, _ = load("tiny-gpt2")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    ids, labels = batch.input_ids.to(model.device), labels.to(model.device)
    for _ in range(12):
        logits = model(ids).logits[:, :-1]  # place t asks for the id at t + 1
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


taught = {"labels from the ids": train(labels_naive), "labels from the mask": train(labels)}

# %%
prompts = gpt2(["My dog is", "It will", "I want"], padding=True, padding_side="left", return_tensors="pt")
stops = {}
for name, model in taught.items():
    ids = model.generate(**prompts.to(model.device), max_new_tokens=14, do_sample=False)
    new = ids[:, prompts.input_ids.shape[1] :]
    stops[name] = (new == gpt2.eos_token_id).any(1).tolist()
    print(f"{name:21} writes an end: {stops[name]}")
    for row in new:
        text, end, _ = gpt2.decode(row).partition(gpt2.eos_token)
        print(f"    {text + end!r}")

# %%
for name, model in taught.items():
    ends = next_token(model, batch.input_ids, batch.attention_mask.sum(1) - 2)[:, gpt2.eos_token_id]
    print(f"{name:21} probability of the end after each full stop: {[f'{p:.2f}' for p in ends]}")
assert list(stops.values()) == [[False] * 3, [True] * 3]

# %% [markdown]
# The first one writes on behind every full stop. If a fine-tuned model of yours never stops, look at its labels first:
# print a row of ids and a row of labels, one above the other.

# %% [markdown]
# ## Recap
#
# - **One tensor from ragged rows:** fill up to the longest, and note in the mask what is real.
# - **The side:** right where a forward pass reads at the last token; left where `generate()` reads and writes at
#   the last place.
# - **Positions:** count tokens, not places. `generate()` does it from the mask; a bare forward pass on absolute
#   positions needs you to.
# - **Warnings:** the mask cures them. A pad token id alone trades one for another, and the rows stay wrong.
# - **Labels:** from the mask, or from the ids with the first end kept. Not from
#   `ids == pad_id` where padding is end-of-text.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# The lines of this lesson in the installed library, with their numbers:

# %%
import inspect

from transformers import GenerationMixin

for name in ("_prepare_position_ids_for_generation", "_prepare_attention_mask_for_generation"):
    _, line = inspect.getsourcelines(getattr(GenerationMixin, name))
    print(f"transformers/generation/utils.py, line {line}: {name}")

# %% [markdown]
# Read both: they are short. `course_utils/masks.py` holds this lesson once more, for later ones.
#
# Next, [lesson 03](03_masks.ipynb): the place inside attention where a 0 of the mask turns into a very large negative number.
