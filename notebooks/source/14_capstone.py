# %% [markdown]
# # Can you build a decoder of your own?
#
# **By the end at least one decoder of yours will have passed checks that try inputs you have not seen, and the three
# that others built stand beside it.**
#
# You will be able to
#
# - turn a wish for a text into a rule for each step,
# - put your rule into `generate()`, or write the loop yourself,
# - test a decoder on more than the example that it was written for,
# - say what a rule costs the text.
#
# *15 minutes, and another 90 for the exercises; one brief is enough. You need: lessons 05 to 07; for brief 4 also 09
# and 10.*

# %% [markdown]
# ## How it works
#
# Four briefs, one chapter each. Take the one that you like; the others can wait. Each has a rubric, so that you can
# judge yourself, hints that unfold, an acceptance check that tries hidden inputs, and a solution, which is one of many.
#
# | you have | when |
# | --- | --- |
# | passed | the check accepts it |
# | done well | no line could be left out, and another prompt of yours works as well |
# | mastered | you can say what your rule costs, in log probability, and show it |

# %%
import json
import math

import torch

from course_utils import load, needs_transformers
from course_utils.lessons import lesson14 as lesson
from course_utils.plots import grouped_bars, histogram, lines
from course_utils.widgets import Predict, Quiz, Stepper

needs_transformers("5.24")
page = lesson.warnings_on_the_page()
model, tokenizer = load(device="cpu")
prompt = tokenizer("The old house", return_tensors="pt")
for n in (8, 12, 16):
    out = model.generate(**prompt, max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0)
    print(n, repr(tokenizer.decode(out[0, 3:])))

# %% [markdown]
# This is what the library's own arguments give: the right length, and a text that stops in the middle. The first brief
# wants better. Look at where a sentence could have ended:

# %%
texts = lesson.pieces(tokenizer)  # the text of each id
stops = lesson.closing(tokenizer)  # the ids of ".", "!" and "?"
ids, chances = prompt.input_ids, []
with torch.no_grad():
    for _ in range(24):
        probs = model(ids).logits[0, -1].softmax(-1)
        chances.append(probs[stops].sum().item())
        ids = torch.cat([ids, probs.argmax()[None, None]], dim=1)
lines(range(1, 25), {"P(. ! ?)": chances}, "Where a greedy text could end its sentence", "new token", "probability")

# %% [markdown]
# ## Brief 1. Exactly n tokens
#
# *Wanted:* a text of exactly n new tokens. The last is the end, id 2; the one before closes a sentence (`.`, `!` or
# `?`); no end stands earlier; the rest is what the model likes best. n is at least 3.
#
# ### Exercise 1: End in exactly n tokens · difficulty 3 of 3 · 20 minutes

# %% tags=["exercise"]
def exactly(model, tokenizer, prompt: str, n: int) -> list[int]:
    """Return the n new ids."""
    raise NotImplementedError

