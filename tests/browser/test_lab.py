"""The widgets in a real JupyterLab: one notebook with all of them, and stored notebooks opened afresh."""

import re

import nbformat
import pytest
from browser_kit import PATIENCE, axe_violations, until, watch, worst_contrast
from nbformat.sign import NotebookNotary
from playwright.sync_api import expect

from course_utils import load_tokenizer
from course_utils.widgets import NextToken, TokenChips
from course_utils.widgets.core.saved_page import drop_known_modules
from lab_session import NOTEBOOK, close_kernels, command, jupyter_lab, open_notebook
from tiny import tiny_gpt2

CELLS = [
    "from course_utils import load, load_tokenizer\n"
    "from course_utils.checks.quiz import Option, Prediction, Question\n"
    "from course_utils.widgets import MaskView, NextToken, PaddingGrid, Predict, Quiz, Stepper, TokenChips\n"
    "model, tokenizer = load()\n"
    "gpt2, sentences = load('tiny-gpt2')[0], ['It will rain in the', 'My dog is']\n"
    "vocabulary = load_tokenizer('gpt2', pad_token='<|endoftext|>')\n"
    "options = (Option('one', 'Yes.', right=True), Option('two', 'No.'))",
    "widget = NextToken(model, tokenizer, 'The capital of France is')\nwidget",
    "TokenChips('Hello world', {'GPT-2': load_tokenizer('gpt2'), 'SmolLM2': tokenizer})",
    "Quiz([Question('90/q', 'Which?', options)])",
    "Predict(Prediction('90/p', 'Which?', options))",
    "grid = PaddingGrid({'GPT-2': (gpt2, vocabulary)}, sentences)\ngrid",
    "view = MaskView(gpt2, vocabulary, sentences)\nview",
    "print(widget.temperature, widget.top_k, widget.top_p, widget.min_p, [widget.text])",
    "import time\nwhile True: time.sleep(0.05)",
    "print(grid.side, grid.give_mask, grid.sentences, view.fill, view.layer, view.query, view.key)",
    "stepper = Stepper(gpt2, vocabulary, sentences, max_new_tokens=400, pad_token_id=50256)\nstepper",
    # A run that is under way until it is interrupted, however fast the kernel and however slow the page.
    "passes = 0\n"
    "def wait(*given):\n"
    "    global passes\n"
    "    passes += 1\n"
    "    while passes > 10: time.sleep(0.05)\n"
    "hook = gpt2.register_forward_pre_hook(wait)\n"
    "try: stepper.run()\n"
    "finally: hook.remove()",
    "print('Step', stepper.sequences.shape[1] - 6)",
]


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """The address and the folder of a JupyterLab, and a browser context in which nothing goes elsewhere."""
    folder = tmp_path_factory.mktemp("lab")
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE)
    errors, outside = [], []
    watch(context, errors, outside)
    with jupyter_lab(folder, COURSE_PROGRESS=str(folder / "progress.json"), HF_HUB_OFFLINE="1") as address:
        yield address, folder, context
    context.close()
    assert not errors
    assert not outside


def write_notebook(path, cells):
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)


@pytest.fixture(scope="module")
def page(lab):
    """A page with the notebook of all widgets, its first seven cells run."""
    address, folder, context = lab
    write_notebook(folder / "all.ipynb", [nbformat.v4.new_code_cell(source) for source in CELLS])
    page = context.new_page()
    open_notebook(page, address, "all.ipynb")
    for _ in range(7):
        command(page, "notebook:run-cell-and-select-next")
    cell(page, 6).locator(".course-widget").wait_for()
    yield page
    close_kernels(page)
    page.close()


def cell(page, number):
    return page.locator(".jp-Notebook .jp-Cell").nth(number)


def prints(page, number, wanted):
    """Run one cell until what it prints is as wanted: that str. JupyterLab hands a widget's messages to the
    kernel beside the cells, so a cell that is run at once may still read what was there before; and a cell
    that is run at once after an error is not run."""
    found = ""

    def is_right():
        nonlocal found
        cell(page, number).locator(".jp-InputPrompt").click()
        command(page, "notebook:run-cell")
        found = "".join(cell(page, number).locator(".jp-OutputArea-output").all_inner_texts()).strip()
        return wanted(found)

    until(page, is_right)
    return found


