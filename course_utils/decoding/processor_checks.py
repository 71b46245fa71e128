"""What logits processors and stopping criteria answer, checked: many of them are a learner's own."""

from pathlib import Path

import torch
import transformers

from ..errors import CourseError

_LIBRARY = Path(transformers.__file__).parent
_MADE_OF = {  # processors that generate() makes of an argument which a learner writes token by token
    "PrefixConstrainedLogitsProcessor": "prefix_allowed_tokens_fn",
    "NoBadWordsLogitsProcessor": "bad_words_ids",
    "SequenceBiasLogitsProcessor": "sequence_bias",
    "SuppressTokensLogitsProcessor": "suppress_tokens",
    "ForcedBOSTokenLogitsProcessor": "forced_bos_token_id",
    "ForcedEOSTokenLogitsProcessor": "forced_eos_token_id",
}


def name_of(thing):
    """The name of a logits processor or stopping criterion: str, a function's own or that of the class."""
    return getattr(thing, "__name__", type(thing).__name__)


def check_scores(processor, scores, before):
    """Raise CourseError unless `scores`, which a logits processor returned, are like those it was given.

    before: FloatTensor [batch, vocab]
    """
    rows, vocabulary = before.shape
    expected = f"expected the scores, a tensor of {before.dtype} of the shape {(rows, vocabulary)}"
    if scores is None:
        raise CourseError(
            f"The logits processor {name_of(processor)} returned None, {expected}. "
            "End it with the line: return scores."
        )
    if not isinstance(scores, torch.Tensor):
        given = f"something of the type {type(scores).__name__}"
    elif scores.shape != before.shape:
        given = f"a tensor of the shape {tuple(scores.shape)}"
    elif not scores.is_floating_point():
        given = f"a tensor of {scores.dtype}"
    elif scores.device != before.device:
        raise CourseError(
            f"The logits processor {name_of(processor)} returned scores on {scores.device}, and was given "
            f"some on {before.device}. Return them there: scores.to({str(before.device)!r})."
        )
    else:
        return
    raise CourseError(
        f"The logits processor {name_of(processor)} returned {given}, {expected}. It may change any of the "
        "numbers, and set a token to -inf to forbid it, but there is one for each token."
    )


def checked_verdict(criterion, verdict, finished):
    """What a stopping criterion returned, as BoolTensor of no dimensions or [batch], on the device of
    `finished` (BoolTensor [batch]). Raises CourseError for anything else."""
    try:
        checked = torch.as_tensor(verdict, device=finished.device).bool()
    except (RuntimeError, TypeError, ValueError):
        checked = None
    if checked is None or (checked.shape != () and checked.shape not in ((1,), finished.shape)):
        given = "None" if verdict is None else f"something of the type {type(verdict).__name__}"
        if checked is not None:
            given = f"verdicts of the shape {tuple(checked.shape)}"
        raise CourseError(
            f"The stopping criterion {name_of(criterion)} returned {given}, expected True or False for each "
            f"of the {len(finished)} rows. Return a tensor, such as input_ids[:, -1] == 13."
        )
    return checked


def raised_in_transformers(error):
    """Whether an exception comes from a line of transformers, and not from a function that it called."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return _LIBRARY in Path(trace.tb_frame.f_code.co_filename).parents


def failed_processor(processor, error, vocabulary):
    """The CourseError for one of transformers' logits processors that `error` stopped."""
    name, what = name_of(processor), str(error).rstrip(". ")
    argument = _MADE_OF.get(name)
    if argument is None:
        return CourseError(f"The logits processor {name} fails: {what}. Mend it, or leave it out.")
    return CourseError(
        f"generate() makes {name} of {argument}, and it fails: {what}. "
        f"Let {argument} name at least one token each time, and only ids from 0 to {vocabulary - 1}."
    )


def check_distributions(step, needed, logits, stages, probs):
    """Raise CourseError if a row that is `needed` (BoolTensor [batch]) has no distribution to choose from.

    Softmax makes all of a row NaN where it meets NaN, +inf or nothing but -inf.
    """
    broken = probs[:, 0].isnan() & needed
    if not broken.any():
        return
    row = broken.nonzero()[0].item()
    name, scores = next(
        (name, scores[row])
        for name, scores in (("the model", logits), *stages)
        if scores[row].softmax(dim=-1).isnan().any()
    )
    place = f"At step {step} (counted from 0), row {row} has no distribution after {name}"
    if scores.isneginf().all():
        raise CourseError(
            f"{place}: every token is at -inf, so none is left to choose. Loosen what forbids tokens."
        )
    advice = "Look at the scores that it returns, or leave it out."
    if name == "the model":
        advice = "Look at its weights (parameter.isfinite()) and its dtype: float16 overflows, model.float()."
    raise CourseError(f"{place}: the scores hold {'NaN' if scores.isnan().any() else '+inf'}. {advice}")
