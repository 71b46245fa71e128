# %% [markdown]
# # How is the next token chosen?
#
# **By the end a beam search of about forty lines will give the library's sequences and scores, on left-padded
# batches whose texts end early; and a test will have found the wrong ones among four samplers.**
#
# You will be able to
#
# - compute what temperature, top-k, top-p, min-p, typical and the repetition penalty make of a distribution,
# - say where their order matters,
# - judge a sampler by a statistic instead of by eye,
# - forbid a word, allow only some, steer by a second text, and say what a second model changes,
# - write beam search, and say what it does not promise.
#
# *60 minutes, and 45 more for the exercises. You need: lesson 05.*

# %% [markdown]
# ## 1. From logits to a choice

# %%
import torch

from course_utils import load, needs_transformers
from course_utils.lessons import lesson06 as lesson
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
# ` pasta` are close; what does a low temperature make of that?

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
# Dividing logits by 0.1 multiplies their distance by 10, so the *ratio* of two probabilities is taken to the power
# of 10. **Entropy** says how unsure a distribution is: one of 3 bits, as unsure as eight equally likely tokens.

# %% [markdown]
# The two limits: a high temperature comes near log₂ 49,152 = 15.58 bits, all tokens alike. A low one comes near 0
# bits, the greedy token alone. No temperature changes the order. What about 0 itself, and equal logits?

# %%
tied = torch.tensor([2.0, 2.0, 1.0])
for temperature in (0.01, 0):
    print(temperature, [f"{p:.2f}" for p in (tied / temperature).softmax(-1)])

# %% [markdown]
# Equal logits share to the end; greedy takes one of them. At 0 no number is left, so `generate()` refuses it (lesson
# 05). Greedy decoding is `do_sample=False`.

# %% [markdown]
# ## 2. Is this sampler right?
#
# Sampling draws each token with its probability. Here are four ways. Two add noise to the logits and take the largest
# sum: **Gumbel noise**, −log(−log *u*) with uniform *u*, or uniform noise. Which of the four are right?

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
# A few draws look plausible from each. So we count, for each of the 30 likeliest tokens and all others together, and
# **chi-square** sums (counted − expected)² / expected. For a right sampler that is about 30, with a standard deviation
# of √60. We measure how many such deviations a sampler is off, and call it wrong from six on.

# %%
def off_by(draws, scores, bins=30):
    probs, ids = scores.softmax(-1).double().topk(bins)
    expected = torch.cat([probs, 1 - probs.sum()[None]]) * len(draws)
    counts = (draws[:, None] == ids).sum(0)  # (bins,)
    counts = torch.cat([counts, len(draws) - counts.sum()[None]])
    return (((counts - expected) ** 2 / expected).sum() - bins) / (2 * bins) ** 0.5


farthest = max(off_by(multinomial(bowl[0], 1000), bowl[0]) for _ in range(100))
print("multinomial, tested 100 times, is never off by more than 6:", bool(farthest < 6))

# %%
for name, sampler in samplers.items():
    off = off_by(sampler(bowl[0], 1000), bowl[0])
    print(f"{name:28} {'cannot be told from a right one' if off < 6 else 'WRONG'}")
    assert (off < 6) == (name in ("multinomial", "Gumbel noise, then argmax"))

# %% [markdown]
# The test can show that a sampler is wrong. It cannot show that one is right: a small fault takes more draws.

# %%
for draws in (1000, 100_000):
    off = off_by(multinomial(bowl[0] / 0.95, draws), bowl[0])
    print(f"temperature 0.95, {draws:7,} draws: {'cannot be told from a right one' if off < 6 else 'WRONG'}")

# %% [markdown]
# That Gumbel noise is right at any number of draws takes a proof; lesson 09 uses it.
#
# Now `generate()` itself, on a tiny model with random weights. `num_return_sequences=3` is the prompt three times:

# %%
small, gpt2 = load("tiny-gpt2")
short = gpt2("My dog is", return_tensors="pt").to(small.device)
settings = {"do_sample": True, "temperature": 0.3, "max_new_tokens": 1, "pad_token_id": gpt2.eos_token_id}
torch.manual_seed(0)
several = small.generate(**short, **settings, num_return_sequences=3)
torch.manual_seed(0)
repeated = {name: tensor.repeat(3, 1) for name, tensor in short.items()}
assert torch.equal(several, small.generate(**repeated, **settings))

