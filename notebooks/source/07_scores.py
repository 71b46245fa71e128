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
# - compute the log probability of any text, with one forward pass,
# - compute a perplexity that padding does not change,
# - rebuild a beam's sequence score, length penalty included, and say why old recipes no longer give it.
#
# *35 minutes, and 25 more for the exercises. You need: lessons 05 and 06.*

# %% [markdown]
# ## 1. One number for each token
#
# `generate()` can record the processed scores that it chose from. We begin with greedy decoding, five tokens after
# "Today is":

# %%
import os

import torch

from course_utils import load
from course_utils.lessons import lesson07 as lesson
from course_utils.widgets import Predict, Quiz, ScoredText

model, tokenizer = load()
end = tokenizer.eos_token_id
record = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "pad_token_id": end}

prompt = tokenizer("Today is", return_tensors="pt").to(model.device)
output = model.generate(**prompt, do_sample=False, max_new_tokens=5, **record)
print(len(output.scores), "steps, each of the shape", tuple(output.scores[0].shape))  # (batch, vocabulary)

# %% [markdown]
# Softmax turns a row of processed scores into probabilities, and `log_softmax` into their logarithms. We use
# logarithms because a text's probability is a *product* over its tokens and soon too small for a float, while log
# probabilities add up.

# %% [markdown]
# So we normalise each step, then pick the value of the token that was chosen.

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
# Older pages print this table too, and call the third column "logits". But a single logit means nothing: add 5 to all
# logits of a step, and the probabilities stay the same. These are **log probabilities**, with the natural logarithm:
# their unit is the *nat*. `exp` gives the last column.

# %% [markdown]
# We compare the numbers with those from when this page was made. GPT-2's are printed in the library's own
# documentation; they are checked when the course runs on GPT-2 (`COURSE_MODEL=gpt2`).

# %%
known = {
    "smollm2-135m": [-1.133, -3.355, -0.023, -0.288, -1.838],
    "gpt2": [-1.414, -2.609, -2.010, -1.859, -2.508],
}.get(os.environ.get("COURSE_MODEL", "smollm2-135m"))
if known:
    assert torch.allclose(chosen[0].cpu(), torch.tensor(known), atol=0.0015)

# %% [markdown]
# The library's own method for this is `compute_transition_scores`. It gathers too:

# %%
library = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
print("equal within 0.001:  ", torch.allclose(chosen, library, atol=1e-3))
print("equal within 0.00001:", torch.allclose(chosen, library, atol=1e-5))

# %% [markdown]
# Which of the two is less exact? We compare with float64. The library stores the steps last, as (batch, vocabulary,
# new), and normalises along the middle dimension. On a CPU that sum over 49,152 numbers has a larger rounding error.

# %%
exact = gathered([scores.double() for scores in output.scores], new)
print("by hand within 0.00005 of float64:    ", (chosen - exact).abs().max().item() < 5e-5)
print("the library within 0.00005 of float64:", (library - exact).abs().max().item() < 5e-5)

# %% [markdown]
# ## 2. Whose probability?
#
# In greedy decoding and sampling `output.scores` are the logits **after** all processors: what the choice was made
# from. `output.logits` are the model's own output. Section 1 had no processors. Now we sample with `top_k=5`:

# %%
assert torch.equal(output.scores[0], output.logits[0])
torch.manual_seed(0)
sampled = model.generate(**prompt, do_sample=True, top_k=5, max_new_tokens=5, **record)
drawn = sampled.sequences[:, -5:]
print("finite processed scores at each step:", [scores.isfinite().sum().item() for scores in sampled.scores])

# %%
Predict(lesson.predict_processed)

# %% tags=["answer"]
print("log probability of each drawn token, from `scores`, then from `logits`:")
from_scores, from_logits = gathered(sampled.scores, drawn), gathered(sampled.logits, drawn)
print([f"{number:.2f}" for number in from_scores[0]])
print([f"{number:.2f}" for number in from_logits[0]])

# %% [markdown]
# The five tokens share the probability of the other 49,147, so each looks *more* likely than the model finds it.
# Neither number is wrong. The first says how likely the **draw** was, the second how likely the **model** finds the
# token.

# %% [markdown]
# A method that learns from its own draws, as in lesson 09, needs to know how likely the draw was: the first kind. To
# compare two texts you need the second kind; otherwise the sampling settings distort the comparison.

# %% [markdown]
# ## 3. Where the answer begins
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
# sequence, which begins with **one** start token. The answer begins at index 1, not after the length of the prompt.

