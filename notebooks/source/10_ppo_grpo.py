# %% [markdown]
# # What do PPO and GRPO add?
#
# **By the end you will have judged each term of PPO's and GRPO's objective by the exact gradient, and you will know
# which terms correct an error, which only slow the model down, and which do nothing at all.**
#
# You will be able to
#
# - say what goes wrong when one draw serves several updates, and which ratio repairs it,
# - tell in which of four cases the clip removes a gradient, and why the clip is a brake and not a correction,
# - explain a loss that is 0 while the model learns, and a gradient of 0 that is a bug,
# - choose an estimate of the KL divergence for a number, for a loss and for a reward,
# - write GRPO's loss for a padded batch of two prompts, and find the usual bugs by their symptoms,
# - say what the clip and a KL do on a real model, and recognise a hacked reward.
#
# *80 minutes, and another 35 for the exercises. You need: lesson 09.*

# %% [markdown]
# ## 1. Texts grow old
#
# Lesson 09 drew texts, judged them, and took **one** step. With a real model the draw is the expensive part: it takes
# a forward pass for each token, an update takes one for all of them. So PPO and GRPO take several updates from one
# draw. After the first of them, the texts come from a model that no longer exists.
#
# **PPO** is *proximal policy optimization* (Schulman and others, 2017), the **policy** being the model. **GRPO** is
# *group relative policy optimization* (Shao and others, 2024): PPO without its second model. Where we say which library
# does what, we mean two that train language models this way, TRL and verl.

# %% [markdown]
# How much does that matter? Lesson 09's toy can tell us: six tokens, three steps, 216 texts, a table of rewards. This
# time we keep the log probability of each *token*:

# %%
import torch

from course_utils.gradients import TERMS, Problem, all_sequences, random_rewards, toy_model
from course_utils.lessons import lesson10 as lesson
from course_utils.plots import grouped_bars, heatmap, histogram, lines
from course_utils.widgets import EstimatorRace, Predict, Quiz

toy = toy_model()  # in float64
weights = list(toy.parameters())
sequences = all_sequences(6, 3)  # (216, 3)
rewards = random_rewards().flatten()  # (216,)


def token_log_probs():
    start = torch.zeros_like(sequences[:, :1])
    logits = toy(torch.cat([start, sequences[:, :-1]], dim=1)).logits
    return logits.log_softmax(-1).gather(-1, sequences[..., None]).squeeze(-1)  # (text, token)


tuple(token_log_probs().shape)

# %% [markdown]
# The exact gradient is that of the mean reward, summed over all texts. `move` takes plain steps along it:

# %%
def gradient(scalar):
    parts = torch.autograd.grad(scalar, weights, retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def exact():
    return gradient((token_log_probs().sum(1).exp() * rewards).sum())


def move(steps, size=0.01):
    for _ in range(steps):
        direction = exact().split([weight.numel() for weight in weights])
        with torch.no_grad():
            for weight, part in zip(weights, direction):
                weight += size * part.view_as(weight)

# %% [markdown]
# Now the **draw**: we keep its log probabilities, its probabilities, and the advantage of each text, here its reward
# less the mean reward. They are constants from now on.

# %%
old = token_log_probs().detach()  # (text, token)
p_old = old.sum(1).exp()  # (text,)
advantages = rewards - (p_old * rewards).sum()

# %% [markdown]
# Whatever objective we give each drawn text, its *expected* gradient is one backward pass: the probabilities of the
# draw are constants, so we sum over all texts instead of drawing. **That is our judge.** On a fresh draw, REINFORCE
# passes:

# %%
def expected(terms):  # (text,), one number for each text
    return gradient((p_old * terms).sum())


assert (expected(advantages * token_log_probs().sum(1)) - exact()).abs().max() < 1e-12

# %% [markdown]
# Now the model moves, and the texts stay. After each step we compare REINFORCE on the old texts with the exact
# gradient at the *new* weights. **Bias** is the length of the difference, in lengths of the exact gradient. The **KL
# divergence** says how far the model has moved.

# %%
def bias(terms):
    return ((expected(terms) - exact()).norm() / exact().norm()).item()


def divergence():
    now = token_log_probs().sum(1)
    return (now.exp() * (now - old.sum(1))).sum().item()


start = [weight.detach().clone() for weight in weights]
walked = []
for _ in range(9):
    walked.append((divergence(), bias(advantages * token_log_probs().sum(1))))
    move(1)
print([f"KL {far:.2f}: bias {off:.2f}" for far, off in walked[:4]])
lines(range(9), {"bias of REINFORCE": [off for _, off in walked], "KL": [far for far, _ in walked]},
      "The older the texts, the wronger the direction", "steps since the draw", "bias, KL")  # fmt: skip

# %% [markdown]
# After a single step the direction is off by a third of its length, after five by more than its whole length. Old
# texts need a correction.

# %% [markdown]
# ## 2. The ratio
#
# The correction for texts drawn from another distribution is as old as statistics: weigh each text by how much more
# likely it is now, ρ = p_new(text) / p_old(text). This is **importance sampling**, and ρ is the **ratio of the text**:
# the product of the ratios r of its tokens.
#
# PPO and GRPO use something else: each token's own ratio r, for that token's part. GSPO takes one number for the text
# again, the geometric mean of its tokens' ratios.

# %%
def log_ratio(kind):
    change = token_log_probs() - old  # (text, token)
    if kind == "text":
        return change.sum(1, keepdim=True)  # (text, 1)
    return change.mean(1, keepdim=True) if kind == "gspo" else change

# %%
Predict(lesson.predict_ratio)

# %% [markdown]
# The objective of a text is the ratio times the advantage, summed over what there is a ratio for. (GSPO's single
# number stands for three tokens, so it counts three times.)

# %%
def unclipped(kind):
    if kind == "none":
        return advantages * token_log_probs().sum(1)
    terms = log_ratio(kind).exp() * advantages[:, None]
    return terms.sum(1) * (3 if kind == "gspo" else 1)


def back():
    with torch.no_grad():
        for weight, value in zip(weights, start):
            weight.copy_(value)


def walk(objectives, judged, steps=9):
    """What `judged` says of each objective, step after step since the draw."""
    back()
    curves = {name: [] for name in objectives}
    for _ in range(steps):
        for name, terms in objectives.items():
            curves[name].append(judged(terms()))
        move(1)
    return curves

# %% tags=["answer"]
kinds = {"none": "no ratio", "token": "token", "gspo": "GSPO", "text": "text"}
biases = walk({name: lambda kind=kind: unclipped(kind) for kind, name in kinds.items()}, bias)
for name, curve in biases.items():
    print(f"{name:9} bias after 1, 3, 8 steps:", *(f"{curve[step]:.2f}" for step in (1, 3, 8)))
assert max(biases["text"]) < 1e-10
lines(range(9), biases, "Bias of each ratio", "steps since the draw", "bias")

# %% [markdown]
# Only the ratio of the whole text is exact, however far the model has moved. The token's ratio repairs a fifth of the
# error at first, and two fifths later. What is missing: a token's weight should also say how likely the tokens
# *before* it have become.

# %% [markdown]
# Why then does anybody use the token's ratio? The exact one pays with noise. It multiplies three numbers here, and a
# thousand in a real text. The **effective share** of the texts says how much of a sample is left when a few weights
# dominate:

# %%
back()
for steps in (0, 1, 2, 5, 12):  # each time that many more
    move(steps)
    ratio = log_ratio("text").exp().flatten().detach()
    share = (p_old * ratio).sum() ** 2 / (p_old * ratio.square()).sum()
    print(f"KL {divergence():.2f}: effective share {share:.2f}, mean ratio {(p_old * ratio).sum():.2f}")
back()

# %% [markdown]
# Summed over all texts, the mean ratio is always 1. Of a small sample it can be far from 1, and the more so the smaller
# the effective share.

# %% [markdown]
# ## 3. The clip
#
# The second idea of PPO: a token whose ratio has left 1 − ε to 1 + ε should not be pushed further. Its objective is
#
# min(r A, clip(r, 1 − ε, 1 + ε) A),
#
# to be made large. The minimum matters. Take ε = 0.2 and a text that was *good*, A = 1, with a token that has become
# half as likely, r = 0.5:

# %%
Predict(lesson.predict_case)

# %% [markdown]
# ### Exercise 1: Write the clipped objective · difficulty 2 of 3 · 8 minutes
#
# Return min(r A, clip(r, 1 − low, 1 + high) A) for each token. You get log probabilities, and one advantage a text.

# %% tags=["exercise"]
def clipped(log_probs, old, advantages, low: float = 0.2, high: float = 0.2) -> torch.Tensor:
    """Return the objective of each token, (text, token).

    log_probs, old: (text, token); advantages: (text,)
    """
    raise NotImplementedError

# %% tags=["solution"]
def clipped(log_probs, old, advantages, low: float = 0.2, high: float = 0.2) -> torch.Tensor:
    """Return the objective of each token, (text, token).

    log_probs, old: (text, token); advantages: (text,)
    """
    ratio = (log_probs - old).exp()
    weight = advantages[:, None]  # (text, 1): one number for all tokens of a text
    return torch.minimum(ratio * weight, ratio.clamp(1 - low, 1 + high) * weight)

# %% [markdown] tags=["solution"]
# `[:, None]` is not decoration. Without it, a vector of advantages is laid along the *tokens*, or does not fit at all.
# Section 4 shows what happens when it fits by accident.

# %% tags=["check"]
lesson.check_clipped(clipped)

# %% [markdown] tags=["hints"]
# - The ratio is p_new / p_old. What is that in log probabilities?
# - `advantages[:, None]` has the shape (text, 1), and is multiplied with every token of its text.
# - `torch.minimum(a, b)` compares element by element. `ratio.clamp(1 - low, 1 + high)` is the clipped ratio.

# %% [markdown]
# From here on, the cells use your function if it passes its check. Which gradient arrives at the log probability of a
# token, for a good text and for a bad one?

# %%
objective = lesson.usable_clipped(clipped)
ratios = torch.linspace(0.3, 2, 35, dtype=torch.float64)
arrives = {}
for name, sign in (("A = +1", 1.0), ("A = −1", -1.0)):
    log_probs = ratios.log()[:, None].requires_grad_()  # 35 texts of one token, p_old = 1
    objective(log_probs, torch.zeros_like(log_probs), torch.full((35,), sign, dtype=torch.float64)).sum().backward()
    arrives[name] = log_probs.grad.flatten().tolist()
lines(ratios.tolist(), arrives, "The gradient that arrives", "ratio r", "gradient at log p")

# %% [markdown]
# Two of four cases lose their gradient: a good text's token that is already *more* likely, and a bad text's token that
# is already *less* likely. What moved the right way, far enough, is left alone. What moved the wrong way keeps its
# gradient r A: without bound for a bad text, ever smaller for a good one.

# %% [markdown]
# So is the clip a correction for old texts? The sum over the tokens of your function is the objective of a text; for
# the text's ratio we give it the sums:

# %%
Predict(lesson.predict_clip)

# %% tags=["answer"]
def cosine(terms):
    return torch.cosine_similarity(expected(terms), exact(), dim=0).item()


objectives = {
    "no ratio": lambda: unclipped("none"),
    "token": lambda: unclipped("token"),
    "text": lambda: unclipped("text"),
    "token, clipped": lambda: objective(token_log_probs(), old, advantages).sum(1),
    "text, clipped": lambda: objective(token_log_probs().sum(1, True), old.sum(1, True), advantages).sum(1),
}
cosines = walk(objectives, cosine)
for name, curve in cosines.items():
    print(f"{name:15} cosine after 1, 3, 8 steps:", *(f"{curve[step]:5.2f}" for step in (1, 3, 8)))
lines(range(9), cosines, "Where each objective points (1: as the exact gradient)", "steps since the draw", "cosine")

# %% [markdown]
# **The result of this lesson: the clip is not a correction, it is a brake.** Once the model has moved a few steps along
# the reward, what the clip leaves points *against* the exact gradient. It has dropped the texts that moved as they
# should; those that moved the wrong way are left, and they pull back.

# %%
assert cosines["text"][8] > 1 - 1e-10 and cosines["token, clipped"][3] < -0.5 and cosines["text, clipped"][3] < -0.4

# %% [markdown]
# A brake is useful: with it, many updates on one draw cannot run away. We take 60 plain steps on each objective and
# look at the distance:

# %%
print(f"at the start: mean reward {(p_old * rewards).sum():.2f}")
for name in ("token", "token, clipped"):
    back()
    for _ in range(60):
        direction = expected(objectives[name]()).split([weight.numel() for weight in weights])
        with torch.no_grad():
            for weight, part in zip(weights, direction):
                weight += 0.01 * part.view_as(weight)
    mean = (token_log_probs().sum(1).exp() * rewards).sum().item()
    print(f"{name:15} KL {divergence():.2f}   mean reward {mean:.2f}")
back()

# %% [markdown]
# Both rise, and the one without a clip higher: a brake costs something. What it bounds is the KL of one draw. And the
# reversal belongs to moves along the reward. After moves in random directions the clip drops less:

# %%
back()
generator = torch.Generator().manual_seed(0)
for number in range(3):
    with torch.no_grad():
        for weight in weights:
            weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    print(f"KL {divergence():.2f}: cosine of the clipped objective {cosine(objectives['token, clipped']()):.2f}")
    back()

# %% [markdown]
# So far we summed over all texts. With eight drawn texts there is noise, too. Here are the terms live, three steps
# after the draw: which means come to rest at 1 along and 0 across, which on the wrong side of 0? Press Start for more
# estimates.

# %%
import copy

move(3)
race = EstimatorRace(Problem(copy.deepcopy(toy), rewards.view(6, 6, 6), old=toy_model()), TERMS)
back()
race.run(50)
race

# %% [markdown]
# The text's ratio is right and noisy. Each clip ends on the other side.

# %% [markdown]
# ## 4. A loss of 0
#
# Eight texts are drawn afresh, with leave-one-out advantages. What is the *value* of GRPO's loss before the first
# update?

# %%
Predict(lesson.predict_loss)

# %% tags=["answer"]
from course_utils.advantages import leave_one_out

torch.manual_seed(0)
drawn = torch.multinomial(p_old, 8, replacement=True)
weight = leave_one_out(rewards[drawn])  # (8,)
loss = -objective(token_log_probs()[drawn], old[drawn], weight).sum(1).mean()
reinforce = -(weight * token_log_probs()[drawn].sum(1)).mean()
print(f"loss below 1e-14: {abs(loss.item()) < 1e-14}, length of its gradient: {gradient(loss).norm():.2f}")
print(f"REINFORCE's loss: {reinforce.item():.3f}, length of its gradient: {gradient(reinforce).norm():.2f}")
assert (gradient(loss) - gradient(reinforce)).abs().max() < 1e-12

# %% [markdown]
# All ratios are 1, so the value is minus the mean advantage, and the advantages of a group sum to 0. The gradient is
# REINFORCE's, to the last digit. So with *one* update a draw, nothing of the ratio and the clip is in use. And a
# training curve that starts at 0 is no reason to worry. (With answers of unequal length and one mean over all tokens
# the value need not be 0: the advantages then do not weigh alike.)

# %% [markdown]
# There is a second zero, and it is a bug. An advantage of shape (8,) meets a ratio of one number a text, (8, 1):

# %%
text_ratio = (token_log_probs()[drawn].sum(1, keepdim=True) - old[drawn].sum(1, keepdim=True)).exp()  # (8, 1)
product = text_ratio * weight  # (8, 8): every text with every advantage
print(tuple(product.shape), f"loss 0: {abs(product.mean().item()) < 1e-14},",
      f"length of the gradient below 1e-10: {gradient(-product.mean()).norm().item() < 1e-10}")  # fmt: skip

# %% [markdown]
# No error, the same loss, and no gradient: the mean is a product of two means, and one of them is 0. **A loss of 0 is
# harmless; a gradient of length 0 is not.** Log the gradient's length.

# %% [markdown]
# ## 5. KL: an estimate is one thing, its gradient another
#
# To keep a model near a reference, GRPO adds an estimate of KL(p‖q), with p the model and q the reference. Only drawn
# texts are known, so it is estimated from d = log p − log q of each text. Three estimates are in use:
#
# k1 = d, k2 = d² / 2, k3 = e⁻ᵈ − 1 + d.

# %%
def k1(d): return d
def k2(d): return d.square() / 2
def k3(d): return (-d).exp() - 1 + d  # fmt: skip


move(3)  # p is three steps away from q
now, reference = token_log_probs().sum(1), old.sum(1)  # (text,)
p, d = now.detach().exp(), (now - reference).detach()
print(f"KL(p||q): {divergence():.4f}")
for estimate in (k1, k2, k3):
    values = estimate(d)
    mean = (p * values).sum()
    spread = ((p * values.square()).sum() - mean**2).sqrt()
    print(f"{estimate.__name__}: mean {mean:.4f}, standard deviation {spread:.2f}, below 0: {p[values < 0].sum():.0%}")

# %% [markdown]
# As numbers, k1 and k3 are right on average. k1 may be negative, which no KL is; k3 never is, and spreads less. So k3
# became popular. Here is k1 over 2,000 drawn texts:

# %%
torch.manual_seed(0)
sample = torch.multinomial(p, 2000, replacement=True)
histogram(k1(d)[sample].tolist(), "k1 of 2,000 drawn texts", "k1", marks={"KL": divergence()})

# %% [markdown]
# Now one of them becomes a *loss*. Its gradient should be that of KL(p‖q).

# %%
Predict(lesson.predict_k1)

# %% tags=["answer"]
wanted = gradient((now.exp() * (now - reference)).sum())  # of KL(p||q)


def compared(found):
    length = (found.norm() / wanted.norm()).item()
    return [length, torch.cosine_similarity(found, wanted, dim=0).item() if length > 1e-10 else None]


table = {}
for estimate in (k1, k2, k3):
    table[f"{estimate.__name__} as a loss"] = compared(gradient((p * estimate(now - reference)).sum()))
for estimate in (k1, k2, k3):
    table[f"{estimate.__name__} in the reward"] = compared(gradient((p * estimate(d) * now).sum()))
print("length and direction of each, beside the gradient of the KL:")
heatmap(list(table.values()), list(table), ["length", "cosine"], "Beside ∇KL(p‖q)", limits=(-1, 1))

# %% [markdown]
# k1 as a loss has **no** gradient on average: Σ p ∇log p is 0, lesson 09's case without a reward. k2 as a loss and k1
# in the reward are exact. k3 as a loss gives the gradient of the *other* divergence, KL(q‖p), which is close to it
# while p is near q. And k3 in the reward is nearly nothing, and points backwards.

# %%
other = gradient(-(p_old * now).sum())  # of KL(q||p)
assert table["k1 as a loss"][0] < 1e-10
assert (gradient((p * k2(now - reference)).sum()) - wanted).abs().max() < 1e-12
assert (gradient((p * k3(now - reference)).sum()) - other).abs().max() < 1e-12
assert (gradient((p * k3(d) * now).sum()) - (wanted - other)).abs().max() < 1e-12

# %% [markdown]
# An unbiased number is not an unbiased gradient: in the gradient the *distribution* moves, too, and a loss over drawn
# texts leaves that out. If a KL is asked for, TRL and verl put k3 into the loss; by default they use none.
#
# The same holds for the **entropy** H = −Σ p log p, which some trainers add to keep variety. The mean of −log p over
# drawn texts is H; as a loss it has no gradient. In the *reward*, −log p is right:

# %%
H = -(now.exp() * now).sum()
assert (gradient(H) - gradient((p * -now.detach() * now).sum())).abs().max() < 1e-12
print(f"entropy {H:.2f}; as a loss, a gradient of length below 1e-10: {gradient((p * -now).sum()).norm() < 1e-10}")

# %% [markdown]
# ## 6. What the loss is divided by
#
# Texts have different lengths, and there are three ways to average over their tokens. GRPO's paper takes the mean of
# each text, then the mean of those. DAPO, and TRL's and verl's default, is one mean over all tokens. Dr. GRPO divides
# by a constant. With T tokens in a text and G texts:
#
# | | what each token's term is divided by |
# | --- | --- |
# | each text (GRPO's paper) | G · T, of its own text |
# | all tokens (DAPO) | the sum of all T |
# | a constant (Dr. GRPO) | G · a fixed number, such as the longest T allowed |
#
# We need texts that end: in a second toy, token 3 is the end, and no text has more than four tokens.

# %%
def texts(prefix=()):
    if prefix and (prefix[-1] == 3 or len(prefix) == 4):
        return [prefix]
    return [text for token in range(4) for text in texts((*prefix, token))]


ending = toy_model(4, seed=4)
every = texts()
lengths = torch.tensor([float(len(text)) for text in every], dtype=torch.float64)
ids = torch.tensor([[*text, *[3] * (4 - len(text))] for text in every])  # (121, 4)
inside = (torch.arange(4) < lengths[:, None]).double()  # the mask
logits = ending(torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], 1)).logits
text_log_probs = (logits.log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1) * inside).sum(1)
chances = text_log_probs.detach().exp()
print(len(every), "texts, probabilities sum to", round(chances.sum().item(), 10))

