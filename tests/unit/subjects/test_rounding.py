"""Ways that should not matter, bugs that do, and that the model is left as it was."""

import copy

import pytest
import torch

from course_utils import CourseError, load
from course_utils.rounding import (
    BUGS,
    SAME,
    SMALL_BUGS,
    changed,
    distance,
    exact_norms,
    exact_softmax,
    greedy_run,
    plain,
    small_bug,
)


@pytest.fixture(scope="module")
def llama():
    return load("tiny-llama", "cpu")[0]


@pytest.fixture(scope="module")
def double(llama):
    return copy.deepcopy(llama).double()


IDS = torch.arange(100, 121)[None]


@pytest.mark.parametrize("name", SAME)
def test_what_should_not_matter_is_rounding(llama, double, name):
    assert distance(llama, IDS, SAME[name], last=6)[0] < 1e-4
    with exact_norms(double), exact_softmax():
        assert distance(double, IDS, SAME[name], last=6)[0] < 1e-6


@pytest.mark.parametrize("name", [*BUGS, *SMALL_BUGS])
def test_a_bug_keeps_its_size_and_leaves_the_model(llama, double, name):
    way = BUGS.get(name) or small_bug(name)
    before = plain(llama, IDS, 6)
    single, twofold = (distance(model, IDS, way, last=6)[0] for model in (llama, double))
    assert torch.equal(plain(llama, IDS, 6), before)
    assert twofold > 0 and single == pytest.approx(twofold, rel=0.2, abs=1e-5)


def test_an_attribute_is_put_back_whatever_happens(llama):
    layer = llama.model.layers[0].self_attn
    before = layer.scaling
    with pytest.raises(CourseError), changed(layer, "scaling", 9.0):
        small_bug("typo")
    assert layer.scaling == before
    softmax = torch.nn.functional.softmax
    with exact_softmax():
        assert (
            torch.nn.functional.softmax(torch.zeros(2).double(), dim=-1, dtype=torch.float32).dtype
            == torch.float64
        )
    assert torch.nn.functional.softmax is softmax


def test_eager_attention_is_put_back(llama):
    before = llama.config._attn_implementation
    SAME["eager attention"](llama, IDS, 3)
    assert llama.config._attn_implementation == before


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("cache", [False, True])
def test_a_run_is_greedy_decoding(llama, cache, batch):
    new, gaps = greedy_run(llama, IDS, 5, cache=cache, batch=batch)
    ids = IDS
    for token, gap in zip(new, gaps, strict=True):
        best = plain(llama, ids, 1)[0].topk(2)
        assert token == best.indices[0]
        assert gap == pytest.approx((best.values[0] - best.values[1]).item(), abs=1e-4)
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_bad_input_is_a_sentence(llama):
    with pytest.raises(CourseError, match="There is no bug 'typo'"):
        small_bug("typo")
    for last in (0, 21):
        with pytest.raises(CourseError, match="The text has 21 tokens, so `last` is to be 1 to 20"):
            distance(llama, IDS, plain, last)
