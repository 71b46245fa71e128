"""The cache's growth on a blank page, with the Python widget as its kernel, and as a saved page."""

from itertools import pairwise

import pytest
from browser_kit import document, stop_clock
from playwright.sync_api import expect
from transformers import FalconConfig, FalconForCausalLM, MistralConfig, MistralForCausalLM

from course_utils.widgets import CacheGrowth, cache_growth
from tiny import tiny_gpt2


@pytest.fixture
def widget(gpt2, monkeypatch):
    """A forward pass takes 2 ms a position here."""

    def timed(model, ids, **given):
        return 2.0 * len(ids), cache_growth._forward(model, ids, **given)

    monkeypatch.setattr(cache_growth, "_timed", timed)
    return CacheGrowth(tiny_gpt2(600), gpt2)


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def table(page):
    return [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]


def measure(page):
    button(page, "Measure").click()
    expect(button(page, "Measure again")).to_be_enabled()


def test_nothing_is_shown_before_it_is_measured(mount, widget):
    page = mount(widget)
    expect(page.locator(".cache-growth-verdict")).to_contain_text("Nothing is measured yet. Press Measure")
    assert page.locator(".cache-growth-note").inner_text() == (
        "The configuration predicts 2 (keys and values) × 1 layers × 2 heads × 8 numbers × 4 bytes = "
        "128 bytes a position. The model has 600 positions, so no text is longer."
    )
    expect(page.locator("table")).to_be_hidden()
    time, memory = page.locator(".cache-growth-chart > svg").all()
    assert time.locator("circle, rect").count() == 0
    assert "0" not in time.locator("text").all_inner_texts()  # no scale where there is nothing to read
    page.get_by_label("64").check()
    assert memory.locator("text").last.text_content() == "positions in the text"
    assert "64" in memory.locator("text").all_text_contents()


def test_a_run_shows_its_numbers_twice_as_curves_and_as_a_table(mount, widget):
    page = mount(widget)
    measure(page)
    assert table(page) == [
        ["32", "2.00", "64.0", "32.0", "4.00", "4.00"],
        ["64", "2.00", "128", "64.0", "8.00", "8.00"],
        ["128", "2.00", "256", "128.0", "16.00", "16.00"],
        ["192", "2.00", "384", "192.0", "24.00", "24.00"],
        ["256", "2.00", "512", "256.0", "32.00", "32.00"],
    ]
    expect(page.locator(".cache-growth-verdict")).to_have_text(
        "At 256 positions a token takes 2.00 ms with the cache and 512 ms without, 256.0 times as long. The "
        "keys and values are then 2 tensors of shape [1, 2, 256, 8]: 32.00 KiB, as the configuration "
        "predicts. Both ways found the same next token each time."
    )
    expect(page.get_by_role("status")).to_have_text("Done.")
    time, memory = page.locator(".cache-growth-chart > svg").all()
    assert time.locator(".cache-growth-end").all_text_contents() == ["2.00 ms", "512 ms"]
    assert memory.locator(".cache-growth-end").all_text_contents() == ["nothing", "32.00 KiB"]
    heights = [float(mark.get_attribute("y")) for mark in time.locator("rect").all()]
    assert heights == sorted(heights, reverse=True)
    steps = [a - b for a, b in pairwise(heights)]
    assert steps[1] == pytest.approx(2 * steps[0]) == pytest.approx(steps[2])  # the axis is linear, from 0


def test_a_window_bends_the_prediction(mount, gpt2):
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = MistralConfig(vocab_size=50257, num_hidden_layers=2, sliding_window=17, **settings)
    page = mount(CacheGrowth(MistralForCausalLM(config).eval(), gpt2))
    expect(page.locator(".cache-growth-note")).to_contain_text(
        "× 8 numbers × 4 bytes = 256 bytes a position, for the last 16 positions only. "
        f"The model was trained on {config.max_position_embeddings:,} positions."
    )
    page.get_by_label("64", exact=True).check()
    measure(page)
    assert [row[4:] for row in table(page)] == [["2.00"] * 2, *[["4.00"] * 2] * 4]
    expect(page.locator(".cache-growth-verdict")).to_contain_text("4.00 KiB, as the configuration predicts.")
    predicted = page.locator(".cache-growth-predicted polyline").first.get_attribute("points")
    heights = [float(point.split(",")[1]) for point in predicted.split()]
    assert len(heights) == 3
    assert heights[0] > heights[1] == heights[2]


