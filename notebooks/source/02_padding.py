# %% [markdown]
# # Why pad, and on which side?
#
# **By the end you will have measured, for eight ways to pass a batch and three models, how far each answer is from
# the answer to the prompt alone, and you will know why every zero in that table is a zero.**
#
# You will be able to
#
# - turn sentences of different lengths into one tensor and its attention mask,
# - choose the side (left to generate, right to train) and say why both rules are right,
# - compute position ids, and say which models need them,
# - read transformers' warnings about padding, and fix the cause of each,
# - make labels from a padded batch without losing the token that teaches a model to stop.
#
# *55 minutes, and another 25 for the exercises. You need: lesson 01, and PyTorch tensors: shapes, indexing,
# comparison.*

# %% [markdown]
# ## 1. A tensor has rows of one length
#
# Prompts are processed in a *batch*: one forward pass, several rows. Here are three prompts to be continued, as ids.

# %%
import torch

from course_utils import load, load_tokenizer
from course_utils.lessons import lesson02 as lesson
from course_utils.widgets import PaddingGrid, Predict, Quiz

gpt2 = load_tokenizer("gpt2")
sentences = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]
rows = [gpt2(sentence).input_ids for sentence in sentences]
rows

# %% [markdown]
# Five ids, eight and three: a *ragged* list. The rows of a tensor all have the same length:

# %% tags=["raises-exception"]
torch.tensor(rows)

# %% [markdown]
# We fill up the short rows with an id that is no part of the text: **padding**. The model cannot know which ids are
# padding, so a second tensor tells it: the **attention mask**, 1 for a token and 0 for padding.

# %% [markdown]
# ### Exercise 1: Pad a ragged batch on the left · difficulty 1 of 3 · 4 minutes
#
# Pad each row on the left to the length of the longest row. Return the ids and the mask.

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
# The mask comes from the *lengths*. Making it from the ids, `ids != pad_id`, gives the same result until a text
# contains the pad id as a real token. Section 7 shows what that costs.

# %% tags=["check"]
lesson.check_pad_left(pad_left)

# %% [markdown] tags=["hints"]
# - How many ids is a row short of the longest? `longest - len(row)`.
# - `[pad_id] * n + row` is the padded row; the same with 0 and 1 is its mask.
# - Make the mask from the lengths, not from the ids: a row may contain `pad_id` as a real token.

# %% [markdown]
# ## 2. A pad token for a model that has none
#
# The tokenizer can pad too. But GPT-2 was trained on concatenated texts, and never needed padding:

# %% tags=["raises-exception"]
gpt2(sentences, padding=True, return_tensors="pt")

# %% [markdown]
# The message offers two solutions. A new token needs a new row in the model's table of token vectors (shown below). We
# take the one special token that GPT-2 has, end-of-text, and tell the tokenizer which side to pad.

# %%
gpt2.pad_token = gpt2.eos_token
gpt2.padding_side = "left"
batch = gpt2(sentences, padding=True, return_tensors="pt")
batch.input_ids  # (batch, length)

# %%
batch.attention_mask  # (batch, length)

# %% [markdown]
# Here are both tensors in one picture: the text of each id, and what the mask says of it.

# %%
from course_utils.plots import grid, heatmap, lines, number_lines

kinds = ("padding, mask 0", "token, mask 1")
cells = [
    [(gpt2.decode(id) if keep else str(id.item()), kinds[keep]) for id, keep in zip(*row)]
    for row in zip(batch.input_ids, batch.attention_mask)
]
grid(cells, "Three prompts, padded on the left", kinds[::-1], rows=["row 0", "row 1", "row 2"])

# %% [markdown]
# Row 0 got three padding tokens, row 2 got five. The course's own `pad` does what the exercise asks for, and returns
# the same two tensors:

# %%
from course_utils.masks import pad

for ours, theirs in zip(pad(rows, gpt2.pad_token_id, "left"), batch.values()):
    assert torch.equal(ours, theirs)

