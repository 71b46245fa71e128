"""A padded batch as a grid: what each model is given, and how far its answers are from the sentences' own."""

import html
import inspect
import json
from pathlib import Path
from typing import Any

import torch
import traitlets

from ...errors import CourseError
from ...inputs.causal import check_causal
from ...inputs.limits import check_no_learned_prompt, unwrapped
from ...masks import SIDES, position_ids
from ..core.batch import Choice, padded, tokens_of
from ..core.labels import isolated, rjust, token_label
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_MOST_TOKENS = 24
_TOP = 5
_SAVED_BYTES = 48_000  # of one saved output, within which as many answers are kept as there is room for
_PLACES, _TOKENS = "places", "tokens"  # what a model counts that is given no position ids
_CASES = [(side, mask, positions) for side in SIDES for mask in (True, False) for positions in (True, False)]


class PaddingGrid(CourseWidget):
    """`sentences` as one padded batch, and what it does to each sentence's next-token distribution.

    models:    dict from a name str to (decoder-only transformers model, its tokenizer with a pad token)
    sentences: list of 1 to 6 str, each at most 24 tokens

    `side` ("left", "right"), `give_mask`, `give_positions` (bool) and `model_name` are the switches: the page
    writes them back, setting them from Python moves them. `sentences` can be assigned and follows what the
    learner types. `distances` holds each row's total variation.

    The models run in the kernel, in a bare forward pass: model(input_ids, **what the switches give). An
    answer is read at each row's last token.

    Raises CourseError for other sentences (see `batch.padded`), for a tokenizer without a pad token, for a
    model that is not a decoder, that takes no position ids or counts its own from elsewhere than 0, and for a
    switch that is set to something else.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    side = Choice(SIDES).tag(sync=True)
    give_mask = traitlets.Bool(True).tag(sync=True)
    give_positions = traitlets.Bool(True).tag(sync=True)
    model_name = traitlets.Unicode().tag(sync=True)
    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self,
        models: dict[str, tuple[Any, Any]],
        sentences: Any,
        side: str = "left",
        give_mask: bool = True,
        give_positions: bool = True,
    ) -> None:
        self._models, self._counts = _checked(models)
        switches = {"side": side, "give_mask": give_mask, "give_positions": give_positions}
        super().__init__(model_name=next(iter(models)), **switches)
        self.sentences = sentences

    @property
    def sentences(self) -> list[str]:
        """The sentences that are shown."""
        return list(self._batch.sentences)

    @sentences.setter
    def sentences(self, sentences: Any) -> None:
        self._show(sentences, self.model_name, (self.side, self.give_mask, self.give_positions))

    @property
    def distances(self) -> list[float]:
        """The total variation between each row's distribution and its sentence's alone: list of float."""
        return [answer["distance"] for answer in self._answers()]

    @traitlets.validate("model_name")
    def _known_model(self, proposal):
        if proposal["value"] not in self._models:
            names = " or ".join(map(repr, self._models))
            raise CourseError(f"There is no model {proposal['value']!r}. Give {names}.")
        return proposal["value"]

    def answer(self, request: dict) -> dict | None:
        """Show {"sentences": list of str}, and ask the model {"model_name": str} for {"case": [side, mask,
        positions]}."""
        self._show(request["sentences"], request["model_name"], tuple(request["case"]))

    def _show(self, sentences, name, case):
        batch = getattr(self, "_batch", None)
        if batch is None or batch.sentences != sentences:
            batch = _Batch(self._models, sentences, self._counts)
        batch.answers(name, *case)  # before anything is changed: it may raise
        self._batch = batch
        self.set_trait("shown", batch.state())

    def _answers(self):
        return self._batch.answers(self.model_name, self.side, self.give_mask, self.give_positions)

    def page_state(self) -> dict[str, Any]:
        """The own traits, with the answers of all switches, as many as fit; those on view in any case. What
        the models have not been asked yet they are asked now."""
        now = (self.side, self.give_mask, self.give_positions)
        names = sorted(self._models, key=lambda name: name != self.model_name)
        asked = [(self.model_name, now), *((name, case) for name in names for case in _CASES)]
        saved = {name: {} for name in self._models}
        room = _SAVED_BYTES - sum(len(str(text)) for text in (self._esm, self._css, self.still()))
        room -= len(json.dumps(self._batch.state(saved)))
        for name, case in asked:
            answers = self._batch.answers(name, *case)
            room -= 0 if _key(*case) in saved[name] else len(json.dumps(answers))
            if room < 0 and saved[self.model_name]:
                break
            saved[name][_key(*case)] = answers
        return super().page_state() | {"shown": self._batch.state(saved)}

    def _given(self):
        """What the switches say, as text: list of str."""
        return [
            self.model_name,
            f"padding on the {self.side}",
            f"attention mask {'given' if self.give_mask else 'not given'}",
            f"position ids {'given' if self.give_positions else 'not given'}",
        ]

    def _lines(self):
        """For each row its lines, each (name str, list of cells), and its answer: an iterator of pairs."""
        batch = self._batch.padded(self.model_name, self.side)
        mask = batch["attention_mask"]
        given_mask = mask if self.give_mask else torch.ones_like(mask)
        if self.give_positions:
            positions = position_ids(mask)
        elif self._counts[self.model_name] == _TOKENS:
            positions = position_ids(given_mask)
        else:
            positions = torch.arange(mask.shape[1]).expand_as(mask)
        _, tokenizer = self._models[self.model_name]
        tokens = tokens_of(tokenizer, batch)
        for number, answer in enumerate(self._answers()):
            labels = iter([label for _, label in tokens[number]])
            lines = [
                (f"Row {number}", [next(labels) if real else "pad" for real in mask[number]]),
                ("ids", batch["input_ids"][number].tolist()),
                ("mask" if self.give_mask else "no mask: all 1", given_mask[number].tolist()),
                ("positions" if self.give_positions else "counted", positions[number].tolist()),
            ]
            yield lines, answer

    def summary(self) -> str:
        text = [", ".join(self._given())]
        for lines, answer in self._lines():
            width = max(len(str(cell)) for _, cells in lines for cell in cells)
            text += [
                f"{name:15}" + " ".join(rjust(isolated(str(cell)), width) for cell in cells)
                for name, cells in lines
            ]
            text.append(f"total variation from the sentence alone: {answer['distance']:.2f}")
        return "\n".join(text)

    def still(self) -> str:
        lines, answers = zip(*self._lines(), strict=True)
        places = range(len(lines[0][0][1]))
        grid = html_table(
            ["Index", *places],
            [(name, *(isolated(str(cell)) for cell in cells)) for row in lines for name, cells in row],
        )
        alone = self._batch.alone_top(self.model_name)
        comparison = html_table(
            ["", "Total variation", "Alone", "In this batch"],
            [
                (f"Row {number}", f"{answer['distance']:.2f}", _likely(own), _likely(answer["top"]))
                for number, (answer, own) in enumerate(zip(answers, alone, strict=True))
            ],
        )
        return (
            f"<p>{html.escape(', '.join(self._given()))}</p>{grid}"
            f"<p>The most likely next tokens, of each sentence alone and in this batch</p>{comparison}"
        )


class _Batch:
    """Sentences as each model sees them, and what each model says to them, asked at most once."""

    def __init__(self, models: dict[str, tuple[Any, Any]], sentences: Any, counts: dict[str, str]) -> None:
        self.models, self.counts = models, counts
        self._padded = {
            (name, side): padded(model, tokenizer, sentences, side, _MOST_TOKENS)
            for name, (model, tokenizer) in models.items()
            for side in SIDES
        }
        self.sentences = list(sentences)
        self._alone, self._answers = {}, {name: {} for name in models}

    def padded(self, name, side):
        return self._padded[name, side]

    def alone(self, name):
        """The next-token distribution of each sentence by itself: float64 tensor [batch, vocab]."""
        if name not in self._alone:
            model, tokenizer = self.models[name]
            rows = [tokenizer(sentence, return_tensors="pt").input_ids for sentence in self.sentences]
            self._alone[name] = torch.cat([_next_token(model, row, [-1]) for row in rows])
        return self._alone[name]

    def alone_top(self, name):
        return [self._top(name, probs) for probs in self.alone(name)]

    def answers(self, name, side, give_mask, give_positions):
        """What the model says to the padded batch: for each row {"distance": total variation from the
        sentence alone, 0 to 1, "top": [[label str, probability float], ...]}."""
        known = self._answers[name]
        case = _key(side, give_mask, give_positions)
        if case not in known:
            batch = self.padded(name, side)
            mask = batch["attention_mask"]
            given = {"attention_mask": mask} if give_mask else {}
            given |= {"position_ids": position_ids(mask)} if give_positions else {}
            last = mask.cumsum(1).argmax(1)  # the place of each row's last token
            probs = _next_token(self.models[name][0], batch["input_ids"], last, **given)
            distances = (probs - self.alone(name)).abs().sum(-1) / 2
            known[case] = [
                {"distance": round(distance, 4), "top": self._top(name, row)}
                for distance, row in zip(distances.tolist(), probs, strict=True)
            ]
        return known[case]

    def _top(self, name, probs):
        _, tokenizer = self.models[name]
        values, ids = probs.topk(_TOP)
        pairs = zip(values.tolist(), ids.tolist(), strict=True)
        return [[token_label(tokenizer, token_id), round(value, 6)] for value, token_id in pairs]

    def state(self, answers=None):
        """Everything known so far, for the page: dict. `answers` in place of all that were asked for."""
        answers = self._answers if answers is None else answers
        return {
            "sentences": self.sentences,
            "models": [
                {
                    "name": name,
                    "tokens": tokens_of(tokenizer, self.padded(name, "left")),
                    "pad": [tokenizer.pad_token_id, token_label(tokenizer, tokenizer.pad_token_id)],
                    "counts": self.counts[name],
                    "alone": self.alone_top(name) if answers[name] else [],
                    "answers": dict(answers[name]),
                }
                for name, (_, tokenizer) in self.models.items()
            ],
        }


def _key(side, give_mask, give_positions):
    return f"{side} {int(give_mask)}{int(give_positions)}"


def _logits(model, input_ids, **given):
    """The model's logits, on the CPU: tensor [batch, length, vocab]."""
    given = {name: tensor.to(model.device) for name, tensor in given.items()}
    with torch.no_grad():
        return model(input_ids.to(model.device), **given).logits.cpu()


