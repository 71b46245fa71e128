"""The next-token widget on a blank page, with the Python widget as its kernel."""

import re

import pytest
import torch
from browser_kit import document, stop_clock
from playwright.sync_api import expect
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from course_utils.widgets import NextToken
from course_utils.widgets.next_token import token_label
from tiny import tiny_gpt2

PROCESSORS = {
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
    "typical_p": TypicalLogitsWarper,
}

# What the page shows once the widget's own listeners have heard a move: the same frame, without the kernel.
RECORD = """() => {
  window.moves = [];
  document.addEventListener("input", (event) => moves.push({
    value: event.target.value,
    output: event.target.parentElement.querySelector(".next-token-value").textContent,
    share: document.querySelector(".next-token-share").textContent,
  }));
}"""


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2()


@pytest.fixture
def widget(model, gpt2):
    return NextToken(model, gpt2, "Hello world")


@pytest.fixture
def full(model, gpt2):
    return NextToken(model, gpt2, "Hello world", controls="all")


def slider(page, name):
    return page.locator(f".next-token-{name}")


def shares(page):
    return page.locator(".next-token-share").all_inner_texts()


def move(page, name, value):
    """Drag a slider to a value without letting go."""
    slider(page, name).evaluate(
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )


def test_shows_the_models_probabilities(mount, widget, model, gpt2):
    page = mount(widget)
    with torch.no_grad():
        probs = model(torch.tensor([[15496, 995]])).logits[0, -1].double().softmax(-1)
    values, ids = probs.topk(15)
    assert shares(page) == [f"{100 * value:.2f} %" for value in values]
    assert page.locator(".next-token-text").all_inner_texts() == [
        gpt2.decode([token]).replace(" ", "·") for token in ids.tolist()
    ]
    assert page.locator(".next-token-kept").inner_text() == "50,257 of 50,257"
    assert page.locator(".next-token-mass").inner_text() == "100.00 %"
    entropy = float(-(probs * probs.log2()).sum())
    assert page.locator(".next-token-entropy").inner_text() == f"{entropy:.2f} bits"


def test_removed_tokens_say_by_what(mount, widget):
    page = mount(widget)
    move(page, "top_k", 5)
    assert shares(page)[5:] == ["removed by top-k"] * 10
    assert page.locator(".next-token-kept").inner_text() == "5 of 50,257"
    move(page, "top_p", 0)
    assert shares(page)[0] == "100.00 %"
    assert shares(page)[1:] == ["removed by top-p"] * 4 + ["removed by top-k"] * 10
    assert page.locator(".next-token-removed").count() == 14


def test_sliders_write_back_on_release_only(mount, widget):
    page = mount(widget)
    move(page, "temperature", 2)
    assert widget.temperature == 1.0
    assert page.locator(".next-token-value").first.inner_text() == "2.00"
    slider(page, "temperature").evaluate("e => e.dispatchEvent(new Event('change'))")
    assert widget.temperature == 2.0
    slider(page, "top_p").press("PageDown")
    assert 0 < widget.top_p < 1
    assert slider(page, "min_p").get_attribute("aria-valuetext") == "off"


def test_python_moves_the_sliders_and_the_prompt(mount, widget):
    page = mount(widget)
    before = shares(page)
    widget.temperature = 2.5
    expect(page.locator(".next-token-value").first).to_have_text("2.50")
    assert shares(page) != before
    widget.prompt = "Another one"
    expect(page.get_by_label("Prompt")).to_have_value("Another one")


def probabilities(widget, gpt2, **settings):
    """What generate() would draw from, by transformers' own processors: float64 tensor [vocab]."""
    logits = torch.zeros(1, widget.shown["vocabulary"])
    order = torch.frombuffer(bytearray(widget.shown["ids"]), dtype=torch.int32).long()
    logits[0, order] = torch.frombuffer(bytearray(widget.shown["logits"]), dtype=torch.float32)
    ids = torch.tensor([gpt2(widget.prompt).input_ids + list(widget.chosen)])
    for name, processor in PROCESSORS.items():
        if name in settings:
            logits = processor(settings[name])(ids, logits)
    return logits[0].double().softmax(-1)


def percent(prob):
    return "<0.01 %" if 0 < prob < 0.0001 else f"{100 * prob:.2f} %"


