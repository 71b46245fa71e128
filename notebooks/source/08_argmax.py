# %% [markdown]
# # Why does argmax break gradients?
#
# **By the end you will have a table of every tensor between a weight and the loss of a generated text, and know the
# three places where the gradient stops.**
#
# You will be able to
#
# - name the three cuts, and show each of them on a running model,
# - say what you gain by removing `no_grad` from `generate()`, and what you do not,
# - plot a loss along one weight and see why argmax has no useful derivative,
# - replace the cut by a link that carries a gradient, and say what the model then reads,
# - compare the memory that two ways of getting a gradient need.
#
# *50 minutes, and 25 more for the exercises. You need: lessons 05 and 07, and `backward()` in PyTorch.*

# %% [markdown]
# ## 1. The wish
#
# We want a model to write texts without the letter *e*. So we let it write, and define the **loss** as the share of
# tokens that contain an *e*. If that loss has a gradient, an optimizer can do the rest.

# %% [markdown]
# The model has GPT-2's architecture and random weights. The cuts that we look for are made by the code, whatever the
# weights are. The model computes in float64, so that we can see small differences.

# %%
import inspect
import itertools

import torch

from course_utils import load
from course_utils.lessons import lesson08 as lesson
from course_utils.widgets import GradientLink, Predict, Quiz

model, tokenizer = load("tiny-gpt2")
model = model.double()
prompt = tokenizer("Today is", return_tensors="pt").to(model.device)
costs = torch.tensor([float("e" in tokenizer.decode(token)) for token in range(len(tokenizer))])
costs = costs.to(model.device, torch.float64)  # (vocab,): 1 where the token contains an "e"

# %%
asked = {"do_sample": False, "max_new_tokens": 4, "pad_token_id": tokenizer.eos_token_id}
sequences = model.generate(**prompt, **asked)
loss = costs[sequences[:, 2:]].mean()
print(repr(tokenizer.decode(sequences[0, 2:])), "loss", loss.item())

# %% tags=["raises-exception"]
loss.backward()

# %% [markdown]
# There is no gradient. The error says that the loss was not computed from anything that *requires* one. Somewhere
# between the weights and this number the path of the gradient was cut. Where? Here is the whole road, two steps long,
# with the three places that we are going to find:
#
# ![From a weight to the loss of a generated text, with the three places where the gradient
# stops](images/three_cuts.svg)

# %% [markdown]
# ## 2. The first cut: a decorator
#
# `generate()` is decorated with `@torch.no_grad()`. We look from inside, with a logits processor that prints what it
# sees, and enable gradients around the call:

# %%
def spy(input_ids, scores):
    print("gradients on:", torch.is_grad_enabled(), "  processed scores require a gradient:", scores.requires_grad)
    return scores


with torch.enable_grad():
    output = model.generate(**prompt, **asked | {"max_new_tokens": 1}, logits_processor=[spy])

# %% [markdown]
# The innermost setting wins: the decorator disables gradients when `generate()` begins. We can remove it: each
# decorator keeps the function inside it as `__wrapped__`, and `inspect.unwrap` follows these down to the undecorated
# function.

# %%
bare = inspect.unwrap(type(model).generate)
output = bare(model, **prompt, **asked | {"max_new_tokens": 1}, logits_processor=[spy])

# %% [markdown]
# Now the processed scores carry a gradient. Is our wish fulfilled?

# %%
Predict(lesson.predict_wrapped)

# %% tags=["answer"]
recorded = bare(model, **prompt, **asked, return_dict_in_generate=True, output_logits=True)
print("what the undecorated call returns, and the function that made it:")
print("logits[0]:", type(recorded.logits[0].grad_fn).__name__, recorded.logits[0].dtype)
print("sequences:", type(recorded.sequences.grad_fn).__name__, recorded.sequences.dtype)
print("the loss requires a gradient:", costs[recorded.sequences[:, 2:]].mean().requires_grad)

# %% [markdown]
# The logits carry a gradient, in the float32 copy that `generate()` returns. The sequences carry none, and our loss
# is computed from the sequences: `backward()` fails as before. **Removing the decorator does not solve the problem.**
# And code that worked before may now fail, since PyTorch refuses to convert a tensor that requires a gradient into a
# NumPy array:

