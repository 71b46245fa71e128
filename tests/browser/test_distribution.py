"""The page's arithmetic against transformers' logits processors."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from course_utils import load
from course_utils.widgets import NextToken, next_token

MODULE = Path(next_token.__file__).with_name("distribution.js").read_text(encoding="utf-8")
# In the order in which generate() applies them.
PROCESSORS = {
    "repetition_penalty": (1.0, RepetitionPenaltyLogitsProcessor),
    "temperature": (1.0, TemperatureLogitsWarper),
    "top_k": (0, TopKLogitsWarper),
    "top_p": (1.0, TopPLogitsWarper),
    "min_p": (0.0, MinPLogitsWarper),
    "typical_p": (1.0, TypicalLogitsWarper),
}
OFF = {name: off for name, (off, _) in PROCESSORS.items()}
FILTERS = {"top_k": "top-k", "top_p": "top-p", "min_p": "min-p", "typical_p": "typical"}

LOAD = """async ({ module, vectors }) => {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  window.maths = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
  window.vectors = vectors.map(({ seen, ...columns }) => {
    const read = ([name, text]) => [name, new Float32Array(bytes(text))];
    const one = Object.fromEntries(Object.entries(columns).map(read));
    one.seen = new Uint32Array(bytes(seen));
    return one.means ? maths.unfold(one, one).sorted : one;
  });
  window.rooms = window.vectors.map(({ logits }) => maths.roomFor(logits.length));
}"""
RUN = """([vector, settings]) => {
  const encode = (values) => {
    const bytes = new Uint8Array(values.buffer);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
  };
  const { probs, places, unsure, ...rest } = maths.distribution(vectors[vector], settings, rooms[vector]);
  const { from, to } = rest.steps.typical;
  const kept = Uint32Array.from({ length: to - from }, (_, i) => (places ? places[from + i] : from + i));
  const outside = probs.reduce((total, prob, rank) => total + (rank < from || rank >= to ? prob : 0), 0);
  const open = Array.from(probs.subarray(0, 200), (_, rank) => unsure(rank));
  const head = [...probs.subarray(0, 200)];
  return { ...rest, outside, open, head, probs: encode(probs.slice(from, to)), kept: encode(kept) };
}"""


def processors(settings):
    """The logits processors that generate() makes of `settings`, each by its name."""
    return {
        name: processor(settings[name])
        for name, (off, processor) in PROCESSORS.items()
        if settings[name] != off
    }


def transformers_scores(logits, seen, settings):
    """What generate() would draw from after the ids `seen`: scores, float32 [vocab], -inf where removed."""
    return LogitsProcessorList(processors(settings).values())(seen[None], logits[None].clone())[0]


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


def seen_of(logits, seed):
    """Ids that the text may hold: a few likely tokens and a few others, one of them twice. LongTensor."""
    draw = torch.Generator().manual_seed(seed)
    likely = logits.topk(min(20, len(logits))).indices
    others = torch.randint(len(logits), (5,), generator=draw)
    chosen = likely[torch.randint(len(likely), (4,), generator=draw)]
    return torch.cat([chosen, others, others[:1]])


def on_an_edge(logits, seen, settings):
    """True if float32's rounding decides: a cut of top-p, min-p or typical is within its error of a token."""

    def before(*names):
        return transformers_scores(logits, seen, settings | {name: OFF[name] for name in names}).double()

    if settings["top_p"] < 1:
        probs = before("top_p", "min_p", "typical_p").softmax(-1)
        limit = 1 - settings["top_p"]
        below = probs.sort().values.cumsum(0)[:-1]  # the last token is kept in any case
        if (below - limit).abs().lt(1e-6 * max(limit, 1e-2)).any():
            return True
    if settings["min_p"]:
        probs = before("min_p", "typical_p").softmax(-1)
        ratios = probs[probs < probs.max()] / probs.max()
        if (ratios / settings["min_p"] - 1).abs().lt(1e-6).any():
            return True
    if settings["typical_p"] < 1:
        logs = before("typical_p").log_softmax(-1)
        logs = logs[logs.isfinite()]
        entropy = -(logs * logs.exp()).sum()
        shifts, order = (-logs - entropy).abs().sort()
        held = logs[order].exp().cumsum(0)
        last = min(int((held < settings["typical_p"]).sum()), len(held) - 1)
        error = 5e-7 * max(1.0, float(logs[order[: last + 2]].abs().max()))
        near = (shifts - shifts[last]).abs().lt(error) & (logs[order] != logs[order[last]])
        return bool(near.any() or (held[:-1] - settings["typical_p"]).abs().lt(2e-6).any())
    return False


