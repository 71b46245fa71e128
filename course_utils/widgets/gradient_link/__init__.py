"""The link between two steps of generation: what a loss and its gradient are with argmax, and with others."""

import itertools
import math
from pathlib import Path
from typing import Any

import torch
import traitlets

from ...errors import CourseError
from ...gradient_chain import ARGMAX, GUMBEL, LINKS, ChainTensor, Curve, TwoSteps
from ...gradients import toy_model
from ...inputs.numbers import real
from ..core.batch import Choice
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_TEMPERATURES, _SEEDS = (0.3, 1.0, 3.0), (0, 1, 2)  # of Gumbel-softmax
_PLACES = 49  # of the slider
_UNITS = 32_767  # a column of numbers is kept as int16, its largest as so many units


class GradientLink(CourseWidget):
    """Two steps of generation with a link between them, one weight to move, and the loss that it leads to.

    model:  a small decoder-only transformers model; None for `gradients.toy_model(seed=5)`
    start:  int, the id of the prompt's one token
    target: int, the id that the second step is to give; its surprise in nats is the loss
    number: int, the weight is added to this number of the first step's last hidden state
    span:   float, above 0: the slider goes from -span to span

    The link makes of the first step's logits what the second step reads: an id (argmax), a mixture of all
    embeddings (softmax; Gumbel-softmax, with noise), or one that is a single token forwards and a mixture
    backwards (straight-through). Only the first step has the weight, as if one entry of a bias were moved
    there, so that its gradient comes through the link or not at all. The noise of a seed stands still while
    the weight moves.

    `link` (one of `LINKS`), `weight` (rounded to a place of the slider), `temperature` (0.3, 1.0 or 3.0) and
    `seed` (0, 1 or 2) are the controls: the page writes them back, setting them from Python moves them.
    `chain()` and `curve()` have the numbers. Everything is computed when the widget is made, in 12 forward
    and backward passes of 49 rows, so the page needs no kernel.

    Raises CourseError for a model that is not a decoder, for ids and numbers that the model does not have,
    for a span that is not above 0, for losses that are not numbers, and for a control set to something
    else.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    link = Choice(LINKS).tag(sync=True)
    weight = traitlets.Float(0.0).tag(sync=True)
    temperature = Choice(_TEMPERATURES).tag(sync=True)
    seed = Choice(_SEEDS).tag(sync=True)
    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self, model: Any = None, link: str = ARGMAX, weight: float = 0.0, temperature: float = 1.0,
        seed: int = 0, *, start: int = 0, target: int = 5, number: int = 4, span: float = 6.0,
    ) -> None:  # fmt: skip
        model = toy_model(seed=5) if model is None else model
        self._steps = TwoSteps(model, start, target, number)
        end = None if isinstance(span, bool) else real(span)
        if end is None or not 0 < end < math.inf:
            raise CourseError(f"The span is {span!r}. Give a number above 0, such as 6.0.")
        self._weights = torch.linspace(-end, end, _PLACES, dtype=torch.float64)
        super().__init__(link=link, weight=weight, temperature=temperature, seed=seed)
        self._curves = {
            (name, *noise): self._steps.curve(self._weights, name, *noise)
            for name in LINKS
            for noise in (itertools.product(_TEMPERATURES, _SEEDS) if name == GUMBEL else [()])
        }
        self.set_trait("shown", self._state())

    @traitlets.validate("weight")
    def _at_a_place(self, proposal):
        value, span = proposal["value"], self._weights[-1].item()
        if not -span <= value <= span:  # also refuses NaN
            raise CourseError(
                f"The weight is {value}, and its slider goes from {-span:g} to {span:g}. "
                "Give a number between them, or make the widget with a larger span."
            )
        return round(self._weights[self._place(value)].item(), 6) + 0.0  # + 0.0: no minus before a zero

    def _place(self, weight) -> int:
        """Where the slider stands for this weight: int."""
        return int((self._weights - weight).abs().argmin())

    def curve(self, link: str | None = None) -> Curve:
        """The `two_steps.Curve` of a link at the present temperature and seed.

        link: str, None for the present one. Raises CourseError for another link.
        """
        return self._curves[self._known(link)]

    def chain(self, link: str | None = None) -> list[ChainTensor]:
        """Every tensor from the weight to the loss at the present place: list of `two_steps.ChainTensor`.

        link: str, None for the present one. Raises CourseError for another link.
        """
        return self._steps.chain(self._weights[[self._place(self.weight)]], *self._known(link))

    def _known(self, link):
        """The link, and for Gumbel-softmax the present temperature and seed: tuple."""
        link = self.link if link is None else link
        if link not in LINKS:
            raise CourseError(f"There is no link {link!r}. Give {' or '.join(map(repr, LINKS))}.")
        return (link, self.temperature, self.seed) if link == GUMBEL else (link,)

    def _state(self):
        """What the page needs: the chains, and all curves as int16 with the scale of each."""
        scales, columns = {}, []
        for name, curve in self._curves.items():
            own = scales[" ".join(map(str, name))] = []
            for values in (curve.losses, *curve.gradients.values()):
                own.append(float(f"{values.abs().max().item() or 1.0:.6g}"))
                columns.append((values / own[-1] * _UNITS).round().clamp(-_UNITS, _UNITS).short())
        return {
            "target": self._steps.target,
            "span": self._weights[-1].item(),
            "places": _PLACES,
            "temperatures": _TEMPERATURES,
            "seeds": _SEEDS,
            # The same at every place but for the gradient, of which there is only whether one arrives.
            "chains": {
                link: [[*facts, gradient is not None] for *facts, gradient in self.chain(link)]
                for link in LINKS
            },
            "choices": self._steps.run(self._weights, ARGMAX)["token"].tolist(),
            "scales": scales,
            "columns": torch.cat(columns).numpy().astype("<i2").tobytes(),
        }

    def _rows(self):
        """Loss, gradient and finite difference of each link at the present place: list of list of str."""
        place = self._place(self.weight)
        rows = []
        for link in LINKS:
            curve = self.curve(link)
            numbers = (curve.losses, curve.gradients.get("weight"), curve.differences())
            rows.append(
                [link, *(_two(None if column is None else column[place].item()) for column in numbers)]
            )
        return rows

    def _chain_rows(self):
        return [
            (name, dtype, f"requires_grad={needs}", grad_fn or "no grad_fn", _two(gradient))
            for name, _, dtype, needs, grad_fn, gradient in self.chain()
        ]

    def _loss(self):
        return f"the loss −log p(token {self._steps.target})"

    def summary(self) -> str:
        lines = [f"Weight {self.weight:g}: {self._loss()}, its gradient by autograd, its finite difference"]
        lines += [
            f"{link:18}{''.join(f'{number:>8}' for number in numbers)}" for link, *numbers in self._rows()
        ]
        lines.append(f"From the weight to the loss with {self.link}; last, the gradient that arrives")
        lines += [f"{name:13}{'  '.join(facts)}" for name, *facts in self._chain_rows()]
        return "\n".join(lines)

    def still(self) -> str:
        links = html_table(["Link", "Loss", "Gradient by autograd", "Finite difference"], self._rows())
        header = ["Tensor", "dtype", "requires_grad", "grad_fn", "Gradient that arrives"]
        chain = html_table(header, self._chain_rows())
        return (
            f"<p>Two steps with a link between them, at the weight {self.weight:g}; "
            f"{self._loss()} after the second</p>{links}"
            f"<p>From the weight to the loss with {self.link}</p>{chain}"
        )


def _two(number):
    """A number with two decimals, None as "none": str."""
    return "none" if number is None else f"{round(number, 2) + 0.0:.2f}"  # + 0.0: no minus before a zero
