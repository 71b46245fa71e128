"""What transformers prepares before its decoding loop, and one forward pass of that loop.

`prepare` calls `model.generate(..., custom_generate=...)`: transformers itself merges the configurations and
builds the logits processors, the stopping criteria and the cache, then hands them over. Everything here that is
private in transformers is called as `GenerationMixin._sample` calls it, and nowhere else in the course.
"""

import copy
import dataclasses
import functools
import inspect

import torch
from transformers import Cache, DynamicCache, GenerationConfig, StoppingCriteriaList, StopStringCriteria
from transformers.cache_utils import DynamicLayer

from .arguments import check_arguments, check_mode, check_positions, explained
from .errors import CourseError

_OWN = ("transformers.generation.logits_process", "transformers.generation.stopping_criteria")
_REMEMBERS = ("UnbatchedClassifierFreeGuidanceLogitsProcessor", "SynthIDTextWatermarkLogitsProcessor")
_STATIC_LENGTH = "_previous_max_cache_length"  # where generate() keeps the longest static cache, on the model


def prepare(model, inputs, kwargs):
    """What `model.generate(**inputs, **kwargs)` hands to its decoding loop: a `Prepared`.

    No forward pass is made, except that of the encoder in an encoder-decoder model. Raises CourseError for
    arguments that generate() refuses or that `decode_steps` does not step through; the model is left as it was.
    """
    arguments = check_arguments(model, inputs, kwargs)
    longest = vars(model).get(_STATIC_LENGTH)
    try:
        prepared = model.generate(**_with_stop_strings(model, arguments), custom_generate=_capture)
    except (TypeError, ValueError) as error:
        raise explained(error, model, arguments) from error
    finally:
        vars(model).pop(_STATIC_LENGTH, None)
        if longest is not None:
            vars(model)[_STATIC_LENGTH] = longest
    return prepared


