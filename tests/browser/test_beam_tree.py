"""The beam tree on a blank page, with the Python widget as its kernel, and as a saved page."""

import pytest
from browser_kit import document, stop_clock, until
from playwright.sync_api import expect

from course_utils import load
from course_utils.widgets import BeamTree

PROMPT = "My dog is"
SIGNS = {"kept": "→", "finished": "■", "pruned": "×", "open": "…"}


@pytest.fixture(scope="module")
def model():
    return load("tiny-llama", "cpu")[0]


@pytest.fixture(scope="module")
def ends(model, gpt2):
    """Tokens that end sequences of different lengths."""
    seen = BeamTree(model, gpt2, PROMPT, num_beams=4)
    return [seen.steps[0][0].tokens[-1], seen.steps[1][1].tokens[-1]]


@pytest.fixture
def widget(model, gpt2, ends):
    return BeamTree(model, gpt2, PROMPT, eos_token_id=ends)


def decimals(number, digits=2):
    return f"{number:.{digits}f}".replace("-", "−")


def column(page, step):
    return page.locator(".beam-tree-columns > div").nth(step).get_by_role("button")


def find(widget, wanted):
    """The first node that `wanted` is true of: (step, index, node)."""
    for step, nodes in enumerate(widget.shown["steps"]):
        for index, node in enumerate(nodes):
            if wanted(node):
                return step, index, node
    pytest.fail("there is no such node")


def said(page):
    return page.locator(".beam-tree-details p").nth(1).inner_text()


def answered(page, widget, **settings):
    """Wait until the kernel has searched with these settings and the page has drawn it."""
    until(page, lambda: settings.items() <= widget.shown.items())
    expect(page.locator(".beam-tree-columns")).not_to_have_attribute("aria-busy", "true")


def shows(page, widget):
    """The page shows what Python shows: every node, the results, greedy decoding's."""
    steps = widget.shown["steps"]
    expect(page.locator(".beam-tree-columns > div")).to_have_count(len(steps))
    for step, nodes in enumerate(steps):
        texts = column(page, step).all_inner_texts()
        for text, node in zip(texts, nodes, strict=True):
            marks = (["G"] if node.get("greedy") else []) + ([f"#{node['place']}"] if "place" in node else [])
            parts = [node["text"], *marks, SIGNS[node["fate"]], decimals(node["total"])]
            assert text.split("\n") == parts
    rows = page.locator(".beam-tree-results tbody tr").all()
    power = f"{widget.length_penalty:g}".replace("-", "−")
    named = [*enumerate(widget.shown["results"], 1), ("G", widget.shown["greedy"])]
    for row, (name, one) in zip(rows, named, strict=True):
        assert row.locator("th").inner_text() == (name if name == "G" else f"#{name}")
        assert row.locator("bdi").all_inner_texts() == one["tokens"]
        expected = f"{decimals(one['total'])} / {len(one['ids'])}{power} = {decimals(one['score'], 3)}"
        assert row.locator("td").nth(1).inner_text() == expected


def test_every_candidate_with_its_sum_and_its_fate(mount, widget):
    page = mount(widget)
    shows(page, widget)
    fates = [node["fate"] for nodes in widget.shown["steps"] for node in nodes]
    assert len(set(fates)) >= 3
    step, index, _ = find(widget, lambda node: node["fate"] == "pruned")
    pruned = column(page, step).nth(index)
    assert "gradient" in pruned.evaluate("e => getComputedStyle(e).backgroundImage")
    assert pruned.evaluate("e => getComputedStyle(e).borderStyle") == "dashed"
    assert page.locator(".beam-tree-caption").inner_text() == (
        "Each step weighs 9 candidates, the highest sum of log probabilities first. 3 go on."
    )
    assert page.locator(".beam-tree-ends bdi").all_inner_texts() == widget.shown["ends"]


def test_it_begins_at_the_best_result(mount, widget):
    page = mount(widget)
    best = widget.shown["results"][0]
    step, index, node = find(widget, lambda node: node.get("place") == 1)
    assert page.locator(".beam-tree-path bdi").all_inner_texts() == best["tokens"]
    assert page.locator(".beam-tree-path").inner_text().endswith(decimals(best["total"]))
    score = f"{decimals(best['total'])} / {len(best['ids'])}1 = {decimals(best['score'], 3)}: result 1."
    assert said(page).endswith(score)
    marked = page.locator(".beam-tree-node.beam-tree-best").all()
    assert len(marked) == step + 1
    assert marked[-1].inner_text() == column(page, step).nth(index).inner_text()
    assert page.locator("path.beam-tree-best").count() == step
    assert column(page, step).nth(index).get_attribute("tabindex") == "0"
    assert page.locator(".beam-tree-node[tabindex='0']").count() == 1
    assert node["greedy"] == (best["ids"] == widget.shown["greedy"]["ids"])


