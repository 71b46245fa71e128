"""course_utils.masks: held to transformers' own padding, positions and masks on drawn cases."""

import array
import inspect
import math
import random

import numpy
import pytest
import torch
from transformers.masking_utils import create_causal_mask

from course_utils import CourseError, load, load_tokenizer
from course_utils.masks import (
    additive_mask,
    check_mask,
    fill_value,
    joined_mask,
    labels_from_ids,
    pad,
    pad_sentences,
    position_ids,
    token_rows,
)
from course_utils.releases import as_argument
from course_utils.texts import varied_texts

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def model():
    return load("tiny-gpt2", device="cpu")[0]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = load_tokenizer("gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def drawn_rows(seed):
    draw = random.Random(seed)
    return [[draw.randrange(50257) for _ in range(draw.randint(1, 9))] for _ in range(draw.randint(1, 5))]


def library_mask(model, attention_mask, kind, cached=0):
    """The mask that transformers' models of today build, whatever this version calls the arguments."""
    from transformers import DynamicCache

    model.set_attn_implementation(kind)
    new = attention_mask.shape[1] - cached
    cache = DynamicCache(config=model.config)
    if cached:
        keys = torch.zeros(len(attention_mask), 4, cached, 16)
        for layer in range(model.config.n_layer):
            cache.update(keys, keys, layer)
    hidden = torch.zeros(len(attention_mask), new, model.config.n_embd)
    known = {
        "config": model.config,
        "inputs_embeds": hidden,
        "input_embeds": hidden,
        "attention_mask": attention_mask,
        **as_argument(cache),
        "cache_position": torch.arange(cached, cached + new),
        "allow_is_causal_skip": False,
    }
    names = inspect.signature(create_causal_mask).parameters
    return create_causal_mask(**{name: value for name, value in known.items() if name in names})


# ---- padding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_equals_the_tokenizers(side, tokenizer, subtests):
    for seed in range(20):
        with subtests.test(seed=seed):
            rows = drawn_rows(seed)
            input_ids, attention_mask = pad(rows, tokenizer.pad_token_id, side)
            theirs = tokenizer.pad({"input_ids": rows}, padding=True, padding_side=side, return_tensors="pt")
            torch.testing.assert_close(input_ids, theirs.input_ids, rtol=0, atol=0)
            torch.testing.assert_close(attention_mask, theirs.attention_mask, rtol=0, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "smollm2-135m"])
def test_pad_sentences_equals_the_tokenizers_call(name, side):
    tokenizer = load_tokenizer(name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    texts = [text for text in varied_texts(60, seed=7) if tokenizer(text).input_ids]
    ours = pad_sentences(tokenizer, texts, side)
    theirs = tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
    assert set(ours) == {"input_ids", "attention_mask"}
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=0)


def test_the_three_sentences(tokenizer):
    batch = pad_sentences(tokenizer, ["It will rain in the", "I want to eat a big bowl of", "My dog is"])
    e = 50256
    assert batch["input_ids"].tolist() == [
        [e, e, e, 1026, 481, 6290, 287, 262],
        [40, 765, 284, 4483, 257, 1263, 9396, 286],
        [e, e, e, e, e, 3666, 3290, 318],
    ]
    assert batch["attention_mask"].tolist() == [[0] * 3 + [1] * 5, [1] * 8, [0] * 5 + [1] * 3]


def test_a_token_that_equals_the_pad_id_is_no_padding():
    _, attention_mask = pad([[0, 5], [0], [1, 2, 0]], 0, "right")
    assert attention_mask.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]


def test_rows_may_be_tensors_or_arrays():
    """NumPy's are what datasets hold, and what a tokenizer returns with return_tensors="np"."""
    for kind in (
        torch.tensor,
        numpy.array,
        tuple,
        lambda row: numpy.array(row, dtype=numpy.uint16),
        lambda row: [numpy.int32(id) for id in row],
        lambda row: list(torch.tensor(row)),
        lambda row: numpy.array(row[::-1])[::-1],
        lambda row: array.array("i", row),
    ):
        rows = [kind([1, 2]), kind([3])]
        for pad_id in (9, numpy.int64(9), torch.tensor(9)):
            input_ids, attention_mask = pad(rows, pad_id)
            assert input_ids.tolist() == [[1, 2], [9, 3]] and input_ids.dtype == torch.long
            assert attention_mask.tolist() == [[1, 1], [0, 1]]
    table = numpy.array([[1, 2], [3, 4]])
    for rows in (table, torch.tensor(table), tuple(table), iter(table)):
        assert pad(rows, 0)[0].tolist() == [[1, 2], [3, 4]]


