"""Lesson 04, exercises 2 to 4: loops with a KV cache, judged by their ids and by what each pass was given."""

import contextlib
import functools
from typing import NamedTuple

from ..releases import cache_given
from .exercise import Mistake, exercise

SENTENCES = ("It will rain in the", "I want to eat a big bowl of", "My dog is")
TEXT = "The capital of France is Paris."


@functools.cache
def tiny(name="tiny-gpt2"):
    from course_utils import load

    return load(name)


def ids_of(text=TEXT):
    """The ids of a text in GPT-2's vocabulary, LongTensor [1, length], on the models' device."""
    import torch

    model, tokenizer = tiny()
    return torch.tensor([tokenizer(text).input_ids], device=model.device)


class _Pass(NamedTuple):
    """What one forward pass was given: ids a row, places in the cache, mask and positions as lists of rows."""

    ids: int
    cached: int
    mask: list | None
    positions: list | None


@contextlib.contextmanager
def _watched(model):
    """A list that grows by a _Pass with each forward pass. generate() is a Mistake inside.

    The model without its head is watched: who calls that, and the head by hand, runs the same passes.
    """
    passes = []

    def note(module, args, given):
        ids = args[0] if args else given.get("input_ids")
        ids = given["inputs_embeds"] if ids is None else ids
        cache = cache_given(given)
        told = (given.get(name) for name in ("attention_mask", "position_ids"))
        told = (tensor if tensor is None else tensor.tolist() for tensor in told)
        passes.append(_Pass(ids.shape[1], 0 if cache is None else cache.get_seq_length(), *told))

    def refuse(*args, **given):
        raise Mistake("This calls `generate()`. Write its loop: a forward pass for each token.")

    hook = model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    model.generate = refuse
    try:
        yield passes
    finally:
        hook.remove()
        del model.generate


