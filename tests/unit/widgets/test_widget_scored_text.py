import math
import re

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from course_utils import CourseError, load, load_tokenizer
from course_utils.scores import perplexity, token_log_probs
from course_utils.texts import varied_texts
from course_utils.widgets import ScoredText
from course_utils.widgets.scored_text import three_digits
from tiny import tiny_gpt2

TEXT = "The capital of France is Paris."


@pytest.fixture(scope="module")
def model():
    model = tiny_gpt2()
    model.transformer.wte.weight.data /= 6  # a soft distribution
    return model


@pytest.fixture
def widget(model, gpt2):
    return ScoredText(model, gpt2, TEXT)


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama", "smollm2-135m"])
def test_every_surprise_is_that_of_the_scores(name):
    model, tokenizer = load(name)
    widget = ScoredText(model, tokenizer, TEXT)
    input_ids = tokenizer(TEXT, return_tensors="pt").input_ids
    log_probs, scored = token_log_probs(model, input_ids)
    assert widget.surprises[0] is None
    expected = [-float(one) / math.log(2) for one in log_probs[0, 1:]]
    assert widget.surprises[1:] == pytest.approx(expected, abs=1e-3)
    assert len(widget.surprises) == scored.numel()
    assert widget.perplexity == pytest.approx(perplexity(model, input_ids), rel=1e-3)


def test_runners_up_and_ranks_are_the_models(widget, model, gpt2):
    ids = gpt2(TEXT).input_ids
    with torch.no_grad():
        probs = model(torch.tensor([ids])).logits[0].double().softmax(-1)
    for place, token in enumerate(widget.shown["tokens"][1:], 1):
        before = probs[place - 1]
        assert token["id"] == ids[place]
        values, best = before.topk(5)
        assert [other for other, _ in token["top"]] == best.tolist()
        assert [share for _, share in token["top"]] == pytest.approx(values.tolist(), abs=1e-6)
        assert token["rank"] == before.argsort(descending=True).tolist().index(ids[place]) + 1
        assert 2 ** -token["bits"] == pytest.approx(float(before[ids[place]]), rel=1e-3)
    labels = widget.shown["labels"]
    assert labels[str(ids[1])] == "·capital"
    assert {str(other) for token in widget.shown["tokens"] for other, _ in token["top"]} <= labels.keys()


def test_a_token_that_the_tokenizer_adds_is_first(model):
    plain = load_tokenizer("gpt2")
    with_bos = load_tokenizer("gpt2", add_bos_token=True)
    assert with_bos("Hello").input_ids == [50256, 15496]  # or this test would show nothing
    assert not ScoredText(model, plain, "Hello world").shown["added"]
    widget = ScoredText(model, with_bos, "Hello")
    assert widget.shown["added"]
    assert [token["id"] for token in widget.shown["tokens"]] == [50256, 15496]
    assert widget.surprises[1] > 0
    typed = ScoredText(model, plain, "<|endoftext|>Hello")  # the learner's own is part of the text
    assert not typed.shown["added"]
    assert typed.surprises == widget.surprises
    with pytest.raises(CourseError, match="The text is empty"):
        widget.text = ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The text is empty, so there is nothing to score"),
        ("Hello", "The text is one token, “Hello”, and a first token has no probability"),
        (
            "word " * 20,
            "The text has 21 tokens, and the model has 16 positions. Shorten it by 5 or more",
        ),
        ("a\ud83d", "Character 2 of the text is U"),
        (None, "The text is of type NoneType, not text"),
    ],
)
def test_a_bad_text_is_one_sentence_and_changes_nothing(widget, text, sentence):
    before = widget.shown
    with pytest.raises(CourseError, match=sentence):
        widget.text = text
    with pytest.raises(CourseError, match=sentence):
        widget.answer({"text": text})
    assert widget.shown is before


def test_all_positions_and_all_places_can_be_used(model, gpt2):
    assert len(ScoredText(model, gpt2, "word" + " word" * 15).surprises) == 16
    long = tiny_gpt2(300)
    assert len(ScoredText(long, gpt2, "word" + " word" * 127).surprises) == 128
    with pytest.raises(CourseError, match="129 tokens long, and this view shows at most 128"):
        ScoredText(long, gpt2, "word" + " word" * 128)


def test_an_encoder_decoder_is_one_sentence(gpt2):
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=50257, d_model=8, d_ff=8, num_layers=1, num_heads=1))
    with pytest.raises(CourseError, match="is an encoder-decoder model, and a token is scored"):
        ScoredText(t5, gpt2, TEXT)


def changed(model, change):
    """`model` with its logits changed by the function."""

    def hook(module, args, kwargs, output):
        output.logits = change(output.logits.clone())
        return output

    return model.register_forward_hook(hook, with_kwargs=True)


def test_an_impossible_token_is_infinitely_surprising_and_never_nan(gpt2):
    model = tiny_gpt2()
    never = gpt2(" France").input_ids[0]
    changed(model, lambda logits: logits.index_fill(-1, torch.tensor([never]), -math.inf))
    widget = ScoredText(model, gpt2, TEXT)
    assert widget.surprises[3] == widget.perplexity == math.inf
    assert all(0 <= bits < math.inf for place, bits in enumerate(widget.surprises) if place not in (0, 3))
    assert "perplexity ∞" in repr(widget)
    assert not re.search(
        r"NaN|Infinity|nan", widget.page().split("data-course-module")[0] + str(widget.shown)
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_make_no_distribution_are_one_sentence(gpt2, value):
    model = tiny_gpt2()
    changed(model, lambda logits: logits.index_fill(-1, torch.tensor([5]), value))
    with pytest.raises(CourseError, match="hold NaN or infinity"):
        ScoredText(model, gpt2, TEXT)


def test_summary_and_still_say_the_same(widget):
    lines = repr(widget).splitlines()
    assert lines[0] == f"'{TEXT}'"
    mean = sum(widget.surprises[1:]) / 6
    assert lines[1].startswith(f"6 of 7 tokens scored, {mean:.2f} bits a token, perplexity ")
    assert lines[3].split() == ["The", "none", "none"]
    assert lines[4].split() == ["·capital", f"{2 ** -widget.surprises[1]:.2f}", f"{widget.surprises[1]:.1f}"]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", widget.still())
    assert cells == [word for line in lines[3:] for word in line.split()]


def test_three_digits():
    numbers = (1, 1.234, 27.94, 152.6, 20345, 1234567, 1.234e15, math.inf)
    assert [three_digits(number) for number in numbers] == [
        "1", "1.23", "27.9", "153", "20,300", "1,230,000", "1.23e+15", "∞"
    ]  # fmt: skip


def test_an_output_stays_small(widget, gpt2):
    assert len(widget.page().encode()) < 25_000
    longest = ScoredText(tiny_gpt2(300), gpt2, "".join(varied_texts(90))[:288])
    assert len(longest.surprises) > 110
    assert repr(longest).splitlines()[-1].split() == [str(len(longest.surprises) - 40), "more"]
    assert len(longest.page().encode()) < 50_000