def test_what_a_tokenizer_returns_as_arrays_is_padded(tokenizer):
    texts = ["My dog is", "It"]
    rows = [tokenizer(text, return_tensors="np").input_ids[0] for text in texts]
    expected = pad_sentences(tokenizer, texts)
    assert torch.equal(pad(rows, tokenizer.pad_token_id)[0], expected["input_ids"])
    assert torch.equal(pad_sentences(tokenizer, numpy.array(texts))["input_ids"], expected["input_ids"])


def test_masks_and_labels_may_be_arrays_or_rows_of_them():
    rows = [[0, 1, 1], [1, 1, 1]]
    table = numpy.array(rows)
    for mask in (rows, table, torch.tensor(rows), list(table), list(torch.tensor(rows)), table.astype(bool),
                 table[:, ::-1][:, ::-1], table.astype(numpy.float32)):  # fmt: skip
        assert check_mask(mask).tolist() == rows
        assert position_ids(mask).tolist() == [[0, 0, 1], [0, 1, 2]]
        assert torch.equal(joined_mask(mask, queries=numpy.int64(2)), joined_mask(rows, queries=2))
    ids = [[5, 0, 0], [5, 6, 0]]
    for kind in (list, numpy.array, torch.tensor, lambda ids: [numpy.array(row) for row in ids]):
        for pad_id in (0, numpy.int64(0)):
            labels = labels_from_ids(kind(ids), pad_id)
            assert labels.tolist() == [[5, 0, -100], [5, 6, 0]] and labels.dtype == torch.long


def test_one_row_needs_no_padding():
    input_ids, attention_mask = pad([[1, 2, 3]], 0)
    assert input_ids.tolist() == [[1, 2, 3]]
    assert attention_mask.tolist() == [[1, 1, 1]]


# ---- positions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_are_those_that_generate_passes(side, model, subtests):
    seen = []

    def watch(module, args, given):
        seen.append(given["position_ids"])

    for seed in range(5):
        with subtests.test(seed=seed):
            input_ids, attention_mask = pad([*drawn_rows(seed), [5, 6]], 50256, side)
            seen.clear()
            hook = model.register_forward_pre_hook(watch, with_kwargs=True)
            model.generate(input_ids, attention_mask=attention_mask, max_new_tokens=1)
            hook.remove()
            ours = position_ids(attention_mask)
            torch.testing.assert_close(ours, seen[0].expand_as(ours), rtol=0, atol=0)


def test_positions_of_a_mask_with_a_hole():
    assert position_ids([[0, 1, 1, 0, 1]]).tolist() == [[0, 0, 1, 0, 2]]


# ---- masks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_masks_equal_the_librarys(side, model, subtests):
    for seed in range(10):
        with subtests.test(seed=seed):
            _, attention_mask = pad(drawn_rows(seed), 0, side)
            allowed = joined_mask(attention_mask)
            assert torch.equal(allowed, library_mask(model, attention_mask, "sdpa"))
            added = additive_mask(allowed)
            assert torch.equal(added, library_mask(model, attention_mask, "eager"))


@pytest.mark.parametrize("cached", [1, 4, 8])
def test_masks_with_a_cache_equal_the_librarys(cached, model):
    _, attention_mask = pad([[1] * 9, [1] * 3, [1] * 9], 0)
    ours = joined_mask(attention_mask, queries=9 - cached)
    assert ours.shape == (3, 1, 9 - cached, 9)
    assert torch.equal(ours, library_mask(model, attention_mask, "sdpa", cached))


