import os
import re
import subprocess
import sys

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CamembertConfig,
    CamembertForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from course_utils import CourseError, load, load_tokenizer
from course_utils.widgets import PaddingGrid
from course_utils.widgets.padding_grid import _CASES, _Batch
from tiny import tiny_gpt2

SENTENCES = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def models(gpt2):
    return {"GPT-2": (load("tiny-gpt2", "cpu")[0], gpt2), "Llama": (load("tiny-llama", "cpu")[0], gpt2)}


@pytest.fixture
def grid(models):
    return PaddingGrid(models, SENTENCES)


def distances(model, tokenizer, side, give_mask, give_positions):
    """The same as the widget's, by the tokenizer's own padding: list of float."""
    found = []
    batch = tokenizer(SENTENCES, padding=True, padding_side=side, return_tensors="pt")
    mask = batch.attention_mask
    given = {"attention_mask": mask} if give_mask else {}
    if give_positions:
        given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0) * mask
    with torch.no_grad():
        together = model(batch.input_ids, **given).logits.softmax(-1)
        for number, sentence in enumerate(SENTENCES):
            row = tokenizer(sentence, return_tensors="pt").input_ids
            alone = model(row).logits[0, -1].softmax(-1)
            last = -1 if side == "left" else row.shape[1] - 1
            found.append(float((together[number, last] - alone).abs().sum() / 2))
    return found


def test_distances_are_those_of_every_switch(grid, models):
    for name in models:
        grid.model_name = name
        for case in _CASES:
            grid.side, grid.give_mask, grid.give_positions = case
            assert grid.distances == pytest.approx(distances(*models[name], *case), abs=1e-4), (name, case)


def test_the_lessons_table(grid, models):
    for name in models:
        grid.model_name = name
        for side, mask, positions in _CASES:
            grid.side, grid.give_mask, grid.give_positions = side, mask, positions
            right = side == "right" or (mask and (positions or name == "Llama"))
            worst = max(grid.distances)
            assert worst < 1e-4 if right else worst > 0.05, (name, side, mask, positions)
            assert grid.distances[1] < 1e-4  # the longest row has no padding


def test_top_tokens_are_the_models(grid, models, gpt2):
    model, _ = models["GPT-2"]
    with torch.no_grad():
        probs = model(torch.tensor([gpt2("My dog is").input_ids])).logits[0, -1].double().softmax(-1)
    values, ids = probs.topk(5)
    (shown,) = (one for one in grid.shown["models"] if one["name"] == "GPT-2")
    texts, shares = zip(*shown["alone"][2], strict=True)
    assert [text.replace("·", " ") for text in texts] == [gpt2.decode(i) for i in ids.tolist()]
    assert shares == pytest.approx(values.tolist(), abs=1e-6)
    assert shown["answers"]["left 11"][2]["top"] == shown["alone"][2]


def test_each_question_is_put_to_the_model_once(models):
    model, _ = models["GPT-2"]
    asked = []
    hook = model.register_forward_pre_hook(lambda module, args: asked.append(args[0].shape))
    grid = PaddingGrid({"GPT-2": models["GPT-2"]}, SENTENCES)
    assert sorted(asked[-4:]) == [(1, 3), (1, 5), (1, 8), (3, 8)]  # three alone, one batch
    asked.clear()
    grid.page()
    grid.page()
    assert len(asked) == 7
    request = {"sentences": SENTENCES, "model_name": "GPT-2", "case": ["right", False, False]}
    assert grid.answer(request) is None
    assert len(asked) == 7
    hook.remove()


def test_the_page_gets_the_sentences_that_were_asked_for(grid):
    before = grid.shown
    grid.answer({"sentences": ["My dog"], "model_name": "Llama", "case": ["right", False, True]})
    assert grid.sentences == ["My dog"]
    first, second = grid.shown["models"]
    assert first["answers"] == {}
    assert first["alone"] == []
    assert second["tokens"] == [[(3666, "My"), (3290, "·dog")]]
    (answer,) = second["answers"]["right 01"]
    assert answer["distance"] == 0
    assert grid.shown != before


