"""Lesson 11: its checks against right and wrong answers, and its questions against their proofs."""

import torch

from course_utils.lessons import lesson11
from course_utils.lessons.lesson11 import DEFAULT, END, START, assistant_labels, encode_safely, render
from lesson_code import definitions
from prove import prove_exercise, prove_questions


def test_questions():
    assert len(prove_questions(lesson11)) == 7


# ---- exercise 1 --------------------------------------------------------------------------------------


def frame(messages, content=lambda text: text):
    return "".join(f"<|im_start|>{one['role']}\n{content(one['content'])}<|im_end|>\n" for one in messages)


PROMPT = "<|im_start|>assistant\n"
SYSTEM = [{"role": "system", "content": DEFAULT}]


def by_loop(messages, add_generation_prompt):
    parts = [] if messages[0]["role"] == "system" else [f"<|im_start|>system\n{DEFAULT}<|im_end|>\n"]
    for one in messages:
        parts += ["<|im_start|>", one["role"], "\n", one["content"], "<|im_end|>", "\n"]
    if add_generation_prompt:
        parts.append(PROMPT)
    return "".join(parts)


def without_default(messages, asked):
    return frame(messages) + PROMPT * asked


def any_system(messages, asked):
    if not any(one["role"] == "system" for one in messages):
        messages = SYSTEM + messages
    return frame(messages) + PROMPT * asked


def only_before_a_user(messages, asked):
    default = SYSTEM if messages[0]["role"] == "user" else []
    return frame(default + messages) + PROMPT * asked


def no_line_feed(messages, asked):
    return render(messages, False) + PROMPT.rstrip() * asked


def always(messages, asked):
    return render(messages, True)


def never(messages, asked):
    return render(messages, False)


def only_after_the_user(messages, asked):
    return render(messages, asked and messages[-1]["role"] == "user")


def stripped(messages, asked):
    return render([{**one, "content": one["content"].strip()} for one in messages], asked)


def one_line(messages, asked):
    return render(messages, asked).replace("<|im_end|>\n", "<|im_end|>")


def in_place(messages, asked):
    if messages[0]["role"] != "system":
        messages.insert(0, SYSTEM[0])
    return frame(messages) + PROMPT * asked


def as_list(messages, asked):
    return [render(messages, asked)]


def without_roles(messages, asked):
    return "\n".join(one["content"] for one in messages)


def without_markers(messages, asked):
    return (
        frame(
            messages if messages[0]["role"] == "system" else SYSTEM + messages,
            lambda text: text.replace("<|im_end|>", "").replace("<|im_start|>", ""),
        )
        + PROMPT * asked
    )


def small_letters(messages, asked):
    return render([{**one, "role": one["role"].lower()} for one in messages], asked)


def another_default(messages, asked):
    return render(messages, asked).replace(DEFAULT, "You are helpful.")


def test_render():
    prove_exercise(
        lesson11.check_render,
        right=[render, by_loop],
        wrong=[
            (without_default, "gets the default one in front."),
            (only_before_a_user, "whoever speaks first"),
            (any_system, "whatever comes later"),
            (no_line_feed, "the generation prompt ends with a line break"),
            (always, "no generation prompt was asked for"),
            (never, "the generation prompt is missing"),
            (only_after_the_user, "after an assistant's turn as well"),
            (stripped, "a content was stripped"),
            (one_line, "not where the template has them"),
            (in_place, "changes its input"),
            (as_list, "return one string"),
            (without_roles, "every message becomes"),
            (without_markers, "A marker was taken out of a content"),
            (small_letters, "Roles are taken as they are"),
            (another_default, "The default system message is another"),
        ],
    )


def test_the_lessons_solution_is_the_librarys():
    (lessons,) = definitions("11", "render", DEFAULT=DEFAULT)
    for chat in lesson11._CHATS:
        for asked in (False, True):
            assert lessons(chat, asked) == render(chat, asked)


# ---- exercise 2 --------------------------------------------------------------------------------------


def by_characters(tokenizer, messages):
    """Markers in contents are encoded as their letters, found with a loop."""
    ids = []
    for one in messages:
        ids.append(START)
        ids.extend(tokenizer.encode(one["role"] + "\n"))
        ids.extend(tokenizer.backend_tokenizer.encode("").ids)
        ids.extend(tokenizer(one["content"], split_special_tokens=True)["input_ids"])
        ids.append(END)
        ids.extend(tokenizer.encode("\n"))
    return torch.tensor([*ids, START, *tokenizer.encode("assistant\n")])


def by_text(tokenizer, messages):
    return tokenizer(render(messages, True)).input_ids


def split_all(tokenizer, messages):
    return tokenizer(render(messages, True), split_special_tokens=True).input_ids


def deleting(tokenizer, messages):
    cleaned = [
        {**one, "content": one["content"].replace("<|im_end|>", "").replace("<|im_start|>", "")}
        for one in messages
    ]
    return tokenizer(render(cleaned, True)).input_ids


def last_only(tokenizer, messages):
    frame = tokenizer(render(messages[:-1], False)).input_ids
    return frame + encode_safely(tokenizer, messages[-1:])


def contents_but_the_systems(tokenizer, messages):
    first = tokenizer(render(messages[:1], False)).input_ids
    return first + encode_safely(tokenizer, messages[1:])


