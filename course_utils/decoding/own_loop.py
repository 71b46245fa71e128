"""A loop of the learner's own, run where generate() runs its own, and what each of its steps saw and did."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import linecache
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import LogitsProcessorList, StoppingCriteriaList

from ..errors import CourseError
from ..inputs.limits import unwrapped
from .generate_inputs import cache_length, prepare
from .rewind import caches_in, random_state, set_random_state
from .steps import Step, checked_number

OVER = "the loop ended"
_CHOOSING = {"multinomial": "drawn", "argmax": "likeliest", "topk": "likeliest", "max": "likeliest"}
_FILLING = {"where", "masked_fill", "mul", "__mul__", "__rmul__"}
_APPENDING = {"cat", "concat", "concatenate", "hstack", "column_stack"}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of a loop, from the prompt to what it returned.

    steps:   tuple of Step, one for each new token. Their `input_ids` end with what the model was given; the
             ids before that, which the cache stands for, are zeros.
    tokens:  tuple, one a step, of tuples of int, one a row: what the loop appended
    reasons: tuple, one a step, of tuples, one a row: None, or why the row was finished then
    lines:   dict from the name of what happened to the number of the loop's line, int, that did it
    """

    steps: tuple
    tokens: tuple
    reasons: tuple
    lines: dict


class LoopWalk:
    """What `Walk` is for generate()'s own loop: it leads the loop to any step, with the draws of any seed.

    loop:      callable, as `model.generate(custom_generate=loop)` takes it. It is called as
               `loop(model, input_ids, logits_processor=..., stopping_criteria=..., generation_config=...,
               **model_kwargs)`, and returns LongTensor [batch, length], the prompt included
    inputs:    dict of tensors and arguments: dict, as `decode_steps(model, inputs, **arguments)` takes them
    sequences: LongTensor [batch, length] on the CPU, the prompt
    random:    bool, whether a run has drawn random numbers

    Each way through the tree is one run from the prompt on, in which a last logits processor leaves only the
    tokens that were chosen. Raises CourseError, besides what `decode_steps` raises, for a loop that does not
    stop, that returns no ids, or that appends more tokens than it has asked the model for.
    """

    def __init__(self, model, inputs, arguments, loop: Callable) -> None:
        if not callable(loop):
            raise CourseError(
                f"The loop is of type {type(loop).__name__}. Give a function, as custom_generate takes it: "
                "loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **inputs)."
            )
        self._model = unwrapped(model)
        self._given, self._loop = (inputs, arguments), loop
        self._code = _code_of(loop)
        self._runs = []  # (seed, Run)
        prepared = prepare(self._model, inputs, dict(arguments))
        self.sequences = prepared.input_ids.cpu()
        self.random = False
        self.lines = {}

    def take(self, prefix, seed, wanted):
        """As `Walk.take`: the step after the tokens `prefix`, with the tokens `wanted` chosen there."""
        run = self._run_to(prefix, seed, wanted)
        return run.steps[len(prefix)], run.tokens[len(prefix)], run.reasons[len(prefix)]

    def choose(self, prefix, seed, wanted):
        """As `Walk.choose`."""
        return self.take(prefix, seed, wanted)[1:]

    def source(self):
        """The loop's lines that did something: dict from a name to (int number in its file or cell, str)."""
        if self._code is None:
            return {}
        file = self._code.co_filename
        texts = {name: linecache.getline(file, line).rstrip() for name, line in self.lines.items()}
        texts = {name: text for name, text in texts.items() if text}
        common = min((len(text) - len(text.lstrip()) for text in texts.values()), default=0)
        return {name: (self.lines[name], text[common:]) for name, text in texts.items()}

    def _run_to(self, prefix, seed, wanted):
        run = self._found(prefix, seed) or self._run(seed, prefix)
        if len(run.steps) <= len(prefix):
            raise CourseError(f"The loop ended after {len(run.steps)} steps.")
        if not wanted:
            return run
        tokens = self._wanted(run, len(prefix), wanted)
        return self._found((*prefix, tokens), seed) or self._run(seed, (*prefix, tokens))

    def _wanted(self, run, step, wanted):
        """The tokens of a step with those of `wanted` (dict from row to token) in their rows: tuple."""
        tokens = list(run.tokens[step])
        vocabulary = self._model.get_input_embeddings().num_embeddings
        for row, token in wanted.items():
            row = checked_number(row, range(len(tokens)), "row", "The rows are numbered")
            if token == tokens[row]:
                continue
            if step and run.reasons[step - 1][row]:
                raise CourseError(f"Row {row} was finished before this step: it is only filled up.")
            tokens[row] = checked_number(token, range(vocabulary), "token", "The model's ids go")
        return tuple(tokens)

    def _found(self, prefix, seed):
        for known, run in self._runs:
            if known == seed and run.tokens[: len(prefix)] == prefix:
                return run
        return None

    def _run(self, seed, forced):
        """Run the loop once, led to the tokens `forced` (tuple of tuples, one a step) first: Run."""
        inputs, arguments = self._given
        before = random_state(self._model.device)
        try:
            prepared = prepare(self._model, inputs, dict(arguments))
            record = _Record(prepared, self._code, forced)
            torch.manual_seed(seed)
            start = random_state(self._model.device)
            result = record.run(self._loop)
            ended = random_state(self._model.device)
        finally:
            set_random_state(before)
        self.random |= any(
            not torch.equal(one, other) for (_, one), (_, other) in zip(start, ended, strict=True)
        )
        run = record.finished(result)
        for step, tokens in enumerate(forced):
            if run.tokens[step : step + 1] != (tokens,):
                raise CourseError(
                    "The loop did not take the token that was chosen for it: it does not choose by the scores"
                    " that logits_processor(input_ids, logits) returns."
                )
        self.lines |= run.lines
        self._runs.append((seed, run))
        return run


