"""The page's arithmetic against transformers' logits processors."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from course_utils import load
from course_utils.widgets import next_token

MODULE = Path(next_token.__file__).with_name("distribution.js").read_text(encoding="utf-8")
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}

LOAD = """async ({ module, vectors }) => {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  window.maths = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
  window.vectors = vectors.map((columns) =>
    Object.fromEntries(Object.entries(columns).map(([name, text]) => [name, new Float32Array(bytes(text))])));
}"""
RUN = """([vector, settings]) => {
  const { probs, ...rest } = maths.distribution(vectors[vector], settings);
  const kept = new Uint8Array(new Float64Array(probs.filter((p) => p > 0)).buffer);
  let text = "";
  for (let i = 0; i < kept.length; i += 8192) text += String.fromCharCode(...kept.subarray(i, i + 8192));
  return { ...rest, probs: btoa(text) };
}"""


def transformers_scores(logits, settings):
    """The scores that generate() would draw from, -inf where removed: float32 tensor [vocab]."""
    processors = LogitsProcessorList()
    if settings["temperature"] != 1.0:
        processors.append(TemperatureLogitsWarper(settings["temperature"]))
    if settings["top_k"]:
        processors.append(TopKLogitsWarper(settings["top_k"]))
    if settings["top_p"] < 1:
        processors.append(TopPLogitsWarper(settings["top_p"]))
    if settings["min_p"]:
        processors.append(MinPLogitsWarper(settings["min_p"]))
    return processors(None, logits[None])[0]


def vectors():
    """Logits by name: two of the real model, and made ones with ties, with -inf, flat, peaked, short."""
    model, tokenizer = load(device="cpu")
    with torch.no_grad():
        real = {
            text: model(**tokenizer(text, return_tensors="pt"), logits_to_keep=1).logits[0, -1].cpu()
            for text in ("The capital of France is", "My dog")
        }
    spread = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 3
    removed = spread.clone()
    removed[::3] = -torch.inf
    return real | {
        "ties": (spread * 2).round() / 2,
        "many ties at the top": spread.clamp(max=2),
        "all equal": torch.zeros(997),
        "with -inf": removed,
        "peaked": torch.tensor([50.0, *[0.0] * 99]),
        "large": spread * 100,
        "two tokens": torch.tensor([1.0, 1.5]),
        "one token": torch.tensor([3.0]),
    }


def on_an_edge(logits, settings):
    """True if float32's rounding decides: a cut of top-p or min-p lies within its error of a token."""
    probs = transformers_scores(logits, settings | {"top_p": 1.0, "min_p": 0.0}).double().softmax(-1)
    limit = 1 - settings["top_p"]
    below = probs.sort().values.cumsum(0)[:-1]  # the last token is kept in any case
    ratios = probs[probs < probs.max()] / probs.max()
    near_top_p = settings["top_p"] < 1 and (below - limit).abs().lt(1e-6 * max(limit, 1e-2)).any()
    near_min_p = settings["min_p"] > 0 and (ratios / settings["min_p"] - 1).abs().lt(1e-6).any()
    return bool(near_top_p or near_min_p)


def drawn_settings(logits, count, seed):
    """Settings as the sliders give them, each filter off half the time, but for those on an edge."""
    draw = np.random.default_rng(seed)
    settings, edges = [], 0
    while len(settings) < count:
        one = {
            "temperature": round(float(draw.integers(1, 61)) * 0.05, 2),
            "top_k": int(draw.integers(1, 201)) if draw.random() < 0.5 else 0,
            "top_p": float(draw.integers(0, 100)) / 100 if draw.random() < 0.5 else 1.0,
            "min_p": float(draw.integers(1, 101)) / 100 if draw.random() < 0.5 else 0.0,
        }
        if on_an_edge(logits, one):
            edges += 1
        else:
            settings.append(one)
    assert edges <= count / 4
    return settings


def encoded(values):
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4")).decode()


@pytest.fixture
def maths(open_page):
    """A function that loads vectors of logits into a page; it returns (number, settings) -> result."""
    page = open_page()

    def start(vectors):
        page.evaluate(LOAD, {"module": MODULE, "vectors": vectors})

        def run(number, settings):
            result = page.evaluate(RUN, [number, settings])
            probs = np.frombuffer(base64.b64decode(result["probs"]))
            return result | {"probs": torch.tensor(probs)}

        return run

    return start


