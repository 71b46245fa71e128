import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    JambaConfig,
    JambaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from course_utils import CourseError, load
from course_utils.releases import cache_given
from course_utils.widgets import CacheGrowth, cache_growth
from tiny import tiny_gpt2


@pytest.fixture
def widget(gpt2):
    return CacheGrowth(tiny_gpt2(64), gpt2)


@pytest.fixture
def clock(monkeypatch):
    """A timed pass takes 1 ms a position here, and 100 ms more if its number, from 1, is in `slow`. `passes`
    lists the (positions in the cache, positions given, use_cache) of each, `ids` what it was given."""

    class Clock:
        def __init__(self):
            self.passes, self.ids, self.slow = [], [], set()

    def timed(model, ids, **given):
        cache = cache_given(given)
        known = cache.get_seq_length() if cache else 0
        clock.passes.append((known, len(ids), given["use_cache"]))
        clock.ids.append(ids)
        output = cache_growth._forward(model, ids, **given)
        return len(ids) + 100.0 * (len(clock.passes) in clock.slow), output

    clock = Clock()
    monkeypatch.setattr(cache_growth, "_timed", timed)
    return clock


def test_the_cache_has_the_bytes_that_the_configuration_predicts(gpt2):
    tiny = {"vocab_size": 50257, "hidden_size": 32, "num_hidden_layers": 2}
    models = [
        tiny_gpt2(64),
        load("tiny-llama")[0],  # fewer heads for keys and values than for queries
        load("tiny-llama")[0].bfloat16(),
        BloomForCausalLM(BloomConfig(vocab_size=50257, hidden_size=32, n_layer=2, n_head=4)).eval(),
        OPTForCausalLM(OPTConfig(**tiny, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32)).eval(),
        MistralForCausalLM(
            MistralConfig(
                **tiny, num_attention_heads=4, num_key_value_heads=1, head_dim=24, sliding_window=None
            )
        ).eval(),
    ]
    for model in models:
        widget = CacheGrowth(model, gpt2)
        widget.measure(33)
        assert [one.positions for one in widget.measured] == [4, 8, 16, 24, 33]
        for one in widget.measured:
            assert one.cache_bytes == one.predicted_bytes > 0, type(model)
            assert one.with_cache > 0 < one.without_cache
        assert widget.shown["agree"] or model.dtype == torch.bfloat16, type(model)
    shown = CacheGrowth(models[2], gpt2).shown
    assert shown["rates"] == [(512, None)]
    assert shown["rule"] == (
        "2 (keys and values) × 4 layers × 2 heads × 16 numbers × 2 bytes = 512 bytes a position"
    )


SMALL = {"vocab_size": 50257, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}


def test_windows_latent_attention_and_hybrids_are_predicted_too(gpt2):
    latent = {
        "num_hidden_layers": 2, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 2, "num_experts_per_tok": 1,
        "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16, "num_key_value_heads": 4,
    }  # fmt: skip
    torch.manual_seed(0)
    models = {
        FalconForCausalLM(FalconConfig(**SMALL, num_hidden_layers=2)): 2048,  # one key/value head
        MistralForCausalLM(
            MistralConfig(**SMALL, num_hidden_layers=2, num_key_value_heads=2, sliding_window=8)
        ): 2 * 2 * 2 * 8 * 4 * 7,
        DeepseekV3ForCausalLM(DeepseekV3Config(**SMALL, **latent)): 16 * 2 * (16 + 4) * 4,
        jamba(): 16 * 2 * 4 * 8 * 4,  # one of two layers
    }
    for model, size in models.items():
        widget = CacheGrowth(model.eval(), gpt2)
        widget.measure(16)
        for one in widget.measured:
            assert one.cache_bytes == one.predicted_bytes, type(model)
        assert widget.measured[-1].cache_bytes == size, type(model)
        assert widget.shown["agree"], type(model)


def jamba():
    """A hybrid of one recurrent layer and one of attention, whose choices are far apart."""
    torch.manual_seed(0)
    config = JambaConfig(
        **SMALL, num_key_value_heads=4, num_hidden_layers=2, attn_layer_period=2, attn_layer_offset=1,
        num_experts=2, num_experts_per_tok=1, mamba_d_state=4, initializer_range=0.3,
    )  # fmt: skip
    return JambaForCausalLM(config).eval()


