# %% [markdown]
# # How likely was that?
#
# **By the end you will have rebuilt the sequence score by which `generate()` ranks its beams, to five decimals, from
# what it recorded at each step.**
#
# You will be able to
#
# - turn what `generate()` recorded into the log probability of each token it chose,
# - say whether a number is the model's own or was changed by the logits processors,
# - compute the log probability and the perplexity of any text, and say which perplexities can be compared,
# - rank answers by sum or by mean, and know where each goes wrong,
# - rebuild a beam's sequence score, length penalty included, and say why old recipes no longer give it.
#
# *60 minutes, and 35 more for the exercises. You need: lessons 05 and 06.*

# %% [markdown]
# ## 1. A text, token by token
#
# We begin with the result. The model has read the text below, and each token is coloured by how much it surprised the
# model. Point at a token, or use Tab and the arrow keys, to see what the model expected instead.

# %%
import math
import os

import torch

from course_utils import load, load_tokenizer
from course_utils.lessons import lesson07 as lesson
from course_utils.plots import arrows, grid, grouped_bars, lines
from course_utils.widgets import Predict, Quiz, ScoredText

model, tokenizer = load()
ScoredText(model, tokenizer, "Paris is the capital of France, and Berlin is the capital of cheese.")

# %% [markdown]
# **Surprise** is minus the logarithm of a token's probability. With the logarithm to base 2, its unit is the bit: 1 bit
# for a coin toss, 2 bits for one of four equally likely tokens. Type a text of your own. By section 7 you will have
# computed such probabilities, and a perplexity, yourself. (From section 2 on, logarithms are natural, and surprise is
# counted in *nats*: 1 nat is 1.44 bits.)

# %% [markdown]
# ## 2. One number for each token
#
# Three things are called *score* in this course: attention scores (lesson 03), the sequence score of a whole text
# (section 9), and here **processed scores**: the logits after all logits processors. `generate()` can record them. We
# take greedy decoding, five tokens after "Today is":

# %%
end = tokenizer.eos_token_id
record = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "pad_token_id": end}

prompt = tokenizer("Today is", return_tensors="pt").to(model.device)
output = model.generate(**prompt, do_sample=False, max_new_tokens=5, **record)
print(len(output.scores), "steps, each of the shape", tuple(output.scores[0].shape))  # (batch, vocabulary)

# %% [markdown]
# `log_softmax` turns a row of processed scores into log probabilities. Why logarithms? A text's probability is a
# *product* over its tokens, and soon too small for a float; log probabilities add up.
#
# Then we pick the number of the token that was chosen. `gather` does that: from each row it takes the entry whose index
# we give. For one row of three numbers and the index 1:

# %%
row = torch.tensor([[0.1, 0.7, 0.2]])  # (1, 3)
row.gather(-1, torch.tensor([[1]]))  # an index with as many dimensions as the row

# %% [markdown]
# For a batch of texts the same call picks from every row at once. `tokens[..., None]` gives the ids the last
# dimension that `gather` wants, and `squeeze(-1)` removes it again.

# %%
def gathered(steps, tokens):
    """The log probability of each token: (batch, new), from a tuple of (batch, vocabulary)."""
    log_probs = torch.stack([scores.log_softmax(-1) for scores in steps], dim=1)  # (batch, new, vocabulary)
    return log_probs.gather(-1, tokens[..., None]).squeeze(-1)


new = output.sequences[:, -len(output.scores) :]  # (batch, new)
chosen = gathered(output.scores, new)
for token, number in zip(new[0], chosen[0], strict=True):
    print(f"{token:6}  {tokenizer.decode(token):10}  {number:6.2f}  {number.exp():5.0%}")

# %% [markdown]
# Older pages print such a table with the column title "logits". But a single logit means nothing: add 5 to all logits
# of a step, and the probabilities stay the same. These are **log probabilities**, with the natural logarithm: their
# unit is the *nat*, and `exp` turns them into probabilities.
#
# The library's documentation prints this table for GPT-2. Here are its numbers, with `exp` of each. (Where the course
# runs on GPT-2, `COURSE_MODEL=gpt2`, the cell compares ours with them.)

# %%
gpt2 = load_tokenizer("gpt2")
documented = {262: -1.414, 1110: -2.609, 618: -2.010, 356: -1.859, 460: -2.508}
shares = [0.2433, 0.0736, 0.1340, 0.1558, 0.0814]
for (token, number), share in zip(documented.items(), shares, strict=True):
    print(f"{token:5}  {gpt2.decode(token):6} {number:.3f}  exp {math.exp(number):6.2%}  documented {share:.2%}")
    assert abs(math.exp(number) - share) < 2e-4  # the number is rounded to three places
if os.environ.get("COURSE_MODEL") == "gpt2":
    assert torch.allclose(chosen[0].cpu(), torch.tensor(list(documented.values())), atol=0.0015)

