"""Exercise of lesson 05: a streamer that shows probabilities."""

import torch
from transformers import LogitsProcessorList

from ...checks.exercise import Mistake, exercise, expect_close, expect_equal
from ..fixtures import tiny
from .batch import tiny_generate, tiny_rows


@exercise("05/streamer", title="Stream tokens with their probabilities", minutes=12, difficulty=3)
def check_streamer(answer):
    """A class that is a streamer and a logits processor: what it collects, greedy and sampled, after a prompt
    of several tokens and of one, and whether generate() still writes the same."""
    tokenizer = tiny()[1]
    for arguments, row in (
        ({}, tiny_rows()[:1]),
        ({"do_sample": True, "top_k": 0}, tiny_rows()[:1]),
        ({}, tiny_rows(("My",))),
    ):
        out = _seeded(row, [_sharper], output_scores=True, return_dict_in_generate=True, **arguments)
        new = out.sequences[0, len(row[0]) :]
        texts = [tokenizer.decode([id]) for id in new.tolist()]
        probs = torch.cat(out.scores).softmax(-1)
        want = probs[range(6), new].tolist()
        said = "sampling" if arguments else "greedy decoding"
        said += ", after a prompt of one token," if len(row[0]) == 1 else ""
        shown = _shown(answer, row, out.sequences, arguments, said)
        if len(row[0]) == 1 and len(shown) == 7:
            raise Mistake("A prompt of one token is taken for a new token. The prompt is (1, length), a new token (1,): compare `ids.ndim`, not the number of ids.")  # fmt: skip
        _reject_wrong_texts([text for text, _ in shown], texts, tokenizer, new, said)
        scores = torch.cat(out.scores)[range(6), new]
        log_probs = torch.tensor(want).log()
        expect_close(
            [float(number) for _, number in shown],
            want,
            said,
            "The texts are right, the probabilities are not. Each text should come with the probability of its own token, from the `scores` of the step that chose it.",
            mistakes=[
                (scores.tolist(), "These are processed scores. A softmax turns them into probabilities."),
                (log_probs.tolist(), "These are log probabilities. Return the probabilities themselves."),
                ([100 * p for p in want], "These are percentages. Store a number from 0 to 1."),
                ((1 - torch.tensor(want)).tolist(), "This is the probability of all other tokens together."),
                (probs.max(-1).values.tolist() if arguments.get("do_sample") else None, "This is the largest probability, which a sampled token need not have. Look up the probability of the token that `put` is given."),
                (lambda got: torch.allclose(torch.tensor(got[1:]), torch.tensor([probs[step, new[step + 1]].item() for step in range(5)]), rtol=1e-4), "Each probability comes from the step before its token's."),
            ],
            tolerance=1e-4,
        )  # fmt: skip
    return "Each token comes with its own probability, greedy and sampled, and generate() writes the same ids as without your streamer."


def _sharper(input_ids, scores):
    """A processor: the tiny model's distributions are too flat to tell two mistakes apart."""
    return 4 * scores


def _seeded(row, processors, **arguments):
    """Six tokens after the row, always the same ones; torch's random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        processors = LogitsProcessorList(processors)
        return tiny_generate(row, max_new_tokens=6, logits_processor=processors, **arguments)


def _shown(answer, row, sequences, arguments, said):
    """What the learner's streamer has collected: a list of pairs; Mistake where generate() was disturbed."""
    streamer = answer(tiny()[1])
    steps = []

    def sharper(input_ids, scores):
        steps.append(None)
        return _sharper(input_ids, scores)

    try:
        ids = _seeded(row, [sharper, streamer], streamer=streamer, **arguments)
    except NotImplementedError:
        raise
    except Exception as error:
        if not steps:  # no scores yet: this was the prompt
            raise Mistake(f"`put` gets the prompt first, (1, length), before there are any scores, and there it stops with {type(error).__name__}. Let the prompt pass.") from None  # fmt: skip
        if isinstance(error, AttributeError | TypeError) and "NoneType" in str(error):
            raise Mistake("generate() stopped because `__call__` returned None. It is a processor: return `scores`.") from None  # fmt: skip
        raise
    if not torch.equal(ids, sequences):
        raise Mistake(f"With {said}, generate() writes different ids with your streamer than without it. `__call__` should return `scores` unchanged.")  # fmt: skip
    shown = getattr(streamer, "shown", None)
    if not isinstance(shown, list):
        raise Mistake("Collect the pairs in `self.shown`, a list.")
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in shown):
        raise Mistake("`self.shown` should hold pairs, (text, probability).")
    if not shown:
        raise Mistake(f"With {said}, nothing was collected: `self.shown` is empty. Append to it in `put`.")
    return shown


def _reject_wrong_texts(got, want, tokenizer, new, said):
    prompt = len(tiny_rows()[0])
    expect_equal(
        got,
        want,
        said,
        "The texts are not those of the new tokens, one by one.",
        mistakes=[
            (lambda got: len(got) == 7 or len(got) == 6 + prompt, "The prompt is included too. `put` gets it first, as (1, length), before the processor is called."),
            (lambda got: got == new.tolist(), "These are ids. Decode each one."),
            (lambda got: got == [tokenizer.decode(new[: step + 1]) for step in range(6)], "Each text includes the earlier ones as well. Decode the new id alone."),
            (lambda got: got == want[1:], "The first new token is missing: only the first call of `put` gets the prompt."),
            (lambda got: got == want[:-1], "The last token is missing. Append in `put`, where the token is known, not one call later."),
        ],
    )  # fmt: skip
