"""inputs.limits: how long a text a model takes, and what is inside of a wrapper.

Each limit is held to the model itself: a text of so many tokens goes through, and one more does not.
"""

import pytest
import torch
import transformers

from course_utils import CourseError, decode_steps, load_tokenizer
from course_utils.inputs.limits import encoder_limit, position_limit, trained_positions, unwrapped
from course_utils.scores import perplexity
from course_utils.training import sample, trained_parts
from course_utils.widgets import BeamTree, CacheGrowth, MaskView, NextToken, PaddingGrid, ScoredText, Stepper
from tiny import tiny_gpt2

POSITIONS = 16
SMALL = {"vocab_size": 60, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 1}
BERT_LIKE = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": POSITIONS,
}  # fmt: skip
GPT_LIKE = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": POSITIONS}
BART_LIKE = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
    "decoder_start_token_id": 2,
}  # fmt: skip
PROPHET = {
    "hidden_size": 16, "num_encoder_layers": 1, "num_decoder_layers": 1, "num_encoder_attention_heads": 2,
    "num_decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
    "decoder_start_token_id": 2, "max_position_embeddings": POSITIONS, "pad_token_id": 0,
}  # fmt: skip
LLAMA_LIKE = BERT_LIKE | {"num_key_value_heads": 1}
# Class, its configuration, how many tokens one forward pass takes, and how many generate() can make.
DECODERS = [
    ("GPT2LMHeadModel", GPT_LIKE, 16, 16),
    ("GPTJForCausalLM", GPT_LIKE | {"rotary_dim": 4}, 16, 16),
    ("CodeGenForCausalLM", GPT_LIKE | {"n_head": 4, "rotary_dim": 4}, 16, 16),
    ("CTRLLMHeadModel", GPT_LIKE | {"dff": 16}, 16, 16),
    ("MptForCausalLM", {"d_model": 16, "n_layers": 1, "n_heads": 2, "max_seq_len": POSITIONS}, 16, 16),
    ("OPTForCausalLM", BERT_LIKE | {"ffn_dim": 16, "word_embed_proj_dim": 16}, 16, 16),
    ("BioGptForCausalLM", BERT_LIKE, 16, 16),
    ("BertLMHeadModel", BERT_LIKE | {"is_decoder": True}, 16, 16),
    ("RobertaForCausalLM", BERT_LIKE | {"is_decoder": True}, 14, 16),  # numbers of its own begin at 2
    ("WhisperForCausalLM", BART_LIKE | {"max_target_positions": POSITIONS}, 16, 16),
    ("ProphetNetForCausalLM", PROPHET, 14, 14),  # begins at 1, and looks one position ahead
    ("XLMWithLMHeadModel", {"emb_dim": 16, "n_layers": 1, "n_heads": 2, "max_position_embeddings": POSITIONS}
     | {"mask_token_id": 5, "lang_id": 0, "n_langs": 1}, 16, 15),  # appends a mask token
]  # fmt: skip
ENDLESS = [
    ("LlamaForCausalLM", LLAMA_LIKE),
    ("GPTNeoXForCausalLM", BERT_LIKE),
    ("BloomForCausalLM", {"hidden_size": 16, "n_layer": 1, "n_head": 2}),
    ("FalconForCausalLM", BERT_LIKE | {"alibi": True}),
    ("XGLMForCausalLM", {"d_model": 16, "ffn_dim": 16, "num_layers": 1, "attention_heads": 2}
     | {"max_position_embeddings": POSITIONS}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def quiet():
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(level)


@pytest.fixture(scope="module")
def gpt2():
    tokenizer = load_tokenizer("gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def built(name, settings, config=None):
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    return kind(kind.config_class(**SMALL | settings)).eval()


def ids(count):
    return torch.arange(count)[None] % 40 + 10


def runs(call):
    try:
        with torch.no_grad():
            call()
    except (IndexError, RuntimeError):
        return False
    return True


def test_a_forward_pass_takes_as_many_tokens_as_the_limit_and_not_one_more():
    for name, settings, limit, _ in DECODERS:
        model = built(name, settings)
        assert position_limit(model) == limit, name
        assert runs(lambda: model(input_ids=ids(limit))), name  # noqa: B023
        assert not runs(lambda: model(input_ids=ids(limit + 1))), name  # noqa: B023


def test_what_fits_is_stepped_through_and_one_token_more_is_refused_before_any_step():
    for name, settings, _, limit in DECODERS:
        model, inputs = built(name, settings), {"input_ids": ids(8)}
        fit = limit - 8 + 1  # the last new token needs no position
        with pytest.raises(CourseError, match=f"{limit} positions, so {fit} fit: type max_new_tokens={fit}"):
            decode_steps(model, inputs, max_new_tokens=fit + 1)
        kwargs = {"max_new_tokens": fit, "eos_token_id": None, "use_cache": name != "XLMWithLMHeadModel"}
        list(decoding := decode_steps(model, inputs, **kwargs))
        assert torch.equal(decoding.sequences, model.generate(**inputs, **kwargs)), name
        assert decoding.steps_taken == fit
        kwargs["max_new_tokens"] += 1
        assert not runs(lambda: model.generate(**inputs, **kwargs)), name  # noqa: B023


def test_positions_that_are_computed_have_no_limit():
    for name, settings in ENDLESS:
        model = built(name, settings)
        assert position_limit(model) is None and position_limit(model, generating=True) is None, name
        list(decoding := decode_steps(model, {"input_ids": ids(8)}, max_new_tokens=12, eos_token_id=None))
        assert decoding.sequences.shape == (1, 20), name
    assert trained_positions(built(*ENDLESS[0])) == POSITIONS
    assert trained_positions(built(*ENDLESS[2])) is None


def test_a_prompt_of_embeddings_takes_positions_too():
    for name in ("GPT2LMHeadModel", "MptForCausalLM"):
        (settings,) = (settings for kind, settings, *_ in DECODERS if kind == name)
        model = built(name, settings)
        embeds = model.get_input_embeddings()(ids(8)).detach()
        with pytest.raises(CourseError, match="so 9 fit"):
            decode_steps(model, {"inputs_embeds": embeds}, max_new_tokens=10)


def pair(encoder_positions, decoder, **settings):
    """An encoder-decoder made of a BERT and of `decoder`."""
    bert = transformers.BertConfig(**SMALL | BERT_LIKE | {"max_position_embeddings": encoder_positions})
    kind = getattr(transformers, decoder)
    both = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        bert, kind.config_class(**SMALL | settings)
    )
    return started(transformers.EncoderDecoderModel(both))


def captioner():
    """A vision encoder with TrOCR's decoder: only its configuration has a number of text positions."""
    sight = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
    both = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**sight, image_size=8, patch_size=4),
        transformers.TrOCRConfig(**SMALL | text, max_position_embeddings=POSITIONS),
    )
    return started(transformers.VisionEncoderDecoderModel(both))


