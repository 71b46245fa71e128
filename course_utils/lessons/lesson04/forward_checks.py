"""Lesson 04, exercises 2 and 3: attention and the whole pass, compared with transformers' GPT-2 and with known mistakes."""

import functools

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ...checks.exercise import Mistake, exercise
from ...checks.sandbox import NotYet
from ...masks import additive_mask, joined_mask, pad, position_ids
from . import forward_pass as ours

ROWS = ([5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17])
HEADS = 4


@functools.cache
def small_gpt2():
    """A GPT-2 of 3 layers in float64 whose every weight counts, and its weights by the lesson's names."""
    sizes = {"vocab_size": 60, "n_positions": 30, "n_embd": 24, "n_layer": 3, "n_head": HEADS}
    state = torch.random.get_rng_state()
    torch.manual_seed(4)
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    torch.random.set_rng_state(state)
    weights = {
        name.removeprefix("transformer."): weight.detach() for name, weight in model.state_dict().items()
    }
    return model, weights


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
                    (lambda wrong=wrong: _attention(x, weights, name, added, **wrong)[token], text)
                    for wrong, text in WRONG_ATTENTION
                ],
                "The result is not that of GPT-2's layer. The steps are: attention scores, divided by the square root of a head's size; plus the mask; softmax over the keys; times the values; heads joined; `c_proj`.",
            )
    _require_handed_on(answer, weights)
    return "Equal to GPT-2's own layer, with padding and without, and it hands on the cache."


def _attention(x, weights, name, mask, scale=None, masked="added", dim=-1, join="", out="", keys="", plus=""):
    """Attention with parts replaced; right by default."""
    query, key, value = ours.project(x, weights, name, HEADS)
    if keys == "query and key swapped":
        query, key = key, query
    if keys == "value and key swapped":
        key, value = value, key
    scores = query @ key.transpose(-1, -2) / (query.shape[-1] ** 0.5 if scale is None else scale)
    if masked == "added":
        mixing = (scores + mask).softmax(dim)
    elif masked == "afterwards":
        mixing = scores.softmax(dim) * (mask == 0)
    else:
        mixing = scores.softmax(dim) if masked == "never" else (scores * mask).softmax(dim)
    if masked == "no softmax":
        mixing = scores * (mask == 0)
    mixed = mixing @ value
    if join == "reshaped":
        joined = mixed.reshape(x.shape)
    elif join == "interleaved":
        joined = mixed.permute(0, 2, 3, 1).flatten(2)
    else:
        joined = mixed.transpose(1, 2).flatten(2)
    matrix, bias = weights[f"{name}.c_proj.weight"], weights[f"{name}.c_proj.bias"]
    result = {
        "": joined @ matrix + bias,
        "none": joined,
        "no bias": joined @ matrix,
        "turned": joined @ matrix.T + bias,
    }[out]
    return result + x if plus else result  # fmt: skip


WRONG_ATTENTION = [
    ({"scale": 1.0}, "The attention scores are not scaled. Divide them by the square root of a head's size, `query.shape[-1] ** 0.5`."),
    ({"scale": 24**0.5}, "The attention scores are divided by the square root of the whole width. It is the size of *one head* that counts: `query.shape[-1]`."),
    ({"scale": 6.0}, "The attention scores are divided by a head's size. Divide by its square root."),
    ({"masked": "never"}, "The mask has no effect: tokens look at later ones. Add it to the attention scores before the softmax."),
    ({"masked": "afterwards"}, "The mask is applied after the softmax, so the weights no longer sum to 1. Add it to the attention scores."),
    ({"masked": "times"}, "The attention scores are multiplied by the mask. It is additive: 0 where a token may look, and a very negative number elsewhere."),
    ({"masked": "no softmax"}, "There is no softmax: the masked attention scores themselves mix the values."),
    ({"dim": -2}, "The softmax runs over the queries. Each query's weights over the keys should sum to 1: `softmax(-1)`."),
    ({"join": "reshaped"}, "The heads are reshaped together without being moved back, so numbers of different tokens get mixed. Undo `split_heads`: `.transpose(1, 2).flatten(2)`."),
    ({"join": "interleaved"}, "The heads' numbers are interleaved. A token's heads stand one after the other: `.transpose(1, 2).flatten(2)`."),
    ({"out": "none"}, "The last matrix is missing: `c_proj` mixes the heads."),
    ({"out": "no bias"}, "The bias of `c_proj` is missing. `linear` adds it."),
    ({"out": "turned"}, "The matrix of `c_proj` is transposed. GPT-2 keeps it as (from, to): `x @ weight`."),
    ({"keys": "query and key swapped"}, "Queries and keys are swapped. Row by row, `query @ key.transpose(-1, -2)` has a query's scores over the keys."),
    ({"keys": "value and key swapped"}, "Keys and values are swapped: the keys make the scores, and the values are mixed."),
    ({"plus": "x"}, "The input is added already. The block does that; return only what attention adds."),
]  # fmt: skip


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
                    (lambda wrong=wrong: _pass(weights, config, ids, mask, **wrong)[token], text)
                    for wrong, text in WRONG_PASSES
                ],
                "The logits are not GPT-2's. The order is: `embed`; in each layer `x = x + attention(…)` of the normed stream, then `x = x + mlp(…)` of it, normed anew; `ln_f`; the head.",
            )
    _require_pieces(answer, model, weights)
    return "Equal to transformers' GPT-2 at every token, in one pass or in two with a cache."


