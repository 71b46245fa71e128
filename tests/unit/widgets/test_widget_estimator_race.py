"""The race of the estimators: its numbers beside `measure`, seeds, slices, interrupts, and refusals."""

import dataclasses
import functools
import itertools

import numpy
import pytest
import torch

from course_utils import CourseError
from course_utils.gradients import ESTIMATORS, Problem, measure, random_rewards, toy_model
from course_utils.widgets import EstimatorRace, estimator_race

BY_NAME = {estimator.name: estimator for estimator in ESTIMATORS}


@functools.cache
def problem():
    return Problem(toy_model(3), random_rewards(3, 2))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def race():
    return EstimatorRace(problem(), samples=4)


def test_standings_are_those_of_the_estimates_made(race):
    race.run(16)
    assert [one.name for one in race.standings] == [estimator.name for estimator in ESTIMATORS]
    for estimator, standing in zip(ESTIMATORS, race.standings, strict=True):
        # Drawn at once, from a fresh generator: neither slices nor rivals make a difference.
        estimates = estimator.estimates(problem(), 4, 16, seeded())
        expected = measure(problem(), estimates)
        assert standing.estimates == 16 and standing.unbiased == estimator.unbiased
        for name in ("bias", "bias_error", "noise"):
            assert getattr(standing, name) == pytest.approx(getattr(expected, name), abs=1e-9), name
        mean, exact = estimates.mean(0), problem().gradient
        along = (mean @ exact / (exact @ exact)).item()
        assert standing.along == pytest.approx(along, abs=1e-9)
        assert standing.across == pytest.approx(
            ((mean - along * exact).norm() / exact.norm()).item(), abs=1e-9
        )
        assert standing.bias**2 == pytest.approx((standing.along - 1) ** 2 + standing.across**2, abs=1e-9)


def test_many_estimates_find_the_unbiased_ones():
    race = EstimatorRace(problem(), ESTIMATORS[:4], samples=4)
    race.run(1500)
    standings = {one.name: one for one in race.standings}
    for name in ("REINFORCE", "leave-one-out"):
        assert standings[name].bias < 3 * standings[name].bias_error
        assert standings[name].along == pytest.approx(1, abs=0.1)
    # Of the same samples the group mean makes 1 - 1 / samples times as much.
    assert standings["group mean"].along == pytest.approx(0.75 * standings["leave-one-out"].along)
    assert standings["group mean"].bias > 3 * standings["group mean"].bias_error


def test_one_request_is_one_slice_of_each(race):
    assert race.standings == []
    lefts = [race.answer({"go": 12})["left"] for _ in range(8)]
    assert lefts == [11, 10, 9, 8, 6, 3, 0, 0]
    assert race.shown["estimates"] == 12
    assert {one.estimates for one in race.standings} == {12}
    assert race.shown["trail"] == [1, 2, 3, 4, 6, 9, 12]
    assert race.answer({"go": 5}) == {"left": 0}  # that many there are
    assert race.answer({"go": 60})["left"] == 42


def test_long_races_keep_a_short_trail():
    race = EstimatorRace(problem(), ESTIMATORS[:1])
    race.run(2000)
    trail = race.shown["trail"]
    assert len(trail) < 60
    assert all(after >= 1.1 * before for before, after in itertools.pairwise(trail))


def test_a_seed_is_a_race():
    first, same, other = (EstimatorRace(problem(), ESTIMATORS[:2], seed=seed) for seed in (5, 5, 6))
    for race in (first, same, other):
        race.run(20)
    assert first.shown == same.shown
    assert first.standings != other.standings
    other.reset(5)
    assert other.standings == [] and other.shown["seed"] == 5
    other.run(20)
    assert other.standings == first.standings
    first.reset()
    assert first.shown["seed"] == 5 and first.shown["estimates"] == 0
    torch.manual_seed(99)
    first.run(20)
    assert first.standings == other.standings


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_after_an_interrupt_the_race_goes_on_as_if_nothing_had_been(error):
    some = [BY_NAME["REINFORCE"], BY_NAME["Gumbel, hard"]]
    race = EstimatorRace(problem(), some, samples=4)
    race.run(9)
    before = race.shown
    last = race._racers[-1]
    draw = last.draw

    def interrupted(count):
        draw(count)
        raise error

    last.draw = interrupted
    with pytest.raises(error):
        race.run(25)
    assert race.shown == before
    last.draw = draw
    race.run(25)
    undisturbed = EstimatorRace(problem(), some, samples=4)
    undisturbed.run(25)
    for one, other in zip(race.standings, undisturbed.standings, strict=True):
        assert one.along == pytest.approx(other.along, abs=1e-12), one.name