def test_a_recurrent_layer_gets_the_text_in_one_piece(gpt2, monkeypatch):
    model, pairs = jamba(), []
    timed = cache_growth._timed

    def remembered(*args, **given):
        time, output = timed(*args, **given)
        pairs.append(output.logits[0, -1])
        return time, output

    monkeypatch.setattr(cache_growth, "_timed", remembered)
    CacheGrowth(model, gpt2).measure(64)
    for cached, whole in zip(pairs[::2], pairs[1::2], strict=True):
        torch.testing.assert_close(cached, whole, rtol=0, atol=1e-3)


def test_where_the_ways_disagree_it_says_by_how_much(gpt2, monkeypatch):
    forward = cache_growth._forward

    def wrong(model, ids, **given):  # the passes without a cache find another token
        output = forward(model, ids, **given)
        if not given["use_cache"]:
            output.logits[0, -1, 7] = output.logits[0, -1].max() + 2.5
        return output

    widget = CacheGrowth(tiny_gpt2(64), gpt2)
    monkeypatch.setattr(cache_growth, "_forward", wrong)
    widget.measure(16)
    assert not widget.shown["agree"]
    assert widget.shown["apart"] > 2.5
    monkeypatch.undo()
    widget.measure(16)
    assert (widget.shown["agree"], widget.shown["apart"]) == (True, 0.0)


def test_without_a_prediction_nothing_is_claimed(gpt2):
    model = FalconForCausalLM(FalconConfig(**SMALL, num_hidden_layers=1)).eval()
    model.config.multi_query = False  # not what its layers do
    widget = CacheGrowth(model, gpt2)
    widget.measure(16)
    assert (widget.shown["rule"], widget.shown["rates"]) == (None, None)
    last = widget.measured[-1]
    assert (last.cache_bytes, last.predicted_bytes) == (1024, None)
    for text in (repr(widget), widget.still()):
        assert "whose size the configuration does not tell" in text
        assert "1,024" in text
        assert "None" not in text
    assert "1,024 bytes kept" in repr(widget).splitlines()[-1]
    assert "predicted" not in repr(widget)


def test_a_multimodal_model_is_measured_by_its_text(gpt2):
    text = SMALL | {"num_hidden_layers": 1, "head_dim": 8, "num_key_value_heads": 2}
    sight = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=text, vision_config=sight | {"image_size": 16, "patch_size": 4}, mm_tokens_per_image=4
    )
    torch.manual_seed(0)
    widget = CacheGrowth(Gemma3ForConditionalGeneration(config).eval(), gpt2)
    widget.measure(16)
    assert widget.measured[-1].cache_bytes == widget.measured[-1].predicted_bytes == 16 * 2 * 2 * 8 * 4


def test_each_way_is_given_what_generate_gives_it(widget, clock):
    widget.measure(64)
    assert clock.passes[2:12] == [
        *[(7, 1, True), (0, 8, False)],  # after one pass of each kind that is not counted
        *[(15, 1, True), (0, 16, False)],
        *[(31, 1, True), (0, 32, False)],
        *[(47, 1, True), (0, 48, False)],
        *[(63, 1, True), (0, 64, False)],
    ]
    assert clock.passes[2:] == clock.passes[2:12] * 5  # round by round


def test_a_slow_moment_does_not_show(widget, clock):
    clock.slow = {1, 2, *range(13, 33)}  # the first passes, and two whole rounds of five
    widget.measure(64)
    assert [(one.with_cache, one.without_cache) for one in widget.measured] == [
        (1, length) for length in (8, 16, 32, 48, 64)
    ]


def test_one_request_is_one_measurement(widget):
    assert widget.answer({"start": 64}) == {"left": 24}
    assert [one.positions for one in widget.measured] == [8]
    assert widget.answer({"next": True}) == {"left": 23}
    assert [one.positions for one in widget.measured] == [8, 16]
    assert (widget.shown["done"], widget.shown["total"]) == (2, 25)
    assert widget.answer({"stop": True}) == widget.answer({"next": True}) == {"left": 0}
    assert [one.positions for one in widget.measured] == [8, 16]
    assert widget.answer({"start": 32}) == {"left": 24}
    assert [one.positions for one in widget.measured] == [4]