# %%
print("after the start token:", answer.sequences[0, 1:].tolist())
print("after the prompt:     ", answer.sequences[0, question.shape[1] :].tolist())  # three tokens are lost

# %% [markdown]
# There is no error, just a shorter text. With a decoder-only model it is the other way round. Counting from the end
# is right for both, and also for a prompt given as `inputs_embeds`, which `sequences` does not contain at all. (After
# beam search we count differently: section 7.)

# %% [markdown]
# ## 4. Rows that ended early
#
# We take two prompts, and let a full stop end a row, too. The first row is done after two tokens:

# %%
stops = [end, tokenizer(".").input_ids[0]]
batch = tokenizer(
    ["The capital of France is", "Today is"], return_tensors="pt", padding=True, padding_side="left"
).to(model.device)
output = model.generate(**batch, do_sample=False, max_new_tokens=8, eos_token_id=stops, **record)
new = output.sequences[:, -len(output.scores) :]
for row in tokenizer.batch_decode(new):
    print(repr(row))

# %%
Predict(lesson.predict_padding)

# %% tags=["answer"]
print("compute_transition_scores for the row that ended after two tokens:")
library = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
print([f"{number:.2f}" for number in library[0]])
print(f"the two tokens add up to {library[0, :2].sum():.2f}, the whole row to {library[0].sum():.2f}")

# %% [markdown]
# The model kept computing all rows, since the batch has one shape, and the method gathers how likely it found the
# padding. According to the sum over the whole row, "Paris." would be almost impossible.

# %% [markdown]
# ### Exercise 1: Add up the written tokens' log probabilities · difficulty 2 of 3 · 7 minutes
#
# `numbers` are log probabilities and `tokens` the ids they belong to, both (batch, new). Return each row's sum up to
# **and including** the first token that ends it. `end_ids` is a list. A row without an end counts in full. Note that
# the padding token may itself be an end token, and that its number may be −∞.

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
# - Subtract `is_end` from the running sum, compare with 0, and keep those numbers with `torch.where`.

# %% [markdown]
# `course_utils.scores` follows the same rule; you tell it which tokens end a row:

# %%
from course_utils.scores import transition_scores

print([f"{number:.2f}" for number in transition_scores(output, eos_token_id=stops)[0]])

# %% [markdown]
# ## 5. A text that nobody generated
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
# At index 4 the model has read "The capital of France is" and predicts the token at index 5. So ids and logits are
# paired **shifted by one**: `logits[:, :-1]` predict `ids[:, 1:]`. The last logits predict a token that is not there,
# and the first token has no probability: nothing comes before it.

# %% [markdown]
# ### Exercise 2: Compute the log probability of a text · difficulty 2 of 3 · 6 minutes
#
# Return the log probability of one text: the sum over all its tokens except the first. `ids` is (1, length).

# %% tags=["exercise"]
def text_log_prob(model, ids: torch.Tensor) -> float:
    """Return the log probability that the model gives to all tokens of a text except the first."""
    raise NotImplementedError

# %% tags=["solution"]
def text_log_prob(model, ids: torch.Tensor) -> float:
    """Return the log probability that the model gives to all tokens of a text except the first."""
    with torch.no_grad():
        log_probs = model(ids).logits[:, :-1].log_softmax(-1)
    return log_probs.gather(-1, ids[:, 1:, None]).sum().item()

# %% [markdown] tags=["solution"]
# One pass covers the whole text; generating it token by token would take as many passes as there are tokens. With
# `labels=ids` the model returns the *mean* of these numbers with the opposite sign, as its `loss`.

# %% tags=["check"]
lesson.check_text_log_prob(text_log_prob)

# %% [markdown] tags=["hints"]
# - The logits at index t predict the token at index t + 1. Drop the last logits and the first id.
# - `log_softmax(-1)` first, then `gather(-1, ids[:, 1:, None])`, then the sum.

# %% [markdown]
# We compare three sentences with the same words, using `token_log_probs` of `course_utils.scores`. It returns the log
# probabilities, with 0 for the first token, and a mask of the tokens that have one.

# %%
from course_utils.scores import token_log_probs

sentences = ["The cat chased the mouse.", "The mouse chased the cat.", "The cat the chased mouse."]
for sentence in sentences:
    row = tokenizer(sentence, return_tensors="pt").input_ids
    print(f"{token_log_probs(model, row)[0].sum():7.2f}  {sentence}")

# %% [markdown]
# The broken sentence is by far the least likely. But this model finds a mouse chasing a cat more likely than the
# other way round. A log probability says what *this model* expects in texts. It measures neither sense nor truth.