def test_pointing_at_a_candidate_adds_up_its_path(mount, widget):
    page = mount(widget)
    steps = widget.shown["steps"]
    last = len(steps) - 1
    column(page, last).nth(4).hover()
    index, way = 4, []
    for step in range(last, -1, -1):
        way.insert(0, steps[step][index])
        expect(column(page, step).nth(index)).to_have_attribute("data-way", "")
        index = steps[step][index]["parent"]
    assert page.locator(".beam-tree-node[data-way]").count() == len(way)
    assert page.locator("path[data-way]").count() == len(way) - 1
    text = page.locator(".beam-tree-path").inner_text()
    sums = " + ".join(f"{node['text']} {decimals(node['log_prob'])}" for node in way)
    assert text == f"{sums} = {decimals(way[-1]['total'])}"


# Settings, the ranks of first tokens that end a sequence, the node, what is said of it.
FATES = {
    "kept": (
        {},
        [],
        lambda node: node["fate"] == "kept",
        "1st of 6 candidates. It is among the best 3 that have not ended, so it goes on.",
    ),
    "pruned": (
        {},
        [],
        lambda node: node["fate"] == "pruned",
        "4th of 6 candidates. Only the best 3 that have not ended go on: pruned.",
    ),
    "pruned though it ends": (
        {},
        [4],
        lambda node: node["fate"] == "pruned" and "ends" in node,
        "5th of 6 candidates. It ends here, but only the first 3 candidates of a step may finish: pruned.",
    ),
    "pruned in the last step": (
        {"max_new_tokens": 1},
        [],
        lambda node: node["fate"] == "pruned",
        "4th of 6 candidates. It has all the new tokens it may have, but only the first 3 candidates of a "
        "step may finish: pruned.",
    ),
    "finished with an end": (
        {"num_beams": 2},
        [0],
        lambda node: node["fate"] == "finished",
        "1st of 4 candidates. It ends here. Its score is −6.23 / 11 = −6.227: result 1.",
    ),
    "finished at full length": (
        {"max_new_tokens": 1, "length_penalty": 0.0},
        [],
        lambda node: node.get("place") == 2,
        "2nd of 6 candidates. It has all the new tokens it may have. Its score is −6.61 / 10 = −6.615: "
        "result 2.",
    ),
    "no result": (
        {"num_beams": 2, "max_new_tokens": 3, "length_penalty": 2.0},
        [0],
        lambda node: node["fate"] == "finished" and "place" not in node,
        "1st of 4 candidates. It ends here. Its score is −6.23 / 12 = −6.227, and 2 sequences score higher: "
        "no result.",
    ),
    "left open": (
        {"num_beams": 2, "early_stopping": True},
        [0, 1],
        lambda node: node["fate"] == "open",
        "3rd of 6 candidates. It would go on, but the search stopped here: 2 sequences are finished.",
    ),
    "left open by expectation": (
        {"num_beams": 2, "length_penalty": 0.0},
        [0, 1],
        lambda node: node["fate"] == "open",
        "3rd of 6 candidates. It would go on, but the search stopped here: no beam was expected to pass the "
        "finished sequences.",
    ),
}


@pytest.mark.parametrize("case", FATES)
def test_what_became_of_a_candidate(mount, model, gpt2, case):
    settings, ranks, wanted, sentence = FATES[case]
    first = BeamTree(model, gpt2, PROMPT, num_beams=4).steps[0]
    ends = [first[rank].tokens[0] for rank in ranks]
    widget = BeamTree(model, gpt2, PROMPT, **settings, eos_token_id=ends)
    page = mount(widget)
    step, index, _ = find(widget, wanted)
    column(page, step).nth(index).focus()
    assert said(page) == sentence
    signs = page.locator(".beam-tree-legend > span").all_inner_texts()
    assert ("… left open" in signs) == case.startswith("left open")


def test_greedys_path_is_followed_beyond_the_candidates(mount, model, gpt2):
    for prompt in ("It will rain", "I want to", "A cat", "The sea", "Once upon", "We", "Paris", "He said"):
        widget = BeamTree(model, gpt2, prompt, num_beams=2, max_new_tokens=8)
        beyond = [node for nodes in widget.shown["steps"] for node in nodes if node["rank"] >= 4]
        if beyond:
            break
    page = mount(widget)
    step, index, node = find(widget, lambda node: node["rank"] >= 4)
    assert node["greedy"]
    column(page, step).nth(index).focus()
    assert said(page).startswith("Greedy decoding goes here. Of all continuations of the beams this is the ")
    assert said(page).endswith("and only 4 are candidates.")
    sentence = page.locator(".beam-tree > p").nth(-2).inner_text()
    assert sentence.startswith("Greedy decoding’s sequence scores −")
    assert sentence.endswith(f"Beam search pruned its path in step {step + 1}.")
    assert page.locator("path.beam-tree-greedy").count() == step


