"""Quiz and Predict in a real Chromium: with a kernel, as a saved page, without JavaScript."""

import pytest
from browser_kit import axe_violations, document, worst_contrast

from course_utils import CourseError
from course_utils.checks import progress
from course_utils.checks.exercise import SYMBOLS, Result
from course_utils.checks.quiz import NumberPrediction, Option, Prediction, Question
from course_utils.widgets import Predict, Quiz

HOSTILE = "<img src=x onerror=alert(1)>"
ONE = Question(
    "90/one",
    f"What is `{HOSTILE}` or ` x`?",
    (
        Option("`<b>` and </script>", "The right why with `code`.", right=True),
        Option("wrong one", "The wrong why."),
        Option("other", "The other why."),
    ),
)
SEVERAL = Question(
    "90/several",
    "Which two?",
    (Option("a", "why a", right=True), Option("b", "why b", right=True), Option("c", "why c")),
    several=True,
)
CHOICE = Prediction("90/choice", "Which?", ONE.options)
NUMBER = NumberPrediction(
    "90/number",
    "How many?",
    key=139,
    tolerance=5,
    unit="`tokens`",
    why="Because it is so.",
    wrong=((87, "Those are characters."), ((200, 300), "Those are bytes.")),
    otherwise="Count again.",
)


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("COURSE_PROGRESS", str(path))
    return path


def form(page, number=0):
    return page.locator("form").nth(number)


def choose(where, *texts):
    for text in texts:
        where.locator("label").get_by_text(text, exact=True).click()


def settled(page):
    """Wait until the kernel has what the page has sent: messages arrive in their order."""
    page.evaluate("""courseKernel('{"set": {}}')""")


# ---- quiz --------------------------------------------------------------------------------------------


def test_wrong_then_right(mount):
    page = mount(Quiz([ONE, SEVERAL]))
    first = form(page)
    status = first.get_by_role("status")
    assert first.get_by_text("All options explained").is_hidden()
    choose(first, "wrong one")
    first.get_by_role("button", name="Check").click()
    assert status.inner_text() == "✘ Not this one. The wrong why."
    choose(first, "other")
    assert status.inner_text() == ""
    first.get_by_role("button", name="Check").click()
    assert status.inner_text() == "✘ Not this one. The other why."
    choose(first, "<b>")
    first.get_by_role("button", name="Check").click()
    assert status.inner_text() == "✔ Right. The right why with code."
    assert page.get_by_text("1 of 2 right").is_visible()
    settled(page)
    entry = progress.read()["90/one"]
    assert entry["done"] and entry["attempts"] == 3 and list(progress.read()) == ["90/one"]


def test_every_option_is_explained_after_a_check(mount):
    page = mount(Quiz(ONE))
    choose(page, "wrong one")
    page.get_by_role("button", name="Check").click()
    page.get_by_text("All options explained").click()
    shown = page.locator("details li").all_inner_texts()
    assert sorted(text.split("\n")[0].strip() for text in shown) == [
        "✔ <b> and </script>",
        "✘ other",
        "✘ wrong one",
    ]
    assert all("why" in text for text in shown)


def test_several(mount):
    page = mount(Quiz(SEVERAL))
    status, check = page.get_by_role("status"), page.get_by_role("button", name="Check")
    assert page.get_by_role("checkbox").count() == 3
    choose(page, "a")
    check.click()
    assert status.inner_text().split("\n\n") == ["✔ a why a", "1 more to find."]
    choose(page, "b", "c")
    check.click()
    assert "All right ones are among them, and more." in status.inner_text()
    choose(page, "c")
    check.click()
    assert sorted(status.inner_text().split("\n\n")) == ["✔ a why a", "✔ b why b"]
    settled(page)
    assert progress.read()["90/several"]["done"]


def test_nothing_chosen_is_said_and_not_recorded(mount, progress_file):
    page = mount(Quiz([ONE, SEVERAL]))
    for number, words in enumerate(["Choose one first.", "Choose one or more first."]):
        form(page, number).get_by_role("button", name="Check").click()
        assert form(page, number).get_by_role("status").inner_text() == words
    settled(page)
    assert not progress_file.exists()


