"""Lesson 06: predictions and quiz; its exercises are in modules of their own. The helpers compute the answers."""

import functools

import torch
from transformers import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from ...checks.quiz import Option, Prediction, Question
from ...models import load
from ..fixtures import quiet_transformers
from .beam_search import check_score_beams, check_sort_out, sort_out, usable_score_beams, usable_sort_out
from .filters import NO_IDS, check_forbid, check_targets, check_top_p

__all__ = [
    "check_forbid",
    "check_score_beams",
    "check_sort_out",
    "check_targets",
    "check_top_p",
    "quiz",
    "sort_out",
    "usable_score_beams",
    "usable_sort_out",
]

SMOLLM2 = "smollm2-135m"

# ---- predictions -------------------------------------------------------------------------------------

predict_cold = Prediction(
    "06/predict-cold",
    "At temperature 1 ` pizza` is 1.1 times as likely as ` pasta`. And at temperature 0.1?",
    options=(
        Option("1.1 times", "The difference of their logits is multiplied by 10, and that changes their probabilities.", value=1),
        Option("2.7 times", "1.1 (1.105, not rounded) to the power of 10. A close race stays close.", right=True, value=3),
        Option("11 times", "It is the logarithm of the ratio that is multiplied by 10, not the ratio.", value=11),
        Option("More than a thousand times", "That needs a temperature near 0.01.", value=1000),
    ),
    proof=lambda: _ratio_when_cold(),
)  # fmt: skip

predict_typical = Prediction(
    "06/predict-typical",
    "After `I want to eat a big bowl of` the entropy is 8 bits, and the surprise of the likeliest token, ` pizza`, is 3.7 bits. Is it kept by `typical_p=0.5`?",
    options=(
        Option("Yes: the likeliest token is always kept", "That is true of the other three filters. Typical starts from the entropy.", value="always"),
        Option("No: it is too likely", "It is 4.3 bits from the mean surprise. Tokens nearer to it come first, and they already reach 0.5.", right=True, value="dropped"),
        Option("Yes: it is the first of the tokens that reach 0.5", "That is how top-p counts. Typical begins with the tokens nearest to the entropy.", value="first"),
    ),
    proof=lambda: _typical_drops_the_likeliest(),
)  # fmt: skip

predict_order = Prediction(
    "06/predict-order",
    "Which pair gives the same tokens in either order?",
    options=(
        Option("Temperature and top-k", "Top-k looks only at the order of the tokens, and the temperature keeps it.", right=True, value="temperature top-k"),
        Option("Temperature and top-p", "The temperature moves probability between the tokens, and top-p adds it up.", value="temperature top-p"),
        Option("Temperature and min-p", "The temperature changes the ratio of each probability to the largest one.", value="temperature min-p"),
        Option("Top-k and top-p", "The probabilities of what top-k keeps sum to 1 again, so top-p adds up other numbers.", value="top-k top-p"),
    ),
    proof=lambda: _the_pair_that_commutes(),
)  # fmt: skip

predict_beams = Prediction(
    "06/predict-beams",
    "Eight tokens after `The cat sat on the`, chosen greedily or by three beams. Which text has the higher log probability?",
    options=(
        Option("The beams' text", "Often. But each step drops all but three beginnings, and here a good one was dropped.", value="beams"),
        Option("The greedy text", "Its beginning dropped out of the three best before its good continuation came. Beam search guarantees nothing.", right=True, value="greedy"),
        Option("Both are the same text", "Sometimes they are. Here the beams found a different text.", value="same"),
    ),
    proof=lambda: _greedy_against_beams(),
)  # fmt: skip


@functools.cache
def _model():
    return load(SMOLLM2, device="cpu")


def _logits(text):
    model, tokenizer = _model()
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).logits[:, -1]


def _ratio_when_cold():
    probs = (_logits("I want to eat a big bowl of") / 0.1).softmax(-1)[0].topk(2).values
    return round((probs[0] / probs[1]).item())


def _typical_drops_the_likeliest():
    logits = _logits("I want to eat a big bowl of")
    kept = TypicalLogitsWarper(0.5)(NO_IDS, logits)[0, logits.argmax()].isfinite()
    return "first" if kept else "dropped"


