"""Lesson 02: predictions, exercise checks and quiz. The helpers whose names begin with `_` compute the answers."""

import functools

import torch

from ..checks.exercise import Mistake, exercise, expect_equal
from ..checks.quiz import NumberPrediction, Option, Prediction, Question
from ..masks import labels_from_ids, pad, position_ids, token_rows
from .fixtures import SENTENCES, quiet_transformers, tiny, usable, warnings_on_the_page  # noqa: F401 (the notebook's)

PAD = 50256  # GPT-2's end-of-text token, which the lesson pads with


# ---- predictions -------------------------------------------------------------------------------------

predict_right = Prediction(
    "02/predict-right",
    "Padding on the right, no mask, answers read at each row's last token. Which model's answers are wrong?",
    options=(
        Option("Neither model's", "A token sees itself and the tokens before it. What follows cannot matter.", right=True, value=[]),
        Option("GPT-2's only", "GPT-2 takes each token's index as its position, and with right padding the indices are right.", value=["tiny-gpt2"]),
        Option("Llama's only", "For Llama the distances between tokens matter, and no distance has changed.", value=["tiny-llama"]),
        Option("Both", "The padding comes after the token that we read, and a decoder never looks ahead.", value=["tiny-gpt2", "tiny-llama"]),
    ),
    proof=lambda: _wrong_models("right", mask=False, positions=False),
)  # fmt: skip

predict_left = Prediction(
    "02/predict-left",
    "Padding on the left, with the mask. Which model's answers are wrong?",
    options=(
        Option("Neither model's", "The mask hides the padding from attention. But the padding has one effect outside attention.", value=[]),
        Option("GPT-2's only", "Something outside attention depends on how many padding tokens come first. The next cells find it.", right=True, value=["tiny-gpt2"]),
        Option("Llama's only", "The models differ in one part, and it is GPT-2's that the padding affects.", value=["tiny-llama"]),
        Option("Both", "For one of them, hiding the padding is enough.", value=["tiny-gpt2", "tiny-llama"]),
    ),
    proof=lambda: _wrong_models("left", mask=True, positions=False),
)  # fmt: skip

predict_positions_only = Prediction(
    "02/predict-positions-only",
    "A forward pass with default settings: left padding, the correct position ids, no mask. Which model's answers are wrong?",
    options=(
        Option("Neither model's", "Position ids say where a token stands. Only the mask says whether others may attend to it.", value=[]),
        Option("GPT-2's only", "Every model reads padding that is not masked, whatever position ids it gets.", value=["tiny-gpt2"]),
        Option("Llama's only", "Every model reads padding that is not masked, whatever position ids it gets.", value=["tiny-llama"]),
        Option("Both", "Without a mask the padding is read like words. Correct position ids do not hide it.", right=True, value=["tiny-gpt2", "tiny-llama"]),
    ),
    proof=lambda: _wrong_models("left", mask=False, positions=True),
)  # fmt: skip

predict_generate = NumberPrediction(
    "02/predict-generate",
    "`generate()` gets the right-padded batch and its mask. How many of the three rows are the same as for the prompts alone?",
    key=1,
    unit="rows",
    why="Only the row without padding. The other two are read, and continued, at a padding token.",
    wrong=(
        (
            3,
            "A forward pass, read at the last token, has all three right. `generate()` reads at the last index.",
        ),
        (2, "One row has no padding. The other two both have it, and both go wrong."),
        (0, "One of the three rows has no padding, so nothing can go wrong with it."),
    ),
    otherwise="There are three rows: a number from 0 to 3.",
    proof=lambda: _rows_right("right"),
)

predict_labels = NumberPrediction(
    "02/predict-labels",
    "The labels are `ids.masked_fill(ids == pad_id, -100)`. How many of the three texts still have an end-of-text target?",
    key=0,
    unit="texts",
    why="The end and the padding have the same id, so every end is removed too, even where no padding follows.",
    wrong=(
        (1, "The row without padding? Its last id is 50256 too, and only the id is compared."),
        (2, "With or without padding, a row ends with the id that is removed."),
        (
            3,
            "That is what the mask would give: it is 1 at the true end. Comparing ids cannot tell the two apart.",
        ),
    ),
    otherwise="There are three texts: a number from 0 to 3.",
    proof=lambda: _ends_left(),
)


