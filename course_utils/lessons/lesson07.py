"""Lesson 07: predictions, exercise checks and quiz. The helpers whose names begin with `_` compute the answers."""

import functools
import math
from types import SimpleNamespace

import torch

from ..checks.exercise import Mistake, exercise, expect_close, expect_equal
from ..checks.quiz import Option, Prediction, Question
from ..models import load
from ..scores import sequence_scores, token_log_probs, transition_scores
from .fixtures import quiet_transformers, tiny, usable

# ---- predictions -------------------------------------------------------------------------------------

predict_processed = Prediction(
    "07/predict-processed",
    "The tokens above were drawn with `top_k=5`. How does the log probability of a drawn token from `scores` compare with the one from `logits`?",
    options=(
        Option("It is closer to 0", "In `scores` five tokens share the whole probability, so each has more of it.", right=True, value="above"),
        Option("It is further from 0", "Removing tokens takes nothing from those that stay. Their probabilities grow.", value="below"),
        Option("It is the same", "That would be true if no processor had changed anything. Top-k has set 49,147 processed scores to −∞.", value="equal"),
    ),
    proof=lambda: _processed(),
)  # fmt: skip

predict_padding = Prediction(
    "07/predict-padding",
    "What does `compute_transition_scores` return for the six padding tokens of the first row?",
    options=(
        Option("0 at each", "That would leave the sum unchanged, and is what happens after beam search. Here the method does not know where the row ended.", value="zeros"),
        Option("−∞ at each", "The padding token was not impossible for the model: it had a finite logit at every step.", value="infinite"),
        Option("A number of its own at each", "The model kept computing all rows, and at every step there are `scores` to gather from.", right=True, value="numbers"),
    ),
    proof=lambda: _at_padding(),
)  # fmt: skip

predict_shift = Prediction(
    "07/predict-shift",
    "In `The capital of France is Paris` the token ` Paris` has index 5, counted from 0. Which logits say how likely it was?",
    options=(
        Option("Those at index 4", "The model has read everything up to ` is`, and predicts what follows.", right=True, value=4),
        Option("Those at index 5", "At index 5 the model has already read ` Paris` and predicts the token after it.", value=5),
        Option("Those at index 0", "At index 0 the model has read one token, and predicts the second.", value=0),
    ),
    proof=lambda: _place_of_the_logits(),
)  # fmt: skip

predict_answers = Prediction(
    "07/predict-answers",
    "`Water is made of` continues with ` ice.`, 2 tokens, or with ` two hydrogen atoms and one oxygen atom.`, 8 tokens. For which continuation is the sum of the log probabilities higher?",
    options=(
        Option("` ice.`", "It is false, but it has only two tokens to lose probability at.", right=True, value="short"),
        Option("` two hydrogen atoms and one oxygen atom.`", "It is true, and most of its tokens are easy to guess. But all eight of them make the sum lower.", value="long"),
        Option("They differ by less than 1", "Two tokens and eight tokens with sums that close would be a coincidence.", value="close"),
    ),
    proof=lambda: _which_continuation(),
)  # fmt: skip

predict_penalty = Prediction(
    "07/predict-penalty",
    "`length_penalty=0` ranks by the sum alone. Which texts win with `length_penalty=2`?",
    options=(
        Option("Longer ones", "All sums are negative, and dividing by a larger number brings them closer to 0.", right=True, value="longer"),
        Option("Shorter ones", "That is what the name suggests. But what is divided is negative.", value="shorter"),
        Option("The same ones", "Dividing by a power of the length can change the order when the lengths differ.", value="same"),
    ),
    proof=lambda: _who_wins(),
)  # fmt: skip


@functools.cache
def _loaded():
    return load("smollm2-135m", device="cpu")


def _generated(text, **options):
    """What generate() records for a prompt, or for a list of them, with the default model."""
    model, tokenizer = _loaded()
    texts = [text] if isinstance(text, str) else text
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    record = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    return model.generate(**inputs, **options, **record, pad_token_id=tokenizer.eos_token_id)


