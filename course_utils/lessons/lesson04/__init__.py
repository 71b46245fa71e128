"""Lesson 04: predictions and quiz; its exercises are in modules of their own. The helpers compute the answers."""

import functools

import torch
from transformers import GPT2Config

from ...checks.quiz import NumberPrediction, Option, Prediction, Question
from ...models import load
from ...releases import as_argument, cache_of
from ..fixtures import tiny
from .forward_checks import check_attention, check_forward, usable_attention, usable_forward
from .kv_cache import check_decode, check_repaired, check_score_endings, ids_of
from .parameter_count import SMOLLM2, check_llama_parameters, on_meta

__all__ = [
    "check_attention",
    "check_decode",
    "check_forward",
    "check_llama_parameters",
    "check_repaired",
    "check_score_endings",
    "quiz",
    "usable_attention",
    "usable_forward",
]


# ---- predictions -------------------------------------------------------------------------------------

predict_head = NumberPrediction(
    "04/predict-head",
    "How many parameters does GPT-2's head, 50257 × 768, add to those of everything before it?",
    key=0,
    unit="parameters",
    why="The head and the token table are the same matrix.",
    wrong=(
        (38_597_376, "That is the size of the matrix. But the model already has such a matrix."),
        (
            38_647_633,
            "That is the matrix plus a bias for each token. The head has no bias, and the matrix is not new.",
        ),
    ),
    otherwise="50257 × 768 is 38,597,376. Does the model already have a matrix of this shape?",
    proof=lambda: _parameters(tied=True) - _before_the_head(),
)

predict_last_hidden = Prediction(
    "04/predict-last-hidden",
    "Take the last of the `hidden_states` and multiply it by the head's matrix, nothing else. What do you get?",
    options=(
        Option("The logits", "The last entry is taken after the final norm, ready for the head.", right=True, value="logits"),
        Option("The logits of a model without the final norm", "That would follow if the last entry were the last layer's output. But it is already normalised.", value="without norm"),
        Option("The logits of a model without the last block", "There is one more entry than there are layers, so the last one includes the last block.", value="without block"),
    ),
    proof=lambda: _last_hidden(),
)  # fmt: skip

predict_unchanged = Prediction(
    "04/predict-unchanged",
    "A text of seven tokens goes through the model, and so do its first five alone. For which of the five do keys or values differ?",
    options=(
        Option("For none of them", "A token sees itself and the tokens before it, and none of these has changed.", right=True, value="none"),
        Option("For all five, after the first layer", "That would be so if tokens could attend to later ones, as in BERT.", value="deep"),
        Option("For all five, in every layer", "In the first layer, keys and values come from the token's own vector alone.", value="all"),
        Option("Only for the fifth, next to the new ones", "The fifth token does not see the sixth, either.", value="last"),
    ),
    proof=lambda: _unchanged(),
)  # fmt: skip

predict_twice = Prediction(
    "04/predict-twice",
    "`model(id, cache=cache)`, and then exactly the same line again. How do the two results compare?",
    options=(
        Option("They are the same", "`cache` is still the same object. But are its contents still the same?", value="same"),
        Option("They differ", "The first pass added its token to the cache, so the second one sees the id twice.", right=True, value="longer"),
        Option("The second line is an error", "There is no reason for an error: a cache may have any length.", value="error"),
    ),
    proof=lambda: _twice(),
)  # fmt: skip

predict_cost = Prediction(
    "04/predict-cost",
    "Whose cache needs more bytes for each token?",
    options=(
        Option("GPT-2's", "12 layers of 12 heads are 144. In SmolLM2 three query heads share a key head: 30 layers of 3 are 90.", right=True, value="GPT-2"),
        Option("SmolLM2's", "30 layers of 9 heads would be 270, more than 144. But a cache holds keys and values, not queries.", value="SmolLM2"),
        Option("Neither's", "The models are of similar size, but the cache depends on layers, heads and their size, not on the number of weights.", value="same"),
    ),
    proof=lambda: _larger_cache(),
)  # fmt: skip


@functools.cache
def _parameters(tied):
    """GPT-2's number of parameters, with a tied head or one of its own."""
    return on_meta("GPT2", tie_word_embeddings=tied).num_parameters()


def _before_the_head():
    return on_meta("GPT2").transformer.num_parameters()


def _last_hidden():
    model, _ = tiny()
    with torch.no_grad():
        out = model(ids_of(), output_hidden_states=True)
        if torch.allclose(model.lm_head(out.hidden_states[-1]), out.logits, atol=1e-5):
            return "logits"
        normed = model.transformer.ln_f(out.hidden_states[-1])
        return (
            "without norm"
            if torch.allclose(model.lm_head(normed), out.logits, atol=1e-5)
            else "without block"
        )


def _unchanged():
    model, _ = tiny()
    with torch.no_grad():
        short, long = (cache_of(model(ids_of()[:, :length])) for length in (5, 7))
    changed = torch.stack(
        [
            (getattr(before, part) - getattr(after, part)[:, :, :5]).abs().amax((0, 1, 3)) > 1e-4
            for before, after in zip(short.layers, long.layers, strict=True)
            for part in ("keys", "values")
        ]
    )  # (layer and part, place)
    if not changed.any():
        return "none"
    if not changed[:, :4].any():
        return "last"
    return "all" if changed[:2].any() else "deep"


def _twice():
    model, _ = tiny()
    with torch.no_grad():
        cache = cache_of(model(ids_of()))
        length = cache.get_seq_length()
        first, second = (model(ids_of()[:, :1], **as_argument(cache)).logits for _ in range(2))
    return "same" if cache.get_seq_length() == length or torch.allclose(first, second) else "longer"