# %%
with torch.no_grad():
    scores = small(**short).logits[0, -1] / 0.3
for extra in ({}, {"top_k": 0}):
    draws = small.generate(**short, **settings, **extra, num_return_sequences=200)[:, -1]
    off = off_by(draws, scores)
    print(f"{extra!s:12} follows the model's distribution: {bool(off < 6)}")
    assert (off < 6) == bool(extra)

# %% [markdown]
# The test finds what no look at a text would: lesson 05's silent `top_k=50`. In a call
# `top_k=0` switches it off, as `None` did there.

# %% [markdown]
# ## 3. Filters
#
# Most of the 49,152 tokens are nonsense here, each with a tiny probability. Together:

# %%
likeliest_first = bowl[0].softmax(-1).sort(descending=True).values
print(f"beyond the likeliest 1,000: {likeliest_first[1000:].sum():.2f}")

# %% [markdown]
# So one draw of twenty slips into the tail, and is read back as context. A filter sets scores to −∞. Four rules for what
# stays:
#
# - **top-k**: the *k* likeliest,
# - **top-p**: the fewest likeliest whose probabilities reach *p* together,
# - **min-p**: those with at least the share *m* of the largest probability,
# - **typical**: those whose surprise, −log *p*, is nearest to the entropy, until they reach a mass.

# %%
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper


def count(scores):
    return scores.isfinite().sum().item()


ties = torch.tensor([[3.0, 1, 2, 2, 0]])
halves = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
print("top-k 2 keeps", count(TopKLogitsWarper(2)(None, ties)))
print("top-p keeps", {p: count(TopPLogitsWarper(p)(None, halves)) for p in (0, 0.4, 0.6, 0.8, 1)})

# %% [markdown]
# Top-k keeps what ties with the *k*-th. Top-p keeps the token that takes the sum *to* p, and always one. Where the sum
# meets p exactly, one is enough on paper. In floats it may lie a last digit short of p, and a second stays:

# %%
rows = [[one / 100, (80 - one) / 100, 0.2] for one in range(41, 60)]
kept = {count(TopPLogitsWarper(row[0])(None, torch.tensor([row]).log())) for row in rows}
print("p is the largest probability; kept:", kept)

# %% [markdown]
# ### Exercise 1: top-p · difficulty 2 of 3 · 10 minutes
#
# Write it. Some scores may be −∞ already. Leave what you are given unchanged, and every score that stays as it is.

