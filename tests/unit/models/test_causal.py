"""course_utils.inputs.causal: which models read from left to right, and who asks."""

import threading

import pytest
import torch
import transformers

from architectures import DECODERS, ENCODER_DECODERS, tiny
from course_utils import CourseError, load_tokenizer
from course_utils.gradients import Problem, random_rewards
from course_utils.inputs.causal import check_causal
from course_utils.scores import next_token_log_probs, perplexity, token_log_probs
from course_utils.training import sample
from course_utils.widgets import (
    BeamTree,
    CacheGrowth,
    GradientLink,
    MaskView,
    NextToken,
    PaddingGrid,
    ScoredText,
)
from tiny import tiny_gpt2

IDS = torch.tensor([[4, 5, 6, 7]])
_BERT = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_XLM = {"vocab_size": 60, "emb_dim": 32, "n_layers": 2, "n_heads": 4}
_GEMMA = _BERT | {"num_key_value_heads": 2, "head_dim": 8}
TWO_SIDED = {
    "Bert": ("BertLMHeadModel", _BERT),
    "BertGeneration": ("BertGenerationDecoder", _BERT),
    "Roberta": ("RobertaForCausalLM", _BERT),
    "XLMRoberta": ("XLMRobertaForCausalLM", _BERT),
    "Camembert": ("CamembertForCausalLM", _BERT),
    "Electra": ("ElectraForCausalLM", _BERT | {"embedding_size": 32}),
    "BigBird": ("BigBirdForCausalLM", _BERT | {"attention_type": "original_full"}),
    "Ernie": ("ErnieForCausalLM", _BERT),
    "RemBert": ("RemBertForCausalLM", _BERT | {"input_embedding_size": 32, "output_embedding_size": 32}),
    "RoFormer": ("RoFormerForCausalLM", _BERT),
    "XLM": ("XLMWithLMHeadModel", _XLM),
    "XLNet": (
        "XLNetLMHeadModel",
        {"vocab_size": 60, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    ),
    "Gemma3Text": ("Gemma3ForCausalLM", _GEMMA | {"use_bidirectional_attention": True}),
}
CAUSAL = {
    "GPTNeoX": ("GPTNeoXForCausalLM", _BERT),  # although its is_decoder is False
    "Bert": ("BertLMHeadModel", _BERT | {"is_decoder": True}),
    "Roberta": ("RobertaForCausalLM", _BERT | {"is_decoder": True}),
    "XLM": ("XLMWithLMHeadModel", _XLM | {"causal": True}),
    "Gemma3Text": ("Gemma3ForCausalLM", _GEMMA),
    "Rwkv": ("RwkvForCausalLM", {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2}),
    "Mamba": (
        "MambaForCausalLM",
        {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    ),
    "OpenAIGPT": ("OpenAIGPTLMHeadModel", {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4}),
}


def built(config, kind, settings):
    torch.manual_seed(0)
    return getattr(transformers, kind)(getattr(transformers, f"{config}Config")(**settings)).eval()


def changes_before(model):
    """By how much the logits of the first three tokens change with the fourth, and those of the fourth:
    (float, float)."""
    with torch.no_grad():
        one, other = (
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
            for ids in (IDS, torch.tensor([[4, 5, 6, 9]]))
        )
    change = (one - other).abs()
    return change[:3].max().item(), change[3].max().item()


def test_a_two_sided_model_is_refused_whatever_its_configuration_calls_it():
    for config, (kind, settings) in TWO_SIDED.items():
        model = built(config, kind, settings)
        before, last = changes_before(model)
        assert before > 1e-3 * last, config
        for score in (token_log_probs, next_token_log_probs, perplexity):
            with pytest.raises(CourseError, match=f"In this {kind} a token also reads the tokens after it"):
                score(model, IDS)


def test_a_decoder_is_taken_whatever_its_configuration_calls_it():
    models = {name: built(name, *rest) for name, rest in CAUSAL.items()} | {n: tiny(n) for n in DECODERS}
    for name, model in models.items():
        before, last = changes_before(model)
        assert before < 1e-5 * last, name
        assert token_log_probs(model, IDS)[0][0, 1] == pytest.approx(
            token_log_probs(model, IDS[:, :3])[0][0, 1].item(), abs=1e-5
        )


def test_the_type_of_numbers_and_dropout_change_nothing():
    for dtype in (torch.float32, torch.bfloat16):
        decoder = built("Bert", *CAUSAL["Bert"]).to(dtype).train()
        check_causal(decoder, "this is a test")
        with pytest.raises(CourseError, match="a token also reads the tokens after it"):
            check_causal(built("Bert", *TWO_SIDED["Bert"]).to(dtype).train(), "this is a test")


def test_it_is_asked_under_every_mode_of_autograd():
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        decoder, bert = built("Bert", *CAUSAL["Bert"]), built("Bert", *TWO_SIDED["Bert"])
        with mode():
            check_causal(decoder, "this is a test")
            with pytest.raises(CourseError, match="BertLMHeadModel"):
                check_causal(bert, "this is a test")
    with torch.inference_mode():  # weights that allow no gradient at all
        perplexity(tiny_gpt2(vocabulary=24), IDS)


def test_the_model_stays_as_it_was():
    model = tiny_gpt2(vocabulary=24)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim > 1)
    check_causal(model, "this is a test")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [p.ndim > 1 for p in model.parameters()]
    assert not model.get_input_embeddings()._forward_hooks


def test_a_decoder_is_asked_once_and_a_refused_model_again():
    passes = []
    model = tiny_gpt2(vocabulary=24)
    model.register_forward_pre_hook(lambda module, args: passes.append(1))
    for _ in range(3):
        check_causal(model, "this is a test")
    assert len(passes) == 1
    model = built("RoFormer", *TWO_SIDED["RoFormer"])
    with pytest.raises(CourseError):
        check_causal(model, "this is a test")
    model.config.is_decoder = True  # RoFormer reads it in each pass
    check_causal(model, "this is a test")


def test_another_threads_passes_are_left_alone():
    model, seen = tiny_gpt2(vocabulary=24), []
    embed = model.get_input_embeddings().forward

    def meanwhile(ids):
        if threading.current_thread() is threading.main_thread():
            other = threading.Thread(target=lambda: seen.append(model(IDS).logits.shape))
            other.start()
            other.join()
        return embed(ids)

    model.get_input_embeddings().forward = meanwhile
    check_causal(model, "this is a test")
    assert seen == [(1, 4, 24)]


def test_everything_that_needs_a_decoder_refuses_the_others():
    gpt2 = load_tokenizer("gpt2", pad_token="<|endoftext|>")
    bert = built("Bert", "BertLMHeadModel", _BERT | {"vocab_size": 50257})
    t5 = tiny(ENCODER_DECODERS[0])
    uses = {
        "NextToken": lambda model: NextToken(model, gpt2, "My dog is"),
        "ScoredText": lambda model: ScoredText(model, gpt2, "My dog is"),
        "BeamTree": lambda model: BeamTree(model, gpt2, "My dog is"),
        "CacheGrowth": lambda model: CacheGrowth(model, gpt2),
        "MaskView": lambda model: MaskView(model, gpt2, ["My dog is"]),
        "PaddingGrid": lambda model: PaddingGrid({"it": (model, gpt2)}, ["My dog is"]),
        "GradientLink": lambda model: GradientLink(model),
        "sample": lambda model: sample(model, gpt2, "My dog is"),
        "Problem": lambda model: Problem(model, random_rewards(model.config.vocab_size, horizon=1)),
    }
    for use in uses.values():
        with pytest.raises(CourseError, match="a token also reads the tokens after it"):
            use(bert)
        with pytest.raises(CourseError, match="encoder-decoder"):
            use(t5)
