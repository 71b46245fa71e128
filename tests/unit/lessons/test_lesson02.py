"""Lesson 02: its checks against right and wrong answers, its questions against their proofs, and its own
functions against course_utils.masks and transformers."""

import random

import pytest
import torch
from torch import tensor

from course_utils import load_tokenizer
from course_utils.lessons import lesson02
from course_utils.masks import labels_from_ids, pad, pad_sentences, position_ids
from lesson_code import definitions
from prove import prove_exercise, prove_questions

END = 50256


def test_questions():
    assert len(prove_questions(lesson02)) == 8


def test_the_lessons_sentences_are_those_of_the_checks():
    source = definitions.__globals__["SOURCES"] / "02_padding.py"
    assert repr(list(lesson02.SENTENCES)).replace("'", '"') in source.read_text(encoding="utf-8")


# ---- the lesson's own functions ----------------------------------------------------------------------


def drawn_rows(seed, ids=range(100, 200)):
    draw = random.Random(seed)
    return [[draw.choice(ids) for _ in range(draw.randint(1, 7))] for _ in range(draw.randint(1, 5))]


@pytest.mark.parametrize("seed", range(20))
def test_pad_left_of_the_lesson(seed):
    (pad_left,) = definitions("02", "pad_left", torch=torch)
    for ours, lessons in zip(pad(drawn_rows(seed), 150), pad_left(drawn_rows(seed), 150), strict=True):
        assert torch.equal(ours, lessons)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("seed", range(5))
def test_positions_of_the_lesson(seed, side):
    (positions,) = definitions("02", "positions", torch=torch)
    _, mask = pad(drawn_rows(seed), 0, side)
    assert torch.equal(positions(mask), position_ids(mask))


@pytest.mark.parametrize("seed", range(20))
def test_repair_labels_of_the_lesson(seed):
    (repair_labels,) = definitions("02", "repair_labels", torch=torch)
    rows = [[*row, END] for row in drawn_rows(seed, ids=[5, 6, END])]
    ids, _ = pad(rows, END, "right")
    assert torch.equal(repair_labels(ids, END), labels_from_ids(ids, END))


def test_total_variation_is_0_for_equal_and_1_for_disjoint_distributions():
    (total_variation,) = definitions("02", "total_variation")
    p, q = tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]), tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert total_variation(p, q).tolist() == [0, 1]


# ---- exercise 1 --------------------------------------------------------------------------------------


def by_lengths(rows, pad_id):
    longest = max(map(len, rows))
    ids = [[pad_id] * (longest - len(row)) + row for row in rows]
    return ids, [[0] * (longest - len(row)) + [1] * len(row) for row in rows]


def as_tensors(rows, pad_id):
    return tuple(map(tensor, by_lengths(rows, pad_id)))


def by_torch(rows, pad_id):
    flipped = [tensor(row[::-1]) for row in rows]
    pad_sequence = torch.nn.utils.rnn.pad_sequence
    ids = pad_sequence(flipped, batch_first=True, padding_value=pad_id).flip(1)
    mask = pad_sequence([torch.ones_like(row) for row in flipped], batch_first=True).flip(1)
    return ids, mask.bool()


def on_the_right(rows, pad_id):
    return pad(rows, pad_id, "right")


def mask_first(rows, pad_id):
    return as_tensors(rows, pad_id)[::-1]


def mask_inverted(rows, pad_id):
    ids, mask = as_tensors(rows, pad_id)
    return ids, 1 - mask


def mask_from_ids(rows, pad_id):
    ids, _ = as_tensors(rows, pad_id)
    return ids, (ids != pad_id).long()


def mask_of_ones(rows, pad_id):
    ids, _ = as_tensors(rows, pad_id)
    return ids, torch.ones_like(ids)


def cut_to_the_shortest(rows, pad_id):
    shortest = min(map(len, rows))
    return tensor([row[:shortest] for row in rows]), torch.ones(len(rows), shortest).long()


