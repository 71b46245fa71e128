"""Lesson 04: its checks against right and wrong answers, its questions against their proofs, and its rebuilt
forward pass against transformers, on other configurations than the lesson's."""

import ast
import copy
import functools
import inspect

import numpy
import pytest
import torch
from torch.nn.functional import gelu
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from course_utils.lessons import lesson04
from course_utils.lessons.lesson04 import forward_pass
from course_utils.lessons.lesson04.forward_mistakes import (
    WRONG_ATTENTION,
    WRONG_PASSES,
    attention_with,
    pass_with,
)
from course_utils.lessons.lesson04.kv_cache import tiny
from course_utils.lessons.lesson04.parameter_count import SMOLLM2, on_meta
from course_utils.masks import additive_mask, joined_mask, pad, position_ids
from lesson_code import SOURCES, definitions
from lesson_source import read_source
from prove import private_progress, prove_exercise, prove_questions, stub


@pytest.fixture(autouse=True)
def no_gradients():  # as in the lesson
    with torch.no_grad():
        yield


def test_questions():
    assert len(prove_questions(lesson04)) == 10


# ---- the lesson's own functions ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def forward():
    """The lesson's forward pass with a cache, put together from its cells."""
    known = {"torch": torch, "gelu": gelu, "position_ids": position_ids}
    known |= {"additive_mask": additive_mask, "joined_mask": joined_mask}
    return definitions("04", *PARTS, **known)[-1]


PARTS = ("embed", "norm", "linear", "split_heads", "project", "mlp", "attention", "forward")


@pytest.mark.parametrize("name", [*PARTS, "Cache"])
def test_the_course_runs_on_what_the_lesson_shows(name):
    assert shown_body(lesson_definition(name)) == shown_body(
        ast.parse(inspect.getsource(getattr(forward_pass, name))).body[0]
    )


def lesson_definition(name):
    """The lesson's last definition of a function or class, the solution and not the stub."""
    (path,) = SOURCES.glob("04_*.py")
    cells = [
        cell
        for cell in read_source(path)
        if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", [])
    ]
    nodes = [node for cell in cells for node in ast.parse(cell.source).body]
    return [node for node in nodes if getattr(node, "name", None) == name][-1]


def shown_body(definition):
    """The statements of a function or class as text, without docstrings."""
    for node in ast.walk(definition):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return [ast.unparse(statement).replace(", strict=True", "") for statement in definition.body]


def random_gpt2(**options):
    """A GPT-2 in float64, all its vectors random too, and its weights as the lesson names them."""
    sizes = {"vocab_size": 90, "n_positions": 40, "n_embd": 24, "n_layer": 3, "n_head": 3}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, **options)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).double().eval()
    for weight in model.parameters():
        weight += 0.3 * torch.randn_like(weight)
    return model, {name.removeprefix("transformer."): weight for name, weight in model.state_dict().items()}


ROWS = ([5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17, 18])
MODELS = [{}, {"n_inner": 40}, {"attn_implementation": "eager"}]


@pytest.mark.parametrize("options", MODELS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_rebuilt_logits_are_the_librarys_on_padded_batches(forward, options, side):
    model, weights = random_gpt2(**options)
    input_ids, mask = pad(ROWS, 0, side)
    theirs = model(input_ids, attention_mask=mask, position_ids=position_ids(mask)).logits
    ours = forward(weights, model.config, input_ids, mask)
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], atol=1e-10, rtol=0)


@pytest.mark.parametrize("options", MODELS)
@pytest.mark.parametrize("pieces", [(7,), (4, 3), (1,) * 7, (2, 1, 4)])
def test_rebuilt_logits_are_the_librarys_in_any_pieces(forward, options, pieces):
    model, weights = random_gpt2(**options)
    ids = torch.tensor([ROWS[0]])
    ours, cache, theirs = [], forward_pass.Cache(), []
    library_cache = DynamicCache(config=model.config)
    for new in ids.split(pieces, dim=1):
        mask = torch.ones(1, library_cache.get_seq_length() + new.shape[1], dtype=torch.long)
        ours.append(forward(weights, model.config, new, mask, cache))
        theirs.append(model(new, attention_mask=mask, cache=library_cache).logits)
    whole = model(ids).logits
    torch.testing.assert_close(torch.cat(ours, 1), torch.cat(theirs, 1), atol=1e-10, rtol=0)
    torch.testing.assert_close(torch.cat(ours, 1), whole, atol=1e-10, rtol=0)
    keys, values = cache.kept["h.2.attn"]
    torch.testing.assert_close(keys, library_cache.layers[2].keys, atol=1e-10, rtol=0)
    torch.testing.assert_close(values, library_cache.layers[2].values, atol=1e-10, rtol=0)


@pytest.mark.parametrize("left_out", ["weight", "bias"])
@pytest.mark.parametrize("part", ["ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"])
def test_every_weight_counts(forward, part, left_out):
    model, weights = random_gpt2()
    ids = torch.tensor([ROWS[0]])
    weights[f"h.1.{part}.{left_out}"] = torch.zeros_like(weights[f"h.1.{part}.{left_out}"])
    ours = forward(weights, model.config, ids, torch.ones_like(ids))
    assert not torch.allclose(ours, model(ids).logits, atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"n_layer": 3, "n_embd": 48}, {"n_inner": 100, "n_positions": 7}])
