# %% [markdown]
# # How do you train through generation, then?
#
# **By the end you will have judged nine ways to a gradient through generation by the exact one, summed over every
# sequence there is. And from nothing but points for its texts, a language model will have learned to avoid a letter.**
#
# You will be able to
#
# - train on given answers in one forward pass, end of text included, and say what that does not train,
# - draw texts without gradient, and score them with one: positions, mask and temperature as in the draw,
# - turn the rewards of drawn texts into a gradient, and lower its noise with a baseline,
# - say which estimators are unbiased, what that was proven by, and what the others were measured at,
# - choose one, and repair a loop that looks right and is not.
#
# *75 minutes, and 30 more for the exercises. You need: lessons 07 and 08, and `torch.optim`.*

# %% [markdown]
# ## 1. When the answer is known
#
# Most training never generates. Somebody has written the answer, and the model is to find it likely. Prompt and
# answer go through **one** forward pass:

# %%
import torch

from course_utils import load
from course_utils.checks import lesson09 as lesson
from course_utils.widgets import EstimatorRace, Predict, Quiz

model, tokenizer = load()
prompt, answer = "The capital of France is", " Paris."
ids = tokenizer(prompt + answer, return_tensors="pt").input_ids.to(model.device)  # (1, length)
start = len(tokenizer(prompt).input_ids)
log_probs = model(ids).logits[:, :-1].log_softmax(-1)  # (1, length - 1, vocab)
scored = log_probs.gather(-1, ids[:, 1:, None]).squeeze(-1)[:, start - 1 :]  # (1, answer)
print([f"{number:.2f}" for number in scored[0].tolist()], "with a gradient:", scored.requires_grad)

# %% [markdown]
# Each token of the answer is scored given the **true** tokens before it, whatever the model would have chosen
# there. That is **teacher forcing**, which lesson 08 did to the model's own text. No token is chosen, so none of lesson
# 08's cuts is on the way.

# %% [markdown]
# The library does the same when it is given `labels`: ids where the loss counts, −100 where it does not. It shifts
# them itself, and returns the mean with its sign turned.

# %%
labels = ids.clone()
labels[:, :start] = -100  # the prompt is not to be learned
loss = model(ids, labels=labels).loss
print(f"{loss.item():.2f} and {-scored.mean().item():.2f}")

# %% [markdown]
# ### The end has to be learned, too
#
# In a batch, answers have different lengths. Here are two with their end of text, padded on the right, and the padding
# is the same token as the end:

# %%
end = tokenizer.eos_token_id
tokenizer.pad_token = tokenizer.eos_token
texts = ["Red or blue? Blue." + tokenizer.eos_token, "Cat or dog? The old grey cat." + tokenizer.eos_token]
batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").to(model.device)
by_id = batch.input_ids.masked_fill(batch.input_ids == tokenizer.pad_token_id, -100)
by_mask = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
print("places that count, by id and by mask:", (by_id != -100).sum().item(), (by_mask != -100).sum().item())

# %% [markdown]
# Lesson 02 met this trap: labels made from the pad *id* lose every end of text. What does the loss make of it, where no
# label names the end? Its gradient at the logits says which of them a step pushes up (negative) or down (positive).

# %%
def push_on_the_end(labels):
    """For each place that is trained: the gradient of the loss at the logit of the end of text."""
    logits = model(**batch).logits[:, :-1].detach().requires_grad_()  # (batch, length - 1, vocab)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum").backward()
    return logits.grad[..., end][labels[:, 1:] != -100]

# %%
Predict(lesson.predict_end)

# %% tags=["answer"]
print("places that push the end's logit up, and places that push it down:")
for name, labels in (("labels by mask", by_mask), ("labels by id", by_id)):
    push = push_on_the_end(labels)
    print(f"{name}: {(push < 0).sum()} and {(push > 0).sum()}")

# %% [markdown]
# Every place that trains another token pushes the end's logit down. (Not always its probability, which depends on all
# logits.) With labels by mask two places push it up; with labels by id **none** does, and nothing teaches the model
# to stop. Make labels from the mask. (Nothing predicts a text's first token: 17 less 2.)

# %% [markdown]
# ### What it does not train
#
# In training the model reads texts that people wrote. When it generates, it reads what *it* wrote, mistakes and all.
# That gap is called **exposure bias**. We write a mistake for it:

# %%
@torch.no_grad()
def chance(text, word):
    ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
    return model(ids).logits[0, -1].softmax(-1)[tokenizer(word).input_ids[0]].item()


for said in ("Paris", "London", "banana"):
    asked = f"The capital of France is {said}. The capital of Italy is"
    print(f"{said:6}  then Rome: {chance(asked, ' Rome'):.0%}")

# %% [markdown]
# On this one prompt a wrong city does no harm, and a strange word does. Teacher forcing never shows a model its own
# mistakes. Most training is teacher forcing all the same: nothing has to be drawn, and each place of each text teaches.