def too_much(rows, pad_id):
    longest = max(map(len, rows))
    return [[pad_id] * longest + row for row in rows], [[0] * longest + [1] * len(row) for row in rows]


def one_more(rows, pad_id):
    ids, mask = by_lengths(rows, pad_id)
    return [[pad_id, *row] for row in ids], [[0, *row] for row in mask]


def with_zeros(rows, pad_id):
    return by_lengths(rows, 0)


def only_ids(rows, pad_id):
    return as_tensors(rows, pad_id)[0]


def ragged(rows, pad_id):
    return rows, [[1] * len(row) for row in rows]


def float_mask(rows, pad_id):
    ids, mask = as_tensors(rows, pad_id)
    return ids, mask.float()


def test_pad_left():
    prove_exercise(
        lesson02.check_pad_left,
        right=[by_lengths, as_tensors, by_torch],
        wrong=[
            (on_the_right, "padding is on the right"),
            (mask_first, "the mask comes first"),
            (mask_inverted, "the mask is inverted"),
            (mask_from_ids, "a real token that equals"),
            (mask_of_ones, "the mask is 1 everywhere"),
            (cut_to_the_shortest, "tokens were cut off"),
            (one_more, "more padding than needed"),
            (with_zeros, "padded with 0"),
            (only_ids, "return two things"),
            (too_much, "all rows need the same length"),
            (float_mask, "got torch.float32"),
        ],
    )


def test_pad_left_names_ragged_rows():
    assert "all rows need the same length" in lesson02.check_pad_left(ragged).message


# ---- exercise 2 --------------------------------------------------------------------------------------


def by_cumsum(mask):
    return (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)


def by_clamp(mask):
    return (mask.cumsum(-1) - 1).clamp(min=0) * mask


def by_loop(mask):
    rows = []
    for row in mask.tolist():
        count, positions = 0, []
        for one in row:
            positions.append(count if one else 0)
            count += one
        rows.append(positions)
    return rows


def places(mask):
    return torch.arange(mask.shape[1]).expand_as(mask)


def from_one(mask):
    return mask.cumsum(1) * mask


def minus_one_at_padding(mask):
    return mask.cumsum(1) - 1


def last_position_behind(mask):
    return (mask.cumsum(1) - 1).clamp(min=0)


def places_from_the_first_token(mask):
    return (places(mask) - mask.argmax(1, keepdim=True)).clamp(min=0)


def one_at_padding(mask):
    return (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)


def shifted(mask):
    return (places(mask) - (mask == 0).sum(1, keepdim=True)).clamp(min=0)


def masked_places(mask):
    return places(mask) * mask


def one_row(mask):
    return by_cumsum(mask)[:1]


def floats(mask):
    return by_cumsum(mask).float()


def along_the_batch(mask):
    return (mask.cumsum(0) - 1).masked_fill(mask == 0, 0)


def test_positions():
    prove_exercise(
        lesson02.check_positions,
        right=[by_cumsum, by_clamp, by_loop],
        wrong=[
            (places, "padding included"),
            (from_one, "here it has 1"),
            (minus_one_at_padding, "is not a position"),
            (last_position_behind, "continues their positions"),
            (one_at_padding, "should get 0, not 1"),
            (shifted, "for left padding only"),
            (masked_places, "still have their indices in the row"),
            (one_row, "the shape of the mask"),
            (floats, "as integers"),
            (along_the_batch, "and subtract one; padding gets 0"),
        ],
    )


def test_positions_that_run_on_behind_the_tokens_are_not_taken_for_places():
    message = lesson02.check_positions(places_from_the_first_token).message
    assert "continues their positions" in message and "padding included" not in message


# ---- exercise 3 --------------------------------------------------------------------------------------


