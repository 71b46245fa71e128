"""Lesson 06: its checks against right and wrong answers, its questions against their proofs, and its own
functions against transformers."""

import functools

import pytest
import torch
from transformers import DynamicCache, MinPLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper

from course_utils import load
from course_utils.lessons import lesson06
from course_utils.lessons.lesson06 import beam_search as lesson06_beams
from course_utils.masks import position_ids
from lesson_code import definitions
from prove import private_progress, prove_exercise, prove_questions

OFF = float("-inf")
loaded = functools.cache(load)


def test_questions():
    assert len(prove_questions(lesson06)) == 6


# ---- exercise 1: top-p -------------------------------------------------------------------------------


def sorted_flags(scores, p):
    probs, order = scores.softmax(-1).sort(descending=True)
    removed = probs.cumsum(-1) - probs >= p
    removed[:, 0] = False
    return removed, order


def back(removed, order):
    return torch.zeros_like(removed).scatter(-1, order, removed)


def top_p(scores, p):
    return scores.masked_fill(back(*sorted_flags(scores, p)), OFF)


def top_p_upwards(scores, p):
    rising, order = scores.sort(descending=False)
    removed = rising.softmax(-1).cumsum(-1) <= 1 - p
    removed[:, -1] = False
    return scores.masked_fill(removed.scatter(1, order, removed), OFF)


def top_p_by_threshold(scores, p):
    probs = scores.softmax(-1)
    rows = []
    for row in probs:
        ordered = row.sort(descending=True).values.tolist()
        kept, held = 0, 0.0
        while kept == 0 or (held < p and kept < len(ordered)):
            held += ordered[kept]
            kept += 1
        rows.append(row >= ordered[kept - 1])
    return torch.where(torch.stack(rows), scores, OFF)


def top_p_in_double(scores, p):
    return top_p(scores.double(), p)


def top_p_by_gather(scores, p):
    removed, order = sorted_flags(scores, p)
    return scores.masked_fill(removed.gather(-1, order), OFF)


def the_first_rows_tokens(scores, p):
    return scores.masked_fill(back(*sorted_flags(scores, p))[:1].expand_as(scores), OFF)


def at_least_the_rest(scores, p):
    return scores.masked_fill(scores.softmax(-1) < 1 - p, OFF)


def top_p_unchanged(scores, p):
    return scores.clone()


def top_p_without_the_crossing(scores, p):
    probs, order = scores.softmax(-1).sort(descending=True)
    removed = probs.cumsum(-1) > p
    removed[:, 0] = False
    return scores.masked_fill(back(removed, order), OFF)


def top_p_of_nothing(scores, p):
    probs, order = scores.softmax(-1).sort(descending=True)
    return scores.masked_fill(back(probs.cumsum(-1) - probs >= p, order), OFF)


def top_p_in_sorted_order(scores, p):
    return scores.masked_fill(sorted_flags(scores, p)[0], OFF)


def top_p_sorted(scores, p):
    removed, order = sorted_flags(scores, p)
    return scores.gather(-1, order).masked_fill(removed, OFF)


def top_p_of_the_least(scores, p):
    rising, order = scores.softmax(-1).sort(descending=False)
    return scores.masked_fill(back(rising.cumsum(-1) > p, order), OFF)


def top_p_over_all(scores, p):
    probs, order = scores.softmax(-1).flatten().sort(descending=True)
    removed = torch.zeros_like(order, dtype=torch.bool).scatter(0, order, probs.cumsum(0) - probs >= p)
    return scores.masked_fill(removed.view_as(scores), OFF)


def top_p_like_the_first_row(scores, p):
    removed, order = sorted_flags(scores, p)
    return scores.masked_fill(back(removed[:1].expand_as(scores), order), OFF)


def min_p_instead(scores, p):
    probs = scores.softmax(-1)
    return scores.masked_fill(probs < p * probs.amax(-1, keepdim=True), OFF)


def top_p_probabilities(scores, p):
    return top_p(scores, p).softmax(-1)


