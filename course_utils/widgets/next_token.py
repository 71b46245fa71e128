"""The next-token distribution of a real model, alive under four sliders."""

import html
import inspect
import math
from pathlib import Path

import torch
import traitlets
from tokenizers.decoders import ByteLevel

from ..errors import CourseError, check_characters
from ..tokens import symbols_to_bytes
from .base import CourseWidget, html_table, visible

_HERE = Path(__file__).parent
_ROWS = 15  # tokens that are drawn as bars
_STILL_ROWS = 10
_SAVED_LOGITS = 256  # kept one by one in a saved page
_SAVED_BINS = 64  # the rest is kept as counts, means and variances: an error of about 1e-6 in probability


def _slider(default, low, high, kind=traitlets.Float):
    return kind(default).tag(sync=True, low=low, high=high)


class NextToken(CourseWidget):
    """What `model` says may follow `prompt`, over the whole vocabulary, and what the sampling settings make
    of it. A token that is chosen is appended, and the model is asked again.

    model:     a decoder-only transformers model; it runs in the kernel, one forward pass a choice
    tokenizer: its tokenizer
    prompt:    str

    temperature (0.05 to 3), top_k (0 is off, to 200), top_p (1 is off), min_p (0 is off), seed: the page
    writes them back when a control is released; setting them from Python moves the controls.
    `prompt`, `chosen` (tuple of int, the ids appended) and `text` tell where the learner is.

    Raises CourseError for a prompt of no tokens or of more tokens than the model has positions, for half a
    surrogate pair, for an encoder-decoder model and for a setting outside its slider.
    """

    _esm = _HERE / "next_token.js"
    _css = _HERE / "next_token.css"

    temperature = _slider(1.0, 0.05, 3.0)
    top_k = _slider(0, 0, 200, traitlets.Int)
    top_p = _slider(1.0, 0.0, 1.0)
    min_p = _slider(0.0, 0.0, 1.0)
    seed = traitlets.Int(0, min=0, max=2**32 - 1).tag(sync=True)
    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, model, tokenizer, prompt, **settings):
        if model.config.is_encoder_decoder:
            raise CourseError(
                f"{type(model).__name__} is an encoder-decoder model, and NextToken continues a prompt. "
                "Give it a decoder-only model, for example the one that load() returns."
            )
        self._model, self._tokenizer = model, tokenizer
        super().__init__(**settings)
        self._show(prompt, ())

    @property
    def prompt(self):
        """str, the prompt. Assigning another one starts again from it."""
        return self.shown["prompt"]

    @prompt.setter
    def prompt(self, prompt):
        self._show(prompt, ())

    @property
    def chosen(self):
        """tuple of int, the ids of the tokens appended to the prompt."""
        return tuple(token["id"] for token in self.shown["chosen"])

    @property
    def text(self):
        """str, the prompt and what was appended to it."""
        return self.prompt + self._tokenizer.decode(self.chosen)

    @traitlets.validate("temperature", "top_k", "top_p", "min_p")
    def _within_slider(self, proposal):
        low, high = (proposal["trait"].metadata[end] for end in ("low", "high"))
        if not low <= proposal["value"] <= high:  # also refuses NaN
            raise CourseError(
                f"{proposal['trait'].name} is {proposal['value']}, but the slider goes from {low} to {high}. "
                "Give a number between them."
            )
        return proposal["value"]

    def answer(self, request):
        """Show the prompt and the tokens of {"prompt": str, "chosen": list of int}."""
        self._show(request["prompt"], request["chosen"])

    def _show(self, prompt, chosen):
        """Ask the model what follows `prompt` and the ids `chosen`; put the answer into the trait `shown`."""
        ids = [*self._prompt_ids(prompt), *chosen]
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if limit and len(ids) > limit:
            raise CourseError(
                f"The text is {len(ids):,} tokens long, and the model has {limit:,} positions. "
                + (
                    "Step back."
                    if chosen
                    else f"Take at least {len(ids) - limit:,} tokens away from the prompt."
                )
            )
        logits = self._logits(ids)
        # The same call as in TopPLogitsWarper, so that tokens with equal logits come in the same order.
        ascending, order = torch.sort(logits, descending=False)
        logits, order = ascending.flip(0), order.flip(0)
        self.set_trait(
            "shown",
            {
                "prompt": prompt,
                "chosen": [self._token(i) for i in chosen],
                "top": [self._token(i) for i in order[:_ROWS].tolist()],
                "logits": logits.numpy().astype("<f4").tobytes(),
                "ids": order.numpy().astype("<u4").tobytes(),
                "vocabulary": len(logits),
                "positions": [len(ids), limit],
            },
        )

    def _prompt_ids(self, prompt):
        """The ids of `prompt` as the tokenizer makes them by default: list of int, at least one."""
        check_characters(prompt, "the prompt")
        ids = self._tokenizer(prompt, verbose=False).input_ids
        if not ids:
            raise CourseError("The prompt is empty, so there is nothing to continue. Type at least one word.")
        return ids

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
        if logits.isnan().any() or logits.max() == math.inf:
            raise CourseError(
                "The model's logits hold NaN or infinity, so they make no distribution. "
                "Load the model again with dtype=torch.float32."
            )
        return logits

    def _token(self, token_id):
        """A token for the page: {"id": int, "text": str with what cannot be seen made visible}."""
        return {"id": token_id, "text": token_label(self._tokenizer, token_id)}

    def page_state(self):
        """The own traits, with the logits cut down to a few kilobytes."""
        logits = torch.frombuffer(bytearray(self.shown["logits"]), dtype=torch.float32)
        shown = {name: value for name, value in self.shown.items() if name != "ids"}
        return super().page_state() | {"shown": shown | binned(logits)}

    def _still_rows(self):
        """The most likely tokens with their probabilities before any setting: list of (label str, float)."""
        logits = torch.frombuffer(bytearray(self.shown["logits"]), dtype=torch.float32)
        probs = logits.double().softmax(-1)[:_STILL_ROWS].tolist()
        return [(token["text"], prob) for token, prob in zip(self.shown["top"], probs, strict=False)]

    def summary(self):
        rows = "\n".join(f"{text:>16}  {prob:.2f}" for text, prob in self._still_rows())
        return f"The {_STILL_ROWS} most likely tokens after {self.text!r}\n{rows}"

    def still(self):
        table = html_table(
            ["Token", "Probability", ""],
            [(text, f"{prob:.2f}", "█" * round(round(prob, 2) * 30)) for text, prob in self._still_rows()],
        )
        return (
            f"<p>The {_STILL_ROWS} most likely tokens after {html.escape(repr(self.text))}</p>{table}"
            "<p>Run the cell to move the settings, choose a token and type a prompt.</p>"
        )


