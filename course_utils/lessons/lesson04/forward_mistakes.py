"""Lesson 04, exercises 2 and 3: what known mistakes in attention and in the whole pass compute, and their sentences."""

import torch

from ...masks import additive_mask, joined_mask
from . import forward_pass as ours

HEADS = 4


def attention_with(x, weights, name, mask, **wrong):
    """What attention adds to the stream with parts of it replaced, [batch, length, width].

    scale: what the attention scores are divided by; dim: over which softmax runs
    masked, join, out: how the mask is used, the heads are joined and `c_proj` is applied
    swapped: two of query, key and value; layer: "in" or "out", what uses the weights of layer 0
    residual: True adds the input
    """
    query, key, value = ours.project(x, weights, "h.0.attn" if wrong.get("layer") == "in" else name, HEADS)
    if wrong.get("swapped") == "query and key":
        query, key = key, query
    if wrong.get("swapped") == "key and value":
        key, value = value, key
    scores = query @ key.transpose(-1, -2) / wrong.get("scale", query.shape[-1] ** 0.5)
    dim, allowed = wrong.get("dim", -1), mask == 0
    mixing = {
        "added": lambda: (scores + mask).softmax(dim),
        "never": lambda: scores.softmax(dim),
        "afterwards": lambda: scores.softmax(dim) * allowed,
        "turned round": lambda: scores.masked_fill(allowed, torch.finfo(scores.dtype).min).softmax(dim),
        "times": lambda: (scores * mask).softmax(dim),
        "no softmax": lambda: scores * allowed,
    }[wrong.get("masked", "added")]()
    mixed = mixing @ value
    joined = {
        "in order": lambda: mixed.transpose(1, 2).flatten(2),
        "reshaped": lambda: mixed.reshape(x.shape),
        "interleaved": lambda: mixed.permute(0, 2, 3, 1).flatten(2),
    }[wrong.get("join", "in order")]()
    name = "h.0.attn" if wrong.get("layer") == "out" else name
    matrix, bias = weights[f"{name}.c_proj.weight"], weights[f"{name}.c_proj.bias"]
    result = {
        "linear": lambda: joined @ matrix + bias,
        "none": lambda: joined,
        "no bias": lambda: joined @ matrix,
        "turned": lambda: joined @ matrix.T + bias,
    }[wrong.get("out", "linear")]()
    return result + x if wrong.get("residual") else result


WRONG_ATTENTION = [
    ({"scale": 1.0}, "The attention scores are not scaled. Divide them by the square root of a head's size, `query.shape[-1] ** 0.5`."),
    ({"scale": 24**0.5}, "The attention scores are divided by the square root of the whole width. It is the size of *one head* that counts: `query.shape[-1]`."),
    ({"scale": 8.0}, "The attention scores are divided by 8, which is right for heads of the size 64. Take the size from the tensors: `query.shape[-1] ** 0.5`."),
    ({"scale": 4.0}, "The attention scores are divided by 4, which is right for heads of the size 16. Take the size from the tensors: `query.shape[-1] ** 0.5`."),
    ({"scale": 6.0}, "The attention scores are divided by a head's size. Divide by its square root."),
    ({"masked": "never"}, "The mask has no effect: tokens look at later ones. Add it to the attention scores before the softmax."),
    ({"masked": "afterwards"}, "The mask is applied after the softmax, so the weights no longer sum to 1. Add it to the attention scores."),
    ({"masked": "turned round"}, "The mask is used the wrong way round: it is 0 where a token may look. Add it."),
    ({"masked": "times"}, "The attention scores are multiplied by the mask. It is additive: 0 where a token may look, and a very negative number elsewhere."),
    ({"masked": "no softmax"}, "There is no softmax: the masked attention scores themselves mix the values."),
    ({"dim": -2}, "The softmax runs over the queries. Each query's weights over the keys should sum to 1: `softmax(-1)`."),
    ({"join": "reshaped"}, "The heads are reshaped together without being moved back, so numbers of different tokens get mixed. Undo `split_heads`: `.transpose(1, 2).flatten(2)`."),
    ({"join": "interleaved"}, "The heads' numbers are interleaved. A token's heads stand one after the other: `.transpose(1, 2).flatten(2)`."),
    ({"out": "none"}, "The last matrix is missing: `c_proj` mixes the heads."),
    ({"out": "no bias"}, "The bias of `c_proj` is missing. `linear` adds it."),
    ({"out": "turned"}, "The matrix of `c_proj` is transposed. GPT-2 keeps it as (from, to): `x @ weight`."),
    ({"swapped": "query and key"}, "Queries and keys are swapped. Row by row, `query @ key.transpose(-1, -2)` has a query's scores over the keys."),
    ({"swapped": "key and value"}, "Keys and values are swapped: the keys make the scores, and the values are mixed."),
    ({"layer": "in"}, "Query, key and value come from the weights of layer 0. Hand on `name` to `project`."),
    ({"layer": "out"}, "`c_proj` is that of layer 0. Put the layer's name before it: `f\"{name}.c_proj\"`."),
    ({"residual": True}, "The input is added already. The block does that; return only what attention adds."),
]  # fmt: skip


