"""Lesson 14, the capstone: what its four briefs are given, and the checks that try hidden inputs."""

import copy
import functools
import itertools
import json
import math

import regex
import torch
from transformers import DynamicCache

from ..advantages import leave_one_out
from ..checks.exercise import Mistake, exercise
from ..checks.quiz import Option, Prediction, Question
from ..models import load
from .fixtures import quiet_transformers, tiny, warnings_on_the_page  # noqa: F401 (the notebook's)
from .lesson07 import FERRY

STORY = FERRY  # a text that no key has marked
END = 2  # <|im_end|>, the end of SmolLM2's turns


# ---- what the briefs are given ---------------------------------------------------------------------------


@functools.cache
def _smollm2():
    return load("smollm2-135m", "cpu")


@functools.cache
def _pieces():
    tokenizer = _smollm2()[1]
    return tuple(tokenizer.batch_decode([[id] for id in range(len(tokenizer))]))


def pieces(tokenizer):
    """The text of each id: tuple of str. What is not a whole character holds �."""
    if len(tokenizer) == len(_smollm2()[1]):
        return _pieces()
    return tuple(tokenizer.batch_decode([[id] for id in range(len(tokenizer))]))


def closing(tokenizer):
    """The ids whose whole text is a full stop, an exclamation mark or a question mark: list of int."""
    return [id for id, text in enumerate(pieces(tokenizer)) if text in (".", "!", "?")]


# name, age and one to three likes, in this order and with these spaces.
PATTERN = (
    r'\{"name": "[A-Z][a-z]{1,11}", "age": [1-9][0-9]?, '
    r'"likes": \["[a-z ]{3,16}"(?:, "[a-z ]{3,16}"){0,2}\]\}'
)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,11}$"},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
        "likes": {
            "type": "array",
            "items": {"type": "string", "pattern": "^[a-z ]{3,16}$"},
            "minItems": 1,
            "maxItems": 3,
        },
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
_COMPILED = regex.compile(PATTERN)


def begins(text):
    """Whether a text can be continued to one of the form of `PATTERN`, or is one: bool."""
    return _COMPILED.fullmatch(text, partial=True) is not None


def is_whole(text):
    """Whether a text has the form of `PATTERN`: bool."""
    return _COMPILED.fullmatch(text) is not None


def green(previous, key, size):
    """Which half of the vocabulary is green after the id `previous`, by a secret number: bool tensor [size]."""
    generator = torch.Generator().manual_seed((previous * 1_000_003 + key) % 2**31)
    return torch.rand(size, generator=generator) < 0.5


@torch.no_grad()
def _mean_log_prob(ids, start):
    """The mean log probability that the model gives the ids from `start` on: float."""
    logits = _smollm2()[0](torch.tensor([ids])).logits[0, start - 1 : -1]
    picked = logits.log_softmax(-1).gather(-1, torch.tensor(ids[start:])[:, None])
    return picked.mean().item()


def _ids(got, name):
    got = got.flatten().tolist() if isinstance(got, torch.Tensor) else got
    if not isinstance(got, list) or not all(isinstance(one, int) for one in got):
        raise Mistake(f"{name} is to return one list of ids; got {type(got).__name__}.")
    return got


# ---- brief 1 -----------------------------------------------------------------------------------------


@torch.no_grad()
def exactly(model, tokenizer, prompt, n):
    """n new ids: a sentence that ends with its stop at place n - 1, and the end token."""
    new, ids, cache = tokenizer(prompt).input_ids, [], DynamicCache(config=model.config)
    stops = closing(tokenizer)
    for place in range(n):
        scores = model(torch.tensor([new], device=model.device), cache=cache).logits[0, -1]
        if place == n - 1:
            new = [END]
        elif place == n - 2:
            new = [stops[int(scores[stops].argmax())]]
        else:
            scores[[0, 1, END]] = -math.inf
            new = [int(scores.argmax())]
        ids += new
    return ids