def test_nothing_is_kept_of_a_series_that_is_over(widget):
    widget.measure(16)
    assert widget._series is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_after_an_interrupt_it_measures_again(widget, monkeypatch, error):
    timed, passes = cache_growth._timed, []

    def interrupted(*args, **kwargs):
        passes.append(args)
        if len(passes) == 6:
            raise error
        return timed(*args, **kwargs)

    monkeypatch.setattr(cache_growth, "_timed", interrupted)
    with pytest.raises(error):
        widget.measure(64)
    assert [one.positions for one in widget.measured] == [8]  # whole measurements stay, half ones do not
    assert widget.answer({"next": True}) == {"left": 0}
    widget.measure(64)
    assert [one.positions for one in widget.measured] == [8, 16, 32, 48, 64]


def test_the_model_stays_as_it_was(gpt2):
    model = tiny_gpt2(64)
    before = model.config.to_dict(), {name: value.clone() for name, value in model.state_dict().items()}
    CacheGrowth(model, gpt2).measure()
    assert model.config.to_dict() == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_lengths_end_at_the_models_positions(gpt2):
    assert CacheGrowth(tiny_gpt2(16), gpt2).shown["choices"] == [16]
    shown = CacheGrowth(tiny_gpt2(300), gpt2).shown
    assert (shown["choices"], shown["most"], shown["limit"]) == ([64, 128, 256], 256, 300)
    widget = CacheGrowth(tiny_gpt2(16), gpt2)
    widget.measure()
    before = widget.shown
    for most in (17, 1, 0, -5, 8.0, True, "8"):
        with pytest.raises(CourseError, match="Give a whole number from 2 to 16, the model's positions"):
            widget.measure(most)
    assert widget.shown == before
    widget.measure(2)
    assert [one.positions for one in widget.measured] == [2]


def test_a_model_without_a_last_position_is_measured_as_far_as_asked(gpt2):
    model = BloomForCausalLM(BloomConfig(vocab_size=50257, hidden_size=32, n_layer=1, n_head=4)).eval()
    widget = CacheGrowth(model, gpt2)
    assert widget.shown["limit"] is None
    with pytest.raises(CourseError, match="Give a whole number of 2 or more"):
        widget.measure(1)


def test_the_text_is_repeated(gpt2, clock):
    CacheGrowth(tiny_gpt2(64), gpt2, "one two three").measure(8)
    one, two, three = gpt2("one two three").input_ids
    assert clock.ids[-1] == [one, two, three, one, two, three, one, two]
    assert clock.ids[-2] == [two]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The text is empty"),
        (7, "The text is of type int, not text"),
        ("a\ud83d", "Character 2 of the text is U"),
    ],
)
def test_a_bad_text_is_one_sentence(gpt2, text, sentence):
    with pytest.raises(CourseError, match=sentence):
        CacheGrowth(tiny_gpt2(), gpt2, text)


def test_a_model_without_a_cache_is_one_sentence(gpt2):
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=10, d_model=8, d_ff=8, num_layers=1, num_heads=1))
    with pytest.raises(CourseError, match="encoder-decoder model, and CacheGrowth times a decoder"):
        CacheGrowth(t5, gpt2)
    models = [
        OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=50257, n_embd=8, n_layer=1, n_head=1)),
        RecurrentGemmaForCausalLM(
            RecurrentGemmaConfig(
                vocab_size=50257, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, lru_width=32
            )
        ),
        RwkvForCausalLM(RwkvConfig(vocab_size=50257, hidden_size=32, num_hidden_layers=2)),
        MambaForCausalLM(MambaConfig(vocab_size=50257, hidden_size=32, num_hidden_layers=1)),
    ]
    for model in models:
        with pytest.raises(CourseError, match=f"{type(model).__name__} returns no keys and values"):
            CacheGrowth(model.eval(), gpt2)


def test_a_model_without_a_head_is_one_sentence(gpt2):
    with pytest.raises(CourseError, match="A GPT2Model has no head that scores the next token"):
        CacheGrowth(tiny_gpt2().transformer, gpt2)


def test_the_summary_names_no_time_before_one_was_measured(widget, clock):
    assert repr(widget) == (
        "KV cache, as the configuration predicts it: 2 (keys and values) × 1 layers × 2 heads × 8 numbers "
        "× 4 bytes = 128 bytes a position\nNot measured yet: run the cell and press Measure."
    )
    assert "<table" not in widget.still()
    widget.measure()
    assert repr(widget).splitlines()[-1] == (
        "   64 positions: 1.0 ms with the cache, 64.0 ms without; 8,192 bytes kept, 8,192 predicted"
    )
    assert widget.still().count("<tr>") == 6


def test_an_output_stays_small(widget):
    widget.measure()
    assert len(widget.page().encode()) < 25_000