def _next_token(model, input_ids, at, **given):
    """The distribution after the places `at`, one a row: float64 tensor [batch, vocab] on the CPU."""
    logits = _logits(model, input_ids, **given)
    logits = logits[range(len(logits)), at].double()
    if logits.isnan().any() or logits.isposinf().any():
        raise CourseError(
            "The model's logits hold NaN or infinity, so they make no distribution. "
            "Load the model again with dtype=torch.float32."
        )
    return logits.softmax(-1)


def _checked(models):
    """The models once known to fit, and what each counts (see `_counted`): (dict, dict by name)."""
    pairs = list(models.values()) if isinstance(models, dict) else []
    if not pairs or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise CourseError(
            "PaddingGrid takes pairs of model and tokenizer, by name. "
            'Type {"GPT-2": load("tiny-gpt2")} as its first argument.'
        )
    models = {name: (unwrapped(model), tokenizer) for name, (model, tokenizer) in models.items()}
    for model, _ in models.values():
        check_no_learned_prompt(model, "PaddingGrid")
        check_causal(model, "PaddingGrid shows a decoder's batch")
        if "position_ids" not in inspect.signature(model.forward).parameters:
            raise CourseError(
                f"{type(model).__name__} takes no position ids, so there is no switch for them. "
                'Give PaddingGrid another model, for example load("tiny-gpt2").'
            )
    return models, {name: _counted(*pair) for name, pair in models.items()}


