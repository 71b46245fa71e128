"""Lesson 04, exercises 2 to 4: loops with a KV cache, judged by their ids and by what each pass was given."""

import contextlib
import functools
from typing import NamedTuple

import torch

from ...checks.exercise import Mistake, exercise
from ...masks import pad_sentences, position_ids
from ...releases import cache_given
from ..fixtures import SENTENCES, tiny

TEXT = "The capital of France is Paris."


def ids_of(text=TEXT):
    """The ids of a text in GPT-2's vocabulary, LongTensor [1, length], on the models' device."""
    model, tokenizer = tiny()
    return torch.tensor([tokenizer(text).input_ids], device=model.device)


class _Pass(NamedTuple):
    """What one forward pass was given: ids per row, tokens in the cache, mask and positions as lists of rows."""

    ids: int
    cached: int
    mask: list | None
    positions: list | None


@contextlib.contextmanager
def _watched(model):
    """A list that grows by a _Pass with each forward pass. generate() is a Mistake inside.

    The model without its head is watched, so calling that and applying the head by hand counts as the same passes.
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
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    options = {"max_new_tokens": steps, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return model.generate(input_ids, attention_mask=mask, **options)[:, input_ids.shape[1] :].tolist()


def _new_ids(got, rows, steps, prompt):
    """The learner's ids as a list of lists, (rows, steps). Mistake for another kind or shape."""
    if isinstance(got, list | tuple):
        try:
            got = torch.tensor(got)
        except (TypeError, ValueError):
            raise Mistake(
                f"Return one tensor of ids, ({rows}, {steps}): `torch.cat(chosen, dim=1)`."
            ) from None
    if not isinstance(got, torch.Tensor) or got.is_floating_point():
        kind = got.dtype if isinstance(got, torch.Tensor) else type(got).__name__
        raise Mistake(f"Return the ids, an integer tensor, ({rows}, {steps}); got {kind}.")
    if tuple(got.shape) == (rows, prompt + steps):
        raise Mistake("The prompt is in the result. Return the new ids only.")
    if tuple(got.shape) != (rows, steps):
        raise Mistake(f"For {steps} steps the result should have the shape ({rows}, {steps}); got {tuple(got.shape)}.")  # fmt: skip
    return got.tolist()


@exercise("04/decode", title="Decode with a cache", minutes=6, difficulty=2)
def check_decode(answer):
    """Greedy ids on two architectures, and in each pass after the first a single id."""
    spare = False
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
            spare = spare or len(passes) > steps
            continue
        first, later = _first_two(passes)
        found = f"For `{text!r}` and {steps} steps: got the ids `{got[0]}`, expected `{want[0]}`."
        if first.ids != ids.shape[1]:
            raise Mistake(
                f"{found} The first pass reads {first.ids} ids of the prompt, which has {ids.shape[1]}."
            )
        if got == [row[1:] for row in _greedy(model, ids, steps + 1)]:
            raise Mistake(f"{found} The first new token is lost. The pass that reads the prompt gives it already.")  # fmt: skip
        if got == _greedy(model, torch.cat([ids, ids[:, -1:]], dim=1), steps):
            raise Mistake(f"{found} The prompt's last id is read twice. It is in the cache after the first pass: give the second one the first new id.")  # fmt: skip
        if got[0][0] != want[0][0]:
            raise Mistake(f"{found} Even the first id is different. Take the most likely token at the last index: `logits[:, -1:].argmax(-1)`.")  # fmt: skip
        if later.cached == 0 and later.ids == 1:
            raise Mistake(f"{found} The second pass gets one id and no cache, so it does not know the prompt. Pass on `cache`.")  # fmt: skip
        if later.cached and later.ids > 1:
            raise Mistake(f"{found} The second pass gets the cache and {later.ids} ids, so the text is read twice. With a cache, give only the new id.")  # fmt: skip
        if passes[-1].cached == first.ids and len(passes) > 2:
            raise Mistake(f"{found} Each pass gets the prompt's cache without anything written since. Is it copied, or cropped?")  # fmt: skip
        told = later.positions and later.positions[0][-1]
        if told not in (None, later.cached):
            raise Mistake(f"{found} In the second pass the new token has position {told}, after {later.cached} cached tokens.")  # fmt: skip
        for number, one in enumerate(passes, 1):
            if one.mask and len(one.mask[0]) != one.cached + one.ids:
                raise Mistake(f"{found} In pass {number} there are {one.cached + one.ids} keys, but the mask has {len(one.mask[0])} columns. It should cover the whole text, including the cached tokens.")  # fmt: skip
        raise Mistake(
            f"{found} Check which id goes into the next pass: it should be the one that was chosen last."
        )
    more = " The last pass is one too many: nobody needs the logits after the last token." if spare else ""
    return f"The ids are those of generate(), and each pass after the first reads one id.{more}"