def test_equals_transformers_on_drawn_settings(maths):
    made = list(vectors().items())
    run = maths([{"logits": encoded(logits.sort(descending=True).values)} for _, logits in made])
    count, worst = 0, 0.0
    for number, (name, logits) in enumerate(made):
        # The order in which the widget sends them.
        ascending, order = torch.sort(logits)
        descending, order = ascending.flip(0), order.flip(0)
        for settings in [OFF, *drawn_settings(logits, 25, seed=number)]:
            case = f"{name}, {settings}"
            result = run(number, settings)
            scores = transformers_scores(logits, settings)
            support = scores.isfinite()
            kept = result["kept"]
            assert kept == support.sum(), case
            assert torch.equal(logits[support].sort(descending=True).values, descending[:kept]), case
            splits_a_tie = kept < len(logits) and descending[kept - 1] == descending[kept]
            if not splits_a_tie:  # which of equal tokens top-p keeps is up to torch's sort
                assert set(order[:kept].tolist()) == set(support.nonzero().flatten().tolist()), case
            # In float64: float32's softmax over 49,152 tokens is itself off by up to 7e-6.
            expected = scores.double().softmax(-1).sort(descending=True).values[: len(result["probs"])]
            worst = max(worst, float((result["probs"] - expected).abs().max()))
            assert abs(float(result["probs"].sum()) - 1) < 1e-9, case
            count += 1
    assert count >= 250
    assert worst <= 1e-6


def test_counts_mass_and_entropy_say_what_the_filters_did(maths):
    logits = vectors()["My dog"]
    run = maths([{"logits": encoded(logits.sort(descending=True).values)}])
    settings = {"temperature": 1.5, "top_k": 150, "top_p": 0.8, "min_p": 0.05}
    result = run(0, settings)
    for names, cut in (
        (["top_k"], "top-k"),
        (["top_k", "top_p"], "top-p"),
        (["top_k", "top_p", "min_p"], "min-p"),
    ):
        only = OFF | {"temperature": 1.5} | {name: settings[name] for name in names}
        assert result["cuts"][cut] == transformers_scores(logits, only).isfinite().sum()
    scores = transformers_scores(logits, settings)
    before = (logits / 1.5).softmax(-1)
    assert result["mass"] == pytest.approx(float(before[scores.isfinite()].sum()), abs=1e-6)
    entropy = torch.distributions.Categorical(logits=scores[scores.isfinite()]).entropy() / np.log(2)
    assert result["entropy"] == pytest.approx(float(entropy), abs=1e-5)
    assert not result["approximate"]


def test_saved_logits_are_close_to_all_logits(maths):
    logits = vectors()["My dog"].sort(descending=True).values
    binned = {name: base64.b64encode(data).decode() for name, data in next_token.binned(logits).items()}
    run = maths([{"logits": encoded(logits)}, binned])
    for temperature in (0.1, 0.7, 1.0, 2.0, 3.0):
        for settings in (
            OFF,
            {**OFF, "top_p": 0.9},
            {**OFF, "min_p": 0.01},
            {**OFF, "top_k": 40, "top_p": 0.5},
        ):
            exact, saved = (run(number, settings | {"temperature": temperature}) for number in (0, 1))
            size = min(256, exact["kept"])
            difference = (exact["probs"][:size] - saved["probs"][:size]).abs().max()
            assert difference <= (1e-5 if not saved["approximate"] else 1e-4), settings
            assert saved["mass"] == pytest.approx(exact["mass"], abs=2e-3)
            assert saved["entropy"] == pytest.approx(exact["entropy"], abs=0.02)
            if saved["approximate"]:
                assert saved["kept"] == pytest.approx(exact["kept"], rel=0.03)
            else:
                assert saved["kept"] == exact["kept"]


def test_draws_follow_the_probabilities_and_repeat(maths, open_page):
    page = open_page()
    page.evaluate(LOAD, {"module": MODULE, "vectors": []})
    drawn = page.evaluate(
        """() => {
          const counts = [0, 0, 0], uniform = maths.uniforms(7), again = maths.uniforms(7);
          let same = true;
          for (let i = 0; i < 30000; i++) {
            const u = uniform();
            same &&= u === again() && u >= 0 && u < 1;
            counts[maths.draw([0.5, 0.3, 0.2, 0], u)] += 1;
          }
          const edges = [0, 0.5, 0.9999999999].map((u) => maths.draw([0.5, 0.3, 0.2, 0], u));
          return { counts, same, edges };
        }"""
    )
    assert drawn["same"]
    assert drawn["edges"] == [0, 1, 2]
    for count, prob in zip(drawn["counts"], (0.5, 0.3, 0.2), strict=True):
        deviation = (30000 * prob * (1 - prob)) ** 0.5
        assert abs(count - 30000 * prob) < 4 * deviation