def rebuilt(batch, pad_id):
    rows = [[id for id in row if id != pad_id] for row in batch["input_ids"].tolist()]
    ids, mask = pad(rows, pad_id)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": position_ids(mask)}


def by_sorting(batch, pad_id):
    ids = batch["input_ids"]
    order = (ids != pad_id).long().argsort(dim=1, stable=True)
    ids = ids.gather(1, order)
    mask = ids != pad_id
    return {"position_ids": by_clamp(mask.long()), "input_ids": ids, "attention_mask": mask}


def with_50256_written_in(batch, pad_id):
    return rebuilt(batch, END)


def untouched_side(batch, pad_id):
    mask = (batch["input_ids"] != pad_id).long()
    return {**batch, "attention_mask": mask, "position_ids": position_ids(mask)}


def turned_round(batch, pad_id):
    ids = batch["input_ids"].clone()
    for number, row in enumerate(ids):
        if row[-1] == pad_id:
            ids[number] = row.flip(0)
    return {**rebuilt(batch, pad_id), "input_ids": ids}


def rolled_too_far(batch, pad_id):
    right = rebuilt(batch, pad_id)
    return {**right, "input_ids": right["input_ids"].roll(1, dims=1)}


def lost_a_token(batch, pad_id):
    right = rebuilt(batch, pad_id)
    ids = right["input_ids"].clone()
    ids[-1, -1] = pad_id
    return {**right, "input_ids": ids}


def old_mask(batch, pad_id):
    return {**rebuilt(batch, pad_id), "attention_mask": batch["attention_mask"]}


def inverted_mask(batch, pad_id):
    right = rebuilt(batch, pad_id)
    return {**right, "attention_mask": 1 - right["attention_mask"]}


def mask_of_all_ones(batch, pad_id):
    right = rebuilt(batch, pad_id)
    return {**right, "attention_mask": torch.ones_like(right["attention_mask"])}


def mask_hides_the_first(batch, pad_id):
    right = rebuilt(batch, pad_id)
    return {**right, "attention_mask": (right["position_ids"] > 0).long()}


def old_positions(batch, pad_id):
    return {**rebuilt(batch, pad_id), "position_ids": batch["position_ids"]}


def positions_from_one(batch, pad_id):
    right = rebuilt(batch, pad_id)
    return {**right, "position_ids": from_one(right["attention_mask"])}


def positions_below_zero(batch, pad_id):
    right = rebuilt(batch, pad_id)
    return {**right, "position_ids": minus_one_at_padding(right["attention_mask"])}


def positions_of_places(batch, pad_id):
    right = rebuilt(batch, pad_id)
    return {**right, "position_ids": places(right["attention_mask"])}


def without_positions(batch, pad_id):
    right = rebuilt(batch, pad_id)
    return {key: right[key] for key in ("input_ids", "attention_mask")}


def test_repair():
    prove_exercise(
        lesson02.check_repair,
        right=[rebuilt, by_sorting],
        wrong=[
            (with_50256_written_in, "instead of a fixed id"),
            (untouched_side, "still padded on the right"),
            (turned_round, "in reverse order"),
            (rolled_too_far, "at the wrong indices"),
            (lost_a_token, "lost or duplicated"),
            (old_mask, "the mask is still the broken one"),
            (inverted_mask, "the mask is inverted"),
            (mask_of_all_ones, "still has a 1 at a padding token"),
            (mask_hides_the_first, "the mask hides a token"),
            (old_positions, "the positions are still the broken ones"),
            (positions_from_one, "every row counts from 1"),
            (positions_below_zero, "give 0 to the padding"),
            (positions_of_places, "do not count the tokens"),
            (without_positions, "with the keys"),
        ],
    )


