"""A learner's loop, run where generate() runs its own, a step at a time."""

import functools
import inspect
import linecache

import pytest
import torch

from course_utils import CourseError, load, load_tokenizer
from course_utils.masks import position_ids
from course_utils.widgets import Stepper
from loops import cached_loop

PROMPTS = ["It will rain in the", "My dog is"]
SAMPLED = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.3, "top_k": 30}


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def model():
    model = load("tiny-gpt2")[0]
    model.generation_config.pad_token_id = 50256
    return model


@pytest.fixture(scope="module")
def ends(model, gpt2):
    """Ids at which the greedy text of row 0 ends early: its second new one."""
    rows = gpt2(PROMPTS, padding=True, padding_side="left", return_tensors="pt").to(model.device)
    free = model.generate(**rows, max_new_tokens=2, eos_token_id=None, pad_token_id=0)
    return {"eos_token_id": [free[0, -1].item()], "pad_token_id": 7}


def whole_loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **inputs):
    """Without a cache, the positions made anew at each step."""
    mask = inputs["attention_mask"]
    running = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
    while bool(running.any()):
        outputs = model(
            input_ids=input_ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
        )
        scores = logits_processor(input_ids, outputs.logits[:, -1].float())
        probs = scores.softmax(dim=-1)
        new = torch.multinomial(probs, 1) if generation_config.do_sample else probs.argmax(-1, keepdim=True)
        new = new.masked_fill(~running[:, None], generation_config.pad_token_id)
        input_ids = torch.hstack([input_ids, new])
        mask = torch.hstack([mask, torch.ones_like(new)])
        running &= ~stopping_criteria(input_ids, None)
    return input_ids


def changed(line, other, loop=cached_loop):
    """The loop with one line written differently."""
    source = inspect.getsource(inspect.unwrap(loop))
    assert source.count(line) == 1
    source = source.replace(line, other)
    name = f"<a changed loop {abs(hash(source))}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    made = dict(inspect.unwrap(loop).__globals__)
    exec(compile(source, name, "exec"), made)
    return made[inspect.unwrap(loop).__name__]


class Loop:
    def __call__(self, model, input_ids, **given):
        return cached_loop(model, input_ids, **given)


@pytest.mark.parametrize("loop", [cached_loop, whole_loop, functools.partial(cached_loop), Loop()])
@pytest.mark.parametrize("settings", [{"max_new_tokens": 6, "do_sample": False}, SAMPLED])
def test_walks_as_the_librarys_own_loop(model, gpt2, ends, loop, settings):
    ours = Stepper(model, gpt2, PROMPTS, seed=3, loop=loop, **settings, **ends)
    theirs = Stepper(model, gpt2, PROMPTS, seed=3, **settings, **ends)
    for widget in (ours, theirs):
        widget.run()
        widget.choose(gpt2(" bad").input_ids[0], row=1, step=2)
        widget.run()
    assert torch.equal(ours.sequences, theirs.sequences)
    for name in ("branches", "chains", "labels", "rows"):
        assert ours.shown[name] == theirs.shown[name]
    assert ours.shown["sampling"] is theirs.shown["sampling"] is settings["do_sample"]
    assert ours.verdict == "Its ids are those of generate(), in all 6 steps."


def test_shows_what_the_loop_gave_the_model(model, gpt2):
    cached, whole = (
        Stepper(model, gpt2, PROMPTS, loop=loop, max_new_tokens=2) for loop in (cached_loop, whole_loop)
    )
    for widget in (cached, whole):
        widget.run()
    assert [step["cache"] for step in cached.shown["steps"]] == [0, 5]
    assert [step["cache"] for step in whole.shown["steps"]] == [0, 0]
    assert [len(step["given"][1]["ids"]) for step in cached.shown["steps"]] == [5, 1]
    assert [len(step["given"][1]["ids"]) for step in whole.shown["steps"]] == [5, 6]
    assert cached.shown["steps"][0]["given"][1]["mask"] == [[0, 2], [1, 3]]


