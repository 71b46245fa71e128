"""The next-token distribution of a real model, alive under the settings of generate()."""

import html
import inspect
from pathlib import Path
from typing import Any

import torch
import traitlets

from ...continuation import continuation
from ...errors import CourseError
from ...inputs.causal import check_causal
from ...inputs.limits import position_limit, trained_positions, unwrapped
from ...inputs.text import check_length, text_ids
from ..core.labels import isolated, quoted, rjust, token_label
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_ROWS = 15  # tokens that are drawn as bars
_STILL_ROWS = 10
_SAVED_LOGITS = 256  # kept one by one in a saved page
_SAVED_BINS = 64  # the rest is kept as counts, means and deviations: an error of about 1e-6 in probability
_DRAWS = (0, 1, 100, 1000, 10000)
_BASIC, _ALL = "basic", "all"
# In the order in which generate() applies them.
_SETTINGS = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p", "typical_p")


def _slider(default, low, high, hint, kind: Any = traitlets.Float, controls=_BASIC):
    return kind(default).tag(sync=True, low=low, high=high, hint=hint, controls=controls)


class NextToken(CourseWidget):
    """What `model` says may follow `prompt`, over the whole vocabulary, and what the sampling settings make
    of it. A token that is chosen is appended, and the model is asked again.

    model:     a decoder-only transformers model; it runs in the kernel, one forward pass a choice
    tokenizer: its tokenizer
    prompt:    str
    controls:  "basic", or "all": then repetition penalty and typical too, what is left after each filter, the
               tail, and draws

    In the order in which they are applied: repetition_penalty (0.5 to 2, 1 is off), temperature (0.05 to 3),
    top_k (0 is off, to 200), top_p (1 is off), min_p (0 is off), typical_p (0.01 to 1, which is off). `draws`
    (0, 1, 100, 1000 or 10000) says how many times the page draws a token, and `seed` from which random
    numbers (its own: torch draws others). The page writes them back when a control is released; setting them
    from Python moves the controls.
    `prompt`, `chosen` (tuple of int, the ids appended) and `text` tell where the learner is.

    Raises CourseError for a prompt that is not a str, of no tokens or of more tokens than the model has
    positions, for half a surrogate pair, for a model that is not a decoder, for other `controls`, and for a
    setting outside its slider or without one.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    controls = traitlets.Unicode(_BASIC, read_only=True).tag(sync=True)
    repetition_penalty = _slider(1.0, 0.5, 2.0, "1 turns it off.", controls=_ALL)
    temperature = _slider(
        1.0, 0.05, 3.0, "Towards 0 the likeliest token takes all; below 0 the order would turn."
    )
    top_k = _slider(0, 0, 200, "0 turns it off.", kind=traitlets.Int)
    top_p = _slider(1.0, 0.0, 1.0, "It is a share of the probability, and 1 turns it off.")
    min_p = _slider(0.0, 0.0, 1.0, "It is a share of the largest probability, and 0 turns it off.")
    typical_p = _slider(
        1.0, 0.01, 1.0, "It is a share of the probability, and 1 turns it off.", controls=_ALL
    )
    draws = traitlets.Int(0).tag(sync=True)
    seed = traitlets.Int(0, min=0, max=2**32 - 1).tag(sync=True)
    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, model: Any, tokenizer: Any, prompt: str, controls: str = _BASIC, **settings) -> None:
        if controls not in (_BASIC, _ALL):
            raise CourseError(f'controls is {controls!r}. Give "{_BASIC}" or "{_ALL}".')
        model = unwrapped(model)
        check_causal(model, "NextToken continues a prompt")
        for name in settings:
            if name not in (*_SETTINGS, "draws", "seed"):
                raise CourseError(
                    f"NextToken has no setting {name}. It has {', '.join(_SETTINGS)}, draws and seed."
                )
        self.set_trait("controls", controls)
        self._model, self._tokenizer = model, tokenizer
        super().__init__(**settings)
        self._show(prompt, ())

    @property
    def prompt(self) -> str:
        """The prompt. Assigning another one starts again from it."""
        return self.shown["prompt"]

    @prompt.setter
    def prompt(self, prompt: str) -> None:
        self._show(prompt, ())

    @property
    def chosen(self) -> tuple[int, ...]:
        """The ids of the tokens appended to the prompt."""
        return tuple(token["id"] for token in self.shown["chosen"])

    @property
    def text(self) -> str:
        """The prompt and what was appended to it."""
        prompt_ids = text_ids(self._tokenizer, self.prompt, "the prompt")
        return self.prompt + continuation(self._tokenizer, prompt_ids, self.chosen)

    @property
    def settings(self) -> dict[str, Any]:
        """dict of what `model.generate(**inputs, **settings)` takes to draw from the same distribution."""
        return {"do_sample": True} | {name: getattr(self, name) for name in _SETTINGS}

    @traitlets.validate(*_SETTINGS)
    def _within_slider(self, proposal):
        trait, value = proposal["trait"], proposal["value"]
        low, high = trait.metadata["low"], trait.metadata["high"]
        if not low <= value <= high:  # also refuses NaN
            raise CourseError(
                f"{trait.name} is {value}, but the slider goes from {low} to {high}. Give a number between "
                f"them. {trait.metadata['hint']}"
            )
        if value != trait.default_value:
            self._has_control(trait.name, value, trait.metadata["controls"])
        return value

    @traitlets.validate("draws")
    def _offered(self, proposal):
        draws = proposal["value"]
        if draws not in _DRAWS:
            offered = ", ".join(f"{one:,}" for one in _DRAWS[:-1])
            raise CourseError(f"draws is {draws:,}. Give {offered} or {_DRAWS[-1]:,}.")
        if draws:
            self._has_control("draws", draws, _ALL)
        return draws

    def _has_control(self, name, value, controls):
        if controls == _ALL and self.controls == _BASIC:
            raise CourseError(
                f'{name} is {value}, but this widget shows no control for it. Make it with controls="{_ALL}".'
            )

    def answer(self, request: dict) -> dict | None:
        """Show the prompt and the tokens of {"prompt": str, "chosen": list of int}."""
        self._show(request["prompt"], request["chosen"])

    def _show(self, prompt, chosen):
        """Ask the model what follows `prompt` and the ids `chosen`; put the answer into the trait `shown`."""
        ids = [*text_ids(self._tokenizer, prompt, "the prompt"), *chosen]
        limit = position_limit(self._model)
        if chosen and limit and len(ids) > limit:
            raise CourseError(
                f"The text has {len(ids):,} tokens, and the model has {limit:,} positions. Step back."
            )
        check_length(len(ids), limit, "the prompt", "the model has {most} positions")
        logits = self._logits(ids)
        # The same call as in TopPLogitsWarper, so that tokens with equal logits come in the same order.
        ascending, order = torch.sort(logits, descending=False)
        logits, order = ascending.flip(0), order.flip(0)
        ranks, seen = torch.arange(_ROWS), torch.tensor([], dtype=torch.long)
        if self.controls == _ALL:
            # The repetition penalty leaves these in order among themselves, and the others too.
            is_seen = torch.isin(order, torch.tensor(ids))
            seen = is_seen.nonzero().flatten()
            ranks = torch.cat([seen[:_ROWS], (~is_seen).nonzero().flatten()[:_ROWS]]).sort().values
        self.set_trait(
            "shown",
            {
                "prompt": prompt,
                "chosen": [self._token(i) for i in chosen],
                # All that may come to the top; `place` counts in `logits`.
                "top": [
                    self._token(order[rank].item()) | {"place": rank}
                    for rank in ranks.tolist()
                    if rank < len(order)
                ],
                "logits": logits.numpy().astype("<f4").tobytes(),
                "ids": order.numpy().astype("<u4").tobytes(),
                "seen": seen.numpy().astype("<u4").tobytes(),
                "vocabulary": len(logits),
                "positions": [len(ids), limit],
                "trained": None if limit else trained_positions(self._model),
            },
        )

    def _logits(self, ids):
        """The model's logits after the last of `ids`: float32 tensor [vocab] on the CPU."""
        only_last = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        with torch.no_grad():
            output = self._model(
                torch.tensor([ids], device=self._model.device),
                use_cache=False,
                **({"logits_to_keep": 1} if only_last else {}),
            )
        logits = output.logits[0, -1].float().cpu()
        if not logits.max().isfinite():  # NaN is the maximum wherever there is one
            raise CourseError(
                "The model's logits hold NaN or infinity, so they make no distribution. "
                "Load the model again with dtype=torch.float32."
            )
        return logits

    def _token(self, token_id):
        """A token for the page: {"id": int, "text": str with invisible characters made visible}."""
        return {"id": token_id, "text": token_label(self._tokenizer, token_id)}

    def page_state(self) -> dict[str, Any]:
        """The own traits, with the logits cut down to a few kilobytes."""
        shown = {name: value for name, value in self.shown.items() if name != "ids"}
        logits = torch.frombuffer(bytearray(shown["logits"]), dtype=torch.float32)
        seen = torch.frombuffer(bytearray(shown["seen"]), dtype=torch.int32) if shown["seen"] else []
        alone = sorted({*range(_SAVED_LOGITS), *map(int, seen), *(token["place"] for token in shown["top"])})
        alone = [place for place in alone if place < len(logits)]
        new_place = {place: number for number, place in enumerate(alone)}
        shown["top"] = [token | {"place": new_place[token["place"]]} for token in shown["top"]]
        shown["seen"] = (
            torch.tensor([new_place[int(place)] for place in seen], dtype=torch.int32).numpy().tobytes()
        )
        return super().page_state() | {"shown": shown | binned(logits, alone)}

    def _still_rows(self):
        """The most likely tokens with their probabilities before any setting: list of (label str, float)."""
        logits = torch.frombuffer(bytearray(self.shown["logits"]), dtype=torch.float32)
        probs = logits.double().softmax(-1)[:_STILL_ROWS].tolist()
        return [(token["text"], prob) for token, prob in zip(self.shown["top"], probs, strict=False)]

    def summary(self) -> str:
        rows = "\n".join(f"{rjust(isolated(text), 16)}  {prob:.2f}" for text, prob in self._still_rows())
        return f"The {_STILL_ROWS} most likely tokens after {quoted(self.text)}\n{rows}"

    def still(self) -> str:
        table = html_table(
            ["Token", "Probability", ""],
            [
                (isolated(text), f"{prob:.2f}", "█" * round(round(prob, 2) * 30))
                for text, prob in self._still_rows()
            ],
        )
        return (
            f"<p>The {_STILL_ROWS} most likely tokens after {html.escape(quoted(self.text))}</p>{table}"
            "<p>Run the cell to move the settings, choose a token and type a prompt.</p>"
        )


def binned(logits: torch.Tensor, alone: list[int]) -> dict:
    """Descending logits, float32 tensor [vocab], as a few kilobytes: dict of float32 bytes.

    Those at the places `alone` (list of int) stay as they are, in `logits`. The others are put in bins of
    equal width, each kept as the `counts` of its logits, their `means` and standard `deviations`; those of
    -inf are left out.
    """
    rest = torch.ones(len(logits), dtype=torch.bool)
    rest[alone] = False
    rest = logits[rest].double()
    rest = rest[rest.isfinite()]
    bins = []
    if len(rest):
        place = ((rest[0] - rest) / (rest[0] - rest[-1]).clamp(min=1e-9) * _SAVED_BINS).long()
        place = place.clamp(max=_SAVED_BINS - 1)
        bins = [rest[place == number] for number in place.unique().tolist()]
    columns = {
        "logits": logits[alone],
        "means": [one.mean() for one in bins],
        "counts": [len(one) for one in bins],
        "deviations": [one.std(correction=0) for one in bins],
    }
    return {name: torch.as_tensor(values).numpy().astype("<f4").tobytes() for name, values in columns.items()}
