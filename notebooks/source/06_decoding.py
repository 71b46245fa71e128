# %% [markdown]
# # How is the next token chosen?
#
# **By the end, a beam search of about forty lines will return the library's sequences and sequence scores, on
# left-padded batches whose texts end early; and a test will have found which of four samplers are wrong.**
#
# You will be able to
#
# - compute what temperature, top-k, top-p, min-p, typical and the repetition penalty do to a distribution,
# - say where their order matters,
# - judge a sampler by a statistic instead of by eye,
# - forbid a word, allow only certain ones, steer with a second text, and say what a second model changes,
# - write beam search, and say what it does not guarantee.
#
# *85 minutes, and 53 more for the exercises. You need: lesson 05.*

# %% [markdown]
# ## 1. From logits to a choice

# %%
import torch

from course_utils import load, needs_transformers
from course_utils.lessons import lesson06 as lesson
from course_utils.plots import grid, grouped_bars, histogram, lines
from course_utils.widgets import BeamTree, NextToken, Predict, Quiz

needs_transformers("5.24")  # the first release that calls the cache `cache`
model, tokenizer = load()


@torch.no_grad()
def next_logits(text):
    inputs = tokenizer(text, return_tensors="pt").to(model.device)
    return model(**inputs).logits[:, -1].cpu()  # (1, vocab)


bowl = next_logits("I want to eat a big bowl of")
for p, id in zip(*bowl[0].softmax(-1).topk(3)):
    print(f"{tokenizer.decode(id):10} {p:.3f}")

# %% [markdown]
# **Greedy** decoding takes the first. **Temperature** divides the logits before the softmax (lesson 00). ` pizza` and
# ` pasta` are close; what does a low temperature do to that?

# %%
Predict(lesson.predict_cold)

# %% tags=["answer"]
def entropy(scores):
    log_probs = scores.log_softmax(-1)
    return -(log_probs.exp() * log_probs).nansum(-1) / torch.tensor(2.0).log()  # bits


print("temperature, the two probabilities, entropy:")
pizza, pasta = bowl[0].topk(2).indices
for temperature in (100, 10, 1, 0.5, 0.1, 0.01):
    scores = bowl[0] / temperature
    probs = scores.softmax(-1)
    print(f"{temperature:6}   {probs[pizza]:.2f} {probs[pasta]:.2f}   {entropy(scores):5.2f} bits")

# %% [markdown]
# Dividing logits by 0.1 multiplies their difference by 10, so the *ratio* of two probabilities is raised to the power
# of 10. **Entropy** measures how uncertain a distribution is: 3 bits is the uncertainty of eight equally likely
# tokens.

# %% [markdown]
# There are two limits: a high temperature approaches log₂ 49,152 = 15.58 bits, with all tokens equally likely. A low
# one approaches 0 bits, with only the greedy token left. No temperature changes the order. What about 0 itself, and
# equal logits?

# %%
tied = torch.tensor([2.0, 2.0, 1.0])
for temperature in (0.01, 0):
    print(temperature, [f"{p:.2f}" for p in (tied / temperature).softmax(-1)])

# %% [markdown]
# Equal logits share the probability at any temperature; greedy decoding takes one of them. At 0 the result is NaN, so
# `generate()` refuses it (lesson 05). For greedy decoding use `do_sample=False`.

# %% [markdown]
# ## 2. Is this sampler right?
#
# Sampling draws each token with its probability. Here are four attempts. Two add noise to the logits and take the
# largest sum: **Gumbel noise**, −log(−log *u*) with uniform *u*, or uniform noise. Which of the four are right?

# %%
random = torch.Generator().manual_seed(0)


def multinomial(scores, count):
    return torch.multinomial(scores.softmax(-1), count, replacement=True, generator=random)


