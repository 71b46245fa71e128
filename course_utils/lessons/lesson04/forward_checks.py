"""Lesson 04, exercises 2 and 3: attention and the whole pass, compared with transformers' GPT-2 and with known mistakes."""

import functools
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ...checks.exercise import Mistake, exercise
from ...checks.sandbox import NotYet
from ...masks import additive_mask, joined_mask, pad, position_ids
from ..fixtures import passes
from . import forward_pass as ours
from .forward_mistakes import HEADS, WRONG_ATTENTION, WRONG_PASSES, attention_with, pass_with

ROWS = ([5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17])


class Weights(dict):
    """A model's weights by name, which a message shows in a word."""

    def __repr__(self):
        return f"weights of {len(self)} names"


def small_gpt2():
    """A GPT-2 of 3 layers in float64 whose every weight counts, and its Weights: copies, so that no answer harms it."""
    model = _model()
    state = model.state_dict().items()
    return model, Weights({name.removeprefix("transformer."): weight.clone() for name, weight in state})


@functools.cache
def _model() -> Any:
    sizes: dict[str, Any] = {"vocab_size": 60, "n_positions": 30, "n_embd": 24, "n_layer": 3, "n_head": HEADS}
    state = torch.random.get_rng_state()
    torch.manual_seed(4)
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0, **sizes)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    torch.random.set_rng_state(state)
    return model.requires_grad_(False)


def _close(one, other):
    return one.shape == other.shape and torch.allclose(one.to(other.dtype), other, atol=1e-6, equal_nan=True)


def _named(got, want, mistakes, otherwise):
    """Raise the Mistake whose wrong result `got` is. mistakes: pairs of a function and a sentence."""
    for wrong, sentence in mistakes:
        result = wrong()
        if not _close(result, want) and _close(got, result):
            raise Mistake(sentence)
    raise Mistake(otherwise)


def _require_tensor(got, shape, hints, what):
    if isinstance(got, tuple | list):
        raise Mistake(f"Return {what} alone, one tensor; got {type(got).__name__} of {len(got)}.")
    if not isinstance(got, torch.Tensor):
        raise Mistake(f"Return {what}, a tensor; got {type(got).__name__}.")
    if tuple(got.shape) != shape:
        hint = hints.get(tuple(got.shape), "")
        raise Mistake(f"{hint} Your result has the shape {tuple(got.shape)}, expected {shape}.".lstrip())


# ---- attention ---------------------------------------------------------------------------------------


@exercise("04/attention", title="Write attention over all heads", minutes=10, difficulty=2)
def check_attention(answer):
    """A causal text, a left-padded batch, and a text in two pieces with a cache: equal to transformers' layer."""
    if _is_ours(answer.original):
        raise NotYet
    model, weights = small_gpt2()
    torch_state = torch.Generator().manual_seed(1)
    for name, mask in [("h.0.attn", torch.ones(1, 5)), ("h.2.attn", pad(ROWS, 0)[1])]:
        mask = mask.long()
        x = torch.randn(*mask.shape, 24, generator=torch_state, dtype=torch.float64)
        added = additive_mask(joined_mask(mask), x.dtype)
        with torch.no_grad():
            layer = model.transformer.h[int(name[2])].attn
            want = layer(x, attention_mask=added)[0]
        got = answer(x, weights, name, HEADS, added, None)
        rows, length = mask.shape
        _require_tensor(
            got,
            (rows, length, 24),
            {
                (rows, HEADS, length, 6): "The heads are still apart. Join them: `.transpose(1, 2).flatten(2)`.",
                (rows, HEADS, length, length): "These are the weights of attention. They still have to mix the values: `weights @ value`.",
                (rows, length, HEADS, 6): "The heads are still apart: `.flatten(2)` joins the last two dimensions.",
                (rows, HEADS, length * 6): "The heads were not moved back before they were joined: `.transpose(1, 2)` first.",
            },
            "the layer's result",
        )  # fmt: skip
        token = mask.bool()
        if not _close(got[token], want[token]):
            _named(
                got[token],
                want[token],
                [
                    (lambda wrong=wrong: attention_with(x, weights, name, added, **wrong)[token], text)
                    for wrong, text in WRONG_ATTENTION
                ],
                "The result has NaN. `mask` is added: it holds 0 where a token may look, and a very negative number elsewhere."
                if got[token].isnan().any()
                else "The result is not that of GPT-2's layer. The steps are: attention scores, divided by the square root of a head's size; plus the mask; softmax over the keys; times the values; heads joined; `c_proj`.",
            )
    _require_handed_on(answer, weights)
    return "Equal to GPT-2's own layer, with padding and without, and it hands on the cache."