def _greedy(model, input_ids, steps, attention_mask=None):
    """What generate() writes greedily, `steps` ids for each row and no end before: a list of lists."""
    import torch

    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    options = {"max_new_tokens": steps, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return model.generate(input_ids, attention_mask=mask, **options)[:, input_ids.shape[1] :].tolist()


def _new_ids(got, rows, steps, prompt):
    """The learner's ids as a list of lists, (rows, steps). Mistake for another kind or shape."""
    import torch

    if isinstance(got, list | tuple):
        try:
            got = torch.tensor(got)
        except (TypeError, ValueError):
            raise Mistake(
                f"Return one tensor of ids, ({rows}, {steps}): `torch.cat(chosen, dim=1)`."
            ) from None
    if not isinstance(got, torch.Tensor) or got.is_floating_point():
        kind = got.dtype if isinstance(got, torch.Tensor) else type(got).__name__
        raise Mistake(f"Return the ids, a tensor of whole numbers, ({rows}, {steps}); this is {kind}.")
    if tuple(got.shape) == (rows, prompt + steps):
        raise Mistake("The prompt is in the result. Return the new ids only.")
    if tuple(got.shape) != (rows, steps):
        raise Mistake(f"For {steps} steps the result should have the shape ({rows}, {steps}); it has {tuple(got.shape)}.")  # fmt: skip
    return got.tolist()


@exercise("04/decode", title="Decode with a cache", minutes=6, difficulty=2)
def check_decode(answer):
    """Greedy ids on two architectures, and in each pass after the first a single id."""
    for name, text, steps in [
        ("tiny-gpt2", TEXT, 5),
        ("tiny-llama", "My dog is", 4),
        ("tiny-gpt2", "My dog", 1),
    ]:
        model, _ = tiny(name)
        ids = ids_of(text)
        want = _greedy(model, ids, steps)
        with _watched(model) as passes:
            result = answer(model, ids, steps)
        got = _new_ids(result, 1, steps, ids.shape[1])
        if got == want:
            _require_cache(passes, ids.shape[1])
            continue
        first, later = _first_two(passes)
        found = f"For `{text!r}` and {steps} steps your ids are `{got[0]}`, expected are `{want[0]}`."
        if first.ids != ids.shape[1]:
            raise Mistake(
                f"{found} The first pass reads {first.ids} ids of the prompt, which has {ids.shape[1]}."
            )
        if got[0][0] != want[0][0]:
            raise Mistake(f"{found} Already the first is another. Take the most likely token at the last place: `logits[:, -1:].argmax(-1)`.")  # fmt: skip
        if later.cached == 0 and later.ids == 1:
            raise Mistake(f"{found} The second pass gets one id and no cache: it has forgotten the prompt. Hand on `cache`.")  # fmt: skip
        if later.cached and later.ids > 1:
            raise Mistake(f"{found} The second pass gets the cache and {later.ids} ids, so the text is read twice. With a cache, give the new id only.")  # fmt: skip
        if passes[-1].cached == first.ids and len(passes) > 2:
            raise Mistake(f"{found} Each pass gets the prompt's cache and nothing of what was written since. Is it copied, or cut back?")  # fmt: skip
        told = later.positions and later.positions[0][-1]
        if told not in (None, later.cached):
            raise Mistake(f"{found} In the second pass the new token stands at position {told}, behind {later.cached} cached places.")  # fmt: skip
        for number, one in enumerate(passes, 1):
            if one.mask and len(one.mask[0]) != one.cached + one.ids:
                raise Mistake(f"{found} In pass {number} there are {one.cached + one.ids} keys, and the mask has {len(one.mask[0])} columns. It covers the whole text, cached places included.")  # fmt: skip
        raise Mistake(f"{found} Look at which id goes into the next pass: the one that was chosen last.")
    return "generate()'s ids, and each pass after the first reads one id."


def _first_two(passes):
    """The first two passes. Mistake if there are fewer: more than one token was asked for, or the ids are wrong."""
    if len(passes) < 2:
        count = "one pass" if passes else "no pass"
        raise Mistake(f"The model ran {count}. Each new token needs one: the first reads the prompt, each other one the id that was chosen last.")  # fmt: skip
    return passes[:2]


def _require_cache(passes, prompt):
    """Mistake if a pass after the first was given more than one id, or no pass read the whole prompt at once."""
    if passes[0].ids != prompt:
        raise Mistake(f"The ids are right, but the first pass reads {passes[0].ids} of the prompt's {prompt} ids. Read the prompt in one pass.")  # fmt: skip
    for number, one in enumerate(passes[1:], 2):
        if one.ids > 1:
            raise Mistake(f"The ids are right, but pass {number} reads {one.ids} ids a row, the whole text again. Hand on the cache, and give the new id only.")  # fmt: skip


@exercise("04/endings", title="Score several endings of one prompt", minutes=8, difficulty=2)
def check_score_endings(answer):
    """Log-probabilities of endings of one and of several tokens, with a single pass over the prompt."""
    import torch

    for name, text, endings in [
        ("tiny-gpt2", "The capital of France is", [[262, 1748], [6342], [257, 1263, 1748]]),
        ("tiny-llama", "My dog is", [[3772, 13], [3772, 13], [11, 290, 340]]),
    ]:
        model, _ = tiny(name)
        prompt = ids_of(text)
        want = [_scored(model, prompt, ending) for ending in endings]
        with _watched(model) as passes:
            got = answer(model, prompt, endings)
        try:
            got = [float(score) for score in got]
        except (TypeError, ValueError):
            raise Mistake(f"Return a list of numbers, one for each ending; this is of type {type(got).__name__}.") from None  # fmt: skip
        if len(got) != len(endings):
            raise Mistake(f"There are {len(endings)} endings, and your result has {len(got)} numbers.")
        close = functools.partial(torch.allclose, atol=1e-3, rtol=0)
        if not close(torch.tensor(got), torch.tensor(want)):
            values = [f"{score:.2f}" for score in got], [f"{score:.2f}" for score in want]
            hint = next(
                (hint for known, hint in _misscored(model, prompt, endings) if close(torch.tensor(got), torch.tensor(known))),
                "Place t of prompt and ending together predicts token t + 1. Add up `log_softmax` there.",
            )  # fmt: skip
            raise Mistake(
                f"{hint} For the endings `{endings}` of `{text!r}` your scores are "
                f"`[{', '.join(values[0])}]`, expected are `[{', '.join(values[1])}]`."
            )
        prompts_read = sum(one.cached == 0 for one in passes)  # whole or in pieces
        if prompts_read > 1:
            raise Mistake(f"The scores are right, but {prompts_read} passes read the prompt. One is enough: keep its cache, and cut it back after each ending.")  # fmt: skip
    return "Right for endings of any length, and the prompt was read once."


def _scored(model, prompt, ending, behind=None, skip=0, shift=1, reduce=sum, numbers=None):
    """The score of `ending` behind `prompt`, from passes without a cache; the right one by default.

    behind:  a list of ids, where the ending's second and later tokens are read behind them, not the prompt
    skip:    leave out so many first tokens
    shift:   0 reads each token at its own place
    reduce:  what becomes of the tokens' numbers
    numbers: what is made of logits; None for log probabilities
    """
    import torch

    def at_places(ids):
        with torch.no_grad():
            logits = model(torch.tensor([ids], device=model.device), use_cache=False).logits[0]
        return numbers(logits) if numbers else logits.log_softmax(-1)

    behind = prompt[0].tolist() if behind is None else behind
    after_prompt, inside = at_places(prompt[0].tolist())[-1], at_places([*behind, *ending])
    found = [inside[len(behind) + number - shift, id] for number, id in enumerate(ending)]
    if shift:
        found[0] = after_prompt[ending[0]]
    return float(reduce([number.item() for number in found[skip:]]))


def _misscored(model, prompt, endings):
    """Pairs of wrong scores and the sentence that names their mistake, calculated one by one."""

    def scores(**wrong):
        return [_scored(model, prompt, ending, **wrong) for ending in endings]

    def scores_behind(
        left,
    ):  # left(cached, ending) is what stands in the cache after an ending: a list of ids
        behind = [prompt[0].tolist()]
        for ending in endings:
            behind.append(left(behind[-1], ending))
        return [_scored(model, prompt, *pair) for pair in zip(endings, behind, strict=False)]

    yield (
        scores_behind(lambda cached, ending: cached + ending),
        "Each ending is read behind the ones before it: the cache was not cut back.",
    )
    yield (
        scores_behind(lambda cached, ending: cached + ending[:1]),
        "A place of each ending stays in the cache. Cut off as many as the pass has added.",
    )
    yield (
        scores_behind(lambda cached, ending: cached + ending[:-1]),
        "A single place is cut off after each ending. Cut off as many as the pass has added.",
    )
    no_prompt = [_scored(model, prompt, ending, behind=[]) for ending in endings]
    yield no_prompt, "The prompt's cache is missing where the endings are read."
    right = scores()
    in_order = "The scores are right, but not in the order of the endings."
    yield sorted(right), in_order
    yield sorted(right, reverse=True), in_order
    first = scores(reduce=lambda numbers: numbers[0])
    yield first, "Only the first token of each ending is counted. Take the sum over its tokens."
    yield (
        scores_behind(lambda cached, ending: cached[:-1]),
        "After each ending the cache is shorter by a place of the prompt. Cut off no more than the pass has added.",
    )
    own_place = "Each token is read at its own place. That place predicts what comes behind it."
    yield scores(shift=0), own_place
    yield scores(skip=1), "The first token of each ending is missing. The prompt's last place predicts it."
    mean = scores(reduce=lambda numbers: sum(numbers) / len(numbers))
    yield mean, "This is the mean over the tokens. Take their sum."
    loss = [-score for score in right]
    yield loss, "The sign is turned round: this is the loss. Log-probabilities are at most 0."
    probabilities = scores(numbers=lambda logits: logits.softmax(-1))
    yield probabilities, "These are probabilities. Add up their logarithms: `log_softmax`."
    bare = scores(numbers=lambda logits: logits)
    yield bare, "These are sums of logits. `log_softmax` makes log probabilities of them."


@exercise("04/loop", title="Find two bugs in a loop with a cache", minutes=8, difficulty=3)
def check_repaired(answer):
    """Greedy ids of left-padded batches on two architectures, with a cache; mistakes by what the passes are told."""
    from ..masks import pad_sentences, position_ids

    for name, sentences, steps in [
        ("tiny-gpt2", SENTENCES, 6),
        ("tiny-llama", SENTENCES[:2], 4),
        ("tiny-gpt2", ("My dog", TEXT), 3),
    ]:
        model, tokenizer = tiny(name)
        tokenizer.pad_token = tokenizer.eos_token
        batch = {key: tensor.to(model.device) for key, tensor in pad_sentences(tokenizer, sentences).items()}
        rows, length = batch["input_ids"].shape
        want = _greedy(model, batch["input_ids"], steps, batch["attention_mask"])
        with _watched(model) as passes:
            result = answer(model, batch["input_ids"], batch["attention_mask"], steps)
        got = _new_ids(result, rows, steps, length)
        if got == want:
            _require_cache(passes, length)
            continue
        right = [mine == theirs for mine, theirs in zip(got, want, strict=True)]
        found = f"For {rows} rows and {steps} steps, these rows are right: `{right}`."
        _first_two(passes)
        _mask_told(passes, batch["attention_mask"].tolist(), found)
        _positions_told(passes, position_ids(batch["attention_mask"]), batch["attention_mask"], found)
        raise Mistake(f"{found} Mask and positions are as they should be. Look at which ids go into the next pass, and at the last place of the logits.")  # fmt: skip
    return "Every row as generate() writes it: the mask grows by a column of ones, and the positions go on."


def _mask_told(passes, prompt, found):
    if any(one.mask is None for one in passes):
        raise Mistake(f"{found} A pass gets no attention mask, and reads the fillers.")
    if passes[0].mask != prompt:
        raise Mistake(f"{found} The first pass needs the batch's `attention_mask` as it is.")
    for number, one in enumerate(passes[1:], 2):
        told = f"{found} In the second pass" if number == 2 else f"{found} In pass {number}"
        columns, keys = len(one.mask[0]), one.cached + one.ids
        if columns == 1:
            raise Mistake(
                f"{told} the mask is that of the new place alone. It covers the cached places, too."
            )
        if columns != keys:
            raise Mistake(f"{told} there are {keys} keys, and the mask has {columns} columns.")
        if [row[: len(prompt[0])] for row in one.mask] != prompt:
            raise Mistake(
                f"{told} the mask does not begin with the prompts' own. Keep it, and put ones behind it."
            )
        if not all(all(row[len(prompt[0]) :]) for row in one.mask):
            raise Mistake(f"{told} the mask has a 0 at a new place, and hides it. A new token is no padding.")


def _positions_told(passes, prompt, mask, found):
    first, later = passes[:2]
    if later.positions is None:
        raise Mistake(f"{found} The second pass gets no positions, and counts places, fillers included.")
    if first.positions is None or (prompt - prompt.new_tensor(first.positions))[mask.bool()].any():
        raise Mistake(f"{found} The first pass needs the positions `position_ids(attention_mask)`.")
    last = prompt[:, -1].tolist()
    told = [row[-1] for row in later.positions]
    if told == last:
        raise Mistake(f"{found} In the second pass the new tokens stand at `{told}`, where the prompts' last tokens stand already.")  # fmt: skip
    if told != [place + 1 for place in last]:
        raise Mistake(f"{found} In the second pass the new tokens stand at `{told}`, and the prompts end at `{last}`.")  # fmt: skip
    if len(passes) > 2 and passes[2].positions == later.positions:
        raise Mistake(f"{found} The third pass gets the positions of the second. They go on in every pass.")
