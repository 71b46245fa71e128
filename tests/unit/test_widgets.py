import os
import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from course_utils import CourseError, load_tokenizer
from course_utils.texts import varied_texts
from course_utils.tokens import BytePairEncoder
from course_utils.widgets import NextToken, Predict, Quiz, TokenChips
from course_utils.widgets.next_token import token_label
from course_utils.widgets.token_chips import merges_of_tokens
from tiny import tiny_gpt2


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2")


@pytest.fixture
def next_token(gpt2):
    return NextToken(tiny_gpt2(), gpt2, "Hello world")


def column(widget, name, dtype):
    return torch.frombuffer(bytearray(widget.shown[name]), dtype=dtype)


@pytest.mark.parametrize("widget", [NextToken, TokenChips, Quiz, Predict])
def test_modules_fit_into_a_script_element(widget):
    assert "function render(" in widget._esm
    assert "export default { render }" in widget._esm
    assert "import " not in widget._esm
    assert "</script" not in widget._esm
    assert "<!--" not in widget._esm


def test_next_token_holds_the_whole_distribution(next_token):
    with torch.no_grad():
        logits = tiny_gpt2()(torch.tensor([[15496, 995]])).logits[0, -1]
    ids = column(next_token, "ids", torch.int32).long()
    shown = column(next_token, "logits", torch.float32)
    assert ids.unique().numel() == 50257
    torch.testing.assert_close(shown, logits[ids])
    assert torch.equal(shown, shown.sort(descending=True).values)
    assert next_token.shown["positions"] == [2, 16]
    assert next_token.shown["vocabulary"] == 50257


def test_next_token_goes_on(next_token, gpt2):
    assert next_token.answer({"prompt": "Hello", "chosen": [995, 0]}) is None
    assert next_token.prompt == "Hello"
    assert next_token.chosen == (995, 0)
    assert next_token.text == "Hello world!"
    assert next_token.shown["positions"] == [3, 16]
    fresh = NextToken(tiny_gpt2(), gpt2, "Hello world!")
    assert fresh.shown["logits"] == next_token.shown["logits"]
    next_token.prompt = "My dog"
    assert next_token.text == "My dog"


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("", "prompt is empty"),
        ("word " * 20, "21 tokens long, and the model has 16 positions. Take at least 5 tokens away"),
        ("x\udc80", r"Character 2 of the prompt is U\+DC80, half of a surrogate pair"),
    ],
    ids=["empty", "too long", "half a surrogate pair"],
)
def test_next_token_refuses_a_bad_prompt(next_token, gpt2, prompt, sentence):
    with pytest.raises(CourseError, match=sentence):
        NextToken(tiny_gpt2(), gpt2, prompt)
    with pytest.raises(CourseError, match=sentence):
        next_token.prompt = prompt
    assert next_token.prompt == "Hello world"


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.0), ("temperature", 3.1), ("temperature", float("nan")), ("top_k", -1), ("top_k", 201),
     ("top_p", 1.1), ("min_p", -0.1)],
)  # fmt: skip
def test_next_token_refuses_a_setting_outside_its_slider(next_token, gpt2, name, value):
    with pytest.raises(CourseError, match=f"{name} is {value}, but the slider goes from"):
        setattr(next_token, name, value)
    with pytest.raises(CourseError):
        NextToken(tiny_gpt2(), gpt2, "Hello", **{name: value})


def test_next_token_refuses_other_models_and_broken_ones(gpt2):
    config = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=50257)
    with pytest.raises(CourseError, match="encoder-decoder"):
        NextToken(T5ForConditionalGeneration(config), gpt2, "Hello")
    broken = tiny_gpt2()
    broken.transformer.ln_f.weight.data[0] = float("nan")
    with pytest.raises(CourseError, match="NaN or infinity"):
        NextToken(broken, gpt2, "Hello")


def test_saved_state_counts_every_token(next_token):
    saved = next_token.page_state()["shown"]
    counts = torch.frombuffer(bytearray(saved["counts"]), dtype=torch.float32)
    assert counts.sum() == 50257
    assert "ids" not in saved
    assert next_token.page_state()["live"] is False


