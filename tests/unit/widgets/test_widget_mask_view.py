import re
import threading

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from course_utils import CourseError, load, load_tokenizer
from course_utils.masks import additive_mask, joined_mask, pad_sentences, position_ids
from course_utils.widgets import MaskView
from course_utils.widgets.mask_view import attention_scores, outcome
from tiny import tiny_gpt2

SENTENCES = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def model():
    return load("tiny-gpt2", "cpu")[0]


@pytest.fixture
def view(model, gpt2):
    return MaskView(model, gpt2, SENTENCES)


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama", "smollm2-135m"])
def test_scores_and_mask_give_the_librarys_weights(name):
    model, tokenizer = load(name, "cpu")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    batch = pad_sentences(tokenizer, SENTENCES)
    mask = batch["attention_mask"]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        given = {**batch, "position_ids": position_ids(mask), "output_attentions": True}
        attentions = model(**given).attentions
    for layer in {0, 1, len(attentions) - 1}:
        scores = attention_scores(model, batch, layer)
        assert scores.dtype == torch.float32
        ours = (scores + additive_mask(joined_mask(mask))).softmax(-1)
        torch.testing.assert_close(ours, attentions[layer], atol=1e-5, rtol=0)


def test_a_model_that_runs_elsewhere_meanwhile_is_not_read(model, gpt2):
    batch = pad_sentences(gpt2, SENTENCES)
    expected = attention_scores(model, batch, 2)
    here = threading.get_ident()

    def run_elsewhere(module, args):
        if threading.get_ident() == here:
            other = threading.Thread(target=model, args=(torch.zeros(1, 4, dtype=torch.long),))
            other.start()
            other.join()

    hook = model.transformer.h[1].register_forward_pre_hook(run_elsewhere)
    found = attention_scores(model, batch, 2)
    hook.remove()
    assert torch.equal(found, expected)
    assert not model.transformer.h[2].attn._forward_pre_hooks


def test_the_default_view_begins_at_a_query_that_may_look_nowhere(view):
    assert (view.row, view.query, view.key) == (0, 0, 0)
    assert view.shown["tokens"][0] == ["It", "·will", "·rain", "·in", "·the"]
    assert torch.equal(view.weights[0], torch.full((8,), 0.125))
    assert "Masked everywhere: 0 (uniform), 1 (uniform), 2 (uniform)." in repr(view)
    view.sentences = ["I want to eat a big bowl of", "My dog is"]
    assert (view.row, view.query, view.key) == (1, 0, 0)  # the first row that is padded


def test_weights_of_every_setting(view, model, gpt2):
    batch = pad_sentences(gpt2, SENTENCES)
    scores = attention_scores(model, batch, 0)[:, 0]
    for masks, allowed in (
        ("both", joined_mask(batch["attention_mask"])),
        ("causal", joined_mask(torch.ones_like(batch["attention_mask"]))),
        ("padding", joined_mask(batch["attention_mask"], causal=False)),
    ):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for fill in ("-inf", "finfo.min", "-1e4"):
                for row in range(3):
                    view.masks, view.fill, view.row = masks, fill, row
                    view.dtype = str(dtype).removeprefix("torch.")
                    expected = scores[row].to(dtype) + additive_mask(allowed[row, 0], dtype, fill)
                    torch.testing.assert_close(
                        view.weights, expected.softmax(-1), rtol=0, atol=0, equal_nan=True
                    )
                    assert view.weights.isnan().any() == (masks == "both" and fill == "-inf" and row != 1)


@pytest.mark.parametrize(
    ("dtype", "fill", "expected"),
    [
        *[(dtype, -torch.inf, "NaN") for dtype in (torch.float32, torch.bfloat16, torch.float16)],
        (torch.float32, torch.finfo(torch.float32).min, "uniform"),
        (torch.bfloat16, torch.finfo(torch.bfloat16).min, "uniform"),
        (torch.float16, torch.finfo(torch.float16).min, "rounding"),
        (torch.float32, -1e4, "as if unmasked"),
        (torch.bfloat16, -1e4, "rounding"),
        (torch.float16, -1e4, "rounding"),
    ],
)
def test_outcomes_of_a_row_that_is_masked_everywhere(dtype, fill, expected):
    scores = torch.tensor([3.0, -20.0, 5.0, -40.0], dtype=dtype)
    weights = (scores + torch.full((4,), fill, dtype=dtype)).softmax(-1)
    assert outcome(scores, weights) == expected


def test_nan_is_never_printed_as_a_number(view):
    view.fill = "-inf"
    for text in (repr(view), view.still()):
        assert text.count("NaN") == 3 * 8 + 3  # three queries, and what is said of each
        assert "nan" not in text
        assert not re.search(r"\d\.\d{3}", text)
    assert "Masked everywhere: 0 (NaN), 1 (NaN), 2 (NaN)." in repr(view)
    view.masks = "padding"
    assert "NaN" not in repr(view)
    assert "Masked everywhere: no query." in repr(view)