def _require_handed_on(answer, weights):
    """Mistake unless a text in two pieces gives what it gives at once, by way of the cache's `update`."""
    x = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    allowed = joined_mask(torch.ones(1, 5, dtype=torch.long))
    want = ours.attention(x, weights, "h.1.attn", HEADS, additive_mask(allowed, x.dtype))
    cache = ours.Cache()
    first = additive_mask(allowed[:, :, :3, :3], x.dtype)
    answer(x[:, :3], weights, "h.1.attn", HEADS, first, cache)
    if not cache.kept:
        raise Mistake("Without a cache the result is right. But `cache` is not handed on: `project(x, weights, name, heads, cache)`.")  # fmt: skip
    if cache.kept.keys() != {"h.1.attn"} or cache.kept["h.1.attn"][0].shape[2] != 3:
        raise Mistake("The cache was given three tokens of layer `h.1.attn`, and holds something else. Call `project` once, with `name` as it is.")  # fmt: skip
    rest = additive_mask(allowed[:, :, 3:], x.dtype)
    got = answer(x[:, 3:], weights, "h.1.attn", HEADS, rest, cache)
    if not isinstance(got, torch.Tensor) or not _close(got, want[:, 3:]):
        raise Mistake("Without a cache the result is right. With 3 cached tokens and 2 new ones it is not: `mask` is (batch, 1, new, all) already. Use it as it is.")  # fmt: skip


# ---- the whole pass ----------------------------------------------------------------------------------


@exercise("04/forward", title="Join the parts to a forward pass", minutes=10, difficulty=2)
def check_forward(answer):
    """Logits of a text, of a left-padded batch, and of a text in two pieces, as transformers computes them."""
    if _is_ours(answer.original):
        raise NotYet
    model, weights = small_gpt2()
    config = model.config
    for rows in (ROWS[:1], ROWS):
        ids, mask = pad(rows, 0)
        with torch.no_grad():
            want = model(ids, attention_mask=mask, position_ids=position_ids(mask)).logits
        got = answer(weights, config, ids, mask, None)
        batch, length = ids.shape
        _require_tensor(
            got,
            (batch, length, 60),
            {
                (batch, length, 24): "These are hidden states. The head is still missing: `@ weights[\"wte.weight\"].T`.",
                (batch, 60): "These are the logits of one index. Return those of every index.",
                (batch, 1, 60): "These are the logits of one index. Return those of every index.",
            },
            "the logits",
        )  # fmt: skip
        token = mask.bool()
        if not _close(got[token], want[token]):
            _named(
                got[token],
                want[token],
                [
                    (lambda wrong=wrong: pass_with(weights, config, ids, mask, **wrong)[token], text)
                    for wrong, text in WRONG_PASSES
                ],
                "The logits are not GPT-2's. The order is: `embed`; in each layer `x = x + attention(…)` of the normed stream, then `x = x + mlp(…)` of it, normed anew; `ln_f`; the head.",
            )
    _require_pieces(answer, model, weights)
    return "Equal to transformers' GPT-2 at every token, in one pass or in two with a cache."


def _require_pieces(answer, model, weights):
    """Mistake unless a text in two pieces with a cache gives the logits that it gives at once."""
    ids, mask = pad(ROWS[:1], 0)
    with torch.no_grad():
        want = model(ids).logits[:, 4:]
    cache = ours.Cache()
    answer(weights, model.config, ids[:, :4], mask[:, :4], cache)
    if not cache.kept:
        raise Mistake("Without a cache the logits are right. But `cache` is not handed on to `attention`: it is the last argument.")  # fmt: skip
    got = answer(weights, model.config, ids[:, 4:], mask, cache)
    if not isinstance(got, torch.Tensor) or not _close(got, want):
        raise Mistake("Without a cache the logits are right. With 4 cached tokens and 2 new ones they are not: hand each layer's own name and the same `cache` to `attention`.")  # fmt: skip


# ---- which function the later cells run on -----------------------------------------------------------


def usable_attention(yours):
    """The learner's attention if its check passes, else the course's own. Prints which; never raises."""
    return yours if _passes(check_attention, yours) else functools.partial(ours.attention)


def usable_forward(yours, attention):
    """The learner's forward pass if its check passes, else the course's own, which calls `attention`."""
    if _passes(check_forward, yours):
        return yours
    return functools.partial(ours.forward, attention=attention)


def _passes(check, yours):
    name = check.id.partition("/")[2]
    passed = not _is_ours(yours) and passes(check, yours)
    whose = f"your {name}()." if passed else f"the course's own {name}() until yours passes its check."
    print(f"The cells below run on {whose}")
    return passed


def _is_ours(function):
    """Whether `function` is what stands in for a learner's: it must not pass as an answer."""
    return isinstance(function, functools.partial) and function.func in (ours.attention, ours.forward)