def _stops(tokenizer):
    return [tokenizer.eos_token_id, tokenizer(".").input_ids[0]]


def _processed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        output = _generated("Today is", do_sample=True, top_k=5, max_new_tokens=5)
    from_scores, from_logits = (
        transition_scores(output, (), source=source) for source in ("scores", "logits")
    )
    if torch.allclose(from_scores, from_logits, atol=0.01):
        return "equal"
    return "above" if (from_scores > from_logits).all() else "below"


def _at_padding():
    model, tokenizer = _loaded()
    prompts = ["The capital of France is", "Today is"]
    output = _generated(prompts, do_sample=False, max_new_tokens=8, eos_token_id=_stops(tokenizer))
    numbers = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)[0, 2:]
    if not numbers.any():
        return "zeros"
    return "numbers" if torch.isfinite(numbers).all() and (numbers < 0).all() else "infinite"


def _place_of_the_logits():
    model, tokenizer = _loaded()
    ids = tokenizer("The capital of France is Paris", return_tensors="pt").input_ids
    with torch.no_grad():
        return model(ids).logits[0].softmax(-1)[:, ids[0, 5]].argmax().item()


def _which_continuation():
    model, tokenizer = _loaded()
    prompt = tokenizer("Water is made of").input_ids
    sums = []
    for text in (" ice.", " two hydrogen atoms and one oxygen atom."):
        ids = torch.tensor([prompt + tokenizer(text).input_ids])
        sums.append(token_log_probs(model, ids)[0][0, len(prompt) :].sum().item())
    if abs(sums[0] - sums[1]) < 1:
        return "close"
    return "short" if sums[0] > sums[1] else "long"


def _who_wins():
    _, tokenizer = _loaded()
    options = {"num_beams": 4, "num_return_sequences": 4, "do_sample": False, "max_new_tokens": 8}
    lengths = [
        (_generated("Today is", **options, length_penalty=penalty, eos_token_id=_stops(tokenizer)).beam_indices >= 0).sum()
        for penalty in (0.0, 2.0)
    ]  # fmt: skip
    return "longer" if lengths[1] > lengths[0] else "shorter" if lengths[1] < lengths[0] else "same"


# ---- a text that no model has read -------------------------------------------------------------------

FERRY = """\
The ferry to the island leaves at seven, and on the first Monday of March it left without Clara. She had packed the \
night before, set two alarms and put her boots beside the door. What she had not done was look at the clock of the \
church, which the whole town followed, and which had been eleven minutes fast since the storm. From the pier she \
could see the white stern, and the baker waving from it with a loaf in each hand.

So she walked to the boathouse and asked the old man there whether his boat still floated. It did, he said, as long \
as somebody bailed. She gave him her sandwiches for the fare and took the bucket. Halfway across the engine stopped, \
and in the silence they heard the bell of the ferry, which was lost in the fog and going round in circles. The old man \
laughed, took out a whistle that he had not used for twenty years, and blew three times. By nine o'clock both boats \
had reached the island, the small one in front, and everybody on the ferry agreed that the church clock had been right \
after all.
"""


# ---- exercises ---------------------------------------------------------------------------------------