# %% tags=["raises-exception"]
recorded.logits[0].cpu().numpy()

# %% [markdown]
# The message names the cure. `detach()` gives the same values without the record of where they came from. It is a cut
# that you make on purpose.

# %% [markdown]
# ## 3. The second cut: an integer
#
# One line turns logits into a token. Here it is on its own:

# %%
logits = model(**prompt).logits[:, -1]  # (batch, vocab)
token = logits.argmax(-1)  # (batch,)
print(logits.dtype, logits.requires_grad, "->", token.dtype, token.requires_grad)

# %% [markdown]
# Can we make PyTorch track it anyway?

# %% tags=["raises-exception"]
token.requires_grad_()

# %% [markdown]
# A derivative says how far the output moves if we move the input a little. An integer cannot move a little. Sampling
# does not help: `torch.multinomial` returns an integer as well.

# %%
drawn = torch.multinomial(logits.softmax(-1), 1)
print(drawn.dtype, drawn.grad_fn)

# %% [markdown]
# Does the **attention mask** cut as well? It is made of integers, too. We pad the prompt, since a mask of ones is
# dropped:

# %%
padded = torch.nn.functional.pad(prompt.input_ids, (2, 0))  # two padding tokens on the left
mask = torch.nn.functional.pad(prompt.attention_mask, (2, 0))
masked = model(padded, attention_mask=mask).logits[:, -1]  # (batch, vocab)
(arrives,) = torch.autograd.grad(masked.sum(), model.transformer.h[0].attn.c_attn.weight)
print("a gradient arrives at the first layer:", bool(arrives.norm() > 0), "  their argmax:", masked.argmax(-1).requires_grad)

# %% [markdown]
# ## 4. The third cut: a look-up
#
# The mask is no cut: it is a constant that is added to the attention scores, and the way from the weights to the logits
# does not lead through it. The way to the loss does lead through the token.
#
# The token goes back into the model, which looks up a row of its embedding matrix. That row is floating point again
# and has a `grad_fn`. Is the path intact from there on?

# %%
embeddings = model.get_input_embeddings().weight  # (vocab, width)
looked_up = torch.nn.functional.embedding(token, embeddings)  # (batch, width)
print(looked_up.grad_fn.name())
print([edge[0].name() for edge in looked_up.grad_fn.next_functions])

# %% [markdown]
# `next_functions` are the edges along which a gradient goes back. There is one, and it leads to the **matrix**
# (`AccumulateGrad` stores the gradient there). None leads to the token: a row number is not a quantity.

# %% [markdown]
# The same look-up can be written as a product, which has two edges: a row of zeros with a single 1, times the matrix,
# selects a row. Where does the first edge lead with this one-hot row, and where with the probabilities?

# %%
one_hot = torch.nn.functional.one_hot(token, len(embeddings)).double()  # (batch, vocab)
picked = one_hot @ embeddings  # (batch, width)
assert torch.equal(picked, looked_up)

mixture = logits.softmax(-1) @ embeddings  # (batch, width)
for product in (picked, mixture):
    print([edge[0].name() if edge[0] else None for edge in product.grad_fn.next_functions])

# %% [markdown]
# With the one-hot row it leads nowhere. With the probabilities instead, it leads back to the softmax. But the next
# step then reads a **mixture** of all embeddings: a vector that belongs to no token, like lesson 04's points between
# France and Germany.

# %% [markdown]
# ## 5. Every tensor on the way
#
# Now the whole path, two steps long. To keep the steps apart, step 1 uses a copy of the model: a gradient at the
# copy's weight can then only have come through what step 1 passed on.

# %%
import copy

first, second = copy.deepcopy(model), model
weight = first.transformer.h[-1].mlp.c_proj.weight  # one matrix of step 1


