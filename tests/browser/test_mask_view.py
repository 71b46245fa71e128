"""The mask view on a blank page, with the Python widget as its kernel, and as a saved page."""

import pytest
import torch
from browser_kit import document
from playwright.sync_api import expect

from course_utils import load, load_tokenizer
from course_utils.widgets import MaskView, mask_view

SENTENCES = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def model():
    return load("tiny-gpt2", "cpu")[0]


@pytest.fixture
def widget(model, gpt2):
    return MaskView(model, gpt2, SENTENCES)


def cell(page, query, key):
    return page.locator(".batch-table tbody").first.locator("tr").nth(query).locator("button").nth(key)


def cells(page):
    """All cells' texts: list of lines."""
    lines = page.locator(".batch-table tbody").first.locator("tr").all()
    return [line.locator("button").all_inner_texts() for line in lines]


def steps(page):
    """The query step by step: dict from its name to the cells' texts."""
    lines = page.locator(".mask-view-steps tr").all()[1:]
    return {line.locator("th").inner_text(): line.locator("td").all_inner_texts() for line in lines}


def as_shown(weight):
    """A weight as a cell shows it: str."""
    return "NaN" if weight != weight else str(int(weight)) if weight in (0, 1) else f"{weight:.2f}"


def words(page):
    return page.locator(".mask-view-words").inner_text()


def test_begins_at_a_row_that_is_masked_everywhere(mount, widget):
    page = mount(widget)
    assert cells(page)[0] == ["0.12"] * 8
    expect(page.locator(".mask-view-everywhere")).to_have_text(
        "Hatched: forbidden. Masked everywhere: queries 0, 1 and 2. "
        "To the left there is only padding, to the right only the future."
    )
    assert words(page) == (
        "All 8 keys are forbidden to this query. Yet each gets 0.12, 1/8, the future included. "
        "Near −3.4e38, float32 has a number only every 2.0e31: beside it the scores round away, "
        "and all sums are equal."
    )
    assert page.locator(".batch-table thead bdi").all_inner_texts() == [
        "pad", "pad", "pad", "It", "·will", "·rain", "·in", "·the"
    ]  # fmt: skip


def test_every_setting_shows_torchs_weights(mount, widget):
    page = mount(widget)
    for mask in ("causal", "padding", "both"):
        page.get_by_label(mask, exact=True).check()
        for fill in ("−∞", "finfo.min", "−10000"):
            page.get_by_label(fill, exact=True).check()
            for dtype in ("float32", "bfloat16", "float16"):
                page.get_by_label(dtype, exact=True).check()
                shown = [[as_shown(weight) for weight in row] for row in widget.weights.tolist()]
                assert cells(page) == shown, (mask, fill, dtype)
    assert page.kernel.received == []  # all of it is done in the page


def test_a_cell_tells_its_three_numbers(mount, widget):
    page = mount(widget)
    scores = widget._scores()
    cell(page, 5, 3).click()
    assert page.locator(".mask-view-picked").inner_text() == (
        f"Query 5 ·rain, key 3 It: score {scores[5, 3]:.2f} + mask 0 = sum {scores[5, 3]:.2f}, "
        f"weight {widget.weights[5, 3]:.2f}"
    ).replace("-", "−")
    cell(page, 5, 6).click()
    expect(page.locator(".mask-view-picked strong")).to_have_text(
        [f"{scores[5, 6]:.2f}".replace("-", "−"), "−3.4e38", "−3.4e38", "0"]
    )
    assert (widget.query, widget.key) == (5, 6)
    assert steps(page)["softmax"] == [as_shown(weight) for weight in widget.weights[5].tolist()]
    assert steps(page)["+ mask"] == [*["−3.4e38"] * 3, "0", "0", "0", *["−3.4e38"] * 2]
    assert words(page) == "5 of 8 keys are forbidden and get 0. The other 3 share all the weight."
    cell(page, 3, 3).click()
    assert words(page) == "7 of 8 keys are forbidden and get 0. The one that is left gets all the weight."


