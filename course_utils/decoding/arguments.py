"""Which arguments of generate() can be stepped through, and a sentence for each that cannot."""

import difflib
import inspect
import operator
from collections.abc import Mapping

import torch
from transformers import GenerationConfig, GenerationMixin
from transformers.generation.configuration_utils import GenerationMode

from ..errors import CourseError
from ..inputs.limits import check_known_ids, check_no_learned_prompt, encoder_limit, position_limit
from ..masks import check_mask
from ..releases import cache_given
from .processor_checks import name_of

_MODES = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
_BEAMS = (GenerationMode.BEAM_SEARCH, GenerationMode.BEAM_SAMPLE)
_ASSISTED = "assisted generation, which lesson 06 takes apart: it checks several drafted tokens in one pass"
_ELSEWHERE = {
    "assistant_model": _ASSISTED,
    "assistant_tokenizer": _ASSISTED,
    "prompt_lookup_num_tokens": _ASSISTED,
    "custom_generate": "a decoding loop of your own, which lesson 05 writes: give it to model.generate",
    "synced_gpus": "several machines that wait for each other: give it to model.generate",
    "token_healing": "a prompt that generate() rewrites: give it to model.generate",
}
# Why type checkers cannot see it: `inputs.limits.unwrapped`.
_GENERATE = inspect.unwrap(GenerationMixin.generate)  # pyright: ignore[reportAttributeAccessIssue]
_PROMPTS = ("input_ids", "inputs_embeds", "inputs", "encoder_outputs")


def check_arguments(model, inputs, kwargs):
    """The arguments of `model.generate` as one dict, `{**inputs, **kwargs}`.

    Raises CourseError for a model that cannot generate, for a prompt that is missing, empty, or no tensor of
    ids of this model, for a mask of another shape, for lengths and temperatures that are not positive, and
    for what `decode_steps` does not step through.
    """
    check_no_learned_prompt(model, "decode_steps")
    if not isinstance(model, GenerationMixin):
        if has_own_generate(model):
            raise own_generate(model)
        raise CourseError(
            f"A {type(model).__name__} has no generate(): it needs a head that scores the next token. "
            "Load one with load(), or with AutoModelForCausalLM."
        )
    if not isinstance(inputs, Mapping):
        what = "no prompt" if inputs is None else f"a {type(inputs).__name__}"
        raise CourseError(
            f"decode_steps was given {what} to start from; it takes what a tokenizer returns. "
            'Type decode_steps(model, tokenizer("The capital of France is", return_tensors="pt")).'
        )
    twice = sorted(set(inputs) & set(kwargs))
    if twice:
        raise CourseError(f"{twice[0]} is given twice, in the inputs and beside them. Leave one of them out.")
    arguments = {**inputs, **kwargs}
    for name, subject in _ELSEWHERE.items():
        if arguments.get(name):
            raise CourseError(f"{name} asks for {subject}. Leave {name} out to step through this prompt.")
    if arguments.get("cache_implementation") == "paged":
        raise CourseError(
            'cache_implementation="paged" hands the prompt to continuous batching, another loop than the one '
            'that is stepped through here. Leave it out, or give "static" or "dynamic".'
        )
    arguments.pop("custom_generate", None)  # None here: decode_steps gives one of its own
    config = arguments.get("generation_config")
    if config is not None and not isinstance(config, GenerationConfig):
        raise CourseError(
            f"generation_config is a {type(config).__name__}, and generate() takes a GenerationConfig. "
            "Type GenerationConfig(max_new_tokens=20)."
        )
    named = arguments.get("cache_implementation") or (config or model.generation_config).cache_implementation
    if str(named).startswith("offloaded"):
        _check_offloading(model)  # by name: a torch for CUDA without a driver cannot even make the cache
    _check_numbers(arguments)
    _check_lists(arguments)
    _check_prompt(model, arguments)
    return arguments


def _check_numbers(arguments):
    for name in ("max_new_tokens", "max_length"):
        length = arguments.get(name)
        if length is not None and not _is_positive_integer(length):
            raise CourseError(
                f"{name} is {length!r}, and a number of tokens is an integer from 1. Type {name}=20."
            )
    temperature = arguments.get("temperature")
    if temperature is not None and (not isinstance(temperature, int | float) or not temperature > 0):
        raise CourseError(
            f"temperature is {temperature!r}: the logits are divided by it, so it must be a number above 0. "
            "For the most probable token at each step leave it out and type do_sample=False."
        )


def _check_lists(arguments):
    """Raise CourseError unless processors and criteria are lists of what can be called."""
    for name in ("logits_processor", "stopping_criteria"):
        value = arguments.get(name)
        if value is None:
            continue
        if not isinstance(value, list | tuple):
            what = name_of(value)
            raise CourseError(
                f"{name} is {what}, and generate() takes a list of them. Put it into one: {name}=[{what}]."
            )
        for item in value:
            if isinstance(item, type):
                raise CourseError(
                    f"{name} holds the class {item.__name__}, and it takes objects. "
                    f"Type {item.__name__}(...) with its arguments."
                )
            if not callable(item):
                raise CourseError(
                    f"{name} holds {item!r}, which cannot be called with ids and scores. Give a function of "
                    "these two, or an object of one of transformers' classes."
                )


def _is_positive_integer(number):
    try:
        return not isinstance(number, bool) and operator.index(number) > 0
    except TypeError:
        return False