# %% tags=["solution"]
def exactly(model, tokenizer, prompt: str, n: int) -> list[int]:
    """Return the n new ids."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    start, stops = ids.shape[1], lesson.closing(tokenizer)
    for place in range(n):
        with torch.no_grad():
            scores = model(ids).logits[0, -1]
        if place < n - 2:
            scores[[0, 1, 2]] = -math.inf
            chosen = scores.argmax()
        else:
            chosen = torch.tensor(stops)[scores[stops].argmax()] if place == n - 2 else torch.tensor(2)
        ids = torch.cat([ids, chosen[None, None]], dim=1)
    return ids[0, start:].tolist()

# %% [markdown] tags=["solution"]
# A rule for each place: anything but the ends, then a stop, then the end. It is short-sighted: at the last free place
# the model does not know that its sentence must be over. Better is to look ahead, and to raise the stops' scores as the
# end comes near. (`prefix_allowed_tokens_fn` of `generate()` takes the same rule as a function of the ids so far.)

# %% tags=["check"]
lesson.check_exactly(exactly)

# %% [markdown] tags=["hints"]
# - Which ids are allowed at place k? There are three cases.
# - `lesson.closing(tokenizer)` lists the stops; the ends to forbid are 0, 1 and 2.
# - Write lesson 05's loop, or give `generate()` a `prefix_allowed_tokens_fn`.

# %% [markdown]
# ## Brief 2. Only valid JSON
#
# *Wanted:* an object with a name, an age and one to three likes, and nothing else, whatever the prompt. Valid every
# time, and the model's own choice wherever there is one. (A model of 135 million weights may choose another name than
# Anna.)
#
# What does the model write by itself?

# %%
wish = "Anna is 9 years old and likes cats and tea. As JSON: "
inputs = tokenizer(wish, return_tensors="pt")
out = model.generate(**inputs, max_new_tokens=30, do_sample=False, pad_token_id=0)
print(repr(tokenizer.decode(out[0, inputs.input_ids.shape[1] :])))
print(json.dumps(lesson.SCHEMA["properties"], indent=1)[:330])

# %% [markdown]
# The trick of all constrained decoding: a text is allowed if it can still *become* a valid one. `lesson.begins(text)`
# says so, from a pattern that stands for the schema; `lesson.is_whole(text)` says whether it is one.

# %%
print(lesson.PATTERN)
for text in ('{"na', '{"name": "anna', '{"name": "Anna", "age": 9, "likes": ["tea"'):
    print(f"{text:45} {lesson.begins(text)}")

# %% [markdown]
# ### Exercise 2: Write only valid JSON · difficulty 3 of 3 · 25 minutes

# %% tags=["exercise"]
def write_json(model, tokenizer, prompt: str) -> str:
    """Return a text for which lesson.is_whole() is True; at each step the likeliest token that is allowed."""
    raise NotImplementedError

# %% tags=["solution"]
def write_json(model, tokenizer, prompt: str) -> str:
    """Return a text for which lesson.is_whole() is True; at each step the likeliest token that is allowed."""
    ids, text, texts = tokenizer(prompt).input_ids, "", lesson.pieces(tokenizer)
    while not lesson.is_whole(text):
        with torch.no_grad():
            order = model(torch.tensor([ids])).logits[0, -1].argsort(descending=True)
        chosen = next(id for id in order.tolist() if texts[id] and lesson.begins(text + texts[id]))
        ids, text = [*ids, chosen], text + texts[chosen]
    return text

# %% [markdown] tags=["solution"]
# The first allowed token in the order of the logits: mostly the first or second of 49,152. Libraries for constrained
# decoding do this with a table made in advance, from each state of the pattern to the allowed tokens, so that a step
# costs nothing; the idea is the same. Empty texts are left out, or the loop would not get on.

# %% tags=["check"]
lesson.check_json(write_json)

# %% [markdown] tags=["hints"]
# - Keep two things: the ids, for the model, and the text so far, for the pattern.
# - Try tokens from the likeliest on: `logits.argsort(descending=True)`, and take the first that is allowed.
# - `lesson.pieces(tokenizer)[id]` is a token's text. Skip the empty ones.

# %% [markdown]
# ## Brief 3. A watermark
#
# *Wanted:* texts that look like any other, and that you, who know a secret number, can recognise. The rule: the token
# before chooses, with the key, one half of the vocabulary. Call it green. Writing, you favour green tokens a little.
# Reading, you count them.

# %%
half = lesson.green(previous=338, key=7, size=49_152)  # bool, (49152,)
print(half[:8].tolist(), f"{half.float().mean():.3f} of all")

# %% [markdown]
# ### Exercise 3: Detect a watermark · difficulty 2 of 3 · 10 minutes
#
# Of T tested tokens (all but the first), T / 2 are green by chance, with a variance of T / 4. Return how many standard
# deviations more there are.

# %% tags=["exercise"]
def z_score(ids: list[int], key: int) -> float:
    """Return (green tokens - expected) / standard deviation; lesson.green(previous, key, 49_152) is the half."""
    raise NotImplementedError

# %% tags=["solution"]
def z_score(ids: list[int], key: int) -> float:
    """Return (green tokens - expected) / standard deviation; lesson.green(previous, key, 49_152) is the half."""
    hits = sum(lesson.green(one, key, 49_152)[other].item() for one, other in zip(ids, ids[1:]))
    count = len(ids) - 1
    return (hits - count / 2) / (count / 4) ** 0.5

# %% [markdown] tags=["solution"]
# Nothing of the model is needed to detect it. That is the point: whoever has the key can read the mark.

# %% tags=["check"]
lesson.check_z_score(z_score)

# %% [markdown] tags=["hints"]
# - `zip(ids, ids[1:])` gives each token with the one before.
# - A coin that is thrown T times: mean T / 2, variance T / 4.

# %% [markdown]
# ### Exercise 4: Write with a watermark · difficulty 3 of 3 · 15 minutes
#
# Sample n new tokens, and add a constant to the logits of the green half at each step. How large? As small as it can be
# and still be seen in 40 tokens.

# %% tags=["exercise"]
def write_marked(model, tokenizer, prompt: str, key: int, n: int) -> list[int]:
    """Return the prompt's ids and n sampled ones."""
    raise NotImplementedError