def _first_two(passes):
    """The first two passes. Mistake if there are fewer: more than one token was asked for, or the ids are wrong."""
    if len(passes) < 2:
        count = "one pass" if passes else "no pass"
        raise Mistake(f"The model ran {count}. Each new token needs one: the first pass reads the prompt, each later one the id that was chosen last.")  # fmt: skip
    return passes[:2]


def _require_cache(passes, prompt):
    """Mistake if a pass after the first was given more than one id, or no pass read the whole prompt at once."""
    if passes[0].ids != prompt:
        raise Mistake(f"The ids are right, but the first pass reads {passes[0].ids} of the prompt's {prompt} ids. Read the whole prompt in one pass, all rows together.")  # fmt: skip
    for number, one in enumerate(passes[1:], 2):
        if one.ids > 1:
            raise Mistake(f"The ids are right, but pass {number} reads {one.ids} ids per row, the whole text again. Pass on the cache, and give only the new id.")  # fmt: skip


@exercise("04/endings", title="Compute the log probabilities of several endings", minutes=12, difficulty=2)
def check_score_endings(answer):
    """Log probabilities of endings of one and of several tokens, with a single pass over the prompt."""
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
            raise Mistake(f"Return a list of numbers, one for each ending; got {type(got).__name__}.") from None  # fmt: skip
        if len(got) != len(endings):
            raise Mistake(f"There are {len(endings)} endings, but the length of your result is {len(got)}.")
        close = functools.partial(torch.allclose, atol=1e-3, rtol=0)
        if not close(torch.tensor(got), torch.tensor(want)):
            values = [f"{score:.2f}" for score in got], [f"{score:.2f}" for score in want]
            hint = next(
                (hint for known, hint in _misscored(model, prompt, endings) if close(torch.tensor(got), torch.tensor(known))),
                "In prompt and ending together, the logits at index t predict the token at t + 1. Add up their `log_softmax` values.",
            )  # fmt: skip
            raise Mistake(
                f"{hint} For the endings `{endings}` of `{text!r}`: got the log probabilities "
                f"`[{', '.join(values[0])}]`, expected `[{', '.join(values[1])}]`."
            )
        prompts_read = sum(one.cached == 0 for one in passes)  # whole or in pieces
        if prompts_read > 1:
            raise Mistake(f"The log probabilities are right, but {prompts_read} passes read the prompt. One is enough: keep its cache, and crop it after each ending.")  # fmt: skip
    return "Right for endings of any length, and the prompt was read once."


def _scored(model, prompt, ending, context=None, skip=0, shift=1, reduce=sum, numbers=None):
    """The log probability of `ending` after `prompt`, from passes without a cache; the right one by default.

    context: a list of ids, after which the ending's second and later tokens are read, instead of the prompt
    skip:    leave out so many first tokens
    shift:   0 reads each token at its own index
    reduce:  how the tokens' numbers are combined
    numbers: what is computed from logits; None for log probabilities
    """

    def at_places(ids):
        with torch.no_grad():
            logits = model(torch.tensor([ids], device=model.device), use_cache=False).logits[0]
        return numbers(logits) if numbers else logits.log_softmax(-1)

    context = prompt[0].tolist() if context is None else context
    after_prompt, inside = at_places(prompt[0].tolist())[-1], at_places([*context, *ending])
    found = [inside[len(context) + number - shift, id] for number, id in enumerate(ending)]
    if shift:
        found[0] = after_prompt[ending[0]]
    return float(reduce([number.item() for number in found[skip:]]))


