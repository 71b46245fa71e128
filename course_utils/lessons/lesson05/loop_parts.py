"""Exercises of lesson 05: the parts of a decoding loop, compared with generate()'s own."""

import numpy
import torch
from transformers import LogitsProcessorList, StoppingCriteriaList, TemperatureLogitsWarper, TopKLogitsWarper

from ...checks.exercise import Mistake, exercise, expect_close, expect_equal
from ...checks.sandbox import NotYet
from ...masks import pad, position_ids, token_rows
from ..fixtures import tiny
from .batch import END, tiny_ends, tiny_generate, tiny_rows


@exercise("05/finish", title="Update the finished rows", minutes=8, difficulty=2)
def check_finish(answer):
    """One step's ids and flags for several ends, rows that ended before and rows that end now; then in place
    of generate()'s own two lines, on a batch whose rows end at different steps."""
    for tokens, flags, ends, pad_id in [
        ([7, 9, 30, 2], [1, 0, 1, 1], [2, 30], 0),
        ([7, 9, 30, 2, 30], [1, 1, 1, 1, 0], [2, 30], 0),
        ([5, 2], [0, 1], [30, 2], 2),
        ([8], [1], [2], 0),
        ([0, 2, 5], [1, 1, 0], [2], 0),  # 0 is the padding id, and also a token like any other
    ]:
        next_tokens, unfinished = torch.tensor(tokens), torch.tensor(flags).bool()
        got = answer(next_tokens, unfinished, ends, pad_id)
        want = _finish(next_tokens, unfinished, ends, pad_id)
        said = f"the tokens {tokens}, unfinished {unfinished.tolist()}, the ends {ends} and pad_id {pad_id}"
        _reject_wrong_flags(got, want, next_tokens, unfinished, ends, pad_id, said)
    if not torch.equal(
        _looped(answer), tiny_generate(tiny_rows(), max_new_tokens=8, eos_token_id=tiny_ends())
    ):
        raise Mistake("Each step is right, but the whole loop does not give generate()'s ids. Does your function remember something between calls? It should depend on its four inputs only.")  # fmt: skip
    return "With your update in place of its own lines, generate() returns the same ids, on rows that end at different steps."


def _finish(next_tokens, unfinished, ends, pad_id):
    next_tokens = torch.where(unfinished, next_tokens, pad_id)
    return next_tokens, unfinished & ~torch.isin(next_tokens, torch.tensor(ends, device=next_tokens.device))


def _reject_wrong_flags(got, want, tokens, unfinished, ends, pad_id, said):
    """Mistake unless `got` is the pair of tensors `want`; flags may have any numeric type."""
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake(f"Return two tensors, as in `return next_tokens, unfinished`; got {type(got).__name__}.")  # fmt: skip
    got = [torch.as_tensor(part) for part in got]
    if got[0].dtype == torch.bool and got[1].dtype != torch.bool:
        raise Mistake("Your function returns the flags first. Return the tokens first, then the flags.")
    for part, name in zip(got, ("tokens", "flags"), strict=True):
        if part.shape != tokens.shape:
            raise Mistake(f"For {said}, the {name} have shape {tuple(part.shape)}, expected one for each row: {tuple(tokens.shape)}.")  # fmt: skip
    if got[0].is_floating_point():
        raise Mistake(f"Ids are whole numbers; your tokens have dtype {got[0].dtype}.")
    is_end = torch.isin(tokens, torch.tensor(ends))
    ended_now = unfinished & is_end
    expect_equal(
        got[0].long(),
        want[0],
        said,
        "A row that had ended before this step gets the padding token; every other row keeps its token.",
        mistakes=[
            (tokens if (~unfinished).any() else None, "The rows that had ended keep the token that the model chose for them. They should get the padding token."),
            (tokens.masked_fill(~unfinished | is_end, pad_id) if ended_now.any() else None, "A row that ends at this step has lost its end-of-text, which still belongs to the row: padding begins with the next step."),
            (torch.where(unfinished, pad_id, tokens), "The unfinished rows are padded and the ended rows are not: the two are swapped."),
            (torch.where(unfinished, tokens, ends[0]) if pad_id != ends[0] else None, "The rows that had ended are padded with an end-of-text. Pad them with `pad_id`."),
        ],
    )  # fmt: skip
    first_only = unfinished & (want[0] != ends[0])
    expect_equal(
        got[1].bool(),
        want[1],
        said,
        "The tokens are right, the flags are not: a row is unfinished if it was before, and if its token is not an end.",
        mistakes=[
            (~torch.isin(want[0], torch.tensor(ends)) if (~unfinished).any() else None, "A row that had ended is unfinished again. Once a row has ended, it stays ended: `unfinished & …`."),
            (~want[1], "The flags are the wrong way round: True is for unfinished rows."),
            (unfinished if ended_now.any() else None, "No row ends here, although one has written an end-of-text."),
            (first_only if not torch.equal(first_only, want[1]) else None, "Only the first of `end_ids` counts here. Any of them ends a row: `torch.isin`."),
            (_other(unfinished & ~torch.isin(tokens, torch.tensor([*ends, pad_id])), want[1]), "A row whose own token is `pad_id` has not ended: only `end_ids` end a row."),
            (torch.zeros_like(unfinished) if want[1].any() else None, "One row's end ends all other rows here."),
            (torch.ones_like(unfinished) * want[1].any(), "The flags are the same for all rows. Each row has its own end."),
        ],
    )  # fmt: skip