@functools.cache
def _wrong_models(side, mask, positions):
    """The names of the tiny models whose padded answers differ from those of the prompts alone."""
    return [name for name in ("tiny-gpt2", "tiny-llama") if _distance(name, side, mask, positions) > 0.01]


def _distance(name, side, mask, positions):
    """Total variation between padded and unpadded next-token distributions, the worst of the three rows."""
    model, tokenizer = tiny(name)
    rows = token_rows(tokenizer, SENTENCES)
    input_ids, attention_mask = (tensor.to(model.device) for tensor in pad(rows, PAD, side))
    given = {"attention_mask": attention_mask} if mask else {}
    given |= {"position_ids": position_ids(attention_mask)} if positions else {}
    worst = 0.0
    with torch.no_grad():
        logits = model(input_ids, **given).logits
        for number, row in enumerate(rows):
            alone = model(torch.tensor([row], device=model.device)).logits[0, -1].softmax(-1)
            place = len(row) - 1 if side == "right" else -1
            padded = logits[number, place].softmax(-1)
            worst = max(worst, (padded - alone).abs().sum().item() / 2)
    return worst


def _continued(rows, **options):
    """Six greedy ids after each of the padded rows, a list of lists; `options` go to pad() and generate()."""
    model, _ = tiny()
    pad_id = options.pop("pad_token_id", PAD)
    use_mask = options.pop("use_mask", True)
    input_ids, mask = (t.to(model.device) for t in pad(rows, pad_id, options.pop("side", "left")))
    given = {"attention_mask": mask} if use_mask else {}
    with quiet_transformers():
        ids = model.generate(input_ids, **given, max_new_tokens=6, do_sample=False, pad_token_id=pad_id)
    return ids[:, input_ids.shape[1] :].tolist()


def _rows():
    return token_rows(tiny()[1], SENTENCES)


def _rows_right(side, **options):
    """How many rows of the batch generate() continues as it continues them alone."""
    together = _continued(_rows(), side=side, **options)
    return sum(got == _continued([row])[0] for got, row in zip(together, _rows(), strict=True))


def _ends_left():
    input_ids, _ = pad([[3666, 13, PAD], [1026, 481, 6290, 13, PAD], [40, PAD]], PAD, "right")
    labels = torch.where(input_ids == PAD, -100, input_ids)
    return (labels == PAD).sum().item()


# ---- exercises ---------------------------------------------------------------------------------------


@exercise("02/pad-left", title="Pad a ragged batch on the left", minutes=4, difficulty=1)
def check_pad_left(answer):
    """Ids and mask for rows of several lengths, with a pad id that is also a token of one row."""
    for rows, pad_id in [
        ([[1026, 481, 6290], [40], [3666, 3290]], PAD),
        ([[5], [6, 7, 8, 9]], 0),
        ([[5, 0, 7], [0], [1, 2]], 0),
        ([[5, 6, 7]], PAD),
    ]:
        want = [tensor.tolist() for tensor in pad(rows, pad_id, "left")]
        got = answer(rows, pad_id)
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Mistake(
                f"Return two things, the ids and the mask, as in `return input_ids, attention_mask`; got {type(got).__name__}."
            )
        got = [_whole_numbers(part, name) for part, name in zip(got, ("the ids", "the mask"), strict=True)]
        on_the_right = [tensor.tolist() for tensor in pad(rows, pad_id, "right")]
        inverted = [[1 - number for number in row] for row in want[1]]
        shortest, longest = min(map(len, rows)), max(map(len, rows))
        expect_equal(
            got,
            want,
            (rows, pad_id),
            "Put the padding before the row, and 0 at the same indices of the mask.",
            mistakes=[
                (on_the_right if on_the_right != want else None, "The padding is on the right. Put it before the row: `[pad_id] * n + row`."),
                (want[::-1], "The mask comes first here. Return the ids first, then the mask."),
                ([want[0], inverted], "The mask is inverted: 1 stands for a token, 0 for padding."),
                ([want[0], [[int(id != pad_id) for id in row] for row in want[0]]], "The mask was made by comparing ids, and a real token that equals `pad_id` was lost. Use the lengths."),
                ([want[0], [[1] * longest for _ in rows]], "The mask is 1 everywhere, so the model would read the padding."),
                (lambda got: [len(row) for row in got[0]] == [shortest] * len(rows) and shortest < longest, "Tokens were cut off: pad to the longest row, do not cut to the shortest."),
                (lambda got: [[id for id in row if id != pad_id] for row in got[0]] == [[id for id in row if id != pad_id] for row in want[0]] and len(got[0][0]) > longest, "There is more padding than needed: the longest row needs none."),
                (lambda got: pad_id != 0 and [[pad_id if id == 0 else id for id in row] for row in got[0]] == want[0], "The rows are padded with 0. Pad them with `pad_id`: 0 is the id of a real token."),
                (lambda got: pad_id != PAD and [[pad_id if id == PAD else id for id in row] for row in got[0]] == want[0], f"The rows are padded with {PAD}, whatever `pad_id` is. Use the argument `pad_id`."),
            ],
        )  # fmt: skip
    return "Every row is padded on the left, and the mask says what is real, even where a token equals the pad id."


