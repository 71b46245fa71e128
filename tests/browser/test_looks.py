"""What a reader with other eyes, another screen or other hands meets: axe-core, contrast, narrow pages."""

import pytest
from browser_kit import axe_violations, document, worst_contrast

from course_utils import load_tokenizer
from course_utils.widgets import NextToken, TokenChips
from tiny import tiny_gpt2


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2")


@pytest.fixture
def widgets(gpt2):
    return {
        "next token": lambda: NextToken(tiny_gpt2(), gpt2, "Hello world", top_k=5),
        "all settings": lambda: NextToken(
            tiny_gpt2(),
            gpt2,
            "Hello world",
            "all",
            repetition_penalty=1.3,
            top_p=0.9,
            typical_p=0.9,
            draws=1000,
        ),
        "token chips": lambda: TokenChips(
            "Hello world, naïve <|endoftext|> \u30f4", {"GPT-2": gpt2, "again": gpt2}
        ),
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("state", ["live", "refused", "saved"])
@pytest.mark.parametrize("name", ["next token", "all settings", "token chips"])
def test_accessible(mount, open_page, widgets, name, state, theme):
    widget = widgets[name]()
    if state == "saved":
        page = open_page()
        page.set_content(document(theme, widget.page()))
        page.locator("[data-ready]").wait_for()
    else:
        page = mount(widget, theme=theme)
    if state == "refused":
        page.locator("textarea").fill("word " * 500)
        page.locator(".course-wrong").wait_for()
    assert axe_violations(page) == []
    ratio, text = worst_contrast(page)
    assert ratio >= 4.5, text


@pytest.mark.parametrize("name", ["next token", "all settings", "token chips"])
def test_fits_a_narrow_page(mount, widgets, name):
    page = mount(widgets[name](), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for control in page.locator("button, input, textarea").all():
        box = control.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


def test_nothing_moves_by_itself(mount, widgets):
    for make in widgets.values():
        page = mount(make())
        moving = page.evaluate(
            "[...document.querySelectorAll('.course-widget *')].map(e => getComputedStyle(e))"
            ".filter(s => s.animationName !== 'none' || parseFloat(s.transitionDuration) > 0).length"
        )
        assert moving == 0