def top_p_zeroed(scores, p):
    return scores.masked_fill(back(*sorted_flags(scores, p)), 0)


def top_p_large_number(scores, p):
    return scores.masked_fill(back(*sorted_flags(scores, p)), -1e9)


def top_p_normalised(scores, p):
    return top_p(scores, p).log_softmax(-1)


def top_p_nan(scores, p):
    return top_p(scores, p) - scores + scores


def top_p_in_place(scores, p):
    scores[back(*sorted_flags(scores, p))] = OFF
    return scores


def top_p_ids(scores, p):
    return top_p(scores, p).isfinite().nonzero()


def test_top_p():
    prove_exercise(
        lesson06.check_top_p,
        right=[top_p, top_p_upwards, top_p_in_double],
        wrong=[
            (top_p_unchanged, "nothing is removed"),
            (top_p_without_the_crossing, "is removed too. keep it"),
            (top_p_of_nothing, "a row has nothing left"),
            (top_p_in_sorted_order, "move them back to the ids"),
            (top_p_sorted, "your result is sorted"),
            (top_p_of_the_least, "the least likely tokens are kept"),
            (top_p_over_all, "over the whole batch"),
            (top_p_like_the_first_row, "the first row's number"),
            (top_p_by_gather, "to move them back use `scatter`"),
            (the_first_rows_tokens, "the first row's tokens"),
            (at_least_the_rest, "is compared with 1 − p"),
            (min_p_instead, "that is min-p"),
            (top_p_probabilities, "these are probabilities"),
            (top_p_zeroed, "are set to 0"),
            (top_p_large_number, "a large negative number is not"),
            (top_p_normalised, "but their values have changed"),
            (top_p_nan, "the result contains nan"),
            (top_p_in_place, "changes its input"),
            (top_p_by_threshold, "ties with one that stays"),
            (top_p_ids, "return a tensor of shape"),
        ],
    )


# ---- exercise 2: targets -----------------------------------------------------------------------------

MET = {
    "A": {"temperature": 3.0, "top_k": 5},
    "B": {"temperature": 0.1, "top_k": 20},
    "C": {"typical_p": 0.2},
}


def with_(**settings):
    return {**MET, **settings}


def test_targets():
    prove_exercise(
        lesson06.check_targets,
        right=[
            MET,
            {
                "A": {"temperature": 2, "top_k": 5, "min_p": 0.0, "typical_p": 1.0},
                "B": {"temperature": 0.05, "top_p": 1},
                "C": {"typical_p": 0.1, "temperature": 0.9, "top_k": 0},
            },
        ],
        wrong=[
            ([MET], "give a dictionary"),
            ({"A": MET["A"], "C": MET["C"]}, "no settings for b yet"),
            (with_(A={"top_k": 7}), "exactly five are asked for"),
            (with_(A={"temperature": 0.3, "top_k": 5}), "make the five more equal"),
            (with_(B={"temperature": 0.1, "top_k": 5}), "at least twenty are asked for"),
            (with_(B={"top_k": 20}), "one token must have nearly all"),
            (with_(C={"top_p": 0.3}), "the likeliest token is still among them"),
            (with_(C={"typical_p": 0.5}), "at most 60 are asked for"),
            (with_(A={"topk": 5}), "not one of the settings"),
            (with_(C={"typical_p": -0.5}), "cannot have typical_p=-0.5: typicallogitswarper refuses it"),
            (with_(C={"typical_p": "0.2"}), "cannot have typical_p='0.2': give a number"),
            (with_(A={"temperature": "hot", "top_k": 5}), "temperature='hot'"),
        ],
    )


# ---- exercise 3: forbid ------------------------------------------------------------------------------


@functools.cache
def vocabulary(tokenizer):
    return tokenizer.batch_decode([[id] for id in range(len(tokenizer))])


def banning(choose, fill=OFF, prepare=vocabulary):
    """An answer to exercise 3 whose processor bans the ids that choose(tokenizer, texts, word, ids) names."""

    def forbid(tokenizer, word):
        texts = prepare(tokenizer)

        def processor(input_ids, scores):
            scores = scores.clone()
            for row, ids in enumerate(input_ids):
                scores[row, list(choose(tokenizer, texts, word, ids, input_ids))] = fill
            return scores

        return processor

    return forbid