def token_label(tokenizer, token_id):
    """The text of one token with what cannot be seen made visible: str. Bytes that are no whole character
    are written as Python writes them, r"\\xE2\\x80"; a row of the vocabulary without a token as "#50300"."""
    symbol = tokenizer.convert_ids_to_tokens(token_id)
    if symbol is None:
        return f"#{token_id}"
    if token_id in tokenizer.added_tokens_decoder:
        return visible(symbol)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.decoder, ByteLevel):
        return visible(symbol.replace("▁", " "))  # SentencePiece writes a space so
    return visible(symbols_to_bytes(symbol).decode("utf-8", errors="backslashreplace"))


def binned(logits):
    """Descending logits, float32 tensor [vocab], as a few kilobytes: dict of float32 bytes.

    The first stay as they are. The others are put in bins of equal width, each kept as the `counts` of its
    logits, their mean (in `logits`) and their variance (in `variances`). Logits of -inf are left out.
    """
    head, tail = logits[:_SAVED_LOGITS], logits[_SAVED_LOGITS:].double()
    counts, means, variances = [torch.ones(len(head))], [head], [torch.zeros(len(head))]
    finite = tail[tail.isfinite()]
    if len(finite):
        low, high = finite.min(), finite.max()
        place = (
            ((high - finite) / (high - low).clamp(min=1e-9) * _SAVED_BINS).long().clamp(max=_SAVED_BINS - 1)
        )
        for number in place.unique().tolist():  # ascending, so the bins go on in descending order
            inside = finite[place == number]
            counts.append(torch.tensor([len(inside)]))
            means.append(inside.mean().reshape(1))
            variances.append(inside.var(correction=0).reshape(1))
    columns = {"logits": means, "counts": counts, "variances": variances}
    return {
        name: torch.cat([part.float() for part in parts]).numpy().tobytes() for name, parts in columns.items()
    }