def test_a_saved_page_has_every_switch_in_little_space(models):
    three = models | {"again": models["GPT-2"]}
    grid = PaddingGrid(three, SENTENCES)
    saved = grid.page_state()["shown"]["models"]
    assert [len(one["answers"]) for one in saved] == [8, 8, 8]
    assert len(grid.page().encode()) < 50_000


def test_a_saved_page_of_many_sentences_keeps_what_is_on_view(models):
    grid = PaddingGrid(models, ["word " * 23] * 6, side="right")
    grid.model_name = "Llama"
    saved = grid.page_state()["shown"]["models"]
    assert sum(len(one["answers"]) for one in saved) < 16
    assert "right 11" in saved[1]["answers"]


BAD = [
    ([], "The batch is empty"),
    ("My dog is", "A batch is a list of sentences, and this is one text"),
    (None, "A batch is a list of sentences"),
    (["My dog", ""], "Sentence 2 is empty"),
    ([3], "Sentence 1 is of type int"),
    (["a\ud83d"], "Character 2 of sentence 1 is U.D83D, half of a surrogate pair"),
    (["one", "two\nthree"], "Sentence 2 holds a line break"),
    (["word"] * 7, "These are 7 sentences, and this view shows at most 6"),
    (["word " * 24], "Sentence 1 has 25 tokens, and this view shows at most 24. Shorten it by 1"),
]


@pytest.mark.parametrize(("sentences", "message"), BAD)
def test_bad_sentences_are_refused_and_nothing_is_lost(grid, models, sentences, message):
    shown = grid.shown
    with pytest.raises(CourseError, match=message):
        grid.sentences = sentences
    with pytest.raises(CourseError, match=message):
        PaddingGrid(models, sentences)
    assert grid.shown is shown
    assert grid.sentences == SENTENCES
    assert "0.00" in repr(grid)


def test_a_sentence_beyond_the_models_positions(gpt2):
    grid = PaddingGrid({"tiny": (tiny_gpt2(positions=8), gpt2)}, SENTENCES)
    with pytest.raises(CourseError, match="Sentence 2 has 9 tokens, and the model has 8 positions"):
        grid.sentences = ["one", "a b c d e f g h i"]


def test_one_sentence_needs_no_padding(models):
    grid = PaddingGrid(models, ["My dog is"])
    assert grid.distances == [0.0]
    assert "pad" not in grid.summary().replace("padding", "")


def test_models_that_do_not_fit(models, gpt2):
    model, _ = models["GPT-2"]
    with pytest.raises(CourseError, match="no pad token"):
        PaddingGrid({"GPT-2": (model, load_tokenizer("gpt2"))}, SENTENCES)
    for wrong in ({}, None, model, {"GPT-2": model}):
        with pytest.raises(CourseError, match="pairs of model and tokenizer, by name"):
            PaddingGrid(wrong, SENTENCES)
    bloom = BloomForCausalLM(BloomConfig(vocab_size=50257, hidden_size=8, n_layer=1, n_head=1))
    with pytest.raises(CourseError, match="BloomForCausalLM takes no position ids"):
        PaddingGrid({"bloom": (bloom, gpt2)}, SENTENCES)
    config = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=50257)
    with pytest.raises(CourseError, match="encoder-decoder"):
        PaddingGrid({"t5": (T5ForConditionalGeneration(config), gpt2)}, SENTENCES)
    broken = tiny_gpt2()
    broken.transformer.ln_f.weight.data[0] = float("nan")
    with pytest.raises(CourseError, match="NaN or infinity"):
        PaddingGrid({"broken": (broken, gpt2)}, SENTENCES)


def test_a_model_that_begins_its_positions_elsewhere_is_refused(gpt2):
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {"vocab_size": 50257, "is_decoder": True, "initializer_range": 0.3, **size}
    for kind, made in ((RobertaForCausalLM, RobertaConfig), (CamembertForCausalLM, CamembertConfig)):
        with pytest.raises(CourseError, match=f"{kind.__name__} counts its positions in a way of its own"):
            PaddingGrid({"it": (kind(made(**config)).eval(), gpt2)}, SENTENCES)