def completing(tokenizer, texts, word, ids, batch):
    tail = tokenizer.decode(ids)[-(len(word) - 1) :] if len(word) > 1 else ""
    return [id for id, text in enumerate(texts) if word in (tail + text).lower()]


def by_beginnings(tokenizer, word):
    """Right as well: for each beginning of the word, the tokens that start with the rest of it."""
    texts = [text.lower() for text in vocabulary(tokenizer)]
    after = {
        size: torch.tensor([text.startswith(word[size:]) for text in texts]) for size in range(1, len(word))
    }
    whole = torch.tensor([word in text for text in texts])

    class Processor:
        def __call__(self, input_ids, scores):
            flags = whole.repeat(len(input_ids), 1)
            for row, ids in enumerate(input_ids.tolist()):
                text = tokenizer.decode(ids).lower()
                for size, starts in after.items():
                    if text.endswith(word[:size]):
                        flags[row] |= starts
            return scores.masked_fill(flags, OFF)

    return Processor()


def nothing(tokenizer, texts, word, ids, batch):
    return []


def whole_tokens(tokenizer, texts, word, ids, batch):
    return [id for id, text in enumerate(texts) if word in text.lower()]


def exact_case(tokenizer, texts, word, ids, batch):
    tail = tokenizer.decode(ids)[-(len(word) - 1) :]
    return [id for id, text in enumerate(texts) if word in tail + text]


def anywhere(tokenizer, texts, word, ids, batch):
    text = tokenizer.decode(ids)
    return [id for id, piece in enumerate(texts) if word in (text + piece).lower()]


def after_all_for_one_letter(tokenizer, texts, word, ids, batch):
    tail = tokenizer.decode(ids)[-(len(word) - 1) :]
    return [id for id, text in enumerate(texts) if word in (tail + text).lower()]


def counted(tokenizer, texts, word, ids, batch):
    text = tokenizer.decode(ids).lower()
    return [id for id, piece in enumerate(texts) if (text + piece.lower()).count(word) > text.count(word)]


def once_only(tokenizer, texts, word, ids, batch):
    text = tokenizer.decode(ids).lower()
    return [id for id, piece in enumerate(texts) if word in text + piece.lower() and word not in text]


def a_longer_tail(tokenizer, texts, word, ids, batch):
    tail = tokenizer.decode(ids)[-len(word) :]
    return [id for id, text in enumerate(texts) if word in (tail + text).lower()]


def first_row(tokenizer, texts, word, ids, batch):
    return completing(tokenizer, texts, word, batch[0], batch)


def the_word_alone(tokenizer, texts, word, ids, batch):
    return [id for id, text in enumerate(texts) if text.strip().lower() == word]


def its_encodings(tokenizer, texts, word, ids, batch):
    forms = (word, " " + word, word.title(), " " + word.title())
    return {id for form in forms for id in tokenizer.encode(form)}


def beginnings_too(tokenizer, texts, word, ids, batch):
    begin = [id for id, text in enumerate(texts) if text.strip().lower() in (word[:2], word[:3])]
    return {*completing(tokenizer, texts, word, ids, batch), *begin}


def all_but_one(tokenizer, texts, word, ids, batch):
    return completing(tokenizer, texts, word, ids, batch)[1:]


def forbid_and_normalise(tokenizer, word):
    right = banning(completing)(tokenizer, word)
    return lambda input_ids, scores: right(input_ids, scores).log_softmax(-1)


def forbid_in_place(tokenizer, word):
    right = banning(completing)(tokenizer, word)
    return lambda input_ids, scores: scores.copy_(right(input_ids, scores))


def forbid_returning_ids(tokenizer, word):
    texts = vocabulary(tokenizer)
    return lambda input_ids, scores: completing(tokenizer, texts, word, input_ids[0], input_ids)


def forbidden_ids(tokenizer, word):
    return tokenizer.encode(word)


