"""The link between two steps: its curves and chains beside torch's own, the controls, and refusals."""

import math

import numpy
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import T5Config, T5ForConditionalGeneration

from course_utils import CourseError, load
from course_utils.gradient_chain import LINKS, TwoSteps
from course_utils.gradients import toy_model
from course_utils.widgets import GradientLink
from tiny import tiny_gpt2


@pytest.fixture(scope="module")
def model():
    return toy_model(seed=5)


@pytest.fixture
def widget(model):
    return GradientLink(model)


def by_hand(model, weight, to_token, target=5, number=4):
    """Loss and gradient at one weight, by backward(): (float, float or None)."""
    weight = torch.tensor(float(weight), dtype=torch.float64, requires_grad=True)
    hidden = model.transformer(torch.tensor([[0]])).last_hidden_state[0, -1]
    moved = torch.zeros_like(hidden)
    moved[number] = 1.0
    token = to_token(model.lm_head(hidden + weight * moved))
    table = model.transformer.wte.weight
    second = table[token] if token.dtype == torch.long else token @ table
    logits = model(inputs_embeds=torch.stack([table[0], second])[None]).logits[0, -1]
    loss = cross_entropy(logits, torch.tensor(target))
    loss.backward()
    model.zero_grad()
    return loss.item(), None if weight.grad is None else weight.grad.item()


