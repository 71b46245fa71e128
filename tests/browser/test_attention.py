"""The page's arithmetic of attention against torch on a CPU, in three types of number."""

from pathlib import Path

import pytest
import torch

from course_utils import load
from course_utils.masks import additive_mask, fill_value, pad_sentences
from course_utils.widgets import mask_view
from course_utils.widgets.mask_view import DTYPES, attention_scores, outcome

MODULE = Path(mask_view.__file__).with_name("attention.js").read_text(encoding="utf-8")
FILLS = ("-inf", "finfo.min", "-1e4")
FACTS = [3.0, -20.0, 5.0, -40.0]

LOAD = """async (module) => {
  window.maths = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
}"""
ROUND = "([values, name]) => values.map((value) => maths.rounded(value, maths.FORMATS[name]))"
ATTEND = """(cases) => cases.map(([scores, allowed, fill, name]) => {
  const stages = maths.attend(Float32Array.from(scores), allowed, fill, maths.FORMATS[name]);
  return { ...stages, outcome: maths.outcome(stages) };
})"""


@pytest.fixture
def page(open_page):
    page = open_page()
    page.evaluate(LOAD, MODULE)
    return page


def torch_stages(scores, allowed, fill, dtype):
    """scores, mask, sums and weights as torch has them: dict of tensors [key]."""
    scores = torch.tensor(scores).to(dtype)
    mask = additive_mask(torch.tensor(allowed), dtype, fill)
    return {"scores": scores, "mask": mask, "sums": scores + mask, "weights": (scores + mask).softmax(-1)}


def drawn_cases(count):
    """Rows of scores with a mask, of one to sixteen keys, small and large, some masked everywhere."""
    draw = torch.Generator().manual_seed(0)
    cases = []
    for number in range(count):
        keys = int(torch.randint(1, 17, (), generator=draw))
        scale = (0.1, 1.0, 10.0, 100.0, 3000.0)[number % 5]
        scores = (torch.randn(keys, generator=draw) * scale).tolist()
        share = (0.0, 0.0, 0.3, 0.7, 1.0)[number // 5 % 5]  # of keys that are allowed
        cases.append((scores, (torch.rand(keys, generator=draw) < share).tolist()))
    return cases


def head_cases():
    """The real rows of a real head, causal and padding mask joined."""
    model, tokenizer = load("tiny-gpt2", "cpu")
    tokenizer.pad_token = tokenizer.eos_token
    batch = pad_sentences(tokenizer, ["It will rain in the", "I want to eat a big bowl of", "My dog is"])
    scores = attention_scores(model, batch, 1)[0, 1]
    return [(row.tolist(), [3 <= key <= query for key in range(8)]) for query, row in enumerate(scores)]


def units(ours, theirs, dtype):
    """How far two tensors are apart, in units of the last digit of `dtype`; subnormal numbers are taken for
    the smallest normal one, since torch may flush them."""
    info = torch.finfo(dtype)
    size = theirs.double().abs().clamp(min=info.tiny)
    return (ours - theirs.double()).abs() / (size.log2().floor().exp2() * info.eps)


def test_rounding_is_torchs(page):
    bits = torch.randint(-(2**31), 2**31, (5_000,), generator=torch.Generator().manual_seed(1))
    values = bits.to(torch.int32).view(torch.float32)
    # The halves between neighbours, where the even one is taken, and the edges of each range.
    halves = torch.arange(0, 2**16, 5, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    halves = torch.cat([halves * (1 + 2**-11), halves * (1 + 2**-12), halves * 1.0005])
    edges = torch.tensor([65503.9, 65519.996, 65520.0, 3.3953e38, 3.4e38, 6e-8, 2.98e-8, 2.9802322e-8, 1e-45])
    values = torch.cat([values, halves, edges, -edges])
    values = values[values.isfinite()]
    for name in ("bfloat16", "float16"):
        ours = torch.tensor(page.evaluate(ROUND, [values.tolist(), name]), dtype=torch.float64)
        assert torch.equal(ours, values.to(DTYPES[name]).double()), name
    doubles = values.double() * (1 + 1e-8)
    ours = torch.tensor(page.evaluate(ROUND, [doubles.tolist(), "float32"]), dtype=torch.float64)
    assert torch.equal(ours, doubles.float().double())


def test_fill_values_are_torchs(page):
    for name, dtype in DTYPES.items():
        for fill in FILLS:
            ours = page.evaluate("([fill, name]) => maths.fillValue(fill, maths.FORMATS[name])", [fill, name])
            assert ours == fill_value(fill, dtype).item(), (name, fill)


def test_every_stage_is_torchs(page):
    settings = [
        (scores, allowed, fill, name)
        for scores, allowed in [*drawn_cases(100), *head_cases(), (FACTS, [False] * 4), (FACTS, [True] * 4)]
        for name in DTYPES
        for fill in FILLS
    ]
    assert len(settings) >= 900
    weights, exact = 0, 0
    for setting, ours in zip(settings, page.evaluate(ATTEND, settings), strict=True):
        scores, allowed, fill, name = setting
        theirs = torch_stages(scores, allowed, fill, DTYPES[name])
        for stage in ("scores", "mask", "sums"):
            assert ours[stage] == theirs[stage].tolist(), setting
        got = torch.tensor(ours["weights"], dtype=torch.float64)
        nan = theirs["weights"].isnan()
        assert torch.equal(got.isnan(), nan), setting
        # float32: torch's own exp is off by a unit, and its sum goes another way round.
        most = 8 if name == "float32" else 1
        assert not (units(got, theirs["weights"], DTYPES[name])[~nan] > most).any(), setting
        if name != "float32":
            weights += len(got)
            exact += int(((got == theirs["weights"].double()) | nan).sum())
        if not any(allowed):
            assert ours["outcome"] == outcome(theirs["scores"], theirs["weights"]), setting
    assert exact >= 0.999 * weights


@pytest.mark.parametrize(
    ("name", "fill", "everywhere", "expected"),
    [
        *[(name, "-inf", ["NaN"] * 4, "NaN") for name in DTYPES],
        ("float32", "finfo.min", [0.25, 0.25, 0.25, 0.25], "uniform"),
        ("bfloat16", "finfo.min", [0.25, 0.25, 0.25, 0.25], "uniform"),
        ("float16", "finfo.min", [0.5, 0, 0.5, 0], "rounding"),
        ("float32", "-1e4", [0.119, 0, 0.881, 0], "as if unmasked"),
        ("bfloat16", "-1e4", [0.334, 0.334, 0.334, 0], "rounding"),
        ("float16", "-1e4", [0.0003, 0, 0.9995, 0], "rounding"),
    ],
)
def test_a_row_of_which_all_is_forbidden(page, name, fill, everywhere, expected):
    every, some = page.evaluate(
        ATTEND, [[FACTS, [False] * 4, fill, name], [FACTS, [True, False, True, False], fill, name]]
    )
    got = ["NaN" if weight != weight else weight for weight in every["weights"]]
    assert got == (everywhere if "NaN" in everywhere else pytest.approx(everywhere, abs=6e-4))
    assert every["outcome"] == expected
    alone = torch.tensor([3.0, 5.0]).softmax(-1).tolist()
    assert some["weights"] == pytest.approx([alone[0], 0, alone[1], 0], abs=4e-3)
    assert [some["weights"][key] for key in (1, 3)] == [0, 0]