def forgetful(tokenizer, word):
    right, calls = banning(completing)(tokenizer, word), []

    def processor(input_ids, scores):
        calls.append(1)
        return right(input_ids, scores) if len(calls) == 1 else scores.clone()

    return processor


def test_forbid():
    prove_exercise(
        lesson06.check_forbid,
        right=[banning(completing), by_beginnings],
        wrong=[
            (banning(nothing), "nothing is forbidden."),
            (banning(once_only), "must not be completed a second time"),
            (banning(whole_tokens), "only tokens that contain the whole word"),
            (banning(exact_case), "compare in lower case"),
            (banning(anywhere), "every token is forbidden, because the word is"),
            (banning(after_all_for_one_letter), "`text[-0:]` is the whole text"),
            (banning(counted), "skips a word that overlaps"),
            (banning(first_row), "the first row's text decides"),
            (banning(the_word_alone), "only tokens that *are* the word"),
            (banning(its_encodings), "the word's own encodings"),
            (banning(beginnings_too), "that do not complete the word"),
            (banning(all_but_one), "the wrong tokens are forbidden"),
            (banning(completing, fill=-1e9), "a large negative number"),
            (forbid_and_normalise, "that are not forbidden have changed"),
            (forbid_in_place, "work on a copy"),
            (forbid_returning_ids, "one value per token; got list"),
            (forbidden_ids, "return the processor itself"),
            (forgetful, "returns something else"),
        ],
    )


def test_forbid_of_the_solution():
    with private_progress():
        assert lesson06.check_forbid(*definitions("06", "forbid")).outcome == "right"


def test_a_tail_that_a_short_text_loses():
    def tail_of_long_texts(tokenizer, texts, word, ids, batch):
        text = tokenizer.decode(ids)
        tail = text[len(text) + 1 - len(word) :]  # below 0 for a short text
        return [id for id, piece in enumerate(texts) if word in (tail + piece).lower()]

    with private_progress():
        result = lesson06.check_forbid(banning(tail_of_long_texts))
    assert result.outcome == "wrong"
    assert "after 'Piz'" in result.message


def test_a_text_that_ends_in_the_word_is_no_reason_to_forbid_everything():
    with private_progress():
        result = lesson06.check_forbid(banning(a_longer_tail))
    assert result.outcome == "wrong"
    assert "every token is forbidden" in result.message.lower()


def test_a_processor_without_a_body_is_not_started():
    def forbid(tokenizer, word):
        def processor(input_ids, scores):
            raise NotImplementedError

        return processor

    with private_progress():
        assert lesson06.check_forbid(forbid).outcome == "not yet"


# ---- exercise 4: beam search -------------------------------------------------------------------------


def walked(candidates, num_beams, end_ids, last, drop_late=True, count_all=False):
    running, ended = [], []
    for rank, candidate in enumerate(candidates):
        if last or candidate[2] in end_ids:
            if (len(ended) if count_all else rank) < num_beams or not drop_late:
                ended.append(candidate)
        elif len(running) < num_beams:
            running.append(candidate)
    return running, ended


def as_lists(candidates, num_beams, end_ids, last):
    running, ended = walked(candidates, num_beams, end_ids, last)
    return [[list(one) for one in running], [list(one) for one in ended]]


def late_ends_count(*given):
    return walked(*given, drop_late=False)


def first_ends_count(*given):
    return walked(*given, count_all=True)


def swapped(*given):
    return walked(*given)[::-1]


def never_last(candidates, num_beams, end_ids, last):
    return walked(candidates, num_beams, end_ids, False)


def on_after_the_last(candidates, num_beams, end_ids, last):
    return walked(candidates, num_beams, end_ids, False)[0], walked(candidates, num_beams, end_ids, last)[1]


def ended_go_on(candidates, num_beams, end_ids, last):
    _, ended = walked(candidates, num_beams, end_ids, last)
    return ([] if last else candidates[:num_beams]), ended


def no_backups(candidates, num_beams, end_ids, last):
    running, ended = walked(candidates[:num_beams], num_beams, end_ids, last)
    return running, ended