# %% [markdown]
# Groups of two, all 121 × 121 of them. In a pair, a text's group advantage is half the difference of the rewards. Each
# average gives it a weight, and the expected gradient is again one backward pass:

# %%
torch.manual_seed(4)
score = torch.randn(121, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
half = (score[:, None] - score) / 2  # (text, its partner)


def of_pairs(weight):  # (text, partner)
    total = (chances * (weight * chances).sum(1) * text_log_probs).sum()
    parts = torch.autograd.grad(total, list(ending.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


right = torch.autograd.grad((chances * score * text_log_probs).sum(), list(ending.parameters()), retain_graph=True)
right = torch.cat([part.flatten() for part in right])
ways = {
    "a constant": half / 4,
    "all tokens": half * 2 / (lengths[:, None] + lengths),
    "each text": half / lengths[:, None],
}
found = {name: torch.cosine_similarity(of_pairs(weight), right, dim=0).item() for name, weight in ways.items()}
for name, number in found.items():
    print(f"divided by {name:11} cosine {number:.3f}")

# %% [markdown]
# Only the constant keeps the direction exactly. Divided by its own length, a wrong text of four tokens is pushed down a
# quarter as hard, token by token, as one of a single token: the loss is kinder to long wrong answers. Here that
# costs a tenth of the cosine.

# %%
assert found["a constant"] > 1 - 1e-12 and found["each text"] < found["all tokens"] < 1

# %% [markdown]
# ### And by the standard deviation
#
# GRPO also divides a group's advantages by their standard deviation. If rewards have only two values, right or wrong,
# that changes nothing but the length, and so how much each *prompt* counts. If they have more, it bends the direction:

# %%
for name, R in (("right or wrong", (score > 0.5).double()), ("any numbers", score)):
    apart = R[:, None] - R
    deviation = apart.abs() / 2**0.5 + 1e-4  # of a group of two
    exactly = torch.autograd.grad((chances * R * text_log_probs).sum(), list(ending.parameters()), retain_graph=True)
    exactly = torch.cat([part.flatten() for part in exactly])
    print(f"{name:15} cosine {torch.cosine_similarity(of_pairs(apart / 2 / deviation), exactly, dim=0):.3f}")

# %% [markdown]
# ## 7. Groups
#
# A **group** is the texts of *one* prompt. What if a batch of two prompts is taken for one group? The second prompt's
# rewards are 5 higher here, four texts each. We measure the noise of both ways:

# %%
back()
prompts = [Problem(toy, rewards.view(6, 6, 6)), Problem(toy, random_rewards(seed=1) + 5, start=1)]
both = sum(prompt.gradient for prompt in prompts) / 2


def noise(weigh, count=4000):
    generator = torch.Generator().manual_seed(0)
    texts = torch.stack([prompt.draw((count, 4), generator) for prompt in prompts], dim=1)  # (count, prompt, 4)
    found = torch.stack([prompt.rewards.flatten()[texts[:, n]] for n, prompt in enumerate(prompts)], dim=1)
    weights, estimates = weigh(found) / 8, 0
    for n, prompt in enumerate(prompts):
        table = torch.zeros(count, 216, dtype=torch.float64).scatter_add_(1, texts[:, n], weights[:, n])
        estimates = estimates + table @ prompt.scores
    return ((estimates - both).square().sum(1).mean().sqrt() / both.norm()).item()


print(f"advantages per prompt: noise {noise(leave_one_out):.1f}")
print(f"over the whole batch:  noise {noise(lambda found: leave_one_out(found.flatten(1)).view_as(found)):.1f}")

# %% [markdown]
# Both are unbiased; the symptom is noise alone, and it grows with the distance of the prompts.
#
# ### The critic that a group replaces
#
# PPO compares with no group but with a **critic**: a second model that predicts the reward from the text so far, so
# that each *token* has an advantage of its own. Here we can have a perfect critic, since we can sum over all texts.
# How much noise would it save, against four texts that are compared with each other?

# %%
back()
shares, table = p_old.view(6, 6, 6), rewards.view(6, 6, 6)
V = torch.empty(216, 4, dtype=torch.float64)  # the mean reward, given the first 0, 1, 2, 3 tokens of each text
for known in range(4):
    rest = tuple(range(known, 3))
    mean = (shares * table).sum(rest, True) / shares.sum(rest, True) if rest else table
    V[:, known] = mean.expand(6, 6, 6).flatten()
slopes = torch.stack([gradient(one) for one in token_log_probs().flatten()]).view(216, 3, -1)  # (text, token, weight)

# %%
def noise_of_four(advantage):  # (text, token)
    found = (advantage[..., None] * slopes).sum(1)
    return ((p_old * (found - exact()).square().sum(1)).sum() / 4).sqrt().item() / exact().norm().item()


group = prompts[0].score_function(leave_one_out, 4, 20_000, torch.Generator().manual_seed(0))
noises = {
    "nothing": noise_of_four(rewards[:, None].expand(216, 3)),
    "each other": ((group - exact()).square().sum(1).mean().sqrt() / exact().norm()).item(),
    "the exact mean": noise_of_four(rewards[:, None] - V[:, :1].expand(216, 3)),
    "reward − V": noise_of_four(rewards[:, None] - V[:, :3]),
    "next V − V": noise_of_four(V[:, 1:] - V[:, :3]),
}
grouped_bars({name: {"noise": round(number, 2)} for name, number in noises.items()}, "Compared with …", "noise")

# %% [markdown]
# Three others are a poor estimate of the mean: since these rewards lie around 0, comparing with nothing is even
# quieter. V, the critic's prediction, also knows how the text began. Quietest is the last row, where a token earns the
# change that it makes in the prediction. But this critic is perfect and cost nothing. A real one is trained beside the
# model and is wrong at first, and in the last row its errors are bias. GRPO's trade: more texts, and one model less.

# %%
assert noises["next V − V"] < noises["reward − V"] < noises["the exact mean"] < noises["nothing"] < noises["each other"]
#
# ### Groups that teach nothing
#
# If all rewards of a group are equal, every advantage is 0. With rewards of 0 and 1, and a prompt that the model solves
# with probability π, how many groups of eight teach nothing at π = 0.9?

# %%
Predict(lesson.predict_wasted)

# %% tags=["answer"]
solved = [number / 50 for number in range(51)]
wasted = {f"groups of {size}": [pi**size + (1 - pi) ** size for pi in solved] for size in (4, 8)}
print(f"at 0.9, groups of 8: {0.9**8 + 0.1**8:.0%}")
lines(solved, wasted, "Groups whose rewards are all equal", "probability of a right answer", "share")

# %% [markdown]
# Too easy and too hard prompts are paid for and teach nothing. They add no bias: the mean over all groups is still
# right. DAPO draws again until a group has both; TRL logs their share as `frac_reward_zero_std`.

# %% [markdown]
# ## 8. The whole loss
#
# ### Exercise 2: Write GRPO's loss · difficulty 3 of 3 · 15 minutes
#
# Two prompts, several texts each, padded answers. Put the parts together: `group_relative` advantages *per prompt*,
# the token's ratio with the clip, k3 against the reference with a weight, and one mean over all tokens of all
# answers. Rows 0 to G − 1 are the texts of the first prompt, the next G those of the second.

# %% tags=["exercise"]
from course_utils.advantages import group_relative


def grpo_loss(log_probs, old, reference, rewards, mask, clip: float = 0.2, kl_weight: float = 0.04) -> torch.Tensor:
    """Return the loss, one number, to be made small.

    log_probs, old, reference, mask: (text, token); the mask is 1 for tokens of the answer
    rewards: (prompt, group)
    """
    raise NotImplementedError

# %% tags=["solution"]
from course_utils.advantages import group_relative


def grpo_loss(log_probs, old, reference, rewards, mask, clip: float = 0.2, kl_weight: float = 0.04) -> torch.Tensor:
    """Return the loss, one number, to be made small.

    log_probs, old, reference, mask: (text, token); the mask is 1 for tokens of the answer
    rewards: (prompt, group)
    """
    weight = group_relative(rewards).flatten()[:, None]  # (text, 1)
    ratio = (log_probs - old).exp()
    objective = torch.minimum(ratio * weight, ratio.clamp(1 - clip, 1 + clip) * weight)
    d = log_probs - reference
    per_token = -objective + kl_weight * ((-d).exp() - 1 + d)
    return (per_token * mask).sum() / mask.sum()

# %% [markdown] tags=["solution"]
# The advantages are made per prompt *before* they are flattened. The mask stands in the numerator and in the
# denominator. `course_utils.objectives.policy_loss` is the same with every choice as a name.

# %% tags=["check"]
lesson.check_grpo_loss(grpo_loss)

# %% [markdown] tags=["hints"]
# - `group_relative(rewards)` works along the last dimension, so it compares the texts of one prompt. Flatten after it.
# - Work per token to the end: minus the clipped objective, plus the weight times k3, both (text, token).
# - One mean over all tokens: `(per_token * mask).sum() / mask.sum()`.

# %% [markdown]
# Now on a real model. Two prompts, padded on the left, four texts each; the reward is the number of commas. One test
# finds most bugs: **on a fresh draw, before any step, all ratios are 1, the loss is that of the advantages alone, and
# the gradient is REINFORCE's, and not 0.**

# %% tags=["nbval-ignore-output"]
from course_utils import load
from course_utils.masks import position_ids

grpo = lesson.usable_grpo_loss(grpo_loss)
model, tokenizer = load()
tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
batch = tokenizer(["She was", "I want to eat"], padding=True, return_tensors="pt").to(model.device)
torch.manual_seed(0)
whole = model.generate(**batch, do_sample=True, top_k=0, max_new_tokens=8, num_return_sequences=4)
answers = whole[:, batch.input_ids.shape[1] :]  # (8, 8)
ends = (answers == tokenizer.eos_token_id).int()
answer_mask = (ends.cumsum(1) - ends == 0).float().cpu()  # the first end counts, what follows does not
points = torch.tensor([float(text.count(",")) for text in tokenizer.batch_decode(answers)]).view(2, 4)
print(points.tolist())

# %%
def second_pass():
    prompt_mask = batch.attention_mask.repeat_interleave(4, 0)
    mask = torch.cat([prompt_mask, answer_mask.long().to(model.device)], 1)
    logits = model(whole, attention_mask=mask, position_ids=position_ids(mask)).logits
    picked = logits[:, -answers.shape[1] - 1 : -1].float().log_softmax(-1)
    return picked.gather(-1, answers[..., None]).squeeze(-1).cpu()  # (text, token)


now = second_pass()
before = now.detach()
last = list(model.model.layers[-1].parameters())
loss = grpo(now, before, before, points, answer_mask)
step = torch.cat([part.flatten() for part in torch.autograd.grad(loss, last, retain_graph=True)])
weight = group_relative(points).flatten()[:, None]
plain = -(weight * now * answer_mask).sum() / answer_mask.sum()
reinforce = torch.cat([part.flatten() for part in torch.autograd.grad(plain, last)])
assert step.norm() > 0 and torch.allclose(step, reinforce, atol=1e-6)
print("a gradient, and REINFORCE's")

# %% [markdown]
# ### Exercise 3: Diagnose six losses · difficulty 3 of 3 · 12 minutes
#
# Six losses, `lesson.losses["A"]` to `["F"]`, take `(log_probs, old, rewards, mask)`, with rewards (prompt, group), and
# return a number. One is right, five have a bug from real code. Measure: the value, the gradient on a fresh draw and
# after a move, with more padding, with other rewards. Then say which is which.

# %%
print(lesson.BUGS)
now = torch.tensor([[-1.0, -2.0], [-0.7, -3.0], [-0.4, -0.9], [-2.0, -1.0]], requires_grad=True)
for name, loss in lesson.losses.items():
    value = loss(now, now.detach(), torch.tensor([[1.0, 0], [3.0, 1]]), torch.tensor([[1.0, 1], [1, 0], [1, 1], [1, 1]]))
    print(name, f"{value.item():.3f}", "has a gradient" if value.requires_grad else "no gradient")

# %% tags=["exercise"]
diagnosis = None  # {"A": "right", "B": ..., ...}: a text of lesson.BUGS for each letter

# %% tags=["solution"]
diagnosis = {
    "A": "ratio reversed",
    "B": "right",
    "C": "mask missing in the mean",
    "D": "ratio detached",
    "E": "old log probabilities recomputed",
    "F": "advantages over the whole batch",
}

# %% [markdown] tags=["solution"]
# A: on a fresh draw its gradient is exactly minus B's. B passes all. C: after a move, more padding changes its value. D
# has no gradient at all, so `backward()` would raise. E: after a move its value is as on a fresh draw, since its ratio
# is always 1; it can neither correct nor brake. F: add 5 to the rewards of one prompt, and its value changes.

# %% tags=["check"]
lesson.check_diagnosis(diagnosis)

# %% [markdown] tags=["hints"]
# - Which loss has no gradient at all?
# - Compare the gradients on a fresh draw, `old = now.detach()`, with a mask of ones. One is the opposite of the others.
# - Now let `old` differ from `now`. One loss does not notice, and one changes if you add a column of padding with
#   mask 0.
# - An easier prompt has higher rewards for all its texts. Add 5 to one row of the rewards: only one loss minds.

# %% [markdown]
# ## 9. On a real model
#
# `train_habit`, lesson 09's run, takes all of this by name: `Objective` holds the advantage, the ratio, the clip, the
# average and the KL. Two prompts, three draws, four updates for each draw, with the points of lesson 09: one for each
# word without an *e*, minus one for each other. We compare three seeds, and watch a third prompt that is not trained
# on. (Each run takes about ten seconds.)

# %%
import re

from course_utils.objectives import Objective
from course_utils.training import sample, train_habit


def no_e(text):
    return sum(-1 if "e" in word else 1 for word in re.findall("[a-z]+", text.lower()))


def mean_of(reward, prompt, **settings):
    texts = sample(model, tokenizer, prompt, samples=16, seed=100, **settings).texts
    return sum(map(reward, texts)) / 16, texts

# %% tags=["nbval-ignore-output"]
settings = {"new_tokens": 5, "temperature": 0.8}
print(f"'They saw', before: {mean_of(no_e, 'They saw', **settings)[0]:.1f}")
kl = {"no clip": [], "clip": []}
for seed in range(3):
    for name, limits in (("no clip", None), ("clip", (0.2, 0.2))):
        run = train_habit(
            model, tokenizer, no_e, ["She was", "He had"], **settings, steps=3, samples=8, updates=4, seed=seed,
            objective=Objective(clip=limits),
        )  # fmt: skip
        kl[name].append(5 * run.steps[-1].kl)  # a token's, from the model before the run; five tokens a text
        held_out = mean_of(no_e, "They saw", **settings)[0]
        rewards_seen = " to ".join(f"{step.reward:4.1f}" for step in run.steps)
        print(f"seed {seed} {name:8} points {rewards_seen}  KL {kl[name][-1]:3.1f} nats a text  'They saw' {held_out:.1f}")
        run.undo()

# %%
assert sum(kl["clip"]) < sum(kl["no clip"])

# %% [markdown]
# On the real model, too, the clip is a brake: the KL of the run is smaller with it. Whether the points rise more with
# it or without differs from seed to seed, and so does the third prompt: its mean of 16 texts moves by less than the
# means of two seeds differ. Three seeds cannot say.
#
# ### A reward is hacked
#
# Suppose that we want lists, and reward commas. Twelve texts of eight tokens, six draws, four updates each; first
# without a KL, then with k1 in the reward, weight 0.5. (What `Objective` is not told it takes as the token's ratio, a
# clip of 0.2 and leave-one-out, in both runs.)

# %% tags=["nbval-ignore-output"]
def commas(text):
    return text.count(",")


asked = {"new_tokens": 8, "temperature": 1.0}
ways, far = {}, []
print(f"before   {mean_of(commas, 'I like', **asked)[0]:.1f} commas a text")
for name, weight in (("no KL", 0.0), ("KL, 0.5", 0.5)):
    run = train_habit(
        model, tokenizer, commas, "I like", **asked, steps=6, samples=12, updates=4, learning_rate=1e-3,
        objective=Objective(kl_weight=weight),
    )  # fmt: skip
    far.append(run.steps[-1].kl)
    ways[f"commas, {name}"] = [step.reward for step in run.steps]
    ways[f"KL a token, {name}"] = [step.kl for step in run.steps]
    found, texts = mean_of(commas, "I like", **asked)
    print(f"{name:8} {found:.1f} commas a text:", *map(repr, texts[:4]), sep="\n   ")
    run.undo()
lines(range(1, 7), ways, "Commas as a reward", "draw", "commas a text, KL a token")

# %%
assert far[1] < far[0]

# %% [markdown]
# Without a KL the model has found out what pays: commas, not lists. With it the texts stay texts, and the commas rise
# less. The KL cannot tell the cheat from the wish; it holds both back. What helps is a better reward, and reading what
# is written: **look at the texts, not only at the curve.**

# %% [markdown]
# ## Recap
#
# - **Several updates a draw** make the texts old. Only the ratio of the whole text corrects it exactly, and pays with
#   noise; the token's ratio corrects a part.
# - **The clip** drops what moved the right way, far enough. It is a brake, not a correction: after some steps
#   along the reward, what it leaves points backwards.
# - **A loss of 0** is what a fresh draw gives, if texts weigh alike. A gradient of 0 is a bug.
# - **KL:** k1 in the reward or k2 as a loss give its gradient; k3 as a loss that of the other divergence; k1 as a loss
#   nothing.
# - **Averages:** a constant keeps the direction; each text's own length favours short right and long wrong answers.
# - **Groups:** advantages are made per prompt. A group of equal rewards teaches nothing.
# - **A KL** holds a hacked reward back, and what you wanted as well.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# Read the loss in a library, with this lesson's names: in TRL, `trl/trainer/grpo_trainer.py`, `_compute_loss` (`coef_1`
# is the ratio, `coef_2` the clipped one, `per_token_kl` is k3); in verl, `verl/trainer/ppo/core_algos.py`. Both default
# to ε = 0.2, no KL, one mean over all tokens, and advantages divided by the standard deviation; TRL takes one update a
# draw. `course_utils/objectives.py` has every term of this lesson as a named choice.
#
# Next, [lesson 11](11_chat.ipynb): how a chat becomes one text.
