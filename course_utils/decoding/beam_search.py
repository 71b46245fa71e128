"""Beam search as the library runs it, read while it runs.

generate() returns the sequences that won. What it weighed on the way and dropped is seen from two public
hooks: a logits processor is called with the beams that run, a stopping criterion with the candidates that
are weighed for the next step, best first. Neither changes anything, and nothing is searched again here.
"""

from dataclasses import dataclass

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from ..releases import cache_of

_NO_BEAM = -1e9  # the sum of log probabilities that generate() gives to a beam that does not run
_OTHER_SEARCHES = {  # what would make another search of it, or end a sequence by more than its last token
    "stop_strings": None,
    "max_time": None,
    "token_healing": False,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "constraints": None,
    "force_words_ids": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "prompt_lookup_num_tokens": None,
    "assistant_early_exit": None,
    "use_mtp": False,
    "is_assistant": False,
    "low_memory": None,
    "num_return_sequences": 1,
}


@dataclass(frozen=True)
class Candidate:
    """One continuation that beam search weighed.

    tokens:   tuple of int, the new tokens so far
    log_prob: float, of the last of them, in nats: generate()'s `scores` at its beam and its id
    total:    float, the sum of the log probabilities of all of them
    rank:     int, from 0, among all continuations of its step
    fate:     "kept", it goes on; "finished", it is complete and may become a result; "pruned"; "open", it
              would have gone on, but the search stopped
    """

    tokens: tuple[int, ...]
    log_prob: float
    total: float
    rank: int
    fate: str


def search_settings(eos_token_id):
    """Arguments of generate() that make beam search, or with one beam greedy decoding, of any model: dict.

    eos_token_id: a list of int, the tokens that end a sequence
    They win over the model's own GenerationConfig. Its logits processors stay.
    """
    known = vars(GenerationConfig())
    settings = {name: value for name, value in _OTHER_SEARCHES.items() if name in known}
    settings |= {"do_sample": False, "eos_token_id": list(eos_token_id) or None}
    if not eos_token_id:
        settings["exponential_decay_length_penalty"] = None  # it raises the end token's score
    # A row that is shorter than another is filled with the padding token, which is never read so far.
    return settings | {"pad_token_id": 0}


def is_continuation(length, score, length_penalty):
    """Whether a row of beam search's output is a continuation that was found: bool.

    Where there are fewer than beams, generate() fills up with empty rows and with beams that never ran.
    length: int, of its new tokens; score: float, its `sequences_scores`
    """
    return length > 0 and score * length**length_penalty > _NO_BEAM / 2


def watch_beam_search(model, input_ids, num_beams, max_new_tokens, eos_token_id=(), also=(), **settings):
    """What generate() returns from beam search, and the candidates of each of its steps.

    model:        a decoder-only model
    input_ids:    LongTensor [1, length], the prompt
    eos_token_id: a list of int, the tokens that end a sequence
    also:         new tokens, such as greedy decoding's: where a beam could go on with them and they are not
                  among the candidates, they are added to their step
    settings:     more of generate()'s arguments (length_penalty, early_stopping)
    The model's own stop strings do not count, nor does what asks for another search than this one.
    Returns (output, steps): the output with all `num_beams` sequences, `scores` and `beam_indices`, and a
    tuple of a tuple of Candidate for each step, best first. generate() weighs (1 + the number of end tokens)
    x `num_beams` candidates a step, at least twice `num_beams`.
    """
    with torch.no_grad():
        cache = cache_of(model(input_ids[:, :1], use_cache=True))
    # RWKV and RecurrentGemma keep their state elsewhere, and it does not follow beams that change places:
    # generate() refuses the one, and returns scores of the other that are not those of its sequences.
    without_cache = {"use_cache": False} if cache is None else {}
    running, weighed = _Running(), _Weighed()
    output = model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        logits_processor=LogitsProcessorList([running]),
        stopping_criteria=StoppingCriteriaList([weighed]),
        return_dict_in_generate=True,
        output_scores=True,
        **without_cache,
        **search_settings(eos_token_id) | {"num_return_sequences": num_beams} | settings,
    )
    new = slice(input_ids.shape[1], None)
    beams = [[tuple(row) for row in ids[:, new].tolist()] for ids in running.seen]
    candidates = [[tuple(row) for row in ids[:, new].tolist()] for ids in weighed.seen]

    def is_complete(tokens):
        return tokens[-1] in eos_token_id or len(tokens) == max_new_tokens

    return output, tuple(_steps(output.scores, beams, candidates, is_complete, tuple(also)))


class _Running(LogitsProcessor):
    """Remembers the beams of each step, and leaves their scores as they are."""

    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores):
        self.seen.append(input_ids.clone())
        return scores


class _Weighed(StoppingCriteria):
    """Remembers the candidates of each step, and stops none of them."""

    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores, **kwargs):
        self.seen.append(input_ids.clone())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _steps(scores, beams, candidates, is_complete, also):
    """The candidates of each step: an iterator of tuples of Candidate.

    scores:      tuple of tensor [beams, vocabulary], the log probabilities after the processors
    beams:       for each step the beams that run, as their new tokens: a list of tuple of int
    candidates:  for each step what was weighed, best first: the same
    is_complete: function from new tokens to bool, whether they may not go on
    """
    # As generate() begins: every beam is the prompt, and only the first one counts.
    totals = torch.full((len(beams[0]),), _NO_BEAM, device=scores[0].device)
    totals[0] = 0.0
    for step, weighed in enumerate(candidates):
        # Where a processor allows few tokens, the beams that do not count yet give the same ones again.
        weighed = list(dict.fromkeys(weighed))
        number = {tokens: at for at, tokens in reversed(list(enumerate(beams[step])))}
        sums = scores[step] + totals[:, None]
        place = {tokens: (number[tokens[:-1]], tokens[-1]) for tokens in weighed}
        rank = {tokens: at for at, tokens in enumerate(weighed)}
        added = also[: step + 1]
        if len(added) == step + 1 and added not in place and added[:-1] in number:
            place[added] = number[added[:-1]], added[-1]
            rank[added] = int((sums > sums[place[added]]).sum())
        incomplete = [tokens for tokens in weighed if not is_complete(tokens)]
        fates = dict.fromkeys(place, "pruned") | dict.fromkeys(incomplete[: len(totals)], "open")
        if step + 1 < len(beams):
            fates |= dict.fromkeys(beams[step + 1], "kept")
            totals = torch.stack([sums[place[tokens]] for tokens in beams[step + 1]])
        fates |= {tokens: "finished" for tokens in weighed[: len(totals)] if is_complete(tokens)}
        yield tuple(
            Candidate(tokens, scores[step][at].item(), sums[at].item(), rank[tokens], fates[tokens])
            for tokens, at in place.items()
            if sums[at].isfinite()  # not what a processor forbids
        )
