# %% [markdown]
# # Why does argmax break gradients?
#
# **By the end you will have a table of every tensor between a weight and the loss of a generated text, and know the
# three places where the gradient stops.**
#
# You will be able to
#
# - name the three cuts, and show each of them on a running model,
# - say what removing `no_grad` from `generate()` gives, and what it does not give,
# - draw a loss along one weight and read off why argmax has no useful derivative,
# - replace the cut by a link that carries a gradient, and say what the model then reads,
# - compare the memory of the two ways to a gradient.
#
# *50 minutes, and 25 more for the exercises. You need: lessons 05 and 07, and `backward()` in PyTorch.*

# %% [markdown]
# ## 1. The wish
#
# We want a model to write texts without the letter *e*. So we let it write, count, and call the share of tokens
# with an *e* the **loss**. If that loss has a gradient, an optimizer can do the rest.

# %% [markdown]
# The model is GPT-2's architecture with random weights. The cuts that we look for are made by the code, whatever the
# weights are. The model computes in float64, so that small differences can be seen.

# %%
import inspect
import itertools

import torch

from course_utils import load
from course_utils.checks import lesson08 as lesson
from course_utils.widgets import GradientLink, Predict, Quiz

model, tokenizer = load("tiny-gpt2")
model = model.double()
prompt = tokenizer("Today is", return_tensors="pt").to(model.device)
costs = torch.tensor([float("e" in tokenizer.decode(token)) for token in range(len(tokenizer))])
costs = costs.to(model.device, torch.float64)  # (vocab,): 1 where the token holds an "e"

# %%
asked = {"do_sample": False, "max_new_tokens": 4, "pad_token_id": tokenizer.eos_token_id}
sequences = model.generate(**prompt, **asked)
loss = costs[sequences[:, 2:]].mean()
print(repr(tokenizer.decode(sequences[0, 2:])), "loss", loss.item())

# %% tags=["raises-exception"]
loss.backward()

# %% [markdown]
# No gradient. The error says that the loss was computed from nothing that *requires* one. Between the weights and
# this number the thread was cut, and the question is where.

# %% [markdown]
# ## 2. The first cut: a decorator
#
# `generate()` is decorated with `@torch.no_grad()`. We look from inside, with a logits processor that notes what it
# sees, and switch gradients on around the call:

# %%
def spy(input_ids, scores):
    print("gradients on:", torch.is_grad_enabled(), "  scores require a gradient:", scores.requires_grad)
    return scores


with torch.enable_grad():
    output = model.generate(**prompt, **asked | {"max_new_tokens": 1}, logits_processor=[spy])

# %% [markdown]
# The inner setting wins: the decorator switches gradients off when `generate()` begins. We can do without it: each
# decorator keeps the function inside it as `__wrapped__`, and `inspect.unwrap` follows these down to the bare one.

# %%
bare = inspect.unwrap(type(model).generate)
output = bare(model, **prompt, **asked | {"max_new_tokens": 1}, logits_processor=[spy])

# %% [markdown]
# Now the scores carry a gradient. Is the wish fulfilled?

# %%
Predict(lesson.predict_wrapped)

# %% tags=["answer"]
recorded = bare(model, **prompt, **asked, return_dict_in_generate=True, output_logits=True)
print("what the undecorated call returns, and the function that made it:")
print("logits[0]:", type(recorded.logits[0].grad_fn).__name__, recorded.logits[0].dtype)
print("sequences:", type(recorded.sequences.grad_fn).__name__, recorded.sequences.dtype)
print("the loss requires a gradient:", costs[recorded.sequences[:, 2:]].mean().requires_grad)

# %% [markdown]
# The logits carry a gradient, in the float32 copy that `generate()` hands out. The sequence carries none, and our
# loss is computed from the sequence: `backward()` fails as before. **Removing the decorator does not cure it.**

# %% [markdown]
# ## 3. The second cut: an integer
#
# One line turns logits into a token. Here it is, alone:

# %%
logits = model(**prompt).logits[:, -1]  # (batch, vocab)
token = logits.argmax(-1)  # (batch,)
print(logits.dtype, logits.requires_grad, "->", token.dtype, token.requires_grad)

# %% [markdown]
# Could we ask PyTorch to track it all the same?

# %% tags=["raises-exception"]
token.requires_grad_()

# %% [markdown]
# A derivative asks: if I move the input a little, how far does the output move? An integer cannot move a little.
# Drawing changes nothing: `torch.multinomial` returns an integer as well.

# %%
drawn = torch.multinomial(logits.softmax(-1), 1)
print(drawn.dtype, drawn.grad_fn)

# %% [markdown]
# ## 4. The third cut: a look-up
#
# The token goes back into the model, which looks up a row of its embedding matrix. That row is a float again and
# has a `grad_fn`. So is the thread whole from there?

