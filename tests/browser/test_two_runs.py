"""The widget with two runs on a blank page, with the Python widget as its kernel."""

import pytest
from browser_kit import document, stop_clock
from playwright.sync_api import expect

from course_utils import load, load_tokenizer
from course_utils.widgets import TwoRuns


@pytest.fixture
def widget():
    return TwoRuns(
        load("tiny-llama", "cpu")[0],
        load_tokenizer("gpt2"),
        "My dog is",
        right="without a cache",
        new_tokens=4,
    )


def test_both_runs_stand_below_each_other(mount, widget):
    page = mount(widget)
    expect(page.get_by_role("rowheader")).to_have_text(["as loaded", "without a cache"])
    rows = page.locator("tbody tr")
    texts = [token["text"] for token in widget.shown["runs"][0]["tokens"]]
    for at in (0, 1):
        assert rows.nth(at).locator(".two-runs-token").all_inner_texts() == texts
    expect(page.locator(".two-runs-verdict")).to_contain_text("All 4 tokens are equal")


def test_another_run_and_another_prompt(mount, widget):
    page = mount(widget)
    page.get_by_label("Second run").select_option("in a padded batch")
    expect(page.get_by_role("rowheader").nth(1)).to_have_text("in a padded batch")
    stop_clock(page)
    page.get_by_label("Prompt").fill("Hello")
    page.clock.run_for(1000)
    expect(page.locator(".two-runs-token").first).to_have_text(widget.shown["runs"][0]["tokens"][0]["text"])
    assert widget.prompt == "Hello"
    page.get_by_label("Prompt").fill("")
    page.clock.run_for(1000)
    expect(page.locator(".course-wrong")).to_contain_text("The prompt is empty")
    assert widget.prompt == "Hello"


def test_a_difference_is_marked(open_page, widget):
    shown = widget.shown | {"parted": 2}
    widget.set_trait("shown", shown)
    page = open_page()
    page.set_content(document("light", widget.page()))
    expect(page.locator(".two-runs-parted")).to_have_count(2)
    expect(page.locator(".two-runs-after")).to_have_count(2)
    assert page.get_by_label("Prompt").get_attribute("readonly") is not None