# %% [markdown]
# It has a second limit: someone must know the answer. "A text without the letter *e*", "a program that passes its
# tests": we can *judge* such texts and not write down the one right answer. So the model must write, and learn from
# the judgement.

# %% [markdown]
# ## 2. The gradient that we want
#
# Call the judgement of a text y its **reward** R(y), a number. What we want larger is its mean over the texts that
# the model draws:
#
# J = Σ p(y) R(y), the sum over all texts y.
#
# J is smooth. The choice of *one* text jumps, lesson 08 has shown that. The *probability* of each text moves gently.

# %% [markdown]
# For a language model nobody can take that sum. So we build a case where we can: six tokens, three steps, 216
# sequences. The rewards are drawn from a normal distribution, in a table.

# %%
from course_utils.gradients import random_rewards, toy_model

toy = toy_model()  # GPT-2's architecture, 2 layers, width 16, random weights in float64
weights = list(toy.parameters())
sequences = torch.cartesian_prod(*[torch.arange(6)] * 3)  # (216, 3): all of them
rewards = random_rewards().flatten()  # (216,)
print(f"{sum(weight.numel() for weight in weights):,} weights, rewards from {rewards.min():.1f} to {rewards.max():.1f}")

# %%
def log_prob(sequences, temperature=1.0):
    """log p of each sequence after the start token 0, with gradient: (batch,)."""
    start = torch.zeros_like(sequences[:, :1])
    logits = toy(torch.cat([start, sequences[:, :-1]], dim=1)).logits / temperature  # (batch, 3, 6)
    return logits.log_softmax(-1).gather(-1, sequences[..., None]).squeeze(-1).sum(-1)


probs = log_prob(sequences).exp()  # (216,)
assert abs(probs.sum().item() - 1) < 1e-10
J = (probs * rewards).sum()
print(f"mean reward: {J.item():.2f}")

# %% [markdown]
# The probabilities of all sequences sum to 1. J is a function of the weights that autograd can differentiate. This
# is the **exact gradient**, the judge of everything that follows:

# %%
def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


exact = flat(torch.autograd.grad(J, weights))  # (weights,)
print(tuple(exact.shape), f"length {exact.norm():.2f}")

# %% [markdown]
# Now the step that makes it usable. The derivative of a logarithm is ∇log p = ∇p / p, so ∇p = p ∇log p, and
#
# ∇J = Σ ∇p(y) R(y) = Σ **p(y)** R(y) ∇log p(y).
#
# The right side is a *mean over texts drawn from the model*, of R(y) ∇log p(y). Means can be estimated by drawing.

# %% [markdown]
# ∇log p(y), by the way, is called the **score function**. One backward pass gives it for one sequence. We take all
# 216, and hold both sides against each other:

# %%
one_by_one = log_prob(sequences)
scores = torch.stack([flat(torch.autograd.grad(number, weights, retain_graph=True)) for number in one_by_one])
probs = probs.detach()
assert ((probs * rewards) @ scores - exact).abs().max() < 1e-10
tuple(scores.shape)  # (sequences, weights)

# %% [markdown]
# Equal to ten decimals. Look at what it asks of us: texts, one number for each, and ∇log p. Nothing is
# differentiated through the choice. R may be a count, a test run or a person's opinion.

# %% [markdown]
# ### Without a reward
#
# It is tempting to generate texts and train on them like on any others, by teacher forcing. That is R = 1 for each.

# %%
Predict(lesson.predict_no_reward)

# %% tags=["answer"]
print("the gradient that is expected for R = 1, length below 1e-10:")
print((probs @ scores).norm().item() < 1e-10)

# %% [markdown]
# Zero: Σ p ∇log p = Σ ∇p, and the p sum to 1 whatever the weights are. Draws of finite size do move the
# weights, in random directions:

# %%
torch.manual_seed(0)
drawn = torch.multinomial(probs, 8 * 1000, replacement=True).view(1000, 8)  # 1,000 batches of eight
steps = scores[drawn].mean(1)  # (1000, weights)
print(f"one batch of eight: {steps.norm(dim=1).mean() / exact.norm():.1f} times the exact gradient's length")
print(f"mean of 1,000:      {steps.mean(0).norm() / exact.norm():.1f}")

# %% [markdown]
# Training on one's own samples without a reward is a **random walk**, as long as all count alike and are scored by the
# distribution that they were drawn from. Draw at another temperature than you score, and the draw is a choice:

# %%
sharp = log_prob(sequences, temperature=0.7).exp().detach()  # (216,)
print(f"drawn at 0.7, scored at 1: {(sharp @ scores).norm() / exact.norm():.2f} of the exact gradient's length")

# %% [markdown]
# It pulls the model towards the sharper draw, and knows nothing of our rewards. A direction towards *them* comes from R,
# if only as a choice of which samples to keep.

