"""What each lesson asks: exercises with their catalogue of mistakes, predictions and quizzes.

A lesson is a module or a folder `lessonNN` of this package, and a line of the table below. From the table
`checks.progress` counts what there is to do, without importing the lessons and torch with them. A test
compares it with the modules.
"""

from ..checks.progress import Lesson


def _lesson(number, title, exercises, predictions, quiz):
    """A Lesson from the last parts of its items' ids, with spaces between them."""
    kinds = {"exercise": exercises, "prediction": predictions, "quiz": quiz}
    ids = {kind: [f"{number}/{name}" for name in names.split()] for kind, names in kinds.items()}
    return Lesson(number, title, ids)


# Exercises in the order in which the lesson asks them.
LESSONS = (
    _lesson(
        "00",
        "Does it run?",
        exercises="most-likely",
        predictions="predict-temperature",
        quiz="quiz-distribution quiz-temperature quiz-not-yet",
    ),
    _lesson(
        "01",
        "How does text become integers?",
        exercises="to-text merge-word learn-merges shorten",
        predictions="predict-space predict-strawberry predict-pieces predict-special predict-hindi",
        quiz="quiz-symbol quiz-order quiz-whole quiz-user-text",
    ),
    _lesson(
        "02",
        "Why pad, and on which side?",
        exercises="pad-left positions repair repair-labels",
        predictions="predict-right predict-left predict-positions-only predict-generate predict-labels",
        quiz="quiz-scoring quiz-silence quiz-inferred quiz-endless",
    ),
    _lesson(
        "03",
        "What does a mask do inside attention?",
        exercises="attention-weights join attend nan-cases",
        predictions="predict-before predict-times predict-full-row predict-gradient predict-fillers",
        quiz="quiz-before quiz-half quiz-twice quiz-step quiz-mean",
    ),
    _lesson(
        "04",
        "What does one forward pass return?",
        exercises="count attention forward decode endings loop",
        predictions="predict-head predict-last-hidden predict-unchanged predict-twice predict-cost",
        quiz="quiz-untied quiz-first-hidden quiz-attentions quiz-memory quiz-mask",
    ),
    _lesson(
        "05",
        "What does generate() do, step by step?",
        exercises="finish processors sentences streamer loops",
        predictions="predict-top-k predict-length predict-finished predict-custom",
        quiz="quiz-wins quiz-no-end quiz-boost quiz-old",
    ),
    _lesson(
        "06",
        "How is the next token chosen?",
        exercises="top-p targets forbid score-beams beams",
        predictions="predict-cold predict-typical predict-order predict-beams",
        quiz="quiz-top-p quiz-test quiz-negative",
    ),
    _lesson(
        "07",
        "How likely was that?",
        exercises="row-sums text-log-prob perplexity beam-sums which-line",
        predictions="predict-processed predict-padding predict-shift predict-answers predict-penalty",
        quiz="quiz-compare quiz-inf quiz-first quiz-penalty quiz-perplexity",
    ),
    _lesson(
        "08",
        "Why does argmax break gradients?",
        exercises="cuts straight-through score",
        predictions="predict-wrapped predict-embedding predict-flat predict-teacher predict-memory",
        quiz="quiz-enable quiz-picking quiz-zero quiz-cheapest",
    ),
    _lesson(
        "09",
        "How do you train through generation, then?",
        exercises="log-probs-of leave-one-out train",
        predictions="predict-end predict-no-reward predict-shift predict-group predict-stale predict-more-samples",
        quiz="situation-programs situation-answers situation-switch situation-dear quiz-draw quiz-baseline quiz-loss quiz-unbiased",
    ),
    _lesson(
        "10",
        "What do PPO and GRPO add?",
        exercises="clipped grpo-loss diagnose",
        predictions="predict-ratio predict-case predict-clip predict-loss predict-k1 predict-wasted",
        quiz="quiz-one-update quiz-zero quiz-reward quiz-length",
    ),
    _lesson(
        "11",
        "How does a chat become one text?",
        exercises="render encode-safely assistant-labels",
        predictions="predict-silence predict-header predict-prefill predict-forged predict-cache predict-mask "
        "predict-new-row",
        quiz="quiz-empty quiz-twice quiz-end quiz-keep",
    ),
    _lesson(
        "12",
        "Is it a bug, or rounding?",
        exercises="step first-flip verdict safe-probs",
        predictions="predict-row predict-deterministic predict-distinct predict-column predict-double "
        "predict-greedy-nan predict-seed",
        quiz="quiz-batch quiz-words quiz-nan quiz-seed",
    ),
    _lesson(
        "13",
        "What is left when PyTorch is gone?",
        exercises="generate draw bytes",
        predictions="predict-one-tensor predict-dice predict-four-bits predict-faster",
        quiz="quiz-mask quiz-speed quiz-bits",
    ),
    _lesson(
        "14",
        "Can you build a decoder of your own?",
        exercises="exactly json z-score watermark grpo-step",
        predictions="predict-false-alarm",
        quiz="quiz-length quiz-grammar quiz-mark",
    ),
)
