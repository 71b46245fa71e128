"""From a ragged list of ids to the mask that meets the attention scores.

    rows of ids -> `pad` -> ids and attention mask
    attention mask -> `position_ids`
    attention mask -> `joined_mask` (True: may look) -> `additive_mask` (added to the scores)

Lessons 02 and 03 build each step in their cells; widgets and later lessons use these. The conventions are
transformers': 1 is a token and 0 is padding in two dimensions, True is "may look" in four
(masking_utils.sdpa_mask), and a forbidden place is the dtype's smallest number where the mask is added
(masking_utils.eager_mask).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from .errors import CourseError
from .inputs.numbers import integer
from .inputs.text import check_length, text_ids

SIDES = ("left", "right")
FILLS = ("-inf", "finfo.min", "-1e4")
IGNORED = -100  # a label that torch's cross-entropy skips


def token_rows(tokenizer: Any, sentences: Any, limit: int | None = None) -> list[list[int]]:
    """The ids of each sentence: a list of lists of int, as ragged as the sentences are.

    sentences: a list of str (or an array), none of them empty
    limit:     int or None; how many tokens the model takes (`inputs.position_limit(model)`)
    Raises CourseError if `sentences` is anything else, or if a sentence is longer than `limit`.
    """
    if isinstance(sentences, str):
        raise CourseError(
            f"A batch is a list of sentences, and this is one text. Put it into a list: [{sentences[:40]!r}]."
        )
    sentences = _as_list(sentences)
    if not isinstance(sentences, list | tuple):
        raise CourseError(
            f"A batch is a list of sentences, and this is of type {type(sentences).__name__}. "
            'Type ["My dog is"].'
        )
    if not sentences:
        raise CourseError(
            'The batch is empty: there is nothing to pad. Type at least one sentence, ["My dog is"].'
        )
    rows = []
    for number, sentence in enumerate(sentences, 1):
        rows.append(text_ids(tokenizer, sentence, f"sentence {number}", "pad"))
        check_length(len(rows[-1]), limit, f"sentence {number}", "the model has {most} positions")
    return rows


def pad(rows: Any, pad_id: int | None, side: str = "left") -> tuple[torch.Tensor, torch.Tensor]:
    """Make ragged rows rectangular.

    rows:   a list of non-empty lists of int; tensors and arrays do for both
    pad_id: int, the id to fill with
    side:   "left" or "right", where the padding goes
    Returns (input_ids, attention_mask), both LongTensor [batch, length]; the mask is 1 at the rows' own ids.
    Raises CourseError for an empty list, an empty row, ids that are not integers, a missing pad id or an
    unknown side.
    """
    _check_side(side)
    try:
        rows = [_as_list(row) for row in rows]
    except TypeError:
        raise CourseError(
            f"The rows are of type {type(rows).__name__}. A batch is a list of rows: [[40, 765], [3666]]."
        ) from None
    if not rows:
        raise CourseError(
            "The batch is empty: there is nothing to pad. Give at least one row of ids, [[40, 765]]."
        )
    for number, row in enumerate(rows):
        if not isinstance(row, list | tuple) or any(integer(id) is None for id in row):
            raise CourseError(
                f"Row {number} is {row!r}, not a list of ids. A batch is a list of rows: [[40, 765], [3666]]."
            )
        if len(row) == 0:
            raise CourseError(f"Row {number} has no ids: it would be nothing but padding. Leave it out.")
    if pad_id is None:
        raise CourseError(
            "There is no pad id. Name a token to fill with: tokenizer.pad_token = tokenizer.eos_token, "
            "then give tokenizer.pad_token_id."
        )
    filler = integer(pad_id)
    if filler is None:
        raise CourseError(f"The pad id is {pad_id!r}, and one id is expected. Give tokenizer.pad_token_id.")
    longest = max(map(len, rows))
    input_ids = torch.full((len(rows), longest), filler, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        input_ids[number, place] = torch.tensor([integer(id) for id in row])
        attention_mask[number, place] = 1
    return input_ids, attention_mask


def pad_sentences(
    tokenizer: Any, sentences: Any, side: str = "left", limit: int | None = None
) -> dict[str, torch.Tensor]:
    """`token_rows`, then `pad` with the tokenizer's pad token.

    Returns {"input_ids", "attention_mask"}, both LongTensor [batch, length]: ready for `generate(**batch)`.
    Raises CourseError for whatever those two refuse, and for a tokenizer without a pad token.
    """
    _check_side(side)
    rows = token_rows(tokenizer, sentences, limit)
    if tokenizer.pad_token_id is None:
        raise CourseError(
            "This tokenizer has no pad token, so it cannot fill a short row. "
            "Type tokenizer.pad_token = tokenizer.eos_token, then run this again."
        )
    input_ids, attention_mask = pad(rows, tokenizer.pad_token_id, side)
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def check_mask(attention_mask: Any, shape: Sequence[int] | None = None) -> torch.Tensor:
    """The mask as LongTensor [batch, length], once it is known to be one.

    attention_mask: a tensor, an array or a nested list of 0 and 1 (or False and True)
    shape:          the shape of the ids that it belongs to, or None
    Raises CourseError for another number of dimensions, another shape, other values, and for a row of zeros.
    """
    try:
        mask = _as_tensor(attention_mask)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CourseError(
            f"An attention mask is a table of 0 and 1 with rows of one length; this is not one: {error}."
        ) from None
    if mask.ndim != 2:
        raise CourseError(
            f"An attention mask has two dimensions, (batch, length); this one has the shape "
            f"{tuple(mask.shape)}. For a single row, type mask[None]."
        )
    if shape is not None and mask.shape != tuple(shape):
        raise CourseError(
            f"The attention mask has the shape {tuple(mask.shape)}, the ids have {tuple(shape)}. "
            "Give it one 0 or 1 for each id."
        )
    strange = mask[(mask != 0) & (mask != 1)]
    if strange.numel():
        raise CourseError(
            f"An attention mask holds 0 (padding) and 1 (token) only; this one holds {strange[0].item():g}. "
            "Type (input_ids != pad_id).long() if the pad id is in no sentence."
        )
    empty = (mask == 0).all(dim=1).nonzero().flatten()
    if mask.shape[1] == 0 or empty.numel():
        row = empty[0].item() if empty.numel() else 0
        raise CourseError(
            f"Row {row} of the attention mask has no 1: there is no token to attend to. "
            "Give the row at least one token, or leave it out."
        )
    return mask.long()


def position_ids(attention_mask: Any) -> torch.Tensor:
    """Positions that count tokens only: LongTensor [batch, length], from 0 at each row's first token.

    Padding gets 0, which no token ever looks at. The same as generate() computes for itself
    (GenerationMixin._prepare_position_ids_for_generation). Raises CourseError as `check_mask` does.
    """
    mask = check_mask(attention_mask)
    return (mask.cumsum(dim=1) - 1).masked_fill(mask == 0, 0)


def joined_mask(attention_mask: Any, causal: bool = True, queries: int | None = None) -> torch.Tensor:
    """Which key each query may look at: BoolTensor [batch, 1, queries, length], True for "may look".

    attention_mask: 0 and 1, [batch, length]; all ones for the causal mask alone
    causal:         False leaves the padding mask alone
    queries:        int, for the last so many places only (with a KV cache: the new ones); None for all
    The second dimension is there to spread over the heads. Raises CourseError as `check_mask` does, and if
    there are more queries than places.
    """
    mask = check_mask(attention_mask)
    length = mask.shape[1]
    count = length if queries is None else integer(queries)
    if count is None or not 0 < count <= length:
        raise CourseError(f"There are {length} places and {queries!r} queries: give 1 to {length}.")
    allowed = mask.bool()[:, None, None, :].expand(-1, 1, count, -1)  # (batch, 1, queries, length)
    if causal:
        keys = torch.arange(length, device=mask.device)
        allowed = allowed & (keys <= keys[length - count :, None])
    return allowed.clone()


def fill_value(fill: str | float, dtype: torch.dtype) -> torch.Tensor:
    """The number at a forbidden place: a tensor without dimensions, of type `dtype`.

    fill: "-inf", "finfo.min" (the smallest number of `dtype`), or a number or its text, such as "-1e4"
    Raises CourseError for anything else, for a dtype without fractions, and for a number outside of it.
    """
    if not dtype.is_floating_point:
        raise CourseError(
            f"A mask that is added to scores needs their type; {dtype} has no fractions. Give torch.float32."
        )
    if fill == "finfo.min":
        return torch.tensor(torch.finfo(dtype).min, dtype=dtype)
    try:
        number = float(fill)
    except (TypeError, ValueError):
        raise CourseError(
            f"{fill!r} is not a fill value. Give one of {', '.join(map(repr, FILLS))}, or a number."
        ) from None
    if math.isnan(number) or number >= 0:
        raise CourseError(f"{fill!r} would not forbid anything: a fill value is negative. Give 'finfo.min'.")
    if math.isfinite(number) and number < torch.finfo(dtype).min:
        raise CourseError(
            f"{number:g} does not fit into {dtype}, whose smallest number is {torch.finfo(dtype).min:g}: "
            "it would turn into -inf. Give 'finfo.min', or '-inf' if that is what you want."
        )
    return torch.tensor(number, dtype=dtype)


def additive_mask(
    allowed: torch.Tensor, dtype: torch.dtype = torch.float32, fill: str | float = "finfo.min"
) -> torch.Tensor:
    """The mask that is added to the scores: 0 where `allowed`, `fill_value(fill, dtype)` elsewhere.

    allowed: BoolTensor of any shape, from `joined_mask`
    Returns a tensor of the same shape, of type `dtype`. Raises CourseError for a mask that is not boolean
    (a 1 that is added would raise a score, not forbid one), and as `fill_value` does.
    """
    if not isinstance(allowed, torch.Tensor) or allowed.dtype != torch.bool:
        kind = allowed.dtype if isinstance(allowed, torch.Tensor) else type(allowed).__name__
        raise CourseError(
            f"This takes a mask of True and False, and was given {kind}. Type joined_mask(attention_mask), "
            "or attention_mask.bool() for padding alone."
        )
    zero = torch.zeros((), dtype=dtype, device=allowed.device)
    return torch.where(allowed, zero, fill_value(fill, dtype).to(allowed.device))


def labels_from_ids(input_ids: Any, pad_id: int | None) -> torch.Tensor:
    """Labels for rows that are padded on the right with their own end-of-text token.

    input_ids: LongTensor [batch, length], or an array or rows of one length; pad_id: int, also the
               end-of-text token
    Returns LongTensor [batch, length] with -100, which the loss skips, at the padding. Of the run of `pad_id`
    that closes a row the first is kept: it is the end of the text, the one place that teaches when to stop.
    Where the attention mask is at hand, `input_ids.masked_fill(attention_mask == 0, -100)` says the same
    without guessing. Raises CourseError for ids that are not such a table, and for a missing pad id.
    """
    try:
        input_ids = _as_tensor(input_ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CourseError(
            f"Ids are a table of integers with rows of one length; this is not one: {error}."
        ) from None
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise CourseError(f"The ids are of type {input_ids.dtype}; ids are integers. Type input_ids.long().")
    if integer(pad_id) is None:
        raise CourseError(f"The pad id is {pad_id!r}, and one id is expected. Give tokenizer.pad_token_id.")
    input_ids = input_ids.long()
    if input_ids.ndim != 2:
        raise CourseError(
            f"The ids need two dimensions, (batch, length); these have the shape {tuple(input_ids.shape)}. "
            "For a single row, type input_ids[None]."
        )
    is_pad = (input_ids == integer(pad_id)).long()
    in_last_run = is_pad.flip(1).cumprod(dim=1).flip(1)
    padding = in_last_run.cumsum(dim=1) > 1
    return input_ids.masked_fill(padding, IGNORED)


def _as_list(values):
    """A tensor, an array (NumPy's or another's) or a range as a list; everything else as it is."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return list(values) if isinstance(values, range) else values


def _as_tensor(table):
    """A tensor of a table that may be a tensor, an array, or a list of rows that are any of these."""
    if isinstance(table, torch.Tensor):
        return table
    table = _as_list(table)
    return torch.tensor([_as_list(row) for row in table] if isinstance(table, list | tuple) else table)


def _check_side(side):
    if side not in SIDES:
        raise CourseError(f"{side!r} is not a side. Give 'left' (to generate) or 'right' (to train).")