# %% [markdown]
# ## 3. Draw, then score
#
# With a real model we draw texts with `generate()`, under `no_grad`. Then we need their log probabilities *with* a
# gradient: lesson 08's forward pass over the finished text, from here on the **second pass**. Its numbers must be
# those of the draw, or we train another distribution.

# %%
tokenizer.padding_side = "left"
batch = tokenizer(["My dog is", "I want to eat a big bowl of"], padding=True, return_tensors="pt").to(model.device)
torch.manual_seed(0)
output = model.generate(
    **batch, do_sample=True, temperature=0.7, top_k=0, max_new_tokens=5, eos_token_id=None, pad_token_id=end,
    return_dict_in_generate=True, output_scores=True,
)  # fmt: skip
answers = output.sequences[:, -5:]  # (batch, new)
recorded = torch.stack(output.scores, dim=1).log_softmax(-1).gather(-1, answers[..., None]).squeeze(-1)
print(tuple(recorded.shape), "with a gradient:", recorded.requires_grad)

# %% [markdown]
# `recorded` has the right values (lesson 07) and no gradient. It is what our second pass has to reproduce. (Without an
# end of text all rows are equally long. Where rows may end early, what fills them was not drawn, and its numbers
# must not count: section 8 does that.)

# %% [markdown]
# ### Exercise 1: score what was drawn · difficulty 3 of 3 · 10 minutes
#
# `sequences` is (batch, prompt + new): prompts padded on the left, then what was drawn at `temperature`, no other
# setting on. `prompt_mask` is the mask of the prompts only. Return the log probability of each new token *under the
# distribution that it was drawn from*, with a gradient.

# %% tags=["exercise"]
def log_probs_of(model, sequences: torch.Tensor, prompt_mask: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the log probability of each token after the prompts, with gradient: (batch, new)."""
    raise NotImplementedError

# %% tags=["solution"]
def log_probs_of(model, sequences: torch.Tensor, prompt_mask: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the log probability of each token after the prompts, with gradient: (batch, new)."""
    new = sequences.shape[1] - prompt_mask.shape[1]
    mask = torch.nn.functional.pad(prompt_mask, (0, new), value=1)  # (batch, prompt + new)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(sequences, attention_mask=mask, position_ids=positions).logits[:, -new - 1 : -1]
    log_probs = (logits / temperature).log_softmax(-1)  # (batch, new, vocab)
    return log_probs.gather(-1, sequences[:, -new:, None]).squeeze(-1)

# %% [markdown] tags=["solution"]
# Everything that `generate()` did by itself is done by hand here: the mask is longer by the new tokens, the positions
# count tokens only, the logits are divided by the temperature *before* the softmax. Leave one out, and there
# is no error, only another distribution.

# %% tags=["check"]
lesson.check_log_probs_of(log_probs_of)

# %% [markdown] tags=["hints"]
# - `generate()` knows the mask of the new tokens: they are tokens, so 1. Append that to `prompt_mask`.
# - Lesson 02: positions count tokens only. `forward` does not do that for you.
# - The logits at place t speak about the token at t + 1, so take the places from −new − 1 to −1.
# - Temperature divides the logits, and then comes `log_softmax`.

# %% [markdown]
# What does each slip cost? Here on tiny GPT-2, where positions are absolute: the distance to what was recorded, the
# largest among the new tokens.

# %%
small, _ = load("tiny-gpt2", device="cpu")
words = {"input_ids": torch.tensor([[0, 0, 0, 3666, 3290], [40, 765, 284, 4483, 257]])}
words["attention_mask"] = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])


def drawn_with(**settings):
    torch.manual_seed(0)
    settings = {"top_k": 0, "temperature": 1.0} | settings
    output = small.generate(
        **words, do_sample=True, max_new_tokens=5, eos_token_id=None, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True, **settings,
    )  # fmt: skip
    new = output.sequences[:, 5:]
    found = torch.stack(output.scores, dim=1).log_softmax(-1).gather(-1, new[..., None]).squeeze(-1)
    return output.sequences, found

# %%
from course_utils.masks import position_ids


def again(sequences, temperature=1.0, mask=True, positions=True):
    new = sequences[:, 5:]
    given = torch.nn.functional.pad(words["attention_mask"], (0, 5), value=1)
    arguments = {"attention_mask": given} if mask else {}
    arguments |= {"position_ids": position_ids(given)} if positions else {}
    logits = small(sequences, **arguments).logits[:, 4:-1] / temperature
    return logits.log_softmax(-1).gather(-1, new[..., None]).squeeze(-1)

# %%
def apart(sequences, found, **slip):
    return f"{(again(sequences, **slip) - found).abs().max().item():.2f}"


