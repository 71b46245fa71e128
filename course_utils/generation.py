"""generate(), one visible step at a time.

    model, inputs -> `decode_steps` -> a `Decoding` -> a `Step` for each new token

A `Decoding` turns the loop of transformers' `GenerationMixin._sample` inside out: one turn for each `next()`.
Everything before the loop is transformers' own (`preparation.prepare`), so the ids are those of
`model.generate` with the same arguments and the same seed.
"""

import dataclasses
import operator

import torch
from transformers import EosTokenCriteria, LogitsProcessorList, MaxLengthCriteria

from .errors import CourseError
from .preparation import cache_length, prepare

END_OF_TEXT, LENGTH = "end of text", "length"


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """What one turn of the decoding loop saw and did.

    index:          int, 0 for the first new token
    input_ids:      LongTensor [batch, length], the ids before this step. As in generate(), an encoder-decoder
                    model has its decoder's ids here, and a prompt given as `inputs_embeds` has none.
    attention_mask: LongTensor [batch, positions], what the model was given: 1 is a token. generate() drops a
                    mask without any 0 before the model sees it; here the ones are kept. In an encoder-decoder
                    model this is the decoder's mask.
    position_ids:   LongTensor [batch, new positions], what the model was given: all of the prompt at the first
                    step, then one column a step with a cache. None for a model that takes no position ids
                    (Bloom, T5, BART).
    cache_length:   int, positions that the KV cache had taken in before this step; 0 without a cache
    logits:         float32 [batch, vocab], the model's raw output at the last position
    stages:         tuple of (name, float32 [batch, vocab]), the scores after each logits processor, in
                    transformers' order, each under its class's name; empty where there is none
    probs:          float32 [batch, vocab], softmax of the last stage (of the logits without one), also where
                    nothing is drawn from it
    next_tokens:    LongTensor [batch], what was chosen; the pad id for rows that were finished before
    finished:       BoolTensor [batch], rows that are done after this step
    reasons:        tuple of batch entries: None, or why the row is done: "end of text", "length", or the class
                    name of the stopping criterion
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


def decode_steps(model, inputs, **generate_kwargs):
    """A `Decoding`: an iterator with one `Step` for each new token.

    model:           a transformers model with generate(), decoder-only or encoder-decoder
    inputs:          dict or BatchEncoding with `input_ids` (and `attention_mask`, ...), as a tokenizer returns it
    generate_kwargs: what `model.generate(**inputs, **generate_kwargs)` takes for greedy decoding and sampling.
                     `return_dict_in_generate` and the `output_...` flags are accepted; a Step has their content.

    It is lazy: the n-th forward pass is made by the n-th `next()`, without gradients. What it draws comes from
    torch's global random state, as generate()'s does: set the seed before the first `next()`. Stopping early
    needs no tidying up. Raises CourseError, before any step, for a missing or empty prompt, one that does not fit
    into the model's positions, lengths or a temperature that are not positive, unknown arguments, and for
    beam search and assisted generation, which lesson 06 covers.
    """
    generate_kwargs = dict(generate_kwargs)
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
    """Where the loop stands between two steps; `before` is the random state as the step that led here began."""

    input_ids: torch.Tensor
    model_kwargs: dict
    cache_length: int
    finished: torch.Tensor
    reasons: tuple
    scores: tuple | None
    before: tuple | None = None


class Decoding:
    """An iterator of `Step` that can also go back and take another token. Made by `decode_steps`.

    A step that fails or is interrupted is not taken: the next `next()` makes it anew. After the last step the
    iterator is exhausted until `back` or `choose` leaves a row unfinished.
    """

    def __init__(self, prepared, streamer=None):
        self._prepared, self._streamer = prepared, streamer
        config, batch = prepared.config, len(prepared.input_ids)
        self._kept = None if prepared.can_crop else prepared.keep()
        self._kept_criteria = prepared.keep_criteria()
        self._pads = any(hasattr(criterion, "eos_token_id") for criterion in prepared.criteria)
        keeps_scores = config.return_dict_in_generate and config.output_scores
        start = _State(
            input_ids=prepared.input_ids,
            model_kwargs=prepared.model_kwargs,
            cache_length=cache_length(prepared.model_kwargs),
            finished=torch.zeros(batch, dtype=torch.bool, device=prepared.input_ids.device),
            reasons=(None,) * batch,
            scores=() if keeps_scores else None,
        )
        self._states = [start]  # one more for each step; appending to it is what takes a step
        self._reached = 0  # how many steps the cache and the processors have seen; None in the middle of one

    def __iter__(self):
        return self

    @torch.no_grad()
    def __next__(self):
        """Take one step and return its `Step`. Raises CourseError if the model's or the processors' scores leave
        no distribution (NaN, +inf, or every token at -inf)."""
        if self.done:
            raise StopIteration
        before = self._random_state()
        try:
            self._catch_up()
            self._set_random_state(before)
            self._reached = None
            step, state = self._turn(before)
            self._stream(step)
        except BaseException:
            self._reached = None
            self._set_random_state(before)
            raise
        self._states.append(state)
        self._reached = self.steps_taken
        return step

    @property
    def sequences(self):
        """LongTensor [batch, length], the ids so far, as generate() would return them."""
        return self._states[-1].input_ids.clone()

    @property
    def done(self):
        """bool, whether every row is finished."""
        return all(reason is not None for reason in self._states[-1].reasons)

    @property
    def reasons(self):
        """tuple of batch entries, as in `Step`: None, or why the row is finished."""
        return self._states[-1].reasons

    @property
    def steps_taken(self):
        """int, how many new tokens each row has."""
        return len(self._states) - 1

    def back(self, steps=1):
        """Undo the last `steps` steps, the random state included: going on gives the same tokens again.

        The next `next()` shortens the cache, which is exact for an ordinary one; for a static, sliding-window or
        encoder-decoder cache, and with logits processors that are yours or remember what they saw, it repeats the
        steps that remain. Raises CourseError if so many steps were not taken, or if a streamer has the tokens.
        """
        self._refuse_streamed()
        if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= self.steps_taken:
            raise CourseError(
                f"{steps!r} steps back is not possible: {self.steps_taken} steps were taken. "
                + (
                    f"Give an integer from 1 to {self.steps_taken}."
                    if self.steps_taken
                    else "Type next() first."
                )
            )
        self._set_random_state(self._states[-steps].before)
        del self._states[-steps:]

    def choose(self, token, row=0):
        """Let the last step have chosen `token` in row `row`, and go on from there.

        token: int, an id of the model; row: int from 0
        Whether the row is finished, and why, is decided anew: see `done` and `reasons`. The random state stays as
        it is after that step. Raises CourseError before the first step, for an id that the model has not, a row
        that is not there or was finished before this step, or if a streamer has the token.
        """
        self._refuse_streamed()
        if not self.steps_taken:
            raise CourseError("No token was chosen yet that another could replace. Type next() first.")
        before, state = self._states[-2:]
        row = self._check_number(row, len(before.reasons), "row", "The rows are numbered")
        vocabulary = self._prepared.model.get_input_embeddings().num_embeddings
        token = self._check_number(token, vocabulary, "token", "The model's ids go")
        if before.reasons[row] is not None:
            raise CourseError(
                f"Row {row} was finished before this step ({before.reasons[row]}): it is only filled up. "
                "Go back() to the step that finished it, and choose there."
            )
        input_ids = state.input_ids.clone()
        input_ids[row, -1] = token
        try:
            self._rewind_criteria(self.steps_taken - 1)
            finished, reasons = self._outcome(input_ids, state.scores, before)
        except BaseException:
            self._reached = None
            raise
        self._states[-1] = dataclasses.replace(state, input_ids=input_ids, finished=finished, reasons=reasons)

    def _turn(self, before):
        """One turn of the loop in `GenerationMixin._sample`: (Step, _State), with nothing kept here yet."""
        prepared, state = self._prepared, self._states[-1]
        input_ids, finished = state.input_ids, state.finished
        logits, model_kwargs, (mask, positions) = self._forward(state)
        stages = self._stages(input_ids, logits)
        scores = stages[-1][1] if stages else logits
        probs = torch.softmax(scores, dim=-1)
        self._check_scores(logits, stages, probs, finished)
        if prepared.config.do_sample:
            next_tokens = torch.multinomial(probs, num_samples=1).squeeze(1)
        else:
            next_tokens = scores.argmax(dim=-1)
        if self._pads:
            next_tokens = torch.where(
                finished, prepared.config._pad_token_tensor.to(finished.device), next_tokens
            )
        longer = torch.cat([input_ids, next_tokens[:, None]], dim=-1)
        all_scores = None if state.scores is None else (*state.scores, scores)
        finished, reasons = self._outcome(longer, all_scores, state)
        step = Step(
            index=self.steps_taken,
            input_ids=input_ids.clone(),
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
        return step, _State(longer, model_kwargs, cached, finished, reasons, all_scores, before)

    def _forward(self, state):
        return self._prepared.forward(state.input_ids, state.model_kwargs, first=state.before is None)

    def _stages(self, input_ids, logits):
        stages, scores = [], logits
        for processor in self._prepared.processors:
            # A list of one, for transformers' own check of the signature; a copy, for those that work in place.
            scores = LogitsProcessorList([processor])(input_ids, scores.clone())
            stages.append((_name(processor), scores))
        return tuple(stages)

    def _check_scores(self, logits, stages, probs, finished):
        """Softmax makes a whole row NaN where it meets NaN, +inf or nothing but -inf."""
        broken = probs[:, 0].isnan()
        if not self._prepared.config.do_sample:
            broken = broken & ~finished
        if not broken.any():
            return
        row = broken.nonzero()[0].item()
        for name, scores in (("the model", logits), *stages):
            if torch.softmax(scores[row], dim=-1).isnan().any():
                break
        where = f"At step {self.steps_taken} the scores of row {row} after {name} are no distribution: "
        if scores[row].isneginf().all():
            raise CourseError(
                f"{where}every token is at -inf, so none is left to choose. Loosen what forbids tokens, "
                "and look at step.stages of the step before."
            )
        raise CourseError(
            f"{where}they hold {'NaN' if scores[row].isnan().any() else '+inf'}. Look at the model's weights and "
            "at its dtype (model.float() if it is float16), or at the processor if it is one of yours."
        )

    def _outcome(self, input_ids, scores, before):
        """(finished, reasons) after a step, as `StoppingCriteriaList` decides it."""
        finished, verdicts = before.finished, []
        for criterion in self._prepared.criteria:
            verdict = torch.as_tensor(criterion(input_ids, scores), device=finished.device)
            finished = finished | verdict
            verdicts.append((_reason(criterion), verdict))
        if not finished.any():
            return finished, before.reasons
        # What says most comes first: a text that ends at its last token ends there in any case.
        verdicts.sort(key=lambda verdict: (verdict[0] == LENGTH) - (verdict[0] == END_OF_TEXT))
        reasons = list(before.reasons)
        for reason, verdict in verdicts:
            for row, done in enumerate(verdict.expand(len(reasons)).tolist()):
                reasons[row] = reasons[row] or (reason if done else None)
        return finished, tuple(reasons)

    def _catch_up(self):
        """Bring the cache and whatever remembers to where the states are, after `back` or a step that failed."""
        if self._reached == self.steps_taken:
            return
        self._rewind_criteria(self.steps_taken)
        if self._kept is None:
            self._prepared.crop(self._states[-1].cache_length)
        else:
            self._prepared.restore(self._kept)
            self._states = self._repeated()
        self._reached = self.steps_taken

    def _repeated(self):
        """The states, with every forward pass and every processor run again over the tokens that were chosen."""
        states = self._states[:1]
        for state in self._states[1:]:
            self._set_random_state(state.before)
            logits, model_kwargs, _ = self._forward(states[-1])
            self._stages(states[-1].input_ids, logits)
            states.append(dataclasses.replace(state, model_kwargs=model_kwargs))
        return states

    def _rewind_criteria(self, steps):
        """Bring the stopping criteria that may remember something to where they were after `steps` steps."""
        self._prepared.restore(self._kept_criteria)
        for number in range(1, steps + 1):
            state = self._states[number]
            for criterion, _ in self._kept_criteria:
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

    def _random_state(self):
        """The state of every random generator that a step may use, and how to put each back."""
        device = self._prepared.model.device
        states = [(torch.set_rng_state, torch.get_rng_state())]
        if device.type == "cuda":
            states.append(
                (lambda state: torch.cuda.set_rng_state(state, device), torch.cuda.get_rng_state(device))
            )
        elif device.type == "mps":
            states.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
        return tuple(states)

    @staticmethod
    def _set_random_state(states):
        for put_back, state in states:
            put_back(state)

    @staticmethod
    def _check_number(number, count, name, numbering):
        try:
            checked = operator.index(number)
        except TypeError:
            checked = -1
        if isinstance(number, bool) or not 0 <= checked < count:
            raise CourseError(
                f"{name} is {number!r}. {numbering} from 0 to {count - 1}: give one of these integers."
            )
        return checked


def _name(processor):
    return getattr(processor, "__name__", type(processor).__name__)


def _reason(criterion):
    if isinstance(criterion, EosTokenCriteria):
        return END_OF_TEXT
    return LENGTH if isinstance(criterion, MaxLengthCriteria) else _name(criterion)
