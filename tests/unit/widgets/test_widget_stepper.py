import json
import math

import numpy
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
)

from course_utils import CourseError, decode_steps, load, load_tokenizer
from course_utils.widgets import Stepper
from course_utils.widgets.stepper.argument_text import described, parsed
from tiny import tiny_gpt2

PROMPTS = ["It will rain in the", "I want to eat a big bowl of", "My dog is"]
GREEDY = {"max_new_tokens": 6, "do_sample": False}
SAMPLED = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.3, "top_k": 30, "top_p": 0.95}


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def model():
    model = load("tiny-gpt2")[0]
    model.generation_config.pad_token_id = 50256
    return model


def batch(model, tokenizer, prompts):
    return tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt").to(model.device)


def generated(model, tokenizer, prompts, seed=0, **arguments):
    """What model.generate gives: LongTensor [batch, length] on the CPU."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    sequences = model.generate(**batch(model, tokenizer, prompts), **arguments).cpu()
    torch.set_rng_state(state)
    return sequences


def continued(model, sequences, length, mask, draws, seed=0, **arguments):
    """generate() from the first `length` ids of `sequences`, after `draws` steps' draws of the seed."""
    prefix = sequences[:, :length].to(model.device)
    mask = torch.cat([mask, mask.new_ones(len(mask), length - mask.shape[1])], dim=1)
    torch.manual_seed(seed)
    for _ in range(draws):
        torch.multinomial(torch.ones(len(prefix), model.config.vocab_size, device=model.device), 1)
    return model.generate(prefix, attention_mask=mask, **arguments).cpu()


# ---- the same as generate()


class Ban(LogitsProcessor):
    """Removes the most likely token."""

    def __call__(self, input_ids, scores):
        return scores.scatter(1, scores.argmax(-1, keepdim=True), -math.inf)


class Long(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] % 2 == 0


class Flip(LogitsProcessor):
    """Makes the least likely token the most likely."""

    def __call__(self, input_ids, scores):
        return -scores


class Nothing(LogitsProcessor):
    """Leaves no token from the sixth place on."""

    def __call__(self, input_ids, scores):
        return scores if input_ids.shape[1] < 5 else torch.full_like(scores, -math.inf)


@pytest.mark.parametrize(
    "arguments",
    [
        GREEDY,
        SAMPLED,
        GREEDY | {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "min_new_tokens": 3},
        SAMPLED | {"num_return_sequences": 2},
        GREEDY | {"logits_processor": [Ban()], "stopping_criteria": [Long()]},
        SAMPLED | {"use_cache": False},
    ],
    ids=["greedy", "sampled", "processors", "two a prompt", "own objects", "no cache"],
)
def test_a_run_is_what_generate_gives(model, gpt2, arguments):
    stepper = Stepper(model, gpt2, PROMPTS, **arguments)
    stepper.run()
    assert torch.equal(stepper.sequences, generated(model, gpt2, PROMPTS, **arguments))
    assert stepper.text == gpt2.batch_decode(stepper.sequences, skip_special_tokens=True)
    assert stepper.text[0].startswith("It will rain in the")


def test_rows_that_end_early(model, gpt2):
    free = generated(model, gpt2, PROMPTS, **GREEDY)
    end = [free[1, -5].item(), free[2, -3].item()]  # the second new token of row 1, the fourth of row 2
    arguments = GREEDY | {"eos_token_id": end}
    stepper = Stepper(model, gpt2, PROMPTS, **arguments)
    stepper.run()
    assert torch.equal(stepper.sequences, generated(model, gpt2, PROMPTS, **arguments))
    turns = stepper.shown["branches"][0]["turns"]
    row = [turn["reasons"][1] for turn in turns]
    assert row == [None, *["end of text"] * 5]
    assert turns[-1]["reasons"][0] == "length"
    assert [turn["shares"][1] is None for turn in turns] == [False, False, True, True, True, True]
    assert stepper.shown["steps"][turns[3]["step"]]["rows"][1] is None
    assert turns[3]["tokens"][1] == 50256