ids, found = drawn_with(temperature=0.7)
print("all as in the draw  ", apart(ids, found, temperature=0.7))
print("without positions   ", apart(ids, found, temperature=0.7, positions=False))
print("without the mask    ", apart(ids, found, temperature=0.7, mask=False))
print("without temperature ", apart(ids, found))
print("drawn with top_k=5  ", apart(*drawn_with(top_k=5)))

# %% [markdown]
# The last line: five tokens had shared all the probability, and a plain second pass knows nothing of it. Either
# draw with `top_k=0, top_p=1.0`, as training code does, or forbid the same tokens again. Remember that `generate()`
# has `top_k=50` by default.

# %% [markdown]
# ## 4. REINFORCE, and what a baseline is for
#
# Draw eight texts, weigh each ∇log p by its reward, take the mean. This is **REINFORCE** (Williams, 1992), a
# **policy gradient**: a *policy* is a model that acts, here by writing. In code it is a loss whose *gradient* is
# right. Its value means nothing.

# %%
torch.manual_seed(2)
drawn = torch.multinomial(probs, 8, replacement=True)  # (8,): numbers of sequences
loss = -(rewards[drawn] * log_prob(sequences[drawn])).mean()
by_loss = -flat(torch.autograd.grad(loss, weights))
by_table = (rewards[drawn, None] * scores[drawn]).mean(0)
assert torch.allclose(by_loss, by_table)
print(f"cosine to the exact gradient: {torch.cosine_similarity(by_table, exact, dim=0):.2f}")

# %% [markdown]
# One estimate points roughly there. How good are they in general? Two different things can be wrong. **Bias**: the
# mean of many estimates is not the exact gradient. **Noise**: single estimates scatter around their mean. Both as
# multiples of the exact gradient's length:

# %%
def judged(weigh, rewards, count=4000):
    """Bias and noise of estimates from eight texts each; `weigh` makes weights of rewards, (count, 8)."""
    torch.manual_seed(1)
    drawn = torch.multinomial(probs, count * 8, replacement=True).view(count, 8)
    table = torch.zeros(count, len(probs), dtype=torch.float64)
    estimates = table.scatter_add_(1, drawn, weigh(rewards[drawn]) / 8) @ scores  # (count, weights)
    bias = (estimates.mean(0) - exact).norm() / exact.norm()
    noise = (estimates - estimates.mean(0)).square().sum(1).mean().sqrt() / exact.norm()
    print(f"bias {bias:.2f}   noise {noise:.2f}")

# %%
judged(lambda rewards: rewards, rewards)

# %% [markdown]
# The mean of 4,000 is close to the exact gradient, as it must be. Now whoever gives the rewards becomes friendly
# and adds 5 to each. Which text is better than which has not changed.

# %%
Predict(lesson.predict_shift)

# %% tags=["answer"]
print("REINFORCE with every reward larger by 5:")
judged(lambda rewards: rewards, rewards + 5)

# %% [markdown]
# The expected gradient is the same, since 5 · Σ p ∇log p = 0. But each *estimate* carries a large random walk with
# it, the one of section 2, which only averages out. (The bias that is measured is about that noise over √4000.)

# %% [markdown]
# So subtract something. Any number b that does not depend on the drawn text leaves the mean alone: it is called a
# **baseline**. The mean reward is a good one, and we have it nearly for free: the *other* texts of the batch.

# %% [markdown]
# ### Exercise 2: leave one out · difficulty 2 of 3 · 6 minutes
#
# Return for each text its reward less the mean reward of the **other** texts in its group. The last dimension is the
# group, there may be any number before it.

# %% tags=["exercise"]
def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    """Return each reward less the mean of the others in its group: (..., samples), as the rewards are."""
    raise NotImplementedError

# %% tags=["solution"]
def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    """Return each reward less the mean of the others in its group: (..., samples), as the rewards are."""
    others = rewards.shape[-1] - 1
    baseline = (rewards.sum(-1, keepdim=True) - rewards) / others  # (..., samples)
    return rewards - baseline

# %% [markdown] tags=["solution"]
# The sum less the own reward is the sum of the others. The mean of *all* would contain the text's own reward, so that
# the baseline would depend on the text. What that does comes next.

# %% tags=["check"]
lesson.check_leave_one_out(leave_one_out)

# %% [markdown] tags=["hints"]
# - The sum of the others is the sum of all, less the own one.
# - `sum(-1, keepdim=True)` keeps a dimension of 1, against which the rewards can be laid.
# - There are `samples - 1` others.

# %%
from course_utils import gradients

judged(gradients.leave_one_out, rewards)
judged(gradients.leave_one_out, rewards + 5)

# %% [markdown]
# The same two numbers twice: what is added to all rewards drops out exactly. Of the noise of 5.35 a baseline takes most
# away. From the first 1.21 it took nothing: those rewards lie around 0 already, and seven texts give their mean only
# roughly.

