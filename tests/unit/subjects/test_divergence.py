"""The KL divergence of a training step is that of the whole model, whatever it does with its logits."""

import functools

import pytest
import torch
import transformers

from course_utils import load_tokenizer
from course_utils.sampling import sample
from course_utils.training import train_habit
from tiny import tiny_gpt2

VOCABULARY = 50257
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# What each does that hidden state -> norm -> head leaves out, and whether it does.
MODELS = {
    "Llama": ("LlamaForCausalLM", {}, False),
    "Granite": ("GraniteForCausalLM", {"logits_scaling": 8.0}, True),
    "Granite, half": ("GraniteForCausalLM", {"logits_scaling": 0.5}, True),
    "Cohere": ("CohereForCausalLM", {"logit_scale": 0.25}, True),
    "Cohere 2": ("Cohere2ForCausalLM", {"logit_scale": 0.25}, True),
    "Gemma 2": ("Gemma2ForCausalLM", {"head_dim": 8, "final_logit_softcapping": 3.0}, True),
    "NanoChat": ("NanoChatForCausalLM", {"final_logit_softcapping": 3.0}, True),
    "Gemma 3n": (
        "Gemma3nForCausalLM",
        {
            "head_dim": 8, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8,
            "laurel_rank": 4, "altup_num_inputs": 3, "num_kv_shared_layers": 0,
            "activation_sparsity_pattern": [0.0, 0.0], "layer_types": ["sliding_attention", "full_attention"],
        },
        True,
    ),
}  # fmt: skip
ASKED = {"samples": 8, "new_tokens": 4, "temperature": 0.7}


@functools.cache
def tokenizer():
    return load_tokenizer("gpt2")


def made(name):
    kind, own, _ = MODELS[name]
    kind = getattr(transformers, kind)
    torch.manual_seed(0)
    model = kind(kind.config_class(**SMALL | own)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def flat_gpt2():
    """A model whose texts differ: no token is far more probable than all others."""
    model = tiny_gpt2()
    model.transformer.wte.weight.data /= 20
    return model


@torch.no_grad()
def log_probs(model, drawn, dtype=torch.float32):
    logits = model(drawn.sequences, use_cache=False).logits[:, drawn.prompt_length - 1 : -1]
    return (logits.to(dtype) / ASKED["temperature"]).log_softmax(-1)[drawn.drawn]


def reported_and_right(model, rate=0.02):
    """What a step reports as its divergence, and what the whole model says before and after it."""
    drawn = sample(model, tokenizer(), "Hi", **ASKED, seed=0)  # what the first step draws
    start = log_probs(model, drawn)
    run = train_habit(model, tokenizer(), len, "Hi", steps=1, learning_rate=rate, seed=0, **ASKED)
    now = log_probs(model, drawn)
    run.undo()
    return run.steps[0].kl, (now.exp() * (now - start)).sum(-1).mean().item()


@pytest.mark.parametrize("name", MODELS)
def test_kl_is_the_whole_models(name):
    model = made(name)
    reported, right = reported_and_right(model)
    assert reported == pytest.approx(right, rel=1e-3, abs=1e-6) and right > 1e-4


@pytest.mark.parametrize("kind", ["block", "norm"])
def test_trained_weights_that_act_earlier_too_are_followed_there(kind):
    """A model may run its last block several times, or share its norm with the blocks before."""
    model = made("Llama")
    base = model.model
    if kind == "block":
        base.layers[0].forward = lambda *args, **kwargs: type(base.layers[1]).forward(
            base.layers[1], *args, **kwargs
        )
    else:
        base.layers[0].input_layernorm = base.norm
    reported, right = reported_and_right(model)
    assert reported == pytest.approx(right, rel=1e-3) and right > 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_only_models_that_do_more_run_as_a_whole(name):
    """Once for a step that is scored, twice more where the frozen blocks have to run again."""
    model, passes = made(name), []
    model.generate = sample_once(model)
    hook = model.base_model.register_forward_hook(lambda *args: passes.append(1))
    train_habit(model, tokenizer(), len, "Hi", steps=1, seed=0, **ASKED).undo()
    hook.remove()
    assert len(passes) == (3 if MODELS[name][2] else 1)


def sample_once(model):
    """generate() that has drawn before: it makes no forward pass."""
    drawn = sample(model, tokenizer(), "Hi", **ASKED, seed=0)
    return lambda *args, **kwargs: drawn.sequences.clone()


def test_a_token_that_the_model_forbids_is_no_distance():
    """Chameleon forbids its image tokens so; a temperature below 1 makes -inf of the smallest number."""
    for value in (-torch.inf, torch.finfo(torch.float32).min):
        model = flat_gpt2()

        def forbid(module, args, output, value=value):
            output.logits[..., :9] = value

        model.register_forward_hook(forbid)
        reported, right = reported_and_right(model)
        assert 0 < reported < torch.inf and right != right  # NaN, if nobody looks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_of_few_digits_are_scored_in_float32(dtype):
    model = flat_gpt2().to(dtype)
    drawn = sample(model, tokenizer(), "Hi", **ASKED, seed=0)
    chosen = drawn.sequences[:, drawn.prompt_length :][drawn.drawn]
    picked = log_probs(model, drawn).gather(-1, chosen[:, None])
    sums = torch.zeros(ASKED["samples"])
    sums.index_add_(0, drawn.drawn.nonzero()[:, 0], picked[:, 0])
    rewards = torch.tensor([float(len(text)) for text in drawn.texts])
    expected = -((rewards - rewards.mean()) * 8 / 7 * sums).mean().item()
    run = train_habit(model, tokenizer(), len, "Hi", steps=1, seed=0, **ASKED)
    run.undo()
    assert run.steps[0].loss == pytest.approx(expected, rel=1e-3)
    reported, right = reported_and_right(model)
    assert reported == pytest.approx(right, rel=1e-3) and right > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_steps_of_a_model_of_few_digits_add_up(dtype):
    """Each moves a weight of 1 by less than half of the distance to the next number of its type."""
    model = flat_gpt2().to(dtype)
    weight = model.transformer.ln_f.weight
    rate = torch.finfo(dtype).eps / 5
    run = train_habit(model, tokenizer(), len, "Hi", steps=8, seed=0, **ASKED, learning_rate=rate)
    assert (weight != 1).sum() > len(weight) / 4
    assert all(step.kl >= 0 for step in run.steps)
    run.undo()
    assert (weight == 1).all()
