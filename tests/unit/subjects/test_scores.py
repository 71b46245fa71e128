"""course_utils.scores: held to transformers' own scores, to teacher forcing and to naive versions of each."""

import math
import types

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import T5Config, T5ForConditionalGeneration

from course_utils import CourseError, load
from course_utils.masks import position_ids
from course_utils.scores import (
    generated_lengths,
    next_token_log_probs,
    perplexity,
    sequence_scores,
    token_log_probs,
    transition_scores,
)
from tiny import tiny_gpt2

PAD = 0
ENDS = [4, 5, 6, 7, 8]  # many tokens that end a row, so that rows end early
RECORD = {
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_logits": True,
    "pad_token_id": PAD,
    "eos_token_id": ENDS,
    "max_new_tokens": 8,
}


@pytest.fixture(scope="module")
def model():
    model = tiny_gpt2(positions=64, vocabulary=24)
    model.transformer.wte.weight.data /= 6  # a soft distribution, in which every token has a chance
    return model


@pytest.fixture(scope="module")
def t5():
    torch.manual_seed(0)
    config = T5Config(
        d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=24, decoder_start_token_id=PAD
    )
    return T5ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def batch():
    """Four rows, two of them padded on the left."""
    input_ids = torch.tensor([[PAD, PAD, 1, 2], [9, 10, 11, 12], [PAD, 3, 14, 15], [20, 21, 22, 23]])
    return {"input_ids": input_ids, "attention_mask": (input_ids != PAD).long()}


def library(model, output, normalize, source="scores"):
    stored, beams = getattr(output, source), getattr(output, "beam_indices", None)
    return model.compute_transition_scores(output.sequences, stored, beams, normalize_logits=normalize)


def lengths_by_hand(output, prompt):
    """The lengths of rows that end with the first of ENDS: list of int."""
    rows = output.sequences[:, prompt:].tolist()
    return [next((at + 1 for at, token in enumerate(row) if token in ENDS), len(row)) for row in rows]


# ---- transition scores, greedy decoding and sampling