def _looped(finish):
    """The ids of generate() with a loop in which `finish` handles the rows that have ended."""

    # generate() passes the mask in **inputs. If the loop had a parameter of that name, generate() would take the
    # mask for an argument of the loop alone, and prepare the inputs without it.
    def loop(model, input_ids, generation_config, **inputs):
        attention_mask = inputs["attention_mask"]
        unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for _ in range(generation_config.max_new_tokens):
            given = {"attention_mask": attention_mask, "position_ids": position_ids(attention_mask)}
            chosen = model(input_ids, **given).logits[:, -1].argmax(-1)
            kept = finish(
                chosen.cpu(), unfinished.cpu(), generation_config.eos_token_id, generation_config.pad_token_id
            )
            chosen, unfinished = (torch.as_tensor(part).to(input_ids.device) for part in kept)
            input_ids = torch.cat([input_ids, chosen[:, None]], dim=1)
            attention_mask = torch.nn.functional.pad(attention_mask, (0, 1), value=1)
            if not unfinished.any():
                break
        return input_ids

    return tiny_generate(tiny_rows(), max_new_tokens=8, eos_token_id=tiny_ends(), custom_generate=loop)


@exercise("05/processors", title="Write temperature and top-k as processors", minutes=10, difficulty=2)
def check_processors(answer):
    """Two functions (input_ids, scores) -> scores, compared with the library's classes, including ties and a
    top_k above the vocabulary; then in place of the library's own in generate(), with the same seed."""
    ids = torch.tensor([[5, 6], [7, 8]])
    rows = torch.tensor([[3.0, -1, 2, 0, 1, -2], [0.5, 4, -3, 4, 4, 1]])
    cut = torch.tensor([[float("-inf"), 2, 1, 0, -1, 3]])  # an earlier processor has forbidden one token
    for temperature, top_k, scores in [(0.5, 3, rows), (2.0, 2, rows), (1.5, 9, rows), (0.7, 4, cut)]:
        made = answer(temperature, top_k)
        if not isinstance(made, list | tuple) or len(made) != 2 or not all(map(callable, made)):
            raise Mistake("Return a list of two functions (or other callables), temperature first.")  # fmt: skip
        said = f"temperature={temperature}, top_k={top_k} and scores={scores.tolist()}"
        heated = _processed(made[0], ids, scores, "temperature")
        want = TemperatureLogitsWarper(temperature)(ids, scores)
        cut_at_k = TopKLogitsWarper(top_k)(ids, scores)
        expect_close(
            heated,
            want,
            said,
            "The first processor should divide all of `scores` by the temperature.",
            mistakes=[
                (scores * temperature, "`scores` is multiplied by the temperature. A low temperature should move its values apart: divide."),
                (want.softmax(-1), "These are probabilities. A processor returns processed scores; the softmax comes after the last processor."),
                (scores, "The temperature has no effect."),
                (cut_at_k, "The first processor is top-k. Return temperature first."),
            ],
        )  # fmt: skip
        kept = _processed(made[1], ids, scores, "top-k")
        expect_close(kept, cut_at_k, said, **_top_k_mistakes(kept, scores, cut_at_k, top_k))
    return _sampled_with(answer, LogitsProcessorList)


