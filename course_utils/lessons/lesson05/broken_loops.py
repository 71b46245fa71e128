"""Exercise of lesson 05: three decoding loops with one wrong line each.

Each is greedy, keeps no cache, and takes (model, input_ids, attention_mask, end_ids, pad_id, new_tokens):
input_ids and attention_mask are LongTensors [batch, length], padded on the left, end_ids is a LongTensor
[ends]. It returns the ids [batch, length + at most new_tokens]; with the wrong line fixed, the ids of generate().
"""

import functools
import itertools

import torch

from ...checks.exercise import Mistake, exercise
from ...checks.sandbox import NotYet
from ...masks import pad, position_ids, token_rows
from ...models import load

_LOOPS = {
    "A": """\
def loop(model, input_ids, attention_mask, end_ids, pad_id, new_tokens):
    done = torch.zeros_like(input_ids[:, 0]).bool()
    for _ in range(new_tokens):
        positions = position_ids(attention_mask)
        logits = model(input_ids, attention_mask=attention_mask, position_ids=positions).logits
        chosen = logits[:, -1].argmax(-1).masked_fill(done, pad_id)
        input_ids = torch.cat([input_ids, chosen[:, None]], dim=1)
        attention_mask = torch.nn.functional.pad(attention_mask, (0, 1), value=1)
        done |= torch.isin(chosen, end_ids)
        if done.any():
            break
    return input_ids""",
    "B": """\
def loop(model, input_ids, attention_mask, end_ids, pad_id, new_tokens):
    ones = attention_mask.new_ones(len(input_ids), 1)
    unfinished = ones.bool()
    for _ in range(new_tokens):
        given = {"attention_mask": attention_mask, "position_ids": position_ids(attention_mask)}
        logits = model(input_ids, **given).logits
        chosen = torch.where(unfinished, logits[:, -1:].argmax(-1), pad_id)
        input_ids = torch.cat([input_ids, chosen], dim=1)
        attention_mask = torch.cat([attention_mask, ones], dim=1)
        unfinished = ~torch.isin(chosen, end_ids)
        if not unfinished.any():
            break
    return input_ids""",
    "C": """\
def loop(model, input_ids, attention_mask, end_ids, pad_id, new_tokens):
    rows = torch.arange(len(input_ids))
    alive = torch.ones_like(input_ids[:, 0])
    for _ in range(new_tokens):
        out = model(input_ids, attention_mask=attention_mask, position_ids=position_ids(attention_mask))
        last = attention_mask.sum(1) - 1
        chosen = out.logits[rows, last].argmax(-1)
        chosen = chosen * alive + pad_id * (1 - alive)
        input_ids = torch.cat([input_ids, chosen[:, None]], dim=1)
        attention_mask = torch.cat([attention_mask, torch.ones_like(chosen)[:, None]], dim=1)
        alive = alive * ~torch.isin(chosen, end_ids)
        if alive.sum() == 0:
            break
    return input_ids""",
}
LETTERS = tuple(_LOOPS)


def source(letter):
    """The text of loop "A", "B" or "C", a str."""
    return _LOOPS[letter]


def numbered(letter):
    """The text of a loop with the numbers of its lines, from 1, as the lesson prints it."""
    lines = source(letter).splitlines()
    return "\n".join(f"{number:2}  {line}" for number, line in enumerate(lines, start=1))


def run(text, model, input_ids, attention_mask, end_ids, pad_id, new_tokens):
    """Define the loop in `text`, run it and return what it returns; end_ids is a list of int.

    Raises what the text raises, and RuntimeError at the first forward pass too many: a learner's loop may be
    endless.
    """
    scope = {"torch": torch, "position_ids": position_ids}
    exec(compile(text, "<loop>", "exec"), scope)
    ends = torch.tensor(end_ids, device=input_ids.device)
    passes = itertools.count()

    def limited(*args, **kwargs):
        if next(passes) == new_tokens:
            raise RuntimeError(f"one forward pass more than the {new_tokens} new tokens need")
        return model(*args, **kwargs)

    with torch.no_grad():
        return scope["loop"](limited, input_ids, attention_mask, ends, pad_id, new_tokens)


@functools.lru_cache(maxsize=64)
def _written(text, number):
    """What the loop `text` returns for batch `number`: a learner who tries again has fixed other loops before."""
    return run(text, *batches()[number][0])


def generated(model, input_ids, attention_mask, end_ids, pad_id, new_tokens):
    """What generate() returns for the same arguments, LongTensor [batch, length + at most new_tokens]."""
    return model.generate(
        input_ids,
        attention_mask=attention_mask,
        eos_token_id=end_ids,
        pad_token_id=pad_id,
        max_new_tokens=new_tokens,
        do_sample=False,
    )


