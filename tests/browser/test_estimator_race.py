"""The race of the estimators on a blank page, with the Python widget as its kernel, and as a saved page."""

import functools
import math

import pytest
from browser_kit import document, stop_clock
from playwright.sync_api import expect

from course_utils.gradients import ESTIMATORS, Problem, random_rewards, toy_model
from course_utils.widgets import EstimatorRace, estimator_race


@functools.cache
def problem():
    return Problem(toy_model(3), random_rewards(3, 2))


@pytest.fixture
def widget(monkeypatch):
    """Three estimators: one without bias, one with it, one with it and without noise."""
    monkeypatch.setattr(estimator_race, "_GOALS", (8, 20, 200))
    return EstimatorRace(problem(), [ESTIMATORS[1], ESTIMATORS[2], ESTIMATORS[4]])


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def table(page):
    return [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]


def race(page):
    button(page, "Start").click()
    expect(button(page, "Continue")).to_be_enabled()


def expected(widget):
    """The table's rows, from Python's numbers."""

    def two(number):
        return f"{round(number, 2) + 0.0:.2f}".replace("-", "−")

    return [
        [
            "unbiased" if one.unbiased else "biased",
            two(one.along),
            two(one.across),
            f"{two(one.bias)} ± {two(one.bias_error)}",
            "yes" if one.bias > 3 * one.bias_error + 0.001 else "no",
            two(one.noise),
        ]
        for one in widget.standings
    ]


def test_nothing_is_shown_before_it_is_estimated(mount, widget):
    page = mount(widget)
    expect(page.locator(".estimator-race-verdict")).to_contain_text("Nothing is estimated yet. Press Start")
    assert [row[0] for row in table(page)] == ["unbiased", "biased", "biased"]
    assert {cell for row in table(page) for cell in row[1:]} == {""}
    assert page.locator("polyline").count() == 0
    expect(button(page, "Reset")).to_be_disabled()
    expect(page.locator("progress")).to_be_hidden()


def test_a_race_shows_pythons_numbers(mount, widget):
    page = mount(widget)
    race(page)
    expect(page.get_by_role("status")).to_have_text("Done.")
    assert table(page) == expected(widget)
    far = sum(row[4] == "yes" for row in table(page))
    assert far >= 1  # soft embeddings have no noise
    expect(page.locator(".estimator-race-verdict")).to_contain_text(f"{far} of 3 mean")
    expect(page.locator(".estimator-race-count")).to_have_text("8 estimates each, from 8 samples an estimate")
    page.get_by_label("20", exact=True).check()
    button(page, "Continue").click()
    expect(page.locator(".estimator-race-count")).to_contain_text("20 estimates each")
    expect(button(page, "Continue")).to_be_visible()
    assert table(page) == expected(widget)


def test_the_charts_show_the_means(mount, widget):
    widget.run(20)
    page = mount(widget)
    plane, distances = page.locator(".estimator-race-charts svg[role=img]").all()
    exact = plane.locator("line.estimator-race-exact")
    zero, one, base = (float(exact.get_attribute(name)) for name in ("x1", "x2", "y1"))
    unit = one - zero
    lengths = []
    for standing, line, group in zip(
        widget.standings, plane.locator("polyline").all(), plane.locator("g").all(), strict=True
    ):
        x, y = map(float, line.get_attribute("points").split()[-1].split(","))
        assert (x - zero) / unit == pytest.approx(standing.along, abs=0.01)
        assert (base - y) / unit == pytest.approx(standing.across, abs=0.01)
        assert group.locator("circle").count() == standing.unbiased
        lengths.append(len(line.get_attribute("points").split()))
    assert set(lengths) == {len(widget.shown["trail"]) + 1}
    ends = [
        float(line.get_attribute("points").split()[-1].split(",")[1])
        for line in distances.locator("polyline").all()
    ]
    biases = [standing.bias for standing in widget.standings]
    for (first, low), (second, high) in [((0, 1), (1, 2)), ((0, 2), (1, 2))]:
        slope = (ends[low] - ends[first]) / math.log(biases[first] / biases[low])
        assert slope == pytest.approx(
            (ends[high] - ends[second]) / math.log(biases[second] / biases[high]), rel=0.05
        )


def test_it_is_watched_paused_and_continued(mount, widget):
    page = mount(widget)
    page.get_by_label("20", exact=True).check()
    stop_clock(page)
    page.kernel.hold()
    button(page, "Start").click()
    expect(button(page, "Pause")).to_be_focused()
    expect(page.get_by_label("8", exact=True)).to_be_disabled()
    for made in (1, 2, 3):
        page.kernel.release()
        page.kernel.hold()
        expect(page.locator(".estimator-race-count")).to_contain_text(f"{made} estimate")
        assert page.locator("progress").evaluate("e => [e.value, e.max]") == [made, 20]
    page.clock.run_for(1_000)
    expect(page.get_by_role("status")).to_have_text("Estimating.")  # a busy kernel is what was asked for
    button(page, "Pause").click()
    page.kernel.release()
    expect(page.locator(".estimator-race-count")).to_contain_text("4 estimates")
    expect(page.get_by_role("status")).to_have_text("Paused.")
    expect(button(page, "Continue")).to_be_focused()
    assert len(page.kernel.received) == 4
    button(page, "Continue").click()
    expect(page.get_by_role("status")).to_have_text("Done.")
    undisturbed = EstimatorRace(problem(), widget._estimators)
    undisturbed.run(20)
    assert table(page) == expected(undisturbed)


