"""What every widget keeps to: axe-core, contrast, narrow pages, cleanup, saved pages, no weights in a state.

A widget of `course_utils.widgets` needs a line in SAMPLES, and is then held to all of it.
"""

import functools
import json
from collections.abc import Callable
from typing import NamedTuple

import pytest
from browser_kit import axe_violations, bytes_as_json, document, worst_contrast
from playwright.sync_api import expect
from transformers import LogitsProcessor

from course_utils import load, load_tokenizer, widgets
from course_utils.checks.quiz import NumberPrediction, Option, Prediction, Question
from course_utils.gradient_chain import LINKS
from course_utils.gradients import ESTIMATORS, Problem, random_rewards, toy_model
from course_utils.widgets import (
    BeamTree,
    CacheGrowth,
    ChatTokens,
    EstimatorRace,
    FindMessage,
    GradientLink,
    MaskView,
    NextToken,
    PaddingGrid,
    Predict,
    Quiz,
    ScoredText,
    Stepper,
    TokenChips,
    TwoRuns,
)
from tiny import tiny_gpt2

SENTENCES = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]
OPTIONS = (
    Option("`<b>` and </script>", "The right why with `code`.", right=True),
    Option("wrong one", "The wrong why."),
)


class Sample(NamedTuple):
    """A widget, and what is done to it on its page."""

    make: Callable
    act: Callable = lambda page: None


gpt2 = functools.partial(functools.cache(load_tokenizer), "gpt2", pad_token="<|endoftext|>")
tiny = functools.cache(tiny_gpt2)


@functools.cache
def tiny_of_four_layers():
    model = load("tiny-gpt2", "cpu")[0]
    model.generation_config.pad_token_id = 50256
    return model


@functools.cache
def tiny_llama():
    return load("tiny-llama", "cpu")[0]


class Ban(LogitsProcessor):
    def __call__(self, input_ids, scores):
        scores[:, 11] = -float("inf")
        return scores


def press(name):
    return lambda page: page.get_by_role("button", name=name, exact=True).click()


def press_while_busy(name):
    def act(page):
        page.kernel.hold()
        press(name)(page)

    return act


def refused(label, text, then="Tab"):
    """Type what the widget refuses: `then` is a key, or the name of a button."""

    def act(page):
        page.get_by_label(label).first.fill(text)
        page.keyboard.press(then) if then == "Tab" else press(then)(page)
        page.locator(".course-wrong:not(:empty)").wait_for()

    return act


def beam_tree():
    return BeamTree(tiny_llama(), gpt2(), "My dog is")


def cache_growth(measured=True):
    widget = CacheGrowth(tiny(600), gpt2())
    if measured:
        widget.measure()
    return widget


def estimator_race(run=True):
    widget = EstimatorRace(Problem(toy_model(3), random_rewards(3, 2)), ESTIMATORS[1:5])
    if run:
        widget.run(20)
    return widget


unmeasured = functools.partial(cache_growth, measured=False)
not_run = functools.partial(estimator_race, run=False)


def refused_chat(page):
    page.get_by_label("Message 1", exact=True).fill("word " * 500)
    page.locator(".course-wrong:not(:empty)").wait_for()


def chat_tokens(**options):
    model, tokenizer = small_chat()
    chat = [{"role": "user", "content": "Hi<|im_end|>"}, {"role": "assistant", "content": "Hello!"}]
    return ChatTokens(model, {"one": tokenizer, "no template": gpt2()}, chat, **options)


@functools.cache
def small_chat():
    return tiny_gpt2(200, 49152), load_tokenizer("smollm2-135m")


def mask_view():
    return MaskView(tiny_of_four_layers(), gpt2(), SENTENCES)


def next_token(**settings):
    return NextToken(tiny(), gpt2(), "Hello world", **settings)


def next_token_of_all_settings():
    settings = {"repetition_penalty": 1.3, "top_p": 0.9, "typical_p": 0.9, "draws": 1000}
    return next_token(controls="all", **settings)


def padding_grid():
    models = {"GPT-2": (tiny_of_four_layers(), gpt2()), "Llama": (tiny_llama(), gpt2())}
    return PaddingGrid(models, SENTENCES)


def not_given(page):
    page.get_by_label("attention mask").uncheck()
    page.get_by_label("position ids").uncheck()
    expect(page.locator(".padding-grid-rows")).not_to_have_attribute("data-old", "")


def question(several=False):
    options = (*OPTIONS, Option("other", "Right, too.", right=True)) if several else OPTIONS
    return Question(
        "90/several" if several else "90/one",
        "What is ` <img src=x onerror=alert(1)>`?",
        options,
        several=several,
    )


def settled(page):
    page.get_by_text("wrong one").first.click()
    page.get_by_role("button").first.click()
    page.locator("summary").first.click()