@exercise("02/positions", title="Compute position ids from a mask", minutes=4, difficulty=2)
def check_positions(answer):
    """Positions that count tokens, for padding on either side and on none."""
    for rows in [
        [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]],  # up to 12 numbers are shown in full
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
        [[0, 1, 1, 0]],
    ]:
        mask = torch.tensor(rows)
        want = position_ids(mask)
        got = torch.tensor(_whole_numbers(answer(mask), "the positions"))
        counted = mask.cumsum(1)
        places = torch.arange(mask.shape[1]).expand_as(mask)
        shifted = (places - (mask == 0).sum(1, keepdim=True)).clamp(min=0)
        expect_equal(
            got,
            want,
            (mask,),
            "Count the tokens up to each index and subtract one; padding gets 0.",
            mistakes=[
                (counted - 1 if counted.min() == 0 else None, "The tokens are right. The padding before them should get 0: −1 is not a position."),
                ((counted - 1).masked_fill(mask == 0, 1), "The tokens are right. Padding should get 0, not 1."),
                (lambda got: torch.equal(got * mask, want) and (mask[:, 0] == 1).all(), "The tokens are right. The padding after them continues their positions: it should get 0."),
                (places if not torch.equal(places, want) else None, "These are the indices in the row, padding included. Count only the tokens."),
                (counted * mask, "The first token should have position 0, and here it has 1: subtract one."),
                (shifted, "Shifting each row by its number of padding tokens works for left padding only. Count with a cumulative sum."),
                (places * mask, "Padding has 0, but the tokens still have their indices in the row."),
                (lambda got: got.shape != want.shape, f"The positions need the shape of the mask, {tuple(want.shape)}."),
            ],
        )  # fmt: skip
    return "Tokens are counted, padding is not: these are the positions that generate() computes, for both sides."


def usable_positions(yours):
    """The learner's `positions` if it passes its check, else `masks.position_ids`. Prints which; never raises."""
    return usable(check_positions, yours, position_ids, "positions")


def broken_batch():
    """A batch of three rows with three different bugs, as CPU tensors: input_ids, attention_mask, position_ids."""
    return _broken(_rows(), PAD, side=0, positions=1, mask=2)


def _broken(rows, pad_id, side, positions, mask):
    """A left-padded batch in which row `side` is padded on the right, row `positions` counts from 1, and
    row `mask` does not cover its last padding token."""
    (input_ids, attention_mask), (right_ids, right_mask) = (pad(rows, pad_id, s) for s in ("left", "right"))
    input_ids[side], attention_mask[side] = right_ids[side], right_mask[side]
    places = position_ids(attention_mask)
    places[positions] += attention_mask[positions]
    filler = attention_mask[mask].argmax() - 1
    attention_mask[mask, filler] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": places}


