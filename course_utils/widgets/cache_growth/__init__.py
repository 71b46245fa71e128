"""What a token costs as the text grows, with a KV cache and without: time and memory, measured."""

import copy
import html
import inspect
import statistics
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import traitlets

from ...cache_size import kept_layers, predicted_size
from ...errors import CourseError
from ...inputs.causal import check_causal
from ...inputs.limits import check_no_learned_prompt, position_limit, trained_positions, unwrapped
from ...inputs.text import text_ids
from ...releases import as_argument, cache_of, takes_cache
from ...texts import SENTENCES
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_CHOICES = (64, 128, 256, 512, 1024)  # lengths that the page offers
_EIGHTHS = (1, 2, 4, 6, 8)  # of the longest text, where it is measured
_ROUNDS = 5  # each length is measured once a round, so that a slow moment of the machine meets all of them


class Measured(NamedTuple):
    """What one more token cost in a text of `positions` tokens, itself counted.

    with_cache, without_cache: float, milliseconds, the median of the rounds so far
    cache_bytes:     int, the bytes of the keys and values in the cache
    predicted_bytes: int, what the configuration says; None where it does not say what this model keeps
    """

    positions: int
    with_cache: float
    without_cache: float
    cache_bytes: int
    predicted_bytes: int | None


class CacheGrowth(CourseWidget):
    """The time of a token and the memory of the KV cache as a text grows, measured when the page asks for it.

    model:     a decoder-only transformers model that keeps keys and values
    tokenizer: its tokenizer
    text:      str, repeated until it is long enough; None for an English sentence. The time depends on how
               many tokens there are, hardly on which.

    With the cache, a token is one forward pass of one position; without, one of the whole text, as in
    `generate(use_cache=False)`. Both ask for the logits of the last position only.

    `measure(most)` measures in the cell and returns when it is done; `measured` holds the results.
    `cache_size.predicted_size` reads the prediction from the configuration.

    Raises CourseError for a model that is not a decoder, for one that has no logits or returns no keys and
    values, for a text that is not a str, has no tokens or holds half a surrogate pair.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, model: Any, tokenizer: Any, text: str | None = None) -> None:
        model = unwrapped(model)
        check_no_learned_prompt(model, "CacheGrowth")
        check_causal(model, "CacheGrowth times a decoder")
        self._model = model
        self._ids = text_ids(tokenizer, SENTENCES["English"] if text is None else text, purpose="grow")
        self._predicted = predicted_size(model, _checked_cache(model, self._ids[:1]))
        self._limit = position_limit(model)
        limit = self._limit
        choices = _CHOICES if limit is None else [most for most in _CHOICES if most <= limit] or [limit]
        self._series, self._lock = None, threading.Lock()
        super().__init__()
        self.set_trait(
            "shown",
            {
                "limit": self._limit,
                "trained": None if self._limit else trained_positions(model),
                "choices": list(choices),
                "most": max(most for most in choices if most <= 256),
                "rule": self._predicted and self._predicted.rule(),
                "rates": self._predicted and self._predicted.rates(),
                "points": [],
                "done": 0,
                "total": 0,
                "agree": True,
                "apart": 0.0,
            },
        )

    @property
    def measured(self) -> list[Measured]:
        """One for each length that was measured, the shortest first."""
        return [
            Measured(
                positions=point["positions"],
                with_cache=statistics.median(point["with"]),
                without_cache=statistics.median(point["without"]),
                cache_bytes=point["bytes"],
                predicted_bytes=self._predicted and self._predicted.bytes_at(point["positions"]),
            )
            for point in self.shown["points"]
        ]

    def measure(self, most: int | None = None) -> None:
        """Measure texts of up to `most` positions, five times each; what was measured before is dropped.

        most: int, at least 2 and at most the model's positions; None for what the page has chosen
        Returns nothing; see `measured`. Raises CourseError for another `most`.
        """
        self._start(self.shown["most"] if most is None else most)
        while self._continue():
            pass

    def answer(self, request: dict) -> dict | None:
        """{"start": most} begins a series and {"next": true} takes one measurement of it; {"stop": true}
        ends it. The page asks for one at a time, so it can stop, and other cells and widgets get a turn.

        Returns {"left": int}, how many measurements are left.
        """
        if "start" in request:
            self._start(request["start"])
        if "stop" in request:
            self._series = None
            return {"left": 0}
        return {"left": self._continue()}

    def _start(self, most):
        limit = self._limit
        if isinstance(most, bool) or not isinstance(most, int) or most < 2 or (limit and most > limit):
            end = f"from 2 to {limit:,}, the model's positions" if limit else "of 2 or more"
            raise CourseError(f"The longest text is to have {most!r} positions. Give a whole number {end}.")
        with self._lock:
            self._series = _Series(self._model, self._ids, most)
            new = {"most": most, "points": [], "done": 0, "total": len(self._series.todo)}
            self.set_trait("shown", self.shown | new | {"agree": True, "apart": 0.0})

    def _continue(self):
        """Take one measurement and show it. Returns int, how many are left."""
        with self._lock:  # a cell and the page may ask at the same time
            series = self._series
            if series is None:
                return 0
            try:
                series.measure_next()
            except BaseException:  # an interrupt too: half a measurement is none
                self._series = None
                raise
            left = len(series.todo)
            new = {"points": series.points(), "done": self.shown["total"] - left}
            self.set_trait("shown", self.shown | new | {"agree": series.agree, "apart": series.apart})
            if left == 0:
                self._series = None  # and the caches with it
            return left

    def summary(self) -> str:
        rule = self.shown["rule"]
        lines = [
            f"KV cache, as the configuration predicts it: {rule}"
            if rule
            else "KV cache of a kind whose size the configuration does not tell"
        ]
        if not self.measured:
            lines.append("Not measured yet: run the cell and press Measure.")
        for one in self.measured:
            predicted = "" if one.predicted_bytes is None else f", {one.predicted_bytes:,} predicted"
            lines.append(
                f"{one.positions:>5} positions: {one.with_cache:.1f} ms with the cache, "
                f"{one.without_cache:.1f} ms without; {one.cache_bytes:,} bytes kept{predicted}"
            )
        return "\n".join(lines)

    def still(self) -> str:
        head, *rest = self.summary().splitlines()
        parts = [f"<p>{html.escape(head)}</p>"]
        if self.measured:
            header = ["Positions", "With cache, ms", "Without, ms", "Cache, bytes", "Predicted, bytes"]
            rows = [
                (
                    n,
                    f"{cached:.1f}",
                    f"{whole:.1f}",
                    f"{real:,}",
                    "–" if predicted is None else f"{predicted:,}",
                )
                for n, cached, whole, real, predicted in self.measured
            ]
            parts.append(html_table(header, rows))
            parts.append("<p>Run the cell to measure on your machine.</p>")
        else:
            parts.append(f"<p>{html.escape(rest[0])}</p>")
        return "".join(parts)


class _Series:
    """Measurements of texts of growing length, round by round."""

    def __init__(self, model: Any, ids: list[int], most: int) -> None:
        self.model = model
        self.ids = (ids * (most // len(ids) + 1))[:most]
        self.lengths = sorted({max(2, most * eighths // 8) for eighths in _EIGHTHS})
        self.todo = self.lengths * _ROUNDS
        self.agree = True  # both ways found the same most likely token
        self.apart = 0.0  # where they did not, the largest difference between their logits
        self._caches = {}  # for each length, the cache of all positions but the last
        self._points = {}

    def points(self):
        """What was measured: list of dict, JSON-able, the shortest text first."""
        return [self._points[length] for length in self.lengths if length in self._points]

    def measure_next(self):
        length = self.todo[0]
        warm = bool(self._caches)
        if length not in self._caches:
            self._fill(length)
        if not warm:  # the first pass of a kind also waits for memory and threads
            self._pair(length)
        cached, whole, cache, apart = self._pair(length)
        tensors = [tensor for layer in kept_layers(cache) for tensor in (layer.keys, layer.values)]
        shapes = {tuple(tensor.shape) for tensor in tensors}
        before = self._points.get(length, {"with": [], "without": []})
        self._points[length] = {
            "positions": length,
            "with": [*before["with"], cached],
            "without": [*before["without"], whole],
            "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            "tensors": len(tensors),
            "shape": list(shapes.pop()) if len(shapes) == 1 else None,
        }
        if apart is not None:
            self.agree, self.apart = False, max(self.apart, apart)
        self.todo = self.todo[1:]  # only now: what is interrupted counts for nothing

    def _fill(self, length):
        """Make the cache of a text of `length` positions without its last, in one pass, as generate() does:
        not every model goes on rightly from a cache with several tokens at once (Jamba does not)."""
        self._caches[length] = cache_of(_forward(self.model, self.ids[: length - 1], use_cache=True))

    def _pair(self, length):
        """One token with the cache and without: (ms float, ms float, the cache after it, None if both ways
        have the same most likely next token, else by how much their logits differ at most)."""
        cache = copy.deepcopy(self._caches[length])  # the forward pass adds to the one that it is given
        last = self.ids[length - 1 : length]
        cached, with_cache = _timed(self.model, last, use_cache=True, **as_argument(cache))
        whole, without = _timed(self.model, self.ids[:length], use_cache=False)
        ours, theirs = (output.logits[0, -1].float() for output in (with_cache, without))
        apart = None
        if ours.argmax() != theirs.argmax():
            apart = (ours - theirs).abs().nan_to_num().max().item()
        return cached, whole, cache_of(with_cache), apart


def _forward(model, ids, **given):
    """The output of one forward pass over `ids` (list of int), with the logits of the last one only."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        given["logits_to_keep"] = 1
    with torch.no_grad():
        return model(torch.tensor([ids], device=model.device), **given)


def _timed(model, ids, **given):
    """(milliseconds float, output) of a forward pass, until the device has finished it."""
    _finish(model.device)
    start = time.perf_counter()
    output = _forward(model, ids, **given)
    _finish(model.device)
    return round(1000 * (time.perf_counter() - start), 2), output


def _finish(device):
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _checked_cache(model, ids):
    """The cache that `model` returns for `ids` (list of int). Raises CourseError unless it has logits, and
    keys and values in the cache."""
    output = _forward(model, ids, use_cache=True)
    if not hasattr(output, "logits"):
        raise CourseError(
            f"A {type(model).__name__} has no head that scores the next token. "
            "Load the model with load(), or with AutoModelForCausalLM."
        )
    if not takes_cache(model) or not kept_layers(cache_of(output)):
        raise CourseError(
            f"{type(model).__name__} returns no keys and values, so there is no cache to measure. "
            "Give CacheGrowth another model, for example the one that load() returns."
        )
    return cache_of(output)