# %% [markdown]
# And here is the batch, live, in a trained model, with the mask switched off. Beside each row stand the next tokens
# that the model finds most likely, its *answer* in this batch. The column "Total variation" says how far that is from
# its answer to the sentence alone: 0 if the two are equal, 1 if they have nothing in common. Switch the mask on. (The
# other switches belong to sections 3 and 4: come back then, and type sentences of your own.)

# %%
trained, its_tokenizer = load()
random_gpt2, gpt2_tokenizer = load("tiny-gpt2")
for tokenizer in (its_tokenizer, gpt2_tokenizer):
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
views = {"Llama, trained": (trained, its_tokenizer), "GPT-2, random weights": (random_gpt2, gpt2_tokenizer)}
PaddingGrid(views, sentences, give_mask=False)

# %% [markdown]
# ### Too long; and a new pad token
#
# The opposite of padding is **truncation**: `max_length` cuts what is too long. `truncation_side` says where. A prompt
# is usually cut at its left end, since the model continues its right end.

# %%
for side in ("right", "left"):
    cutter = load_tokenizer("gpt2")
    cutter.truncation_side = side
    cut = cutter(sentences[1], truncation=True, max_length=4)
    print(f"{side:5}  {gpt2.decode(cut.input_ids)!r}")

# %% [markdown]
# A new pad token gets the next free id, 50257. The model's table ends at 50256, so looking it up is an error:

# %%
own = load_tokenizer("gpt2")
own.add_special_tokens({"pad_token": "<pad>"})
enlarged, _ = load("tiny-gpt2")
try:  # on the CPU: a GPU would be unusable after such an error
    torch.nn.functional.embedding(torch.tensor([own.pad_token_id]), enlarged.get_input_embeddings().weight.cpu())
except IndexError as error:
    print(own.pad_token_id, "IndexError:", error)

# %% [markdown]
# `resize_token_embeddings` adds the row, here with random numbers. (By default it draws them around the mean of the
# other rows.) As an input, the mask hides the new token. As an *output* it gets a logit like any other, from a row that
# was never trained:

# %%
enlarged.resize_token_embeddings(len(own), mean_resizing=False)
with torch.no_grad():
    logits = enlarged(gpt2(sentences[0], return_tensors="pt").input_ids.to(enlarged.device)).logits[0, -1]
print(tuple(enlarged.get_input_embeddings().weight.shape), "and", len(logits), "logits")  # (vocab, size)

# %% [markdown]
# ## 3. Two rules that contradict each other
#
# GPT-2's older documentation says: "absolute position embeddings so it's usually advised to pad the inputs on the
# right". A warning of `generate()` says: "decoder-only architecture … please set `padding_side='left'`". A *decoder*,
# such as GPT-2 or Llama, reads from left to right. Which rule is right? We measure.
#
# A model returns **logits**: at each index, a number for each entry of the vocabulary. Softmax turns them into a
# distribution over the next token: the model's answer. Each row has its own index to read. Two index lists side by
# side pick one entry a row:

# %%
numbers = torch.tensor([[10, 11, 12], [20, 21, 22]])
numbers[range(2), [2, 0]]  # row 0 at index 2, row 1 at index 0

# %% [markdown]
# We compare each answer with the answer to the prompt **alone**, without padding. **Total variation** says how far
# apart two distributions are: 0 if they are equal, 1 if they do not overlap.

# %%
@torch.no_grad()
def next_token(model, input_ids, at, **given):  # at: the index to read in each row
    logits = model(input_ids.to(model.device), **given).logits  # (batch, length, vocab)
    return logits[range(len(logits)), at].softmax(-1)  # (batch, vocab)


def total_variation(p, q):
    return (p - q).abs().sum(-1) / 2  # (batch,)

# %% [markdown]
# Two small models with random weights isolate the effect: one built like GPT-2, one like Llama, both with GPT-2's
# vocabulary. The third is trained, so that we have some texts worth reading. The random weights have a larger standard
# deviation than usual (0.15, usual is 0.02), to make effects visible: in these two models only "zero or not" is a
# finding, not how much.