# %% [markdown]
# The library's own method for this is `compute_transition_scores`: a **transition score** is the log probability of one
# chosen token (without `normalize_logits=True`, its processed score). It gathers, too, but normalises a tensor of
# (batch, vocabulary, new) along the middle dimension. On a CPU, that sum over 49,152 numbers has a larger rounding
# error:

# %% tags=["nbval-ignore-output"]
library = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
print("equal within 0.001:", torch.allclose(chosen, library, atol=1e-3))
exact = gathered([scores.double() for scores in output.scores], new)
for name, numbers in {"by hand": chosen, "the library": library}.items():
    print(f"{name} within 0.00005 of float64:", (numbers - exact).abs().max().item() < 5e-5)

# %% [markdown]
# ## 3. Whose probability?
#
# In greedy decoding and sampling `output.scores` are the logits **after** all processors: what the choice was made
# from. `output.logits` are the model's own output. Section 2 had no processors. Now we sample with `top_k=5`:

# %%
assert torch.equal(output.scores[0], output.logits[0])
torch.manual_seed(0)
sampled = model.generate(**prompt, do_sample=True, top_k=5, max_new_tokens=5, **record)
drawn = sampled.sequences[:, -5:]
print("finite processed scores at each step:", [scores.isfinite().sum().item() for scores in sampled.scores])

# %%
Predict(lesson.predict_processed)

# %% tags=["answer", "nbval-ignore-output"]
print("surprise at each drawn token, from `scores` and from `logits`:")
both = {"scores": -gathered(sampled.scores, drawn)[0], "logits": -gathered(sampled.logits, drawn)[0]}
bars = {
    f"{step + 1}: {tokenizer.decode(token)!r}": {name: round(both[name][step].item(), 2) for name in both}
    for step, token in enumerate(drawn[0])
}
grouped_bars(bars, "Five drawn tokens, two surprises each", "minus the log probability, nats")

# %% [markdown]
# The probability of the other 49,147 tokens is divided among the five, so each looks *more* likely than the model finds
# it. Neither number is wrong. The first says how likely the **draw** was, the second how likely the **model** finds the
# token.

# %% [markdown]
# A method that learns from its own draws, as in lesson 09, needs to know how likely the draw was: the first kind. To
# compare two texts you need the second kind; otherwise the sampling settings distort the comparison.

# %% [markdown]
# ## 4. Where the answer begins
#
# We counted from the end: the last `len(scores)` ids. Recipes that count from the beginning must know where the
# answer begins. An encoder-decoder model shows why this is a problem. Here is a tiny T5 with random weights:

# %%
from transformers import T5Config, T5ForConditionalGeneration

torch.manual_seed(6)
sizes = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
config = T5Config(**sizes, initializer_factor=5.0, decoder_start_token_id=0)
t5 = T5ForConditionalGeneration(config).eval()
question = torch.tensor([[5, 6, 7, 8]])
answer = t5.generate(question, max_new_tokens=5, return_dict_in_generate=True, output_scores=True)
print("prompt", tuple(question.shape), " sequences", tuple(answer.sequences.shape), " steps", len(answer.scores))

# %% [markdown]
# Four ids went in, six came out, and five were chosen. The encoder reads the prompt; the decoder writes a separate
# sequence, which begins with **one** start token. So the answer begins at index 1, whatever the length of the prompt.

# %%
print("after the start token:", answer.sequences[0, 1:].tolist())
print("after the prompt:     ", answer.sequences[0, question.shape[1] :].tolist())  # three tokens are lost

# %% [markdown]
# There is no error, just a shorter text. A decoder-only model returns the prompt, too; there, index 1 would be wrong.
# Counting from the end is right for both, and also for a prompt given as `inputs_embeds`, which `sequences` does not
# contain at all. (After beam search we count differently: section 9.)

# %% [markdown]
# ## 5. Rows that ended early
#
# We take two prompts, and let a full stop end a row, too. The first row is done after two tokens:

# %%
stops = [end, tokenizer(".").input_ids[0]]
batch = tokenizer(
    ["The capital of France is", "Today is"], return_tensors="pt", padding=True, padding_side="left"
).to(model.device)
ragged = model.generate(**batch, do_sample=False, max_new_tokens=8, eos_token_id=stops, **record)
ragged_new = ragged.sequences[:, -len(ragged.scores) :]
for text in tokenizer.batch_decode(ragged_new):
    print(repr(text))

# %%
Predict(lesson.predict_padding)

# %% tags=["answer"]
print("compute_transition_scores for the row that ended after two tokens:")
past = model.compute_transition_scores(ragged.sequences, ragged.scores, normalize_logits=True)
print([f"{number:.2f}" for number in past[0]])
print(f"the two tokens add up to {past[0, :2].sum():.2f}, the whole row to {past[0].sum():.2f}")

# %% [markdown]
# The model kept computing all rows, since the batch has one shape, and the method gathers how likely it found the
# padding. According to the sum over the whole row, "Paris." would be almost impossible.

