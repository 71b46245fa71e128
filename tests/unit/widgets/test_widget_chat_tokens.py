"""The chat widget's Python: what it shows, and what it refuses."""

import pytest
import torch

from course_utils import CourseError, load, load_tokenizer
from course_utils.widgets import ChatTokens
from tiny import tiny_gpt2

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def smollm2():
    return load("smollm2-135m", "cpu")


@pytest.fixture
def widget(smollm2):
    model, tokenizer = smollm2
    return ChatTokens(model, {"SmolLM2": tokenizer}, FRANCE)


def test_the_ids_and_what_comes_next_are_the_models(widget, smollm2):
    model, tokenizer = smollm2
    for asked, column in ((False, 1), (True, 2)):
        inputs = tokenizer.apply_chat_template(FRANCE, add_generation_prompt=asked, return_tensors="pt")
        with torch.no_grad():
            probs = model(**inputs).logits[0, -1].softmax(-1)
        shown = {row[0]: row[column] for row in widget.shown["next"]}
        best = probs.argmax()
        assert shown[tokenizer.decode(best)] == pytest.approx(probs[best].item(), abs=1e-3)
        widget.generation_prompt = asked
        assert widget.ids["SmolLM2"] == inputs.input_ids[0].tolist()
    assert "<|im_start|>  1.00  0.00" in widget.summary()


def test_the_page_asks_and_the_traits_follow(widget):
    chat = [*FRANCE, {"role": "assistant", "content": "Paris."}]
    widget.answer({"messages": chat, "generation_prompt": False, "way": "apart"})
    assert (widget.messages, widget.generation_prompt, widget.way) == (chat, False, "apart")
    assert widget.shown["columns"][0]["targets"] == 3
    widget.messages = FRANCE
    assert widget.shown["columns"][0]["targets"] == 0


def test_one_template_may_refuse_what_another_takes(smollm2):
    model, tokenizer = smollm2
    widget = ChatTokens(model, {"SmolLM2": tokenizer, "GPT-2": load_tokenizer("gpt2")}, FRANCE)
    assert "has no chat template" in widget.shown["columns"][1]["wrong"]
    assert "has no chat template" in widget.still() and "has no chat template" in widget.summary()
    with pytest.raises(CourseError, match="has no chat template"):
        ChatTokens(model, {"GPT-2": load_tokenizer("gpt2")}, FRANCE)


def test_what_is_refused_leaves_what_is_shown(widget, smollm2):
    before = widget.shown
    for messages, sentence in (
        ([], "The conversation is empty"),
        (FRANCE * 13, "13 messages, and this view shows at most 12"),
        ([{"role": "user", "content": "word " * 500}], "this view shows at most 400"),
    ):
        with pytest.raises(CourseError, match=sentence):
            widget.messages = messages
        assert widget.shown == before
    with pytest.raises(CourseError, match="takes its tokenizers by name"):
        ChatTokens(smollm2[0], smollm2[1], FRANCE)
    with pytest.raises(CourseError, match=r"and the model has 600 rows, 0 to 599"):
        ChatTokens(tiny_gpt2(positions=99, vocabulary=600), {"SmolLM2": smollm2[1]}, FRANCE)
