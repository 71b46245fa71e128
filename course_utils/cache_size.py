"""How large a KV cache gets, as a model's configuration has it.

A layer keeps a key and a value of each position for each of its key/value heads. The configuration says how
many layers do (in a hybrid, the recurrent ones keep none), how many heads they have and how wide a head is,
and where a layer looks back over a window only. Where that is not what the model keeps, nothing is predicted.
"""

from collections import Counter
from typing import Any, NamedTuple

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

# The two rules by which a layer grows that are known here: by every position, and up to a window.
_RULES = (DynamicLayer.update, DynamicSlidingWindowLayer.update)


class LayerSize(NamedTuple):
    """What one layer keeps of each position: `heads` keys of `key` numbers and as many values of `value`
    numbers, all int. `most` is of how many positions, the last ones; None is of all of them."""

    heads: int
    key: int
    value: int
    most: int | None = None


class CacheSize(NamedTuple):
    """The size that the configuration predicts for the cache of one row.

    layers:       dict from LayerSize to int, how many layers have it
    number_bytes: int, the bytes of one number
    other_layers: int, the layers that keep no keys and values
    """

    layers: dict
    number_bytes: int
    other_layers: int = 0

    def rates(self) -> list[tuple[int, int | None]]:
        """For each kind of layer, the bytes that all of its layers take a position and the most positions
        that they keep, int or None: list of pairs."""
        return [
            (count * size.heads * (size.key + size.value) * self.number_bytes, size.most)
            for size, count in self.layers.items()
        ]

    def bytes_at(self, positions: int) -> int:
        """The bytes of all keys and values of so many positions: int."""
        return sum(rate * min(positions, most or positions) for rate, most in self.rates())

    def rule(self) -> str:
        """The multiplication in words, for each kind of layer: str."""
        parts = []
        for (size, count), (rate, most) in zip(self.layers.items(), self.rates(), strict=True):
            factors = [f"{count} layers", f"{size.heads} heads", f"{size.key} numbers"]
            if size.key == size.value:
                factors = ["2 (keys and values)", *factors]
            else:
                factors[-1] = f"({size.key} numbers of the key + {size.value} of the value)"
            window = "" if most is None else f", for the last {most:,} positions only"
            product = " × ".join([*factors, f"{self.number_bytes} bytes"])
            parts.append(f"{product} = {rate:,} bytes a position{window}")
        others = f" ({self.other_layers} more layers keep no keys and values)" if self.other_layers else ""
        return "; and ".join(parts) + others


def kept_layers(cache: Any) -> list:
    """The layers of a cache that hold keys and values: list, empty for a model that returns no cache."""
    cache = getattr(cache, "self_attention_cache", cache)  # some decoders have one for cross-attention too
    layers = getattr(cache, "layers", None) or []
    return [layer for layer in layers if getattr(layer, "keys", None) is not None]


def predicted_size(model: Any, cache: Any) -> CacheSize | None:
    """The CacheSize that a model's configuration predicts, or None where it is not what the model keeps.

    cache: what the model returned for a text of one token; the prediction has to be right for that one
    """
    real = kept_layers(cache)
    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=config).layers  # how transformers reads the types of the layers
    keeping = [index for index, layer in enumerate(layers) if isinstance(layer, DynamicLayer)]
    if len(keeping) != len(real):
        return None
    sizes = []
    for index, kept in zip(keeping, real, strict=True):
        expected: Any = layers[index]
        window = getattr(expected, "sliding_window", None)
        if type(expected).update not in _RULES or type(kept).update is not type(expected).update:
            return None
        if window != getattr(kept, "sliding_window", None) or kept.keys.dtype != model.dtype:
            return None
        shapes = [tuple(tensor.shape) for tensor in (kept.keys, kept.values)]
        for heads, key, value in _head_sizes(_of_layer(config, index), window):
            if shapes == [(1, heads, 1, key), (1, heads, 1, value)]:
                # The next token looks back over the window less itself.
                sizes.append(LayerSize(heads, key, value, window and window - 1))
                break
        else:
            return None
    return CacheSize(dict(Counter(sizes)), model.dtype.itemsize, len(layers) - len(keeping))


def _of_layer(config, index):
    """The configuration of one layer: in some models they differ."""
    each = getattr(config, "per_layer_config", None)
    return each[index] if each else config


def _head_sizes(config, window):
    """What the configuration may mean for one layer: an iterator of (heads, size of a key, of a value)."""
    own = config.num_attention_heads
    rank, rotary = getattr(config, "kv_lora_rank", None), getattr(config, "qk_rope_head_dim", None)
    if rank and rotary:  # multi-head latent attention keeps the latent vector, or the heads made from it
        yield 1, rank, rotary
        yield own, config.qk_nope_head_dim + rotary, config.v_head_dim
    width = getattr(config, "head_dim", None) or config.hidden_size // own
    heads = getattr(config, "num_key_value_heads", None) or own
    if getattr(config, "new_decoder_architecture", False):  # the larger Falcons keep them once for each query
        heads = own
    elif getattr(config, "multi_query", False):  # Falcon 7B, GPTBigCode
        heads = 1
    if window is None and getattr(config, "global_head_dim", None):  # Gemma 4
        width = config.global_head_dim
        heads = getattr(config, "num_global_key_value_heads", None) or heads
    yield heads, width, width
