import os
import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from course_utils import CourseError, load_tokenizer
from course_utils.texts import varied_texts
from course_utils.tokens import BytePairEncoder
from course_utils.widgets import NextToken, TokenChips
from course_utils.widgets.next_token import token_label
from course_utils.widgets.token_chips import merges_of_tokens
from tiny import tiny_gpt2


@pytest.fixture
def next_token(gpt2):
    return NextToken(tiny_gpt2(), gpt2, "Hello world")


def column(widget, name, dtype):
    return torch.frombuffer(bytearray(widget.shown[name]), dtype=dtype)


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
        ("word " * 20, "21 tokens, and the model has 16 positions. Shorten it by 5 or more"),
        ("x\udc80", r"Character 2 of the prompt is U\+DC80, half of a surrogate pair"),
        (None, "of type NoneType, not text"),
        (["Hello", "world"], "of type list, not text"),
    ],
    ids=["empty", "too long", "half a surrogate pair", "none", "a list"],
)
def test_next_token_refuses_a_bad_prompt(next_token, gpt2, prompt, sentence):
    with pytest.raises(CourseError, match=sentence):
        NextToken(tiny_gpt2(), gpt2, prompt)
    with pytest.raises(CourseError, match=sentence):
        next_token.prompt = prompt
    assert next_token.prompt == "Hello world"


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.0), ("temperature", -1.0), ("temperature", 3.1), ("temperature", float("nan")),
     ("top_k", -1), ("top_k", 201), ("top_p", 1.1), ("top_p", -0.1), ("min_p", -0.1),
     ("typical_p", 0.0), ("typical_p", 1.1), ("repetition_penalty", 0.0), ("repetition_penalty", -1.0),
     ("repetition_penalty", 3.0)],
)  # fmt: skip
def test_next_token_refuses_a_setting_outside_its_slider(next_token, gpt2, name, value):
    with pytest.raises(CourseError, match=f"{name} is {value}, but the slider goes from"):
        setattr(next_token, name, value)
    with pytest.raises(CourseError):
        NextToken(tiny_gpt2(), gpt2, "Hello", **{name: value})


def test_next_token_refuses_a_setting_that_it_does_not_have(gpt2):
    with pytest.raises(CourseError, match=r"no setting topk\. It has repetition_penalty, temperature, top_k"):
        NextToken(tiny_gpt2(), gpt2, "Hello", topk=3)


def test_next_token_refuses_other_models_and_broken_ones(gpt2):
    config = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=50257)
    with pytest.raises(CourseError, match="encoder-decoder"):
        NextToken(T5ForConditionalGeneration(config), gpt2, "Hello")
    broken = tiny_gpt2()
    broken.transformer.ln_f.weight.data[0] = float("nan")
    with pytest.raises(CourseError, match="NaN or infinity"):
        NextToken(broken, gpt2, "Hello")


def test_next_token_labels_all_that_the_penalty_may_bring_to_the_top(gpt2):
    widget = NextToken(tiny_gpt2(), gpt2, "Hello world Hello there", controls="all")
    order = column(widget, "ids", torch.int32)
    logits = column(widget, "logits", torch.float32)
    ids = torch.tensor(gpt2("Hello world Hello there").input_ids).unique()
    assert sorted(order[column(widget, "seen", torch.int32).long()].tolist()) == ids.tolist()
    labelled = {token["place"]: token for token in widget.shown["top"]}
    assert len(labelled) == 15 + len(ids)
    for place, token in labelled.items():
        assert token["id"] == order[place]
        assert token["text"] == token_label(gpt2, token["id"])
    for penalty in (0.5, 0.9, 1.0, 1.3, 2.0):
        scores = torch.zeros(1, len(logits))
        scores[0, order.long()] = logits
        after = RepetitionPenaltyLogitsProcessor(penalty)(ids[None], scores)[0]
        assert set(after.topk(15).indices.tolist()) <= {token["id"] for token in labelled.values()}


def test_next_token_draws_only_where_it_shows_it(gpt2):
    for controls in ("some", None, True):
        with pytest.raises(CourseError, match='Give "basic" or "all"'):
            NextToken(tiny_gpt2(), gpt2, "Hello", controls=controls)
    for name, value in (("typical_p", 0.9), ("repetition_penalty", 1.2), ("draws", 100)):
        with pytest.raises(CourseError, match=f'{name} is {value}, but .* with controls="all"'):
            NextToken(tiny_gpt2(), gpt2, "Hello", **{name: value})
        widget = NextToken(tiny_gpt2(), gpt2, "Hello", "all", **{name: value})
        assert getattr(widget, name) == value
    with pytest.raises(CourseError, match=r"draws is 5. Give 0, 1, 100, 1,000 or 10,000"):
        widget.draws = 5
    assert widget.draws == 100


