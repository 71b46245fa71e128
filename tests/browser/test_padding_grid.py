"""The padding grid on a blank page, with the Python widget as its kernel, and as a saved page."""

import pytest
from browser_kit import document, stop_clock
from playwright.sync_api import expect

from course_utils import load, load_tokenizer
from course_utils.widgets import PaddingGrid
from course_utils.widgets.padding_grid import _CASES
from tiny import tiny_gpt2

SENTENCES = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def models(gpt2):
    return {
        "GPT-2 architecture": (load("tiny-gpt2", "cpu")[0], gpt2),
        "Llama architecture": (load("tiny-llama", "cpu")[0], gpt2),
    }


@pytest.fixture
def widget(models):
    return PaddingGrid(models, SENTENCES)


def line(page, row, which):
    """The cells of one line of the grid: list of str. which: 0 tokens and ids, 1 mask, 2 positions."""
    cells = page.locator(".batch-table tbody").nth(row).locator("tr").nth(which).locator("td")
    return cells.all_inner_texts()


def turn(page, case):
    side, mask, positions = case
    page.get_by_label(side, exact=True).check()
    page.get_by_label("attention mask").set_checked(mask)
    page.get_by_label("position ids").set_checked(positions)


def total_variations(page):
    return page.locator(".padding-grid-rows strong").all_inner_texts()


def ready(page):
    expect(page.locator(".padding-grid-rows")).not_to_have_attribute("data-old", "")


def test_the_batch_is_a_grid_of_tokens_and_ids(mount, widget):
    page = mount(widget)
    assert line(page, 0, 0) == [
        *["pad\n50256"] * 3, "It\n1026", "·will\n481", "·rain\n6290", "·in\n287", "·the\n262"
    ]  # fmt: skip
    assert line(page, 0, 1) == list("00011111")
    assert line(page, 0, 2) == list("00001234")
    assert line(page, 2, 2) == list("00000012")
    pads = page.locator(".padding-grid-place.batch-hatched")
    assert pads.count() == 8
    assert "gradient" in pads.first.evaluate("e => getComputedStyle(e).backgroundImage")
    assert page.locator(".padding-grid-read bdi").all_inner_texts() == ["·the", "·of", "·is"]
    assert total_variations(page) == ["0.00"] * 3
    expect(page.locator(".padding-grid-verdict")).to_have_text(
        "All 3 answers are those of the sentence alone."
    )


def test_what_is_not_given_is_what_the_model_goes_by(mount, widget):
    page = mount(widget)
    turn(page, ("left", False, False))
    ready(page)
    assert line(page, 0, 1) == list("11111111")
    assert line(page, 0, 2) == list("01234567")
    assert page.locator(".padding-grid-note").all_inner_texts() == ["not given"] * 6
    assert page.locator(".padding-grid-legend").inner_text().endswith("so this is what the model goes by.")
    page.get_by_label("right", exact=True).check()
    assert page.locator(".padding-grid-read bdi").all_inner_texts() == ["·the", "·of", "·is"]
    assert line(page, 2, 0)[3:] == ["pad\n50256"] * 5


def test_every_switch_says_what_python_says(mount, widget, models):
    page = mount(widget)
    for name in models:
        page.get_by_label(name).check()
        for case in _CASES:
            turn(page, case)
            ready(page)
            assert (widget.side, widget.give_mask, widget.give_positions) == case
            assert widget.model_name == name
            assert total_variations(page) == [f"{distance:.2f}" for distance in widget.distances]
            off = sum(distance >= 0.005 for distance in widget.distances)
            said = page.locator(".padding-grid-verdict").inner_text()
            assert said.startswith("All 3 answers are" if off == 0 else f"{off} of 3 answers differ")
    top = widget._answers()[0]["top"][0]
    cell = page.locator(".padding-grid-rows tbody").first.locator("td").nth(1)
    expect(cell.locator("bdi")).to_have_text(top[0])
    expect(cell).to_contain_text(f"{100 * top[1]:.2f}")


def test_what_was_asked_once_is_not_asked_again(mount, widget):
    page = mount(widget)
    for _ in range(2):
        turn(page, ("right", True, True))
        ready(page)
        turn(page, ("left", True, True))
        ready(page)
    assert len(page.kernel.received) == 1