@exercise("02/repair", title="Repair a broken batch", minutes=6, difficulty=3)
def check_repair(answer):
    """Ids, mask and positions corrected, on the batch of the lesson, on two with the bugs elsewhere, and on
    one with another pad id."""
    lesson_bugs = {"side": 0, "positions": 1, "mask": 2}
    for rows, pad_id, bugs in [
        (_rows(), PAD, lesson_bugs),
        ([[11, 12], [13, 14, 15, 16, 17], [18, 19, 20]], PAD, {"side": 2, "positions": 1, "mask": 0}),
        ([[21], [22, 23], [24, 25, 26, 27]], PAD, {"side": 0, "positions": 0, "mask": 1}),
        (_rows(), 0, lesson_bugs),
    ]:
        batch = _broken(rows, pad_id, **bugs)
        input_ids, attention_mask = pad(rows, pad_id, "left")
        want = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids(attention_mask),
        }
        got = answer(batch, pad_id)
        if not hasattr(got, "keys") or set(got.keys()) != set(want):
            raise Mistake(f"Return a dictionary with the keys {', '.join(f'`{key}`' for key in want)}.")
        got = {key: torch.tensor(_whole_numbers(got[key], f"`{key}`")) for key in want}
        if pad_id != PAD and not all(torch.equal(got[key], want[key]) for key in want):
            raise Mistake("Right for batches that are padded with 50256, but wrong for the same batch with `pad_id=0`. Use the argument `pad_id` instead of a fixed id.")  # fmt: skip
        found = f"For the batch of the rows `{rows}`:"
        _repaired_ids(got["input_ids"], want["input_ids"], batch["input_ids"], found)
        _repaired_mask(got["attention_mask"], want, batch, found)
        _repaired_positions(got["position_ids"], want, batch, found)
    return "Side, mask and positions are right again, wherever the bugs were."


def _repaired_ids(got, want, before, found):
    if got.shape == want.shape and (got == want).all():
        return
    if got.shape == before.shape and (got == before).all():
        raise Mistake(
            f"{found} one row is still padded on the right. generate() would continue after its padding."
        )
    if got.shape == before.shape and ((got == before.flip(1)).all(1) | (got == want).all(1)).all():
        raise Mistake(f"{found} a row was reversed, so its words are now in reverse order.")
    if sorted(got[got != PAD].tolist()) != sorted(want[want != PAD].tolist()):
        raise Mistake(
            f"{found} tokens were lost or duplicated. All ids other than the pad id belong to the sentences."
        )
    raise Mistake(f"{found} all tokens are there, but at the wrong indices. Put each row's tokens at its right end, in their order.")  # fmt: skip


def _repaired_mask(got, want, batch, found):
    right = want["attention_mask"]
    if got.shape == right.shape and (got == right).all():
        return
    if got.shape == right.shape and (got == batch["attention_mask"]).all():
        raise Mistake(f"{found} the mask is still the broken one. Make it from the new ids.")
    if got.shape == right.shape and (got == 1 - right).all():
        raise Mistake(f"{found} the mask is inverted: 1 stands for a token.")
    if got.shape == right.shape and (got >= right).all():
        raise Mistake(f"{found} the mask still has a 1 at a padding token, so the model reads it.")
    raise Mistake(f"{found} the mask hides a token, or its shape is not that of the ids. It should be 1 wherever the id is not the pad id.")  # fmt: skip


def _repaired_positions(got, want, batch, found):
    right, mask = want["position_ids"], want["attention_mask"]
    if got.shape == right.shape and (got == right).all():
        return
    if got.shape == right.shape and (got * mask == right).all():
        raise Mistake(f"{found} the positions of the tokens are right. Give 0 to the padding, as `position_ids` does.")  # fmt: skip
    if got.shape == right.shape and (got == batch["position_ids"]).all():
        raise Mistake(
            f"{found} the positions are still the broken ones. Count again, from the repaired mask."
        )
    if got.shape == right.shape and (got * mask == (right + 1) * mask).all():
        raise Mistake(f"{found} every row counts from 1. The first token should have position 0.")
    raise Mistake(f"{found} the positions do not count the tokens of the repaired mask from 0.")