def _processed(processor, ids, scores, name):
    """What a learner's processor returns; Mistake if it changes its input or does not return a tensor."""
    given = scores.clone()
    try:
        got = processor(ids.clone(), given)
    except NotImplementedError as error:
        raise NotYet from error
    except (RuntimeError, IndexError) as error:
        if "out of range" in str(error):
            raise Mistake("`top_k` may be larger than the vocabulary, and then `topk` raises an error. Limit it to the number of tokens: `min(top_k, scores.shape[-1])`.") from None  # fmt: skip
        raise
    if not torch.equal(given, scores):
        raise Mistake(f"The {name} processor changes the tensor `scores` that it is given. generate() may still need it, for `output_logits`: return a new tensor.")  # fmt: skip
    if not isinstance(got, torch.Tensor) or got.shape != scores.shape:
        found = tuple(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
        raise Mistake(f"The {name} processor should return a tensor of shape {tuple(scores.shape)}, one value per token; got {found}.")  # fmt: skip
    return got


def _top_k_mistakes(got, scores, want, top_k):
    """The message and the known mistakes of a top-k processor, as expect_close takes them."""
    off = float("-inf")
    k = min(top_k, scores.shape[-1])
    exactly = torch.full_like(scores, off).scatter(-1, scores.topk(k).indices, scores.topk(k).values)
    above = scores.masked_fill(scores <= scores.topk(k).values[:, -1:], off)
    over_all = scores.masked_fill(scores < scores.flatten().topk(k).values[-1], off)
    first_row, last_row = (
        scores.masked_fill(scores < scores[row].topk(k).values[-1], off) for row in (0, -1)
    )
    smallest = scores.masked_fill(scores > -(-scores).topk(k).values[:, -1:], off)
    removed = ~want.isfinite() & scores.isfinite()
    return {
        "message": "The second processor should leave the `top_k` largest values of each row unchanged, and set all others to −∞.",
        "mistakes": [
            (scores if removed.any() else None, "Top-k has no effect: nothing is set to −∞."),
            (_other(want.masked_fill(~want.isfinite(), 0), want), "Removed tokens are set to 0, which is not a small probability after the softmax. They need −∞."),
            (_other(above, want), "The k-th largest value is removed too. Keep it: remove only what is *below* it."),
            (_other(smallest, want), "The smallest values are kept here, and the largest are removed."),
            (_other(over_all, want), "The largest values of the whole batch are kept. Each row should keep its own: `topk` along the last dimension."),
            *[(_other(limited, want), "One row's k-th value is the limit for all rows. Each row has its own: `values[:, -1:]`, which keeps the dimension of the rows.") for limited in (first_row, last_row)],
            (_other(exactly, want), "Some values tie with the k-th. The library keeps them all and removes only what is below: compare with the k-th value."),
            (lambda got: torch.equal(got.isfinite(), want.isfinite()), "The right tokens are kept, but their values have changed. Leave them as they are."),
            (want.softmax(-1), "These are probabilities. A processor returns processed scores; the softmax comes after the last processor."),
            (lambda got: torch.equal(got[~removed], want[~removed]) and (got[removed] == scores[removed]).any(), "More than the `top_k` largest values are still there. At which index of the sorted values do you take the limit? Counted from 0, the k-th is at `k - 1`."),
            (lambda got: (got[removed] > -1e3).any(), "Removed tokens keep a value that still counts in a softmax. Set them to −∞."),
            (lambda got: (got[removed] < -1e3).all() and torch.equal(got[~removed], want[~removed]), "A large negative number is not −∞: the `scores` that generate() returns would differ from the library's, and so would a count of the finite ones."),
        ],
    }  # fmt: skip


def _other(wrong, want):
    """A mistake's result, or None on inputs where the mistake does not show."""
    return None if torch.equal(wrong, want) else wrong


def _sampled_with(answer, as_list):
    """The message of success, once generate() has sampled the same ids with the learner's processors."""
    drawn = []
    for own in (False, True):
        chosen = {"temperature": 0.7, "top_k": 8}
        if own:
            processors = as_list(answer.original(0.7, 8))
            chosen = {"temperature": 1.0, "top_k": 0, "logits_processor": processors}
        with torch.random.fork_rng():
            torch.manual_seed(5)
            drawn.append(tiny_generate(tiny_rows(), max_new_tokens=8, do_sample=True, **chosen))
    if not torch.equal(*drawn):
        raise Mistake("Both are right when called alone, but generate() samples different ids with them. Does one of them remember something from an earlier call?")  # fmt: skip
    return "Your processors return the same values as the library's two classes, and in their place generate() samples the same ids."


@exercise("05/sentences", title="Stop after some sentences", minutes=10, difficulty=2)
def check_sentences(answer):
    """A stopping criterion, one flag per row, that counts the tokens after the prompt that close a sentence."""
    tokenizer = tiny()[1]
    prompts = ["Mr. Bean sat. He", "I am", "Wait! Wait!"]
    made = {}  # an answer may look at the whole vocabulary when it is called: once for each number of sentences
    for sentences, continuations in [
        (1, [" is here.", " here", " said no"]),
        (1, [" slept.", " well!", " go... And"]),
        (1, [" went on", " what?!", " know?"]),
        (2, [" is", " fine! Are you?", " go. Go"]),
        (2, [" is here...", " fine. I am.", " wait"]),
        (3, [" a. b! c?", " a. b", " here... or not"]),
        (1, [" a. b! c?", " is", " well! No."]),
        (1, [' said "no."', " is here.", " (or not?) No"]),
        (1, ["! So", " is here.", " no"]),
    ]:
        ids, length = _joined_rows(tokenizer, prompts, continuations)
        if (length, sentences) not in made:
            made[length, sentences] = answer(tokenizer, length, sentences)
        criterion = made[length, sentences]
        if not callable(criterion):
            raise Mistake(f"Return the criterion itself, a callable; got {type(criterion).__name__}.")  # fmt: skip
        said = f"the new texts {continuations} and sentences={sentences}"
        got = _verdict(criterion, ids, said)
        want = torch.tensor(_closed(tokenizer, ids[:, length:]) >= sentences)
        all_text = torch.tensor(_closed(tokenizer, ids) >= sentences)
        stop = tokenizer.encode(".")[0]
        only_stops = (ids[:, length:] == stop).sum(1) >= sentences
        inside = torch.tensor(_closed(tokenizer, ids[:, length:], _has_a_mark) >= sentences)
        newest = torch.tensor(_closed(tokenizer, ids[:, -1:]) >= sentences)
        marks = torch.tensor([sum(text.count(mark) for mark in ".!?") >= sentences for text in continuations])
        expect_equal(
            got,
            want,
            said,
            "A row is done when the number of its new tokens that close a sentence is at least `sentences`.",
            mistakes=[
                (~want if want.any() and not want.all() else None, "The flags are the wrong way round: True ends a row."),
                (_other(inside, want), "A mark inside a token is counted too, as in `.\"` or `?)`. The token's text should *end* with the mark."),
                (_other(torch.tensor(_closed(tokenizer, ids[:, length + 1 :]) >= sentences), want), "The first new token is left out. Its index is `prompt_length`, counted from 0."),
                (_other(all_text, want), "The prompt's sentences are counted too. Look only at the ids from `prompt_length` on."),
                (_other(only_stops, want), "Only the token `.` is counted. `!` and `?` close a sentence as well, and there are tokens such as `...` and `?!`: look at each token's text."),
                (_other(marks, want), "Each mark is counted, so the single token `...` counts as three. Count tokens."),
                (_other(torch.tensor(_closed(tokenizer, ids[:, length:]) >= 1), want), "One sentence ends a row here, although more were asked for."),
                (_other(newest, want), "Part of the new text is not counted. Count over all of `input_ids[:, prompt_length:]` in every call."),
                (_other(torch.tensor(_closed(tokenizer, ids[:, length:])) == sentences, want), "A row that has *more* sentences than were asked for is not done here. At least means `>=`."),
                (_other(torch.tensor(_closed(tokenizer, ids[:, length:]) > sentences), want), "A row ends one sentence too late: it is done when the number is reached."),
                (_other(want.any().expand(3), want), "One row's end ends all other rows here."),
            ],
        )  # fmt: skip
        if not torch.equal(StoppingCriteriaList([criterion])(ids, None), want):
            raise Mistake("Called again with the same ids, your criterion returns something else. It should depend on its arguments only.")  # fmt: skip
    return "One flag for each row, and only new text counts: generate() can stop each row separately."


def _joined_rows(tokenizer, prompts, continuations):
    """Left-padded prompts followed by their right-padded continuations, and the length of the prompts."""
    left, _ = pad(token_rows(tokenizer, prompts), END)
    right, _ = pad(token_rows(tokenizer, continuations), END, "right")
    return torch.cat([left, right], dim=1), left.shape[1]


def _ends_with_a_mark(text):
    return text.endswith((".", "!", "?"))


def _has_a_mark(text):
    return any(mark in text for mark in ".!?")


def _closed(tokenizer, ids, closes=_ends_with_a_mark):
    """How many tokens of each row close a sentence, by their text, an array (batch,)."""
    return numpy.array([sum(closes(tokenizer.decode([id])) for id in row) for row in ids.tolist()])


def _verdict(criterion, ids, said):
    """What a learner's criterion says, a BoolTensor (batch,); Mistake for anything else."""
    try:
        got = criterion(ids.clone(), None)
    except NotImplementedError as error:
        raise NotYet from error
    if not isinstance(got, torch.Tensor):
        if isinstance(got, bool):
            raise Mistake(f"For {said}, the criterion returns a single {got} for the whole batch. Return a tensor with a flag for each row: (batch,).")  # fmt: skip
        raise Mistake(f"For {said}, the criterion returns {type(got).__name__}. generate() combines criteria with `|`: return a boolean tensor.")  # fmt: skip
    if got.shape != (len(ids),):
        raise Mistake(f"For {said}, the criterion returns shape {tuple(got.shape)}. Return a flag for each row: ({len(ids)},).")  # fmt: skip
    if got.dtype != torch.bool:
        raise Mistake(f"The flags have dtype {got.dtype}. generate() inverts them with `~`, which does something else to whole numbers: return True and False.")  # fmt: skip
    return got