# %% [markdown]
# Here is another text, token by token. Point at a token to see what the model expected instead. **Surprise** is minus
# the log probability; in bits it is −log₂ of the probability: 1 bit for a coin toss. You can type your own text.

# %%
ScoredText(model, tokenizer, "Paris is the capital of France, and Berlin is the capital of cheese.")

# %% [markdown]
# ## 6. Perplexity
#
# Each additional token lowers the log probability of a text, so the sums of long and short texts are not comparable.
# The **perplexity** of a text is `exp` of minus the mean over its tokens: a perplexity of 10 means that the model
# was, on average, as surprised as by a draw from 10 equally likely tokens. For "The capital of France is Paris":

# %%
log_probs, scored = token_log_probs(model, ids)
print(f"{(-log_probs[scored].mean()).exp():.1f}")

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
# - Shift first, as in section 5: log probabilities of `ids[:, 1:]`, (batch, length − 1).
# - An index counts if there is a token at it *and* one at the index before. Both follow from `mask`.
# - Take the mean over everything that counts in the whole batch at once, then `exp` of minus that mean.

# %% [markdown]
# Here are two sentences, alone and in one padded batch. `perplexity` of `course_utils.scores` handles padding on
# either side:

# %%
from course_utils.scores import perplexity

pair = ["The cat chased the mouse.", "Paris is the capital of France, which lies in the west of Europe."]
for side in ("left", "right"):
    both = tokenizer(pair, return_tensors="pt", padding=True, padding_side=side)
    print(f"{side:5}  {perplexity(model, both.input_ids, both.attention_mask):.1f}")
alone = [perplexity(model, tokenizer(text, return_tensors="pt").input_ids) for text in pair]
print(f"alone  {alone[0]:.0f} and {alone[1]:.0f}, mean {sum(alone) / 2:.0f}")

# %% [markdown]
# Both sides agree, and the mean over rows is a different number. The perplexity of the batch is closer to that of the
# long sentence, which has most of the tokens.

# %% [markdown]
# ## 7. The sequence score of a beam
#
# Beam search ranks whole sequences, and returns the sequence scores that it ranked them by. The search of lesson 06
# kept its own sums; now we have only what `generate()` returns:

# %%
beams = {"num_beams": 4, "num_return_sequences": 4, "do_sample": False, "max_new_tokens": 5}
output = model.generate(**prompt, **beams, **record)
for row, score in zip(output.sequences, output.sequences_scores, strict=True):
    print(f"{score:.2f}  {tokenizer.decode(row)}")

# %% [markdown]
# Where does −1.33 come from? `output.scores` has four rows per step, one for each running beam, and a sequence may
# have been in different rows over time. `beam_indices` says in which:

# %%
print(output.beam_indices)
print(tuple(output.scores[0].shape))  # (batch · beams, vocabulary)

# %% [markdown]
# All four share their first four tokens, so their rows agree: 0, 0, 2, 0, 0. Beam search takes the `log_softmax`
# *before* the processors. There are none here, so `output.scores` already holds log probabilities, not logits as in
# section 2. We gather by row and token, and add up:

# %%
def beam_sums(output):
    """The sum of each sequence's log probabilities: (sequences,)."""
    new = output.sequences[:, -output.beam_indices.shape[1] :]
    total = torch.zeros(len(new), device=new.device)
    for step in range(new.shape[1]):
        row, token = output.beam_indices[:, step], new[:, step]
        total += torch.where(row >= 0, output.scores[step][row, token], 0)  # -1: this sequence had ended
    return total


[f"{number:.2f}" for number in beam_sums(output)]

# %% [markdown]
# We get −6.64, and the library says −1.33. Lesson 06's **length penalty** is missing: the sum is divided by the
# number of new tokens to the power of `length_penalty`, which is 1 by default. −6.64 / 5¹ is −1.33.

# %%
Predict(lesson.predict_penalty)

# %% tags=["answer"]
print("mean length of the four best sequences, a full stop ends one:")
for penalty in (0.0, 2.0):
    best = model.generate(**prompt, **beams | {"max_new_tokens": 8}, length_penalty=penalty, eos_token_id=stops, **record)
    lengths = (best.beam_indices >= 0).sum(1)
    print(f"length_penalty {penalty}: {lengths.double().mean():.2f} tokens")

# %% [markdown]
# The sums are negative. Dividing by a larger number brings them *closer to zero*, so a larger penalty favours longer
# texts. The name says the opposite of what it does.