def test_arrow_keys_reach_every_cell(mount, widget):
    page = mount(widget)
    page.get_by_label("weights", exact=True).focus()
    page.keyboard.press("Tab")
    expect(cell(page, 0, 0)).to_be_focused()
    for key, place in (
        ("ArrowDown", (1, 0)), ("ArrowRight", (1, 1)), ("End", (1, 7)), ("ArrowRight", (1, 7)),
        ("ArrowUp", (0, 7)), ("ArrowUp", (0, 7)), ("ArrowLeft", (0, 6)), ("Home", (0, 0)),
    ):  # fmt: skip
        page.keyboard.press(key)
        expect(cell(page, *place)).to_be_focused()
        expect(cell(page, *place)).to_have_attribute("aria-current", "true")
        assert (widget.query, widget.key) == place
    assert page.locator("table button[tabindex='0']").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.body")
    for control in page.locator("#host :is(button, input, textarea, [tabindex])").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_stages_are_shown_one_at_a_time(mount, widget):
    page = mount(widget)
    scores = widget._scores()
    page.get_by_label("scores", exact=True).check()
    assert cells(page)[4][:4] == [f"{score:.2f}".replace("-", "−") for score in scores[4, :4].tolist()]
    page.get_by_label("mask", exact=True).check()
    assert cells(page)[4] == [*["−3.4e38"] * 3, "0", "0", *["−3.4e38"] * 3]
    assert cells(page)[0] == ["−3.4e38"] * 8
    page.get_by_label("−10000").check()
    page.get_by_label("bfloat16").check()
    assert cells(page)[0] == ["−9984"] * 8  # the nearest that bfloat16 has
    page.get_by_label("scores + mask").check()
    assert cells(page)[0] == ["−9984"] * 8
    page.get_by_label("causal", exact=True).check()
    hatched = page.locator(".batch-table tbody").first.locator("button.batch-hatched")
    assert hatched.count() == 28
    page.get_by_label("padding", exact=True).check()
    assert hatched.count() == 24
    page.get_by_label("both", exact=True).check()
    assert hatched.count() == 49


def test_nan_is_a_finding(mount, widget):
    page = mount(widget)
    page.get_by_label("−∞").check()
    assert cells(page)[0] == ["NaN"] * 8
    assert cells(page)[3] == ["0", "0", "0", "1", "0", "0", "0", "0"]
    assert page.locator("button.mask-view-nan").count() == 24
    assert cell(page, 0, 0).get_attribute("aria-label") == "NaN, query 0, key 0, forbidden"
    assert words(page) == (
        "All 8 keys are forbidden to this query. Every sum is −∞, so softmax divides 0 by 0. The result is "
        "NaN, “not a number”: this is not a distribution, and whatever is calculated with it becomes NaN too."
    )
    assert cell(page, 0, 0).evaluate("e => e.style.getPropertyValue('--weight')") == "0"
    page.get_by_label("padding", exact=True).check()
    assert "NaN" not in page.locator("#host").inner_text()
    expect(page.locator(".mask-view-everywhere")).to_contain_text("Every query may look at some key.")


def test_minus_ten_thousand_is_no_mask(mount, widget):
    page = mount(widget)
    page.get_by_label("−10000").check()
    assert "Yet the weights are as if nothing were" in words(page)
    unmasked = widget._scores()[0].softmax(-1)
    assert cells(page)[0] == [as_shown(weight) for weight in unmasked.tolist()]
    page.get_by_label("float16", exact=True).check()
    assert "Near −10000, float16 has a number only every 8" in words(page)


def test_rounding_is_said(mount, monkeypatch, model, gpt2):
    scores = torch.tensor([3.0, -20.0, 5.0, -40.0, 3.0, 3.0, 3.0, 3.0]).expand(3, 4, 8, 8)
    monkeypatch.setattr(mask_view, "attention_scores", lambda *_: scores)
    page = mount(MaskView(model, gpt2, SENTENCES, dtype="float16"))
    assert cells(page)[0] == ["0.17", "0", "0.17", "0", *["0.17"] * 4]
    assert words(page) == (
        "All 8 keys are forbidden to this query. The weights are what rounding left of the scores. "
        "2 of the sums fell below the smallest number of float16, to −∞."
    )
    page.get_by_label("bfloat16").check()
    page.get_by_label("−10000").check()
    assert words(page).endswith("Near −9984, bfloat16 has a number only every 64.")


