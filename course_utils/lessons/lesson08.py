"""Lesson 08: predictions, exercise checks and quiz. The helpers whose names begin with `_` compute the answers."""

import functools
import itertools

import torch

from ..checks.exercise import Mistake, exercise, expect_close
from ..checks.quiz import Option, Prediction, Question
from ..models import load
from ..releases import bare_generate

# ---- predictions -------------------------------------------------------------------------------------

predict_wrapped = Prediction(
    "08/predict-wrapped",
    "`generate()` without its decorator returns logits and sequences. Which of them carry a gradient?",
    options=(
        Option("Only the logits", "They are computed from the weights. The ids are only chosen by means of them.", right=True, value=(True, False)),
        Option("Both", "The ids are integers, and a tensor of integers cannot carry a gradient.", value=(True, True)),
        Option("Neither", "Without the decorator the forward passes are tracked, as in training.", value=(False, False)),
        Option("Only the sequences", "It is the other way round.", value=(False, True)),
    ),
    proof=lambda: _what_carries_a_gradient(),
)  # fmt: skip

predict_embedding = Prediction(
    "08/predict-embedding",
    "Argmax chooses a token, and step 2 looks up its embedding. Does that embedding require a gradient, and does one arrive at step 1's weight?",
    options=(
        Option("It requires none", "It was looked up in the embedding matrix, which requires one.", value=(False, False)),
        Option("It requires one, which arrives", "The look-up has one edge, which leads to the matrix. No edge leads to the token.", value=(True, True)),
        Option("It requires one, which does not arrive", "It goes to the embedding matrix of step 2, and nowhere in step 1.", right=True, value=(True, False)),
    ),
    proof=lambda: _embedding_of_the_choice(),
)  # fmt: skip

predict_flat = Prediction(
    "08/predict-flat",
    "One weight takes 101 values one after another, and for each the model writes two tokens greedily. Between how many of the 100 pairs of neighbours does the loss change?",
    options=(
        Option("Fewer than 10", "Most small moves do not change the likeliest token. Then the loss is the same to the last digit.", right=True, value="few"),
        Option("About 50", "Then it would have to jump at every second step. For a jump, one token has to overtake another.", value="half"),
        Option("Nearly all", "That would be true of a smooth function. The logits do change everywhere, but the choice does not.", value="all"),
    ),
    proof=lambda: _changes_along_a_weight(),
)  # fmt: skip

predict_teacher = Prediction(
    "08/predict-teacher",
    "We take the gradient of the chosen tokens' log probability through the undecorated `generate()`. What does it equal?",
    options=(
        Option("The gradient of our loss", "No cost went into it. It would be the same for any loss.", value="loss"),
        Option("What one forward pass over the finished text gives", "Both give the log probabilities of the same tokens after the same tokens.", right=True, value="forward"),
        Option("Zero", "The integers only pick log probabilities, and those depend on the weights.", value="zero"),
    ),
    proof=lambda: _gradient_of_the_chosen(),
)  # fmt: skip

predict_memory = Prediction(
    "08/predict-memory",
    "Which keeps more memory for the backward pass: generating 16 tokens with gradients, or one forward pass over the finished text?",
    options=(
        Option("Generating", "Each step keeps what one token needs, plus a copy of the cache, which grows.", right=True, value="generating"),
        Option("The forward pass", "It holds all tokens at once. But generating ends up with all of them, too, plus the copies.", value="forward"),
        Option("Both the same", "The activations are the same. But every step concatenates the cache into a new tensor, and each copy is kept.", value="same"),
    ),
    proof=lambda: _who_keeps_more(),
)  # fmt: skip


@functools.cache
def _tiny():
    model, tokenizer = load("tiny-gpt2", device="cpu")
    return model.double(), tokenizer


@functools.cache
def _prompt():
    return _tiny()[1]("Today is", return_tensors="pt")


def _bare(**options):
    model, tokenizer = _tiny()
    return bare_generate(model)(
        model, **_prompt(), do_sample=False, pad_token_id=tokenizer.eos_token_id,
        return_dict_in_generate=True, output_logits=True, **options,
    )  # fmt: skip


def _what_carries_a_gradient():
    output = _bare(max_new_tokens=2)
    return output.logits[0].requires_grad, output.sequences.requires_grad


