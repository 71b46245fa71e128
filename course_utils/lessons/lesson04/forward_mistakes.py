"""Lesson 04, exercises 2 and 3: what known mistakes in attention and in the whole pass compute, and their sentences."""

import torch

from ...masks import additive_mask, joined_mask
from . import forward_pass as ours

HEADS = 4


def attention_with(x, weights, name, mask, scale=None, masked="added", dim=-1, join="", out="", keys="", plus="", layer=""):  # fmt: skip
    """Attention with parts replaced; right by default."""
    query, key, value = ours.project(x, weights, "h.0.attn" if layer == "in" else name, HEADS)
    name = "h.0.attn" if layer == "out" else name
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
    if masked == "turned round":
        mixing = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min).softmax(dim)
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
    ({"keys": "query and key swapped"}, "Queries and keys are swapped. Row by row, `query @ key.transpose(-1, -2)` has a query's scores over the keys."),
    ({"keys": "value and key swapped"}, "Keys and values are swapped: the keys make the scores, and the values are mixed."),
    ({"layer": "in"}, "Query, key and value come from the weights of layer 0. Hand on `name` to `project`."),
    ({"layer": "out"}, "`c_proj` is that of layer 0. Put the layer's name before it: `f\"{name}.c_proj\"`."),
    ({"plus": "x"}, "The input is added already. The block does that; return only what attention adds."),
]  # fmt: skip


def pass_with(weights, config, ids, mask, residual=True, norms=("ln_1", "ln_2", "ln_f"), layers=None, number=None, kept=(), parallel=False, order="", head="", padding=True, causal=True, positions=True, parts=("attention", "mlp"), only=None, often=False, lost=False):  # fmt: skip
    """The pass with parts replaced; right by default."""

    def normed(x, name):
        if only and not name.startswith("ln_f"):
            name = name[:-4] + only
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
            added_to = normed(x, f"{name}.{norm}") if norm in kept else x
            result = added_to + step(x) if residual is True or residual == step.__name__ else step(x)
            if not (lost and step is think and layer < config.n_layer - 1):
                x = result
        x = normed(x, "ln_f") if often else x
    if often:
        return x @ weights["wte.weight"].T
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
    ({"kept": ("ln_1", "ln_2")}, "The normed vectors have become the stream. Norm a copy for each part, and add the part's result to the stream as it was."),
    ({"kept": ("ln_1",)}, "Attention's result is added to the normed vectors. Add it to the stream as it was."),
    ({"kept": ("ln_2",)}, "The MLP's result is added to the normed vectors. Add it to the stream as it was."),
    ({"only": "ln_1"}, "Both parts use `ln_1`. The norm before the MLP is `ln_2`."),
    ({"only": "ln_2"}, "Both parts use `ln_2`. The norm before attention is `ln_1`."),
    ({"often": True}, "`ln_f` is applied after every layer. It comes once, after the last."),
    ({"lost": True}, "The MLP's result reaches the stream in the last layer only. Keep it in `x`: `x = x + mlp(…)`."),
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
