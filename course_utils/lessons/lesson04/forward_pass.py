"""GPT-2's forward pass from a dictionary of its weights, part by part, as the lesson's cells define it.

The cells that come after an exercise run on these where the learner's own function does not pass. `weights` is
the model's state_dict without "transformer." in its names; `name` is such a part, "h.0.attn".
"""

import torch
from torch.nn.functional import gelu

from ...masks import additive_mask, joined_mask, position_ids


def embed(weights, input_ids, attention_mask):
    """The stream before the first block: FloatTensor [batch, new, width]. The ids are the mask's last columns."""
    positions = position_ids(attention_mask)[:, -input_ids.shape[1] :]
    return weights["wte.weight"][input_ids] + weights["wpe.weight"][positions]


def norm(x, weights, name):
    """Layer norm of each vector of [batch, length, width], with scale and shift."""
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    """A matrix and a bias."""
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def split_heads(x, count):
    """From [batch, length, width] to [batch, head, length, size]."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def project(x, weights, name, heads, cache=None):
    """Query of the new tokens, key and value of all: each [batch, head, new or all, size]."""
    parts = linear(x, weights, f"{name}.c_attn").chunk(3, dim=-1)
    query, key, value = (split_heads(part, heads) for part in parts)
    if cache is not None:
        key, value = cache.update(name, key, value)
    return query, key, value


def attention(x, weights, name, heads, mask, cache=None):
    """What attention adds to the stream, [batch, new, width]. mask is additive, [batch, 1, new, all]."""
    query, key, value = project(x, weights, name, heads, cache)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask
    mixed = scores.softmax(-1) @ value
    return linear(mixed.transpose(1, 2).flatten(2), weights, f"{name}.c_proj")


def mlp(x, weights, name):
    """What the MLP adds to the stream, [batch, new, width]."""
    wide = gelu(linear(x, weights, f"{name}.c_fc"), approximate="tanh")
    return linear(wide, weights, f"{name}.c_proj")


def forward(weights, config, input_ids, attention_mask, cache=None, attention=attention):
    """The logits of the new tokens, [batch, new, vocab]."""
    mask = additive_mask(joined_mask(attention_mask, queries=input_ids.shape[1]))
    x = embed(weights, input_ids, attention_mask)
    for layer in range(config.n_layer):
        name = f"h.{layer}"
        normed = norm(x, weights, f"{name}.ln_1")
        x = x + attention(normed, weights, f"{name}.attn", config.n_head, mask, cache)
        x = x + mlp(norm(x, weights, f"{name}.ln_2"), weights, f"{name}.mlp")
    return norm(x, weights, "ln_f") @ weights["wte.weight"].T


class Cache:
    """Keys and values by the name of their layer: `kept["h.0.attn"]` is a pair of [batch, head, length, size]."""

    def __init__(self):
        self.kept = {}

    def update(self, name, key, value):
        """Append the new keys and values to those of this layer, and return all of them."""
        if name in self.kept:
            key, value = (torch.cat(pair, dim=2) for pair in zip(self.kept[name], (key, value), strict=True))
        self.kept[name] = key, value
        return key, value