def test_the_broken_batch_has_three_bugs_that_show_in_the_model():
    tokenizer = load_tokenizer("gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    right = pad_sentences(tokenizer, lesson02.SENTENCES)
    right["position_ids"] = position_ids(right["attention_mask"])
    broken = lesson02.broken_batch()
    different = {key: (broken[key] != right[key]).any(1).tolist() for key in right}
    assert different == {
        "input_ids": [True, False, False],
        "attention_mask": [True, False, True],
        "position_ids": [True, True, False],
    }


# ---- exercise 4 --------------------------------------------------------------------------------------


def from_the_right(ids, pad_id):
    labels = ids.clone()
    for row in labels:
        length = len(row)
        while length > 1 and row[length - 1] == row[length - 2] == pad_id:
            length -= 1
        row[length:] = -100
    return labels


def by_cumprod(ids, pad_id):
    return labels_from_ids(ids, pad_id)


def as_lists(ids, pad_id):
    return from_the_right(ids, pad_id).tolist()


def all_gone(ids, pad_id):
    return ids.masked_fill(ids == pad_id, -100)


def nothing_gone(ids, pad_id):
    return ids.clone()


def zeros(ids, pad_id):
    return labels_from_ids(ids, pad_id).clamp(min=0)


def minus_ones(ids, pad_id):
    return labels_from_ids(ids, pad_id).clamp(min=-1)


def cut_at_the_first_end(ids, pad_id):
    ends = ids == pad_id
    return ids.masked_fill((ends.cumsum(1) - ends.long()) > 0, -100)


def first_end_only(ids, pad_id):
    ends = ids == pad_id
    return ids.masked_fill(ends & (ends.cumsum(1) > 1), -100)


def behind_any_pad(ids, pad_id):
    left_neighbour = torch.cat([torch.full_like(ids[:, :1], -1), ids[:, :-1]], dim=1)
    return ids.masked_fill((ids == pad_id) & (left_neighbour == pad_id), -100)


def empty_text_without_end(ids, pad_id):
    labels = labels_from_ids(ids, pad_id)
    return labels.masked_fill((ids == pad_id).all(1, keepdim=True), -100)


def walk_without_a_wall(ids, pad_id):
    labels = ids.clone()
    for row, source in zip(labels, ids.tolist(), strict=True):
        last = len(source) - 1
        while source[last - 1] == source[last] == pad_id:
            row[last] = -100
            last -= 1
    return labels


def last_end(ids, pad_id):
    labels = labels_from_ids(ids, pad_id)
    for row, source in zip(labels, ids, strict=True):
        if row[-1] == -100:
            row[(row == -100).long().argmax() - 1] = -100
            row[-1] = source[-1]
    return labels


def shifted_labels(ids, pad_id):
    labels = labels_from_ids(ids, pad_id)
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)


def cut_off(ids, pad_id):
    return labels_from_ids(ids, pad_id)[:, :-1]


def in_place(ids, pad_id):
    ids[:] = labels_from_ids(ids, pad_id)
    return ids


def second_kept_too(ids, pad_id):
    labels = labels_from_ids(ids, pad_id)
    return torch.where((labels == -100) & (labels.roll(1, dims=1) == pad_id), ids, labels)


def test_repair_labels():
    prove_exercise(
        lesson02.check_repair_labels,
        right=[from_the_right, by_cumprod, as_lists],
        wrong=[
            (all_gone, "including the true ends"),
            (nothing_gone, "nothing was masked"),
            (zeros, "has become 0, the id of a real token"),
            (minus_ones, "not an id and is not skipped either"),
            (cut_at_the_first_end, "including a second text in the same row"),
            (first_end_only, "a later true end is lost"),
            (last_end, "one pad id was kept, but it is the last"),
            (behind_any_pad, "inside the row are not padding"),
            (empty_text_without_end, "an empty text with its end"),
            (walk_without_a_wall, "IndexError"),
            (shifted_labels, "shifted by one"),
            (cut_off, "the shape of the ids"),
            (in_place, "changes its input"),
            (second_kept_too, "of the pad ids at the end of a row, the first stays"),
        ],
    )