# %% tags=["exercise"]
def top_p_filter(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Return the scores (batch, vocab) with −∞ for what top-p removes from each row."""
    raise NotImplementedError

# %% tags=["solution"]
def top_p_filter(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Return the scores (batch, vocab) with −∞ for what top-p removes from each row."""
    probs, order = scores.softmax(-1).sort(descending=True)
    before = probs.cumsum(-1) - probs  # what the likelier ones hold together
    removed = before >= p
    removed[:, 0] = False
    return scores.masked_fill(removed.scatter(-1, order, removed), float("-inf"))

# %% [markdown] tags=["solution"]
# A token stays while those *before* it have not reached p, so the one that crosses the line is in. `scatter` carries
# the flags back to the ids. The library sorts upwards and removes while the sum from below is at most 1 − p: the same
# on paper.

# %% tags=["check"]
lesson.check_top_p(top_p_filter)

# %% [markdown] tags=["hints"]
# - Sort the probabilities downwards, and take the running sum: `cumsum(-1)`.
# - A token stays if the sum *before* it is below p. That is the running sum less the token's own probability.
# - The flags are in sorted order. `removed.scatter(-1, order, removed)` puts each at its id.

# %% [markdown]
# Min-p and typical by hand, against the library's:

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
# Top-k knows nothing of how sure the model is; top-p and min-p follow it. And **typical** may drop the likeliest token of
# all: ` pizza` is far less surprising than the average token, so it is not typical.

# %% [markdown]
# The classes refuse settings that make no sense. In a call of `generate()` each setting has a value that removes
# nothing; for top-k and typical it is one that the class would refuse.

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
# No filter leaves nothing: each keeps at least one token of what it is given. A rule of your own may (section 7).

# %% [markdown]
# ## 4. All at once
#
# The whole distribution under every setting, in the library's order. Find the typical mass at which ` pizza` drops out.
# Draw 1,000 times, then with another seed.

# %%
NextToken(model, tokenizer, "I want to eat a big bowl of", controls="all", temperature=0.8, top_p=0.9)

# %% [markdown]
# ### Exercise 2: meet a target · difficulty 2 of 3 · 8 minutes
#
# Find settings for this prompt, by moving the controls or by computing: **A** five tokens kept, and an entropy above
# 2.2 bits. **B** at least twenty kept, below 1 bit. **C** at most 60 kept, and the likeliest token is not among them.

# %% tags=["exercise"]
targets = ...  # {"A": {"temperature": 1.0, "top_k": 7}, "B": {…}, "C": {…}}

# %% tags=["solution"]
targets = {
    "A": {"temperature": 3.0, "top_k": 5},
    "B": {"temperature": 0.1, "top_k": 20},
    "C": {"typical_p": 0.2},
}

# %% [markdown] tags=["solution"]
# Five tokens have at most log₂ 5 = 2.32 bits, and a high temperature brings them near. In B one of the twenty has nearly
# everything. C is typical's alone: every other filter keeps the likeliest.

# %% tags=["check"]
lesson.check_targets(targets)

# %% [markdown] tags=["hints"]
# - Top-k sets the number of tokens. The temperature then sets how equal they are.
# - At a low temperature twenty tokens may stay, and one takes nearly all.
# - Which of the filters does not start from the likeliest token?

# %% [markdown]
# ## 5. Repetition penalty
#
# The scores of tokens that stand in the text already are divided by the penalty. Unless they are negative, where
# that would raise them; then they are multiplied:

# %%
from transformers import RepetitionPenaltyLogitsProcessor


def penalised(input_ids, scores, penalty):
    seen = scores.gather(-1, input_ids)
    return scores.scatter(-1, input_ids, torch.where(seen < 0, seen * penalty, seen / penalty))


again = "Pizza, pizza, pizza, pizza, pizza,"
ids, scores = tokenizer(again, return_tensors="pt").input_ids, next_logits(again)
assert torch.equal(penalised(ids, scores, 1.3), RepetitionPenaltyLogitsProcessor(1.3)(ids, scores))

# %% [markdown]
# So the penalty asks where 0 is. Softmax does not: add a number to all logits, and the distribution is the same.

# %%
print("added to all logits: probability of ' pizza', and with a penalty of 1.1")
for added in (0, 20, -40):
    moved = scores + added
    both = [one.softmax(-1)[0, pizza].item() for one in (moved, penalised(ids, moved, 1.1))]
    print(f"{added:4}: {both[0]:.2f} {both[1]:.2f}")

# %% [markdown]
# The same penalty means different things for models whose logits lie differently. It also counts the prompt, where all
# of these commas stand. Padding does not count:

# %%
tokenizer.padding_side = "left"
batch = tokenizer([again, "I like"], padding=True, return_tensors="pt").to(model.device)
alone = tokenizer("I like", return_tensors="pt").to(model.device)
ask = {"max_new_tokens": 1, "repetition_penalty": 1.3, **record}
padded, single = (model.generate(**inputs, **ask).scores[0].cpu() for inputs in (batch, alone))
assert torch.allclose(padded[1], single[0], atol=1e-3)

# %% [markdown]
# ## 6. The order
#
# Whatever order the call has, `generate()` has one of its own. We look at the list, as in lesson 05:

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
# A temperature keeps the order of tokens, and top-k looks at nothing else. Top-p and min-p look at probabilities, which
# the temperature changes: 328 tokens or 10. And top-p after top-k counts shares of *what top-k left*.

# %% [markdown]
# ## 7. Forbid and allow
#
# `bad_words_ids` bans sequences of ids. We ban ` pizza`, in the four ways that come to mind:

# %%
forms = [tokenizer.encode(form) for form in ("pizza", " pizza", "Pizza", " Pizza")]
print(forms)
inputs = tokenizer(again, return_tensors="pt").to(model.device)
length = inputs.input_ids.shape[1]
banned = model.generate(**inputs, bad_words_ids=forms, max_new_tokens=8)[0, length:]
print(repr(tokenizer.decode(banned)), [tokenizer.decode(id) for id in banned])

# %% [markdown]
# The model writes it all the same, with other tokens. A list of ids does not forbid a word. One has to look at the text.

# %% [markdown]
# ### Exercise 3: forbid a word · difficulty 3 of 3 · 15 minutes
#
# Forbid every token with which the word would come about: it ends inside that token, wherever it began. Capitals
# do not matter. What stands in the text already stays; and no other token may be touched.

# %% tags=["exercise"]
def forbid(tokenizer, word: str):
    """Return a logits processor (input_ids, scores) -> scores; word is in small ASCII letters."""
    raise NotImplementedError

# %% tags=["solution"]
def forbid(tokenizer, word: str):
    """Return a logits processor (input_ids, scores) -> scores; word is in small ASCII letters."""
    texts = tokenizer.batch_decode([[id] for id in range(len(tokenizer))])

    def processor(input_ids, scores):
        scores = scores.clone()
        for row, ids in enumerate(input_ids):
            text = tokenizer.decode(ids)
            tail = text[max(0, len(text) + 1 - len(word)) :]  # too short to hold the word itself
            banned = [id for id, piece in enumerate(texts) if word in (tail + piece).lower()]
            scores[row, banned] = float("-inf")
        return scores

    return processor


free = model.generate(**inputs, logits_processor=[forbid(tokenizer, "pizza")], max_new_tokens=8)[0, length:]
print(repr(tokenizer.decode(free)))

# %% [markdown] tags=["solution"]
# The tail is one letter shorter than the word, so a hit must end in the new token, and an earlier `pizza` is no hit.
# Every spelling is caught, because only text is compared. `pizzas` is forbidden too: the word comes about on the way.

# %% tags=["check"]
lesson.check_forbid(forbid)

# %% [markdown] tags=["hints"]
# - Decode the vocabulary once, token by token. Decode each row of `input_ids` when the processor is called.
# - Token *t* is forbidden if the word stands in the row's text plus *t*'s text. But not if it stood there before.
# - The last `len(word) - 1` characters are enough, and too few to hold the word. For one letter that is none: `[-0:]` is all.

# %% [markdown]
# The other way round: `prefix_allowed_tokens_fn` says, from the ids so far, which may come next. A menu:

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
# The model chooses among what is allowed. An empty list leaves nothing, and is refused:

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
# Alone it does **nothing**, and no warning says so. With a `guidance_scale` *g*, both texts are continued with the same
# tokens, and *g* times the difference of their log probabilities is added to the unwanted one's:

# %%
wanted, other = (text.log_softmax(-1) for text in (bowl, next_logits("I love pizza. I want to eat a big bowl of")))
by_hand = other + 2.0 * (wanted - other)
assert torch.allclose(by_hand, guided.scores[0].cpu(), atol=1e-3)
print("' pizza': wanted, unwanted, guided", [f"{one.softmax(-1)[0, pizza]:.2f}" for one in (wanted, other, by_hand)])

# %% [markdown]
# At *g* = 1 that is the wanted text's own distribution. Above it, whatever the unwanted text makes likelier loses.

# %% [markdown]
# ### An assistant
#
# A small `assistant_model` writes some tokens ahead. The large one checks them all in **one** pass, and keeps them as
# far as it would have written them itself. Let the assistant's weights be random, and count the passes:

# %%
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as library_log

library_log.set_verbosity_error()  # generate() warns of how it calls the assistant


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
# The assistant decides how *fast* greedy decoding is, not what it writes. `prompt_lookup_num_tokens` needs no second
# model: it copies what followed the same tokens earlier in the text.

# %% [markdown]
# ## 9. Beam search
#
# Greedy decoding takes the likeliest *token* each time. Does that give the likeliest text? We go on with the three best
# beginnings instead. A text's probability is a product, so log probabilities are added:

# %%
@torch.no_grad()
def after(rows):
    """Log probabilities after the prompt and each row of new ids: (rows, vocab)."""
    ids = torch.tensor([inputs.input_ids[0].tolist() + row for row in rows], device=model.device)
    return model(ids).logits[:, -1].log_softmax(-1).cpu()


totals, ids = after([[]])[0].topk(3)
beams = [[id] for id in ids.tolist()]
print([(tokenizer.decode(beam), f"{total:.2f}") for beam, total in zip(beams, totals)])

# %%
sums = after(beams) + totals[:, None]  # (beams, vocab)
best = sums.flatten().topk(3)
for total, place in zip(best.values, best.indices.tolist()):
    beam, token = divmod(place, sums.shape[1])
    print(f"{total:.2f}  beam {beam}: {tokenizer.decode([*beams[beam], token])!r}")

# %% [markdown]
# The best two tokens spell ` spaghetti`, whose first half was only third; greedy decoding goes on from ` pizza`. Each
# step of **beam search** weighs all continuations of all beams, and keeps as many as there are beams.

# %% [markdown]
# Here is every candidate that the library weighed. A full stop ends a text. With how many beams is ` spaghetti` found?

# %%
stop = tokenizer.encode(".")
BeamTree(model, tokenizer, "I want to eat a big bowl of", num_beams=3, max_new_tokens=3, eos_token_id=stop)

# %% [markdown]
# Texts that end make it complicated. The library's rules:
#
# - An ended text is a result. Its **score** is its sum, divided by its length to the power of `length_penalty` (lesson 07).
# - With *e* end tokens, the best (1 + *e*) · beams candidates are weighed, so that enough can go on; at least 2 · beams.
# - Only candidates among the first *beams* become results.

# %% [markdown]
# ### Exercise 4: finish beam search · difficulty 2 of 3 · 12 minutes
#
# From one prompt's candidates of one step, best first, take those that go on, `num_beams` of them, and those that have
# ended and count. In the last step every candidate ends. The rest of the search stands below.

# %% tags=["exercise"]
def sort_out(candidates: list[tuple], num_beams: int, end_ids: list[int], last: bool) -> tuple[list, list]:
    """Return (running, ended), two lists of candidates in their order.

    A candidate is (total, beam, token): the sum of its log probabilities, the beam it continues, its new token.
    """
    raise NotImplementedError

# %% tags=["solution"]
def sort_out(candidates: list[tuple], num_beams: int, end_ids: list[int], last: bool) -> tuple[list, list]:
    """Return (running, ended), two lists of candidates in their order.

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
# An ended candidate beyond the first `num_beams` vanishes: it neither goes on nor counts. The candidates behind the first
# `num_beams` are there to fill the gaps that ended ones leave.

# %% tags=["check"]
lesson.check_sort_out(sort_out)

# %% [markdown] tags=["hints"]
# - Go through the candidates in order, with `enumerate`: the place says whether an ended one counts.
# - A candidate ends if its token is one of `end_ids`, or if this is the last step.
# - What has not ended goes on, until there are `num_beams` of them, from whatever place.

# %% [markdown]
# The rest. All beams of all prompts are rows of one batch. Where a beam is continued twice and another not at all, rows
# are copied, and the cache with them. `sort_out` is the course's own; put yours in its place.

# %%
from transformers import DynamicCache

from course_utils.masks import position_ids


@torch.no_grad()
def beam_search(model, batch, num_beams, new_tokens, end_ids, penalty=1.0, sort_out=lesson.sort_out):
    """For each prompt its `num_beams` best results: a list of (score, new ids), best first."""
    prompts, length = batch["input_ids"].shape
    ids, mask = (batch[name].repeat_interleave(num_beams, dim=0) for name in ("input_ids", "attention_mask"))
    given, positions, cache = ids, position_ids(mask), DynamicCache(config=model.config)
    totals = torch.full((prompts, num_beams), -1e9, device=ids.device)
    totals[:, 0] = 0  # all beams are still the prompt: only the first counts
    results, searching = [[] for _ in range(prompts)], [True] * prompts
    for step in range(1, new_tokens + 1):
        logits = model(given, attention_mask=mask, position_ids=positions, cache=cache).logits[:, -1]
        log_probs = logits.float().log_softmax(-1).unflatten(0, (prompts, num_beams))  # (prompts, beams, vocab)
        sums = (log_probs + totals[..., None]).flatten(1)
        best = sums.topk(max(2, 1 + len(end_ids)) * num_beams)
        go_on = []  # for each beam the row that it continues, and its token
        for prompt in range(prompts):
            places = [divmod(place, log_probs.shape[-1]) for place in best.indices[prompt].tolist()]
            candidates = [(total, *place) for total, place in zip(best.values[prompt].tolist(), places)]
            running, ended = sort_out(candidates, num_beams, end_ids, step == new_tokens)
            row = prompt * num_beams  # the first of this prompt
            if searching[prompt]:
                new = [(total / step**penalty, ids[row + beam, length:].tolist() + [token]) for total, beam, token in ended]
                results[prompt] = sorted(results[prompt] + new, reverse=True)[:num_beams]
            if running:
                full = len(results[prompt]) == num_beams
                searching[prompt] &= not full or running[0][0] / step**penalty > results[prompt][-1][0]
                totals[prompt] = torch.tensor([total for total, _, _ in running])
                go_on += [(row + beam, token) for _, beam, token in running]
        if not go_on or not any(searching):
            break
        rows, tokens = torch.tensor(go_on, device=ids.device).T  # each (prompts * beams,)
        cache.reorder_cache(rows)
        given = tokens[:, None]
        ids, mask = torch.cat([ids[rows], given], dim=1), torch.nn.functional.pad(mask, (0, 1), value=1)
        positions = positions[:, -1:] + 1
    return results

# %% [markdown]
# `searching` is the library's default way to stop: a prompt is done when it has `num_beams` results, and its best beam, at
# the length it has *now*, scores no better than the worst of them.

# %% [markdown]
# **The result of this lesson.** Three models, a left-padded batch, four beams; three length penalties for those that are
# small. Tokens that the beams like end a text:

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
    print(f"{name:8} penalty {penalty}: {len(lengths)} results of {min(lengths)} to {max(lengths)} tokens: equal, scores to 1e-5")

# %% [markdown]
# ### Does it find better texts?
#
# More probable ones than greedy decoding's? We sum the log probabilities of eight tokens.

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
# Two beams beat greedy decoding, three are **worse** than one: the greedy beginning fell out of the three best
# before its good end came. Wider may be better, and is not sure to be. Only a search that drops nothing that may
# still win is sure to find the most probable text, and whether that is the best one is another question.

# %% [markdown]
# ## 10. What is `synced_gpus` for?
#
# Some set-ups (DeepSpeed ZeRO-3, FSDP) keep a *piece* of each weight on every GPU, and a forward pass needs all pieces. So
# a GPU whose texts have ended goes on computing, for the others. When `generate()` decides so, and what it does then:

# %%
import inspect

from transformers import GenerationMixin

for function, words in (("_extract_generation_mode_kwargs", "world_size >"), ("_has_unfinished_sequences", "continue until")):
    source = inspect.getsource(getattr(GenerationMixin, function)).splitlines()
    print(*[line.strip() for line in source if words in line])

# %% [markdown]
# ## Recap
#
# - **The distribution:** temperature raises ratios to a power, top-p and min-p follow the model's certainty, typical may
#   drop the likeliest. The repetition penalty depends on where the logits' 0 is.
# - **The order:** penalty, temperature, top-k, top-p, min-p, typical. Most pairs do not commute.
# - **A sampler** is judged by counts against expectations. A test finds faults; it proves none absent.
# - **Forbid and steer:** a word is text, not ids. Negative prompts need a guidance scale. An assistant changes greedy decoding's speed.
# - **Beam search** keeps the best sums, and may still lose to greedy decoding.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# In `transformers/generation/utils.py`: `_beam_search`, with `_check_early_stop_heuristic` for where it stops, and
# `_assisted_decoding`.
#
# Next, [lesson 07](07_scores.ipynb): how likely the chosen tokens were, and what the length penalty divides.