def test_terms_of_the_lesson(options):
    (terms,) = definitions("04", "gpt2_terms")
    model = on_meta("GPT2", **options)
    assert sum(terms(model.config).values()) == model.num_parameters()


def test_cost_of_the_lesson_is_the_tensors_size():
    (bytes_a_token,) = definitions("04", "bytes_a_token")
    for name in ("tiny-gpt2", "tiny-llama"):
        model, _ = tiny(name)
        layers = model(torch.ones(1, 3, dtype=torch.long, device=model.device)).cache.layers
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
        assert held == 3 * bytes_a_token(model.config)


# ---- exercise 1 --------------------------------------------------------------------------------------


def count(config, **wrong):
    """The right number, with single terms changed: `wrong` names a term and what takes its place."""
    width, size, layers = config.hidden_size, config.head_dim, config.num_hidden_layers
    heads, kept = config.num_attention_heads, config.num_key_value_heads
    table = config.vocab_size * width
    terms = {
        "table": table,
        "head": 0 if config.tie_word_embeddings else table,
        "q": layers * width * heads * size,
        "k": layers * width * kept * size,
        "v": layers * width * kept * size,
        "o": layers * width * heads * size,
        "gate": layers * width * config.intermediate_size,
        "up": layers * width * config.intermediate_size,
        "down": layers * width * config.intermediate_size,
        "norms": 2 * layers * width,
        "last norm": width,
        "more": 0,
    }
    assert set(wrong) <= set(terms)
    return sum((terms | wrong).values())


def from_model(config):
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        return sum(weight.numel() for weight in LlamaForCausalLM(config).parameters())


def as_numpy_counts(config):
    return numpy.int64(count(config))


def as_float(config):
    return float(count(config))


def head_counted(config):
    return count(config, head=config.vocab_size * config.hidden_size)


def always_tied(config):
    return count(config, head=0)


def no_table(config):
    return count(config, table=0)


def keys_with_all_heads(config):
    size = config.num_hidden_layers * config.hidden_size * config.num_attention_heads * config.head_dim
    return count(config, k=size, v=size)


def queries_with_few_heads(config):
    size = config.num_hidden_layers * config.hidden_size * config.num_key_value_heads * config.head_dim
    return count(config, q=size, o=size)


def two_in_the_mlp(config):
    return count(config, gate=0)


def no_output(config):
    return count(config, o=0)


def no_values(config):
    return count(config, v=0)


def no_last_norm(config):
    return count(config, **{"last norm": 0})


def no_norms(config):
    return count(config, norms=0, **{"last norm": 0})


def last_norm_only(config):
    return count(config, norms=0)


def one_norm_a_layer(config):
    return count(config, norms=config.num_hidden_layers * config.hidden_size)


def norms_with_shift(config):
    return count(config, more=(2 * config.num_hidden_layers + 1) * config.hidden_size)


def with_biases(config):
    size = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    layer = size + 2 * config.intermediate_size + 2 * config.hidden_size
    return count(config, more=config.num_hidden_layers * layer)


def with_positions(config):
    return count(config, more=config.max_position_embeddings * config.hidden_size)


def one_layer(config):
    single = copy.deepcopy(config)
    single.num_hidden_layers = 1
    return count(single)


def size_from_width(config):
    other = copy.deepcopy(config)
    other.head_dim = config.hidden_size // config.num_attention_heads
    return count(other)


def square_matrices(config):
    size = config.num_hidden_layers * config.hidden_size**2
    return count(config, q=size, o=size)


def smollm2_only(config):
    return 134_515_008


def terms(config):
    return {"all": count(config)}


def test_llama_parameters():
    prove_exercise(
        lesson04.check_llama_parameters,
        right=[count, from_model, as_float, as_numpy_counts],
        wrong=[
            (head_counted, "one token table too many"),
            (always_tied, "this head is not tied"),
            (no_table, "the token table is missing"),
            (keys_with_all_heads, "not `num_attention_heads`"),
            (queries_with_few_heads, "have all `num_attention_heads`"),
            (two_in_the_mlp, "a matrix of the MLP is missing"),
            (no_output, "`q_proj` or `o_proj`."),
            (no_values, "`k_proj` or `v_proj`."),
            (no_last_norm, "the norm after the last layer is missing"),
            (no_norms, "all norms are missing"),
            (last_norm_only, "the norms of the layers are missing"),
            (one_norm_a_layer, "here it has one"),
            (norms_with_shift, "a scale and no shift"),
            (with_biases, "biases are counted"),
            (with_positions, "a position table is counted"),
            (one_layer, "only one layer is counted"),
            (size_from_width, "a head's size is `head_dim`"),
            (square_matrices, "the two are not equal"),
            (smollm2_only, "part by part"),
            (terms, "return one number"),
        ],
    )