def test_a_second_view_shows_the_same(mount):
    widget = Quiz(ONE)
    widget.given = {"90/one": {"chosen": list(ONE.key), "tries": 2}}
    page = mount(widget)
    assert page.get_by_role("status").inner_text().startswith("✔ Right.")
    assert page.get_by_role("radio", checked=True).count() == 1


def test_trouble_with_progress_is_one_sentence(mount, progress_file):
    progress_file.write_text("{")
    page = mount(Quiz(ONE))
    choose(page, "other")
    page.get_by_role("button", name="Check").click()
    note = page.get_by_text("Your progress file could not be read")
    note.wait_for()
    page.get_by_role("button", name="Check").click()
    note.wait_for(state="detached")


# ---- predict -----------------------------------------------------------------------------------------


def test_choice_is_locked_and_then_compared(mount):
    page = mount(Predict(CHOICE))
    page.get_by_role("button", name="Commit").click()
    assert page.get_by_role("status").inner_text() == "Choose one first."
    choose(page, "other")
    page.get_by_role("button", name="Commit").click()
    assert page.get_by_role("status").inner_text() == (
        "Committed: other\nNow run the next cell, then open this to compare."
    )
    assert page.get_by_role("button").count() == 0
    assert page.locator("input:not(:disabled)").count() == 0
    assert page.get_by_text("The other why.").is_hidden() and page.get_by_text("right why").is_hidden()
    # The button that had the focus is gone; what comes next has it, and opens with a key.
    page.keyboard.press("Enter")
    assert page.locator(".question-result p").all_inner_texts() == [
        "✘ Your guess: other",
        "The other why.",
        "✔ The answer: <b> and </script>",
        "The right why with code.",
    ]
    settled(page)
    entry = progress.read()["90/choice"]
    assert entry["done"] and entry["right"] is False and entry["attempts"] == 1


@pytest.mark.parametrize(
    ("guess", "lines"),
    [
        ("139", ["✔ Right: 139 tokens", "Because it is so."]),
        ("137.5", ["✔ Right: 137.5 tokens (exactly: 139 tokens)", "Because it is so."]),
        ("87", ["✘ Your guess: 87 tokens", "Those are characters."]),
        ("300", ["✘ Your guess: 300 tokens", "Those are bytes."]),
        ("-1e6", ["✘ Your guess: -1,000,000 tokens", "Count again."]),
    ],
)
def test_number(mount, guess, lines):
    page = mount(Predict(NUMBER))
    page.get_by_label("Your guess").fill(guess)
    page.keyboard.press("Enter")
    page.get_by_text("Compare", exact=True).click()
    wrong = ["✔ The answer: 139 tokens", "Because it is so."] if lines[0].startswith("✘") else []
    assert page.locator(".question-result p").all_inner_texts() == lines + wrong
    assert page.get_by_label("Your guess").get_attribute("readonly") is not None
    settled(page)
    entry = progress.read()["90/number"]
    assert entry["guess"] == float(guess) and entry["right"] == (not wrong)
    assert NUMBER.explain(float(guess)) == lines[1]


def test_the_page_judges_numbers_as_python_does(mount):
    prediction = NumberPrediction("90/n", "?", key=0.3, tolerance=0.1, why="y", otherwise="n")
    for guess in (0.2, 0.4, 0.4001):
        page = mount(Predict(prediction))
        page.get_by_label("Your guess").fill(str(guess))
        page.keyboard.press("Enter")
        outcome = page.locator(".question-result").get_attribute("data-outcome")
        assert (outcome == "right") == prediction.is_right(guess), guess


def test_no_number_is_said(mount, progress_file):
    page = mount(Predict(NUMBER))
    page.get_by_role("button", name="Commit").click()
    assert page.get_by_role("status").inner_text() == "Type a number first."
    settled(page)
    assert not progress_file.exists()


# ---- keyboard, looks, hosts --------------------------------------------------------------------------


def test_all_by_keyboard(mount):
    page = mount(Quiz(ONE))
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("radio").nth(1).is_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_by_role("status").inner_text()[0] in "✔✘"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator("details[open] li").count() == 3


