"""One model of each architecture that decode_steps is held to generate() on: two layers, random weights."""

import functools

import torch
import transformers

WIDTH, VOCABULARY, POSITIONS = 32, 60, 64
END, PAD = 1, 0

_LLAMA_LIKE = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
}
_SIZES = {
    "GPT2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS},
    "Llama": _LLAMA_LIKE,
    "OPT": {
        "hidden_size": WIDTH,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
        "word_embed_proj_dim": WIDTH,
    },
    "GPTNeoX": {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
    },
    "Mistral": _LLAMA_LIKE | {"sliding_window": 5},
    "Qwen2": _LLAMA_LIKE,
    "Bloom": {"hidden_size": WIDTH, "n_layer": 2, "n_head": 4},
    "Gemma3": _LLAMA_LIKE
    | {"head_dim": 8, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "T5": {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    "Bart": {
        "d_model": WIDTH,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": POSITIONS,
    },
}
ENCODER_DECODERS = ("T5", "Bart")
DECODERS = tuple(name for name in _SIZES if name not in ENCODER_DECODERS)
ARCHITECTURES = (*DECODERS, *ENCODER_DECODERS)


@functools.cache
def tiny(name, dtype=torch.float32, device="cpu"):
    """The model of architecture `name`, in eval mode, its weights drawn from a fixed seed and spread so wide
    that the token with the largest logit is not always the same."""
    head = "ForConditionalGeneration" if name in ENCODER_DECODERS else "ForCausalLM"
    kind = {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}{head}")
    config = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")(
        vocab_size=VOCABULARY, bos_token_id=2, eos_token_id=END, pad_token_id=PAD, **_SIZES[name]
    )
    if name in ENCODER_DECODERS:
        config.decoder_start_token_id = 2
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = getattr(transformers, kind)(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config.pad_token_id = PAD
    return model.to(device, dtype).eval()