SETTINGS = {
    "greedy": {},
    "greedy with a processor": {"repetition_penalty": 1.7},
    "sampled": {"do_sample": True, "top_k": 0},
    "sampled and cut": {"do_sample": True, "top_k": 7, "temperature": 0.7, "top_p": 0.9},
    "several a prompt": {"do_sample": True, "num_return_sequences": 3},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("source", ["scores", "logits"])
@pytest.mark.parametrize("normalize", [True, False])
def test_equal_to_the_librarys_up_to_each_rows_end(model, batch, settings, source, normalize):
    torch.manual_seed(3)
    output = model.generate(**batch, **RECORD, **settings)
    ours = transition_scores(output, ENDS, normalize_logits=normalize, source=source)
    theirs = library(model, output, normalize, source)
    lengths = lengths_by_hand(output, prompt=4)
    assert ours.dtype == torch.float32
    assert ours.shape == theirs.shape
    for row, length in enumerate(lengths):
        torch.testing.assert_close(ours[row, :length], theirs[row, :length], rtol=0, atol=2e-5)
        assert (ours[row, length:] == 0).all()
    assert generated_lengths(output, ENDS).tolist() == lengths


def test_rows_that_ended_early_are_where_the_librarys_differ(model, batch):
    torch.manual_seed(1)
    output = model.generate(**batch, **RECORD, do_sample=True, num_return_sequences=2)
    lengths = generated_lengths(output, ENDS)
    early = (lengths < 8).nonzero().flatten()
    assert len(early) >= 2
    ours, theirs = transition_scores(output, ENDS), library(model, output, normalize=True)
    for row in early.tolist():
        assert theirs[row].sum() < ours[row].sum() - 1
    # Nothing ends a row: the padding counts, as the library has it.
    torch.testing.assert_close(transition_scores(output, ()), theirs, rtol=0, atol=2e-5)
    assert generated_lengths(output, ()).tolist() == [8] * 8


def test_one_end_may_be_an_int_or_a_tensor(model, batch):
    settings = RECORD | {"eos_token_id": 5}
    torch.manual_seed(0)
    output = model.generate(**batch, **settings, do_sample=True, num_return_sequences=4)
    lengths = generated_lengths(output, 5)
    assert lengths.min() < 8
    assert torch.equal(generated_lengths(output, torch.tensor([5])), lengths)
    torch.testing.assert_close(transition_scores(output, 5), transition_scores(output, [5]), rtol=0, atol=0)


def test_the_models_own_log_probabilities_by_teacher_forcing():
    model, tokenizer = load("tiny-llama")
    prompt = tokenizer("The capital of France is", return_tensors="pt").input_ids.to(model.device)
    settings = RECORD | {"eos_token_id": None, "do_sample": True, "top_k": 5, "temperature": 0.5}
    torch.manual_seed(0)
    output = model.generate(prompt, **settings)
    log_probs, _ = token_log_probs(model, output.sequences)
    raw = transition_scores(output, (), source="logits")
    torch.testing.assert_close(raw, log_probs[:, prompt.shape[1] :], rtol=0, atol=5e-5)
    processed = transition_scores(output, ())
    assert (processed > raw + 1).all()  # five tokens share what fifty thousand shared
    exact = [
        scores.double().log_softmax(-1)[0, token]
        for scores, token in zip(output.scores, output.sequences[0, prompt.shape[1] :], strict=True)
    ]
    torch.testing.assert_close(processed[0].double(), torch.stack(exact), rtol=0, atol=5e-6)


def test_generate_from_embeddings_returns_no_prompt(model, batch):
    embeddings = model.get_input_embeddings()(batch["input_ids"][1:2])
    output = model.generate(inputs_embeds=embeddings, **RECORD)
    known = model.generate(batch["input_ids"][1:2], **RECORD)
    torch.testing.assert_close(transition_scores(output, ENDS), transition_scores(known, ENDS))


# ---- beam search


@pytest.mark.parametrize("settings", [{}, {"repetition_penalty": 1.7}, {"do_sample": True, "top_k": 9}])
@pytest.mark.parametrize("normalize", [True, False])
def test_beams_equal_to_the_librarys(model, batch, settings, normalize):
    torch.manual_seed(0)
    output = model.generate(**batch, **RECORD, num_beams=3, num_return_sequences=2, **settings)
    ours = transition_scores(output, normalize_logits=normalize)
    torch.testing.assert_close(ours, library(model, output, normalize), rtol=0, atol=2e-5)
    assert torch.equal(generated_lengths(output), (output.beam_indices >= 0).sum(1))
    raw = transition_scores(output, source="logits")
    for row, length in enumerate(generated_lengths(output).tolist()):
        prompt = batch["input_ids"][row // 2]
        text = torch.cat([prompt[prompt != PAD], output.sequences[row, 4 : 4 + length]])
        log_probs, _ = token_log_probs(model, text[None])
        torch.testing.assert_close(raw[row, :length], log_probs[0, -length:], rtol=0, atol=2e-5)
        assert (ours[row, length:] == 0).all()


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
def test_sequence_scores_are_the_librarys(model, batch, length_penalty, early_stopping):
    settings = {"num_beams": 3, "num_return_sequences": 3, "length_penalty": length_penalty}
    early = 0
    for processors in ({}, {"repetition_penalty": 1.7}):
        output = model.generate(
            **batch, **RECORD | {"early_stopping": early_stopping}, **settings, **processors
        )
        ours = sequence_scores(output, length_penalty)
        torch.testing.assert_close(ours, output.sequences_scores, rtol=1e-6, atol=1e-5)
        early += (generated_lengths(output) < 8).sum().item()
    assert early > 0 or length_penalty > 1  # which makes long rows win
    wrong = transition_scores(output, normalize_logits=False).sum(1) / output.sequences.shape[1]
    assert (wrong - output.sequences_scores).abs().max() > 0.01


def test_without_beam_indices_the_librarys_are_of_other_beams(model, batch):
    output = model.generate(**batch, **RECORD, num_beams=3, num_return_sequences=3)
    silent = model.compute_transition_scores(output.sequences, output.scores)
    assert (silent - transition_scores(output, normalize_logits=False)).abs().max() > 1
    output["beam_indices"] = None
    for score in (transition_scores, generated_lengths, sequence_scores):
        with pytest.raises(CourseError, match="has no beam_indices"):
            score(output)


def test_greedy_rows_are_scored_by_the_same_rule(model, batch):
    output = model.generate(**batch, **RECORD)
    chosen, lengths = transition_scores(output, ENDS), generated_lengths(output, ENDS)
    torch.testing.assert_close(sequence_scores(output, 0, ENDS), chosen.sum(1))
    torch.testing.assert_close(sequence_scores(output, eos_token_id=ENDS), chosen.sum(1) / lengths)


# ---- encoder-decoder


@pytest.mark.parametrize("beams", [1, 3])
def test_an_encoder_decoders_ids_start_after_the_first(t5, batch, beams):
    torch.manual_seed(0)
    output = t5.generate(
        **batch, **RECORD, num_beams=beams, num_return_sequences=3, do_sample=beams == 1, early_stopping=True
    )
    lengths = generated_lengths(output, ENDS)
    assert lengths.tolist() == lengths_by_hand(output, prompt=1)
    assert lengths.min() < lengths.max() == output.sequences.shape[1] - 1
    ours = transition_scores(output, ENDS, normalize_logits=False)
    theirs = library(t5, output, normalize=False)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(ours[row, :length], theirs[row, :length], rtol=0, atol=2e-5)
    if beams > 1:
        torch.testing.assert_close(sequence_scores(output), output.sequences_scores, rtol=0, atol=1e-5)


# ---- any text


TEXTS = [
    "The capital of France is Paris.",
    "My dog",
    "It will rain in the morning, and in the evening as well.",
]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_log_probabilities_do_not_know_the_padding(name, side):
    model, tokenizer = load(name)
    tokenizer.pad_token = tokenizer.eos_token
    padded = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt")
    log_probs, scored = token_log_probs(model, **padded)
    assert log_probs.shape == scored.shape == padded.input_ids.shape
    assert log_probs.dtype == torch.float32
    assert (log_probs[~scored] == 0).all()
    naive, _ = token_log_probs(model, padded.input_ids)
    for row, text in enumerate(TEXTS):
        alone = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
        with torch.no_grad():
            logits = model(alone).logits[0]
        expected = logits[:-1].double().log_softmax(-1).gather(1, alone[0, 1:, None])[:, 0]
        torch.testing.assert_close(log_probs[row][scored[row]].double(), expected, rtol=0, atol=5e-5)
        assert scored[row].sum() == alone.shape[1] - 1
        places = padded.attention_mask[row].nonzero().flatten()
        assert scored[row].nonzero().flatten().tolist() == places[1:].tolist()
    if side == "left":  # without the mask the padding is text
        assert (naive - log_probs)[scored].abs().max() > 0.1


def built(config, kind, **settings):
    torch.manual_seed(0)
    return getattr(transformers, kind)(getattr(transformers, config)(vocab_size=60, **settings)).eval()


BERT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "initializer_range": 0.3, "is_decoder": True,
}  # fmt: skip


def test_positions_are_those_that_a_model_counts_itself():
    for name in ("Roberta", "Camembert", "XLMRoberta", "Data2VecText"):
        model = built(f"{name}Config", f"{name}ForCausalLM", **BERT)
        ids = torch.arange(4, 12)[None]
        with torch.no_grad():
            own = model(ids, labels=ids).loss.exp().item()
        assert perplexity(model, ids) == pytest.approx(own, rel=1e-4), name
    assert perplexity(built("RobertaConfig", "RobertaForCausalLM", **BERT), ids) == pytest.approx(
        494.77, rel=1e-3
    )


def test_padding_does_not_reach_a_model_that_ignores_the_mask():
    small = {"hidden_size": 32, "num_hidden_layers": 3, "initializer_range": 0.3}
    models = [
        built("RwkvConfig", "RwkvForCausalLM", hidden_size=32, num_hidden_layers=2),
        built(
            "RecurrentGemmaConfig", "RecurrentGemmaForCausalLM",
            num_attention_heads=4, lru_width=32, intermediate_size=64, **small,
        ),
        built("XLMConfig", "XLMWithLMHeadModel", emb_dim=32, n_layers=2, n_heads=4, causal=True),
        built("RoFormerConfig", "RoFormerForCausalLM", **BERT),
        built(
            "TrOCRConfig", "TrOCRForCausalLM",
            d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64, init_std=0.3,
        ),
        built("RobertaConfig", "RobertaForCausalLM", **BERT),
        built("MambaConfig", "MambaForCausalLM", hidden_size=32, num_hidden_layers=2, state_size=4),
    ]  # fmt: skip
    text, other = torch.arange(4, 12)[None], torch.arange(20, 33)[None]
    for model in models:
        for parameter in model.parameters():  # so that a token left of the text would show
            if parameter.ndim > 1:
                parameter.data.mul_(1.5)
        alone, _ = token_log_probs(model, text)
        padding = torch.full((1, 5), 2)
        for ids, place in (
            (torch.cat([padding, text], 1), slice(5, None)), (torch.cat([text, padding], 1), slice(0, 8))
        ):  # fmt: skip
            batch = torch.cat([ids, other])
            mask = torch.ones_like(batch)
            mask[0] = 0
            mask[0, place] = 1
            together, scored = token_log_probs(model, batch, mask)
            torch.testing.assert_close(
                together[0, place], alone[0], rtol=0, atol=1e-4, msg=type(model).__name__
            )
            assert scored[0].sum() == 7


def test_what_is_expected_is_of_the_next_place(model):
    input_ids = torch.tensor([[0, 0, 7, 3, 9], [5, 1, 2, 3, 4]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    expected = next_token_log_probs(model, input_ids, mask)
    assert (expected.shape, expected.dtype) == ((2, 5, 24), torch.float32)
    torch.testing.assert_close(expected.exp().sum(-1), torch.ones(2, 5, device=expected.device))
    log_probs, _ = token_log_probs(model, input_ids, mask)
    assert expected[0, 2, 3] == log_probs[0, 3] < 0
    assert expected[1, 3, 4] == log_probs[1, 4] < 0


def test_a_mask_may_be_boolean_or_a_list(model):
    input_ids = torch.tensor([[0, 1, 2], [3, 4, 5]])
    mask = [[0, 1, 1], [1, 1, 1]]
    expected = token_log_probs(model, input_ids, torch.tensor(mask))
    for other in (mask, torch.tensor(mask).bool(), torch.tensor(mask, dtype=torch.int32)):
        torch.testing.assert_close(token_log_probs(model, input_ids, other), expected)


def test_perplexity_weighs_tokens_and_never_counts_padding():
    model, tokenizer = load("tiny-gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    for side in ("left", "right"):
        padded = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt").to(model.device)
        labels = padded.input_ids.masked_fill(padded.attention_mask == 0, -100)
        labels[range(3), padded.attention_mask.argmax(1)] = -100  # on the left, padding would predict it
        with torch.no_grad():
            logits = model(**padded, position_ids=position_ids(padded.attention_mask)).logits
        expected = exp_of_mean_loss(logits, labels)
        found = perplexity(model, **padded)
        assert found == pytest.approx(expected, rel=1e-4)
        assert found != pytest.approx(exp_of_mean_loss(logits, padded.input_ids), rel=0.01)
    rows = [perplexity(model, tokenizer(text, return_tensors="pt").input_ids) for text in TEXTS]
    for wrong in (sum(rows) / 3, math.exp(sum(map(math.log, rows)) / 3)):  # every row counts once
        assert found != pytest.approx(wrong, rel=1e-3)


def exp_of_mean_loss(logits, labels):
    """The usual way: the mean of torch's cross-entropy over what is not labelled -100."""
    return cross_entropy(logits[:, :-1].flatten(0, 1).double(), labels[:, 1:].flatten()).exp().item()


def test_a_model_that_knows_nothing_is_as_surprised_as_by_a_die():
    model = tiny_gpt2(vocabulary=24)
    model.transformer.wte.weight.data.zero_()
    assert perplexity(model, torch.tensor([[1, 2, 3], [4, 5, 6]])) == pytest.approx(24)


def test_a_perplexity_beyond_every_float_is_infinite():
    model = tiny_gpt2(vocabulary=24)
    model.transformer.ln_f.weight.data *= 1e5
    assert perplexity(model, torch.tensor([[9, 10, 11], [12, 13, 14]])) == math.inf


# ---- what is refused


def without(output, **parts):
    """The output with other parts: what an older or a cut record looks like."""
    return types.SimpleNamespace(**{**output, **parts})


def test_an_output_without_a_record_says_what_to_pass(model, batch):
    ids = model.generate(batch["input_ids"], eos_token_id=ENDS, pad_token_id=PAD, max_new_tokens=2)
    with pytest.raises(
        CourseError, match=r"given Tensor.*return_dict_in_generate=True and output_scores=True"
    ):
        transition_scores(ids, ENDS)
    quiet = RECORD | {"output_scores": False, "output_logits": False}
    output = model.generate(**batch, **quiet)
    with pytest.raises(CourseError, match=r"holds no scores. Pass output_scores=True"):
        transition_scores(output, ENDS)
    with pytest.raises(CourseError, match=r"holds no logits. Pass output_logits=True"):
        transition_scores(output, ENDS, source="logits")
    with pytest.raises(CourseError, match=r"'probs' is not a source. Give 'scores'"):
        transition_scores(output, ENDS, source="probs")


def test_who_ends_a_row_must_be_said(model, batch):
    output = model.generate(**batch, **RECORD)
    for score in (transition_scores, generated_lengths, sequence_scores):
        with pytest.raises(CourseError, match=r"eos_token_id=tokenizer.eos_token_id, or eos_token_id=\(\)"):
            score(output)


def test_parts_of_two_runs_do_not_fit(model, batch):
    greedy = model.generate(**batch, **RECORD)
    beams = model.generate(**batch, **RECORD, num_beams=2)
    wrong = [
        without(greedy, sequences=greedy.sequences[:2]),
        without(greedy, sequences=greedy.sequences[:, -3:]),
        without(beams, sequences=beams.sequences[:2]),
        without(beams, scores=beams.scores[:1]),
        without(beams, beam_indices=beams.beam_indices + 8),
        without(greedy, beam_indices=beams.beam_indices),
    ]
    for output in wrong:
        with pytest.raises(CourseError, match="The output does not fit together"):
            transition_scores(output, ENDS)


@pytest.mark.parametrize("penalty", ["1", None, True, math.nan, math.inf])
def test_a_length_penalty_is_a_number(model, batch, penalty):
    output = model.generate(**batch, **RECORD, num_beams=2)
    with pytest.raises(CourseError, match=r"The length penalty is .*, not a number"):
        sequence_scores(output, penalty)


BAD_TEXTS = [
    (torch.tensor([[5]]), None, "Row 0 has one token, and a row's first token has no probability"),
    (torch.tensor([[1, 2, 3], [4, 0, 0]]), [[1, 1, 1], [1, 0, 0]], "Row 1 has one token"),
    (
        torch.tensor([1, 2, 3]),
        None,
        r"LongTensor \[batch, length\], and this is torch.int64 of the shape \(3,\)",
    ),
    (torch.tensor([[1.0, 2.0]]), None, "this is torch.float32"),
    ([[1, 2]], None, "this is list"),
    (torch.tensor([[1, 24]]), None, "input_ids holds 24, and this model's ids go from 0 to 23"),
    (torch.tensor([[1, -100]]), None, "input_ids holds -100"),
    (torch.ones(1, 65, dtype=torch.long), None, "Row 0 has 65 tokens, and the model has 64 positions"),
    (torch.tensor([[1, 2, 3]]), [[1, 1]], r"has the shape \(1, 2\), the ids have \(1, 3\)"),
    (torch.tensor([[1, 2, 3]]), [[0, 0, 0]], "has no 1"),
    (torch.tensor([[1, 2, 3]]), [[1, 0, 1]], "padding between its tokens"),
]


@pytest.mark.parametrize(("input_ids", "mask", "sentence"), BAD_TEXTS)
def test_texts_that_cannot_be_scored(model, input_ids, mask, sentence):
    for score in (next_token_log_probs, token_log_probs, perplexity):
        with pytest.raises(CourseError, match=sentence):
            score(model, input_ids, mask)


def test_padding_does_not_count_against_the_positions(model):
    input_ids = torch.ones(1, 70, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    mask[0, -5:] = 1
    alone, _ = token_log_probs(model, input_ids[:, -5:])
    torch.testing.assert_close(token_log_probs(model, input_ids, mask)[0][:, -5:], alone)


def test_an_encoder_decoder_reads_no_text(t5):
    with pytest.raises(CourseError, match="is an encoder-decoder model, and a token is scored"):
        token_log_probs(t5, torch.tensor([[1, 2]]))


def test_reading_a_text_leaves_no_graph_and_no_mode(model):
    model.train()
    try:
        log_probs, _ = token_log_probs(model, torch.tensor([[1, 2, 3]]))
        assert model.training
        assert not log_probs.requires_grad
    finally:
        model.eval()