@exercise("14/exactly", title="End in exactly n tokens", minutes=20, difficulty=3, seconds=90)
def check_exactly(answer):
    """Three prompts and three lengths: the length, the end, the sentence, and whether the model would write it."""
    model, tokenizer = _smollm2()
    stops = closing(tokenizer)
    for prompt, n in (("The old house", 9), ("My dog is", 6), ("It will rain in the", 13)):
        got = _ids(answer(model, tokenizer, prompt, n), "The function")
        said = f"For {prompt!r} and n = {n}: "
        start = tokenizer(prompt).input_ids
        if got[: len(start)] == start and len(got) > n:
            raise Mistake(said + "the prompt is in the result. Return the new ids.")
        if END in got[:-1]:
            raise Mistake(
                said
                + f"an end stands at place {got.index(END) + 1}, before the last one. Forbid it until then."
            )
        if len(got) != n:
            raise Mistake(said + f"the result has {len(got)} ids.")
        if got[-1] != END:
            raise Mistake(said + f"the last id is {got[-1]}, not the end, {END}.")
        if got[-2] not in stops:
            raise Mistake(said + f"the text is cut off: {tokenizer.decode(got[:-1])!r}. Before the end belongs a full stop, a question mark or an exclamation mark.")  # fmt: skip
        likely = _mean_log_prob(start + got[:-2], len(start))
        with torch.no_grad(), quiet_transformers():
            free = model.generate(
                **tokenizer(prompt, return_tensors="pt"), max_new_tokens=n - 2, do_sample=False, pad_token_id=0,
                suppress_tokens=[0, 1, END],
            )[0].tolist()  # fmt: skip
        best = _mean_log_prob(free, len(start))
        if likely < best - 1.5:
            raise Mistake(said + f"{tokenizer.decode(got[:-2])!r} has a mean log probability of {likely:.1f}, greedy text {best:.1f}. Let the model choose what is free.")  # fmt: skip
    return "As long as asked, whole sentences, and the model's own words."


# ---- brief 2 -----------------------------------------------------------------------------------------


@torch.no_grad()
def write_json(model, tokenizer, prompt):
    """A text of the form of `PATTERN`, token by token the likeliest that can still become one."""
    new, text, texts = tokenizer(prompt).input_ids, "", pieces(tokenizer)
    cache = DynamicCache(config=model.config)
    while not is_whole(text):
        logits = model(torch.tensor([new], device=model.device), cache=cache).logits[0, -1]
        order = logits.argsort(descending=True).tolist()
        chosen = next(id for id in order if texts[id] and begins(text + texts[id]))
        new, text = [chosen], text + texts[chosen]
    return text


@functools.cache
def _json(prompt):
    return write_json(*_smollm2(), prompt)


@exercise("14/json", title="Write only valid JSON", minutes=25, difficulty=3, seconds=90)
def check_json(answer):
    """Three prompts: parsed, held against the schema, and against what the prompt says."""
    import jsonschema

    model, tokenizer = _smollm2()
    seen = set()
    for prompt in (
        "Anna is 9 years old and likes cats and tea. As JSON: ",
        "An old sailor by the sea. As JSON: ",
        "About a robot: ",
    ):
        got = answer(model, tokenizer, prompt)
        if not isinstance(got, str):
            raise Mistake(f"Return the text; got {type(got).__name__}.")
        said = f"For {prompt!r}, got {got[:80]!r}: "
        if got.startswith(prompt):
            raise Mistake(said + "the prompt is in the result.")
        try:
            value = json.loads(got)
        except ValueError as error:
            raise Mistake(said + f"it is no JSON ({error}).") from None
        try:
            jsonschema.validate(value, SCHEMA)
        except jsonschema.ValidationError as error:
            raise Mistake(said + f"JSON, but not of the schema: {error.message}.") from None
        if not is_whole(got):
            raise Mistake(said + "valid, but with other spaces or another order than the pattern's.")
        start = tokenizer(prompt).input_ids
        likely, best = (
            _mean_log_prob(start + tokenizer(text).input_ids, len(start)) for text in (got, _json(prompt))
        )
        if likely < best - 0.7 or got in seen:
            raise Mistake(said + "valid, but not what the model would write after this prompt. Let it choose among what is allowed.")  # fmt: skip
        seen.add(got)
    return "Valid every time, and the model's own choice wherever there is one."


# ---- brief 3 -----------------------------------------------------------------------------------------


@torch.no_grad()
def write_marked(model, tokenizer, prompt, key, n):
    """Sample n ids after the prompt; after each token its green half gets 3 more. Returns all ids."""
    ids, cache = tokenizer(prompt).input_ids, DynamicCache(config=model.config)
    for _ in range(n):
        new = ids[cache.get_seq_length() :]
        logits = model(torch.tensor([new], device=model.device), cache=cache).logits[0, -1].cpu()
        logits = logits + 3 * green(ids[-1], key, len(logits))
        ids = [*ids, torch.multinomial(logits.softmax(-1), 1).item()]
    return ids