def drawn_settings(logits, seen, count, seed):
    """Settings as the sliders give them, each filter off half the time, but for those on an edge."""
    draw = np.random.default_rng(seed)

    def some(name, low, high, step):
        return round(float(draw.integers(low, high)) * step, 2) if draw.random() < 0.5 else OFF[name]

    settings, edges = [], 0
    while len(settings) < count:
        one = {
            "repetition_penalty": some("repetition_penalty", 10, 41, 0.05),
            "temperature": round(float(draw.integers(1, 61)) * 0.05, 2),
            "top_k": int(some("top_k", 1, 201, 1)),
            "top_p": some("top_p", 0, 100, 0.01),
            "min_p": some("min_p", 1, 101, 0.01),
            "typical_p": some("typical_p", 1, 100, 0.01),
        }
        if on_an_edge(logits, seen, one):
            edges += 1
        else:
            settings.append(one)
    assert edges <= count / 4
    return settings


def encoded(values, dtype="<f4"):
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype)).decode()


def columns(logits, seen):
    """What the widget sends of `logits` after the ids `seen`, for LOAD; and the ids in its order."""
    ascending, order = torch.sort(logits)
    order = order.flip(0)
    places = torch.isin(order, seen).nonzero().flatten()
    return {"logits": encoded(ascending.flip(0)), "seen": encoded(places, "<u4")}, order


@pytest.fixture
def maths(open_page):
    """A function that loads vectors of logits into a page; it returns (number, settings) -> result."""
    page = open_page()

    def start(vectors):
        page.evaluate(LOAD, {"module": MODULE, "vectors": vectors})

        def run(number, settings):
            result = page.evaluate(RUN, [number, settings])
            kept = np.frombuffer(base64.b64decode(result["kept"]), dtype="<u4").astype(np.int64)
            probs = np.frombuffer(base64.b64decode(result["probs"]))
            return result | {"kept": torch.tensor(kept), "probs": torch.tensor(probs)}

        return run

    return start


def test_equals_transformers_on_drawn_settings(maths):
    made = [(name, logits, seen_of(logits, seed)) for seed, (name, logits) in enumerate(vectors().items())]
    sent = [columns(logits, seen) for _, logits, seen in made]
    run = maths([one for one, _ in sent])
    count, worst = 0, 0.0
    for number, (name, logits, seen) in enumerate(made):
        order = sent[number][1]
        for settings in [OFF, *drawn_settings(logits, seen, 55, seed=number)]:
            case = f"{name}, {settings}"
            result = run(number, settings)
            scores = transformers_scores(logits, seen, settings)
            support = scores.isfinite()
            kept = torch.zeros(len(logits), dtype=torch.bool)
            kept[order[result["kept"]]] = True
            assert result["steps"]["typical"]["tokens"] == kept.sum() == support.sum(), case
            if not torch.equal(kept, support):  # which of equal tokens top-p keeps is up to torch's sort
                all_scores = transformers_scores(
                    logits, seen, settings | {name: OFF[name] for name in FILTERS}
                )
                assert torch.equal(all_scores[kept].sort().values, all_scores[support].sort().values), case
                assert settings["top_p"] < 1, case
            # In float64: float32's softmax over 49,152 tokens is itself off by up to 7e-6.
            expected = scores.double().softmax(-1).sort(descending=True).values[: len(result["probs"])]
            worst = max(worst, float((result["probs"] - expected).abs().max()))
            assert result["probs"].diff().le(0).all(), case
            assert abs(float(result["probs"].sum()) - 1) < 1e-9, case
            assert result["outside"] == 0, case
            assert result["entropy"] >= 0, case
            count += 1
    assert count >= 500
    assert worst <= 1e-6


def sent_by(shown):
    """What a widget's trait `shown` holds, for LOAD."""
    names = ("logits", "seen", "means", "counts", "deviations")
    return {name: base64.b64encode(shown[name]).decode() for name in names if name in shown}


