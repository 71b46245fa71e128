"""How likely a text was: log probabilities, and the scores that generate() ranks texts by.

    what generate() returned -> `transition_scores`: the score of each chosen token
                             -> `generated_lengths`, `sequence_scores`: one number a row
    any text                 -> `next_token_log_probs`: what the model expects after each of its tokens
                             -> `token_log_probs`: the log probability of each of its tokens
                             -> `perplexity`: one number for all of them

Logarithms are natural: a log probability is in nats, exp(it) is the probability, and -it / log(2) is the
token's surprise in bits. Lesson 07 builds each of these in its cells; widgets and later lessons use them.
"""

import math
from typing import Any

import torch

from .errors import CourseError
from .inputs.causal import check_causal
from .inputs.limits import check_known_ids, check_no_learned_prompt, position_limit, unwrapped
from .masks import check_mask

SOURCES = ("scores", "logits")


def transition_scores(
    output: Any, eos_token_id: Any = None, normalize_logits: bool = True, source: str = "scores"
) -> torch.Tensor:
    """The score of each token that generate() chose: float32 [rows, new tokens], 0 after a row's end.

    output:       what `model.generate(..., return_dict_in_generate=True, output_scores=True)` returned, from
                  greedy decoding, sampling or beam search, of a decoder-only or an encoder-decoder model
    eos_token_id: int or a list of int, the tokens that end a row; () where nothing ended a row early. Beam
                  search needs none, because its `beam_indices` tell where a row ends
    normalize_logits: True gives log probabilities in nats; False the numbers as they are, which are logits
                  after greedy decoding and sampling, and log probabilities after beam search
    source:       "scores", after the logits processors: what the choice was made by. "logits": what the model
                  itself put out (`output_logits=True`)

    `model.compute_transition_scores(output.sequences, output.scores, output.beam_indices, normalize_logits)`
    gathers the same numbers, and four things differ:

    - After greedy decoding and sampling it knows no end: its numbers go on over the padding of a row that
      ended early, and its sums with them. Here they are 0 there, as its own are after beam search.
    - It normalises over a strided dimension, which costs precision with a large vocabulary: with SmolLM2's
      49152 tokens its numbers were off by up to 2e-4, and these, normalised step by step, by 1e-5.
    - It takes `beam_indices` as an argument. Without them it reads the wrong beams and says nothing; here
      they are read from the output, and a beam search's output without them is refused.
    - It is given `scores` or `logits` by the caller; only "scores" without normalising add up to
      `sequences_scores`, because beam search does not normalise again after the processors.

    Raises CourseError for an output that does not hold what is asked for, or whose parts do not fit together,
    and after greedy decoding and sampling for a missing `eos_token_id`. A row that another stopping criterion
    than these tokens ended early counts to its last place.
    """
    stored = _stored_scores(output, source)
    tokens, beams, lengths = _chosen(output, stored, eos_token_id)
    gathered = []
    for step in range(tokens.shape[1]):
        scores = stored[step].float()  # (batch x beams, vocabulary)
        if normalize_logits:
            scores = scores.log_softmax(dim=-1)
        gathered.append(scores[beams[:, step], tokens[:, step]])
    chosen = torch.stack(gathered, dim=1)
    after_end = torch.arange(chosen.shape[1], device=chosen.device) >= lengths[:, None]
    return chosen.masked_fill(after_end, 0.0)


def generated_lengths(output: Any, eos_token_id: Any = None) -> torch.Tensor:
    """How many new tokens each row has, its end-of-text token included: LongTensor [rows].

    The prompt does not count, nor does the padding of a row that ended early. Takes `output` and
    `eos_token_id`, and raises CourseError, as `transition_scores` does.
    """
    return _chosen(output, _stored_scores(output), eos_token_id)[2]


def sequence_scores(output: Any, length_penalty: float = 1.0, eos_token_id: Any = None) -> torch.Tensor:
    """The score of each row: the sum of its transition scores / its length ** length_penalty. float32 [rows].

    After beam search these are the library's own `output.sequences_scores` (in nats for a penalty of 0, in
    nats a token for 1), if `length_penalty` is the one that generate() was given: the output does not tell,
    and 1.0 is generate()'s default. Greedy decoding and sampling rank nothing; their rows are scored by the
    same rule, from log probabilities normalised after the processors.
    Raises CourseError as `transition_scores` does, and for a penalty that is not a finite number.
    """
    number = isinstance(length_penalty, int | float) and not isinstance(length_penalty, bool)
    if not number or not math.isfinite(length_penalty):
        raise CourseError(
            f"The length penalty is {length_penalty!r}, not a number. Give the one that generate() was "
            "given; its default is 1.0."
        )
    after_beams = _beam_indices(output) is not None
    chosen = transition_scores(output, eos_token_id, normalize_logits=not after_beams)
    lengths = generated_lengths(output, eos_token_id)
    return chosen.sum(dim=1) / lengths.float() ** length_penalty