# ---- the settings


def test_every_control_searches_again(mount, widget, model, gpt2, ends):
    page = mount(widget)
    page.get_by_label("Beams").fill("2")
    expect(page.locator(".beam-tree-caption")).to_contain_text("Each step weighs 6 candidates")
    page.get_by_label("New tokens").fill("3")
    expect(page.locator(".beam-tree-columns > div")).to_have_count(3)
    page.get_by_label("Length penalty").fill("-1.5")
    expect(page.locator(".beam-tree-results sup").nth(1)).to_have_text("−1.5")
    page.get_by_label("True", exact=True).check()
    page.get_by_label("Prompt").fill("Hello")
    answered(page, widget, prompt="Hello")
    fresh = BeamTree(model, gpt2, "Hello", 2, 3, -1.5, True, ends)
    assert widget.shown == fresh.shown
    shows(page, widget)


def test_settings_typed_together_are_asked_once(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.get_by_label("Beams").fill("4")
    page.clock.run_for(399)
    page.get_by_label("Length penalty").fill("0")
    page.clock.run_for(400)
    expect(page.locator(".beam-tree-caption")).to_contain_text("4 go on.")
    assert len(page.kernel.received) == 1
    assert (widget.num_beams, widget.length_penalty) == (4, 0)


REFUSED = [
    ("Beams", "1", "One beam is greedy decoding, which has no tree. Give 2 beams or more."),
    ("Beams", "2.5", "num_beams is 2.5. Give a whole number from 2 to 8."),
    ("New tokens", "0", "max_new_tokens is 0. Give a whole number from 1 to 10."),
    ("Length penalty", "", "length_penalty is empty or no number. Give a number from -3 to 3."),
    ("Length penalty", "7", "length_penalty is 7. Give a number from -3 to 3."),
    ("Prompt", "", "The prompt is empty, so there is nothing to continue. Type at least one word."),
]


@pytest.mark.parametrize(("label", "text", "sentence"), REFUSED)
def test_bad_settings_are_one_sentence_and_lose_nothing(mount, widget, label, text, sentence):
    page = mount(widget)
    before = page.locator(".beam-tree-columns").inner_text()
    page.get_by_label(label, exact=True).fill(text)
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    assert page.locator("#host [aria-invalid=true]").count() == 1
    expect(page.get_by_label(label, exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label(label, exact=True)).to_have_value(text)
    assert page.locator(".beam-tree-columns").inner_text() == before
    expect(page.locator(".beam-tree-columns")).not_to_have_attribute("aria-busy", "true")
    good = {"Beams": "2", "New tokens": "2", "Length penalty": "2", "Prompt": "Hello"}[label]
    page.get_by_label(label, exact=True).fill(good)
    expect(page.locator(".course-wrong")).to_be_hidden()
    assert page.locator("#host [aria-invalid=true]").count() == 0
    shows(page, widget)


def test_a_prompt_longer_than_the_models_position_table_is_one_sentence(mount, gpt2):
    page = mount(BeamTree(load("tiny-gpt2", "cpu")[0], gpt2, PROMPT))
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("word " * 1030)
    sentence = "The prompt has 1,031 tokens; with 5 new ones it takes 1,035 positions"
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    expect(prompt).to_have_attribute("aria-invalid", "true")
    prompt.fill("Hello")
    expect(page.locator(".course-wrong")).to_be_hidden()


def test_a_busy_kernel_and_an_answer_that_was_overtaken(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.kernel.hold()
    beams = page.get_by_label("Beams")
    for number in ("4", "5", "3"):
        beams.fill(number)
        page.clock.run_for(400)
    expect(page.get_by_role("status")).to_have_text("Kernel busy…")
    expect(page.locator(".beam-tree-columns")).to_have_attribute("aria-busy", "true")
    page.kernel.release()
    expect(page.locator(".beam-tree-columns")).not_to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("status")).to_have_text("")
    expect(beams).to_have_value("3")
    assert widget.num_beams == 3
    shows(page, widget)


def test_python_moves_everything(mount, widget):
    page = mount(widget)
    widget.early_stopping = "never"
    widget.num_beams = 2
    widget.prompt = "Hello"
    expect(page.get_by_label("Prompt")).to_have_value("Hello")
    expect(page.get_by_label("Beams")).to_have_value("2")
    expect(page.get_by_label('"never"')).to_be_checked()
    shows(page, widget)


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)></script><b>", "\u202e\u200bعربي"])
def test_hostile_prompts_are_only_text(mount, open_page, model, gpt2, widget, text):
    page = mount(widget)
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    page.get_by_label("Prompt").fill(text)
    answered(page, widget, prompt=text)
    assert page.locator("#host :is(img, script, b)").count() == 0
    saved = open_page()
    saved.on("dialog", lambda _: pytest.fail("a script ran"))
    hostile = BeamTree(model, gpt2, text, eos_token_id=gpt2("<").input_ids)
    saved.set_content(document("light", hostile.page()))
    expect(saved.get_by_label("Prompt")).to_have_value(text)
    assert saved.locator("main :is(img, b)").count() == 0


def test_keys(mount, widget):
    page = mount(widget)
    for label in ("Prompt", "Beams", "New tokens", "Length penalty"):
        page.keyboard.press("Tab")
        expect(page.get_by_label(label, exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("False", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    step, index, _ = find(widget, lambda node: node.get("place") == 1)
    expect(column(page, step).nth(index)).to_be_focused()
    step, index, _ = find(widget, lambda node: node["parent"] == 2)
    column(page, step).nth(index).focus()
    page.keyboard.press("ArrowLeft")
    expect(column(page, step - 1).nth(2)).to_be_focused()
    page.keyboard.press("ArrowRight")  # the first child is the best one
    expect(column(page, step).nth(index)).to_be_focused()
    page.keyboard.press("Home")
    expect(column(page, step).first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(column(page, step).nth(1)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(column(page, step).first).to_be_focused()
    page.keyboard.press("End")
    expect(column(page, step).last).to_be_focused()
    page.keyboard.press("ArrowRight")  # it was pruned: there is no child
    expect(column(page, step).last).to_be_focused()
    assert page.locator(".beam-tree-node[tabindex='0']").count() == 1
    for control in page.locator("#host :is(button, input, textarea)").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_a_node_says_all_that_is_drawn(mount, widget):
    page = mount(widget)
    step, index, node = find(widget, lambda node: node.get("place") == 1)
    name = column(page, step).nth(index).get_attribute("aria-label")
    greedy = ["greedy"] if node.get("greedy") else []
    parts = [node["text"], decimals(node["total"]), "finished", "result 1", *greedy, f"step {step + 1}"]
    assert name == ", ".join(parts)


# ---- saved


def test_a_saved_tree_is_explored_without_a_kernel(open_page, widget):
    page = open_page()
    page.set_content(document("light", widget.page()))
    page.locator("[data-ready]").wait_for()
    shows(page, widget)
    step, index, node = find(widget, lambda node: node["fate"] == "pruned")
    column(page, step).nth(index).hover()
    assert said(page).startswith(f"{node['rank'] + 1}th of 9 candidates.")
    column(page, step).nth(index).click()
    page.keyboard.press("Home")
    expect(column(page, step).first).to_be_focused()
    expect(page.get_by_role("status")).to_have_text(
        "A saved view: point at a candidate, or move with the arrow keys. To search again, run this cell."
    )
    assert page.locator("main input:enabled").count() == 0
    assert not page.get_by_label("Prompt").is_editable()


def test_still_tables_without_scripts(open_page, widget):
    page = open_page(java_script_enabled=False)
    page.set_content(document("light", widget.page()))
    tree, results = page.locator("table").all()
    assert tree.locator("tr").count() == 1 + len(widget.shown["steps"])
    node = widget.shown["steps"][0][0]
    assert f"{node['text']} {node['total']:.2f}" in tree.locator("tr").nth(1).inner_text()
    best = widget.shown["results"][0]
    assert results.locator("tr").nth(1).locator("td").nth(1).inner_text() == "".join(best["tokens"])


# ---- looks


@pytest.mark.parametrize("width", [360, 900])
def test_fits_the_page(mount, widget, width):
    page = mount(widget, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for control in page.locator("#host :is(input, textarea)").all():
        box = control.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    tree = page.locator(".beam-tree-columns")
    hidden = tree.evaluate("e => e.scrollWidth - e.clientWidth")
    assert (hidden > 0) == (width == 360)  # five steps are seen at once where there is room
    last = column(page, 4).first
    last.focus()
    box = last.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    clipped = page.locator(".beam-tree-node > span:last-child").evaluate_all(
        "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert clipped == 0


def test_lines_meet_their_candidates(mount, widget):
    page = mount(widget)
    for step, nodes in enumerate(widget.shown["steps"][1:], 1):
        lines = page.locator(".beam-tree-columns svg").nth(step - 1).locator("path")
        for index, node in enumerate(nodes):
            box = lines.nth(index).bounding_box()
            middles = [
                column(page, at).nth(number).bounding_box()
                for at, number in ((step - 1, node["parent"]), (step, index))
            ]
            ends = sorted(one["y"] + one["height"] / 2 for one in middles)
            assert abs(box["y"] - ends[0]) < 2.5
            assert abs(box["y"] + box["height"] - ends[1]) < 2.5