def _embedding_of_the_choice():
    model, _ = _tiny()
    logits = model(**_prompt()).logits[:, -1]
    embedding = model.get_input_embeddings().weight[logits.argmax(-1)]
    found = torch.autograd.grad(embedding.sum(), logits, allow_unused=True)[0]
    return embedding.requires_grad, found is not None


def _changes_along_a_weight():
    model, tokenizer = _tiny()
    bias = model.transformer.ln_f.bias
    at_rest, texts = bias[0].item(), []
    try:
        with torch.no_grad():
            for step in range(-50, 51):
                bias[0] = at_rest + step / 25
                ids = model.generate(
                    **_prompt(), do_sample=False, max_new_tokens=2, pad_token_id=tokenizer.eos_token_id
                )
                texts.append("".join("e" if "e" in tokenizer.decode(id) else "-" for id in ids[0, 2:]))
    finally:
        with torch.no_grad():
            bias[0] = at_rest
    changes = sum(one.count("e") != other.count("e") for one, other in itertools.pairwise(texts))
    return "few" if changes < 10 else "half" if 40 < changes < 60 else "all" if changes > 90 else changes


def _gradient_of_the_chosen():
    model, _ = _tiny()
    output = _bare(max_new_tokens=3)
    chosen = output.sequences[:, 2:, None]
    generated = torch.stack(output.logits, 1).log_softmax(-1).gather(-1, chosen).sum()
    scored = model(output.sequences[:, :-1]).logits[:, 1:].log_softmax(-1).gather(-1, chosen).sum()
    weight = model.transformer.h[0].mlp.c_fc.weight
    one, other = (torch.autograd.grad(total, weight)[0] for total in (generated, scored))
    if not one.any():
        return "zero"
    return "forward" if torch.allclose(one, other, rtol=1e-4, atol=1e-6) else "loss"


def _who_keeps_more():
    model, _ = _tiny()
    sequences = _bare(max_new_tokens=16).sequences
    generating = _kept(lambda: _bare(max_new_tokens=16), model)
    forward = _kept(lambda: model(sequences[:, :-1], logits_to_keep=16), model)
    return "generating" if generating > 1.05 * forward else "forward" if forward > 1.05 * generating else "same"  # fmt: skip


def _kept(run, model):
    """Bytes that autograd keeps for the backward pass of `run()`, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()
    del result
    return sum(kept.values())


# ---- exercises ---------------------------------------------------------------------------------------

SNIPPETS = {
    "A": """logits = model(**prompt).logits[:, -1]
probs = logits.softmax(-1).detach()
loss = (probs @ costs).mean()""",
    "B": """logits = model(**prompt).logits[:, -1]
probs = logits.softmax(-1)
token = probs.argmax(-1)
loss = costs[token].mean()""",
    "C": """logits = model(**prompt).logits[:, -1]
probs = logits.new_tensor(logits.softmax(-1).tolist())
best = probs.max(-1).values
loss = -best.log().mean()""",
    "D": """logits = model(**prompt).logits[:, -1]
best = logits.log_softmax(-1).max(-1).values
surprise = -best.mean()
loss = torch.tensor(surprise.item(), requires_grad=True)""",
    "E": """logits = model(**prompt).logits[:, -1]
