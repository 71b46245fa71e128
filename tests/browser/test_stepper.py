"""The stepper on a blank page, with the Python widget as its kernel, and as a saved page."""

import pytest
import torch
from browser_kit import document, stop_clock
from playwright.sync_api import expect
from transformers import LogitsProcessor

from course_utils import load, load_tokenizer
from course_utils.widgets import Stepper
from loops import cached_loop

PROMPTS = ["It will rain in the", "My dog is"]
SAMPLED = {"max_new_tokens": 6, "do_sample": True, "temperature": 0.7, "top_k": 5}


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def model():
    model = load("tiny-gpt2")[0]
    model.generation_config.pad_token_id = 50256
    return model


@pytest.fixture
def widget(model, gpt2):
    return Stepper(model, gpt2, PROMPTS, max_new_tokens=6)


@pytest.fixture
def sampled(model, gpt2):
    return Stepper(model, gpt2, "My dog is", seed=3, **SAMPLED)


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def taken(page, row=0):
    """The tokens that were generated in a row: list of str."""
    return page.locator(".stepper-text").nth(row).locator("button").all_inner_texts()


def labels(widget, row=0, branch=None):
    """The same, from Python."""
    tree = widget._tree
    return [tree.labels[turn.tokens[row]] for turn in tree.path(widget.branch if branch is None else branch)]


def at_step(page, number):
    expect(page.locator(".stepper-place")).to_have_text(number)


def ready(page):
    expect(page.locator(".course-widget > [aria-busy]")).to_have_count(0)


# ---- walking


def test_a_step_shows_what_python_says(mount, sampled):
    page = mount(sampled)
    button(page, "Step").click()
    at_step(page, "Step 1")
    assert taken(page) == labels(sampled)
    record, turn = sampled.shown["steps"][1], sampled.shown["branches"][0]["turns"][1]
    token = labels(sampled)[1]
    share = f"{100 * turn['shares'][0][-1]:.2f} %"
    expect(page.locator(".stepper-choice")).to_have_text(f"{token} was drawn with seed 3, at {share}.")
    cells = page.locator("[aria-label='Given to the model'] tr").all_inner_texts()
    assert [cell.split("\t") for cell in cells] == [
        ["token", "3 in the cache", labels(sampled)[0]],
        ["id", "", str(record["given"][0]["ids"][0])],
        ["position", "", "3"],
        ["mask", "1 ×3", "1"],
    ]
    names = page.locator(".stepper-stages code").all_inner_texts()
    assert names == ["TemperatureLogitsWarper", "TopKLogitsWarper"]
    figures = page.locator(".stepper-figures").all_inner_texts()
    own = record["rows"][0]
    assert [text.split("\n") for text in figures] == [
        [f"{kept:,} tokens", f"{100 * mass:.2f} %", f"{entropy:.2f} bits"]
        for kept, mass, entropy in zip(own["kept"], own["mass"], own["entropy"], strict=True)
    ]
    bars = page.locator(".stepper-bars button")
    assert bars.count() == 10
    likeliest = sorted(zip(own["shares"][-1], own["top"], strict=True), key=lambda pair: -(pair[0] or 0))
    assert page.locator(".stepper-bars .stepper-token").all_inner_texts()[:5] == [
        sampled._tree.labels[token] for _, token in likeliest[:5]
    ]
    expect(page.locator(".stepper-bars [aria-current]")).to_contain_text(token)
    assert page.locator(".stepper-removed").count() == 5


def test_each_stage_can_be_looked_at(mount, sampled):
    page = mount(sampled)
    own = sampled.shown["steps"][0]["rows"][0]
    for stage, name in enumerate(["the model’s logits", "TemperatureLogitsWarper", "TopKLogitsWarper"]):
        page.get_by_role("radio", name=name).check()
        shares = sorted((share for share in own["shares"][stage] if share is not None), reverse=True)
        expected = [f"{100 * share:.2f} %" for share in shares[:10]]
        assert page.locator(".stepper-share").all_inner_texts()[: len(expected)] == expected
        assert page.locator(".stepper-own").count() == (0 if stage == 0 else 10)
    assert page.locator(".stepper-share").all_inner_texts()[5:] == ["removed"] * 5
    assert page.locator(".stepper-mark").all_inner_texts()[5:] == ["by TopK"] * 5
    bar = page.locator(".stepper-removed .stepper-bar").first
    assert "gradient" in bar.evaluate("e => getComputedStyle(e).backgroundImage")
    button(page, "Step").click()
    at_step(page, "Step 1")
    expect(page.get_by_role("radio", name="TopKLogitsWarper")).to_be_checked()