# %%
models = {"GPT-2": (random_gpt2, gpt2_tokenizer), "Llama": load("tiny-llama"), "trained": (trained, its_tokenizer)}
for name, (model, tokenizer) in models.items():
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    wide = model.config.initializer_range
    print(f"{name:8} {model.config.model_type:6} {model.num_parameters():,} parameters, initializer_range {wide}")

# %%
def one_by_one(model, tokenizer):
    rows = [tokenizer(sentence, return_tensors="pt").input_ids for sentence in sentences]
    return torch.cat([next_token(model, row, [-1]) for row in rows])  # (batch, vocab)


alone = {name: one_by_one(*models[name]) for name in models}

# %% [markdown]
# We start with padding on the right. We read each row's answer at its last *token*, not at its last index, and pass
# no mask at all. Which of the two random models will answer wrongly?

# %%
Predict(lesson.predict_right)

# %% tags=["answer"]
right_batch = gpt2(sentences, padding=True, padding_side="right", return_tensors="pt")
last = right_batch.attention_mask.sum(1) - 1  # (batch,): the index of each last token
print("right padding, no mask: total variation of the worst row")
for name in ("GPT-2", "Llama"):
    answers = next_token(models[name][0], right_batch.input_ids, last)
    print(f"{name}: {total_variation(answers, alone[name]).max():.2f}")

# %% [markdown]
# Neither's. In a decoder, a token sees itself and the tokens before it, never those after it. With padding on the
# right, no token of the text sees the padding.
#
# Now we pad on the left, where every token could see the padding. This time we pass the mask, which forbids that.

# %%
Predict(lesson.predict_left)

# %% tags=["answer"]
print("left padding, with the mask: total variation of each row")
for name in ("GPT-2", "Llama"):
    model, _ = models[name]
    answers = next_token(model, batch.input_ids, [-1] * 3, attention_mask=batch.attention_mask.to(model.device))
    print(name, [f"{distance:.2f}" for distance in total_variation(answers, alone[name])])

# %% [markdown]
# Llama is right and GPT-2 is wrong, without an error or a warning. Row 1, which has no padding, is right in both. So
# the padding still affects GPT-2, in a way that the mask does not prevent.
#
# A **hook** is a function that PyTorch calls whenever a module runs. This one records what GPT-2 looks up in its
# table of positions, `wpe`. We passed no **position ids**, so the model takes each token's index in the row, padding
# included:

# %%
model, _ = models["GPT-2"]
looked_up = []
watch = lambda module, args: looked_up.append(args[0].tolist())
with model.transformer.wpe.register_forward_pre_hook(watch):  # the hook is removed when the block ends
    next_token(model, batch.input_ids, [-1] * 3, attention_mask=batch.attention_mask.to(model.device))
looked_up[0]  # one list of positions, for every row

# %% [markdown]
# Index and position id are two things. `It` stands at index 3, and as the first token it should have position 0, but
# gets the vector of position 3. GPT-2 adds such an **absolute** position to each token, so every token is changed. In
# Llama only the *difference* between two positions counts, and a shift by three keeps all differences.

# %%
words = [gpt2.decode(id) for id in rows[0]]
moved = [looked_up[0][0][index] for index in batch.attention_mask[0].nonzero().flatten().tolist()]
places = {"alone": list(enumerate(words)), "padded": list(zip(moved, words))}
marks = [(name, pairs[0][0], pairs[-1][0], "same difference") for name, pairs in places.items()]
number_lines(places, "Absolute positions move, differences stay", "position", marks)

# %% [markdown]
# ### Exercise 2: Compute position ids from a mask · difficulty 2 of 3 · 4 minutes
#
# Count only the tokens. The first token of a row has position 0, the next has 1. Padding gets 0. Your function should
# work for padding on either side.

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
# A cumulative sum over the mask counts the tokens so far, and padding does not count. `generate()` itself uses these
# lines. Padding gets 0 only because −1 is not a valid position: no token of the text sees the padding.