def _pass(weights, config, ids, mask, residual=True, norms=("ln_1", "ln_2", "ln_f"), layers=None, number=None, kept=False, parallel=False, order="", head="", padding=True, causal=True, positions=True, parts=("attention", "mlp")):  # fmt: skip
    """The pass with parts replaced; right by default."""

    def normed(x, name):
        return ours.norm(x, weights, name) if name.rpartition(".")[2] in norms else x

    x = ours.embed(weights, ids, mask if positions else torch.ones_like(mask))
    seen = mask if padding else torch.ones_like(mask)
    added = additive_mask(joined_mask(seen, causal=causal), x.dtype)
    for layer in range(config.n_layer if layers is None else layers):
        name = f"h.{layer if number is None else number}"

        def attend(x, name=name):
            return ours.attention(normed(x, f"{name}.ln_1"), weights, f"{name}.attn", HEADS, added)

        def think(x, name=name):
            return ours.mlp(normed(x, f"{name}.ln_2"), weights, f"{name}.mlp")

        steps = [step for step, part in ((attend, "attention"), (think, "mlp")) if part in parts]
        if parallel:
            x = x + sum(step(x) for step in steps)
            continue
        for step, norm in zip(steps[::-1] if order else steps, ("ln_1", "ln_2"), strict=False):
            if kept:
                x = normed(x, f"{name}.{norm}")
                x = x + (ours.attention(x, weights, f"{name}.attn", HEADS, added) if norm == "ln_1" else ours.mlp(x, weights, f"{name}.mlp"))  # fmt: skip
            else:
                x = x + step(x) if residual is True or residual == step.__name__ else step(x)
    logits = normed(x, "ln_f") @ weights["wte.weight"].T
    return logits.log_softmax(-1) if head == "log" else logits.softmax(-1) if head == "probs" else logits


WRONG_PASSES = [
    ({"norms": ("ln_1", "ln_2")}, "The final norm, `ln_f`, is missing before the head."),
    ({"norms": ("ln_2", "ln_f")}, "The norm before attention, `ln_1`, is missing."),
    ({"norms": ("ln_1", "ln_f")}, "The norm before the MLP, `ln_2`, is missing."),
    ({"norms": ("ln_f",)}, "Attention and the MLP read the stream as it is. Each reads it normed: `ln_1` and `ln_2`."),
    ({"residual": False}, "Each part's result *replaces* the stream. Add it: `x = x + …`."),
    ({"residual": "attend"}, "The MLP's result replaces the stream. Add it: `x = x + …`."),
    ({"residual": "think"}, "Attention's result replaces the stream. Add it: `x = x + …`."),
    ({"kept": True}, "The normed vectors have become the stream. Norm a copy for each part, and add the part's result to the stream as it was."),
    ({"parallel": True}, "Attention and the MLP read the same stream. The MLP should read it after attention was added."),
    ({"order": "reversed"}, "The MLP comes before attention. It is the other way round."),
    ({"parts": ("attention",)}, "The MLP is missing."),
    ({"parts": ("mlp",)}, "Attention is missing."),
    ({"layers": 1}, "Only one layer is run. There are `config.n_layer`."),
    ({"layers": 2}, "The last layer is not run: `range(config.n_layer)` goes through all."),
    ({"number": 0}, "Every layer uses the weights of layer 0. Put the number into the name: `f\"h.{layer}\"`."),
    ({"padding": False}, "Tokens look at the padding. Build the mask from `attention_mask`."),
    ({"causal": False}, "Tokens look at later ones. `joined_mask` joins the causal mask with that of the padding."),
    ({"positions": False}, "The positions count the padding. `embed(weights, input_ids, attention_mask)` counts tokens only."),
    ({"head": "log"}, "These are log probabilities. Return the logits as they are."),
    ({"head": "probs"}, "These are probabilities. Return the logits as they are."),
]  # fmt: skip


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
    try:
        passed = not _is_ours(yours) and bool(check(yours))
    except AssertionError:  # COURSE_STRICT=1: the check's own cell has reported it
        passed = False
    whose = f"your {name}()." if passed else f"the course's own {name}() until yours passes its check."
    print(f"The cells below run on {whose}")
    return passed


def _is_ours(function):
    """Whether `function` is what stands in for a learner's: it must not pass as an answer."""
    return isinstance(function, functools.partial) and function.func in (ours.attention, ours.forward)