def _the_pair_that_commutes():
    logits = _logits("I want to eat a big bowl of")
    made = {
        "temperature": TemperatureLogitsWarper(2.0),
        "top-k": TopKLogitsWarper(20),
        "top-p": TopPLogitsWarper(0.3),
        "min-p": MinPLogitsWarper(0.2),
    }
    (pair,) = [
        f"{one} {other}"
        for one, other in (
            ("temperature", "top-k"),
            ("temperature", "top-p"),
            ("temperature", "min-p"),
            ("top-k", "top-p"),
        )
        if torch.equal(
            made[other](None, made[one](None, logits)).isfinite(),
            made[one](None, made[other](None, logits)).isfinite(),
        )
    ]
    return pair


def _greedy_against_beams():
    model, tokenizer = _model()
    inputs = tokenizer("The cat sat on the", return_tensors="pt")
    sums = []
    for beams in (1, 3):
        ids = _quietly(model, **inputs, max_new_tokens=8, num_beams=beams, length_penalty=0.0, eos_token_id=None)  # fmt: skip
        log_probs = model(ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])
        sums.append(log_probs[0, -8:].sum().item())
    if abs(sums[0] - sums[1]) < 0.1:
        return "same"
    return "greedy" if sums[0] > sums[1] else "beams"


def _quietly(model, **arguments):
    """What generate() returns, with transformers' own messages silenced."""
    with quiet_transformers():
        return model.generate(**{"do_sample": False, "pad_token_id": 1, **arguments})


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "06/quiz-top-p",
        "Four tokens have the probabilities 1/2, 1/4, 1/8 and 1/8. `generate()` runs with `temperature=0.5` and `top_p=0.7`. How many can be drawn?",
        options=(
            Option("1", "The temperature comes first and squares the ratios: the first token then has a probability of 0.73, which is enough.", right=True, value=1),
            Option("2", "That is what top-p would keep without the temperature, which comes first.", value=2),
            Option("3", "With a low temperature top-p keeps fewer tokens, not more.", value=3),
            Option("4", "Top-p removes what is not needed to reach 0.7.", value=4),
        ),
        proof=lambda: _left_after_top_p(),
    ),
    Question(
        "06/quiz-test",
        "A sampler passes the chi-square test with 1,000 draws. What do you know?",
        options=(
            Option("It is right", "No number of draws shows that. An error in one of a million draws would pass."),
            Option("It has no error large enough to show in 1,000 draws", "A temperature of 0.8 was found. One of 0.99 needs many more draws.", right=True),
            Option("It draws the likeliest 30 tokens only", "The test counts all other tokens together as one more class."),
            Option("It was seeded like the right one", "The test compares frequencies. It knows nothing about seeds."),
        ),
    ),
    Question(
        "06/quiz-negative",
        "`generate(**inputs, negative_prompt_ids=unwanted, guidance_scale=1.0)`: what does it write?",
        options=(
            Option("What it would write without the unwanted text", "At 1 the unwanted text cancels out of the formula. Only above 1 does it matter.", right=True, value="plain"),
            Option("What follows the unwanted text", "That is what the formula gives at 0.", value="unwanted"),
            Option("Something that avoids the unwanted text", "That needs a scale above 1.", value="guided"),
        ),
        proof=lambda: _guided_at_one(),
    ),
)  # fmt: skip


def _left_after_top_p():
    scores = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    return TopPLogitsWarper(0.7)(NO_IDS, TemperatureLogitsWarper(0.5)(NO_IDS, scores)).isfinite().sum().item()


def _guided_at_one():
    model, tokenizer = load("tiny-gpt2", device="cpu")
    inputs, unwanted = (tokenizer(text, return_tensors="pt") for text in ("My dog is", "It will rain in the"))
    run = {"max_new_tokens": 6, "eos_token_id": None}
    negative = {"negative_prompt_ids": unwanted.input_ids}
    plain, at_one, at_three = (
        _quietly(model, **inputs, **run, **extra)
        for extra in ({}, {**negative, "guidance_scale": 1.0}, {**negative, "guidance_scale": 3.0})
    )
    assert not torch.equal(plain, at_three)
    return "plain" if torch.equal(plain, at_one) else "guided"