# %%
embeddings = model.get_input_embeddings().weight  # (vocab, width)
looked_up = torch.nn.functional.embedding(token, embeddings)  # (batch, width)
print(looked_up.grad_fn.name())
print([edge[0].name() for edge in looked_up.grad_fn.next_functions])

# %% [markdown]
# `next_functions` are the edges along which a gradient would go back. There is one, and it leads to the **matrix**
# (`AccumulateGrad` stores it there). None leads to the token: a row number is no quantity.

# %% [markdown]
# The same look-up can be written as a product, which has room for two edges: a row of zeros with a single 1, times
# the matrix, picks a row. Where does the first edge lead, with the one-hot row and with the probabilities?

# %%
one_hot = torch.nn.functional.one_hot(token, len(embeddings)).double()  # (batch, vocab)
picked = one_hot @ embeddings  # (batch, width)
assert torch.equal(picked, looked_up)

mixture = logits.softmax(-1) @ embeddings  # (batch, width)
for product in (picked, mixture):
    print([edge[0].name() if edge[0] else None for edge in product.grad_fn.next_functions])

# %% [markdown]
# With the one-hot row it leads nowhere. With the probabilities in its place it leads back to the softmax. But the
# next step then reads a **mixture** of all embeddings: a vector that is no token's, like lesson 04's points between
# France and Germany.

# %% [markdown]
# ## 5. Every tensor on the way
#
# Now the whole road, two steps long. We keep the steps apart with a copy of the model for the first: then a
# gradient at the copy's weight can only have come through what step 1 passed on.

# %%
import copy

first, second = copy.deepcopy(model), model
weight = first.transformer.h[-1].mlp.c_proj.weight  # one matrix of step 1


def road(link):
    """Every tensor from the weight to the loss; `link` makes of logits what takes the token's place."""
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
# For each tensor: its type, whether it requires a gradient, the function that made it, and whether a gradient arrives
# at the weight if we go back from there. (A tensor is multiplied by fixed random numbers and summed, since
# `backward` starts from one number.)

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
# This is the table. Up to the logits a gradient arrives. The **token** requires none. Then two tensors *look* alive
# again: they require a gradient and have a `grad_fn`. But none of it arrives at step 1's weight. The loss requires
# none at all, because its cost is looked up, too.

# %% [markdown]
# With the softmax in the token's place, nothing is cut. But step 2 reads a mixture, so this loss is not the loss of
# a text:

# %%
report(road(lambda logits: logits.softmax(-1)))

# %% [markdown]
# ### Exercise 1: which line cuts? · difficulty 2 of 3 · 8 minutes
#
# Five snippets compute a loss. In each, one line cuts it off from the `logits` of line 1: from there on, no gradient
# finds back to them. Which line? `model`, `prompt`, `costs` and `embeddings` are those from above.

# %%
for name, snippet in lesson.SNIPPETS.items():
    print(f"--- {name}")
    print("\n".join(f"{number}  {line}" for number, line in enumerate(snippet.splitlines(), 1)))

# %% tags=["exercise"]
cuts = ...  # a dictionary from the name of a snippet to a line, such as {"A": 1, ...}

# %% tags=["solution"]
cuts = {"A": 2, "B": 3, "C": 2, "D": 4, "E": 3}

# %% [markdown] tags=["solution"]
# A: `.detach()` says it openly. B: argmax gives an integer, and `costs[token]` is a look-up. C: `.tolist()` makes
# Python numbers, and a tensor made of them knows nothing of their past. D: `requires_grad=True` silences the error,
# and the gradient goes to a new leaf that nobody trains. E: `argmin` returns an integer, as argmax does.

# %% tags=["check"]
lesson.check_cuts(cuts)

# %% [markdown] tags=["hints"]
# - Go through a snippet and ask of each line: is the result a float that was *computed* from floats on the road?
# - Integers, Python numbers and new tensors know nothing of where they came from.
# - `max(-1).values` and `gather` do pass gradients on: to the numbers that they picked.

# %% [markdown]
# ## 6. The loss along one weight
#
# Is this PyTorch's fault? Could a cleverer framework differentiate argmax? We ask the loss itself. One weight is
# moved, a bias of the final norm, and for each value the model writes its two tokens anew:

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
    """The mean cost of two tokens, each of them what `link` makes of its logits: (batch, vocab)."""
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
print("101 places, the loss through argmax:")
moves = [step / 25 for step in range(-50, 51)]
through_argmax = [loss_at(move, lambda: two_steps(hard)) for move in moves]
changes = sum(here != there for here, there in itertools.pairwise(through_argmax))
print(f"{len(set(through_argmax))} different values; it changes between {changes} of 100 neighbours")

# %% [markdown]
# Beside it the softmax in the place of argmax, sharpened by a temperature of 0.1:

# %%
from course_utils.plots import lines


def softmax(logits):
    return (logits / 0.1).softmax(-1)


through_softmax = [loss_at(move, lambda: two_steps(softmax)) for move in moves]
curves = {"argmax": through_argmax, "softmax": through_softmax}
lines(moves, curves, "The loss of two tokens along one weight", "the weight is moved by", "loss")

# %% [markdown]
# Through argmax the loss is **flat, with cliffs**. So it is along every weight: two tokens can cost 0, 0.5 or 1 and
# nothing between, so the loss stays or jumps. On a flat piece its derivative is exactly 0, which is right and of no
# use; on a cliff there is none. The softmax gives a smooth curve, of another loss.

# %% [markdown]
# Finite differences say the same. (loss(w + h) − loss(w − h)) / 2h, on a flat piece and across a cliff:

# %%
def finite_difference(step_loss, at, h):
    return (loss_at(at + h, step_loss) - loss_at(at - h, step_loss)) / (2 * h)


cliff = next(i for i in range(100) if through_argmax[i] != through_argmax[i + 1])
cliff = (moves[cliff] + moves[cliff + 1]) / 2
for h in (0.1, 0.02):
    flat, across = (finite_difference(lambda: two_steps(hard), at, h) for at in (1.0, cliff))
    print(f"h = {h}:  flat {flat:.1f}   across the cliff {across:.1f}")

# %% [markdown]
# Flat: 0. Across the cliff: the number grows as h shrinks, and has no limit. Through the softmax there is one, and
# it is what autograd says:

# %%
expected = two_steps(softmax)
by_autograd = torch.autograd.grad(expected, bias)[0][0].item()
by_difference = finite_difference(lambda: two_steps(softmax), 0.0, 1e-5)
print("relative difference below 0.0001:", abs(by_difference / by_autograd - 1) < 1e-4)

# %% [markdown]
# So PyTorch is not to blame. Where the loss has a slope to follow, autograd finds it. Through argmax the slope is 0
# or does not exist, and autograd returns none.

# %% [markdown]
# ## 7. Links that carry a gradient
#
# Whoever wants a gradient through the choice has to *change what is computed*. The best known trick keeps the hard
# token on the way forward and takes the softmax's gradient on the way back. It is called **straight-through**.

# %% [markdown]
# ### Exercise 2: straight-through · difficulty 3 of 3 · 8 minutes
#
# Return a tensor (batch, vocab) whose *value* is the one-hot row of the most likely token, and whose *gradient* is
# that of the softmax. `tensor.detach()` has the same value and no gradient: one use of it is enough.

# %% tags=["exercise"]
def straight_through(logits: torch.Tensor) -> torch.Tensor:
    """Return one-hot rows forwards, with the gradient of the softmax backwards."""
    raise NotImplementedError

# %% tags=["solution"]
def straight_through(logits: torch.Tensor) -> torch.Tensor:
    """Return one-hot rows forwards, with the gradient of the softmax backwards."""
    probs = logits.softmax(-1)
    one_hot = torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs.dtype)
    return one_hot + probs - probs.detach()

# %% [markdown] tags=["solution"]
# In value, `probs - probs.detach()` is 0, and the one-hot row remains. For the gradient, `one_hot` and the detached
# part are constants, and only `probs` is left. `(one_hot - probs).detach() + probs` is the same.

# %% tags=["check"]
lesson.check_straight_through(straight_through)

# %% [markdown] tags=["hints"]
# - You want x with the value of `one_hot` and the gradient of `probs`.
# - `probs - probs.detach()` has the value 0 and the gradient of `probs`.
# - Add that to the one-hot rows, and mind that `one_hot` returns integers.

# %% [markdown]
# Here are the links between two steps of a small model; Gumbel-softmax is the softmax of logits with random noise.
# Choose one, move the weight, and watch the loss, the slope that autograd reports, and the chain of tensors. The
# chain shows the gradient of the *loss* at each tensor; the table of section 5 went from each tensor to the weight.

# %% [markdown]
# The loss is another one here: the surprise at token 5 after the second step. It is computed from that step's logits
# and chooses nothing. So even with argmax it requires a gradient, which comes back as far as the embedding.

# %%
GradientLink()

# %% [markdown]
# Note what straight-through does on the flat pieces: it reports a slope where there is none. That slope is a guess.
# It is not the slope of the softmax curve either, since step 2 has read the hard token and not the mixture. Lesson 09
# measures how good such guesses are against a gradient that is exact.