# %% tags=["check"]
lesson.check_positions(positions)

# %% [markdown] tags=["hints"]
# - What does the cumulative sum of a row of the mask count? Try `batch.attention_mask.cumsum(dim=1)`.
# - The first token should have position 0, so the sum is too large by one.
# - Padding before the first token would now get −1. `masked_fill(attention_mask == 0, 0)` fixes that.

# %% [markdown]
# With position ids, GPT-2 gives the same answers as for the prompts alone. From here on they are counted by your
# function if it passes its check:

# %%
position_ids = lesson.usable_positions(positions)
model, _ = models["GPT-2"]
given = {"attention_mask": batch.attention_mask, "position_ids": position_ids(batch.attention_mask)}
given = {name: tensor.to(model.device) for name, tensor in given.items()}
answers = next_token(model, batch.input_ids, [-1] * 3, **given)
assert total_variation(answers, alone["GPT-2"]).max() < 1e-4

# %% [markdown]
# Does it matter which token we pad with? Here is the same batch with `!`, ` world` and ` big`, first with mask and
# position ids, then with neither:

# %%
unmasked = []
for filler in gpt2("! world big").input_ids:
    ids = batch.input_ids.masked_fill(batch.attention_mask == 0, filler)
    unmasked.append(next_token(model, ids, [-1] * 3))
    answers = (next_token(model, ids, [-1] * 3, **given), unmasked[-1])
    with_both, with_neither = (total_variation(p, alone["GPT-2"]).max() for p in answers)
    print(f"{gpt2.decode(filler):6}  with both {with_both:.2f}   with neither {with_neither:.2f}")
print("with neither, between the answers with `!` and ` world`, and with ` world` and ` big`:")
[f"{total_variation(p, q).max():.2f}" for p, q in zip(unmasked, unmasked[1:])]

# %% [markdown]
# With mask and position ids, any padding token will do. With neither, the padding is read like words, and each
# padding token gives different answers.

# %% [markdown]
# ## 4. The whole table
#
# Two sides, with and without mask, with and without position ids, three models. One row before we look at the rest:
# the position ids are passed, but the mask is forgotten.

# %%
Predict(lesson.predict_positions_only)

# %%
from itertools import product


def distance(name, side, mask, positions, **more):
    model, tokenizer = models[name]
    batch = tokenizer(sentences, padding=True, padding_side=side, return_tensors="pt").to(model.device)
    last = [-1] * 3 if side == "left" else batch.attention_mask.sum(1) - 1
    given = {"attention_mask": batch.attention_mask} if mask else {}
    given |= {"position_ids": position_ids(batch.attention_mask)} if positions else {}
    answers = next_token(model, batch.input_ids, last, **given, **more)
    return total_variation(answers, alone[name]).max().item()  # the worst of the three rows


table = {
    case: {name: distance(name, *case) for name in models}
    for case in product(("left", "right"), (False, True), (False, True))
}

# %% [markdown]
# **The result of this lesson.** Total variation between the next-token distributions of the padded prompt and of the
# prompt alone, for the worst of three rows:

# %% tags=["answer"]
print("side   mask  positions  ", *(f"{name:>8}" for name in models))
for (side, mask, counted), distances in table.items():
    cells = [f"{distances[name]:8.2f}" for name in models]
    print(f"{side:6} {'yes' if mask else '-':5} {'yes' if counted else '-':10} ", *cells)
    for name, (model, _) in models.items():
        absolute = model.config.model_type == "gpt2"
        as_it_should = side == "right" or (mask and (counted or not absolute))
        assert distances[name] < 1e-4 if as_it_should else distances[name] > 0.05
cases = [f"{side}{', mask' * mask}{', positions' * counted}" for side, mask, counted in table]
numbers = [list(distances.values()) for distances in table.values()]
heatmap(numbers, cases, list(models), "Total variation", limits=(0, 1))