def test_padding_alone_and_causal_alone():
    padding = joined_mask([[0, 1, 1]], causal=False)
    assert padding.tolist() == [[[[False, True, True]] * 3]]
    causal = joined_mask([[1, 1, 1]])
    assert torch.equal(causal[0, 0], torch.ones(3, 3).tril().bool())
    both = joined_mask([[0, 1, 1]])
    assert torch.equal(both, padding & causal)


def test_a_joined_mask_can_be_changed_without_changing_another_query():
    mask = joined_mask([[1, 1, 1]], causal=False)
    mask[0, 0, 0, 0] = False
    assert mask.sum() == 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_fill_values(dtype):
    assert fill_value("finfo.min", dtype).item() == torch.finfo(dtype).min
    assert fill_value("-inf", dtype).item() == -math.inf
    assert fill_value(-math.inf, dtype).item() == -math.inf
    assert fill_value("-1e4", dtype).item() == torch.tensor(-1e4).to(dtype).item()
    mask = additive_mask(torch.tensor([True, False]), dtype, "-1e4")
    assert mask.dtype == dtype
    assert mask.tolist() == [0, fill_value(-1e4, dtype).item()]


def test_half_precision_takes_the_smallest_number_it_has():
    assert fill_value(-65504, torch.float16).item() == -65504
    with pytest.raises(CourseError, match="does not fit"):
        fill_value(-65505, torch.float16)


# ---- labels ------------------------------------------------------------------------------------------


def test_labels_from_ids_equal_those_from_the_mask(subtests):
    end = 50256
    for seed in range(20):
        with subtests.test(seed=seed):
            draw = random.Random(seed)
            rows = [[id for id in row if id != end] for row in drawn_rows(seed)]
            rows = [row[:3] + [end] * draw.randint(0, 1) + row[3:] + [1, end] for row in rows]
            input_ids, attention_mask = pad(rows, end, "right")
            labels = labels_from_ids(input_ids, end)
            assert torch.equal(labels, input_ids.masked_fill(attention_mask == 0, -100))


def test_a_text_that_was_cut_off_has_no_end_to_keep():
    assert labels_from_ids(torch.tensor([[5, 6, 7]]), 0).tolist() == [[5, 6, 7]]


# ---- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentences", "said"),
    [
        ("My dog is", "Put it into a list: ['My dog is']"),
        ([], "The batch is empty"),
        ([""], "Sentence 1 is empty"),
        (["My dog is", ""], "Sentence 2 is empty"),
        (["My dog is", 7], "Sentence 2 is of type int"),
        (None, "of type NoneType"),
        (["My dog is", "one two three four five"], "Sentence 2 has 5 tokens, and the model has 4 positions"),
    ],
)
def test_bad_sentences(sentences, said, tokenizer):
    with pytest.raises(CourseError, match=r"\.$") as error:
        pad_sentences(tokenizer, sentences, limit=4)
    assert said in str(error.value)


def test_as_many_tokens_as_positions_are_fine(tokenizer):
    assert token_rows(tokenizer, ["one two three four"], limit=4) == [[505, 734, 1115, 1440]]


def test_a_tokenizer_without_a_pad_token():
    with pytest.raises(CourseError, match=r"tokenizer\.pad_token = tokenizer\.eos_token"):
        pad_sentences(load_tokenizer("gpt2"), ["My dog is", "It"])


