"""A widget's real module in a real Chromium: `mount` hosts it on a blank page, with the Python widget itself
as the kernel. A script error or a request that leaves the machine fails the test."""

import json

import pytest
from browser_kit import HOST, PATIENCE, Kernel, bytes_as_json, document, find_chromium, watch
from playwright.sync_api import expect, sync_playwright

from lab_session import CHROMIUM_FLAGS

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright), args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """A function that opens an empty page, in a context of its own; takes new_context's options.

    `open_page.errors` holds the script errors so far; a test that wants one takes it out.
    """
    contexts, errors, outside = [], [], []

    def open_page(**options):
        context = browser.new_context(**{"viewport": {"width": 900, "height": 900}, **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        watch(context, errors, outside)
        return context.new_page()

    open_page.errors = errors
    yield open_page
    for context in contexts:
        context.close()
    assert not errors
    assert not outside, "requests that leave the machine"


@pytest.fixture
def mount(open_page):
    """`mount(widget, theme="light", width=900)` shows a Python widget on a blank page, alive.

    Returns the page. `page.kernel` is the `Kernel`, `page.widget` the widget.
    """

    def mount(widget, theme="light", width=900):
        page = open_page(viewport={"width": width, "height": 900})
        page.kernel, page.widget = Kernel(page, widget), widget
        page.set_content(document(theme, "<div id=host></div>"))
        state = {name: getattr(widget, name) for name in widget.page_state()}
        page.evaluate(
            HOST,
            {"esm": widget._esm, "css": widget._css, "state": json.dumps(state, default=bytes_as_json)},
        )
        return page

    return mount
