"""The token chips widget on a blank page, with the Python widget as its kernel."""

import pytest
from browser_kit import document, stop_clock
from playwright.sync_api import expect

from course_utils import load_tokenizer
from course_utils.widgets import TokenChips


@pytest.fixture(scope="module")
def tokenizers():
    return {"GPT-2": load_tokenizer("gpt2"), "SmolLM2": load_tokenizer("smollm2-135m")}


@pytest.fixture
def widget(tokenizers):
    return TokenChips("Hello world", tokenizers)


def chips(page, column=0):
    return page.locator("section").nth(column).locator(".token-chip")


def panel(page, column=0):
    return page.locator(".token-chips-details").nth(column)


def test_two_tokenizers_side_by_side(mount, widget, tokenizers):
    page = mount(widget)
    for column, name in enumerate(tokenizers):
        section = page.get_by_role("region", name=name)
        assert chips(page, column).all_inner_texts() == ["Hello", "·world"]
        assert section.locator(".token-chips-counts").inner_text() == "2 tokens · 11 bytes · 11 characters"
    left, right = (page.locator("section").nth(column).bounding_box() for column in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]


def test_details_give_id_bytes_and_merges_in_order(mount, widget):
    page = mount(widget)
    chips(page).nth(1).hover()
    facts = dict(
        zip(
            panel(page).locator("dt").all_inner_texts(),
            panel(page).locator("dd").all_inner_texts(),
            strict=True,
        )
    )
    assert facts == {
        "Token": "·world",
        "Id": "995",
        "Spelled": "Ġworld",
        "Bytes (hex)": "20 77 6F 72 6C 64",
    }
    rows = [row.locator("td").all_inner_texts() for row in panel(page).locator("tbody tr").all()]
    assert rows == [
        ["Ġ", "w", "Ġw", "10"],
        ["o", "r", "or", "17"],
        ["l", "d", "ld", "79"],
        ["Ġw", "or", "Ġwor", "220"],
        ["Ġwor", "ld", "Ġworld", "739"],
    ]


def test_what_is_no_plain_token(mount, tokenizers):
    page = mount(TokenChips("🦄x<|endoftext|>", tokenizers))  # no token of its own in GPT-2
    assert chips(page).all_inner_texts() == ["\\xf0\\x9f", "\\xa6", "\\x84", "x", "<|endoftext|>"]
    chips(page).nth(1).focus()
    expect(panel(page)).to_contain_text("One byte, no merge.")
    chips(page).nth(4).focus()
    expect(panel(page)).to_contain_text("Special token: cut out of the text as a whole")
    expect(panel(page)).to_contain_text("50256")
    assert "token-chip-special" in chips(page).nth(4).get_attribute("class")


def test_tokens_that_look_like_html_are_text(mount, tokenizers):
    page = mount(TokenChips("<file_sep><|im_end|>", {"SmolLM2": tokenizers["SmolLM2"]}))
    assert chips(page).all_inner_texts() == ["<file_sep>", "<|im_end|>"]
    expect(panel(page).locator("dd").first).to_have_text("<file_sep>")


@pytest.mark.parametrize("name", ["GPT-2", "SmolLM2"])
def test_no_chip_is_blank(mount, tokenizers, name):
    page = mount(TokenChips("☀️1️⃣ \u3164\u2800", {name: tokenizers[name]}))
    texts = chips(page).all_inner_texts()
    assert texts.count("U+FE0F") + texts.count("1U+FE0F") == 2
    assert all(text.strip() for text in texts)
    for chip in chips(page).all():
        assert chip.bounding_box()["width"] > 10


def test_control_characters_are_answered(mount, widget, tokenizers):
    page = mount(widget)
    page.get_by_label("Text").fill("well \x14-- yes")
    expect(chips(page, 1)).to_have_text(["well", "·--", "·yes"])
    expect(page.locator(".course-wrong")).to_be_hidden()
    chips(page, 1).nth(1).focus()
    assert [row.locator("td").all_inner_texts()[2] for row in panel(page, 1).locator("tbody tr").all()] == [
        "--",
        "Ġ--",
    ]


def test_a_long_text_is_drawn_as_far_as_it_says(mount, open_page, widget):
    page = mount(widget)
    notes = page.locator("section > p:not(:has(span))")
    assert [note.is_visible() for note in notes.all()] == [False, False]
    page.get_by_label("Text").fill("🙂" * 1000)
    expect(chips(page)).to_have_count(512)
    expect(page.locator(".token-chips-counts").first).to_have_text(
        "2,000 tokens · 4,000 bytes · 1,000 characters"
    )
    for note in notes.all():
        expect(note).to_have_text("Shown: the first 512 of 2,000 tokens.")
    saved = open_page()
    saved.set_content(document("light", widget.page()))
    saved.locator("[data-ready]").wait_for()
    kept = len(widget.page_state()["shown"]["tokenizers"][0]["tokens"])
    assert 20 < kept < 512
    expect(chips(saved)).to_have_count(kept)
    expect(saved.locator("section > p:not(:has(span))").first).to_have_text(
        f"Saved: the first {kept} of 2,000 tokens. To see more, run this cell."
    )
    page.get_by_label("Text").fill("short")
    expect(notes.first).to_be_hidden()