# %% [markdown]
# Every zero has its reason. **Right:** no token sees what follows it. **Left, mask, positions:** nothing of the padding
# reaches the answer any more. **Left, mask only:** enough for relative positions, not for absolute ones.
#
# Position ids without a mask do not help: they say where a token stands, not which tokens are padding. All three
# models still read the padding. (A footnote: one more setting makes the same call right, by accident.)

# %%
{name: round(distance(name, "left", False, True, use_cache=False), 2) for name in models}

# %% [markdown]
# A pass usually keeps some of its work for the next token, in a *cache* (lesson 05). With `use_cache=False` it does
# not, and transformers looks at the position ids: where they start again (0, 0, 0, 0, 1, 2 …), it assumes that several
# texts are **packed** into one row, and keeps them apart. Do not rely on this: pass the mask.

# %% [markdown]
# A zero here is a zero in float32, up to rounding. In **float16**, a format with fewer digits, padding changes the
# order of the additions and so the last digit. Even where all is right, a small distance remains:

# %%
import copy

models["float16"] = copy.deepcopy(trained).half(), its_tokenizer
alone["float16"] = one_by_one(*models["float16"])
for name in ("trained", "float16"):
    small = distance(name, "left", True, True)
    print(f"{name:8} left, mask, positions: {'less' if small < 1e-4 else 'more'} than 0.0001, less than 0.05")
    assert small < 0.05
del models["float16"]  # the rest is in float32

# %% [markdown]
# The live grid in section 2 has all these cases: go back to it, and watch the rows as you switch side, mask and
# position ids.

# %% [markdown]
# ## 5. What generate() does for you
#
# `generate()` computes position ids from the mask, as in exercise 2. So with `generate()` the mask alone is enough,
# for both architectures. First each prompt alone, decoded **greedily**: always the most likely token, six times.

# %%
def continued(model, **inputs):
    ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    return ids[:, inputs["input_ids"].shape[1] :].tolist()


expected = {}
for name, (model, tokenizer) in models.items():
    prompts = [tokenizer(sentence, return_tensors="pt").to(model.device) for sentence in sentences]
    expected[name] = [continued(model, **prompt)[0] for prompt in prompts]
for sentence, ids in zip(sentences, expected["trained"]):
    print(repr(sentence), "->", repr(tokenizer.decode(ids)))

# %% [markdown]
# Why a batch at all? Six new tokens take six forward passes, whether they serve one row or three. (A pass over three
# rows costs more than a pass over one, but far less than three.)

# %%
def passes(model, **inputs):
    counted = []
    with model.register_forward_hook(lambda *_: counted.append(1)):
        continued(model, **inputs)
    return len(counted)


model, tokenizer = models["trained"]
inputs = tokenizer(sentences, padding=True, padding_side="left", return_tensors="pt").to(model.device)
print("one by one:", sum(passes(model, **prompt) for prompt in prompts), " as a batch:", passes(model, **inputs))

# %% [markdown]
# transformers writes its warnings to a log. The next line has that log printed in the page, so that each warning
# appears where it belongs. A message that follows an equal one is left out.

# %%
page = lesson.warnings_on_the_page()

# %% [markdown]
# Now all three prompts at once, with their mask, padded first on the left, then on the right. How many rows of the
# right-padded batch will be the same as for the prompts alone?

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
print("left padding: which rows are the same as alone?")
left = {name: together(name, "left") for name in models}
{name: as_alone(name, left[name]) for name in models}

# %% tags=["answer"]
print("right padding: which rows are the same as alone?")
right = {name: together(name, "right") for name in models}
assert left == expected
assert all(as_alone(name, right[name]) == [False, True, False] for name in models)
{name: as_alone(name, right[name]) for name in models}

# %% [markdown]
# Left: every id of every row is the same, in all three models. Right: only the row that has no padding is (in another
# batch a padded row may be right by luck), and a warning says what to do. This is what the trained model writes:

# %%
[tokenizer.decode(ids) for ids in right["trained"]]

# %% [markdown]
# Two things go wrong. `generate()` reads the answer at the last *index*, which holds a padding token. And the new
# token is appended after the padding, at a wrong position. We record the position ids that the model receives:

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
# With left padding, row 0 continues at position 5, after its five tokens. With right padding it continues at 1, since
# its last token was padding with position 0. So both rules are right. **In a forward pass *we* read the answer, and can
# do so at the last token; and right padding leaves GPT-2's own positions as they should be. `generate()` reads and
# writes at the last index, so it needs left padding, and counts the positions from the mask itself.**

# %% [markdown]
# ## 6. "The attention mask and the pad token id were not set"
#
# Two objects have a pad token: the *tokenizer* pads with its own, and `generate()` reads that of the model's
# *generation config*, the defaults for its arguments. We have set the first. The second is empty, as in GPT-2's
# files. Now we forget the mask:

# %%
model, _ = models["GPT-2"]
print("in the generation config:", model.generation_config.pad_token_id)
input_ids = batch.input_ids.to(model.device)  # section 2's, padded on the left
page.forget()  # as in a fresh kernel, see below
as_alone("GPT-2", continued(model, input_ids=input_ids))

# %% [markdown]
# Read both messages. Without a pad token, `generate()` falls back to end-of-text. An id 50256 may then be padding or
# a real end, so no mask can be *inferred*. It continues with a mask of ones, and reads the padding.

# %% [markdown]
# You will often read this advice: set `pad_token_id`, and the warning goes away. (Older versions said "Setting
# `pad_token_id` to `eos_token_id`" at every call.) Some messages appear only once per kernel, so we make transformers
# forget which ones it has shown:

# %%
page.forget()  # as in a fresh kernel
as_alone("GPT-2", continued(model, input_ids=input_ids, pad_token_id=gpt2.eos_token_id))

# %% [markdown]
# One message is gone. The other, which names the cause, appears once per kernel; the next such call is silent. And
# both padded rows are as wrong as before.

# %%
page.said = None  # the page leaves nothing out now: if transformers said it again, we would see it
as_alone("GPT-2", continued(model, input_ids=input_ids, pad_token_id=gpt2.eos_token_id))

# %% [markdown]
# The mask fixes it. `**inputs` passes everything that the tokenizer returned:

# %%
inputs = gpt2(sentences, padding=True, padding_side="left", return_tensors="pt").to(model.device)
cured = continued(model, **inputs, pad_token_id=gpt2.eos_token_id)
assert cured == expected["GPT-2"]

# %% [markdown]
# Where padding is not end-of-text, `generate()` infers the mask by comparing ids. Here we pad with `!`, id 0, on the
# left. For which of the three prompts will that give the same result as passing the mask?

# %%
for prompt in ("My dog is", "Stop! My dog is", "Wow!!! My dog is"):
    row = gpt2(prompt).input_ids
    padded, mask = (tensor.to(model.device) for tensor in pad([row, rows[1]], 0))
    inferred = continued(model, input_ids=padded, pad_token_id=0)
    same = inferred == continued(model, input_ids=padded, attention_mask=mask, pad_token_id=0)
    print(f"{prompt!r:18} ids {row}: the same is {same}")

# %% [markdown]
# `Stop!` contains the id 0, so that token is taken for padding. `!!!` does no harm: it has an id of its own, 10185.
# The comparison is between ids, not characters.

# %% [markdown]
# ### Exercise 3: Repair a broken batch · difficulty 3 of 3 · 6 minutes
#
# Three rows for `generate()`, three different bugs, no error. First find them by eye. Then write a function that fixes
# any batch with such bugs. No sentence contains the pad id. At padding, the mask and the position are 0.

# %%
broken = lesson.broken_batch()
for name, tensor in broken.items():
    print(f"{name}\n{tensor}")

