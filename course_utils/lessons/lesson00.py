"""Lesson 00: one prediction, one exercise to warm up on, a short quiz."""

import torch

from ..checks.exercise import exercise, expect_equal
from ..checks.quiz import NumberPrediction, Option, Question
from ..models import load


def _logits_after(prompt):
    """The default model's logits after `prompt`: float32 [vocab], and its tokenizer."""
    model, tokenizer = load("smollm2-135m", device="cpu")
    with torch.no_grad():
        return model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1], tokenizer


def _percent_of_paris():
    logits, tokenizer = _logits_after("The capital of France is")
    return 100 * (logits / 2).softmax(-1)[tokenizer(" Paris").input_ids[0]].item()


predict_temperature = NumberPrediction(
    "00/predict-temperature",
    "At temperature 1 the token ` Paris` has a probability of 77 %. What is it at temperature 2? A guess within 4 counts as right.",
    key=5,
    tolerance=4,
    unit="%",
    why="Each of the other 49,151 tokens is unlikely, but each gains, and together they take nearly all the probability.",
    wrong=(
        (
            (30, 45),
            "Half of 77 would be about 38. But it is the logits that are halved, not the probabilities.",
        ),
        ((77, 77), "The order of the tokens does stay the same. Their probabilities do not."),
        ((78, 100), "It goes the other way: a temperature above 1 makes the distribution flatter."),
    ),
    otherwise="It falls further than most people guess, because the vocabulary is so large.",
    proof=_percent_of_paris,
)


@exercise("00/most-likely", title="Return the most likely token", minutes=2, difficulty=1)
def check_most_likely(answer):
    """The token that has the highest probability."""
    for tokens, probabilities in [
        (["b", "a", "d", "c"], [0.25, 0.45, 0.2, 0.1]),
        ([" the", " Paris"], [0.05, 0.95]),
        (["x", "y", "z"], [0.5, 0.2, 0.3]),
        (["only"], [1.0]),
    ]:
        place = probabilities.index(max(probabilities))
        expect_equal(
            answer(tokens, probabilities),
            tokens[place],
            (tokens, probabilities),
            "Find the index of the highest probability, and return the token at that index.",
            mistakes=[
                (place, "This is the index. Return the token at that index."),
                (probabilities[place], "This is the highest probability. Return the token that has it."),
                (
                    tokens[probabilities.index(min(probabilities))] if len(tokens) > 1 else None,
                    "This is the least likely token.",
                ),
                (
                    max(tokens) if len(tokens) > 1 else None,
                    "`max(tokens)` compares spellings. Compare the probabilities.",
                ),
                ([tokens[place]], "Return the token itself, not a list."),
            ],
        )
    return "You have written greedy decoding: always the most likely token."


quiz = (
    Question(
        "00/quiz-distribution",
        "What does the model return for the token that comes after a text?",
        options=(
            Option("The next word", "It returns a number for every token. Choosing one is a separate step, which the model does not do."),
            Option("One number for every token of the vocabulary", "49,152 logits here, which softmax turns into probabilities.", right=True),
            Option("The most likely tokens and their probabilities", "The widget shows only the longest bars. The model gives every token a number."),
        ),
        proof=lambda: "One number for every token of the vocabulary" if len(_logits_after("Hi")[0]) == 49152 else "?",
    ),
    Question(
        "00/quiz-temperature",
        "You move the temperature from 1 to 2. What has changed inside the model?",
        options=(
            Option("Nothing", "The logits are the same. They are divided by 2 after the model has run, before the softmax.", right=True),
            Option("Its weights", "Nothing here changes the weights. Training does that, in lessons 02 and 09."),
            Option("It reads the text again, more freely", "The widget recomputes the probabilities without running the model again."),
        ),
    ),
    Question(
        "00/quiz-not-yet",
        "A check says `not yet`. What do you do?",
        options=(
            Option("Write your answer in the cell above it, run that, then run the check again", "The check uses your function as you last ran it.", right=True),
            Option("Change the cell of the check", "The check can stay as it is. It looks at your function."),
            Option("Run the check again", "It will say the same until the cell above has been changed and run."),
        ),
    ),
)  # fmt: skip