def next_token_log_probs(model: Any, input_ids: Any, attention_mask: Any = None) -> torch.Tensor:
    """What the model expects after each token of a text, by one forward pass: the log probabilities of the
    whole vocabulary, in nats, float32 [batch, length, vocabulary] on the model's device.

    The numbers at place t speak about the token at place t + 1; those at padding mean nothing. Takes its
    arguments, and raises CourseError, as `token_log_probs` does.
    """
    model = unwrapped(model)
    input_ids, attention_mask = _checked_text(model, input_ids, attention_mask)
    return _expected(model, input_ids, attention_mask)


def token_log_probs(
    model: Any, input_ids: Any, attention_mask: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The log probability of each token of a text, given the tokens before it, by one forward pass.

    model:          a decoder-only language model
    input_ids:      LongTensor [batch, length], padded on the left or on the right
    attention_mask: 1 at tokens and 0 at padding, [batch, length]; all ones if None
    Returns (log_probs, scored), both [batch, length] and on the model's device. `scored` is True where a
    token has a log probability: at every token but the first of its row, which nothing predicts. `log_probs`
    is float32, in nats, and 0 elsewhere. The number at place t stands for the token at place t; the model
    computed it at place t - 1.
    Raises CourseError for ids and masks that do not fit together or the model, for a mask with holes, for a
    row of one token, and for a model in which a token also reads those after it.
    """
    model = unwrapped(model)
    input_ids, attention_mask = _checked_text(model, input_ids, attention_mask)
    expected = _expected(model, input_ids, attention_mask)[:, :-1]
    chosen = expected.gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    scored = torch.zeros_like(attention_mask, dtype=torch.bool)
    scored[:, 1:] = (attention_mask[:, 1:] == 1) & (attention_mask[:, :-1] == 1)
    log_probs = torch.zeros(scored.shape, dtype=torch.float32, device=scored.device)
    log_probs[:, 1:] = chosen.masked_fill(~scored[:, 1:], 0.0)
    return log_probs, scored


def perplexity(model: Any, input_ids: Any, attention_mask: Any = None) -> float:
    """exp of the mean surprise in nats, over all tokens of the batch that have one: a float, at least 1, and
    math.inf where it is more than a float can hold.

    Every token counts once, so a long row weighs more than a short one; padding and the first token of each
    row do not count. Takes its arguments, and raises CourseError, as `token_log_probs` does.
    """
    log_probs, scored = token_log_probs(model, input_ids, attention_mask)
    return log_probs[scored].cpu().double().mean().neg().exp().item()  # math.exp would raise OverflowError


def _expected(model, input_ids, attention_mask):
    """The log probabilities after each place of a checked text: float32 [batch, length, vocabulary].

    The model sees every row from its first token on, with its padding after it, where no token looks. So a
    model may count its positions as it does (RoBERTa's begin above the pad token's id) and may leave the mask
    out of account (RWKV and RecurrentGemma do): it does to each row as to the text alone.
    """
    length, first = input_ids.shape[1], attention_mask.argmax(dim=1, keepdim=True)
    places = torch.arange(length, device=input_ids.device)
    from_first = (places[: attention_mask.sum(dim=1).max()] + first) % length
    with torch.no_grad():
        logits = model(
            input_ids=input_ids.gather(1, from_first),
            attention_mask=attention_mask.gather(1, from_first),
            use_cache=False,
        ).logits
        if first.any() or logits.shape[1] < length:
            rows, back = torch.arange(len(input_ids))[:, None], (places - first).clamp(0, logits.shape[1] - 1)
            logits = logits[rows.to(logits.device), back.to(logits.device)]
        return logits.float().log_softmax(dim=-1)


def _stored_scores(output, source="scores"):
    """The tuple of [batch x beams, vocabulary] tensors, a step each."""
    if source not in SOURCES:
        raise CourseError(
            f"{source!r} is not a source. Give 'scores' (after the processors) or 'logits' (before them)."
        )
    if getattr(output, "sequences", None) is None:
        raise CourseError(
            f"This needs what generate() recorded, and was given {type(output).__name__}. "
            f"Pass return_dict_in_generate=True and output_{source}=True to generate()."
        )
    stored = getattr(output, source, None)
    if not stored:
        raise CourseError(f"The output holds no {source}. Pass output_{source}=True to generate().")
    return stored


def _beam_indices(output):
    """LongTensor [rows, new tokens] of beam search, -1 after a row's end; None for other outputs."""
    beams = getattr(output, "beam_indices", None)
    if beams is None and getattr(output, "sequences_scores", None) is not None:
        raise CourseError(
            "This output comes from beam search and has no beam_indices, so nobody can tell which beam a "
            "token belongs to. Give the output as generate() returned it."
        )
    return None if beams is None else beams.long()


def _chosen(output, stored, eos_token_id):
    """Which numbers of `stored` count: the new tokens and the rows of `stored` that they were chosen from,
    both LongTensor [rows, new tokens], and how many of them each row has, LongTensor [rows]."""
    sequences, beams = output.sequences, _beam_indices(output)
    width = len(stored) if beams is None else beams.shape[1]
    rows = len(sequences) if beams is None else len(stored[0])
    fits = len(stored[0]) == rows and width <= min(len(stored), sequences.shape[1])
    if not fits or (beams is not None and (len(beams) != len(sequences) or beams.max() >= rows)):
        shape = None if beams is None else tuple(beams.shape)
        raise CourseError(
            f"The output does not fit together: sequences of the shape {tuple(sequences.shape)}, "
            f"{len(stored)} steps of {tuple(stored[0].shape)}, beam_indices {shape}. "
            "Give all of one generate() call."
        )
    # A decoder-only model puts the prompt before the new tokens, an encoder-decoder its start token, and
    # generate() from embeddings nothing: counting from the end holds for all of them.
    tokens = sequences[:, sequences.shape[1] - width :]
    if beams is not None:
        return tokens, beams.clamp(min=0), (beams >= 0).sum(dim=1)
    if eos_token_id is None:
        raise CourseError(
            "Where a row ended early its padding must not count. Say which token ends a row, "
            "eos_token_id=tokenizer.eos_token_id, or eos_token_id=() if none does."
        )
    ends = torch.isin(tokens, torch.as_tensor(eos_token_id, dtype=torch.long, device=tokens.device))
    lengths = ((ends.cumsum(dim=1) - ends.long()) == 0).sum(dim=1)  # no end before this token
    return tokens, torch.arange(rows, device=tokens.device)[:, None].expand_as(tokens), lengths


def _checked_text(model, input_ids, attention_mask):
    """Ids and mask, both LongTensor [batch, length] on the model's device, once known to be a text."""
    check_no_learned_prompt(model, "scoring")
    check_causal(model, "a token is scored given the tokens before it")
    if not isinstance(input_ids, torch.Tensor) or input_ids.ndim != 2 or input_ids.dtype != torch.long:
        given = type(input_ids).__name__
        if isinstance(input_ids, torch.Tensor):
            given = f"{input_ids.dtype} of the shape {tuple(input_ids.shape)}"
        raise CourseError(
            f"The ids are a LongTensor [batch, length], and this is {given}. "
            'Type tokenizer(text, return_tensors="pt").input_ids.'
        )
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    mask = check_mask(attention_mask, input_ids.shape)
    check_known_ids(model, input_ids)
    lengths = mask.sum(dim=1)
    limit = position_limit(model)
    if limit is not None and lengths.max() > limit:
        raise CourseError(
            f"Row {lengths.argmax().item()} has {lengths.max().item()} tokens, and the model has {limit} "
            f"positions. Shorten it by {lengths.max().item() - limit} tokens or more."
        )
    if (lengths == 1).any():
        row = (lengths == 1).nonzero()[0].item()
        raise CourseError(
            f"Row {row} has one token, and a row's first token has no probability: nothing predicts it. "
            "Give the row a second token, or leave it out."
        )
    starts = mask[:, :1].sum(dim=1) + (mask.diff(dim=1) == 1).sum(dim=1)
    if (starts > 1).any():
        row = (starts > 1).nonzero()[0].item()
        raise CourseError(
            f"Row {row} of the attention mask has padding between its tokens. Put all of it on one side."
        )
    return input_ids.to(model.device), mask.to(model.device)