# %% tags=["exercise"]
def repair(batch: dict, pad_id: int) -> dict:
    """Return input_ids, attention_mask and position_ids, all three correct and padded on the left."""
    raise NotImplementedError

# %% tags=["solution"]
def repair(batch: dict, pad_id: int) -> dict:
    """Return input_ids, attention_mask and position_ids, all three correct and padded on the left."""
    rows = [[id for id in row if id != pad_id] for row in batch["input_ids"].tolist()]
    input_ids, attention_mask = pad(rows, pad_id, "left")
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position_ids": position_ids(attention_mask),
    }

# %% [markdown] tags=["solution"]
# Row 0 is padded on the right: harmless in a forward pass, fatal in `generate()`. Row 1 counts from 1: its positions
# are off by one, and GPT-2 answers differently. In row 2, the mask has a 1 at a padding token. Only the ids can be
# trusted here, so everything is rebuilt from them.

# %% tags=["check"]
lesson.check_repair(repair)

# %% [markdown] tags=["hints"]
# - Go row by row. Where is the padding? Where should the first 1 of the mask be? Where should the positions begin?
# - Do not fix the mask: rebuild it. The ids are right, except for the side of the padding.
# - Take each row's ids without `pad_id`; then `pad(rows, pad_id, "left")` and `position_ids(mask)` do the rest.

# %% [markdown]
# ## 7. Training: pad on the right, and mind the labels
#
# Training is a forward pass: right padding and the default positions will do. To teach the model when to *stop*, each
# text ends with the end-of-text token.

# %%
texts = ["My dog is happy.", "It will rain in the evening, they say.", "I want to eat."]
lines_of_text = [text + gpt2.eos_token for text in texts]
training = gpt2(lines_of_text, padding=True, padding_side="right", return_tensors="pt")
print(training.input_ids)
print(training.attention_mask)

# %% [markdown]
# **Labels** are the ids that the model should predict; the *loss* measures how far it is from them, and skips labels
# of −100. (`model(ids, labels=labels)` shifts the labels by one index itself; below we write that out.) Padding should
# get −100. The short way is to find it by its id:

# %%
Predict(lesson.predict_labels)

# %% tags=["answer"]
labels_naive = training.input_ids.masked_fill(training.input_ids == gpt2.pad_token_id, -100)
print("labels, and the number of ends in them:")
print(labels_naive, (labels_naive == gpt2.eos_token_id).sum().item())

# %% [markdown]
# None: the padding and the true end have the same id. A model trained on these labels is never taught to stop. The
# library's own *collator*, which makes batches for training, does the same:

# %%
from transformers import DataCollatorForLanguageModeling

its_own = load_tokenizer("gpt2", pad_token=gpt2.eos_token)  # pads on the right
collate = DataCollatorForLanguageModeling(its_own, mlm=False)  # mlm=True would hide tokens and predict those
collated = collate([its_own(text) for text in lines_of_text])
torch.equal(collated["labels"], labels_naive)

# %% [markdown]
# The mask can tell them apart: the tokenizer set it to 1 at the true end. Where you have the mask, use it.

# %%
labels = training.input_ids.masked_fill(training.attention_mask == 0, -100)
print(labels)
kinds = ("learned", "skipped by both", "an end that only the mask keeps")
kind = (labels == -100).int() + 2 * (labels != labels_naive).int()  # (batch, length)
cells = [[(str(id.item()), kinds[k]) for id, k in zip(*row)] for row in zip(labels, kind)]
grid(cells, "Labels from the mask", kinds, rows=["row 0", "row 1", "row 2"])

# %% [markdown]
# ### Exercise 4: Keep the end-of-text in the labels · difficulty 2 of 3 · 8 minutes
#
# Often you get only the ids, without the mask. Then the padding is the run of pad ids at the end of a row, **except
# the first one**: that is the true end. An end-of-text inside a row, between two texts, stays as well. A row with no
# pad id stays as it is. A row of nothing but pad ids is an empty text: its first id stays.

