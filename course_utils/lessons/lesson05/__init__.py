"""Lesson 05: predictions and quiz; its exercises are in modules of their own. The helpers compute the answers."""

from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from ...checks.quiz import NumberPrediction, Option, Prediction, Question
from ..fixtures import tiny, warnings_on_the_page
from .batch import tiny_ends, tiny_generate, tiny_rows
from .broken_loops import check_loops
from .loop_parts import check_finish, check_processors, check_sentences
from .streamer import check_streamer

__all__ = [
    "check_finish",
    "check_loops",
    "check_processors",
    "check_sentences",
    "check_streamer",
    "quiz",
    "warnings_on_the_page",
]


# ---- predictions -------------------------------------------------------------------------------------

predict_top_k = NumberPrediction(
    "05/predict-top-k",
    "`model.generate(**inputs, do_sample=True)`, and no other setting anywhere. From how many tokens can the first new one be drawn?",
    key=50,
    unit="tokens",
    why="The library's own default is `top_k=50`. Nobody asked for it, and no warning names it.",
    wrong=(
        (
            (49000, 51000),
            "That is the whole vocabulary, which `top_k=0` would give. One of the library's defaults cuts it down.",
        ),
        (1, "That would be greedy decoding. With `do_sample=True` a token is drawn."),
    ),
    otherwise="Not the whole vocabulary: one of the library's defaults is a `top_k`, the number of tokens that are kept.",
    proof=lambda: _finite_scores(do_sample=True),
)

predict_length = NumberPrediction(
    "05/predict-length",
    "The prompt has 5 tokens, no length is set anywhere, and the model never writes an end-of-text. The library's default is `max_length=20`. How many ids come back, prompt included?",
    key=25,
    unit="ids",
    why="A default length counts new tokens: 5 + 20. A `max_length=20` that *you* pass counts the prompt too.",
    wrong=(
        (20, "That is what an explicit `max_length=20` gives, and what the default gave in older versions."),
        (15, "The prompt is not subtracted: it comes back too."),
    ),
    otherwise="There are 20 of something, and 5 tokens of the prompt. What does the default count?",
    proof=lambda: tiny_generate(tiny_rows()[:1]).shape[1],
)

predict_finished = NumberPrediction(
    "05/predict-finished",
    "Three rows. Rows 0 and 1 end at their second new token, row 2 at its twentieth. How many rows does the model compute at the last step?",
    key=3,
    unit="rows",
    why="The rows of a tensor all have the same length. Rows that have ended are computed until the last step, and the result is thrown away.",
    wrong=(
        (1, "Only one is still needed. But the batch stays one tensor, and no row is taken out of it."),
        (2, "Both rows have ended, and the model treats them alike."),
    ),
    otherwise="There are three rows: a number from 1 to 3.",
    proof=lambda: _rows_at_the_last_step(),
)

predict_custom = Prediction(
    "05/predict-custom",
    "You pass a logits processor of your own, and `do_sample=True, top_k=5`. How many processed scores are finite when yours is called?",
    options=(
        Option("5", "That is what is left after top-k. Yours comes earlier.", value=5),
        Option("All of them, one for each token of the vocabulary", "Yours comes before temperature, top-k and top-p, which belong to sampling.", right=True, value=50257),
        Option("50", "That is the default; here `top_k` is 5. In either case the filter comes later.", value=50),
        Option("1", "The choice comes after all processors.", value=1),
    ),
    proof=lambda: _finite_scores_seen(),
)  # fmt: skip


def _finite_scores(**arguments):
    """How many tokens can be drawn at the first step."""
    out = tiny_generate(
        tiny_rows()[:1], max_new_tokens=1, output_scores=True, return_dict_in_generate=True, **arguments
    )
    return out.scores[0].isfinite().sum().item()


def _finite_scores_seen():
    """How many finite scores a custom processor sees where top_k is 5."""
    seen = []

    def count(input_ids, scores):
        seen.append(scores.isfinite().sum().item())
        return scores

    tiny_generate(
        tiny_rows()[:1],
        max_new_tokens=1,
        do_sample=True,
        top_k=5,
        logits_processor=LogitsProcessorList([count]),
    )
    return seen[0]


