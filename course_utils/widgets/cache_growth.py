"""What a token costs as the text grows, with a KV cache and without: time and memory, measured."""

import copy
import html
import inspect
import math
import statistics
import threading
import time
from pathlib import Path
from typing import NamedTuple

import torch
import traitlets

from ..errors import CourseError, check_characters
from ..releases import as_argument, cache_of, takes_cache
from ..texts import SENTENCES
from .base import CourseWidget, html_table

_HERE = Path(__file__).parent
_CHOICES = (64, 128, 256, 512, 1024)  # lengths that the page offers
_EIGHTHS = (1, 2, 4, 6, 8)  # of the longest text, where it is measured
_ROUNDS = 5  # each length is measured once a round, so that a slow moment of the machine meets all of them


class Measured(NamedTuple):
    """What one more token cost in a text of `positions` tokens, itself counted.

    with_cache, without_cache: float, milliseconds, the median of the rounds so far
    cache_bytes:     int, the bytes of the tensors in the cache
    predicted_bytes: int, what the configuration says
    """

    positions: int
    with_cache: float
    without_cache: float
    cache_bytes: int
    predicted_bytes: int


class CacheGrowth(CourseWidget):
    """The time of a token and the memory of the KV cache as a text grows, measured when the page asks for it.

    model:     a decoder-only transformers model that keeps keys and values
    tokenizer: its tokenizer
    text:      str, repeated until it is long enough; None for an English sentence. The time depends on how
               many tokens there are, hardly on which.

    With the cache, a token is one forward pass of one position; without, one of the whole text, as in
    `generate(use_cache=False)`. Both ask for the logits of the last position only.

    `measure(most)` measures in the cell and returns when it is done; `measured` holds the results.

    Raises CourseError for an encoder-decoder model, for a model that has no logits or keeps no keys and
    values, for a text that is no str, has no tokens or holds half a surrogate pair.
    """

    _esm = _HERE / "cache_growth.js"
    _css = _HERE / "cache_growth.css"

    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, model, tokenizer, text=None):
        if model.config.is_encoder_decoder:
            raise CourseError(
                f"{type(model).__name__} is an encoder-decoder model, and CacheGrowth times a decoder. "
                "Give it a decoder-only model, for example the one that load() returns."
            )
        self._model = model
        self._ids = _ids(tokenizer, SENTENCES["English"] if text is None else text)
        _check_cache(model, self._ids[:1])
        self._limit = getattr(model.config, "max_position_embeddings", None)
        choices = [most for most in _CHOICES if most <= (self._limit or most)] or [self._limit]
        self._series, self._lock = None, threading.Lock()
        super().__init__()
        self.set_trait(
            "shown",
            {
                "limit": self._limit,
                "choices": choices,
                "most": max(most for most in choices if most <= 256),
                "factors": cache_factors(model),
                "points": [],
                "done": 0,
                "total": 0,
                "agree": True,
            },
        )

    @property
    def measured(self):
        """list of Measured, one for each length that was measured, the shortest first."""
        return [
            Measured(
                positions=point["positions"],
                with_cache=statistics.median(point["with"]),
                without_cache=statistics.median(point["without"]),
                cache_bytes=point["bytes"],
                predicted_bytes=self.shown["factors"]["position_bytes"] * point["positions"],
            )
            for point in self.shown["points"]
        ]

    def measure(self, most=None):
        """Measure texts of up to `most` positions, five times each; what was measured before is dropped.

        most: int, at least 2 and at most the model's positions; None for what the page has chosen
        Returns nothing; see `measured`. Raises CourseError for another `most`.
        """
        self._start(self.shown["most"] if most is None else most)
        while self._continue():
            pass

    def answer(self, request):
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
            new = {"most": most, "points": [], "done": 0, "total": len(self._series.todo), "agree": True}
            self.set_trait("shown", self.shown | new)

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
            new = {"points": series.points(), "done": self.shown["total"] - left, "agree": series.agree}
            self.set_trait("shown", self.shown | new)
            if left == 0:
                self._series = None  # and the caches with it
            return left

    def summary(self):
        factors = self.shown["factors"]
        lines = [
            "KV cache, as the configuration predicts it: 2 (keys and values) "
            f"x {factors['layers']} layers x {factors['heads']} heads x {factors['width']} numbers "
            f"x {factors['number_bytes']} bytes = {factors['position_bytes']:,} bytes a position"
        ]
        if not self.measured:
            lines.append("Not measured yet: run the cell and press Measure.")
        for one in self.measured:
            lines.append(
                f"{one.positions:>5} positions: {one.with_cache:.1f} ms with the cache, "
                f"{one.without_cache:.1f} ms without; {one.cache_bytes:,} bytes kept, "
                f"{one.predicted_bytes:,} predicted"
            )
        return "\n".join(lines)

    def still(self):
        head, *rest = self.summary().splitlines()
        parts = [f"<p>{html.escape(head)}</p>"]
        if self.measured:
            header = ["Positions", "With cache, ms", "Without, ms", "Cache, bytes", "Predicted, bytes"]
            rows = [
                (n, f"{cached:.1f}", f"{whole:.1f}", f"{real:,}", f"{predicted:,}")
                for n, cached, whole, real, predicted in self.measured
            ]
            parts.append(html_table(header, rows))
            parts.append("<p>Run the cell to measure on your machine.</p>")
        else:
            parts.append(f"<p>{html.escape(rest[0])}</p>")
        return "".join(parts)