def road(link):
    """Every tensor from the weight to the loss; `link` turns logits into a token or its replacement."""
    tensors = {"weight": weight}
    tensors["hidden"] = first.transformer(**prompt).last_hidden_state[:, -1]  # (batch, width)
    tensors["logits"] = first.lm_head(tensors["hidden"])  # (batch, vocab)
    tensors["token"] = link(tensors["logits"])  # (batch,) of integers, or (batch, vocab)
    table = second.get_input_embeddings().weight
    soft = tensors["token"].is_floating_point()
    tensors["embedding"] = tensors["token"] @ table if soft else table[tensors["token"]]  # (batch, width)
    inputs = torch.cat([table[prompt.input_ids], tensors["embedding"][:, None]], dim=1)
    tensors["logits of step 2"] = second(inputs_embeds=inputs).logits[:, -1]
    tensors["token of step 2"] = link(tensors["logits of step 2"])
    costs_of = tensors["token of step 2"] @ costs if soft else costs[tensors["token of step 2"]]
    tensors["loss"] = costs_of.mean()
    return tensors

# %% [markdown]
# For each tensor we print its type, whether it requires a gradient, the function that created it, and whether a
# gradient arrives at the weight if we go back from there. (Each tensor is multiplied by fixed random numbers and
# summed, since the backward pass starts from a single number.)

# %%
def report(tensors):
    torch.manual_seed(0)
    print("tensor            type     grad?  made by                gradient at the weight")
    for name, tensor in tensors.items():
        arrives = "-"
        if tensor.requires_grad:
            number = (tensor * torch.randn_like(tensor)).sum()
            (gradient,) = torch.autograd.grad(number, weight, retain_graph=True, allow_unused=True)
            arrives = "none" if gradient is None else "yes" if gradient.norm() > 0 else "zero"
        made_by = type(tensor.grad_fn).__name__.removesuffix("0") if tensor.grad_fn else "-"
        kind = str(tensor.dtype).removeprefix("torch.")
        print(f"{name:17} {kind:8} {tensor.requires_grad!s:6} {made_by:22} {arrives}")

# %%
Predict(lesson.predict_embedding)

# %% tags=["answer"]
report(road(lambda logits: logits.argmax(-1)))

# %% [markdown]
# This is the table. From tensors up to the logits, a gradient arrives. The **token** requires none. The next two
# tensors *look* connected again: they require a gradient and have a `grad_fn`. But no gradient from them arrives at
# step 1's weight. The loss requires none at all, because its cost is looked up, too.

# %% [markdown]
# With the softmax in place of the token, nothing is cut. But step 2 reads a mixture, so this loss is not the loss of
# a text:

# %%
report(road(lambda logits: logits.softmax(-1)))

# %% [markdown]
# ### Exercise 1: Find the line that cuts · difficulty 2 of 3 · 8 minutes
#
# Five snippets compute a loss. In each, one line cuts it off from the `logits` of line 1: from there on, no gradient
# leads back to them. Which line is it? `model`, `prompt`, `costs` and `embeddings` are those from above.

# %%
for name, snippet in lesson.SNIPPETS.items():
    print(f"--- {name}")
    print("\n".join(f"{number}  {line}" for number, line in enumerate(snippet.splitlines(), 1)))

# %% tags=["exercise"]
cuts = ...  # a dictionary from the name of a snippet to a line, such as {"A": 1, ...}

# %% tags=["solution"]
cuts = {"A": 2, "B": 3, "C": 2, "D": 4, "E": 3}

# %% [markdown] tags=["solution"]
# A: `.detach()` cuts explicitly. B: argmax returns an integer, and `costs[token]` is a look-up. C: `.tolist()` makes
# Python numbers, and a tensor made from them has no history. D: `requires_grad=True` silences the error, but the
# gradient goes to a new leaf that nobody trains. E: `argmin` returns an integer, as argmax does.

# %% tags=["check"]
lesson.check_cuts(cuts)

# %% [markdown] tags=["hints"]
# - Go through a snippet and ask at each line: is the result a float that was *computed* from floats that depend on
#   `logits`?
# - Integers, Python numbers and new tensors have no record of where they came from.
# - `max(-1).values` and `gather` do pass gradients on, to the numbers that they picked.

# %% [markdown]
# ## 6. The loss along one weight
#
# Is this PyTorch's fault? Could a cleverer framework differentiate argmax? We look at the loss itself. We move one
# weight, a bias of the final norm, and for each value the model writes its two tokens again:

# %%
bias = model.transformer.ln_f.bias
at_rest = bias[0].item()


@torch.no_grad()
def loss_at(move, step_loss):
    """The loss with the bias moved."""
    bias[0] = at_rest + move
    value = step_loss().item()
    bias[0] = at_rest
    return value


