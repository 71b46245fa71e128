"""The scored text on a blank page, with the Python widget as its kernel, and as a saved page."""

import math
import re

import pytest
import torch
from browser_kit import document, stop_clock
from playwright.sync_api import expect

from course_utils import load_tokenizer
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


def token(page, place):
    return page.locator("button.scored-text-token").nth(place)


def rows(page, table):
    return [row.locator("td").all_text_contents() for row in page.locator(f"{table} tbody tr").all()]


def percent(share):
    return "<0.01 %" if share < 0.0001 else f"{100 * share:.2f} %"


def test_the_numbers_are_pythons(mount, widget):
    page = mount(widget)
    scored = widget.surprises[1:]
    mean = sum(scored) / len(scored)
    figures = [page.locator(f".scored-text-{name}").inner_text() for name in ("scored", "total", "mean")]
    assert figures == ["6 of 7", f"{sum(scored):.2f} bits", f"{mean:.2f} bits"]
    assert page.locator(".scored-text-perplexity").inner_text() == three_digits(widget.perplexity)
    expect(page.locator(".scored-text-note")).to_contain_text(
        "The first token has no probability. Perplexity"
    )
    table = rows(page, ".scored-text-scroll")
    assert table[0] == ["1", "The", "none", "none", "none"]
    for place, (cells, one) in enumerate(zip(table[1:], widget.shown["tokens"][1:], strict=True), 1):
        label = widget.shown["labels"][str(one["id"])]
        prob = percent(2 ** -one["bits"])
        assert cells == [str(place + 1), label, prob, f"{one['bits']:.2f}", f"{one['rank']:,}"]


def test_the_class_of_a_token_is_colour_and_underline(mount, widget):
    probs = [0.8, 0.5, 0.4999, 0.05, 0.005, 0.0005]
    for one, prob in zip(widget.shown["tokens"][1:], probs, strict=True):
        one["bits"] = -math.log2(prob)
    page = mount(widget)
    look = "e => [getComputedStyle(e).borderBottomWidth, getComputedStyle(e).backgroundColor]"
    first, *looks = [token(page, place).evaluate(look) for place in range(7)]
    assert [width for width, _ in looks] == ["1px", "1px", "1px", "2px", "3px", "5px"]
    assert looks[0] == looks[1]
    assert len({colour for _, colour in looks}) == 5
    assert first[1] == looks[0][1]
    assert token(page, 0).evaluate("e => getComputedStyle(e).borderBottomStyle") == "dashed"
    swatches = page.locator(".scored-text-legend .scored-text-token").all()
    assert [swatch.evaluate(look) for swatch in swatches] == [looks[0], *looks[2:], first]


def test_runners_up_on_hover_and_on_focus(mount, widget):
    page = mount(widget)
    panel = page.locator(".scored-text-details")
    most = max(range(1, 7), key=lambda place: widget.surprises[place])
    expect(token(page, most)).to_have_attribute("aria-current", "true")  # the greatest surprise is shown
    for place in (2, 5):
        token(page, place).hover()
        one = widget.shown["tokens"][place]
        expect(panel.locator("p")).to_contain_text(f"token {place + 1}, id {one['id']}: probability ")
        expected = [
            [str(rank), widget.shown["labels"][str(other)], percent(share), ""]
            for rank, (other, share) in enumerate(one["top"], 1)
        ]
        found = rows(page, ".scored-text-details")
        assert found[:5] == expected
        assert found[5][:2] == [f"{one['rank']:,}", f"{widget.shown['labels'][str(one['id'])]} (in the text)"]
    token(page, 0).focus()
    expect(panel).to_have_text("The is the first token. Nothing stands before it, so it has no probability.")


def test_a_likely_token_is_marked_among_the_others(mount, widget):
    one = widget.shown["tokens"][1]
    one |= {"rank": 2, "id": one["top"][1][0]}
    page = mount(widget)
    token(page, 1).focus()
    own = page.locator(".scored-text-own")
    expect(own).to_have_count(1)
    expect(own).to_contain_text("(in the text)")
    expect(page.locator(".scored-text-details tbody tr")).to_have_count(5)


