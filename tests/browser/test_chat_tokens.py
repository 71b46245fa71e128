"""The chat widget on a blank page, with the Python widget as its kernel."""

import pytest
from browser_kit import document, stop_clock
from playwright.sync_api import expect

from course_utils import load_tokenizer
from course_utils.widgets import ChatTokens
from tiny import tiny_gpt2

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]


@pytest.fixture
def widget():
    tokenizers = {"SmolLM2": load_tokenizer("smollm2-135m"), "GPT-2": load_tokenizer("gpt2")}
    return ChatTokens(tiny_gpt2(200, 49152), tokenizers, CHAT)


def turns(page):
    return page.locator("section").first.locator(".chat-tokens-turn")


def test_a_row_a_turn_with_role_and_targets(mount, widget):
    page = mount(widget)
    roles = page.locator("section").first.locator(".chat-tokens-role").all_inner_texts()
    assert roles == ["template", "user", "assistant", "assistant"]
    answer = turns(page).nth(2)
    assert answer.locator("button").all_inner_texts() == [
        *("<|im_start|>", "ass", "istant", "⏎", "Hello", "!", "<|im_end|>", "⏎")
    ]
    assert answer.locator(".chat-tokens-target").all_inner_texts() == ["Hello", "!", "<|im_end|>"]
    expect(page.locator("section").nth(1)).to_contain_text("has no chat template")
    answer.locator("button").nth(4).hover()
    expect(page.locator(".chat-tokens-details").first).to_contain_text(
        "what the assistant says; a training target"
    )


def test_a_message_is_typed_added_and_removed(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.get_by_label("Message 1", exact=True).fill("Bye")
    page.clock.run_for(1000)
    expect(turns(page).nth(1)).to_contain_text("B")
    assert widget.messages[0]["content"] == "Bye"
    page.get_by_role("button", name="Add a message").click()
    expect(page.get_by_label("Message 3", exact=True)).to_be_focused()
    assert [one["role"] for one in widget.messages] == ["user", "assistant", "user"]
    page.get_by_label("Role of message 3").select_option("system")
    page.clock.run_for(1000)
    expect(turns(page).nth(3)).to_contain_text("system")
    page.get_by_role("button", name="Remove message 1").click()
    expect(page.get_by_label("Message 3", exact=True)).to_have_count(0)
    assert [one["role"] for one in widget.messages] == ["assistant", "system"]


def test_the_generation_prompt_and_the_way_are_switched(mount, widget):
    page = mount(widget)
    expect(turns(page)).to_have_count(4)
    page.get_by_label("Generation prompt").uncheck()
    expect(turns(page)).to_have_count(3)
    page.get_by_label("contents encoded apart").check()
    expect(page.get_by_label("contents encoded apart")).to_be_checked()
    assert (widget.generation_prompt, widget.way) == (False, "apart")


def test_what_is_refused_stays_in_the_box(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.get_by_label("Message 1", exact=True).fill("word " * 500)
    page.clock.run_for(1000)
    expect(page.locator(".course-wrong")).to_contain_text("this view shows at most 400")
    assert page.get_by_label("Message 1", exact=True).input_value().startswith("word word")
    assert widget.messages == CHAT
    page.get_by_label("Message 1", exact=True).fill("Hi")
    page.clock.run_for(1000)
    expect(page.locator(".course-wrong")).to_be_empty()


def test_every_message_removed_is_a_sentence(mount, widget):
    page = mount(widget)
    page.get_by_role("button", name="Remove message 2").click()
    expect(turns(page)).to_have_count(3)
    page.get_by_role("button", name="Remove message 1").click()
    expect(page.locator(".course-wrong")).to_contain_text("The conversation is empty")
    page.get_by_role("button", name="Add a message").click()
    expect(page.locator(".course-wrong")).to_be_empty()


def test_a_saved_page_shows_roles_and_answers_to_a_pointer(open_page, widget):
    page = open_page()
    page.set_content(document("light", widget.page()))
    expect(turns(page)).to_have_count(4)
    turns(page).nth(1).locator("button").first.hover()
    expect(page.locator(".chat-tokens-details").first).to_contain_text("the frame of the user's turn")
    assert page.get_by_role("button", name="Add a message").is_disabled()