class _Record:
    """What happens while a loop runs, in the order in which it does."""

    def __init__(self, prepared, code, forced):
        self._prepared, self._code, self._forced = prepared, code, forced
        self._rows, self._length = prepared.input_ids.shape
        self._most = prepared.config.max_length - self._length
        self._reasons = (None,) * self._rows
        self._passes = []  # one a forward pass: dict
        self.lines = {}
        self.busy = False  # inside the model or a processor, whose calls are not the loop's

    def run(self, loop):
        prepared = self._prepared
        model = prepared.model
        before = model.register_forward_pre_hook(self._begin, with_kwargs=True)
        after = model.register_forward_hook(self._end, with_kwargs=True)
        try:
            with torch.no_grad(), _Calls(self):
                return loop(
                    model,
                    prepared.input_ids.clone(),
                    logits_processor=_Processors(self, prepared.processors),
                    stopping_criteria=_Criteria(self, prepared.criteria),
                    generation_config=prepared.config,
                    **prepared.model_kwargs,
                )
        finally:
            before.remove()
            after.remove()

    def note(self, name):
        """Keep the loop's line that is at work as the one that does `name`."""
        frame = sys._getframe(1)
        while frame is not None and frame.f_code is not self._code:
            frame = frame.f_back
        if frame is not None:
            self.lines[name] = frame.f_lineno

    def called(self, name):
        """A torch function of this name was called by the loop itself."""
        if not self._passes:
            return
        now = self._passes[-1]
        if name == "__getitem__" and "logits" not in now["noted"]:
            self._note_once("logits")
        elif name in _CHOOSING:
            self._note_once(_CHOOSING[name])
            now["chosen"] = True
        elif now.get("chosen") and name in _FILLING:
            self._note_once("fill")
        elif now.get("chosen") and name in _APPENDING:
            self._note_once("append")

    def _note_once(self, name):
        noted = self._passes[-1]["noted"]
        if name not in noted:
            noted.add(name)
            self.note(name)

    def _begin(self, module, args, kwargs):
        if len(self._passes) > self._most:
            raise CourseError(
                f"The loop has asked the model {len(self._passes)} times and does not stop, though at most "
                f"{self._most} new tokens are wanted. Ask stopping_criteria(input_ids, scores) after each."
            )
        names = inspect.signature(module.forward)
        given = names.bind_partial(*args, **kwargs).arguments
        given |= given.pop("kwargs", {})
        ids, cached = given.get("input_ids"), cache_length(given) if any(caches_in(given)) else 0
        if ids is None:
            raise CourseError("The loop gave the model no input_ids, which this view shows.")
        mask, positions = given.get("attention_mask"), given.get("position_ids")
        if mask is None or mask.ndim != 2:
            mask = ids.new_ones(len(ids), cached + ids.shape[1])
        self.note("forward" if self._passes else "first")
        self._passes.append(
            {
                "ids": torch.cat([ids.new_zeros(len(ids), cached), ids], dim=1).clone(),
                "mask": mask.to(torch.long, copy=True),
                "positions": None if positions is None else positions.clone(),
                "cached": cached,
                "stages": (),
                "noted": set(),
            }
        )
        self.busy = True

    def _end(self, module, args, kwargs, outputs):
        self.busy = False
        logits = outputs.logits if hasattr(outputs, "logits") else outputs[0]
        self._passes[-1]["logits"] = logits[:, -1].to(dtype=torch.float32, copy=True)

    def processed(self, input_ids, scores):
        """The scores after the processors, and after the tokens that are forced: float32 [batch, vocab]."""
        self.note("processors")
        if not self._passes:
            raise CourseError("The loop called logits_processor before it had asked the model for logits.")
        self.busy = True
        stages = self._prepared.stages(input_ids, scores)
        self.busy = False
        step = len(self._passes) - 1
        self._passes[-1]["stages"] = stages
        scores = stages[-1][1].clone() if stages else scores
        if step < len(self._forced):
            tokens = torch.tensor(self._forced[step], device=scores.device)
            scores = torch.full_like(scores, float("-inf")).scatter_(1, tokens[:, None], 0.0)
        return scores

    def judged(self, input_ids, scores):
        """Which rows the criteria end at these ids: BoolTensor [batch]."""
        self.note("criteria")
        fresh = torch.zeros(self._rows, dtype=torch.bool, device=input_ids.device)
        self.busy = True
        ended, reasons = self._prepared.outcome(input_ids, scores, fresh, (None,) * self._rows)
        self.busy = False
        self._reasons = tuple(old or new for old, new in zip(self._reasons, reasons, strict=True))
        if self._passes:
            self._passes[-1]["reasons"] = self._reasons
        return ended

    def finished(self, result):
        """What the loop returned, with what was recorded: Run."""
        result = getattr(result, "sequences", result)
        if not isinstance(result, torch.Tensor) or result.ndim != 2 or len(result) != self._rows:
            raise CourseError(
                f"The loop returned {_described(result)}. It should return the ids with the prompt, a tensor "
                f"of shape ({self._rows}, length)."
            )
        tokens = result[:, self._length :].T.tolist()
        if not tokens or len(tokens) > len(self._passes):
            raise CourseError(
                f"The loop returned {len(tokens)} new tokens a row and asked the model {len(self._passes)} "
                "times. This view shows loops that append one token for each forward pass."
            )
        reasons = [made.get("reasons", (None,) * self._rows) for made in self._passes[: len(tokens)]]
        reasons[-1] = tuple(reason or OVER for reason in reasons[-1])
        steps = [
            _step(number, made, chosen, why)
            for number, (made, chosen, why) in enumerate(zip(self._passes, tokens, reasons, strict=False))
        ]
        return Run(tuple(steps), tuple(map(tuple, tokens)), tuple(reasons), dict(self.lines))


