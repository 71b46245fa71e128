"""decode_steps beside model.generate: settings that are drawn, and the comparison of one case."""

import random

import torch

from architectures import ENCODER_DECODERS, END, PAD, VOCABULARY, tiny
from course_utils import CourseError, decode_steps, pick_device

RECORD = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}


def only_every_second(row, ids):
    return list(range(row % 2, VOCABULARY, 2))


def some(draw, probability, **values):
    """One setting of a keyword with the given probability, else none."""
    name, choices = values.popitem()
    return {name: draw.choice(choices)} if draw.random() < probability else {}


def drawn_settings(draw, name):
    """Keyword arguments of generate(): lengths, sampling, processors, ends of text, caches."""
    kwargs = {"max_new_tokens": draw.randint(1, 9)}
    if draw.random() < 0.6:
        kwargs |= {"do_sample": True}
        kwargs |= some(draw, 0.5, temperature=[0.5, 0.8, 1.7])
        kwargs |= some(draw, 0.5, top_k=[0, 1, 5, 20])
        kwargs |= some(draw, 0.3, top_p=[0.3, 0.9])
        kwargs |= some(draw, 0.3, min_p=[0.05, 0.3])
        kwargs |= some(draw, 0.3, typical_p=[0.3, 0.9])
        kwargs |= some(draw, 0.2, epsilon_cutoff=[0.02])
        kwargs |= some(draw, 0.2, eta_cutoff=[0.02])
        kwargs |= some(draw, 0.3, num_return_sequences=[2, 3])
    kwargs |= some(draw, 0.3, repetition_penalty=[1.2, 2.0])
    kwargs |= some(draw, 0.25, no_repeat_ngram_size=[1, 2])
    kwargs |= some(draw, 0.25, min_new_tokens=[2, 5])
    kwargs |= some(draw, 0.25, bad_words_ids=[[[3], [4, 5]], [[30]]])
    kwargs |= some(draw, 0.2, suppress_tokens=[[7, 9]])
    kwargs |= some(draw, 0.15, sequence_bias=[{(8,): 3.0, (9, 10): -2.0}])
    kwargs |= some(draw, 0.1, exponential_decay_length_penalty=[(2, 1.3)])
    kwargs |= some(draw, 0.1, renormalize_logits=[True])
    kwargs |= some(draw, 0.1, forced_eos_token_id=[END])
    kwargs |= some(draw, 0.2, prefix_allowed_tokens_fn=[only_every_second])
    kwargs |= some(draw, 0.5, eos_token_id=[[END, *draw.sample(range(3, VOCABULARY), 10)]])
    if name not in (*ENCODER_DECODERS, "Gemma3"):  # where generate() itself fails with guidance
        kwargs |= some(draw, 0.1, guidance_scale=[1.5])
    kwargs |= draw.choice(
        [{}, {}, {"cache_implementation": "static"}, {"use_cache": False}, {"prefill_chunk_size": 3}]
    )
    if kwargs.get("cache_implementation") and pick_device().type != "cpu":
        kwargs["disable_compile"] = True  # generate() compiles for a static cache, which takes a minute
    return kwargs


def drawn_prompts(draw, model, kwargs):
    """One to three prompts, padded on the left, now and then as embeddings."""
    rows, length = draw.choice([1, 1, 2, 3]), draw.randint(1, 7)
    input_ids = torch.tensor([[draw.randrange(3, VOCABULARY) for _ in range(length)] for _ in range(rows)])
    attention_mask = torch.ones_like(input_ids)
    for row in range(rows):
        padding = draw.choice([0, draw.randrange(length)]) if rows > 1 else 0
        input_ids[row, :padding], attention_mask[row, :padding] = PAD, 0
    inputs = {"input_ids": input_ids.to(model.device), "attention_mask": attention_mask.to(model.device)}
    embeds = draw.random() < 0.15 and not model.config.is_encoder_decoder
    if embeds and not {"use_cache", "prefill_chunk_size"} & set(kwargs):
        inputs["inputs_embeds"] = model.get_input_embeddings()(inputs["input_ids"]).detach()
        if draw.random() < 0.6:
            del inputs["input_ids"]
    return inputs


def drawn_case(name, number):
    draw = random.Random(f"{name} {number}")
    model = tiny(name, draw.choice([torch.float32] * 3 + [torch.bfloat16]), pick_device())
    kwargs = drawn_settings(draw, name)
    return model, drawn_prompts(draw, model, kwargs), kwargs, draw


class RefusedByBoth(Exception):
    """generate() raises for these settings, and decode_steps does: with the same error or in a sentence."""


def compared(model, inputs, kwargs, seed):
    """The finished `Decoding` and its list of `Step`, once all that they hold is generate()'s own.

    Both are given the same seed. Raises AssertionError where they differ in an id, a logit, a score, a
    probability, the number of random numbers drawn, or in whether they run, and RefusedByBoth.
    """
    torch.manual_seed(seed)
    try:
        expected = model.generate(**inputs, **kwargs, **RECORD)
    except Exception as error:
        try:
            list(decode_steps(model, inputs, **kwargs))
        except (type(error), CourseError):
            raise RefusedByBoth(f"{type(error).__name__}: {error}") from error
        raise AssertionError(f"decode_steps runs where generate() raises {error!r}") from error
    drawn_last = torch.rand(1)

    torch.manual_seed(seed)
    decoding = decode_steps(model, inputs, **kwargs)
    steps = list(decoding)
    torch.testing.assert_close(decoding.sequences, expected.sequences, rtol=0, atol=0)
    assert torch.rand(1) == drawn_last  # as many random numbers were drawn
    assert len(steps) == len(expected.scores)
    for step, logits, scores in zip(steps, expected.logits, expected.scores, strict=True):
        torch.testing.assert_close(step.logits, logits, rtol=0, atol=0)
        last = step.stages[-1][1] if step.stages else step.logits
        torch.testing.assert_close(last, scores, rtol=0, atol=0)
        torch.testing.assert_close(step.probs, scores.softmax(dim=-1), rtol=0, atol=0)
    return decoding, steps
