"""The link between two steps of generation: what a loss and its gradient are with argmax, and with others."""

import html
from pathlib import Path
from typing import NamedTuple

import torch
import traitlets
from torch.nn.functional import cross_entropy

from ..errors import CourseError
from ..gradients import gumbel, soft, straight_through, toy_model
from .base import CourseWidget, html_table
from .batch import Choice

_HERE = Path(__file__).parent
_ARGMAX, _SOFTMAX, _GUMBEL, _STRAIGHT = LINKS = ("argmax", "softmax", "Gumbel-softmax", "straight-through")
_CODE = {  # as a learner would type it
    _ARGMAX: "logits.argmax(-1)",
    _SOFTMAX: "logits.softmax(-1)",
    _GUMBEL: "((logits + noise) / temperature).softmax(-1)",
    _STRAIGHT: "one_hot + probs - probs.detach()",
}
_TEMPERATURES, _SEEDS = (0.3, 1.0, 3.0), (0, 1, 2)  # of Gumbel-softmax
_PLACES = 49  # of the slider
_UNITS = 32_767  # a column of numbers is kept as int16, its largest as so many units


class ChainTensor(NamedTuple):
    """One tensor on the way from the weight to the loss.

    name, code:    str, what it is called, and the line that makes it
    dtype:         str, as "float64"
    requires_grad: bool
    grad_fn:       str, the operation that autograd recorded for it, or None
    gradient:      float, what backward() brings to it: a single number's own, with its sign, else the norm;
                   None where nothing arrives
    """

    name: str
    code: str
    dtype: str
    requires_grad: bool
    grad_fn: str | None
    gradient: float | None