def _counted(model, tokenizer):
    """What a model counts that is given no position ids: "places" of the row, or "tokens", by the mask, as
    OPT does. Raises CourseError for a model that begins elsewhere than at 0, such as RoBERTa."""
    pad_id = tokenizer.pad_token_id
    if pad_id is None or model.training:  # refused later; dropout makes every two answers differ
        return _PLACES
    ids = torch.tensor([[pad_id, *[one for one in range(3, 8) if one != pad_id]]])
    mask = torch.ones_like(ids).index_fill(1, torch.tensor([0]), 0)
    places = torch.arange(ids.shape[1])[None]

    def answer(input_ids, **given):
        return _logits(model, input_ids, **given)[:, 1:]  # without the padding's

    def same(one, other):
        scale = float(one.abs().nan_to_num(0, 0).max())
        return torch.allclose(one, other, rtol=0, atol=1e-4 * scale, equal_nan=True)

    alone, padded = ids[:, 1:], {"attention_mask": mask}
    if same(answer(alone), answer(alone, position_ids=places[:, :-1])):
        own = answer(ids, **padded)
        for counts, positions in ((_PLACES, places), (_TOKENS, position_ids(mask))):
            if same(own, answer(ids, **padded, position_ids=positions)):
                return counts
    raise CourseError(
        f"{type(model).__name__} counts its positions in a way of its own, so those that this view gives it "
        'would be wrong. Give PaddingGrid another model, for example load("tiny-gpt2").'
    )


def _likely(top):
    return " | ".join(f"{isolated(text)} {100 * prob:.2f} %" for text, prob in top[:3])