def test_next_token_gives_its_settings_as_generate_takes_them(gpt2):
    model, settings = tiny_gpt2(), {"temperature": 0.7, "top_k": 9, "top_p": 0.8, "min_p": 0.1}
    widget = NextToken(model, gpt2, "Hello world", "all", typical_p=0.9, repetition_penalty=1.2, **settings)
    assert widget.settings == {"do_sample": True, "typical_p": 0.9, "repetition_penalty": 1.2} | settings
    off = NextToken(model, gpt2, "Hello world").settings
    output = model.generate(
        **gpt2("Hello world", return_tensors="pt"),
        **off,
        pad_token_id=50256,
        max_new_tokens=1,
        output_logits=True,
        output_scores=True,
        return_dict_in_generate=True,
    )
    torch.testing.assert_close(
        output.scores[0], output.logits[0]
    )  # nothing is filtered, not even by a default


@pytest.mark.parametrize("controls", ["basic", "all"])
def test_saved_state_counts_every_token(gpt2, controls):
    widget = NextToken(tiny_gpt2(), gpt2, "Hello world", controls)
    saved = widget.page_state()["shown"]
    alone, counts, means = (
        torch.frombuffer(bytearray(saved[name]), dtype=torch.float32)
        for name in ("logits", "counts", "means")
    )
    assert len(alone) + counts.sum() == 50257
    logits = column(widget, "logits", torch.float32)
    torch.testing.assert_close((counts * means).sum() + alone.sum(), logits.sum(), rtol=1e-4, atol=0)
    assert torch.equal(alone[:256], logits[:256])
    for place, token in zip([token["place"] for token in widget.shown["top"]], saved["top"], strict=True):
        assert alone[token["place"]] == logits[place]
    if controls == "all":
        seen = torch.frombuffer(bytearray(saved["seen"]), dtype=torch.int32)
        assert torch.equal(alone[seen], logits[column(widget, "seen", torch.int32).long()])
        assert len(seen) == 2
    assert "ids" not in saved
    assert widget.page_state()["live"] is False


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
    with pytest.raises(CourseError, match="of type NoneType, not text"):
        chips.text = None
    assert chips.text == "Hello"
    with pytest.raises(CourseError, match="of type GPT2Tokenizer, and TokenChips takes them by name"):
        TokenChips("Hello", gpt2)
    word_level = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    )
    with pytest.raises(CourseError, match="not a byte-level BPE"):
        TokenChips("Hello", {"words": word_level})


def test_chips_of_characters_that_the_vocabulary_lacks():
    smollm2 = load_tokenizer("smollm2-135m")
    for text in ("well \x14-- yes", "\x06word", "don\x1d't", "a\U00045678b", "\x04", "\x13\x14"):
        chips = TokenChips(text, {"SmolLM2": smollm2})
        assert chips.ids == {"SmolLM2": smollm2(text).input_ids}, ascii(text)
        (column,) = chips.shown["tokenizers"]
        for token in column["tokens"]:
            assert len(token["merges"]) == len(token["symbol"]) - 1, ascii(text)


LONG = {
    "emoji": "🙂" * 2000,
    "Chinese": "人人生而自由在尊严和权利上一律平等" * 117,
    "English": "All human beings are born free and equal in dignity and rights. " * 31,
    "tags": "<b>" * 666,
    "one line": "-" * 2000,
    "every kind": "".join(varied_texts(60))[:2000],
}


@pytest.mark.parametrize("name", LONG)
def test_chips_of_a_long_text_are_bounded_and_its_ids_are_not(gpt2, name):
    tokenizers = {"GPT-2": gpt2, "SmolLM2": load_tokenizer("smollm2-135m")}
    chips = TokenChips(LONG[name], tokenizers)
    page, saved = chips.page(), chips.page_state()["shown"]["tokenizers"]
    assert len(page.encode()) < 48_000
    assert chips.ids == {key: tokenizer(LONG[name]).input_ids for key, tokenizer in tokenizers.items()}
    for one, kept, ids in zip(chips.shown["tokenizers"], saved, chips.ids.values(), strict=True):
        assert one["count"] == kept["count"] == len(ids)
        assert [token["id"] for token in one["tokens"]] == ids[:512]
        assert kept["tokens"] == one["tokens"][: len(kept["tokens"])]
        assert len(kept["tokens"]) > 2
        if len(ids) > 20:
            assert f"{len(ids) - 20:,} more" in repr(chips)
            assert f"{len(ids) - 20:,} more" in chips.still()
    assert len(repr(chips)) < 4_000


def test_a_saved_page_keeps_all_chips_that_there_is_room_for(gpt2):
    for words in (1, 40, 200):
        chips = TokenChips("rain " * words, {"GPT-2": gpt2})
        (saved,) = chips.page_state()["shown"]["tokenizers"]
        assert len(saved["tokens"]) == saved["count"] or len(chips.page()) > 40_000
    assert TokenChips("rain " * 100, {}).page_state()["shown"]["tokenizers"] == []


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
    folder = str(request.config.rootpath / "tests" / "support")
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