# %% [markdown]
# Such weights are called **advantages**. Two relatives are in use. **Group mean** subtracts the mean of all, the text
# itself included. **Group relative** divides that by the group's standard deviation. The method GRPO, *group
# relative policy optimization*, is named after it.

# %% [markdown]
# Are they unbiased? We need not measure it. With groups of *two* texts there are 216 · 216 groups, and we sum over
# all of them:

# %%
pairs = torch.stack(torch.broadcast_tensors(rewards[:, None], rewards), dim=-1)  # (216, 216, 2): rewards of groups
chances = probs[:, None] * probs  # (216, 216)


def expected(weigh):
    """The exact mean of the estimates from groups of two."""
    weighed = chances[..., None] * weigh(pairs) / 2
    return (weighed[..., 0].sum(1) + weighed[..., 1].sum(0)) @ scores

# %%
Predict(lesson.predict_group)

# %% tags=["answer"]
print("expected estimate, exact, for groups of two: length, and cosine to the exact gradient")
for weigh in (gradients.no_baseline, gradients.leave_one_out, gradients.group_mean, gradients.group_relative):
    mean = expected(weigh)
    print(f"{weigh.__name__:15} length {mean.norm() / exact.norm():.2f}", end="")
    print(f"   cosine {torch.cosine_similarity(mean, exact, dim=0):.3f}")

# %%
for weigh in (gradients.no_baseline, gradients.leave_one_out):
    assert (expected(weigh) - exact).abs().max() < 1e-10
assert (expected(gradients.group_mean) - exact / 2).abs().max() < 1e-10

# %% [markdown]
# The first two are unbiased. The group mean is leave-one-out times (samples − 1) / samples: the right direction, and a
# length that a learning rate makes up for. Group relative is **biased** in direction: where the rewards of a group lie close
# together, small differences are blown up. (Its length depends on the unit of the rewards.)

# %% [markdown]
# ## 5. The loop
#
# All parts are there: draw, reward, weigh, step. Here is a loop as one finds it. `draw` returns sequences and, since
# `generate()` can record them, their log probabilities.

# %%
def draw(model, samples=32):
    """Draw sequences: (samples, 3), and the log probabilities recorded at the draw: (samples,)."""
    with torch.no_grad():
        probs = gradients.sequence_log_probs(model, sequences).exp()
    numbers = torch.multinomial(probs, samples, replacement=True)
    return sequences[numbers], probs[numbers].log()


def reward(drawn):
    return random_rewards()[tuple(drawn.T)]  # (samples,)

# %%
def broken(model, optimizer, draw, reward, updates):
    drawn, recorded = draw(model)
    advantages = gradients.leave_one_out(reward(drawn))
    for _ in range(updates):
        loss = -(advantages * recorded).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
learner = toy_model()
torch.manual_seed(0)
try:
    broken(learner, torch.optim.AdamW(learner.parameters()), draw, reward, updates=10)
except RuntimeError as error:
    print("RuntimeError:", error)

# %% [markdown]
# The message of lesson 08. A search engine suggests `recorded.requires_grad_()`, and with that the loop runs through:

# %%
def silenced(model):
    drawn, recorded = draw(model)
    return drawn, recorded.requires_grad_()


before = [weight.detach().clone() for weight in learner.parameters()]
optimizer = torch.optim.AdamW(learner.parameters())
broken(learner, optimizer, silenced, reward, updates=10)

# %%
Predict(lesson.predict_stale)

# %% tags=["answer"]
print("largest change of a weight in ten updates:")
print(max((now - then).abs().max().item() for now, then in zip(learner.parameters(), before)))

# %% [markdown]
# `requires_grad_()` made the recorded numbers a leaf of their own. The gradient ends there, and the model's weights never
# hear of it.

# %% [markdown]
# ### Exercise 3: repair it · difficulty 3 of 3 · 9 minutes
#
# Write the loop so that every update follows an estimate of the gradient **at the model's current weights**, with
# leave-one-out advantages. `gradients.sequence_log_probs(model, drawn)` is the second forward pass, with a
# gradient: (samples,).

# %% tags=["exercise"]
def train(model, optimizer, draw, reward, updates: int) -> list[float]:
    """Take `updates` steps of policy gradient; return the mean reward of the texts of each."""
    raise NotImplementedError