@exercise("07/row-sums", title="Add up the written tokens' log probabilities", minutes=7, difficulty=2)
def check_row_sums(answer):
    """Sums up to and including the first end, also when padding has the id of an end, and when no row ends."""
    for rows, end_ids in [
        ([[7, 2, 2, 2], [5, 6, 7, 8], [9, 8, 2, 2]], [2]),
        ([[7, 30, 2, 2], [2, 2, 2, 2], [9, 8, 4, 30]], [2, 30]),
        ([[7, 2, 9, 9], [5, 6, 2, 9]], [2]),  # padding with an id of its own
        ([[7, 8, 9], [9, 8, 7]], [2]),
    ]:
        tokens = torch.tensor(rows)
        numbers = -(torch.arange(tokens.numel()).reshape(tokens.shape) + 1.0) / 4
        is_end = torch.isin(tokens, torch.tensor(end_ids))
        ends = is_end.long().cumsum(1)
        without_end, want = (numbers * keep for keep in (ends == 0, ends - is_end.long() == 0))
        got = answer(numbers, tokens, end_ids)
        if isinstance(got, list | tuple) and len(got) == len(rows):
            got = torch.as_tensor(got, dtype=torch.float32)
        inputs = (numbers, tokens, end_ids)
        first_only, last_only = (
            numbers * ((tokens == one).long().cumsum(1) - (tokens == one).long() == 0)
            for one in (end_ids[0], end_ids[-1])
        )
        known = [
            (numbers, "The padding is included too. Stop after the first end."),
            (without_end, "The end token itself was chosen too, and its number belongs in the sum."),
            (first_only, "Only the first of `end_ids` ends a row here. Any of them should."),
            (last_only, "Only the last of `end_ids` ends a row here. Any of them should."),
            (numbers * (torch.arange(tokens.shape[1]) <= is_end.long().argmax(1, keepdim=True)), "A row without an end is cut after its first token here: `argmax` is 0 where nothing is True. Such a row counts in full."),
            (without_end * 0 + want * is_end.any(1, keepdim=True), "A row without an end counts in full. Its sum is 0 here."),
            (numbers * (tokens != end_ids[0]), "Comparing with one id loses the end if the padding token has that id, and keeps the padding if it has another."),
        ]  # fmt: skip
        if isinstance(got, torch.Tensor) and got.shape == numbers.shape and got.numel() > len(rows):
            raise Mistake("You return a number for each token. Add them up to one number per row: `.sum(1)`.")
        if isinstance(got, torch.Tensor) and got.ndim == 0:
            raise Mistake("You return one number for the whole batch. Sum over the tokens, `.sum(1)`, not over the rows.")  # fmt: skip
        want_sums = want.sum(1)
        lengths = (ends - is_end.long() == 0).sum(1)
        mistakes = [
            (known.sum(1) if not torch.allclose(known.sum(1), want_sums) else None, text)
            for known, text in known
        ]
        means = want_sums / lengths
        mistakes.append((means, "These are means. Return the sums."))
        expect_close(
            got.float() if isinstance(got, torch.Tensor) else got,
            want_sums,
            inputs,
            "Add up each row's numbers up to and including its first end.",
            mistakes,
        )
    numbers = torch.tensor([[-1.0, -1.0, -torch.inf]])  # top-k may leave the padding at -inf
    if torch.as_tensor(answer(numbers, torch.tensor([[7, 2, 2]]), [2])).isnan().any():
        raise Mistake("Your sums are right for finite numbers. After `top_k` the padding's number may be −∞, and −∞ · 0 is NaN: use `torch.where` or `masked_fill` instead of multiplying.")  # fmt: skip
    return "Each row is summed up to and including its first end, whatever the padding token is."


@exercise("07/text-log-prob", title="Find two slips in a log probability", minutes=6, difficulty=2)
def check_text_log_prob(answer):
    """The sum over all tokens except the first, on tiny models, compared with course_utils.scores."""
    model, _ = tiny()
    passes = []
    with quiet_transformers(), model.register_forward_hook(lambda *_: passes.append(1)):
        _check_text_log_prob(answer, model, passes)
    if len(passes) > len(_TEXTS):
        return f"The sums are right, with {len(passes)} forward passes for {len(_TEXTS)} texts. One a text is enough: a pass returns the logits at every token."  # fmt: skip
    return "Shifted once, and summed over every token that has a probability."


_TEXTS = ([1026, 481, 6290, 287, 262], [40, 765], [3666, 3290, 318, 407, 616, 3290, 13])