def started(model):
    model.generation_config.decoder_start_token_id, model.generation_config.pad_token_id = 2, 1
    return model.eval()


def test_a_decoder_inside_of_an_encoder_decoder_has_a_limit():
    speech = BART_LIKE | {"conv_channels": 8, "input_feat_per_channel": 8, "max_target_positions": POSITIONS}
    cases = [
        (pair(24, "BertLMHeadModel", **BERT_LIKE), {"input_ids": ids(8)}, 24),
        (captioner(), {"pixel_values": torch.rand(1, 3, 8, 8)}, None),
        (
            built("Speech2TextForConditionalGeneration", speech),
            {"input_features": torch.rand(1, 20, 8)},
            None,
        ),
        (built("MBartForConditionalGeneration", BART_LIKE | {"max_position_embeddings": 16}), None, 16),
    ]
    for model, inputs, of_encoder in cases:
        name, inputs = type(model).__name__, inputs or {"input_ids": ids(8)}
        assert (position_limit(model, generating=True), encoder_limit(model)) == (16, of_encoder), name
        with pytest.raises(CourseError, match="so 16 fit"):
            decode_steps(model, inputs, max_new_tokens=17)
        # The padding token takes no position of Speech2Text's.
        kwargs = {"eos_token_id": None, "suppress_tokens": [1]}
        list(decoding := decode_steps(model, inputs, max_new_tokens=16, **kwargs))
        assert torch.equal(decoding.sequences, model.generate(**inputs, max_new_tokens=16, **kwargs)), name
        assert not runs(lambda: model.generate(**inputs, max_new_tokens=17, **kwargs)), name  # noqa: B023
    with pytest.raises(CourseError, match=r"encoder has 24 positions\. Shorten the prompt by 1 tokens"):
        decode_steps(cases[0][0], {"input_ids": ids(25)}, max_new_tokens=2)


def test_an_encoder_that_goes_on_past_its_table_is_given_any_prompt():
    model = built("ProphetNetForConditionalGeneration", PROPHET)
    assert encoder_limit(model) is None
    assert next(decode_steps(model, {"input_ids": ids(40)}, max_new_tokens=2)).index == 0
    assert encoder_limit(built("T5ForConditionalGeneration", {"d_model": 8, "num_layers": 1})) is None


def gemma3():
    text = LLAMA_LIKE | {"vocab_size": 50257, "head_dim": 8, "max_position_embeddings": 8}
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text, vision_config=sight | {"image_size": 8, "patch_size": 4}, mm_tokens_per_image=4
    )
    return transformers.Gemma3ForConditionalGeneration(config).eval()


def test_images_have_positions_of_their_own(gpt2):
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    git = built(
        "GitForCausalLM", BERT_LIKE | {"vision_config": sight | {"image_size": 8, "patch_size": 4}}
    )  # five positions of an image
    assert position_limit(git) == POSITIONS
    model = gemma3()
    assert (position_limit(model), trained_positions(model)) == (None, 8)
    assert len(ScoredText(model, gpt2, "one two three four five six seven eight nine").surprises) == 9


def rotary():
    return built("LlamaForCausalLM", LLAMA_LIKE | {"vocab_size": 50257, "max_position_embeddings": 8})


LONG = "one two three four five six seven eight nine ten"


