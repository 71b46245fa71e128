"""Exercises of lesson 06: filters and bans, compared with transformers' own logits processors."""

import functools
from typing import Any

import torch
import transformers
from transformers import TopPLogitsWarper

from ...checks.exercise import Mistake, exercise, expect_close, expect_equal
from ...checks.sandbox import NotYet
from ...masks import pad, token_rows
from ...models import load, load_tokenizer

PROMPT = "I want to eat a big bowl of"
OFF = float("-inf")
NO_IDS: Any = None  # for warpers that look at the scores alone

# ---- top-p -------------------------------------------------------------------------------------------


@exercise("06/top-p", title="Write top-p", minutes=10, difficulty=2)
def check_top_p(answer):
    """Compared with TopPLogitsWarper: several rows, some tokens forbidden already, p from 0 to 1."""
    generator = torch.Generator().manual_seed(6)
    wide = torch.randn(3, 40, generator=generator) * 3
    small = torch.tensor([[1.9, 3, 1.2, 2.6, 2.5], [1.5, 1, 3, 2, 2.5]])  # three stay at 0.8, in both rows
    cut = torch.tensor([[2.0, OFF, 1, 0, OFF, 3], [OFF, 0, 1, 4, 2, 0.5]])
    for scores, p in [(small, 0.8), (small, 0.5), (cut, 0.9), (wide, 0.7), (wide, 0.95), (small, 0.0), (cut, 1.0)]:  # fmt: skip
        want = TopPLogitsWarper(p)(NO_IDS, scores)
        got = answer(scores, p)
        if not isinstance(got, torch.Tensor) or got.shape != scores.shape:
            found = tuple(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
            raise Mistake(
                f"Return a tensor of shape {tuple(scores.shape)}, one value per token; got {found}."
            )
        said = f"scores={scores.tolist()} and p={p}" if scores.numel() < 20 else f"a batch of shape {tuple(scores.shape)} and p={p}"  # fmt: skip
        if got.dtype == torch.float64:  # computed more exactly: the values themselves are the same
            got = got.to(scores.dtype)
        expect_close(got, want, said, **_top_p_mistakes(scores, p, want))
    tied = torch.tensor(
        [[0.5, 0.25, 0.125, 0.125]]
    ).log()  # at 0.8 one of the two that tie goes, no matter which
    if answer(tied, 0.8).isfinite().sum() == 4:
        raise Mistake("With the probabilities 0.5, 0.25, 0.125, 0.125 and p=0.8 all four are kept. Top-p keeps the smallest number that reaches p, three, even where one that goes ties with one that stays.")  # fmt: skip
    return "The same tokens as the library's top-p in every row, and their values are unchanged."


def _top_p_mistakes(scores, p, want):
    """The message and the known mistakes of a top-p filter, as expect_close takes them."""

    def kept(removed):
        return _unless_same(scores.masked_fill(removed, OFF), want)

    def back(removed):
        return torch.zeros_like(removed).scatter(-1, order, removed)

    probs, order = scores.softmax(-1).sort(descending=True)
    before = probs.cumsum(-1) - probs
    first = torch.arange(scores.shape[-1]) == 0
    sorted_removed = (before >= p) & ~first
    short = (before + probs > p) & ~first
    rising, up = scores.softmax(-1).sort(descending=False)
    least = torch.zeros_like(short).scatter(-1, up, rising.cumsum(-1) > p)
    flat, flat_order = scores.softmax(-1).flatten().sort(descending=True)
    over_all = torch.zeros_like(flat, dtype=torch.bool).scatter(0, flat_order, flat.cumsum(0) - flat >= p)
    removed = ~want.isfinite() & scores.isfinite()
    return {
        "message": "In each row keep the smallest number of likeliest tokens whose probabilities sum to at least p, and set the others to −∞.",
        "mistakes": [
            (lambda got: not got.isfinite().any(-1).all(), "A row has nothing left. The likeliest token always stays, even for p = 0."),
            (lambda got: got.isnan().any(), "The result contains NaN. A value of −∞ should not cause one: its probability is 0."),
            (scores if removed.any() else None, "Nothing is removed."),
            (kept(back(short)), "The token that brings the sum to p is removed too. Keep it: a token stays as long as those *before* it have not reached p."),
            (kept(sorted_removed), "The flags are in sorted order, but `scores` is not: move them back to the ids with `scatter`."),
            (_unless_same(scores.gather(-1, order).masked_fill(sorted_removed, OFF), want), "Your result is sorted. Each value must stay at the index of its id."),
            (kept(sorted_removed.gather(-1, order)), "`gather` reads each flag at the index of an id, but the flags are in sorted order. To move them back use `scatter`."),
            (kept(least), "The least likely tokens are kept: sort in descending order."),
            (kept(over_all.view_as(scores)), "The sum runs over the whole batch. Each row has its own: `dim=-1`."),
            (kept(back(sorted_removed[:1].expand_as(scores))), "The first row's number of tokens is used for all rows."),
            (kept(back(sorted_removed)[:1].expand_as(scores)), "The first row's tokens are kept in every row. Each row has its own."),
            (kept(scores.softmax(-1) < 1 - p), "Each probability is compared with 1 − p. Top-p adds them up, starting from the likeliest."),
            (kept(scores.softmax(-1) < p * scores.softmax(-1).amax(-1, keepdim=True)), "Each probability is compared with the largest. That is min-p; top-p looks at their sum."),
            (_unless_same(want.softmax(-1), want), "These are probabilities. Return processed scores: the softmax comes after the last processor."),
            (_unless_same(want.masked_fill(removed, 0), want) if removed.any() else None, "Removed tokens are set to 0, which is not a small probability after the softmax. They need −∞."),
            (lambda got: removed.any() and (got[removed] < -1e3).all() and torch.equal(got[~removed], want[~removed]), "A large negative number is not −∞."),
            (lambda got: torch.equal(got.isfinite(), want.isfinite()), "The right tokens are kept, but their values have changed. Leave them as they are."),
        ],
    }  # fmt: skip


def _unless_same(wrong, want):
    """A mistake's result, or None on inputs where the mistake does not show."""
    return None if torch.equal(wrong, want) else wrong


# ---- targets -----------------------------------------------------------------------------------------

SETTINGS = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p", "typical_p")


@exercise("06/targets", title="Meet a target", minutes=8, difficulty=2)
def check_targets(answer):
    """Three dicts of settings, run through the library's processors on the model's own logits."""
    if not isinstance(answer, dict):
        raise Mistake('Give a dictionary, {"A": {"temperature": 1.0, "top_k": 7}, "B": {…}, "C": {…}}.')
    for name in "ABC":
        if not isinstance(answer.get(name), dict):
            raise Mistake(f"There are no settings for {name} yet. Add a dictionary such as {{'temperature': 1.0, 'top_k': 7}}.")  # fmt: skip
    ids, logits = _bowl()
    for name in "ABC":
        scores = _processed(name, answer[name], ids, logits)
        kept, bits = scores.isfinite().sum().item(), _entropy(scores)
        found = f"{name} keeps {kept:,} tokens, with an entropy of {bits:.2f} bits."
        if name == "A" and kept != 5:
            raise Mistake(f"{found} Exactly five are asked for: which setting counts tokens?")
        if name == "A" and bits <= 2.2:
            raise Mistake(
                f"{found} More than 2.2 is asked for: make the five more equal, with a higher temperature."
            )
        if name == "B" and kept < 20:
            raise Mistake(f"{found} At least twenty are asked for.")
        if name == "B" and bits >= 1:
            raise Mistake(
                f"{found} Less than 1 bit is asked for: one token must have nearly all the probability."
            )
        if name == "C" and scores[0, logits.argmax()].isfinite():
            raise Mistake(f"{found} The likeliest token is still among them. Only one filter can drop it.")
        if name == "C" and kept > 60:
            raise Mistake(f"{found} At most 60 are asked for, without the likeliest.")
    return "All three targets are met: how many tokens are left and how uncertain the choice is are two different things."


@functools.cache
def _bowl():
    """The ids of the prompt, (1, length), and the default model's logits after it, (1, vocab)."""
    model, tokenizer = load(device="cpu")
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.no_grad():
        return ids, model(ids).logits[:, -1]


def _processed(name, settings, ids, logits):
    """The scores after `settings`, as generate() would compute them; Mistake for impossible settings."""
    classes = {
        "repetition_penalty": transformers.RepetitionPenaltyLogitsProcessor,
        "temperature": transformers.TemperatureLogitsWarper,
        "top_k": transformers.TopKLogitsWarper,
        "top_p": transformers.TopPLogitsWarper,
        "min_p": transformers.MinPLogitsWarper,
        "typical_p": transformers.TypicalLogitsWarper,
    }
    if unknown := [setting for setting in settings if setting not in SETTINGS]:
        raise Mistake(f"{name} has {unknown[0]!r}, which is not one of the settings: {', '.join(SETTINGS)}.")
    scores = logits
    for setting, make in classes.items():
        value = settings.get(setting)
        if value is None or value == {"top_k": 0, "min_p": 0}.get(setting, 1):  # off
            continue
        if not isinstance(value, int | float):
            raise Mistake(f"{name} cannot have {setting}={value!r}: give a number.")
        try:
            scores = make(value if setting == "top_k" else float(value))(ids, scores)
        except ValueError:
            raise Mistake(f"{name} cannot have {setting}={value!r}: {make.__name__} refuses it.") from None
    return scores


def _entropy(scores):
    """The entropy of one row of scores, in bits: float."""
    log_probs = scores.double().log_softmax(-1)
    return -(log_probs.exp() * log_probs).nansum().item() / 0.6931471805599453


# ---- forbid ------------------------------------------------------------------------------------------


@exercise("06/forbid", title="Forbid a word", minutes=15, difficulty=3, seconds=30)
def check_forbid(answer):
    """A processor, called with GPT-2's vocabulary and texts in which the word is absent, begun, or complete."""
    tokenizer, texts = _vocabulary()
    for word, rows in [
        ("pizza", ["I ate"]),
        ("rain", ["I like"]),
        ("pizza", ["Piz"]),
        ("pizza", ["I ate a p", "I ate a PIZ", "They saw it"]),
        ("rain", ["In Spain, the train is in", "I like the ra", "Rain and more rain"]),
        ("ana", ["I know Ana", "I"]),
        ("a", ["I like a", "I"]),
    ]:
        processor = answer(tokenizer, word)
        if not callable(processor):
            raise Mistake(f"Return the processor itself, a callable; got {type(processor).__name__}.")  # fmt: skip
        ids, _ = pad(token_rows(tokenizer, rows), tokenizer.eos_token_id)
        scores = torch.randn(len(rows), len(texts), generator=torch.Generator().manual_seed(1))
        got = _called(processor, ids, scores)
        for row, text in enumerate(rows):
            want = {id for id, piece in enumerate(texts) if word in (_tail(text, word) + piece).lower()}
            low = got[row] < -1e3
            said = f"the word {word!r} after {text!r}"
            _compare_bans(set(low.nonzero().flatten().tolist()), want, word, row, rows, said)
            if not got[row][low].isneginf().all():
                raise Mistake(f"For {said}, forbidden tokens get a large negative number. Set them to −∞.")
            if not torch.equal(got[row][~low], scores[row][~low]):
                raise Mistake(f"For {said}, values of tokens that are not forbidden have changed.")
        if not torch.equal(_called(processor, ids, scores), got):
            raise Mistake("Called again with the same ids, your processor returns something else. It should depend on its arguments only.")  # fmt: skip
    return "However the word is split into tokens, capitalised or begun by the prompt, it cannot be completed; and no other token is forbidden."


def _tail(text, word):
    return text[max(0, len(text) + 1 - len(word)) :]


@functools.cache
def _vocabulary():
    """GPT-2's tokenizer and the text of each of its tokens."""
    tokenizer = load_tokenizer("gpt2")
    return tokenizer, tokenizer.batch_decode([[id] for id in range(len(tokenizer))])


def _called(processor, ids, scores):
    """What a learner's processor returns; Mistake if it changes its input or returns anything but scores."""
    given = scores.clone()
    try:
        got = processor(ids.clone(), given)
    except NotImplementedError as error:
        raise NotYet from error
    if not isinstance(got, torch.Tensor) or got.shape != scores.shape:
        found = tuple(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
        raise Mistake(
            f"The processor should return a tensor of shape {tuple(scores.shape)}, one value per token; got {found}."
        )
    if not torch.equal(given, scores):
        raise Mistake(
            "The processor changes the tensor `scores` that it is given: work on a copy, `scores.clone()`."
        )
    return got


def _compare_bans(banned, want, word, row, rows, said):
    """Mistake unless the ids in `banned` are those in `want`."""
    if banned == want:
        return
    tokenizer, texts = _vocabulary()
    tail = _tail(rows[row], word)
    whole = {id for id, text in enumerate(texts) if word in text.lower()}
    exact = {id for id in want if word in tail + texts[id]}
    forms = {id for id in want if texts[id].strip().lower() == word}
    other = {id for id, text in enumerate(texts) if word in (_tail(rows[0], word) + text).lower()}
    parts = {id for form in (word, " " + word, word.title(), " " + word.title()) for id in tokenizer.encode(form)}  # fmt: skip
    here = word in rows[row].lower()
    more = {id for id, text in enumerate(texts) if (rows[row] + text).lower().count(word) > rows[row].lower().count(word)}  # fmt: skip

    def unless_right(ids):
        return ids if ids != want else None

    examples = ", ".join(repr(texts[id]) for id in sorted(banned ^ want)[:4])
    expect_equal(
        banned,
        want,
        said,
        f"The wrong tokens are forbidden. Your result differs for these, among others: {examples}.",
        mistakes=[
            (set() if want and here else None, "Nothing is forbidden when the word is already in the text. It must not be completed a second time."),
            (set() if want else None, "Nothing is forbidden."),
            (lambda banned: len(word) == 1 and len(banned) == len(texts), "Every token is forbidden, because `text[-0:]` is the whole text. For a word of one letter, nothing before the token matters."),
            (lambda banned: here and len(banned) == len(texts), "Every token is forbidden, because the word is already in the text. Look for words that *end* in the new token."),
            (unless_right(more) if here else None, "`count` skips a word that overlaps with the one before it, but such a word can still end in the new token."),
            (unless_right(whole), "Only tokens that contain the whole word are forbidden. Here the text has begun it, and a token can complete it."),
            (unless_right(exact), "Only this spelling is forbidden. Compare in lower case: `.lower()`."),
            (unless_right(other) if row else None, "The first row's text decides for all rows. Each row has its own."),
            (unless_right(forms), "Only tokens that *are* the word are forbidden. A longer token may contain it, too."),
            (unless_right(parts), "All tokens of the word's own encodings are forbidden. But a part alone is not the word, and other parts can spell it."),
            (lambda banned: banned > want, f"Tokens that do not complete the word are forbidden: {examples}."),
        ],
    )  # fmt: skip