def _check_text_log_prob(answer, model, passes):
    for row in _TEXTS:
        ids = torch.tensor([row], device=model.device)
        got = answer(model, ids)
        counted = len(passes)
        want = token_log_probs(model, ids)[0].sum().item()
        if isinstance(got, torch.Tensor) and got.numel() == 1:
            got = got.item()
        with torch.no_grad():
            logits = model(ids).logits
        del passes[counted:]  # the check's own
        log_probs = logits.log_softmax(-1)
        twice = log_probs[:, :-2].gather(-1, ids[:, 2:, None]).mean().item()  # NaN for two tokens
        own = log_probs.gather(-1, ids[..., None]).squeeze(-1)
        shifted = log_probs[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)
        raw = logits[:, :-1].gather(-1, ids[:, 1:, None]).sum().item()
        backwards = log_probs[:, 1:].gather(-1, ids[:, :-1, None]).sum().item()

        def near(small):  # within the tolerance the probability of any text is 0
            return lambda got: math.isclose(got, small, rel_tol=1e-3)

        expect_close(
            got,
            want,
            (row,),
            "Pair `logits[:, :-1]` with `ids[:, 1:]`, take the `log_softmax`, gather and sum.",
            mistakes=[
                (twice * len(row), "Both slips are still there. Which tokens does the model compare with which logits, and how many numbers is `loss` a mean of?"),
                (twice * (len(row) - 1), "The factor is right. But `ids` and `labels` are still shifted against each other, and the model shifts the labels, too: it reads token t and is asked for t + 2."),
                (twice * (len(row) - 2), "The factor fits a mean over two tokens fewer than the text has, because the labels are still shifted twice. Let the model shift them."),
                (shifted[:, :-1].sum().item(), "The last token is left out. Give the model all of `ids`: it needs no logits for a token after the last."),
                (shifted[:, :-1].mean().item() * (len(row) - 1), "The model is not given the last token, so the mean leaves it out."),
                (want * len(row) / (len(row) - 1), "The shift is right. But `loss` is a mean over the tokens that have a probability, and that is one fewer than the text has."),
                (own.sum().item(), "Nothing is shifted: the logits at index t predict the token at index t + 1."),
                (own[:, 1:].sum().item(), "The first token is left out, but the logits are not shifted: those at index t predict index t + 1."),
                (backwards, "This is shifted the wrong way: `logits[:, :-1]` belongs to `ids[:, 1:]`."),
                (raw, "These are logits, which are not normalised. `log_softmax(-1)` comes before gathering."),
                (near(shifted.exp().sum().item()), "The probabilities of a text's tokens are multiplied, not added. Sum their logarithms."),
                (near(shifted.sum().exp().item()), "This is the probability itself. Return its logarithm."),
                (shifted.mean().item() if len(row) > 2 else None, "This is the mean. Return the sum."),
                (-shifted.mean().item(), "This is the loss: the mean with the opposite sign. Return the sum."),
                (-want, "The sign is wrong: a log probability is at most 0."),
                (shifted.sum().item() / torch.tensor(2.0).log().item(), "This is in bits. Use the natural logarithm."),
                (log_probs[:, :-1].max(-1).values.sum().item(), "This adds up the log probabilities of the likeliest tokens. Gather those of the text's own tokens."),
            ],
            tolerance=1e-3,
        )  # fmt: skip