def too_many(candidates, num_beams, end_ids, last):
    running = [] if last else [one for one in candidates if one[2] not in end_ids]
    return running, walked(candidates, num_beams, end_ids, last)[1]


def worst_first(*given):
    running, ended = walked(*given)
    return running[::-1], ended[::-1]


def totals_only(*given):
    running, ended = walked(*given)
    return [one[0] for one in running], [one[0] for one in ended]


def running_only(*given):
    return walked(*given)[0][0]


def a_number_and_a_list(*given):
    return len(walked(*given)[0]), walked(*given)[1]


def first_end_only(candidates, num_beams, end_ids, last):
    running, ended = walked(candidates, num_beams, end_ids, last)
    return running, ended if last else [one for one in ended if one[2] == end_ids[0]]


def one_by_one(log_probs, totals, count):
    """Every continuation as a triple, sorted."""
    triples = [
        [totals[beam] + log_probs[beam, token], beam, token]
        for beam in range(len(totals))
        for token in range(log_probs.shape[1])
    ]
    return sorted(triples, key=lambda triple: -triple[0])[:count]


def scored(log_probs, totals, count, by=None):
    flat = (log_probs + totals[:, None]).flatten()
    places = flat.argsort(descending=True)[:count].tolist()
    return [(flat[place].item(), *divmod(place, by or log_probs.shape[1])) for place in places]


def without_totals(log_probs, totals, count):
    return scored(log_probs, torch.zeros_like(totals), count)


def new_token_only(log_probs, totals, count):
    right = scored(log_probs, totals, count)
    return [(log_probs[beam, token].item(), beam, token) for _, beam, token in right]


def exchanged(log_probs, totals, count):
    return [(total, token, beam) for total, beam, token in scored(log_probs, totals, count)]


def divided_by_beams(log_probs, totals, count):
    return scored(log_probs, totals, count, by=len(totals))


def worst(log_probs, totals, count):
    return one_by_one(log_probs, totals, log_probs.numel())[::-1][:count]


def worst_first_of_the_best(log_probs, totals, count):
    return scored(log_probs, totals, count)[::-1]