# %% tags=["solution"]
def write_marked(model, tokenizer, prompt: str, key: int, n: int) -> list[int]:
    """Return the prompt's ids and n sampled ones."""
    ids = tokenizer(prompt).input_ids
    for _ in range(n):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        logits = logits + 3 * lesson.green(ids[-1], key, len(logits))
        ids = [*ids, torch.multinomial(logits.softmax(-1), 1).item()]
    return ids

# %% [markdown] tags=["solution"]
# 3 is much: a green token becomes 20 times as likely beside the others. With 1 the mark needs some 200 tokens.

# %% tags=["check"]
lesson.check_watermark(write_marked)

# %% [markdown] tags=["hints"]
# - It is a loop of sampling; only the logits change.
# - `lesson.green(ids[-1], key, len(logits))` is True where to add.
# - If z is too small, add more; if the text is noise, less.

# %% [markdown]
# How often does the detector cry wolf? First your estimate, then the measurement: one human text, 2,000 keys.

# %%
Predict(lesson.predict_false_alarm)

# %% tags=["answer"]
print("z of an unmarked text, 2,000 keys:")
story = tokenizer(lesson.STORY).input_ids[:60]
zs = [lesson.z_score(story, key) for key in range(2000)]
print(f"mean {sum(zs) / 2000:.1f}, above 2: {sum(z > 2 for z in zs) / 2000:.1%}, above 4: {sum(z > 4 for z in zs)}")
torch.manual_seed(0)
marked = lesson.write_marked(model, tokenizer, "The old house", 7, 60)
histogram(zs, "z of one unmarked text under 2,000 keys", "z", marks={"a marked text, its own key": lesson.z_score(marked, 7)})

# %%
assert abs(sum(zs) / 2000) < 0.2 and lesson.z_score(marked, 7) > 4

# %% [markdown]
# The keys draw the bell curve that the formula promises, and the marked text stands far outside. What does the mark
# give, and what does it cost? z and the surprise of 40 tokens, by how much is added:

# %% tags=["nbval-ignore-output"]
costs = {}
for added in (0, 1, 3, 6):
    torch.manual_seed(1)
    ids = tokenizer("The old house").input_ids
    start = len(ids)
    with torch.no_grad():
        for _ in range(40):
            logits = model(torch.tensor([ids])).logits[0, -1]
            logits = logits + added * lesson.green(ids[-1], 7, len(logits))
            ids = [*ids, torch.multinomial(logits.softmax(-1), 1).item()]
        picked = model(torch.tensor([ids])).logits[0, start - 1 : -1].log_softmax(-1)
    nats = -picked.gather(-1, torch.tensor(ids[start:])[:, None]).mean().item()
    costs[f"{added} added"] = {"nats a token": round(nats, 1), "z": round(lesson.z_score(ids[start - 1 :], 7), 1)}
grouped_bars(costs, "What a watermark gives, and what it costs", "nats a token, z")

# %% [markdown]
# z grows at once. The price is smaller than the noise of a single text of 40 tokens: to see it, average many texts, or
# compare the two distributions at each step.

