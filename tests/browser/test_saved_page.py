"""A saved output without a kernel and without a network: alive, or a still table where scripts do not run."""

import nbformat
import pytest
from browser_kit import document
from nbconvert import HTMLExporter
from playwright.sync_api import expect

from course_utils.widgets import NextToken, TokenChips
from tiny import tiny_gpt2


@pytest.fixture(scope="module")
def next_token(gpt2):
    return NextToken(tiny_gpt2(), gpt2, "</script><b>Hello", temperature=1.5)


@pytest.fixture(scope="module")
def token_chips(gpt2):
    return TokenChips("Hello world </script>", {"GPT-2": gpt2})


@pytest.fixture(scope="module")
def exported(tmp_path_factory, next_token, token_chips):
    """A notebook of both widgets, one of them twice, as nbconvert makes HTML of it: path."""
    outputs = []
    for widget in (next_token, token_chips, next_token):
        data = {"text/plain": repr(widget), "text/html": widget.page()}
        outputs.append(nbformat.v4.new_output("execute_result", data, execution_count=1))
    cells = [nbformat.v4.new_code_cell("widget", outputs=[output], execution_count=1) for output in outputs]
    exporter = HTMLExporter(require_js_url="", mathjax_url="", widget_renderer_url="")
    html, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    path = tmp_path_factory.mktemp("page") / "lesson.html"
    path.write_text(html, encoding="utf-8")
    return path


def test_sliders_work_in_an_exported_notebook(open_page, exported):
    page = open_page()
    page.goto(exported.as_uri())
    widgets = page.locator(".next-token")
    expect(widgets).to_have_count(2)
    first = widgets.first.locator(".next-token-share").first
    before = first.inner_text()
    widgets.first.locator(".next-token-temperature").focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    expect(widgets.first.locator(".next-token-value").first).to_have_text("1.00")
    assert first.inner_text() != before
    assert widgets.nth(1).locator(".next-token-share").first.inner_text() == before  # a state of its own


def test_what_needs_a_kernel_is_off_and_says_so(open_page, exported):
    page = open_page()
    page.goto(exported.as_uri())
    widget = page.locator(".next-token").first
    expect(widget.get_by_role("status")).to_contain_text(
        "To type a prompt or continue the text, run this cell."
    )
    assert widget.locator("button:enabled").count() == 0
    assert not widget.locator("textarea").is_editable()
    chips = page.locator(".token-chips")
    expect(chips.get_by_role("status")).to_contain_text("To type another text, run this cell.")
    assert not chips.locator("textarea").is_editable()
    chips.locator(".token-chip").nth(1).focus()
    expect(chips.locator(".token-chips-details")).to_contain_text("Ġworld")


def test_still_table_without_scripts(open_page, exported, next_token):
    page = open_page(java_script_enabled=False)
    page.goto(exported.as_uri())
    assert page.locator("table").count() == 3
    table = page.locator("table").first
    assert table.locator("tr").count() == 11
    assert table.locator("tr").nth(1).locator("td").first.inner_text() == next_token.shown["top"][0]["text"]
    assert "after '</script><b>Hello'" in page.locator("p").first.inner_text()


def test_saved_and_live_draw_the_same(mount, open_page, next_token):
    live = mount(next_token)
    saved = open_page()
    saved.set_content(document("light", next_token.page()))
    for selector in (".next-token-text", ".next-token-share", ".next-token-figures", ".next-token-positions"):
        expect(saved.locator(selector).first).to_be_visible()
        assert saved.locator(selector).all_inner_texts() == live.locator(selector).all_inner_texts()


def test_counts_deep_in_the_tail_are_called_approximate(open_page, next_token):
    page = open_page()
    page.set_content(document("light", next_token.page()))
    slider = page.locator(".next-token-top_p")
    kept = page.locator(".next-token-kept")
    expect(kept).to_have_text("50,257 of 50,257")
    page.locator(".next-token-temperature").evaluate(
        "e => { e.value = 3; e.dispatchEvent(new Event('input')); }"
    )
    slider.evaluate("e => { e.value = 0.9; e.dispatchEvent(new Event('input')); }")
    assert kept.inner_text().startswith("≈ ")


def test_a_failing_script_leaves_the_still_table(open_page, next_token):
    page = open_page()
    broken = next_token.page().replace(
        "function render(", "function render(){throw Error('broken')}function unused("
    )
    assert broken != next_token.page()
    with page.expect_event("pageerror"):
        page.set_content(document("light", broken))
    expect(page.locator("table")).to_be_visible()
    open_page.errors.clear()