def each_beam_alike(log_probs, totals, count):
    rows = [scored(log_probs[[beam]], totals[[beam]], count // len(totals)) for beam in range(len(totals))]
    return sorted(
        ((total, beam, token) for beam, row in enumerate(rows) for total, _, token in row), reverse=True
    )


def too_few(log_probs, totals, count):
    return scored(log_probs, totals, count - 1)


def multiplied(log_probs, totals, count):
    right = scored(log_probs, totals, count)
    return [(log_probs[beam, token].item() * totals[beam].item(), beam, token) for _, beam, token in right]


def test_score_beams():
    prove_exercise(
        lesson06.check_score_beams,
        right=[*definitions("06", "score_beams", torch=torch), one_by_one, scored],
        wrong=[
            (without_totals, "sums so far are missing"),
            (new_token_only, "hold the log probability of the new token"),
            (exchanged, "Beam and token are exchanged"),
            (divided_by_beams, "is by the number of beams"),
            (worst, "the worst continuations"),
            (worst_first_of_the_best, "turned round"),
            (each_beam_alike, "the same number of continuations"),
            (too_few, "as many as `count` says"),
            (multiplied, "are *added*"),
            (lambda log_probs, totals, count: log_probs, "Return a list of triples"),
        ],
    )


def test_sort_out():
    prove_exercise(
        lesson06.check_sort_out,
        right=[walked, as_lists, lesson06.sort_out],
        wrong=[
            (late_ends_count, "after the first `num_beams` candidates counts"),
            (first_ends_count, "the first `num_beams` *ended* texts"),
            (swapped, "the two lists are swapped"),
            (never_last, "in the last step every candidate ends"),
            (on_after_the_last, "after the last step nothing continues"),
            (ended_go_on, "a text that has ended continues"),
            (no_backups, "ranked lower replace"),
            (too_many, "than there are beams"),
            (worst_first, "best first"),
            (totals_only, "should hold the candidates unchanged"),
            (running_only, "return two lists, as in"),
            (a_number_and_a_list, "return two lists of candidates"),
            (first_end_only, "only the first of `end_ids`"),
        ],
    )


def test_the_checked_searches_hold_every_case():
    steps = lesson06_beams._searched()
    assert any(last for _, _, last, _ in steps)
    assert any(ended and not last for _, _, last, (_, ended) in steps)
    late = [
        one
        for candidates, ends, _, _ in steps
        for one in candidates[lesson06_beams.BEAMS :]
        if one[2] in ends
    ]
    assert late


# ---- the lesson's own functions ----------------------------------------------------------------------


def test_min_p_and_typical_equal_the_librarys():
    min_p, typical = definitions("06", "min_p_filter", "typical_filter", torch=torch)
    generator = torch.Generator().manual_seed(0)
    for scale in (0.5, 2, 8):
        scores = torch.randn(4, 300, generator=generator) * scale
        scores[1, ::3] = OFF
        for share in (0.02, 0.3, 0.7, 0.95):
            assert torch.equal(min_p(scores, share), MinPLogitsWarper(share)(None, scores))
            assert torch.equal(typical(scores, share), TypicalLogitsWarper(share)(None, scores))


def test_top_p_of_the_solution_equals_the_librarys():
    (solution,) = definitions("06", "top_p_filter", torch=torch)
    scores = torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) * 3
    for p in (0.0, 0.1, 0.5, 0.9, 0.99):
        assert torch.equal(solution(scores, p), TopPLogitsWarper(p)(None, scores))


def test_a_right_sampler_is_seldom_off_and_a_wrong_one_is():
    (off_by,) = definitions("06", "off_by", torch=torch)
    generator = torch.Generator().manual_seed(0)
    for spread in (1.0, 2.5):
        scores = torch.randn(2000, generator=generator) * spread
        off = []
        for temperature in (1.0, 0.7):
            probs = (scores / temperature).softmax(-1)
            draws = [torch.multinomial(probs, 5000, True, generator=generator) for _ in range(40)]
            off.append([off_by(one, scores).item() for one in draws])
        right, wrong = map(torch.tensor, off)
        assert right.max() < 6
        assert abs(right.mean()) < 0.6
        assert wrong.min() > 6


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize(("beams", "ends"), [(2, 0), (4, 2), (5, 3), (3, 30)])
def test_beam_search_equals_generate(name, penalty, beams, ends):
    score, sort = definitions("06", "score_beams", "sort_out", torch=torch)
    known = {
        "torch": torch,
        "position_ids": position_ids,
        "DynamicCache": DynamicCache,
        "score": score,
        "sort": sort,
    }
    search = definitions("06", "copied", "goes_on", "beam_search", **known)[-1]
    model, tokenizer = loaded(name)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    sentences = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]
    batch = tokenizer(sentences, padding=True, return_tensors="pt").to(model.device)
    if ends < 4:  # what the best beams write at their second to fourth step: results come now and then
        free = search(model, batch, beams, 4, [])
        end_ids = [free[row][0][1][1 + row] for row in range(3)][:ends]
    else:  # what is likeliest at the first step: there are enough results before the beams have their length
        with torch.no_grad():
            logits = model(**batch, position_ids=position_ids(batch.attention_mask)).logits[1, -1]
        end_ids = logits.topk(ends).indices.tolist()
    theirs = model.generate(
        **batch,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=7,
        length_penalty=penalty,
        eos_token_id=end_ids or None,
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    new = theirs.sequences[:, batch.input_ids.shape[1] :].tolist()
    found = search(model, batch, beams, 7, end_ids, penalty)
    ours = [one for results in found for one in results]
    assert [ids + [tokenizer.pad_token_id] * (len(new[0]) - len(ids)) for _, ids in ours] == new
    scores = torch.tensor([score for score, _ in ours])
    torch.testing.assert_close(scores, theirs.sequences_scores.cpu(), atol=1e-5, rtol=1e-5)
