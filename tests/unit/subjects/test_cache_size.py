"""course_utils.cache_size: held to the keys and values that models of each kind really keep."""

import pytest
import torch
import transformers

from course_utils.cache_size import CacheSize, LayerSize, kept_layers, predicted_size
from course_utils.releases import cache_of

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WIDE = SMALL | {"head_dim": 8}
EXPERTS = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
MLA = SMALL | {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8, "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1,
    "moe_intermediate_size": 16,
}  # fmt: skip
MAMBA = {"mamba_d_state": 4, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2, "mamba_n_groups": 1}
FALCON = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
PAIR = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}
# model, its settings: one key and one value have 2 x (heads x width) numbers, in layers that keep all / few
MODELS = {
    "attention": ("Llama", WIDE),
    "wide heads": ("Llama", SMALL | {"head_dim": 24}),
    "multi-query": ("Falcon", FALCON),
    "multi-query, GPTBigCode": ("GPTBigCode", {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "one key for each query": ("GPTBigCode", {
        "vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "multi_query": False
    }),
    "not multi-query": ("Falcon", FALCON | {"multi_query": False}),
    "grouped queries, Falcon": ("Falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "latent, DeepSeek 3": ("DeepseekV3", MLA | {"first_k_dense_replace": 1}),
    "latent, DeepSeek 2": ("DeepseekV2", MLA | {"first_k_dense_replace": 1}),
    "latent, MiniCPM 3": ("MiniCPM3", MLA),
    "window": ("Mistral", WIDE | {"sliding_window": 5}),
    "no window": ("Mistral", WIDE | {"sliding_window": None}),
    "window in some layers, Gemma 2": ("Gemma2", WIDE | PAIR),
    "window in some layers, Gemma 3": ("Gemma3Text", WIDE | PAIR),
    "window in some layers, gpt-oss": ("GptOss", WIDE | PAIR | EXPERTS),
    "window in some layers, Cohere 2": ("Cohere2", WIDE | PAIR),
    "window in some layers, OLMo 3": ("Olmo3", WIDE | PAIR),
    "chunks": ("Llama4Text", WIDE | EXPERTS | {
        "attention_chunk_size": 5, "layer_types": ["chunked_attention", "full_attention"],
        "intermediate_size_mlp": 64, "no_rope_layers": [1, 0],
    }),
    "hybrid, Jamba": ("Jamba", SMALL | EXPERTS | {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "mamba_d_state": 4, "mamba_expand": 2,
    }),
    "hybrid, Bamba": ("Bamba", SMALL | MAMBA | {"attn_layer_indices": [1]}),
    "hybrid, LFM 2": ("Lfm2", SMALL | {"layer_types": ["conv", "full_attention"]}),
    "hybrid, Qwen3-Next": ("Qwen3Next", WIDE | EXPERTS | {
        "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
        "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 16,
    }),
    "hybrid, Granite 4": ("GraniteMoeHybrid", SMALL | MAMBA | EXPERTS | {
        "layer_types": ["mamba", "attention"], "shared_intermediate_size": 16
    }),
    "hybrid, MiniMax": ("MiniMax", WIDE | EXPERTS | {"layer_types": ["linear_attention", "full_attention"]}),
    "both in one layer": ("FalconH1", SMALL | MAMBA | {"mamba_d_ssm": 64}),
    "a decoder of an encoder-decoder": ("Bart", {
        "vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "is_decoder": True, "is_encoder_decoder": False,
    }),
}  # fmt: skip


def built(name, settings):
    torch.manual_seed(0)
    kind = f"{name.removesuffix('Text')}ForCausalLM"
    return getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**settings)).eval()


def cache_after(model, tokens):
    with torch.no_grad():
        return cache_of(model(torch.arange(4, 4 + tokens)[None], use_cache=True))


def held(cache):
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in kept_layers(cache))


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated"
)  # GPTBigCode's module in older releases
def test_the_prediction_is_what_each_kind_of_model_keeps():
    for kind, (name, settings) in MODELS.items():
        for dtype in (torch.float32, torch.bfloat16):
            model = built(name, settings).to(dtype)
            size = predicted_size(model, cache_after(model, 1))
            assert size is not None, kind
            for tokens in (2, 4, 5, 16):
                assert size.bytes_at(tokens) == held(cache_after(model, tokens)) > 0, (kind, tokens, size)


def test_the_factors_are_those_of_the_kind():
    expected = {
        "multi-query": {LayerSize(1, 8, 8): 2},
        "grouped queries, Falcon": {LayerSize(4, 8, 8): 2},
        "latent, DeepSeek 3": {LayerSize(1, 16, 4): 2},
        "window": {LayerSize(2, 8, 8, 4): 2},
        "window in some layers, Gemma 3": {LayerSize(2, 8, 8, 4): 1, LayerSize(2, 8, 8): 1},
        "hybrid, Jamba": {LayerSize(2, 8, 8): 1},
    }
    for kind, layers in expected.items():
        model = built(*MODELS[kind])
        size = predicted_size(model, cache_after(model, 1))
        assert size == CacheSize(layers, 4, other_layers=int("hybrid" in kind)), kind
    small, large = size.bytes_at(1), size.bytes_at(1000)
    assert (small, large) == (128, 128_000)


def test_the_rule_says_the_multiplication():
    assert CacheSize({LayerSize(2, 8, 8): 3}, 4).rule() == (
        "2 (keys and values) × 3 layers × 2 heads × 8 numbers × 4 bytes = 384 bytes a position"
    )
    both = CacheSize({LayerSize(2, 8, 8, 4095): 1, LayerSize(1, 512, 64): 1}, 2, other_layers=6)
    assert both.rule() == (
        "2 (keys and values) × 1 layers × 2 heads × 8 numbers × 2 bytes = 64 bytes a position, for the last "
        "4,095 positions only; and 1 layers × 1 heads × (512 numbers of the key + 64 of the value) × 2 bytes "
        "= 1,152 bytes a position (6 more layers keep no keys and values)"
    )
    assert both.rates() == [(64, 4095), (1152, None)]


def test_nothing_is_predicted_where_the_configuration_does_not_say_it():
    falcon = built("Falcon", FALCON)
    one = cache_after(falcon, 1)
    assert predicted_size(falcon, one) is not None
    for name, value in (
        ("multi_query", False),
        ("num_hidden_layers", 3),
        ("hidden_size", 64),
        ("sliding_window", 9),
    ):
        before = getattr(falcon.config, name, None)
        setattr(falcon.config, name, value)
        assert predicted_size(falcon, one) is None, name
        setattr(falcon.config, name, before)
    assert predicted_size(falcon.bfloat16(), one) is None  # kept in another type than the weights
    assert predicted_size(falcon, None) is None


@pytest.mark.parametrize("text", ["text_config", None])
def test_a_multimodal_configuration_says_it_of_its_text(text):
    sight = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=WIDE | PAIR,
        vision_config=sight | {"image_size": 16, "patch_size": 4},
        mm_tokens_per_image=4,
    )
    torch.manual_seed(0)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    model = model if text else built("Gemma3Text", WIDE | PAIR)
    size = predicted_size(model, cache_after(model, 1))
    assert size.bytes_at(16) == held(cache_after(model, 16)) == 128 * (16 + 4)