def interrupt(page):
    page.evaluate(f"() => {NOTEBOOK}.sessionContext.session.kernel.interrupt()")


def test_a_prompt_is_typed_and_continued(page):
    widget = cell(page, 1)
    expect(widget.locator(".next-token-text").first).to_have_text("·Paris")
    expect(widget.locator(".next-token-share").first).to_contain_text("77.")
    widget.get_by_label("Prompt").fill("It will rain in the")
    expect(widget.locator(".next-token-text").first).not_to_have_text("·Paris")
    second = widget.locator(".next-token-text").nth(1).inner_text()
    widget.locator(".next-token-bars button").nth(1).click()
    expect(widget.locator(".next-token-chosen")).to_have_text([second])
    widget.get_by_role("button", name="Sample").click()
    expect(widget.locator(".next-token-chosen")).to_have_count(2)
    widget.get_by_role("button", name="Step back").click()
    expect(widget.locator(".next-token-chosen")).to_have_text([second])


def test_a_surrogate_and_an_empty_prompt_cross_the_wire(page):
    widget = cell(page, 1)
    prompt = widget.get_by_label("Prompt")
    prompt.evaluate("e => { e.value = 'a\\ud83d'; e.dispatchEvent(new Event('input')); }")
    expect(widget.get_by_role("alert")).to_contain_text("half of a surrogate pair")
    prompt.fill("")
    expect(widget.get_by_role("alert")).to_contain_text("The prompt is empty")
    prompt.fill("It will rain in the")
    expect(widget.locator(".course-wrong")).to_be_hidden()


def test_python_reads_the_sliders_back(page):
    widget = cell(page, 1)
    widget.get_by_label("Prompt").fill("My dog")
    for name, presses in (("temperature", 10), ("top_k", 7), ("min_p", 3)):
        widget.locator(f".next-token-{name}").focus()
        for _ in range(presses):
            page.keyboard.press("ArrowRight")
    widget.locator(".next-token-top_p").focus()
    for _ in range(20):
        page.keyboard.press("ArrowDown")
    prints(page, 7, "1.5 7 0.8 0.03 ['My dog']".__eq__)


def test_a_batch_is_typed_switched_and_pointed_at(page):
    grid, view = cell(page, 5), cell(page, 6)
    grid.get_by_label("right", exact=True).check()
    grid.get_by_label("attention mask").uncheck()
    box = grid.get_by_label("Sentences")
    box.evaluate("e => { e.value = 'a\\ud83d'; e.dispatchEvent(new Event('input')); }")
    expect(grid.get_by_role("alert")).to_contain_text("half of a surrogate pair")
    box.fill("My dog is\nHello")
    expect(grid.locator(".batch-table tbody").nth(1)).to_contain_text("Hello")
    expect(grid.locator(".padding-grid-verdict")).to_contain_text("All 2 answers are those")
    view.get_by_label("−∞").check()
    view.get_by_label("Layer, 0 to 3").fill("2")
    view.locator("td button").first.click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(view.locator("td button").nth(6)).to_be_focused()
    expect(view.locator(".mask-view-picked")).to_contain_text("weight NaN")
    prints(page, 9, "right False ['My dog is', 'Hello'] -inf 2 1 1".__eq__)


def test_steps_are_taken_and_a_run_is_interrupted(page):
    widget = cell(page, 10)
    widget.locator(".jp-InputPrompt").click()
    command(page, "notebook:run-cell")
    step = widget.get_by_role("button", name="Step", exact=True)
    place = widget.locator(".stepper-place")
    step.click()
    expect(place).to_have_text("Step 1")
    cell(page, 11).locator(".jp-InputPrompt").click()
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")
    expect(place).to_have_text(re.compile(r"Step \d+"))
    expect(place).not_to_have_text("Step 1")
    interrupt(page)
    expect(cell(page, 11).locator(".jp-OutputArea-output")).to_contain_text("KeyboardInterrupt")
    stopped = prints(page, 12, re.compile(r"Step \d+").fullmatch)
    expect(place).to_have_text(stopped)
    step.click()
    expect(place).to_have_text(f"Step {int(stopped.split()[1]) + 1}")
    widget.locator(".stepper-bars button").nth(1).click()
    expect(widget.locator(".stepper-tree button")).to_have_count(2)