def test_count_of_the_exercise_is_smollm2s():
    assert on_meta("Llama", **SMOLLM2).num_parameters() == 134_515_008


# ---- exercises 2 and 3 -------------------------------------------------------------------------------


def own_steps(x, weights, name, heads, mask, cache=None):
    """Without the lesson's helpers: einsum, masked_fill instead of adding, one matrix a head."""
    width = x.shape[-1]
    query, key, value = (x @ weights[f"{name}.c_attn.weight"] + weights[f"{name}.c_attn.bias"]).split(
        width, dim=-1
    )
    query, key, value = (
        part.reshape(*part.shape[:2], heads, -1).permute(0, 2, 1, 3) for part in (query, key, value)
    )
    if cache is not None:
        key, value = cache.update(name, key, value)
    scores = torch.einsum("bhqs,bhks->bhqk", query, key) * query.shape[-1] ** -0.5
    mixing = scores.masked_fill(mask < 0, torch.finfo(scores.dtype).min).softmax(-1)
    joined = torch.cat([(mixing @ value)[:, head] for head in range(heads)], dim=-1)
    return joined @ weights[f"{name}.c_proj.weight"] + weights[f"{name}.c_proj.bias"]


def by_sdpa(x, weights, name, heads, mask, cache=None):
    query, key, value = forward_pass.project(x, weights, name, heads, cache)
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(x.dtype))
    return forward_pass.linear(mixed.transpose(1, 2).flatten(2), weights, f"{name}.c_proj")


def attends(**wrong):
    def answer(x, weights, name, heads, mask, cache=None):
        if cache is not None:
            return forward_pass.attention(x, weights, name, heads, mask, cache)
        return attention_with(x, weights, name, mask, **wrong)

    return answer


def cache_forgotten(x, weights, name, heads, mask, cache=None):
    return forward_pass.attention(x, weights, name, heads, mask[..., -x.shape[1] :])


def kept_twice(x, weights, name, heads, mask, cache=None):
    forward_pass.project(x, weights, name, heads, cache)
    return forward_pass.attention(x, weights, name, heads, mask[..., : x.shape[1]])


def kept_under_one_name(x, weights, name, heads, mask, cache=None):
    query, key, value = forward_pass.project(x, weights, name, heads)
    if cache is not None:
        key, value = cache.update("attn", key, value)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask
    return forward_pass.linear(
        (scores.softmax(-1) @ value).transpose(1, 2).flatten(2), weights, f"{name}.c_proj"
    )


def heads_apart(x, weights, name, heads, mask, cache=None):
    query, key, value = forward_pass.project(x, weights, name, heads, cache)
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask).softmax(-1) @ value


def weights_only(x, weights, name, heads, mask, cache=None):
    query, key, _ = forward_pass.project(x, weights, name, heads, cache)
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask).softmax(-1)


def heads_joined_too_early(x, weights, name, heads, mask, cache=None):
    return heads_apart(x, weights, name, heads, mask, cache).flatten(2)


def two_results(x, weights, name, heads, mask, cache=None):
    return forward_pass.attention(x, weights, name, heads, mask, cache), None


def attention_of_zeros(x, weights, name, heads, mask, cache=None):
    return torch.zeros_like(x)


def attention_of_nan(x, weights, name, heads, mask, cache=None):
    query, key, value = forward_pass.project(x, weights, name, heads, cache)
    scores = (query @ key.transpose(-1, -2)).masked_fill(mask == 0, float("-inf"))
    return forward_pass.linear(
        (scores.softmax(-1) @ value).transpose(1, 2).flatten(2), weights, f"{name}.c_proj"
    )


def raises(x, weights, name, heads, mask, cache=None):
    return weights["c_attn"]


def test_attention():
    prove_exercise(
        lesson04.check_attention,
        right=[forward_pass.attention, own_steps, by_sdpa],
        wrong=[
            *((attends(**wrong), sentence.partition(".")[0]) for wrong, sentence in WRONG_ATTENTION),
            (cache_forgotten, "`cache` is not handed on: `project"),
            (kept_under_one_name, "and holds something else"),
            (kept_twice, "with 3 cached tokens and 2 new ones it is not"),
            (heads_apart, "the heads are still apart"),
            (weights_only, "these are the weights of attention"),
            (heads_joined_too_early, "were not moved back before they were joined"),
            (two_results, "return the layer's result alone"),
            (attention_of_zeros, "is not that of gpt-2's layer"),
            (attention_of_nan, "the result has nan"),
            (raises, "`weights of 41 names`"),
        ],
    )


def with_a_list_of_blocks(weights, config, input_ids, attention_mask, cache=None):
    x = forward_pass.embed(weights, input_ids, attention_mask)
    mask = additive_mask(joined_mask(attention_mask, queries=input_ids.shape[1]), torch.float64)

    def block(x, name):
        middle = x + own_steps(
            forward_pass.norm(x, weights, f"{name}.ln_1"), weights, f"{name}.attn", config.n_head, mask, cache
        )
        return middle + forward_pass.mlp(
            forward_pass.norm(middle, weights, f"{name}.ln_2"), weights, f"{name}.mlp"
        )

    x = functools.reduce(block, [f"h.{layer}" for layer in range(config.n_layer)], x)
    last = torch.nn.functional.layer_norm(x, x.shape[-1:], weights["ln_f.weight"], weights["ln_f.bias"])
    return torch.nn.functional.linear(last, weights["lm_head.weight"])