def test_chips_follow_typing(mount, widget):
    page = mount(widget)
    page.get_by_label("Text").fill("")
    expect(chips(page)).to_have_count(0)
    expect(page.locator("section").first).to_contain_text("No text, no tokens. Type something above.")
    stop_clock(page)
    page.get_by_label("Text").press_sequentially("It will rain")
    page.clock.run_for(149)
    page.get_by_label("Text").press_sequentially(" in the")
    page.clock.run_for(149)
    assert len(page.kernel.received) == 1  # the empty text: not one request a key
    page.clock.run_for(1)
    expect(chips(page)).to_have_text(["It", "·will", "·rain", "·in", "·the"])
    assert widget.text == "It will rain in the"
    assert widget.ids["GPT-2"] == [1026, 481, 6290, 287, 262]
    assert len(page.kernel.received) == 2


def test_python_changes_the_text(mount, widget):
    page = mount(widget)
    widget.text = "My dog is"
    expect(page.get_by_label("Text")).to_have_value("My dog is")
    expect(chips(page)).to_have_text(["My", "·dog", "·is"])


def test_keys(mount, widget):
    page = mount(widget)
    widget.text = "one two three"
    expect(chips(page)).to_have_count(3)
    page.get_by_label("Text").focus()
    page.keyboard.press("Tab")
    expect(chips(page).nth(0)).to_be_focused()
    for key, at in (
        ("ArrowRight", 1),
        ("ArrowDown", 2),
        ("ArrowRight", 2),
        ("Home", 0),
        ("End", 2),
        ("ArrowLeft", 1),
    ):
        page.keyboard.press(key)
        expect(chips(page).nth(at)).to_be_focused()
    expect(panel(page)).to_contain_text("·two")
    assert chips(page).nth(1).get_attribute("aria-current") == "true"
    page.keyboard.press("Tab")
    expect(chips(page, 1).nth(0)).to_be_focused()
    for control in page.locator("button, textarea").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a" * 2001, "The text has 2,001 characters, and this view shows at most 2,000."),
        ("ab\ud83d", "Character 3 of the text is U+D83D, half of a surrogate pair"),
    ],
    ids=["too long", "half a surrogate pair"],
)
def test_a_bad_text_is_one_sentence_and_loses_nothing(mount, widget, text, sentence):
    page = mount(widget)
    page.get_by_label("Text").evaluate(
        """(e, units) => {
          e.value = String.fromCharCode(...units);
          e.dispatchEvent(new Event("input"));
        }""",
        [ord(c) for c in text],
    )
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    expect(page.get_by_label("Text")).to_have_attribute("aria-invalid", "true")
    assert page.get_by_label("Text").evaluate("e => e.value.length") == len(text)
    assert chips(page).all_inner_texts() == ["Hello", "·world"]
    assert widget.text == "Hello world"
    page.get_by_label("Text").fill("fine")
    expect(page.locator(".course-wrong")).to_be_hidden()
    expect(chips(page)).to_have_text(["fine"])


@pytest.mark.parametrize(
    "text",
    ["<img src=x onerror=alert(1)>", "</script><b>", "\u202e\u200b", "مرحبا بالعالم"],
    ids=["image", "script", "direction marks", "right to left"],
)
def test_a_hostile_text_is_only_text(mount, widget, text):
    page = mount(widget)
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    page.get_by_label("Text").fill(text)
    expect(chips(page).first).not_to_have_text("Hello")
    assert widget.text == text
    assert page.locator("#host :is(img, script, b)").count() == 0
    # Chips stand from left to right in the order of the text, whatever their direction.
    boxes = [chip.bounding_box() for chip in chips(page).all()]
    places = [(round(box["y"]), box["x"]) for box in boxes]
    assert places == sorted(places)


def test_a_text_typed_again_while_it_is_under_way_is_drawn(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.kernel.hold()
    page.get_by_label("Text").fill("one")
    page.clock.run_for(550)
    expect(page.get_by_role("status")).to_have_text("Kernel busy…")  # it is under way
    page.get_by_label("Text").fill("two")
    page.get_by_label("Text").fill("one")
    page.clock.run_for(150)  # the pause after which a text is asked for
    page.kernel.release()
    expect(chips(page).first).to_have_text("one")
    expect(page.get_by_role("status")).to_have_text("")
    assert [message["request"]["text"] for message in page.kernel.received] == ["one", "one"]
