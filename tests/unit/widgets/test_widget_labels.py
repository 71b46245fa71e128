"""widgets.core.labels: characters without a shape, and text from right to left, in every widget."""

import html
import re
import unicodedata

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from course_utils import load_tokenizer
from course_utils.widgets import BeamTree, MaskView, NextToken, PaddingGrid, ScoredText, Stepper, TokenChips
from course_utils.widgets.core.labels import columns, isolated, ljust, quoted, rjust, token_label, visible
from tiny import favoured, tiny_gpt2

# Default_Ignorable_Code_Point in DerivedCoreProperties.txt of Unicode 16.0, and signs that are blank.
IGNORABLE = (
    "00AD 034F 061C 115F-1160 17B4-17B5 180B-180F 200B-200F 202A-202E 2060-206F 3164 FE00-FE0F FEFF FFA0 "
    "FFF0-FFF8 1BCA0-1BCA3 1D173-1D17A E0000-E0FFF"
)
BLANK = "0000-001F 007F-00A0 1680 2000-200A 2028-2029 202F 205F 2800 3000 16FE4 1D159"
ARABIC, HEBREW = "السلام عليكم", "שלום"
ISOLATED = re.compile("\u2068[^\u2068\u2069]*\u2069")


@pytest.fixture(scope="module")
def rightward(gpt2):
    """A model that finds letters of Arabic and Hebrew likeliest."""
    tokens = set(gpt2(ARABIC + HEBREW).input_ids)
    return favoured(tiny_gpt2(64), [token for token in tokens if is_rightward(token_label(gpt2, token))])


def is_rightward(text):
    return any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text)


def code_points(text):
    for part in text.split():
        first, _, last = part.partition("-")
        yield from range(int(first, 16), int(last or first, 16) + 1)


def test_what_has_no_shape_is_a_number():
    signs = {" ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥"}
    for code in (*code_points(IGNORABLE), *code_points(BLANK)):
        character = chr(code)
        assert visible(character) == signs.get(character, f"U+{code:04X}"), hex(code)


def test_what_has_a_shape_stays():
    for text in (
        "☀",
        "❤",
        "é",
        "e\u0301",
        "\u20e3",
        "한",
        "ㄱ",
        "ក",
        "ᠠ",
        "⠁",
        "\ufffd",
        "█",
        "👍🏽",
        "𝅘𝅥",
        "ا",
        "١",
    ):
        assert visible(text) == text


@pytest.mark.parametrize("name", ["gpt2", "smollm2-135m"])
def test_a_token_that_is_only_a_variation_selector_has_a_label(name):
    tokenizer = load_tokenizer(name)
    for emoji in ("☀️", "❤️", "⚠️", "✔️", "1️⃣"):
        labels = [token_label(tokenizer, token) for token in tokenizer(emoji).input_ids]
        assert "\ufe0f" not in "".join(labels)
        assert "U+FE0F" in labels or labels[-1] == emoji.replace("\ufe0f", "U+FE0F")
        (column,) = TokenChips(emoji, {name: tokenizer}).shown["tokenizers"]
        assert [token["text"] for token in column["tokens"]] == labels
    assert token_label(tokenizer, tokenizer("☀️").input_ids[-1]) == "U+FE0F"


def test_every_widget_shows_a_variation_selector_as_its_number(gpt2):
    model = favoured(tiny_gpt2(64), gpt2("☀️").input_ids[-1:])
    for widget in (
        NextToken(model, gpt2, "☀"),
        ScoredText(model, gpt2, "☀️"),
        BeamTree(model, gpt2, "☀", eos_token_id=()),
        Stepper(model, gpt2, "☀", max_new_tokens=2, pad_token_id=50256),
        PaddingGrid({"GPT-2": (model, padding(gpt2))}, ["☀️"]),
        MaskView(model, padding(gpt2), ["☀️"]),
        TokenChips("☀️", {"GPT-2": gpt2}),
    ):
        assert "U+FE0F" in repr(widget), type(widget)
        assert "U+FE0F" in widget.still(), type(widget)