def test_views_and_scores_end_where_a_table_ends_and_nowhere_else(gpt2):
    views = [
        ("11 tokens, and the model has 8 positions", lambda m, text: NextToken(m, gpt2, text + " a")),
        ("10 tokens, and the model has 8 positions", lambda m, text: ScoredText(m, gpt2, text)),
        ("10 tokens; with 5 new ones it takes 14", lambda m, text: BeamTree(m, gpt2, text)),
        ("10 tokens, and this model has 8", lambda m, text: Stepper(m, gpt2, text, max_new_tokens=1)),
        ("Sentence 1 has 10 tokens, and the model has 8", lambda m, text: MaskView(m, gpt2, [text])),
        ("Sentence 1 has 10 tokens, and the model", lambda m, text: PaddingGrid({"m": (m, gpt2)}, [text])),
        ("Row 0 has 10 tokens", lambda m, text: perplexity(m, gpt2(text, return_tensors="pt").input_ids)),
        ("10 tokens, and 5 new ones make 15", lambda m, text: sample(m, gpt2, text, samples=2)),
        ("from 2 to 8, the model's positions", lambda m, text: CacheGrowth(m, gpt2).measure(9)),
    ]
    table, endless = tiny_gpt2(positions=8), rotary()
    for sentence, view in views:
        with pytest.raises(CourseError, match=sentence):
            view(table, LONG)
        view(endless, LONG)


def test_a_view_says_what_a_model_without_a_table_was_trained_on(gpt2):
    assert NextToken(rotary(), gpt2, LONG).shown["trained"] == 8
    assert NextToken(tiny_gpt2(positions=16), gpt2, LONG).shown["trained"] is None
    shown = CacheGrowth(rotary(), gpt2).shown
    assert (shown["limit"], shown["trained"], shown["choices"][0]) == (None, 8, 64)


# ---- wrappers ----------------------------------------------------------------------------------------


class Adapted(torch.nn.Module):
    """What PEFT puts around a model: another class, whose forward takes anything and passes it on."""

    def __init__(self, model, learned_prompt=False):
        super().__init__()
        self.inside = model
        self.active_peft_config = type("Config", (), {"is_prompt_learning": learned_prompt})()

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inside"), name)

    def get_base_model(self):
        return self.inside

    def forward(self, *args, **kwargs):
        return self.inside(*args, **kwargs)

    def generate(self, *args, **kwargs):
        return self.inside.generate(*args, **kwargs)


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPPERS = (compiled, Adapted, torch.nn.DataParallel, lambda model: compiled(Adapted(model)))


def test_what_is_inside_of_a_wrapper():
    model = tiny_gpt2()
    assert unwrapped(model) is model
    for wrap in WRAPPERS:
        assert unwrapped(wrap(model)) is model
    linear = torch.nn.Linear(1, 1)
    assert unwrapped(linear) is linear


def test_a_wrapped_model_is_what_is_inside_wherever_a_model_goes(gpt2, capsys):
    model = tiny_gpt2(positions=64)
    tokens = gpt2("My dog is", return_tensors="pt")
    uses = [
        lambda m: list(decode_steps(m, tokens, max_new_tokens=3))[-1].next_tokens.tolist(),
        lambda m: Stepper(m, gpt2, "My dog is", max_new_tokens=2).text,
        lambda m: NextToken(m, gpt2, "My dog is").shown["top"],
        lambda m: BeamTree(m, gpt2, "My dog is").shown,
        lambda m: ScoredText(m, gpt2, "My dog is").surprises,
        lambda m: MaskView(m, gpt2, ["My dog is"]).weights.tolist(),
        lambda m: PaddingGrid({"m": (m, gpt2)}, ["My dog is", "a"]).distances,
        lambda m: CacheGrowth(m, gpt2).shown,
        lambda m: perplexity(m, tokens.input_ids),
        lambda m: position_limit(m),
        lambda m: trained_parts(m),
    ]
    for number, use in enumerate(uses):
        expected = use(model)
        for wrap in WRAPPERS:
            assert use(wrap(model)) == expected, number


def test_a_wrapped_model_without_generate_is_named():
    with pytest.raises(CourseError, match="A GPT2Model has no generate"):
        decode_steps(compiled(tiny_gpt2().transformer), {"input_ids": ids(3)})


def test_a_learned_prompt_is_refused_where_it_would_be_left_out(gpt2):
    model = Adapted(tiny_gpt2(positions=64), learned_prompt=True)
    assert unwrapped(model) is model
    for use in (
        lambda: decode_steps(model, {"input_ids": ids(3)}, max_new_tokens=2),
        lambda: CacheGrowth(model, gpt2),
        lambda: PaddingGrid({"m": (model, gpt2)}, ["a"]),
        lambda: MaskView(model, gpt2, ["a"]),
        lambda: ScoredText(compiled(model), gpt2, "My dog is"),
        lambda: perplexity(model, ids(3)),
        lambda: trained_parts(model),
    ):
        with pytest.raises(CourseError, match="This Adapted puts a learned prompt before every text"):
            use()
    assert unwrapped(compiled(model)) is model
    assert NextToken(model, gpt2, "My dog is").shown["vocabulary"] == 50257