# %% [markdown]
# Now the proof: a batch of two prompts, and four penalties. With a penalty of 2, every winner runs to the limit, so
# the early ends are in the other three.

# %%
for penalty in (0.0, 0.5, 1.0, 2.0):
    output = model.generate(
        **batch, **beams | {"max_new_tokens": 8}, length_penalty=penalty, eos_token_id=stops, **record
    )
    lengths = (output.beam_indices >= 0).sum(1)
    rebuilt = beam_sums(output) / lengths**penalty
    torch.testing.assert_close(rebuilt, output.sequences_scores, atol=1e-5, rtol=0)
    print(f"penalty {penalty}: {len(rebuilt)} sequences of {lengths.min()} to {lengths.max()} tokens, equal to 1e-5")

# %% [markdown]
# For eight sequences under each of four penalties, all sequence scores equal the library's. We counted the new tokens
# by the columns of `beam_indices`, not by `len(scores)`. The search may continue after the best sequence has ended,
# since it looks for as many finished ones as there are beams:

# %%
france = tokenizer("The capital of France is", return_tensors="pt").to(model.device)
one = beams | {"num_return_sequences": 1, "max_new_tokens": 8}
output = model.generate(**france, **one, length_penalty=0.0, eos_token_id=stops, **record)
print(tokenizer.decode(output.sequences[0]))
print(len(output.scores), "steps,", output.beam_indices.shape[1], "new tokens")

# %% [markdown]
# ## 8. Why the old recipe fails
#
# Many pages print a recipe for this number, from the library's own documentation of 2023. (The
# [appendix](appendix_version_map.ipynb) fixes the whole recipe.) One of its lines asks the model for the penalty:

# %% tags=["raises-exception"]
length_penalty = model.generation_config.length_penalty
beam_sums(output) / output.beam_indices.shape[1] ** length_penalty

# %% [markdown]
# Since version 5 a field that has not been set is `None`, and the default of 1.0 is filled in when `generate()` is
# called. Use the penalty that you passed, or else the model's own if it has one, or else 1.0.

# %% [markdown]
# Another line computes the length: `output_length = input_length + np.sum(transition_scores < 0)`. With a penalty of
# 1, for our five tokens after a prompt of two:

# %%
output = model.generate(**prompt, **beams, **record)
found = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
output_length = prompt.input_ids.shape[1] + (found < 0).sum(1)
ratios = output.sequences_scores / (found.sum(1) / output_length)
print("the library's sequence scores / the recipe's:", [f"{ratio:.2f}" for ratio in ratios])

# %% [markdown]
# The ratio is 7/5: the recipe counts the prompt. The library's beam search did the same up to version 4.35, and the
# recipe was right. Since 4.36 **only the new tokens count**.

# %% [markdown]
# A third mistake raises no error either if, as here, as many sequences are returned as there are beams.
# `beam_indices` is an optional argument of `compute_transition_scores`. Without it:

# %%
forgotten = model.compute_transition_scores(output.sequences, output.scores)
print("with beam_indices:   ", [f"{number:.2f}" for number in found.sum(1)])
print("without beam_indices:", [f"{number:.2f}" for number in forgotten.sum(1)])

# %% [markdown]
# Without it, sequence *i* is read from row *i* at every step, whichever beam was there. The numbers look plausible
# and mean nothing.

# %% [markdown]
# ### Exercise 4: Find why a sequence score does not match · difficulty 2 of 3 · 5 minutes
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
total = beam_sums(claims.output)[0]
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
# - `beam_sums(claims.output)[0]` is the sum. Whose number is exactly that?
# - Divide the library's sequence score by each of the others. A wrong length shows as (wrong / right) ** penalty. The
#   prompt's length is the number of columns that `sequences` has in addition to those of `beam_indices`.
# - The number that no length explains comes from the wrong beams.

# %% [markdown]
# ## Recap
#
# - A token's log probability is gathered from the `log_softmax` of its step; a text's log probability is the sum.
# - `scores` are what the choice was made from, `logits` are the model's output.
# - In a text, the logits at index t predict the token at index t + 1, and nothing predicts the first token.
# - A perplexity averages over tokens, not rows, and leaves out padding and first tokens.
# - A beam's sequence score is the sum of its entries in `scores`, each from its own row, divided by (new tokens) **
#   `length_penalty`.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `compute_transition_scores` in `transformers/generation/utils.py` is short: look for `beam_indices_mask`. The
# penalty is applied in `_update_finished_beams`, same file. None of the numbers in this lesson had a gradient.
# [Lesson 08](08_argmax.ipynb) asks where it went.