def test_another_sentence_layer_and_head(mount, widget, model, gpt2):
    page = mount(widget)
    page.get_by_label("My dog is", exact=True).check()
    assert widget.row == 2
    expect(page.locator(".mask-view-everywhere")).to_contain_text("queries 0, 1, 2, 3 and 4")
    page.get_by_label("I want to eat a big bowl of", exact=True).check()
    expect(page.locator(".mask-view-everywhere")).to_contain_text("Every query may look at some key.")
    page.kernel.hold()
    page.get_by_label("Layer, 0 to 3").fill("2")
    page.get_by_label("Head, 0 to 3").fill("1")
    before = cells(page)
    page.kernel.release()
    expect(cell(page, 7, 0)).not_to_have_text(before[7][0])
    expect(page.get_by_label("Head, 0 to 3")).to_have_value("1")  # still being typed
    expected = MaskView(model, gpt2, SENTENCES, layer=2, head=1)
    expected.row = 1
    page.keyboard.press("Enter")
    expect(cell(page, 7, 0)).to_have_text(as_shown(expected.weights[7, 0].item()))
    assert (widget.layer, widget.head, widget.row) == (2, 1, 1)
    assert cells(page) == [[as_shown(weight) for weight in row] for row in widget.weights.tolist()]


def test_a_layer_that_is_not_there(mount, widget):
    page = mount(widget)
    before = cells(page)
    layer = page.get_by_label("Layer, 0 to 3")
    layer.fill("4")
    page.keyboard.press("Tab")
    expect(page.get_by_role("alert")).to_have_text(
        "There is no layer 4: this model has 4 layers. Give 0 to 3."
    )
    expect(layer).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Sentences")).to_have_attribute("aria-invalid", "false")
    assert cells(page) == before
    page.get_by_label("−∞").check()  # the switches go on with what is shown
    assert cells(page)[0] == ["NaN"] * 8
    layer.fill("3")
    page.keyboard.press("Tab")
    expect(page.locator(".course-wrong")).to_be_hidden()
    expect(layer).to_have_attribute("aria-invalid", "false")
    assert widget.layer == 3


def test_two_refusals_are_told_one_at_a_time(mount, widget):
    page = mount(widget)
    page.get_by_label("Sentences").fill("one\n\nthree")
    expect(page.get_by_role("alert")).to_contain_text("Sentence 2 is empty")
    layer = page.get_by_label("Layer, 0 to 3")
    layer.fill("9")
    page.keyboard.press("Tab")
    expect(page.get_by_role("alert")).to_contain_text("There is no layer 9")
    layer.fill("1")
    page.keyboard.press("Tab")
    expect(page.get_by_role("alert")).to_contain_text("Sentence 2 is empty")
    assert (widget.layer, widget.sentences) == (1, SENTENCES)
    layer.fill("")
    page.keyboard.press("Tab")
    expect(layer).to_have_value("1")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The batch is empty"),
        ("one\n\nthree", "Sentence 2 is empty"),
        ("word " * 16, "Sentence 1 has 17 tokens, and this view shows at most 16."),
        ("a\ud83d", "Character 2 of sentence 1 is U+D83D, half of a surrogate pair"),
    ],
    ids=["nothing", "an empty line", "too long", "half a surrogate pair"],
)
def test_bad_sentences_are_one_sentence_and_lose_nothing(mount, widget, text, sentence):
    page = mount(widget)
    before = cells(page)
    box = page.get_by_label("Sentences")
    box.evaluate(
        "(e, codes) => { e.value = String.fromCharCode(...codes); e.dispatchEvent(new Event('input')); }",
        [ord(c) for c in text],
    )
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    expect(box).to_have_attribute("aria-invalid", "true")
    assert cells(page) == before
    assert widget.sentences == SENTENCES
    box.fill("Good again\nyes")
    expect(page.locator(".course-wrong")).to_be_hidden()
    expect(page.locator(".batch-table tbody").first.locator("tr")).to_have_count(2)
    assert (widget.row, widget.query, widget.key) == (1, 0, 0)
    expect(page.get_by_label("yes", exact=True)).to_be_checked()