class _Series:
    """Measurements of texts of growing length, round by round."""

    def __init__(self, model, ids, most):
        self.model = model
        self.ids = (ids * (most // len(ids) + 1))[:most]
        self.lengths = sorted({max(2, most * eighths // 8) for eighths in _EIGHTHS})
        self.todo = self.lengths * _ROUNDS
        self.agree = True  # both ways found the same most likely token
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
        cached, whole, cache, agree = self._pair(length)
        tensors = _tensors(cache)
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
        self.agree = self.agree and agree
        self.todo = self.todo[1:]  # only now: what is interrupted counts for nothing

    def _fill(self, length):
        """Make the cache of a text of `length` positions without its last, from the longest one so far."""
        filled = max(self._caches, default=1) - 1
        past = copy.deepcopy(self._caches[filled + 1]) if filled else None
        output = _forward(self.model, self.ids[filled : length - 1], use_cache=True, **as_argument(past))
        self._caches[length] = cache_of(output)

    def _pair(self, length):
        """One token with the cache and without: (ms float, ms float, the cache after it, bool whether both
        ways have the same most likely next token)."""
        cache = copy.deepcopy(self._caches[length])  # the forward pass adds to the one that it is given
        last = self.ids[length - 1 : length]
        cached, with_cache = _timed(self.model, last, use_cache=True, **as_argument(cache))
        whole, without = _timed(self.model, self.ids[:length], use_cache=False)
        same = with_cache.logits[0, -1].argmax() == without.logits[0, -1].argmax()
        return cached, whole, cache_of(with_cache), bool(same)


def cache_factors(model):
    """What the size of a KV cache is made of, read from the model's configuration: dict of int.

    "layers", "heads" (those of the keys and values), "width" (of one head) and "number_bytes"; twice their
    product, for keys and values, is "position_bytes", which each position of each row of a batch takes.
    """
    config = model.config
    heads = config.num_attention_heads
    factors = {
        "layers": config.num_hidden_layers,
        "heads": getattr(config, "num_key_value_heads", None) or heads,
        "width": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "number_bytes": model.dtype.itemsize,
    }
    return factors | {"position_bytes": 2 * math.prod(factors.values())}


def _ids(tokenizer, text):
    if not isinstance(text, str):
        raise CourseError(
            f"The text is {text!r}, but it has to be a str. Leave it out for a sentence of ours."
        )
    check_characters(text)
    ids = tokenizer(text, verbose=False).input_ids
    if not ids:
        raise CourseError("The text is empty, so no text can be grown of it. Give at least one word.")
    return ids


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


def _tensors(cache):
    """The tensors of keys and values in `cache`: list, empty if it keeps none."""
    layers = getattr(cache, "layers", [])
    found = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    return [tensor for tensor in found if tensor is not None]


def _check_cache(model, ids):
    """Raises CourseError unless `model` has logits, and keeps keys and values of `ids` (list of int)."""
    if takes_cache(model):
        output = _forward(model, ids, use_cache=True)
        if not hasattr(output, "logits"):
            raise CourseError(
                f"A {type(model).__name__} has no head that scores the next token. "
                "Load the model with load(), or with AutoModelForCausalLM."
            )
        if _tensors(cache_of(output)):
            return
    raise CourseError(
        f"{type(model).__name__} keeps no keys and values, so there is no cache to measure. "
        "Give CacheGrowth another model, for example the one that load() returns."
    )
