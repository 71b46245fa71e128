"""What lesson 05's checks and proofs run on: a tiny GPT-2 and three prompts of different lengths."""

import functools

SENTENCES = ("It will rain in the", "I want to eat a big bowl of", "My dog is")
END = 50256  # GPT-2's end-of-text


@functools.cache
def tiny_model():
    from course_utils import load

    return load("tiny-gpt2")


def tiny_rows(sentences=SENTENCES):
    from ...masks import token_rows

    return token_rows(tiny_model()[1], sentences)


def tiny_generate(rows, **arguments):
    """What generate() returns for a left-padded batch of the tiny model, with its warnings silenced."""
    import logging
    import warnings

    from ...masks import pad

    model, _ = tiny_model()
    input_ids, mask = (tensor.to(model.device) for tensor in pad(rows, END))
    arguments = {"pad_token_id": 0, "do_sample": False, **arguments}
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return model.generate(input_ids, attention_mask=mask, **arguments)
    finally:
        log.setLevel(level)


@functools.cache
def tiny_ends():
    """Two ids that the tiny model writes in rows 0 and 1 at their second new token, and not earlier in row 2."""
    free = tiny_generate(tiny_rows(), max_new_tokens=8)[:, -8:]
    return [free[0, 1].item(), free[1, 1].item()]
