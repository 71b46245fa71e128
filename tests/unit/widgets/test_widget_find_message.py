"""FindMessage: what it is given, what it says without a page."""

import html
import re

import pytest

from course_utils.errors import CourseError
from course_utils.library.messages.catalog import MESSAGES
from course_utils.library.messages.glossary import TERMS
from course_utils.widgets import FindMessage


def test_the_state_holds_every_message_and_every_word():
    shown = FindMessage().shown
    assert [row[1] for row in shown["messages"]] == [entry.title for entry in MESSAGES]
    assert [row[0] for row in shown["terms"]] == [term.word for term in TERMS]
    for row, entry in zip(shown["messages"], MESSAGES, strict=True):
        assert row[2:6] == [entry.says, entry.cause, entry.cure, entry.place]


def test_the_summary_lists_titles_or_what_is_nearest():
    assert FindMessage().summary().splitlines()[1:] == [entry.title for entry in MESSAGES]
    widget = FindMessage("the reply is empty")
    assert widget.found[0] == "The reply is empty"
    assert widget.summary().splitlines()[:3] == [
        f"{len(MESSAGES)} messages and symptoms, {len(TERMS)} words",
        "nearest to the query:",
        "The reply is empty",
    ]
    widget.query = "xyzzy"
    assert widget.found == []
    assert "nothing" in widget.summary()


def test_the_still_links_every_title_to_its_section():
    still = FindMessage().still()
    for entry in MESSAGES:
        assert f'<a href="#{entry.anchor}">{entry.title}</a>' in still
    assert "<script" not in still
    text = html.unescape(re.sub(r"<[^>]*>", " ", still))
    assert "IndexError: index out of range in self" in text


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (None, "The query is text, and you gave NoneType"),
        (ValueError("x"), "you gave ValueError. Write FindMessage(str(...))"),
        ("x" * 20_001, "The query has 20,001 characters"),
    ],
)
def test_what_is_no_query_gets_a_sentence(query, sentence):
    with pytest.raises(CourseError, match=re.escape(sentence)):
        FindMessage(query)