# %% tags=["exercise"]
def repair_labels(input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Return labels for right-padded ids: -100 for the padding, but not for the end-of-text before it."""
    raise NotImplementedError

# %% tags=["solution"]
def repair_labels(input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Return labels for right-padded ids: -100 for the padding, but not for the end-of-text before it."""
    labels = input_ids.clone()
    for row in labels:
        length = len(row)
        while length > 1 and row[length - 1] == pad_id and row[length - 2] == pad_id:
            length -= 1
        row[length:] = -100
    return labels

# %% [markdown] tags=["solution"]
# From the right end we step left while this id *and* the one before it are pad ids, so one of them is kept. Do not
# shift the labels: the library's loss does that itself. `course_utils.masks.labels_from_ids` does the same without a
# loop.

# %% tags=["check"]
lesson.check_repair_labels(repair_labels)

# %% [markdown] tags=["hints"]
# - Work on `input_ids.clone()`: the caller still needs the ids.
# - Only the run of pad ids at the *end* of a row is padding. Start from the right.
# - Keep the first id of that run; all after it become −100.

# %% [markdown]
# Does it matter? Two small models train on the three texts, twelve steps each. Only the labels differ. After each step
# we ask for the probability of an end after each full stop, and keep the mean.

# %%
def train(labels):
    model, _ = load("tiny-gpt2")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    ids, labels = training.input_ids.to(model.device), labels.to(model.device)
    full_stops, ends = training.attention_mask.sum(1) - 2, []
    for _ in range(12):
        logits = model(ids).logits[:, :-1]  # index t predicts the id at t + 1
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(next_token(model, ids, full_stops)[:, gpt2.eos_token_id].mean().item())
    return model, ends


taught = {"labels from the ids": train(labels_naive), "labels from the mask": train(labels)}
curves = {name: ends for name, (_, ends) in taught.items()}
lines(range(1, 13), curves, "Who learns to stop?", "training step", "probability of an end")

# %%
prompts = gpt2(["My dog is", "It will", "I want"], padding=True, padding_side="left", return_tensors="pt")
stops = {}
for name, (model, _) in taught.items():
    ids = model.generate(**prompts.to(model.device), max_new_tokens=14, do_sample=False)
    new = ids[:, prompts.input_ids.shape[1] :]
    stops[name] = (new == gpt2.eos_token_id).any(1).tolist()
    print(f"{name:21} writes an end: {stops[name]}")
    for row in new:
        text, end, _ = gpt2.decode(row).partition(gpt2.eos_token)
        print(f"    {text + end!r}")

assert list(stops.values()) == [[False] * 3, [True] * 3]

# %% [markdown]
# The first model keeps writing after every full stop. If your fine-tuned model never stops, look at its labels first:
# print a row of ids and a row of labels, one above the other.

# %% [markdown]
# Labels can leave out more than padding. A model that is to *answer* learns from the answer's tokens only: those of the
# prompt get −100, too. Say that each text begins with a prompt of two tokens:

# %%
answers_only = labels.clone()
answers_only[:, :2] = -100
print("targets of each row:", (labels != -100).sum(1).tolist(), "without the prompt:", (answers_only != -100).sum(1).tolist())

# %% [markdown]
# ## Recap
#
# - **One tensor from ragged rows:** pad to the longest row, and mark in the mask what is real.
# - **The side:** right where a forward pass reads at the last token; left where `generate()` reads and writes at the
#   last index.
# - **Positions:** count tokens, not indices. `generate()` does it from the mask; in a bare forward pass with absolute
#   positions you must do it yourself.
# - **Warnings:** the mask fixes the cause. A pad token id alone silences one of them, and the rows stay wrong.
# - **Labels:** make them from the mask, or from the ids with the first end kept, but not from `ids == pad_id` where
#   padding is end-of-text.

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
# Read both: they are short. `course_utils/masks.py` has this lesson's functions, for the later lessons.
#
# Next, [lesson 03](03_masks.ipynb): how a 0 in the mask turns into a very large negative number inside attention.
