"""Models whose class brings a generate() of its own, and models that count positions in several ways."""

import pytest
import torch
import transformers
from transformers import GPT2LMHeadModel

from course_utils import CourseError, decode_steps, load_tokenizer
from course_utils.widgets import Stepper
from tiny import tiny_gpt2

OWN = "has a generate\\(\\) of its own"


def of_class(kind):
    model = tiny_gpt2(positions=64, vocabulary=24)
    model.__class__ = kind
    return model


class PassesOn(GPT2LMHeadModel):
    """Changes an argument, and returns what the common generate() returns."""

    def generate(self, *args, **kwargs):
        return super().generate(*args, no_repeat_ngram_size=1, **kwargs)


class CutsOff(GPT2LMHeadModel):
    def generate(self, input_ids, **kwargs):
        return super().generate(input_ids, **kwargs)[:, input_ids.shape[1] :]


class Reads(GPT2LMHeadModel):
    def generate(self, *args, **kwargs):
        return {"text": super().generate(*args, **kwargs).sequences}


class Wraps(GPT2LMHeadModel):
    def generate(self, *args, **kwargs):
        return [super().generate(*args, **kwargs)]


class TakesNoLoop(GPT2LMHeadModel):
    def generate(self, input_ids, attention_mask=None, max_new_tokens=1):
        return super().generate(input_ids, attention_mask=attention_mask, max_new_tokens=max_new_tokens)


class OwnLoop(GPT2LMHeadModel):
    def generate(self, input_ids, **kwargs):
        return input_ids


class NotTheLibrarys(torch.nn.Module):
    def generate(self, input_ids):
        return input_ids


INPUTS = {"input_ids": torch.tensor([[3, 4, 5]])}


def test_a_generate_that_passes_the_common_one_on_is_stepped_through():
    model = of_class(PassesOn)
    list(decoding := decode_steps(model, INPUTS, max_new_tokens=5))
    assert torch.equal(decoding.sequences, model.generate(**INPUTS, max_new_tokens=5))
    plain = of_class(GPT2LMHeadModel).generate(**INPUTS, max_new_tokens=5)
    assert not torch.equal(decoding.sequences, plain)


def test_a_generate_that_works_on_what_the_loop_returns_is_refused():
    for kind in (CutsOff, Reads, Wraps, TakesNoLoop, OwnLoop):
        with pytest.raises(CourseError, match=f"{kind.__name__} {OWN}"):
            decode_steps(of_class(kind), INPUTS, max_new_tokens=3)
    with pytest.raises(CourseError, match=f"NotTheLibrarys {OWN}"):
        decode_steps(NotTheLibrarys(), INPUTS)


def test_it_does_not_hide_what_is_wrong_with_the_arguments():
    with pytest.raises(CourseError, match="generate\\(\\) has no argument nonsense"):
        decode_steps(of_class(CutsOff), INPUTS, max_new_tokens=3, nonsense=1)
    with pytest.raises(CourseError, match="asks for beam search"):
        decode_steps(of_class(CutsOff), INPUTS, max_new_tokens=3, num_beams=2)


@pytest.fixture
def quiet():
    """What Whisper's generate() passes on to the common one is no longer passed so, says transformers."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(level)


def test_whisper(quiet):
    small = {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "num_mel_bins": 8, "max_source_positions": 30,
        "max_target_positions": 24, "vocab_size": 100, "begin_suppress_tokens": None,
    }  # fmt: skip
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), 98)
    config = transformers.WhisperConfig(**small, **ids)
    model = transformers.WhisperForConditionalGeneration(config).eval()
    sound = {"input_features": torch.rand(1, 8, 60)}
    for kwargs in ({}, {"return_dict_in_generate": True}):
        with pytest.raises(CourseError, match=f"WhisperForConditionalGeneration {OWN}"):
            decode_steps(model, sound, max_new_tokens=3, **kwargs)


def test_an_error_of_our_own_is_not_laid_on_the_arguments(monkeypatch):
    def broken(*anything):
        raise TypeError("a slip in the library")

    monkeypatch.setattr("course_utils.decoding.generate_inputs.check_mode", broken)
    with pytest.raises(TypeError, match="a slip in the library"):
        decode_steps(of_class(GPT2LMHeadModel), INPUTS, max_new_tokens=3)


# ---- positions of time, height and width --------------------------------------------------------------


def qwen2_vl():
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    text = {
        "vocab_size": 50257, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rope_parameters": rope, "bos_token_id": 2,
        "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    sight = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4}
    torch.manual_seed(0)
    config = transformers.Qwen2VLConfig(text_config=text, vision_config=sight)
    return transformers.Qwen2VLForConditionalGeneration(config).eval()


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_step_has_the_positions_of_the_text(use_cache):
    inputs = {
        "input_ids": torch.tensor([[0, 0, 5, 6, 7], [4, 5, 6, 7, 8]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
    }
    model, kwargs = qwen2_vl(), {"max_new_tokens": 3, "use_cache": use_cache, "eos_token_id": None}
    steps = list(decoding := decode_steps(model, inputs, **kwargs))
    assert torch.equal(decoding.sequences, model.generate(**inputs, **kwargs))
    assert steps[0].position_ids.tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert [step.position_ids[:, -1].tolist() for step in steps] == [[2, 4], [3, 5], [4, 6]]
    assert steps[1].position_ids.shape == (2, 1 if use_cache else 6)


def test_the_page_shows_them():
    tokenizer = load_tokenizer("gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    stepper = Stepper(qwen2_vl(), tokenizer, ["Hello", "My dog is"], max_new_tokens=2)
    stepper.run()
    first, second = stepper.shown["steps"]
    assert [row["positions"] for row in first["given"]] == [[0, 0, 0], [0, 1, 2]]
    assert [row["positions"] for row in second["given"]] == [[1], [3]]
