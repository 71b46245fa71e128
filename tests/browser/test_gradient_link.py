"""The gradient link on a blank page, with the Python widget as its kernel, and as a saved page."""

import pytest
from browser_kit import document, until
from playwright.sync_api import expect

from course_utils.gradient_chain import LINKS
from course_utils.gradients import toy_model
from course_utils.widgets import GradientLink


@pytest.fixture(scope="module")
def model():
    return toy_model(seed=5)


@pytest.fixture
def widget(model):
    return GradientLink(model)


def choose(page, label):
    page.get_by_label(label, exact=True).check()


def slide(page, place):
    """Move the slider without letting it go."""
    slider = page.get_by_role("slider")
    slider.evaluate("(e, to) => { e.value = to; e.dispatchEvent(new Event('input')); }", place)


def number(text):
    return float(text.replace("−", "-"))


def figures(page):
    return page.locator("dd").all_inner_texts()


def chain(page):
    """For each tensor (name, what arrives, facts): list of tuples of str."""
    parts = ("strong", ".gradient-link-arrives", ".gradient-link-facts")
    return [tuple(item.locator(part).inner_text() for part in parts) for item in page.locator("li").all()]


def verdict(page):
    return page.locator(".gradient-link-verdict").inner_text()


@pytest.mark.parametrize("saved", [False, True])
def test_every_link_and_place_shows_torchs_numbers(mount, open_page, widget, saved):
    if saved:
        page = open_page()
        page.set_content(document("light", widget.page()))
    else:
        page = mount(widget)
    noise = [(heat, seed) for heat in (0.3, 3.0) for seed in (0, 2)]
    for link in LINKS:
        choose(page, link)
        for heat, seed in noise if link == "Gumbel-softmax" else [(1.0, 0)]:
            if link == "Gumbel-softmax":
                choose(page.get_by_role("group", name="Temperature"), f"{heat:g}")
                choose(page.get_by_role("group", name="Noise of seed"), str(seed))
            own = GradientLink(widget._steps.model, link, temperature=heat, seed=seed)
            curve = own.curve()
            for place in (0, 8, 24, 33):
                slide(page, place)
                loss, gradient, difference = figures(page)
                assert number(loss) == pytest.approx(curve.losses[place].item(), abs=0.0055)
                assert number(difference) == pytest.approx(curve.differences()[place].item(), abs=0.0065)
                slope = curve.gradients.get("weight")
                if slope is None:
                    assert gradient == "none"
                else:
                    assert number(gradient) == pytest.approx(slope[place].item(), abs=0.0055)
                own.weight = curve.weights[place].item()
                for (name, arrives, facts), tensor in zip(chain(page), own.chain(), strict=True):
                    assert name == tensor.name
                    assert facts.startswith(f"{tensor.dtype}, requires_grad={tensor.requires_grad}, ")
                    assert (tensor.grad_fn or "") in facts
                    if tensor.gradient is None:
                        assert arrives == "no gradient"
                    else:
                        assert number(arrives.split()[1]) == pytest.approx(tensor.gradient, abs=0.0065)


def test_argmax_shows_where_the_gradient_stops(mount, widget):
    page = mount(widget)
    expect(page.locator("li").nth(2).locator(".gradient-link-cut")).to_have_text(
        "✂ The gradient stops here: ids are whole numbers, and carry none."
    )
    assert page.locator(".gradient-link-cut").count() == 1
    assert page.locator(".gradient-link-reached strong").all_inner_texts() == [
        "embedding", "next_logits", "loss"
    ]  # fmt: skip
    assert verdict(page) == (
        "The choice is token 3, here and a step to each side: the loss is flat. Autograd has nothing to "
        "report: weight.grad stays None."
    )
    assert page.locator("svg .gradient-link-tangent").count() == 0
    plateaus = page.locator(".gradient-link-chart text", has_text="token ").all_text_contents()[1:]
    assert plateaus == [f"token {token}" for token in (5, 3, 2, 4)]
    slide(page, 30)
    assert verdict(page).startswith(
        "The choice changes here from token 3 to token 2. The finite difference is the jump divided by 0.5"
    )


def test_a_link_that_passes_a_gradient_has_a_tangent_and_no_cut(mount, widget):
    page = mount(widget)
    heights = "e => (e.y2.baseVal.value - e.y1.baseVal.value) / (e.x2.baseVal.value - e.x1.baseVal.value)"
    for link, falls in (("softmax", True), ("straight-through", False)):
        choose(page, link)
        assert page.locator(".gradient-link-cut").count() == 0
        tangent = page.locator("line.gradient-link-tangent")
        assert (tangent.evaluate(heights) > 0) == falls  # y grows downwards
    assert "the slope of another curve" in verdict(page)
    choose(page, "softmax")
    assert verdict(page).startswith(
        "Autograd and the finite difference agree: this is the slope of the curve."
    )


def test_gumbel_shows_the_other_seeds_too(mount, widget):
    page = mount(widget)
    for name in ("Temperature", "Noise of seed"):
        expect(page.get_by_role("group", name=name)).to_be_hidden()
    choose(page, "Gumbel-softmax")
    assert page.locator("polyline.gradient-link-other").count() == 4
    gradients = []
    for seed in ("0", "1", "2"):
        choose(page.get_by_role("group", name="Noise of seed"), seed)
        gradients.append(number(figures(page)[1]))
    assert f"{min(gradients):.2f}".replace("-", "−") in verdict(page)
    assert f"{max(gradients):.2f}".replace("-", "−") in verdict(page)
    choose(page, "softmax")
    assert page.locator("polyline.gradient-link-other").count() == 0


def test_page_and_python_move_each_other(mount, widget):
    page = mount(widget)
    choose(page, "softmax")
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.gradient-link-value').textContent === '0.25'")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuetext", "0.5")
    until(page, lambda: (widget.link, widget.weight) == ("softmax", 0.5))
    widget.weight, widget.link, widget.seed, widget.temperature = -2, "Gumbel-softmax", 1, 0.3
    expect(page.get_by_label("Gumbel-softmax", exact=True)).to_be_checked()
    expect(page.get_by_role("group", name="Noise of seed").get_by_label("1")).to_be_checked()
    expect(page.get_by_label("0.3")).to_be_checked()
    expect(page.get_by_role("slider")).to_have_value("16")
    assert number(figures(page)[0]) == pytest.approx(widget.curve().losses[16].item(), abs=0.0055)


def test_keys(mount, widget):
    page = mount(widget)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("softmax", exact=True)).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.get_by_role("slider")).to_be_focused()
    page.keyboard.press("Home")
    expect(page.locator(".gradient-link-value")).to_have_text("−6")
    for control in page.locator("button, input, [tabindex]").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_a_frozen_model_is_cut_at_the_same_place(mount):
    page = mount(GradientLink(toy_model(seed=5).requires_grad_(False)))
    expect(page.locator("li").nth(2).locator(".gradient-link-cut")).to_be_visible()
    assert page.locator(".gradient-link-reached").count() == 0
