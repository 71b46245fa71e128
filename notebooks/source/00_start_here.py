# %% [markdown]
# # Does it run?
#
# **In ten minutes this machine will have run a real language model, and you will have changed its next-token
# distribution by hand.**
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
# Click the cell below and press Shift+Enter. It checks that the machine has what the course needs, and says what to
# do if something is missing.

# %%
from course_utils import check_machine

check_machine()

# %% [markdown]
# ## 2. The model
#
# SmolLM2 is a small but capable language model, built like Llama. The first time you run this cell, it
# prepares the model: a download of 93 MB, which unpacks to 0.5 GB. After that it needs no network.
#
# It is the *instruct* version, SmolLM2-135M-Instruct, which was trained further to answer in a chat. Most lessons give
# it bare text, which it continues like any language model.

# %%
from course_utils import load

model, tokenizer = load()
print(f"{type(model).__name__} with {model.num_parameters():,} parameters, end token {tokenizer.eos_token}")

# %% [markdown]
# ## 3. The next token
#
# A language model does one thing: it reads a text and gives every token in its vocabulary a probability of coming
# next. A token is a word or a piece of one; a space in it is shown as `·`. This vocabulary has 49,152 tokens. A few of
# them are no text but signals: the end token that you saw above, `<|im_end|>`, says that a chat turn is over.

# %%
from course_utils.lessons import lesson00 as lesson
from course_utils.widgets import NextToken, Predict, Quiz

NextToken(model, tokenizer, "The capital of France is")

# %% [markdown]
# Run the cell, and sliders appear below the bars. While you drag one, this page recomputes the bars from all 49,152
# probabilities. Try these:
#
# - Click a token. It is appended, and the model reads the longer text.
# - Press *Sample* a few times, step back, and sample again. Type a text of your own.
# - Set top-p to 0.9: only the most likely tokens stay, as many as it takes to reach 90 %. How many are kept?

# %% [markdown]
# The model returns one number for each token, a **logit**, and *softmax* turns the logits into probabilities. The
# page does that and applies the sliders, which lesson 06 takes apart. In PyTorch, the next cell gets the logits, and the
# one after it applies softmax. The model takes several texts at once and returns a row of logits after *each* token:
# `[0, -1]` is the last row of text number 0.

# %%
import torch

inputs = tokenizer("The capital of France is", return_tensors="pt").to(model.device)
with torch.no_grad():
    logits = model(**inputs).logits[0, -1].cpu()  # (vocab,): one for each token that may come next

# %%
from course_utils.plots import grouped_bars

bars = {tokenizer.decode(id): {"p": round(100 * p.item(), 1)} for p, id in zip(*logits.softmax(-1).topk(5))}
grouped_bars(bars, "The five most likely next tokens", "probability in %")

# %% [markdown]
# **Temperature** divides the logits before the softmax. At temperature 1, ` Paris` has a probability of 0.77. What is
# it at temperature 2? Run the next cell and commit your guess before you touch the slider.

# %%
Predict(lesson.predict_temperature)

# %% tags=["answer"]
paris = tokenizer(" Paris").input_ids[0]
the = tokenizer(" the").input_ids[0]
for temperature in (1, 2):
    p = (logits / temperature).softmax(-1)  # (vocab,)
    print(f"temperature {temperature}: ' Paris' has {p[paris]:.2f}, {p[paris] / p[the]:.1f} times as much as ' the'.")
    print(f"  The most likely token is {tokenizer.decode(p.argmax())!r}.")

# %% [markdown]
# The ratio of two probabilities is e to the difference of their logits. Halving the logits halves that difference, and
# so takes the square root of the ratio, as you can check with the two ratios printed above.
# ` Paris` is still first, but each of the 49,151 others has come closer, and together they take most of the
# probability. The picture shows who gains and who loses as the temperature rises:

# %%
from course_utils.plots import lines

steps = [0.25 + 0.05 * n for n in range(56)]
ordered = [(logits / step).softmax(-1).sort(descending=True).values for step in steps]  # each (vocab,)
shares = {"Paris": slice(0, 1), "the next nine": slice(1, 10), "all others": slice(10, None)}
curves = {name: [100 * p[part].sum().item() for p in ordered] for name, part in shares.items()}
lines(steps, curves, "Who gets the probability?", "temperature", "%")