def rows_of(page):
    return list(zip(page.locator(".next-token-text").all_inner_texts(), shares(page), strict=True))


def test_the_penalty_puts_the_rows_in_a_new_order(mount, full, gpt2):
    full.prompt = "Hello world"
    likely = full.shown["top"][4]["id"]
    full.answer({"prompt": "Hello world", "chosen": [likely] * 2})
    page = mount(full)
    assert page.locator(".next-token-seen").count() == 0
    expect(page.locator(".next-token-legend")).not_to_contain_text("Underlined")
    orders = []
    for penalty in (0.9, 1.3):
        move(page, "repetition_penalty", penalty)
        values, ids = probabilities(full, gpt2, repetition_penalty=penalty).topk(15)
        expected = [token_label(gpt2, i) for i in ids.tolist()]
        assert rows_of(page)[:15] == list(zip(expected, map(percent, values), strict=True))
        seen = {token_label(gpt2, i) for i in [*gpt2("Hello world").input_ids, likely]}
        assert set(page.locator(".next-token-seen").all_inner_texts()) == seen & set(expected)
        orders.append(expected)
    assert orders[0] != orders[1]
    expect(page.locator(".next-token-legend")).to_contain_text("Underlined: in the text already.")
    assert page.locator("[aria-description='in the text already']").count() == len(seen & set(orders[1]))
    assert note(page, "repetition_penalty") == "changes 3 tokens"
    # The most likely token is the one that stands first now.
    first = rows_of(page)[0][0]
    page.get_by_role("button", name="Most likely").click()
    expect(page.locator(".next-token-chosen").nth(2)).to_have_text(first)


def note(page, name):
    """What the full set says beside a slider."""
    return slider(page, name).locator("xpath=..").locator(".next-token-note").inner_text()


def test_each_filter_says_what_it_leaves(mount, full, gpt2):
    page = mount(full)
    settings = {"temperature": 2.0, "top_k": 40, "top_p": 0.9, "min_p": 0.15, "typical_p": 0.6}
    for name, value in settings.items():
        move(page, name, value)
    given = {}
    before = probabilities(full, gpt2, temperature=2.0)
    for name in ("top_k", "top_p", "min_p", "typical_p"):
        given[name] = settings[name]
        kept = probabilities(full, gpt2, temperature=2.0, **given) > 0
        assert note(page, name) == f"leaves {kept.sum()} tokens, {100 * before[kept].sum():.2f} %"
    assert page.locator(".next-token-kept").inner_text() == f"{kept.sum()} of 50,257"
    assert shares(page)[0] == "removed by typical"
    surprise = -probabilities(full, gpt2, **settings | {"typical_p": 0.999}).max().log2()
    expect(page.locator(".next-token-remark")).to_contain_text(
        f"Typical removes the most likely token: its surprise, {surprise:.2f} bits"
    )
    move(page, "min_p", 0.01)
    assert note(page, "min_p") == "removes nothing"
    move(page, "top_k", 0)
    assert note(page, "top_k") == ""
    assert slider(page, "top_k").get_attribute("aria-valuetext") == "off"


def test_the_last_row_holds_all_other_tokens(mount, full, gpt2):
    page = mount(full)
    move(page, "temperature", 3)
    probs = probabilities(full, gpt2, temperature=3.0)
    others = 1 - probs.topk(15).values.sum()
    assert rows_of(page)[15] == ("50,242 others", f"{100 * others:.2f} %")
    move(page, "top_k", 3)
    assert rows_of(page)[15] == ("0 others", "0.00 %")
    move(page, "top_k", 16)
    assert rows_of(page)[15][0] == "1 other"


def test_settings_that_leave_one_token_say_so(mount, full):
    page = mount(full)
    remark = page.locator(".next-token-remark")
    assert remark.inner_text() == ""
    for name, value, back in (("top_k", 1, 0), ("top_p", 0, 1), ("min_p", 1, 0), ("temperature", 0.05, 1)):
        move(page, name, value)
        if name != "temperature":
            assert remark.inner_text() == (
                "One token is left, so every draw gives it: no filter removes the last one."
            )
            assert page.locator(".next-token-kept").inner_text() == "1 of 50,257"
        assert shares(page)[0] == "100.00 %"
        move(page, name, back)
    assert remark.inner_text() == ""


