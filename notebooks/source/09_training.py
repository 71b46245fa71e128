# %% [markdown]
# # How do you train through generation, then?
#
# **By the end you will have compared nine ways to estimate a gradient through generation with the exact one, summed
# over every possible sequence. And from nothing but points for its texts, a language model will have learned to use a
# letter less often.**
#
# You will be able to
#
# - train on given answers in one forward pass, end-of-text included, and say what that does not train,
# - draw texts without a gradient, then compute their log probabilities with one, using the position ids, mask and
#   temperature of the draw,
# - turn the rewards of drawn texts into a gradient, and lower its noise with a baseline,
# - say which estimators are unbiased, how that is proven, and what was measured for the others,
# - choose one, and repair a loop that only looks right.
#
# *75 minutes, and 30 more for the exercises. You need: lessons 07 and 08, and `torch.optim`.*

# %% [markdown]
# ## 1. When the answer is known
#
# Most training never generates. Somebody has written the answer, and the model should learn to find it likely. Prompt
# and answer go through **one** forward pass:

# %%
import torch

from course_utils import load
from course_utils.lessons import lesson09 as lesson
from course_utils.widgets import EstimatorRace, Predict, Quiz

model, tokenizer = load()
prompt, answer = "The capital of France is", " Paris."
ids = tokenizer(prompt + answer, return_tensors="pt").input_ids.to(model.device)  # (1, length)
start = len(tokenizer(prompt).input_ids)
log_probs = model(ids).logits[:, :-1].log_softmax(-1)  # (1, length - 1, vocab)
scored = log_probs.gather(-1, ids[:, 1:, None]).squeeze(-1)[:, start - 1 :]  # (1, answer)
print([f"{number:.2f}" for number in scored[0].tolist()], "with a gradient:", scored.requires_grad)

# %% [markdown]
# Each token of the answer gets its log probability given the **true** tokens before it, whatever the model would have
# chosen. That is **teacher forcing**, which lesson 08 used on the model's own text. No token is chosen, so there is
# none of lesson 08's cuts.

# %% [markdown]
# The library does the same when it is given `labels`: ids for tokens that count in the loss, and −100 for those that
# do not. It shifts them itself, and returns the mean with the opposite sign.

# %%
labels = ids.clone()
labels[:, :start] = -100  # the prompt should not be learned
loss = model(ids, labels=labels).loss
print(f"{loss.item():.2f} and {-scored.mean().item():.2f}")

# %% [markdown]
# ### The end has to be learned, too
#
# In a batch, answers have different lengths. Here are two with their end-of-text, padded on the right, and the
# padding token is the same as the end:

# %%
end = tokenizer.eos_token_id
tokenizer.pad_token = tokenizer.eos_token
texts = ["Red or blue? Blue." + tokenizer.eos_token, "Cat or dog? The old grey cat." + tokenizer.eos_token]
batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").to(model.device)
by_id = batch.input_ids.masked_fill(batch.input_ids == tokenizer.pad_token_id, -100)
by_mask = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
print("labels that count, by id and by mask:", (by_id != -100).sum().item(), (by_mask != -100).sum().item())

# %% [markdown]
# Lesson 02 showed this trap: labels made from the pad *id* lose every end-of-text. What does the loss do if no label
# names the end? Its gradient at the logits says which of them a step pushes up (negative) or down (positive).

# %%
def push_on_the_end(labels):
    """For each label that counts: the gradient of the loss at the logit of the end-of-text."""
    logits = model(**batch).logits[:, :-1].detach().requires_grad_()  # (batch, length - 1, vocab)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum").backward()
    return logits.grad[..., end][labels[:, 1:] != -100]

# %%
Predict(lesson.predict_end)

# %% tags=["answer"]
print("labels that push the end's logit up, and labels that push it down:")
for name, labels in (("labels by mask", by_mask), ("labels by id", by_id)):
    push = push_on_the_end(labels)
    print(f"{name}: {(push < 0).sum()} and {(push > 0).sum()}")

# %% [markdown]
# Every label that names another token pushes the end's logit down. (Not always its probability, which depends on all
# logits.) With labels by mask, two labels push it up; with labels by id **none** does, and nothing teaches the model
# to stop. Make labels from the mask. (Nothing predicts the first token of a text: 17 minus 2.)

# %% [markdown]
# ### What it does not train
#
# In training the model reads texts that people wrote. When it generates, it reads what *it* wrote, including its
# mistakes. That gap is called **exposure bias**. We put a mistake into the text:

# %%
@torch.no_grad()
def chance(text, word):
    ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
    return model(ids).logits[0, -1].softmax(-1)[tokenizer(word).input_ids[0]].item()


for said in ("Paris", "London", "banana"):
    asked = f"The capital of France is {said}. The capital of Italy is"
    print(f"{said:6}  then Rome: {chance(asked, ' Rome'):.0%}")

# %% [markdown]
# On this one prompt a wrong city does no harm, but a strange word does. Teacher forcing never shows a model its own
# mistakes. Even so, most training is teacher forcing: nothing has to be drawn, and the model learns from every token
# of every text.
#
# It has a second limit: someone must know the answer. "A text without the letter *e*", "a program that passes its
# tests": we can *judge* such texts, but there is no single right answer to write down. So the model must write, and
# learn from the judgement. This is the loop that we are going to build, box by box:
#
# ![One step of training by reward: draw texts, reward them, turn rewards into advantages, score the texts in a second pass, take a step](images/reward_loop.svg)

# %% [markdown]
# ## 2. The gradient that we want
#
# The judgement of a text y is a number, its **reward** R(y). We want to increase its mean over the texts that the
# model draws:
#
# J = Σ p(y) R(y), the sum over all texts y.
#
# J is smooth. The choice of *one* text jumps, as lesson 08 showed. The *probability* of each text changes smoothly.
#
# For a language model nobody can compute that sum. So we build a case where we can: six tokens, three steps, 216
# sequences. The rewards are a table of draws from a normal distribution.

# %%
from course_utils.gradients import random_rewards, sequence_log_probs, toy_model

toy = toy_model()  # GPT-2's architecture, 2 layers, width 16, random weights in float64
weights = list(toy.parameters())
sequences = torch.cartesian_prod(*[torch.arange(6)] * 3)  # (216, 3): all of them
rewards = random_rewards().flatten()  # (216,)
print(f"{sum(weight.numel() for weight in weights):,} weights, rewards from {rewards.min():.1f} to {rewards.max():.1f}")

# %%
def log_prob(sequences, temperature=1.0):
    """log p of each sequence after the start token 0, with a gradient: (batch,)."""
    start = torch.zeros_like(sequences[:, :1])
    logits = toy(torch.cat([start, sequences[:, :-1]], dim=1)).logits / temperature  # (batch, 3, 6)
    return logits.log_softmax(-1).gather(-1, sequences[..., None]).squeeze(-1).sum(-1)


probs = log_prob(sequences).exp()  # (216,)
assert abs(probs.sum().item() - 1) < 1e-10
J = (probs * rewards).sum()
print(f"mean reward: {J.item():.2f}")

# %% [markdown]
# The probabilities of all sequences sum to 1. J is a function of the weights that autograd can differentiate. This is
# the **exact gradient**, the reference for everything that follows:

# %%
def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


exact = flat(torch.autograd.grad(J, weights))  # (weights,)
print(tuple(exact.shape), f"length {exact.norm():.2f}")

# %% [markdown]
# Now the step that makes it usable. The gradient of a logarithm is ∇log p = ∇p / p, so ∇p = p ∇log p, and
#
# ∇J = Σ ∇p(y) R(y) = Σ **p(y)** R(y) ∇log p(y).
#
# The right-hand side is the *mean of R(y) ∇log p(y) over texts drawn from the model*. We can estimate a mean by
# drawing.

# %% [markdown]
# ∇log p(y) is the **gradient of the log probability** of one sequence. (Statistics calls it the *score function*.) One
# backward pass computes it for one sequence. We take all 216, and compare both sides:

# %%
one_by_one = log_prob(sequences)
grad_log_p = torch.stack([flat(torch.autograd.grad(number, weights, retain_graph=True)) for number in one_by_one])
probs = probs.detach()
assert ((probs * rewards) @ grad_log_p - exact).abs().max() < 1e-10
tuple(grad_log_p.shape)  # (sequences, weights)

# %% [markdown]
# They are equal to ten decimals. Look at what this requires: texts, one number for each, and ∇log p. Nothing is
# differentiated through the choice. R may be a count, a test run or a person's opinion.

# %% [markdown]
# ### Without a reward
#
# It is tempting to generate texts and train on them as on any others, by teacher forcing. That is R = 1 for each.

# %%
Predict(lesson.predict_no_reward)

# %% tags=["answer"]
print("the expected gradient for R = 1 has a length below 1e-10:")
print((probs @ grad_log_p).norm().item() < 1e-10)

