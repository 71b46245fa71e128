"""Lesson 05: its checks against right and wrong answers, its questions against their proofs, and its own
functions against generate()."""

import pytest
import torch
from transformers import LogitsProcessor, StoppingCriteria, TemperatureLogitsWarper, TopKLogitsWarper
from transformers.generation.streamers import BaseStreamer

from course_utils import load
from course_utils.lessons import lesson05
from course_utils.lessons.lesson05 import broken_loops as lesson05_loops
from course_utils.lessons.lesson05.batch import SENTENCES
from lesson_code import definitions
from prove import private_progress, prove_exercise, prove_questions

OFF = float("-inf")


def test_questions():
    assert len(prove_questions(lesson05)) == 8


# ---- exercise 1: finish ------------------------------------------------------------------------------


def finish(next_tokens, unfinished, end_ids, pad_id):
    next_tokens = torch.where(unfinished, next_tokens, pad_id)
    return next_tokens, unfinished & ~torch.isin(next_tokens, torch.tensor(end_ids))


def as_the_library_does(next_tokens, unfinished, end_ids, pad_id):
    alive = unfinished.long()
    next_tokens = next_tokens * alive + pad_id * (1 - alive)
    ended = (next_tokens[:, None] == torch.tensor(end_ids)).any(1)
    return next_tokens, alive & ~ended


def row_by_row(next_tokens, unfinished, end_ids, pad_id):
    tokens = [
        token if open_ else pad_id for token, open_ in zip(next_tokens.tolist(), unfinished, strict=True)
    ]
    flags = [bool(open_) and token not in end_ids for token, open_ in zip(tokens, unfinished, strict=True)]
    return tokens, flags


def no_padding(next_tokens, unfinished, end_ids, pad_id):
    return next_tokens, finish(next_tokens, unfinished, end_ids, pad_id)[1]


def pads_the_end_itself(next_tokens, unfinished, end_ids, pad_id):
    unfinished = unfinished & ~torch.isin(next_tokens, torch.tensor(end_ids))
    return torch.where(unfinished, next_tokens, pad_id), unfinished


def swapped_where(next_tokens, unfinished, end_ids, pad_id):
    _, flags = finish(next_tokens, unfinished, end_ids, pad_id)
    return torch.where(unfinished, pad_id, next_tokens), flags


def filled_with_an_end(next_tokens, unfinished, end_ids, pad_id):
    return finish(next_tokens, unfinished, end_ids, end_ids[0])


def risen_from_the_dead(next_tokens, unfinished, end_ids, pad_id):
    next_tokens, _ = finish(next_tokens, unfinished, end_ids, pad_id)
    return next_tokens, ~torch.isin(next_tokens, torch.tensor(end_ids))


def finished_flags(next_tokens, unfinished, end_ids, pad_id):
    next_tokens, unfinished = finish(next_tokens, unfinished, end_ids, pad_id)
    return next_tokens, ~unfinished


def never_ends(next_tokens, unfinished, end_ids, pad_id):
    return finish(next_tokens, unfinished, end_ids, pad_id)[0], unfinished


def first_end_only(next_tokens, unfinished, end_ids, pad_id):
    return finish(next_tokens, unfinished, end_ids[:1], pad_id)


def ended_by_the_padding(next_tokens, unfinished, end_ids, pad_id):
    next_tokens, flags = finish(next_tokens, unfinished, end_ids, pad_id)
    return next_tokens, flags & (next_tokens != pad_id)


def one_for_all(next_tokens, unfinished, end_ids, pad_id):
    next_tokens, flags = finish(next_tokens, unfinished, end_ids, pad_id)
    return next_tokens, flags & flags.all()


def all_for_one(next_tokens, unfinished, end_ids, pad_id):
    next_tokens, flags = finish(next_tokens, unfinished, end_ids, pad_id)
    return next_tokens, torch.ones_like(flags) & flags.any()


def a_single_flag(next_tokens, unfinished, end_ids, pad_id):
    next_tokens, flags = finish(next_tokens, unfinished, end_ids, pad_id)
    return next_tokens, flags.any()


def flags_first(next_tokens, unfinished, end_ids, pad_id):
    return finish(next_tokens, unfinished, end_ids, pad_id)[::-1]