def passes(**wrong):
    def answer(weights, config, input_ids, attention_mask, cache=None):
        if cache is not None:
            return forward_pass.forward(weights, config, input_ids, attention_mask, cache)
        return pass_with(weights, config, input_ids, attention_mask, **wrong)

    return answer


def pass_without_cache(weights, config, input_ids, attention_mask, cache=None):
    return forward_pass.forward(weights, config, input_ids, attention_mask[:, -input_ids.shape[1] :])


def first_layers_cache(weights, config, input_ids, attention_mask, cache=None):
    logits = forward_pass.forward(weights, config, input_ids, attention_mask[:, -input_ids.shape[1] :])
    if cache is not None:
        forward_pass.forward(weights, config, input_ids, attention_mask, cache)
    return logits


def hidden_states(weights, config, input_ids, attention_mask, cache=None):
    return forward_pass.embed(weights, input_ids, attention_mask)


def last_row(weights, config, input_ids, attention_mask, cache=None):
    return forward_pass.forward(weights, config, input_ids, attention_mask, cache)[:, -1]


def logits_in_a_dictionary(*arguments):
    return {"logits": forward_pass.forward(*arguments)}


def logits_of_zero(weights, config, input_ids, attention_mask, cache=None):
    return torch.zeros(*input_ids.shape, config.vocab_size)


def test_forward():
    prove_exercise(
        lesson04.check_forward,
        right=[forward_pass.forward, with_a_list_of_blocks],
        wrong=[
            *((passes(**wrong), sentence) for wrong, sentence in WRONG_PASSES),
            (pass_without_cache, "`cache` is not handed on to `attention`"),
            (first_layers_cache, "with 4 cached tokens and 2 new ones they are not"),
            (hidden_states, "the head is still missing"),
            (last_row, "return those of every index"),
            (logits_in_a_dictionary, "return the logits, a tensor"),
            (logits_of_zero, "the logits are not gpt-2's"),
        ],
    )


def test_later_cells_run_on_an_answer_that_passes(capsys):
    with private_progress():
        assert lesson04.usable_attention(own_steps) is own_steps
        assert lesson04.usable_forward(with_a_list_of_blocks, own_steps) is with_a_list_of_blocks
    assert (
        capsys.readouterr().out
        == "The cells below run on your attention().\nThe cells below run on your forward().\n"
    )


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("answer", [stub, attends(scale=1.0)])
def test_later_cells_run_on_the_courses_own_where_an_answer_does_not_pass(answer, strict, capsys):
    with private_progress(strict):
        attention = lesson04.usable_attention(answer)
        forward = lesson04.usable_forward(stub, own_steps)
        assert lesson04.usable_attention(attention).func is forward_pass.attention
    assert "the course's own attention() until yours passes" in capsys.readouterr().out
    model, weights = random_gpt2()
    ids = torch.tensor([ROWS[0]])
    ours = forward(weights, model.config, ids, torch.ones_like(ids))
    torch.testing.assert_close(ours, model(ids).logits, atol=1e-10, rtol=0)
    assert forward.keywords == {"attention": own_steps}


def test_the_courses_own_functions_are_no_answers():
    with private_progress():
        attention = lesson04.usable_attention(stub)
        assert lesson04.check_attention(attention).outcome == "not yet"
        assert lesson04.check_forward(lesson04.usable_forward(stub, attention)).outcome == "not yet"


# ---- exercise 4 --------------------------------------------------------------------------------------