class Curve(NamedTuple):
    """A loss over the places of the slider, and what autograd finds there.

    weights, losses: float64 tensors [places]
    gradients:       dict from the name of a tensor in the chain to float64 [places], as ChainTensor has it
    """

    weights: torch.Tensor
    losses: torch.Tensor
    gradients: dict

    def differences(self):
        """The finite difference of the loss, over one place of the slider on each side: float64 [places]."""
        (slopes,) = torch.gradient(self.losses, spacing=(self.weights,))
        return slopes


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

    Raises CourseError for an encoder-decoder model, for ids and numbers that the model does not have, for a
    span that is not above 0, for losses that are no numbers, and for a control that is set to something else.
    """

    _esm = _HERE / "gradient_link.js"
    _css = _HERE / "gradient_link.css"

    link = Choice(LINKS).tag(sync=True)
    weight = traitlets.Float(0.0).tag(sync=True)
    temperature = Choice(_TEMPERATURES).tag(sync=True)
    seed = Choice(_SEEDS).tag(sync=True)
    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self, model=None, link=_ARGMAX, weight=0.0, temperature=1.0, seed=0,
        *, start=0, target=5, number=4, span=6.0,
    ):  # fmt: skip
        model = toy_model(seed=5) if model is None else model
        self._steps = _TwoSteps(model, start, target, number)
        if isinstance(span, bool) or not isinstance(span, int | float) or not 0 < span < float("inf"):
            raise CourseError(f"The span is {span!r}. Give a number above 0, such as 6.0.")
        self._weights = torch.linspace(-span, span, _PLACES, dtype=torch.float64)
        super().__init__(link=link, weight=weight, temperature=temperature, seed=seed)
        self._curves = {
            (name, *noise): self._steps.curve(self._weights, name, *noise)
            for name in LINKS
            for noise in ([(t, s) for t in _TEMPERATURES for s in _SEEDS] if name == _GUMBEL else [()])
        }
        self.set_trait("shown", self._state(start, target))

    @traitlets.validate("weight")
    def _at_a_place(self, proposal):
        value, span = proposal["value"], self._weights[-1].item()
        if not -span <= value <= span:  # also refuses NaN
            raise CourseError(f"The weight is {value}, and the slider goes from {-span:g} to {span:g}.")
        return round(self._weights[self._place(value)].item(), 6) + 0.0  # no -0.0

    def _place(self, weight):
        return (self._weights - weight).abs().argmin().item()

    def _noise(self, link):
        return (self.temperature, self.seed) if link == _GUMBEL else ()

    def curve(self, link=None):
        """The `Curve` of a link at the present temperature and seed. link: str, None for the present one."""
        link = self._known(link)
        return self._curves[link, *self._noise(link)]

    def chain(self, link=None):
        """Every tensor from the weight to the loss at the present place: list of `ChainTensor`.

        link: str, None for the present one
        """
        link = self._known(link)
        return self._steps.chain(self._weights[[self._place(self.weight)]], link, *self._noise(link))

    def _known(self, link):
        if link is not None and link not in LINKS:
            raise CourseError(f"There is no link {link!r}. Give {' or '.join(map(repr, LINKS))}.")
        return link or self.link

    def _state(self, start, target):
        """What the page needs: the chain of each link, and all curves as int16 with the scale of each."""
        scales, columns = {}, []
        for (link, *noise), curve in self._curves.items():
            own = scales[" ".join(map(str, [link, *noise]))] = []
            for values in (curve.losses, *curve.gradients.values()):
                own.append(float(f"{values.abs().max().item() or 1.0:.6g}"))
                columns.append((values / own[-1] * _UNITS).round().short())
        return {
            "weights": self._weights.tolist()[:: _PLACES - 1],
            "places": _PLACES,
            "start": start,
            "target": target,
            "tokens": self._steps.tokens(self._weights),
            # Each tensor's facts but its gradient, and whether one arrives.
            "chains": {
                link: [[*tensor[:-1], tensor.gradient is not None] for tensor in self.chain(link)]
                for link in LINKS
            },
            "scales": scales,
            "columns": torch.cat(columns).numpy().astype("<i2").tobytes(),
            "temperatures": _TEMPERATURES,
            "seeds": _SEEDS,
        }

    def _rows(self):
        """Loss, gradient and finite difference of each link at the present place: list of list of str."""
        place = self._place(self.weight)
        rows = []
        for link in LINKS:
            curve = self.curve(link)
            gradient = curve.gradients.get("weight")
            numbers = [curve.losses, gradient, curve.differences()]
            rows.append([link, *("none" if n is None else f"{n[place].item() + 0.0:.2f}" for n in numbers)])
        return rows

    def _chain_rows(self):
        return [
            (
                name,
                dtype,
                f"requires_grad={needs}",
                grad_fn or "no grad_fn",
                "none" if g is None else f"{g:.2f}",
            )
            for name, _, dtype, needs, grad_fn, g in self.chain()
        ]

    def summary(self):
        lines = [f"Weight {self.weight:g}: loss, gradient by autograd, finite difference"]
        lines += [
            f"{name:18}{loss:>8}{gradient:>8}{slope:>8}" for name, loss, gradient, slope in self._rows()
        ]
        lines.append(f"From the weight to the loss with {self.link}; last, the gradient that arrives")
        lines += [f"{name:14}{' '.join(facts)}" for name, *facts in self._chain_rows()]
        return "\n".join(lines)

    def still(self):
        at = f"Weight {self.weight:g}, temperature {self.temperature:g}, seed {self.seed}"
        links = html_table(["Link", "Loss", "Gradient by autograd", "Finite difference"], self._rows())
        header = ["Tensor", "dtype", "requires_grad", "grad_fn", "Gradient that arrives"]
        chain = html_table(header, self._chain_rows())
        return f"<p>{at}</p>{links}<p>From the weight to the loss with {html.escape(self.link)}</p>{chain}"


class _TwoSteps:
    """The two steps, run for several values of the weight at a time: one row each."""

    def __init__(self, model, start, target, number):
        if model.config.is_encoder_decoder:
            raise CourseError(
                f"{type(model).__name__} is an encoder-decoder model, and GradientLink takes two steps of a "
                "decoder. Leave the model out for a small one of ours."
            )
        table = model.get_input_embeddings().weight
        width = model.get_output_embeddings().weight.shape[1]
        for name, value, limit in (
            ("start", start, len(table)),
            ("target", target, len(table)),
            ("number", number, width),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
                raise CourseError(
                    f"{name} is {value!r}, and this model needs a whole number from 0 to {limit - 1:,}. "
                    f"Type {name}=1."
                )
        self.model, self.start, self.target, self.number = model, start, target, number

    def run(self, weights, link, *noise):
        """Every tensor from the weights to the losses, by name, with the graph between them: dict.

        weights: float64 [rows]; link: str; noise: temperature and seed of Gumbel-softmax
        """
        model, table = self.model, self.model.get_input_embeddings()
        device, dtype = table.weight.device, table.weight.dtype
        prompt = torch.full((len(weights), 1), self.start, device=device)
        with torch.enable_grad():
            weight = weights.to(device, dtype, copy=True).requires_grad_()
            first = model(prompt, output_hidden_states=True).hidden_states[-1][:, -1]
            hidden = (
                first + weight[:, None] * torch.eye(first.shape[1], device=device, dtype=dtype)[self.number]
            )
            logits = model.get_output_embeddings()(hidden)
            token = _linked(logits, link, *noise)
            embedding = table(token) if link == _ARGMAX else token @ table.weight
            inputs = torch.stack([table(prompt[:, 0]), embedding], dim=1)
            next_logits = model(inputs_embeds=inputs).logits[:, -1]
            target = torch.full((len(weights),), self.target, device=device)
            loss = cross_entropy(next_logits, target, reduction="none" if len(weights) > 1 else "mean")
        return {
            "weight": weight,
            "logits": logits,
            "token": token,
            "embedding": embedding,
            "next_logits": next_logits,
            "loss": loss,
        }

    def gradients(self, tensors):
        """What arrives at each of the tensors that `run` gave: dict from name to tensor or None."""
        if not tensors["loss"].requires_grad:  # argmax, in a model whose own weights are frozen
            return dict.fromkeys(tensors)
        asked = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
        found = torch.autograd.grad(tensors["loss"].sum(), list(asked.values()), allow_unused=True)
        return dict.fromkeys(tensors) | dict(zip(asked, found, strict=True))

    def curve(self, weights, link, *noise):
        tensors = self.run(weights, link, *noise)
        losses = tensors["loss"].detach().double().cpu()
        if not losses.isfinite().all():
            raise CourseError("The loss is not a finite number everywhere. Give a smaller span, such as 1.0.")
        found = self.gradients(tensors)
        del found["loss"]  # 1 everywhere
        return Curve(
            weights,
            losses,
            {
                name: (g if g.ndim == 1 else g.norm(dim=1)).double().cpu()
                for name, g in found.items()
                if g is not None
            },
        )

    def chain(self, weight, link, *noise):
        code = {
            "weight": f"added to number {self.number} of the hidden state",
            "logits": "lm_head(hidden)",
            "token": _CODE[link],
            "embedding": "embeddings(token)" if link == _ARGMAX else "token @ embeddings.weight",
            "next_logits": "model(inputs_embeds=…).logits[:, -1]",
            "loss": f"cross_entropy(next_logits, {self.target})",
        }
        tensors = self.run(weight, link, *noise)
        return [
            ChainTensor(
                name=name,
                code=code[name],
                dtype=str(tensors[name].dtype).removeprefix("torch."),
                requires_grad=tensors[name].requires_grad,
                grad_fn=tensors[name].grad_fn and tensors[name].grad_fn.name(),
                gradient=None if g is None else (g if g.numel() == 1 else g.norm()).item(),
            )
            for name, g in self.gradients(tensors).items()
        ]

    def tokens(self, weights):
        """The id that argmax gives at each weight: list of int."""
        return self.run(weights, _ARGMAX)["token"].tolist()


def _linked(logits, link, *noise):
    """What `link` makes of logits [rows, vocab]: the same noise for every row."""
    if link == _ARGMAX:
        return logits.argmax(-1)
    if link == _SOFTMAX:
        return soft(logits)
    if link == _STRAIGHT:
        return straight_through(logits)
    temperature, seed = noise
    rows = [
        gumbel(row, temperature, generator=torch.Generator(row.device).manual_seed(seed))
        for row in logits.split(1)
    ]
    return rows[0] if len(rows) == 1 else torch.cat(rows)
