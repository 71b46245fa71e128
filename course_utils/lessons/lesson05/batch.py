"""What lesson 05's checks and proofs run on: a tiny GPT-2 and three prompts of different lengths."""

import functools

from ...masks import pad, token_rows
from ..fixtures import SENTENCES, quiet_transformers, tiny

END = 50256  # GPT-2's end-of-text


def tiny_rows(sentences=SENTENCES):
    return token_rows(tiny()[1], sentences)


def tiny_generate(rows, **arguments):
    """What generate() returns for a left-padded batch of the tiny model, with its warnings silenced."""
    model, _ = tiny()
    input_ids, mask = (tensor.to(model.device) for tensor in pad(rows, END))
    arguments = {"pad_token_id": 0, "do_sample": False, **arguments}
    with quiet_transformers():
        return model.generate(input_ids, attention_mask=mask, **arguments)


@functools.cache
def tiny_ends():
    """Two ids that the tiny model writes in rows 0 and 1 at their second new token, and not earlier in row 2."""
    free = tiny_generate(tiny_rows(), max_new_tokens=8)[:, -8:]
    return [free[0, 1].item(), free[1, 1].item()]