@pytest.mark.parametrize("own", [[], [Flip()]], ids=["in order", "turned over"])
def test_every_figure_is_that_of_the_step(model, gpt2, own):
    arguments = SAMPLED | {"repetition_penalty": 1.4, "max_new_tokens": 3, "logits_processor": own}
    stepper = Stepper(model, gpt2, PROMPTS[1:], **arguments)
    stepper.run()
    torch.manual_seed(0)
    steps = list(decode_steps(model, batch(model, gpt2, PROMPTS[1:]), **arguments))
    shown = stepper.shown
    assert len(shown["steps"]) == len(steps) == 3
    for step, record in zip(steps, shown["steps"], strict=True):
        assert shown["chains"][record["chain"]] == [name for name, _ in step.stages]
        assert record["cache"] == step.cache_length
        for row, own in enumerate(record["rows"]):
            given = record["given"][row]
            assert given["ids"] == step.input_ids[row, step.cache_length :].tolist()
            assert given["positions"] == step.position_ids[row].tolist()
            mask = [value for value, length in given["mask"] for _ in range(length)]
            assert mask == step.attention_mask[row].tolist()
            raw = step.logits[row].double().softmax(-1)
            for stage, scores in enumerate([step.logits, *(scores for _, scores in step.stages)]):
                probs = scores[row].double().softmax(-1)
                kept = scores[row] > -math.inf
                assert own["kept"][stage] == kept.sum()
                assert own["mass"][stage] == pytest.approx(raw[kept].sum().item(), abs=1e-4)
                bits = torch.distributions.Categorical(probs=probs).entropy().item() / math.log(2)
                assert own["entropy"][stage] == pytest.approx(bits, abs=1e-3)
                for token, share in zip(own["top"], own["shares"][stage], strict=True):
                    assert (share is None) == (not kept[token])
                    assert (share or 0) == pytest.approx(probs[token].item(), abs=1e-5)
                likeliest = [token for token in probs.topk(10).indices.tolist() if kept[token]]
                assert set(likeliest) <= set(own["top"])


def test_an_encoder_decoder_model(gpt2):
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=50257,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=32,
        init_std=1.0,
        decoder_start_token_id=50256,
        forced_eos_token_id=None,
    )
    bart = BartForConditionalGeneration(config).eval()
    arguments = GREEDY | {"eos_token_id": 50256, "pad_token_id": 50256}
    stepper = Stepper(bart, gpt2, PROMPTS, **arguments)
    stepper.run()
    inputs = gpt2(PROMPTS, padding=True, padding_side="right", return_tensors="pt")
    assert torch.equal(stepper.sequences, bart.generate(**inputs, **arguments))
    assert stepper.shown["rows"] == [[50256]] * 3
    assert stepper.shown["steps"][0]["given"][0]["positions"] is None


def test_the_notebooks_own_random_state_stays(model, gpt2):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    stepper = Stepper(model, gpt2, "My dog", **SAMPLED)
    stepper.step(2)
    stepper.choose(262, step=0)
    stepper.page()
    assert torch.equal(torch.get_rng_state(), before)


# ---- back and sideways


