"""Lesson 13: right and wrong answers, and the facts behind its predictions."""

import numpy
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from course_utils.lessons import lesson13
from course_utils.lessons.lesson13 import bytes_a_token, draw, generate
from course_utils.portable import empty_past, exponential
from prove import prove_exercise, prove_questions


def test_questions():
    assert len(prove_questions(lesson13)) == 4


# ---- exercise 1 --------------------------------------------------------------------------------------


def decoding(
    *, positions=True, counted=True, masked=True, grows=True, fills=True, cached=True, prompt=True,
    early=False, late=False, kind="int64",
):  # fmt: skip
    """generate() in NumPy, with one thing done otherwise."""

    def generate(session, ids, mask, new_tokens, end):
        start, past, new, going = ids.shape[1], empty_past(session, len(ids)), ids, numpy.ones(len(ids), bool)
        first = mask
        for _ in range(new_tokens):
            if not cached:
                past, new = empty_past(session, len(ids)), ids
            places = numpy.maximum(mask.cumsum(1) - 1, 0)[:, -new.shape[1] :]
            if not counted:
                places = numpy.arange(mask.shape[1])[None].repeat(len(ids), 0)[:, -new.shape[1] :]
            if not positions:
                places = numpy.arange(new.shape[1])[None].repeat(len(ids), 0)
            given = mask if masked else numpy.ones_like(mask)
            given = given if grows else numpy.hstack([first, 0 * mask[:, first.shape[1] :]])
            feed = {"input_ids": new.astype(kind), "attention_mask": given, "position_ids": places, **past}
            logits, *cache = session.run(None, feed)
            past = dict(zip(past, cache, strict=True))
            chosen = logits[:, -1].argmax(-1)
            new = (numpy.where(going, chosen, end) if fills else chosen)[:, None]
            ids, mask = numpy.hstack([ids, new]), numpy.hstack([mask, numpy.ones_like(new)])
            going = going & (new[:, 0] != end)
            if not late and (not going.all() if early else not going.any()):
                break
        return ids if prompt else ids[:, start:]

    return generate


def by_lists(session, ids, mask, new_tokens, end):
    """Another right way: lists of columns, and the length counted from the mask's sum."""
    columns, done = [], numpy.zeros(len(ids), bool)
    feed = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clip(0)}
    feed |= empty_past(session, len(ids))
    names = [one.name for one in session.get_inputs()][3:]
    while len(columns) < new_tokens and not done.all():
        logits, *cache = session.run(None, feed)
        token = logits[:, -1].argmax(-1)
        token[done] = end
        done = done | (token == end)
        columns.append(token)
        mask = numpy.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        feed = {
            "input_ids": token[:, None],
            "attention_mask": mask,
            "position_ids": mask.sum(1, keepdims=True) - 1,
        }
        feed |= dict(zip(names, cache, strict=True))
    return numpy.concatenate([ids, numpy.stack(columns, 1)], axis=1)


def test_generate():
    prove_exercise(
        lesson13.check_generate,
        right=[generate, by_lists, decoding()],
        wrong=[
            (decoding(cached=False), "each pass reads the whole text again"),
            (decoding(prompt=False), "These are only the new ids"),
            (decoding(early=True), "fewer than the"),
            (decoding(late=True), "more than the"),
            (decoding(positions=False), "the position is the token's own"),
            (decoding(fills=False), "a row goes on after its end"),
            (decoding(masked=False), "Hand the mask on"),
            (decoding(counted=False), "Llama forgives positions"),
            (decoding(kind="int32"), "onnxruntime refuses an input"),
            (lambda *given: given[1][0], "Return one array of ids"),
        ],
    )
    assert lesson13.check_generate(decoding(grows=False)).outcome == "wrong"


# ---- exercise 2 --------------------------------------------------------------------------------------


def by_logarithm(logits, random, temperature):
    """The same race in logarithms."""
    scores = (logits / numpy.float32(temperature)).astype("float64")
    largest = scores.max(-1, keepdims=True)
    log_probs = scores - largest - numpy.log(numpy.exp(scores - largest).sum(-1, keepdims=True))
    return (log_probs - numpy.log(exponential(random, logits.shape))).argmax(-1)


def greedy(logits, random, temperature):
    return logits.argmax(-1)


def hot(logits, random, temperature):
    return draw(logits, random, 1.0)


def multiplied(logits, random, temperature):
    return draw(logits, random, 1 / temperature)


def overflows(logits, random, temperature):
    powers = numpy.exp(logits / numpy.float32(temperature))
    probs = powers / powers.sum(-1, keepdims=True)
    return (probs / exponential(random, probs.shape)).argmax(-1)


def seeded_anew(logits, random, temperature):
    return draw(logits, numpy.random.RandomState(0), temperature)


def by_choice(logits, random, temperature):
    probs = numpy.exp(logits / temperature - (logits / temperature).max(-1, keepdims=True)).astype("float64")
    return numpy.array([random.choice(len(row), p=row / row.sum()) for row in probs])


def test_draw():
    prove_exercise(
        lesson13.check_draw,
        right=[draw, by_logarithm],
        wrong=[
            (greedy, "This is greedy"),
            (hot, "The temperature has no effect"),
            (multiplied, "Divide."),
            (overflows, "Large logits overflow"),
            (seeded_anew, "do not seed it anew"),
            (by_choice, "Divide the probabilities by exponential numbers"),
            (lambda logits, random, temperature: 3, "Return one id a row"),
        ],
    )


# ---- exercise 3 --------------------------------------------------------------------------------------


def reading(keys=2, heads="num_key_value_heads", number=4, layers=True, weights=True):
    def answer(config, given, length):
        cache = keys * getattr(config, heads) * config.head_dim * number * length
        return given * weights + cache * (config.num_hidden_layers if layers else 1)

    return answer


def by_shape(config, weights, length):
    keys = numpy.zeros(
        (config.num_hidden_layers, config.num_key_value_heads, length, config.head_dim), "float32"
    )
    return weights + 2 * keys.nbytes


def test_bytes():
    prove_exercise(
        lesson13.check_bytes,
        right=[bytes_a_token, by_shape],
        wrong=[
            (reading(keys=1), "Keys *and* values"),
            (reading(heads="num_attention_heads"), "Several query heads share one"),
            (reading(number=1), "These are numbers, not bytes"),
            (reading(layers=False), "the cache of one layer"),
            (reading(weights=False), "The weights are missing"),
            (lambda *given: 7, "heads × size × 4 bytes for each token"),
            (lambda *given: "a", "Return one number"),
        ],
    )