def test_jupyterlab_leaves_the_keys_to_every_control(mount):
    for widget in (Quiz([ONE, SEVERAL]), Predict(NUMBER)):
        page = mount(widget)
        focusable = "button, input, summary, select, textarea, a[href], [tabindex]"
        assert page.locator(focusable).count() > 2
        assert page.locator(f":is({focusable}):not([data-lm-suppress-shortcuts=true])").count() == 0


def test_text_is_never_html(mount):
    page = mount(Quiz([ONE, SEVERAL]))
    assert page.locator("img, b").count() == 0
    assert page.locator("legend code").all_text_contents() == [HOSTILE, " x"]


def test_saved_page_works_without_a_kernel(open_page, progress_file):
    page = open_page()
    quiz, guess = Quiz([ONE, SEVERAL]), Predict(CHOICE)
    page.set_content(document("light", quiz.page() + quiz.page() + guess.page()))
    page.locator(".course-question").nth(2).wait_for()
    choose(form(page, 2), "wrong one")
    form(page, 2).get_by_role("button").click()
    assert form(page, 2).get_by_role("status").inner_text().startswith("✘ Not this one.")
    assert form(page, 0).get_by_role("status").inner_text() == ""
    assert page.get_by_text("Run this cell to have your answers counted.").count() == 1
    choose(form(page, 4), "other")
    form(page, 4).get_by_role("button").click()
    page.get_by_text("Compare", exact=True).click()
    assert page.get_by_text("The other why.").last.is_visible()
    assert not progress_file.exists()


def test_without_javascript_the_questions_stand_without_the_answers(open_page):
    page = open_page(java_script_enabled=False)
    page.set_content(document("light", Quiz([ONE, SEVERAL]).page() + Predict(NUMBER).page()))
    text = page.locator("main").inner_text()
    assert "1. What is" in text and HOSTILE in text and "<b> and </script>" in text and "How many?" in text
    assert text.count("Run this cell to answer.") == 2
    assert "why" not in text and "✔" not in text and "139" not in text
    assert page.locator("main img, main b, main input").count() == 0


def test_cleanup_leaves_nothing(mount):
    page = mount(Quiz(ONE))
    page.evaluate("courseCleanup()")
    assert page.locator("#host *").count() == 0
    assert page.evaluate("Object.values(courseListeners).flat().length") == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_results_of_exercises_are_accessible(open_page, theme):
    page = open_page(viewport={"width": 360, "height": 900})
    results = [Result("90/x", outcome, "Say `this` to that.", note="A note.") for outcome in SYMBOLS]
    page.set_content(document(theme, "".join(result._repr_html_() for result in results)))
    assert page.locator("main div").count() == 3 and "✔ Say this" in page.locator("main").inner_text()
    assert axe_violations(page) == []
    assert worst_contrast(page, "main")[0] >= 4.5


# ---- what a notebook stores --------------------------------------------------------------------------


def test_summary_is_the_question_without_the_answer():
    options = "\n".join(f"   ☐ {option.text}" for option in SEVERAL.options)
    assert repr(Quiz(SEVERAL)) == f"Which two?\n{options}\nRun this cell to answer."
    assert repr(Predict(NUMBER)) == "How many?\n   ____ `tokens`\nRun this cell to answer."
    answered = Quiz(SEVERAL)
    answered.given = {"90/several": {"chosen": [0], "tries": 1}}
    assert repr(answered) == repr(Quiz(SEVERAL))


def test_answers_are_not_readable_in_the_saved_page():
    page = Quiz([ONE, SEVERAL]).page() + Predict(NUMBER).page()
    assert not any(text in page for text in ("why a", "The right why", "Those are bytes", "139"))


@pytest.mark.parametrize(
    "make", [lambda: Quiz(3), lambda: Quiz([]), lambda: Quiz([CHOICE]), lambda: Predict(ONE)]
)
def test_other_things_are_refused_with_the_line_to_write(make):
    with pytest.raises(CourseError, match=r"write (Quiz|Predict)\(lesson01\."):
        make()