@exercise("07/perplexity", title="Compute the perplexity of a padded batch", minutes=8, difficulty=3)
def check_batch_perplexity(answer):
    """Only tokens with a token before them count, with padding on either side, and all of them equally."""
    generator = torch.Generator().manual_seed(7)
    for rows in (
        [[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]],
        [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]],
        [[1, 1, 1], [1, 1, 1]],
    ):
        mask = torch.tensor(rows)
        ids = torch.randint(1, 9, mask.shape, generator=generator) * mask
        ids[1, 1] = 0  # a token with the id of the padding, as an end-of-text may be
        logits = 3 * torch.randn(*mask.shape, 9, generator=generator)
        shifted = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        target, read = mask[:, 1:] == 1, mask[:, :-1] == 1
        by_id = (ids[:, 1:] != 0) & (ids[:, :-1] != 0)
        counts = target & read
        want = (-shifted[counts].mean()).exp().item()
        got = answer(logits, ids, mask)
        if isinstance(got, torch.Tensor) and got.numel() == 1:
            got = got.item()
        row_means = (shifted * counts).sum(1) / counts.sum(1)
        own = logits.log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)
        padded = (mask == 0).any().item()
        left, right = padded and (~read & target).any().item(), padded and (read & ~target).any().item()

        def value(numbers):
            return (-numbers.mean()).exp().item()

        expect_close(
            got,
            want,
            f"mask={rows} and random ids and logits",
            "Average −log p over every token that has a token before it, then take `exp`.",
            mistakes=[
                (value(shifted) if padded else None, "Padding counts here too. Keep only the tokens marked in `mask`."),
                (value(shifted[target]) if left else None, "With left padding a row's first token follows a padding token, whose logits mean nothing. Leave it out."),
                (value(shifted[read]) if right else None, "With right padding the padding token after a row's last token counts here. Check whether the *target* is a token."),
                (value(shifted[by_id]), "A token with the id of the padding is left out here. Only `mask` tells what is padding."),
                (value(row_means) if padded else None, "Each row has the same weight here. Each token should have the same weight."),
                ((-row_means).exp().mean().item() if padded else None, "This is the mean of the rows' perplexities. Average the surprise over all tokens first, then take `exp` once."),
                (value(own[mask == 1]), "Nothing is shifted: the logits at index t predict the token at index t + 1."),
                ((shifted * counts).sum().neg().div(mask.sum()).exp().item(), "The sum is right, but it is divided by the number of all tokens. A row's first token has no log probability and does not count."),
                ((shifted * counts).sum().neg().div(counts.numel()).exp().item() if padded else None, "The sum is right, but it is divided by the size of the shifted tensor, padding included."),
                (-shifted[counts].mean().item(), "This is the mean surprise. Its `exp` is the perplexity."),
                (1 / want, "`exp` of the mean log probability is one over the perplexity: change the sign first."),
                (2 ** -shifted[counts].mean().item(), "The mean is in nats, so the base is e: `exp`, not a power of 2."),
                (shifted[counts].sum().neg().exp().item(), "This is `exp` of the sum. Take the mean first."),
            ],
            tolerance=1e-3 * want,
        )  # fmt: skip
    return "You average over tokens, not rows, and leave out padding and first tokens, with padding on either side."