def test_token_labels(gpt2):
    assert token_label(gpt2, 995) == "·world"
    assert token_label(gpt2, 198) == "⏎"
    assert token_label(gpt2, 50256) == "<|endoftext|>"
    assert token_label(gpt2, 50300) == "#50300"
    assert token_label(gpt2, gpt2("🦄").input_ids[0]) == "\\xf0\\x9f"


def test_token_labels_of_a_sentencepiece_tokenizer():
    model = models.Unigram([("▁world", -1.0), ("é", -2.0), ("<unk>", -9.0)], unk_id=2)
    backend = Tokenizer(model)
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert [token_label(tokenizer, i) for i in (0, 1)] == ["·world", "é"]


def test_chips_have_the_librarys_ids(gpt2):
    text = "It's naïve: <|endoftext|> 3.14 🦄\n"
    chips = TokenChips(text, {"GPT-2": gpt2})
    assert chips.ids == {"GPT-2": gpt2(text).input_ids}
    assert chips.shown["characters"] == len(text)
    assert chips.shown["bytes"] == len(text.encode())
    tokens = chips.shown["tokenizers"][0]["tokens"]
    assert "".join(token["bytes"].replace(" ", "") for token in tokens) == text.encode().hex().upper()
    assert [token["symbol"] for token in tokens if token["special"]] == ["<|endoftext|>"]


def test_merges_make_their_tokens(gpt2):
    encoder = BytePairEncoder.from_tokenizer(gpt2)
    made = 0
    for text in varied_texts(200):
        for piece in encoder.encode_and_show_work(text):
            for token, merges in zip(piece.tokens, merges_of_tokens(piece), strict=True):
                # n symbols take n - 1 merges, and the last merge spells the token.
                assert len(merges) == (0 if token.special else len(token.symbol) - 1)
                assert not merges or merges[-1].result == token.symbol
                made += len(merges)
            assert sum(map(len, merges_of_tokens(piece))) == len(piece.merges)
    assert made > 1000


def test_chips_refuse_what_they_cannot_show(gpt2):
    chips = TokenChips("Hello", {"GPT-2": gpt2})
    with pytest.raises(CourseError, match="2,001 characters, and this view shows at most 2,000"):
        chips.text = "a" * 2001
    with pytest.raises(CourseError, match="half of a surrogate pair"):
        chips.text = "\ud83d"
    assert chips.text == "Hello"
    word_level = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    )
    with pytest.raises(CourseError, match="not a byte-level BPE"):
        TokenChips("Hello", {"words": word_level})


def test_empty_text_has_no_chips(gpt2):
    chips = TokenChips("", {"GPT-2": gpt2})
    assert chips.ids == {"GPT-2": []}
    assert "GPT-2, 0 tokens" in repr(chips)


def test_text_and_html_are_plain(next_token, gpt2):
    next_token.prompt = "<b>\u202e"
    for widget in (next_token, TokenChips("<b>\u202e", {"<i>": gpt2})):
        assert "\u202e" not in repr(widget) + widget.still()
        assert "<b>" not in widget.still()
        assert "<i>" not in widget.still()


PRINT = """
from tiny import tiny_gpt2
from course_utils import load_tokenizer
from course_utils.widgets import NextToken, TokenChips
gpt2 = load_tokenizer("gpt2")
for widget in (NextToken(tiny_gpt2(), gpt2, "Hello world"), TokenChips("Hello world", {"GPT-2": gpt2})):
    print(repr(widget), widget._repr_mimebundle_()[0]["text/html"])
"""


def test_two_processes_print_the_same(request):
    folder = str(request.config.rootpath / "tests")
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT],
            env={**os.environ, "PYTHONPATH": folder, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    first, second = (run.communicate()[0].decode() for run in runs)
    assert first == second
    assert "The 10 most likely tokens after 'Hello world'" in first
    assert " 0x" not in first.split("<script")[0]