@pytest.mark.parametrize("likely", [True, False], ids=["likely", "unlikely"])
@pytest.mark.parametrize("arguments", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_branch_is_what_generate_gives_from_its_prefix(model, gpt2, arguments, likely):
    stepper = Stepper(model, gpt2, PROMPTS, **arguments)
    stepper.run()
    first, record = stepper.sequences, stepper.shown["steps"][2]["rows"][1]
    token = next(token for token in reversed(record["top"]) if token != first[1, 10]) if likely else 262
    assert (token in record["top"]) == likely
    stepper.choose(token, row=1, step=2)
    assert stepper.branch == 1
    (turn,) = stepper.shown["branches"][1]["turns"]
    mask = batch(model, gpt2, PROMPTS).attention_mask
    longer = torch.cat([mask, mask.new_ones(3, 2)], dim=1)
    with torch.no_grad():
        logits = model(first[:, :10].to(model.device), attention_mask=longer).logits[1, -1]
    assert turn["shares"][1][0] == pytest.approx(logits.softmax(-1)[token].item(), abs=2e-5)
    stepper.run()
    branch = stepper.sequences
    assert torch.equal(branch[:, :10], first[:, :10])
    assert branch[:, 10].tolist() == [first[0, 10], token, first[2, 10]]
    rest = arguments | {"max_new_tokens": 3}
    assert torch.equal(branch, continued(model, branch, 11, mask, 3, **rest))
    # The first branch goes on where it was, though the cache has been elsewhere since.
    stepper.choose(first[1, 10].item(), row=1, step=2)
    assert stepper.branch == 0
    assert torch.equal(stepper.sequences, first)


def test_branches_of_branches_are_kept_as_a_tree(model, gpt2):
    stepper = Stepper(model, gpt2, "My dog is", **GREEDY)
    stepper.run()
    stepper.choose(11, step=2)
    stepper.step(2)
    stepper.choose(12, step=4)  # in the branch's own part
    stepper.step()
    stepper.choose(13, step=1)  # in what it shares with the first
    stepper.choose(14, step=1)  # in place of the same token
    branches = stepper.shown["branches"]
    assert [(one["parent"], one["start"], len(one["turns"])) for one in branches] == [
        (None, 0, 6), (0, 2, 3), (1, 4, 2), (0, 1, 1), (0, 1, 1)
    ]  # fmt: skip
    tree = stepper._tree
    tokens = [[turn.tokens[0] for turn in tree.path(number)] for number in range(5)]
    assert tokens[1][:2] == tokens[0][:2] and tokens[1][2] == 11
    assert tokens[2][:4] == tokens[1][:4] and tokens[2][4] == 12
    assert tokens[3] == [tokens[0][0], 13]
    assert tokens[4] == [tokens[0][0], 14]
    records = [
        turn["step"] for turn in (branches[0]["turns"][1], branches[3]["turns"][0], branches[4]["turns"][0])
    ]
    assert len(set(records)) == 1  # three choices at one step
    for number in range(5):
        stepper.answer({"session": 1, "forward": {"branch": number, "taken": len(tokens[number])}})
        expected = continued(
            model, tree.sequences(number), 3 + len(tokens[number]),
            torch.ones(1, 3, dtype=torch.long, device=model.device), 0, max_new_tokens=1, do_sample=False,
        ) if len(tokens[number]) < 6 else tree.sequences(number)  # fmt: skip
        assert torch.equal(tree.sequences(number), expected)


def test_a_choice_that_is_there_already_is_no_new_branch(model, gpt2):
    stepper = Stepper(model, gpt2, "My dog is", **GREEDY)
    stepper.step(2)
    stepper.choose(11, step=0)
    stepper.choose(11, step=0)
    assert len(stepper.shown["branches"]) == 2
    stepper.choose(stepper._tree.path(0)[0].tokens[0], step=0)
    assert stepper.branch == 0
    assert len(stepper.shown["branches"]) == 2


def test_one_more_row_of_a_branch_is_its_child(model, gpt2):
    stepper = Stepper(model, gpt2, PROMPTS, **GREEDY)
    stepper.choose(11, row=0)
    stepper.choose(12, row=2)
    assert stepper.shown["branches"][2]["parent"] == 1
    assert stepper.sequences[:, -1].tolist()[::2] == [11, 12]


def test_other_rows_draw_the_same(model, gpt2):
    stepper = Stepper(model, gpt2, PROMPTS, seed=3, **SAMPLED)
    stepper.run()
    first = stepper.sequences
    stepper.choose(262, row=0, step=0)
    stepper.run()
    assert not torch.equal(stepper.sequences[0], first[0])
    assert torch.equal(stepper.sequences[1:], first[1:])


def test_seeds_are_beginnings_side_by_side(model, gpt2):
    stepper = Stepper(model, gpt2, PROMPTS, **SAMPLED)
    stepper.run()
    for seed in (5, 0, 5):
        stepper.start(PROMPTS, seed, **SAMPLED)
        stepper.run()
        assert torch.equal(stepper.sequences, generated(model, gpt2, PROMPTS, seed, **SAMPLED))
    assert [(one["parent"], one["seed"]) for one in stepper.shown["branches"]] == [(None, 0), (None, 5)]
    assert stepper.shown["sampling"]
    stepper.start(PROMPTS, 5, **GREEDY)
    assert len(stepper.shown["branches"]) == 1
    assert not stepper.shown["sampling"]


def test_the_same_token_of_another_seed_is_another_branch(model, gpt2):
    stepper = Stepper(model, gpt2, "My dog is", **SAMPLED)
    first = stepper.sequences[0, 3].item()
    stepper.start("My dog is", 5, **SAMPLED)
    assert stepper.sequences[0, 3] != first
    stepper.choose(first, step=0)
    assert stepper.branch == 2
    assert stepper.shown["branches"][2]["seed"] == 5


def test_an_end_that_is_chosen_and_taken_back(model, gpt2):
    stepper = Stepper(model, gpt2, "My dog is", **GREEDY)
    stepper.step(2)
    stepper.choose(50256)
    assert stepper.shown["branches"][1]["turns"][0]["reasons"] == ("end of text",)
    before = stepper.shown
    stepper.step()
    assert stepper.shown is before  # there is nothing to go on with
    stepper.choose(11)
    stepper.run()
    assert stepper.sequences.shape == (1, 9)


def test_a_finished_row_has_no_choice(model, gpt2):
    stepper = Stepper(model, gpt2, PROMPTS, **GREEDY)
    stepper.choose(50256, row=1)
    stepper.step(2)
    shown = stepper.shown
    with pytest.raises(CourseError, match=r"Row 1 was finished before this step \(end of text\)"):
        stepper.choose(11, row=1)
    assert stepper.shown is shown
    stepper.choose(11, row=0)
    stepper.run()
    assert stepper.sequences[1, -5:].tolist() == [50256] * 5


# ---- what goes wrong


BAD = [
    ({"prompts": ""}, "Prompt 1 is empty, so there is nothing to continue"),
    ({"prompts": []}, "There is no prompt"),
    ({"prompts": None}, "The prompts are of type NoneType"),
    ({"prompts": ["My", ""]}, "Prompt 2 is empty"),
    ({"prompts": [3]}, "Prompt 1 is of type int, not text"),
    ({"prompts": "a\ud83d"}, "Character 2 of prompt 1 is U.D83D, half of a surrogate pair"),
    ({"prompts": ["word"] * 7}, "These are 7 prompts, and this view shows at most 6"),
    ({"prompts": "word " * 200}, "Prompt 1 has 201 tokens, and this view shows at most 200. Shorten it by 1"),
    ({"num_return_sequences": 7, "do_sample": True}, "These arguments make 7 rows"),
    ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ({"max_new_tokens": -3}, "max_new_tokens is -3"),
    ({"do_sample": True, "temperature": 0.0}, "temperature is 0.0"),
    ({"maximum": 3}, "has no argument maximum"),
    ({"max_new_tokens": 1025}, "1024 positions"),
    ({"num_beams": 3}, "num_beams=3 asks for beam search, which lesson 06 takes apart"),
    ({"seed": -1}, "The seed is -1. Give a whole number from 0 to 4294967295"),
    ({"seed": 1.5}, r"The seed is 1\.5"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_input_is_refused_and_nothing_is_lost(model, gpt2, changes, message):
    stepper = Stepper(model, gpt2, "My dog is", **GREEDY)
    stepper.step()
    shown, config = stepper.shown, model.generation_config.to_dict()
    arguments = {"prompts": "Hello", "max_new_tokens": 3} | changes
    with pytest.raises(CourseError, match=message):
        stepper.start(**arguments)
    with pytest.raises(CourseError, match=message):
        Stepper(model, gpt2, **arguments)
    assert stepper.shown is shown
    assert model.generation_config.to_dict() == config
    stepper.run()
    assert torch.equal(stepper.sequences, generated(model, gpt2, "My dog is", **GREEDY))


def test_a_batch_needs_a_pad_token(model):
    tokenizer = load_tokenizer("gpt2")
    Stepper(model, tokenizer, ["My dog", "My cat"], **GREEDY)
    with pytest.raises(CourseError, match="There is no pad id"):
        Stepper(model, tokenizer, PROMPTS, **GREEDY)


def test_scores_that_are_no_distribution(gpt2):
    broken = tiny_gpt2()
    broken.transformer.ln_f.weight.data[0] = float("nan")
    with pytest.raises(CourseError, match="NaN"):
        Stepper(broken, gpt2, "My dog", **GREEDY)

    stepper = Stepper(tiny_gpt2(), gpt2, "My dog is", logits_processor=[Nothing()], **GREEDY)
    stepper.step()
    shown = stepper.shown
    with pytest.raises(CourseError, match="Nothing"):
        stepper.step()
    assert stepper.shown is shown
    assert len(stepper.page_state()["shown"]["steps"]) == 2  # looking ahead finds nothing either


def test_a_choice_may_be_an_integer_of_numpy_or_torch(model, gpt2):
    stepper = Stepper(model, gpt2, PROMPTS, **GREEDY)
    stepper.choose(torch.tensor(11), row=numpy.int64(1))
    stepper.choose(numpy.int64(12), row=torch.tensor(2))
    assert stepper.sequences[1:, -1].tolist() == [11, 12]
    assert [branch["row"] for branch in stepper.shown["branches"]] == [None, 1, 2]
    json.dumps(stepper.shown)  # a page can be sent no other integers


def test_choices_that_are_none(model, gpt2):
    stepper = Stepper(model, gpt2, "My dog is", **GREEDY)
    shown = stepper.shown
    with pytest.raises(CourseError, match=r"There is no step 1\."):
        stepper.choose(11, step=1)
    for token, row in ((50257, 0), (-1, 0), ("a", 0), (11, 1), (11, -1)):
        with pytest.raises(CourseError):
            stepper.choose(token, row=row)
    assert stepper.shown is shown
    stepper.run()
    assert torch.equal(stepper.sequences, generated(model, gpt2, "My dog is", **GREEDY))


def test_as_many_steps_and_branches_as_fit(model, gpt2, monkeypatch):
    monkeypatch.setattr("course_utils.widgets.stepper.tree.MOST_RECORDS", 6)
    monkeypatch.setattr("course_utils.widgets.stepper.tree.MOST_BRANCHES", 3)
    stepper = Stepper(model, gpt2, PROMPTS, **GREEDY)
    stepper.step()
    with pytest.raises(CourseError, match="This view holds 2 steps, as many as it can"):
        stepper.step()
    for token in (11, 12):
        stepper.choose(token, step=0)
    with pytest.raises(CourseError, match="This view holds 3 branches, as many as it can"):
        stepper.choose(13, step=0)
    assert stepper.branch == 2


@pytest.mark.parametrize("call", range(4))
@pytest.mark.parametrize("arguments", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_an_interrupt_leaves_it_usable(model, gpt2, arguments, call):
    stepper = Stepper(model, gpt2, PROMPTS, **arguments)
    stepper.step(2)
    stepper.choose(262, row=1, step=1)
    calls = []

    def interrupt(module, args):
        calls.append(module)
        if len(calls) == call + 1:
            raise KeyboardInterrupt

    replies = []
    stepper.send = lambda content, buffers=None: replies.append(content)
    hook = model.transformer.register_forward_pre_hook(interrupt)
    shown = stepper.shown
    for number in range(4):
        taken = len(stepper._tree.path(1))
        request = {"session": 1, "forward": {"branch": 1, "taken": taken}}
        stepper._receive(stepper, {"number": number, "request": request}, [])
        if number == call:
            assert "interrupted" in replies[-1]["error"]
            assert stepper.shown is shown
        else:
            assert replies[-1] == {"number": number, "branch": 1}
        shown = stepper.shown
    hook.remove()
    stepper.run()
    mask = batch(model, gpt2, PROMPTS).attention_mask
    rest = arguments | {"max_new_tokens": 4}
    assert torch.equal(stepper.sequences, continued(model, stepper.sequences, 10, mask, 2, **rest))


def test_what_was_put_away_is_not_gone_on_with(model, gpt2):
    stepper = Stepper(model, gpt2, "My dog is", **GREEDY)
    stepper.start("Hello", **GREEDY)
    shown = stepper.shown
    stepper.answer({"session": 1, "forward": {"branch": 0, "taken": 1}})
    stepper.answer({"session": 1, "choose": {"branch": 0, "step": 0, "row": 0, "token": 11}})
    assert stepper.shown is shown
    stepper.answer({"session": 2, "forward": {"branch": 0, "taken": 1}})
    assert len(stepper.shown["steps"]) == 2


def test_a_page_that_missed_a_step_is_told_of_it(model, gpt2):
    stepper = Stepper(model, gpt2, "My dog is", **GREEDY)

    def interrupt(change):
        raise KeyboardInterrupt

    stepper.observe(interrupt, "shown")
    with pytest.raises(KeyboardInterrupt):
        stepper.step()
    stepper.unobserve(interrupt, "shown")
    told = []
    stepper.observe(told.append, "shown")
    stepper.answer({"session": 1, "forward": {"branch": 0, "taken": 1}})
    assert len(told) == 1
    assert len(stepper.shown["branches"][0]["turns"]) == 2
    stepper.run()
    assert torch.equal(stepper.sequences, generated(model, gpt2, "My dog is", **GREEDY))


# ---- arguments as text


def test_arguments_are_shown_and_read_as_text(model, gpt2):
    stepper = Stepper(model, gpt2, "My dog is", **SAMPLED, logits_processor=[Ban()], eos_token_id=[11, 13])
    text = stepper.shown["arguments"]
    assert text == (
        "max_new_tokens=6, do_sample=True, temperature=1.3, top_k=30, top_p=0.95, eos_token_id=[11, 13]"
    )
    assert stepper.shown["objects"] == "logits_processor=[Ban]"
    start = {"prompts": ["My dog is"], "arguments": text.replace("top_k=30, ", ""), "seed": 4}
    assert stepper.answer({"start": start}) == {"branch": 0}
    assert stepper.shown["chains"] == [
        ["Ban", "TemperatureLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper"]
    ]
    assert stepper.shown["branches"][0]["seed"] == 4
    assert stepper.shown["session"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_new_tokens=", "The arguments 'max_new_tokens=' cannot be read"),
        ("8", "cannot be read. Type them as in a call, by name: max_new_tokens=8"),
        ("a=1) + f(b=2", "cannot be read"),
        ("a=1)(b=2", "cannot be read"),
        ("a=1, a=2", "a is given twice"),
        ("**{'a': 1}", r"\*\*\{'a': 1\} is not a single argument"),
        ("top_k=model.config.top_k", "top_k=model.config.top_k is not a number, text, list"),
        ("processor=1", "processor comes from the cell"),
        ("top_k=5, seed=3", "seed is given beside these arguments. Leave it out"),
        ("prompts='x'", "prompts is given beside these arguments"),
        ("model='gpt2'", "model is given beside these arguments"),
        ("\0", "cannot be read"),
    ],
)
def test_text_that_is_no_list_of_arguments(text, message):
    with pytest.raises(CourseError, match=message):
        parsed(text, {"processor": Ban()})


def test_text_that_is_one():
    assert parsed("", {}) == {}
    assert parsed("a=1,\n b=[None, -2.5], c={'d': True},  # so", {}) == {
        "a": 1,
        "b": [None, -2.5],
        "c": {"d": True},
    }
    assert described([Ban(), len]) == "[Ban, len]"


@pytest.mark.parametrize("in_config", [False, True])
def test_stop_strings_find_their_tokenizer(model, gpt2, in_config):
    free = generated(model, gpt2, "My dog is", **GREEDY)
    given = {"stop_strings": [gpt2.decode(free[0, 5])], **GREEDY}
    if in_config:
        given = {"generation_config": GenerationConfig(**given, pad_token_id=50256)}
    stepper = Stepper(model, gpt2, "My dog is", **given)
    stepper.run()
    assert stepper.sequences.shape[1] == 6
    assert stepper.shown["branches"][0]["turns"][-1]["reasons"] == ("StopStringCriteria",)
    assert "tokenizer" not in stepper.shown["objects"]


# ---- saved and printed


def test_a_saved_page_has_steps_to_walk_through(model, gpt2):
    stepper = Stepper(model, gpt2, "My dog is", max_new_tokens=20, do_sample=True)
    shown = stepper.shown
    saved = json.loads(json.dumps(stepper.page_state()))
    assert saved["live"] is False
    assert len(saved["shown"]["branches"][0]["turns"]) == 8
    assert stepper.shown is shown
    assert stepper.sequences.shape == (1, 4)
    assert len(shown["steps"]) == 1
    assert len(stepper.page().encode()) < 50_000
    assert stepper.still().count("<tr>") == 9
    stepper.run()
    turns = stepper.shown["branches"][0]["turns"]
    assert [turn["tokens"] for turn in turns[:8]] == [
        tuple(turn["tokens"]) for turn in saved["shown"]["branches"][0]["turns"]
    ]


def test_the_state_says_what_the_trait_says(model, gpt2):
    stepper = Stepper(model, gpt2, PROMPTS, **GREEDY)
    stepper.run()
    state = stepper.page_state()
    assert json.dumps(state["shown"]) == json.dumps(stepper.shown)
    assert set(state) == {"live", "shown"}


def test_summary(model, gpt2):
    texts = []
    for _ in range(2):
        stepper = Stepper(model, gpt2, ["My dog is", "I want to eat"], **SAMPLED, logits_processor=[Ban()])
        stepper.step()
        stepper.choose(11, row=1)
        texts.append(repr(stepper))
    first, second = texts
    assert first == second
    assert "0x" not in first
    lines = first.splitlines()
    assert lines[0] == "generate(max_new_tokens=6, do_sample=True, temperature=1.3, top_k=30, top_p=0.95)"
    assert lines[1] == "Row 0, after 'My dog is'"
    assert lines[2].split("  ")[0] == "Step"
    assert lines[4].split()[:2] == ["1", "4"]
    old = gpt2.decode(stepper._tree.path(0)[1].tokens[1]).replace(" ", "·")
    assert lines[-1] == f"Branch 1 leaves branch 0 at step 1, row 1: “,” for “{old}”."
    assert "Branch 1 leaves branch 0 at step 1, row 1: “,” for" in stepper.still()


def test_text_and_html_are_plain(model, gpt2):
    stepper = Stepper(
        model, gpt2, ["<img src=x onerror=alert(1)>\n\u202eשלום"], stop_strings=["<b>"], **GREEDY
    )
    assert "\u202e" not in repr(stepper) + stepper.still()
    assert "<img" not in stepper.still()
    assert "<b>" not in stepper.still()
    for module in (stepper._esm, stepper._css):
        assert "</script" not in module
        assert "import " not in module
