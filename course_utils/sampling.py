"""Texts that a model draws after a prompt, from its own distribution: `sample`."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from transformers import GenerationConfig

from .continuation import continuation
from .errors import CourseError
from .inputs.causal import check_causal
from .inputs.limits import position_limit, unwrapped
from .inputs.numbers import above_zero, at_least, integer
from .inputs.text import text_ids


@dataclasses.dataclass(frozen=True)
class Samples:
    """Texts that a model has drawn after a prompt.

    sequences:     LongTensor [samples, prompt + new], the prompt's ids and the drawn ones
    prompt_length: int
    drawn:         BoolTensor [samples, new], True up to and with a row's end of text; padding follows
    texts:         list of str, without the prompt
    """

    sequences: torch.Tensor
    prompt_length: int
    drawn: torch.Tensor
    texts: list


def sample(
    model: Any,
    tokenizer: Any,
    prompt: str,
    samples: int = 24,
    new_tokens: int = 5,
    temperature: float = 0.7,
    seed: int | None = None,
) -> Samples:
    """Draw texts after one prompt, without gradient: `Samples`.

    tokenizer:   its end of text ends a row; where it has none, every row has `new_tokens` tokens
    prompt:      str, not empty
    samples:     int, how many; new_tokens: int, how many tokens at most in each
    temperature: float above 0. Nothing else shapes the draw, whatever settings the model brings: the
                 distribution is softmax(logits / temperature)
    seed:        int, leaves torch's global random state alone; None draws from that
    The model is given ids and a mask of ones, no token types: as it is where the texts are scored.
    Raises CourseError for a prompt that is not text or has no tokens, for numbers out of range, for a model
    that is not a decoder, and where it has fewer positions.
    """
    samples, new_tokens = at_least(1, samples=samples), at_least(1, new_tokens=new_tokens)
    temperature, seed = above_zero(temperature=temperature), checked_seed(seed)
    model = unwrapped(model)  # its settings are changed for the draw, and a wrapper keeps what it is given
    check_causal(model, "the texts continue a prompt")
    row = text_ids(tokenizer, prompt, "the prompt")
    ids = torch.tensor([row] * samples, device=model.device)
    length, end = len(row), tokenizer.eos_token_id
    limit, needed = position_limit(model), length + new_tokens  # the second pass reads the last one too
    if limit is not None and needed > limit:
        raise CourseError(
            f"The prompt has {length:,} tokens, and {new_tokens:,} new ones make {needed:,}. The model has "
            f"{limit:,} positions: take {needed - limit:,} tokens or more away."
        )
    config = GenerationConfig(
        do_sample=True, temperature=temperature, top_k=0, max_new_tokens=new_tokens,
        eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    with seeded(seed), _settings(model, config):
        sequences = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    answers = sequences[:, length:]
    is_end = (answers == (-1 if end is None else end)).long()  # no id is -1
    drawn = is_end.cumsum(1) - is_end == 0  # no end before this place
    texts = [
        continuation(tokenizer, row, answer[keep], skip_special_tokens=True)
        for answer, keep in zip(answers, drawn, strict=True)
    ]
    return Samples(sequences, length, drawn, texts)


def checked_seed(seed: Any) -> int | None:
    """`seed` as an int, or None. Raises CourseError for what torch takes for no seed."""
    number = integer(seed)
    if seed is not None and (number is None or not -(2**63) <= number < 2**64):
        raise CourseError(f"The seed is {seed!r}. Give a whole number, such as 0.")
    return number


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draws from `seed`, which leaves torch's global random state alone; None draws from that."""
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def _settings(model, config):
    """`config` as all that generate() goes by: what is None in it would be taken from the model's own."""
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own
