"""What `sample` draws from: the model's own softmax, whatever settings and inputs it is given with."""

from types import SimpleNamespace

import numpy
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import CourseError, load
from course_utils.sampling import sample
from course_utils.training import train_habit
from tiny import tiny_gpt2

VOCABULARY, END, DRAWS = 8, 7, 6000
NOISE = 0.06  # the total variation of so many draws from the right distribution is below it
PROMPT = [1, 2, 1]
# What a model may bring in its generation_config, all of which bends or breaks a draw that heeds it.
SETTINGS = {
    "min_p": 0.6,
    "typical_p": 0.3,
    "epsilon_cutoff": 0.15,
    "eta_cutoff": 0.4,
    "top_h": 0.3,
    "top_k": 2,
    "top_p": 0.3,
    "temperature": 0.2,
    "repetition_penalty": 5.0,
    "encoder_repetition_penalty": 5.0,
    "suppress_tokens": [0, 3],
    "begin_suppress_tokens": [0, 3],
    "bad_words_ids": [[3], [0]],
    "no_repeat_ngram_size": 1,
    "sequence_bias": {(3,): 9.0},
    "forced_eos_token_id": END,
    "exponential_decay_length_penalty": (0, 9.0),
    "min_new_tokens": 2,
    "min_length": 5,
    "guidance_scale": 3.0,
    "watermarking_config": {"bias": 9.0},
    "num_beams": 4,
    "num_return_sequences": 2,
    "do_sample": False,
    "stop_strings": ["a"],
    "prompt_lookup_num_tokens": 3,
    "max_time": 0.0,
    "max_length": 1,
    "eos_token_id": 3,
    "token_healing": True,
    "return_dict_in_generate": True,
    "output_scores": True,
    "use_cache": False,
    "cache_implementation": "static",
}


class Ids:
    """A tokenizer of eight tokens that reads every prompt as `PROMPT`."""

    eos_token_id = END

    def __call__(self, prompt, **kwargs):
        return SimpleNamespace(input_ids=PROMPT)

    def decode(self, ids, **kwargs):
        return "".join("abcdefgh"[id] for id in ids)


@pytest.fixture(scope="module")
def model():
    model = tiny_gpt2(vocabulary=VOCABULARY, seed=3)
    model.transformer.wte.weight.data /= 20  # so flat that no token is out of reach
    return model


def joint(model, temperature):
    """The probability of each pair of new tokens, by softmax: float64 [vocabulary, vocabulary]."""
    rows = torch.tensor([[*PROMPT, token] for token in range(VOCABULARY)])
    with torch.no_grad():
        first, second = (model(rows).logits[:, -2:].double() / temperature).softmax(-1).unbind(1)
    probs = first[0, :, None] * second
    probs[END], probs[END, END] = 0.0, first[0, END]  # a text that has ended is filled up
    return probs


def total_variation(model, temperature, **more):
    drawn = sample(model, Ids(), "any", DRAWS, 2, temperature, seed=0).sequences[:, len(PROMPT) :]
    counts = torch.zeros(VOCABULARY, VOCABULARY, dtype=torch.float64)
    counts.index_put_(tuple(drawn.T), torch.ones(DRAWS, dtype=torch.float64), accumulate=True)
    return (counts / DRAWS - joint(model, temperature)).abs().sum().item() / 2


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_texts_are_drawn_from_the_softmax(model, temperature):
    assert total_variation(model, temperature) < NOISE
    probs = joint(model, temperature)
    assert probs.sum().item() == pytest.approx(1) and probs.max() < 0.5


def test_no_setting_of_the_model_shapes_the_draw(model, monkeypatch):
    known = vars(model.generation_config)
    for name, value in SETTINGS.items():
        assert name in known, name
        with monkeypatch.context() as patch:
            patch.setattr(model.generation_config, name, value)
            before = model.generation_config.to_dict()
            assert total_variation(model, 1.0) < NOISE, name
            assert model.generation_config.to_dict() == before, name


def test_settings_come_back_after_an_interrupt(model, monkeypatch):
    own = model.generation_config

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample(model, Ids(), "any", 2, 2)
    assert model.generation_config is own


def test_training_weighs_the_distribution_that_was_drawn_from(monkeypatch):
    """With a minimal p no rare token would be drawn, and its gradient would never be seen."""
    model, tokenizer = load("tiny-llama", device="cpu")
    asked = {"prompt": "My dog is", "steps": 1, "samples": 6, "new_tokens": 3, "learning_rate": 1e-3}
    plain = train_habit(model, tokenizer, len, **asked)
    plain.undo()
    monkeypatch.setattr(model.generation_config, "min_p", 0.9)
    bent = train_habit(model, tokenizer, len, **asked)
    bent.undo()
    assert bent.steps == plain.steps


def typed(tokenizer):
    """The tokenizer with token types among its inputs, as BERT's have them."""
    monkey = type(tokenizer).__call__

    class Typed:
        eos_token_id, decode = tokenizer.eos_token_id, tokenizer.decode

        def __call__(self, *args, **kwargs):
            found = monkey(tokenizer, *args, **kwargs)
            found["token_type_ids"] = [1] * len(found["input_ids"])
            return found

    return Typed()


def test_token_types_are_not_the_models(monkeypatch):
    """Llama takes none; GPT-2 adds an embedding for them, which the scores of the texts would not have."""
    for name in ("tiny-llama", "tiny-gpt2"):
        model, tokenizer = load(name, device="cpu")
        other = typed(tokenizer)
        assert "token_type_ids" in other(["My dog"], return_tensors="pt")
        expected = sample(model, tokenizer, "My dog is", seed=1)
        assert torch.equal(sample(model, other, "My dog is", seed=1).sequences, expected.sequences)
        asked = {"prompt": "My dog is", "steps": 1, "samples": 4, "new_tokens": 3}
        runs = [train_habit(model, each, len, **asked) for each in (tokenizer, other)]
        for run in reversed(runs):
            run.undo()


def test_numbers_may_be_numpys_or_tensors(model):
    plain = sample(model, Ids(), "any", 4, 3, 0.5, seed=2).sequences
    for kind in (numpy.int64, numpy.uint8, torch.tensor):
        half = torch.tensor(0.5) if kind is torch.tensor else numpy.float32(0.5)
        found = sample(model, Ids(), "any", kind(4), kind(3), half, seed=kind(2)).sequences
        assert torch.equal(found, plain)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"samples": 0}, "samples is 0. Give a whole number of at least 1"),
        ({"samples": True}, "samples is True"),
        ({"samples": [3]}, r"samples is \[3\]"),
        ({"new_tokens": 1.5}, "new_tokens is 1.5"),
        ({"temperature": 0}, "temperature is 0. Give a number above 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": "1"}, "temperature is '1'"),
        ({"temperature": 10**400}, "Give a number above 0"),
        ({"seed": 1.5}, "The seed is 1.5. Give a whole number"),
        ({"seed": 2**64}, "The seed is 18446744073709551616"),
    ],
)
def test_numbers_that_are_refused(model, given, words):
    with pytest.raises(CourseError, match=words):
        sample(model, Ids(), "any", **given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_few_digits_draws_from_its_softmax(dtype):
    model = tiny_gpt2(vocabulary=VOCABULARY, seed=3).to(dtype)
    model.transformer.wte.weight.data /= 20
    assert total_variation(model, 1.0) < NOISE


def test_a_model_without_positions_has_no_limit():
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=4, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    drawn = sample(LlamaForCausalLM(config).eval(), Ids(), "any", 2, 4, seed=0)
    assert drawn.prompt_length == 3 and drawn.sequences.shape[1] > 4
