"""Where a browser draws Arabic and Hebrew in what a saved output shows without scripts, as on GitHub."""

import html
from itertools import pairwise

import pytest
from browser_kit import document

from course_utils import load_tokenizer
from course_utils.widgets import BeamTree, NextToken, PaddingGrid, ScoredText, TokenChips
from tiny import favoured, tiny_gpt2

ARABIC, HEBREW = "السلام عليكم", "שלום"
# Each line of a text as its parts, each with its box: what is isolated, other words from right to left, and
# the text between them.
PARTS = """
() => {
  const split = /\\u2068[^\\u2069]*\\u2069|[\\u0590-\\u07ff]+|[^\\u2068\\u0590-\\u07ff]+/g;
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    for (const line of node.data.matchAll(/[^\\n]+/g)) {
      const parts = [];
      for (const part of line[0].matchAll(split)) {
        const range = document.createRange();
        const words = part[0].trim();
        if (!words) continue;
        const start = line.index + part.index + part[0].indexOf(words);
        range.setStart(node, start);
        range.setEnd(node, start + words.length);
        const { left, right, top } = range.getBoundingClientRect();
        parts.push({ words, left, right, top });
      }
      found.push(parts);
    }
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2")


@pytest.fixture(scope="module")
def model(gpt2):
    return favoured(tiny_gpt2(64), gpt2("ابتعשלום").input_ids)


@pytest.mark.parametrize(
    "make",
    [
        lambda model, gpt2: BeamTree(model, gpt2, HEBREW, eos_token_id=()),
        lambda model, gpt2: NextToken(model, gpt2, ARABIC),
        lambda model, gpt2: ScoredText(model, gpt2, ARABIC),
        lambda model, gpt2: PaddingGrid({"GPT-2": (model, gpt2)}, [HEBREW, "ا ب"]),
        lambda model, gpt2: TokenChips(ARABIC, {"GPT-2": gpt2}),
    ],
    ids=["BeamTree", "NextToken", "ScoredText", "PaddingGrid", "TokenChips"],
)
def test_numbers_are_drawn_after_their_tokens(open_page, model, gpt2, make):
    gpt2.pad_token = gpt2.eos_token
    widget = make(model, gpt2)
    page = open_page(viewport={"width": 4000, "height": 900})
    page.set_content(document("light", f"{widget.still()}<pre>{html.escape(repr(widget))}</pre>"))
    lines = page.evaluate(PARTS)
    pairs = [pair for line in lines for pair in pairwise(line) if abs(pair[0]["top"] - pair[1]["top"]) < 10]
    assert len(pairs) > 6
    for first, second in pairs:
        assert second["left"] >= first["right"] - 1, (first, second)