def test_equals_what_generate_draws_from(maths):
    # The order of the settings, and the tokens that the penalty changes, are those of generate() itself.
    model, tokenizer = load(device="cpu")
    inputs = tokenizer("Row, row, row your boat, row your", return_tensors="pt")
    widget = NextToken(model, tokenizer, "Row, row, row your boat, row your", controls="all")
    order = torch.frombuffer(bytearray(widget.shown["ids"]), dtype=torch.int32).long()
    run = maths([sent_by(widget.shown)])
    for settings in (
        {
            "repetition_penalty": 1.3,
            "temperature": 0.7,
            "top_k": 30,
            "top_p": 0.9,
            "min_p": 0.02,
            "typical_p": 0.8,
        },
        {
            "repetition_penalty": 0.7,
            "temperature": 2.0,
            "top_k": 0,
            "top_p": 0.5,
            "min_p": 0.0,
            "typical_p": 0.3,
        },
        {
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "min_p": 0.3,
            "typical_p": 1.0,
        },
    ):
        for name, value in settings.items():
            setattr(widget, name, value)
        output = model.generate(
            **inputs, **widget.settings, max_new_tokens=1, output_scores=True, return_dict_in_generate=True
        )
        expected = output.scores[0][0].double().softmax(-1)
        result = run(0, settings)
        found = torch.zeros_like(expected)
        found[order[result["kept"]]] = result["probs"]
        assert torch.equal(found > 0, expected > 0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_steps_mass_and_entropy_say_what_the_filters_did(maths):
    logits = vectors()["My dog"]
    seen = seen_of(logits, seed=0)
    run = maths([columns(logits, seen)[0]])
    settings = {
        "repetition_penalty": 1.2,
        "temperature": 1.5,
        "top_k": 150,
        "top_p": 0.8,
        "min_p": 0.05,
        "typical_p": 0.5,
    }
    result = run(0, settings)
    before = (
        transformers_scores(logits, seen, settings | {name: OFF[name] for name in FILTERS})
        .double()
        .softmax(-1)
    )
    off = list(FILTERS)
    while off:
        filtered = off.pop(0)
        scores = transformers_scores(logits, seen, settings | {name: OFF[name] for name in off})
        step = result["steps"][FILTERS[filtered]]
        assert step["tokens"] == scores.isfinite().sum()
        assert step["mass"] == pytest.approx(float(before[scores.isfinite()].sum()), abs=1e-6)
        assert not step["approximate"]
    entropy = torch.distributions.Categorical(logits=scores[scores.isfinite()]).entropy() / np.log(2)
    assert result["entropy"] == pytest.approx(float(entropy), abs=1e-5)
    candidates = transformers_scores(logits, seen, settings | {"typical_p": 1.0}).double().softmax(-1)
    assert result["surprise"]["first"] == pytest.approx(-float(candidates.max().log2()), abs=1e-5)
    mean = torch.distributions.Categorical(probs=candidates).entropy() / np.log(2)
    assert result["surprise"]["mean"] == pytest.approx(float(mean), abs=1e-5)


def test_saved_logits_are_close_to_all_logits(maths):
    model, tokenizer = load(device="cpu")
    widget = NextToken(model, tokenizer, "My dog is a good dog. My", controls="all")
    run = maths([sent_by(widget.shown), sent_by(widget.page_state()["shown"])])
    draw = np.random.default_rng(0)
    rows = unsure = 0
    for temperature in (0.1, 0.7, 1.0, 1.5, 2.0, 3.0):
        for settings in (
            OFF,
            {**OFF, "repetition_penalty": 0.5},
            {**OFF, "top_p": 0.9},
            {**OFF, "min_p": 0.01},
            {**OFF, "top_k": 40, "top_p": 0.5},
            *(
                {**OFF, "repetition_penalty": 1.3, "typical_p": draw.integers(1, 100) / 100}
                for _ in range(12)
            ),
            *({**OFF, "top_p": 0.9, "typical_p": draw.integers(1, 100) / 100} for _ in range(12)),
        ):
            exact, saved = (run(number, settings | {"temperature": temperature}) for number in (0, 1))
            one, other = exact["steps"]["typical"], saved["steps"]["typical"]
            case = f"{temperature} {settings} {one} {other}"
            sure = ~torch.tensor(saved["open"])
            heads = [torch.tensor(result["head"])[sure] for result in (exact, saved)]
            rough = 0.02 if other["approximate"] else 0
            torch.testing.assert_close(*heads, rtol=rough, atol=1e-5, msg=case)
            removed = [torch.tensor(result["head"]) == 0 for result in (exact, saved)]
            assert torch.equal(removed[0][sure], removed[1][sure]), case
            rows, unsure = rows + 200, unsure + 200 - int(sure.sum())
            assert other["mass"] == pytest.approx(one["mass"], abs=0.01 if other["approximate"] else 1e-5), (
                case
            )
            assert saved["entropy"] == pytest.approx(exact["entropy"], abs=0.05), case
            if other["approximate"]:
                assert other["tokens"] == pytest.approx(one["tokens"], rel=0.03, abs=3), case
            else:
                assert other["tokens"] == one["tokens"], case
    assert unsure < rows / 50


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
          const numbers = Array.from({ length: 30000 }, maths.uniforms(7));
          const tallied = maths.tally([0.5, 0.3, 0.2, 0], numbers);
          const edges = [0, 0.5, 0.9999999999].map((u) => maths.draw([0.5, 0.3, 0.2, 0], u));
          return { counts, same, edges, tallied };
        }"""
    )
    assert drawn["same"]
    assert drawn["edges"] == [0, 1, 2]
    assert drawn["tallied"] == [*drawn["counts"], 0]
    for count, prob in zip(drawn["counts"], (0.5, 0.3, 0.2), strict=True):
        deviation = (30000 * prob * (1 - prob)) ** 0.5
        assert abs(count - 30000 * prob) < 4 * deviation