# %% [markdown]
# It is zero: Σ p ∇log p = Σ ∇p, and the probabilities sum to 1 whatever the weights are. A finite number of draws
# does move the weights, in random directions:

# %%
torch.manual_seed(0)
drawn = torch.multinomial(probs, 8 * 1000, replacement=True).view(1000, 8)  # 1,000 batches of eight
steps = grad_log_p[drawn].mean(1)  # (1000, weights)
print(f"one batch of eight: {steps.norm(dim=1).mean() / exact.norm():.1f} times the exact gradient's length")
print(f"mean of 1,000:      {steps.mean(0).norm() / exact.norm():.1f}")

# %% [markdown]
# Training a model on its own samples without a reward is a **random walk**, as long as all samples count equally and
# their log probabilities are those of the distribution that they were drawn from. A random walk is not harmless: what
# is drawn becomes likelier, and so is drawn again. We let three copies walk and watch their
# **entropy**, −Σ p log p, which is 0 when only one text is left:

# %%
import copy

from course_utils.plots import dots, histogram, lines, targets


def walked(seed, steps=300):
    pupil, generator = copy.deepcopy(toy), torch.Generator().manual_seed(seed)
    entropies = []
    for step in range(steps):
        log_p = sequence_log_probs(pupil, sequences)  # (216,), as `log_prob`
        if step % 10 == 0:
            entropies.append(-(log_p.exp() * log_p).sum().item())
        eight = torch.multinomial(log_p.detach().exp(), 8, replacement=True, generator=generator)
        own = list(pupil.parameters())
        direction = torch.autograd.grad(log_p[eight].mean(), own)
        with torch.no_grad():
            for weight, part in zip(own, direction):
                weight += 0.02 * part
    return entropies


walks = {f"copy {seed}": walked(seed) for seed in range(3)}
print("entropy at the start and at the end:", [f"{walk[0]:.1f} to {walk[-1]:.1f}" for walk in walks.values()])
assert all(walk[-1] < walk[0] - 0.5 for walk in walks.values())
lines(range(0, 300, 10), walks, "Training on one's own texts, without a reward", "steps", "entropy in nats")

# %% [markdown]
# Nobody asked for it, and yet each copy has lost variety. If the temperatures of draw and score differ, there is a
# direction, too, since the draw itself prefers some texts:

# %%
sharp = log_prob(sequences, temperature=0.7).exp().detach()  # (216,)
print(f"drawn at 0.7, log p at 1: {(sharp @ grad_log_p).norm() / exact.norm():.2f} of the exact gradient's length")

# %% [markdown]
# It pulls the model towards the sharper distribution, and ignores our rewards. A direction towards *them* must come
# from R, if only as a choice of which samples to keep.

# %% [markdown]
# ## 3. Draw, then score
#
# With a real model we draw texts with `generate()`, under `no_grad`. Then we need their log probabilities *with* a
# gradient: lesson 08's forward pass over the finished text, from here on called the **second pass**. Its numbers must
# be those of the draw; otherwise we train another distribution.

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
# `recorded` has the right values (lesson 07) but no gradient. Our second pass has to reproduce it. (Without an
# end-of-text all rows have the same length. If rows can end early, the padding was not drawn, and its numbers must
# not count: section 8 handles that.)

# %% [markdown]
# ### Exercise 1: Compute the log probabilities of a draw · difficulty 3 of 3 · 10 minutes
#
# `sequences` is (batch, prompt + new): prompts padded on the left, then tokens drawn at `temperature` with no other
# settings. `prompt_mask` is the mask of the prompts only. Return the log probability of each new token *under the
# distribution that it was drawn from*, with a gradient.