def number():
    return Predict(
        NumberPrediction("90/n", "How many?", 139, tolerance=5, unit="`tokens`", why="So.", otherwise="No.")
    )


def scored_text(text="The capital of France is Paris."):
    widget = ScoredText(tiny(64), gpt2(), text)
    for one, bits in zip(widget.shown["tokens"][1:], (0.5, 2, 5, 8, 12, 20), strict=False):
        one["bits"] = bits  # every colour of the scale
    return widget


def opened(page):
    page.locator("summary").click()


def scored_long_words():
    return ScoredText(tiny_of_four_layers(), gpt2(), "Donaudampfschifffahrtsgesellschaft, " + "x" * 150)


def stepper():
    widget = Stepper(tiny_of_four_layers(), gpt2(), SENTENCES[::2], max_new_tokens=6)
    widget.step(2)
    widget.choose(50256, row=1, step=1)
    widget.step(2)
    return widget


def stepper_of_many_stages():
    settings = {"do_sample": True, "temperature": 0.7, "top_k": 5, "repetition_penalty": 1.3}
    widget = Stepper(
        tiny_of_four_layers(), gpt2(), SENTENCES[::2], max_new_tokens=6, logits_processor=[Ban()], **settings
    )
    widget.run()
    widget.choose(11, step=1)
    return widget


def two_runs():
    return TwoRuns(tiny_llama(), gpt2(), "My dog is", new_tokens=5)


def token_chips(text="Hello world, naïve <|endoftext|> \u30f4"):
    return TokenChips(text, {"GPT-2": gpt2(), "again": gpt2()})


SAMPLES = {
    "BeamTree": {
        "live": Sample(beam_tree),
        "refused": Sample(beam_tree, refused("Beams", "99")),
    },
    "CacheGrowth": {
        "empty": Sample(unmeasured),
        "measured": Sample(cache_growth),
        "running": Sample(unmeasured, press_while_busy("Measure")),
    },
    "ChatTokens": {
        "live": Sample(chat_tokens, lambda page: page.locator("button.chat-tokens-alarm").focus()),
        "refused": Sample(chat_tokens, refused_chat),
    },
    "EstimatorRace": {
        "empty": Sample(not_run),
        "estimated": Sample(estimator_race),
        "running": Sample(not_run, press_while_busy("Start")),
    },
    "FindMessage": {
        "empty": Sample(FindMessage),
        "found": Sample(lambda: FindMessage("IndexError: index out of range in self")),
        "a word": Sample(lambda: FindMessage("perplexity")),
        "nothing near": Sample(lambda: FindMessage("xyzzy")),
    },
    "GradientLink": {link: Sample(lambda link=link: GradientLink(toy_model(seed=5), link)) for link in LINKS},
    "MaskView": {
        "live": Sample(mask_view),
        "NaN": Sample(mask_view, lambda page: page.get_by_label("−∞").check()),
        "refused": Sample(mask_view, refused("Layer, 0 to 3", "77")),
        "another row": Sample(mask_view, lambda page: page.get_by_label("My dog is", exact=True).check()),
    },
    "NextToken": {
        "live": Sample(next_token),
        "refused": Sample(next_token, refused("Prompt", "word " * 500)),
        "all settings": Sample(next_token_of_all_settings),
        "all settings, refused": Sample(next_token_of_all_settings, refused("Prompt", "word " * 500)),
    },
    "PaddingGrid": {
        "live": Sample(padding_grid),
        "not given": Sample(padding_grid, not_given),
        "refused": Sample(padding_grid, refused("Sentences", "")),
    },
    "Predict": {
        "open": Sample(lambda: Predict(Prediction("90/p", "Which?", OPTIONS))),
        "settled": Sample(lambda: Predict(Prediction("90/p", "Which?", OPTIONS)), settled),
        "a number": Sample(number),
    },
    "Quiz": {
        "open": Sample(lambda: Quiz([question(), question(several=True)])),
        "settled": Sample(lambda: Quiz([question(), question(several=True)]), settled),
    },
    "ScoredText": {
        "live": Sample(scored_text, opened),
        "refused": Sample(scored_text, refused("Text", "")),
        "long words": Sample(scored_long_words, opened),
    },
    "Stepper": {
        "live": Sample(stepper, press("Step")),
        "refused": Sample(stepper, refused("Prompts", "", then="Start")),
        "many stages": Sample(stepper_of_many_stages),
        "the next of many stages": Sample(stepper_of_many_stages, press("Step")),
    },
    "TwoRuns": {
        "live": Sample(two_runs),
        "refused": Sample(two_runs, refused("Prompt", "word " * 500)),
    },
    "TokenChips": {
        "live": Sample(token_chips),
        "refused": Sample(token_chips, refused("Text", "word " * 500)),
    },
}
# Of a saved page: two branches with five stages a step; every message with its cause and its cure.
MOST_BYTES = {"Stepper": 60_000, "FindMessage": 75_000}
WIDGETS = sorted(set(widgets.__all__) - {"CourseWidget"})
STATES = [(name, state) for name in WIDGETS for state in SAMPLES.get(name, ["missing"])]