def test_fewer_and_shorter_sentences_leave_the_view_whole(mount, widget):
    page = mount(widget)
    page.get_by_label("My dog is", exact=True).check()
    cell(page, 7, 7).click()
    page.get_by_label("Sentences").fill("Hello")
    expect(page.locator(".batch-table tbody").first.locator("tr")).to_have_count(1)
    assert cells(page) == [["1"]]
    assert words(page) == "Nothing is forbidden to this query: its weights are those of its scores."
    widget.sentences = SENTENCES
    expect(page.locator(".batch-table tbody").first.locator("tr")).to_have_count(8)
    expect(page.get_by_label("Sentences")).to_have_value("\n".join(SENTENCES))


def test_python_moves_the_switches(mount, widget):
    page = mount(widget)
    widget.fill, widget.dtype, widget.masks = "-inf", "float16", "causal"
    for label in ("−∞", "float16", "causal"):
        expect(page.get_by_label(label, exact=True)).to_be_checked()
    widget.masks, widget.row, widget.query = "both", 2, 4
    expect(page.get_by_label("My dog is", exact=True)).to_be_checked()
    expect(page.locator(".mask-view-picked")).to_contain_text("Query 4 pad, key 0 pad")


@pytest.mark.parametrize(
    "text",
    ["<img src=x onerror=alert(1)>", "</script><b>bold", "\u202e\u200bعربي", "שלום <b>"],
    ids=["image", "script", "direction marks", "right to left"],
)
def test_hostile_sentences_are_only_text(mount, open_page, widget, model, gpt2, text):
    page = mount(widget)
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    page.get_by_label("Sentences").fill(f"{text}\nshort")
    expect(page.get_by_label("short", exact=True)).to_be_visible()
    assert widget.sentences[0] == text
    assert page.locator("#host :is(img, script, b)").count() == 0
    saved = open_page()
    saved.on("dialog", lambda _: pytest.fail("a script ran"))
    saved.set_content(document("light", MaskView(model, gpt2, [text]).page()))
    expect(saved.locator(".mask-view-words")).to_be_visible()
    assert saved.locator("main :is(img, b)").count() == 0


# ---- saved


def test_all_arithmetic_works_without_a_kernel(open_page, widget):
    page = open_page()
    page.set_content(document("light", widget.page()))
    expect(page.get_by_role("status")).to_contain_text("A saved view: all switches work.")
    assert cells(page)[0] == ["0.12"] * 8
    page.get_by_label("−∞").check()
    page.get_by_label("float16", exact=True).check()
    page.get_by_label("My dog is", exact=True).check()
    cell(page, 7, 6).click()
    widget.fill, widget.dtype, widget.row = "-inf", "float16", 2
    assert cells(page) == [[as_shown(weight) for weight in row] for row in widget.weights.tolist()]
    expect(page.locator(".mask-view-picked")).to_contain_text("Query 7 ·is, key 6 ·dog")
    for label in ("Sentences", "Layer, 0 to 3", "Head, 0 to 3"):
        assert not page.get_by_label(label).is_editable()


def test_still_table_without_scripts(open_page, widget):
    widget.fill = "-inf"
    page = open_page(java_script_enabled=False)
    page.set_content(document("light", widget.page()))
    assert page.locator("table tr").nth(1).inner_text().split() == ["pad", *["NaN"] * 8]
    assert page.locator("table tr").nth(4).inner_text().split()[4] == "1.00"
    expect(page.locator("p").last).to_have_text("Masked everywhere: 0 (NaN), 1 (NaN), 2 (NaN).")


# ---- looks


def test_fits_a_narrow_page(mount, widget):
    page = mount(widget, width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for control in page.locator("#host :is(input, textarea)").all():
        box = control.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360
    cell(page, 0, 0).focus()
    page.keyboard.press("End")
    box = cell(page, 0, 7).bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360  # the focus brings its cell into view