def by_given(model, input_ids, steps):
    cache, given, chosen = None, input_ids, []
    for _ in range(steps):
        out = model(given, cache=cache, use_cache=True)
        cache, given = out.cache, out.logits[:, -1:].argmax(-1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def by_slices_with_a_mask(model, input_ids, steps):
    cache, ids = DynamicCache(config=model.config), input_ids
    for _ in range(steps):
        new = ids[:, cache.get_seq_length() :]
        out = model(input_ids=new, attention_mask=torch.ones_like(ids), cache=cache)
        ids = torch.cat([ids, out.logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids[:, input_ids.shape[1] :]


def prefilled_first(model, input_ids, steps):
    out = model(input_ids)
    chosen = [out.logits[0, -1].argmax().item()]
    while len(chosen) < steps:
        out = model(input_ids.new_tensor([chosen[-1:]]), cache=out.cache)
        chosen.append(out.logits[0, -1].argmax().item())
    return [chosen]


def one_pass_more(model, input_ids, steps):
    out, chosen = model(input_ids), []
    for _ in range(steps):
        chosen.append(out.logits[:, -1:].argmax(-1))
        out = model(chosen[-1], cache=out.cache)
    return torch.cat(chosen, dim=1)


def head_by_hand(model, input_ids, steps):
    cache, given, chosen = None, input_ids, []
    for _ in range(steps):
        out = model.base_model(given, cache=cache, use_cache=True)
        cache, given = out.cache, model.lm_head(out.last_hidden_state[:, -1:]).argmax(-1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def by_vectors(model, input_ids, steps):
    cache, given, chosen = None, input_ids, []
    for _ in range(steps):
        out = model(inputs_embeds=model.get_input_embeddings()(given), cache=cache, use_cache=True)
        cache, given = out.cache, out.logits[:, -1:].argmax(-1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def always_from_position_0(model, input_ids, steps):
    cache, given, chosen = None, input_ids, []
    for _ in range(steps):
        places = torch.arange(given.shape[1], device=given.device)[None]
        out = model(given, position_ids=places, cache=cache, use_cache=True)
        cache, given = out.cache, out.logits[:, -1:].argmax(-1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def without_cache(model, input_ids, steps):
    ids = input_ids
    for _ in range(steps):
        ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return ids[:, input_ids.shape[1] :]


def first_lost(model, input_ids, steps):
    out = model(input_ids)
    cache, given, chosen = out.cache, out.logits[:, -1:].argmax(-1), []
    for _ in range(steps):
        given = model(given, cache=cache).logits[:, -1:].argmax(-1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def last_id_again(model, input_ids, steps):
    cache, given, chosen = model(input_ids).cache, input_ids[:, -1:], []
    for _ in range(steps):
        given = model(given, cache=cache).logits[:, -1:].argmax(-1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def forgetful(model, input_ids, steps):
    given, chosen = input_ids, []
    for _ in range(steps):
        given = model(given).logits[:, -1:].argmax(-1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def read_twice(model, input_ids, steps):
    cache, ids = None, input_ids
    for _ in range(steps):
        out = model(ids, cache=cache, use_cache=True)
        cache, ids = out.cache, torch.cat([ids, out.logits[:, -1:].argmax(-1)], dim=1)
    return ids[:, input_ids.shape[1] :]


def always_the_prompts_cache(model, input_ids, steps):
    out = model(input_ids)
    cache, given, chosen = out.cache, out.logits[:, -1:].argmax(-1), []
    for _ in range(steps):
        chosen.append(given)
        given = model(given, cache=copy.deepcopy(cache)).logits[:, -1:].argmax(-1)
    return torch.cat(chosen, dim=1)


def read_at_the_first_place(model, input_ids, steps):
    cache, given, chosen = None, input_ids, []
    for _ in range(steps):
        out = model(given, cache=cache, use_cache=True)
        cache, given = out.cache, out.logits[:, :1].argmax(-1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def prompt_goes_in_again(model, input_ids, steps):
    cache, given, chosen = None, input_ids, []
    for _ in range(steps):
        out = model(given, cache=cache, use_cache=True)
        cache, given = out.cache, input_ids[:, -1:]
        chosen.append(out.logits[:, -1:].argmax(-1))
    return torch.cat(chosen, dim=1)


def with_one_mask(model, input_ids, steps, columns=None):
    cache, given, chosen = None, input_ids, []
    mask = torch.ones_like(input_ids)
    for _ in range(steps):
        out = model(given, attention_mask=mask, cache=cache, use_cache=True)
        cache, given = out.cache, out.logits[:, -1:].argmax(-1)
        mask = mask[:, :columns]
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def with_a_mask_of_the_new_id(model, input_ids, steps):
    return with_one_mask(model, input_ids, steps, columns=1)


def token_by_token(model, input_ids, steps):
    cache = DynamicCache(config=model.config)
    for one in input_ids.split(1, dim=1):
        out = model(one, cache=cache)
    chosen = []
    for _ in range(steps):
        chosen.append(out.logits[:, -1:].argmax(-1))
        out = model(chosen[-1], cache=cache)
    return torch.cat(chosen, dim=1)


def last_id_only(model, input_ids, steps):
    return by_given(model, input_ids[:, -1:], steps)


def with_the_prompt(model, input_ids, steps):
    return torch.cat([input_ids, by_given(model, input_ids, steps)], dim=1)


def one_too_few(model, input_ids, steps):
    return by_given(model, input_ids, steps + 1)[:, 2:]


def flat(model, input_ids, steps):
    return by_given(model, input_ids, steps)[0]


def as_logits(model, input_ids, steps):
    return by_given(model, input_ids, steps).float()


def ragged(model, input_ids, steps):
    return [by_given(model, input_ids, steps).tolist(), []]


def all_from_one_pass(model, input_ids, steps):
    return model(input_ids).logits[:, -1].topk(steps).indices


def never_called(model, input_ids, steps):
    return torch.zeros(1, steps, dtype=torch.long)


def generated(model, input_ids, steps):
    return model.generate(input_ids, max_new_tokens=steps, do_sample=False)[:, input_ids.shape[1] :]


def test_decode():
    prove_exercise(
        lesson04.check_decode,
        right=[by_given, by_slices_with_a_mask, prefilled_first, one_pass_more, head_by_hand, by_vectors],
        wrong=[
            (without_cache, "the whole text again"),
            (forgetful, "it does not know the prompt"),
            (read_twice, "the text is read twice"),
            (first_lost, "the first new token is lost"),
            (last_id_again, "the prompt's last id is read twice"),
            (always_the_prompts_cache, "without anything written since"),
            (read_at_the_first_place, "even the first id is different"),
            (always_from_position_0, "has position 0, after 7 cached tokens"),
            (prompt_goes_in_again, "it should be the one that was chosen last."),
            (with_one_mask, "in pass 2 there are 8 keys, but the mask has 7 columns"),
            (token_by_token, "read the whole prompt in one pass"),
            (last_id_only, "ids of the prompt, which has"),
            (with_the_prompt, "the prompt is in the result"),
            (one_too_few, "should have the shape (1, 5); got (1, 4)"),
            (flat, "got (5,)"),
            (as_logits, "got torch.float32"),
            (ragged, "`torch.cat(chosen, dim=1)`"),
            (all_from_one_pass, "the model ran one pass"),
            (never_called, "the model ran no pass"),
            (generated, "this calls `generate()`"),
        ],
    )


# ---- exercise 5 --------------------------------------------------------------------------------------


def log_probs(predicting, ending):
    ids = torch.tensor([ending], device=predicting.device)
    return predicting.log_softmax(-1).gather(-1, ids[..., None])


def scores(model, prompt_ids, endings, left=len, reduce=torch.sum, predicting=None, copied=False):
    """The solution, with its parts replaced. left: how many places to cut off, from the ending."""
    out = model(prompt_ids, use_cache=True)
    cache, found = out.cache, []
    for ending in endings:
        own = copy.deepcopy(cache) if copied else cache
        logits = model(torch.tensor([ending], device=model.device), cache=own).logits
        if not copied:
            cache.crop(-left(ending))
        read = (predicting or shifted)(out.logits[:, -1:], logits)
        found.append(reduce(log_probs(read, ending)).item())
    return found


def shifted(after_prompt, logits):
    return torch.cat([after_prompt, logits[:, :-1]], dim=1)


def copied(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, copied=True)


def as_tensor(model, prompt_ids, endings):
    return torch.tensor(scores(model, prompt_ids, endings))


def without_the_last_id(model, prompt_ids, endings):
    out = model(prompt_ids, use_cache=True)
    cache, found = out.cache, []
    for ending in endings:
        read = out.logits[:, -1:]
        if ending[1:]:
            given = torch.tensor([ending[:-1]], device=model.device)
            read = torch.cat([read, model(given, cache=cache).logits], dim=1)
            cache.crop(1 - len(ending))
        found.append(log_probs(read, ending).sum())
    return found


def prompt_each_time(model, prompt_ids, endings):
    return [scores(model, prompt_ids, [ending])[0] for ending in endings]


def prompt_in_pieces_each_time(model, prompt_ids, endings):
    found = []
    for ending in endings:
        cache = DynamicCache(config=model.config)
        for one in prompt_ids.split(1, dim=1):
            last = model(one, cache=cache).logits
        logits = model(torch.tensor([ending], device=model.device), cache=cache).logits
        found.append(log_probs(shifted(last, logits), ending).sum().item())
    return found


def not_cropped(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, left=lambda ending: 0)


def cropped_too_little(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, left=lambda ending: len(ending) - 1)


def cropped_too_much(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, left=lambda ending: len(ending) + 1)


def cropped_by_one(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, left=lambda ending: 1)


def without_the_prompts_cache(model, prompt_ids, endings):
    last, found = model(prompt_ids).logits[:, -1:], []
    for ending in endings:
        logits = model(torch.tensor([ending], device=model.device)).logits
        found.append(log_probs(shifted(last, logits), ending).sum())
    return found


def best_first(model, prompt_ids, endings):
    return sorted(scores(model, prompt_ids, endings), reverse=True)


def worst_first(model, prompt_ids, endings):
    return sorted(scores(model, prompt_ids, endings))


def first_tokens_only(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, reduce=lambda numbers: numbers[:, 0].sum())


def product(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, reduce=lambda numbers: numbers.sum().exp())


def at_their_own_place(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, predicting=lambda after_prompt, logits: logits)


def without_the_first(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, reduce=lambda numbers: numbers[:, 1:].sum())


def mean(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, reduce=torch.mean)


def loss(model, prompt_ids, endings):
    return [-score for score in scores(model, prompt_ids, endings)]


def probabilities(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, reduce=lambda numbers: numbers.exp().sum())


def bare_logits(model, prompt_ids, endings):
    found = []
    for ending in endings:
        ids = torch.cat([prompt_ids, prompt_ids.new_tensor([ending])], dim=1)
        logits = model(ids).logits[:, -len(ending) - 1 : -1]
        found.append(logits.gather(-1, ids[:, -len(ending) :, None]).sum().item())
    return found


def prompt_too(model, prompt_ids, endings):
    ids = prompt_ids[0].tolist()
    return [scores(model, prompt_ids[:, :1], [ids[1:] + ending])[0] for ending in endings]


def one_number(model, prompt_ids, endings):
    return sum(scores(model, prompt_ids, endings))


def the_best_only(model, prompt_ids, endings):
    return [max(scores(model, prompt_ids, endings))]


def length_to_keep(model, prompt_ids, endings):
    return scores(model, prompt_ids, endings, left=lambda ending: -prompt_ids.shape[1])


def test_score_endings():
    prove_exercise(
        lesson04.check_score_endings,
        right=[scores, copied, as_tensor, without_the_last_id],
        wrong=[
            (prompt_each_time, "3 passes read the prompt"),
            (not_cropped, "the cache was not cropped"),
            (cropped_too_little, "one token of each ending stays"),
            (cropped_too_much, "has lost a token of the prompt"),
            (cropped_by_one, "only one token is cropped"),
            (without_the_prompts_cache, "without the prompt's cache"),
            (best_first, "not in the order of the endings"),
            (first_tokens_only, "only the first token of each ending"),
            (at_their_own_place, "read at its own index"),
            (without_the_first, "the first token of each ending is missing"),
            (mean, "this is the mean"),
            (loss, "the sign is wrong"),
            (probabilities, "add up their logarithms"),
            (bare_logits, "sums of logits"),
            (prompt_too, "in prompt and ending together"),
            (one_number, "a list of numbers, one for each ending"),
            (the_best_only, "the length of your result is 1"),
            (length_to_keep, "calling `crop` with a positive value"),
        ],
    )


# ---- exercise 6 --------------------------------------------------------------------------------------


def loop(model, input_ids, attention_mask, steps, first=position_ids, mask=None, positions=None, cached=True):
    """The solution, with its parts replaced: the first positions, and how mask and positions go on."""
    cache, given, chosen, told, mask_told = None, input_ids, [], first(attention_mask), attention_mask
    for _ in range(steps):
        options = {"attention_mask": mask_told, "position_ids": told}
        out = model(given, cache=cache, use_cache=True, **options)
        cache = out.cache if cached else None
        given = out.logits[:, -1:].argmax(-1)
        told = positions(told) if positions else told[:, -1:] + 1
        mask_told = mask(mask_told) if mask else with_column(mask_told, 1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def with_column(mask, value):
    return torch.cat([mask, torch.full_like(mask[:, :1], value)], dim=1)


def positions_from_the_mask(model, input_ids, attention_mask, steps):
    ids, mask, cache = input_ids, attention_mask, DynamicCache(config=model.config)
    for _ in range(steps):
        new = ids[:, cache.get_seq_length() :]
        told = (mask.cumsum(1) - 1).clamp(min=0)[:, -new.shape[1] :]
        out = model(new, attention_mask=mask, position_ids=told, cache=cache)
        ids = torch.cat([ids, out.logits[:, -1].argmax(-1)[:, None]], dim=1)
        mask = with_column(mask, 1)
    return ids[:, input_ids.shape[1] :]


def as_the_librarys_update(model, input_ids, attention_mask, steps):
    told = {"attention_mask": attention_mask, "position_ids": position_ids(attention_mask)}
    given, chosen = input_ids, []
    for _ in range(steps):
        out = model(given, use_cache=True, **told)
        told = model._update_model_kwargs_for_generation(out, told)
        told["position_ids"] = told["position_ids"][:, -1:]
        given = out.logits[:, -1:].argmax(-1)
        chosen.append(given)
    return torch.cat(chosen, dim=1).tolist()


def same_mask(*batch):
    return loop(*batch, mask=lambda mask: mask)


def same_positions(*batch):
    return loop(*batch, positions=lambda told: told[:, -1:])


def both(*batch):
    return loop(*batch, mask=lambda mask: mask, positions=lambda told: told[:, -1:])


def zeros_in_the_mask(*batch):
    return loop(*batch, mask=lambda mask: with_column(mask, 0))


def column_in_front(*batch):
    return loop(*batch, mask=lambda mask: torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1))


def fillers_uncovered(*batch):
    return loop(*batch, mask=lambda mask: torch.ones_like(with_column(mask, 1)))


def ones_from_the_start(model, input_ids, attention_mask, steps):
    ones, told = torch.ones_like(attention_mask), position_ids(attention_mask)
    return loop(model, input_ids, ones, steps, first=lambda mask: told)


def mask_grows_once(model, input_ids, attention_mask, steps):
    once = with_column(attention_mask, 1)
    return loop(model, input_ids, attention_mask, steps, mask=lambda mask: once)


def mask_of_the_new_place(*batch):
    return loop(*batch, mask=lambda mask: torch.ones_like(mask[:, :1]))


def no_mask(model, input_ids, attention_mask, steps):
    cache, given, chosen = None, input_ids, []
    told = position_ids(attention_mask)
    for _ in range(steps):
        out = model(given, position_ids=told, cache=cache, use_cache=True)
        cache, given = out.cache, out.logits[:, -1:].argmax(-1)
        told = told[:, -1:] + 1
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def no_positions(model, input_ids, attention_mask, steps):
    cache, given, chosen, mask = None, input_ids, [], attention_mask
    for _ in range(steps):
        out = model(given, attention_mask=mask, cache=cache, use_cache=True)
        cache, given = out.cache, out.logits[:, -1:].argmax(-1)
        mask = with_column(mask, 1)
        chosen.append(given)
    return torch.cat(chosen, dim=1)


def places_for_positions(*batch):
    return loop(*batch, first=lambda mask: torch.arange(mask.shape[1], device=mask.device).expand_as(mask))


def positions_from_one(*batch):
    return loop(*batch, positions=lambda told: told[:, -1:] + 2)


def all_positions(*batch):
    return loop(*batch, positions=lambda told: torch.cat([told, told[:, -1:] + 1], dim=1))


def positions_go_on_once(model, input_ids, attention_mask, steps):
    once = position_ids(attention_mask)[:, -1:] + 1
    return loop(model, input_ids, attention_mask, steps, positions=lambda told: once)


def other_ids_go_in(model, input_ids, attention_mask, steps):
    class Odd:
        device = model.device

        def __call__(self, given, **told):
            return model(given if given.shape[1] > 1 else given + 1, **told)

    return loop(Odd(), input_ids, attention_mask, steps)


def loop_without_cache(model, input_ids, attention_mask, steps):
    ids, mask = input_ids, attention_mask
    for _ in range(steps):
        out = model(ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
        ids, mask = torch.cat([ids, out.logits[:, -1:].argmax(-1)], dim=1), with_column(mask, 1)
    return ids[:, input_ids.shape[1] :]


def batch_with_the_prompt(model, input_ids, attention_mask, steps):
    return torch.cat([input_ids, loop(model, input_ids, attention_mask, steps)], dim=1)


def batch_generated(model, input_ids, attention_mask, steps):
    return model.generate(input_ids, attention_mask=attention_mask, max_new_tokens=steps)


def first_token_only(model, input_ids, attention_mask, steps):
    first = model(input_ids, attention_mask=attention_mask, position_ids=position_ids(attention_mask))
    return first.logits[:, -1:].argmax(-1).expand(-1, steps)


def test_repaired():
    prove_exercise(
        lesson04.check_repaired,
        right=[loop, positions_from_the_mask, as_the_librarys_update],
        wrong=[
            (same_mask, "there are 9 keys, but the mask has 8 columns"),
            (same_positions, "which are those of the prompts' last tokens"),
            (zeros_in_the_mask, "a new token is not padding"),
            (fillers_uncovered, "does not begin with the prompts' own"),
            (ones_from_the_start, "as it is"),
            (mask_grows_once, "in pass 3 there are 10 keys, but the mask has 9 columns"),
            (mask_of_the_new_place, "the mask covers only the new token"),
            (no_mask, "gets no attention mask"),
            (no_positions, "uses indices, padding included"),
            (places_for_positions, "the first pass needs the position ids"),
            (positions_from_one, "but the prompts end at"),
            (all_positions, "must match the "),  # size of tensor b (9); on CUDA existing size (9)
            (positions_go_on_once, "they should increase in every pass"),
            (other_ids_go_in, "mask and positions are right"),
            (loop_without_cache, "the whole text again"),
            (batch_with_the_prompt, "the prompt is in the result"),
            (batch_generated, "this calls `generate()`"),
            (first_token_only, "the model ran one pass"),
        ],
    )


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        ("check_decode", with_a_mask_of_the_new_id, "8 keys, but the mask has 1 columns"),
        ("check_score_endings", prompt_in_pieces_each_time, "3 passes read the prompt"),
        ("check_score_endings", product, "add up their logarithms"),
        ("check_score_endings", worst_first, "not in the order of the endings"),
        ("check_repaired", column_in_front, "does not begin with the prompts' own"),
    ],
)
def test_another_form_of_a_mistake_gets_its_message(check, answer, words):
    result = getattr(lesson04, check)(answer)
    assert result.outcome == "wrong"
    assert words in result.message.lower()


def test_the_lessons_loop_has_both_bugs_and_each_is_named():
    (broken,) = definitions("04", "broken", torch=torch, position_ids=position_ids)
    for answer in (broken, both):
        message = lesson04.check_repaired(answer).message
        assert "these rows are right: `[False, False, False]`" in message
        assert "the mask has 8 columns" in message


def test_solutions_of_the_lesson():
    decode, endings, repaired, llama = definitions(
        "04",
        "decode",
        "score_endings",
        "repaired",
        "llama_parameters",
        torch=torch,
        position_ids=position_ids,
    )
    assert lesson04.check_decode(decode)
    assert lesson04.check_score_endings(endings)
    assert lesson04.check_repaired(repaired)
    assert lesson04.check_llama_parameters(llama)


def test_a_pass_too_many_is_right_and_named():
    with private_progress():
        assert "one too many" in lesson04.check_decode(one_pass_more).message
        assert "one too many" not in lesson04.check_decode(by_given).message


def test_a_check_leaves_the_model_as_it_was():
    model, _ = tiny()
    for answer in (generated, by_given):
        lesson04.check_decode(answer)
        assert not model.base_model._forward_pre_hooks
        assert "generate" not in vars(model)
