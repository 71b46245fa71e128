"""Two greedy runs of one prompt side by side, and the token at which rounding parts them."""

import copy
import html
from pathlib import Path
from typing import Any

import torch
import traitlets

from ...errors import CourseError
from ...inputs.causal import check_causal
from ...inputs.limits import position_limit, unwrapped
from ...inputs.text import check_length, text_ids
from ...rounding import greedy_run
from ..core.labels import isolated, quoted, token_label
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_MOST_TOKENS, _MOST_NEW = 64, 40
# From a run's name to (bfloat16 or the model's own type, cache, batch).
RUNS = {
    "as loaded": (False, True, False),
    "without a cache": (False, False, False),
    "in a padded batch": (False, True, True),
    "bfloat16": (True, True, False),
    "bfloat16, without a cache": (True, False, False),
    "bfloat16, in a padded batch": (True, True, True),
}


class TwoRuns(CourseWidget):
    """Greedy decoding of one prompt in two ways: the tokens of both, the gap between the two best logits at
    each step, and the first step at which the tokens differ.

    model:      a decoder-only transformers model; a bfloat16 copy of it is made when it is first asked for
    tokenizer:  its tokenizer
    prompt:     str
    left, right: str, names of `RUNS`
    new_tokens: int, 1 to 40

    `prompt`, `left` and `right` follow what the learner does. `parted` is the first step at which the two
    differ, counted from 0, or None.

    Raises CourseError for a prompt that is not a str, empty, of more than 64 tokens or too long for the
    model, for a model that is not a decoder, for another run, and for another number of new tokens.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self, model: Any, tokenizer: Any, prompt: str, left: str = "as loaded", right: str = "bfloat16", *,
        new_tokens: int = 16,
    ) -> None:  # fmt: skip
        model = unwrapped(model)
        check_causal(model, "TwoRuns continues a prompt")
        if (
            isinstance(new_tokens, bool)
            or not isinstance(new_tokens, int)
            or not 1 <= new_tokens <= _MOST_NEW
        ):
            raise CourseError(f"new_tokens is {new_tokens!r}. Give a whole number from 1 to {_MOST_NEW}.")
        self._model, self._tokenizer, self._new_tokens = model, tokenizer, new_tokens
        self._rough = None  # the bfloat16 copy
        super().__init__()
        self._show(prompt, left, right)

    @property
    def prompt(self) -> str:
        """The prompt. Assigning another one runs both ways anew."""
        return self.shown["prompt"]

    @prompt.setter
    def prompt(self, prompt: str) -> None:
        self._show(prompt, self.left, self.right)

    @property
    def left(self) -> str:
        """The name of the first run, one of `RUNS`."""
        return self.shown["runs"][0]["name"]

    @left.setter
    def left(self, name: str) -> None:
        self._show(self.prompt, name, self.right)

    @property
    def right(self) -> str:
        """The name of the second run, one of `RUNS`."""
        return self.shown["runs"][1]["name"]

    @right.setter
    def right(self, name: str) -> None:
        self._show(self.prompt, self.left, name)

    @property
    def parted(self) -> int | None:
        """The first step, from 0, at which the two runs write different tokens: int, or None."""
        return self.shown["parted"]

    def answer(self, request: dict) -> dict | None:
        """Run {"prompt": str, "left": str, "right": str}."""
        self._show(request["prompt"], request["left"], request["right"])

    def _show(self, prompt, left, right):
        for name in (left, right):
            if name not in RUNS:
                raise CourseError(f"There is no run {name!r}. Give {', '.join(map(repr, RUNS))}.")
        ids = text_ids(self._tokenizer, prompt, "the prompt")
        check_length(len(ids), _MOST_TOKENS, "the prompt", "this view takes at most {most}")
        limit = position_limit(self._model)
        room = None if limit is None else limit - self._new_tokens
        check_length(
            len(ids), room, "the prompt", f"with {self._new_tokens} new ones the model takes {{most}}"
        )
        runs = [self._run(name, ids) for name in (left, right)]
        written = [[token["id"] for token in run["tokens"]] for run in runs]
        parted = next((at for at, pair in enumerate(zip(*written, strict=True)) if pair[0] != pair[1]), None)
        shown = {"prompt": prompt, "runs": runs, "parted": parted, "names": list(RUNS)}
        self.set_trait("shown", shown | {"said": _said(runs, parted)})

    def _run(self, name, ids):
        rough, cache, batch = RUNS[name]
        model = self._model
        if rough:
            if self._rough is None:
                self._rough = copy.deepcopy(self._model).to(torch.bfloat16)
            model = self._rough
        tensor = torch.tensor([ids], device=model.device)
        new, gaps = greedy_run(model, tensor, self._new_tokens, cache=cache, batch=batch)
        tokens = [
            {"id": id, "text": token_label(self._tokenizer, id), "gap": round(gap, 4)}
            for id, gap in zip(new, gaps, strict=True)
        ]
        return {"name": name, "tokens": tokens}

    def _rows(self):
        """One row a step: (number, token, gap, token, gap, whether the tokens are equal)."""
        left, right = (run["tokens"] for run in self.shown["runs"])
        return [
            (
                at,
                *(part for one in pair for part in (isolated(one["text"]), f"{one['gap']:.2f}")),
                "" if pair[0]["id"] == pair[1]["id"] else "differs",
            )
            for at, pair in enumerate(zip(left, right, strict=True), 1)
        ]

    def summary(self) -> str:
        lines = [f"After {quoted(self.prompt)}: {self.left} beside {self.right}. {self.shown['said']}"]
        lines += [
            f"{run['name']}: {' '.join(isolated(token['text']) for token in run['tokens'])}"
            for run in self.shown["runs"]
        ]
        return "\n".join(lines)

    def still(self) -> str:
        head = ["Step", html.escape(self.left), "Gap", html.escape(self.right), "Gap", ""]
        return (
            f"<p>After {html.escape(quoted(self.prompt))}: {html.escape(self.shown['said'])}</p>"
            f"{html_table(head, self._rows())}<p>Run the cell to try another prompt and other ways.</p>"
        )


def _said(runs, parted):
    """Where the two runs part, as a sentence: str."""
    gaps = [token["gap"] for token in runs[0]["tokens"]]
    if parted is None:
        return f"All {len(gaps)} tokens are equal. The smallest gap is {min(gaps):.2f}."
    return f"They part at token {parted + 1}, where the gap of the first run is {gaps[parted]:.2f}."
