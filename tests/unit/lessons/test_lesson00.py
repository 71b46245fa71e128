"""Lesson 00: its check is proven against right and wrong answers, its questions against their proofs."""

from course_utils.lessons import lesson00
from prove import prove_exercise, prove_questions


def by_index(tokens, probabilities):
    return tokens[probabilities.index(max(probabilities))]


def by_sorting(tokens, probabilities):
    return max(zip(probabilities, tokens, strict=True))[1]


def place(tokens, probabilities):
    return probabilities.index(max(probabilities))


def probability(tokens, probabilities):
    return max(probabilities)


def least_likely(tokens, probabilities):
    return tokens[probabilities.index(min(probabilities))]


def last_in_the_alphabet(tokens, probabilities):
    return max(tokens)


def in_a_list(tokens, probabilities):
    return [by_index(tokens, probabilities)]


def always_the_first(tokens, probabilities):
    return tokens[0]


def test_most_likely():
    prove_exercise(
        lesson00.check_most_likely,
        right=[by_index, by_sorting],
        wrong=[
            (place, "this is the index"),
            (probability, "this is the highest probability"),
            (least_likely, "the least likely"),
            (last_in_the_alphabet, "compares spellings"),
            (in_a_list, "not a list"),
            (always_the_first, "find the index of the highest"),
        ],
    )


def test_questions():
    prove_questions(lesson00)
