"""What transformers prepares before its decoding loop, and the parts of one turn of that loop.

`prepare` calls `model.generate(..., custom_generate=...)`: transformers itself merges the configurations and
builds the logits processors, the stopping criteria and the cache, then hands them over. What is private in
transformers is called here as `GenerationMixin._sample` calls it, and nowhere else in the course.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

from ..errors import CourseError
from ..inputs.limits import unwrapped
from .arguments import (
    check_arguments,
    check_caches,
    check_mode,
    check_positions,
    explained,
    has_own_generate,
    own_generate,
)
from .processor_checks import (
    check_scores,
    checked_verdict,
    failed_processor,
    name_of,
    raised_in_transformers,
)
from .rewind import caches_in

END_OF_TEXT, LENGTH = "end of text", "length"
_LONGEST_CACHE = "_previous_max_cache_length"  # what generate() leaves on the model after a static cache


def prepare(model: Any, inputs: Mapping[str, Any], kwargs: dict[str, Any]) -> Prepared:
    """What `model.generate(**inputs, **kwargs)` hands to its decoding loop: a `Prepared`.

    No forward pass is made, except that of the encoder in an encoder-decoder model. Raises CourseError for
    arguments that generate() refuses or that `decode_steps` does not step through. The model stays as it was.
    """
    model = unwrapped(model)
    arguments = _with_stop_strings(model, check_arguments(model, inputs, kwargs))
    longest = vars(model).get(_LONGEST_CACHE)
    handed = []

    @functools.wraps(_capture)  # generate() looks at its parameters
    def loop(model, *given, **named):
        handed.append(model)
        return _capture(model, *given, **named)

    try:
        prepared = model.generate(**arguments, custom_generate=loop)
    except CourseError:
        raise
    except Exception as error:
        # What generate() refuses it refuses before the loop. After it, only a generate() of the model's own
        # has anything to do, and it finds no ids to work on.
        if has_own_generate(model) and (handed or "custom_generate" in str(error)):
            raise own_generate(model) from error
        if handed or not isinstance(error, TypeError | ValueError | ImportError):
            raise
        raise explained(error, model, arguments) from error
    finally:
        vars(model).pop(_LONGEST_CACHE, None)
        if longest is not None:
            vars(model)[_LONGEST_CACHE] = longest
    if not isinstance(prepared, Prepared):
        raise own_generate(model)
    return prepared


def _capture(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
    """The decoding loop that generate() is given: it returns what it was handed, safe from later changes."""
    check_mode(generation_config)
    check_caches(model, caches_in(model_kwargs))
    _check_positions(model, input_ids, generation_config, model_kwargs)
    pads = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    pad = generation_config._pad_token_tensor if pads else None
    if pads and pad is None:
        raise CourseError(
            "A stopping criterion ends rows at its eos_token_id, and there is no id to fill them up with. "
            "Add pad_token_id=tokenizer.eos_token_id."
        )
    return Prepared(
        model=model,
        input_ids=input_ids.clone(),
        processors=tuple(logits_processor),
        criteria=tuple(stopping_criteria),
        config=generation_config,
        model_kwargs={
            name: value.clone() if isinstance(value, torch.Tensor) else value
            for name, value in model_kwargs.items()
        },
        pad=None if pad is None else pad.to(input_ids.device),
    )


def _check_positions(model, input_ids, generation_config, model_kwargs):
    """Raise CourseError if the prompt and the new tokens do not fit into the model's positions."""
    positions, embeddings = model_kwargs.get("position_ids"), model_kwargs.get("inputs_embeds")
    tokens = input_ids.shape[1]
    if positions is not None:
        tokens = int(positions.max()) + 1
    elif embeddings is not None and not tokens:
        tokens = embeddings.shape[1]
    new = generation_config.max_length - input_ids.shape[1]
    check_positions(model, tokens, new)