@functools.cache
def batches():
    """Two batches on which each of the loops goes wrong: pairs of the arguments of `run` after the text, a tuple, and
    the ids that generate() returns for them.

    The ends are ids that the model writes at different steps: in two rows of the first batch, in all three of
    the second. There a row also writes the padding's id before its end, which does not end it.
    """
    model, tokenizer = load("tiny-gpt2")
    found = []
    for sentences, ends, padding in [
        (("It will rain in the", "I want to eat a big bowl of", "My dog is"), ((0, 2), (2, 5)), None),
        (("Once upon a time", "The sun", "We are all"), ((0, 5), (1, 1), (2, 3)), (0, 2)),
    ]:
        rows = token_rows(tokenizer, sentences)
        input_ids, mask = (tensor.to(model.device) for tensor in pad(rows, tokenizer.eos_token_id))
        free = generated(model, input_ids, mask, [tokenizer.eos_token_id], 0, 7)[:, input_ids.shape[1] :]
        end_ids = [free[row, step].item() for row, step in ends]
        pad_id = 0 if padding is None else free[padding].item()
        arguments = (model, input_ids, mask, end_ids, pad_id, 7)
        found.append((arguments, generated(*arguments)))
    return tuple(found)


def mend(letter, number, line):
    """The text of a loop with `line` in place of line `number`, indented as the old line was.

    Raises Mistake for a number that is not a line number, and for anything but one line of text.
    """
    lines = source(letter).splitlines()
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= len(lines):
        raise Mistake(f"Loop {letter} has lines 1 to {len(lines)}, but no line {number!r}.")
    if not isinstance(line, str) or len(line.strip().splitlines()) != 1:
        raise Mistake(f"For loop {letter}, give the new line as a string of one line.")
    old = lines[number - 1]
    if line.strip() == old.strip():
        raise Mistake(f"Line {number} of loop {letter} is unchanged.")
    lines[number - 1] = old[: len(old) - len(old.lstrip())] + line.strip()
    return "\n".join(lines)


@exercise("05/loops", title="Find the bug in three loops", minutes=12, difficulty=3)
def check_loops(answer):
    """A dictionary from loop to (number of a line, the line that belongs there), judged by what the fixed
    loops write."""
    if not isinstance(answer, dict):
        raise Mistake('Give a dictionary, such as {"A": (3, "for _ in range(new_tokens):"), …}.')
    if all(value in (None, ...) for value in answer.values()):
        raise NotYet
    for letter in LETTERS:
        pair = answer.get(letter)
        if pair in (None, ...):
            right = "".join(f"Loop {done} is right. " for done in LETTERS[: LETTERS.index(letter)])
            raise Mistake(f"{right}Loop {letter} has no line yet.")
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise Mistake(
                f"For loop {letter}, give a pair: the number of a line, and the line that should replace it."
            )
        text = mend(letter, *pair)
        for number in range(len(batches())):
            _reject_unmended(letter, pair, text, number)
    return "All three loops now write generate()'s ids, on two batches whose rows end at different steps."


_HINTS = {
    "A": "Watch what the longest row gets when a shorter one ends.",
    "B": "Look at what a row holds two steps after its end.",
    "C": "Watch the rows with padding. At which index of the row are their logits read?",
}


def _reject_unmended(letter, pair, text, number):
    """Mistake unless the fixed loop returns generate()'s ids on the batch; the sentence says what it does."""
    (_, input_ids, mask, end_ids, *_), want = batches()[number]
    try:
        got = _written(text, number)
    except Exception as error:  # the learner's line may raise anything
        first, *_ = str(error).splitlines() or ["no message"]
        raise Mistake(f"With your line {pair[0]}, loop {letter} stops with {type(error).__name__}: {first}.") from None  # fmt: skip
    if isinstance(got, torch.Tensor) and torch.equal(got, want):
        return
    if isinstance(got, torch.Tensor) and torch.equal(got, _written(source(letter), number)):
        raise Mistake(
            f"With your line {pair[0]}, loop {letter} writes what it wrote before. {_HINTS[letter]}"
        )
    if not isinstance(got, torch.Tensor) or got.shape[0] != len(input_ids):
        raise Mistake(f"With your line {pair[0]}, loop {letter} no longer returns a row for each prompt.")
    start = input_ids.shape[1]
    new, wanted = got[:, start:], want[:, start:]
    shared = min(new.shape[1], wanted.shape[1])
    if torch.equal(new[:, :shared], wanted[:, :shared]):
        how = (
            "stops too early" if new.shape[1] < wanted.shape[1] else "does not stop where all rows have ended"
        )
        raise Mistake(f"With your line {pair[0]}, loop {letter} writes the right ids, but it {how}.")
    ended = torch.isin(wanted, torch.tensor(end_ids, device=wanted.device)).cumsum(1) > 0
    before = ~(ended.roll(1, dims=1) & (torch.arange(wanted.shape[1], device=wanted.device) > 0))
    if torch.equal(new[:, :shared][before[:, :shared]], wanted[:, :shared][before[:, :shared]]):
        raise Mistake(f"With your line {pair[0]}, loop {letter} is right up to each row's end, but what follows the end is not the padding token.")  # fmt: skip
    padded = (mask == 0).any(1)
    if torch.equal(new[~padded, :shared], wanted[~padded, :shared]):
        raise Mistake(f"With your line {pair[0]}, loop {letter} is right only in the row without padding. {_HINTS['C']}")  # fmt: skip
    if letter == "B" and "pad_id" in pair[1] and pair[0] == 10:
        raise Mistake("With your line 10, loop B ends a row that writes the padding's id itself. Only `end_ids` end a row; remember which rows have ended.")  # fmt: skip
    raise Mistake(
        f"With your line {pair[0]}, loop {letter} writes other tokens than generate(). {_HINTS[letter]}"
    )