@exercise("07/beam-sums", title="Add up a beam's log probabilities", minutes=8, difficulty=2)
def check_beam_sums(answer):
    """Each sequence's numbers from its own rows, up to its end, from outputs made by hand."""
    cases = [
        # beams, sequences, prompt, lengths, steps, whether the numbers are still normalised
        (3, 3, 2, [4, 4, 4], 4, True),
        (3, 2, 1, [2, 4], 4, True),
        (4, 4, 3, [1, 3, 4, 2], 6, True),
        (2, 2, 2, [3, 3], 3, False),  # as after a processor
    ]
    for beams, sequences, prompt, lengths, steps, normalised in cases:
        output = _made_by_hand(beams, sequences, prompt, lengths, steps, normalised)
        width = output.beam_indices.shape[1]
        new = output.sequences[:, -width:]
        stored = torch.stack(output.scores)[:width]  # (new, beams, vocabulary)
        at, kept = torch.arange(width), output.beam_indices >= 0

        def read(rows, tokens, stored=stored, at=at):
            return stored[at, rows, tokens]  # (sequences, new)

        numbers = read(output.beam_indices, new)
        want = numbers.masked_fill(~kept, 0).sum(1)
        rows = torch.arange(sequences)[:, None]
        again = stored.log_softmax(-1)[at, output.beam_indices, new].masked_fill(~kept, 0).sum(1)
        got = answer(output)
        if isinstance(got, list | tuple) and len(got) == sequences:
            got = torch.as_tensor(got, dtype=torch.float32)
        if isinstance(got, torch.Tensor) and got.shape == numbers.shape and got.ndim == 2:
            raise Mistake("You return a number for each token. Add them up to one number per sequence.")
        if not isinstance(got, torch.Tensor) or got.shape != want.shape:
            raise Mistake(f"One number per sequence is expected, a tensor of shape {tuple(want.shape)}; {_shape(got)}.")  # fmt: skip
        if got.isnan().any():
            raise Mistake("A sum is NaN: after a sequence's end a number may be −∞, and −∞ · 0 is NaN. Use `torch.where`, or stop before it.")  # fmt: skip
        expect_close(
            got.float(),
            want,
            f"{sequences} sequences from {beams} beams, `beam_indices` {output.beam_indices.tolist()},",
            "Add up `scores[step][row, token]` of each sequence while `row` is not −1.",
            mistakes=[
                (numbers.sum(1) if not kept.all() else None, "−1 is read as a row here, the last one. It says that the sequence had ended: nothing is added then."),
                (read(rows, new).masked_fill(~kept, 0).sum(1), "Sequence i is read from row i at each step. `beam_indices` says in which row it was."),
                (read(0, new).masked_fill(~kept, 0).sum(1), "All is read from row 0. `beam_indices` says in which row a sequence was."),
                (read(output.beam_indices, output.sequences[:, :width]).masked_fill(~kept, 0).sum(1), "These are the numbers of the first ids in `sequences`: the prompt's. The new tokens are its last columns, as many as `beam_indices` has."),
                (read(output.beam_indices, output.sequences[:, -steps:][:, :width]).masked_fill(~kept, 0).sum(1) if steps > width else None, "The last `len(scores)` ids begin too early: the search went on after these sequences had ended. The new tokens are as many as `beam_indices` has columns."),
                (again if not torch.allclose(again, want) else None, "The numbers are normalised again here. They are added up as they are, since that is what beam search did."),
                (want / kept.sum(1), "The sum is right, and then divided by the length. The length penalty comes later."),
                (want.exp(), "This is the probability. Return the sum of the logarithms."),
                (-want, "The sign is wrong: log probabilities are at most 0."),
            ],
            tolerance=1e-4,
        )  # fmt: skip
    return (
        "Each number is read from the row in which its sequence was at that step, up to the sequence's end."
    )


def _made_by_hand(beams, sequences, prompt, lengths, steps, normalised):
    """What a beam search returns, with random numbers: for each sequence its length, −∞ after its end."""
    random = torch.Generator().manual_seed(11 * beams + steps)
    width = max(lengths)
    scores = torch.randn(steps, beams, 12, generator=random).log_softmax(-1)
    if not normalised:
        scores = scores - torch.rand(steps, beams, 12, generator=random)
    beam_indices = torch.randint(beams, (sequences, width), generator=random)
    tokens = torch.randint(1, 12, (sequences, prompt + width), generator=random)
    for row, length in enumerate(lengths):
        beam_indices[row, length:] = -1
        tokens[row, prompt + length :] = 0  # the padding, which nothing else is
    for step in range(min(lengths), steps):
        scores[step, :, 0] = -torch.inf
    return SimpleNamespace(
        sequences=tokens,
        scores=tuple(scores),
        beam_indices=beam_indices,
        sequences_scores=torch.zeros(sequences),
    )


def _shape(got):
    return f"got {tuple(got.shape)}" if isinstance(got, torch.Tensor) else f"got {type(got).__name__}"


CAUSES = {
    "Ada": "prompt counted",
    "Ben": "beam_indices forgotten",
    "Cleo": "padding counted",
    "Dan": "penalty forgotten",
}
_PROMPTS = ("She looked at him and", "It will rain in the", "I want to eat a big bowl of")


