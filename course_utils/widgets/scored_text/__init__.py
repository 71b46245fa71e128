"""A text in the colours of its probability: how much each token surprised the model."""

import html
import math
from pathlib import Path
from typing import Any

import torch
import traitlets

from ...errors import CourseError
from ...inputs.limits import position_limit, unwrapped
from ...inputs.text import check_length, text_ids
from ...scores import next_token_log_probs
from ..core.labels import isolated, quoted, rjust, token_label
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_MOST_TOKENS = 128  # more would be a page of numbers, and an output too large for a notebook
_TOP = 5
_STILL_ROWS = 40


class ScoredText(CourseWidget):
    """`text`, each token coloured by the probability that `model` gave it, with what it expected instead.

    model:     a decoder-only transformers model; it runs in the kernel, one forward pass a text
    tokenizer: its tokenizer
    text:      str of 2 to 128 tokens

    `text` can be assigned and follows what the learner types. `surprises` holds each token's surprise in bits
    and `perplexity` 2 to the power of their mean, as `scores.perplexity` has it. The first token has neither:
    nothing stands before it. Where the tokenizer itself puts a token before every text, that one is first.

    Raises CourseError for a text of fewer or more tokens or of more than the model has positions, for half a
    surrogate pair, for a model that is not a decoder and for logits that make no distribution.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, model: Any, tokenizer: Any, text: str) -> None:
        self._model, self._tokenizer = unwrapped(model), tokenizer
        super().__init__()
        self.text = text

    @property
    def text(self) -> str:
        """The text that is shown."""
        return self.shown["text"]

    @text.setter
    def text(self, text: str) -> None:
        ids, added = self._ids(text)
        expected = next_token_log_probs(self._model, torch.tensor([ids]))[0, :-1]
        if expected.isnan().any():
            raise CourseError(
                "The model's logits hold NaN or infinity, so they make no distribution. "
                "Load the model again with dtype=torch.float32."
            )
        chosen = expected.gather(-1, torch.tensor(ids[1:], device=expected.device)[:, None])
        ranks = (expected > chosen).sum(-1) + 1
        top = expected.exp().topk(_TOP)
        tokens = [{"id": ids[0], "rank": None, "bits": None, "top": []}]
        for token_id, rank, log_prob, probs, others in zip(
            ids[1:],
            ranks.tolist(),
            chosen[:, 0].tolist(),
            top.values.tolist(),
            top.indices.tolist(),
            strict=True,
        ):
            # A probability of 0 is infinitely surprising, and JSON has no word for that either.
            bits = round(-log_prob / math.log(2), 4) if log_prob > -math.inf else None
            runners_up = [[other, round(prob, 6)] for other, prob in zip(others, probs, strict=True)]
            tokens.append({"id": token_id, "rank": rank, "bits": bits, "top": runners_up})
        known = {*ids, *(other for token in tokens for other, _ in token["top"])}
        self.set_trait(
            "shown",
            {
                "text": text,
                "added": added,
                "tokens": tokens,
                "labels": {str(one): token_label(self._tokenizer, one) for one in sorted(known)},
            },
        )

    @property
    def surprises(self) -> list[float | None]:
        """list of float, one a token, in bits: the negative base-2 logarithm of its probability. None for the
        first, math.inf for one that the model holds impossible."""
        scored = self.shown["tokens"][1:]
        return [None, *(math.inf if token["bits"] is None else token["bits"] for token in scored)]

    @property
    def perplexity(self) -> float:
        """At least 1: 2 to the power of the mean surprise in bits."""
        scored = self.surprises[1:]
        return float(torch.tensor(scored, dtype=torch.float64).mean().exp2())  # inf where 2 ** x overflows

    def answer(self, request: dict) -> dict | None:
        """Show the text of {"text": str}."""
        self.text = request["text"]

    def _ids(self, text):
        """The ids of `text` as the tokenizer makes them by default, and whether it put a token before them:
        (list of int, at least two, bool)."""
        ids = text_ids(self._tokenizer, text, purpose="score")
        own = self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        if not own:
            raise CourseError("The text is empty, so there is nothing to score. Type a few words.")
        if len(ids) < 2:
            raise CourseError(
                f"The text is one token, “{token_label(self._tokenizer, ids[0])}”, and a first token has no "
                "probability: nothing stands before it. Type one word more."
            )
        limit = position_limit(self._model)
        check_length(len(ids), limit, "the text", "the model has {most} positions")
        if len(ids) > _MOST_TOKENS:
            raise CourseError(
                f"The text is {len(ids):,} tokens long, and this view shows at most {_MOST_TOKENS}. Shorten "
                "it, or score it in a cell: course_utils.scores.perplexity(model, input_ids)."
            )
        return ids, ids[1:] == own

    def _label(self, token):
        return self.shown["labels"][str(token["id"])]

    def _total(self):
        """What all tokens come to: str."""
        scored = [surprise for surprise in self.surprises if surprise is not None]
        mean = sum(scored) / len(scored)
        return (
            f"{len(scored)} of {len(scored) + 1} tokens scored, {mean:.2f} bits a token, "
            f"perplexity {three_digits(self.perplexity)}"
        )

    def _rows(self):
        """For each of the first tokens (label, probability, surprise): list of tuples of str."""
        rows = []
        for token, bits in zip(self.shown["tokens"][:_STILL_ROWS], self.surprises, strict=False):
            numbers = ("none", "none") if bits is None else (f"{2**-bits:.2f}", f"{bits:.1f}")
            rows.append((self._label(token), *numbers))
        left = len(self.shown["tokens"]) - len(rows)
        return [*rows, (f"{left} more", "", "")] if left else rows

    def summary(self) -> str:
        rows = "\n".join(
            f"{rjust(isolated(label), 16)}  {prob:>4}  {bits:>4}" for label, prob, bits in self._rows()
        )
        return f"{quoted(self.text)}\n{self._total()}\n{'token':>16}  prob  bits\n{rows}"

    def still(self) -> str:
        table = html_table(
            ["Token", "Probability", "Surprise, bits"],
            [(isolated(label), *numbers) for label, *numbers in self._rows()],
        )
        return (
            f"<p>{html.escape(quoted(self.text))}: {self._total()}</p>{table}"
            "<p>Run the cell to type another text and see what the model expected at each index.</p>"
        )


def three_digits(number: float) -> str:
    """A positive number with three digits that count: "27.9", "20,300" or "1.23e+15"; "∞" for infinity."""
    if number == math.inf:
        return "∞"
    return f"{float(f'{number:.3g}'):,.10g}" if number < 1e9 else f"{number:.2e}"