class Flip(LogitsProcessor):
    """Makes the least likely token the most likely."""

    def __call__(self, input_ids, scores):
        return -scores


def test_each_stage_has_its_own_order(mount, model, gpt2):
    widget = Stepper(model, gpt2, "My dog is", logits_processor=[Flip()], **SAMPLED)
    page = mount(widget)
    own = widget.shown["steps"][0]["rows"][0]
    for stage, name in enumerate(["the model’s logits", "Flip"]):
        page.get_by_role("radio", name=name).check()
        order = sorted(zip(own["shares"][stage], own["top"], strict=True), reverse=True)[:5]
        texts = page.locator(".stepper-bars .stepper-token").all_inner_texts()[:5]
        assert texts == [widget.shown["labels"][token] for _, token in order]
    page.get_by_role("radio", name="TopKLogitsWarper").check()
    assert page.locator(".stepper-share").all_inner_texts()[5:] == ["removed"] * 5


def test_back_and_forth_needs_no_kernel(mount, widget):
    widget.run()
    page = mount(widget)
    at_step(page, "Step 0 of 5")
    for number in range(1, 5):
        button(page, "Step").click()
        at_step(page, f"Step {number} of 5")
    button(page, "Step back").click()
    at_step(page, "Step 3 of 5")
    later = page.locator(".stepper-text").first.locator(".stepper-later")
    assert later.count() == 2
    page.locator(".stepper-text").first.locator("button").nth(5).click()
    at_step(page, "Step 5, the last one")
    expect(page.locator(".stepper-choice")).to_contain_text("This finishes the row: length.")
    assert button(page, "Step").get_attribute("aria-disabled") == "true"
    assert page.kernel.received == []