def test_without_a_prediction_none_is_shown(mount, gpt2):
    config = FalconConfig(vocab_size=50257, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    model = FalconForCausalLM(config).eval()
    model.config.multi_query = False  # not what its layers do
    widget = CacheGrowth(model, gpt2)
    page = mount(widget)
    expect(page.locator(".cache-growth-note")).to_contain_text(
        "The configuration does not tell how large this kind of cache gets."
    )
    page.get_by_label("64", exact=True).check()
    measure(page)
    assert [row[4:] for row in table(page)] == [["0.50"], ["1.00"], ["2.00"], ["3.00"], ["4.00"]]
    expect(page.locator(".cache-growth")).not_to_contain_text("redict")
    expect(page.locator(".cache-growth-verdict")).to_contain_text("[1, 1, 64, 8]: 4.00 KiB. Both ways")


def test_points_appear_one_by_one_and_a_run_can_be_stopped(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.kernel.hold()
    button(page, "Measure").click()
    expect(button(page, "Stop")).to_be_focused()
    for label in ("64", "512"):
        expect(page.get_by_label(label, exact=True)).to_be_disabled()
    for made in (1, 2, 3):
        page.kernel.release()
        page.kernel.hold()
        expect(page.locator(".cache-growth-count")).to_have_text(f"{made} of 25 measured")
        assert page.locator("progress").evaluate("e => [e.value, e.max]") == [made, 25]
        assert len(table(page)) == made
    page.clock.run_for(1_000)
    expect(page.get_by_role("status")).to_have_text("Measuring.")  # a busy kernel is what was asked for
    button(page, "Stop").click()
    page.kernel.release()
    expect(page.get_by_role("status")).to_have_text(
        "Stopped. What was measured stays until you measure again."
    )
    expect(button(page, "Measure again")).to_be_focused()
    expect(page.locator("progress")).to_be_hidden()
    expect(page.locator(".cache-growth-count")).to_have_text("4 of 25 measured")
    assert len(table(page)) == len(widget.measured) == 4
    asked = [message["request"] for message in page.kernel.received]
    assert asked == [{"start": 256}, *[{"next": True}] * 3, {"stop": True}]


def test_another_length_is_measured(mount, widget):
    page = mount(widget)
    assert page.get_by_role("radio").count() == 4  # no more than the model has positions for
    page.get_by_label("64", exact=True).check()
    measure(page)
    assert [row[0] for row in table(page)] == ["8", "16", "32", "48", "64"]


def test_python_measures_too(mount, widget):
    page = mount(widget)
    widget.measure(100)
    expect(page.locator("tbody td").first).to_have_text("12")
    expect(button(page, "Measure again")).to_be_enabled()
    again = mount(widget)
    expect(again.get_by_label("64", exact=True)).to_be_checked()


def test_an_interrupted_kernel_is_said_and_the_next_run_works(mount, widget, monkeypatch):
    page = mount(widget)
    with monkeypatch.context() as patch:
        patch.setattr(
            cache_growth._Series, "measure_next", lambda self: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        button(page, "Measure").click()
        expect(page.get_by_role("alert")).to_contain_text("The kernel was interrupted")
        expect(button(page, "Measure")).to_be_enabled()
    measure(page)
    expect(page.locator(".course-wrong")).to_be_hidden()
    assert len(table(page)) == 5


def test_a_kernel_that_does_not_answer_is_said(mount, widget):
    page = mount(widget)
    page.kernel.hold()
    stop_clock(page)
    button(page, "Measure").click()
    page.clock.run_for(15_000)
    expect(page.get_by_role("status")).to_contain_text("No answer yet")


def test_keys(mount, widget):
    page = mount(widget)
    page.get_by_label("256").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("128")).to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(button(page, "Measure again")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("region")).to_be_focused()
    for control in page.locator("button, input, [tabindex]").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_different_next_tokens_and_bytes_are_said(mount, widget):
    widget.measure(64)
    points = [point | {"bytes": 1024, "shape": None} for point in widget.shown["points"]]
    widget.set_trait("shown", widget.shown | {"points": points, "agree": False, "apart": 1.6789})
    said = mount(widget).locator(".cache-growth-verdict")
    expect(said).to_contain_text("are then 2 tensors: 1.00 KiB, where the configuration predicts 8.00 KiB.")
    expect(said).to_contain_text(
        "The two ways did not always find the same next token: their logits differ by up to 1.7."
    )


def test_a_saved_page_shows_the_last_measurement(open_page, widget):
    page = open_page()
    page.set_content(document("light", widget.page()))
    expect(page.locator(".cache-growth-verdict")).to_contain_text(
        "Nothing was measured when this page was saved"
    )
    widget.measure()
    page.set_content(document("light", widget.page()))
    expect(page.locator("tbody tr")).to_have_count(5)
    assert table(page)[-1][:3] == ["256", "2.00", "512"]
    expect(page.get_by_role("status")).to_contain_text("To measure on your own machine, run this cell.")
    assert page.locator(".cache-growth :is(button, input):enabled").count() == 0


def test_leaving_ends_the_run(mount, widget):
    page = mount(widget)
    page.kernel.hold()
    button(page, "Measure").click()
    page.evaluate("courseCleanup()")
    page.kernel.release()
    page.evaluate("new Promise((done) => courseLater(done))")  # the answer has arrived
    assert len(page.kernel.received) == 1
    assert page.evaluate("Object.values(courseListeners).flat().length") == 0