def largest_with(noise):
    def draw(scores, count):
        chunks = [torch.rand(100, len(scores), generator=random) for _ in range(count // 100)]
        return torch.cat([(scores + noise(chunk)).argmax(-1) for chunk in chunks])

    return draw


samplers = {
    "multinomial": multinomial,
    "the same at temperature 0.8": lambda scores, count: multinomial(scores / 0.8, count),
    "Gumbel noise, then argmax": largest_with(lambda u: -(-u.log()).log()),
    "uniform noise, then argmax": largest_with(lambda u: 8 * u),
}

# %% [markdown]
# A few draws from any of them look plausible. So we count. Here are two of the four, 1,000 draws each, beside the counts
# that the probabilities let us expect. Is one of them wrong, or both?

# %%
likely = bowl[0].topk(4).indices
expected = 1000 * bowl[0].softmax(-1)
counts = {name: sampler(bowl[0], 1000).bincount(minlength=len(expected)) for name, sampler in list(samplers.items())[::3]}
bars = {tokenizer.decode(id): {"expected": round(expected[id].item()), **{name: count[id].item() for name, count in counts.items()}} for id in likely}
grouped_bars(bars, "1,000 draws", "draws")

# %% [markdown]
# Chance moves every count a little: an expected count of 75 is off by about √75 = 9. **Chi-square** makes one number of all: the
# sum of (counted − expected)² / expected, over the 30 likeliest tokens and all others together. For a right sampler each of
# the 31 terms is a little less than 1: their sum is 30 on average (not 31, as the counts have to add up to 1,000), with
# a standard deviation of √60. We count in these standard deviations, and call a sampler wrong from 6 on, which a right
# one practically never reaches. This is what 100 tests of a right sampler give:

# %%
def off_by(draws, scores, bins=30):
    probs, ids = scores.softmax(-1).double().topk(bins)
    expected = torch.cat([probs, 1 - probs.sum()[None]]) * len(draws)
    counts = (draws[:, None] == ids).sum(0)  # (bins,)
    counts = torch.cat([counts, len(draws) - counts.sum()[None]])
    return (((counts - expected) ** 2 / expected).sum() - bins) / (2 * bins) ** 0.5


tests = [off_by(multinomial(bowl[0], 1000), bowl[0]).item() for _ in range(100)]
assert max(tests) < 6
histogram(tests, "A right sampler, tested 100 times", "standard deviations off", bins=20, marks={"wrong from here on": 6.0})

# %%
for name, sampler in samplers.items():
    off = off_by(sampler(bowl[0], 1000), bowl[0])
    print(f"{name:28} {off:5.1f}  {'cannot be told from a right one' if off < 6 else 'WRONG'}")
    assert (off < 6) == (name in ("multinomial", "Gumbel noise, then argmax"))

# %% [markdown]
# The test can show that a sampler is wrong. It cannot show that one is right: a small error needs more draws to be
# seen.

# %% tags=["nbval-ignore-output"]
for draws in (1000, 100_000):
    off = off_by(multinomial(bowl[0] / 0.95, draws), bowl[0])
    verdict = "cannot be told from a right one" if off < 6 else "WRONG"
    print(f"temperature 0.95, {draws:7,} draws: {off:5.1f}  {verdict}")
    assert (off < 6) == (draws == 1000)

# %% [markdown]
# To know that Gumbel noise is right at any number of draws, one needs a proof. It takes three lines. −log *u* is exponential noise
# *e*, so the noise is −log *e*, and the largest log pᵢ − log eᵢ is the *smallest* eᵢ / pᵢ, or the largest pᵢ / eᵢ. Two
# known facts do the rest: such a quotient eᵢ / pᵢ is a waiting time with rate pᵢ, and of several waiting times, the first
# to end is *i* with a chance in proportion to its rate, here with probability pᵢ. That race is how `torch.multinomial` itself draws one token:

# %%
probs = bowl[0].softmax(-1)
for seed in range(100):
    torch.manual_seed(seed)
    drawn = torch.multinomial(probs, 1).item()
    torch.manual_seed(seed)
    assert (probs / torch.empty_like(probs).exponential_()).argmax().item() == drawn  # the largest p / e
print("the same token for 100 seeds")

# %% [markdown]
# Does `generate()` draw from the model's distribution? To find out we need many draws, so we take a tiny model with
# random weights. `num_return_sequences` repeats the prompt; here we see that it does nothing else:

# %%
small, gpt2 = load("tiny-gpt2")
short = gpt2("My dog is", return_tensors="pt").to(small.device)
settings = {"do_sample": True, "temperature": 0.3, "max_new_tokens": 1, "pad_token_id": gpt2.eos_token_id}
torch.manual_seed(0)
several = small.generate(**short, **settings, num_return_sequences=3)
torch.manual_seed(0)
repeated = {name: tensor.repeat(3, 1) for name, tensor in short.items()}
assert torch.equal(several, small.generate(**repeated, **settings))

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    scores = small(**short).logits[0, -1] / 0.3
for extra in ({}, {"top_k": 0}):
    draws = small.generate(**short, **settings, **extra, num_return_sequences=200)[:, -1]
    off = off_by(draws, scores)
    print(f"{extra!s:12} {off:5.1f}, follows the model's distribution: {bool(off < 6)}")
    assert (off < 6) == bool(extra)

# %% [markdown]
# The test finds what you could not see in a text: lesson 05's silent `top_k=50`. In a call `top_k=0` switches it off,
# as `None` did there.

# %% [markdown]
# ## 3. Filters
#
# Most of the 49,152 tokens make no sense here, and each has a tiny probability. Together:

# %%
likeliest_first = bowl[0].softmax(-1).sort(descending=True).values
print(f"beyond the likeliest 1,000: {likeliest_first[1000:].sum():.2f}")

# %% [markdown]
# So about one draw in twenty comes from this tail, and is read back as context. A filter sets the processed scores of
# some tokens to −∞. Here are four rules for what stays:
#
# - **top-k**: the *k* likeliest,
# - **top-p**: the smallest number of likeliest tokens whose probabilities sum to at least *p*,
# - **min-p**: those with at least *m* times the largest probability,
# - **typical**: those whose **surprise**, −log₂ *p* bits, is nearest to the entropy, until their probabilities reach a given
#   sum.

# %%
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper


def count(scores):
    return scores.isfinite().sum().item()


ties = torch.tensor([[3.0, 1, 2, 2, 0]])
halves = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
print("top-k 2 keeps", count(TopKLogitsWarper(2)(None, ties)))
print("top-p keeps", {p: count(TopPLogitsWarper(p)(None, halves)) for p in (0, 0.4, 0.6, 0.8, 1)})

# %% [markdown]
# Top-k also keeps what ties with the *k*-th. Top-p keeps the token that brings the sum *to* p, and always keeps at
# least one. If the first probability equals p exactly, one token is enough on paper. In floating point it can be a
# last digit short of p, and a second token stays:

# %%
rows = [[one / 100, (80 - one) / 100, 0.2] for one in range(41, 60)]
kept = [count(TopPLogitsWarper(row[0])(None, torch.tensor([row]).log())) for row in rows]
print("p is the largest probability. So many tokens are kept in 19 rows:", {n: kept.count(n) for n in set(kept)})

# %% [markdown]
# A filter finds its tokens in *sorted* order, and has to mark them where their ids are. `scatter` does that: it writes each
# value at the index that stands at the same place: the value at place i goes to index `order[i]`.

# %%
order = torch.tensor([2, 0, 1])  # id 2 comes first
torch.zeros(3, dtype=torch.bool).scatter(0, order, torch.tensor([False, True, True]))  # the second and third are marked

# %% [markdown]
# ### Exercise 1: Write top-p · difficulty 2 of 3 · 10 minutes
#
# Write top-p. Some of `scores` may already be −∞. Do not change the tensor that you are given, and keep the values of
# the tokens that stay.

# %% tags=["exercise"]
def top_p_filter(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Return `scores` (batch, vocab) with −∞ for the tokens that top-p removes from each row."""
    raise NotImplementedError

# %% tags=["solution"]
def top_p_filter(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Return `scores` (batch, vocab) with −∞ for the tokens that top-p removes from each row."""
    probs, order = scores.softmax(-1).sort(descending=True)
    before = probs.cumsum(-1) - probs  # the sum over all likelier tokens
    removed = before >= p
    removed[:, 0] = False
    return scores.masked_fill(removed.scatter(-1, order, removed), float("-inf"))

# %% [markdown] tags=["solution"]
# A token stays as long as those *before* it have not reached p, so the one that crosses the line is included.
# `scatter` moves the flags back to the ids. The library sorts in ascending order and removes tokens while the sum
# from below is at most 1 − p: the same on paper.

# %% tags=["check"]
lesson.check_top_p(top_p_filter)

# %% [markdown] tags=["hints"]
# - Sort the probabilities in descending order, and take the running sum: `cumsum(-1)`.
# - A token stays if the sum *before* it is below p. That is the running sum minus the token's own probability.
# - The flags are in sorted order. `removed.scatter(-1, order, removed)` puts each at the index of its id.

# %% [markdown]
# Min-p and typical by hand, compared with the library's:

# %%
def min_p_filter(scores, m):
    probs = scores.softmax(-1)
    return scores.masked_fill(probs < m * probs.amax(-1, keepdim=True), float("-inf"))


def typical_filter(scores, mass):
    log_probs = scores.log_softmax(-1)
    mean = -(log_probs.exp() * log_probs).nansum(-1, keepdim=True)  # the entropy is the mean surprise
    order = (-log_probs - mean).abs().argsort(-1)
    probs = log_probs.exp().gather(-1, order)
    removed = probs.cumsum(-1) - probs >= mass
    return scores.masked_fill(torch.zeros_like(removed).scatter(-1, order, removed), float("-inf"))

# %%
prompts = ("I want to eat a big bowl of", "The capital of France is", "My dog is")
for prompt in prompts:
    scores = next_logits(prompt)
    for share in (0.05, 0.2, 0.5, 0.9):
        assert torch.equal(min_p_filter(scores, share), MinPLogitsWarper(share)(None, scores))
        assert torch.equal(typical_filter(scores, share), TypicalLogitsWarper(share)(None, scores))
print("equal for 3 prompts, 4 settings and both filters")

# %%
Predict(lesson.predict_typical)

# %% tags=["answer"]
print("                              entropy  top-k 20  top-p 0.8  min-p 0.1  typical 0.5, likeliest kept")
filters = (TopKLogitsWarper(20), TopPLogitsWarper(0.8), MinPLogitsWarper(0.1), TypicalLogitsWarper(0.5))
for prompt in prompts:
    scores = next_logits(prompt)
    left = [filter(None, scores) for filter in filters]
    kept = "  ".join(f"{count(one):8}" for one in left)
    print(f"{prompt:28} {entropy(scores)[0]:8.1f} {kept}  {bool(left[-1][0, scores.argmax()].isfinite())}")

# %% [markdown]
# Which tokens are those? The twelve likeliest after "a big bowl of", and what each filter leaves of them:

# %%
order = bowl[0].argsort(descending=True)[:12]
kinds = ("kept", "removed")
names = ("top-k 8", "top-p 0.3", "min-p 0.3", "typical 0.5")
small_filters = (TopKLogitsWarper(8), TopPLogitsWarper(0.3), MinPLogitsWarper(0.3), TypicalLogitsWarper(0.5))
cells = []
for filter in small_filters:
    stays = filter(None, bowl)[0, order].isfinite()
    cells.append([(f"{100 * probs[id]:.1f}", kinds[not stay]) for id, stay in zip(order, stays)])
grid(cells, "Probabilities in %, and what is kept", kinds, rows=list(names), columns=[tokenizer.decode(id).strip()[:7] for id in order])

# %% [markdown]
# Top-k ignores how certain the model is. Top-p and min-p adapt to it: after "The capital of France is", where one token
# has most of the probability, they keep few. And **typical** may drop the likeliest token of
# all: ` pizza` is far less surprising than the average token, so it is not typical.

# %% [markdown]
# The classes refuse settings that make no sense. (One message is wrong: top-p takes 0 and 1 as well, as you have seen.)
# In a call of `generate()` each setting has a value that removes
# nothing; for top-k and typical the class itself would refuse that value.

# %%
from transformers import TemperatureLogitsWarper

wrong = {TemperatureLogitsWarper: -1.0, TopKLogitsWarper: 0, TopPLogitsWarper: 1.5, MinPLogitsWarper: -0.1, TypicalLogitsWarper: 0}
for make, value in wrong.items():
    try:
        make(value)
    except ValueError as error:
        print(f"{make.__name__}: {str(error).split(', oth')[0]}")

record = {"return_dict_in_generate": True, "output_scores": True}
off = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}
inputs = tokenizer("My dog is", return_tensors="pt").to(model.device)
assert model.generate(**inputs, **off, do_sample=True, max_new_tokens=1, **record).scores[0].isfinite().all()

# %% [markdown]
# None of these filters can remove everything: each keeps at least one of the tokens it is given. A rule of your own
# can remove all of them (section 7).

# %% [markdown]
# ## 4. All at once
#
# The widget shows the whole distribution under all settings, applied in the library's order. Find the value of
# typical at which ` pizza` drops out. Draw 1,000 times, then again with another seed.

# %%
NextToken(model, tokenizer, "I want to eat a big bowl of", controls="all", temperature=0.8, top_p=0.9)

# %% [markdown]
# ### Exercise 2: Meet a target · difficulty 2 of 3 · 8 minutes
#
# Find settings for this prompt, by moving the controls or by computing. **A**: exactly five tokens are kept, with an
# entropy above 2.2 bits. **B**: at least twenty are kept, with an entropy below 1 bit. **C**: at most 60 are kept,
# and the likeliest token is not among them. The settings are those of the widget; one that you leave out removes nothing.

# %% tags=["exercise"]
targets = ...  # {"A": {"temperature": 1.0, "top_k": 7}, "B": {…}, "C": {…}}

# %% tags=["solution"]
targets = {
    "A": {"temperature": 3.0, "top_k": 5},
    "B": {"temperature": 0.1, "top_k": 20},
    "C": {"typical_p": 0.2},
}

# %% [markdown] tags=["solution"]
# Five tokens have at most log₂ 5 = 2.32 bits, and a high temperature brings them close to that. In B one of the
# twenty has nearly all the probability. C needs typical: every other filter keeps the likeliest token.

# %% tags=["check"]
lesson.check_targets(targets)

# %% [markdown] tags=["hints"]
# - Top-k sets the number of tokens. The temperature then sets how equal their probabilities are.
# - At a low temperature twenty tokens may stay while one has nearly all the probability.
# - Which of the filters does not start from the likeliest token?

# %% [markdown]
# ## 5. Repetition penalty
#
# The logits of tokens that are already in the text are divided by the penalty. Negative logits are multiplied
# instead, since dividing would raise them:

# %%
from transformers import RepetitionPenaltyLogitsProcessor


def penalised(input_ids, scores, penalty):
    seen = scores.gather(-1, input_ids)
    return scores.scatter(-1, input_ids, torch.where(seen < 0, seen * penalty, seen / penalty))


again = "Pizza, pizza, pizza, pizza, pizza,"
ids, scores = tokenizer(again, return_tensors="pt").input_ids, next_logits(again)
assert torch.equal(penalised(ids, scores, 1.3), RepetitionPenaltyLogitsProcessor(1.3)(ids, scores))

# %% [markdown]
# So the penalty depends on where 0 is. Softmax does not: add a number to all logits, and the distribution stays the
# same.

# %%
print("added to all logits: probability of ' pizza', and with a penalty of 1.1")
for added in (0, 20, -40):
    moved = scores + added
    both = [one.softmax(-1)[0, pizza].item() for one in (moved, penalised(ids, moved, 1.1))]
    print(f"{added:4}: {both[0]:.2f} {both[1]:.2f}")

# %% [markdown]
# The same penalty means different things for models whose logits have different offsets. It also applies to the
# tokens of the prompt, such as all of these commas. In the processor that `generate()` builds, with left padding and a
# mask, padding tokens are not penalised. The class, called by hand on padded ids, knows no mask, and so penalises the
# padding token as well, which for this model is the end of text:

# %%
tokenizer.padding_side = "left"
batch = tokenizer([again, "I like"], padding=True, return_tensors="pt").to(model.device)
alone = tokenizer("I like", return_tensors="pt").to(model.device)
ask = {"max_new_tokens": 1, "repetition_penalty": 1.3, **record}
padded, single = (model.generate(**inputs, **ask).scores[0].cpu() for inputs in (batch, alone))
assert torch.allclose(padded[1], single[0], atol=1e-3)
by_class = RepetitionPenaltyLogitsProcessor(1.3)(batch.input_ids.cpu(), next_logits("I like").repeat(2, 1))
print("the class by hand on the padded ids gives the same:", torch.allclose(by_class[1], single[0], atol=1e-3))

# %% [markdown]
# A token is penalised once, however often it stands there. Other libraries have two more: a **presence penalty** subtracts a
# number once, a **frequency penalty** for each time. Both are a processor of a few lines. `scatter_add_` counts:

# %%
def presence_frequency(presence, frequency):
    def processor(input_ids, scores):
        times = torch.zeros_like(scores).scatter_add_(-1, input_ids, torch.ones_like(input_ids, dtype=scores.dtype))
        return scores - presence * (times > 0) - frequency * times

    return processor


processor = presence_frequency(0.5, 0.4)
comma = tokenizer.encode(",")[0]
print("the logit of the comma moves by", f"{(processor(ids, scores) - scores)[0, comma]:.1f}", "for", (ids == comma).sum().item(), "commas")

# %% [markdown]
# ## 6. The order
#
# Whatever the order in the call, `generate()` uses its own. We look at the list, as in lesson 05:

# %%
def handed_over(model, input_ids, logits_processor, **rest):
    return logits_processor


every = {"typical_p": 0.9, "min_p": 0.1, "top_p": 0.9, "top_k": 20, "temperature": 2.0, "repetition_penalty": 1.1}
made = model.generate(**batch, **every, do_sample=True, max_new_tokens=1, custom_generate=handed_over)
print(*(type(processor).__name__ for processor in made), sep="\n")

# %%
Predict(lesson.predict_order)

# %% tags=["answer"]
from itertools import combinations

print("tokens left for 'a big bowl of', in the library's order and in the other:")
steps = {
    "temperature 2": TemperatureLogitsWarper(2.0),
    "top-k 20": TopKLogitsWarper(20),
    "top-p 0.3": TopPLogitsWarper(0.3),
    "min-p 0.2": MinPLogitsWarper(0.2),
}
for (one, first), (other, second) in combinations(steps.items(), 2):
    forth, back = second(None, first(None, bowl)), first(None, second(None, bowl))
    print(f"{one:13} and {other:9}: {count(forth):5} {count(back):5}")

# %% [markdown]
# A temperature keeps the order of the tokens, and top-k looks at nothing else. Top-p and min-p look at probabilities,
# which the temperature changes: 328 tokens or 10. And top-p after top-k uses probabilities among *what top-k kept*. Min-p
# and top-k commute: min-p compares with the largest probability, which top-k always keeps, and ratios stay.

# %% [markdown]
# ## 7. Forbid and allow
#
# `bad_words_ids` bans sequences of ids. We ban ` pizza` in four obvious spellings:

# %%
forms = [tokenizer.encode(form) for form in ("pizza", " pizza", "Pizza", " Pizza")]
print(forms)
inputs = tokenizer(again, return_tensors="pt").to(model.device)
length = inputs.input_ids.shape[1]
banned = model.generate(**inputs, bad_words_ids=forms, max_new_tokens=8)[0, length:]
print(repr(tokenizer.decode(banned)), [tokenizer.decode(id) for id in banned])

# %% [markdown]
# The model writes the word anyway, with other tokens. A list of ids does not forbid a word. You have to look at the
# text.

# %% [markdown]
# ### Exercise 3: Forbid a word · difficulty 3 of 3 · 15 minutes
#
# Forbid every token that would complete the word, also inside a longer word: the word ends inside that token, wherever it
# began. Upper and lower case do not matter. A word that is already in the text does not matter, and all other tokens must stay as they are. Return
# a copy. (Decoding the vocabulary takes a second: do it once, and not in each call.)

# %% tags=["exercise"]
def forbid(tokenizer, word: str):
    """Return a logits processor (input_ids, scores) -> scores; word is in lower-case ASCII letters."""
    raise NotImplementedError

# %% tags=["solution"]
def forbid(tokenizer, word: str):
    """Return a logits processor (input_ids, scores) -> scores; word is in lower-case ASCII letters."""
    texts = tokenizer.batch_decode([[id] for id in range(len(tokenizer))])

    def processor(input_ids, scores):
        scores = scores.clone()
        for row, ids in enumerate(input_ids):
            text = tokenizer.decode(ids)
            tail = text[max(0, len(text) + 1 - len(word)) :]  # too short to contain the word itself
            banned = [id for id, piece in enumerate(texts) if word in (tail + piece).lower()]
            scores[row, banned] = float("-inf")
        return scores

    return processor


free = model.generate(**inputs, logits_processor=[forbid(tokenizer, "pizza")], max_new_tokens=8)[0, length:]
print(repr(tokenizer.decode(free)))

# %% [markdown] tags=["solution"]
# The tail is one letter shorter than the word, so a match must end in the new token, and an earlier `pizza` does not
# match. Every spelling is caught, because only text is compared. `pizzas` is forbidden too: it contains the word.

# %% tags=["check"]
lesson.check_forbid(forbid)

# %% [markdown] tags=["hints"]
# - Decode the vocabulary once, token by token. Decode each row of `input_ids` when the processor is called.
# - Token *t* is forbidden if the word occurs in the row's text plus *t*'s text, but not if it had already occurred
#   there.
# - The last `len(word) - 1` characters are enough, and too few to contain the word. For a word of one letter that is
#   none, but `[-0:]` is the whole text.

# %% [markdown]
# The opposite: `prefix_allowed_tokens_fn` receives the ids so far and returns which ids may come next. For example, a
# menu:

# %%
menu = [tokenizer.encode(dish) for dish in (" chicken soup", " green salad", " pizza", " pizza with tuna")]
questions = tokenizer(["For lunch I had", "The soup of the day is"], padding=True, return_tensors="pt").to(model.device)
start = questions.input_ids.shape[1]


def from_the_menu(batch_id, ids):
    written = ids[start:].tolist()
    follows = [dish[len(written)] for dish in menu if len(dish) > len(written) and dish[: len(written)] == written]
    done = written in menu or not follows
    return follows + [tokenizer.eos_token_id] * done


answers = model.generate(**questions, prefix_allowed_tokens_fn=from_the_menu, max_new_tokens=6)
print(tokenizer.batch_decode(answers[:, start:], skip_special_tokens=True))

# %% [markdown]
# The model chooses among the allowed tokens. An empty list leaves nothing to choose, and is refused:

# %%
try:
    model.generate(**questions, prefix_allowed_tokens_fn=lambda batch_id, ids: [], max_new_tokens=2)
except ValueError as error:
    print(str(error).split(".")[0])

# %% [markdown]
# ## 8. A second opinion
#
# ### Negative prompts
#
# `negative_prompt_ids` is a text whose continuation you do *not* want.

# %%
inputs = tokenizer("I want to eat a big bowl of", return_tensors="pt").to(model.device)
unwanted = tokenizer("I love pizza. I want to eat a big bowl of", return_tensors="pt").to(model.device).input_ids
ask = {"max_new_tokens": 4, **record}
plain = model.generate(**inputs, **ask)
ignored = model.generate(**inputs, **ask, negative_prompt_ids=unwanted)
guided = model.generate(**inputs, **ask, negative_prompt_ids=unwanted, guidance_scale=2.0)
for output in (plain, ignored, guided):
    print(repr(tokenizer.decode(output.sequences[0, -4:])))
assert torch.equal(plain.sequences, ignored.sequences)

# %% [markdown]
# Alone it does **nothing**, and no warning says so. With a `guidance_scale` *g*, both texts are continued with the
# same tokens. *g* times the difference of their log probabilities is added to the log probabilities of the unwanted
# text:

# %%
wanted, other = (text.log_softmax(-1) for text in (bowl, next_logits("I love pizza. I want to eat a big bowl of")))
by_hand = other + 2.0 * (wanted - other)
assert torch.allclose(by_hand, guided.scores[0].cpu(), atol=1e-3)
print("' pizza': wanted, unwanted, guided", [f"{one.softmax(-1)[0, pizza]:.2f}" for one in (wanted, other, by_hand)])

# %% [markdown]
# At *g* = 1 that is the wanted text's own distribution. Above 1, tokens that the unwanted text makes likelier lose
# probability.

# %% [markdown]
# ### An assistant
#
# A small `assistant_model` writes some tokens ahead. The large model checks all of them in **one** pass, and keeps
# those up to the first that it would not have written itself. There it writes its own token, which the same pass has
# told it; so each pass yields at least one. We give the assistant random weights, and count the
# passes:

# %%
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as library_log

library_log.set_verbosity_error()  # generate() warns about how it calls the assistant


def passes(**arguments):
    seen = []
    with model.register_forward_pre_hook(lambda module, args: seen.append(1)):
        ids = model.generate(**laces, **arguments, max_new_tokens=8)
    return ids, len(seen)


laces = tokenizer("To tie a bow: cross the laces, pull the laces tight, make a loop. To tie a bow:", return_tensors="pt")
laces = laces.to(model.device)
torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
config = LlamaConfig(vocab_size=model.config.vocab_size, **sizes, bos_token_id=1, eos_token_id=2)
clueless = LlamaForCausalLM(config).eval().to(model.device)

# %%
print("passes of the large model for 8 tokens, and whether the ids are greedy decoding's:")
alone, needed = passes()
print(f"alone: {needed}")
for label, helper in (("random assistant", {"assistant_model": clueless}), ("copied from the text", {"prompt_lookup_num_tokens": 8})):
    ids, needed = passes(**helper)
    print(f"{label}: {needed}, {torch.equal(ids, alone)}")

# %% [markdown]
# The assistant changes how many passes greedy decoding takes, not what it writes. (Whether that saves time depends on
# what the assistant's own passes cost.) And when sampling? The large model accepts a drawn token *x* with probability
# min(1, p(x) / q(x)), p being its own distribution and q the assistant's. If it refuses, it draws from the tokens that q
# gave too little, in proportion to max(0, p − q). Section 2's test judges that rule, and a tempting simpler one that
# draws from p again:

# %%
p, q = bowl[0].softmax(-1), (bowl[0] / 2).softmax(-1)  # the assistant is less certain


def with_assistant(instead, count=2000):
    drawn = torch.multinomial(q, count, replacement=True, generator=random)
    refused = torch.rand(count, generator=random) >= (p / q)[drawn]
    again = torch.multinomial(instead, count, replacement=True, generator=random)
    return torch.where(refused, again, drawn)


for name, instead in (("from max(0, p − q)", (p - q).clamp(min=0)), ("from p again", p)):
    off = off_by(with_assistant(instead), bowl[0])
    print(f"refused, then {name:19}", "cannot be told from p" if off < 6 else "WRONG")
    assert (off < 6) == (instead is not p)

# %% [markdown]
# The test finds no fault, and the proof is one line: *x* is drawn and accepted with probability
# q · min(1, p / q) = min(p, q), and what is missing to p is max(0, p − q), which the second draw adds. The library's
# own assistant, sampled 300 times, one token at a time:

# %%
import copy

other = copy.deepcopy(small)
other.transformer.h[0].mlp.c_proj.weight.data.neg_()  # an assistant of another opinion
call = {**short, **settings, "top_k": 0, "max_new_tokens": 2, "assistant_model": other}
draws = torch.tensor([small.generate(**call)[0, short.input_ids.shape[1]].item() for _ in range(300)])
with torch.no_grad():
    alone = small(**short).logits[0, -1].cpu() / 0.3
print("assisted sampling is", "right" if off_by(draws, alone) < 6 else "WRONG", "as far as 300 draws can tell")

# %% [markdown]
# `prompt_lookup_num_tokens` needs no second model: it copies what followed the same tokens earlier in the text.

# %% [markdown]
# ## 9. Beam search
#
# Greedy decoding takes the likeliest *token* at each step. Does that give the likeliest text? Here we continue with
# the three best beginnings instead. A text's probability is a product, so log probabilities are added:

# %%
@torch.no_grad()
def after(rows):
    """Log probabilities after the prompt and each row of new ids: (rows, vocab)."""
    ids = torch.tensor([inputs.input_ids[0].tolist() + row for row in rows], device=model.device)
    return model(ids).logits[:, -1].log_softmax(-1).cpu()


totals, ids = after([[]])[0].topk(3)
beams = [[id] for id in ids.tolist()]
print([(tokenizer.decode(beam), f"{total:.2f}") for beam, total in zip(beams, totals)])

# %% [markdown]
# Each step of **beam search** compares all continuations of all beams, and keeps as many as there are beams. It has four
# parts: score, choose, copy, stop. You write the first two, in exercises 4 and 5.

# %% [markdown]
# ### Exercise 4: Score the continuations · difficulty 2 of 3 · 8 minutes
#
# One prompt's beams have the sums `totals` so far. Return the best `count` continuations of all beams together, best
# first: triples of the new sum, the number of the beam, and the token.

# %% tags=["exercise"]
def score_beams(log_probs: torch.Tensor, totals: torch.Tensor, count: int) -> list[tuple[float, int, int]]:
    """Return `count` triples (total, beam, token), best first. log_probs: (beams, vocab); totals: (beams,)"""
    raise NotImplementedError

# %% tags=["solution"]
def score_beams(log_probs: torch.Tensor, totals: torch.Tensor, count: int) -> list[tuple[float, int, int]]:
    """Return `count` triples (total, beam, token), best first. log_probs: (beams, vocab); totals: (beams,)"""
    best = (log_probs + totals[:, None]).flatten().topk(count)
    places = [divmod(place, log_probs.shape[1]) for place in best.indices.tolist()]
    return [(total, beam, token) for total, (beam, token) in zip(best.values.tolist(), places)]

# %% [markdown] tags=["solution"]
# All sums compete in one row of beams × vocabulary numbers. `divmod` by the size of the vocabulary tells the beam and
# the token of each place in it.

# %% tags=["check"]
lesson.check_score_beams(score_beams)

# %% [markdown] tags=["hints"]
# - `totals[:, None]` is added to every token of its beam.
# - `.flatten().topk(count)` finds the best of all beams together.
# - Place number 49,152 of the flattened sums is token 0 of beam 1: `divmod(place, vocab)`.

# %%
score = lesson.usable_score_beams(score_beams)
for total, beam, token in score(after(beams), totals, 3):
    print(f"{total:.2f}  beam {beam}: {tokenizer.decode([*beams[beam], token])!r}")

# %% [markdown]
# The best two tokens spell ` spaghetti`, whose first token was only third; greedy decoding continues from ` pizza`.
# Here is every candidate that the library considered. A full stop ends a text. Three beams find ` spaghetti`; try two.

# %%
stop = tokenizer.encode(".")
BeamTree(model, tokenizer, "I want to eat a big bowl of", num_beams=3, max_new_tokens=3, eos_token_id=stop)

# %% [markdown]
# Texts that end make the search complicated. The library's rules:
#
# - An ended text is a result. Its **sequence score** is the sum of its log probabilities, divided by its length to
#   the power of `length_penalty` (lesson 07).
# - With *e* end tokens, the best (1 + *e*) · beams candidates are considered, and at least 2 · beams, so that enough
#   can continue.
# - An ended candidate becomes a result only if it is one of the best `num_beams` of its step.

# %% [markdown]
# ### Exercise 5: Sort out the candidates · difficulty 2 of 3 · 12 minutes
#
# You are given one prompt's candidates at one step, best first. Return those that continue, at most `num_beams` of
# them, and those that have ended and count as results. In the last step every candidate ends. The rest of the search
# is given below.

# %% tags=["exercise"]
def sort_out(candidates: list[tuple], num_beams: int, end_ids: list[int], last: bool) -> tuple[list, list]:
    """Return (running, ended), two lists of candidates in their original order.

    A candidate is (total, beam, token): the sum of its log probabilities, the beam it continues, its new token.
    """
    raise NotImplementedError

# %% tags=["solution"]
def sort_out(candidates: list[tuple], num_beams: int, end_ids: list[int], last: bool) -> tuple[list, list]:
    """Return (running, ended), two lists of candidates in their original order.

    A candidate is (total, beam, token): the sum of its log probabilities, the beam it continues, its new token.
    """
    running, ended = [], []
    for rank, candidate in enumerate(candidates):
        if last or candidate[2] in end_ids:
            if rank < num_beams:
                ended.append(candidate)
        elif len(running) < num_beams:
            running.append(candidate)
    return running, ended

# %% [markdown] tags=["solution"]
# An ended candidate ranked after the first `num_beams` is dropped: it neither continues nor counts. The candidates
# ranked after the first `num_beams` are there to fill the gaps that ended ones leave.

# %% tags=["check"]
lesson.check_sort_out(sort_out)

# %% [markdown] tags=["hints"]
# - Go through the candidates in order, with `enumerate`: the rank decides whether an ended one counts.
# - A candidate ends if its token is one of `end_ids`, or if this is the last step.
# - Candidates that have not ended continue, until there are `num_beams` of them, whatever their rank.

# %% [markdown]
# Third part, **copy**. All beams of all prompts are rows of one batch. If one beam is continued twice and another not at
# all, rows are copied, along with their keys and values:

# %%
from transformers import DynamicCache

from course_utils.masks import position_ids

sort = lesson.usable_sort_out(sort_out)


def copied(ids, cache, continued):  # continued: for each new beam the row that it continues, and its token
    rows, tokens = torch.tensor(continued, device=ids.device).T  # each (prompts * beams,)
    cache.reorder_cache(rows)
    return torch.cat([ids[rows], tokens[:, None]], dim=1)


cache, three = DynamicCache(config=model.config), torch.tensor(beams, device=model.device)  # (3, 1)
with torch.no_grad():
    model(three, cache=cache)
print(copied(three, cache, [(0, 5), (0, 6), (2, 7)]).tolist(), "keys equal:", torch.equal(*cache.layers[0].keys[:2]))

# %% [markdown]
# Fourth, **stop**. A prompt is done when it has `num_beams` results and its best beam cannot beat them any more. That is a guess,
# since the beam may still grow: by default its sequence score is taken at the length it has *now*. `early_stopping=True`
# does not ask and stops at `num_beams` results; `"never"` takes the most hopeful length.

# %%
def goes_on(results, best_total, length, num_beams, penalty):
    full = len(results) == num_beams
    return not full or best_total / length**penalty > results[-1][0]


done = [(-1.0, [4]), (-1.2, [5])]  # two results, the worse one at −1.2
print([goes_on(done, total, 3, 2, 1.0) for total in (-3.3, -3.9)])

# %% [markdown]
# And the four together:

# %%
@torch.no_grad()
def beam_search(model, batch, num_beams, new_tokens, end_ids, penalty=1.0):
    """For each prompt its `num_beams` best results: a list of (sequence score, new ids), best first."""
    prompts, length = batch["input_ids"].shape
    ids, mask = (batch[name].repeat_interleave(num_beams, dim=0) for name in ("input_ids", "attention_mask"))
    given, positions, cache = ids, position_ids(mask), DynamicCache(config=model.config)
    totals = torch.full((prompts, num_beams), -1e9, device=ids.device)
    totals[:, 0] = 0  # all beams still equal the prompt: only the first counts
    results, searching = [[] for _ in range(prompts)], [True] * prompts
    for step in range(1, new_tokens + 1):
        logits = model(given, attention_mask=mask, position_ids=positions, cache=cache).logits[:, -1]
        log_probs = logits.float().log_softmax(-1).unflatten(0, (prompts, num_beams))  # (prompts, beams, vocab)
        continued = []
        for prompt, row in enumerate(range(0, prompts * num_beams, num_beams)):  # row: the first of this prompt
            candidates = score(log_probs[prompt], totals[prompt], max(2, 1 + len(end_ids)) * num_beams)
            running, ended = sort(candidates, num_beams, end_ids, step == new_tokens)
            if searching[prompt]:
                new = [(total / step**penalty, ids[row + beam, length:].tolist() + [token]) for total, beam, token in ended]
                results[prompt] = sorted(results[prompt] + new, reverse=True)[:num_beams]
            if running:
                searching[prompt] &= goes_on(results[prompt], running[0][0], step, num_beams, penalty)
                totals[prompt] = torch.tensor([total for total, _, _ in running])
                continued += [(row + beam, token) for _, beam, token in running]
        if not continued or not any(searching):
            break
        ids = copied(ids, cache, continued)
        given, mask = ids[:, -1:], torch.nn.functional.pad(mask, (0, 1), value=1)
        positions = positions[:, -1:] + 1
    return results

# %% [markdown]
# **The result of this lesson.** Three models, a left-padded batch and four beams, with three length penalties for the
# small models. As ends we take tokens that the beams are likely to write:

# %%
sentences = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]


def compare(net, words, penalty, new_tokens, ends):
    words.pad_token, words.padding_side = words.eos_token, "left"
    rows = words(sentences, padding=True, return_tensors="pt").to(net.device)
    settings = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": new_tokens, "length_penalty": penalty}
    settings |= {"eos_token_id": ends, "pad_token_id": words.pad_token_id, "return_dict_in_generate": True}
    theirs = net.generate(**rows, **settings, output_scores=True)
    ours = sum(beam_search(net, rows, 4, new_tokens, ends, penalty), [])  # one list for all prompts
    scores = torch.tensor([score for score, _ in ours])
    torch.testing.assert_close(scores, theirs.sequences_scores.cpu(), atol=1e-5, rtol=0)
    for (_, new), row in zip(ours, theirs.sequences[:, rows.input_ids.shape[1] :].tolist(), strict=True):
        assert row == new + [words.pad_token_id] * (len(row) - len(new))
    return [len(new) for _, new in ours]

# %%
runs = [("trained", model, tokenizer, 1.0, 5, [tokenizer.eos_token_id, *stop])]
for name, net, words in (("GPT-2", small, gpt2), ("Llama", *load("tiny-llama"))):
    free = beam_search(net, words("My dog is", return_tensors="pt").to(net.device), 4, 3, [])
    ends = sorted({new[2] for _, new in free[0]})
    runs += [(name, net, words, penalty, 8, ends) for penalty in (0.0, 1.0, 2.0)]
for name, net, words, penalty, *rest in runs:
    lengths = compare(net, words, penalty, *rest)
    print(f"{name:8} penalty {penalty}: {len(lengths)} results of {min(lengths)} to {max(lengths)} tokens: equal, sequence scores to 1e-5")

# %% [markdown]
# ### Does it find better texts?
#
# Does beam search find more probable texts than greedy decoding? We sum the log probabilities of eight tokens.

# %%
Predict(lesson.predict_beams)

# %% tags=["answer"]
print("after 'The cat sat on the':")
cat = tokenizer("The cat sat on the", return_tensors="pt").to(model.device)
for width in (1, 2, 3):
    found = model.generate(**cat, num_beams=width, max_new_tokens=8, length_penalty=0.0, eos_token_id=None)
    with torch.no_grad():
        log_probs = model(found).logits[:, :-1].log_softmax(-1).gather(-1, found[:, 1:, None])
    print(f"{width} beams: {log_probs[0, -8:].sum():6.2f}  {tokenizer.decode(found[0, -8:])!r}")

# %% [markdown]
# And with more beams? Here is the sum that each width finds:

# %%
found = {}
for width in (1, 2, 3, 4, 5, 8, 16):
    ids = model.generate(**cat, num_beams=width, max_new_tokens=8, length_penalty=0.0, eos_token_id=None)
    with torch.no_grad():
        found[width] = model(ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[0, -8:].sum().item()
lines(list(found), {"log probability": list(found.values())}, "A wider search may be worse", "beams", "sum of eight log probabilities")

# %% [markdown]
# Two beams beat greedy decoding, but three are **worse** than one: the beginnings of both better texts dropped out of
# the three best before their good continuations came. A wider search may be better, but there is no guarantee. Only a search that never
# drops a text that could still win is sure to find the most probable one, and whether that is the best text is
# another question.

# %% [markdown]
# ## Recap
#
# - **The distribution:** temperature raises ratios to a power, top-p and min-p adapt to the model's certainty,
#   typical may drop the likeliest token. The repetition penalty depends on where the logits' 0 is.
# - **The order:** penalty, temperature, top-k, top-p, min-p, typical. Most of the pairs that we tried do not
#   commute.
# - **A sampler** is judged by comparing counts with expectations. A test can find faults; it cannot prove that there
#   are none.
# - **Forbid and steer:** a word is text, not ids. Negative prompts need a guidance scale. An assistant changes only
#   the speed of greedy decoding.
# - **Beam search** keeps the best sums, and can still lose to greedy decoding.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# In `transformers/generation/utils.py`: `_beam_search`, with `_check_early_stop_heuristic` for where it stops, and
# `_assisted_decoding`. Two strategies of older articles have left the library: group beam search and contrastive search
# now load code from the Hub, and ask for `trust_remote_code=True`. Which of the old loops are still there?

# %%
from transformers import GenerationMixin

print({name: hasattr(GenerationMixin, name) for name in ("_greedy_search", "_sample", "_beam_search", "_assisted_decoding")})
for asked in ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}, {"penalty_alpha": 0.6, "top_k": 4}):
    try:
        model.generate(**inputs, **asked, max_new_tokens=2)
    except ValueError as error:
        print(str(error).split(" in your")[0])

# %% [markdown]
# Next, [lesson 07](07_scores.ipynb): how likely the chosen tokens were, and what the length penalty does to their
# sum.
