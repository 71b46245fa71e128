"""generate(), one visible step at a time.

    model, inputs -> `decode_steps` -> a `Decoding` -> a `Step` for each new token

A `Decoding` turns the loop of transformers' `GenerationMixin._sample` inside out: one turn for each `next()`.
Everything before the loop is transformers' own (`preparation.prepare`), so the ids are those of
`model.generate` with the same arguments and the same seed.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import CourseError
from .generate_inputs import Prepared, cache_length, prepare
from .processor_checks import check_distributions
from .rewind import (
    caches_in,
    can_crop,
    crop,
    is_stateless,
    keep,
    random_state,
    restore,
    set_random_state,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """What one turn of the decoding loop saw and did.

    index:          int, 0 for the first new token
    input_ids:      LongTensor [batch, length], the ids before this step. As in generate(), an encoder-decoder
                    model has its decoder's ids here, and a prompt given as `inputs_embeds` alone has none.
    attention_mask: LongTensor [batch, positions], what the model was given: 1 is a token. generate() drops a
                    mask without any 0 before the model sees it; here its ones are kept. In an encoder-decoder
                    model this is the decoder's mask.
    position_ids:   LongTensor [batch, new positions], what the model was given: those of the prompt at the
                    first step, then one column a step (all of them without a cache); where a model counts
                    time, height and width as well (Qwen2-VL), those of the text. None for a model that is
                    given none (Bloom, T5, BART).
    cache_length:   int, positions that the KV cache had taken in before this step; 0 without a cache
    logits:         float32 [batch, vocab], the model's raw output at the last position
    stages:         tuple of (name, float32 [batch, vocab]), the scores after each logits processor, in
                    transformers' order, under the name of its class; empty where there is none
    probs:          float32 [batch, vocab], softmax of the last stage (of the logits without one), also where
                    nothing is drawn from it
    next_tokens:    LongTensor [batch], what was chosen; the pad id for rows that were finished before
    finished:       BoolTensor [batch], rows that are done after this step
    reasons:        tuple of batch entries: None, or why the row is done: "end of text", "length", or the
                    class name of the stopping criterion
    """

    index: int
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor | None
    cache_length: int
    logits: torch.Tensor
    stages: tuple
    probs: torch.Tensor
    next_tokens: torch.Tensor
    finished: torch.Tensor
    reasons: tuple


def decode_steps(model: Any, inputs: Mapping[str, Any], **generate_kwargs) -> Decoding:
    """A `Decoding`: an iterator with one `Step` for each new token.

    model:           a transformers model with generate(), decoder-only or encoder-decoder; of one that
                     torch.compile or PEFT has wrapped the model inside, which is what its generate() runs
    inputs:          dict or BatchEncoding, what a tokenizer returns with return_tensors="pt"
    generate_kwargs: what `model.generate(**inputs, **generate_kwargs)` takes for greedy decoding and
                     sampling. `return_dict_in_generate` and the `output_...` flags are accepted, and change
                     only what stopping criteria are told: a Step has scores and logits in any case.

    It is lazy: the n-th forward pass is made by the n-th `next()`, without gradients. It draws from torch's
    global random state, as generate() does: set the seed before the first `next()`. Stopping early needs no
    tidying up. Raises CourseError, before any step, for a missing or empty prompt, for one that does not fit
    into the model's positions, for lengths or a temperature that are not positive, for unknown arguments, for
    a model that makes something of its own of the loop (Whisper), and for beam search and assisted
    generation, which lesson 06 covers.
    """
    streamer = generate_kwargs.pop("streamer", None)
    prepared = prepare(model, inputs, generate_kwargs)
    if streamer is not None:
        try:
            streamer.put(prepared.input_ids.cpu())
        except ValueError as error:
            raise CourseError(f"The streamer refuses this prompt: {error} Leave the streamer out.") from error
    return Decoding(prepared, streamer)


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """Where the loop stands between two steps; `before` is the random state when the last one began."""

    input_ids: torch.Tensor
    model_kwargs: dict
    finished: torch.Tensor
    reasons: tuple
    cache_length: int
    scores: tuple | None
    before: tuple | None = None


class Decoding:
    """An iterator of `Step` that can also go back and take another token. Made by `decode_steps`.

    A step that fails or is interrupted is not taken: the next `next()` makes it anew. After the last step the
    iterator is exhausted until `back` or `choose` leaves a row unfinished.
    """

    def __init__(self, prepared: Prepared, streamer: Any = None) -> None:
        self._prepared, self._streamer = prepared, streamer
        config, rows = prepared.config, len(prepared.input_ids)
        start = _State(
            input_ids=prepared.input_ids,
            model_kwargs=prepared.model_kwargs,
            finished=torch.zeros(rows, dtype=torch.bool, device=prepared.input_ids.device),
            reasons=(None,) * rows,
            cache_length=cache_length(prepared.model_kwargs),
            scores=() if config.return_dict_in_generate and config.output_scores else None,
        )
        self._states = [start]  # one more for each step: appending it is what takes the step
        self._reached = 0  # how many steps the cache and whatever remembers have seen; None inside of one
        self._caches = caches_in(prepared.model_kwargs)
        crops = all(map(can_crop, self._caches)) and bool(self._caches) == config.use_cache
        self._crops = crops and all(map(is_stateless, prepared.processors))
        self._kept = None if self._crops else keep((*self._caches, *prepared.processors), prepared.model)
        self._remembering = [criterion for criterion in prepared.criteria if not is_stateless(criterion)]
        self._kept_criteria = keep(self._remembering, prepared.model)

    def __iter__(self):
        return self

    @torch.no_grad()
    def __next__(self):
        """Take one step and return its `Step`.

        Raises CourseError if the scores of the model or of a processor leave no distribution (NaN, +inf, or
        every token at -inf), if a processor does not return scores, or a stopping criterion a verdict for
        each row, and if one of transformers' own processors cannot work with its argument.
        """
        if self.done:
            raise StopIteration
        before = random_state(self._prepared.model.device)
        try:
            self._catch_up()
            set_random_state(before)
            self._reached = None
            step, state = self._turn(before)
            self._stream(step)
        except BaseException:
            set_random_state(before)
            raise
        self._states.append(state)
        self._reached = self.steps_taken
        return step

    @property
    def sequences(self) -> torch.Tensor:
        """LongTensor [batch, length], the ids so far, as generate() would return them."""
        return self._states[-1].input_ids.clone()

    @property
    def done(self) -> bool:
        """Whether every row is finished."""
        return all(self.reasons)

    @property
    def reasons(self) -> tuple[str | None, ...]:
        """tuple of batch entries, as in `Step`: None, or why the row is finished."""
        return self._states[-1].reasons

    @property
    def steps_taken(self) -> int:
        """How many new tokens each row has."""
        return len(self._states) - 1

    def back(self, steps: int = 1) -> None:
        """Undo the last `steps` steps and their draws: going on gives the same tokens again.

        The next `next()` shortens the cache, which is exact for an ordinary one. For a static, sliding-window
        or encoder-decoder cache, and with logits processors that are yours or that remember what they saw, it
        repeats the steps that remain. Raises CourseError if so many steps were not taken, or if a streamer
        has the tokens.
        """
        self._refuse_streamed()
        if not self.steps_taken:
            raise CourseError("No step was taken that could be undone. Type next() first.")
        steps = checked_number(steps, range(1, self.steps_taken + 1), "steps", "The steps taken are numbered")
        set_random_state(self._states[-steps].before)
        del self._states[-steps:]

    def choose(self, token: int, row: int = 0) -> None:
        """Let the last step have chosen `token` in row `row`, and go on from there.

        token: int, an id of the model; row: int from 0
        Whether the row is finished, and why, is decided anew: see `done` and `reasons`. The random state
        stays as it is. Raises CourseError before the first step, for an id that the model does not have, for
        a row that is not there or was finished before this step, and if a streamer has the token.
        """
        self._refuse_streamed()
        if not self.steps_taken:
            raise CourseError("No token was chosen yet that another could replace. Type next() first.")
        before, state = self._states[-2:]
        row = checked_number(row, range(len(before.reasons)), "row", "The rows are numbered")
        vocabulary = self._prepared.model.get_input_embeddings().num_embeddings
        token = checked_number(token, range(vocabulary), "token", "The model's ids go")
        if before.reasons[row]:
            raise CourseError(
                f"Row {row} was finished before this step ({before.reasons[row]}): it is only filled up. "
                "Go back() to the step that finished it, and choose there."
            )
        input_ids = state.input_ids.clone()
        input_ids[row, -1] = token
        try:
            self._rewind_criteria(self.steps_taken - 1)
            finished, reasons = self._prepared.outcome(
                input_ids, state.scores, before.finished, before.reasons
            )
        except BaseException:
            self._reached = None
            raise
        self._states[-1] = dataclasses.replace(state, input_ids=input_ids, finished=finished, reasons=reasons)

    def _turn(self, before):
        """One turn of the loop in `GenerationMixin._sample`: (Step, _State), with nothing kept here yet."""
        prepared, state = self._prepared, self._states[-1]
        logits, model_kwargs, (mask, positions) = self._forward(state)
        stages = prepared.stages(state.input_ids, logits)
        scores = stages[-1][1] if stages else logits
        probs = torch.softmax(scores, dim=-1)
        # Nobody reads what a finished row chooses, but drawing needs every row.
        needed = ~state.finished | prepared.config.do_sample
        check_distributions(self.steps_taken, needed, logits, stages, probs)
        if prepared.config.do_sample:
            next_tokens = torch.multinomial(probs, num_samples=1).squeeze(1)
        else:
            next_tokens = scores.argmax(dim=-1)
        if prepared.pad is not None:
            next_tokens = torch.where(state.finished, prepared.pad, next_tokens)
        input_ids = torch.cat([state.input_ids, next_tokens[:, None]], dim=-1)
        all_scores = None if state.scores is None else (*state.scores, scores.clone())
        finished, reasons = prepared.outcome(input_ids, all_scores, state.finished, state.reasons)
        step = Step(
            index=self.steps_taken,
            input_ids=state.input_ids.clone(),
            attention_mask=mask,
            position_ids=positions,
            cache_length=state.cache_length,
            logits=logits,
            stages=stages,
            probs=probs,
            next_tokens=next_tokens,
            finished=finished.clone(),
            reasons=reasons,
        )
        cached = cache_length(model_kwargs)
        return step, _State(input_ids, model_kwargs, finished, reasons, cached, all_scores, before)

    def _forward(self, state):
        return self._prepared.forward(state.input_ids, state.model_kwargs, first=state.before is None)

    def _catch_up(self):
        """After `back` or a failed step, bring the cache and whatever remembers to where the states are."""
        if self._reached == self.steps_taken:
            return
        self._reached = None
        self._rewind_criteria(self.steps_taken)
        if self._crops:
            for cache in self._caches:
                crop(cache, self._states[-1].cache_length)
            return
        restore(self._kept)
        states = self._states[:1]
        for state in self._states[1:]:
            set_random_state(state.before)
            logits, model_kwargs, _ = self._forward(states[-1])
            self._prepared.stages(states[-1].input_ids, logits)
            states.append(dataclasses.replace(state, model_kwargs=model_kwargs))
        self._states = states

    def _rewind_criteria(self, steps):
        """Bring the stopping criteria that may remember something to where they were after `steps` steps."""
        restore(self._kept_criteria)
        for state in self._states[1 : steps + 1]:
            for criterion in self._remembering:
                criterion(state.input_ids, state.scores)

    def _stream(self, step):
        if self._streamer is not None:
            self._streamer.put(step.next_tokens.cpu())
            if step.finished.all():
                self._streamer.end()

    def _refuse_streamed(self):
        if self._streamer is not None:
            raise CourseError(
                "The streamer has shown these tokens and cannot take them back. "
                "Call decode_steps without a streamer to go back or to choose."
            )


def checked_number(number, allowed, name, numbering):
    """`number` as an int, if it is an integer in the range `allowed`; else a CourseError that names it."""
    try:
        checked = operator.index(number)
    except TypeError:
        checked = None
    if checked is None or isinstance(number, bool) or checked not in allowed:
        raise CourseError(
            f"{name} is {number!r}. {numbering} from {allowed[0]} to {allowed[-1]}: give one of these."
        )
    return checked
