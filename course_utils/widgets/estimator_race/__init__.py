"""Estimators of a gradient side by side: their running means on the way to the exact gradient, or past it."""

import copy
import html
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import traitlets

from ...errors import CourseError
from ...gradients import ESTIMATORS, Estimator, Problem
from ...inputs.numbers import integer
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_MOST = 12  # estimators
_GOALS = (50, 200, 1000)  # estimates, as the page offers them
_SLICE = 10  # estimates at most between two looks at the page
_TRAIL = 1.1  # a mean is kept where it comes from so many times the estimates of the one kept before
_HEADER = ("Estimator", "By proof", "Along", "Across", "Bias", "Noise")


class Standing(NamedTuple):
    """Where the mean of one estimator's estimates is, g being the exact gradient.

    name:       str
    unbiased:   bool, whether its mean is g, by proof
    estimates:  int, how many the mean is taken over
    along:      float, the mean's part along g, in units of |g|: 1 for g itself
    across:     float, the length of its part perpendicular to g, in units of |g|: 0 for g itself
    bias, bias_error, noise: float, as `gradients.Measured` has them; None for a single estimate's last two
    """

    name: str
    unbiased: bool
    estimates: int
    along: float
    across: float
    bias: float
    bias_error: float | None
    noise: float | None


class EstimatorRace(CourseWidget):
    """Estimates of one gradient by several estimators, slice by slice when the page asks for them.

    problem:    gradients.Problem, which has the exact gradient
    estimators: list of 1 to 12 `gradients.Estimator`, of different names
    samples:    int, at least 1: how many sequences each estimate is made from, the same for all
    seed:       int, 0 to 2 ** 32 - 1; each estimator has a generator of its own with this seed, so that its
                estimates do not depend on who else takes part, nor on when the race is paused

    `run(estimates)` computes in the cell, the page's Start does so a slice at a time. `standings` has the
    numbers and `reset(seed)` begins again.

    Raises CourseError for no Problem, for estimators that are none, too many, or of one name, for a number of
    samples that is too small for a baseline, for a seed out of range, and for estimates that are not finite.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self,
        problem: Problem,
        estimators: Sequence[Estimator] | Estimator = ESTIMATORS,
        samples: int = 8,
        seed: int = 0,
    ) -> None:
        if not isinstance(problem, Problem):
            raise CourseError(
                f"EstimatorRace was given a {type(problem).__name__}, and it needs a Problem, which has the "
                "exact gradient. Type EstimatorRace(Problem(toy_model(4), random_rewards(4)))."
            )
        self._problem, self._lock = problem, threading.Lock()
        self._estimators, self._samples = _checked(estimators, samples)
        super().__init__()
        self.reset(seed)

    @property
    def standings(self) -> list[Standing]:
        """One for each estimator, in the order given; empty before the first estimate."""
        return [racer.standing() for racer in self._racers] if self.shown["estimates"] else []

    def run(self, estimates: int = 50) -> None:
        """Go on until each estimator has made so many estimates.

        estimates: int, 1 to 1,000,000. Raises CourseError for another number.
        """
        while self._go_on(estimates):
            pass

    def reset(self, seed: int | None = None) -> None:
        """Drop all estimates. seed: int for those to come; None for the one there is."""
        given = self.shown["seed"] if seed is None else seed
        seed = integer(given)
        if seed is None or not 0 <= seed < 2**32:
            raise CourseError(f"The seed is {given!r}. Give a whole number from 0 to {2**32 - 1:,}.")
        with self._lock:
            self._racers = [_Racer(one, self._problem, self._samples, seed) for one in self._estimators]
            self._show(seed, self.shown.get("goal", _GOALS[0]))

    def answer(self, request: dict) -> dict | None:
        """{"go": goal} makes one slice of estimates, {"reset": seed} drops all.

        Returns {"left": int}, how many estimates are left to the goal. The page asks for one slice at a time,
        so it can pause, and other cells and widgets get a turn.
        """
        if "reset" in request:
            self.reset(request["reset"])
            return {"left": 0}
        return {"left": self._go_on(request["go"])}

    def _go_on(self, goal):
        """Make one slice of estimates with each estimator and show them. Returns int, how many are left."""
        asked, goal = goal, integer(goal)
        if goal is None or not 1 <= goal <= 1_000_000:
            raise CourseError(f"{asked!r} estimates are asked for. Give a whole number from 1 to 1,000,000.")
        with self._lock:  # a cell and the page may ask at the same time
            done = self.shown["estimates"]
            # Few at first, when each moves the means. The slices follow from the counts alone.
            count = min(goal - done, _SLICE, max(1, done // 2))
            if count <= 0:
                return 0
            states = [racer.generator.get_state() for racer in self._racers]
            try:
                self._racers = [racer.after(count) for racer in self._racers]
            except BaseException:  # an interrupt too: nobody is a slice ahead, and none is drawn twice
                for racer, state in zip(self._racers, states, strict=True):
                    racer.generator.set_state(state)
                raise
            self._show(self.shown["seed"], goal)
            return goal - self.shown["estimates"]

    def _show(self, seed, goal):
        some = self._racers[0]
        self.set_trait(
            "shown",
            {
                "samples": self._samples,
                "seed": seed,
                "goals": list(_GOALS),
                "goal": goal,
                "estimates": some.count,
                "trail": [count for count, _, _ in some.trail],
                "racers": [racer.state() for racer in self._racers],
            },
        )

    def _head(self):
        shown = self.shown
        if not shown["estimates"]:
            return f"Nothing is estimated yet, with seed {shown['seed']}: press Start, or call run()."
        return (
            f"The means of {shown['estimates']:,} estimates, each from {self._samples} samples, seed "
            f"{shown['seed']}, in units of the exact gradient's length"
        )

    def _rows(self):
        return [
            (
                one.name,
                "unbiased" if one.unbiased else "biased",
                f"{round(one.along, 2) + 0.0:.2f}",
                f"{one.across:.2f}",
                f"{one.bias:.2f}" + ("" if one.bias_error is None else f" ± {one.bias_error:.2f}"),
                "" if one.noise is None else f"{one.noise:.2f}",
            )
            for one in self.standings
        ]

    def summary(self) -> str:
        lines = [
            f"{name:26}{proof:10}{along:>7}{across:>7}  {bias:>13}{noise:>8}"
            for name, proof, along, across, bias, noise in [_HEADER, *self._rows()]
        ]
        return "\n".join([self._head(), *(lines if self.standings else [])])

    def still(self) -> str:
        table = html_table(_HEADER, self._rows()) if self.standings else ""
        return f"<p>{html.escape(self._head())}</p>{table}<p>Run the cell to make more estimates.</p>"


class _Racer:
    """One estimator with the mean and the spread of what it has estimated so far."""

    def __init__(self, estimator: Estimator, problem: Problem, samples: int, seed: int) -> None:
        self.estimator, self.problem, self.samples = estimator, problem, samples
        self.generator = torch.Generator(problem.probs.device).manual_seed(seed)
        self.count = 0
        self.mean = torch.zeros_like(problem.gradient)
        self.spread = 0.0  # the sum of the squared distances from the mean
        self.trail = []  # (count, along, across) on the way

    def draw(self, count):
        """So many more estimates: [count, parameters]."""
        estimates = self.estimator.estimates(self.problem, self.samples, count, self.generator)
        if estimates.shape != (count, len(self.mean)) or not estimates.isfinite().all():
            raise CourseError(
                f"The estimates of {self.estimator.name} have the shape {tuple(estimates.shape)} or are not "
                f"finite. Each is a gradient of {len(self.mean):,} numbers."
            )
        return estimates

    def after(self, count):
        """The racer as it is after so many more estimates: another _Racer, with the same generator.

        Mean and spread are merged as in Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise
        algorithm for computing sample variances".
        """
        estimates = self.draw(count)
        mean = estimates.mean(0)
        gap = mean - self.mean
        ahead = copy.copy(self)
        ahead.count = self.count + count
        ahead.mean = self.mean + gap * (count / ahead.count)
        between = gap.square().sum() * self.count * count / ahead.count
        ahead.spread = self.spread + ((estimates - mean).square().sum() + between).item()
        if not self.trail or ahead.count >= _TRAIL * self.trail[-1][0]:
            standing = ahead.standing()
            ahead.trail = [*self.trail, (ahead.count, standing.along, standing.across)]
        return ahead

    def standing(self):
        exact, size = self.problem.gradient, self.problem.gradient.norm()
        along = (self.mean @ exact / size**2).item()
        noise = (self.spread / (self.count - 1)) ** 0.5 / size.item() if self.count > 1 else None
        return Standing(
            name=self.estimator.name,
            unbiased=self.estimator.unbiased,
            estimates=self.count,
            along=along,
            across=((self.mean - along * exact).norm() / size).item(),
            bias=((self.mean - exact).norm() / size).item(),
            bias_error=None if noise is None else noise / self.count**0.5,
            noise=noise,
        )

    def state(self):
        """What the page shows of it: dict."""
        state = {"name": self.estimator.name, "unbiased": self.estimator.unbiased}
        if self.count:
            numbers = self.standing()._asdict()
            for name in ("along", "across", "bias", "bias_error", "noise"):
                state[name] = None if numbers[name] is None else round(numbers[name], 9)
            state["trail"] = [[round(along, 3), round(across, 3)] for _, along, across in self.trail]
        return state


def _checked(estimators, samples) -> tuple[list[Estimator], int]:
    """The estimators as a list and the number of samples as an int. Raises CourseError for those that cannot
    race."""
    found = list(estimators) if isinstance(estimators, list | tuple) else [estimators]
    if not all(isinstance(one, Estimator) for one in found) or not 1 <= len(found) <= _MOST:
        raise CourseError(
            f"EstimatorRace takes a list of 1 to {_MOST} estimators. Type estimators=ESTIMATORS[:2], after "
            "from course_utils.gradients import ESTIMATORS."
        )
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise CourseError(f"Two estimators have the name {name!r}. Give each a name of its own.")
    count = integer(samples)
    if count is None or count < 1:
        raise CourseError(f"samples is {samples!r}. Give a whole number from 1, such as 8.")
    for one in found:
        advantage = one.advantage if one.objective is None else one.objective.advantage
        if advantage is not None:
            advantage(torch.zeros(1, count))  # says so where its baseline needs more of them
    return found, count