def test_draws_are_shown_against_what_is_expected(mount, full, gpt2):
    page = mount(full)
    drawn = page.locator(".next-token-bars .next-token-drawn")
    assert "".join(drawn.all_inner_texts()) == ""
    move(page, "temperature", 1.5)
    page.get_by_label("1,000", exact=True).check()
    assert full.draws == 1000
    probs = probabilities(full, gpt2, temperature=1.5).topk(15).values.tolist()
    probs.append(1 - sum(probs))
    counts, inside = [], 0
    for text, prob in zip(drawn.all_inner_texts(), probs, strict=True):
        count, mean, spread = (float(n.replace(",", "")) for n in re.findall(r"[\d,.]+", text))
        assert mean == pytest.approx(1000 * prob, abs=0.5)
        assert spread == pytest.approx(2 * (1000 * prob * (1 - prob)) ** 0.5, abs=0.5)
        inside += abs(count - 1000 * prob) <= 2 * (1000 * prob * (1 - prob)) ** 0.5
        counts.append(count)
    assert sum(counts) == 1000
    said = page.locator(".next-token-outcome")
    expect(said).to_contain_text(f"1,000 draws of seed 0: {inside} of 16 counts lie within two standard")
    assert inside >= 12

    page.get_by_role("button", name="Next seed").click()
    assert full.seed == 1
    expect(page.get_by_label("Seed", exact=True)).to_have_value("1")
    other = drawn.all_inner_texts()
    full.seed = 0
    expect(said).to_contain_text("seed 0")
    assert [
        float(re.match(r"[\d,]+", text)[0].replace(",", "")) for text in drawn.all_inner_texts()
    ] == counts
    assert drawn.all_inner_texts() != other

    full.draws = 1
    expect(page.get_by_label("1", exact=True)).to_be_checked()
    expect(said).to_contain_text("One draw of seed 0: ")
    ones = [text.split()[0] for text in drawn.all_inner_texts()]
    assert sorted(ones) == ["0"] * 15 + ["1"]
    page.get_by_role("button", name="Sample").click()  # it begins with the same random number
    expect(page.locator(".next-token-chosen")).to_have_count(1)
    picked = page.locator(".next-token-chosen").inner_text()
    row = ones.index("1")
    assert row == 15 or rows_of(mount(NextToken(full._model, gpt2, "Hello world")))[row][0] == picked


def test_a_token_is_appended_and_taken_back(mount, widget, gpt2):
    page = mount(widget)
    second = page.locator(".next-token-text").nth(1).inner_text()
    page.locator(".next-token-bars button").nth(1).click()
    expect(page.locator(".next-token-chosen")).to_have_text([second])
    expect(page.get_by_role("status")).to_have_text(f"Appended “{second}”.")
    assert gpt2.decode(widget.chosen).replace(" ", "·") == second
    assert widget.text == "Hello world" + gpt2.decode(widget.chosen)
    page.get_by_role("button", name="Most likely").click()
    expect(page.locator(".next-token-chosen")).to_have_count(2)
    expect(page.locator(".next-token-positions")).to_have_text("4 of 16 positions")
    page.get_by_role("button", name="Step back").click()
    page.get_by_role("button", name="Step back").click()
    expect(page.locator(".next-token-continuation")).to_have_text("choose a token below")
    page.get_by_role("button", name="Step back").click()
    assert widget.chosen == ()


def test_samples_repeat_for_a_seed(mount, widget):
    page = mount(widget)

    def samples(seed):
        widget.prompt = "Hello world"
        page.get_by_label("Seed").fill(str(seed))
        page.get_by_label("Seed").press("Tab")
        for count in range(1, 5):
            page.get_by_role("button", name="Sample").click()
            expect(page.locator(".next-token-chosen")).to_have_count(count)
        return widget.chosen

    move(page, "temperature", 3)
    first = samples(1)
    assert widget.seed == 1
    expect(page.get_by_role("status")).to_contain_text("draw 4 of seed 1")
    assert samples(2) != first
    assert samples(1) == first
    widget.seed = 7
    expect(page.get_by_label("Seed")).to_have_value("7")
    page.get_by_label("Seed").fill("1e30")
    page.get_by_label("Seed").press("Tab")
    expect(page.get_by_label("Seed")).to_have_value(str(2**32 - 1))