def test_what_is_done_is_said(mount, widget):
    page = mount(widget)
    race(page)
    button(page, "Continue").click()
    expect(page.get_by_role("status")).to_have_text(
        "Each has made 8 estimates. Choose a larger number, or press Reset."
    )


def test_reset_and_another_seed(mount, widget):
    page = mount(widget)
    race(page)
    first = table(page)
    button(page, "Reset").click()
    expect(page.get_by_role("status")).to_have_text("All estimates are dropped. Seed 0.")
    expect(page.locator("polyline")).to_have_count(0)
    race(page)
    assert table(page) == first
    page.get_by_label("Seed").fill("7")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("All estimates are dropped. Seed 7.")
    assert widget.shown["seed"] == 7 and widget.standings == []
    race(page)
    assert table(page) == expected(widget) != first
    page.get_by_label("Seed").fill("-3")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("All estimates are dropped. Seed 0.")


def test_a_reset_during_the_race_ends_it(mount, widget):
    page = mount(widget)
    page.kernel.hold()
    button(page, "Start").click()
    button(page, "Reset").click()
    page.kernel.release()
    expect(page.get_by_role("status")).to_have_text("All estimates are dropped. Seed 0.")
    expect(button(page, "Start")).to_be_visible()
    assert widget.shown["estimates"] == 0


def test_python_races_too(mount, widget):
    page = mount(widget)
    widget.run(20)
    expect(page.locator(".estimator-race-count")).to_contain_text("20 estimates")
    assert table(page) == expected(widget)
    widget.reset(3)
    expect(page.get_by_label("Seed")).to_have_value("3")
    expect(button(page, "Start")).to_be_visible()


def test_an_interrupted_kernel_is_said_and_the_race_goes_on(mount, widget, monkeypatch):
    page = mount(widget)
    widget.run(4)
    with monkeypatch.context() as patch:
        patch.setattr(
            estimator_race._Racer, "draw", lambda self, count: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        button(page, "Continue").click()
        expect(page.get_by_role("alert")).to_contain_text("The kernel was interrupted")
        expect(page.locator(".estimator-race-count")).to_contain_text("4 estimates")
    button(page, "Continue").click()
    expect(page.get_by_role("status")).to_have_text("Done.")
    expect(page.locator(".course-wrong")).to_be_hidden()
    assert table(page) == expected(widget)


def test_keys_and_a_name_that_stands_out(mount, widget):
    widget.run(8)
    page = mount(widget)
    page.get_by_label("8", exact=True).focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("20", exact=True)).to_be_checked()
    for _ in range(4):
        page.keyboard.press("Tab")
    names = page.locator("tbody button")
    expect(names.nth(0)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(names.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(names.nth(1)).to_have_attribute("aria-pressed", "true")
    assert page.locator("polyline:not(.estimator-race-faded)").count() == 2  # its line in each chart
    looks = "e => [getComputedStyle(e).opacity, getComputedStyle(e).fill]"
    assert page.locator("polyline.estimator-race-faded").first.evaluate(looks) == ["0.2", "none"]
    widget.run(20)
    expect(page.locator(".estimator-race-count")).to_contain_text("20 estimates")
    expect(names.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    assert page.locator(".estimator-race-faded").count() == 0
    for control in page.locator("button, input, [tabindex]").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_a_saved_page_shows_what_was_estimated(open_page, widget):
    page = open_page()
    page.set_content(document("light", widget.page()))
    expect(page.locator(".estimator-race-verdict")).to_contain_text("Nothing was estimated when this page")
    widget.run(20)
    page.set_content(document("light", widget.page()))
    expect(page.locator("polyline")).to_have_count(6)
    assert table(page) == expected(widget)
    expect(page.get_by_role("status")).to_have_text("A saved view. To estimate on, run this cell.")
    assert page.locator(".estimator-race-controls :is(button, input):enabled").count() == 0
    page.get_by_role("button", name="2 group mean").click()
    assert page.locator("polyline:not(.estimator-race-faded)").count() == 2


def test_leaving_ends_the_race(mount, widget):
    page = mount(widget)
    page.kernel.hold()
    button(page, "Start").click()
    page.evaluate("courseCleanup()")
    page.kernel.release()
    page.evaluate("new Promise((done) => courseLater(done))")  # the answer has arrived
    assert len(page.kernel.received) == 1
    assert page.evaluate("Object.values(courseListeners).flat().length") == 0