def tokens_only(next_tokens, unfinished, end_ids, pad_id):
    return finish(next_tokens, unfinished, end_ids, pad_id)[0]


def float_tokens(next_tokens, unfinished, end_ids, pad_id):
    next_tokens, flags = finish(next_tokens, unfinished, end_ids, pad_id)
    return next_tokens.float(), flags


def in_place(next_tokens, unfinished, end_ids, pad_id):
    next_tokens[~unfinished] = pad_id
    return finish(next_tokens, unfinished, end_ids, pad_id)


class Remembering:
    """Right at first, and from its tenth call on it calls every row finished."""

    __name__ = "remembering"

    def __init__(self):
        self.calls = 0

    def __call__(self, next_tokens, unfinished, end_ids, pad_id):
        self.calls += 1
        tokens, flags = finish(next_tokens, unfinished, end_ids, pad_id)
        return tokens, flags & (self.calls < 10)


def test_finish():
    prove_exercise(
        lesson05.check_finish,
        right=[finish, as_the_library_does, row_by_row],
        wrong=[
            (no_padding, "keep the token that the model chose"),
            (pads_the_end_itself, "has lost its end-of-text"),
            (swapped_where, "the two are swapped"),
            (filled_with_an_end, "pad them with `pad_id`"),
            (risen_from_the_dead, "is unfinished again"),
            (finished_flags, "the wrong way round"),
            (never_ends, "no row ends here"),
            (first_end_only, "only the first of `end_ids`"),
            (ended_by_the_padding, "only `end_ids` end a row"),
            (one_for_all, "one row's end ends all other rows"),
            (all_for_one, "the same for all rows"),
            (a_single_flag, "the flags have shape ()"),
            (flags_first, "returns the flags first"),
            (tokens_only, "return two tensors"),
            (float_tokens, "ids are whole numbers"),
            (in_place, "changes its input"),
        ],
    )


def test_finish_that_remembers_is_found_in_the_loop():
    with private_progress():
        assert "remember something between calls" in lesson05.check_finish(Remembering()).message


# ---- exercise 2: processors --------------------------------------------------------------------------


def heat(scores, temperature):
    return scores / temperature


def cut(scores, top_k):
    kth = scores.topk(min(top_k, scores.shape[-1])).values[:, -1:]
    return scores.masked_fill(scores < kth, OFF)


def both(first=heat, second=cut):
    """An answer whose processors are closures over its two arguments."""

    def answer(temperature, top_k):
        return [lambda ids, scores: first(scores, temperature), lambda ids, scores: second(scores, top_k)]

    answer.__name__ = f"{getattr(first, '__name__', 'first')}_{getattr(second, '__name__', 'second')}"
    return answer