def _with_stop_strings(model, arguments):
    """The arguments with stop strings turned into the criterion that generate() makes of them: it keeps the
    tokenizer to itself where it is given a decoding loop."""
    arguments = dict(arguments)
    tokenizer = arguments.pop("tokenizer", None)
    configs = (arguments.get("generation_config"), model.generation_config)
    named = [arguments.get("stop_strings"), *(getattr(config, "stop_strings", None) for config in configs)]
    strings = next((strings for strings in named if strings is not None), None)
    if strings is None:
        return arguments
    if tokenizer is None:
        raise CourseError("Stop strings are looked up in the vocabulary. Add tokenizer=tokenizer.")
    criteria = StoppingCriteriaList(arguments.get("stopping_criteria") or ())
    criteria.append(StopStringCriteria(stop_strings=strings, tokenizer=tokenizer))
    without = {"stop_strings": None}
    given, default = configs
    if named[0] is None and given is not None and getattr(default, "stop_strings", None) is None:
        # Beside a configuration generate() calls every argument deprecated.
        without = {"generation_config": copy.deepcopy(given)}
        without["generation_config"].stop_strings = None
    return arguments | without | {"stopping_criteria": criteria}


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """What `generate()` hands to its decoding loop.

    input_ids:    LongTensor [batch, length], where decoding starts (with `num_return_sequences`: repeated)
    processors:   tuple of logits processors, and criteria: tuple of stopping criteria, in transformers' order
    config:       the merged GenerationConfig
    model_kwargs: dict, what goes to the forward pass: mask, positions, cache, encoder_outputs, ...
    pad:          LongTensor without dimensions, what fills finished rows; None where rows do not end by an id
    """

    model: Any
    input_ids: torch.Tensor
    processors: tuple
    criteria: tuple
    config: GenerationConfig
    model_kwargs: dict
    pad: torch.Tensor | None

    def forward(self, input_ids, model_kwargs, first):
        """One forward pass.

        input_ids:    LongTensor [batch, length], all ids so far
        model_kwargs: dict, as it is before this pass; it is not changed, but the cache inside of it is
        first:        bool, whether this pass takes in the prompt
        Returns (logits, model_kwargs, given): float32 [batch, vocab], the dict for the next pass, and
        (attention_mask, position_ids) as `Step` has them.
        """
        model = _Recorder(self.model)
        model_kwargs = dict(model_kwargs)
        cached = cache_length(model_kwargs)
        mask = model_kwargs.get(self._decoders("attention_mask"))
        if first:
            prefill = type(self.model)._prefill
            outputs = prefill(model, input_ids, self.config, model_kwargs, not self.config.is_assistant)
        else:
            with self.model._optimize_model_for_decode():
                new = 1 if model_kwargs["use_cache"] else None
                inputs = model.prepare_inputs_for_generation(
                    input_ids, next_sequence_length=new, **model_kwargs
                )
                outputs = self._decode(**inputs, return_dict=True)
        model_kwargs = self.model._update_model_kwargs_for_generation(
            outputs, model_kwargs, is_encoder_decoder=self.model.config.is_encoder_decoder
        )
        # A copy, since a slice would keep the logits of the whole prompt in memory.
        logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
        return logits, model_kwargs, self._given(model.given, mask, cached)

    @functools.cached_property
    def _decode(self):
        """The model, or its compiled form where generate() compiles it (a static cache on a GPU)."""
        if self.model._valid_auto_compile_criteria(self.model_kwargs, self.config):
            return self.model.get_compiled_call(self.config.compile_config)
        return self.model

    def _given(self, passes, mask, cached):
        """The mask and the positions of the recorded passes; more than one where a prompt goes in chunks."""
        names = (self._decoders("input_ids"), "inputs_embeds")
        fed = [next(given[name] for name in names if given.get(name) is not None) for given in passes]
        if mask is None:  # generate() drops a mask of ones: the attention then needs none
            length = cached + sum(ids.shape[1] for ids in fed)
            mask = torch.ones(fed[0].shape[0], length, dtype=torch.long, device=fed[0].device)
        key = self._decoders("position_ids")
        positions = [given[key] for given in passes if given.get(key) is not None]
        # Multimodal rotary ones are [4, batch, new]: those of the text, then time, height and width.
        positions = [numbers[0] if numbers.ndim == 3 else numbers for numbers in positions]
        return mask.to(torch.long, copy=True), torch.cat(positions, dim=-1) if positions else None

    def _decoders(self, name):
        return f"decoder_{name}" if self.model.config.is_encoder_decoder else name

    def stages(self, input_ids, logits):
        """The scores after each logits processor: tuple of (name, float32 [batch, vocab]). `logits` stays as
        it is, whatever a processor does in place.

        Raises CourseError for a processor that returns anything else than scores, and where one of
        transformers' own cannot work with its argument.
        """
        stages, scores = [], logits
        for processor in self.processors:
            before = scores
            try:
                # A list of one, for transformers' own check of the signature.
                scores = LogitsProcessorList([processor])(input_ids, before.clone())
            except (IndexError, RuntimeError, TypeError, ValueError) as error:
                if raised_in_transformers(error):
                    raise failed_processor(processor, error, before.shape[1]) from error
                raise
            check_scores(processor, scores, before)
            stages.append((name_of(processor), scores))
        return tuple(stages)

    def outcome(self, input_ids, scores, finished, reasons):
        """Which rows are finished after a step, and why.

        input_ids: LongTensor [batch, length], the ids with the new token
        scores:    tuple of the last stage of every step so far, or None, as generate() gives it to criteria
        finished:  BoolTensor [batch], and reasons: tuple of batch entries, both before the step
        Returns the two as they are after it.
        """
        verdicts = []
        for criterion in self.criteria:
            verdict = checked_verdict(criterion, criterion(input_ids, scores), finished)
            finished = finished | verdict
            verdicts.append((_reason(criterion), verdict))
        if not finished.any():
            return finished, reasons
        # What says most comes first: a text that ends at its last token is not cut off by the length.
        verdicts.sort(key=lambda verdict: (verdict[0] == LENGTH) - (verdict[0] == END_OF_TEXT))
        reasons = list(reasons)
        for reason, verdict in verdicts:
            for row, done in enumerate(verdict.expand(len(reasons)).tolist()):
                reasons[row] = reasons[row] or (reason if done else None)
        return finished, tuple(reasons)


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


def cache_length(model_kwargs):
    """How many positions the cache in `model_kwargs` has taken in: int, 0 without one that counts them."""
    for cache in caches_in(model_kwargs):
        try:
            return int(cache.get_seq_length())
        except ValueError:  # a recurrent state alone has no length
            return 0
    return 0


def _reason(criterion):
    if isinstance(criterion, EosTokenCriteria):
        return END_OF_TEXT
    return LENGTH if isinstance(criterion, MaxLengthCriteria) else name_of(criterion)