def two_steps(link):
    """The mean cost of two tokens, each made from its logits by `link`: (batch, vocab)."""
    inputs, total = embeddings[prompt.input_ids], 0
    for _ in range(2):
        token = link(model(inputs_embeds=inputs).logits[:, -1])
        total = total + (token @ costs).mean() / 2
        inputs = torch.cat([inputs, (token @ embeddings)[:, None]], dim=1)
    return total


def hard(logits):
    return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).double()

# %%
Predict(lesson.predict_flat)

# %% tags=["answer"]
print("101 values of the weight, the loss through argmax:")
moves = [step / 25 for step in range(-50, 51)]
through_argmax = [loss_at(move, lambda: two_steps(hard)) for move in moves]
changes = sum(here != there for here, there in itertools.pairwise(through_argmax))
print(f"{len(set(through_argmax))} different values; it changes between {changes} of 100 neighbours")

# %% [markdown]
# For comparison, we replace argmax by the softmax, sharpened by a temperature of 0.1:

# %%
from course_utils.plots import lines


def softmax(logits):
    return (logits / 0.1).softmax(-1)


through_softmax = [loss_at(move, lambda: two_steps(softmax)) for move in moves]
curves = {"argmax": through_argmax, "softmax": through_softmax}
lines(moves, curves, "The loss of two tokens along one weight", "the weight is moved by", "loss")

# %% [markdown]
# Through argmax the loss is **flat, with cliffs**. The same is true along every weight: two tokens can cost 0, 0.5 or
# 1 and nothing in between, so the loss either stays the same or jumps. On a flat piece its derivative is exactly 0,
# which is correct and useless; at a cliff it does not exist. The softmax gives a smooth curve, but of another loss.

# %% [markdown]
# Finite differences say the same. Here is (loss(w + h) − loss(w − h)) / 2h, on a flat piece and across a cliff:

# %%
def finite_difference(step_loss, at, h):
    return (loss_at(at + h, step_loss) - loss_at(at - h, step_loss)) / (2 * h)


jump = next(i for i in range(100) if through_argmax[i] != through_argmax[i + 1])
below, above = moves[jump], moves[jump + 1]
for _ in range(20):  # halve the interval that contains the jump
    middle = (below + above) / 2
    same = loss_at(middle, lambda: two_steps(hard)) == through_argmax[jump]
    below, above = (middle, above) if same else (below, middle)
for h in (0.1, 0.01, 0.001):
    flat, across = (finite_difference(lambda: two_steps(hard), at, h) for at in (1.0, below))
    print(f"h = {h}:  flat {flat:.1f}   across the cliff {across:.1f}")

# %% [markdown]
# On the flat piece it is 0. Across the cliff it grows tenfold with each row, and has no limit. Through the softmax
# there is a limit, and autograd gives the same number:

# %%
expected = two_steps(softmax)
by_autograd = torch.autograd.grad(expected, bias)[0][0].item()
by_difference = finite_difference(lambda: two_steps(softmax), 0.0, 1e-5)
print("relative difference below 0.0001:", abs(by_difference / by_autograd - 1) < 1e-4)

# %% [markdown]
# So PyTorch is not to blame. If the loss has a slope to follow, autograd finds it. Through argmax the slope is 0 or
# does not exist, and autograd has no path to follow: `backward()` raises.

# %% [markdown]
# ## 7. Links that carry a gradient
#
# To get a gradient through the choice, we have to *change what is computed*. The best-known trick keeps the hard
# token in the forward pass and uses the softmax's gradient in the backward pass. It is called **straight-through**.

# %% [markdown]
# ### Exercise 2: Write the straight-through estimator · difficulty 3 of 3 · 8 minutes
#
# Return a tensor (batch, vocab) whose *value* is the one-hot row of the most likely token, and whose *gradient* is
# that of the softmax. `tensor.detach()` has the same value and no gradient; you need it only once.

# %% tags=["exercise"]
def straight_through(logits: torch.Tensor) -> torch.Tensor:
    """Return one-hot rows as the value, with the gradient of the softmax."""
    raise NotImplementedError

# %% tags=["solution"]
def straight_through(logits: torch.Tensor) -> torch.Tensor:
    """Return one-hot rows as the value, with the gradient of the softmax."""
    probs = logits.softmax(-1)
    one_hot = torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs.dtype)
    return one_hot + (probs - probs.detach())