@pytest.mark.parametrize(
    ("rows", "pad_id", "side", "said"),
    [
        ([], 0, "left", "The batch is empty"),
        ([[1], []], 0, "left", "Row 1 has no ids"),
        ([1, 2], 0, "left", "Row 0 is 1, not a list of ids"),
        (["ab"], 0, "left", "Row 0 is 'ab', not a list of ids"),
        ([[1.5]], 0, "left", "not a list of ids"),
        ([numpy.array([1.5])], 0, "left", "Row 0 is [1.5], not a list of ids"),
        ([[1], [True]], 0, "left", "Row 1 is [True], not a list of ids"),
        ([torch.tensor([True])], 0, "left", "Row 0 is [True], not a list of ids"),
        ([None], 0, "left", "Row 0 is None, not a list of ids"),
        ([[[1]]], 0, "left", "Row 0 is [[1]], not a list of ids"),
        (torch.tensor([1, 2]), 0, "left", "Row 0 is 1, not a list of ids"),
        (None, 0, "left", "The rows are of type NoneType"),
        (7, 0, "left", "The rows are of type int"),
        ([[1]], [1, 2], "left", "The pad id is [1, 2], and one id is expected"),
        ([[1]], 1.5, "left", "The pad id is 1.5"),
        ([[1]], "<pad>", "left", "The pad id is '<pad>'"),
        ([[1]], None, "left", "There is no pad id"),
        ([[1]], 0, "top", "'top' is not a side"),
    ],
)
def test_bad_rows(rows, pad_id, side, said):
    with pytest.raises(CourseError) as error:
        pad(rows, pad_id, side)
    assert said in str(error.value)


BAD_MASKS = [
    ([1, 1, 0], "two dimensions"),
    ([[[1]]], "two dimensions"),
    ([[1, 1], [1]], "rows of one length"),
    ("mask", "a table of 0 and 1"),
    ([[1, 2]], "this one holds 2"),
    ([[0.5, 1]], "this one holds 0.5"),
    ([[math.nan, 1]], "this one holds nan"),
    ([[-1, 1]], "this one holds -1"),
    ([[1, 1], [0, 0]], "Row 1 of the attention mask has no 1"),
    ([[]], "has no 1"),
]


@pytest.mark.parametrize("function", [check_mask, position_ids, joined_mask])
@pytest.mark.parametrize(("mask", "said"), BAD_MASKS)
def test_bad_masks(function, mask, said):
    with pytest.raises(CourseError) as error:
        function(mask)
    assert said in str(error.value)


def test_a_mask_of_another_shape_than_the_ids():
    with pytest.raises(CourseError, match=r"\(1, 2\), the ids have \(1, 3\)"):
        check_mask([[1, 1]], (1, 3))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
def test_a_mask_may_have_any_type(dtype):
    mask = check_mask(torch.tensor([[0, 1]], dtype=dtype))
    assert mask.dtype == torch.long
    assert mask.tolist() == [[0, 1]]


@pytest.mark.parametrize("queries", [0, -1, 4, 1.5, "1", True])
def test_bad_number_of_queries(queries):
    with pytest.raises(CourseError, match="3 places"):
        joined_mask([[1, 1, 1]], queries=queries)


@pytest.mark.parametrize(
    ("mask", "dtype", "fill", "said"),
    [
        (torch.tensor([1, 0]), torch.float32, "-inf", "True and False, and was given torch.int64"),
        ([True, False], torch.float32, "-inf", "True and False, and was given list"),
        (torch.tensor([True]), torch.long, "-inf", "has no fractions"),
        (torch.tensor([True]), torch.float32, "minus", "not a fill value"),
        (torch.tensor([True]), torch.float32, None, "not a fill value"),
        (torch.tensor([True]), torch.float32, 0.0, "would not forbid anything"),
        (torch.tensor([True]), torch.float32, math.nan, "would not forbid anything"),
        (torch.tensor([True]), torch.float16, -1e9, "would turn into -inf"),
    ],
)
def test_bad_fill(mask, dtype, fill, said):
    with pytest.raises(CourseError) as error:
        additive_mask(mask, dtype, fill)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("ids", "pad_id", "said"),
    [
        ([[5, 0], [5]], 0, "a table of integers with rows of one length"),
        (None, 0, "a table of integers"),
        (torch.tensor([[0.5]]), 0, "of type torch.float32; ids are integers"),
        (numpy.array([[True]]), 0, "of type torch.bool"),
        ([[5, 0]], None, "The pad id is None, and one id is expected"),
    ],
)
def test_ids_that_have_no_labels(ids, pad_id, said):
    with pytest.raises(CourseError) as error:
        labels_from_ids(ids, pad_id)
    assert said in str(error.value)


def test_labels_need_two_dimensions():
    with pytest.raises(CourseError, match=r"input_ids\[None\]"):
        labels_from_ids(torch.tensor([5, 0, 0]), 0)