def claims(model, tokenizer):
    """A beam search whose first sequence ended early, and four wrong sequence scores for it.

    Returns a namespace: `output`, what generate() returned; `penalty`, its length penalty; `library`, the
    sequence score of the first sequence, a float; and `wrong`, a dict from a name to a float.
    """
    stops = _stops(tokenizer)
    for text in _PROMPTS:  # the first one with the default model; another model may need another
        inputs = tokenizer(text, return_tensors="pt").to(model.device)
        output = model.generate(
            **inputs, num_beams=4, num_return_sequences=4, do_sample=False, max_new_tokens=8,
            length_penalty=0.5, eos_token_id=stops, pad_token_id=tokenizer.eos_token_id,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        beams = output.beam_indices[0]
        if (beams < 0).any() and (beams > 0).any():
            break
    length, width = beams.ge(0).sum().item(), len(beams)
    found = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)[0]
    forgotten = model.compute_transition_scores(output.sequences, output.scores)[0, :length]
    total, prompt = found.sum().item(), inputs.input_ids.shape[1]
    by_cause = {
        "prompt counted": total / (prompt + length) ** 0.5,
        "beam_indices forgotten": forgotten.sum().item() / length**0.5,
        "padding counted": total / width**0.5,
        "penalty forgotten": total,
    }
    wrong = {name: by_cause[cause] for name, cause in CAUSES.items()}
    return SimpleNamespace(output=output, penalty=0.5, library=output.sequences_scores[0].item(), wrong=wrong)


@exercise("07/which-line", title="Find why a sequence score does not match", minutes=5, difficulty=2)
def check_mistakes(answer):
    """The mistake that each of the four people made."""
    if not isinstance(answer, dict):
        raise Mistake('Give a dictionary from names to mistakes, {"Ada": "...", ...}.')
    if unknown := [name for name in answer if name not in CAUSES]:
        raise Mistake(f"There is no {unknown[0]!r}. The four are {', '.join(CAUSES)}.")
    if unknown := [cause for cause in answer.values() if cause not in CAUSES.values()]:
        raise Mistake(f"{unknown[0]!r} is not one of the four mistakes. They are {', '.join(sorted(CAUSES.values()))}.")  # fmt: skip
    if missing := [name for name in CAUSES if name not in answer]:
        raise Mistake(f"There is no entry for {missing[0]} yet. Each of the four made one of the mistakes.")
    signs = {
        "penalty forgotten": "The undivided sum is the lowest number that the right beams can give.",
        "prompt counted": "Its length is seven: two new tokens and five of the prompt.",
        "padding counted": "Its length is the number of columns of `beam_indices`, eight.",
        "beam_indices forgotten": "No length turns the right sum into this number: it was read from other beams.",
    }
    for name, cause in CAUSES.items():
        expect_equal(answer[name], cause, f"{name}'s number", f"Look at {name} again. {signs[cause]}")
    return "Two used a wrong length, one did not divide, and one read other beams without any error."


# ---- which function the later cells run on -----------------------------------------------------------


def usable_row_sums(yours):
    """The learner's `row_sums` if it passes its check, else the course's own. Prints which; never raises."""
    return usable(check_row_sums, yours, _row_sums, "row_sums")


def usable_text_log_prob(yours):
    """The learner's `text_log_prob` if it passes its check, else the course's own. Prints which; never raises."""
    return usable(check_text_log_prob, yours, _text_log_prob, "text_log_prob")


def usable_batch_perplexity(yours):
    """The learner's `batch_perplexity` if it passes its check, else the course's own. Prints which; never raises."""
    return usable(check_batch_perplexity, yours, _batch_perplexity, "batch_perplexity")


def usable_beam_sums(yours):
    """The learner's `beam_sums` if it passes its check, else the course's own. Prints which; never raises."""
    return usable(check_beam_sums, yours, _beam_sums, "beam_sums")


def _row_sums(numbers, tokens, end_ids):
    is_end = torch.isin(tokens, torch.tensor(end_ids, device=tokens.device))
    return torch.where(is_end.long().cumsum(1) - is_end.long() == 0, numbers, 0.0).sum(1)


def _text_log_prob(model, ids):
    return token_log_probs(model, ids)[0].sum().item()


def _batch_perplexity(logits, ids, mask):
    log_probs = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return (-log_probs[(mask[:, 1:] == 1) & (mask[:, :-1] == 1)].mean()).exp().item()