# %% [markdown]
# ### Exercise 1: Add up the written tokens' log probabilities · difficulty 2 of 3 · 7 minutes
#
# `numbers` are log probabilities and `tokens` the ids they belong to, both (batch, new). Return each row's sum up to
# **and including** the first token that ends it. `end_ids` is a list, and any of them ends a row. A row without an end
# counts in full. Two warnings: the padding token may itself be an end token, and numbers after the end may be −∞.

# %% tags=["exercise"]
def row_sums(numbers: torch.Tensor, tokens: torch.Tensor, end_ids: list[int]) -> torch.Tensor:
    """Return the sum of each row's numbers up to and including its first end token: (batch,)."""
    raise NotImplementedError

# %% tags=["solution"]
def row_sums(numbers: torch.Tensor, tokens: torch.Tensor, end_ids: list[int]) -> torch.Tensor:
    """Return the sum of each row's numbers up to and including its first end token: (batch,)."""
    is_end = torch.isin(tokens, torch.tensor(end_ids, device=tokens.device))
    ends_before = is_end.long().cumsum(1) - is_end.long()
    return torch.where(ends_before == 0, numbers, 0.0).sum(1)

# %% [markdown] tags=["solution"]
# The running sum counts the ends up to each token; without the token itself, it counts those *before* it. A token
# counts if that is 0: the end itself is included, and what follows is not, whatever its id. Comparing with the pad id
# would lose the end when both have the same id. Multiplying by 0 would fail: after top-k the padding's number may be
# −∞, and −∞ · 0 is NaN.

# %% tags=["check"]
lesson.check_row_sums(row_sums)

# %% [markdown] tags=["hints"]
# - `torch.isin(tokens, torch.tensor(end_ids))` is True at every end, and at padding with the id of an end.
# - `is_end.long().cumsum(1)` counts the ends up to each token. You want the tokens with none *before* them.
# - Subtract `is_end.long()` from the running sum, compare with 0, and keep those numbers with `torch.where`.

# %% [markdown]
# From here on, `sum_rows` is your function if it passed the check, and otherwise the course's own. `transition_scores`
# of `course_utils.scores` follows the same rule, with 0 after the end; you tell it which tokens end a row.

# %%
from course_utils.scores import transition_scores

sum_rows = lesson.usable_row_sums(row_sums)
sums = sum_rows(gathered(ragged.scores, ragged_new), ragged_new, stops)
numbers = transition_scores(ragged, eos_token_id=stops)
print("sums:", [f"{number:.2f}" for number in sums], " equal:", torch.allclose(sums, numbers.sum(1), atol=1e-4))
print([f"{number:.2f}" for number in numbers[0]])

# %% [markdown]
# ## 6. A text that nobody generated
#
# The log probability of any text takes one forward pass: the model predicts the next token after *every* token.
# Lesson 04 compared endings in this way. For six tokens, the pass returns six rows of logits:

# %%
ids = tokenizer("The capital of France is Paris", return_tensors="pt").input_ids.to(model.device)
with torch.no_grad():
    logits = model(ids).logits
print(tokenizer.convert_ids_to_tokens(ids[0]), tuple(logits.shape))

# %%
Predict(lesson.predict_shift)

# %% tags=["answer"]
print("probability of ĠParis, the token at index 5, by the logits at index 0 to 5:")
print([f"{logits[0, index].softmax(-1)[ids[0, 5]]:.2f}" for index in range(6)])

# %% [markdown]
# At index 4 the model has read "The capital of France is" and predicts the token at index 5. So logits and ids are
# paired **shifted by one**: `logits[:, :-1]` predict `ids[:, 1:]`.

# %%
log_probs = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)  # (1, length - 1)
above = [f"index {index}" for index in range(6)]
numbers = ["none", *(f"{number:.2f}" for number in log_probs[0])]
below = [f"{token}\n{number}" for token, number in zip(tokenizer.convert_ids_to_tokens(ids[0]), numbers)]
pairs = [(index, index + 1) for index in range(5)]
arrows({"logits": above, "token,\nlog prob.": below}, pairs, "Which logits predict which token?")

# %% [markdown]
# The logits at index 5 predict a token that is not there. And nothing predicts the first token, so it has no
# probability, unless a token comes before it. Many tokenizers put a **begin token** before every text (lesson 01).
# SmolLM2's does not, so we try each of its special tokens:

# %%
for begin in tokenizer.all_special_ids:
    begun = torch.cat([torch.tensor([[begin]], device=model.device), ids], dim=1)
    with torch.no_grad():
        first = model(begun).logits[0, 0].softmax(-1)
    print(f"{tokenizer.decode(begin):15} P(The) = {first[ids[0, 0]]:.4f}")

# %% [markdown]
# Now the first word has a probability, and it depends on what we put before it: about 20 times as likely after
# `<|endoftext|>` as after the tokens that mark a chat's turns. If you publish such a number, say which begin token you
# used, or that you used none.