def padding(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def test_an_entry_that_is_no_spelling_of_bytes_stands_for_itself():
    backend = Tokenizer(models.WordLevel({"Ġa": 0, "№€": 1}, "Ġa"))
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert [token_label(tokenizer, token) for token in (0, 1)] == ["·a", "№€"]
    assert tokenizer.decode([1]) == "№€"


def test_only_text_from_right_to_left_is_isolated():
    for text in (ARABIC, HEBREW, "a" + HEBREW, "·" + ARABIC, "\u0663", "\u07c0"):
        assert isolated(text) == f"\u2068{text}\u2069"
        assert columns(isolated(text)) == len(text)
    for text in ("", "Hello", "-9.94", "人人", "é", "🙂", "U+200F"):
        assert isolated(text) == text
    assert quoted(HEBREW) == f"\u2068'{HEBREW}'\u2069"
    assert quoted("it's") == '"it\'s"'
    assert (ljust(isolated(HEBREW), 6), rjust(isolated(HEBREW), 6)) == (
        f"\u2068{HEBREW}\u2069  ",
        f"  \u2068{HEBREW}\u2069",
    )
    assert (ljust("ab", 4), rjust("ab", 4), rjust("abcde", 4)) == ("ab  ", "  ab", "abcde")


def stepper(model, tokenizer):
    widget = Stepper(model, tokenizer, [ARABIC, HEBREW], max_new_tokens=3, pad_token_id=50256)
    widget.step()
    top = widget.shown["steps"][1]["rows"][0]["top"]
    widget.choose(next(token for token in top[1:] if is_rightward(token_label(tokenizer, token))), row=0)
    return widget


WIDGETS = {
    "NextToken": lambda model, gpt2: NextToken(model, gpt2, ARABIC),
    "ScoredText": lambda model, gpt2: ScoredText(model, gpt2, ARABIC),
    "BeamTree": lambda model, gpt2: BeamTree(model, gpt2, HEBREW, eos_token_id=()),
    "Stepper": stepper,
    "PaddingGrid": lambda model, gpt2: PaddingGrid({"GPT-2": (model, padding(gpt2))}, [HEBREW, "ال ال"]),
    "MaskView": lambda model, gpt2: MaskView(model, padding(gpt2), [HEBREW, "ال"]),
    "TokenChips": lambda model, gpt2: TokenChips(ARABIC, {"GPT-2": gpt2}),
}


@pytest.mark.parametrize("name", WIDGETS)
def test_text_from_right_to_left_stands_by_itself(rightward, gpt2, name):
    widget = WIDGETS[name](rightward, gpt2)
    cells = [html.unescape(cell) for cell in re.findall(r">([^<]+)<", widget.still())]
    for line in (*repr(widget).splitlines(), *cells):
        assert not is_rightward(ISOLATED.sub("", line)), line
        assert "\u2068" not in ISOLATED.sub("", line)
    assert sum(map(is_rightward, cells)) > 2
    assert sum(map(is_rightward, repr(widget).splitlines())) > 1


def test_a_beam_is_isolated_apart_from_its_sum_and_its_length(rightward, gpt2):
    tree = WIDGETS["BeamTree"](rightward, gpt2)
    best = tree.shown["results"][0]
    text = "".join(best["tokens"])
    assert f"1: \u2068{text}\u2069, {len(best['tokens'])} tokens, sum {best['total']:.2f}" in repr(tree)
    first = [node for node in tree.shown["steps"][0] if is_rightward(node["text"])]
    assert len(first) > 1
    for node in first:
        assert f"\u2068{node['text']}\u2069 {node['total']:.2f}" in repr(tree)
        assert f"\u2068{node['text']}\u2069 {node['total']:.2f}" in tree.still()


def test_columns_stand_below_each_other_where_texts_are_isolated(rightward, gpt2):
    rows = repr(WIDGETS["NextToken"](rightward, gpt2)).splitlines()[1:]
    assert {columns(row) for row in rows} == {22}
    _, _, _, *rows = repr(WIDGETS["ScoredText"](rightward, gpt2)).splitlines()
    assert {columns(row.rsplit(maxsplit=1)[0]) for row in rows} == {22}
    _, *table, _ = repr(WIDGETS["MaskView"](rightward, gpt2)).splitlines()
    assert len(set(map(columns, table))) == 1
    lines = repr(WIDGETS["Stepper"](rightward, gpt2)).splitlines()
    header = next(line for line in lines if line.startswith("Step"))
    for line in lines[lines.index(header) + 1 :][:2]:
        shown = line.replace("\u2068", "").replace("\u2069", "")
        assert shown[header.index("Chosen") - 1] == " "
        assert re.fullmatch(r"\d\.\d\d", shown[header.index("After") :].strip())