@exercise("02/repair-labels", title="Keep the end-of-text in the labels", minutes=8, difficulty=2)
def check_repair_labels(answer):
    """Labels without the final run of pad ids except its first id, also with an end inside a row."""
    for rows, pad_id in [
        ([[3666, 13, PAD, PAD], [1026, 6290, 13, PAD], [40, PAD, PAD, PAD]], PAD),
        ([[5, 0, 6, 0, 0, 0], [5, 6, 0, 8, 7, 0]], 0),
        ([[5, 0, 0, 7, 0, 0]], 0),
        ([[5, 6, 7], [8, 9, 0]], 0),
        ([[0, 0, 0], [5, 6, 0]], 0),  # an empty text and its end
    ]:
        ids = torch.tensor(rows)
        want = labels_from_ids(ids, pad_id)
        got = torch.tensor(_whole_numbers(answer(ids, pad_id), "the labels"))
        is_pad = ids == pad_id
        after_first = is_pad.long().cumsum(1) > is_pad.long()
        behind_a_pad = ids.masked_fill(
            is_pad & is_pad.roll(1, dims=1) & (torch.arange(ids.shape[1]) > 0), -100
        )
        first_only = ids.masked_fill((is_pad.cumsum(1) > 1) & is_pad, -100)
        one_kept_last = want.clone()
        for row, source in zip(one_kept_last, ids, strict=True):
            if (row == -100).any():
                row[(row == -100).long().argmax() - 1], row[-1] = -100, source[-1]
        expect_equal(
            got,
            want,
            (ids, pad_id),
            "Of the pad ids at the end of a row, the first stays, and all after it become -100.",
            mistakes=[
                (ids.masked_fill(is_pad, -100), "Every pad id has become -100, including the true ends: nothing would teach the model to stop."),
                (ids if not torch.equal(ids, want) else None, "Nothing was masked: the model would learn to write padding after padding."),
                (want.masked_fill(want == -100, 0) if pad_id else None, "The padding has become 0, the id of a real token. The loss skips only -100."),
                (want.masked_fill(want == -100, -1), "The padding has become -1, which is not an id and is not skipped either. The loss skips only -100."),
                (ids.masked_fill(after_first, -100) if not torch.equal(ids.masked_fill(after_first, -100), want) else None, "Everything after the first end-of-text is gone, including a second text in the same row. Only the run at the row's end is padding."),
                (behind_a_pad if not torch.equal(behind_a_pad, want) else None, "Two consecutive pad ids inside the row are not padding: a text continues after them. Only the run at the row's end is."),
                (lambda got: is_pad.all(1).any() and (got[is_pad.all(1)] == -100).all(), "A row of only pad ids is an empty text with its end: keep the first id there too."),
                (first_only if not torch.equal(first_only, want) else None, "The first end in the row is kept, but a later true end is lost. Look at the run at the row's end."),
                (one_kept_last if not torch.equal(one_kept_last, want) else None, "One pad id was kept, but it is the last. The first of the run is the text's true end."),
                (torch.cat([want[:, 1:], torch.full_like(want[:, :1], -100)], 1), "The labels are shifted by one. The library's loss does the shift: each label has the same index as its id."),
                (lambda got: got.shape != want.shape, f"The labels need the shape of the ids, {tuple(want.shape)}."),
            ],
        )  # fmt: skip
    return (
        "Padding is left out of the loss, and every text keeps its end, even in rows that contain two texts."
    )