def test_layer_and_head(view, model, gpt2):
    first = view.shown["scores"]
    view.layer, view.head = 3, 2
    assert (view.layer, view.head, view.sentences) == (3, 2, SENTENCES)
    assert view.shown["scores"] != first
    assert MaskView(model, gpt2, SENTENCES, layer=3, head=2).shown["scores"] == view.shown["scores"]
    view.answer({"sentences": ["My dog"], "layer": 1, "head": 0})
    assert (view.layer, view.head, view.sentences) == (1, 0, ["My dog"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": 4}, "There is no layer 4: this model has 4 layers. Give 0 to 3."),
        ({"layer": -1}, "There is no layer -1"),
        ({"layer": 1.5}, "There is no layer 1.5"),
        ({"head": 4}, "There is no head 4: this model has 4 heads. Give 0 to 3."),
        ({"masks": "diagonal"}, "masks is 'diagonal'. Give 'both' or 'causal' or 'padding'."),
        ({"fill": "-1e9"}, "fill is '-1e9'. Give 'finfo.min' or '-inf' or '-1e4'."),
        ({"dtype": "float64"}, "dtype is 'float64'. Give 'float32' or 'bfloat16' or 'float16'."),
        ({"row": 3}, "row is 3, and there are 3. Give 0 to 2."),
        ({"query": 8}, "query is 8, and there are 8. Give 0 to 7."),
        ({"key": -1}, "key is -1, and there are 8. Give 0 to 7."),
    ],
)
def test_settings_outside_of_what_there_is(view, change, message):
    ((name, value),) = change.items()
    before = repr(view)
    with pytest.raises(CourseError, match=re.escape(message)):
        setattr(view, name, value)
    assert repr(view) == before


def test_a_torch_dtype_is_taken_too(model, gpt2):
    assert MaskView(model, gpt2, SENTENCES, dtype=torch.float16).dtype == "float16"


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([], "The batch is empty"),
        (["My dog", ""], "Sentence 2 is empty"),
        (["\udc80"], "Character 1 of sentence 1 is U.DC80, half of a surrogate pair"),
        (["word"] * 7, "These are 7 sentences"),
        (["word " * 30], "Sentence 1 has 31 tokens, and this view shows at most 16"),
    ],
)
def test_bad_sentences_are_refused_and_nothing_is_lost(view, model, gpt2, sentences, message):
    shown = view.shown
    with pytest.raises(CourseError, match=message):
        view.sentences = sentences
    with pytest.raises(CourseError, match=message):
        MaskView(model, gpt2, sentences)
    assert view.shown is shown
    assert view.weights.shape == (8, 8)


def test_a_sentence_beyond_the_models_positions(gpt2):
    with pytest.raises(CourseError, match="Sentence 1 has 9 tokens, and the model has 8 positions"):
        MaskView(tiny_gpt2(positions=8), gpt2, ["a b c d e f g h i"])


def test_models_that_do_not_fit(model, gpt2):
    with pytest.raises(CourseError, match="no pad token"):
        MaskView(model, load_tokenizer("gpt2"), SENTENCES)
    bloom = BloomForCausalLM(BloomConfig(vocab_size=50257, hidden_size=8, n_layer=1, n_head=1))
    with pytest.raises(CourseError, match="and BloomForCausalLM has neither"):
        MaskView(bloom, gpt2, SENTENCES)
    small = {"vocab_size": 50257, "hidden_size": 8, "num_hidden_layers": 1}
    for other in (MambaForCausalLM(MambaConfig(**small)), multimodal("Gemma3Text")):
        with pytest.raises(CourseError, match=f"and {type(other).__name__} has neither"):
            MaskView(other, gpt2, SENTENCES)
    config = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=50257)
    with pytest.raises(CourseError, match="encoder-decoder"):
        MaskView(T5ForConditionalGeneration(config), gpt2, SENTENCES)
    broken = tiny_gpt2()
    broken.transformer.h[0].attn.c_attn.weight.data[0] = float("nan")
    with pytest.raises(CourseError, match="NaN or infinity before any mask"):
        MaskView(broken, gpt2, SENTENCES)


def multimodal(text):
    """A model of images and text, whose text part has the architecture `text`."""
    numbers = {
        "vocab_size": 50257, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    sight = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sight |= {"image_size": 16, "patch_size": 4}
    torch.manual_seed(0)
    if text == "Gemma3Text":
        config = Gemma3Config(text_config=numbers, vision_config=sight, mm_tokens_per_image=4)
        return Gemma3ForConditionalGeneration(config).eval()
    seen = CLIPVisionConfig(**sight, projection_dim=32)
    config = LlavaConfig(text_config=LlamaConfig(**numbers), vision_config=seen, image_token_index=9)
    return LlavaForConditionalGeneration(config).eval()


def test_a_multimodal_model_of_llamas_architecture_is_read_by_its_text(gpt2):
    view = MaskView(multimodal("Llama"), gpt2, SENTENCES, layer=1, head=3)
    assert (view.shown["layers"], view.shown["heads"]) == (2, 4)
    assert view.weights.shape == (8, 8)
    with pytest.raises(CourseError, match="There is no head 4: this model has 4 heads"):
        view.head = 4


def test_text_and_html_are_plain(model, gpt2):
    view = MaskView(model, gpt2, ["<img src=x onerror=alert(1)>", "\u202eשלום"])
    assert "\u202e" not in repr(view) + view.still()
    assert "<img" not in view.still()
    assert "</script" not in view._esm
    assert "import " not in view._esm


def test_an_output_stays_small(view, model, gpt2):
    assert len(view.page().encode()) < 50_000
    longest = MaskView(model, gpt2, ["word " * 15] * 6)
    assert len(longest.page().encode()) < 50_000