def test_keys(mount, widget):
    page = mount(widget)
    bars = page.locator(".next-token-bars button")
    slider(page, "min_p").focus()
    page.keyboard.press("Tab")
    expect(bars.nth(0)).to_be_focused()
    for key, row in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", 14), ("Home", 0)):
        page.keyboard.press(key)
        expect(bars.nth(row)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(bars.nth(0)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Most likely")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".next-token-chosen")).to_have_count(1)
    expect(bars.nth(0)).to_be_focused()
    for control in page.locator("button, input, textarea").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_keys_of_the_full_set(mount, full):
    page = mount(full)
    slider(page, "typical_p").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_label("none", exact=True)).to_be_focused()
    for draws in (1, 100, 1000, 10000):
        page.keyboard.press("ArrowRight")
        assert full.draws == draws
    page.keyboard.press("Tab")
    expect(page.get_by_label("Seed", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert full.seed == 1
    page.keyboard.press("Tab")
    expect(page.locator(".next-token-bars button").first).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator(".next-token-bars button").nth(14)).to_be_focused()
    for control in page.locator("button, input, textarea").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_a_saved_full_set_still_draws_and_says_what_it_does_not_know(open_page, model, gpt2):
    widget = NextToken(model, gpt2, "Hello world", "all", temperature=3, repetition_penalty=0.8, draws=100)
    page = open_page()
    page.set_content(document("light", widget.page()))
    drawn = page.locator(".next-token-bars .next-token-drawn")
    expect(drawn.first).to_contain_text("(")
    assert sum(int(text.split()[0]) for text in drawn.all_inner_texts()) == 100
    probs = probabilities(widget, gpt2, temperature=3.0, repetition_penalty=0.8)
    values, ids = probs.topk(15)
    assert rows_of(page)[:15] == list(
        zip([token_label(gpt2, i) for i in ids.tolist()], map(percent, values), strict=True)
    )
    kept = page.locator(".next-token-kept")
    assert kept.inner_text() == "50,257 of 50,257"
    move(page, "typical_p", 0.5)
    assert kept.inner_text().startswith("≈ ")
    assert note(page, "typical_p").startswith("leaves ≈ ")
    assert shares(page)[0] == "removed by typical"
    assert shares(page)[15].startswith("≈ ")
    page.get_by_role("button", name="Next seed").click()
    expect(page.locator(".next-token-outcome")).to_contain_text("100 draws of seed 1")
    page.get_by_label("none", exact=True).check()
    assert "".join(drawn.all_inner_texts()) == ""
    expect(page.get_by_role("status")).to_contain_text("A saved view: the sliders and the draws work.")
    assert page.get_by_role("button", name="Sample").is_disabled()


def test_a_typed_prompt_is_asked_once_typing_pauses(mount, widget):
    page = mount(widget)
    before = shares(page)
    stop_clock(page)
    page.get_by_label("Prompt").fill("")
    page.get_by_label("Prompt").press_sequentially("My")
    page.clock.run_for(399)
    page.get_by_label("Prompt").press_sequentially(" dog")
    page.clock.run_for(399)
    assert page.kernel.received == []
    page.clock.run_for(1)
    expect(page.locator(".next-token-share").first).not_to_have_text(before[0])
    assert widget.prompt == "My dog"
    assert [message["request"]["prompt"] for message in page.kernel.received] == ["My dog"]
    expect(page.get_by_label("Prompt")).to_have_value("My dog")


def test_a_busy_kernel_is_said_and_overtaken_answers_are_ignored(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.kernel.hold()
    prompt = page.get_by_label("Prompt")
    for text in ("one", "two", "three"):
        prompt.fill(text)
        page.clock.run_for(400)
    expect(page.get_by_role("status")).to_have_text("Kernel busy…")
    expect(page.locator(".next-token-bars")).to_have_attribute("aria-busy", "true")
    move(page, "top_k", 5)  # the sliders do not wait for the kernel
    assert shares(page)[5] == "removed by top-k"
    page.evaluate(
        """() => {
          window.drawn = [];
          const line = document.querySelector(".next-token-positions");
          new MutationObserver(() => drawn.push(1)).observe(line, { childList: true, subtree: true });
        }"""
    )
    page.kernel.release()
    expect(page.get_by_role("status")).to_have_text("")
    assert [message["request"]["prompt"] for message in page.kernel.received] == ["one", "three"]
    assert widget.prompt == "three"
    assert page.evaluate("drawn.length") == 1  # "one" came back and was not drawn
    expect(prompt).to_have_value("three")
    expect(page.locator(".next-token-bars")).not_to_have_attribute("aria-busy", "true")


def test_a_choice_made_while_the_same_prompt_is_under_way_follows_that_prompt(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.kernel.hold()
    page.get_by_label("Prompt").fill("My dog")
    page.clock.run_for(800)
    expect(page.get_by_role("status")).to_have_text("Kernel busy…")
    page.get_by_role("button", name="Most likely").click()  # asks for the prompt again first
    page.kernel.release()
    expect(page.locator(".next-token-chosen")).to_have_count(1)
    assert widget.prompt == "My dog"


def test_a_refused_prompt_after_an_overtaken_one_shows_what_python_holds(mount, widget):
    page = mount(widget)
    stop_clock(page)
    page.kernel.hold()
    for text in ("My dog", ""):
        page.get_by_label("Prompt").fill(text)
        page.clock.run_for(400)
    page.kernel.release()
    expect(page.get_by_role("alert")).to_contain_text("The prompt is empty")
    assert widget.prompt == "My dog"
    shown = widget.shown["top"][0]["text"]
    expect(page.locator(".next-token-text").first).to_have_text(shown)
    expect(page.get_by_label("Prompt")).to_have_value("")


def test_a_kernel_that_does_not_answer_is_said(mount, widget):
    page = mount(widget)
    page.kernel.hold()
    stop_clock(page)
    page.get_by_role("button", name="Most likely").click()
    page.clock.run_for(15_000)
    expect(page.get_by_role("status")).to_contain_text(
        "No answer yet: the kernel is running another cell, or has stopped."
    )


def test_clicks_while_the_kernel_is_busy_are_kept(mount, widget):
    page = mount(widget)
    page.kernel.hold()
    for _ in range(3):
        page.get_by_role("button", name="Most likely").click()
    page.kernel.release()
    expect(page.locator(".next-token-chosen")).to_have_count(3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The prompt is empty, so there is nothing to continue. Type at least one word."),
        (
            "word " * 20,
            "The prompt has 21 tokens, and the model has 16 positions. Shorten it by 5 or more.",
        ),
        ("a\ud83d", "Character 2 of the prompt is U+D83D, half of a surrogate pair"),
    ],
    ids=["empty", "too long", "half a surrogate pair"],
)
def test_a_bad_prompt_is_one_sentence_and_loses_nothing(mount, widget, text, sentence):
    page = mount(widget)
    page.get_by_role("button", name="Most likely").click()
    expect(page.locator(".next-token-chosen")).to_have_count(1)
    before = shares(page)
    page.get_by_label("Prompt").evaluate(
        "(e, codes) => { e.value = String.fromCharCode(...codes); e.dispatchEvent(new Event('input')); }",
        [unit for c in text for unit in [ord(c)]],
    )
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    expect(page.get_by_label("Prompt")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Most likely").click()  # would continue a prompt that is not in the box
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    assert shares(page) == before
    assert widget.prompt == "Hello world"
    page.get_by_label("Prompt").fill("Good again")
    expect(page.get_by_label("Prompt")).to_have_attribute("aria-invalid", "false")
    expect(page.locator(".course-wrong")).to_be_hidden()


def test_the_end_of_the_positions_is_said(mount, model, gpt2):
    page = mount(NextToken(model, gpt2, "word " * 15))
    page.get_by_role("button", name="Most likely").click()
    expect(page.get_by_role("alert")).to_contain_text("17 tokens, and the model has 16 positions. Step back.")
    page.get_by_role("button", name="Step back").click()
    assert page.widget.chosen == ()
    expect(page.locator(".next-token-positions")).to_have_text("16 of 16 positions")


def test_a_model_that_computes_its_positions_is_asked_past_what_it_was_trained_on(mount, gpt2):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=50257, max_position_embeddings=16, **sizes)
    page = mount(NextToken(LlamaForCausalLM(config).eval(), gpt2, "word " * 15))
    positions = page.locator(".next-token-positions")
    expect(positions).to_have_text("16 positions; the model was trained on 16")
    page.get_by_role("button", name="Most likely").click()
    expect(positions).to_have_text("17 positions; the model was trained on 16")


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(1)</script>",
        "\u202e\u200bعربي",
        "שלום <b>",
        "$\\frac{1}{2}$",
    ],
    ids=["image", "script", "direction marks", "right to left", "mathematics"],
)
def test_a_hostile_prompt_is_only_text(mount, widget, text):
    page = mount(widget)
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    page.get_by_label("Prompt").fill(text)
    expect(page.get_by_role("status")).to_have_text("")
    page.get_by_role("button", name="Most likely").click()
    expect(page.locator(".next-token-chosen")).to_have_count(1)
    assert widget.prompt == text
    assert page.locator("#host :is(img, script, b)").count() == 0


def test_tokens_that_look_like_html_are_text(mount, widget):
    hostile = "<img src=x onerror=alert(1)>"
    tokens = [{"id": 0, "text": hostile, "place": place} for place in range(15)]
    widget.set_trait("shown", widget.shown | {"top": tokens, "chosen": tokens[:1]})
    page = mount(widget)
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    assert page.locator(".next-token-text").all_inner_texts() == [hostile] * 15
    assert page.locator(".next-token-chosen").inner_text() == hostile


@pytest.mark.parametrize("controls", ["basic", "all"])
def test_no_slider_position_shows_nan(mount, model, gpt2, controls):
    page = mount(NextToken(model, gpt2, "Hello world", controls, draws=100 if controls == "all" else 0))
    texts = page.evaluate(
        """() => {
          const found = [];
          const places = { temperature: [0.05, 3], top_k: [0, 1, 200], top_p: [0, 0.5, 1] };
          places.min_p = places.top_p;
          if (document.querySelector(".next-token-typical_p"))
            Object.assign(places, { repetition_penalty: [0.5, 1, 2], typical_p: [0.01, 0.5, 1] });
          const set = ([[name, values], ...rest]) => {
            for (const value of values) {
              const slider = document.querySelector(`.next-token-${name}`);
              slider.value = value;
              slider.dispatchEvent(new Event("input"));
              if (rest.length > 0) set(rest);
              else found.push(document.querySelector("#host").innerHTML);
            }
          };
          set(Object.entries(places));
          return found;
        }"""
    )
    assert len(texts) == (54 if controls == "basic" else 486)
    assert not [text for text in texts if "NaN" in text or "Infinity" in text or "undefined" in text]


SETTINGS = {"repetition_penalty": 1.3, "top_p": 0.95, "min_p": 0.0001, "typical_p": 0.9, "draws": 1000}


@pytest.mark.parametrize("settings", [{}, {"controls": "all", **SETTINGS}], ids=["basic", "all"])
def test_each_move_is_drawn_at_once_and_none_is_dropped(mount, model, gpt2, settings):
    widget = NextToken(model, gpt2, "Hello world", **settings)
    page = mount(widget, width=1200)
    page.evaluate(RECORD)
    temperature = slider(page, "temperature")
    temperature.focus()
    for key in ["ArrowRight"] * 30 + ["ArrowLeft"] * 30:
        page.keyboard.press(key)
    moves = page.evaluate("moves.splice(0)")
    assert len(moves) == 60
    assert [float(one["output"]) for one in moves] == [float(one["value"]) for one in moves]

    temperature.evaluate("e => { e.value = e.min; }")
    box = temperature.bounding_box()
    left, y = box["x"] + 8, box["y"] + box["height"] / 2
    page.mouse.move(left, y)
    page.mouse.down()
    page.evaluate("moves.splice(0)")
    for step in range(1, 60):
        page.mouse.move(left + (box["width"] - 16) * step / 59, y)
    page.mouse.up()
    moves = page.evaluate("moves")
    assert len(moves) == 59  # the slider has 60 places
    assert [float(one["output"]) for one in moves] == [float(one["value"]) for one in moves]
    assert len({one["share"] for one in moves}) >= 55 or settings
    assert widget.temperature == 3.0