def pass_with(weights, config, ids, mask, **wrong):
    """The logits with parts of the pass replaced, [batch, length, vocab].

    norms: those that are applied, of "ln_1", "ln_2", "ln_f"; only: the one that both parts use
    kept: the norms whose result becomes the stream; often: True norms with `ln_f` after each layer
    residual: the parts whose result is added to the stream; parts: those that run, in order
    parallel: True lets both read the same stream; lost: True keeps the MLP's result in the last layer only
    layers: how many run; number: the layer whose weights all use
    padding, causal, positions: False ignores them; head: "log" or "probs", what is made of the logits
    """
    norms, residual = (
        wrong.get("norms", ("ln_1", "ln_2", "ln_f")),
        wrong.get("residual", ("attention", "mlp")),
    )

    def normed(x, layer, norm):
        return ours.norm(x, weights, layer + wrong.get("only", norm)) if norm in norms else x

    def run(part, x, layer):
        if part == "mlp":
            return ours.mlp(normed(x, layer, "ln_2"), weights, f"{layer}mlp")
        return ours.attention(normed(x, layer, "ln_1"), weights, f"{layer}attn", HEADS, added)

    ones = torch.ones_like(mask)
    x = ours.embed(weights, ids, mask if wrong.get("positions", True) else ones)
    seen = mask if wrong.get("padding", True) else ones
    added = additive_mask(joined_mask(seen, causal=wrong.get("causal", True)), x.dtype)
    count = wrong.get("layers", config.n_layer)
    for number in range(count):
        layer, start = f"h.{wrong.get('number', number)}.", x
        for part in wrong.get("parts", ("attention", "mlp")):
            norm = "ln_2" if part == "mlp" else "ln_1"
            result = run(part, start if wrong.get("parallel") else x, layer)
            if wrong.get("lost") and part == "mlp" and number < count - 1:
                continue
            stream = normed(x, layer, norm) if norm in wrong.get("kept", ()) else x
            x = stream + result if part in residual else result
        if wrong.get("often"):
            x = ours.norm(x, weights, "ln_f")
    if "ln_f" in norms and not wrong.get("often"):
        x = ours.norm(x, weights, "ln_f")
    logits = x @ weights["wte.weight"].T
    return {"log": logits.log_softmax(-1), "probs": logits.softmax(-1)}.get(wrong.get("head", ""), logits)


WRONG_PASSES = [
    ({"norms": ("ln_1", "ln_2")}, "The final norm, `ln_f`, is missing before the head."),
    ({"norms": ("ln_2", "ln_f")}, "The norm before attention, `ln_1`, is missing."),
    ({"norms": ("ln_1", "ln_f")}, "The norm before the MLP, `ln_2`, is missing."),
    ({"norms": ("ln_f",)}, "Attention and the MLP read the stream as it is. Each reads it normed: `ln_1` and `ln_2`."),
    ({"residual": ()}, "Each part's result *replaces* the stream. Add it: `x = x + …`."),
    ({"residual": ("attention",)}, "The MLP's result replaces the stream. Add it: `x = x + …`."),
    ({"residual": ("mlp",)}, "Attention's result replaces the stream. Add it: `x = x + …`."),
    ({"kept": ("ln_1", "ln_2")}, "The normed vectors have become the stream. Norm a copy for each part, and add the part's result to the stream as it was."),
    ({"kept": ("ln_1",)}, "Attention's result is added to the normed vectors. Add it to the stream as it was."),
    ({"kept": ("ln_2",)}, "The MLP's result is added to the normed vectors. Add it to the stream as it was."),
    ({"only": "ln_1"}, "Both parts use `ln_1`. The norm before the MLP is `ln_2`."),
    ({"only": "ln_2"}, "Both parts use `ln_2`. The norm before attention is `ln_1`."),
    ({"often": True}, "`ln_f` is applied after every layer. It comes once, after the last."),
    ({"lost": True}, "The MLP's result reaches the stream in the last layer only. Keep it in `x`: `x = x + mlp(…)`."),
    ({"parallel": True}, "Attention and the MLP read the same stream. The MLP should read it after attention was added."),
    ({"parts": ("mlp", "attention")}, "The MLP comes before attention. It is the other way round."),
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
