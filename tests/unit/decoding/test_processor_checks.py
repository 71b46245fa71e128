"""What a learner's processors and criteria give back to decode_steps, and what breaks transformers' own."""

import re

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor, MinPLogitsWarper, StoppingCriteria

from architectures import VOCABULARY, tiny
from course_utils import CourseError, decode_steps, load_tokenizer
from course_utils.widgets import Stepper
from tiny import tiny_gpt2

IDS = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 10]])}


def steps(**kwargs):
    return decode_steps(tiny("GPT2"), IDS, max_new_tokens=3, eos_token_id=None, **kwargs)


def forbid(input_ids, scores):
    scores[:, 26] = float("-inf")


class Forbid(LogitsProcessor):
    def __call__(self, input_ids, scores):
        forbid(input_ids, scores)


def fewer_columns(input_ids, scores):
    return scores[:, :5]


def last_row_only(input_ids, scores):
    return scores[-1]


def other_rows(input_ids, scores):
    return scores[:1]


def whole_numbers(input_ids, scores):
    return scores.long()


def a_mask(input_ids, scores):
    return scores > 0


def as_a_list(input_ids, scores):
    return scores.tolist()


def as_an_array(input_ids, scores):
    return scores.numpy()


def both(input_ids, scores):
    return input_ids, scores


def on_meta(input_ids, scores):
    return scores.to("meta")


NO_SCORES = {
    forbid: "returned None, expected the scores, a tensor of torch.float32 of the shape (2, 60). End it with",
    fewer_columns: "returned a tensor of the shape (2, 5), expected the scores",
    last_row_only: "returned a tensor of the shape (60,), expected",
    other_rows: "returned a tensor of the shape (1, 60), expected",
    whole_numbers: "returned a tensor of torch.int64, expected",
    a_mask: "returned a tensor of torch.bool, expected",
    as_a_list: "returned something of the type list, expected",
    as_an_array: "returned something of the type ndarray, expected",
    both: "returned something of the type tuple, expected",
    on_meta: "returned scores on meta, and was given some on cpu. Return them there: scores.to('cpu')",
}


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True}])
def test_a_processor_that_does_not_return_scores_is_named(sampling):
    for processor, sentence in NO_SCORES.items():
        decoding = steps(logits_processor=[processor], **sampling)
        with pytest.raises(CourseError) as raised:
            next(decoding)
        assert f"The logits processor {processor.__name__} {sentence}" in str(raised.value)
        assert decoding.steps_taken == 0
    with pytest.raises(CourseError, match="processor Forbid returned None"):
        next(steps(logits_processor=[Forbid()], **sampling))


def test_scores_of_more_digits_are_scores():
    kwargs = {"logits_processor": [lambda input_ids, scores: scores.double() / 3]}
    list(decoding := steps(**kwargs))
    expected = tiny("GPT2").generate(**IDS, max_new_tokens=3, eos_token_id=None, **kwargs)
    assert torch.equal(decoding.sequences, expected)


def test_a_later_step_and_going_back_find_it_too():
    def forgetful(input_ids, scores):
        return scores if input_ids.shape[1] < 4 else None

    decoding = steps(logits_processor=[forgetful])
    next(decoding)
    with pytest.raises(CourseError, match="forgetful returned None"):
        next(decoding)
    decoding.back()
    assert next(decoding).index == 0


def test_the_page_is_told_the_same():
    model, tokenizer = tiny_gpt2(), load_tokenizer("gpt2")
    with pytest.raises(CourseError, match="The logits processor forbid returned None"):
        Stepper(model, tokenizer, "Hello", max_new_tokens=2, logits_processor=[forbid])


def without_a_return(input_ids, scores):
    input_ids[:, -1] == 7  # noqa: B015