# %% [markdown] tags=["solution"]
# The value of `probs - probs.detach()` is 0, so the one-hot row remains. (Without the parentheses Python adds from the
# left, and rounding leaves rows that are not exactly one-hot.) For the gradient, `one_hot` and the detached
# part are constants, so only `probs` counts. `(one_hot - probs).detach() + probs` does the same.

# %% tags=["check"]
lesson.check_straight_through(straight_through)

# %% [markdown] tags=["hints"]
# - You want x with the value of `one_hot` and the gradient of `probs`.
# - `probs - probs.detach()` has the value 0 and the gradient of `probs`.
# - Add that to the one-hot rows, and note that `one_hot` returns integers.

# %% [markdown]
# Here are several links between two steps of a small model; Gumbel-softmax is the softmax of the logits plus Gumbel
# noise. Choose a link, move the weight, and watch the loss, the slope that autograd reports, and the chain of
# tensors. The chain shows the gradient of the *loss* at each tensor; the table in section 5 showed the gradient of
# each tensor at the weight.

# %% [markdown]
# The loss here is a different one: the surprise of token 5 after the second step. It is computed from that step's
# logits, without a choice. So even with argmax it requires a gradient, which goes back as far as the embedding.

# %%
GradientLink()

# %% [markdown]
# Note what straight-through does on the flat pieces: it reports a slope where there is none. That slope is a guess.
# It is not the slope of the softmax curve either, since step 2 reads the hard token and not the mixture. Lesson 09
# measures how good such guesses are, compared with an exact gradient.

# %% [markdown]
# ## 8. What the undecorated call is good for
#
# Back to the undecorated `generate()`. Its logits did carry a gradient. The log probability of the tokens that it
# chose is a function of the weights, so we can differentiate that:

# %%
recorded = bare(model, **prompt, **asked, return_dict_in_generate=True, output_logits=True)
chosen = recorded.sequences[:, 2:]
log_probs = torch.stack(recorded.logits, dim=1).log_softmax(-1)  # (batch, new, vocab)
by_generate = log_probs.gather(-1, chosen[..., None]).sum()
gradient = torch.autograd.grad(by_generate, list(model.parameters()))
print("parameters with a gradient:", len(gradient), "of", len(list(model.parameters())))

# %%
Predict(lesson.predict_teacher)

# %% tags=["answer"]
print("compared with one forward pass over the finished text:")
scored = model(recorded.sequences[:, :-1]).logits[:, 1:].log_softmax(-1)  # (batch, new, vocab)
by_forward = scored.gather(-1, chosen[..., None]).sum()
again = torch.autograd.grad(by_forward, list(model.parameters()))
apart = sum((one - other).square().sum() for one, other in zip(gradient, again, strict=True)) ** 0.5
size = sum(one.square().sum() for one in again) ** 0.5
print("relative difference below 0.000001:", (apart / size).item() < 1e-6)

# %% [markdown]
# The gradient is the same, up to the rounding of the float32 copy. Computing the log probability of a given text in
# this way is called **teacher forcing**.

# %% [markdown]
# This gradient says how to make *these* tokens more or less likely. It does not say how the choice would change, and
# it has nothing to do with our *e*. To get it, you need only one forward pass over the text, which gives the log
# probabilities of all tokens at once.

# %% [markdown]
# What do the two ways cost? PyTorch keeps tensors for the backward pass. We record their shapes and their memory on
# SmolLM2, leaving out the parameters:

# %%
def kept_for_backward(run, parameters):
    """(shape, MiB) of each tensor that autograd keeps for `run()`, without parameters, and what it returns."""
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor.shape, storage.nbytes() / 2**20
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()  # kept alive, so that no memory is counted twice
    return list(kept.values()), result

# %%
Predict(lesson.predict_memory)