# %% tags=["solution"]
def train(model, optimizer, draw, reward, updates: int) -> list[float]:
    """Take `updates` steps of policy gradient; return the mean reward of the texts of each."""
    means = []
    for _ in range(updates):
        drawn, _ = draw(model)
        found = reward(drawn)
        loss = -(gradients.leave_one_out(found) * gradients.sequence_log_probs(model, drawn)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means.append(found.mean().item())
    return means

# %% [markdown] tags=["solution"]
# Two things were stale. The log probabilities: without a gradient they cannot move anything. And the *texts*: after one
# update they are drawn from a model that no longer exists, and ∇J is a mean over texts of the current one.

# %% tags=["check"]
lesson.check_train(train)

# %% [markdown] tags=["hints"]
# - Which of the two things that `draw` returns do you need?
# - The gradient is a mean over texts drawn from the *current* weights. Where does `draw` have to stand?
# - Inside the loop: draw, reward, second forward pass, loss, `zero_grad`, `backward`, `step`.

# %% [markdown]
# What are recorded log probabilities good for, then? Whoever wants several updates from one draw must correct for
# the change of the model, by the factor p_now(y) / p_drawn(y). There they are needed, without gradient, in the
# denominator. GRPO does that, and PPO (*proximal policy optimization*) before it. Both clip the factor: beyond a bound
# it counts no more.

# %% [markdown]
# ## 6. Through the token after all
#
# Lesson 08 had links that carry a gradient *through* the choice: soft embeddings, straight-through, and with noise
# Gumbel-softmax. They need more of the reward: it must be defined *between* tokens, and have a derivative.

# %% [markdown]
# Our table can be read like that: a mixture of tokens gets the mixture of their rewards. Then everything from the
# weights to the reward is differentiable. But of what is it the reward?

# %%
problem = gradients.Problem(toy, rewards.view(6, 6, 6))  # all of section 2, in one object
assert torch.allclose(problem.gradient, exact)
mixture = problem.relaxed_reward(gradients.soft, samples=1)
print(f"mean reward of drawn sequences: {problem.expected:.2f}")
print(f"reward of the soft sequence:    {mixture.item():.2f}")

# %% [markdown]
# The second step has read a mixture that no sequence ever is. Its reward is another function, and soft embeddings
# give **that** function's gradient, exactly and without noise. Bias without noise is the opposite of REINFORCE.

# %% [markdown]
# Gumbel-softmax draws: softmax((logits + noise) / temperature). The argmax of logits with Gumbel noise is an exact
# draw from the softmax, and the temperature says how far the link stays from it. The *soft* form passes that mixture
# on, the *hard* form its argmax, straight-through. Here is the soft one's bias, ± its standard error, and its noise:

# %%
for temperature in (2.0, 1.0, 0.5):
    generator = torch.Generator().manual_seed(0)
    estimates = [
        problem.relaxed(lambda logits: gradients.gumbel(logits, temperature, False, generator), samples=8)
        for _ in range(50)
    ]
    found = gradients.measure(problem, torch.stack(estimates))
    print(f"temperature {temperature}: bias {found.bias:.1f} ± {found.bias_error:.1f}, noise {found.noise:.1f}")

# %% [markdown]
# On this problem less bias is paid for with more noise.

# %% [markdown]
# ## 7. Nine estimators before the judge
#
# Now all of them, each estimate from eight texts, on **five** problems: five models and five tables of rewards, from
# the seeds 0 to 4. One problem's numbers could be luck.

# %%
others = [gradients.Problem(toy_model(seed=seed), random_rewards(seed=seed)) for seed in range(1, 5)]
problems = [problem, *others]


def measured(estimator, problem, seed):
    draws = estimator.name not in ("soft embeddings", "straight-through, argmax")
    count = 2000 if estimator.advantage else 50 if draws else 2  # those through the token cost more
    estimates = estimator.estimates(problem, 8, count, torch.Generator().manual_seed(seed))
    return gradients.measure(problem, estimates)


table = {
    estimator: [measured(estimator, problem, seed) for seed, problem in enumerate(problems)]
    for estimator in gradients.ESTIMATORS
}

# %%
def range_of(numbers, digits=2):
    return f"{min(numbers):.{digits}f} to {max(numbers):.{digits}f}"


print(f"{'':25} {'by proof':9} {'bias':13} {'cosine':14} {'noise':13} needs of R")
for estimator, found in table.items():
    proof = "unbiased" if estimator.unbiased else ""
    numbers = [range_of([getattr(one, name) for one in found]) for name in ("bias", "cosine", "noise")]
    print(f"{estimator.name:25} {proof:9} {numbers[0]:13} {numbers[1]:14} {numbers[2]:13} {estimator.needs}")

# %% [markdown]
# Read it with care. "Unbiased" is proven for every model and reward. The numbers are **measured**, on five small random
# problems: each range is from the lowest to the highest. And a mean over finitely many estimates is never exactly right,
# so an unbiased estimator shows a small bias, too.

# %% [markdown]
# How small? About its standard error. The bars reach two of them to each side. A point is one problem.

# %%
from course_utils.plots import dots

dots(
    {"bias": {e.name: [(one.bias, 2 * one.bias_error) for one in found] for e, found in table.items()}},
    "Estimates of a gradient from eight texts, on five problems",
    "in lengths of the exact gradient",
)

# %%
reinforce = table[gradients.ESTIMATORS[0]]
for estimator, found in table.items():
    if estimator.unbiased:
        assert all(one.bias < 2 * one.bias_error for one in found)
    else:
        assert any(one.bias > 3 * one.bias_error for one in found)
    if estimator.link:  # through the token
        assert all(one.noise < other.noise for one, other in zip(found, reinforce))
print("the group mean's bias; by proof it is 1/8:", range_of([one.bias for one in table[gradients.ESTIMATORS[2]]]))

# %% [markdown]
# None of the other seven is unbiased: each misses on at least one problem by more than three
# standard errors. The two that are need only values of R, and pay with noise: those through the token have less of it on
# each problem. And straight-through on argmax is off by up to three times the gradient's own length.

# %%
Predict(lesson.predict_more_samples)

# %% tags=["answer"]
print("from 8 and from 128 texts, on the last problem:")
for estimator in (gradients.ESTIMATORS[1], gradients.ESTIMATORS[6]):
    for samples in (8, 128):
        count = 1000 if estimator.advantage else 40
        estimates = estimator.estimates(problems[4], samples, count, torch.Generator().manual_seed(5))
        found = gradients.measure(problems[4], estimates)
        bias = f"{found.bias:.2f} ± {found.bias_error:.2f}"
        print(f"{estimator.name:25} {samples:3} texts: bias {bias}   noise {found.noise:.2f}")

# %% [markdown]
# From 8 to 128 texts, sixteen times as many, noise falls to about a quarter: with the root. What looks like a bias of
# leave-one-out is no more than its standard error. That of straight-through stays, many standard errors above 0.

# %% [markdown]
# Watch it happen: each estimator's mean walks as estimates arrive, *along* the exact gradient and *across* it, in its
# lengths. Does it come to rest at 1 along and 0 across? Start it, pause it, try another seed.

# %%
race = EstimatorRace(problem)
race.run(30)
race

# %% [markdown]
# ## 8. SmolLM2 learns a habit
#
# Lesson 08 began with a wish: texts without the letter *e*. Now we can have it. The reward of a text is a count: one
# point for each word without an *e*, one less for each word with one. It has no derivative, and needs none.

# %%
import re


def points(text):
    words = re.findall("[a-z]+", text.lower())
    return sum(-1 if "e" in word else 1 for word in words)


points("born in a small town"), points("the sleepy village")

# %% [markdown]
# The optimizer is `torch.optim.AdamW`. Old scripts import an `AdamW` from transformers; that class is gone.
# It had other defaults: `lr=1e-3, eps=1e-6, weight_decay=0.0`. Today's:

# %%
import inspect

import transformers

defaults = inspect.signature(torch.optim.AdamW).parameters
print("in transformers:", hasattr(transformers, "AdamW"))
print({name: defaults[name].default for name in ("lr", "betas", "eps", "weight_decay")})

# %% [markdown]
# Does that matter? Weight decay pulls every trained weight towards 0 unless you switch it off. `eps` stands beside
# the gradient's size in a denominator, so it matters for small gradients. One step, for three gradients:

# %%
for gradient in (1e-3, 1e-6, 1e-8):
    moved = []
    for eps in (1e-8, 1e-6):
        weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        weight.grad = torch.full_like(weight, gradient)
        torch.optim.AdamW([weight], lr=1.0, eps=eps, weight_decay=0.0).step()
        moved.append(-weight.item())
    print(f"gradient {gradient:.0e}: today {moved[0]:.2f}, with the old eps {moved[1]:.2f} learning rates")

# %% [markdown]
# ### What is trained
#
# The last block and the final norm. All else is **frozen**, `requires_grad` is False: the blocks below, and the output
# head, which is the input embedding once more. What does that save? For each trained weight there is a gradient and two
# running averages of AdamW, 4 bytes each in float32.

# %%
from course_utils.training import ProgressBar, sample, train_habit, trained_parts

every = sum(weight.numel() for weight in model.parameters())
trained = sum(weight.numel() for part in trained_parts(model) for weight in part.parameters())
print(f"all weights:  {every:,}, would need {every * 12 / 2**20:,.0f} MiB beside the model")
print(f"trained ones: {trained:,}, need {trained * 12 / 2**20:,.0f} MiB")

# %% [markdown]
# And what the frozen blocks compute need not be kept for the way back, since no gradient goes there. With lesson 08's
# count, for one forward pass over 24 texts of seven tokens:

# %% tags=["nbval-ignore-output"]
def kept_mib():
    """MiB that autograd keeps for the backward pass, parameters left out."""
    kept, own = {}, {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = model(torch.ones(24, 7, dtype=torch.long, device=model.device), use_cache=False)  # kept alive
    return sum(size for place, size in kept.items() if place not in own and result) / 2**20


print(f"all weights trained: {kept_mib():.0f} MiB")
model.requires_grad_(False)
for part in trained_parts(model):
    part.requires_grad_(True)
print(f"all but these frozen: {kept_mib():.0f} MiB")

# %% [markdown]
# One step, written out. It is what you have built: draw, reward, second forward pass, leave one out. Only `drawn.drawn`
# is new. It is False after a text's end, where padding stands that nobody drew:

# %%
asked = {"prompt": "She was", "new_tokens": 5, "temperature": 0.8}
drawn = sample(model, tokenizer, **asked, samples=24, seed=0)  # under no_grad, nothing on but the temperature
found = torch.tensor([float(points(text)) for text in drawn.texts])
advantages = gradients.leave_one_out(found).to(model.device)

new = drawn.sequences[:, drawn.prompt_length :]  # (24, 5)
logits = model(drawn.sequences).logits[:, drawn.prompt_length - 1 : -1] / asked["temperature"]
log_probs = logits.log_softmax(-1).gather(-1, new[..., None]).squeeze(-1) * drawn.drawn
(-(advantages * log_probs.sum(1)).mean()).backward()
print("weights with a gradient:", sum(w.grad.numel() for w in model.parameters() if w.grad is not None))
model.zero_grad()

# %% [markdown]
# Those are the trained ones. `optimizer.step()` would come next. `train_habit` does all of it eight times, with a new draw
# each time. It needs about half a minute.

# %%
before = sample(model, tokenizer, **asked, samples=24, seed=100)
run = {"steps": 8, "samples": 24, "learning_rate": 3e-4, "seed": 0}
habit = train_habit(model, tokenizer, points, **asked, **run, on_step=ProgressBar())
after = sample(model, tokenizer, **asked, samples=24, seed=100)

# %% [markdown]
# The same prompt and the same seed, before and after. (Which texts you see depends on your machine.)

# %% tags=["nbval-ignore-output"]
print("mean points in each step:", "  ".join(f"{step.reward:.1f}" for step in habit.steps))
for old, new in zip(before.texts[:10], after.texts[:10]):
    print(f"{old!r:42} {new!r}")

# %%
def mean(texts):
    return sum(map(points, texts)) / len(texts)


print("more than one point better:", mean(after.texts) > mean(before.texts) + 1)

# %% [markdown]
# Nobody showed the model a text without an *e*. It tried, and was told how well it did. But look at *how* it does it.
# How many kinds of texts are left? And how far has the distribution moved? The **KL divergence** is the mean of
# log p_now − log p_before over what the model writes now: 0 if nothing has changed.

# %% tags=["nbval-ignore-output"]
for name, drawn in (("before", before), ("after", after)):
    starts = {" ".join(text.split()[:3]) for text in drawn.texts}
    print(f"{name:6}  {mean(drawn.texts):.1f} points, {len(starts)} different beginnings of three words")
print(f"KL divergence from the model before: {habit.steps[-1].kl:.1f} nats a token")

# %% [markdown]
# It finds what the reward asks for, not what we meant: fewer beginnings are left, whatever has got points is said again.
# At its worst this is called **reward hacking**. A common remedy subtracts a share of the KL divergence from
# the reward, so that the model stays near what it was.

# %% [markdown]
# A run can also break. First we take the habit back. Then a learning rate a thousand times larger, 0.3: the run stops and
# says so, and the model is as it was.

# %%
habit.undo()
weights_before = [weight.clone() for weight in trained_parts(model)[0].parameters()]

# %% tags=["raises-exception"]
train_habit(model, tokenizer, points, **asked, steps=3, samples=6, learning_rate=0.3)

# %%
assert all(map(torch.equal, trained_parts(model)[0].parameters(), weights_before))

# %% [markdown]
# Rewards can be useless, too. Here all are the same, so no text is better than another:

# %% tags=["raises-exception"]
train_habit(model, tokenizer, lambda text: 1.0, **asked, samples=6)

# %% [markdown]
# ## 9. Which one?
#
# ### Exercise 4: four situations · difficulty 2 of 3 · 5 minutes
#
# Choose for each, then read why, for the wrong ones too.

# %%
Quiz(lesson.situations)

# %% [markdown]
# ## Recap
#
# - Teacher forcing scores a known answer in one forward pass. Make labels from the mask, or the end is not learned.
# - Drawn texts are scored in a second pass, with the positions, the mask and the temperature of the draw.
# - R ∇log p of drawn texts has the mean ∇J. A baseline that does not depend on the text changes
#   its noise and not its mean; without a reward the mean is 0.
# - Unbiased by proof: REINFORCE and leave-one-out. Links through the token are biased, and need a derivative of R.
# - Each update needs texts and log probabilities of the current weights.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `ForCausalLMLoss` in `transformers/loss/loss_utils.py` is the shifted loss behind `labels`. The trainers for
# language models that use rewards live in a library of their own, TRL: `RLOOTrainer` and `GRPOTrainer`.
#
# This was the last lesson. Names from older articles stand in the [appendix](appendix_version_map.ipynb).