def _rows_at_the_last_step():
    model, _ = tiny()
    sizes = []
    hook = model.register_forward_pre_hook(
        lambda module, args, given: sizes.append(len(given["input_ids"])), with_kwargs=True
    )
    try:
        out = tiny_generate(tiny_rows(), max_new_tokens=6, eos_token_id=tiny_ends())
    finally:
        hook.remove()
    assert (out[:2, -1] == 0).all() and (out[2, -1] != 0)
    return sizes[-1]


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "05/quiz-wins",
        "The model's generation config says `top_k=20` and `temperature=0.7`. You pass `generation_config=GenerationConfig(do_sample=True, top_k=None, temperature=1.2)`. Which values are used?",
        options=(
            Option("top_k 20, temperature 1.2", "The config that you pass wins where it sets a value. None sets nothing, so the model's 20 is used.", right=True, value=(20, 1.2)),
            Option("no top_k, temperature 1.2", "In the call itself `top_k=None` would switch it off. In a config None means: not set.", value=(None, 1.2)),
            Option("top_k 50, temperature 1.2", "50 is the library's default, which comes last. The model's own config is asked before it.", value=(50, 1.2)),
            Option("top_k 20, temperature 0.7", "The config that you pass comes before the model's own.", value=(20, 0.7)),
        ),
        proof=lambda: _who_wins(),
    ),
    Question(
        "05/quiz-no-end",
        "A model without end-of-text (`eos_token_id=None`) gets a stopping criterion of your own. It is True for row 0 at step 3, and row 1 continues. What comes next in row 0?",
        options=(
            Option("Padding, as for any row that has ended", "Ended rows are padded only if there is an end-of-text to look for.", value="pad"),
            Option("What the model writes", "The row counts as ended, but `generate()` pads rows only if there is an end-of-text to look for.", right=True, value="model"),
            Option("Nothing: the whole batch stops", "Criteria return a flag for each row. The loop goes on while any row is unfinished.", value="stopped"),
        ),
        proof=lambda: _behind_a_criterion(),
    ),
    Question(
        "05/quiz-boost",
        "Your processor adds 3 to a token's processed score, and the call has `do_sample=True, temperature=0.5`. By how much is that score higher when the token is drawn?",
        options=(
            Option("3", "That would be the answer if yours came after the temperature.", value=3.0),
            Option("6", "Yours comes first. The temperature then divides everything by 0.5, including the 3.", right=True, value=6.0),
            Option("1.5", "The temperature divides. 3 / 0.5 is more than 3.", value=1.5),
        ),
        proof=lambda: _boosted(),
    ),
    Question(
        "05/quiz-old",
        "A tutorial from 2022 calls `model.sample(input_ids, logits_warper=warpers)`. What do you write today?",
        options=(
            Option("`model.generate(input_ids, do_sample=True, temperature=…, top_k=…)`", "There is one method, and its arguments create the processors that used to be called warpers.", right=True, value=("generate", "do_sample")),
            Option("`model._sample(input_ids, logits_warper=warpers)`", "That is generate()'s own loop, with another signature; the argument is gone.", value=("_sample", "logits_warper")),
            Option("`model.generate(input_ids, logits_warper=warpers)`", "`generate()` does not know the name, and it refuses unknown names.", value=("generate", "logits_warper")),
        ),
        proof=lambda: _still_there(),
    ),
)  # fmt: skip


def _who_wins():
    """(top_k, temperature) that generate() settles on in the first question."""
    model, _ = tiny()
    before = model.generation_config
    model.generation_config = GenerationConfig(**{**before.to_dict(), "top_k": 20, "temperature": 0.7, "do_sample": True})  # fmt: skip
    passed = GenerationConfig(top_k=None, temperature=1.2, max_new_tokens=1, do_sample=True, pad_token_id=0)
    try:
        settled = model.generate(
            tiny()[1]("My dog", return_tensors="pt").input_ids.to(model.device),
            generation_config=passed,
            custom_generate=lambda model, input_ids, generation_config, **rest: generation_config,
        )
    finally:
        model.generation_config = before
    return settled.top_k, settled.temperature


def _behind_a_criterion():
    def third_step(input_ids, scores):
        done = input_ids[:, 0] < 0
        done[0] = input_ids.shape[1] >= length + 3
        return done

    length = max(map(len, tiny_rows()))
    out = tiny_generate(tiny_rows(), max_new_tokens=6, eos_token_id=None, stopping_criteria=StoppingCriteriaList([third_step]))  # fmt: skip
    free = tiny_generate(tiny_rows(), max_new_tokens=6, eos_token_id=None)
    if out.shape != free.shape:
        return "stopped"
    return "model" if (out[0] == free[0]).all() else "pad"


def _boosted():
    """By how much a processor's 3 raises a token's final score at temperature 0.5."""

    def add(input_ids, scores):
        scores = scores.clone()
        scores[:, 7] += 3
        return scores

    final = []
    for processors in ([], [add]):
        out = tiny_generate(
            tiny_rows()[:1],
            max_new_tokens=1,
            do_sample=True,
            temperature=0.5,
            top_k=0,
            output_scores=True,
            return_dict_in_generate=True,
            logits_processor=LogitsProcessorList(processors),
        )
        final.append(out.scores[0][0, 7].item())
    return round(final[1] - final[0], 3)


def _still_there():
    """The one of the options' (method, argument) that the installed transformers takes."""
    model, _ = tiny()
    taken = []
    for method, argument in (
        ("generate", "do_sample"),
        ("_sample", "logits_warper"),
        ("generate", "logits_warper"),
    ):
        try:
            call = getattr(model, method)
            call(tiny()[1]("My dog", return_tensors="pt").input_ids.to(model.device), max_new_tokens=1, pad_token_id=0, **{argument: True})  # fmt: skip
        except (AttributeError, TypeError, ValueError):
            continue
        taken.append((method, argument))
    (answer,) = taken
    return answer