def test_a_busy_kernel_leaves_no_old_answer_under_new_switches(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.kernel.hold()
    page.get_by_label("position ids").uncheck()
    expect(page.locator(".padding-grid-verdict")).to_have_text("The model is asked…")
    expect(page.locator(".padding-grid-rows")).to_have_attribute("data-old", "")
    assert line(page, 0, 2) == list("01234567")  # mask and positions do not wait
    page.get_by_label("right", exact=True).check()
    page.clock.run_for(400)
    expect(page.get_by_role("status")).to_have_text("Kernel busy…")
    page.kernel.release()
    ready(page)
    expect(page.get_by_role("status")).to_have_text("")
    assert total_variations(page) == ["0.00"] * 3


def test_a_switch_that_is_turned_while_sentences_are_on_their_way(mount, widget):
    page = mount(widget)
    page.get_by_label("position ids").uncheck()
    ready(page)
    stop_clock(page)
    page.kernel.hold()
    page.get_by_label("Sentences").fill("My dog is\nHello")
    page.clock.run_for(400)
    page.get_by_label("position ids").check()  # known of the old sentences, not of the new ones
    page.kernel.release()
    expect(page.locator(".batch-table tbody")).to_have_count(2)
    ready(page)
    assert [answer["distance"] for answer in widget._answers()] == [0, 0]
    expect(page.locator(".padding-grid-verdict")).to_have_text(
        "All 2 answers are those of the sentence alone."
    )


def test_an_answer_that_was_overtaken_and_comes_again(mount, widget):
    page = mount(widget)
    box = page.get_by_label("Sentences")
    stop_clock(page)
    page.kernel.hold()
    for text in ("one", "two", "one"):
        box.fill(text)
        page.clock.run_for(400)
    page.kernel.release()
    expect(page.locator(".batch-table tbody")).to_have_count(1)
    assert line(page, 0, 0)[0].startswith("one")


def test_sentences_are_typed_added_and_removed(mount, widget):
    page = mount(widget)
    box = page.get_by_label("Sentences, one a line")
    box.fill("My dog is\nHello")
    expect(page.locator(".batch-table tbody")).to_have_count(2)
    assert widget.sentences == ["My dog is", "Hello"]
    box.press("End")
    box.press_sequentially("\nA third one\n")
    expect(page.locator(".batch-table tbody")).to_have_count(3)
    expect(box).to_have_value("My dog is\nHello\nA third one\n")  # the line that is begun stays
    box.fill("Hello")
    expect(page.locator(".batch-table tbody")).to_have_count(1)
    assert page.locator(".batch-hatched").count() == 0
    expect(page.locator(".padding-grid-verdict")).to_have_text("The answer is that of the sentence alone.")
    assert "Hatched" not in page.locator(".padding-grid-legend").inner_text()


def test_python_moves_everything(mount, widget):
    page = mount(widget)
    widget.side = "right"
    expect(page.get_by_label("right", exact=True)).to_be_checked()
    widget.model_name = "Llama architecture"
    widget.give_mask = False
    expect(page.get_by_label("Llama architecture")).to_be_checked()
    expect(page.get_by_label("attention mask")).not_to_be_checked()
    ready(page)
    page.get_by_label("Sentences").fill("\n\nbad")
    expect(page.get_by_role("alert")).to_contain_text("Sentence 1 is empty")
    widget.sentences = ["Hello world"]
    expect(page.get_by_label("Sentences")).to_have_value("Hello world")
    expect(page.locator(".course-wrong")).to_be_hidden()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The batch is empty: there is nothing to pad."),
        ("one\n\nthree", "Sentence 2 is empty"),
        ("word " * 24, "Sentence 1 has 25 tokens, and this view shows at most 24."),
        ("fine\na\ud83d", "Character 2 of sentence 2 is U+D83D, half of a surrogate pair"),
        ("a\n" * 7, "These are 7 sentences, and this view shows at most 6."),
    ],
    ids=["nothing", "an empty line", "too long", "half a surrogate pair", "too many"],
)
def test_bad_sentences_are_one_sentence_and_lose_nothing(mount, widget, text, sentence):
    page = mount(widget)
    box = page.get_by_label("Sentences")
    before = page.locator(".batch-scroll").inner_text()
    box.evaluate(
        "(e, codes) => { e.value = String.fromCharCode(...codes); e.dispatchEvent(new Event('input')); }",
        [ord(c) for c in text],
    )
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    expect(box).to_have_attribute("aria-invalid", "true")
    assert page.locator(".batch-scroll").inner_text() == before
    page.get_by_label("position ids").uncheck()  # the switches go on with the batch that is shown
    ready(page)
    assert total_variations(page) == [f"{distance:.2f}" for distance in widget.distances]
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    assert widget.sentences == SENTENCES
    box.fill("Good again")
    expect(box).to_have_attribute("aria-invalid", "false")
    expect(page.locator(".course-wrong")).to_be_hidden()