# %% tags=["answer", "nbval-ignore-output"]
print("MiB kept for the backward pass, by generating with gradients and by one forward pass:")
smollm, words = load()
story = words("Once upon a time", return_tensors="pt").to(smollm.device)
options = {"do_sample": False, "pad_token_id": 2, "return_dict_in_generate": True, "output_logits": True}
sizes, kept_by = {"generating": [], "one forward pass": []}, {}
for new in (8, 16, 32):
    options |= {"min_new_tokens": new, "max_new_tokens": new}
    generating, written = kept_for_backward(lambda: bare(smollm, **story, **options), smollm.parameters())
    text = written.sequences[:, :-1]
    scoring, _ = kept_for_backward(lambda: smollm(text, logits_to_keep=new), smollm.parameters())
    generated, scored = (sum(mib for _, mib in kept) for kept in (generating, scoring))
    print(f"{new:2} tokens: {generated:.0f} and {scored:.0f}")
    assert generated > scored
    sizes["generating"].append(generated)
    sizes["one forward pass"].append(scored)
    kept_by[new] = {"generating": generating, "one forward pass": scoring}
lines((8, 16, 32), sizes, "Kept for the backward pass", "new tokens", "MiB")

# %% [markdown]
# Generating keeps more, and the gap widens. Keys and values have the shape (batch, head, length, size). Which lengths
# were kept for the 16 tokens?

# %% tags=["nbval-ignore-output"]
for name, kept in kept_by[16].items():
    print(f"{name}:", sorted({shape[2] for shape, _ in kept if len(shape) == 4 and shape[2] > 1}))

# %% [markdown]
# On a CPU, that is. (A GPU's attention keeps them in another shape.) Every step concatenates the cache into a new
# tensor, and each copy is kept. Hence the rule: **generate without
# gradients, then compute the log probabilities of the text with one forward pass.**
#
# "Without gradients" means `no_grad`, as `generate()` does it. The stricter `torch.inference_mode()` is a trap here:
# what is made under it can never be saved for a backward pass, not even ids.

# %% tags=["raises-exception"]
with torch.inference_mode():
    ids = model.generate(**prompt, **asked)
model(ids)

# %% [markdown]
# A copy made outside, `ids.clone()`, is an ordinary tensor again.

# %%
model(ids.clone()).logits.requires_grad

# %% [markdown]
# ### Exercise 3: Compute a log probability with a gradient · difficulty 2 of 3 · 6 minutes
#
# Return the log probability of the generated part, as one number *with* a gradient. `sequences` is (batch, length)
# without padding, and the first `prompt_length` ids of each row are the prompt.

# %% tags=["exercise"]
def score(model, sequences: torch.Tensor, prompt_length: int) -> torch.Tensor:
    """Return the summed log probability of all tokens after the prompt, with a gradient."""
    raise NotImplementedError

# %% tags=["solution"]
def score(model, sequences: torch.Tensor, prompt_length: int) -> torch.Tensor:
    """Return the summed log probability of all tokens after the prompt, with a gradient."""
    logits = model(sequences[:, :-1]).logits[:, prompt_length - 1 :]  # (batch, new, vocab)
    answer = sequences[:, prompt_length:]  # (batch, new)
    return logits.log_softmax(-1).gather(-1, answer[..., None]).sum()

# %% [markdown] tags=["solution"]
# The last id is not fed in, since nothing follows it, and the logits at index `prompt_length - 1` are the first that
# predict a token of the answer. `gather` picks *numbers that depend on the weights*, so the gradient passes through
# them. The integers only say where to look.

# %% tags=["check"]
lesson.check_score(score)

# %% [markdown] tags=["hints"]
# - Lesson 07's shift: the logits at index t predict the token at index t + 1.
# - The answer's first token is at index `prompt_length`, so its logits are one index before.
# - Use neither `torch.no_grad()` nor `.item()`, and take the softmax over the vocabulary.

# %% [markdown]
# ## Recap
#
# - Three cuts: `no_grad` on `generate()`, the integer that a choice returns, and the look-up with that integer.
# - Without the first, the logits carry a gradient. The sequences do not, nor does a loss computed from them.
# - The loss along a weight is flat with cliffs: its derivative is 0 or does not exist.
# - Softmax or straight-through in place of the token carry a gradient, but not that of the choice.
# - One forward pass over the finished text gives the gradient of its log probability, with less memory.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `generate` in `transformers/generation/utils.py` has the decorator, `_sample` has argmax and multinomial, a few
# lines apart. [Lesson 09](09_training.ipynb) trains a model on its own texts nevertheless, in ways that work.