def gumbel_by_hand(logits, temperature, seed):
    uniform = torch.rand((1, len(logits)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ((logits - (-uniform[0].log()).log()) / temperature).softmax(-1)


def straight_by_hand(logits):
    probs = logits.softmax(-1)
    hard = torch.eye(len(logits), dtype=torch.float64)[logits.argmax()]
    return hard + probs - probs.detach()


TO_TOKEN = {
    "argmax": lambda logits: logits.argmax(-1),
    "softmax": lambda logits: logits.softmax(-1),
    "Gumbel-softmax": lambda logits: gumbel_by_hand(logits, 0.3, 2),
    "straight-through": straight_by_hand,
}


@pytest.mark.parametrize("link", LINKS)
def test_curves_and_chains_are_backwards(model, link):
    widget = GradientLink(model, link, temperature=0.3, seed=2)
    curve = widget.curve()
    for place in (0, 7, 24, 31, 48):
        weight = curve.weights[place].item()
        loss, gradient = by_hand(model, weight, TO_TOKEN[link])
        assert curve.losses[place].item() == pytest.approx(loss, abs=1e-10)
        if gradient is None:
            assert "weight" not in curve.gradients
        else:
            assert curve.gradients["weight"][place].item() == pytest.approx(gradient, abs=1e-10)
        widget.weight = weight
        for tensor in widget.chain():
            column = curve.gradients.get(tensor.name)
            if tensor.name != "loss":
                arriving = None if column is None else pytest.approx(column[place].item(), abs=1e-10)
                assert tensor.gradient == arriving, tensor.name


def test_the_chain_of_each_link(widget):
    facts = {link: [tuple(tensor)[2:5] for tensor in widget.chain(link)] for link in LINKS}
    assert [tensor.name for tensor in widget.chain()] == [
        "weight", "logits", "token", "embedding", "next_logits", "loss"
    ]  # fmt: skip
    before = [("float64", True, None), ("float64", True, "SelectBackward0")]
    after = [("float64", True, "SelectBackward0"), ("float64", True, "NllLossBackward0")]
    ids = [("int64", False, None), ("float64", True, "EmbeddingBackward0")]
    assert facts["argmax"] == before + ids + after
    for link, operation in (
        ("softmax", "SoftmaxBackward0"),
        ("Gumbel-softmax", "SoftmaxBackward0"),
        ("straight-through", "SubBackward0"),
    ):
        assert facts[link] == [
            *before,
            ("float64", True, operation),
            ("float64", True, "MmBackward0"),
            *after,
        ]
    arrives = {link: [tensor.gradient is not None for tensor in widget.chain(link)] for link in LINKS}
    assert arrives.pop("argmax") == [False, False, False, True, True, True]
    assert set(map(tuple, arrives.values())) == {(True,) * 6}
    assert widget.chain()[-1].gradient == 1


def test_what_each_link_is_to_show(widget):
    flat = widget.curve("argmax")
    choices = torch.tensor(widget.shown["choices"])
    assert len(choices.unique_consecutive()) == 4
    same = choices[1:] == choices[:-1]
    assert (flat.losses.diff()[same].abs() < 1e-12).all()  # plateaus
    assert (flat.losses.diff()[~same].abs() > 1).all()  # cliffs
    inner = slice(1, -1)
    calm = same[1:] & same[:-1]
    assert (flat.differences()[inner][calm].abs() < 1e-10).all()
    smooth = widget.curve("softmax")
    error = smooth.differences()[inner] - smooth.gradients["weight"][inner]
    assert error.abs().max() < 0.01
    straight = widget.curve("straight-through")
    torch.testing.assert_close(straight.losses, flat.losses)
    assert (straight.gradients["weight"].abs() > 0.05).double().mean() > 0.4  # where the curve is flat
    assert straight.gradients["weight"][24] * smooth.gradients["weight"][24] < 0


def test_the_logits_without_the_weight_are_the_models(model):
    for other in (model, load("tiny-llama", "cpu")[0]):
        widget = GradientLink(other, span=1.0)
        with torch.no_grad():
            expected = other(torch.tensor([[0]])).logits[0, -1]
        logits = widget._steps.run(torch.zeros(1, dtype=torch.float64), "softmax")["logits"][0]
        torch.testing.assert_close(logits.detach(), expected)


SMALL = {
    "vocab_size": 8, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3,
    "bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("GraniteForCausalLM", {"logits_scaling": 8.0}),
        ("CohereForCausalLM", {"logit_scale": 0.25}),
        ("Gemma2ForCausalLM", {"head_dim": 8, "final_logit_softcapping": 2.0}),
        ("Gemma3ForCausalLM", {"head_dim": 8}),  # scales what its input layer returns
    ],
)
def test_models_that_do_more_than_their_layers_weights(kind, own):
    kind = getattr(transformers, kind)
    torch.manual_seed(0)
    model = kind(kind.config_class(**SMALL | own)).double().eval()
    steps = TwoSteps(model, 1, 5, 4)
    rows = steps.run(torch.zeros(2, dtype=torch.float64), "argmax")
    with torch.no_grad():
        first = model(torch.tensor([[1]])).logits[0, -1]
        second = model(torch.tensor([[1, first.argmax()]])).logits[0, -1]
    torch.testing.assert_close(rows["logits"][1].detach(), first)
    torch.testing.assert_close(rows["next_logits"][1].detach(), second)
    straight = steps.run(torch.zeros(2, dtype=torch.float64), "straight-through")
    torch.testing.assert_close(straight["next_logits"][1].detach(), second)
    widget = GradientLink(model, "softmax", start=1, target=5, span=0.5)
    curve, inner = widget.curve(), slice(1, -1)
    slopes = curve.gradients["weight"]
    assert slopes.abs().max() > 1e-6
    torch.testing.assert_close(curve.differences()[inner], slopes[inner], rtol=0.02, atol=1e-4)


def test_numbers_may_be_numpys_or_tensors(model):
    plain = GradientLink(model, start=1, target=2, number=3, span=2.0)
    for kind, real in ((numpy.int64, numpy.float32), (torch.tensor, torch.tensor)):
        other = GradientLink(model, start=kind(1), target=kind(2), number=kind(3), span=real(2.0))
        assert other.shown == plain.shown


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_a_model_of_few_digits_are_in_float32(dtype):
    steps = TwoSteps(toy_model(seed=5).to(dtype), 0, 5, 4)
    tensors = steps.run(torch.zeros(2, dtype=torch.float64), "softmax")
    expected = cross_entropy(tensors["next_logits"].float(), torch.tensor([5, 5]), reduction="none")
    assert tensors["next_logits"].dtype == dtype and torch.equal(tensors["loss"], expected)


def test_noise_is_that_of_the_seed_and_stands_still(widget):
    curves = {}
    for seed in (0, 1, 2):
        widget.seed = seed
        curves[seed] = widget.curve("Gumbel-softmax").losses
    assert (curves[0] - curves[1]).abs().max() > 0.1 < (curves[1] - curves[2]).abs().max()
    assert max(curve.diff().abs().max() for curve in curves.values()) < 0.5  # new noise would make it jump
    before = curves[2]
    widget.temperature = 3.0
    assert (widget.curve("Gumbel-softmax").losses - before).abs().max() > 0.1
    torch.testing.assert_close(
        widget.curve("softmax").losses, GradientLink(widget._steps.model).curve("softmax").losses
    )


def test_the_page_is_given_what_was_computed(widget):
    shown = widget.shown
    units = numpy.frombuffer(shown["columns"], "<i2").reshape(-1, shown["places"])
    scales = [scale for own in shown["scales"].values() for scale in own]
    computed = [
        column for curve in widget._curves.values() for column in (curve.losses, *curve.gradients.values())
    ]
    assert len(units) == len(scales) == len(computed)
    for row, scale, column in zip(units, scales, computed, strict=True):
        assert abs(row / 32767 * scale - column.numpy()).max() <= 0.6 * scale / 32767


def test_the_model_stays_as_it_was():
    model = toy_model(seed=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():  # a learner's block does not reach in
        widget = GradientLink(model)
    assert widget.chain("softmax")[0].gradient is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_frozen_model_has_a_gradient_for_the_weight_alone():
    model = toy_model(seed=5).requires_grad_(False)
    widget = GradientLink(model)
    assert [tensor.gradient for tensor in widget.chain("argmax")] == [None] * 6
    assert widget.chain("softmax")[0].gradient == pytest.approx(
        GradientLink().chain("softmax")[0].gradient, abs=1e-12
    )


def test_other_models():
    widget = GradientLink(load("tiny-gpt2", "cpu")[0], start=464, target=11)
    assert {tensor.dtype for tensor in widget.chain("softmax")} == {"float32"}
    assert widget.chain("argmax")[0].gradient is None
    assert widget.chain("softmax")[0].gradient != 0


def test_the_weight_goes_to_a_place_of_the_slider(widget):
    for given, place in ((1.1, 1.0), (-5.9, -6.0), (0.2, 0.25), (3, 3.0)):
        widget.weight = given
        assert widget.weight == place
    assert GradientLink(widget._steps.model, weight=-0.75).weight == -0.75


def test_a_number_that_equals_an_option_is_that_option(widget):
    given = GradientLink(widget._steps.model, "Gumbel-softmax", temperature=torch.tensor(1.0), seed=True)
    assert (type(given.temperature), type(given.seed)) == (float, int)
    assert "Weight 0" in given.summary()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("link", "hardmax", "link is 'hardmax'. Give 'argmax' or 'softmax'"),
        ("weight", 6.5, "The weight is 6.5, and its slider goes from -6 to 6"),
        ("weight", math.nan, "The weight is nan"),
        ("temperature", 0, "temperature is 0. Give 0.3 or 1.0 or 3.0"),
        ("seed", 7, "seed is 7. Give 0 or 1 or 2"),
    ],
)
def test_a_bad_control_changes_nothing(widget, name, value, sentence):
    before = widget.page_state()
    with pytest.raises(CourseError, match=sentence):
        setattr(widget, name, value)
    assert widget.page_state() == before
    with pytest.raises(CourseError, match=sentence):
        GradientLink(widget._steps.model, **{name: value})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"start": 6}, "start is 6, and this model takes a whole number from 0 to 5"),
        ({"target": -1}, "target is -1"),
        ({"target": True}, "target is True"),
        ({"number": 16}, "number is 16, and this model takes a whole number from 0 to 15"),
        ({"span": 0}, "The span is 0. Give a number above 0"),
        ({"span": math.inf}, "The span is inf"),
        ({"span": "6"}, "The span is '6'"),
    ],
)
def test_other_refusals(model, given, sentence):
    with pytest.raises(CourseError, match=sentence):
        GradientLink(model, **given)