def z_score(ids, key, size=49_152):
    """How many standard deviations more green tokens than chance: float."""
    hits = sum(green(one, key, size)[other].item() for one, other in itertools.pairwise(ids))
    count = len(ids) - 1
    return (hits - count / 2) / (count / 4) ** 0.5


@exercise("14/z-score", title="Detect a watermark", minutes=10, difficulty=2)
def check_z_score(answer):
    """Ids with all green, no green, half green tokens, and short ones."""
    generator = torch.Generator().manual_seed(1)
    for length, key in ((40, 5), (101, 123), (8, 7)):
        ids = torch.randint(0, 49_152, (length,), generator=generator).tolist()
        for kind in ("as drawn", "all green"):
            if kind == "all green":
                for place in range(1, length):
                    ids[place] = int(green(ids[place - 1], key, 49_152).nonzero()[place * 7, 0])
            got, want = answer(list(ids), key), z_score(ids, key)
            if isinstance(got, torch.Tensor) and got.numel() == 1:
                got = got.item()
            if isinstance(got, bool) or not isinstance(got, int | float):
                raise Mistake(f"Return one number; got {type(got).__name__}.")
            if abs(got - want) < 1e-6:
                continue
            said = f"For {length} ids, {kind}, got {got:.3f}, expected {want:.3f}. "
            count = length - 1
            if abs(got - z_score(ids[::-1], key)) < 1e-6:
                raise Mistake(said + "The half is chosen by the token *before*.")
            if abs(got * (count / 4) ** 0.5 + count / 2 - want * (count / 4) ** 0.5 - count / 2) > 1e-6 and abs(
                got - (want * (count / 4) ** 0.5 + count / 2)
            ) < 1e-6:  # fmt: skip
                raise Mistake(said + "That is the number of green tokens. Subtract the expected number, divide by the standard deviation.")  # fmt: skip
            if abs(got - want * (count / 4) ** 0.5 / (length / 4) ** 0.5) < 0.2 and got != want:
                raise Mistake(said + "The first token has none before it, so one fewer is tested.")
            raise Mistake(said + "Of T tested tokens, T / 2 are green by chance, with the variance T / 4.")
    return "0 on average for unmarked text, and as many standard deviations as there is mark."


@exercise("14/watermark", title="Write with a watermark", minutes=15, difficulty=3, seconds=90)
def check_watermark(answer):
    """Two keys and prompts: detected by the key, not by another, and still text."""
    model, tokenizer = _smollm2()
    for prompt, key in (("The old house", 11), ("My dog is", 42)):
        with torch.random.fork_rng():
            torch.manual_seed(key)
            got = _ids(answer(model, tokenizer, prompt, key, 40), "The function")
        start = tokenizer(prompt).input_ids
        if got[: len(start)] != start or len(got) != len(start) + 40:
            raise Mistake(f"Return all ids, the prompt's and 40 new ones; got {len(got)}.")
        new = got[len(start) - 1 :]
        own, other = z_score(new, key), z_score(new, key + 1)
        if own < 3:
            raise Mistake(f"With its own key the text has z = {own:.1f}. Below 3 nobody would call it marked: add a constant to the logits of the green half, which the *last* id of the text chooses.")  # fmt: skip
        if other > 3.5:
            raise Mistake(
                f"With another key the text has z = {other:.1f}. The mark does not depend on the key."
            )
        likely = _mean_log_prob(got, len(start))
        if likely < -7:
            raise Mistake(f"The mark is detected (z = {own:.1f}), but the text is noise, {likely:.1f} nats a token. Add less, and keep the model's logits.")  # fmt: skip
    return "Detected by its key, invisible to another, and still the model's text."


# ---- brief 4 -----------------------------------------------------------------------------------------


