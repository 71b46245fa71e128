"""A conversation as the tokens of one text: whose turn each lies in, and what of it is trained on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import CourseError
from .inputs.text import check_text

WAYS = ("template", "text", "apart")
TEMPLATE, TOKENIZER = "template", "tokenizer"  # in place of a role, where no message speaks


@dataclass(frozen=True)
class ChatToken:
    """A token of a conversation.

    id:      int
    turn:    int, from 0, the message whose turn it lies in; -1 before the first (a default system message);
             the number of messages for the generation prompt
    role:    str, that message's role; "template" before the first, "tokenizer" for what the tokenizer added
    content: bool, whether it is (a part of) what the message says, not of the frame around it
    special: bool, whether it is one of the tokenizer's special tokens
    target:  bool, whether an assistant is trained to write it: the content of its turns and each turn's end
    """

    id: int
    turn: int
    role: str
    content: bool
    special: bool
    target: bool

    @property
    def forged(self) -> bool:
        """Whether a message smuggled a special token in: bool."""
        return self.content and self.special


@dataclass(frozen=True)
class _Piece:
    """A part of the rendered text that belongs to one message, or to none."""

    text: str
    turn: int
    role: str
    content: bool = False
    target: bool = False


def chat_tokens(
    tokenizer: Any,
    messages: Sequence[dict[str, str]],
    add_generation_prompt: bool = False,
    way: str = "template",
) -> list[ChatToken]:
    """The tokens of a conversation, as the tokenizer's own template writes it.

    messages: dicts with "role" and "content", both str, at least one
    way:      "template", as `apply_chat_template` makes the ids; "text", the template's text given to the
              tokenizer, which may add tokens of its own; "apart", each content encoded by itself, so that no
              marker in it counts

    Raises CourseError for messages of another form, a tokenizer without a chat template, roles that the
    template refuses, a template that changes what a message says, and another `way`.
    """
    if way not in WAYS:
        raise CourseError(f"There is no way {way!r}. Give {', '.join(map(repr, WAYS))}.")
    pieces = _pieces(tokenizer, messages, add_generation_prompt)
    special = set(tokenizer.all_special_ids)
    special |= {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    if way == "apart":
        parts = [(piece, _ids(tokenizer, piece.text, split_special_tokens=piece.content)) for piece in pieces]
        return [_token(id, piece, id in special) for piece, ids in parts for id in ids]
    encoded = tokenizer(
        "".join(piece.text for piece in pieces),
        add_special_tokens=way == "text",
        return_offsets_mapping=True,
        verbose=False,
    )
    added = _Piece("", -1, TOKENIZER)
    tokens = []
    for id, (start, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
        piece = added if start == end else _piece_at(pieces, start, end)
        tokens.append(_token(id, piece, id in special))
    return tokens


def _token(id, piece, special):
    # Of the frame, only the end of an assistant's turn is a target: a special token, or all there is.
    target = piece.target and (piece.content or special)
    return ChatToken(id, piece.turn, piece.role, piece.content, special, target)


def _ids(tokenizer, text, **options):
    return tokenizer(text, add_special_tokens=False, verbose=False, **options).input_ids if text else []


def _piece_at(pieces, start, end):
    """The piece that a token lies in; one that reaches into a content belongs to the content."""
    place, found = 0, pieces[-1]
    for piece in pieces:
        inside = min(end, place + len(piece.text)) - max(start, place)
        if inside > 0:
            if piece.content:
                return piece
            found = piece
        place += len(piece.text)
    return found


def render(tokenizer: Any, messages: Sequence[dict[str, str]], add_generation_prompt: bool = False) -> str:
    """The text that the tokenizer's template makes of a conversation: str. Errors as for `chat_tokens`."""
    _check_messages(messages)
    if not getattr(tokenizer, "chat_template", None):
        raise CourseError(
            f"This {type(tokenizer).__name__} has no chat template: its model was not trained on "
            "conversations. Give the tokenizer of an instruct model, for example the one that load() returns."
        )
    import jinja2

    try:
        return tokenizer.apply_chat_template(
            [dict(one) for one in messages], tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except jinja2.exceptions.TemplateError as error:
        roles = ", ".join(one["role"] for one in messages)
        raise CourseError(f"The template refuses this conversation ({roles}): {error}") from None


def _check_messages(messages):
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise CourseError(
            f"The conversation is of type {type(messages).__name__}. "
            'Give a list of messages: [{"role": "user", "content": "Hi"}].'
        )
    if not messages:
        raise CourseError("The conversation is empty. Give at least one message.")
    for number, one in enumerate(messages, 1):
        if not isinstance(one, dict) or not {"role", "content"} <= set(one):
            raise CourseError(f'Message {number} is not a dictionary with a "role" and a "content".')
        for name in ("role", "content"):
            check_text(one[name], f"the {name} of message {number}", "Hi")


def _pieces(tokenizer, messages, add_generation_prompt):
    """The rendered text, cut where a message begins to speak and stops: list of _Piece."""
    text = render(tokenizer, messages, add_generation_prompt)
    # Characters that no message has, so that a message that says "user" is not taken for its own header.
    marks = [f"\ue000{number}\ue001" for number in range(len(messages))]
    marked = [one | {"content": mark} for one, mark in zip(messages, marks, strict=True)]
    frames = re.split("\ue000[0-9]+\ue001", render(tokenizer, marked, add_generation_prompt))
    for contents in ([one["content"] for one in messages], [one["content"].strip() for one in messages]):
        whole = frames[0] + "".join(c + f for c, f in zip(contents, frames[1:], strict=False))
        if len(frames) == len(messages) + 1 and whole == text:
            break
    else:
        raise CourseError(
            "This template changes or leaves out what a message says, so its tokens cannot be told apart."
        )
    pieces, count = [], len(messages)
    before, head = _split_default(tokenizer, frames[0])
    pieces.append(_Piece(before, -1, TEMPLATE))
    for number, (one, content, frame) in enumerate(zip(messages, contents, frames[1:], strict=True)):
        mine = {"turn": number, "role": one["role"]}
        trained = one["role"] == "assistant"
        pieces.append(_Piece(head, **mine))
        pieces.append(_Piece(content, **mine, content=True, target=trained))
        tail, head = _split_end(tokenizer, frame)
        pieces.append(_Piece(tail, **mine, target=trained))
    pieces.append(_Piece(head, count, "assistant" if add_generation_prompt else TEMPLATE))
    return [piece for piece in pieces if piece.text]


def _split_end(tokenizer, frame):
    """A frame as the end of the turn before it and the head of the next: (str, str)."""
    begin = tokenizer.bos_token
    specials = sorted({*tokenizer.all_special_tokens, *_added(tokenizer)} - {begin}, key=len, reverse=True)
    found = re.match(rf"\s*(?:{'|'.join(map(re.escape, specials))})\n?", frame) if specials else None
    end = found.end() if found else 0
    return frame[:end], frame[end:]


def _split_default(tokenizer, frame):
    """The frame before the first message as what the template says of its own and the head: (str, str)."""
    begin = tokenizer.bos_token
    place = frame.rfind(begin) if begin and frame.count(begin) > 1 else 0
    return frame[:place], frame[place:]


def _added(tokenizer):
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