# %% [markdown]
# ### Exercise 2: Find two slips in a log probability · difficulty 2 of 3 · 6 minutes
#
# Given `labels`, a model returns a `loss`: the mean surprise in nats. It shifts the labels itself, so `labels=ids` is
# all it needs. The function below should return the sum of the log probabilities of all tokens except the first. It
# runs without a warning, and has two common slips:

# %%
def wrong_log_prob(model, ids):
    with torch.no_grad():
        loss = model(ids[:, :-1], labels=ids[:, 1:]).loss  # pair the logits with the next ids
    return -loss.item() * ids.shape[1]  # from the mean to the sum


with torch.no_grad():
    print(f"loss {model(ids, labels=ids).loss:.2f}, minus the mean of our numbers {-log_probs.mean():.2f}")
print(f"wrong_log_prob {wrong_log_prob(model, ids):.2f}, the sum of our numbers {log_probs.sum():.2f}")

# %% [markdown]
# Find both slips, and write the function correctly, with the loss or without it. `ids` is (1, length).

# %% tags=["exercise"]
def text_log_prob(model, ids: torch.Tensor) -> float:
    """Return the log probability that the model gives to all tokens of a text except the first."""
    raise NotImplementedError

# %% tags=["solution"]
def text_log_prob(model, ids: torch.Tensor) -> float:
    """Return the log probability that the model gives to all tokens of a text except the first."""
    with torch.no_grad():
        loss = model(ids, labels=ids).loss  # the model shifts the labels
    return -loss.item() * (ids.shape[1] - 1)  # a mean over all tokens except the first

# %% [markdown] tags=["solution"]
# `labels=ids[:, 1:]` shifts the labels a second time: the logits at index t are compared with token t + 2. And a text
# of six tokens has five log probabilities. Both slips return plausible numbers, so compare a new function with a sum
# that you have checked by hand.

# %% tags=["check"]
lesson.check_text_log_prob(text_log_prob)

# %% [markdown] tags=["hints"]
# - Which token do the logits at index 0 predict? With which label does `wrong_log_prob` compare them?
# - `loss` is a mean. Of how many numbers, if the text has six tokens?
# - Without the loss: `log_softmax(-1)` of `logits[:, :-1]`, then `gather(-1, ids[:, 1:, None])`, then the sum.

# %% [markdown]
# We compare three sentences with the same words. (`log_prob` is your function if it passed, else the course's.)

# %%
log_prob = lesson.usable_text_log_prob(text_log_prob)
for sentence in ("The cat chased the mouse.", "The mouse chased the cat.", "The cat the chased mouse."):
    row = tokenizer(sentence, return_tensors="pt").input_ids.to(model.device)
    print(f"{log_prob(model, row):7.2f}  {sentence}")

# %% [markdown]
# The broken sentence is by far the least likely. But this model finds a mouse chasing a cat more likely than the
# other way round. A log probability says what *this model* expects in texts. It measures neither sense nor truth.

# %% [markdown]
# ## 7. Perplexity
#
# Each further token can only lower the log probability of a text, so sums do not compare long and short texts. The
# **perplexity** takes the mean instead: it is `exp` of the mean surprise in nats. A perplexity of 10 means that the
# model was, on average, as surprised as by a draw from 10 equally likely tokens. For "The capital of France is Paris":

# %%
from course_utils.scores import perplexity, token_log_probs

print(f"by hand {(-log_probs.mean()).exp():.1f}, course_utils.scores {perplexity(model, ids):.1f}")

# %% [markdown]
# Does the mean make short and long texts comparable? We take a story of 230 tokens, written for this page, so the model
# has never read it, and compute the perplexity of each of its beginnings. One pass is enough: what follows a token
# does not change its log probability. `cumsum` adds up to each index: 1, 2, 3 becomes 1, 3, 6.

# %% tags=["nbval-ignore-output"]
story = tokenizer(lesson.FERRY, return_tensors="pt").input_ids.to(model.device)
each, scored = token_log_probs(model, story)  # scored: True where a token has a log probability
sums = each[scored].cpu().cumsum(0)
counts = torch.arange(1, len(sums) + 1)
prefixes = (-sums / counts).exp()
print(f"first 50 log probabilities {prefixes[49]:.0f}, all {len(sums)} {prefixes[-1]:.0f}")
curve = {"first n": prefixes[9:].tolist()}
lines(counts[9:].tolist(), curve, "Perplexity of the story's beginnings", "n", "perplexity")

# %% [markdown]
# No, at least not in this text: its beginning has more than twice the perplexity of the whole. The later a token, the
# more text the model can predict it from. Other texts have other curves, so compare texts of similar length.

# %% [markdown]
# For a batch we average over all *tokens*, not over rows. Two things must be left out of the mean: padding, and the
# first token of each row. With left padding that first token does have logits before it, but they belong to a padding
# token.

# %% [markdown]
# ### Exercise 3: Compute the perplexity of a padded batch · difficulty 3 of 3 · 8 minutes
#
# `logits` is (batch, length, vocab), `ids` and `mask` are (batch, length), padded on the left or on the right. The
# logits were computed with the correct mask and position ids, and only `mask` tells what is padding. Return the
# perplexity as a float.