def grpo_step(model, optimizer, prompts, reward, samples, new_tokens):
    """One GRPO step on several prompts: draw without a gradient, score, and step. Returns (ids, rewards)."""
    count, length = prompts.shape
    with torch.no_grad(), quiet_transformers():
        ids = model.generate(
            prompts.repeat_interleave(samples, 0), attention_mask=None, do_sample=True, top_k=0,
            max_new_tokens=new_tokens, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    rewards = torch.tensor([float(reward(row.tolist())) for row in ids[:, length:]]).view(count, samples)
    advantages = leave_one_out(rewards).flatten()
    log_probs = model(ids[:, :-1]).logits[:, length - 1 :].log_softmax(-1)
    picked = log_probs.gather(-1, ids[:, length:, None]).squeeze(-1)
    loss = -(advantages[:, None].to(picked) * picked).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return ids.view(count, samples, -1), rewards


@exercise("14/grpo-step", title="Take one GRPO step", minutes=20, difficulty=3)
def check_grpo_step(answer):
    """A small model and two prompts, one with far higher rewards: what the step has made more likely."""
    start = tiny("tiny-llama")[0]
    prompts = torch.tensor([[11, 12, 13], [21, 22, 23]])
    for seed in (0, 1):
        model = copy.deepcopy(start).cpu()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        before = [parameter.detach().clone() for parameter in model.parameters()]

        def reward(new):
            return sum(id < 25_000 for id in new)

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found = answer(model, optimizer, prompts, reward, 6, 4)
        if not isinstance(found, tuple) or len(found) != 2:
            raise Mistake("Return two things: all ids (prompt, sample, length) and rewards (prompt, sample).")
        ids, rewards = found
        if tuple(ids.shape) != (2, 6, 7) or tuple(rewards.shape) != (2, 6):
            raise Mistake(f"Ids are to be (2, 6, 7) here and rewards (2, 6); got {tuple(ids.shape)} and {tuple(rewards.shape)}.")  # fmt: skip
        expected = torch.tensor([[float(reward(row[3:].tolist())) for row in group] for group in ids])
        if not torch.equal(rewards.float().cpu(), expected):
            raise Mistake("The rewards are not those of the new tokens of these texts.")
        if all((row == ids[0, 0]).all() for row in ids[0]):
            raise Mistake("All texts of a prompt are equal: sample, with `do_sample=True`.")
        if model.training:
            raise Mistake("The model is left in training mode.")
        if all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True)):
            raise Mistake("No weight has changed: `loss.backward()` and `optimizer.step()`.")
        advantages = leave_one_out(expected).flatten()
        flat = ids.reshape(12, 7)

        @torch.no_grad()
        def objective(judged, flat=flat, advantages=advantages):
            log_probs = judged(flat[:, :-1]).logits[:, 2:].log_softmax(-1)
            return (advantages * log_probs.gather(-1, flat[:, 3:, None]).squeeze(-1).sum(1)).sum().item()

        change = objective(model) - objective(tiny("tiny-llama")[0].cpu())
        if change <= 0:
            raise Mistake(f"After the step the good texts of each prompt are less likely and the bad ones more (the weighted sum of log probabilities moved by {change:.3f}). The loss is *minus* advantage times log probability.")  # fmt: skip
    return "Drawn without a gradient, compared within each prompt, and moved the right way."


# ---- predictions and quiz --------------------------------------------------------------------------------

predict_false_alarm = Prediction(
    "14/predict-false-alarm",
    "A detector calls a text marked if z > 4. About how many of a million unmarked texts does it call marked?",
    options=(
        Option("About 30", "The normal distribution has 0.003 % above 4 standard deviations.", right=True, value=30),
        Option("About 4,000", "That would be 2.65 standard deviations.", value=4000),
        Option("None: they have no mark", "Chance makes green tokens, and with a million texts chance has many tries.", value=0),
    ),
    proof=lambda: round(torch.special.ndtr(torch.tensor(-4.0, dtype=torch.float64)).item() * 1e6 / 10) * 10,
)  # fmt: skip

quiz = (
    Question(
        "14/quiz-length",
        "Why does `min_new_tokens` and `max_new_tokens`, both n, not answer brief 1?",
        options=(
            Option("They fix the length, not where the sentence ends", "The text is cut off at n, in the middle of whatever it says.", right=True),
            Option("They count the prompt as well", "Only `max_length` does."),
            Option("They work with sampling only", "They work with any way of choosing."),
        ),
    ),
    Question(
        "14/quiz-grammar",
        "A grammar forbids the likeliest token at a step, and the text becomes odd. What is a likely cause?",
        options=(
            Option("The grammar changes the model's weights", "It changes one row of logits a step."),
            Option("The model wanted the same text in other tokens or with other spaces", "It is led into a spelling that it has rarely seen.", right=True),
            Option("JSON is too hard for small models", "The grammar does what is hard about it."),
        ),
    ),
    Question(
        "14/quiz-mark",
        "Somebody rewords every second word of a marked text. What becomes of z?",
        options=(
            Option("It falls a long way", "Each new word changes its own test and that of the word after it.", right=True),
            Option("It stays: the key is the same", "The key is, the pairs of tokens are not."),
            Option("It becomes negative", "The new words are green by chance, half of them."),
        ),
    ),
)  # fmt: skip
