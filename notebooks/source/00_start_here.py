# %% [markdown]
# # Does it run?
#
# **In ten minutes this machine runs a real language model, and you will have moved its next-token
# distribution with your own hand.**
#
# You will be able to
#
# - tell whether this machine has what the course needs,
# - load the model that most lessons use,
# - read its whole next-token distribution, and change it,
# - predict, check, take a hint, and start over.
#
# *10 minutes. You need: Python, and a little PyTorch later on.*

# %% [markdown]
# ## 1. The machine
#
# Click into the cell below and press Shift+Enter. It checks what the course needs, and says what to do if
# something is missing.

# %%
from course_utils import check_machine

check_machine()

# %% [markdown]
# ## 2. The model
#
# SmolLM2 is a small language model with real skills, of the architecture called Llama. The first time, this cell
# prepares it: 93 MB to download, which unpack to 0.5 GB. From then on it needs no network.

# %%
from course_utils import load

model, tokenizer = load()
print(f"{type(model).__name__} with {model.num_parameters():,} parameters")

# %% [markdown]
# ## 3. The next token
#
# A language model does one thing: it reads a text, and gives every token of its vocabulary a probability of
# coming next. A token is a word, or a piece of one; a space in it shows as `·`. Here there are 49,152 tokens.

# %%
from course_utils.checks import lesson00 as lesson
from course_utils.widgets import NextToken, Predict, Quiz

NextToken(model, tokenizer, "The capital of France is")

# %% [markdown]
# The bars are computed in this page, from all 49,152 probabilities, while you drag. Try these:
#
# - Click a token. It is appended, and the model reads the longer text.
# - Press *Sample* a few times, step back, and sample again. Type a text of your own.
# - Set top-p to 0.9: only the likeliest tokens stay, as many as it takes to reach 90 %. How many are kept?

# %% [markdown]
# The model gives one number a token, a **logit**, and *softmax* turns the logits into probabilities. The rest
# happens in this page; a later lesson takes every slider apart. In PyTorch it is three lines:

# %%
import torch

inputs = tokenizer("The capital of France is", return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits[0, -1]  # (vocab,): one for each token, after the last word

# %%
for p, id in zip(*logits.softmax(-1).topk(3)):
    print(f"{p:.2f} {tokenizer.decode(id)!r}")

# %% [markdown]
# **Temperature** divides the logits before the softmax. At temperature 1, ` Paris` has 0.77. What is left of
# it at 2? Guess before you touch the slider or run the cell below.

# %%
Predict(lesson.predict_temperature)

# %% tags=["answer"]
paris = tokenizer(" Paris").input_ids[0]
print("temperature, probability of ' Paris':")
for temperature in (1, 2):
    print(temperature, f"{(logits / temperature).softmax(-1)[paris]:.2f}")

# %% [markdown]
# Dividing by 2 takes the square root of every ratio between two probabilities. ` Paris` is still first, but
# 49,151 others have each come closer, and together they are many.

# %% [markdown]
# ## 4. How this course works
#
# **Predict, then run.** You have just done it. A guess that turned out wrong teaches more than a result that
# you nodded at.

# %% [markdown]
# **Exercises check themselves.** Replace the line `raise NotImplementedError` in the next cell, run it, and
# run the check below it. Until then the check says "not yet", so a whole notebook always runs to its end. (That
# also opens the answers to all predictions: better go cell by cell.)

# %% [markdown]
# ### Exercise: the most likely token · difficulty 1 of 3 · 2 minutes
#
# Given a list of tokens and their probabilities, return the token with the highest one.

# %% tags=["exercise"]
def most_likely(tokens: list[str], probabilities: list[float]) -> str:
    """Return the token whose probability is highest."""
    raise NotImplementedError

# %% tags=["solution"]
def most_likely(tokens: list[str], probabilities: list[float]) -> str:
    """Return the token whose probability is highest."""
    best = max(range(len(tokens)), key=lambda i: probabilities[i])
    return tokens[best]

# %% [markdown] tags=["solution"]
# You have written greedy decoding. `max(zip(probabilities, tokens))[1]` works too, until two probabilities
# are equal: then it compares the tokens by their spelling.

# %% tags=["check"]
lesson.check_most_likely(most_likely)

# %% [markdown] tags=["hints"]
# - `max` finds the largest probability. You need to know where it stands.
# - `probabilities.index(max(probabilities))` is that place.

# %% [markdown]
# **Hints** unfold one by one below a check, and the solution after them. **To start over**, choose *Kernel →
# Restart Kernel and Clear Outputs of All Cells*. `git restore notebooks` in a terminal brings back every cell as
# it was.

# %% [markdown]
# **Errors are sentences.** Where the course itself cannot go on, it says what it was given and what to do next.
# Break something once, so that you know it when you see it:

# %% tags=["raises-exception"]
load("./my-model")

# %% [markdown]
# **Progress** stays on this machine, in one file, and nowhere else. This cell shows it; `python -m
# course_utils progress` does the same in a terminal.

# %%
from course_utils.checks.progress import Progress

Progress()

# %% [markdown]
# ## 5. The map
#
# | | Lesson | Minutes |
# | --- | --- | --- |
# | 00 | Does it run? | 10 |
# | 01 | [How does text become integers?](01_text_to_integers.ipynb) | 45, exercises 30 |
# | 02 | [Why pad, and on which side?](02_padding.ipynb) | 45, exercises 25 |
# | 03 | [What does a mask do inside attention?](03_masks.ipynb) | 45, exercises 25 |
# | 04 | [What does one forward pass return?](04_forward_pass.ipynb) | 50, exercises 30 |
# | 05 | [What does generate() do, step by step?](05_generate.ipynb) | 70, exercises 50 |
# | 06 | [How is the next token chosen?](06_decoding.ipynb) | 60, exercises 45 |
# | 07 | [How likely was that?](07_scores.ipynb) | 35, exercises 25 |
# | 08 | [Why does argmax break gradients?](08_argmax.ipynb) | 50, exercises 25 |
# | 09 | [How do you train through generation, then?](09_training.ipynb) | 75, exercises 30 |
# | | [Where did that name go?](appendix_version_map.ipynb) Names of older tutorials, and today's | 15 |
#
# Each lesson asks one question. The last ones ask why no gradient comes back through `generate()`, and what to
# do about it.

# %% [markdown]
# ## Recap
#
# - This machine has what the course needs, and the model runs on it.
# - A model gives each token of its vocabulary a probability of coming next.
# - Temperature, top-k, top-p and min-p change that distribution, not the model.
# - Predict, run, check; hints and solutions are folded below each exercise.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `course_utils/models.py` has `load`, which fetched the model. Then go on to
# [lesson 01](01_text_to_integers.ipynb), which starts before the model: how did the text become integers?
