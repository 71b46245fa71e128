import pytest

from course_utils.checks.quiz import NumberPrediction, Option, Prediction, Question
from prove import prove_questions

RIGHT = Option("`yes`", "because", right=True)
WRONG = Option("no", "because not")


def number(**changes):
    fields = {"id": "01/n", "text": "How many?", "key": 10, "why": "so many", "otherwise": "count again"}
    return NumberPrediction(**fields | changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Option("", "why"), "needs a text"),
        (lambda: Option("a", " "), "needs a why"),
        (lambda: Question("q", "?", (RIGHT, WRONG)), "not an id"),
        (lambda: Question("01/q", "", (RIGHT, WRONG)), "needs a text"),
        (lambda: Question("01/q", "?", (RIGHT,)), "at least two"),
        (lambda: Question("01/q", "?", (RIGHT, RIGHT)), "same text"),
        (lambda: Question("01/q", "?", (WRONG, Option("maybe", "no"))), "0 right options: mark exactly one"),
        (lambda: Question("01/q", "?", (RIGHT, Option("b", "c", right=True))), "2 right options"),
        (lambda: Question("01/q", "?", (WRONG, Option("maybe", "no")), several=True), "mark some"),
        (lambda: number(why=""), "needs `why`"),
        (lambda: number(otherwise=""), "needs `otherwise`"),
        (lambda: number(key=float("nan")), "finite key"),
        (lambda: number(tolerance=-1), "tolerance"),
        (lambda: number(wrong=((3, ""),)), "needs a why for 3"),
        (lambda: number(wrong=(((5, 3), "x"),)), "is empty"),
        (lambda: number(wrong=((11, "x"),), tolerance=1), "within the tolerance"),
    ],
)
def test_what_is_not_well_formed_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_order_of_options_favours_no_place():
    texts = [Option(str(n), "why", right=n == 0) for n in range(4)]
    places = [Question(f"01/q-{n}", "?", tuple(texts)).key[0] for n in range(200)]
    assert all(30 < places.count(place) < 70 for place in range(4))


def test_order_is_the_same_on_every_machine():
    question = Question("01/order", "?", tuple(Option(c, "why", right=c == "a") for c in "abcd"))
    assert "".join(option.text for option in question.options) == "acbd"


def test_right_means_exactly_the_right_ones():
    question = Question("01/q", "?", (RIGHT, WRONG, Option("also", "why", right=True)), several=True)
    assert question.is_right(question.key) and question.is_right(question.key[::-1])
    assert not question.is_right(question.key[:1])
    assert not question.is_right([0, 1, 2])


def test_proof_gives_the_option_by_text_or_value():
    Question("01/q", "?", (RIGHT, WRONG), proof=lambda: "yes").prove()
    ids = (Option("two", "why", right=True, value=[1, 2]), Option("none", "why", value=[]))
    Prediction("01/q", "?", ids, proof=lambda: [1, 2]).prove()
    both = (RIGHT, Option("five", "why", right=True, value=5), WRONG)
    Question("01/q", "?", both, several=True, proof=lambda: ["yes", 5]).prove()


@pytest.mark.parametrize("value", ["no", "something else", ["yes"]])
def test_proof_that_gives_another_option_fails(value):
    with pytest.raises(AssertionError, match="01/q: the proof gives"):
        Question("01/q", "?", (RIGHT, WRONG), proof=lambda: value).prove()


def test_number_explains_each_guess():
    guess = number(tolerance=0.5, wrong=((1, "one"), ((2, 20), "a range"), (7, "hidden by the range")))
    assert [guess.explain(x) for x in (1, 2, 7, 20)] == ["one", "a range", "a range", "a range"]
    assert guess.explain(9.5) == guess.explain(10.5) == "so many"
    assert guess.explain(0) == "count again"
    assert number(key=0.3, tolerance=0.1).is_right(0.4)


def test_number_is_proven():
    number(proof=lambda: 10).prove()
    with pytest.raises(AssertionError, match="gives 11, but the key is 10"):
        number(proof=lambda: 11).prove()


class Lesson:
    """Stands for a module."""

    def __init__(self, *items):
        self.__name__ = "course_utils.lessons.lesson01"
        self.quiz = items


def test_prove_questions_runs_proofs_and_compares_ids():
    good = Question("01/q", "?", (RIGHT, WRONG), proof=lambda: "yes")
    assert prove_questions(Lesson(good, number())) == ["01/q"]
    with pytest.raises(AssertionError, match="stand twice"):
        prove_questions(Lesson(good, Question("01/q", "??", (RIGHT, WRONG))))
    with pytest.raises(AssertionError, match="another lesson"):
        prove_questions(Lesson(Question("02/q", "?", (RIGHT, WRONG))))
    with pytest.raises(AssertionError, match="proof gives"):
        prove_questions(Lesson(number(proof=lambda: 3)))


def test_prove_questions_wants_the_right_option_at_different_places():
    first = [q for q in (Question(f"01/q-{n}", "?", (RIGHT, WRONG)) for n in range(20)) if q.key == (0,)][:3]
    with pytest.raises(AssertionError, match="always stands"):
        prove_questions(Lesson(*first))