def test_an_estimator_of_the_learners_takes_part():
    twice = dataclasses.replace(BY_NAME["REINFORCE"], name="twice", advantage=lambda rewards: 2 * rewards)
    race = EstimatorRace(problem(), [BY_NAME["REINFORCE"], twice], samples=1)
    race.run(50)
    own, doubled = race.standings
    assert doubled.along == pytest.approx(2 * own.along)
    assert doubled.noise == pytest.approx(2 * own.noise)


def test_estimates_that_are_not_finite_are_one_sentence():
    broken = dataclasses.replace(
        BY_NAME["REINFORCE"], name="broken", advantage=lambda rewards: rewards / (rewards - rewards)
    )
    race = EstimatorRace(problem(), [BY_NAME["leave-one-out"], broken])
    with pytest.raises(CourseError, match="The estimates of broken"):
        race.run(5)
    assert race.shown["estimates"] == 0


def test_the_model_stays_as_it_was():
    model = toy_model(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    EstimatorRace(Problem(model, random_rewards(3, 2))).run(5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"problem": toy_model(3)}, "was given a GPT2LMHeadModel, and it needs a Problem"),
        ({"estimators": []}, "takes a list of 1 to 12 estimators"),
        ({"estimators": ["REINFORCE"]}, "takes a list of 1 to 12 estimators"),
        ({"estimators": 3}, "takes a list of 1 to 12 estimators"),
        ({"estimators": [ESTIMATORS[0]] * 2}, "Two estimators have the name 'REINFORCE'"),
        ({"samples": 0}, "samples is 0. Give a whole number from 1"),
        ({"samples": 2.0}, "samples is 2.0"),
        ({"samples": 1}, "Draw two or more"),
        ({"seed": -1}, "The seed is -1"),
        ({"seed": "0"}, "The seed is '0'"),
        ({"seed": 2**32}, "The seed is 4294967296. Give a whole number from 0 to 4,294,967,295"),
    ],
)
def test_refusals(given, sentence):
    with pytest.raises(CourseError, match=sentence):
        EstimatorRace(**({"problem": problem()} | given))


@pytest.mark.parametrize("estimates", [0, -3, 2.5, True, "50", 1_000_001])
def test_numbers_of_estimates_that_are_refused(race, estimates):
    race.run(3)
    before = race.shown
    with pytest.raises(CourseError, match="Give a whole number from 1 to 1,000,000"):
        race.run(estimates)
    with pytest.raises(CourseError, match=r"The seed is 1\.5"):
        race.reset(1.5)
    assert race.shown == before


def test_summary_and_still():
    race = EstimatorRace(problem(), ESTIMATORS[:2])
    assert repr(race) == "Nothing is estimated yet, with seed 0: press Start, or call run()."
    assert "<table" not in race.still()
    race.run(1)
    assert "±" not in repr(race)
    race.run(40)
    first, header, *rows = repr(race).splitlines()
    assert first == (
        "The means of 40 estimates, each from 8 samples, seed 0, in units of the exact gradient's length"
    )
    assert header.split() == ["Estimator", "By", "proof", "Along", "Across", "Bias", "Noise"]
    one = race.standings[1]
    assert rows[1].split() == [
        "leave-one-out", "unbiased", f"{one.along:.2f}", f"{one.across:.2f}",
        f"{one.bias:.2f}", "±", f"{one.bias_error:.2f}", f"{one.noise:.2f}",
    ]  # fmt: skip
    assert race.still().count("<tr>") == 3


def test_numbers_may_be_numpys_or_tensors():
    plain = EstimatorRace(problem(), ESTIMATORS[:2], samples=4, seed=3)
    plain.run(5)
    for kind in (numpy.int64, numpy.uint8, torch.tensor):
        other = EstimatorRace(problem(), ESTIMATORS[:2], samples=kind(4), seed=kind(3))
        other.run(kind(5))
        assert other.shown == plain.shown
        other.reset(kind(3))
        assert type(other.shown["seed"]) is type(other.shown["samples"]) is int


def test_an_output_stays_small(race):
    race.run(20)
    assert len(race.page().encode()) < 28_500


def test_the_slices_are_small_enough_to_pause():
    race = EstimatorRace(problem(), ESTIMATORS[:2])
    race.run(estimator_race._SLICE * 4)
    made = race.shown["estimates"]
    race.answer({"go": 1000})
    assert race.shown["estimates"] - made == estimator_race._SLICE