mixture = logits.softmax(-1) @ embeddings
nearest = torch.cdist(mixture, embeddings).argmin(-1)
following = model(inputs_embeds=embeddings[nearest][:, None]).logits[:, -1]
loss = (following.softmax(-1) @ costs).mean()""",
}
CUTS = {"A": 2, "B": 3, "C": 2, "D": 4, "E": 3}
_PICKED = (
    "`max(-1).values` picks numbers, and a gradient goes back to those it picked. `argmax` would be a cut."
)
_LINES = {(name, 1): "The forward pass is tracked: nothing disables gradients here." for name in CUTS} | {
    ("A", 3): "A product passes gradients on. Look at where `probs` comes from.",
    ("B", 2): "Softmax computes floats from floats, and passes gradients on.",
    ("B", 4): "The index is already an integer, so the cut is earlier. Which line made it one?",
    ("C", 3): _PICKED,
    ("C", 4): "The logarithm and the mean pass gradients on. Look at the lines before.",
    ("D", 2): _PICKED,
    ("D", 3): "A mean with the opposite sign passes gradients on.",
    ("E", 2): "A product with the embeddings passes gradients on: section 4 printed both of its edges.",
    ("E", 4): "`nearest` is already an integer, so the cut is earlier. Which line made it one?",
    ("E", 5): "This loss has a gradient for the weights, through line 4, but none for the logits of line 1.",
}


@exercise("08/cuts", title="Find the line that cuts", minutes=8, difficulty=2)
def check_cuts(answer):
    """A line number for each of the five snippets."""
    if not isinstance(answer, dict):
        raise Mistake('Give a dictionary from names to lines, {"A": 1, ...}.')
    if unknown := [name for name in answer if name not in CUTS]:
        raise Mistake(f"There is no snippet {unknown[0]!r}. They are {', '.join(CUTS)}.")
    if missing := [name for name in CUTS if name not in answer]:
        raise Mistake(f"Snippet {missing[0]} has no line yet. In each of the five, one line cuts.")
    for name, line in answer.items():
        lines = len(SNIPPETS[name].splitlines())
        if isinstance(line, bool) or not isinstance(line, int) or not 1 <= line <= lines:
            raise Mistake(
                f"For snippet {name}, got {line!r}, expected the number of one of its lines, 1 to {lines}."
            )
    for name, line in CUTS.items():
        if answer[name] != line:
            raise Mistake(f"Snippet {name}, line {answer[name]}: {_LINES[name, answer[name]]}")
    return (
        "One detach, two integers, a detour through Python numbers, and a leaf that only looks like a loss."
    )


@exercise("08/straight-through", title="Write the straight-through estimator", minutes=8, difficulty=3)
def check_straight_through(answer):
    """The value of the one-hot rows and the gradient of the softmax, in the dtype of the logits."""
    generator = torch.Generator().manual_seed(8)
    for rows, vocabulary in ((3, 5), (1, 7), (4, 2)):
        logits = torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)
        direction = torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)
        probs = logits.softmax(-1)
        want = torch.nn.functional.one_hot(logits.argmax(-1), vocabulary).double()
        given = logits.clone().requires_grad_()
        got = answer(given)
        if not isinstance(got, torch.Tensor):
            raise Mistake(f"Return a tensor (batch, vocab); got {type(got).__name__}.")
        if got.shape == logits.shape[:1]:
            raise Mistake("These are ids. Return one-hot rows, (batch, vocab).")
        if not got.is_floating_point():
            raise Mistake("Your rows are integers, and integers carry no gradient. Convert them to floats.")
        if got.dtype != logits.dtype:
            kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (got, logits)]
            raise Mistake(
                f"Your rows are {kinds[0]}, but the logits are {kinds[1]}. Keep the dtype of the logits."
            )
        expect_close(
            got.detach(),
            want,
            (logits,),
            "The value should be the one-hot row of the most likely token.",
            mistakes=[
                (probs, "The value is that of the softmax. The value should be one-hot; only the gradient is the softmax's."),
                (want * probs, "The row has the probability where a 1 belongs: add and subtract instead of multiplying."),
                (want + probs, "The probabilities are added, but not subtracted again: subtract `probs.detach()`."),
                (lambda got: (got.round().sum(-1) == 1).all() and torch.allclose(got, got.round()), "The rows are one-hot, but not at the most likely token of each row. `logits.argmax(-1)` gives those, without sampling."),
            ],
        )  # fmt: skip
        if not got.requires_grad:
            raise Mistake("The value is right, but it carries no gradient. Add something whose value is 0 and whose gradient is that of the softmax.")  # fmt: skip
        # A copy went in above; for the gradient the function itself is called, with our own tensor.
        (found,) = torch.autograd.grad((answer.original(given) * direction).sum(), given, allow_unused=True)
        if found is None:
            raise Mistake("The value is right, but its gradient does not reach the logits. Add something that is computed from them.")  # fmt: skip
        expected = probs * (direction - (probs * direction).sum(-1, keepdim=True))
        expect_close(
            found,
            expected,
            "the gradient",
            "The value is right, but the gradient is not that of the softmax.",
            mistakes=[
                (torch.zeros_like(expected), "The value is right, but the gradient is 0: what you add and what you subtract both carry it. Detach one of them."),
                (-expected, "The value is right, but the gradient has the wrong sign: detach the `probs` that you subtract, not the one that you add."),
                (direction, "The value is right, but the gradient is that of the logits themselves. It should be the softmax's."),
                (2 * expected, "The value is right, but the gradient is twice the softmax's."),
            ],
        )  # fmt: skip
    return "A token in the forward pass, a softmax in the backward pass. The gradient is a guess."


@exercise("08/score", title="Compute a log probability with a gradient", minutes=6, difficulty=2)
def check_score(answer):
    """The sum over the answer, and its gradient, for two prompt lengths and two rows."""
    model, _ = _tiny()
    weight = model.transformer.h[0].mlp.c_fc.weight
    for rows, prompt_length in (
        ([[3666, 3290, 318, 407, 616], [40, 765, 284, 4483, 257]], 2),
        ([[1026, 481, 6290, 287, 262, 3329]], 1),
        ([[1026, 481, 6290, 287]], 2),
    ):
        sequences = torch.tensor(rows)
        with torch.no_grad():
            logits = model(sequences).logits
        shifted = logits[:, :-1].log_softmax(-1).gather(-1, sequences[:, 1:, None]).squeeze(-1)
        of_answer = shifted[:, prompt_length - 1 :]
        want = of_answer.sum().item()
        got = answer(model, sequences, prompt_length)
        if isinstance(got, int | float):
            raise Mistake("Your result is a Python number, so the gradient is lost: leave out `.item()`.")
        if not isinstance(got, torch.Tensor) or got.numel() > 1:
            raise Mistake("Return one number for the whole batch: a tensor, summed over tokens and rows.")
        same_place = logits[:, prompt_length:].log_softmax(-1)
        unshifted = same_place.gather(-1, sequences[:, prompt_length:, None]).sum().item()
        raw = logits[:, prompt_length - 1 : -1].gather(-1, sequences[:, prompt_length:, None]).sum().item()
        one_less = shifted[:, prompt_length:].sum().item()
        over_places = logits.log_softmax(1)[:, prompt_length - 1 : -1]
        over_places = over_places.gather(-1, sequences[:, prompt_length:, None]).sum().item()
        likeliest = logits[:, prompt_length - 1 : -1].log_softmax(-1).max(-1).values.sum().item()
        alone = [_scored_from(model, sequences, start) for start in (prompt_length - 1, prompt_length)]
        expect_close(
            got.detach().double().cpu().reshape(()),
            torch.tensor(want, dtype=torch.float64),
            (rows, prompt_length),
            "Sum the log probabilities of the ids after the prompt, each from the logits one index before it.",
            mistakes=[
                (_number(shifted.sum().item() if prompt_length > 1 else None), "The prompt's own tokens are in the sum. The answer begins at index `prompt_length`."),
                (_number(unshifted), "Nothing is shifted: the logits at index t predict the token at index t + 1."),
                (_number(one_less), "The answer's first token is missing. Its logits are at index `prompt_length - 1`."),
                (_number(raw), "These are logits, which are not normalised. `log_softmax(-1)` comes before gathering."),
                (_number(of_answer.mean().item()), "This is the mean over tokens. Return the sum."),
                (_number(of_answer.mean(1).sum().item()), "This is the sum of each row's mean over its tokens. Return the sum over all tokens."),
                (_number(of_answer.sum(1).mean().item() if len(rows) > 1 else None), "This is the mean over rows. Return the sum."),
                (_number(of_answer[0].sum().item() if len(rows) > 1 else None), "Only the first row is counted. Sum over all rows."),
                (_number(over_places), "The softmax runs over the tokens of the row here. Take it over the vocabulary: `log_softmax(-1)`."),
                (_number(likeliest), "These are the log probabilities of the likeliest tokens, whichever were chosen. Gather at the ids of the answer."),
                (lambda got: prompt_length > 1 and any(abs(got.item() - one) < 1e-4 for one in alone), "The model does not read the whole prompt here. Give it `sequences` from the beginning, and slice the logits."),
                (_number(-want), "The sign is wrong: this is a loss. Return the log probability."),
                (_number(of_answer.exp().sum().item()), "Probabilities are added here. Add their logarithms."),
            ],
            tolerance=1e-4,
        )  # fmt: skip
        if not got.requires_grad:
            raise Mistake(
                "The number is right, but carries no gradient. Leave out `no_grad()` and `detach()`."
            )
        with torch.enable_grad():
            scored = model(sequences[:, :-1]).logits.log_softmax(-1).gather(-1, sequences[:, 1:, None])
            (expected,) = torch.autograd.grad(scored[:, prompt_length - 1 :].sum(), weight)
        (found,) = torch.autograd.grad(got, weight, allow_unused=True)
        if found is None:
            raise Mistake("The number is right, but it does not lead back to the weights: it is a new leaf, as in snippet D.")  # fmt: skip
        if not torch.allclose(found, expected, rtol=1e-3, atol=1e-6):
            raise Mistake("The number is right, but its gradient is not: a part of the sum was detached.")
    return "One forward pass gives the log probability of all chosen tokens, with its gradient."


def _scored_from(model, sequences, start):
    """The log probability of all ids after `start`, if the model reads nothing before it: float."""
    rest = sequences[:, start:]
    with torch.no_grad():
        scored = model(rest).logits[:, :-1].log_softmax(-1)
    return scored.gather(-1, rest[:, 1:, None]).sum().item()


def _number(value):
    return None if value is None else torch.tensor(value, dtype=torch.float64)


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "08/quiz-enable",
        "A colleague calls `generate()` inside `with torch.enable_grad():`. What changes?",
        options=(
            Option("Nothing", "The decorator disables gradients when the call begins. The innermost setting counts.", right=True, value=False),
            Option("The returned processed scores carry a gradient", "They would without the decorator. It disables gradients inside the call."),
            Option("The returned sequences carry a gradient", "Integers never do, with or without a decorator."),
            Option("It raises an error", "You can nest these settings as you like. The innermost one counts."),
        ),
        proof=lambda: _enabled_outside(),
    ),
    Question(
        "08/quiz-picking",
        "Which of these lines pass a gradient on to `logits`? Mark all.",
        several=True,
        options=(
            Option("`logits.max(-1).values`", "It picks numbers, and the gradient goes to those that it picked.", right=True),
            Option("`logits.argmax(-1)`", "It returns indices, which are integers."),
            Option("`logits.gather(-1, ids)`", "The ids say where to look, and the numbers there depend on the weights.", right=True),
            Option("`costs[logits.argmax(-1)]`", "It picks from `costs` by integer. Nothing leads back to the logits."),
        ),
        proof=lambda: _passing_lines(),
    ),
    Question(
        "08/quiz-zero",
        "The loss goes through argmax. What is its true derivative at a point where no token is about to change?",
        options=(
            Option("0", "The loss is constant there. The derivative is correct, and useless to an optimizer.", right=True),
            Option("Unknown, since PyTorch cannot compute it", "It is known: a constant has slope 0. The curve in section 6 shows it."),
            Option("The derivative of the softmax", "That belongs to another function. Straight-through borrows it."),
            Option("Infinite", "At a cliff the finite differences grow without limit. Between cliffs the loss is flat."),
        ),
    ),
    Question(
        "08/quiz-cheapest",
        "You need the gradient of the log probability of a text that the model has just written. What do you do?",
        options=(
            Option("Generate without gradients, then run one forward pass over the text", "It gives the same gradient with less memory, for all tokens at once.", right=True),
            Option("Remove the decorator from `generate()`", "It gives the same gradient, but keeps every step's copy of the cache."),
            Option("Use straight-through in every step", "That is for gradients through the choice. Here the chosen tokens are known."),
            Option("Use the `scores` that generate() recorded", "Under the decorator they carry no gradient, and processors may have changed them."),
        ),
    ),
)  # fmt: skip


def _enabled_outside():
    model, tokenizer = _tiny()
    with torch.enable_grad():
        output = model.generate(
            **_prompt(), do_sample=False, max_new_tokens=2, pad_token_id=tokenizer.eos_token_id,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
    return output.scores[0].requires_grad or output.sequences.requires_grad


def _passing_lines():
    logits = torch.randn(2, 5, requires_grad=True)
    known = {"logits": logits, "ids": torch.tensor([[1], [2]]), "costs": torch.randn(5)}
    lines = (option.text.strip("`") for option in quiz[1].options)
    return [line for line in lines if eval(line, dict(known)).requires_grad]