def _capture(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
    """The decoding loop that generate() is given: it returns what it was handed."""
    check_mode(generation_config)
    positions = model_kwargs.get("position_ids")
    tokens = input_ids.shape[1] if positions is None else int(positions.max()) + 1
    check_positions(model, tokens, generation_config.max_length - input_ids.shape[1])
    if generation_config._pad_token_tensor is None and any(
        hasattr(c, "eos_token_id") for c in stopping_criteria
    ):
        raise CourseError(
            "A stopping criterion ends rows at its eos_token_id, and there is no id to fill them up with. "
            "Add pad_token_id=tokenizer.eos_token_id."
        )
    return Prepared(
        model, input_ids, list(logits_processor), list(stopping_criteria), generation_config, model_kwargs
    )


def _with_stop_strings(model, arguments):
    """The arguments with stop strings turned into the criterion that generate() would make of them: it does not
    hand the tokenizer on where it is given a decoding loop."""
    arguments = dict(arguments)
    tokenizer = arguments.pop("tokenizer", None)
    configs = (arguments.get("generation_config"), model.generation_config)
    named = [arguments.get("stop_strings"), *(getattr(config, "stop_strings", None) for config in configs)]
    strings = next((strings for strings in named if strings is not None), None)
    if strings is None:
        return arguments
    if tokenizer is None:
        raise CourseError(
            "Stop strings are looked up in the vocabulary. Add tokenizer=tokenizer to the arguments."
        )
    criteria = StoppingCriteriaList(arguments.get("stopping_criteria") or ())
    criteria.append(StopStringCriteria(stop_strings=strings, tokenizer=tokenizer))
    return arguments | {"stop_strings": None, "stopping_criteria": criteria}


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """What `generate()` hands to its decoding loop.

    input_ids:    LongTensor [batch, length], where decoding starts (with `num_return_sequences`: repeated)
    processors:   list of logits processors, criteria: list of stopping criteria, in transformers' order
    config:       the merged GenerationConfig
    model_kwargs: dict, what goes to the forward pass: mask, positions, cache, encoder_outputs, ...
    """

    model: torch.nn.Module
    input_ids: torch.Tensor
    processors: list
    criteria: list
    config: GenerationConfig
    model_kwargs: dict

    def forward(self, input_ids, model_kwargs, first):
        """One forward pass, as `GenerationMixin._sample` makes it.

        input_ids:    LongTensor [batch, length], all ids so far
        model_kwargs: dict, as it is before this pass; it is not changed, but the cache inside of it is
        first:        bool, whether this pass takes in the prompt
        Returns (logits, model_kwargs, given): float32 [batch, vocab], the dict for the next pass, and
        (attention_mask, position_ids) as `Step` has them.
        """
        model = _Recorder(self.model)
        model_kwargs = dict(model_kwargs)
        cached = cache_length(model_kwargs)
        mask = model_kwargs.get(self._decoder_key("attention_mask"))
        if first:
            prefill = type(self.model)._prefill
            outputs = prefill(model, input_ids, self.config, model_kwargs, not self.config.is_assistant)
        else:
            with self.model._optimize_model_for_decode():
                inputs = model.prepare_inputs_for_generation(
                    input_ids, next_sequence_length=1 if model_kwargs["use_cache"] else None, **model_kwargs
                )
                outputs = self._decode(**inputs, return_dict=True)
        model_kwargs = self.model._update_model_kwargs_for_generation(
            outputs, model_kwargs, is_encoder_decoder=self.model.config.is_encoder_decoder
        )
        # A copy, since the logits of a whole prompt would stay in memory with a slice of them.
        logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
        return logits, model_kwargs, self._given(model.given, mask, cached)

    @functools.cached_property
    def _decode(self):
        """The model, or its compiled form where generate() would compile it (a static cache on a GPU)."""
        if self.model._valid_auto_compile_criteria(self.model_kwargs, self.config):
            return self.model.get_compiled_call(self.config.compile_config)
        return self.model

    def _given(self, passes, mask, cached):
        """The mask and the positions of the recorded passes (more than one where a prompt goes in chunks)."""
        ids_key, positions_key = self._decoder_key("input_ids"), self._decoder_key("position_ids")
        fed = [
            given[ids_key] if given.get(ids_key) is not None else given["inputs_embeds"] for given in passes
        ]
        if mask is None:  # generate() drops a mask of ones, and the kernel then needs none
            length = cached + sum(ids.shape[1] for ids in fed)
            mask = torch.ones(fed[0].shape[0], length, dtype=torch.long, device=fed[0].device)
        positions = [given[positions_key] for given in passes if given.get(positions_key) is not None]
        return mask.long(), torch.cat(positions, dim=-1) if positions else None

    def _decoder_key(self, name):
        return f"decoder_{name}" if self.model.config.is_encoder_decoder else name

    @property
    def can_crop(self):
        """Whether undoing steps needs no more than a shorter cache: each layer keeps every key, and no
        logits processor remembers what it saw."""
        caches = self._caches()
        return (
            all(map(is_stateless, self.processors))
            and all(map(_keeps_every_key, caches))
            and (len(caches) == 1 or not self.config.use_cache)
        )

    def crop(self, length):
        """Shorten the cache to its first `length` positions, also where a pass was interrupted halfway."""
        for cache in self._caches():
            for layer in cache.layers:
                if length == 0:
                    layer.reset()
                elif layer.is_initialized:
                    layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]

    def keep(self):
        """The state of the cache and of all processors: what `restore` puts back into the same objects."""
        return [(thing, self._copied(thing)) for thing in (*self._caches(), *self.processors)]

    def keep_criteria(self):
        """The state of the stopping criteria that may have one."""
        return [(thing, self._copied(thing)) for thing in self.criteria if not is_stateless(thing)]

    def restore(self, kept):
        """Put back what `keep` returned; it can be put back again."""
        for thing, state in kept:
            if state is not None:
                vars(thing).clear()
                vars(thing).update(self._copied(state))

    def _copied(self, thing):
        """A copy of an object's attributes (or of a dict), deep where they can change in place; None where
        there are none, as in a plain function. The model, which guidance holds on to, is not copied."""
        state = thing if isinstance(thing, dict) else getattr(thing, "__dict__", None)
        if state is None or inspect.isroutine(thing):
            return None
        memo = {id(self.model): self.model}
        changing = torch.Tensor | list | dict | set | Cache
        return {
            name: copy.deepcopy(value, memo) if isinstance(value, changing) else value
            for name, value in state.items()
        }

    def _caches(self):
        return [value for value in self.model_kwargs.values() if isinstance(value, Cache)]


class _Recorder:
    """The model, as `_prefill` uses it, which keeps what is prepared for each forward pass."""

    def __init__(self, model):
        self._model, self.given = model, []

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, **inputs):
        return self._model(**inputs)

    def prepare_inputs_for_generation(self, *args, **kwargs):
        self.given.append(self._model.prepare_inputs_for_generation(*args, **kwargs))
        return self.given[-1]


def is_stateless(thing):
    """Whether a logits processor or a stopping criterion is one of transformers' own that remembers nothing."""
    kind = type(thing)
    return kind.__module__ in _OWN and kind.__name__ not in _REMEMBERS


def cache_length(model_kwargs):
    """How many positions the cache in `model_kwargs` has taken in, as an int; 0 without one."""
    for value in model_kwargs.values():
        if isinstance(value, Cache):
            return int(value.get_seq_length())
    return 0


def _keeps_every_key(cache):
    return (
        type(cache) is DynamicCache
        and not cache.offloading
        and all(type(layer) is DynamicLayer for layer in cache.layers)
    )