def _check_prompt(model, arguments):
    prompts = {*_PROMPTS, model.main_input_name}
    if not any(arguments.get(name) is not None for name in prompts):
        raise CourseError(
            "There is no prompt: the inputs hold no input_ids. "
            'Give what tokenizer("The capital of France is", return_tensors="pt") returns.'
        )
    for name in ("input_ids", "inputs", "decoder_input_ids", "inputs_embeds", "attention_mask"):
        value = arguments.get(name)
        if value is not None and not isinstance(value, torch.Tensor):
            raise CourseError(
                f"{name} is a {type(value).__name__}, and a model takes tensors. "
                'Type tokenizer(text, return_tensors="pt"), or torch.tensor([...]).'
            )
    ids, embeddings = arguments.get("input_ids"), arguments.get("inputs_embeds")
    if ids is None and model.main_input_name == "input_ids":
        ids = arguments.get("inputs")
    if ids is not None:
        _check_ids(model, ids, may_be_empty=embeddings is not None)
    if arguments.get("decoder_input_ids") is not None:
        _check_ids(model, arguments["decoder_input_ids"], name="decoder_input_ids")
    if embeddings is not None and (embeddings.ndim != 3 or embeddings.numel() == 0):
        raise CourseError(
            f"inputs_embeds has the shape {tuple(embeddings.shape)}; one vector for each token is expected, "
            "(batch, length, width). Type model.get_input_embeddings()(input_ids)."
        )
    mask, cache = arguments.get("attention_mask"), cache_given(arguments)
    if mask is not None:
        prompt = ids if embeddings is None else embeddings
        # With a cache the mask also covers what is in it.
        check_mask(mask, prompt.shape[:2] if prompt is not None and cache is None else None)
    limit = encoder_limit(model)
    if limit is not None and ids is not None and ids.shape[1] > limit:
        raise CourseError(
            f"The prompt has {ids.shape[1]} tokens, and this model's encoder has {limit} positions. "
            f"Shorten the prompt by {ids.shape[1] - limit} tokens or more."
        )


def _check_ids(model, ids, may_be_empty=False, name="input_ids"):
    if ids.ndim != 2:
        raise CourseError(
            f"{name} has the shape {tuple(ids.shape)}; two dimensions are expected, (batch, length). "
            f"For a single prompt, type {name}[None]."
        )
    if ids.numel() == 0:
        if may_be_empty:
            return
        raise CourseError(
            "The prompt is empty: there is no token whose successor could be predicted. Type at least one "
            "word, or begin as a text begins, with torch.tensor([[tokenizer.bos_token_id]])."
        )
    if ids.dtype not in (torch.long, torch.int):  # no other type is looked up in a table of embeddings
        raise CourseError(f"{name} is of type {ids.dtype}; ids are integers. Type {name}.long().")
    check_known_ids(model, ids, name)


def check_mode(config):
    """Raise CourseError unless the merged GenerationConfig asks for greedy decoding or sampling."""
    mode = config.get_generation_mode()
    if mode in _MODES:
        return
    if mode in _BEAMS:
        raise CourseError(
            f"num_beams={config.num_beams} asks for beam search, which lesson 06 takes apart. "
            "Type num_beams=1 to step through greedy decoding or sampling."
        )
    if mode == GenerationMode.ASSISTED_GENERATION:
        raise CourseError(f"These arguments ask for {_ASSISTED}. Leave them out to step through this prompt.")
    raise CourseError(
        f"These arguments ask for {mode.value.replace('_', ' ')}, which transformers no longer contains. "
        "Step through greedy decoding, or through sampling with do_sample=True."
    )


def check_positions(model, tokens, new):
    """Raise CourseError if a prompt of `tokens` tokens and `new` more do not fit into a model's positions."""
    limit = position_limit(model, generating=True)
    if limit is None:
        return
    fit = limit - tokens + 1  # the last new token is not fed back, so it needs no position
    if fit < 1:
        raise CourseError(
            f"The prompt has {tokens} tokens, and this model has {limit} positions. "
            f"Shorten the prompt by {1 - fit} tokens or more."
        )
    if new > fit:
        raise CourseError(
            f"The prompt has {tokens} tokens, and {new} new ones are asked for. This model has {limit} "
            f"positions, so {fit} fit: type max_new_tokens={fit}, or shorten the prompt."
        )


def has_own_generate(model):
    """Whether a model's generate() is not the one that all of transformers' language models share: bool."""
    own = getattr(model, "generate", None)
    return own is not None and inspect.unwrap(getattr(own, "__func__", own)) is not _GENERATE


def own_generate(model):
    """The CourseError for a model whose own generate() makes something else of the decoding loop."""
    return CourseError(
        f"{type(model).__name__} has a generate() of its own, which works on what the decoding loop returns, "
        "and decode_steps steps through the common one. Call model.generate() itself, or give another model, "
        "for example the one that load() returns."
    )


def check_caches(model, caches):
    """Raise CourseError for a KV cache that this model's device cannot keep."""
    if any(getattr(cache, "offloading", False) for cache in caches):
        _check_offloading(model)


def _check_offloading(model):
    if model.device.type in ("cpu", "mps"):
        raise CourseError(
            "An offloaded cache waits in the CPU's memory for its turn on a GPU, and this model is on "
            f'{model.device.type}. Leave cache_implementation out, or give "static" or "dynamic".'
        )


def explained(error, model, arguments):
    """The CourseError that says what transformers found wrong with the arguments."""
    known = {*vars(GenerationConfig()), *inspect.signature(model.generate).parameters}
    known |= {*inspect.signature(model.forward).parameters, "tokenizer", "trust_remote_code"}
    unknown = [name for name in arguments if name not in known]
    if "not used by the model" in str(error) and unknown:
        near = difflib.get_close_matches(unknown[0], sorted(known), n=1, cutoff=0.75)
        advice = f"Did you mean {near[0]}?" if near else "Leave it out: this model does not take it."
        return CourseError(f"generate() has no argument {unknown[0]}. {advice}")
    return CourseError(f"generate() refuses these arguments: {error}")