# %% [markdown]
# ## 8. What the undecorated call is good for
#
# Back to the bare `generate()`. Its logits did carry a gradient. The log probability of the tokens it chose is a
# function of the weights, so we can differentiate that:

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
print("beside one forward pass over the finished text:")
scored = model(recorded.sequences[:, :-1]).logits[:, 1:].log_softmax(-1)  # (batch, new, vocab)
by_forward = scored.gather(-1, chosen[..., None]).sum()
again = torch.autograd.grad(by_forward, list(model.parameters()))
apart = sum((one - other).square().sum() for one, other in zip(gradient, again, strict=True)) ** 0.5
size = sum(one.square().sum() for one in again) ** 0.5
print("relative difference below 0.000001:", (apart / size).item() < 1e-6)

# %% [markdown]
# The same gradient, up to the rounding of the float32 copy. To score a finished text in this way is called
# **teacher forcing**.

# %% [markdown]
# This gradient says how to make *these* tokens more or less likely. It does not say how the choice would
# change, and it knows nothing of our *e*. Whoever wants this gradient gets it from one forward pass over the text,
# which scores all positions at once.

# %% [markdown]
# What do the two ways cost? PyTorch keeps tensors for the way back. We note their shapes and their memory, on SmolLM2,
# with the parameters left out:

# %%
def kept_for_backward(run, parameters):
    """(shape, MiB) of each tensor that autograd keeps of `run()`, parameters left out, and what it returns."""
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
print("MiB kept for the backward pass, of generating with gradients and of one forward pass:")
smollm, words = load()
story = words("Once upon a time", return_tensors="pt").to(smollm.device)
options = {"do_sample": False, "pad_token_id": 2, "return_dict_in_generate": True, "output_logits": True}
for new in (8, 16):
    options |= {"min_new_tokens": new, "max_new_tokens": new}
    generating, written = kept_for_backward(lambda: bare(smollm, **story, **options), smollm.parameters())
    text = written.sequences[:, :-1]
    scoring, _ = kept_for_backward(lambda: smollm(text, logits_to_keep=new), smollm.parameters())
    generated, scored = (sum(mib for _, mib in kept) for kept in (generating, scoring))
    print(f"{new:2} tokens: {generated:.0f} and {scored:.0f}")
    assert generated > scored

# %% [markdown]
# Generating keeps more, and the gap widens. Keys and values have the shape (batch, head, length, size). Of which
# lengths are those that were kept for the 16 tokens?

# %%
for name, kept in {"generating": generating, "one forward pass": scoring}.items():
    print(f"{name}:", sorted({shape[2] for shape, _ in kept if len(shape) == 4 and shape[2] > 1}))

# %% [markdown]
# At every step the cache is concatenated anew, and each copy is kept. Hence the rule: **generate without gradients,
# then score the text with one forward pass.**

# %% [markdown]
# ### Exercise 3: score after generating · difficulty 2 of 3 · 6 minutes
#
# Return the log probability of the generated part, as one number *with* a gradient. `sequences` is (batch, length)
# without padding, and the first `prompt_length` ids of each row are the prompt.

# %% tags=["exercise"]
def score(model, sequences: torch.Tensor, prompt_length: int) -> torch.Tensor:
    """Return the summed log probability of all tokens behind the prompt, with a gradient."""
    raise NotImplementedError

# %% tags=["solution"]
def score(model, sequences: torch.Tensor, prompt_length: int) -> torch.Tensor:
    """Return the summed log probability of all tokens behind the prompt, with a gradient."""
    logits = model(sequences[:, :-1]).logits[:, prompt_length - 1 :]  # (batch, new, vocab)
    answer = sequences[:, prompt_length:]  # (batch, new)
    return logits.log_softmax(-1).gather(-1, answer[..., None]).sum()

# %% [markdown] tags=["solution"]
# The last id is not fed in, since nothing follows it, and the logits at place `prompt_length - 1` are the first that
# speak about the answer. `gather` picks *numbers on the road*, so the gradient reaches them. The integers only say
# where to look.

# %% tags=["check"]
lesson.check_score(score)

# %% [markdown] tags=["hints"]
# - Lesson 07's shift: the logits at place t speak about the token at place t + 1.
# - The answer's first token stands at `prompt_length`, so its logits stand one place before.
# - No `torch.no_grad()`, no `.item()`, and the softmax over the vocabulary.

# %% [markdown]
# ## Recap
#
# - Three cuts: `no_grad` on `generate()`, the integer that a choice returns, and the look-up by it.
# - Undo the first, and the logits carry a gradient. The sequence does not, nor does a loss computed from it.
# - The loss along a weight is flat with cliffs: its derivative is 0 or does not exist.
# - Softmax or straight-through in the token's place carry a gradient, of something else than the choice.
# - One forward pass over the finished text gives the gradient of its log probability, with less memory.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `generate` in `transformers/generation/utils.py` has the decorator, `_sample` has argmax and multinomial, a few
# lines apart. [Lesson 09](09_training.ipynb) trains through generation all the same, in the ways that work.