def test_keys(mount, widget):
    page = mount(widget)
    page.get_by_label("Text", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    expect(token(page, 0)).to_be_focused()
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 6), ("ArrowRight", 6)):
        page.keyboard.press(key)
        expect(token(page, place)).to_be_focused()
        expect(token(page, place)).to_have_attribute("aria-current", "true")
        expect(page.locator(".scored-text-details p")).to_contain_text(f"token {place + 1},")
    page.keyboard.press("Tab")
    expect(page.locator("summary")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="All tokens")).to_be_visible()
    for control in page.locator("button, summary, textarea, [tabindex]").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_a_typed_text_is_scored_once_typing_pauses(mount, widget):
    page = mount(widget)
    stop_clock(page)
    box = page.get_by_label("Text", exact=True)
    box.fill("")
    box.press_sequentially("My dog")
    page.clock.run_for(399)
    box.press_sequentially(" is")
    page.clock.run_for(399)
    assert page.kernel.received == []
    page.clock.run_for(1)
    expect(token(page, 2)).to_have_text("·is")
    assert widget.text == "My dog is"
    assert [message["request"] for message in page.kernel.received] == [{"text": "My dog is"}]
    expect(box).to_have_value("My dog is")
    expect(box).to_be_focused()
    widget.text = "From Python\nin two lines"
    expect(box).to_have_value("From Python\nin two lines")
    line_feed = page.locator(".scored-text-token", has_text="⏎")
    box = line_feed.bounding_box()
    after = token(page, 3).bounding_box()
    assert after["y"] > box["y"] + box["height"]  # a line feed breaks the line


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The text is empty, so there is nothing to score. Type at least one word."),
        ("Hello", "The text is one token, “Hello”, and a first token has no probability"),
        ("word " * 20, "The text has 21 tokens, and the model has 16 positions."),
    ],
    ids=["empty", "one token", "too long"],
)
def test_a_bad_text_is_one_sentence_and_loses_nothing(mount, widget, text, sentence):
    page = mount(widget)
    before = page.locator(".scored-text-tokens").inner_text()
    box = page.get_by_label("Text", exact=True)
    box.fill(text)
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    expect(box).to_have_attribute("aria-invalid", "true")
    expect(box).to_have_value(text)
    assert page.locator(".scored-text-tokens").inner_text() == before
    assert widget.text == TEXT
    box.fill("Good again")
    expect(page.locator(".course-wrong")).to_be_hidden()
    expect(box).to_have_attribute("aria-invalid", "false")


def test_an_overtaken_answer_is_drawn_when_the_newer_text_is_refused(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.kernel.hold()
    box = page.get_by_label("Text", exact=True)
    for text in ("My dog", ""):
        box.fill(text)
        page.clock.run_for(400)
    expect(page.get_by_role("status")).to_have_text("Kernel busy…")
    page.kernel.release()
    expect(page.get_by_role("alert")).to_contain_text("The text is empty")
    expect(page.locator(".scored-text-tokens")).to_have_text("My·dog")
    expect(box).to_have_value("")
    widget.text = "From Python"
    expect(box).to_have_value("From Python")
    expect(page.locator(".course-wrong")).to_be_hidden()


def test_an_overtaken_answer_is_not_drawn_before_the_newer_one(mount, widget):
    page = mount(widget)
    page.evaluate(
        """() => {
          window.drawn = [];
          const chips = document.querySelector(".scored-text-tokens");
          new MutationObserver(() => drawn.push(chips.textContent)).observe(chips, { childList: true });
        }"""
    )
    stop_clock(page)
    page.kernel.hold()
    for text in ("My dog", "Your cat"):
        page.get_by_label("Text", exact=True).fill(text)
        page.clock.run_for(400)
    page.kernel.release()
    expect(page.locator(".scored-text-tokens")).to_have_text("Your·cat")
    assert page.evaluate("drawn") == ["Your·cat"]


def test_an_impossible_token_is_no_nan(mount, model, gpt2):
    never = gpt2(" of").input_ids[0]

    def without(module, args, kwargs, output):
        output.logits[..., never] = -torch.inf
        return output

    hook = model.register_forward_hook(without, with_kwargs=True)
    try:
        page = mount(ScoredText(model, gpt2, TEXT))
    finally:
        hook.remove()
    assert page.locator(".scored-text-perplexity").inner_text() == "∞"
    expect(page.locator(".scored-text-note")).to_contain_text("holds a token of this text impossible")
    expect(page.locator(".scored-text-details p")).to_contain_text("probability 0.00 %, surprise ∞ bits")
    assert not re.search("NaN|Infinity|undefined|null", page.locator("#host").inner_html())


def test_a_token_that_the_tokenizer_put_first_is_said(mount, model):
    page = mount(ScoredText(model, load_tokenizer("gpt2", add_bos_token=True), "Hello"))
    expect(page.locator(".scored-text-note")).to_contain_text("the tokenizer puts it before every text")
    token(page, 0).focus()
    expect(page.locator(".scored-text-details")).to_contain_text("was put before the text by the tokenizer")


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", "</script><b>", "\u202e\u200bعربي", "$\\frac{1}{2}$"]
)
def test_a_hostile_text_is_only_text(mount, open_page, gpt2, text):
    widget = ScoredText(tiny_gpt2(64), gpt2, text)
    live, saved = mount(widget), open_page()
    saved.set_content(document("light", widget.page()))
    saved.locator("[data-ready]").wait_for()
    for page in (live, saved):
        page.on("dialog", lambda _: pytest.fail("a script ran"))
        expect(page.get_by_label("Text", exact=True)).to_have_value(text)
        assert page.locator(".course-widget :is(img, script, b)").count() == 0


def test_a_saved_page_is_alive_without_a_kernel(mount, open_page, widget):
    live, saved = mount(widget), open_page()
    saved.set_content(document("light", widget.page()))
    saved.locator("[data-ready]").wait_for()
    for selector in (".scored-text-tokens", ".scored-text-figures", ".scored-text-details"):
        assert saved.locator(selector).inner_text() == live.locator(selector).inner_text()
    expect(saved.get_by_role("status")).to_contain_text("To type another text, run this cell.")
    assert not saved.get_by_label("Text", exact=True).is_editable()
    token(saved, 2).hover()
    expect(saved.locator(".scored-text-details p")).to_contain_text("token 3,")