def test_a_sentence_beyond_the_models_positions(mount, gpt2):
    page = mount(PaddingGrid({"tiny": (tiny_gpt2(positions=8), gpt2)}, ["Hello"]))
    page.get_by_label("Sentences").fill("a b c d e f g h i")
    expect(page.get_by_role("alert")).to_have_text(
        "Sentence 1 has 9 tokens, and the model has 8 positions. Shorten it by 1 or more."
    )


@pytest.mark.parametrize(
    "text",
    ["<img src=x onerror=alert(1)>", "</script><b>bold", "\u202e\u200bعربي", "שלום <b>"],
    ids=["image", "script", "direction marks", "right to left"],
)
def test_hostile_sentences_are_only_text(mount, open_page, models, text):
    widget = PaddingGrid({text: models["GPT-2 architecture"]}, ["Hello", "Hi there"])
    page = mount(widget)
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    page.get_by_label("Sentences").fill(f"{text}\nsome more of the same")
    expect(page.locator(".batch-table tbody").nth(1)).to_contain_text("·more")
    assert widget.sentences[0] == text
    assert page.locator("#host :is(img, script, b)").count() == 0
    saved = open_page()
    saved.on("dialog", lambda _: pytest.fail("a script ran"))
    saved.set_content(document("light", PaddingGrid({text: models["GPT-2 architecture"]}, [text]).page()))
    expect(saved.locator(".padding-grid-verdict")).to_be_visible()
    assert saved.locator("main :is(img, b)").count() == 0


def test_keys(mount, widget):
    page = mount(widget)
    page.get_by_label("GPT-2 architecture").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Llama architecture")).to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("right", exact=True)).to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.get_by_label("attention mask")).not_to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("region", name="The batch")).to_be_focused()
    for control in page.locator("#host :is(button, input, textarea, [tabindex])").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


# ---- saved


@pytest.fixture
def saved(open_page, widget):
    page = open_page()
    page.set_content(document("light", widget.page()))
    page.locator("[data-ready]").wait_for()
    return page


def test_all_switches_work_without_a_kernel(saved, widget, models):
    for name in models:
        saved.get_by_label(name).check()
        for case in _CASES:
            turn(saved, case)
            widget.model_name = name
            widget.side, widget.give_mask, widget.give_positions = case
            assert total_variations(saved) == [f"{distance:.2f}" for distance in widget.distances]
    expect(saved.get_by_role("status")).to_have_text(
        "A saved view: the switches work. To type other sentences, run this cell."
    )
    assert not saved.get_by_label("Sentences").is_editable()


def test_a_switch_that_was_not_saved_says_so(open_page, models):
    widget = PaddingGrid(models, ["word " * 23] * 6)
    page = open_page()
    page.set_content(document("light", widget.page()))
    page.get_by_label("Llama architecture").check()
    expect(page.get_by_role("status")).to_have_text(
        "This page holds no answer for these switches: run this cell to ask the model."
    )
    assert total_variations(page) == []
    page.get_by_label("GPT-2 architecture").check()
    assert total_variations(page) == ["0.00"] * 6
    expect(page.get_by_role("status")).to_contain_text("A saved view")


def test_still_tables_without_scripts(open_page, widget):
    page = open_page(java_script_enabled=False)
    page.set_content(document("light", widget.page()))
    grid, comparison = page.locator("table").all()
    assert grid.locator("tr").nth(1).inner_text().split() == [
        "Row", "0", *["pad"] * 3, "It", "·will", "·rain", "·in", "·the"
    ]  # fmt: skip
    assert comparison.locator("tr").nth(1).locator("td").nth(1).inner_text() == "0.00"
    assert len(widget.page().encode()) < 50_000


# ---- looks


def test_a_switch_moves_nothing_below_it(mount, widget):
    page = mount(widget)
    before = page.locator(".padding-grid-rows").bounding_box()
    for case in _CASES:
        turn(page, case)
        ready(page)
        assert page.locator(".batch-scroll").bounding_box()["y"] < before["y"]
        assert abs(page.locator(".padding-grid-rows").bounding_box()["y"] - before["y"]) <= 25  # one line
