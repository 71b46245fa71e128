"""Two steps of generation with a link between them, run for several values of one weight at a time."""

from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy, one_hot

from .errors import CourseError
from .inputs.causal import check_causal
from .inputs.limits import unwrapped
from .inputs.numbers import at_least_float32, integer
from .relaxations import gumbel, soft, straight_through

ARGMAX, SOFTMAX, GUMBEL, STRAIGHT = LINKS = ("argmax", "softmax", "Gumbel-softmax", "straight-through")
_TOKEN = {  # as a learner would type it
    ARGMAX: "logits.argmax(-1)",
    SOFTMAX: "logits.softmax(-1)",
    GUMBEL: "((logits + noise) / temperature).softmax(-1)",
    STRAIGHT: "one_hot + probs - probs.detach()",
}


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
    gradients:       dict from the name of each tensor of the chain that a gradient reaches, but for the loss,
                     to float64 [places], as ChainTensor has it
    """

    weights: torch.Tensor
    losses: torch.Tensor
    gradients: dict

    def differences(self) -> torch.Tensor:
        """The finite difference of the loss, over one place of the slider on each side: float64 [places]."""
        (slopes,) = torch.gradient(self.losses, spacing=(self.weights,))
        return slopes


class TwoSteps:
    """A model, a prompt of the one token `start`, and the token `target` that the second step is to give.

    The first step's logits are those of its last hidden state, which the output head reads, with a weight
    added to the number `number` of it. What a link makes of them is what the second step reads after the
    prompt. Its loss is the surprise at `target`, in nats.

    Raises CourseError for a model that is not a decoder, for one in training mode, and for ids and a
    number that it does not have.
    """

    def __init__(self, model: Any, start: int, target: int, number: int) -> None:
        model = unwrapped(model)
        check_causal(model, "these are two steps of a decoder")
        if model.training:
            raise CourseError(
                "The model is in training mode, where dropout changes each loss. Type model.eval()."
            )
        vocabulary, width = model.get_output_embeddings().weight.shape
        given = {"start": (start, vocabulary), "target": (target, vocabulary), "number": (number, width)}
        for name, (value, count) in given.items():
            whole = integer(value)
            if whole is None or not 0 <= whole < count:
                raise CourseError(
                    f"{name} is {value!r}, and this model takes a whole number from 0 to {count - 1:,}. "
                    f"Type {name}=1."
                )
        self.model, self.start, self.target, self.number = model, int(start), int(target), int(number)

    def run(self, weights: torch.Tensor, link: str, *noise) -> dict[str, torch.Tensor]:
        """Every tensor from the weights to the losses, with the graph between them: dict by name.

        weights: float64 [rows], each a value of the weight; link: str; noise: temperature and seed of
        Gumbel-softmax
        """
        embeddings, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        device = embeddings.weight.device
        prompt = torch.full((len(weights), 1), self.start, device=device)
        place = one_hot(torch.tensor(self.number, device=device), head.weight.shape[1])
        with torch.enable_grad():
            # What the model reads for each id: some layers scale their weight (Gemma 3).
            table = embeddings(torch.arange(len(embeddings.weight), device=device))  # (vocabulary, width)
            weight = weights.to(table, copy=True).requires_grad_()
            # Added where the head reads: some models go on with what it returns (Granite scales it, Gemma 2
            # caps it).
            moved = head.register_forward_pre_hook(
                lambda head, args: (args[0] + weight[:, None, None] * place, *args[1:])
            )
            try:
                logits = self.model(prompt).logits[:, -1]
            finally:
                moved.remove()
            token = _linked(logits, link, *noise)
            embedding = embeddings(token) if link == ARGMAX else token @ table
            inputs = torch.stack([embeddings(prompt[:, 0]), embedding], dim=1)
            next_logits = self.model(inputs_embeds=inputs).logits[:, -1]
            targets = torch.full_like(prompt[:, 0], self.target)
            reduction = "none" if len(weights) > 1 else "mean"
            loss = cross_entropy(at_least_float32(next_logits), targets, reduction=reduction)
        return {
            "weight": weight,
            "logits": logits,
            "token": token,
            "embedding": embedding,
            "next_logits": next_logits,
            "loss": loss,
        }

    def curve(self, weights: torch.Tensor, link: str, *noise) -> Curve:
        """The `Curve` of a link. Raises CourseError for losses that are not finite."""
        tensors = self.run(weights, link, *noise)
        losses = tensors["loss"].detach().double().cpu()
        if not losses.isfinite().all():
            raise CourseError("The loss is not a finite number everywhere. Give a smaller span, such as 1.0.")
        found = {name: gradient for name, gradient in _gradients(tensors).items() if gradient is not None}
        found.pop("loss", None)  # 1 everywhere
        return Curve(
            weights,
            losses,
            {name: (g if g.ndim == 1 else g.norm(dim=1)).double().cpu() for name, g in found.items()},
        )

    def chain(self, weight: torch.Tensor, link: str, *noise) -> list[ChainTensor]:
        """All tensors for one value of the weight, float64 [1]: list of `ChainTensor`."""
        code = {
            "weight": f"added to number {self.number} of the hidden state",
            "logits": "model(input_ids).logits[:, -1]",
            "token": _TOKEN[link],
            "embedding": "embeddings(token)" if link == ARGMAX else "token @ embeddings.weight",
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
                grad_fn=(operation := tensors[name].grad_fn) and operation.name(),
                gradient=None if g is None else (g if g.numel() == 1 else g.norm()).item(),
            )
            for name, g in _gradients(tensors).items()
        ]


def _gradients(tensors):
    """What arrives at each of the tensors of `TwoSteps.run`: dict from name to tensor or None."""
    found = dict.fromkeys(tensors)
    if tensors["loss"].requires_grad:  # else nothing leads back: argmax, in a model of frozen weights
        asked = [name for name, tensor in tensors.items() if tensor.requires_grad]
        inputs, loss = [tensors[name] for name in asked], tensors["loss"]
        gradients = torch.autograd.grad(loss, inputs, torch.ones_like(loss), allow_unused=True)
        found |= dict(zip(asked, gradients, strict=True))
    return found


def _linked(logits, link, *noise):
    """What `link` makes of logits [rows, vocab]; for Gumbel-softmax with the same noise in every row."""
    if link == ARGMAX:
        return logits.argmax(-1)
    if link == SOFTMAX:
        return soft(logits)
    if link == STRAIGHT:
        return straight_through(logits)
    temperature, seed = noise
    rows = [
        gumbel(row, temperature, generator=torch.Generator(row.device).manual_seed(seed))
        for row in logits.split(1)
    ]
    return rows[0] if len(rows) == 1 else torch.cat(rows)
