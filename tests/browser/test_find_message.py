"""FindMessage in a browser: it filters as one types, in a live page and in a saved one, as Python does."""

import pytest
from browser_kit import document, until
from playwright.sync_api import expect

from course_utils.library.messages.catalog import MESSAGES, finder, phrases
from course_utils.library.messages.glossary import TERMS
from course_utils.library.messages.trial import TRIAL
from course_utils.widgets import FindMessage

BOX = "A message, what you see, or a word"
TRACEBACK = (
    'Traceback (most recent call last):\n  File "a.py", line 3\nIndexError: index out of range in self\n'
)


def titles(page):
    return page.locator(".find-message-title").all_inner_texts()


def saved(open_page, widget, after=""):
    page = open_page()
    page.set_content(document("light", widget.page() + after))
    page.locator("[data-ready]").wait_for()
    return page


def test_an_empty_box_lists_every_title_in_its_group(mount):
    page = mount(FindMessage())
    links = page.locator(".find-message-list ul a")
    assert links.all_inner_texts() == [entry.title for entry in MESSAGES]
    expect(page.get_by_role("status")).to_have_text(
        f"{len(MESSAGES)} messages and symptoms, {len(TERMS)} words"
    )


def test_each_letter_filters(mount):
    page = mount(FindMessage())
    box = page.get_by_label(BOX)
    for text, title in (("strea", "A streamer and a batch"), ("streamed t", "Streamed text shows")):
        box.fill("")
        box.press_sequentially(text)
        expect(page.locator(".find-message-title", has_text=title)).to_be_visible()
        assert len(titles(page)) <= 6
    until(page, lambda: page.widget.query == "streamed t")
    box.fill("")
    expect(page.locator(".find-message-title")).to_have_count(0)


def test_a_result_says_message_cause_cure_and_place(mount):
    page = mount(FindMessage(TRACEBACK))
    entry = next(entry for entry in MESSAGES if entry.key == "no-row")
    item = page.locator(".find-message-list > li", has_text=entry.title)
    for text in (entry.says, entry.cause, entry.cure, entry.place):
        expect(item).to_contain_text(text.replace("`", ""))
    assert item.locator("a").get_attribute("href") == f"#{entry.anchor}"
    assert titles(page)[:2] == ["More tokens than the model has positions", "A new token has no row"]


def test_python_may_set_the_query(mount):
    page = mount(FindMessage())
    page.widget.query = "the reply is empty"
    expect(page.get_by_label(BOX)).to_have_value("the reply is empty")
    assert titles(page)[0] == "The reply is empty"


def test_a_late_echo_of_the_kernel_takes_no_letter_away(mount):
    page = mount(FindMessage())
    page.kernel.hold()
    box = page.get_by_label(BOX)
    box.press_sequentially("strea")
    page.kernel.release()
    until(page, lambda: page.widget.query == "strea")
    box.press_sequentially("m")
    until(page, lambda: page.widget.query == "stream")
    expect(box).to_have_value("stream")
    page.widget.query = "ragged"
    expect(box).to_have_value("ragged")
    page.widget.query = "stream"
    expect(box).to_have_value("stream")


def test_words_are_found_beside_messages(mount):
    page = mount(FindMessage())
    box = page.get_by_label(BOX)
    box.fill("perplex")
    expect(page.locator(".find-message-list")).to_contain_text("exp of the mean surprise in nats")
    expect(page.get_by_role("status")).to_contain_text("1 word.")
    box.fill("what is a beam?")
    expect(page.locator(".find-message-list")).to_contain_text("texts that beam search keeps")


def test_what_fits_nothing_is_said(mount):
    page = mount(FindMessage())
    page.get_by_label(BOX).fill("xyzzy")
    expect(page.get_by_role("status")).to_have_text("No message here has any of these words.")
    page.get_by_label(BOX).fill("Repo id must be in the form 'repo_name' or 'namespace/repo_name'")
    expect(page.get_by_role("status")).to_have_text("No message here fits closely. The nearest:")
    assert 0 < len(titles(page)) <= 3


@pytest.mark.parametrize("live", [True, False], ids=["live", "saved"])
def test_the_page_ranks_as_python_does(mount, open_page, live):
    page = mount(FindMessage()) if live else saved(open_page, FindMessage())
    texts = [text for _, text, _ in TRIAL] + [TRACEBACK, "loss is nan", "\x1b[31mTwo\x1b[0m lengths"]
    texts += [phrase for entry in MESSAGES[::5] for phrase in phrases(entry)]
    for text in texts:
        page.get_by_label(BOX).fill(text)
        score = finder().best(text)[0][1]
        best = {MESSAGES[at].title for at, other in finder().best(text, 8) if other > score - 1e-9}
        expect(page.locator(".find-message-title").first).to_be_visible()
        assert titles(page)[0] in best, text
        close = "fits closely" not in page.get_by_role("status").inner_text()
        assert close == (score >= FindMessage().shown["fits"]), text


def test_a_saved_page_filters_and_its_links_lead_to_headings(open_page):
    entry = next(entry for entry in MESSAGES if entry.key == "empty-reply")
    space = '<div style="height:3000px"></div>'
    page = saved(open_page, FindMessage(), f'{space}<h3 id="{entry.anchor}">{entry.title}</h3>{space}')
    page.get_by_label(BOX).fill("reply is empty")
    page.get_by_role("link", name="See it happen").first.click()
    expect(page.locator("h3")).to_be_in_viewport()


def test_headings_are_found_by_the_name_that_jupyterlab_gives_them(mount):
    page = mount(FindMessage("the reply is empty"))
    page.evaluate(
        """() => {
          const heading = document.createElement("h3");
          heading.dataset.jupyterId = "The-reply-is-empty";
          heading.style.marginTop = "3000px";
          heading.textContent = "here";
          document.querySelector("main").append(heading);
        }"""
    )
    page.get_by_role("link", name="See it happen").first.click()
    expect(page.get_by_text("here", exact=True)).to_be_in_viewport()


def test_a_hostile_query_is_only_text(mount):
    page = mount(FindMessage())
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    text = "<img src=x onerror=alert(1)> `code` index out of range"
    page.get_by_label(BOX).fill(text)
    expect(page.get_by_label(BOX)).to_have_value(text)
    assert page.locator(".course-widget :is(img, script)").count() == 0