WIDGETS = ["next token", "token chips", "quiz", "prediction", "padding grid", "mask view", "stepper"]


@pytest.mark.parametrize("number", [*range(1, 7), 10], ids=WIDGETS)
def test_keys_stay_in_the_widget(page, number):
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    cell(page, number).locator(".jp-InputPrompt").click()  # command mode, where one key is a command
    controls = cell(page, number).locator(
        ".course-widget :is(button, input, textarea, summary, [tabindex='0'])"
    )
    focused = 0
    for control in controls.all():
        if not control.is_enabled() or not control.is_visible() or control.get_attribute("tabindex") == "-1":
            continue
        control.focus()
        focused += 1
        for key in ("a", "b", "m", "ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight", "d", "d", "x", "z"):
            page.keyboard.press(key)
        assert page.locator(".jp-Notebook .jp-Cell").count() == cells
        assert page.locator(".jp-Notebook .jp-Cell").nth(number).get_attribute("class").count("jp-mod-active")
    assert focused >= 2


def test_a_running_cell_does_not_stop_the_widget(page):
    # JupyterLab sends widgets' messages to a subshell of the kernel, so even the model answers.
    widget = cell(page, 1)
    widget.get_by_label("Prompt").fill("My dog")
    expect(widget.get_by_role("status")).to_have_text("")
    cell(page, 8).locator(".jp-InputPrompt").click()
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")
    running = cell(page, 8).locator(".jp-InputPrompt")
    expect(running).to_have_text("[*]:")
    value = widget.locator(".next-token-value").first.inner_text()
    widget.locator(".next-token-temperature").press("Home")
    expect(widget.locator(".next-token-value").first).not_to_have_text(value)
    widget.get_by_role("button", name="Most likely").click()
    expect(widget.locator(".next-token-chosen")).to_have_count(1)
    expect(running).to_have_text("[*]:")
    interrupt(page)
    expect(running).not_to_have_text("[*]:")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_accessible_in_both_themes(page, theme):
    command(page, "apputils:change-theme", theme=theme)
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    assert axe_violations(page, ".jp-OutputArea-output .course-widget") == []
    ratio, text = worst_contrast(page, ".jp-OutputArea-output .course-widget")
    assert ratio >= 4.5, text


@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_a_stored_notebook_opened_afresh(lab, trusted):
    address, folder, context = lab
    gpt2 = load_tokenizer("gpt2")
    next_token = NextToken(tiny_gpt2(), gpt2, "Hello world")
    known = set()
    cells = [nbformat.v4.new_markdown_cell("text\n\n" * 20) for _ in range(20)]
    for widget in (next_token, TokenChips("Hello world", {"GPT-2": gpt2}), next_token):
        data = {"text/plain": repr(widget), "text/html": drop_known_modules(widget.page(), known)}
        output = nbformat.v4.new_output("execute_result", data, execution_count=1)
        cells.append(nbformat.v4.new_code_cell("widget", outputs=[output], execution_count=1))
    path = folder / f"stored-{trusted}.ipynb"
    write_notebook(path, cells)
    if trusted:
        notary = NotebookNotary(data_dir=str(folder / ".jupyter" / "data"))
        notary.sign(nbformat.read(path, as_version=4))
    page = context.new_page()
    open_notebook(page, address, path.name)
    first, last = (cell(page, number).locator(".jp-OutputArea-output") for number in (20, 22))
    for output in (first, last):
        output.scroll_into_view_if_needed()
        if trusted:
            share = output.locator(".next-token-share").first
            before = share.inner_text()
            output.locator(".next-token-temperature").press("Home")
            expect(share).not_to_have_text(before)
            expect(output.get_by_role("status")).to_contain_text("run this cell")
        else:
            expect(output.locator("tr")).to_have_count(11)
            assert page.locator(".course-widget").count() == 0
    close_kernels(page)
    page.close()
