"""A conversation as the tokens of one text, coloured by role, while it is typed."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import traitlets

from ...chats import chat_tokens
from ...errors import CourseError
from ...inputs.causal import check_causal
from ...inputs.limits import position_limit, unwrapped
from ...inputs.text import check_length
from ..core.labels import isolated, token_label
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_MOST_MESSAGES, _MOST_TOKENS = 12, 400
_FOLLOWERS, _HARDLY = 4, 0.005  # of each of the two distributions; what is less likely is left out


class ChatTokens(CourseWidget):
    """A conversation as one or several tokenizers encode it: a row a turn, each token with its role, ends of
    turns and training targets marked, and what the model would write next, with a generation prompt and
    without.

    model:      a decoder-only transformers model; it reads the first tokenizer's ids
    tokenizers: dict from a name str to a tokenizer with a chat template
    messages:   list of dicts with "role" and "content"
    generation_prompt: bool, whether the header of the assistant's turn is shown at the end
    way:        one of `chats.WAYS`: "template", "text" or "apart"

    `messages`, `generation_prompt` and `way` follow what the learner does; `ids` holds the ids under each
    name. A tokenizer whose template refuses the conversation shows its sentence in place of tokens.

    Raises CourseError for what `chats.chat_tokens` refuses with every tokenizer, for more than 12 messages or
    400 tokens, for a model that is not a decoder, and for ids that the model has no row for.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self, model: Any, tokenizers: dict[str, Any], messages: Sequence[dict[str, str]], *,
        generation_prompt: bool = True, way: str = "template",
    ) -> None:  # fmt: skip
        if not isinstance(tokenizers, dict) or not tokenizers:
            raise CourseError(
                "ChatTokens takes its tokenizers by name: "
                'ChatTokens(model, {"SmolLM2": tokenizer}, [{"role": "user", "content": "Hi"}]).'
            )
        self._model = unwrapped(model)
        check_causal(self._model, "ChatTokens asks what it would write next")
        self._tokenizers = dict(tokenizers)
        super().__init__()
        self._show(messages, generation_prompt, way)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation. Assigning another one shows it."""
        return [dict(one) for one in self.shown["messages"]]

    @messages.setter
    def messages(self, messages: Sequence[dict[str, str]]) -> None:
        self._show(messages, self.generation_prompt, self.way)

    @property
    def generation_prompt(self) -> bool:
        """Whether the generation prompt is part of the ids."""
        return self.shown["generation_prompt"]

    @generation_prompt.setter
    def generation_prompt(self, asked: bool) -> None:
        self._show(self.messages, asked, self.way)

    @property
    def way(self) -> str:
        """How the conversation becomes ids, one of `chats.WAYS`."""
        return self.shown["way"]

    @way.setter
    def way(self, way: str) -> None:
        self._show(self.messages, self.generation_prompt, way)

    @property
    def ids(self) -> dict[str, list[int]]:
        """The ids of the conversation: dict from the tokenizer's name to a list of int."""
        return {one["name"]: [token["id"] for token in one["tokens"]] for one in self.shown["columns"]}

    def answer(self, request: dict) -> dict | None:
        """Show {"messages": list of dict, "generation_prompt": bool, "way": str}."""
        self._show(request["messages"], request["generation_prompt"], request["way"])

    def _show(self, messages, generation_prompt, way):
        if isinstance(messages, Sequence) and len(messages) > _MOST_MESSAGES:
            raise CourseError(
                f"These are {len(messages)} messages, and this view shows at most {_MOST_MESSAGES}."
            )
        generation_prompt = bool(generation_prompt)
        columns, refusals = [], []
        for name, tokenizer in self._tokenizers.items():
            try:
                tokens = chat_tokens(tokenizer, messages, generation_prompt, way)
                check_length(len(tokens), _MOST_TOKENS, "the conversation", "this view shows at most {most}")
                columns.append(_column(name, tokenizer, tokens))
            except CourseError as error:
                refusals.append(error)
                columns.append({"name": name, "tokens": [], "targets": 0, "wrong": str(error)})
        if len(refusals) == len(columns):
            raise refusals[0]
        self.set_trait(
            "shown",
            {
                "messages": [{"role": one["role"], "content": one["content"]} for one in messages],
                "generation_prompt": generation_prompt,
                "way": way,
                "columns": columns,
                "next": self._next(messages, way) if not columns[0]["wrong"] else [],
            },
        )

    def _next(self, messages, way):
        """The likeliest next tokens without and with the generation prompt: list of [label, two floats]."""
        tokenizer = next(iter(self._tokenizers.values()))
        both = []
        for asked in (False, True):
            ids = [token.id for token in chat_tokens(tokenizer, messages, asked, way)]
            both.append(self._probabilities(ids))
        likeliest = {}  # ids in order, each once
        for probs in both:
            top = probs.topk(_FOLLOWERS).indices.tolist()
            likeliest |= {id: None for id in top if probs[id] > _HARDLY or id == top[0]}
        return [
            [token_label(tokenizer, id), *(round(probs[id].item(), 4) for probs in both)] for id in likeliest
        ]

    def _probabilities(self, ids):
        rows = self._model.get_input_embeddings().num_embeddings
        if max(ids) >= rows:
            raise CourseError(
                f"The conversation has the id {max(ids):,}, and the model has {rows:,} rows, 0 to "
                f"{rows - 1:,}. Type model.resize_token_embeddings(len(tokenizer))."
            )
        check_length(
            len(ids), position_limit(self._model), "the conversation", "the model has {most} positions"
        )
        with torch.no_grad():
            logits = self._model(torch.tensor([ids], device=self._model.device), use_cache=False).logits
        return logits[0, -1].float().softmax(-1).cpu()

    def _rows(self, column):
        """What a still picture says of each turn: list of (role, tokens, number, of them targets)."""
        turns = {}
        for token in column["tokens"]:
            turns.setdefault((token["turn"], token["role"]), []).append(token)
        return [
            (
                role,
                " ".join(isolated(t["text"]) for t in tokens),
                len(tokens),
                sum(t["target"] for t in tokens),
            )
            for (_, role), tokens in turns.items()
        ]

    def summary(self) -> str:
        lines = []
        for one in self.shown["columns"]:
            lines.append(
                f"{one['name']}: {_count(len(one['tokens']), 'token')}, {_count(one['targets'], 'target')}"
            )
            lines += [f"  {role}: {tokens}" for role, tokens, *_ in self._rows(one)] or [f"  {one['wrong']}"]
        lines.append("next token, without and with the generation prompt")
        lines += [f"  {isolated(text)}  {a:.2f}  {b:.2f}" for text, a, b in self.shown["next"]]
        return "\n".join(lines)

    def still(self) -> str:
        parts = []
        for one in self.shown["columns"]:
            count = _count(len(one["tokens"]), "token")
            parts.append(f"<p>{html.escape(one['name'])}: {count}</p>")
            if one["wrong"]:
                parts.append(f"<p>{html.escape(one['wrong'])}</p>")
            else:
                parts.append(html_table(["Role", "Tokens", "Number", "Targets"], self._rows(one)))
        rows = [(isolated(text), f"{a:.2f}", f"{b:.2f}") for text, a, b in self.shown["next"]]
        parts.append(html_table(["Next token", "Without generation prompt", "With"], rows))
        parts.append("<p>Run the cell to type another conversation.</p>")
        return "".join(parts)


def _column(name, tokenizer, tokens):
    return {
        "name": name,
        "wrong": "",
        "targets": sum(token.target for token in tokens),
        "tokens": [
            {
                "id": token.id,
                "text": token_label(tokenizer, token.id),
                "turn": token.turn,
                "role": token.role,
                "content": token.content,
                "special": token.special,
                "target": token.target,
            }
            for token in tokens
        ],
    }


def _count(number, noun):
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
