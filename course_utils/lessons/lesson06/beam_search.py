"""Exercises of lesson 06: the best continuations of beams, and which of them continue, end and count."""

import functools

import torch

from ...checks.exercise import Mistake, exercise, expect_close, expect_equal
from ...decoding.beam_search import watch_beam_search
from ...models import load
from ..fixtures import usable

BEAMS = 3
PROMPTS = ("My dog is", "It will rain in the")


def score_beams(log_probs, totals, count):
    """The best `count` continuations of all beams together, best first: a list of (total, beam, token).

    log_probs: float tensor [beams, vocab]; totals: float tensor [beams]
    """
    best = (log_probs + totals[:, None]).flatten().topk(count)
    places = [divmod(place, log_probs.shape[1]) for place in best.indices.tolist()]
    return [(total, beam, token) for total, (beam, token) in zip(best.values.tolist(), places, strict=True)]


def usable_score_beams(yours):
    """The learner's `score_beams` if it passes its check, else the course's own. Prints which; never raises."""
    return usable(check_score_beams, yours, score_beams, "score_beams")


def usable_sort_out(yours):
    """The learner's `sort_out` if it passes its check, else the course's own. Prints which; never raises."""
    return usable(check_sort_out, yours, sort_out, "sort_out")


@exercise("06/score-beams", title="Score the continuations", minutes=8, difficulty=2)
def check_score_beams(answer):
    """Random log probabilities of several beams, with sums far enough apart to matter and close enough to mix."""
    generator = torch.Generator().manual_seed(0)
    for beams, vocab, count in ((3, 7, 6), (2, 5, 4), (4, 11, 12)):
        log_probs = (3 * torch.randn(beams, vocab, generator=generator, dtype=torch.float64)).log_softmax(-1)
        totals = -torch.rand(beams, generator=generator, dtype=torch.float64).sort().values
        want = score_beams(log_probs, totals, count)
        got = answer(log_probs, totals, count)
        if not isinstance(got, list | tuple) or not all(
            isinstance(one, list | tuple) and len(one) == 3 for one in got
        ):
            raise Mistake("Return a list of triples, (total, beam, token).")
        got = [(float(total), int(beam), int(token)) for total, beam, token in got]
        flat = (log_probs + totals[:, None]).flatten()
        order = flat.argsort(descending=True).tolist()
        each = [
            (total, beam, token)
            for beam in range(beams)
            for total, _, token in score_beams(log_probs[[beam]], totals[[beam]], count // beams)
        ]
        each = sorted(each, reverse=True)
        expect_close(
            got,
            want,
            (log_probs, totals, count),
            "Add each beam's sum to its log probabilities, and take the best of all beams together.",
            mistakes=[
                (score_beams(log_probs, torch.zeros_like(totals), count), "The sums so far are missing: add `totals` to the log probabilities."),
                ([(log_probs.flatten()[place].item(), *divmod(place, vocab)) for place in order[:count]], "The triples hold the log probability of the new token. The total is the sum with what came before."),
                ([(total, token, beam) for total, beam, token in want], "Beam and token are exchanged: the triple is (total, beam, token)."),
                ([(flat[place].item(), *divmod(place, beams)) for place in order[:count]], "`divmod` is by the number of beams. A beam's part of the flattened sums has as many places as the vocabulary."),
                ([(flat[place].item(), *divmod(place, vocab)) for place in order[::-1][:count]], "These are the worst continuations."),
                (want[::-1], "The order is turned round: best first."),
                (each if each != want else None, "Each beam has the same number of continuations here. All beams compete for the places together."),
                (lambda got: len(got) != count, f"Return {count} triples, as many as `count` says."),
                (lambda got: [one[1:] for one in got] == [one[1:] for one in want], "The beams and tokens are right, their totals are not: log probabilities are *added*."),
            ],
            tolerance=1e-6,
        )  # fmt: skip
    return "All continuations of all beams compete, and each brings the sum of its beam."


def sort_out(candidates, num_beams, end_ids, last):
    """What the exercise asks for: (running, ended), two lists of candidates in their original order.

    candidates: list of (total, beam, token), best first: the sum of its log probabilities, the beam that it
                continues, its new token
    last:       bool, whether every candidate ends at this step

    As in `_get_running_beams_for_next_iteration` and `_update_finished_beams` of transformers'
    generation/utils.py: ended candidates count only among the first `num_beams`, and never continue.
    """
    ended = [one for one in candidates[:num_beams] if last or one[2] in end_ids]
    running = [] if last else [one for one in candidates if one[2] not in end_ids][:num_beams]
    return running, ended


@exercise("06/beams", title="Sort out the candidates", minutes=12, difficulty=2)
def check_sort_out(answer):
    """Lists made by hand, then every step of the library's own search on a tiny model, where the candidates and
    what becomes of them are known."""
    for tokens, num_beams, end_ids, last in [
        ([5, 6, 7, 8], 2, [9], False),
        ([5, 9, 6, 9, 7, 9], 2, [9], False),
        ([9, 5, 4, 4, 6, 9, 8, 7, 3], 3, [9, 4], False),
        ([9, 4, 9, 4, 6, 5, 9, 7, 3], 3, [9, 4], False),
        ([5, 9, 7, 8, 6, 3], 3, [9], True),
    ]:
        candidates = [(-1.0 - place, place % num_beams, token) for place, token in enumerate(tokens)]
        _compare(answer, candidates, num_beams, end_ids, last)
    for candidates, end_ids, last, fates in _searched():
        got = _compare(answer, candidates, BEAMS, end_ids, last)
        expect_equal(
            got, fates, "a step of the library's own search", "The library continued with other candidates."
        )
    return "The same beams continue and the same texts end as in generate()'s own search, at every step."


def _compare(answer, candidates, num_beams, end_ids, last):
    """The two lists that a learner's function returns, if they are right; Mistake otherwise."""
    got = answer(candidates, num_beams, end_ids, last)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake(f"Return two lists, as in `return running, ended`; got {type(got).__name__}.")
    if not all(isinstance(part, list | tuple) for part in got):
        raise Mistake("Return two lists of candidates, as in `return running, ended`.")
    got = tuple([tuple(one) if isinstance(one, list) else one for one in part] for part in got)
    if any(one not in candidates for part in got for one in part):
        raise Mistake("The lists should hold the candidates unchanged: `(total, beam, token)`.")
    want = sort_out(candidates, num_beams, end_ids, last)
    ends = [one for one in candidates if last or one[2] in end_ids]
    rest = [one for one in candidates if one not in ends]
    first = candidates[:num_beams]
    said = f"the tokens {[token for _, _, token in candidates]}, num_beams={num_beams}, the ends {end_ids} and last={last}"  # fmt: skip
    expect_equal(
        got,
        want,
        said,
        "Candidates that have not ended continue, at most `num_beams` of them; those that have ended count only among the first `num_beams`.",
        mistakes=[
            (lambda got: got == want[::-1], "The two lists are swapped: return those that continue first."),
            (lambda got: last and len(got[1]) > num_beams, "In the last step, too, only the first `num_beams` candidates count as results."),
            (lambda got: last and got[1] != want[1], "In the last step every candidate ends, whatever its token."),
            (lambda got: last and got[0], "After the last step nothing continues: its candidates are results only."),
            (lambda got: got[0] == want[0] and got[1] == [one for one in want[1] if one[2] == end_ids[0]], "Only the first of `end_ids` counts here. Any of them ends a text."),
            (lambda got: any(one in got[0] for one in ends), "A text that has ended continues here. It is either a result or dropped."),
            (lambda got: got[0] == [one for one in first if one in rest] != want[0], f"Only {len([one for one in first if one in rest])} continue here, although {num_beams} beams should: candidates ranked lower replace the ones that ended."),
            (lambda got: len(got[0]) > num_beams, "More candidates continue than there are beams."),
            (lambda got: got[1] == ends != want[1], "A text that ended after the first `num_beams` candidates counts as a result here. The library drops it."),
            (lambda got: got[1] == ends[:num_beams] != want[1], "The first `num_beams` *ended* texts count here. What decides is the rank among **all** candidates."),
            (lambda got: sorted(got[0]) == sorted(want[0]) and sorted(got[1]) == sorted(want[1]), "The candidates are right, but not their order: best first."),
        ],
    )  # fmt: skip
    return got


@functools.cache
def _searched():
    """Each step of generate()'s beam search on a tiny model: tuples (candidates, end_ids, last, (running, ended))."""
    model, tokenizer = load("tiny-gpt2", device="cpu")
    steps, seen = 5, []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        free, _ = watch_beam_search(model, ids, BEAMS, 3)
        # What the beams write at their second and third step, so that texts end early.
        end_ids = sorted(set(free.sequences[:, -2:].flatten().tolist()))[:2]
        _, found = watch_beam_search(model, ids, BEAMS, steps, end_ids)
        beams: list[tuple[int, ...]] = [()]
        for number, step in enumerate(found, 1):
            step = sorted(step, key=lambda one: one.rank)
            triples = [(one.total, beams.index(one.tokens[:-1]), one.tokens[-1]) for one in step]
            fates = (
                [triple for triple, one in zip(triples, step, strict=True) if one.fate in ("kept", "open")],
                [triple for triple, one in zip(triples, step, strict=True) if one.fate == "finished"],
            )
            beams = [one.tokens for one in step if one.fate == "kept"]
            seen.append((triples, end_ids, number == steps, fates))
    return tuple(seen)