class Done(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.zeros(3, dtype=torch.bool)


def test_a_criterion_that_returns_no_verdict_is_named():
    for criterion, sentence in (
        (without_a_return, "without_a_return returned None, expected True or False for each of the 2 rows"),
        (Done(), "Done returned verdicts of the shape (3,), expected"),
        (lambda input_ids, scores: "no", "returned something of the type str, expected"),
        (lambda input_ids, scores: input_ids > 9, "returned verdicts of the shape (2, 4), expected"),
    ):
        with pytest.raises(CourseError, match=re.escape(sentence)):
            next(steps(stopping_criteria=[criterion]))
    for verdict in (False, 0, [False, False], torch.tensor([False]), torch.zeros(2)):
        assert len(list(steps(stopping_criteria=[lambda ids, scores, verdict=verdict: verdict]))) == 3


def one_argument(scores):
    return scores


def test_what_cannot_be_asked_at_all():
    for kwargs, sentence in (
        ({"logits_processor": forbid}, "logits_processor is forbid, and generate() takes a list of them. "),
        ({"logits_processor": MinPLogitsWarper(0.1)}, "Put it into one: logits_processor=[MinPLogitsWarper]"),
        ({"logits_processor": [MinPLogitsWarper]}, "the class MinPLogitsWarper, and it takes objects"),
        ({"logits_processor": ["forbid"]}, "holds 'forbid', which cannot be called with ids and scores"),
        ({"stopping_criteria": without_a_return}, "stopping_criteria is without_a_return, and generate()"),
        ({"stopping_criteria": [Done]}, "the class Done, and it takes objects. Type Done(...)"),
    ):
        with pytest.raises(CourseError, match=re.escape(sentence)):
            steps(**kwargs)
    with pytest.raises(CourseError, match="processor one_argument fails: one_argument"):
        next(steps(logits_processor=[one_argument]))


def test_arguments_that_transformers_own_processors_break_on():
    beyond = f"only ids from 0 to {VOCABULARY - 1}"
    for kwargs, sentence in (
        ({"prefix_allowed_tokens_fn": lambda row, ids: []}, "of prefix_allowed_tokens_fn, and it fails"),
        ({"prefix_allowed_tokens_fn": lambda row, ids: [999]}, beyond),
        ({"prefix_allowed_tokens_fn": lambda row, ids: None}, "name at least one token each time"),
        ({"bad_words_ids": [[999]]}, f"of bad_words_ids, and it fails.*{beyond}"),
        ({"sequence_bias": {(999,): 1.0}}, beyond),
        ({"forced_eos_token_id": 999}, beyond),
    ):
        with pytest.raises(CourseError, match=sentence):
            list(steps(**kwargs))


def test_an_error_in_a_function_of_ones_own_stays_what_it_is():
    def broken(*anything):
        return {}["missing"]

    for kwargs in ({"prefix_allowed_tokens_fn": broken}, {"logits_processor": [broken]}):
        with pytest.raises((KeyError, CourseError)) as raised:
            next(steps(**kwargs))
        assert raised.type is KeyError


def test_an_index_error_of_ones_own_is_not_laid_on_the_argument():
    def broken(input_ids, scores):
        return scores[:, torch.tensor([999])]

    with pytest.raises(IndexError):
        next(steps(logits_processor=[broken]))


def test_caches_that_this_machine_cannot_keep(monkeypatch):
    def no_driver():
        raise RuntimeError("CUDA driver version is insufficient for CUDA runtime version")

    monkeypatch.setattr("torch.Stream", no_driver)  # as a torch built for CUDA does on a machine without one
    for name in ("offloaded", "offloaded_static"):
        with pytest.raises(CourseError, match="An offloaded cache waits in the CPU's memory"):
            steps(cache_implementation=name)
        with pytest.raises(CourseError, match="An offloaded cache waits in the CPU's memory"):
            steps(generation_config=GenerationConfig(cache_implementation=name))
    monkeypatch.setattr("transformers.cache_utils.is_optimum_quanto_available", lambda: False)
    with pytest.raises(CourseError, match="refuses these arguments: You need to install optimum-quanto"):
        steps(cache_implementation="quantized")