# %% tags=["exercise"]
def log_probs_of(model, sequences: torch.Tensor, prompt_mask: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the log probability of each token after the prompts, with a gradient: (batch, new)."""
    raise NotImplementedError

# %% tags=["solution"]
def log_probs_of(model, sequences: torch.Tensor, prompt_mask: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the log probability of each token after the prompts, with a gradient: (batch, new)."""
    new = sequences.shape[1] - prompt_mask.shape[1]
    mask = torch.nn.functional.pad(prompt_mask, (0, new), value=1)  # (batch, prompt + new)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(sequences, attention_mask=mask, position_ids=positions).logits[:, -new - 1 : -1]
    log_probs = (logits / temperature).log_softmax(-1)  # (batch, new, vocab)
    return log_probs.gather(-1, sequences[:, -new:, None]).squeeze(-1)

# %% [markdown] tags=["solution"]
# Everything that `generate()` did for us is done by hand here: the mask is extended by the new tokens, the position
# ids count tokens only, the logits are divided by the temperature *before* the softmax. Leave one out and you get no
# error, only another distribution.

# %% tags=["check"]
lesson.check_log_probs_of(log_probs_of)

# %% [markdown] tags=["hints"]
# - The new tokens are tokens, so their mask is 1. Append these 1s to `prompt_mask`.
# - Lesson 02: position ids count tokens only. `forward` does not do that for you.
# - The logits at index t predict the token at index t + 1, so take `logits[:, -new - 1 : -1]`.
# - First divide the logits by the temperature, then take `log_softmax`.

# %% [markdown]
# How much does each mistake matter? For tiny GPT-2, which has absolute positions, we print the largest difference
# from the recorded log probabilities among the new tokens.

# %%
from course_utils.masks import position_ids

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



def again(sequences, temperature=1.0, mask=True, positions=True, model=small):
    new = sequences[:, 5:]
    given = torch.nn.functional.pad(words["attention_mask"], (0, 5), value=1)
    arguments = {"attention_mask": given} if mask else {}
    arguments |= {"position_ids": position_ids(given)} if positions else {}
    logits = model(sequences, **arguments).logits[:, 4:-1] / temperature
    return logits.log_softmax(-1).gather(-1, new[..., None]).squeeze(-1)

# %%
def apart(sequences, found, **slip):
    return f"{(again(sequences, **slip) - found).abs().max().item():.2f}"


dropping = copy.deepcopy(small).train()  # GPT-2's usual dropout, which load() leaves out
for module in dropping.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.1
ids, found = drawn_with(temperature=0.7)
print("all as in the draw  ", apart(ids, found, temperature=0.7))
print("without positions   ", apart(ids, found, temperature=0.7, positions=False))
print("without the mask    ", apart(ids, found, temperature=0.7, mask=False))
print("without temperature ", apart(ids, found))
print("with dropout on     ", apart(ids, found, temperature=0.7, model=dropping))
print("drawn with top_k=5  ", apart(*drawn_with(top_k=5)))

# %% [markdown]
# **Dropout** zeroes random numbers inside the model. It is on after `model.train()`, so the second pass is another
# model than the one that drew: call `model.eval()` for both passes, and leave it so while you train.
#
# In the last line, five tokens had shared all the probability, which a plain second pass does not know. Either draw
# with `top_k=0, top_p=1.0`, as training code does, or forbid the same tokens again. Remember that `generate()` has
# `top_k=50` by default.

# %% [markdown]
# ## 4. REINFORCE, and what a baseline is for
#
# Draw eight texts, multiply each ∇log p by its reward, and take the mean. This is **REINFORCE** (Williams, 1992), a
# **policy gradient**: a *policy* is a model that acts, here by writing. In code we write a loss that has the right
# *gradient*. Its value means nothing.

# %%
torch.manual_seed(2)
drawn = torch.multinomial(probs, 8, replacement=True)  # (8,): indices of sequences
loss = -(rewards[drawn] * log_prob(sequences[drawn])).mean()
by_loss = -flat(torch.autograd.grad(loss, weights))
by_table = (rewards[drawn, None] * grad_log_p[drawn]).mean(0)
assert torch.allclose(by_loss, by_table)
print(f"cosine to the exact gradient: {torch.cosine_similarity(by_table, exact, dim=0):.2f}")

# %% [markdown]
# This estimate points in nearly the right direction. Was that luck? We make 400 of them:

# %%
batches = torch.multinomial(probs, 400 * 8, replacement=True).view(400, 8)
each = [torch.cosine_similarity((rewards[b, None] * grad_log_p[b]).mean(0), exact, dim=0).item() for b in batches]
print(f"{sum(cosine < 0 for cosine in each) / 400:.0%} of 400 estimates point away from the exact gradient")
histogram(each, "400 estimates from eight texts each", "cosine to the exact gradient")

# %% [markdown]
# Partly. How good are such estimates in general? Two different things can be wrong. **Bias**: the mean of many
# estimates is not the exact gradient. **Noise**, their standard deviation (its square is the **variance**): single
# estimates scatter around their mean. We measure both as multiples of the exact gradient's length. In `judged`,
# `scatter_add_` adds the weight of each drawn text to the column of that text, so that one matrix product gives all
# estimates:

# %%
def judged(weigh, rewards, count=4000):
    """Bias and noise of estimates from eight texts each; `weigh` turns rewards into weights, (count, 8)."""
    torch.manual_seed(1)
    drawn = torch.multinomial(probs, count * 8, replacement=True).view(count, 8)
    table = torch.zeros(count, len(probs), dtype=torch.float64)
    estimates = table.scatter_add_(1, drawn, weigh(rewards[drawn]) / 8) @ grad_log_p  # (count, weights)
    bias = (estimates.mean(0) - exact).norm() / exact.norm()
    noise = (estimates - estimates.mean(0)).square().sum(1).mean().sqrt() / exact.norm()
    print(f"bias {bias:.2f}   noise {noise:.2f}")

# %%
judged(lambda rewards: rewards, rewards)

# %% [markdown]
# The mean of 4,000 is close to the exact gradient, as it must be. Now suppose that the judge becomes friendlier and
# adds 5 to every reward. The order of the texts has not changed.

# %%
Predict(lesson.predict_shift)

# %% tags=["answer"]
print("REINFORCE with every reward larger by 5:")
judged(lambda rewards: rewards, rewards + 5)

# %% [markdown]
# The expected gradient is the same, since 5 · Σ p ∇log p = 0. But each *estimate* now contains a large random step,
# as in section 2, which cancels only on average. (The measured bias is about that noise divided by √4000.)
#
# So subtract something. Any number b that does not depend on the drawn text leaves the mean unchanged; it is called a
# **baseline**. The mean reward is a good one, and we get an estimate of it almost for free, from the *other* texts of
# the batch.

# %% [markdown]
# ### Exercise 2: Leave one out · difficulty 2 of 3 · 6 minutes
#
# Return each text's reward minus the mean reward of the **other** texts in its group. A group holds the texts drawn
# for one prompt. The last dimension is the group; there may be any number of dimensions before it.

# %% tags=["exercise"]
def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    """Return each reward minus the mean of the others in its group: (..., samples), like the rewards."""
    raise NotImplementedError

# %% tags=["solution"]
def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    """Return each reward minus the mean of the others in its group: (..., samples), like the rewards."""
    others = rewards.shape[-1] - 1
    baseline = (rewards.sum(-1, keepdim=True) - rewards) / others  # (..., samples)
    return rewards - baseline

# %% [markdown] tags=["solution"]
# The sum minus the text's own reward is the sum of the others. The mean of *all* would include the text's own reward,
# so the baseline would depend on the text. We will see next what that does.

# %% tags=["check"]
lesson.check_leave_one_out(leave_one_out)

# %% [markdown] tags=["hints"]
# - The sum of the others is the sum of all rewards minus the text's own.
# - `sum(-1, keepdim=True)` keeps a dimension of size 1, which broadcasts against the rewards.
# - There are `samples - 1` others.

# %%
from course_utils import gradients

judged(gradients.leave_one_out, rewards)
judged(gradients.leave_one_out, rewards + 5)

# %% [markdown]
# We get the same two numbers twice: what is added to all rewards cancels exactly. The baseline removes most of the
# noise of 5.35. From the first 1.21 it removed nothing: those rewards are already centred near 0, and seven texts
# give only a rough estimate of their mean.

# %% [markdown]
# Such weights are called **advantages**. Two variants are in use. **Group mean** subtracts the mean of all, including
# the text itself. **Group relative** divides that by the group's standard deviation. It gave the method GRPO, *group
# relative policy optimization*, its name.
#
# Are they unbiased? We do not need to measure it. With groups of *two* texts there are 216 · 216 groups, and we can
# sum over all of them. `pairs[i, j]` holds the rewards of the group of texts i and j, `chances[i, j]` its probability:

# %%
pairs = torch.stack(torch.broadcast_tensors(rewards[:, None], rewards), dim=-1)  # (216, 216, 2): rewards of groups
chances = probs[:, None] * probs  # (216, 216)


def expected(weigh):
    """The exact mean of the estimates from groups of two."""
    weighed = chances[..., None] * weigh(pairs) / 2
    return (weighed[..., 0].sum(1) + weighed[..., 1].sum(0)) @ grad_log_p

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
# The first two are unbiased. The group mean is leave-one-out times (samples − 1) / samples: the direction is right,
# and the learning rate can make up for the length. Group relative is **biased** in direction: if the rewards of a
# group are close together, it magnifies small differences. (Unlike the exact gradient, its length does not change
# with the unit of the rewards.)

# %% [markdown]
# ## 5. The loop
#
# Now we have all the parts: draw, reward, advantage, step. Here is a loop of the kind you find online. `draw` returns
# sequences and, since `generate()` can record them, their log probabilities.

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
# This is the message of lesson 08. A search engine suggests `recorded.requires_grad_()`, and with that the loop runs:

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
# `requires_grad_()` turned the recorded numbers into a separate leaf. The gradient ends there, and never reaches the
# model's weights.

# %% [markdown]
# ### Exercise 3: Repair a policy-gradient loop · difficulty 3 of 3 · 9 minutes
#
# Write the loop so that every update follows an estimate of the gradient **at the model's current weights**, with
# leave-one-out advantages. `gradients.sequence_log_probs(model, drawn)` is the second pass, with a gradient:
# (samples,).

# %% tags=["exercise"]
def train(model, optimizer, draw, reward, updates: int) -> list[float]:
    """Take `updates` policy-gradient steps; return the mean reward of the texts of each step."""
    raise NotImplementedError

# %% tags=["solution"]
def train(model, optimizer, draw, reward, updates: int) -> list[float]:
    """Take `updates` policy-gradient steps; return the mean reward of the texts of each step."""
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
# Two things were stale. The log probabilities have no gradient, so they cannot move anything. And the *texts*: after
# one update they come from a model that no longer exists, while ∇J is a mean over texts of the current one.

# %% tags=["check"]
lesson.check_train(train)

# %% [markdown] tags=["hints"]
# - Which of the two things that `draw` returns do you need?
# - The gradient is a mean over texts drawn from the *current* weights. Where must `draw` be called?
# - Inside the loop: draw, reward, second pass, loss, `zero_grad`, `backward`, `step`.

# %% [markdown]
# What are recorded log probabilities good for, then? To make several updates from one draw, we must correct for the
# change of the model by the factor p_now / p_drawn. They are needed in its denominator, without a gradient. GRPO does
# that, as did PPO (*proximal policy optimization*) before it, with one factor per token. Both clip it: once a token's
# probability has moved far enough in the direction of its advantage, it gets no more gradient.

# %% [markdown]
# ## 6. Through the token, after all
#
# Lesson 08 had links that carry a gradient *through* the choice: soft embeddings, straight-through and, with random
# noise, Gumbel-softmax. They require more of the reward: it must be defined *between* tokens, and have a derivative.
#
# Our table can be extended in this way: a mixture of tokens gets the mixture of their rewards. Then everything from
# the weights to the reward is differentiable. But what is it the reward of?

# %%
problem = gradients.Problem(toy, rewards.view(6, 6, 6))  # all of section 2, in one object
assert torch.allclose(problem.gradient, exact)
mixture = problem.relaxed_reward(gradients.soft, samples=1)
print(f"mean reward of drawn sequences: {problem.expected:.2f}")
print(f"reward of the soft sequence:    {mixture.item():.2f}")

# %% [markdown]
# The second step reads a mixture that no real sequence contains. Its reward is another function, and soft embeddings
# give the gradient of **that** function, exactly and without noise. Bias without noise is the opposite of REINFORCE.
#
# Gumbel-softmax is a random draw: softmax((logits + Gumbel noise) / temperature). The argmax of logits plus Gumbel
# noise is an exact draw from the softmax, and the temperature sets how far the mixture is from it. The *soft* form
# passes on the mixture, the *hard* form its argmax with straight-through. Here is the bias of the soft form, ± its
# standard error, and its noise:

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
# On this problem, less bias comes at the price of more noise. Here are 150 estimates of four kinds, as shots at a
# target: the black dot is the exact gradient, the rings are 1, 2, … of its lengths away, the cross is the mean of the
# shots. (Of 6,944 dimensions we draw two: the exact gradient points upwards, and the other is where soft embeddings
# miss.)

# %%
up = exact / exact.norm()
aside = problem.relaxed(gradients.soft, samples=1)
aside = torch.nn.functional.normalize(aside - (aside @ up) * up, dim=0)
shots = {}
for number in (1, 4, 6, 7):
    estimator = gradients.ESTIMATORS[number]
    count = 150 if estimator.name != "soft embeddings" else 1
    estimates = estimator.estimates(problem, 8, count, torch.Generator().manual_seed(0)) - exact
    shots[estimator.name] = [tuple(shot) for shot in (estimates @ torch.stack([aside, up]).T / exact.norm()).tolist()]
targets(shots, "Bias and noise of four estimators", "lengths of the exact gradient")

# %% [markdown]
# ## 7. Nine estimators compared
#
# Now we compare all of them, with eight texts per estimate, on **five** problems: five models and five tables of
# rewards, from seeds 0 to 4. The numbers of a single problem could be luck.

# %%
others = [gradients.Problem(toy_model(seed=seed), random_rewards(seed=seed)) for seed in range(1, 5)]
problems = [problem, *others]


def measured(estimator, problem, seed):
    draws = estimator.name not in ("soft embeddings", "straight-through, argmax")
    count = 2000 if estimator.advantage else 50 if draws else 2  # those through the token take longer
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
# Read this table with care. "Unbiased" is proven for every model and reward. The numbers are **measured** on five
# small random problems: each range goes from the lowest to the highest. And a mean over finitely many estimates is
# never exactly right, so even an unbiased estimator shows a small bias.
#
# How small? About its standard error. The bars extend two standard errors to each side. Each point is one problem.

# %%
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
# None of the other seven is unbiased: each is off by more than three standard errors on at least one problem. The two
# unbiased ones need only values of R, and pay with noise: those through the token have less noise on every problem.
# And straight-through on argmax is off by up to three times the gradient's own length.

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
# From 8 to 128 texts, sixteen times as many, the noise falls to about a quarter: one over the square root. What looks
# like a bias of leave-one-out is within its standard error. The bias of straight-through stays, many standard errors
# above 0.

# %% [markdown]
# Watch it happen: as estimates arrive, each estimator's mean moves *along* the exact gradient and *across* it, in
# multiples of its length. Does it come to rest at 1 along and 0 across? Start it, pause it, try another seed.

# %%
race = EstimatorRace(problem)
race.run(30)
race

# %% [markdown]
# ## 8. SmolLM2 learns a habit
#
# Lesson 08 began with a wish: texts without the letter *e*. Now we can train for it. The reward of a text is a count:
# plus one point for each word without an *e*, minus one for each word with an *e*. It has no derivative, and needs
# none.

# %%
import re


def points(text):
    words = re.findall("[a-z]+", text.lower())
    return sum(-1 if "e" in word else 1 for word in words)


points("born in a small town"), points("the sleepy village")

# %% [markdown]
# ### What is trained
#
# We train the last block and the final norm. Everything else is **frozen**, with `requires_grad` False: the blocks
# below, and the output head, which shares its weights with the input embedding. What does that save? Each trained
# weight needs a gradient and two running averages of AdamW, 4 bytes each in float32.

# %%
from course_utils.training import ProgressBar, sample, train_habit, trained_parts

every = sum(weight.numel() for weight in model.parameters())
trained = sum(weight.numel() for part in trained_parts(model) for weight in part.parameters())
print(f"all weights:  {every:,}, would need {every * 12 / 2**20:,.0f} MiB in addition to the model")
print(f"trained ones: {trained:,}, need {trained * 12 / 2**20:,.0f} MiB")

# %% [markdown]
# Also, what the frozen blocks compute need not be kept for the backward pass, since no gradient goes there. We count
# as in lesson 08, for one forward pass over 24 texts of seven tokens:

# %% tags=["nbval-ignore-output"]
def kept_mib():
    """MiB that autograd keeps for the backward pass, without parameters."""
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
# Here is one step, written out. It consists of what you have built: draw, reward, second pass, leave one out. Only
# `drawn.drawn` is new. It is False after a text's end, where there is padding that was not drawn:

# %%
asked = {"prompt": "She was", "new_tokens": 5, "temperature": 0.8}
drawn = sample(model, tokenizer, **asked, samples=24, seed=0)  # under no_grad, with no setting but the temperature
found = torch.tensor([float(points(text)) for text in drawn.texts])
advantages = gradients.leave_one_out(found).to(model.device)

new = drawn.sequences[:, drawn.prompt_length :]  # (24, 5)
logits = model(drawn.sequences).logits[:, drawn.prompt_length - 1 : -1] / asked["temperature"]
log_probs = logits.log_softmax(-1).gather(-1, new[..., None]).squeeze(-1).masked_fill(~drawn.drawn, 0)
(-(advantages * log_probs.sum(1)).mean()).backward()
print("weights with a gradient:", sum(w.grad.numel() for w in model.parameters() if w.grad is not None))
model.zero_grad()

# %% [markdown]
# Those are the trained weights. `optimizer.step()` would come next. (The optimizer is `torch.optim.AdamW`; what became
# of transformers' own is in the [appendix](appendix_version_map.ipynb).) `train_habit` does all of this eight times,
# with a new draw each time. It takes about half a minute. Before and after, the model writes 48 texts after this
# prompt, and 48 after a prompt that it is not trained on.

# %%
def written():
    prompts = ("She was", "The weather today")
    return {one: sample(model, tokenizer, **asked | {"prompt": one}, samples=48, seed=100) for one in prompts}


before = written()
run = {"steps": 8, "samples": 24, "learning_rate": 3e-4, "seed": 0}
habit = train_habit(model, tokenizer, points, **asked, **run, on_step=ProgressBar())
after = written()

# %% [markdown]
# We compare texts with the same prompt and the same seed, before and after. (Which texts you see depends on your
# machine.)

# %% tags=["nbval-ignore-output"]
for old, new in zip(before["She was"].texts[:10], after["She was"].texts[:10]):
    print(f"{old!r:42} {new!r}")
curves = {
    "mean points": [step.reward for step in habit.steps],
    "their standard deviation": [step.spread for step in habit.steps],
    "KL, nats a text": [5 * step.kl for step in habit.steps],
}
lines(range(1, 9), curves, "The run, step by step", "step", "")

# %% [markdown]
# The third curve says how far the distribution has moved. The **KL divergence** is the mean of log p_now − log p_before
# over what the model writes now: 0 if nothing has changed.

# %%
def mean(texts):
    return sum(map(points, texts)) / len(texts)


print("more than one point better:", mean(after["She was"].texts) > mean(before["She was"].texts) + 1)

# %% [markdown]
# Nobody showed the model a text without an *e*. It tried, and was told how well it did. But look at *how* it does it.
# How many texts still have an *e*? How much variety is left? And what of the other prompt?

# %% tags=["nbval-ignore-output"]
for prompt in before:
    for name, texts in (("before", before[prompt].texts), ("after", after[prompt].texts)):
        with_e = sum("e" in text.lower() for text in texts) / len(texts)
        starts = len({" ".join(text.split()[:2]) for text in texts})
        print(f"{prompt:17} {name:6} {mean(texts):4.1f} points, {with_e:.0%} with an e, {starts:2} beginnings")

# %% [markdown]
# The model learns what the reward asks for, not what we meant. The letter has become rarer, and has not gone. Few
# beginnings are left, since what earned points is repeated: this loss of variety is called **mode collapse**. (Every
# policy that has only the best texts left is a maximum of J. So this is no accident, it is what was asked for.) After
# the other prompt, less has changed in this run: a habit belongs mostly to the prompts that it was trained on.
# Where a high reward is earned *against* the intention, one speaks of **reward hacking**;
# [lesson 10](10_ppo_grpo.ipynb) has a real case, and what a penalty on the KL divergence does to it.

# %% [markdown]
# A run can also fail. First we undo the habit. Then we try a learning rate a thousand times larger, 0.3: the run
# stops and says why, and the model is unchanged.

# %%
habit.undo()
weights_before = [weight.clone() for weight in trained_parts(model)[0].parameters()]

# %% tags=["raises-exception"]
train_habit(model, tokenizer, points, **asked, steps=3, samples=6, learning_rate=0.3)

# %%
assert all(map(torch.equal, trained_parts(model)[0].parameters(), weights_before))

# %% [markdown]
# Rewards can be useless, too. Here all of them are equal, so no text is better than another:

# %% tags=["raises-exception"]
train_habit(model, tokenizer, lambda text: 1.0, **asked, samples=6)

# %% [markdown]
# ## 9. Which one?
#
# ### Exercise 4: four situations · difficulty 2 of 3 · 5 minutes
#
# Choose one option for each, then read the explanations, including those of the wrong options.

# %%
Quiz(lesson.situations)

# %% [markdown]
# ## Recap
#
# - Teacher forcing computes the log probability of a known answer in one forward pass. Make labels from the mask, or
#   the end is not learned.
# - A second pass computes the log probabilities of drawn texts, with the position ids, the mask and the temperature
#   of the draw.
# - For drawn texts R ∇log p has the mean ∇J. A baseline that does not depend on the text changes the noise but not
#   the mean; without a reward the mean is 0.
# - REINFORCE and leave-one-out are proven to be unbiased. Links through the token are biased, and need a derivative
#   of R.
# - Each update needs texts and log probabilities from the current weights.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `ForCausalLMLoss` in `transformers/loss/loss_utils.py` is the shifted loss that `labels` uses. Trainers for language
# models that use rewards are in a separate library, TRL: `RLOOTrainer` and `GRPOTrainer`.
#
# Next, [lesson 10](10_ppo_grpo.ipynb): what PPO and GRPO add when one draw serves several updates.