def test_the_lines_are_those_of_the_loop(model, gpt2, ends):
    lines = Stepper(model, gpt2, PROMPTS, loop=cached_loop, **SAMPLED, **ends).shown["source"]["lines"]
    text = {name: line.strip() for name, (_, line) in lines.items()}
    assert (
        text["first"]
        == text["forward"]
        == text["logits"]
        == "logits = model(given, **inputs).logits[:, -1].float()"
    )
    assert text["processors"] == "scores = logits_processor(input_ids, logits)"
    assert text["drawn"].startswith("chosen = torch.multinomial(")
    assert text["fill"].startswith("chosen = torch.where(unfinished")
    assert text["append"].startswith("input_ids = torch.cat(")
    assert text["criteria"].startswith("unfinished = unfinished & ~stopping_criteria(")
    greedy = Stepper(model, gpt2, PROMPTS, loop=whole_loop, max_new_tokens=2).shown["source"]["lines"]
    assert "probs.argmax(-1, keepdim=True)" in greedy["likeliest"][1] and "drawn" not in greedy
    assert greedy["append"][1].strip() == "input_ids = torch.hstack([input_ids, new])"


@pytest.mark.parametrize(
    ("line", "other", "verdict"),
    [
        (
            "chosen = torch.where(unfinished, chosen, generation_config.pad_token_id)",
            "pass",
            "At step 2, in row 0,",
        ),
        (
            "scores = logits_processor(input_ids, logits)",
            "scores = -logits_processor(input_ids, logits)",
            "At step 0",
        ),
        (
            "while unfinished.any():",
            "for _ in range(2):",
            "Its ids are those of generate() in all 2 steps, but",
        ),
    ],
)
def test_says_where_a_wrong_loop_parts_from_generate(model, gpt2, ends, line, other, verdict):
    widget = Stepper(model, gpt2, PROMPTS, loop=changed(line, other), max_new_tokens=6, **ends)
    assert widget.verdict.startswith(verdict)
    assert widget.verdict in widget.summary() and widget.verdict in widget.still().replace("&#x27;", "'")


def test_a_loop_that_goes_on_is_told(model, gpt2, ends):
    stop = "unfinished = unfinished & ~stopping_criteria(input_ids, None)"
    later = "unfinished = unfinished & (input_ids.shape[1] < 11)"
    ends = {**ends, "eos_token_id": list(range(50257))}
    widget = Stepper(model, gpt2, PROMPTS, loop=changed(stop, later), max_new_tokens=6, **ends)
    assert widget.verdict == "It goes on after step 0, at which generate() stops."


@pytest.mark.parametrize(
    ("line", "other", "message"),
    [
        (
            "unfinished = unfinished & ~stopping_criteria(input_ids, None)",
            "pass",
            "does not stop, though at most 6",
        ),
        ("return input_ids", "return None", "The loop returned nothing"),
        ("return input_ids", "return input_ids[0]", "returned a tensor of shape"),
        ("return input_ids", "return input_ids.repeat(1, 3)", "one token for each forward pass"),
        (
            "return input_ids",
            "return input_ids[:, :5]",
            "returned 0 new tokens a row and asked the model 6 times",
        ),
        (
            "while unfinished.any():",
            "while logits_processor(input_ids, None) is None:",
            "before it had asked",
        ),
    ],
)
def test_a_loop_that_cannot_be_shown_is_a_sentence(model, gpt2, line, other, message):
    before = torch.get_rng_state()
    with pytest.raises(CourseError, match=message):
        Stepper(model, gpt2, PROMPTS, loop=changed(line, other), max_new_tokens=6)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_a_loop_that_ignores_the_processors_cannot_be_led(model, gpt2):
    deaf = changed("scores = logits_processor(input_ids, logits)", "scores = logits")
    widget = Stepper(model, gpt2, PROMPTS, loop=deaf, max_new_tokens=2)
    with pytest.raises(CourseError, match="does not choose by the scores that logits_processor"):
        widget.choose(gpt2(" bad").input_ids[0])
    assert len(widget.shown["branches"]) == 1


def test_refuses_what_is_no_loop(model, gpt2):
    with pytest.raises(CourseError, match=r"The loop is of type str. Give a function"):
        Stepper(model, gpt2, PROMPTS, loop="group_beam_search", max_new_tokens=2)


@pytest.mark.parametrize(("row", "token"), [(5, 3), (-1, 3), (0, 10**6), (0, -1)])
def test_a_choice_that_is_not_there_is_refused(model, gpt2, row, token):
    widget = Stepper(model, gpt2, PROMPTS, loop=cached_loop, max_new_tokens=2)
    with pytest.raises(CourseError):
        widget.choose(token, row)
    assert len(widget.shown["branches"]) == 1


def test_a_finished_row_is_only_filled_up(model, gpt2, ends):
    widget = Stepper(model, gpt2, PROMPTS, loop=cached_loop, max_new_tokens=6, **ends)
    widget.run()
    with pytest.raises(CourseError, match="finished before this step"):
        widget.choose(3, row=0, step=3)