# %% [markdown]
# ## Brief 4. One GRPO step
#
# *Wanted:* a step of training on two prompts at once, from draw to weights, after which the better texts of *each*
# prompt are more likely. The reward is a function of the new ids; prompts are ids of one length.
#
# ### Exercise 5: Take one GRPO step · difficulty 3 of 3 · 20 minutes

# %% tags=["exercise"]
def grpo_step(model, optimizer, prompts, reward, samples: int, new_tokens: int) -> tuple:
    """Return all ids (prompt, sample, length) and the rewards (prompt, sample), after one step."""
    raise NotImplementedError

# %% tags=["solution"]
def grpo_step(model, optimizer, prompts, reward, samples: int, new_tokens: int) -> tuple:
    """Return all ids (prompt, sample, length) and the rewards (prompt, sample), after one step."""
    from course_utils.advantages import leave_one_out

    count, length = prompts.shape
    repeated = prompts.repeat_interleave(samples, 0)
    settings = {"do_sample": True, "top_k": 0, "max_new_tokens": new_tokens, "eos_token_id": None, "pad_token_id": 0}
    ids = model.generate(repeated, attention_mask=torch.ones_like(repeated), **settings)
    rewards = torch.tensor([float(reward(row.tolist())) for row in ids[:, length:]]).view(count, samples)
    weight = leave_one_out(rewards).flatten()[:, None]  # compared within each prompt
    log_probs = model(ids[:, :-1]).logits[:, length - 1 :].log_softmax(-1)
    picked = log_probs.gather(-1, ids[:, length:, None]).squeeze(-1)  # (text, token)
    optimizer.zero_grad()
    (-(weight * picked).mean()).backward()
    optimizer.step()
    return ids.view(count, samples, -1), rewards

# %% [markdown] tags=["solution"]
# `generate()` runs without gradients; the second pass has them (lesson 08). On a fresh draw the ratio is 1, so there is
# nothing to clip (lesson 10). The advantages are made before the groups are flattened.

# %% tags=["check"]
lesson.check_grpo_step(grpo_step)

# %% [markdown] tags=["hints"]
# - Draw with `generate()`: each prompt `samples` times, `do_sample=True`, `top_k=0`.
# - Rewards as (prompt, sample); a reward counts against the others of the same prompt.
# - A second pass gives the log probabilities of the new tokens; the loss is minus advantage times log probability.

# %% [markdown]
# ## And then?
#
# A decoder is a rule for one step. You can watch any of them: `Stepper` takes a loop of your own (lesson 05). Here is a
# loop that knows brief 1's rule, beside `generate()`:

# %%
def stops_at_eight(model, input_ids, logits_processor=None, stopping_criteria=None, generation_config=None, **inputs):
    start = input_ids.shape[1]
    while input_ids.shape[1] < start + 8:
        with torch.no_grad():
            scores = model(input_ids).logits[:, -1]
        if input_ids.shape[1] == start + 6:
            others = torch.ones(scores.shape[1], dtype=torch.bool)
            others[stops] = False
            scores = scores.masked_fill(others, -math.inf)
        input_ids = torch.cat([input_ids, scores.argmax(-1, keepdim=True)], dim=1)
    return input_ids


Stepper(model, tokenizer, "The old house", loop=stops_at_eight, max_new_tokens=8)

# %% [markdown]
# ## Recap
#
# - A wish for a text becomes **a rule for each step**: which tokens are allowed, or whose logits move.
# - A text is allowed if it **can still become** a valid one.
# - **Test** what you have not seen: other prompts, other lengths, another key.
# - **Every rule has a price**, and the log probability says how much.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `PrefixConstrainedLogitsProcessor` and `WatermarkLogitsProcessor` in `transformers/generation/logits_process.py` are
# the library's own briefs 2 and 3. `generate(watermarking_config=...)` switches the second on:

# %%
from transformers import WatermarkingConfig

print(WatermarkingConfig().to_dict())

# %% [markdown]
# Names from older articles are explained in [appendix A](appendix_version_map.ipynb), messages in
# [appendix B](appendix_messages.ipynb).
