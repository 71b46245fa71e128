"""Beam search as a tree: every candidate that the library weighed, and what became of it."""

import html
from pathlib import Path
from typing import Any

import torch
import traitlets

from ...decoding.beam_search import is_continuation, search_settings, watch_beam_search
from ...errors import CourseError
from ...inputs.causal import check_causal
from ...inputs.limits import position_limit, unwrapped
from ...inputs.text import text_ids
from ...scores import generated_lengths, sequence_scores
from ..core.labels import isolated, quoted, token_label
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_BEAMS = 2, 8
_STEPS = 1, 10
_PENALTY = -3, 3  # beyond it length ** penalty leaves little of a score to see
_COLUMNS = {"kept": "Goes on", "finished": "Finished", "pruned": "Pruned", "open": "Left open"}


def _setting(name, meaning):
    def get(self):
        return self.shown[name]

    def put(self, value):
        self._show(self._settings() | {name: value})

    return property(get, put, doc=f"{meaning}. Assigning another one searches again.")


class BeamTree(CourseWidget):
    """Beam search from `prompt`, as `model.generate` runs it: a column a step, a box a candidate.

    model:          a decoder-only transformers model; it runs in the kernel, twice for each change
    tokenizer:      its tokenizer
    eos_token_id:   int or list of int, the tokens that end a sequence; None for the model's own, () for none

    `prompt`, `num_beams`, `max_new_tokens`, `length_penalty` and `early_stopping` are the settings: the page
    changes them, assigning one from Python searches again. `output` is what generate() returned, all
    `num_beams` sequences with their `scores`, `sequences_scores` and `beam_indices`; `steps` holds what was
    weighed (see `beams.Candidate`); `greedy` is what generate() returned for one beam. The model's own logits
    processors count; its stop strings, and what asks for another search, do not.

    Raises CourseError for a setting out of its range, for a prompt of no tokens or of more than the model has
    positions, for half a surrogate pair, for a model that is not a decoder and for logits of NaN.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    shown = traitlets.Dict(read_only=True).tag(sync=True)

    prompt = _setting("prompt", "str, the prompt")
    num_beams = _setting("num_beams", "int, how many beams run, 2 to 8")
    max_new_tokens = _setting("max_new_tokens", "int, how many steps the search may take, 1 to 10")
    length_penalty = _setting("length_penalty", "float, -3 to 3; a score is sum / length ** it")
    early_stopping = _setting("early_stopping", 'False, True or "never", when the search may stop')

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompt: str,
        num_beams: int = 3,
        max_new_tokens: int = 5,
        length_penalty: float = 1.0,
        early_stopping: bool | str = False,
        eos_token_id: Any = None,
    ) -> None:
        model = unwrapped(model)
        check_causal(model, "BeamTree continues a prompt")
        self._model, self._tokenizer = model, tokenizer
        if eos_token_id is None:
            eos_token_id = model.generation_config.eos_token_id
        self._ends = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id or ())
        super().__init__()
        self._show(
            {
                "prompt": prompt,
                "num_beams": num_beams,
                "max_new_tokens": max_new_tokens,
                "length_penalty": length_penalty,
                "early_stopping": early_stopping,
            }
        )

    def answer(self, request: dict) -> dict | None:
        """Search with the five settings of `request`, by their names. A refusal says which is to blame."""
        if refusal := self._refusal(request):
            about, sentence = refusal
            return {"about": about, "error": sentence}
        return self._show(request)

    def _settings(self):
        names = ("prompt", "num_beams", "max_new_tokens", "length_penalty", "early_stopping")
        return {name: self.shown[name] for name in names}

    def _refusal(self, settings):
        """Which setting cannot be, and why: (name, sentence), or None."""
        beams, steps, penalty = (settings[name] for name in ("num_beams", "max_new_tokens", "length_penalty"))
        if beams == 1:
            return "num_beams", "One beam is greedy decoding, which has no tree. Give 2 beams or more."
        for name, value, (low, high), whole in (
            ("num_beams", beams, _BEAMS, True),
            ("max_new_tokens", steps, _STEPS, True),
            ("length_penalty", penalty, _PENALTY, False),
        ):
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:  # also refuses NaN
                given = "empty or no number" if value is None else repr(value)
                kind = "a whole number" if whole else "a number"
                return name, f"{name} is {given}. Give {kind} from {low} to {high}."
        stopping = settings["early_stopping"]
        if stopping != "never" and not isinstance(stopping, bool):
            return "early_stopping", f"early_stopping is {stopping!r}. Give False, True or 'never'."
        if sentence := self._prompt_refusal(settings["prompt"], steps):
            return "prompt", sentence
        return None

    def _prompt_refusal(self, prompt, steps):
        """Why the prompt cannot be continued: str, or None."""
        try:
            length = len(text_ids(self._tokenizer, prompt, "the prompt"))
        except CourseError as error:
            return str(error)
        limit = position_limit(self._model, generating=True)
        if limit and length + steps - 1 > limit:  # the last new token is not put into the model
            return (
                f"The prompt has {length:,} tokens; with {steps} new ones it takes {length + steps - 1:,} "
                f"positions, and the model has {limit:,}. Shorten it by {length + steps - 1 - limit:,} or "
                "more tokens."
            )
        return None

    def _prompt_ids(self, prompt):
        """LongTensor [1, length] on the model's device."""
        ids = self._tokenizer(prompt, verbose=False).input_ids
        return torch.tensor([ids], dtype=torch.long, device=self._model.device)

    def _show(self, settings):
        """Search with these settings; put what was found into the trait `shown`."""
        if refusal := self._refusal(settings):
            raise CourseError(refusal[1])
        ids = self._prompt_ids(settings["prompt"])
        steps, penalty = settings["max_new_tokens"], settings["length_penalty"]
        greedy = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=1,
            max_new_tokens=steps,
            return_dict_in_generate=True,
            output_scores=True,
            **search_settings(self._ends),
        )
        if any(scores.isnan().any() or scores.isposinf().any() for scores in greedy.scores):
            raise CourseError(
                "The model's logits hold NaN or infinity, so they make no distribution. "
                "Load the model again with dtype=torch.float32."
            )
        output, found = watch_beam_search(
            self._model,
            ids,
            settings["num_beams"],
            steps,
            self._ends,
            also=greedy.sequences[0, ids.shape[1] :].tolist(),
            length_penalty=penalty,
            early_stopping=settings["early_stopping"],
        )
        self.output, self.steps, self.greedy = output, found, greedy
        new = slice(ids.shape[1], None)
        totals = {one.tokens: one.total for step in found for one in step}
        scored = zip(
            output.sequences[:, new].tolist(),
            generated_lengths(output).tolist(),
            output.sequences_scores.tolist(),
            strict=True,
        )
        results = [
            self._sequence(tokens[:length], totals[tuple(tokens[:length])], score)
            for tokens, length, score in scored
            if is_continuation(length, score, penalty)
        ]
        path = greedy.sequences[0, new].tolist()
        (alone,) = sequence_scores(greedy, 0.0, self._ends).tolist()
        total = totals.get(tuple(path), alone)  # beam search may have left greedy decoding's path
        self.set_trait(
            "shown",
            {
                **settings,
                "ends": list(map(self._label, self._ends)),
                "steps": self._nodes(results, path),
                "results": results,
                "greedy": self._sequence(path, total, total / len(path) ** penalty),
            },
        )

    def _label(self, token):
        return token_label(self._tokenizer, token)

    def _sequence(self, tokens, total, score):
        """A sequence for the page: dict."""
        labels = list(map(self._label, tokens))
        return {"ids": tokens, "tokens": labels, "total": round(total, 4), "score": round(score, 6)}

    def _nodes(self, results, greedy):
        """The candidates for the page: a list of dict for each step.

        text: str; parent: int, the number of its parent in the step before, -1 in the first; log_prob, total:
        float; rank: int; fate: str; and where they hold: ends, greedy: True; place: int, from 1, its place
        among the results
        """
        place = {tuple(result["ids"]): number for number, result in enumerate(results, 1)}
        parents: dict[tuple[int, ...], int] = {(): -1}
        steps = []
        for step in self.steps:
            steps.append(
                [
                    {
                        "text": self._label(one.tokens[-1]),
                        "parent": parents[one.tokens[:-1]],
                        "log_prob": round(one.log_prob, 4),
                        "total": round(one.total, 4),
                        "rank": one.rank,
                        "fate": one.fate,
                    }
                    | ({"ends": True} if one.tokens[-1] in self._ends else {})
                    | ({"greedy": True} if list(one.tokens) == greedy[: len(one.tokens)] else {})
                    | ({"place": place[one.tokens]} if one.tokens in place else {})
                    for one in step
                ]
            )
            parents = {one.tokens: number for number, one in enumerate(step)}
        return steps

    def _title(self):
        settings = (f"{name} {value}" for name, value in self._settings().items() if name != "prompt")
        return f"Beam search after {quoted(self.prompt)}: {', '.join(settings)}"

    def _by_fate(self):
        """What became of the candidates: for each step a dict from a fate to a list of str."""
        return [
            {
                fate: [
                    f"{isolated(''.join(map(self._label, one.tokens)))} {one.total:.2f}"
                    for one in step
                    if one.fate == fate
                ]
                for fate in _COLUMNS
            }
            for step in self.steps
        ]

    def _sequences(self):
        """The results, best first, then greedy decoding's: lists of [place, text, tokens, sum, score]."""
        named = [*enumerate(self.shown["results"], 1), ("greedy", self.shown["greedy"])]
        return [
            [
                name,
                isolated("".join(one["tokens"])),
                len(one["tokens"]),
                f"{one['total']:.2f}",
                f"{one['score']:.2f}",
            ]
            for name, one in named
        ]

    def summary(self) -> str:
        lines = [self._title()]
        for number, fates in enumerate(self._by_fate(), 1):
            lines += [
                f"step {number}, {_COLUMNS[fate].lower()}: {' | '.join(found)}"
                for fate, found in fates.items()
                if found
            ]
        lines += [
            f"{name}: {text}, {length} tokens, sum {total}, score {score}"
            for name, text, length, total, score in self._sequences()
        ]
        return "\n".join(lines)

    def still(self) -> str:
        steps = self._by_fate()
        fates = [fate for fate in _COLUMNS if any(step[fate] for step in steps)]
        tree = html_table(
            ["Step", *(_COLUMNS[fate] for fate in fates)],
            [[number, *(" | ".join(step[fate]) for fate in fates)] for number, step in enumerate(steps, 1)],
        )
        results = html_table(["Result", "Sequence", "Tokens", "Sum", "Score"], self._sequences())
        return (
            f"<p>{html.escape(self._title())}</p>{tree}{results}"
            "<p>Run the cell to change the settings and to see the tree.</p>"
        )