# %% tags=["exercise"]
def batch_perplexity(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> float:
    """Return exp of the mean surprise, in nats, of all tokens that have a token before them in their row."""
    raise NotImplementedError

# %% tags=["solution"]
def batch_perplexity(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> float:
    """Return exp of the mean surprise, in nats, of all tokens that have a token before them in their row."""
    log_probs = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    counts = (mask[:, 1:] == 1) & (mask[:, :-1] == 1)  # a token, and a token before it
    return (-log_probs[counts].mean()).exp().item()

# %% [markdown] tags=["solution"]
# With padding on the right, `mask[:, 1:]` alone is enough: every token after the first has a token before it. With
# padding on the left, the first token of a short row follows a padding token, whose logits mean nothing: `mask[:,
# :-1]` leaves it out.

# %% tags=["check"]
lesson.check_batch_perplexity(batch_perplexity)

# %% [markdown] tags=["hints"]
# - Shift first, as in section 6: log probabilities of `ids[:, 1:]`, (batch, length − 1).
# - An index counts if there is a token at it *and* one at the index before. Both follow from `mask`.
# - Take the mean over everything that counts in the whole batch at once, then `exp` of minus that mean.

# %% [markdown]
# Here are two sentences, alone and in one padded batch. (`batch_ppl` is your function if it passed.)

# %%
from course_utils.masks import position_ids

batch_ppl = lesson.usable_batch_perplexity(batch_perplexity)
pair = ["The cat chased the mouse.", "Paris is the capital of France, which lies in the west of Europe."]
for side in ("left", "right"):
    both = tokenizer(pair, return_tensors="pt", padding=True, padding_side=side).to(model.device)
    with torch.no_grad():
        padded = model(**both, position_ids=position_ids(both.attention_mask)).logits
    print(f"{side:5}  {batch_ppl(padded, both.input_ids, both.attention_mask):.1f}")
alone = [perplexity(model, tokenizer(text, return_tensors="pt").input_ids) for text in pair]
print(f"alone  {alone[0]:.0f} and {alone[1]:.0f}, mean {sum(alone) / 2:.0f}")

# %% [markdown]
# Both sides agree, and the mean over rows is a different number. The perplexity of the batch is closer to that of the
# long sentence, which has most of the tokens.

# %% [markdown]
# ### A text that is too long for one pass
#
# A model was trained on a limited number of positions, and memory may run out before that. A longer text is read in
# **windows**. They should overlap: otherwise the first tokens of each window are predicted from almost nothing, and the
# very first from nothing at all, so it is not scored. Each window then scores only what no earlier one has scored.

# %%
def windows(ids, length, stride):
    """For each window: its start, and the log probabilities of the tokens that are new in it."""
    done = 0
    for start in range(0, ids.shape[1] - length + stride, stride):
        log_probs, scored = token_log_probs(model, ids[:, start : start + length])
        scored[:, : max(done - start, 0)] = False
        done = start + length
        yield start, log_probs[scored].cpu()

# %%
def kind(block, start, first, stop):
    """What a window from `start` to `stop`, which scores from `first` on, does with 32 tokens from `block` on."""
    if not start <= block < stop:
        return ""
    return "scored" if block + 32 > first else "read only"


blocks, table = range(0, story.shape[1], 32), []
for start, numbers in windows(story, 64, 32):
    stop = min(start + 64, story.shape[1])
    table.append([("", kind(block, start, stop - len(numbers), stop)) for block in blocks])
names, title = [f"window {n}" for n in range(1, len(table) + 1)], "Windows of 64 tokens that move on by 32"
grid(table, title, ["", "scored", "read only"], names, [f"{block}-" for block in blocks], "tokens")

# %%
for stride in (64, 32, 16, 8):
    parts = [numbers for _, numbers in windows(story, 64, stride)]
    print(f"moved on by {stride:2}: {len(parts):2} passes, perplexity {(-torch.cat(parts).mean()).exp():.1f}")
print(f"all in one pass:            perplexity {perplexity(model, story):.1f}")

# %% [markdown]
# Windows that do not overlap make the model look much worse than it is. Smaller steps cost more passes and help less
# and less: no window sees more than 64 tokens. If you publish such a number, give the window's length and step with it.

# %% [markdown]
# ### Two tokenizers
#
# A perplexity is a number per *token*, so it depends on the tokenizer. Suppose that a model with GPT-2's tokenizer
# found these two texts exactly as likely as SmolLM2 does. The sum would be the same, divided by another number of
# tokens:

# %%
begin = tokenizer.convert_tokens_to_ids("<|endoftext|>")  # so that the first token counts, too
code = "def area(width, height):\n    if width < 0:\n        raise ValueError\n    return width * height\n"
for text in ("In 1969, 600 million people watched; 1234567 letters arrived by 31.12.1970.", code):
    row = torch.tensor([[begin, *tokenizer(text).input_ids]], device=model.device)
    nats, tokens = -log_prob(model, row), {"SmolLM2": row.shape[1] - 1, "GPT-2": len(gpt2(text).input_ids)}
    print(f"{text[:17]!r}…  {nats / math.log(2) / len(text.encode()):.2f} bits per byte")
    for name, count in tokens.items():
        print(f"   {name:7} {count} tokens, perplexity {math.exp(nats / count):.1f}")

# %% [markdown]
# Nothing but the division differs, and yet GPT-2's tokenizer makes the perplexity 20 times as high for the first text,
# and half as high for the second. **Perplexities compare models only if these share a tokenizer.** Surprise per byte,
# or per character, can be compared: every tokenizer has to cover the same bytes.

# %% [markdown]
# ## 8. Which answer is best?
#
# To rank given answers, compare their log probabilities after the prompt. Two rules are common: the **sum**, which is
# the log probability of the whole answer, and the **mean** per token.

# %%
Predict(lesson.predict_answers)

# %% tags=["answer"]
def compare(prompt, answers):
    """Print how likely each answer is after the prompt; return the log probabilities of its tokens."""
    before, found = tokenizer(prompt).input_ids, {}
    for answer in answers:
        ids = torch.tensor([before + tokenizer(answer).input_ids], device=model.device)
        # (1, length): a number for each id, and 0 for the first, which nothing predicts
        found[answer] = each = token_log_probs(model, ids)[0][0, len(before) :].tolist()
        print(f"sum {sum(each):6.2f}  mean {sum(each) / len(each):5.2f} {answer}", [f"{number:.2f}" for number in each])
    return found


print("log probabilities after 'Water is made of':")
water = compare("Water is made of", [" ice.", " hydrogen and oxygen.", " two hydrogen atoms and one oxygen atom."])

# %% [markdown]
# By the sum, ` ice.` wins, because it has only two tokens. By the mean, the longest answer wins. Is the mean the right
# rule, then?

# %%
penguins = compare("Where do penguins live?", [" In Antarctica", " At the North Pole"])

# %% [markdown]
# Here the sum is right, and the mean puts penguins at the North Pole: after ` North`, ` Pole` is almost certain, and
# one easy token lifts the mean. Between the two rules there are others: divide the sum by the length to the power of a
# **penalty**. With 0 this is the sum, with 1 the mean.

# %%
penalties = [step / 20 for step in range(21)]
curves = {answer: [sum(each) / len(each) ** p for p in penalties] for answer, each in water.items()}
lines(penalties, curves, "'Water is made of …': three answers", "penalty", "sum / length ** penalty")

# %% [markdown]
# The winner changes just above one half, twice in close succession: the middle answer wins for a moment. No penalty is
# right for every question. So report the rule beside the result. Beam search has the same question to answer about its
# beams, and answers it with the same formula.

# %% [markdown]
# ## 9. The sequence score of a beam
#
# Beam search ranks whole sequences by their **sequence score**. The search of lesson 06 kept its own sums; now we have
# only what `generate()` returns. A full stop ends a text:

# %%
beams = {"num_beams": 4, "num_return_sequences": 4, "do_sample": False}
bowl = tokenizer("I want to eat a big bowl of", return_tensors="pt").to(model.device)
search = model.generate(**bowl, **beams, max_new_tokens=6, eos_token_id=stops, **record)
for ids_of_text, score in zip(search.sequences, search.sequences_scores, strict=True):
    print(f"{score:.2f}  {tokenizer.decode(ids_of_text, skip_special_tokens=True)}")
search.beam_indices.cpu()  # (sequences, new)

# %% [markdown]
# Where does −1.30 come from? `search.scores` has four rows per step, one for each running beam, and a sequence may have
# been in different rows over time. The best one was in row 0, then 2, then 0 twice, then 1 twice. −1 means that a
# sequence had already ended.
#
# The picture takes the best sequence's six tokens, and shows what each of the four rows says about them:

# %%
path, path_ids = search.beam_indices[0].tolist(), search.sequences[0, -search.beam_indices.shape[1] :]
kinds = ["", "this sequence's row"]
cells = [
    [(f"{search.scores[step][row, path_ids[step]]:.2f}", kinds[row == path[step]]) for step in range(len(path))]
    for row in range(4)
]
names, tokens = [f"row {n}" for n in range(4)], [tokenizer.decode(id) for id in path_ids]
grid(cells, "The best sequence's path through the rows", kinds, names, tokens, "new token")

# %% [markdown]
# At the first step all rows have read the same prompt. From then on each row has read a text of its own, so only one
# of the four numbers is about our sequence.

# %% [markdown]
# ### Exercise 4: Add up a beam's log probabilities · difficulty 2 of 3 · 8 minutes
#
# For each sequence, add up the numbers on its path, without `compute_transition_scores`. `output.scores[step]` is
# (batch · beams, vocabulary). `output.beam_indices` is (sequences, new): the row at each step, −1 after the end.
# `output.sequences` holds the prompt and then the new tokens, as many as `beam_indices` has columns;
# `len(output.scores)` may be larger.
#
# Beam search takes the `log_softmax` *before* the processors, so its `scores` are log probabilities already: add them
# up as they are. After a sequence's end they may be −∞, and must not count.

# %% tags=["exercise"]
def beam_sums(output) -> torch.Tensor:
    """Return the sum of each sequence's log probabilities: (sequences,)."""
    raise NotImplementedError

# %% tags=["solution"]
def beam_sums(output) -> torch.Tensor:
    """Return the sum of each sequence's log probabilities: (sequences,)."""
    new = output.sequences[:, -output.beam_indices.shape[1] :]  # (sequences, new)
    total = torch.zeros(len(new), device=new.device)
    for step in range(new.shape[1]):
        row, token = output.beam_indices[:, step], new[:, step]
        total += torch.where(row >= 0, output.scores[step][row, token], 0)  # -1: this sequence had ended
    return total

# %% [markdown] tags=["solution"]
# `scores[row, token]`, with two tensors of one length, picks one number for each pair. Where `row` is −1, it picks from
# the last row, and `torch.where` throws that number away. `compute_transition_scores` does the same with one `gather`
# over all steps.

# %% tags=["check"]
lesson.check_beam_sums(beam_sums)

# %% [markdown] tags=["hints"]
# - The new tokens are `output.sequences[:, -width:]`, where `width` is the number of columns of `beam_indices`.
# - At one step: `row = output.beam_indices[:, step]`, `token = new[:, step]`, and `output.scores[step][row, token]`.
# - Use `torch.where(row >= 0, numbers, 0)` before you add: −1 as an index would read the last row.

# %% [markdown]
# The rest of the lesson runs on your function if it passed, and otherwise on the course's own.

# %%
sum_beams = lesson.usable_beam_sums(beam_sums)
lengths = (search.beam_indices >= 0).sum(1)
for total, length, score in zip(sum_beams(search), lengths, search.sequences_scores, strict=True):
    print(f"sum {total:.2f}, {length} new tokens, sequence score {score:.2f}")

# %% [markdown]
# The first sum divided by 6 is the first sequence score. This is the formula of section 8: the sum is divided by the
# number of new tokens to the power of `length_penalty`, which is 1 by default.

# %%
Predict(lesson.predict_penalty)

# %% tags=["answer"]
print("mean length of the four best sequences, a full stop ends one:")
for penalty in (0.0, 2.0):
    best = model.generate(**prompt, **beams, max_new_tokens=8, length_penalty=penalty, eos_token_id=stops, **record)
    lengths = (best.beam_indices >= 0).sum(1)
    print(f"length_penalty {penalty}: {lengths.double().mean():.2f} tokens")

# %% [markdown]
# The sums are negative. Dividing by a larger number brings them *closer to zero*, so a larger penalty favours longer
# texts. The name says the opposite of what it does.
#
# Now the proof: a batch of two prompts, and four penalties. With a penalty of 2, every winner runs to the limit, so
# the early ends are in the other three.

# %%
for penalty in (0.0, 0.5, 1.0, 2.0):
    eight = model.generate(**batch, **beams, max_new_tokens=8, length_penalty=penalty, eos_token_id=stops, **record)
    lengths = (eight.beam_indices >= 0).sum(1)
    rebuilt = sum_beams(eight) / lengths**penalty
    torch.testing.assert_close(rebuilt, eight.sequences_scores, atol=1e-5, rtol=0)
    print(f"penalty {penalty}: {len(rebuilt)} sequences of {lengths.min()} to {lengths.max()} tokens, equal to 1e-5")

# %% [markdown]
# For eight sequences under each of four penalties, all sequence scores agree with the library's to 1e-5. We counted the
# entries of `beam_indices` that are not −1; neither its columns nor `len(scores)` would do. The search may continue
# after the best sequence has ended, since it looks for as many finished ones as there are beams:

# %%
france = tokenizer("The capital of France is", return_tensors="pt").to(model.device)
one = beams | {"num_return_sequences": 1, "max_new_tokens": 8}
early = model.generate(**france, **one, length_penalty=0.0, eos_token_id=stops, **record)
print(tokenizer.decode(early.sequences[0]))
print(len(early.scores), "steps,", early.beam_indices.shape[1], "new tokens")

# %% [markdown]
# ## 10. Why the old recipe fails
#
# Many pages print a recipe for this number, from the library's own documentation of 2023. (The
# [appendix](appendix_version_map.ipynb) fixes the whole recipe.) One of its lines asks the model for the penalty, and
# fails:

# %% tags=["raises-exception"]
length_penalty = model.generation_config.length_penalty
sum_beams(early) / early.beam_indices.shape[1] ** length_penalty

# %% [markdown]
# Since version 5 a field that has not been set is `None`, and the default of 1.0 is filled in when `generate()` is
# called. Use the penalty that you passed, or else the model's own if it has one, or else 1.0.
#
# Another line computes the length: `output_length = input_length + np.sum(transition_scores < 0)`. With a penalty of
# 1, for our five tokens after a prompt of two:

# %%
four = model.generate(**prompt, **beams, max_new_tokens=5, **record)
found = model.compute_transition_scores(four.sequences, four.scores, four.beam_indices)
output_length = prompt.input_ids.shape[1] + (found < 0).sum(1)
ratios = four.sequences_scores / (found.sum(1) / output_length)
print("the library's sequence scores / the recipe's:", [f"{ratio:.2f}" for ratio in ratios])

# %% [markdown]
# The ratio is 7/5: the recipe counts the prompt. The library's beam search did the same up to version 4.35, and the
# recipe was right. Since 4.36 **only the new tokens count**.
#
# A third mistake: `beam_indices` is an optional argument of `compute_transition_scores`, and easily forgotten. With as
# many sequences as beams, as here, there is no error:

# %%
forgotten = model.compute_transition_scores(four.sequences, four.scores)
print("with beam_indices:   ", [f"{number:.2f}" for number in found.sum(1)])
print("without beam_indices:", [f"{number:.2f}" for number in forgotten.sum(1)])

# %% [markdown]
# Without it, sequence *i* is read from row *i* at every step, whichever beam was there. The sums belong to no text.

# %% [markdown]
# ### Exercise 5: Find why a sequence score does not match · difficulty 2 of 3 · 5 minutes
#
# A beam search has run, and its first sequence ended early. Four people have computed its sequence score, and none
# got the library's number. Each made one mistake. Find out which:
#
# %%
claims = lesson.claims(model, tokenizer)
print(f"the library's sequence score: {claims.library:.3f}")
for name, number in claims.wrong.items():
    print(f"{name}: {number:.3f}")

# %% [markdown]
# `claims.output` is what `generate()` returned, the sequence is its row 0, and `claims.penalty` is the length
# penalty. The mistakes:
#
# - `"prompt counted"`: the length includes the prompt,
# - `"padding counted"`: the length is the number of columns of `beam_indices`,
# - `"penalty forgotten"`: the sum was not divided,
# - `"beam_indices forgotten"`: the sequence's tokens, up to its end, were all read from row 0; the division was
#   correct.

# %% tags=["exercise"]
mistakes = ...  # a dictionary such as {"Ada": "prompt counted", ...}

# %% tags=["solution"]
new_ids = claims.output.sequences[0, -claims.output.beam_indices.shape[1] :]
total = sum_beams(claims.output)[0]
length = (claims.output.beam_indices[0] >= 0).sum()
prompt_length = claims.output.sequences.shape[1] - len(new_ids)
without = model.compute_transition_scores(claims.output.sequences, claims.output.scores)[0, :length].sum()
tried = {
    "prompt counted": total / (prompt_length + length) ** claims.penalty,
    "penalty forgotten": total,
    "beam_indices forgotten": without / length**claims.penalty,
    "padding counted": total / len(new_ids) ** claims.penalty,
}
mistakes = {
    name: min(tried, key=lambda mistake: abs(tried[mistake] - number)) for name, number in claims.wrong.items()
}

# %% [markdown] tags=["solution"]
# We apply each mistake to the sequence, and the nearest number tells which it was. For other people's numbers, ask in
# this order: is it the plain sum? Is the ratio a power of the ratio of two lengths? If neither, the wrong beams were
# read.

# %% tags=["check"]
lesson.check_mistakes(mistakes)

# %% [markdown] tags=["hints"]
# - `sum_beams(claims.output)[0]` is the sum. Whose number is exactly that?
# - Divide the library's sequence score by each of the others. A wrong length shows as (wrong / right) ** penalty. The
#   prompt's length is the number of columns that `sequences` has in addition to those of `beam_indices`.
# - The number that no length explains comes from the wrong beams.

# %% [markdown]
# ## Recap
#
# - A token's log probability is gathered from the `log_softmax` of its step; a text's log probability is the sum.
# - Processed scores are what the choice was made from, `logits` are the model's output.
# - In a text, the logits at index t predict the token at index t + 1, and only a begin token predicts the first.
# - A perplexity averages over tokens, not rows, and leaves out padding. It depends on the text's length, on windows
#   and on the tokenizer. Models with different tokenizers are compared in bits per byte.
# - Answers of different lengths rank differently by sum and by mean, and either can be wrong.
# - A beam's sequence score is the sum of its entries in `scores`, each from its own row, divided by (new tokens) **
#   `length_penalty`.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `compute_transition_scores` in `transformers/generation/utils.py` is short: look for `beam_indices_mask`. The
# penalty is applied in `_update_finished_beams`, same file; labels are shifted in `ForCausalLMLoss`, in
# `transformers/loss/loss_utils.py`. None of the numbers in this lesson had a gradient.
# [Lesson 08](08_argmax.ipynb) asks where it went.
