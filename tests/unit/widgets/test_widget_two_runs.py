"""Two greedy runs beside each other: the ids are generate()'s, the gaps the logits'."""

import pytest
import torch

from course_utils import CourseError, load, load_tokenizer
from course_utils.widgets import TwoRuns
from course_utils.widgets.two_runs import RUNS


@pytest.fixture(scope="module")
def llama():
    return load("tiny-llama", "cpu")[0]


@pytest.fixture
def widget(llama):
    return TwoRuns(llama, load_tokenizer("gpt2"), "My dog is", right="without a cache", new_tokens=6)


def ids(widget, run):
    return [token["id"] for token in widget.shown["runs"][run]["tokens"]]


def test_each_run_is_generates(widget, llama):
    inputs = load_tokenizer("gpt2")("My dog is", return_tensors="pt")
    asked = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    out = llama.generate(**inputs, **asked, return_dict_in_generate=True, output_logits=True)
    best = torch.stack(out.logits)[:, 0].topk(2).values
    gaps = [token["gap"] for token in widget.shown["runs"][0]["tokens"]]
    torch.testing.assert_close(torch.tensor(gaps), best[:, 0] - best[:, 1], atol=1e-3, rtol=0)
    for name, (rough, cache, _) in RUNS.items():
        widget.right = name
        if not rough:
            assert ids(widget, 1) == out.sequences[0, 3:].tolist() and widget.parted is None
            assert "All 6 tokens are equal" in widget.summary()
        else:
            model = widget._rough
            alone = model.generate(**inputs, **asked, use_cache=cache)
            assert model.dtype == torch.bfloat16
            if "batch" not in name:
                assert ids(widget, 1) == alone[0, 3:].tolist()
    assert llama.dtype == torch.float32


def test_the_first_difference_is_said(llama, monkeypatch):
    import course_utils.widgets.two_runs as module

    runs = iter([([5, 6, 7], [1.0, 0.25, 2.0]), ([5, 8, 7], [1.0, 0.5, 2.0])])
    monkeypatch.setattr(module, "greedy_run", lambda *args, **kwargs: next(runs))
    widget = TwoRuns(llama, load_tokenizer("gpt2"), "My dog is", new_tokens=3)
    assert widget.parted == 1
    assert "They part at token 2, where the gap of the first run is 0.25" in widget.summary()
    assert widget.still().count("differs") == 1


def test_what_is_refused_leaves_what_is_shown(widget, llama):
    before = widget.shown
    for prompt, sentence in (
        ("", "prompt is empty"),
        ("word " * 80, "this view takes at most 64"),
        (7, "of type int, not text"),
    ):
        with pytest.raises(CourseError, match=sentence):
            widget.prompt = prompt
        assert widget.shown == before
    with pytest.raises(CourseError, match="There is no run 'float8'"):
        widget.left = "float8"
    with pytest.raises(CourseError, match="new_tokens is 0"):
        TwoRuns(llama, load_tokenizer("gpt2"), "My dog is", new_tokens=0)