# %% [markdown]
# ## 4. How this course works
#
# **Predict, then run.** You have just done it. A guess that turns out wrong teaches you more than a result you only
# read.

# %% [markdown]
# **Exercises check themselves.** Replace the line `raise NotImplementedError` in the next cell, run it, and run the
# check below it. Until then the check says "not yet", so a whole notebook always runs to the end. (Running it all at
# once also reveals the answers to the predictions, so go cell by cell.)

# %% [markdown]
# ### Exercise: Return the most likely token · difficulty 1 of 3 · 2 minutes
#
# Given a list of tokens and their probabilities, return the token with the highest probability; if several share it,
# the first of them.

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
# Taking the most likely token at every step is called **greedy decoding**. `max(zip(probabilities, tokens))[1]` works too, unless two probabilities are
# equal: then it compares the spelling of the tokens.

# %% tags=["check"]
lesson.check_most_likely(most_likely)

# %% [markdown] tags=["hints"]
# - `max` finds the largest probability. You need its index.
# - `probabilities.index(max(probabilities))` is that index.

# %% [markdown]
# **Hints** unfold one by one below a check, and the solution comes after them. **To start over**, choose *Kernel →
# Restart Kernel and Clear Outputs of All Cells*. `git restore notebooks/00_start_here.ipynb` in a terminal brings this
# lesson back as it was. It deletes the answers that you have written in it; save a copy first.

# %% [markdown]
# **Errors are sentences.** When the course itself cannot continue, it says what it was given and what to do next.
# The next cell fails on purpose, so that you will recognise such an error:

# %% tags=["raises-exception"]
load("./my-model")

# %% [markdown]
# **Progress** is kept in one file on this machine and nowhere else. This cell shows it;
# `python -m course_utils progress` does the same in a terminal.

# %%
from course_utils.checks.progress import Progress

Progress()

# %% [markdown]
# ## 5. The map
#
# | | Lesson | Minutes |
# | --- | --- | --- |
# | 00 | Does it run? | 10 |
# | 01 | [How does text become integers?](01_text_to_integers.ipynb) | 45, exercises 45 |
# | 02 | [Why pad, and on which side?](02_padding.ipynb) | 55, exercises 25 |
# | 03 | [What does a mask do inside attention?](03_masks.ipynb) | 60, exercises 35 |
# | 04 | [What does one forward pass return?](04_forward_pass.ipynb) | 75, exercises 55 |
# | 05 | [What does generate() do, step by step?](05_generate.ipynb) | 85, exercises 50 |
# | 06 | [How is the next token chosen?](06_decoding.ipynb) | 85, exercises 53 |
# | 07 | [How likely was that?](07_scores.ipynb) | 60, exercises 35 |
# | 08 | [Why does argmax break gradients?](08_argmax.ipynb) | 50, exercises 25 |
# | 09 | [How do you train through generation, then?](09_training.ipynb) | 75, exercises 30 |
# | 10 | [What do PPO and GRPO add?](10_ppo_grpo.ipynb) | 80, exercises 35 |
# | 11 | [How does a chat become one text?](11_chat.ipynb) | 65, exercises 28 |
# | 12 | [Is it a bug, or rounding?](12_rounding.ipynb) | 50, exercises 34 |
# | 13 | [What is left when PyTorch is gone?](13_without_pytorch.ipynb) | 50, exercises 34 |
# | 14 | [Can you build a decoder of your own?](14_capstone.ipynb) Four briefs, to choose from | 15, exercises 90 |
# | | [Where did that name go?](appendix_version_map.ipynb) Names from older tutorials, and today's | 20 |
# | | [What does this message mean?](appendix_messages.ipynb) Messages, raised and cured; words; sources | 10 |
#
# Each lesson asks one question. Lessons 08 to 10 ask why no gradient comes back through `generate()`, and what to do
# about it; then comes practice.

# %% [markdown]
# ## Recap
#
# - This machine has what the course needs, and the model runs on it.
# - A model gives each token in its vocabulary a probability of coming next.
# - The sliders change that distribution, not the model. A higher temperature makes it flatter.
# - Predict, run, check; hints and solutions are folded below each exercise.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `course_utils/models/__init__.py` has `load`, which fetched the model. Then go on to [lesson 01](01_text_to_integers.ipynb),
# which starts before the model: how does text become integers?