def _bytes(layers, heads, size=64, number=4):
    """The bytes of a cache for each token: keys and values of all layers and heads."""
    return 2 * layers * heads * size * number


def _larger_cache():
    gpt2 = GPT2Config()
    one = _bytes(gpt2.n_layer, gpt2.n_head, gpt2.n_embd // gpt2.n_head)
    other = _bytes(SMOLLM2["num_hidden_layers"], SMOLLM2["num_key_value_heads"])
    return "same" if one == other else "GPT-2" if one > other else "SmolLM2"


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "04/quiz-untied",
        "GPT-2 with `tie_word_embeddings=False`: how many parameters?",
        options=(
            Option("163,037,184", "The head gets its own matrix, 50257 × 768.", right=True, value=163_037_184),
            Option("124,439,808", "That is with the head tied to the token table.", value=124_439_808),
            Option("85,842,432", "That is without any token table. Untied, there are two such matrices.", value=85_842_432),
            Option("163,087,441", "The head is a matrix without a bias.", value=163_087_441),
        ),
        proof=lambda: _parameters(tied=False),
    ),
    Question(
        "04/quiz-first-hidden",
        "GPT-2 has 12 layers, and `hidden_states` 13 entries. What is the first one?",
        options=(
            Option("The sum of token and position vectors", "It is the input of the first block.", right=True, value="sum"),
            Option("The vectors of the tokens alone", "The positions are added before the first block.", value="tokens"),
            Option("What the first block returns", "That is the second entry, the input of the second block.", value="block"),
        ),
        proof=lambda: _first_hidden(),
    ),
    Question(
        "04/quiz-attentions",
        "`model(ids, output_attentions=True).attentions` is an empty tuple. What do you do?",
        options=(
            Option("`model.set_attn_implementation(\"eager\")`", "SDPA never stores the weights. Eager computes them as a separate step.", right=True, value="eager"),
            Option("Pass `output_hidden_states=True`, too", "The two do not depend on each other.", value="hidden states"),
            Option("Pass `use_cache=False`", "The cache holds keys and values, not weights.", value="no cache"),
        ),
        proof=lambda: _attentions(),
    ),
    Question(
        "04/quiz-memory",
        "A batch of 8 texts with 1,000 tokens each goes through SmolLM2 in bfloat16. How large is the cache?",
        options=(
            Option("184 MB", "2 · 30 layers · 3 heads · 64 numbers · 2 bytes, for each of 8,000 tokens.", right=True, value=184),
            Option("369 MB", "That is the size in float32. A bfloat16 number has 2 bytes.", value=369),
            Option("553 MB", "That counts the 9 query heads. Only 3 heads of keys and values are kept.", value=553),
            Option("23 MB", "That is one text's cache. Each row of a batch has its own.", value=23),
        ),
        proof=lambda: round(8 * 1000 * _bytes(SMOLLM2["num_hidden_layers"], SMOLLM2["num_key_value_heads"], number=2) / 1e6),
    ),
    Question(
        "04/quiz-mask",
        "A loop passes the cache and the new id to the model. Its mask keeps the length of the prompt. What does the new token not see?",
        options=(
            Option("Itself and the tokens written before it", "The missing part of the mask is filled up with zeros, so all new tokens are hidden.", right=True, value="new places"),
            Option("The prompt", "The mask still covers the prompt, as before.", value="prompt"),
            Option("The pass raises an error instead", "The library silently fills up the mask.", value="error"),
            Option("Nothing: the missing part of the mask counts as ones", "The mask is filled up, but with zeros.", value="nothing"),
        ),
        proof=lambda: _short_mask(),
    ),
)  # fmt: skip


def _first_hidden():
    model, _ = tiny()
    ids, body = ids_of(), model.transformer
    with torch.no_grad():
        first = model(ids, output_hidden_states=True).hidden_states[0]
        tokens = body.wte(ids)
        both = tokens + body.wpe(torch.arange(ids.shape[1], device=model.device))
    if torch.allclose(first, both):
        return "sum"
    return "tokens" if torch.allclose(first, tokens) else "block"


def _attentions():
    model, _ = load("tiny-gpt2")
    ids = ids_of()
    assert not model(ids, output_attentions=True).attentions
    if model(ids, output_attentions=True, output_hidden_states=True).attentions:
        return "hidden states"
    if model(ids, output_attentions=True, use_cache=False).attentions:
        return "no cache"
    model.set_attn_implementation("eager")
    return "eager" if model(ids, output_attentions=True).attentions else None


def _short_mask():
    """What the second new token is not allowed to see, from the mask that reaches the first layer."""
    model, _ = tiny()
    ids, seen = ids_of(), []
    length = ids.shape[1]
    mask = torch.ones_like(ids)
    mask[0, 0] = 0  # padding: a mask of ones alone would not be handed on
    hook = model.transformer.h[0].attn.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["attention_mask"]), with_kwargs=True
    )
    try:
        with torch.no_grad():
            cache = cache_of(model(ids, attention_mask=mask))
            for _ in range(2):
                model(ids[:, :1], attention_mask=mask, **as_argument(cache))
    except (IndexError, RuntimeError, ValueError):
        return "error"
    finally:
        hook.remove()
    hidden = ~seen[-1][0, 0, 0].bool()
    if hidden[length:].all():
        return "new places"
    return "prompt" if hidden[:length].all() else "nothing"