def as_classes(temperature, top_k):
    class Temperature(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores / temperature

    class TopK(LogitsProcessor):
        def __call__(self, input_ids, scores):
            kept = scores.sort(descending=True).values[:, : min(top_k, scores.shape[-1])]
            return torch.where(scores >= kept[:, -1:], scores, OFF)

    return Temperature(), TopK()


def multiplied(scores, temperature):
    return scores * temperature


def probabilities(scores, temperature):
    return (scores / temperature).softmax(-1)


def unheated(scores, temperature):
    return scores + 0


def heated_in_place(scores, temperature):
    scores /= temperature
    return scores


def heated_one_row(scores, temperature):
    return scores[:1] / temperature


def heated_list(scores, temperature):
    return (scores / temperature).tolist()


def uncut(scores, top_k):
    return scores + 0


def zeroed(scores, top_k):
    return cut(scores, top_k).masked_fill(~cut(scores, top_k).isfinite(), 0)


def cut_the_kth_too(scores, top_k):
    kth = scores.topk(min(top_k, scores.shape[-1])).values[:, -1:]
    return scores.masked_fill(scores <= kth, OFF)


def smallest(scores, top_k):
    return -cut(-scores, top_k)


def really_smallest(scores, top_k):
    kth = (-scores).topk(min(top_k, scores.shape[-1])).values[:, -1:]
    return scores.masked_fill(scores > -kth, OFF)


def over_the_batch(scores, top_k):
    return scores.masked_fill(scores < scores.flatten().topk(min(top_k, scores.shape[-1])).values[-1], OFF)


def limit_of_the_first_row(scores, top_k):
    return scores.masked_fill(scores < scores.topk(min(top_k, scores.shape[-1])).values[0, -1], OFF)


def without_ties(scores, top_k):
    best = scores.topk(min(top_k, scores.shape[-1]))
    return torch.full_like(scores, OFF).scatter(-1, best.indices, best.values)


def too_large_k(scores, top_k):
    return scores.masked_fill(scores < scores.topk(top_k).values[:, -1:], OFF)


def one_too_many(scores, top_k):
    if top_k >= scores.shape[-1]:
        return scores + 0
    return scores.masked_fill(scores < scores.sort(descending=True).values[:, top_k, None], OFF)


def as_probabilities(scores, top_k):
    return cut(scores, top_k).softmax(-1)


def large_number(scores, top_k):
    return cut(scores, top_k).clamp(min=-1e9)


def small_number(scores, top_k):
    return cut(scores, top_k).clamp(min=-50)


def normalised(scores, top_k):
    return cut(scores, top_k).log_softmax(-1)


def cut_in_place(scores, top_k):
    scores[:] = cut(scores, top_k)
    return scores


def top_k_first(temperature, top_k):
    return both()(temperature, top_k)[::-1]


def one_only(temperature, top_k):
    return [lambda ids, scores: cut(heat(scores, temperature), top_k)]


def unwritten(temperature, top_k):
    def later(input_ids, scores):
        raise NotImplementedError

    return [later, later]


def test_processors():
    prove_exercise(
        lesson05.check_processors,
        right=[both(), as_classes, lambda t, k: [TemperatureLogitsWarper(t), TopKLogitsWarper(k)]],
        wrong=[
            (both(multiplied), "multiplied by the temperature"),
            (both(probabilities), "these are probabilities"),
            (both(unheated), "temperature has no effect"),
            (both(heated_in_place), "temperature processor changes the tensor"),
            (both(heated_one_row), "temperature processor should return a tensor of shape"),
            (top_k_first, "the first processor is top-k"),
            (one_only, "a list of two functions"),
            (both(second=uncut), "top-k has no effect"),
            (both(second=zeroed), "are set to 0"),
            (both(second=cut_the_kth_too), "remove only what is *below* it"),
            (both(second=really_smallest), "the smallest values are kept"),
            (both(second=over_the_batch), "the whole batch"),
            (both(second=limit_of_the_first_row), "the limit for all rows"),
            (both(second=without_ties), "tie with the k-th"),
            (both(second=too_large_k), "may be larger than the vocabulary"),
            (both(second=one_too_many), "are still there. At which index"),
            (both(second=large_number), "a large negative number is not −∞"),
            (both(second=small_number), "that still counts in a softmax"),
            (both(second=normalised), "their values have changed"),
            (both(second=cut_in_place), "top-k processor changes the tensor"),
        ],
    )


def test_probabilities_of_top_k_are_told():
    with private_progress():
        assert "These are probabilities" in lesson05.check_processors(both(second=as_probabilities)).message


def test_processors_that_return_no_scores_are_told():
    with private_progress():
        assert "got list" in lesson05.check_processors(both(heated_list)).message


def test_processors_without_a_body_are_not_started():
    with private_progress():
        assert lesson05.check_processors(unwritten).outcome == "not yet"


def test_a_processor_that_remembers_is_found_in_generate():
    def answer(temperature, top_k):
        calls = []

        def late(input_ids, scores):
            """Right when called once; from the second call on it prefers late ids."""
            slope = torch.linspace(0, 90, scores.shape[-1], device=scores.device)
            calls.append(scores)
            return scores / temperature + (len(calls) - 1) * slope

        return [late, both()(temperature, top_k)[1]]

    with private_progress():
        assert "samples different ids" in lesson05.check_processors(answer).message


# ---- exercise 3: sentences ---------------------------------------------------------------------------

MARKS = (".", "!", "?")


def counts(tokenizer, ids):
    return torch.tensor(
        [sum(tokenizer.decode(id).endswith(MARKS) for id in row) for row in ids], device=ids.device
    )


def by_tokens(tokenizer, prompt_length, sentences):
    return lambda input_ids, scores, **kwargs: counts(tokenizer, input_ids[:, prompt_length:]) >= sentences


def by_a_table(tokenizer, prompt_length, sentences):
    closing = torch.tensor([tokenizer.decode([id]).endswith(MARKS) for id in range(len(tokenizer))])

    class Sentences(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return closing[input_ids[:, prompt_length:]].sum(1) >= sentences

    return Sentences()


def exactly(tokenizer, prompt_length, sentences):
    return lambda input_ids, scores, **kwargs: counts(tokenizer, input_ids[:, prompt_length:]) == sentences


def with_the_prompt(tokenizer, prompt_length, sentences):
    return lambda input_ids, scores, **kwargs: counts(tokenizer, input_ids) >= sentences


def behind_the_first(tokenizer, prompt_length, sentences):
    return by_tokens(tokenizer, prompt_length + 1, sentences)


def full_stops_only(tokenizer, prompt_length, sentences):
    stop = tokenizer.encode(".")[0]
    return lambda input_ids, scores, **kwargs: (input_ids[:, prompt_length:] == stop).sum(1) >= sentences


def every_mark(tokenizer, prompt_length, sentences):
    def criterion(input_ids, scores, **kwargs):
        texts = tokenizer.batch_decode(input_ids[:, prompt_length:])
        return torch.tensor([sum(text.count(mark) for mark in MARKS) >= sentences for text in texts])

    return criterion


def the_first_one(tokenizer, prompt_length, sentences):
    return by_tokens(tokenizer, prompt_length, 1)


def one_late(tokenizer, prompt_length, sentences):
    return by_tokens(tokenizer, prompt_length, sentences + 1)


def marks_inside_too(tokenizer, prompt_length, sentences):
    def criterion(input_ids, scores, **kwargs):
        rows = [map(tokenizer.decode, row) for row in input_ids[:, prompt_length:].tolist()]
        return torch.tensor([sum(any(m in text for m in MARKS) for text in row) >= sentences for row in rows])

    return criterion


def the_newest_token(tokenizer, prompt_length, sentences):
    return lambda input_ids, scores, **kwargs: counts(tokenizer, input_ids[:, -1:]) >= 1


def inverted(tokenizer, prompt_length, sentences):
    right = by_tokens(tokenizer, prompt_length, sentences)
    return lambda input_ids, scores, **kwargs: ~right(input_ids, scores)


def any_row(tokenizer, prompt_length, sentences):
    right = by_tokens(tokenizer, prompt_length, sentences)
    return lambda input_ids, scores, **kwargs: right(input_ids, scores).any().expand(len(input_ids))


def one_bool(tokenizer, prompt_length, sentences):
    right = by_tokens(tokenizer, prompt_length, sentences)
    return lambda input_ids, scores, **kwargs: bool(right(input_ids, scores).all())


def zero_dimensional(tokenizer, prompt_length, sentences):
    right = by_tokens(tokenizer, prompt_length, sentences)
    return lambda input_ids, scores, **kwargs: right(input_ids, scores).all()


def a_list(tokenizer, prompt_length, sentences):
    right = by_tokens(tokenizer, prompt_length, sentences)
    return lambda input_ids, scores, **kwargs: right(input_ids, scores).tolist()


def numbers(tokenizer, prompt_length, sentences):
    right = by_tokens(tokenizer, prompt_length, sentences)
    return lambda input_ids, scores, **kwargs: right(input_ids, scores).long()


def the_verdict_itself(tokenizer, prompt_length, sentences):
    return torch.tensor([True])


def forgetful(tokenizer, prompt_length, sentences):
    right, calls = by_tokens(tokenizer, prompt_length, sentences), []

    def criterion(input_ids, scores, **kwargs):
        calls.append(1)
        return right(input_ids, scores) ^ (len(calls) > 1)

    return criterion


def unwritten_criterion(tokenizer, prompt_length, sentences):
    def criterion(input_ids, scores, **kwargs):
        raise NotImplementedError

    return criterion


def test_sentences():
    prove_exercise(
        lesson05.check_sentences,
        right=[by_tokens, by_a_table],
        wrong=[
            (with_the_prompt, "the prompt's sentences are counted"),
            (behind_the_first, "the first new token is left out"),
            (full_stops_only, "only the token `.` is counted"),
            (every_mark, "each mark is counted"),
            (the_first_one, "though more were asked for"),
            (one_late, "one sentence too late"),
            (exactly, "At least means"),
            (marks_inside_too, "a mark inside a token"),
            (the_newest_token, "part of the new text"),
            (inverted, "the wrong way round"),
            (any_row, "one row's end ends all other rows"),
            (one_bool, "for the whole batch"),
            (zero_dimensional, "the criterion returns shape ()"),
            (a_list, "the criterion returns list"),
            (numbers, "inverts them with `~`"),
            (the_verdict_itself, "return the criterion itself"),
            (forgetful, "returns something else"),
        ],
    )


def test_a_criterion_that_begins_in_the_prompt_is_told():
    def one_early(tokenizer, prompt_length, sentences):
        return by_tokens(tokenizer, prompt_length - 1, sentences)

    with private_progress():
        assert "The prompt's sentences are counted" in lesson05.check_sentences(one_early).message


def test_a_criterion_without_a_body_is_not_started():
    with private_progress():
        assert lesson05.check_sentences(unwritten_criterion).outcome == "not yet"


# ---- exercise 4: streamer ----------------------------------------------------------------------------


class Shows(BaseStreamer):
    """A right answer; the wrong ones below change one thing each."""

    def __init__(self, tokenizer):
        self.tokenizer, self.shown, self.probs = tokenizer, [], None

    def __call__(self, input_ids, scores):
        self.probs = scores[0].softmax(-1)
        return scores

    def put(self, ids):
        if ids.ndim == 1:
            self.shown.append((self.tokenizer.decode(ids), self.probs[ids[0]].item()))

    def end(self):
        pass


class ByLogSoftmax:
    """Right as well: no base class, a tensor for a number, the prompt known by there being no scores yet."""

    def __init__(self, tokenizer):
        self.decode, self.shown, self.latest = tokenizer.decode, [], None

    def __call__(self, input_ids, scores):
        self.latest = scores.log_softmax(-1)
        return scores

    def put(self, ids):
        if self.latest is not None:
            self.shown.append([self.decode(ids.tolist()), self.latest[0, ids.item()].exp()])

    def end(self):
        self.latest = None


class CountsTheIds(Shows):
    """Takes a prompt of one token for a new one."""

    def put(self, ids):
        if ids.numel() == 1:
            id = ids.flatten()[0]
            self.shown.append(
                (self.tokenizer.decode([id]), 0.0 if self.probs is None else self.probs[id].item())
            )


class ShowsThePrompt(Shows):
    def put(self, ids):
        if ids.ndim == 2:
            self.shown.append((self.tokenizer.decode(ids[0]), 1.0))
        super().put(ids)


class MissesTheFirst(Shows):
    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self.puts = 0

    def put(self, ids):
        self.puts += 1
        if self.puts > 2:
            super().put(ids)


class MissesTheLast(Shows):
    def __call__(self, input_ids, scores):
        if self.probs is not None:
            token = input_ids[0, -1]
            self.shown.append((self.tokenizer.decode(token), self.probs[token].item()))
        return super().__call__(input_ids, scores)

    def put(self, ids):
        pass


class ShowsIds(Shows):
    def put(self, ids):
        if ids.ndim == 1:
            self.shown.append((ids.item(), self.probs[ids[0]].item()))


class ShowsAllSoFar(Shows):
    def put(self, ids):
        if ids.ndim == 1:
            self.all = [*getattr(self, "all", []), ids.item()]
            self.shown.append((self.tokenizer.decode(self.all), self.probs[ids[0]].item()))


class ShowsUpperCase(Shows):
    def put(self, ids):
        if ids.ndim == 1:
            self.shown.append((self.tokenizer.decode(ids).upper() + "!", self.probs[ids[0]].item()))


class KeepsScores(Shows):
    def __call__(self, input_ids, scores):
        self.probs = scores[0]
        return scores


class KeepsLogarithms(Shows):
    def __call__(self, input_ids, scores):
        self.probs = scores[0].log_softmax(-1)
        return scores


class KeepsPerCent(Shows):
    def __call__(self, input_ids, scores):
        self.probs = 100 * scores[0].softmax(-1)
        return scores


class KeepsTheRest(Shows):
    def __call__(self, input_ids, scores):
        self.probs = 1 - scores[0].softmax(-1)
        return scores


class ShowsTheLargest(Shows):
    def put(self, ids):
        if ids.ndim == 1:
            self.shown.append((self.tokenizer.decode(ids), self.probs.max().item()))


class OneStepLate(Shows):
    def __call__(self, input_ids, scores):
        self.probs, self.next = getattr(self, "next", scores[0].softmax(-1)), scores[0].softmax(-1)
        return scores


class Rounds(Shows):
    def put(self, ids):
        super().put(ids)
        self.shown = [(text, round(p, 1)) for text, p in self.shown]


class ReturnsNothing(Shows):
    def __call__(self, input_ids, scores):
        super().__call__(input_ids, scores)


class ReturnsProbabilities(Shows):
    def __call__(self, input_ids, scores):
        self.probs = scores[0].softmax(-1)
        return scores.softmax(-1)


class CollectsNothing(Shows):
    def put(self, ids):
        pass


class LooksUpThePrompt(Shows):
    def put(self, ids):
        self.shown.append((self.tokenizer.decode(ids), self.probs[ids[0]].item()))


class CollectsTexts(Shows):
    def put(self, ids):
        if ids.ndim == 1:
            self.shown.append(self.tokenizer.decode(ids) + "...")


class CollectsText(Shows):
    def put(self, ids):
        self.shown = self.tokenizer.decode(ids if ids.ndim == 1 else ids[0])


def test_streamer():
    prove_exercise(
        lesson05.check_streamer,
        right=[Shows, ByLogSoftmax],
        wrong=[
            (ShowsThePrompt, "the prompt is included too"),
            (CountsTheIds, "A prompt of one token is taken"),
            (MissesTheFirst, "the first new token is missing"),
            (MissesTheLast, "the last token is missing"),
            (ShowsIds, "these are ids"),
            (ShowsAllSoFar, "the earlier ones as well"),
            (ShowsUpperCase, "not those of the new tokens"),
            (KeepsScores, "these are processed scores"),
            (KeepsLogarithms, "these are log probabilities"),
            (KeepsPerCent, "these are percentages"),
            (KeepsTheRest, "all other tokens together"),
            (ShowsTheLargest, "the largest probability"),
            (OneStepLate, "from the step before"),
            (Rounds, "of the step that chose it"),
            (ReturnsNothing, "returned None"),
            (ReturnsProbabilities, "writes different ids"),
            (CollectsNothing, "`self.shown` is empty"),
            (LooksUpThePrompt, "before there are any scores"),
            (CollectsTexts, "should hold pairs"),
            (CollectsText, "in `self.shown`, a list"),
        ],
    )


# ---- exercise 5: loops -------------------------------------------------------------------------------

RIGHT = {
    "A": (10, "if done.all():"),
    "B": (10, "unfinished = unfinished & ~torch.isin(chosen, end_ids)"),
    "C": (6, "last = -1"),
}


def with_(**lines):
    return {**RIGHT, **lines}


def test_loops():
    prove_exercise(
        lesson05.check_loops,
        right=[
            RIGHT,
            {
                "A": [10, "        if not (~done).any():"],
                "B": [10, "unfinished &= ~torch.isin(chosen, end_ids)"],
                "C": [7, "chosen = out.logits[:, -1].argmax(-1)"],
            },
            with_(C=(6, "last = attention_mask.shape[1] - 1")),
        ],
        wrong=[
            ([(10, "if done.all():")], "give a dictionary"),
            ({"A": RIGHT["A"], "B": RIGHT["B"]}, "Loop A is right. Loop B is right. Loop C has no line yet"),
            (
                with_(B=(10, "unfinished = ~torch.isin(chosen, end_ids) & (chosen != pad_id)")),
                "ends a row that writes the padding",
            ),
            (with_(A="if done.all():"), "the number of a line, and the line"),
            (with_(A=(30, "if done.all():")), "has lines 1 to 12"),
            (with_(A=(10, "if done.any():")), "is unchanged"),
            (with_(A=(10, "if done.all():\n    break")), "a string of one line"),
            (with_(A=(10, "if finished.all():")), "stops with NameError"),
            (
                with_(B=(4, "while True:")),
                "one forward pass more than",
            ),
            (with_(A=(9, "raise ValueError")), "no message"),
            (with_(A=(10, "if False:")), "does not stop where all rows have ended"),
            (with_(A=(9, "done = torch.isin(chosen, end_ids)")), "what the longest row gets"),
            (with_(B=(11, "if unfinished.sum() == 0:")), "two steps after its end"),
            (
                with_(B=(7, "chosen = torch.where(unfinished, logits[:, -1:].argmax(-1), 7)")),
                "is not the padding token",
            ),
            (with_(C=(6, "last = 0")), "writes other tokens"),
            (with_(C=(6, "last = attention_mask.argmax(1) - 1")), "only in the row without padding"),
        ],
    )


def test_every_loop_goes_wrong_on_both_batches_and_only_by_one_line():
    for batch, want in lesson05_loops.batches():
        for letter in lesson05_loops.LETTERS:
            broken = lesson05_loops.run(lesson05_loops.source(letter), *batch)
            mended = lesson05_loops.run(lesson05_loops.mend(letter, *RIGHT[letter]), *batch)
            assert not torch.equal(broken, want)
            assert torch.equal(mended, want)


@pytest.mark.parametrize("letter", lesson05_loops.LETTERS)
def test_the_printed_loop_is_the_one_that_runs(letter):
    printed = [line[4:] for line in lesson05_loops.numbered(letter).splitlines()]
    assert "\n".join(printed) == lesson05_loops.source(letter)


# ---- the lesson's own loop ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts():
    """The lesson's `extended` and `loop`."""
    known = {"torch": torch}
    (known["extended"],) = definitions("05", "extended", **known)
    (loop,) = definitions("05", "loop", **known)
    return loop


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-llama"])
def case(request):
    """A model, a left-padded batch and two ids that the model writes early in two of the rows."""
    model, tokenizer = load(request.param)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    batch = tokenizer(list(SENTENCES), padding=True, return_tensors="pt").to(model.device)
    free = model.generate(**batch, max_new_tokens=3, eos_token_id=None, pad_token_id=0)
    return model, batch, [free[0, -1].item(), free[1, -2].item()]


SETTINGS = [
    {},
    {"repetition_penalty": 1.4},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 5},
    {"do_sample": True},
    {"do_sample": True, "top_k": 0},
    {"do_sample": True, "top_k": 6, "temperature": 0.6},
    {"do_sample": True, "top_p": 0.7, "min_p": 0.02},
    {"do_sample": True, "top_k": 4, "num_return_sequences": 3},
    {"do_sample": True, "typical_p": 0.8, "suppress_tokens": [11, 13]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_loop_of_the_lesson_writes_generates_ids(settings, case, parts):
    model, batch, ends = case
    arguments = {**batch, **settings, "eos_token_id": ends, "pad_token_id": 0, "max_new_tokens": 9}
    for seed in range(2):
        torch.manual_seed(seed)
        theirs = model.generate(**arguments)
        torch.manual_seed(seed)
        assert torch.equal(model.generate(**arguments, custom_generate=parts), theirs)


def test_the_loop_of_the_lesson_takes_one_prompt_without_a_mask(parts):
    model, tokenizer = load("tiny-gpt2")
    inputs = tokenizer("My dog is", return_tensors="pt").to(model.device)
    ids = [
        model.generate(**inputs, max_new_tokens=6, pad_token_id=0, **own)
        for own in ({}, {"custom_generate": parts})
    ]
    assert torch.equal(*ids)


def test_a_loop_that_names_the_mask_takes_it_out_of_the_call(case):
    """What the lesson says in one sentence, of transformers' own doing."""
    model, batch, _ = case

    def named(model, input_ids, attention_mask, **rest):
        return input_ids

    with pytest.raises(TypeError, match="multiple values for keyword argument 'attention_mask'"):
        model.generate(**batch, max_new_tokens=2, pad_token_id=0, custom_generate=named)


def test_top_k_of_none_or_0_in_the_call_leaves_every_token_in_the_draw(case):
    model, batch, _ = case
    for top_k, kept in ((None, model.config.vocab_size), (0, model.config.vocab_size), (7, 7)):
        out = model.generate(
            **batch,
            do_sample=True,
            top_k=top_k,
            max_new_tokens=1,
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        )
        assert out.scores[0].isfinite().sum(-1).tolist() == [kept] * 3


def test_the_lessons_sentences_are_those_of_the_checks():
    source = definitions.__globals__["SOURCES"] / "05_generate.py"
    assert repr(list(SENTENCES)).replace("'", '"') in source.read_text(encoding="utf-8")