def test_models_that_are_refused(widget):
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=10, d_model=8, d_ff=8, num_layers=1, num_heads=1))
    with pytest.raises(CourseError, match="T5ForConditionalGeneration is an encoder-decoder model"):
        GradientLink(t5)
    with pytest.raises(CourseError, match=r"training mode.*Type model.eval\(\)"):
        GradientLink(toy_model().train())
    broken = tiny_gpt2(16)
    broken.lm_head.weight.data[:] = math.nan
    with pytest.raises(CourseError, match="not a finite number"):
        GradientLink(broken)
    with pytest.raises(CourseError, match="There is no link 'hard'"):
        widget.chain("hard")


def test_summary_and_still(widget):
    assert repr(widget) == (
        "Weight 0: the loss −log p(token 5), its gradient by autograd, its finite difference\n"
        "argmax                4.33    none    0.00\n"
        "softmax               3.87   -0.20   -0.20\n"
        "Gumbel-softmax        3.80   -0.12   -0.12\n"
        "straight-through      4.33    0.06    0.00\n"
        "From the weight to the loss with argmax; last, the gradient that arrives\n"
        "weight       float64  requires_grad=True  no grad_fn  none\n"
        "logits       float64  requires_grad=True  SelectBackward0  none\n"
        "token        int64  requires_grad=False  no grad_fn  none\n"
        "embedding    float64  requires_grad=True  EmbeddingBackward0  1.37\n"
        "next_logits  float64  requires_grad=True  SelectBackward0  1.14\n"
        "loss         float64  requires_grad=True  NllLossBackward0  1.00"
    )
    assert widget.still().count("<tr>") == 12
    assert "the loss −log p(token 5) after the second" in widget.still()


def test_an_output_stays_small(widget):
    assert len(widget.page().encode()) < 37_000