class _Processors(LogitsProcessorList):
    def __init__(self, record, processors):
        super().__init__(processors)
        self._record = record

    def __call__(self, input_ids, scores, **kwargs):
        return self._record.processed(input_ids, scores)


class _Criteria(StoppingCriteriaList):
    def __init__(self, record, criteria):
        super().__init__(criteria)
        self._record = record

    def __call__(self, input_ids, scores, **kwargs):
        return self._record.judged(input_ids, scores)


class _Calls(TorchFunctionMode):
    """Tells the record of each torch function that the loop calls outside of the model."""

    def __init__(self, record):
        super().__init__()
        self._record = record

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if not self._record.busy:
            self._record.called(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def _step(number, made, tokens, reasons):
    scores = made["stages"][-1][1] if made["stages"] else made["logits"]
    finished = [reason is not None for reason in reasons]
    return Step(
        index=number,
        input_ids=made["ids"],
        attention_mask=made["mask"],
        position_ids=made["positions"],
        cache_length=made["cached"],
        logits=made["logits"],
        stages=made["stages"],
        probs=scores.softmax(-1),
        next_tokens=torch.tensor(tokens),
        finished=torch.tensor(finished),
        reasons=reasons,
    )


def _code_of(loop) -> Any:
    """The code of a function, or of what a decorator, a partial or an object with __call__ has inside."""
    while isinstance(loop, functools.partial):
        loop = loop.func
    loop = inspect.unwrap(loop)
    if not hasattr(loop, "__code__") and not inspect.ismethod(loop):
        loop = inspect.unwrap(type(loop).__call__)
    return getattr(loop, "__code__", None)


def _described(result):
    if isinstance(result, torch.Tensor):
        return f"a tensor of shape {tuple(result.shape)}"
    return "nothing" if result is None else f"an object of type {type(result).__name__}"