def test_positions_that_are_not_given_are_shown_as_the_model_counts_them(models, gpt2):
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=50257, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2,
        word_embed_proj_dim=16, max_position_embeddings=32, init_std=0.3,
    )  # fmt: skip
    opt = OPTForCausalLM(config).eval()  # counts the tokens, by the mask
    grid = PaddingGrid({"OPT": (opt, gpt2), "GPT-2": models["GPT-2"]}, SENTENCES, give_positions=False)
    tokens, places = (
        "0     0     0     0     1     2     3     4",
        "0     1     2     3     4     5     6     7",
    )
    for name, with_mask, without in (("OPT", tokens, places), ("GPT-2", places, places)):
        grid.model_name = name
        for grid.give_mask, counted in ((True, with_mask), (False, without)):
            assert re.search(f"^counted +{counted}$", grid.summary(), re.MULTILINE), (name, counted)
        grid.give_mask = True
        assert (max(grid.distances) < 1e-4) == (name == "OPT")


def test_switches_refuse_what_they_do_not_know(grid):
    with pytest.raises(CourseError, match=r"side is 'top'\. Give 'left' or 'right'"):
        grid.side = "top"
    with pytest.raises(CourseError, match=r"There is no model 'BERT'\. Give 'GPT-2' or 'Llama'"):
        grid.model_name = "BERT"
    assert (grid.side, grid.model_name) == ("left", "GPT-2")


def test_summary_and_still_say_the_same(grid):
    grid.side, grid.give_positions = "left", False
    text, still = repr(grid), grid.still()
    assert text.splitlines()[0] == (
        "GPT-2, padding on the left, attention mask given, position ids not given"
    )
    assert re.search(r"^ids +50256 50256 50256  1026   481  6290   287   262$", text, re.MULTILINE)
    assert re.search(r"^mask +0     0     0     1     1     1     1     1$", text, re.MULTILINE)
    assert re.search(r"^counted +0     1     2     3     4     5     6     7$", text, re.MULTILINE)
    for distance in grid.distances:
        assert f"{distance:.2f}" in text
        assert f">{distance:.2f}<" in still
    for shown in (text, still):
        assert not re.search(r"\d\.\d{3}", shown)
    assert still.count("<table>") == 2


def test_text_and_html_are_plain(models, gpt2):
    grid = PaddingGrid({"<i>": models["GPT-2"]}, ["<img src=x onerror=alert(1)>", "\u202eשלום"])
    assert "\u202e" not in repr(grid) + grid.still()
    assert "<img" not in grid.still()
    assert "<i>" not in grid.still()
    assert "</script" not in grid._esm
    assert "import " not in grid._esm
    assert "@import" not in grid._css


def test_a_batch_pads_for_each_tokenizer(models):
    batch = _Batch(models, SENTENCES, dict.fromkeys(models, "places"))
    padded = batch.padded("GPT-2", "right")
    assert padded["attention_mask"].sum(1).tolist() == [5, 8, 3]
    assert padded["input_ids"][0, :2].tolist() == [1026, 481]


PRINT = """
from course_utils import load, load_tokenizer
from course_utils.widgets import MaskView, PaddingGrid
gpt2 = load_tokenizer("gpt2", pad_token="<|endoftext|>")
sentences = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]
model, _ = load("tiny-gpt2", "cpu")
for widget in (PaddingGrid({"GPT-2": (model, gpt2)}, sentences), MaskView(model, gpt2, sentences)):
    print(repr(widget), widget._repr_mimebundle_()[0]["text/html"])
"""


def test_two_processes_print_the_same():
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    first, second = (run.communicate()[0].decode() for run in runs)
    assert first == second
    assert "total variation from the sentence alone: 0.00" in first
    assert "Masked everywhere: 0 (uniform), 1 (uniform), 2 (uniform)." in first
    assert " 0x" not in first.split("<script")[0]
