"""Lesson 04, exercise 1: the number of parameters from a configuration."""

import numbers

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ...checks.exercise import Mistake, exercise

SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
SMALL = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 50,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}


def on_meta(kind, **options):
    """A "GPT2" or "Llama" with a head for logits, of this configuration, on the meta device: shapes only."""
    config, model = {"GPT2": (GPT2Config, GPT2LMHeadModel), "Llama": (LlamaConfig, LlamaForCausalLM)}[kind]
    with torch.device("meta"):
        return model(config(**options))


@exercise("04/count", title="Count the parameters of a Llama", minutes=8, difficulty=2)
def check_llama_parameters(answer):
    """SmolLM2's number and that of four small configurations, each compared with a model on the meta device."""
    for name, options in [
        ("a small configuration", SMALL),
        ("SmolLM2's configuration", SMOLLM2),
        ("a head that is not tied", SMALL | {"tie_word_embeddings": False}),
        ("as many key heads as query heads", SMALL | {"num_key_value_heads": 4}),
        ("`head_dim=12`, which is not 32 / 4,", SMALL | {"head_dim": 12}),
    ]:
        model = on_meta("Llama", **options)
        want, got = model.num_parameters(), answer(model.config)
        if not isinstance(got, numbers.Real):  # NumPy's numbers, too
            raise Mistake(f"Return one number, the sum of all terms; got {type(got).__name__}.")
        if got != want:
            hint = (
                _miscount(model.config, got - want)
                or "Compare your terms with the printed model, part by part."
            )
            raise Mistake(f"For {name} your sum is {got:,}, but the model has {want:,}. {hint}")
    return "134,515,008 for SmolLM2, and right for other sizes, for a head that is not tied and for as many key heads as query heads."


def _miscount(config, difference):
    """The sentence about the term whose excess or absence makes up `difference`, or None."""
    width, layers, inner = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    heads, kept, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    table, norms = config.vocab_size * width, 2 * layers * width
    queries, keys = layers * width * heads * size, layers * width * kept * size
    every_layer = 2 * queries + 2 * keys + 3 * layers * width * inner + norms
    biases = layers * (heads * size + 2 * kept * size + 2 * inner + 2 * width)
    tied = config.tie_word_embeddings
    for off, hint in [
        (table, "That is one token table too many: with `tie_word_embeddings=True` the head is that table."),
        (-table, "The token table is missing." if tied else "One matrix of the vocabulary's size is missing: this head is not tied, so it has its own matrix."),
        (2 * (queries - keys), "Keys and values have `num_key_value_heads` heads, not `num_attention_heads`."),
        (2 * (keys - queries), "`q_proj` and `o_proj` have all `num_attention_heads` heads."),
        (-layers * width * inner, "A matrix of the MLP is missing: there are `gate_proj`, `up_proj` and `down_proj`."),
        (-queries, "A matrix of attention is missing: `q_proj` or `o_proj`."),
        (-keys, "A matrix of attention is missing: `k_proj` or `v_proj`."),
        (-width, "The norm after the last layer is missing."),
        (-norms - width, "All norms are missing: two in each layer, and one after the last."),
        (-norms, "The norms of the layers are missing: two in each."),
        (-norms // 2, "Each layer has two norms, but here it has one."),
        (norms + width, "Here a norm has two numbers for each entry of a vector. These norms have a scale and no shift."),
        (biases, "Biases are counted, but these matrices have none."),
        (config.max_position_embeddings * width, "A position table is counted, but Llama has none: it rotates queries and keys."),
        (every_layer // layers - every_layer, "Only one layer is counted. There are `num_hidden_layers` of them."),
        ((width // heads - size) * layers * width * 2 * (heads + kept), "A head's size is `head_dim`, which here is not `hidden_size / num_attention_heads`."),
        (2 * (layers * width * width - queries), "`q_proj` and `o_proj` connect `hidden_size` and `num_attention_heads * head_dim`, and here the two are not equal."),
    ]:  # fmt: skip
        if off and off == difference:
            return hint
    return None
