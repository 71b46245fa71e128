import math
import re

import pytest
import torch
from transformers import (
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from course_utils import CourseError, load
from course_utils.scores import sequence_scores, token_log_probs
from course_utils.widgets import BeamTree
from tiny import tiny_gpt2

PROMPT = "My dog is"


@pytest.fixture(scope="module")
def model():
    return load("tiny-llama")[0]


@pytest.fixture(scope="module")
def ends(model, gpt2):
    """Tokens that beam search comes across early, so that sequences end early."""
    seen = BeamTree(model, gpt2, PROMPT, num_beams=4)
    return [seen.steps[0][0].tokens[-1], seen.steps[1][1].tokens[-1]]


@pytest.fixture
def tree(model, gpt2, ends):
    return BeamTree(model, gpt2, PROMPT, eos_token_id=ends)


def generated(model, tokenizer, tree, ends, **settings):
    """What generate() itself returns for the tree's settings."""
    inputs = tokenizer(tree.prompt, return_tensors="pt").to(model.device)
    return model.generate(
        **inputs,
        max_new_tokens=tree.max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=50256,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )


def paths(shown):
    """The new tokens' labels of each node: a list of lists of tuples of str."""
    found, before = [], [()]
    for step in shown["steps"]:
        before = [(*(before[node["parent"]] if node["parent"] >= 0 else ()), node["text"]) for node in step]
        found.append(before)
    return found


SETTINGS = [
    {},
    {"length_penalty": 0.0},
    {"length_penalty": 2.0, "num_beams": 4},
    {"early_stopping": True, "num_beams": 2, "max_new_tokens": 7},
    {"early_stopping": "never", "num_beams": 5, "length_penalty": -1.0},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("early", [True, False])
def test_the_tree_is_that_of_generate(model, gpt2, ends, settings, early):
    ends = ends if early else []
    tree = BeamTree(model, gpt2, PROMPT, **settings, eos_token_id=ends)
    output = generated(
        model,
        gpt2,
        tree,
        ends,
        num_beams=tree.num_beams,
        num_return_sequences=tree.num_beams,
        length_penalty=tree.length_penalty,
        early_stopping=tree.early_stopping,
    )
    shown = tree.shown
    assert len(shown["results"]) == tree.num_beams
    lengths = (output.beam_indices >= 0).sum(1).tolist()
    for number, result in enumerate(shown["results"]):
        tokens = output.sequences[number, 3 : 3 + lengths[number]].tolist()
        assert result["ids"] == tokens
        assert result["score"] == pytest.approx(output.sequences_scores[number].item(), abs=1e-4)
        score = result["total"] / len(tokens) ** tree.length_penalty
        assert score == pytest.approx(result["score"], rel=1e-4)
        # The one node that carries this place is the end of this sequence, and its log probabilities add up.
        ((step, index),) = [
            (step, index)
            for step, nodes in enumerate(shown["steps"])
            for index, node in enumerate(nodes)
            if node.get("place") == number + 1
        ]
        assert paths(shown)[step][index] == tuple(result["tokens"])
        node, total = shown["steps"][step][index], 0.0
        assert node["fate"] == "finished"
        assert node["total"] == result["total"]
        for nodes in reversed(shown["steps"][: step + 1]):
            total += nodes[index]["log_prob"]
            index = nodes[index]["parent"]
        assert index == -1
        assert total == pytest.approx(result["total"], abs=1e-3)
    long_ones_win = tree.length_penalty > 1
    assert (min(lengths) < tree.max_new_tokens) == (early and not long_ones_win)


@pytest.mark.parametrize("prompt", [PROMPT, "It will rain in the", "The capital of France is"])
def test_greedys_path_is_that_of_generate(model, gpt2, ends, prompt):
    tree = BeamTree(model, gpt2, prompt, num_beams=2, max_new_tokens=6, length_penalty=0.5, eos_token_id=ends)
    output = generated(model, gpt2, tree, ends, num_beams=1)
    length = len(gpt2(prompt).input_ids)
    greedy = tree.shown["greedy"]
    assert greedy["ids"] == output.sequences[0, length:].tolist()
    assert greedy["score"] == pytest.approx(sequence_scores(output, 0.5, ends).item(), abs=1e-4)
    marked = [
        (step, index)
        for step, nodes in enumerate(tree.shown["steps"])
        for index, node in enumerate(nodes)
        if node.get("greedy")
    ]
    assert [step for step, _ in marked] == list(range(len(marked)))
    for step, index in marked:
        assert paths(tree.shown)[step][index] == tuple(greedy["tokens"][: step + 1])
    step, index = marked[-1]
    left = tree.shown["steps"][step][index]["fate"]
    assert left == "pruned" or (left == "finished" and len(marked) == len(greedy["ids"]))


def test_beam_search_leaves_greedys_path_somewhere(model, gpt2):
    """After some prompts greedy's sequence is a result, after others it is pruned on the way."""
    fates = set()
    for prompt in ("It will rain", "I want to", "A cat", "The sea", "Once upon", "We", "Paris", "He said"):
        tree = BeamTree(model, gpt2, prompt, num_beams=2, max_new_tokens=6)
        last = [node for nodes in tree.shown["steps"] for node in nodes if node.get("greedy")][-1]
        fates.add("result" if "place" in last else last["fate"])
    assert {"result", "pruned"} <= fates


def test_settings_are_assigned_and_asked_for(tree, model, gpt2, ends):
    tree.num_beams = 2
    tree.length_penalty = 2
    tree.early_stopping = "never"
    tree.max_new_tokens = 3
    tree.prompt = "Hello"
    assert len(tree.steps) <= 3
    assert tree.output.sequences_scores.shape == (2,)
    fresh = BeamTree(model, gpt2, "Hello", 2, 3, 2, "never", ends)
    assert fresh.shown == tree.shown
    request = {
        "prompt": PROMPT, "num_beams": 3, "max_new_tokens": 5, "length_penalty": 1, "early_stopping": False
    }  # fmt: skip
    assert tree.answer(request) is None
    assert tree.shown == {**BeamTree(model, gpt2, PROMPT, eos_token_id=ends).shown, "length_penalty": 1}
    assert tree.greedy.sequences[0, 3:].tolist() == tree.shown["greedy"]["ids"]


def test_early_stopping_ends_the_search_with_the_last_beam(model, gpt2):
    first = BeamTree(model, gpt2, PROMPT).steps[0]
    ends = [one.tokens[0] for one in first[:2]]
    settings = {"num_beams": 2, "length_penalty": 2.0, "eos_token_id": ends}
    tree = BeamTree(model, gpt2, PROMPT, early_stopping="never", **settings)
    assert [one.fate for one in tree.steps[0]][:4] == ["finished", "finished", "kept", "kept"]
    assert len(tree.steps) == 5
    tree.early_stopping = True
    assert [one.fate for one in tree.steps[0]][:4] == ["finished", "finished", "open", "open"]
    assert len(tree.steps) == 1


def test_the_models_own_end_is_the_default(model, gpt2):
    assert BeamTree(model, gpt2, PROMPT).shown["ends"] == ["<|endoftext|>"]
    assert BeamTree(model, gpt2, PROMPT, eos_token_id=13).shown["ends"] == ["."]
    assert BeamTree(model, gpt2, PROMPT, eos_token_id=()).shown["ends"] == []


BAD = [
    ("num_beams", 1, "One beam is greedy decoding, which has no tree. Give 2 beams or more."),
    ("num_beams", 9, "num_beams is 9. Give a whole number from 2 to 8."),
    ("num_beams", 2.5, "num_beams is 2.5. Give a whole number from 2 to 8."),
    ("num_beams", None, "num_beams is empty or no number. Give a whole number from 2 to 8."),
    ("max_new_tokens", 0, "max_new_tokens is 0. Give a whole number from 1 to 10."),
    ("max_new_tokens", 11, "max_new_tokens is 11."),
    ("length_penalty", "long", "length_penalty is 'long'. Give a number from -3 to 3."),
    ("length_penalty", math.nan, "length_penalty is nan. Give a number from -3 to 3."),
    ("length_penalty", True, "length_penalty is True."),
    ("length_penalty", 3.5, "length_penalty is 3.5."),
    ("early_stopping", 1, "early_stopping is 1. Give False, True or 'never'."),
    ("early_stopping", "always", "early_stopping is 'always'."),
    ("prompt", "", "The prompt is empty, so there is nothing to continue. Type at least one word."),
    ("prompt", "a\ud83d", "Character 2 of the prompt is U+D83D, half of a surrogate pair"),
    ("prompt", ["a"], "The prompt is of type list, not text. Write it in quotes: 'My dog is'."),
]


@pytest.mark.parametrize(("name", "value", "sentence"), BAD)
def test_bad_settings_are_one_sentence_and_change_nothing(tree, model, gpt2, name, value, sentence):
    before = tree.shown
    with pytest.raises(CourseError, match=re.escape(sentence)):
        setattr(tree, name, value)
    with pytest.raises(CourseError, match=re.escape(sentence)):
        BeamTree(model, gpt2, **{"prompt": PROMPT, name: value})
    settings = ("prompt", "num_beams", "max_new_tokens", "length_penalty", "early_stopping")
    reply = tree.answer({**{one: before[one] for one in settings}, name: value})
    assert reply["about"] == name
    assert reply["error"].startswith(sentence)
    assert tree.shown is before


def test_a_prompt_beyond_the_models_positions(gpt2):
    small = tiny_gpt2(positions=16)
    tree = BeamTree(small, gpt2, "a " * 10, max_new_tokens=6)  # 11 tokens, 5 of the 6 new ones are put in
    assert len(tree.shown["results"][0]["ids"]) == 6
    sentence = "The prompt has 11 tokens; with 7 new ones it takes 17 positions, and the model has 16."
    with pytest.raises(CourseError, match=sentence):
        tree.max_new_tokens = 7
    with pytest.raises(CourseError, match="Shorten it by 1 or more tokens"):
        tree.prompt = "a " * 11


def test_models_that_have_no_tree(gpt2):
    config = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=50257)
    with pytest.raises(CourseError, match="encoder-decoder"):
        BeamTree(T5ForConditionalGeneration(config), gpt2, "Hello")
    broken = tiny_gpt2()
    broken.transformer.ln_f.weight.data[0] = math.nan
    with pytest.raises(CourseError, match="NaN or infinity"):
        BeamTree(broken, gpt2, "Hello")


def test_a_model_without_a_cache_that_could_follow_the_beams_is_searched_without(gpt2):
    torch.manual_seed(0)
    models = [
        RwkvForCausalLM(RwkvConfig(vocab_size=50257, hidden_size=32, num_hidden_layers=2)),
        RecurrentGemmaForCausalLM(
            RecurrentGemmaConfig(
                vocab_size=50257, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, lru_width=32,
                intermediate_size=64, initializer_range=0.3,
            )
        ),
    ]  # fmt: skip
    for model in models:
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(std=0.3)
        tree = BeamTree(model.eval(), gpt2, PROMPT, num_beams=4, max_new_tokens=6, eos_token_id=())
        for ids, score in zip(tree.output.sequences, tree.output.sequences_scores, strict=True):
            log_probs, _ = token_log_probs(model, ids[None])
            assert log_probs[0, -6:].mean() == pytest.approx(float(score), abs=1e-3), type(model)


def test_searching_says_nothing_and_draws_no_random_number(model, gpt2, capfd):
    state = torch.get_rng_state()
    BeamTree(model, gpt2, PROMPT, length_penalty=2.0, early_stopping=True)
    assert torch.equal(torch.get_rng_state(), state)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_summary_and_still_say_the_same(tree):
    text, still = repr(tree), tree.still()
    assert text.startswith(
        "Beam search after 'My dog is': num_beams 3, max_new_tokens 5, length_penalty 1.0,"
    )
    for number, step in enumerate(tree.shown["steps"]):
        for path, node in zip(paths(tree.shown)[number], step, strict=True):
            assert f"{''.join(path)} {node['total']:.2f}" in text
    best = tree.shown["results"][0]
    assert f"1: {''.join(best['tokens'])}, {len(best['ids'])} tokens, sum {best['total']:.2f}" in text
    assert f"score {best['score']:.2f}" in text
    assert text.splitlines()[-1].startswith("greedy: ")
    for shown in (text, still):
        assert not re.search(r"\d\.\d{3}", shown)
    assert still.count("<table>") == 2
    assert still.count("<tr>") == (1 + len(tree.steps)) + (1 + 3 + 1)


def test_text_and_html_are_plain(model, gpt2):
    ends = gpt2("<").input_ids
    tree = BeamTree(model, gpt2, "<img src=x onerror=alert(1)>\u202e", eos_token_id=ends)
    assert "\u202e" not in repr(tree) + tree.still()
    assert "<img" not in tree.still()
    assert "</script" not in tree._esm
    assert "import " not in tree._esm
    assert "export default {render}" in tree._esm


def test_a_saved_page_is_small(tree):
    assert len(tree.page().encode()) < 34_000
    assert tree.page_state()["live"] is False


def test_fewer_continuations_than_beams(gpt2):
    model = tiny_gpt2(vocabulary=4)
    tree = BeamTree(model, gpt2, '"', num_beams=7, max_new_tokens=1, eos_token_id=[1, 2, 3])
    results = tree.shown["results"]
    assert sorted(result["ids"] for result in results) == [[0], [1], [2], [3]]
    assert [result["score"] for result in results] == sorted((r["score"] for r in results), reverse=True)
    assert sum(math.exp(result["total"]) for result in results) == pytest.approx(1, abs=1e-3)
    assert len(tree.output.sequences) == 7 and "-1e" not in repr(tree)


def test_the_models_own_configuration_makes_no_other_tree(gpt2):
    model = tiny_gpt2(positions=64)
    expected = BeamTree(model, gpt2, PROMPT, eos_token_id=()).shown
    for name, value in (
        ("stop_strings", ["a", "e", " "]),
        ("num_beam_groups", 3),
        ("exponential_decay_length_penalty", (1, 1.5)),
        ("penalty_alpha", 0.6),
    ):
        setattr(model.generation_config, name, value)
        assert BeamTree(model, gpt2, PROMPT, eos_token_id=()).shown == expected, name
        setattr(model.generation_config, name, None)