def _misscored(model, prompt, endings):
    """Pairs of wrong results and the sentence that names their mistake, computed one by one."""

    def scores(**wrong):
        return [_scored(model, prompt, ending, **wrong) for ending in endings]

    def scores_after(left):
        """`left(cached, ending)` is what the cache holds after an ending, as a list of ids."""
        context = [prompt[0].tolist()]
        for ending in endings:
            context.append(left(context[-1], ending))
        return [_scored(model, prompt, *pair) for pair in zip(endings, context, strict=False)]

    yield (
        scores_after(lambda cached, ending: cached + ending),
        "Each ending is read after the ones before it: the cache was not cropped.",
    )
    yield (
        scores_after(lambda cached, ending: cached + ending[:1]),
        "One token of each ending stays in the cache. Crop as many as the pass has added.",
    )
    yield (
        scores_after(lambda cached, ending: cached + ending[:-1]),
        "Only one token is cropped after each ending. Crop as many as the pass has added.",
    )
    no_prompt = [_scored(model, prompt, ending, context=[]) for ending in endings]
    yield no_prompt, "The endings are read without the prompt's cache."
    right = scores()
    in_order = "The log probabilities are right, but not in the order of the endings."
    yield sorted(right), in_order
    yield sorted(right, reverse=True), in_order
    first = scores(reduce=lambda numbers: numbers[0])
    yield first, "Only the first token of each ending is counted. Take the sum over its tokens."
    yield (
        scores_after(lambda cached, ending: cached[:-1]),
        "After each ending, the cache has lost a token of the prompt. Crop no more than the pass has added.",
    )
    own_place = "Each token is read at its own index. The logits there predict the token after it."
    yield scores(shift=0), own_place
    yield (
        scores(skip=1),
        "The first token of each ending is missing. The logits at the prompt's last token predict it.",
    )
    mean = scores(reduce=lambda numbers: sum(numbers) / len(numbers))
    yield mean, "This is the mean over the tokens. Take their sum."
    loss = [-score for score in right]
    yield loss, "The sign is wrong: this is the loss. Log probabilities are at most 0."
    probabilities = scores(numbers=lambda logits: logits.softmax(-1))
    yield probabilities, "These are probabilities. Add up their logarithms: `log_softmax`."
    bare = scores(numbers=lambda logits: logits)
    yield bare, "These are sums of logits. `log_softmax` turns logits into log probabilities."


@exercise("04/loop", title="Find two bugs in a loop with a cache", minutes=8, difficulty=3)
def check_repaired(answer):
    """Greedy ids of left-padded batches on two architectures, with a cache; mistakes are named by what the passes are given."""
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
        raise Mistake(f"{found} Mask and positions are right. Check which ids go into the next pass, and that you read the logits at the last index.")  # fmt: skip
    return "Every row is the same as with generate(): the mask grows by a column of ones, and the positions continue."


def _mask_told(passes, prompt, found):
    if any(one.mask is None for one in passes):
        raise Mistake(f"{found} A pass gets no attention mask, so it reads the padding.")
    if passes[0].mask != prompt:
        raise Mistake(f"{found} The first pass needs the batch's `attention_mask` as it is.")
    for number, one in enumerate(passes[1:], 2):
        told = f"{found} In the second pass" if number == 2 else f"{found} In pass {number}"
        columns, keys = len(one.mask[0]), one.cached + one.ids
        if columns == 1:
            raise Mistake(
                f"{told} the mask covers only the new token. It should also cover the cached tokens."
            )
        if columns != keys:
            raise Mistake(f"{told} there are {keys} keys, but the mask has {columns} columns.")
        if [row[: len(prompt[0])] for row in one.mask] != prompt:
            raise Mistake(
                f"{told} the mask does not begin with the prompts' own mask. Keep that, and append ones."
            )
        if not all(all(row[len(prompt[0]) :]) for row in one.mask):
            raise Mistake(
                f"{told} the mask has a 0 at a new token, which hides it. A new token is not padding."
            )


def _positions_told(passes, prompt, mask, found):
    first, later = passes[:2]
    if later.positions is None:
        raise Mistake(f"{found} The second pass gets no position ids, so it uses indices, padding included.")
    if first.positions is None or (prompt - prompt.new_tensor(first.positions))[mask.bool()].any():
        raise Mistake(f"{found} The first pass needs the position ids `position_ids(attention_mask)`.")
    last = prompt[:, -1].tolist()
    told = [row[-1] for row in later.positions]
    if told == last:
        raise Mistake(f"{found} In the second pass the new tokens have the positions `{told}`, which are those of the prompts' last tokens.")  # fmt: skip
    if told != [place + 1 for place in last]:
        raise Mistake(f"{found} In the second pass the new tokens have the positions `{told}`, but the prompts end at `{last}`.")  # fmt: skip
    if len(passes) > 2 and passes[2].positions == later.positions:
        raise Mistake(
            f"{found} The third pass gets the positions of the second. They should increase in every pass."
        )