def _whole_numbers(got, name):
    """A tensor or nested list of whole numbers as a nested list; Mistake if it is not rectangular or not whole."""
    if isinstance(got, list | tuple):
        try:
            got = torch.tensor(got)
        except (TypeError, ValueError):
            raise Mistake(f"{name} cannot become a tensor: all rows need the same length, and must hold integers.".capitalize()) from None  # fmt: skip
    if not isinstance(got, torch.Tensor):
        raise Mistake(f"Return {name} as a tensor; got {type(got).__name__}.")
    if got.dtype.is_floating_point:
        raise Mistake(f"Return {name} as integers; got {got.dtype}.")
    if got.ndim != 2:
        raise Mistake(
            f"Return {name} with two dimensions, (batch, length); got the shape {tuple(got.shape)}."
        )
    return got.long().tolist()


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "02/quiz-scoring",
        "You read next-token probabilities from GPT-2: each batch takes one forward pass with the mask but without position ids. Which side do you pad?",
        options=(
            Option("Right, and read at each row's last token", "The default positions are then right for every token, and no token sees the padding.", right=True),
            Option("Left, as for every decoder-only model", "That is the rule for `generate()`. Here the padding would shift the default positions.", value=None),
            Option("Either", "The mask hides the padding from attention. With absolute positions, padding on the left still shifts every token."),
            Option("Right, and read at the last index of the row", "The last index of a short row holds padding: its answer continues the padding."),
        ),
        proof=lambda: _good_scoring(),
    ),
    Question(
        "02/quiz-silence",
        "For a left-padded GPT-2 batch, `generate()` warns that the mask and the pad token id were not set. What makes the rows right?",
        options=(
            Option("Passing the `attention_mask`", "Then the padding is hidden, and the positions are computed from the mask.", right=True),
            Option("Passing `pad_token_id=tokenizer.eos_token_id`", "That warning is gone, but every padded row is as wrong as before."),
            Option("Nothing", "Both padded rows in the lesson were wrong."),
        ),
        proof=lambda: _what_cures(),
    ),
    Question(
        "02/quiz-inferred",
        "Padding is not end-of-text but `!`, and the mask is not passed. When can `generate()` go wrong?",
        options=(
            Option("When a prompt's ids contain the id of `!`", "The mask is inferred by comparing ids, so that token is taken for padding.", right=True),
            Option("Always", "The mask is inferred by comparing ids with the pad id, which is right unless a real token has that id."),
            Option("Whenever a prompt contains the character `!`", "Ids are compared, not characters: `!!!` has an id of its own."),
            Option("Never", "It depends on whether the pad id occurs as a real token."),
        ),
        proof=lambda: _inferred_goes_wrong(),
    ),
    Question(
        "02/quiz-endless",
        "A model that was fine-tuned with end-of-text as padding never stops writing. What do you check first?",
        options=(
            Option("Whether the labels contain any end-of-text", "Labels made by comparing ids have lost all of them.", right=True),
            Option("Whether it was padded on the right", "Right padding is correct in training, and the side does not affect the ends."),
            Option("Whether `max_new_tokens` is large enough", "That cuts a text off. It does not teach the model to end one."),
            Option("Whether the attention mask was passed in training", "With right padding, no token sees the padding anyway."),
        ),
    ),
)  # fmt: skip


def _good_scoring():
    """The text of the one option of "02/quiz-scoring" whose answers are those of the prompts alone."""
    model, _ = tiny()
    input_ids, mask = (tensor.to(model.device) for tensor in pad(_rows(), PAD, "right"))
    with torch.no_grad():
        last_place = model(input_ids, attention_mask=mask).logits[:, -1].argmax(-1).tolist()
    with torch.no_grad():
        alone = [
            model(torch.tensor([row], device=model.device)).logits[0, -1].argmax().item() for row in _rows()
        ]
    left, right = (
        _distance("tiny-gpt2", side, mask=True, positions=False) < 0.01 for side in ("left", "right")
    )
    good = {
        "Right, and read at each row's last token": right,
        "Left, as for every decoder-only model": left,
        "Either": left and right,
        "Right, and read at the last index of the row": last_place == alone,
    }
    (answer,) = (text for text, true in good.items() if true)
    return answer


def _what_cures():
    """The text of the one option of "02/quiz-silence" that makes all rows right."""
    right = {
        "Passing the attention_mask": _rows_right("left"),
        "Passing pad_token_id=tokenizer.eos_token_id": _rows_right("left", use_mask=False),
    }
    (answer,) = (text for text, count in right.items() if count == len(SENTENCES))
    return answer


def _inferred_goes_wrong():
    """The text of the right option of "02/quiz-inferred", from prompts with and without the pad id.

    `!!!` is a token of its own, so a prompt may hold the character and not the id.
    """
    prompts = {
        "without": _rows(),
        "character": [[22017, 10185, 2011, 3290, 318], _rows()[1]],  # Wow!!! My dog is
        "with": [[19485, 0, 2011, 3290, 318], _rows()[1]],  # Stop! My dog is
    }
    wrong = {
        name: _continued(rows, pad_token_id=0, use_mask=False) != _continued(rows, pad_token_id=0)
        for name, rows in prompts.items()
    }
    if wrong["character"]:
        return "Whenever a prompt contains the character !"
    if wrong["without"]:
        return "Always"
    return "When a prompt's ids contain the id of !" if wrong["with"] else "Never"