def _beam_sums(output):
    return transition_scores(output, normalize_logits=False).sum(1)


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "07/quiz-compare",
        "Two texts were sampled with different temperatures. Which numbers tell you which of them the model finds likelier?",
        options=(
            Option("Those gathered from `logits`", "Both are then measured by the same distributions: the model's own.", right=True),
            Option("Those gathered from `scores`", "They say how likely each draw was, and a low temperature makes every draw look likely."),
            Option("`sequences_scores`", "Sampling without beams does not return any. Nothing is ranked."),
            Option("The number of finite `scores` at each step", "It tells how many tokens were left to draw from, not how likely the drawn one was."),
        ),
    ),
    Question(
        "07/quiz-inf",
        "`output.scores[0]` of a sampled run contains −∞ 49,102 times. What does that mean?",
        options=(
            Option("The model gave those tokens the probability 0", "The model gives no token a probability of exactly 0 here. Look at `logits`: all of them are finite."),
            Option("50 tokens were left to draw from", "The default `top_k` is 50. The processors set the others to −∞.", right=True),
            Option("The softmax was taken twice", "That would give finite numbers. −∞ comes from a processor."),
            Option("The weights overflowed", "Overflow gives +∞ or NaN, and generate() would fail at the draw."),
        ),
        proof=lambda: _finite_by_default(),
    ),
    Question(
        "07/quiz-first",
        "One forward pass reads a text of five tokens. How many log probabilities does it give?",
        options=(
            Option("Four", "There is no token before the first, and the last logits predict a sixth token.", right=True, value=4),
            Option("Five", "That would need a token before the first. Some tokenizers add one, this one does not.", value=5),
            Option("Six", "The pass returns five rows of logits, and the text has no token for the last one.", value=6),
        ),
        proof=lambda: _numbers_of_five(),
    ),
    Question(
        "07/quiz-penalty",
        "A sequence of 4 new tokens after a prompt of 6 has a sum of −8. What is its sequence score with `length_penalty=2`?",
        options=(
            Option("−0.5", "−8 / 4²: the new tokens only, and the power is the penalty.", right=True, value=-0.5),
            Option("−0.08", "−8 / 10² counts the prompt, as recipes from 2023 do.", value=-0.08),
            Option("−2", "−8 / 4 is what a penalty of 1 gives.", value=-2.0),
            Option("−128", "The sum is divided by the power, not multiplied.", value=-128.0),
        ),
        proof=lambda: _score_of_four(),
    ),
    Question(
        "07/quiz-perplexity",
        "A batch holds one sentence of 100 tokens and one of 5. What does its perplexity depend on most?",
        options=(
            Option("The long sentence", "It has 99 of the 103 tokens that count, and every token counts once.", right=True),
            Option("Both equally", "That would be a mean over rows. Perplexity is a mean over tokens."),
            Option("The short sentence", "It has only 4 of the 103 tokens in the mean, however surprising they are."),
            Option("The padding", "Padding must not count at all. If it does, the number is wrong."),
        ),
    ),
)  # fmt: skip


def _finite_by_default():
    with torch.random.fork_rng():
        output = _generated("Today is", do_sample=True, max_new_tokens=1)
    return f"{output.scores[0].isfinite().sum().item()} tokens were left to draw from"


def _numbers_of_five():
    model, _ = tiny()
    return token_log_probs(model, torch.tensor([[1026, 481, 6290, 287, 262]]))[1].sum().item()


def _score_of_four():
    """From an output made by hand: four steps, each token at −2, and a prompt of six before them."""
    output = SimpleNamespace(
        sequences=torch.zeros(1, 10, dtype=torch.long),
        scores=(torch.tensor([[-2.0, -3.0]]),) * 4,
        beam_indices=torch.zeros(1, 4, dtype=torch.int32),
        sequences_scores=torch.zeros(1),
    )
    return round(sequence_scores(output, length_penalty=2).item(), 6)