def test_steps_that_are_asked_for_while_the_kernel_is_busy(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.kernel.hold()
    for _ in range(3):
        button(page, "Step").click()
    page.clock.run_for(400)
    expect(page.get_by_role("status")).to_have_text("Kernel busy…")
    page.kernel.release()
    at_step(page, "Step 3")
    assert len(widget.sequences[0]) == 5 + 4
    expect(page.get_by_role("status")).to_have_text("")


def test_play_and_pause(mount, widget):
    page = mount(widget)
    stop_clock(page)
    button(page, "Play").click()
    at_step(page, "Step 1")
    expect(page.get_by_role("status")).to_have_text("Playing: step 1.")
    page.clock.run_for(700)
    at_step(page, "Step 2")
    button(page, "Pause").click()
    page.clock.run_for(10_000)
    at_step(page, "Step 2")
    assert len(page.kernel.received) == 2
    expect(page.get_by_role("status")).to_have_text("")
    expect(button(page, "Play")).to_be_visible()


def test_run_to_the_end(mount, widget):
    page = mount(widget)
    button(page, "Run to the end").click()
    at_step(page, "Step 5, the last one")
    assert taken(page, 1) == labels(widget, 1)
    expect(button(page, "Run to the end")).to_have_attribute("aria-disabled", "true")
    assert page.locator(".stepper-reason").all_inner_texts() == ["finished: length"] * 2


def test_a_run_can_be_stopped(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.kernel.hold()
    button(page, "Run to the end").click()
    page.clock.run_for(400)
    expect(page.get_by_role("status")).to_have_text("Kernel busy…")
    button(page, "Stop").click()
    page.kernel.release()
    at_step(page, "Step 1")
    button(page, "Step").click()  # a run that went on would be further now
    at_step(page, "Step 2")
    assert widget.sequences.shape[1] == 8
    assert len(page.kernel.received) == 2


def test_an_interrupt_leaves_the_page_usable(mount, widget, model):
    page = mount(widget)
    calls = []

    def interrupt(module, args):
        calls.append(module)
        if len(calls) == 3:
            raise KeyboardInterrupt

    hook = model.transformer.register_forward_pre_hook(interrupt)
    button(page, "Run to the end").click()
    expect(page.get_by_role("alert")).to_contain_text("interrupted")
    hook.remove()
    at_step(page, "Step 2")
    expect(button(page, "Run to the end")).to_be_visible()
    button(page, "Run to the end").click()
    at_step(page, "Step 5, the last one")
    expect(page.locator(".course-wrong")).to_be_hidden()
    other = Stepper(model, widget._tokenizer, PROMPTS, max_new_tokens=6)
    other.run()
    assert torch.equal(widget.sequences, other.sequences)


def test_a_page_that_missed_a_step_is_told_of_it(mount, widget):
    page = mount(widget)
    page.kernel._post, post = lambda message: None, page.kernel._post
    widget.step()
    page.kernel._post = post
    button(page, "Step").click()
    at_step(page, "Step 1")
    assert taken(page) == labels(widget)


def test_a_cells_steps_are_followed(mount, widget):
    page = mount(widget)
    widget.run()
    at_step(page, "Step 5, the last one")
    assert taken(page) == labels(widget)


def lit(page):
    """The line of the loop that is marked: str."""
    return page.locator(".stepper-source [aria-current] code").text_content()


def test_the_timeline_says_what_python_says(mount, widget):
    widget.run()
    page = mount(widget)
    lines = [line.split("\t") for line in page.locator(".stepper-times tr").all_inner_texts()]
    columns = dict(zip([line[0] for line in lines], [line[1:] for line in lines], strict=True))
    steps = [widget.shown["steps"][turn.step] for turn in widget._tree.path(widget.branch)]
    assert columns["step"] == [str(index) for index in range(len(steps))]
    assert columns["read"] == [f"{len(widget.shown['rows'][0])} ids", *labels(widget)[:-1]]
    assert columns["from the cache"] == ["nothing", *(str(step["cache"]) for step in steps[1:])]
    assert columns["tokens left"] == ["50,257"] * len(steps)
    assert columns["choice"] == labels(widget)
    assert columns["finished"] == ["no"] * (len(steps) - 1) + ["length"]


def test_pointing_at_a_cell_marks_the_line_that_made_it(mount, widget):
    widget.run()
    page = mount(widget)
    cells = page.locator(".stepper-times tbody tr")
    cells.nth(4).locator("button").nth(2).hover()
    assert lit(page).strip().startswith("next_tokens = torch.argmax(")
    cells.nth(0).locator("button").nth(0).hover()
    assert lit(page).strip() == "outputs = self._prefill("
    cells.nth(0).locator("button").nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert "model_forward(" in lit(page)
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert "outputs.logits" in lit(page)
    at_step(page, "Step 0 of 5")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    at_step(page, "Step 4 of 5")
    assert "outputs.logits" in lit(page)


def test_a_loop_of_ones_own_marks_its_own_lines(mount, model, gpt2):
    widget = Stepper(model, gpt2, PROMPTS, loop=cached_loop, max_new_tokens=6)
    page = mount(widget)
    expect(page.locator(".stepper-objects")).to_have_text("And from the cell: loop=cached_loop")
    expect(
        page.get_by_text("cached_loop(), a loop of yours. Its ids are those of generate()")
    ).to_be_visible()
    lines = page.locator(".stepper-source li")
    assert lines.count() == len({line for line, _ in widget.shown["source"]["lines"].values()})
    cells = page.locator(".stepper-times tbody tr")
    cells.nth(4).locator("button").first.hover()
    assert lit(page).strip() == "chosen = scores.argmax(-1)"
    for place in (0, 2):  # what was read, and the logits: one line does both
        cells.nth(place).locator("button").first.hover()
        assert lit(page).startswith("logits = model(given, **inputs)")
    button(page, "Run to the end").click()
    at_step(page, "Step 5, the last one")
    assert taken(page) == labels(widget)


def test_a_long_timeline_shows_the_steps_around_the_one_that_is_looked_at(mount, model, gpt2):
    widget = Stepper(model, gpt2, "My dog is", max_new_tokens=11)
    widget.run()
    page = mount(widget)
    head = page.locator(".stepper-times thead th")
    assert head.all_inner_texts() == ["step", *map(str, range(8))]
    button(page, "Run to the end").click()
    at_step(page, "Step 10, the last one")
    assert head.all_inner_texts() == ["step", "8", "9", "10"]
    button(page, "Step back").click(click_count=3)
    at_step(page, "Step 7 of 10")
    assert head.all_inner_texts() == ["step", *map(str, range(8))]


# ---- branches


def test_another_token_begins_a_branch_and_both_stay(mount, sampled):
    sampled.run()
    page = mount(sampled)
    first = taken(page)
    page.locator(".stepper-text button").nth(2).click()
    bar = page.locator(".stepper-bars li:not(:has([aria-current])) button").first
    token = bar.locator(".stepper-token").inner_text()
    bar.click()
    at_step(page, "Step 2")
    assert taken(page) == [*first[:2], token]
    expect(page.locator(".stepper-choice")).to_contain_text(f"{token} was chosen by you, at ")
    button(page, "Run to the end").click()
    at_step(page, "Step 5, the last one")
    assert taken(page) == labels(sampled, branch=1)
    items = page.locator(".stepper-tree button")
    assert items.nth(0).text_content() == "Seed 3: " + "".join(first)
    assert items.nth(1).text_content() == f"Step 2: {token} for {first[2]} " + "".join(
        labels(sampled, branch=1)[3:]
    )
    assert items.nth(1).get_attribute("aria-current") == "true"
    items.nth(0).click()
    at_step(page, "Step 2 of 5")  # where it was left
    assert taken(page) == first
    items.nth(1).click()
    at_step(page, "Step 5, the last one")
    page.locator(".stepper-text button").nth(4).click()
    page.locator(".stepper-bars li:not(:has([aria-current])) button").nth(1).click()
    expect(page.locator(".stepper-tree ul ul ul button")).to_have_attribute("aria-current", "true")
    assert page.locator(".stepper-tree button").count() == 3
    for number, how in (
        (4, "chosen by you"),
        (3, "drawn with seed 3"),
        (2, "chosen by you"),
        (1, "drawn with"),
    ):
        page.locator(".stepper-text button").nth(number).click()
        expect(page.locator(".stepper-choice")).to_contain_text(how)


def test_a_removed_token_can_be_chosen(mount, sampled):
    page = mount(sampled)
    page.locator(".stepper-removed").nth(2).click()
    expect(page.locator(".stepper-choice")).to_contain_text("was chosen by you, though it was removed.")
    removed = page.locator(".stepper-bars .stepper-removed[aria-current]")
    expect(removed).to_contain_text("chosen")


def test_a_finished_row_is_filled_up_and_says_why(mount, widget):
    page = mount(widget)
    widget.choose(50256, row=1)
    expect(page.locator(".stepper-tree button")).to_have_count(2)
    at_step(page, "Step 0")
    button(page, "Step").click()
    at_step(page, "Step 1")
    assert taken(page, 1) == ["<|endoftext|>", "pad"]
    assert page.locator(".stepper-reason").all_inner_texts() == ["finished: end of text"]
    pads = page.locator(".stepper-text").nth(1).locator("button.stepper-padding")
    assert "gradient" in pads.first.evaluate("e => getComputedStyle(e).backgroundImage")
    page.get_by_role("radio", name="Row 1").check()
    expect(page.locator(".stepper-choice")).to_contain_text("Row 1: finished before this step (end of text).")
    assert not page.locator(".stepper-bars").is_visible()
    mask = page.locator("[aria-label='Given to the model'] tr").nth(3).inner_text().split("\t")
    assert mask == ["mask", "0 ×2, 1 ×3", "1"]
    page.locator(".stepper-text").nth(1).locator("button").first.click()
    expect(page.locator(".stepper-choice")).to_contain_text("This finishes the row: end of text.")


def test_rows_are_padded_where_they_begin(mount, widget):
    page = mount(widget)
    row = page.locator(".stepper-text").nth(1).locator("> .stepper-token")
    assert row.all_inner_texts()[:5] == ["pad", "pad", "My", "·dog", "·is"]
    page.get_by_role("radio", name="Row 1").check()
    lines = page.locator("[aria-label='Given to the model'] tr").all_inner_texts()
    cells = [line.split("\t") for line in lines]
    assert cells == [
        ["token", "pad", "pad", "My", "·dog", "·is"],
        ["id", "50256", "50256", "3666", "3290", "318"],
        ["position", "0", "0", "0", "1", "2"],
        ["mask", "0", "0", "1", "1", "1"],
    ]


# ---- beginning again


def test_prompts_and_arguments_are_typed(mount, widget):
    page = mount(widget)
    page.get_by_label("Prompts").fill("Hello\nOne⏎two\n")
    expect(page.get_by_role("status")).to_have_text("Press Start to generate from what you typed.")
    page.get_by_label("Arguments").fill("max_new_tokens=2, do_sample=True, top_k=4")
    page.get_by_label("Seed").fill("9")
    page.get_by_label("Seed").press("Enter")
    expect(page.locator(".stepper-choice")).to_contain_text("was drawn with seed 9")
    assert widget.shown["prompts"] == ["Hello", "One\ntwo"]
    expect(page.get_by_label("Prompts")).to_have_value("Hello\nOne⏎two")
    expect(page.get_by_role("status")).to_have_text("")
    button(page, "Run to the end").click()
    at_step(page, "Step 1, the last one")
    page.get_by_label("Seed").fill("10")  # another seed alone keeps what there is
    button(page, "Start").click()
    expect(page.locator(".stepper-tree button")).to_have_count(2)
    assert page.locator(".stepper-tree button").nth(1).text_content().startswith("Seed 10: ")
    at_step(page, "Step 0")


@pytest.mark.parametrize(
    ("label", "text", "sentence"),
    [
        ("Prompts", "", "Prompt 1 is empty, so there is nothing to continue."),
        ("Prompts", "one\n\nthree", "Prompt 2 is empty"),
        ("Prompts", "a\n" * 7, "These are 7 prompts, and this view shows at most 6."),
        ("Prompts", "word " * 201, "Prompt 1 has 202 tokens, and this view shows at most 200."),
        ("Arguments", "max_new_tokens=0", "max_new_tokens is 0"),
        ("Arguments", "temperature=0, do_sample=True", "temperature is 0"),
        ("Arguments", "max_new_tokens", "cannot be read"),
        ("Arguments", "topk=3", "topk"),
        ("Arguments", "num_beams=2, max_new_tokens=3", "lesson 06"),
        ("Seed", "-1", "The seed is -1"),
    ],
)
def test_bad_input_is_one_sentence_and_loses_nothing(mount, widget, label, text, sentence):
    page = mount(widget)
    button(page, "Step").click()
    at_step(page, "Step 1")
    before = taken(page)
    page.get_by_label(label).fill(text)
    button(page, "Start").click()
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    assert "Traceback" not in page.locator("#host").inner_text()
    assert taken(page) == before
    button(page, "Step").click()  # the old text goes on
    at_step(page, "Step 2")
    expect(page.locator(".course-wrong")).to_be_hidden()
    expect(page.get_by_label(label)).to_have_value(text)


def test_python_moves_the_page(mount, widget):
    page = mount(widget)
    widget.step(2)
    at_step(page, "Step 2")
    widget.choose(11, step=1)
    at_step(page, "Step 1")
    expect(page.locator(".stepper-tree [aria-current]")).to_contain_text("Step 1, row 0: , for ")
    widget.start("Hello", 4, **SAMPLED)
    expect(page.get_by_label("Prompts")).to_have_value("Hello")
    expect(page.get_by_label("Seed")).to_have_value("4")
    assert page.locator(".stepper-text").count() == 1
    assert page.locator(".stepper-tree button").count() == 1


class Ban(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores


@pytest.mark.parametrize(
    "text",
    ["<img src=x onerror=alert(1)>", "</script><b>bold", "\u202e\u200bعربي"],
    ids=["image", "script", "marks"],
)
def test_hostile_text_is_only_text(mount, open_page, model, gpt2, text):
    widget = Stepper(
        model, gpt2, text, max_new_tokens=3, stop_strings=[text], logits_processor=[type(text, (Ban,), {})()]
    )
    widget.choose(gpt2("<b>").input_ids[0])
    page = mount(widget)
    saved = open_page()
    saved.set_content(document("light", widget.page()))
    saved.locator("[data-ready]").wait_for()
    for one in (page, saved):
        one.on("dialog", lambda _: pytest.fail("a script ran"))
        assert one.locator("main :is(img, b)").count() == 0
        expect(one.get_by_label("Prompts")).to_have_value(text)


# ---- keyboard


def test_all_of_it_by_keyboard(mount, sampled):
    page = mount(sampled)
    page.get_by_label("Prompts").focus()
    for _ in range(5):
        page.keyboard.press("Tab")
    expect(button(page, "Step")).to_be_focused()
    page.keyboard.press("Enter")
    at_step(page, "Step 1")
    page.keyboard.press("Space")
    at_step(page, "Step 2")
    expect(button(page, "Step")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    current = page.locator(".stepper-text [aria-current]")
    expect(current).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    at_step(page, "Step 1 of 2")
    expect(current).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("region", name="The model’s inputs")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("radio", name="TemperatureLogitsWarper")).to_be_checked()
    expect(page.get_by_role("radio", name="TemperatureLogitsWarper")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.locator(".stepper-tree button")).to_have_count(2)
    at_step(page, "Step 1")
    page.keyboard.press("Tab")
    expect(page.get_by_role("region", name="Timeline", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".stepper-times td.stepper-here button:focus")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.get_by_role("region", name="Lines of the loop")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    at_step(page, "Step 1 of 2")
    expect(page.locator(".stepper-tree button").first).to_be_focused()
    for control in page.locator("#host :is(button, input, textarea, [tabindex])").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_leaving_takes_the_listeners_away(mount, widget):
    page = mount(widget)
    stop_clock(page)
    button(page, "Play").click()
    at_step(page, "Step 1")
    page.evaluate("courseCleanup()")
    assert page.evaluate("Object.values(courseListeners).flat().length") == 0
    page.clock.run_for(10_000)
    assert len(page.kernel.received) == 1


# ---- saved


@pytest.fixture
def saved(open_page, sampled):
    sampled.step(2)
    sampled.choose(11, step=1)
    page = open_page()
    page.set_content(document("light", sampled.page()))
    page.locator("[data-ready]").wait_for()
    return page


def test_a_saved_page_is_walked_without_a_kernel(saved, sampled):
    at_step(saved, "Step 0 of 5")
    expect(saved.locator(".stepper-tree [aria-current]")).to_contain_text("Step 1: , for ")
    button(saved, "Run to the end").click()
    at_step(saved, "Step 5, the last one")
    expect(button(saved, "Run to the end")).to_be_visible()
    tokens = taken(saved)
    button(saved, "Step back").click()
    at_step(saved, "Step 4 of 5")
    saved.locator(".stepper-tree button").first.click()
    assert taken(saved) == labels(sampled, branch=0)
    saved.get_by_role("radio", name="the model’s logits").check()
    assert saved.locator(".stepper-bars button:enabled").count() == 0
    button(saved, "Step").click()
    button(saved, "Step").click()
    at_step(saved, "Step 2")
    assert button(saved, "Step").get_attribute("aria-disabled") == "true"
    expect(saved.get_by_role("status")).to_contain_text("A saved view: walk through the steps it holds.")
    assert not saved.get_by_label("Prompts").is_editable()
    button(saved, "Start").click(force=True)
    sampled.run()
    assert tokens == labels(sampled)


def test_still_tables_without_scripts(open_page, widget):
    page = open_page(java_script_enabled=False)
    page.set_content(document("light", widget.page()))
    assert page.locator("table").count() == 2
    assert page.locator("table").first.locator("tr").count() == 7
    widget.run()
    chosen = page.locator("table").nth(1).locator("td:nth-child(4)").all_inner_texts()
    assert chosen == labels(widget, 1)


# ---- looks


def test_a_step_moves_no_button(mount, sampled):
    page = mount(sampled)
    places = []
    for number in range(3):
        at_step(page, f"Step {number}")
        places.append([button(page, name).bounding_box() for name in ("Step back", "Step", "Run to the end")])
        places[-1].append(page.locator(".stepper-bars").bounding_box()["y"])
        button(page, "Step").click()
    assert places[1] == places[2] == [*places[0][:3], places[1][3]]