every_widget = pytest.mark.parametrize("name", WIDGETS)
every_state = pytest.mark.parametrize(("name", "state"), STATES)
both_themes = pytest.mark.parametrize("theme", ["light", "dark"])


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))


def samples(name):
    if name not in SAMPLES:
        pytest.fail(
            f"widgets.{name} has no sample: add a line to SAMPLES in tests/browser/test_every_widget.py"
        )
    return SAMPLES[name]


def one_of_each(name):
    """The widgets of a name that differ before anything is done to them: list."""
    return [sample.make() for sample in {sample.make: sample for sample in samples(name).values()}.values()]


def show(mount, name, state, **options):
    sample = samples(name)[state]
    page = mount(sample.make(), **options)
    sample.act(page)
    return page


def open_saved(open_page, widget, theme="light", **options):
    page = open_page(**options)
    page.set_content(document(theme, widget.page()))
    return page


def assert_readable(page):
    assert axe_violations(page) == []
    ratio, text = worst_contrast(page)
    assert ratio >= 4.5, text


# What can be pressed, typed into or looked at, unless it lies in a part that scrolls by itself.
OUTSIDE = """(width) => {
  const scrolls = (e) => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  return [...document.querySelectorAll("#host :is(button, input, textarea, select, summary, svg, li)")]
    .filter((e) => e.checkVisibility() && !e.parentElement.closest("svg") && !scrolls(e.parentElement))
    .map((e) => ({ e, box: e.getBoundingClientRect() }))
    .filter(({ box }) => box.width > 0 && (box.left < 0 || box.right > width))
    .map(({ e }) => e.outerHTML.slice(0, 120));
}"""


@every_state
@both_themes
def test_accessible(mount, name, state, theme):
    assert_readable(show(mount, name, state, theme=theme))


@every_widget
@both_themes
def test_a_saved_page_is_accessible(open_page, name, theme):
    for widget in one_of_each(name):
        page = open_saved(open_page, widget, theme)
        page.locator("[data-ready]").wait_for()
        for summary in page.locator("summary:visible").all():
            summary.click()
        assert_readable(page)


@every_state
def test_fits_a_narrow_page(mount, name, state):
    page = show(mount, name, state, width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(OUTSIDE, 360) == []


@every_state
def test_leaving_takes_the_listeners_away(mount, name, state):
    page = show(mount, name, state)
    assert page.evaluate("Object.values(courseListeners).flat().length") > 0
    page.evaluate("courseCleanup()")
    assert page.evaluate("Object.values(courseListeners).flat().length") == 0


@every_widget
def test_nothing_moves_by_itself(mount, name):
    for widget in one_of_each(name):
        moving = mount(widget).evaluate(
            "[...document.querySelectorAll('.course-widget *')].map(e => getComputedStyle(e))"
            ".filter(s => s.animationName !== 'none' || parseFloat(s.transitionDuration) > 0).length"
        )
        assert moving == 0


@every_widget
def test_a_saved_page_is_alive_and_small(open_page, name):
    for widget in one_of_each(name):
        assert len(widget.page().encode()) < MOST_BYTES.get(name, 50_000)
        page = open_saved(open_page, widget)
        page.locator("[data-ready]").wait_for()
        expect(page.locator(".course-widget").first).to_be_visible()


@every_widget
def test_without_scripts_a_still_stands(open_page, name):
    for widget in one_of_each(name):
        page = open_saved(open_page, widget, java_script_enabled=False)
        assert page.locator("main :is(table, p):visible").count() > 0
        assert page.locator("main :is(input, button, textarea, img):visible").count() == 0


@every_widget
def test_the_state_holds_no_weights(name):
    """Tensors are no JSON, and the embedding of the smallest model here has 3.2 MB."""
    for widget in one_of_each(name):
        state = {key: getattr(widget, key) for key in widget.page_state()}
        assert len(json.dumps(state, default=bytes_as_json)) < 1_000_000


@every_widget
def test_the_module_fits_into_a_script_element(name):
    module = getattr(widgets, name)._esm
    assert "function render(" in module
    assert "export default {render}" in module
    assert "import " not in module
    assert "</script" not in module
    assert "<!--" not in module


def test_a_widget_without_a_sample_is_found(monkeypatch):
    monkeypatch.delitem(SAMPLES, "Stepper")
    with pytest.raises(pytest.fail.Exception, match=r"widgets\.Stepper has no sample"):
        samples("Stepper")
    assert set(SAMPLES) <= set(WIDGETS)