def no_prompt(tokenizer, messages):
    return encode_safely(tokenizer, messages)[: -1 - len(tokenizer("assistant\n").input_ids)]


def as_text(tokenizer, messages):
    return render(messages, True)


def stripped_ids(tokenizer, messages):
    return encode_safely(tokenizer, [{**one, "content": one["content"].strip()} for one in messages])


def test_encode_safely():
    prove_exercise(
        lesson11.check_encode_safely,
        right=[encode_safely, by_characters],
        wrong=[
            (by_text, "a turn was forged in the last message"),
            (last_only, "a turn was forged in an earlier message"),
            (contents_but_the_systems, "a turn was forged in the system message"),
            (split_all, "has lost its special tokens"),
            (deleting, "no longer what was written"),
            (no_prompt, "the generation prompt is missing at the end"),
            (as_text, "return one list of ids"),
            (lambda *given: [encode_safely(*given)], "one flat list of ids"),
            (stripped_ids, "this conversation is harmless"),
        ],
    )


# ---- exercise 3 --------------------------------------------------------------------------------------


def by_positions(ids):
    """Every header is looked for, then the end after it."""
    header = [START, *lesson11._tokenizer()("assistant\n").input_ids]
    labels = [-100] * len(ids)
    for place in range(len(ids)):
        if ids[place : place + len(header)] == header:
            first = place + len(header)
            last = ids.index(END, first) if END in ids[first:] else len(ids) - 1
            labels[first : last + 1] = ids[first : last + 1]
    return torch.tensor(labels)


def turns(ids):
    labels = assistant_labels(ids)
    return labels, [place for place, label in enumerate(labels) if label != -100]


def everything(ids):
    return list(ids)


def last_turn(ids):
    labels, places = turns(ids)
    ends = [place for place in places if ids[place] == END]
    return [label if not ends[:-1] or place > ends[-2] else -100 for place, label in enumerate(labels)]


def without_ends(ids):
    return [-100 if label == END else label for label in assistant_labels(ids)]


def by_pad_id(ids):
    return [-100 if id == END else id for id in ids]


def with_header(ids):
    right, labels = assistant_labels(ids), assistant_labels(ids)
    for place in range(1, len(ids)):
        if right[place] != -100 and right[place - 1] == -100:
            for back in range(1, 5):
                labels[place - back] = ids[place - back]
    return labels


def shifted(ids):
    return [*assistant_labels(ids)[1:], -100]


def ones(ids):
    return [1 if label != -100 else -100 for label in assistant_labels(ids)]


def header_without_start(ids):
    header = lesson11._tokenizer()("assistant\n").input_ids
    labels, inside = [-100] * len(ids), False
    for place, id in enumerate(ids):
        if inside:
            labels[place] = id
            inside = id != END
        elif ids[: place + 1][-len(header) :] == header:
            inside = True
    return labels


def short(ids):
    return assistant_labels(ids)[1:]


def to_the_end(ids):
    """Where no assistant speaks, all is labelled."""
    labels = assistant_labels(ids)
    return labels if any(label != -100 for label in labels) else [*ids[:-1], -100]


def with_line_break(ids):
    labels = assistant_labels(ids)
    for place in range(1, len(ids)):
        if ids[place - 1] == END and labels[place - 1] == END:
            labels[place] = ids[place]
    return labels


def first_turn(ids):
    labels, places = turns(ids)
    ends = [place for place in places if ids[place] == END]
    return [label if not ends or place <= ends[0] else -100 for place, label in enumerate(labels)]


def without_the_first_token(ids):
    labels = assistant_labels(ids)
    return [label if place and labels[place - 1] != -100 else -100 for place, label in enumerate(labels)]


def all_ends(ids):
    return [END if id == END else label for id, label in zip(ids, assistant_labels(ids), strict=True)]


def needs_an_end(ids):
    header = [START, *lesson11._tokenizer()("assistant\n").input_ids]
    labels = [-100] * len(ids)
    for place in range(len(ids)):
        if ids[place : place + len(header)] == header:
            first = place + len(header)
            last = ids.index(END, first)
            labels[first : last + 1] = ids[first : last + 1]
    return labels


def finished_only(ids):
    return assistant_labels(ids) if END in ids[-3:] else [-100] * len(ids)


def test_assistant_labels():
    prove_exercise(
        lesson11.check_assistant_labels,
        right=[assistant_labels, by_positions],
        wrong=[
            (everything, "every token is a target"),
            (last_turn, "only the last turn is labelled"),
            (without_ends, "the ends are missing"),
            (by_pad_id, "these are all tokens but the ends"),
            (with_header, "is labelled too"),
            (shifted, "the labels are shifted"),
            (ones, "not with their own ids"),
            (header_without_start, "from after its header"),
            (short, "return one label for each"),
            (to_the_end, "so there is no target"),
            (with_line_break, "the model stops at the end"),
            (first_turn, "Only the first turn is labelled"),
            (without_the_first_token, "The first token of a turn is missing"),
            (all_ends, "Only the assistant's ends are the model's to write"),
            (needs_an_end, "and your function raised ValueError"),
            (finished_only, "none of its tokens is labelled"),
        ],
    )
